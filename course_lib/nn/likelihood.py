"""Log-probabilities of many independent coordinates, summed: what the likelihoods are made of."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["bernoulli_log_prob", "discretized_gaussian_log_prob", "gaussian_log_prob"]


def bernoulli_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """Σ_i log p(x_i) as ``[...]``, from logits ``[..., dim]`` of a one and ``x [..., dim]``.

    A one has log-probability log σ(a), a zero log(1 − σ(a)): x log σ(a) + (1 − x) log(1 − σ(a)), or
    x a − log(1 + e^a). With the other sign it is called binary cross-entropy.
    """
    if x.shape != logits.shape:  # the same x under several logits
        logits, x = torch.broadcast_tensors(logits, x)
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=-1)


def gaussian_log_prob(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Σ_i log N(x_i; mean_i, σ_i²) as ``[...]``, from ``[..., dim]``; log_var is log σ²."""
    squared = (x - mean) ** 2 * (-log_var).exp()
    return -0.5 * (squared + log_var + math.log(2 * math.pi)).sum(dim=-1)


def discretized_gaussian_log_prob(x: Tensor, mean: Tensor, std: Tensor, levels: int) -> Tensor:
    """Log P(x_i) of every grey level x_i by itself, in the shape of ``x``.

    The ``levels`` grey levels lie evenly from −1 to 1. Each gets the part of N(mean_i, std²) that
    is nearest to it; the lowest and the highest get the tails as well, so that all add up to 1
    (Ho et al. 2020, https://arxiv.org/abs/2006.11239, equation 13).
    """
    half = 1 / (levels - 1)  # half the distance between two levels
    above = torch.where(x > 1 - half, torch.inf, (x + half - mean) / std)
    below = torch.where(x < half - 1, -torch.inf, (x - half - mean) / std)
    # Φ(above) − Φ(below) in logarithms; right of the mean it is Φ(−below) − Φ(−above).
    right = below > 0
    above, below = torch.where(right, -below, above), torch.where(right, -above, below)
    upper = torch.special.log_ndtr(above)
    return upper + torch.log(-torch.expm1(torch.special.log_ndtr(below) - upper))
