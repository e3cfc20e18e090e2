"""``SampleTable``: what a sampler makes of the same noise, for each pair of two choices."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.widgets.base import (
    CourseWidget,
    drawn,
    mosaic,
    pale_frame,
    png,
    to_array,
    to_bytes,
    to_images,
)
from course_lib.widgets.palette import PALETTE, colour_map
from course_lib.widgets.particle_player import square_around

__all__ = ["SampleTable"]

Array = np.ndarray | torch.Tensor | Sequence

MOST_ROWS, MOST_COLUMNS = 10, 6  # rows and columns of the table
MOST_POINTS = 300  # in a cell
STILL_COLUMNS, STILL_ROWS, STILL_IMAGES = 3, 4, 4


class SampleTable(CourseWidget):
    """A table of two choices, and the samples that belong to the cell under the reader's hand.

    All samples should start from the same noise: then what changes from cell to cell is the
    sampler's doing. The table may say how good each cell is, in a number and a colour, and what it
    costs.

    Args:
        samples: ``[R, C, n, H, W]``, ``[R, C, n, 1, H, W]`` or, in colour, ``[R, C, n, 3, H, W]``
            in [0, 1], n images for each of R rows and C columns; or ``[R, C, N, 2]``, N ≤ 300
            points.
        rows: what the rows are, and their R ≤ 10 different values, numbers or words:
            ``("steps", [5, 20, 100])``.
        columns: the same of the C ≤ 6 columns: ``("η", [0, 0.5, 1])``.
        quality: ``[R, C]``, one number for each cell; lower is better, as with a distance. The best
            is the brightest. Colours follow the logarithm where all numbers are positive.
        quality_label: what ``quality`` is.
        cost: ``[R]`` or ``[R, C]``, what a row or a cell costs, shown as a number. Where there is
            no quality, ``[R, C]`` takes its place.
        cost_label: what ``cost`` is, with its unit.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where shapes do not fit together, values are not finite, images lie
    outside [0, 1], or the samples need more than 300 KB at one byte a pixel (three in colour), four
    a point.

    ``widget.row`` and ``widget.column``, which are indices, can be read and set;
    ``widget.row_value`` and ``widget.column_value`` say what they stand for, and ``widget.shown``
    is what is shown.
    """

    module = "sample_table.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    row = traitlets.Int(0).tag(sync=True, echo_update=False)
    column = traitlets.Int(0).tag(sync=True, echo_update=False)
    row_name = traitlets.Unicode().tag(sync=True)
    column_name = traitlets.Unicode().tag(sync=True)
    row_values = traitlets.List(traitlets.Unicode()).tag(sync=True)  # as they are written
    column_values = traitlets.List(traitlets.Unicode()).tag(sync=True)
    quality = traitlets.List().tag(sync=True)  # R lists of C numbers, or empty
    quality_label = traitlets.Unicode().tag(sync=True)
    cost = traitlets.List().tag(sync=True)  # R lists of C numbers, or of one, or empty
    cost_label = traitlets.Unicode().tag(sync=True)
    shades = traitlets.List().tag(sync=True)  # R lists of C numbers, from 0 (worst) to 1 (best)
    extent = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(
        self,
        samples: Array,
        rows: tuple[str, Sequence[float | str]],
        columns: tuple[str, Sequence[float | str]],
        *,
        quality: Array | None = None,
        quality_label: str = "",
        cost: Array | None = None,
        cost_label: str = "network evaluations",
        title: str = "",
        alt: str = "",
    ) -> None:
        row_name, self._rows = _axis("rows", rows, MOST_ROWS)
        column_name, self._columns = _axis("columns", columns, MOST_COLUMNS)
        for name, text in (("quality_label", quality_label), ("cost_label", cost_label)):
            if not isinstance(text, str):
                raise ValueError(f"{name} must be a string, got {text!r}")
        cells = (len(self._rows), len(self._columns))
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
            or f"Samples for {cells[0]} values of {row_name} and {cells[1]} of {column_name}.",
            row_name=row_name,
            column_name=column_name,
            row_values=[_written(value) for value in self._rows],
            column_values=[_written(value) for value in self._columns],
            quality=qualities.tolist(),
            quality_label=quality_label,
            cost=costs.reshape(cells[0], -1).tolist() if costs.size else [],
            cost_label=cost_label,
            shades=_shades(qualities).tolist(),
            extent=extent,
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("row", "column")
    def _index_exists(self, proposal: dict) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        most = self.arrays["samples"]["shape"][0 if name == "row" else 1] - 1
        if not 0 <= value <= most:
            raise ValueError(f"{name} must be an integer from 0 to {most}, got {value}")
        return value

    @property
    def row_value(self) -> float | str:
        """The value of the row that is chosen."""
        return self._rows[self.row]

    @property
    def column_value(self) -> float | str:
        """The value of the column that is chosen."""
        return self._columns[self.column]

    @property
    def shown(self) -> np.ndarray:
        """The chosen samples as the browser shows them: ``[n, H, W]`` or ``[n, 3, H, W]`` in
        [0, 1], or ``[N, 2]``.
        """
        return self._cell(self.row, self.column)

    def _cell(self, row: int, column: int) -> np.ndarray:
        cell = self.array("samples")[row, column]
        return cell if self.extent else cell / 255

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """A few telling cells, the table on its side: a column becomes a row of the picture."""
        across = _spread(len(self._rows), STILL_ROWS)
        down = _spread(len(self._columns), STILL_COLUMNS)
        figure = Figure(figsize=(1.4 * len(across) + 0.35, 1.55 * len(down) + 0.2))
        grid = figure.subplots(len(down), len(across), squeeze=False)
        for axes, column in zip(grid, down, strict=True):
            axes[0].set_ylabel(f"{self.column_name} = {self.column_values[column]}", fontsize=8)
            for ax, row in zip(axes, across, strict=True):
                self._draw_cell(ax, row, column)
                ax.set(xticks=[], yticks=[])
                pale_frame(ax)
                if self.quality:
                    ax.set_xlabel(f"{self.quality[row][column]:.3g}", fontsize=7, labelpad=2)
        for ax, row in zip(grid[0], across, strict=True):
            ax.set_title(f"{self.row_name} = {self.row_values[row]}", fontsize=8)
        if self.quality and self.quality_label:
            figure.text(0.99, 0.005, f"below: {self.quality_label}", fontsize=7, ha="right")
        width, height = figure.get_size_inches()
        figure.subplots_adjust(
            left=0.3 / width, right=0.99, bottom=0.3 / height, top=1 - 0.2 / height,
            wspace=0.06, hspace=0.2,
        )  # fmt: skip
        return png(figure, colours=64 if len(self.arrays["samples"]["shape"]) < 6 else 256)

    def _draw_cell(self, ax: Axes, row: int, column: int) -> None:
        """The points of a cell, or its first images."""
        cell = self._cell(row, column)
        if self.extent:
            x0, x1, y0, y1 = self.extent
            ax.scatter(*cell.T, s=3, linewidths=0, color=PALETTE["model"])
            ax.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
            return
        images = cell[:STILL_IMAGES]
        whole = drawn(mosaic(images, min(2, len(images))))
        ax.imshow(whole, cmap=colour_map("grey"), vmin=0, vmax=1, interpolation="nearest")


def _spread(count: int, most: int) -> list[int]:
    """Up to ``most`` of 0 ... count − 1, evenly spread, the first and the last included."""
    return sorted({round(k) for k in np.linspace(0, count - 1, most)})


# -------------------------------------------------------------------------------------- arguments


def _axis(name: str, axis: object, most: int) -> tuple[str, list[float | str]]:
    """A name and 1 to ``most`` values, all different."""
    wanted = f"{name} must be a name and a list of 1 to {most} different values"
    if not isinstance(axis, list | tuple) or len(axis) != 2 or not isinstance(axis[0], str):
        raise ValueError(f"{wanted}, got {axis!r}")
    what, values = axis
    listed = isinstance(values, list | tuple)
    if not listed or not 1 <= len(values) <= most or len(set(values)) < len(values):
        raise ValueError(f"{wanted}, got {axis!r}")
    for i, value in enumerate(values):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not isinstance(value, str) and not (number and math.isfinite(value)):
            raise ValueError(f"{name}[1][{i}] must be a finite number or a string, got {value!r}")
    return what, list(values)


def _written(value: float | str) -> str:
    """A value as it stands at the edge of the table."""
    if isinstance(value, str):
        return value
    return (str(value) if isinstance(value, int) else f"{value:.4g}").replace("-", "−")


def _samples(samples: Array, rows: int, columns: int) -> np.ndarray:
    """Images as uint8 ``[R, C, n, H, W]`` or ``[R, C, n, 3, H, W]``, or points as float32
    ``[R, C, N, 2]``.
    """
    wanted = f"[{rows}, {columns}, n, H, W] or [{rows}, {columns}, N, 2]"
    array = to_array("samples", samples, wanted, 4, 5, 6)
    other_size = array.shape[:2] != (rows, columns)
    no_points = array.ndim == 4 and array.shape[3] != 2
    many_channels = array.ndim == 6 and array.shape[3] not in (1, 3)
    if other_size or no_points or many_channels:
        raise ValueError(f"samples must have shape {wanted}, got {list(array.shape)}")
    if array.ndim > 4:
        each = array.reshape(-1, *array.shape[3:])
        images = to_images("samples", each, count="R C n", colour=True)
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
