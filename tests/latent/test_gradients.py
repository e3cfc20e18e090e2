"""Two estimates of one gradient, against its closed form for polynomials."""

import pytest
import torch

from course_lib.latent import (
    leave_one_out,
    reparameterization_gradient,
    score_function_gradient,
)
from tests.latent.conftest import assert_mean, randn, refuses

MU = torch.tensor([0.7, -1.2], dtype=torch.float64)
SIGMA = torch.tensor([0.6, 1.4], dtype=torch.float64)
ESTIMATORS = [reparameterization_gradient, score_function_gradient]
each_estimator = pytest.mark.parametrize("estimate", ESTIMATORS)


def cubic(z):
    """E = Σ μ³ + 3 μ σ² plus μ₁ μ₂ (independent): ∂μ = 3 μ² + 3 σ² + the other μ, ∂σ = 6 μ σ."""
    return (z**3).sum(dim=1) + z.prod(dim=1)


@each_estimator
def test_both_are_unbiased(estimate, generator):
    eps = randn(200_000, 2, generator=generator)
    of_mu, of_sigma = estimate(cubic, MU, SIGMA, eps)
    assert of_mu.shape == of_sigma.shape == (200_000, 2)
    assert_mean(of_mu, 3 * MU**2 + 3 * SIGMA**2 + MU.flip(0))
    assert_mean(of_sigma, 6 * MU * SIGMA)


def test_reparameterization_is_the_chain_rule(generator):
    """Draw by draw it is the derivative of f(μ + σ ε), here taken by autograd."""
    eps = randn(5, 2, generator=generator)
    of_mu, of_sigma = reparameterization_gradient(cubic, MU, SIGMA, eps)
    for k in range(5):
        mu, sigma = MU.clone().requires_grad_(), SIGMA.clone().requires_grad_()
        cubic((mu + sigma * eps[k])[None]).backward()
        torch.testing.assert_close(of_mu[k], mu.grad)
        torch.testing.assert_close(of_sigma[k], sigma.grad)


def test_the_score_function_is_f_times_the_score(generator):
    """Draw by draw, with the score by autograd on the log-density."""
    eps = randn(5, 2, generator=generator)
    of_mu, of_sigma = score_function_gradient(cubic, MU, SIGMA, eps)
    for k in range(5):
        mu, sigma = MU.clone().requires_grad_(), SIGMA.clone().requires_grad_()
        z = MU + SIGMA * eps[k]
        torch.distributions.Normal(mu, sigma).log_prob(z).sum().backward()
        torch.testing.assert_close(of_mu[k], cubic(z[None]) * mu.grad)
        torch.testing.assert_close(of_sigma[k], cubic(z[None]) * sigma.grad)


def test_a_linear_function_has_one_gradient_everywhere(generator):
    eps = randn(100, 2, generator=generator)
    of_mu, of_sigma = reparameterization_gradient(
        lambda z: 3 * z[:, 0] - z[:, 1] + 5, MU, SIGMA, eps
    )
    slope = torch.tensor([3.0, -1.0], dtype=torch.float64)
    assert torch.equal(of_mu, slope.expand(100, 2))
    assert torch.equal(of_sigma, slope * eps)


def test_a_constant_added_to_f_makes_only_the_score_function_noisier(generator):
    eps = randn(50_000, 2, generator=generator)
    spreads = {}
    for estimate in ESTIMATORS:
        for c in (0, 1000):
            estimates = torch.cat(estimate(lambda z, c=c: cubic(z) + c, MU, SIGMA, eps), dim=1)
            spreads[estimate, c] = estimates.var(dim=0)
    plain, score = ESTIMATORS
    assert torch.allclose(spreads[plain, 0], spreads[plain, 1000])
    assert (spreads[score, 1000] > 20 * spreads[score, 0]).all()
    # Far above the rest it is c² times the variance of the score: 1/σ², and 2/σ² for σ.
    expected = 1000**2 * torch.cat([1 / SIGMA**2, 2 / SIGMA**2])
    torch.testing.assert_close(spreads[score, 1000], expected, rtol=0.2, atol=0)


@each_estimator
def test_what_comes_out_hangs_on_no_graph(estimate, generator):
    mu, sigma = MU.clone().requires_grad_(), SIGMA.clone().requires_grad_()
    scale = torch.ones(2).double().requires_grad_()
    for eps in (randn(3, 2, generator=generator), randn(1, 2, generator=generator)):
        of_mu, _ = estimate(lambda z: cubic(z * scale), mu.detach(), sigma.detach(), eps)
        assert of_mu.shape == eps.shape
        assert not of_mu.requires_grad
    of_mu, of_sigma = estimate(cubic, mu, sigma, eps)
    expected = estimate(cubic, MU, SIGMA, eps)
    assert torch.equal(of_mu, expected[0])
    assert torch.equal(of_sigma, expected[1])
    assert scale.grad is mu.grad is sigma.grad is None


def test_a_step_function_needs_no_slope(generator):
    """d/dμ P(z > 0) = the density of z at 0, by the score function alone."""
    mu, sigma = torch.tensor([0.3]).double(), torch.tensor([0.8]).double()
    eps = randn(100_000, 1, generator=generator)
    of_mu, _ = score_function_gradient(lambda z: (z[:, 0] > 0).double(), mu, sigma, eps)
    assert_mean(of_mu[:, 0], torch.distributions.Normal(mu, sigma).log_prob(torch.zeros(1)).exp())


EPS = torch.zeros(4, 2, dtype=torch.float64)


@each_estimator
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mu": MU[None]}, "mu must have shape [B], got [1, 2]"),
        ({"mu": MU.long()}, "mu must be a floating-point tensor, got torch.int64"),
        ({"mu": MU.float()}, "sigma must be torch.float32 like the model, got torch.float64"),
        ({"sigma": SIGMA[:1]}, "sigma must have shape [2], got [1]"),
        ({"sigma": SIGMA * 0}, "sigma must be positive, got 0.0"),
        ({"sigma": -SIGMA}, "sigma must be positive, got -1.4"),
        ({"eps": EPS[0]}, "eps must have shape [B, 2], got [2]"),
        ({"eps": EPS[:, :1]}, "eps must have shape [B, 2], got [4, 1]"),
        ({"eps": EPS.float()}, "eps must be torch.float64 like the model, got torch.float32"),
        ({"f": lambda z: z}, "f must return one value for each of the 4 points, got [4, 2]"),
        ({"f": lambda z: z.sum()}, "f must return one value for each of the 4 points, got []"),
        ({"f": lambda z: 3}, "f must return one value for each of the 4 points, got 3"),
    ],
)
def test_bad_arguments_are_named(estimate, changes, message):
    arguments = {"f": cubic, "mu": MU, "sigma": SIGMA, "eps": EPS} | changes
    with refuses(message):
        estimate(**arguments)


def test_leave_one_out_keeps_the_mean_and_takes_noise_away(generator):
    """Over all pairs of draws of a fair coin z = ±1, by enumeration; then with many draws."""
    pairs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    with_baseline = [(f - leave_one_out(f)) * z for z, f in ((z, 10 + 3 * z) for z in pairs)]
    plain = [(10 + 3 * z) * z for z in pairs]
    assert torch.stack(with_baseline).mean() == torch.stack(plain).mean() == 3
    assert torch.stack(with_baseline).var() < torch.stack(plain).var() / 5
    values = randn(50, generator=generator)
    for k in (0, 17, 49):
        others = torch.cat([values[:k], values[k + 1 :]])
        torch.testing.assert_close(leave_one_out(values)[k], others.mean())


def test_leave_one_out_needs_two_draws():
    with refuses("values must hold at least two draws, got 1"):
        leave_one_out(torch.ones(1))
