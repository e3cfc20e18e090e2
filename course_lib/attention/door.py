"""What attention asks of its arguments, once a public call."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.checks import check_bool, check_floats, check_int, check_number, check_tensor

Block = int | tuple[int, int]


def check_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    mask: Tensor | None = None,
    block: Block = 1,
) -> None:
    """Require queries ``[..., N_q, d]``, keys and values ``[..., N_k, d]``, and fit options."""
    check_floats("q", q, None)
    if q.ndim < 2:
        raise ValueError(f"q must have shape [..., N_q, d], got {list(q.shape)}")
    check_tensor("k", k, None)
    if k.ndim != q.ndim or k.shape[:-2] != q.shape[:-2] or k.shape[-1] != q.shape[-1]:
        *head, _, d = q.shape
        wanted = ", ".join(map(str, [*head, "N_k", d]))
        raise ValueError(f"k must have shape [{wanted}] to go with q, got {list(k.shape)}")
    for name, x, shape in (("k", k, k.shape), ("v", v, k.shape)):
        check_floats(name, x, shape)
        if x.dtype != q.dtype:
            raise ValueError(f"{name} must be {q.dtype} like q, got {x.dtype}")
        if x.device != q.device:
            raise ValueError(f"{name} must be on {q.device} like q, got {x.device}")
    check_bool("causal", causal)
    if scale is not None:
        check_number("scale", scale, above=0)
    if mask is not None:
        check_mask(mask, q, k)
    check_block(block)


def check_block(block: Block) -> None:
    """Require rows and columns of a tile, or one number for both."""
    pair = isinstance(block, tuple) and len(block) == 2
    if isinstance(block, tuple | list) and not pair:
        raise ValueError(f"block must be an integer or a pair (rows, columns), got {block!r}")
    for size in block if pair else (block,):
        check_int("block", size, minimum=1)


def check_logits(name: str, x: Tensor, shape: Sequence[int | None] | None = None) -> None:
    """Require finite numbers, or −∞ for what may not be seen."""
    check_tensor(name, x, shape)
    if not (x < math.inf).all():
        raise ValueError(f"{name} must be finite or −inf, got NaN or +inf")


def check_mask(mask: Tensor, q: Tensor, k: Tensor) -> None:
    """Require booleans ``[..., N_q, N_k]``; any of these sizes may be 1."""
    wanted = (*q.shape[:-1], k.shape[-2])
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"mask must be a tensor of booleans, True where a key is seen, got {kind}")
    if mask.ndim != q.ndim or any(m not in (1, n) for m, n in zip(mask.shape, wanted, strict=True)):
        raise ValueError(
            f"mask must have shape {list(wanted)}, any size of it may be 1, got {list(mask.shape)}"
        )
    if mask.device != q.device:
        raise ValueError(f"mask must be on {q.device} like q, got {mask.device}")


def usual_scale(scale: float | None, d: int) -> float:
    """1/√d, unless another scale is given."""
    return 1 / math.sqrt(d) if scale is None else scale
