"""Diagonal Gaussians: draws through which a gradient flows, and the divergence between two."""

from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.checks import at_the_door, check_generator, check_int, check_tensor

__all__ = ["best_log_var", "gaussian_kl", "reparameterize"]


def check_gaussian(
    mu: Tensor | None,
    log_var: Tensor | None,
    shape: Sequence[int | None] | None = None,
    *,
    dtype: torch.dtype | None = None,
    prefix: str = "",
) -> None:
    """Require means and log σ² of one shape and dtype; with a prefix each of them may be None."""
    if not (prefix and mu is None):
        check_tensor(f"{prefix}mu", mu, shape, dtype=dtype)
        shape, dtype = mu.shape, mu.dtype
    if not (prefix and log_var is None):
        check_tensor(f"{prefix}log_var", log_var, shape, dtype=dtype)


def check_draw(
    mu: Tensor,
    log_var: Tensor,
    n_samples: int | None = None,
    *,
    generator: torch.Generator | None = None,
) -> None:
    """Require what ``reparameterize`` can draw from."""
    check_gaussian(mu, log_var)
    check_generator(generator, mu.device)
    if n_samples is not None:
        check_int("n_samples", n_samples, minimum=1)


def check_pair(
    mu: Tensor,
    log_var: Tensor,
    other_mu: Tensor | None = None,
    other_log_var: Tensor | None = None,
) -> None:
    """Require two Gaussians that ``gaussian_kl`` can compare."""
    check_gaussian(mu, log_var, (None, None))
    check_gaussian(other_mu, other_log_var, mu.shape, dtype=mu.dtype, prefix="other_")


@at_the_door(check_draw)
def reparameterize(
    mu: Tensor,
    log_var: Tensor,
    n_samples: int | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A draw z = μ + σ ε with ε ~ N(0, 1): from N(μ, σ²), and differentiable in μ and σ.

    Args:
        mu: Means, of any shape.
        log_var: log σ², of the same shape.
        n_samples: Number of draws, ``[n_samples, *shape]``; None: one, of the shape of ``mu``.
        generator: Source of ε, on the device of ``mu``; None takes PyTorch's global generator.

    Reference:
        Kingma and Welling 2014 (arXiv:1312.6114), section 2.4; Rezende, Mohamed and Wierstra 2014
        (arXiv:1401.4082).

    """
    shape = mu.shape if n_samples is None else (n_samples, *mu.shape)
    eps = torch.randn(shape, generator=generator, dtype=mu.dtype, device=mu.device)
    return mu + (0.5 * log_var).exp() * eps


@at_the_door(check_pair)
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

    Reference:
        Kingma and Welling 2014 (arXiv:1312.6114), appendix B.

    Example:
        >>> gaussian_kl(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2))
        tensor([0.5000])

    """
    difference, log_ratio = mu, log_var  # (μ − m) / s and log σ²/s², where m = 0 and s = 1
    if other_mu is not None:
        difference = mu - other_mu
    if other_log_var is not None:
        difference = difference * (-0.5 * other_log_var).exp()
        log_ratio = log_var - other_log_var
    # expm1(a) is e^a − 1, and exact where a code is hardly used: there a is near 0.
    return 0.5 * (log_ratio.expm1() - log_ratio + difference * difference).sum(dim=1)


def check_fit(x: Tensor, mean: Tensor) -> None:
    """Require data and means ``[B, D]`` of one dtype."""
    check_tensor("x", x, (None, None))
    check_tensor("mean", mean, x.shape, dtype=x.dtype)


@at_the_door(check_fit)
def best_log_var(x: Tensor, mean: Tensor) -> Tensor:
    """The log τ² for which Σ log N(x; mean, τ² I) is largest: the log of the mean squared error.

    Args:
        x: Data ``[B, D]``.
        mean: What a Gaussian decoder gives for them, ``[B, D]``.

    Returns:
        A scalar.

    Example:
        >>> best_log_var(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2)).exp()
        tensor(5.)

    """
    return (x - mean).square().mean().log()
