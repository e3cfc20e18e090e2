"""The one peak of a NICE: its place by the slope and by a grid, its height by an integral."""

import math

import pytest
import torch

from course_lib.experiments import climb_to_peak, peak, peak_height
from course_lib.flows import NICE, RealNVP, StandardGaussian, StandardLogistic, log_prob_gradient
from course_lib.training import load_pretrained
from tests.flows.conftest import randomize

PRIORS = ["gaussian", "logistic"]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20141030)


def any_nice(dim, prior, generator, **options):
    return randomize(NICE(dim, hidden=(16,), prior=prior, **options).double(), generator, scale=0.5)


@pytest.mark.parametrize("prior", PRIORS)
def test_at_the_peak_the_slope_is_zero_and_the_density_is_highest(prior, generator):
    model = any_nice(2, prior, generator)
    top = peak(model)
    assert log_prob_gradient(model, top).abs().max() < 1e-9
    near = top + 0.1 * torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    far = 5 * torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    assert (model.log_prob(torch.cat([near, far])) < model.log_prob(top)).all()


@pytest.mark.parametrize("prior", PRIORS)
def test_on_a_grid_no_other_point_is_above_all_its_neighbours(prior, generator):
    """Counted by brute force, for a flow of which the prior alone is known."""
    model = any_nice(2, prior, generator)
    top = peak(model)[0]
    steps = torch.linspace(-1.5, 1.5, 301, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(top[0] + steps, top[1] + steps, indexing="ij"), dim=-1)
    with torch.no_grad():
        log_p = model.log_prob(grid.reshape(-1, 2)).reshape(1, 1, 301, 301)
    highest = torch.nn.functional.max_pool2d(log_p, 3, stride=1, padding=1)
    peaks = (log_p == highest)[0, 0, 1:-1, 1:-1].nonzero() + 1
    assert peaks.tolist() == [[150, 150]]


@pytest.mark.parametrize("prior", PRIORS)
def test_the_height_is_that_of_an_integral_and_of_samples(prior, generator):
    base = (StandardGaussian if prior == "gaussian" else StandardLogistic)(1).double()
    z = torch.linspace(-40, 40, 80_001, dtype=torch.float64)[:, None]
    log_p = base.log_prob(z)
    mean = torch.trapezoid(log_p.exp() * log_p, z[:, 0])
    height = (base.log_prob(torch.zeros_like(z[:1])) - mean).item()
    assert peak_height(torch.zeros(5, dtype=torch.float64), prior).item() == pytest.approx(
        5 * height, abs=1e-9
    )

    model = any_nice(5, prior, generator)
    log_scale = model.transforms[-1].log_scale.detach()
    with torch.no_grad():
        of_samples = model.log_prob(model.sample(40_000, generator=generator))
        measured = (model.log_prob(peak(model)) - of_samples.mean()).item()
    error = of_samples.std().item() / math.sqrt(40_000)
    assert peak_height(log_scale, prior).item() == pytest.approx(measured, abs=5 * error)


@pytest.mark.parametrize("prior", PRIORS)
def test_a_climb_ends_at_the_peak_from_anywhere(prior, generator):
    model = any_nice(4, prior, generator, standardize=True)
    start = 3 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    end = climb_to_peak(model, start, steps=2000)
    assert (end - peak(model)).abs().max() < 1e-4
    assert end.requires_grad is False


def test_ten_digits_of_the_stored_model_climb_to_one_image(generator):
    model = load_pretrained("nice_digits").double()
    start = model.sample(2, generator=generator)
    end = climb_to_peak(model, start, steps=400)
    top = model.log_prob(peak(model)).item()
    assert (model.log_prob(start) < top - 20).all()
    assert (model.log_prob(end) > top - 0.1).all()


def test_bad_arguments_are_named(generator):
    model = NICE(2)
    for study in (peak, lambda m: climb_to_peak(m, torch.zeros(1, 2))):
        with pytest.raises(ValueError, match="model must be a NICE, got RealNVP"):
            study(RealNVP(2))
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        climb_to_peak(model, torch.zeros(1, 2), steps=0)
    with pytest.raises(ValueError, match="x must"):
        climb_to_peak(model, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="prior must"):
        peak_height(torch.zeros(2), "cauchy")
    with pytest.raises(ValueError, match="log_scale must"):
        peak_height(torch.zeros(2, 2), "gaussian")
