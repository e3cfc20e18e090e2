"""Images between the range of pictures, [0, 1], and that of diffusion models, [−1, 1]."""

from torch import Tensor

from course_lib.checks import check_floats

__all__ = ["to_signed", "to_unit"]


def to_signed(images: Tensor) -> Tensor:
    """Images from [0, 1] to [−1, 1], where noise of mean 0 leaves them in the middle."""
    check_floats("images", images, None)
    return 2 * images - 1


def to_unit(images: Tensor) -> Tensor:
    """Back from [−1, 1] to [0, 1], where pictures live; what lies outside is cut off."""
    check_floats("images", images, None)
    return ((images + 1) / 2).clamp(0, 1)
