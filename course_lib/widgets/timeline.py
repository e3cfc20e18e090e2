"""``Timeline``: backward pass and all-reduce beside each other, bucket by bucket."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_bool, check_int, check_number
from course_lib.widgets.base import LINE, CourseWidget, pale_frame, png, to_array
from course_lib.widgets.palette import PALETTE

__all__ = ["Timeline"]

Array = np.ndarray | torch.Tensor | Sequence[float]

MOST_LAYERS = 96
PROCESSES = (1, 1024)
BANDWIDTHS = (1e7, 1e12)  # bytes a second
LATENCIES = (1e-7, 1e-2)  # seconds


class Timeline(CourseWidget):
    """One backward pass of N processes: when gradients are computed, and when they travel.

    The gradients of the layers are computed one after the other, the last layer's first. They are
    put into buckets in that order; a bucket is full as soon as it holds ``bucket_bytes`` or more.
    It travels once its last gradient is there and the bucket before it has arrived, for

        2 (N − 1) / N · bytes / bandwidth + 2 (N − 1) · latency

    seconds (ring all-reduce). Without overlap, all buckets wait for the end of the backward pass.
    Beside it stands when the step ends for every size of the buckets. The end of the step can be
    dragged, which changes the bandwidth, and so can the size of the buckets on its curve.

    Args:
        sizes: ``[L]``, bytes of the gradients of each layer, in the order of the model; at most 96.
        backward: ``[L]``, seconds that the gradients of each take.
        processes: N, 1 to 1,024.
        bandwidth: Of each link, in bytes a second, 1e7 to 1e12.
        latency: Of each message, in seconds, 1e-7 to 0.01.
        bucket_bytes: When a bucket is full.
        overlap: Whether buckets travel while the backward pass still computes.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    ``widget.processes``, ``bandwidth``, ``latency``, ``bucket_bytes`` and ``overlap`` can be read
    and set. ``widget.buckets`` are the layers of each bucket, ``widget.spans`` what is drawn,
    ``widget.end`` the end of the step and ``widget.hidden`` the share of the communication that
    takes place during the backward pass.

    Reference:
        Li et al. 2020, https://arxiv.org/abs/2006.15704, sections 3.2 and 4.

    Example:
        >>> step = Timeline([4e6] * 4, [0.01] * 4, processes=2, bucket_bytes=8_000_000)
        >>> step.buckets, round(step.end, 3)
        ([[3, 2], [1, 0]], 0.048)
    """

    module = "timeline.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    processes = traitlets.Int(4).tag(sync=True, echo_update=False)
    bandwidth = traitlets.Float(1e9).tag(sync=True, echo_update=False)
    latency = traitlets.Float(2e-5).tag(sync=True, echo_update=False)
    bucket_bytes = traitlets.Int(1).tag(sync=True, echo_update=False)
    overlap = traitlets.Bool(True).tag(sync=True)
    # What does not change.
    sizes = traitlets.List(traitlets.Int()).tag(sync=True)
    backward = traitlets.List(traitlets.Float()).tag(sync=True)
    bucket_range = traitlets.List(traitlets.Int()).tag(sync=True)
    counts = traitlets.List(traitlets.Int(), list(PROCESSES), read_only=True).tag(sync=True)
    bandwidths = traitlets.List(traitlets.Float(), list(BANDWIDTHS), read_only=True).tag(sync=True)
    latencies = traitlets.List(traitlets.Float(), list(LATENCIES), read_only=True).tag(sync=True)

    def __init__(
        self,
        sizes: Array,
        backward: Array,
        *,
        processes: int = 4,
        bandwidth: float = 1e9,
        latency: float = 2e-5,
        bucket_bytes: int = 25_000_000,
        overlap: bool = True,
        title: str = "",
        alt: str = "",
    ) -> None:
        layers = _numbers("sizes", sizes)
        if layers.min() < 1 or (layers != layers.round()).any():
            raise ValueError(f"sizes must be whole numbers of bytes from 1, got {layers.tolist()}")
        seconds = _numbers("backward", backward)
        if len(seconds) != len(layers) or seconds.min() <= 0:
            raise ValueError(
                f"backward must be {len(layers)} positive numbers, one a layer, "
                f"got {seconds.tolist()}"
            )
        check_int("bucket_bytes", bucket_bytes, minimum=1)
        check_bool("overlap", overlap)
        least = max(1, int(min(layers.min(), bucket_bytes) // 2))
        super().__init__(
            {},
            hint="",
            title=title,
            alt=alt
            or "Two lanes in time, the backward pass layer by layer and the all-reduce bucket by "
            "bucket; beside them, when the step ends for every size of the buckets.",
            sizes=layers.astype(int).tolist(),
            backward=seconds.tolist(),
            bucket_range=[least, max(int(layers.sum()), bucket_bytes, 2 * least)],
        )
        self.processes, self.bandwidth, self.latency = processes, bandwidth, latency
        self.bucket_bytes, self.overlap = bucket_bytes, overlap

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("processes")
    def _processes_fair(self, proposal: dict) -> int:
        check_int("processes", proposal["value"], minimum=PROCESSES[0], maximum=PROCESSES[1])
        return proposal["value"]

    @traitlets.validate("bucket_bytes")
    def _bucket_fair(self, proposal: dict) -> int:
        least, most = self.bucket_range
        check_int("bucket_bytes", proposal["value"], minimum=least, maximum=most)
        return proposal["value"]

    @traitlets.validate("bandwidth", "latency")
    def _network_fair(self, proposal: dict) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        low, high = {"bandwidth": BANDWIDTHS, "latency": LATENCIES}[name]
        check_number(name, value, above=0)
        if not low <= value <= high:
            raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value:g}")
        return value

    # ---------------------------------------------------------------------------------- mathematics

    @property
    def buckets(self) -> list[list[int]]:
        """The layers of each bucket, in the order in which their gradients come."""
        return buckets_of(self.sizes, self.bucket_bytes)

    @property
    def spans(self) -> list[tuple[str, int, float, float]]:
        """(kind, index, start, end) in seconds: the layers' ``"backward"``, then each bucket's
        ``"all-reduce"``, in the order of time.
        """
        names = ("processes", "bandwidth", "latency", "bucket_bytes", "overlap")
        network = {name: getattr(self, name) for name in names}
        return spans_of(self.sizes, self.backward, **network)

    @property
    def end(self) -> float:
        """When the step ends, in seconds."""
        return max(end for *_, end in self.spans)

    @property
    def hidden(self) -> float:
        """The share of the communication that takes place during the backward pass, 0 to 1; with
        nothing to send 1.
        """
        done = [end for kind, _, _, end in self.spans if kind == "backward"][-1]
        travel = [(start, end) for kind, _, start, end in self.spans if kind == "all-reduce"]
        total = sum(end - start for start, end in travel)
        during = sum(min(end, done) - min(start, done) for start, end in travel)
        return during / total if total else 1.0

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """Both lanes, and the end of the step."""
        unit, name = _unit(self.end)
        figure = Figure(figsize=(7.2, 2.2))
        ax = figure.subplots()
        figure.subplots_adjust(left=0.1, right=0.98, bottom=0.2, top=0.9)
        done = math.fsum(self.backward)
        for kind, _, start, end in self.spans:
            parts = [(start, end, PALETTE["data"])]
            if kind == "all-reduce":
                parts = [
                    (start, min(end, done), PALETTE["latent"]),
                    (max(start, done), end, PALETTE["model"]),
                ]
            for left, right, colour in parts:
                if right > left:
                    look = {"color": colour, "edgecolor": "white", "lw": 0.8, "height": 0.7}
                    ax.barh(kind, (right - left) / unit, left=left / unit, **look)
        for place, style in ((done, "--"), (self.end, "-")):
            ax.axvline(place / unit, color="black", ls=style, lw=1)
        ax.invert_yaxis()
        ax.set(xlim=(0, 1.03 * self.end / unit))
        ax.set_xlabel(f"time in {name}", fontsize=8)
        ax.set_title(
            f"{self.processes} processes, {len(self.buckets)} buckets: ends at "
            f"{self.end / unit:.3g} {name}, {100 * self.hidden:.0f} % hidden",
            fontsize=8,
        )
        ax.tick_params(labelsize=7, length=2, color=LINE)
        pale_frame(ax)
        return png(figure)


def buckets_of(sizes: Sequence[int], cap: int) -> list[list[int]]:
    """The layers of each bucket: filled from the last layer on, full with ``cap`` bytes or more."""
    filled, bucket, held = [], [], 0
    for i in reversed(range(len(sizes))):
        bucket.append(i)
        held += sizes[i]
        if held >= cap:
            filled.append(bucket)
            bucket, held = [], 0
    return [*filled, bucket] if bucket else filled


def spans_of(
    sizes: Sequence[int],
    backward: Sequence[float],
    *,
    processes: int,
    bandwidth: float,
    latency: float,
    bucket_bytes: int,
    overlap: bool = True,
) -> list[tuple[str, int, float, float]]:
    """What ``Timeline`` draws: (kind, index, start, end) in seconds."""
    spans, now, ready = [], 0.0, {}
    for i in reversed(range(len(sizes))):
        spans.append(("backward", i, now, now + backward[i]))
        now = ready[i] = now + backward[i]
    free, rounds = 0.0 if overlap else now, 2 * (processes - 1)
    for k, bucket in enumerate(buckets_of(sizes, bucket_bytes)):
        start = max(free, ready[bucket[-1]])
        size = sum(sizes[i] for i in bucket)
        free = start + rounds / processes * size / bandwidth + rounds * latency
        spans.append(("all-reduce", k, start, free))
    return spans


def _unit(seconds: float) -> tuple[float, str]:
    """The unit in which a time is written, and its name."""
    if seconds >= 1:
        return 1.0, "s"
    return (1e-3, "ms") if seconds >= 1e-3 else (1e-6, "µs")


def _numbers(name: str, values: Array) -> np.ndarray:
    array = to_array(name, values, "[L]", 1)
    if len(array) > MOST_LAYERS:
        raise ValueError(f"{name} must be at most {MOST_LAYERS} numbers, got {len(array)}")
    return np.asarray(
        values.detach().cpu() if isinstance(values, torch.Tensor) else values, dtype=np.float64
    )
