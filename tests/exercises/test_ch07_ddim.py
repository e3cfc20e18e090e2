"""Chapter 07: right answers, written differently, pass; known mistakes are named."""

import math

import numpy as np
import torch

from course_lib import diffusion
from course_lib.diffusion import Denoiser, DiscreteSchedule
from course_lib.exercises import check
from tests.exercises.laws import ExerciseLaws, is_prediction

# --- predict_one_step ----------------------------------------------------------------------------

ONE_STEP_RIGHT = [0, 0.0, torch.tensor(0.05)]
ONE_STEP_WRONG = {
    "a cluster": (2, "There are only half of the data"),
    "the other": (-2.0, "There are only half of the data"),
    "both": ((-2, 2), "You gave two numbers"),
    "halfway": (1, "Halfway would cost more"),
    "far": (10, "Around 10 there are no samples"),
}

# --- ddim_times ----------------------------------------------------------------------------------


def my_times(T, steps):
    return [round(T * i / steps) - 1 for i in range(1, steps + 1)]


def times_tensor(T, steps):
    return (torch.arange(1, steps + 1) * T / steps).ceil().long() - 1


def times_linspace(T, steps):
    """From 0 to T − 1; with a single step T − 1 alone."""
    return np.linspace(T - 1, 0, steps).round().astype(int)[::-1]


def edited(edit):
    return lambda T, steps: edit(my_times(T, steps), T, steps)


TIMES_RIGHT = [my_times, times_tensor, times_linspace, diffusion.ddim_times]
TIMES_WRONG = {
    "from 1": (lambda T, n: [round(T * i / n) for i in range(1, n + 1)], "Your last time is T = 1"),
    "falling": (lambda T, n: my_times(T, n)[::-1], "Your times fall"),
    "strided": (
        lambda T, n: list(range(T // n - 1, T, T // n)),
        "Your last time is 993 for T = 1000, steps = 7",
    ),
    "linspace": (
        lambda T, n: torch.linspace(0, T - 1, n).round().long(),
        "With a single step you give t = 0",
    ),
    "floats": (lambda T, n: torch.linspace(T / n - 1, T - 1, n), "not a whole number"),
    "one too many": (lambda T, n: [0, *my_times(T, n)], "You give 11 times"),
    "quadratic": (
        lambda T, n: diffusion.ddim_times(T, n, "quadratic"),
        "not evenly spread for T = 1000, steps = 10",
    ),
    "the last": (lambda T, n: list(range(T - n, T)), "is too far from the data"),
    "unsorted": (edited(lambda t, T, n: [t[1], t[0], *t[2:]]), "99 comes after 199"),
    "negative": (edited(lambda t, T, n: [-1, *t[1:]]), "Time -1 does not exist"),
    "nothing": (lambda T, n: [], "You give 0 times"),
    "number": (lambda T, n: T // n, "Your times are of type int"),
    "two axes": (lambda T, n: times_tensor(T, n)[None], "Your times have shape [1, 10]"),
    "1000 always": (
        lambda T, n: my_times(1000, n),
        "for T = 100, steps = 100: the times are 0 ... 99",
    ),
}

# --- One step ------------------------------------------------------------------------------------


def my_ddim_step(x_t, eps, alpha_bar, alpha_bar_next):
    x_0 = (x_t - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
    return alpha_bar_next.sqrt() * x_0 + (1 - alpha_bar_next).sqrt() * eps


def step_scaled(x_t, eps, alpha_bar, alpha_bar_next):
    """Euler's step in x / a, of which the noise level b / a is the time."""
    level, level_next = (1 / alpha_bar - 1) ** 0.5, (1 / alpha_bar_next - 1) ** 0.5
    return (x_t / alpha_bar**0.5 + (level_next - level) * eps) * alpha_bar_next**0.5


def library_step(x_t, eps, alpha_bar, alpha_bar_next):
    a, b = float(alpha_bar) ** 0.5, (1 - float(alpha_bar)) ** 0.5
    then = float(alpha_bar_next) ** 0.5, (1 - float(alpha_bar_next)) ** 0.5
    if b == 0:
        return then[0] * x_t + then[1] * eps
    return diffusion.ddim_step(x_t, (x_t - b * eps) / a, now=(a, b), then=then)


STEP_RIGHT = [my_ddim_step, step_scaled, library_step]


def v_step(x_t, v, alpha_bar, alpha_bar_next):
    a, b = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return alpha_bar_next.sqrt() * (a * x_t - b * v) + (1 - alpha_bar_next).sqrt() * (
        b * x_t + a * v
    )


def turned(x_t, v, alpha_bar, alpha_bar_next):
    by = torch.acos(alpha_bar.sqrt()) - torch.acos(alpha_bar_next.sqrt())
    return torch.cos(by) * x_t - torch.sin(by) * v


def by_eps(x_t, v, alpha_bar, alpha_bar_next):
    eps = (1 - alpha_bar) ** 0.5 * x_t + alpha_bar**0.5 * v
    return library_step(x_t, eps, alpha_bar, alpha_bar_next)


V_RIGHT = [v_step, turned, by_eps]
V_WRONG = {
    "at the data": (
        lambda x, v, ab, to: x.clone() if to == 1 else v_step(x, v, ab, to),
        "Your step to the data, ᾱ' = 1",
    ),
    "NaN": (lambda x, v, ab, to: (ab - to).sqrt() * x, "is a number under a root neg"),
}


def by_level(x, eps, ab, to):
    """Finds eps again from x and the guess of x_0: 0 / 0 at the data."""
    x_0 = (x - (1 - ab).sqrt() * eps) / ab.sqrt()
    again = (x - ab.sqrt() * x_0) / (1 - ab).sqrt()
    return to.sqrt() * x_0 + (1 - to).sqrt() * again


INVERT_WRONG = {
    "divides by b": (by_level, "you divide by sqrt(1 − ᾱ) = 0"),
    "data as they are": (
        lambda x, e, ab, to: x.clone() if ab == 1 else my_ddim_step(x, e, ab, to),
        "Your first step, from the data at ᾱ = 1",
    ),
}

# --- ddim_step_eta -------------------------------------------------------------------------------


def noisy_ddim_step(x_t, eps, ab, to, sigma, noise):
    x_0 = (x_t - (1 - ab).sqrt() * eps) / ab.sqrt()
    return to.sqrt() * x_0 + (1 - to - sigma**2).sqrt() * eps + sigma * noise


def library_noisy_step(x_t, eps, ab, to, sigma, noise):
    ab, to, sigma = float(ab), float(to), float(sigma)
    (a, b), then = (ab**0.5, (1 - ab) ** 0.5), (to**0.5, (1 - to) ** 0.5)
    eta = sigma / (then[1] / b * (1 - ab / to) ** 0.5)
    x_0 = (x_t - b * eps) / a
    return diffusion.ddim_step(x_t, x_0, now=(a, b), then=then, eta=eta, noise=noise)


NOISY_RIGHT = [noisy_ddim_step, library_noisy_step]
NOISY_WRONG = {
    "at 0": (
        lambda x, e, ab, to, s, n: noisy_ddim_step(x, e, ab, to, s, n) + (s == 0),
        "At sigma = 0 your step is not",
    ),
}

# --- ddim_sample ---------------------------------------------------------------------------------


def my_ddim_sample(net, z, alpha_bars, times):
    x = z
    for i in reversed(range(len(times))):
        to = alpha_bars[times[i - 1]] if i else torch.ones(())
        eps = net(x, torch.full((len(x),), times[i]))
        x = my_ddim_step(x, eps, alpha_bars[times[i]], to)
    return x


def sample_by_pairs(net, z, alpha_bars, times):
    x, now = z.clone(), times[-1]
    for then in [*times[-2::-1], None]:
        eps = net(x, now * torch.ones(x.shape[0], dtype=torch.long))
        to = torch.tensor(1.0) if then is None else alpha_bars[then]
        x, now = step_scaled(x, eps, alpha_bars[now], to), then
    return x


def library_sample(net, z, alpha_bars, times):
    alphas = alpha_bars / torch.cat([alpha_bars.new_ones(1), alpha_bars[:-1]])
    model = Denoiser(net, DiscreteSchedule(1 - alphas))
    model.path.sampling_times = lambda steps, spacing: times
    return diffusion.last(diffusion.ddim_sample(model, z.shape, steps=len(times), z=z))


SAMPLE_RIGHT = [my_ddim_sample, sample_by_pairs, library_sample]
SAMPLE_WRONG = {
    "without the first": (
        lambda net, z, table, times: my_ddim_sample(net, z, table, times[1:] or times),
        "You leave out the first of the times",
    ),
    "one time": (
        lambda net, z, table, times: (
            z.clone() if len(times) == 1 else my_ddim_sample(net, z, table, times)
        ),
        "With a single time, T − 1",
    ),
    "plain times": (lambda net, z, table, times: net(z, times[0]), "a time of int"),
}

# --- predict_midpoint ----------------------------------------------------------------------------

MIDPOINT_RIGHT = [0.7, math.sqrt(0.5), np.float32(0.71), torch.tensor(0.7071)]
MIDPOINT_WRONG = {
    "length": (19.8, "That is its length"),
    "long": (0.9, "0.9 is too long"),
    "short": (0.6, "0.6 is too short"),
}

# --- slerp ---------------------------------------------------------------------------------------


def wide(c, z):
    return c.reshape(-1, *[1] * (z.ndim - 1))


def angles(z0, z1):
    u, v = z0.flatten(1), z1.flatten(1)
    return wide(((u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))).acos(), z0)


def my_slerp(z0, z1, w):
    theta = angles(z0, z1)
    return (((1 - w) * theta).sin() * z0 + (w * theta).sin() * z1) / theta.sin()


def slerp_by_turning(z0, z1, w):
    """Directions turn evenly, lengths go straight: another custom, the same for noise."""
    l0, l1 = (wide(z.flatten(1).norm(dim=1), z) for z in (z0, z1))
    return ((1 - w) * l0 + w * l1) * my_slerp(z0 / l0, z1 / l1, w)


SLERP_RIGHT = [my_slerp, slerp_by_turning]
SLERP_WRONG = {
    "at 0": (lambda z0, z1, w: my_slerp(z0, z1, w) + (w == 0), "At w = 0 your z is not z0"),
    "at 1": (lambda z0, z1, w: my_slerp(z0, z1, w) + (w == 1), "At w = 1 your z is not z1"),
}

# --- gaussian_flow -------------------------------------------------------------------------------


def gaussian_flow(z, std, alpha_bar):
    return std * z / (alpha_bar * std**2 + 1 - alpha_bar).sqrt()


def flow_by_quantiles(z, std, alpha_bar):
    """On a line the flow keeps the order: what is so many deviations out stays so many out."""
    now = torch.distributions.Normal(0.0, (alpha_bar.double() * (std**2 - 1) + 1).sqrt())
    return torch.distributions.Normal(0.0, std).icdf(now.cdf(z.double())).float()


def flow_by_small_steps(z, std, alpha_bar):
    """Midpoint steps of dy / dρ = ρ y / (std² + ρ²)."""
    a, rho = alpha_bar.double().sqrt(), (1 / alpha_bar.double() - 1).sqrt()
    y, h = z.double() / a, rho / 2000
    for k in range(2000, 0, -1):
        half = y - h / 2 * (k * h) * y / (std**2 + (k * h) ** 2)
        y = y - h * ((k - 0.5) * h) * half / (std**2 + ((k - 0.5) * h) ** 2)
    return y.float()


FLOW_RIGHT = [gaussian_flow, flow_by_quantiles, flow_by_small_steps]
FLOW_WRONG = {
    "moved at std = 1": (
        lambda z, std, ab: z + 0.1 if std == 1 else gaussian_flow(z, std, ab),
        "For std = 1 your x is not z",
    ),
}

# --- break_the_times -----------------------------------------------------------------------------


def near_the_noise(T, steps):
    return list(range(T - steps, T))


def around_the_middle(T, steps):
    return torch.tensor([*range(495, 494 + steps), T - 1])


def late(T, steps):
    return np.linspace(600, T - 1, steps).astype(int)


BREAK_RIGHT = [near_the_noise, around_the_middle, late]
BREAK_WRONG = {
    "even": (my_times, "Only 1% are lost"),
    "half as early": (
        lambda T, n: [*range(30, 300, 30), T - 1],
        "The longest step goes from t = 999, where 0.0% of the variance are data, to t = 270",
    ),
    "to the data": (
        lambda T, n: [300, *range(400, 1000, 70), T - 1][-n:],
        "to the data, and that is not enough",
    ),
    "falling": (lambda T, n: near_the_noise(T, n)[::-1], "Your times fall"),
    "number": (lambda T, n: T - 1, "Your times are of type int"),
}


ALL = {
    "07.predict_one_step": (ONE_STEP_RIGHT, ONE_STEP_WRONG),
    "07.ddim_times": (TIMES_RIGHT, TIMES_WRONG),
    "07.v_step": (V_RIGHT, V_WRONG),
    "07.ddim_step_eta": (NOISY_RIGHT, NOISY_WRONG),
    "07.ddim_sample": (SAMPLE_RIGHT, SAMPLE_WRONG),
    "07.invert_step": (STEP_RIGHT, INVERT_WRONG),
    "07.predict_midpoint": (MIDPOINT_RIGHT, MIDPOINT_WRONG),
    "07.slerp": (SLERP_RIGHT, SLERP_WRONG),
    "07.gaussian_flow": (FLOW_RIGHT, FLOW_WRONG),
    "07.break_the_times": (BREAK_RIGHT, BREAK_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "07"
    cases = ALL

    def times(self, name, answer):
        if is_prediction(name) or name == "07.break_the_times":
            return 1  # nothing is drawn, or hardly
        return 4 if name == "07.ddim_sample" else 8


def test_the_input_is_named_on_which_it_broke():
    assert "T=1000, steps=7" in check("07.ddim_times", TIMES_WRONG["strided"][0]).where
