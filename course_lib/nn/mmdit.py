"""Stable Diffusion 3's transformer: tokens of an image and of a text that look at each other."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_bool, check_floats, check_int, check_ints, check_tensor
from course_lib.nn.time import TimeEmbedding, check_time
from course_lib.nn.transformer import check_heads, check_mask

__all__ = [
    "JointAttention",
    "MMDiT",
    "MMDiTBlock",
    "modulate",
    "patchify",
    "sincos_positions",
    "unpatchify",
]


def patchify(x: Tensor, patch: int) -> Tensor:
    """Images ``[B, C, H, W]`` cut into squares, row by row: ``[B, H/p · W/p, C p²]``.

    Reference:
        Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, section 3.1.

    Example:
        >>> patchify(torch.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 1]
        tensor([2., 3., 6., 7.])

    """
    check_tensor("x", x, (None, None, None, None))
    check_int("patch", patch, minimum=1)
    check_patches(x.shape[2:], patch)
    return F.unfold(x, patch, stride=patch).transpose(1, 2)


def unpatchify(tokens: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """Images ``[B, C, H, W]`` of ``size`` (H, W) from their squares, ``patchify`` undone."""
    check_int("patch", patch, minimum=1)
    check_ints("size", size, minimum=1)
    check_patches(size, patch)
    height, width = (side // patch for side in size)
    check_tensor("tokens", tokens, (None, height * width, None))
    if tokens.shape[2] % patch**2:
        raise ValueError(f"tokens must have C · {patch}² numbers each, got {tokens.shape[2]}")
    return F.fold(tokens.transpose(1, 2), tuple(size), patch, stride=patch)


def check_patches(size: tuple[int, int], patch: int) -> None:
    """Require height and width that ``patch`` divides (``ValueError``)."""
    if any(side % patch for side in size):
        raise ValueError(f"patch must divide height and width, {tuple(size)}, got {patch}")


def sincos_positions(
    height: int, width: int, dim: int, *, trained: tuple[int, int] | None = None
) -> Tensor:
    """A vector for each place of a grid, row by row: ``[height · width, dim]``.

    One half of it are sines and cosines of the row, the other of the column, at dim / 4 frequencies
    from 1 down to 1 / 10,000.

    Reference:
        Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, appendix D.4; Esser et al. 2024,
        https://arxiv.org/abs/2403.03206, section 5.3.2.

    Args:
        height: Rows.
        width: Columns.
        dim: Numbers of each vector, a multiple of 4.
        trained: Rows and columns of the grid that a model was trained on: this one is stretched
            over it, so that no place lies outside what the model knows.

    """
    check_int("height", height, minimum=1)
    check_int("width", width, minimum=1)
    check_int("dim", dim, minimum=4)
    if dim % 4:
        raise ValueError(f"dim must be a multiple of 4, got {dim}")
    rows, columns = torch.arange(height).double(), torch.arange(width).double()
    if trained is not None:
        check_ints("trained", trained, minimum=1)
        rows, columns = rows * (trained[0] / height), columns * (trained[1] / width)
    rates = 10_000.0 ** (-torch.arange(dim // 4).double() / (dim // 4))
    parts = []
    for place in torch.meshgrid(rows, columns, indexing="ij"):
        angles = place.reshape(-1, 1) * rates
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, dim=1).float()


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Tokens ``[B, N, dim]`` stretched and moved, x (1 + scale) + shift, by ``[B, dim]`` each."""
    return x * (1 + scale[:, None]) + shift[:, None]


class JointAttention(nn.Module):
    """Attention of several streams of tokens: each has its own weights, all look at all.

    Queries, keys and values of the streams are put behind each other, so that the attention is one:
    text looks at the image as the image looks at the text. With ``qk_norm`` each query and key is
    divided by its root mean square, and multiplied by learned factors: however large the weights
    grow, no logit is larger than √d times the largest product of two such factors.

    Reference:
        Esser et al. 2024, https://arxiv.org/abs/2403.03206, section 4, figure 2b, and 5.3.2.

    Args:
        dim: Width of a token, in all streams.
        heads: Number of heads; divides ``dim``.
        qk_norm: Whether queries and keys are normalized.
        streams: How many there are: 2, image and text; 1 is ordinary self-attention.

    Example:
        >>> image, text = torch.zeros(2, 16, 32), torch.zeros(2, 5, 32)
        >>> [o.shape for o in JointAttention(32, 4)(image, text)]
        [torch.Size([2, 16, 32]), torch.Size([2, 5, 32])]

    """

    def __init__(self, dim: int, heads: int, *, qk_norm: bool = True, streams: int = 2):
        check_heads(dim, heads)
        check_int("streams", streams, minimum=1)
        check_bool("qk_norm", qk_norm)
        super().__init__()
        self.dim, self.heads, self.qk_norm = dim, heads, qk_norm
        self.qkv = nn.ModuleList(nn.Linear(dim, 3 * dim) for _ in range(streams))
        self.out = nn.ModuleList(nn.Linear(dim, dim) for _ in range(streams))
        norm = partial(nn.RMSNorm, dim // heads, eps=1e-6) if qk_norm else nn.Identity
        self.norm_q = nn.ModuleList(norm() for _ in range(streams))
        self.norm_k = nn.ModuleList(norm() for _ in range(streams))

    def forward(self, *streams: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Tokens ``[B, N_i, dim]`` of each stream, changed: as many of the same shapes.

        ``mask [B, N_1 + N_2 + ...]`` is True where a token may be looked at.
        """
        q, k, v = self.heads_of(streams)
        seen = seen_by_all(mask, q)
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)
        parts = o.split([x.shape[1] for x in streams], dim=1)
        # A part in one piece is one call of ``addmm``, else a copy, a product and a sum.
        return tuple(out(part.contiguous()) for out, part in zip(self.out, parts, strict=True))

    def logits(self, *streams: Tensor) -> Tensor:
        """Q Kᵀ / √d of all tokens, those of the first stream first: ``[B, heads, N, N]``."""
        q, k, _ = self.heads_of(streams)
        return q @ k.mT / q.shape[-1] ** 0.5

    def weights(self, *streams: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each token takes of each, softmax of the ``logits``: ``[B, heads, N, N]``."""
        logits = self.logits(*streams)
        seen = seen_by_all(mask, logits)
        if seen is None:
            return logits.softmax(dim=-1)
        # Where nothing may be looked at nothing is taken, as in ``forward``: 0, not NaN.
        return logits.masked_fill(~seen, -torch.inf).softmax(dim=-1).masked_fill(~seen, 0)

    def heads_of(self, streams: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Q, K, V of all streams' tokens behind each other, ``[B, heads, N, d]`` each."""
        check_streams(streams, len(self.qkv))
        each = []
        for i, x in enumerate(streams):
            shape = (len(streams[0]), None, self.dim)
            check_tensor(f"streams[{i}]", x, shape, dtype=self.qkv[i].weight.dtype)
            # Three products, each in one piece, [B, N_i, heads, d]: a third of a larger one lies
            # scattered, and takes four times as long to be normalized.
            thirds = zip(self.qkv[i].weight.chunk(3), self.qkv[i].bias.chunk(3), strict=True)
            q, k, v = (F.linear(x, w, b).unflatten(2, (self.heads, -1)) for w, b in thirds)
            each.append((self.norm_q[i](q), self.norm_k[i](k), v))
        q, k, v = (torch.cat(parts, dim=1).transpose(1, 2) for parts in zip(*each, strict=True))
        return q, k, v


def check_streams(streams: tuple[Tensor, ...], number: int) -> None:
    """Require as many streams as there are weights for (``ValueError``)."""
    if len(streams) != number:
        raise ValueError(f"streams must be {number}, got {len(streams)}")


def seen_by_all(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """A mask ``[B, N]`` of the tokens of ``x [B, heads, N, d]``, for all heads and queries."""
    if mask is None:
        return None
    check_mask(mask, x[:, 0])
    return mask[:, None, None]


class MMDiTBlock(nn.Module):
    """One block: joint attention, then a perceptron in each stream; AdaLN-zero around both.

    A vector of the time (and of the whole text) says how normalized tokens are stretched and moved,
    and how much of each branch is added. The layer that says so starts at 0: at first a block
    changes nothing.

    Reference:
        Esser et al. 2024, https://arxiv.org/abs/2403.03206, figure 2b; AdaLN-zero: Peebles, Xie
        2023, https://arxiv.org/abs/2212.09748, section 3.2.

    Args:
        dim: Width of a token.
        heads: Number of heads of the attention; divides ``dim``.
        qk_norm: As of ``JointAttention``.
        streams: 2, image and text; 1 is the block of DiT.
        expand: Width of the perceptrons' hidden layers, in ``dim``.

    Example:
        >>> block = MMDiTBlock(32, 4)
        >>> image, text = torch.randn(2, 16, 32), torch.randn(2, 5, 32)
        >>> unchanged, _ = block(image, text, c=torch.randn(2, 32))
        >>> torch.equal(image, unchanged)
        True

    """

    def __init__(
        self, dim: int, heads: int, *, qk_norm: bool = True, streams: int = 2, expand: int = 4
    ):
        check_int("expand", expand, minimum=1)
        super().__init__()
        self.attention = JointAttention(dim, heads, qk_norm=qk_norm, streams=streams)
        self.modulation = nn.ModuleList(nn.Linear(dim, 6 * dim) for _ in range(streams))
        for layer in self.modulation:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.mlp = nn.ModuleList(
            nn.Sequential(
                nn.Linear(dim, expand * dim),
                nn.GELU(approximate="tanh"),
                nn.Linear(expand * dim, dim),
            )
            for _ in range(streams)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)

    def forward(
        self, *streams: Tensor, c: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Tokens ``[B, N_i, dim]`` of each stream, changed, given ``c [B, dim]``.

        ``mask [B, N_1 + N_2 + ...]`` is True where a token may be looked at.
        """
        check_streams(streams, len(self.mlp))
        check_tensor("c", c, (len(streams[0]), self.attention.dim))
        c = F.silu(c)
        said = [layer(c).chunk(6, dim=1) for layer in self.modulation]
        normed = [modulate(self.norm(x), *s[:2]) for x, s in zip(streams, said, strict=True)]
        attended = self.attention(*normed, mask=mask)
        changed = []
        for x, o, mlp, s in zip(streams, attended, self.mlp, said, strict=True):
            _, _, gate_1, shift, scale, gate_2 = s
            x = x + gate_1[:, None] * o
            x = x + gate_2[:, None] * mlp(modulate(self.norm(x), shift, scale))
            changed.append(x)
        return tuple(changed)


class MMDiT(nn.Module):
    """A network of noised images that looks at a text, made of nothing but transformer blocks.

    The image is cut into patches; each is a token that knows its place. With a ``context_dim`` a
    text's tokens are a second stream, and their mean is added to the embedded time. Without, it is
    DiT, of classes where ``n_classes`` says so.

    Reference:
        Esser et al. 2024, https://arxiv.org/abs/2403.03206, section 4; DiT: Peebles, Xie 2023,
        https://arxiv.org/abs/2212.09748.

    Args:
        event_shape: ``(C, H, W)`` of an image. Other sizes work, too, if ``patch`` divides them.
        patch: Side of a patch.
        dim: Width of a token, a multiple of 4.
        depth: Number of blocks.
        heads: Heads of their attention; divides ``dim``.
        context_dim: Width of a text's tokens; None for no text.
        n_classes: The number of classes; None for no classes.
        null_class: Learn a label that says nothing, too, as in ``TimeEmbedding``.
        qk_norm: As of ``JointAttention``.
        scale: What a unit of time is worth, as in ``TimeEmbedding``.
        stretch: Whether an image of another size has its positions stretched over the grid of
            ``event_shape``; else they count on beyond it, where the network was never trained. An
            attribute, too.

    Example:
        >>> net = MMDiT((1, 8, 8), patch=2, dim=32, depth=1, context_dim=16)
        >>> net(torch.zeros(3, 1, 8, 8), torch.ones(3), context=torch.zeros(3, 5, 16)).shape
        torch.Size([3, 1, 8, 8])

    """

    def __init__(
        self,
        event_shape: tuple[int, int, int],
        *,
        patch: int = 2,
        dim: int = 96,
        depth: int = 4,
        heads: int = 4,
        context_dim: int | None = None,
        n_classes: int | None = None,
        null_class: bool = False,
        qk_norm: bool = True,
        scale: float = 1000.0,
        stretch: bool = True,
    ):
        check_ints("event_shape", event_shape, minimum=1)
        if len(event_shape) != 3:
            raise ValueError(f"event_shape must be (C, H, W), got {tuple(event_shape)}")
        check_int("patch", patch, minimum=1)
        check_patches(event_shape[1:], patch)
        check_int("depth", depth, minimum=1)
        check_int("dim", dim, minimum=4)
        if dim % 4:
            raise ValueError(f"dim must be a multiple of 4, got {dim}")
        check_bool("stretch", stretch)
        super().__init__()
        self.event_shape, self.patch, self.context_dim = tuple(event_shape), patch, context_dim
        self.stretch = stretch
        numbers = event_shape[0] * patch**2
        self.time = TimeEmbedding(64, dim, n_classes=n_classes, null_class=null_class, scale=scale)
        self.null_class = self.time.null_class
        self.patches, self.out = nn.Linear(numbers, dim), nn.Linear(dim, numbers)
        streams = 1
        if context_dim is not None:
            check_int("context_dim", context_dim, minimum=1)
            streams = 2
            self.words, self.pooled = nn.Linear(context_dim, dim), nn.Linear(context_dim, dim)
        self.blocks = nn.ModuleList(
            MMDiTBlock(dim, heads, qk_norm=qk_norm, streams=streams) for _ in range(depth)
        )
        self.modulation = nn.Linear(dim, 2 * dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        for layer in (self.modulation, self.out):  # AdaLN-zero: at first the answer is 0
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.grid = tuple(side // patch for side in event_shape[1:])
        self.register_buffer("positions", sincos_positions(*self.grid, dim), persistent=False)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Map images ``x [B, C, H, W]`` at times ``t [B]`` to ``[B, C, H, W]``.

        Args:
            x: Noised images.
            t: Times.
            y: Classes ``[B]``, for a network with classes.
            context: Tokens ``[B, L, context_dim]`` of a text, for a network with a context.
            mask: Which of them say something, ``[B, L]``; by default all.

        """
        streams, c, mask = self.tokens(x, t, y, context=context, mask=mask)
        for block in self.blocks:
            streams = block(*streams, c=c, mask=mask)
        shift, scale = self.modulation(F.silu(c)).chunk(2, dim=1)
        tokens = self.out(modulate(self.norm(streams[0]), shift, scale))
        return unpatchify(tokens, self.patch, tuple(x.shape[2:]))

    def tokens(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor | None]:
        """What the first block is given: the streams, ``c [B, dim]``, and the mask of all tokens.

        Arguments as of ``forward``.
        """
        check_floats("x", x, (None, self.event_shape[0], None, None), dtype=self.out.weight.dtype)
        check_time(t, len(x))
        c = self.time(t, y)
        tokens = self.patches(patchify(x, self.patch)) + self.positions_of(x)
        if self.context_dim is None:
            if context is not None:
                raise ValueError("context must be None for a network without context_dim")
            return (tokens,), c, None
        check_tensor("context", context, (len(x), None, self.context_dim), dtype=x.dtype)
        if mask is None:
            mask = torch.ones(context.shape[:2], dtype=torch.bool, device=x.device)
        check_mask(mask, context)
        words = mask[:, :, None].to(x)
        mean = (context * words).sum(1) / words.sum(1).clamp(min=1)  # 0 of a text without words
        c = c + self.pooled(mean)
        image = mask.new_ones(tokens.shape[:2])
        return (tokens, self.words(context)), c, torch.cat([image, mask], dim=1)

    def positions_of(self, x: Tensor) -> Tensor:
        """The positions of an image's patches, ``[N, dim]``."""
        grid = tuple(side // self.patch for side in x.shape[2:])
        if grid == self.grid:
            return self.positions
        trained = self.grid if self.stretch else None
        dim = self.positions.shape[1]
        return sincos_positions(*grid, dim, trained=trained).to(self.positions)
