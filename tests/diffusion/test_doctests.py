"""The examples in the docstrings say what the code does."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    ("module", "examples"),
    [
        ("checks", 2),
        ("diffusion.controlnet", 10),
        ("diffusion.ddim", 1),
        ("diffusion.ddpm", 3),
        ("diffusion.edges", 3),
        ("diffusion.flow_matching", 4),
        ("diffusion.guidance", 12),
        ("diffusion.latent_diffusion", 12),
        ("diffusion.paths", 9),
        ("diffusion.schedule", 4),
        ("diffusion.sde", 3),
        ("nn.time", 2),
        ("nn.unet", 2),
    ],
)
def test_examples(module, examples):
    found = importlib.import_module(f"course_lib.{module}")
    failed, attempted = doctest.testmod(
        found, extraglobs={"torch": importlib.import_module("torch")}
    )
    assert failed == 0
    assert attempted >= examples
