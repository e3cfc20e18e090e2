"""A folded section opens before any of its cells runs, and runs with all others."""

from collections.abc import Callable

from nbformat.v4 import new_code_cell, new_markdown_cell
from playwright.sync_api import Page

from tests.browser.conftest import Lab
from tests.browser.harness import run_all

SECTION = ["print('before')", "## May be skipped", "### Why", "print('folded')", "## Next"]
# Which cells are hidden, which is active, and how often each was run.
STATE = """() => {
  const { widgets, activeCellIndex } = jupyterapp.shell.currentWidget.content;
  return [
    widgets.map((cell) => cell.isHidden),
    activeCellIndex,
    widgets.map((cell) => cell.model.executionCount ?? 0),
  ];
}"""
IS = f"wanted => JSON.stringify(({STATE})()) === JSON.stringify(wanted)"
FOLDED = [False, False, True, True, False]
OPEN = [False] * 5


def test_shift_enter_opens_a_folded_section(lab: Lab, open_page: Callable[[str], Page]) -> None:
    notebook = lab.notebook()
    for source in SECTION:
        new = new_markdown_cell if source.startswith("#") else new_code_cell
        notebook.cells.append(new(source))
    notebook.cells[1].metadata["jp-MarkdownHeadingCollapsed"] = True
    page = open_page(lab.save("folded.ipynb", notebook))

    page.wait_for_function(IS, arg=[FOLDED, 0, [0, 0, 0, 0, 0]])
    run_all(page)
    page.wait_for_function(IS, arg=[FOLDED, 4, [1, 0, 0, 2, 0]])

    page.locator(".jp-Notebook .jp-Cell").nth(0).locator(".jp-InputPrompt").click()
    page.keyboard.press("Shift+Enter")
    page.wait_for_function(IS, arg=[FOLDED, 1, [3, 0, 0, 2, 0]])
    page.keyboard.press("Shift+Enter")
    page.wait_for_function(IS, arg=[OPEN, 2, [3, 0, 0, 2, 0]])
