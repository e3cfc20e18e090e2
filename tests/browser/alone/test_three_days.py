"""A reader's notebook on the next days: figures that were run stay alive without their kernel."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jupytext
import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect

from course_lib.widgets.store import clean, run_notebook
from tests.browser.conftest import ROOT, Watch, running_lab
from tests.browser.harness import cell_output, live_widget, run_all, settle, stored_widget

DOCUMENTS = "@jupyterlab/docmanager-extension:plugin"
AUTOSAVE = {DOCUMENTS: {"autosaveInterval": 2}}  # seconds, where readers have 120
NAME, TEXT = "notebooks/99_days.ipynb", "notebooks/text/99_days.py"
CELLS = [
    "import ipywidgets\nimport numpy as np\nfrom course_lib import widgets",
    "path = np.random.default_rng(0).normal(size=(5, 50, 2)).cumsum(0)\n"
    "widgets.ParticlePlayer(path, title='Particles')",
    "widgets.ImagePlayer(np.random.default_rng(1).random((3, 2, 4, 4)), title='Images')",
    "mine = 1",
]
MINE = f"mine = 0\n{CELLS[0]}"  # what the reader makes of the first cell
FIGURES = [1, 2]  # the cells that show one
FIGURE = {"text/html", "text/plain"}
STORED = [set(), FIGURE, FIGURE, set()]  # the types of each cell's outputs

ALL_RUN = """() => [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")]
  .every((prompt) => /\\d/.test(prompt.textContent))"""


class Course:
    """A clone of a small course, and what happens to it."""

    def __init__(self, folder: Path, home: Path, browser: Browser) -> None:
        self.folder, self.home, self.browser = folder, home, browser
        self.path, self.text = folder / NAME, folder / TEXT
        shutil.copytree(
            ROOT / "course_lib", folder / "course_lib", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copy(ROOT / "jupytext.toml", folder)
        shutil.copy(ROOT / ".gitignore", folder)
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
        (folder / "notebooks" / "text").mkdir(parents=True)
        nbformat.write(clean(run_notebook(notebook, folder=folder)), self.path)
        jupytext.write(notebook, self.text, fmt="py:percent")
        self.git("init", "--quiet")
        self.git("add", ".")
        self.git("-c", "user.name=x", "-c", "user.email=x@x", "commit", "--quiet", "-m", "clone")

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    @contextmanager
    def day(self) -> Iterator[Page]:
        """A new server with the notebook open; in the end nothing may have complained."""
        with running_lab(self.home, self.folder, self.folder, AUTOSAVE) as lab:
            page = self.browser.new_page(viewport={"width": 1000, "height": 900})
            watch = Watch(page, lab.url)
            page.goto(f"{lab.url}/doc/tree/{NAME}?reset&token={lab.token}")
            page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
            page.wait_for_function(
                """() => jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status
                  === "idle\"""",
                timeout=60_000,
            )
            yield page
            page.close()
            assert watch.faults == []

    def changed(self, name: str) -> set[str]:
        """The lines of a file that are no longer as in the clone, with their + or -."""
        lines = self.git("diff", "--unified=0", "--", name).splitlines()[4:]
        return {line for line in lines if line[0] in "+-"}

    def written(self) -> list[int]:
        """When the notebook and its text were last written."""
        return [path.stat().st_mtime_ns for path in (self.path, self.text)]

    def read(self) -> str:
        """The notebook's file, once it is whole: Jupyter writes it in place."""
        for _ in range(50):
            text = self.path.read_text(encoding="utf-8")
            try:
                json.loads(text)
                break
            except ValueError:
                time.sleep(0.1)
        return text

    def stored(self) -> list[set[str]]:
        """The types of each cell's outputs in the file, which holds no state of widgets."""
        notebook = nbformat.reads(self.read(), as_version=4)
        assert "widgets" not in notebook.metadata
        return [{kind for out in cell.outputs for kind in out.data} for cell in notebook.cells]


@pytest.fixture
def course(tmp_path: Path, browser: Browser) -> Course:
    """A clone that nobody has opened yet."""
    (tmp_path / "course").mkdir()
    (tmp_path / "home").mkdir()
    return Course(tmp_path / "course", tmp_path / "home", browser)


def save(page: Page) -> None:
    """Save the open notebook, and wait until it is written.

    Once in many runs this waited for ever. JupyterLab asks whether to overwrite where its autosave,
    every two seconds here, writes at the same moment: then the answer is yes.
    """
    page.evaluate(
        """async () => {
          const saved = jupyterapp.commands.execute("docmanager:save").then(() => true);
          const later = () => new Promise((done) => setTimeout(done, 500, false));
          while (!(await Promise.race([saved, later()])))
            for (const button of document.querySelectorAll(".jp-Dialog button"))
              if (button.textContent.includes("Overwrite")) button.click();
        }"""
    )


def edit(page: Page, index: int, source: str) -> None:
    """Type something else into a cell."""
    page.evaluate(
        """([index, source]) => jupyterapp.shell.currentWidget.content.model.cells.get(index)
          .sharedModel.setSource(source)""",
        [index, source],
    )


def wait_for_the_autosave(page: Page) -> None:
    """Wait for three of them."""
    page.wait_for_timeout(3_000 * AUTOSAVE[DOCUMENTS]["autosaveInterval"])


def is_dirty(page: Page) -> bool:
    """Whether the open notebook is to be saved."""
    return page.evaluate("jupyterapp.shell.currentWidget.context.model.dirty")


def expect_all_alive(page: Page) -> None:
    """Every figure of the opened notebook moves, and nothing is missing or red."""
    for index in FIGURES:
        settle(stored_widget(page, index))
        expect(cell_output(page, index).locator("img")).to_be_hidden()
    expect(page.get_by_text("model not found")).to_have_count(0)


def test_three_days(course: Course) -> None:
    """Starts three servers, one for each day: 50 s, most of them in JupyterLab's own start."""
    with course.day() as page:
        expect_all_alive(page)
        written = course.written()
        wait_for_the_autosave(page)
        assert course.written() == written  # looking is no change
        assert course.git("status", "--short") == ""

        edit(page, 0, MINE)
        sizes = []
        for _ in range(3):
            run_all(page)
            page.wait_for_function(ALL_RUN)
            for index in FIGURES:
                settle(live_widget(page, index))
            save(page)
            sizes.append(len(course.read().encode()))
            assert course.stored() == STORED
        assert max(sizes) - min(sizes) <= 10  # the digits of the execution counts
        for index in FIGURES:  # what is open stays live
            settle(live_widget(page, index))
        page.evaluate("jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
        save(page)
        assert course.stored() == STORED

    with course.day() as page:
        written = course.written()
        expect_all_alive(page)
        wait_for_the_autosave(page)
        assert course.written() == written

    with course.day() as page:
        expect_all_alive(page)
        # Without a kernel, and saved by JupyterLab itself.
        page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        edit(page, 3, "mine = 2")
        assert is_dirty(page)
        wait_for_the_autosave(page)
        assert not is_dirty(page)
        page.reload()
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        expect_all_alive(page)

    assert course.git("status", "--short").split() == ["M", NAME, "M", TEXT]
    assert course.changed(TEXT) == {f"+{MINE.splitlines()[0]}", "-mine = 1", "+mine = 2"}
    assert {line for line in course.changed(NAME) if "execution_count" not in line} == {
        '+    "mine = 0\\n",',
        '-    "mine = 1"',
        '+    "mine = 2"',
    }
