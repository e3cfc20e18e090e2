"""When gradients are computed and when they travel: the time of a step, by a small model of it."""

from collections.abc import Sequence
from typing import NamedTuple

from course_lib.checks import at_the_door, check_bool, check_int, check_ints, check_number
from course_lib.parallel.data_parallel import buckets
from course_lib.parallel.ring import ring_bytes

__all__ = ["Span", "ring_time", "speedup", "timeline"]


class Span(NamedTuple):
    """Something that goes on from ``start`` to ``end``, in seconds.

    ``kind`` is ``"backward"``, of the parameter ``index``, or ``"all-reduce"``, of that bucket.
    """

    kind: str
    index: int
    start: float
    end: float


def _check_network(size: float, *, processes: int, bandwidth: float, latency: float) -> None:
    check_number("size", size, minimum=0)
    check_int("processes", processes, minimum=1)
    check_number("bandwidth", bandwidth, above=0)
    check_number("latency", latency, minimum=0)


@at_the_door(_check_network)
def ring_time(size: float, *, processes: int, bandwidth: float, latency: float) -> float:
    """Seconds that a ring all-reduce of ``size`` bytes takes: 2 (N − 1) messages one after another.

    Args:
        size: Of the tensor in each process, in bytes.
        processes: N.
        bandwidth: Of each link, in bytes a second.
        latency: Of each message, in seconds.

    Example:
        >>> ring_time(1e9, processes=4, bandwidth=1e9, latency=0.01)
        1.56

    """
    return ring_bytes(size, processes) / bandwidth + 2 * (processes - 1) * latency


def timeline(
    sizes: Sequence[int],
    backward: Sequence[float],
    *,
    processes: int,
    bandwidth: float,
    latency: float,
    bucket_bytes: int,
    overlap: bool = True,
) -> list[Span]:
    """One backward pass: what is computed when, and when each bucket travels.

    Gradients are computed one after the other, the last parameter's first. A bucket starts when
    its last gradient is there and the network is free.

    Args:
        sizes: Of the parameters in bytes, in the order of the model.
        backward: Seconds that the gradient of each takes, in the same order.
        processes: As for ``ring_time``, and so are ``bandwidth`` and ``latency``.
        bandwidth: In bytes a second.
        latency: In seconds.
        bucket_bytes: As the ``cap`` of ``buckets``.
        overlap: Whether buckets may travel while the backward pass still computes.

    Returns:
        All spans of the backward pass, then those of the buckets, each in the order of time.

    """
    _check_network(0, processes=processes, bandwidth=bandwidth, latency=latency)
    check_ints("sizes", sizes, minimum=0)
    if not isinstance(backward, Sequence):
        raise ValueError(f"backward must be a sequence of numbers, got {backward!r}")
    if len(sizes) == 0 or len(backward) != len(sizes):
        raise ValueError(
            f"backward must have as many entries as sizes, at least one, got {len(backward)} and "
            f"{len(sizes)}"
        )
    for i, seconds in enumerate(backward):
        check_number(f"backward[{i}]", seconds, minimum=0)
    check_bool("overlap", overlap)

    spans, now, ready = [], 0.0, {}
    for i in reversed(range(len(sizes))):
        spans.append(Span("backward", i, now, now + backward[i]))
        now = ready[i] = spans[-1].end
    free = 0.0 if overlap else now
    for k, bucket in enumerate(buckets(sizes, bucket_bytes)):
        start = max(free, ready[bucket[-1]])
        size = sum(sizes[i] for i in bucket)
        free = start + ring_time(size, processes=processes, bandwidth=bandwidth, latency=latency)
        spans.append(Span("all-reduce", k, start, free))
    return spans


def speedup(
    sizes: Sequence[int],
    backward: Sequence[float],
    *,
    processes: int,
    bandwidth: float,
    latency: float,
    bucket_bytes: int,
    overlap: bool = True,
    forward: float = 0.0,
) -> float:
    """How many times as many examples a second as one process, which has nobody to wait for.

    Every process works on a batch of the same size, which takes ``forward`` and ``backward``. For
    a batch that is shared among them give the times of a share; the result is then that beside one
    process that works on shares.

    Args:
        sizes: As for ``timeline``, and so are all but the last.
        backward: In seconds.
        processes: N, the most that it can be.
        bandwidth: In bytes a second.
        latency: In seconds.
        bucket_bytes: As the ``cap`` of ``buckets``.
        overlap: Whether buckets may travel while the backward pass still computes.
        forward: Seconds of the forward pass and of the optimiser.

    """
    check_number("forward", forward, minimum=0)
    spans = timeline(
        sizes,
        backward,
        processes=processes,
        bandwidth=bandwidth,
        latency=latency,
        bucket_bytes=bucket_bytes,
        overlap=overlap,
    )
    alone = forward + sum(backward)
    if alone == 0:
        raise ValueError("backward must take some time, got 0 s with the forward pass")
    together = forward + max(span.end for span in spans)
    return processes * alone / together
