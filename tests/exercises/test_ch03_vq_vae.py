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
    "few": (100, "100 is too few"),
    "many": (1000, "1,000 is too many"),
    "most": (10**30, "That is too many"),
    "negative": (-294, "You gave `-294`"),
    "fraction": (293.5, "You gave `293.5`"),
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
    "zeros": (lambda z, e, g, step: torch.zeros(len(z)), "Your result is not g · (e' − e)"),
    "not reduced": (lambda z, e, g, step: g * z, "has shape [60, 3]"),
    "indices": (lambda z, e, g, step: torch.cdist(z, e).argmin(1), "of dtype int64"),
}

# --- straight_through ----------------------------------------------------------------------------


def through(z, e):
    return z + (e - z).detach()


class Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, e):
        return e.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def through_by_function(z, e):
    return Through.apply(z, e)


def through_by_hook(z, e):
    out = z * 1
    out.data = e.data.clone()
    return out


THROUGH_RIGHT = [through, through_by_function, through_by_hook]
# fmt: off
THROUGH_WRONG = {
    "ones": (lambda z, e: torch.ones_like(z), "Your value is not e"),
    "product": (lambda z, e: z * (e / z).detach(), "gradient of your result with respect to z"),
}
# fmt: on

# --- vq_loss -------------------------------------------------------------------------------------


def vq(z, e, c):
    return F.mse_loss(e, z.detach()) + c * F.mse_loss(z, e.detach())


def vq_of_library(z, e, c):
    quantizer = latent.VectorQuantizer(e.numel(), 1, ema=False, commitment=c, dead_below=0.0)
    quantizer.nearest = lambda vectors: torch.arange(e.numel())
    del quantizer.codebook
    quantizer.codebook = e.reshape(-1, 1)
    return quantizer(z.reshape(-1, 1))[2]


def vq_by_gradients(z, e, c):
    d = z - e
    return (d * d).detach().mean() * (1 + c) + (
        2 * d.detach() * (c * (z - z.detach()) - (e - e.detach()))
    ).mean()


VQ_RIGHT = [vq, vq_of_library, vq_by_gradients]
# fmt: off
VQ_WRONG = {
    "odd": (lambda z, e, c: vq(z, e, c) + z.mean() - z.mean().detach(),
            "gradient of your loss with respect to z is off"),
    "other": (lambda z, e, c: vq(z, e, c) + 0.1, "is not (1 + commitment) times"),
    "not reduced": (lambda z, e, c: (z - e) ** 2, "has shape [6, 6]; it must be one number"),
    "item": (lambda z, e, c: vq(z, e, c).item(), "of type float"),
}
# fmt: on

# --- ema_update ----------------------------------------------------------------------------------


def ema(codebook, uses, vectors, indices, decay):
    count = torch.bincount(indices, minlength=len(uses)).float()
    s = torch.zeros_like(codebook).index_add(0, indices, vectors)
    n = decay * uses + (1 - decay) * count
    new = (decay * uses[:, None] * codebook + (1 - decay) * s) / n[:, None]
    return torch.where(count[:, None] > 0, new, codebook), n


def ema_of_library(codebook, uses, vectors, indices, decay):
    quantizer = latent.VectorQuantizer(*codebook.shape, decay=decay)
    quantizer.codebook, quantizer.uses = codebook.clone(), uses.clone()
    quantizer.follow(vectors, indices)
    return quantizer.codebook, quantizer.uses


def ema_by_one_hot(codebook, uses, vectors, indices, decay):
    chose = F.one_hot(indices, len(codebook)).to(vectors)  # (N, K)
    n = torch.lerp(chose.sum(0), uses, decay)
    step = (1 - decay) * (chose.T @ vectors - chose.sum(0)[:, None] * codebook)
    return codebook + step / n.clamp(min=1e-9)[:, None], n


def ema_of_means(codebook, uses, vectors, indices, decay):
    """Codes that nobody chose go to the origin, and the others to the means of the batch."""
    count = torch.bincount(indices, minlength=len(uses))
    s = torch.zeros_like(codebook).index_add(0, indices, vectors)
    return s / count.clamp(min=1)[:, None], ema(codebook, uses, vectors, indices, decay)[1]


def ema_of_wrong_uses(codebook, uses, vectors, indices, decay):
    """A factor is forgotten in the uses, which then make wrong codes, too."""
    chose = F.one_hot(indices, len(codebook)).float()
    n = decay * uses + chose.sum(0)
    new = (decay * uses[:, None] * codebook + (1 - decay) * chose.T @ vectors) / n[:, None]
    return torch.where(chose.sum(0)[:, None] > 0, new, codebook), n


def changed(codebook=0.0, uses=0.0, unchosen=0.0):
    """A right answer to which numbers are added."""

    def attempt(e, n, v, i, g):
        new, count = ema(e, n, v, i, g)
        new[-2:] += unchosen
        return new + codebook, count + uses

    return attempt


EMA_RIGHT = [ema, ema_of_library, ema_by_one_hot]
# fmt: off
EMA_WRONG = {
    "wrong uses in both": (ema_of_wrong_uses, "Your counts lack the factor"),
    "odd uses": (changed(uses=1), "not the moving average"),
    "to the origin": (ema_of_means, "Your codes jump to the means"),
    "odd": (changed(codebook=1), "not the moving averages asked for"),
    "unchosen moved": (changed(unchosen=1), "Codes that nobody chose move away: code "),
    "order": (lambda *args: ema(*args)[::-1], "You return the uses first"),
    "codebook alone": (lambda *args: ema(*args)[0], "only one result"),
    "float64": (lambda e, n, v, i, g: ema(e.double(), n.double(), v.double(), i, g), "float64"),
}
# fmt: on

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
    "03.straight_through": (THROUGH_RIGHT, THROUGH_WRONG),
    "03.vq_loss": (VQ_RIGHT, VQ_WRONG),
    "03.ema_update": (EMA_RIGHT, EMA_WRONG),
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
