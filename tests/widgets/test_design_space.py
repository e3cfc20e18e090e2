"""DesignSpace: its formulas against the course's paths, times and ideal guess; what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from scipy.optimize import brentq

from course_lib.diffusion import (
    EDMPath,
    GaussianPath,
    StraightPath,
    VEPath,
    VPPath,
    karras_times,
)
from course_lib.diffusion.ideal import IdealDenoiser
from course_lib.diffusion.ode import euler_step, heun_step
from course_lib.widgets import DesignSpace
from course_lib.widgets.design_space import PATHS, SOLVERS

OURS: dict[str, GaussianPath] = {
    "EDM": EDMPath(),
    "VP": VPPath(),
    "VE": VEPath(0.002, 80.0),
    "straight": StraightPath(),
}
LEVELS = np.array([0.002, 0.05, 0.7, 3.0, 20.0, 80.0])
WIDE = {"means": (-1.5, 0.5), "std": 0.7, "sigma_max": 10.0, "sigma_min": 0.02}


def guess_of(path: GaussianPath, x: torch.Tensor, t: float, space: DesignSpace) -> torch.Tensor:
    """E[x_0 | x_t] by the course's ideal model, without its checks of the times."""
    centres = torch.tensor(space.means, dtype=torch.float64)[:, None]
    path.t_min, path.t_max = 0.0, 100.0  # of this copy: VP begins later than the widget does
    model = IdealDenoiser(centres, path, std=space.std)
    times = torch.full((len(x),), t, dtype=torch.float64)
    a, b = path.amounts(t, x)
    return (x - b * model(x, times)) / a


def copy_of(path: GaussianPath) -> GaussianPath:
    other = object.__new__(type(path))
    other.__dict__ = dict(path.__dict__)
    return other


# ------------------------------------------------------------------------------- the mathematics


@pytest.mark.parametrize("name", PATHS)
def test_the_paths_are_those_of_the_course(name: str) -> None:
    space, path = DesignSpace(path=name), OURS[name]
    times = space.time_at(LEVELS)
    a, b, da, db = space.amounts(times)
    np.testing.assert_allclose(b / a, LEVELS, rtol=1e-9)
    t = torch.from_numpy(times)
    for ours, theirs in ((a, path.a), (b, path.b), (da, path.da), (db, path.db)):
        np.testing.assert_allclose(ours, theirs(t), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", PATHS)
def test_the_guess_is_that_of_the_ideal_model(name: str) -> None:
    space, path = DesignSpace((-1, 0.4, 2), std=0.3, path=name), copy_of(OURS[name])
    x = np.linspace(-3, 3, 31)
    for sigma in LEVELS:
        t = float(space.time_at(sigma))
        a = space.amounts(t)[0]
        theirs = guess_of(path, torch.from_numpy(a * x)[:, None], t, space)
        np.testing.assert_allclose(space.guess(x, sigma), theirs[:, 0], atol=2e-9)


def test_the_levels_are_those_of_karras() -> None:
    for name in PATHS:
        space = DesignSpace(path=name, steps=11, rho=4.5)
        wanted = karras_times(11, sigma_min=0.002, sigma_max=80.0, rho=4.5)
        np.testing.assert_allclose(space.levels, [*wanted, 0], rtol=1e-9)


def test_even_times_are_another_rho_on_two_paths() -> None:
    """On EDM's path they are ρ = 1; on VE's they are even in log σ, which is ρ → ∞."""
    even = DesignSpace(spacing="even").levels
    np.testing.assert_allclose(even, DesignSpace(rho=1.0).levels, rtol=1e-9)
    wanted = np.geomspace(80, 0.002, 8)
    np.testing.assert_allclose(DesignSpace(path="VE", spacing="even").levels[:-1], wanted)


def test_the_exact_solution_keeps_each_start_at_its_quantile() -> None:
    """On a line the flow of the ODE maps quantiles to quantiles: no integration is needed."""
    space = DesignSpace((-1, 1.3), std=0.2, weights=[1, 3])

    def share(x: float, sigma: float) -> float:
        spread = np.hypot(space.std, sigma)
        return sum(
            w * stats.norm.cdf(x, m, spread)
            for w, m in zip(space.weights, space.means, strict=True)
        )

    start = space.sigma_max * np.array(space.starts)
    for sigma in (0.0, 0.01, 0.3, 1.0, 9.0):
        for x0, x in zip(start, space.exact(sigma), strict=True):
            rank = share(x0, space.sigma_max)
            wanted = brentq(lambda at, rank=rank, s=sigma: share(at, s) - rank, -400, 400)
            assert x == pytest.approx(wanted, abs=2e-6)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("solver", "step"), [("Euler", euler_step), ("Heun", heun_step)])
def test_the_steps_are_those_of_the_course(name: str, solver: str, step: object) -> None:
    space, path = DesignSpace(**WIDE, path=name, solver=solver, steps=6), copy_of(OURS[name])
    if name == "VE":
        path = VEPath(0.02, 10.0)

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        (a, b), (da, db) = path.amounts(t, x), path.slopes(t, x)
        guess = guess_of(path, x, t, space)
        return da * guess + db * (x - a * guess) / b

    times = space.times
    x = torch.from_numpy(space.ways[0])[:, None]
    for i in range(5):
        x = step(velocity, x, float(times[i]), float(times[i + 1] - times[i]))
        np.testing.assert_allclose(space.ways[i + 1], x[:, 0], atol=1e-8)
    guess = guess_of(path, x, float(times[5]), space)
    np.testing.assert_allclose(space.ways[6], guess[:, 0], atol=1e-8)


@pytest.mark.parametrize(("solver", "order"), [("Euler", 1), ("Heun", 2), ("DPM++ 2M", 2)])
def test_the_order_of_each_solver(solver: str, order: int) -> None:
    counts = np.array([14, 20, 28, 40])
    missed = []
    for steps in counts:
        space = DesignSpace(**WIDE, solver=solver, steps=int(steps))
        missed.append(np.abs(space.ways[-2] - space.exact(space.levels[-2])).mean())
    slope = np.polyfit(np.log(counts - 1), np.log(missed), 1)[0]
    assert slope == pytest.approx(-order, abs=0.35)


def test_one_gaussian_is_solved_exactly_by_the_path_that_suits_it() -> None:
    """Far from the data EDM's way is a straight line: Euler has nothing to err about."""
    space = DesignSpace((0.0,), std=0.001, sigma_min=0.1)
    np.testing.assert_allclose(space.errors[:-1], 0, atol=1e-4)
    assert DesignSpace((0.0,), std=0.001, sigma_min=0.1, path="VP").errors.max() > 0.05


def test_the_guess_held_for_a_step_asks_for_no_path() -> None:
    """DPM-Solver++ depends on the levels alone; so does Euler where x = (1 − t) x_0 + t eps."""
    ways = {}
    for name in PATHS:
        space = DesignSpace(path=name, solver="DPM++ 2M")
        a = np.append(space.amounts(space.times)[0], 1.0)
        ways[name] = space.ways / a[:, None]
        np.testing.assert_allclose(ways[name], ways["EDM"], atol=1e-9)
    straight = DesignSpace(path="straight")
    np.testing.assert_allclose(straight.ways[-1], DesignSpace().ways[-1], atol=1e-9)


def test_the_errors_are_of_single_steps() -> None:
    for solver in SOLVERS:
        space = DesignSpace(**WIDE, solver=solver, steps=9)
        first = space.ways[1] - space.exact(space.levels[1])
        assert space.errors[0] == pytest.approx(np.sqrt((first**2).mean()))
        assert space.errors.shape == (9,)
        assert space.calls == (17 if solver == "Heun" else 9)
        assert space.missed == pytest.approx(
            np.sqrt(((space.ways[-1] - space.exact(0.0)) ** 2).mean())
        )


# --------------------------------------------------------------------------------------- the widget


def test_python_reads_and_sets_what_is_chosen() -> None:
    space = DesignSpace(zoom=20, weights=[1, 3])
    assert space.zoom == pytest.approx(20)
    space.zoom = 2.5
    assert space.log_zoom == pytest.approx(np.log(2.5))
    space.path, space.solver, space.spacing, space.axis = "VP", "Heun", "even", "log"
    assert space.calls == 15
    assert space.weights == [0.25, 0.75]
    assert DesignSpace(sigma_max=2.0).zoom == pytest.approx(2)
    assert repr(space) == "DesignSpace('')"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"means": np.zeros(9)}, "means must be at most 8 numbers, got 9"),
        ({"means": [0.0, float("nan")]}, "means must be finite"),
        ({"std": 0.0}, "std must be"),
        ({"weights": [1.0]}, "weights must be 2 positive numbers, one a mean"),
        ({"weights": [1.0, 0.0]}, "weights must be 2 positive numbers"),
        ({"path": "DDPM"}, "path must be one of EDM, VE, VP, straight"),
        ({"solver": "RK4"}, "solver must be one of"),
        ({"spacing": "log"}, "spacing must be one of"),
        ({"axis": "x"}, "axis must be one of log, t"),
        ({"steps": 1}, "steps must be"),
        ({"steps": 41}, "steps must be"),
        ({"steps": 2.5}, "steps must be"),
        ({"rho": 0.5}, "rho must"),
        ({"rho": 13.0}, r"rho must lie in \[1, 12\]"),
        ({"sigma_min": 0.0}, "sigma_min must be"),
        ({"sigma_min": 90.0}, "sigma_max must be"),
        ({"beta_max": 0.01}, "beta_max must be"),
        ({"starts": np.zeros(25)}, "starts must be at most 24 numbers"),
        ({"zoom": 100.0}, r"zoom must lie in \[0.5, 80\], got 100"),
        ({"title": 1}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        DesignSpace(**change)


def test_bad_settings_are_refused() -> None:
    space = DesignSpace()
    with pytest.raises(ValueError, match="path must be one of"):
        space.path = "line"
    with pytest.raises(ValueError, match="steps must be"):
        space.steps = 50
    with pytest.raises(ValueError, match="rho must lie"):
        space.rho = 0.0
    with pytest.raises(ValueError, match="zoom must lie"):
        space.zoom = 0.1
    assert (space.path, space.steps, space.rho) == ("EDM", 8, 7.0)


@pytest.mark.parametrize("axis", ["t", "log"])
def test_the_still_picture_shows_ways_and_errors(axis: str) -> None:
    content = DesignSpace(path="VE", axis=axis).still()
    assert len(content) < 60_000
    assert Image.open(io.BytesIO(content)).size[0] == 720
