"""Churn on a Gaussian: the exact width is that of samples, and only short steps converge."""

import math
from itertools import pairwise

import pytest
import torch

from course_lib.diffusion import euler_step, heun_step, karras_times
from course_lib.experiments import width_with_churn


@pytest.mark.parametrize("solver", [euler_step, heun_step])
@pytest.mark.parametrize("s_noise", [1.0, 1.1])
def test_the_width_is_that_of_samples(solver, s_noise):
    generator = torch.Generator().manual_seed(0)
    levels = [*karras_times(16, sigma_min=0.002, sigma_max=80.0), 0.0]
    n = 200_000
    x = 0.5 * torch.randn(n, generator=generator) + 80 * torch.randn(n, generator=generator)
    for sigma, then in pairwise(levels):
        high = 1.25 * sigma
        noise = torch.randn(n, generator=generator)
        x = x + s_noise * math.sqrt(high**2 - sigma**2) * noise
        step = solver if then > 0 else euler_step  # at 0 the velocity is no number
        x = step(lambda x, t: (x - x * 0.25 / (0.25 + t**2)) / t, x, high, then - high)
    name = solver.__name__.removesuffix("_step")
    width = width_with_churn(16, 4, solver=name, s_noise=s_noise)
    assert abs(x.std().item() / 0.5 / width - 1) < 6 / math.sqrt(2 * n)


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
