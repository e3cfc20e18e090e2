"""The spine of every diffusion model: the path from data to noise, and what can be read off it.

All of them noise data alike, x_t = a(t) x_0 + b(t) eps. They differ in a and b, in what the
network predicts, and in the way back. Here are the path and the predictions; the ways back are the
samplers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_generator, check_one_of

__all__ = ["PREDICTIONS", "GaussianPath", "combine", "convert", "per_example"]


class GaussianPath(ABC):
    """x_t = a(t) x_0 + b(t) eps with eps ~ N(0, I): data x_0 at the start, noise at the end.

    A path is two formulas, ``a`` and ``b``, and the times between which they hold, ``t_min`` and
    ``t_max``. The derivatives follow by automatic differentiation. Both formulas must work element
    by element on a floating-point tensor of times.

    Reference:
        Kingma et al. 2021, https://arxiv.org/abs/2107.00630, section 3.1, with their α and σ.

    Example:
        >>> class Straight(GaussianPath):
        ...     def a(self, t):
        ...         return 1 - t
        ...
        ...     def b(self, t):
        ...         return t
        >>> path = Straight()
        >>> t = torch.tensor([0.25])
        >>> path.noised(torch.tensor([[4.0]]), t, torch.tensor([[8.0]]))
        tensor([[5.]])
        >>> path.da(t), path.db(t)
        (tensor([-1.]), tensor([1.]))

    """

    t_min: float = 0.0
    t_max: float = 1.0

    @abstractmethod
    def a(self, t: Tensor) -> Tensor:
        """How much of the data is left at times ``t``, in the shape of ``t``."""

    @abstractmethod
    def b(self, t: Tensor) -> Tensor:
        """The standard deviation of the noise at times ``t``, in the shape of ``t``."""

    def da(self, t: Tensor) -> Tensor:
        """The derivative of a at times ``t``."""
        return _slope(self.a, t)

    def db(self, t: Tensor) -> Tensor:
        """The derivative of b at times ``t``."""
        return _slope(self.b, t)

    def log_snr(self, t: Tensor) -> Tensor:
        """The log of the signal-to-noise ratio, log a² / b²: it falls along the path."""
        return 2 * (self.a(t).log() - self.b(t).log())

    def noised(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Noise ``x0 [B, *event]`` to times ``t``, ``[B]`` or one for all, with ``eps`` like x0.

        Raises:
            ValueError: When a tensor is not finite or has another shape, or a time is not in
                [``t_min``, ``t_max``].

        """
        check_floats("x0", x0, None)
        check_floats("eps", eps, x0.shape, dtype=x0.dtype)
        t = self.times(t, len(x0))
        return per_example(self.a(t.double()), x0) * x0 + per_example(self.b(t.double()), x0) * eps

    def sample(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """``noised`` under its older name; nothing is drawn."""
        return self.noised(x0, t, eps)

    def draw_times(
        self, n: int, *, generator: torch.Generator | None = None, device: torch.device = "cpu"
    ) -> Tensor:
        """``n`` times to train at, uniform over the path."""
        check_generator(generator, device)
        u = torch.rand(n, generator=generator, device=device)
        return (self.t_min + (self.t_max - self.t_min) * u).clamp(max=self.t_max)

    def times(self, t: Tensor | float, n: int) -> Tensor:
        """Require times of the path, ``[n]`` or one for all, and return them as ``[n]``."""
        if not isinstance(t, Tensor | int | float):
            raise ValueError(f"t must be one time or a tensor of shape [{n}], got {t!r}")
        if type(t) in (int, float) and self.t_min <= t <= self.t_max:
            return torch.full((n,), t)  # quicker than what follows, for a sampler
        times = torch.as_tensor(t)
        if times.shape not in ((), (n,)) or times.is_complex() or times.dtype == torch.bool:
            what = f"{times.dtype} {list(times.shape)}"
            raise ValueError(f"t must be one time or a tensor of shape [{n}], got {what}")
        self.check_times(times)
        return times.expand(n)

    def check_times(self, t: Tensor) -> None:
        """Require every time to lie in [``t_min``, ``t_max``] (``ValueError``)."""
        inside = (t >= self.t_min) & (t <= self.t_max)
        if not inside.all():
            raise ValueError(
                f"t must lie in [{self.t_min}, {self.t_max}], got {t[~inside].flatten()[0].item()}"
            )


def _slope(function: Callable[[Tensor], Tensor], t: Tensor | float) -> Tensor:
    """The derivative of an elementwise function; whole times are taken as float64."""
    t = torch.as_tensor(t)
    t = t if t.is_floating_point() else t.double()
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        # 0 · t, so that a constant has a gradient as well: 0.
        return torch.autograd.grad((function(t) + 0 * t).sum(), t)[0]


# What a network may predict: each is c(t) x_0 + d(t) eps, with these coefficients c and d.
PREDICTIONS = {
    "x0": lambda path, t: (torch.ones_like(t), torch.zeros_like(t)),
    "eps": lambda path, t: (torch.zeros_like(t), torch.ones_like(t)),
    # Salimans & Ho 2022, appendix D: the direction at right angles to x_t where a² + b² = 1.
    "v": lambda path, t: (-path.b(t), path.a(t)),
    # ∇ log q(x_t | x_0), whose average over x_0 given x_t is ∇ log q(x_t): Vincent 2011.
    "score": lambda path, t: (torch.zeros_like(t), -1 / path.b(t)),
    # dx_t / dt: flow matching, Lipman et al. 2023, https://arxiv.org/abs/2210.02747.
    "velocity": lambda path, t: (path.da(t), path.db(t)),
}


def combine(kind: str, x0: Tensor, eps: Tensor, t: Tensor, path: GaussianPath) -> Tensor:
    """The quantity ``kind`` of x_t = a x_0 + b eps: c(t) x_0 + d(t) eps, ``[B, *event]``.

    Args:
        kind: ``"eps"``, ``"x0"``, ``"v"`` = a eps − b x_0, ``"score"`` = −eps / b, or
            ``"velocity"`` = a' x_0 + b' eps.
        x0: Data ``[B, *event]``, or a guess of it.
        eps: Noise of the same shape.
        t: Times, ``[B]`` or one for all.
        path: The path.

    Raises:
        ValueError: When an argument is not as described, or ``kind`` is infinite at such a time.

    """
    check_one_of("kind", kind, PREDICTIONS)
    check_floats("x0", x0, None)
    check_floats("eps", eps, x0.shape, dtype=x0.dtype)
    t = path.times(t, len(x0)).double()
    c, d = PREDICTIONS[kind](path, t)
    finite = c.isfinite() & d.isfinite()
    if not finite.all():
        raise ValueError(f"t must be a time at which {kind} is finite, got {t[~finite][0].item()}")
    return per_example(c, x0) * x0 + per_example(d, x0) * eps


def convert(
    value: Tensor, *, source: str, target: str, x_t: Tensor, t: Tensor, path: GaussianPath
) -> Tensor:
    """Say the same prediction in other words: from ``source`` to ``target``, on any path.

    Every prediction is c x_0 + d eps. With x_t = a x_0 + b eps that makes two linear equations in
    x_0 and eps, whose determinant is a d − b c.

    Args:
        value: The prediction ``[B, *event]``.
        source: What it is: ``"eps"``, ``"x0"``, ``"v"``, ``"score"`` or ``"velocity"``.
        target: What it shall be.
        x_t: The noised data that it was predicted from, ``[B, *event]``.
        t: The times, ``[B]`` or one for all.
        path: The path.

    Raises:
        ValueError: When an argument is not as described, or x_t and ``source`` don't determine
            ``target`` at such a time: pure noise, a = 0, says nothing of x_0, for example.

    Example:
        >>> from course_lib.diffusion import DiscreteSchedule
        >>> path, t = DiscreteSchedule.linear(1000), torch.tensor([300])
        >>> x0, eps = torch.ones(1, 2), torch.zeros(1, 2)
        >>> x_t = path.noised(x0, t, eps)
        >>> convert(eps, source="eps", target="x0", x_t=x_t, t=t, path=path)
        tensor([[1., 1.]])

    """
    check_one_of("source", source, PREDICTIONS)
    check_one_of("target", target, PREDICTIONS)
    check_floats("x_t", x_t, None)
    check_floats("value", value, x_t.shape, dtype=x_t.dtype)
    t = path.times(t, len(x_t)).double()
    if source == target:
        return value
    x0, eps = _solve(value, source, x_t, t, path)
    return combine(target, x0, eps, t, path)


def _solve(
    value: Tensor, source: str, x_t: Tensor, t: Tensor, path: GaussianPath
) -> tuple[Tensor, Tensor]:
    """The x_0 and eps for which a x_0 + b eps = x_t and c x_0 + d eps = ``value``."""
    a, b = path.a(t), path.b(t)
    c, d = PREDICTIONS[source](path, t)
    determinant = a * d - b * c
    if not determinant.isfinite().all() or (determinant == 0).any():
        stray = t[(determinant == 0) | ~determinant.isfinite()][0].item()
        raise ValueError(f"t must be a time at which x_t and {source} determine x_0, got {stray}")
    x0 = per_example(d / determinant, x_t) * x_t - per_example(b / determinant, x_t) * value
    eps = per_example(a / determinant, x_t) * value - per_example(c / determinant, x_t) * x_t
    return x0, eps


def per_example(value: Tensor, x: Tensor) -> Tensor:
    """Numbers ``[B]``, one for each example of ``x [B, *event]``, shaped to be multiplied with x.

    They get the dtype and the device of ``x``.
    """
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1))
