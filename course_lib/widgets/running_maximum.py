"""``RunningMaximum``: numbers come one by one; a new maximum shrinks all by one factor."""

from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_number, check_one_of
from course_lib.widgets.base import LINE, PlayerWidget, pale_frame, png, to_array
from course_lib.widgets.palette import PALETTE

__all__ = ["RunningMaximum"]

Array = np.ndarray | torch.Tensor | Sequence[float]

MOST_NUMBERS = 12
MOST_SHIFT = 100.0
LARGEST = 1e6  # of a logit or a value


class RunningMaximum(PlayerWidget):
    """A softmax whose numbers come one by one, and what a new maximum means for those before.

    After each number s_j three are kept, the maximum, the sum and the output so far:

        m' = max(m, s_j)
        ℓ' = exp(m − m') ℓ + exp(s_j − m')
        o' = exp(m − m') o + exp(s_j − m') v_j

    Step k of the player is what is known after k numbers. Each number can be dragged.

    Args:
        logits: ``[N]``, the numbers s_j, 2 to 12.
        values: ``[N]``, a value v_j beside each, so that the output o / ℓ is shown; None for none.
        shift: A number added to all logits, −100 to 100: the terms don't change, but the sum of
            exp(s_j + shift) without a maximum leaves what float16 and float32 can hold.
        step: How many numbers have come at first.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    ``widget.logits``, ``values``, ``shift``, ``step`` and ``playing`` can be read and set.
    ``widget.running`` is what is kept after each step, ``widget.terms`` what is drawn at this one,
    ``widget.redone`` what new maxima have cost, and ``widget.naive_sum(dtype)`` the sum without.

    Reference:
        Milakov & Gimelshein 2018, https://arxiv.org/abs/1805.02867, algorithm 3.
    """

    module = "running_maximum.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    logits = traitlets.List(traitlets.Float()).tag(sync=True, echo_update=False)
    shift = traitlets.Float(0.0).tag(sync=True, echo_update=False)
    values = traitlets.List(traitlets.Float()).tag(sync=True)
    # What does not change.
    limits = traitlets.List(traitlets.Float()).tag(sync=True)
    most_shift = traitlets.Float(MOST_SHIFT, read_only=True).tag(sync=True)

    def __init__(
        self,
        logits: Array,
        *,
        values: Array | None = None,
        shift: float = 0.0,
        step: float = 0,
        title: str = "",
        alt: str = "",
    ) -> None:
        numbers = _numbers("logits", logits)
        if not 2 <= len(numbers) <= MOST_NUMBERS:
            raise ValueError(f"logits must be 2 to {MOST_NUMBERS} numbers, got {len(numbers)}")
        low, high = min(numbers), max(numbers)
        room = 0.25 * (high - low) or 1.0
        super().__init__(
            {},
            hint="",
            title=title,
            alt=alt or "Bars of numbers and of exp(s − m): a new maximum shrinks all of them.",
            n_steps=len(numbers) + 1,
            labels=None,
            logits=numbers,
            values=[] if values is None else _numbers("values", values),
            limits=[low - room, high + room],
            shift=shift,
            step=step,
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("logits")
    def _as_many_logits(self, proposal: dict) -> list[float]:
        return self._as_many("logits", proposal["value"])

    @traitlets.validate("values")
    def _a_value_each(self, proposal: dict) -> list[float]:
        return self._as_many("values", proposal["value"]) if proposal["value"] else []

    def _as_many(self, name: str, numbers: list[float]) -> list[float]:
        count = self.n_steps - 1
        if len(numbers) != count:
            raise ValueError(f"{name} must be {count} numbers, one a step, got {len(numbers)}")
        for k, number in enumerate(numbers):
            check_number(f"{name}[{k}]", number, minimum=-LARGEST)
        return numbers

    @traitlets.validate("shift")
    def _shift_in_range(self, proposal: dict) -> float:
        shift = proposal["value"]
        if not -MOST_SHIFT <= shift <= MOST_SHIFT:
            raise ValueError(f"shift must lie in [-{MOST_SHIFT:g}, {MOST_SHIFT:g}], got {shift}")
        return shift

    # ---------------------------------------------------------------------------------- mathematics

    @property
    def running(self) -> np.ndarray:
        """The maximum, the sum and the output (not yet divided) after each step, ``[N + 1, 3]``."""
        m, total, output = -np.inf, 0.0, 0.0
        states = [(m, total, output)]
        for s, v in zip(self.logits, self.values or [0.0] * len(self.logits), strict=True):
            larger = max(m, s)
            factor, term = np.exp(m - larger), np.exp(s - larger)
            m, total, output = larger, factor * total + term, factor * output + term * v
            states.append((m, total, output))
        return np.array(states)

    @property
    def terms(self) -> np.ndarray:
        """exp(s_j − m) of the k numbers that have come; one that is coming counts whole."""
        k = int(np.ceil(self.step))
        return np.exp(np.array(self.logits[:k]) - self.running[k, 0])

    @property
    def redone(self) -> tuple[int, int]:
        """What new maxima have cost up to this step: (factors, terms computed again).

        One factor each for who keeps m and ℓ; for who keeps the terms, all those so far.
        """
        moves = np.flatnonzero(np.diff(self.running[: int(np.ceil(self.step)) + 1, 0]) > 0)
        moves = moves[moves > 0]  # there was nothing before the first number
        return len(moves), int(moves.sum())

    def naive_sum(self, dtype: str = "float32") -> float:
        """The sum of exp(s_j + shift) so far, every step of it rounded to ``dtype``."""
        check_one_of("dtype", dtype, ("float16", "float32"))
        total = 0.0
        with np.errstate(over="ignore"):  # that is the point
            for s in self.logits[: int(np.ceil(self.step))]:
                term = float(np.exp(s + self.shift).astype(dtype))
                total = float(np.float64(total + term).astype(dtype))
        return total

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The numbers with their running maximum, and the terms when all have come."""
        figure = Figure(figsize=(7.2, 3.4))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        figure.subplots_adjust(left=0.09, right=0.98, bottom=0.08, top=0.97, hspace=0.12)
        numbers, maxima = np.array(self.logits), self.running[1:, 0]
        places = np.arange(1, len(numbers) + 1)
        floor = min(self.limits[0], numbers.min())
        above.bar(places, numbers - floor, bottom=floor, color=PALETTE["data"], alpha=0.6)
        above.stairs(maxima, np.arange(len(numbers) + 1) + 0.5, baseline=None,
                     color=PALETTE["model"], lw=2)  # fmt: skip
        above.set_ylabel("numbers s, maximum m", fontsize=8)
        below.bar(places, np.exp(numbers - maxima[-1]), color=PALETTE["data"])
        below.set_ylabel("exp(s − m)", fontsize=8)
        below.set_xticks(places)
        for ax in (above, below):
            ax.tick_params(labelsize=7, length=2, color=LINE)
            pale_frame(ax)
        return png(figure)


def _numbers(name: str, values: Array) -> list[float]:
    to_array(name, values, "[N]", 1)
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64).tolist()
