"""Reparameterization: its formulas against autograd and integration, and what it refuses."""

import io
import math

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image
from scipy import integrate, stats

from course_lib.widgets import PALETTE, Reparameterization
from course_lib.widgets.reparameterization import (
    ESTIMATORS,
    estimate,
    gradient_terms,
    smooth_curve,
    standard_noise,
)

Z = np.linspace(-4, 4, 161)
F = -np.log(0.01 + np.exp(-2 * (Z + 1.8) ** 2) / 3 + np.exp(-1.2 * (Z - 1.6) ** 2))


# -------------------------------------------------------------------------------------- the noise


def test_the_noise_is_standard_normal() -> None:
    noise = standard_noise(7, 4000)
    assert stats.kstest(noise, "norm").pvalue > 0.01
    # Neighbours come from one pair of uniform numbers, neighbouring seeds from one generator.
    assert abs(np.corrcoef(noise[::2], noise[1::2])[0, 1]) < 0.08
    assert abs(np.corrcoef(noise, standard_noise(8, 4000))[0, 1]) < 0.06


def test_a_seed_has_its_noise_however_many_are_asked_for() -> None:
    np.testing.assert_array_equal(standard_noise(3, 96)[:7], standard_noise(3, 7))
    assert not np.allclose(standard_noise(3, 8), standard_noise(4, 8))
    assert standard_noise(2**32 - 1, 3).shape == (3,)


def test_the_generator_is_mulberry32() -> None:
    # The first three outputs of its author's code for the seed 1, as fractions of 2³².
    u = np.array([0.6270739405881613, 0.002735721180215478, 0.5274470399599522]) + 0.5 / 2**32
    found = standard_noise(1, 3)
    radius = np.sqrt(-2 * np.log(u[0]))
    np.testing.assert_allclose(found[0], radius * np.cos(2 * np.pi * u[1]), rtol=1e-6)
    np.testing.assert_allclose(found[1], radius * np.sin(2 * np.pi * u[1]), rtol=1e-6)
    assert abs(found[2]) <= np.sqrt(-2 * np.log(u[2]))


# -------------------------------------------------------------------------------------- the curve


def test_the_curve_meets_its_nodes_and_is_exact_for_parabolas() -> None:
    nodes = np.linspace(-2, 3, 26)
    at = np.linspace(-1.8, 2.8, 300)  # the slopes at both ends are those of one chord
    value, slope = smooth_curve(at, -2, 3, 1 + nodes - 2 * nodes**2)
    np.testing.assert_allclose(value, 1 + at - 2 * at**2, atol=1e-12)
    np.testing.assert_allclose(slope, 1 - 4 * at, atol=1e-11)
    np.testing.assert_allclose(smooth_curve(Z, -4, 4, F)[0], F, atol=1e-12)


def test_the_slope_is_the_derivative_and_outside_the_curve_is_straight() -> None:
    at, h = np.linspace(-5, 5, 777), 1e-6
    _, slope = smooth_curve(at, -4, 4, F)
    ahead, behind = (smooth_curve(at + shift, -4, 4, F)[0] for shift in (h, -h))
    np.testing.assert_allclose((ahead - behind) / (2 * h), slope, atol=2e-4)
    value, slope = smooth_curve(np.array([-6.0, -4.0, 4.0, 5.0]), -4, 4, F)
    left, right = (F[1] - F[0]) / 0.05, (F[-1] - F[-2]) / 0.05
    np.testing.assert_allclose(slope, [left, left, right, right], atol=1e-10)
    np.testing.assert_allclose(value, [F[0] - 2 * left, F[0], F[-1], F[-1] + right], atol=1e-10)


# -------------------------------------------------------------------------------- the estimators


@pytest.mark.parametrize(("mu", "sigma", "seed"), [(0.0, 1.0, 0), (-1.3, 0.4, 5), (2.0, 1.7, 9)])
def test_both_estimators_are_what_autograd_gives(mu: float, sigma: float, seed: int) -> None:
    noise = torch.from_numpy(standard_noise(seed, 24))
    parameters = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (mu, sigma)]
    f = lambda z: z**4 / 8 - z**2 + z.sin()  # noqa: E731
    z = parameters[0] + parameters[1] * noise
    path = torch.autograd.grad(f(z).mean(), parameters)
    # The surrogate whose gradient is the score function's: f is a number, and so is the sample.
    log_prob = torch.distributions.Normal(*parameters).log_prob(z.detach())
    score = torch.autograd.grad((f(z).detach() * log_prob).mean(), parameters)

    at = z.detach().numpy()
    value, slope = f(z).detach().numpy(), at**3 / 2 - 2 * at + np.cos(at)
    terms = gradient_terms(noise.numpy(), value, slope, sigma)
    assert tuple(terms) == ESTIMATORS
    for name, wanted in zip(ESTIMATORS, (path, score), strict=True):
        np.testing.assert_allclose(terms[name].mean(-1), [g.item() for g in wanted], rtol=1e-12)


def test_the_standard_error_is_that_of_the_mean() -> None:
    terms = np.array([1.0, 2.0, 6.0])
    assert estimate(terms) == (3.0, pytest.approx(stats.sem(terms)))


@pytest.mark.parametrize(("mu", "sigma"), [(-0.4, 0.7), (1.5, 0.1), (-2.0, 2.0), (3.9, 1.5)])
def test_the_exact_gradient_is_that_of_the_mean_of_f(mu: float, sigma: float) -> None:
    widget = Reparameterization(Z, F, mu=mu, sigma=sigma)

    def mean(mu: float, sigma: float) -> float:
        z = np.linspace(mu - 9 * sigma, mu + 9 * sigma, 100_001)
        return integrate.simpson(widget.curve(z)[0] * stats.norm.pdf(z, mu, sigma), x=z)

    h, exact = 1e-3, widget.exact()
    by_mu = (mean(mu + h, sigma) - mean(mu - h, sigma)) / (2 * h)
    by_sigma = (mean(mu, sigma + h) - mean(mu, sigma - h)) / (2 * h)
    assert exact["mu"] == pytest.approx(by_mu, abs=1e-3)
    assert exact["sigma"] == pytest.approx(by_sigma, abs=1e-3)


def test_both_estimators_have_the_exact_gradient_as_their_mean() -> None:
    widget = Reparameterization(Z, F, mu=-0.4, sigma=0.7, n_samples=100)
    exact = widget.exact()
    found = []
    for seed in range(300):
        widget.seed = seed
        found.append(widget.estimates())
    for name in ESTIMATORS:
        for parameter in ("mu", "sigma"):
            values, errors = np.array([each[name][parameter] for each in found]).T
            assert abs(values.mean() - exact[parameter]) < 3.5 * stats.sem(values)
            # The standard error says how far the estimates are spread.
            assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.15)
    spread = {name: np.std([e[name]["sigma"].value for e in found]) for name in ESTIMATORS}
    assert spread["score function"] > 2 * spread["reparameterization"]


# --------------------------------------------------------------------------------------- the widget


def test_the_widget_says_what_numpy_computes() -> None:
    widget = Reparameterization(torch.from_numpy(Z), torch.from_numpy(F), mu=1, sigma=0.5, seed=4)
    noise = standard_noise(4, 24)
    np.testing.assert_array_equal(widget.samples, 1 + 0.5 * noise)
    f, slope = smooth_curve(widget.samples, -4, 4, F)
    found = widget.estimates()
    pairs = {
        ("reparameterization", "mu"): slope,
        ("reparameterization", "sigma"): slope * noise,
        ("score function", "mu"): f * (widget.samples - 1) / 0.5**2,
        ("score function", "sigma"): f * ((widget.samples - 1) ** 2 / 0.5**3 - 1 / 0.5),
    }
    for (name, parameter), terms in pairs.items():
        # What 16 bits leave of f: steps of 8e-5, over 0.1 for a slope.
        assert found[name][parameter].value == pytest.approx(terms.mean(), abs=2e-3)
        assert found[name][parameter].error == pytest.approx(stats.sem(terms), abs=2e-3)


def test_what_the_browser_gets_is_what_was_given() -> None:
    widget = Reparameterization(Z, F)
    np.testing.assert_allclose(widget.array("f"), F, atol=np.ptp(F) / 65_535)
    assert widget.extent == pytest.approx([-4, 4])
    assert widget.start == [widget.mu, widget.sigma] == pytest.approx([-0.8, 0.8])
    assert widget.sigma_range == pytest.approx([0.04, 2])
    # Where f is steepest, a step goes a fortieth of the axis.
    assert widget.step_size * np.abs(np.diff(F)).max() / 0.05 == pytest.approx(8 / 40, rel=1e-4)
    assert len(widget.data) == 2 * 161
    assert repr(widget) == "Reparameterization('')"


def test_python_sets_what_may_be_set() -> None:
    widget = Reparameterization(Z, F)
    widget.mu, widget.sigma, widget.seed, widget.n_samples = -3, 1.5, 12, 8
    assert (widget.mu, widget.sigma, widget.seed, widget.noise.shape) == (-3, 1.5, 12, (8,))
    for name, value, reason in (
        ("mu", 4.1, "mu must be a number from -4 to 4, got 4.1"),
        ("mu", math.nan, "mu must be a number"),
        ("sigma", 0.01, "sigma must be a number from 0.04 to 2, got 0.01"),
        ("sigma", 3.0, "sigma must be a number"),
        ("seed", -1, "seed must be an integer from 0"),
        ("n_samples", 1, "n_samples must be an integer from 2 to 400, got 1"),
    ):
        with pytest.raises(ValueError, match=reason):
            setattr(widget, name, value)
    with pytest.raises(traitlets.TraitError):
        widget.seed = 1.5
    assert (widget.mu, widget.sigma, widget.seed, widget.n_samples) == (-3, 1.5, 12, 8)


def test_a_constant_goes_nowhere() -> None:
    widget = Reparameterization(Z, np.ones(161))
    assert widget.step_size == 0
    assert widget.exact() == {"mu": 0, "sigma": 0}
    assert widget.estimates()["reparameterization"]["mu"] == (0, 0)
    assert widget.estimates()["score function"]["mu"].error > 0
    widget.still()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"z": Z[:5], "f": F[:5]}, "z must hold 8 to 1,000 numbers, got 5"),
        ({"z": np.linspace(0, 1, 1001), "f": np.zeros(1001)}, "z must hold 8 to 1,000 numbers"),
        ({"z": Z[::-1]}, "z must be increasing and evenly spaced, got steps from -0.05"),
        ({"z": np.exp(Z)}, "z must be increasing and evenly spaced"),
        ({"z": Z[None]}, r"z must have shape \[G\], got \[1, 161\]"),
        ({"f": F[:-1]}, r"f must have shape \[161\] like z, got \[160\]"),
        ({"f": F * np.nan}, "f must be finite"),
        ({"f": "ups"}, "f must hold real numbers"),
        ({"mu": 5.0}, "mu must be a number from -4 to 4, got 5.0"),
        ({"mu": "left"}, "mu must be a number"),
        ({"sigma": 0.0}, "sigma must be a number from 0.04 to 2, got 0.0"),
        ({"sigma": True}, "sigma must be a number"),
        ({"n_samples": 401}, "n_samples must be an integer from 2 to 400, got 401"),
        ({"n_samples": 24.0}, "n_samples must be an integer"),
        ({"seed": -1}, "seed must be an integer from 0 to 4294967295, got -1"),
        ({"title": 3}, "title must be a string, got 3"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Reparameterization(**({"z": Z, "f": F} | arguments))


@pytest.mark.parametrize(("seed", "n"), [(-1, 3), (2**32, 3), (0.0, 3), (0, 0)])
def test_bad_seeds_are_refused(seed: int, n: int) -> None:
    with pytest.raises(ValueError, match="must be an integer"):
        standard_noise(seed, n)


def test_the_still_picture_shows_curve_samples_and_estimates() -> None:
    content = Reparameterization(Z, F, mu=-0.4, sigma=0.7).still()
    assert len(content) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    for role in ("noise", "model", "latent", "data"):
        wanted = np.array([int(PALETTE[role][i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(pixels - wanted).max(-1) < 40).sum() > 150, role
