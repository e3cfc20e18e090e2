"""Rate = information + mismatch, against sums over all cells and a Gaussian in closed form."""

import math

import pytest
import torch

from course_lib.latent import gaussian_kl, rate_parts
from tests.latent.conftest import refuses


def table(n, cells, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, cells, generator=generator, dtype=torch.float64).softmax(-1)


def test_they_add_up_to_the_mean_divergence():
    q, p = table(6, 9, 0), table(1, 9, 1)[0]
    information, mismatch = rate_parts(q, p)
    assert math.isclose(information + mismatch, (q * (q / p).log()).sum() / 6, rel_tol=1e-12)


def test_the_information_is_that_of_the_joint_table():
    q = table(5, 7, 2)
    joint = q / 5  # of image and cell
    both = joint.sum(1, keepdim=True) * joint.sum(0)
    information, mismatch = rate_parts(q, q.mean(0))
    assert math.isclose(information, (joint * (joint / both).log()).sum(), rel_tol=1e-12)
    assert mismatch.abs() < 1e-12


def test_one_q_for_all_tells_nothing():
    q, p = table(1, 8, 3).expand(4, 8), table(1, 8, 4)[0]
    information, mismatch = rate_parts(q, p)
    assert information.abs() < 1e-12
    assert math.isclose(mismatch, (q[0] * (q[0] / p).log()).sum(), rel_tol=1e-12)


def test_codes_apart_tell_the_image():
    information, mismatch = rate_parts(torch.eye(8), torch.full((8,), 1 / 8))
    assert math.isclose(information, math.log(8), rel_tol=1e-6)
    assert mismatch.abs() < 1e-6


def test_gaussians_on_a_fine_grid():
    mu, log_var = torch.tensor([[-1.0], [0.5], [1.2]]), torch.tensor([[-1.0], [-2.0], [-0.5]])
    z = torch.linspace(-8, 8, 4001)
    q = torch.distributions.Normal(mu, (0.5 * log_var).exp()).log_prob(z).softmax(1)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).softmax(0)
    rate = gaussian_kl(mu, log_var).mean()
    assert math.isclose(sum(rate_parts(q, prior)), rate, abs_tol=1e-4)


def test_bad_input():
    with refuses("prior must have shape [3], got [2]"):
        rate_parts(torch.ones(2, 3) / 3, torch.ones(2) / 2)
    with pytest.raises(ValueError, match="q must"):
        rate_parts(torch.ones(3), torch.ones(3))
