"""TimeSampling: its densities, the weights they give, which measurement is nearest."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.diffusion import times
from course_lib.widgets import PALETTE, TimeSampling
from course_lib.widgets.time_sampling import distance, time_density

T = np.linspace(0.05, 0.95, 19)
LOSS = 0.3 + 2 * (T - 0.45) ** 2
MEASURED = {"quality": 0.4, "error": 0.01}
UNIFORM = {"name": "uniform", "sampling": "uniform"} | MEASURED
MIDDLE = {"name": "middle", "sampling": "logit-normal", "m": 0.0, "s": 1.0} | MEASURED
LATE = {"name": "late", "sampling": "logit-normal", "m": 2, "s": 0.5} | MEASURED
MODE = {"name": "mode", "sampling": "mode", "scale": 1.29} | MEASURED
COSMAP = {"name": "cosmap", "sampling": "cosmap"} | MEASURED


@pytest.mark.parametrize(("m", "s"), [(0, 1), (0.5, 0.6), (-3, 0.2), (3, 3)])
def test_the_logit_normal_density_is_that_of_the_library(m: float, s: float) -> None:
    t = torch.linspace(0.001, 0.999, 300, dtype=torch.float64)
    wanted = times.logit_normal_density(t, m, s).numpy()
    np.testing.assert_allclose(time_density("logit-normal", t, m=m, s=s), wanted, rtol=1e-9)


@pytest.mark.parametrize("scale", [-1, 0, 1.29, 1.7])
def test_the_other_densities_are_those_of_the_library(scale: float) -> None:
    t = torch.linspace(0.001, 0.999, 300, dtype=torch.float64)
    wanted = times.mode_density(t, scale).numpy()
    np.testing.assert_allclose(time_density("mode", t, scale=scale), wanted, rtol=1e-9)
    wanted = times.cosmap_density(t).numpy()
    np.testing.assert_allclose(time_density("cosmap", t), wanted, rtol=1e-9)
    np.testing.assert_array_equal(time_density("uniform", t), np.ones(300))


def test_a_weight_is_that_of_the_loss_at_uniform_times() -> None:
    """Errors of v are errors of x_0 over t, and of the noise over 1 − t."""
    rng = np.random.default_rng(0)
    x0, eps, error = rng.normal(size=(3, 50))
    v = eps - x0
    widget = TimeSampling(T, LOSS, m=0.5, s=0.6)
    for t in (0.2, 0.7):
        x_t = (1 - t) * x0 + t * eps
        guess = v + error
        count = float(widget.density(t)) * (error**2).mean()
        guesses = {"velocity": (guess, v), "x0": (x_t - t * guess, x0)}
        guesses["eps"] = (x_t + (1 - t) * guess, eps)
        for target, (said, true) in guesses.items():
            widget.target = target
            assert float(widget.weight(t)) * ((said - true) ** 2).mean() == pytest.approx(count)


def test_the_nearest_measurement_is_that_of_the_nearest_density() -> None:
    rows = [UNIFORM, MIDDLE, LATE, MODE, COSMAP]
    widget = TimeSampling(T, LOSS, rows, m=1.7, s=0.55)
    assert widget.nearest == LATE
    widget.m, widget.s = 0.1, 0.95
    assert widget.nearest == MIDDLE
    for row in (UNIFORM, MODE, COSMAP):
        widget.sampling = row["sampling"]
        assert widget.nearest == row
        assert widget.distances[rows.index(row)] == 0
    widget.sampling, widget.scale = "mode", 0.05
    assert widget.nearest == UNIFORM
    assert TimeSampling(T, LOSS).nearest is None


def test_the_distance_is_the_total_variation() -> None:
    """1 for densities that do not meet; of a linear one and the uniform one 1 / 4."""
    middles = (np.arange(400) + 0.5) / 400
    assert distance(2 * middles, np.ones(400)) == pytest.approx(0.25)
    halves = np.where(middles < 0.5, 2.0, 0.0)
    assert distance(halves, 2 - halves) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"times": [0.5]}, "times must rise in .0, 1., at least two"),
        ({"times": T[::-1]}, "times must rise"),
        ({"times": T + 0.1}, "times must rise"),
        ({"times": T - 0.1}, "times must rise"),
        ({"loss": LOSS[1:]}, r"loss must have shape \[19\], got \[18\]"),
        ({"loss": -LOSS}, "loss must be at least 0, got -"),
        ({"loss": np.nan * LOSS}, "loss must be finite"),
        ({"measured": UNIFORM}, "measured must be at most 12 mappings"),
        ({"measured": [UNIFORM] * 13}, "measured must be at most 12 mappings"),
        ({"measured": [UNIFORM | {"sampling": "beta"}]}, r"measured\[0\]\['sampling'\] must be"),
        ({"measured": [UNIFORM, MEASURED]}, r"measured\[1\]\['sampling'\] must be"),
        ({"measured": [UNIFORM | {"m": 1}]}, r"measured\[0\] must have the keys"),
        ({"measured": [MIDDLE | {"s": 0}]}, r"measured\[0\]\['s'\] must be"),
        ({"measured": [UNIFORM | {"name": ""}]}, r"measured\[0\]\['name'\] must be a string"),
        ({"measured": [UNIFORM | {"quality": "good"}]}, r"measured\[0\]\['quality'\] must be"),
        ({"measured": [UNIFORM | {"error": -1}]}, r"measured\[0\]\['error'\] must be"),
        ({"quality": 3}, "quality must be a string"),
        ({"sampling": "beta"}, "sampling must be one of"),
        ({"m": 3.1}, "m must be"),
        ({"s": 0.1}, "s must be"),
        ({"scale": 1.8}, "scale must be"),
        ({"title": 3}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TimeSampling(**{"times": T, "loss": LOSS} | change)


def test_bad_states_are_refused() -> None:
    widget = TimeSampling(T, LOSS)
    for name, value in (
        ("m", np.inf),
        ("s", 0.0),
        ("scale", 2.0),
        ("sampling", "x"),
        ("target", "v"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be"):
            setattr(widget, name, value)
    assert (widget.m, widget.s, widget.sampling, widget.target) == (
        0,
        1,
        "logit-normal",
        "velocity",
    )


def test_the_still_picture_shows_density_and_loss() -> None:
    content = TimeSampling(torch.tensor(T), torch.tensor(LOSS), [UNIFORM, MODE]).still()
    assert len(content) < 40_000
    found = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    for role in ("model", "data"):
        colour = [int(PALETTE[role][i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(found - colour).max(-1) < 20).sum() > 100
