"""One guided step by Bayes' rule: what Taylor's first order says, and what it leaves out."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_number

__all__ = ["guided_mean", "tilted_moments"]


def guided_mean(mean: Tensor, variance: float, gradient: Tensor, scale: float = 1.0) -> Tensor:
    """The mean of a step towards a class: moved by the step's variance times the gradient.

    Reference:
        Dhariwal & Nichol 2021, https://arxiv.org/abs/2105.05233, algorithm 1.

    Args:
        mean: Of the step without a class, ``[B, *event]``.
        variance: Of the step.
        gradient: Of log p(y | x) at ``mean``, like it.
        scale: How much of it.

    """
    check_floats("mean", mean, None)
    check_floats("gradient", gradient, mean.shape, dtype=mean.dtype)
    check_number("variance", variance, above=0)
    return mean + scale * variance * gradient


def tilted_moments(
    mean: float, variance: float, log_weight: Callable[[Tensor], Tensor], *, nodes: int = 20_001
) -> tuple[float, float]:
    """Mean and variance of N(mean, variance) times a weight, on a line, by a fine grid.

    Args:
        mean: Of the Gaussian.
        variance: Of the Gaussian.
        log_weight: Of places ``[nodes]``, float64: the logarithm of the weight, in the same shape.
        nodes: How fine the grid is, over twelve standard deviations to either side.

    Example:
        >>> tilted_moments(0.0, 0.5, lambda x: 3.0 * x)  # a straight line only moves a Gaussian
        (1.5, 0.5)

    """
    check_number("variance", variance, above=0)
    side = 12 * variance**0.5
    x = torch.linspace(mean - side, mean + side, nodes, dtype=torch.float64)
    share = torch.softmax(log_weight(x) - (x - mean) ** 2 / (2 * variance), dim=0)
    centre = (share * x).sum()
    spread = (share * (x - centre) ** 2).sum()
    return round(centre.item(), 12), round(spread.item(), 12)
