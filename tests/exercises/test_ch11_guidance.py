"""Chapter 11: right answers, written differently, pass; known mistakes are named."""

import numpy as np
import torch

from course_lib.diffusion import (
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Denoiser,
    EDMPath,
    IdealDenoiser,
    StraightPath,
    VPPath,
    convert,
    guide,
    per_example,
)
from course_lib.exercises.formula import declared
from course_lib.experiments import tilted_variance
from tests.exercises.laws import ExerciseLaws, is_prediction

# --- predict_scale -------------------------------------------------------------------------------

SCALE_RIGHT = [-0.5, 0.5 - 1, np.float32(-0.5), torch.tensor(-0.5)]
SCALE_WRONG = {"far": (3.0, "At w = 3 eps(y) would be weighted with 4.")}

# --- guided_velocity -----------------------------------------------------------------------------


def guided_velocity(v_null, eps_label, x_t, t, w):
    t, w = (part.reshape(-1, *[1] * (v_null.ndim - 1)) for part in (t, w))
    x_0 = (x_t - t * eps_label) / (1 - t)
    return (1 + w) * (eps_label - x_0) - w * v_null


def example_by_example(v_null, eps_label, x_t, t, w):
    rows = zip(v_null, eps_label, x_t, t.tolist(), w.tolist(), strict=True)
    return torch.stack(
        [guide(null, (eps - x) / (1 - time), number + 1) for null, eps, x, time, number in rows]
    )


def by_scores(v_null, eps_label, x_t, t, w):
    """By way of the score: the guided score as a velocity."""
    words = {"x_t": x_t, "t": t, "path": StraightPath()}
    null = convert(v_null, source="velocity", target="score", **words)
    label = convert(eps_label, source="eps", target="score", **words)
    score = label + per_example(w, x_t) * (label - null)
    return convert(score, source="score", target="velocity", **words)


VELOCITY_RIGHT = [guided_velocity, example_by_example, by_scores]
VELOCITY_WRONG = {
    "zeros": (lambda null, *rest: torch.zeros_like(null), "Your v is not the guided velocity"),
    "without": (lambda null, *rest: null.clone(), "Your v is not the guided velocity"),
}

# --- guided_guess --------------------------------------------------------------------------------


def guided_guess(x_0, gradient, a, b, scale):
    by_x_t = gradient / (a**2 + b**2) ** 0.5
    return x_0 + scale * b**2 / a * by_x_t


def by_the_score(x_0, gradient, a, b, scale):
    x_t = torch.ones_like(x_0)  # any
    score = (a * x_0 - x_t) / b**2
    guided = score + scale * gradient / (a * a + b * b) ** 0.5
    return (x_t + b**2 * guided) / a


GUESS_RIGHT = [guided_guess, by_the_score]
GUESS_WRONG = {
    "unchanged": (lambda x_0, *rest: x_0.clone(), "not that of classifier guidance"),
    "the gradient": (lambda x_0, g, a, b, scale: x_0 + g, "not that of classifier guidance"),
}

# --- implicit_classifier -------------------------------------------------------------------------


def implicit_classifier(v_null, v_label, t):
    t = t.reshape(-1, *[1] * (v_null.ndim - 1))
    return (1 - t) * (v_null - v_label) / t


def difference_of_scores(v_null, v_label, t):
    x_t = torch.ones_like(v_null)  # any
    null, label = (
        convert(v, source="velocity", target="score", x_t=x_t, t=t, path=StraightPath())
        for v in (v_null, v_label)
    )
    return label - null


INSIDE_RIGHT = [implicit_classifier, difference_of_scores]
INSIDE_WRONG = {
    "zeros": (lambda null, label, t: torch.zeros_like(null), "not the difference of the two"),
    "sum": (lambda null, label, t: null + label, "not the difference of the two"),
}

# --- tilted_gaussian -----------------------------------------------------------------------------


def tilted_gaussian(m, v, M, V, w):
    variance = 1 / ((1 - w) / V + w / v)
    return variance * ((1 - w) * M / V + w * m / v), variance


def by_derivatives(m, v, M, V, w):
    """A Gaussian's log-density is a parabola: its slope at 0 and its curvature say all."""

    def log_density(x):
        wide = torch.distributions.Normal(M, V.sqrt()).log_prob(x)
        narrow = torch.distributions.Normal(m, v.sqrt()).log_prob(x)
        return wide + w * (narrow - wide)

    x = torch.zeros_like(m, requires_grad=True)
    slope = torch.autograd.grad(log_density(x).sum(), x, create_graph=True)[0]
    variance = -1 / torch.autograd.grad(slope.sum(), x)[0]
    return (slope * variance).detach(), variance


def on_a_grid(m, v, M, V, w):
    x = torch.linspace(-60, 60, 6001, dtype=torch.float64)[:, None]
    log_p, log_py = (-((x - a) ** 2) / (2 * s) - s.log() / 2 for a, s in ((M, V), (m, v)))
    share = torch.softmax(log_p + w * (log_py - log_p), dim=0)
    mean = (share * x).sum(0)
    return mean.float(), (share * (x - mean) ** 2).sum(0).float()


TILTED_RIGHT = [tilted_gaussian, by_derivatives, on_a_grid]
TILTED_WRONG = {
    "marginal": (lambda m, v, M, V, w: (M, tilted_gaussian(m, v, M, V, w)[1]), "Your mean is not"),
    "conditional": (
        lambda m, v, M, V, w: (tilted_gaussian(m, v, M, V, w)[0], v),
        "Your variance is not that of the tilted density",
    ),
}

# --- away_from -----------------------------------------------------------------------------------


def away_from(eps_null, eps_label, eps_negative, scale, push):
    return eps_null + scale * (eps_label - eps_null) - push * (eps_negative - eps_null)


def by_three_scores(eps_null, eps_label, eps_negative, scale, push):
    null, label, negative = (-eps / 0.7 for eps in (eps_null, eps_label, eps_negative))
    return -0.7 * (null + scale * (label - null) - push * (negative - null))


def guided_twice(eps_null, eps_label, eps_negative, scale, push):
    """Guidance by y, then past it, away from n as seen without a label."""
    left = guide(eps_null, eps_negative, -push)
    return guide(eps_null, eps_label, scale) + left - eps_null


AWAY_RIGHT = [away_from, by_three_scores, guided_twice]
AWAY_WRONG = {
    "null": (lambda null, *rest: null.clone(), "Your eps is not that of both conditions"),
    "plain": (lambda null, label, *rest: label.clone(), "Your eps is not that of both conditions"),
}

# --- break_the_clip ------------------------------------------------------------------------------


def clipped_before(x_null, x_label, scale):
    x_null, x_label = x_null.clamp(-1, 1), x_label.clamp(-1, 1)
    return x_null + scale * (x_label - x_null)


def clipped_in_place(x_null, x_label, scale):
    both = torch.stack([x_null, x_label]).clip_(-1, 1)
    return both[0].lerp(both[1], scale)


def no_clip(x_null, x_label, scale):
    return x_null + scale * (x_label - x_null)


CLIP_RIGHT = [clipped_before, clipped_in_place]
CLIP_WRONG = {
    "no clip": (no_clip, "Anybody sees that the clip is missing"),
    "last": (lambda n, v, s: no_clip(n, v, s).clamp(-1, 1), "Not broken: at scale 8 no guess"),
    "no label": (lambda n, v, s: n.clamp(-1, 1), "not the one with the label, clipped"),
    "conditional": (lambda n, v, s: v.clamp(-1, 1), "not the one without the label, clipped"),
    "only at 0 and 1": (
        lambda n, v, s: no_clip(n, v, s).clamp(-1, 1) if s <= 1 else (1 - s) * n + v,
        "Where nothing has to be clipped",
    ),
    "a wide clip": (
        lambda n, v, s: clipped_before(n, v, s).clamp(
            -1 - s * (s > 1) / 100, 1 + s * (s > 1) / 100
        ),
        "of the pixels come out burnt",
    ),
    "shape": (lambda n, v, s: clipped_before(n, v, s)[0], "shape"),
}


ALL = {
    "11.predict_scale": (SCALE_RIGHT, SCALE_WRONG),
    "11.guided_velocity": (VELOCITY_RIGHT, VELOCITY_WRONG),
    "11.guided_guess": (GUESS_RIGHT, GUESS_WRONG),
    "11.implicit_classifier": (INSIDE_RIGHT, INSIDE_WRONG),
    "11.tilted_gaussian": (TILTED_RIGHT, TILTED_WRONG),
    "11.away_from": (AWAY_RIGHT, AWAY_WRONG),
    "11.break_the_clip": (CLIP_RIGHT, CLIP_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "11"
    cases = ALL

    def times(self, name, answer):
        return 1 if is_prediction(name) or name == "11.break_the_clip" else 8


# --- What the exercises call right, against exact models -----------------------------------------

CENTRES = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, 2.0]], dtype=torch.float64)


def ideal(path):
    net = IdealDenoiser(CENTRES, path, std=0.4, labels=torch.tensor([0, 1, 2]))
    return Denoiser(net, path).double()


def right(name):
    return declared("11")[f"11.{name}"].right


def points(n=9):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 2, generator=generator, dtype=torch.float64), torch.arange(n) % 3


def gradient_of_the_class(net, x, t, y):
    x = x.detach().requires_grad_()
    times = torch.full((len(x),), t, dtype=torch.float64)
    log_prob = net.logits(x, times).log_softmax(1)[torch.arange(len(x)), y]
    return torch.autograd.grad(log_prob.sum(), x)[0]


def test_the_classifier_inside_a_flow_is_the_mixture_s():
    (x, y), model, t = points(), ideal(StraightPath()), 0.3
    null, label = (model.predict(x, t, target="velocity", y=labels) for labels in (None, y))
    got = right("implicit_classifier")(null, label, torch.full((len(x),), t, dtype=torch.float64))
    torch.testing.assert_close(got, gradient_of_the_class(model.net, x, t, y), rtol=1e-6, atol=1e-6)


def test_guided_guesses_and_velocities_are_those_of_the_library():
    (x, y), path, t = points(), VPPath(), 0.4
    model = ideal(path)
    a, b = (part[0].item() for part in path.amounts(t, x))
    by_x = gradient_of_the_class(model.net, x, t, y)
    guess = right("guided_guess")(model.predict_x0(x, t), by_x * (a**2 + b**2) ** 0.5, a, b, 2.5)
    led = ClassifierGuidance(model, model.net.logits, 2.5)
    torch.testing.assert_close(guess, led.predict_x0(x, t, y=y), rtol=1e-6, atol=1e-6)
    line = ideal(StraightPath())
    null, label = line.predict(x, t, target="velocity"), line.predict(x, t, y=y)
    times, w = (torch.full((len(x),), value, dtype=torch.float64) for value in (t, 1.5))
    torch.testing.assert_close(
        right("guided_velocity")(null, label, x, times, w),
        ClassifierFreeGuidance(line, 2.5).predict(x, t, target="velocity", y=y),
    )


def test_away_from_is_the_score_of_its_density():
    (x, y), path, t = points(), EDMPath(), 0.7
    model = ideal(path)
    null, label, other = (model.predict(x, t, y=labels) for labels in (None, y, (y + 1) % 3))
    towards, away = (gradient_of_the_class(model.net, x, t, k) for k in (y, (y + 1) % 3))
    score = model.predict(x, t, target="score") + 2 * towards - 0.6 * away
    got = right("away_from")(null, label, other, 2.0, 0.6)
    torch.testing.assert_close(got, -t * score, rtol=1e-6, atol=1e-6)


def test_a_tilted_gaussian_around_one_mean_is_that_of_the_library():
    v, V = torch.tensor([1.0]), torch.tensor([4.0])
    _, variance = right("tilted_gaussian")(v * 0, v, v * 0, V, 3.0)
    assert abs(variance.item() - tilted_variance(1.0, 4.0, 3.0)) < 1e-6
