"""Chapter 08: right answers, written differently, pass; known mistakes are named."""

import math

import numpy as np
import torch

from course_lib import diffusion
from course_lib.diffusion import GaussianPath, langevin_step, reverse_sde_step
from tests.exercises.laws import ExerciseLaws, is_prediction

# --- drift_diffusion -----------------------------------------------------------------------------


def drift_diffusion(t):
    tangent = (math.pi / 2 * t).tan()
    return -math.pi / 2 * tangent, (math.pi * tangent).sqrt()


def rates_by_autograd(t):
    t = t.detach().requires_grad_()
    a, b = (math.pi / 2 * t).cos(), (math.pi / 2 * t).sin()
    f = torch.autograd.grad(a.sum(), t, retain_graph=True)[0] / a
    slope = torch.autograd.grad((b**2).sum(), t)[0]
    return f.detach(), (slope - 2 * f * b**2).sqrt().detach()


class Quarter(GaussianPath):
    def a(self, t):
        return (math.pi / 2 * t).cos()

    def b(self, t):
        return (math.pi / 2 * t).sin()


def rates_of_the_library(t):
    return Quarter().drift(t), Quarter().diffusion(t)


RATES_RIGHT = [drift_diffusion, rates_by_autograd, rates_of_the_library]
RATES_WRONG = {
    "constant f": (lambda t: (-t, drift_diffusion(t)[1]), "Your f is not a' / a"),
    "constant g": (lambda t: (drift_diffusion(t)[0], t), "Your g² is not"),
}

# --- family_step ---------------------------------------------------------------------------------


def family_step(x, score, f, g, dt, noise, lam):
    drift = f * x - (1 + lam**2) / 2 * g**2 * score
    return x - drift * dt + lam * g * dt**0.5 * noise


def family_by_langevin(x, score, f, g, dt, noise, lam):
    """A step of the ODE, and a Langevin step, which keeps the density, of size ½ lam² g² dt."""
    moved = reverse_sde_step(x, score, f=f, g=g / math.sqrt(2), dt=dt)
    h = 0.5 * lam**2 * g**2 * dt
    return moved + langevin_step(x, score, step_size=h, noise=noise) - x


FAMILY_RIGHT = [family_step, family_by_langevin]
FAMILY_WRONG = {
    "unchanged": (lambda x, *rest: x.clone(), "Your x is not a step of the family"),
    "variance": (
        lambda x, s, f, g, dt, n, lam: (
            family_step(x, s, f, g, dt, n, lam) + (lam - 1) * g * dt**0.5 * n
        ),
        "Your x is not a step of the family",
    ),
}

# --- predict_joint -------------------------------------------------------------------------------

JOINT_RIGHT = [0.5, 0.4 / 0.8, np.float32(0.5), torch.tensor(0.5)]
JOINT_WRONG = {"between": (0.7, "0.7 is not the forward SDE's correlation")}

# --- denoising_loss ------------------------------------------------------------------------------


def denoising_loss(score, x, sigma, noise):
    return 0.5 * (score(x + sigma * noise) + noise / sigma).square().sum(dim=1).mean()


def loss_by_autograd(score, x, sigma, noise):
    shown = (x + sigma * noise).requires_grad_()
    log_prob = torch.distributions.Normal(x, sigma).log_prob(shown).sum()
    target = torch.autograd.grad(log_prob, shown)[0]
    return (score(shown.detach()) - target).pow(2).sum() / (2 * len(x))


LOSS_RIGHT = [denoising_loss, loss_by_autograd]
LOSS_WRONG = {
    "constant": (lambda score, x, sigma, noise: x.new_tensor(1.0), "not that of denoising score"),
    "two arguments": (lambda score, x, sigma, noise: score(x, sigma).mean(), "You call `score"),
}

# --- linear_score --------------------------------------------------------------------------------


def linear_score(x):
    return torch.linalg.inv(x.T @ x / len(x))


def score_by_solving(x):
    second = torch.einsum("ni,nj->ij", x, x) / x.shape[0]
    return torch.linalg.solve(second, torch.eye(x.shape[1]))


def score_by_descent(x):
    """Newton's method on the loss itself, in double precision: it is quadratic in A."""
    x = x.double()
    A = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)

    def loss(A):
        return 0.5 * (x @ A.T).square().sum(1).mean() - A.trace()

    slope = torch.func.grad(loss)(A).flatten()
    curvature = torch.func.hessian(loss)(A).reshape(len(slope), len(slope))
    return -torch.linalg.solve(curvature, slope).reshape(A.shape).float()


LINEAR_RIGHT = [linear_score, score_by_solving, score_by_descent]
LINEAR_WRONG = {
    "zeros": (lambda x: torch.zeros(x.shape[1], x.shape[1]), "does not minimise the loss"),
    "identity": (lambda x: torch.eye(x.shape[1]), "does not minimise the loss"),
}

# --- langevin_variance ---------------------------------------------------------------------------


def langevin_variance(h, variance):
    return 2 * h / (1 - (1 - h / variance) ** 2)


def variance_by_iteration(h, variance):
    v = variance.double()
    for _ in range(2000):
        v = (1 - h / variance) ** 2 * v + 2 * h
    return v.float()


LANGEVIN_RIGHT = [
    langevin_variance,
    variance_by_iteration,
    lambda h, v: 2 * v**2 / (2 * v - h),
]
LANGEVIN_WRONG = {
    "zero": (lambda h, v: torch.zeros_like(v), "changes in the next step"),
    "h": (lambda h, v: h.clone(), "changes in the next step"),
}

# --- break_the_root ------------------------------------------------------------------------------


def step(power):
    return lambda x, f, g, dt, noise: x + f * x * dt + g * dt**power * noise


ROOT_RIGHT = [
    step(1),
    lambda x, f, g, dt, noise: diffusion.sde_step(x, f=f, g=g, dt=dt, noise=noise * dt**0.5),
]
ROOT_WRONG = {
    "right": (step(0.5), "Not broken: the variance is"),
    "no root at all": (step(0), "Not broken: the variance is"),
    "a little more than the root": (step(0.7), "The noise does not die out"),
    "none": (lambda x, f, g, dt, noise: x + f * x * dt, "does not look fine with 10 steps"),
    "wrong drift": (
        lambda x, f, g, dt, noise: x + g * dt * noise,
        "the drift leads from 3 to 0.15",
    ),
    "explodes": (lambda x, f, g, dt, noise: x * 1e9 + noise, "infinite values"),
    "shape": (lambda x, f, g, dt, noise: x[:5], "shape"),
}


ALL = {
    "08.drift_diffusion": (RATES_RIGHT, RATES_WRONG),
    "08.family_step": (FAMILY_RIGHT, FAMILY_WRONG),
    "08.predict_joint": (JOINT_RIGHT, JOINT_WRONG),
    "08.denoising_loss": (LOSS_RIGHT, LOSS_WRONG),
    "08.linear_score": (LINEAR_RIGHT, LINEAR_WRONG),
    "08.langevin_variance": (LANGEVIN_RIGHT, LANGEVIN_WRONG),
    "08.break_the_root": (ROOT_RIGHT, ROOT_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "08"
    cases = ALL

    def times(self, name, answer):
        return 1 if is_prediction(name) or name == "08.break_the_root" else 8
