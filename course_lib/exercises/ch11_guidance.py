"""Exercises of chapter 11: two conventions, both ways of guidance, what it is not, the clip."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.diffusion import (
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Denoiser,
    NoisedClassifier,
    convert,
    guide,
    per_example,
)
from course_lib.exercises.attempt import Attempt, Mistake, same, take_tensor
from course_lib.exercises.draws import between, randn
from course_lib.exercises.formula import Wrong, formula
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise
from course_lib.experiments import guided_pixels, tilted_variance

__all__: list[str] = []

_SHAPES = ((7,), (6, 6), (4, 3, 5), (3, 2, 4, 4))


# --- Two conventions -----------------------------------------------------------------------------

_CONVENTIONS = (
    "Ho & Salimans: (1 + w) eps(y) − w eps(null). Here: eps(null) + scale (eps(y) − eps(null)). "
    "Compare what stands before eps(y)."
)

prediction(
    "11.predict_scale",
    task="Predict: a paper writes (1 + w) eps(y) − w eps(null), as Ho & Salimans do, and has its "
    "best images at w = 0.5. Somebody passes 0.5 to this course's `ClassifierFreeGuidance`, as "
    "its scale. At which w of the paper were the images drawn?",
    solution=[guide, ClassifierFreeGuidance],
    hints=[
        "Write both as a number times eps(y) and another times eps(null).",
        "eps(y) gets 1 + w there, and scale here.",
        "1 + w = 0.5.",
    ],
    right=-0.5,
    within=1e-6,
    wrong=[
        Slip(0.5, "The same number means another thing in the two conventions.", within=1e-6),
        Slip(
            1.5,
            "The other way round: 1.5 is the scale that would have drawn the paper's images.",
            within=1e-6,
        ),
        Slip(-1.5, "At w = −1.5 eps(y) is weighted with −0.5.", within=1e-6),
        Slip(-1, "w = −1 leaves the label out: that is scale 0.", within=1e-6),
        Slip(0, "w = 0 is the conditional model: that is scale 1.", within=1e-6),
        Slip(1, "w = 1 is scale 2.", within=1e-6),
    ],
    passes="−0.5: half of what the label says is left out, where half should have been added. "
    "0 is the conditional model for Ho & Salimans and the unconditional one here, 1 is guidance "
    "for them and the conditional model here: w = scale − 1. Ask of every number which it is.",
    question="A value of w is asked for, a number.",
    hint=_CONVENTIONS,
    otherwise=lambda got: (
        f"At w = {got:.4g} eps(y) would be weighted with {1 + got:.4g}.",
        _CONVENTIONS,
    ),
)


# --- Guidance of velocities ----------------------------------------------------------------------

_WEIGHTS = "Translate first, then weigh: 1 + w for the velocity with the label, −w for the other."
_TRANSLATE = (
    "x_0 = (x_t − t eps) / (1 − t) goes into v = eps − x_0: what is the velocity in x_t and eps?"
)


def _on_the_line(eps: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The velocity eps − x_0 of the straight path, of x_t and eps."""
    return (eps - x_t) / (1 - t)


def _by_weights(
    weights: Callable[[Tensor], tuple[Any, Any]],
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor] = _on_the_line,
) -> Callable[..., Tensor]:
    """An answer by what both velocities are multiplied with, of each example's w."""

    def answer(v_null: Tensor, eps_label: Tensor, x_t: Tensor, t: Tensor, w: Tensor) -> Tensor:
        null, label = weights(per_example(w, v_null))
        return null * v_null + label * velocity(eps_label, x_t, per_example(t, v_null))

    return answer


def _right_weights(w: Tensor) -> tuple[Tensor, Tensor]:
    return -w, 1 + w


# fmt: off
_VELOCITY_WRONG = [
    Wrong(_by_weights(_right_weights, lambda eps, x_t, t: eps), "You mix a velocity with an eps.",
          _TRANSLATE),
    Wrong(_by_weights(_right_weights, lambda eps, x_t, t: x_t - eps * t), "Your second network's "
          "part is (1 − t) x_0, no velocity.", _TRANSLATE),
    Wrong(_by_weights(_right_weights, lambda eps, x_t, t: (x_t - t * eps) / (1 - t)), "Your second "
          "network's part is its guess of x_0, no velocity.", _TRANSLATE),
    Wrong(_by_weights(_right_weights, lambda eps, x_t, t: eps - x_t), "eps − x_t is not the "
          "velocity: x_t is not x_0.", _TRANSLATE),
    Wrong(_by_weights(_right_weights, lambda eps, x_t, t: (eps - x_t) / t), "You divide by t: "
          "x_t − eps is (1 − t) times x_0 − eps.", _TRANSLATE),
    Wrong(_by_weights(_right_weights, lambda eps, x_t, t: (x_t - eps) / (1 - t)), "Your second "
          "velocity points from the noise to the data: it is eps − x_0.", _TRANSLATE),
    Wrong(_by_weights(_right_weights, lambda eps, x_t, t: _on_the_line(eps, x_t, t.mean())),
          "All examples get the mean of t.", "Each has its own: give t as many axes as v has."),
    Wrong(_by_weights(lambda w: (1 - w, w)), "That is this course's convention, in which w = 0 "
          "leaves the label out.",
          "For Ho & Salimans w = 0 is the conditional model, and −1 leaves the label out."),
    Wrong(_by_weights(lambda w: (1 + w, -w)), "Label and null change places: you walk away from "
          "the label.", _WEIGHTS),
    Wrong(_by_weights(lambda w: (w, 1 + w)), "You add what without a label is said.",
          "Guidance goes away from it: − w."),
    Wrong(_by_weights(lambda w: (-w, w)), "One velocity is missing: only the difference is left.",
          _WEIGHTS),
    Wrong(_by_weights(lambda w: (-1 - w, 1 + w)), "That is 1 + w times the difference: begin at "
          "v_null.", _WEIGHTS),
    Wrong(_by_weights(lambda w: (-w, 1)), "Your weights don't sum to 1: the label's is 1 + w.",
          "At equal velocities guidance must change nothing."),
    Wrong(_by_weights(lambda w: (-1, 1 + w)), "Your weights don't sum to 1: the null's is −w.",
          "At equal velocities guidance must change nothing."),
    Wrong(_by_weights(lambda w: (-w / (1 + w), 1)), "You divide by 1 + w.", _WEIGHTS),
    Wrong(_by_weights(lambda w: (-w.mean(), 1 + w.mean())), "All examples get the mean of w.",
          "Each has its own: give w as many axes as v has."),
    Wrong(_by_weights(lambda w: (-w[:1], 1 + w[:1])), "All examples get the first one's w.",
          "Each has its own: give w as many axes as v has."),
    Wrong(lambda n, eps, x, t, w: (1 + w) * (eps - x) / (1 - t) - w * n, "Your t and w run along "
          "the last axis.",
          "They belong to axis 0: `w.reshape(-1, 1, ...)`, with as many axes as v has."),
]
# fmt: on

formula(
    "11.guided_velocity",
    task="Write `guided_velocity`: on the straight path x_t = (1 − t) x_0 + t eps one network says "
    "a velocity without the label, [B, *event], another one eps with it. Guide as Ho & Salimans "
    "do, who write (1 + w) eps(y) − w eps(null); each example has its own t and w, [B]. Which of "
    "the two steps needs the path?",
    signature="guided_velocity(v_null, eps_label, x_t, t, w) -> v",
    solution=[convert, guide],
    hints=[
        "Only the same kind can be mixed. Which velocity belongs to eps at x_t?",
        "The velocity is eps − x_0, and x_0 = (x_t − t eps) / (1 − t).",
        "So v_label = (eps_label − x_t) / (1 − t). Then (1 + w) v_label − w v_null; t and w need "
        "the axes of v: `w.reshape(-1, *[1] * (v_null.ndim - 1))`.",
    ],
    right=_by_weights(_right_weights),
    inputs=lambda generator: [
        (
            *(randn(*shape, generator=generator) for _ in range(3)),
            0.2 + 0.6 * torch.rand(shape[0], generator=generator),
            3 * torch.rand(shape[0], generator=generator) + 0.3,
        )
        for shape in _SHAPES
    ],
    result="v",
    axes="[B, *event], [B, *event], [B, *event], [B], [B] -> [B, *event]",
    wrong=_VELOCITY_WRONG,
    otherwise=("Your v is not the guided velocity.", _TRANSLATE),
    passes="Your v is that of the guided score. The path was needed to translate eps into a "
    "velocity, and not to mix: both predictions are p x_t + q eps with the same p and q, and 1 + w "
    "and −w sum to 1, so what depends on x_t alone stays.",
)


# --- A classifier moves the guess ----------------------------------------------------------------

_MOVE = (
    "The chain rule gives the gradient by x_t, the score grows by scale times that, and the guess "
    "is x_0 = (x_t + b² score) / a."
)


def _moved(factor: Callable[[float, float, float], float]) -> Callable[..., Tensor]:
    """An answer x_0 + factor · gradient, by a formula of a, b and the scale."""
    return lambda x_0, gradient, a, b, scale: x_0 + factor(a, b, scale) * gradient


def _seen(a: float, b: float) -> float:
    """By what x_t is divided for the classifier."""
    return (a**2 + b**2) ** 0.5


# fmt: off
_GUESS_WRONG = [
    Wrong(_moved(lambda a, b, s: s * b**2 / a), "That is the factor for a gradient by x_t: yours "
          "is by what the classifier sees.", _MOVE),
    Wrong(_moved(lambda a, b, s: s * b**2 / a * _seen(a, b)), "The inner derivative is upside "
          "down: the classifier sees x_t divided by sqrt(a² + b²).", _MOVE),
    Wrong(_moved(lambda a, b, s: s * b**2 / a / _seen(a, b)**2), "You divide by a² + b²; it is the "
          "root of it.", _MOVE),
    Wrong(_moved(lambda a, b, s: s / _seen(a, b)), "You add to x_0 what belongs to the score.",
          _MOVE),
    Wrong(_moved(lambda a, b, s: s * b / a / _seen(a, b)), "You have b where the noise's variance "
          "belongs, b².", _MOVE),
    Wrong(_moved(lambda a, b, s: -s * b / _seen(a, b)), "That is how the guess of eps moves.",
          "x_t stays: x_0 = (x_t − b eps) / a."),
    Wrong(_moved(lambda a, b, s: s * b**2 / _seen(a, b)), "You move a x_0; divide by a.", _MOVE),
    Wrong(_moved(lambda a, b, s: s * a * b**2 / _seen(a, b)), "You multiply by a where you must "
          "divide.", _MOVE),
    Wrong(_moved(lambda a, b, s: s * (b / a)**2 / _seen(a, b)), "Your factor is σ²: it is b² / a.",
          _MOVE),
    Wrong(_moved(lambda a, b, s: -s * b**2 / a / _seen(a, b)), "You walk away from the class.",
          "The score points uphill, and so does the gradient of log p(y | x_t)."),
    Wrong(_moved(lambda a, b, s: b**2 / a / _seen(a, b)), "You leave the scale out.", ""),
    Wrong(_moved(lambda a, b, s: (1 + s) * b**2 / a / _seen(a, b)), "You count the scale from the "
          "conditional model: here 0 is the model alone.", _MOVE),
    Wrong(lambda x, g, a, b, s: s * b**2 / a / _seen(a, b) * g, "You give the change of x_0, not "
          "x_0.", "Add x_0."),
]
# fmt: on

formula(
    "11.guided_guess",
    task="Derive, and write `guided_guess`: classifier guidance as a shift of the guess x_0 "
    "[B, *event]. The classifier sees x_t / sqrt(a² + b²), and `gradient`, like x_0, is that of "
    "log p(y | ·) by what it sees. a, b and scale are numbers; scale 0 is the model alone.",
    signature="guided_guess(x_0, gradient, a, b, scale) -> x_0",
    solution=[ClassifierGuidance, NoisedClassifier],
    hints=[
        "First the gradient by x_t: the chain rule divides by what x_t was divided by.",
        "The score grows by scale times that. x_t stays: by how much does (x_t + b² score) / a "
        "grow?",
        "x_0 + scale · b² / a · gradient / sqrt(a² + b²).",
    ],
    right=_moved(lambda a, b, s: s * b**2 / a / _seen(a, b)),
    inputs=lambda generator: [
        (
            *(randn(*shape, generator=generator) for _ in range(2)),
            between(0.3, 0.9, generator),
            between(1.2, 2.0, generator),
            between(1.5, 4.0, generator),
        )
        for shape in _SHAPES[:3]
    ],
    result="x_0",
    wrong=_GUESS_WRONG,
    hint=_MOVE,
    otherwise=("Your x_0 is not that of classifier guidance.", _MOVE),
    passes="Your guess moves by b² / a times the gradient by x_t: far where much is unknown, not "
    "at all where x_t shows x_0. A gradient by what a network sees is another one than by x_t, "
    "and autograd minds it only if you ask it for x_t.",
)


# --- The classifier inside a flow ----------------------------------------------------------------

_INSIDE = (
    "∇ log p(y | x_t) = score(y) − score, and a score is −eps / t. With x_t = (1 − t) x_0 + t eps "
    "and v = eps − x_0: eps = x_t + (1 − t) v."
)


def _difference(factor: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """An answer factor(t) · (v_null − v_label)."""
    return lambda v_null, v_label, t: factor(per_example(t, v_null)) * (v_null - v_label)


# fmt: off
_INSIDE_WRONG = [
    Wrong(_difference(lambda t: -(1 - t) / t), "Your gradient leads away from the class.",
          "The score is minus eps / t: what the label takes off eps, it adds to the gradient."),
    Wrong(_difference(lambda t: 1 / t), "You take velocities for guesses of eps.", _INSIDE),
    Wrong(_difference(lambda t: -1 / t), "You take velocities for scores of t.", _INSIDE),
    Wrong(_difference(lambda t: torch.ones_like(t)), "You give the velocities' difference itself.",
          _INSIDE),
    Wrong(_difference(lambda t: -torch.ones_like(t)), "You take velocities for scores.", _INSIDE),
    Wrong(_difference(lambda t: 1 - t), "That is the difference of the guesses of eps: a score is "
          "−eps / t.", _INSIDE),
    Wrong(_difference(lambda t: t / (1 - t)), "Your factor is upside down.", _INSIDE),
    Wrong(_difference(lambda t: (1 - t) / t**2), "You divide by the variance t²: eps is divided by "
          "t.", _INSIDE),
    Wrong(_difference(lambda t: t), "That is the difference of the guesses of x_0, not of eps.",
          _INSIDE),
    Wrong(lambda n, v, t: -(1 - per_example(t, v)) / per_example(t, v) * v,
          "You leave out the prediction without a label.", _INSIDE),
    Wrong(lambda n, v, t: (1 - t) / t * (n - v), "Your t runs along the last axis.",
          "t belongs to axis 0: give it as many axes as v has."),
]
# fmt: on

formula(
    "11.implicit_classifier",
    task="Derive, and write `implicit_classifier`: the gradient of log p(y | x_t) by x_t that a "
    "flow-matching model implies, from its velocities [B, *event] without and with the label, at "
    "times t [B] of the straight path x_t = (1 − t) x_0 + t eps, where v = eps − x_0.",
    signature="implicit_classifier(v_null, v_label, t) -> gradient",
    solution=[convert, ClassifierFreeGuidance],
    hints=[
        "By Bayes' rule it is the difference of two scores.",
        "Which score belongs to a velocity? Solve x_t = (1 − t) x_0 + t eps and v = eps − x_0 for "
        "eps; the score is −eps / t.",
        "eps = x_t + (1 − t) v: in the difference x_t is gone.",
    ],
    right=_difference(lambda t: (1 - t) / t),
    inputs=lambda generator: [
        (
            *(randn(*shape, generator=generator) for _ in range(2)),
            0.1 + 0.8 * torch.rand(shape[0], generator=generator),
        )
        for shape in _SHAPES
    ],
    result="gradient",
    axes="[B, *event], [B, *event], [B] -> [B, *event]",
    wrong=_INSIDE_WRONG,
    hint=_INSIDE,
    otherwise=("Your gradient is not the difference of the two scores.", _INSIDE),
    passes="Your gradient is that of the classifier inside the flow. Guidance itself needed no "
    "path; this does, since it is told by x_t. It vanishes at t = 1, where nothing shows.",
)


# --- A tilted Gaussian ---------------------------------------------------------------------------

_TILT = (
    "log of the product: (1 − w) log N(M, V) + w log N(m, v). Gather x² / 2, which gives the "
    "precision, and x."
)


def _precision(v: Tensor, V: Tensor, w: float) -> Tensor:
    return (1 - w) / V + w / v


def _pull(m: Tensor, v: Tensor, M: Tensor, V: Tensor, w: float) -> Tensor:
    return (1 - w) * M / V + w * m / v


def _tilted(m: Tensor, v: Tensor, M: Tensor, V: Tensor, w: float) -> tuple[Tensor, Tensor]:
    return _pull(m, v, M, V, w) / _precision(v, V, w), 1 / _precision(v, V, w)


def _draw_tilted(generator: torch.Generator) -> list[tuple]:
    cases = []
    for n, low, high in ((7, 1.5, 3.0), (4, 0.3, 0.7), (5, 2.0, 4.0)):
        m, M = (1.5 * randn(n, generator=generator) for _ in range(2))
        V = 0.6 + 2 * torch.rand(n, generator=generator)
        v = V * (0.3 + 0.4 * torch.rand(n, generator=generator))
        cases.append((m, v, M, V, between(low, high, generator)))
    return cases


# fmt: off
_TILTED_WRONG = [
    Wrong(lambda m, v, M, V, w: (M + w * (m - M), V + w * (v - V)),
          "You mix the means and variances: what adds up are precisions.", _TILT),
    Wrong(lambda m, v, M, V, w: (M + w * (m - M), 1 / _precision(v, V, w)),
          "You mix the means by w alone: each counts with its precision.", _TILT),
    Wrong(lambda m, v, M, V, w: (_tilted(m, v, M, V, w)[0], V + w * (v - V)),
          "You mix the variances: what adds up are precisions.", _TILT),
    Wrong(lambda m, v, M, V, w: (_tilted(m, v, M, V, w)[0], V**(1 - w) * v**w),
          "That is the variance where the guided ODE ends: it is not the tilted density.", _TILT),
    Wrong(lambda m, v, M, V, w: _tilted(m, v, M, V, 1 + w),
          "That is Ho & Salimans' convention: here w = 1 is p(x | y).", _TILT),
    Wrong(lambda m, v, M, V, w: ((M / V + w * m / v) / (1 / V + w / v), 1 / (1 / V + w / v)),
          "That is p(x) p(x | y)^w: you forget to divide by p(x)^w.", _TILT),
    Wrong(lambda m, v, M, V, w: (m.clone(), v / w), "That is p(x | y)^w.",
          "p(x) (p(x | y) / p(x))^w keeps a part of p(x): p(x)^(1 − w)."),
    Wrong(lambda m, v, M, V, w: _tilted(M, V, m, v, w), "The two densities change places.", _TILT),
    Wrong(lambda m, v, M, V, w: (_tilted(m, v, M, V, w)[0], _precision(v, V, w)),
          "You give the precision: the variance is one over it.", ""),
    Wrong(lambda m, v, M, V, w: (_tilted(m, v, M, V, w)[0], _precision(v, V, w)**-0.5),
          "You give the standard deviation.", "The variance is its square."),
    Wrong(lambda m, v, M, V, w: (_pull(m, v, M, V, w), 1 / _precision(v, V, w)),
          "What stands before x is mean / variance: multiply by the variance.", _TILT),
    Wrong(lambda m, v, M, V, w: (m.clone(), 1 / _precision(v, V, w)),
          "Your mean stays that of p(x | y), whatever w is.", "Beyond w = 1 it goes past m."),
]
# fmt: on

formula(
    "11.tilted_gaussian",
    task="Derive, and write `tilted_gaussian`: with p(x) = N(M, V) and p(x | y) = N(m, v), v < V, "
    "all [B], variances not deviations, and a number w above 0: mean and variance [B] of the "
    "density in proportion to p(x) (p(x | y) / p(x))^w.",
    signature="tilted_gaussian(m, v, M, V, w) -> mean, variance",
    solution=tilted_variance,
    hints=[
        "Take logarithms: everything is a parabola in x.",
        "−½ x² is multiplied by (1 − w) / V + w / v. What stands before x?",
        "The precision is (1 − w) / V + w / v, and mean · precision = (1 − w) M / V + w m / v.",
    ],
    right=_tilted,
    inputs=_draw_tilted,
    result=["mean", "variance"],
    axes="[B], [B], [B], [B], _ -> [B], [B]",
    tolerance=1e-3,
    wrong=_TILTED_WRONG,
    otherwise={
        "mean": ("Your mean is not that of the tilted density.", _TILT),
        "variance": ("Your variance is not that of the tilted density.", _TILT),
    },
    passes="Your Gaussian is the tilted one: its mean goes past m, but no farther than "
    "(m / v − M / V) / (1 / v − 1 / V), and it narrows like 1 / w. With w > 1 guided samples are "
    "narrower still: guidance mixes the scores of noised densities, and noise adds to variances.",
)


# --- Towards one, away from another --------------------------------------------------------------

_BOTH = (
    "Each log-probability of a class adds its own gradient to the score, and eps is −b times the "
    "score: eps_label − eps_null belongs to y, eps_negative − eps_null to n."
)


def _three(
    weights: Callable[[float, float], tuple[float, float, float]],
) -> Callable[..., Tensor]:
    """An answer by the weights of eps_null, eps_label, eps_negative."""

    def answer(null: Tensor, label: Tensor, negative: Tensor, scale: float, push: float) -> Tensor:
        of_null, of_label, of_negative = weights(scale, push)
        return of_null * null + of_label * label + of_negative * negative

    return answer


# fmt: off
_AWAY_WRONG = [
    Wrong(_three(lambda s, p: (0, s, 1 - s)), "You put the negative label in the null's place: "
          "push has no say.", _BOTH),
    Wrong(_three(lambda s, p: (1 - s - p, s, p)), "You walk towards the negative label, too.",
          "Dividing by its probability subtracts its gradient."),
    Wrong(_three(lambda s, p: (0, s, -p)), "You leave eps_null out: your weights don't sum to 1.",
          _BOTH),
    Wrong(_three(lambda s, p: (1, s, -p)), "You add whole predictions: what a label says is its "
          "difference from eps_null.", _BOTH),
    Wrong(_three(lambda s, p: (-s + p, s, -p)), "Only the two changes are left: begin at "
          "eps_null.", _BOTH),
    Wrong(_three(lambda s, p: (1, s, -s)), "You leave as strongly as you approach: push is for "
          "that.", _BOTH),
    Wrong(_three(lambda s, p: ((1 - s) * (1 + p), s * (1 + p), -p)), "You leave the negative label "
          "from where guidance has led, so that scale is multiplied by 1 + push.", _BOTH),
    Wrong(_three(lambda s, p: (p - s, 1 + s, -p)), "You count the scale from the conditional "
          "model: here 1 is p(y | x_t) as it is.", _BOTH),
    Wrong(_three(lambda s, p: (1 - p + s, p, -s)), "scale and push change places.", ""),
    Wrong(_three(lambda s, p: (1 + s - p, -s, p)), "You go towards n and away from y.", _BOTH),
    Wrong(_three(lambda s, p: (1 - s, s, 0)), "You leave the negative label out.", _BOTH),
    Wrong(_three(lambda s, p: (0, s + p, -s - p + 1)), "You add up scale and push; they belong to "
          "different labels.", _BOTH),
]
# fmt: on

formula(
    "11.away_from",
    task="Derive, and write `away_from`: eps, from three predictions [B, *event] (without a label, "
    "with the label y, with another label n), for the score of p(x_t) p(y | x_t)^scale / "
    "p(n | x_t)^push; two numbers.",
    signature="away_from(eps_null, eps_label, eps_negative, scale, push) -> eps",
    solution=[guide, ClassifierFreeGuidance],
    hints=[
        "Take the logarithm and the gradient: three terms, the last with a minus.",
        "∇ log p(y | x_t) is score(y) − score, and so on for n.",
        "eps_null + scale (eps_label − eps_null) − push (eps_negative − eps_null).",
    ],
    right=_three(lambda s, p: (1 - s + p, s, -p)),
    inputs=lambda generator: [
        (
            *(randn(*shape, generator=generator) for _ in range(3)),
            between(1.5, 4.0, generator),
            between(0.4, 1.3, generator),
        )
        for shape in _SHAPES[:3]
    ],
    result="eps",
    wrong=_AWAY_WRONG,
    hint=_BOTH,
    otherwise=("Your eps is not that of both conditions.", _BOTH),
    passes="Your eps approaches y and leaves n, each as strongly as you like, in one call of 3 B "
    "examples. With push = scale − 1 the null drops out: that is the negative in the null's place, "
    "at the price of two predictions.",
)


# --- Clipped in the wrong place ------------------------------------------------------------------


def _mix(x_null: Tensor, x_label: Tensor, scale: float) -> Tensor:
    return x_null + scale * (x_label - x_null)


def _clip_last(x_null: Tensor, x_label: Tensor, scale: float) -> Tensor:
    return _mix(x_null, x_label, scale).clamp(-1, 1)


def _check_at_the_ends(attempt: Attempt, x_null: Tensor, x_label: Tensor) -> None:
    """At scale 0 and 1 a guess is one of the two, clipped."""
    for scale, said, words in ((0.0, x_null, "without"), (1.0, x_label, "with")):
        got = take_tensor("x_0", attempt(x_null, x_label, scale), said.shape)
        if same(got, said) or got.abs().max() > 1 + 1e-4:
            outside = guided_pixels(_mix, 8.0).outside
            raise Mistake(
                f"Anybody sees that the clip is missing: at scale {scale:g} your guess is as large "
                f"as {got.abs().max():.2f}. (At scale 8 {outside:.0%} of the pixels then end "
                "outside [−1, 1].)",
                "Clip, but where it does not help.",
            )
        if not same(got, said.clamp(-1, 1)):
            raise Mistake(
                f"At scale {scale:g} your guess is not the one {words} the label, clipped.",
                "Break the place of the clip alone: x_null + scale (x_label − x_null).",
            )


@exercise(
    "11.break_the_clip",
    task="Break it: the guess of x_0 is guided at scale 8, x_null + scale (x_label − x_null), and "
    "pixels belong into [−1, 1]. Write `bad_clip`, which clips and looks right at scale 0 and 1, "
    "but in such a place that at scale 8 the guess leaves [−1, 1] and most pixels burn out.",
    signature="bad_clip(x_null, x_label, scale) -> x_0",
    solution=[guided_pixels, Denoiser.predict_x0],
    hints=[
        "Everything the network says is in [−1, 1] once it is clipped. And what is made of it?",
        "Of two numbers in [−1, 1] guidance at scale 8 makes one of up to 15.",
        "Clip x_null and x_label, and guide then.",
    ],
)
def _check_break_the_clip(attempt: Attempt, generator: torch.Generator) -> str:
    x_null, x_label = (1.5 * randn(50, 3, generator=generator) for _ in range(2))
    _check_at_the_ends(attempt, x_null, x_label)
    small, large = x_null / 100, x_label / 100
    if not same(take_tensor("x_0", attempt(small, large, 8.0), small.shape), _mix(small, large, 8)):
        raise Mistake(
            "Where nothing has to be clipped, your guess is not guided.",
            "Break the place of the clip alone: x_null + scale (x_label − x_null).",
        )

    def guess(x_null: Tensor, x_label: Tensor, scale: float) -> Tensor:
        return take_tensor("x_0", attempt(x_null, x_label, scale), x_null.shape)

    mild, strong, right = (
        guided_pixels(g, scale) for g, scale in ((guess, 1.0), (guess, 8.0), (_clip_last, 8.0))
    )
    if strong.largest < 1 + 1e-4:
        raise Mistake(
            f"Not broken: at scale 8 no guess leaves [−1, 1], and {strong.burnt:.0%} of the pixels "
            "come out burnt.",
            "The last thing that happens must not be the clip.",
        )
    if strong.burnt < 0.5:
        raise Mistake(
            f"At scale 8 your guess gets as large as {strong.largest:.1f}, but only "
            f"{strong.burnt:.0%} of the pixels come out burnt.",
            "Clip what the network says, and nothing after that.",
        )
    return (
        f"Broken: at scale 8 guesses are as large as {strong.largest:.1f}, and {strong.burnt:.0%} "
        f"of the pixels come out at 0.99 or more, where {right.burnt:.0%} do with the clip behind "
        f"guidance, and {mild.burnt:.0%} at scale 1. Two guesses inside [−1, 1] don't make a "
        "guided one inside: it is an extrapolation."
    )
