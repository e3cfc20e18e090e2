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
    "NaN": (math.nan, "You gave `nan`"),
    "word": ("in the middle", "You gave a str"),
    "False": (False, "You gave a bool"),
}

# --- ddim_times ----------------------------------------------------------------------------------


def my_times(T, steps):
    return [round(T * i / steps) - 1 for i in range(1, steps + 1)]


def times_floored(T, steps):
    return [T * i // steps - 1 for i in range(1, steps + 1)]


def times_tensor(T, steps):
    return (torch.arange(1, steps + 1) * T / steps).ceil().long() - 1


def times_from_the_end(T, steps):
    return [T - 1 - i * T // steps for i in range(steps)][::-1]


def times_linspace(T, steps):
    """From 0 to T − 1; with a single step T − 1 alone."""
    return np.linspace(T - 1, 0, steps).round().astype(int)[::-1]


def times_tuple(T, steps):
    return tuple(int(T * (i + 1) / steps + 1e-9) - 1 for i in range(steps))


def library_times(T, steps):
    return diffusion.ddim_times(T, steps)


def edited(edit):
    return lambda T, steps: edit(my_times(T, steps), T, steps)


TIMES_RIGHT = [
    my_times,
    times_floored,
    times_tensor,
    times_from_the_end,
    times_linspace,
    times_tuple,
    library_times,
]
TIMES_WRONG = {
    "from 1": (lambda T, n: [round(T * i / n) for i in range(1, n + 1)], "Your last time is T = 1"),
    "falling": (lambda T, n: my_times(T, n)[::-1], "Your times fall"),
    "from 0": (lambda T, n: [T * i // n for i in range(n)], "Your last time is 900"),
    "the paper's": (lambda T, n: list(range(0, T, T // n)), "Your last time is 900"),
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
    "one too few": (lambda T, n: my_times(T, n)[1:], "You give 9 times"),
    "quadratic": (
        lambda T, n: diffusion.ddim_times(T, n, "quadratic"),
        "not evenly spread for T = 1000, steps = 10",
    ),
    "the last": (lambda T, n: list(range(T - n, T)), "is too far from the data"),
    "the first": (lambda T, n: list(range(n)), "Your last time is 9"),
    "twice": (edited(lambda t, T, n: [t[1], *t[1:]]), "199 comes after 199"),
    "unsorted": (edited(lambda t, T, n: [t[1], t[0], *t[2:]]), "99 comes after 199"),
    "negative": (edited(lambda t, T, n: [-1, *t[1:]]), "Time -1 does not exist"),
    "nothing": (lambda T, n: [], "You give 0 times"),
    "number": (lambda T, n: T // n, "Your times are of type int"),
    "two axes": (lambda T, n: times_tensor(T, n)[None], "Your times have shape [1, 10]"),
    "10 always": (lambda T, n: my_times(T, 10), "You give 10 times for T = 1000, steps = 7"),
    "1000 always": (
        lambda T, n: my_times(1000, n),
        "for T = 100, steps = 100: the times are 0 ... 99",
    ),
}

# --- One step ------------------------------------------------------------------------------------


def my_ddim_step(x_t, eps, alpha_bar, alpha_bar_next):
    x_0 = (x_t - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
    return alpha_bar_next.sqrt() * x_0 + (1 - alpha_bar_next).sqrt() * eps


def step_by_floats(x_t, eps, alpha_bar, alpha_bar_next):
    ab, to = float(alpha_bar), float(alpha_bar_next)
    return math.sqrt(to / ab) * (x_t - math.sqrt(1 - ab) * eps) + math.sqrt(1 - to) * eps


def step_scaled(x_t, eps, alpha_bar, alpha_bar_next):
    """Euler's step in x / a, of which the noise level b / a is the time."""
    level, level_next = (1 / alpha_bar - 1) ** 0.5, (1 / alpha_bar_next - 1) ** 0.5
    return (x_t / alpha_bar**0.5 + (level_next - level) * eps) * alpha_bar_next**0.5


def step_by_angle(x_t, eps, alpha_bar, alpha_bar_next):
    """A turn in the plane of x_0 and eps."""
    phi, phi_next = torch.acos(alpha_bar.sqrt()), torch.acos(alpha_bar_next.sqrt())
    x_0 = (x_t - phi.sin() * eps) / phi.cos()
    return phi_next.cos() * x_0 + phi_next.sin() * eps


def library_step(x_t, eps, alpha_bar, alpha_bar_next):
    a, b = float(alpha_bar) ** 0.5, (1 - float(alpha_bar)) ** 0.5
    then = float(alpha_bar_next) ** 0.5, (1 - float(alpha_bar_next)) ** 0.5
    if b == 0:
        return then[0] * x_t + then[1] * eps
    return diffusion.ddim_step(x_t, (x_t - b * eps) / a, now=(a, b), then=then)


def by(formula):
    """An attempt by a formula of x, eps, and a, b here and there."""

    def attempt(x, eps, ab, to):
        return formula(x, eps, ab.sqrt(), (1 - ab).sqrt(), to.sqrt(), (1 - to).sqrt())

    return attempt


def step_drawing(x_t, eps, alpha_bar, alpha_bar_next):
    return my_ddim_step(x_t, torch.randn_like(x_t), alpha_bar, alpha_bar_next)


def step_in_place(x_t, eps, alpha_bar, alpha_bar_next):
    x_t -= (1 - alpha_bar).sqrt() * eps
    return (alpha_bar_next / alpha_bar).sqrt() * x_t + (1 - alpha_bar_next).sqrt() * eps


STEP_MISTAKES = {
    "drawing": (step_drawing, "it is drawn at random"),
    "odd": (lambda *inputs: my_ddim_step(*inputs) + 1, "with the guess of x_0"),
    "in place": (step_in_place, "Your function changes its input"),
    "double": (lambda *inputs: my_ddim_step(*inputs).double(), "dtype float64"),
    "first alone": (lambda *inputs: my_ddim_step(*inputs)[0], "Your x has shape [2]"),
    "pair": (lambda *inputs: (my_ddim_step(*inputs), inputs[1]), "returns a tuple of 2"),
}
STEP_RIGHT = [my_ddim_step, step_by_floats, step_scaled, step_by_angle, library_step]


DDIM_WRONG = {
    **STEP_MISTAKES,
    "swapped": (lambda x, e, ab, to: my_ddim_step(x, e, to, ab), "You swap now and next"),
    "inverse data": (
        lambda x, e, ab, to: x / ab.sqrt() if to == 1 else my_ddim_step(x, e, ab, to),
        "Your step to the data, ᾱ' = 1",
    ),
    "NaN": (by(lambda x, e, a, b, c, d: (a**2 - c**2).sqrt() * x), "is a number under a root neg"),
}


def by_level(x, eps, ab, to):
    """Finds eps again from x and the guess of x_0: 0 / 0 at the data."""
    x_0 = (x - (1 - ab).sqrt() * eps) / ab.sqrt()
    again = (x - ab.sqrt() * x_0) / (1 - ab).sqrt()
    return to.sqrt() * x_0 + (1 - to).sqrt() * again


INVERT_WRONG = {
    **STEP_MISTAKES,
    "swapped": (lambda x, e, ab, to: my_ddim_step(x, e, to, ab), "You swap now and next"),
    "divides by b": (by_level, "you divide by sqrt(1 − ᾱ) = 0"),
    "data as they are": (
        lambda x, e, ab, to: x.clone() if ab == 1 else my_ddim_step(x, e, ab, to),
        "Your first step, from the data at ᾱ = 1",
    ),
}

# --- ddim_sigma ----------------------------------------------------------------------------------


def ddim_sigma(ab, to, eta):
    return eta * ((1 - to) / (1 - ab)).sqrt() * (1 - ab / to).sqrt()


def sigma_of_posterior(ab, to, eta):
    alpha = ab / to
    return eta * torch.sqrt((1 - alpha) * (1 - to) / (1 - ab))


def sigma_each(ab, to, eta):
    pairs = zip(ab.tolist(), to.tolist(), strict=True)
    return torch.tensor([eta * math.sqrt((1 - n) / (1 - m) * (1 - m / n)) for m, n in pairs])


def sigma_by_levels(ab, to, eta):
    """With b / a: σ / a' = eta · (b' / a') · sqrt(1 − (b' / a')² / (b / a)²)."""
    level, after = (1 - ab) / ab, (1 - to) / to
    return eta * (to * after * (1 - after / level)).sqrt()


def sigma_or_nothing(ab, to, eta):
    return torch.zeros_like(ab) if eta == 0 else ddim_sigma(ab, to, eta)


def sigma_in_place(ab, to, eta):
    return eta * ((1 - to) / (1 - ab) * ab.div_(to).mul_(-1).add_(1)).sqrt()


SIGMA_RIGHT = [ddim_sigma, sigma_of_posterior, sigma_each, sigma_by_levels, sigma_or_nothing]
SIGMA_WRONG = {
    "swapped": (lambda m, n, eta: ddim_sigma(n, m, eta), "Your σ is NaN"),
    "at 0": (
        lambda m, n, eta: ddim_sigma(m, n, eta) + (eta == 0) * 0.1,
        "At eta = 0 your σ² is not eta² times",
    ),
    "at the data": (
        lambda m, n, eta: torch.where(n == 1, eta * (1 - m).sqrt(), ddim_sigma(m, n, eta)),
        "In a step to the data, ᾱ' = 1, your σ is not 0",
    ),
    "odd": (lambda m, n, eta: 5 * ddim_sigma(m, n, eta), "variance of DDPM's posterior"),
    "mean": (lambda m, n, eta: ddim_sigma(m, n, eta).mean(), "Your σ has shape []"),
    "number": (lambda m, n, eta: float(ddim_sigma(m, n, eta)[0]), "Your σ is of type float"),
    "in place": (sigma_in_place, "changes its input `alpha_bar` in place"),
}

# --- ddim_step_eta -------------------------------------------------------------------------------


def noisy_ddim_step(x_t, eps, ab, to, sigma, noise):
    x_0 = (x_t - (1 - ab).sqrt() * eps) / ab.sqrt()
    return to.sqrt() * x_0 + (1 - to - sigma**2).sqrt() * eps + sigma * noise


def noisy_step_mixed(x_t, eps, ab, to, sigma, noise):
    """The step without noise, with a mixture of both noises of variance 1."""
    share = sigma / (1 - to).sqrt()
    mixture = (1 - share**2).sqrt() * eps + share * noise
    x_0 = (x_t - (1 - ab).sqrt() * eps) / ab.sqrt()
    return to.sqrt() * x_0 + (1 - to).sqrt() * mixture


def noisy_step_by_floats(x_t, eps, ab, to, sigma, noise):
    ab, to, sigma = float(ab), float(to), float(sigma)
    x = (to / ab) ** 0.5 * x_t
    x = x + (math.sqrt(1 - to - sigma**2) - math.sqrt(to / ab * (1 - ab))) * eps
    return torch.add(x, noise, alpha=sigma)


def library_noisy_step(x_t, eps, ab, to, sigma, noise):
    ab, to, sigma = float(ab), float(to), float(sigma)
    (a, b), then = (ab**0.5, (1 - ab) ** 0.5), (to**0.5, (1 - to) ** 0.5)
    eta = sigma / (then[1] / b * (1 - ab / to) ** 0.5)
    x_0 = (x_t - b * eps) / a
    return diffusion.ddim_step(x_t, x_0, now=(a, b), then=then, eta=eta, noise=noise)


def noisy_by(formula, guess=lambda x, e, ab, to: (x - (1 - ab).sqrt() * e) / ab.sqrt()):
    """An attempt by a formula of eps, noise, sigma and 1 − ᾱ', beside the guess of x_0."""

    def attempt(x, eps, ab, to, sigma, noise):
        return to.sqrt() * guess(x, eps, ab, to) + formula(eps, noise, sigma, 1 - to)

    return attempt


def room(s, v):
    return (v - s**2).sqrt()


def noisy_in_place(x_t, eps, ab, to, sigma, noise):
    noise *= sigma
    return noisy_ddim_step(x_t, eps, ab, to, sigma, noise / sigma)


NOISY_RIGHT = [noisy_ddim_step, noisy_step_mixed, noisy_step_by_floats, library_noisy_step]
NOISY_WRONG = {
    "swapped": (noisy_by(lambda e, n, s, v: s * e + room(s, v) * n), "You swap eps and the fresh"),
    "own noise": (
        lambda x, e, ab, to, s, n: noisy_ddim_step(x, e, ab, to, s, torch.randn_like(x)),
        "it is drawn at random",
    ),
    "at 0": (
        lambda x, e, ab, to, s, n: noisy_ddim_step(x, e, ab, to, s, n) + (s == 0),
        "At sigma = 0 your step is not",
    ),
    "odd": (
        lambda *inputs: noisy_ddim_step(*inputs) + 1,
        "is not sqrt(ᾱ') x_0 + sqrt(1 − ᾱ' − σ²)",
    ),
    "in place": (noisy_in_place, "changes its input `noise` in place"),
    "double": (lambda *inputs: noisy_ddim_step(*inputs).double(), "dtype float64"),
}

# --- ddim_sample ---------------------------------------------------------------------------------


def sampler(
    *,
    told=lambda times, i: times[i],
    here=lambda table, times, i: table[times[i]],
    there=lambda table, times, i: table[times[i - 1]] if i else torch.ones(()),
    order=lambda n: reversed(range(n)),
    chosen=lambda times, T: times,
    step=my_ddim_step,
):
    """A right sampler, of which a test can replace a part."""

    def attempt(net, z, alpha_bars, times):
        times, x = chosen(times, len(alpha_bars)), z
        for i in order(len(times)):
            eps = net(x, torch.full((len(x),), told(times, i)))
            x = step(x, eps, here(alpha_bars, times, i), there(alpha_bars, times, i))
        return x

    return attempt


my_ddim_sample = sampler()
my_ddim_sample.__name__ = "my_ddim_sample"


def sample_by_pairs(net, z, alpha_bars, times):
    x, now = z.clone(), times[-1]
    for then in [*times[-2::-1], None]:
        eps = net(x, now * torch.ones(x.shape[0], dtype=torch.long))
        to = torch.tensor(1.0) if then is None else alpha_bars[then]
        x, now = step_scaled(x, eps, alpha_bars[now], to), then
    return x


def sample_recursively(net, z, alpha_bars, times):
    if not times:
        return z
    *before, t = times
    to = alpha_bars[before[-1]] if before else torch.tensor(1.0)
    eps = net(z, torch.full(z.shape[:1], float(t)))
    return sample_recursively(net, my_ddim_step(z, eps, alpha_bars[t], to), alpha_bars, before)


def sample_with_clean_table(net, z, alpha_bars, times):
    table = torch.cat([torch.ones(1), alpha_bars])  # the paper's: 0 is the data
    x = z
    for now, then in zip(times[::-1], [*times[-2::-1], -1], strict=True):
        eps = net(x, torch.tensor([now] * len(x)))
        x = my_ddim_step(x, eps, table[now + 1], table[then + 1])
    return x


def library_sample(net, z, alpha_bars, times):
    alphas = alpha_bars / torch.cat([alpha_bars.new_ones(1), alpha_bars[:-1]])
    model = Denoiser(net, DiscreteSchedule(1 - alphas))
    model.path.sampling_times = lambda steps, spacing: times
    return diffusion.last(diffusion.ddim_sample(model, z.shape, steps=len(times), z=z))


def sample_keeping_the_first_eps(net, z, alpha_bars, times):
    eps = net(z, torch.full((len(z),), times[-1]))
    return sampler(step=lambda x, e, ab, to: my_ddim_step(x, eps, ab, to))(
        net, z, alpha_bars, times
    )


def sample_eating_its_list(net, z, alpha_bars, times):
    return sample_by_pairs(net, z, alpha_bars, [times.pop(0), *times])


def sample_all_states(net, z, alpha_bars, times):
    return [z, my_ddim_sample(net, z, alpha_bars, times)]


def sample_with_plain_times(net, z, alpha_bars, times):
    return my_ddim_sample(lambda x, t: net(x, int(t[0])), z, alpha_bars, times)


def sample_drawing(net, z, alpha_bars, times):
    return my_ddim_sample(net, torch.randn_like(z), alpha_bars, times)


SAMPLE_RIGHT = [
    my_ddim_sample,
    sample_by_pairs,
    sample_recursively,
    sample_with_clean_table,
    library_sample,
]
SAMPLE_WRONG = {
    "stops": (
        sampler(order=lambda n: range(n - 1, 0, -1) if n > 1 else [0]),
        "You stop at the first of the times",
    ),
    "without the first": (
        sampler(chosen=lambda times, T: times[1:] or times),
        "You leave out the first of the times",
    ),
    "without the last": (
        sampler(chosen=lambda times, T: times[:-1] or times),
        "You leave out the last of the times",
    ),
    "one eps": (sample_keeping_the_first_eps, "or the network's first answer in all of them"),
    "odd": (
        lambda *inputs: my_ddim_sample(*inputs) + 1,
        "is not what DDIM's steps make of z",
    ),
    "one time": (
        lambda net, z, table, times: (
            z.clone() if len(times) == 1 else my_ddim_sample(net, z, table, times)
        ),
        "With a single time, T − 1",
    ),
    "drawing": (sample_drawing, "it is drawn at random"),
    "plain times": (sample_with_plain_times, "a time of int"),
    "one input": (lambda net, z, table, times: net(z), "You call `net(…)`"),
    "states": (sample_all_states, "is a list of 2, not a tensor"),
    "eats its list": (sample_eating_its_list, "changes its input `times` in place"),
    "in place": (
        lambda net, z, table, times: my_ddim_sample(net, z.mul_(2), table, times),
        "changes its input `z` in place",
    ),
}

# --- predict_midpoint ----------------------------------------------------------------------------

MIDPOINT_RIGHT = [0.7, math.sqrt(0.5), np.float32(0.71), torch.tensor(0.7071)]
MIDPOINT_WRONG = {
    "as long": (1, "pointed the same way"),
    "half": (0.5, "variance of its numbers"),
    "sum": (1.41, "the length of the sum"),
    "two": (2, "longer than both"),
    "zero": (0, "if the two were opposite"),
    "length": (19.8, "That is its length"),
    "their length": (28, "the length of the two"),
    "long": (0.9, "0.9 is too long"),
    "short": (0.6, "0.6 is too short"),
    "infinite": (math.inf, "You gave `inf`"),
    "word": ("half", "You gave a str"),
    "True": (True, "You gave a bool"),
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


def slerp_each(z0, z1, w):
    rows = []
    for a, b in zip(z0, z1, strict=True):
        cosine = float((a * b).sum() / math.sqrt(float((a * a).sum() * (b * b).sum())))
        theta = math.acos(cosine)
        weights = math.sin((1 - w) * theta), math.sin(w * theta)
        rows.append((weights[0] * a + weights[1] * b) / math.sin(theta))
    return torch.stack(rows)


def slerp_by_cosine_similarity(z0, z1, w):
    cosine = torch.cosine_similarity(z0.reshape(len(z0), -1), z1.reshape(len(z1), -1)).double()
    theta = torch.acos(cosine)
    out = torch.einsum("b,b...->b...", torch.sin((1 - w) * theta) / torch.sin(theta), z0.double())
    out = out + torch.einsum("b,b...->b...", torch.sin(w * theta) / torch.sin(theta), z1.double())
    return out.float()


def slerp_by_turning(z0, z1, w):
    """Directions turn evenly, lengths go straight: another custom, the same for noise."""
    l0, l1 = (wide(z.flatten(1).norm(dim=1), z) for z in (z0, z1))
    return ((1 - w) * l0 + w * l1) * my_slerp(z0 / l0, z1 / l1, w)


def library_slerp(z0, z1, w):
    return diffusion.slerp(z0, z1, w)


def arc_with(weights, angle=angles):
    def attempt(z0, z1, w):
        first, second = weights(angle(z0, z1), w)
        return first * z0 + second * z1

    return attempt


def length(z):
    return wide(z.flatten(1).norm(dim=1), z)


def unbounded_angle(z0, z1):
    return wide((3 + (z0 * z1).flatten(1).sum(1).abs()).acos(), z0)


def usual(t, w):
    return ((1 - w) * t).sin() / t.sin(), (w * t).sin() / t.sin()


def slerp_in_place(z0, z1, w):
    theta = angles(z0, z1)
    z0 *= ((1 - w) * theta).sin()
    return (z0 + (w * theta).sin() * z1) / theta.sin()


SLERP_RIGHT = [my_slerp, slerp_each, slerp_by_cosine_similarity, slerp_by_turning, library_slerp]
SLERP_WRONG = {
    "1 - w": (lambda z0, z1, w: my_slerp(z0, z1, 1 - w), "You swap z0 and z1"),
    "NaN": (arc_with(usual, unbounded_angle), "Your z is NaN"),
    "odd": (lambda z0, z1, w: 2 * my_slerp(z0, z1, w), "is not on the arc"),
    "at 0": (lambda z0, z1, w: my_slerp(z0, z1, w) + (w == 0), "At w = 0 your z is not z0"),
    "at 1": (lambda z0, z1, w: my_slerp(z0, z1, w) + (w == 1), "At w = 1 your z is not z1"),
    "in place": (slerp_in_place, "changes its input `z0` in place"),
    "flat": (lambda z0, z1, w: my_slerp(z0, z1, w).flatten(), "Your z has shape [15]"),
    "double": (lambda *inputs: my_slerp(*inputs).double(), "dtype float64"),
}

# --- break_the_times -----------------------------------------------------------------------------


def near_the_noise(T, steps):
    return list(range(T - steps, T))


def near_the_data(T, steps):
    return [*range(steps - 1), T - 1]


def around_the_middle(T, steps):
    return torch.tensor([*range(495, 494 + steps), T - 1])


def late(T, steps):
    return np.linspace(600, T - 1, steps).astype(int)


BREAK_RIGHT = [near_the_noise, near_the_data, around_the_middle, late]
BREAK_WRONG = {
    "even": (my_times, "Only 1% are lost"),
    "linspace": (lambda T, n: torch.linspace(0, T - 1, n).long(), "is not enough"),
    "quadratic": (lambda T, n: diffusion.ddim_times(T, n, "quadratic"), "is not enough"),
    "half as early": (
        lambda T, n: [*range(30, 300, 30), T - 1],
        "The longest step goes from t = 999, where 0.0% of the variance are data, to t = 270",
    ),
    "to the data": (
        lambda T, n: [300, *range(400, 1000, 70), T - 1][-n:],
        "to the data, and that is not enough",
    ),
    "too few": (lambda T, n: [T - 1], "You give 1 times"),
    "falling": (lambda T, n: near_the_noise(T, n)[::-1], "Your times fall"),
    "short": (lambda T, n: list(range(n)), "Your last time is 9"),
    "from 1": (lambda T, n: list(range(T - n + 1, T + 1)), "Your last time is T = 1000"),
    "twice": (lambda T, n: [5] * (n - 1) + [T - 1], "5 comes after 5"),
    "floats": (lambda T, n: torch.linspace(T - n, T - 1, n), "not a whole number"),
    "number": (lambda T, n: T - 1, "Your times are of type int"),
}


ALL = {
    "07.predict_one_step": (ONE_STEP_RIGHT, ONE_STEP_WRONG),
    "07.ddim_times": (TIMES_RIGHT, TIMES_WRONG),
    "07.ddim_step": (STEP_RIGHT, DDIM_WRONG),
    "07.ddim_sigma": (SIGMA_RIGHT, SIGMA_WRONG),
    "07.ddim_step_eta": (NOISY_RIGHT, NOISY_WRONG),
    "07.ddim_sample": (SAMPLE_RIGHT, SAMPLE_WRONG),
    "07.invert_step": (STEP_RIGHT, INVERT_WRONG),
    "07.predict_midpoint": (MIDPOINT_RIGHT, MIDPOINT_WRONG),
    "07.slerp": (SLERP_RIGHT, SLERP_WRONG),
    "07.break_the_times": (BREAK_RIGHT, BREAK_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "07"
    cases = ALL
    strange = (
        torch.zeros(7, 2, device="meta"),
        torch.zeros(4, 3, device="meta"),
        torch.zeros(5, 3, device="meta"),
        torch.zeros(8, device="meta"),
    )

    def times(self, name, answer):
        if is_prediction(name) or name == "07.break_the_times":
            return 1  # nothing is drawn, or hardly
        return 4 if name == "07.ddim_sample" else 8


def test_the_input_is_named_on_which_it_broke():
    assert "T=1000, steps=7" in check("07.ddim_times", TIMES_WRONG["strided"][0]).where
