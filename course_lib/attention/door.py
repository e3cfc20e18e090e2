"""What attention asks of its arguments, once a public call."""

import math

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
        raise ValueError(f"k must have shape {[*head, 'N_k', d]} to go with q, got {list(k.shape)}")
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
    for size in block if isinstance(block, tuple) and len(block) == 2 else (block,):
        check_int("block", size, minimum=1)


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
