"""``Dissolve``: add noise to points or images by hand, along a schedule that can be bent."""

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
    PlayerWidget,
    pale_frame,
    png,
    to_array,
    to_bytes,
    to_images,
)
from course_lib.widgets.density_warp import monotone_curve
from course_lib.widgets.palette import PALETTE, colour_map

__all__ = ["Dissolve"]

Array = np.ndarray | torch.Tensor

YOURS = "yours"  # the schedule that the handles make
LIMIT = 12.0  # of a handle's log-SNR, above and below zero
GAP = 0.1  # between two handles at least
# Where the handles stand, as shares of the time. They are closer together at both ends, where the
# log-SNR of the usual schedules is steep.
PLACES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)


class Dissolve(PlayerWidget):
    """Data that dissolve in noise, x_t = a x_0 + b ε with a² = ᾱ_t and b² = 1 − ᾱ_t.

    The points or images are shown at a time t that can be scrubbed and played. Beside or below them
    stands the schedule as its log-SNR, log(a²/b²), over t, or as ᾱ; below the curve, how much of ᾱ
    each step takes away. The handles on the curve can be dragged up and down, but never past their
    neighbours: that makes a schedule of your own. Between the handles its log-SNR is a monotone
    cubic.

    Args:
        data: points ``[N, 2]``, at most 2,000, or images ``[N, H, W]`` or ``[N, 1, H, W]`` in
            [0, 1], which x_0 = 2 · image − 1 takes to [-1, 1]. Images are drawn clipped to [0, 1].
        schedules: names and their ᾱ ``[T]``, strictly decreasing between 0 and 1, the T the same
            for all. Index 0 is the first noising step. No schedule may be named ``"yours"``.
        noise: ε, of the shape of ``data``: draws from a standard normal distribution.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument is not as described, or the arrays need more than 300 KB
    at two bytes a number, one a pixel.

    ``widget.step`` (a float; ``widget.index`` is the time t that is shown), ``widget.playing``,
    ``widget.schedule`` (a name, or ``"yours"``), ``widget.log_snr`` (the heights of the handles,
    decreasing, which stand at the times ``widget.knots``) and ``widget.show_alpha_bar`` can be read
    and set. ``widget.alpha_bars`` is the chosen schedule, and ``widget.x_t`` what is shown.
    """

    module = "dissolve.js"

    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    knots = traitlets.List(traitlets.Int()).tag(sync=True)
    # What is dragged must not be pulled back by an older echo from the kernel.
    schedule = traitlets.Unicode().tag(sync=True, echo_update=False)
    log_snr = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    show_alpha_bar = traitlets.Bool(False).tag(sync=True)
    reach = traitlets.Float(1.0).tag(sync=True)  # the plot of points goes from -reach to reach
    variance = traitlets.Float(1.0).tag(sync=True)  # of the data
    # What the browser must know of the handles.
    yours = traitlets.Unicode(YOURS, read_only=True).tag(sync=True)
    limit = traitlets.Float(LIMIT, read_only=True).tag(sync=True)
    gap = traitlets.Float(GAP, read_only=True).tag(sync=True)

    def __init__(
        self,
        data: Array,
        schedules: Mapping[str, Array],
        *,
        noise: Array,
        title: str = "",
        alt: str = "",
    ) -> None:
        self._alpha_bars = _schedules(schedules)
        (steps,) = next(iter(self._alpha_bars.values())).shape
        arrays, x_0 = _data(data)
        arrays["noise"] = _noise(noise, x_0.shape)
        curves = [_log_snr(values) for values in self._alpha_bars.values()]
        arrays |= {f"log_snr {k}": curve for k, curve in enumerate(curves)}
        knots = np.unique(np.rint(np.multiply(PLACES, steps - 1)).astype(int))
        names = list(self._alpha_bars)
        kind = "points" if x_0.ndim == 2 else "images"
        super().__init__(
            arrays,
            n_steps=steps,
            labels=None,
            hint="send fewer points, images or steps",
            title=title,
            alt=alt
            or f"{len(x_0)} {kind} dissolve in noise, beside the log-SNR of their schedule.",
            names=names,
            knots=knots.tolist(),
            schedule=names[0],
            log_snr=_handles(curves[0], knots),
            reach=_reach(x_0, arrays["noise"]),
            variance=float(x_0.var(axis=0).mean() if x_0.ndim == 2 else x_0.var()),
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("schedule")
    def _schedule_exists(self, proposal: dict) -> str:
        check_one_of("schedule", proposal["value"], [*self.names, YOURS])
        return proposal["value"]

    @traitlets.validate("log_snr")
    def _log_snr_falls(self, proposal: dict) -> list[float]:
        values = proposal["value"]
        fair = len(values) == len(self.knots) and max(map(abs, values)) <= LIMIT
        if not fair or not (np.diff(values) < 0).all():
            raise ValueError(
                f"log_snr must be {len(self.knots)} strictly decreasing numbers from {LIMIT:g} to "
                f"{-LIMIT:g}, got {values!r}"
            )
        return values

    @property
    def index(self) -> int:
        """The time t that is shown, 0 ... T − 1."""
        return math.floor(self.step + 0.5)

    @property
    def alpha_bars(self) -> np.ndarray:
        """ᾱ of the chosen schedule, float64 ``[T]``: as it was given, or as the handles make it."""
        if self.schedule != YOURS:
            return self._alpha_bars[self.schedule].copy()
        return 1 / (1 + np.exp(-self._curve(YOURS)))

    @property
    def x_t(self) -> np.ndarray:
        """What is shown, float64 ``[N, 2]``, or ``[N, H, W]`` before it is clipped."""
        return self._x_at(self.index)

    def _curve(self, name: str) -> np.ndarray:
        """The log-SNR of a schedule as the browser has it, float64 ``[T]``."""
        if name != YOURS:
            return self.array(f"log_snr {self.names.index(name)}")
        # The curve of density_warp.py rises: a falling one is drawn upside down.
        return -monotone_curve(np.arange(self.n_steps), self.knots, np.negative(self.log_snr))[0]

    def _x_at(self, t: int) -> np.ndarray:
        alpha_bar = 1 / (1 + np.exp(-self._curve(self.schedule)[t]))
        images = "images" in self.arrays
        x_0 = 2 * self.array("images") / 255 - 1 if images else self.array("points")
        return np.sqrt(alpha_bar) * x_0 + np.sqrt(1 - alpha_bar) * self.array("noise")

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The data at four times, and the curves of all schedules."""
        steps = self.telling_steps(4)
        images = "images" in self.arrays
        figure = Figure(figsize=(7.2, 4.3 if images else 4.0))
        if images:
            grid = figure.add_gridspec(4, 1, left=0.09, right=0.99, top=0.99, bottom=0.52)
        else:
            grid = figure.add_gridspec(
                1, 4, left=0.02, right=0.99, top=0.93, bottom=0.5, wspace=0.05
            )
        for cell, step in zip(grid, steps, strict=False):
            ax = figure.add_subplot(cell)
            self._draw_step(ax, step)
            ax.set(xticks=[], yticks=[])
            if images:
                ax.set_ylabel(f"t = {step}", fontsize=8, rotation=0, ha="right", va="center")
            else:
                ax.set_title(f"t = {step}", fontsize=8)
            pale_frame(ax)
        self._draw_curves(figure.add_axes((0.09, 0.105, 0.89, 0.34)))
        return png(figure)

    def _draw_step(self, ax: Axes, t: int) -> None:
        x = self._x_at(t)
        if x.ndim == 3:
            strip = np.hstack(list(x[:10]))
            ax.imshow((strip + 1) / 2, cmap=colour_map("grey"), vmin=0, vmax=1)
            return
        share = self._curve(self.schedule)[t]
        colour = _between(PALETTE["data"], PALETTE["noise"], 1 / (1 + np.exp(share)))
        size = max(1.0, min(8.0, 3000 / len(x)))
        ax.scatter(*x.T, s=size, linewidths=0, color=colour)
        ax.set(xlim=(-self.reach, self.reach), ylim=(-self.reach, self.reach), aspect="equal")

    def _draw_curves(self, ax: Axes) -> None:
        for name in dict.fromkeys([*self.names, self.schedule]):
            chosen = name == self.schedule
            look = {"color": "#1f2328", "lw": 2} if chosen else {"color": "#8d949d", "lw": 1}
            ax.plot(self._curve(name), label=name, ls="-" if chosen else "--", **look)
        heights = self._curve(self.schedule)[self.knots]
        ax.plot(self.knots, heights, "o", ms=6, mfc="white", mec="#1f2328", mew=1.5)
        ax.axhline(0, color=LINE, lw=0.8, zorder=0)
        ax.set(ylim=(-1.08 * LIMIT, 1.08 * LIMIT))
        ax.set_xlabel("t", fontsize=8, labelpad=1)
        ax.set_ylabel("log-SNR", fontsize=8, labelpad=1)
        ax.legend(fontsize=7, frameon=False, loc="upper right")
        ax.tick_params(labelsize=7, length=2, color=LINE)
        pale_frame(ax)


# -------------------------------------------------------------------------------------- arguments


def _data(data: Array) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The array to send, by its name, and x_0 as the model sees it."""
    array = to_array("data", data, "[N, 2], [N, H, W] or [N, 1, H, W]", 2, 3, 4)
    if array.ndim > 2:
        images = to_images("data", array, count="N")
        return {"images": to_bytes(images)}, 2 * images - 1
    if array.shape[1] != 2 or len(array) > 2000:
        raise ValueError(f"data must be at most 2,000 points [N, 2], got {list(array.shape)}")
    return {"points": array}, array


def _noise(noise: Array, shape: Sequence[int]) -> np.ndarray:
    array = to_array("noise", noise, f"{list(shape)}, that of data", 2, 3, 4)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != tuple(shape):
        raise ValueError(
            f"noise must have the shape of data, {list(shape)}, got {list(array.shape)}"
        )
    return array


def _schedules(schedules: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """The schedules as float64 ``[T]``: what is so close to 1 needs its digits."""
    if not isinstance(schedules, Mapping) or not schedules:
        raise ValueError(f"schedules must be a dict of names and alpha_bars, got {schedules!r}")
    checked: dict[str, np.ndarray] = {}
    for name, values in schedules.items():
        if not isinstance(name, str) or name in ("", YOURS):
            raise ValueError(f'schedules must have names other than "{YOURS}", got {name!r}')
        which = f"schedules[{name!r}]"
        to_array(which, values, "[T]", 1)
        array = torch.as_tensor(values, dtype=torch.float64).detach().cpu().numpy()
        if len(array) < 2 or not (np.diff(array) < 0).all() or not 0 < array[-1] < array[0] < 1:
            raise ValueError(
                f"{which} must be at least 2 numbers that strictly decrease between 0 and 1, got "
                f"{len(array)} from {array[0]:.3g} to {array[-1]:.3g}"
            )
        length = len(next(iter(checked.values()), array))
        if len(array) != length:
            raise ValueError(f"{which} must hold {length} numbers as the first, got {len(array)}")
        checked[name] = array
    return checked


def _log_snr(alpha_bars: np.ndarray) -> np.ndarray:
    return np.log(alpha_bars) - np.log1p(-alpha_bars)


def _handles(curve: np.ndarray, knots: np.ndarray) -> list[float]:
    """The heights of a curve at the handles: inside the plot, and none as high as another."""
    high = LIMIT - GAP * np.arange(len(knots))
    return np.clip(curve[knots], -high[::-1], high).tolist()


def _reach(x_0: np.ndarray, noise: np.ndarray) -> float:
    """Half the width of a plot that holds nearly all points on their way from data to noise."""
    # The largest a x_0 + b ε with a² + b² = 1.
    return max(1.08 * float(np.quantile(np.hypot(x_0, noise), 0.998)), 1e-3)


def _between(first: str, second: str, share: float) -> tuple[float, ...]:
    """A colour between two."""
    ends = [
        np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        for colour in (first, second)
    ]
    return tuple(ends[0] + (ends[1] - ends[0]) * share)
