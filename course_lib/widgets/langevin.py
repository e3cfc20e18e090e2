"""``Langevin``: particles dropped into a landscape, moved by its score and by noise."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_number, check_one_of
from course_lib.widgets.base import LINE, PlayerWidget, pale_frame, png, to_array
from course_lib.widgets.palette import PALETTE
from course_lib.widgets.reparameterization import standard_noise

__all__ = ["Langevin"]

Array = np.ndarray | torch.Tensor

LARGEST_STEP = 0.6
TEMPERATURES = (0.1, 5.0)
LEVELS = 8  # of noise, where none are given
HEAP = 0.1  # how far dropped particles lie apart: their standard deviation
BINS = 48  # of the histogram
ANNEALED = 2 / 3  # of a run goes through the levels of noise, the rest is without
FINE = 0.6  # cells of a chain must not be wider than the noise of a step over this


class Langevin(PlayerWidget):
    """Langevin dynamics x ← x + h ∇log p(x) + √(2hτ) ε in a landscape, log p = −U.

    Above, the energy U with the particles on it; below, their histogram, the stationary law
    p^(1/τ), and dashed the law to which steps of the size h settle. The reader drops the particles
    at a place, or everywhere, and changes the step size h and the temperature τ: a run is computed
    anew at once, with the same noise, so that what is shown at a step follows from the settings.

    *Annealed*, a run goes through levels of noise (Song and Ermon 2019): the score is that of p
    smeared by a Gaussian of standard deviation σ, which falls from level to level, and the step
    grows with it, h (1 + σ²/ℓ²), ℓ being the width of the narrowest well (U″ = 1/ℓ² at most).
    The last third of the run is without noise.

    Args:
        x: ``[G]``, an increasing, evenly spaced grid of 16 to 400 numbers; the axis of the plots.
        landscapes: names and their energies U on the grid, ``[G]`` each, that rise towards both
            ends. Beyond the grid the score is that of its end.
        step_size: h, above 0 and at most 0.6.
        temperature: τ, from 0.1 to 5.
        drop: where the particles begin; by default at the deepest place of the left half.
        sigmas: decreasing levels of noise, none of them finer than the grid; by default eight from
            a quarter of the grid's width to a sixteenth of that.
        n_particles: how many.
        n_steps: of a run.
        seed: of the noise.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    ``widget.step`` (a float; whole steps are shown), ``widget.playing``, ``widget.landscape`` (a
    name), ``widget.step_size``, ``widget.temperature``, ``widget.annealed``, ``widget.drop``,
    ``widget.scattered`` (the particles begin everywhere) and ``widget.seed`` can be read and set.
    ``widget.particles`` is where they are, ``widget.law`` the stationary law on the grid and
    ``widget.settled`` that of steps of this size.

    Example:
        >>> x = np.linspace(-4, 4, 81)
        >>> wells = -np.log(np.exp(-2 * (x + 2) ** 2) + np.exp(-2 * (x - 2) ** 2))
        >>> widget = Langevin(x, {"two wells": wells}, drop=-2, n_particles=50)
        >>> widget.step = 30.0
        >>> bool((widget.particles < 0).all())
        True
    """

    module = "langevin.js"

    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    extent = traitlets.List(traitlets.Float()).tag(sync=True)
    barriers = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)  # between wells
    widths = traitlets.List(traitlets.Float()).tag(sync=True)  # ℓ of each landscape
    sigmas = traitlets.List(traitlets.Float()).tag(sync=True)  # the last is 0: the landscape itself
    level_steps = traitlets.Int(1).tag(sync=True)  # of a run, at each level but the last
    n_particles = traitlets.Int(1).tag(sync=True)
    top = traitlets.Float(1.0).tag(sync=True)  # of the energies' plot
    # What is dragged must not be pulled back by an older echo from the kernel.
    landscape = traitlets.Unicode().tag(sync=True, echo_update=False)
    step_size = traitlets.Float(0.05).tag(sync=True, echo_update=False)
    temperature = traitlets.Float(1.0).tag(sync=True, echo_update=False)
    drop = traitlets.Float(0.0).tag(sync=True, echo_update=False)
    annealed = traitlets.Bool(False).tag(sync=True, echo_update=False)
    scattered = traitlets.Bool(False).tag(sync=True, echo_update=False)
    seed = traitlets.Int(0).tag(sync=True, echo_update=False)
    # What the browser must know.
    largest_step = traitlets.Float(LARGEST_STEP, read_only=True).tag(sync=True)
    temperatures = traitlets.List(default_value=list(TEMPERATURES), read_only=True).tag(sync=True)
    heap = traitlets.Float(HEAP, read_only=True).tag(sync=True)
    bins = traitlets.Int(BINS, read_only=True).tag(sync=True)
    fine = traitlets.Float(FINE, read_only=True).tag(sync=True)

    def __init__(
        self,
        x: Array,
        landscapes: Mapping[str, Array],
        *,
        step_size: float = 0.05,
        temperature: float = 1.0,
        drop: float | None = None,
        sigmas: Sequence[float] | None = None,
        n_particles: int = 400,
        n_steps: int = 600,
        seed: int = 0,
        title: str = "",
        alt: str = "",
    ) -> None:
        check_int("n_particles", n_particles, minimum=1, maximum=1000)
        check_int("n_steps", n_steps, minimum=1, maximum=2000)
        grid = _grid(x)
        energies = _energies(landscapes, grid)
        levels = _sigmas(sigmas, grid)
        smeared = [_smeared(grid, energy, levels) for energy in energies.values()]
        self._noise: tuple[int, np.ndarray] | None = None
        names = list(energies)
        first = energies[names[0]]
        left = np.argmin(first[: (len(grid) + 1) // 2])
        super().__init__(
            {
                "energy": np.stack([energy for energy, _ in smeared]),
                "score": np.stack([score for _, score in smeared]),
            },
            n_steps=n_steps + 1,
            labels=None,
            hint="send fewer landscapes or levels, or a coarser grid",
            title=title,
            alt=alt
            or f"{n_particles} particles in a landscape ({', '.join(names)}), and their "
            "histogram beside the stationary law.",
            names=names,
            extent=[float(grid[0]), float(grid[-1])],
            barriers=[_barriers(grid, energy) for energy in energies.values()],
            widths=[_width(grid, energy) for energy in energies.values()],
            sigmas=[*levels, 0.0],
            level_steps=max(1, int(ANNEALED * n_steps / len(levels))),
            n_particles=n_particles,
            top=max(_top(grid, energy) for energy in energies.values()),
            landscape=names[0],
            step_size=step_size,
            temperature=temperature,
            seed=seed,
        )
        self.drop = float(grid[left]) if drop is None else drop

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("landscape")
    def _landscape_exists(self, proposal: dict) -> str:
        check_one_of("landscape", proposal["value"], self.names)
        return proposal["value"]

    @traitlets.validate("step_size")
    def _step_size_fair(self, proposal: dict) -> float:
        if not 0 < proposal["value"] <= LARGEST_STEP:
            raise ValueError(
                f"step_size must be above 0 and at most {LARGEST_STEP}, got {proposal['value']!r}"
            )
        return proposal["value"]

    @traitlets.validate("temperature")
    def _temperature_fair(self, proposal: dict) -> float:
        low, high = TEMPERATURES
        if not low <= proposal["value"] <= high:
            raise ValueError(f"temperature must lie in [{low}, {high}], got {proposal['value']!r}")
        return proposal["value"]

    @traitlets.validate("drop")
    def _drop_on_the_grid(self, proposal: dict) -> float:
        low, high = self.extent
        if not low <= proposal["value"] <= high:
            raise ValueError(f"drop must lie in [{low:.4g}, {high:.4g}], got {proposal['value']!r}")
        return proposal["value"]

    @traitlets.validate("seed")
    def _seed_fair(self, proposal: dict) -> int:
        check_int("seed", proposal["value"], minimum=0, maximum=2**32 - 1)
        return proposal["value"]

    @property
    def index(self) -> int:
        """The step that is shown."""
        return int(self.step + 1e-6)

    @property
    def particles(self) -> np.ndarray:
        """Where the particles are at this step, float64 ``[N]``."""
        return self._run(self.index)

    @property
    def law(self) -> np.ndarray:
        """The stationary law p^(1/τ) on the grid, its density, float64 ``[G]``."""
        return self._law(len(self.sigmas) - 1)

    @property
    def settled(self) -> np.ndarray:
        """The law to which steps of this size settle, on the grid, float64 ``[G]``.

        That of a chain between cells a little wider than the grid. Where the noise of a step is
        finer than its cells, it is ``law``.
        """
        cells = self._chain_cells()
        if cells is None:
            return self.law
        mean = cells + self.step_size * np.interp(cells, self._x, self._own("score")[-1])
        away = cells[None, :] - mean[:, None]
        rows = np.exp(-(away**2) / (4 * self.step_size * self.temperature))
        law = stationary(rows / rows.sum(axis=1, keepdims=True)) / (cells[1] - cells[0])
        return np.interp(self._x, cells, law)

    @property
    def _x(self) -> np.ndarray:
        return np.linspace(*self.extent, self.arrays["energy"]["shape"][2])

    def _own(self, name: str) -> np.ndarray:
        """The energy or the score of the landscape at all levels, ``[L, G]``."""
        return self.array(name)[self.names.index(self.landscape)]

    def _level(self, step: int) -> int:
        """The level of noise at which the step from ``step`` on is made."""
        last = len(self.sigmas) - 1
        return min(step // self.level_steps, last) if self.annealed else last

    def _law(self, level: int) -> np.ndarray:
        energy = self._own("energy")[level]
        heights = np.exp(-(energy - energy.min()) / self.temperature)
        return heights / np.trapezoid(heights, self._x)

    def _run(self, steps: int) -> np.ndarray:
        n, (low, high) = self.n_particles, self.extent
        if self._noise is None or self._noise[0] != self.seed:
            eps = standard_noise(self.seed, n * self.n_steps).reshape(self.n_steps, n)
            self._noise = (self.seed, eps)
        eps, grid, score = self._noise[1], self._x, self._own("score")
        width = self.widths[self.names.index(self.landscape)]
        if self.scattered:
            x = low + (high - low) * (np.arange(n) + 0.5) / n
        else:
            x = self.drop + HEAP * eps[0]
        for step in range(steps):
            level = self._level(step)
            h = self.step_size * (1 + (self.sigmas[level] / width) ** 2)
            drift = np.interp(x, grid, score[level])
            x = x + h * drift + np.sqrt(2 * h * self.temperature) * eps[step + 1]
        return x

    def _chain_cells(self) -> np.ndarray | None:
        """The middles of the cells of a chain, as wide as the noise of a step allows."""
        low, high = self.extent
        gap = (high - low) / (self.arrays["energy"]["shape"][2] - 1)
        noise = np.sqrt(2 * self.step_size * self.temperature)
        if noise < FINE * gap:
            return None
        gap *= min(2, max(1, int(noise / gap)))
        count = int(1.5 * (high - low) / gap) + 1
        return (low + high) / 2 + gap * (np.arange(count) - (count - 1) / 2)

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The first, the middle and the last step of a run."""
        steps = self.telling_steps()
        figure = Figure(figsize=(7.2, 3.3))
        axes = figure.subplots(2, len(steps), sharex=True, sharey="row", squeeze=False)
        for column, step in zip(axes.T, steps, strict=True):
            self._draw_energy(column[0], step)
            self._draw_laws(column[1], step)
            column[0].set_title(self.step_name(step), fontsize=8)
            for ax in column:
                ax.tick_params(labelsize=6, length=2, color=LINE)
                pale_frame(ax)
        axes[0][0].set_ylabel("energy", fontsize=8)
        axes[1][0].set_ylabel("density", fontsize=8)
        figure.subplots_adjust(
            left=0.07, right=0.985, bottom=0.08, top=0.92, wspace=0.06, hspace=0.1
        )
        return png(figure)

    def _draw_energy(self, ax: Axes, step: int) -> None:
        energy, particles = self._own("energy")[self._level(step)], self._run(step)
        ax.plot(self._x, energy, color="#1f2328", lw=1.5)
        lifted = 0.12 * self.top * (np.arange(len(particles)) * 0.618 % 1)
        heights = np.interp(particles, self._x, energy) + lifted
        ax.scatter(particles, heights, s=3, color=PALETTE["model"], linewidths=0, zorder=3)
        ax.set(xlim=self.extent, ylim=(-0.06 * self.top, self.top))

    def _draw_laws(self, ax: Axes, step: int) -> None:
        law = self._law(self._level(step))
        ax.fill_between(self._x, law, color=PALETTE["data"], alpha=0.2, linewidth=0)
        ax.plot(self._x, law, color=PALETTE["data"], lw=1.5)
        edges = np.linspace(*self.extent, BINS + 1)
        counts, _ = np.histogram(self._run(step), edges)
        share = counts / (self.n_particles * (edges[1] - edges[0]))
        ax.stairs(share, edges, fill=True, color=PALETTE["model"], alpha=0.5)
        ax.set(xlim=self.extent, ylim=(0, 2 * self.law.max()))


# ------------------------------------------------------------------------------- the mathematics


def stationary(chain: np.ndarray) -> np.ndarray:
    """The law that a Markov chain with these transition probabilities ``[S, S]`` keeps, ``[S]``.

    By Grassmann, Taksar and Heyman (1985): Gauss elimination without a single subtraction, which
    is accurate for wells that hardly exchange anything, too.
    """
    p = chain.copy()
    for n in range(len(p) - 1, 0, -1):
        p[:n, n] /= p[n, :n].sum()
        p[:n, :n] += np.outer(p[:n, n], p[n, :n])
    law = np.ones(len(p))
    for n in range(1, len(p)):
        law[n] = law[:n] @ p[:n, n]
    return law / law.sum()


def _smeared(
    x: np.ndarray, energy: np.ndarray, sigmas: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """The energy and the score of p ∝ exp(−U) smeared by each σ, and last those of p: ``[L, G]``.

    With y the place before the noise, the score of the smeared p is E[y − x | x] / σ².
    """
    gap = x[1] - x[0]
    # Beyond the grid the energy goes on as a straight line, as far as the widest noise reaches.
    beyond = gap * np.arange(1, int(5 * max(sigmas) / gap) + 2)
    left, right = (energy[0] - energy[1]) / gap, (energy[-1] - energy[-2]) / gap
    y = np.concatenate([x[0] - beyond[::-1], x, x[-1] + beyond])
    whole = np.concatenate([energy[0] + left * beyond[::-1], energy, energy[-1] + right * beyond])
    p = np.exp(energy.min() - whole)
    away = y[None, :] - x[:, None]
    energies, scores = [], []
    for sigma in sigmas:
        weights = p * np.exp(-(away**2) / (2 * sigma**2))
        smeared = weights.sum(axis=1)
        energies.append(-np.log(smeared))
        scores.append((weights * away).sum(axis=1) / smeared / sigma**2)
    energies.append(energy)
    scores.append(-np.gradient(energy, gap, edge_order=2))
    return np.stack([one - one.min() for one in energies]), np.stack(scores)


def _barriers(x: np.ndarray, energy: np.ndarray) -> list[float]:
    """Where the energy is higher than on both sides: the borders between wells."""
    inner = energy[1:-1]
    return x[1:-1][(inner > energy[:-2]) & (inner >= energy[2:])].tolist()


def _width(x: np.ndarray, energy: np.ndarray) -> float:
    """ℓ of the narrowest well: U″ is at most 1/ℓ²."""
    curvature = np.diff(energy, 2).max() / (x[1] - x[0]) ** 2
    return float(1 / np.sqrt(curvature))


def _top(x: np.ndarray, energy: np.ndarray) -> float:
    """An energy high enough for all barriers to be seen."""
    barriers = np.interp(_barriers(x, energy), x, energy)
    highest = (barriers if len(barriers) else energy).max() - energy.min()
    return max(1.4 * float(highest), 2.0)


# -------------------------------------------------------------------------------------- arguments


def _grid(x: Array) -> np.ndarray:
    grid = to_array("x", x, "[G]", 1).astype(np.float64)
    gaps = np.diff(grid)
    if not 16 <= len(grid) <= 400 or gaps.min() <= 0 or np.ptp(gaps) > 1e-3 * gaps.mean():
        raise ValueError(
            "x must be 16 to 400 increasing, evenly spaced numbers, got "
            f"{len(grid)} from {grid[0]:.3g} to {grid[-1]:.3g}"
        )
    return np.linspace(grid[0], grid[-1], len(grid))


def _energies(landscapes: object, x: np.ndarray) -> dict[str, np.ndarray]:
    if not isinstance(landscapes, Mapping) or not landscapes:
        raise ValueError(f"landscapes must be a dict of names and energies, got {landscapes!r}")
    checked: dict[str, np.ndarray] = {}
    for name, values in landscapes.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"landscapes must have names, got {name!r}")
        which = f"landscapes[{name!r}]"
        energy = to_array(which, values, f"[{len(x)}] like x", 1).astype(np.float64)
        if len(energy) != len(x):
            raise ValueError(f"{which} must have shape [{len(x)}] like x, got [{len(energy)}]")
        if not (energy[0] > energy[1] and energy[-1] > energy[-2]):
            raise ValueError(
                f"{which} must rise towards both ends, else it keeps no particle: got "
                f"{energy[1]:.4g} and {energy[0]:.4g} at the left, {energy[-2]:.4g} and "
                f"{energy[-1]:.4g} at the right"
            )
        checked[name] = energy - energy.min()
    return checked


def _sigmas(sigmas: Sequence[float] | None, x: np.ndarray) -> list[float]:
    if sigmas is None:
        width = x[-1] - x[0]
        return np.geomspace(width / 4, max(width / 64, x[1] - x[0]), LEVELS).tolist()
    if isinstance(sigmas, str) or not isinstance(sigmas, Sequence) or not sigmas:
        raise ValueError(f"sigmas must be decreasing numbers, got {sigmas!r}")
    for k, sigma in enumerate(sigmas):
        check_number(f"sigmas[{k}]", sigma, minimum=float(x[1] - x[0]))
    if not (np.diff(sigmas) < 0).all():
        raise ValueError(f"sigmas must be decreasing numbers, got {list(sigmas)}")
    return [float(sigma) for sigma in sigmas]
