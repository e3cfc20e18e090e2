"""The summed log-probabilities against torch.distributions."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from course_lib.nn import (
    bernoulli_log_prob,
    discretized_gaussian_log_prob,
    gaussian_log_prob,
)


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


# --- grey levels of a Gaussian -----------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_grey_levels_take_the_parts_of_a_gaussian(levels):
    grey = torch.linspace(-1, 1, levels, dtype=torch.float64)
    mean, std = torch.tensor([[-1.7], [-0.3], [0.0], [0.9]]).double(), torch.tensor(0.4).double()
    log_prob = discretized_gaussian_log_prob(grey.expand(4, -1), mean, std, levels)
    assert log_prob.shape == (4, levels)
    torch.testing.assert_close(log_prob.exp().sum(1), torch.ones(4).double())
    edges = (grey[1:] + grey[:-1]) / 2
    below = Normal(mean, std).cdf(edges)
    below = torch.cat([torch.zeros(4, 1), below, torch.ones(4, 1)], dim=1)
    expected = below[:, 1:] - below[:, :-1]
    torch.testing.assert_close(log_prob.exp(), expected, rtol=1e-9, atol=1e-13)


def test_grey_levels_far_out_keep_their_digits():
    """Where both Φ are 1, or both 0, in double precision: by the first terms of Mills' ratio."""
    grey = torch.tensor([-0.8, 0.8], dtype=torch.float64)
    std = torch.tensor(0.02, dtype=torch.float64)
    log_prob = discretized_gaussian_log_prob(grey, torch.zeros(2).double(), std, 11)
    near = 0.7 / 0.02  # the nearer edge, in standard deviations
    tail = -(near**2) / 2 - math.log(near * math.sqrt(2 * math.pi)) + math.log1p(-(near**-2))
    assert log_prob[0] == log_prob[1]
    assert abs(log_prob[0] - tail) < 1e-4


def test_grey_levels_in_single_precision():
    grey = torch.linspace(-1, 1, 256)
    mean, std = torch.tensor(0.1), torch.tensor(0.01)
    log_prob = discretized_gaussian_log_prob(grey, mean, std, 256)
    exact = discretized_gaussian_log_prob(grey.double(), mean.double(), std.double(), 256)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob.double(), exact, rtol=1e-3, atol=1e-3)


def test_grey_levels_have_gradients_at_both_ends():
    mean = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    grey = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)

    def total(mean):
        return discretized_gaussian_log_prob(grey, mean, torch.tensor(0.5).double(), 3).sum()

    total(mean).backward()
    assert mean.grad.isfinite().all()
    assert mean.grad[0] < 0 < mean.grad[2]
    assert abs(mean.grad[1]) < 1e-12
    assert torch.autograd.gradcheck(total, mean + 0.1)
