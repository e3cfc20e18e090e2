"""``TimeSampling``: where a model trains, what that makes of its loss, and what was measured."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_number, check_one_of
from course_lib.widgets.base import LINE, CourseWidget, pale_frame, png, to_array
from course_lib.widgets.palette import PALETTE

__all__ = ["TimeSampling", "time_density"]

Array = np.ndarray | torch.Tensor | Sequence

SAMPLINGS = ("logit-normal", "mode", "cosmap", "uniform")
PARAMETERS = {"logit-normal": ("m", "s"), "mode": ("scale",), "cosmap": (), "uniform": ()}
RANGES = {"m": (-3.0, 3.0), "s": (0.2, 3.0), "scale": (-1.0, 1.7)}
TARGETS = ("velocity", "eps", "x0")  # whose errors are counted
MOST_ROWS = 12
CELLS = 400  # of [0, 1], where two densities are compared


# ------------------------------------------------------------------------------- the mathematics


def time_density(
    sampling: str, t: np.ndarray, *, m: float = 0.0, s: float = 1.0, scale: float = 1.29
) -> np.ndarray:
    """The density of times in (0, 1), as ``course_lib.diffusion.times`` has it: float64, like t.

    ``m`` and ``s`` are those of "logit-normal", ``scale`` is that of "mode".
    """
    t = np.asarray(t, dtype=np.float64)
    if sampling == "logit-normal":
        z = (np.log(t / (1 - t)) - m) / s
        return np.exp(-(z**2) / 2) / (s * math.sqrt(2 * math.pi) * t * (1 - t))
    if sampling == "cosmap":
        return 2 / (math.pi * (1 - 2 * t + 2 * t**2))
    if sampling == "mode":
        low, high = np.zeros_like(t), np.ones_like(t)
        for _ in range(60):  # the map from u to t falls, and has no inverse in closed form
            u = (low + high) / 2
            above = 1 - u - scale * (np.cos(math.pi / 2 * u) ** 2 - 1 + u) > t
            low, high = np.where(above, u, low), np.where(above, high, u)
        return 1 / np.abs(1 + scale * (1 - math.pi / 2 * np.sin(math.pi * u)))
    return np.ones_like(t)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The total variation between two densities on the middles of cells: 0 ... 1."""
    return float(np.abs(one - other).mean() / 2)


MIDDLES = (np.arange(CELLS) + 0.5) / CELLS


# ------------------------------------------------------------------------------------ the widget


class TimeSampling(CourseWidget):
    """A density of training times to drag, and what follows from it.

    Of times drawn with the density π(t) a model's loss at t counts π(t) times what it counts with
    uniform times. Errors of a velocity are errors of x_0 divided by t, and errors of the noise
    divided by 1 − t, so that the same training weighs the error of a guess of x_0 by π(t) / t² and
    that of the noise by π(t) / (1 − t)². The given loss at each time stands beside it, alone and
    times π(t): what training sees. The measured sampling whose density is nearest (by total
    variation) is named, with its quality.

    Reference:
        Esser et al. 2024, https://arxiv.org/abs/2403.03206, section 3.1.

    Args:
        times: ``[K]``, rising, in [0, 1], at least two.
        loss: ``[K]``, at least 0: a model's loss at each time.
        measured: up to 12 samplings that were measured after equal training, each a mapping with
            ``"name"``, ``"sampling"`` (below), its parameters (``"m"`` and ``"s"``, or
            ``"scale"``), ``"quality"`` and ``"error"``.
        quality: what the quality is, such as "energy distance (lower is better)".
        sampling: the first one: "logit-normal", "mode", "cosmap" or "uniform".
        m: of the logit-normal: the mean of the logit, from −3 to 3.
        s: of the logit-normal: the standard deviation of the logit, from 0.2 to 3.
        scale: of "mode": how high its middle is, from −1 to 1.7.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    Raises ``ValueError`` where an argument is not as described.

    ``widget.sampling``, ``widget.m``, ``widget.s``, ``widget.scale`` and ``widget.target``
    ("velocity", "eps" or "x0": whose loss is weighed) can be read and set. ``widget.density(t)`` is
    the density, ``widget.weight(t)`` the weight of the target's loss, ``widget.nearest`` the
    measured sampling that is nearest.

    Example:
        >>> row = {"name": "in the middle", "sampling": "logit-normal", "m": 0, "s": 1}
        >>> widget = TimeSampling(
        ...     [0.1, 0.5, 0.9], [1.0, 0.4, 0.8],
        ...     [row | {"quality": 0.41, "error": 0.02}], quality="distance",
        ... )
        >>> widget.m = 0.5
        >>> widget.nearest["name"]
        'in the middle'
    """

    module = "time_sampling.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    sampling = traitlets.Unicode("logit-normal").tag(sync=True, echo_update=False)
    m = traitlets.Float(0.0).tag(sync=True, echo_update=False)
    s = traitlets.Float(1.0).tag(sync=True, echo_update=False)
    scale = traitlets.Float(1.29).tag(sync=True, echo_update=False)
    target = traitlets.Unicode("velocity").tag(sync=True, echo_update=False)
    measured = traitlets.List().tag(sync=True)
    quality = traitlets.Unicode().tag(sync=True)
    ranges = traitlets.Dict({name: list(ends) for name, ends in RANGES.items()}).tag(sync=True)

    def __init__(
        self,
        times: Array,
        loss: Array,
        measured: Sequence[Mapping] = (),
        *,
        quality: str = "quality",
        sampling: str = "logit-normal",
        m: float = 0.0,
        s: float = 1.0,
        scale: float = 1.29,
        title: str = "",
        alt: str = "",
    ) -> None:
        when = to_array("times", times, "[K]", 1)
        if len(when) < 2 or when[0] < 0 or when[-1] > 1 or (np.diff(when) <= 0).any():
            raise ValueError(
                f"times must rise in [0, 1], at least two of them, got {when.tolist()}"
            )
        losses = to_array("loss", loss, f"[{len(when)}]", 1)
        if losses.shape != when.shape:
            raise ValueError(f"loss must have shape [{len(when)}], got {list(losses.shape)}")
        if losses.min() < 0:
            raise ValueError(f"loss must be at least 0, got {losses.min():.3g}")
        if not isinstance(quality, str):
            raise ValueError(f"quality must be a string, got {quality!r}")
        super().__init__(
            {"times": when, "loss": losses},
            hint="send fewer times",
            title=title,
            alt=alt
            or "The density of the times a model is trained at, its loss at each time, and the "
            "weight that this density gives to the loss.",
            sampling=sampling,
            m=m,
            s=s,
            scale=scale,
            measured=_rows(measured),
            quality=quality,
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("sampling")
    def _sampling_exists(self, proposal: dict) -> str:
        check_one_of("sampling", proposal["value"], SAMPLINGS)
        return proposal["value"]

    @traitlets.validate("target")
    def _target_exists(self, proposal: dict) -> str:
        check_one_of("target", proposal["value"], TARGETS)
        return proposal["value"]

    @traitlets.validate("m", "s", "scale")
    def _parameter_in_range(self, proposal: dict) -> float:
        name = proposal["trait"].name
        low, high = RANGES[name]
        check_number(name, proposal["value"], minimum=low, maximum=high)
        return proposal["value"]

    def density(self, t: Array) -> np.ndarray:
        """π(t) of the sampling that is shown, at times in (0, 1)."""
        return time_density(self.sampling, np.asarray(t), m=self.m, s=self.s, scale=self.scale)

    def weight(self, t: Array) -> np.ndarray:
        """What an error of the target at t counts: as it does at uniform times with this weight."""
        t = np.asarray(t, dtype=np.float64)
        divide = {"velocity": 1.0, "eps": (1 - t) ** 2, "x0": t**2}[self.target]
        return self.density(t) / divide

    @property
    def distances(self) -> list[float]:
        """How far each measured sampling is from the one that is shown: the total variation."""
        shown = self.density(MIDDLES)
        return [distance(shown, time_density(t=MIDDLES, **_of(row))) for row in self.measured]

    @property
    def nearest(self) -> dict | None:
        """The measured sampling that is nearest; None where none was measured."""
        return self.measured[int(np.argmin(self.distances))] if self.measured else None

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The density, with those that were measured behind it, and the loss at each time."""
        figure = Figure(figsize=(7.4, 2.9))
        left, right = figure.subplots(1, 2)
        for row in self.measured:
            left.plot(MIDDLES, time_density(t=MIDDLES, **_of(row)), color=LINE, lw=1, zorder=1)
        left.plot(MIDDLES, self.density(MIDDLES), color=PALETTE["model"], lw=2)
        left.set(xlim=(0, 1), ylim=(0, 4), title=self._name)
        when, loss = self.array("times"), self.array("loss")
        right.plot(when, loss, color=PALETTE["data"], lw=2, label="loss at t")
        seen = loss * self.density(when.clip(1e-4, 1 - 1e-4))
        right.plot(when, seen, "--", color=PALETTE["model"], lw=1.5, label="loss × density")
        right.set(xlim=(0, 1), ylim=(0, None))
        right.legend(fontsize=7, edgecolor=LINE)
        for ax in (left, right):
            ax.set_xlabel("time t (0: data, 1: noise)", fontsize=7, labelpad=1)
            ax.title.set_fontsize(8)
            ax.tick_params(labelsize=6, length=2, color=LINE)
            pale_frame(ax)
        figure.tight_layout(pad=0.6)
        return png(figure)

    @property
    def _name(self) -> str:
        given = {
            "m": f"m = {self.m:.2f}",
            "s": f"s = {self.s:.2f}",
            "scale": f"s = {self.scale:.2f}",
        }
        return ", ".join([self.sampling, *(given[one] for one in PARAMETERS[self.sampling])])


# -------------------------------------------------------------------------------------- arguments


def _of(row: Mapping) -> dict:
    """Which density a measured row is of."""
    return {name: row[name] for name in ("sampling", *PARAMETERS[row["sampling"]])}


def _rows(measured: Sequence[Mapping]) -> list[dict]:
    listed = isinstance(measured, list | tuple) and all(isinstance(r, Mapping) for r in measured)
    if not listed or len(measured) > MOST_ROWS:
        raise ValueError(f"measured must be at most {MOST_ROWS} mappings, got {measured!r}")
    rows = []
    for i, row in enumerate(measured):
        own = f"measured[{i}]"
        sampling = row.get("sampling")
        check_one_of(f"{own}['sampling']", sampling, SAMPLINGS)
        wanted = {"name", "sampling", "quality", "error", *PARAMETERS[sampling]}
        if set(row) != wanted:
            raise ValueError(f"{own} must have the keys {sorted(wanted)}, got {sorted(row)}")
        if not isinstance(row["name"], str) or not row["name"]:
            raise ValueError(f"{own}['name'] must be a string, got {row['name']!r}")
        for name in PARAMETERS[sampling]:
            low, high = RANGES[name]
            check_number(f"{own}[{name!r}]", row[name], minimum=low, maximum=high)
        check_number(f"{own}['quality']", row["quality"])
        check_number(f"{own}['error']", row["error"], minimum=0)
        rows.append(dict(row))
    return rows
