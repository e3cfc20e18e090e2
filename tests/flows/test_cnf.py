"""Continuous flows: the map, its volume, its density, its gradients, and where solvers fail."""

import math
import re

import pytest
import torch
from torch import nn

from course_lib.flows import CNF, SolverError
from course_lib.flows.cnf import integrate
from course_lib.nn import TimeMLP
from course_lib.notebook import bytes_kept
from tests.flows.conftest import log_abs_det_jacobian, randomize

TIGHT = {"rtol": 1e-8, "atol": 1e-8}
A = torch.tensor([[0.3, -0.8], [0.5, -0.1]], dtype=torch.float64)


class Linear(nn.Module):
    """f(x, t) = c(t) A x, whose flow is exp(∫c A)."""

    def __init__(self, matrix=A):
        super().__init__()
        self.matrix = nn.Parameter(matrix.clone())

    def forward(self, x, t):
        return 2 * t[:, None] * (x @ self.matrix.T)


def net(generator, dim=2, scale=0.7):
    return randomize(TimeMLP(dim, [12, 12], scale=3.0), generator, scale)


def flow_of(generator, dim=2, **options):
    return CNF(dim, net(generator, dim), **TIGHT, **options).double()


@pytest.fixture
def x(generator):
    return torch.randn(5, 2, generator=generator, dtype=torch.float64)


# --- the map and its volume --------------------------------------------------------------------


def test_a_linear_field_is_solved_exactly(x):
    """∫ 2t dt = 1: the map is exp(A), and the log-determinant tr A."""
    flow = CNF(2, Linear(), **TIGHT).double()
    z, log_det = flow(x)
    torch.testing.assert_close(z, x @ torch.linalg.matrix_exp(A).T, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(log_det, torch.full((5,), 0.2).double(), rtol=1e-7, atol=1e-7)
    back, log_det = flow.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(log_det, torch.full((5,), -0.2).double(), rtol=1e-7, atol=1e-7)


def test_the_integral_is_the_log_determinant_of_the_whole_map(generator):
    flow = CNF(3, net(generator, 3), rtol=1e-6, atol=1e-6).double()
    points = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    log_det = flow(points)[1]

    def mapped(p):
        return integrate(flow.velocity, p, (0.0, 1.0), divergence=False, rtol=1e-6, atol=1e-6)[0][1]

    exact = log_abs_det_jacobian(mapped, points)
    torch.testing.assert_close(log_det, exact, rtol=1e-4, atol=1e-4)
    assert exact.abs().min() > 0.01


def test_forward_and_inverse_undo_each_other(x, generator):
    flow = flow_of(generator)
    z, there = flow(x)
    again, back = flow.inverse(z)
    torch.testing.assert_close(again, x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(back, -there, rtol=1e-6, atol=1e-6)
    assert (z - x).abs().max() > 0.1


def test_time_runs_from_data_to_latent(x):
    """The network is told 0 at the data and 1 at the latent, one time for each point."""
    seen = []

    def velocity(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    flow = CNF(2, velocity).double()
    flow(x)
    assert seen[0].tolist() == [0.0] * 5
    assert max(t.max().item() for t in seen) >= 1
    seen.clear()
    flow.inverse(x)
    assert seen[0].tolist() == [1.0] * 5


# --- the density -------------------------------------------------------------------------------


def test_the_density_of_a_linear_flow_is_a_gaussian(x):
    flow = CNF(2, Linear(), **TIGHT).double()
    back = torch.linalg.matrix_exp(-A)
    law = torch.distributions.MultivariateNormal(torch.zeros(2).double(), back @ back.T)
    torch.testing.assert_close(flow.log_prob(x), law.log_prob(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(flow.loss(x), -law.log_prob(x).mean(), rtol=1e-6, atol=1e-6)
    samples = CNF(2, Linear().float()).sample(20_000, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(samples.T.cov().double(), back @ back.T, rtol=0.05, atol=0.05)


def test_the_density_integrates_to_1(generator):
    flow = CNF(2, net(generator), rtol=1e-5, atol=1e-5).double()
    side = torch.linspace(-9, 9, 46, dtype=torch.float64)
    with torch.no_grad():
        mass = flow.log_prob(torch.cartesian_prod(side, side)).exp().sum() * 0.4**2
    assert mass.item() == pytest.approx(1, abs=1e-3)


def test_hutchinsons_density_is_right_on_average(x, generator):
    """Of a linear field's the estimate is exact for each probe: tr A + ε₁ε₂ (A₁₂ + A₂₁)."""
    flow = CNF(2, Linear(), divergence="hutchinson", **TIGHT).double()
    many = x[:1].expand(400, 2)
    log_det = flow(many, generator=generator)[1]
    for value in log_det.tolist():
        assert min(abs(value - (0.2 + s * 0.3)) for s in (-1, 1)) < 1e-6  # -0.8 + 0.5 = -0.3
    assert 0.4 < (log_det > 0.2).double().mean() < 0.6
    first = flow.log_prob(x, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, flow.log_prob(x, generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(
        flow.log_prob(many, generator=generator), flow.log_prob(many, generator=generator)
    )


# --- gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_the_adjoint_gives_the_gradient_of_backpropagation(x, generator, divergence):
    model = net(generator).double()
    gradients = []
    for adjoint in (False, True):
        flow = CNF(2, model, divergence=divergence, adjoint=adjoint, **TIGHT).double()
        leaf = x.clone().requires_grad_()
        loss = flow.loss(leaf, generator=torch.Generator().manual_seed(5))
        gradients.append(torch.autograd.grad(loss, [leaf, *model.parameters()]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-6)
    assert gradients[0][1].abs().max() > 1e-3


def test_the_gradient_is_the_slope_of_the_loss(x):
    """By a difference quotient in one weight."""
    flow = CNF(2, Linear(), adjoint=True, **TIGHT).double()
    flow.loss(x).backward()
    losses = []
    for change in (1e-4, -1e-4):
        moved = A.clone()
        moved[0, 1] += change
        losses.append(CNF(2, Linear(moved), **TIGHT).double().loss(x).item())
    slope = (losses[0] - losses[1]) / 2e-4
    assert flow.net.matrix.grad[0, 1].item() == pytest.approx(slope, rel=1e-5)


def test_the_adjoint_keeps_next_to_nothing(x, generator):
    """What waits for the backward pass does not grow with the number of steps."""
    model = net(generator).double()

    def kept(adjoint, tolerance):
        flow = CNF(2, model, adjoint=adjoint, rtol=tolerance, atol=tolerance).double()
        return bytes_kept(lambda: flow.loss(x))

    assert kept(True, 1e-8) == kept(True, 1e-3)
    assert kept(False, 1e-8) > 2 * kept(False, 1e-3) > 20 * kept(True, 1e-3)


def test_sampling_and_trajectories_keep_no_graph(x, generator):
    flow = flow_of(generator)
    for states in (flow.sample(3, generator=generator), flow.trajectory(x)):
        assert not states.requires_grad


# --- the other verbs ---------------------------------------------------------------------------


def test_trajectories_lead_from_end_to_end(x, generator):
    flow = flow_of(generator)
    z = flow(x)[0]
    there, back = flow.trajectory(x, steps=4), flow.trajectory_inverse(z, steps=4)
    assert there.shape == back.shape == (5, 5, 2)
    assert flow.trajectory(x).shape == flow.trajectory_inverse(x).shape == (21, 5, 2)
    torch.testing.assert_close(there[0], x)
    torch.testing.assert_close(there[-1], z, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(there.flip(0), back, rtol=1e-5, atol=1e-5)


def test_samples_are_latents_led_back(generator):
    flow = flow_of(generator)
    x = flow.sample(6, generator=torch.Generator().manual_seed(2))
    z = flow.base.sample(6, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(x, flow.inverse(z)[0], rtol=1e-6, atol=1e-6)


def test_sampling_and_trajectories_ask_for_no_divergence():
    """No derivative is taken on the way: the field is never called where they are recorded."""
    recorded = []
    flow = CNF(2, lambda x, t: recorded.append(torch.is_grad_enabled()) or -x)
    x = torch.ones(3, 2)
    torch.testing.assert_close(flow.trajectory(x)[-1], x / math.e, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(flow.trajectory_inverse(x)[-1], x * math.e, rtol=1e-4, atol=1e-4)
    z = flow.base.sample(4, generator=torch.Generator().manual_seed(2))
    samples = flow.sample(4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(samples, z * math.e, rtol=1e-4, atol=1e-4)
    assert recorded
    assert not any(recorded)


def test_what_an_integral_is_unasked(x):
    """To four digits, with its divergence; each tolerance alone would spoil them."""

    def field(x, t):
        return torch.sin(5 * x) + 3 * t

    exact, change = (part[-1] for part in integrate(field, x, (0.0, 1.0), **TIGHT))
    states, integrals = integrate(field, x, (0.0, 1.0))
    torch.testing.assert_close(states[-1], exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(integrals[-1], change, rtol=1e-4, atol=1e-4)
    assert change.abs().min() > 0.01
    for loose in ({"rtol": 1.0}, {"atol": 1.0}):
        state = integrate(field, x, (0.0, 1.0), **loose)[0][-1]
        assert (state - exact).abs().max() > 1e-3, loose


def test_it_says_what_it_is(generator):
    flow = CNF(2, net(generator), divergence="hutchinson", adjoint=True)
    assert "CNF(" in repr(flow)
    assert "dim=2, divergence=hutchinson, adjoint=True" in repr(flow)
    assert len(list(flow.parameters())) == len(list(flow.net.parameters()))


# --- where it fails ----------------------------------------------------------------------------


def test_a_field_that_explodes_is_named_with_its_time():
    """dx/dt = x² is infinite at t = 1 / x: from x = 2 in the middle of the way."""
    flow = CNF(1, lambda x, t: x**2).double()
    with pytest.raises(SolverError) as error:
        flow(torch.tensor([[2.0]]).double())
    found = re.fullmatch(
        r"the solver must come from t = 0 to 1, got stuck at t = ([\d.]+) \(underflow in dt .*\)",
        str(error.value),
    )
    assert found, error.value
    assert float(found[1]) == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(SolverError, match=r"from t = 1 to 0, got stuck at t = 0\.6"):
        CNF(1, lambda x, t: -(x**2)).double().inverse(torch.tensor([[3.0]]).double())


def test_a_field_that_is_not_finite_is_named():
    def hole(x, t):
        return torch.where(t[:, None] > 0.3, torch.nan, x)

    with pytest.raises(SolverError, match=r"got stuck at t = 0\.[0-3]"):
        CNF(1, hole).log_prob(torch.ones(2, 1))


def test_too_many_steps_are_named(monkeypatch):
    monkeypatch.setattr("course_lib.flows.cnf.MAX_STEPS", 5)
    with pytest.raises(SolverError, match=r"\(max_num_steps exceeded"):
        CNF(1, lambda x, t: torch.cos(300 * t[:, None]) * x).forward(torch.ones(2, 1))


def refuses(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def test_bad_arguments_are_named(generator):
    some = net(generator)
    with refuses("dim must be an integer of at least 1, got 0"):
        CNF(0, some)
    with refuses("net must be a network or a function, got 3"):
        CNF(2, 3)
    with refuses("divergence must be one of exact, hutchinson, got 'none'"):
        CNF(2, some, divergence="none")
    with refuses("adjoint must be True or False, got 1"):
        CNF(2, some, adjoint=1)
    for name in ("rtol", "atol"):
        for value in (0, -1e-3):
            with refuses(f"{name} must be a finite number above 0, got {value}"):
                CNF(2, some, **{name: value})
            with refuses(f"{name} must be a finite number above 0, got {value}"):
                integrate(lambda x, t: x, torch.zeros(1, 2), (0.0, 1.0), **{name: value})
    flow = CNF(2, some)
    for call in (flow, flow.log_prob, flow.loss, flow.trajectory):
        with refuses("x must have shape [B, 2], got [3, 3]"):
            call(torch.zeros(3, 3))
        with refuses("x must be finite, got NaN or infinite values"):
            call(torch.full((3, 2), torch.nan))
    for call in (flow.inverse, flow.trajectory_inverse):
        with refuses("z must be finite, got NaN or infinite values"):
            call(torch.full((3, 2), torch.inf))
        with refuses("z must be torch.float32 like the model, got torch.float64"):
            call(torch.zeros(3, 2).double())
    for call in (flow.trajectory, flow.trajectory_inverse):
        with refuses("steps must be an integer of at least 1, got 0"):
            call(torch.zeros(3, 2), steps=0)
    with refuses("n must be an integer of at least 1, got 0"):
        flow.sample(0)
    with refuses("generator must be a torch.Generator or None, got 1"):
        flow.log_prob(torch.zeros(3, 2), generator=1)
    free = CNF(2, lambda x, t: -x)  # a function that takes whatever it gets
    for call in (free, free.log_prob, free.trajectory):
        for bad in (torch.zeros(3, 3), torch.full((3, 2), torch.nan)):
            with pytest.raises(ValueError, match=r"^x must"):
                call(bad)
    for call in (free.inverse, free.trajectory_inverse):
        for bad in (torch.zeros(3, 3), torch.full((3, 2), torch.nan)):
            with pytest.raises(ValueError, match=r"^z must"):
                call(bad)
    narrow = CNF(2, lambda x, t: x[:, :1])
    with refuses("the field must give velocities of shape [3, 2], got [3, 1]"):
        narrow(torch.zeros(3, 2))
    with refuses("the field must give velocities of shape [3, 2], got [3, 1]"):
        narrow.sample(3)
