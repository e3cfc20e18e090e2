"""Two unbiased estimates of the gradient of E f(z), z ~ N(μ, σ²), with respect to μ and σ."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import check_floats

__all__ = ["leave_one_out", "reparameterization_gradient", "score_function_gradient"]


def reparameterization_gradient(
    f: Callable[[Tensor], Tensor], mu: Tensor, sigma: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor]:
    """One estimate for every draw: ∇_μ = f'(z), ∇_σ = f'(z) ε at z = μ + σ ε.

    It follows the slope of f, which must be differentiable.

    Args:
        f: A function from points ``[n, d]`` to values ``[n]``.
        mu: Means ``[d]``.
        sigma: Standard deviations ``[d]``, positive.
        eps: Standard normal draws ``[n, d]``.

    Returns:
        The estimates for μ and for σ, both ``[n, d]``; their means over n estimate the gradient.

    Reference:
        Kingma and Welling 2014 (arXiv:1312.6114), section 2.4.

    """
    check_draws(mu, sigma, eps)
    z = (mu + sigma * eps).detach().requires_grad_()
    (slope,) = torch.autograd.grad(one_value_each(f, z).sum(), z)  # f'(z)
    return slope, slope * eps


def score_function_gradient(
    f: Callable[[Tensor], Tensor], mu: Tensor, sigma: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor]:
    """One estimate for every draw: f(z) times the score, ∇ log N(z; μ, σ²), at z = μ + σ ε.

    The score is ε / σ for μ and (ε² − 1) / σ for σ. f need not be differentiable, nor even known
    as a formula: its values are enough. Also called REINFORCE, or the likelihood-ratio estimate.

    Arguments as in ``reparameterization_gradient``.

    Reference:
        Williams 1992, "Simple statistical gradient-following algorithms".

    """
    check_draws(mu, sigma, eps)
    with torch.no_grad():
        value = one_value_each(f, mu + sigma * eps)[:, None]
    return value * eps / sigma, value * (eps**2 - 1) / sigma


def leave_one_out(values: Tensor) -> Tensor:
    """A baseline for every draw: the mean of f(z) over all *other* draws, ``[n]`` from ``[n]``.

    Subtracted from f(z) it takes noise away from the score function estimate. As it does not depend
    on the draw that it is used for, and E[score] = 0, the mean of the estimate stays what it was.

    Reference:
        Mnih and Rezende 2016, https://arxiv.org/abs/1602.06725; Kool, van Hoof and Welling 2019,
        "Buy 4 REINFORCE samples, get a baseline for free!".

    Example:
        >>> leave_one_out(torch.tensor([1.0, 2.0, 6.0]))
        tensor([4.0000, 3.5000, 1.5000])

    """
    check_floats("values", values, (None,))
    if len(values) < 2:
        raise ValueError(f"values must hold at least two draws, got {len(values)}")
    return (values.sum() - values) / (len(values) - 1)


def check_draws(mu: Tensor, sigma: Tensor, eps: Tensor) -> None:
    """Require means and positive standard deviations ``[d]``, and noise ``[n, d]``."""
    check_floats("mu", mu, (None,))
    check_floats("sigma", sigma, mu.shape, dtype=mu.dtype)
    if sigma.min() <= 0:
        raise ValueError(f"sigma must be positive, got {sigma.min().item()}")
    check_floats("eps", eps, (None, len(mu)), dtype=mu.dtype)


def one_value_each(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """f(z) ``[n]`` at points ``z [n, d]``; f must return one value for each of them."""
    values = f(z)
    if not isinstance(values, Tensor) or values.shape != z.shape[:1]:
        got = list(values.shape) if isinstance(values, Tensor) else repr(values)
        raise ValueError(f"f must return one value for each of the {len(z)} points, got {got}")
    return values
