"""Flow matching: its loss, its gradient against the marginal one, and optimal couplings."""

import itertools

import pytest
import torch
from torch import nn

from course_lib.diffusion import (
    Denoiser,
    FlowMatching,
    StraightPath,
    VPPath,
    conditional_velocity,
    marginal_velocity,
    optimal_coupling,
)
from course_lib.nn import TimeMLP
from tests.diffusion.conftest import Circle, randn, refuses, seeded

PATHS = {"straight": StraightPath(), "circle": Circle(), "VP": VPPath()}
each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def squares(x0, x1):
    """The sum of the squared distances of pairs, by another way than the library's."""
    return sum(((a - b) ** 2).sum().item() for a, b in zip(x0, x1, strict=True))


# --- the loss ----------------------------------------------------------------------------------


def test_the_network_is_asked_on_the_line_and_told_its_direction():
    """x_t = (1 - t) x_0 + t eps, and the target is eps - x_0."""
    asked = []

    def net(x, t):
        asked.append((x, t))
        return torch.zeros_like(x)

    model, x = FlowMatching(net).double(), randn(300, 3)
    loss = model.loss(x, generator=seeded(4))
    t = torch.rand(300, generator=(draws := seeded(4)))
    eps = torch.randn(300, 3, generator=draws, dtype=torch.float64)
    x_t, told = asked[0]
    assert torch.equal(told, t)
    torch.testing.assert_close(x_t, x + t[:, None].double() * (eps - x))
    torch.testing.assert_close(loss, ((eps - x) ** 2).mean())
    assert model.predicts == "velocity"
    assert isinstance(model, Denoiser)
    assert "straight" in repr(model).lower()
    assert "coupling=independent" in repr(model)


@each_path
def test_the_loss_is_that_of_any_denoiser_of_the_velocity(path):
    net = TimeMLP(2, [8], scale=1000).double()
    x = randn(20, 2)
    ours = FlowMatching(net, path=path).double().loss(x, generator=seeded())
    other = Denoiser(net, path, predicts="velocity").double().loss(x, generator=seeded())
    assert torch.equal(ours, other)


def test_with_optimal_transport_only_the_noise_changes_places():
    seen = []

    def net(x, t, y):
        seen.append((x, t, y))
        return torch.zeros_like(x)

    x, y = randn(40, 1, 2, 3), torch.arange(40)
    model = FlowMatching(net, coupling="ot").double()
    loss = model.loss(x, y, generator=seeded(5))
    t = torch.rand(40, generator=(draws := seeded(5)))
    eps = torch.randn(40, 1, 2, 3, generator=draws, dtype=torch.float64)
    x_t, told, labels = seen[0]
    assert torch.equal(labels, y)
    assert torch.equal(told, t)
    found = x + (x_t - x) / t.double()[:, None, None, None]  # the noise that each one got
    nearest = torch.cdist(found.flatten(1), eps.flatten(1)).argmin(1)
    assert sorted(nearest.tolist()) == list(range(40))
    torch.testing.assert_close(found, eps[nearest], rtol=1e-4, atol=1e-4)
    assert nearest.tolist() != list(range(40))
    best = squares(x, eps[optimal_coupling(x, eps)])
    assert squares(x, eps[nearest]) == pytest.approx(best)
    assert best < 0.9 * squares(x, eps)
    torch.testing.assert_close(loss, ((eps[nearest] - x) ** 2).mean())


def test_the_coupling_leaves_the_gradient_to_the_network():
    net = TimeMLP(2, [8], scale=1000)
    FlowMatching(net, coupling="ot").loss(torch.randn(8, 2, generator=seeded())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


# --- the marginal velocity ---------------------------------------------------------------------


@each_path
def test_the_velocity_of_a_pair_is_that_of_its_path(path):
    """By the difference quotient of a x_0 + b eps."""
    x0, eps = randn(5, 2), randn(5, 2, seed=1)
    t, h = torch.full((5,), 0.4, dtype=torch.float64), 1e-6
    after, before = path.noised(x0, t + h, eps), path.noised(x0, t - h, eps)
    now = path.noised(x0, t, eps)
    slope = (after - before) / (2 * h)
    torch.testing.assert_close(conditional_velocity(now, x0, t, path), slope, rtol=1e-7, atol=1e-7)


@each_path
@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
def test_the_marginal_velocity_is_the_mean_of_the_pairs_by_bayes(path, t):
    data, x = randn(4, 2), randn(6, 2, seed=1)
    a, b = (f(torch.tensor(t, dtype=torch.float64)) for f in (path.a, path.b))
    expected = []
    for point in x:
        law = torch.distributions.Normal(point, b)
        likely = torch.stack([law.log_prob(a * x0).sum().exp() for x0 in data])
        each = torch.cat([conditional_velocity(point[None], x0[None], t, path) for x0 in data])
        expected.append((likely[:, None] * each).sum(0) / likely.sum())
    got = marginal_velocity(x, data, t, path)
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_between_two_points_the_velocities_cancel():
    """In the middle between two data points the marginal velocity at t = 1/2 is that of neither."""
    data = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    middle = torch.zeros(1, 1, dtype=torch.float64)
    each = [conditional_velocity(middle, x0, 0.5, StraightPath()).item() for x0 in data]
    assert each == [2.0, -2.0]
    assert marginal_velocity(middle, data, 0.5, StraightPath()).item() == pytest.approx(0)


def test_the_two_losses_have_one_gradient():
    """Both means are exact: over a finite data set, times and noises, all of them enumerated.

    Noise takes four values with the weights of a small lattice; the marginal velocity is the mean
    over the pairs that meet in one point of the lattice, and many do.
    """
    data = torch.tensor([[-2.0], [0.0], [2.0]], dtype=torch.float64)
    noises = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]], dtype=torch.float64)
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    path = StraightPath()
    net = TimeMLP(1, [8], scale=3.0).double()
    conditional, marginal, constant = 0.0, 0.0, 0.0
    for t in (0.25, 0.5, 2 / 3):
        met = {}  # place: [(weight, velocity)]
        for x0, (j, eps) in itertools.product(data, enumerate(noises)):
            place = round(((1 - t) * x0 + t * eps).item(), 9)
            pair = conditional_velocity(torch.tensor([[place]]).double(), x0[None], t, path)
            torch.testing.assert_close(pair, (eps - x0)[None], rtol=1e-7, atol=1e-7)
            met.setdefault(place, []).append((weights[j] / len(data), (eps - x0)[None]))
        assert t != 0.5 or any(len(pairs) > 1 for pairs in met.values())
        for place, pairs in met.items():
            said = net(torch.tensor([[place]]).double(), torch.tensor([t]).double())
            whole = sum(weight for weight, _ in pairs)
            mean = sum(weight * velocity for weight, velocity in pairs) / whole
            marginal = marginal + whole * ((said - mean) ** 2).sum()
            for weight, velocity in pairs:
                conditional = conditional + weight * ((said - velocity) ** 2).sum()
                constant = constant + weight * ((velocity - mean) ** 2).sum()
    torch.testing.assert_close(conditional, marginal + constant, rtol=1e-12, atol=1e-12)
    assert constant > 0.1
    for one, other in zip(
        torch.autograd.grad(conditional, net.parameters(), retain_graph=True),
        torch.autograd.grad(marginal, net.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_gradients_agree_for_gaussian_noise_as_well():
    """The noise is integrated on a fine grid: E of x_t given the data is a sum over places."""
    data, path, t = torch.tensor([[-1.0], [0.5], [2.0]]).double(), StraightPath(), 0.4
    places = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    net = TimeMLP(1, [8], scale=3.0).double()
    law = torch.distributions.Normal((1 - t) * data.T, t)
    density = law.log_prob(places).exp() / len(data)  # [places, K]
    said = net(places, torch.full((len(places),), t).double())
    pairs = torch.cat(
        [conditional_velocity(places, x0[None], t, path) for x0 in data], dim=1
    )  # [places, K]
    conditional = (density * (said - pairs) ** 2).sum()
    marginal = (density.sum(1) * (said - marginal_velocity(places, data, t, path))[:, 0] ** 2).sum()
    for one, other in zip(
        torch.autograd.grad(conditional, net.parameters(), retain_graph=True),
        torch.autograd.grad(marginal, net.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


# --- couplings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 8))
def test_no_permutation_is_shorter(n):
    x0, x1 = randn(n, 2, seed=n), randn(n, 2, seed=n + 10)
    found = optimal_coupling(x0, x1)
    assert found.dtype == torch.int64
    assert sorted(found.tolist()) == list(range(n))
    best = min(squares(x0, x1[list(order)]) for order in itertools.permutations(range(n)))
    assert squares(x0, x1[found]) == pytest.approx(best)


def test_pairs_on_a_line_keep_their_order():
    """In one dimension the best coupling of points with points is the sorted one."""
    x0, x1 = randn(100, 1), randn(100, 1, seed=1)
    found = optimal_coupling(x0, x1)
    assert torch.equal(x1[found].flatten().argsort(), x0.flatten().argsort())


def test_images_are_paired_by_all_their_pixels():
    x0 = randn(30, 2, 3, 4)
    order = torch.randperm(30, generator=seeded())
    near = (x0 + 0.1 * randn(30, 2, 3, 4, seed=1))[order]
    assert torch.equal(near[optimal_coupling(x0, near)], near[order.argsort()])


def test_coupling_shortens_and_uncrosses():
    """No two segments of an optimal coupling of points in the plane meet at one time."""
    x0, x1 = randn(64, 2), randn(64, 2, seed=1)
    found = optimal_coupling(x0, x1)
    assert squares(x0, x1[found]) < 0.6 * squares(x0, x1)
    for i, j in itertools.combinations(range(64), 2):
        assert (x0[i] - x0[j]) @ (x1[found[i]] - x1[found[j]]) >= -1e-9  # monotone


# --- bad input ---------------------------------------------------------------------------------


def test_bad_arguments_are_named():
    net = nn.Identity()
    with refuses("coupling must be one of independent, ot, got 'OT'"):
        FlowMatching(net, coupling="OT")
    with refuses("path must be a GaussianPath, got 'straight'"):
        FlowMatching(net, path="straight")
    with refuses("net must be a network or a function, got None"):
        FlowMatching(None)
    x = torch.zeros(3, 2)
    with refuses("x1 must have shape [3, 2], got [4, 2]"):
        optimal_coupling(x, torch.zeros(4, 2))
    with refuses("x0 must have shape [B, *event], got [3]"):
        optimal_coupling(torch.zeros(3), torch.zeros(3))
    with refuses("x1 must be finite, got NaN or infinite values"):
        optimal_coupling(x, x + torch.inf)
    with refuses("data must have shape [B, 2], got [4, 3]"):
        marginal_velocity(x, torch.zeros(4, 3), 0.5, StraightPath())
    for stray in (-0.5, 1.5):
        with refuses(f"t must lie in [0.0, 1.0], got {stray}"):
            marginal_velocity(x, x, stray, StraightPath())
