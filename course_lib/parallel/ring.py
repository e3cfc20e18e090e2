"""Ring all-reduce: everybody gets the sum, and nobody sends much more than anybody else.

N processes stand in a ring, and each has cut its tensor into N chunks. In every step each process
sends one chunk to the next. While the chunks travel once round they collect the sum
(reduce-scatter); then the finished sums travel round (all-gather): 2 (N − 1) steps of 1 / N each.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from course_lib.checks import at_the_door, check_int, check_number

__all__ = ["Message", "ring_all_reduce", "ring_all_reduce_gloo", "ring_bytes", "ring_steps"]


class Message(NamedTuple):
    """One chunk on its way. ``step`` counts from 1; ``size`` is in bytes."""

    step: int
    phase: str  # "reduce-scatter" or "all-gather"
    source: int
    target: int
    chunk: int
    size: int


def _check_tensors(tensors: Sequence[Tensor]) -> None:
    if not isinstance(tensors, list | tuple) or not tensors:
        raise ValueError(f"tensors must be a list of one tensor or more, got {tensors!r}")
    for i, t in enumerate(tensors):
        _check_summable(f"tensors[{i}]", t)
        if t.shape != tensors[0].shape or t.dtype != tensors[0].dtype:
            wanted = f"{tensors[0].dtype} {list(tensors[0].shape)} like tensors[0]"
            raise ValueError(f"tensors[{i}] must be {wanted}, got {t.dtype} {list(t.shape)}")
        if t.device != tensors[0].device:
            wanted = f"on {tensors[0].device} like tensors[0]"
            raise ValueError(f"tensors[{i}] must be {wanted}, got {t.device}")


def _check_summable(name: str, t: Tensor) -> None:
    if not isinstance(t, Tensor) or t.dtype == torch.bool:
        what = t.dtype if isinstance(t, Tensor) else type(t).__name__
        raise ValueError(f"{name} must be a tensor of numbers, got {what}")
    if t.is_floating_point() and t.dtype.itemsize < 2:  # can be stored, but not added
        raise ValueError(f"{name} must have 16 bits a number or more, got {t.dtype}")
    if t.layout != torch.strided or t.is_quantized:
        what = t.dtype if t.is_quantized else t.layout
        raise ValueError(f"{name} must be dense, got {what}")


@at_the_door(_check_tensors)
def ring_steps(
    tensors: Sequence[Tensor],
) -> Iterator[tuple[list[list[Tensor]], list[Message]]]:
    """Ring all-reduce step by step, simulated.

    In step k process r sends chunk (r − k + 1) mod N to process r + 1. Up to step N − 1 the
    receiver adds it to its own, from step N on it takes it over. So chunk c is summed in the order
    of processes c, c + 1, ..., c − 1, and everybody gets the same bits.

    Args:
        tensors: One for each process, all of one shape and dtype.

    Yields:
        ``(chunks, messages)``: ``chunks[process][chunk]`` after the step, and what was sent in it.
        The start comes first, without messages; then 2 (N − 1) steps.

    """
    n = len(tensors)
    chunks = [list(t.flatten().tensor_split(n)) for t in tensors]
    yield chunks, []
    for step in range(1, 2 * n - 1):
        phase = "reduce-scatter" if step < n else "all-gather"
        chunks = [list(own) for own in chunks]
        messages = []
        for source in range(n):
            target, c = (source + 1) % n, (source - step + 1) % n
            sent = chunks[source][c]
            chunks[target][c] = chunks[target][c] + sent if step < n else sent
            messages.append(Message(step, phase, source, target, c, sent.nbytes))
        yield chunks, messages


@at_the_door(_check_tensors)
def ring_all_reduce(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Message]]:
    """The sum of all tensors for every process, by ``ring_steps``.

    Reference:
        Patarasuk & Yuan 2009, https://doi.org/10.1016/j.jpdc.2008.09.002, section 4.

    Args:
        tensors: One for each process, all of one shape and dtype.

    Returns:
        ``(results, messages)``: a tensor for each process, the same bits everywhere, and all
        messages in the order of steps.

    Example:
        >>> results, messages = ring_all_reduce([torch.ones(4), torch.arange(4.0)])
        >>> results[0].tolist(), [(m.source, m.chunk, m.size) for m in messages]
        ([1.0, 2.0, 3.0, 4.0], [(0, 0, 8), (1, 1, 8), (0, 1, 8), (1, 0, 8)])

    """
    steps = list(ring_steps.inside(tensors))
    last, _ = steps[-1]
    results = [torch.cat(chunks).view(tensors[0].shape) for chunks in last]
    return results, [message for _, messages in steps for message in messages]


def _check_size(size: float, processes: int) -> None:
    check_number("size", size, minimum=0)
    check_int("processes", processes, minimum=1)


@at_the_door(_check_size)
def ring_bytes(size: float, processes: int) -> float:
    """What each process sends to sum tensors of ``size`` bytes: 2 (N − 1) / N · size.

    Exactly so where N divides the number of entries. Process r sends every chunk but r + 1 in the
    first half and every chunk but r + 2 in the second.
    """
    return 2 * (processes - 1) / processes * size


def ring_all_reduce_gloo(tensor: Tensor) -> Tensor:
    """The sum over all processes of the current group, by messages between neighbours alone.

    The same chunks and the same order as ``ring_all_reduce``, and so the same bits. Every process
    of the group calls it, with tensors of one shape and dtype on the CPU.

    Returns:
        A new tensor, the same in every process.

    Raises:
        RuntimeError: In a process that belongs to no group.

    """
    _check_summable("tensor", tensor)
    if not dist.is_initialized():
        raise RuntimeError("ring_all_reduce_gloo needs a group of processes: see run_processes")
    rank, n = dist.get_rank(), dist.get_world_size()
    chunks = list(tensor.detach().flatten().tensor_split(n))
    for step in range(1, 2 * n - 1):
        c = (rank - step) % n  # comes from before; chunk c + 1 goes to the next
        incoming = torch.empty_like(chunks[c])
        sending = _send(chunks[(c + 1) % n], (rank + 1) % n)
        if incoming.numel() > 0:
            dist.recv(incoming, (rank - 1) % n)
        chunks[c] = chunks[c] + incoming if step < n else incoming
        if sending is not None:
            sending.wait()
    return torch.cat(chunks).view(tensor.shape)


def _send(chunk: Tensor, target: int) -> dist.Work | None:
    return dist.isend(chunk, target) if chunk.numel() > 0 else None  # nobody waits for nothing
