"""What the compiler makes of the Triton kernels: registers, spills and shared memory. Needs no GPU.

    python -m benchmarks kernels                       # all of them, some minutes
    python -m benchmarks kernels forward bfloat16 64 9.0

A program may hold 99 KB of shared memory on consumer cards of capability 8.x, 163 KB on an A100
(8.0) and 227 KB on an H100 (9.0).
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)  # Triton asks once, now

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from course_lib.attention import triton_flash
from course_lib.attention.triton_flash import DTYPES, HEAD_SIZES, launch_options

KERNELS = {
    "forward": triton_flash.forward_kernel,
    "row term": triton_flash.row_term_kernel,
    "keys": triton_flash.backward_keys_kernel,
    "queries": triton_flash.backward_queries_kernel,
}
SHARED = {"8.0": 99 * 2**10, "9.0": 227 * 2**10}
PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"


def build(which: str, dtype: torch.dtype, head: int, capability: str) -> dict[str, int]:
    """Compile one kernel, with causal, for one capability."""
    kernel = KERNELS[which]
    options = {"ROWS": 64, "num_warps": 4, "num_stages": 1}  # of the row term's kernel
    if which != "row term":
        options = launch_options(which, head, dtype, SHARED[capability])
    values = {"HEAD": head, "CAUSAL": True, **options}
    element = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]
    types = {"L": "*fp32", "D": "*fp32", "n": "i32", "n_q": "i32", "n_k": "i32", "scale": "fp32"}
    signature = {
        name: "constexpr" if name in values else types.get(name, f"*{element}")
        for name in kernel.arg_names
    }
    place = {name: (i,) for i, name in enumerate(kernel.arg_names)}
    compiled = triton.compile(
        ASTSource(
            kernel,
            signature,
            {place[name]: values[name] for name in place if name in values},
            # Tensors begin at multiples of 16 bytes, here as from PyTorch.
            {place[n]: [["tt.divisibility", 16]] for n in place if signature[n].startswith("*")},
        ),
        target=GPUTarget("cuda", int(10 * float(capability)), 32),
        options={name: options[name] for name in ("num_warps", "num_stages")},
    )
    said = assemble(compiled.asm["ptx"])
    return {
        "registers": int(re.search(r"Used (\d+) registers", said)[1]),
        "spilled": int(re.search(r"(\d+) bytes spill stores", said)[1]),
        "shared": compiled.metadata.shared,
        "matrix units": len(re.findall(r"\b(?:wgmma\.mma_async|mma)\.sync", compiled.asm["ptx"])),
    }


def assemble(ptx: str) -> str:
    """What ptxas, which comes with Triton, says of a program."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)[1]
        command = [PTXAS, "-v", f"--gpu-name={target}", file.name, "-o", os.devnull]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def main(*argv: str) -> int:
    """A line for each kernel; 1 where shared memory is too small for one of them."""
    by_name = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
    wanted = [
        row
        for row in itertools.product(KERNELS, by_name, map(str, HEAD_SIZES), SHARED)
        if all(word in row for word in argv)
    ]
    fits = bool(wanted)
    print("kernel    dtype     head  capability: registers, bytes spilled, shared memory")
    for which, dtype, head, capability in wanted:
        found = build(which, by_name[dtype], int(head), capability)
        print(
            f"{which:9s} {dtype:9s} {head:>4s}  {capability}: {found['registers']:3d}"
            f" {found['spilled']:5d} {found['shared']:7d}  matrix units {found['matrix units']}",
            flush=True,
        )
        fits &= found["shared"] <= SHARED[capability]
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
