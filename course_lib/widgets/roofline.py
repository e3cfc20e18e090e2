"""``Roofline``: how fast each step of attention can be, given a peak speed and a bandwidth."""

import math
from typing import NamedTuple

import numpy as np
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_number, check_one_of
from course_lib.widgets.base import LINE, CourseWidget, pale_frame, png
from course_lib.widgets.palette import PALETTE

__all__ = ["Roofline", "attainable_speed", "attention_costs", "least_seconds"]

# Peak in flop/s, bandwidth in bytes/s, bytes a number. Sources in the docstring of `Roofline`.
HARDWARE = {
    "A100": (312e12, 2.039e12, 2),
    "H100": (989.4e12, 3.35e12, 2),
    "CPU core": (90e9, 12e9, 4),
}
MOST = {"n": 65_536, "d": 256, "rows": 1024}
PEAKS = (1e10, 2.5e15)
BANDWIDTHS = (1e9, 2e13)
STEPS = ("S = q kᵀ", "softmax", "P v")


class Cost(NamedTuple):
    """What a computation takes: operations, and bytes to and from the slow memory."""

    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, in operations a byte."""
        return self.flops / self.bytes


def attention_costs(n: int, d: int, *, rows: int = 128, number_bytes: int = 2) -> dict[str, Cost]:
    """What each step of one head's attention takes, of ``n`` queries to ``n`` keys of size ``d``.

    Three steps read their operands and write their result once; FlashAttention-2 passes all keys
    and values by each block of ``rows`` queries, with nothing kept in a cache between two blocks. A
    multiplication and an addition are two operations, and a probability costs five (maximum,
    difference, exp, sum, quotient); the rescaling of FlashAttention, one in a few hundred, is left
    out. The bytes are those of ``course_lib.attention.count_traffic``.

    Returns:
        The costs of ``"S = q kᵀ"``, ``"softmax"``, ``"P v"``, their sum ``"three steps"``, and
        ``"FlashAttention"``.

    """
    product, probabilities = 2 * n * n * d, 5 * n * n
    moved = (n * n + 2 * n * d, 2 * n * n, n * n + 2 * n * d)
    flops = (product, probabilities, product)
    costs = [Cost(f, number_bytes * size) for f, size in zip(flops, moved, strict=True)]
    flash = 2 * n * d * math.ceil(n / rows) + 2 * n * d + n  # k and v in each pass; q, o, L once
    return {
        **dict(zip(STEPS, costs, strict=True)),
        "three steps": Cost(sum(flops), number_bytes * sum(moved)),
        "FlashAttention": Cost(sum(flops), number_bytes * flash),
    }


def attainable_speed(intensity: float, peak: float, bandwidth: float) -> float:
    """The roof, in operations a second: the peak, or what the memory can feed."""
    return min(peak, intensity * bandwidth)


def least_seconds(cost: Cost, peak: float, bandwidth: float) -> float:
    """The least time: as long as the longer of computing and moving, which overlap at best."""
    return max(cost.flops / peak, cost.bytes / bandwidth)


class Roofline(CourseWidget):
    """Operations a byte against operations a second: where the steps of attention stand.

    Left of the ridge, peak / bandwidth, a step waits for the memory, right of it for the units that
    compute. Below stands how long each step takes at least. Drag the ridge, or choose hardware.

    Args:
        n: Tokens N, at most 65,536.
        d: Head size, at most 256.
        rows: How many queries FlashAttention holds while all keys pass by, at most 1,024.
        hardware: ``"A100"``, ``"H100"`` or ``"CPU core"``, or None with the next three.
        peak: In operations a second.
        bandwidth: Of the slow memory, in bytes a second.
        number_bytes: Bytes that a number takes, 1 to 8.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    All of them can be read and set (``hardware`` is ``""`` where peak or bandwidth are not those of
    a named one). ``widget.costs`` and ``widget.seconds`` are those of each step by name.

    Hardware: A100 SXM 80 GB, 312 TFLOP/s in bf16 (dense) and 2,039 GB/s, NVIDIA's A100 data sheet
    (https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf);
    H100 SXM, 989.4 TFLOP/s in bf16 (half of the 1,979 that the data sheet gives with sparsity) and
    3.35 TB/s, NVIDIA's H100 data sheet (https://resources.nvidia.com/en-us-tensor-core); a CPU
    core: 90 GFLOP/s and 12 GB/s in float32, as PyTorch multiplied and copied large matrices on one
    core of an AMD EPYC server.

    Reference:
        Williams, Waterman & Patterson 2009, https://doi.org/10.1145/1498765.1498785.
    """

    module = "roofline.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    n = traitlets.Int(4096).tag(sync=True, echo_update=False)
    d = traitlets.Int(64).tag(sync=True, echo_update=False)
    rows = traitlets.Int(128).tag(sync=True, echo_update=False)
    peak = traitlets.Float(312e12).tag(sync=True, echo_update=False)
    bandwidth = traitlets.Float(2.039e12).tag(sync=True, echo_update=False)
    number_bytes = traitlets.Int(2).tag(sync=True)
    hardware = traitlets.Unicode("A100").tag(sync=True)
    # What does not change.
    known = traitlets.Dict(HARDWARE, read_only=True).tag(sync=True)
    machines = traitlets.List(list(HARDWARE), read_only=True).tag(sync=True)  # in this order
    steps = traitlets.List(list(STEPS), read_only=True).tag(sync=True)
    most = traitlets.Dict(MOST, read_only=True).tag(sync=True)
    peaks = traitlets.List(list(PEAKS), read_only=True).tag(sync=True)
    bandwidths = traitlets.List(list(BANDWIDTHS), read_only=True).tag(sync=True)

    def __init__(
        self,
        n: int = 4096,
        d: int = 64,
        *,
        rows: int = 128,
        hardware: str | None = "A100",
        peak: float | None = None,
        bandwidth: float | None = None,
        number_bytes: int | None = None,
        title: str = "",
        alt: str = "",
    ) -> None:
        for name, size in (("n", n), ("d", d), ("rows", rows)):
            check_int(name, size, minimum=1, maximum=MOST[name])
        given = (peak, bandwidth, number_bytes)
        if hardware is not None:
            check_one_of("hardware", hardware, HARDWARE)
        elif peak is None or bandwidth is None:
            raise ValueError("peak and bandwidth must be given where hardware is None")
        usual = (None, None, 2) if hardware is None else HARDWARE[hardware]
        chosen = [ours if own is None else own for own, ours in zip(given, usual, strict=True)]
        named = hardware if hardware is not None and tuple(chosen) == usual else ""
        super().__init__(
            {},
            hint="",
            title=title,
            alt=alt
            or "A roof over arithmetic intensity, the steps of attention below it, and bars "
            "of their times.",
            n=n,
            d=d,
            rows=rows,
            peak=chosen[0],
            bandwidth=chosen[1],
            number_bytes=chosen[2],
            hardware=named,
        )

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("n", "d", "rows")
    def _size_in_range(self, proposal: dict) -> int:
        name = proposal["trait"].name
        check_int(name, proposal["value"], minimum=1, maximum=MOST[name])
        return proposal["value"]

    @traitlets.validate("peak", "bandwidth")
    def _speed_in_range(self, proposal: dict) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        low, high = PEAKS if name == "peak" else BANDWIDTHS
        check_number(name, value, above=0)
        if not low <= value <= high:
            raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value:g}")
        return value

    @traitlets.validate("number_bytes")
    def _bytes_in_range(self, proposal: dict) -> int:
        check_int("number_bytes", proposal["value"], minimum=1, maximum=8)
        return proposal["value"]

    @traitlets.validate("hardware")
    def _hardware_known(self, proposal: dict) -> str:
        check_one_of("hardware", proposal["value"], ("", *HARDWARE))
        return proposal["value"]

    @traitlets.observe("hardware")
    def _take_its_speeds(self, change: dict) -> None:
        if self.hardware:
            with self.hold_trait_notifications():
                self.peak, self.bandwidth, self.number_bytes = HARDWARE[self.hardware]

    @traitlets.observe("peak", "bandwidth", "number_bytes")
    def _is_it_still_that(self, change: dict) -> None:
        now = (self.peak, self.bandwidth, self.number_bytes)
        if self.hardware and now != HARDWARE[self.hardware]:
            self.hardware = ""

    # ---------------------------------------------------------------------------------- mathematics

    @property
    def costs(self) -> dict[str, Cost]:
        """What each step takes, by name."""
        return attention_costs(self.n, self.d, rows=self.rows, number_bytes=self.number_bytes)

    @property
    def seconds(self) -> dict[str, float]:
        """How long each step takes at least; the three one after the other."""
        times = {
            name: least_seconds(cost, self.peak, self.bandwidth)
            for name, cost in self.costs.items()
        }
        return times | {"three steps": sum(times[name] for name in STEPS)}

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """The roof with what stands below it, and the times."""
        figure = Figure(figsize=(7.2, 3.2))
        left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
        figure.subplots_adjust(left=0.09, right=0.97, bottom=0.15, top=0.95, wspace=0.5)
        intensities = np.geomspace(0.25, 2048, 100)
        unit, name = (1e12, "T") if self.peak >= 2e12 else (1e9, "G")
        roof = [attainable_speed(x, self.peak, self.bandwidth) / unit for x in intensities]
        left.plot(intensities, roof, color="black", lw=2)
        costs, seconds = self.costs, self.seconds
        colours = [PALETTE[role] for role in ("data", "data", "data", "error", "latent")]
        for mark, colour, step in zip("os^Dv", colours, costs, strict=True):
            speed = costs[step].flops / seconds[step] / unit
            left.plot(costs[step].intensity, speed, mark, color=colour, label=step, ms=6)
        left.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel=f"{name}FLOP/s")
        left.legend(fontsize=7)
        right.barh(list(costs), [1e3 * seconds[step] for step in costs], color=colours)
        right.invert_yaxis()
        right.set(xlabel="ms at least")
        for ax in (left, right):
            ax.xaxis.label.set_fontsize(8)
            ax.yaxis.label.set_fontsize(8)
            ax.tick_params(labelsize=7, length=2, color=LINE)
            pale_frame(ax)
        return png(figure)
