"""Churn on a Gaussian: the exact width is that of samples, and only short steps converge."""

import math

import pytest
import torch

from course_lib.diffusion import (
    Denoiser,
    EDMPath,
    IdealDenoiser,
    churn_levels,
    heun_sample,
    karras_times,
    last,
)
from course_lib.experiments import width_with_churn


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_width_is_that_of_samples(solver):
    path, n = EDMPath(), 100_000
    model = Denoiser(IdealDenoiser(torch.zeros(1, 1), path, std=0.5), path)
    generator = torch.Generator().manual_seed(0)
    words = {"churn": 4.0, "s_noise": 1.1, "solver": solver}
    x = last(heun_sample(model, (n, 1), steps=16, generator=generator, **words))
    width = width_with_churn(16, **words)
    assert abs(x.std().item() / 0.5 / width - 1) < 5 / math.sqrt(2 * n)


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("churn", [0.0, 0.3, 1e9])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_width_of_a_few_steps_by_the_denoiser(steps, churn, solver):
    """The sampler's own steps of x = 1: what becomes of each bit of noise, followed one by one."""
    path = EDMPath()
    model = Denoiser(IdealDenoiser(torch.zeros(1, 1), path, std=0.5), path).double()
    levels = [*karras_times(steps, sigma_min=0.002, sigma_max=80.0), 0.0]
    raised = churn_levels(levels[:-1], churn=churn, limit=80.0)
    parts = [math.sqrt(0.25 + 80**2)]  # standard deviations of what x is the sum of
    x = torch.ones(1, 1, dtype=torch.float64)
    for sigma, up, then in zip(levels, raised, levels[1:], strict=False):
        parts.append(0.9 * math.sqrt(up**2 - sigma**2))
        d = (x - model.predict(x, up, target="x0")) / up
        end = x + (then - up) * d
        if solver == "heun" and then > 0:
            d_then = (end - model.predict(end, then, target="x0")) / then
            end = x + (then - up) * (d + d_then) / 2
        parts = [part * end.item() for part in parts]
    width = math.hypot(*parts) / 0.5
    got = width_with_churn(steps, churn, solver=solver, s_noise=0.9)
    assert got == pytest.approx(width, rel=1e-5)  # the levels reach the network as float32


def test_only_a_churn_that_is_spread_converges():
    fixed = [width_with_churn(steps, 40) for steps in (100, 1000, 10_000)]
    assert fixed == sorted(fixed)
    assert fixed[-1] > 0.998
    growing = [width_with_churn(steps, steps) for steps in (100, 1000, 10_000)]
    assert max(growing) < 0.93
    assert abs(width_with_churn(1000, 1000, solver="heun") - 1) < 0.002
    assert width_with_churn(1000, 1000, s_noise=1.1) > 1
    assert width_with_churn(1000, 1e9) == width_with_churn(1000, 1000)  # γ has a limit


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"churn": -1.0}, "churn must be"),
        ({"s_noise": -1.0}, "s_noise must be"),
        ({"solver": "rk4"}, "solver must be"),
    ],
)
def test_arguments_are_checked(wrong, said):
    with pytest.raises(ValueError, match=said):
        width_with_churn(**{"steps": 10, "churn": 1.0} | wrong)
