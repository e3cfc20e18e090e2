"""Chapter 04: right answers, written differently, pass; known mistakes are named."""

import copy
import math

import torch

from course_lib.experiments import peak_height, spiky_log_prob
from course_lib.flows import AdditiveCoupling
from tests.exercises.laws import ExerciseLaws

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
GREYS = torch.arange(17, dtype=torch.float64) / 16


def halves(flip):
    even, odd = slice(0, None, 2), slice(1, None, 2)
    return (odd, even) if flip else (even, odd)


# --- additive_coupling ---------------------------------------------------------------------------


def couple(x, shift, flip, *, log_det=lambda x, m: x.new_zeros(len(x)), new=lambda a, m: a + m):
    """A right coupling, of which a test can replace a part."""
    kept, moved = halves(flip)
    m = shift(x[:, kept])
    z = x.clone()
    z[:, moved] = new(x[:, moved], m)
    return z, log_det(x, m)


def library_coupling(x, shift, flip):
    coupling = AdditiveCoupling(x.shape[1], [], flip=flip)
    del coupling.shift
    coupling.shift = shift
    return coupling(x)


def changed(**parts):
    return lambda x, shift, flip: couple(x, shift, flip, **parts)


COUPLING_RIGHT = [couple, library_coupling]
COUPLING_WRONG = {
    "twice": (changed(new=lambda a, m: a + 2 * m), "is not x_moved + shift(x_kept)"),
    "rows": (lambda x, s, f: (x + s(x[0::2]), 0), "the half that stays has 2 columns"),
    "no tensor to shift": (lambda x, s, f: s(3), "You call shift with a int"),
    "shift of a copy": (
        lambda x, s, f: couple(x, copy.deepcopy(s), f),
        "back to the weights of shift",
    ),
    "detached shift": (changed(new=lambda a, m: a + m.detach()), "part of it is cut"),
}

# --- change_of_variables -------------------------------------------------------------------------


def follow(x, transforms):
    """The last z, and the log-determinants of all transforms."""
    log_dets = []
    for transform in transforms:
        x, log_det = transform(x)
        log_dets.append(log_det)
    return x, log_dets


def flow_log_prob(x, transforms, base_log_prob):
    z, log_dets = follow(x, transforms)
    return base_log_prob(z) + sum(log_dets)


def flow_log_prob_recursive(x, transforms, base_log_prob):
    if not transforms:
        return base_log_prob(x)
    z, log_det = transforms[0](x)
    return log_det + flow_log_prob_recursive(z, transforms[1:], base_log_prob)


def flow_log_prob_accumulating(x, transforms, base_log_prob):
    total = torch.zeros(len(x))
    for transform in transforms:
        x, step = transform(x)
        total += step
    total += base_log_prob(x)
    return total


def flow_by(combine):
    """``combine(log-density of the base, log-determinants)``."""

    def attempt(x, transforms, base_log_prob):
        z, log_dets = follow(x, transforms)
        return combine(base_log_prob(z), log_dets)

    return attempt


FLOW_RIGHT = [flow_log_prob, flow_log_prob_recursive, flow_log_prob_accumulating]
FLOW_WRONG = {
    "scales of a copy": (
        lambda x, t, b: flow_log_prob(x, [t[0], copy.deepcopy(t[1]), *t[2:]], b),
        "back to the scales",
    ),
    "log_det detached": (flow_by(lambda b, d: b + sum(d).detach()), "is cut"),
}

# --- predict_units -------------------------------------------------------------------------------

UNITS_RIGHT = [-784 * math.log(256), -4347, torch.tensor(-4347.4)]
UNITS_WRONG = {
    "little": (-2000, "-2,000 is too high"),
    "much": (-9000, "-9,000 is too low"),
    "up": (4347, "spread over a larger space, a density is lower"),
    "bits": (-6272, "the difference in bits"),
}

# --- peak_height ---------------------------------------------------------------------------------


def height_by_an_integral(log_scale, prior):
    """Of one coordinate by a sum over a grid; the coordinates are alike."""
    z = torch.linspace(-60, 60, 100_001, dtype=torch.float64)
    half = torch.nn.functional.softplus
    log_p = -half(z) - half(-z) if prior == "logistic" else -0.5 * z**2 - HALF_LOG_2PI
    height = log_p.max() - torch.trapezoid(log_p.exp() * log_p, z)
    return (len(log_scale) * height).to(log_scale.dtype)


def height_by_entropies(log_scale, prior):
    entropy, top = {
        "gaussian": (0.5 + HALF_LOG_2PI, -HALF_LOG_2PI),
        "logistic": (2.0, -math.log(4)),
    }[prior]
    return log_scale.new_tensor(log_scale.numel() * (entropy + top))


HEIGHT_RIGHT = [peak_height, height_by_an_integral, height_by_entropies]
HEIGHT_WRONG = {
    "a third": (lambda s, prior: peak_height(s, prior) / 3, "your height is"),
    "one more": (lambda s, prior: peak_height(s, prior) + 1, "your height is"),
}

# --- break_it ------------------------------------------------------------------------------------


def gaussians(x, width, *, centres=GREYS, weight=17, scale=None, height=True):
    scale = width if scale is None else scale
    e = -0.5 * ((x[:, None] - centres) / scale) ** 2
    if height:
        e = e - math.log(scale) - HALF_LOG_2PI
    return torch.logsumexp(e, 1) - math.log(weight)


def boxes(x, width, *, centres=GREYS, half=0.5, height=lambda width: 1 / (17 * width)):
    inside = ((x[:, None] - centres).abs() <= half * width).any(1)
    return torch.where(inside, math.log(height(width)), -math.inf)


def laplace_mixture(x, width):
    e = -(x[:, None] - GREYS).abs() / width - math.log(2 * width * 17)
    return torch.logsumexp(e, 1)


def box_on_a_floor(x, width):
    on = ((x[:, None] - GREYS).abs() < width / 2).any(1) / (17 * width)
    floor = ((x > 0) & (x < 1)).to(x.dtype)
    return (0.9 * on + 0.1 * floor).log()


def cauchy_mixture(x, width):
    """With heavy tails: of its mass 2 % lie outside of [−¼, 1¼]."""
    peaks = 1 / (1 + ((x[:, None] - GREYS) / width) ** 2)
    return (peaks.sum(1) / (17 * math.pi * width)).log()


K = torch.arange(17, dtype=torch.float64)
BREAK_RIGHT = [
    spiky_log_prob,
    gaussians,
    boxes,
    laplace_mixture,
    box_on_a_floor,
    cauchy_mixture,
]
BREAK_WRONG = {
    "density": (lambda x, w: gaussians(x, w).exp(), "the density, not its logarithm"),
    "bits": (lambda x, w: gaussians(x, w) / math.log(2), "is in bits"),
    "no weights": (lambda x, w: gaussians(x, w, weight=1), "17 spikes has weight 1, not 1/17"),
    "no height": (lambda x, w: gaussians(x, w, height=False), "does not depend on width"),
    "unnormalised": (lambda x, w: gaussians(x, w, height=False, weight=1), "not normalised"),
    "no 2π": (lambda x, w: gaussians(x, w) + HALF_LOG_2PI, "√2π of the Gaussian is missing"),
    "wide boxes": (lambda x, w: boxes(x, w, half=1), "integrates to 2 instead of 1"),
    "narrow boxes": (lambda x, w: boxes(x, w, half=0.25), "integrates to 0.5 instead of 1"),
    "box of height 1": (lambda x, w: boxes(x, w, height=lambda w: 1), "height of a box is 1"),
    "box of height 1/17": (lambda x, w: boxes(x, w, height=lambda w: 1 / 17), "of a spike does"),
    "16 of 17": (lambda x, w: gaussians(x, w, centres=GREYS[:16]), "only 16 of the 17 spikes"),
    "16 spikes": (lambda x, w: gaussians(x, w, centres=GREYS[:16], weight=16), "on 16 / 16"),
    "15 inner spikes": (
        lambda x, w: boxes(x, w, centres=GREYS[1:16], height=lambda w: 1 / 15 / w),
        "none is on 0 / 16",
    ),
    "weight 1/16": (lambda x, w: gaussians(x, w, weight=16), "weight 1/16 each"),
    "middles": (lambda x, w: gaussians(x, w, centres=(K + 0.5) / 17), "(k + ½) / 17"),
    "k / 17": (lambda x, w: boxes(x, w, centres=K / 17), "at k / 17"),
    "fixed width": (lambda x, w: gaussians(x, 0.01), "not get narrower"),
    "√width": (lambda x, w: gaussians(x, w, scale=w**0.5 / 16), "√width wide"),
    "width²": (lambda x, w: gaussians(x, w, scale=w**2), "width² wide"),
    "scalar": (lambda x, w: gaussians(x, w).mean(), "log-density has shape []"),
    "floor": (lambda x, w: torch.zeros_like(x).where((x > 0) & (x < 1), -math.inf), "gain nan"),
    "infinite": (lambda x, w: torch.full_like(x, math.inf), "Your log-density is infinite"),
    "NaN": (lambda x, w: x * math.nan, "Your log-density holds NaN"),
    "nowhere": (lambda x, w: torch.full_like(x, -math.inf), "integrates to 0 instead of 1"),
}

# --- predict_couplings ---------------------------------------------------------------------------

PREDICT_RIGHT = [3, 3.0, torch.tensor(3)]
PREDICT_WRONG = {
    "1": (1, "4 of 8 outputs have not moved at all"),
    "2": (2, "know nothing of the others in their own half"),
    "4": (4, "4 couplings are enough, but so are 3"),
    "8": (8, "8 couplings are enough, but so are 7"),
}

ALL = {
    "04.additive_coupling": (COUPLING_RIGHT, COUPLING_WRONG),
    "04.change_of_variables": (FLOW_RIGHT, FLOW_WRONG),
    "04.predict_units": (UNITS_RIGHT, UNITS_WRONG),
    "04.peak_height": (HEIGHT_RIGHT, HEIGHT_WRONG),
    "04.break_it": (BREAK_RIGHT, BREAK_WRONG),
    "04.predict_couplings": (PREDICT_RIGHT, PREDICT_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "04"
    cases = ALL

    def times(self, name, answer):
        if name == "04.break_it":
            return 20 if answer in BREAK_RIGHT else 5
        return super().times(name, answer)
