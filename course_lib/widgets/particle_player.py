"""``ParticlePlayer``: watch points move through the steps of a flow or a sampler."""

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_one_of
from course_lib.widgets.base import (
    COLOR_MAPS,
    LINE,
    Extent,
    PlayerWidget,
    check_extent,
    check_labels,
    color_range,
    pale_frame,
    png,
    to_array,
    to_colors,
    value_range,
)
from course_lib.widgets.palette import PALETTE, colour_map

__all__ = ["ParticlePlayer"]

Array = np.ndarray | torch.Tensor

FURTHER = ("beside", "beside_2", "beside_3")  # the arrays of the panels after the first
PANELS = ("points", *FURTHER)


class ParticlePlayer(PlayerWidget):
    """Points, and what they carry, moving through the steps of a trajectory.

    Args:
        points: ``[T, B, 2]``, the B points at each of T steps; step 0 is the start. Between two
            steps the points move evenly, so that few steps are enough for a smooth picture.
        beside: ``[T, B, 2]`` for a second panel, which plays in step with the first: another view
            of the same points, such as a model's guess of where they end, or another way for them.
            A list of up to three such arrays makes as many further panels.
        titles: names of the panels, from left to right.
        captions: for each panel T short texts, one for each step, shown under its title.
        trails: ``[S, K, 2]``, the paths of the first K points in S steps of their own, drawn as
            lines: strong as far as they are travelled, the rest faint. S may be larger than T,
            since a path of many turns needs more steps than a cloud; the first step and the last
            are those of the points, the others lie evenly between. These K points are shown on
            their trails, as larger dots, and all others pale. ``trails=points[:, :8]`` follows
            eight of them.

            Where a step is no moment but a setting, such as the number of steps of a solver, the
            paths differ from step to step: then they are a list of T arrays ``[S_t, K, 2]``, drawn
            whole, with the K points at their ends, and nothing is shown between two steps.
        beside_trails: the same for the second panel; S and K may be others. With a list of panels
            it is a list, too, with one entry for each of them.
        grid: ``[T, R, C, 2]``, the nodes of a mesh that deforms with the points; its R rows and C
            columns are drawn as lines, in the first panel.
        field: ``[T, H, W]`` or ``[1, H, W]``, a scalar field such as a density, drawn under the
            points in viridis. Row 0 is the lowest y, column 0 the lowest x.
        field_extent: (x0, x1, y0, y1) that the field covers; by default the whole plot.
        color: ``[B]`` or ``[T, B]``, one number per point, such as its log-determinant.
        color_label: what ``color`` is, with its unit, for the colour bar.
        color_map: ``"viridis"``; ``"signed"``, blue below zero and orange above; or ``"cyclic"``
            for angles in radians, from -pi to pi.
        role: whose points these are, which sets their colour where ``color`` is not given:
            ``"data"``, ``"noise"``, ``"model"``, ``"latent"`` or ``"error"``.
        beside_role: the same for the second panel; by default that of the first.
        labels: T names of the steps.
        title: shown above the plots.
        extent: (x0, x1, y0, y1), the part of the plane to show; by default a square that holds
            nearly all the points of all steps and panels.
        alt: what one sees, in a sentence, for readers who do not see it.

    Field and colours belong to both panels. With a second panel, 2,000 points may have 18 steps.

    Raises ``ValueError`` where shapes do not fit together, values are not finite, or the arrays
    need more than 300 KB at two bytes a number.

    ``widget.step`` (a float), ``widget.playing`` and ``widget.n_steps`` can be read and, but for
    the last, set.

    Example:
        Where one, two and four steps of Euler lead, with the ways of the first three points:

        >>> x, turn = np.eye(2)[[0, 1, 0, 1]], np.array([[0, 1.0], [-1, 0]])
        >>> ways = []
        >>> for steps in (1, 2, 4):
        ...     states = [x]
        ...     for _ in range(steps):
        ...         states.append(states[-1] + states[-1] @ turn / steps)
        ...     ways.append(np.stack(states))
        >>> player = ParticlePlayer(
        ...     np.stack([way[-1] for way in ways]),
        ...     trails=[way[:, :3] for way in ways],
        ...     labels=["1 step", "2 steps", "4 steps"],
        ... )
        >>> player.arrays["trails"]["shape"]
        [3, 5, 3, 2]
    """

    module = "particle_player.js"

    extent = traitlets.List(traitlets.Float()).tag(sync=True)
    field_extent = traitlets.List(traitlets.Float()).tag(sync=True)
    field_range = traitlets.List(traitlets.Float()).tag(sync=True)
    color_range = traitlets.List(traitlets.Float()).tag(sync=True)
    color_label = traitlets.Unicode().tag(sync=True)
    color_map = traitlets.Unicode("viridis").tag(sync=True)
    role = traitlets.Unicode("data").tag(sync=True)
    beside_role = traitlets.Unicode("data").tag(sync=True)
    titles = traitlets.List(traitlets.Unicode()).tag(sync=True)
    captions = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)

    def __init__(
        self,
        points: Array,
        *,
        beside: Array | Sequence[Array] | None = None,
        titles: Sequence[str] | None = None,
        captions: Sequence[Sequence[str]] | None = None,
        trails: Array | Sequence[Array] | None = None,
        beside_trails: Array | Sequence[Array | Sequence[Array]] | None = None,
        grid: Array | None = None,
        field: Array | None = None,
        field_extent: Sequence[float] | None = None,
        color: Array | None = None,
        color_label: str = "",
        color_map: str = "viridis",
        role: str = "data",
        beside_role: str | None = None,
        labels: Sequence[str] | None = None,
        title: str = "",
        extent: Sequence[float] | None = None,
        alt: str = "",
    ) -> None:
        arrays = {"points": _points(points)}
        steps, count = arrays["points"].shape[:2]
        others = beside if _are_several(beside) else [] if beside is None else [beside]
        if len(others) > len(FURTHER):
            raise ValueError(f"beside must hold at most {len(FURTHER)} panels, got {len(others)}")
        for name, one in zip(FURTHER, others, strict=False):
            arrays[name] = _beside(one, steps, count)
        needs_beside = {
            "titles": titles, "beside_trails": beside_trails, "beside_role": beside_role,
        }  # fmt: skip
        for name, value in needs_beside.items():
            if beside is None and value is not None:
                raise ValueError(f"{name} must be None where there is no beside, got one")
        if trails is not None:
            arrays["trails"] = _trails("trails", trails, steps, count)
        if beside_trails is not None:
            paths = beside_trails if _are_several(beside) else [beside_trails]
            if not isinstance(paths, list | tuple) or len(paths) != len(others):
                raise ValueError(f"beside_trails must be a list of {len(others)}, like beside")
            for name, one in zip(FURTHER, paths, strict=False):
                arrays[f"{name}_trails"] = _trails("beside_trails", one, steps, count)
        names = check_labels("titles", titles, 1 + len(others))
        if grid is not None:
            arrays["grid"] = _grid(grid, steps)
        if field is not None:
            arrays["field"] = _field(field, steps)
        if color is not None:
            arrays["color"] = to_colors(color, steps, count)
        check_one_of("color_map", color_map, COLOR_MAPS)
        check_one_of("role", role, PALETTE)
        beside_role = role if beside_role is None else beside_role
        check_one_of("beside_role", beside_role, PALETTE)
        if not isinstance(color_label, str):
            raise ValueError(f"color_label must be a string, got {color_label!r}")
        clouds = [arrays[name].reshape(-1, 2) for name in PANELS if name in arrays]
        shown = square_around(*clouds) if extent is None else check_extent("extent", extent)
        covered = shown if field_extent is None else check_extent("field_extent", field_extent)
        ranges = {
            "field_range": value_range(arrays["field"]) if field is not None else [0.0, 1.0],
            "color_range": (
                color_range(arrays["color"], color_map) if color is not None else [0.0, 1.0]
            ),
        }
        super().__init__(
            arrays,
            n_steps=steps,
            labels=labels,
            whole_steps=any(array.ndim == 4 for name, array in arrays.items() if "trails" in name),
            hint="send fewer particles or steps, or a coarser grid or field",
            title=title,
            alt=alt or _alt(steps, count, names, panels=1 + len(others)),
            extent=list(shown),
            field_extent=list(covered),
            color_label=color_label,
            color_map=color_map,
            role=role,
            beside_role=beside_role,
            titles=names,
            captions=_captions(captions, 1 + len(others), steps),
            **ranges,
        )

    def trail_step(self, name: str, step: float) -> float:
        """The step of ``"trails"`` or ``"beside_trails"`` at the step ``step`` of the points: the
        last one of trails that differ from step to step.
        """
        if len(self.arrays[name]["shape"]) == 4:
            return self.arrays[name]["shape"][1] - 1
        share = step / (self.n_steps - 1) if self.n_steps > 1 else 1.0
        return share * (self.arrays[name]["shape"][0] - 1)

    def still(self) -> bytes:
        """The first, the middle and the last step, side by side; a second panel below the first."""
        steps = self.telling_steps()
        panels = [name for name in PANELS if name in self.arrays]
        rows, bar_width = len(panels), 0.8 if "color" in self.arrays else 0
        name_width = 0.2 if self.titles else 0
        figure = Figure(
            figsize=(1.95 * len(steps) + bar_width + name_width, 2.2 * rows - 0.15 * (rows - 1))
        )
        axes = figure.subplots(rows, len(steps), squeeze=False)
        for row, panel in zip(axes, panels, strict=True):
            for ax, step in zip(row, steps, strict=True):
                dots = self._draw_step(ax, step, panel)
        for ax, step in zip(axes[0], steps, strict=True):
            ax.set_title(self.step_name(step), fontsize=8)
        for ax, name in zip(axes[:, 0], self.titles, strict=False):
            ax.set_ylabel(name, fontsize=8)
        for row, texts in zip(axes, self.captions, strict=False):
            for ax, step in zip(row, steps, strict=True):
                ax.text(0.5, 0.97, texts[step], fontsize=6, ha="center", va="top",
                        transform=ax.transAxes)  # fmt: skip
        edge = 0.1 / rows
        space = {"bottom": edge, "top": 1 - edge, "wspace": 0.2, "hspace": 0.15}
        left = 0.05 + name_width / figure.get_figwidth()
        if "color" in self.arrays:
            figure.subplots_adjust(left=left, right=0.88, **space)
            bar = figure.colorbar(dots, ax=list(axes.flat), pad=0.02)
            bar.solids.set_alpha(1)  # under trails the dots are pale
            bar.set_label(self.color_label, fontsize=7)
            bar.ax.tick_params(labelsize=6)
        else:
            figure.subplots_adjust(left=left, right=0.98, **space)
        return png(figure)

    def _draw_step(self, ax: object, step: int, panel: str = "points") -> object:
        """One step of a panel into matplotlib axes, in the widget's colours. Returns the dots."""
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
        if panel == "points" and "grid" in self.arrays:
            mesh = self.state_at("grid", step)
            for nodes in (mesh, mesh.swapaxes(0, 1)):
                ax.plot(nodes[..., 0].T, nodes[..., 1].T, color="#9aa0a8", lw=0.4)
        points = self.state_at(panel, step)
        size = max(1.0, min(8.0, 4000 / len(points)))
        role = self.role if panel == "points" else self.beside_role
        look = {"color": "white" if "field" in self.arrays else PALETTE[role]}
        if "color" in self.arrays:
            look = {
                "c": self.state_at("color", step),
                "cmap": colour_map(self.color_map),
                "vmin": self.color_range[0],
                "vmax": self.color_range[1],
            }
        trails = "trails" if panel == "points" else f"{panel}_trails"
        if trails in self.arrays:
            head = self._at(self._paths(trails, step), self.trail_step(trails, step))
            points[: len(head)] = head
        dots = ax.scatter(*points.T, s=size, linewidths=0, zorder=3, **look)
        if trails in self.arrays:
            self._draw_trails(ax, step, trails, dots)
            dots.set_alpha(0.28)
        ax.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
        ax.tick_params(labelsize=6, length=2, color=LINE)
        pale_frame(ax)
        return dots

    def _paths(self, name: str, step: int) -> np.ndarray:
        """The trails ``[S, K, 2]`` that belong to a step."""
        paths = self.array(name)
        return paths[step] if paths.ndim == 4 else paths

    @staticmethod
    def _at(paths: np.ndarray, step: float) -> np.ndarray:
        low = int(step)
        high = min(low + 1, len(paths) - 1)
        return paths[low] + (paths[high] - paths[low]) * (step - low)

    def _draw_trails(self, ax: object, step: int, name: str, dots: object) -> None:
        """The trails up to a step, and the points at their ends in the colours of ``dots``."""
        paths = self._paths(name, step)
        at = self.trail_step(name, step)
        head = self._at(paths, at)
        dots.update_scalarmappable()  # gives each dot its colour
        colours = dots.get_facecolor()[:, :3]
        for k in range(len(head)):
            colour = colours[k if len(colours) > 1 else 0]
            travelled = np.concatenate([paths[: int(at) + 1, k], head[k : k + 1]])
            ax.plot(*paths[int(at) :, k].T, color=colour, lw=0.5, alpha=0.75, zorder=4)
            ax.plot(*travelled.T, color="white", lw=1.8, zorder=4)
            ax.plot(*travelled.T, color=colour, lw=0.9, zorder=5)
            ax.scatter(*head[k], s=12, color=colour, edgecolors="black", linewidths=0.5, zorder=6)


def _points(points: Array) -> np.ndarray:
    array = to_array("points", points, "[T, B, 2]", 3)
    if array.shape[2] != 2:
        raise ValueError(f"points must have shape [T, B, 2], got {list(array.shape)}")
    return array


def _beside(beside: Array, steps: int, count: int) -> np.ndarray:
    wanted = f"[{steps}, {count}, 2] like points"
    array = to_array("beside", beside, wanted, 3)
    if array.shape != (steps, count, 2):
        raise ValueError(f"beside must have shape {wanted}, got {list(array.shape)}")
    return array


def _are_several(panels: object) -> bool:
    """Whether these are arrays ``[T, B, 2]`` in a list, not the rows of one."""
    return isinstance(panels, list | tuple) and bool(panels) and np.ndim(panels[0]) == 3


def _trails(name: str, trails: Array | Sequence[Array], steps: int, count: int) -> np.ndarray:
    """``[S, K, 2]``, or ``[T, S, K, 2]`` of a list, all with as many steps as the longest."""
    if _are_several(trails):
        return _trails_of_steps(name, trails, steps, count)
    wanted = f"[S, K, 2] with K from 1 to {count}"
    array = to_array(name, trails, wanted, 3)
    if array.shape[1] > count or array.shape[2] != 2:
        raise ValueError(f"{name} must have shape {wanted}, got {list(array.shape)}")
    return array


def _trails_of_steps(name: str, trails: Sequence[Array], steps: int, count: int) -> np.ndarray:
    if len(trails) != steps:
        raise ValueError(f"{name} must be a list of {steps} arrays, got {len(trails)}")
    paths = [_trails(f"{name}[{k}]", one, steps, count) for k, one in enumerate(trails)]
    if len({path.shape[1] for path in paths}) > 1:
        shapes = [list(path.shape) for path in paths]
        raise ValueError(f"{name} must hold as many paths at each step, got {shapes}")
    longest = max(len(path) for path in paths)
    return np.stack([_refined(path, longest) for path in paths])


def _refined(path: np.ndarray, steps: int) -> np.ndarray:
    """A path ``[S, K, 2]`` at ``steps`` even places along it: on its straight pieces."""
    at = np.linspace(0, len(path) - 1, steps)
    low = at.astype(int)
    high = np.minimum(low + 1, len(path) - 1)
    return path[low] + (path[high] - path[low]) * (at - low).reshape(-1, 1, 1).astype(path.dtype)


def _captions(captions: Sequence[Sequence[str]] | None, panels: int, steps: int) -> list[list[str]]:
    if captions is None:
        return []
    if not isinstance(captions, list | tuple) or len(captions) != panels:
        raise ValueError(f"captions must be a list for each of {panels} panels, got {captions!r}")
    return [check_labels(f"captions[{i}]", one, steps) for i, one in enumerate(captions)]


def _alt(steps: int, count: int, titles: Sequence[str], *, panels: int) -> str:
    if panels == 1:
        return f"{count} points move through {steps} steps."
    names = f": {', '.join(titles[:-1])} and {titles[-1]}" if titles else ""
    number = ("two", "three", "four")[panels - 2]
    return f"{count} points move through {steps} steps in {number} panels{names}."


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


def square_around(*clouds: np.ndarray) -> Extent:
    """A square that holds all but the outermost 0.4 % of the points [N, 2], with a margin."""
    low, high = np.quantile(np.concatenate(clouds), (0.002, 0.998), axis=0)
    half = max(float((high - low).max()) / 2 * 1.1, 1e-3)
    x, y = ((low + high) / 2).tolist()
    return (x - half, x + half, y - half, y + half)
