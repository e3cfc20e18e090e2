"""The tiles of the matrix that is never stored, and what may be seen in one of them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from course_lib.attention.door import check_block
from course_lib.checks import at_the_door, check_bool, check_int

__all__ = ["seen", "tiles"]


def check_tiles(n_q: int, n_k: int, block: int | tuple[int, int], causal: bool = False) -> None:
    """Require sizes of at least 1."""
    check_int("n_q", n_q, minimum=1)
    check_int("n_k", n_k, minimum=1)
    check_block(block)
    check_bool("causal", causal)


@at_the_door(check_tiles)
def tiles(
    n_q: int, n_k: int, block: int | tuple[int, int], causal: bool = False
) -> Iterator[tuple[slice, slice, bool]]:
    """The tiles of an ``n_q`` × ``n_k`` matrix, row by row, without those that nobody may see.

    Args:
        n_q: Number of queries (rows).
        n_k: Number of keys (columns).
        block: Rows and columns of a tile, a number for both or a pair; the last ones are smaller
            where that does not divide the sizes.
        causal: Whether query i sees key j only where j ≤ i + n_k − n_q.

    Yields:
        The rows, the columns, and whether all of the tile may be seen: if not, it needs a mask.

    """
    height, width = block if isinstance(block, tuple) else (block, block)
    for top in range(0, n_q, height):
        rows = slice(top, min(top + height, n_q))
        for left in range(0, n_k, width):
            columns = slice(left, min(left + width, n_k))
            # The last key that the first and the last of these queries may see.
            first, last = rows.start + n_k - n_q, rows.stop - 1 + n_k - n_q
            if not causal or columns.start <= last:
                yield rows, columns, not causal or columns.stop - 1 <= first


def seen(
    rows: slice,
    columns: slice,
    n_q: int,
    n_k: int,
    causal: bool,
    mask: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor | None:
    """True where a query of ``rows`` may see a key of ``columns``; None where it may see all."""
    may = None
    if causal:
        i = torch.arange(rows.start, rows.stop, device=device)[:, None]
        j = torch.arange(columns.start, columns.stop, device=device)
        may = j <= i + n_k - n_q
    if mask is not None:
        part = mask[..., rows if mask.shape[-2] > 1 else slice(None), :]
        part = part[..., columns if mask.shape[-1] > 1 else slice(None)]
        may = part if may is None else may & part
    return may
