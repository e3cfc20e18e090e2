"""``PointCloud``: points in space that move through the steps of a trajectory, turned by hand."""

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.checks import check_number, check_one_of
from course_lib.widgets.base import (
    COLOR_MAPS,
    LINE,
    PlayerWidget,
    color_range,
    png,
    to_array,
    to_colors,
)
from course_lib.widgets.palette import PALETTE, colour_map

__all__ = ["PointCloud", "project"]

Array = np.ndarray | torch.Tensor

# The eye's distance from the middle of a box whose longest side is 2, and half the height of what
# it sees, so that the whole box is in sight.
DISTANCE, FITS = 6.0, 1.75
ZOOMS = (0.5, 8.0)
# The box's corners as signs along x, y and z, and its edges as pairs of them.
CORNERS = np.array([[k & 1, k >> 1 & 1, k >> 2] for k in range(8)]) * 2 - 1
EDGES = [(j, k) for j in range(8) for k in range(j) if bin(j ^ k).count("1") == 1]


def project(points: np.ndarray, yaw: float, pitch: float) -> tuple[np.ndarray, np.ndarray]:
    """Where an eye sees points: across and up ``[..., 2]``, and how far away they are ``[...]``.

    The third axis points up. The cloud is turned about it by ``yaw`` degrees, then the eye rises
    by ``pitch`` degrees: at 90 it looks straight down, with the second axis up. What is closer
    looks larger: the eye is 6 away from the origin. point_cloud.js has the same formulas.

    Raises ``ValueError`` where ``points`` does not have shape ``[..., 3]``.

    >>> place, depth = project(np.array([[0.0, 1.0, 0.0]]), yaw=0, pitch=0)
    >>> place.tolist(), depth.tolist()  # it lies right behind the origin
    ([[0.0, 0.0]], [1.0])
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim == 0 or points.shape[-1] != 3:
        raise ValueError(f"points must have shape [..., 3], got {list(points.shape)}")
    turn, tilt = np.radians(yaw), np.radians(pitch)
    x, y, z = np.moveaxis(points, -1, 0)
    across = np.cos(turn) * x - np.sin(turn) * y
    behind = np.sin(turn) * x + np.cos(turn) * y
    up = np.cos(tilt) * z + np.sin(tilt) * behind
    depth = np.cos(tilt) * behind - np.sin(tilt) * z
    scale = DISTANCE / (DISTANCE + depth)
    return np.stack([scale * across, scale * up], -1), depth


class PointCloud(PlayerWidget):
    """Points in space moving through the steps of a trajectory; the mouse turns them.

    What is closer to the eye is larger and stronger. Keys turn and zoom, too.

    Args:
        points: ``[T, B, 3]``, the B points at each of T steps; step 0 is the start. The third axis
            points up.
        color: ``[B]`` or ``[T, B]``, one number per point, such as its place along the data.
        color_label: what ``color`` is, with its unit, for the colour bar.
        color_map: ``"viridis"``; ``"signed"``, blue below zero and orange above; or ``"cyclic"``
            for angles in radians, from -pi to pi.
        role: whose points these are, which sets their colour where ``color`` is not given:
            ``"data"``, ``"noise"``, ``"model"``, ``"latent"`` or ``"error"``.
        labels: T names of the steps.
        title: shown above the plot.
        extent: (x0, x1, y0, y1, z0, z1), the box; by default a cube that holds nearly all the
            points of all steps. Points outside are drawn, too.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where shapes do not fit together, values are not finite, or the arrays
    need more than 300 KB at two bytes a number.

    ``widget.step`` (a float), ``widget.playing``, ``widget.yaw`` and ``widget.pitch`` (degrees; the
    pitch from -90 to 90) and ``widget.zoom`` (1 shows the whole box) can be read and set.
    """

    module = "point_cloud.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    yaw = traitlets.Float(30.0).tag(sync=True, echo_update=False)
    pitch = traitlets.Float(20.0).tag(sync=True, echo_update=False)
    zoom = traitlets.Float(1.0).tag(sync=True, echo_update=False)
    extent = traitlets.List(traitlets.Float()).tag(sync=True)
    color_range = traitlets.List(traitlets.Float()).tag(sync=True)
    color_label = traitlets.Unicode().tag(sync=True)
    color_map = traitlets.Unicode("viridis").tag(sync=True)
    role = traitlets.Unicode("data").tag(sync=True)
    distance = traitlets.Float(DISTANCE).tag(sync=True)
    fits = traitlets.Float(FITS).tag(sync=True)
    zooms = traitlets.List(traitlets.Float(), ZOOMS).tag(sync=True)

    def __init__(
        self,
        points: Array,
        *,
        color: Array | None = None,
        color_label: str = "",
        color_map: str = "viridis",
        role: str = "data",
        labels: Sequence[str] | None = None,
        title: str = "",
        extent: Sequence[float] | None = None,
        alt: str = "",
    ) -> None:
        array = to_array("points", points, "[T, B, 3]", 3)
        steps, count, dims = array.shape
        if dims != 3:
            raise ValueError(f"points must have shape [T, B, 3], got {list(array.shape)}")
        check_one_of("color_map", color_map, COLOR_MAPS)
        check_one_of("role", role, PALETTE)
        if not isinstance(color_label, str):
            raise ValueError(f"color_label must be a string, got {color_label!r}")
        arrays = {"points": array}
        covered = [0.0, 1.0]
        if color is not None:
            arrays["color"] = to_colors(color, steps, count)
            covered = color_range(arrays["color"], color_map)
        super().__init__(
            arrays,
            n_steps=steps,
            labels=labels,
            hint="send fewer points or steps",
            title=title,
            alt=alt or f"{count} points in space move through {steps} steps.",
            extent=_box(array) if extent is None else _check_box(extent),
            color_range=covered,
            color_label=color_label,
            color_map=color_map,
            role=role,
        )

    @traitlets.validate("yaw", "pitch")
    def _angle_in_range(self, proposal: dict) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        limit = 90 if name == "pitch" else np.finfo(float).max
        if not -limit <= value <= limit:
            wanted = "an angle in [-90, 90]" if name == "pitch" else "a finite angle"
            raise ValueError(f"{name} must be {wanted}, got {value}")
        return value

    @traitlets.validate("zoom")
    def _zoom_in_range(self, proposal: dict) -> float:
        check_number("zoom", proposal["value"], above=0)
        if not ZOOMS[0] <= proposal["value"] <= ZOOMS[1]:
            raise ValueError(f"zoom must lie in {list(ZOOMS)}, got {proposal['value']}")
        return proposal["value"]

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The first, the middle and the last step, side by side."""
        steps = self.telling_steps()
        with_bar = "color" in self.arrays
        figure = Figure(figsize=(2.2 * len(steps) + 0.8 * with_bar, 2.4))
        axes = figure.subplots(1, len(steps), squeeze=False)[0]
        for ax, step in zip(axes, steps, strict=True):
            dots = self._draw_step(ax, step)
            ax.set_title(self.step_name(step), fontsize=8)
        right = 0.9 if with_bar else 0.99
        figure.subplots_adjust(left=0.01, right=right, bottom=0.02, top=0.9, wspace=0.02)
        if with_bar:
            bar = figure.colorbar(dots, ax=list(axes), pad=0.01, aspect=25)
            bar.set_label(self.color_label, fontsize=7)
            bar.ax.tick_params(labelsize=6)
        return png(figure, colours=128)

    def _draw_step(self, ax: Axes, step: int) -> object:
        """One step into matplotlib axes, from where the widget is seen. Returns the dots."""
        low, high = np.reshape(self.extent, (3, 2)).T
        middle, unit = (low + high) / 2, (high - low).max() / 2
        shown = (self.state_at("points", step) - middle) / unit
        places, depth = project(shown, self.yaw, self.pitch)
        corners, _ = project(CORNERS * (high - low) / 2 / unit, self.yaw, self.pitch)
        for j, k in EDGES:
            ax.plot(*corners[[j, k]].T, color=LINE, lw=0.8, zorder=0)
        for axis, name in enumerate("xyz"):
            j, k = named_edge(corners, axis)
            spot = corners[[j, k]].mean(0)
            ax.text(*(1.13 * spot), name, fontsize=8, color="#5b626b", ha="center", va="center")
        order = np.argsort(-depth)
        look = {"color": PALETTE[self.role]}
        if "color" in self.arrays:
            look = {
                "c": self.state_at("color", step)[order],
                "cmap": colour_map(self.color_map),
                "vmin": self.color_range[0],
                "vmax": self.color_range[1],
            }
        size = max(1.5, min(9.0, 5000 / len(order))) / (1 + depth[order] / DISTANCE) ** 2
        alpha = np.clip(0.65 - 0.3 * depth[order], 0.25, 1)
        dots = ax.scatter(*places[order].T, s=size, linewidths=0, zorder=3, alpha=alpha, **look)
        reach = FITS / self.zoom
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        ax.axis("off")
        return dots


def named_edge(corners: np.ndarray, axis: int) -> tuple[int, int]:
    """The edge of the box along an axis that has the axis's name: the lowest, for z the leftmost.

    ``corners`` are the projected ones ``[8, 2]``; point_cloud.js chooses the same.
    """
    along = [(j, k) for j, k in EDGES if j ^ k == 1 << axis]
    side = 0 if axis == 2 else 1
    return min(along, key=lambda edge: corners[list(edge), side].sum())


# -------------------------------------------------------------------------------------- arguments


def _box(points: np.ndarray) -> list[float]:
    """A cube that holds all but the outermost 0.4 % of the points along each axis."""
    low, high = np.quantile(points.reshape(-1, 3), (0.002, 0.998), axis=0)
    half = max(float((high - low).max()) / 2 * 1.1, 1e-3)
    unit = 0.2 * half
    middle = np.round((low + high) / 2 / unit) * unit  # where it is nearly the origin, it is that
    return np.stack([middle - half, middle + half], 1).ravel().tolist()


def _check_box(extent: Sequence[float]) -> list[float]:
    try:
        values = [float(value) for value in extent]
    except (TypeError, ValueError):
        values = []
    fair = len(values) == 6 and bool(np.isfinite(values).all())
    if not fair or not all(low < high for low, high in np.reshape(values, (3, 2))):
        raise ValueError(
            "extent must be (x0, x1, y0, y1, z0, z1) with x0 < x1, y0 < y1 and z0 < z1, got "
            f"{extent!r}"
        )
    return values
