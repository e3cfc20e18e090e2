"""Settings for every test, and for the kernels that nbval starts."""

import os
from pathlib import Path

import pytest

# Notebooks are stored with static widgets; a fresh run must show them the same way.
os.environ["COURSE_WIDGETS"] = "static"

# The models of the tests are too small for two threads: waiting for each other costs them more
# than they gain, and many times more while a browser wants the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SANITIZE = Path(__file__).parent / "tests" / "notebooks" / "nbval_sanitize.cfg"


def pytest_configure(config: pytest.Config) -> None:
    """Tell nbval, where it is installed, what it must not compare."""
    if getattr(config.option, "nbval_sanitize_with", "no nbval") is None:
        config.option.nbval_sanitize_with = str(SANITIZE)
