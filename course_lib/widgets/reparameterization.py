"""``Reparameterization``: two estimates of one gradient, through z = μ + σ ε and around it."""

import math
from typing import NamedTuple

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int
from course_lib.widgets.base import LINE, CourseWidget, pale_frame, png, to_array
from course_lib.widgets.palette import PALETTE

__all__ = [
    "ESTIMATORS",
    "Estimate",
    "Reparameterization",
    "estimate",
    "gradient_terms",
    "smooth_curve",
    "standard_noise",
]

Array = np.ndarray | torch.Tensor

ESTIMATORS = ("reparameterization", "score function")
COLOURS = dict(zip(ESTIMATORS, (PALETTE["latent"], PALETTE["data"]), strict=True))
MAX_SAMPLES = 400
# Where the integrals over ε are taken: beyond 8 standard deviations there is nothing left.
NODES = np.linspace(-8, 8, 1601)
WEIGHTS = np.exp(-(NODES**2) / 2) / math.sqrt(2 * math.pi) * (NODES[1] - NODES[0])


class Estimate(NamedTuple):
    """A mean and its standard error."""

    value: float
    error: float


# ------------------------------------------------------------------------------- the mathematics


def standard_noise(seed: int, n: int) -> np.ndarray:
    """The noise ε that belongs to a seed: n standard normal numbers, float64 [n].

    The browser must draw the same numbers without a kernel, so that the generator is one of a few
    lines: Mulberry32 for uniform numbers, and Box and Muller's rule. More samples with the same
    seed begin with those of fewer.
    """
    check_int("seed", seed, minimum=0, maximum=2**32 - 1)
    check_int("n", n, minimum=1)
    word, uniform = 2**32 - 1, []
    state = seed
    for _ in range(n + n % 2):
        state = (state + 0x6D2B79F5) & word
        t = ((state ^ (state >> 15)) * (state | 1)) & word
        t ^= (t + ((t ^ (t >> 7)) * (t | 61) & word)) & word
        uniform.append(((t ^ (t >> 14)) + 0.5) / 2**32)
    radius = np.sqrt(-2 * np.log(uniform[::2]))
    angle = 2 * np.pi * np.array(uniform[1::2])
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), -1).reshape(-1)[:n]


def smooth_curve(
    z: np.ndarray, low: float, high: float, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A smooth curve through values on an even grid, and its derivative.

    Between two nodes the curve is a cubic, whose slope at a node is that of the chord between both
    neighbours (Catmull and Rom 1974); outside the grid it goes on as a straight line.

    Args:
        z: any shape, where to evaluate the curve.
        low: place of the first node.
        high: place of the last node.
        values: ``[G]``, the curve at the nodes.

    Returns the curve and its slope, float64 and of the shape of ``z``.
    """
    at, f = np.asarray(z, dtype=np.float64), np.asarray(values, dtype=np.float64)
    step = (high - low) / (len(f) - 1)
    slopes = np.gradient(f, step)
    inside = np.clip(at, low, high)
    i = np.minimum(((inside - low) / step).astype(int), len(f) - 2)
    t = (inside - low) / step - i
    chord, left, right = (f[i + 1] - f[i]) / step, slopes[i], slopes[i + 1]
    bend, twist = 3 * chord - 2 * left - right, left + right - 2 * chord
    slope = left + t * (2 * bend + 3 * t * twist)
    value = f[i] + step * t * (left + t * (bend + t * twist))
    return value + slope * (at - inside), slope


def gradient_terms(
    noise: np.ndarray, f: np.ndarray, slope: np.ndarray, sigma: float
) -> dict[str, np.ndarray]:
    """What each sample z = μ + σ ε says about the gradient of E[f(z)].

    *Reparameterization* differentiates through the sample (Kingma and Welling 2014):
    f′(z) · ∂z/∂μ = f′(z) and f′(z) · ∂z/∂σ = f′(z) ε. The *score function* (REINFORCE, Williams
    1992) needs the value of f alone, times the derivative of log N(z; μ, σ²), which is
    (z − μ)/σ² = ε/σ for μ and (z − μ)²/σ³ − 1/σ = (ε² − 1)/σ for σ.

    Args:
        noise: ``[n]``, the noise ε.
        f: ``[n]``, the values f(z).
        slope: ``[n]``, the derivatives f′(z).
        sigma: the standard deviation σ.

    Returns for each of ``ESTIMATORS`` an array ``[2, n]``: the terms for μ and those for σ. The
    mean over the samples is the estimate.
    """
    return {
        "reparameterization": np.stack((slope, slope * noise)),
        "score function": np.stack((f * noise, f * (noise**2 - 1))) / sigma,
    }


def estimate(terms: np.ndarray) -> Estimate:
    """The mean of the terms ``[n]`` of n ≥ 2 samples, and its standard error."""
    return Estimate(float(terms.mean()), float(terms.std(ddof=1) / math.sqrt(len(terms))))


# --------------------------------------------------------------------------------------- the widget


class Reparameterization(CourseWidget):
    """Two ways to the gradient of E[f(z)], z ~ N(μ, σ²), from the same samples.

    From top to bottom: the noise ε, which stays as it is; lines to the samples z = μ + σ ε; the
    density of z (drawn with its peak always at the same height), whose peak moves μ and whose
    shoulder moves σ; the curve f, to be made small, with the samples on it. Their slopes are what
    the reparameterized gradient is made of, their heights what the score function has. At the
    bottom both estimates with their standard errors, and the exact gradient.

    Args:
        z: ``[G]``, an increasing, evenly spaced grid of 8 to 1,000 numbers; the axis of the plot.
        f: ``[G]``, a smooth function on the grid. Outside the grid it goes on as a straight line.
        mu: the mean to begin with, on the grid; by default two fifths along it.
        sigma: the standard deviation to begin with, from 1/200 to 1/4 of the grid's length; by
            default a tenth.
        n_samples: how many samples, 2 to 400. The buttons offer 8, 24 and 96.
        seed: whose noise to begin with; "New noise" adds one.
        title: shown above the plot.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where z is no even grid, f does not fit to it or is not finite, or a
    number lies outside its range.

    ``widget.mu``, ``widget.sigma``, ``widget.seed`` and ``widget.n_samples`` can be read and set.
    """

    module = "reparameterization.js"

    # Where an older value came back from the kernel during a drag, the density would jump: the
    # kernel does not echo what the browser told it.
    mu = traitlets.Float(0.0).tag(sync=True, echo_update=False)
    sigma = traitlets.Float(1.0).tag(sync=True, echo_update=False)
    seed = traitlets.Int(0).tag(sync=True, echo_update=False)
    n_samples = traitlets.Int(24).tag(sync=True, echo_update=False)
    extent = traitlets.List(traitlets.Float()).tag(sync=True)  # first and last node of the grid
    sigma_range = traitlets.List(traitlets.Float()).tag(sync=True)
    start = traitlets.List(traitlets.Float()).tag(sync=True)  # [μ, σ] that "Reset" brings back
    step_size = traitlets.Float().tag(sync=True)  # what "step downhill" multiplies a gradient by

    def __init__(
        self,
        z: Array,
        f: Array,
        *,
        mu: float | None = None,
        sigma: float | None = None,
        n_samples: int = 24,
        seed: int = 0,
        title: str = "",
        alt: str = "",
    ) -> None:
        low, high, values = _curve(z, f)
        length = high - low
        mu = low + 0.4 * length if mu is None else mu
        sigma = 0.1 * length if sigma is None else sigma
        # At the steepest place of f one step goes a fortieth of the axis.
        steepest = float(np.abs(np.diff(values)).max()) / (length / (len(values) - 1))
        start = [_within("mu", mu, low, high), _within("sigma", sigma, length / 200, length / 4)]
        super().__init__(
            {"f": values},
            hint="send f on a coarser grid",
            title=title,
            alt=alt
            or "Noise, moved and widened to samples of a Gaussian, on a curve f; below it two "
            "estimates of the gradient of the mean of f, one many times noisier than the other.",
            mu=start[0],
            sigma=start[1],
            seed=_whole("seed", seed, 0, 2**32 - 1),
            n_samples=_whole("n_samples", n_samples, 2, MAX_SAMPLES),
            extent=[low, high],
            sigma_range=[length / 200, length / 4],
            start=start,
            step_size=length / 40 / steepest if steepest > 0 else 0.0,
        )

    @traitlets.validate("mu", "sigma", "seed", "n_samples")
    def _in_range(self, proposal: dict) -> float | int:
        name, value = proposal["trait"].name, proposal["value"]
        if name == "mu":
            return _within(name, value, *self.extent)
        if name == "sigma":
            return _within(name, value, *self.sigma_range)
        if name == "seed":
            return _whole(name, value, 0, 2**32 - 1)
        return _whole(name, value, 2, MAX_SAMPLES)

    @property
    def noise(self) -> np.ndarray:
        """The noise ε, float64 [n_samples]."""
        return standard_noise(self.seed, self.n_samples)

    @property
    def samples(self) -> np.ndarray:
        """The samples z = μ + σ ε, float64 [n_samples]."""
        return self.mu + self.sigma * self.noise

    def curve(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The curve f and its derivative f′ at ``z``, as the browser computes them."""
        return smooth_curve(z, *self.extent, self.array("f"))

    def estimates(self) -> dict[str, dict[str, Estimate]]:
        """For each of ``ESTIMATORS`` the gradient with respect to ``"mu"`` and ``"sigma"``."""
        terms = gradient_terms(self.noise, *self.curve(self.samples), self.sigma)
        return {
            name: {"mu": estimate(both[0]), "sigma": estimate(both[1])}
            for name, both in terms.items()
        }

    def exact(self) -> dict[str, float]:
        """The gradient of E[f(z)] with respect to ``"mu"`` and ``"sigma"``, by integration."""
        f, slope = self.curve(self.mu + self.sigma * NODES)
        terms = gradient_terms(NODES, f, slope, self.sigma)["reparameterization"]
        return {"mu": float(terms[0] @ WEIGHTS), "sigma": float(terms[1] @ WEIGHTS)}

    # ---------------------------------------------------------------------------- the still picture

    def still(self) -> bytes:
        """Noise, samples, curve and both estimates."""
        figure = Figure(figsize=(6.4, 5.6))
        top = figure.add_axes((0.07, 0.63, 0.91, 0.36))
        middle = figure.add_axes((0.07, 0.31, 0.91, 0.28))
        self._draw_path(top)
        self._draw_curve(middle)
        for k, name in enumerate(("mu", "sigma")):
            self._draw_estimates(figure.add_axes((0.07 + 0.475 * k, 0.05, 0.435, 0.15)), name)
        return png(figure)

    def _draw_path(self, ax: object) -> None:
        """Noise on the upper line, samples and their density on the lower one."""
        noise, z, across = self.noise, self.samples, np.linspace(*self.extent, 401)
        low, high = self.extent
        reach = (low, high) if low <= -3 and high >= 3 else (-4.0, 4.0)
        # ε has the axis of z where that axis reaches far enough, and one of its own elsewhere.
        place = low + (noise - reach[0]) / (reach[1] - reach[0]) * (high - low)
        bell = np.exp(-(np.linspace(*reach, 401) ** 2) / 2)
        density = np.exp(-(((across - self.mu) / self.sigma) ** 2) / 2)
        green, grey = PALETTE["latent"], PALETTE["noise"]
        for start, end in zip(place, z, strict=True):
            ax.plot([start, end], [1, 0], color=grey, lw=0.6, alpha=0.6)
        ax.fill_between(across, 1, 1 + 0.35 * bell, color=grey, alpha=0.25, lw=0)
        ax.fill_between(across, 0, 0.55 * density, color=green, alpha=0.2, lw=0)
        ax.plot(across, 0.55 * density, color=green, lw=1.5)
        ax.plot(place, np.ones_like(place), "o", color=grey, ms=4, mec="white", mew=0.5)
        ax.plot(z, np.zeros_like(z), "o", color=green, ms=4, mec="white", mew=0.5, clip_on=True)
        ax.set(xlim=self.extent, ylim=(-0.06, 1.4))
        ax.axis("off")
        texts = (
            (0.0, 0.97, "noise ε ~ N(0, 1)", grey),
            (0.0, 0.3, _minus(f"z = μ + σ ε\nμ = {self.mu:.2f}\nσ = {self.sigma:.2f}"), green),
        )
        for x, y, text, colour in texts:
            ax.text(x, y, text, color=colour, fontsize=8, va="top", transform=ax.transAxes)

    def _draw_curve(self, ax: object) -> None:
        """The curve with the samples on it: heights as lines, slopes as tangents."""
        low, high = self.extent
        across = np.linspace(low, high, 401)
        f, _ = self.curve(across)
        z = self.samples[(self.samples >= low) & (self.samples <= high)]
        value, slope = self.curve(z)
        floor, top = float(f.min()), float(f.max())
        margin = 0.1 * (top - floor) or 1.0
        base = 0.0 if floor <= 0 <= top else floor - margin
        ax.vlines(z, base, value, color=COLOURS["score function"], lw=1, alpha=0.5)
        ax.plot(across, f, color=PALETTE["model"], lw=1.5)
        # Tangents of equal length on the paper, whatever the axes.
        per_z, per_f = 1 / (high - low), 0.3 / (top - floor + 2 * margin)
        half = 0.018 / np.hypot(per_z, slope * per_f)
        ends = (
            np.stack((z - half, z + half)),
            np.stack((value - half * slope, value + half * slope)),
        )
        ax.plot(*ends, color=COLOURS["reparameterization"], lw=1.6, zorder=4)
        ax.plot(z, value, "o", color=COLOURS["reparameterization"], ms=3, zorder=5)
        ax.set(xlim=self.extent, ylim=(floor - margin, top + margin))
        legend = (
            (0.0, "f(z), to be made small", PALETTE["model"]),
            (0.26, "slopes", COLOURS["reparameterization"]),
            (0.35, "heights", COLOURS["score function"]),
        )
        for x, text, colour in legend:
            ax.text(x, 1.03, text, color=colour, fontsize=8, transform=ax.transAxes)
        _quiet(ax)

    def _draw_estimates(self, ax: object, parameter: str) -> None:
        """Both estimates of one gradient with their standard errors, and the exact value."""
        exact, symbol = self.exact()[parameter], {"mu": "μ", "sigma": "σ"}[parameter]
        ax.axvline(0, color=LINE, lw=0.8)
        limit = abs(exact)
        for row, (name, both) in enumerate(self.estimates().items()):
            (value, error), colour = both[parameter], COLOURS[name]
            limit = max(limit, abs(value) + error)
            ax.barh(-row, value, height=0.16, color=colour)
            ax.errorbar(value, -row, xerr=error, color="#1f2328", capsize=2.5, lw=1)
            ax.plot([exact, exact], [-row - 0.25, -row + 0.2], color="#1f2328", lw=1, ls="--")
            words = {"color": colour, "fontsize": 7, "va": "top", "transform": ax.transAxes}
            top = 0.96 - 0.48 * row
            ax.text(0.01, top, name, **words)
            ax.text(0.99, top, _minus(f"{value:.2f} ± {error:.2f}"), ha="right", **words)
        limit *= 1.1
        ax.set(xlim=(-limit, limit) if limit else (-1, 1), ylim=(-1.35, 0.75), yticks=[])
        title = _minus(f"∂E[f(z)]/∂{symbol}, exact: {exact:.2f}")
        ax.set_title(title, fontsize=8, loc="left", pad=4)
        _quiet(ax)


def _minus(text: str) -> str:
    """With true minus signs, as matplotlib's own numbers have them."""
    return text.replace("-", "−")


def _quiet(ax: object) -> None:
    ax.tick_params(labelsize=7, length=2, color=LINE)
    pale_frame(ax)


def _curve(z: Array, f: Array) -> tuple[float, float, np.ndarray]:
    """The ends of the grid, and the values on it."""
    grid = to_array("z", z, "[G]", 1).astype(np.float64)
    if not 8 <= len(grid) <= 1000:
        raise ValueError(f"z must hold 8 to 1,000 numbers, got {len(grid)}")
    low, high = float(grid[0]), float(grid[-1])
    steps, even = np.diff(grid), (high - low) / (len(grid) - 1)
    # Neighbours in float32 are as far apart as the largest number allows.
    tolerance = 1e-3 * abs(even) + 4 * np.finfo(np.float32).eps * np.abs(grid).max()
    if even <= 0 or np.abs(steps - even).max() > tolerance:
        raise ValueError(
            "z must be increasing and evenly spaced, got steps from "
            f"{steps.min():.3g} to {steps.max():.3g}"
        )
    values = to_array("f", f, f"[{len(grid)}]", 1)
    if values.shape != grid.shape:
        raise ValueError(f"f must have shape [{len(grid)}] like z, got {list(values.shape)}")
    return low, high, values


def _within(name: str, value: float, low: float, high: float) -> float:
    real = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
    if not real or not low - 1e-9 <= value <= high + 1e-9:
        raise ValueError(f"{name} must be a number from {low:.4g} to {high:.4g}, got {value!r}")
    return min(max(float(value), low), high)


def _whole(name: str, value: int, low: int, high: int) -> int:
    check_int(name, value, minimum=low, maximum=high)
    return value
