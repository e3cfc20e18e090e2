"""The simplest data-parallel training: each process a share of the batch, gradients averaged.

Notebooks start these functions in several processes, with ``course_lib.parallel.run_processes``.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from course_lib.autoregressive import MADE
from course_lib.checks import check_floats, check_int, check_levels
from course_lib.parallel import ring_all_reduce_gloo

__all__ = ["Sums", "Trained", "sum_of_draws", "train_share"]


class Trained(NamedTuple):
    """What a process has in the end, and the loss of its own examples before each step, in nats."""

    parameters: dict[str, Tensor]
    losses: list[float]


def train_share(digits: Tensor, steps: int, parts: int = 1, batch_size: int = 64) -> Trained:
    """Train a MADE on binary images, together with all processes of the current group.

    Without a group this is one process with the whole batch.

    Args:
        digits: Zeros and ones ``[N, D]``, the same in every process.
        steps: Steps of Adam.
        parts: In how many parts, one after the other, this process goes through its share.
        batch_size: Examples a step, in all processes together; processes · parts must divide it.

    """
    check_floats("digits", digits, (None, None))
    check_levels("digits", digits, 2)
    check_int("steps", steps, minimum=1)
    check_int("parts", parts, minimum=1)
    n, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    check_int("batch_size", batch_size, minimum=1, maximum=len(digits))
    if batch_size % (n * parts):
        raise ValueError(
            f"batch_size must be a multiple of processes · parts = {n * parts}, got {batch_size}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MADE(digits.shape[1], [128])  # the same in every process
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(steps):
        order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(step))
        share = digits[order[:batch_size]].tensor_split(n)[rank]
        optimizer.zero_grad()
        loss = 0.0
        for part in share.tensor_split(parts):
            part_loss = model.loss(part)
            part_loss.backward()  # adds to p.grad
            loss += part_loss.item() / parts
        for p in model.parameters():
            if n > 1:
                dist.all_reduce(p.grad)  # the sum over all processes
            p.grad /= n * parts
        optimizer.step()
        losses.append(loss)
    return Trained({name: p.detach() for name, p in model.named_parameters()}, losses)


class Sums(NamedTuple):
    """What two ways to sum up give in this process."""

    ring: Tensor
    gloo: Tensor


def sum_of_draws(size: int) -> Sums:
    """Normal numbers ``[size]`` of seed r in process r, summed by the ring and by gloo itself."""
    check_int("size", size, minimum=1)
    mine = torch.randn(size, generator=torch.Generator().manual_seed(dist.get_rank()))
    ring = ring_all_reduce_gloo(mine)
    dist.all_reduce(mine)
    return Sums(ring, mine)
