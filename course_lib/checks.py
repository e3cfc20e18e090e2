"""Argument checks shared by the whole course.

Each check raises a ``ValueError`` that names the argument, what was expected and what came, before
any work is done.
"""

from collections.abc import Collection, Sequence

import torch

__all__ = [
    "check_bool",
    "check_floats",
    "check_generator",
    "check_int",
    "check_ints",
    "check_number",
    "check_one_of",
    "check_permutation",
]


def check_floats(
    name: str, x: torch.Tensor, shape: Sequence[int | None], *, dtype: torch.dtype | None = None
) -> None:
    """Require a finite floating-point tensor of the given shape, of one dtype where given.

    ``None`` in ``shape`` stands for any size of at least one: ``(None, 2)`` means points.
    """
    wanted = "[" + ", ".join("B" if size is None else str(size) for size in shape) + "]"
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"{name} must be a tensor of shape {wanted}, got {type(x).__name__}")
    if not x.is_floating_point():
        raise ValueError(f"{name} must be a floating-point tensor, got {x.dtype}")
    fits = x.ndim == len(shape) and all(
        size == (wish if wish is not None else max(size, 1))
        for size, wish in zip(x.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} must have shape {wanted}, got {list(x.shape)}")
    if dtype is not None and x.dtype != dtype:
        raise ValueError(f"{name} must be {dtype} like the model, got {x.dtype}")
    # Inside torch.func.vmap a tensor stands for many, so that no single yes or no can be read off.
    if not torch._C._functorch.is_batchedtensor(x) and not torch.isfinite(x).all():
        raise ValueError(f"{name} must be finite, got NaN or infinite values")


def check_int(name: str, value: int, *, minimum: int) -> None:
    """Require a whole number that is at least ``minimum`` (a bool is not a number)."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")


def check_ints(name: str, values: Sequence[int], *, minimum: int) -> None:
    """Require a sequence of whole numbers, each at least ``minimum``."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"{name} must be a sequence of integers, got {values!r}")
    for i, value in enumerate(values):
        check_int(f"{name}[{i}]", value, minimum=minimum)


def check_permutation(name: str, values: Sequence[int], n: int) -> None:
    """Require the numbers 0 ... n - 1, each once, in any order."""
    check_ints(name, values, minimum=0)
    if sorted(values) != list(range(n)):
        raise ValueError(f"{name} must hold each of 0 ... {n - 1} once, got {list(values)}")


def check_bool(name: str, value: bool) -> None:
    """Require True or False itself, not a number that could stand for it."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def check_number(name: str, value: float, *, above: float) -> None:
    """Require a finite real number strictly greater than ``above``."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not above < value < float("inf")
    ):
        raise ValueError(f"{name} must be a finite number above {above}, got {value!r}")


def check_one_of(name: str, value: str, allowed: Collection[str]) -> None:
    """Require one of a few names."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(sorted(allowed))}, got {value!r}")


def check_generator(generator: torch.Generator | None) -> None:
    """Require a ``torch.Generator`` or None: seeds are never given as bare integers."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator or None, got {generator!r}")
