"""``Voronoi``: a codebook in the plane while it trains, and an output pulled through it."""

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_number
from course_lib.widgets.base import (
    Extent,
    PlayerWidget,
    check_extent,
    check_labels,
    pale_frame,
    png,
    to_array,
)
from course_lib.widgets.palette import PALETTE

__all__ = ["Voronoi", "nearest_codes", "perplexity", "voronoi_cells"]

Array = np.ndarray | torch.Tensor

MAX_CODES, MAX_POINTS = 64, 2000

# ------------------------------------------------------------------------------- the mathematics


def nearest_codes(points: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The index of the code nearest to each point; of equally near ones the first.

    Args:
        points: ``[..., 2]``.
        codes: ``[K, 2]``.

    Returns whole numbers of the shape ``[...]``.
    """
    return ((points[..., None, :] - codes) ** 2).sum(-1).argmin(-1)


def perplexity(counts: np.ndarray) -> float:
    """How many codes are in use, in effect: exp of the entropy of the counts [K], 1 to K."""
    share = counts[counts > 0] / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def voronoi_cells(codes: np.ndarray, extent: Sequence[float]) -> list[np.ndarray]:
    """The region of each code, cut out of the box (x0, x1, y0, y1).

    Args:
        codes: ``[K, 2]``. Of several codes at one place the first has the region.
        extent: the box.

    Returns K polygons ``[V, 2]``, counterclockwise; empty (V = 0) where no place in the box is
    nearest to the code.
    """
    x0, x1, y0, y1 = extent
    cells = []
    for k, code in enumerate(codes):
        cell = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        for j, other in enumerate(codes):
            if j == k:
                continue
            away = other - code
            if not away.any():
                cell = cell[:0] if j < k else cell
            else:
                cell = _clip(cell, away, float(away @ (code + other)) / 2)
        cells.append(cell)
    return cells


def _clip(cell: np.ndarray, normal: np.ndarray, bound: float) -> np.ndarray:
    """The part of a convex polygon where normal · x ≤ bound."""
    over = cell @ normal - bound
    kept = []
    for i in range(len(cell)):
        j = (i + 1) % len(cell)
        if over[i] <= 0:
            kept.append(cell[i])
        if over[i] * over[j] < 0:
            kept.append(cell[i] + (cell[j] - cell[i]) * over[i] / (over[i] - over[j]))
    return np.array(kept).reshape(-1, 2)


# --------------------------------------------------------------------------------------- the widget


class Voronoi(PlayerWidget):
    """A codebook of vector quantization while it trains, with the cell of each code.

    A cell is the brighter the more encoder outputs fall into it; a code that none falls to is dead,
    and crossed out. One more output, z_e, can be dragged: its code e_k is what the decoder gets.
    The decoder's gradient there, toward a target that can be dragged, too, is handed to z_e as it
    is: the straight-through estimator. "Step" moves z_e along it and along the pull of the
    commitment loss, a descent on ½‖target − z_q‖² + β‖z_e − e_k‖² with a step of 0.1.

    Args:
        codebooks: ``[T, K, 2]``, the K ≤ 64 codes after each of T stored steps.
        points: ``[T, N, 2]``, the N ≤ 2,000 encoder outputs at these steps, or ``[N, 2]`` where
            they do not move. Up to 500 move smoothly.
        labels: a mark for each point, such as the class of its image: N whole numbers or strings
            of at most two characters, drawn in place of dots.
        step_labels: T names of the steps.
        extent: (x0, x1, y0, y1), the part of the plane to show; by default a square that holds all
            codes and nearly all points of all steps.
        title: shown above the plot.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where shapes do not fit together, values are not finite, or the arrays
    need more than 300 KB at two bytes a number.

    ``widget.step``, ``widget.playing``, ``widget.z`` and ``widget.target`` (places [x, y]) and
    ``widget.beta`` (the weight of the commitment loss, 0 to 2) can be read and set;
    ``widget.code``, the index of the code nearest to z, can be read.
    """

    module = "voronoi.js"

    # Where an older place came back from the kernel during a drag, the handle would jump: the
    # kernel does not echo what the browser told it.
    z = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    target = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    beta = traitlets.Float(0.25).tag(sync=True, echo_update=False)
    code = traitlets.Int(0, read_only=True).tag(sync=True)
    marks = traitlets.List(traitlets.Unicode()).tag(sync=True)
    extent = traitlets.List(traitlets.Float()).tag(sync=True)
    start = traitlets.List().tag(sync=True)  # [z, target, β] that "Reset" brings back

    def __init__(
        self,
        codebooks: Array,
        points: Array,
        *,
        labels: Sequence[int | str] | Array | None = None,
        step_labels: Sequence[str] | None = None,
        extent: Sequence[float] | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        books = _codebooks(codebooks)
        steps, size = books.shape[:2]
        outputs = _points(points, steps)
        count = outputs.shape[1]
        marks = _marks(labels, count)
        step_labels = check_labels("step_labels", step_labels, steps) or None
        box = _extent(books, outputs) if extent is None else check_extent("extent", extent)
        z, target = _across(box, 0.3, 0.62), _across(box, 0.66, 0.4)
        super().__init__(
            {"codebooks": books, "points": outputs},
            n_steps=steps,
            labels=step_labels,
            hint="send fewer points or steps",
            title=title,
            alt=alt
            or f"A codebook of {size} codes and {count} encoder outputs in the plane, in {steps} "
            "steps of training; each code has its cell.",
            z=z,
            target=target,
            start=[z, target, 0.25],
            marks=marks,
            extent=list(box),
        )

    @traitlets.validate("z", "target")
    def _inside(self, proposal: dict) -> list[float]:
        name, value = proposal["trait"].name, proposal["value"]
        x0, x1, y0, y1 = self.extent
        if len(value) != 2 or not (x0 <= value[0] <= x1 and y0 <= value[1] <= y1):
            raise ValueError(
                f"{name} must be a place [x, y] with x from {x0:.4g} to {x1:.4g} and y from "
                f"{y0:.4g} to {y1:.4g}, got {value!r}"
            )
        return value

    @traitlets.validate("beta")
    def _weight(self, proposal: dict) -> float:
        value = proposal["value"]
        check_number("beta", value, minimum=0)
        if value > 2:
            raise ValueError(f"beta must be a number from 0 to 2, got {value!r}")
        return value

    @traitlets.observe("z", "step")
    def _follow(self, change: dict) -> None:
        self.set_trait("code", int(nearest_codes(np.array(self.z), self.codes)))

    @property
    def codes(self) -> np.ndarray:
        """The codes at the present step, as the browser sees them: float64 [K, 2]."""
        return self.state_at("codebooks", self.step)

    @property
    def counts(self) -> np.ndarray:
        """How many points each code has at the present step, [K]."""
        return self._counts_at(self.step)

    @property
    def perplexity(self) -> float:
        """Exp of the entropy of the codes' use at the present step."""
        return perplexity(self.counts)

    def _counts_at(self, step: float) -> np.ndarray:
        codes, points = self.state_at("codebooks", step), self.state_at("points", step)
        return np.bincount(nearest_codes(points, codes), minlength=len(codes))

    # ---------------------------------------------------------------------------- the still picture

    def still(self) -> bytes:
        """The first, the middle and the last step, side by side."""
        steps = self.telling_steps()
        figure = Figure(figsize=(2.35 * len(steps) + 0.1, 2.75))
        figure.subplots_adjust(left=0.02, right=0.98, bottom=0.03, top=0.87, wspace=0.06)
        for ax, step in zip(figure.subplots(1, len(steps), squeeze=False)[0], steps, strict=True):
            self._draw_step(ax, step)
        return png(figure, colours=128)

    def _draw_step(self, ax: object, step: int) -> None:
        x0, x1, y0, y1 = self.extent
        codes, points = self.state_at("codebooks", step), self.state_at("points", step)
        counts = self._counts_at(step)
        for cell, count in zip(voronoi_cells(codes, self.extent), counts, strict=True):
            if len(cell):
                alpha = 0.5 * np.sqrt(count / counts.max())
                ax.fill(*cell.T, color=PALETTE["model"], alpha=alpha, lw=0)
                ax.fill(*cell.T, fill=False, ec="#8a919b", lw=0.5)
        ax.scatter(
            *points.T,
            s=max(3, min(9, 900 / len(points))),
            color=PALETTE["latent"],
            linewidths=0,
            zorder=3,
        )
        for used, marker, colour, area in (
            (counts > 0, "o", PALETTE["model"], 26),
            (counts == 0, "X", PALETTE["error"], 44),
        ):
            ax.scatter(
                *codes[used].T, s=area, marker=marker, color=colour, ec="white", lw=0.5, zorder=4
            )
        name = self.step_name(step)
        in_use = f"{(counts > 0).sum()} of {len(codes)} codes in use"
        ax.set_title(f"{name}\n{in_use}, perplexity {perplexity(counts):.1f}", fontsize=7)
        ax.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal", xticks=[], yticks=[])
        pale_frame(ax)


# -------------------------------------------------------------------------------------- arguments


def _codebooks(codebooks: Array) -> np.ndarray:
    wanted = f"[T, K, 2] with K from 1 to {MAX_CODES}"
    array = to_array("codebooks", codebooks, wanted, 3)
    if array.shape[2] != 2 or array.shape[1] > MAX_CODES:
        raise ValueError(f"codebooks must have shape {wanted}, got {list(array.shape)}")
    return array


def _points(points: Array, steps: int) -> np.ndarray:
    wanted = f"[{steps}, N, 2] or [N, 2] with N from 1 to {MAX_POINTS:,}"
    array = to_array("points", points, wanted, 2, 3)
    array = array[None] if array.ndim == 2 else array  # one row stands for every step
    if array.shape[0] not in (1, steps) or array.shape[2] != 2 or array.shape[1] > MAX_POINTS:
        raise ValueError(f"points must have shape {wanted}, got {list(np.shape(points))}")
    return array


def _marks(labels: Sequence[int | str] | Array | None, count: int) -> list[str]:
    if labels is None:
        return []
    wanted = f"labels must be {count} whole numbers or strings of one or two characters"
    if isinstance(labels, np.ndarray | torch.Tensor):
        labels = labels.tolist()
    if not isinstance(labels, list | tuple) or len(labels) != count:
        length = f"{len(labels)} of them" if isinstance(labels, list | tuple) else repr(labels)
        raise ValueError(f"{wanted}, got {length}")
    for label in labels:
        fits = isinstance(label, int | np.integer | str) and not isinstance(label, bool)
        if not fits or not 1 <= len(str(label)) <= 2:
            raise ValueError(f"{wanted}, got {label!r}")
    return [str(label) for label in labels]


def _extent(books: np.ndarray, points: np.ndarray) -> Extent:
    """A square around all codes and all but the outermost 0.4 % of the points, with a margin."""
    flat = points.reshape(-1, 2)
    codes = books.reshape(-1, 2)
    low = np.minimum(np.quantile(flat, 0.002, axis=0), codes.min(0))
    high = np.maximum(np.quantile(flat, 0.998, axis=0), codes.max(0))
    half = max(float((high - low).max()) / 2 * 1.08, 1e-3)
    x, y = ((low + high) / 2).tolist()
    return (x - half, x + half, y - half, y + half)


def _across(box: Extent, right: float, up: float) -> list[float]:
    """The place so far to the right and up in the box."""
    x0, x1, y0, y1 = box
    return [x0 + right * (x1 - x0), y0 + up * (y1 - y0)]
