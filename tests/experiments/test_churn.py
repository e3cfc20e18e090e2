"""Churn on a Gaussian: the exact width is that of samples, and only short steps converge."""

import math

import pytest
import torch

from course_lib.diffusion import Denoiser, EDMPath, IdealDenoiser, heun_sample, last
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
