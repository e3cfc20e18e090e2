"""Chapter 03: right answers, written differently, pass; known mistakes are named."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from course_lib import latent
from course_lib.exercises import check
from course_lib.experiments import dead_codebook
from tests.exercises.laws import ExerciseLaws

# --- predict_bits --------------------------------------------------------------------------------

BITS_RIGHT = [294, 294.0, torch.tensor(294), np.int64(294)]
BITS_WRONG = {
    "whole nats": (204, "the number of nats"),
    "37 bytes": (37, "the number of bytes"),
    "most": (10**30, "That is too many"),
}

# --- slope_of_jump -------------------------------------------------------------------------------


def slope(z, codebook, gradient, step):
    before = codebook[torch.cdist(z, codebook).argmin(1)]
    after = codebook[torch.cdist(z - step * gradient, codebook).argmin(1)]
    return torch.einsum("nd,nd->n", gradient, after - before)


def slope_by_products(z, codebook, gradient, step):
    heights = gradient @ codebook.T  # of each code along each gradient
    half = codebook.square().sum(1) / 2
    score = z @ codebook.T - half
    ends = torch.stack([(score - step * heights).argmax(1), score.argmax(1)], 1)
    return -heights.gather(1, ends).diff(dim=1)[:, 0]


SLOPE_RIGHT = [slope, latent.slope_of_jump, slope_by_products]
SLOPE_WRONG = {
    "indices": (lambda z, e, g, step: torch.cdist(z, e).argmin(1), "of dtype int64"),
}

# --- round_through -------------------------------------------------------------------------------


def rounded(z, levels):
    y, half = z.tanh(), (levels - 1) / 2
    return y + ((y * half).round() / half - y).detach()


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, levels):
        ctx.save_for_backward(z)
        values = torch.linspace(-1, 1, levels)
        return values[(z.tanh()[..., None] - values).abs().argmin(-1)]

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (1 - ctx.saved_tensors[0].tanh() ** 2), None


def rounded_by_function(z, levels):
    return Rounded.apply(z, levels)


ROUND_RIGHT = [rounded, rounded_by_function]
ROUND_WRONG = {
    "plain": (
        lambda z, levels: (z.tanh() * (levels // 2)).round() / (levels // 2),
        "of `round` is 0",
    ),
    "all of z": (
        lambda z, levels: rounded(z, levels).detach() + z - z.detach(),
        "slope of tanh is",
    ),
    "half of the gradient": (
        lambda z, levels: rounded((z + z.detach()) / 2, levels),
        "gradient of your result with respect to z is off",
    ),
}

# --- predict_rest --------------------------------------------------------------------------------

REST_RIGHT = [4, 4.0, torch.tensor(4.0)]
REST_WRONG = {
    "near": (3.5, "3.5 is too near"),
    "far": (5, "5 is too far"),
    "below": (-4, "z goes down the gradient"),
    "β z": (8, "You forget the 2 of the square's derivative"),
}

# --- perplexity ----------------------------------------------------------------------------------


def shares(indices, n_codes):
    return torch.bincount(indices.flatten(), minlength=n_codes) / indices.numel()


def entropy(p):
    return -torch.xlogy(p, p).sum()


def used(indices, n_codes):
    return entropy(shares(indices, n_codes)).exp()


def used_with_epsilon(indices, n_codes):
    p = F.one_hot(indices.reshape(-1), n_codes).float().mean(0)
    return torch.exp(-torch.sum(p * torch.log(p + 1e-10)))


def used_in_python(indices, n_codes):
    codes = indices.flatten().tolist()
    p = [codes.count(k) / len(codes) for k in range(n_codes)]
    return math.prod(q**-q for q in p if q > 0)


def of_shares(f):
    return lambda indices, n_codes: f(shares(indices, n_codes), n_codes)


PERPLEXITY_RIGHT = [used, used_with_epsilon, used_in_python]
# fmt: off
PERPLEXITY_WRONG = {
    "counts": (lambda indices, n: entropy(torch.bincount(indices.flatten()).float()).exp(),
               "it lies between 1 and 12"),
    "large ε": (of_shares(lambda p, n: (-(p * (p + 0.05).log()).sum()).exp()),
                "not exp of the entropy"),
    "shares": (of_shares(lambda p, n: p), "has shape [12]"),
    "integer": (of_shares(lambda p, n: entropy(p).exp().long()), "of dtype int64"),
    "True": (lambda indices, n: True, "of type bool"),
}
# fmt: on

# --- break_the_codebook --------------------------------------------------------------------------


def far_away(vectors, n_codes):
    return vectors.new_full((n_codes, vectors.shape[1]), 1e3)


def one_vector_and_a_line(vectors, n_codes):
    line = 300.0 * torch.arange(n_codes)[:, None].expand(-1, vectors.shape[1])
    return line + vectors.mean(0)


def huge(vectors, n_codes):
    return torch.full((n_codes, vectors.shape[1]), 1e20)


BREAK_RIGHT = [dead_codebook, far_away, one_vector_and_a_line]
SURVIVES = "It survives: "
BREAK_WRONG = {
    "vectors": (lambda v, k: v[:k].clone(), "Several of your codes are near to vectors"),
    "standard": (lambda v, k: v.mean(0) + torch.randn(k, v.shape[1]), SURVIVES),
    "zeros": (lambda v, k: torch.zeros(k, v.shape[1]), "all codes on one spot"),
    "all the mean": (lambda v, k: v.mean(0).expand(k, -1).clone(), "all codes on one spot"),
    "near the mean": (lambda v, k: v.mean(0) + 1e-3 * torch.randn(k, v.shape[1]), SURVIVES),
    "half of them far": (lambda v, k: torch.cat([v[: k // 2], v[k // 2 : k] + 1e3]), SURVIVES),
    "far in all directions": (
        lambda v, k: v.mean(0) + 50 * F.normalize(torch.randn(k, v.shape[1])),
        "All your codes are far away, but several",
    ),
    "overflow": (huge, "Your codes are as large as 1e+20"),
    "too few": (lambda v, k: far_away(v, 1), "codebook has shape [1, 2]; it must have [64, 2]"),
    "infinite": (lambda v, k: far_away(v, k) * math.inf, "holds infinite values"),
    "NaN": (lambda v, k: far_away(v, k) * math.nan, "holds NaN"),
    "integers": (lambda v, k: far_away(v, k).long(), "of dtype int64"),
}

ALL = {
    "03.predict_bits": (BITS_RIGHT, BITS_WRONG),
    "03.slope_of_jump": (SLOPE_RIGHT, SLOPE_WRONG),
    "03.round_through": (ROUND_RIGHT, ROUND_WRONG),
    "03.predict_rest": (REST_RIGHT, REST_WRONG),
    "03.perplexity": (PERPLEXITY_RIGHT, PERPLEXITY_WRONG),
    "03.break_the_codebook": (BREAK_RIGHT, BREAK_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "03"
    cases = ALL

    def times(self, name, answer):
        if name == "03.break_the_codebook":
            return 2  # quantizers are trained
        return super().times(name, answer)


def test_breaking_the_codebook_shows_both_trainings():
    reason = check("03.break_the_codebook", dead_codebook).reason
    assert reason.count("1 of 64 codes in use, perplexity 1.00") == 1
    assert reason.count("1 of 32 codes in use, perplexity 1.00") == 1
    revived = [float(part.split(".")[0]) for part in reason.split("codes and perplexity ")[1:]]
    assert len(revived) == 2
    assert min(revived) > 8
