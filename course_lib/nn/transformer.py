"""A transformer's block: attention in several heads, and a perceptron for each token."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.attention import flash_attention
from course_lib.checks import check_bool, check_int, check_tensor

__all__ = ["Attention", "CrossAttention", "KeyValueCache", "TransformerBlock"]


class KeyValueCache:
    """The keys and values of the tokens so far, so that they are computed once.

    Decoding asks with the newest token alone, ``[B, heads, 1, d]``, against all keys stored here.
    """

    def __init__(self):
        self.k = self.v = None

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values ``[B, heads, n, d]`` of new tokens; returns those of all tokens."""
        if self.k is not None:
            k, v = torch.cat([self.k, k], dim=-2), torch.cat([self.v, v], dim=-2)
        self.k, self.v = k, v
        return k, v


class Attention(nn.Module):
    """Self-attention in several heads: each looks at the tokens through its own projections.

    Reference:
        Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.2.

    Args:
        dim: Width of a token.
        heads: Number of heads; divides ``dim``.
        causal: Whether a token sees only itself and those before it.
        attend: ``attend(q, k, v, causal=...)`` of queries, keys and values ``[B, heads, N, d]``.

    Example:
        >>> Attention(32, 4, causal=True)(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 10, 32])

    """

    def __init__(
        self, dim: int, heads: int, *, causal: bool = False, attend: Callable = flash_attention
    ):
        check_heads(dim, heads)
        check_bool("causal", causal)
        super().__init__()
        self.dim, self.heads, self.causal = dim, heads, causal
        self.attend = getattr(attend, "inside", attend)  # checks stand at the model's door
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Tokens ``[B, N, dim]`` to ``[B, N, dim]``; they come behind those of ``cache``."""
        check_tensor("x", x, (None, None, self.dim), dtype=self.out.weight.dtype)
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            k, v = cache.extend(k, v)
        o = self.attend(q, k, v, causal=self.causal)  # (B, heads, N, d)
        return self.out(o.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Tokens look something up elsewhere: the queries are theirs, keys and values the context's.

        softmax(Q Kᵀ / √d) V,  Q = x W_q, K = c W_k, V = c W_v,  d = ``dim`` / ``heads``

    Reference:
        Rombach et al. 2022, https://arxiv.org/abs/2112.10752, section 3.3.

    Args:
        dim: Width of a token.
        context_dim: Width of what it looks at.
        heads: Number of heads; divides ``dim``.

    Example:
        >>> CrossAttention(32, 16, 4)(torch.zeros(2, 64, 32), torch.zeros(2, 12, 16)).shape
        torch.Size([2, 64, 32])

    """

    def __init__(self, dim: int, context_dim: int, heads: int):
        check_heads(dim, heads)
        check_int("context_dim", context_dim, minimum=1)
        super().__init__()
        self.dim, self.context_dim, self.heads = dim, context_dim, heads
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(context_dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens ``[B, N, dim]`` to ``[B, N, dim]``, looking at ``context [B, L, context_dim]``.

        ``mask [B, L]`` is True where the context may be looked at.
        """
        q, k, v, seen = self.heads_of(x, context, mask)
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(o.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each token takes of each part of the context: softmax(Q Kᵀ / √d).

        Returns:
            ``[B, heads, N, L]``, each row with sum 1, and 0 where ``mask`` is False.

        """
        q, k, _, seen = self.heads_of(x, context, mask)
        logits = q @ k.mT / q.shape[-1] ** 0.5
        if seen is not None:
            logits = logits.masked_fill(~seen, -torch.inf)
        return logits.softmax(dim=-1)

    def heads_of(
        self, x: Tensor, context: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Q ``[B, heads, N, d]``, K and V ``[B, heads, L, d]``, and the mask ``[B, 1, 1, L]``."""
        check_tensor("x", x, (None, None, self.dim), dtype=self.out.weight.dtype)
        check_tensor("context", context, (len(x), None, self.context_dim), dtype=x.dtype)
        if mask is not None:
            check_mask(mask, context)
            mask = mask[:, None, None]
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(context).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v, mask


def check_heads(dim: int, heads: int) -> None:
    """Require a width that ``heads`` heads share evenly (``ValueError``)."""
    check_int("dim", dim, minimum=1)
    check_int("heads", heads, minimum=1)
    if dim % heads:
        raise ValueError(f"heads must divide dim = {dim}, got {heads}")


def check_mask(mask: Tensor, context: Tensor) -> None:
    """Require a bool tensor ``[B, L]`` for a context ``[B, L, ...]``; no number is looked at."""
    wanted = f"a bool tensor {list(context.shape[:2])}"
    if not isinstance(mask, Tensor):
        raise ValueError(f"mask must be {wanted}, got {mask!r}")
    if mask.dtype != torch.bool or mask.shape != context.shape[:2]:
        raise ValueError(f"mask must be {wanted}, got {mask.dtype} {list(mask.shape)}")


class TransformerBlock(nn.Module):
    """Tokens look at each other, then each is changed by itself; both are added to what was.

    Each branch sees normalized tokens, and the sum stays as it is ("pre-norm"). With a context
    tokens look at that, too, in between.

    Reference:
        Radford et al. 2019, "Language models are unsupervised multitask learners" (GPT-2), 2.3.
        With a context: Rombach et al. 2022, https://arxiv.org/abs/2112.10752, section 3.3.

    Args:
        dim: Width of a token.
        heads: Number of heads of the attention; divides ``dim``.
        causal: Whether a token sees only itself and those before it.
        expand: Width of the perceptron's hidden layer, in ``dim``.
        attend: The function that attends, as of ``Attention``.
        context_dim: Width of the context that tokens look at; None for no context.

    Example:
        >>> TransformerBlock(32, 4)(torch.zeros(2, 10, 32)).shape
        torch.Size([2, 10, 32])

    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        causal: bool = False,
        expand: int = 4,
        attend: Callable = flash_attention,
        context_dim: int | None = None,
    ):
        check_int("expand", expand, minimum=1)
        super().__init__()
        self.attention = Attention(dim, heads, causal=causal, attend=attend)
        self.cross = None
        if context_dim is not None:
            self.cross = CrossAttention(dim, context_dim, heads)
            self.norm_cross = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, expand * dim), nn.GELU(), nn.Linear(expand * dim, dim)
        )
        self.norm_1, self.norm_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(
        self,
        x: Tensor,
        cache: KeyValueCache | None = None,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Tokens ``[B, N, dim]`` to ``[B, N, dim]``; they come behind those of ``cache``.

        ``context [B, L, context_dim]`` and its ``mask [B, L]`` are as of ``CrossAttention``.
        """
        if context is not None and self.cross is None:
            raise ValueError("context must be None for a block without context_dim")
        x = x + self.attention(self.norm_1(x), cache)
        if self.cross is not None:
            x = x + self.cross(self.norm_cross(x), context, mask)
        return x + self.mlp(self.norm_2(x))
