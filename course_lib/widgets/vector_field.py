"""``VectorField``: arrows all over the plane, at every time, and points that drift along them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.checks import check_one_of
from course_lib.widgets.base import LINE, PlayerWidget, check_extent, pale_frame, png, to_array
from course_lib.widgets.palette import PALETTE, colour_map

__all__ = ["VectorField"]

Array = np.ndarray | torch.Tensor

MOMENTS = 8  # stored places of a dropped particle for each step
MOST_DROPPED = 40
LONGEST = 1.3  # the longest arrow, in cells of the grid
ALL_EQUAL = 0.75  # the length of all arrows where they show directions only


class VectorField(PlayerWidget):
    """What a network says everywhere in the plane, at every time.

    The arrows are ``field``. Where a ``flow`` is given, the reader drops particles into the plane,
    and as time goes on, or back, the flow carries them: the browser integrates
    dx/ds = flow(x, s) by Runge-Kutta steps of an eighth of a step of time, from the time where a
    particle was dropped to both ends. Between the nodes of the grid the flow is bilinear, between
    two times linear, and beyond the grid it is that of the nearest place on its rim.

    Args:
        field: ``[T, R, C, 2]``, the vectors (x, y) at each of T times on a grid of R rows and C
            columns. Row 0 is the lowest y, column 0 the lowest x; the outermost nodes lie on
            ``extent``.
        extent: (x0, x1, y0, y1), the part of the plane to show.
        labels: T names of the times.
        points: ``[T, N, 2]``, points at each time, drawn faintly behind the arrows.
        field_label: what the arrows are.
        flow: ``[T, R, C, 2]`` on the same grid, the velocity dx/ds of a particle at each time; its
            unit is the displacement per step. Order the times as they should be played: a sampler
            starts with noise at step 0.
        title: shown above the plot.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where shapes do not fit together, values are not finite, or the arrays
    need more than 300 KB at two bytes a number.

    ``widget.step`` (a float), ``widget.playing`` and ``widget.n_steps`` can be read and, but for
    the last, set. ``widget.dropped`` is a list of [x, y, step], where and when each particle was
    dropped (at most 40), to be set as a whole; ``widget.paths`` is where they go.
    ``widget.scale`` says what the arrows' colours and lengths mean: with ``"all"`` the same at all
    times, with ``"each"`` each time has a scale of its own, and with ``"direction"`` all arrows are
    equally long and the colour alone tells the length. One percent of the arrows may be longer than
    the scale: they are cut to it.
    """

    module = "vector_field.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    dropped = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True, echo_update=False)
    scale = traitlets.Unicode("all").tag(sync=True, echo_update=False)
    extent = traitlets.List(traitlets.Float()).tag(sync=True)
    field_label = traitlets.Unicode().tag(sync=True)
    top = traitlets.Float(1.0).tag(sync=True)  # the length of the longest arrow at all times
    tops = traitlets.List(traitlets.Float()).tag(sync=True)  # and at each of them
    moments = traitlets.Int(MOMENTS).tag(sync=True)
    most_dropped = traitlets.Int(MOST_DROPPED).tag(sync=True)
    longest = traitlets.Float(LONGEST).tag(sync=True)
    all_equal = traitlets.Float(ALL_EQUAL).tag(sync=True)
    least = traitlets.Float().tag(sync=True)  # no shorter vector has a direction: it is rounding

    def __init__(
        self,
        field: Array,
        *,
        extent: Sequence[float],
        labels: Sequence[str] | None = None,
        points: Array | None = None,
        field_label: str = "predicted noise",
        flow: Array | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        arrays = {"field": _field(field)}
        steps = len(arrays["field"])
        if points is not None:
            arrays["points"] = _points(points, steps)
        if flow is not None:
            arrays["flow"] = _flow(flow, arrays["field"].shape)
        if not isinstance(field_label, str):
            raise ValueError(f"field_label must be a string, got {field_label!r}")
        lengths = np.linalg.norm(arrays["field"], axis=-1).reshape(steps, -1)
        super().__init__(
            arrays,
            n_steps=steps,
            labels=labels,
            hint="send fewer times or points, or a coarser grid",
            title=title,
            alt=alt or f"Arrows in the plane at {steps} times: {field_label}.",
            extent=list(check_extent("extent", extent)),
            field_label=field_label,
            least=float(np.ptp(arrays["field"])) / 65535,
            top=float(np.quantile(lengths, 0.99)) or 1.0,
            tops=[float(top) or 1.0 for top in np.quantile(lengths, 0.99, axis=1)],
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("dropped")
    def _dropped_in_time(self, proposal: dict) -> list[list[float]]:
        dropped = proposal["value"]
        if dropped and "flow" not in self.arrays:
            raise ValueError(f"dropped must be empty where no flow was given, got {dropped!r}")
        if len(dropped) > MOST_DROPPED:
            raise ValueError(
                f"dropped must hold at most {MOST_DROPPED} particles, got {len(dropped)}"
            )
        last = self.n_steps - 1
        for one in dropped:
            if len(one) != 3 or not np.isfinite(one).all() or not 0 <= one[2] <= last:
                raise ValueError(
                    f"dropped must hold finite [x, y, step] with step in [0, {last}], got {one!r}"
                )
        return dropped

    @traitlets.validate("scale")
    def _scale_known(self, proposal: dict) -> str:
        check_one_of("scale", proposal["value"], ("all", "each", "direction"))
        return proposal["value"]

    @property
    def paths(self) -> np.ndarray:
        """Where the flow leads each of the D dropped particles, ``[D, 8 (T - 1) + 1, 2]``.

        Eight places for each step: ``paths[:, 8 * k]`` are those at step k.
        """
        if not self.dropped:
            return np.zeros((0, MOMENTS * (self.n_steps - 1) + 1, 2))
        flow = self.array("flow")
        return np.stack([_carry(flow, self.extent, *one) for one in self.dropped])

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The first, the middle and the last time, side by side."""
        steps = self.telling_steps()
        figure = Figure(figsize=(2.1 * len(steps) + 0.7, 2.35))
        axes = figure.subplots(1, len(steps), squeeze=False)[0]
        for ax, step in zip(axes, steps, strict=True):
            arrows = self._draw_step(ax, step)
            ax.set_title(self.step_name(step), fontsize=8)
        figure.subplots_adjust(left=0.05, right=0.98, bottom=0.1, top=0.9, wspace=0.2)
        # With a scale for each time, the numbers of one bar would be wrong for the others.
        if self.scale != "each" or len(steps) == 1:
            bar = figure.colorbar(arrows, ax=list(axes), pad=0.02)
            bar.set_label(self.field_label, fontsize=7)
            bar.ax.tick_params(labelsize=6)
        return png(figure, colours=128)

    def _draw_step(self, ax: Axes, step: int) -> object:
        """One time into matplotlib axes, in the widget's colours. Returns the arrows."""
        x0, x1, y0, y1 = self.extent
        field = self.state_at("field", step)
        rows, columns = field.shape[:2]
        top = self.tops[step] if self.scale == "each" else self.top
        lengths = np.linalg.norm(field, axis=-1)
        if "points" in self.arrays:
            look = {"color": PALETTE["data"], "alpha": 0.3, "linewidths": 0}
            ax.scatter(*self.state_at("points", step).T, s=2, **look)
        unit = min((x1 - x0) / (columns - 1), (y1 - y0) / (rows - 1))
        if self.scale == "direction":
            wanted = ALL_EQUAL * unit * (lengths > self.least)
        else:
            wanted = LONGEST * unit * np.minimum(lengths / top, 1)
        shown = (wanted / np.where(lengths > 0, lengths, 1))[..., None] * field
        arrows = ax.quiver(
            *np.meshgrid(np.linspace(x0, x1, columns), np.linspace(y0, y1, rows)),
            *np.moveaxis(shown, -1, 0),
            lengths,
            **{"cmap": colour_map("viridis"), "clim": (0, top), "pivot": "mid", "zorder": 2},
            **{"angles": "xy", "scale_units": "xy", "scale": 1},
            **{"width": 0.007, "headwidth": 3.5, "headlength": 4, "headaxislength": 4},
        )
        for path in self.paths:
            ax.plot(*path.T, color=PALETTE["model"], lw=0.8, zorder=3)
            ax.plot(*path[MOMENTS * step], "o", color=PALETTE["model"], ms=3.5, zorder=4)
        ax.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
        ax.tick_params(labelsize=6, length=2, color=LINE)
        pale_frame(ax)
        return arrows


# ------------------------------------------------------------------------------------- integration


def _mixed(low: np.ndarray, high: np.ndarray, share: float) -> np.ndarray:
    return low + (high - low) * share


def _velocity(flow: np.ndarray, extent: Sequence[float], at: np.ndarray, step: float) -> np.ndarray:
    """The flow at a place and a time, [2]."""
    steps, rows, columns = flow.shape[:3]
    x0, x1, y0, y1 = extent

    def cell(place: float, count: int) -> tuple[int, float]:
        place = min(max(place, 0), count - 1)
        low = min(int(place), count - 2)
        return low, place - low

    t, later = cell(step, steps)
    i, up = cell((at[1] - y0) / (y1 - y0) * (rows - 1), rows)
    j, right = cell((at[0] - x0) / (x1 - x0) * (columns - 1), columns)
    near = flow[t : t + 2, i : i + 2, j : j + 2]
    near = _mixed(near[0], near[1], later)
    near = _mixed(near[0], near[1], up)
    return _mixed(near[0], near[1], right)


def _carry(
    flow: np.ndarray, extent: Sequence[float], x: float, y: float, step: float
) -> np.ndarray:
    """Where the flow leads a particle from (x, y, step), [MOMENTS (T - 1) + 1, 2]."""
    last = MOMENTS * (len(flow) - 1)
    path = np.empty((last + 1, 2))
    for way, first in ((1, math.ceil(step * MOMENTS)), (-1, math.floor(step * MOMENTS))):
        at, now = np.array([x, y]), step
        for k in range(first, last + 1 if way > 0 else -1, way):
            h = k / MOMENTS - now
            v1 = _velocity(flow, extent, at, now)
            v2 = _velocity(flow, extent, at + h / 2 * v1, now + h / 2)
            v3 = _velocity(flow, extent, at + h / 2 * v2, now + h / 2)
            v4 = _velocity(flow, extent, at + h * v3, now + h)
            at, now = at + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4), k / MOMENTS
            path[k] = at
    return path


# --------------------------------------------------------------------------------------- arguments


def _field(field: Array) -> np.ndarray:
    wanted = "[T, R, C, 2] with R and C of at least 2"
    array = to_array("field", field, wanted, 4)
    if array.shape[3] != 2 or min(array.shape[1:3]) < 2:
        raise ValueError(f"field must have shape {wanted}, got {list(array.shape)}")
    return array


def _points(points: Array, steps: int) -> np.ndarray:
    wanted = f"[{steps}, N, 2]"
    array = to_array("points", points, wanted, 3)
    if array.shape[0] != steps or array.shape[2] != 2:
        raise ValueError(f"points must have shape {wanted}, got {list(array.shape)}")
    return array


def _flow(flow: Array, shape: tuple[int, ...]) -> np.ndarray:
    wanted = f"{list(shape)}, that of field"
    array = to_array("flow", flow, wanted, 4)
    if array.shape != shape:
        raise ValueError(f"flow must have shape {wanted}, got {list(array.shape)}")
    if len(array) == 1:
        raise ValueError("flow must have at least 2 times to flow between, got 1")
    return array
