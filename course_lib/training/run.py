"""From a recipe to a stored model: build, fit, round, measure, save."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from course_lib.checks import check_bool, check_int
from course_lib.training.checkpoints import checkpoint_folder, round_weights, save_pretrained
from course_lib.training.files import check_folder
from course_lib.training.fit import fit
from course_lib.training.recipes import Recipe

__all__ = ["default_folder", "run_recipe"]


def run_recipe(
    recipe: Recipe,
    *,
    steps: int | None = None,
    folder: str | os.PathLike | None = None,
    resume: str | os.PathLike | None = None,
    progress: bool = True,
) -> dict[str, Any] | None:
    """Train the model of ``recipe`` and store it with its card.

    Args:
        recipe: The recipe.
        steps: Train for so many steps instead of the recipe's number.
        folder: Where to store; by default ``checkpoint_folder()``. A model of other ``steps`` than
            the recipe's goes to ``runs/NAME-STEPS-steps`` then: it must not take the place of the
            one that the course is about.
        resume: A file that keeps the state of training, to go on from if it is there; it is removed
            once the model is stored.
        progress: As in ``fit``.

    Returns:
        The card; None in a process that isn't the first of several.

    Raises:
        ValueError: When a folder can't be written to, before any training.
        DivergedError: When the loss is not finite.

    """
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe must be a Recipe, got {recipe!r}")
    if steps is not None:
        check_int("steps", steps, minimum=1)
    check_bool("progress", progress)
    for name, path in (("folder", folder), ("resume", resume)):
        if path is not None and not isinstance(path, str | os.PathLike):
            raise ValueError(f"{name} must be a path or None, got {path!r}")
    options = recipe.options if steps is None else {**recipe.options, "steps": steps}
    folder = default_folder(recipe, steps) if folder is None else Path(folder)
    check_folder("folder", folder)
    if resume is not None:
        check_folder("resume", Path(resume).parent)
    with torch.device("cpu"):  # fit alone decides on another one
        return _run(recipe, options, folder, resume, progress)


def default_folder(recipe: Recipe, steps: int | None) -> Path:
    """Where ``run_recipe`` stores a model when nobody says where."""
    if steps in (None, recipe.options["steps"]):
        return checkpoint_folder()
    return Path("runs", f"{recipe.name}-{steps}-steps")


def _run(
    recipe: Recipe,
    options: Mapping[str, Any],
    folder: Path,
    resume: str | os.PathLike | None,
    progress: bool,
) -> dict[str, Any] | None:
    model, data = recipe.new_model(), recipe.load()
    if recipe.prepare is not None:
        recipe.prepare(model, data)
    history = fit(
        model,
        data,
        **options,
        seed=recipe.seed,
        transform=recipe.transform,
        checkpoint=resume,
        progress=progress,
    )
    if os.environ.get("RANK", "0") != "0":
        return None
    round_weights(model, recipe.dtype)
    command = f"python -m course_lib train {recipe.name}"
    card = {
        "summary": recipe.summary,
        "recipe": recipe.name,
        "command": command
        if options == recipe.options
        else f"{command} --steps {options['steps']}",
        "data": recipe.data,
        "seed": recipe.seed,
        "steps": history.steps,
        "metrics": dict(recipe.evaluate(model)),
    }
    card = save_pretrained(model, recipe.name, card, folder=folder, dtype=recipe.dtype)
    if resume is not None:
        Path(resume).unlink()
    return card
