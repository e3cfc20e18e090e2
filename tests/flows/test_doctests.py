"""The examples in the docstrings say what the code does."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    ("module", "examples"),
    [
        ("base", 2),
        ("cnf", 3),
        ("couplings", 6),
        ("divergence", 2),
        ("flow", 4),
        ("glow", 3),
        ("images", 8),
        ("masks", 2),
        ("nice", 3),
        ("realnvp", 3),
        ("transforms", 8),
    ],
)
def test_examples(module, examples):
    found = importlib.import_module(f"course_lib.flows.{module}")
    failed, attempted = doctest.testmod(
        found, extraglobs={"torch": importlib.import_module("torch")}
    )
    assert failed == 0
    assert attempted >= examples
