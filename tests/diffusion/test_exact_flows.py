"""Exact rectified flows: their laws, against closed forms, simulation and each other."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch

from course_lib.diffusion import (
    RectifiedFlow,
    continuity_residual,
    crossings,
    gaussian_map,
    gaussian_velocity,
    interpolate,
    kernel_log_prob,
    kernel_velocity,
    meetings,
    monotone_map,
    optimal_gaussian_map,
    straightness,
    transport_cost,
)
from course_lib.widgets.pairs import mean_velocity
from course_lib.widgets.uncross import count_crossings, meeting_places
from tests.diffusion.conftest import randn, refuses, seeded


def flow(velocity, **known):
    """A rectified flow whose network is an exact velocity."""
    return RectifiedFlow(lambda x, t: velocity(x, t, **known)).double()


def rand(*shape, seed=0):
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64)


# --- pairs with a blur -------------------------------------------------------------------------


def test_the_kernel_velocity_is_bayes_by_hand():
    x0, x1, x, h = randn(5, 2), randn(5, 2, seed=1), randn(3, 2, seed=2), 0.4
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    for i in range(3):
        law = torch.distributions.Normal(x[i], h)
        places = [(1 - t[i]) * a + t[i] * b for a, b in zip(x0, x1, strict=True)]
        likely = torch.stack([law.log_prob(place).sum().exp() for place in places])
        mean = sum(r * (b - a) for r, a, b in zip(likely, x0, x1, strict=True)) / likely.sum()
        torch.testing.assert_close(kernel_velocity(x, t, x0, x1, width=h)[i], mean)
        one = kernel_velocity(x[i : i + 1], t[i].item(), x0, x1, width=h)[0]
        torch.testing.assert_close(one, mean)
        density = likely.mean().log()
        torch.testing.assert_close(kernel_log_prob(x, t, x0, x1, width=h)[i], density)


def test_the_kernel_velocity_is_that_of_the_widgets():
    x0, x1, x = randn(7, 2), randn(7, 2, seed=1), randn(4, 2, seed=2)
    ours = kernel_velocity(x, 0.35, x0, x1, width=0.15)
    theirs = mean_velocity(x.numpy(), 0.35, x0.numpy(), x1.numpy(), 0.15)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_images_have_a_kernel_velocity_in_their_shape():
    x0, x1, x, t = randn(4, 1, 2, 3), randn(4, 1, 2, 3, seed=1), randn(5, 1, 2, 3), rand(5)
    flat = [v.flatten(1) for v in (x, x0, x1)]
    v = kernel_velocity(x, t, x0, x1, width=0.5)
    assert v.shape == x.shape
    torch.testing.assert_close(
        v.flatten(1), kernel_velocity(flat[0], t, flat[1], flat[2], width=0.5)
    )
    torch.testing.assert_close(
        kernel_log_prob(x, t, x0, x1, width=0.5),
        kernel_log_prob(flat[0], t, flat[1], flat[2], width=0.5),
    )
    assert kernel_velocity(x.float(), 0.5, x0.float(), x1.float(), width=0.5).dtype == torch.float32


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_kernel_velocity_carries_its_law(dim):
    """The continuity equation holds everywhere, and fails for a velocity that is a little other."""
    x0, x1, x, t = randn(6, dim), randn(6, dim, seed=1), randn(40, dim, seed=2), rand(40)
    pairs = {"x0": x0, "x1": x1, "width": 0.3}
    law = partial(kernel_log_prob, **pairs)
    v = partial(kernel_velocity, **pairs)
    assert continuity_residual(law, v, x, t).abs().max() < 1e-12
    for other in (
        lambda x, t: -v(x, t),
        lambda x, t: 1.01 * v(x, t),
        lambda x, t: v(x, 1 - t),
        lambda x, t: kernel_velocity(x, t, x0, x1, width=0.31),
    ):
        assert continuity_residual(law, other, x, t).abs().max() > 1e-3


def test_a_whirl_around_a_round_law_keeps_it_too():
    """The continuity equation does not settle v: what is straight is a choice."""
    mean, cov = torch.zeros(2).double(), torch.eye(2).double()
    law = lambda x, t: -0.5 * x.square().sum(1) / s(t)[:, 0] - s(t)[:, 0].log()  # noqa: E731
    s = lambda t: ((1 - t) ** 2 + t**2)[:, None]  # noqa: E731
    v = lambda x, t: gaussian_velocity(x, t, mean, cov, mean, cov)  # noqa: E731
    x, t = randn(30, 2), rand(30)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    assert continuity_residual(law, v, x, t).abs().max() < 1e-12
    assert continuity_residual(law, lambda x, t: v(x, t) + x @ turn, x, t).abs().max() < 1e-12


def test_the_kernel_flow_keeps_the_laws_at_both_ends():
    """Points of the blurred x_1, carried by a solver, are points of the blurred x_0: by moments."""
    x0, x1 = 2 * randn(8, 1), randn(8, 1, seed=1)
    z = x1.repeat(2000, 1) + 0.3 * randn(16000, 1, seed=2)
    model = flow(kernel_velocity, x0=x0, x1=x1, width=0.3)
    ends = model.transport(z, steps=40, solver="rk4").flatten().sort().values
    wanted = (x0.repeat(2000, 1) + 0.3 * randn(16000, 1, seed=3)).flatten().sort().values
    # In one dimension the mean distance of sorted points is the Wasserstein-1 distance.
    assert (ends - wanted).abs().mean() < 0.04
    assert (ends - z.flatten().sort().values).abs().mean() > 0.5
    # Nobody overtakes.
    order = z.flatten().argsort()
    assert model.transport(z, steps=40, solver="rk4").flatten()[order].diff().min() > 0


def test_two_pairs_that_meet_are_exchanged():
    """Two lines that cross in the middle: the flow goes from each x_1 to the nearer x_0."""
    x0 = torch.tensor([[-1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    x1 = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    assert meetings(x0, x1, width=0.1) == crossings(x0, x1) == 1
    z = flow(kernel_velocity, x0=x0, x1=x1, width=0.1).transport(x1, steps=50, solver="rk4")
    torch.testing.assert_close(z, x0.flip(0), rtol=0, atol=0.02)
    assert meetings(z, x1, width=0.1) == crossings(z, x1) == 0


# --- Gaussians ---------------------------------------------------------------------------------

MEAN0, COV0 = [1.0, -0.5], [[1.2, 0.5], [0.5, 0.6]]
MEAN1, COV1 = [-0.3, 0.2], [[0.7, -0.4], [-0.4, 1.5]]
LAWS = [torch.tensor(v, dtype=torch.float64) for v in (MEAN0, COV0, MEAN1, COV1)]
KNOWN = dict(zip(("mean0", "cov0", "mean1", "cov1"), LAWS, strict=True))
ROUND = KNOWN | {"cov1": torch.eye(2, dtype=torch.float64)}  # noise: it commutes with all


def gaussian_log_prob(x, t):
    """The law of x_t, by its own formula."""
    mean0, cov0, mean1, cov1 = LAWS
    s, u = t[:, None], t[:, None, None]
    return torch.distributions.MultivariateNormal(
        (1 - s) * mean0 + s * mean1, (1 - u) ** 2 * cov0 + u**2 * cov1
    ).log_prob(x)


def test_the_gaussian_velocity_carries_the_law_of_the_lines():
    x, t = randn(40, 2), rand(40)
    v = partial(gaussian_velocity, **KNOWN)
    assert continuity_residual(gaussian_log_prob, v, x, t).abs().max() < 1e-12
    assert continuity_residual(gaussian_log_prob, lambda x, t: -v(x, t), x, t).abs().max() > 1e-2


def test_the_gaussian_velocity_is_the_regression_on_samples():
    """Least squares of x_1 − x_0 on (1, x_t) over many drawn pairs finds the same plane."""
    n = 200_000
    root0, root1 = (torch.linalg.cholesky(cov) for cov in (LAWS[1], LAWS[3]))
    x0, x1 = LAWS[0] + randn(n, 2) @ root0.T, LAWS[2] + randn(n, 2, seed=1) @ root1.T
    x_t = interpolate(x0, x1, 0.3)
    X = torch.cat([torch.ones(n, 1).double(), x_t], dim=1)
    found = torch.linalg.lstsq(X, x1 - x0).solution
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    v = gaussian_velocity(places, 0.3, *LAWS)
    fitted = torch.cat([torch.ones(3, 1).double(), places], dim=1) @ found
    torch.testing.assert_close(v, fitted, rtol=0, atol=0.02)


@pytest.mark.parametrize("known", [KNOWN, ROUND], ids=["any", "noise"])
def test_the_gaussian_map_is_where_the_flow_ends(known):
    x = randn(20, 2)
    ends = flow(gaussian_velocity, **known).transport(x, steps=200, solver="rk4")
    torch.testing.assert_close(ends, gaussian_map(x, **known), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("function", [gaussian_map, optimal_gaussian_map])
def test_both_maps_carry_one_gaussian_to_the_other(function):
    """An affine map: the mean goes to the mean, and A C_1 Aᵀ = C_0."""
    mean0, cov0, mean1, cov1 = LAWS
    at = torch.stack([mean1, mean1 + torch.tensor([1.0, 0]), mean1 + torch.tensor([0, 1.0])])
    c, *columns = function(at, *LAWS)
    A = torch.stack([column - c for column in columns], dim=1)
    torch.testing.assert_close(c, mean0)
    torch.testing.assert_close(A @ cov1 @ A.T, cov0)
    values = torch.linalg.eigvals(A)
    assert values.imag.abs().max() < 1e-12
    assert values.real.min() > 0
    assert torch.allclose(A, A.T) == (function is optimal_gaussian_map)
    if function is gaussian_map:
        torch.testing.assert_close(A @ A, cov0 @ torch.linalg.inv(cov1))


def test_from_noise_the_gaussian_flow_is_optimal():
    x = randn(10, 2)
    torch.testing.assert_close(gaussian_map(x, **ROUND), optimal_gaussian_map(x, **ROUND))


def affine_flow(map_):
    """The exact next rectified flow of the pairs (T(x), x), T affine: one pair for each place."""
    c = map_(torch.zeros(1, 2).double())
    A = (map_(torch.eye(2).double()) - c).T
    eye = torch.eye(2, dtype=torch.float64)

    def velocity(x, t):
        s = t.to(x)[:, None, None]
        x1 = torch.linalg.solve((1 - s) * A + s * eye, (x - (1 - s[:, 0]) * c)[:, :, None])[:, :, 0]
        return x1 - (x1 @ A.T + c)

    return RectifiedFlow(velocity).double()


def narrow(degrees):
    """N(0, diag(1, 0.3²)), turned."""
    angle = math.radians(degrees)
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    ).double()
    return turn @ torch.diag(torch.tensor([1, 0.09]).double()) @ turn.T


def test_straight_is_not_optimal():
    """Two narrow Gaussians, one turned by 30 degrees: straight, and twice as dear as it need be.

    The mean cost of an affine map of N(0, C_1) is tr C_0 + tr C_1 − 2 tr A C_1.
    """
    zero, cov0, cov1 = torch.zeros(2).double(), narrow(30), narrow(0)
    laws = (zero, (cov0 + cov0.T) / 2, zero, cov1)
    first = flow(gaussian_velocity, **dict(zip(KNOWN, laws, strict=True)))
    second = affine_flow(lambda x: gaussian_map(x, *laws))
    some = randn(200, 2) @ torch.linalg.cholesky(cov1).T
    assert straightness(first.states(some, steps=50, solver="rk4")).mean() > 0.02
    assert straightness(second.states(some, steps=50, solver="rk4")).max() < 1e-12
    torch.testing.assert_close(second.transport(some, steps=1), gaussian_map(some, *laws))
    costs = []
    for function in (gaussian_map, optimal_gaussian_map):
        A = function(torch.eye(2).double(), *laws).T
        costs.append((cov0.trace() + cov1.trace() - 2 * (A @ cov1).trace()).item())
        x1 = randn(100_000, 2) @ torch.linalg.cholesky(cov1).T
        measured = transport_cost(function(x1, *laws), x1).item()
        assert measured == pytest.approx(costs[-1], rel=0.03)
    rectified, cheapest = costs
    assert 2 * cheapest < rectified < 0.25 * (cov0.trace() + cov1.trace())


# --- points ------------------------------------------------------------------------------------


def test_a_monotone_map_keeps_the_order_and_the_numbers():
    x0, x1 = randn(50), randn(50, seed=1)
    z = monotone_map(x0, x1)
    assert torch.equal(z.sort().values, x0.sort().values)
    assert torch.equal(z.argsort(), x1.argsort())


def test_the_flow_of_pairs_on_a_line_is_monotone():
    """Whatever the pairs: with a narrow blur each x_1 lands near the x_0 of its rank."""
    x0 = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    x1 = torch.tensor([10.0, 11.5, 12.0, 14.0, 13.0], dtype=torch.float64)
    for order in ([4, 3, 2, 1, 0], [2, 0, 1, 4, 3]):
        pairs = {"x0": x0[order][:, None], "x1": x1[:, None], "width": 0.02}
        ends = flow(kernel_velocity, **pairs).transport(x1[:, None], steps=2000, solver="rk4")
        torch.testing.assert_close(ends[:, 0], monotone_map(x0[order], x1), rtol=0, atol=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_meetings_and_crossings_are_those_of_the_widget(seed):
    x0, x1 = randn(12, 2, seed=seed), randn(12, 2, seed=seed + 50)
    assert crossings(x0, x1) == count_crossings(x0.numpy(), x1.numpy()) > 5
    for width in (0.1, 0.4):
        found = meetings(x0, x1, width=width)
        assert found == len(meeting_places(x0.numpy(), x1.numpy(), width))
    assert found > 3


def test_meetings_by_a_fine_grid_of_times():
    x0, x1, times = randn(15, 3), randn(15, 3, seed=1), torch.linspace(0, 1, 2001).double()
    lines = x0 + times[:, None, None] * (x1 - x0)
    met = 0
    for i, j in itertools.combinations(range(15), 2):
        apart = (lines[:, i] - lines[:, j]).norm(dim=1)
        met += int(apart.min() < 0.8 <= min(apart[0], apart[-1]))
    assert meetings(x0, x1, width=0.8) == met > 5
    shaped = [x.reshape(15, 1, 3, 1) for x in (x0, x1)]
    assert meetings(*shaped, width=0.8) == met


def test_lines_that_go_along_together_or_share_an_end_do_not_meet():
    x0 = torch.tensor([[0.0, 0.0], [0.0, 0.05]])
    assert meetings(x0, x0 + 1, width=0.1) == crossings(x0, x0 + 1) == 0
    fan = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert meetings(torch.zeros(2, 2), fan, width=0.1) == crossings(torch.zeros(2, 2), fan) == 0
    assert meetings(x0[:1], fan[:1], width=0.1) == crossings(x0[:1], fan[:1]) == 0


# --- bad input ---------------------------------------------------------------------------------


def test_bad_pairs_are_named():
    x = torch.zeros(3, 2)
    for function in (kernel_velocity, kernel_log_prob):
        with refuses("x1 must have shape [5, 2], got [4, 2]"):
            function(x, 0.5, torch.zeros(5, 2), torch.zeros(4, 2), width=0.1)
        with refuses("x0 must have shape [B, 2], got [5, 3]"):
            function(x, 0.5, torch.zeros(5, 3), torch.zeros(5, 3), width=0.1)
        with refuses("x0 must be torch.float32 like the model, got torch.float64"):
            function(x, 0.5, x.double(), x, width=0.1)
        with refuses("x must be finite, got NaN or infinite values"):
            function(x + torch.nan, 0.5, x, x, width=0.1)
        for width in (0, -1.0, True):
            with refuses(f"width must be a finite number above 0, got {width}"):
                function(x, 0.5, x, x, width=width)
        with refuses("t must lie in [0.0, 1.0], got 1.5"):
            function(x, 1.5, x, x, width=0.1)
        with refuses("t must be one time or a tensor of shape [3], got torch.float32 [2]"):
            function(x, torch.zeros(2), x, x, width=0.1)
    with refuses("x1 must have shape [3], got [4]"):
        monotone_map(torch.zeros(3), torch.zeros(4))
    with refuses("x0 must have shape [B], got [3, 2]"):
        monotone_map(x, x)
    with refuses("x1 must have shape [3, 2], got [4, 2]"):
        crossings(x, torch.zeros(4, 2))
    with refuses("x0 must have shape [B, 2], got [3, 3]"):
        crossings(torch.zeros(3, 3), torch.zeros(3, 3))
    with refuses("x1 must have shape [3, 2], got [4, 2]"):
        meetings(x, torch.zeros(4, 2), width=1.0)
    with refuses("width must be a finite number above 0, got 0"):
        meetings(x, x, width=0)
    with refuses("t must have shape [3], got [4]"):
        continuity_residual(lambda x, t: t, lambda x, t: x, x, torch.zeros(4))
    with refuses("x must be a tensor of any shape but an empty one, got NoneType"):
        continuity_residual(lambda x, t: t, lambda x, t: x, None, torch.zeros(4))


def test_bad_gaussians_are_named():
    x, m, C = torch.zeros(3, 2), torch.zeros(2), torch.eye(2)
    for function in (
        gaussian_map,
        optimal_gaussian_map,
        lambda x, *laws: gaussian_velocity(x, 0.5, *laws),
    ):
        with refuses("mean1 must have shape [2], got [3]"):
            function(x, m, C, torch.zeros(3), C)
        with refuses("cov0 must have shape [2, 2], got [2]"):
            function(x, m, m, m, C)
        with refuses("cov1 must be symmetric and positive definite, got [[1.0, 0.0], [0.0, 0.0]]"):
            function(x, m, C, m, torch.diag(torch.tensor([1.0, 0.0])))
        with refuses("cov0 must be symmetric and positive definite, got [[1.0, 1.0], [0.0, 1.0]]"):
            function(x, m, torch.tensor([[1.0, 1.0], [0.0, 1.0]]), m, C)
        with refuses("x must have shape [B, any], got [2]"):
            function(m, m, C, m, C)
    with refuses("t must lie in [0.0, 1.0], got -1.0"):
        gaussian_velocity(x, -1.0, m, C, m, C)
