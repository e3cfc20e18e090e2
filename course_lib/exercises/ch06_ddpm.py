"""Exercises of chapter 06: noising, the posterior, eps and x_0, the loss, a clock that is wrong.

Every check works with tolerances for which a right answer is refused less than once in 10⁶ times.
"""

import math
from collections.abc import Callable
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
    per_example,
)
from course_lib.exercises.attempt import (
    Attempt,
    Mistake,
    check_gradients,
    check_randomness,
    diagnose,
    fresh_seed,
    same,
    take_pair,
    take_tensor,
)
from course_lib.exercises.registry import exercise
from course_lib.experiments.two_clusters import ClusterReport, run_clock

__all__: list[str] = []

Known = list[tuple[Tensor, str, str]]

_T = 12  # of the random schedules
_COUNTS = "In code t counts from 0, and `alpha_bars[t]` belongs to x_t: no shift is needed."
_AXES = (
    "The numbers of `alpha_bars[t]`, one for each example, need the axes of an example behind "
    "them: `c.reshape(-1, *[1] * (x.ndim - 1))` does it for points and images alike."
)


# --- How much is left halfway --------------------------------------------------------------------


@exercise(
    "06.predict_halfway",
    task="Predict: DDPM's linear schedule has T = 1,000 steps with β from 0.0001 to 0.02. After "
    "500 of them, what share of the data's variance is left, as a number from 0 to 1?",
    solution=[DiscreteSchedule.linear, DiscreteSchedule.__init__],
    hints=[
        "A step leaves a share 1 − β of the variance. What do 500 steps leave, one after another?",
        "ᾱ is a product of 1 − β, and log(1 − β) is about −β: so ᾱ is about exp(−Σ β).",
        "Up to the middle β rises from 0.0001 to 0.01: 500 of them, with a mean of 0.005.",
    ],
)
def _check_predict_halfway(attempt: Any, generator: torch.Generator) -> str:
    got = _take_share(attempt)
    linear, cosine = DiscreteSchedule.linear(1000), DiscreteSchedule.cosine(1000)
    left, other = float(linear.alpha_bars[499]), float(cosine.alpha_bars[499])
    if abs(got - left) <= 0.03:
        return (
            f"{left:.3f}: of the variance of x_500 only {100 * left:.0f} % come from the data, so "
            "the second half of the steps treats what is nearly noise already. This is why the "
            f"cosine schedule was made: it has {other:.2f} left at the same step."
        )
    product = "Shares are multiplied, one step after the other: ᾱ = Π (1 − β)."
    middle = float(linear.betas[499])
    known = [
        (
            other,
            0.03,
            "Half is what the cosine schedule leaves; the linear one is linear in β, not in ᾱ.",
            product,
        ),
        (
            math.sqrt(left),
            0.02,
            "That is the factor of the data, sqrt(ᾱ), and not the share of the variance.",
            "Square it.",
        ),
        (1 - left, 0.03, "That is the share of the noise.", "What is left of the data?"),
        (
            1 - middle,
            0.004,
            "That is what the 500th step alone leaves of what came to it.",
            product,
        ),
        (middle, 0.001, "That is the β of the 500th step: what it adds.", product),
        (
            (1 - middle) ** 500,
            0.003,
            "You give all of the 500 steps the β of the last of them.",
            "The first of them are far smaller: their mean is half of that.",
        ),
        (0.0, 0.0002, "Nearly nothing is what the whole schedule leaves, ᾱ = 0.00004.", product),
        (
            1 - float(linear.betas[:500].sum()),
            0.01,
            "You subtract the βs from 1.",
            "Each takes its share of what is left, not of what was there at first: multiply.",
        ),
    ]
    for wrong, tolerance, reason, hint in known:
        if abs(got - wrong) <= tolerance:
            raise Mistake(reason, hint)
    raise Mistake(f"{got:.4g} is too {'much' if got > left else 'little'}.", product)


def _take_share(value: Any) -> float:
    """A number from 0 to 1, of whatever type."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    number = isinstance(value, Real) and not isinstance(value, bool)
    if number and 0 <= value <= 1:
        return float(value)
    got = f"`{value}`" if number else f"a {type(value).__name__}"
    raise Mistake(
        f"You gave {got}; a share is a number from 0 to 1.", "1 would be all of it. Half is 0.5."
    )


# --- Helpers -------------------------------------------------------------------------------------


def _random_schedule(generator: torch.Generator, T: int = _T) -> DiscreteSchedule:
    """A schedule in which every step counts: neighbours differ, and noise stays on both sides."""
    return DiscreteSchedule(0.06 + 0.14 * torch.rand(T, generator=generator))


# Batches as large as the last axes first: there a forgotten axis broadcasts without an error.
_SHAPES = [(6, 6), (6, 1, 6, 6), (7, 2), (4, 3, 2, 5)]


def _cases(generator: torch.Generator) -> list[tuple[DiscreteSchedule, Tensor, Tensor, Tensor]]:
    """(schedule, t [B], and two random tensors [B, *event]), inner times first."""
    cases = []
    for i, shape in enumerate(_SHAPES):
        apart = False
        while not apart:
            schedule = _random_schedule(generator)
            t = 1 + torch.randperm(_T - 2, generator=generator)[: shape[0]]
            if i >= 2:
                t[0], t[-1] = 0, _T - 1
            # Else nobody could tell the first example's ᾱ from the average.
            apart = (schedule.alpha_bars[t].mean() - schedule.alpha_bars[t[0]]).abs() > 0.01
        first, second = (torch.randn(shape, generator=generator) for _ in range(2))
        cases.append((schedule, t, first, second))
    return cases


def _take_like(name: str, value: Any, x: Tensor) -> Tensor:
    if isinstance(value, Tensor) and value.shape != x.shape:
        raise Mistake(
            f"Your {name} has shape {list(value.shape)}; it must have {list(x.shape)}.", _AXES
        )
    return take_tensor(name, value, x.shape, dtype=x.dtype).detach()


def _require_repeatable(name: str, got: Tensor, again: Any, hint: str) -> None:
    if not torch.equal(got, again):
        raise Mistake(
            f"Your {name} is another one when you are asked again: you draw noise of your own.",
            hint,
        )


# A formula of two tensors and the numbers alpha_bars, as each example has them.
_Formula = Callable[[Tensor, Tensor, Tensor], Tensor]


def _wrong_times(
    formula: _Formula, x: Tensor, y: Tensor, t: Tensor, schedule: DiscreteSchedule
) -> Known:
    """What a right formula gives where alpha_bars were looked up or spread in a wrong way."""
    table = schedule.alpha_bars
    last = len(table) - 1

    def at(ab: Tensor) -> Tensor:
        return formula(x, y, per_example(ab, x))

    known = [
        (
            at(table[(t - 1) % len(table)]),
            "You look up ᾱ one step too early, at t − 1.",
            f"The paper counts from 1. {_COUNTS}",
        ),
        (at(table[(t - 1).clamp(min=0)]), "You look up ᾱ one step too early, at t − 1.", _COUNTS),
        (
            at(table[(t + 1).clamp(max=last)]),
            "You look up ᾱ one step too late, at t + 1.",
            _COUNTS,
        ),
        (at(table[last - t]), "You count the time backwards.", "t = 0 is the least noisy."),
        (
            at(table.cumprod(0)[t]),
            "You multiply up the ᾱs once more.",
            "ᾱ is the product of the α already: no `cumprod` is left to do.",
        ),
        (
            at(table[t] / torch.cat([table.new_ones(1), table])[t]),
            "You use α, which belongs to a single step.",
            "From the data to x_t in one go it takes ᾱ = α_1 ... α_t: `alpha_bars[t]`.",
        ),
        (
            at(table[t[:1]].expand(len(t))),
            "You use the first example's time for all.",
            "`alpha_bars[t]` is a tensor of shape [B]: one number for each example.",
        ),
        (
            at(table[t].mean().expand(len(t))),
            "You average ᾱ over the batch.",
            "Each example has a time of its own.",
        ),
    ]
    ab = table[t]
    if x.shape[-1] == len(t):
        columns = "You multiply the columns, not the examples: ᾱ runs along the last axis."
        known.append((formula(x, y, ab), columns, _AXES))
    if x.ndim == 4 and x.shape[-2] == len(t):
        rows = "You multiply the rows of the images, not the examples."
        known.append((formula(x, y, ab[:, None]), rows, _AXES))
    return known


# --- Closed-form noising -------------------------------------------------------------------------


@exercise(
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
)
def _check_noise_to(attempt: Attempt, generator: torch.Generator) -> str:
    for schedule, t, x0, eps in _cases(generator):
        table = schedule.alpha_bars
        got = _take_like("x_t", attempt(x0, t, eps, table), x0)
        right = schedule.noised(x0, t, eps)
        if same(got, right):
            continue
        again = attempt(x0, t, eps, table)
        _require_repeatable("x_t", got, again, "The noise is given: use `eps`.")
        first = t == 0
        if first.any() and same(got[~first], right[~first]):
            _diagnose_first_step(got[first], x0[first])
        known = [
            (formula(x0, eps, per_example(table[t], x0)), reason, hint)
            for formula, reason, hint in _noising_mistakes()
        ]
        known += _wrong_times(_noised, x0, eps, t, schedule)
        otherwise = (
            "Your x_t is not sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) eps.",
            "Try eps = 0: x_t must be x_0 times sqrt(ᾱ_t). Then x0 = 0.",
        )
        diagnose(got, known, otherwise)
    return (
        "Your x_t has the mean sqrt(ᾱ_t) x_0 and the variance 1 − ᾱ_t that T single steps would "
        "give, for points and for images, and with another time for each example."
    )


def _noised(x0: Tensor, eps: Tensor, ab: Tensor) -> Tensor:
    return ab.sqrt() * x0 + (1 - ab).sqrt() * eps


def _noising_mistakes() -> list[tuple[_Formula, str, str]]:
    roots = "ᾱ and 1 − ᾱ are variances: what multiplies x_0 and eps are their roots."
    return [
        (lambda x, e, ab: ab * x + (1 - ab) * e, "You forget both square roots.", roots),
        (
            lambda x, e, ab: ab * x + (1 - ab).sqrt() * e,
            "You multiply the data by ᾱ, without the square root.",
            roots,
        ),
        (
            lambda x, e, ab: ab.sqrt() * x + (1 - ab) * e,
            "You multiply the noise by its variance 1 − ᾱ, without the square root.",
            roots,
        ),
        (
            lambda x, e, ab: ab.sqrt() * x + (1 - ab.sqrt()) * e,
            "You multiply the noise by 1 − sqrt(ᾱ).",
            "The squares of both factors add up to 1, so that variance 1 stays 1: sqrt(1 − ᾱ).",
        ),
        (
            lambda x, e, ab: (1 - ab).sqrt() * x + ab.sqrt() * e,
            "You swap the two factors: ᾱ belongs to the data.",
            "ᾱ starts near 1 and ends near 0, like what is left of the data.",
        ),
        (lambda x, e, ab: ab.sqrt() * x - (1 - ab).sqrt() * e, "You subtract the noise.", "Add."),
        (
            lambda x, e, ab: x + (1 - ab).sqrt() * e,
            "You don't shrink the data.",
            "Without sqrt(ᾱ) the variance grows step by step. (Such paths exist: chapter 08.)",
        ),
        (lambda x, e, ab: ab.sqrt() * x + e, "You don't scale the noise.", roots),
        (lambda x, e, ab: ab.sqrt() * x, "You add no noise.", "+ sqrt(1 − ᾱ_t) eps."),
        (lambda x, e, ab: ab.sqrt() * (x + e), "You scale the noise like the data.", roots),
        (lambda x, e, ab: x + 0 * e, "Your x_t is x_0, unchanged.", "Scale it, and add noise."),
    ]


def _diagnose_first_step(got: Tensor, x0: Tensor) -> None:
    """All is well but at t = 0."""
    if same(got, x0):
        raise Mistake(
            "At t = 0 you return the data without noise.",
            "In code t = 0 is the first noising step, the paper's t = 1: clean data lie before it.",
        )
    raise Mistake(
        "Your x_t is right for t ≥ 1 and wrong at t = 0.",
        f"The first step needs no case of its own. {_COUNTS}",
    )


# --- The posterior -------------------------------------------------------------------------------


@exercise(
    "06.posterior",
    task="Write `posterior`: mean and variance of q(x_{t−1} | x_t, x_0), for x_t, x_0 [B, *event], "
    "times t [B] counted from 0, and betas [T]. At t = 0 they are x_0 and 0.",
    signature="posterior(x_t, x_0, t, betas) -> (mean, variance)",
    solution=[DDPM.__init__, DDPM.posterior],
    hints=[
        "Bayes: q(x_{t−1} | x_t, x_0) ∝ q(x_t | x_{t−1}) q(x_{t−1} | x_0), Gaussians in x_{t−1}.",
        "Precisions add up: 1 / variance = α_t / β_t + 1 / (1 − ᾱ_{t−1}). In the mean each of the "
        "two counts as much as it is precise.",
        "mean = [sqrt(ᾱ_{t−1}) β_t x_0 + sqrt(α_t) (1 − ᾱ_{t−1}) x_t] / (1 − ᾱ_t), variance = "
        "β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t).",
        "Put a 1 before the ᾱs: `before = torch.cat([betas.new_ones(1), alpha_bars[:-1]])`. Then "
        "`before[t]` is ᾱ_{t−1} at every t, and at t = 0 the formula gives x_0 and 0 by itself.",
    ],
)
def _check_posterior(attempt: Attempt, generator: torch.Generator) -> str:
    for schedule, t, x_0, noise in _cases(generator):
        x_t = schedule.noised(x_0, t, noise) + 0.5  # any x_t will do: the two need not fit
        answer = take_pair(("mean", "variance"), attempt(x_t, x_0, t, schedule.betas))
        mean, variance = _take_gaussian(*answer, x_t, t)
        betas = schedule.betas.double()
        right_mean, right_variance = _bayes(x_t.double(), x_0.double(), t, betas)
        first = t == 0
        if first.any() and same(mean[~first], right_mean[~first]):
            _judge_first_step(mean[first], variance[first], x_0[first], betas)
        if not same(mean, right_mean):
            known = _mean_mistakes(x_t.double(), x_0.double(), t, betas)
            otherwise = (
                "Your mean is not where the product of the two Gaussians, q(x_t | x_{t−1}) and "
                "q(x_{t−1} | x_0), is highest.",
                "Try x_0 = 0, and then x_t = 0: that shows the two coefficients, one at a time.",
            )
            diagnose(mean, known, otherwise)
        if not same(variance, right_variance.expand_as(variance)):
            _diagnose_variance(variance, t, betas)
    return (
        "Your Gaussian is what Bayes gives: its precision is the sum of those of q(x_t | x_{t−1}) "
        "and q(x_{t−1} | x_0), and its mean lies between what the two say. At t = 0 it is x_0 "
        "itself."
    )


def _coefficients(t: Tensor, betas: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """β, α, ᾱ and the ᾱ of a step before, at t, each [B, 1, ...]."""
    alpha_bars = (1 - betas).cumprod(0)
    before = torch.cat([betas.new_ones(1), alpha_bars[:-1]])
    return tuple(per_example(c[t], x) for c in (betas, 1 - betas, alpha_bars, before))


def _bayes(x_t: Tensor, x_0: Tensor, t: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    """The product of the two Gaussians, by their precisions."""
    beta, alpha, _, before = _coefficients(t, betas, x_t)
    from_x_t, from_x_0 = alpha / beta, 1 / (1 - before)  # infinite at t = 0
    variance = 1 / (from_x_t + from_x_0)
    mean = from_x_t * x_t / alpha.sqrt() + from_x_0 * before.sqrt() * x_0
    first = before == 1
    return torch.where(first, x_0, variance * mean), variance


def _take_gaussian(mean: Any, variance: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
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
    mean = _take_like("mean", mean, x)
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


def _judge_first_step(mean: Tensor, variance: Tensor, x_0: Tensor, betas: Tensor) -> None:
    """Require x_0 and 0 at t = 0, where all else is well with the mean."""
    before = (
        "Before the first step lie the data: there ᾱ = 1. Put a 1 before the ᾱs, "
        "`torch.cat([betas.new_ones(1), alpha_bars[:-1]])`."
    )
    if not same(mean, x_0):
        raise Mistake(
            "Your mean is right for t ≥ 1, but at t = 0 it is not x_0: index −1 of a tensor is its "
            "last number.",
            before,
        )
    if not same(variance, torch.zeros_like(variance)):
        if same(variance, betas[0].expand_as(variance)):
            raise Mistake(
                "At t = 0 your variance is β, not 0.",
                f"Given x_0, the step before is known. {before}",
            )
        raise Mistake("At t = 0 your variance is not 0: given x_0, nothing is left open.", before)


def _mean_mistakes(x_t: Tensor, x_0: Tensor, t: Tensor, betas: Tensor) -> Known:
    def at(index: Tensor) -> Tensor:
        return (
            of_x_0(*_coefficients(index, betas, x_t)) * x_0
            + of_x_t(*_coefficients(index, betas, x_t)) * x_t
        )

    def of_x_0(beta: Tensor, alpha: Tensor, now: Tensor, before: Tensor) -> Tensor:
        return before.sqrt() * beta / (1 - now)

    def of_x_t(beta: Tensor, alpha: Tensor, now: Tensor, before: Tensor) -> Tensor:
        return alpha.sqrt() * (1 - before) / (1 - now)

    c = beta, alpha, now, before = _coefficients(t, betas, x_t)
    u, v = of_x_0(*c), of_x_t(*c)
    last = len(betas) - 1
    far = "ᾱ_{t−1} goes with x_0, since q(x_{t−1} | x_0) has mean sqrt(ᾱ_{t−1}) x_0."
    near = "α_t, of this single step, goes with x_t."
    weights = "Near the data (1 − ᾱ_{t−1} small) x_0 says more; early steps back rely on x_t."
    known = [
        (v * x_0 + u * x_t, "You swap the two coefficients.", weights),
        (
            now.sqrt() * beta / (1 - now) * x_0 + v * x_t,
            "In the coefficient of x_0 you use ᾱ_t in place of ᾱ_{t−1}.",
            far,
        ),
        (
            alpha.sqrt() * beta / (1 - now) * x_0 + v * x_t,
            "In the coefficient of x_0 you use α_t in place of ᾱ_{t−1}.",
            far,
        ),
        (before * beta / (1 - now) * x_0 + v * x_t, "You forget the root of ᾱ_{t−1}.", far),
        (u * x_0 + alpha * (1 - before) / (1 - now) * x_t, "You forget the root of α_t.", near),
        (
            before * beta / (1 - now) * x_0 + alpha * (1 - before) / (1 - now) * x_t,
            "You forget both square roots.",
            f"{far} {near}",
        ),
        (
            u * x_0 + now.sqrt() * (1 - before) / (1 - now) * x_t,
            "In the coefficient of x_t you use ᾱ_t in place of α_t.",
            near,
        ),
        (
            before.sqrt() * beta / (1 - before) * x_0
            + alpha.sqrt() * (1 - now) / (1 - before) * x_t,
            "You swap 1 − ᾱ_t and 1 − ᾱ_{t−1}.",
            "What is divided by is the variance of x_t given x_0: 1 − ᾱ_t.",
        ),
        (
            u * x_0 + alpha.sqrt() * x_t,
            "You forget the factor (1 − ᾱ_{t−1}) / (1 − ᾱ_t) of x_t.",
            weights,
        ),
        ((1 - now) * (u * x_0 + v * x_t), "You forget to divide by 1 − ᾱ_t.", weights),
        (u * x_0 - v * x_t, "A sign is wrong: both coefficients are positive.", weights),
        (v * x_t - u * x_0, "A sign is wrong: both coefficients are positive.", weights),
        (x_0, "Your mean is x_0.", "x_t knows something, too. " + weights),
        (
            before.sqrt() * x_0 + 0 * x_t,
            "Your mean is that of q(x_{t−1} | x_0): you leave out what x_t says.",
            "Bayes: multiply by the likelihood q(x_t | x_{t−1}).",
        ),
        (
            x_t / alpha.sqrt() + 0 * x_0,
            "Your mean undoes the shrinking of x_t, and leaves out x_0.",
            "That is where the likelihood q(x_t | x_{t−1}) is highest. Multiply by the prior.",
        ),
        (
            x_t / alpha.sqrt() * alpha / beta + before.sqrt() * x_0 / (1 - before),
            "You forget to divide by the sum of the precisions.",
            "A weighted mean: divide by the sum of the weights.",
        ),
        (u * x_0, "You leave out x_t.", weights),
        (v * x_t, "You leave out x_0.", weights),
        (at((t - 1).clamp(min=0)), "You take everything one step too early.", _COUNTS),
        (at((t + 1).clamp(max=last)), "You take everything one step too late.", _COUNTS),
        (at(last - t), "You count the time backwards.", "t = 0 is the least noisy."),
        (
            at(t[:1].expand(len(t))),
            "You use the first example's time for all.",
            "`betas[t]` is a tensor of shape [B]: one number for each example.",
        ),
    ]
    if x_t.shape[-1] == len(t):
        b, a, n, p = (value.flatten() for value in c)
        columns = "You multiply the columns, not the examples: β runs along the last axis."
        both = of_x_0(b, a, n, p) * x_0 + of_x_t(b, a, n, p) * x_t
        known.append((both, columns, _AXES))
    if x_t.ndim == 4 and x_t.shape[-2] == len(t):
        b, a, n, p = (value.flatten()[:, None] for value in c)
        rows = "You multiply the rows of the images, not the examples."
        both = of_x_0(b, a, n, p) * x_0 + of_x_t(b, a, n, p) * x_t
        known.append((both, rows, _AXES))
    return known


def _diagnose_variance(got: Tensor, t: Tensor, betas: Tensor) -> None:
    beta, alpha, now, before = _coefficients(t, betas, got)
    right = beta * (1 - before) / (1 - now)
    formula = "β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t): smaller than β_t, for x_0 is known."
    known = [
        (beta, "Your variance is β_t, that of the step forward.", formula),
        (right.sqrt(), "You return the standard deviation.", "Its square is asked for."),
        (right.log(), "You return the logarithm of the variance.", "The variance itself, please."),
        (right.square(), "You square the variance.", formula),
        (1 / right, "You return the precision.", "The variance is one divided by it."),
        (beta * (1 - now) / (1 - before), "Your fraction is upside down.", formula),
        (beta.sqrt() * (1 - before) / (1 - now), "You take the root of β.", formula),
        (
            beta * ((1 - before) / (1 - now)).sqrt(),
            "You take the root of the fraction.",
            "Roots are for standard deviations; this is a variance.",
        ),
        ((1 - before) / (1 - now), "You forget the factor β_t.", formula),
        (1 - before, "Your variance is that of q(x_{t−1} | x_0): x_t is left out.", formula),
        (1 - now, "Your variance is that of q(x_t | x_0).", formula),
        (beta / (1 - now), "You forget the factor 1 − ᾱ_{t−1}.", formula),
        (beta * (1 - before), "You forget to divide by 1 − ᾱ_t.", formula),
        (beta / alpha, "Your variance is that of the likelihood alone, β_t / α_t.", formula),
        (alpha * (1 - before) / (1 - now), "You write α_t for β_t.", formula),
        (torch.zeros_like(right), "Your variance is 0 at all times, not only at t = 0.", formula),
    ]
    otherwise = (
        "Your variance is not that of the product of the two Gaussians.",
        "1 / variance = α_t / β_t + 1 / (1 − ᾱ_{t−1}).",
    )
    diagnose(got, [(value.expand_as(got), *words) for value, *words in known], otherwise)


# --- eps and x_0 ---------------------------------------------------------------------------------


@exercise(
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
)
def _check_x0_from_eps(attempt: Attempt, generator: torch.Generator) -> str:
    _judge_inverse(attempt, generator, "x_0", _x0_from_eps, _x0_mistakes())
    return "Noise your x_0 with the same eps, and x_t comes back: for points and for images."


@exercise(
    "06.eps_from_x0",
    task="Write `eps_from_x0`: the noise eps that is in x_t [B, *event], if x_0 is the data in it, "
    "with t [B] counted from 0 and alpha_bars [T].",
    signature="eps_from_x0(x_t, x_0, t, alpha_bars) -> eps",
    solution=convert,
    hints=[
        "Solve x_t = sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) eps for eps.",
        "First take the data away, with their factor; then undo the scaling of the noise.",
        "eps = (x_t − sqrt(ᾱ_t) x_0) / sqrt(1 − ᾱ_t). Mind the axes of `alpha_bars[t]`.",
    ],
)
def _check_eps_from_x0(attempt: Attempt, generator: torch.Generator) -> str:
    _judge_inverse(attempt, generator, "eps", _eps_from_x0, _eps_mistakes())
    return (
        "Put your eps back beside x_0, and x_t comes out. So a guess of the one is a guess of the "
        "other: a network may predict either."
    )


def _x0_from_eps(x: Tensor, eps: Tensor, ab: Tensor) -> Tensor:
    return (x - (1 - ab).sqrt() * eps) / ab.sqrt()


def _eps_from_x0(x: Tensor, x_0: Tensor, ab: Tensor) -> Tensor:
    return (x - ab.sqrt() * x_0) / (1 - ab).sqrt()


def _judge_inverse(
    attempt: Attempt,
    generator: torch.Generator,
    name: str,
    formula: _Formula,
    mistakes: list[tuple[_Formula, str, str]],
) -> None:
    """Require that what is made of x_t and ``given`` gives x_t back when it is noised."""
    for schedule, t, x_t, given in _cases(generator):
        table = schedule.alpha_bars
        got = _take_like(name, attempt(x_t, given, t, table), x_t)
        parts = (got, given) if name == "x_0" else (given, got)
        if same(_noised(*parts, per_example(table[t], x_t)), x_t):
            continue
        _require_repeatable(
            name, got, attempt(x_t, given, t, table), "Nothing is drawn here: x_t is given."
        )
        first = t == 0
        right = formula(x_t, given, per_example(table[t], x_t))
        if first.any() and same(got[~first], right[~first]):
            raise Mistake(
                f"Your {name} is right for t ≥ 1 and wrong at t = 0.",
                f"The first step needs no case of its own. {_COUNTS}",
            )
        known = [
            (wrong(x_t, given, per_example(table[t], x_t)), reason, hint)
            for wrong, reason, hint in mistakes
        ]
        known += _wrong_times(formula, x_t, given, t, schedule)
        otherwise = (
            f"Put your {name} into sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) eps, and x_t does not come back.",
            f"Solve that equation for {name}, one operation at a time.",
        )
        diagnose(got, known, otherwise)


def _x0_mistakes() -> list[tuple[_Formula, str, str]]:
    roots = "ᾱ and 1 − ᾱ are variances: what multiplies x_0 and eps are their roots."
    divide = "x_0 was shrunk by sqrt(ᾱ_t): divide by it."
    noise = "The noise in x_t is sqrt(1 − ᾱ_t) eps: take that away before you divide."
    return [
        (
            lambda x, e, ab: (x + (1 - ab).sqrt() * e) / ab.sqrt(),
            "You add the noise once more.",
            noise,
        ),
        (lambda x, e, ab: x - (1 - ab).sqrt() * e, "You forget to divide by sqrt(ᾱ_t).", divide),
        (
            lambda x, e, ab: (x - (1 - ab).sqrt() * e) * ab.sqrt(),
            "You multiply by sqrt(ᾱ_t) where you must divide.",
            divide,
        ),
        (
            lambda x, e, ab: (x - (1 - ab).sqrt() * e) / ab,
            "You divide by ᾱ_t, without the root.",
            roots,
        ),
        (
            lambda x, e, ab: (x - (1 - ab) * e) / ab.sqrt(),
            "You take away (1 − ᾱ_t) eps, without the root.",
            roots,
        ),
        (lambda x, e, ab: (x - (1 - ab) * e) / ab, "You forget both square roots.", roots),
        (
            lambda x, e, ab: (x - (1 - ab.sqrt()) * e) / ab.sqrt(),
            "You take away (1 − sqrt(ᾱ_t)) eps.",
            "The 1 belongs under the root: sqrt(1 − ᾱ_t).",
        ),
        (lambda x, e, ab: (x - e) / ab.sqrt(), "You take away all of eps.", noise),
        (lambda x, e, ab: x - e, "You take away all of eps, and don't rescale.", noise),
        (lambda x, e, ab: x / ab.sqrt() - (1 - ab).sqrt() * e, "You divide x_t alone.", noise),
        (lambda x, e, ab: x / ab.sqrt() + 0 * e, "You leave the noise in.", noise),
        (
            lambda x, e, ab: (x - ab.sqrt() * e) / (1 - ab).sqrt(),
            "You swap the two factors: that would be eps, if you had been given x_0.",
            noise,
        ),
        (lambda x, e, ab: _noised(x, e, ab), "You add noise to x_t.", noise),
        (
            lambda x, e, ab: ((1 - ab).sqrt() * e - x) / ab.sqrt(),
            "Your x_0 has the wrong sign.",
            noise,
        ),
    ]


def _eps_mistakes() -> list[tuple[_Formula, str, str]]:
    roots = "ᾱ and 1 − ᾱ are variances: what multiplies x_0 and eps are their roots."
    divide = "The noise in x_t is sqrt(1 − ᾱ_t) eps: divide by that root."
    data = "The data in x_t are sqrt(ᾱ_t) x_0: take those away before you divide."
    return [
        (
            lambda x, d, ab: (x + ab.sqrt() * d) / (1 - ab).sqrt(),
            "You add the data once more.",
            data,
        ),
        (
            lambda x, d, ab: (ab.sqrt() * d - x) / (1 - ab).sqrt(),
            "Your eps has the wrong sign.",
            "x_t minus the data is the noise, not the other way round.",
        ),
        (lambda x, d, ab: x - ab.sqrt() * d, "You forget to divide by sqrt(1 − ᾱ_t).", divide),
        (
            lambda x, d, ab: (x - ab.sqrt() * d) * (1 - ab).sqrt(),
            "You multiply by sqrt(1 − ᾱ_t) where you must divide.",
            divide,
        ),
        (
            lambda x, d, ab: (x - ab.sqrt() * d) / (1 - ab),
            "You divide by 1 − ᾱ_t, without the root.",
            f"{roots} (What you have is minus the score.)",
        ),
        (
            lambda x, d, ab: (ab.sqrt() * d - x) / (1 - ab),
            "That is the score, −eps / sqrt(1 − ᾱ_t).",
            divide,
        ),
        (
            lambda x, d, ab: (x - ab * d) / (1 - ab).sqrt(),
            "You take away ᾱ_t x_0, without the root.",
            roots,
        ),
        (lambda x, d, ab: (x - ab * d) / (1 - ab), "You forget both square roots.", roots),
        (
            lambda x, d, ab: (x - ab.sqrt() * d) / (1 - ab.sqrt()),
            "You divide by 1 − sqrt(ᾱ_t).",
            "The 1 belongs under the root: sqrt(1 − ᾱ_t).",
        ),
        (lambda x, d, ab: (x - d) / (1 - ab).sqrt(), "You take away all of x_0.", data),
        (lambda x, d, ab: x - d, "Your eps is x_t − x_0: no factor is there.", data),
        (
            lambda x, d, ab: (x - (1 - ab).sqrt() * d) / ab.sqrt(),
            "You swap the two factors: that would be x_0, if you had been given eps.",
            data,
        ),
        (lambda x, d, ab: x / (1 - ab).sqrt() + 0 * d, "You leave the data in.", data),
        (lambda x, d, ab: _noised(x, d, ab), "You add something to x_t.", data),
    ]


# --- The loss ------------------------------------------------------------------------------------


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
        roots = "x_t = sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) eps."
        known = [
            (table, "You noise with ᾱ_t x_0, without the root."),
            (
                (1 - table).sqrt(),
                "You multiply the data by sqrt(1 − ᾱ_t), the factor of the noise.",
            ),
            (torch.ones(1), "You don't shrink the data."),
            (torch.zeros(1), "There are no data in what you give the network."),
            (1 - table, "You multiply the data by 1 − ᾱ_t."),
            (table.cumprod(0).sqrt(), "You multiply up the ᾱs once more."),
        ]
        for factors, reason in known:
            if nearest(factors)[1]:
                raise Mistake(reason, roots)
        raise Mistake("The data in your x_t are not sqrt(ᾱ_t) x_0 for any t.", roots)
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
    known = [
        (noised + 1, "You tell the network t + 1, where the data are noised to t."),
        (noised - 1, "You tell the network t − 1, where the data are noised to t."),
        (T - 1 - noised, "You tell the network the time backwards: T − 1 − t."),
        (noised / T, "You tell the network t / T in place of t."),
        (noised / (T - 1), "You tell the network t / (T − 1) in place of t."),
        (0 * noised, "You tell the network 0 at all times."),
    ]
    for other, reason in known:
        if same(told, other.double()):
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
    roots = "x_t = sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) eps."
    if _is_normal(added / (1 - ab), t):
        raise Mistake("You add (1 − ᾱ_t) eps, without the root.", roots)
    if _is_normal(added, t):
        raise Mistake("You add all of eps, without a factor.", roots)
    if _is_normal(added / ab.sqrt(), t):
        raise Mistake("You scale the noise like the data, with sqrt(ᾱ_t).", roots)
    raise Mistake(
        f"Your noise is not standard normal: it has mean {eps.mean():.2f} and standard deviation "
        f"{eps.std():.2f}, where eps has 0 and 1.",
        f"{draw} `randn`, not `rand`.",
    )


def _is_normal(eps: Tensor, t: Tensor) -> bool:
    """Whether ``eps [4000, 2]`` may be standard normal: a true one fails once in 10⁹ times."""
    u = (0.5 * (1 + torch.erf(eps.double() / math.sqrt(2)))).flatten().sort().values
    rank = torch.arange(len(u)) / len(u)
    distance = torch.maximum((rank + 1 / len(u) - u).abs(), (u - rank).abs()).max()
    # Dvoretzky-Kiefer-Wolfowitz: P(distance > c) ≤ 2 exp(−2 N c²).
    near = distance <= math.sqrt(math.log(2 / 1e-9) / (2 * len(u)))

    def has_variance_1(part: Tensor) -> bool:
        # The mean square of N normal numbers has the standard deviation sqrt(2 / N).
        return abs(float(part.square().mean()) - 1) < 6.5 * math.sqrt(2 / part.numel())

    # At each time by itself, too: wrong factors can even out over the times.
    return bool(near) and all(map(has_variance_1, [eps, *(eps[t == k] for k in t.unique())]))


def _judge_loss_values(cases: list[tuple[Any, _Recorder, Tensor, Tensor]]) -> None:
    """Judge the losses of all cases together: in a single one a mistake may look like another."""
    losses, rights, known = [], [], []
    for value, net, eps, x0 in cases:
        if isinstance(value, Tensor) and value.ndim > 0:
            raise Mistake(
                f"Your loss has shape {list(value.shape)}; training needs one number.",
                "Take the mean over everything.",
            )
        losses.append(take_tensor("loss", value, (), dtype=torch.float32))
        rights.append((net.said - eps).square().mean())
        known.append(_loss_mistakes(net, eps, x0))
    if not same(torch.stack(losses), torch.stack(rights), tolerance=1e-3):
        otherwise = (
            "Your loss is not the mean of (net(x_t, t) − eps)², with the eps that is in x_t.",
            f"{_TARGET} {_MEAN}",
        )
        together = [
            (torch.stack([value for value, _, _ in row]), *row[0][1:])
            for row in zip(*known, strict=True)
        ]
        diagnose(torch.stack(losses), together, otherwise)
    for loss, right, (_, net, _, _) in zip(losses, rights, cases, strict=True):
        check_gradients(
            "loss",
            loss,
            right,
            {"the weights of net": net.weight},
            "The network learns through the loss: no `detach`, no `.item()`, no `no_grad`.",
        )


_MEAN = "The mean over examples and numbers alike: `(net(x_t, t) - eps).square().mean()`."
_TARGET = "The target is the eps that you drew, the one that is in x_t."


def _loss_mistakes(net: _Recorder, eps: Tensor, x0: Tensor) -> Known:
    said = net.said
    square = (said - eps).square()
    size = f"{_MEAN} A loss that grows with the data's size needs another learning rate for each."
    return [
        (square.sum(), "You sum where you must take the mean.", size),
        (square.sum() / len(x0), "You sum over the numbers of an example.", size),
        (square.flatten(1).mean(1).sum(), "You sum over the examples.", size),
        (square.mean().sqrt(), "You take the root of the mean square.", _MEAN),
        (square.sum().sqrt(), "You take the norm of the difference.", _MEAN),
        (square.mean() / 2, "Your loss is half of the mean square.", _MEAN),
        ((said - eps).abs().mean(), "You take the absolute error, not the square.", _MEAN),
        ((said - eps).mean(), "You forget the square.", _MEAN),
        ((eps - said).mean(), "You forget the square.", _MEAN),
        (-square.mean(), "Your loss has the wrong sign.", "It is made small: no minus."),
        ((said + eps).square().mean(), "You add eps to the prediction.", _TARGET),
        ((said - x0).square().mean(), "You compare with x_0.", _TARGET),
        ((said - net.x_t).square().mean(), "You compare with x_t.", _TARGET),
        (said.square().mean(), "You compare with nothing.", _TARGET),
    ]


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
