"""A multilayer perceptron: the plainest network that can be any function."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from course_lib.checks import check_int, check_ints, check_tensor
from course_lib.nn.placed import Placed

__all__ = ["MLP"]


class MLP(Placed):
    """Linear layers with ReLU between them.

    Args:
        n_in: Width of the input.
        hidden: Width of each hidden layer; an empty sequence gives one linear map.
        n_out: Width of the output.

    Example:
        >>> MLP(2, [8, 8], 1)(torch.zeros(5, 2)).shape
        torch.Size([5, 1])

    """

    def __init__(self, n_in: int, hidden: Sequence[int], n_out: int):
        check_int("n_in", n_in, minimum=1)
        check_ints("hidden", hidden, minimum=1)
        check_int("n_out", n_out, minimum=1)
        layers: list[nn.Module] = []
        for width_in, width_out in zip([n_in, *hidden], hidden, strict=False):
            layers += [nn.Linear(width_in, width_out), nn.ReLU()]
        super().__init__()
        self.n_in = n_in
        self.layers = nn.Sequential(*layers, nn.Linear([n_in, *hidden][-1], n_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[..., n_in]`` to ``[..., n_out]``."""
        check_tensor("x", x, None, dtype=self.dtype)
        if x.shape[-1:] != (self.n_in,):
            raise ValueError(f"x must have shape [..., {self.n_in}], got {list(x.shape)}")
        # What self.layers(x) is, without the call of each module: it takes longer than a ReLU.
        *hidden, last = list(self.layers)[::2]
        for layer in hidden:
            x = F.relu(F.linear(x, layer.weight, layer.bias))
        return F.linear(x, last.weight, last.bias)
