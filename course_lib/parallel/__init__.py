"""Several processes that train one model, and what they say to each other."""

from course_lib.parallel.data_parallel import DataParallel, accumulate, buckets
from course_lib.parallel.memory import (
    GPT2_SIZES,
    SD3_SIZES,
    StateBytes,
    gpt2_parameters,
    measured_bytes,
    state_bytes,
)
from course_lib.parallel.processes import WorkerError, run_processes
from course_lib.parallel.ring import (
    Message,
    ring_all_reduce,
    ring_all_reduce_gloo,
    ring_bytes,
    ring_steps,
)
from course_lib.parallel.timeline import Span, ring_time, speedup, timeline

__all__ = [
    "GPT2_SIZES",
    "SD3_SIZES",
    "DataParallel",
    "Message",
    "Span",
    "StateBytes",
    "WorkerError",
    "accumulate",
    "buckets",
    "gpt2_parameters",
    "measured_bytes",
    "ring_all_reduce",
    "ring_all_reduce_gloo",
    "ring_bytes",
    "ring_steps",
    "ring_time",
    "run_processes",
    "speedup",
    "state_bytes",
    "timeline",
]
