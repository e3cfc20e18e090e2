"""Chapter 06: right answers, written differently, pass; known mistakes are named."""

import math

import numpy as np
import torch

from course_lib.diffusion import DDPM, DiscreteSchedule, convert
from course_lib.exercises import check
from course_lib.exercises.formula import declared
from course_lib.experiments import reverse_density
from tests.exercises.laws import ExerciseLaws, is_prediction


def wide(c, x):
    return c.reshape(-1, *[1] * (x.ndim - 1))


# --- predict_halfway -----------------------------------------------------------------------------

HALFWAY_RIGHT = [0.08, 0.1, torch.tensor(0.0779), np.float64(0.07)]
HALFWAY_WRONG = {
    "root": (0.28, "factor of the data, sqrt(ᾱ)"),
    "the middle": (0.25, "too much"),
    "little": (0.03, "too little"),
}

# --- noise_on ------------------------------------------------------------------------------------


def schedule_of(alpha_bars):
    return DiscreteSchedule(1 - alpha_bars / torch.cat([alpha_bars.new_ones(1), alpha_bars[:-1]]))


def noise_on(x_s, eps, s, t, alpha_bars):
    left = wide(alpha_bars[t] / alpha_bars[s], x_s)
    return left.sqrt() * x_s + (1 - left).sqrt() * eps


def noise_step_by_step(x_s, eps, s, t, alpha_bars):
    """The factors of all single steps: those of the data multiply, variances add up."""
    betas, rows = schedule_of(alpha_bars).betas, []
    for x, e, first, last in zip(x_s, eps, s.tolist(), t.tolist(), strict=True):
        variance = 0.0
        for beta in betas[first + 1 : last + 1].tolist():
            x, variance = math.sqrt(1 - beta) * x, (1 - beta) * variance + beta
        rows.append(x + math.sqrt(variance) * e)
    return torch.stack(rows)


ON_RIGHT = [noise_on, noise_step_by_step]
ON_WRONG = {
    "unchanged": (lambda x_s, *rest: x_s.clone(), "not x_s, noised from s to t"),
    "eps": (lambda x_s, eps, *rest: eps.clone(), "not x_s, noised from s to t"),
}

# --- skip_back -----------------------------------------------------------------------------------


def right_mean(x_t, x_0, beta, alpha, now, before):
    return (before.sqrt() * beta * x_0 + alpha.sqrt() * (1 - before) * x_t) / (1 - now)


def skip_back(x_t, x_0, alpha_bar_s, alpha_bar_t):
    left = alpha_bar_t / alpha_bar_s
    variance = (1 - left) * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    numbers = (wide(c, x_t) for c in (1 - left, left, alpha_bar_t, alpha_bar_s))
    return right_mean(x_t, x_0, *numbers), variance


def by_precisions(x_t, x_0, alpha_bar_s, alpha_bar_t):
    left = alpha_bar_t / alpha_bar_s
    of_x_t, of_x_0 = left / (1 - left), 1 / (1 - alpha_bar_s)
    variance = 1 / (of_x_t + of_x_0)
    pull = wide(of_x_t / left.sqrt(), x_t) * x_t + wide(of_x_0 * alpha_bar_s.sqrt(), x_t) * x_0
    return wide(variance, x_t) * pull, variance


def posterior_of_a_short_schedule(x_t, x_0, alpha_bar_s, alpha_bar_t):
    """The library's posterior, on a schedule of two steps for each example."""
    rows = []
    for x, d, s, t in zip(x_t, x_0, alpha_bar_s, alpha_bar_t, strict=True):
        model = DDPM(lambda x, t: x, schedule_of(torch.stack([s, t])))
        mean, variance = model.posterior(x.reshape(1, -1), d.reshape(1, -1), torch.tensor([1]))
        rows.append((mean.reshape(x.shape), variance.flatten()[0]))
    means, variances = zip(*rows, strict=True)
    return torch.stack(means), torch.stack(variances)


BACK_RIGHT = [skip_back, by_precisions, posterior_of_a_short_schedule]
BACK_WRONG = {
    "odd": (lambda x, d, s, t: (x + d, skip_back(x, d, s, t)[1]), "is not where q(x_t | x_s)"),
    "odd variance": (
        lambda x, d, s, t: (skip_back(x, d, s, t)[0], t / 7),
        "Your variance is not that",
    ),
    "one variance": (
        lambda x, d, s, t: (skip_back(x, d, s, t)[0], t.mean()),
        "Your variance has shape []",
    ),
}

# --- x0_from_eps ---------------------------------------------------------------------------------


def x0_from_eps(x_t, eps, t, alpha_bars):
    ab = wide(alpha_bars[t], x_t)
    return (x_t - (1 - ab).sqrt() * eps) / ab.sqrt()


def x0_by_ratio(x_t, eps, t, alpha_bars):
    ab = alpha_bars[t].view([len(t)] + [1] * (x_t.dim() - 1))
    return ab**-0.5 * x_t - (1 / ab - 1) ** 0.5 * eps


def library_x0(x_t, eps, t, alpha_bars):
    path = schedule_of(alpha_bars)
    return convert(eps, source="eps", target="x0", x_t=x_t, t=t, path=path)


X0_WRONG = {
    "nothing at 0": (
        lambda x, e, t, ab: torch.where(wide(t == 0, x), x, x0_from_eps(x, e, t, ab)),
        "right for t ≥ 1 and wrong at t = 0",
    ),
}
X0_RIGHT = [x0_from_eps, x0_by_ratio, library_x0]

# --- ddpm_sample ---------------------------------------------------------------------------------


def my_ddpm_sample(net, z, betas, noises):
    alphas = 1 - betas
    alpha_bars, x = alphas.cumprod(0), z
    for t in reversed(range(len(betas))):
        eps = net(x, torch.full((len(x),), t))
        x = (x - betas[t] / (1 - alpha_bars[t]).sqrt() * eps) / alphas[t].sqrt()
        if t:
            x = x + betas[t].sqrt() * noises[t]
    return x


def sample_by_guesses(net, z, betas, noises):
    """By way of the guess of x_0 and the posterior's mean."""
    ab = torch.cat([torch.ones(1), (1 - betas).cumprod(0)])  # the data first
    x, T = z, len(betas)
    for t in range(T - 1, -1, -1):
        now, before = ab[t + 1], ab[t]
        eps = net(x, torch.full((len(z),), t))
        guess = (x - (1 - now) ** 0.5 * eps) / now**0.5
        x = right_mean(x, guess, betas[t], 1 - betas[t], now, before)
        x = x + (t > 0) * betas[t] ** 0.5 * noises[t]
    return x


def library_sample(net, z, betas, noises):
    model = DDPM(net, DiscreteSchedule(betas), variance="beta")
    x = z
    for t in reversed(range(len(betas))):
        mean, variance = model.reverse(x, t)
        x = mean if t == 0 else mean + variance.sqrt() * noises[t]
    return x


WALK_RIGHT = [my_ddpm_sample, sample_by_guesses, library_sample]
WALK_WRONG = {
    "plain times": (
        lambda net, z, betas, noises: my_ddpm_sample(lambda x, t: net(x, 3), z, betas, noises),
        "a time of int",
    ),
}

# --- reverse_variance ----------------------------------------------------------------------------


def before_and_now(betas):
    alpha_bars = (1 - betas).cumprod(0)
    return torch.cat([torch.ones(1), alpha_bars[:-1]]), alpha_bars


def reverse_variance(t, betas, std):
    before, _ = before_and_now(betas)
    v = before[t] * std**2 + 1 - before[t]
    return v * betas[t] / ((1 - betas[t]) * v + betas[t])


def width_by_the_posterior(t, betas, std):
    """β̃ and what not knowing x_0 adds."""
    before, now = (p[t] for p in before_and_now(betas))
    of_x_0 = before.sqrt() * betas[t] / (1 - now)
    known = std**2 * (1 - now) / (now * std**2 + 1 - now)  # Var(x_0 | x_t)
    return (1 - before) / (1 - now) * betas[t] + of_x_0**2 * known


def width_each(t, betas, std):
    path, centre = DiscreteSchedule(betas), torch.zeros(1, dtype=torch.float64)
    widths = [
        reverse_density(0.3, k, k - 1, path=path, centres=centre, std=std).variance()
        for k in t.tolist()
    ]
    return torch.tensor(widths)


WIDTH_RIGHT = [reverse_variance, width_by_the_posterior, width_each]
WIDTH_WRONG = {
    "index −1 at 0": (
        lambda t, betas, std: torch.where(t == 0, betas[t] / 2, reverse_variance(t, betas, std)),
        "not that of the product",
    ),
}

# --- uneven_loss ---------------------------------------------------------------------------------


def uneven_loss(net, x0, eps, t, share, alpha_bars):
    said = net(noise_on(x0, eps, 0 * t, t + 1, torch.cat([torch.ones(1), alpha_bars])), t)
    each = ((said - eps) ** 2).flatten(1).mean(dim=1)
    return (each / (len(share) * share[t])).mean()


def loss_example_by_example(net, x0, eps, t, share, alpha_bars):
    total = 0
    for k in range(len(x0)):
        x_t = schedule_of(alpha_bars).noised(x0[k : k + 1], t[k : k + 1], eps[k : k + 1])
        error = torch.nn.functional.mse_loss(net(x_t, t[k : k + 1]), eps[k : k + 1])
        total = total + error / share[t[k]] / share.numel()
    return total / x0.size(0)


UNEVEN_RIGHT = [uneven_loss, loss_example_by_example]
UNEVEN_WRONG = {
    "constant": (lambda net, x0, *rest: x0.mean(), "The mean of your loss is not the simple"),
    "swapped call": (lambda net, x0, eps, t, *rest: net(x=x0, t=t).mean(), "You call `net("),
}

# --- break_the_clock -----------------------------------------------------------------------------


def earlier(t, T):
    return max(t - 3, 0)


def earlier_by_two(t, T):
    return torch.tensor(t - 2).clamp(min=0)


def rounded_down(t, T):
    return float(max(0, t // 2 * 2 - 2))


CLOCK_RIGHT = [earlier, earlier_by_two, rounded_down]
CLOCK_WRONG = {
    "right": (lambda t, T: t, "Your clock is right"),
    "later": (lambda t, T: min(t + 3, T - 1), "You tell the network later times"),
    "one step": (lambda t, T: max(t - 1, 0), "Too little happens"),
    "mostly later": (
        lambda t, T: t - 1 if t == 30 else min(t + 3, T - 1),
        "land too near the middle",
    ),
    "below 0": (lambda t, T: t - 3, "clock(0, 50) is -3"),
    "past the end": (lambda t, T: t + 1, "clock(49, 50) is 50; the last time is 49"),
    "backwards": (lambda t, T: T - 1 - t, "off by 49 steps, and 3 are allowed"),
    "fraction": (lambda t, T: t * 0.9, "not a whole number"),
    "infinite": (lambda t, T: -math.inf, "clock(0, 50) is -inf"),
    "word": (lambda t, T: str(t), "of type str"),
    "True": (lambda t, T: t > 3, "of type bool"),
}


ALL = {
    "06.predict_halfway": (HALFWAY_RIGHT, HALFWAY_WRONG),
    "06.noise_on": (ON_RIGHT, ON_WRONG),
    "06.skip_back": (BACK_RIGHT, BACK_WRONG),
    "06.x0_from_eps": (X0_RIGHT, X0_WRONG),
    "06.ddpm_sample": (WALK_RIGHT, WALK_WRONG),
    "06.reverse_variance": (WIDTH_RIGHT, WIDTH_WRONG),
    "06.uneven_loss": (UNEVEN_RIGHT, UNEVEN_WRONG),
    "06.break_the_clock": (CLOCK_RIGHT, CLOCK_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "06"
    cases = ALL

    def times(self, name, answer):
        return 1 if is_prediction(name) or name == "06.break_the_clock" else 8


def test_the_input_is_named_on_which_it_broke():
    minus = next(w for w in declared("06")["06.noise_on"].wrong if "subtract the" in w.says)
    assert check("06.noise_on", minus.answer).where == (
        "x_s of shape [6, 6], eps of shape [6, 6], s of shape [6], t of shape [6], "
        "alpha_bars of shape [12]"
    )


def test_the_mean_of_an_uneven_loss_is_the_simple_loss():
    """Over all times, each as often as its share: an exact mean."""
    share, alpha_bars = torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.tensor([0.9, 0.7, 0.4, 0.1])
    x0, eps = torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(0))

    def of(t, share):
        return uneven_loss(lambda x, t: x * t[:, None], x0, eps, t, share, alpha_bars)

    times, even = torch.arange(4)[:, None], torch.full((4,), 0.25)
    mean = sum(p * of(t, share) for p, t in zip(share, times, strict=True))
    torch.testing.assert_close(mean, sum(of(t, even) for t in times) / 4)
