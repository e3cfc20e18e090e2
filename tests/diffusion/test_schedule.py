"""Discrete schedules against T noising steps taken one by one, and against the papers' formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.diffusion import DiscreteSchedule
from tests.diffusion.conftest import refuses, seeded

SCHEDULES = {
    "linear": lambda: DiscreteSchedule.linear(1000),
    "short": lambda: DiscreteSchedule.linear(7),
    "cosine": lambda: DiscreteSchedule.cosine(100),
    "one step": lambda: DiscreteSchedule(torch.tensor([0.3])),
    "any": lambda: DiscreteSchedule(torch.tensor([0.5, 0.1, 0.9, 0.2], dtype=torch.float64)),
}
each_schedule = pytest.mark.parametrize("name", SCHEDULES)


def close(value, expected, tolerance=1e-12):
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=0)


@each_schedule
def test_all_steps_together_are_the_path(name):
    """x_t = sqrt(1 - β) x_{t-1} + sqrt(β) noise: what multiplies x_0, and the variance, grow."""
    schedule = SCHEDULES[name]()
    factor, variance = 1.0, 0.0
    for t, beta in enumerate(schedule.betas.double().tolist()):
        factor *= math.sqrt(1 - beta)
        variance = (1 - beta) * variance + beta
        now = torch.tensor(float(t), dtype=torch.float64)
        assert math.isclose(schedule.a(now), factor, rel_tol=1e-11)
        assert math.isclose(schedule.b(now), math.sqrt(variance), rel_tol=1e-11)
        assert math.isclose(schedule.log_snr(now), math.log(factor**2 / variance), abs_tol=1e-9)


@each_schedule
def test_arrays(name):
    schedule = SCHEDULES[name]()
    betas, alphas, alpha_bars = schedule.betas, schedule.alphas, schedule.alpha_bars
    assert len(schedule) == len(betas) == len(alphas) == len(alpha_bars)
    assert betas.dtype == alphas.dtype == alpha_bars.dtype
    assert torch.equal(alphas, 1 - betas)
    close(alpha_bars.double(), (1 - betas.double()).cumprod(0), 1e-6)
    assert (schedule.t_min, schedule.t_max) == (0, len(schedule) - 1)
    t = torch.arange(len(schedule))
    close(schedule.a(t) ** 2, alpha_bars, 1e-6)
    assert schedule.a(t).dtype == schedule.b(t).dtype == schedule.log_snr(t).dtype == betas.dtype
    close(schedule.a(t) ** 2 + schedule.b(t) ** 2, torch.ones_like(betas), 1e-6)


def test_small_betas_keep_their_digits():
    """In single precision 1 - ᾱ would lose them, and 1 - (1 - β) as well."""
    schedule = DiscreteSchedule(torch.full((3,), 1e-6))
    t = torch.arange(3)
    beta = schedule.betas.double()[0]
    exact = 1 - (1 - beta) ** torch.arange(1, 4)
    close(schedule.b(t), exact.sqrt().float(), 2e-7)
    close(schedule.log_snr(t), ((1 - exact) / exact).log().float(), 2e-7)


def test_noise_at_the_end_keeps_its_digits():
    schedule = DiscreteSchedule.linear(1000, beta_start=0.05, beta_end=0.1)
    log_snr = schedule.log_snr(torch.tensor([999]))
    assert torch.isfinite(log_snr)
    close(log_snr.double(), torch.log1p(-schedule.betas.double()).sum()[None], 1e-6)


@each_schedule
def test_whole_times_may_be_floats(name):
    schedule = SCHEDULES[name]()
    t = torch.arange(len(schedule))
    for formula in (schedule.a, schedule.b, schedule.log_snr):
        close(formula(t.double()).to(schedule.betas.dtype), formula(t), 1e-6)
        assert formula(t.float()).dtype == torch.float32
        assert formula(t.double()).dtype == torch.float64


def test_between_two_times_log_alpha_bar_is_a_straight_line():
    schedule = DiscreteSchedule(torch.tensor([0.5, 0.1, 0.9, 0.2], dtype=torch.float64))
    logs = torch.tensor([0.5, 0.45, 0.045, 0.036], dtype=torch.float64).log()
    t = torch.tensor([0.25, 1.5, 2.9, 3.0], dtype=torch.float64)
    expected = torch.stack(
        [
            0.75 * logs[0] + 0.25 * logs[1],
            0.5 * logs[1] + 0.5 * logs[2],
            0.1 * logs[2] + 0.9 * logs[3],
            logs[3],
        ]
    )
    close(2 * schedule.a(t).log(), expected)
    close(schedule.b(t), (1 - expected.exp()).sqrt())
    close(schedule.log_snr(t), expected - (1 - expected.exp()).log())
    close(schedule.a(t.reshape(2, 2)), schedule.a(t).reshape(2, 2))
    # The slope of a: that of the piece, also at its ends.
    slope = (logs[1:] - logs[:-1])[[0, 1, 2, 2]] / 2
    close(schedule.da(t), slope * schedule.a(t))


def test_one_step_stands_still():
    schedule = DiscreteSchedule(torch.tensor([0.3]))
    assert schedule.da(torch.tensor([0.0])).tolist() == [0]
    close(schedule.a(torch.tensor([0.0])), torch.tensor([0.7**0.5]), 1e-6)


# --- the two famous ones -----------------------------------------------------------------------


def test_linear_is_ddpms():
    betas = DiscreteSchedule.linear(1000).betas
    assert betas.dtype == torch.float32
    close(betas, torch.from_numpy(np.linspace(1e-4, 0.02, 1000)).float(), 1e-7)
    # Salimans & Ho 2022, appendix D: the log-SNR at its end is about -10.
    assert abs(DiscreteSchedule.linear(1000).log_snr(torch.tensor([999])).item() + 10.1) < 0.1


@pytest.mark.parametrize("T", [50, 200, 500, 2000])
def test_linear_brings_as_much_noise_in_fewer_steps(T):
    """The sum of the betas stays: 1000 · (1e-4 + 0.02) / 2, while no β is cut off."""
    schedule = DiscreteSchedule.linear(T)
    assert math.isclose(schedule.betas.double().sum(), 10.05, rel_tol=1e-6)
    assert math.isclose(schedule.betas[0], 0.1 / T, rel_tol=1e-6)
    assert math.isclose(schedule.betas[-1], 20 / T, rel_tol=1e-6)


def test_linear_ends():
    close(DiscreteSchedule.linear(2).betas, torch.tensor([0.05, 0.999]), 1e-6)
    close(DiscreteSchedule.linear(20).betas[[0, -1]], torch.tensor([0.005, 0.999]), 1e-6)
    betas = DiscreteSchedule.linear(3, beta_start=0.1, beta_end=0.3).betas
    close(betas, torch.tensor([0.1, 0.2, 0.3]), 1e-6)
    close(DiscreteSchedule.linear(100, beta_end=0.05).betas[[0, -1]], torch.tensor([0.001, 0.05]))
    close(DiscreteSchedule.linear(3, beta_start=0.5, beta_end=0.1).betas[0], torch.tensor(0.5))
    assert DiscreteSchedule.linear(1).betas.tolist() == pytest.approx([0.1])


@pytest.mark.parametrize("s", [0.008, 0.0, 0.1])
def test_cosine_is_the_papers(s):
    T = 50
    schedule = DiscreteSchedule.cosine(T, s=s)

    def f(k):
        return math.cos((k / T + s) / (1 + s) * math.pi / 2) ** 2

    for t in range(T - 1):
        alpha_bar = schedule.alpha_bars[t].item()
        assert math.isclose(alpha_bar, f(t + 1) / f(0), rel_tol=1e-4), t
        assert math.isclose(schedule.betas[t], 1 - f(t + 1) / f(t), rel_tol=1e-4), t
    assert schedule.betas[-1].item() == pytest.approx(0.999)
    assert len(schedule) == T


def test_the_first_cosine_steps_keep_their_digits():
    """Ratios of numbers near 1, in double precision: single would lose four digits."""
    betas = DiscreteSchedule.cosine(1000).betas
    angles = (np.arange(3) / 1000 + 0.008) / 1.008 * np.pi / 2
    for t in range(2):
        exact = 1 - (math.cos(angles[t + 1]) / math.cos(angles[t])) ** 2
        assert math.isclose(betas[t], exact, rel_tol=1e-6)


def test_cosine_defaults():
    assert torch.equal(DiscreteSchedule.cosine(30).betas, DiscreteSchedule.cosine(30, s=8e-3).betas)
    assert DiscreteSchedule.cosine(1).betas.tolist() == pytest.approx([0.999])


@given(T=st.integers(1, 300), kind=st.sampled_from(["linear", "cosine"]))
@settings(max_examples=30, deadline=None)
def test_noise_grows_along_every_schedule(T, kind):
    schedule = getattr(DiscreteSchedule, kind)(T)
    t = torch.arange(T)
    assert len(schedule) == T
    assert schedule.betas.min() > 0
    assert schedule.betas.max() <= 0.9990001
    assert (schedule.log_snr(t).diff() < 0).all()
    assert (schedule.a(t).diff() < 0).all()


# --- the rest ----------------------------------------------------------------------------------


def test_every_time_is_drawn_alike():
    schedule = DiscreteSchedule.linear(5)
    t = schedule.draw_times(10_000, generator=seeded())
    assert t.dtype == torch.int64
    assert torch.bincount(t).tolist() == pytest.approx([2000] * 5, abs=200)
    assert torch.equal(t, schedule.draw_times(10_000, generator=seeded()))
    assert not torch.equal(t, schedule.draw_times(10_000, generator=seeded(1)))
    assert schedule.draw_times(3, device="meta").is_meta


def test_the_betas_are_a_copy():
    betas = torch.tensor([0.1, 0.2], requires_grad=True)
    schedule = DiscreteSchedule(betas)
    with torch.no_grad():
        betas[0] = 0.9
    assert schedule.betas.tolist() == pytest.approx([0.1, 0.2])
    assert not schedule.betas.requires_grad


def test_repr():
    assert repr(DiscreteSchedule.linear(1000)) == "DiscreteSchedule(T=1000, log-SNR 9.2 ... -10.1)"
    assert (
        repr(DiscreteSchedule(torch.tensor([0.5]))) == "DiscreteSchedule(T=1, log-SNR 0.0 ... 0.0)"
    )


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ([0.1], "betas must be a tensor of shape [B], got list"),
        (torch.zeros(0), "betas must have shape [B], got [0]"),
        (torch.full((2, 2), 0.1), "betas must have shape [B], got [2, 2]"),
        (torch.tensor([1, 2]), "betas must be a floating-point tensor, got torch.int64"),
        (torch.tensor([0.1, math.nan]), "betas must be finite, got NaN or infinite values"),
        (
            torch.tensor([0.1, 0.0]),
            "betas must lie above 0 and below 1, got values from 0 to 0.1",
        ),
        (
            torch.tensor([0.25, 1.0]),
            "betas must lie above 0 and below 1, got values from 0.25 to 1",
        ),
        (
            torch.tensor([-0.5, 0.1]),
            "betas must lie above 0 and below 1, got values from -0.5 to 0.1",
        ),
    ],
)
def test_bad_betas_are_named(betas, message):
    with refuses(message):
        DiscreteSchedule(betas)


@pytest.mark.parametrize("T", [0, -3, 2.0, True, None])
def test_bad_numbers_of_steps_are_named(T):
    for make in (DiscreteSchedule.linear, DiscreteSchedule.cosine):
        with refuses(f"T must be an integer of at least 1, got {T!r}"):
            make(T)


@pytest.mark.parametrize("name", ["beta_start", "beta_end"])
def test_bad_ends_are_named(name):
    for value in (0.0, -0.1, math.nan, "0.1"):
        with refuses(f"{name} must be a finite number above 0, got {value!r}"):
            DiscreteSchedule.linear(10, **{name: value})
    for value in (1, 1.5):
        with refuses(f"{name} must be below 1, got {value!r}"):
            DiscreteSchedule.linear(10, **{name: value})
    assert DiscreteSchedule.linear(10, **{name: 0.9995}).betas.max() < 1


@pytest.mark.parametrize("s", [-0.1, math.inf, None])
def test_bad_shifts_are_named(s):
    with refuses(f"s must be a finite number of at least 0, got {s!r}"):
        DiscreteSchedule.cosine(10, s=s)


@pytest.mark.parametrize("t", [-1, 5, -0.01, 4.01, math.nan])
def test_times_outside_are_named(t):
    schedule = DiscreteSchedule.linear(5)
    times = torch.tensor([0, t])
    message = f"t must lie in [0, 4], got {times[1].item()}"
    for formula in (schedule.a, schedule.b, schedule.log_snr, schedule.check_times):
        with refuses(message):
            formula(times)
    with refuses(message):
        schedule.times(times, 2)


def test_a_single_time_may_be_a_plain_number():
    schedule = DiscreteSchedule.linear(10)
    t = torch.tensor([3])
    for quantity in (schedule.a, schedule.b, schedule.log_snr, schedule.da, schedule.db):
        assert quantity(3).item() == quantity(t).item()
    between = torch.tensor([3.5], dtype=torch.float64)
    assert schedule.a(3.5).item() == pytest.approx(schedule.a(between).item())
    with pytest.raises(ValueError, match=r"t must lie in \[0, 9\], got 10"):
        schedule.a(10)


def test_before_a_step_are_the_amounts_of_the_step_before():
    schedule, x = DiscreteSchedule.linear(5), torch.zeros(4, 2, dtype=torch.float64)
    assert schedule.before(0, x) == (1, 0)
    assert schedule.before(3, x) == schedule.amounts(2, x)
    t = torch.tensor([0, 1, 4, 2])
    a, b = schedule.before(t, x)
    assert a.shape == b.shape == (4, 1)
    assert (a[0].item(), b[0].item()) == (1, 0)
    for got, wanted in zip((a, b), schedule.amounts(t[1:] - 1, x[1:]), strict=True):
        assert torch.equal(got[1:], wanted)


@pytest.mark.parametrize(
    ("t", "stray"),
    [(-1, -1), (5, 5), (torch.tensor([0, 5]), 5), (torch.tensor([2, -1]), -1)],
    ids=str,
)
def test_tables_end_where_the_schedule_does(t, stray):
    schedule, x = DiscreteSchedule.linear(5), torch.zeros(2, 3)
    for of in (schedule.amounts, schedule.slopes, schedule.before, schedule.step):
        with refuses(f"t must lie in [0, 4], got {stray}"):
            of(t, x)
