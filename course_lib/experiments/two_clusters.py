"""Two clusters on a line with a perfect network: what goes wrong is the sampler's doing."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.checks import check_int, check_ints
from course_lib.diffusion import DDPM, DiscreteSchedule, IdealDenoiser, ddim_step, ddpm_sample, last

__all__ = ["ClusterReport", "perfect_network", "run_clock", "run_times"]

CENTRE, WIDTH = 2.0, 0.3  # half of the data are N(2, 0.3²), the other half N(−2, 0.3²)


def perfect_network(schedule: DiscreteSchedule) -> IdealDenoiser:
    """The average of eps given x_t, in closed form: on these data no network does better."""
    return IdealDenoiser(torch.tensor([[-CENTRE], [CENTRE]]), schedule, std=WIDTH)


class ClusterReport(NamedTuple):
    """Where samples of the two clusters came out."""

    centre: float  # mean of |x|, 2 for the data
    width: float  # standard deviation of |x|, 0.3 for the data
    lost: float  # share of samples that are more than three widths away from both centres


def _report(x: Tensor) -> ClusterReport:
    size = x.abs()
    lost = ((size - CENTRE).abs() > 3 * WIDTH).float().mean()
    return ClusterReport(float(size.mean()), float(size.std()), float(lost))


def run_clock(
    clock: Callable[[int, int], int], *, T: int = 50, n: int = 2000, seed: int = 0
) -> ClusterReport:
    """Sample with DDPM and the perfect network, which is told ``clock(t, T)`` in place of t.

    Args:
        clock: Gives the time that the network is told at step t: a whole number from 0 to T − 1.
        T: The number of steps, on the linear schedule.
        n: The number of samples.
        seed: Of all noise: two clocks meet the same.

    Example:
        >>> for clock in (lambda t, T: t, lambda t, T: T - 1 - t):
        ...     report = run_clock(clock)
        ...     print(f"{report.centre:.1f}, most are lost: {report.lost > 0.5}")
        2.0, most are lost: False
        0.4, most are lost: True

    """
    check_int("T", T, minimum=1)
    told = [clock(t, T) for t in range(T)]
    for t, time in enumerate(told):
        check_int(f"clock({t}, {T})", time, minimum=0, maximum=T - 1)
    schedule, table = DiscreteSchedule.linear(T), torch.tensor(told)
    net = perfect_network(schedule)
    model = DDPM(lambda x_t, t: net(x_t, table[t]), schedule)
    generator = torch.Generator().manual_seed(seed)
    return _report(last(ddpm_sample(model, (n, 1), generator=generator)))


@torch.no_grad()
def run_times(
    times: Sequence[int], *, T: int = 1000, n: int = 2000, seed: int = 0
) -> ClusterReport:
    """Sample with DDIM, η = 0, and the perfect network, at these times alone.

    Args:
        times: Rising; sampling starts with noise at the last, T − 1, and goes from the first to the
            data.
        T: The number of steps of the linear schedule that they are taken from.
        n: The number of samples.
        seed: Of the noise that is started from.

    Example:
        >>> for times in (range(9, 1000, 10), [999]):
        ...     report = run_times(times)
        ...     print(f"{report.centre:.1f}, most are lost: {report.lost > 0.5}")
        2.0, most are lost: False
        0.0, most are lost: True

    """
    check_ints("times", times, minimum=0)
    if not times or times[-1] != T - 1 or sorted(set(times)) != list(times):
        raise ValueError(f"times must rise and end at {T - 1}, got {list(times)}")
    schedule = DiscreteSchedule.linear(T)
    net, at = perfect_network(schedule), torch.tensor(list(times))
    points = [(1.0, 0.0), *zip(schedule.a(at).tolist(), schedule.b(at).tolist(), strict=True)]
    x = torch.randn(n, 1, generator=torch.Generator().manual_seed(seed))
    for i in reversed(range(len(times))):
        (a, b), then = points[i + 1], points[i]
        eps = net(x, at[i].expand(n))
        x = ddim_step(x, (x - b * eps) / a, now=(a, b), then=then)
    return _report(x)
