"""KL divergences and reparameterized draws of diagonal Gaussians."""

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from course_lib.latent import best_log_var, gaussian_kl, reparameterize
from tests.latent.conftest import assert_mean, randn, refuses, seeded

numbers = st.floats(-4, 4)
quads = st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=4)


def columns(rows):
    """Four tensors ``[1, d]`` from d rows of four numbers."""
    return tuple(torch.tensor(rows, dtype=torch.float64).T[:, None])


@settings(max_examples=50, deadline=None)
@given(quads)
def test_kl_against_torch(rows):
    mu, log_var, m, log_s = columns(rows)
    ours = gaussian_kl(mu, log_var, m, log_s)
    q, p = Normal(mu, (log_var / 2).exp()), Normal(m, (log_s / 2).exp())
    torch.testing.assert_close(ours, kl_divergence(q, p).sum(dim=1), rtol=1e-9, atol=1e-9)
    assert ours.item() > -1e-12
    assert gaussian_kl(mu, log_var, mu, log_var).item() == 0


def test_kl_without_a_second_pair_is_from_the_standard_gaussian(generator):
    mu, log_var, m, log_s = randn(4, 6, 3, generator=generator)
    zero = torch.zeros_like(mu)
    for pair, full in [((None, None), (zero, zero)), ((m, None), (m, zero))]:
        expected = gaussian_kl(mu, log_var, *full)
        assert expected.shape == (6,)
        torch.testing.assert_close(gaussian_kl(mu, log_var, *pair), expected)
    expected = gaussian_kl(mu, log_var, zero, log_s)
    torch.testing.assert_close(gaussian_kl(mu, log_var, other_log_var=log_s), expected)
    assert gaussian_kl(zero, zero).tolist() == [0] * 6


def test_kl_is_the_integral():
    """∫ q log q/p on a grid, and in the other direction another number."""
    x = torch.linspace(-30, 30, 20_001, dtype=torch.float64)
    first, second = (torch.tensor(t).double() for t in [(0.8, -1.1), (-0.5, 0.7)])
    for (mu, log_var), (m, log_s) in [(first, second), (second, first)]:
        q, p = Normal(mu, (log_var / 2).exp()), Normal(m, (log_s / 2).exp())
        integral = torch.trapezoid(q.log_prob(x).exp() * (q.log_prob(x) - p.log_prob(x)), x)
        ours = gaussian_kl(*(t.reshape(1, 1) for t in (mu, log_var, m, log_s)))
        assert abs(ours.item() - integral.item()) < 1e-9
    there = gaussian_kl(*(t.reshape(1, 1) for t in (*first, *second)))
    back = gaussian_kl(*(t.reshape(1, 1) for t in (*second, *first)))
    assert abs(there - back) > 0.5


def test_kl_is_the_mean_of_the_log_ratio_of_draws(generator):
    mu, log_var, m, log_s = 0.5 * randn(4, 1, 3, generator=generator)
    n = 20_000
    z = reparameterize(mu.expand(n, 3), log_var.expand(n, 3), generator=generator)
    ratio = Normal(mu, (log_var / 2).exp()).log_prob(z) - Normal(m, (log_s / 2).exp()).log_prob(z)
    assert_mean(ratio.sum(dim=1), gaussian_kl(mu, log_var, m, log_s)[0])


def test_kl_of_a_code_that_is_hardly_used_is_exact():
    """In float32, where e^a − 1 − a of a near 0 would be rounding alone."""
    log_var = torch.tensor([[1e-3], [-1e-3], [3e-4]])
    exact = gaussian_kl(torch.zeros_like(log_var).double(), log_var.double())
    torch.testing.assert_close(exact, log_var[:, 0].double() ** 2 / 4, rtol=1e-3, atol=0)
    ours = gaussian_kl(torch.zeros_like(log_var), log_var)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=0)


def test_kl_is_positive_but_for_equals(generator):
    mu, log_var = randn(2, 50, 1, generator=generator)
    assert (gaussian_kl(mu, log_var, mu + 1e-3, log_var) > 0).all()
    assert (gaussian_kl(mu, log_var, mu, log_var + 1e-3) > 0).all()


def test_draws_have_the_mean_and_the_variance(generator):
    mu, log_var = randn(2, 3, generator=generator)
    z = reparameterize(mu.expand(50_000, 3), log_var.expand(50_000, 3), generator=generator)
    assert z.shape == (50_000, 3)
    assert_mean(z, mu)
    assert_mean((z - mu) ** 2, log_var.exp())
    for i in range(3):
        q = scipy.stats.norm(mu[i].item(), (log_var[i] / 2).exp().item())
        assert scipy.stats.kstest(z[:, i].numpy(), q.cdf).pvalue > 1e-6


def test_a_draw_is_the_mean_and_sigma_times_the_noise(generator):
    """In every digit: the noise has the precision of the parameters."""
    mu, log_var = randn(2, 4, 3, generator=generator)
    expected = mu + (log_var / 2).exp() * randn(4, 3, generator=seeded(5))
    torch.testing.assert_close(reparameterize(mu, log_var, generator=seeded(5)), expected)


def test_the_gradient_flows_through_a_draw(generator):
    """dz/dμ = 1 and dz/d log σ² = σ ε / 2 = (z - μ) / 2, for each element."""
    mu, log_var = (t.requires_grad_() for t in randn(2, 4, 3, generator=generator))
    z = reparameterize(mu, log_var, generator=generator)
    of_mu, of_log_var = torch.autograd.grad(z.sum(), (mu, log_var))
    assert torch.equal(of_mu, torch.ones(4, 3).double())
    torch.testing.assert_close(of_log_var, (z - mu) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_generator_decides(dtype):
    mu, log_var = torch.zeros(2, 4, 5, 6, dtype=dtype)
    z = reparameterize(mu, log_var, generator=seeded(3))
    assert z.dtype == dtype
    assert torch.equal(z, reparameterize(mu, log_var, generator=seeded(3)))
    assert not torch.equal(z, reparameterize(mu, log_var, generator=seeded(4)))
    before = torch.random.get_rng_state()
    reparameterize(mu, log_var, generator=seeded(3))
    assert torch.equal(before, torch.random.get_rng_state())
    reparameterize(mu, log_var)
    assert not torch.equal(before, torch.random.get_rng_state())


ONES = torch.ones(2, 3)
ORDINARY = "must be a floating-point tensor, got torch.int64"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], ONES), "mu must be a tensor of any shape but an empty one, got list"),
        ((ONES, ONES[0]), "log_var must have shape [2, 3], got [3]"),
        ((ONES, ONES[:1]), "log_var must have shape [2, 3], got [1, 3]"),
        ((ONES, ONES.double()), "log_var must be torch.float32 like the model, got torch.float64"),
        ((ONES.long(), ONES.long()), f"mu {ORDINARY}"),
    ],
)
def test_bad_parameters_of_a_draw_are_named(arguments, message):
    with refuses(message):
        reparameterize(*arguments)


def test_a_seed_is_not_a_generator():
    with refuses("generator must be a torch.Generator or None, got 3"):
        reparameterize(ONES, ONES, generator=3)
    meta = torch.zeros(2, device="meta")
    with refuses("mu must be an ordinary dense tensor, got one that holds no numbers"):
        reparameterize(meta, meta, generator=seeded())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ONES[0], ONES[0]), "mu must have shape [B, any], got [3]"),
        ((ONES.long(), ONES), f"mu {ORDINARY}"),
        ((ONES, ONES[:1]), "log_var must have shape [2, 3], got [1, 3]"),
        ((ONES, ONES.double()), "log_var must be torch.float32 like the model, got torch.float64"),
        ((ONES, ONES, ONES[:1]), "other_mu must have shape [2, 3], got [1, 3]"),
        (
            (ONES, ONES, ONES.double()),
            "other_mu must be torch.float32 like the model, got torch.float64",
        ),
        ((ONES, ONES, ONES, ONES[:1]), "other_log_var must have shape [2, 3], got [1, 3]"),
        (
            (ONES, ONES, None, ONES.double()),
            "other_log_var must be torch.float32 like the model, got torch.float64",
        ),
    ],
)
def test_bad_gaussians_are_named(arguments, message):
    with refuses(message):
        gaussian_kl(*arguments)


def test_several_draws_are_draws_of_an_expanded_gaussian(generator):
    mu, log_var = randn(2, 4, 3, generator=generator)
    z = reparameterize(mu, log_var, 5, generator=seeded(1))
    several = (t.expand(5, 4, 3) for t in (mu, log_var))
    assert torch.equal(z, reparameterize(*several, generator=seeded(1)))
    for n_samples in (0, -1, 1.0, True):
        with refuses(f"n_samples must be an integer of at least 1, got {n_samples!r}"):
            reparameterize(mu, log_var, n_samples)


def test_no_number_is_looked_at():
    """Models ask once, at the door; here a NaN stays one, unhidden."""
    nan = torch.full((2, 3), torch.nan)
    for mu, log_var in ((nan, ONES), (ONES, nan)):
        assert reparameterize(mu, log_var).isnan().all()
        assert gaussian_kl(mu, log_var).isnan().all()
        assert gaussian_kl(ONES, ONES, mu, log_var).isnan().all()


def test_the_best_variance_is_the_mean_squared_error(generator):
    x, mean = randn(6, 4, generator=generator), randn(6, 4, generator=generator)
    best = best_log_var(x, mean).requires_grad_()
    log_prob = torch.distributions.Normal(mean, (0.5 * best).exp()).log_prob(x).sum()
    (slope,) = torch.autograd.grad(log_prob, best)
    assert slope.abs() < 1e-10
    for other in (best - 0.1, best + 0.1):
        worse = torch.distributions.Normal(mean, (0.5 * other).exp()).log_prob(x).sum()
        assert worse < log_prob
