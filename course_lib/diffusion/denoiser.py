"""A network on a path: what it predicts, and how it learns to."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.checks import (
    check_classes,
    check_floats,
    check_generator,
    check_int,
    check_number,
    check_one_of,
    check_share,
    check_tokens,
)
from course_lib.diffusion.paths import PREDICTIONS, GaussianPath, combine, convert
from course_lib.nn import Placed

__all__ = ["Denoiser", "PredictionError", "drop_labels"]

# The operation behind F.mse_loss, which takes half as long again since it broadcasts first.
mse_loss = torch.ops.aten.mse_loss


class PredictionError(ArithmeticError):
    """The network's output is not finite, or not of the shape of its input."""


class Denoiser(Placed):
    """A network that looks at x_t and says what it is made of: eps, x_0, or a mixture of both.

    Which mixture the network itself predicts is a matter of training. ``predict`` gives any of
    them, on any path, and is all that a sampler needs.

    Args:
        net: ``net(x_t, t)``, or ``net(x_t, t, y)`` with labels: ``x_t [B, *event]``, ``t [B]`` as
            the path counts time, ``y [B]`` → ``[B, *event]``. Prompts are labels, too: their tokens
            ``[B, L]``.
        path: From data to noise.
        predicts: What ``net`` returns: ``"eps"``, ``"x0"``, ``"v"``, ``"score"`` or ``"velocity"``.
        drop: Share of the labels that training hides from the network, which needs a null class.

    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        path: GaussianPath,
        *,
        predicts: str = "eps",
        drop: float = 0.0,
    ):
        if not callable(net):
            raise ValueError(f"net must be a network or a function, got {net!r}")
        if not isinstance(path, GaussianPath):
            raise ValueError(f"path must be a GaussianPath, got {path!r}")
        check_one_of("predicts", predicts, PREDICTIONS)
        check_share("drop", drop)
        super().__init__()
        self.net, self.path, self.predicts, self.drop = net, path, predicts, drop
        if drop and self.null_class is None:
            raise ValueError(f"drop must be 0 for a network without a null class, got {drop!r}")

    def extra_repr(self) -> str:
        """What the network predicts, on which path."""
        return f"predicts={self.predicts}, path={self.path}"

    @property
    def null_class(self) -> int | tuple[int, ...] | None:
        """The label that says nothing, where the network knows one; of prompts, its tokens."""
        return getattr(self.net, "null_class", None)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one example, where the network knows it."""
        return self.net.event_shape

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """What the network predicts: a denoiser is a network, too, of what ``predicts`` says."""
        return self.predict(x_t, t, target=self.predicts, y=y)

    def predict(
        self, x_t: Tensor, t: Tensor | float, *, target: str = "eps", y: Tensor | None = None
    ) -> Tensor:
        """What ``x_t [B, *event]`` at times ``t``, ``[B]`` or one for all, is made of.

        Args:
            x_t: Noised data.
            t: Times of the path.
            target: What to say, whatever the network predicts: a key of ``PREDICTIONS``.
            y: Labels ``[B]``, for a network with classes; tokens ``[B, L]``, for one with prompts.

        Returns:
            ``[B, *event]``.

        Raises:
            PredictionError: When the network's output is not finite or has another shape.

        """
        check_one_of("target", target, PREDICTIONS)
        check_floats("x_t", x_t, None, dtype=self.dtype)
        value = self.prediction(x_t, t, y)
        return convert.inside(
            value, source=self.predicts, target=target, x_t=x_t, t=t, path=self.path
        )

    def prediction(self, x_t: Tensor, t: Tensor | float, y: Tensor | None = None) -> Tensor:
        """What the network says, ``[B, *event]``, for a loop that has looked at ``x_t``."""
        times = self.path.times(t, x_t.shape[0]).to(x_t.device)
        value = self._call(x_t, times, y)
        try:
            check_floats("net's output", value, x_t.shape, dtype=x_t.dtype)
        except ValueError as error:
            raise PredictionError(f"{error} (at t = {min(times.tolist()):.6g})") from None
        return value

    def predict_x0(
        self,
        x_t: Tensor,
        t: Tensor | float,
        *,
        y: Tensor | None = None,
        clip: float | None = None,
    ) -> Tensor:
        """The guess of x_0, cut off at −``clip`` and ``clip`` where that is given."""
        if clip is not None:
            check_number("clip", clip, above=0)
        x_0 = self.predict(x_t, t, target="x0", y=y)
        return x_0 if clip is None else x_0.clamp(-clip, clip)

    def loss(
        self, x: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The mean squared error of the prediction, at random times and with fresh noise.

        Args:
            x: Data ``[B, *event]``.
            y: Labels ``[B]``, for a network with classes; tokens ``[B, L]``, for one with prompts.
            generator: Source of the times, the noise, and the labels that are dropped.

        Raises:
            PredictionError: When the network's output has another shape than ``x``.

        """
        check_floats("x", x, None, dtype=self.dtype)
        t, eps = self.draw(x, generator=generator)
        y = self.hide(y, generator=generator)
        value = self._call(self.path.noised.inside(self.path, x, t, eps), t, y)
        if value.shape != x.shape:
            what = f"{list(x.shape)}, got {list(value.shape)}"
            raise PredictionError(f"net's output must have shape {what}")
        target = combine.inside(self.predicts, x, eps, t, self.path)
        return mse_loss(value, target)

    def draw(self, x: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """What the loss of a batch ``x [B, *event]`` draws: times ``[B]``, and noise like ``x``."""
        t = self.path.draw_times(x.shape[0], generator=generator, device=x.device)
        return t, torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)

    def hide(self, y: Tensor | None, *, generator: torch.Generator | None = None) -> Tensor | None:
        """Labels ``y``, ``[B]`` or ``[B, L]``, as training shows them: ``drop`` of them are hidden.

        In their place stands the null class, or the empty prompt.
        """
        if y is None or not self.drop:
            return y
        if isinstance(self.null_class, int):
            return drop_labels(y, self.drop, n_classes=self.null_class, generator=generator)
        check_tokens("y", y, None, len(self.null_class))
        hidden = torch.rand(len(y), 1, generator=generator, device=y.device) < self.drop
        return torch.where(hidden, y.new_tensor(self.null_class), y)

    def _call(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        return self.net(x_t, t) if y is None else self.net(x_t, t, y)

    def noise(self, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        """Standard normal numbers in the model's precision, on its device."""
        return torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)


def drop_labels(
    y: Tensor, share: float, *, n_classes: int, generator: torch.Generator | None = None
) -> Tensor:
    """Labels of which some are hidden: each becomes the null class with probability ``share``.

    So one network learns both, p(x | y) and p(x).

    Reference:
        Ho, Salimans 2022, https://arxiv.org/abs/2207.12598, algorithm 1.

    Args:
        y: Labels ``[B]``, int64, from 0 to ``n_classes`` − 1.
        share: From 0 to 1.
        n_classes: The number of classes, and the label of the null class.
        generator: Source of one uniform number for each label.

    Example:
        >>> drop_labels(torch.tensor([3, 1]), 1.0, n_classes=10)
        tensor([10, 10])

    """
    check_int("n_classes", n_classes, minimum=1)
    if not isinstance(y, Tensor) or y.ndim != 1:
        raise ValueError(f"y must be an int64 tensor [B] of classes, got {y!r}")
    check_classes("y", y, len(y), n_classes)
    check_share("share", share)
    check_generator(generator, y.device)
    hidden = torch.rand(len(y), generator=generator, device=y.device) < share
    return y.masked_fill(hidden, n_classes)
