"""Churn on data whose every step is known in closed form: what the sampler itself does to them."""

import math
from itertools import pairwise

from course_lib.checks import check_int, check_number, check_one_of
from course_lib.diffusion import karras_times

__all__ = ["width_with_churn"]

_STD = 0.5  # of the data


def width_with_churn(
    steps: int, churn: float, *, solver: str = "euler", s_noise: float = 1.0
) -> float:
    """How wide samples of N(0, 0.5²) come out, in widths of the data, with the exact guess of x_0.

    Each step first adds noise, from σ to (1 + γ) σ with γ = min(churn / steps, √2 − 1), but not
    beyond 80, and goes from there to the next σ. The guess is linear in x, so that every step
    multiplies x by a number and samples stay Gaussian: the result is exact, nothing is drawn.

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 2.

    Args:
        steps: How many, on Karras' noise levels from 80 to 0.002, and then to 0.
        churn: The paper's S_churn, for all steps together.
        solver: ``"euler"`` or ``"heun"``.
        s_noise: The noise that is added is multiplied by it.

    Example:
        >>> for churn in (0, 1000):
        ...     print(f"{width_with_churn(1000, churn):.2f}")
        1.00
        0.92

    """
    check_int("steps", steps, minimum=1)
    check_number("churn", churn, minimum=0)
    check_one_of("solver", solver, ("euler", "heun"))
    check_number("s_noise", s_noise, minimum=0)
    levels = [*karras_times(steps, sigma_min=0.002, sigma_max=80.0), 0.0]
    gamma = min(churn / steps, math.sqrt(2) - 1)
    variance = _STD**2 + levels[0] ** 2
    for sigma, then in pairwise(levels):
        high = min((1 + gamma) * sigma, levels[0])
        variance += s_noise**2 * (high**2 - sigma**2)
        slope = _slope(high)
        factor = 1 + (then - high) * slope
        if solver == "heun" and then > 0:
            factor = 1 + (then - high) * (slope + _slope(then) * factor) / 2
        variance *= factor**2
    return math.sqrt(variance) / _STD


def _slope(sigma: float) -> float:
    """dx/dσ = (x − D) / σ of this Gaussian, as a multiple of x."""
    return sigma / (_STD**2 + sigma**2)
