"""What guided samples are draws of, where all is known: a wide Gaussian, a narrow one for a label.

Three laws that coincide at scale 0 and 1, and at no other: the density p(x) (p(x | y) / p(x))^w
itself, and where the ODE and the reverse SDE end that follow the guided score. Both start from
infinitely much noise. For any data on a line ``noised_tilted_score`` is what they should follow.
"""

import math

import torch
from torch import Tensor, nn

from course_lib.checks import check_floats, check_number
from course_lib.diffusion import GaussianPath

__all__ = [
    "NestedGaussians",
    "guided_precision",
    "noised_tilted_score",
    "ode_variance",
    "sde_variance",
    "tilted_precision",
    "tilted_variance",
]


class NestedGaussians(nn.Module):
    """E[eps | x_t] on a line: x ~ N(0, wide) if nothing is known, N(0, narrow) given the label 0.

    Args:
        narrow: The variance of the data with the label.
        wide: The variance of all data, larger.
        path: The path along which x_t was noised.

    """

    null_class = 1
    event_shape = (1,)

    def __init__(self, narrow: float, wide: float, path: GaussianPath):
        _check(narrow, wide, 1.0)
        if not isinstance(path, GaussianPath):
            raise ValueError(f"path must be a GaussianPath, got {path!r}")
        super().__init__()
        variances = torch.tensor([narrow, wide], dtype=torch.float64)
        self.register_buffer("variances", variances)
        self.path = path

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """E[eps | x_t = ``x [B, 1]``] at times ``t [B]``, of labels ``y [B]``, 0 or the null 1."""
        y = torch.full((len(x),), self.null_class) if y is None else y
        a, b = self.path.amounts(self.path.times(t, len(x)), x)
        return b / (a**2 * self.variances[y][:, None] + b**2) * x


def tilted_variance(narrow: float, wide: float, scale: float) -> float:
    """Of the density p(x) (p(x | y) / p(x))^w: precisions add, with weights 1 − w and w."""
    _check(narrow, wide, scale)
    return 1 / ((1 - scale) / wide + scale / narrow)


def guided_precision(sigma: float, narrow: float, wide: float, scale: float) -> float:
    """What the guided score at noise level σ is times −x: noise first, then the product."""
    _check(narrow, wide, scale)
    return (1 - scale) / (wide + sigma**2) + scale / (narrow + sigma**2)


def tilted_precision(sigma: float, narrow: float, wide: float, scale: float) -> float:
    """What the score of the noised product is times −x: the product first, then noise."""
    _check(narrow, wide, scale)
    return 1 / (tilted_variance(narrow, wide, scale) + sigma**2)


def noised_tilted_score(
    x: Tensor, sigma: float, grid: Tensor, log_p: Tensor, log_share: Tensor, scale: float
) -> Tensor:
    """∇ log q_t of q ∝ p(x_0) p(y | x_0)^w on a line, on EDM's path: (E_q[x_0 | x_t] − x_t) / σ².

    The mean is a sum over a grid of x_0. At scale 0 and 1 it is the score without and with the
    label, and guidance is the straight line through these two.

    Args:
        x: Places ``[N]``.
        sigma: The noise level, above 0 and not much less than the steps of the grid.
        grid: x_0 ``[G]``, in steps of one length.
        log_p: log p there, up to a constant, ``[G]``.
        log_share: log p(y | x_0) there, up to a constant, ``[G]``.
        scale: w.

    Returns:
        ``[N]``.

    """
    check_floats("x", x, (None,))
    check_floats("grid", grid, (None,), dtype=x.dtype)
    check_floats("log_p", log_p, grid.shape, dtype=x.dtype)
    check_floats("log_share", log_share, grid.shape, dtype=x.dtype)
    check_number("sigma", sigma, above=0)
    check_number("scale", scale, minimum=-math.inf)
    logs = log_p + scale * log_share - (x[:, None] - grid) ** 2 / (2 * sigma**2)  # [N, G]
    return (torch.softmax(logs, dim=1) @ grid - x) / sigma**2


def ode_variance(narrow: float, wide: float, scale: float) -> float:
    """Where the guided ODE ends: the variances' weighted geometric mean.

    Reference:
        Bradley & Nakkiran 2024, https://arxiv.org/abs/2408.09000, for the variances 1 and 2.

    Example:
        >>> round(tilted_variance(1.0, 4.0, 3.0), 2), round(ode_variance(1.0, 4.0, 3.0), 4)
        (0.4, 0.0625)

    """
    _check(narrow, wide, scale)
    return wide ** (1 - scale) * narrow**scale


def sde_variance(narrow: float, wide: float, scale: float) -> float:
    """Where the guided reverse SDE ends; ``scale`` is not ½, where a limit stands in its place.

    Reference:
        Bradley & Nakkiran 2024, https://arxiv.org/abs/2408.09000, for the variances 1 and 2.
    """
    _check(narrow, wide, scale)
    if scale == 0.5:
        raise ValueError("scale must not be 0.5, got 0.5")
    left = wide * narrow - wide ** (2 - 2 * scale) * narrow ** (2 * scale)
    return left / ((2 * scale - 1) * (wide - narrow))


def _check(narrow: float, wide: float, scale: float) -> None:
    check_number("narrow", narrow, above=0)
    check_number("wide", wide, above=narrow)
    check_number("scale", scale, minimum=-math.inf)
    if (1 - scale) / wide + scale / narrow <= 0:
        raise ValueError(f"scale must leave a density that falls outwards, got {scale!r}")
