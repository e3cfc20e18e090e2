"""``GuidedPlane``: guidance on a mixture in the plane, where all is known in closed form."""

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_one_of
from course_lib.widgets.base import (
    LINE,
    PlayerWidget,
    check_extent,
    check_labels,
    pale_frame,
    png,
    to_array,
)
from course_lib.widgets.palette import CLASS_COLOURS, PALETTE
from course_lib.widgets.reparameterization import standard_noise

__all__ = ["GuidedPlane"]

Array = np.ndarray | torch.Tensor | Sequence

MOST_W = 8.0
MOST_MEANS = 12
MOST_PARTICLES = 400
STEPS = 40
GRID = 96  # cells of the plane in each direction, on which the true density is summed up
REGION = 0.95  # of the true density lie inside the line
SHOWN = ("unconditional", "conditional", "guided", "none")
COLOURS = (4, 2, 5)  # of the classes, among those of the course


class GuidedPlane(PlayerWidget):
    """Particles that follow a guided score, and the density that one might think they follow.

    The data are a mixture of Gaussians N(m_k, s_k² I) in the plane, each of a class. Noised along
    EDM's path, x = x_0 + σ ε, they are Gaussians of variance V_k = s_k² + σ², and with r_k the
    probability of the k-th, seen from x,

        ∇ log p(x; σ) = Σ_k r_k (m_k − x) / V_k,

    and the same over the Gaussians of the class y for ∇ log p(x | y; σ). The guided score is
    ∇ log p + w (∇ log p(· | y) − ∇ log p): w = 0 is the marginal, w = 1 the conditional.

    In one panel the particles go from noise to data along dx/dσ = −σ · (guided score), by Heun's
    method; arrows show where one of the three scores leads, and at a place that can be dragged all
    three. It is drawn in coordinates x · S / √(S² + σ²), S being the size of the data, so that
    noise and data are equally large. In the other panel lie the particles' ends on the true density
    p(x) · p(y | x)^w of that w, whose region of 95 % is outlined. First is shown the noise level
    that is as large as the data.

    Args:
        means: ``[K, 2]``, the m_k, at most 12.
        labels: ``[K]``, the class of each: 0, 1 and perhaps 2, all of which occur.
        stds: the s_k, one positive number or ``[K]``.
        weights: ``[K]``, of the Gaussians, divided by their sum; by default all equal.
        names: of the classes; by default A, B and C.
        sigmas: ``[T]``, decreasing noise levels, 2 to 81, a step from each to the next; by default
            41 from 20 to 0.02 of the data's size, spaced by Karras et al. with ρ = 7.
        w: the scale of guidance, 0 to 8.
        target: the name of the class y; by default the first.
        n_particles: at most 400.
        seed: of their noise.
        place: (x, y), where all three scores are shown, in drawn coordinates.
        extent: (x0, x1, y0, y1), the part of the plane to show.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument is not as described.

    ``widget.w``, ``widget.target``, ``widget.step`` (a float), ``widget.playing``,
    ``widget.arrows`` (the score whose arrows are shown, or ``"none"``), ``widget.place`` and
    ``widget.seed`` can be read and set. ``widget.sigma`` is the noise level at this step,
    ``widget.particles`` is where the particles are then, ``widget.ends`` where they end.
    ``widget.score(x, sigma)`` is the guided score, ``widget.tilted(x)`` the true density;
    ``widget.inside`` and ``widget.apart`` compare the two.

    Example:
        >>> plane = GuidedPlane([[-1, 0], [1, 0]], [0, 1], stds=0.5, w=1.0, target="B")
        >>> bool((plane.ends[:, 0] > 0).mean() > 0.9)  # the conditional: class B alone
        True
    """

    module = "guided_plane.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    w = traitlets.Float(2.0).tag(sync=True, echo_update=False)
    target = traitlets.Unicode().tag(sync=True, echo_update=False)
    arrows = traitlets.Unicode("guided").tag(sync=True, echo_update=False)
    place = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    seed = traitlets.Int(0).tag(sync=True, echo_update=False)
    means = traitlets.List().tag(sync=True)
    stds = traitlets.List(traitlets.Float()).tag(sync=True)
    weights = traitlets.List(traitlets.Float()).tag(sync=True)
    classes = traitlets.List(traitlets.Int()).tag(sync=True)  # of the Gaussians
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)  # of the classes
    sigmas = traitlets.List(traitlets.Float()).tag(sync=True)
    size = traitlets.Float(1.0).tag(sync=True)  # S, the root mean square of the data's numbers
    extent = traitlets.List(traitlets.Float()).tag(sync=True)
    n_particles = traitlets.Int(1).tag(sync=True)
    # What the browser must know.
    most_w = traitlets.Float(MOST_W, read_only=True).tag(sync=True)
    grid = traitlets.Int(GRID, read_only=True).tag(sync=True)
    region = traitlets.Float(REGION, read_only=True).tag(sync=True)
    colours = traitlets.List(default_value=list(COLOURS), read_only=True).tag(sync=True)

    def __init__(
        self,
        means: Array,
        labels: Array,
        *,
        stds: Array | float = 0.3,
        weights: Array | None = None,
        names: Sequence[str] | None = None,
        sigmas: Array | None = None,
        w: float = 2.0,
        target: str | None = None,
        n_particles: int = 300,
        seed: int = 0,
        place: Sequence[float] | None = None,
        extent: Sequence[float] | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        centres = _means(means)
        count = len(centres)
        classes = _classes(labels, count)
        spreads = _each("stds", np.full(count, stds) if np.ndim(stds) == 0 else stds, count)
        shares = _each("weights", np.ones(count) if weights is None else weights, count)
        shares /= shares.sum()
        check_int("n_particles", n_particles, minimum=1, maximum=MOST_PARTICLES)
        called = check_labels("names", names, max(classes) + 1) or list("ABC"[: max(classes) + 1])
        if len(set(called)) < len(called):
            raise ValueError(f"names must be different, got {called}")
        size = float(np.sqrt((shares * ((centres**2).sum(1) / 2 + spreads**2)).sum()))
        levels = _sigmas(_karras(size) if sigmas is None else sigmas)
        half = max(2.6 * size, float((np.abs(centres).max(1) + 3 * spreads).max()))
        shown = (-half, half, -half, half) if extent is None else check_extent("extent", extent)
        super().__init__(
            {},
            n_steps=len(levels),
            labels=[f"σ = {sigma:.3g}" for sigma in levels],
            hint="",
            title=title,
            alt=alt
            or f"Particles that follow the guided score of a mixture of {len(called)} classes from "
            "noise to data, and beside them the true density p(x) p(y | x)^w.",
            means=centres.tolist(),
            stds=spreads.tolist(),
            weights=shares.tolist(),
            classes=classes,
            names=called,
            sigmas=levels.tolist(),
            size=size,
            extent=[float(value) for value in shown],
            n_particles=n_particles,
            seed=seed,
            w=w,
            target=called[0] if target is None else target,
        )
        x0, x1, y0, y1 = self.extent
        spot = (0.35 * x0 + 0.65 * x1, 0.4 * y0 + 0.6 * y1) if place is None else place
        self.place = [float(value) for value in spot]
        self.step = float(np.abs(np.log(levels / size)).argmin())

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("w")
    def _w_fair(self, proposal: dict) -> float:
        if not 0 <= proposal["value"] <= MOST_W:
            raise ValueError(f"w must lie in [0, {MOST_W:g}], got {proposal['value']!r}")
        return proposal["value"]

    @traitlets.validate("target")
    def _target_exists(self, proposal: dict) -> str:
        check_one_of("target", proposal["value"], self.names)
        return proposal["value"]

    @traitlets.validate("arrows")
    def _arrows_known(self, proposal: dict) -> str:
        check_one_of("arrows", proposal["value"], SHOWN)
        return proposal["value"]

    @traitlets.validate("place")
    def _place_shown(self, proposal: dict) -> list[float]:
        place, (x0, x1, y0, y1) = proposal["value"], self.extent
        if len(place) != 2 or not (x0 <= place[0] <= x1 and y0 <= place[1] <= y1):
            raise ValueError(
                f"place must be (x, y) in [{x0:.4g}, {x1:.4g}] x [{y0:.4g}, {y1:.4g}], got {place}"
            )
        return place

    @traitlets.validate("seed")
    def _seed_fair(self, proposal: dict) -> int:
        check_int("seed", proposal["value"], minimum=0, maximum=2**32 - 1)
        return proposal["value"]

    @property
    def sigma(self) -> float:
        """The noise level that is shown; between two steps, their geometric mixture."""
        k = min(int(self.step), self.n_steps - 2)
        low, high = self.sigmas[k : k + 2]
        return float(low * (high / low) ** (self.step - k))

    @property
    def particles(self) -> np.ndarray:
        """Where the particles are at this step, float64 ``[N, 2]``; between two, their mixture in
        drawn coordinates.
        """
        k = min(int(self.step), self.n_steps - 2)
        way = self._way(k + 1)
        low, high = (way[i] * self._drawn(self.sigmas[i]) for i in (k, k + 1))
        return (low + (high - low) * (self.step - k)) / self._drawn(self.sigma)

    @property
    def ends(self) -> np.ndarray:
        """Where the particles end, float64 ``[N, 2]``."""
        return self._way(self.n_steps - 1)[-1]

    def score(self, x: Array, sigma: float, w: float | None = None) -> np.ndarray:
        """The guided score at places ``x [..., 2]``, by default with the present w."""
        x = np.asarray(x, dtype=np.float64)
        logits, variances, ours = self._logits(x, sigma)
        pull = (np.array(self.means) - x[..., None, :]) / variances[:, None]
        plain = (_softmax(logits)[..., None] * pull).sum(-2)
        own = (_softmax(logits[..., ours])[..., None] * pull[..., ours, :]).sum(-2)
        return plain + (self.w if w is None else w) * (own - plain)

    def tilted(self, x: Array) -> np.ndarray:
        """The true density p(x) · p(y | x)^w at places ``x [..., 2]``, summing up to 1."""
        return np.exp(self._log_tilted(np.asarray(x, dtype=np.float64))) / self._total

    @property
    def inside(self) -> float:
        """Of the particles' ends, the share in the region of 95 % of the true density."""
        return float((self.tilted(self.ends) >= self._edge).mean())

    @property
    def apart(self) -> float:
        """How far the mean of the particles' ends lies from that of the true density."""
        cells, area = self._cells()
        true = (self.tilted(cells)[..., None] * cells).sum((0, 1)) * area
        return float(np.linalg.norm(self.ends.mean(0) - true))

    def _drawn(self, sigma: float) -> float:
        """By what places are multiplied to be drawn."""
        return self.size / np.sqrt(self.size**2 + sigma**2)

    def _logits(self, x: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log densities of all Gaussians at x, ``[..., K]``, their variances, and which are y's."""
        variances = np.array(self.stds) ** 2 + sigma**2
        squared = ((x[..., None, :] - np.array(self.means)) ** 2).sum(-1)
        logits = np.log(self.weights) - np.log(2 * np.pi * variances) - squared / (2 * variances)
        return logits, variances, np.array(self.classes) == self.names.index(self.target)

    def _log_tilted(self, x: np.ndarray) -> np.ndarray:
        logits, _, ours = self._logits(x, 0.0)
        marginal = _log_sum(logits)
        return marginal + self.w * (_log_sum(logits[..., ours]) - marginal)

    def _cells(self) -> tuple[np.ndarray, float]:
        """The middles of the cells of the plane, ``[GRID, GRID, 2]``, and how large one is."""
        x0, x1, y0, y1 = self.extent
        middles = (np.arange(GRID) + 0.5) / GRID
        places = np.meshgrid(x0 + (x1 - x0) * middles, y0 + (y1 - y0) * middles)
        return np.stack(places, -1), (x1 - x0) * (y1 - y0) / GRID**2

    @property
    def _total(self) -> float:
        cells, area = self._cells()
        return float(np.exp(self._log_tilted(cells)).sum() * area)

    @property
    def _edge(self) -> float:
        """The least density in the smallest region that holds 95 %."""
        cells, area = self._cells()
        falling = np.sort(self.tilted(cells).ravel())[::-1]
        return float(falling[np.searchsorted(falling.cumsum() * area, REGION)])

    def _way(self, steps: int) -> list[np.ndarray]:
        """The particles at the first noise levels, ``steps`` steps of Heun's method."""
        noise = standard_noise(self.seed, 2 * self.n_particles).reshape(-1, 2)
        way = [self.sigmas[0] * noise]
        for sigma, after in zip(self.sigmas[:steps], self.sigmas[1 : steps + 1], strict=True):
            x = way[-1]
            first = -sigma * self.score(x, sigma)
            second = -after * self.score(x + (after - sigma) * first, after)
            way.append(x + (after - sigma) / 2 * (first + second))
        return way

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The particles at three noise levels, and their ends on the true density."""
        steps, (x0, x1, y0, y1) = self.telling_steps(), self.extent
        figure = Figure(figsize=(2.05 * (len(steps) + 1), 2.35))
        axes = figure.subplots(1, len(steps) + 1, sharey=True)
        way = self._way(self.n_steps - 1)
        turn = np.linspace(0, 2 * np.pi, 60)
        ring = np.stack([np.cos(turn), np.sin(turn)], -1)
        look = {"s": 3, "color": PALETTE["model"], "linewidths": 0}
        for ax, step in zip(axes, steps, strict=False):
            scale = self._drawn(self.sigmas[step])
            for mean, std, label in zip(self.means, self.stds, self.classes, strict=True):
                colour = CLASS_COLOURS["light"][COLOURS[label]]
                disc = scale * (np.array(mean) + 2 * np.hypot(std, self.sigmas[step]) * ring)
                ax.fill(*disc.T, color=colour, alpha=0.12, lw=0)
            ax.scatter(*(scale * way[step]).T, **look)
            ax.set_title(self.labels[step], fontsize=8)
        cells, _ = self._cells()
        true = axes[-1]
        density = self.tilted(cells)
        levels = [self._edge, *np.linspace(self._edge, density.max(), 5)[1:]]
        true.contourf(*np.moveaxis(cells, -1, 0), density, levels, cmap="Blues", alpha=0.7)
        true.contour(*np.moveaxis(cells, -1, 0), density, levels[:1], colors=PALETTE["data"])
        true.scatter(*self.ends.T, **look)
        true.set_title(f"p(x) p({self.target} | x)^w, w = {self.w:.3g}", fontsize=8)
        for ax in axes:
            ax.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
            ax.tick_params(labelsize=6, length=2, color=LINE)
            pale_frame(ax)
        figure.subplots_adjust(left=0.04, right=0.99, bottom=0.08, top=0.9, wspace=0.08)
        return png(figure, colours=128)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def _log_sum(logits: np.ndarray) -> np.ndarray:
    most = logits.max(-1)
    return most + np.log(np.exp(logits - most[..., None]).sum(-1))


# --------------------------------------------------------------------------------------- arguments


def _karras(size: float, rho: float = 7.0) -> np.ndarray:
    """Noise levels from 20 to 0.02 times the data's size (Karras et al. 2022, eq. 5)."""
    ends = (size * np.array([20.0, 0.02])) ** (1 / rho)
    return np.linspace(*ends, STEPS + 1) ** rho


def _whole(values: Array) -> np.ndarray:
    """``values``, which were found to be good, in float64."""
    return torch.as_tensor(values, dtype=torch.float64).detach().cpu().numpy().copy()


def _means(values: Array) -> np.ndarray:
    array = to_array("means", values, "[K, 2]", 2)
    if array.shape[1] != 2 or len(array) > MOST_MEANS:
        raise ValueError(
            f"means must be at most {MOST_MEANS} places [K, 2], got {list(array.shape)}"
        )
    return _whole(values)


def _classes(labels: Array, count: int) -> list[int]:
    array = to_array("labels", labels, f"[{count}]", 1)
    found = sorted(set(array.tolist()))
    if len(array) != count or found not in ([0, 1], [0, 1, 2]):
        raise ValueError(
            f"labels must be {count} numbers 0, 1 and perhaps 2, each of which occurs, "
            f"got {array.tolist()}"
        )
    return array.astype(int).tolist()


def _each(name: str, values: Array, count: int) -> np.ndarray:
    array = to_array(name, values, f"[{count}]", 1)
    if len(array) != count or array.min() <= 0:
        raise ValueError(f"{name} must be {count} positive numbers, got {array.tolist()}")
    return _whole(values)


def _sigmas(values: Array) -> np.ndarray:
    array = to_array("sigmas", values, "[T]", 1)
    if not 2 <= len(array) <= 81 or array.min() <= 0 or np.diff(array).max() >= 0:
        raise ValueError(
            f"sigmas must be 2 to 81 positive numbers that decrease, got {array.tolist()}"
        )
    return _whole(values)
