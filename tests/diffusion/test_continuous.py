"""The paths of the score SDEs: the SDE of a path, and the path of an SDE, by closed forms."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from course_lib.diffusion import (
    DiscreteSchedule,
    GaussianPath,
    ScaledInput,
    StraightPath,
    SubVPPath,
    VEPath,
    VPPath,
)
from tests.diffusion.conftest import PATHS, coefficients, each_path, randn, refuses

TIMES = torch.linspace(0.001, 1, 1000, dtype=torch.float64)


def close(value, expected, tolerance=1e-9):
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


# --- drift and diffusion -------------------------------------------------------------------------


@each_path
def test_drift_and_diffusion_solve_the_equations_of_mean_and_variance(name):
    """A' = f a and (b²)' = 2 f b² + g², with derivatives written out by hand."""
    path, t = PATHS[name]
    t = t.double()
    a, b, da, db = coefficients(path, t)
    f, g = path.drift(t), path.diffusion(t)
    close(f * a, da, 1e-8)
    close(2 * f * b**2 + g**2, 2 * b * db, 1e-6)
    assert (g >= 0).all()


def test_the_equations_of_the_paper():
    """Song et al. 2021, table of equations 9, 11 and 12: the SDEs as they write them."""
    t, rate = TIMES, 0.1 + 19.9 * TIMES
    noise = 0.1 * t + 9.95 * t**2
    close(VPPath().drift(t), -rate / 2)
    close(VPPath().diffusion(t), rate.sqrt(), 1e-7)
    close(SubVPPath().drift(t), -rate / 2)
    close(SubVPPath().diffusion(t), (rate * (1 - (-2 * noise).exp())).sqrt(), 1e-7)
    close(VEPath().drift(t), torch.zeros_like(t))
    sigma = 0.01 * 5000.0**t
    close(VEPath().diffusion(t), sigma * math.sqrt(2 * math.log(5000)))
    inside = t[:-1]
    close(StraightPath().drift(inside), -1 / (1 - inside))
    close(StraightPath().diffusion(inside), (2 * inside / (1 - inside)).sqrt())


def test_small_steps_lead_along_the_path():
    """Mean and variance that the SDE's equations give in 4,000 small steps are a and b²."""
    for path in (VPPath(), SubVPPath(), VEPath()):
        t = torch.linspace(path.t_min, 1, 4001, dtype=torch.float64)
        dt, middle = t.diff(), (t[1:] + t[:-1]) / 2
        f, g = path.drift(middle), path.diffusion(middle)
        start = torch.tensor(path.t_min, dtype=torch.float64)
        a, variance = path.a(start), path.b(start) ** 2
        for f_i, g_i, dt_i in zip(f, g, dt, strict=True):
            a = a * (f_i * dt_i).exp()
            half = g_i**2 * dt_i / 2
            variance = (variance + half) * (2 * f_i * dt_i).exp() + half
        close(a, path.a(t[-1]), 1e-5)
        close(variance / path.b(t[-1]) ** 2, torch.ones_like(variance), 1e-5)


def test_variances_are_kept_exploding_and_below():
    t = TIMES
    close(VPPath().a(t) ** 2 + VPPath().b(t) ** 2, torch.ones_like(t), 1e-14)
    close(SubVPPath().b(t), 1 - SubVPPath().a(t) ** 2, 1e-14)
    close(SubVPPath().a(t), VPPath().a(t), 0)
    assert (SubVPPath().b(t) < VPPath().b(t)).all()
    ends = VEPath(0.3, 4.0).b(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    close(ends, torch.tensor([0.3, math.sqrt(1.2), 4.0], dtype=torch.float64))


def test_little_noise_is_exact_in_single_precision():
    """1 − a² near the data would lose half of its digits there."""
    t = torch.tensor([1e-6, 1e-4, 1e-3])
    for path in (VPPath(), SubVPPath()):
        torch.testing.assert_close(path.b(t).double(), path.b(t.double()), rtol=1e-6, atol=0)


def test_vp_is_the_limit_of_ddpm():
    """T times the betas of DDPM's linear schedule, and its amounts, tend to VP's: order 1 / T."""
    path, errors = VPPath(), []
    for T in (250, 500, 1000, 2000):
        schedule = DiscreteSchedule.linear(T, beta_start=0.1 / T, beta_end=20.0 / T)
        t = torch.arange(1, T + 1, dtype=torch.float64) / T
        a = schedule.a(torch.arange(T)).double()
        errors.append((a - path.a(t)).abs().max().item())
    ratios = [first / second for first, second in pairwise(errors)]
    assert all(1.9 < ratio < 2.1 for ratio in ratios), errors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 2), (5, 1, 2, 2)])
def test_amounts_of_a_straight_line_are_those_of_any_path(dtype, shape):
    path, x = StraightPath(), torch.zeros(shape, dtype=dtype)
    t = torch.tensor([0.0, 2**-24, 0.3, 1 - 2**-24, 1.0])
    for times in (t, t.double(), t[2], 0.3, 1):
        pairs = zip(path.amounts(times, x), GaussianPath.amounts(path, times, x), strict=True)
        for ours, any_paths in pairs:
            assert ours.dtype == dtype
            assert torch.equal(ours, any_paths)


def test_sde_is_shaped_for_a_batch():
    path, x = VPPath(), randn(3, 1, 2, 2)
    t = torch.tensor([0.1, 0.5, 1.0])
    f, g = path.sde(t, x)
    assert f.shape == g.shape == (3, 1, 1, 1)
    assert f.dtype == torch.float64
    close(f.flatten(), path.drift(t.double()), 1e-12)
    close(g.flatten(), path.diffusion(t.double()), 1e-12)
    one, _ = path.sde(0.5, x.float())
    assert one.shape == (3, 1, 1, 1)
    assert one.dtype == torch.float32


# --- what is refused -----------------------------------------------------------------------------


class Quieter(GaussianPath):
    """Noise that goes away faster than the data do: no SDE removes noise."""

    def a(self, t):
        return 1 - 0.1 * t

    def b(self, t):
        return 1 - 0.9 * t


def test_a_path_that_is_no_sdes_is_named():
    what = "t must be a time at which the path is an SDE's, with 0 ≤ (b²)' − 2 f b² < ∞, got "
    with refuses(what + "0.25"):
        Quieter().diffusion(torch.tensor([0.25]))
    with refuses(what + "1.0"):
        StraightPath().diffusion(torch.tensor([0.5, 1.0]))
    with refuses(what + "1.0"):
        StraightPath().sde(1.0, randn(2, 2))


def test_constant_noise_is_no_negative_one():
    """Rounding must not make an SDE of g = 0 a forbidden one."""

    class Still(GaussianPath):
        def a(self, t):
            return torch.exp(-t)

        def b(self, t):
            return 3 * torch.exp(-t)

    for dtype in (torch.float32, torch.float64):
        assert Still().diffusion(torch.linspace(0, 1, 50, dtype=dtype)).max() < 1e-2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VPPath(beta_min=0), "beta_min must be a finite number above 0, got 0"),
        (lambda: VPPath(2.0, 1.0), "beta_max must be a finite number of at least 2.0, got 1.0"),
        (
            lambda: SubVPPath(beta_max=math.nan),
            "beta_max must be a finite number of at least 0.1, got nan",
        ),
        (lambda: VEPath(sigma_min=0.0), "sigma_min must be a finite number above 0, got 0.0"),
        (lambda: VEPath(1.0, 1.0), "sigma_max must be a finite number above 1.0, got 1.0"),
        (lambda: ScaledInput(nn.Identity(), 3), "path must be a GaussianPath, got 3"),
    ],
)
def test_bad_numbers_are_named(make, message):
    with refuses(message):
        make()


def test_paths_say_what_they_are():
    assert repr(VPPath()) == "VPPath(beta_min=0.1, beta_max=20.0)"
    assert repr(SubVPPath(1, 2)) == "SubVPPath(beta_min=1, beta_max=2)"
    assert repr(VEPath()) == "VEPath(sigma_min=0.01, sigma_max=50.0)"
    assert repr(StraightPath()) == "StraightPath()"


# --- the input of a network ----------------------------------------------------------------------


class Told(nn.Module):
    """A network that says what it was told."""

    event_shape = (2,)

    def forward(self, *told):
        self.told = told
        return told[0]


@pytest.mark.parametrize("path", [VPPath(), SubVPPath(), StraightPath()], ids=repr)
def test_an_input_is_scaled_by_both_amounts(path):
    """On a path whose a is not 1 at all times, written out: x / sqrt(a² + b²)."""
    t, x = torch.tensor([0.2, 0.6, 0.9]), randn(3, 2).float()
    net = ScaledInput(Told(), path)
    a, b = path.a(t), path.b(t)
    size = torch.hypot(a, b)
    assert (a < 0.99).all()
    torch.testing.assert_close(net(x, t), x / size[:, None])
    c_skip, c_out, c_in, c_noise = net.factors(t)
    assert torch.equal(c_skip, torch.zeros(3))
    assert torch.equal(c_out, torch.ones(3))
    torch.testing.assert_close(c_in, 1 / size)
    assert torch.equal(c_noise, t)


def test_a_scaled_input_has_one_size():
    path, net = VEPath(0.01, 50.0), Told()
    t = torch.tensor([0.0, 0.3, 1.0])
    x = randn(3, 2).float()
    said = ScaledInput(net, path)(x, t)
    b = path.b(t)[:, None]
    torch.testing.assert_close(said, x / (1 + b**2).sqrt())
    assert torch.equal(net.told[1], t)
    assert len(net.told) == 2
    y = torch.tensor([1, 2, 3])
    ScaledInput(net, path)(x, t, y)
    assert torch.equal(net.told[2], y)
    assert ScaledInput(net, path).event_shape == (2,)
