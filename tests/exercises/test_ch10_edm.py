"""Chapter 10: right answers, written differently, pass; known mistakes are named."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from course_lib.diffusion import (
    EDMPath,
    IdealDenoiser,
    Preconditioned,
    StraightPath,
    VEPath,
    ddim_step,
    euler_step,
    heun_step,
    karras_times,
)
from course_lib.exercises import check
from course_lib.exercises.formula import declared
from tests.exercises.laws import ExerciseLaws, is_prediction

# --- matched_time --------------------------------------------------------------------------------


def matched_time(a, b):
    scale = 1 / (a + b)
    return scale * b, scale


def time_of_the_same_log_snr(a, b):
    log_snr = 2 * (a.log() - b.log())
    t = torch.sigmoid(-log_snr / 2)
    torch.testing.assert_close(StraightPath().log_snr(t), log_snr)
    return t, (1 - t) / a


MATCHED_RIGHT = [matched_time, time_of_the_same_log_snr]
MATCHED_WRONG = {
    "variances": (lambda a, b: (b**2, 1 / (a + b)), "another ratio of noise and data"),
    "another scale": (lambda a, b: (b / (a + b), 1 + a), "not on the straight path"),
}

# --- straight_preconditioning --------------------------------------------------------------------


def straight_preconditioning(t, sigma_data):
    variance = (1 - t) ** 2 * sigma_data**2 + t**2
    return (1 - t) * sigma_data**2 / variance, t * sigma_data / variance.sqrt()


def by_edm(t, sigma_data):
    c_skip, c_out, _, _ = Preconditioned(torch.nn.Identity(), sigma_data).factors(t / (1 - t))
    return c_skip / (1 - t), c_out


def by_newton(t, sigma_data):
    """The minimum of the variance itself, which is quadratic in c_skip."""

    def variance(c_skip):
        return (1 - c_skip * (1 - t)) ** 2 * sigma_data**2 + c_skip**2 * t**2

    at = torch.zeros_like(t, requires_grad=True)
    slope = torch.autograd.grad(variance(at).sum(), at, create_graph=True)[0]
    c_skip = (-slope / torch.autograd.grad(slope.sum(), at)[0]).detach()
    return c_skip, variance(c_skip).sqrt()


STRAIGHT_RIGHT = [straight_preconditioning, by_edm, by_newton]
STRAIGHT_WRONG = {
    "the variance": (
        lambda t, s: (straight_preconditioning(t, s)[0], t),
        "has not the variance 1",
    ),
    "the time": (lambda t, s: (t, straight_preconditioning(t, s)[1]), "not the least possible"),
}

# --- geometric_times -----------------------------------------------------------------------------


def geometric_times(steps, sigma_min, sigma_max):
    return torch.logspace(math.log10(sigma_max), math.log10(sigma_min), steps)


def list_of_powers(steps, sigma_min, sigma_max):
    ratio = (sigma_min / sigma_max) ** (1 / (steps - 1))
    return [sigma_max * ratio**i for i in range(steps)]


def times_of_a_large_rho(steps, sigma_min, sigma_max):
    return karras_times(steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=1e6)


def times_of_a_path(steps, sigma_min, sigma_max):
    return VEPath(sigma_min, sigma_max).b(torch.linspace(1, 0, steps, dtype=torch.float64))


TIMES_RIGHT = [
    geometric_times,
    list_of_powers,
    times_of_a_large_rho,
    times_of_a_path,
    lambda n, low, high: list(geometric_times(n, low, high)),
]
TIMES_WRONG = {
    "rho 20": (
        lambda n, low, high: karras_times(n, sigma_min=low, sigma_max=high, rho=20),
        "not the limit of Karras'",
    ),
    "one too many": (
        lambda n, low, high: [*list_of_powers(n, low, high), 0.0],
        "Your levels has shape [5]",
    ),
    "words": (lambda n, low, high: ["high", "low"], "is a list of 2"),
}

# --- heun_in_log ---------------------------------------------------------------------------------


def heun_in_log(denoise, x, sigma, sigma_next):
    h = math.log(sigma_next / sigma)
    k1 = x - denoise(x, sigma)
    end = x + h * k1
    k2 = end - denoise(end, sigma_next)
    return x + h * (k1 + k2) / 2


def heun_of_the_library(denoise, x, sigma, sigma_next):
    u, then = math.log(sigma), math.log(sigma_next)
    return heun_step(lambda x, u: x - denoise(x, math.exp(u)), x, u, then - u)


LOG_RIGHT = [heun_in_log, heun_of_the_library]
LOG_WRONG = {
    "unchanged": (lambda denoise, x, sigma, then: x.clone(), "not that of Heun's step in log"),
    "one argument": (lambda denoise, x, sigma, then: denoise(x), "You call `denoise(…)`"),
}

# --- exponential_step ----------------------------------------------------------------------------


def exponential_step(x, x0, a, b, a_next, b_next):
    return a_next * x0 + b_next * (x - a * x0) / b


def ddim(x, x0, a, b, a_next, b_next):
    return ddim_step(x, x0, now=(a, b), then=(a_next, b_next))


def by_edm_s_path(x, x0, a, b, a_next, b_next):
    ratio = (b_next / a_next) / (b / a)
    return a_next * (ratio * x / a + (1 - ratio) * x0)


def by_many_small_steps(x, x0, a, b, a_next, b_next):
    """Heun's method on a straight way between the amounts, in double precision."""
    x, x0 = x.double(), x0.double()
    amounts = [(a + (a_next - a) * i / 400, b + (b_next - b) * i / 400) for i in range(401)]
    for (a, b), (c, d) in pairwise(amounts):
        k1 = (c - a) * x0 + (d - b) * (x - a * x0) / b
        k2 = (c - a) * x0 + (d - b) * (x + k1 - c * x0) / d
        x = x + (k1 + k2) / 2
    return x.float()


EXPONENTIAL_RIGHT = [exponential_step, ddim, by_edm_s_path, by_many_small_steps]
EXPONENTIAL_WRONG = {
    "unchanged": (lambda x, *rest: x.clone(), "not at the end of the ODE's way"),
    "the guess": (lambda x, x0, *rest: x0.clone(), "not at the end of the ODE's way"),
}

# --- predict_order -------------------------------------------------------------------------------

ORDER_RIGHT = [2, math.log2(0.0029 / 0.0007), np.float32(2), torch.tensor(2)]
ORDER_WRONG = {
    "large": (6, "With order 6 the error would fall 64-fold"),
    "negative": (-2, "-2 is no order"),
}

# --- break_the_churn -----------------------------------------------------------------------------

CHURN_RIGHT = [
    lambda steps: steps,
    lambda steps: 0.3 * steps,
    lambda steps: (math.sqrt(2) - 1) * steps,
    lambda steps: torch.tensor(float(steps) ** 2),
]
CHURN_WRONG = {
    "none": (lambda steps: 0, "Your churn is 0 for all steps together"),
    "gamma": (lambda steps: 0.41, "Your churn is 0.41 for all steps together"),
    "fixed": (lambda steps: 40, "Not broken: in widths of the data samples have 0.896"),
    "root": (lambda steps: 4 * steps**0.5, "Not broken: in widths"),
    "a little": (lambda steps: 0.1 * steps, "Not broken: in widths"),
    "large and fixed": (lambda steps: 5000, "nothing is left of your churn"),
    "negative": (lambda steps: -steps, "You gave `-100`; churn is a single number of at least 0"),
    "infinite": (lambda steps: math.inf, "You gave `inf`"),
}


ALL = {
    "10.matched_time": (MATCHED_RIGHT, MATCHED_WRONG),
    "10.straight_preconditioning": (STRAIGHT_RIGHT, STRAIGHT_WRONG),
    "10.geometric_times": (TIMES_RIGHT, TIMES_WRONG),
    "10.heun_in_log": (LOG_RIGHT, LOG_WRONG),
    "10.exponential_step": (EXPONENTIAL_RIGHT, EXPONENTIAL_WRONG),
    "10.predict_order": (ORDER_RIGHT, ORDER_WRONG),
    "10.break_the_churn": (CHURN_RIGHT, CHURN_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "10"
    cases = ALL

    def times(self, name, answer):
        return 1 if is_prediction(name) or name == "10.break_the_churn" else 8


def test_too_little_churn_is_told_from_churn_that_is_spread():
    hints = {
        label: check("10.break_the_churn", CHURN_WRONG[label][0]).hint for label in CHURN_WRONG
    }
    assert "More churn at every step" in hints["a little"]
    assert "More steps heal it" in hints["fixed"]
    assert "More steps heal it" in hints["root"]


def multistep(model, x, levels):
    """DPM-Solver++ 2M, from its paper's algorithm 2, with λ = −log σ."""
    before = None
    for sigma, then in pairwise(levels):
        guess = extrapolated = model(x, sigma)
        if before is not None:
            h, old = math.log(sigma / then), math.log(before[0] / sigma)
            r = old / h
            extrapolated = (1 + 1 / (2 * r)) * guess - before[1] / (2 * r)
        x = then / sigma * x + (1 - then / sigma) * extrapolated
        before = sigma, guess
    return x


def one_step(solver):
    def walk(model, x, levels):
        for sigma, then in pairwise(levels):
            x = solver(lambda x, t: (x - model(x, t)) / t, x, sigma, then - sigma)
        return x

    return walk


@pytest.mark.parametrize(
    ("sampler", "errors"),
    [
        (one_step(euler_step), {40: 0.0289, 80: 0.0145}),
        (one_step(heun_step), {40: 0.0024}),
        (multistep, {40: 0.0029, 80: 0.0007}),
    ],
)
def test_the_errors_of_the_prediction_are_measured(sampler, errors):
    centres = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    ideal = IdealDenoiser(centres, EDMPath(0.01, 100.0), std=0.3)

    def model(x, sigma):
        return x - sigma * ideal(x, torch.full((len(x),), sigma, dtype=torch.float64))

    def end(walk, steps):
        levels = karras_times(steps + 1, sigma_min=0.02, sigma_max=20.0)
        return walk(model, 20 * torch.linspace(-2.3, 2.7, 41, dtype=torch.float64)[:, None], levels)

    exact = end(one_step(heun_step), 500)
    for steps, error in errors.items():
        off = (end(sampler, steps) - exact).square().mean().sqrt().item()
        assert round(off, 4) == error


def test_factors_of_data_and_noise_are_those_of_a_least_squares_fit():
    """c_skip is the slope of x_0 on x, and c_out what it leaves, on drawn data and noise."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(400_000, generator=generator, dtype=torch.float64) for _ in range(2))
    right = declared("10")["10.straight_preconditioning"].right
    for t in (0.2, 0.5, 0.8):
        x = (1 - t) * 0.6 * x0 + t * eps
        slope = (x @ (0.6 * x0)) / (x @ x)
        left = (0.6 * x0 - slope * x).std()
        c_skip, c_out = right(torch.tensor([t]), 0.6)
        assert abs(c_skip.item() / slope.item() - 1) < 0.01
        assert abs(c_out.item() / left.item() - 1) < 0.01
