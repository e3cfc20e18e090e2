"""What every notebook needs and no chapter teaches: small helpers, imported in the first cell."""

from collections.abc import Callable
from weakref import WeakSet

import torch
from torch import Tensor, nn

from course_lib.checks import check_floats, check_int

__all__ = ["bytes_kept", "follow", "jacobians", "one_thread", "seeded"]


def one_thread() -> None:
    """Let PyTorch use one thread: these models are so small that a second costs more than it helps.

    It costs far more while a browser wants the same cores.
    """
    torch.set_num_threads(1)


def seeded(seed: int) -> torch.Generator:
    """A source of randomness of its own, so that every cell can be run again.

    Example:
        >>> torch.equal(torch.randn(3, generator=seeded(1)), torch.randn(3, generator=seeded(1)))
        True

    """
    check_int("seed", seed, minimum=0)
    return torch.Generator().manual_seed(seed)


def jacobians(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The Jacobian of ``function`` at every row of ``x``, by automatic differentiation.

    Args:
        function: Maps ``[B, *event]`` to a tensor with as many numbers a row, each row for itself.
        x: ``[B, *event]``.

    Returns:
        ``[B, n, n]``, of the n numbers of a row in their order.

    Example:
        >>> jacobians(lambda x: x.square(), torch.tensor([[1.0, 2.0]]))
        tensor([[[2., 0.],
                 [0., 4.]]])

    """
    check_floats("x", x, None)
    n = x[0].numel()
    return torch.stack(
        [
            torch.autograd.functional.jacobian(lambda p: function(p[None])[0], row).reshape(n, n)
            for row in x
        ]
    )


def follow(flow: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """All states of points on their way through a flow, and their log-determinants so far.

    Args:
        flow: A flow with its ``transforms`` and its ``trajectory``.
        x: Points ``[B, 2]``.

    Returns:
        The states ``[T, B, 2]``, the points first, and beside each the sum of the
        log-determinants of all transforms before it, ``[T, B]``, in nats.

    """
    states = flow.trajectory(x)
    so_far = [torch.zeros(len(x))]
    for transform, state in zip(flow.transforms, states, strict=False):
        so_far.append(so_far[-1] + transform(state)[1].detach())
    return states, torch.stack(so_far)


def bytes_kept(function: Callable[[], Tensor]) -> int:
    """How many bytes of tensors wait for the backward pass of what ``function`` gives.

    A tensor that several operations have kept is counted once; so are the parameters.

    Example:
        >>> x = torch.ones(1000, requires_grad=True)  # of 4 bytes each
        >>> bytes_kept(lambda: x.exp().sum()), bytes_kept(lambda: x.exp().exp().sum())
        (4000, 8000)

    """
    waiting = WeakSet()

    class Kept:
        def __init__(self, tensor: Tensor):
            self.tensor = tensor
            waiting.add(self)

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        result = function()
        storages = [kept.tensor.untyped_storage() for kept in waiting]
    del result  # until here it has held on to all that it needs
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
