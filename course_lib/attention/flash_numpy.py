"""FlashAttention in NumPy: the algorithm as the papers write it, for one pair of loops."""

import numpy as np
import torch

from course_lib.attention.door import Block, check_attention, usual_scale
from course_lib.attention.tiles import tiles
from course_lib.checks import at_the_door

__all__ = ["flash_attention_numpy"]


def check_arrays(q: np.ndarray, k: np.ndarray, v: np.ndarray, **options) -> None:
    """Require arrays ``[N, d]`` that fit together, and fit options."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        plain = type(x) in (np.ndarray, np.memmap)  # a matrix or a masked array computes otherwise
        if not plain or x.ndim != 2:
            what = list(x.shape) if plain else type(x).__name__
            raise ValueError(f"{name} must be an array [N, d], got {what}")
        if x.dtype not in (np.float32, np.float64):
            raise ValueError(f"{name} must be of float32 or float64, got {x.dtype}")
    # Copies: PyTorch takes no array that is turned round, and warns of one that is read-only.
    check_attention(*(torch.from_numpy(x.copy()) for x in (q, k, v)), **options)


@at_the_door(check_arrays)
def flash_attention_numpy(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    causal: bool = False,
    scale: float | None = None,
    block: Block = 64,
) -> np.ndarray:
    """Attention of one head, tile by tile: no array is larger than the output or a tile.

    Reference:
        Dao 2023, https://arxiv.org/abs/2307.08691, algorithm 1 (queries in the outer loop, one
        division at the end).

    Args:
        q: Queries ``[N_q, d]``.
        k: Keys ``[N_k, d]``.
        v: Values ``[N_k, d]``.
        causal: Query i sees key j where j ≤ i + N_k − N_q only; a query that sees none gets 0.
        scale: What the logits are multiplied with; by default 1/√d.
        block: Rows and columns of a tile, a number for both or a pair.

    Returns:
        The output ``[N_q, d]``.

    """
    (n_q, d), n_k = q.shape, len(k)
    scale = usual_scale(scale, d)
    lowest = np.finfo(q.dtype).min  # stands for −∞: −∞ − (−∞) would be NaN
    m, l, o = np.full((n_q, 1), lowest, q.dtype), np.zeros((n_q, 1), q.dtype), np.zeros_like(q)  # noqa: E741

    for rows, columns, whole in tiles(n_q, n_k, block, causal):
        s = scale * q[rows] @ k[columns].T
        if not whole:
            i, j = np.ogrid[rows, columns]
            s = np.where(j <= i + n_k - n_q, s, -np.inf)
        larger = np.maximum(m[rows], s.max(1, keepdims=True))
        p = np.exp(s - larger)
        correction = np.exp(m[rows] - larger)
        l[rows] = correction * l[rows] + p.sum(1, keepdims=True)
        o[rows] = correction * o[rows] + p @ v[columns]
        m[rows] = larger
    return o / np.where(l == 0, 1, l)
