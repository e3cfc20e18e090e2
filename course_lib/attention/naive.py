"""Attention as it is defined, with the whole N × N matrix in memory."""

import torch
from torch import Tensor

from course_lib.attention.door import check_attention, usual_scale
from course_lib.attention.tiles import seen
from course_lib.checks import at_the_door

__all__ = ["naive_attention"]


@at_the_door(check_attention)
def naive_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """softmax(scale · q kᵀ) v, with two matrices of N_q × N_k numbers on the way.

    A query that may see no key gets 0, and no gradient.

    Reference:
        Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 1.

    Args:
        q: Queries ``[..., N_q, d]``; the leading dimensions (batch, heads) are those of k and v.
        k: Keys ``[..., N_k, d]``.
        v: Values ``[..., N_k, d]``.
        causal: Query i sees key j where j ≤ i + N_k − N_q only: the last query sees all of them.
            (As FlashAttention since 2.1. PyTorch's ``is_causal`` is j ≤ i, which differs where
            N_q and N_k do.)
        scale: What the logits are multiplied with; by default 1/√d.
        mask: Booleans ``[..., N_q, N_k]``, True where a query may see a key; any size may be 1.

    Returns:
        The output ``[..., N_q, d]``.

    """
    n_q, n_k = q.shape[-2], k.shape[-2]
    s = usual_scale(scale, q.shape[-1]) * q @ k.mT
    may = seen(slice(0, n_q), slice(0, n_k), n_q, n_k, causal, mask, q.device)
    if may is None:
        return torch.softmax(s, -1) @ v
    p = torch.softmax(s.masked_fill(~may, -torch.inf), -1)
    return p.masked_fill(~may.any(-1, keepdim=True), 0) @ v
