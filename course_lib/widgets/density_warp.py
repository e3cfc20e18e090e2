"""``DensityWarp``: bend a curve by hand and watch one density become another."""

import math
from collections.abc import Sequence

import numpy as np
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_one_of
from course_lib.widgets.base import LINE, CourseWidget, pale_frame, png
from course_lib.widgets.palette import PALETTE

__all__ = [
    "DensityWarp",
    "base_cdf",
    "base_density",
    "curve_through",
    "monotone_curve",
    "warped_density",
]

# Half the width of the plot for each base: all but 0.2 % of its mass, at most, lies inside.
LIMITS = {"gaussian": 4.0, "logistic": 7.0}

# The curves that one click brings back, as (knots_x, knots_y) for a plot that reaches 4. The knots
# of "two modes" lie close to the map from a mixture of N(-1.5, 0.5²) and N(1.5, 0.5²) to N(0, 1).
PRESETS: dict[str, tuple[list[float], list[float]]] = {
    "identity": ([-3, -2, -1, 0, 1, 2, 3], [-3, -2, -1, 0, 1, 2, 3]),
    "stretch": ([-3.6, -2.4, -1.2, 0, 1.2, 2.4, 3.6], [-2.1, -1.4, -0.7, 0, 0.7, 1.4, 2.1]),
    "squeeze": ([-1.8, -1.2, -0.6, 0, 0.6, 1.2, 1.8], [-3.3, -2.2, -1.1, 0, 1.1, 2.2, 3.3]),
    "skew": ([-2.5, -2, -1.4, -0.6, 0.6, 2, 3.5], [-3.4, -1.75, -0.65, 0.15, 0.85, 1.5, 2.2]),
    "two modes": ([-3, -2, -1, 0, 1, 2, 3], [-3.21, -1.41, -0.18, 0, 0.18, 1.41, 3.21]),
}


# ------------------------------------------------------------------------------- the mathematics


def monotone_curve(
    x: np.ndarray, knots_x: Sequence[float], knots_y: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """A smooth, strictly increasing curve through K knots, and its slope.

    Between two knots the curve is a cubic, outside all of them a straight line. The slope at an
    inner knot is a weighted harmonic mean of the slopes of its two chords (Fritsch and Butland
    1984, as in PCHIP), at an outer knot that of its one chord. No knot's slope then reaches three
    times that of a neighbouring chord, so that the cubic never turns (Fritsch and Carlson 1980).

    Args:
        x: any shape, where to evaluate the curve.
        knots_x: K ≥ 2 strictly increasing numbers.
        knots_y: K strictly increasing numbers.

    Returns the curve and its first derivative, both float64 and of the shape of ``x``. Raises
    ``ValueError`` where the knots are no such numbers.

    >>> y, slope = monotone_curve(np.array([0.5, 5.0]), [0, 1, 2], [0, 2, 4])
    >>> y.tolist(), slope.tolist()
    ([1.0, 10.0], [2.0, 2.0])
    """
    _check_knots(knots_x, knots_y)
    return curve_through(x, knots_x, knots_y)


def curve_through(
    x: np.ndarray, knots_x: Sequence[float], knots_y: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """The curve of ``monotone_curve`` through knots that may also rise and fall in turn.

    Its slope is zero at a knot that is a peak or a valley, so that it turns nowhere else.
    """
    at = np.asarray(x, dtype=np.float64)
    xs, ys = np.asarray(knots_x, dtype=np.float64), np.asarray(knots_y, dtype=np.float64)
    slopes = _knot_slopes(xs, ys)

    # Hermite's form on the piece that holds x, with t from 0 to 1 along it.
    piece = np.clip(np.searchsorted(xs, at, side="right") - 1, 0, len(xs) - 2)
    width = xs[piece + 1] - xs[piece]
    chord = (ys[piece + 1] - ys[piece]) / width
    left, right = slopes[piece], slopes[piece + 1]
    t = (at - xs[piece]) / width
    bend, twist = 3 * chord - 2 * left - right, left + right - 2 * chord
    y = ys[piece] + width * t * (left + t * (bend + t * twist))
    slope = left + t * (2 * bend + 3 * t * twist)

    below, above = at < xs[0], at > xs[-1]
    y = np.where(below, ys[0] + slopes[0] * (at - xs[0]), y)
    y = np.where(above, ys[-1] + slopes[-1] * (at - xs[-1]), y)
    slope = np.where(below, slopes[0], np.where(above, slopes[-1], slope))
    return y, slope


def _knot_slopes(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """The slope of the curve at each knot, [K]."""
    widths = np.diff(xs)
    chords = np.diff(ys) / widths
    slopes = np.concatenate((chords[:1], np.zeros(len(xs) - 2), chords[-1:]))
    before, after = 2 * widths[1:] + widths[:-1], widths[1:] + 2 * widths[:-1]
    one_way = chords[:-1] * chords[1:] > 0
    left, right = np.where(one_way, chords[:-1], 1), np.where(one_way, chords[1:], 1)
    slopes[1:-1] = np.where(one_way, (before + after) / (before / left + after / right), 0)
    return slopes


def base_density(z: np.ndarray, base: str) -> np.ndarray:
    """p(z) of the standard ``"gaussian"`` or ``"logistic"`` distribution."""
    check_one_of("base", base, LIMITS)
    if base == "gaussian":
        return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return 1 / (4 * np.cosh(np.minimum(np.abs(z), 700) / 2) ** 2)


def base_cdf(z: float, base: str) -> float:
    """The probability that the standard base lies below ``z``."""
    check_one_of("base", base, LIMITS)
    if base == "gaussian":
        return (1 + math.erf(z / math.sqrt(2))) / 2
    return (1 + math.tanh(z / 2)) / 2


def warped_density(
    x: np.ndarray, knots_x: Sequence[float], knots_y: Sequence[float], base: str = "gaussian"
) -> np.ndarray:
    """p(x) = p(f(x)) f′(x), the density of x where z = f(x) follows the base; shape of ``x``."""
    z, slope = monotone_curve(x, knots_x, knots_y)
    return base_density(z, base) * slope


# -------------------------------------------------------------------------------------- arguments


def _check_increasing(name: str, values: Sequence[float]) -> None:
    wanted = f"{name} must be at least 2 finite, strictly increasing numbers"
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{wanted}, got {values!r}") from None
    if (
        numbers.ndim != 1
        or len(numbers) < 2
        or not np.isfinite(numbers).all()
        or not (np.diff(numbers) > 0).all()
    ):
        raise ValueError(f"{wanted}, got {values!r}")


def _check_knots(knots_x: Sequence[float], knots_y: Sequence[float]) -> None:
    _check_increasing("knots_x", knots_x)
    _check_increasing("knots_y", knots_y)
    if len(knots_x) != len(knots_y):
        raise ValueError(
            f"knots_y must hold as many numbers as knots_x, {len(knots_x)}, got {len(knots_y)}"
        )


def _floats(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values]


def _scaled(values: Sequence[float], factor: float) -> list[float]:
    return [round(factor * value, 4) for value in values]


# --------------------------------------------------------------------------------------- the widget


class DensityWarp(CourseWidget):
    """Change of variables by hand: drag the knots of z = f(x) and see p(x) = p(f(x)) f′(x).

    The curve stands in the middle, the base density p(z) along the vertical axis on its left, the
    density p(x) along the horizontal axis below it. A strip [x, x + dx] that can be dragged, too,
    is carried along the curve to its image [f(x), f(x + dx)]: the two shaded areas are equal.

    Args:
        knots_x: K ≥ 2 strictly increasing numbers; by default those of the identity.
        knots_y: their images under f, strictly increasing.
        base: p(z), the standard ``"gaussian"`` or ``"logistic"`` density.
        title: shown above the plot.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where the knots are not finite, increasing and equally many.

    ``widget.knots_x``, ``widget.knots_y`` and ``widget.interval`` (the two ends of the strip) can
    be read and set; ``set_knots`` sets both lists of knots at once.
    """

    module = "density_warp.js"

    # Where an older place came back from the kernel while a knot is dragged, the knot would jump:
    # the kernel does not echo what the browser told it.
    knots_x = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    knots_y = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    interval = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    base = traitlets.Unicode("gaussian").tag(sync=True)
    limit = traitlets.Float(4.0).tag(sync=True)  # both axes run from -limit to limit
    presets = traitlets.List().tag(sync=True)  # [name, knots_x, knots_y] each
    start = traitlets.List().tag(sync=True)  # [knots_x, knots_y] that "Reset" brings back

    def __init__(
        self,
        knots_x: Sequence[float] | None = None,
        knots_y: Sequence[float] | None = None,
        *,
        base: str = "gaussian",
        title: str = "",
        alt: str = "",
    ) -> None:
        check_one_of("base", base, LIMITS)
        factor = LIMITS[base] / 4
        presets = [
            [name, _scaled(xs, factor), _scaled(ys, factor)] for name, (xs, ys) in PRESETS.items()
        ]
        if (knots_x is None) != (knots_y is None):
            missing = "knots_x" if knots_x is None else "knots_y"
            raise ValueError(f"{missing} must be given where the other knots are, got None")
        if knots_x is None:
            _, knots_x, knots_y = presets[0]
        _check_knots(knots_x, knots_y)
        start = [_floats(knots_x), _floats(knots_y)]
        super().__init__(
            {},
            hint="",
            title=title,
            alt=alt or f"A rising curve z = f(x) turns a {base} density p(z) into p(x).",
            knots_x=start[0],
            knots_y=start[1],
            start=start,
            base=base,
            limit=self._reach(LIMITS[base], *start),
            interval=_scaled((0.5, 1.3), factor),
            presets=presets,
        )

    @staticmethod
    def _reach(limit: float, *knots: Sequence[float]) -> float:
        """``limit``, or as much more as it takes to show every knot."""
        outermost = max(abs(value) for values in knots for value in values)
        return limit if outermost <= limit else 1.1 * outermost

    @traitlets.validate("knots_x", "knots_y")
    def _knots_increase(self, proposal: dict) -> list[float]:
        name, values = proposal["trait"].name, proposal["value"]
        _check_increasing(name, values)
        other = self.knots_y if name == "knots_x" else self.knots_x
        if other and len(values) != len(other):
            raise ValueError(
                f"{name} must hold {len(other)} numbers like the other knots, got {len(values)}; "
                "set_knots sets both"
            )
        return values

    @traitlets.validate("interval")
    def _interval_increases(self, proposal: dict) -> list[float]:
        values = proposal["value"]
        _check_increasing("interval", values)
        if len(values) != 2 or not -self.limit <= values[0] < values[1] <= self.limit:
            raise ValueError(
                f"interval must be 2 increasing numbers in [{-self.limit:g}, {self.limit:g}], "
                f"got {values!r}"
            )
        return values

    @traitlets.observe("knots_x", "knots_y")
    def _show_all_knots(self, change: dict) -> None:
        self.limit = self._reach(self.limit, change["new"])

    def set_knots(self, knots_x: Sequence[float], knots_y: Sequence[float]) -> None:
        """Set both lists of knots at once; they may be more or fewer than before."""
        _check_knots(knots_x, knots_y)
        # One message: the browser must never see lists of different lengths.
        with self.hold_sync(), self.hold_trait_notifications():
            self.knots_x, self.knots_y = _floats(knots_x), _floats(knots_y)

    def density(self, x: np.ndarray) -> np.ndarray:
        """p(x) under the present curve, of the shape of ``x``."""
        return warped_density(x, self.knots_x, self.knots_y, self.base)

    @property
    def area(self) -> float:
        """The probability of the strip, under either density."""
        z, _ = monotone_curve(np.array(self.interval), self.knots_x, self.knots_y)
        return base_cdf(z[1], self.base) - base_cdf(z[0], self.base)

    def still(self) -> bytes:
        """The three panels with their strips."""
        limit, blue, green = self.limit, PALETTE["data"], PALETTE["latent"]
        across = np.linspace(-limit, limit, 401)
        curve, _ = monotone_curve(across, self.knots_x, self.knots_y)
        strip = np.linspace(*self.interval, 101)
        image, _ = monotone_curve(strip, self.knots_x, self.knots_y)

        figure = Figure(figsize=(5.6, 4.4))
        (left, middle), (corner, below) = figure.subplots(
            2,
            2,
            gridspec_kw={"width_ratios": [1, 3.4], "height_ratios": [2.6, 1]},
            sharex="col",
            sharey="row",
        )
        figure.subplots_adjust(
            left=0.07, right=0.98, bottom=0.08, top=0.97, wspace=0.05, hspace=0.05
        )
        middle.plot(across, across, color=LINE, lw=0.8)
        middle.fill_between(strip, -limit, image, color=blue, alpha=0.12, lw=0)
        middle.fill_betweenx(image, -limit, strip, color=green, alpha=0.12, lw=0)
        middle.plot(across, curve, color=PALETTE["model"], lw=2)
        middle.plot(self.knots_x, self.knots_y, "o", color=PALETTE["model"], mec="white", ms=7)
        left.plot(base_density(across, self.base), across, color=green, lw=1.5)
        left.fill_betweenx(image, 0, base_density(image, self.base), color=green, alpha=0.45, lw=0)
        below.plot(across, self.density(across), color=blue, lw=1.5)
        below.fill_between(strip, 0, self.density(strip), color=blue, alpha=0.45, lw=0)
        middle.set(xlim=(-limit, limit), ylim=(-limit, limit))
        left.set(xlim=(0, None), xticks=[], yticks=middle.get_yticks()[::2])
        below.set(ylim=(0, None), yticks=[])
        captions = (
            (left, "p(z)", green, 0.96, "right"),
            (middle, "z = f(x)", PALETTE["model"], 0.02, "left"),
            (below, "p(x)", blue, 0.02, "left"),
        )
        for ax, text, colour, x, side in captions:
            place = {"ha": side, "va": "top", "transform": ax.transAxes}
            ax.text(x, 0.96, text, color=colour, fontsize=8, **place)
            ax.tick_params(labelsize=7, length=2, color=LINE)
            pale_frame(ax)
        corner.axis("off")
        equal = f"shaded\n{self.area:.3f} = {self.area:.3f}"
        corner.text(
            0.45, 0.5, equal, fontsize=8, ha="center", va="center", transform=corner.transAxes
        )
        return png(figure)
