"""The U-Net of diffusion models: down to few pixels and up again, with a bridge at every level."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_floats, check_int, check_ints, check_shape
from course_lib.nn.time import TimeEmbedding, check_time

__all__ = ["UNet"]


class ResBlock(nn.Module):
    """Two 3×3 convolutions around which the image is carried past; between them, the time."""

    def __init__(self, n_in: int, n_out: int, n_time: int, groups: int, dropout: float):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, n_in), nn.Conv2d(n_in, n_out, 3, padding=1)
        self.time = nn.Linear(n_time, n_out)
        self.norm2, self.conv2 = nn.GroupNorm(groups, n_out), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(embedded)[:, :, None, None]
        return self.shortcut(x) + self.conv2(self.dropout(F.silu(self.norm2(h))))


class SelfAttention(nn.Module):
    """Every pixel looks at every pixel: one head of softmax(Q Kᵀ / sqrt(C)) V, added to x."""

    def __init__(self, n: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, n)
        self.qkv, self.out = nn.Linear(n, 3 * n), nn.Linear(n, n)

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # [B, H·W, C]
        q, k, v = self.qkv(pixels).chunk(3, dim=2)
        seen = self.out(F.scaled_dot_product_attention(q, k, v))
        return x + seen.transpose(1, 2).reshape(x.shape)


class DoublingConv(nn.Conv2d):
    """Double the image's sides, then a 3×3 convolution: as one step, with less than half the work.

    Of three neighbours in a doubled image two are copies of one pixel, so that a window of 3×3 only
    sees 2×2 pixels. Seen from a pixel: what it adds to the result is 4×4 large. Along a row of it,
    with the filter's weights w0, w1, w2, it is the pixel times w2, w1 + w2, w0 + w1 and w0. Adding
    up such squares, two pixels apart, is a transposed convolution of stride 2.
    """

    def __init__(self, n: int):
        super().__init__(n, n, 3, padding=1)
        row = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        self.register_buffer("sums", torch.kron(row, row), persistent=False)  # [4·4, 3·3]

    def forward(self, x: Tensor) -> Tensor:
        squares = (self.weight.transpose(0, 1).flatten(2) @ self.sums.T).unflatten(2, (4, 4))
        return F.conv_transpose2d(x, squares, self.bias, stride=2, padding=1)


class UNet(nn.Module):
    """The network of DDPM: what it says of an image has the image's own shape.

    On the way down each level has ``blocks`` residual blocks and then a convolution of stride 2; on
    the way up it has one block more, and every block also sees what the way down put aside there.
    In the middle, at few pixels, there is attention. All blocks are told the time.

    Reference:
        Ho, Jain, Abbeel 2020, https://arxiv.org/abs/2006.11239, appendix B; the shape is that of
        Ronneberger, Fischer, Brox 2015, https://arxiv.org/abs/1505.04597.

    Args:
        shape: (C, H, W) of the images; H and W must halve evenly once less than there are widths.
        widths: Channels at each level, the finest first, whose number is even; multiples of
            ``groups``.
        blocks: Residual blocks of a level on the way down.
        n_classes: The number of classes that an image may belong to; None for no classes.
        null_class: Learn a label that says nothing, too, as in ``TimeEmbedding``.
        groups: Groups of channels that GroupNorm takes together.
        dropout: Share of channels' values set to 0 in training.
        scale: What a unit of time is worth, as in ``TimeEmbedding``.

    Example:
        >>> net = UNet((1, 8, 8), widths=(16, 32))
        >>> net(torch.zeros(3, 1, 8, 8), torch.tensor([0, 7, 99])).shape
        torch.Size([3, 1, 8, 8])

    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        widths: Sequence[int] = (32, 64, 64),
        blocks: int = 1,
        n_classes: int | None = None,
        null_class: bool = False,
        groups: int = 8,
        dropout: float = 0.0,
        scale: float = 1.0,
    ):
        check_shape("shape", shape, lengths=(3,), any_size=False)
        check_int("groups", groups, minimum=1)
        check_ints("widths", widths, minimum=1)
        if not widths or any(width % groups for width in widths):
            raise ValueError(f"widths must be multiples of groups = {groups}, got {widths!r}")
        if widths[0] % 2:
            raise ValueError(f"widths must start with an even number, got {widths!r}")
        smallest = 2 ** (len(widths) - 1)
        if shape[1] % smallest or shape[2] % smallest:
            raise ValueError(
                f"shape must have a height and width that {len(widths)} widths halve evenly, "
                f"multiples of {smallest}, got {tuple(shape)}"
            )
        check_int("blocks", blocks, minimum=1)
        if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, got {dropout!r}")
        super().__init__()
        self.event_shape = tuple(shape)
        n_time = 4 * widths[0]
        self.time = TimeEmbedding(
            widths[0], n_time, n_classes=n_classes, null_class=null_class, scale=scale
        )
        self.null_class = self.time.null_class

        def block(n_in: int, n_out: int) -> ResBlock:
            return ResBlock(n_in, n_out, n_time, groups, dropout)

        self.first = nn.Conv2d(shape[0], widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        aside, n = [widths[0]], widths[0]  # channels of what is put aside, and of the image now
        for level, width in enumerate(widths):
            if level:
                self.down.append(nn.Conv2d(n, n, 3, stride=2, padding=1))
                aside.append(n)
            for _ in range(blocks):
                self.down.append(block(n, width))
                aside.append(n := width)
        self.middle = nn.ModuleList([block(n, n), SelfAttention(n, groups), block(n, n)])
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(block(n + aside.pop(), width))
                n = width
            if level:
                self.up.append(DoublingConv(n))
        self.norm, self.last = nn.GroupNorm(groups, n), nn.Conv2d(n, shape[0], 3, padding=1)
        # At first every block passes its input on and the network says 0: a calm start.
        blocks_all = [m for m in self.modules() if isinstance(m, ResBlock)]
        for conv in [*(m.conv2 for m in blocks_all), self.last]:
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Map images ``x [B, C, H, W]`` at times ``t [B]``, of classes ``y [B]``, to the same."""
        check_floats("x", x, (None, *self.event_shape), dtype=self.first.weight.dtype)
        check_time(t, len(x))
        embedded = F.silu(self.time(t, y))
        h = self.first(x)
        aside = [h]
        for layer in self.down:
            h = layer(h, embedded) if isinstance(layer, ResBlock) else layer(h)
            aside.append(h)
        first, attention, second = self.middle
        h = second(attention(first(h, embedded)), embedded)
        for layer in self.up:
            if isinstance(layer, ResBlock):
                h = layer(torch.cat([h, aside.pop()], dim=1), embedded)
            else:
                h = layer(h)
        return self.last(F.silu(self.norm(h)))
