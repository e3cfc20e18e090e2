"""``Ring``: processes on a circle sum their vectors by passing chunks to their neighbours."""

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Wedge

from course_lib.checks import check_int
from course_lib.widgets.base import PlayerWidget, pale_frame, png, to_array
from course_lib.widgets.palette import PALETTE, colour_map

__all__ = ["Ring"]

MOST = 8  # processes
PHASES = ("reduce-scatter", "all-gather")
# What the processes hold if nothing else is said: row p is that of process p.
VALUES = [[(5 * p + 3 * c + p * c) % 9 + 1 for c in range(MOST)] for p in range(MOST)]


class Ring(PlayerWidget):
    """N processes, each with a vector of N chunks, sum them by ring all-reduce.

    Each process is a sector of a disc, each chunk a ring of it, the outermost being chunk 0; the
    number in a cell is what the process holds there, its colour how many processes' numbers are in
    it. In step k = 1 ... 2 (N − 1) every process p sends chunk (p − k + 1) mod N to its neighbour
    p + 1. In the first N − 1 steps, the reduce-scatter, the neighbour adds it to its own; in the
    others, the all-gather, it takes it over.

    Beside it stands what each process has sent, in vectors: 2 (N − 1) / N at the end. In a star,
    all send their vectors to process 0, which sends the sum to the N − 1 others.

    Args:
        processes: N, 1 to 8.
        values: ``[8, 8]``, whole numbers from 0 to 99: row p is what process p holds. Of N
            processes the first N rows and columns are shown.
        step: Where to begin, 0 to 2 (N − 1).
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    ``widget.processes``, ``widget.step`` (a float) and ``widget.playing`` can be read and set; with
    another N it begins anew. ``widget.chunks`` and ``widget.contributions`` are what is held after
    the last whole step, ``widget.messages(k)`` what is sent in the k-th, ``widget.sent`` what each
    process has sent by then.

    Reference:
        Patarasuk & Yuan 2009, https://doi.org/10.1016/j.jpdc.2008.09.002.
    """

    module = "ring.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    processes = traitlets.Int(4).tag(sync=True, echo_update=False)
    n_steps = traitlets.Int(1).tag(sync=True, echo_update=False)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True, echo_update=False)
    # What does not change.
    values = traitlets.List().tag(sync=True)
    most = traitlets.Int(MOST, read_only=True).tag(sync=True)

    def __init__(
        self,
        processes: int = 4,
        *,
        values: np.ndarray | torch.Tensor | Sequence | None = None,
        step: float = 0.0,
        title: str = "",
        alt: str = "",
    ) -> None:
        check_int("processes", processes, minimum=1, maximum=MOST)
        super().__init__(
            {},
            n_steps=2 * processes - 1,
            labels=names_of_steps(processes),
            hint="",
            title=title,
            alt=alt
            or f"{processes} processes on a circle pass chunks of their vectors to their "
            "neighbours until each holds the sum of all; beside it, how much each has sent.",
            processes=processes,
            values=VALUES if values is None else _whole_numbers(values),
        )
        self.step = step

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("processes")
    def _processes_fair(self, proposal: dict) -> int:
        check_int("processes", proposal["value"], minimum=1, maximum=MOST)
        return proposal["value"]

    @traitlets.observe("processes")
    def _begin_anew(self, change: dict) -> None:
        if change["old"] in (change["new"], traitlets.Undefined):
            return
        with self.hold_sync():
            self.playing = False
            self.step = 0.0
            self.n_steps = 2 * self.processes - 1
            self.labels = names_of_steps(self.processes)

    def messages(self, k: int) -> list[tuple[int, int, int]]:
        """What is sent in the k-th step, from 1: (source, target, chunk) of each message."""
        check_int("k", k, minimum=1, maximum=self.n_steps - 1)
        n = self.processes
        return [(p, (p + 1) % n, (p - k + 1) % n) for p in range(n)]

    @property
    def chunks(self) -> np.ndarray:
        """What the processes hold after the last whole step: row p is that of process p."""
        return self._held[0]

    @property
    def contributions(self) -> np.ndarray:
        """How many processes' numbers are in each of them."""
        return self._held[1]

    @property
    def sent(self) -> float:
        """What each process has sent after the last whole step, in vectors."""
        return int(self.step) / self.processes

    @property
    def _held(self) -> tuple[np.ndarray, np.ndarray]:
        n = self.processes
        chunks, counts = np.array(self.values)[:n, :n], np.ones((n, n), dtype=int)
        for k in range(1, int(self.step) + 1):
            adds = k < n
            there, had = chunks.copy(), counts.copy()
            for source, target, chunk in self.messages(k):
                chunks[target, chunk] = there[source, chunk] + adds * there[target, chunk]
                counts[target, chunk] = had[source, chunk] + adds * had[target, chunk]
        return chunks, counts

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The processes after the last whole step, and what each has sent."""
        n, figure = self.processes, Figure(figsize=(6.4, 3.2))
        ring, sent = figure.subplots(1, 2, width_ratios=[1.15, 1])
        figure.subplots_adjust(left=0.01, right=0.94, bottom=0.12, top=0.88, wspace=0.22)
        colours, share = colour_map("viridis"), Normalize(1, max(n, 2))
        height = 0.68 / n
        for p in range(n):
            middle, half = 90 - 360 * p / n, 180 / n - (3 if n > 1 else 0)
            toward = np.array([np.cos(np.radians(middle)), np.sin(np.radians(middle))])
            for c in range(n):
                count = int(self.contributions[p, c])
                colour = colours(share(count))
                outer = 1 - c * height
                ring.add_patch(
                    Wedge(
                        (0, 0),
                        outer,
                        middle - half,
                        middle + half,
                        width=0.94 * height,
                        facecolor=colour,
                    )
                )
                ink = "black" if np.dot(colour[:3], [0.21, 0.72, 0.07]) > 0.45 else "white"
                look = {"ha": "center", "va": "center", "fontsize": 7, "color": ink}
                ring.text(*(toward * (outer - height / 2)), str(self.chunks[p, c]), **look)
            name = {"ha": "center", "va": "center", "fontsize": 8, "weight": "bold"}
            ring.text(*(1.1 * toward), f"process {p}" if p == 0 else str(p), **name)
        where = self.step_name(int(self.step)).replace(" ", "\n", 1).replace("-", "-\n", 1)
        ring.text(0, 0, where, ha="center", va="center", fontsize=6)
        ring.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
        ring.axis("off")
        rows = [*[f"process {p}" for p in range(n)], "star: 0"]
        bars = [*[self.sent] * n, n - 1]
        sent.barh(rows, bars, color=[PALETTE["model"]] * n + [PALETTE["noise"]])
        sent.axvline(2 * (n - 1) / n, color=PALETTE["error"], ls="--", lw=1)
        sent.invert_yaxis()
        sent.set(xlim=(0, max(n - 1, 2)))
        sent.set_title("sent, in vectors (dashed: 2 (N − 1) / N)", fontsize=8)
        sent.tick_params(labelsize=7, length=2)
        pale_frame(sent)
        return png(figure)


def names_of_steps(processes: int) -> list[str]:
    """What each step is called."""
    rounds = processes - 1
    names = [f"{phase} {k + 1} of {rounds}" for phase in PHASES for k in range(rounds)]
    return ["each has its own", *names]


def _whole_numbers(values: np.ndarray | torch.Tensor | Sequence) -> list[list[int]]:
    array = to_array("values", values, f"[{MOST}, {MOST}]", 2)
    fair = array.shape == (MOST, MOST) and (array == array.round()).all()
    if not fair or array.min() < 0 or array.max() > 99:
        raise ValueError(
            f"values must be whole numbers from 0 to 99, [{MOST}, {MOST}], got {array.tolist()}"
        )
    return array.astype(int).tolist()
