"""Argument checks shared by the whole course.

Each check raises a ``ValueError`` that names the argument, what was expected and what came, before
any work is done.
"""

import functools
import math
import sys
from collections.abc import Callable, Collection, Sequence

import torch

__all__ = [
    "at_the_door",
    "check_bool",
    "check_classes",
    "check_difference",
    "check_floats",
    "check_generator",
    "check_int",
    "check_ints",
    "check_level_floats",
    "check_levels",
    "check_number",
    "check_one_of",
    "check_permutation",
    "check_shape",
    "check_share",
    "check_tensor",
    "check_tokens",
]

FUNCTORCH = torch._C._functorch


def check_floats(
    name: str,
    x: torch.Tensor,
    shape: Sequence[int | None] | None,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Require a finite floating-point tensor of the given shape, of one dtype where given.

    It stands at the door, once in a public call: to ask whether all numbers are finite takes a sum
    over them. What a layer gets inside a model is checked by ``check_tensor``.
    """
    check_tensor(name, x, shape, dtype=dtype)
    _check_finite(name, x)


def check_difference(difference: torch.Tensor, **parts: torch.Tensor) -> None:
    """Require finite ``parts``, two tensors of which the ``difference`` is needed anyhow.

    Where it is finite, so are both: one look is enough. Only where it is not, as that of huge
    numbers may be, too, each of them is looked at.
    """
    if stands_for_many(difference) or not _all_finite(difference):
        for name, x in parts.items():
            _check_finite(name, x)


def check_tensor(
    name: str,
    x: torch.Tensor,
    shape: Sequence[int | None] | None,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Require a floating-point tensor of the given shape, of one dtype where given.

    ``None`` in ``shape`` stands for any size of at least one: ``(None, 2)`` means "points, one or
    more". ``shape=None`` takes any tensor that is not empty. No number is looked at.
    """
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"{name} must be a tensor of {_in_words(shape)}, got {type(x).__name__}")
    if not x.is_floating_point():
        raise ValueError(f"{name} must be a floating-point tensor, got {x.dtype}")
    if x.dtype.itemsize < 2:  # which can be stored, but hardly computed with
        raise ValueError(f"{name} must have 16 bits a number or more, got {x.dtype}")
    if not _fits(x.shape, shape):
        raise ValueError(f"{name} must have {_in_words(shape)}, got {list(x.shape)}")
    if dtype is not None and x.dtype != dtype:
        raise ValueError(f"{name} must be {dtype} like the model, got {x.dtype}")
    if x.layout != torch.strided or x.is_meta:
        raise ValueError(f"{name} must be an ordinary dense tensor, got one that holds no numbers")


def _in_words(shape: Sequence[int | None] | None) -> str:
    if shape is None:
        return "any shape but an empty one"
    sizes = ["any" if size is None else str(size) for size in shape]
    if sizes and shape[0] is None:
        sizes[0] = "B"  # the batch
    return f"shape [{', '.join(sizes)}]"


def stands_for_many(x: torch.Tensor) -> bool:
    """Whether ``x`` is inside torch.func.vmap, perhaps below a jacrev or grad.

    It stands for many tensors then: no single yes or no can be read off it.
    """
    while FUNCTORCH.is_functorch_wrapped_tensor(x):
        if FUNCTORCH.is_batchedtensor(x):
            return True
        x = FUNCTORCH.get_unwrapped(x)
    return False


def _check_finite(name: str, x: torch.Tensor) -> None:
    if not stands_for_many(x) and not _all_finite(x):
        raise ValueError(f"{name} must be finite, got NaN or infinite values")


def _all_finite(x: torch.Tensor) -> bool:
    # One NaN or infinity makes the sum NaN or infinite. The quick look at the sum settles nearly
    # every case; only where finite numbers overflow in it are they looked at one by one.
    x = x.detach() if x.requires_grad else x
    return math.isfinite(x.sum()) or bool(torch.isfinite(x).all())


def _fits(shape: torch.Size, wanted: Sequence[int | None] | None) -> bool:
    if wanted is None:
        return shape.numel() > 0
    if shape == wanted:
        return True
    if len(shape) != len(wanted):
        return False
    for size, wish in zip(shape, wanted, strict=True):  # a loop: it is asked at every layer
        if size < 1 if wish is None else size != wish:
            return False
    return True


def check_int(name: str, value: int, *, minimum: int, maximum: int | None = None) -> None:
    """Require a whole number from ``minimum`` to ``maximum`` (a bool is not a number)."""
    wanted = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"{name} must be an integer {wanted}, got {value!r}")


def check_ints(name: str, values: Sequence[int], *, minimum: int) -> None:
    """Require a sequence of whole numbers, each at least ``minimum``."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise ValueError(f"{name} must be a sequence of integers, got {values!r}")
    for i, value in enumerate(values):
        check_int(f"{name}[{i}]", value, minimum=minimum)


def check_permutation(name: str, values: Sequence[int], n: int) -> None:
    """Require the numbers 0 ... n - 1, each once, in any order."""
    check_ints(name, values, minimum=0)
    if sorted(values) != list(range(n)):
        raise ValueError(f"{name} must hold each of 0 ... {n - 1} once, got {list(values)}")


def check_shape(
    name: str,
    shape: Sequence[int | None],
    *,
    lengths: Sequence[int] = (1, 3),
    any_size: bool = True,
) -> None:
    """Require the shape of a point ``(dim,)`` or of an image ``(C, H, W)``, or of one of the two.

    With ``any_size`` a size may be None: it stands for any.
    """
    sizes = shape if isinstance(shape, tuple | list) else ()
    fair = all(
        (size is None and any_size)
        or (isinstance(size, int) and not isinstance(size, bool) and size >= 1)
        for size in sizes
    )
    if len(sizes) not in lengths or not fair:
        wanted = " or ".join({1: "(dim,)", 3: "(C, H, W)"}[length] for length in lengths)
        raise ValueError(f"{name} must be {wanted}, each at least 1, got {shape!r}")


def check_bool(name: str, value: bool) -> None:
    """Require True or False itself, not a number that could stand for it."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def check_number(
    name: str,
    value: float,
    *,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> None:
    """Require a finite real number above ``above``, of at least ``minimum``, at most ``maximum``.

    Each of the three where it is given.
    """
    bounds = (("above", above), ("of at least", minimum), ("of at most", maximum))
    wanted = " and ".join(f"{words} {bound}" for words, bound in bounds if bound is not None)
    real = isinstance(value, int | float) and not isinstance(value, bool)
    real = (
        real and -sys.float_info.max <= value <= sys.float_info.max
    )  # math.isfinite(10**400) fails
    inside = (
        real
        and (above is None or value > above)
        and (minimum is None or value >= minimum)
        and (maximum is None or value <= maximum)
    )
    if not inside:
        raise ValueError(f"{name} must be a finite number {wanted}".rstrip() + f", got {value!r}")


def check_share(name: str, value: float) -> None:
    """Require a real number from 0 to 1."""
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")


def check_one_of(name: str, value: str, allowed: Collection[str]) -> None:
    """Require one of a few names."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(sorted(allowed))}, got {value!r}")


def check_generator(
    generator: torch.Generator | None, device: torch.device | str | None = None
) -> None:
    """Require a ``torch.Generator`` or None: seeds are never given as bare integers.

    With ``device``, the generator must draw its numbers on that kind of device.
    """
    if generator is None:
        return
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator or None, got {generator!r}")
    if device is not None and generator.device.type != (wanted := torch.device(device).type):
        raise ValueError(f"generator must be on device {wanted}, got {generator.device.type}")


def check_levels(name: str, x: torch.Tensor, levels: int) -> None:
    """Require whole numbers from 0 to ``levels`` − 1, in a tensor of any dtype and shape."""
    allowed = _nearest_level(x, levels)
    if not torch.equal(x, allowed):
        wanted = "zeros and ones" if levels == 2 else f"whole numbers from 0 to {levels - 1}"
        raise ValueError(f"{name} must hold {wanted}, got {x[x != allowed][0].item()}")


def check_level_floats(
    name: str,
    x: torch.Tensor,
    shape: Sequence[int | None],
    levels: int,
    *,
    dtype: torch.dtype,
) -> None:
    """Require what ``check_floats`` and ``check_levels`` do: at the door of a discrete model.

    Whole numbers in a range are finite, so that one look at the numbers is enough.
    """
    check_tensor(name, x, shape, dtype=dtype)
    if not torch.equal(x, _nearest_level(x, levels)):
        check_floats(name, x, shape)
        check_levels(name, x, levels)


def _nearest_level(x: torch.Tensor, levels: int) -> torch.Tensor:
    return (x.detach() if x.requires_grad else x).clamp(0, levels - 1).round_()


def check_classes(name: str, y: torch.Tensor | None, n: int, n_classes: int | None) -> None:
    """Require int64 labels ``[n]`` of existing classes, or None where there are no classes."""
    if n_classes is None:
        if y is not None:
            raise ValueError(f"{name} must be None for a model without classes, got {y!r}")
        return
    wanted = f"an int64 tensor [{n}] of classes from 0 to {n_classes - 1}"
    if not isinstance(y, torch.Tensor):
        raise ValueError(f"{name} must be {wanted}, got {y!r}")
    if y.dtype != torch.int64 or y.shape != (n,):
        raise ValueError(f"{name} must be {wanted}, got {y.dtype} {list(y.shape)}")
    if (stray := (y < 0) | (y >= n_classes)).any():
        raise ValueError(f"{name} must be {wanted}, got {y[stray][0].item()}")


def check_tokens(name: str, y: torch.Tensor, n: int | None, length: int) -> None:
    """Require int64 tokens ``[n, length]`` of prompts; with ``n`` None of any number of them."""
    fair = isinstance(y, torch.Tensor) and y.dtype == torch.int64 and y.ndim == 2
    if not fair or y.shape[1] != length or len(y) != (len(y) if n is None else n):
        wanted = f"int64 tokens [{'B' if n is None else n}, {length}]"
        what = f"{y.dtype} {list(y.shape)}" if isinstance(y, torch.Tensor) else repr(y)
        raise ValueError(f"{name} must be {wanted}, got {what}")


def at_the_door(check: Callable[..., None]) -> Callable[[Callable], Callable]:
    """Let ``check`` look at a function's arguments at each call, so that its body is the formula.

    ``function.inside`` is the function alone, for callers that have looked at them already.

    Example:
        >>> @at_the_door(lambda n: check_int("n", n, minimum=0))
        ... def double(n):
        ...     return 2 * n
        >>> double(2), double.inside(-2)
        (4, -4)

    """

    def with_door(function: Callable) -> Callable:
        @functools.wraps(function)
        def checked(*args, **options):
            check(*args, **options)
            return function(*args, **options)

        checked.inside = function
        return checked

    return with_door
