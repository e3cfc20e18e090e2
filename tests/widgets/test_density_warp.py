"""DensityWarp: its curve and densities against scipy and closed forms, and what it refuses."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import integrate, stats
from scipy.interpolate import PchipInterpolator

from course_lib.widgets import PALETTE, DensityWarp
from course_lib.widgets.density_warp import (
    PRESETS,
    base_cdf,
    base_density,
    monotone_curve,
    warped_density,
)

PEERS = {"gaussian": stats.norm, "logistic": stats.logistic}
UNEVEN = [-2.0, -1.5, 0.0, 0.3, 2.5], [-3.0, -0.2, 0.0, 2.0, 2.1]


@st.composite
def knots(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    """Two increasing lists of equal length whose steps differ by a factor of up to 1,000."""
    count = draw(st.integers(2, 8))
    steps = st.lists(st.floats(0.01, 10), min_size=count, max_size=count)
    return np.cumsum(draw(steps)).tolist(), np.cumsum(draw(steps)).tolist()


# -------------------------------------------------------------------------------------- the curve


def test_inside_the_curve_is_scipys_pchip() -> None:
    # The outermost pieces differ on purpose: they continue as straight lines.
    xs, ys = UNEVEN
    at = np.linspace(xs[1], xs[-2], 501)
    peer = PchipInterpolator(xs, ys)
    y, slope = monotone_curve(at, xs, ys)
    np.testing.assert_allclose(y, peer(at), atol=1e-12)
    np.testing.assert_allclose(slope, peer(at, 1), atol=1e-12)


def test_outside_the_curve_goes_on_as_its_outer_chords() -> None:
    xs, ys = UNEVEN
    y, slope = monotone_curve(np.array([-4.0, -2.0, 2.5, 3.5]), xs, ys)
    left, right = 2.8 / 0.5, 0.1 / 2.2
    np.testing.assert_allclose(slope, [left, left, right, right])
    np.testing.assert_allclose(y, [-3 - 2 * left, -3, 2.1, 2.1 + right])


@settings(deadline=None)
@given(knots())
def test_the_curve_meets_its_knots_and_always_rises(pair: tuple[list, list]) -> None:
    xs, ys = pair
    y, slope = monotone_curve(np.array(xs), xs, ys)
    np.testing.assert_allclose(y, ys, rtol=1e-12)
    at = np.linspace(xs[0] - 1, xs[-1] + 1, 2001)
    y, slope = monotone_curve(at, xs, ys)
    assert (slope > 0).all()
    assert (np.diff(y) > 0).all()


@settings(deadline=None)
@given(knots(), st.floats(-2, 12))
def test_the_slope_is_the_derivative(pair: tuple[list, list], at: float) -> None:
    h = 1e-6
    _, slope = monotone_curve(np.array(at), *pair)
    around, nearby = monotone_curve(np.array([at - h, at + h]), *pair)
    # The slope itself may turn within h, at most at the ends of the little interval.
    measured = (around[1] - around[0]) / (2 * h)
    assert measured == pytest.approx(float(slope), rel=1e-3, abs=np.ptp(nearby) + 1e-6)


def test_two_knots_make_a_straight_line_of_any_shape() -> None:
    y, slope = monotone_curve(np.zeros((2, 3)) + 7, [0, 1], [1, 3])
    assert y.shape == slope.shape == (2, 3)
    assert (y == 15).all()
    assert (slope == 2).all()


# ----------------------------------------------------------------------------------- the densities


@pytest.mark.parametrize("base", PEERS)
def test_the_bases_are_scipys(base: str) -> None:
    z = np.linspace(-9, 9, 181)
    np.testing.assert_allclose(base_density(z, base), PEERS[base].pdf(z), rtol=1e-12)
    for value in (-5.0, -0.3, 0.0, 2.0):
        assert base_cdf(value, base) == pytest.approx(PEERS[base].cdf(value), abs=1e-12)
    assert (base_density(np.array([-1e6, 1e6]), base) < 1e-300).all()


@pytest.mark.parametrize("base", PEERS)
@pytest.mark.parametrize("pair", [UNEVEN, *PRESETS.values()])
def test_the_density_of_x_holds_a_mass_of_one(pair: tuple[list, list], base: str) -> None:
    mass, _ = integrate.quad(
        lambda x: warped_density(x, *pair, base), -400, 400, points=pair[0], limit=500
    )
    assert mass == pytest.approx(1, abs=1e-5)


def test_a_line_makes_a_gaussian() -> None:
    x = np.linspace(-5, 5, 101)
    density = warped_density(x, [0, 1], [-1, 1])  # z = 2x - 1
    np.testing.assert_allclose(density, stats.norm(0.5, 0.5).pdf(x), rtol=1e-9)


@pytest.mark.parametrize("base", PEERS)
def test_the_area_of_the_strip_is_an_integral_of_the_density(base: str) -> None:
    widget = DensityWarp(*UNEVEN, base=base)
    widget.interval = [-1.7, 0.9]
    mass, _ = integrate.quad(widget.density, -1.7, 0.9, points=[-1.5, 0, 0.3])
    assert widget.area == pytest.approx(mass, abs=1e-9)
    assert 0.1 < mass < 1


def test_two_modes_have_two_modes() -> None:
    density = warped_density(np.linspace(-4, 4, 401), *PRESETS["two modes"])
    sides = density[:200].max(), density[201:].max()
    assert min(sides) > 5 * density[200]


# --------------------------------------------------------------------------------------- the widget


def test_by_default_nothing_is_warped() -> None:
    widget = DensityWarp()
    x = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(widget.density(x), base_density(x, "gaussian"))
    assert repr(widget) == "DensityWarp('')"


@pytest.mark.parametrize("base", PEERS)
def test_every_preset_fits_into_the_plot(base: str) -> None:
    widget = DensityWarp(base=base)
    assert [name for name, _, _ in widget.presets] == list(PRESETS)
    for _, xs, ys in widget.presets:
        assert len(xs) == len(widget.knots_x)  # so that one curve can glide into another
        widget.set_knots(xs, ys)
        assert widget.limit == {"gaussian": 4, "logistic": 7}[base]


def test_python_sets_knots_and_strip() -> None:
    widget = DensityWarp([0, 1, 2], [0, 1, 2])
    widget.knots_y = [0.0, 0.5, 2.0]
    assert widget.knots_y == [0, 0.5, 2]
    widget.set_knots([-1, 1], np.array([-6, 6]))
    assert (widget.knots_x, widget.knots_y) == ([-1, 1], [-6, 6])
    assert widget.limit == pytest.approx(6.6)  # all knots are in sight
    assert widget.start == [[0, 1, 2], [0, 1, 2]]
    widget.interval = [-1.0, 6.0]
    assert widget.area == pytest.approx(1)


@pytest.mark.parametrize(
    ("xs", "ys", "reason"),
    [
        ([0, 0], [0, 1], "knots_x must be at least 2 finite, strictly increasing numbers"),
        ([0, 1], [1, 0], "knots_y must be at least 2 finite, strictly increasing numbers"),
        ([0], [0], "knots_x must be at least 2"),
        ([0, math.nan], [0, 1], "knots_x must be at least 2 finite"),
        ([0, 1], [0, math.inf], "knots_y must be at least 2 finite"),
        ([[0, 1]], [[0, 1]], "knots_x must be at least 2"),
        (["a", "b"], [0, 1], "knots_x must be at least 2"),
        ([0, 1, 2], [0, 1], "knots_y must hold as many numbers as knots_x, 3, got 2"),
    ],
)
def test_bad_knots_are_refused(xs: list, ys: list, reason: str) -> None:
    widget = DensityWarp()
    for use in (DensityWarp, widget.set_knots, lambda *pair: monotone_curve(np.zeros(1), *pair)):
        with pytest.raises(ValueError, match=reason):
            use(xs, ys)
    assert widget.knots_x == [-3, -2, -1, 0, 1, 2, 3]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="base must be one of gaussian, logistic, got 'cauchy'"):
        DensityWarp(base="cauchy")
    for function in (base_density, base_cdf):
        with pytest.raises(ValueError, match="base must be one of"):
            function(0.0, "cauchy")
    with pytest.raises(ValueError, match="knots_y must be given"):
        DensityWarp([0, 1])
    with pytest.raises(ValueError, match="knots_x must be given"):
        DensityWarp(knots_y=[0, 1])
    widget = DensityWarp()
    for interval in ([1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 5.0], [-4.5, 0.0], [0.0, math.nan]):
        with pytest.raises(ValueError, match="interval must be"):
            widget.interval = interval
    with pytest.raises(ValueError, match="knots_y must hold 7 numbers"):
        widget.knots_y = [0.0, 1.0]
    with pytest.raises(ValueError, match="knots_x must be"):
        widget.knots_x = [3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0]


def test_the_still_picture_shows_both_densities() -> None:
    content = DensityWarp(*PRESETS["two modes"]).still()
    assert len(content) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    for role in ("data", "latent", "model"):
        wanted = np.array([int(PALETTE[role][i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(pixels - wanted).max(-1) < 40).sum() > 200
