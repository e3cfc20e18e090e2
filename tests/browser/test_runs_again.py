"""A cell that is run again, and a kernel that was restarted: what a reader's second run meets."""

import copy
from collections.abc import Callable

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Lab
from tests.browser.gallery import GALLERY, SETUP
from tests.browser.harness import live_widget, run_all, settle, stored_widget

NAMES = ["particles", "inpaint", "swap"]

# Run a cell again; how high its outputs were in each frame until half a second after, or for the
# first second and a half where a slow machine takes longer: their place is held for two.
RUN_AGAIN = """async index => {
  const notebook = jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = index;
  const cell = document.querySelectorAll(".jp-Notebook .jp-Cell")[index];
  const heights = [];
  let going = true;
  const look = () => {
    heights.push(cell.querySelector(".jp-Cell-outputArea").offsetHeight);
    if (going && performance.now() < start + 1500) requestAnimationFrame(look);
  };
  const start = performance.now();
  look();
  await jupyterapp.commands.execute("notebook:run-cell");
  await new Promise((done) => setTimeout(done, 500));
  going = false;
  return heights;
}"""


@pytest.fixture(scope="module")
def page(lab: Lab, open_page: Callable[[str], Page]) -> Page:
    """A notebook of its own that was run."""
    page = open_page(lab.write("again.ipynb", SETUP, *(GALLERY[name] for name in NAMES)))
    run_all(page)
    for index in range(len(NAMES)):
        settle(live_widget(page, index + 1))
    return page


def check_steady(heights: list[int]) -> None:
    assert len(heights) > 20
    assert min(heights) > 0.9 * heights[0] > 200


def test_a_cell_that_is_run_again_keeps_its_height(page: Page) -> None:
    live_widget(page, 1)
    check_steady(page.evaluate(RUN_AGAIN, 1))
    settle(live_widget(page, 1))


def test_a_stored_figure_that_is_run_keeps_its_place(
    lab: Lab, open_page: Callable[[str], Page], gallery_outputs: nbformat.NotebookNode
) -> None:
    notebook = copy.deepcopy(gallery_outputs)
    notebook.cells = notebook.cells[:2]
    page = open_page(lab.save("stored_again.ipynb", notebook, trusted=True))
    settle(stored_widget(page, 1))
    check_steady(page.evaluate(RUN_AGAIN, 1))  # what it needs has not run: it only fails


def fill_in(widget: Locator) -> None:
    widget.get_by_role("button", name="Top half").click()
    widget.get_by_role("button", name="Fill in").click()


def encode_again(widget: Locator) -> None:
    widget.get_by_role("button", name="Encode again").click()


def test_after_a_restart_a_figure_says_to_run_its_cell(page: Page) -> None:
    """The kernel is idle and knows nothing of it: no waiting, no error in the console."""
    page.evaluate("jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    page.wait_for_function(
        "jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
    )
    words = "The kernel does not know this figure any more: run this cell."
    for name, ask in (("inpaint", fill_in), ("swap", encode_again)):
        widget = live_widget(page, NAMES.index(name) + 1)
        ask(widget)
        expect(widget.get_by_role("status")).to_contain_text(words, timeout=15_000)
