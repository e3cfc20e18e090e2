"""Exercises of chapter 07: DDIM's times, steps and fresh noise, up to z, and between two z."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from course_lib.diffusion import (
    DDPM,
    DiscreteSchedule,
    IdealDenoiser,
    convert,
    ddim_invert,
    ddim_sample,
    ddim_step,
    ddim_times,
    last,
    slerp,
)
from course_lib.exercises.attempt import Attempt, Mistake, same, take_number
from course_lib.exercises.ch06_ddpm import EPS_NET
from course_lib.exercises.formula import Advice, Case, Wrong, formula
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise
from course_lib.experiments.two_clusters import ClusterReport, run_times

__all__: list[str] = []


def _between(low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand((), generator=generator)


# --- One step ------------------------------------------------------------------------------------


@exercise(
    "07.predict_one_step",
    task="Predict: half of the data lie near −2, the other half near 2. A perfect network, 2,000 "
    "different noises, DDIM with a single step from t = T − 1: near which number do all land?",
    solution=[run_times, ddim_step],
    hints=[
        "A single step from noise to the data: what comes out is the network's guess of x_0.",
        "The loss is a squared error. Which guess is best if x_t is nearly pure noise, and says "
        "nearly nothing about x_0?",
        "The mean of all the data.",
    ],
)
def _check_predict_one_step(attempt: Any, generator: torch.Generator) -> str:
    question = "Near which number on the line do the samples land?"
    if isinstance(attempt, tuple | list | set) and len(attempt) == 2:
        raise Mistake(
            "You gave two numbers: that is where the data are, and where many steps lead.",
            "What is the best guess of x_0 from pure noise, if the error counts squared?",
        )
    got = take_number(attempt, question)
    one, two, ten = (run_times(ddim_times(1000, steps)) for steps in (1, 2, 10))
    if abs(got) <= 0.1:
        return (
            f"0, the mean of the data, where there are none: the mean of |x| is {one.centre:.2f}. "
            "That is no fault of the network: x_T says nothing about x_0, and then the mean has "
            "the least squared error. Only where less noise is left can it decide. With 2 steps "
            f"{two.lost:.0%} of the samples are lost between the clusters, with 10 still "
            f"{ten.lost:.0%}."
        )
    best = "What is the best guess of x_0 from pure noise, if the error counts squared?"
    if abs(abs(got) - 2) <= 0.5:
        raise Mistake(
            "There are only half of the data. Noise says nothing about which half it shall be, and "
            "a wrong guess there costs 4².",
            best,
        )
    if abs(abs(got) - 1) <= 0.1:
        raise Mistake(
            "Halfway would cost more than the best guess: 1² in half of the cases, 3² in the "
            "others.",
            best,
        )
    raise Mistake(
        f"Around {got:.4g} there are no samples: the mean of |x| is {one.centre:.2f}.", best
    )


# --- Which times ---------------------------------------------------------------------------------


@exercise(
    "07.ddim_times",
    task="Write `my_times`: `steps` of the times 0 ... T − 1, evenly spread as far as rounding "
    "allows, rising, and ending at T − 1, where sampling starts.",
    signature="my_times(T, steps) -> list of int",
    solution=ddim_times,
    hints=[
        "Count from the end: T − 1 is always there.",
        "T · i / steps for i = 1 ... steps ends at T, and is evenly spread. In code times count "
        "from 0.",
        "`[round(T * i / steps) - 1 for i in range(1, steps + 1)]`",
    ],
)
def _check_ddim_times(attempt: Attempt, generator: torch.Generator) -> str:
    cases = [(1000, 10), (1000, 7), (100, 100), (50, 49), (100, 30), (1000, 2), (1000, 1), (1, 1)]
    T = int(torch.randint(200, 900, (), generator=generator))
    cases.append((T, int(torch.randint(3, 60, (), generator=generator))))
    for T, steps in cases:
        times = _take_times(attempt(T, steps))
        _judge_times(times, T, steps)
        gaps = [b - a for a, b in pairwise(times)]
        if gaps and max(gaps) - min(gaps) > 2:
            raise Mistake(
                f"Your times are not evenly spread for T = {T}, steps = {steps}: between two of "
                f"them lie {min(gaps)} to {max(gaps)} steps.",
                "T · i / steps for i = 1 ... steps, rounded, less 1.",
            )
        if gaps and times[0] > max(gaps) + 1:
            raise Mistake(
                f"Your first time, {times[0]}, is too far from the data: the last step back would "
                f"be longer than the others, {max(gaps)}.",
                "Spread them over all of 0 ... T − 1.",
            )
    return (
        "Your times rise, end where noise ends, and are evenly spread; with steps = T all are "
        "there. (Where between 0 and a gap the first of them lies is a matter of taste.)"
    )


def _take_times(value: Any) -> list[int]:
    """A list of whole numbers, from a list, a tuple, a range, an array or a tensor."""
    if isinstance(value, Tensor) and value.ndim != 1:
        raise Mistake(
            f"Your times have shape {list(value.shape)}; they must have one axis.",
            "Return a list of whole numbers.",
        )
    if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
        raise Mistake(
            f"Your times are of type {type(value).__name__}, not a list of whole numbers.",
            "`[... for i in range(1, steps + 1)]` is one.",
        )
    times = [item.item() if isinstance(item, Tensor) else item for item in value]
    for time in times:
        if not isinstance(time, Integral) or isinstance(time, bool):
            raise Mistake(
                f"Your times hold {time!r}, not a whole number.",
                "Times are indices into `alpha_bars`: round them, `round(...)` or `int(...)`.",
            )
    return [int(time) for time in times]


def _judge_times(times: Sequence[int], T: int, steps: int) -> None:
    """Require ``steps`` times, rising, inside of 0 ... T − 1, and T − 1 last."""
    case = f"for T = {T}, steps = {steps}"
    if steps == 1 and times == [0] and T > 1:
        raise Mistake(
            f"With a single step you give t = 0 {case}: there hardly any noise is left.",
            "The last of the times is always T − 1: sampling starts there, with pure noise.",
        )
    if times and times[-1] == T and all(a < b for a, b in pairwise(times)):
        raise Mistake(
            f"Your last time is T = {T} {case}: the times are 0 ... {T - 1}.",
            "In code they count from 0: subtract 1.",
        )
    if len(times) > 1 and all(a > b for a, b in pairwise(times)):
        raise Mistake(
            f"Your times fall {case}.", "Rising, please: the sampler goes through them backwards."
        )
    if len(times) != steps:
        raise Mistake(
            f"You give {len(times)} times {case}.",
            "`range(..., T // steps)` gives more where T is not a multiple of steps.",
        )
    if not all(a < b for a, b in pairwise(times)):
        raise Mistake(
            f"Your times don't rise {case}: {_first_fall(times)}.",
            "No time may come twice. Where steps is near T, mind the rounding.",
        )
    if times[0] < 0 or times[-1] >= T:
        stray = times[0] if times[0] < 0 else times[-1]
        raise Mistake(
            f"Time {stray} does not exist {case}: the times are 0 ... {T - 1}.",
            "In code times count from 0.",
        )
    if times[-1] != T - 1:
        raise Mistake(
            f"Your last time is {times[-1]} {case}: sampling would start with pure noise and tell "
            "the network that there is less.",
            "End at T − 1, where noise ends. (The paper's own code starts at 0 and ends short of "
            "it.)",
        )


def _first_fall(times: Sequence[int]) -> str:
    return next(f"{b} comes after {a}" for a, b in pairwise(times) if a >= b)


# --- One step of DDIM ----------------------------------------------------------------------------

_ROOTS = "ᾱ and 1 − ᾱ are variances: x_t = sqrt(ᾱ) x_0 + sqrt(1 − ᾱ) eps."
_WAY = (
    "First the guess x_0 = (x_t − sqrt(1 − ᾱ) eps) / sqrt(ᾱ), then sqrt(ᾱ') x_0 + sqrt(1 − ᾱ') eps."
)


def _by(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A step by a formula of x, eps, a and b here, and a' and b' there."""
    return lambda x, e, ab, to: formula(
        x, e, ab.sqrt(), (1 - ab).sqrt(), to.sqrt(), (1 - to).sqrt()
    )


def _step(x: Tensor, eps: Tensor, ab: Tensor, to: Tensor) -> Tensor:
    """The library's step, told ᾱ here and there."""
    a, b = ab.double().sqrt(), (1 - ab.double()).sqrt()
    now, then = (float(a), float(b)), (math.sqrt(float(to)), math.sqrt(1 - float(to)))
    x_0 = (x.double() - b * eps.double()) / a
    if float(b) == 0:  # at the data; ddim_step would divide by it
        return (then[0] * x_0 + then[1] * eps.double()).float()
    return ddim_step(x.double(), x_0, now=now, then=then).float()


_PROPORTIONS = "Put guess and noise together again in the proportions of the new time, ᾱ'."
_DIVIDE = "x_0 was shrunk by sqrt(ᾱ): divide by it."

# fmt: off
# What people write for a step from ᾱ to ᾱ' in either direction; c, d: a' and b'.
_STEP_WRONG = [
    Wrong(_by(lambda x, e, a, b, c, d: (x - b * e) / a), "You stop at the guess of x_0.",
          _PROPORTIONS),
    Wrong(_by(lambda x, e, a, b, c, d: c * (x - b * e) / a), "You put no noise back.",
          _PROPORTIONS),
    Wrong(_by(lambda x, e, a, b, c, d: c * (x - b * e) / a + b * e),
          "You put as much noise back as there was.", "At the new time it is sqrt(1 − ᾱ') eps."),
    Wrong(_by(lambda x, e, a, b, c, d: (x - b * e) + d * e), "You shrink the guess as before.",
          "At the new time it is sqrt(ᾱ') x_0."),
    Wrong(_by(lambda x, e, a, b, c, d: (x - b * e) / a + d * e),
          "You don't shrink the guess of x_0.", _PROPORTIONS),
    Wrong(_by(lambda x, e, a, b, c, d: (x - b * e) / a + b * e),
          "You don't shrink the guess, and put the old noise back.", _PROPORTIONS),
    Wrong(_by(lambda x, e, a, b, c, d: c * x + d * e),
          "You noise x_t itself, as if it were clean data.", _WAY),
    Wrong(_by(lambda x, e, a, b, c, d: x), "Your x is x_t, unchanged.", _WAY),
    Wrong(_by(lambda x, e, a, b, c, d: x - b * e), "You take the noise away, and do no more.",
          _WAY),
    Wrong(_by(lambda x, e, a, b, c, d: c * (x - b * e) + d * e),
          "You forget to divide by sqrt(ᾱ).", _DIVIDE),
    Wrong(_by(lambda x, e, a, b, c, d: c * (x - b * e) * a + d * e),
          "You multiply by sqrt(ᾱ) where you must divide.", _DIVIDE),
    Wrong(_by(lambda x, e, a, b, c, d: c * (x - b * e) / a**2 + d * e),
          "You divide by ᾱ, without the root.", _ROOTS),
    Wrong(_by(lambda x, e, a, b, c, d: c * (x - b**2 * e) / a + d * e),
          "You take away (1 − ᾱ) eps, without the root.", _ROOTS),
    Wrong(_by(lambda x, e, a, b, c, d: c**2 * (x - b * e) / a + d * e),
          "You multiply the guess by ᾱ', without the root.", _ROOTS),
    Wrong(_by(lambda x, e, a, b, c, d: c * (x - b * e) / a + d**2 * e),
          "You put (1 − ᾱ') eps back, without the root.", _ROOTS),
    Wrong(_by(lambda x, e, a, b, c, d: c**2 * (x - b * e) / a + d**2 * e),
          "You forget both roots in the new proportions.", _ROOTS),
    Wrong(_by(lambda x, e, a, b, c, d: c**2 * (x - b**2 * e) / a**2 + d**2 * e),
          "You forget all the square roots.", _ROOTS),
    Wrong(_by(lambda x, e, a, b, c, d: a * (x - d * e) / c + b * e),
          "You swap now and next: that is the step from ᾱ' to ᾱ.",
          "`alpha_bar` belongs to the x_t that you are given."),
    Wrong(_by(lambda x, e, a, b, c, d: c * (x + b * e) / a + d * e),
          "You add the noise to x_t, where the guess of x_0 takes it away.", _WAY),
    Wrong(_by(lambda x, e, a, b, c, d: c * (x - b * e) / a - d * e),
          "You subtract the noise where you must put it back.", _PROPORTIONS),
    Wrong(_by(lambda x, e, a, b, c, d: d * (x - b * e) / a + c * e),
          "You swap the factors of the guess and the noise.", "ᾱ' belongs to the data."),
]
_UP_WRONG = [
    Wrong(lambda x, e, ab, to: (to / ab).sqrt() * x + (1 - to / ab).sqrt() * e,
          "You add noise to x as DDPM does, as if eps were fresh.",
          "eps is in x already. Take out what is there, then put in what shall be there."),
    Wrong(lambda x, e, ab, to: (to / ab).sqrt() * x + (1 - to).sqrt() * e,
          "You put the new noise on top of the old.",
          "Take the noise out of x first, then put in sqrt(1 − ᾱ') eps."),
]
# fmt: on


def _draw_steps(
    *ranges: tuple[tuple[float, float], tuple[float, float]], end: Advice
) -> Callable[[torch.Generator], list[Case]]:
    """Steps between ᾱ and ᾱ' of these ranges; ``end`` is said of the last, which is at the data."""

    def draw(generator: torch.Generator) -> list[Case]:
        cases = []
        for shape, (here, there) in zip(((7, 2), (3, 2, 4, 4), (4, 5)), ranges, strict=True):
            x, eps = (
                torch.randn(*shape, generator=generator),
                torch.randn(*shape, generator=generator),
            )
            ab, to = _between(*here, generator), _between(*there, generator)
            cases.append(Case((x, eps, ab, to), fails=end if shape == (4, 5) else None))
        return cases

    return draw


def _take_finite(answer: Any, x: Tensor, eps: Tensor, ab: Tensor, to: Tensor) -> Any:
    if isinstance(answer, Tensor) and not answer.is_meta and not answer.isfinite().all():
        if float(ab) == 1.0:
            raise Mistake(
                "At the data, ᾱ = 1, your x is not finite: you divide by sqrt(1 − ᾱ) = 0.",
                "eps is given. Divide by sqrt(ᾱ) alone.",
            )
        if to > ab:
            raise Mistake(
                "Your x is not finite: is a number under a root negative?",
                "Here ᾱ' > ᾱ. 1 − ᾱ' and 1 − ᾱ are what belongs under the roots.",
            )
    return answer


_NOT_A_STEP = (
    "Your x is not sqrt(ᾱ') x_0 + sqrt(1 − ᾱ') eps with the guess of x_0.",
    _WAY,
)

_TURN = (
    "v = a eps − b x_0 and x_t = a x_0 + b eps, with a² + b² = 1: x_0 = a x_t − b v, and eps = "
    "b x_t + a v. Then a' x_0 + b' eps."
)


def _by_v(guesses: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A step by a formula of x_0 and eps as v gives them, and of a, b, a', b'."""
    return _by(lambda x, v, a, b, c, d: guesses(a * x - b * v, b * x + a * v, a, b, c, d) + 0 * x)


# fmt: off
_V_WRONG = [
    Wrong(_step, "You take v for eps.", _TURN),
    Wrong(_by(lambda x, v, a, b, c, d: c * v + d * (x - a * v) / b), "You take v for x_0.", _TURN),
    Wrong(_by(lambda x, v, a, b, c, d: c * (a * x + b * v) + d * (b * x - a * v)),
          "You turn the wrong way: a sign, or now and next exchanged.", _TURN),
    Wrong(_by(lambda x, v, a, b, c, d: c * x + d * v), "You noise x_t itself, with v.", _TURN),
    Wrong(_by(lambda x, v, a, b, c, d: x + (d - b) * v), "You go along v in a straight line.",
          "v is the direction at first; the way is an arc. " + _TURN),
    Wrong(_by(lambda x, v, a, b, c, d: c * (a * x - b * v) + d * v),
          "You put v back as if it were the noise.", _TURN),
    Wrong(_by(lambda x, v, a, b, c, d: c * (x - b * v) / a + d * (b * x + a * v)),
          "Your guess of x_0 is the one for eps.", _TURN),
    Wrong(_by_v(lambda x0, e, a, b, c, d: x0), "You stop at the guess of x_0.", _PROPORTIONS),
    Wrong(_by_v(lambda x0, e, a, b, c, d: c * x0), "You put no noise back.", _PROPORTIONS),
    Wrong(_by_v(lambda x0, e, a, b, c, d: c * x0 + b * e),
          "You put as much noise back as there was.", _PROPORTIONS),
    Wrong(_by_v(lambda x0, e, a, b, c, d: x0 + d * e), "You don't shrink the guess of x_0.",
          _PROPORTIONS),
    Wrong(_by_v(lambda x0, e, a, b, c, d: a * x0 + d * e), "You shrink the guess as before.",
          _PROPORTIONS),
    Wrong(_by_v(lambda x0, e, a, b, c, d: d * x0 + c * e), "You swap the factors of x_0 and eps.",
          "ᾱ' belongs to the data."),
    Wrong(_by_v(lambda x0, e, a, b, c, d: c * x0 - d * e), "You subtract the noise where you must "
          "put it back.", _PROPORTIONS),
    Wrong(_by_v(lambda x0, e, a, b, c, d: c**2 * x0 + d**2 * e),
          "You forget both roots in the new proportions.", _ROOTS),
    Wrong(_by(lambda x, v, a, b, c, d: c * (a**2 * x - b**2 * v) + d * (b**2 * x + a**2 * v)),
          "You forget the roots in the guesses.", _ROOTS),
]
# fmt: on

formula(
    "07.v_step",
    task="Derive, and write `v_step`: DDIM's step without fresh noise for a network that predicts "
    "v = sqrt(ᾱ) eps − sqrt(1 − ᾱ) x_0: from x_t [B, *event] at alpha_bar to where the share is "
    "alpha_bar_next (larger, and 1 for the data). You need not divide.",
    signature="v_step(x_t, v, alpha_bar, alpha_bar_next) -> x",
    solution=[ddim_step, convert],
    hints=[
        "With a = sqrt(ᾱ), b = sqrt(1 − ᾱ): two equations, for x_t and for v. Solve them for x_0 "
        "and eps.",
        "a² + b² = 1, so that a x_t − b v is x_0. And b x_t + a v?",
        "sqrt(ᾱ') (a x_t − b v) + sqrt(1 − ᾱ') (b x_t + a v).",
    ],
    right=_by_v(lambda x0, e, a, b, c, d: c * x0 + d * e),
    inputs=_draw_steps(
        ((0.1, 0.4), (0.6, 0.9)),
        ((0.4, 0.5), (0.55, 0.6)),
        ((0.1, 0.9), (1.0, 1.0)),
        end=(
            "Your step to the data, ᾱ' = 1, does not end at the guess of x_0.",
            "There sqrt(1 − ᾱ') is 0: no case of its own is needed.",
        ),
    ),
    result="x",
    take=_take_finite,
    wrong=_V_WRONG,
    otherwise=("Your x is not DDIM's with the x_0 and the eps that v tells.", _TURN),
    passes="Your step turns x_t towards v: cos(δ) x_t − sin(δ) v, where δ is the angle between (a, "
    "b) and (a', b'). Nothing is divided, so it begins at pure noise as well, where a guess of x_0 "
    "from eps would be 0 / 0: one of the reasons why Salimans and Ho predict v.",
)
formula(
    "07.invert_step",
    task="Write `invert_step`: the way up, from x [B, *event] at alpha_bar (1 for data) to where "
    "the share is alpha_bar_next, which is smaller, with the network's eps.",
    signature="invert_step(x, eps, alpha_bar, alpha_bar_next) -> x",
    solution=ddim_invert,
    hints=[
        "Nothing is drawn: the same x must come out every time, or it could not be led back.",
        "In the step down, where did you use that it leads down?",
        "Nowhere. The same two lines: the guess x_0 = (x − sqrt(1 − ᾱ) eps) / sqrt(ᾱ), then "
        "sqrt(ᾱ') x_0 + sqrt(1 − ᾱ') eps.",
    ],
    right=_step,
    inputs=_draw_steps(
        ((0.6, 0.9), (0.1, 0.4)),
        ((0.55, 0.6), (0.4, 0.5)),
        ((1.0, 1.0), (0.1, 0.9)),
        end=(
            "Your first step, from the data at ᾱ = 1, is not sqrt(ᾱ') x + sqrt(1 − ᾱ') eps.",
            "There the guess of x_0 is x itself: no case of its own is needed.",
        ),
    ),
    result="x",
    take=_take_finite,
    wrong=_UP_WRONG + _STEP_WRONG,
    otherwise=_NOT_A_STEP,
    passes="DDIM's step with the same eps leads your x back. It is the same formula in both "
    "directions; what makes inversion inexact is that the network is asked at the wrong end.",
)


# --- The step with fresh noise --------------------------------------------------------------------


def _noisy(x: Tensor, eps: Tensor, ab: Tensor, to: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    guess = (x - (1 - ab).sqrt() * eps) / ab.sqrt()
    return to.sqrt() * guess + (1 - to - sigma.square()).sqrt() * eps + sigma * noise


def _draw_noisy(generator: torch.Generator) -> list[Case]:
    cases = []
    shapes = (((7, 2), (0.3, 0.8)), ((3, 2, 4, 4), (0.3, 0.9)), ((4, 5), (0.0, 0.0)))
    for shape, share in shapes:
        x, eps, noise = (torch.randn(*shape, generator=generator) for _ in range(3))
        ab, to = _between(0.1, 0.4, generator), _between(0.5, 0.8, generator)
        sigma = _between(*share, generator) * (1 - to)
        fails = ("At sigma = 0 your step is not the one without noise.", _WAY)
        cases.append(Case((x, eps, ab, to, sigma, noise), fails=fails if sigma == 0 else None))
    return cases


def _with(formula_: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A step by a formula of the guess, eps, 1 − ᾱ' and sigma, noise; it adds to sqrt(ᾱ') x_0."""

    def answer(x: Tensor, e: Tensor, ab: Tensor, to: Tensor, s: Tensor, n: Tensor) -> Tensor:
        return to.sqrt() * (x - (1 - ab).sqrt() * e) / ab.sqrt() + formula_(e, 1 - to, s, n)

    return answer


_TOGETHER = "Variances add up: sqrt(1 − ᾱ' − σ²) eps and σ noise make 1 − ᾱ' together."
_SIGMA_IS_STD = "sigma is a standard deviation already: σ · noise."

# fmt: off
_NOISY_WRONG = [
    Wrong(_with(lambda e, v, s, n: v.sqrt() * e + s * n),
          "You add fresh noise, and leave all of eps: together they are too much.", _TOGETHER),
    Wrong(_with(lambda e, v, s, n: (v.sqrt() - s) * e + s * n),
          "You subtract standard deviations, sqrt(1 − ᾱ') − σ.", _TOGETHER),
    Wrong(_with(lambda e, v, s, n: (v - s).clamp(min=0).sqrt() * e + s * n),
          "Under the root you subtract σ, not σ².", _TOGETHER),
    Wrong(_with(lambda e, v, s, n: (v + s**2).sqrt() * e + s * n), "Under the root you add σ².",
          _TOGETHER),
    Wrong(_with(lambda e, v, s, n: (v - s**2) * e + s * n),
          "You forget the root in the factor of eps.", _TOGETHER),
    Wrong(_with(lambda e, v, s, n: (v - s**2).sqrt() * e + s**2 * n),
          "You multiply the noise by σ².", _SIGMA_IS_STD),
    Wrong(_with(lambda e, v, s, n: (v - s**2).sqrt() * e + s.sqrt() * n),
          "You multiply the noise by sqrt(σ).", _SIGMA_IS_STD),
    Wrong(_with(lambda e, v, s, n: (v - s**2).sqrt() * e + n),
          "You add all of the noise, without σ.", _SIGMA_IS_STD),
    Wrong(_with(lambda e, v, s, n: (v - s**2).sqrt() * e), "You add no fresh noise.", _TOGETHER),
    Wrong(_with(lambda e, v, s, n: s * n), "You put nothing of eps back.", _TOGETHER),
    Wrong(_with(lambda e, v, s, n: v.sqrt() * e),
          "You ignore sigma: that is the step without noise.", _TOGETHER),
    Wrong(_with(lambda e, v, s, n: v.sqrt() * n), "You replace all of eps by fresh noise.",
          _TOGETHER),
    Wrong(_with(lambda e, v, s, n: s * e + (v - s**2).sqrt() * n),
          "You swap eps and the fresh noise.", _TOGETHER),
    Wrong(_with(lambda e, v, s, n: (v - s**2).sqrt() * e - s * n), "You subtract the fresh noise.",
          "Add it."),
    Wrong(_with(lambda e, v, s, n: (v - s**2).sqrt() * e + s * e),
          "You use eps where the fresh noise belongs.", _TOGETHER),
    Wrong(_with(lambda e, v, s, n: (v - s**2).sqrt() * n + s * n),
          "You use the noise where eps belongs.", _TOGETHER),
    Wrong(lambda x, e, ab, to, s, n: (
              (x - (1 - ab).sqrt() * e) / ab.sqrt() + (1 - to - s**2).sqrt() * e + s * n),
          "You don't shrink the guess of x_0.", "At the new time it is sqrt(ᾱ') x_0."),
    Wrong(lambda x, e, ab, to, s, n: (1 - to - s**2).sqrt() * e + s * n,
          "You leave out the guess of x_0.", "+ sqrt(ᾱ') x_0."),
    Wrong(lambda x, e, ab, to, s, n: _noisy(x, e, to, ab, s, n), "You swap now and next.",
          "`alpha_bar` belongs to the x_t that you are given."),
]
# fmt: on

formula(
    "07.ddim_step_eta",
    task="Write `noisy_ddim_step`: as the step without noise, but with fresh noise of standard "
    "deviation sigma in place of a part of eps, so that the variance stays that of the path.",
    signature="noisy_ddim_step(x_t, eps, alpha_bar, alpha_bar_next, sigma, noise) -> x",
    solution=ddim_step,
    hints=[
        "At the new time the noise must have the variance 1 − ᾱ', wherever it comes from.",
        "Independent variances add up: σ² of it is fresh. How much is left for eps?",
        "x = sqrt(ᾱ') x_0 + sqrt(1 − ᾱ' − σ²) eps + σ noise, with the same guess x_0 as before.",
    ],
    right=_noisy,
    inputs=_draw_noisy,
    result="x",
    wrong=_NOISY_WRONG,
    otherwise=(
        "Your x is not sqrt(ᾱ') x_0 + sqrt(1 − ᾱ' − σ²) eps + σ noise.",
        "Try sigma = 0 first: that must be your step without noise.",
    ),
    passes="The squares of the factors of eps and of the fresh noise add up to 1 − ᾱ': whatever σ "
    "is, x has the distribution that the path has at the new time.",
)


# --- All steps -----------------------------------------------------------------------------------


def _sampler(
    *,
    told: Callable[..., int] = lambda times, i: times[i],
    here: Callable[..., Any] = lambda table, times, i: table[times[i]],
    there: Callable[..., Any] = lambda table, times, i: table[times[i - 1]] if i else 1.0,
    order: Callable[[int], Any] = lambda n: reversed(range(n)),
    chosen: Callable[..., Sequence[int]] = lambda times, T: times,
    start: Callable[[Tensor, Tensor], Tensor] = lambda x, z: x,
) -> Callable[..., Tensor]:
    """The right sampler, of which a mistake replaces a part."""

    def answer(net: Any, z: Tensor, table: Tensor, times: Sequence[int]) -> Tensor:
        times, x = chosen(times, len(table)), z
        for i in order(len(times)):
            eps = net(x, torch.full((len(x),), told(times, i)))
            ab, to = here(table, times, i), there(table, times, i)
            x = _step(start(x, z), eps, torch.as_tensor(ab), torch.as_tensor(to))
        return x

    return answer


def _draw_samplings(generator: torch.Generator) -> list[Case]:
    T, cases = 30, []
    table = DiscreteSchedule(0.02 + 0.08 * torch.rand(T, generator=generator)).alpha_bars
    middle = (3 + torch.randperm(T - 6, generator=generator)[:4]).sort().values.tolist()
    alone = (
        "With a single time, T − 1, your x is not the guess of x_0 from z.",
        "The step from the first of the times goes to the data, ᾱ' = 1.",
    )
    for times in ([2, *middle, T - 1], [0, *middle, T - 1], [T - 1]):
        inputs = (EPS_NET, torch.randn(4, 3, generator=generator), table, times)
        cases.append(Case(inputs, fails=alone if len(times) == 1 else None))
    return cases


_ASK = "Ask the network where you are: x_t belongs to the time t that you tell it."
_THEN_DATA = "After the first of the times come the data, at ᾱ' = 1."
_ANEW = "A step starts where the one before it ended: `x = step(x, ...)`, with x = z at first."
_GOES_TO = "You tell the network the time that you go to."

# fmt: off
_SAMPLE_WRONG = [
    Wrong(_sampler(told=lambda times, i: times[max(i - 1, 0)]), _GOES_TO, _ASK),
    Wrong(_sampler(told=lambda times, i: times[i - 1] if i else -1), _GOES_TO, _ASK),
    Wrong(_sampler(told=lambda times, i: times[i - 1]), _GOES_TO, _ASK),
    Wrong(_sampler(told=lambda times, i: i),
          "You tell the network the number of the step, not its time.",
          "times[i] is the time of step i."),
    Wrong(_sampler(told=lambda times, i: times[i] + 1), "You tell the network t + 1.",
          "In code t counts from 0, and so does the network."),
    Wrong(_sampler(told=lambda times, i: 29 - times[i]),
          "You tell the network the time backwards.", _ASK),
    Wrong(_sampler(order=lambda n: range(n - 1, 0, -1)), "You stop at the first of the times.",
          _THEN_DATA),
    Wrong(_sampler(there=lambda table, times, i: table[times[i - 1]] if i else table[0]),
          "Your last step ends at ᾱ' = `alpha_bars[0]`: that still has the first noise.",
          _THEN_DATA),
    Wrong(_sampler(there=lambda table, times, i: table[times[i - 1]]),
          "Your last step goes back to the end of the table: index −1 is its last number.",
          _THEN_DATA),
    Wrong(_sampler(there=lambda table, times, i: table[times[i] - 1] if times[i] else 1.0),
          "You step to t − 1, not to the next of the times.",
          "A step may be long: from times[i] to times[i - 1]."),
    Wrong(_sampler(there=lambda table, times, i: 1.0), "Every step of yours goes to the data.",
          "Only the last one does; the others go to the next of the times."),
    Wrong(_sampler(here=lambda table, times, i: table[times[i - 1]] if i else 1.0,
                   there=lambda table, times, i: table[times[i]]),
          "You swap ᾱ and ᾱ' in every step.", "ᾱ belongs to where you are, and grows on the way."),
    Wrong(_sampler(order=range), "You go through the times from the first to the last.",
          "Sampling starts with noise, at the last of them: `reversed(...)`."),
    Wrong(_sampler(chosen=lambda times, T: range(T)), "You take all T steps.",
          "`times` are the ones to take."),
    Wrong(_sampler(chosen=lambda times, T: times[1:]), "You leave out the first of the times.",
          "Each of the times is a step, times[0] as well."),
    Wrong(_sampler(chosen=lambda times, T: times[:-1]), "You leave out the last of the times.",
          "z is the noise at times[-1]: start there."),
    Wrong(_sampler(order=lambda n: []), "Your x is z, unchanged.", _ASK),
    Wrong(_sampler(start=lambda x, z: z), "Every step of yours starts anew from z.", _ANEW),
    Wrong(_sampler(chosen=lambda times, T: times[:1]), "Every step of yours starts anew from z.",
          _ANEW),
    Wrong(_sampler(chosen=lambda times, T: times[-1:]),
          "Your x is the guess of x_0 from z: a single step, or the network's first answer in "
          "all of them, which comes to the same.",
          "Ask the network anew at each of the times, where you are then."),
]
# fmt: on

formula(
    "07.ddim_sample",
    task="Write `my_ddim_sample`: from noise z [B, *event] to data by way of `times`, a rising "
    "list of indices, without fresh noise; `net(x, t [B])` says eps.",
    signature="my_ddim_sample(net, z, alpha_bars, times) -> x",
    solution=[ddim_sample, ddim_step],
    hints=[
        "Go through the times from the last to the first; your step does the rest.",
        "At each: ask the network at the time where you are, then step to the time before it in "
        "the list.",
        "After times[0] come the data: there ᾱ' is 1, which is not in `alpha_bars`.",
    ],
    right=_sampler(),
    inputs=_draw_samplings,
    result="x",
    tolerance=1e-3,
    wrong=_SAMPLE_WRONG,
    otherwise=(
        "Your x is not what DDIM's steps make of z.",
        "Print ᾱ and ᾱ' in every step: each ᾱ' is the ᾱ of the next, and the last is 1.",
    ),
    passes="At every step the network is asked where you are, each step starts where the last one "
    "ended, and the last ends in the data.",
)


# --- Between two noises --------------------------------------------------------------------------


_ADD = "Variances add up, not lengths. What is the variance of (z_0 + z_1) / 2, in one number?"
# fmt: off
_MIDPOINT_WRONG = [
    Slip(1.0, "That would be so if the two pointed the same way.", within=0.05),
    Slip(0.5, "That is the variance of its numbers, or the square of its length.", "Root.", 0.05),
    Slip(math.sqrt(2), "That is the length of the sum, or the distance of the two.",
         "The middle is half of the sum.", 0.05),
    Slip(2.0, "That is longer than both.", "The middle of a chord is never outside.", 0.05),
    Slip(0.0, "That would be so if the two were opposite.", within=0.1),
    Slip(28 * math.sqrt(0.5), "That is its length.", "As a share of 28, the length of the two?",
         0.8),
    Slip(28.0, "That is the length of the two.", "As a share of it?", 0.8),
]
# fmt: on


def _praise_midpoint(generator: torch.Generator) -> str:
    z0, z1 = torch.randn(2, 1000, 784, generator=generator)
    length = z0.norm(dim=1)
    share = ((z0 + z1) / 2).norm(dim=1) / length
    return (
        f"1/√2: of 1,000 pairs the shortest has {share.min():.2f} and the longest "
        f"{share.max():.2f}, while no z is further from the mean length than "
        f"{(length / length.mean() - 1).abs().max():.0%}. So the middle of a straight line is a z "
        "that is never drawn, and the network has never seen such an x_T. On the arc, with slerp, "
        "lie none of these."
    )


prediction(
    "07.predict_midpoint",
    task="Predict: two independent noises z of 784 standard normal numbers each. How long is the "
    "point in the middle of them, as a share of their own length?",
    solution=slerp,
    hints=[
        "The middle is (z_0 + z_1) / 2, number by number. What is the variance of each?",
        "Independent variances add up: (1 + 1) / 4.",
        "A length in many dimensions is the standard deviation of a number times sqrt(784).",
    ],
    right=math.sqrt(0.5),
    within=0.025,
    wrong=_MIDPOINT_WRONG,
    passes=_praise_midpoint,
    question="1 would be as long as the two themselves.",
    hint=_ADD,
    otherwise=lambda got: (f"{got:.4g} is too {'long' if got > 0.7 else 'short'}.", _ADD),
)


def _angles(z0: Tensor, z1: Tensor) -> Tensor:
    cosine = torch.cosine_similarity(z0.double().flatten(1), z1.double().flatten(1))
    return cosine.clamp(-1, 1).acos()


def _arc(z0: Tensor, z1: Tensor, w: float, angle: Tensor) -> Tensor:
    """The formula, with an angle for each example."""
    angle = angle.reshape(-1, *[1] * (z0.ndim - 1))
    return (((1 - w) * angle).sin() * z0 + (w * angle).sin() * z1) / angle.sin()


def _lengths(z: Tensor) -> Tensor:
    return z.flatten(1).norm(dim=1).reshape(-1, *[1] * (z.ndim - 1))


def _turn(z0: Tensor, z1: Tensor, w: float) -> Tensor:
    """The other custom: turn the direction by w θ, and let the length go straight."""
    l0, l1 = (_lengths(z) for z in (z0.double(), z1.double()))
    return ((1 - w) * l0 + w * l1) * _arc(z0 / l0, z1 / l1, w, _angles(z0, z1))


def _draw_pairs(generator: torch.Generator) -> list[Any]:
    cases: list[Any] = []
    for shape in ((5, 3), (4, 2, 2, 3), (3, 2)):
        fair = False
        while not fair:
            z0, z1 = (
                torch.randn(*shape, generator=generator),
                torch.randn(*shape, generator=generator),
            )
            angle = _angles(z0, z1)
            # For nearly the same or opposite directions sin θ is small. The other two sines are
            # divisors in known mistakes, which rounding would blur.
            fair = angle.min() > 0.4 and angle.max() < 2.6 and angle.cos().abs().min() > 0.05
            fair = fair and angle.rad2deg().sin().abs().min() > 0.5
        cases.append((z0, z1, float(_between(0.15, 0.4, generator))))
    for end in (0, 1):
        fails = (f"At w = {end} your z is not z{end}.", "The arc ends there.")
        cases.append(Case((z0, z1, float(end)), fails=fails))
    return cases


def _take_on_arc(answer: Any, z0: Tensor, z1: Tensor, w: float) -> Any:
    """Either custom for unequal lengths, as the library's."""
    if isinstance(answer, Tensor) and answer.is_floating_point() and answer.layout == torch.strided:
        if answer.is_meta:
            return answer
        if answer.isnan().any():
            raise Mistake(
                "Your z is NaN: `acos` of a number above 1, perhaps.",
                "cos(θ) is the inner product divided by both lengths.",
            )
        if answer.dtype == z0.dtype and same(answer, _turn(z0, z1, w)):
            return slerp(z0, z1, w)
    return answer


def _weights(
    weights: Callable[..., tuple[Any, Any]], angle: Callable[..., Tensor] = _angles
) -> Callable[..., Tensor]:
    """An answer by two weights, of θ [B, 1, ...] and w."""

    def answer(z0: Tensor, z1: Tensor, w: float) -> Tensor:
        theta = angle(z0, z1).reshape(-1, *[1] * (z0.ndim - 1))
        first, second = weights(theta, w)
        return first * z0 + second * z1

    return answer


def _of_one_batch(z0: Tensor, z1: Tensor) -> Tensor:
    return torch.cosine_similarity(z0.flatten(), z1.flatten(), dim=0).acos().expand(len(z0))


def _lerp(z0: Tensor, z1: Tensor, w: float) -> Tensor:
    return (1 - w) * z0 + w * z1


def _unit(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda z0, z1, w: function(z0, z1, w) / _lengths(function(z0, z1, w))


_NO_LERP = (
    "That is lerp, which cuts the corner. Weights: sin((1 − w) θ) / sin(θ), sin(w θ) / sin(θ)."
)
_NOT_UNIT = "Unit vectors are for the angle alone: what is mixed are z0 and z1 themselves."
_SWAPPED = "You swap z0 and z1, or w and 1 − w."

# fmt: off
_SLERP_WRONG = [
    Wrong(_lerp, "Your z is on the straight line.", _NO_LERP),
    Wrong(lambda z0, z1, w: slerp(z1, z0, w), _SWAPPED, "w = 0 is z0."),
    Wrong(_weights(lambda t, w: (((1 - w) * t).sin() / t.sin(), (w * t).sin() / t.sin()),
          _of_one_batch),
          "You take one angle for the whole batch.",
          "Each pair of the batch has its own θ: `flatten(1)`, and sum over axis 1."),
    Wrong(_weights(lambda t, w: (math.cos(w * math.pi / 2), math.sin(w * math.pi / 2))),
          "You take every angle for a right one.",
          "Noises in many dimensions are nearly at right angles, but these are not."),
    Wrong(lambda z0, z1, w: slerp(z0 / _lengths(z0), z1 / _lengths(z1), w), "Your z has length 1.",
          _NOT_UNIT),
    Wrong(_unit(slerp), "Your z has length 1.", _NOT_UNIT),
    Wrong(_unit(_lerp), "Your z has length 1.", _NOT_UNIT),
    Wrong(_weights(lambda t, w: (((1 - w) * t).sin(), (w * t).sin())),
          "You forget to divide by sin(θ).", "At w = 0 it must be z0 itself."),
    Wrong(_weights(lambda t, w: (((1 - w) * t).sin() / t.sin(), (w * t).sin())),
          "You divide one of the two by sin(θ), not both.",
          "Both weights have the denominator sin(θ)."),
    Wrong(_weights(lambda t, w: (((1 - w) * t).cos() / t.sin(), (w * t).cos() / t.sin())),
          "You write cos for sin in the weights.", "At w = 0 the weight of z1 must be 0: sin(0)."),
    Wrong(_weights(lambda t, w: ((1 - w) * t.sin(), w * t.sin())),
          "You multiply sin(θ) by w, where w belongs inside: sin(w θ).",
          "sin((1 − w) θ) and sin(w θ)."),
    Wrong(lambda z0, z1, w: _arc(z0, z1, w, _angles(z0, z1).rad2deg()), "Your angle is in degrees.",
          "`sin` wants it as `acos` gives it, in radians."),
    Wrong(lambda z0, z1, w: _arc(z0, z1, w, _angles(z0, z1).cos()),
          "You take cos(θ) for the angle.",
          "`acos` makes an angle of it."),
    Wrong(lambda z0, z1, w: _arc(z0, z1, w, _angles(z0, z1).mean().expand(len(z0))),
          "You take the mean of all angles.", "Each pair of the batch has its own θ."),
    Wrong(lambda z0, z1, w: _unit(_lerp)(z0, z1, w) * _lerp(_lengths(z0), _lengths(z1), w),
          "You stretch the straight line to the right length: its direction is not at the share "
          "w of the angle.", _NO_LERP),
    Wrong(lambda z0, z1, w: z0, "Your z is z0.", "It has to move to z1 as w grows."),
    Wrong(lambda z0, z1, w: z1, "Your z is z1.", "At w = 0 it must be z0."),
]
# fmt: on

formula(
    "07.slerp",
    task="Write `my_slerp`: from z0 to z1, both [B, *event], along the arc between them, for a "
    "number w from 0 (z0) to 1 (z1); each pair of the batch has an angle of its own.",
    signature="my_slerp(z0, z1, w) -> z",
    solution=slerp,
    hints=[
        "sin((1 − w) θ) / sin(θ) · z0 + sin(w θ) / sin(θ) · z1, with θ the angle between the two.",
        "cos(θ) is the inner product of the two, divided by both lengths.",
        "Flatten each example, `z.flatten(1)`, for inner products and lengths: one θ for each of B "
        "pairs, which then needs the axes of z again.",
    ],
    right=slerp,
    inputs=_draw_pairs,
    result="z",
    take=_take_on_arc,
    wrong=_SLERP_WRONG,
    otherwise=(
        "Your z is not on the arc from z0 to z1.",
        "Try z0 = [[1, 0]] and z1 = [[0, 1]]: at w = 0.5 both numbers are 0.707. (For unequal "
        "lengths the formula of the hints is taken, or the direction turned by w θ with the "
        "lengths mixed along a straight line.)",
    ),
    passes="Your z lies in the plane of the two, between them. For two of equal length, as noises "
    "nearly are, all of the arc has that length, and w is the share of the angle.",
)


# --- Where the ODE leads, for Gaussian data -------------------------------------------------------


def _end(formula_: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An end by a formula of z, std, and a and b where z is."""
    return lambda z, std, ab: formula_(z, std, ab.sqrt(), (1 - ab).sqrt())


def _exact_end(z: Tensor, s: float, a: Tensor, b: Tensor) -> Tensor:
    return s * z / (a**2 * s**2 + b**2).sqrt()


def _draw_ends(generator: torch.Generator) -> list[Case]:
    cases = []
    for shape, low, share in (((7, 2), 0.3, (0.2, 0.6)), ((5, 1, 2, 2), 1.4, (0.05, 0.3))):
        std = float(_between(low, low + 0.4, generator))
        cases.append(
            Case((torch.randn(*shape, generator=generator), std, _between(*share, generator)))
        )
    same_law = (
        "For std = 1 your x is not z, though at all times the state is standard normal.",
        "Then nothing has to move: a² + b² = 1.",
    )
    z, ab = torch.randn(6, 3, generator=generator), _between(0.1, 0.4, generator)
    return [*cases, Case((z, 1.0, ab), fails=same_law)]


_ODE = (
    "With data N(0, std²) the best ε is ρ y / (std² + ρ²), where y = x / a and ρ = b / a. So "
    "dy / dρ = ρ y / (std² + ρ²), and log y grows like half of log(std² + ρ²)."
)

# fmt: off
_END_WRONG = [
    Wrong(_end(lambda z, s, a, b: s * z), "You stretch z as if its variance were 1.",
          "Where z is, the state has the variance ᾱ std² + 1 − ᾱ. " + _ODE),
    Wrong(_end(lambda z, s, a, b: z / (a**2 * s**2 + b**2).sqrt()),
          "Your x has variance 1: you divide, and forget to multiply by std.", _ODE),
    Wrong(_end(lambda z, s, a, b: a * s**2 * z / (a**2 * s**2 + b**2)),
          "That is E[x_0 | x_t = z], where a single step ends: the ODE is followed in many.", _ODE),
    Wrong(_end(lambda z, s, a, b: s * z / (a**2 * s**2 + b**2)),
          "You divide by the variance, without the root.", "The 1/2 in the exponent is a root. "
          + _ODE),
    Wrong(_end(lambda z, s, a, b: s**2 * z / (a**2 * s**2 + b**2)),
          "You forget that the exponent is one half.", _ODE),
    Wrong(_end(lambda z, s, a, b: s * z / (s**2 + b**2 / a**2).sqrt()),
          "You forget that y = x / a: z / a is where it starts.", _ODE),
    Wrong(_end(lambda z, s, a, b: s * z / a), "You only undo the shrinking.", _ODE),
    Wrong(_end(lambda z, s, a, b: s * z / (a * s + b)), "You add standard deviations.",
          "Variances add up: a² std² + b²."),
    Wrong(_end(lambda z, s, a, b: s * z / (s**2 + b**2).sqrt()), "You don't shrink the data.",
          "Where z is, their part of the variance is a² std²."),
    Wrong(_end(lambda z, s, a, b: z * (a**2 * s**2 + b**2).sqrt() / s),
          "That is the way up, from data to noise.", "Turn it round."),
    Wrong(_end(lambda z, s, a, b: s * z / (a**4 * s**2 + (1 - a**2)**2).sqrt()),
          "You take ᾱ and 1 − ᾱ for the amounts: they are their squares.", _ODE),
    Wrong(_end(lambda z, s, a, b: z), "Your x is z, unchanged.", _ODE),
    Wrong(_end(lambda z, s, a, b: -_exact_end(z, s, a, b)), "Your x has the wrong sign.", _ODE),
]
# fmt: on


def _praise_end(attempt: Attempt, generator: torch.Generator) -> str:
    schedule, std = DiscreteSchedule.linear(1000), 0.4
    net = IdealDenoiser(torch.zeros(1, 1), schedule, std=std)
    z = torch.linspace(-2, 2, 9)[:, None]
    exact = attempt(z, std, schedule.alpha_bars[-1])
    far = [
        (last(ddim_sample(DDPM(net, schedule), z.shape, steps=n, z=z)) - exact).abs().max()
        for n in (20, 200)
    ]
    return (
        "Your x is the end of the ODE. DDIM, asked with the perfect network and std = 0.4, is at "
        f"most {far[0]:.3f} away from it after 20 steps, and {far[1]:.4f} after 200: a tenth."
    )


formula(
    "07.gaussian_flow",
    task="Derive, and write `gaussian_flow`: where the ODE leads noise z [B, *event], found at "
    "alpha_bar (one number), if the data are N(0, std²) and the network is perfect.",
    signature="gaussian_flow(z, std, alpha_bar) -> x",
    solution=[IdealDenoiser, ddim_sample],
    hints=[
        "What is E[ε | x_t] for such data? x_t and ε are Gaussian, with covariance b, and x_t has "
        "the variance a² std² + b².",
        "Put it into dy / dρ = ε with y = x / a and ρ = b / a, and part y from ρ.",
        "y is in proportion to sqrt(std² + ρ²); at the data is ρ = 0, and y = x.",
    ],
    right=_end(_exact_end),
    inputs=_draw_ends,
    result="x",
    wrong=_END_WRONG,
    otherwise=("Your x is not the end of the ODE.", _ODE),
    passes=_praise_end,
)


# --- The wrong times -----------------------------------------------------------------------------

_STEPS = 10


@exercise(
    "07.break_the_times",
    task="Break it: write `bad_times(T, steps)`, 10 of the times 0 ... 999, rising and ending at "
    "999, with which a perfect network loses half of the samples between or around two clusters.",
    signature="bad_times(T, steps) -> list of int",
    solution=[run_times, ddim_times],
    hints=[
        "Every step trusts the guess of x_0 at its start. Where is a guess good enough for a long "
        "step, and where is it not?",
        "Leave a gap just where the network decides which cluster it shall be.",
        "Spend nine steps where nothing happens, near the noise or near the data.",
    ],
)
def _check_break_the_times(attempt: Attempt, generator: torch.Generator) -> str:
    T = 1000
    times = _take_times(attempt(T, _STEPS))
    _judge_times(times, T, _STEPS)
    got, even = run_times(times, T=T), _even_times()
    points = [-1, *times]
    i = max(range(len(times)), key=lambda i: points[i + 1] - points[i])
    start, end = points[i + 1], points[i]
    a = float(DiscreteSchedule.linear(T).a(torch.tensor([start])))
    gap = (
        f"The longest step goes from t = {start}, where {a * a:.1%} of the variance are data, "
        + (f"to t = {end}" if end >= 0 else "to the data")
    )
    if got.lost >= 0.5:
        return (
            f"Broken: {got.lost:.0%} are lost, with the mean of |x| at {got.centre:.2f}. With 10 "
            f"evenly spread times {even.lost:.0%} are. {gap}: it follows a single guess of x_0, "
            "made where the network cannot know yet which cluster it will be, and answers with "
            "the mean of both. Ten calls of the network in both cases: where they are made is what "
            "counts."
        )
    raise Mistake(
        f"Only {got.lost:.0%} are lost (with evenly spread times {even.lost:.0%}). {gap}, and that "
        "is not enough.",
        "Make one gap longer: from nearly pure noise the guess is nearly the mean.",
    )


@cache
def _even_times() -> ClusterReport:
    return run_times(ddim_times(1000, _STEPS))
