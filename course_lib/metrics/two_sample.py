"""Whether two sets of samples come from one distribution."""

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_int, check_share

__all__ = ["energy_distance", "permutation_power", "permutation_test"]


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖ of samples ``[N, *event]`` and ``[M, *event]``.

    0 for one and the same distribution, and only then; unbiased, so that it may fall below 0.

    Reference:
        Székely, Rizzo 2013, "Energy statistics: a class of statistics based on distances".

    Example:
        >>> energy_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]]))
        -1.0

    """
    distances, first = _together(x, y)
    return _energies(distances, first).item()


def permutation_test(
    x: Tensor, y: Tensor, *, draws: int = 200, generator: torch.Generator | None = None
) -> float:
    """The share of ways to deal the samples out at random that lie as far apart: a p-value.

    Where both come from one distribution it falls to p or below with probability p at most. Where
    they don't it is small; how surely depends on the number of samples: ``permutation_power``.

    Reference:
        Székely, Rizzo 2013, section 6; Phipson, Smyth 2010, https://arxiv.org/abs/1603.05766, why
        the way that was found counts as one of them.

    Args:
        x: ``[N, *event]``.
        y: ``[M, *event]``.
        draws: How many random ways.
        generator: Source of the permutations.

    """
    check_int("draws", draws, minimum=1)
    distances, found = _together(x, y)
    dealt = [
        found[torch.randperm(len(found), generator=generator, device=_device(generator))]
        for _ in range(draws)
    ]
    energies = _energies(distances, torch.cat([found, *dealt], dim=1))
    slack = 1e-12 * distances.max()  # what rounding may do to a way that is the same again
    return (energies >= energies[0] - slack).double().mean().item()


def permutation_power(
    x: Tensor,
    y: Tensor,
    *,
    size: int,
    level: float = 0.05,
    repeats: int = 50,
    draws: int = 100,
    generator: torch.Generator | None = None,
) -> float:
    """How often the test finds a difference: its power, or its false alarms where there is none.

    Args:
        x: ``[N, *event]``, many samples of one distribution.
        y: ``[M, *event]``, of the other: the same, shifted, say.
        size: How many of each the test gets, drawn anew each time.
        level: The test "finds" a difference where its p-value is at most this.
        repeats: How many times.
        draws: As in ``permutation_test``.
        generator: Source of the samples and of the permutations.

    Returns:
        The share of the times.

    """
    check_int("repeats", repeats, minimum=1)
    check_share("level", level)
    check_floats("x", x, None)
    check_floats("y", y, (None, *x.shape[1:]), dtype=x.dtype)
    check_int("size", size, minimum=2, maximum=min(len(x), len(y)))
    found = 0
    for _ in range(repeats):
        some = [
            z[torch.randperm(len(z), generator=generator, device=_device(generator))[:size]]
            for z in (x, y)
        ]
        found += permutation_test(*some, draws=draws, generator=generator) <= level
    return found / repeats


def _device(generator: torch.Generator | None) -> torch.device | None:
    return None if generator is None else generator.device


def _together(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """All distances ``[N + M, N + M]``, and 1 for those of ``x``, 0 for the others, as a column."""
    check_floats("x", x, None)
    check_floats("y", y, (None, *x.shape[1:]), dtype=x.dtype)
    if x.ndim < 2:
        raise ValueError(f"x must have shape [N, *event], got {list(x.shape)}")
    if len(x) < 2 or len(y) < 2:
        raise ValueError(f"x and y must hold two samples at least, got {len(x)} and {len(y)}")
    both = torch.cat([x, y]).flatten(1).double()
    first = both.new_zeros(len(both), 1)
    first[: len(x)] = 1
    return torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist"), first


def _energies(d: Tensor, first: Tensor) -> Tensor:
    """The energy distance of those that a column of ``first`` deals out to the others, ``[K]``.

    By products with the distances ``d``: a sum over two sides is uᵀ d v, u and v of ones and zeros.
    """
    to_first = d @ first
    inside, across = (first * to_first).sum(0), ((1 - first) * to_first).sum(0)
    outside = d.sum() - inside - 2 * across
    n, m = first.sum(0), (1 - first).sum(0)
    return 2 * across / (n * m) - inside / (n * (n - 1)) - outside / (m * (m - 1))
