"""What becomes of a gradient when each process computes the loss of its own share of the batch."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_int

__all__ = ["split_gradient"]


def split_gradient(
    loss: Callable[[Tensor], Tensor], errors: Tensor, processes: int = 2
) -> tuple[Tensor, Tensor]:
    """The gradient of the loss of a batch, and the mean of those of the processes' equal shares.

    They are equal where the loss is a mean of terms of one example each.

    Args:
        loss: Errors of any number of examples ``[n]`` → one number.
        errors: Of the whole batch, ``[B]``, where ``processes`` divides B.
        processes: Process r gets the r-th of so many parts.

    Returns:
        Both gradients by ``errors``, ``[B]``.

    Example:
        >>> e = torch.tensor([1.0, 2.0, 3.0, 6.0])
        >>> split_gradient(lambda e: e.square().mean(), e)
        (tensor([0.5000, 1.0000, 1.5000, 3.0000]), tensor([0.5000, 1.0000, 1.5000, 3.0000]))
        >>> split_gradient(lambda e: e.amax(), e)
        (tensor([0., 0., 0., 1.]), tensor([0.0000, 0.5000, 0.0000, 0.5000]))

    """
    check_floats("errors", errors, (None,))
    check_int("processes", processes, minimum=1)
    if len(errors) % processes:
        raise ValueError(
            f"processes must divide the batch of {len(errors)}, got {processes}: "
            "shares are equal here"
        )
    averaged = [gradient(loss, share) / processes for share in errors.chunk(processes)]
    return gradient(loss, errors), torch.cat(averaged)


def gradient(loss: Callable[[Tensor], Tensor], errors: Tensor) -> Tensor:
    """Of a loss of some errors by these errors."""
    errors = errors.detach().requires_grad_()
    return torch.autograd.grad(loss(errors), errors)[0]
