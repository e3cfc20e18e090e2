"""The divergence of a velocity field: how fast it spreads out what flows along it."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_generator, check_one_of

__all__ = ["divergence", "exact_trace", "hutchinson_trace", "random_signs"]

METHODS = ("exact", "hutchinson")


def exact_trace(value: Tensor, x: Tensor, *, create_graph: bool = False) -> Tensor:
    """Σ_i ∂f_i / ∂x_i of ``value`` = f(x), both ``[B, *event]``: one backward pass each, ``[B]``.

    ``create_graph`` keeps what a gradient of the trace itself needs.
    """
    return sum(
        gradient(f_i.sum(), x, create_graph=create_graph).flatten(1)[:, i]
        for i, f_i in enumerate(value.flatten(1).unbind(1))
    )


def hutchinson_trace(
    value: Tensor, x: Tensor, probe: Tensor, *, create_graph: bool = False
) -> Tensor:
    """probeᵀ J probe, J the Jacobian of ``value`` = f(x): one backward pass for all, ``[B]``.

    With E[probe probeᵀ] = I its mean is the trace of J. With independent signs its variance is
    Σ_{i<j} (J_ij + J_ji)², with Gaussian numbers 2 Σ_i J_ii² more.

    Reference:
        Hutchinson 1989; Grathwohl et al. 2019, https://arxiv.org/abs/1810.01367, section 3.1.
    """
    product = gradient((value * probe).sum(), x, create_graph=create_graph)  # probeᵀ J
    return (product * probe).flatten(1).sum(1)


def random_signs(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Independent +1 and −1 in the shape of ``x``, the probes of least variance."""
    return 2 * torch.empty_like(x).bernoulli_(0.5, generator=generator) - 1


def gradient(scalar: Tensor, x: Tensor, *, create_graph: bool) -> Tensor:
    """The derivative of a sum over the batch; zeros where ``x`` plays no part in it."""
    if not scalar.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(
        scalar, x, create_graph=create_graph, retain_graph=True, materialize_grads=True
    )[0]


def divergence(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    method: str = "exact",
    generator: torch.Generator | None = None,
) -> Tensor:
    """∇·f = Σ_i ∂f_i / ∂x_i at every ``x [B, *event]``: the trace of the Jacobian, ``[B]``.

    Args:
        f: ``[B, *event]`` → ``[B, *event]``, each example for itself.
        x: Where.
        method: ``"exact"``, one backward pass for every coordinate, or ``"hutchinson"``, a
            single one with random signs: right on average.
        generator: Source of the signs.

    Example:
        >>> turn = lambda x: torch.stack([3 * x[:, 0] - x[:, 1], x[:, 0] ** 2], dim=1)
        >>> divergence(turn, torch.ones(2, 2)).detach()
        tensor([3., 3.])

    """
    check_floats("x", x, None)
    check_one_of("method", method, METHODS)
    check_generator(generator, x.device)
    probe = random_signs(x, generator) if method == "hutchinson" else None
    return with_divergence(f, x, probe)[1]


def with_divergence(
    f: Callable[[Tensor], Tensor], x: Tensor, probe: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(f(x), ∇·f): by ``hutchinson_trace`` with a probe, exactly without one.

    A graph of both is kept where gradients are recorded, and only there.
    """
    recording = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        value = f(x)
        check_value(value, x)
        if probe is None:
            trace = exact_trace(value, x, create_graph=recording)
        else:
            trace = hutchinson_trace(value, x, probe, create_graph=recording)
    return (value, trace) if recording else (value.detach(), trace)


def check_value(value: Tensor, x: Tensor) -> None:
    """Require that a velocity field gives one velocity for each point (``ValueError``)."""
    if not isinstance(value, Tensor) or value.shape != x.shape:
        what = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the field must give velocities of shape {list(x.shape)}, got {what}")
