"""Inpainting: fill in missing coordinates by climbing the model's log-density."""

from collections.abc import Iterator

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_generator, check_int, check_number
from course_lib.flows.flow import Flow

__all__ = ["climb", "inpaint", "log_prob_gradient"]


def inpaint(
    model: Flow,
    x: Tensor,
    known: Tensor,
    *,
    steps: int = 100,
    step_size: float = 0.1,
    noise: float = 1.0,
    units: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill in the coordinates of ``x`` that are not known, by noisy gradient ascent on log p(x).

    Step i moves the unknown coordinates by alpha_i (∂log p/∂x + noise · eps), eps ~ N(0, I), with
    alpha_i = step_size / (1 + i / 100), and then puts them back into [0, 1]. Known coordinates
    never move.

    With ``units`` the same step is taken in the coordinates u = x / units, in which pixels that
    hardly vary and pixels that vary much ask for steps of about the same length; in x it reads
    alpha_i (units² ∂log p/∂x + units · noise · eps).

    Reference:
        Dinh, Krueger, Bengio 2014, https://arxiv.org/abs/1410.8516, section 5.2; the paper's
        alpha_i = 10 / (100 + i) is ``step_size=0.1``.

    Args:
        model: A flow over dequantized data in [0, 1).
        x: Points ``[B, dim]``; the values at unknown coordinates are where the ascent starts.
        known: Boolean ``[B, dim]``; True where ``x`` is given.
        steps: Number of ascent steps.
        step_size: alpha_0, in units of x² per nat (of u² per nat, with ``units``).
        noise: Factor of the noise; 0 climbs straight up to the nearest mode.
        units: ``[dim]``, positive; for example each coordinate's standard deviation. None: all 1.
        generator: Source of the noise.

    Returns:
        All states ``[steps + 1, B, dim]``; the first is ``x`` itself.

    """
    if not isinstance(model, Flow):
        raise ValueError(f"model must be a Flow, got {type(model).__name__}")
    model.check_batch("x", x)
    if not isinstance(known, Tensor) or known.dtype != torch.bool or known.shape != x.shape:
        came = f"{known.dtype} {list(known.shape)}" if isinstance(known, Tensor) else repr(known)
        raise ValueError(f"known must be a boolean tensor of x's shape {list(x.shape)}, got {came}")
    check_int("steps", steps, minimum=1)
    check_number("step_size", step_size, above=0)
    check_number("noise", noise, minimum=0)
    units = torch.ones_like(x[0]) if units is None else units
    check_floats("units", units, tuple(x.shape[1:]), dtype=x.dtype)
    if not (units > 0).all():
        raise ValueError(f"units must be positive, got {units.min().item()}")
    check_generator(generator, x.device)

    ascent = climb(model, x, known, steps, step_size, noise, units, generator)
    return torch.stack([x, *ascent])


def climb(
    model: Flow,
    x: Tensor,
    known: Tensor,
    steps: int,
    step_size: float,
    noise: float,
    units: Tensor,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    """The states ``[B, dim]`` of ``inpaint`` after each of its steps."""
    given = x
    for i in range(steps):
        alpha = step_size / (1 + i / 100)
        gradient = log_prob_gradient(model, x)
        eps = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        ascent = units**2 * gradient + units * noise * eps
        x = torch.where(known, given, (x + alpha * ascent).clamp(0, 1))
        yield x


def log_prob_gradient(model: Flow, x: Tensor) -> Tensor:
    """∂log p/∂x ``[B, *event]`` of each point of ``x [B, *event]``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model.log_prob(x).sum(), x)
    return gradient
