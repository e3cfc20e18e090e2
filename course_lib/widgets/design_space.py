"""``DesignSpace``: two clusters on a line; path, times and solver are chosen, errors are seen."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_number, check_one_of
from course_lib.widgets.base import LINE, CourseWidget, pale_frame, png, to_array
from course_lib.widgets.palette import PALETTE

__all__ = ["DesignSpace"]

Array = np.ndarray | torch.Tensor | Sequence[float]

PATHS = ("EDM", "VP", "VE", "straight")
SOLVERS = ("Euler", "Heun", "DPM++ 2M")
SPACINGS = ("rho", "even")
AXES = ("t", "log")
RHOS = (1.0, 12.0)
STEPS = (2, 40)
MOST_MEANS = 8
NODES = 900  # of the exact solution
BEYOND = 1e-3  # times sigma_min: where the exact solution ends
LEAST_ZOOM = 0.5


class DesignSpace(CourseWidget):
    """What is free to choose in sampling: path, times and solver, on a line whose score is known.

    The data are a mixture of Gaussians N(m_k, std²), so that the guess of x_0 is known exactly:

        D(x; σ) = m + std² / (std² + σ²) · (x − m),  m = Σ_k r_k m_k

    with r_k the share of the k-th Gaussian in the density at x. Along a path x_t = a x_0 + b eps
    the velocity is a' D + b' (x_t − a D) / b with D = D(x_t / a; b / a). In the paper's letters
    a = s and b = s σ. All paths go between the same two noise levels and from the same starts; the
    last step, to the data, is the guess itself.

    Above stand the ways of all starts over the exact solution, with the times of the steps; below
    it the error that each step adds: how far a step from the exact solution lands from the exact
    solution, in x_t / a, as the root of the mean square over the starts.

    Args:
        means: ``[K]``, the m_k, at most 8.
        std: Standard deviation of each Gaussian, above 0.
        weights: ``[K]``, of the Gaussians, divided by their sum; by default all equal.
        path: ``"EDM"``, ``"VP"``, ``"VE"`` or ``"straight"``.
        solver: ``"Euler"``, ``"Heun"`` or ``"DPM++ 2M"``.
        steps: How many, 2 to 40; as many noise levels, and one step from the last to the data.
        spacing: ``"rho"``, evenly in σ^(1/ρ), or ``"even"`` in the path's own time.
        rho: 1 to 12.
        sigma_min, sigma_max: The noise levels at the ends.
        beta_min, beta_max: The rates of VP.
        starts: ``[N]``, the noise eps that sampling starts from; by default ten quantiles.
        axis: ``"t"``, x_t over the path's own time, or ``"log"``, all levels, by their logarithms.
        zoom: The level up to which the plot over t is shown, from 0.5; by default 4, or sigma_max.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    ``widget.path``, ``solver``, ``steps``, ``spacing``, ``rho``, ``axis`` and ``zoom`` can be read
    and set. ``widget.levels`` and ``widget.times`` are those of the steps, ``widget.ways`` and
    ``widget.exact(sigma)`` what is drawn, ``widget.errors`` those of the steps, ``widget.calls``
    how often D is asked, and ``widget.missed`` how far from the exact solution the ways end.

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, section 3 and figure 3.
    """

    module = "design_space.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    path = traitlets.Unicode("EDM").tag(sync=True)
    solver = traitlets.Unicode("Euler").tag(sync=True)
    spacing = traitlets.Unicode("rho").tag(sync=True)
    axis = traitlets.Unicode("t").tag(sync=True)
    rho = traitlets.Float(7.0).tag(sync=True, echo_update=False)
    steps = traitlets.Int(8).tag(sync=True, echo_update=False)
    log_zoom = traitlets.Float(0.0).tag(sync=True, echo_update=False)
    # What does not change.
    paths = traitlets.List(traitlets.Unicode(), list(PATHS), read_only=True).tag(sync=True)
    solvers = traitlets.List(traitlets.Unicode(), list(SOLVERS), read_only=True).tag(sync=True)
    rhos = traitlets.List(traitlets.Float(), list(RHOS), read_only=True).tag(sync=True)
    counts = traitlets.List(traitlets.Int(), list(STEPS), read_only=True).tag(sync=True)
    nodes = traitlets.Int(NODES, read_only=True).tag(sync=True)
    beyond = traitlets.Float(BEYOND, read_only=True).tag(sync=True)
    least_zoom = traitlets.Float(LEAST_ZOOM, read_only=True).tag(sync=True)
    means = traitlets.List(traitlets.Float()).tag(sync=True)
    std = traitlets.Float(0.1).tag(sync=True)
    weights = traitlets.List(traitlets.Float()).tag(sync=True)
    starts = traitlets.List(traitlets.Float()).tag(sync=True)
    sigma_min = traitlets.Float(0.002).tag(sync=True)
    sigma_max = traitlets.Float(80.0).tag(sync=True)
    beta_min = traitlets.Float(0.1).tag(sync=True)
    beta_max = traitlets.Float(20.0).tag(sync=True)

    def __init__(
        self,
        means: Array = (-1.0, 1.0),
        *,
        std: float = 0.1,
        weights: Array | None = None,
        path: str = "EDM",
        solver: str = "Euler",
        steps: int = 8,
        spacing: str = "rho",
        rho: float = 7.0,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        beta_min: float = 0.1,
        beta_max: float = 20.0,
        starts: Array | None = None,
        axis: str = "t",
        zoom: float | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        centres = _numbers("means", means, MOST_MEANS)
        shares = np.ones(len(centres)) if weights is None else _numbers("weights", weights, 8)
        if len(shares) != len(centres) or shares.min() <= 0:
            raise ValueError(
                f"weights must be {len(centres)} positive numbers, one a mean, "
                f"got {shares.tolist()}"
            )
        check_number("std", std, above=0)
        check_number("sigma_min", sigma_min, above=0)
        check_number("sigma_max", sigma_max, above=max(sigma_min, LEAST_ZOOM))
        check_number("beta_min", beta_min, above=0)
        check_number("beta_max", beta_max, minimum=beta_min)
        noises = _QUANTILES if starts is None else _numbers("starts", starts, 24)
        zoom = min(4.0, sigma_max) if zoom is None else zoom
        _check_zoom(zoom, sigma_max)
        check_int("steps", steps, minimum=STEPS[0], maximum=STEPS[1])
        check_number("rho", rho, minimum=RHOS[0])
        super().__init__(
            {},
            hint="",
            title=title,
            alt=alt or "Ways from noise to two clusters on a line, and the error of each step.",
            means=centres.tolist(),
            std=float(std),
            weights=(shares / shares.sum()).tolist(),
            starts=noises.tolist(),
            sigma_min=float(sigma_min),
            sigma_max=float(sigma_max),
            beta_min=float(beta_min),
            beta_max=float(beta_max),
            path=path,
            solver=solver,
            steps=steps,
            spacing=spacing,
            rho=rho,
            axis=axis,
            log_zoom=math.log(zoom),
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("path", "solver", "spacing", "axis")
    def _one_of(self, proposal: dict) -> str:
        name = proposal["trait"].name
        allowed = {"path": PATHS, "solver": SOLVERS, "spacing": SPACINGS, "axis": AXES}[name]
        check_one_of(name, proposal["value"], allowed)
        return proposal["value"]

    @traitlets.validate("steps")
    def _steps_in_range(self, proposal: dict) -> int:
        check_int("steps", proposal["value"], minimum=STEPS[0], maximum=STEPS[1])
        return proposal["value"]

    @traitlets.validate("rho")
    def _rho_in_range(self, proposal: dict) -> float:
        if not RHOS[0] <= proposal["value"] <= RHOS[1]:
            raise ValueError(f"rho must lie in [1, 12], got {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("log_zoom")
    def _zoom_in_range(self, proposal: dict) -> float:
        _check_zoom(math.exp(proposal["value"]), self.sigma_max)
        return proposal["value"]

    @property
    def zoom(self) -> float:
        """The level up to which the plot over t is shown."""
        return math.exp(self.log_zoom)

    @zoom.setter
    def zoom(self, zoom: float) -> None:
        _check_zoom(zoom, self.sigma_max)
        self.log_zoom = math.log(zoom)

    # ---------------------------------------------------------------------------------- mathematics

    def amounts(self, t: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(a, b, a', b') of the path at times ``t``, in their shape."""
        t = np.asarray(t, dtype=np.float64)
        one, zero = np.ones_like(t), np.zeros_like(t)
        if self.path == "EDM":
            return one, t, zero, one
        if self.path == "straight":
            return 1 - t, t, -one, one
        if self.path == "VE":
            ratio = math.log(self.sigma_max / self.sigma_min)
            b = self.sigma_min * np.exp(ratio * t)
            return one, b, zero, ratio * b
        slope = self.beta_max - self.beta_min
        spent = self.beta_min * t + slope / 2 * t**2
        a, b = np.exp(-spent / 2), np.sqrt(-np.expm1(-spent))
        beta = self.beta_min + slope * t
        return a, b, -beta * a / 2, beta * a**2 / (2 * b)

    def time_at(self, sigma: Array) -> np.ndarray:
        """The time at which the path's noise level b / a is ``sigma``."""
        sigma = np.asarray(sigma, dtype=np.float64)
        if self.path == "EDM":
            return sigma
        if self.path == "straight":
            return sigma / (1 + sigma)
        if self.path == "VE":
            return np.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)
        spent, slope = np.log1p(sigma**2), self.beta_max - self.beta_min
        return 2 * spent / (self.beta_min + np.sqrt(self.beta_min**2 + 2 * slope * spent))

    def guess(self, x: Array, sigma: float) -> np.ndarray:
        """D(x; σ), the mean of x_0 given x_0 + σ eps = ``x``, in its shape."""
        x, means = np.asarray(x, dtype=np.float64), np.array(self.means)
        variance = self.std**2 + sigma**2
        away = (x[..., None] - means) ** 2
        shares = self.weights * np.exp((away.min(-1, keepdims=True) - away) / (2 * variance))
        mean = (shares * means).sum(-1) / shares.sum(-1)
        return mean + self.std**2 / variance * (x - mean)

    @property
    def times(self) -> np.ndarray:
        """The times ``[steps]`` from the noise's on; from the last a step leads to the data."""
        if self.spacing == "even":
            return np.linspace(*self.time_at([self.sigma_max, self.sigma_min]), self.steps)
        ends = np.array([self.sigma_max, self.sigma_min]) ** (1 / self.rho)
        return self.time_at(np.linspace(*ends, self.steps) ** self.rho)

    @property
    def levels(self) -> np.ndarray:
        """The noise levels ``[steps + 1]`` at these times, and 0, that of the data."""
        a, b, *_ = self.amounts(self.times)
        return np.append(b / a, 0.0)

    @property
    def calls(self) -> int:
        """How often D is asked for each start."""
        return 2 * self.steps - 1 if self.solver == "Heun" else self.steps

    def step(self, x: np.ndarray, i: int, former: np.ndarray | None) -> tuple[np.ndarray, ...]:
        """The i-th step for ``x_t [N]``, and D here; ``former`` is D at the point before."""
        levels, times = self.levels, self.times
        sigma, after = levels[i], levels[i + 1]
        a, b, da, db = self.amounts(times[i])
        guess = self.guess(x / a, sigma)
        if after == 0:
            return guess, guess
        a_after, b_after, da_after, db_after = self.amounts(times[i + 1])
        if self.solver == "DPM++ 2M":
            ahead = guess
            if former is not None:
                h, h_before = math.log(sigma / after), math.log(levels[i - 1] / sigma)
                ahead = guess + (guess - former) * h / (2 * h_before)
            return a_after * (after / sigma * x / a + (1 - after / sigma) * ahead), guess
        h = times[i + 1] - times[i]
        v = da * guess + db * (x - a * guess) / b
        there = x + h * v
        if self.solver == "Euler":
            return there, guess
        again = self.guess(there / a_after, after)
        v_after = da_after * again + db_after * (there - a_after * again) / b_after
        return x + h / 2 * (v + v_after), guess

    @property
    def ways(self) -> np.ndarray:
        """x_t ``[steps + 1, N]`` from the noise on; the last are the samples."""
        x, former = self.amounts(self.times[0])[1] * np.array(self.starts), None
        states = [x]
        for i in range(self.steps):
            x, former = self.step(x, i, former)
            states.append(x)
        return np.stack(states)

    def exact(self, sigma: Array) -> np.ndarray:
        """The exact solution x_t / a at noise levels ``sigma``, ``[*sigma, N]``.

        It is the same on all paths: in u = log σ it is dx/du = x − D. Steps of Runge and Kutta;
        between them a cubic.
        """
        high, low = math.log(self.sigma_max), math.log(self.sigma_min * BEYOND)
        h = (low - high) / (NODES - 1)

        def rate(x: np.ndarray, u: float) -> np.ndarray:
            return x - self.guess(x, math.exp(u))

        xs = [self.sigma_max * np.array(self.starts)]
        slopes = [rate(xs[0], high)]
        for i in range(NODES - 1):
            x, u, k1 = xs[-1], high + i * h, slopes[-1]
            k2 = rate(x + h / 2 * k1, u + h / 2)
            k3 = rate(x + h / 2 * k2, u + h / 2)
            k4 = rate(x + h * k3, u + h)
            xs.append(x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
            slopes.append(rate(xs[-1], u + h))
        x, slope = np.stack(xs), h * np.stack(slopes)
        sigma = np.asarray(sigma, dtype=np.float64)
        at = (np.log(np.maximum(sigma, self.sigma_min * BEYOND)) - high) / h
        at = np.clip(at, 0, NODES - 1)[..., None]
        i = np.minimum(at[..., 0].astype(int), NODES - 2)
        t, left, right, chord = at - i[..., None], slope[i], slope[i + 1], x[i + 1] - x[i]
        bend, twist = 3 * chord - 2 * left - right, left + right - 2 * chord
        here = x[i] + t * (left + t * (bend + t * twist))
        end = self.guess(x[-1], self.sigma_min * BEYOND)
        return np.where((sigma < self.sigma_min * BEYOND)[..., None], end, here)

    @property
    def errors(self) -> np.ndarray:
        """The error that each step adds, ``[steps]``."""
        levels, exact = self.levels, self.exact(self.levels)
        a = np.append(self.amounts(self.times)[0], 1.0)
        errors = []
        for i in range(self.steps):
            former = self.guess(exact[i - 1], levels[i - 1]) if i else None
            landed = self.step(a[i] * exact[i], i, former)[0] / a[i + 1]
            errors.append(np.sqrt(((landed - exact[i + 1]) ** 2).mean()))
        return np.array(errors)

    @property
    def missed(self) -> float:
        """How far from the exact solution the ways end: the root of the mean square."""
        return float(np.sqrt(((self.ways[-1] - self.exact(0.0)) ** 2).mean()))

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The ways, and the errors below them."""
        figure = Figure(figsize=(7.2, 4.4))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
        figure.subplots_adjust(left=0.1, right=0.98, bottom=0.1, top=0.97, hspace=0.08)
        log = self.axis == "log"
        levels = np.geomspace(self.sigma_min / 2, self.sigma_max, 400)
        points, axis = self.levels, "noise level σ" if log else "time t"
        size = math.sqrt(np.dot(self.weights, np.square(self.means)) + self.std**2)
        fine, coarse = (np.maximum(self.time_at(np.maximum(s, 1e-9)), 0) for s in (levels, points))
        across, places = (levels, np.maximum(points, levels[0])) if log else (fine, coarse)
        a, a_points = self.amounts(np.maximum(fine, 1e-12))[0], self.amounts(coarse[:-1])[0]
        scale = 1 / np.hypot(levels, size) if log else a
        scale_points = 1 / np.hypot(points, size) / np.append(a_points, 1) if log else np.ones(1)
        exact = self.exact(levels) * scale[:, None]
        above.plot(across, exact, color="black", lw=4, alpha=0.25)
        ways = self.ways * scale_points[:, None]
        above.plot(places, ways, "-o", color=PALETTE["model"], ms=3, lw=1.2)
        below.bar(
            places[1:],
            np.maximum(self.errors, 1e-5),
            width=places[:-1] - places[1:],
            align="edge",
            color=PALETTE["error"],
            alpha=0.6,
        )
        shown = levels <= (self.sigma_max if log else self.zoom)
        top = 1.12 * np.abs(exact[shown]).max()
        above.set(ylim=(-top, top), xlim=(levels[0] if log else 0, across[shown].max()))
        for ax in (above, below):
            for place in places[:-1]:
                ax.axvline(place, color=LINE, lw=0.8, zorder=0)
            ax.tick_params(labelsize=7, length=2, color=LINE)
            pale_frame(ax)
        if log:
            below.set_xscale("log")
        below.set(yscale="log", ylim=(1e-5, 10))
        above.set_ylabel("x / size" if log else "x", fontsize=8)
        below.set_ylabel("error of each step", fontsize=8)
        below.set_xlabel(axis, fontsize=8, labelpad=1)
        return png(figure)


# --------------------------------------------------------------------------------------- arguments


def _normal_quantiles(count: int) -> np.ndarray:
    """``count`` places that part a standard Gaussian evenly."""
    shares = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return torch.special.ndtri(shares).numpy().round(6)


_QUANTILES = _normal_quantiles(10)


def _numbers(name: str, values: Array, most: int) -> np.ndarray:
    array = to_array(name, values, "[N]", 1)
    if len(array) > most:
        raise ValueError(f"{name} must be at most {most} numbers, got {len(array)}")
    return np.asarray(
        values.detach().cpu() if isinstance(values, torch.Tensor) else values, dtype=np.float64
    )


def _check_zoom(zoom: float, sigma_max: float) -> None:
    check_number("zoom", zoom, above=0)
    if not LEAST_ZOOM * (1 - 1e-9) <= zoom <= sigma_max * (1 + 1e-9):
        raise ValueError(f"zoom must lie in [{LEAST_ZOOM}, {sigma_max:g}], got {zoom:g}")
