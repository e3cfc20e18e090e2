"""Exercises of chapter 10: any path from any other, preconditioning, times, solvers, churn."""

import math
from collections.abc import Callable
from itertools import pairwise
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from course_lib.diffusion import (
    GaussianPath,
    Preconditioned,
    churn_step,
    ddim_step,
    dpm_solver_sample,
    dpm_solver_step,
    euler_step,
    extrapolated_guess,
    heun_sample,
    heun_step,
    karras_times,
    on_path,
)
from course_lib.exercises.attempt import Attempt, Given, Mistake, take_number
from course_lib.exercises.draws import between, randn
from course_lib.exercises.formula import Wrong, formula, usual
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise
from course_lib.experiments import width_with_churn

__all__: list[str] = []


# --- Where a point stands on another path --------------------------------------------------------

_MATCH = "scale · a = 1 − t and scale · b = t: two equations. What is their sum?"

# fmt: off
_MATCHED_WRONG = [
    Wrong(lambda a, b: (b / a, 1 / a), "That is where the point stands on EDM's path, with a = 1.",
          "On the straight path the data shrink, too: 1 − t of them is left. " + _MATCH),
    Wrong(lambda a, b: (b / (a**2 + b**2).sqrt(), 1 / (a**2 + b**2).sqrt()),
          "Your amounts have squares that add up to 1, as VP's: on the straight path they add up "
          "to 1 themselves.", _MATCH),
    Wrong(lambda a, b: (a / (a + b), 1 / (a + b)), "Your time is turned round: at t = 1 is noise.",
          _MATCH),
    Wrong(lambda a, b: (b / (a + b), a + b), "Your scale is upside down: x is multiplied by it.",
          _MATCH),
    Wrong(lambda a, b: (b, 1 / (a + b)), "Your t is b, the noise of x before it is scaled.",
          "The ratio of noise and data stays, the amounts don't."),
    Wrong(lambda a, b: (1 - a, 1 / (a + b)), "Your t leaves 1 − t = a of the data, as if x kept "
          "its scale.", _MATCH),
    Wrong(lambda a, b: (b**2 / (a**2 + b**2), 1 / (a + b)), "Your t matches variances: t / (1 − t) "
          "is σ = b / a itself, not its square.", _MATCH),
    Wrong(lambda a, b: (b / (a + b), torch.ones_like(a)), "Your x keeps its scale.", _MATCH),
    Wrong(lambda a, b: (b / (a + b), 1 / a), "Your scale brings x to a = 1, not to a = 1 − t.",
          _MATCH),
    Wrong(lambda a, b: (b / (a + b), a / (a + b)), "Your scale is 1 − t: right only where a = 1.",
          _MATCH),
    Wrong(lambda a, b: (b / (a + b), b / (a + b)), "Your scale is t: right only where b = 1.",
          _MATCH),
]
# fmt: on

formula(
    "10.matched_time",
    task="Derive, and write `matched_time`: a point x = a x_0 + b eps of any path, times a number, "
    "is the point (1 − t) x_0 + t eps of the straight one. Which t, and times which scale? a, b "
    "[B] above 0, for each example its own.",
    signature="matched_time(a, b) -> t, scale",
    solution=[GaussianPath.log_snr, on_path],
    hints=[
        "A number before x changes a and b alike. What stays is b / a, and so the log-SNR.",
        "t / (1 − t) = b / a.",
        "scale · a = 1 − t and scale · b = t: their sum is scale · (a + b) = 1.",
    ],
    right=lambda a, b: (b / (a + b), 1 / (a + b)),
    inputs=lambda generator: [
        tuple(0.2 + torch.rand(n, generator=generator) for _ in range(2)) for n in (7, 4)
    ],
    result=["t", "scale"],
    axes="[B], [B] -> [B], [B]",
    wrong=_MATCHED_WRONG,
    otherwise={
        "t": ("At your t the straight path has another ratio of noise and data.", _MATCH),
        "scale": ("Your scale · x is not on the straight path.", _MATCH),
    },
    passes="Your points keep their signal-to-noise ratio. With these two numbers a flow-matching "
    "network denoises for DDPM, VE or EDM: ask it at t about scale · x, and its guess of x_0 is "
    "the guess of x_0.",
)


# --- Preconditioning on the straight path ---------------------------------------------------------

_DEMANDS = (
    "F has to say (x_0 − c_skip x) / c_out. Its variance is 1 when "
    "c_out² = (1 − c_skip (1 − t))² sigma_data² + c_skip² t²: which c_skip makes that least?"
)


def _size(t: Tensor, sigma_data: float) -> Tensor:
    """Of x on the straight path."""
    return (((1 - t) * sigma_data) ** 2 + t**2).sqrt()


def _c_skip(t: Tensor, sigma_data: float) -> Tensor:
    return (1 - t) * sigma_data**2 / _size(t, sigma_data) ** 2


def _c_out(t: Tensor, sigma_data: float) -> Tensor:
    return t * sigma_data / _size(t, sigma_data)


# fmt: off
_STRAIGHT_WRONG = [
    Wrong(lambda t, s: (s**2 / (t**2 + s**2), t * s / (t**2 + s**2).sqrt()),
          "Those are EDM's factors at σ = t: there the data don't shrink.",
          "x is (1 − t) x_0 + t eps. " + _DEMANDS),
    Wrong(lambda t, s: (s**2 / ((t / (1 - t))**2 + s**2), _c_out(t, s)),
          "Those are EDM's factors at σ = t / (1 − t): your c_skip is for x / (1 − t), not for x.",
          _DEMANDS),
    Wrong(lambda t, s: (1 - t, ((1 - (1 - t)**2)**2 * s**2 + ((1 - t) * t)**2).sqrt()),
          "Your c_skip is the share of the data in x, not how much of x is data.", _DEMANDS),
    Wrong(lambda t, s: (1 / (1 - t), t / (1 - t)),
          "Your target is pure noise: its variance is 1, but c_out could be smaller.",
          "At t → 1 it amplifies what F does wrong without bound. " + _DEMANDS),
    Wrong(lambda t, s: (torch.zeros_like(t), torch.full_like(t, s)),
          "Your target is x_0 itself: its variance is 1, but c_out could be smaller.",
          "At t → 0 x says nearly all of x_0. " + _DEMANDS),
    Wrong(lambda t, s: (torch.ones_like(t), t * (1 + s**2)**0.5),
          "Your target is the path's velocity: its variance is 1, but c_out could be smaller.",
          _DEMANDS),
    Wrong(lambda t, s: (_c_skip(t, s), _c_out(t, s)**2), "Your c_out is squared.",
          "The variance of what F has to say is c_out² of the rest: take the root."),
    Wrong(lambda t, s: (_c_skip(t, s), 1 / _size(t, s)), "Your c_out is c_in, which scales x.",
          _DEMANDS),
    Wrong(lambda t, s: (_c_skip(t, s), t / _size(t, s)), "Your c_out lacks sigma_data.", _DEMANDS),
    Wrong(lambda t, s: (_c_skip(t, s), t * s), "Your c_out is not divided by the size of x.",
          _DEMANDS),
    Wrong(lambda t, s: (s**2 / _size(t, s)**2, _c_out(t, s)), "Your c_skip lacks 1 − t.", _DEMANDS),
    Wrong(lambda t, s: ((1 - t) * s / _size(t, s)**2, _c_out(t, s)),
          "Your c_skip has sigma_data where its square belongs.", _DEMANDS),
    Wrong(lambda t, s: ((1 - t) * s**2 / _size(t, s), _c_out(t, s)),
          "Your c_skip is divided by the size of x, not by its square.", _DEMANDS),
    Wrong(lambda t, s: ((1 - t) / ((1 - t)**2 + t**2), t / ((1 - t)**2 + t**2).sqrt()),
          "You take the data for as large as the noise, sigma_data = 1.", _DEMANDS),
    usual("sign", "Your c_out is below 0: as good, but the positive root is asked for.",
          part="c_out"),
    usual("sign", "Your c_skip has the wrong sign: x holds x_0 with a plus.", part="c_skip"),
]
# fmt: on

formula(
    "10.straight_preconditioning",
    task="Derive, and write `straight_preconditioning`: for x = (1 − t) x_0 + t eps, with data of "
    "mean 0 and standard deviation sigma_data, a number, the guess of x_0 shall be c_skip x + "
    "c_out F. What F has to say shall have variance 1, and c_out > 0 be the least possible. t [B] "
    "lies between 0 and 1.",
    signature="straight_preconditioning(t, sigma_data) -> c_skip, c_out",
    solution=Preconditioned.factors,
    hints=[
        "F has to say (x_0 − c_skip x) / c_out. What is the variance of the numerator?",
        "c_out² = (1 − c_skip (1 − t))² sigma_data² + c_skip² t²: a parabola in c_skip.",
        "Its derivative is zero at c_skip = (1 − t) sigma_data² / ((1 − t)² sigma_data² + t²). Put "
        "that into c_out².",
    ],
    right=lambda t, s: (_c_skip(t, s), _c_out(t, s)),
    inputs=lambda generator: [
        (0.1 + 0.8 * torch.rand(n, generator=generator), between(low, high, generator))
        for n, low, high in ((7, 0.4, 0.8), (4, 1.3, 2.0))
    ],
    result=["c_skip", "c_out"],
    axes="[B], _ -> [B], [B]",
    wrong=_STRAIGHT_WRONG,
    otherwise={
        "c_skip": ("With your c_skip c_out is not the least possible.", _DEMANDS),
        "c_out": ("With your c_out what F has to say has not the variance 1.", _DEMANDS),
    },
    passes="Your factors meet both demands. They are EDM's at σ = t / (1 − t), for x / (1 − t): "
    "near the data the network says what noise there is, near the noise what data.",
)


# --- Times without end ---------------------------------------------------------------------------

_LIMIT = "σ^(1/ρ) = exp(log σ / ρ) ≈ 1 + log σ / ρ: even steps in σ^(1/ρ) are even steps in log σ."


def _levels(answer: Any, *_: Any) -> Any:
    """Noise levels as float32, whether they come as a list or in another precision."""
    if isinstance(answer, list | tuple) and all(
        isinstance(level, Real) or (isinstance(level, Tensor) and level.shape == ())
        for level in answer
    ):
        answer = torch.tensor([float(level) for level in answer], dtype=torch.float64)
    return answer.float() if isinstance(answer, Tensor) and answer.is_floating_point() else answer


def _even(
    into: Callable[[float], float], back: Callable[[Tensor], Tensor]
) -> Callable[[int, float, float], Tensor]:
    """Levels that are evenly spaced in a function of σ, given with its inverse."""
    return lambda steps, low, high: back(
        torch.linspace(into(high), into(low), steps, dtype=torch.float64)
    )


_geometric = _even(math.log, torch.exp)

# fmt: off
_TIMES_WRONG = [
    Wrong(lambda n, low, high: torch.tensor(karras_times(n, sigma_min=low, sigma_max=high)),
          "Those are the times with ρ = 7.", _LIMIT),
    Wrong(_even(lambda s: s, lambda u: u), "Your times are evenly spaced in σ: that is ρ = 1.",
          _LIMIT),
    Wrong(_even(lambda s: s**0.5, lambda u: u**2), "Your times have ρ = 2.", _LIMIT),
    Wrong(_even(lambda s: s**2, lambda u: u**0.5), "Your times are evenly spaced in σ²: ρ = ½.",
          _LIMIT),
    Wrong(_even(lambda s: 1 / s, lambda u: 1 / u), "Your times are evenly spaced in 1 / σ.",
          _LIMIT),
    Wrong(_even(math.log, lambda u: u), "You give log σ.", "Go back to σ: exp."),
    Wrong(_even(math.log, lambda u: 10**u), "Natural logarithms under powers of ten.",
          "`torch.logspace` wants `math.log10`, or `base=math.e`."),
    Wrong(lambda n, low, high: _geometric(n, low, high).flip(0), "Your times rise.",
          "Sampling begins with the most noise: from sigma_max down."),
    Wrong(lambda n, low, high: _geometric(n + 1, low, high)[:-1],
          "Your times stop before sigma_min: there are steps − 1 gaps between `steps` times.",
          "i / (steps − 1)."),
    Wrong(lambda n, low, high: _geometric(n + 1, low, high)[1:],
          "Your times begin after sigma_max: the first of them is sigma_max.", "Count from 0."),
    Wrong(lambda n, low, high: torch.full((n,), math.sqrt(low * high)),
          "All your times are one.", "σ^(1/ρ) goes to 1, but differences count. " + _LIMIT),
    Wrong(lambda n, low, high: torch.ones(n), "Your times are all 1: 0 · ∞ was left.", _LIMIT),
]
# fmt: on


def _praise_levels(attempt: Attempt, generator: torch.Generator) -> str:
    yours = int((_levels(attempt(18, 0.002, 80.0)) < 0.1).sum())
    karras, even = (
        sum(s < 0.1 for s in karras_times(18, sigma_min=0.002, sigma_max=80.0, rho=rho))
        for rho in (7, 1)
    )
    return (
        "Each of your steps divides the noise by the same number, and the log-SNR rises evenly. "
        f"With 18 levels from 80 to 0.002, {yours} of them lie below 0.1, where images are nearly "
        f"done; with ρ = 7 it is {karras}, with ρ = 1 {even}."
    )


formula(
    "10.geometric_times",
    task="Derive, and write `geometric_times`: where Karras' noise levels go as ρ → ∞: `steps` of "
    "them (2 or more), from sigma_max down to sigma_min, as a tensor [steps] or a list.",
    signature="geometric_times(steps, sigma_min, sigma_max) -> [steps]",
    solution=karras_times,
    hints=[
        "σ^(1/ρ) = exp(log σ / ρ). What is left of it to first order when ρ is large?",
        "1 + log σ / ρ: a straight line in log σ, raised to the power ρ.",
        "(1 + u / ρ)^ρ → exp(u): σ_i = exp(log σ_max + i / (steps − 1) · (log σ_min − log σ_max)).",
    ],
    right=lambda steps, low, high: _geometric(steps, low, high).float(),
    inputs=lambda generator: [
        (steps, between(0.1, 0.4, generator), between(5, 20, generator)) for steps in (4, 7)
    ],
    result="levels",
    axes="_, _, _ -> [steps]",
    wrong=_TIMES_WRONG,
    take=_levels,
    hint=_LIMIT,
    otherwise=("Your levels are not the limit of Karras' as ρ → ∞.", _LIMIT),
    passes=_praise_levels,
)


# --- Heun's step in another variable -------------------------------------------------------------

_DENOISE = Given(
    "denoise",
    ["x", "sigma"],
    lambda x, sigma: torch.sin(1.3 * x) / (1 + sigma) - 0.3 * x.roll(1, 1) * sigma,
)
_LOG = "With u = log σ: dx/du = σ dx/dσ = x − D(x; σ), and the step is log(sigma_next / sigma)."


def _away(denoise: Callable[..., Tensor], x: Tensor, sigma: float) -> Tensor:
    """The slope dx / d log σ."""
    return x - denoise(x, sigma)


def _log_heun(
    second: Callable[..., Tensor],
    mix: Callable[..., Tensor] = lambda k1, k2: (k1 + k2) / 2,
    length: Callable[[float, float], float] = lambda sigma, then: math.log(then / sigma),
) -> Callable[..., Tensor]:
    """An answer by what it takes for the second slope, with Euler's guess of the end."""

    def step(denoise: Callable[..., Tensor], x: Tensor, sigma: float, then: float) -> Tensor:
        h, k1 = length(sigma, then), _away(denoise, x, sigma)
        return x + h * mix(k1, second(denoise, x, x + h * k1, sigma, then))

    return step


def _at_the_end(d: Callable, x: Tensor, end: Tensor, sigma: float, then: float) -> Tensor:
    return _away(d, end, then)


_heun_in_log = _log_heun(_at_the_end)


def _in_sigma(denoise: Callable[..., Tensor]) -> Callable[[Tensor, float], Tensor]:
    return lambda x, sigma: _away(denoise, x, sigma) / sigma


# fmt: off
_LOG_WRONG = [
    Wrong(lambda d, x, s, n: heun_step(_in_sigma(d), x, s, n - s), "That is Heun's step in σ.",
          _LOG),
    Wrong(lambda d, x, s, n: euler_step(_in_sigma(d), x, s, n - s), "That is Euler's step in σ.",
          _LOG),
    Wrong(_log_heun(_at_the_end, lambda k1, k2: k1), "That is Euler's step in log σ: ask again at "
          "the end of it.", _LOG),
    Wrong(_log_heun(_at_the_end, lambda k1, k2: k2), "You take the slope of the end alone.",
          "The mean of both."),
    Wrong(_log_heun(_at_the_end, lambda k1, k2: k1 + k2), "You add the two slopes.",
          "Their mean: divide by 2."),
    Wrong(_log_heun(_at_the_end, lambda k1, k2: -(k1 + k2) / 2), "You walk the wrong way.",
          "dx/du is x − D, and the step, log(sigma_next / sigma), is below 0."),
    Wrong(_log_heun(_at_the_end, length=lambda s, n: math.log(s / n)), "You walk the wrong way.",
          "dx/du is x − D, and the step, log(sigma_next / sigma), is below 0."),
    Wrong(_log_heun(_at_the_end, length=lambda s, n: n - s), "Your step is as long as in σ.", _LOG),
    Wrong(_log_heun(_at_the_end, length=lambda s, n: math.log10(n / s)),
          "Your logarithm has the base 10.", "u is the natural logarithm: dσ/du = σ."),
    Wrong(_log_heun(_at_the_end, length=lambda s, n: math.log2(n / s)),
          "Your logarithm has the base 2.", "u is the natural logarithm: dσ/du = σ."),
    Wrong(lambda d, x, s, n: heun_step(_in_sigma(d), x, s, math.log(n / s)),
          "Your step is one in log σ, but your slope dx/dσ.", _LOG),
    Wrong(lambda d, x, s, n: heun_step(lambda y, u: _in_sigma(d)(y, math.exp(u)), x, math.log(s),
                                       math.log(n / s)),
          "Your slope is dx/dσ: the σ of dσ = σ du is missing.", _LOG),
    Wrong(_log_heun(lambda d, x, e, s, n: _away(d, e, s)), "You tell the network the old σ again.",
          "At the end of the step there is sigma_next of noise."),
    Wrong(_log_heun(lambda d, x, e, s, n: _away(d, x, n)), "The second time you ask about the old "
          "x.", "x at the end of Euler's step."),
    Wrong(_log_heun(lambda d, x, e, s, n: x - d(e, n)), "Your second slope is the old x − the new "
          "D.", "Both at the end of Euler's step."),
    Wrong(lambda d, x, s, n: heun_step(lambda y, u: y - d(y, u), x, math.log(s), math.log(n / s)),
          "You tell the network log σ.", "It knows σ: sigma and sigma_next."),
    Wrong(lambda d, x, s, n: x + math.log(n / s) * _away(
              d, x + math.log(n / s) / 2 * _away(d, x, s), math.sqrt(n * s)),
          "That is the midpoint method in log σ.", "Heun asks at the end of the step."),
    Wrong(lambda d, x, s, n: _heun_in_log(d, x, s, n) - x, "You give the change of x, not x.",
          "Add x."),
]
# fmt: on


def _praise_log(attempt: Attempt, generator: torch.Generator) -> str:
    exact = math.sqrt((1 + 0.1**2) / (1 + 10**2))
    errors = []
    for n in (40, 80):
        x = torch.ones(1, 1, dtype=torch.float64)
        levels = karras_times(n + 1, sigma_min=0.1, sigma_max=10.0, rho=1e6)
        for sigma, then in pairwise(levels):
            x = attempt(lambda x, sigma: x / (1 + sigma**2), x, sigma, then)
        errors.append(abs(x.item() / exact - 1))
    return (
        "Your step is Heun's in log σ. On N(0, 1) twice as many steps have an error "
        f"{errors[0] / errors[1]:.1f} times smaller: order 2, in any variable. What differs is the "
        "constant: where the guess stays, near the data and in much noise, x is a straight line in "
        "σ and an exponential in log σ, and your step is far worse. It can be the better one only "
        "in between, where the guess changes."
    )


formula(
    "10.heun_in_log",
    task="Write `heun_in_log`: one step of Heun's method for EDM's ODE dx/dσ = (x − D(x; σ)) / σ "
    "in the variable log σ, from sigma to sigma_next, numbers above 0. denoise(x, sigma) gives D "
    "for x [B, *event].",
    signature="heun_in_log(denoise, x, sigma, sigma_next) -> x",
    solution=heun_step,
    hints=[
        "With u = log σ the chain rule gives dx/du = σ · dx/dσ.",
        "x − D(x; σ): no division any more. The step is log(sigma_next) − log(sigma).",
        "k1 = x − D(x; sigma), then k2 at x + h k1 and sigma_next, and x + h (k1 + k2) / 2.",
    ],
    right=_heun_in_log,
    inputs=lambda generator: [
        (
            _DENOISE,
            randn(*shape, generator=generator),
            *((sigma := between(1.4, 2.5, generator)), sigma * between(0.3, 0.7, generator)),
        )
        for shape in ((7, 2), (4, 4), (3, 2, 3, 3))
    ],
    result="x",
    wrong=_LOG_WRONG,
    hint=_LOG,
    otherwise=("Your x is not that of Heun's step in log σ.", _LOG),
    passes=_praise_log,
)


# --- An exact step while the guess stays ---------------------------------------------------------

_STAYS = (
    "If x_0 stays, so does eps = (x − a x_0) / b, and x is a x_0 + b eps with the next a and b."
)


def _linear(
    amounts: Callable[[float, float, float, float], tuple[float, float]],
) -> Callable[..., Tensor]:
    """An answer p x + q x_0 by a formula of p and q."""

    def step(x: Tensor, x0: Tensor, a: float, b: float, a_next: float, b_next: float) -> Tensor:
        p, q = amounts(a, b, a_next, b_next)
        return p * x + q * x0

    return step


def _ratio(a: float, b: float, a_next: float, b_next: float) -> float:
    """By how much σ = b / a falls."""
    return (b_next / a_next) / (b / a)


def _bayes(a: float, b: float, a_next: float, b_next: float) -> tuple[float, float]:
    """The mean of the next x given x and x_0, on the way of a noising SDE."""
    shrunk = a / a_next
    return shrunk * b_next**2 / b**2, a_next * (1 - (shrunk * b_next / b) ** 2)


def _draw_exponential(generator: torch.Generator) -> list[tuple]:
    cases = []
    for shape in ((7,), (4, 3), (3, 2, 4, 4)):
        x, x0 = (randn(*shape, generator=generator) for _ in range(2))
        a, b = between(0.3, 0.6, generator), between(0.9, 1.4, generator)
        a_next, b_next = a + between(0.1, 0.3, generator), b * between(0.4, 0.8, generator)
        cases.append((x, x0, a, b, a_next, b_next))
    return cases


# fmt: off
_EXPONENTIAL_WRONG = [
    Wrong(_linear(lambda a, b, an, bn: (bn / b, 1 - bn / b)),
          "That is EDM's step with b for σ: right where a = 1 all the way.", _STAYS),
    Wrong(_linear(lambda a, b, an, bn: (_ratio(a, b, an, bn), 1 - _ratio(a, b, an, bn))),
          "That is EDM's step with σ = b / a, but your x has a x_0 in it where EDM's has x_0.",
          "Divide x by a before the step, and multiply by a_next after it."),
    Wrong(_linear(lambda a, b, an, bn: (_ratio(a, b, an, bn) / a, 1 - _ratio(a, b, an, bn))),
          "You step on EDM's path and stay there.", "Multiply by a_next to come back."),
    Wrong(_linear(lambda a, b, an, bn: (bn * a / b, an - bn * a / b)),
          "You come back from EDM's path without having gone there.",
          "Divide x by a before the step."),
    Wrong(_linear(lambda a, b, an, bn: (bn, an - bn * a)), "Your noise is not divided by b.",
          _STAYS),
    Wrong(_linear(lambda a, b, an, bn: (bn / b, an - bn / b)), "Your eps takes away all of x_0.",
          "There is only a x_0 in x: eps = (x − a x_0) / b."),
    Wrong(_linear(lambda a, b, an, bn: (bn / b, an + a * bn / b)), "Your eps adds a x_0.",
          "eps = (x − a x_0) / b."),
    Wrong(_linear(lambda a, b, an, bn: (bn, an)), "You noise the guess with x itself.",
          "x is no noise: eps = (x − a x_0) / b."),
    Wrong(_linear(lambda a, b, an, bn: (0, an)), "You jump to the guess: the noise of b_next is "
          "missing.", _STAYS),
    Wrong(_linear(lambda a, b, an, bn: (b / bn, an - a * b / bn)), "b and b_next change places.",
          "Noise falls: x is multiplied by b_next / b."),
    Wrong(_linear(lambda a, b, an, bn: (an / a, bn - b * an / a)), "Data and noise change places.",
          "x_0 is given, eps is what is left."),
    Wrong(_linear(_bayes), "That is the mean of DDPM's step, whose noise is still to be drawn.",
          "The ODE draws none: all of eps stays."),
    Wrong(_linear(lambda a, b, an, bn: ((bn / b)**2, an - a * (bn / b)**2)),
          "You scale the noise by a ratio of variances.", "b is a standard deviation."),
    Wrong(_linear(lambda a, b, an, bn: (an / a, 0)), "You rescale x; the noise stays what it was.",
          _STAYS),
    Wrong(_linear(lambda a, b, an, bn: (bn / b - 1, an - a * bn / b)),
          "You give the change of x, not x.", "Add x."),
]
# fmt: on

formula(
    "10.exponential_step",
    task="Derive, and write `exponential_step`: the exact step of the probability-flow ODE from a, "
    "b to a_next, b_next on any path, while the guess of x_0 stays what it is: x and x0 [B, "
    "*event], the amounts numbers above 0.",
    signature="exponential_step(x, x0, a, b, a_next, b_next) -> x",
    solution=[dpm_solver_step, ddim_step],
    hints=[
        "On EDM's path it is (σ' / σ) x + (1 − σ' / σ) x_0. Where does that x stand, seen from a "
        "path with another a?",
        "x / a is on EDM's path at σ = b / a. Or: if x_0 stays, eps stays, too.",
        "a_next x_0 + b_next eps with eps = (x − a x_0) / b.",
    ],
    right=_linear(lambda a, b, a_next, b_next: (b_next / b, a_next - a * b_next / b)),
    inputs=_draw_exponential,
    result="x",
    wrong=_EXPONENTIAL_WRONG,
    hint=_STAYS,
    otherwise=("Your x is not at the end of the ODE's way.", _STAYS),
    passes="Your step is exact for a constant guess, on every path: DDIM's step, Euler's on EDM's "
    "path, DPM-Solver++'s of first order, one and the same.",
)


# --- Which sampler has which order ---------------------------------------------------------------

_ORDER = "An error that is C / steps^p falls by 2^p when the steps are doubled."

prediction(
    "10.predict_order",
    task="Predict: two samplers that call the network once a step, on two clusters with the exact "
    "guess. With 40 and 80 steps A is off by 0.0289 and 0.0145, and B by 0.0029 and 0.0007. Which "
    "order has B?",
    solution=[dpm_solver_sample, extrapolated_guess],
    hints=[
        "A method of order p has an error of about C / steps^p.",
        "By what is B's error divided when its steps are doubled?",
        "By about 4 = 2^p.",
    ],
    right=2,
    within=0.15,
    wrong=[
        Slip(
            1,
            "1 is the order of A. A call a step is no limit: B could remember what it was told "
            "before.",
            _ORDER,
            within=0.15,
        ),
        Slip(4, "4 is the ratio of the errors; the order is its logarithm.", _ORDER, within=0.3),
        Slip(0.25, "That is what is left of the error; the order is an exponent.", within=0.02),
        Slip(3, "At order 3 the error would fall 8-fold.", _ORDER, within=0.15),
        Slip(0.5, "With √2 for each doubling the error would hardly fall.", _ORDER, within=0.1),
        Slip(10, "That is by how much B is better at 40 steps, not how it improves.", within=0.5),
        Slip(1.42, "You take the natural logarithm of 4: that of base 2.", _ORDER, within=0.05),
    ],
    passes="2: the error falls 4-fold. A is DDIM, Euler's method; B is DPM-Solver++ 2M, which "
    "extrapolates from the guess of the step before. Heun has order 2 as well and pays for it with "
    "a second call: at 80 calls it is off by 0.0024 here, B by 0.0007, A by 0.0145.",
    question="An order is a number: by which power of the steps does the error fall?",
    hint=_ORDER,
    otherwise=lambda got: (
        (f"With order {got:.4g} the error would fall {2**got:.3g}-fold.", _ORDER)
        if 0 < got < 20
        else (f"{got:.4g} is no order.", _ORDER)
    ),
)


# --- Too much churn ------------------------------------------------------------------------------

_COUNTS = (100, 1000, 10_000)
_SPREAD = "gamma = churn / steps: what is it with ten times the steps?"


@exercise(
    "10.break_the_churn",
    task="Break it: data N(0, 0.5²), the exact guess of x_0, and a sampler that at each of `steps` "
    "noise levels (Karras', from 80 to 0.002) adds noise, up to (1 + gamma) σ with gamma = "
    "min(churn / steps, √2 − 1), and takes an Euler step from there. Write `bad_churn`: the churn, "
    "a number, with which samples stay more than 5 % too narrow however many steps you take.",
    signature="bad_churn(steps) -> churn",
    solution=[heun_sample, churn_step],
    hints=[
        "Without churn twice as many steps are half as long, and Euler's error goes to 0. How long "
        "is a step that starts at (1 + gamma) σ?",
        "At least gamma σ. So gamma must not go to 0 as the steps become many.",
        "Let the churn grow in proportion to the steps.",
    ],
)
def _check_break_the_churn(attempt: Attempt, generator: torch.Generator) -> str:
    question = "It is the paper's S_churn, for all steps together."
    churns = {n: take_number(attempt(n), question, low=0, subject="churn") for n in _COUNTS}
    widths = {n: width_with_churn(n, churn) for n, churn in churns.items()}
    told = ", ".join(f"{widths[n]:.3f} with {n:,}" for n in _COUNTS)
    told = f"in widths of the data samples have {told} steps"
    if max(churns.values()) < 1:
        raise Mistake(
            f"Your churn is {churns[1000]:.3g} for all steps together, and nothing is broken: "
            f"{told}.",
            "gamma, the part of one step, is churn / steps.",
        )
    if widths[10_000] > 0.95:
        raise Mistake(
            f"Not broken: {told}.",
            "More steps heal it. " + _SPREAD
            if churns[10_000] < 9 * churns[1000]
            else "More churn at every step: gamma may be as large as √2 − 1.",
        )
    many = 10**9
    if take_number(attempt(many), question, low=0, subject="churn") / many < 0.2:
        raise Mistake(
            f"Broken with {_COUNTS[-1]:,} steps, but not however many: with {many:,} of them "
            f"nothing is left of your churn.",
            _SPREAD,
        )
    heun = width_with_churn(1000, churns[1000], solver="heun")
    hidden = width_with_churn(1000, churns[1000], s_noise=1.08)
    return (
        f"Broken: {told}, and the guess is exact. "
        "No step is ever short, and Euler's steps come out too smooth. Heun's second call repairs "
        f"it ({heun:.3f} with 1,000); adding 8 % more noise than is announced (s_noise = 1.08) "
        f"only hides it ({hidden:.3f}). With networks, too, much churn costs detail: the paper "
        "keeps it small and within limits of σ, with an s_noise a little above 1."
    )
