"""Vector quantization: each vector becomes the nearest entry of a codebook that learns."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import (
    check_bool,
    check_floats,
    check_generator,
    check_int,
    check_number,
    check_tensor,
)

__all__ = ["VectorQuantizer", "perplexity", "straight_through", "vq_loss"]


class VectorQuantizer(nn.Module):
    """Replace vectors by the nearest of ``n_codes`` codes, and pass the gradient straight on.

    In training mode a call also moves the codebook. With ``ema`` each code follows the mean of the
    vectors that chose it (online k-means); without it the codebook is a parameter, and part of the
    loss pulls it. Codes that are hardly chosen any more are dead; they are put onto random vectors
    of the batch. A new codebook is dead as a whole, and so starts on vectors of the first batch.

    ``codebook [n_codes, dim]`` is a parameter, or with ``ema`` a buffer; ``uses [n_codes]`` is the
    moving average of how often each code was chosen in a batch.

    Reference:
        van den Oord, Vinyals and Kavukcuoglu 2017, https://arxiv.org/abs/1711.00937, equations 2
        and 3, and appendix A.1 (moving averages); straight-through: Bengio, Léonard and Courville
        2013, https://arxiv.org/abs/1308.3432.

    Args:
        n_codes: Number of codes, K.
        dim: Width of a code vector.
        ema: Whether the codebook follows moving averages; False: it learns by gradient.
        commitment: Weight of the part of the loss that pulls vectors to their codes.
        decay: Of the moving averages; between 0 and 1.
        dead_below: A code is dead where the moving average of its uses in a batch is below this
            number. 0 leaves dead codes alone.

    Example:
        >>> quantizer = VectorQuantizer(16, 4).eval()
        >>> quantized, indices, loss, used = quantizer(torch.randn(2, 4, 3, 3))
        >>> quantized.shape, indices.shape, loss.shape, used.shape
        (torch.Size([2, 4, 3, 3]), torch.Size([2, 3, 3]), torch.Size([]), torch.Size([]))

    """

    def __init__(
        self,
        n_codes: int,
        dim: int,
        *,
        ema: bool = True,
        commitment: float = 0.25,
        decay: float = 0.99,
        dead_below: float = 0.1,
    ):
        check_int("n_codes", n_codes, minimum=1)
        check_int("dim", dim, minimum=1)
        check_bool("ema", ema)
        check_number("commitment", commitment, minimum=0.0)
        check_number("decay", decay, above=0.0)
        if decay >= 1:
            raise ValueError(f"decay must be below 1, got {decay!r}")
        check_number("dead_below", dead_below, minimum=0.0)
        super().__init__()
        self.n_codes, self.dim, self.ema = n_codes, dim, ema
        self.commitment, self.decay, self.dead_below = commitment, decay, dead_below
        codebook = torch.randn(n_codes, dim)
        if ema:
            self.register_buffer("codebook", codebook)
        else:
            self.codebook = nn.Parameter(codebook)
        self.register_buffer("uses", torch.zeros(n_codes))

    def forward(
        self, z: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Quantize ``z [B, dim, *]``: the vectors stand along dimension 1.

        Args:
            z: Finite vectors ``[B, dim]``, or maps of them ``[B, dim, H, W]``.
            generator: Source of the draws that put dead codes onto vectors, in training mode.

        Returns:
            ``quantized [B, dim, *]``, whose gradient goes to ``z`` as if it were ``z``;
            ``indices [B, *]``, int64; ``loss``, a scalar: commitment · mean (z − e)², and without
            ``ema`` also mean (e − z)² for the codebook; ``perplexity``, a scalar: how many codes
            this batch uses.

        """
        self.check_maps(z)
        check_generator(generator, z.device)
        vectors = z.detach().movedim(1, -1).reshape(-1, self.dim)
        if self.training:
            self.revive(vectors, generator=generator)
        index = self.nearest(vectors)
        indices = index.reshape(z.shape[:1] + z.shape[2:])
        e = self.lookup(indices)
        if self.ema:  # the codes follow by themselves
            loss = self.commitment * F.mse_loss(z, e.detach())
        else:
            loss = vq_loss(z, e, self.commitment)
        if self.training:
            self.follow(vectors, index)
        return straight_through(z, e), indices, loss, perplexity(index, self.n_codes)

    def nearest(self, vectors: Tensor) -> Tensor:
        """The index ``[N]`` of the code nearest to each of ``vectors [N, dim]``.

        ‖v − e‖² = ‖v‖² − 2 (v·e − ‖e‖² / 2): the nearest code has the largest v·e − ‖e‖² / 2.
        """
        self.check_rows(vectors)
        centre = self.codebook.detach().mean(dim=0)  # far from it the differences would lose digits
        v, e = vectors - centre, self.codebook.detach() - centre
        return torch.addmm(-0.5 * (e**2).sum(dim=1), v, e.T).argmax(dim=1)

    def lookup(self, indices: Tensor) -> Tensor:
        """The code vectors ``[B, dim, *]`` of int64 ``indices [B, *]``."""
        self.check_indices(indices)
        return F.embedding(indices, self.codebook).movedim(-1, 1)

    def check_indices(self, indices: Tensor) -> None:
        """Require int64 ``[B, *]`` from 0 to ``n_codes`` − 1 (``ValueError``)."""
        _check_indices(indices, self.n_codes)

    @torch.no_grad()
    def revive(self, vectors: Tensor, *, generator: torch.Generator | None = None) -> None:
        """Put dead codes onto random ``vectors [N, dim]``, as if used once in each batch."""
        self.check_rows(vectors)
        dead = (self.uses < self.dead_below).nonzero()[:, 0]
        if len(dead) == 0:
            return
        # Without repetition, as far as there are vectors enough.
        order = torch.randperm(len(vectors), generator=generator, device=vectors.device)
        self.codebook[dead] = vectors[order.repeat(len(dead) // len(order) + 1)[: len(dead)]]
        self.uses[dead] = 1.0

    @torch.no_grad()
    def follow(self, vectors: Tensor, index: Tensor) -> None:
        """Update the moving averages: of the uses N, and with ``ema`` of the codes e.

        ``vectors [N, dim]`` are those of a batch, ``index [N]`` the codes that they chose.
        With the sum s of the vectors that chose a code in this batch, and their number n, the
        averages are N ← γ N + (1 − γ) n and m ← γ m + (1 − γ) s, and the code is e = m / N. So
        m = N e need not be stored.
        """
        self.check_rows(vectors)
        n = torch.bincount(index, minlength=self.n_codes).to(self.uses.dtype)
        N = self.decay * self.uses + (1 - self.decay) * n
        if self.ema:
            s = torch.zeros_like(self.codebook).index_add_(0, index, vectors)
            m = self.decay * self.uses[:, None] * self.codebook + (1 - self.decay) * s
            chosen = n > 0  # the others stay where they are: there m / N = e
            self.codebook[chosen] = m[chosen] / N[chosen, None]
        self.uses.copy_(N)

    def check_rows(self, vectors: Tensor) -> None:
        """Require vectors ``[N, dim]`` of the codebook's dtype."""
        check_tensor("vectors", vectors, (None, self.dim), dtype=self.codebook.dtype)

    def check_maps(self, z: Tensor) -> None:
        """Require finite vectors along dimension 1, ``[B, dim, *]``."""
        check_floats("z", z, None, dtype=self.codebook.dtype)
        if z.ndim < 2 or z.shape[1] != self.dim:
            raise ValueError(f"z must have shape [B, {self.dim}, *], got {list(z.shape)}")

    def extra_repr(self) -> str:
        return (
            f"n_codes={self.n_codes}, dim={self.dim}, ema={self.ema}, "
            f"commitment={self.commitment}, decay={self.decay}, dead_below={self.dead_below}"
        )


def straight_through(z: Tensor, quantized: Tensor) -> Tensor:
    """The value of ``quantized``, exactly, with the gradient of ``z``, as if nothing were between.

    Args:
        z: A tensor of any shape.
        quantized: What it became, of the same shape.

    Reference:
        Bengio, Léonard and Courville 2013, https://arxiv.org/abs/1308.3432.

    """
    check_tensor("quantized", quantized, z.shape, dtype=z.dtype)
    return quantized.detach() + (z - z.detach())


def vq_loss(z: Tensor, e: Tensor, commitment: float) -> Tensor:
    """The two losses of a codebook, a scalar: codes go to vectors, and vectors to their codes.

    mean (sg[z] − e)² + commitment · mean (z − sg[e])², where sg stops the gradient.

    Args:
        z: Vectors, of any shape.
        e: Their codes, of the same shape.
        commitment: Weight of the part that pulls vectors to their codes.

    Reference:
        van den Oord, Vinyals and Kavukcuoglu 2017, https://arxiv.org/abs/1711.00937, equation 3.

    """
    check_tensor("e", e, z.shape, dtype=z.dtype)
    return F.mse_loss(e, z.detach()) + commitment * F.mse_loss(z, e.detach())


def perplexity(indices: Tensor, n_codes: int) -> Tensor:
    """How many codes are in use: exp of the entropy of their shares in ``indices``, a scalar.

    ``n_codes`` where all occur equally often, 1 where only one does. It has no gradient.

    Args:
        indices: Codes from 0 to ``n_codes`` − 1, int64 of any shape.
        n_codes: Number of codes.

    """
    check_int("n_codes", n_codes, minimum=1)
    _check_indices(indices, n_codes)
    share = torch.bincount(indices.flatten(), minlength=n_codes) / indices.numel()
    return torch.special.entr(share).sum().exp()


def _check_indices(indices: Tensor, n_codes: int) -> None:
    wanted = f"an int64 tensor of codes from 0 to {n_codes - 1}"
    if not isinstance(indices, Tensor):
        raise ValueError(f"indices must be {wanted}, got {type(indices).__name__}")
    if indices.dtype != torch.int64 or indices.numel() == 0:
        raise ValueError(f"indices must be {wanted}, got {indices.dtype} {list(indices.shape)}")
    if (stray := (indices < 0) | (indices >= n_codes)).any():
        raise ValueError(f"indices must be {wanted}, got {indices[stray][0].item()}")
