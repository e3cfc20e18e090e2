"""The notebooks' stored widgets run today's JavaScript."""

import html
import re
from pathlib import Path

import nbformat
import pytest

from course_lib import widgets
from course_lib.widgets.base import javascript, stylesheet

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def stored_widgets(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """The class name and the inner page of every stored widget."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            copy = re.search(
                r'<iframe title="[^"]*" style=.*srcdoc="([^"]*)"', data.get("text/html", "")
            )
            if copy:
                name = re.match(r"\w+", data["text/plain"])[0]
                found.append((name, html.unescape(copy[1])))
    return found


def stale_parts(name: str, page: str) -> list[str]:
    """The files of a widget that a stored copy does not hold as they are now."""
    module = getattr(widgets, name).module
    parts = {
        module: javascript(module).replace("export default ", "const widget = "),
        "its CSS": stylesheet(module),
        "static.js": javascript("static.js"),
    }
    return [part for part, text in parts.items() if text not in page]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_widgets_are_up_to_date(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    stale = {
        name: parts for name, page in stored_widgets(notebook) if (parts := stale_parts(name, page))
    }
    assert not stale, f"run `python -m course_lib store {path.stem}`"


def test_a_stale_copy_is_found() -> None:
    """The check itself: it passes on a fresh copy and names the part that is old."""
    player = widgets.ImagePlayer([[[[0.0, 1.0]]]])
    output = nbformat.v4.new_output(
        "execute_result", {"text/html": player.static_html(), "text/plain": repr(player)}
    )
    cell = nbformat.v4.new_code_cell(outputs=[output])
    ((name, page),) = stored_widgets(nbformat.v4.new_notebook(cells=[cell]))
    assert name == "ImagePlayer"
    assert stale_parts(name, page) == []
    assert stale_parts(name, page.replace("const GAP = ", "const gap = ")) == ["image_player.js"]
    assert stale_parts(name, page.replace("standIn: true", "")) == ["static.js"]
    assert stale_parts(name, page.replace(".cw-stage { ", ".stage { ")) == ["its CSS"]
    # A part that it does not import may change.
    assert "function kernelLine(" not in page
