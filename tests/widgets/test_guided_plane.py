"""GuidedPlane: its scores against the ideal denoiser, its particles, the true density, refusals."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from course_lib.diffusion import (
    ClassifierFreeGuidance,
    Denoiser,
    EDMPath,
    IdealDenoiser,
    heun_sample,
    karras_times,
)
from course_lib.widgets import PALETTE, GuidedPlane
from course_lib.widgets.guided_plane import GRID

MEANS = np.array([[-1.2, 0.6], [-0.3, -1.0], [0.4, 0.9], [1.3, -0.2]])
LABELS = [0, 0, 1, 1]
PLACES = np.random.default_rng(0).normal(size=(50, 2)) * 2


def plane(**options: object) -> GuidedPlane:
    return GuidedPlane(MEANS, LABELS, **{"stds": 0.45, "n_particles": 40} | options)


def ideal_score(means: np.ndarray, x: np.ndarray, sigma: float, std: float) -> np.ndarray:
    """−E[eps | x] / σ of Gaussians that are equally likely, from the course's ideal denoiser."""
    x, means = (torch.tensor(value, dtype=torch.float64) for value in (x, means))
    denoiser = IdealDenoiser(means, EDMPath(), std=std)
    times = torch.full((len(x),), sigma, dtype=torch.float64)
    return -denoiser(x, times).numpy() / sigma


# ------------------------------------------------------------------------------- the mathematics


@pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
@pytest.mark.parametrize("w", [0.0, 1.0, 4.5])
def test_the_scores_are_those_of_the_ideal_denoiser(sigma: float, w: float) -> None:
    marginal = ideal_score(MEANS, PLACES, sigma, 0.45)
    own = ideal_score(MEANS[2:], PLACES, sigma, 0.45)
    found = plane(target="B", w=w).score(PLACES, sigma)
    np.testing.assert_allclose(found, marginal + w * (own - marginal), rtol=1e-9, atol=1e-9)


def test_the_particles_are_those_of_the_courses_own_sampler() -> None:
    """Classifier-free guidance of the ideal denoiser, by Heun's method on Karras' noise levels."""
    path, ends = EDMPath(0.02, 20.0), {"sigma_min": 0.02, "sigma_max": 20.0}
    sigmas = karras_times(40, **ends)
    one = plane(sigmas=sigmas, w=3.5, target="B")
    one.step = 0.0
    ideal = IdealDenoiser(torch.tensor(MEANS), path, std=0.45, labels=torch.tensor(LABELS))
    guided = ClassifierFreeGuidance(Denoiser(ideal, path), 3.5).double()
    noise, y = torch.tensor(one.particles), torch.ones(40, dtype=torch.int64)
    states = list(heun_sample(guided, (40, 2), steps=40, y=y, z=noise))
    np.testing.assert_allclose(states[-2], one.ends, atol=1e-6)  # the last step is that to 0
    one.step = 17.0
    np.testing.assert_allclose(states[17], one.particles, atol=1e-6)


def test_the_guided_score_is_the_gradient_of_log_p_plus_w_log_p_of_y() -> None:
    """At σ = 0 that of the tilted density: there, and only there, they agree."""
    one = plane(weights=[2, 1, 1, 3], w=3.0)
    h = 1e-5
    steps = h * np.eye(2)
    for x in PLACES[:10] / 2:
        logs = [np.log(one.tilted(x + step) / one.tilted(x - step)) for step in steps]
        np.testing.assert_allclose(
            one.score(x, 0.0), np.array(logs) / (2 * h), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize(("w", "means"), [(0.0, MEANS), (1.0, MEANS[:2])])
def test_without_tilt_it_is_the_marginal_or_the_conditional(w: float, means: np.ndarray) -> None:
    peers = [stats.multivariate_normal(mean, 0.45**2) for mean in means]
    exact = np.mean([peer.pdf(PLACES) for peer in peers], 0)
    np.testing.assert_allclose(plane(w=w).tilted(PLACES), exact, rtol=1e-3)


def test_the_particles_follow_the_marginal_and_the_conditional() -> None:
    for w, mean in ((0.0, MEANS.mean(0)), (1.0, MEANS[:2].mean(0))):
        one = plane(w=w, n_particles=400, seed=3)
        np.testing.assert_allclose(one.ends.mean(0), mean, atol=0.15)
        assert one.apart < 0.15
        assert one.inside == pytest.approx(0.95, abs=0.035)


def test_guided_particles_do_not_follow_the_true_density() -> None:
    """Nor is it the solver's doing: twice as many steps, spaced differently, end in the same
    places.
    """
    one = plane(w=6.0, n_particles=400)
    assert one.inside < 0.8
    assert one.apart > 0.6
    fine = plane(w=6.0, n_particles=400, sigmas=np.geomspace(one.sigmas[0], one.sigmas[-1], 81))
    assert np.linalg.norm(fine.ends - one.ends, axis=1).mean() < 0.005
    assert fine.inside == pytest.approx(one.inside, abs=0.01)


def test_one_gaussian_a_class_keeps_the_line_between_them() -> None:
    """The farther w, the farther the particles of B are from A; across, nothing changes."""
    ends = [
        GuidedPlane([[-1, 0], [1, 0]], [0, 1], stds=0.6, w=w, target="B").ends
        for w in (1.0, 3.0, 8.0)
    ]
    assert (np.diff([end[:, 0].mean() for end in ends]) > 0.1).all()
    np.testing.assert_allclose(ends[0][:, 1], ends[2][:, 1], atol=1e-9)


def test_the_region_holds_95_percent() -> None:
    one = plane(w=3.0)
    cells, area = one._cells()
    density = one.tilted(cells)
    assert density.sum() * area == pytest.approx(1)
    held = density[density >= one._edge].sum() * area
    assert 0.95 <= held < 0.952
    assert cells.shape == (GRID, GRID, 2)


# ------------------------------------------------------------------------------------- the widget


def test_python_reads_and_sets_the_state() -> None:
    one = plane(names=["left", "right"])
    assert (one.target, one.w, one.n_steps) == ("left", 2.0, 41)
    assert one.sigma == pytest.approx(one.size, rel=0.15)  # what is shown first
    assert one.sigmas[0] == pytest.approx(20 * one.size)
    one.step = 0.0
    noise = one.particles / one.sigmas[0]
    assert 0.7 < noise.std() < 1.3
    one.step = 39.5
    assert one.sigma == pytest.approx(np.sqrt(one.sigmas[-2] * one.sigmas[-1]))
    one.step = 40.0
    np.testing.assert_allclose(one.particles, one.ends)
    before = one.ends
    one.target, one.seed, one.place = "right", 1, [0.5, -0.5]
    assert (one.ends != before).all()
    assert one.labels[-1] == f"σ = {one.sigmas[-1]:.3g}"
    levels = torch.tensor([5.0, 1.0, 0.1])
    assert plane(sigmas=levels, place=(1, 1)).sigmas == pytest.approx([5, 1, 0.1])
    three = GuidedPlane(torch.zeros(3, 2), torch.tensor([2, 1, 0]), stds=[1, 2, 3])
    assert three.names == ["A", "B", "C"]
    assert one.data == b""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"means": [1.0]}, r"means must have shape \[K, 2\]"),
        ({"means": np.zeros((13, 2))}, r"means must be at most 12 places \[K, 2\], got \[13, 2\]"),
        ({"means": [[0, np.inf]] * 4}, "means must be finite"),
        ({"labels": [0, 0, 0, 0]}, "labels must be 4 numbers 0, 1 and perhaps 2, each of which"),
        ({"labels": [0, 1, 3, 0]}, "labels must be 4 numbers"),
        ({"labels": [0, 1]}, "labels must be 4 numbers"),
        ({"labels": [0, 0.5, 1, 1]}, "labels must be 4 numbers"),
        ({"stds": 0.0}, "stds must be 4 positive numbers"),
        ({"stds": [1.0, 1.0]}, "stds must be 4 positive numbers"),
        ({"weights": [1, 1, 1, 0]}, "weights must be 4 positive numbers"),
        ({"names": ["A"]}, "names must be 2 strings"),
        ({"names": ["A", "A"]}, "names must be different"),
        ({"sigmas": [1.0]}, "sigmas must be 2 to 81 positive numbers that decrease"),
        ({"sigmas": [1.0, 2.0]}, "that decrease"),
        ({"sigmas": [1.0, 0.0]}, "sigmas must be 2 to 81 positive"),
        ({"w": -0.1}, r"w must lie in \[0, 8\], got -0.1"),
        ({"w": np.nan}, r"w must lie in \[0, 8\]"),
        ({"target": "C"}, "target must be one of A, B, got 'C'"),
        ({"n_particles": 401}, "n_particles must"),
        ({"seed": -1}, "seed must"),
        ({"place": (9, 0)}, "place must be"),
        ({"extent": (1, 0, 0, 1)}, "extent must be"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    given = {"means": MEANS, "labels": LABELS, "stds": 0.45} | change
    with pytest.raises(ValueError, match=reason):
        GuidedPlane(given.pop("means"), given.pop("labels"), **given)


def test_bad_states_are_refused_later_too() -> None:
    one = plane()
    for name, value in (("w", 8.1), ("target", "C"), ("arrows", "all"), ("seed", -1), ("step", 41)):
        with pytest.raises(ValueError, match=name):
            setattr(one, name, value)
    for place in ([0.0], [np.nan, 0.0]):
        with pytest.raises(ValueError, match="place must be"):
            one.place = place
    assert (one.w, one.target, one.arrows) == (2.0, "A", "guided")


def test_the_still_picture_shows_particles_and_density() -> None:
    content = plane(n_particles=200).still()
    assert len(content) < 90_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    for role in ("data", "model"):
        wanted = np.array([int(PALETTE[role][i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(pixels - wanted).max(-1) < 40).sum() > 100
