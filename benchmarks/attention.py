"""Attention in tiles beside attention with the whole matrix.

``--device cuda`` measures the Triton kernels beside PyTorch's own on a GPU, where there is one.
"""

import argparse
import sys

from benchmarks._attention_cuda import measure_on_gpu


def main(*argv: str) -> int:
    """Measure on the device that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks attention", description=__doc__)
    parser.add_argument("--device", choices=("cuda",), default="cuda")
    parser.parse_args(argv)
    return 0 if measure_on_gpu() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
