"""Pixels that a label makes bright or dark: what strong guidance does to them, clipped or not."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.checks import check_int, check_number
from course_lib.diffusion import Denoiser, EDMPath, IdealDenoiser, euler_step, karras_times

__all__ = ["PixelReport", "guided_pixels"]

_CENTRE, _STD = 0.5, 0.25  # bright pixels are N(0.5, 0.25²), dark ones N(−0.5, 0.25²)


class PixelReport(NamedTuple):
    """What came of pixels that should be bright, with values in [−1, 1]."""

    outside: float  # share beyond −1 or 1
    burnt: float  # share at 0.99 or more
    largest: float  # the largest size of a guess of x_0 on the way


@torch.no_grad()
def guided_pixels(
    guess: Callable[[Tensor, Tensor, float], Tensor],
    scale: float,
    *,
    n: int = 2000,
    steps: int = 40,
    seed: int = 0,
) -> PixelReport:
    """Follow EDM's ODE by Euler's method, to where ``guess`` says that x_0 is.

    Half of all pixels are bright, half dark. What is known of x_0 without a label and with the
    label "bright" is exact; how the two are put together is up to ``guess``.

    Args:
        guess: ``guess(x_null, x_label, scale)``, guesses of x_0 ``[n, 1]`` without the label and
            with it → the guess that is followed.
        scale: Handed on to ``guess``.
        n: The number of pixels.
        steps: From σ = 20 to 0.002, and then to 0.
        seed: Of the noise that is started from.

    Example:
        >>> for held in (False, True):
        ...     mix = lambda null, label, w: null + w * (label - null)
        ...     clipped = lambda *inputs: mix(*inputs).clamp(-1, 1)
        ...     report = guided_pixels(clipped if held else mix, 8.0)
        ...     print(f"outside {report.outside:.1f}, burnt {report.burnt:.1f}")
        outside 0.7, burnt 0.7
        outside 0.0, burnt 0.1

    """
    check_number("scale", scale, minimum=0)
    check_int("n", n, minimum=1)
    path = EDMPath(0.002, 20.0)
    centres, labels = torch.tensor([[-_CENTRE], [_CENTRE]]), torch.tensor([0, 1])
    model = Denoiser(IdealDenoiser(centres, path, std=_STD, labels=labels), path)
    x = path.t_max * torch.randn(n, 1, generator=torch.Generator().manual_seed(seed))
    bright, largest = torch.ones(n, dtype=torch.int64), 0.0
    for t, then in pairwise([*karras_times(steps, sigma_min=path.t_min, sigma_max=20.0), 0.0]):
        x_0 = guess(model.predict_x0(x, t), model.predict_x0(x, t, y=bright), scale)
        largest = max(largest, x_0.abs().max().item())
        x = euler_step(lambda x, t, x_0=x_0: (x - x_0) / t, x, t, then - t)
    rounding = 1e-3
    outside, burnt = (x.abs() > 1 + rounding), (x >= 0.99)
    return PixelReport(outside.float().mean().item(), burnt.float().mean().item(), largest)
