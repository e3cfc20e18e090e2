"""What guidance is not: draws of p(x) (p(x | y) / p(x))^w, the tilted density, held to account.

On a line the ODE keeps the order of points, so that quantiles of the noise end as quantiles of the
guided law: no draw is needed to know it. Where the two laws part, and where they meet, is theory:

- They are one at w = 0 and 1, and for every w where p(x) and p(x | y) are Gaussians of the same
  covariance: then log p(y | x_t) is a straight line in x at all t, and its slope is a's alone.
- The guided score is that of the tilted density at the data's end of the path, and differs from
  that of the *noised* tilted density by O(σ²): so Langevin dynamics there do lead to it.
- The laws differ by O(w − 1) near w = 1. For two classes at −d and d by O(d³), against a shift of
  O(d): they meet as the classes do. To first order in d only the mean depends on the label, as
  above; to second order the variances do, whose geometric mean (the ODE's) and harmonic mean (the
  tilted density's) agree so far.
- They do not meet as the classes part. The tilted density is p(x | y) then, for every w > 0; but
  guided points are moved on by a number of the class's widths that no longer depends on d:
  z = (x − d) / σ has dz/du = (w − 1) (1 − tanh(u² + u z)), along u = d / σ from 0 to ∞.
"""

import math
from itertools import pairwise

import pytest
import torch

from course_lib.diffusion import (
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Denoiser,
    EDMPath,
    IdealDenoiser,
    VPPath,
    langevin,
    last,
    ode_sample,
)
from tests.diffusion.conftest import seeded

N, STD = 200, 0.5
QUANTILES = ((torch.arange(N).double() + 0.5) / N * 2 - 1).erfinv() * 2**0.5  # of N(0, 1)
ONE = torch.ones(N, dtype=torch.int64)
GRID = torch.linspace(-12, 12, 12001, dtype=torch.float64)


def two_classes(d, path):
    centres = torch.tensor([[-d], [d]], dtype=torch.float64)
    ideal = IdealDenoiser(centres, path, std=STD, labels=torch.tensor([0, 1]))
    return Denoiser(ideal, path).double()


def ends(model, z=None, n=N, steps=60):
    """Where the guided ODE leads the noise's quantiles: ``[N]``, rising."""
    z = QUANTILES * model.path.start_std if z is None else z
    x = last(ode_sample(model, (n, 1), steps=steps, solver="rk4", y=ONE[:n], z=z[:, None]))[:, 0]
    assert (x.diff() > 0).all(), "the order is kept"
    return x


def tilted_log_density(x, d, w):
    """Up to a constant: log p(x) + w (log p(x | 1) − log p(x))."""
    logs = torch.stack([-((x - c) ** 2) / (2 * STD**2) for c in (-d, d)])
    marginal = logs.logsumexp(0) - math.log(2)
    return marginal + w * (logs[1] - marginal)


def tilted_quantiles(d, w):
    share = tilted_log_density(GRID, d, w).softmax(0)
    below, wanted = share.cumsum(0) - share / 2, (torch.arange(N).double() + 0.5) / N
    k = torch.searchsorted(below, wanted)
    part = (wanted - below[k - 1]) / (below[k] - below[k - 1])
    return GRID[k - 1] + part * (GRID[k] - GRID[k - 1])


def apart(d, w):
    """The Wasserstein-1 distance of the guided law from the tilted density."""
    path = VPPath()
    a, b = path.points([path.t_max])[1]
    start = a * w * d + math.hypot(a * STD, b) * QUANTILES  # what is left of the data, to O(d)
    found = ends(ClassifierFreeGuidance(two_classes(d, path), w), start)
    return (found - tilted_quantiles(d, w)).abs().mean().item()


@pytest.mark.parametrize("w", [0.0, 1.0])
def test_the_laws_are_one_without_guidance(w):
    assert apart(1.0, w) < 0.01


def test_the_laws_differ_as_measured():
    """Between classes that overlap guided points lie further out, by more than a class's width."""
    guided = ClassifierFreeGuidance(two_classes(1.0, VPPath()), 4.0)
    assert ends(guided).mean().item() == pytest.approx(1.674, abs=0.01)
    assert tilted_quantiles(1.0, 4.0).mean().item() == pytest.approx(1.05, abs=0.05)
    assert apart(1.0, 4.0) > STD


def test_both_ways_have_one_law():
    model = two_classes(1.0, VPPath())
    free = ends(ClassifierFreeGuidance(model, 3.0), steps=15)
    exact = ends(ClassifierGuidance(model, model.net.logits, 3.0), steps=15)
    torch.testing.assert_close(free, exact, rtol=1e-6, atol=1e-6)


def test_the_difference_shrinks_with_the_scale():
    coarse, fine = (apart(1.0, 1 + more) for more in (0.5, 0.25))
    assert coarse > 0.1
    assert 1.6 < coarse / fine < 2.4


def test_the_difference_shrinks_by_the_cube_as_the_classes_meet():
    assert 6.8 < apart(0.1, 3.0) / apart(0.05, 3.0) < 8.5
    far, near = (tilted_quantiles(d, 3.0).mean().item() for d in (0.1, 0.05))
    assert far / near == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("w", [2.0, 4.0])
def test_the_difference_stays_as_the_classes_part(w):
    u = torch.linspace(0, 4, 2001, dtype=torch.float64)
    z = QUANTILES.clone()
    for now, then in pairwise(u):  # the midpoint rule
        half = z + (then - now) / 2 * (w - 1) * (1 - (now**2 + now * z).tanh())
        middle = (now + then) / 2
        z = z + (then - now) * (w - 1) * (1 - (middle**2 + middle * half).tanh())
    path, d = VPPath(), 6.0
    a, b = path.points([path.t_max])[1]
    start = a * d + math.hypot(a * STD, b) * QUANTILES
    found = ends(ClassifierFreeGuidance(two_classes(d, path), w), start, steps=200)
    moved = (found - d) / STD - QUANTILES
    assert moved.mean() > 0.5, "in widths of the class"
    torch.testing.assert_close(moved, z - QUANTILES, rtol=0.05, atol=0.1)
    torch.testing.assert_close(tilted_quantiles(d, w), d + STD * QUANTILES, rtol=0, atol=0.02)


@pytest.mark.parametrize("w", [0.5, 3.0, -1.0])
def test_gaussians_of_one_covariance_are_tilted_exactly(w):
    """N(0, v) if nothing is known and N(m, v) given the label: the tilted density is N(w m, v)."""
    path, m, v = VPPath(), torch.tensor([[0.8, -0.4]]).double(), 0.3

    def net(x, t, y):
        a, b = path.amounts(t, x)
        return b / (a**2 * v + b**2) * (x - a * m * (y == 0)[:, None])

    net.null_class = 1
    guided = ClassifierFreeGuidance(Denoiser(net, path).double(), w)
    z = torch.randn(20, 2, generator=seeded(), dtype=torch.float64)
    a, b = path.points([path.t_max])[1]
    y = torch.zeros(20, dtype=torch.int64)
    start = a * w * m + math.sqrt(a**2 * v + b**2) * z
    found = last(ode_sample(guided, (20, 2), steps=80, solver="rk4", y=y, z=start))
    a, b = path.points([path.t_min])[1]
    wanted = a * w * m + math.sqrt(a**2 * v + b**2) * z
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def scores(sigma, w, x):
    """The guided score at ``x`` and that of the noised tilted density, by a sum over the grid."""
    model = two_classes(1.0, EDMPath())
    y = torch.ones(len(x), dtype=torch.int64)
    guided = ClassifierFreeGuidance(model, w).predict(x[:, None], sigma, target="score", y=y)
    share = tilted_log_density(GRID, 1.0, w).softmax(0)
    bells = share * (-((x[:, None] - GRID) ** 2) / (2 * sigma**2)).exp()
    noised = (bells @ GRID / bells.sum(1) - x) / sigma**2
    return guided[:, 0], noised


def test_the_guided_score_is_not_that_of_the_noised_tilted_density():
    """Save at w = 0 and 1; but the difference falls like σ² where the noise ends."""
    x = torch.linspace(-1.5, 2.5, 9, dtype=torch.float64)
    for w in (0.0, 1.0):
        for sigma in (0.1, 1.0, 10.0):
            torch.testing.assert_close(*scores(sigma, w, x), rtol=1e-5, atol=1e-6)
    gaps = []
    for sigma in (1.0, 0.04, 0.02, 0.01):
        guided, noised = scores(sigma, 3.0, x)
        gaps.append((guided - noised).norm().item())
    assert gaps[0] > 0.5
    assert 3.5 < gaps[1] / gaps[2] < 4.5
    assert 3.8 < gaps[2] / gaps[3] < 4.2


def test_langevin_at_the_end_of_the_path_does_lead_to_the_tilted_density():
    """So a corrector mends what guidance does wrong; the ODE's ends lie elsewhere."""
    model = two_classes(0.4, EDMPath())
    guided, y = ClassifierFreeGuidance(model, 3.0), torch.ones(4000, dtype=torch.int64)
    x = torch.randn(4000, 1, generator=seeded(), dtype=torch.float64)
    ways = langevin(
        lambda x: guided.predict(x, 0.01, target="score", y=y),
        x,
        step_size=0.01,
        steps=200,
        generator=seeded(1),
    )
    x, wanted = last(ways)[:, 0], tilted_quantiles(0.4, 3.0)
    assert abs(x.mean() - wanted.mean()) < 0.04
    assert abs(x.std() / wanted.std() - 1) < 0.05
    far = ends(ClassifierFreeGuidance(two_classes(0.4, VPPath()), 3.0))
    assert abs(far.std() / wanted.std() - 1) > 0.1
