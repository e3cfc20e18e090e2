"""Processes on this machine: what they gain, and what their messages cost.

- ``all_reduce`` over gloo by size, two processes: a line through the times gives this machine's
  bandwidth and latency, as ``ring_time`` wants them. Beside it our ring of messages.
- A training step of our ``DataParallel`` beside PyTorch's ``DistributedDataParallel``.
- ``fit`` on the digits, one process and two, each with one thread, the same batch in all: wall
  time of a step, its speed-up, and whether both end with the same model.

What is measured is wall time, for processes wait for each other: on a busy machine the figures
say little. Candidates take turns, and medians are compared.
"""

import os
import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn

from course_lib.data import load_digits
from course_lib.nn import MLP
from course_lib.parallel import DataParallel, ring_all_reduce_gloo, ring_time, run_processes
from course_lib.training import fit

SIZES = [1_000, 10_000, 100_000, 1_000_000, 4_000_000]  # numbers, of 4 bytes each
STEPS = 200


def medians(candidates: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Seconds of each, called in turn; all processes begin together."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for repetition in range(repetitions + 3):
        for name, call in candidates.items():
            dist.barrier()
            started = time.perf_counter()
            call()
            if repetition >= 3:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def sums() -> dict[int, dict[str, float]]:
    """Seconds of a sum by number of entries."""
    found = {}
    for size in SIZES:
        t = torch.ones(size)
        candidates = {"theirs": lambda t=t: dist.all_reduce(t.clone())}
        candidates["ours"] = lambda t=t: ring_all_reduce_gloo(t)
        found[size] = medians(candidates, 30 if size < 1_000_000 else 10)
    return found


def network() -> nn.Module:
    """Half a million parameters."""
    width = 384
    layers = [layer for _ in range(3) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), *layers, nn.Linear(width, 64))


def steps() -> dict[str, float]:
    """Seconds of a forward and backward pass of either wrapper, in buckets of 1 MB."""
    x = torch.randn(128, 64, generator=torch.Generator().manual_seed(dist.get_rank()))
    ours = DataParallel(network(), bucket_bytes=2**20)
    theirs = nn.parallel.DistributedDataParallel(network(), bucket_cap_mb=1)

    def our_step() -> None:
        ours.zero_grad()
        ours(x).square().mean().backward()
        ours.finish()

    def their_step() -> None:
        theirs.zero_grad()
        theirs(x).square().mean().backward()

    return medians({"ours": our_step, "theirs": their_step}, 40)


class Autoencoder(nn.Module):
    """Something to train on the digits."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = MLP(64, [512, 512, 512], 64)

    def loss(self, x: torch.Tensor, *, generator: torch.Generator | None = None) -> torch.Tensor:
        """Of noisy images."""
        noise = 0.3 * torch.randn(x.shape, generator=generator)
        return (self.net(x.flatten(1) + noise.flatten(1)) - x.flatten(1)).square().mean()


def train(batch_size: int) -> tuple[float, float]:
    """Seconds of a step of ``fit``, and the loss in the end."""
    os.environ["COURSE_WIDGETS"] = "static"
    images, _ = load_digits("train")
    options = {"batch_size": batch_size, "progress": False, "device": "cpu"}
    fit(Autoencoder(), images, steps=5, **options)
    dist.barrier()
    started = time.perf_counter()
    history = fit(Autoencoder(), images, steps=STEPS, **options)
    return (time.perf_counter() - started) / STEPS, history.loss()


def line_through(times: dict[int, float]) -> tuple[float, float]:
    """Bandwidth in bytes a second and latency in seconds of a ring of two, by least squares.

    In relative errors, so that small messages count as much as large ones.
    """
    seconds = torch.tensor(list(times.values()), dtype=torch.float64)
    size = 4 * torch.tensor(list(times), dtype=torch.float64)
    # ring_time of two processes: size / bandwidth + 2 latency
    rows = torch.stack([size, torch.full_like(size, 2)], dim=1) / seconds[:, None]
    slope, latency = torch.linalg.lstsq(rows, torch.ones(len(size), 1).double()).solution[:, 0]
    return 1 / slope.item(), latency.item()


def main() -> int:
    """Print all figures."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, two processes over gloo")
    found = run_processes(sums, 2, timeout=300)[0]
    bandwidth, latency = line_through({size: row["theirs"] for size, row in found.items()})
    network_ = {"processes": 2, "bandwidth": bandwidth, "latency": latency}
    for size, row in found.items():
        model = ring_time(4 * size, **network_)
        print(
            f"  {4 * size:>10,} bytes: all_reduce {1e3 * row['theirs']:8.3f} ms, "
            f"ring_all_reduce_gloo {1e3 * row['ours']:8.3f} ms, fitted {1e3 * model:8.3f} ms"
        )
    print(f"  fitted: {bandwidth / 1e9:.2f} GB/s, {1e6 * latency:.0f} us a message")

    found = run_processes(steps, 2, timeout=300)[0]
    print(
        f"a step: ours {1e3 * found['ours']:.2f} ms, theirs {1e3 * found['theirs']:.2f} ms "
        f"({found['theirs'] / found['ours']:.2f} x ours)"
    )
    for batch_size in (64, 1024):
        ((one, loss_of_one),) = run_processes(train, 1, batch_size, timeout=300)
        (two, loss_of_two), _ = run_processes(train, 2, batch_size, timeout=300)
        print(
            f"fit on the digits, batch {batch_size}: {1e3 * one:.2f} ms a step in one process, "
            f"{1e3 * two:.2f} ms in two: {one / two:.2f} x (losses {loss_of_one:.4f}, "
            f"{loss_of_two:.4f})"
        )
    return 0
