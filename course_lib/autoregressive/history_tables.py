"""How many numbers a model needs that keeps one for every history."""

from course_lib.checks import check_int

__all__ = ["table_size"]


def table_size(dim: int) -> int:
    """Free numbers of the chain rule with a full table for each of ``dim`` binary pixels.

    p(x_i = 1 | x_<i) is one number for every history x_<i, and there are 2^(i − 1) of those before
    the i-th pixel. Together: 1 + 2 + 4 + ... + 2^(n − 1) = 2^n − 1, as many as the table of the
    joint distribution has, which holds 2^n numbers that add up to 1.

    Args:
        dim: Number n of pixels, at least 1.

    Example:
        >>> [table_size(n) for n in (1, 2, 3)]
        [1, 3, 7]

    """
    check_int("dim", dim, minimum=1)
    return sum(2**before for before in range(dim))
