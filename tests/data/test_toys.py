"""The toys: each density is judged by its integral and by the points, never by a stored number."""

import functools
import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from course_lib.data import TOYS, toy, toy_log_prob
from tests.no_float64 import elsewhere

UNIFORM = ("checkerboard", "letters")
SMOOTH = tuple(name for name in TOYS if name not in UNIFORM)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def refuses(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def cell_middles(low, high, step):
    """Middles of the cells of a square grid, [B, 2]; aligned with all edges at quarters."""
    count = round((high - low) / step)
    line = low + step * (torch.arange(count, dtype=torch.float64) + 0.5)
    return torch.cartesian_prod(line, line)


@functools.cache
def log_prob_on_a_grid(name):
    return toy_log_prob(name, cell_middles(-4, 4, 1 / 40))


def test_names():
    assert TOYS == (
        "two_moons",
        "swiss_roll",
        "checkerboard",
        "eight_gaussians",
        "pinwheel",
        "rings",
        "spirals",
        "grid_gaussians",
        "letters",
    )


@pytest.mark.parametrize("name", TOYS)
def test_density_integrates_to_one(name):
    mass = log_prob_on_a_grid(name).exp().sum().item() / 40**2
    # The ends of the spirals are cut off sharply: there the sum is a little coarse.
    assert mass == pytest.approx(1, abs=2e-5 if name in ("spirals", "swiss_roll") else 1e-9)


@pytest.mark.parametrize("name", TOYS)
def test_points_follow_the_density(name):
    """Chi-square test over the squares of a grid, each of them integrated with 10 × 10 points."""
    n, low, high, bins, fine = 100_000, -3.25, 3.25, 26, 10
    x = toy(name, n, generator=seeded(7)).numpy()
    edges = np.linspace(low, high, bins + 1)
    observed, _, _ = np.histogram2d(x[:, 0], x[:, 1], bins=[edges, edges])

    step = (high - low) / bins / fine
    density = toy_log_prob(name, cell_middles(low, high, step)).exp()
    mass = density.reshape(bins, fine, bins, fine).sum((1, 3)).numpy() * step**2
    assert mass.sum() == pytest.approx(1, abs=1e-3)

    enough = n * mass >= 10  # few expected points: one class for all these squares and the rest
    observed = np.append(observed[enough], n - observed[enough].sum())
    expected = np.append(n * mass[enough], n - n * mass[enough].sum())
    if expected[-1] < 1:
        assert observed[-1] <= 5
        observed, expected = observed[:-1], expected[:-1] * observed[:-1].sum() / n
        expected *= observed.sum() / expected.sum()
    assert stats.chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.parametrize("name", TOYS)
def test_mean_log_density_of_the_points(name):
    """E[log p] from points and from the integral of p log p: sees the tails that bins do not."""
    n = 20_000
    of_points = toy_log_prob(name, toy(name, n, generator=seeded(3)).double())
    assert of_points.isfinite().all()
    density = log_prob_on_a_grid(name).exp()
    of_grid = torch.special.xlogy(density, density).sum().item() / 40**2
    error = of_points.std().item() / math.sqrt(n)
    assert of_points.mean().item() == pytest.approx(of_grid, abs=4 * error + 1e-3)


@pytest.mark.parametrize("name", TOYS)
def test_shape_dtype_and_place(name):
    x = toy(name, 5000, generator=seeded(0))
    assert x.shape == (5000, 2)
    assert x.dtype == torch.float32
    assert toy(name, 1, generator=seeded(0)).shape == (1, 2)
    inside = (x.abs() <= 3).all(1).float().mean()
    assert inside > 0.999
    assert (x.mean(0).abs() < 0.5).all()
    assert ((x.std(0) > 0.7) & (x.std(0) < 1.9)).all()


@pytest.mark.parametrize("name", TOYS)
def test_same_generator_same_points_and_the_global_seed_is_left_alone(name):
    state = torch.get_rng_state()
    first = toy(name, 100, generator=seeded(1))
    assert torch.equal(first, toy(name, 100, generator=seeded(1)))
    assert not torch.equal(first, toy(name, 100, generator=seeded(2)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", TOYS)
def test_without_a_generator_the_global_one_is_used(name):
    state = torch.get_rng_state()
    try:
        torch.manual_seed(5)
        first, second = toy(name, 50), toy(name, 50)
        torch.manual_seed(5)
        assert torch.equal(first, toy(name, 50))
        assert not torch.equal(first, second)
    finally:
        torch.set_rng_state(state)


@pytest.mark.parametrize("name", TOYS)
def test_log_prob_keeps_the_dtype_and_float32_is_good_enough(name):
    x = toy(name, 1000, generator=seeded(4))
    single, double = toy_log_prob(name, x), toy_log_prob(name, x.double())
    assert single.shape == (1000,)
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)
    one_by_one = torch.cat([toy_log_prob(name, point[None]) for point in x[:20]])
    torch.testing.assert_close(one_by_one, single[:20])


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_densities_have_a_gradient(name):
    x = toy(name, 8, generator=seeded(6)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: toy_log_prob(name, x), (x,))


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_densities_are_finite_far_away(name):
    x = torch.tensor([[0.0, 0.0], [30.0, -20.0], [-30.0, 0.0]], dtype=torch.float64)
    log_p = toy_log_prob(name, x)
    assert log_p.isfinite().all()
    assert (log_p[1:] < -1000).all()


@pytest.mark.parametrize("name", UNIFORM)
def test_uniform_toys_are_minus_infinity_outside(name):
    far = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 2.01], [0.0, -2.01], [1e30, -1e30]])
    assert (toy_log_prob(name, far) == -math.inf).all()


@pytest.mark.parametrize(
    ("name", "turn"),
    [
        ("two_moons", 1 / 2),
        ("spirals", 1 / 2),
        ("pinwheel", 1 / 5),
        ("eight_gaussians", 1 / 8),
        ("grid_gaussians", 1 / 4),
        ("rings", 1 / 7),
    ],
)
def test_symmetry_under_a_part_of_a_turn(name, turn):
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    x = toy(name, 1000, generator=seeded(8)).double()
    turned = x @ torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    torch.testing.assert_close(toy_log_prob(name, x), toy_log_prob(name, turned))


def mixture(centres, std):
    centres = torch.tensor(centres, dtype=torch.float64)
    parts = Independent(Normal(centres, torch.tensor(std, dtype=torch.float64)), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(centres)).double()), parts)


def test_mixtures_equal_those_of_torch_distributions():
    circle = [(2 * math.cos(k * math.pi / 4), 2 * math.sin(k * math.pi / 4)) for k in range(8)]
    grid = [(float(i), float(j)) for i in range(-2, 3) for j in range(-2, 3)]
    x = cell_middles(-3, 3, 0.25)
    for name, centres, std in (("eight_gaussians", circle, 0.2), ("grid_gaussians", grid, 0.1)):
        reference = mixture(centres, std).log_prob(x)
        torch.testing.assert_close(toy_log_prob(name, x), reference, rtol=1e-12, atol=1e-12)


def test_checkerboard_is_eight_unit_squares():
    x = torch.tensor([[0.5, 0.5], [0.5, 1.5], [-0.5, 0.5], [-0.5, 1.5], [1.5, -0.5]])
    density = toy_log_prob("checkerboard", x).exp()
    assert density.tolist() == pytest.approx([1 / 8, 0, 0, 1 / 8, 1 / 8])
    # The lower and the left edge belong to a square, the upper and the right one do not.
    x = torch.tensor([[0.0, 0.0], [1.0, 0.5], [0.5, 1.0], [1.0, 1.0], [2.0, 1.5], [-2.0, -2.0]])
    inside = toy_log_prob("checkerboard", x).isfinite()
    assert inside.tolist() == [True, False, False, True, False, True]


@pytest.mark.parametrize("name", UNIFORM)
def test_no_point_is_rounded_out_of_its_cell(name):
    x = toy(name, 2_000_000, generator=seeded(11))
    assert toy_log_prob(name, x).isfinite().all()


def test_letters_can_be_read():
    rows = torch.arange(1.5, -2.0, -0.5)
    columns = -2.875 + 0.125 + 0.25 * torch.arange(23)
    drawn = [
        "".join(
            ".#"[int(toy_log_prob("letters", torch.tensor([[x, y]])).isfinite())] for x in columns
        )
        for y in rows
    ]
    assert drawn == [
        "#####.#.....#####.#...#",
        "#.....#.....#...#.#...#",
        "#.....#.....#...#.#...#",
        "####..#.....#...#.#.#.#",
        "#.....#.....#...#.#.#.#",
        "#.....#.....#...#.##.##",
        "#.....#####.#####.#...#",
    ]
    cells = sum(row.count("#") for row in drawn)
    inside = toy_log_prob("letters", torch.tensor([[-2.75, 0.0]])).item()
    assert inside == pytest.approx(-math.log(cells * 0.25 * 0.5), rel=1e-6)


def test_rings_have_the_stated_radii_and_width():
    radius = toy("rings", 40_000, generator=seeded(9)).norm(dim=1)
    nearest = (radius / 0.6).round().clamp(1, 4)
    for ring in (1, 2, 3, 4):
        chosen = radius[nearest == ring]
        assert len(chosen) == pytest.approx(10_000, abs=400)
        assert chosen.mean().item() == pytest.approx(0.6 * ring, abs=0.01)
        assert chosen.std().item() == pytest.approx(0.08, abs=0.005)


def test_two_moons_have_the_stated_place_and_width():
    x = toy("two_moons", 40_000, generator=seeded(10))
    x = x - torch.tensor([-0.75, -0.375])
    radius = x[x[:, 1] > x[:, 0].abs()].norm(dim=1)  # a quarter turn of the upper moon
    radius = radius[radius > 0.9]  # without the lower moon's end at its centre
    assert radius.mean().item() == pytest.approx(1.5, abs=0.01)
    assert radius.std().item() == pytest.approx(0.12, abs=0.005)


def test_swiss_roll_and_spirals_follow_their_arms():
    for name, arms, start, stop in (("swiss_roll", 1, 1.5, 4.5), ("spirals", 2, 0.5, 3.0)):
        t = math.pi * torch.linspace(start + 0.05, stop - 0.05, 200)
        arm = (2.6 * t / (stop * math.pi))[:, None] * torch.stack([t.cos(), t.sin()], 1)
        on, off = toy_log_prob(name, arm), toy_log_prob(name, arm * 1.2)
        assert (on > off).all()
        # t² uniform spreads the points evenly over the area: the density along an arm is constant.
        level = math.log(2 / (arms * (stop**2 - start**2) * math.pi**2))
        level += math.log(stop**2 * math.pi**2 / 2.6**2) - math.log(math.sqrt(2 * math.pi) * 0.08)
        level += math.log(2.6 / (stop * math.pi))
        assert on.mean().item() == pytest.approx(level, abs=0.05)


def test_pinwheel_is_five_twisted_gaussians():
    centre = torch.tensor([[1.4, 0.0]], dtype=torch.float64)
    for k in range(5):
        angle = 2 * math.pi * k / 5 + 0.3 * 1.4**2
        turn = torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        peak = toy_log_prob("pinwheel", centre @ turn.double().T).item()
        assert peak == pytest.approx(-math.log(5 * 2 * math.pi * 0.35 * 0.12), abs=1e-6)


@pytest.mark.parametrize("name", ["moons", "", "Two_Moons", None, 3])
def test_unknown_name(name):
    message = f"name must be one of {', '.join(sorted(TOYS))}, got {name!r}"
    with refuses(message):
        toy(name, 10)
    with refuses(message):
        toy_log_prob(name, torch.zeros(1, 2))


@pytest.mark.parametrize("n", [0, -1, 2.0, True, None, "3"])
def test_bad_n(n):
    with refuses(f"n must be an integer of at least 1, got {n!r}"):
        toy("rings", n)


def test_bad_generator():
    with refuses("generator must be a torch.Generator or None, got 0"):
        toy("rings", 3, generator=0)

    class OnGPU(torch.Generator):
        device = torch.device("cuda")

    with refuses("generator must be on device cpu, got cuda"):
        toy("rings", 3, generator=OnGPU())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[0.0, 0.0]], "x must be a tensor of shape [B, 2], got list"),
        (torch.zeros(2), "x must have shape [B, 2], got [2]"),
        (torch.zeros(1, 3), "x must have shape [B, 2], got [1, 3]"),
        (torch.zeros(0, 2), "x must have shape [B, 2], got [0, 2]"),
        (torch.zeros(1, 2, 1), "x must have shape [B, 2], got [1, 2, 1]"),
        (torch.zeros(1, 2).long(), "x must be a floating-point tensor, got torch.int64"),
        (torch.full((1, 2), math.nan), "x must be finite, got NaN or infinite values"),
        (torch.zeros(1, 2).half(), "x must be float32 or float64, got torch.float16"),
        (torch.zeros(1, 2).bfloat16(), "x must be float32 or float64, got torch.bfloat16"),
    ],
)
def test_bad_points(x, message):
    with refuses(message):
        toy_log_prob("rings", x)


@pytest.mark.parametrize("name", TOYS)
def test_points_are_float32_whatever_the_default(name):
    torch.set_default_dtype(torch.float64)
    try:
        assert toy(name, 3).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", TOYS)
def test_densities_need_no_double_precision(name):
    x = toy(name, 50, generator=torch.Generator().manual_seed(0))
    log_prob = toy_log_prob(name, elsewhere(x))
    assert torch.equal(log_prob.cpu(), toy_log_prob(name, x))
