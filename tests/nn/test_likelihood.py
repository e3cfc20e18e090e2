"""The summed log-probabilities against torch.distributions."""

import torch
from torch.distributions import Bernoulli, Normal

from course_lib.nn import bernoulli_log_prob, gaussian_log_prob


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_bernoulli():
    logits = 3 * randn(3, 4, 5)
    x = (randn(3, 4, 5, seed=1) > 0).double()
    expected = Bernoulli(logits=logits).log_prob(x).sum(dim=-1)
    log_prob = bernoulli_log_prob(logits, x)
    assert log_prob.shape == (3, 4)
    torch.testing.assert_close(log_prob, expected, rtol=1e-12, atol=1e-12)
    # The same bits under several logits.
    torch.testing.assert_close(
        bernoulli_log_prob(logits, x[0])[2], bernoulli_log_prob(logits[2], x[0])
    )


def test_bernoulli_far_out():
    """No infinity, where 1 - σ(a) would be rounded to 0; and the gradient is x - σ(a)."""
    logits = torch.tensor([[800.0], [-800.0], [800.0], [-800.0]]).requires_grad_()
    x = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    log_prob = bernoulli_log_prob(logits, x)
    assert log_prob.tolist() == [-800, -800, 0, 0]
    log_prob.sum().backward()
    assert logits.grad.tolist() == [[-1], [1], [0], [0]]


def test_gaussian():
    x, mean, log_var = randn(3, 4, 5), randn(3, 4, 5, seed=1), 2 * randn(3, 4, 5, seed=2)
    expected = Normal(mean, log_var.exp().sqrt()).log_prob(x).sum(dim=-1)
    log_prob = gaussian_log_prob(x, mean, log_var)
    assert log_prob.shape == (3, 4)
    torch.testing.assert_close(log_prob, expected, rtol=1e-12, atol=1e-12)


def test_one_variance_for_all_coordinates():
    x, mean, log_var = randn(4, 5), randn(4, 5, seed=1), randn(seed=2)
    torch.testing.assert_close(
        gaussian_log_prob(x, mean, log_var), gaussian_log_prob(x, mean, log_var.expand(4, 5))
    )


def test_the_densities_integrate_to_one():
    x = torch.linspace(-12, 12, 2001, dtype=torch.float64)[:, None]
    mean, log_var = torch.tensor([[0.7], [-0.4]]).double()
    density = gaussian_log_prob(x, mean, log_var).exp()
    assert abs(torch.trapezoid(density, x[:, 0]) - 1) < 1e-9
    both = bernoulli_log_prob(torch.tensor([[0.3]]).double(), torch.tensor([[0.0], [1.0]]).double())
    assert abs(both.exp().sum() - 1) < 1e-12
