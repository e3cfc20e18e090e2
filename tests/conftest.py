"""The order of the suite: what is quick and tells most first, notebooks last."""

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TREE, UNITS, BROWSER, NOTEBOOKS = range(4)


def rank(path: Path) -> int:
    """What tells most in little time comes first: the tree and what is stored; units; the rest."""
    if path.suffix == ".ipynb":
        return NOTEBOOKS
    if path.is_relative_to(HERE / "browser"):
        return BROWSER
    return TREE if path.parent in {HERE, HERE / "notebooks"} else UNITS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort by rank; within a rank (and so within a notebook) the order stays.

    Where two processes share the tests (`pytest -n 2`), those of the browser come first: they take
    long and wait much. One process is theirs, the other goes through the rest in the usual order.
    """
    # An address differs from process to process: they would not agree on the tests.
    assert not [item.nodeid for item in items if " at 0x" in item.nodeid]
    first = {BROWSER: -1} if hasattr(config, "workerinput") else {}
    items.sort(key=lambda item: first.get(rank(item.path), rank(item.path)))
