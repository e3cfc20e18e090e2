"""Fluid: densities along fields whose flow is known, its mass, and what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from scipy.interpolate import PchipInterpolator

from course_lib.widgets import PALETTE, Fluid
from course_lib.widgets.density_warp import curve_through
from course_lib.widgets.fluid import PRESETS, carried

ACROSS = np.linspace(-4, 4, 201)
KNOTS = np.linspace(-4, 4, 9)
WILD = [2.0, -1.5, 0.3, -0.4, 1.2, 1.9, -2.0, 0.7, -1.0]


def line(slope: float, height: float = 0.0) -> list[float]:
    return (slope * KNOTS + height).tolist()


# ------------------------------------------------------------------------------- the mathematics


def test_the_curve_through_any_knots_is_scipys_pchip() -> None:
    """Between the outermost pieces, which go on as straight lines here."""
    at = np.linspace(-3, 3, 501)
    y, slope = curve_through(at, KNOTS, WILD)
    peer = PchipInterpolator(KNOTS, WILD)
    np.testing.assert_allclose(y, peer(at), atol=1e-12)
    np.testing.assert_allclose(slope, peer(at, 1), atol=1e-12)


def test_a_flat_piece_is_no_division_by_zero() -> None:
    y, slope = curve_through(ACROSS, KNOTS, [1, 1, 1, 1, 0.5, 0, 0, 0, 0])
    assert np.isfinite(y).all()
    assert np.isfinite(slope).all()
    assert (y[ACROSS < -1] == 1).all()
    assert (y[ACROSS > 1] == 0).all()


@pytest.mark.parametrize("slope", [0.5, -0.5, 0.2])
def test_a_linear_field_keeps_a_gaussian_gaussian(slope: float) -> None:
    """dx/dt = c x + d: the mean follows the field, the standard deviation grows as exp(c t)."""
    widget = Fluid(line(slope, 0.1), means=[0.6], stds=[0.8], speed=4)
    for t in (0.0, 0.7, 2.0):
        grown = np.exp(slope * t)
        mean = (0.6 + 0.1 / slope) * grown - 0.1 / slope
        exact = stats.norm(mean, 0.8 * grown).pdf(ACROSS)
        np.testing.assert_allclose(widget.density(ACROSS, t), exact, rtol=1e-6, atol=1e-12)


def test_a_uniform_field_moves_a_mixture_as_it_is() -> None:
    widget = Fluid([0.5] * 9, means=[-1, 1.5], stds=[0.4, 0.7], weights=[3, 1])
    widget.step = 15.0
    assert widget.t == 1.0
    peers = [stats.norm(-0.5, 0.4), stats.norm(2, 0.7)]
    exact = 0.75 * peers[0].pdf(ACROSS) + 0.25 * peers[1].pdf(ACROSS)
    np.testing.assert_allclose(widget.density(ACROSS), exact, atol=1e-6)


def test_there_and_back_again() -> None:
    there, grown = carried(KNOTS, WILD, ACROSS, 1.3)
    back, shrunk = carried(KNOTS, WILD, there, -1.3)
    np.testing.assert_allclose(back, ACROSS, atol=1e-3)
    np.testing.assert_allclose(shrunk, -grown, atol=5e-3)
    assert (np.diff(there) > 0).all()  # paths on a line never cross


def test_what_is_summed_along_the_way_is_the_log_of_the_stretch() -> None:
    h = 1e-5
    around = [carried(KNOTS, WILD, ACROSS + by, 1.0)[0] for by in (-h, h)]
    _, grown = carried(KNOTS, WILD, ACROSS, 1.0)
    inner = np.abs(ACROSS / 1 - np.rint(ACROSS)) > 0.05  # the slope of the field has kinks
    stretch = np.log((around[1] - around[0]) / (2 * h))
    np.testing.assert_allclose(grown[inner], stretch[inner], atol=0.02)


@pytest.mark.parametrize(
    ("velocities", "error"),
    [*((field, 1e-3) for field in PRESETS.values()), (WILD, 3e-3), ([2, -2] * 4 + [2], 6e-3)],
)
def test_the_mass_stays_one(velocities: list[float], error: float) -> None:
    """To three digits, but where the fluid is stretched 3,000 times between knots."""
    widget = Fluid(velocities, means=[-1, 1], stds=[0.5, 1])
    for step in (0.0, 10.0, 30.0):
        widget.step = step
        assert widget.mass == pytest.approx(1, abs=error)


# --------------------------------------------------------------------------------------- the widget


def test_python_reads_and_sets_the_field() -> None:
    widget = Fluid()
    assert widget.n_steps == 31
    assert (widget.labels[0], widget.labels[-1]) == ("t = 0.00", "t = 2.00")
    assert widget.knots == KNOTS.tolist()
    np.testing.assert_allclose(widget.velocity(KNOTS), widget.start)
    widget.velocities = [0.1] * 9
    np.testing.assert_allclose(widget.velocity(ACROSS), 0.1)
    assert widget.velocities == [0.1] * 9  # to the last digit: no echo moves what is dragged
    assert [name for name, _ in widget.presets] == list(PRESETS)
    assert Fluid([0, 1, 0], speed=3).presets == []  # they have other knots
    assert Fluid(torch.zeros(5)).velocities == [0] * 5
    assert repr(widget) == "Fluid('')"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"velocities": [1.0]}, "velocities must be 2 to 21 numbers, got 1"),
        ({"velocities": [0.0] * 22}, "velocities must be 2 to 21 numbers, got 22"),
        ({"velocities": [0.0, 2.5]}, r"velocities must lie in \[-2, 2\].*\[0, 2.5\]"),
        ({"velocities": [0.0, np.nan]}, "velocities must be finite"),
        ({"velocities": [[0.0]]}, r"velocities must have shape \[K\]"),
        ({"means": []}, r"means must have shape \[M\]"),
        ({"stds": [1.0, 1.0]}, r"stds must be 1 positive numbers, got \[1.0, 1.0\]"),
        ({"stds": [0.0]}, "stds must be 1 positive numbers"),
        ({"weights": [-1.0]}, "weights must be 1 positive numbers"),
        ({"duration": 0.0}, "duration must"),
        ({"limit": -1.0}, "limit must"),
        ({"speed": 0.0}, "speed must"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Fluid(**change)


def test_bad_fields_are_refused_later_too() -> None:
    widget = Fluid()
    for values, reason in [([0.0] * 8, "velocities must be 9 numbers"), ([3.0] * 9, "lie in")]:
        with pytest.raises(ValueError, match=reason):
            widget.velocities = values
    assert widget.velocities == widget.start


def test_the_still_picture_shows_field_and_fluid() -> None:
    content = Fluid().still()
    assert len(content) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    for role in ("data", "model"):
        wanted = np.array([int(PALETTE[role][i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(pixels - wanted).max(-1) < 40).sum() > 200
