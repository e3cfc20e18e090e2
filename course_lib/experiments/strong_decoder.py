"""A code that a strong decoder does not need: posterior collapse at β = 1, on a toy of 256 rows.

One hidden coin decides about ``BITS`` noisy copies of itself. A decoder that draws each bit without
seeing the others must be told the coin by the code; one that sees the bits before can read the coin
off them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.checks import check_int, check_number
from course_lib.latent import gaussian_kl, reparameterize
from course_lib.nn import MLP, bernoulli_log_prob

__all__ = ["BITS", "StrengthReport", "fit_strength", "noisy_copies"]

BITS = 8
FLIP = 0.1  # how often a bit is not a copy of the coin


def noisy_copies() -> tuple[Tensor, Tensor]:
    """All rows of bits ``[2^BITS, BITS]``, and the probability of each ``[2^BITS]``.

    A fair coin is copied to every bit; each copy is wrong with probability ``FLIP``.

    Example:
        >>> rows, probability = noisy_copies()
        >>> rows.shape, probability.sum()
        (torch.Size([256, 8]), tensor(1.0000))

    """
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * BITS)
    ones = x.sum(dim=1)
    of_one = (1 - FLIP) ** ones * FLIP ** (BITS - ones)
    of_zero = FLIP**ones * (1 - FLIP) ** (BITS - ones)
    return x, 0.5 * (of_one + of_zero)


class StrengthReport(NamedTuple):
    """What became of a VAE, in nats; all rows and a grid of z are summed up, nothing is drawn."""

    rate: float
    distortion: float
    entropy: float  # of the data: no model's −ELBO is lower


def fit_strength(
    sees: int, *, free_bits: float = 0.0, steps: int = 600, seed: int = 0
) -> StrengthReport:
    """Train a VAE with one latent whose decoder sees the last ``sees`` bits before each bit.

    Args:
        sees: From 0, bits that are independent given z, to ``BITS`` − 1: autoregressive.
        free_bits: Nats of rate that cost nothing in training: the loss is D + max(R, free_bits).
        steps: How many steps of Adam to take.
        seed: Decides everything that is random.

    Reference:
        Chen et al. 2017, "Variational lossy autoencoder", https://arxiv.org/abs/1611.02731, section
        2; free bits: Kingma et al. 2016, https://arxiv.org/abs/1606.04934.

    """
    check_int("sees", sees, minimum=0, maximum=BITS - 1)
    check_number("free_bits", free_bits, minimum=0.0)
    check_int("steps", steps, minimum=1)
    check_int("seed", seed, minimum=0)
    rows, probability = noisy_copies()
    earlier = earlier_bits(rows, sees)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, decoder = MLP(BITS, [32], 2), MLP(1 + earlier.shape[2], [32], 1)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)

    def log_likelihood(which: Tensor, z: Tensor) -> Tensor:
        """Of the rows ``which [B]`` given ``z [..., B, 1]``, by the product rule: ``[..., B]``."""
        code = z[..., None].expand(*z.shape[:-1], BITS, 1)
        context = earlier[which].expand(*z.shape[:-1], *earlier.shape[1:])
        logits = decoder(torch.cat([code, context], dim=-1))[..., 0]
        return bernoulli_log_prob(logits, rows[which])

    for _ in range(steps):
        which = torch.multinomial(probability, 128, replacement=True, generator=generator)
        mu, log_var = encoder(rows[which]).chunk(2, dim=1)
        z = reparameterize(mu, log_var, generator=generator)
        distortion, rate = -log_likelihood(which, z).mean(), gaussian_kl(mu, log_var).mean()
        optimizer.zero_grad()
        (distortion + rate.clamp(min=free_bits)).backward()
        optimizer.step()

    with torch.no_grad():
        mu, log_var = encoder(rows).chunk(2, dim=1)
        eps = torch.linspace(-5, 5, 101)[:, None, None]  # a grid in place of draws
        weight = torch.softmax(-0.5 * eps**2, dim=0)[..., 0]
        of_all = log_likelihood(torch.arange(len(rows)), mu + (0.5 * log_var).exp() * eps)
        distortion, rate = -(weight * of_all).sum(dim=0), gaussian_kl(mu, log_var)
    return StrengthReport(
        rate=float(probability @ rate),
        distortion=float(probability @ distortion),
        entropy=float(torch.special.entr(probability).sum()),
    )


def earlier_bits(x: Tensor, sees: int) -> Tensor:
    """What a decoder is told about each bit of ``x [N, BITS]``, in ``[N, BITS, 3 · BITS]``.

    The last ``sees`` bits before it as ±1 (0: hidden), which ones these are, and its own place.
    """
    place = torch.arange(BITS)
    behind = place[:, None] - place
    window = ((behind > 0) & (behind <= sees)).float()  # [bit, earlier bit]
    seen = (2 * x - 1)[:, None] * window
    return torch.cat([seen, window.expand_as(seen), torch.eye(BITS).expand_as(seen)], dim=-1)
