"""A transformer's block: attention in several heads, and a perceptron for each token."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.attention import flash_attention
from course_lib.checks import check_bool, check_int, check_tensor

__all__ = ["Attention", "KeyValueCache", "TransformerBlock"]


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
        check_int("dim", dim, minimum=1)
        check_int("heads", heads, minimum=1)
        if dim % heads != 0:
            raise ValueError(f"heads must divide dim = {dim}, got {heads}")
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


class TransformerBlock(nn.Module):
    """Tokens look at each other, then each is changed by itself; both are added to what was.

    Each branch sees normalized tokens, and the sum stays as it is ("pre-norm").

    Reference:
        Radford et al. 2019, "Language models are unsupervised multitask learners" (GPT-2), 2.3.

    Args:
        dim: Width of a token.
        heads: Number of heads of the attention; divides ``dim``.
        causal: Whether a token sees only itself and those before it.
        expand: Width of the perceptron's hidden layer, in ``dim``.
        attend: The function that attends, as of ``Attention``.

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
    ):
        check_int("expand", expand, minimum=1)
        super().__init__()
        self.attention = Attention(dim, heads, causal=causal, attend=attend)
        self.mlp = nn.Sequential(
            nn.Linear(dim, expand * dim), nn.GELU(), nn.Linear(expand * dim, dim)
        )
        self.norm_1, self.norm_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Tokens ``[B, N, dim]`` to ``[B, N, dim]``; they come behind those of ``cache``."""
        x = x + self.attention(self.norm_1(x), cache)
        return x + self.mlp(self.norm_2(x))
