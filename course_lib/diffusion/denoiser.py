"""A network on a path: what it predicts, and how it learns to."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_number, check_one_of
from course_lib.diffusion.paths import PREDICTIONS, GaussianPath, combine, convert
from course_lib.nn import Placed

__all__ = ["Denoiser", "PredictionError"]


class PredictionError(ArithmeticError):
    """The network's output is not finite, or not of the shape of its input."""


class Denoiser(Placed):
    """A network that looks at x_t and says what it is made of: eps, x_0, or a mixture of both.

    Which mixture the network itself predicts is a matter of training. ``predict`` gives any of
    them, on any path, and is all that a sampler needs.

    Args:
        net: ``net(x_t, t)``, or ``net(x_t, t, y)`` with labels: ``x_t [B, *event]``, ``t [B]`` as
            the path counts time, ``y [B]`` → ``[B, *event]``.
        path: From data to noise.
        predicts: What ``net`` returns: ``"eps"``, ``"x0"``, ``"v"``, ``"score"`` or ``"velocity"``.

    """

    def __init__(self, net: Callable[..., Tensor], path: GaussianPath, *, predicts: str = "eps"):
        if not callable(net):
            raise ValueError(f"net must be a network or a function, got {net!r}")
        if not isinstance(path, GaussianPath):
            raise ValueError(f"path must be a GaussianPath, got {path!r}")
        check_one_of("predicts", predicts, PREDICTIONS)
        super().__init__()
        self.net, self.path, self.predicts = net, path, predicts

    def extra_repr(self) -> str:
        """What the network predicts, on which path."""
        return f"predicts={self.predicts}, path={self.path}"

    def predict(
        self, x_t: Tensor, t: Tensor | float, *, target: str = "eps", y: Tensor | None = None
    ) -> Tensor:
        """What ``x_t [B, *event]`` at times ``t``, ``[B]`` or one for all, is made of.

        Args:
            x_t: Noised data.
            t: Times of the path.
            target: What to say, whatever the network predicts: a key of ``PREDICTIONS``.
            y: Labels ``[B]``, for a network with classes.

        Returns:
            ``[B, *event]``.

        Raises:
            PredictionError: When the network's output is not finite or has another shape.

        """
        check_one_of("target", target, PREDICTIONS)
        check_floats("x_t", x_t, None, dtype=self.dtype)
        times = self.path.times(t, len(x_t)).to(x_t.device)
        value = self._call(x_t, times, y)
        try:
            check_floats("net's output", value, x_t.shape, dtype=x_t.dtype)
        except ValueError as error:
            raise PredictionError(f"{error} (at t = {min(times.tolist()):.6g})") from None
        return convert.inside(
            value, source=self.predicts, target=target, x_t=x_t, t=t, path=self.path
        )

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
            y: Labels ``[B]``, for a network with classes.
            generator: Source of the times and the noise.

        Raises:
            PredictionError: When the network's output has another shape than ``x``.

        """
        check_floats("x", x, None, dtype=self.dtype)
        t, eps = self.draw(x, generator=generator)
        value = self._call(self.path.noised.inside(self.path, x, t, eps), t, y)
        if value.shape != x.shape:
            what = f"{list(x.shape)}, got {list(value.shape)}"
            raise PredictionError(f"net's output must have shape {what}")
        target = combine.inside(self.predicts, x, eps, t, self.path)
        return (value - target).square().mean()

    def draw(self, x: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """What the loss of a batch ``x [B, *event]`` draws: times ``[B]``, and noise like ``x``."""
        t = self.path.draw_times(len(x), generator=generator, device=x.device)
        return t, torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)

    def _call(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        return self.net(x_t, t) if y is None else self.net(x_t, t, y)

    def noise(self, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        """Standard normal numbers in the model's precision, on its device."""
        return torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype)
