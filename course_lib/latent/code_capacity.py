"""How much a map of codes can say."""

import math

from course_lib.checks import check_int

__all__ = ["code_bits"]


def code_bits(height: int, width: int, n_codes: int) -> float:
    """Bits in a map of ``height`` × ``width`` whole numbers, each one of ``n_codes``.

    There are K^(h w) maps, and log2 of that is h w log2 K: the most that the map can say. It says
    less where some codes are rarer than others, or can be guessed from their neighbours.

    Example:
        >>> code_bits(2, 3, 256)
        48.0

    """
    check_int("height", height, minimum=1)
    check_int("width", width, minimum=1)
    check_int("n_codes", n_codes, minimum=1)
    return height * width * math.log2(n_codes)
