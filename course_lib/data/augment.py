"""Small random distortions of images, so that few images stand for many."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.checks import check_floats, check_generator, check_number
from course_lib.data.discrete import check_within_unit

__all__ = ["jitter"]


def jitter(
    images: Tensor,
    *,
    degrees: float = 8.0,
    shift: float = 0.5,
    scale: float = 0.08,
    contrast: float = 1.7,
    share: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Turn, move and resize each image a little, each by its own random amounts.

    Every amount is uniform between minus and plus its bound. Pixels are interpolated linearly, and
    what comes in from outside is black. Interpolation greys the edges of strokes, and a model
    trained on greyed digits draws grey ones; so the values are stretched about one half again.

    Args:
        images: ``[N, C, H, W]``, values in [0, 1].
        degrees: Largest rotation, in degrees.
        shift: Largest shift along each axis, in pixels.
        scale: Largest change of size, as a fraction.
        contrast: Factor of the distance from one half; the result is cut off at 0 and 1.
        share: How many of the images are changed, from 0 to 1, on average; the rest stays as it is.
        generator: Source of the randomness, on the CPU.

    Returns:
        Images of the same shape and dtype.

    Example:
        >>> jitter(torch.rand(3, 1, 8, 8)).shape
        torch.Size([3, 1, 8, 8])

    """
    check_floats("images", images, (None, None, None, None))
    check_number("degrees", degrees, minimum=0)
    check_number("shift", shift, minimum=0)
    check_number("scale", scale, minimum=0)
    if scale >= 1:
        raise ValueError(f"scale must be below 1, got {scale!r}")
    check_number("contrast", contrast, above=0)
    check_number("share", share, minimum=0)
    if share > 1:
        raise ValueError(f"share must be at most 1, got {share!r}")
    check_generator(generator, "cpu")
    check_within_unit("images", images)
    angle, size, right, down = 2 * torch.rand(4, len(images), generator=generator) - 1
    angle, size = angle * math.radians(degrees), 1 + scale * size
    height, width = images.shape[-2:]
    # affine_grid wants the map from the new image to the old one, in units of half an image.
    cos, sin = size * angle.cos(), size * angle.sin()
    rows = torch.stack([cos, -sin, right * 2 * shift / width, sin, cos, down * 2 * shift / height])
    grid = F.affine_grid(rows.T.reshape(-1, 2, 3), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid.to(images), align_corners=False)
    moved = ((moved - 0.5) * contrast + 0.5).clamp(0, 1)
    if share == 1:
        return moved
    stays = torch.rand(len(images), 1, 1, 1, generator=generator) < 1 - share
    return torch.where(stays.to(images.device), images, moved)
