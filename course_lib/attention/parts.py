"""Partial results of attention, and how two of them become one."""

from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.attention.door import check_logits
from course_lib.checks import at_the_door, check_floats, check_tensor

__all__ = ["Part", "attend_part", "empty_part", "finish", "merge"]


class Part(NamedTuple):
    """What a query has seen of some of the keys: all that is needed to go on from there.

    ``m [..., 1]`` is the largest logit so far (−∞ where there was none), ``l [..., 1]`` the sum of
    exp(s_j − m) over the keys seen, and ``o [..., d]`` the sum of exp(s_j − m) v_j: it is divided
    by l at the very end.
    """

    m: Tensor
    l: Tensor  # noqa: E741
    o: Tensor


def above_minus_infinity(m: Tensor) -> Tensor:
    """m, or the lowest finite number where nothing was seen: exp(−∞ − that) is 0, not NaN."""
    return m.clamp(min=torch.finfo(m.dtype).min)


def check_part(name: str, part: Part) -> None:
    """Require m and l ``[..., 1]`` beside o ``[..., d]``, of numbers that fit."""
    if not isinstance(part, Part):
        raise ValueError(f"{name} must be a Part, got {type(part).__name__}")
    check_floats(f"{name}.o", part.o, None)
    rows = (*part.o.shape[:-1], 1)
    check_logits(f"{name}.m", part.m, rows)
    check_floats(f"{name}.l", part.l, rows)


def check_pair(a: Part, b: Part) -> None:
    """Require two parts of the same queries."""
    check_part("a", a)
    check_part("b", b)
    if a.o.shape != b.o.shape:
        raise ValueError(
            f"b must be of the same queries as a, {list(a.o.shape)}, got {list(b.o.shape)}"
        )


def check_keys(s: Tensor, v: Tensor) -> None:
    """Require logits ``[..., N_q, n]`` of n keys, and their values ``[..., n, d]``."""
    check_logits("s", s)
    check_floats("v", v, None)
    if v.dtype != s.dtype:
        raise ValueError(f"v must be {s.dtype} like s, got {v.dtype}")
    if s.ndim < 2 or v.ndim != s.ndim or v.shape[:-1] != (*s.shape[:-2], s.shape[-1]):
        raise ValueError(
            "v must have shape [..., n, d] for logits s [..., N_q, n], "
            f"got {list(v.shape)} for {list(s.shape)}"
        )


def empty_part(o: Tensor) -> Part:
    """The part of a query that has seen nothing, shaped like the output ``o [..., d]``."""
    check_tensor("o", o, None)
    nothing = o.new_zeros(*o.shape[:-1], 1)
    return Part(nothing - torch.inf, nothing, torch.zeros_like(o))


@at_the_door(check_keys)
def attend_part(s: Tensor, v: Tensor) -> Part:
    """What queries learn of n keys from the logits ``s [..., N_q, n]`` and values ``[..., n, d]``.

    A logit of −∞ is a key that may not be seen.
    """
    m = s.amax(-1, keepdim=True)
    p = (s - above_minus_infinity(m)).exp_()
    return Part(m, p.sum(-1, keepdim=True), p @ v)


@at_the_door(check_pair)
def merge(a: Part, b: Part) -> Part:
    """Two partial results in one: the keys of both, seen by the same queries.

    Associative and commutative, with ``empty_part`` as neutral element: so the keys may come one
    by one, in tiles, from several blocks of a GPU (split-K) or from several machines (ring
    attention), in any order.

    Reference:
        Milakov & Gimelshein 2018, https://arxiv.org/abs/1805.02867, section 3.1, for m and l.

    """
    m = torch.maximum(a.m, b.m)
    base = above_minus_infinity(m)
    of_a, of_b = torch.exp(a.m - base), torch.exp(b.m - base)
    return Part(m, of_a * a.l + of_b * b.l, of_a * a.o + of_b * b.o)


def finish(part: Part) -> tuple[Tensor, Tensor]:
    """The output ``[..., d]`` and the log-sum-exp of the logits ``[...]`` of all keys seen.

    A query that has seen nothing gets 0 and −∞.
    """
    check_part("part", part)
    output = part.o / part.l.masked_fill(part.l == 0, 1)
    return output, (part.m + torch.log(part.l)).squeeze(-1)
