"""Rectified flow: its loss, its theorems on exact velocities, and a small net trained on them."""

import doctest
import itertools
from functools import partial

import pytest
import torch
from torch import nn

from course_lib.diffusion import (
    Denoiser,
    FlowMatching,
    PredictionError,
    RectifiedFlow,
    StraightPath,
    VPPath,
    distill,
    exact_flows,
    gaussian_map,
    gaussian_velocity,
    interpolate,
    kernel_velocity,
    last,
    logit_normal_times,
    ode_sample,
    rectified_flow,
    reflow,
    straightness,
    transport_cost,
)
from course_lib.metrics import permutation_power, permutation_test
from course_lib.nn import TimeMLP, UNet
from course_lib.training import fit
from tests.diffusion.conftest import randn, refuses, seeded


def flow(velocity, **known):
    """A rectified flow whose network is a known velocity."""
    return RectifiedFlow(partial(velocity, **known)).double()


def asked_network(value=0.0):
    """A network that answers one number, and the list of what it was asked."""
    asked = []

    def net(x, t, *y):
        asked.append((x, t, *y))
        return torch.full_like(x, value)

    net.event_shape = (2,)
    return net, asked


class Affine(nn.Module):
    """v = W x + b, a network whose flow and whose gradients are known."""

    event_shape = (2,)

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x, t, y=None):
        return self.layer(x) if y is None else self.layer(x) + y[:, None]


def test_the_examples_in_the_docstrings():
    for module in (rectified_flow, exact_flows):
        found = doctest.testmod(module, extraglobs={"torch": torch})
        assert found.failed == 0
        assert found.attempted >= 5


# --- the line and the loss ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 2, 2)])
def test_a_line_goes_from_x0_to_x1(shape):
    x0, x1, t = randn(*shape), randn(*shape, seed=1), torch.tensor([0.0, 0.3, 1.0])
    x_t = interpolate(x0, x1, t)
    assert torch.equal(x_t[0], x0[0])
    assert torch.equal(x_t[2], x1[2])
    torch.testing.assert_close(x_t[1], x0[1] + t[1].double() * (x1[1] - x0[1]))
    torch.testing.assert_close(interpolate(x0, x1, 0.25), 0.75 * x0 + 0.25 * x1)
    assert interpolate(x0.half(), x1.half(), t).dtype == torch.float16


def test_the_network_is_asked_on_the_line_and_told_its_direction():
    net, asked = asked_network(0.5)
    model, x0, x1 = RectifiedFlow(net).double(), randn(300, 2), randn(300, 2, seed=1)
    loss = model.loss(x0, x1, generator=seeded(4))
    t = torch.rand(300, generator=seeded(4))
    torch.testing.assert_close(asked[0][1], t)
    torch.testing.assert_close(asked[0][0], x0 + t[:, None].double() * (x1 - x0))
    torch.testing.assert_close(loss, ((x1 - x0 - 0.5) ** 2).mean())
    assert model.predicts == "velocity"
    assert isinstance(model, Denoiser)


def test_the_loss_is_the_formula_bit_for_bit_with_its_gradient():
    model = RectifiedFlow(TimeMLP(2, [8], scale=1000)).to(torch.float32)
    x0, x1 = randn(300, 2).float(), randn(300, 2, seed=1).float()
    t = torch.rand(300, generator=seeded(4))
    formula = (model.net(interpolate(x0, x1, t), t) - (x1 - x0)).square().mean()
    loss = model.loss(x0, x1, generator=seeded(4))
    assert torch.equal(loss, formula)
    weights = list(model.parameters())
    for ours, theirs in zip(
        *(torch.autograd.grad(v, weights) for v in (loss, formula)), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_pairs_that_are_too_far_apart_for_a_number_are_no_bad_pairs():
    """Their velocity overflows, and so does the loss; the network is asked all the same."""
    net, asked = asked_network(0.0)
    x = torch.full((2, 2), 3e38)
    assert RectifiedFlow(net).loss(-x, x).item() == torch.inf
    assert asked[0][0].isfinite().all()


def test_with_noise_for_x1_it_is_flow_matching():
    """Chapter 09's loss is that of the independent pairs of data and noise."""
    net, x = TimeMLP(2, [8], scale=1000).double(), randn(50, 2)
    t = torch.rand(50, generator=(draws := seeded(7)))
    eps = torch.randn(50, 2, generator=draws, dtype=torch.float64)
    theirs = FlowMatching(net).double().loss(x, generator=seeded(7))
    path = StraightPath(lambda n, **_: t)
    torch.testing.assert_close(RectifiedFlow(net, path=path).double().loss(x, eps), theirs)


def test_labels_and_times_of_its_own():
    net, asked = asked_network()
    net.null_class = 3
    path = StraightPath(partial(logit_normal_times, m=2.0))
    model = RectifiedFlow(net, path=path, drop=0.5).double()
    x, y = randn(4000, 2), torch.zeros(4000, dtype=torch.int64)
    model.loss(x, x, y, generator=seeded())
    _, t, labels = asked[0]
    assert t.logit().mean().item() == pytest.approx(2, abs=0.1)
    assert set(labels.tolist()) == {0, 3}
    assert (labels == 3).double().mean().item() == pytest.approx(0.5, abs=0.05)
    model.transport(x[:3], 2, y=torch.tensor([1, 2, 3]))
    assert asked[-1][2].tolist() == [1, 2, 3]
    model.loss(x, x)
    assert len(asked[-1]) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_keeps_its_precision(dtype):
    model = RectifiedFlow(TimeMLP(2, [8], scale=1000)).to(dtype)
    x0, x1 = randn(5, 2).to(dtype), randn(5, 2, seed=1).to(dtype)
    loss = model.loss(x0, x1)
    assert loss.dtype == dtype
    loss.backward()
    assert model.transport(x1, 2).dtype == model.sample(3, steps=2).dtype == dtype
    assert {x.dtype for x in reflow(model, 3, steps=2)} == {dtype}


def test_the_same_generator_gives_the_same():
    model = RectifiedFlow(TimeMLP(2, [8], scale=1000))
    x0, x1 = randn(5, 2).float(), randn(5, 2, seed=1).float()
    assert model.loss(x0, x1, generator=seeded(1)) == model.loss(x0, x1, generator=seeded(1))
    assert model.loss(x0, x1, generator=seeded(1)) != model.loss(x0, x1, generator=seeded(2))
    for draw in (
        partial(model.sample, 4),
        lambda generator: reflow(model, 4, steps=2, generator=generator)[1],
    ):
        assert torch.equal(draw(generator=seeded(1)), draw(generator=seeded(1)))
        assert not torch.equal(draw(generator=seeded(1)), draw(generator=seeded(2)))


def test_images_have_one_time_each():
    model = RectifiedFlow(UNet((1, 4, 4), widths=(8,), scale=1000.0))
    x0, x1 = (randn(3, 1, 4, 4, seed=k).float() for k in range(2))
    assert model.loss(x0, x1).shape == ()
    assert model.transport(x1, 2).shape == model.sample(3, steps=1).shape == x0.shape


# --- the way -----------------------------------------------------------------------------------


def test_the_way_begins_at_x1_and_asks_at_falling_times():
    net, asked = asked_network(2.0)
    model, x = RectifiedFlow(net).double(), randn(3, 2)
    states = list(model.states(x, steps=4))
    assert [t[0].item() for _, t in asked] == [1.0, 0.75, 0.5, 0.25]
    assert torch.equal(states[0], x)
    for k, state in enumerate(states):
        torch.testing.assert_close(state, x - 2 * k / 4)
    asked.clear()
    back = list(model.states(x, steps=4, to=1))
    assert [t[0].item() for _, t in asked] == [0.0, 0.25, 0.5, 0.75]
    torch.testing.assert_close(back[-1], x + 2)
    asked.clear()
    torch.testing.assert_close(model.transport(x), x - 2)
    assert len(asked) == 10
    assert model.sample(2).shape == (2, 2)
    assert len(asked) == 20
    model.transport(x, 2, solver="rk4")
    assert len(asked) == 28


def test_both_directions_invert_each_other():
    laws = {"mean0": randn(2), "cov0": torch.diag(torch.tensor([0.3, 2.0]).double())}
    laws |= {"mean1": randn(2, seed=1), "cov1": torch.eye(2).double()}
    model, x = flow(gaussian_velocity, **laws), randn(10, 2)
    there = model.transport(x, 50, solver="rk4")
    torch.testing.assert_close(model.transport(there, 50, solver="rk4", to=1), x, rtol=0, atol=1e-6)
    assert (there - x).abs().max() > 0.5
    torch.testing.assert_close(there, gaussian_map(x, **laws), rtol=0, atol=1e-6)


def test_samples_are_transported_noise():
    model = RectifiedFlow(Affine())
    noise = torch.randn(6, 2, generator=seeded(3))
    torch.testing.assert_close(
        model.sample(6, steps=3, generator=seeded(3)), model.transport(noise, 3)
    )
    z = last(ode_sample(model, (6, 2), steps=3, z=noise))
    assert torch.equal(model.transport(noise, 3), z)
    assert not z.requires_grad


# --- reflow ------------------------------------------------------------------------------------


def test_reflow_pairs_each_start_with_its_end():
    model = RectifiedFlow(Affine()).double()
    x0, x1 = reflow(model, 7, steps=3, solver="heun", batch_size=3, generator=seeded(2))
    noise = torch.randn(7, 2, generator=seeded(2), dtype=torch.float64)
    assert torch.equal(x1, noise)
    torch.testing.assert_close(x0, model.transport(noise, 3, solver="heun"))
    given = randn(7, 2, seed=9)
    x0, x1 = reflow(model, 7, steps=2, x1=given)
    assert x1 is given
    torch.testing.assert_close(x0, model.transport(given, 2))
    y = torch.arange(7)
    x0, _ = reflow(model, 7, steps=2, x1=given, y=y, batch_size=2)
    torch.testing.assert_close(x0, model.transport(given, 2, y=y))


def test_reflow_calls_no_more_than_it_says():
    net, asked = asked_network()
    reflow(RectifiedFlow(net), 1200, steps=1)
    assert [len(x) for x, _ in asked] == [500, 500, 200]


def test_any_flow_on_a_straight_path_can_be_reflowed():
    net = TimeMLP(2, [8], scale=1000)
    for model in (FlowMatching(net), Denoiser(net, StraightPath(), predicts="velocity")):
        assert reflow(model, 3, steps=2)[0].shape == (3, 2)


# --- the theorems, on exact velocities -----------------------------------------------------------

# 40 pairs, drawn independently: two clouds to a ring. With a blur their flow is known exactly.
N, WIDTH = 40, 0.25
ANGLE = 2 * torch.pi * torch.rand(N, generator=seeded(5)).double()
X0 = 2.5 * torch.stack([ANGLE.cos(), ANGLE.sin()], 1)
X1 = 0.6 * randn(N, 2, seed=6) + torch.tensor([[2.0, 0.0], [-2.0, 0.0]]).double().repeat(N // 2, 1)
COSTS = {
    "squared norm": lambda d: d.square().sum(1),
    "norm": lambda d: d.norm(dim=1),
    "1-norm": lambda d: d.abs().sum(1),
    "max-norm": lambda d: d.abs().amax(1),
    "4th power": lambda d: d.square().sum(1) ** 2,
    "one coordinate": lambda d: d[:, 0].abs(),
    "asymmetric": lambda d: d[:, 0].exp(),
}


@pytest.fixture(scope="module")
def rounds():
    """Pairs [(x_0, x_1)] after 0, 1, 2, 3 rectifications, 1,000 of each; and straightness.

    The blurred pairs are samples of the first coupling; each next flow is that of the kernel
    average over the pairs before (blurred less, so that the pairs stay what they are).
    """
    n = 1000
    some = torch.arange(n) % N
    blur = WIDTH * randn(n, 2, seed=7)
    pairs = [(X0[some] + blur, X1[some] + blur)]
    found, velocity = [], partial(kernel_velocity, x0=X0, x1=X1, width=WIDTH)
    for _ in range(3):
        model = RectifiedFlow(velocity).double()
        x1 = pairs[-1][1]
        states = list(model.states(x1, steps=16, solver="heun"))
        found.append(straightness(states).mean().item())
        pairs.append((states[-1], x1))
        x0, x1 = (x[:400] for x in pairs[-1])
        velocity = partial(kernel_velocity, x0=x0, x1=x1, width=0.15)
    return pairs, found


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
def test_no_convex_cost_rises(rounds, cost):
    """Theorem 3.5: the mean of c(x_1 − x_0) falls, or stays, for every convex c."""
    pairs, _ = rounds
    costs = [transport_cost(*pair, cost=cost).item() for pair in pairs[:2]]
    assert costs[1] < 0.97 * costs[0]


def test_a_cost_that_is_not_convex_may_rise():
    """Two pairs on a line that meet: the square roots' mean grows from 1 to 1.2."""
    x0 = torch.tensor([[1.0], [4.0]], dtype=torch.float64)
    x1 = torch.tensor([[5.0], [4.0]], dtype=torch.float64)[[0, 1]]
    z = flow(kernel_velocity, x0=x0, x1=x1, width=0.05).transport(x1, 300, solver="rk4")
    torch.testing.assert_close(z, x0.flip(0), rtol=0, atol=0.15)
    root, square = (lambda d: d.abs().sqrt().sum(1)), COSTS["squared norm"]
    assert transport_cost(z, x1, cost=root) > transport_cost(x0, x1, cost=root) + 0.3
    assert transport_cost(z, x1, cost=square) < transport_cost(x0, x1, cost=square) - 2.5


def test_the_marginals_are_kept(rounds):
    """Theorem 3.3: by a test that would find a shift of a tenth of the spread nearly always."""
    pairs, _ = rounds
    fresh = X0.repeat(25, 1) + WIDTH * randn(25 * N, 2, seed=8)
    options = {"size": 800, "repeats": 6, "draws": 39}
    power = permutation_power(
        pairs[0][0], fresh + torch.tensor([0.35, 0.0]).double(), generator=seeded(), **options
    )
    assert power >= 5 / 6
    for x0, _ in pairs[1:]:
        p = permutation_test(x0[:1000], fresh[:1000], draws=99, generator=seeded())
        assert p > 0.05
    assert permutation_test(pairs[0][1][:1000], fresh[:1000], draws=39) < 0.05


def test_ways_become_straight(rounds):
    """Theorem 3.7: the least of the first k is at most E‖x_1 − x_0‖² / k; here it falls faster."""
    pairs, found = rounds
    bound = transport_cost(*pairs[0]).item()
    assert sum(found) <= bound
    assert found[1] < 0.2 * found[0]
    assert found[2] < found[1]


def test_the_second_flow_is_nearly_right_in_one_step(rounds):
    """One step of Euler from x_1 ends by √S and less from the exact end, and S is small."""
    pairs, _ = rounds
    x0, x1 = (x[:400] for x in pairs[1])
    errors = []
    for k, velocity in enumerate(
        (
            partial(kernel_velocity, x0=X0, x1=X1, width=WIDTH),
            partial(kernel_velocity, x0=x0, x1=x1, width=0.15),
        )
    ):
        model, some = RectifiedFlow(velocity).double(), x1[:300]
        end = pairs[k + 1][0][:300]
        errors.append((model.transport(some, 1) - end).norm(dim=1).square().mean().item())
    assert errors[1] < 0.1 * errors[0]


def test_a_fall_in_cost_pays_for_what_is_not_straight():
    """‖·‖²: E‖x_1 − x_0‖² − E‖z_1 − z_0‖² = ∫ Var + S, at least S, for an exact flow."""
    laws = {"mean0": torch.zeros(1).double(), "cov0": torch.full((1, 1), 0.25).double()}
    laws |= {"mean1": torch.zeros(1).double(), "cov1": torch.eye(1).double()}
    x1 = torch.distributions.Normal(0, 1).icdf((torch.arange(4000).double() + 0.5) / 4000)[:, None]
    states = list(flow(gaussian_velocity, **laws).states(x1, steps=50, solver="rk4"))
    before, after = 1.25, transport_cost(states[-1], x1).item()
    times = torch.linspace(0, 1, 2001).double()
    # Var(x_1 − x_0 | x_t) of independent Gaussians: the regression's rest.
    spread = (1 - times) ** 2 * 0.25 + times**2
    rest = 1.25 - (times - (1 - times) * 0.25) ** 2 / spread
    assert after == pytest.approx(0.25, rel=0.03)  # x_0 = x_1 / 2
    lost = torch.trapezoid(rest, times).item() + straightness(states).mean().item()
    assert before - after == pytest.approx(lost, rel=0.03)


def test_euler_is_exact_in_one_step_where_the_flow_is_straight():
    """Pairs (x / 2 + 1, x): their lines fan out from one place, and the velocity is known."""

    def velocity(x, t):
        t = t.to(x)[:, None]
        x1 = (x - (1 - t)) / ((1 - t) / 2 + t)
        return x1 - (x1 / 2 + 1)

    model, x = RectifiedFlow(velocity).double(), randn(20, 2)
    for steps, to in itertools.product((1, 2, 7), (0, 1)):
        end = x / 2 + 1 if to == 0 else 2 * (x - 1)
        torch.testing.assert_close(model.transport(x, steps, to=to), end)
        assert straightness(model.states(x, steps=steps, to=to)).max() < 1e-12


# --- training ----------------------------------------------------------------------------------


def test_a_small_net_learns_gaussian_to_gaussian():
    """A net trained for seconds carries points where the closed form says."""
    mean0, mean1 = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    root0 = torch.tensor([[0.5, 0.0], [0.3, 0.8]])
    x0 = mean0 + torch.randn(4000, 2, generator=seeded(1)) @ root0.T
    x1 = mean1 + torch.randn(4000, 2, generator=seeded(2))
    model = RectifiedFlow(TimeMLP(2, [64, 64], scale=10.0))
    fit(model, (x0, x1), steps=400, batch_size=256, lr=5e-3, seed=0, progress=False)
    x = mean1 + torch.randn(500, 2, generator=seeded(3))
    laws = (mean0, root0 @ root0.T, mean1, torch.eye(2))
    wanted = gaussian_map(x, *laws)
    error = (model.transport(x, 20, solver="heun") - wanted).square().sum(1).mean().sqrt()
    assert error < 0.2 * (wanted - x).square().sum(1).mean().sqrt()
    assert error < 0.4


# --- distillation ------------------------------------------------------------------------------


def test_the_student_starts_as_a_copy_and_leaves_the_teacher_alone():
    net = TimeMLP(2, [8], n_classes=3, null_class=True, scale=1000)
    teacher = RectifiedFlow(net, drop=0.25)
    student = distill(teacher)
    assert isinstance(student, RectifiedFlow)
    assert student.drop == 0.25
    before = [p.clone() for p in teacher.parameters()]
    x = randn(4, 2).float()
    y = torch.zeros(4, dtype=torch.int64)
    assert torch.equal(student.transport(x, 3, y=y), teacher.transport(x, 3, y=y))
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1)
    assert all(map(torch.equal, before, teacher.parameters()))


def test_distillation_is_the_squared_error_of_one_step():
    student = distill(RectifiedFlow(Affine())).double()
    x0, x1 = randn(50, 2), randn(50, 2, seed=1)
    jump = (student.transport(x1, 1) - x0).square().mean()
    torch.testing.assert_close(student.loss(x0, x1).detach(), jump)
    assert distill(FlowMatching(Affine()))(x1.float(), 1.0).shape == x1.shape


def test_a_student_of_some_steps_is_asked_where_these_begin():
    net, asked = asked_network()
    student, x = distill(RectifiedFlow(net), 4).double(), randn(4000, 2)
    student.loss(x, x, generator=seeded(1))
    counts = asked[0][1].unique(return_counts=True)
    assert counts[0].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert counts[1].min() > 850
    student.loss(x, x, generator=seeded(1))
    assert torch.equal(asked[0][1], asked[1][1])
    asked.clear()
    distill(RectifiedFlow(net)).double().loss(x, x)
    assert set(asked[0][1].tolist()) == {1.0}
    asked.clear()
    student.transport(x, 4)
    assert sorted(t[0].item() for _, t in asked) == counts[0].tolist()


# --- straightness and cost -----------------------------------------------------------------------


def test_straightness_by_hand():
    """Half the time at speed 2 + c, half at 2 − c along one axis: c²."""
    straight = torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]], [[2.0, 1.0]]]).double()
    assert straightness(straight).tolist() == [0]
    late = torch.tensor([[[0.0, 1.0]], [[0.25, 1.0]], [[2.0, 1.0]]]).double()
    assert straightness(late).tolist() == [1.5**2]
    assert straightness(late.flip(0)).tolist() == [1.5**2]
    both = torch.cat([straight, late], dim=1)
    assert straightness(both).tolist() == [0, 2.25]
    assert straightness(both.reshape(3, 2, 1, 2, 1)).tolist() == [0, 2.25]
    assert straightness(iter(both)).tolist() == [0, 2.25]
    assert straightness(both[:2]).tolist() == [0, 0]


def test_straightness_of_a_half_circle():
    """‖dx/dt‖ = π, and x_1 − x_0 is 2: ∫ ‖·‖² = π² − 4."""
    t = torch.linspace(0, torch.pi, 1001).double()
    states = torch.stack([t.cos(), t.sin()], 1)[:, None]
    assert straightness(states).item() == pytest.approx(torch.pi**2 - 4, abs=1e-4)


def test_transport_cost_by_hand():
    x0, x1 = torch.zeros(2, 1, 2), torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]]])
    assert transport_cost(x0, x1) == 13
    assert transport_cost(x0, x1, cost=lambda d: d.flatten(1).norm(dim=1)) == 3
    assert transport_cost(x0, x1, cost=lambda d: d[:, 0, 1]) == 2.5  # of x_1 − x_0, not the other


# --- bad input -----------------------------------------------------------------------------------


def test_bad_pairs_are_named():
    model, x = RectifiedFlow(Affine()), torch.zeros(3, 2)
    for function in (model.loss, transport_cost, partial(interpolate, t=0.5)):
        with refuses("x1 must have shape [3, 2], got [4, 2]"):
            function(x, torch.zeros(4, 2))
        with refuses("x1 must have shape [3, 2], got [1, 2]"):
            function(x, x[:1])
        with refuses("x1 must be torch.float32 like the model, got torch.float64"):
            function(x, x.double())
        with refuses("x0 must be finite, got NaN or infinite values"):
            function(x + torch.nan, x)
        with refuses("x1 must be finite, got NaN or infinite values"):
            function(x, x + torch.inf)
    with refuses("x0 must be torch.float32 like the model, got torch.float64"):
        model.loss(x.double(), x.double())
    for stray in (x + torch.nan, x - torch.inf):
        with refuses("x0 must be finite, got NaN or infinite values"):
            model.loss(stray, stray)
        with refuses("x1 must be finite, got NaN or infinite values"):
            model.loss(x, stray)
        with refuses("x1 must have shape [3, 2], got [3, 1]"):
            model.loss(x, stray[:, :1])
    for t in (torch.zeros(2), torch.zeros(3, 1)):
        with refuses(
            f"t must be one time or a tensor of shape [3], got torch.float32 {list(t.shape)}"
        ):
            interpolate(x, x, t)
    with refuses("t must lie in [0.0, 1.0], got 1.25"):
        interpolate(x, x, torch.tensor([0.0, 1.0, 1.25]))
    with refuses("cost's values must have shape [3], got [3, 2]"):
        transport_cost(x, x, cost=torch.abs)


def test_bad_models_and_ways_are_named():
    with refuses(f"path must be a StraightPath, got {VPPath()!r}"):
        RectifiedFlow(Affine(), path=VPPath())
    with refuses("drop must be 0 for a network without a null class, got 0.5"):
        RectifiedFlow(Affine(), drop=0.5)
    model, x = RectifiedFlow(Affine()), torch.zeros(3, 2)
    for to in (2, -1, True, 0.0, "0"):
        with refuses(f"to must be 0 or 1, got {to!r}"):
            model.states(x, steps=2, to=to)
    with refuses("steps must be an integer of at least 1, got 0"):
        model.transport(x, 0)
    with refuses("solver must be one of euler, heun, rk4, got 'RK45'"):
        model.transport(x, 2, solver="RK45")
    with refuses("x must be torch.float32 like the model, got torch.float64"):
        model.states(x.double(), steps=2)
    with refuses("n must be an integer of at least 1, got 0"):
        model.sample(0)
    wrong = RectifiedFlow(lambda x, t: x[:, :1])
    with refuses("net's output must have shape [3, 2], got [3, 1]", PredictionError):
        wrong.loss(x, x)
    for function in (partial(reflow, n=3, steps=2), distill):
        for stray in (None, Affine(), Denoiser(Affine(), VPPath())):
            with refuses(f"model must be a flow on a StraightPath, got {stray!r}"):
                function(stray)
    with refuses("n must be an integer of at least 1, got 0"):
        reflow(model, 0, steps=2)
    with refuses("batch_size must be an integer of at least 1, got 0"):
        reflow(model, 3, steps=2, batch_size=0)
    with refuses("x1 must have shape [4, 2], got [3, 2]"):
        reflow(model, 4, steps=2, x1=x)
    with refuses("steps must be an integer of at least 1, got 0"):
        distill(model, 0)
    with refuses("model.predicts must be one of velocity, got 'eps'"):
        distill(Denoiser(Affine(), StraightPath()))


def test_bad_states_are_named():
    x = torch.zeros(3, 2)
    with refuses("states must be at least two of [B, *event], got 1 of [3, 2]"):
        straightness([x])
    with refuses("states must be at least two of [B, *event], got 2 of [3]"):
        straightness([x[:, 0], x[:, 0]])
    with refuses("states must be at least two of [B, *event], got none"):
        straightness([])
    with refuses("states[1] must have shape [3, 2], got [2, 2]"):
        straightness([x, x[:2]])
    with refuses("states[2] must be finite, got NaN or infinite values"):
        straightness([x, x, x + torch.nan])
