"""A code whose rate cannot fall: the toy of ``strong_decoder`` with quantized codes."""

import torch

from course_lib.checks import check_int
from course_lib.experiments.strong_decoder import BITS, StrengthReport, earlier_bits, noisy_copies
from course_lib.latent import VectorQuantizer
from course_lib.nn import MLP, bernoulli_log_prob

__all__ = ["fit_codes"]


def fit_codes(sees: int, *, n_codes: int = 2, steps: int = 600, seed: int = 0) -> StrengthReport:
    """Train a VQ-VAE with one code for each row; its decoder sees the last ``sees`` bits, too.

    The rate in the report is the entropy of the codes: what they cost with the best prior of them.

    Args:
        sees: From 0, bits that are independent given the code, to ``BITS`` − 1: autoregressive.
        n_codes: Number of codes.
        steps: How many steps of Adam to take.
        seed: Decides everything that is random.

    Example:
        >>> report = fit_codes(0, n_codes=1, steps=1)
        >>> report.rate < 1e-5  # one code says nothing
        True

    """
    check_int("sees", sees, minimum=0, maximum=BITS - 1)
    check_int("n_codes", n_codes, minimum=1)
    check_int("steps", steps, minimum=1)
    check_int("seed", seed, minimum=0)
    rows, probability = noisy_copies()
    earlier = earlier_bits(rows, sees)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, decoder = MLP(BITS, [32], 2), MLP(2 + earlier.shape[2], [32], 1)
        quantizer = VectorQuantizer(n_codes, 2).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)

    def distortion(which: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """−log p of the rows ``which [B]`` given ``code [B, 2]``, by the chain rule: ``[B]``."""
        context = torch.cat([code[:, None].expand(-1, BITS, -1), earlier[which]], dim=-1)
        logits = decoder(context)[..., 0]
        return -bernoulli_log_prob(logits, rows[which])

    for _ in range(steps):
        which = torch.multinomial(probability, 128, replacement=True, generator=generator)
        code, _, pull, _ = quantizer(encoder(rows[which]), generator=generator)
        optimizer.zero_grad()
        (distortion(which, code).mean() + pull).backward()
        optimizer.step()

    quantizer.eval()
    with torch.no_grad():
        code, index, _, _ = quantizer(encoder(rows))
        share = torch.zeros(n_codes).index_add(0, index, probability)
        return StrengthReport(
            rate=float(torch.special.entr(share).sum()),
            distortion=float(probability @ distortion(torch.arange(len(rows)), code)),
            entropy=float(torch.special.entr(probability).sum()),
        )
