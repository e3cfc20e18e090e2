"""The order of the suite: what is quick and tells most first, notebooks last."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SHARED, TREE, UNITS, BROWSER, NOTEBOOKS = range(-1, 4)


def rank(path: Path, *, shared: bool) -> int:
    """What tells most in little time comes first: the tree and what is stored; units; the rest.

    Where processes share the tests, they begin with what they deal out in the largest pieces: the
    browser tests that share a server.
    """
    if path.suffix == ".ipynb":
        return NOTEBOOKS
    if path.is_relative_to(HERE / "browser"):
        return SHARED if shared and path.parent == HERE / "browser" else BROWSER
    return TREE if path.parent in {HERE, HERE / "notebooks"} else UNITS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort by rank; within a rank (and so within a notebook) the order stays.

    Of three processes (`pytest -n 3`) one has the browser first, which waits much, and the others
    go through the rest in the usual order.
    """
    # An address differs from process to process: they would not agree on the tests.
    assert not [item.nodeid for item in items if " at 0x" in item.nodeid]
    shared = hasattr(config, "workerinput")
    items.sort(key=lambda item: rank(item.path, shared=shared))


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """``run_processes`` starts copies of this process where that is safe.

    They are there at once, and run what this process has loaded, changed by a test or not.
    """
    if sys.platform == "linux":
        import torch._dynamo  # noqa: F401 - once here, not by each of them

        monkeypatch.setattr("course_lib.parallel.processes.START", "fork")
