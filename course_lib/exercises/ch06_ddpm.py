"""Exercises of chapter 06: noising, the loss, algorithm 2, the step back, a clock that is wrong."""

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
    check_gradients,
    check_randomness,
    fresh_seed,
    is_normal,
    same,
    take_results,
    take_tensor,
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
# An answer with the arguments (x, y, t, table); ``Reader`` puts them into the exercise's order.
Answer = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Reader = Callable[[Answer], Callable[..., Tensor]]


def _at_t(formula: Ratio) -> Answer:
    return lambda x, y, t, table: formula(x, y, per_example(table[t], x))


def _table(
    rows: Sequence[tuple[Any, ...]], formula: Ratio, reader: Reader, shift: str = _COUNTS
) -> list[Wrong]:
    """Wrong formulas, and the right one with ᾱ looked up or spread in a wrong way."""

    def looked_up(ab: Callable[[Tensor, Tensor], Tensor]) -> Answer:
        return lambda x, y, t, table: formula(x, y, per_example(ab(t, table), x))

    def alone(table: Tensor) -> Tensor:
        return table / torch.cat([table.new_ones(1), table[:-1]])

    # fmt: off
    usual_rows = [
        (looked_up(lambda t, ab: ab[t - 1]), "You look up ᾱ one step too early, at t − 1.",
         f"The paper counts from 1. {shift}"),
        (looked_up(lambda t, ab: ab[(t + 1) % len(ab)]),
         "You look up ᾱ one step too late, at t + 1.", shift),
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
    return [Wrong(reader(_at_t(f)), *words) for f, *words in rows] + [
        Wrong(reader(f), *words) for f, *words in usual_rows
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

# --- Closed-form noising -------------------------------------------------------------------------


def _noised(x0: Tensor, eps: Tensor, ab: Tensor) -> Tensor:
    return ab.sqrt() * x0 + (1 - ab).sqrt() * eps


def _noising(answer: Answer) -> Callable[..., Tensor]:
    return lambda x0, t, eps, alpha_bars: answer(x0, eps, t, alpha_bars)


_NOT_NOISED = (
    "Your x_t is not sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) eps.",
    "Try eps = 0: x_t must be x_0 times sqrt(ᾱ_t). Then x0 = 0.",
)


def _draw_noising(generator: torch.Generator) -> list[Case]:
    cases = _draw_cases(generator, _wrong_at_0("x_t", _NOT_NOISED))
    return [
        replace(case, inputs=(x0, t, eps, schedule.alpha_bars))
        for schedule, case in cases
        for x0, eps, t in [case.inputs]
    ]


# fmt: off
_NOISING_WRONG = [
    (lambda x, e, ab: ab * x + (1 - ab) * e, "You forget both square roots.", _ROOTS),
    (lambda x, e, ab: ab * x + (1 - ab).sqrt() * e,
     "You multiply the data by ᾱ, without the square root.", _ROOTS),
    (lambda x, e, ab: ab.sqrt() * x + (1 - ab) * e,
     "You multiply the noise by its variance 1 − ᾱ, without the square root.", _ROOTS),
    (lambda x, e, ab: ab.sqrt() * x + (1 - ab.sqrt()) * e, "You multiply the noise by 1 − sqrt(ᾱ).",
     "The squares of both factors add up to 1, so that variance 1 stays 1: sqrt(1 − ᾱ)."),
    (lambda x, e, ab: (1 - ab).sqrt() * x + ab.sqrt() * e,
     "You swap the two factors: ᾱ belongs to the data.",
     "ᾱ starts near 1 and ends near 0, like what is left of the data."),
    (lambda x, e, ab: ab.sqrt() * x - (1 - ab).sqrt() * e, "You subtract the noise.", "Add."),
    (lambda x, e, ab: x + (1 - ab).sqrt() * e, "You don't shrink the data.",
     "Without sqrt(ᾱ) the variance grows step by step. (Such paths exist: chapter 08.)"),
    (lambda x, e, ab: ab.sqrt() * x + e, "You don't scale the noise.", _ROOTS),
    (lambda x, e, ab: ab.sqrt() * x, "You add no noise.", "+ sqrt(1 − ᾱ_t) eps."),
    (lambda x, e, ab: ab.sqrt() * (x + e), "You scale the noise like the data.", _ROOTS),
    (lambda x, e, ab: x + 0 * e, "Your x_t is x_0, unchanged.", "Scale it, and add noise."),
]
# fmt: on

formula(
    "06.noise_to",
    task="Write `noise_to`: x_t for data x0 [B, *event] of any shape, times t [B] (int64, counted "
    "from 0), noise eps like x0, and alpha_bars [T].",
    signature="noise_to(x0, t, eps, alpha_bars) -> x_t",
    solution=[GaussianPath.noised, DiscreteSchedule.a, DiscreteSchedule.b, per_example],
    hints=[
        "x_t = sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) eps, and `alpha_bars[t]` gives a number for each "
        "example.",
        "Those B numbers must multiply whole examples. Which shape makes [B] broadcast against "
        "[B, C, H, W]? Which against [B, 2]?",
        "`alpha_bars[t].reshape(-1, *[1] * (x0.ndim - 1))` has the shape [B, 1, ..., 1].",
    ],
    right=_noising(_at_t(_noised)),
    inputs=_draw_noising,
    result="x_t",
    wrong=[
        *_table(_NOISING_WRONG, _noised, _noising),
        Wrong(
            lambda x, t, e, ab: torch.where(
                per_example(t == 0, x) > 0, x, _noised(x, e, per_example(ab[t], x))
            ),
            "At t = 0 you return the data without noise.",
            "In code t = 0 is the first noising step, the paper's t = 1: clean data lie before it.",
        ),
    ],
    otherwise=_NOT_NOISED,
    passes="Your x_t has the mean sqrt(ᾱ_t) x_0 and the variance 1 − ᾱ_t that T single steps would "
    "give, for points and for images, and with another time for each example.",
)


# --- The posterior -------------------------------------------------------------------------------


def _coefficients(t: Tensor, betas: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """β, α, ᾱ and the ᾱ of a step before, at t, each [B, 1, ...]."""
    alpha_bars = (1 - betas).cumprod(0)
    before = torch.cat([betas.new_ones(1), alpha_bars[:-1]])
    return tuple(per_example(c[t], x) for c in (betas, 1 - betas, alpha_bars, before))


def _bayes(x_t: Tensor, x_0: Tensor, t: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    """The product of the two Gaussians, by their precisions."""
    beta, alpha, _, before = _coefficients(t, betas.double(), x_t.double())
    from_x_t, from_x_0 = alpha / beta, 1 / (1 - before)  # infinite at t = 0
    variance = 1 / (from_x_t + from_x_0)
    mean = from_x_t * x_t / alpha.sqrt() + from_x_0 * before.sqrt() * x_0
    return torch.where(before == 1, x_0, variance * mean).float(), variance.float()


def _take_gaussian(answer: Any, x: Tensor, x_0: Tensor, t: Tensor, betas: Tensor) -> Any:
    """Mean and variance, the latter as [B], [B, 1, ...] or like x, brought to the shape of x."""
    mean, variance = take_results(["mean", "variance"], answer)
    both = isinstance(mean, Tensor) and isinstance(variance, Tensor)
    if both and mean.shape != x.shape and variance.shape == x.shape:
        raise Mistake("You return the variance first.", "First mean, then variance.")
    for name, value in (("mean", mean), ("variance", variance)):
        if isinstance(value, Tensor) and value.isnan().any() and (t == 0).any():
            raise Mistake(
                f"Your {name} is NaN at t = 0, where ᾱ a step before is 1: you divide 0 by 0, or "
                "by an infinite precision.",
                "Use the form whose only denominator is 1 − ᾱ_t, or treat t = 0 by itself.",
            )
    mean = take_tensor("mean", mean, x.shape, dtype=x.dtype, about_shape=_AXES).detach()
    if not isinstance(variance, Tensor):
        take_tensor("variance", variance, (len(x),))
    shape = tuple(variance.shape)
    fits = len(shape) == x.ndim and all(n in (1, m) for n, m in zip(shape, x.shape, strict=True))
    if shape != (len(x),) and not (fits and shape[0] == len(x)):
        wanted = [len(x), *[1] * (x.ndim - 1)]
        raise Mistake(
            f"Your variance has shape {list(shape)}; it must have {wanted}, or [{len(x)}].",
            "One number for each example, since each has a time of its own.",
        )
    variance = take_tensor("variance", variance, shape, dtype=x.dtype).detach()
    return mean, (per_example(variance, x) if shape == (len(x),) else variance).expand(x.shape)


def _draw_posteriors(generator: torch.Generator) -> list[Case]:
    cases = []
    for schedule, case in _draw_cases(generator, _wrong_posterior_at_0):
        x_0, noise, t = case.inputs
        x_t = schedule.noised(x_0, t, noise) + 0.5  # any x_t will do: the two need not fit
        cases.append(replace(case, inputs=(x_t, x_0, t, schedule.betas)))
    return cases


_BEFORE = (
    "Before the first step lie the data: there ᾱ = 1. Put a 1 before the ᾱs, "
    "`torch.cat([betas.new_ones(1), alpha_bars[:-1]])`."
)


def _wrong_posterior_at_0(
    got: Tensor, right: Tensor, x_t: Tensor, x_0: Tensor, t: Tensor, betas: Tensor
) -> Advice:
    late, is_mean = t > 0, same(right[t == 0], x_0[t == 0])
    if not same(got[late], right[late]):
        return _NOT_BAYES if is_mean else _NOT_ITS_VARIANCE
    if is_mean:
        return (
            "Your mean is right for t ≥ 1, but at t = 0 it is not x_0: index −1 of a tensor is its "
            "last number.",
            _BEFORE,
        )
    return "At t = 0 your variance is not 0: given x_0, nothing is left open.", _BEFORE


_NOT_BAYES = (
    "Your mean is not where the product of the two Gaussians, q(x_t | x_{t−1}) and "
    "q(x_{t−1} | x_0), is highest.",
    "Try x_0 = 0, and then x_t = 0: that shows the two coefficients, one at a time.",
)
_NOT_ITS_VARIANCE = (
    "Your variance is not that of the product of the two Gaussians.",
    "1 / variance = α_t / β_t + 1 / (1 − ᾱ_{t−1}).",
)


def _mean(formula: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """An answer with another mean: of x_t, x_0, β, α, ᾱ and the ᾱ before."""

    def answer(x: Tensor, d: Tensor, t: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        b, a, n, p = _coefficients(t, betas, x)
        return formula(x, d, b, a, n, p) + 0 * x + 0 * d, b * (1 - p) / (1 - n)

    return answer


def _variance(formula: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """An answer with another variance: of β, α, ᾱ and the ᾱ before."""

    def answer(x: Tensor, d: Tensor, t: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        b, a, n, p = _coefficients(t, betas, x)
        return (p.sqrt() * b * d + a.sqrt() * (1 - p) * x) / (1 - n), formula(b, a, n, p)

    return answer


def _at_time(index: Callable[[Tensor, int], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    return lambda x, d, t, betas: _bayes(x, d, index(t, len(betas)), betas)


def _along(*axes: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """An answer whose mean has its coefficients along other axes than the first."""

    def answer(x: Tensor, d: Tensor, t: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        b, a, n, p = (c.reshape(-1, *axes) for c in _coefficients(t, betas, x))
        mean = (p.sqrt() * b * d + a.sqrt() * (1 - p) * x) / (1 - n)
        return mean, _bayes(x, d, t, betas)[1]

    return answer


_FAR = "ᾱ_{t−1} goes with x_0, since q(x_{t−1} | x_0) has mean sqrt(ᾱ_{t−1}) x_0."
_NEAR = "α_t, of this single step, goes with x_t."
_WEIGHTS = "Near the data (1 − ᾱ_{t−1} small) x_0 says more; early steps back rely on x_t."
_SMALLER = "β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t): smaller than β_t, for x_0 is known."
_SIGN = "A sign is wrong: both coefficients are positive."

# fmt: off
# x: x_t, d: x_0 (the data), b: β, a: α, n: ᾱ now, p: ᾱ a step before (its past).
_POSTERIOR_WRONG = [
    Wrong(_mean(lambda x, d, b, a, n, p: (a.sqrt() * (1 - p) * d + p.sqrt() * b * x) / (1 - n)),
          "You swap the two coefficients.", _WEIGHTS),
    Wrong(_mean(lambda x, d, b, a, n, p: (n.sqrt() * b * d + a.sqrt() * (1 - p) * x) / (1 - n)),
          "In the coefficient of x_0 you use ᾱ_t in place of ᾱ_{t−1}.", _FAR),
    Wrong(_mean(lambda x, d, b, a, n, p: (a.sqrt() * b * d + a.sqrt() * (1 - p) * x) / (1 - n)),
          "In the coefficient of x_0 you use α_t in place of ᾱ_{t−1}.", _FAR),
    Wrong(_mean(lambda x, d, b, a, n, p: (p * b * d + a.sqrt() * (1 - p) * x) / (1 - n)),
          "You forget the root of ᾱ_{t−1}.", _FAR),
    Wrong(_mean(lambda x, d, b, a, n, p: (p.sqrt() * b * d + a * (1 - p) * x) / (1 - n)),
          "You forget the root of α_t.", _NEAR),
    Wrong(_mean(lambda x, d, b, a, n, p: (p * b * d + a * (1 - p) * x) / (1 - n)),
          "You forget both square roots.", f"{_FAR} {_NEAR}"),
    Wrong(_mean(lambda x, d, b, a, n, p: (p.sqrt() * b * d + n.sqrt() * (1 - p) * x) / (1 - n)),
          "In the coefficient of x_t you use ᾱ_t in place of α_t.", _NEAR),
    Wrong(_mean(lambda x, d, b, a, n, p: (p.sqrt() * b * d + a.sqrt() * (1 - n) * x) / (1 - p)),
          "You swap 1 − ᾱ_t and 1 − ᾱ_{t−1}.",
          "What is divided by is the variance of x_t given x_0: 1 − ᾱ_t."),
    Wrong(_mean(lambda x, d, b, a, n, p: p.sqrt() * b / (1 - n) * d + a.sqrt() * x),
          "You forget the factor (1 − ᾱ_{t−1}) / (1 − ᾱ_t) of x_t.", _WEIGHTS),
    Wrong(_mean(lambda x, d, b, a, n, p: p.sqrt() * b * d + a.sqrt() * (1 - p) * x),
          "You forget to divide by 1 − ᾱ_t.", _WEIGHTS),
    Wrong(_mean(lambda x, d, b, a, n, p: (p.sqrt() * b * d - a.sqrt() * (1 - p) * x) / (1 - n)),
          _SIGN, _WEIGHTS),
    Wrong(_mean(lambda x, d, b, a, n, p: (a.sqrt() * (1 - p) * x - p.sqrt() * b * d) / (1 - n)),
          _SIGN, _WEIGHTS),
    Wrong(_mean(lambda x, d, b, a, n, p: d), "Your mean is x_0.",
          "x_t knows something, too. " + _WEIGHTS),
    Wrong(_mean(lambda x, d, b, a, n, p: p.sqrt() * d),
          "Your mean is that of q(x_{t−1} | x_0): you leave out what x_t says.",
          "Bayes: multiply by the likelihood q(x_t | x_{t−1})."),
    Wrong(_mean(lambda x, d, b, a, n, p: x / a.sqrt()),
          "Your mean undoes the shrinking of x_t, and leaves out x_0.",
          "That is where the likelihood q(x_t | x_{t−1}) is highest. Multiply by the prior."),
    Wrong(_mean(lambda x, d, b, a, n, p: a.sqrt() / b * x + p.sqrt() / (1 - p) * d),
          "You forget to divide by the sum of the precisions.",
          "A weighted mean: divide by the sum of the weights."),
    Wrong(_mean(lambda x, d, b, a, n, p: p.sqrt() * b / (1 - n) * d), "You leave out x_t.",
          _WEIGHTS),
    Wrong(_mean(lambda x, d, b, a, n, p: a.sqrt() * (1 - p) / (1 - n) * x), "You leave out x_0.",
          _WEIGHTS),
    Wrong(_at_time(lambda t, T: (t - 1).clamp(min=0)), "You take everything one step too early.",
          _COUNTS),
    Wrong(_at_time(lambda t, T: (t + 1).clamp(max=T - 1)),
          "You take everything one step too late.", _COUNTS),
    Wrong(_at_time(lambda t, T: T - 1 - t), "You count the time backwards.",
          "t = 0 is the least noisy."),
    Wrong(_at_time(lambda t, T: t[:1].expand(len(t))), "You use the first example's time for all.",
          "`betas[t]` is a tensor of shape [B]: one number for each example."),
    Wrong(_along(), "You multiply the columns, not the examples: β runs along the last axis.",
          _AXES),
    Wrong(_along(1), "You multiply the rows of the images, not the examples.", _AXES),
    Wrong(_variance(lambda b, a, n, p: b), "Your variance is β_t, that of the step forward.",
          _SMALLER),
    Wrong(_variance(lambda b, a, n, p: (b * (1 - p) / (1 - n)).sqrt()),
          "You return the standard deviation.", "Its square is asked for."),
    Wrong(_variance(lambda b, a, n, p: (b * (1 - p) / (1 - n)).clamp(1e-20).log()),
          "You return the logarithm of the variance.", "The variance itself, please."),
    Wrong(_variance(lambda b, a, n, p: (b * (1 - p) / (1 - n)).square()),
          "You square the variance.", _SMALLER),
    Wrong(_variance(lambda b, a, n, p: (1 - n) / (b * (1 - p)).clamp(1e-20)),
          "You return the precision.", "The variance is one divided by it."),
    Wrong(_variance(lambda b, a, n, p: b * (1 - n) / (1 - p).clamp(1e-20)),
          "Your fraction is upside down.", _SMALLER),
    Wrong(_variance(lambda b, a, n, p: b.sqrt() * (1 - p) / (1 - n)), "You take the root of β.",
          _SMALLER),
    Wrong(_variance(lambda b, a, n, p: b * ((1 - p) / (1 - n)).sqrt()),
          "You take the root of the fraction.",
          "Roots are for standard deviations; this is a variance."),
    Wrong(_variance(lambda b, a, n, p: (1 - p) / (1 - n)), "You forget the factor β_t.", _SMALLER),
    Wrong(_variance(lambda b, a, n, p: 1 - p),
          "Your variance is that of q(x_{t−1} | x_0): x_t is left out.", _SMALLER),
    Wrong(_variance(lambda b, a, n, p: 1 - n), "Your variance is that of q(x_t | x_0).", _SMALLER),
    Wrong(_variance(lambda b, a, n, p: b / (1 - n)), "You forget the factor 1 − ᾱ_{t−1}.",
          _SMALLER),
    Wrong(_variance(lambda b, a, n, p: b * (1 - p)), "You forget to divide by 1 − ᾱ_t.", _SMALLER),
    Wrong(_variance(lambda b, a, n, p: b / a),
          "Your variance is that of the likelihood alone, β_t / α_t.", _SMALLER),
    Wrong(_variance(lambda b, a, n, p: a * (1 - p) / (1 - n)), "You write α_t for β_t.", _SMALLER),
    Wrong(_variance(lambda b, a, n, p: 0 * b),
          "Your variance is 0 at all times, not only at t = 0.", _SMALLER),
    Wrong(_variance(lambda b, a, n, p: torch.where(p == 1, b, b * (1 - p) / (1 - n))),
          "At t = 0 your variance is β, not 0.", f"Given x_0, the step before is known. {_BEFORE}"),
]
# fmt: on

formula(
    "06.posterior",
    task="Write `posterior`: mean and variance of q(x_{t−1} | x_t, x_0), for x_t, x_0 [B, *event], "
    "times t [B] counted from 0, and betas [T]. At t = 0 they are x_0 and 0.",
    signature="posterior(x_t, x_0, t, betas) -> (mean, variance)",
    solution=DDPM.posterior,
    hints=[
        "Bayes: q(x_{t−1} | x_t, x_0) ∝ q(x_t | x_{t−1}) q(x_{t−1} | x_0), Gaussians in x_{t−1}.",
        "Precisions add up: 1 / variance = α_t / β_t + 1 / (1 − ᾱ_{t−1}). In the mean each of the "
        "two counts as much as it is precise.",
        "mean = [sqrt(ᾱ_{t−1}) β_t x_0 + sqrt(α_t) (1 − ᾱ_{t−1}) x_t] / (1 − ᾱ_t), variance = "
        "β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t).",
        "Put a 1 before the ᾱs: `before = torch.cat([betas.new_ones(1), alpha_bars[:-1]])`. Then "
        "`before[t]` is ᾱ_{t−1} at every t, and at t = 0 the formula gives x_0 and 0 by itself.",
    ],
    right=_bayes,
    inputs=_draw_posteriors,
    result=["mean", "variance"],
    take=_take_gaussian,
    wrong=_POSTERIOR_WRONG,
    otherwise={"mean": _NOT_BAYES, "variance": _NOT_ITS_VARIANCE},
    passes="Your Gaussian is what Bayes gives: its precision is the sum of those of q(x_t | "
    "x_{t−1}) and q(x_{t−1} | x_0), and its mean lies between what the two say. At t = 0 it is x_0 "
    "itself.",
)


# --- From eps to x_0 -----------------------------------------------------------------------------


def _x0_from_eps(x: Tensor, eps: Tensor, ab: Tensor) -> Tensor:
    return (x - (1 - ab).sqrt() * eps) / ab.sqrt()


def _eps_from_x0(x: Tensor, x_0: Tensor, ab: Tensor) -> Tensor:
    return (x - ab.sqrt() * x_0) / (1 - ab).sqrt()


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
    wrong=_table(_X0_WRONG, _x0_from_eps, lambda answer: answer),
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


# --- The loss ------------------------------------------------------------------------------------

# What people write for a part of the loss, and what to say. The tests make losses of these parts.
_PATH = "x_t = sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) eps."
_TARGET = "The target is the eps that you drew, the one that is in x_t."
_MEAN = "The mean over examples and numbers alike: `(net(x_t, t) - eps).square().mean()`."
_SIZE = f"{_MEAN} A loss that grows with the data's size needs another learning rate for each."
TIMES_TOLD = {
    "You tell the network t + 1, where the data are noised to t.": lambda t, T: t + 1,
    "You tell the network t − 1, where the data are noised to t.": lambda t, T: t - 1,
    "You tell the network the time backwards: T − 1 − t.": lambda t, T: T - 1 - t,
    "You tell the network t / T in place of t.": lambda t, T: t / T,
    "You tell the network t / (T − 1) in place of t.": lambda t, T: t / (T - 1),
    "You tell the network 0 at all times.": lambda t, T: 0 * t,
}
DATA_FACTORS = {
    "You noise with ᾱ_t x_0, without the root.": lambda ab: ab,
    "You multiply the data by sqrt(1 − ᾱ_t), the factor of the noise.": lambda ab: (1 - ab).sqrt(),
    "You don't shrink the data.": torch.ones_like,
    "There are no data in what you give the network.": torch.zeros_like,
    "You multiply the data by 1 − ᾱ_t.": lambda ab: 1 - ab,
    "You multiply up the ᾱs once more.": lambda ab: ab.cumprod(0).sqrt(),
}
NOISE_FACTORS = {
    "You add (1 − ᾱ_t) eps, without the root.": lambda ab: 1 - ab,
    "You add all of eps, without a factor.": torch.ones_like,
    "You scale the noise like the data, with sqrt(ᾱ_t).": lambda ab: ab.sqrt(),
}
# fmt: off
# Of what the network said, eps, x_0 and x_t.
LOSSES = [
    Wrong(lambda s, e, d, x: (s - e).square().sum(), "You sum where you must take the mean.",
          _SIZE),
    Wrong(lambda s, e, d, x: (s - e).square().sum() / len(s),
          "You sum over the numbers of an example.", _SIZE),
    Wrong(lambda s, e, d, x: (s - e).square().flatten(1).mean(1).sum(),
          "You sum over the examples.", _SIZE),
    Wrong(lambda s, e, d, x: (s - e).square().mean().sqrt(),
          "You take the root of the mean square.", _MEAN),
    Wrong(lambda s, e, d, x: (s - e).norm(), "You take the norm of the difference.", _MEAN),
    Wrong(lambda s, e, d, x: (s - e).square().mean() / 2, "Your loss is half of the mean square.",
          _MEAN),
    Wrong(lambda s, e, d, x: (s - e).abs().mean(), "You take the absolute error, not the square.",
          _MEAN),
    Wrong(lambda s, e, d, x: (s - e).mean(), "You forget the square.", _MEAN),
    Wrong(lambda s, e, d, x: (e - s).mean(), "You forget the square.", _MEAN),
    Wrong(lambda s, e, d, x: -(s - e).square().mean(), "Your loss has the wrong sign.",
          "It is made small: no minus."),
    Wrong(lambda s, e, d, x: (s + e).square().mean(), "You add eps to the prediction.", _TARGET),
    Wrong(lambda s, e, d, x: (s - d).square().mean(), "You compare with x_0.", _TARGET),
    Wrong(lambda s, e, d, x: (s - x).square().mean(), "You compare with x_t.", _TARGET),
    Wrong(lambda s, e, d, x: s.square().mean(), "You compare with nothing.", _TARGET),
]
# fmt: on


def _mean_square(said: Tensor, eps: Tensor, x_0: Tensor, x_t: Tensor) -> Tensor:
    return (said - eps).square().mean()


class _Recorder:
    """A small network that keeps what it was asked and what it said."""

    def __init__(self, generator: torch.Generator):
        self.weight = nn.Parameter(0.5 + torch.rand(2, generator=generator))
        self.calls = 0

    def __call__(self, *inputs: Any) -> Tensor:
        if len(inputs) != 2 or not all(isinstance(value, Tensor) for value in inputs):
            kinds = ", ".join(type(value).__name__ for value in inputs)
            raise Mistake(
                f"You call net({kinds}).", "It takes two tensors: `net(x_t, t)`, with t [B]."
            )
        x_t, t = inputs
        if x_t.ndim <= t.ndim and x_t.shape != t.shape:
            raise Mistake("You call net(t, x_t).", "The noised data come first: `net(x_t, t)`.")
        if t.shape != (len(x_t),):
            raise Mistake(
                f"You tell the network times of shape {list(t.shape)}, for {len(x_t)} examples.",
                "One time for each example: `torch.randint(T, (B,), generator=generator)`.",
            )
        self.calls += 1
        self.x_t, self.t = x_t.detach(), t.detach()
        self.said = self.weight[0] * torch.tanh(x_t) + self.weight[1]
        return self.said


@exercise(
    "06.ddpm_loss",
    task="Write `ddpm_loss`: the simple loss, a scalar. Draw t [B] and eps with `generator`, noise "
    "x0 [B, *event] with them, and compare `net(x_t, t)` with eps.",
    signature="ddpm_loss(net, x0, alpha_bars, generator) -> scalar",
    solution=[Denoiser.loss, DiscreteSchedule.draw_times],
    hints=[
        "Four lines: draw t, draw eps, noise x0, compare. You have written the third already.",
        "`torch.randint(len(alpha_bars), (len(x0),), generator=generator)` draws the times 0 ... "
        "T − 1; `torch.randn(x0.shape, generator=generator)` the noise.",
        "The same t goes into the noising and into the network; the target is the eps that you "
        "drew: `(net(x_t, t) - eps).square().mean()`.",
    ],
)
def _check_ddpm_loss(attempt: Attempt, generator: torch.Generator) -> str:
    schedule = _random_schedule(generator)
    _judge_noising_times(attempt, schedule, generator)
    x0 = torch.randn(4000, 2, generator=generator)
    net, loss = _run_loss(attempt, x0, schedule, generator)
    other, _ = _run_loss(attempt, x0, schedule, generator)
    _judge_times(net.t.long(), other.t.long())
    eps = _judge_loss_noise(net, x0, schedule)
    if same(eps, _recover(other, x0, schedule), tolerance=1e-2):
        raise Mistake("Your noise is the same in every call.", "Set no seed inside.")
    cases = [(loss, net, eps, x0)]
    for shape in ((5, 1, 4, 4), (1, 3)):
        images = torch.randn(shape, generator=generator)
        net, loss = _run_loss(attempt, images, schedule, generator)
        cases.append((loss, net, _recover(net, images, schedule), images))
    _judge_loss_values(cases)

    def draw(fresh: torch.Generator) -> Tensor:
        net = _Recorder(generator)
        attempt(net, images, schedule.alpha_bars, fresh)
        return net.x_t

    check_randomness(draw, generator, "Hand `generator` on to `randint` and to `randn`.")
    return (
        "Times are drawn evenly from 0 ... T − 1, the noise is fresh and standard normal, the "
        "network is told the time at which you noised, and the loss is the mean squared error of "
        "its eps."
    )


def _run_loss(
    attempt: Attempt, x0: Tensor, schedule: DiscreteSchedule, generator: torch.Generator
) -> tuple[_Recorder, Any]:
    net = _Recorder(generator)
    fresh = torch.Generator().manual_seed(fresh_seed(generator))
    loss = attempt(net, x0, schedule.alpha_bars, fresh)
    if net.calls != 1:
        times = "never" if net.calls == 0 else f"{net.calls} times"
        raise Mistake(f"You call the network {times}.", "Once, with all examples: `net(x_t, t)`.")
    if net.x_t.shape != x0.shape:
        raise Mistake(
            f"You give the network noised data of shape {list(net.x_t.shape)}, in place of "
            f"{list(x0.shape)}.",
            _AXES,
        )
    return net, loss


def _judge_noising_times(
    attempt: Attempt, schedule: DiscreteSchedule, generator: torch.Generator
) -> None:
    """Data so large that x_t / x_0 shows the time at which they were noised."""
    table = schedule.alpha_bars
    x0 = torch.full((24, 24), 1e5)  # square, so that a forgotten axis shows
    net, _ = _run_loss(attempt, x0, schedule, generator)
    share = net.x_t / x0

    def nearest(factors: Tensor) -> tuple[Tensor, bool]:
        gap = (share[..., None] - factors).abs()
        return gap.argmin(-1), bool((gap.amin(-1) < 5e-4).all())

    index, right = nearest(table.sqrt())
    if not right:
        for reason, factor in DATA_FACTORS.items():
            if nearest(factor(table))[1]:
                raise Mistake(reason, _PATH)
        raise Mistake("The data in your x_t are not sqrt(ᾱ_t) x_0 for any t.", _PATH)
    if not (index == index[:, :1]).all():
        raise Mistake(
            "Numbers of the same example are noised to different times: your factors run along the "
            "last axis.",
            _AXES,
        )
    _compare_times(net.t.double(), index[:, 0], len(table))


def _compare_times(told: Tensor, noised: Tensor, T: int) -> None:
    if torch.equal(told, noised.double()):
        return
    alike = "The same `t` for both: no shift, no scaling. In code t counts from 0."
    for reason, time in TIMES_TOLD.items():
        if same(told, time(noised, T).double()):
            raise Mistake(reason, alike)
    raise Mistake("You tell the network other times than those that you noised to.", alike)


def _judge_times(t: Tensor, other: Tensor) -> None:
    """Test that 4,000 times are uniform on 0 ... T − 1."""
    draw = "`torch.randint(len(alpha_bars), (len(x0),), generator=generator)`: 0 ... T − 1, evenly."
    if (t == t[0]).all():
        raise Mistake(
            "All examples of the batch share one time.",
            f"Each draws its own: the gradient is far steadier then. {draw}",
        )
    if torch.equal(t, other):
        raise Mistake("Your times are the same in every call.", f"Draw them. {draw}")
    counts = torch.bincount(t, minlength=_T).double()
    expected = len(t) / _T
    bound = 6.5 * math.sqrt(expected)  # binomial: less than once in 10⁹
    for index, name, why in (
        (0, "t = 0", "The paper counts from 1, code from 0: the first step is t = 0."),
        (_T - 1, f"t = T − 1 = {_T - 1}", "`randint(n)` stops at n − 1 by itself."),
    ):
        if counts[index] == 0:
            raise Mistake(f"{name} never comes.", f"{why} {draw}")
    if ((counts - expected).abs() > bound).any():
        k = int((counts - expected).abs().argmax())
        raise Mistake(
            f"Your times are not evenly drawn: t = {k} came {int(counts[k])} times among "
            f"{len(t)}, where {expected:.0f} are due.",
            draw,
        )


def _recover(net: _Recorder, x0: Tensor, schedule: DiscreteSchedule) -> Tensor:
    """The eps that must have been added, if all went well."""
    return _eps_from_x0(net.x_t, x0, per_example(schedule.alpha_bars[net.t.long()], x0))


def _judge_loss_noise(net: _Recorder, x0: Tensor, schedule: DiscreteSchedule) -> Tensor:
    eps, t = _recover(net, x0, schedule), net.t.long()
    draw = "`torch.randn(x0.shape, generator=generator)` draws a number for each of x0."
    if same(eps, torch.zeros_like(eps)):
        raise Mistake("You add no noise.", draw)
    ab = per_example(schedule.alpha_bars[t], x0)
    added = net.x_t - ab.sqrt() * x0
    for noise in (eps, added, added / (1 - ab)):
        if same(noise, noise[:1].expand_as(noise), tolerance=1e-3):
            raise Mistake("All examples share the same noise.", draw)
        if same(noise, noise[:, :1].expand_as(noise), tolerance=1e-3):
            raise Mistake("All numbers of an example share one draw of noise.", draw)
    if _is_normal(eps, t):
        return eps
    for reason, factor in NOISE_FACTORS.items():
        if _is_normal(added / factor(ab), t):
            raise Mistake(reason, _PATH)
    raise Mistake(
        f"Your noise is not standard normal: it has mean {eps.mean():.2f} and standard deviation "
        f"{eps.std():.2f}, where eps has 0 and 1.",
        f"{draw} `randn`, not `rand`.",
    )


def _is_normal(eps: Tensor, t: Tensor) -> bool:
    """Whether ``eps [4000, 2]`` may be standard normal: a true one fails once in 10⁹ times."""

    def has_variance_1(part: Tensor) -> bool:
        # The mean square of N normal numbers has the standard deviation sqrt(2 / N).
        return abs(float(part.square().mean()) - 1) < 6.5 * math.sqrt(2 / part.numel())

    # At each time by itself, too: wrong factors can even out over the times.
    return is_normal(eps) and all(map(has_variance_1, [eps, *(eps[t == k] for k in t.unique())]))


def _judge_loss_values(cases: list[tuple[Any, _Recorder, Tensor, Tensor]]) -> None:
    """Judge the losses of all cases together: in a single one a mistake may look like another."""
    losses = []
    for value, *_ in cases:
        if isinstance(value, Tensor) and value.ndim > 0:
            raise Mistake(
                f"Your loss has shape {list(value.shape)}; training needs one number.",
                "Take the mean over everything.",
            )
        losses.append(take_tensor("loss", value, (), dtype=torch.float32))

    def are(loss: Callable[..., Tensor]) -> bool:
        values = [loss(net.said, eps, x0, net.x_t) for _, net, eps, x0 in cases]
        return same(torch.stack(losses), torch.stack(values), tolerance=1e-3)

    if not are(_mean_square):
        for wrong in LOSSES:
            if are(wrong.answer):
                raise Mistake(wrong.says, wrong.hint)
        raise Mistake(
            "Your loss is not the mean of (net(x_t, t) − eps)², with the eps that is in x_t.",
            f"{_TARGET} {_MEAN}",
        )
    for loss, (_, net, eps, x0) in zip(losses, cases, strict=True):
        check_gradients(
            "loss",
            loss,
            _mean_square(net.said, eps, x0, net.x_t),
            {"the weights of net": net.weight},
            "The network learns through the loss: no `detach`, no `.item()`, no `no_grad`.",
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
