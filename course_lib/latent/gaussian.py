"""Diagonal Gaussians: draws through which a gradient flows, and the divergence between two."""

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_generator

__all__ = ["gaussian_kl", "reparameterize"]


def reparameterize(
    mu: Tensor, log_var: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """A draw z = μ + σ ε with ε ~ N(0, 1): from N(μ, σ²), and differentiable in μ and σ.

    Args:
        mu: Means, of any shape.
        log_var: log σ², of the same shape.
        generator: Source of ε, on the device of ``mu``; None takes PyTorch's global generator.

    Raises:
        ValueError: Tensors that are not finite, not of floats, or not of one shape and dtype.

    Source:
        Kingma and Welling 2014 (arXiv:1312.6114), section 2.4; Rezende, Mohamed and Wierstra 2014
        (arXiv:1401.4082).

    """
    check_floats("mu", mu, None)
    check_floats("log_var", log_var, mu.shape, dtype=mu.dtype)
    check_generator(generator, mu.device)
    eps = torch.randn(mu.shape, generator=generator, dtype=mu.dtype, device=mu.device)
    return mu + (0.5 * log_var).exp() * eps


def gaussian_kl(
    mu: Tensor,
    log_var: Tensor,
    other_mu: Tensor | None = None,
    other_log_var: Tensor | None = None,
) -> Tensor:
    """KL(N(μ, σ²) ‖ N(m, s²)) of diagonal Gaussians ``[B, d]``, in nats, ``[B]``.

    Without the second pair, the divergence from the standard Gaussian.

    Args:
        mu: Means ``[B, d]``.
        log_var: log σ² ``[B, d]``.
        other_mu: Means m ``[B, d]``; None stands for 0.
        other_log_var: log s² ``[B, d]``; None stands for 0.

    Raises:
        ValueError: Tensors that are not finite, not of floats, or not of one shape and dtype.

    Source:
        Kingma and Welling 2014 (arXiv:1312.6114), appendix B.

    Example:
        >>> gaussian_kl(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2))
        tensor([0.5000])

    """
    check_floats("mu", mu, (None, None))
    check_floats("log_var", log_var, mu.shape, dtype=mu.dtype)
    difference, log_ratio = mu, log_var  # log_ratio = log σ²/s²
    if other_mu is not None:
        check_floats("other_mu", other_mu, mu.shape, dtype=mu.dtype)
        difference = mu - other_mu
    if other_log_var is not None:
        check_floats("other_log_var", other_log_var, mu.shape, dtype=mu.dtype)
        difference = difference * (-0.5 * other_log_var).exp()
        log_ratio = log_var - other_log_var
    return 0.5 * (log_ratio.exp() + difference**2 - 1 - log_ratio).sum(dim=1)
