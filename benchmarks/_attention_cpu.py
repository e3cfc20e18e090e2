"""Attention in tiles beside the whole matrix and PyTorch's own kernel, on one thread of a CPU.

float32, one head of size 64, causal and not. Candidates take turns, and what is compared is the
median of the processor time, in which the system's share is counted: a fresh matrix of 64 MB costs
its pages. Memory is what the system says: by how much the largest resident size of a fresh process
grows, from a call with 64 tokens to a call with N, forward and backward.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks._timing import milliseconds
from course_lib.attention import flash_attention, naive_attention, peak_bytes

LENGTHS = (1024, 4096, 16384)
REPETITIONS = {1024: 31, 4096: 7, 16384: 1}
STATUS = Path("/proc/self/status")  # of Linux
NAIVE_NEEDS = 6  # matrices of N x N numbers, there and back with a mask


def pytorchs(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """PyTorch's kernel, compiled: what a line of Python for each step can't reach."""
    return scaled_dot_product_attention(q, k, v, is_causal=causal)


ATTENDS = {"ours": flash_attention, "naive": naive_attention, "sdpa": pytorchs}


def measure_on_cpu() -> bool:
    """Print times and memory; whether tiles are as fast as naive from N = 4096, and O(N)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, float32, one head of size 64, one thread", flush=True)
    good = all([compare(n, causal) for causal in (False, True) for n in LENGTHS])
    return lean() and good


def affordable(n: int) -> list[str]:
    """Who is measured at this length: naive attention only where its matrices fit."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return [name for name in ATTENDS if name != "naive" or NAIVE_NEEDS * 4 * n * n < memory / 2]


def compare(n: int, causal: bool) -> bool:
    """One length: forward, backward, and both, of all."""
    names = affordable(n)
    candidates = {
        "forward": {name: forward(ATTENDS[name], n, causal) for name in names},
        "backward": {name: backward(ATTENDS[name], n, causal) for name in names},
    }
    times = {
        way: milliseconds(calls, repetitions=REPETITIONS[n], warm_up=1)
        for way, calls in candidates.items()
    }
    times["both"] = {name: sum(t[name] for t in times.values()) for name in names}
    good = True
    print(f"N = {n}, {'causal' if causal else 'not causal'}:")
    for way, medians in times.items():
        others = "".join(
            f"   {name} {medians[name]:9.1f} ms, {medians[name] / medians['ours']:5.2f} x ours"
            for name in names[1:]
        )
        print(f"  {way:9s} ours {medians['ours']:9.1f} ms{others}", flush=True)
        if way != "backward" and n >= 4096:
            good &= medians.get("naive", float("inf")) >= medians["ours"]
    return good


def draw(n: int) -> list[Tensor]:
    """Queries, keys and values, and the gradient of the output."""
    return list(torch.randn(4, 1, 1, n, 64))


def forward(attend: Callable, n: int, causal: bool) -> Callable[[], None]:
    """A call without gradients."""
    q, k, v, _ = draw(n)

    def call() -> None:
        with torch.no_grad():
            attend(q, k, v, causal=causal)

    return call


def backward(attend: Callable, n: int, causal: bool) -> Callable[[], None]:
    """The way back alone, again and again."""
    *inputs, do = draw(n)
    inputs = [x.requires_grad_() for x in inputs]
    o = attend(*inputs, causal=causal)
    return lambda: torch.autograd.grad(o, inputs, do, retain_graph=True)


def there_and_back(attend: Callable, n: int) -> None:
    """Once forward and once backward."""
    backward(attend, n, causal=False)()


def lean() -> bool:
    """Print how much memory each needs; whether ours grows no faster than N."""
    grown = {}
    print("peak memory, forward and backward, above a call with 64 tokens (and live bytes):")
    for n in LENGTHS:
        line = f"  N = {n:5d}"
        for name in affordable(n):
            grown[name, n] = in_a_fresh_process(name, n)
            live = peak_bytes(there_and_back, ATTENDS[name], n) / 2**20
            line += f"   {name} {grown[name, n]:8.1f} MB ({live:8.1f})"
        print(line, flush=True)
    return grown["ours", LENGTHS[2]] < 1.5 * 4 * max(grown["ours", LENGTHS[1]], 4)


def in_a_fresh_process(name: str, n: int) -> float:
    """Megabytes by which the largest resident size grows."""
    command = [sys.executable, "-m", "benchmarks._attention_cpu", name, str(n)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def largest_resident_size() -> float:
    """Of this process since it was forgotten, in megabytes."""
    if STATUS.exists():
        return int(STATUS.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def forget_the_largest() -> None:
    """Start again from the size of now: importing PyTorch takes more for a moment (Linux only)."""
    if STATUS.exists():
        STATUS.with_name("clear_refs").write_text("5")


if __name__ == "__main__":
    torch.set_num_threads(1)
    attend = ATTENDS[sys.argv[1]]
    there_and_back(attend, 64)
    forget_the_largest()
    before = largest_resident_size()
    there_and_back(attend, int(sys.argv[2]))
    print(largest_resident_size() - before)
