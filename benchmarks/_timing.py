"""What the benchmarks share: candidates take turns within one run, and their medians are compared.

What is measured is the processor time of one thread: what else runs on the machine matters less.
"""

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


def milliseconds(
    candidates: dict[str, Callable[[], object]], *, repetitions: int = 150, warm_up: int = 10
) -> dict[str, float]:
    """Median processor time of each, called in turn, in one thread."""
    torch.set_num_threads(1)
    durations: dict[str, list[float]] = {name: [] for name in candidates}
    for repetition in range(warm_up + repetitions):
        for name, call in candidates.items():
            started = time.process_time()
            call()
            if repetition >= warm_up:
                durations[name].append(1000 * (time.process_time() - started))
    return {name: statistics.median(values) for name, values in durations.items()}


def report(what: str, medians: dict[str, float], *, slack: float = 0.0) -> bool:
    """Print a line for each; whether ours is as fast as every other, up to a share ``slack``."""
    print(f"{what}:", flush=True)
    for name, value in medians.items():
        print(f"  {name:12s} {value:9.3f} ms   {value / medians['ours']:6.2f} x ours", flush=True)
    return all(value * (1 + slack) >= medians["ours"] for value in medians.values())
