"""Attention in one pass over the keys."""

from torch import Tensor

from course_lib.attention.door import check_attention, usual_scale
from course_lib.attention.parts import attend_part, empty_part, finish, merge
from course_lib.checks import at_the_door

__all__ = ["online_attention"]


@at_the_door(check_attention)
def online_attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """Attention in one pass: each key and its value are looked at once, and then forgotten.

    The softmax alone needs a second pass, because each of its N numbers must be divided by the
    sum, which is known at the end. The output is one sum of values, and can be divided there.

    Args:
        q: Queries ``[..., N_q, d]``.
        k: Keys ``[..., N_k, d]``.
        v: Values ``[..., N_k, d]``.
        scale: What the logits are multiplied with; by default 1/√d.

    Returns:
        The output ``[..., N_q, d]``.

    """
    scale = usual_scale(scale, q.shape[-1])
    part = empty_part(q)
    for k_j, v_j in zip(k.split(1, dim=-2), v.split(1, dim=-2), strict=True):
        s_j = scale * q @ k_j.mT
        part = merge.inside(part, attend_part.inside(s_j, v_j))
    output, _ = finish(part)
    return output
