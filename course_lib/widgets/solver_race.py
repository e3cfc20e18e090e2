"""``SolverRace``: one start, three solvers of an ODE, as many calls of the field for each."""

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_one_of
from course_lib.widgets.base import LINE, CourseWidget, check_extent, pale_frame, png, to_array
from course_lib.widgets.palette import CLASS_COLOURS, PALETTE

__all__ = ["SolverRace"]

Array = np.ndarray | torch.Tensor | Sequence

# Every solver calls the field at times of one grid, and nowhere between: INTERVALS is a multiple of
# each number of calls, and each of these a multiple of 4.
INTERVALS = 384
CALLS = [4, 8, 12, 16, 24, 32, 48, 96]
REFERENCE = 2 * INTERVALS  # calls of RK4
MOST_MEANS = 200

# Calls for one step, the colour among those of the classes, and matplotlib's mark.
SOLVERS = {"Euler": (1, 1, "s"), "Heun": (2, 9, "^"), "RK4": (4, 4, "o")}


class SolverRace(CourseWidget):
    """One start in the plane; Euler, Heun and RK4 on their way from noise to data.

    The field is the exact velocity of a mixture of Gaussians N(m_k, s_k² I) along the path
    x_t = a x_0 + b ε. At the time t the mixture has the means a m_k and the variances
    V_k = a² s_k² + b²; a point x belongs to the k-th with the probability r_k, and

        v(x, t) = Σ_k r_k (a′ m_k + (a a′ s_k² + b b′) / V_k · (x − a m_k)).

    All solvers may call it equally often: Heun's steps are twice as long as Euler's, those of RK4
    four times. Behind their ways lies the reference, RK4 with 768 calls. In the other panel stands
    how far from it they end, for each number of calls. The start can be dragged; the browser
    computes everything.

    Args:
        means: ``[K, 2]``, the m_k, at most 200.
        times: ``[385]``, equally spaced times from the data's to the noise's:
            ``torch.linspace(path.t_min, path.t_max, SolverRace.NODES, dtype=torch.float64)``.
        a, b: ``[385]``, the path at these times: ``path.a(times)`` and ``path.b(times)``.
        da, db: ``[385]``, their derivatives a′ and b′.
        stds: the s_k, one number or ``[K]``.
        weights: ``[K]``, of the Gaussians, divided by their sum; by default all equal.
        start: (x, y), a first place at the noise's time.
        calls: how often the field may be called at first: 4, 8, 12, 16, 24, 32, 48 or 96.
        extent: (x0, x1, y0, y1), the part of the plane to show.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument is not as described, or some V_k is zero.

    ``widget.start`` and ``widget.calls`` can be read and set; ``widget.way(solver)`` is a solver's
    way, ``widget.reference`` the fine one, and ``widget.errors`` how far apart they end.
    """

    module = "solver_race.js"
    NODES = INTERVALS + 1

    # What is dragged must not be pulled back by an older echo from the kernel.
    start = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    level = traitlets.Int(0).tag(sync=True, echo_update=False)  # of the calls, an index of choices
    first = traitlets.List(traitlets.Float()).tag(sync=True)  # what "Reset" brings back
    choices = traitlets.List(traitlets.Int(), CALLS, read_only=True).tag(sync=True)
    solvers = traitlets.List().tag(sync=True)  # [name, calls for one step, colour] each
    means = traitlets.List().tag(sync=True)
    stds = traitlets.List(traitlets.Float()).tag(sync=True)
    weights = traitlets.List(traitlets.Float()).tag(sync=True)
    extent = traitlets.List(traitlets.Float()).tag(sync=True)
    # {"times", "a", "b", "da", "db"}: as numbers, since 16 bits would be seen in small errors.
    path = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        means: Array,
        *,
        times: Array,
        a: Array,
        b: Array,
        da: Array,
        db: Array,
        stds: Array | float = 0.3,
        weights: Array | None = None,
        start: Sequence[float] | None = None,
        calls: int = 8,
        extent: Sequence[float] | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        centres = _means(means)
        count = len(centres)
        spreads = _each("stds", np.full(count, stds) if np.ndim(stds) == 0 else stds, count)
        shares = _each("weights", np.ones(count) if weights is None else weights, count)
        if spreads.min() < 0 or shares.min() <= 0:
            raise ValueError(
                "stds must not be negative and weights must be positive, got "
                f"{spreads.min():.3g} and {shares.min():.3g}"
            )
        given = {"times": times, "a": a, "b": b, "da": da, "db": db}
        path = {name: _table(name, values) for name, values in given.items()}
        gaps = np.diff(path["times"])
        if gaps.min() <= 0 or np.ptp(gaps) > 1e-6 * gaps.max():
            raise ValueError(
                "times must rise in equal steps, got steps from "
                f"{gaps.min():.3g} to {gaps.max():.3g}"
            )
        variances = path["a"][:, None] ** 2 * spreads**2 + path["b"][:, None] ** 2
        if variances.min() <= 0:
            raise ValueError(
                "a² stds² + b² must be positive at all times, got 0: give Gaussians a width, or "
                "begin the times later"
            )
        noise = abs(path["b"][-1])
        half = max(2.4 * noise, 1.1 * float((np.abs(centres).max(1) + 2 * spreads).max()))
        shown = (-half, half, -half, half) if extent is None else check_extent("extent", extent)
        place = _place("start", (-noise, -0.2 * noise) if start is None else start)
        super().__init__(
            {},
            hint="",
            title=title,
            alt=alt or "The ways of three solvers from one start, and their errors by calls.",
            means=centres.tolist(),
            stds=spreads.tolist(),
            weights=(shares / shares.sum()).tolist(),
            path={name: values.tolist() for name, values in path.items()},
            extent=list(shown),
            start=place,
            first=place,
            level=_level(calls),
            solvers=[[name, each, colour] for name, (each, colour, _) in SOLVERS.items()],
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("start")
    def _start_is_a_place(self, proposal: dict) -> list[float]:
        return _place("start", proposal["value"])

    @traitlets.validate("level")
    def _level_exists(self, proposal: dict) -> int:
        if not 0 <= proposal["value"] < len(CALLS):
            raise ValueError(
                f"level must be an index of {CALLS}, 0 to {len(CALLS) - 1}, got {proposal['value']}"
            )
        return proposal["value"]

    @property
    def calls(self) -> int:
        """How often each solver may call the field."""
        return CALLS[self.level]

    @calls.setter
    def calls(self, calls: int) -> None:
        self.level = _level(calls)

    def velocity(self, x: Array, node: int) -> np.ndarray:
        """v(x, t) at the time ``times[node]``, float64 ``[..., 2]`` for places ``[..., 2]``."""
        a, b, da, db = (self.path[name][node] for name in ("a", "b", "da", "db"))
        means, stds = np.array(self.means), np.array(self.stds)
        variances = a**2 * stds**2 + b**2
        away = np.asarray(x, dtype=np.float64)[..., None, :] - a * means  # [..., K, 2]
        logits = np.log(self.weights) - np.log(variances) - (away**2).sum(-1) / (2 * variances)
        shares = np.exp(logits - logits.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        rate = (a * da * stds**2 + b * db) / variances
        return (shares[..., None] * (da * means + rate[:, None] * away)).sum(-2)

    def way(self, solver: str, calls: int | None = None) -> np.ndarray:
        """The places of ``"Euler"``, ``"Heun"`` or ``"RK4"`` from the start on, ``[S + 1, 2]``."""
        check_one_of("solver", solver, SOLVERS)
        each = SOLVERS[solver][0]
        steps = (self.calls if calls is None else calls) // each
        gap = INTERVALS // steps
        times = self.path["times"]
        h = -(times[-1] - times[0]) / steps
        places = [np.array(self.start)]
        for node in range(INTERVALS, 0, -gap):
            x = places[-1]
            k1 = self.velocity(x, node)
            if solver == "Euler":
                places.append(x + h * k1)
            elif solver == "Heun":
                k2 = self.velocity(x + h * k1, node - gap)
                places.append(x + h / 2 * (k1 + k2))
            else:
                k2 = self.velocity(x + h / 2 * k1, node - gap // 2)
                k3 = self.velocity(x + h / 2 * k2, node - gap // 2)
                k4 = self.velocity(x + h * k3, node - gap)
                places.append(x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
        return np.stack(places)

    @property
    def reference(self) -> np.ndarray:
        """The way of RK4 with 768 calls, ``[193, 2]``."""
        return self.way("RK4", REFERENCE)

    @property
    def errors(self) -> dict[str, float]:
        """How far from the reference each solver ends with the present number of calls."""
        end = self.reference[-1]
        return {name: float(np.linalg.norm(self.way(name)[-1] - end)) for name in SOLVERS}

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The ways, and the errors against the calls."""
        figure = Figure(figsize=(7.2, 3.5))
        plane, errors = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.06, right=0.99, bottom=0.13, top=0.97, wspace=0.25)
        reference = self.reference
        for (x, y), std in zip(self.means, self.stds, strict=True):
            size = max(2 * std, 0.01)
            circle = {"color": PALETTE["data"], "alpha": 0.25, "lw": 0}
            ring = np.linspace(0, 2 * np.pi, 60)
            plane.fill(x + size * np.cos(ring), y + size * np.sin(ring), **circle)
        plane.plot(*reference.T, color=PALETTE["noise"], lw=4, alpha=0.6)
        for name, (each, colour, mark) in SOLVERS.items():
            look = {"color": CLASS_COLOURS["light"][colour], "marker": mark, "lw": 1.2}
            plane.plot(*self.way(name).T, ms=4, **look)
            calls = [calls for calls in CALLS if calls >= each]
            away = [np.linalg.norm(self.way(name, n)[-1] - reference[-1]) for n in calls]
            errors.plot(calls, np.maximum(away, 1e-10), ms=5, label=name, **look)
        plane.plot(*self.start, "D", color=PALETTE["noise"], mec="white", ms=8)
        x0, x1, y0, y1 = self.extent
        plane.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
        errors.axvline(self.calls, color=LINE, lw=1, zorder=0)
        errors.set(xscale="log", yscale="log")
        errors.set_xticks(CALLS, [str(calls) for calls in CALLS])
        errors.set_xticks([], minor=True)
        errors.set_xlabel("calls of the field", fontsize=8, labelpad=1)
        errors.set_ylabel("error at the end", fontsize=8, labelpad=1)
        errors.legend(fontsize=8, frameon=False)
        for ax in (plane, errors):
            ax.tick_params(labelsize=7, length=2, color=LINE)
            pale_frame(ax)
        return png(figure)


# --------------------------------------------------------------------------------------- arguments


def _level(calls: int) -> int:
    if calls not in CALLS:
        raise ValueError(f"calls must be one of {', '.join(map(str, CALLS))}, got {calls!r}")
    return CALLS.index(calls)


def _means(values: Array) -> np.ndarray:
    array = to_array("means", values, "[K, 2]", 2)
    if array.shape[1] != 2 or len(array) > MOST_MEANS:
        raise ValueError(
            f"means must be at most {MOST_MEANS} places [K, 2], got {list(array.shape)}"
        )
    return array.astype(np.float64)


def _each(name: str, values: Array, count: int) -> np.ndarray:
    array = to_array(name, values, f"[{count}]", 1)
    if len(array) != count:
        raise ValueError(f"{name} must be one number for each mean, {count}, got {len(array)}")
    return array.astype(np.float64)


def _table(name: str, values: Array) -> np.ndarray:
    """``values`` at all nodes in float64, to ten digits."""
    array = to_array(name, values, f"[{INTERVALS + 1}]", 1)
    if len(array) != INTERVALS + 1:
        raise ValueError(
            f"{name} must be {INTERVALS + 1} numbers, SolverRace.NODES, got {len(array)}"
        )
    return np.round(torch.as_tensor(values, dtype=torch.float64).detach().cpu().numpy(), 10)


def _place(name: str, values: Sequence[float]) -> list[float]:
    numbers = [float(value) for value in values]
    if len(numbers) != 2 or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be two finite numbers (x, y), got {values!r}")
    return numbers
