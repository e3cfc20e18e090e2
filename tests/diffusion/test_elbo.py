"""The ELBO: term by term against closed forms, and below log p where log p is known."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from course_lib.diffusion import DDPM, DiscreteSchedule
from course_lib.nn import TimeMLP
from tests.diffusion.conftest import (
    GAUSSIAN,
    MIXTURE,
    coefficients,
    optimal,
    randn,
    refuses,
    seeded,
)

each_variance = pytest.mark.parametrize("variance", ["posterior", "beta"])


def normal(mean, variance):
    return Normal(mean, torch.as_tensor(variance, dtype=torch.float64).sqrt())


def ddpm(schedule, net=None, **options):
    return DDPM(net or optimal(GAUSSIAN, schedule), schedule, **options).double()


@each_variance
def test_each_term_is_a_kl(variance):
    """By PyTorch's distributions, with the same noise."""
    schedule = DiscreteSchedule.linear(6)
    model = ddpm(schedule, optimal(MIXTURE, schedule), variance=variance)
    x = randn(5, 2)
    terms = model.elbo_terms(x, generator=seeded(1))
    assert terms.shape == (7, 5)
    noise = seeded(1)
    a, b, *_ = coefficients(schedule, torch.arange(6))
    for t in range(6):
        eps = torch.randn(5, 2, generator=noise, dtype=torch.float64)
        x_t = a[t] * x + b[t] * eps
        mean, step = model.reverse(x_t, t)
        if t == 0:
            expected = -normal(mean, schedule.betas[0]).log_prob(x)
        else:
            expected = kl_divergence(normal(*model.posterior(x_t, x, t)), normal(mean, step))
        torch.testing.assert_close(terms[t], expected.sum(1), rtol=1e-6, atol=1e-6)
    prior = kl_divergence(normal(a[5] * x, b[5] ** 2), normal(torch.zeros(()).double(), 1.0))
    torch.testing.assert_close(terms[6], prior.sum(1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(model.elbo(x, generator=seeded(1)), -terms.sum(0))
    assert (terms[1:] >= 0).all()


def test_images_are_points_in_another_shape():
    schedule = DiscreteSchedule.linear(4)
    model = ddpm(schedule, lambda x, t: x.sin() / (1 + t.reshape(-1, *[1] * (x.ndim - 1))))
    x = torch.randint(5, (3, 2, 2, 2), generator=seeded()).double() / 2 - 1
    for levels in (None, 5):
        terms = model.elbo_terms(x, levels=levels, generator=seeded(1))
        flat = model.elbo_terms(x.flatten(1), levels=levels, generator=seeded(1))
        torch.testing.assert_close(terms, flat)
        assert terms.shape == (5, 3)


def expected_terms(schedule, variance):
    """The terms averaged over Gaussian data and all noise, for the best network: in closed form.

    KL of two Gaussians is half of (squared distance of the means + variance) / variance - 1 - the
    log of the variances' ratio, for each of two dimensions. The means differ by the posterior's
    factor of x_0 times x_0 - E[x_0 | x_t], whose square is the trace of Cov(x_0 | x_t).
    """
    T = len(schedule)
    beta = schedule.betas.double()
    a, b, *_ = coefficients(schedule, torch.arange(T))
    left = [GAUSSIAN.left(a[t], b[t]).trace() for t in range(T)]
    terms = [(left[0] / beta[0] + 2 * (2 * math.pi * beta[0]).log()) / 2]
    for t in range(1, T):
        true = b[t - 1] ** 2 / b[t] ** 2 * beta[t]
        step = true if variance == "posterior" else beta[t]
        factor = a[t - 1] * beta[t] / b[t] ** 2
        terms.append((factor**2 * left[t] / step + 2 * (true / step - 1 - (true / step).log())) / 2)
    square = GAUSSIAN.cov.trace() + GAUSSIAN.mean.square().sum()
    terms.append((a[-1] ** 2 * square + 2 * (b[-1] ** 2 - 1 - 2 * b[-1].log())) / 2)
    return torch.stack(terms)


def finer(T):
    """T steps between the same ends, each the same step down in log-SNR."""
    alpha_bars = torch.linspace(7, -8, T, dtype=torch.float64).sigmoid()
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bars[:-1]])
    return DiscreteSchedule(1 - alpha_bars / before)


@each_variance
def test_the_bound_on_gaussian_data(variance):
    """It lies below the exact log p on average; the gap is known, and shrinks with finer steps."""
    entropy = 1 + math.log(2 * math.pi) + 0.5 * GAUSSIAN.cov.det().log()
    gaps = []
    for T in (6, 24, 96):
        schedule = finer(T)
        expected = expected_terms(schedule, variance)
        gaps.append(expected.sum() - entropy)
        if T == 96:
            continue
        x = GAUSSIAN.sample(20_000, seeded(T))
        terms = ddpm(schedule, variance=variance).elbo_terms(x, generator=seeded(T + 1))
        error = terms.std(1) / 20_000**0.5
        assert ((terms.mean(1) - expected).abs() < 4.5 * error + 1e-6).all()
        gap = GAUSSIAN.log_prob(x) + terms.sum(0)
        assert abs(gap.mean() - gaps[-1]) < 4.5 * gap.std() / 20_000**0.5
        assert gap.mean() > 4.5 * gap.std() / 20_000**0.5 or T > 6
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2] > 0


# --- grey levels -------------------------------------------------------------------------------


def test_grey_levels_have_probabilities():
    """The reconstruction's probabilities of all levels add up to 1, by the error function."""
    schedule = DiscreteSchedule(torch.tensor([0.05, 0.3]))
    model = ddpm(schedule, lambda x, t: x.sin())
    grey = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    # Noise drawn so that the first noised x is the same for every level.
    a, b, *_ = (c[0].item() for c in coefficients(schedule, torch.tensor([0])))
    model.noise = lambda shape, generator: (0.4 - a * grey) / b
    terms = model.elbo_terms(grey, levels=6)
    mean, _ = model.reverse(torch.tensor([[0.4]]).double(), 0)
    law = normal(mean[0, 0], schedule.betas[0])
    edges = torch.tensor([-math.inf, -0.8, -0.4, 0.0, 0.4, 0.8, math.inf]).double()
    below = law.cdf(edges.clamp(-50, 50))
    expected = below[1:] - below[:-1]
    torch.testing.assert_close((-terms[0]).exp(), expected, rtol=1e-6, atol=1e-12)
    assert abs((-terms[0]).exp().sum() - 1) < 1e-9


@each_variance
@pytest.mark.parametrize("T", [2, 3])
def test_the_bound_on_grey_levels(variance, T):
    """One pixel, a network made by hand, everything integrated: the ELBO is below log P(x).

    P(x) comes from the prior, step by step, on a grid; the ELBO's averages from the same grid.
    """
    betas = torch.tensor([0.1, 0.4, 0.6][:T])
    schedule = DiscreteSchedule(betas)
    model = ddpm(
        schedule, lambda x, t: (1.5 * x + 0.3 * t[:, None]).tanh() + 0.2, variance=variance
    )
    grid = torch.linspace(-12, 12, 1601, dtype=torch.float64)[:, None]
    spacing = 24 / 1600
    grey = torch.linspace(-1, 1, 4, dtype=torch.float64)[:, None]

    density = normal(torch.zeros(()).double(), 1.0).log_prob(grid).exp()  # of x at t = T - 1
    for t in reversed(range(1, T)):
        mean, step = model.reverse(grid, t)
        to = normal(mean, step).log_prob(grid.T).exp()  # [from, to]
        density = (to * density * spacing).sum(0)[:, None]
    assert abs(density.sum() * spacing - 1) < 1e-6
    mean, _ = model.reverse(grid, 0)
    law = normal(mean, betas[0])
    edges = torch.tensor([-50, -2 / 3, 0, 2 / 3, 50], dtype=torch.float64)
    cdf = law.cdf(edges)
    probability = ((cdf[:, 1:] - cdf[:, :-1]) * density * spacing).sum(0)
    assert abs(probability.sum() - 1) < 1e-6

    weight = normal(torch.zeros(()).double(), 1.0).log_prob(grid[:, 0]).exp() * spacing
    model.noise = lambda shape, generator: grid
    for level, p in zip(grey, probability, strict=True):
        terms = model.elbo_terms(level.expand(1601, 1), levels=4)
        elbo = -(terms * weight).sum()
        assert elbo < p.log()
        assert elbo > p.log() - 6


def test_a_clip_cuts_the_guesses_off_and_nothing_else():
    schedule = DiscreteSchedule.linear(20)
    model = DDPM(lambda x, t: -x, schedule).double()  # guesses far out where a is small
    x = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    free, wide, tight = (
        model.elbo_terms(x, clip=clip, generator=seeded(1)) for clip in (None, 1e6, 1.0)
    )
    assert torch.equal(free, wide)
    assert tight[-2] < free[-2]
    assert torch.equal(tight[-1], free[-1])  # the prior
    for t in (3, 15):
        x_t = schedule.noised(x, t, torch.randn(2, generator=seeded(2), dtype=torch.float64)[None])
        mean, variance = model.posterior(x_t, model.predict_x0(x_t, t).clamp(-1, 1), t)
        torch.testing.assert_close(model.reverse(x_t, t, clip=1.0), (mean, variance))


def test_the_elbo_can_be_trained():
    """Its gradient is finite at the lowest and the highest level, too, and reaches the network."""
    model = DDPM(TimeMLP(4, [8]), DiscreteSchedule.linear(5)).double()
    x = torch.tensor([[-1.0, 1.0, 0.0, -1.0]]).double()
    for levels in (None, 3):
        model.zero_grad()
        model.elbo(x, levels=levels, generator=seeded()).sum().backward()
        for p in model.parameters():
            assert p.grad.isfinite().all()
            assert (p.grad != 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_elbo_follows_its_generator(dtype):
    model = DDPM(TimeMLP(2, [8]), DiscreteSchedule.linear(5)).to(dtype)
    x = randn(3, 2).to(dtype)
    state = torch.get_rng_state()
    first = model.elbo(x, generator=seeded(1))
    assert first.shape == (3,)
    assert first.dtype == dtype
    assert torch.equal(first, model.elbo(x, generator=seeded(1)))
    assert not torch.equal(first, model.elbo(x, generator=seeded(2)))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(model.elbo(x), model.elbo(x))


def test_single_precision_is_enough_for_many_steps():
    schedule = DiscreteSchedule.linear(300)
    net = optimal(GAUSSIAN, schedule)
    x = GAUSSIAN.sample(4, seeded())
    exact = ddpm(schedule).elbo_terms(x, generator=seeded(1))

    single = DDPM(lambda x, t: net(x.double(), t).float(), schedule)
    noise = seeded(1)
    single.noise = lambda shape, _: torch.randn(shape, generator=noise, dtype=torch.float64).float()
    terms = single.elbo_terms(x.float()).double()
    assert ((terms - exact).sum(0).abs() < 0.05).all()


def test_bad_arguments_are_named():
    model = ddpm(DiscreteSchedule.linear(3), lambda x, t: pytest.fail("the network was called"))
    x = torch.tensor([[-1.0, 0.0, 1.0]]).double()
    for way in (model.elbo, model.elbo_terms):
        for levels in (1, 0, 2.0, True):
            with refuses(f"levels must be an integer of at least 2, got {levels!r}"):
                way(x, levels=levels)
        with refuses("generator must be a torch.Generator or None, got 3"):
            way(x, generator=3)
        with refuses("x must be torch.float64 like the model, got torch.float32"):
            way(x.float())
        with refuses("x must be finite, got NaN or infinite values"):
            way(x / 0)
        with refuses("x must have any shape but an empty one, got [0, 3]"):
            way(x[:0])
        for stray, levels, got in ((0.5, 3, "0.5"), (0.0, 2, "0"), (2.0, 3, "2"), (-3.0, 3, "-3")):
            with refuses(f"x must hold {levels} grey levels from -1 to 1, got {got}"):
                way(torch.tensor([[1.0, stray]]).double(), levels=levels)


def test_grey_levels_may_be_rounded():
    grey = torch.arange(256) / 255 * 2 - 1
    model = DDPM(lambda x, t: torch.zeros_like(x), DiscreteSchedule.linear(2))
    assert model.elbo(grey[None], levels=256).isfinite().all()
    with refuses("x must hold 255 grey levels from -1 to 1, got -0.976471"):
        model.elbo(grey[None], levels=255)
