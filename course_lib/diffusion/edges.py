"""Contours of images: a small Canny detector, each of its steps a formula."""

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.checks import check_floats, check_number

__all__ = ["blur", "edges", "gradients", "hysteresis", "thin"]

SIGMA = 0.7  # pixels: strokes of three pixels keep both of their sides
TIE = 1e-5  # slopes that differ by less are equal: rounding shall not decide


def edges(images: Tensor, *, low: float = 0.05, high: float = 0.15) -> Tensor:
    """The contours in images: 1.0 where the brightness has a ridge of its slope, and 0.0 elsewhere.

    The brightness is the largest of the channels, so that digits of all colours have contours.

    Reference:
        Canny 1986, "A computational approach to edge detection",
        https://doi.org/10.1109/TPAMI.1986.4767851.

    Args:
        images: ``[B, C, H, W]`` in [0, 1].
        low: Slopes below are no contours; in units of brightness a pixel.
        high: Slopes of at least this are, at least ``low``; those between are where they are tied
            to one that is.

    Returns:
        ``[B, 1, H, W]``, of the dtype of ``images``.

    Example:
        >>> image = torch.zeros(1, 3, 6, 6)
        >>> image[:, 0, :, 3:] = 1.0  # the right half is red
        >>> edges(image)[0, 0, 0]
        tensor([0., 0., 0., 1., 0., 0.])

    """
    check_floats("images", images, (None, None, None, None))
    if images.min() < 0 or images.max() > 1:
        raise ValueError(f"images must be in [0, 1], got {images.min():.3g} to {images.max():.3g}")
    check_number("low", low, above=0)
    check_number("high", high, minimum=low)
    brightness = images.amax(dim=1, keepdim=True)
    g_x, g_y = gradients(blur(brightness))
    return hysteresis(thin(g_x, g_y), low, high)


def blur(x: Tensor, sigma: float = SIGMA) -> Tensor:
    """Images ``[B, 1, H, W]``, averaged with the weights of a Gaussian of ``sigma`` pixels."""
    far = int(3 * sigma) + 1
    k = torch.arange(-far, far + 1, dtype=x.dtype, device=x.device)
    weights = torch.exp(-(k**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    x = F.pad(x, (far, far, far, far), mode="replicate")
    return F.conv2d(F.conv2d(x, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))


def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's slopes of images ``[B, 1, H, W]``, to the right and down, a pixel.

    A difference of neighbours on both sides, averaged across with the weights 1, 2, 1.
    """
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    difference = torch.tensor([-1.0, 0.0, 1.0], dtype=x.dtype, device=x.device) / 2
    average = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype, device=x.device) / 4
    kernel = torch.outer(average, difference)
    return F.conv2d(x, kernel[None, None]), F.conv2d(x, kernel.T[None, None])


def thin(g_x: Tensor, g_y: Tensor) -> Tensor:
    """The steepness ``[B, 1, H, W]`` on its ridges, and 0 beside them.

    On a ridge a pixel is steeper than what lies a pixel further uphill, and at least as steep as
    what lies a pixel downhill: of two that are equal, the brighter one is kept.
    """
    steepness = torch.hypot(g_x, g_y)
    uphill = torch.cat([g_x, g_y], dim=1) / steepness.clamp(min=TIE)
    ahead, behind = seen_from(steepness, uphill), seen_from(steepness, -uphill)
    return steepness * ((steepness > ahead + TIE) & (steepness > behind - TIE))


def seen_from(x: Tensor, step: Tensor) -> Tensor:
    """``x [B, 1, H, W]`` at each pixel's place plus ``step [B, 2, H, W]``, right and down.

    Between pixels it is interpolated; outside the image it is as at the rim.
    """
    height, width = x.shape[2:]
    size = torch.tensor([width, height], dtype=x.dtype, device=x.device)
    rows = torch.arange(height, dtype=x.dtype, device=x.device)
    columns = torch.arange(width, dtype=x.dtype, device=x.device)
    place = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=2)  # [H, W, 2]
    place = place + step.permute(0, 2, 3, 1)
    grid = (2 * place + 1) / size - 1  # from −1 at the left or upper rim to 1
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def hysteresis(slope: Tensor, low: float, high: float) -> Tensor:
    """1.0 where ``slope [B, 1, H, W]`` is at least ``high``, or ``low`` and tied to such a pixel.

    From the pixels that are sure the contour grows to those of their eight neighbours that may be
    a contour, until nothing changes.
    """
    maybe, sure = slope >= low, slope >= high
    while True:
        grown = maybe & F.max_pool2d(sure.to(slope.dtype), 3, stride=1, padding=1).bool()
        if torch.equal(grown, sure):
            return sure.to(slope.dtype)
        sure = grown
