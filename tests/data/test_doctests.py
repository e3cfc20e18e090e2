"""The examples in the docstrings say what the code does."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    ("module", "examples"),
    [
        ("course_lib.data.toys", 2),
        ("course_lib.data.digits", 2),
        ("course_lib.data.discrete", 4),
        ("course_lib.metrics.likelihood", 3),
    ],
)
def test_examples(module, examples):
    failed, attempted = doctest.testmod(importlib.import_module(module))
    assert failed == 0
    assert attempted >= examples
