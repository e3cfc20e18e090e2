"""A density of narrow spikes: a mixture like any other, and without bound."""

import math

import pytest
import torch
from torch import distributions as td

from course_lib.experiments import spiky_log_prob

GREYS = torch.arange(17, dtype=torch.float64) / 16


def test_spiky_log_prob():
    x = torch.linspace(-0.5, 1.5, 200_001, dtype=torch.float64)
    for width in (0.1, 0.003):
        for levels in (2, 17):
            total = torch.trapezoid(spiky_log_prob(x, width, levels=levels).exp(), x)
            assert abs(total - 1) < 1e-5
    one_each = td.Normal(GREYS, torch.full((17,), 0.01, dtype=torch.float64))
    mixture = td.MixtureSameFamily(td.Categorical(torch.ones(17)), one_each).log_prob(x)
    assert torch.allclose(spiky_log_prob(x, 0.01), mixture, rtol=1e-6, atol=1e-6)
    grown = spiky_log_prob(GREYS, 1e-9) - spiky_log_prob(GREYS, 1e-8)
    assert torch.allclose(grown, torch.full_like(grown, math.log(10)))
    assert spiky_log_prob(torch.zeros(2, 3), 0.1).shape == (2, 3)
    assert spiky_log_prob(torch.zeros(2), 0.1).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((torch.zeros(2, dtype=torch.long), 0.1), "x must be a floating-point tensor"),
        ((torch.zeros(2), 0), "width must be a finite number above 0, got 0"),
        ((torch.zeros(2), -0.1), "width must be a finite number above 0, got -0.1"),
    ],
)
def test_spiky_log_prob_checks_its_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        spiky_log_prob(*arguments)
    with pytest.raises(ValueError, match="levels must be an integer of at least 2, got 1"):
        spiky_log_prob(torch.zeros(1), 0.1, levels=1)
