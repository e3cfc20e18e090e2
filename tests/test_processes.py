"""How processes share the suite: by whole files, those of the shared browser as one."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def settings(path: str):
    spec = importlib.util.spec_from_file_location("settings", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("nodeid", "whole"),
    [
        ("tests/nn/test_time.py::test_defaults", "tests/nn/test_time.py"),
        ("tests/nn/test_time.py::Laws::test_x[tests/browser/a::b]", "tests/nn/test_time.py"),
        ("tests/browser/test_inpaint.py::test_x[1.0]", "tests/browser"),
        ("tests/browser/test_mask_explorer.py::test_x", "tests/browser"),
        ("tests/browser/test_players.py::test_x[a/b::c]", "tests/browser"),
        (
            "tests/browser/alone/test_plain_page.py::test_y",
            "tests/browser/alone/test_plain_page.py",
        ),
        ("notebooks/03_vq_vae::ipynb::Cell 12", "notebooks/03_vq_vae"),
    ],
)
def test_what_stays_together(nodeid, whole):
    assert settings("conftest.py").together(nodeid) == whole


class Item:
    def __init__(self, name):
        self.path, self.nodeid = ROOT / name, f"{name}::test_x"


@pytest.mark.parametrize("worker", [False, True])
def test_the_order(worker):
    """A worker meets the shared browser first, for that takes longest; else nothing changes its
    place.
    """
    names = ["notebooks/01_a.ipynb", "tests/browser/alone/test_e.py", "tests/browser/test_b.py"]
    names += ["tests/nn/test_c.py", "tests/notebooks/test_pairs.py", "tests/test_environment.py"]
    names += ["tests/data/test_d.py"]
    wanted = ["tests/notebooks/test_pairs.py", "tests/test_environment.py"]
    wanted += ["tests/nn/test_c.py", "tests/data/test_d.py", "tests/browser/alone/test_e.py"]
    browser = "tests/browser/test_b.py"
    wanted = [browser, *wanted] if worker else [*wanted, browser]
    config = type("Config", (), {"workerinput": {}} if worker else {})()
    items = [Item(name) for name in names]
    settings("tests/conftest.py").pytest_collection_modifyitems(config, items)
    found = [item.path.relative_to(ROOT).as_posix() for item in items]
    assert found == [*wanted, "notebooks/01_a.ipynb"]


def test_a_browser_ends_with_its_tests():
    """Beside a running one, a process could run no asyncio of its own: no saving, no kernel."""
    for path in (ROOT / "tests" / "browser").rglob("*.py"):
        assert 'scope="session"' not in path.read_text("utf-8"), path
