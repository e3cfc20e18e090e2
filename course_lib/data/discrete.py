"""Between grey levels and real numbers: dequantize and its inverse; binarize.

An image stores each pixel as one of ``levels`` whole numbers k = 0 … levels − 1; the loaders hand
it out as k / (levels − 1), from 0 (black) to 1 (white).
"""

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_generator, check_int

__all__ = ["binarize", "dequantize", "quantize"]


def dequantize(x: Tensor, levels: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Spread each grey level evenly over its own interval: k / (levels − 1) → (k + u) / levels.

    A density model of raw grey levels could grow without bound: it would put spikes on the
    ``levels`` possible values. After dequantization the best it can do is bounded by the entropy
    of the discrete image (see ``course_lib.metrics.bits_per_dim``).

    Reference:
        Uria, Murray and Larochelle 2013, "RNADE" (arXiv:1306.0186); why it gives a bound: Theis,
        van den Oord and Bethge 2016, section 3.1 (arXiv:1511.01844).

    Args:
        x: Grey values k / (levels − 1) with k = 0 … levels − 1; float32 or float64, any shape.
        levels: Number of grey levels, 2 to 256 (the 8×8 digits: 17; MNIST: 256).
        generator: Source of u, on the device of ``x``; None takes PyTorch's global generator.

    Returns:
        Values in [0, 1) with the shape and dtype of ``x``; ``quantize`` gives ``x`` back.

    Example:
        >>> x = torch.tensor([0.0, 0.5, 1.0])  # k = 0, 1, 2
        >>> (dequantize(x, 3) * 3).floor()
        tensor([0., 1., 2.])

    """
    k = grey_levels(x, levels)
    u = uniform_like(x, generator)
    return (k + u) / levels


def grey_levels(x: Tensor, levels: int) -> Tensor:
    """The whole numbers k of grey values k / (levels − 1), as floating-point numbers."""
    check_floats("x", x, None)
    check_int("levels", levels, minimum=2, maximum=256)
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
    return k


def uniform_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws u ~ U[0, 1) in the shape of ``x``, from the middles of 2^15 slots.

    That is as fine as float32 allows: next to k = 255, a finer u would at times be rounded up to
    the next grey level.
    """
    check_generator(generator, x.device)
    slots = 2**15
    slot = torch.randint(slots, x.shape, generator=generator, device=x.device)
    return (slot.to(x.dtype) + 0.5) / slots


def quantize(x: Tensor, levels: int) -> Tensor:
    """Round down to the grey level whose interval holds x: the inverse of ``dequantize``.

    Args:
        x: Values in [0, 1], floating point, any shape; 1 itself counts to the last level. Samples
            of a model can lie outside: clamp them first, so that it is visible that they did.
        levels: Number of grey levels, 2 to 256.

    Returns:
        k / (levels − 1) with k = ⌊x · levels⌋, shape and dtype of ``x``.

    Example:
        >>> quantize(torch.tensor([0.0, 0.32, 0.34, 1.2]).clamp(0, 1), 3)
        tensor([0.0000, 0.0000, 0.5000, 1.0000])

    """
    check_floats("x", x, None)
    check_int("levels", levels, minimum=2, maximum=256)
    check_within_unit("x", x)
    # In float64 no product is rounded up to the next level; the CPU always has it.
    k = (x.cpu().double() * levels).floor().clamp(max=levels - 1)
    return k.to(x) / (levels - 1)


def binarize(
    x: Tensor, *, threshold: float | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Turn grey values into black and white: a draw per pixel, or a threshold.

    Reference:
        Salakhutdinov and Murray 2008, "On the quantitative analysis of deep belief networks".

    Args:
        x: Grey values in [0, 1], floating point, any shape.
        threshold: None draws each pixel as Bernoulli(x), fresh noise with every call; a number t
            with 0 ≤ t < 1 sets pixels above t to 1 and all others to 0.
        generator: Source of the draw, on the device of ``x``; None takes PyTorch's global
            generator. A threshold draws nothing and takes no generator.

    Returns:
        Zeros and ones with the shape and dtype of ``x``.

    Example:
        >>> binarize(torch.tensor([0.0, 0.4, 0.6, 1.0]), threshold=0.5)
        tensor([0., 0., 1., 1.])

    """
    check_floats("x", x, None)
    check_within_unit("x", x)
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


def check_within_unit(name: str, x: Tensor) -> None:
    """Require numbers from 0 to 1."""
    outside = (x < 0) | (x > 1)
    if outside.any():
        raise ValueError(f"{name} must lie in [0, 1], got {x[outside][0].item()}")
