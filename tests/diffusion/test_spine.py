"""The spine bears families that the library doesn't know: a path and a sampler are all they need.

Here that is flow matching: a straight path, a network that predicts the velocity, Euler's method.
"""

from itertools import pairwise

import pytest
import torch

from course_lib.data import toy, toy_log_prob
from course_lib.diffusion import Denoiser, convert, last
from course_lib.nn import TimeMLP
from course_lib.training import fit
from tests.diffusion.conftest import (
    GAUSSIAN,
    MIXTURE,
    Exploding,
    Straight,
    coefficients,
    optimal,
    randn,
    seeded,
)


@torch.no_grad()
def euler(model, x, times):
    """dx/dt = velocity, from one time to the next."""
    yield x
    for now, then in pairwise(times):
        x = x + (then - now) * model.predict(x, now, target="velocity")
        yield x


def test_flow_matching_learns_a_toy():
    """After a short training samples are far likelier than noise, and every mode has its share."""
    x = toy("eight_gaussians", 4000, generator=seeded(1))
    model = Denoiser(TimeMLP(2, [64, 64], scale=1000), Straight(), predicts="velocity")
    fit(model, x, steps=500, batch_size=256, lr=4e-3, progress=False, device="cpu")
    noise = torch.randn(1000, 2, generator=seeded(2))
    samples = last(euler(model, noise, torch.linspace(1, 0, 31).tolist()))

    def likelihood(points):
        return toy_log_prob("eight_gaussians", points).clamp(min=-10).mean().item()

    assert likelihood(noise) < likelihood(x) - 6
    assert likelihood(samples) > (likelihood(x) + likelihood(noise)) / 2
    angle = torch.atan2(samples[:, 1], samples[:, 0]) + torch.pi / 8
    shares = torch.histc(angle.remainder(2 * torch.pi), 8, 0, 2 * torch.pi) / 1000
    assert shares.min() > 0.05
    assert shares.max() < 0.25


def test_eulers_error_has_order_one():
    """On Gaussian data the flow is known: along the axes of the covariance, points keep place."""
    path = Straight()
    model = Denoiser(optimal(GAUSSIAN, path, "velocity"), path, predicts="velocity").double()
    z = randn(10, 2)
    values, axes = torch.linalg.eigh(GAUSSIAN.cov)
    x = GAUSSIAN.mean + z @ (axes @ torch.diag(values.sqrt()) @ axes.T)
    errors = []
    for steps in (25, 50, 100, 200):
        times = torch.linspace(1, 0, steps + 1).tolist()
        errors.append((last(euler(model, z, times)) - x).norm(dim=1).mean().item())
    assert errors[-1] < 0.02
    for coarse, fine in pairwise(errors):
        assert 1.8 < coarse / fine < 2.2, errors


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "score", "velocity"])
def test_edm_is_a_path_as_well(predicts):
    """Karras et al. 2022: a = 1, b = σ, the score is (D - x) / σ² and dx/dσ = (x - D) / σ."""
    path = Exploding()
    model = Denoiser(optimal(MIXTURE, path, predicts), path, predicts=predicts).double()
    x = randn(6, 2)
    sigma = torch.tensor([0.002, 0.05, 0.5, 2.0, 10.0, 80.0], dtype=torch.float64)
    a, b, *_ = coefficients(path, sigma)
    denoised = MIXTURE.guess(x, a, b)

    def close(target, expected):
        got = model.predict(x, sigma, target=target)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)

    close("x0", denoised)
    close("score", (denoised - x) / sigma[:, None] ** 2)
    close("velocity", (x - denoised) / sigma[:, None])
    score = model.predict(x, sigma, target="score")
    back = convert(score, source="score", target="x0", x_t=x, t=sigma, path=path)
    torch.testing.assert_close(back, denoised, rtol=1e-6, atol=1e-6)


def test_a_path_may_count_time_as_it_likes():
    """Times reach the network as the path counts them, and training draws them from its span."""
    seen = []

    def net(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    model = Denoiser(net, Exploding(), predicts="x0")
    model.loss(torch.zeros(500, 2), generator=seeded())
    model.predict(torch.zeros(1, 2), 80.0)
    assert seen[0].max() > 70
    assert seen[1].tolist() == [80.0]
