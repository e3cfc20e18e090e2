"""Count what a computation touches: its cost, without a clock."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["OperationCounter"]

# (the matrix whose every entry is multiplied with every column of the other, the other)
_PRODUCTS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
# These read or write a few places of a large tensor: the smaller tensor says how many.
_PLACES = ("index", "gather", "scatter", "take", "embedding", "masked", "put")


class OperationCounter(TorchDispatchMode):
    """Counts numbers that tensor operations touch, while it is entered as a context.

    A product of matrices counts all its multiplications, anything else the largest tensor that it
    reads or writes. A view of a tensor costs nothing. ``count`` is how many numbers were touched so
    far, ``products`` the sizes (rows, inner, columns) of all products of two matrices.

    Example:
        >>> import torch
        >>> with OperationCounter() as counter:
        ...     y = torch.ones(5, 4) @ torch.ones(4, 3)
        >>> counter.count  # 20 + 12 ones, and 5 · 4 · 3 products
        92

    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.products: set[tuple[int, int, int]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count it."""
        out = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            self.count += self._cost(func.overloadpacket.__name__, args, out)
        return out

    def _cost(self, name: str, args: tuple[Any, ...], out: Any) -> int:
        if name in _PRODUCTS:
            a, b = (args[i] for i in _PRODUCTS[name])
            self.products.add((a.shape[-2], a.shape[-1], b.shape[-1]))
            return a.numel() * b.shape[-1]
        sizes = [t.numel() for t in (*_tensors(args), *_tensors(out))]
        if not sizes:
            return 0
        return min(sizes) if name.startswith(_PLACES) else max(sizes)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
