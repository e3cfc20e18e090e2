"""What attention moves between a large, slow memory and a small, fast one: counted, and a formula.

Everything is counted in numbers (elements of an array), not in bytes.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.attention.door import check_attention, usual_scale
from course_lib.attention.parts import Part, attend_part, empty_part, finish, merge
from course_lib.checks import at_the_door, check_int, check_one_of, check_tensor

__all__ = ["FastMemory", "Traffic", "count_traffic", "counted_attention", "tile_sizes"]


class Traffic(NamedTuple):
    """Numbers that were read from the slow memory, and numbers that were written to it."""

    loads: int
    stores: int

    @property
    def total(self) -> int:
        """Numbers that were moved, either way."""
        return self.loads + self.stores


def check_numbers(memory: "FastMemory", x: Tensor) -> None:
    """Require numbers to hold."""
    check_tensor("x", x, None)


def check_place(memory: "FastMemory", where: Tensor, x: Tensor) -> None:
    """Require a place in the slow memory, and numbers that fit into it."""
    check_tensor("where", where, None)
    check_tensor("x", x, where.shape)


class FastMemory:
    """A memory with room for ``sram`` numbers that counts what is moved in and out.

    Args:
        sram: Numbers that it can hold; ``math.inf`` for a memory that is never full.

    Example:
        >>> memory = FastMemory(sram=10)
        >>> x = torch.zeros(2, 4)
        >>> with memory.scope():  # what comes in is held until the scope ends
        ...     memory.store(x, memory.load(x) + 1)
        >>> memory.traffic, memory.held, memory.peak
        (Traffic(loads=8, stores=8), 0, 8)

    """

    def __init__(self, sram: float):
        if sram != math.inf:
            check_int("sram", sram, minimum=1)
        self.sram, self.held, self.peak = sram, 0, 0
        self.loads = self.stores = 0

    @property
    def traffic(self) -> Traffic:
        """All that was moved so far."""
        return Traffic(self.loads, self.stores)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Whatever is loaded or held inside leaves the memory at the end."""
        before = self.held
        yield
        self.held = before

    @at_the_door(check_numbers)
    def hold(self, x: Tensor) -> Tensor:
        """Room for numbers that are made in the memory; refused where there is none."""
        if self.held + x.numel() > self.sram:
            raise ValueError(
                f"sram must have room for {self.held + x.numel()} numbers, got {self.sram}"
            )
        self.held += x.numel()
        self.peak = max(self.peak, self.held)
        return x

    @at_the_door(check_numbers)
    def load(self, x: Tensor) -> Tensor:
        """A copy of ``x`` in the memory."""
        self.loads += x.numel()
        return self.hold(x.clone())

    @at_the_door(check_place)
    def store(self, where: Tensor, x: Tensor) -> None:
        """Write ``x`` to its place in the slow memory."""
        self.stores += x.numel()
        where.copy_(x)


def tile_sizes(d: int, sram: int, *, algorithm: str) -> tuple[int, int]:
    """Rows B_r and columns B_c of the tiles that a fast memory of ``sram`` numbers has room for.

    Four blocks of q, k, v and o, a tile of logits and four numbers a row: with B the larger of the
    two and the other at most d, that is at most B (4 d + d + 4). The paper's B_c = ⌈M / 4d⌉ counts
    the four blocks alone, and would overfill the memory by a quarter.

    What stays in the fast memory while the other is passed by gets the larger blocks: the keys in
    "flash", where they are the outer loop, the queries in "flash2".

    Reference:
        Dao et al. 2022, https://arxiv.org/abs/2205.14135, algorithm 1, line 1.

    """
    check_int("d", d, minimum=1)
    check_one_of("algorithm", algorithm, ("flash", "flash2"))
    check_int("sram", sram, minimum=5 * d + 4)
    larger = sram // (5 * d + 4)
    smaller = min(larger, d)
    return (smaller, larger) if algorithm == "flash" else (larger, smaller)


def count_traffic(n: int, d: int, sram: int, *, algorithm: str) -> Traffic:
    """Numbers that attention of ``n`` queries to ``n`` keys moves, by a formula.

    "naive" are three steps, S = q kᵀ, P = softmax S, o = P v, each of which reads its operands and
    writes its result once: as little as three steps can do, even with a fast memory that is never
    full. "flash" passes all queries by each block of keys, and takes each row's o, m and l in and
    out every time; "flash2" passes all keys by each block of queries, whose o is written once.

    Reference:
        Dao et al. 2022, https://arxiv.org/abs/2205.14135, theorem 2: Θ(N d + N²) for the first,
        Θ(N² d² / M) for tiles.

    Args:
        n: Number N of queries, and of keys.
        d: Head size.
        sram: Numbers M that the fast memory holds.
        algorithm: "naive", "flash" (keys in the outer loop) or "flash2" (queries in the outer).

    """
    check_int("n", n, minimum=1)
    check_one_of("algorithm", algorithm, ("naive", "flash", "flash2"))
    rows, columns = tile_sizes(d, sram, algorithm="flash" if algorithm == "naive" else algorithm)
    if algorithm == "naive":
        return Traffic(loads=3 * n * d + 2 * n * n, stores=2 * n * n + n * d)
    if algorithm == "flash":
        passes = math.ceil(n / columns)
        # k and v once; in each pass q, o, m and l in, and o, m and l out, which start in there.
        return Traffic(2 * n * d + passes * n * (2 * d + 2), (1 + passes) * n * (d + 2))
    passes = math.ceil(n / rows)
    return Traffic(loads=n * d + passes * 2 * n * d, stores=n * d + n)  # o and L are written once


def counted_attention(
    q: Tensor, k: Tensor, v: Tensor, sram: int, *, algorithm: str
) -> tuple[Tensor, Traffic]:
    """Attention of one head on a memory that counts: ``count_traffic``, by doing it.

    Args:
        q: Queries ``[N, d]``.
        k: Keys ``[N, d]``.
        v: Values ``[N, d]``.
        sram: Numbers that the fast memory holds.
        algorithm: "naive", "flash" or "flash2", as in ``count_traffic``.

    Returns:
        The output ``[N, d]``, and what was moved.

    """
    check_tensor("q", q, (None, None))
    check_tensor("k", k, q.shape)
    check_attention(q, k, v)
    check_one_of("algorithm", algorithm, ("naive", "flash", "flash2"))
    check_int("sram", sram, minimum=5 * q.shape[1] + 4)
    if algorithm == "naive":
        memory = FastMemory(math.inf)
        return counted_naive(q, k, v, memory), memory.traffic
    memory = FastMemory(sram)
    tiled = counted_flash if algorithm == "flash" else counted_flash2
    sizes = tile_sizes(q.shape[1], sram, algorithm=algorithm)
    return tiled(q, k, v, memory, *sizes), memory.traffic


def counted_naive(q: Tensor, k: Tensor, v: Tensor, memory: FastMemory) -> Tensor:
    """Three steps; each reads its operands from the slow memory and writes its result to it."""
    s, p, o = q.new_empty(len(q), len(k)), q.new_empty(len(q), len(k)), torch.empty_like(q)
    with memory.scope():
        memory.store(s, usual_scale(None, q.shape[1]) * memory.load(q) @ memory.load(k).T)
    with memory.scope():
        memory.store(p, torch.softmax(memory.load(s), 1))
    with memory.scope():
        memory.store(o, memory.load(p) @ memory.load(v))
    return o


def counted_flash(
    q: Tensor, k: Tensor, v: Tensor, memory: FastMemory, height: int, width: int
) -> Tensor:
    """The first FlashAttention: keys in the outer loop; o is kept divided by l.

    Reference:
        Dao et al. 2022, https://arxiv.org/abs/2205.14135, algorithm 1.

    """
    scale = usual_scale(None, q.shape[1])
    m, l, o = (torch.empty_like(x) for x in empty_part(q))  # noqa: E741
    for x, start in zip((m, l, o), empty_part(q), strict=True):
        memory.store(x, start)
    for columns in blocks(len(k), width):
        with memory.scope():
            k_j, v_j = memory.load(k[columns]), memory.load(v[columns])
            for rows in blocks(len(q), height):
                with memory.scope():
                    q_i, m_i, l_i, o_i = (memory.load(x[rows]) for x in (q, m, l, o))
                    s = memory.hold(scale * q_i @ k_j.T)
                    more = attend_part(s, v_j)  # p takes the place of s; p v is added to o
                    part = merge(Part(m_i, l_i, l_i * o_i), more)
                    memory.hold(part.m), memory.hold(part.l)  # the old ones are still needed
                    memory.store(m[rows], part.m)
                    memory.store(l[rows], part.l)
                    memory.store(o[rows], finish(part)[0])
    return o


def counted_flash2(
    q: Tensor, k: Tensor, v: Tensor, memory: FastMemory, height: int, width: int
) -> Tensor:
    """FlashAttention-2: queries in the outer loop; o leaves when it is done, divided once.

    Reference:
        Dao 2023, https://arxiv.org/abs/2307.08691, algorithm 1.

    """
    scale = usual_scale(None, q.shape[1])
    o, lse = torch.empty_like(q), q.new_empty(len(q))
    for rows in blocks(len(q), height):
        with memory.scope():
            q_i = memory.load(q[rows])
            part = Part(*(memory.hold(x) for x in empty_part(q_i)))
            for columns in blocks(len(k), width):
                with memory.scope():
                    k_j, v_j = memory.load(k[columns]), memory.load(v[columns])
                    s = memory.hold(scale * q_i @ k_j.T)
                    memory.hold(part.m), memory.hold(part.l)  # the new ones, beside the old
                    part = merge(part, attend_part(s, v_j))
            output, lse_i = finish(part)
            memory.store(o[rows], output)
            memory.store(lse[rows], lse_i)
    return o


def blocks(n: int, size: int) -> list[slice]:
    """The numbers 0 ... n − 1 in blocks of one size; the last one may be smaller."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
