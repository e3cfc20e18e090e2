"""The examples in the docstrings say what the code does."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    ("module", "examples"),
    [
        ("code_capacity", 1),
        ("gan", 1),
        ("gaussian", 1),
        ("jumps", 1),
        ("kl_autoencoder", 5),
        ("linear", 3),
        ("quantizer", 3),
        ("vae", 3),
        ("vqvae", 3),
    ],
)
def test_examples(module, examples):
    found = importlib.import_module(f"course_lib.latent.{module}")
    failed, attempted = doctest.testmod(
        found, extraglobs={"torch": importlib.import_module("torch")}
    )
    assert failed == 0
    assert attempted >= examples
