"""Times to train at: each density by its map, its draws and its integral; the shift by its law."""

import math
from functools import partial

import pytest
import torch
from scipy import stats

from course_lib.data import toy
from course_lib.diffusion import (
    FlowMatching,
    StraightPath,
    VPPath,
    cosmap_density,
    cosmap_times,
    logit_normal_density,
    logit_normal_times,
    mode_density,
    mode_times,
    shift_times,
)
from course_lib.diffusion.paths import GaussianPath
from course_lib.diffusion.rectified_flow import jump_times
from course_lib.diffusion.times import mode_map
from course_lib.nn import TimeMLP
from course_lib.training import fit
from tests.diffusion.conftest import refuses, seeded

STEEPEST = 2 / (math.pi - 2)
SAMPLINGS = {
    "logit-normal": (logit_normal_times, logit_normal_density),
    "logit-normal (0.5, 0.6)": (
        partial(logit_normal_times, m=0.5, s=0.6),
        partial(logit_normal_density, m=0.5, s=0.6),
    ),
    "logit-normal (-1, 1.7)": (
        partial(logit_normal_times, m=-1.0, s=1.7),
        partial(logit_normal_density, m=-1.0, s=1.7),
    ),
    "mode": (mode_times, mode_density),
    "mode (-0.9)": (partial(mode_times, s=-0.9), partial(mode_density, s=-0.9)),
    "mode (0.5)": (partial(mode_times, s=0.5), partial(mode_density, s=0.5)),
    "cosmap": (cosmap_times, cosmap_density),
}


def grid(n, low=0.0, high=1.0):
    """The middles of n equal parts of an interval."""
    return low + (high - low) * (torch.arange(n, dtype=torch.float64) + 0.5) / n


@pytest.mark.parametrize("name", SAMPLINGS)
def test_a_density_is_one_in_all(name):
    density = SAMPLINGS[name][1](grid(20_000))
    assert density.min() >= 0
    assert density.mean().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", SAMPLINGS)
def test_draws_follow_their_density(name):
    """χ² of 40,000 draws in 40 parts of [0, 1] at the level 0.001, for one seed."""
    times, density = SAMPLINGS[name]
    n, parts = 40_000, 40
    t = times(n, generator=seeded(7))
    assert t.shape == (n,)
    assert 0 <= t.min() <= t.max() <= 1
    expected = n * density(grid(200 * parts)).reshape(parts, 200).mean(1) / parts
    expected *= n / expected.sum()
    seen = torch.histc(t, parts, 0, 1)
    chi = ((seen - expected) ** 2 / expected).sum().item()
    assert chi < stats.chi2.ppf(0.999, parts - 1)
    # The test has power: as many times that are uniform would not pass.
    uniform = ((n / parts - expected) ** 2 / expected).sum().item()
    assert uniform > 5 * stats.chi2.ppf(0.999, parts - 1)


@pytest.mark.parametrize(("m", "s"), [(0.0, 1.0), (0.5, 0.6), (-1.0, 2.0)])
def test_logit_normal_by_scipy(m, s):
    """Its density is the normal's of the logit, times the logit's slope; m moves the median."""
    t = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    z = torch.log(t / (1 - t))
    wanted = torch.from_numpy(stats.norm.pdf(z.numpy(), m, s)) / (t * (1 - t))
    torch.testing.assert_close(logit_normal_density(t, m, s), wanted)
    drawn = logit_normal_times(20_001, m, s, generator=seeded(1)).double()
    wanted = 1 / (1 + math.exp(-m))
    slope = wanted * (1 - wanted)
    error = 4 * s * slope * math.sqrt(math.pi / 2 / 20_001)  # of a median
    assert drawn.median().item() == pytest.approx(wanted, abs=error)


def test_mode_map_ends_where_it_must_and_falls():
    u = torch.linspace(0, 1, 2001, dtype=torch.float64)
    for s in (-1.0, -0.3, 0.0, 1.29, STEEPEST):
        t = mode_map(u, s)
        assert t[[0, 1000, -1]].tolist() == pytest.approx([1, 0.5, 0], abs=1e-12)
        assert (t.diff() <= 1e-12).all()
        torch.testing.assert_close(t + t.flip(0), torch.ones_like(t))  # both ends are alike
    for s in (-1.01, STEEPEST + 0.01):  # out of bounds it turns round
        assert (mode_map(u, s).diff() > 0).any()


def test_mode_density_by_hand():
    """At 0 it is uniform; in the middle and at the ends the slopes are known."""
    t = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(mode_density(t, 0.0), torch.ones_like(t))
    for s in (-1.0, 0.5, 1.29):
        at = mode_density(t, s)
        if s > -1:
            assert at[0].item() == pytest.approx(1 / (1 + s))
            assert at[3].item() == pytest.approx(1 / (1 + s))
        assert at[2].item() == pytest.approx(1 / (1 - s * (math.pi / 2 - 1)))
    assert mode_density(torch.rand(3, 4), 1.29).shape == (3, 4)


@pytest.mark.parametrize("s", [-0.9, 0.7, 1.29])
def test_mode_density_by_the_slope_of_its_map(s):
    u = torch.linspace(0.05, 0.95, 19, dtype=torch.float64, requires_grad=True)
    t = mode_map(u, s)
    (slope,) = torch.autograd.grad(t.sum(), u)
    torch.testing.assert_close(mode_density(t.detach(), s), 1 / slope.abs())


def test_cosmap_has_the_log_snr_of_the_cosine_schedule():
    """With a = cos(π u / 2) and b = sin(π u / 2): the straight line has it at the drawn t."""
    u = torch.rand(1000, generator=seeded(3))
    t = cosmap_times(1000, generator=seeded(3)).double()
    angle = math.pi / 2 * u.double()
    cosine = 2 * (torch.cos(angle).log() - torch.sin(angle).log())
    torch.testing.assert_close(StraightPath().log_snr(t), cosine, rtol=1e-4, atol=1e-4)
    # The share of times below t is u: the density is its derivative.
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad((2 / math.pi * torch.atan(t / (1 - t))).sum(), t)
    torch.testing.assert_close(cosmap_density(t.detach()), slope)


# --- shift ---------------------------------------------------------------------------------------

T = torch.linspace(0, 1, 41, dtype=torch.float64)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0, 16.0])
def test_shifts_compose_and_have_inverses(ratio):
    shifted = shift_times(T, ratio)
    assert shifted[[0, -1]].tolist() == [0, 1]
    assert (shifted.diff() > 0).all()
    torch.testing.assert_close(shift_times(shifted, 1 / ratio), T)
    for other in (0.5, 4.0):
        torch.testing.assert_close(shift_times(shifted, other), shift_times(T, ratio * other))
    if ratio == 1:
        torch.testing.assert_close(shifted, T)
    else:
        assert ((shifted[1:-1] > T[1:-1]) == (ratio > 1)).all()


@pytest.mark.parametrize("ratio", [4.0, 0.25, 9.0])
def test_the_shift_is_one_of_the_log_snr(ratio):
    """By log r at all times: the odds t / (1 − t), which are the noise's, grow by √r."""
    t = T[1:-1]
    change = StraightPath().log_snr(shift_times(t, ratio)) - StraightPath().log_snr(t)
    torch.testing.assert_close(change, torch.full_like(t, -math.log(ratio)))


@pytest.mark.parametrize(("t", "few", "many"), [(0.3, 4, 16), (0.6, 4, 36), (0.5, 16, 4)])
def test_the_shift_by_simulation(t, few, many):
    """A grey image of unknown brightness c: the mean of n noised pixels, divided by 1 − t.

    Its standard error σ(t, n) = t / (1 − t) / √n is the same for ``few`` pixels at t and for
    ``many`` at the shifted time; 20,000 images measure it to 0.5 %.
    """
    c, draws, error = 0.7, 20_000, []
    path, shifted = StraightPath(), shift_times(torch.tensor(t), many / few).item()
    for n, time in ((few, t), (many, shifted)):
        eps = torch.randn(draws, n, generator=seeded(n))
        noised = path.noised(torch.full((draws, n), c), time, eps)
        guess = noised.mean(1) / (1 - time)
        assert guess.mean().item() == pytest.approx(c, abs=0.05)
        assert guess.std().item() == pytest.approx(time / (1 - time) / math.sqrt(n), rel=0.025)
        error.append(guess.std().item())
    assert error[0] == pytest.approx(error[1], rel=0.03)


# --- sources, devices, bad input -----------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLINGS)
def test_a_generator_decides(name):
    times, _ = SAMPLINGS[name]
    first, again, other = (times(5, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(4)
    first = times(5)
    torch.manual_seed(4)
    assert torch.equal(first, times(5, device=torch.device("cpu")))
    assert times(1).shape == (1,)
    assert first.dtype == torch.float32
    assert times(3, device=torch.device("meta")).device.type == "meta"


@pytest.mark.parametrize("times", [logit_normal_times, mode_times, cosmap_times])
@pytest.mark.parametrize("n", [0, -3, 2.0, True])
def test_how_many(times, n):
    with pytest.raises(ValueError, match=r"^n must be"):
        times(n)
    with pytest.raises(ValueError, match="generator"):
        times(3, generator=5)


@pytest.mark.parametrize("function", [logit_normal_times, logit_normal_density])
@pytest.mark.parametrize(
    ("field", "value"),
    [("s", 0.0), ("s", -1.0), ("s", math.nan), ("m", math.inf), ("m", "0")],
)
def test_bad_mean_and_spread(function, field, value):
    given = 3 if function is logit_normal_times else torch.tensor([0.5])
    with pytest.raises(ValueError, match=f"^{field} must be"):
        function(given, **{field: value})


@pytest.mark.parametrize("s", [-1.001, STEEPEST + 1e-3, math.nan, "1"])
def test_bad_mode_scale(s):
    with pytest.raises(ValueError, match=r"^s must be"):
        mode_times(3, s)
    with pytest.raises(ValueError, match=r"^s must be"):
        mode_density(torch.tensor([0.5]), s)
    assert mode_times(3, -1).shape == mode_times(3, STEEPEST).shape == (3,)


@pytest.mark.parametrize("density", [logit_normal_density, mode_density, cosmap_density])
def test_densities_are_of_times(density):
    for t in (torch.tensor([0.5, 1.5]), torch.tensor([-0.1])):
        with pytest.raises(ValueError, match=r"^t must lie in \[0, 1\]"):
            density(t)
    for t in (0.5, torch.tensor([1]), torch.tensor([math.nan])):
        with pytest.raises(ValueError, match=r"^t must be"):
            density(t)


def test_the_logit_normal_is_0_at_both_ends():
    """Where the formula says 0 / 0: the exponential falls faster than t (1 − t)."""
    t = torch.tensor([0.0, 1.0])
    assert logit_normal_density(t).tolist() == [0.0, 0.0]
    assert logit_normal_density(t, 0.5, 3.0).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("ratio", [0.0, -4.0, math.inf, math.nan, "4"])
def test_bad_ratio(ratio):
    with pytest.raises(ValueError, match=r"^ratio must be"):
        shift_times(torch.tensor([0.5]), ratio)


def test_shifted_times_lie_between_the_ends():
    for t, got in (([0.5, 1.1], "0.5 to 1.1"), ([-0.2], "-0.2 to -0.2")):
        with pytest.raises(ValueError, match=rf"^t must lie in \[0, 1\], got {got}$"):
            shift_times(torch.tensor(t), 4.0)
    with pytest.raises(ValueError, match=r"^t must be"):
        shift_times(0.5, 4.0)


# --- on the path ---------------------------------------------------------------------------------


def test_a_straight_path_draws_as_it_is_told():
    path = StraightPath(partial(logit_normal_times, m=0.5, s=0.6))
    drawn = path.draw_times(9, generator=seeded(2))
    assert torch.equal(drawn, logit_normal_times(9, 0.5, 0.6, generator=seeded(2)))
    assert path.draw_times(2, device=torch.device("meta")).device.type == "meta"
    uniform = torch.rand(9, generator=seeded(2))
    assert torch.equal(StraightPath().draw_times(9, generator=seeded(2)), uniform)
    with pytest.raises(ValueError, match=r"^draw_times must be a function or None, got 5"):
        StraightPath(5)


class Ends:
    """Times at the ends alone: a function without a name."""

    def __call__(self, n, *, generator=None, device="cpu"):
        return torch.randint(2, (n,), generator=generator, device=device).float()


@pytest.mark.parametrize(
    ("draw_times", "said"),
    [
        (None, ""),
        (cosmap_times, "cosmap_times"),
        (partial(logit_normal_times, m=0, s=1), "logit_normal_times, m=0, s=1"),
        (partial(partial(mode_times, s=0.5)), "mode_times, s=0.5"),
        (partial(jump_times, 4), "jump_times, 4"),
        (Ends(), "Ends"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_straight_path_says_how_it_draws(draw_times, said):
    assert repr(StraightPath(draw_times)) == f"StraightPath({said})"


def test_uniform_times_ask_for_a_generator_as_those_of_any_path_do():
    for path in (StraightPath(), VPPath()):
        with refuses("generator must be a torch.Generator or None, got 3"):
            path.draw_times(2, generator=3)
    assert torch.equal(
        StraightPath().draw_times(50, generator=seeded(1)),
        GaussianPath.draw_times(StraightPath(), 50, generator=seeded(1)),
    )


def test_what_a_flow_is_trained_at():
    """All three draw the loss's times: a network that writes them down sees the density."""
    seen = []

    def net(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    for times, _ in SAMPLINGS.values():
        seen.clear()
        FlowMatching(net, path=StraightPath(times)).loss(torch.zeros(500, 2), generator=seeded(4))
        assert torch.equal(seen[0], times(500, generator=seeded(4)))


def test_a_flow_learns_at_logit_normal_times():
    x = toy("two_moons", 2000, generator=seeded(1))
    model = FlowMatching(TimeMLP(2, [32], scale=1000), path=StraightPath(logit_normal_times))
    before = model.loss(x, generator=seeded(3)).item()
    fit(model, x, steps=200, batch_size=128, lr=4e-3, progress=False, device="cpu")
    assert model.loss(x, generator=seeded(3)).item() < 0.8 * before
