"""A density that is as good as you like on grey levels, and knows nothing about images."""

import math

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_int, check_number

__all__ = ["spiky_log_prob"]


def spiky_log_prob(x: Tensor, width: float, *, levels: int = 17) -> Tensor:
    """Log-density of a mixture of narrow Gaussians, one on every grey level k / (levels − 1).

    The mixture integrates to 1 for every width, and its log-density at a grey level is about
    −log(levels · width · √2π): it grows without bound as the width goes to 0. This is why the
    likelihood of a density on data that was not dequantized means nothing.

    Reference:
        Uria, Murray, Larochelle 2013, https://arxiv.org/abs/1306.0186; Theis, van den Oord, Bethge
        2016, https://arxiv.org/abs/1511.01844, section 3.1.

    Args:
        x: Real numbers, any shape.
        width: Standard deviation of each Gaussian, in units of x.
        levels: Number of grey levels, at least 2; 17 for the 8×8 digits.

    Returns:
        The log-density of every number, in nats, with the shape and dtype of ``x``.

    Example:
        >>> grey = torch.tensor([0.0, 0.5, 1.0])
        >>> spiky_log_prob(grey, 1e-2), spiky_log_prob(grey, 1e-8)
        (tensor([0.8530, 0.8530, 0.8530]), tensor([14.6685, 14.6685, 14.6685]))

    """
    check_floats("x", x, None)
    check_number("width", width, above=0)
    check_int("levels", levels, minimum=2)
    centres = torch.arange(levels, dtype=x.dtype, device=x.device) / (levels - 1)
    distance = (x[..., None] - centres) / width  # [..., levels]
    mass = torch.logsumexp(-0.5 * distance**2, dim=-1)
    return mass - math.log(levels * width * math.sqrt(2 * math.pi))
