"""A guided step, against Gaussians that are known and against Stein's identity."""

import pytest
import torch

from course_lib.experiments import guided_mean, tilted_moments


def test_a_gaussian_weight_is_the_posterior_of_two_gaussians():
    mean, variance = tilted_moments(0.3, 0.5, lambda x: -((x - 2) ** 2) / (2 * 0.8))
    assert variance == pytest.approx(1 / (1 / 0.5 + 1 / 0.8))
    assert mean == pytest.approx(variance * (0.3 / 0.5 + 2 / 0.8))


def test_the_mean_moves_by_the_variance_times_the_mean_gradient():
    """Exactly, whatever the weight: the derivative of the tilted density integrates to 0."""
    mean, variance = -0.4, 0.6
    exact, _ = tilted_moments(mean, variance, lambda x: torch.nn.functional.logsigmoid(5 * x))
    x = torch.linspace(-10, 10, 100_001, dtype=torch.float64)
    share = torch.softmax(
        torch.nn.functional.logsigmoid(5 * x) - (x - mean) ** 2 / (2 * variance), 0
    )
    gradient = (share * 5 * torch.sigmoid(-5 * x)).sum().item()
    assert exact == pytest.approx(mean + variance * gradient, rel=1e-9)


def test_taylor_errs_by_the_square_of_the_variance():
    def error(h):
        exact, _ = tilted_moments(0.2, h, lambda x: torch.nn.functional.logsigmoid(3 * x))
        at = torch.tensor([[0.2]], dtype=torch.float64)
        return exact - guided_mean(at, h, 3 * torch.sigmoid(-3 * at)).item()

    assert error(0.002) / error(0.001) == pytest.approx(4, rel=0.02)


def test_scale_multiplies_the_gradient():
    mean, gradient = torch.zeros(2, 1), torch.tensor([[1.0], [-2.0]])
    assert torch.equal(guided_mean(mean, 0.5, gradient, 3.0), 1.5 * gradient)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: guided_mean(x, 0.0, x), "variance must be a finite number above 0"),
        (lambda x: guided_mean(x, 1.0, x[:1]), "gradient must have shape"),
        (lambda x: guided_mean([0.0], 1.0, x), "mean must be"),
        (lambda x: tilted_moments(0.0, -1.0, lambda x: x), "variance must be"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call(torch.zeros(2, 1))
