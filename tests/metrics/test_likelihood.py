"""Bits per dimension and the two baselines, against SciPy, scikit-learn and the papers."""

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture

from course_lib.data import dequantize, load_digits
from course_lib.metrics import GaussianBaseline, LogisticBaseline, bits_per_dim
from tests.no_float64 import elsewhere


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def refuses(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


# --- bits_per_dim ------------------------------------------------------------------------------


def test_number_of_the_nice_paper():
    """1980.50 nats on MNIST are 4.36 bits per dimension, as later papers quote it."""
    assert bits_per_dim(1980.50, 784, 256) == pytest.approx(4.36, abs=0.005)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_uniform_density_costs_the_bits_of_a_grey_level(levels):
    assert bits_per_dim(0.0, 64, levels) == pytest.approx(math.log2(levels))
    # All mass in one grey level of each pixel: density levels^dim, and no bits at all.
    assert bits_per_dim(64 * math.log(levels), 64, levels) == pytest.approx(0, abs=1e-12)


def test_a_piecewise_constant_density_costs_the_entropy_of_its_levels():
    p = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    log_density = (p * 4).log()  # each level owns an interval of width 1/4
    bits = (p * bits_per_dim(log_density, dim=1, levels=4)).sum().item()
    assert bits == pytest.approx(1.75)


def test_form_of_the_result():
    result = bits_per_dim(torch.tensor([0.0, 1.0]), 2, 4)
    assert result.tolist() == pytest.approx([2, 2 - 0.5 / math.log(2)])
    assert result.dtype == torch.float32
    assert bits_per_dim(torch.zeros(3, dtype=torch.float64), 2, 4).dtype == torch.float64
    assert bits_per_dim(torch.tensor(0.0), 2, 4).shape == ()
    assert isinstance(bits_per_dim(1.0, 1, 2), float)
    assert bits_per_dim(-1, 1, 2) == pytest.approx(1 + 1 / math.log(2))


@pytest.mark.parametrize(
    ("log_prob", "message"),
    [
        ("1", "log_prob must be a finite number above -inf, got '1'"),
        (None, "log_prob must be a finite number above -inf, got None"),
        (math.nan, "log_prob must be a finite number above -inf, got nan"),
        (-math.inf, "log_prob must be a finite number above -inf, got -inf"),
        (torch.tensor([1]), "log_prob must be a floating-point tensor, got torch.int64"),
        (torch.zeros(0), "log_prob must have any shape but an empty one, got [0]"),
        (torch.tensor([math.nan]), "log_prob must be finite, got NaN or infinite values"),
    ],
)
def test_bad_log_prob(log_prob, message):
    with refuses(message):
        bits_per_dim(log_prob, 2, 2)


@pytest.mark.parametrize("value", [0, -3, 2.0, None, True])
def test_bad_dim_and_levels(value):
    with refuses(f"dim must be an integer of at least 1, got {value!r}"):
        bits_per_dim(0.0, value, 2)
    with refuses(f"levels must be an integer of at least 2, got {value!r}"):
        bits_per_dim(0.0, 2, value)


def test_one_grey_level_is_too_few():
    with refuses("levels must be an integer of at least 2, got 1"):
        bits_per_dim(0.0, 1, 1)


# --- The baselines -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def points():
    """Correlated, skewed, of different scales: [500, 4], float64."""
    x = torch.randn(500, 4, dtype=torch.float64, generator=seeded(1))
    mix = torch.tensor([[1.0, 0.5, 0, 0], [0, 2.0, 1, 0], [0, 0, 0.1, 0], [0, 0, 0, 30.0]])
    return x @ mix.double() + torch.tensor([0.0, 1.0, -2.0, 300.0]) + x.exp()


def test_gaussian_equals_numpy_and_scipy(points):
    model = GaussianBaseline.fit(points)
    x = points.numpy()
    assert model.mean.numpy() == pytest.approx(x.mean(0))
    assert model.covariance.numpy() == pytest.approx(np.cov(x.T, bias=True))
    reference = stats.multivariate_normal(x.mean(0), np.cov(x.T, bias=True)).logpdf(x)
    assert model.log_prob(points).numpy() == pytest.approx(reference)


def test_gaussian_equals_scikit_learn(points):
    reference = GaussianMixture(1, reg_covar=0).fit(points.numpy())
    log_prob = GaussianBaseline.fit(points).log_prob(points)
    assert log_prob.numpy() == pytest.approx(reference.score_samples(points.numpy()))


def test_logistic_equals_scipy(points):
    model = LogisticBaseline.fit(points)
    columns = [stats.logistic.fit(column) for column in points.T.numpy()]
    assert model.location.numpy() == pytest.approx([c[0] for c in columns], rel=1e-5, abs=1e-6)
    assert model.scale.numpy() == pytest.approx([c[1] for c in columns], rel=1e-5)
    reference = sum(
        stats.logistic(location, scale).logpdf(column)
        for column, (location, scale) in zip(points.T.numpy(), columns, strict=True)
    )
    assert model.log_prob(points).numpy() == pytest.approx(reference, rel=1e-5)


def heavy_tails():
    u = torch.rand(2000, 3, dtype=torch.float64, generator=seeded(2))
    return (math.pi * (u - 0.5)).tan()


HARD = {
    "two points": torch.tensor([[0.0, 5.0], [1.0, -5.0]]).double(),
    "one far point": torch.cat([torch.linspace(0, 1e-3, 999), torch.ones(1)])[:, None].double(),
    "ties": torch.tensor([0.0] * 99 + [1.0])[:, None].double(),
    "heavy tails": heavy_tails(),
    "skewed": heavy_tails()[:, :1].abs().log().mul(4).exp().clamp(max=1e6),
    "two heaps": torch.cat([torch.linspace(-1, -0.9, 50), torch.linspace(0.9, 1, 50)])[
        :, None
    ].double(),
    "far from zero": 1e6 + torch.linspace(-1, 1, 101)[:, None].double(),
}


@pytest.mark.parametrize("name", HARD)
def test_logistic_is_at_the_maximum(name):
    x = HARD[name]
    model = LogisticBaseline.fit(x)
    location, scale = model.location.requires_grad_(), model.scale.requires_grad_()
    z = (x - location) / scale
    (-z - 2 * torch.nn.functional.softplus(-z) - scale.log()).mean(0).sum().backward()
    assert (location.grad * scale).detach().numpy() == pytest.approx(0, abs=1e-7)
    assert (scale.grad * scale).detach().numpy() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "most"), [("two points", 6), ("ties", 12), ("skewed", 10), ("heavy tails", 14)]
)
def test_newton_needs_few_steps(monkeypatch, name, most):
    """A wrong curvature still leads to the maximum, but slowly."""
    steps = []
    sigmoid = torch.sigmoid
    monkeypatch.setattr(torch, "sigmoid", lambda z: steps.append(1) or sigmoid(z))
    LogisticBaseline.fit(HARD[name])
    assert len(steps) <= most


def test_logistic_recovers_what_made_the_data():
    u = torch.rand(100_000, 2, dtype=torch.float64, generator=seeded(3))
    x = torch.tensor([1.0, -2.0]) + torch.tensor([0.5, 3.0]) * u.logit()
    model = LogisticBaseline.fit(x)
    assert model.location.tolist() == pytest.approx([1, -2], abs=0.03)
    assert model.scale.tolist() == pytest.approx([0.5, 3], rel=0.01)


@pytest.mark.parametrize("baseline", [GaussianBaseline, LogisticBaseline])
def test_density_integrates_to_one(baseline, points):
    model = baseline.fit(points[:, 1:2])
    grid = torch.linspace(-60, 60, 12_001, dtype=torch.float64)[:, None]
    assert model.log_prob(grid).exp().sum().item() * 0.01 == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("baseline", [GaussianBaseline, LogisticBaseline])
def test_the_dtype_of_the_points_is_kept(baseline, points):
    model = baseline.fit(points.float())
    assert model.log_prob(points[:3]).dtype == torch.float64
    single = model.log_prob(points[:3].float())
    assert single.dtype == torch.float32
    assert single.shape == (3,)
    torch.testing.assert_close(single.double(), model.log_prob(points[:3]), rtol=1e-4, atol=1e-4)


def test_hand_made_baselines():
    zero, one = torch.zeros(2), torch.ones(2)
    x = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    normal = stats.norm.logpdf(x).sum(1)
    assert GaussianBaseline(zero, torch.eye(2)).log_prob(x).numpy() == pytest.approx(
        normal, rel=1e-5
    )
    logistic = stats.logistic.logpdf(x).sum(1)
    assert LogisticBaseline(zero, one).log_prob(x).numpy() == pytest.approx(logistic, rel=1e-5)


def test_correlations_pay_on_the_digits():
    bits = {}
    for baseline in (GaussianBaseline, LogisticBaseline):
        train, test = (
            dequantize(load_digits(split)[0], 17, generator=seeded()).flatten(1)
            for split in ("train", "test")
        )
        log_prob = baseline.fit(train).log_prob(test)
        bits[baseline] = bits_per_dim(log_prob.mean(), 64, 17).item()
    assert bits[GaussianBaseline] < bits[LogisticBaseline] < math.log2(17)


@pytest.mark.parametrize("baseline", [GaussianBaseline, LogisticBaseline])
@pytest.mark.parametrize(
    ("x", "got"),
    [
        ([[0.0]], "x must be a tensor of shape [B, {}], got list"),
        (torch.zeros(3), "x must have shape [B, {}], got [3]"),
        (torch.zeros(3, 1, 2), "x must have shape [B, {}], got [3, 1, 2]"),
        (torch.zeros(0, 2), "x must have shape [B, {}], got [0, 2]"),
        (torch.zeros(3, 0), "x must have shape [B, {}], got [3, 0]"),
        (torch.zeros(3, 2).long(), "x must be a floating-point tensor, got torch.int64"),
        (torch.full((3, 2), math.nan), "x must be finite, got NaN or infinite values"),
    ],
)
def test_bad_x(baseline, x, got):
    with refuses(got.format("any")):
        baseline.fit(x)
    model = baseline.fit(torch.tensor([[0.0, 0.0], [2.0, 1.0], [1.0, 3.0]]))
    with refuses(got.format("2")):
        model.log_prob(x)
    with refuses("x must have shape [B, 2], got [1, 3]"):
        model.log_prob(torch.zeros(1, 3))


@pytest.mark.parametrize(
    "x",
    [
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([[1.0, 2.0], [3.0, 5.0]]),
        torch.tensor([[1.0, 2.0], [3.0, 2.0], [4.0, 2.0]]),
        torch.tensor([[1.0, 0.1], [3.0, 0.3], [4.0, 0.4], [9.0, 0.9]]).double() / 3,
    ],
)
def test_gaussian_refuses_data_without_a_maximum(x):
    with refuses(
        f"x must vary in all 2 directions, got {len(x)} points with a singular covariance"
    ):
        GaussianBaseline.fit(x)


def test_logistic_refuses_a_constant_coordinate():
    x = torch.tensor([[1.0, 0.5, 7.0], [2.0, 0.5, 7.0]])
    with refuses("x must vary in every coordinate, got 0.5 throughout in coordinate 1"):
        LogisticBaseline.fit(x)
    with refuses("x must vary in every coordinate, got 1.0 throughout in coordinate 0"):
        LogisticBaseline.fit(x[:1])


def test_bad_attributes():
    with refuses("mean must have shape [B], got [1, 2]"):
        GaussianBaseline(torch.zeros(1, 2), torch.eye(2))
    with refuses("covariance must have shape [2, 2], got [3, 3]"):
        GaussianBaseline(torch.zeros(2), torch.eye(3))
    for bad in (torch.diag(torch.tensor([1.0, -1.0])), torch.ones(2, 2), -torch.eye(2)):
        with refuses(f"covariance must be positive definite, got {bad}"):
            GaussianBaseline(torch.zeros(2), bad)
    with refuses("location must have shape [B], got []"):
        LogisticBaseline(torch.tensor(0.0), torch.ones(1))
    with refuses("scale must have shape [2], got [1]"):
        LogisticBaseline(torch.zeros(2), torch.ones(1))
    for bad in (0.0, -2.0):
        with refuses(f"scale must be positive, got {bad}"):
            LogisticBaseline(torch.zeros(2), torch.tensor([1.0, bad]))


@pytest.mark.parametrize("baseline", [GaussianBaseline, LogisticBaseline])
def test_baselines_measure_data_on_a_device_without_double_precision(baseline):
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    here, there = baseline.fit(x), baseline.fit(elsewhere(x))
    assert torch.equal(here.log_prob(x), there.log_prob(elsewhere(x)).cpu())
    assert there.log_prob(elsewhere(x)).dtype == torch.float32
