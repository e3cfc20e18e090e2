"""NADE: one hidden layer for every conditional, all of them from one running sum."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.autoregressive.base import BinaryAutoregressive, two_levels
from course_lib.checks import check_int

__all__ = ["NADE"]

# Numbers in a tensor (B, n, d): a few of this size fit in a core's cache, far larger ones are slow.
IN_CACHE = 2**18


class NADE(BinaryAutoregressive):
    """The neural autoregressive distribution estimator, with weights shared by all conditionals.

    h_i = σ(c + Σ_{j<i} W_j x_j) and p(x_i = 1 | x_<i) = σ(b_i + V_i · h_i), with W_j, V_i, c of
    width ``hidden``. The sum for i + 1 is the sum for i plus one term, so that all n hidden layers
    together cost O(n d), as much as one.

    Reference:
        Larochelle, Murray 2011, "The neural autoregressive distribution estimator"
        (https://proceedings.mlr.press/v15/larochelle11a.html).

    Args:
        dim: Number of coordinates n.
        hidden: Number of hidden units d.
        order: ``order[k]`` is the coordinate that is visited as the k-th; None: 0 ... n − 1.

    Example:
        >>> model = NADE(64, 32)
        >>> model.sample(10).shape
        torch.Size([10, 64])

    """

    def __init__(self, dim: int, hidden: int, *, order: Sequence[int] | None = None):
        check_int("hidden", hidden, minimum=1)
        super().__init__(dim, order)
        self.hidden = hidden
        self.W = nn.Parameter(torch.randn(dim, hidden) / dim**0.5)
        self.V = nn.Parameter(torch.randn(dim, hidden) / hidden**0.5)
        self.c = nn.Parameter(torch.zeros(hidden))
        self.b = nn.Parameter(torch.zeros(dim))

    def logits(self, x: Tensor) -> Tensor:
        """The logits ``[B, dim]`` of p(x_i = 1 | x_<i), all from one running sum."""
        order = torch.tensor(self.order, device=x.device)
        V, b = self.V[order], self.b[order]  # (n, d), (n), as visited
        # c is the weight of a one before all coordinates; the last coordinate is in nobody's past.
        W = torch.cat([self.c[None], self.W[order[:-1]]])  # (n, d)
        past = F.pad(x[:, order[:-1]], (1, 0), value=1.0)  # (B, n)
        logits = []
        for rows in past.split(max(1, IN_CACHE // W.numel())):
            totals = (rows[:, :, None] * W).cumsum(dim=1)  # (rows, n, d), the running sums
            logits.append(b + (V * totals.sigmoid()).sum(dim=2))
        return torch.cat(logits)[:, order.argsort()]

    def walk(self, x: Tensor) -> Iterator[tuple[Any, Tensor]]:
        """Visit the coordinates in order; each adds one term to the running sum, O(d)."""
        total = self.c.expand(len(x), -1)  # (B, d)
        for i in self.order:
            yield (slice(None), i), two_levels(self.b[i] + total.sigmoid() @ self.V[i])
            total = total + x[:, i, None] * self.W[i]
