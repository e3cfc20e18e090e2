"""Named recipes: everything that leads from nothing to a stored model.

A recipe is an ordinary value. To add one, write in a module ``recipes_<family>.py``, which
``course_lib/training/__init__.py`` imports::

    register(
        Recipe(
            name="nice_digits",
            summary="NICE on the 8x8 digits",
            data='load_digits("train"), dequantized; tested on load_digits("test")',
            build=lambda: NICE(64),
            load=lambda: load_digits("train")[0].flatten(1),
            transform=lambda x, generator: dequantize(x, 17, generator=generator),
            options={"steps": 4000, "batch_size": 128, "ema": 0.999},
            evaluate=lambda model: image_log_likelihood(model, load_digits("test")[0], 17),
        )
    )

"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.checks import check_int, check_one_of

__all__ = ["RECIPES", "Recipe", "check_name", "recipe", "register"]

DTYPES = {"float16": torch.float16, "float32": torch.float32}
NEEDED = {"steps", "batch_size"}
OPTIONS = NEEDED | {"lr", "schedule", "weight_decay", "clip", "ema"}


@dataclass(frozen=True)
class Recipe:
    """How one model is built, trained and measured.

    Args:
        name: The name of the stored files: lower-case letters, digits, ``-`` and ``_``.
        summary: One line for people.
        data: What ``load`` returns, in words, for the card.
        build: Makes the untrained model; its random start is drawn from ``seed``.
        load: Makes the training data: a tensor or a tuple of tensors, as ``fit`` takes it.
        options: Arguments of ``fit``, of which ``steps`` and ``batch_size`` are required.
        evaluate: Measures the trained model, after rounding to ``dtype``, in eval mode: a number or
            a table for each name, the ``metrics`` of ``save_pretrained``.
        prepare: Gets the untrained model and the data before training, to set what is measured on
            the data and not learned.
        transform: As in ``fit``.
        dtype: In which precision the weights are stored, ``"float16"`` or ``"float32"``.
        seed: For the random start and for ``fit``.

    """

    name: str
    summary: str
    data: str
    build: Callable[[], nn.Module]
    load: Callable[[], Tensor | tuple[Tensor, ...]]
    options: Mapping[str, Any]
    evaluate: Callable[[nn.Module], Mapping[str, float | list[dict]]]
    prepare: Callable[[nn.Module, Tensor | tuple[Tensor, ...]], None] | None = None
    transform: Callable[[Tensor, torch.Generator], Tensor] | None = None
    dtype: str = "float16"
    seed: int = 0

    def __post_init__(self):
        check_name(self.name)
        for field in ("summary", "data"):
            if not isinstance(text := getattr(self, field), str) or not text.strip():
                raise ValueError(f"{field} must be a line of text, got {text!r}")
        for field in ("build", "load", "evaluate"):
            if not callable(function := getattr(self, field)):
                raise ValueError(f"{field} must be a function, got {function!r}")
        for field in ("prepare", "transform"):
            if (function := getattr(self, field)) is not None and not callable(function):
                raise ValueError(f"{field} must be a function or None, got {function!r}")
        if not isinstance(self.options, Mapping) or not NEEDED <= set(self.options) <= OPTIONS:
            raise ValueError(
                f"options must hold {' and '.join(sorted(NEEDED))}, and may hold "
                f"{', '.join(sorted(OPTIONS - NEEDED))}, got {self.options!r}"
            )
        check_one_of("dtype", self.dtype, DTYPES)
        check_int("seed", self.seed, minimum=0)

    def new_model(self) -> nn.Module:
        """The untrained model on the CPU, the same at every call.

        The global random generator is untouched, and a global default device not followed.
        """
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(self.seed)
            return self.build()


RECIPES: dict[str, Recipe] = {}
_REGISTERED_BY: dict[str, str] = {}  # the module that registered a recipe, by the recipe's name


def register(new: Recipe) -> Recipe:
    """Make a recipe known under its name, and return it.

    A cell that is run again, or a script's own code, may register its recipe anew.

    Raises:
        ValueError: When it isn't a ``Recipe``, or another module's recipe has that name already.

    """
    if not isinstance(new, Recipe):
        raise ValueError(f"new must be a Recipe, got {new!r}")
    module = sys._getframe(1).f_globals.get("__name__", "")
    again = module == "__main__" == _REGISTERED_BY.get(new.name)
    if new.name in RECIPES and not again:
        raise ValueError(f"new must have a name of its own, got {new.name!r} a second time")
    RECIPES[new.name], _REGISTERED_BY[new.name] = new, module
    return new


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: When there is none; the message lists all names.

    """
    check_one_of("recipe", name, RECIPES)
    return RECIPES[name]


def check_name(name: str) -> None:
    """Require a name that is safe as a file name on every system (``ValueError``)."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ValueError(f"name must be lower-case letters, digits, - and _, got {name!r}")
