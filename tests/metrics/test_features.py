"""The Fréchet distance against closed forms and SciPy; the classifier's features and loss."""

import doctest
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.nn import functional as F

from course_lib.metrics import ImageClassifier, features, frechet_distance
from tests.no_float64 import elsewhere


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(n, dim, seed, *, scale=1.0, shift=0.0):
    """Points with a covariance that is no multiple of the identity."""
    g = generator(seed)
    mix = torch.randn(dim, dim, generator=g, dtype=torch.float64) * scale
    return torch.randn(n, dim, generator=g, dtype=torch.float64) @ mix + shift


def test_doctests():
    assert doctest.testmod(features, extraglobs={"torch": torch}).failed == 0


def test_it_is_zero_between_equal_clouds():
    x = cloud(200, 6, 0)
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-9)


def test_a_shift_costs_its_squared_length():
    x = cloud(200, 4, 1)
    assert frechet_distance(x, x + torch.tensor([1.0, 2.0, 0.0, -2.0])) == pytest.approx(9)


def test_a_scale_costs_the_squared_differences_of_the_deviations():
    """For covariances that commute it is Σ (σ_x − σ_y)²."""
    x = cloud(300, 3, 2)
    x = x - x.mean(0)
    wanted = 4 * x.var(dim=0).sum().item()  # 3 σ against σ in every direction
    assert frechet_distance(x, 3 * x) == pytest.approx(wanted)


def test_it_agrees_with_the_matrix_square_root_of_scipy():
    x, y = cloud(150, 5, 3), cloud(80, 5, 4, scale=0.7, shift=0.5)
    cov_x, cov_y = np.cov(x.numpy().T), np.cov(y.numpy().T)
    root = scipy.linalg.sqrtm(cov_x @ cov_y).real
    gap = ((x.mean(0) - y.mean(0)) ** 2).sum().item()
    wanted = gap + np.trace(cov_x + cov_y - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(wanted, rel=1e-9)


def test_it_is_measured_on_a_device_without_double_precision():
    x, y = cloud(100, 3, 1).float(), cloud(80, 3, 2).float()
    assert frechet_distance(elsewhere(x), elsewhere(y)) == frechet_distance(x, y)


def test_it_does_not_depend_on_axes():
    x, y = cloud(100, 4, 5), cloud(100, 4, 6)
    turn = torch.linalg.qr(cloud(4, 4, 7)).Q
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(frechet_distance(x, y))


def test_flat_clouds_and_single_numbers_are_fine():
    x = torch.cat([cloud(50, 2, 8), torch.zeros(50, 2, dtype=torch.float64)], dim=1)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    one, other = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    assert frechet_distance(one, other) == pytest.approx(4 + (math.sqrt(2) - math.sqrt(8)) ** 2)


def test_fewer_points_lie_farther_apart():
    """Its bias, which the docstring warns of."""
    x, y = torch.randn(2, 5000, 8, generator=generator(9)).double()
    assert frechet_distance(x[:50], y) > 3 * frechet_distance(x[:500], y)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (torch.zeros(5), torch.zeros(5, 2), "x must have shape"),
        (torch.zeros(5, 2), torch.zeros(5, 3), r"y must have shape \[B, 2\], got \[5, 3\]"),
        (torch.zeros(1, 2), torch.zeros(5, 2), "x must hold at least 2 points, got 1"),
        (torch.zeros(5, 2), torch.zeros(1, 2), "y must hold at least 2 points, got 1"),
        (torch.full((5, 2), math.nan), torch.zeros(5, 2), "x must be finite"),
        (torch.zeros(5, 2, dtype=torch.int64), torch.zeros(5, 2), "x must be a floating-point"),
    ],
)
def test_bad_points_are_refused(x, y, said):
    with pytest.raises(ValueError, match=said):
        frechet_distance(x, y)


def test_logits_are_the_head_on_the_rectified_features():
    torch.manual_seed(0)
    model = ImageClassifier((1, 9, 8), n_classes=4, width=3, n_features=5)
    x = torch.rand(6, 1, 9, 8, generator=generator())
    assert model.features(x).shape == (6, 5)
    assert (model.features(x) < 0).any()
    wanted = F.linear(model.features(x).clamp(min=0), model.head.weight, model.head.bias)
    assert torch.allclose(model(x), wanted)
    assert model(x).shape == (6, 4)


def test_the_loss_is_the_mean_cross_entropy():
    torch.manual_seed(0)
    model = ImageClassifier((2, 8, 8))
    x, y = torch.rand(7, 2, 8, 8, generator=generator()), torch.arange(7)
    log_p = torch.log_softmax(model(x), dim=1)
    assert model.loss(x, y).item() == pytest.approx(-log_p[torch.arange(7), y].mean().item())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": (1, 3, 8)}, "shape must have a height and width of at least 4"),
        ({"shape": (8, 8)}, "shape must be"),
        ({"n_classes": 1}, "n_classes must be an integer of at least 2"),
        ({"width": 0}, "width must be"),
        ({"n_features": 0}, "n_features must be"),
    ],
)
def test_bad_classifiers_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        ImageClassifier(**({"shape": (1, 8, 8)} | change))


def test_bad_images_and_labels_are_refused():
    model = ImageClassifier((1, 8, 8))
    with pytest.raises(ValueError, match="x must have shape"):
        model(torch.rand(2, 1, 8, 7))
    with pytest.raises(ValueError, match="x must be torch"):
        model.features(torch.rand(2, 1, 8, 8).double())
    with pytest.raises(ValueError, match="y must be an int64"):
        model.loss(torch.rand(2, 1, 8, 8), torch.tensor([0, 10]))
    with pytest.raises(ValueError, match="generator must be"):
        model.loss(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), generator=1)
