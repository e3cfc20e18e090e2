"""A NICE has one peak: where it lies, how high it is, and a climb that ends there from anywhere."""

import math

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_int, check_one_of
from course_lib.flows import NICE

__all__ = ["climb_to_peak", "peak", "peak_height"]

# log p(0) − E log p(z), of one coordinate: of a Gaussian E z² / 2, of a logistic 2 − log 4.
HEIGHTS = {"gaussian": 0.5, "logistic": 2 - 2 * math.log(2)}


@torch.no_grad()
def peak(model: NICE) -> Tensor:
    """The only point ``[1, dim]`` where the density of a NICE has slope 0: x = f⁻¹(0).

    The log-determinant of a NICE is one number for all x, so that
    ∂log p/∂x = Jᵀ ∂log p_Z/∂z. J is invertible, and the slope of the prior is 0 at z = 0 only.

    Example:
        >>> model = NICE(2)
        >>> bool(model.log_prob(peak(model)) >= model.log_prob(torch.randn(100, 2)).max())
        True

    """
    if not isinstance(model, NICE):
        raise ValueError(f"model must be a NICE, got {type(model).__name__}")
    parameter = next(model.parameters())
    return model.inverse(parameter.new_zeros(1, *model.base.event_shape))[0]


def peak_height(log_scale: Tensor, prior: str) -> Tensor:
    """How far log p at the peak of a NICE lies above its mean over samples: nats, a scalar.

    The log-determinant is the same at both and cancels. What is left is log p_Z(0) − E log p_Z(z),
    the same for every coordinate: ½ for the Gaussian, 2 − log 4 for the logistic prior.

    Args:
        log_scale: The logarithms ``[dim]`` of the scales of the last layer. Only their number
            matters.
        prior: ``"gaussian"`` or ``"logistic"``.

    Example:
        >>> peak_height(torch.zeros(64), "logistic")
        tensor(39.2772)

    """
    check_floats("log_scale", log_scale, (None,))
    check_one_of("prior", prior, HEIGHTS)
    return log_scale.new_tensor(len(log_scale) * HEIGHTS[prior])


def climb_to_peak(model: NICE, x: Tensor, *, steps: int = 600) -> Tensor:
    """Where points ``x [B, dim]`` come to when they climb log p(x), by its gradient alone.

    L-BFGS (a gradient ascent that learns the lengths of its steps from the gradients before), in
    the pixels' standard deviations where the model standardizes.

    Args:
        model: A NICE; float64 climbs more steadily.
        x: Where to start.
        steps: How often log p and its gradient are computed, at most.

    """
    if not isinstance(model, NICE):
        raise ValueError(f"model must be a NICE, got {type(model).__name__}")
    model.check_batch("x", x)
    check_int("steps", steps, minimum=1)
    units = getattr(model.transforms[0], "std", torch.ones_like(x[0]))
    at = (x / units).detach().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [at],
        max_iter=steps,
        max_eval=steps,
        history_size=50,
        tolerance_grad=1e-9,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def descend() -> Tensor:
        loss = -model.log_prob(at * units).sum()
        (at.grad,) = torch.autograd.grad(loss, at)
        return loss

    optimizer.step(descend)
    return (at * units).detach()
