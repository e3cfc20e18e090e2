"""``Fluid``: draw a velocity field on a line by hand, and a density flows along it."""

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_number
from course_lib.widgets.base import LINE, PlayerWidget, pale_frame, png, to_array
from course_lib.widgets.density_warp import curve_through
from course_lib.widgets.palette import PALETTE, colour_map

__all__ = ["Fluid", "carried"]

Array = np.ndarray | torch.Tensor | Sequence[float]

STEPS = 30  # of time, each one step of the Runge-Kutta method
MOST_KNOTS = 21

# The fields that one click brings back, at nine knots from -limit to limit, in shares of ``speed``.
PRESETS: dict[str, list[float]] = {
    "two heaps": [0.6, 0.4, 0, -0.4, 0, 0.4, 0, -0.4, -0.6],
    "spread": [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1],
    "gather": [1, 0.75, 0.5, 0.25, 0, -0.25, -0.5, -0.75, -1],
    "jam": [0.6, 0.6, 0.6, 0.6, 0.3, 0.1, 0.05, 0.05, 0.05],
    "still": [0] * 9,
}


# ------------------------------------------------------------------------------- the mathematics


def carried(
    knots: Array, velocities: Array, x: np.ndarray, t: float, *, steps: int = STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Where the field through the knots takes ``x`` in the time ``t``, and the integral of v′.

    Along dx/dt = v(x) the log of a density falls by the integral of v′(x(t)) dt. Both are found by
    ``steps`` steps of the classical Runge-Kutta method; a negative ``t`` goes back in time.

    Returns two float64 arrays of the shape of ``x``.

    >>> place, grown = carried([-1, 1], [-0.5, 0.5], np.array([2.0]), 1.0)  # v(x) = x / 2
    >>> place.round(6).tolist(), grown.round(6).tolist()
    ([3.297443], [0.5])
    """
    place, grown = np.array(x, dtype=np.float64), np.zeros(np.shape(x))
    h = t / steps
    for _ in range(steps):
        f1, g1 = curve_through(place, knots, velocities)
        f2, g2 = curve_through(place + h / 2 * f1, knots, velocities)
        f3, g3 = curve_through(place + h / 2 * f2, knots, velocities)
        f4, g4 = curve_through(place + h * f3, knots, velocities)
        place = place + h / 6 * (f1 + 2 * f2 + 2 * f3 + f4)
        grown = grown + h / 6 * (g1 + 2 * g2 + 2 * g3 + g4)
    return place, grown


# --------------------------------------------------------------------------------------- the widget


class Fluid(PlayerWidget):
    """Draw the velocity v(x) on a line; the fluid on it flows, and its mass stays 1.

    At the top the field, to be drawn by hand: as one stroke over the plot, or knot by knot. Below
    it the density p_t(x), at the bottom the fluid itself, brighter where it is squeezed, with
    particles that carry equal shares of the mass. The browser follows dx/dt = v(x) and
    d log p / dt = −v′(x), back in time from each place that is drawn, and forward from nodes on
    the first density to sum up the mass. Between its knots the field is a cubic that rises and
    falls as they do, outside of them a straight line.

    Args:
        velocities: ``[K]``, v at K equally spaced knots from -limit to limit, 2 to 21 of them,
            each from -speed to speed; by default a field that makes two heaps of one.
        means, stds, weights: of the Gaussians whose mixture is the density at t = 0; by default the
            standard Gaussian, and equal weights. The weights are divided by their sum.
        duration: the last time t.
        limit: the line is shown from -limit to limit.
        speed: the plot of the field reaches from -speed to speed.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument is not as described.

    ``widget.velocities``, ``widget.step`` (a float, 0 ... 30; ``widget.t`` is the time) and
    ``widget.playing`` can be read and set. ``widget.velocity(x)`` and ``widget.density(x)`` are
    what is shown, ``widget.mass`` the integral of the density.
    """

    module = "fluid.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    velocities = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    knots = traitlets.List(traitlets.Float()).tag(sync=True)
    start = traitlets.List(traitlets.Float()).tag(sync=True)  # what "Reset" brings back
    presets = traitlets.List().tag(sync=True)  # [name, velocities] each
    # Of the density at t = 0.
    weights = traitlets.List(traitlets.Float()).tag(sync=True)
    means = traitlets.List(traitlets.Float()).tag(sync=True)
    stds = traitlets.List(traitlets.Float()).tag(sync=True)
    duration = traitlets.Float(2.0).tag(sync=True)
    limit = traitlets.Float(4.0).tag(sync=True)
    speed = traitlets.Float(2.0).tag(sync=True)

    def __init__(
        self,
        velocities: Array | None = None,
        *,
        means: Array = (0.0,),
        stds: Array = (1.0,),
        weights: Array | None = None,
        duration: float = 2.0,
        limit: float = 4.0,
        speed: float = 2.0,
        title: str = "",
        alt: str = "",
    ) -> None:
        for name, value in (("duration", duration), ("limit", limit), ("speed", speed)):
            check_number(name, value, above=0)
        presets = [[name, [speed * share for share in shares]] for name, shares in PRESETS.items()]
        first = presets[0][1] if velocities is None else velocities
        field = _velocities(first, speed).tolist()
        centres = to_array("means", means, "[M]", 1)
        spreads = _positive("stds", stds, len(centres))
        shares = np.ones(len(centres)) if weights is None else weights
        shares = _positive("weights", shares, len(centres))
        times = np.linspace(0, duration, STEPS + 1)
        super().__init__(
            {},
            n_steps=STEPS + 1,
            labels=[f"t = {t:.2f}" for t in times],
            hint="",
            title=title,
            alt=alt or "A velocity field on a line, and a density that flows along it.",
            velocities=field,
            start=field,
            knots=np.linspace(-limit, limit, len(field)).tolist(),
            presets=[preset for preset in presets if len(field) == len(preset[1])],
            weights=(shares / shares.sum()).tolist(),
            means=centres.tolist(),
            stds=spreads.tolist(),
            duration=float(duration),
            limit=float(limit),
            speed=float(speed),
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("velocities")
    def _as_many_as_knots(self, proposal: dict) -> list[float]:
        values = _velocities(proposal["value"], self.speed)
        if self.knots and len(values) != len(self.knots):
            raise ValueError(
                f"velocities must be {len(self.knots)} numbers, one a knot, got {len(values)}"
            )
        return values.tolist()

    @property
    def t(self) -> float:
        """The time that is shown."""
        return self.duration * self.step / STEPS

    def velocity(self, x: Array) -> np.ndarray:
        """v(x), float64 of the shape of ``x``."""
        return curve_through(np.asarray(x), self.knots, self.velocities)[0]

    def density(self, x: Array, t: float | None = None) -> np.ndarray:
        """p_t(x) at the time ``t``, by default the one that is shown, of the shape of ``x``."""
        back = -(self.t if t is None else t)
        place, grown = carried(self.knots, self.velocities, np.asarray(x), back)
        # Back in time the integral of v′ has the other sign.
        return self._first_density(place) * np.exp(grown)

    @property
    def mass(self) -> float:
        """The integral of the density over the whole line: trapezoids.

        It takes places that are close together where there is much: even at the start, at the end
        and at times between, then carried on.
        """
        x, p = [], []
        for share in (0, 0.25, 0.5, 0.75, 1):
            even = np.linspace(-self.limit, self.limit, 401) if share else self._nodes()
            came, before = carried(self.knots, self.velocities, even, -share * self.t)
            went, after = carried(self.knots, self.velocities, even, (1 - share) * self.t)
            x.append(went)
            p.append(self._first_density(came) * np.exp(before - after))
        places, density = np.concatenate(x), np.concatenate(p)
        order = np.argsort(places)
        return float(np.trapezoid(density[order], places[order]))

    def _first_density(self, x: np.ndarray) -> np.ndarray:
        weights, means, stds = (np.array(v) for v in (self.weights, self.means, self.stds))
        z = (x[..., None] - means) / stds
        return (weights * np.exp(-(z**2) / 2) / (stds * np.sqrt(2 * np.pi))).sum(-1)

    def _nodes(self) -> np.ndarray:
        """Places that hold all of the first density."""
        means, stds = np.array(self.means), np.array(self.stds)
        return np.linspace((means - 6 * stds).min(), (means + 6 * stds).max(), 401)

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The field, the density at three times, and the fluid at each of them."""
        across = np.linspace(-self.limit, self.limit, 401)
        steps = self.telling_steps()
        figure = Figure(figsize=(5.6, 4.4))
        heights = [2.4, 2.4, *[0.5] * len(steps)]
        axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        figure.subplots_adjust(left=0.13, right=0.98, bottom=0.07, top=0.98, hspace=0.14)
        field, flow, *tubes = axes
        field.axhline(0, color=LINE, lw=0.8)
        field.plot(across, self.velocity(across), color=PALETTE["model"], lw=2)
        field.plot(self.knots, self.velocities, "o", color=PALETTE["model"], mec="white", ms=7)
        field.set(ylim=(-1.05 * self.speed, 1.05 * self.speed))
        field.set_ylabel("velocity v(x)", fontsize=8)
        top = 2.5 * self._first_density(across).max()
        for step, tube in zip(steps, tubes, strict=True):
            density = self.density(across, self.duration * step / STEPS)
            first = step == 0
            look = {"color": PALETTE["noise"], "ls": "--"} if first else {"color": PALETTE["data"]}
            flow.plot(
                across, density, lw=1.2 if first else 1.8, alpha=0.5 + step / STEPS / 2, **look
            )
            box = (-self.limit, self.limit, 0, 1)
            look = {"cmap": colour_map("viridis"), "vmin": 0, "vmax": top, "aspect": "auto"}
            tube.imshow(density[None], extent=box, **look)
            tube.set(yticks=[])
            name = self.labels[step]
            tube.set_ylabel(name, fontsize=7, rotation=0, ha="right", va="center")
        flow.set(ylim=(0, None))
        flow.set_ylabel("density p(x)", fontsize=8)
        for ax in axes:
            ax.tick_params(labelsize=7, length=2, color=LINE)
            pale_frame(ax)
        return png(figure)


# -------------------------------------------------------------------------------------- arguments


def _velocities(values: Array, speed: float) -> np.ndarray:
    array = to_array("velocities", values, "[K]", 1)
    if not 2 <= len(array) <= MOST_KNOTS:
        raise ValueError(f"velocities must be 2 to {MOST_KNOTS} numbers, got {len(array)}")
    if np.abs(array).max() > speed * (1 + 1e-6):
        raise ValueError(
            f"velocities must lie in [-{speed:g}, {speed:g}], the plot, got values in "
            f"[{array.min():.3g}, {array.max():.3g}]"
        )
    # As given, in full: what the browser has told must not come back as another number.
    return np.asarray(values, dtype=np.float64)


def _positive(name: str, values: Array, count: int) -> np.ndarray:
    array = to_array(name, values, f"[{count}]", 1).astype(np.float64)
    if len(array) != count or array.min() <= 0:
        raise ValueError(f"{name} must be {count} positive numbers, got {array.tolist()}")
    return array
