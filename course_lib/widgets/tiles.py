"""``Tiles``: the matrix that is never stored, tile by tile, and the traffic that this saves."""

import math
from typing import NamedTuple

import numpy as np
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_bool, check_int, check_one_of
from course_lib.widgets.base import LINE, PlayerWidget, pale_frame, png
from course_lib.widgets.palette import PALETTE

__all__ = ["Moved", "Tiles"]

ALGORITHMS = ("flash", "flash2")
MOST = {"n": 8192, "d": 128, "sram": 2**18}
SECONDS = 12  # that all tiles take, unless there are few


class Moved(NamedTuple):
    """Numbers read from the slow memory, and written to it."""

    loads: int
    stores: int

    @property
    def total(self) -> int:
        """Numbers that were moved, either way."""
        return self.loads + self.stores


class Tiles(PlayerWidget):
    """Attention of n queries to n keys in tiles that fit a small fast memory, and what is moved.

    A step of the player is a tile of the n × n matrix of logits: lit, with what is read for it and
    written after it at the sides. Beside it the numbers moved so far and in all, by three steps
    that store the matrix (S = q kᵀ, P = softmax S, o = P v), by FlashAttention, which passes all
    queries by each block of keys, and by FlashAttention-2, which passes all keys by each block of
    queries. They are those of ``course_lib.attention.count_traffic``; with ``causal`` the tiles
    that nobody may see are skipped, and what belongs to them is not read.

    Args:
        n: How many queries, and keys: at most 8,192.
        d: Head size, at most 128.
        sram: How many numbers the fast memory holds: 5 d + 4 to 262,144.
        algorithm: Which one is played: ``"flash"`` or ``"flash2"``.
        causal: Whether query i sees the keys j ≤ i alone.
        step: How many tiles are done at first.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    ``widget.n``, ``d``, ``sram``, ``algorithm``, ``causal``, ``step`` and ``playing`` can be read
    and set. ``widget.sizes`` are the rows and columns of a tile, ``widget.moved(algorithm)`` what
    is moved in all, and ``widget.moved_so_far`` by the one that is played up to this step.

    Reference:
        Dao et al. 2022, https://arxiv.org/abs/2205.14135; Dao 2023,
        https://arxiv.org/abs/2307.08691.
    """

    module = "tiles.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    n = traitlets.Int(512).tag(sync=True, echo_update=False)
    d = traitlets.Int(64).tag(sync=True, echo_update=False)
    sram = traitlets.Int(24_576).tag(sync=True, echo_update=False)
    algorithm = traitlets.Unicode("flash2").tag(sync=True)
    causal = traitlets.Bool(False).tag(sync=True)
    # What does not change.
    most = traitlets.Dict(MOST, read_only=True).tag(sync=True)
    seconds = traitlets.Float(SECONDS, read_only=True).tag(sync=True)

    def __init__(
        self,
        n: int = 512,
        d: int = 64,
        sram: int = 24_576,
        *,
        algorithm: str = "flash2",
        causal: bool = False,
        step: float = 0,
        title: str = "",
        alt: str = "",
    ) -> None:
        _check_sizes(n, d, sram)
        check_one_of("algorithm", algorithm, ALGORITHMS)
        check_bool("causal", causal)
        super().__init__(
            {},
            hint="",
            title=title,
            alt=alt or "A matrix of logits in tiles, one of them lit, and bars of what is moved.",
            n_steps=1 + sum(_tiles_of_each(n, d, sram, algorithm, causal)),
            labels=None,
            n=n,
            d=d,
            sram=sram,
            algorithm=algorithm,
            causal=causal,
            step=step,
        )
        self.rate = _rate(self.n_steps)

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("n", "d", "sram")
    def _sizes_in_range(self, proposal: dict) -> int:
        sizes = {"n": self.n, "d": self.d, "sram": self.sram}
        sizes[proposal["trait"].name] = proposal["value"]
        _check_sizes(**sizes)
        return proposal["value"]

    @traitlets.validate("algorithm")
    def _algorithm_known(self, proposal: dict) -> str:
        check_one_of("algorithm", proposal["value"], ALGORITHMS)
        return proposal["value"]

    @traitlets.observe("n", "d", "sram", "algorithm", "causal")
    def _count_tiles(self, change: dict) -> None:
        count = 1 + sum(_tiles_of_each(self.n, self.d, self.sram, self.algorithm, self.causal))
        if count == self.n_steps:
            return
        share = self.step / (self.n_steps - 1)
        with self.hold_trait_notifications():
            self.n_steps, self.rate = count, _rate(count)
            self.step = float(math.floor(share * (count - 1) + 0.5))

    # ---------------------------------------------------------------------------------- mathematics

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows and columns of a tile."""
        return _sizes(self.d, self.sram, self.algorithm)

    def moved(self, algorithm: str) -> Moved:
        """Numbers that ``algorithm`` moves in all: ``"naive"``, ``"flash"`` or ``"flash2"``."""
        check_one_of("algorithm", algorithm, ("naive", *ALGORITHMS))
        n, d = self.n, self.d
        if algorithm == "naive":
            return Moved(3 * n * d + 2 * n * n, 2 * n * n + n * d)
        tiles = sum(_tiles_of_each(n, d, self.sram, algorithm, self.causal))
        return _moved_after(tiles, n, d, self.sram, algorithm, self.causal)

    @property
    def moved_so_far(self) -> Moved:
        """Numbers that were moved up to this step (a tile that has begun counts whole)."""
        tiles = math.ceil(self.step)
        return _moved_after(tiles, self.n, self.d, self.sram, self.algorithm, self.causal)

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The tiles, and what the three ways move."""
        figure = Figure(figsize=(7.2, 3.2))
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.4])
        figure.subplots_adjust(left=0.06, right=0.93, bottom=0.12, top=0.9, wspace=0.6)
        rows, columns = self.sizes
        place = (np.arange(256) + 0.5) / 256 * self.n  # of a pixel, down and to the right
        last = np.minimum((place // rows + 1) * rows, self.n) - 1
        seen = (place // columns * columns)[None] <= last[:, None]
        picture = seen if self.causal else np.ones_like(seen)
        left.imshow(picture, extent=(0, self.n, self.n, 0), cmap="Blues", vmin=0, vmax=3)
        if self.n <= 64 * min(self.sizes):
            left.hlines(np.arange(0, self.n, rows), 0, self.n, color=LINE, lw=0.5)
            left.vlines(np.arange(0, self.n, columns), 0, self.n, color=LINE, lw=0.5)
        left.set(xlim=(0, self.n), ylim=(self.n, 0), aspect="equal", title="tiles of the matrix")
        names = ("three steps", "keys outside", "queries outside")
        moved = [self.moved(which) for which in ("naive", *ALGORITHMS)]
        loads = [one.loads / 1e6 for one in moved]
        right.barh(names, loads, color=PALETTE["data"])
        right.barh(names, [one.stores / 1e6 for one in moved], left=loads, color=PALETTE["model"])
        right.invert_yaxis()
        right.set(title="millions of numbers moved")
        for ax in (left, right):
            ax.title.set_fontsize(9)
            ax.tick_params(labelsize=7, length=2, color=LINE)
            pale_frame(ax)
        return png(figure)


# --------------------------------------------------------------------------------- the mathematics


def _rate(n_steps: int) -> float:
    return max(1.0, (n_steps - 1) / SECONDS)


def _check_sizes(n: int, d: int, sram: int) -> None:
    check_int("n", n, minimum=1, maximum=MOST["n"])
    check_int("d", d, minimum=1, maximum=MOST["d"])
    check_int("sram", sram, minimum=5 * d + 4, maximum=MOST["sram"])


def _sizes(d: int, sram: int, algorithm: str) -> tuple[int, int]:
    """Rows and columns of a tile: q, k, v, o, the tile itself and four numbers a row must fit."""
    larger = sram // (5 * d + 4)
    smaller = min(larger, d)
    return (smaller, larger) if algorithm == "flash" else (larger, smaller)


def _tiles_of_each(n: int, d: int, sram: int, algorithm: str, causal: bool) -> list[int]:
    """How many tiles each block of the outer loop meets: of keys in "flash", else of queries."""
    rows, columns = _sizes(d, sram, algorithm)
    if algorithm == "flash":
        down = math.ceil(n / rows)
        return [down - (left // rows if causal else 0) for left in range(0, n, columns)]
    across = math.ceil(n / columns)
    return [
        math.ceil(min(top + rows, n) / columns) if causal else across for top in range(0, n, rows)
    ]


def _moved_after(tiles: int, n: int, d: int, sram: int, algorithm: str, causal: bool) -> Moved:
    """What is moved for so many tiles, in the order of the loops."""
    rows, columns = _sizes(d, sram, algorithm)
    # Before the first tile "flash" writes where o, m and l start.
    loads, stores = 0, n * (d + 2) if tiles and algorithm == "flash" else 0
    for block, count in enumerate(_tiles_of_each(n, d, sram, algorithm, causal)):
        met = min(tiles, count)
        if not met:
            break
        tiles -= met
        if algorithm == "flash":
            first = math.ceil(n / rows) - count  # tiles above are skipped
            passed = min((first + met) * rows, n) - first * rows
            loads += 2 * d * (min((block + 1) * columns, n) - block * columns)
            loads += (2 * d + 2) * passed  # q, o, m and l
            stores += (d + 2) * passed  # o, m and l
        else:
            held = min((block + 1) * rows, n) - block * rows
            loads += d * held + 2 * d * min(met * columns, n)
            stores += (d + 1) * held if met == count else 0  # o and L, when a row is done
    return Moved(loads, stores)
