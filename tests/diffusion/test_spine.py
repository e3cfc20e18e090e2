"""The spine bears families that the library doesn't know: a path and a sampler are all they need.

Here that is flow matching: a straight path, a network that predicts the velocity, Euler's method.
"""

from itertools import pairwise

import pytest
import torch

from course_lib.data import toy, toy_log_prob
from course_lib.diffusion import Denoiser, GaussianPath, IdealDenoiser, convert, ddim_sample, last
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


class Preserving(GaussianPath):
    """VP: a = exp(−½∫β) with β from 0.1 to 20."""

    def a(self, t):
        return (-0.25 * t**2 * 19.9 - 0.05 * t).exp()

    def b(self, t):
        return (1 - self.a(t) ** 2).sqrt()


class Geometric(GaussianPath):
    """VE: a = 1, b from 0.01 to 50."""

    def a(self, t):
        return torch.ones_like(t)

    def b(self, t):
        return 0.01 * 5000**t


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize(
    ("path", "predicts"),
    [(Straight(), "velocity"), (Preserving(), "eps"), (Geometric(), "score"), (Exploding(), "x0")],
    ids=["straight", "VP", "VE", "EDM"],
)
def test_ddim_samples_on_any_path(path, predicts, eta):
    """With the ideal denoiser: two clouds at ±2 of width 0.5 have their moments and shares."""
    ideal = Denoiser(IdealDenoiser(2 * torch.tensor([[-1.0], [1.0]]), path, std=0.5), path).double()

    def net(x, t):
        return ideal.net(x, t) if predicts == "eps" else ideal.predict(x, t, target=predicts)

    if predicts == "velocity":  # at t = 1, a = 0: eps is x, and the guess of x_0 the mean, 0

        def net(x, t):
            eps = ideal.net(x, t)
            x_0 = torch.zeros_like(x) if t[0] == 1 else (x - t[0] * eps) / (1 - t[0])
            return eps - x_0

    model = Denoiser(net, path, predicts=predicts).double()
    states = list(
        ddim_sample(model, (4000, 1), steps=300, spacing="quadratic", eta=eta, generator=seeded())
    )
    end = path.b(torch.tensor(path.t_max, dtype=torch.float64)).item()
    assert abs(states[0].std().item() / end - 1) < 0.04
    x = states[-1]
    assert abs((x > 0).double().mean().item() - 0.5) < 0.035
    assert abs(x.abs().mean().item() - 2) < 0.06
    assert abs((x.abs() - 2).std().item() - 0.5) < 0.06


def test_the_times_of_a_path_end_where_it_does():
    assert Straight().sampling_times(4) == [0.25, 0.5, 0.75, 1.0]
    assert Straight().sampling_times(2, "quadratic") == [0.25, 1.0]
    assert Exploding().sampling_times(2) == pytest.approx([40.001, 80.0])
    assert Straight().points([0.25]) == [(1.0, 0.0), (0.75, 0.25)]
