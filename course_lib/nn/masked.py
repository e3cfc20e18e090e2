"""Layers with some of their weights held at zero: what an output may not see, it can't see."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_int, check_one_of, check_tensor

__all__ = ["MaskedConv2d", "MaskedLinear", "raster_mask"]


class MaskedLinear(nn.Module):
    """A linear map whose weight matrix is multiplied by a mask: y = (M ⊙ W) x + b.

    The mask is the caller's, so that one matrix can serve under several of them.

    Args:
        n_in: Width of the input.
        n_out: Width of the output.

    Example:
        >>> layer = MaskedLinear(3, 2)
        >>> blind = torch.zeros(2, 3)
        >>> bool((layer(torch.randn(5, 3), blind) == layer.bias).all())
        True

    """

    def __init__(self, n_in: int, n_out: int):
        check_int("n_in", n_in, minimum=1)
        check_int("n_out", n_out, minimum=1)
        super().__init__()
        start = nn.Linear(n_in, n_out)
        self.weight, self.bias = start.weight, start.bias

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map ``x [B, n_in]`` to ``[B, n_out]``; ``mask [n_out, n_in]`` holds zeros and ones."""
        check_tensor("x", x, (None, self.weight.shape[1]), dtype=self.weight.dtype)
        check_tensor("mask", mask, tuple(self.weight.shape), dtype=self.weight.dtype)
        return F.linear(x, self.weight * mask, self.bias)

    def extra_repr(self) -> str:
        """The widths."""
        n_out, n_in = self.weight.shape
        return f"n_in={n_in}, n_out={n_out}"


class MaskedConv2d(nn.Module):
    """A convolution that sees only pixels earlier in raster order: mask A or B of PixelCNN.

    The kernel is masked below its centre row and, in that row, right of its centre. Mask A hides
    the centre as well (the first layer, whose input holds the pixel that is to be predicted), mask
    B shows it (all further layers, in which the centre has not seen that pixel).

    Reference:
        van den Oord, Kalchbrenner, Kavukcuoglu 2016, https://arxiv.org/abs/1601.06759, figure 2.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        kernel_size: Height and width of the kernel, odd.
        mask: ``"A"`` or ``"B"``.

    Example:
        >>> MaskedConv2d(1, 1, 3, mask="A").mask[0, 0]
        tensor([[1., 1., 1.],
                [1., 0., 0.],
                [0., 0., 0.]])

    """

    def __init__(self, n_in: int, n_out: int, kernel_size: int, *, mask: str):
        check_int("n_in", n_in, minimum=1)
        check_int("n_out", n_out, minimum=1)
        seen = raster_mask(kernel_size, mask)
        super().__init__()
        start = nn.Conv2d(n_in, n_out, kernel_size)
        self.weight, self.bias = start.weight, start.bias
        self.register_buffer("mask", seen[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, n_in, H, W]`` to ``[B, n_out, H, W]``; beyond the border there are zeros."""
        check_tensor("x", x, (None, self.weight.shape[1], None, None), dtype=self.weight.dtype)
        padding = self.mask.shape[-1] // 2
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=padding)


def raster_mask(kernel_size: int, mask: str) -> Tensor:
    """The mask ``[k, k]``: ones on the pixels that come before the centre; mask B adds it."""
    check_odd("kernel_size", kernel_size)
    check_one_of("mask", mask, ("A", "B"))
    seen = torch.zeros(kernel_size, kernel_size)
    centre = kernel_size // 2
    seen[:centre] = 1
    seen[centre, : centre + (mask == "B")] = 1
    return seen


def check_odd(name: str, value: int) -> None:
    """Require an odd number of at least 3."""
    check_int(name, value, minimum=3)
    if value % 2 == 0:
        raise ValueError(f"{name} must be odd, got {value}")
