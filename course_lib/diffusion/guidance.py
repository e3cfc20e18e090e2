"""Guidance: a denoiser that is led towards a class, by its own opinion of it or by a classifier's.

Both ways turn one denoiser into another, so that every sampler takes them. Both need the gradient
of log p(y | x_t), what the label says about x_t. A model that was trained with and without labels
implies it, score(y) − score(null), by Bayes' rule; else a classifier of noised images gives it.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import (
    at_the_door,
    check_classes,
    check_floats,
    check_int,
    check_number,
    check_shape,
    check_tokens,
)
from course_lib.diffusion.continuous import EDMPath
from course_lib.diffusion.denoiser import Denoiser, PredictionError
from course_lib.diffusion.paths import GaussianPath, mixture, per_example
from course_lib.nn import Placed, TimeEmbedding

__all__ = [
    "ClassifierFreeGuidance",
    "ClassifierGuidance",
    "NoisedClassifier",
    "class_gradient",
    "guide",
]

Classifier = Callable[[Tensor, Tensor], Tensor]  # logits [B, n_classes] from x_t and the times [B]


# --- by the model's own opinion ----------------------------------------------------------------


def _check_mixing(null: Tensor, label: Tensor, scale: float) -> None:
    check_floats("null", null, None)
    check_floats("label", label, null.shape, dtype=null.dtype)
    check_number("scale", scale, minimum=-math.inf)


@at_the_door(_check_mixing)
def guide(null: Tensor, label: Tensor, scale: float) -> Tensor:
    """From what is predicted without a label through what is predicted with it, and beyond.

    0 is the one, 1 the other. Of the scores it makes score(null) + scale · ∇ log p(y | x_t). Any
    other prediction is one and the same linear function of the score in both, at a given x_t, so
    that it may be mixed in its place.

    Reference:
        Ho, Salimans 2022, https://arxiv.org/abs/2207.12598, equation 6, with w = ``scale`` − 1.

    Args:
        null: The prediction without a label, ``[B, *event]``.
        label: The prediction with it.
        scale: How far to go; above 1 beyond ``label``.

    Example:
        >>> guide(torch.tensor([[1.0]]), torch.tensor([[2.0]]), 3.0)
        tensor([[4.]])

    """
    return null + scale * (label - null)


class ClassifierFreeGuidance(Denoiser):
    """A model that exaggerates what its label changes: the ``guide`` of its two predictions.

    ``scale`` 0 is the model without labels, 1 with them, more is guidance. Ho & Salimans count from
    the conditional model: their w is ``scale`` − 1. Most programs of today count as here.

    Both predictions are made in one call of the network, of a batch that is twice as large.

    Reference:
        Ho, Salimans 2022, https://arxiv.org/abs/2207.12598; the interval: Kynkäänniemi et al.
        2024, https://arxiv.org/abs/2404.07724.

    Args:
        model: A model that was trained with and without labels: one with a null class.
        scale: How far to go.
        interval: (low, high), the noise levels σ = b / a with low < σ ≤ high at which it guides.
            Outside, ``scale`` is 1, and the network's batch is no larger than without guidance.
        negative: What to go away from in place of the null class: one label, or ``[B]``; of a
            model that is told prompts, tokens ``[B, L]`` or ``[1, L]``.

    Example:
        >>> from course_lib.diffusion import EDMPath, IdealDenoiser
        >>> centres, labels, path = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), EDMPath()
        >>> model = Denoiser(IdealDenoiser(centres, path, std=0.5, labels=labels), path)
        >>> x, y = torch.zeros(1, 1), torch.tensor([1])
        >>> for scale in (0.0, 1.0, 3.0):
        ...     guided = ClassifierFreeGuidance(model, scale)
        ...     print(f"{guided.predict_x0(x, 1.0, y=y).item():.1f}")
        0.0
        0.8
        2.4

    """

    null_class = None  # it wants labels

    def __init__(
        self,
        model: Denoiser,
        scale: float,
        *,
        interval: tuple[float, float] | None = None,
        negative: int | Tensor | None = None,
    ):
        _check_model(model)
        if model.null_class is None:
            raise ValueError(
                "model must have a null class, for what it says without a label, got a "
                f"{type(model).__name__} without one"
            )
        check_number("scale", scale, minimum=-math.inf)
        if interval is not None:
            _check_interval(interval)
        if not isinstance(model.null_class, int):
            if negative is not None:
                check_tokens("negative", negative, None, len(model.null_class))
        elif isinstance(negative, Tensor):
            check_classes("negative", negative, negative.numel(), model.null_class)
        elif negative is not None:
            check_int("negative", negative, minimum=0, maximum=model.null_class - 1)
        super().__init__(model, model.path, predicts=model.predicts)
        self.placement = torch.empty_like(model.placement)
        self.scale, self.interval, self.negative = scale, interval, negative

    def extra_repr(self) -> str:
        """What the guidance is."""
        return f"scale={self.scale}, interval={self.interval}, negative={self.negative}"

    def guides(self, t: Tensor, x: Tensor) -> Tensor:
        """Whether the noise level at times ``t [B]`` lies in the interval: ``[B, 1, ...]``."""
        if self.interval is None:
            return torch.ones((len(x), *[1] * (x.ndim - 1)), dtype=torch.bool, device=x.device)
        a, b = self.path.amounts(t, x)
        low, high = self.interval
        return (low < b / a) & (b / a <= high)

    def _call(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        if isinstance(self.net.null_class, int):
            check_classes("y", y, len(x_t), self.net.null_class + 1)
        else:
            check_tokens("y", y, len(x_t), len(self.net.null_class))
        guides = self.guides(t, x_t)
        if self.scale == 1 or not guides.any():
            return self.net(x_t, t, y)
        both = torch.cat([self.instead(y), y])
        null, label = self.net(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
        guided = guide.inside(null, label, self.scale)
        return guided if guides.all() else torch.where(guides, guided, label)

    def instead(self, y: Tensor) -> Tensor:
        """The labels of what to go away from, for labels ``y``, ``[B]`` or ``[B, L]``, to go to."""
        if self.negative is None:
            return y.new_tensor(self.net.null_class).expand_as(y)
        if not isinstance(self.negative, Tensor):
            return torch.full_like(y, self.negative)
        if y.ndim == 1:
            check_classes("negative", self.negative, len(y), self.net.null_class)
        elif len(self.negative) > 1:
            check_tokens("negative", self.negative, len(y), y.shape[1])
        return self.negative.to(y.device).expand_as(y)


# --- by a classifier's opinion -----------------------------------------------------------------


def class_gradient(classifier: Classifier, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """∇ log p(y | x_t) with respect to ``x_t``: in which direction it looks more like its class.

    It is there whether gradients are recorded or not, and has gradients itself where they are.

    Reference:
        Dhariwal, Nichol 2021, https://arxiv.org/abs/2105.05233, section 4.

    Args:
        classifier: ``classifier(x_t, t)`` → logits ``[B, n_classes]``, each example for itself.
        x_t: Noised data ``[B, *event]``.
        t: Times ``[B]``.
        y: Labels ``[B]``.

    Returns:
        ``[B, *event]``.

    Raises:
        PredictionError: When the classifier's output is not finite or not ``[B, n_classes]``.

    Example:
        >>> towards_1 = lambda x, t: torch.cat([torch.zeros_like(x), x], dim=1)
        >>> class_gradient(towards_1, torch.zeros(1, 1), torch.zeros(1), torch.tensor([1]))
        tensor([[0.5000]])

    """

    def log_prob(x: Tensor) -> Tensor:
        logits = classifier(x, t)
        try:
            check_floats("classifier's output", logits, (len(x), None))
        except ValueError as error:
            raise PredictionError(str(error)) from None
        check_classes("y", y, len(x), logits.shape[1])
        return -F.cross_entropy(logits, y, reduction="sum")

    return torch.func.grad(log_prob)(x_t)


class ClassifierGuidance(Denoiser):
    """A model without labels that a classifier leads to one.

        score + ``scale`` · ∇ log p(y | x_t)

    With ``scale`` 1 the two make the score of p(x_t | y), by Bayes' rule, as good as both are. The
    score's change is one of the guess of x_0, by b² / a · scale · ∇ log p(y | x_t).

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2011.13456, section 5; Dhariwal, Nichol 2021,
        https://arxiv.org/abs/2105.05233, algorithms 1 and 2.

    Args:
        model: A model that can be asked without labels.
        classifier: A ``NoisedClassifier``, or ``classifier(x_t, t)`` → logits ``[B, n_classes]``
            for x_t and times on the model's path.
        scale: How much of the gradient; 0 is the model alone.

    Example:
        >>> from course_lib.diffusion import EDMPath, IdealDenoiser
        >>> centres, labels, path = torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), EDMPath()
        >>> ideal = IdealDenoiser(centres, path, std=0.5, labels=labels)
        >>> guided = ClassifierGuidance(Denoiser(ideal, path), ideal.logits, 3.0)
        >>> x, y = torch.zeros(1, 1), torch.tensor([1])
        >>> print(f"{guided.predict_x0(x, 1.0, y=y).item():.1f}")
        2.4

    """

    null_class = None  # it wants labels

    def __init__(self, model: Denoiser, classifier: Classifier, scale: float):
        _check_model(model)
        for part in model.modules():
            if isinstance(part, TimeEmbedding) and part.n_classes and part.null_class is None:
                raise ValueError(
                    "model must be one that can be asked without labels, got one with "
                    f"{part.n_classes} classes and no null class"
                )
        if not callable(classifier):
            raise ValueError(f"classifier must be a network or a function, got {classifier!r}")
        check_number("scale", scale, minimum=-math.inf)
        super().__init__(model, model.path, predicts=model.predicts)
        self.placement = torch.empty_like(model.placement)
        self.classifier, self.scale = classifier, scale

    def extra_repr(self) -> str:
        """What the guidance is."""
        return f"scale={self.scale}"

    def _call(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        if y is None:
            raise ValueError(f"y must be an int64 tensor [{len(x_t)}] of classes, got None")
        classifier = self.classifier
        if isinstance(classifier, NoisedClassifier):
            classifier = partial(classifier, path=self.path)
        gradient = class_gradient(classifier, x_t, t, y)
        return self.net(x_t, t) + self.rate(t, x_t) * self.scale * gradient

    def rate(self, t: Tensor, x: Tensor) -> Tensor | float:
        """By how much the prediction grows with the score, at times ``t``: ``[B, 1, ...]``.

        The guess of x_0 grows by b² / a and that of eps by −b, so that x_t stays what it is. Where
        nothing is left of the data, a = 0, only a network of eps or of the score can be guided.
        """
        a, b = self.path.amounts(t, x)
        c, d = mixture(self.predicts, self.path, t, x)  # the network predicts c x_0 + d eps
        if self.predicts in ("eps", "score"):
            return -d * b
        if not (a > 0).all():
            raise ValueError(
                "t must be a time at which some of the data is left, a > 0, to guide a network "
                f"that predicts {self.predicts}, got {t.flatten()[a.flatten() <= 0][0].item():.6g}"
            )
        return c * b**2 / a - d * b


class NoisedClassifier(Placed):
    """A small convolutional network that tells the classes of noised images, at any noise level.

    What x_t = a x_0 + b eps shows of x_0 depends on the noise level σ = b / a alone. So the network
    sees x_t at one size, x_t / sqrt(a² + b²), and log(σ) / 4 for the time: it is the same on every
    path. It is smooth, since it is there for its gradients.

    Reference:
        Dhariwal, Nichol 2021, https://arxiv.org/abs/2105.05233, section 4.

    Args:
        shape: (C, H, W) of the images, with values in [−1, 1]; H and W at least 4.
        n_classes: The number of classes.
        width: Channels of the first convolution, a multiple of 8; the second has twice as many.
        path: The path of x_t and its times.
        levels: The least and the largest noise level that it learns. Beyond them it is told these.

    Example:
        >>> classifier = NoisedClassifier((1, 8, 8))
        >>> classifier(torch.zeros(5, 1, 8, 8), torch.ones(5)).shape
        torch.Size([5, 10])

    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        n_classes: int = 10,
        width: int = 32,
        path: GaussianPath | None = None,
        levels: tuple[float, float] = (0.01, 50.0),
    ):
        check_shape("shape", shape, lengths=(3,), any_size=False)
        if min(shape[1:]) < 4:
            raise ValueError(f"shape must have a height and width of at least 4, got {shape!r}")
        check_int("n_classes", n_classes, minimum=2)
        check_int("width", width, minimum=2)
        if width % 8:
            raise ValueError(f"width must be a multiple of 8, got {width}")
        if path is not None and not isinstance(path, GaussianPath):
            raise ValueError(f"path must be a GaussianPath, got {path!r}")
        check_number("levels[0]", levels[0], above=0)
        check_number("levels[1]", levels[1], above=levels[0])
        super().__init__()
        self.shape, self.n_classes, self.levels = tuple(shape), n_classes, levels
        self.path = EDMPath() if path is None else path
        pixels = (shape[1] // 4) * (shape[2] // 4)
        self.time = TimeEmbedding(64, 2 * width, scale=1000.0)
        self.convs = nn.ModuleList(
            nn.Conv2d(n_in, n_out, 3, padding=1)
            for n_in, n_out in ((shape[0], width), (width, 2 * width))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, conv.out_channels) for conv in self.convs)
        self.shifts = nn.ModuleList(nn.Linear(2 * width, conv.out_channels) for conv in self.convs)
        self.head = nn.Sequential(
            nn.Linear(2 * width * pixels, 2 * width), nn.SiLU(), nn.Linear(2 * width, n_classes)
        )

    def forward(self, x_t: Tensor, t: Tensor | float, path: GaussianPath | None = None) -> Tensor:
        """The logits ``[B, n_classes]`` of ``x_t [B, C, H, W]`` at times ``t``, ``[B]`` or one.

        ``path`` is that of x_t and t, if it is not the classifier's own.
        """
        check_floats("x_t", x_t, (None, *self.shape), dtype=self.dtype)
        path = self.path if path is None else path
        a, b = path.amounts(path.times(t, len(x_t)), x_t)
        sigma = (b / a).flatten(1).flatten().clamp(*self.levels)
        h, embedded = x_t / (a**2 + b**2) ** 0.5, F.silu(self.time(sigma.log() / 4))
        for conv, norm, shift in zip(self.convs, self.norms, self.shifts, strict=True):
            h = norm(conv(h)) + shift(embedded)[:, :, None, None]
            h = F.avg_pool2d(F.silu(h), 2)
        return self.head(h.flatten(1))

    def loss(self, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The mean cross-entropy of ``y``, in nats, at noise levels that are uniform in log σ.

        Args:
            x: Images ``[B, C, H, W]``.
            y: Labels ``[B]``.
            generator: Source of the noise levels and the noise.

        """
        check_floats("x", x, (None, *self.shape), dtype=self.dtype)
        check_classes("y", y, len(x), self.n_classes)
        low, high = (math.log(level) for level in self.levels)
        u = torch.rand(len(x), generator=generator, device=x.device, dtype=x.dtype)
        eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        sigma = (low + (high - low) * u).exp().clamp(*self.levels)
        x_t = x + per_example(sigma, x) * eps
        return F.cross_entropy(self(x_t, sigma, EDMPath(*self.levels)), y)


def _check_model(model: Denoiser) -> None:
    if not isinstance(model, Denoiser):
        raise ValueError(f"model must be a Denoiser, got {type(model).__name__}")


def _check_interval(interval: tuple[float, float]) -> None:
    """Require two noise levels, the second of which may be infinite (``ValueError``)."""
    fair = isinstance(interval, tuple | list) and len(interval) == 2
    fair = fair and all(isinstance(s, int | float) and not isinstance(s, bool) for s in interval)
    if not fair or not 0 <= interval[0] < interval[1]:
        what = "(low, high), two noise levels with 0 <= low < high"
        raise ValueError(f"interval must be {what}, got {interval!r}")
