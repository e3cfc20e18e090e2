"""The examples in the docstrings say what the code does."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    ("module", "examples"),
    [
        ("course_lib.autoregressive.bayes", 3),
        ("course_lib.autoregressive.completion", 1),
        ("course_lib.autoregressive.history_tables", 1),
        ("course_lib.autoregressive.fvsbn", 3),
        ("course_lib.autoregressive.nade", 2),
        ("course_lib.autoregressive.made", 2),
        ("course_lib.autoregressive.pixel_transformer", 3),
        ("course_lib.autoregressive.pixelcnn", 3),
        ("course_lib.nn.masked", 3),
        ("course_lib.nn.transformer", 2),
    ],
)
def test_examples(module, examples):
    failed, attempted = doctest.testmod(importlib.import_module(module))
    assert failed == 0
    assert attempted >= examples
