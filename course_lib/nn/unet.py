"""The U-Net of diffusion models: down to few pixels and up again, with a bridge at every level."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_floats, check_int, check_ints, check_shape, stands_for_many
from course_lib.nn.time import TimeEmbedding, check_time
from course_lib.nn.transformer import TransformerBlock, check_mask

__all__ = ["DoublingConv", "UNet"]


class ResBlock(nn.Module):
    """Two 3×3 convolutions around which the image is carried past; between them, the time.

    Where there is a text, every pixel then looks at it: ``look``.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        n_time: int,
        groups: int,
        dropout: float,
        look: nn.Module | None = None,
    ):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, n_in), nn.Conv2d(n_in, n_out, 3, padding=1)
        self.time = nn.Linear(n_time, n_out)
        self.norm2, self.conv2 = nn.GroupNorm(groups, n_out), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1)
        self.look = look

    def forward(
        self,
        x: Tensor,
        embedded: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(embedded)[:, :, None, None]
        h = self.shortcut(x) + self.conv2(self.dropout(F.silu(self.norm2(h))))
        return h if self.look is None else self.look(h, context, mask)


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


class SpatialTransformer(nn.Module):
    """Every pixel looks at every pixel, then at the words: a transformer's block, added to x.

    Reference:
        Rombach et al. 2022, https://arxiv.org/abs/2112.10752, section 3.3.
    """

    def __init__(self, n: int, groups: int, context_dim: int, heads: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, n)
        self.inwards, self.outwards = nn.Linear(n, n), nn.Linear(n, n)
        self.block = TransformerBlock(n, heads, attend=attend, context_dim=context_dim)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        pixels = self.inwards(self.norm(x).flatten(2).transpose(1, 2))  # [B, H·W, C]
        seen = self.outwards(self.block(pixels, context=context, mask=mask))
        return x + seen.transpose(1, 2).reshape(x.shape)


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """PyTorch's attention, which is the fastest for few tokens."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


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

    With a ``context_dim`` the pixels look at a text, too: in the middle, and behind every residual
    block of the ``context_levels``. ``encode`` and ``decode`` are the way down and the way up.

    Reference:
        Ho, Jain, Abbeel 2020, https://arxiv.org/abs/2006.11239, appendix B; the shape is that of
        Ronneberger, Fischer, Brox 2015, https://arxiv.org/abs/1505.04597; the text: Rombach et al.
        2022, https://arxiv.org/abs/2112.10752, section 3.3.

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
        context_dim: Width of the text's tokens; None for no text.
        context_levels: The levels that look at the text, the finest being 0; None for all. The
            middle always does.
        heads: Heads of the attention, where there is a text; divides the widths.

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
        context_dim: int | None = None,
        context_levels: Sequence[int] | None = None,
        heads: int = 4,
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
        if context_dim is not None:
            check_int("context_dim", context_dim, minimum=1)
        elif context_levels is not None:
            raise ValueError(
                f"context_levels must be None for a network without context_dim, "
                f"got {context_levels!r}"
            )
        levels = range(len(widths)) if context_levels is None else context_levels
        check_ints("context_levels", levels, minimum=0)
        if any(level >= len(widths) for level in levels):
            raise ValueError(
                f"context_levels must be below {len(widths)}, the number of widths, got {levels!r}"
            )
        super().__init__()
        self.event_shape, self.context_dim = tuple(shape), context_dim
        n_time = 4 * widths[0]
        self.time = TimeEmbedding(
            widths[0], n_time, n_classes=n_classes, null_class=null_class, scale=scale
        )
        self.null_class = self.time.null_class

        def look(n: int) -> SpatialTransformer:
            return SpatialTransformer(n, groups, context_dim, heads)

        def block(n_in: int, n_out: int, level: int | None = None) -> ResBlock:
            looks = context_dim is not None and level in levels
            return ResBlock(n_in, n_out, n_time, groups, dropout, look(n_out) if looks else None)

        self.first = nn.Conv2d(shape[0], widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        aside, n = [widths[0]], widths[0]  # channels of what is put aside, and of the image now
        for level, width in enumerate(widths):
            if level:
                self.down.append(nn.Conv2d(n, n, 3, stride=2, padding=1))
                aside.append(n)
            for _ in range(blocks):
                self.down.append(block(n, width, level))
                aside.append(n := width)
        # A seed gives the weights that stored models began with: there, this look was built first.
        seen = None if context_dim is None else look(n)
        self.middle = nn.ModuleList([block(n, n), seen or SelfAttention(n, groups), block(n, n)])
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(block(n + aside.pop(), width, level))
                n = width
            if level:
                self.up.append(DoublingConv(n))
        self.norm, self.last = nn.GroupNorm(groups, n), nn.Conv2d(n, shape[0], 3, padding=1)
        # At first every block passes its input on and the network says 0: a calm start.
        blocks_all = [m for m in self.modules() if isinstance(m, ResBlock)]
        looks_all = [m for m in self.modules() if isinstance(m, SpatialTransformer)]
        ends = [*(m.conv2 for m in blocks_all), *(m.outwards for m in looks_all), self.last]
        for layer in ends:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Map images ``x [B, C, H, W]`` at times ``t [B]``, of classes ``y [B]``, to the same.

        Args:
            x: The images.
            t: The times.
            y: The classes, where there are any.
            context: A text, ``[B, L, context_dim]``, where the network takes one.
            mask: Which of its tokens may be looked at, bool ``[B, L]``; None for all.

        """
        embedded = self.embed(x, t, y, context, mask)
        h, aside = self.encode(x, embedded, context, mask)
        return self.decode(h, aside, embedded, context, mask)

    def embed(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The time and the class as all blocks are told them, ``[B, 4 · widths[0]]``.

        It is the door: here all arguments of ``forward`` are looked at, number by number.
        """
        check_floats("x", x, (None, *self.event_shape), dtype=self.first.weight.dtype)
        check_time(t, len(x))
        if self.context_dim is None:
            if context is not None or mask is not None:
                raise ValueError("context and mask must be None for a network without context_dim")
        else:
            check_floats("context", context, (len(x), None, self.context_dim), dtype=x.dtype)
        if mask is not None:
            check_mask(mask, context)
            if not stands_for_many(mask) and not mask.any(dim=1).all():
                raise ValueError("mask must be True somewhere in every row, got a row of False")
        return F.silu(self.time(t, y))

    def encode(
        self,
        x: Tensor,
        embedded: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        hint: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """The way down: what comes out of the middle, and what is put aside on the way.

        ``hint``, if there is one, is added behind the first convolution.
        """
        h = self.first(x)
        if hint is not None:
            h = h + hint
        aside = [h]
        for layer in self.down:
            resnet = isinstance(layer, ResBlock)
            h = layer(h, embedded, context, mask) if resnet else layer(h)
            aside.append(h)
        first, attention, second = self.middle
        h = first(h, embedded)
        h = attention(h) if self.context_dim is None else attention(h, context, mask)
        return second(h, embedded), aside

    def decode(
        self,
        h: Tensor,
        aside: Sequence[Tensor],
        embedded: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The way up, from what ``encode`` gives."""
        aside = list(aside)
        for layer in self.up:
            if isinstance(layer, ResBlock):
                h = layer(torch.cat([h, aside.pop()], dim=1), embedded, context, mask)
            else:
                h = layer(h)
        return self.last(F.silu(self.norm(h)))
