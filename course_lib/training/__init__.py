"""One training loop, recipes, and stored models."""

# Importing these registers their recipes and studies.
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
    studies_edm,
    studies_scenes,
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
from course_lib.training.studies import (
    STUDIES,
    Study,
    load_study,
    register_study,
    run_study,
    study,
    study_folder,
)

__all__ = [
    "RECIPES",
    "STUDIES",
    "DivergedError",
    "History",
    "LostProcessError",
    "Recipe",
    "Study",
    "checkpoint_folder",
    "fit",
    "learning_rate",
    "load_card",
    "load_pretrained",
    "load_study",
    "recipe",
    "register",
    "register_study",
    "round_weights",
    "run_recipe",
    "run_study",
    "save_pretrained",
    "study",
    "study_folder",
]
