"""A codebook that dies: the start that kills it, and a training short enough to watch."""

from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.latent import VectorQuantizer, perplexity

__all__ = ["CodebookReport", "dead_codebook", "train_codebook"]


def dead_codebook(vectors: Tensor, n_codes: int) -> Tensor:
    """Codes ``[n_codes, d]`` of which one is nearest to all of ``vectors [N, d]``, and stays so.

    The first is the vectors' mean, the others are far away: nobody chooses them, and a code that
    nobody chooses never moves.
    """
    mean = vectors.mean(dim=0)
    codebook = (mean + 1000 * (vectors - mean).abs().max()).repeat(n_codes, 1)
    codebook[0] = mean
    return codebook


class CodebookReport(NamedTuple):
    """What became of a codebook, judged on all vectors."""

    perplexity: float
    used: int  # codes that are nearest to at least one vector
    codebook: Tensor  # [K, d]


def train_codebook(
    codebook: Tensor, vectors: Tensor, *, revive: bool, steps: int = 300, seed: int = 0
) -> CodebookReport:
    """Train a quantizer by moving averages on vectors that stay as they are.

    Args:
        codebook: Where the codes start, ``[K, d]``.
        vectors: What is quantized, ``[N, d]``; each step sees 128 of them, drawn at random.
        revive: Whether dead codes are put onto vectors, as in ``VectorQuantizer``.
        steps: How many steps to train. A code that is never chosen counts as dead after 230.
        seed: Decides everything that is random.

    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # its own random codebook is overwritten at once
        quantizer = VectorQuantizer(*codebook.shape, dead_below=0.1 if revive else 0.0)
    quantizer.codebook.copy_(codebook)
    if revive:
        quantizer.uses.fill_(1.0)  # as if in use so far; at 0 all would be dead before the start
    for _ in range(steps):
        batch = vectors[torch.randint(len(vectors), (128,), generator=generator)]
        quantizer(batch, generator=generator)
    index = quantizer.nearest(vectors)
    return CodebookReport(
        perplexity=float(perplexity(index, len(codebook))),
        used=len(index.unique()),
        codebook=quantizer.codebook.clone(),
    )
