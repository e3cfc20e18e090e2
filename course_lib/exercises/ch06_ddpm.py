"""Exercises of chapter 06: noising, algorithm 2, steps back, a loss, a clock that is wrong."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.diffusion import (
    DDPM,
    Denoiser,
    DiscreteSchedule,
    GaussianPath,
    convert,
    ddpm_sample,
    per_example,
)
from course_lib.exercises.attempt import (
    Attempt,
    Given,
    Mistake,
    same,
)
from course_lib.exercises.formula import Advice, Case, Wrong, formula
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise
from course_lib.experiments.reverse_step import reverse_density
from course_lib.experiments.two_clusters import ClusterReport, run_clock

__all__: list[str] = []

_T = 12  # of the random schedules
_COUNTS = "In code t counts from 0, and `alpha_bars[t]` belongs to x_t: no shift is needed."
_AXES = (
    "The numbers of `alpha_bars[t]`, one for each example, need the axes of an example behind "
    "them: `c.reshape(-1, *[1] * (x.ndim - 1))` does it for points and images alike."
)


# --- How much is left halfway --------------------------------------------------------------------


_PRODUCT = "Shares are multiplied, one step after the other: ᾱ = Π (1 − β)."
_LINEAR, _COSINE = DiscreteSchedule.linear(1000), DiscreteSchedule.cosine(1000)
_LEFT, _OTHER, _BETA = (
    float(c[499]) for c in (_LINEAR.alpha_bars, _COSINE.alpha_bars, _LINEAR.betas)
)
# fmt: off
_HALFWAY_WRONG = [
    Slip(_OTHER, "Half is what the cosine schedule leaves; the linear one is linear in β, not in "
         "ᾱ.", within=0.03),
    Slip(math.sqrt(_LEFT), "That is the factor of the data, sqrt(ᾱ), and not the share of the "
         "variance.", "Square it.", within=0.02),
    Slip(1 - _LEFT, "That is the share of the noise.", "What is left of the data?", within=0.03),
    Slip(1 - _BETA, "That is what the 500th step alone leaves of what came to it.", within=0.004),
    Slip(_BETA, "That is the β of the 500th step: what it adds.", within=0.001),
    Slip((1 - _BETA) ** 500, "You give all of the 500 steps the β of the last of them.",
         "The first of them are far smaller: their mean is half of that.", within=0.003),
    Slip(0.0, "Nearly nothing is what the whole schedule leaves, ᾱ = 0.00004.", within=0.0002),
    Slip(1 - float(_LINEAR.betas[:500].sum()), "You subtract the βs from 1.",
         "Each takes its share of what is left, not of what was there at first: multiply.",
         within=0.01),
]
# fmt: on

prediction(
    "06.predict_halfway",
    task="Predict: DDPM's linear schedule has T = 1,000 steps with β from 0.0001 to 0.02. After "
    "500 of them, what share of the data's variance is left, as a number from 0 to 1?",
    solution=[DiscreteSchedule.linear, DiscreteSchedule.__init__],
    hints=[
        "A step leaves a share 1 − β of the variance. What do 500 steps leave, one after another?",
        "ᾱ is a product of 1 − β, and log(1 − β) is about −β: so ᾱ is about exp(−Σ β).",
        "Up to the middle β rises from 0.0001 to 0.01: 500 of them, with a mean of 0.005.",
    ],
    right=_LEFT,
    within=0.03,
    wrong=_HALFWAY_WRONG,
    passes=f"{_LEFT:.3f}: of the data's variance only {100 * _LEFT:.0f} % are left in x_500, so "
    "the second half of the steps treats what is nearly noise already. This is why the cosine "
    f"schedule was made: it has {_OTHER:.2f} left at the same step.",
    question="1 would be all of it. Half is 0.5.",
    hint=_PRODUCT,
    otherwise=lambda got: (f"{got:.4g} is too {'much' if got > _LEFT else 'little'}.", _PRODUCT),
    low=0,
    high=1,
    subject="a share",
)


# --- Formulas of x, another tensor, times and a table ---------------------------------------------


def _random_schedule(generator: torch.Generator, T: int = _T) -> DiscreteSchedule:
    """A schedule in which every step counts: neighbours differ, and noise stays on both sides."""
    return DiscreteSchedule(0.06 + 0.14 * torch.rand(T, generator=generator))


# Batches as large as the last axes first: there a forgotten axis broadcasts without an error.
_SHAPES = [(6, 6), (6, 1, 6, 6), (7, 2), (4, 3, 2, 5), (4, 3, 5), (7,)]
_FROM = 2  # from this shape on, the first and the last time are among those asked for


def _draw_cases(
    generator: torch.Generator, fails: Callable[..., Advice]
) -> list[tuple[DiscreteSchedule, Tensor, Case]]:
    """A schedule, and a case of (x, y, t) without its table; ``fails`` is said of t = 0."""
    cases = []
    for i, shape in enumerate(_SHAPES):
        schedule = _random_schedule(generator)
        t = 1 + torch.randperm(_T - 2, generator=generator)[: shape[0]]
        if i >= _FROM:
            t[0], t[-1] = 0, _T - 1
        first, second = (torch.randn(shape, generator=generator) for _ in range(2))
        cases.append((schedule, Case((first, second, t), fails=fails if i >= _FROM else None)))
    return cases


# A formula of two tensors and the ᾱ of each example, shaped to multiply them.
Ratio = Callable[[Tensor, Tensor, Tensor], Tensor]
# An answer with the arguments (x, y, t, table).
Answer = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _at_t(formula: Ratio) -> Answer:
    return lambda x, y, t, table: formula(x, y, per_example(table[t], x))


def _table(rows: Sequence[tuple[Any, ...]], formula: Ratio) -> list[Wrong]:
    """Wrong formulas, and the right one with ᾱ looked up or spread in a wrong way."""

    def looked_up(ab: Callable[[Tensor, Tensor], Tensor]) -> Answer:
        return lambda x, y, t, table: formula(x, y, per_example(ab(t, table), x))

    def alone(table: Tensor) -> Tensor:
        return table / torch.cat([table.new_ones(1), table[:-1]])

    # fmt: off
    usual_rows = [
        (looked_up(lambda t, ab: ab[t - 1]), "You look up ᾱ one step too early, at t − 1.",
         f"The paper counts from 1. {_COUNTS}"),
        (looked_up(lambda t, ab: ab[(t + 1) % len(ab)]),
         "You look up ᾱ one step too late, at t + 1.", _COUNTS),
        (looked_up(lambda t, ab: ab[-1 - t]), "You count the time backwards.",
         "t = 0 is the least noisy."),
        (looked_up(lambda t, ab: ab.cumprod(0)[t]), "You multiply up the ᾱs once more.",
         "ᾱ is the product of the α already: no `cumprod` is left to do."),
        (looked_up(lambda t, ab: alone(ab)[t]), "You use α, which belongs to a single step.",
         "From the data to x_t in one go it takes ᾱ = α_1 ... α_t: `alpha_bars[t]`."),
        (looked_up(lambda t, ab: ab[t[:1]].expand(len(t))),
         "You use the first example's time for all.",
         "`alpha_bars[t]` is a tensor of shape [B]: one number for each example."),
        (looked_up(lambda t, ab: ab[t].mean().expand(len(t))), "You average ᾱ over the batch.",
         "Each example has a time of its own."),
        (lambda x, y, t, ab: formula(x, y, ab[t]),
         "You multiply the columns, not the examples: ᾱ runs along the last axis.", _AXES),
        (lambda x, y, t, ab: formula(x, y, ab[t][:, None]),
         "You multiply the rows of the images, not the examples.", _AXES),
    ]
    # fmt: on
    return [Wrong(_at_t(f), *words) for f, *words in rows] + [
        Wrong(f, *words) for f, *words in usual_rows
    ]


def _wrong_at_0(name: str, otherwise: Advice) -> Callable[..., Advice]:
    """What to say where all is well but at t = 0; the last argument but one is t."""

    def fails(got: Any, right: Tensor, *inputs: Any) -> Advice:
        t = next(value for value in inputs if value.dtype == torch.int64)
        late = t > 0
        if isinstance(got, Tensor) and got.shape == right.shape and same(got[late], right[late]):
            return (
                f"Your {name} is right for t ≥ 1 and wrong at t = 0.",
                f"The first step needs no case of its own. {_COUNTS}",
            )
        return otherwise

    return fails


_ROOTS = "ᾱ and 1 − ᾱ are variances: what multiplies x_0 and eps are their roots."


def _noised(x0: Tensor, eps: Tensor, ab: Tensor) -> Tensor:
    return ab.sqrt() * x0 + (1 - ab).sqrt() * eps


# --- Noise on top of noise ------------------------------------------------------------------------


def _onward(formula: Ratio) -> Callable[..., Tensor]:
    """An answer by a formula of x_s, eps, ᾱ_s and ᾱ_t."""
    return lambda x_s, eps, s, t, ab: formula(
        x_s, eps, per_example(ab[s], x_s), per_example(ab[t], x_s)
    )


def _by_share(share: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The right formula with another share of the variance that is left: of s, t and ᾱ."""
    return lambda x_s, eps, s, t, ab: _noised(x_s, eps, per_example(share(s, t, ab), x_s))


def _step_before(ab: Tensor) -> Tensor:
    return torch.cat([ab.new_ones(1), ab[:-1]])


def _draw_onward(generator: torch.Generator) -> list[tuple]:
    cases = []
    for shape in _SHAPES:
        s = torch.randint(_T - 1, shape[:1], generator=generator)
        ahead = torch.rand(shape[0], generator=generator)
        t = s + 1 + (ahead * (_T - 1 - s)).long()
        s[0], t[-1] = 0, _T - 1
        x_s, eps = (torch.randn(shape, generator=generator) for _ in range(2))
        cases.append((x_s, eps, s, t, _random_schedule(generator).alpha_bars))
    return cases


_LEFT_OF_X_S = (
    "From s to t a share ᾱ_t / ᾱ_s of the variance is left, the product of α_{s+1} ... α_t."
)
_FRESH = "What is lost is made up for by fresh noise: its variance is 1 − ᾱ_t / ᾱ_s."

# fmt: off
# x: x_s, e: eps, p: ᾱ_s (the past), n: ᾱ_t (now).
_ONWARD_WRONG = [
    Wrong(_onward(lambda x, e, p, n: n.sqrt() * x + (1 - n).sqrt() * e),
          "That is the way from x_0: x_s has come a part of it already.", _LEFT_OF_X_S),
    Wrong(_onward(lambda x, e, p, n: (n / p).sqrt() * x + (1 - n).sqrt() * e),
          "You add all the noise that x_t has: a part of it came with x_s.", _FRESH),
    Wrong(_onward(lambda x, e, p, n: (n / p).sqrt() * x + (p - n).sqrt() * e),
          "You add the difference of the two variances: the noise in x_s shrinks on the way, too.",
          _FRESH),
    Wrong(_onward(lambda x, e, p, n: (n / p).sqrt() * x
                  + ((1 - n).sqrt() - (n * (1 - p) / p).sqrt()) * e),
          "You subtract standard deviations: variances add up.", _FRESH),
    Wrong(_onward(lambda x, e, p, n: n / p * x + (1 - n / p) * e), "You forget both square roots.",
          _ROOTS),
    Wrong(_onward(lambda x, e, p, n: n / p * x + (1 - n / p).sqrt() * e),
          "You multiply x_s by ᾱ_t / ᾱ_s, without the square root.", _ROOTS),
    Wrong(_onward(lambda x, e, p, n: (n / p).sqrt() * x + (1 - n / p) * e),
          "You multiply the noise by its variance, without the square root.", _ROOTS),
    Wrong(_onward(lambda x, e, p, n: (n / p).sqrt() * x + (1 - (n / p).sqrt()) * e),
          "You multiply the noise by 1 − sqrt(ᾱ_t / ᾱ_s).", "The squares add up to 1."),
    Wrong(_onward(lambda x, e, p, n: n.sqrt() * x + (1 - n / p).sqrt() * e),
          "You shrink x_s as if it were x_0.", _LEFT_OF_X_S),
    Wrong(_onward(lambda x, e, p, n: (1 - n / p).sqrt() * x + (n / p).sqrt() * e),
          "You swap the two factors.", _LEFT_OF_X_S),
    Wrong(_onward(lambda x, e, p, n: (n / p).sqrt() * x - (1 - n / p).sqrt() * e),
          "You subtract the noise.", "Add."),
    Wrong(_onward(lambda x, e, p, n: x + (1 - n / p).sqrt() * e), "You don't shrink x_s.",
          _LEFT_OF_X_S),
    Wrong(_onward(lambda x, e, p, n: (n / p).sqrt() * x), "You add no noise.", _FRESH),
    Wrong(_by_share(lambda s, t, ab: ab[t] / _step_before(ab)[s]),
          "You take step s once more: x_s has its noise already.", f"{_LEFT_OF_X_S} {_COUNTS}"),
    Wrong(_by_share(lambda s, t, ab: _step_before(ab)[t] / ab[s]),
          "You stop one step before t.", f"{_LEFT_OF_X_S} {_COUNTS}"),
    Wrong(_by_share(lambda s, t, ab: ab[t] / _step_before(ab)[t]),
          "You take the last of the steps alone.", _LEFT_OF_X_S),
    Wrong(_by_share(lambda s, t, ab: (ab[t] / ab[s])[:1].expand(len(s))),
          "You use the first example's times for all.", "Each example has its own."),
    Wrong(_by_share(lambda s, t, ab: (ab[t] / ab[s]).mean().expand(len(s))),
          "You average over the batch.", "Each example has times of its own."),
    Wrong(lambda x, e, s, t, ab: _noised(x, e, ab[t] / ab[s]),
          "You multiply the columns, not the examples.", _AXES),
    Wrong(lambda x, e, s, t, ab: _noised(x, e, (ab[t] / ab[s])[:, None]),
          "You multiply the rows of the images, not the examples.", _AXES),
]
# fmt: on

formula(
    "06.noise_on",
    task="Derive, and write `noise_on`: x_t from x_s [B, *event], which is noised to time s "
    "already, in one go with fresh noise eps like it; times s < t [B] (int64, counted from 0), and "
    "alpha_bars [T]. An example may be a point, an image, anything.",
    signature="noise_on(x_s, eps, s, t, alpha_bars) -> x_t",
    solution=[reverse_density, GaussianPath.noised, per_example],
    hints=[
        "Each step leaves a share α of the variance. What do the steps s + 1 ... t leave?",
        "ᾱ_t / ᾱ_s. The rest, 1 − ᾱ_t / ᾱ_s, is the variance of the fresh noise.",
        "sqrt(r) x_s + sqrt(1 − r) eps with r = `(alpha_bars[t] / alpha_bars[s])`, reshaped to "
        "[B, 1, ..., 1]: `r.reshape(-1, *[1] * (x_s.ndim - 1))`.",
    ],
    right=_onward(lambda x, e, p, n: _noised(x, e, n / p)),
    inputs=_draw_onward,
    result="x_t",
    wrong=_ONWARD_WRONG,
    otherwise=("Your x_t is not x_s, noised from s to t.", f"{_LEFT_OF_X_S} {_FRESH}"),
    passes="Your x_t is what t − s single steps would give. From the data, where ᾱ is 1, it is the "
    "closed form; so nobody can tell in how many goes something was noised.",
)


# --- A longer step back --------------------------------------------------------------------------


def _back(formula: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
    """An answer by a formula of x_t, x_0, the share r = ᾱ_t / ᾱ_s, ᾱ_s and ᾱ_t."""

    def answer(x: Tensor, d: Tensor, past: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
        p, n = per_example(past, x), per_example(now, x)
        mean, variance = formula(x, d, n / p, p, n)
        return mean + 0 * x, (variance + 0 * p).flatten()

    return answer


def _mean(x: Tensor, d: Tensor, r: Tensor, p: Tensor, n: Tensor) -> Tensor:
    return (p.sqrt() * (1 - r) * d + r.sqrt() * (1 - p) * x) / (1 - n)


def _mean_by(formula: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    return _back(lambda x, d, r, p, n: (formula(x, d, r, p, n), (1 - r) * (1 - p) / (1 - n)))


def _variance_by(formula: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    return _back(lambda x, d, r, p, n: (_mean(x, d, r, p, n), formula(r, p, n)))


def _draw_back(generator: torch.Generator) -> list[tuple]:
    cases = []
    for shape in _SHAPES:
        past = 0.3 + 0.6 * torch.rand(shape[0], generator=generator)
        now = past * (0.2 + 0.6 * torch.rand(shape[0], generator=generator))
        cases.append((*(torch.randn(shape, generator=generator) for _ in range(2)), past, now))
    return cases


_FAR = "ᾱ_s goes with x_0, since q(x_s | x_0) has mean sqrt(ᾱ_s) x_0."
_NEAR = "r = ᾱ_t / ᾱ_s, of the way from s to t, goes with x_t."
_WEIGHTS = "Near the data (1 − ᾱ_s small) x_0 says more; farther off x_t."
_BAYES = "1 / variance = r / (1 − r) + 1 / (1 − ᾱ_s), with r = ᾱ_t / ᾱ_s: precisions add up."

# fmt: off
# x: x_t, d: x_0 (the data), r: ᾱ_t / ᾱ_s, p: ᾱ_s (the past), n: ᾱ_t (now).
_BACK_WRONG = [
    Wrong(_mean_by(lambda x, d, r, p, n: (r.sqrt() * (1 - p) * d + p.sqrt() * (1 - r) * x)
                   / (1 - n)), "You swap the two coefficients.", _WEIGHTS),
    Wrong(_mean_by(lambda x, d, r, p, n: (n.sqrt() * (1 - r) * d + r.sqrt() * (1 - p) * x)
                   / (1 - n)), "In the coefficient of x_0 you use ᾱ_t in place of ᾱ_s.", _FAR),
    Wrong(_mean_by(lambda x, d, r, p, n: (p * (1 - r) * d + r * (1 - p) * x) / (1 - n)),
          "You forget both square roots.", f"{_FAR} {_NEAR}"),
    Wrong(_mean_by(lambda x, d, r, p, n: (p.sqrt() * (1 - r) * d + n.sqrt() * (1 - p) * x)
                   / (1 - n)), "In the coefficient of x_t you use ᾱ_t in place of ᾱ_t / ᾱ_s.",
          _NEAR),
    Wrong(_mean_by(lambda x, d, r, p, n: (p.sqrt() * (1 - n) * d + r.sqrt() * (1 - p) * x)
                   / (1 - n)), "You write 1 − ᾱ_t for 1 − ᾱ_t / ᾱ_s, the noise between s and t.",
          _BAYES),
    Wrong(_mean_by(lambda x, d, r, p, n: p.sqrt() * (1 - r) * d + r.sqrt() * (1 - p) * x),
          "You forget to divide by 1 − ᾱ_t.", _WEIGHTS),
    Wrong(_mean_by(lambda x, d, r, p, n: r.sqrt() / (1 - r) * x + p.sqrt() / (1 - p) * d),
          "You forget to divide by the sum of the precisions.",
          "A weighted mean: divide by the sum of the weights."),
    Wrong(_mean_by(lambda x, d, r, p, n: d), "Your mean is x_0.", "x_t knows something, too."),
    Wrong(_mean_by(lambda x, d, r, p, n: p.sqrt() * d),
          "Your mean is that of q(x_s | x_0): you leave out what x_t says.",
          "Bayes: multiply by the likelihood q(x_t | x_s)."),
    Wrong(_mean_by(lambda x, d, r, p, n: x / r.sqrt()),
          "Your mean undoes the shrinking of x_t, and leaves out x_0.",
          "That is where the likelihood q(x_t | x_s) is highest. Multiply by the prior."),
    Wrong(_mean_by(lambda x, d, r, p, n: p.sqrt() * d + ((1 - p) / (1 - n)).sqrt()
                   * (x - n.sqrt() * d)),
          "You keep all of the noise that is in x_t: that is DDIM's step, whose variance is 0.",
          _WEIGHTS),
    Wrong(_variance_by(lambda r, p, n: 1 - r), "Your variance is that of the way forward.", _BAYES),
    Wrong(_variance_by(lambda r, p, n: 1 - p), "Your variance is that of q(x_s | x_0): x_t is left "
          "out.", _BAYES),
    Wrong(_variance_by(lambda r, p, n: 1 - n), "Your variance is that of q(x_t | x_0).", _BAYES),
    Wrong(_variance_by(lambda r, p, n: (1 - r) / r), "Your variance is that of the likelihood "
          "alone.", _BAYES),
    Wrong(_variance_by(lambda r, p, n: ((1 - r) * (1 - p) / (1 - n)).sqrt()),
          "You return the standard deviation.", "Its square is asked for."),
    Wrong(_variance_by(lambda r, p, n: (1 - n) / ((1 - r) * (1 - p))), "You return the precision.",
          "The variance is one divided by it."),
    Wrong(_variance_by(lambda r, p, n: (1 - r) * (1 - n) / (1 - p)), "Your fraction is upside "
          "down.", _BAYES),
    Wrong(_variance_by(lambda r, p, n: (1 - r) * (1 - p)), "You forget to divide by 1 − ᾱ_t.",
          _BAYES),
    Wrong(_variance_by(lambda r, p, n: 1 / (1 / (1 - r) + 1 / (1 - p))),
          "You forget r in the precision of the likelihood.",
          "x_t is sqrt(r) x_s and noise: r / (1 − r). " + _BAYES),
]
# fmt: on

formula(
    "06.skip_back",
    task="Derive, and write `skip_back`: mean [B, *event] and variance [B] of q(x_s | x_t, x_0) "
    "for any earlier time s, not only t − 1: x_t and x_0 [B, *event], and what ᾱ is at the two "
    "times, [B] each, with 1 > ᾱ_s > ᾱ_t.",
    signature="skip_back(x_t, x_0, alpha_bar_s, alpha_bar_t) -> mean, variance",
    solution=[DDPM.posterior, reverse_density],
    hints=[
        "Bayes: q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0), Gaussians in x_s. The first is what "
        "`noise_on` draws from.",
        "With r = ᾱ_t / ᾱ_s it has the mean sqrt(r) x_s and the variance 1 − r: r stands where α_t "
        "stood, 1 − r where β_t did, ᾱ_s where ᾱ_{t−1} did.",
        "mean = [sqrt(ᾱ_s) (1 − r) x_0 + sqrt(r) (1 − ᾱ_s) x_t] / (1 − ᾱ_t), variance = "
        "(1 − r) (1 − ᾱ_s) / (1 − ᾱ_t).",
    ],
    right=_back(
        lambda x, d, r, p, n: (_mean(x, d, r, p, n), (1 - r) * (1 - p) / (1 - n)),
    ),
    inputs=_draw_back,
    result=["mean", "variance"],
    axes="[B, *event], [B, *event], [B], [B] -> [B, *event], [B]",
    wrong=_BACK_WRONG,
    otherwise={
        "mean": (
            "Your mean is not where q(x_t | x_s) q(x_s | x_0) is highest.",
            "Try x_0 = 0, and then x_t = 0: that shows the two coefficients, one at a time.",
        ),
        "variance": ("Your variance is not that of the product of the two Gaussians.", _BAYES),
    },
    passes="Your Gaussian is exact, however far apart s and t are: once x_0 is known, long steps "
    "back are as Gaussian as short ones. It is not knowing x_0 that asks for many steps; and with "
    "this formula a sampler can skip the times that it does not like.",
)


# --- From eps to x_0 -----------------------------------------------------------------------------


def _x0_from_eps(x: Tensor, eps: Tensor, ab: Tensor) -> Tensor:
    return (x - (1 - ab).sqrt() * eps) / ab.sqrt()


_NO_X_0 = (
    "Put your x_0 into sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) eps, and x_t does not come back.",
    "Solve that equation for x_0, one operation at a time.",
)


def _draw_guesses(generator: torch.Generator) -> list[Case]:
    cases = _draw_cases(generator, _wrong_at_0("x_0", _NO_X_0))
    return [replace(c, inputs=(*c.inputs, schedule.alpha_bars)) for schedule, c in cases]


_SHRUNK = "x_0 was shrunk by sqrt(ᾱ_t): divide by it."
_ITS_NOISE = "The noise in x_t is sqrt(1 − ᾱ_t) eps: take that away before you divide."
_ONE_UNDER = "The 1 belongs under the root: sqrt(1 − ᾱ_t)."

# fmt: off
_X0_WRONG = [
    (lambda x, e, ab: (x + (1 - ab).sqrt() * e) / ab.sqrt(), "You add the noise once more.",
     _ITS_NOISE),
    (lambda x, e, ab: x - (1 - ab).sqrt() * e, "You forget to divide by sqrt(ᾱ_t).", _SHRUNK),
    (lambda x, e, ab: (x - (1 - ab).sqrt() * e) * ab.sqrt(),
     "You multiply by sqrt(ᾱ_t) where you must divide.", _SHRUNK),
    (lambda x, e, ab: (x - (1 - ab).sqrt() * e) / ab, "You divide by ᾱ_t, without the root.",
     _ROOTS),
    (lambda x, e, ab: (x - (1 - ab) * e) / ab.sqrt(),
     "You take away (1 − ᾱ_t) eps, without the root.", _ROOTS),
    (lambda x, e, ab: (x - (1 - ab) * e) / ab, "You forget both square roots.", _ROOTS),
    (lambda x, e, ab: (x - (1 - ab.sqrt()) * e) / ab.sqrt(), "You take away (1 − sqrt(ᾱ_t)) eps.",
     _ONE_UNDER),
    (lambda x, e, ab: (x - e) / ab.sqrt(), "You take away all of eps.", _ITS_NOISE),
    (lambda x, e, ab: x - e, "You take away all of eps, and don't rescale.", _ITS_NOISE),
    (lambda x, e, ab: x / ab.sqrt() - (1 - ab).sqrt() * e, "You divide x_t alone.", _ITS_NOISE),
    (lambda x, e, ab: x / ab.sqrt() + 0 * e, "You leave the noise in.", _ITS_NOISE),
    (lambda x, e, ab: (x - ab.sqrt() * e) / (1 - ab).sqrt(),
     "You swap the two factors: that would be eps, if you had been given x_0.", _ITS_NOISE),
    (_noised, "You add noise to x_t.", _ITS_NOISE),
    (lambda x, e, ab: ((1 - ab).sqrt() * e - x) / ab.sqrt(), "Your x_0 has the wrong sign.",
     _ITS_NOISE),
]
# fmt: on

formula(
    "06.x0_from_eps",
    task="Write `x0_from_eps`: the x_0 that x_t [B, *event] was made of if eps is the noise in it, "
    "with t [B] counted from 0 and alpha_bars [T].",
    signature="x0_from_eps(x_t, eps, t, alpha_bars) -> x_0",
    solution=convert,
    hints=[
        "Solve x_t = sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) eps for x_0.",
        "First take the noise away, with its factor; then undo the shrinking.",
        "x_0 = (x_t − sqrt(1 − ᾱ_t) eps) / sqrt(ᾱ_t). Mind the axes of `alpha_bars[t]`.",
    ],
    right=_at_t(_x0_from_eps),
    inputs=_draw_guesses,
    result="x_0",
    wrong=_table(_X0_WRONG, _x0_from_eps),
    otherwise=_NO_X_0,
    passes="Noise your x_0 with the same eps, and x_t comes back: for points and for images.",
)


# --- Algorithm 2 ---------------------------------------------------------------------------------


def _say_eps(x: Any, t: Any) -> Tensor:
    """A network's answer; it says when it is asked in the wrong way."""
    if not isinstance(x, Tensor) or not isinstance(t, Tensor) or t.shape != (len(x),):
        kind = f"shape {list(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
        raise Mistake(
            f"You tell the network a time of {kind}.",
            "One for each example of x: `torch.full((len(x),), t)`.",
        )
    wave = per_example((0.9 * t.double() + 1).cos(), x)
    return torch.tanh(x + wave)


EPS_NET = Given("net", ["x_t", "t"], _say_eps)


def _walk(
    *,
    less: Callable[..., Tensor] = lambda b, ab: b / (1 - ab).sqrt(),
    rescale: Callable[..., Tensor] = lambda b, ab: 1 / (1 - b).sqrt(),
    sigma: Callable[..., Tensor] = lambda b, ab, before: b.sqrt(),
    told: Callable[[int, int], int] = lambda t, T: t,
    order: Callable[[int], Any] = lambda T: reversed(range(T)),
    drawn: Callable[[int], bool] = lambda t: t > 0,
    noise_of: Callable[[Tensor, int], Tensor] = lambda noises, t: noises[t],
) -> Callable[..., Tensor]:
    """The right algorithm 2, of which a mistake replaces a part; b: β_t, ab: ᾱ_t."""

    def answer(net: Any, z: Tensor, betas: Tensor, noises: Tensor) -> Tensor:
        alpha_bars, x = (1 - betas).cumprod(0), z
        befores = torch.cat([betas.new_ones(1), alpha_bars[:-1]])
        for t in order(len(betas)):
            eps = net(x, torch.full((len(x),), told(t, len(betas))))
            b, ab = betas[t], alpha_bars[t]
            x = rescale(b, ab) * (x - less(b, ab) * eps)
            if drawn(t):
                x = x + sigma(b, ab, befores[t]) * noise_of(noises, t)
        return x

    return answer


def _draw_walks(generator: torch.Generator) -> list[Case]:
    cases = []
    single = (
        "With a single step, T = 1, your x is not (z − sqrt(β) eps) / sqrt(α).",
        "There ᾱ = α and 1 − ᾱ = β; and the last step, t = 0, draws nothing.",
    )
    for T, shape in ((6, (4, 3)), (5, (2, 1, 3, 3)), (1, (3, 2))):
        betas = _random_schedule(generator, T).betas
        z = torch.randn(shape, generator=generator)
        noises = torch.randn(T, *shape, generator=generator)
        cases.append(Case((EPS_NET, z, betas, noises), fails=single if T == 1 else None))
    return cases


_LINE_4 = "x = (x − β_t / sqrt(1 − ᾱ_t) · eps) / sqrt(α_t), and sqrt(β_t) · noise on top if t > 0."
_ASKED = "Ask the network at the time where the state is: t goes from T − 1 down to 0."

# fmt: off
_WALK_WRONG = [
    Wrong(_walk(drawn=lambda t: True), "You draw noise in the last step, too.",
          "At t = 0 the mean is the sample: noise would only be seen as noise."),
    Wrong(_walk(drawn=lambda t: False), "You never draw noise.",
          "The mean is only the middle of all the states that may have come before."),
    Wrong(_walk(less=lambda b, ab: b.sqrt()),
          "You take eps for the noise of this one step: sqrt(β_t) eps.",
          "eps is the noise of all steps so far. Its share of this step's noise is "
          "sqrt(β_t) / sqrt(1 − ᾱ_t), so that sqrt(β_t) becomes β_t / sqrt(1 − ᾱ_t)."),
    Wrong(_walk(less=lambda b, ab: b / (1 - ab)), "You divide by 1 − ᾱ_t, without the root.",
          _LINE_4),
    Wrong(_walk(less=lambda b, ab: b), "You forget to divide by sqrt(1 − ᾱ_t).", _LINE_4),
    Wrong(_walk(less=lambda b, ab: (1 - ab).sqrt()),
          "You take away all of the noise, and go no further than one step.", _LINE_4),
    Wrong(_walk(less=lambda b, ab: -b / (1 - ab).sqrt()), "You add eps where it must go.", _LINE_4),
    Wrong(_walk(rescale=lambda b, ab: torch.ones_like(b)),
          "You don't divide by sqrt(α_t): the step forward had shrunk the state.", _LINE_4),
    Wrong(_walk(rescale=lambda b, ab: (1 - b).sqrt()),
          "You multiply by sqrt(α_t) where you must divide.", _LINE_4),
    Wrong(_walk(rescale=lambda b, ab: 1 / (1 - b)), "You divide by α_t, without the root.",
          _LINE_4),
    Wrong(_walk(rescale=lambda b, ab: 1 / ab.sqrt()), "You divide by sqrt(ᾱ_t), of all steps.",
          "One step shrinks by sqrt(α_t)."),
    Wrong(_walk(sigma=lambda b, ab, before: b), "You multiply the noise by β_t, its variance.",
          "The root of a variance multiplies noise."),
    Wrong(_walk(sigma=lambda b, ab, before: torch.ones_like(b)), "You add all of the noise.",
          "Its variance is β_t: multiply by sqrt(β_t)."),
    Wrong(_walk(sigma=lambda b, ab, before: (b * (1 - before) / (1 - ab)).sqrt()),
          "Your noise has the posterior's variance: a good choice, but β_t was asked for.",
          "sqrt(β_t) · noise."),
    Wrong(_walk(told=lambda t, T: t + 1), "You tell the network t + 1.",
          "In code t counts from 0, and so does the network."),
    Wrong(_walk(told=lambda t, T: t - 1), "You tell the network t − 1.", _ASKED),
    Wrong(_walk(told=lambda t, T: T - 1 - t), "You tell the network the time backwards.", _ASKED),
    Wrong(_walk(told=lambda t, T: T - 1), "You ask the network at the last time in all steps.",
          _ASKED),
    Wrong(_walk(order=range), "You go through the times from the first to the last.",
          "Sampling starts with noise, at t = T − 1: `reversed(range(T))`."),
    Wrong(_walk(order=lambda T: range(T - 1, 0, -1)), "You stop before t = 0.",
          "t = 0 is a step as well: the last, to the data."),
    Wrong(_walk(noise_of=lambda noises, t: noises[-1 - t]), "You take the noises backwards.",
          "noises[t] belongs to the step from t."),
    Wrong(_walk(noise_of=lambda noises, t: noises[0]), "All of your steps take the same noise.",
          "noises[t] belongs to the step from t."),
    Wrong(_walk(order=lambda T: []), "Your x is z, unchanged.", _ASKED),
]
# fmt: on

formula(
    "06.ddpm_sample",
    task="Write `my_ddpm_sample`: all of algorithm 2, from noise z [B, *event] to data, with "
    "`net(x_t, t [B])` to eps, betas [T], σ_t² = β_t, and noises [T, B, *event]: noises[t] is the "
    "noise of the step from t.",
    signature="my_ddpm_sample(net, z, betas, noises) -> x",
    solution=[ddpm_sample, DDPM.reverse, DDPM.posterior],
    hints=[
        "A loop over t = T − 1 ... 0; in it three lines: ask the network, go to the mean, add "
        "noise, but in the last step.",
        "The mean of section 2 needs β_t, α_t = 1 − β_t and ᾱ_t: `(1 - betas).cumprod(0)`.",
        _LINE_4,
    ],
    right=_walk(),
    inputs=_draw_walks,
    result="x",
    tolerance=1e-3,
    wrong=_WALK_WRONG,
    otherwise=("Your x is not where algorithm 2 ends.", _LINE_4),
    passes="You have written DDPM's sampler: with a trained network and T noises it draws new "
    "data.",
)


# --- How wide the true step back is ---------------------------------------------------------------


def _spreads(t: Tensor, betas: Tensor, std: float) -> tuple[Tensor, ...]:
    """β, α, ᾱ, the ᾱ before, and the variance of x_{t−1}; each [B]."""
    alpha_bars = (1 - betas).cumprod(0)
    before = torch.cat([betas.new_ones(1), alpha_bars[:-1]])[t]
    return betas[t], 1 - betas[t], alpha_bars[t], before, before * std**2 + 1 - before


def _width(formula_: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An answer by a formula of β, α, ᾱ, the ᾱ before, the variance of x_{t−1}, and std."""
    return lambda t, betas, std: formula_(*_spreads(t, betas, std), std)


def _draw_widths(generator: torch.Generator) -> list[Case]:
    cases = []
    point = (
        "For data that are one point, std = 0, your variance is not the posterior's.",
        "There x_0 is known: β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t).",
    )
    normal = (
        "For standard normal data, std = 1, your variance is not β_t.",
        "There x_{t−1} and x_t both have variance 1, and covariance sqrt(α_t).",
    )
    low, high = torch.rand(2, generator=generator).tolist()
    for std, fails in ((0.2 + 0.5 * low, None), (1.3 + high, None), (0.0, point), (1.0, normal)):
        t = torch.randperm(_T, generator=generator)
        cases.append(Case((t, _random_schedule(generator).betas, std), fails=fails))
    return cases


_TWO = (
    "q(x_{t−1}) is a Gaussian of variance v = ᾱ_{t−1} std² + 1 − ᾱ_{t−1}, and q(x_t | x_{t−1}) has "
    "the precision α_t / β_t in x_{t−1}: precisions add up."
)

# fmt: off
_WIDTH_WRONG = [
    Wrong(_width(lambda b, a, n, p, v, s: b + 0 * v),
          "Your variance is β_t, whatever the data are.", "That is right for std = 1 alone. "
          + _TWO),
    Wrong(_width(lambda b, a, n, p, v, s: b * (1 - p) / (1 - n)),
          "Your variance is the posterior's, for which x_0 is known.",
          "What not knowing x_0 adds is missing. " + _TWO),
    Wrong(_width(lambda b, a, n, p, v, s: b * (1 - p) / (1 - n) + (p.sqrt() * b / (1 - n) * s)**2),
          "You add what x_0 leaves open before x_t is known: Var(x_0).",
          "x_t tells something of x_0: Var(x_0 | x_t) is smaller than std². " + _TWO),
    Wrong(_width(lambda b, a, n, p, v, s: v), "Your variance is that of x_{t−1} before x_t is "
          "known.", _TWO),
    Wrong(_width(lambda b, a, n, p, v, s: b / a + 0 * v),
          "Your variance is that of the likelihood alone, β_t / α_t.", _TWO),
    Wrong(_width(lambda b, a, n, p, v, s: v * b / (v + b)), "You forget α_t in the precision of "
          "the likelihood.", "x_t is sqrt(α_t) x_{t−1} and noise: α_t / β_t. " + _TWO),
    Wrong(_width(lambda b, a, n, p, v, s: v * b / (a**0.5 * v + b)),
          "You write sqrt(α_t) for α_t in the precision of the likelihood.", _TWO),
    Wrong(_width(lambda b, a, n, p, v, s: a / b + 1 / v.clamp(1e-20)),
          "You return the precision.", "The variance is one divided by it."),
    Wrong(_width(lambda b, a, n, p, v, s: (v * b / (a * v + b)).sqrt()),
          "You return the standard deviation.", "Its square is asked for."),
    Wrong(_width(lambda b, a, n, p, v, s: (lambda w: w * b / (a * w + b))(n * s**2 + 1 - n)),
          "You take ᾱ_t where ᾱ_{t−1} belongs: v is the variance of the state before.", _TWO),
    Wrong(_width(lambda b, a, n, p, v, s: (lambda w: w * b / (a * w + b))(p * s + 1 - p)),
          "You take std for a variance.", "Square it. " + _TWO),
    Wrong(_width(lambda b, a, n, p, v, s: (lambda w: w * b / (a * w + b))(s**2 + 1 - p)),
          "You don't shrink the data: at t − 1 their variance is ᾱ_{t−1} std².", _TWO),
    Wrong(_width(lambda b, a, n, p, v, s: (lambda w: w * b / (a * w + b))(p * s**2)),
          "You leave the noise out of x_{t−1}.", _TWO),
    Wrong(_width(lambda b, a, n, p, v, s: v - b), "You subtract β_t from the variance before.",
          _TWO),
]
# fmt: on

formula(
    "06.reverse_variance",
    task="Derive, and write `reverse_variance`: the variance [B] of x_{t−1} given x_t, without "
    "x_0, if the data are N(m, std²) on a line; t [B] counted from 0, betas [T], std a number.",
    signature="reverse_variance(t, betas, std) -> [B]",
    solution=reverse_density,
    hints=[
        "Which Gaussian is q(x_{t−1}) for such data, before x_t is known? And how does x_t come "
        "from x_{t−1}?",
        "Two Gaussians in x_{t−1} are multiplied, as for the posterior; only that the first is not "
        "q(x_{t−1} | x_0) but q(x_{t−1}).",
        "1 / variance = α_t / β_t + 1 / v, with v = ᾱ_{t−1} std² + 1 − ᾱ_{t−1}; at t = 0 is v = "
        "std².",
    ],
    right=_width(lambda b, a, n, p, v, s: v * b / (a * v + b)),
    inputs=_draw_widths,
    result="variance",
    wrong=_WIDTH_WRONG,
    otherwise=("Your variance is not that of the product of the two Gaussians.", _TWO),
    passes="At std = 0 yours is the posterior's variance, at std = 1 it is β_t, and between the "
    "two, for every step: so DDPM's two choices are the ends of what Gaussian data can need.",
)


# --- A loss with times drawn unevenly ------------------------------------------------------------


class _Net(Given):
    """A small network with two weights, which looks at the time as well."""

    def __init__(self, generator: torch.Generator):
        weight = nn.Parameter(0.5 + torch.rand(2, generator=generator))
        super().__init__(
            "net",
            ["x_t", "t"],
            lambda x_t, t: (
                weight[0] * torch.tanh(x_t) + weight[1] * per_example(t.float() / _T, x_t)
            ),
        )
        self.weight = weight


_EVENLY = (
    "Evenly drawn, t comes with probability 1 / T; here with share[t]. Count an example as often "
    "as it should have come, for once that it did: (1 / T) / share[t]."
)
_TARGET = "The target is the eps that is in x_t."


def _one_each(said: Tensor, eps: Tensor, x0: Tensor, x_t: Tensor) -> Tensor:
    return (said - eps).square().flatten(1).mean(1)


def _counted(
    weight: Callable[[Tensor], Tensor] = lambda share: 1 / (_T * share),
    each: Callable[..., Tensor] = _one_each,
    total: Callable[[Tensor, Tensor], Tensor] = lambda w, each: (w * each).mean(),
    told: Callable[[Tensor], Tensor] = lambda t: t,
    noised: Ratio = _noised,
) -> Callable[..., Tensor]:
    """The loss, of which a part may be another one."""

    def loss(
        net: _Net, x0: Tensor, eps: Tensor, t: Tensor, share: Tensor, alpha_bars: Tensor
    ) -> Tensor:
        x_t = noised(x0, eps, per_example(alpha_bars[t], x0))
        return total(weight(share[t]), each(net(x_t, told(t)), eps, x0, x_t))

    return loss


def _draw_uneven(generator: torch.Generator) -> list[tuple]:
    cases = []
    for shape in ((7, 2), (5, 1, 4, 4), (6, 6)):
        x0, eps = (torch.randn(shape, generator=generator) for _ in range(2))
        t = torch.randint(_T - 1, shape[:1], generator=generator)
        share = torch.softmax(torch.randn(_T, generator=generator), 0)
        cases.append((_Net(generator), x0, eps, t, share, _random_schedule(generator).alpha_bars))
    return cases


# fmt: off
_UNEVEN_WRONG = [
    Wrong(_counted(torch.ones_like), "Times that are drawn more often count more in your loss.",
          _EVENLY),
    Wrong(_counted(lambda p: _T * p), "You multiply where you must divide: times that come often "
          "count even more.", _EVENLY),
    Wrong(_counted(lambda p: 1 / p), "Your loss is T times too large.", _EVENLY),
    Wrong(_counted(lambda p: 1 / (_T * p).sqrt()), "You take a root of the weight.", _EVENLY),
    Wrong(_counted(lambda p: (_T * p)**-2), "Your weight is squared: it belongs outside of the "
          "square.", _EVENLY),
    Wrong(_counted(total=lambda w, each: (w * each).sum() / w.sum()),
          "You divide by the sum of the weights: on average that is another loss.",
          "Divide by B. That the weights have the mean 1 is true on average, not in each batch."),
    Wrong(_counted(total=lambda w, each: w.mean() * each.mean()),
          "You multiply the mean loss by the mean weight.",
          "Each example has a weight of its own."),
    Wrong(_counted(total=lambda w, each: (w * each).sum()), "You sum over the examples.",
          "The mean over them."),
    Wrong(_counted(total=lambda w, each: (w * each).mean() / 2), "Your loss is half as large.", ""),
    Wrong(_counted(each=lambda s, e, d, x: (s - e).square().flatten(1).sum(1)),
          "You sum over the numbers of an example.", "The mean over them."),
    Wrong(_counted(each=lambda s, e, d, x: (s - e).abs().flatten(1).mean(1)),
          "You take the absolute error, not the square.", ""),
    Wrong(_counted(each=lambda s, e, d, x: (s - d).square().flatten(1).mean(1)),
          "You compare with x_0.", _TARGET),
    Wrong(_counted(each=lambda s, e, d, x: (s - x).square().flatten(1).mean(1)),
          "You compare with x_t.", _TARGET),
    Wrong(_counted(told=lambda t: t + 1), "You tell the network t + 1, where the data are noised "
          "to t.", _COUNTS),
    Wrong(_counted(noised=lambda x, e, ab: ab * x + (1 - ab) * e), "You noise without roots.",
          _ROOTS),
    Wrong(_counted(noised=lambda x, e, ab: x + 0 * e), "You show the network clean data.",
          "x_t = sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) eps."),
]
# fmt: on

formula(
    "06.uneven_loss",
    task="Write `uneven_loss`: the times t [B] were drawn with probabilities share [T], not "
    "evenly, and yet the mean of your loss shall be that of the simple loss, the mean of "
    "(net(x_t, t) − eps)². x0 and eps [B, *event], alpha_bars [T]; gradients flow to the network's "
    "weights.",
    signature="uneven_loss(net, x0, eps, t, share, alpha_bars) -> scalar",
    solution=Denoiser.loss,
    hints=[
        "The simple loss is Σ_t (1 / T) L_t. What is the mean of L_t when t comes with share[t]?",
        "Σ_t share[t] L_t. With which factor of each term is that the simple loss?",
        "Per example the mean of (net(x_t, t) − eps)², times 1 / (T · share[t]); then the mean "
        "over the batch.",
    ],
    right=_counted(),
    inputs=_draw_uneven,
    result="loss",
    axes="_, [B, *event], [B, *event], [B], [T], [T] -> []",
    gradients={"the weights of net": lambda net, *_: net.weight},
    wrong=_UNEVEN_WRONG,
    hint=_EVENLY,
    otherwise=("The mean of your loss is not the simple loss.", _EVENLY),
    passes="The mean of your loss is the simple loss, with whatever shares the times are drawn, "
    "and only its spread depends on them. Draw those times more often whose errors are large, and "
    "it falls: so Nichol and Dhariwal tame the gradient of the bound.",
)


# --- A clock that is wrong -----------------------------------------------------------------------

_CLOCK_T, _MOST = 50, 3  # steps of the sampler; how far a clock may be off
_OUTWARDS = 1.04


@exercise(
    "06.break_the_clock",
    task="Break it: write `clock(t, T)`, the time that the network is told at step t, wrong by at "
    f"most {_MOST} of T = {_CLOCK_T} steps, so that both clusters land at least 4 % too far out.",
    signature="clock(t, T) -> int",
    solution=run_clock,
    hints=[
        "The network reads off the time how much noise to expect in x_t. What does it take for "
        "noise if it expects less than there is, and what does it leave?",
        "What it leaves stays in the guess of x_0, which is then too far out.",
        "Tell it an earlier time, by some steps. And mind t = 0: there is no time before.",
    ],
)
def _check_break_the_clock(attempt: Attempt, generator: torch.Generator) -> str:
    told = [_take_time(attempt(t, _CLOCK_T), t) for t in range(_CLOCK_T)]
    right = _right_clock()
    got = run_clock(lambda t, T: told[t], T=_CLOCK_T)
    measured = (
        f"the centres come out at ±{got.centre:.2f}, with a width of {got.width:.2f} (with the "
        f"right clock: ±{right.centre:.2f} and {right.width:.2f})"
    )
    if got.centre > _OUTWARDS * right.centre:
        return (
            f"Broken: {measured}. Told an earlier time, the network expects less noise than there "
            "is, takes the rest for data, and leaves it in x_0; at every step a little. With 1,000 "
            "steps a clock that is one step off changes nothing that you could see, which is why "
            "this mistake lives long."
        )
    off = torch.tensor(told) - torch.arange(_CLOCK_T)
    if (off == 0).all():
        raise Mistake("Your clock is right: nothing breaks.", "Be wrong by some steps.")
    if (off >= 0).all():
        raise Mistake(
            f"Nothing lands too far out: {measured}. You tell the network later times: it expects "
            "more noise than there is, and takes away too much.",
            "Turn it round.",
        )
    if got.centre < 0.98 * right.centre:
        raise Mistake(
            f"The clusters land too near the middle: {measured}.",
            "At most steps the network expects more noise than there is. Turn it round.",
        )
    raise Mistake(
        f"Too little happens: {measured}.",
        f"You may be wrong by {_MOST} steps, at every t where it is possible.",
    )


@cache
def _right_clock() -> ClusterReport:
    return run_clock(lambda t, T: t, T=_CLOCK_T)


def _take_time(value: Any, t: int) -> int:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, Real) or isinstance(value, bool):
        raise Mistake(
            f"clock({t}, {_CLOCK_T}) is of type {type(value).__name__}.",
            "Return a whole number, the time that the network is told.",
        )
    if not math.isfinite(value) or value != int(value):
        raise Mistake(
            f"clock({t}, {_CLOCK_T}) is {value}, not a whole number.", "Times are indices."
        )
    value = int(value)
    if value < 0:
        raise Mistake(
            f"clock({t}, {_CLOCK_T}) is {value}: as an index that is the end of the table, where "
            "noise is all there is.",
            "`max(..., 0)` stays inside. (Code that forgets it is broken in another way.)",
        )
    if value >= _CLOCK_T:
        raise Mistake(
            f"clock({t}, {_CLOCK_T}) is {value}; the last time is {_CLOCK_T - 1}.",
            "`min(..., T - 1)` stays inside. And is later the direction that you want?",
        )
    if abs(value - t) > _MOST:
        raise Mistake(
            f"clock({t}, {_CLOCK_T}) is {value}: off by {abs(value - t)} steps, and {_MOST} are "
            "allowed.",
            "A small mistake is enough, if it is made at every step.",
        )
    return value
