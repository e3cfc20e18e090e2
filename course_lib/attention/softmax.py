"""The softmax in three passes over the logits, and in two."""

import math

import torch
from torch import Tensor

from course_lib.attention.door import check_logits
from course_lib.checks import at_the_door

__all__ = ["online_softmax", "safe_softmax"]


def check_rows(x: Tensor) -> None:
    """Require logits ``[..., N]``."""
    check_logits("x", x)
    if x.ndim < 1:
        raise ValueError("x must have shape [..., N], got []")


@at_the_door(check_rows)
def safe_softmax(x: Tensor) -> Tensor:
    """Softmax of logits ``x [..., N]`` in three passes: the maximum, the sum, the quotients.

    exp(x_j) overflows beyond 88 in float32; exp(x_j − max x) is at most 1, and the factor cancels.
    A row of nothing but −∞ gives zeros.
    """
    m = torch.full_like(x[..., 0], -math.inf)
    for x_j in x.unbind(-1):
        m = torch.maximum(m, x_j)
    m = m.clamp(min=torch.finfo(m.dtype).min)  # −∞ − (−∞) would be NaN

    total = torch.zeros_like(m)
    for x_j in x.unbind(-1):
        total = total + torch.exp(x_j - m)

    total = total.masked_fill(total == 0, 1)
    return torch.stack([torch.exp(x_j - m) / total for x_j in x.unbind(-1)], -1)


@at_the_door(check_rows)
def online_softmax(x: Tensor) -> Tensor:
    """Softmax of logits ``x [..., N]`` in two passes: maximum and sum together, the quotients.

    When the maximum moves from m to m', all terms of the sum so far are too large by one and the
    same factor, exp(m' − m): the sum is corrected, without a look back.

    Reference:
        Milakov & Gimelshein 2018, https://arxiv.org/abs/1805.02867, algorithm 3.

    """
    lowest = torch.finfo(x.dtype).min  # stands for −∞: −∞ − (−∞) would be NaN
    m = torch.full_like(x[..., 0], lowest)
    total = torch.zeros_like(m)
    for x_j in x.unbind(-1):
        larger = torch.maximum(m, x_j)
        total = total * torch.exp(m - larger) + torch.exp(x_j - larger)
        m = larger

    total = total.masked_fill(total == 0, 1)
    return torch.stack([torch.exp(x_j - m) / total for x_j in x.unbind(-1)], -1)
