"""``Cost``: what training a model on N processes takes of each one's memory, and how fast it is."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import traitlets
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_number, check_one_of
from course_lib.widgets.base import LINE, CourseWidget, pale_frame, png
from course_lib.widgets.palette import PALETTE
from course_lib.widgets.timeline import BANDWIDTHS, LATENCIES, spans_of

__all__ = ["Cost"]

MOST_MODELS = 8
PROCESSES = (1, 1024)
BATCHES = (1e2, 1e8)
MEMORIES = (4e9, 4e11)  # bytes
STAGES = (0, 1, 2, 3)
SCALINGS = ("weak", "strong")
# Bytes of each parameter: itself and its gradient, and what the optimizer keeps for it.
PARAMETER = {"mixed": 2, "float32": 4}
KEPT = {
    "mixed": {"adam": 12, "sgd": 4},  # with mixed precision a copy in float32, too
    "float32": {"adam": 8, "sgd": 0},
}
STAGE_3 = 1.5  # times the bytes of stage 0 are sent


class Parts(NamedTuple):
    """Bytes in one process."""

    parameters: float
    gradients: float
    optimizer: float


class Cost(CourseWidget):
    """Memory of each process at all stages of ZeRO, and the speed-up over one process.

    A model of Ψ parameters takes 2 Ψ + 2 Ψ + 12 Ψ bytes in mixed precision with Adam: parameters,
    gradients, and what the optimizer keeps (a copy, two moments). Stage 0, plain data parallelism,
    holds all of it in every process; stages 1, 2 and 3 share out the optimizer's state, the
    gradients, too, and the parameters, too. Activations come on top.

    The time of a step is counted by rule: 2 Ψ floating-point operations a token forward and 4 Ψ
    backward, at ``flops`` a second; the gradients of ``layers`` equal layers travel as in
    ``Timeline``, in buckets and during the backward pass. Stage 3 sends half as much again, for the
    parameters. The speed-up is N times the time of a process alone over the time together. With
    weak scaling every process works on ``batch`` tokens, with strong scaling all of them together.

    Args:
        models: Names and numbers of parameters, at most 8.
        model: The name of the one that is shown; by default the first.
        processes: N, 1 to 1,024.
        batch: Tokens in a step, of each process or of all, 100 to 1e8.
        scaling: ``"weak"`` or ``"strong"``.
        stage: of ZeRO, 0 to 3.
        precision: ``"mixed"`` (16 bits, and a copy in float32 that is updated) or ``"float32"``.
        optimizer: ``"adam"`` or ``"sgd"`` (without momentum).
        memory: Of a card, in bytes, 4e9 to 4e11.
        flops: Operations a second that a card really does.
        bandwidth: Of each link, in bytes a second, 1e7 to 1e12.
        latency: Of each message, in seconds, 1e-7 to 0.01.
        layers: 1 to 96.
        bucket_bytes: When a bucket is full.
        title: shown above.
        alt: what one sees, in a sentence, for readers who do not see it.

    ``widget.model``, ``processes``, ``batch``, ``scaling``, ``stage``, ``precision``, ``memory``
    and ``bandwidth`` can be read and set. ``widget.bytes_at(stage)`` is what a process holds,
    ``widget.fits`` whether it fits at the stage shown, ``widget.speedup_of(n)`` the speed-up of n
    processes.

    Reference:
        Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054, sections 3 and 7; 6 Ψ operations
        a token: Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, section 2.1.

    Example:
        >>> cost = Cost({"7.5B": 7_500_000_000}, processes=64)
        >>> [round(sum(cost.bytes_at(stage)) / 1e9, 1) for stage in range(4)]
        [120.0, 31.4, 16.6, 1.9]
    """

    module = "cost.js"

    # What is dragged must not be pulled back by an older echo from the kernel.
    processes = traitlets.Int(8).tag(sync=True, echo_update=False)
    batch = traitlets.Float(16384.0).tag(sync=True, echo_update=False)
    memory = traitlets.Float(8e10).tag(sync=True, echo_update=False)
    bandwidth = traitlets.Float(2.5e10).tag(sync=True, echo_update=False)
    model = traitlets.Unicode().tag(sync=True)
    scaling = traitlets.Unicode("weak").tag(sync=True)
    precision = traitlets.Unicode("mixed").tag(sync=True)
    stage = traitlets.Int(0).tag(sync=True)
    # What does not change.
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    counted = traitlets.List(traitlets.Int()).tag(sync=True)  # parameters of each model
    optimizer = traitlets.Unicode("adam").tag(sync=True)
    flops = traitlets.Float(1.5e14).tag(sync=True)
    latency = traitlets.Float(1e-5).tag(sync=True)
    layers = traitlets.Int(24).tag(sync=True)
    bucket_bytes = traitlets.Int(25_000_000).tag(sync=True)
    per_parameter = traitlets.Dict(default_value=PARAMETER, read_only=True).tag(sync=True)
    kept = traitlets.Dict(default_value=KEPT, read_only=True).tag(sync=True)
    precisions = traitlets.List(default_value=list(PARAMETER), read_only=True).tag(sync=True)
    stage_3 = traitlets.Float(STAGE_3, read_only=True).tag(sync=True)
    counts = traitlets.List(traitlets.Int(), list(PROCESSES), read_only=True).tag(sync=True)
    batches = traitlets.List(traitlets.Float(), list(BATCHES), read_only=True).tag(sync=True)
    memories = traitlets.List(traitlets.Float(), list(MEMORIES), read_only=True).tag(sync=True)
    bandwidths = traitlets.List(traitlets.Float(), list(BANDWIDTHS), read_only=True).tag(sync=True)

    def __init__(
        self,
        models: Mapping[str, int],
        *,
        model: str | None = None,
        processes: int = 8,
        batch: float = 16384,
        scaling: str = "weak",
        stage: int = 0,
        precision: str = "mixed",
        optimizer: str = "adam",
        memory: float = 80e9,
        flops: float = 1.5e14,
        bandwidth: float = 2.5e10,
        latency: float = 1e-5,
        layers: int = 24,
        bucket_bytes: int = 25_000_000,
        title: str = "",
        alt: str = "",
    ) -> None:
        named = isinstance(models, Mapping) and all(isinstance(name, str) for name in models)
        if not named or not 1 <= len(models) <= MOST_MODELS:
            raise ValueError(
                f"models must be 1 to {MOST_MODELS} names and numbers of parameters, got {models!r}"
            )
        for name, count in models.items():
            check_int(f"models[{name!r}]", count, minimum=1000)
        check_one_of("optimizer", optimizer, KEPT["mixed"])
        check_number("flops", flops, above=0)
        _check_range("latency", latency, LATENCIES)
        check_int("layers", layers, minimum=1, maximum=96)
        check_int("bucket_bytes", bucket_bytes, minimum=1)
        super().__init__(
            {},
            hint="",
            title=title,
            alt=alt
            or "Bars of what a process holds in memory at the four stages of ZeRO, with a line for "
            "the memory of a card; beside them the speed-up over the number of processes.",
            names=list(models),
            counted=[int(count) for count in models.values()],
            optimizer=optimizer,
            flops=float(flops),
            latency=float(latency),
            layers=layers,
            bucket_bytes=bucket_bytes,
        )
        self.model = self.names[0] if model is None else model
        self.processes, self.batch, self.scaling, self.stage = processes, batch, scaling, stage
        self.precision, self.memory, self.bandwidth = precision, memory, bandwidth

    # ---------------------------------------------------------------------------------------- state

    @traitlets.validate("model", "scaling", "precision")
    def _one_of(self, proposal: dict) -> str:
        name = proposal["trait"].name
        allowed = {"model": self.names, "scaling": SCALINGS, "precision": PARAMETER}[name]
        check_one_of(name, proposal["value"], allowed)
        return proposal["value"]

    @traitlets.validate("processes", "stage")
    def _whole_number(self, proposal: dict) -> int:
        name = proposal["trait"].name
        low, high = PROCESSES if name == "processes" else (STAGES[0], STAGES[-1])
        check_int(name, proposal["value"], minimum=low, maximum=high)
        return proposal["value"]

    @traitlets.validate("batch", "memory", "bandwidth")
    def _in_range(self, proposal: dict) -> float:
        name = proposal["trait"].name
        limits = {"batch": BATCHES, "memory": MEMORIES, "bandwidth": BANDWIDTHS}[name]
        _check_range(name, proposal["value"], limits)
        return proposal["value"]

    # ---------------------------------------------------------------------------------- mathematics

    @property
    def parameters(self) -> int:
        """Ψ of the model that is shown."""
        return self.counted[self.names.index(self.model)]

    def bytes_at(self, stage: int, processes: int | None = None) -> Parts:
        """What each of so many processes, by default ``self.processes``, holds at a stage."""
        check_int("stage", stage, minimum=STAGES[0], maximum=STAGES[-1])
        n = self.processes if processes is None else processes
        each, kept = PARAMETER[self.precision], KEPT[self.precision][self.optimizer]
        return Parts(
            parameters=each * self.parameters / (n if stage >= 3 else 1),
            gradients=each * self.parameters / (n if stage >= 2 else 1),
            optimizer=kept * self.parameters / (n if stage >= 1 else 1),
        )

    @property
    def fits(self) -> bool:
        """Whether it fits into a card's memory; activations come on top."""
        return sum(self.bytes_at(self.stage)) <= self.memory

    def work_of(self, processes: int) -> dict:
        """Sizes and times as ``course_lib.parallel.speedup`` takes them, and the network."""
        tokens = self.batch if self.scaling == "weak" else self.batch / processes
        seconds = 2 * self.parameters * tokens / self.flops
        sent = PARAMETER[self.precision] * (STAGE_3 if self.stage == 3 else 1)
        return {
            "sizes": [int(sent * self.parameters / self.layers + 0.5)] * self.layers,
            "backward": [2 * seconds / self.layers] * self.layers,
            "forward": seconds,
            "processes": processes,
            "bandwidth": self.bandwidth,
            "latency": self.latency,
            "bucket_bytes": self.bucket_bytes,
        }

    def speedup_of(self, processes: int) -> float:
        """How many times as fast so many processes are as one."""
        check_int("processes", processes, minimum=PROCESSES[0], maximum=PROCESSES[1])
        work = self.work_of(processes)
        forward = work.pop("forward")
        end = max(span[-1] for span in spans_of(**work))
        return processes * (forward + sum(work["backward"])) / (forward + end)

    # ---------------------------------------------------------------------------------------- shown

    def still(self) -> bytes:
        """Memory at all stages, and the speed-up."""
        figure = Figure(figsize=(7.2, 2.8))
        memory, speed = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.18, top=0.86, wspace=0.28)
        held = np.array([self.bytes_at(stage) for stage in STAGES]) / 1e9
        floor = np.zeros(len(STAGES))
        for part, role in zip(Parts._fields, ("data", "model", "latent"), strict=True):
            height = held[:, Parts._fields.index(part)]
            memory.bar(STAGES, height, bottom=floor, color=PALETTE[role], width=0.6, label=part)
            floor += height
        memory.axhline(self.memory / 1e9, color="black", ls="--", lw=1)
        memory.set_xticks(STAGES, [f"stage {stage}" for stage in STAGES])
        memory.set_title(f"GB in each of {self.processes} processes, {self.model}", fontsize=8)
        memory.legend(fontsize=6, frameon=False)
        counts = 2 ** np.arange(11)
        speed.plot(counts, counts, color="black", ls="--", lw=1)
        speed.plot(counts, [self.speedup_of(int(n)) for n in counts], color=PALETTE["model"])
        speed.plot([self.processes], [self.speedup_of(self.processes)], "o", color=PALETTE["model"])
        speed.set(xscale="log", yscale="log")
        speed.set_title(f"speed-up, {self.scaling} scaling", fontsize=8)
        speed.set_xlabel("processes", fontsize=8)
        for ax in (memory, speed):
            ax.tick_params(labelsize=7, length=2, color=LINE)
            pale_frame(ax)
        return png(figure)


def _check_range(name: str, value: float, limits: tuple[float, float]) -> None:
    check_number(name, value, above=0)
    if not limits[0] <= value <= limits[1]:
        raise ValueError(f"{name} must lie in [{limits[0]:g}, {limits[1]:g}], got {value:g}")
