"""Attention: as it is defined, in one pass, in tiles; and what each of them moves."""

from course_lib.attention.flash import flash_attention, flash_backward, flash_forward
from course_lib.attention.flash_numpy import flash_attention_numpy
from course_lib.attention.memory import peak_bytes
from course_lib.attention.naive import naive_attention
from course_lib.attention.online import online_attention
from course_lib.attention.parts import Part, attend_part, empty_part, finish, merge
from course_lib.attention.softmax import online_softmax, safe_softmax
from course_lib.attention.tiles import tiles
from course_lib.attention.traffic import (
    FastMemory,
    Traffic,
    count_traffic,
    counted_attention,
    tile_sizes,
)

__all__ = [
    "FastMemory",
    "Part",
    "Traffic",
    "attend_part",
    "count_traffic",
    "counted_attention",
    "empty_part",
    "finish",
    "flash_attention",
    "flash_attention_numpy",
    "flash_attention_triton",
    "flash_backward",
    "flash_forward",
    "merge",
    "naive_attention",
    "online_attention",
    "online_softmax",
    "peak_bytes",
    "safe_softmax",
    "tile_sizes",
    "tiles",
]


def __getattr__(name: str) -> object:
    """The kernels, and with them triton, are loaded by whoever asks for them."""
    if name == "flash_attention_triton":
        from course_lib.attention.triton_flash import flash_attention_triton

        return flash_attention_triton
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
