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

# --- gaussian_rate -------------------------------------------------------------------------------


def split_gaussian_rate(w, s, sigma):
    v = w**2 * s**2 + sigma**2
    return 0.5 * torch.log(v / sigma**2), 0.5 * (v - 1 - torch.log(v))


def rate_by_correlation(w, s, sigma):
    """The information of jointly Gaussian numbers; the mismatch is what it leaves of the rate."""
    v = torch.hypot(w * s, sigma) ** 2
    information = -torch.log1p(-((w * s) ** 2) / v) / 2
    of_all_means = latent.gaussian_kl((w * s)[:, None], 2 * sigma[:, None].log())  # the mean rate
    return information, of_all_means - information


PARTS_RIGHT = [split_gaussian_rate, rate_by_correlation]
PARTS_WRONG = {
    "one": (lambda w, s, sigma: (w, split_gaussian_rate(w, s, sigma)[1]), "not that of the Gauss"),
    "other": (
        lambda w, s, sigma: (split_gaussian_rate(w, s, sigma)[0], w),
        "Your information is right; your mismatch is not",
    ),
}

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

# --- laplace_draw --------------------------------------------------------------------------------


def laplace_draw(mu, log_scale, u):
    below, above = torch.log(2 * u), -torch.log(2 * (1 - u))
    return mu + log_scale.exp() * torch.where(u < 0.5, below, above)


def draw_of_torch(mu, log_scale, u):
    return td.Laplace(mu, log_scale.exp()).icdf(u)


def draw_by_distance(mu, log_scale, u):
    v = 1 - 2 * (u - 0.5).abs()
    return mu - torch.sign(u - 0.5) * torch.exp(log_scale) * v.log()


DRAW_RIGHT = [laplace_draw, draw_of_torch, draw_by_distance]
DRAW_WRONG = {
    "mu": (lambda mu, log_scale, u: mu + 0 * log_scale, "The share of draws below your z"),
    "cut": (
        lambda mu, log_scale, u: laplace_draw(mu, log_scale.detach(), u),
        "No gradient flows from your z back to log_scale",
    ),
    "an eps of its own": (
        lambda mu, log_scale, u: mu + log_scale.exp() * torch.randn_like(u),
        "it is drawn at random",
    ),
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
    "02.gaussian_rate": (PARTS_RIGHT, PARTS_WRONG),
    "02.best_noise": (NOISE_RIGHT, NOISE_WRONG),
    "02.laplace_draw": (DRAW_RIGHT, DRAW_WRONG),
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
        return super().times(name, answer)


def test_the_parts_of_a_gaussian_rate_are_those_of_a_table():
    """The library's parts, of 400 data in 1,201 cells."""
    w, s, sigma = (torch.tensor([value], dtype=torch.float64) for value in (1.3, 0.8, 0.6))
    x = torch.special.ndtri((torch.arange(400, dtype=torch.float64) + 0.5) / 400)
    x = s * x / x.std(correction=0)
    z = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    q = td.Normal((w * x)[:, None], sigma).log_prob(z).softmax(1)
    table = latent.rate_parts(q, td.Normal(0.0, 1.0).log_prob(z).softmax(0))
    for part, of_table in zip(split_gaussian_rate(w, s, sigma), table, strict=True):
        assert abs(part.item() - of_table.item()) < 2e-3


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
