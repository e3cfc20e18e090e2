"""What a 1×1 convolution hands back in training, written out: what a zero convolution learns by."""

import torch
from torch import Tensor

from course_lib.checks import check_floats

__all__ = ["pointwise_gradients"]


def pointwise_gradients(W: Tensor, x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dL/dW, dL/db and dL/dx of y = W x + b at every place.

    Args:
        W: Weights ``[n_out, n_in]``.
        x: What the layer sees, ``[B, n_in, H, W]``.
        dy: dL/dy, ``[B, n_out, H, W]``.

    Returns:
        Like W ``[n_out, n_in]``, b ``[n_out]`` and ``x``.

    Example:
        >>> x, dy = torch.ones(1, 2, 3, 3), torch.ones(1, 1, 3, 3)
        >>> dW, db, dx = pointwise_gradients(torch.zeros(1, 2), x, dy)
        >>> dW, db, dx.abs().max()
        (tensor([[9., 9.]]), tensor([9.]), tensor(0.))

    """
    check_floats("W", W, (None, None))
    n_out, n_in = W.shape
    check_floats("x", x, (None, n_in, None, None), dtype=W.dtype)
    check_floats("dy", dy, (len(x), n_out, *x.shape[2:]), dtype=W.dtype)
    dW = torch.einsum("bohw,bihw->oi", dy, x)
    db = dy.sum((0, 2, 3))
    dx = torch.einsum("oi,bohw->bihw", W, dy)
    return dW, db, dx
