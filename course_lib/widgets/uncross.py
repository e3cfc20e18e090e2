"""``Uncross``: pairs of points moved by hand, rectified and reflowed until their lines no longer
meet.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_number
from course_lib.widgets.base import (
    LINE,
    PlayerWidget,
    check_extent,
    pale_frame,
    png,
    to_array,
)
from course_lib.widgets.pairs import mean_velocity, way_through
from course_lib.widgets.palette import PALETTE

__all__ = ["Uncross"]

Array = np.ndarray | torch.Tensor | Sequence

STEPS = 50  # of time, from t = 1 to t = 0, and of the solver
MOST_PAIRS = 12  # so that a frame of six flows takes no longer than it may
MOST_K = 5
WIDTHS = (0.05, 1.0)


class Uncross(PlayerWidget):
    """Pairs in the plane that a reader moves, and what rectified flow makes of them.

    Source and target of the i-th pair, x_1 and x_0, are joined by a straight line, on which it is
    at x_0 + t (x_1 − x_0) at the time t. The mean of x_1 − x_0 over the pairs that pass a place,

        v(x, t) = Σ_i r_i (x_1,i − x_0,i),   r_i ∝ exp(−‖x − x_i(t)‖² / 2 width²),

    is the velocity of a flow: exact for pairs that are blurred by a Gaussian. "Rectify" carries
    each x_1 along it from t = 1 to 0, where it becomes one of a new pair; "Reflow" does the same
    with the new pairs.

    Two pairs *meet* where they come to one place at one time: nearer than ``width`` on the way,
    though not at its ends. A flow has one velocity there, so its ways can't; these meetings are
    what vanishes. Lines that *cross* in the picture at different times are counted apart: a flow
    may keep them.

    Reference:
        Liu, Gong, Liu 2023, https://arxiv.org/abs/2209.03003, figure 2 and sections 2 and 3.

    Args:
        x0: the targets, ``[N, 2]``, at most 12.
        x1: the sources, ``[N, 2]``: ``x1[i]`` belongs to ``x0[i]`` at first.
        width: of the Gaussian around a line, from 0.05 to 1.
        k: how often the pairs are rectified at first, 0 to 5.
        t: the first time.
        extent: (x0, x1, y0, y1), the part of the plane that is shown; by default a square around
            all points, with room to move them.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument is not as described.

    ``widget.x0`` and ``widget.x1`` (the pairs as given or moved by hand), ``widget.k``,
    ``widget.width``, ``widget.step`` (a float, 0 ... 50; ``widget.t`` is the time, 1 at step 0) and
    ``widget.playing`` can be read and set. ``widget.pairs`` are the pairs after k times,
    ``widget.velocity(x, t)`` their mean velocity, ``widget.ways`` where it takes each x_1, and
    ``widget.rows`` what is counted for 0 ... k.

    Example:
        >>> lines = Uncross([[-1, -1], [-1, 1]], [[1, 1], [1, -1]], k=1)
        >>> [row["meetings"] for row in lines.rows]
        [1, 0]
    """

    module = "uncross.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    x0 = traitlets.List().tag(sync=True, echo_update=False)
    x1 = traitlets.List().tag(sync=True, echo_update=False)
    k = traitlets.Int(0).tag(sync=True, echo_update=False)
    width = traitlets.Float(0.2).tag(sync=True, echo_update=False)
    first = traitlets.Dict().tag(sync=True)  # what "Reset" brings back
    extent = traitlets.List(traitlets.Float()).tag(sync=True)
    most_k = traitlets.Int(MOST_K, read_only=True).tag(sync=True)
    widths = traitlets.List(list(WIDTHS), read_only=True).tag(sync=True)

    def __init__(
        self,
        x0: Array,
        x1: Array,
        *,
        width: float = 0.2,
        k: int = 0,
        t: float = 1.0,
        extent: Sequence[float] | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        targets = _points("x0", x0, None)
        sources = _points("x1", x1, len(targets))
        check_number("t", t, minimum=0, maximum=1)
        shown = _room_for(targets, sources) if extent is None else check_extent("extent", extent)
        times = 1 - np.arange(STEPS + 1) / STEPS
        first = {"x0": targets.tolist(), "x1": sources.tolist(), "width": width}
        self._count = len(targets)
        super().__init__(
            {},
            n_steps=STEPS + 1,
            labels=[f"t = {time:.2f}" for time in times],
            hint="send fewer pairs",
            title=title,
            alt=alt
            or f"{len(targets)} pairs of a source and a target joined by straight lines, and the "
            "flow of their mean velocity.",
            **first,
            k=k,
            first=first,
            extent=list(shown),
        )
        self.step = (1 - t) * STEPS

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("x0", "x1")
    def _points_are_as_many(self, proposal: dict) -> list[list[float]]:
        return _points(proposal["trait"].name, proposal["value"], self._count).tolist()

    @traitlets.validate("k")
    def _k_exists(self, proposal: dict) -> int:
        check_int("k", proposal["value"], minimum=0, maximum=MOST_K)
        return proposal["value"]

    @traitlets.validate("width")
    def _width_in_range(self, proposal: dict) -> float:
        low, high = WIDTHS
        check_number("width", proposal["value"], minimum=low, maximum=high)
        return proposal["value"]

    @property
    def t(self) -> float:
        """The time that is shown: 1 is at the sources, 0 at the targets."""
        return 1 - self.step / STEPS

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """x_0 and x_1 ``[N, 2]`` of the pairs that are shown: after k times."""
        return self._chain(self.k)[-1]

    @property
    def ways(self) -> np.ndarray:
        """Where the mean velocity of the pairs that are shown takes each x_1, ``[51, N, 2]``."""
        return self._flow(*self.pairs)

    @property
    def rows(self) -> list[dict[str, float | None]]:
        """What is counted for the pairs after 0 ... k times.

        Each of ``"meetings"``, ``"crossings"``, the mean ``"cost"`` ‖x_1 − x_0‖², and the
        ``"straightness"`` of the flow that made them, ∫ ‖(x_1 − x_0) − dx/dt‖² dt: 0 where its ways
        are straight. Pairs that were given have none.
        """
        return self._rows(self.k)

    def velocity(self, x: Array, t: float) -> np.ndarray:
        """v(x, t) of the pairs that are shown, float64 ``[..., 2]``."""
        return mean_velocity(np.asarray(x, dtype=np.float64), t, *self.pairs, self.width)

    def _flow(self, x0: np.ndarray, x1: np.ndarray) -> np.ndarray:
        return way_through(x1, 1.0, 0.0, x0, x1, self.width, STEPS)

    def _chain(self, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The pairs after 0 ... k times."""
        x1 = np.array(self.x1)
        found = [(np.array(self.x0), x1)]
        for _ in range(k):
            found.append((self._flow(*found[-1])[-1], x1))
        return found

    def _rows(self, most: int) -> list[dict[str, float | None]]:
        found, straight = [], None
        for k, (x0, x1) in enumerate(self._chain(most)):
            meetings, crossings = len(meeting_places(x0, x1, self.width)), count_crossings(x0, x1)
            cost = float(((x1 - x0) ** 2).sum(1).mean())
            row = {"k": k, "meetings": meetings, "crossings": crossings, "cost": cost}
            found.append(row | {"straightness": straight})
            straight = _straightness(self._flow(x0, x1))
        return found

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The lines as they are, rectified, and reflowed, each with what is counted."""
        figure = Figure(figsize=(9.4, 3.7))
        chain, rows = self._chain(2), self._rows(2)
        names = ["pairs", "rectified: k = 1", "reflowed: k = 2"]
        for ax, name, pairs, row in zip(figure.subplots(1, 3), names, chain, rows, strict=True):
            self._draw(ax, *pairs)
            counts = f"{row['meetings']} meet, {row['crossings']} cross, cost {row['cost']:.2f}"
            straight = row["straightness"]
            counts += "" if straight is None else f", S = {straight:.2g}"
            ax.set_title(f"{name}\n{counts}", fontsize=8)
        figure.tight_layout(pad=0.6)
        return png(figure)

    def _draw(self, ax: Axes, x0: np.ndarray, x1: np.ndarray) -> None:
        for ends in zip(x0, x1, strict=True):
            ax.plot(*np.stack(ends).T, color=LINE, lw=1.0, zorder=1)
        for way in self._flow(x0, x1).swapaxes(0, 1):
            ax.plot(*way.T, color=PALETTE["model"], lw=1.0, zorder=2)
        ax.scatter(*np.array(self.x0).T, s=40, facecolors="none", edgecolors=PALETTE["data"])
        ax.scatter(*x0.T, s=12, color=PALETTE["data"], zorder=3)
        ax.scatter(*x1.T, s=18, color=PALETTE["noise"], zorder=3)
        places = meeting_places(x0, x1, self.width)
        if len(places):
            ax.scatter(*places.T, s=46, facecolors="none", edgecolors=PALETTE["error"], zorder=4)
        left, right, low, high = self.extent
        ax.set(xlim=(left, right), ylim=(low, high), aspect="equal")
        ax.tick_params(labelsize=6, length=2, color=LINE)
        pale_frame(ax)


# ------------------------------------------------------------------------------------ the counts


def meeting_places(x0: np.ndarray, x1: np.ndarray, width: float) -> np.ndarray:
    """The places ``[M, 2]`` where two pairs meet: at one time nearer than ``width`` to each other,
    and farther apart at both ends of their lines.
    """
    found = []
    for i, j in combinations(range(len(x0)), 2):
        start, by = x0[i] - x0[j], (x1[i] - x0[i]) - (x1[j] - x0[j])
        speed = by @ by
        t = -(start @ by) / speed if speed > 0 else 0.0
        apart = [np.linalg.norm(start + time * by) for time in (0, t, 1)]
        if 0 < t < 1 and apart[1] < width <= min(apart[0], apart[2]):
            found.append((x0[i] + x0[j] + t * (x1[i] - x0[i] + x1[j] - x0[j])) / 2)
    return np.array(found).reshape(-1, 2)


def count_crossings(x0: np.ndarray, x1: np.ndarray) -> int:
    """How many of the lines from ``x0`` to ``x1`` cross in the picture, at whatever times."""
    by = x1 - x0

    def side(i: int, place: np.ndarray) -> float:
        """On which side of line i a place lies: the sign."""
        right, up = place - x0[i]
        return by[i, 0] * up - by[i, 1] * right

    def cuts(i: int, j: int) -> bool:
        return side(i, x0[j]) * side(i, x1[j]) < 0

    return sum(int(cuts(i, j) and cuts(j, i)) for i, j in combinations(range(len(x0)), 2))


def _straightness(ways: np.ndarray) -> float:
    """∫ ‖(x_1 − x_0) − dx/dt‖² dt, the mean over ways ``[T, N, 2]``."""
    velocity = np.diff(ways, axis=0) * (len(ways) - 1)
    return float(((velocity - (ways[-1] - ways[0])) ** 2).sum(-1).mean())


# -------------------------------------------------------------------------------------- arguments


def _points(name: str, values: Array, count: int | None) -> np.ndarray:
    """``values`` as float64 ``[N, 2]``; of ``count`` points where that is given."""
    wanted = "[N, 2]" if count is None else f"[{count}, 2]"
    array = to_array(name, values, wanted, 2).astype(np.float64).round(6)
    if array.shape[1] != 2 or (count is not None and len(array) != count):
        raise ValueError(f"{name} must have shape {wanted}, got {list(array.shape)}")
    if len(array) > MOST_PAIRS:
        raise ValueError(f"{name} must hold at most {MOST_PAIRS} points, got {len(array)}")
    return array


def _room_for(*clouds: np.ndarray) -> tuple[float, float, float, float]:
    """A square around all points, with a quarter of their spread as room on each side."""
    points = np.concatenate(clouds)
    low, high = points.min(0), points.max(0)
    half = max(0.62 * float((high - low).max()), 0.5)
    x, y = ((low + high) / 2).tolist()
    return (x - half, x + half, y - half, y + half)
