"""How much memory a computation holds at once, counted tensor by tensor."""

import weakref
from collections.abc import Callable

from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["peak_bytes"]


def peak_bytes(function: Callable, *args, **options) -> int:
    """The most bytes that the tensors made by ``function(*args, **options)`` hold at one moment.

    What is given is not counted; what is returned is, and so is what autograd keeps. The same on
    every machine: it counts what operations return, not what the allocator sets aside, nor what an
    operation needs inside itself.

    Example:
        >>> import torch
        >>> x = torch.zeros(100)
        >>> peak_bytes(lambda x: (x + 1).exp().sum(), x)  # x + 1 and its exp, 4 bytes a number
        800

    """
    if not callable(function):
        raise ValueError(f"function must be callable, got {type(function).__name__}")
    counter = LiveBytes()
    with counter:
        kept = function(*args, **options)
    del kept
    return counter.peak


class LiveBytes(TorchDispatchMode):
    """Watches every operation, and adds up the storages that it made and that still live."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, operation, types, args=(), options=None):
        given = {id(x.untyped_storage()) for x in tensors((args, options))}
        result = operation(*args, **(options or {}))
        for x in tensors(result):
            storage = x.untyped_storage()
            if id(storage) not in given and storage not in self.known:
                self.add(storage)
        return result

    def add(self, storage: UntypedStorage) -> None:
        """Count a new storage until it is freed."""
        size = storage.nbytes()
        self.known.add(storage)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.free, size)

    def free(self, size: int) -> None:
        """A storage has gone."""
        self.live -= size


def tensors(tree: object) -> list[Tensor]:
    """The tensors in nested tuples, lists and dictionaries."""
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]
