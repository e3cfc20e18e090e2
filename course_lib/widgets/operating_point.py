"""``OperatingPoint``: series of points on a chart, and the samples of the one that is picked."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.checks import check_one_of
from course_lib.widgets.base import (
    LINE,
    CourseWidget,
    check_labels,
    drawn,
    mosaic,
    pale_frame,
    png,
    to_array,
    to_bytes,
    to_images,
)
from course_lib.widgets.palette import CLASS_COLOURS, colour_map

__all__ = ["OperatingPoint"]

Array = np.ndarray | torch.Tensor | Sequence

MOST_SERIES = 12
MOST_POINTS = 60  # of a series
STILL_IMAGES = 16
# matplotlib's marks and lines, in the order of those in parts/chart.js.
MARKS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", ":")


class OperatingPoint(CourseWidget):
    """Points on curves, such as one price paid for another; pick one, and see its samples.

    Every series is a curve through points in the order in which they are given: a sampler at more
    and more calls of its network, a model at stronger and stronger guidance. The reader clicks a
    point or drags along a curve; the numbers of the point stand below the chart in words, and
    beside it the sheet of samples that belongs to it. A series has a colour, a mark and a line of
    its own, and can be switched off.

    Args:
        series: names and their points, ``[P, 2]`` each: at most 12 series of at most 60 points.
        sheets: names and the samples of their points: for each series P sheets, each of them
            ``[n, H, W]``, ``[n, 1, H, W]`` or, in colour, ``[n, 3, H, W]`` in [0, 1], or None where
            there are no samples. A series that is missing has none. All sheets have the same shape.
        x_label, y_label: what the numbers are.
        labels: names and what to call their points, P strings each: ``["w = 0", "w = 1"]``.
        log_x, log_y: whether an axis is logarithmic; then its numbers must be positive.
        chosen: (name, k), the point to start with: the k-th of a series. By default the first that
            has samples.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument is not as described, or the sheets need more than 300 KB
    at one byte a pixel, three in colour.

    ``widget.chosen`` (a name and an index) and ``widget.shown`` (the names of the series that are
    switched on) can be read and set. ``widget.point`` is the chosen point, ``widget.sheet`` its
    samples as the browser shows them, ``widget.words`` what is said of it.

    Example:
        Calls against distance, from the table of a card; guidance is the same with accuracy over
        diversity and ``labels={"free": ["w = 0", "w = 1", ...]}``. To compare *intervals* of
        guidance, each is a series: ``{"everywhere": ..., "σ from 0.3 to 5": ...}``. Two choices at
        once, such as class by w, are a ``SampleTable``.

        >>> widget = OperatingPoint(
        ...     {"Heun": [[9, 40.0], [19, 6.0], [35, 2.5]], "DDIM": [[10, 30.0], [50, 4.0]]},
        ...     x_label="network calls", y_label="feature distance", log_x=True, log_y=True,
        ... )
        >>> widget.chosen = ["Heun", 2]
        >>> widget.words
        'Heun: network calls 35, feature distance 2.5.'
    """

    module = "operating_point.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    chosen = traitlets.List().tag(sync=True, echo_update=False)  # [name, index]
    shown = traitlets.List(traitlets.Unicode()).tag(sync=True, echo_update=False)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    points = traitlets.List().tag(sync=True)  # of each series a list of [x, y]
    titles = traitlets.List().tag(sync=True)  # of each series a list of names of points
    said = traitlets.List().tag(sync=True)  # the same, with their numbers
    sheet_of = traitlets.List().tag(sync=True)  # the same: which sheet, -1 where there is none
    log = traitlets.List(traitlets.Bool()).tag(sync=True)  # of x and y
    x_label = traitlets.Unicode().tag(sync=True)
    y_label = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        series: Mapping[str, Array],
        sheets: Mapping[str, Array | Sequence[Array | None]] | None = None,
        *,
        x_label: str,
        y_label: str,
        labels: Mapping[str, Sequence[str]] | None = None,
        log_x: bool = False,
        log_y: bool = False,
        chosen: tuple[str, int] | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        for name, text in (("x_label", x_label), ("y_label", y_label)):
            if not isinstance(text, str):
                raise ValueError(f"{name} must be a string, got {text!r}")
        log = [bool(log_x), bool(log_y)]
        points = _series(series, log)
        names = list(points)
        titles = _titles(labels, points)
        images, sheet_of = _sheets(sheets, points)
        super().__init__(
            {} if images is None else {"sheets": images},
            hint="send fewer images a sheet, or sheets of fewer points",
            title=title,
            alt=alt or f"{y_label} against {x_label} for {', '.join(names)}.",
            names=names,
            points=[values.tolist() for values in points.values()],
            titles=titles,
            said=[
                [
                    f"{title}: {x_label} {_written(x)}, {y_label} {_written(y)}."
                    for title, (x, y) in zip(row, values.tolist(), strict=True)
                ]
                for row, values in zip(titles, points.values(), strict=True)
            ],
            sheet_of=sheet_of,
            log=log,
            x_label=x_label,
            y_label=y_label,
            shown=names,
        )
        seen = [
            [name, k]
            for name, of in zip(names, sheet_of, strict=True)
            for k, which in enumerate(of)
            if which >= 0
        ]
        self.chosen = [*seen, [names[0], 0]][0] if chosen is None else list(chosen)

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("chosen")
    def _chosen_exists(self, proposal: dict) -> list:
        chosen = proposal["value"]
        if len(chosen) != 2 or chosen[0] not in self.names:
            raise ValueError(
                f"chosen must be a name and an index, the name one of {self.names}, got {chosen!r}"
            )
        name, k = chosen
        last = len(self.points[self.names.index(name)]) - 1
        if not isinstance(k, int) or isinstance(k, bool) or not 0 <= k <= last:
            raise ValueError(
                f"the index of a point of {name!r} must lie in 0 ... {last}, got {k!r}"
            )
        return chosen

    @traitlets.validate("shown")
    def _shown_exist(self, proposal: dict) -> list[str]:
        shown = proposal["value"]
        if not shown:
            raise ValueError("shown must name at least one series, got []")
        for name in shown:
            check_one_of("shown", name, self.names)
        return shown

    @property
    def point(self) -> tuple[float, float]:
        """The chosen point, (x, y)."""
        s, k = self._place
        return tuple(self.points[s][k])

    @property
    def words(self) -> str:
        """What is said of the chosen point."""
        s, k = self._place
        return self.said[s][k]

    @property
    def sheet(self) -> np.ndarray | None:
        """The samples of the chosen point as the browser shows them, ``[n, H, W]`` or
        ``[n, 3, H, W]`` in [0, 1], or None.
        """
        s, k = self._place
        which = self.sheet_of[s][k]
        return None if which < 0 else self.array("sheets")[which] / 255

    @property
    def _place(self) -> tuple[int, int]:
        return self.names.index(self.chosen[0]), self.chosen[1]

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The chart, and beside it the samples of the chosen point."""
        sheet = self.sheet
        figure = Figure(figsize=(5.0, 3.6) if sheet is None else (7.6, 3.6))
        panels = figure.subplots(1, 1 if sheet is None else 2, squeeze=False)[0]
        self._draw_chart(panels[0])
        if sheet is not None:
            s, k = self._place
            images = sheet[:STILL_IMAGES]
            whole = drawn(mosaic(images, math.ceil(math.sqrt(len(images)))))
            panels[1].imshow(whole, cmap=colour_map("grey"), vmin=0, vmax=1)
            panels[1].set_title(self.titles[s][k], fontsize=8)
            panels[1].axis("off")
        figure.subplots_adjust(left=0.09, right=0.98, bottom=0.13, top=0.93, wspace=0.08)
        return png(figure, colours=256)

    def _draw_chart(self, ax: Axes) -> None:
        colours = CLASS_COLOURS["light"]
        for s, name in enumerate(self.names):
            if name not in (*self.shown, self.chosen[0]):
                continue
            mark, line = MARKS[s % len(MARKS)], LINES[s // len(MARKS) % len(LINES)]
            look = {"color": colours[s % len(colours)], "marker": mark, "ls": line}
            ax.plot(*np.array(self.points[s]).T, label=name, lw=1.2, ms=4, **look)
        x, y = self.point
        ax.plot(x, y, "o", mfc="none", mec="#1f2328", ms=11, mew=1.5)
        scales = ["log" if one else "linear" for one in self.log]
        ax.set(xscale=scales[0], yscale=scales[1])
        ax.set_xlabel(self.x_label, fontsize=8, labelpad=1)
        ax.set_ylabel(self.y_label, fontsize=8, labelpad=1)
        if len(self.names) > 1:
            ax.legend(fontsize=6, edgecolor=LINE, handlelength=3)
        ax.tick_params(which="both", labelsize=6, length=2, color=LINE)
        pale_frame(ax)


# -------------------------------------------------------------------------------------- arguments


def _written(value: float) -> str:
    """A number as it is said: four digits, with a true minus sign."""
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3e}".replace("-", "−")
    text = np.format_float_positional(value, precision=4, fractional=False, trim="-")
    return text.replace("-", "−")


def _series(series: Mapping[str, Array], log: Sequence[bool]) -> dict[str, np.ndarray]:
    """Names and their points, float64 ``[P, 2]``."""
    wanted = f"series must be 1 to {MOST_SERIES} names and their points"
    if not isinstance(series, Mapping) or not 1 <= len(series) <= MOST_SERIES:
        count = len(series) if isinstance(series, Mapping) else repr(series)
        raise ValueError(f"{wanted}, got {count}")
    points = {}
    for name, values in series.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"{wanted}, got a name {name!r}")
        own = f"series[{name!r}]"
        array = to_array(own, values, "[P, 2]", 2)
        if array.shape[1] != 2 or len(array) > MOST_POINTS:
            raise ValueError(
                f"{own} must be at most {MOST_POINTS} points [P, 2], got {list(array.shape)}"
            )
        for axis, flag in zip("xy", log, strict=True):
            numbers = array[:, "xy".index(axis)]
            if flag and numbers.min() <= 0:
                raise ValueError(
                    f"{own} must hold positive {axis} on a log axis, got {numbers.min():.3g}"
                )
        # As given, in full: 16 bits, or 32, would be seen in what is written.
        points[name] = np.array(_plain(values), dtype=np.float64)
    return points


def _plain(values: Array) -> Array:
    return values.detach().cpu().double().numpy() if isinstance(values, torch.Tensor) else values


def _known(name: str, given: Mapping | None, points: Mapping[str, np.ndarray]) -> Mapping:
    """A mapping from names of series; None becomes the empty one."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{name} must be names of series and what belongs to them, got {given!r}")
    for one in given:
        check_one_of(f"a name in {name}", one, points)
    return given


def _titles(labels: Mapping | None, points: Mapping[str, np.ndarray]) -> list[list[str]]:
    """The name of each point: that of its series, and its own."""
    given = _known("labels", labels, points)
    titles = []
    for name, values in points.items():
        own = check_labels(f"labels[{name!r}]", given.get(name), len(values))
        titles.append([f"{name}, {label}" for label in own] or [name] * len(values))
    return titles


def _sheets(
    sheets: Mapping | None, points: Mapping[str, np.ndarray]
) -> tuple[np.ndarray | None, list[list[int]]]:
    """All sheets as uint8 ``[S, n, H, W]`` or ``[S, n, 3, H, W]``, and which of them belongs to
    each point, or −1.
    """
    given = _known("sheets", sheets, points)
    found: list[np.ndarray] = []
    sheet_of = []
    for name, values in points.items():
        own = given.get(name)
        if own is None:
            sheet_of.append([-1] * len(values))
            continue
        if len(own) != len(values):
            raise ValueError(
                f"sheets[{name!r}] must hold {len(values)} sheets or None, one a point, "
                f"got {len(own)}"
            )
        row = []
        for k, sheet in enumerate(own):
            if sheet is None:
                row.append(-1)
                continue
            images = to_images(f"sheets[{name!r}][{k}]", sheet, count="n", colour=True)
            if found and images.shape != found[0].shape:
                raise ValueError(
                    f"all sheets must have the same shape, got {list(found[0].shape)} and "
                    f"{list(images.shape)} in sheets[{name!r}][{k}]"
                )
            row.append(len(found))
            found.append(to_bytes(images))
        sheet_of.append(row)
    return (np.stack(found) if found else None), sheet_of
