"""Chapter 06: right answers, written differently, pass; known mistakes are named."""

import math

import numpy as np
import torch

from course_lib.diffusion import DDPM, Denoiser, DiscreteSchedule, convert
from course_lib.exercises import check
from course_lib.exercises.ch06_ddpm import DATA_FACTORS, LOSSES, NOISE_FACTORS, TIMES_TOLD
from course_lib.exercises.formula import declared
from course_lib.experiments import reverse_density
from tests.exercises.laws import ExerciseLaws, from_a_copy, is_prediction


def wide(c, x):
    return c.reshape(-1, *[1] * (x.ndim - 1))


# --- predict_halfway -----------------------------------------------------------------------------

HALFWAY_RIGHT = [0.08, 0.1, torch.tensor(0.0779), np.float64(0.07)]
HALFWAY_WRONG = {
    "root": (0.28, "factor of the data, sqrt(ᾱ)"),
    "the middle": (0.25, "too much"),
    "little": (0.03, "too little"),
}

# --- noise_to ------------------------------------------------------------------------------------


def noise_to(x0, t, eps, alpha_bars):
    ab = wide(alpha_bars[t], x0)
    return ab.sqrt() * x0 + (1 - ab).sqrt() * eps


def noise_each(x0, t, eps, alpha_bars):
    rows = []
    for x, k, e in zip(x0, t.tolist(), eps, strict=True):
        rows.append(math.sqrt(alpha_bars[k]) * x + math.sqrt(1 - alpha_bars[k]) * e)
    return torch.stack(rows)


def schedule_of(alpha_bars):
    return DiscreteSchedule(1 - alpha_bars / torch.cat([alpha_bars.new_ones(1), alpha_bars[:-1]]))


def library_noise(x0, t, eps, alpha_bars):
    return schedule_of(alpha_bars).sample(x0, t, eps)


def twice_as_noisy_first(x0, t, eps, alpha_bars):
    return torch.where(wide(t == 0, x0), x0 + eps, noise_to(x0, t, eps, alpha_bars))


NOISE_RIGHT = [noise_to, noise_each, library_noise]
NOISE_WRONG = {
    "t - 1, clamped": (
        lambda x, t, e, ab: noise_to(x, (t - 1).clamp(min=0), e, ab),
        "one step too early, at t − 1",
    ),
    "odd at 0": (twice_as_noisy_first, "right for t ≥ 1 and wrong at t = 0"),
}

# --- posterior -----------------------------------------------------------------------------------


def parts(t, betas, x):
    alpha_bars = (1 - betas).cumprod(0)
    before = torch.cat([betas.new_ones(1), alpha_bars[:-1]])
    return tuple(wide(c[t], x) for c in (betas, 1 - betas, alpha_bars, before))


def right_mean(x_t, x_0, beta, alpha, now, before):
    return (before.sqrt() * beta * x_0 + alpha.sqrt() * (1 - before) * x_t) / (1 - now)


def right_variance(beta, alpha, now, before):
    return beta * (1 - before) / (1 - now)


def posterior(x_t, x_0, t, betas):
    c = parts(t, betas, x_t)
    return right_mean(x_t, x_0, *c), right_variance(*c)


def posterior_flat(x_t, x_0, t, betas):
    mean, variance = posterior(x_t, x_0, t, betas)
    return mean, variance.flatten()


def posterior_full(x_t, x_0, t, betas):
    mean, variance = posterior(x_t, x_0, t, betas)
    return mean, variance.expand_as(mean)


def library_posterior(x_t, x_0, t, betas):
    return DDPM(lambda x, t: x, DiscreteSchedule(betas)).posterior(x_t, x_0, t)


def posterior_of_the_last(x_t, x_0, t, betas):
    """Takes index −1 for the one before 0."""
    beta, alpha, now, _ = parts(t, betas, x_t)
    c = beta, alpha, now, wide((1 - betas).cumprod(0)[t - 1], x_t)
    return right_mean(x_t, x_0, *c), right_variance(*c)


def posterior_nan(x_t, x_0, t, betas):
    beta, alpha, _, before = parts(t, betas, x_t)
    variance = 1 / (alpha / beta + 1 / (1 - before))
    return variance * (alpha.sqrt() / beta * x_t + before.sqrt() / (1 - before) * x_0), variance


def odd_at_0(x_t, x_0, t, betas):
    mean, variance = posterior(x_t, x_0, t, betas)
    return mean, torch.where(wide(t == 0, x_t), 0.01, variance)


POSTERIOR_RIGHT = [posterior, posterior_flat, posterior_full, library_posterior]


def changed(mean=lambda m: m, variance=lambda v: v):
    def attempt(*inputs):
        m, v = posterior(*inputs)
        return mean(m), variance(v)

    return attempt


POSTERIOR_WRONG = {
    "odd": (changed(mean=lambda m: m + 1), "is not where the product of the two"),
    "odd variance": (changed(variance=lambda v: 3 * v), "Your variance is not that"),
    "one variance": (changed(variance=lambda v: v.mean()), "Your variance has shape []"),
    "float variance": (changed(variance=lambda v: 0.1), "variance is of type float"),
    "last before first": (posterior_of_the_last, "at t = 0 it is not x_0"),
    "NaN at 0": (posterior_nan, "NaN at t = 0"),
    "odd at 0": (odd_at_0, "At t = 0 your variance is not 0"),
    "full first": (lambda *inputs: posterior_full(*inputs)[::-1], "You swap the two results"),
    "short first": (lambda *inputs: posterior(*inputs)[::-1], "You return the variance first"),
    "mean only": (lambda *inputs: posterior(*inputs)[0], "only one result"),
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

# --- ddpm_loss -----------------------------------------------------------------------------------


def times(g, n, low, high):
    return torch.randint(low, high, (n,), generator=g)


def normal(g, *shape):
    return torch.randn(shape, generator=g)


def loss_with(
    *,
    value=lambda said, eps, x0, x_t: (said - eps).square().mean(),
    draw_t=lambda x0, T, g: times(g, len(x0), 0, T),
    draw_eps=lambda x0, g: normal(g, *x0.shape),
    data=torch.sqrt,
    noise=lambda alpha_bars: (1 - alpha_bars).sqrt(),
    told=lambda t, T: t,
    axes=wide,
):
    """The loss, of which a test can replace a part."""

    def attempt(net, x0, alpha_bars, generator):
        t = draw_t(x0, len(alpha_bars), generator)
        eps = draw_eps(x0, generator)
        a, b = axes(data(alpha_bars)[t], x0), axes(noise(alpha_bars)[t], x0)
        x_t = a * x0 + b * eps
        return value(net(x_t, told(t, len(alpha_bars))), eps, x0, x_t)

    return attempt


ddpm_loss = loss_with()
ddpm_loss.__name__ = "ddpm_loss"


def loss_noise_first(net, x0, alpha_bars, generator):
    eps = torch.empty_like(x0).normal_(generator=generator)
    t = (torch.rand(x0.size(0), generator=generator) * alpha_bars.size(0)).floor().long()
    a = alpha_bars[t].sqrt().view(-1, *(1,) * (x0.dim() - 1))
    return torch.nn.functional.mse_loss(net(a * x0 + (1 - a**2).sqrt() * eps, t), eps)


def loss_float_times(net, x0, alpha_bars, generator):
    return ddpm_loss(lambda x, t: net(x, t.float()), x0, alpha_bars, generator)


def library_loss(net, x0, alpha_bars, generator):
    return Denoiser(net, schedule_of(alpha_bars)).loss(x0, generator=generator)


def loss_twice(net, x0, alpha_bars, generator):
    return (ddpm_loss(net, x0, alpha_bars, generator) * 2 + net(x0, torch.zeros(len(x0)))[0]) / 2


def loss_another_t(net, x0, alpha_bars, generator):
    other = torch.randint(len(alpha_bars), (len(x0),), generator=generator)
    return ddpm_loss(lambda x, t: net(x, other), x0, alpha_bars, generator)


def loss_swapped_call(net, x0, alpha_bars, generator):
    return ddpm_loss(lambda x, t: net(t, x), x0, alpha_bars, generator)


def each(part, changes):
    return {said: (loss_with(**{part: change}), said) for said, change in changes.items()}


DRAWS_OF_T = {
    "You copy the generator": lambda x, T, g: times(from_a_copy(g), len(x), 0, T),
    "share one time": lambda x, T, g: times(g, 1, 0, T).expand(len(x)),
    "t = 0 never comes": lambda x, T, g: times(g, len(x), 1, T),
    "t = T − 1 = 11 never comes": lambda x, T, g: times(g, len(x), 0, T - 1),
    "not evenly drawn": lambda x, T, g: times(g, len(x), 0, T**2).sqrt().long(),
    "Your times are the same in every call": lambda x, T, g: torch.arange(len(x)) % T,
}
DRAWS_OF_EPS = {
    "All examples share the same noise": lambda x, g: normal(g, 1, *x.shape[1:]).expand_as(x),
    "All numbers of an example share": lambda x, g: wide(normal(g, len(x)), x).expand_as(x),
    "Your noise is not standard normal": lambda x, g: torch.rand(x.shape, generator=g),
    "not standard normal": lambda x, g: 0.9 * normal(g, *x.shape),
    "your noise comes from elsewhere": lambda x, g: torch.randn_like(x),
    "Your noise is the same": lambda x, g: normal(g.manual_seed(1), *x.shape),
}
LOSS_RIGHT = [ddpm_loss, loss_noise_first, loss_float_times, library_loss]
LOSS_WRONG = {
    **each("told", TIMES_TOLD),
    **each("data", DATA_FACTORS),
    **each("noise", NOISE_FACTORS),
    **{f"{i} {w.says}": (loss_with(value=w.answer), w.says) for i, w in enumerate(LOSSES)},
    "no noise": (loss_with(noise=torch.zeros_like), "You add no noise"),
    "odd data": (loss_with(data=lambda ab: 3 + 0 * ab), "not sqrt(ᾱ_t) x_0 for any t"),
    "columns": (loss_with(axes=lambda c, x: c), "factors run along the last axis"),
    "images only": (
        loss_with(axes=lambda c, x: c[:, None, None, None]),
        "noised data of shape [24",
    ),
    "points only": (
        loss_with(axes=lambda c, x: c[:, None]),
        "Your function stopped with `RuntimeError",
    ),
    "another t": (loss_another_t, "other times than those that you noised to"),
    "scalar t": (
        loss_with(told=lambda t, T: t[0], draw_t=lambda x, T, g: torch.full((len(x),), 3)),
        "times of shape []",
    ),
    **each("draw_t", DRAWS_OF_T),
    **each("draw_eps", DRAWS_OF_EPS),
    "fresh target": (
        loss_with(value=lambda s, e, x, n: (s - torch.randn_like(e)).square().mean()),
        "with the eps that is in x_t",
    ),
    "not reduced": (
        loss_with(value=lambda s, e, x, n: (s - e).square()),
        "Your loss has shape [40",
    ),
    "number": (
        loss_with(value=lambda s, e, x, n: (s - e).square().mean().item()),
        "Your loss is of type float",
    ),
    "detached": (
        loss_with(value=lambda s, e, x, n: (s.detach() - e).square().mean()),
        "No gradient flows",
    ),
    "twice": (loss_twice, "You call the network 2 times"),
    "never": (lambda net, x, ab, g: x.mean(), "You call the network never"),
    "swapped call": (loss_swapped_call, "You call net(t, x_t)"),
    "one input": (lambda net, x, ab, g: net(x).mean(), "You call net(Tensor)"),
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
    "06.noise_to": (NOISE_RIGHT, NOISE_WRONG),
    "06.posterior": (POSTERIOR_RIGHT, POSTERIOR_WRONG),
    "06.x0_from_eps": (X0_RIGHT, X0_WRONG),
    "06.ddpm_sample": (WALK_RIGHT, WALK_WRONG),
    "06.reverse_variance": (WIDTH_RIGHT, WIDTH_WRONG),
    "06.ddpm_loss": (LOSS_RIGHT, LOSS_WRONG),
    "06.break_the_clock": (CLOCK_RIGHT, CLOCK_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "06"
    cases = ALL

    def times(self, name, answer):
        if is_prediction(name) or name == "06.break_the_clock":
            return 1  # nothing is drawn
        return 4 if name == "06.ddpm_loss" else 8


def test_the_input_is_named_on_which_it_broke():
    minus = next(w for w in declared("06")["06.noise_to"].wrong if "subtract" in w.says)
    assert check("06.noise_to", minus.answer).where == (
        "x0 of shape [6, 6], t of shape [6], eps of shape [6, 6], alpha_bars of shape [12]"
    )
