"""PixelCNN: images pixel by pixel in raster order, with convolutions that see only the past."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.autoregressive.base import Autoregressive
from course_lib.checks import (
    check_classes,
    check_floats,
    check_generator,
    check_int,
    check_ints,
    check_level_floats,
    check_levels,
)
from course_lib.nn import MaskedConv2d
from course_lib.nn.masked import check_odd

__all__ = ["GatedLayer", "ImageAutoregressive", "NaivePixelCNN", "PixelCNN", "gate"]


class ImageAutoregressive(Autoregressive):
    """A model of images ``[B, 1, H, W]`` whose pixels are categorical, in raster order.

    Pixels are whole numbers 0 ... ``levels`` − 1, as floating-point numbers. A model made of
    convolutions takes images of any size. A subclass gives ``logits``.

    With ``n_classes`` the model is p(x, y) = p(y) p(x | y), where p(y) is uniform.

    Args:
        levels: Number of values of a pixel, at least 2.
        n_classes: Number of classes; None: the images have no labels.
        size: Height and width of the images that ``sample`` draws.

    """

    def __init__(self, *, levels: int, n_classes: int | None, size: Sequence[int]):
        check_int("levels", levels, minimum=2)
        if n_classes is not None:
            check_int("n_classes", n_classes, minimum=1)
        check_size(size)
        super().__init__()
        self.levels = levels
        self.n_classes = n_classes
        self.size = tuple(size)

    def logits(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The logits ``[B, levels, H, W]`` of p(x_i | x_<i), given labels ``y [B]`` or not."""
        raise NotImplementedError

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Exact log-probability ``[B]`` of images ``x [B, 1, H, W]``, in nats.

        With classes: log p(x | y) for given labels ``y [B]``, and without them
        log p(x) = log Σ_y p(y) p(x | y), at the cost of one pass for each class.
        """
        if self.n_classes is not None and y is None:
            return self.log_joint(x).logsumexp(dim=1)  # log Σ_y p(x, y)
        self.check_images("x", x)
        check_classes("y", y, len(x), self.n_classes)
        return self.log_conditionals(x, y).sum(dim=(1, 2, 3))

    def log_joint(self, x: Tensor) -> Tensor:
        """The joint log p(x, y) = log p(y) + log p(x | y) for all y, ``[B, n_classes]``, in nats.

        Its softmax over the classes is p(y | x), Bayes' rule: the model is also a classifier.
        """
        if self.n_classes is None:
            raise ValueError("log_joint must be asked of a model with classes, got n_classes=None")
        self.check_images("x", x)
        log_prior = -math.log(self.n_classes)  # the same for each class
        log_likelihood = [self.log_conditionals(x, y).sum(dim=(1, 2, 3)) for y in self.classes(x)]
        return log_prior + torch.stack(log_likelihood, dim=1)

    def log_conditionals(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The log p(x_i | x_<i) ``[B, 1, H, W]``: log softmax at the level that a pixel has.

        It looks at no number; ``log_prob`` and ``log_joint`` check the images before they ask.
        """
        return -F.cross_entropy(self.logits(x, y), x[:, 0].long(), reduction="none")[:, None]

    def classes(self, x: Tensor) -> list[Tensor]:
        """For each class the labels ``[B]`` that give it to all images of ``x``."""
        return [torch.full((len(x),), k, device=x.device) for k in range(self.n_classes)]

    def conditionals(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """p(x_i = 1 | x_<i) for black-and-white images, with the shape ``[B, 1, H, W]`` of ``x``.

        With more than two levels, the probability of each: ``[B, levels, H, W]``.
        """
        self.check_images("x", x)
        check_classes("y", y, len(x), self.n_classes)
        probabilities = self.logits(x, y).softmax(dim=1)
        return probabilities[:, 1:] if self.levels == 2 else probabilities

    def walk(self, x: Tensor, y: Tensor | None = None) -> Iterator[tuple[Any, Tensor]]:
        """Visit the pixels in raster order; here with a full pass for each of them."""
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                logits = self.logits(x, y)[:, :, row, column]
                yield (slice(None), 0, row, column), logits.softmax(dim=1)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        y: Tensor | None = None,
        size: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``n`` images ``[n, 1, H, W]``, pixel after pixel.

        Args:
            n: Number of images.
            y: Labels ``[n]``, where the model has classes; without them they are drawn from p(y).
            size: Height and width; None: the model's own ``size``.
            generator: Source of the draws.

        """
        check_int("n", n, minimum=1)
        size = self.size if size is None else size
        check_size(size)
        x = torch.zeros(n, 1, *size, dtype=self.dtype, device=self.device)
        known = torch.zeros_like(x, dtype=torch.bool)
        return self.complete(x, known, y=y, generator=generator)

    @torch.no_grad()
    def complete(
        self,
        x: Tensor,
        mask: Tensor,
        *,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Keep the known pixels of ``x`` and draw the others, each given all before it.

        A draw from p(unknown | known) where the known pixels come first in raster order. Elsewhere
        it is not: a pixel is drawn without regard to known ones that come later.

        Args:
            x: ``[B, 1, H, W]``; at unknown pixels any finite number may stand.
            mask: Boolean ``[B, 1, H, W]`` or ``[1, H, W]``; True where ``x`` is known.
            y: Labels ``[B]``, where the model has classes; without them they are drawn from
                p(y | known), at the cost of one pass for each class.
            generator: Source of the draws.

        Returns:
            Images of the shape of ``x``.

        """
        check_floats("x", x, (None, 1, None, None), dtype=self.dtype)
        known = self.known_coordinates(x, mask)
        check_generator(generator, x.device)
        check_levels("x where mask is True", torch.where(known, x, 0), self.levels)
        if self.n_classes is not None and y is None:
            y = self.draw_labels(x, known, generator=generator)
        check_classes("y", y, len(x), self.n_classes)
        return self.fill(x, known, y, generator=generator)

    def draw_labels(self, x: Tensor, known: Tensor, *, generator: torch.Generator | None) -> Tensor:
        """Labels ``[B]`` from p(y | known), by Bayes' rule; where nothing is known that is p(y).

        p(known | y) is the product of the known pixels' conditionals where they come first in
        raster order.
        """
        log_weights = x.new_zeros(len(x), self.n_classes)
        if known.any():  # otherwise spare the passes
            x = torch.where(known, x, 0)
            log_likelihood = [
                (known * self.log_conditionals(x, y)).sum(dim=(1, 2, 3)) for y in self.classes(x)
            ]
            log_weights = torch.stack(log_likelihood, dim=1)
        return log_weights.softmax(dim=1).multinomial(1, generator=generator)[:, 0]

    def encode(self, x: Tensor) -> Tensor:
        """Images as the network sees them, ``[B, levels + 1, H, W]``.

        The value itself, scaled to [0, 1], and one channel for each level, which is 1 where the
        pixel has it. Beyond the border all channels are 0, and so the network can see the border.
        """
        one_hot = F.one_hot(x[:, 0].long(), self.levels).movedim(-1, 1).to(x.dtype)
        return torch.cat([x / (self.levels - 1), one_hot], dim=1)

    def check_images(self, name: str, x: Tensor) -> None:
        """Require ``[B, 1, H, W]`` whole numbers below ``levels``, of the model's dtype."""
        check_level_floats(name, x, (None, 1, None, None), self.levels, dtype=self.dtype)


class NaivePixelCNN(ImageAutoregressive):
    """The first PixelCNN: one stack of masked convolutions, with a blind spot.

    Mask A in the first layer, mask B in all others. A pixel's receptive field grows upwards in a
    cone that leaves out pixels above and to the right: however deep the network, they stay unseen.

    Reference:
        van den Oord, Kalchbrenner, Kavukcuoglu 2016, https://arxiv.org/abs/1601.06759, section 3.4.

    Args:
        channels: Width of the hidden layers.
        layers: Number of masked convolutions, at least 1.
        levels: Number of values of a pixel, at least 2.
        kernel_size: Of every masked convolution; odd.
        size: Height and width of the images that ``sample`` draws.

    """

    def __init__(
        self,
        channels: int,
        layers: int,
        *,
        levels: int = 2,
        kernel_size: int = 3,
        size: Sequence[int] = (8, 8),
    ):
        check_int("channels", channels, minimum=1)
        check_int("layers", layers, minimum=1)
        super().__init__(levels=levels, n_classes=None, size=size)
        widths = [levels + 1] + [channels] * layers
        self.convolutions = nn.ModuleList(
            MaskedConv2d(widths[k], channels, kernel_size, mask="A" if k == 0 else "B")
            for k in range(layers)
        )
        self.head = nn.Conv2d(channels, levels, 1)

    def logits(self, x: Tensor, y: None = None) -> Tensor:
        """The logits ``[B, levels, H, W]`` of p(x_i | what the masks let pixel i see of x_<i)."""
        h = self.encode(x)
        for convolution in self.convolutions:
            h = convolution(h).relu()
        return self.head(h)


class PixelCNN(ImageAutoregressive):
    """The gated PixelCNN: two stacks, no blind spot, a class condition where wanted.

    Reference:
        van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu 2016,
        https://arxiv.org/abs/1606.05328, section 2.

    Args:
        channels: Width of both stacks.
        layers: Number of gated layers, at least 1.
        levels: Number of values of a pixel, at least 2.
        n_classes: Number of classes; None: the images have no labels.
        kernel_size: Of all layers but the first; odd.
        first_kernel_size: Of the first layer; odd.
        size: Height and width of the images that ``sample`` draws.

    Example:
        >>> model = PixelCNN(16, 3, levels=17, n_classes=10)
        >>> x = model.sample(2, y=torch.tensor([3, 8]))
        >>> x.shape, model.log_prob(x).shape, model.log_joint(x).shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2]), torch.Size([2, 10]))

    """

    def __init__(
        self,
        channels: int,
        layers: int,
        *,
        levels: int = 2,
        n_classes: int | None = None,
        kernel_size: int = 3,
        first_kernel_size: int = 7,
        size: Sequence[int] = (8, 8),
    ):
        check_int("channels", channels, minimum=1)
        check_int("layers", layers, minimum=1)
        check_odd("kernel_size", kernel_size)
        check_odd("first_kernel_size", first_kernel_size)
        super().__init__(levels=levels, n_classes=n_classes, size=size)
        first = GatedLayer(levels + 1, channels, first_kernel_size, n_classes, first=True)
        self.layers = nn.ModuleList(
            [
                first,
                *(GatedLayer(channels, channels, kernel_size, n_classes) for _ in range(1, layers)),
            ]
        )
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, levels, 1)
        )

    def logits(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The logits ``[B, levels, H, W]`` of p(x_i | x_<i), given labels ``y [B]`` or not."""
        v = h = self.encode(x)
        for layer in self.layers:
            v, h = layer(v, h, y)
        return self.head(h)

    def walk(self, x: Tensor, y: Tensor | None = None) -> Iterator[tuple[Any, Tensor]]:
        """Visit the pixels in raster order, computing only what each new pixel changes.

        The naive walk, with a full pass for each pixel, is ``ImageAutoregressive.walk``. Here the
        pixel X is about to be written::

            ^ ^ ^ ^ ^ ^   above: what each layer of the vertical stack has been given. It changes
            ^ ^ ^ ^ ^ ^   only when a row is complete: one step of that stack for each row.
            < < < X . .   left: what each layer of the horizontal stack has been given in this
            . . . . . .   row. One more column of it is known with each pixel: one step a pixel.

        So the whole walk costs about as much arithmetic as one full pass.
        """
        height, width = x.shape[2:]
        # Inputs of each layer, with zeros beyond the border around them.
        above = [
            layer.blank(x, height + layer.reach, width + 2 * layer.reach) for layer in self.layers
        ]
        for row in range(height):
            told = self.step_up(above, row, y)
            left = [layer.blank(x, 1, width + layer.reach) for layer in self.layers]
            for column in range(width):
                h = self.step_left(left, told, column)
                yield (slice(None), 0, row, column), self.head(h)[:, :, 0, 0].softmax(dim=1)
                written = self.encode(x[:, :, row : row + 1, column : column + 1])[:, :, 0, 0]
                reach = self.layers[0].reach
                above[0][:, :, row + reach, column + reach] = written
                left[0][:, :, 0, column + reach] = written

    def step_up(self, above: list[Tensor], row: int, y: Tensor | None) -> list[Tensor]:
        """The vertical stack of a row: what each layer tells the horizontal, ``[B, 2 C, 1, W]``.

        It notes the row that each layer gives to the next in ``above``.
        """
        told = []
        for k, layer in enumerate(self.layers):
            rows = above[k][:, :, row : row + layer.vertical.kernel_size[0]]
            v, message = layer.look_up(rows, y)  # v: (B, C, 1, W)
            told.append(message)
            if k + 1 < len(self.layers):
                reach = self.layers[k + 1].reach
                above[k + 1][:, :, row + reach, reach : reach + v.shape[3]] = v[:, :, 0]
        return told

    def step_left(self, left: list[Tensor], told: list[Tensor], column: int) -> Tensor:
        """The horizontal stack of a pixel, ``[B, C, 1, 1]``, given what the vertical one tells.

        It notes the pixel that each layer gives to the next in ``left``.
        """
        for k, layer in enumerate(self.layers):
            pixels = left[k][..., column : column + layer.horizontal.kernel_size[1]]
            own = left[k][..., column + layer.reach, None]
            h = layer.look_left(pixels, told[k][..., column : column + 1], own)
            if k + 1 < len(self.layers):
                left[k + 1][..., column + self.layers[k + 1].reach] = h[..., 0]
        return h


class GatedLayer(nn.Module):
    """One layer of both stacks: the vertical one sees all rows above, the horizontal one the rest.

    The vertical stack of a pixel has seen no pixel of its row; the horizontal one adds the pixels
    left of it. In the first layer, whose input holds the pixels themselves, a kernel stops short of
    its own row (vertical) or its own pixel (horizontal); in the others it includes them. Where a
    kernel would reach beyond, the input is shifted instead of the kernel masked.

    Args:
        n_in: Channels of the input.
        channels: Channels of both outputs.
        kernel_size: Odd; the kernel's reach is half of it, rounded down.
        n_classes: Number of classes, or None.
        first: Whether this is the first layer.

    """

    def __init__(
        self,
        n_in: int,
        channels: int,
        kernel_size: int,
        n_classes: int | None,
        *,
        first: bool = False,
    ):
        super().__init__()
        self.n_in, self.first = n_in, first
        self.reach = kernel_size // 2
        extent = self.reach + (not first)  # rows, or columns, up to the own one
        self.vertical = nn.Conv2d(n_in, 2 * channels, (extent, kernel_size))
        self.down = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.horizontal = nn.Conv2d(n_in, 2 * channels, (1, extent))
        self.out = nn.Conv2d(channels, channels, 1)
        self.classes = None if n_classes is None else nn.Embedding(n_classes, 4 * channels)

    def forward(self, v: Tensor, h: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Both stacks ``[B, n_in, H, W]`` to both stacks ``[B, channels, H, W]``."""
        reach, crop = self.reach, -int(self.first)
        v, told = self.look_up(F.pad(v, (reach, reach, reach, crop)), y)
        return v, self.look_left(F.pad(h, (reach, crop)), told, h)

    def blank(self, x: Tensor, height: int, width: int) -> Tensor:
        """Zeros ``[B, n_in, height, width]`` like ``x``: an input of which nothing is known yet."""
        return x.new_zeros(len(x), self.n_in, height, width)

    def look_up(self, rows: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """The vertical stack from padded rows, and what it tells the horizontal stack."""
        a = self.vertical(rows)
        told = self.down(a)
        if self.classes is not None:
            bias_up, bias_left = self.classes(y)[:, :, None, None].chunk(2, dim=1)
            a, told = a + bias_up, told + bias_left
        return gate(a), told

    def look_left(self, pixels: Tensor, told: Tensor, here: Tensor) -> Tensor:
        """The horizontal stack from padded pixels of a row; ``here`` is what it adds to."""
        h = self.out(gate(self.horizontal(pixels) + told))
        return h if self.first else here + h


def check_size(size: Sequence[int]) -> None:
    """Require height and width, each an integer of at least 1."""
    check_ints("size", size, minimum=1)
    if len(size) != 2:
        raise ValueError(f"size must hold height and width, got {size!r}")


def gate(a: Tensor) -> Tensor:
    """The gate of both stacks: ``[B, 2 C, H, W]`` to ``[B, C, H, W]``, tanh of a half times σ."""
    content, door = a.chunk(2, dim=1)
    return content.tanh() * door.sigmoid()
