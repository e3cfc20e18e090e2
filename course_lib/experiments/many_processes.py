"""When many processes are not one big batch. Functions for ``run_processes``: each runs in all."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from course_lib.checks import check_bool, check_int, check_ints, check_one_of
from course_lib.parallel import DataParallel

__all__ = ["examples_seen", "forgotten_branch", "gradient_gap", "noise_of_average"]


def _network(kind: str) -> nn.Module:
    """A small network, the same everywhere, in float64."""
    generator = torch.Generator().manual_seed(0)
    norm = [nn.BatchNorm1d(16)] if kind == "batch norm" else []
    network = nn.Sequential(nn.Linear(4, 16), *norm, nn.Tanh(), nn.Linear(16, 1)).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return network


def gradient_gap(kind: str = "plain", sizes: Sequence[int] | None = None) -> float:
    """How far the averaged gradient of the shares is from that of the whole batch.

    Args:
        kind: ``"plain"``, ``"batch norm"`` (each process normalises by its own share) or
            ``"weighted"`` (plain, and each loss is multiplied with N times its share).
        sizes: How many examples each process gets; by default 16 each.

    Returns:
        The distance of the two gradients over the length of that of the whole batch.

    """
    check_one_of("kind", kind, ("plain", "batch norm", "weighted"))
    rank, n = dist.get_rank(), dist.get_world_size()
    sizes = [16] * n if sizes is None else list(sizes)
    check_ints("sizes", sizes, minimum=1)
    if len(sizes) != n:
        raise ValueError(f"sizes must have {n} entries, one a process, got {sizes}")
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(sum(sizes), 4, generator=generator, dtype=torch.float64)
    y = x.sum(dim=1, keepdim=True)

    shared = DataParallel(_network(kind))
    loss = (shared(x.split(sizes)[rank]) - y.split(sizes)[rank]).square().mean()
    if kind == "weighted":
        loss = loss * n * sizes[rank] / sum(sizes)
    loss.backward()
    shared.finish()
    whole = _network(kind)
    (whole(x) - y).square().mean().backward()

    ours, wanted = (
        torch.cat([p.grad.flatten() for p in network.parameters()]) for network in (shared, whole)
    )
    return ((ours - wanted).norm() / wanted.norm()).item()


def noise_of_average(same: bool, draws: int = 4000) -> float:
    """Variance of an average over processes of noise with variance 1: 1 / N, or not at all smaller.

    Args:
        same: Whether all processes draw from the same seed.
        draws: How often.

    """
    check_bool("same", same)
    check_int("draws", draws, minimum=2)
    seed = 0 if same else dist.get_rank()
    noise = torch.randn(draws, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    dist.all_reduce(noise)
    return (noise / dist.get_world_size()).var().item()


def examples_seen(same: bool, examples: int = 1000) -> list[int]:
    """How many examples were seen never, once, twice, ... in an epoch of all processes together.

    Each process shuffles all examples and goes through its own share of that order.

    Args:
        same: Whether all processes shuffle alike.
        examples: How many there are.

    """
    check_bool("same", same)
    check_int("examples", examples, minimum=1)
    rank, n = dist.get_rank(), dist.get_world_size()
    generator = torch.Generator().manual_seed(0 if same else rank)
    share = torch.randperm(examples, generator=generator).tensor_split(n)[rank]
    times = torch.zeros(examples, dtype=torch.int64)
    times[share] = 1
    dist.all_reduce(times)
    return times.bincount(minlength=n + 1).tolist()


class _Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.branch = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor, use_branch: bool) -> Tensor:
        return self.branch(self.trunk(x)) if use_branch else self.trunk(x)


def forgotten_branch(forgetful: int) -> str:
    """One step in which one process leaves out a part of the model. It says which, and stops.

    Args:
        forgetful: The rank of that process.

    """
    check_int("forgetful", forgetful, minimum=0)
    shared = DataParallel(_Branches())
    shared(torch.ones(3, 2), dist.get_rank() != forgetful).sum().backward()
    shared.finish()
    return "all parameters have a gradient"
