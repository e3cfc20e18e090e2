"""Two clusters and a perfect network: wrong clocks and coarse times do what they say."""

import pytest
import torch

from course_lib.diffusion import DiscreteSchedule
from course_lib.experiments import perfect_network, run_clock, run_times


@pytest.mark.parametrize("t", [0, 9, 25, 49])
def test_the_perfect_network_is_the_average_of_the_noise(t):
    """Against Bayes by brute force: a sum over a fine grid of x_0."""
    schedule = DiscreteSchedule.linear(50)
    a, b = schedule.a(torch.tensor([t])).item(), schedule.b(torch.tensor([t])).item()
    x_0 = torch.linspace(-5, 5, 20_001, dtype=torch.float64)
    density = sum((-0.5 * ((x_0 - c) / 0.3) ** 2).exp() for c in (-2, 2))
    x_t = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64)[:, None]
    weights = density * (-0.5 * ((x_t - a * x_0) / b) ** 2).exp()
    eps = (weights * (x_t - a * x_0) / b).sum(1) / weights.sum(1)
    got = perfect_network(schedule).double()(x_t, torch.full((11,), t))
    assert got.shape == (11, 1)
    assert torch.allclose(got[:, 0], eps, atol=1e-5)


def test_clocks_move_the_clusters():
    right = run_clock(lambda t, T: t)
    assert abs(right.centre - 2) < 0.03
    assert 0.24 < right.width < 0.3
    assert right.lost < 0.01
    reports = [run_clock(lambda t, T, k=k: min(max(t + k, 0), T - 1)) for k in (-3, -1, 1, 3)]
    centres = [report.centre for report in reports]
    assert centres == sorted(centres, reverse=True)
    assert centres[1] > right.centre > centres[2]
    assert run_clock(lambda t, T: T - 1 - t).lost > 0.9
    # With 300 steps the samples are as wide as the data, and a step more or less hardly counts.
    fine = run_clock(lambda t, T: t, T=300, n=500)
    assert abs(fine.width - 0.3) < 0.03
    assert abs(run_clock(lambda t, T: max(t - 1, 0), T=300, n=500).centre - fine.centre) < 0.02


def test_clocks_are_checked():
    with pytest.raises(ValueError, match=r"clock\(0, 50\) must be an integer from 0 to 49, got -1"):
        run_clock(lambda t, T: t - 1)
    with pytest.raises(ValueError, match=r"clock\(0, 50\) must be an integer"):
        run_clock(lambda t, T: t / 2)
    with pytest.raises(ValueError, match="T must be an integer of at least 1, got 0"):
        run_clock(lambda t, T: t, T=0)


def test_times_decide_where_the_clusters_land():
    assert run_times([999]).lost == 1
    assert run_times([999]).centre < 0.05
    lost = [run_times(range(1000 // n - 1, 1000, 1000 // n)).lost for n in (1, 2, 5, 10, 50)]
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] < 0.01
    fine = run_times(range(4, 1000, 5))
    assert abs(fine.centre - 2) < 0.02
    assert abs(fine.width - 0.3) < 0.015


@pytest.mark.parametrize("times", [[], [5, 5, 999], [9, 3, 999], [10, 998], [10, 1000]])
def test_times_are_checked(times):
    with pytest.raises(ValueError, match="times must rise and end at 999"):
        run_times(times)
