"""Between grey levels and real numbers: dequantize and its inverse; binarize.

An image stores each pixel as one of ``levels`` whole numbers k = 0 … levels − 1; the loaders hand
it out as k / (levels − 1), from 0 (black) to 1 (white).
"""

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_generator, check_int

__all__ = ["binarize", "dequantize", "quantize"]

_SLOTS = 2**15


def dequantize(x: Tensor, levels: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Spread each grey level evenly over its own interval: k / (levels − 1) → (k + u) / levels.

    A density model of raw grey levels could grow without bound: it would put spikes on the
    ``levels`` possible values. After dequantization the best it can do is bounded by the entropy
    of the discrete image (see ``course_lib.metrics.bits_per_dim``).

    u is drawn from the middles of 2^15 slots of [0, 1), which is as fine as float32 allows: next
    to k = 255, a finer u would at times be rounded up to the next grey level.

    Args:
        x: grey values k / (levels − 1) with k = 0 … levels − 1; float32 or float64, any shape.
        levels: number of grey levels, 2 to 256 (the 8×8 digits: 17; MNIST: 256).
        generator: source of u, on the device of ``x``; None takes PyTorch's global generator.

    Returns:
        values in [0, 1) with the shape and dtype of ``x``; ``quantize`` gives ``x`` back.

    Raises:
        ValueError: ``x`` is empty, not finite, not float32 or float64, or holds a value that is no
            grey level; ``levels`` is not an integer from 2 to 256; a wrong generator.

    Source:
        Uria, Murray and Larochelle 2013, "RNADE" (arXiv:1306.0186); why it gives a bound: Theis,
        van den Oord and Bethge 2016, section 3.1 (arXiv:1511.01844).

    Example:
        >>> x = torch.tensor([0.0, 0.5, 1.0])  # k = 0, 1, 2
        >>> (dequantize(x, 3) * 3).floor()
        tensor([0., 1., 2.])
    """
    check_floats("x", x, None)
    check_int("levels", levels, minimum=2, maximum=256)
    check_generator(generator, x.device)
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x must be float32 or float64, got {x.dtype}")
    k = (x * (levels - 1)).round()
    stray = (x * (levels - 1) - k).abs() > 1e-3
    stray |= (k < 0) | (k > levels - 1)
    if stray.any():
        raise ValueError(
            f"x must hold grey values k / {levels - 1} with k = 0 … {levels - 1}, "
            f"got {x[stray][0].item()}"
        )
    slot = torch.randint(_SLOTS, x.shape, generator=generator, device=x.device)
    u = (slot.to(x.dtype) + 0.5) / _SLOTS
    return (k + u) / levels


def quantize(x: Tensor, levels: int) -> Tensor:
    """Round down to the grey level whose interval holds x: the inverse of ``dequantize``.

    Args:
        x: values in [0, 1), floating point, any shape. Samples of a model can lie outside: clamp
            them first, so that it is visible that they did.
        levels: number of grey levels, 2 to 256.

    Returns:
        k / (levels − 1) with k = ⌊x · levels⌋, shape and dtype of ``x``.

    Raises:
        ValueError: ``x`` is empty, not finite or not in [0, 1); ``levels`` is not an integer from
            2 to 256.

    Example:
        >>> quantize(torch.tensor([0.0, 0.32, 0.34, 0.99]), 3)
        tensor([0.0000, 0.0000, 0.5000, 1.0000])
    """
    check_floats("x", x, None)
    check_int("levels", levels, minimum=2, maximum=256)
    _check_between("x", x, "[0, 1)", (x < 0) | (x >= 1))
    k = (x.double() * levels).floor()  # in float64 no product is rounded up to the next level
    return k.to(x.dtype) / (levels - 1)


def binarize(
    x: Tensor, *, threshold: float | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Turn grey values into black and white: a draw per pixel, or a threshold.

    Args:
        x: grey values in [0, 1], floating point, any shape.
        threshold: None draws each pixel as Bernoulli(x), fresh noise with every call; a number t
            with 0 ≤ t < 1 sets pixels above t to 1 and all others to 0.
        generator: source of the draw, on the device of ``x``; None takes PyTorch's global
            generator. A threshold draws nothing and takes no generator.

    Returns:
        zeros and ones with the shape and dtype of ``x``.

    Raises:
        ValueError: ``x`` is empty, not finite or not in [0, 1]; a ``threshold`` that is not a
            number in [0, 1); a wrong generator, or one beside a threshold.

    Source:
        Salakhutdinov and Murray 2008, "On the quantitative analysis of deep belief networks".

    Example:
        >>> binarize(torch.tensor([0.0, 0.4, 0.6, 1.0]), threshold=0.5)
        tensor([0., 0., 1., 1.])
    """
    check_floats("x", x, None)
    _check_between("x", x, "[0, 1]", (x < 0) | (x > 1))
    check_generator(generator, x.device)
    if threshold is None:
        return torch.bernoulli(x, generator=generator)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise ValueError(f"threshold must be a number in [0, 1) or None, got {threshold!r}")
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must be a number in [0, 1) or None, got {threshold!r}")
    if generator is not None:
        raise ValueError("generator must be None beside a threshold: nothing is drawn")
    return (x > threshold).to(x.dtype)


def _check_between(name: str, x: Tensor, interval: str, outside: Tensor) -> None:
    if outside.any():
        raise ValueError(f"{name} must lie in {interval}, got {x[outside][0].item()}")
