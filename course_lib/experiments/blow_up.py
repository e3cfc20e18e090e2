"""A flow that blows up: a log-scale that is harmless on the data and runs away outside of them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib.checks import check_bool, check_floats, check_int, check_number
from course_lib.flows import AffineCoupling

__all__ = ["StackReport", "far_latents", "run_stack", "runaway_log_scale"]


def runaway_log_scale(kept: Tensor) -> Tensor:
    """A log-scale that is 0 on data in [-1, 1], and falls in a straight line outside.

    It is a ReLU network with two hidden units: -relu(kept - 1) - relu(-kept - 1). The inverse of a
    coupling multiplies by the exponential of minus this.

    Example:
        >>> runaway_log_scale(torch.tensor([[0.5], [-1.0], [3.0], [-4.0]])).flatten()
        tensor([-0., -0., -2., -3.])

    """
    return -(kept.abs() - 1).relu()


def far_latents(sigmas: float = 4.0, n: int = 64) -> Tensor:
    """``n`` points ``[n, 2]`` on the circle that lies ``sigmas`` standard deviations from 0.

    Of the draws of a standard Gaussian in the plane, a share of exp(-sigmas² / 2) lie further out:
    one in 3,000 for 4.
    """
    check_number("sigmas", sigmas, above=0)
    check_int("n", n, minimum=1)
    angle = 2 * math.pi * (torch.arange(n) + 0.5) / n
    return sigmas * torch.stack([angle.cos(), angle.sin()], dim=1)


class StackReport(NamedTuple):
    """What became of points on their way through a stack of couplings, and back again."""

    sizes: Tensor  # [depth + 1], largest |coordinate|: at the start and after each coupling
    log_scales: Tensor  # [depth], largest |log-scale| in each coupling
    error: float  # largest distance between a coordinate and the one that comes back


def run_stack(
    raw_log_scale: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    bound: float | None,
    backwards: bool = False,
    depth: int = 8,
) -> StackReport:
    """Lead points through affine couplings that all have the same log-scale, and back again.

    The couplings stretch the odd and the even coordinate in turn, without a shift. From where a
    number is no longer finite, the report says that it is infinite.

    Args:
        raw_log_scale: Gives a number for each kept coordinate: ``[B, 1]`` to ``[B, 1]``.
        start: Points ``[B, 2]``: data, or with ``backwards`` latents.
        bound: Of each coupling, as in ``AffineCoupling``; None leaves the log-scale as it is.
        backwards: Lead from latent to data first, as in sampling.
        depth: Number of couplings.

    Example:
        >>> start = torch.tensor([[-3.0, 4.0]])
        >>> run_stack(runaway_log_scale, start, bound=None, backwards=True).sizes[:4]
        tensor([4.0000e+00, 6.0257e+01, 2.1721e+26,        inf])

    """
    check_floats("start", start, (None, 2), dtype=torch.float32)
    check_bool("backwards", backwards)
    check_int("depth", depth, minimum=1)
    with torch.random.fork_rng(devices=[]):  # the couplings' own networks are replaced at once
        stack = [
            _Stretch(raw_log_scale, flip=i % 2 == 1, bound=bound).float() for i in range(depth)
        ]
    there = [coupling.forward for coupling in stack]
    back = [coupling.inverse for coupling in stack[::-1]]
    if backwards:
        there, back = back, there
    sizes, log_scales = torch.full((depth + 1,), math.inf), torch.full((depth,), math.inf)
    sizes[0] = start.abs().max()
    with torch.no_grad():
        x = start
        for k, step in enumerate(there):
            x, log_det = step(x)  # one coordinate moves: log_det is its log-scale
            if log_det.isfinite().all():
                log_scales[k] = log_det.abs().max()
            if not x.isfinite().all():
                return StackReport(sizes, log_scales, math.inf)
            sizes[k + 1] = x.abs().max()
        for step in back:
            x, _ = step(x)
            if not x.isfinite().all():
                return StackReport(sizes, log_scales, math.inf)
    return StackReport(sizes, log_scales, float((x - start).abs().max()))


class _Stretch(AffineCoupling):
    """An affine coupling in the plane with a log-scale of one's own and without a shift."""

    def __init__(
        self, raw_log_scale: Callable[[Tensor], Tensor], *, flip: bool, bound: float | None
    ):
        super().__init__(2, [], flip=flip, bound=bound)
        self.net = _WithoutShift(raw_log_scale)


class _WithoutShift(nn.Module):
    def __init__(self, raw_log_scale: Callable[[Tensor], Tensor]):
        super().__init__()
        self.raw_log_scale = raw_log_scale

    def forward(self, kept: Tensor) -> Tensor:
        return torch.cat([self.raw_log_scale(kept), torch.zeros_like(kept)], dim=1)
