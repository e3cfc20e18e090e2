"""FanOfPaths: its fans against the laws of Gaussian processes, and what it refuses."""

import io

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image
from scipy import integrate, stats

from course_lib.widgets import PALETTE, FanOfPaths

T, X = 31, 241
TIMES = np.linspace(0, 1, T)
MODES = ((0.7, -1.2), (0.3, 1.5))
WIDTH = 0.4  # of both modes at the first time


def process(a: np.ndarray, b: np.ndarray, reach: float = 6.0) -> dict[str, np.ndarray]:
    """A mixture of two Gaussians that a and b carry away; at the first time b is nearly nothing."""
    x = np.linspace(-reach, reach, X)
    spread = np.sqrt((WIDTH * a) ** 2 + b**2)[:, None]
    density = sum(share * stats.norm.pdf(x, m * a[:, None], spread) for share, m in MODES)
    return {"t": TIMES, "a": a, "b": b, "x": x, "density": density}


VP = process(np.exp(-2.5 * TIMES**2), np.sqrt(-np.expm1(-5 * TIMES**2)))
VE = process(np.ones(T), 0.01 * 200**TIMES, reach=8.0)
BOTH = {"VP": VP, "VE": VE}


def fan(**options: object) -> FanOfPaths:
    return FanOfPaths(BOTH, **({"n_paths": 50} | options))


# ------------------------------------------------------------------------------- the mathematics


@pytest.mark.parametrize("name", BOTH)
def test_the_noise_of_a_fan_has_the_covariance_of_the_process(name: str) -> None:
    widget = FanOfPaths({name: BOTH[name]}, n_paths=4000)
    a, b = BOTH[name]["a"], BOTH[name]["b"]
    noise = widget.array("noise")[0]
    np.testing.assert_allclose(noise[0], 0, atol=1e-3)
    # What is gathered since the first time: for s < t, cov(W_s, W_t) = a_t / a_s var(W_s).
    variance = b**2 - (a / a[0] * b[0]) ** 2
    np.testing.assert_allclose(noise.var(axis=1), variance, rtol=0.1, atol=1e-5)
    for s, t in [(5, 20), (12, 30), (29, 30)]:
        wanted = a[t] / a[s] * variance[s]
        error = np.sqrt(variance[s] * variance[t] / 4000)
        assert np.mean(noise[s] * noise[t]) == pytest.approx(wanted, abs=4.5 * error)
    np.testing.assert_allclose(widget.array("spread")[0] ** 2, variance, atol=2e-4)


def test_forward_a_fan_is_linear_in_its_start() -> None:
    low, high = fan(start=-1.0), fan(start=2.0)
    np.testing.assert_allclose(low.fan[0], -1, atol=1e-4)
    between = high.fan - low.fan
    np.testing.assert_allclose(
        between, 3 * (VP["a"] / VP["a"][0])[:, None] * np.ones(40), atol=1e-3
    )
    low.step = 12.0
    mean, deviation = low.law
    assert mean == pytest.approx(-VP["a"][12], abs=1e-4)
    assert deviation == pytest.approx(VP["b"][12], abs=1e-3)


def posterior(name: str, k: int, y: float) -> tuple[np.ndarray, np.ndarray]:
    """p(x_k | x_end = y) in closed form on a fine grid, by Bayes' rule: an independent way."""
    a, b = BOTH[name]["a"], BOTH[name]["b"]
    x = np.linspace(-9, 9, 20_001)
    spread = np.sqrt((WIDTH * a[k]) ** 2 + b[k] ** 2)
    before = sum(share * stats.norm.pdf(x, m * a[k], spread) for share, m in MODES)
    rest = a[-1] / a[k]
    after = stats.norm.pdf(y, rest * x, np.sqrt(b[-1] ** 2 - (rest * b[k]) ** 2))
    p = before * after
    return x, p / integrate.trapezoid(p, x)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("y", [-1.0, 0.3, 2.5])
def test_in_reverse_the_law_is_that_of_bayes_rule(name: str, y: float) -> None:
    widget = fan(end=y, direction="reverse")
    widget.process = name
    for step in (3, 15, 30):
        widget.step = float(step)
        assert widget.index == T - 1 - step
        x, p = posterior(name, widget.index, y)
        mean = integrate.trapezoid(x * p, x)
        deviation = np.sqrt(integrate.trapezoid((x - mean) ** 2 * p, x))
        assert widget.law == pytest.approx((mean, deviation), abs=4e-3)


@pytest.mark.parametrize("name", BOTH)
def test_in_reverse_a_fan_ends_in_its_end_and_is_spread_by_its_law(name: str) -> None:
    widget = fan(end=0.8, direction="reverse")
    widget.process = name
    paths = widget.fan
    assert paths.shape == (T, 40)
    np.testing.assert_allclose(paths[-1], 0.8, atol=1e-9)
    for k in (0, 10, 25):
        x, p = posterior(name, k, 0.8)
        mass = integrate.cumulative_trapezoid(p, x, initial=0)
        found = stats.kstest(paths[k], lambda at: np.interp(at, x, mass))  # noqa: B023
        assert found.pvalue > 0.02


def test_the_sample_paths_have_the_density_of_every_time() -> None:
    widget = FanOfPaths(BOTH, n_paths=1000)
    for k in (0, 8, 20, T - 1):
        mass = integrate.cumulative_trapezoid(VP["density"][k], VP["x"], initial=0)
        found = stats.kstest(widget.sample_paths[k], lambda at: np.interp(at, VP["x"], mass))  # noqa: B023
        assert found.pvalue > 0.02


def test_processes_share_their_noise_and_a_seed_changes_it() -> None:
    one, other = fan(), fan(seed=1)
    assert not np.allclose(one.array("noise"), other.array("noise"))
    vp, ve = one.array("noise")
    # Both fans lean to the same side at first, where the pieces are the same numbers.
    assert np.corrcoef(vp[1], ve[1])[0, 1] > 0.999


# --------------------------------------------------------------------------------------- the widget


def test_it_begins_drawn_to_the_end_from_the_highest_place() -> None:
    widget = fan()
    assert (widget.step, widget.index) == (T - 1, T - 1)
    assert widget.process == "VP"
    assert widget.start == pytest.approx(-1.2, abs=0.03)
    assert widget.end == pytest.approx(0)
    assert widget.place == widget.start
    widget.direction = "reverse"
    assert (widget.place, widget.index) == (widget.end, 0)
    assert repr(fan(title="Fan")) == "FanOfPaths('Fan')"
    assert "VP, VE" in widget.alt


def test_a_place_beyond_a_plot_is_shown_at_its_edge() -> None:
    widget = fan(end=7.5, direction="reverse")  # in VE's plot
    assert widget.place == 6
    widget.process = "VE"
    assert widget.place == 7.5


def test_tensors_of_float32_are_taken() -> None:
    given = {"VP": {name: torch.tensor(array).float() for name, array in VP.items()}}
    np.testing.assert_allclose(
        FanOfPaths(given).array("noise"), FanOfPaths({"VP": VP}).array("noise"), atol=2e-3
    )


def test_three_processes_of_a_hundred_paths_fit() -> None:
    times = np.linspace(0, 1, 101)
    x = np.linspace(-5, 5, 161)
    density = np.exp(-(x**2) / 2) * np.ones((101, 1))
    one = {"t": times, "a": np.exp(-times), "b": np.sqrt(times), "x": x, "density": density}
    widget = FanOfPaths({"a": one, "b": one, "c": one})
    assert len(widget.data) < 170_000


def test_the_still_picture_has_both_fans_and_follows_the_state() -> None:
    widget = fan()
    content = widget.still()
    assert len(content) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    orange = np.array([int(PALETTE["model"][k : k + 2], 16) for k in (1, 3, 5)])
    near = (np.abs(pixels - orange).max(-1) < 60).mean(axis=0)
    assert near[: len(near) // 2].mean() > 0.01
    assert near[len(near) // 2 :].mean() > 0.01
    widget.end = 3.0
    assert widget.still() != content
    assert widget.direction == "forward"


@pytest.mark.parametrize(
    ("trait", "value", "reason"),
    [
        ("process", "DDPM", "process must be one of VE, VP, got 'DDPM'"),
        ("direction", "back", "direction must be one of forward, reverse, got 'back'"),
        ("start", 9.0, r"start must lie in \[-8, 8\], got 9.0"),
        ("end", float("nan"), r"end must lie in \[-8, 8\], got nan"),
        ("step", 31.0, r"step must lie in \[0, 30\], got 31.0"),
    ],
)
def test_bad_state_is_refused(trait: str, value: object, reason: str) -> None:
    widget = fan()
    with pytest.raises((ValueError, traitlets.TraitError), match=reason):
        setattr(widget, trait, value)


def changed(**parts: object) -> dict[str, object]:
    return {"processes": {"VP": VP | parts}}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"processes": {}}, "processes must be a dict of names and dicts"),
        ({"processes": [VP]}, "processes must be a dict of names and dicts"),
        ({"processes": {"": VP}}, "processes must have names, got ''"),
        ({"processes": {"VP": 3}}, r"processes\['VP'\] must be a dict of t, a, b, x, density"),
        ({"processes": {"VP": {"t": TIMES}}}, r"must be a dict of .*, got \['t'\]"),
        (changed(a=VP["a"][1:]), r"\['VP'\]\['a'\] must have shape \[31\], got \[30\]"),
        (changed(density=VP["density"].T), r"'density'\] must have shape \[31, 241\], got \[241,"),
        (changed(density=-VP["density"]), r"'density'\] must be at least 0"),
        (changed(density=0 * VP["density"]), "above it somewhere at every time"),
        (changed(b=VP["b"] * np.nan), r"'b'\] must be finite"),
        (changed(b=VP["b"][::-1]), "a b / a that grows with t, got a from 1 to"),
        (changed(a=0 * VP["a"]), "must have a > 0"),
        (changed(b=VP["b"] - 0.1), "must have a > 0, b >= 0"),
        (changed(t=TIMES**2), r"'t'\] must be at least 3 increasing, evenly spaced numbers"),
        (changed(x=-VP["x"]), r"'x'\] must be at least 3 increasing"),
        ({"processes": {"VP": VP, "other": {**VE, "x": np.linspace(0, 1, 9)}}}, r"shape \[241\]"),
        ({"n_paths": 0}, "n_paths must be an integer of at least 1, got 0"),
        ({"n_paths": 5000}, "send fewer processes, times, paths"),
        ({"direction": "up"}, "direction must be one of forward, reverse, got 'up'"),
        ({"seed": -1}, "seed must be an integer from 0"),
        ({"start": 20.0}, r"start must lie in \[-6, 6\], got 20.0"),
        ({"title": 3}, "title must be a string, got 3"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FanOfPaths(**({"processes": {"VP": VP}} | arguments))
