"""Chapter 02: right answers, written differently, pass; known mistakes are named."""

import math

import torch
from torch import distributions as td
from torch.nn import functional as F

from course_lib import latent
from course_lib.exercises import check
from course_lib.experiments import collapsing_loss
from tests.exercises.laws import ExerciseLaws

# --- predict_constant ----------------------------------------------------------------------------

CONSTANT_RIGHT = ["score function", "Score-Function", " score_function. ", "REINFORCE"]
CONSTANT_WRONG = {
    "slope": ("reparameterization", "is 1.0 by reparameterization, and for z² + 100 it is 1.0"),
    "spelling": ("Reparametrisation", "is 1.0 by reparameterization"),
    "both": ("both", "and for z² + 100 it is 1.0 again"),
    "neither": ("neither", "by one of the two, and 20"),
    "none": ("none of them", "by one of the two, and 20"),
    "number": (100, "You gave a int"),
    "other": ("f", 'You gave "f"; the answer is one of four words'),
    "long": ("x\n" * 100, "You gave another text"),
}

# --- rate_parts ----------------------------------------------------------------------------------


def parts(q, prior):
    aggregate = q.mean(0)
    return (q * (q / aggregate).log()).sum(1).mean(), (aggregate * (aggregate / prior).log()).sum()


def parts_by_difference(q, prior):
    """The rate minus the mismatch."""
    mismatch = F.kl_div(prior.log(), q.mean(0), reduction="sum")
    return F.kl_div(prior.log().expand_as(q), q, reduction="batchmean") - mismatch, mismatch


def parts_by_joint_table(q, prior):
    joint = q / q.shape[0]
    both = joint.sum(1)[:, None] * joint.sum(0)
    codes = td.Categorical(joint.sum(0))
    return (joint * (joint / both).log()).sum(), td.kl_divergence(codes, td.Categorical(prior))


PARTS_RIGHT = [parts, parts_by_difference, parts_by_joint_table, latent.rate_parts]

# --- best_noise ----------------------------------------------------------------------------------


def noise(x, mean):
    log_var = F.mse_loss(x, mean).log()
    return log_var, td.Normal(mean, (log_var / 2).exp()).log_prob(x).sum(1).mean()


def noise_in_closed_form(x, mean):
    variance = ((x - mean) ** 2).mean()
    per_pixel = -0.5 * (1 + torch.log(2 * math.pi * variance))
    return variance.log(), x.shape[1] * per_pixel


def noise_by_newton(x, mean):
    """Without the formula for σ²: the slope is set to zero step by step."""
    error, v = (x - mean).double().square(), torch.zeros((), dtype=torch.float64)
    for _ in range(100):
        ratio = (error * (-v).exp()).mean()
        v = v + (1 - 1 / ratio if ratio > 1 else ratio - 1)
    log_prob = -0.5 * (error * (-v).exp() + v + math.log(2 * math.pi)).sum(1).mean()
    return v.float(), log_prob.float()


NOISE_RIGHT = [noise, noise_in_closed_form, noise_by_newton]
NOISE_WRONG = {
    "unbiased": (lambda x, m: ((x - m).var().log(), noise(x, m)[1]), "Another τ makes these data"),
}

# --- reparameterize ------------------------------------------------------------------------------


def draw(mu, log_var, generator, *, z=lambda mu, s, e: mu + s * e, sigma=lambda v: (v / 2).exp()):
    """A right answer, of which a test can replace a part."""
    eps = torch.randn(mu.shape, generator=generator)
    return z(mu, sigma(log_var), eps)


def draw_of_library(mu, log_var, generator):
    return latent.reparameterize(mu, log_var, generator=generator)


def draw_by_box_muller(mu, log_var, generator):
    u, v = torch.rand(2, *mu.shape, generator=generator)
    eps = (-2 * torch.log1p(-u)).sqrt() * torch.cos(2 * math.pi * v)
    return mu + torch.exp(0.5 * log_var) * eps


def draw_by_rows(mu, log_var, generator):
    # Standard normals, drawn without gradients, then moved.
    with torch.no_grad():
        eps = torch.normal(torch.zeros_like(mu), torch.ones_like(mu), generator=generator)
    return eps * log_var.mul(0.5).exp() + mu


def with_sigma(sigma):
    return lambda *args: draw(*args, sigma=sigma)


def with_z(z):
    return lambda *args: draw(*args, z=z)


def with_eps(eps):
    return lambda mu, log_var, g: mu + (log_var / 2).exp() * eps(mu, g)


def both_signs(mu, generator):
    half = torch.randn(len(mu) // 2, *mu.shape[1:], generator=generator)
    return torch.cat([half, -half])


DRAW_RIGHT = [draw, draw_of_library, draw_by_box_muller, draw_by_rows]
DRAW_WRONG = {
    "variance": (with_sigma(torch.exp), "multiplied by the variance σ²"),
    "twice": (with_sigma(lambda v: (2 * v).exp()), "Your σ is exp(2 log_var)"),
    "inverse": (with_sigma(lambda v: (-v / 2).exp()), "Your σ is 1 / σ"),
    "log_var": (with_sigma(lambda v: v), "You take `log_var` for σ"),
    "log σ": (with_sigma(lambda v: v / 2), "that is log σ"),
    "root": (with_sigma(lambda v: v.abs().sqrt()), "You take `log_var` for σ²"),
    "no σ": (with_z(lambda mu, s, e: mu + e), "Your ε is not stretched by σ"),
    "no μ": (with_z(lambda mu, s, e: s * e), "Your z is not moved by μ"),
    "all times σ": (with_z(lambda mu, s, e: (mu + e) * s), "Your μ is multiplied by σ, too"),
    "swapped": (with_z(lambda mu, s, e: s + mu * e), "You swap μ and σ"),
    "mean": (with_z(lambda mu, s, e: mu + 0 * s), "Your z is μ: nothing is drawn"),
    "μ + σ": (with_z(lambda mu, s, e: mu + s), "One draw of ε serves all rows"),
    "one ε for all rows": (
        with_eps(lambda mu, g: torch.randn(mu.shape[1:], generator=g)),
        "One draw of ε serves all rows",
    ),
    "one ε for a row": (
        with_eps(lambda mu, g: torch.randn(*mu.shape[:-1], 1, generator=g)),
        "One draw of ε serves all coordinates of a row",
    ),
    "rand": (with_eps(lambda mu, g: torch.rand(mu.shape, generator=g)), "Your ε is uniform"),
    "centred rand": (
        with_eps(lambda mu, g: torch.rand(mu.shape, generator=g) - 0.5),
        "Your ε is uniform",
    ),
    "2 rand − 1": (
        with_eps(lambda mu, g: 2 * torch.rand(mu.shape, generator=g) - 1),
        "Your ε is uniform",
    ),
    "of the variance of a normal": (
        with_eps(lambda mu, g: (torch.rand(mu.shape, generator=g) - 0.5) * math.sqrt(12)),
        "Your z is no draw",
    ),
    "half a normal": (
        with_eps(lambda mu, g: torch.randn(mu.shape, generator=g).abs()),
        "Your z is no draw",
    ),
    "correlated": (
        with_eps(
            lambda mu, g: (
                torch.randn(mu.shape, generator=g) * math.sqrt(0.5)
                + torch.randn(*mu.shape[:-1], 1, generator=g) * math.sqrt(0.5)
            )
        ),
        "correlated",
    ),
    "antithetic halves": (
        with_eps(lambda mu, g: both_signs(mu, g)),
        "Two rows share a draw of ε, up to its sign",
    ),
    "antithetic neighbours": (
        with_eps(
            lambda mu, g: (
                both_signs(mu, g).reshape(2, -1, *mu.shape[1:]).transpose(0, 1).reshape(mu.shape)
            )
        ),
        "Two rows share a draw of ε, up to its sign",
    ),
    "shared in images": (
        with_eps(lambda mu, g: torch.randn(mu.shape[-2:], generator=g).expand(mu.shape)),
        "correlated",
    ),
    "torch.normal": (
        lambda mu, v, g: torch.normal(mu.detach(), (v / 2).exp().detach(), generator=g),
        "No gradient flows from your z back to mu",
    ),
    "detached": (lambda *args: draw(*args).detach(), "No gradient flows from your z back to mu"),
    "σ detached": (
        with_z(lambda mu, s, e: mu + s.detach() * e),
        "No gradient flows from your z back to log_var",
    ),
    "μ detached": (lambda mu, v, g: draw(mu.detach(), v, g), "back to mu"),
    "ε not fixed": (
        with_z(lambda mu, s, e: mu.detach() + s * ((mu + s * e - mu) / s.detach() - mu + mu)),
        "off",
    ),
    "float64": (lambda mu, v, g: draw(mu.double(), v, g), "dtype float64"),
}

# --- leave_one_out -------------------------------------------------------------------------------


def baseline(values, z, mu, sigma):
    others = (values.sum() - values) / (len(values) - 1)
    return (values - others) * (z - mu) / sigma**2


def baseline_of_all(values, z, mu, sigma):
    """The mean of all draws, and the factor that undoes its bias."""
    n = len(values)
    return n / (n - 1) * (values - values.mean()) * (z - mu) / sigma**2


def baseline_by_loop(values, z, mu, sigma):
    estimates = []
    for k in range(len(values)):
        others = [v for i, v in enumerate(values) if i != k]
        m = mu.clone().requires_grad_()
        (slope,) = torch.autograd.grad(td.Normal(m, sigma).log_prob(z[k]), m)
        estimates.append((values[k] - sum(others) / len(others)) * slope)
    return torch.stack(estimates)


def baseline_of_library(values, z, mu, sigma):
    return (values - latent.leave_one_out(values)) / sigma * ((z - mu) / sigma)


BASELINE_RIGHT = [baseline, baseline_of_all, baseline_by_loop, baseline_of_library]

# --- iwae_bound ----------------------------------------------------------------------------------


def bound(w):
    return w.logsumexp(0) - math.log(len(w))


def bound_by_pairs(w):
    total = w[0]
    for row in w[1:]:
        total = torch.logaddexp(total, row)
    return total - torch.tensor(float(w.shape[0])).log()


def bound_of_global_maximum(w):
    top = w.max()
    return (w - top).exp().mean(0).log() + top


def bound_with_a_detached_top(w):
    """Right in value; the gradient is right, too, as the largest number cancels."""
    top = w.amax(0).detach()
    return (w - top).exp().mean(0).log() + top


BOUND_RIGHT = [bound, bound_by_pairs, bound_with_a_detached_top]
OFF = "Right for log-weights near 0, but"
BOUND_WRONG = {
    "too high": (lambda w: bound(w) + 9, "lies between the smallest and the largest"),
    "other": (
        lambda w: 0.5 * bound(w) + 0.5 * w.mean(0),
        "not the logarithm of the mean weight",
    ),
    "naive": (lambda w: w.exp().mean(0).log(), OFF),
    "guarded": (lambda w: (w.exp().mean(0) + 1e-20).log(), OFF),
    "shift fixed": (lambda w: (w + 800).exp().mean(0).log() - 800, "holds infinite values"),
    "global top": (bound_of_global_maximum, OFF),
    "top not cancelled": (
        lambda w: (w - w.amax(0).detach()).exp().mean(0).log() + w.amax(0),
        "with respect to log_weights is off",
    ),
}

# --- break_the_code ------------------------------------------------------------------------------


def summed(distortion, rate):
    return distortion.sum() + 50 * rate.sum()


def squared_rate(distortion, rate):
    return (distortion + 100 * rate**2).mean()


def huge_beta(distortion, rate):
    return torch.mean(distortion + 1e6 * rate)


LOSS_RIGHT = [collapsing_loss, summed, squared_rate, huge_beta]
ALIVE, DUMB = "The code is alive", "Your decoder has learned nothing"
LOSS_WRONG = {
    "ELBO": (lambda d, r: (d + r).mean(), "minus the ELBO, under which a good code pays"),
    "β of 1.5": (lambda d, r: (d + 1.5 * r).mean(), ALIVE),
    "no rate": (lambda d, r: d.mean(), "Your loss leaves out the rate"),
    "rate detached": (lambda d, r: (d + 100 * r.detach()).mean(), ALIVE),
    "free bits": (lambda d, r: (d + 100 * (r - 3).clamp(min=0)).mean(), ALIVE),
    "no distortion": (lambda d, r: r.mean(), "Your loss leaves out the distortion"),
    "distortion detached": (lambda d, r: (d.detach() + 100 * r).mean(), DUMB),
    "rate rewarded": (lambda d, r: (d - r).mean(), "Your loss rewards the rate"),
    "maximised": (lambda d, r: -(d + r).mean(), "Your loss is the ELBO"),
    "distortion rewarded": (lambda d, r: (r - d).mean(), "Your loss rewards distortion"),
    "constant": (lambda d, r: torch.tensor(3.0), "No gradient flows through your loss"),
    "all detached": (lambda d, r: (d + 100 * r).mean().detach(), "No gradient flows"),
    "zero": (lambda d, r: 0 * (d + r).mean(), DUMB),
    "item": (lambda d, r: (d + 100 * r).mean().item(), "Your loss is of type float"),
    "batch": (lambda d, r: d + 100 * r, "Your loss has shape [9]; training needs one number"),
    "NaN": (lambda d, r: (d + 100 * r).mean() * math.nan, "Your loss is NaN"),
    "infinite β": (lambda d, r: (d + math.inf * r).mean(), "Your loss is infinite"),
    "no slope": (lambda d, r: (d + 100 * r + (0 * r).sqrt()).mean(), "Training broke: loss must"),
}

ALL = {
    "02.predict_constant": (CONSTANT_RIGHT, CONSTANT_WRONG),
    "02.rate_parts": (PARTS_RIGHT, {}),
    "02.best_noise": (NOISE_RIGHT, NOISE_WRONG),
    "02.reparameterize": (DRAW_RIGHT, DRAW_WRONG),
    "02.leave_one_out": (BASELINE_RIGHT, {}),
    "02.iwae_bound": (BOUND_RIGHT, BOUND_WRONG),
    "02.break_the_code": (LOSS_RIGHT, LOSS_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "02"
    cases = ALL

    def times(self, name, answer):
        if name == "02.break_the_code":
            return 1  # a model is trained, from the same seed each time
        if answer is baseline_by_loop:
            return 2  # a backward pass for every draw
        return 4 if name == "02.reparameterize" else super().times(name, answer)


def test_reports_give_measured_numbers():
    reason = check("02.predict_constant", "score function").reason
    assert "is 1.0 by reparameterization and 4." in reason
    assert "for z² + 100 it is 1.0 and 20" in reason
    reason = check("02.leave_one_out", baseline).reason
    assert abs(float(reason.split("of yours is ")[1].split(",")[0]) - 3) < 2.5
    assert "without a baseline it is 1" in reason  # 128 or so
    reason = check("02.iwae_bound", bound).reason
    assert "the ELBO is -800." in reason
    assert "the bound of 50 draws -796." in reason
