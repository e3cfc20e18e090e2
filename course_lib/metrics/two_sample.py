"""Whether two sets of samples come from one distribution."""

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_int

__all__ = ["energy_distance", "permutation_test"]


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖ of samples ``[N, *event]`` and ``[M, *event]``.

    0 for one and the same distribution, and only then; unbiased, so that it may fall below 0.

    Reference:
        Székely, Rizzo 2013, "Energy statistics: a class of statistics based on distances".
    """
    check_floats("x", x, None)
    check_floats("y", y, (None, *x.shape[1:]), dtype=x.dtype)
    if len(x) < 2 or len(y) < 2:
        raise ValueError(f"x and y must hold two samples at least, got {len(x)} and {len(y)}")
    d = torch.cdist(torch.cat([x, y]).flatten(1).double(), torch.cat([x, y]).flatten(1).double())
    return _energy(d, len(x)).item()


def _energy(d: Tensor, n: int) -> Tensor:
    """The energy distance of the first ``n`` samples to the others, of all distances ``d``."""
    m = len(d) - n
    return 2 * d[:n, n:].mean() - d[:n, :n].sum() / (n * (n - 1)) - d[n:, n:].sum() / (m * (m - 1))


def permutation_test(
    x: Tensor, y: Tensor, *, draws: int = 200, generator: torch.Generator | None = None
) -> float:
    """The share of ways to deal the samples out at random that lie as far apart: a p-value.

    Where both come from one distribution it falls below p with probability p at most. With a law
    that differs it is small; how surely depends on the number of samples, the test's power.

    Args:
        x: ``[N, *event]``.
        y: ``[M, *event]``.
        draws: How many random ways.
        generator: Source of the permutations.

    """
    check_int("draws", draws, minimum=1)
    found = energy_distance(x, y)
    both = torch.cat([x, y]).flatten(1).double()
    d = torch.cdist(both, both)
    as_far = 1
    for _ in range(draws):
        i = torch.randperm(len(both), generator=generator)
        as_far += int(_energy(d[i][:, i], len(x)) >= found)
    return as_far / (draws + 1)
