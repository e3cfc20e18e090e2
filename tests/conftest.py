"""The order of the suite: what is quick and tells most first, notebooks last."""

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def rank(path: Path) -> int:
    """0: the tree and what is stored; 1: units; 2: the browser; 3: running the notebooks."""
    if path.suffix == ".ipynb":
        return 3
    if path.is_relative_to(HERE / "browser"):
        return 2
    return 0 if path.parent in {HERE, HERE / "notebooks"} else 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by rank; within a rank (and so within a notebook) the order stays."""
    items.sort(key=lambda item: rank(item.path))
