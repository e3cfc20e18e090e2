"""Why steps are small: the exact density of the state before, for clusters on a line."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_int, check_number
from course_lib.diffusion import DiscreteSchedule

__all__ = ["ReverseDensity", "reverse_density"]


class ReverseDensity(NamedTuple):
    """q(x | x_t) of an earlier x, for clusters on a line: a Gaussian for each, all equally wide."""

    weights: Tensor  # [K], how likely x_t is to come from each cluster
    means: Tensor  # [K], of the earlier x, for each cluster
    inner: float  # its variance when the cluster is known

    def density(self, x: Tensor) -> Tensor:
        """q(``x`` | x_t), in the shape of ``x``."""
        bells = torch.exp(-((x[..., None] - self.means) ** 2) / (2 * self.inner))
        return (bells / math.sqrt(2 * math.pi * self.inner)) @ self.weights

    def mean(self) -> float:
        """The mean of the earlier x."""
        return (self.weights @ self.means).item()

    def variance(self) -> float:
        """Its variance: that of a cluster, and that of the clusters' means."""
        return self.inner + (self.weights @ (self.means - self.mean()) ** 2).item()

    def kurtosis(self) -> float:
        """E[(x − mean)⁴] / variance²: 3 for a Gaussian, 1 for two values that are equally likely.

        The mean of (d + √v ε)⁴ is d⁴ + 6 d² v + 3 v².
        """
        apart, v = (self.means - self.mean()) ** 2, self.inner
        fourth = self.weights @ (apart**2 + 6 * apart * v + 3 * v**2)
        return fourth.item() / self.variance() ** 2


def reverse_density(
    x_t: float, t: int, earlier: int, *, path: DiscreteSchedule, centres: Tensor, std: float = 0.0
) -> ReverseDensity:
    """Where the state was at an ``earlier`` time, if it is ``x_t`` at time ``t``: q(x | x_t).

    A cluster N(m, std²) is N(a m, spread) at the earlier time, and from there to t it is multiplied
    by r = a_t / a and gets noise of a variance ``added``. So for each cluster q(x | x_t) is a
    product of two Gaussians, as the posterior of DDPM is, and the clusters are weighted by how
    likely each made ``x_t``.

    Args:
        x_t: The state, a number.
        t: Its time, a whole time of the path.
        earlier: A time before it; −1 for the data.
        path: The schedule.
        centres: The centres m ``[K]`` of equally likely clusters, float64.
        std: The standard deviation of each cluster.

    Example:
        >>> path, centres = DiscreteSchedule.linear(1000), torch.tensor([-2.0, 2.0]).double()
        >>> for earlier in (299, 0):
        ...     step = reverse_density(0.0, 300, earlier, path=path, centres=centres, std=0.3)
        ...     print(f"{step.kurtosis():.2f}")
        3.00
        1.09

    """
    check_number("x_t", x_t, minimum=-math.inf)
    if not isinstance(path, DiscreteSchedule):
        raise ValueError(f"path must be a DiscreteSchedule, got {path!r}")
    check_int("t", t, minimum=0, maximum=path.t_max)
    check_int("earlier", earlier, minimum=-1, maximum=t - 1)
    check_floats("centres", centres, (None,), dtype=torch.float64)
    check_number("std", std, minimum=0)
    points = path.points(range(len(path)))  # the data, (1, 0), come first
    (a, b), (a_t, b_t) = points[earlier + 1], points[t + 1]
    r = a_t / a
    spread, added = (a * std) ** 2 + b**2, b_t**2 - (r * b) ** 2
    seen = r**2 * spread + added  # the variance of x_t in a cluster
    weights = torch.softmax(-((x_t - a_t * centres) ** 2) / (2 * seen), dim=0)
    means = (added * a * centres + r * spread * x_t) / seen
    return ReverseDensity(weights, means, spread * added / seen)
