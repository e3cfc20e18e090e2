"""Log-probabilities of many independent coordinates, summed: what the likelihoods are made of."""

import math

from torch import Tensor
from torch.nn import functional as F

__all__ = ["bernoulli_log_prob", "gaussian_log_prob"]


def bernoulli_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """Σ_i log p(x_i) as ``[...]``, from logits ``[..., dim]`` of a one and ``x [..., dim]``.

    A one has log-probability log σ(a) = −softplus(−a), a zero log(1 − σ(a)) = −softplus(a); for
    both together that is x a − softplus(a).
    """
    return (x * logits - F.softplus(logits)).sum(dim=-1)


def gaussian_log_prob(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Σ_i log N(x_i; mean_i, σ_i²) as ``[...]``, from ``[..., dim]``; log_var is log σ²."""
    squared = (x - mean) ** 2 * (-log_var).exp()
    return -0.5 * (squared + log_var + math.log(2 * math.pi)).sum(dim=-1)
