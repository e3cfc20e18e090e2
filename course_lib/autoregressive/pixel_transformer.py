"""A causal transformer over pixels in raster order: each looks at all pixels before it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.attention import flash_attention
from course_lib.autoregressive.pixelcnn import ImageAutoregressive
from course_lib.checks import check_int
from course_lib.nn.transformer import KeyValueCache, TransformerBlock

__all__ = ["PixelTransformer"]


class PixelTransformer(ImageAutoregressive):
    """Pixels as tokens: no receptive field, no blind spot, and N² pairs of tokens.

    Token i is made of the pixel before, x_{i−1}, and of the place i whose pixel it predicts; the
    first one is a start, learned for each class. Places are a row and a column, so that smaller
    images can be taken, too, but no larger ones.

    Reference:
        Parmar et al. 2018, "Image Transformer", https://arxiv.org/abs/1802.05751; Chen et al. 2020,
        "Generative pretraining from pixels" (iGPT).

    Args:
        size: Height and width of the largest images, and of those that ``sample`` draws; a number
            for both or a pair.
        levels: Number of values of a pixel, at least 2.
        dim: Width of a token.
        depth: Number of blocks, at least 1.
        heads: Number of heads of each; divides ``dim``.
        n_classes: Number of classes; None: the images have no labels.
        attend: The function that attends, as of ``course_lib.nn.Attention``.

    Example:
        >>> model = PixelTransformer(8, 17, dim=16, depth=2, heads=2)
        >>> x = model.sample(3)
        >>> x.shape, model.log_prob(x).shape
        (torch.Size([3, 1, 8, 8]), torch.Size([3]))

    """

    def __init__(
        self,
        size: int | Sequence[int] = 8,
        levels: int = 17,
        *,
        dim: int = 64,
        depth: int = 4,
        heads: int = 4,
        n_classes: int | None = None,
        attend: Callable = flash_attention,
    ):
        check_int("depth", depth, minimum=1)
        size = (size, size) if isinstance(size, int) else size
        super().__init__(levels=levels, n_classes=n_classes, size=size)
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, heads, causal=True, attend=attend) for _ in range(depth)
        )
        self.start = nn.Embedding(n_classes or 1, dim)
        self.value = nn.Linear(levels + 1, dim)
        self.row, self.column = nn.Embedding(self.size[0], dim), nn.Embedding(self.size[1], dim)
        for embedding in (self.start, self.row, self.column):
            nn.init.normal_(embedding.weight, std=0.1)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, levels))

    def logits(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The logits ``[B, levels, H, W]`` of p(x_i | x_<i), given labels ``y [B]`` or not."""
        height, width = x.shape[2:]
        before = self.value(self.encode(x).flatten(2).mT[:, :-1])  # (B, N − 1, dim)
        h = torch.cat([self.first(x, y), before], dim=1) + self.places(height, width)
        for block in self.blocks:
            h = block(h)
        return self.head(h).mT.unflatten(2, (height, width))

    def walk(self, x: Tensor, y: Tensor | None = None) -> Iterator[tuple[Any, Tensor]]:
        """Visit the pixels in raster order; each token is computed once, and asks all before it.

        What the blocks have computed of a token stands in their caches: its key and its value.
        """
        height, width = x.shape[2:]
        caches = [KeyValueCache() for _ in self.blocks]
        token = self.first(x, y)
        for i, place in enumerate(self.places(height, width)):
            h = token + place  # (B, 1, dim)
            for block, cache in zip(self.blocks, caches, strict=True):
                h = block(h, cache)
            row, column = divmod(i, width)
            yield (slice(None), 0, row, column), self.head(h)[:, 0].softmax(dim=1)
            pixel = self.encode(x[:, :, row : row + 1, column : column + 1])
            token = self.value(pixel.flatten(2).mT)

    def first(self, x: Tensor, y: Tensor | None) -> Tensor:
        """The token ``[B, 1, dim]`` that comes before all pixels; it knows the class alone."""
        y = torch.zeros(len(x), dtype=torch.long, device=x.device) if y is None else y
        return self.start(y)[:, None]

    def places(self, height: int, width: int) -> Tensor:
        """What each token knows of its place, ``[H · W, dim]``."""
        if height > self.size[0] or width > self.size[1]:
            raise ValueError(
                f"images must be at most {list(self.size)} large, got {[height, width]}"
            )
        return (self.row.weight[:height, None] + self.column.weight[:width]).flatten(0, 1)
