"""Which output of a map depends on which input, read off its Jacobian."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_generator, check_int
from course_lib.flows import AdditiveCoupling

__all__ = ["coupling_dependencies", "dependencies"]


def dependencies(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Boolean ``[D_out, D_in]``: whether output i depends on input j at any of the points.

    Args:
        function: Maps points ``[B, D_in]`` to points ``[B, D_out]``, each for itself.
        x: Points ``[B, D_in]`` at which to look.

    Example:
        >>> dependencies(lambda x: x.cumsum(1), torch.randn(4, 3)).int()
        tensor([[1, 0, 0],
                [1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)

    """
    if not callable(function):
        raise ValueError(f"function must be callable, got {function!r}")
    check_floats("x", x, (None, None))
    jacobian = torch.autograd.functional.jacobian(lambda points: function(points).sum(0), x)
    return (jacobian != 0).any(dim=1)


def coupling_dependencies(
    couplings: int, dim: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Dependencies ``[dim, dim]`` through additive couplings in turn, as in ``NICE``.

    Args:
        couplings: How many; the first moves the odd coordinates, the second the even ones, ...
        dim: Number of coordinates, at least 2.
        generator: Source of the random weights and points.

    Example:
        >>> coupling_dependencies(1, 4).int()  # only the odd coordinates have moved
        tensor([[1, 0, 0, 0],
                [1, 1, 1, 0],
                [0, 0, 1, 0],
                [1, 0, 1, 1]], dtype=torch.int32)

    """
    check_int("couplings", couplings, minimum=0)
    check_generator(generator, "cpu")
    layers = [AdditiveCoupling(dim, [64], flip=i % 2 == 1) for i in range(couplings)]
    for parameter in (p for layer in layers for p in layer.parameters()):
        torch.nn.init.normal_(parameter, generator=generator)

    def through_all(x: Tensor) -> Tensor:
        for layer in layers:
            x, _ = layer(x)
        return x

    return dependencies(through_all, torch.randn(32, dim, generator=generator))
