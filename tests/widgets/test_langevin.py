"""Langevin: its particles and laws against closed forms, and what it refuses."""

import io

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image
from scipy import stats

from course_lib.widgets import PALETTE, Langevin
from course_lib.widgets.langevin import _smeared, stationary
from course_lib.widgets.reparameterization import standard_noise

X = np.linspace(-6, 6, 121)
WELLS = ((0.3, -2.5, 0.5), (0.7, 2.0, 0.7))  # share, middle, width


def density(x: np.ndarray, sigma: float = 0.0) -> np.ndarray:
    spread = [np.hypot(width, sigma) for _, _, width in WELLS]
    return sum(w * stats.norm.pdf(x, m, s) for (w, m, _), s in zip(WELLS, spread, strict=True))


def score(x: np.ndarray, sigma: float) -> np.ndarray:
    spread = [np.hypot(width, sigma) for _, _, width in WELLS]
    pieces = zip(WELLS, spread, strict=True)
    slopes = sum(w * stats.norm.pdf(x, m, s) * (m - x) / s**2 for (w, m, _), s in pieces)
    return slopes / density(x, sigma)


BOWL = X**2 / 2
TWO = -np.log(density(X))


def widget(**options: object) -> Langevin:
    options = {"n_particles": 60, "n_steps": 90} | options
    return Langevin(X, {"two wells": TWO, "a bowl": BOWL}, **options)


# ------------------------------------------------------------------------------- the mathematics


@pytest.mark.parametrize("sigma", [2.0, 0.8, 0.2])
def test_a_smeared_landscape_is_that_of_the_mixture(sigma: float) -> None:
    energies, scores = _smeared(X, TWO, [sigma])
    middle = np.abs(X) < 4.5
    wanted = -np.log(density(X, sigma))
    off = (energies[0] - wanted)[middle]
    assert np.ptp(off) < 0.02  # up to a constant
    np.testing.assert_allclose(scores[0][middle], score(X, sigma)[middle], atol=0.03)
    np.testing.assert_allclose(scores[1][middle], score(X, 0)[middle], atol=0.35)
    np.testing.assert_allclose(energies[1], TWO - TWO.min())


def test_the_scores_are_minus_the_slopes_of_the_energies() -> None:
    energies, scores = _smeared(X, TWO, [1.5, 0.5])
    for energy, found in zip(energies, scores, strict=True):
        np.testing.assert_allclose(found[1:-1], -np.gradient(energy, 0.1)[1:-1], atol=0.08)


def test_the_law_a_chain_keeps() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((7, 7)) ** 3
    rows /= rows.sum(1, keepdims=True)
    law = stationary(rows)
    np.testing.assert_allclose(law @ rows, law, atol=1e-14)
    assert law.sum() == pytest.approx(1)
    # Two pairs of states that meet once in 10¹⁶ steps: subtraction would lose the balance.
    rare = 1e-16
    pairs = np.array([[0.5, 0.5, 0, 0], [0.5, 0.5, rare, 0], [0, 3 * rare, 0.5, 0.5],
                      [0, 0, 0.5, 0.5]])  # fmt: skip
    np.testing.assert_allclose(stationary(pairs), [0.375, 0.375, 0.125, 0.125], rtol=1e-12)


@pytest.mark.parametrize(("h", "temperature"), [(0.5, 1.0), (0.1, 1.0), (0.3, 0.4), (0.02, 0.5)])
def test_in_a_bowl_the_bias_of_a_step_is_known(h: float, temperature: float) -> None:
    """The chain (1 − h) x + √(2hτ) ε keeps a Gaussian of variance τ / (1 − h/2)."""
    bowl = widget(step_size=h, temperature=temperature)
    bowl.landscape = "a bowl"
    wanted = stats.norm.pdf(X, scale=np.sqrt(temperature / (1 - h / 2)))
    np.testing.assert_allclose(bowl.settled, wanted, atol=0.015 * wanted.max())
    exact = stats.norm.pdf(X, scale=np.sqrt(temperature))
    np.testing.assert_allclose(bowl.law, exact, atol=2e-3)


def test_the_law_is_p_to_the_power_of_one_over_the_temperature() -> None:
    hot = widget(temperature=2.0)
    wanted = np.sqrt(density(X))
    np.testing.assert_allclose(hot.law, wanted / np.trapezoid(wanted, X), atol=2e-3)


def test_a_step_too_fine_for_the_grid_has_no_bias_to_show() -> None:
    fine = widget(step_size=0.005, temperature=0.1)
    np.testing.assert_array_equal(fine.settled, fine.law)


def test_the_particles_follow_the_formula() -> None:
    given = widget(step_size=0.04, temperature=0.5, drop=-1.0, seed=5)
    eps = standard_noise(5, 60 * 91).reshape(91, 60)
    x = -1 + 0.1 * eps[0]
    np.testing.assert_allclose(given.particles, x, atol=1e-12)
    for k in range(1, 8):
        slope = np.interp(x, X, -np.gradient(TWO, 0.1, edge_order=2))
        x = x + 0.04 * slope + np.sqrt(2 * 0.04 * 0.5) * eps[k]
    given.step = 7.4  # steps are whole
    np.testing.assert_allclose(given.particles, x, atol=1e-2)


def test_far_wells_do_not_mix_and_annealing_mends_it() -> None:
    far = Langevin(X, {"two wells": TWO}, drop=-2.5, n_particles=300, n_steps=600)
    far.step = 600.0
    assert far.barriers[0][0] == pytest.approx(-0.6, abs=0.4)
    right = lambda: np.mean(far.particles > far.barriers[0][0])  # noqa: E731
    assert right() < 0.2
    far.annealed = True
    assert right() == pytest.approx(0.7, abs=0.1)
    np.testing.assert_allclose(far.sigmas[:2], [3, 3 * (1 / 16) ** (1 / 7)], rtol=1e-6)
    assert (far.sigmas[-1], far.level_steps) == (0, 50)
    # Everywhere at first, each falls to the nearer well, whatever its share is.
    far.annealed, far.scattered = False, True
    assert right() == pytest.approx(0.55, abs=0.06)


def test_a_particle_outside_of_the_grid_comes_back() -> None:
    lost = widget(drop=6.0, step_size=0.6)
    lost.step = 90.0
    assert np.abs(lost.particles).max() < 20


# --------------------------------------------------------------------------------------- the widget


def test_it_begins_at_rest_in_the_deepest_place_of_the_left() -> None:
    given = widget()
    assert (given.step, given.playing, given.n_steps, given.landscape) == (
        0,
        False,
        91,
        "two wells",
    )
    assert given.drop == pytest.approx(-2.5, abs=0.11)
    assert np.std(given.particles) == pytest.approx(0.1, abs=0.04)
    assert given.barriers[1] == []
    assert given.widths == pytest.approx([0.5, 1], abs=0.02)
    assert "two wells, a bowl" in given.alt
    assert repr(widget(title="Drop")) == "Langevin('Drop')"


def test_tensors_and_levels_of_ones_own_are_taken() -> None:
    given = Langevin(torch.tensor(X), {"bowl": torch.tensor(BOWL)}, sigmas=(2.0, 0.5), n_steps=30)
    assert given.sigmas == [2, 0.5, 0]
    assert given.arrays["score"]["shape"] == [1, 3, 121]
    assert given.level_steps == 10


def test_a_coarse_grid_has_levels_that_it_can_show() -> None:
    coarse = np.linspace(-3, 3, 16)
    given = Langevin(coarse, {"bowl": coarse**2})
    assert given.sigmas[-2] == pytest.approx(0.4)


def test_the_still_picture_shows_a_run() -> None:
    given = widget(n_particles=200)
    content = given.still()
    assert len(content) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    blue = np.array([int(PALETTE["data"][k : k + 2], 16) for k in (1, 3, 5)])
    thirds = np.array_split((np.abs(pixels - blue).max(-1) < 60), 3, axis=1)
    assert min(third.mean() for third in thirds) > 0.002
    given.step_size = 0.3
    assert given.still() != content


@pytest.mark.parametrize(
    ("trait", "value", "reason"),
    [
        ("landscape", "hills", "landscape must be one of a bowl, two wells, got 'hills'"),
        ("step_size", 0.0, "step_size must be above 0 and at most 0.6, got 0.0"),
        ("step_size", 0.7, "step_size must be above 0 and at most 0.6, got 0.7"),
        ("temperature", 0.05, r"temperature must lie in \[0.1, 5.0\], got 0.05"),
        ("temperature", float("nan"), r"temperature must lie in .*, got nan"),
        ("drop", 6.5, r"drop must lie in \[-6, 6\], got 6.5"),
        ("seed", -1, "seed must be an integer from 0"),
        ("step", 91.0, r"step must lie in \[0, 90\], got 91.0"),
    ],
)
def test_bad_state_is_refused(trait: str, value: object, reason: str) -> None:
    given = widget()
    with pytest.raises((ValueError, traitlets.TraitError), match=reason):
        setattr(given, trait, value)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"x": X[:9]}, "x must be 16 to 400 increasing, evenly spaced numbers, got 9"),
        ({"x": -X}, "x must be 16 to 400 increasing"),
        ({"x": X**3}, "x must be 16 to 400 increasing"),
        ({"landscapes": {}}, "landscapes must be a dict of names and energies"),
        ({"landscapes": [TWO]}, "landscapes must be a dict of names and energies"),
        ({"landscapes": {"": TWO}}, "landscapes must have names, got ''"),
        ({"landscapes": {"a": TWO[1:]}}, r"landscapes\['a'\] must have shape \[121\] like x, got"),
        ({"landscapes": {"a": TWO * np.inf}}, "must be finite"),
        ({"landscapes": {"a": -BOWL}}, "must rise towards both ends, else it keeps no particle"),
        ({"landscapes": {"a": X}}, "must rise towards both ends"),
        ({"step_size": 1.0}, "step_size must be above 0"),
        ({"temperature": 9.0}, "temperature must lie in"),
        ({"drop": 7.0}, "drop must lie in"),
        ({"sigmas": ()}, r"sigmas must be decreasing numbers, got \(\)"),
        ({"sigmas": (1.0, 2.0)}, r"sigmas must be decreasing numbers, got \[1.0, 2.0\]"),
        ({"sigmas": (1.0, 0.01)}, r"sigmas\[1\] must be a finite number of at least"),
        ({"n_particles": 0}, "n_particles must be an integer from 1 to 1000, got 0"),
        ({"n_steps": 5000}, "n_steps must be an integer from 1 to 2000, got 5000"),
        ({"seed": 2**32}, "seed must be an integer from 0"),
        ({"sigmas": np.linspace(3, 0.2, 700).tolist()}, "send fewer landscapes or levels"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Langevin(**({"x": X, "landscapes": {"a": TWO}} | arguments))
