"""``StepsByEta``: what a sampler makes of the same noise, for each number of steps and each η."""

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.checks import check_ints, check_number
from course_lib.widgets.base import CourseWidget, pale_frame, png, to_array, to_bytes, to_images
from course_lib.widgets.palette import PALETTE, colour_map
from course_lib.widgets.particle_player import square_around

__all__ = ["StepsByEta"]

Array = np.ndarray | torch.Tensor | Sequence

MOST_STEPS, MOST_ETAS = 10, 6  # rows and columns of the table
MOST_POINTS = 300  # in a cell
STILL_ETAS, STILL_STEPS, STILL_IMAGES = 3, 4, 4


class StepsByEta(CourseWidget):
    """A table of steps by η, and the samples that belong to the cell under the reader's hand.

    All samples should start from the same noise: then what changes from cell to cell is the
    sampler's doing. The table may say how good each cell is, in a number and a colour, and what it
    costs.

    Arguments:
        samples: ``[S, E, n, H, W]`` or ``[S, E, n, 1, H, W]`` in [0, 1], n images for each of S
            numbers of steps and E values of η; or ``[S, E, N, 2]``, N ≤ 300 points.
        steps: S ≤ 10 numbers of steps, each at least 1 and all different.
        etas: E ≤ 6 values of η, each at least 0 and all different.
        quality: ``[S, E]``, one number for each cell; lower is better, as with a distance. The best
            is the brightest. Colours follow the logarithm where all numbers are positive.
        quality_label: what ``quality`` is.
        cost: ``[S]`` or ``[S, E]``, what a row or a cell costs, shown as a number. Where there is
            no quality, ``[S, E]`` takes its place.
        cost_label: what ``cost`` is, with its unit.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where shapes do not fit together, values are not finite, images lie
    outside [0, 1], or the samples need more than 300 KB at one byte a pixel, four a point.

    ``widget.steps_index`` and ``widget.eta_index`` can be read and set; ``widget.steps`` and
    ``widget.eta`` say what they stand for, and ``widget.shown`` is what is shown.
    """

    module = "steps_by_eta.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    steps_index = traitlets.Int(0).tag(sync=True, echo_update=False)
    eta_index = traitlets.Int(0).tag(sync=True, echo_update=False)
    all_steps = traitlets.List(traitlets.Int()).tag(sync=True)
    all_etas = traitlets.List(traitlets.Float()).tag(sync=True)
    quality = traitlets.List().tag(sync=True)  # S lists of E numbers, or empty
    quality_label = traitlets.Unicode().tag(sync=True)
    cost = traitlets.List().tag(sync=True)  # S lists of E numbers, or of one, or empty
    cost_label = traitlets.Unicode().tag(sync=True)
    shades = traitlets.List().tag(sync=True)  # S lists of E numbers, from 0 (worst) to 1 (best)
    extent = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(
        self,
        samples: Array,
        steps: Sequence[int],
        etas: Sequence[float],
        *,
        quality: Array | None = None,
        quality_label: str = "",
        cost: Array | None = None,
        cost_label: str = "network evaluations",
        title: str = "",
        alt: str = "",
    ) -> None:
        _check_axis("steps", steps, MOST_STEPS)
        check_ints("steps", steps, minimum=1)
        _check_axis("etas", etas, MOST_ETAS)
        for i, eta in enumerate(etas):
            check_number(f"etas[{i}]", eta, minimum=0)
        for name, text in (("quality_label", quality_label), ("cost_label", cost_label)):
            if not isinstance(text, str):
                raise ValueError(f"{name} must be a string, got {text!r}")
        cells = (len(steps), len(etas))
        array = _samples(samples, *cells)
        extent = list(square_around(array.reshape(-1, 2))) if array.ndim == 4 else []
        qualities = _numbers("quality", quality, cells)
        costs = _numbers("cost", cost, cells, cells[:1])
        if qualities.size == 0 and costs.shape == cells:
            qualities, quality_label = costs, cost_label
            costs = np.empty(0)
        super().__init__(
            {"samples": array},
            hint="send fewer samples, or a smaller table",
            title=title,
            alt=alt
            or f"Samples from the same noise for {cells[0]} numbers of steps and {cells[1]} values "
            "of eta.",
            all_steps=list(steps),
            all_etas=[float(eta) for eta in etas],
            quality=qualities.tolist(),
            quality_label=quality_label,
            cost=costs.reshape(cells[0], -1).tolist() if costs.size else [],
            cost_label=cost_label,
            shades=_shades(qualities).tolist(),
            extent=extent,
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("steps_index", "eta_index")
    def _index_exists(self, proposal: dict) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        most = self.arrays["samples"]["shape"][0 if name == "steps_index" else 1] - 1
        if not 0 <= value <= most:
            raise ValueError(f"{name} must be an integer from 0 to {most}, got {value}")
        return value

    @property
    def steps(self) -> int:
        """The number of steps that is chosen."""
        return self.all_steps[self.steps_index]

    @property
    def eta(self) -> float:
        """The η that is chosen."""
        return self.all_etas[self.eta_index]

    @property
    def shown(self) -> np.ndarray:
        """The chosen samples as the browser shows them: ``[n, H, W]`` in [0, 1], or ``[N, 2]``."""
        return self._cell(self.steps_index, self.eta_index)

    def _cell(self, row: int, column: int) -> np.ndarray:
        cell = self.array("samples")[row, column]
        return cell if self.extent else cell / 255

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """A few telling cells: a row for each η, more steps to the right."""
        rows = _spread(len(self.all_etas), STILL_ETAS)
        columns = _spread(len(self.all_steps), STILL_STEPS)
        figure = Figure(figsize=(1.4 * len(columns) + 0.35, 1.55 * len(rows) + 0.2))
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for axes, e in zip(grid, rows, strict=True):
            axes[0].set_ylabel(f"η = {self.all_etas[e]:g}", fontsize=8)
            for ax, s in zip(axes, columns, strict=True):
                self._draw_cell(ax, s, e)
                ax.set(xticks=[], yticks=[])
                pale_frame(ax)
                if self.quality:
                    ax.set_xlabel(f"{self.quality[s][e]:.3g}", fontsize=7, labelpad=2)
        for ax, s in zip(grid[0], columns, strict=True):
            steps = self.all_steps[s]
            ax.set_title(f"{steps} step{'s' if steps > 1 else ''}", fontsize=8)
        if self.quality and self.quality_label:
            figure.text(0.99, 0.005, f"below: {self.quality_label}", fontsize=7, ha="right")
        width, height = figure.get_size_inches()
        figure.subplots_adjust(
            left=0.3 / width, right=0.99, bottom=0.3 / height, top=1 - 0.2 / height,
            wspace=0.06, hspace=0.2,
        )  # fmt: skip
        return png(figure)

    def _draw_cell(self, ax: Axes, s: int, e: int) -> None:
        """The points of a cell, or its first images."""
        cell = self._cell(s, e)
        if self.extent:
            x0, x1, y0, y1 = self.extent
            ax.scatter(*cell.T, s=3, linewidths=0, color=PALETTE["model"])
            ax.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
            return
        images = cell[:STILL_IMAGES]
        across = min(2, len(images))
        rows, columns = images.shape[1:]
        down = -(-len(images) // across)
        mosaic = np.full((down * (rows + 1) - 1, across * (columns + 1) - 1), np.nan)  # white gaps
        for i, image in enumerate(images):
            top, left = i // across * (rows + 1), i % across * (columns + 1)
            mosaic[top : top + rows, left : left + columns] = image
        ax.imshow(mosaic, cmap=colour_map("grey"), vmin=0, vmax=1, interpolation="nearest")


def _spread(count: int, most: int) -> list[int]:
    """Up to ``most`` of 0 ... count − 1, evenly spread, the first and the last included."""
    return sorted({round(k) for k in np.linspace(0, count - 1, most)})


# -------------------------------------------------------------------------------------- arguments


def _check_axis(name: str, values: object, most: int) -> None:
    """Require a list or tuple of 1 to ``most`` values, all different."""
    listed = isinstance(values, list | tuple)
    if not listed or not 1 <= len(values) <= most or len(set(values)) < len(values):
        raise ValueError(f"{name} must be a list of 1 to {most} different values, got {values!r}")


def _samples(samples: Array, rows: int, columns: int) -> np.ndarray:
    """Images as uint8 ``[S, E, n, H, W]``, or points as float32 ``[S, E, N, 2]``."""
    wanted = f"[{rows}, {columns}, n, H, W] or [{rows}, {columns}, N, 2]"
    array = to_array("samples", samples, wanted, 4, 5, 6)
    other_size = array.shape[:2] != (rows, columns)
    no_points = array.ndim == 4 and array.shape[3] != 2
    many_channels = array.ndim == 6 and array.shape[3] != 1
    if other_size or no_points or many_channels:
        raise ValueError(f"samples must have shape {wanted}, got {list(array.shape)}")
    if array.ndim > 4:
        images = to_images("samples", array.reshape(-1, *array.shape[-2:]), count="S E n")
        return to_bytes(images).reshape(rows, columns, -1, *images.shape[1:])
    if array.shape[2] > MOST_POINTS:
        raise ValueError(
            f"samples must hold at most {MOST_POINTS} points in a cell, got {array.shape[2]}"
        )
    return array


def _numbers(name: str, values: Array | None, *shapes: tuple[int, ...]) -> np.ndarray:
    """``values`` with one of the shapes; None becomes the empty array."""
    if values is None:
        return np.empty(0)
    wanted = " or ".join(str(list(shape)) for shape in shapes)
    array = to_array(name, values, wanted, *{len(shape) for shape in shapes})
    if array.shape not in shapes:
        raise ValueError(f"{name} must have shape {wanted}, got {list(array.shape)}")
    return array.astype(float)


def _shades(quality: np.ndarray) -> np.ndarray:
    """From 0 for the largest number to 1 for the smallest, evenly in the logarithm if it exists."""
    if quality.size == 0:
        return quality
    scaled = np.log(quality) if quality.min() > 0 else quality
    low, high = scaled.min(), scaled.max()
    return (high - scaled) / (high - low) if high > low else np.ones_like(scaled)
