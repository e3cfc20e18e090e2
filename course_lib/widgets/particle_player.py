"""``ParticlePlayer``: watch points move through the steps of a flow or a sampler."""

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_one_of
from course_lib.widgets.base import Extent, PlayerWidget, check_extent, png, to_array, value_range
from course_lib.widgets.palette import PALETTE, colour_map

__all__ = ["ParticlePlayer"]

Array = np.ndarray | torch.Tensor


class ParticlePlayer(PlayerWidget):
    """Points, and what they carry, moving through the steps of a trajectory.

    Arguments:
        points: ``[T, B, 2]``, the B points at each of T steps; step 0 is the start.
        grid: ``[T, R, C, 2]``, the nodes of a mesh that deforms with the points; its R rows and C
            columns are drawn as lines.
        field: ``[T, H, W]`` or ``[1, H, W]``, a scalar field such as a density, drawn under the
            points in viridis. Row 0 is the lowest y, column 0 the lowest x.
        field_extent: (x0, x1, y0, y1) that the field covers; by default the whole plot.
        color: ``[B]`` or ``[T, B]``, one number per point, such as its log-determinant.
        color_label: what ``color`` is, with its unit, for the colour bar.
        color_map: ``"viridis"``, or ``"signed"``: blue below zero, orange above.
        role: whose points these are, which sets their colour where ``color`` is not given:
            ``"data"``, ``"noise"``, ``"model"``, ``"latent"`` or ``"error"``.
        labels: T names of the steps.
        title: shown above the plot.
        extent: (x0, x1, y0, y1), the part of the plane to show; by default a square that holds
            nearly all the points of all steps.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where shapes do not fit together, values are not finite, or the arrays
    need more than 300 KB at two bytes a number.

    ``widget.step`` (a float), ``widget.playing`` and ``widget.n_steps`` can be read and, but for
    the last, set.
    """

    module = "particle_player.js"

    extent = traitlets.List(traitlets.Float()).tag(sync=True)
    field_extent = traitlets.List(traitlets.Float()).tag(sync=True)
    field_range = traitlets.List(traitlets.Float()).tag(sync=True)
    color_range = traitlets.List(traitlets.Float()).tag(sync=True)
    color_label = traitlets.Unicode().tag(sync=True)
    color_map = traitlets.Unicode("viridis").tag(sync=True)
    role = traitlets.Unicode("data").tag(sync=True)

    def __init__(
        self,
        points: Array,
        *,
        grid: Array | None = None,
        field: Array | None = None,
        field_extent: Sequence[float] | None = None,
        color: Array | None = None,
        color_label: str = "",
        color_map: str = "viridis",
        role: str = "data",
        labels: Sequence[str] | None = None,
        title: str = "",
        extent: Sequence[float] | None = None,
        alt: str = "",
    ) -> None:
        arrays = {"points": _points(points)}
        steps, count = arrays["points"].shape[:2]
        if grid is not None:
            arrays["grid"] = _grid(grid, steps)
        if field is not None:
            arrays["field"] = _field(field, steps)
        if color is not None:
            arrays["color"] = _color(color, steps, count)
        check_one_of("color_map", color_map, ("viridis", "signed"))
        check_one_of("role", role, PALETTE)
        if not isinstance(color_label, str):
            raise ValueError(f"color_label must be a string, got {color_label!r}")
        shown = check_extent("extent", extent) if extent is not None else _extent(arrays["points"])
        covered = shown if field_extent is None else check_extent("field_extent", field_extent)
        ranges = {
            "field_range": value_range(arrays["field"]) if field is not None else [0.0, 1.0],
            "color_range": (
                value_range(arrays["color"], signed=color_map == "signed")
                if color is not None
                else [0.0, 1.0]
            ),
        }
        super().__init__(
            arrays,
            n_steps=steps,
            labels=labels,
            hint="send fewer particles or steps, or a coarser grid or field",
            title=title,
            alt=alt or f"{count} points move through {steps} steps.",
            extent=list(shown),
            field_extent=list(covered),
            color_label=color_label,
            color_map=color_map,
            role=role,
            **ranges,
        )

    def still(self) -> bytes:
        """The first, the middle and the last step, side by side."""
        steps = self.telling_steps()
        figure = Figure(figsize=(1.95 * len(steps) + (0.8 if "color" in self.arrays else 0), 2.2))
        axes = figure.subplots(1, len(steps), squeeze=False)[0]
        for ax, step in zip(axes, steps, strict=True):
            dots = self._draw_step(ax, step)
            ax.set_title(self.step_name(step), fontsize=8)
        if "color" in self.arrays:
            figure.subplots_adjust(left=0.05, right=0.88, bottom=0.1, top=0.9, wspace=0.2)
            bar = figure.colorbar(dots, ax=list(axes), pad=0.02)
            bar.set_label(self.color_label, fontsize=7)
            bar.ax.tick_params(labelsize=6)
        else:
            figure.subplots_adjust(left=0.05, right=0.98, bottom=0.1, top=0.9, wspace=0.2)
        return png(figure)

    def _draw_step(self, ax: object, step: int) -> object:
        """One step into matplotlib axes, in the widget's colours. Returns the dots."""
        x0, x1, y0, y1 = self.extent
        if "field" in self.arrays:
            ax.imshow(
                self.state_at("field", step),
                origin="lower",
                extent=self.field_extent,
                vmin=self.field_range[0],
                vmax=self.field_range[1],
                cmap=colour_map("viridis"),
            )
        if "grid" in self.arrays:
            mesh = self.state_at("grid", step)
            for nodes in (mesh, mesh.swapaxes(0, 1)):
                ax.plot(nodes[..., 0].T, nodes[..., 1].T, color="#9aa0a8", lw=0.4)
        points = self.state_at("points", step)
        size = max(1.0, min(8.0, 4000 / len(points)))
        look = {"color": "white" if "field" in self.arrays else PALETTE[self.role]}
        if "color" in self.arrays:
            look = {
                "c": self.state_at("color", step),
                "cmap": colour_map(self.color_map),
                "vmin": self.color_range[0],
                "vmax": self.color_range[1],
            }
        dots = ax.scatter(*points.T, s=size, linewidths=0, zorder=3, **look)
        ax.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
        ax.tick_params(labelsize=6, length=2, color="#d3d7dc")
        for side in ax.spines.values():
            side.set_color("#d3d7dc")
        return dots


def _points(points: Array) -> np.ndarray:
    array = to_array("points", points, "[T, B, 2]", 3)
    if array.shape[2] != 2:
        raise ValueError(f"points must have shape [T, B, 2], got {list(array.shape)}")
    return array


def _grid(grid: Array, steps: int) -> np.ndarray:
    array = to_array("grid", grid, f"[{steps}, R, C, 2]", 4)
    if array.shape[0] != steps or array.shape[3] != 2:
        raise ValueError(f"grid must have shape [{steps}, R, C, 2], got {list(array.shape)}")
    return array


def _field(field: Array, steps: int) -> np.ndarray:
    wanted = f"[{steps}, H, W] or [1, H, W]"
    array = to_array("field", field, wanted, 3)
    if array.shape[0] not in (1, steps):
        raise ValueError(f"field must have shape {wanted}, got {list(array.shape)}")
    return array


def _color(color: Array, steps: int, count: int) -> np.ndarray:
    wanted = f"[{count}] or [{steps}, {count}]"
    array = to_array("color", color, wanted, 1, 2)
    if array.shape not in ((count,), (steps, count)):
        raise ValueError(f"color must have shape {wanted}, got {list(array.shape)}")
    return array.reshape(-1, count)  # one row stands for every step


def _extent(points: np.ndarray) -> Extent:
    """A square that holds all but the outermost 0.4 % of the points, with a margin."""
    flat = points.reshape(-1, 2)
    low, high = np.quantile(flat, (0.002, 0.998), axis=0)
    half = max(float((high - low).max()) / 2 * 1.1, 1e-3)
    x, y = ((low + high) / 2).tolist()
    return (x - half, x + half, y - half, y + half)
