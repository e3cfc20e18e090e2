"""``CrossingLines``: pairs of noise and data on straight lines, and the average arrow where they
cross.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.checks import check_number, check_one_of
from course_lib.widgets.base import LINE, PlayerWidget, pale_frame, png, to_array
from course_lib.widgets.pairs import mean_velocity, way_through
from course_lib.widgets.palette import PALETTE
from course_lib.widgets.particle_player import square_around

__all__ = ["CrossingLines"]

Array = np.ndarray | torch.Tensor | Sequence

STEPS = 50  # of time, from t = 1 to t = 0
MOST_PAIRS = 400


class CrossingLines(PlayerWidget):
    """Pairs of noise and data joined by straight lines, and the flow that is their average.

    The i-th pair is at x_0 + t (ε − x_0) at the time t, data at 0 and noise at 1, and its velocity
    is ε − x_0. A network that sees x and t alone can't tell which pair came by: what it learns is
    the average

        v(x, t) = Σ_i r_i (ε_i − x_0,i),   r_i ∝ exp(−‖x − x_i(t)‖² / 2 width²),

    exact where each pair is blurred by a Gaussian of the standard deviation ``width`` all along
    its line (Tong et al. 2023). At the place that can be dragged stand the arrows of the pairs that
    pass there and their average, with the way of the flow through it. Arrows point from noise to
    data, as a sampler goes: they are −v.

    Args:
        noise: ``[N, 2]``, the ε, at most 400; or ``[N]``, numbers: then time runs to the right and
            the lines are drawn over it.
        data: ``[N, 2]`` or ``[N]``, the x_0.
        couplings: names and permutations ``[N]``: ``data[permutation[i]]`` belongs to ``noise[i]``.
        width: of the Gaussian around a line.
        place: the first place of the arrows, ``[2]`` or ``[1]``; by default the middle.
        t: the first time.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument is not as described.

    ``widget.step`` (a float, 0 ... 50; ``widget.t`` is the time, 1 at step 0), ``widget.playing``,
    ``widget.coupling`` (a name) and ``widget.place`` can be read and set.
    ``widget.velocity(x, t)`` is v, ``widget.lengths`` the length of all lines of each coupling.
    """

    module = "crossing_lines.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    place = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    coupling = traitlets.Unicode().tag(sync=True, echo_update=False)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    orders = traitlets.List().tag(sync=True)  # a permutation for each name
    width = traitlets.Float(0.15).tag(sync=True)
    extent = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(
        self,
        noise: Array,
        data: Array,
        couplings: Mapping[str, Array],
        *,
        width: float = 0.15,
        place: Sequence[float] | None = None,
        t: float = 0.5,
        title: str = "",
        alt: str = "",
    ) -> None:
        ends = _ends("noise", noise, None)
        starts = _ends("data", data, ends.shape)
        orders = _orders(couplings, len(ends))
        check_number("width", width, above=0)
        check_number("t", t, minimum=0)
        if t > 1:
            raise ValueError(f"t must lie in [0, 1], got {t!r}")
        dims = ends.shape[1]
        middle = ((ends.mean(0) + starts.mean(0)) / 2).tolist()
        if dims == 2:
            extent = list(square_around(ends, starts))
        else:
            low, high = min(ends.min(), starts.min()), max(ends.max(), starts.max())
            margin = 0.06 * float(high - low) or 1.0
            extent = [-0.03, 1.03, float(low) - margin, float(high) + margin]
        times = 1 - np.arange(STEPS + 1) / STEPS
        self._dims = dims
        super().__init__(
            {"noise": ends, "data": starts},
            n_steps=STEPS + 1,
            labels=[f"t = {time:.2f}" for time in times],
            hint="send fewer pairs",
            title=title,
            alt=alt
            or f"{len(ends)} pairs of noise and data joined by straight lines, and the average "
            "arrow at a place.",
            names=list(orders),
            orders=[order.tolist() for order in orders.values()],
            coupling=next(iter(orders)),
            width=float(width),
            place=middle if place is None else place,
            extent=extent,
        )
        self.step = (1 - t) * STEPS

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("place")
    def _place_is_one(self, proposal: dict) -> list[float]:
        place = proposal["value"]
        if len(place) != self._dims or not np.isfinite(place).all():
            raise ValueError(f"place must be {self._dims} finite numbers, got {place!r}")
        return place

    @traitlets.validate("coupling")
    def _coupling_exists(self, proposal: dict) -> str:
        check_one_of("coupling", proposal["value"], self.names)
        return proposal["value"]

    @property
    def t(self) -> float:
        """The time that is shown: 1 is noise, 0 data."""
        return 1 - self.step / STEPS

    @property
    def lengths(self) -> dict[str, float]:
        """The length of all lines together, for each coupling."""
        return {
            name: float(np.linalg.norm(np.subtract(*self._pairs(name)), axis=1).sum())
            for name in self.names
        }

    def velocity(self, x: Array, t: float) -> np.ndarray:
        """v(x, t) under the chosen coupling, float64 ``[..., 2]``, or ``[..., 1]`` of numbers."""
        noise, data = self._pairs(self.coupling)
        return mean_velocity(x, t, data, noise, self.width)

    def _pairs(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Noise and data of the pairs of a coupling, ``[N, D]`` each, as the browser has them."""
        order = self.orders[self.names.index(name)]
        return self.array("noise"), self.array("data")[order]

    def _way(self) -> np.ndarray:
        """The flow through the place that is shown, from t = 1 to 0: t and x, ``[101, 1 + D]``."""
        noise, data = self._pairs(self.coupling)
        place, half = np.array(self.place), 50
        parts = []
        for end in (1.0, 0.0):
            way = way_through(place, self.t, end, data, noise, self.width, half)
            parts.append(np.c_[np.linspace(self.t, end, half + 1), way])
        return np.concatenate([parts[0][::-1], parts[1][1:]])

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The lines of each coupling, with the average arrow and the way of the flow."""
        shown = self.names[:3]
        figure = Figure(figsize=(3.4 * len(shown) + 0.2, 3.6))
        chosen = self.coupling
        for ax, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            with self.hold_sync():
                self.coupling = name
                self._draw(ax)
                self.coupling = chosen
            ax.set_title(f"{name}: total length {self.lengths[name]:.1f}", fontsize=9)
        figure.tight_layout(pad=0.6)
        return png(figure)

    def _draw(self, ax: Axes) -> None:
        noise, data = self._pairs(self.coupling)
        v = self.velocity(np.array(self.place), self.t)
        way = self._way()
        if self._dims == 1:
            ones = np.ones(len(noise))
            ends, starts = np.c_[ones, noise], np.c_[0 * ones, data]
            here, by = np.array([self.t, *self.place]), np.array([-1, *-v]) * 0.2
            ax.set_xlabel("t", fontsize=8, labelpad=1)
        else:
            ends, starts, way = noise, data, way[:, 1:]
            here, by = np.array(self.place), -0.35 * v
            ax.set_aspect("equal")
        for start, end in zip(starts, ends, strict=True):
            ax.plot(*np.stack([start, end]).T, color=LINE, lw=0.7, zorder=1)
        ax.scatter(*ends.T, s=7, color=PALETTE["noise"], zorder=2)
        ax.scatter(*starts.T, s=7, color=PALETTE["data"], zorder=2)
        ax.plot(*way.T, color=PALETTE["model"], lw=1.2, zorder=3)
        look = {"color": PALETTE["model"], "lw": 2.2, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", here + by, here, arrowprops={"arrowstyle": "-|>", **look}, zorder=5)
        ax.plot(*here, "o", color=PALETTE["model"], mec="white", ms=7, zorder=4)
        x0, x1, y0, y1 = self.extent
        ax.set(xlim=(x0, x1), ylim=(y0, y1))
        ax.tick_params(labelsize=6, length=2, color=LINE)
        pale_frame(ax)


# --------------------------------------------------------------------------------------- arguments


def _ends(name: str, values: Array, shape: Sequence[int] | None) -> np.ndarray:
    """``values`` as float32 ``[N, D]``, of ``shape`` where one is given."""
    wanted = "[N, 2] or [N]" if shape is None else f"{list(shape)}, that of noise"
    array = to_array(name, values, wanted, 1, 2)
    array = array[:, None] if array.ndim == 1 else array
    if array.shape[1] > 2 or len(array) > MOST_PAIRS or (shape and array.shape != tuple(shape)):
        raise ValueError(
            f"{name} must have shape {wanted}, with at most {MOST_PAIRS} points, got "
            f"{list(array.shape)}"
        )
    return array


def _orders(couplings: Mapping[str, Array], count: int) -> dict[str, np.ndarray]:
    if not isinstance(couplings, Mapping) or not couplings:
        raise ValueError(f"couplings must be a dict of permutations, got {couplings!r}")
    found = {}
    for name, values in couplings.items():
        order = to_array(f"couplings[{name!r}]", values, f"[{count}]", 1)
        if sorted(order.tolist()) != list(range(count)):
            raise ValueError(
                f"couplings[{name!r}] must be a permutation of 0 ... {count - 1}, got "
                f"{order.tolist()[:8]}"
            )
        found[str(name)] = order.astype(int)
    return found
