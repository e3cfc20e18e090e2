"""Exercises of chapter 08: SDEs and their paths, the ways back, score matching, Langevin."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.diffusion import (
    GaussianPath,
    denoising_score_matching,
    implicit_score_matching,
    langevin_step,
    reverse_sde_step,
    sde_step,
)
from course_lib.exercises.attempt import Attempt, Given, Mistake, take_tensor
from course_lib.exercises.draws import between, randn
from course_lib.exercises.formula import Wrong, formula, usual
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise

__all__: list[str] = []


# --- The SDE of a path ---------------------------------------------------------------------------

_QUARTER = math.pi / 2
_TWO_EQUATIONS = "a' = f a gives f, and then (b²)' = 2 f b² + g² gives g."


def _of_quarter(rule: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[..., Any]:
    """An answer by a formula of the angle π t / 2."""
    return lambda t: rule(_QUARTER * t)


def _right_rates(t: Tensor) -> tuple[Tensor, Tensor]:
    angle = _QUARTER * t
    return -_QUARTER * angle.tan(), (math.pi * angle.tan()).sqrt()


# fmt: off
_RATES_WRONG = [
    Wrong(_of_quarter(lambda u: (_QUARTER * u.tan(), (math.pi * u.tan()).sqrt())),
          "Your f has the wrong sign: the data would grow.",
          "a falls, so that f = a' / a is negative."),
    Wrong(_of_quarter(lambda u: (-_QUARTER * u.sin(), (math.pi * u.tan()).sqrt())),
          "Your f is a', not a' / a.", _TWO_EQUATIONS),
    Wrong(_of_quarter(lambda u: (-u.tan(), (math.pi * u.tan()).sqrt())),
          "Your f lacks the π / 2 of the inner derivative.", "cos(π t / 2)' = −π/2 sin(π t / 2)."),
    Wrong(_of_quarter(lambda u: (-_QUARTER / u.tan(), (math.pi * u.tan()).sqrt())),
          "Your f is upside down.", "f = a' / a = −π/2 sin / cos."),
    Wrong(_of_quarter(lambda u: (-_QUARTER * u.tan(), math.pi * u.tan())),
          "Your g is g²: the root is missing.", "(b²)' − 2 f b² is g²."),
    Wrong(_of_quarter(lambda u: (-_QUARTER * u.tan(), (_QUARTER * u.tan()).sqrt())),
          "Your g² is half of what it should be.", "For a² + b² = 1 it is −2 f."),
    Wrong(_of_quarter(lambda u: (-_QUARTER * u.tan(), (math.pi * u.sin() * u.cos()).sqrt())),
          "Your g² is (b²)': you leave out what the drift takes away.", _TWO_EQUATIONS),
    Wrong(_of_quarter(lambda u: (-_QUARTER * u.tan(), _QUARTER * u.cos())),
          "Your g is b': noise adds as variance.", _TWO_EQUATIONS),
    Wrong(_of_quarter(lambda u: (-_QUARTER * u.tan(),
                                 (math.pi * u.sin() * u.cos() * (1 + _QUARTER * u.tan())).sqrt())),
          "Your g² subtracts 2 f b² with the wrong factor.", _TWO_EQUATIONS),
]
# fmt: on

formula(
    "08.drift_diffusion",
    task="Derive, and write `drift_diffusion`: f and g, both [B], of dx = f x dt + g dw on the "
    "path a = cos(π t / 2), b = sin(π t / 2), at times t [B].",
    signature="drift_diffusion(t) -> f, g",
    solution=[GaussianPath.drift, GaussianPath.diffusion],
    hints=[
        "The mean of x_t obeys m' = f m, and its variance V' = 2 f V + g².",
        "So f = a' / a. What is (b²)' when b = sin(π t / 2)?",
        "f = −π/2 tan(π t / 2), and a² + b² = 1 gives g² = −2 f.",
    ],
    right=_right_rates,
    inputs=lambda generator: [
        (0.05 + 0.85 * torch.rand(7, generator=generator),),
        (0.05 + 0.85 * torch.rand(4, generator=generator),),
    ],
    result=["f", "g"],
    axes="[B] -> [B], [B]",
    wrong=_RATES_WRONG,
    otherwise={
        "f": ("Your f is not a' / a.", _TWO_EQUATIONS),
        "g": ("Your g² is not (b²)' − 2 f b².", _TWO_EQUATIONS),
    },
    passes="Your f and g lead along a quarter of a circle: it is VP with β = π tan(π t / 2), the "
    "cosine schedule's, and infinite at t = 1, where nothing is left of the data.",
)


# --- A family between the SDE and the ODE --------------------------------------------------------

_FAMILY = (
    "The reverse SDE is x − (f x − g² score) dt + g √dt noise, the ODE x − (f x − ½ g² score) dt. "
    "Noise of variance lam² g² dt spreads the density; ½ lam² g² score more of drift undoes it."
)


def _family_step(
    x: Tensor, score: Tensor, f: float, g: float, dt: float, noise: Tensor, lam: float
) -> Tensor:
    mean = reverse_sde_step(x, score, f=f, g=g * math.sqrt((1 + lam**2) / 2), dt=dt)
    return mean + lam * g * math.sqrt(dt) * noise


def _by_drift(drift: Callable[..., Any], size: Callable[..., float]) -> Callable[..., Tensor]:
    """An answer x − (f x − drift) dt + size · noise."""
    return lambda x, score, f, g, dt, noise, lam: (
        x - (f * x - drift(score, g, lam)) * dt + size(g, dt, lam) * noise
    )


def _half(score: Tensor, g: float, lam: float) -> Tensor:
    return (1 + lam**2) / 2 * g**2 * score


def _root(g: float, dt: float, lam: float) -> float:
    return lam * g * math.sqrt(dt)


def _draw_family(generator: torch.Generator) -> list[tuple]:
    cases = []
    for shape, lam in (((7, 2), None), ((3, 1, 4, 4), None), ((5, 3), None)):
        x, score, noise = (randn(*shape, generator=generator) for _ in range(3))
        f, g = -between(0.4, 2.0, generator), between(0.7, 3.0, generator)
        dt = between(0.05, 0.3, generator)
        cases.append(
            (x, score, f, g, dt, noise, between(0.3, 1.8, generator) if lam is None else lam)
        )
    return cases


# fmt: off
_FAMILY_WRONG = [
    Wrong(_by_drift(lambda s, g, lam: g**2 * s, _root),
          "Your drift is the reverse SDE's at every lam.",
          "Less noise has to be undone by less drift. " + _FAMILY),
    Wrong(_by_drift(lambda s, g, lam: lam**2 * g**2 * s, _root),
          "At lam = 0 nothing is left of the score: the ODE has half of g² score.", _FAMILY),
    Wrong(_by_drift(lambda s, g, lam: 0.5 * g**2 * s, _root),
          "Your drift is the ODE's at every lam: the noise is not made up for.", _FAMILY),
    Wrong(_by_drift(lambda s, g, lam: (1 + lam) / 2 * g**2 * s, _root),
          "Your drift grows like lam: variances count, so lam².", _FAMILY),
    Wrong(_by_drift(lambda s, g, lam: (1 + lam**2) * g**2 * s, _root),
          "Your drift towards the data is twice as large as it should be.", _FAMILY),
    Wrong(_by_drift(_half, lambda g, dt, lam: lam * g * dt),
          "Your noise is multiplied by dt, not by its root.",
          "Variances add up over the steps, so that dt belongs to the variance."),
    Wrong(_by_drift(_half, lambda g, dt, lam: lam**2 * g**2 * dt),
          "You multiply the noise by its variance.", "The root of lam² g² dt."),
    Wrong(_by_drift(_half, lambda g, dt, lam: g * math.sqrt(dt)), "Your noise does not know lam.",
          _FAMILY),
    Wrong(_by_drift(lambda s, g, lam: (1 + lam**2) / 2 * g * s, _root),
          "You write g for g² in the drift.", _FAMILY),
    Wrong(_by_drift(lambda s, g, lam: -_half(s, g, lam), _root), "You walk against the score.",
          "On the way to the data it leads uphill."),
    Wrong(lambda x, s, f, g, dt, n, lam: x + (f*x - _half(s, g, lam)) * dt + _root(g, dt, lam) * n,
          "You walk towards the noise: the drift's sign.",
          "dt is the length of the step; t falls."),
    Wrong(lambda x, s, f, g, dt, n, lam: x + (f*x + _half(s, g, lam)) * dt + _root(g, dt, lam) * n,
          "You add f x, which is the way to the noise.", "Backwards in time its sign turns round."),
    Wrong(lambda x, s, f, g, dt, n, lam: _half(s, g, lam) * dt - f * x * dt + _root(g, dt, lam) * n,
          "You give the change of x, not x.", "Add x."),
]
# fmt: on

formula(
    "08.family_step",
    task="Derive, and write `family_step`: the step back, dt long, whose noise is lam · g in "
    "place of g and whose density at every time is the same. lam = 1 is the reverse SDE; what is "
    "lam = 0?",
    signature="family_step(x, score, f, g, dt, noise, lam) -> x",
    solution=reverse_sde_step,
    hints=[
        "Write down Fokker–Planck for the reverse SDE. Noise of variance lam² g² enters as "
        "½ lam² g² Δp.",
        "Δp = ∇·(p ∇ log p): what the noise does to p, a drift along the score does, too, with the "
        "other sign.",
        "x − (f x − ½ (1 + lam²) g² score) dt + lam g √dt noise.",
    ],
    right=_family_step,
    inputs=_draw_family,
    result="x",
    wrong=_FAMILY_WRONG,
    otherwise=("Your x is not a step of the family.", _FAMILY),
    passes="Your steps keep every density: lam = 1 is the reverse SDE, lam = 0 the "
    "probability-flow ODE of the next chapter, and in between (and beyond) lie as many "
    "samplers as you like.",
)


# --- Which sampler keeps the joint law -----------------------------------------------------------

_JOINT = "Along the forward SDE x_t = (a_t / a_s) x_s + fresh noise. What is the covariance, then?"

prediction(
    "08.predict_joint",
    task="Predict: the data are N(0, 1), the path is VP, and a is 0.8 at time s and 0.4 at the "
    "later time t. Along paths of the reverse SDE: the correlation of x_s and x_t?",
    solution=reverse_sde_step,
    hints=[
        "Anderson's theorem is about the joint law of all times, not only about each of them.",
        "So ask the forward SDE: x_t is x_s, shrunk, and noise that does not know x_s.",
        "Both have variance 1, and the shrinking is a_t / a_s.",
    ],
    right=0.5,
    within=0.02,
    wrong=[
        Slip(
            1.0,
            "1 is the ODE's: with N(0, 1) at all times nothing has to move, and nothing does.",
            "The reverse SDE draws fresh noise on the way. " + _JOINT,
            within=0.02,
        ),
        Slip(0.0, "Fresh noise does not wipe out everything in this time.", _JOINT, within=0.02),
        Slip(0.4, "That is the correlation of x_0 and x_t.", _JOINT, within=0.02),
        Slip(0.8, "That is the correlation of x_0 and x_s.", _JOINT, within=0.02),
        Slip(0.32, "You multiply the two: from s to t the shrinking is a_t / a_s.", within=0.02),
        Slip(0.25, "That is its square, the share of the variance.", _JOINT, within=0.02),
    ],
    passes="0.5 = a_t / a_s, as forwards: the reverse SDE has the forward one's joint law. The "
    "probability-flow ODE has the same density at each time, and a correlation of 1.",
    question="A correlation is a number from −1 to 1.",
    hint=_JOINT,
    otherwise=lambda got: (f"{got:.4g} is not the forward SDE's correlation.", _JOINT),
)


# --- Denoising score matching --------------------------------------------------------------------

_SCORE = Given(
    "score", ["x"], lambda x: torch.sin(1.7 * x) - 0.6 * x.roll(1, 1) + 0.3 * x.square() - 0.2
)
_DSM = "The noised x̃ = x + sigma · noise has ∇ log p(x̃ | x) = −(x̃ − x) / sigma² = −noise / sigma."


def _loss_by(residual: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Half of a squared residual, summed over coordinates and averaged over the batch."""
    return lambda score, x, sigma, noise: (
        0.5 * residual(score, x, sigma, noise).square().sum(1).mean()
    )


def _draw_noised(generator: torch.Generator) -> list[tuple]:
    return [
        (
            _SCORE,
            randn(n, d, generator=generator),
            0.3 + 1.2 * torch.rand(d, generator=generator),
            randn(n, d, generator=generator),
        )
        for n, d in ((7, 3), (4, 4), (5, 2))
    ]


# fmt: off
_DSM_WRONG = [
    Wrong(_loss_by(lambda s, x, sig, n: s(x + sig * n) - n / sig),
          "You match the score with the noise itself: its sign is wrong.", _DSM),
    Wrong(_loss_by(lambda s, x, sig, n: s(x + sig * n) + n),
          "You match the score with −noise, without sigma.", _DSM),
    Wrong(_loss_by(lambda s, x, sig, n: s(x + sig * n) + n / sig**2),
          "You divide the noise by sigma²: x̃ − x is sigma · noise already.", _DSM),
    Wrong(_loss_by(lambda s, x, sig, n: s(x + sig * n) + sig * n),
          "You multiply by sigma where you must divide.", _DSM),
    Wrong(_loss_by(lambda s, x, sig, n: s(x) + n / sig), "You ask for the score of the clean x.",
          "The network sees x + sigma · noise."),
    Wrong(_loss_by(lambda s, x, sig, n: s(x + n) + n / sig), "You noise x without sigma.",
          "The network sees x + sigma · noise."),
    Wrong(_loss_by(lambda s, x, sig, n: s(x + sig * n) + n / sig.mean()),
          "You take one sigma for all coordinates.", "Each has its own: `noise / sigma`."),
    Wrong(_loss_by(lambda s, x, sig, n: sig * s(x + sig * n) + n),
          "You weight each coordinate by sigma².",
          "A good weighting, but not the one asked for here."),
    Wrong(lambda s, x, sig, n: 0.5 * (s(x + sig * n) + n / sig).square().mean(),
          "You take the mean over coordinates, too.", "Sum over them; the mean is over the batch."),
    Wrong(lambda s, x, sig, n: 0.5 * (s(x + sig * n) + n / sig).square().sum(),
          "You sum over the batch.", "Sum over coordinates; the mean is over the batch."),
    Wrong(lambda s, x, sig, n: 0.5 * (s(x + sig * n) + n / sig).square().sum(1).sqrt().mean(),
          "You take the length of the error, not its square.", ""),
    usual("double", "The ½ is missing."),
]
# fmt: on

formula(
    "08.denoising_loss",
    task="Write `denoising_loss`: denoising score matching where each coordinate of x [B, D] "
    "gets noise of its own size, sigma [D]: ½ of the squared error, summed over D, "
    "its mean over B.",
    signature="denoising_loss(score, x, sigma, noise) -> loss",
    solution=denoising_score_matching,
    hints=[
        "The network is shown x + sigma · noise.",
        "Its target is the gradient of the log-density of what was shown, given x: a Gaussian's.",
        "½ ‖score(x + sigma · noise) + noise / sigma‖², averaged over the batch.",
    ],
    right=_loss_by(lambda s, x, sig, n: s(x + sig * n) + n / sig),
    inputs=_draw_noised,
    result="loss",
    axes="_, [B, D], [D], [B, D] -> []",
    wrong=_DSM_WRONG,
    hint=_DSM,
    otherwise=("Your loss is not that of denoising score matching.", _DSM),
    passes="Your loss has its least value at the score of the data blurred by that very noise, as "
    "much along each axis as sigma says.",
)


# --- Implicit score matching by hand -------------------------------------------------------------

_LINEAR = "The loss is ½ tr(A C A) − tr A with C = mean of x xᵀ: its derivative A C − 1 vanishes."


def _second_moment(x: Tensor) -> Tensor:
    return x.T @ x / len(x)


def _linear_score(x: Tensor) -> Tensor:
    return torch.linalg.inv(_second_moment(x.double())).float()


def _draw_data(generator: torch.Generator) -> list[tuple]:
    cases = []
    for n, d in ((40, 2), (60, 3), (50, 4)):
        # Turned scales, not any matrix: one that is nearly singular has no inverse in float32.
        rotation, _ = torch.linalg.qr(randn(d, d, generator=generator))
        scales = torch.linspace(0.6, 1.4, d)
        cases.append((randn(n, d, generator=generator) * scales @ rotation + 0.7,))
    return cases


# fmt: off
_LINEAR_WRONG = [
    Wrong(lambda x: _second_moment(x), "Your A is the matrix of second moments itself: invert it.",
          _LINEAR),
    Wrong(lambda x: torch.linalg.inv(torch.cov(x.T)),
          "You subtract the mean: a score −A x has none.",
          "Without a constant term only second moments about 0 enter."),
    Wrong(lambda x: torch.linalg.inv(torch.cov(x.T, correction=0)),
          "You subtract the mean: a score −A x has none.",
          "Without a constant term only second moments about 0 enter."),
    Wrong(lambda x: torch.linalg.inv(x.T @ x),
          "Your C is a sum over the examples, not their mean.", _LINEAR),
    Wrong(lambda x: torch.diag(1 / x.square().mean(0)), "You treat the coordinates as independent.",
          "A is a full matrix: C holds the mean of x_i x_j."),
    Wrong(lambda x: torch.linalg.inv(torch.linalg.cholesky(_second_moment(x))),
          "You invert a root of C.", _LINEAR),
    Wrong(lambda x: torch.eye(x.shape[1]) / x.square().mean(),
          "You take one variance for all directions.", _LINEAR),
    usual("sign", "Your A has the wrong sign: the score would lead away from the data."),
    usual("double", "Your A is twice as large: mind the ½ of the loss."),
    usual("half", "Your A is half as large: mind the ½ of the loss."),
]
# fmt: on

formula(
    "08.linear_score",
    task="Derive, and write `linear_score`: the matrix A [D, D] for which the score −A x minimises "
    "implicit score matching, the mean of ½ ‖score‖² + ∇·score, on data x [N, D].",
    signature="linear_score(x) -> A",
    solution=implicit_score_matching,
    hints=[
        "The divergence of −A x is −tr A.",
        "The mean of ½ ‖A x‖² is ½ tr(Aᵀ A C) with C the mean of x xᵀ.",
        "The derivative by A is A C − 1. Which A makes it zero?",
    ],
    right=_linear_score,
    inputs=_draw_data,
    result="A",
    axes="[N, D] -> [D, D]",
    tolerance=1e-3,
    wrong=_LINEAR_WRONG,
    hint=_LINEAR,
    otherwise=("Your A does not minimise the loss.", _LINEAR),
    passes="Your A is the inverse of the second moments: for centred data that is the Gaussian "
    "with their covariance, found without a normalising constant and without knowing a density.",
)


# --- The bias of Langevin ------------------------------------------------------------------------

_STATIONARY = (
    "A step is x' = (1 − h/σ²) x + √(2 h) noise. Where it stands still V = (1 − h/σ²)² V + 2 h."
)


def _stationary(h: Tensor, variance: Tensor) -> Tensor:
    return variance / (1 - h / (2 * variance))


# fmt: off
_LANGEVIN_WRONG = [
    Wrong(lambda h, v: v, "That is the law it has for h → 0: find the bias.", _STATIONARY),
    Wrong(lambda h, v: v / (1 - h / v), "Your bias is twice as large as it is.", _STATIONARY),
    Wrong(lambda h, v: v / (1 + h / (2 * v)), "Your bias has the wrong sign.",
          "Large steps overshoot: the variance grows."),
    Wrong(lambda h, v: v + h / 2, "That is the first order in h only.",
          "The equation can be solved exactly. " + _STATIONARY),
    Wrong(lambda h, v: v / (1 - h / 2), "You forget that the score of N(0, σ²) is −x / σ².",
          _STATIONARY),
    Wrong(lambda h, v: v / (2 - h / v), "Your noise is √h: it is √(2 h).", _STATIONARY),
    Wrong(lambda h, v: 2 * h / (1 - (1 - h / v)), "You forget the square of 1 − h / σ².",
          "Multiplying by it multiplies a variance by its square."),
    Wrong(lambda h, v: (v / (1 - h / (2 * v))).sqrt(), "That is the standard deviation.", ""),
    Wrong(lambda h, v: v / (1 - h / (4 * v)), "Your steps are half as long.",
          "In x' = x + h score + √(2 h) noise the score is multiplied by h."),
]
# fmt: on

formula(
    "08.langevin_variance",
    task="Derive, and write `langevin_variance`: the variance [B] at which Langevin steps of size "
    "h [B] stand still when the density is N(0, σ²), with variance = σ² and h below 2 σ².",
    signature="langevin_variance(h, variance) -> [B]",
    solution=langevin_step,
    hints=[
        "Put the score −x / variance into x + h · score + √(2 h) · noise.",
        "The variance after a step is (1 − h / σ²)² times that before, and 2 h more.",
        "V (1 − (1 − h / σ²)²) = 2 h: solve for V.",
    ],
    right=_stationary,
    inputs=lambda generator: [
        (v * (0.2 + 1.3 * torch.rand(7, generator=generator)), v)
        for v in (0.4 + 2 * torch.rand(7, generator=generator) for _ in range(2))
    ],
    axes="[B], [B] -> [B]",
    tolerance=1e-3,
    wrong=_LANGEVIN_WRONG,
    hint=_STATIONARY,
    otherwise=("Your variance changes in the next step.", _STATIONARY),
    passes="With your variance a step changes nothing. It is too large by about h / 2, and "
    "infinite at h = 2 σ², where every step overshoots as far as it came.",
)


# --- The root forgotten --------------------------------------------------------------------------

_COUNTS = (10, 100, 1000)


def _walk(step: Callable[..., Any], n: int, generator: torch.Generator) -> Tensor:
    """4,000 ways of dx = −x dt + √2 dw from x = 3, for a time of 3, in ``n`` steps."""
    x = torch.full((4000,), 3.0)
    for _ in range(n):
        noise = torch.randn(4000, generator=generator)
        x = take_tensor("x", step(x, -1.0, math.sqrt(2), 3 / n, noise), x.shape)
    return x


@exercise(
    "08.break_the_root",
    task="Break it: write `bad_step`, a step of dx = f x dt + g dw that still makes noise with 10 "
    "steps, and whose noise dies out as the steps become many. Which power of dt did you write?",
    signature="bad_step(x, f, g, dt, noise) -> x",
    solution=sde_step,
    hints=[
        "Independent noises add as variances. What is the variance of n steps with c · noise each?",
        "n = T / dt of them: c² T / dt. For which c does it not depend on dt, and for which does "
        "it go to 0?",
        "Write dt where √dt belongs.",
    ],
)
def _check_break_the_root(attempt: Attempt, generator: torch.Generator) -> str:
    ends = {n: _walk(attempt, n, generator) for n in _COUNTS}
    if any(not x.isfinite().all() for x in ends.values()):
        raise Mistake(
            "Your x grows beyond all bounds.",
            "Leave the drift as it is, and break the noise alone.",
        )
    spread = {n: x.var().item() for n, x in ends.items()}
    told = ", ".join(f"{spread[n]:.3f} with {n:,}" for n in _COUNTS)
    mean = ends[1000].mean().item()
    if spread[1000] > 0.9:
        raise Mistake(
            f"Not broken: the variance is {told} steps, and the exact one {1 - math.exp(-6):.3f}.",
            "Which power of dt makes n steps of noise vanish as n grows?",
        )
    if abs(mean - 3 * math.exp(-3)) > 0.1:
        raise Mistake(
            f"With 1,000 steps the mean is {mean:.2f}; the drift leads from 3 to "
            f"{3 * math.exp(-3):.2f}.",
            "Leave the drift as it is, and break the noise alone.",
        )
    if spread[1000] > 0.05:
        raise Mistake(
            f"The noise does not die out: the variance is {told} steps.",
            "It has to fall in proportion to dt, or faster.",
        )
    if spread[10] < 0.1:
        raise Mistake(
            f"That does not look fine with 10 steps: the variance is {told} steps.",
            "Keep a power of dt with the noise, but the wrong one.",
        )
    return (
        f"Broken: the variance is {told} steps, where the SDE has {1 - math.exp(-6):.3f}. Each "
        "step adds a variance in proportion to dt², and there are 1 / dt of them. That is why an "
        "ODE's dt is no mistake for its drift and one for its noise."
    )
