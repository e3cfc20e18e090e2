"""FlashAttention in PyTorch: tiles forward, and tiles backward with the logits computed again."""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from course_lib.attention.door import Block, check_attention, check_logits, usual_scale
from course_lib.attention.parts import above_minus_infinity
from course_lib.attention.tiles import seen, tiles
from course_lib.checks import at_the_door, check_floats

__all__ = ["flash_attention", "flash_backward", "flash_forward"]

LOG2_E = math.log2(math.e)


@at_the_door(check_attention)
def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    mask: Tensor | None = None,
    block: Block = 256,
) -> Tensor:
    """Attention without the N × N matrix: memory O(N d), forward and backward, on any device.

    The same numbers as ``naive_attention`` up to rounding, whatever the block. Half precision is
    added up in float32. Gradients of gradients are not to be had.

    Reference:
        Dao et al. 2022, https://arxiv.org/abs/2205.14135; Dao 2023,
        https://arxiv.org/abs/2307.08691, algorithms 1 and 2.

    Args:
        q: Queries ``[..., N_q, d]``; the leading dimensions (batch, heads) are those of k and v.
        k: Keys ``[..., N_k, d]``.
        v: Values ``[..., N_k, d]``.
        causal: Query i sees key j where j ≤ i + N_k − N_q only, as in ``naive_attention``. Tiles
            that nobody may see are skipped.
        scale: What the logits are multiplied with; by default 1/√d.
        mask: Booleans ``[..., N_q, N_k]``, True where a query may see a key; any size may be 1.
        block: Rows and columns of a tile, a number for both or a pair.

    Returns:
        The output ``[..., N_q, d]``; 0 for a query that may see no key.

    """
    return FlashAttention.apply(q, k, v, causal, usual_scale(scale, q.shape[-1]), mask, block)


class FlashAttention(torch.autograd.Function):
    """Keeps q, k, v, the output and one number a row for the way back; no logits."""

    @staticmethod
    def forward(ctx, q, k, v, causal, scale, mask, block):
        o, lse = flash_forward.inside(q, k, v, causal=causal, scale=scale, mask=mask, block=block)
        ctx.save_for_backward(q, k, v, o, lse, mask)
        ctx.options = {"causal": causal, "scale": scale, "block": block}
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx, do):
        *saved, mask = ctx.saved_tensors
        return *flash_backward.inside(do, *saved, mask=mask, **ctx.options), None, None, None, None


@at_the_door(check_attention)
def flash_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    mask: Tensor | None = None,
    block: Block = 256,
) -> tuple[Tensor, Tensor]:
    """The output ``[..., N_q, d]``, and the log-sum-exp of each row of logits ``[..., N_q]``.

    Arguments are those of ``flash_attention``. Sums are those of float32 for half precision, and so
    is the log-sum-exp. Inside, logits are counted in bits: e^x = 2^(x log₂ e), and the factor goes
    into q, once, because 2^x is what processors compute fastest.
    """
    n_q, n_k, scale = q.shape[-2], k.shape[-2], usual_scale(scale, q.shape[-1])
    wide = torch.promote_types(q.dtype, torch.float32)
    q_, k_, v_ = (x.to(wide).contiguous() for x in (q, k, v))
    q_ = scale * LOG2_E * q_
    o = torch.zeros_like(q_)
    l = torch.zeros_like(q_[..., :1])  # noqa: E741
    m = above_minus_infinity(l - torch.inf)
    for rows, columns, whole in tiles(n_q, n_k, block, causal):
        s = q_[..., rows, :] @ k_[..., columns, :].mT
        may = seen(rows, columns, n_q, n_k, not whole, mask, q.device)
        s = s if may is None else s.masked_fill_(~may, -torch.inf)
        m_i, l_i, o_i = m[..., rows, :], l[..., rows, :], o[..., rows, :]
        larger = torch.maximum(m_i, s.amax(-1, keepdim=True))
        p = s.sub_(larger).exp2_()
        correction = torch.exp2(m_i - larger)
        l_i.mul_(correction).add_(p.sum(-1, keepdim=True))
        o_i.mul_(correction).add_(p @ v_[..., columns, :])
        m_i.copy_(larger)
    o = o.div_(l.masked_fill(l == 0, 1))
    return o.to(q.dtype), ((m + torch.log2(l)) / LOG2_E).squeeze(-1)


def check_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, **options
) -> None:
    """Require what ``flash_forward`` took and gave, and the gradient of its output."""
    check_attention(q, k, v, **options)
    for name, x in (("do", do), ("o", o)):
        check_floats(name, x, q.shape)
        if x.dtype != q.dtype:
            raise ValueError(f"{name} must be {q.dtype} like q, got {x.dtype}")
    check_logits("lse", lse, q.shape[:-1])


@at_the_door(check_backward)
def flash_backward(
    do: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    lse: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    mask: Tensor | None = None,
    block: Block = 256,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, from the gradient ``do`` of the output ``o``.

    Each tile of P = exp(S − L) is computed a second time. The softmax's Jacobian needs one number
    a row, D_i = Σ_j P_ij dP_ij, which is the inner product of do_i and o_i.

    Reference:
        Dao 2023, https://arxiv.org/abs/2307.08691, algorithm 2.

    """
    n_q, n_k, scale = q.shape[-2], k.shape[-2], usual_scale(scale, q.shape[-1])
    wide = torch.promote_types(q.dtype, torch.float32)
    q_, k_, v_, o_, do_ = (x.to(wide).contiguous() for x in (q, k, v, o, do))
    q_ = scale * LOG2_E * q_
    lse = above_minus_infinity(LOG2_E * lse)[..., None]
    row_term = (do_ * o_).sum(-1, keepdim=True)
    dq, dk, dv = (torch.zeros_like(x) for x in (q_, k_, v_))
    for rows, columns, whole in tiles(n_q, n_k, block, causal):
        q_i, do_i = q_[..., rows, :], do_[..., rows, :]
        k_j, v_j = k_[..., columns, :], v_[..., columns, :]
        s = q_i @ k_j.mT
        may = seen(rows, columns, n_q, n_k, not whole, mask, q.device)
        s = s if may is None else s.masked_fill_(~may, -torch.inf)
        p = s.sub_(lse[..., rows, :]).exp2_()
        ds = (do_i @ v_j.mT).sub_(row_term[..., rows, :]).mul_(p)
        dv[..., columns, :].add_(p.mT @ do_i)
        dq[..., rows, :].add_(ds @ k_j)
        dk[..., columns, :].add_(ds.mT @ q_i)
    return (scale * dq).to(q.dtype), (dk / LOG2_E).to(q.dtype), dv.to(q.dtype)
