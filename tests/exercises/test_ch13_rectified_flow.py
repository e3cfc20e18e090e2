"""Chapter 13: right answers, written differently, pass; known mistakes are named."""

import math

import pytest
import torch

from course_lib.diffusion import (
    RectifiedFlow,
    gaussian_velocity,
    interpolate,
    kernel_velocity,
    monotone_map,
    straightness,
    transport_cost,
)
from course_lib.exercises import ch13_rectified_flow as ch13
from course_lib.exercises import check
from course_lib.exercises.formula import declared
from tests.exercises.laws import ExerciseLaws, is_prediction

# --- velocity ------------------------------------------------------------------------------------


def by_autograd(x0, x1, t, p):
    """One time for each number, so that each has a derivative of its own."""
    t = t.reshape(-1, *[1] * (x0.ndim - 1)).expand_as(x0).clone().requires_grad_()
    x_t = (1 - t) ** p * x0 + t.pow(p) * x1
    return x_t.detach(), torch.autograd.grad(x_t.sum(), t)[0]


def by_differences(x0, x1, t, p):
    def place(t):
        t = t.double()[(...,) + (None,) * (x0.ndim - 1)]
        return (1 - t) ** p * x0 + t**p * x1

    return place(t).float(), ((place(t + 1e-4) - place(t - 1e-4)) / 2e-4).float()


def example_by_example(x0, x1, t, p):
    pairs = [
        ((1 - s) ** p * a + s**p * b, p * s ** (p - 1) * b - p * (1 - s) ** (p - 1) * a)
        for a, b, s in zip(x0, x1, t, strict=True)
    ]
    return tuple(torch.stack(parts) for parts in zip(*pairs, strict=True))


WAY_RIGHT = [ch13.curved_way, by_autograd, by_differences, example_by_example]
WAY_WRONG = {
    "place alone": (lambda x0, x1, t, p: ch13.curved_way(x0, x1, t, p)[0], "only one result"),
    "p of 2": (lambda x0, x1, t, p: ch13.curved_way(x0, x1, t, 2.0), "Your x_t is not"),
    "only images": (
        lambda x0, x1, t, p: ch13.curved_way(x0, x1, t[:, None, None, None][:, 0, 0, 0] * 0, p),
        "Your x_t is not",
    ),
}

# --- gaussian_flow -------------------------------------------------------------------------------


def by_the_spread(x, t, m, s0, s1, rho):
    """Every particle keeps its distance from the mean in standard deviations."""
    t = t.clone().requires_grad_()
    variance = ((1 - t) * s0) ** 2 + (t * s1) ** 2 + 2 * t * (1 - t) * rho * s0 * s1
    (growth,) = torch.autograd.grad(variance.log().sum() / 2, t)
    t = t.detach()
    return growth[:, None] * (x - (1 - t)[:, None] * m) - m


def by_matrices(x, t, m, s0, s1, rho):
    cov = torch.tensor([[s0**2, rho * s0 * s1], [rho * s0 * s1, s1**2]])
    amounts = torch.stack([1 - t, t], 1)  # [B, 2]
    slope = (amounts @ cov @ torch.tensor([-1.0, 1.0])) / ((amounts @ cov) * amounts).sum(1)
    return slope[:, None] * (x - amounts[:, :1] * m) - m


def by_both_ends(x, t, m, s0, s1, rho):
    """The mean of x_1 and that of x_0, each given x_t."""
    t, c = t[:, None], rho * s0 * s1
    variance = ((1 - t) * s0) ** 2 + (t * s1) ** 2 + 2 * t * (1 - t) * c
    centred = (x - (1 - t) * m) / variance
    return (t * s1**2 + (1 - t) * c) * centred - m - ((1 - t) * s0**2 + t * c) * centred


GAUSS_RIGHT = [ch13.correlated_velocity, by_the_spread, by_matrices, by_both_ends]
GAUSS_WRONG = {
    "zeros": (lambda x, *rest: 0 * x, "not the mean of x_1 − x_0"),
    "one number each": (
        lambda *inputs: ch13.correlated_velocity(*inputs).mean(1),
        "Your v has shape",
    ),
}

# --- monotone_map --------------------------------------------------------------------------------


def by_scatter(x0, x1, t):
    z = torch.empty_like(x1)
    z[x1.argsort()] = ((1 - t) * x0 + t * x1).sort().values
    return z


def by_counting(x0, x1, t):
    places = sorted(((1 - t) * x0 + t * x1).tolist())
    return torch.tensor([places[int((x1 < x).sum())] for x in x1])


def by_searching(x0, x1, t):
    rank = torch.searchsorted(x1.sort().values, x1)
    return torch.lerp(x0, x1, t).sort()[0].gather(0, rank)


LINE_RIGHT = [ch13.flow_at, by_scatter, by_counting, by_searching]
LINE_WRONG = {
    "x1 as it is": (lambda x0, x1, t: x1.clone(), "not where the flow has carried"),
    "all pairs": (
        lambda x0, x1, t: (1 - t) * x0[None] + t * x1[:, None],
        "Your z has shape",
    ),
}

# --- convex_costs --------------------------------------------------------------------------------

COSTS_RIGHT = [(625, 25, 5), [625.0, 25.0, 5.0], torch.tensor([625.0, 25.0, 5.0])]
COSTS_WRONG = {
    "as before": ((1201, 25, 4), "You say that d² stays as it was"),
    "root as before": ((625, 25, 4), "You say that √|d| stays as it was"),
    "sums": ((1250, 50, 10), "You give the sum of d² over both pairs"),
    "sum of lengths": ((625, 50, 5), "You give the sum of |d| over both pairs"),
    "changes": ((-576, 0, 1), "You give the change of d²"),
    "falls": ((576, 0, -1), "how far d² falls"),
    "sums before": ((2402, 50, 8), "You give the sum of d² before"),
    "the other order": ((5, 25, 625), "not in this order"),
    "root falls": ((625, 25, 3), "The mean of √|d| behind rectification is not 3"),
    "length falls": ((625, 20, 5), "The mean of |d| behind rectification is not 20"),
    "two": ((625, 25), "You gave 2 numbers"),
    "one": (625, "You gave one number"),
    "words": (("falls", "stays", "rises"), "You gave a str"),
}

# --- straightness --------------------------------------------------------------------------------


def by_energy(states, times):
    dt = -torch.diff(times)
    energy = (torch.diff(states, dim=0).pow(2).sum(-1) / dt).sum()
    return energy - (states[0] - states[-1]).pow(2).sum()


def step_by_step(states, times):
    total, whole = 0.0, states[0] - states[-1]
    for i in range(len(times) - 1):
        dt = times[i] - times[i + 1]
        total = total + dt * torch.dist(whole, (states[i] - states[i + 1]) / dt) ** 2
    return total


def upwards(states, times):
    z, t = states.flip(0), times.flip(0)
    v = torch.diff(z, dim=0) / torch.diff(t)[:, None]
    return torch.einsum("t,td->", torch.diff(t), (v - (z[-1] - z[0])) ** 2)


STRAIGHT_RIGHT = [ch13.straightness_at, by_energy, step_by_step, upwards]
STRAIGHT_WRONG = {
    "zero": (lambda z, t: z.sum() * 0, "Your S is not the integral"),
    "of each coordinate": (
        lambda z, t: ((z[0] - z[-1] - z.diff(dim=0) / t.diff()[:, None]) ** 2).mean(0),
        "Your S has shape",
    ),
}

# --- euler_error ---------------------------------------------------------------------------------


def by_acceleration(S, k):
    a = torch.sqrt(12 * S)
    return a / (2 * k)


def walked(S, k):
    """The steps, for a way of length 0."""
    a, z = (12 * S).sqrt(), torch.zeros_like(S)
    for i in range(k, 0, -1):
        z = z - a * (i / k - 0.5) / k
    return z.abs()


EULER_RIGHT = [ch13.even_error, by_acceleration, walked]
EULER_WRONG = {
    "with a sign": (lambda S, k: -((3 * S).sqrt()) / k, "not how far Euler misses"),
    "one number": (lambda S, k: (3 * S).sqrt().mean() / k, "Your error has shape []"),
}

# --- break_the_pairs -----------------------------------------------------------------------------


def shuffled(x0, x1):
    return x0[torch.randperm(len(x0))], x1


def turned(x0, x1):
    return x0, x1.flip(0)


def rolled(x0, x1):
    return x0.roll(1, 0), x1.clone()


def against_each_other(x0, x1):
    """The leftmost noise with the rightmost datum: worse than chance."""
    return x0[x0.sum(1).argsort(descending=True)], x1[x1.sum(1).argsort()]


PAIRS_RIGHT = [shuffled, turned, rolled]
PAIRS_WRONG = {
    "against each other": (against_each_other, "Another coupling"),
    "as they are": (lambda x0, x1: (x0, x1), "Not broken"),
    "both shuffled alike": (
        lambda x0, x1: (lambda i: (x0[i], x1[i]))(torch.randperm(len(x0))),
        "Not broken",
    ),
    "swapped": (lambda x0, x1: (x1, x0), "You swap x0 and x1"),
    "half of them": (
        lambda x0, x1: (torch.cat([x0[:250].roll(1, 0), x0[250:]]), x1),
        "Half broken",
    ),
    "sorted by one coordinate": (
        lambda x0, x1: (x0[x0[:, 0].argsort()], x1[x1[:, 0].argsort()]),
        "Half broken",
    ),
    "fresh noise": (lambda x0, x1: (x0, torch.randn_like(x1)), "Your x1 holds other samples"),
    "some twice": (
        lambda x0, x1: (x0[torch.randint(len(x0), (len(x0),))], x1),
        "Your x0 holds other samples",
    ),
    "coordinates alone": (
        lambda x0, x1: (x0.sort(dim=0).values, x1),
        "Your x0 holds other samples",
    ),
    "moved": (lambda x0, x1: (x0 + 1e-3, x1), "Your x0 holds other samples"),
    "too few": (lambda x0, x1: (x0[1:], x1[:-1]), "Your x0 has shape"),
    "one alone": (lambda x0, x1: x0.flip(0), "only one result"),
}


ALL = {
    "13.velocity": (WAY_RIGHT, WAY_WRONG),
    "13.gaussian_flow": (GAUSS_RIGHT, GAUSS_WRONG),
    "13.monotone_map": (LINE_RIGHT, LINE_WRONG),
    "13.convex_costs": (COSTS_RIGHT, COSTS_WRONG),
    "13.straightness": (STRAIGHT_RIGHT, STRAIGHT_WRONG),
    "13.euler_error": (EULER_RIGHT, EULER_WRONG),
    "13.break_the_pairs": (PAIRS_RIGHT, PAIRS_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "13"
    cases = ALL

    def times(self, name, answer):
        return 1 if is_prediction(name) or ".break_" in name else 8


# --- What the exercises call right, against the library and against simulation --------------------


def right(name):
    return declared("13")[f"13.{name}"].right


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_way_with_exponent_1_is_the_chapter_s_line():
    x0, x1, t = randn(6, 3, 2), randn(6, 3, 2, seed=1), rand(6)
    x_t, v = right("velocity")(x0, x1, t, 1.0)
    torch.testing.assert_close(x_t, interpolate(x0, x1, t))
    torch.testing.assert_close(v, x1 - x0)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.6])
def test_the_correlated_velocity_is_what_least_squares_finds(rho):
    n, m, s0, s1, t = 200_000, torch.tensor([1.3]).double(), 0.7, 1.5, 0.35
    a, b = randn(n, 1), randn(n, 1, seed=1)
    x0, x1 = m + s0 * (rho * b + math.sqrt(1 - rho**2) * a), s1 * b
    x = interpolate(x0, x1, torch.full((n,), t).double())
    design = torch.cat([x, torch.ones_like(x)], 1)
    line = torch.linalg.lstsq(design, x1 - x0).solution
    points = torch.tensor([[-1.0], [0.5], [2.0]]).double()
    v = right("gaussian_flow")(points, torch.full((3,), t).double(), m, s0, s1, rho)
    torch.testing.assert_close(v, points * line[0] + line[1], atol=0.03, rtol=0)


def test_without_correlation_the_velocity_is_the_library_s():
    x, t, m = randn(6, 2), rand(6), torch.tensor([1.0, -2.0]).double()
    eye = torch.eye(2).double()
    wanted = gaussian_velocity(x, t, m, 0.49 * eye, 0 * m, 2.25 * eye)
    torch.testing.assert_close(right("gaussian_flow")(x, t, m, 0.7, 1.5, 0.0), wanted)


def test_pairs_with_correlation_1_make_a_straight_flow():
    m = torch.tensor([1.0, -2.0]).double()

    class Pairs(torch.nn.Module):
        def forward(self, x, t):
            return right("gaussian_flow")(x, t, m, 0.5, 1.5, self.rho)

    net, x = Pairs(), 1.5 * randn(20, 2)
    found = {}
    for net.rho in (0.0, 1.0):
        way = list(RectifiedFlow(net).double().states(x, steps=40, solver="rk4"))
        torch.testing.assert_close(way[-1], m + x / 3, rtol=1e-4, atol=1e-4)
        found[net.rho] = straightness(way).mean()
    assert found[0.0] > 0.05
    assert found[1.0] < 1e-12


def test_particles_on_a_line_are_where_the_blurred_pairs_carry_them():
    x0 = torch.tensor([2.0, -1.0, 0.3, 3.4]).double()
    x1 = torch.tensor([-2.0, 1.1, 0.0, -0.6]).double()
    z, steps = x1[:, None], 1200
    at = {1.0: z}
    for i in range(steps, 0, -1):
        v = kernel_velocity(z, i / steps, x0[:, None], x1[:, None], width=0.02)
        z = z - v / steps
        at[(i - 1) / steps] = z
    for t in (0.75, 0.5, 0.25, 0.0):
        wanted = right("monotone_map")(x0, x1, t)
        torch.testing.assert_close(at[t][:, 0], wanted, atol=0.06, rtol=0)


def test_nobody_overtakes_and_the_laws_are_kept():
    x0, x1 = randn(30), randn(30, seed=1)
    z = right("monotone_map")(x0, x1, 0.4)
    assert torch.equal(z.argsort(), x1.argsort())
    assert torch.equal(right("monotone_map")(x0, x1, 0.0), monotone_map(x0, x1))
    assert torch.equal(z.sort().values, (0.6 * x0 + 0.4 * x1).sort().values)


def test_costs_by_hand_are_the_library_s():
    x0, x1 = torch.tensor([49.0, 25.0]), torch.tensor([0.0, 24.0])
    assert ch13.pair_costs(x0, x1) == [1201, 25, 4]
    assert ch13.pair_costs(x0.flip(0), x1) == [625, 25, 5]


def test_at_equal_times_straightness_is_the_library_s():
    states = randn(9, 3)
    wanted = straightness(states[:, None])[0]
    times = torch.linspace(1, 0, 9).double()
    torch.testing.assert_close(right("straightness")(states, times), wanted)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_error_of_an_even_way_is_what_euler_makes(k):
    a, whole = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 3.0]])

    def net(x, t):
        return whole + (t[:, None] - 0.5) * a

    model = RectifiedFlow(net)
    x1 = torch.zeros(1, 2)
    error = (model.transport(x1, steps=k) - (x1 - whole)).norm()
    S = straightness(list(model.states(x1, steps=200, solver="rk4")))
    got = right("euler_error")(S, k)
    torch.testing.assert_close(got, error[None], rtol=1e-3, atol=1e-3)


def test_straightness_alone_bounds_no_error():
    """What the exercise says of a way that bends in its first hundredth."""
    steps = 100
    v = torch.zeros(steps, 1)
    v[0] = 10.0
    states = torch.cat([torch.zeros(1, 1), -(v / steps).cumsum(0)])
    assert straightness(states[:, None])[0] < 1.0
    assert (states[0] - v[0] - states[-1]).abs() > 9.0


def test_with_all_pairs_a_shuffled_cost_is_the_independent_one():
    x0, x1 = randn(400, 2), randn(400, 2, seed=1) + 1
    wanted = torch.cdist(x0, x1).square().mean()
    shuffled = x0[torch.randperm(400, generator=torch.Generator().manual_seed(2))]
    torch.testing.assert_close(transport_cost(shuffled, x1), wanted, rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("convex_costs", (625, 25, 5), "d² falls by half, |d| stays, and √|d| rises"),
        ("break_the_pairs", shuffled, "Broken: the samples are the same"),
    ],
)
def test_what_was_measured_is_told(name, answer, words):
    assert words in check(f"13.{name}", answer).reason
