"""Attention in tiles beside attention with the whole matrix, on one thread of a CPU.

``--device cuda`` measures the Triton kernels beside PyTorch's own on a GPU, where there is one.
"""

import argparse
import sys

from benchmarks._attention_cpu import measure_on_cpu
from benchmarks._attention_cuda import measure_on_gpu


def main(*argv: str) -> int:
    """Measure on the device that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks attention", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    measure = {"cpu": measure_on_cpu, "cuda": measure_on_gpu}[parser.parse_args(argv).device]
    return 0 if measure() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
