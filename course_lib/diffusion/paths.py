"""The spine of every diffusion model: the path from data to noise, and what can be read off it.

All of them noise data alike, x_t = a(t) x_0 + b(t) eps. They differ in a and b, in what the
network predicts, and in the way back. Here are the path and the predictions; the ways back are the
samplers.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.checks import at_the_door, check_floats, check_generator, check_int, check_one_of

__all__ = ["PREDICTIONS", "GaussianPath", "combine", "convert", "per_example"]

SPACINGS = ("linear", "quadratic")  # of the times of a sampler
ROUNDING = 1e-4  # of a log-SNR in single precision


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

    def drift(self, t: Tensor) -> Tensor:
        """The f of dx = f(t) x dt + g(t) dw, the SDE whose x_t is a x_0 + b eps: f = a' / a.

        Infinite where nothing of the data is left, a = 0.

        Reference:
            Kingma et al. 2021, https://arxiv.org/abs/2107.00630, appendix E.
        """
        return self.da(t) / self.a(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """The g of dx = f(t) x dt + g(t) dw: g² = (b²)' − 2 f b².

        Raises:
            ValueError: At a time at which g² is negative: the path forgets noise faster than its
                drift shrinks it, which no SDE does. Or infinite, where a = 0.

        """
        f, b, db = self.drift(t), self.b(t), self.db(t)
        squared = 2 * b * db - 2 * f * b**2
        rounding = 1e-5 * (b * db).abs()
        is_one = (squared >= -rounding) & (squared < math.inf)
        _check_times("the path is an SDE's, with 0 ≤ (b²)' − 2 f b² < ∞", is_one, t)
        return squared.clamp(min=0).sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        """The log of the signal-to-noise ratio, log a² / b²: it falls along the path."""
        return 2 * (self.a(t).log() - self.b(t).log())

    def time_at(self, log_snr: Tensor | float) -> Tensor:
        """The times at which the log-SNR is ``log_snr``, in its shape, in double precision.

        Raises:
            ValueError: Where the path has no such time.

        """
        wanted = _exact(log_snr)
        low, high = self.log_snr_range
        inside = (wanted >= low - ROUNDING) & (wanted <= high + ROUNDING)
        if not inside.all():
            raise ValueError(
                f"log_snr must be one of the path's, from {low:.6g} to {high:.6g}, got "
                f"{wanted[~inside].flatten()[0].item():.6g}"
            )
        return self.invert_log_snr(wanted.clamp(low, high)).clamp(self.t_min, self.t_max)

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """The log-SNR at both ends of the path, the noise's first: from the least to the most."""
        ends = torch.tensor([self.t_max, self.t_min], dtype=torch.float64)
        return tuple(self.log_snr(ends).tolist())

    def invert_log_snr(self, log_snr: Tensor) -> Tensor:
        """``time_at`` without its checks. Any path: by halving an interval; most know a formula."""
        early, late = torch.full_like(log_snr, self.t_min), torch.full_like(log_snr, self.t_max)
        for _ in range(60):
            middle = (early + late) / 2
            too_clean = self.log_snr(middle) > log_snr
            early, late = middle.where(too_clean, early), late.where(too_clean, middle)
        return (early + late) / 2

    def amounts(self, t: Tensor | float, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """(a, b) at times ``t``, ``[B]`` or one for all, to be multiplied with ``x [B, *event]``.

        Tensors ``[B, 1, ...]`` in the precision of ``x``, or plain numbers.
        """
        t = _exact(t)
        return per_example(self.a(t), x), per_example(self.b(t), x)

    def slopes(self, t: Tensor | float, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """The derivatives (a', b') at times ``t``, shaped as by ``amounts``."""
        t = _exact(t)
        return per_example(self.da(t), x), per_example(self.db(t), x)

    def sde(self, t: Tensor | float, x: Tensor) -> tuple[Tensor, Tensor]:
        """(f, g) of dx = f x dt + g dw at times ``t``, shaped as by ``amounts``."""
        t = _exact(t)
        return per_example(self.drift(t), x), per_example(self.diffusion(t), x)

    def check_noising(self, x0: Tensor, t: Tensor | float, eps: Tensor) -> None:
        """Require what ``noised`` wants."""
        check_floats("x0", x0, None)
        check_floats("eps", eps, x0.shape, dtype=x0.dtype)
        self.check_time(t, len(x0))

    @at_the_door(check_noising)
    def noised(self, x0: Tensor, t: Tensor | float, eps: Tensor) -> Tensor:
        """Noise ``x0 [B, *event]`` to times ``t``, ``[B]`` or one for all, with ``eps`` like x0."""
        a, b = self.amounts(t, x0)
        return a * x0 + b * eps

    def sample(self, x0: Tensor, t: Tensor | float, eps: Tensor) -> Tensor:
        """``noised`` under its older name; nothing is drawn."""
        return self.noised(x0, t, eps)

    @property
    def start_std(self) -> float:
        """Standard deviation of the noise that sampling starts from: b at the end of the path."""
        return self.b(_exact(self.t_max)).item()

    def sampling_times(self, steps: int, spacing: str = "linear") -> list[float]:
        """``steps`` times, rising to ``t_max``, where sampling starts; it ends at the data.

        The way from ``t_min`` is parted evenly (``"linear"``), or as i² (``"quadratic"``) with more
        times near the data; the data stand in the place of ``t_min``, which is not among them.
        """
        check_int("steps", steps, minimum=1)
        check_one_of("spacing", spacing, SPACINGS)
        power = 1 if spacing == "linear" else 2
        span = self.t_max - self.t_min
        return [self.t_max - span * (1 - (i / steps) ** power) for i in range(1, steps + 1)]

    def points(self, times: Sequence[float]) -> list[tuple[float, float]]:
        """(a, b) of the data, (1, 0), and then of each of the ``times``."""
        t = torch.tensor(times, dtype=torch.float64)
        return [(1.0, 0.0), *zip(self.a(t).tolist(), self.b(t).tolist(), strict=True)]

    def draw_times(
        self, n: int, *, generator: torch.Generator | None = None, device: torch.device = "cpu"
    ) -> Tensor:
        """``n`` times to train at, uniform over the path."""
        check_generator(generator, device)
        u = torch.rand(n, generator=generator, device=device)
        return (self.t_min + (self.t_max - self.t_min) * u).clamp(max=self.t_max)

    def check_time(self, t: Tensor | float, n: int) -> None:
        """Require times of the path, ``[n]`` or one for all (``ValueError``)."""
        if type(t) not in (int, float) or not self.t_min <= t <= self.t_max:
            self.times(t, n)

    def times(self, t: Tensor | float, n: int) -> Tensor:
        """Require times of the path, ``[n]`` or one for all, and return them as ``[n]``."""
        if not isinstance(t, Tensor | int | float):
            raise ValueError(f"t must be one time or a tensor of shape [{n}], got {t!r}")
        if type(t) in (int, float) and self.t_min <= t <= self.t_max:
            return torch.full((1,), t).expand(n)  # quicker than what follows, for a sampler
        times = torch.as_tensor(t)
        if times.shape not in ((), (n,)) or times.is_complex() or times.dtype == torch.bool:
            what = f"{times.dtype} {list(times.shape)}"
            raise ValueError(f"t must be one time or a tensor of shape [{n}], got {what}")
        self.check_times(times)
        return times.expand(n)

    def check_times(self, t: Tensor) -> None:
        """Require every time to lie in [``t_min``, ``t_max``] (``ValueError``)."""
        t = t if t.is_floating_point() else t.long()  # unsigned ones are not compared by PyTorch
        inside = (t >= self.t_min) & (t <= self.t_max)
        if not inside.all():
            raise ValueError(
                f"t must lie in [{self.t_min}, {self.t_max}], got {t[~inside].flatten()[0].item()}"
            )


def _exact(t: Tensor | float) -> Tensor:
    """Times in double precision, on the CPU: not every device has it."""
    return t.cpu().double() if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)


def _slope(function: Callable[[Tensor], Tensor], t: Tensor | float) -> Tensor:
    """The derivative of an elementwise function; whole times are taken as float64."""
    t = torch.as_tensor(t)
    t = t if t.is_floating_point() else _exact(t)
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        # 0 · t, so that a constant has a gradient as well: 0.
        return torch.autograd.grad((function(t) + 0 * t).sum(), t)[0]


def _v(path: GaussianPath, t: Tensor | float, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
    a, b = path.amounts(t, x)
    return -b, a


# What a network may predict: each is c x_0 + d eps, with these numbers c and d at times t, for x_t.
PREDICTIONS = {
    "x0": lambda path, t, x_t: (1.0, 0.0),
    "eps": lambda path, t, x_t: (0.0, 1.0),
    # Salimans & Ho 2022, appendix D: the direction at right angles to x_t where a² + b² = 1.
    "v": _v,
    # ∇ log q(x_t | x_0), whose average over x_0 given x_t is ∇ log q(x_t): Vincent 2011.
    "score": lambda path, t, x_t: (0.0, -1 / path.amounts(t, x_t)[1]),
    # dx_t / dt: flow matching, Lipman et al. 2023, https://arxiv.org/abs/2210.02747.
    "velocity": lambda path, t, x_t: path.slopes(t, x_t),
}


def _check_combination(
    kind: str, x0: Tensor, eps: Tensor, t: Tensor | float, path: GaussianPath
) -> None:
    check_one_of("kind", kind, PREDICTIONS)
    check_floats("x0", x0, None)
    check_floats("eps", eps, x0.shape, dtype=x0.dtype)
    path.check_time(t, len(x0))


@at_the_door(_check_combination)
def combine(kind: str, x0: Tensor, eps: Tensor, t: Tensor | float, path: GaussianPath) -> Tensor:
    """The quantity ``kind`` of x_t = a x_0 + b eps: c(t) x_0 + d(t) eps, ``[B, *event]``.

    Where that is one of the two, it is the tensor that was given, not a copy.

    Args:
        kind: ``"eps"``, ``"x0"``, ``"v"`` = a eps − b x_0, ``"score"`` = −eps / b, or
            ``"velocity"`` = a' x_0 + b' eps.
        x0: Data ``[B, *event]``, or a guess of it.
        eps: Noise of the same shape.
        t: Times, ``[B]`` or one for all.
        path: The path.

    Raises:
        ValueError: When ``kind`` is infinite at such a time.

    """
    c, d = mixture(kind, path, t, x0)
    return mixed(c, x0, d, eps)


def _check_conversion(
    value: Tensor, *, source: str, target: str, x_t: Tensor, t: Tensor | float, path: GaussianPath
) -> None:
    check_one_of("source", source, PREDICTIONS)
    check_one_of("target", target, PREDICTIONS)
    check_floats("x_t", x_t, None)
    check_floats("value", value, x_t.shape, dtype=x_t.dtype)
    path.check_time(t, len(x_t))


@at_the_door(_check_conversion)
def convert(
    value: Tensor, *, source: str, target: str, x_t: Tensor, t: Tensor | float, path: GaussianPath
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
        ValueError: When x_t and ``source`` don't determine ``target`` at such a time: pure noise,
            a = 0, says nothing of x_0, for example.

    Example:
        >>> from course_lib.diffusion import DiscreteSchedule
        >>> path, t = DiscreteSchedule.linear(1000), torch.tensor([300])
        >>> x0, eps = torch.ones(1, 2), torch.zeros(1, 2)
        >>> x_t = path.noised(x0, t, eps)
        >>> convert(eps, source="eps", target="x0", x_t=x_t, t=t, path=path)
        tensor([[1., 1.]])

    """
    if source == target:
        return value
    p, q = conversion(source, target, t, x_t, path)
    return p * x_t + q * value


def conversion(
    source: str, target: str, t: Tensor | float, x: Tensor, path: GaussianPath
) -> tuple[Tensor | float, Tensor | float]:
    """(p, q) of ``target`` = p x_t + q ``source`` at times ``t``, shaped as by ``amounts``."""
    if source == target:
        return 0.0, 1.0
    (a, b), (c, d) = path.amounts(t, x), PREDICTIONS[source](path, t, x)
    determinant = a * d - b * c
    solvable = (abs(determinant) > 0) & (abs(determinant) < math.inf)
    _check_times(f"x_t and {source} determine x_0", solvable, t)
    e, f = mixture(target, path, t, x)
    # a x_0 + b eps = x_t and c x_0 + d eps = value give x_0 = (d x_t − b value) / determinant and
    # eps = (a value − c x_t) / determinant; these go into e x_0 + f eps.
    return (e * d - f * c) / determinant, (f * a - e * b) / determinant


def conversions(
    source: str, target: str, t: Tensor, path: GaussianPath
) -> list[tuple[float, float]]:
    """(p, q) of ``conversion`` at each of the times ``t [N]``, as numbers, for a sampler's loop."""
    pair = conversion(source, target, t, t[:, None], path)  # t also in place of x: for its shape
    p, q = (torch.as_tensor(part, dtype=t.dtype).expand(len(t), 1)[:, 0] for part in pair)
    return list(zip(p.tolist(), q.tolist(), strict=True))


def mixed(p: Tensor | float, x: Tensor, q: Tensor | float, value: Tensor) -> Tensor:
    """The sum p x + q ``value``, with no work for the numbers 0, 1 and −1 of most pairs."""
    if isinstance(p, float) and isinstance(q, float):
        if q == 0:
            return x if p == 1 else p * x
        if p == 0:
            return value if q == 1 else q * value
        if p == -1 and q == 1:
            return value - x
    return p * x + q * value


def mixture(
    kind: str, path: GaussianPath, t: Tensor | float, x: Tensor
) -> tuple[Tensor | float, Tensor | float]:
    """(c, d) of ``kind`` = c x_0 + d eps at times ``t``, shaped as by ``amounts``."""
    c, d = PREDICTIONS[kind](path, t, x)
    _check_times(f"{kind} is finite", (abs(c) < math.inf) & (abs(d) < math.inf), t)
    return c, d


def _check_times(what: str, holds: Tensor | bool, t: Tensor | float) -> None:
    """Require that something holds at every time, ``[B, 1, ...]`` or one for all."""
    if not (holds.all() if isinstance(holds, Tensor) else holds):
        stray = t.flatten()[~holds.flatten()[: t.numel()]][0].item() if isinstance(t, Tensor) else t
        raise ValueError(f"t must be a time at which {what}, got {stray}")


def per_example(value: Tensor | float, x: Tensor) -> Tensor:
    """Numbers ``[B]``, one for each example of ``x [B, *event]``, shaped to be multiplied with x.

    They get the dtype and the device of ``x``. One number stands for all: ``[B, 1, ...]`` as well.
    """
    n, ones = x.shape[0], [1] * (x.ndim - 1)
    if not isinstance(value, Tensor):
        return x.new_full((n, *ones), value)
    value = value.to(x).reshape(-1, *ones)
    return value if value.shape[0] == n else value.expand(n, *ones)
