"""FVSBN: every conditional is a logistic regression on the coordinates before it."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from course_lib.autoregressive.base import BinaryAutoregressive, two_levels
from course_lib.checks import check_ints, check_permutation
from course_lib.nn import MaskedLinear

__all__ = ["FVSBN", "order_mask"]


class FVSBN(BinaryAutoregressive):
    """A fully visible sigmoid belief network: p(x_i = 1 | x_<i) = σ(b_i + Σ_{j<i} W_ij x_j).

    n (n − 1) / 2 weights and n biases; the other half of the square W is masked.

    Reference:
        Neal 1992, "Connectionist learning of belief networks"; Frey 1998, "Graphical models for
        machine learning and digital communication".

    Args:
        dim: Number of coordinates n.
        order: ``order[k]`` is the coordinate that is visited as the k-th; None: 0 ... n − 1.

    Example:
        >>> model = FVSBN(64)
        >>> model.log_prob(torch.ones(10, 64)).shape
        torch.Size([10])

    """

    def __init__(self, dim: int, *, order: Sequence[int] | None = None):
        super().__init__(dim, order)
        self.linear = MaskedLinear(dim, dim)
        self.register_buffer("mask", order_mask(self.order), persistent=False)

    def logits(self, x: Tensor) -> Tensor:
        """The logits ``[B, dim]`` of p(x_i = 1 | x_<i): one masked matrix product for all i."""
        return self.linear(x, self.mask)

    def walk(self, x: Tensor) -> Iterator[tuple[Any, Tensor]]:
        """Visit the coordinates in order; each costs one row of W, O(n)."""
        weight = self.linear.weight * self.mask
        for i in self.order:
            yield (slice(None), i), two_levels(self.linear.bias[i] + x @ weight[i])


def order_mask(order: Sequence[int]) -> Tensor:
    """The mask ``[n, n]`` with a one at i, j where coordinate j comes before i in the order.

    Args:
        order: ``order[k]`` is the coordinate that is visited as the k-th.

    Example:
        >>> order_mask([0, 2, 1])
        tensor([[0., 0., 0.],
                [1., 0., 1.],
                [1., 0., 0.]])

    """
    check_ints("order", order, minimum=0)
    check_permutation("order", order, max(len(order), 1))
    rank = torch.tensor(order).argsort()  # coordinate i is visited as the rank[i]-th
    return (rank[:, None] > rank[None, :]).to(torch.get_default_dtype())
