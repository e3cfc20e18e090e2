"""From a recipe to a stored model: build, fit, round, measure, save."""

import os
from pathlib import Path
from typing import Any

from course_lib.checks import check_bool, check_int
from course_lib.training.checkpoints import round_weights, save_pretrained
from course_lib.training.fit import fit
from course_lib.training.recipes import Recipe

__all__ = ["run_recipe"]


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
        folder: Where to store; by default ``checkpoint_folder()``.
        resume: A file that keeps the state of training, to go on from if it is there; it is removed
            once the model is stored.
        progress: As in ``fit``.

    Returns:
        The card; None in a process that isn't the first of several.

    Raises:
        ValueError: When an argument is not as described; the message names it.
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
        "command": command if steps is None else f"{command} --steps {steps}",
        "data": recipe.data,
        "seed": recipe.seed,
        "steps": history.steps,
        "metrics": dict(recipe.evaluate(model)),
    }
    card = save_pretrained(model, recipe.name, card, folder=folder, dtype=recipe.dtype)
    if resume is not None:
        Path(resume).unlink()
    return card
