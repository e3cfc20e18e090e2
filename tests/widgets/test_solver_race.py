"""SolverRace: its field against automatic differentiation, its solvers' orders, what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import SolverRace
from course_lib.widgets.solver_race import CALLS

TIMES = torch.linspace(0, 1, SolverRace.NODES, dtype=torch.float64)
STRAIGHT = {
    "times": TIMES, "a": 1 - TIMES, "b": TIMES, "da": -torch.ones(385), "db": torch.ones(385),
}  # fmt: skip
MEANS = [[1.5, 0.5], [-1, 1.2], [-0.4, -1.4]]
MIXTURE = {"means": MEANS, "stds": [0.5, 0.8, 0.6], "weights": [1.0, 2.0, 1.0]}


def curved() -> dict[str, torch.Tensor]:
    """A path on a quarter of a circle, a² + b² = 1."""
    t = torch.linspace(0.05, 1.5, SolverRace.NODES, dtype=torch.float64)
    return {"times": t, "a": t.cos(), "b": t.sin(), "da": -t.sin(), "db": t.cos()}


# ------------------------------------------------------------------------------- the mathematics


@pytest.mark.parametrize("path", [STRAIGHT, curved()])
def test_the_field_moves_the_density_of_the_mixture(path: dict) -> None:
    """The continuity equation, ∂p/∂t + ∇·(p v) = 0, by differences in time and place."""
    race = SolverRace(**MIXTURE, **path)
    weights = np.array(race.weights)
    stds, means = np.array(race.stds), np.array(race.means)

    def density(x: np.ndarray, node: int) -> np.ndarray:
        a, b = race.path["a"][node], race.path["b"][node]
        variances = a**2 * stds**2 + b**2
        away = ((x[..., None, :] - a * means) ** 2).sum(-1)
        return (weights * np.exp(-away / (2 * variances)) / (2 * np.pi * variances)).sum(-1)

    def flux(x: np.ndarray, node: int) -> np.ndarray:
        return density(x, node)[..., None] * race.velocity(x, node)

    x = np.random.default_rng(0).normal(size=(20, 2))
    gap = race.path["times"][1] - race.path["times"][0]
    for node in (60, 200, 330):
        change = (density(x, node + 1) - density(x, node - 1)) / (2 * gap)
        h, divergence = 1e-4, 0.0
        for d, step in enumerate(np.eye(2) * h):
            divergence = divergence + (flux(x + step, node) - flux(x - step, node))[:, d] / (2 * h)
        np.testing.assert_allclose(change, -divergence, atol=2e-4)


def test_one_gaussian_is_carried_along_a_line_of_its_own() -> None:
    """The distance from a m grows as the standard deviation does: known in closed form."""
    path = curved()
    race = SolverRace([[0.7, -0.3]], stds=0.4, **path, start=(1.3, 0.9))
    mean, std = np.array([0.7, -0.3]), (0.4**2 * path["a"] ** 2 + path["b"] ** 2).sqrt().numpy()
    away = np.array([1.3, 0.9]) - path["a"][-1].item() * mean
    exact = path["a"][0].item() * mean + away * std[0] / std[-1]
    np.testing.assert_allclose(race.reference[-1], exact, atol=1e-8)


@pytest.mark.parametrize(("solver", "order"), [("Euler", 1), ("Heun", 2), ("RK4", 4)])
def test_the_order_of_each_solver(solver: str, order: int) -> None:
    race = SolverRace(**MIXTURE, **curved())
    end = race.reference[-1]
    calls = np.array([24, 48, 96])
    errors = [np.linalg.norm(race.way(solver, n)[-1] - end) for n in calls]
    slope = np.polyfit(np.log(calls), np.log(errors), 1)[0]
    assert slope == pytest.approx(-order, abs=0.3)


def test_equal_calls_make_steps_of_other_lengths() -> None:
    race = SolverRace(**MIXTURE, **STRAIGHT, calls=16)
    assert [len(race.way(name)) for name in ("Euler", "Heun", "RK4")] == [17, 9, 5]
    assert len(race.reference) == 193
    assert set(race.errors) == {"Euler", "Heun", "RK4"}
    assert race.errors["RK4"] < race.errors["Euler"]
    for name in race.errors:
        assert race.way(name)[0].tolist() == race.start


def test_every_number_of_calls_meets_the_table() -> None:
    for calls in CALLS:
        assert calls % 4 == 0
        assert (SolverRace.NODES - 1) % calls == 0


# --------------------------------------------------------------------------------------- the widget


def test_python_reads_and_sets_start_and_calls() -> None:
    race = SolverRace(**MIXTURE, **STRAIGHT)
    assert race.calls == 8
    race.calls = 48
    assert (race.calls, race.level) == (48, 6)
    race.start = [0.5, -0.25]
    assert race.way("Euler")[0].tolist() == [0.5, -0.25]
    assert sum(race.weights) == 1
    assert repr(race) == "SolverRace('')"
    assert len(str(race.path)) < 40_000  # a notebook keeps it


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"means": [[1.0, 2.0, 3.0]]}, r"means must be at most 200 places \[K, 2\], got \[1, 3\]"),
        ({"means": np.zeros((201, 2))}, "means must be at most 200 places"),
        ({"stds": [0.1, 0.1]}, "stds must be one number for each mean, 3, got 2"),
        ({"stds": -0.1}, "stds must not be negative"),
        ({"stds": 0.0}, r"a² stds² \+ b² must be positive at all times"),
        ({"weights": [1.0, 0.0, 1.0]}, "weights must be positive"),
        ({"times": TIMES**2}, "times must rise in equal steps"),
        ({"times": TIMES.flip(0)}, "times must rise in equal steps"),
        ({"a": torch.ones(100)}, "a must be 385 numbers, SolverRace.NODES, got 100"),
        ({"db": torch.full((385,), torch.nan)}, "db must be finite"),
        ({"calls": 10}, "calls must be one of 4, 8, 12"),
        ({"start": (0.0, float("inf"))}, r"start must be two finite numbers \(x, y\)"),
        ({"start": (0.0,)}, r"start must be two finite numbers \(x, y\)"),
        ({"extent": (1, 0, 0, 1)}, "extent must be"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SolverRace(**{**MIXTURE, **STRAIGHT} | change)


def test_bad_settings_are_refused() -> None:
    race = SolverRace(**MIXTURE, **STRAIGHT)
    with pytest.raises(ValueError, match="calls must be one of"):
        race.calls = 5
    with pytest.raises(ValueError, match="level must be an index"):
        race.level = 8
    with pytest.raises(ValueError, match="start must be two finite numbers"):
        race.start = [1.0]
    with pytest.raises(ValueError, match="solver must be one of Euler, Heun, RK4"):
        race.way("Verlet")
    assert race.calls == 8


def test_the_still_picture_shows_the_race() -> None:
    content = SolverRace(**MIXTURE, **STRAIGHT).still()
    assert len(content) < 60_000
    assert Image.open(io.BytesIO(content)).size[0] == 720
