"""At which times a model trains: densities on [0, 1] that put the work where it is hard."""

import math

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_generator, check_int, check_number

__all__ = [
    "cosmap_density",
    "cosmap_times",
    "logit_normal_density",
    "logit_normal_times",
    "mode_density",
    "mode_times",
    "shift_times",
]


def logit_normal_times(
    n: int,
    m: float = 0.0,
    s: float = 1.0,
    *,
    generator: torch.Generator | None = None,
    device: torch.device = "cpu",
) -> Tensor:
    """``n`` times whose logit is normal, with mean ``m`` and standard deviation ``s``: ``[n]``.

    Neither end is drawn often: there the answer is known. Times to the side of the noise, near 1,
    are drawn with ``m`` above 0.

    Reference:
        Esser et al. 2024, https://arxiv.org/abs/2403.03206, equation 19.
    """
    check_int("n", n, minimum=1)
    check_number("m", m)
    check_number("s", s, above=0)
    check_generator(generator, device)
    return torch.sigmoid(m + s * torch.randn(n, generator=generator, device=device))


def logit_normal_density(t: Tensor, m: float = 0.0, s: float = 1.0) -> Tensor:
    """The density of ``logit_normal_times`` at times ``t`` in [0, 1]; it is 0 at both ends.

    The normal's density of the logit z, times the slope dz / dt = 1 / (t (1 − t)).
    """
    check_times(t)
    check_number("m", m)
    check_number("s", s, above=0)
    z = (torch.logit(t) - m) / s
    density = torch.exp(-0.5 * z**2) / (s * math.sqrt(2 * math.pi) * t * (1 - t))
    return torch.where((t > 0) & (t < 1), density, 0)  # at the ends the formula says 0 / 0


def mode_times(
    n: int,
    s: float = 1.29,
    *,
    generator: torch.Generator | None = None,
    device: torch.device = "cpu",
) -> Tensor:
    """``n`` times of a density that is high in the middle and above 0 at both ends: ``[n]``.

        t = 1 − u − s (cos²(π u / 2) − 1 + u),  u uniform

    Reference:
        Esser et al. 2024, https://arxiv.org/abs/2403.03206, equation 20.

    Args:
        n: How many.
        s: How high; from −1, where the middle is avoided, to 2 / (π − 2). At 0 they are uniform.
        generator: Source of u.
        device: Where they are.

    """
    check_int("n", n, minimum=1)
    check_mode_scale(s)
    check_generator(generator, device)
    u = torch.rand(n, generator=generator, device=device)
    return mode_map(u, s).clamp(0, 1)


def mode_map(u: Tensor, s: float) -> Tensor:
    """The time that ``mode_times`` makes of u: falling from 1 at u = 0 to 0 at u = 1."""
    return 1 - u - s * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)


def check_mode_scale(s: float) -> None:
    """Require a scale for which ``mode_map`` falls everywhere (``ValueError``)."""
    check_number("s", s, minimum=-1, maximum=2 / (math.pi - 2))


def mode_density(t: Tensor, s: float = 1.29) -> Tensor:
    """The density of ``mode_times`` at times ``t``: 1 / |dt/du| where ``mode_map`` gives t.

    The map has no inverse in closed form; u is found by halving an interval, 60 times.
    """
    check_times(t)
    check_mode_scale(s)
    low, high = torch.zeros_like(t), torch.ones_like(t)
    for _ in range(60):
        u = (low + high) / 2
        above = mode_map(u, s) > t  # the map falls: go on to the right
        low, high = torch.where(above, u, low), torch.where(above, high, u)
    slope = 1 + s * (1 - math.pi / 2 * torch.sin(math.pi * u))
    return 1 / slope.abs()


def cosmap_times(
    n: int, *, generator: torch.Generator | None = None, device: torch.device = "cpu"
) -> Tensor:
    """``n`` times at which the straight path has the log-SNR of the cosine schedule: ``[n]``.

        t = 1 − 1 / (tan(π u / 2) + 1),  u uniform

    Reference:
        Esser et al. 2024, https://arxiv.org/abs/2403.03206, section 3.1, "CosMap".
    """
    check_int("n", n, minimum=1)
    check_generator(generator, device)
    u = torch.rand(n, generator=generator, device=device)
    return 1 - 1 / (torch.tan(math.pi / 2 * u) + 1)


def cosmap_density(t: Tensor) -> Tensor:
    """The density of ``cosmap_times`` at times ``t``: 2 / (π (1 − 2 t + 2 t²))."""
    check_times(t)
    return 2 / (math.pi * (1 - 2 * t + 2 * t**2))


def shift_times(t: Tensor, ratio: float) -> Tensor:
    """The times at which an image of ``ratio`` times as many pixels is as uncertain as at ``t``.

        t' = √r t / (1 + (√r − 1) t)

    An average of r pixels has noise smaller by √r: it takes more noise to hide as much.

    Reference:
        Esser et al. 2024, https://arxiv.org/abs/2403.03206, equation 23, with r = m / n.

    Args:
        t: Times in [0, 1], any shape.
        ratio: Number of pixels divided by that of the images for which ``t`` is meant, above 0.

    """
    check_times(t)
    check_number("ratio", ratio, above=0)
    root = math.sqrt(ratio)
    return root * t / (1 + (root - 1) * t)


def check_times(t: Tensor) -> None:
    """Require times in [0, 1], in any shape (``ValueError``)."""
    check_floats("t", t, None)
    if t.min() < 0 or t.max() > 1:
        raise ValueError(f"t must lie in [0, 1], got {t.min():.4g} to {t.max():.4g}")
