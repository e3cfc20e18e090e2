"""``FanOfPaths``: a process in one dimension, and the paths that belong to one start or one end."""

from collections.abc import Mapping

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_one_of
from course_lib.widgets.base import LINE, PlayerWidget, pale_frame, png, to_array
from course_lib.widgets.palette import PALETTE
from course_lib.widgets.reparameterization import standard_noise

__all__ = ["FanOfPaths"]

Array = np.ndarray | torch.Tensor

PARTS = ("t", "a", "b", "x", "density")  # what a process is given as
DIRECTIONS = ("forward", "reverse")
GOLDEN = 0.6180339887498949  # its multiples, without their whole parts, fill [0, 1] evenly
FAN = 40  # paths of a fan, at most


class FanOfPaths(PlayerWidget):
    """Paths of x_t = a x_0 + b ε through the density of x_t, and the fan of one start or one end.

    Time t goes to the right, x upwards. Under the paths lies the density of x_t, each time as
    bright as its own highest value. *Forward*, a handle at the first time is where the fan begins.
    *Reverse*, a handle at the last time is where it ends: the fan is made of those paths that come
    to it, as the reverse SDE draws them, whose joint law is that of the forward process.

    Both fans are exact at the given times, with no step of a solver. With r = a_t / a_start and
    the noise W_t that a path has gathered since the first time, a path is x_t = r x_start + W_t.
    Of the paths that end in y, the starts are drawn from p(x_start | y), and W becomes
    W_t + c (y − r_end x_start − W_end), c = cov(W_t, W_end) / var(W_end).

    Args:
        processes: names and, for each, a dict of arrays: ``"t"`` ``[T]``, evenly spaced times;
            ``"a"`` ``[T]`` and ``"b"`` ``[T]``, the path x_t = a x_0 + b ε, b growing with t
            relative to a; ``"x"`` ``[X]``, an evenly spaced grid, which is the axis of x; and
            ``"density"`` ``[T, X]``, that of x_t on this grid. T and X are the same for all.
        n_paths: how many sample paths are drawn through the density; a fan has at most 40.
        start: where the fan begins at the first time; by default where the density of the first
            process is highest.
        end: where it ends at the last time; by default in the middle of its plot.
        direction: ``"forward"`` or ``"reverse"``, to begin with.
        seed: of the noise, which is the same for all processes.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    ``widget.step`` (a float: how far the paths are drawn, from the first time on, in reverse from
    the last), ``widget.playing``, ``widget.process`` (a name), ``widget.direction``,
    ``widget.start``, ``widget.end`` (in a plot that does not reach so far, at its edge) and
    ``widget.samples`` (whether the sample paths are shown) can be read and set. ``widget.fan`` is
    what is drawn, ``widget.law`` the exact mean and standard deviation of the fan at the time of
    ``widget.index``.

    Example:
        >>> t, x = np.linspace(0, 1, 51), np.linspace(-3, 3, 61)
        >>> b = np.sqrt(t)  # Brownian motion from a standard normal law
        >>> spread = np.sqrt(1 + t)[:, None]
        >>> brownian = {"t": t, "a": np.ones(51), "b": b, "x": x,
        ...             "density": np.exp(-((x / spread) ** 2) / 2) / spread}
        >>> FanOfPaths({"Brownian motion": brownian}, start=0.5).fan.shape
        (51, 40)
    """

    module = "fan_of_paths.js"

    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    extents = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)  # [t, t, x, x]
    # What is dragged must not be pulled back by an older echo from the kernel.
    process = traitlets.Unicode().tag(sync=True, echo_update=False)
    direction = traitlets.Unicode("forward").tag(sync=True, echo_update=False)
    start = traitlets.Float(0.0).tag(sync=True, echo_update=False)
    end = traitlets.Float(0.0).tag(sync=True, echo_update=False)
    samples = traitlets.Bool(True).tag(sync=True)

    def __init__(
        self,
        processes: Mapping[str, Mapping[str, Array]],
        *,
        n_paths: int = 100,
        start: float | None = None,
        end: float | None = None,
        direction: str = "forward",
        seed: int = 0,
        title: str = "",
        alt: str = "",
    ) -> None:
        check_int("n_paths", n_paths, minimum=1)
        check_one_of("direction", direction, DIRECTIONS)
        given = _processes(processes)
        steps = len(next(iter(given.values()))["t"])
        eps = standard_noise(seed, (steps - 1) * n_paths).reshape(steps - 1, n_paths)
        own = [_gathered(process, eps) for process in given.values()]
        densities = [process["density"] for process in given.values()]
        arrays = {
            "ratio": np.stack([ratio for ratio, _, _ in own]),
            "spread": np.stack([spread for _, spread, _ in own]),
            "noise": np.stack([noise for _, _, noise in own]),
            "density": np.stack([p / p.max(axis=1, keepdims=True) for p in densities]),
        }
        names = list(given)
        ends = [
            [float(process[axis][k]) for axis in ("t", "x") for k in (0, -1)]
            for process in given.values()
        ]
        super().__init__(
            arrays,
            n_steps=steps,
            labels=None,
            hint="send fewer processes, times, paths or cells of x",
            title=title,
            alt=alt
            or f"{n_paths} paths of a random process in time ({', '.join(names)}) over its "
            "density, and the fan of those that belong to one start or one end.",
            names=names,
            extents=ends,
            process=names[0],
            direction=direction,
        )
        first = next(iter(given.values()))
        highest = first["x"][first["density"][0].argmax()]
        self.start = float(highest) if start is None else start
        self.end = float(first["x"][[0, -1]].mean()) if end is None else end
        self.step = float(steps - 1)

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("process")
    def _process_exists(self, proposal: dict) -> str:
        check_one_of("process", proposal["value"], self.names)
        return proposal["value"]

    @traitlets.validate("direction")
    def _direction_exists(self, proposal: dict) -> str:
        check_one_of("direction", proposal["value"], DIRECTIONS)
        return proposal["value"]

    @traitlets.validate("start", "end")
    def _in_a_plot(self, proposal: dict) -> float:
        value = proposal["value"]
        low = min(extent[2] for extent in self.extents)
        high = max(extent[3] for extent in self.extents)
        if not low <= value <= high:
            name = proposal["trait"].name
            raise ValueError(f"{name} must lie in [{low:.4g}, {high:.4g}], got {value!r}")
        return value

    @property
    def index(self) -> int:
        """The time that is shown, 0 ... T − 1: in reverse the last comes first."""
        step = int(self.step + 0.5)
        return step if self.direction == "forward" else self.n_steps - 1 - step

    @property
    def place(self) -> float:
        """Where the fan begins or ends, in the plot."""
        return self._place_of(self.direction)

    @property
    def fan(self) -> np.ndarray:
        """The paths of the fan, float64 ``[T, F]``."""
        return self._fan_of(self.direction)

    @property
    def law(self) -> tuple[float, float]:
        """The mean and the standard deviation of all such paths at the time of ``index``."""
        k, y = self.index, self.place
        ratio, spread, _, _ = self._own
        if self.direction == "forward":
            return float(ratio[k] * y), float(spread[k])
        weights = self._starts_of(y)
        mean = weights @ self._grid / weights.sum()
        variance = weights @ (self._grid - mean) ** 2 / weights.sum()
        pull = _pull(ratio, spread)[k]
        slope = ratio[k] - pull * ratio[-1]
        rest = max(0.0, spread[k] ** 2 - pull**2 * spread[-1] ** 2)
        return float(slope * mean + pull * y), float(np.sqrt(slope**2 * variance + rest))

    @property
    def sample_paths(self) -> np.ndarray:
        """The paths through all of the density, float64 ``[T, N]``."""
        ratio, _, noise, density = self._own
        return ratio[:, None] * _quantiles(self._grid, density[0], noise.shape[1]) + noise

    def _place_of(self, direction: str) -> float:
        value = self.start if direction == "forward" else self.end
        return float(np.clip(value, *self._extent[2:]))

    def _fan_of(self, direction: str) -> np.ndarray:
        ratio, spread, noise, _ = self._own
        noise = noise[:, :FAN]
        place = self._place_of(direction)
        if direction == "forward":
            return ratio[:, None] * place + noise
        starts = _quantiles(self._grid, self._starts_of(place), noise.shape[1])
        missed = place - ratio[-1] * starts - noise[-1]
        return ratio[:, None] * starts + noise + _pull(ratio, spread)[:, None] * missed

    @property
    def _extent(self) -> list[float]:
        return self.extents[self.names.index(self.process)]

    @property
    def _grid(self) -> np.ndarray:
        return np.linspace(*self._extent[2:], self.arrays["density"]["shape"][2])

    @property
    def _own(self) -> tuple[np.ndarray, ...]:
        """Ratio ``[T]``, spread ``[T]``, noise ``[T, N]`` and density ``[T, X]``."""
        which = self.names.index(self.process)
        return tuple(self.array(name)[which] for name in ("ratio", "spread", "noise", "density"))

    def _starts_of(self, y: float) -> np.ndarray:
        """p(x_start | x_end = y) on the grid, up to a factor."""
        ratio, spread, _, density = self._own
        away = (y - ratio[-1] * self._grid) ** 2 / (2 * spread[-1] ** 2)
        return density[0] * np.exp(away[density[0] > 0].min() - away)

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The fan of the start and the fan of the end, side by side."""
        figure = Figure(figsize=(7.2, 2.8))
        axes = figure.subplots(1, 2, sharey=True)
        for ax, direction in zip(axes, DIRECTIONS, strict=True):
            self._draw(ax, direction)
            ax.set_title(f"{self.process}, {direction}", fontsize=8)
        axes[0].set_ylabel("x", fontsize=8, labelpad=1)
        figure.subplots_adjust(left=0.06, right=0.985, bottom=0.14, top=0.91, wspace=0.06)
        return png(figure)

    def _draw(self, ax: Axes, direction: str) -> None:
        t0, t1, x0, x1 = self._extent
        t = np.linspace(t0, t1, self.n_steps)
        tint = LinearSegmentedColormap.from_list("density", ["#fbfcfd", PALETTE["data"]])
        density = self._own[3].T
        ax.imshow(
            density,
            **{"origin": "lower", "aspect": "auto", "extent": self._extent, "cmap": tint},
            vmax=1.4,
        )
        if self.samples:
            ax.plot(t, self.sample_paths[:, ::3], color="#44494f", lw=0.3)
        ax.plot(t, self._fan_of(direction), color=PALETTE["model"], lw=0.5)
        at, place = (t0 if direction == "forward" else t1), self._place_of(direction)
        ax.plot(at, place, "o", ms=7, mfc=PALETTE["model"], mec="white", clip_on=False)
        ax.set(xlim=(t0, t1), ylim=(x0, x1))
        ax.set_xlabel("t", fontsize=8, labelpad=1)
        ax.tick_params(labelsize=6, length=2, color=LINE)
        pale_frame(ax)


# ------------------------------------------------------------------------------- the mathematics


def _gathered(
    process: dict[str, np.ndarray], eps: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much is left of a start at each time ``[T]``, and the noise gathered since: its standard
    deviation ``[T]`` and the noise itself ``[T, N]``, made of ``eps`` ``[T − 1, N]``.
    """
    a, b = process["a"], process["b"]
    ratio = a / a[0]
    # The noise over a is a sum of independent pieces, whose variances add.
    over = (b / a) ** 2
    pieces = np.sqrt(np.diff(over))[:, None] * eps
    noise = a[:, None] * np.concatenate([np.zeros((1, eps.shape[1])), np.cumsum(pieces, axis=0)])
    return ratio, a * np.sqrt(over - over[0]), noise


def _pull(ratio: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """cov(W_t, W_end) / var(W_end) at each time, ``[T]``."""
    return ratio[-1] / ratio * spread**2 / spread[-1] ** 2


def _quantiles(grid: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """``count`` places that are spread as a density on a grid is."""
    mass = np.concatenate([[0.0], np.cumsum((weights[1:] + weights[:-1]) / 2)])
    shares = (np.arange(count) + 0.5) * GOLDEN % 1
    return np.interp(shares * mass[-1], mass, grid)


# -------------------------------------------------------------------------------------- arguments


def _processes(processes: object) -> dict[str, dict[str, np.ndarray]]:
    """The processes as float64 arrays whose shapes fit together."""
    if not isinstance(processes, Mapping) or not processes:
        raise ValueError(f"processes must be a dict of names and dicts, got {processes!r}")
    checked: dict[str, dict[str, np.ndarray]] = {}
    for name, parts in processes.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"processes must have names, got {name!r}")
        which = f"processes[{name!r}]"
        if not isinstance(parts, Mapping) or set(parts) != set(PARTS):
            found = sorted(parts) if isinstance(parts, Mapping) else type(parts).__name__
            raise ValueError(f"{which} must be a dict of {', '.join(PARTS)}, got {found}")
        process = {part: _array(f"{which}[{part!r}]", part, parts[part]) for part in PARTS}
        first = next(iter(checked.values()), process)
        times, cells = len(first["t"]), len(first["x"])
        for part, wanted in (
            ("t", (times,)), ("a", (times,)), ("b", (times,)), ("x", (cells,)),
            ("density", (times, cells)),
        ):  # fmt: skip
            if process[part].shape != wanted:
                raise ValueError(
                    f"{which}[{part!r}] must have shape {list(wanted)}, got "
                    f"{list(process[part].shape)}"
                )
        for axis in ("t", "x"):
            _check_even(f"{which}[{axis!r}]", process[axis])
        a, b, density = process["a"], process["b"], process["density"]
        if a.min() <= 0 or b.min() < 0 or not (np.diff(b / a) > 0).all():
            raise ValueError(
                f"{which} must have a > 0, b >= 0 and a b / a that grows with t, got a from "
                f"{a[0]:.3g} to {a[-1]:.3g} and b from {b[0]:.3g} to {b[-1]:.3g}"
            )
        if density.min() < 0 or not (density.max(axis=1) > 0).all():
            raise ValueError(
                f"{which}['density'] must be at least 0, and above it somewhere at every time, "
                f"got values in [{density.min():.3g}, {density.max():.3g}]"
            )
        checked[name] = process
    return checked


def _array(which: str, part: str, values: object) -> np.ndarray:
    shape, dims = {"density": ("[T, X]", 2), "x": ("[X]", 1)}.get(part, ("[T]", 1))
    to_array(which, values, shape, dims)
    # In float64, for b² / a² is a small difference at the first times.
    if isinstance(values, torch.Tensor):
        values = values.detach().double().cpu().numpy()
    return np.array(values, dtype=np.float64)


def _check_even(which: str, values: np.ndarray) -> None:
    gaps = np.diff(values)
    if len(values) < 3 or gaps.min() <= 0 or np.ptp(gaps) > 1e-3 * gaps.mean():
        raise ValueError(
            f"{which} must be at least 3 increasing, evenly spaced numbers, got {len(values)} "
            f"from {values[0]:.3g} to {values[-1]:.3g}"
        )
