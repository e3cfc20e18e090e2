"""Exercises of chapter 13: ways and their velocity, one dimension, costs, straightness, pairs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.diffusion import (
    RectifiedFlow,
    gaussian_velocity,
    interpolate,
    kernel_velocity,
    monotone_map,
    per_example,
    reflow,
    straightness,
    transport_cost,
)
from course_lib.exercises.attempt import Attempt, Mistake, take_number, take_results, take_tensor
from course_lib.exercises.draws import between, rand, randn
from course_lib.exercises.formula import SHAPES, Wrong, formula, usual
from course_lib.exercises.registry import exercise

__all__ = [
    "correlated_velocity",
    "curved_way",
    "even_error",
    "flow_at",
    "pair_costs",
    "straightness_at",
]


# --- A way that is no line -----------------------------------------------------------------------


def curved_way(x0: Tensor, x1: Tensor, t: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """The place x_t = (1 − t)^p x_0 + t^p x_1 on the way of each pair, and the velocity there.

    Args:
        x0: ``[B, *event]``, at t = 0.
        x1: The same shape, at t = 1.
        t: Times ``[B]``.
        p: The exponent; at 1 the way is the straight line.

    """
    t = per_example(t, x0)
    x_t = (1 - t) ** p * x0 + t**p * x1
    return x_t, p * (t ** (p - 1) * x1 - (1 - t) ** (p - 1) * x0)


_CHAIN = "d/dt t^p = p t^(p − 1), and d/dt (1 − t)^p = −p (1 − t)^(p − 1): the inner 1 − t falls."
_AXES = "t holds one time an example: `t.reshape(-1, 1, ...)`, with as many axes as x_0."
_ENDS = "In this course x_0, the data, is at t = 0, and x_1 at t = 1."


def _way(
    place: Callable[..., Tensor] | None = None, velocity: Callable[..., Tensor] | None = None
) -> Callable[..., tuple[Tensor, Tensor]]:
    """An answer by its place and its velocity of (x0, x1, t, p), ``t`` with the axes of x0."""

    def answer(x0: Tensor, x1: Tensor, t: Tensor, p: float) -> tuple[Tensor, Tensor]:
        x_t, v = curved_way(x0, x1, t, p)
        t = per_example(t, x0)
        return (
            x_t if place is None else place(x0, x1, t, p),
            v if velocity is None else velocity(x0, x1, t, p),
        )

    return answer


def _way_swapped(x0: Tensor, x1: Tensor, t: Tensor, p: float) -> tuple[Tensor, Tensor]:
    return curved_way(x1, x0, t, p)


def _way_of_one_time(x0: Tensor, x1: Tensor, t: Tensor, p: float) -> tuple[Tensor, Tensor]:
    return curved_way(x0, x1, t[:1].expand_as(t), p)


def _way_last_axis(x0: Tensor, x1: Tensor, t: Tensor, p: float) -> tuple[Tensor, Tensor]:
    return (
        (1 - t) ** p * x0 + t**p * x1,
        p * (t ** (p - 1) * x1 - (1 - t) ** (p - 1) * x0),
    )


# fmt: off
_WAY_WRONG = [
    Wrong(_way(velocity=lambda x0, x1, t, p: x1 - x0), "Your velocity is that of the straight "
          "line: here it changes on the way.", _CHAIN),
    Wrong(_way(velocity=lambda x0, x1, t, p: p * (t**(p - 1) * x1 + (1 - t)**(p - 1) * x0)),
          "The amount of x_0 falls: its part of your velocity has the wrong sign.", _CHAIN),
    Wrong(_way(velocity=lambda x0, x1, t, p: t**(p - 1) * x1 - (1 - t)**(p - 1) * x0),
          "You leave out the factor p of the derivative.", _CHAIN),
    Wrong(_way(velocity=lambda x0, x1, t, p: p * (t**p * x1 - (1 - t)**p * x0)),
          "The exponent stays p in your velocity: a derivative lowers it by 1.", _CHAIN),
    Wrong(_way(velocity=lambda x0, x1, t, p: t**p * x1 - (1 - t)**p * x0),
          "Your velocity is the difference of the two parts of x_t: nothing is differentiated.",
          _CHAIN),
    Wrong(_way(velocity=lambda x0, x1, t, p: p * t**(p - 1) * x1 - x0), "You differentiate the "
          "part of x_1 alone.", _CHAIN),
    Wrong(_way(velocity=lambda x0, x1, t, p: x1 - p * (1 - t)**(p - 1) * x0), "You differentiate "
          "the part of x_0 alone.", _CHAIN),
    Wrong(_way(velocity=lambda x0, x1, t, p: p * ((1 - t)**(p - 1) * x0 - t**(p - 1) * x1)),
          "Your velocity points the other way: it is dx_t/dt, and t grows towards x_1.", ""),
    Wrong(_way(velocity=lambda x0, x1, t, p: p * t**(p - 1) * (x1 - x0)), "Both parts of your "
          "velocity change with t^p: the amount of x_0 is (1 − t)^p.", _CHAIN),
    Wrong(_way(velocity=lambda x0, x1, t, p: (x1 - curved_way(x0, x1, t.flatten(), p)[0])
          / (1 - t)), "Your velocity is the mean of the rest of the way, (x_1 − x_t) / (1 − t).",
          "The velocity at t is the derivative there."),
    Wrong(_way(place=lambda x0, x1, t, p: (1 - t) * x0 + t * x1), "Your x_t lies on the straight "
          "line: p is not in it.", "`(1 - t) ** p` and `t ** p` are the amounts."),
    Wrong(_way(place=lambda x0, x1, t, p: (1 - t**p) * x0 + t**p * x1), "Your amounts sum to 1: "
          "x_0's is (1 − t)^p, not 1 − t^p.", ""),
    Wrong(_way_swapped, "Your way begins at x_1: t = 0 is where x_0 is.", _ENDS),
    Wrong(_way_of_one_time, "All examples get the first one's time.", _AXES),
    Wrong(_way_last_axis, "Your t lies along the last axis, not along the batch.", _AXES),
]
# fmt: on

formula(
    "13.velocity",
    task="Write `velocity`: another way from x_0 to x_1 is x_t = (1 − t)^p x_0 + t^p x_1. Give its "
    "place x_t and its velocity v = dx_t/dt there, for x_0 and x_1 [B, *event] of any shape, "
    "times t [B] and a number p above 1.",
    signature="velocity(x0, x1, t, p) -> x_t, v",
    solution=[curved_way, interpolate, RectifiedFlow.loss],
    hints=[
        "x_0 and x_1 stand still; only the two amounts depend on t.",
        _CHAIN,
        "First `t = t.reshape(-1, *[1] * (x0.ndim - 1))`, so that each example keeps its time.",
    ],
    right=curved_way,
    inputs=lambda generator: [
        (
            randn(*shape, generator=generator),
            randn(*shape, generator=generator),
            rand(0.05, 0.95, shape[0], generator=generator),
            between(1.6, 2.8, generator),
        )
        for shape in SHAPES
    ],
    result=["x_t", "v"],
    axes="[B, *event], [B, *event], [B], _ -> [B, *event], [B, *event]",
    tolerance=1e-3,
    wrong=_WAY_WRONG,
    hint=_CHAIN,
    otherwise={
        "x_t": ("Your x_t is not (1 − t)^p x_0 + t^p x_1.", "Try t = 0 and t = 1."),
        "v": ("Your v is not the derivative of x_t by t.", _CHAIN),
    },
    passes="Your v is the slope of your way, for every shape. Nothing in the proof that a flow "
    "keeps the laws needs a line: the mean of this v over the ways through a place is a flow, too. "
    "But only with p = 1 does one step of Euler run the whole way of a pair.",
)


# --- Correlated pairs ----------------------------------------------------------------------------


def correlated_velocity(
    x: Tensor, t: Tensor, m: Tensor, s0: float, s1: float, rho: float
) -> Tensor:
    """The mean of x_1 − x_0 over the lines through ``x`` at ``t``, for correlated Gaussian pairs.

    Each coordinate of x_0 is N(m, s_0²), of x_1 N(0, s_1²), and the two are correlated with
    ``rho``. Where all is Gaussian the mean is the regression line: the slope is
    Cov(x_1 − x_0, x_t) / Var x_t.

    Args:
        x: Places ``[B, D]``.
        t: Times ``[B]``.
        m: The mean of x_0, ``[D]``.
        s0: Standard deviation of x_0.
        s1: Standard deviation of x_1.
        rho: Their correlation, in each coordinate.

    """
    t = t[:, None]
    covariance = t * s1**2 - (1 - t) * s0**2 + (1 - 2 * t) * rho * s0 * s1
    variance = (1 - t) ** 2 * s0**2 + t**2 * s1**2 + 2 * t * (1 - t) * rho * s0 * s1
    return -m + covariance / variance * (x - (1 - t) * m)


_REGRESSION = (
    "E[d | x_t] = E d + Cov(d, x_t) / Var x_t · (x − E x_t), with d = x_1 − x_0 and "
    "Cov(x_0, x_1) = ρ s_0 s_1."
)


def _by_moments(
    covariance: Callable[..., Tensor] | None = None,
    variance: Callable[..., Tensor] | None = None,
    mean: Callable[..., Tensor] = lambda m, t: -m,
    at: Callable[..., Tensor] = lambda m, t: (1 - t) * m,
) -> Callable[..., Tensor]:
    """An answer by its covariance and variance of (t, a = s_0, b = s_1, c), and its two means."""

    def answer(x: Tensor, t: Tensor, m: Tensor, s0: float, s1: float, rho: float) -> Tensor:
        t, c = t[:, None], rho * s0 * s1
        over = t * s1**2 - (1 - t) * s0**2 + (1 - 2 * t) * c
        under = (1 - t) ** 2 * s0**2 + t**2 * s1**2 + 2 * t * (1 - t) * c
        over = over if covariance is None else covariance(t, s0, s1, c)
        under = under if variance is None else variance(t, s0, s1, c)
        return mean(m, t) + over / under * (x - at(m, t))

    return answer


def _draw_gaussians(generator: torch.Generator) -> list[tuple]:
    cases = []
    for shape, sign in (((9, 3), 1), ((5, 5), 1), ((7, 2), -1)):
        m = rand(1.0, 2.0, shape[1], generator=generator)
        t = rand(0.08, 0.92, shape[0], generator=generator)
        s0, s1 = between(0.5, 0.9, generator), between(1.2, 1.8, generator)
        rho = sign * between(0.3, 0.7, generator)
        x = (1 - t)[:, None] * m + 1.5 * randn(*shape, generator=generator)
        cases.append((x, t, m, s0, s1, rho))
    return cases


# fmt: off
_GAUSS_WRONG = [
    Wrong(lambda x, t, m, s0, s1, rho: correlated_velocity(x, t, m, s0, s1, 0.0), "You leave the "
          "correlation out: these pairs are not independent.", _REGRESSION),
    Wrong(_by_moments(covariance=lambda t, a, b, c: t * b**2 - (1 - t) * a**2), "The correlation "
          "is missing in your covariance of x_1 − x_0 and x_t.", _REGRESSION),
    Wrong(_by_moments(variance=lambda t, a, b, c: (1 - t)**2 * a**2 + t**2 * b**2), "The "
          "correlation is missing in your variance of x_t.", _REGRESSION),
    Wrong(_by_moments(variance=lambda t, a, b, c: (1 - t)**2 * a**2 + t**2 * b**2
          + t * (1 - t) * c), "In your variance of x_t the mixed term counts once: it is "
          "2 t (1 − t) ρ s_0 s_1.", _REGRESSION),
    Wrong(_by_moments(covariance=lambda t, a, b, c: t * b**2 - (1 - t) * a**2 + c), "Of the mixed "
          "terms of your covariance one is missing: x_1 meets (1 − t) x_0, and −x_0 meets t x_1.",
          _REGRESSION),
    Wrong(_by_moments(covariance=lambda t, a, b, c: t * b**2 - (1 - t) * a**2 + (2 * t - 1) * c),
          "The mixed term of your covariance has the wrong sign: it is (1 − 2t) ρ s_0 s_1.",
          _REGRESSION),
    Wrong(_by_moments(mean=lambda m, t: 0 * m), "The mean of x_1 − x_0 is missing: it is −m.",
          _REGRESSION),
    Wrong(_by_moments(mean=lambda m, t: m), "The mean of x_1 − x_0 is −m, not m.", _REGRESSION),
    Wrong(_by_moments(at=lambda m, t: 0 * m), "You don't subtract the mean of x_t from x.",
          _REGRESSION),
    Wrong(_by_moments(at=lambda m, t: m), "The mean of x_t is (1 − t) m, not m.", _REGRESSION),
    Wrong(_by_moments(covariance=lambda t, a, b, c: t * b - (1 - t) * a + (1 - 2 * t) * c),
          "You take standard deviations for variances in your covariance.", _REGRESSION),
    Wrong(_by_moments(covariance=lambda t, a, b, c: b**2 - a**2), "Your covariance has no times: "
          "x_t = (1 − t) x_0 + t x_1.", _REGRESSION),
    Wrong(_by_moments(covariance=lambda t, a, b, c: (1 - t) * a**2 - t * b**2 - (1 - 2 * t) * c),
          "Your covariance has the wrong sign: it is that of x_0 − x_1.", _REGRESSION),
    Wrong(_by_moments(variance=lambda t, a, b, c: ((1 - t)**2 * a**2 + t**2 * b**2
          + 2 * t * (1 - t) * c).sqrt()), "You divide by the standard deviation of x_t: by its "
          "variance.", _REGRESSION),
    Wrong(_by_moments(variance=lambda t, a, b, c: (1 - t) * a**2 + t * b**2
          + 2 * t * (1 - t) * c), "Amounts count in a variance with their squares: (1 − t)² and "
          "t².", _REGRESSION),
    Wrong(lambda x, t, m, s0, s1, rho: correlated_velocity(x, t, m, s0, s1, rho / (s0 * s1)),
          "ρ is the correlation: the covariance is ρ s_0 s_1.", _REGRESSION),
    Wrong(lambda x, t, m, s0, s1, rho: correlated_velocity(x, 1 - t, m, s0, s1, rho), "Your time "
          "runs the other way.", _ENDS),
    Wrong(lambda x, t, m, s0, s1, rho: (x - m) / t[:, None], "You put the mean of x_0 in the place "
          "of x_0: which x_0 it was, x tells in part.", _REGRESSION),
]
# fmt: on

formula(
    "13.gaussian_flow",
    task="Derive, and write `gaussian_flow`: the velocity of the rectified flow at x [B, D] and "
    "times t [B], the mean of x_1 − x_0 over the lines that pass there. Each coordinate of x_0 is "
    "N(m, s_0²), with m [D], of x_1 N(0, s_1²), and in a pair the two are correlated: "
    "Cov(x_0, x_1) = ρ s_0 s_1. s0, s1 and rho are numbers.",
    signature="gaussian_flow(x, t, m, s0, s1, rho) -> v",
    solution=[correlated_velocity, gaussian_velocity],
    hints=[
        "x_1 − x_0 and x_t are jointly Gaussian: the mean of one given the other is a line.",
        _REGRESSION,
        "Var x_t = (1 − t)² s_0² + t² s_1² + 2 t (1 − t) ρ s_0 s_1. Multiply "
        "(x_1 − x_0) ((1 − t) x_0 + t x_1) out for the covariance.",
    ],
    right=correlated_velocity,
    inputs=_draw_gaussians,
    result="v",
    axes="[B, D], [B], [D], _, _, _ -> [B, D]",
    tolerance=1e-3,
    wrong=_GAUSS_WRONG,
    hint=_REGRESSION,
    otherwise=("Your v is not the mean of x_1 − x_0, given x_t.", _REGRESSION),
    passes="Your v is the flow of correlated pairs. With ρ = 0 it is the first rectified flow, "
    "which bends; its pairs have ρ = 1. Put that in: the slope is (s_1 − s_0) / ((1 − t) s_0 + "
    "t s_1), and each particle keeps its velocity the whole way. So one reflow is enough here.",
)


# --- One dimension -------------------------------------------------------------------------------


def flow_at(x0: Tensor, x1: Tensor, t: float) -> Tensor:
    """Where the flow of pairs of numbers has carried each ``x1[i]`` when it is ``t``: ``[N]``.

    Ways of a flow never meet, so that on the line nobody overtakes: the particle that starts as
    r-th from the left stays r-th; and as the flow keeps the laws, the r-th place at t is the r-th
    smallest of the points of the pairs' lines.

    Args:
        x0: One end of each pair, ``[N]``.
        x1: The other, ``[N]``, where the particles start, at t = 1.
        t: The time, from 1 down to 0.

    """
    places = interpolate(x0, x1, torch.full_like(x0, t)).sort().values
    rank = x1.argsort().argsort()
    return places[rank]


_RANKS = (
    "At t the particles are where the points (1 − t) x_0 + t x_1 of the lines are, and the r-th "
    "from the left at t = 1 is the r-th still."
)
_ARGSORT = "`argsort` says who is r-th; `argsort().argsort()` says which rank each one has."


def _line(x0: Tensor, x1: Tensor, t: float) -> Tensor:
    return (1 - t) * x0 + t * x1


def _rank(x: Tensor) -> Tensor:
    return x.argsort().argsort()


def _draw_pairs(generator: torch.Generator) -> list[tuple]:
    cases = []
    for n, t in (
        (9, between(0.25, 0.75, generator)),
        (12, between(0.25, 0.75, generator)),
        (15, 0.0),
        (8, between(0.85, 0.95, generator)),
        (5, 1.0),
    ):
        x1 = 1.5 * randn(n, generator=generator)
        cases.append((1 + 2 * randn(n, generator=generator), x1, t))
    return cases


# fmt: off
_LINE_WRONG = [
    Wrong(_line, "Your particles stay on the lines of their pairs: these cross, and ways of a flow "
          "don't.", _RANKS),
    Wrong(lambda x0, x1, t: _line(x0.sort().values[_rank(x1)], x1, t), "You go straight to where "
          "each particle lands: right at both ends, but on the way it follows the points of the "
          "given pairs' lines.", _RANKS),
    Wrong(lambda x0, x1, t: _line(x0, x1, t).sort().values, "Your places are right but sorted: "
          "give each particle its own, in the order of x1.", _ARGSORT),
    Wrong(lambda x0, x1, t: _line(x0, x1, t).sort().values[x1.argsort()], "You index with the "
          "order, not with the ranks.", _ARGSORT),
    Wrong(lambda x0, x1, t: _line(x0, x1, t).sort().values[_rank(x0)], "You take the ranks of "
          "x_0: the particles start at x_1.", _RANKS),
    Wrong(lambda x0, x1, t: _line(x0, x1, t).sort(descending=True).values[_rank(x1)], "You turn "
          "the order around: all would have to meet on the way.", _RANKS),
    Wrong(lambda x0, x1, t: x0.sort().values[_rank(x1)], "You give the place where each lands: "
          "what is asked for is where it is at t.", _RANKS),
    Wrong(lambda x0, x1, t: _line(x0, x1, 1 - t).sort().values[_rank(x1)], "Your time runs the "
          "other way.", _ENDS),
    Wrong(lambda x0, x1, t: _line(x0, x1, t)[_rank(x1)], "Your places are not sorted before you "
          "index them with the ranks.", _RANKS),
    Wrong(lambda x0, x1, t: _line(x0.mean(), x1, t), "All your particles go to the mean of x_0: "
          "only the mean of the lines through a place counts.", _RANKS),
    Wrong(lambda x0, x1, t: _line(x0[(x0 - x1[:, None]).abs().argmin(1)], x1, t), "Your particles "
          "go to the nearest x_0: some x_0 would be reached twice, and some never.", _RANKS),
    Wrong(lambda x0, x1, t: _line(x0[_rank(x1)], x1, t), "You give the particle of rank r the "
          "r-th x_0 of the list, which is not sorted.", _RANKS),
    Wrong(lambda x0, x1, t: _line(x0.sort().values, x1.sort().values, t)[x1.argsort()], "You go "
          "straight to where each particle lands, and index with the order, not with the ranks.",
          _ARGSORT),
    Wrong(lambda x0, x1, t: _line(x0.sort().values, x1.sort().values, t), "You sort x_0 and x_1 "
          "and join them: that is the line to where each lands, and in sorted order.", _RANKS),
]
# fmt: on

formula(
    "13.monotone_map",
    task="Write `flow_at`: N pairs of numbers, x0 [N] and x1 [N], make a rectified flow (their "
    "points blurred by next to nothing). Where is the particle that starts at x1[i], t = 1, when "
    "it is t? Give the places [N] in the order of x1. At t = 0 that is where it lands.",
    signature="flow_at(x0, x1, t) -> z",
    solution=[flow_at, monotone_map],
    hints=[
        "No network, no integration: ways of a flow never meet. What does that mean on a line?",
        _RANKS,
        _ARGSORT,
    ],
    right=flow_at,
    inputs=_draw_pairs,
    result="z",
    axes="[N], [N], _ -> [N]",
    wrong=_LINE_WRONG,
    hint=_RANKS,
    otherwise=("Your z is not where the flow has carried the particles.", _RANKS),
    passes="Nobody overtakes: at t = 0 you have the monotone map, whatever the pairs were. On the "
    "way there the pairs matter: a particle follows whichever line has its rank, and turns where "
    "lines cross. After reflow each follows one line.",
)


# --- Costs by hand -------------------------------------------------------------------------------

_STARTS, _ENDPOINTS = (0.0, 24.0), (49.0, 25.0)  # x_1 and x_0 of two pairs, whose lines cross
_COSTS = ("d²", "|d|", "√|d|")


def pair_costs(x0: Tensor, x1: Tensor) -> list[float]:
    """The mean costs d², |d| and √|d| of pairs of numbers ``[N]``."""
    costs = (torch.square, torch.abs, lambda d: d.abs().sqrt())
    return [transport_cost(x0, x1, cost=cost).item() for cost in costs]


_BY_HAND = (
    "Whose rank is lower lands lower: 0 → 25 and 24 → 49. Both ways are 25 long then; they were 49 "
    "and 1."
)


def _judge_cost(name: str, got: float, right: float, before: float) -> None:
    if abs(got - right) < 0.01:
        return
    slips = [
        (before, f"You say that {name} stays as it was: who goes where has changed."),
        (2 * right, f"You give the sum of {name} over both pairs, not the mean."),
        (2 * before, f"You give the sum of {name} before rectification."),
        (right - before, f"You give the change of {name}: its mean behind rectification is asked."),
        (before - right, f"You give how far {name} falls: its mean behind rectification is asked."),
    ]
    for number, says in slips:
        if abs(got - number) < 0.01 and number:
            raise Mistake(says, _BY_HAND)
    raise Mistake(f"The mean of {name} behind rectification is not {got:g}.", _BY_HAND)


@exercise(
    "13.convex_costs",
    task="Predict: two pairs on a line, x_1 = 0 with x_0 = 49 and x_1 = 24 with x_0 = 25. The mean "
    "cost of a pair is 1201 for c(d) = d², 25 for |d| and 4 for √|d|. A rectified flow is made of "
    "them. What are the three mean costs between where its particles start and land? Three "
    "numbers, in this order.",
    solution=[pair_costs, monotone_map, transport_cost],
    hints=[
        "On a line you know who lands where, without computing a flow.",
        _BY_HAND,
        "The theorem speaks of convex costs. Which of the three is not convex?",
    ],
)
def _check_convex_costs(answer: Any, generator: torch.Generator) -> str:
    x0, x1 = torch.tensor(_ENDPOINTS), torch.tensor(_STARTS)
    before, right = pair_costs(x0, x1), pair_costs(monotone_map(x0, x1), x1)
    question = "Three numbers: the mean of d², of |d| and of √|d|."
    if isinstance(answer, Tensor) and answer.ndim == 1 and answer.device.type != "meta":
        answer = answer.tolist()
    if not isinstance(answer, tuple | list):
        take_number(answer, question)
        answer = [answer]
    if len(answer) != 3:
        given = "one number" if len(answer) == 1 else f"{len(answer)} numbers"
        raise Mistake(f"You gave {given}; three are asked for.", question)
    got = [take_number(value, question) for value in answer]
    if sorted(got) == sorted(right) and got != right:
        raise Mistake("The numbers are right, but not in this order.", question)
    for values in zip(_COSTS, got, right, before, strict=True):
        _judge_cost(*values)
    return (
        "625, 25 and 5: d² falls by half, |d| stays, and √|d| rises. |d| is convex, but only just: "
        "it falls where the two go opposite ways, and where one overtakes the other the sum of "
        "their ways is the same. √|d| is not convex: it would rather have one long way and one "
        "short one. So a rectified flow grows no convex cost; on a line, as here, it is even the "
        "best for all of them (section 7)."
    )


# --- Straightness at unequal times ---------------------------------------------------------------


def straightness_at(states: Tensor, times: Tensor) -> Tensor:
    """∫ ‖(x_1 − x_0) − dz/dt‖² dt of one way that is known at times of any distance: a scalar.

    Args:
        states: z at each time, ``[T, D]``.
        times: From 1 down to 0, ``[T]``.

    """
    dt = times.diff()  # below 0
    velocity = states.diff(dim=0) / dt[:, None]
    far = (states[0] - states[-1] - velocity).square().sum(1)  # of each step
    return (far * dt.abs()).sum()


_INTEGRAL = (
    "In a step of length |Δt| the velocity is Δz / Δt; S is the sum over the steps of |Δt| times "
    "‖(x_1 − x_0) − Δz / Δt‖²."
)


def _straight(
    far: Callable[..., Tensor], weight: Callable[[Tensor], Tensor] = torch.abs
) -> Callable[..., Tensor]:
    """An answer by what it makes of each step's (Δz, Δt, x_1 − x_0), and of Δt as a weight."""

    def answer(states: Tensor, times: Tensor) -> Tensor:
        dt, dz = times.diff(), states.diff(dim=0)
        return (far(dz, dt[:, None], states[0] - states[-1]) * weight(dt)).sum()

    return answer


def _squares(dz: Tensor, dt: Tensor, whole: Tensor) -> Tensor:
    return (whole - dz / dt).square().sum(1)


def _draw_way(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    cases = []
    for n, dim in ((6, 2), (9, 3), (5, 5), (12, 4)):
        gaps = rand(0.3, 2.0, n - 1, generator=generator)
        times = 1 - torch.cat([torch.zeros(1), gaps.cumsum(0) / gaps.sum()])
        times[-1] = 0.0
        ends = 2 * randn(2, dim, generator=generator)
        way = times[:, None] * ends[0] + (1 - times[:, None]) * ends[1]
        cases.append((way + 0.3 * randn(n, dim, generator=generator), times))
    # One way begins nearly along its chord, so that its first step is not its worst.
    states, times = cases[-1]
    chord = states[0] + (times[1] - 1) * (states[0] - states[-1])
    states[1] = chord + 0.02 * randn(states.shape[1], generator=generator)
    return cases


# fmt: off
_STRAIGHT_WRONG = [
    Wrong(lambda z, t: straightness(z[:, None])[0], "You take the steps to be equally long: Δt "
          "differs from step to step.", _INTEGRAL),
    Wrong(_straight(_squares, lambda dt: torch.ones_like(dt) / len(dt)), "Each step counts alike: "
          "an integral weighs it by its length.", _INTEGRAL),
    Wrong(_straight(_squares, torch.ones_like), "You forget dt in the integral.", _INTEGRAL),
    Wrong(_straight(lambda dz, dt, d: _squares(dz, dt, d) / dz.shape[1]), "You average over the "
          "coordinates: ‖·‖² is their sum.", ""),
    Wrong(_straight(lambda dz, dt, d: _squares(dz, dt, d).sqrt()), "You integrate the norm: its "
          "square is asked for.", _INTEGRAL),
    usual("root"),
    Wrong(_straight(lambda dz, dt, d: _squares(dz, dt, -d)), "Your velocity and your x_1 − x_0 "
          "have opposite signs: Δt is below 0, and the first state is x_1.", _INTEGRAL),
    Wrong(_straight(lambda dz, dt, d: (d - dz).square().sum(1)), "You don't divide Δz by Δt: a "
          "velocity is asked for.", _INTEGRAL),
    Wrong(_straight(lambda dz, dt, d: (d * dt - dz).square().sum(1), torch.ones_like), "You "
          "compare Δz with (x_1 − x_0) Δt: the square of that has Δt twice, and the integral wants "
          "it once.", _INTEGRAL),
    usual("sign", "Your S is below 0: time runs down, and the step's length is |Δt|.", _INTEGRAL),
    Wrong(_straight(lambda dz, dt, d: (dz / dt).square().sum(1)), "You integrate the square of the "
          "velocity: x_1 − x_0 is not subtracted.", _INTEGRAL),
    Wrong(_straight(lambda dz, dt, d: _squares(dz, dt, (dz / dt).mean(0))), "You subtract the "
          "mean of the steps' velocities, where long and short steps count alike: x_1 − x_0 is "
          "asked for.", _INTEGRAL),
    Wrong(_straight(lambda dz, dt, d: _squares(dz, dt, d).amax().expand(len(dz))), "You take the "
          "worst step: S is a mean over time.", _INTEGRAL),
    Wrong(_straight(lambda dz, dt, d: _squares(dz, dt, d)[0].expand(len(dz))), "You look at the "
          "first step alone: that is the error of one step of Euler.", _INTEGRAL),
    Wrong(lambda z, t: z.diff(dim=0).norm(dim=1).sum() - (z[0] - z[-1]).norm(), "You give how much "
          "longer the way is than the line: speed counts, too.", _INTEGRAL),
    Wrong(lambda z, t: ((t[:, None] * z[0] + (1 - t[:, None]) * z[-1] - z)[:-1].square().sum(1)
          * t.diff().abs()).sum(), "You measure how far the places are from the line: S compares "
          "velocities.", _INTEGRAL),
]
# fmt: on

formula(
    "13.straightness",
    task="Write `way_straightness`: S = ∫ ‖(x_1 − x_0) − dz/dt‖² dt of one way whose states "
    "[T, D] are known at times [T] of unequal distance, from 1 down to 0. In each step the "
    "velocity is taken as constant.",
    signature="way_straightness(states, times) -> S",
    solution=[straightness_at, straightness],
    hints=[
        "How long is each step, and how fast is it?",
        _INTEGRAL,
        "`times.diff()` and `states.diff(dim=0)`; the first state is x_1.",
    ],
    right=straightness_at,
    inputs=_draw_way,
    result="S",
    axes="[T, D], [T] -> []",
    tolerance=1e-3,
    wrong=_STRAIGHT_WRONG,
    hint=_INTEGRAL,
    otherwise=("Your S is not the integral.", _INTEGRAL),
    passes="Your S takes any times. It is also ∫ ‖dz/dt‖² dt − ‖x_1 − x_0‖²: what the way costs "
    "more than the line. So it is 0 for no other way than the line at constant speed.",
)


# --- One step of Euler ---------------------------------------------------------------------------


def even_error(S: Tensor, N: int) -> Tensor:
    """How far N steps of Euler miss the end of ways whose velocity changes evenly: ``[B]``.

    With dz/dt = (x_1 − x_0) + (t − ½) a the straightness is ‖a‖² / 12. A step is off by half of
    what the velocity changes in it: ‖a‖ / (2 N) in all.

    Args:
        S: The straightness of each way, ``[B]``.
        N: The number of steps, of one length.

    """
    return (3 * S).sqrt() / N


_EVENLY = (
    "dz/dt = (x_1 − x_0) + (t − ½) a: then S = ‖a‖² ∫ (t − ½)² dt = ‖a‖² / 12, and the first step "
    "of Euler, at t = 1, has a velocity that is off by a / 2."
)
_N_STEPS = "In a step of length 1/N the velocity changes by a / N, and half of that is the error."


# fmt: off
_EULER_WRONG = [
    Wrong(lambda S, N: S.sqrt() / N, "√S is how far the velocity is off on the average of the way; "
          "Euler takes it where it is off most.", _EVENLY),
    Wrong(lambda S, N: (12 * S).sqrt() / N, "√(12 S) is the whole change of the velocity: at the "
          "start it is off by half of that.", _EVENLY),
    Wrong(lambda S, N: 3 * S / N, "S is a square: a length is its root.", _EVENLY),
    Wrong(lambda S, N: (3 * S).sqrt() / N**2, "The error of one step falls like 1/N², but there "
          "are N of them.", _N_STEPS),
    Wrong(lambda S, N: (3 * S / N).sqrt(), "The error falls like 1/N, not like its root.",
          _N_STEPS),
    Wrong(lambda S, N: (3 * S).sqrt(), "You don't use N: with more steps the velocity is asked for "
          "more often.", _N_STEPS),
    Wrong(lambda S, N: (12 * S).sqrt(), "You give ‖a‖, the change of the velocity on the whole "
          "way.", _EVENLY),
    Wrong(lambda S, N: (S / 3).sqrt() / N, "∫ (t − ½)² dt is 1/12: ‖a‖² is 12 S, and half of its "
          "root √(3 S).", _EVENLY),
    Wrong(lambda S, N: (6 * S).sqrt() / N, "∫ (t − ½)² dt is 1/12, not 1/24.", _EVENLY),
    Wrong(lambda S, N: (0.75 * S).sqrt() / N, "∫ (t − ½)² dt is 1/12, not 1/3.", _EVENLY),
    Wrong(lambda S, N: (3 * S).sqrt() * N, "More steps are better: divide by N.", _N_STEPS),
    Wrong(lambda S, N: (3 * S).sqrt() / (N + 1), "N steps have the length 1/N.", _N_STEPS),
    Wrong(lambda S, N: 12 * S / N, "S is a square: a length is its root, and √(12 S) is the whole "
          "change of the velocity.", _EVENLY),
    Wrong(lambda S, N: S / N, "S is the mean of a square: take its root, and ask how far Euler's "
          "velocity is off.", _EVENLY),
    usual("batch mean", "Every way gets the mean error of all.", "Each S is a way's own."),
]
# fmt: on

formula(
    "13.euler_error",
    task="Derive, and write `euler_error`: on each of B ways the velocity changes evenly with "
    "time, dz/dt = (x_1 − x_0) + (t − ½) a. You don't know a, but the straightness S [B] of the "
    "ways. How far from their ends do N steps of Euler of one length land, from t = 1 down to 0, "
    "if the velocity depends on time alone? N is a whole number.",
    signature="euler_error(S, N) -> [B]",
    solution=[even_error, straightness, RectifiedFlow.states],
    hints=[
        "What is S of such a way? And the velocity at t = 1?",
        _EVENLY,
        _N_STEPS,
    ],
    right=even_error,
    inputs=lambda generator: [(rand(0.2, 4.0, 7, generator=generator), N) for N in (1, 2, 3, 8)],
    result="error",
    axes="[B], _ -> [B]",
    wrong=_EULER_WRONG,
    hint=_EVENLY,
    otherwise=("Your error is not how far Euler misses.", _EVENLY),
    passes="√(3 S) with one step, and an N-th of it with N: half as crooked in ‖a‖ means a quarter "
    "of S, and half the error. If the velocity changes unevenly, but by no more than A in a unit "
    "of time, A / (2 N) still bounds the error. S alone bounds nothing: a way that bends in its "
    "first hundredth only has a small S, and its one step can miss by any distance.",
)


# --- Pairs that are lost -------------------------------------------------------------------------


def _straightness_of(x0: Tensor, x1: Tensor) -> float:
    """Of the flow that pairs make: the median over the ways of its first particles."""
    z, states, steps = x1[:100], [x1[:100]], 20
    for i in range(steps, 0, -1):
        z = z - kernel_velocity(z, i / steps, x0, x1, width=0.3) / steps
        states.append(z)
    return straightness(torch.stack(states)).median().item()


def _rows(x: Tensor) -> list:
    return sorted(x.tolist())


_KEEP = "Reorder one of the two; leave every sample as it is."
_ALONE = (
    "What the loss sees of reflow is which x_1 was carried to which x_0. A permutation of one of "
    "the two leaves both sets of samples as they are."
)


@exercise(
    "13.break_the_pairs",
    task="Break it: reflow has made pairs x0 [N, 2] and x1 [N, 2], in an order of chance. Write "
    "`bad_pairs`, a small slip in the code behind it: it gives x0 and x1 with exactly the same "
    "samples, no histogram shows a difference, and the next flow is trained without a complaint. "
    "But it is no straighter than the first.",
    signature="bad_pairs(x0, x1) -> x0, x1",
    solution=[reflow, RectifiedFlow.loss, straightness],
    hints=[
        "What does the second flow get that the first did not have? Not other samples.",
        _ALONE,
        "Think of a data loader that shuffles, called once for each of the two.",
    ],
)
def _check_break_the_pairs(attempt: Attempt, generator: torch.Generator) -> str:
    x1 = randn(500, 2, generator=generator)
    turn = torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
    ways = x1 @ turn  # as of a first flow from noise to four lumps, on the slant
    x0 = (0.3 * ways + 1.5 * torch.tanh(3 * ways)) @ turn.T + 0.5
    names = ("x0", "x1")
    answer = take_results(names, attempt(x0, x1))
    bad0, bad1 = (
        take_tensor(name, part, x.shape, dtype=x.dtype).detach()
        for name, part, x in zip(names, answer, (x0, x1), strict=True)
    )
    if _rows(bad0) == _rows(x1) and _rows(bad1) == _rows(x0):
        raise Mistake(
            "You swap x0 and x1: the next flow would run from data to noise. That would be "
            "noticed.",
            _KEEP,
        )
    for name, part, x in zip(names, (bad0, bad1), (x0, x1), strict=True):
        if _rows(part) != _rows(x):
            raise Mistake(
                f"Your {name} holds other samples than {name} did: a histogram shows that.", _KEEP
            )
    independent = torch.cdist(x0, x1).square().mean().item()
    right, cost = transport_cost(x0, x1).item(), transport_cost(bad0, bad1).item()
    if abs(cost - right) < 1e-3 * independent:
        raise Mistake(
            "Not broken: every x1 still stands beside the x0 that it was carried to.", _ALONE
        )
    if cost < 0.8 * independent:
        raise Mistake(
            f"Half broken: your pairs' mean cost is {cost:.2f}. Reflow's is {right:.2f}, and that "
            f"of pairs drawn independently {independent:.2f}: the next flow keeps a part.",
            _ALONE,
        )
    if cost > 1.2 * independent:
        raise Mistake(
            f"Another coupling: your pairs' mean cost is {cost:.2f}, and that of pairs drawn "
            f"independently only {independent:.2f}. The next flow would not be the first one.",
            _ALONE,
        )
    first = _straightness_of(x0[torch.randperm(len(x0), generator=generator)], x1)
    return (
        f"Broken: the samples are the same, and the next flow has a straightness of "
        f"{_straightness_of(bad0, bad1):.2f} (median); with reflow's pairs "
        f"{_straightness_of(x0, x1):.2f}. A first flow to the same samples, of pairs drawn "
        f"independently, has {first:.2f}: with shuffled pairs you train that one again, and learn "
        "the model's samples instead of the data, with all of its errors. The loss tells you, if "
        "you know what to expect: it does not fall towards 0."
    )
