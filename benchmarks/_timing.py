"""What the benchmarks share: candidates take turns within one run, and rounds are compared.

What is measured is the processor time of one thread: what else runs on the machine matters less.
"""

import contextlib
import ctypes
import math
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn


def training_step(model: nn.Module, loss: Callable, x: Tensor) -> Callable[[], None]:
    """Forward, backward, and a step of AdamW."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        loss(x).backward()
        optimiser.step()

    return step


class Medians(dict[str, float]):
    """Milliseconds of each, and how far off their ratios to the first may be, as a share."""

    errors: dict[str, float]


def milliseconds(
    candidates: dict[str, Callable[[], object]], *, repetitions: int = 150, warm_up: int = 10
) -> Medians:
    """Processor time of each, in one thread: its median, and of the others by their ratios.

    In every round each is called once, in an order drawn anew: what runs next finds the caches as
    the one before left them, and of two equal steps the one that always followed the other was up
    to 2 % faster. What disturbs a round, a slow clock or a full cache, disturbs all of them: so a
    candidate's ratio to the first is the median of their ratios within a round, and it is told as
    the first's median times that.
    (The same step under two names, 100 rounds on a busy machine: such a ratio strays from 1 by 1.3
    %, that of two medians by 2 %, that of two minima by 3 %.)
    """
    torch.set_num_threads(1)
    keep_memory()
    durations: dict[str, list[float]] = {name: [] for name in candidates}
    order, orders = list(candidates), random.Random(0)
    for repetition in range(warm_up + repetitions):
        before = order[-1]
        orders.shuffle(order)
        if order[0] == before:  # nobody comes after itself
            order.append(order.pop(0))
        for name in order:
            call = candidates[name]
            started = time.process_time()
            call()
            if repetition >= warm_up:
                durations[name].append(1000 * (time.process_time() - started))
    first = next(iter(durations.values()))
    ratios = {
        name: [b / a for a, b in zip(first, values, strict=True)]
        for name, values in durations.items()
    }
    median = statistics.median(first)
    medians = Medians({name: median * statistics.median(r) for name, r in ratios.items()})
    medians.errors = {name: error_of_median(r) for name, r in ratios.items()}
    return medians


def error_of_median(values: list[float]) -> float:
    """Two standard errors of a median, as a share of it: as of a normal law with these quartiles.

    Of a mean it would be 2 σ / √n with σ = (Q_3 − Q_1) / 1.349; a median's is √(π / 2) times that.
    """
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    spread = (high - low) / 1.349
    return 2 * math.sqrt(math.pi / 2 / len(values)) * spread / middle


def keep_memory() -> None:
    """Let glibc keep what is freed: else some sizes are given back, and asked for anew each time.

    Which ones is a matter of luck, of what else lies on the heap, and each new page costs more than
    to fill it: a batch of 128 takes up to a quarter longer then. That would be measured, and not
    the code. Other C libraries are left alone.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        trim_threshold, mmap_threshold = -1, -3
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**30)
        mallopt(mmap_threshold, 2**30) or mallopt(mmap_threshold, 2**25)  # glibc before 2.35


def report(what: str, medians: dict[str, float], *, slack: float = 0.0) -> bool:
    """Print a line for each; whether ours is as fast as every other, up to a share ``slack``.

    And up to what the rounds leave open, where they tell it: it is printed behind the ratio.
    """
    errors, good = getattr(medians, "errors", {}), True
    print(f"{what}:", flush=True)
    for name, value in medians.items():
        ratio, error = value / medians["ours"], errors.get(name, 0.0)
        told = f" ± {ratio * error:.2f}" if error else ""
        print(f"  {name:12s} {value:9.3f} ms   {ratio:6.2f}{told} x ours", flush=True)
        good &= ratio * (1 + error) * (1 + slack) >= 1
    return good
