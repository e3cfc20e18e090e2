"""Where guided ways end, against densities on a grid and against numerical integration."""

import pytest
import torch

from course_lib.diffusion import Denoiser, EDMPath, IdealDenoiser, VPPath
from course_lib.experiments import (
    NestedGaussians,
    guided_precision,
    noised_tilted_score,
    ode_variance,
    sde_variance,
    tilted_precision,
    tilted_variance,
)

CASES = [(1.0, 4.0, 3.0), (1.0, 2.0, 5.0), (0.3, 2.0, 1.5), (0.5, 3.0, 0.2), (1.0, 2.0, -0.3)]


@pytest.mark.parametrize("path", [VPPath(), EDMPath()])
def test_the_denoiser_is_that_of_one_gaussian_for_each_label(path):
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    net = NestedGaussians(0.5, 2.0, path)
    model = Denoiser(net, path).double()
    assert model.null_class == 1
    for y, variance in ((torch.zeros(7, dtype=torch.int64), 0.5), (None, 2.0)):
        ideal = IdealDenoiser(torch.zeros(1, 1), path, std=variance**0.5)
        wanted = Denoiser(ideal, path).double().predict(x, 0.7)
        assert torch.allclose(model.predict(x, 0.7, y=y), wanted, atol=1e-12)


@pytest.mark.parametrize(("narrow", "wide", "w"), CASES)
def test_the_tilted_density_on_a_grid(narrow, wide, w):
    x = torch.linspace(-40, 40, 40_001, dtype=torch.float64)
    log_p = (1 - w) * -(x**2) / (2 * wide) + w * -(x**2) / (2 * narrow)
    share = torch.softmax(log_p, dim=0)
    assert tilted_variance(narrow, wide, w) == pytest.approx((share * x**2).sum().item(), rel=1e-6)
    noised = torch.distributions.Normal(0.0, 1.3)  # its noised score, by a sum over the grid
    at = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    log_q = (share * noised.log_prob(at - x).exp()).sum().log()
    (score,) = torch.autograd.grad(log_q, at)
    assert score.item() == pytest.approx(-0.7 * tilted_precision(1.3, narrow, wide, w), rel=1e-6)


@pytest.mark.parametrize(("narrow", "wide", "w"), CASES)
def test_the_guided_score_is_that_of_a_product_of_noised_densities(narrow, wide, w):
    path = EDMPath()
    model = Denoiser(NestedGaussians(narrow, wide, path), path).double()
    x = torch.tensor([[0.7]], dtype=torch.float64)
    null, label = (
        model.predict(x, 1.3, target="score", y=y)
        for y in (None, torch.zeros(1, dtype=torch.int64))
    )
    wanted = (null + w * (label - null)).item()
    assert -0.7 * guided_precision(1.3, narrow, wide, w) == pytest.approx(wanted, rel=1e-6)
    at_the_data = guided_precision(0.0, narrow, wide, w)
    assert at_the_data == pytest.approx(tilted_precision(0.0, narrow, wide, w))


@pytest.mark.parametrize(("narrow", "wide", "w"), CASES)
def test_the_ends_by_numerical_integration(narrow, wide, w):
    """Along the ODE d log x = t P dt; along the SDE d Var = (2 P Var − 1) d(t²)."""
    u = torch.logspace(6, -8, 200_001, dtype=torch.float64)  # t², from noise to data
    precision = (1 - w) / (wide + u) + w / (narrow + u)
    along = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(precision, u)])
    assert ode_variance(narrow, wide, w) == pytest.approx(
        u[0].item() * along[-1].exp().item(), rel=1e-4
    )
    # Var = e^(2 ∫ P) (Var at the start − ∫ e^(−2 ∫ P) du).
    fresh = torch.trapezoid((-2 * along).exp(), u)
    end = (2 * along[-1]).exp() * (u[0] - fresh)
    assert sde_variance(narrow, wide, w) == pytest.approx(end.item(), rel=1e-3)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_nothing_differs_at_scale_0_and_1(scale):
    wanted = pytest.approx((3.0, 0.7)[int(scale)])
    for variance in (tilted_variance, ode_variance, sde_variance):
        assert variance(0.7, 3.0, scale) == wanted
    for sigma in (0.1, 2.0):
        same = tilted_precision(sigma, 0.7, 3.0, scale)
        assert guided_precision(sigma, 0.7, 3.0, scale) == pytest.approx(same)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0.0, 1.0, 1.0), "narrow must be a finite number above 0"),
        ((2.0, 1.0, 1.0), "wide must be a finite number above 2.0"),
        ((1.0, 2.0, float("nan")), "scale must be a finite number"),
        ((0.5, 3.0, -0.2), "scale must leave a density that falls outwards, got -0.2"),
        ((1.0, 2.0, -1.0), "scale must leave a density that falls outwards, got -1.0"),
        ((1.0, 2.0, 0.5), "scale must not be 0.5"),
    ],
)
def test_bad_input(arguments, match):
    with pytest.raises(ValueError, match=match):
        sde_variance(*arguments)


def test_the_widest_density_that_still_falls_outwards_is_taken():
    """(1 − w) / 3 + w / 0.5 is 1/60 at w = −0.19."""
    assert tilted_variance(0.5, 3.0, -0.19) == pytest.approx(60)


@pytest.mark.parametrize("law", [tilted_variance, ode_variance, sde_variance])
def test_each_law_refuses_what_is_no_pair_of_nested_gaussians(law):
    with pytest.raises(ValueError, match=r"wide must be a finite number above 2\.0"):
        law(2.0, 1.0, 1.0)
    for precision in (guided_precision, tilted_precision):
        with pytest.raises(ValueError, match="narrow must be a finite number above 0"):
            precision(1.0, 0.0, 1.0, 1.0)


def test_a_path_is_asked_for():
    with pytest.raises(ValueError, match="path must be a GaussianPath"):
        NestedGaussians(1.0, 2.0, None)


def test_the_score_on_a_grid_is_that_of_gaussians_and_of_a_mixture():
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)
    grid = torch.linspace(-20, 20, 8001, dtype=torch.float64)
    log_p, log_share = -(grid**2) / 8, -(grid**2) / 2 + grid**2 / 8
    for sigma, w in ((0.2, 3.0), (1.3, 1.0), (4.0, 0.0)):
        score = noised_tilted_score(x, sigma, grid, log_p, log_share, w)
        wanted = -tilted_precision(sigma, 1.0, 4.0, w) * x
        assert torch.allclose(score, wanted, rtol=1e-6, atol=1e-9)

    path, centres = EDMPath(), torch.tensor([[-1.2], [0.4], [1.3]], dtype=torch.float64)
    net = IdealDenoiser(centres, path, std=0.35, labels=torch.tensor([0, 0, 1]))
    model = Denoiser(net, path).double()
    clouds = -((grid[:, None] - centres[:, 0]) ** 2) / (2 * 0.35**2)
    log_share = clouds[:, :2].logsumexp(1) - clouds.logsumexp(1)
    for w, y in ((0.0, None), (1.0, torch.zeros(5, dtype=torch.int64))):
        score = noised_tilted_score(x, 0.7, grid, clouds.logsumexp(1), log_share, w)
        wanted = model.predict(x[:, None], 0.7, target="score", y=y)[:, 0]
        assert torch.allclose(score, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": torch.zeros(2, 1)}, "x must have shape"),
        ({"log_p": torch.zeros(2)}, "log_p must have shape"),
        ({"log_share": torch.zeros(2)}, "log_share must have shape"),
        ({"grid": torch.zeros(3, 1)}, "grid must have shape"),
        ({"sigma": 0.0}, "sigma must be a finite number above 0"),
        ({"scale": float("inf")}, "scale must be a finite number"),
    ],
)
def test_bad_input_of_the_score_on_a_grid(change, match):
    good = {name: torch.zeros(3) for name in ("x", "grid", "log_p", "log_share")}
    with pytest.raises(ValueError, match=match):
        noised_tilted_score(**{**good, "sigma": 1.0, "scale": 1.0, **change})
