"""Settings for every test, and for the kernels that nbval starts."""

import importlib.util
import os
from pathlib import Path

import pytest

# Notebooks are stored with static widgets; a fresh run must show them the same way.
os.environ["COURSE_WIDGETS"] = "static"

# The models of the tests are too small for two threads: waiting for each other costs them more
# than they gain, and many times more while a browser wants the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Without a GPU chapter 15's kernels run in Triton's interpreter. Triton looks at this when it is
# imported first, which an optimiser of PyTorch may do.
if importlib.util.find_spec("triton") is not None:
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")

SANITIZE = Path(__file__).parent / "tests" / "notebooks" / "nbval_sanitize.cfg"


def pytest_configure(config: pytest.Config) -> None:
    """Tell nbval, where it is installed, what it must not compare."""
    if getattr(config.option, "nbval_sanitize_with", "no nbval") is None:
        config.option.nbval_sanitize_with = str(SANITIZE)


def together(nodeid: str) -> str:
    """What one process runs as a whole: a file, or the browser tests that share a server."""
    file = nodeid.partition("::")[0]
    folder = file.rpartition("/")[0]
    return folder if folder == "tests/browser" else file


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nobody asks
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Deal out whole files in the order in which they stand, so that a notebook keeps its kernel.

    ``--dist loadgroup`` would do the same, but pytest-xdist 3.8 loses its groups under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class WholeFiles(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    config.option.loadscopereorder = False
    return WholeFiles(config, log)
