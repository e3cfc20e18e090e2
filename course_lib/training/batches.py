"""What a training step makes of a batch of digits or of MNIST: ``transform`` of ``fit``.

One function for each data set; its argument names the form in which a model takes images.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import check_one_of
from course_lib.data import binarize, dequantize, jitter, to_signed

__all__ = ["DIGIT_LEVELS", "MNIST_LEVELS", "digits_batch", "mnist_batch"]

Batch = Callable[[Tensor, torch.Generator], Tensor]
DIGIT_LEVELS, MNIST_LEVELS = 17, 256


def _whole(x: Tensor) -> Tensor:
    return (x * (DIGIT_LEVELS - 1)).round()  # what was moved has grey values in between


DIGITS: dict[str, Batch] = {
    "grey": lambda x, generator: x,
    "binary": lambda x, generator: binarize(x, threshold=0.5),
    "levels": lambda x, generator: _whole(x),
    "dequantized": lambda x, generator: dequantize(
        _whole(x) / (DIGIT_LEVELS - 1), DIGIT_LEVELS, generator=generator
    ),
    "signed": lambda x, generator: to_signed(x),
    "signed dequantized": lambda x, generator: to_signed(DIGITS["dequantized"](x, generator)),
}
MNIST: dict[str, Batch] = {
    "binary": lambda x, generator: binarize(x, generator=generator),
    "dequantized": lambda x, generator: dequantize(x, MNIST_LEVELS, generator=generator),
    "signed": lambda x, generator: to_signed(x),
    "signed dequantized": lambda x, generator: to_signed(MNIST["dequantized"](x, generator)),
}


def digits_batch(form: str) -> Batch:
    """A transform of 8×8 digits: seven in ten are turned, moved and resized a little.

    There are 1,438 training images only: without the jitter a model learns them by heart.

    Args:
        form: ``"grey"``, numbers in [0, 1]; ``"binary"``, cut at half of the grey scale;
            ``"levels"``, whole numbers 0 ... 16; ``"dequantized"``, numbers in [0, 1) with fresh
            noise; ``"signed"``, numbers in [−1, 1]; ``"signed dequantized"``, the
            same of dequantized ones.

    Returns:
        A function of a batch ``[B, 64]`` or ``[B, 1, 8, 8]`` and a generator; the shape stays.

    """
    check_one_of("form", form, DIGITS)

    def batch(x: Tensor, generator: torch.Generator) -> Tensor:
        moved = jitter(x.reshape(-1, 1, 8, 8), share=0.7, generator=generator)
        return DIGITS[form](moved, generator).reshape(x.shape)

    batch.__qualname__ = f"digits_batch({form!r})"  # by which a resumed run knows it
    return batch


def mnist_batch(form: str) -> Batch:
    """A transform of MNIST, which has images enough and is not moved.

    Args:
        form: ``"binary"``, a fresh draw from the grey values, as in the papers; the others as in
            ``digits_batch``.

    Returns:
        A function of a batch ``[B, ...]`` and a generator; the shape stays.

    """
    check_one_of("form", form, MNIST)

    def batch(x: Tensor, generator: torch.Generator) -> Tensor:
        return MNIST[form](x, generator)

    batch.__qualname__ = f"mnist_batch({form!r})"
    return batch
