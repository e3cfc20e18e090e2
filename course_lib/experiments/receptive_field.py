"""What a pixel of the naive PixelCNN never sees, however deep the network."""

import torch
from torch import Tensor

from course_lib.autoregressive import NaivePixelCNN
from course_lib.checks import check_int
from course_lib.experiments.dependency import dependencies

__all__ = ["blind_spot"]


def blind_spot(
    size: tuple[int, int] = (7, 7),
    pixel: tuple[int, int] = (3, 3),
    *,
    layers: int = 8,
    kernel_size: int = 3,
) -> Tensor:
    """The pixels that come before ``pixel``, and on which its prediction does not depend.

    Args:
        size: Height and width of the image.
        pixel: Row and column of the pixel to predict.
        layers: Number of masked convolutions.
        kernel_size: Of every one of them.

    Returns:
        Boolean ``[H, W]``, read off the Jacobian of a ``NaivePixelCNN``.

    Example:
        >>> blind_spot((4, 5), (3, 1)).int()
        tensor([[0, 0, 0, 0, 0],
                [0, 0, 0, 0, 1],
                [0, 0, 0, 1, 1],
                [0, 0, 0, 0, 0]], dtype=torch.int32)

    """
    height, width = size
    row, column = pixel
    check_int("height", height, minimum=1)
    check_int("width", width, minimum=1)
    check_int("row", row, minimum=0, maximum=height - 1)
    check_int("column", column, minimum=0, maximum=width - 1)
    model = NaivePixelCNN(4, layers, kernel_size=kernel_size)
    for parameter in model.parameters():  # nothing positive can cancel, and no relu closes
        torch.nn.init.constant_(parameter, 0.05)

    def prediction(x: Tensor) -> Tensor:
        return model.logits(x.reshape(-1, 1, height, width))[:, 1, row, column, None]  # (B, 1)

    seen = dependencies(prediction, torch.ones(1, height * width)).reshape(height, width)
    before = torch.arange(height * width).reshape(height, width) < row * width + column
    return before & ~seen
