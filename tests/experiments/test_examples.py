"""The examples in the docstrings of the experiments hold."""

import doctest
import importlib
import pkgutil

import pytest
import torch

from course_lib import experiments

# Trainings and what runs in many processes, without an example.
WITHOUT = {"dead_codes", "killed_rank", "many_processes", "sharded_state", "simplest_ddp"}


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.iter_modules(experiments.__path__)]
)
def test_the_examples_hold(name):
    module = importlib.import_module(f"course_lib.experiments.{name}")
    failed, attempted = doctest.testmod(module, extraglobs={"torch": torch})
    assert failed == 0
    assert (attempted == 0) == (name in WITHOUT)
