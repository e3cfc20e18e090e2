"""One training loop, recipes, and stored models."""

# Importing these registers their recipes.
from course_lib.training import (  # noqa: F401
    recipes_attention,
    recipes_autoregressive,
    recipes_classifiers,
    recipes_diffusion,
    recipes_edm,
    recipes_flows,
    recipes_guidance,
    recipes_latent,
    recipes_ode,
    recipes_rectified,
    recipes_scenes,
    recipes_sd3,
    recipes_sde,
)
from course_lib.training.checkpoints import (
    checkpoint_folder,
    load_card,
    load_pretrained,
    round_weights,
    save_pretrained,
)
from course_lib.training.fit import DivergedError, History, LostProcessError, fit, learning_rate
from course_lib.training.recipes import RECIPES, Recipe, recipe, register
from course_lib.training.run import run_recipe

__all__ = [
    "RECIPES",
    "DivergedError",
    "History",
    "LostProcessError",
    "Recipe",
    "checkpoint_folder",
    "fit",
    "learning_rate",
    "load_card",
    "load_pretrained",
    "recipe",
    "register",
    "round_weights",
    "run_recipe",
    "save_pretrained",
]
