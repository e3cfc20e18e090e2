"""How well one contour follows another."""

from torch import Tensor
from torch.nn import functional as F

from course_lib.checks import check_floats, check_int, check_levels

__all__ = ["contour_agreement"]


def contour_agreement(found: Tensor, wanted: Tensor, *, within: int = 1) -> Tensor:
    """The F-score of a contour: 1 where it follows the wanted one, 0 where they never come near.

    The harmonic mean of precision (the share of the found pixels that have a wanted one near) and
    recall (the share of the wanted pixels that have a found one near). A contour without pixels
    agrees with none.

    Reference:
        Martin, Fowlkes, Malik 2004, "Learning to detect natural image boundaries using local
        brightness, color, and texture cues", https://doi.org/10.1109/TPAMI.2004.1273918,
        section 3.1; here each pixel may be near to several.

    Args:
        found: Zeros and ones ``[B, 1, H, W]``, as of ``edges``.
        wanted: The same of the contours to follow.
        within: How many pixels away is near, along rows, columns and diagonals.

    Returns:
        ``[B]``.

    Example:
        >>> import torch
        >>> line = torch.zeros(1, 1, 5, 5)
        >>> line[..., 1] = 1.0
        >>> contour_agreement(line.roll(1, 3), line), contour_agreement(line.roll(2, 3), line)
        (tensor([1.]), tensor([0.]))

    """
    check_floats("found", found, (None, 1, None, None))
    check_floats("wanted", wanted, found.shape, dtype=found.dtype)
    check_levels("found", found, 2)
    check_levels("wanted", wanted, 2)
    check_int("within", within, minimum=0)

    def share(these: Tensor, those: Tensor) -> Tensor:
        near = F.max_pool2d(those, 2 * within + 1, stride=1, padding=within)
        return (these * near).sum((1, 2, 3)) / these.sum((1, 2, 3)).clamp(min=1)

    precision, recall = share(found, wanted), share(wanted, found)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-6)
