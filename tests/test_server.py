"""The extension of the Jupyter server: what reaches the disk, and what is opened from it."""

import asyncio
import copy
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jupytext
import nbformat
import pytest
from ipykernel.ipkernel import IPythonKernel
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from nbformat import NotebookNode
from nbformat.sign import MemorySignatureStore
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from traitlets.config import Config

from course_lib import server
from course_lib.server import KERNEL, LANGUAGE, WIDGET_VIEW, open_form, stored_form

ROOT = Path(__file__).resolve().parents[1]
VIEW = {"model_id": "1", "version_major": 2, "version_minor": 1}
STATE = {"application/vnd.jupyter.widget-state+json": {"state": {"1": {}}}}
FIGURE = {"text/html": "<img alt='A figure'><iframe title='A figure'></iframe>"}


def as_run(*, source: str = "figure") -> NotebookNode:
    """A notebook as JupyterLab has it after a run: views, state, and a kernel's own metadata."""
    outputs = [
        new_output("stream", name="stdout", text="said\n"),
        new_output("execute_result", {WIDGET_VIEW: VIEW, **FIGURE, "text/plain": "Figure()"}),
        new_output("display_data", {WIDGET_VIEW: VIEW, "text/plain": "IntSlider(value=0)"}),
        new_output("display_data", {WIDGET_VIEW: VIEW}),
        new_output("error", ename="ValueError", evalue="no", traceback=[]),
    ]
    return new_notebook(
        cells=[new_markdown_cell("# Title"), new_code_cell(source, outputs=outputs)],
        metadata={
            "kernelspec": dict(KERNEL),
            "language_info": dict(IPythonKernel.language_info),
            "widgets": STATE,
        },
    )


def kinds(notebook: NotebookNode) -> list[list[str]]:
    """The types of each output of the code cell."""
    return [sorted(output.get("data", [])) for output in notebook.cells[1].outputs]


# ----------------------------------------------------------------------------------------- forms


def test_views_and_state_go_and_what_stands_beside_them_stays() -> None:
    notebook = as_run()
    stored_form(notebook)
    assert notebook.metadata == {"kernelspec": KERNEL, "language_info": LANGUAGE}
    assert kinds(notebook) == [[], ["text/html", "text/plain"], ["text/plain"], []]
    assert notebook.cells[1].outputs[0].text == "said\n"
    assert notebook.cells[1].outputs[3].ename == "ValueError"
    nbformat.validate(notebook)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("  0%|          | 0/1200 [00:00<?, ?step/s]", False),
        (["round 2:   0%|          ", "| 0/3.2k [00:00<?, ?it/s]"], False),
        ("100%|██████████| 1200/1200 [00:03<00:00, 400step/s]", True),
        ("0%|", True),
    ],
)
def test_a_bar_that_would_stand_at_its_start_for_ever_goes(
    text: str | list[str], kept: bool
) -> None:
    """A view knows how far a bar came; the text beside it is from before the first step."""
    bar = new_output("display_data", {WIDGET_VIEW: VIEW, "text/plain": text})
    notebook = new_notebook(cells=[new_markdown_cell(""), new_code_cell("fit()", outputs=[bar])])
    stored_form(notebook)
    assert kinds(notebook) == ([["text/plain"]] if kept else [])


def test_storing_twice_changes_nothing() -> None:
    notebook = as_run()
    stored_form(notebook)
    again = copy.deepcopy(notebook)
    stored_form(again)
    assert again == notebook


def test_another_language_keeps_what_it_says() -> None:
    julia = {"name": "julia", "version": "1.11.0"}
    notebook = new_notebook(metadata={"language_info": dict(julia)})
    stored_form(notebook)
    open_form(notebook)
    assert notebook.metadata == {"language_info": julia}
    bare = new_notebook()
    stored_form(bare)
    open_form(bare)
    assert bare.metadata == {}


def test_an_opened_notebook_says_what_its_kernel_says() -> None:
    """Or JupyterLab changes it, and saves it after two minutes although nobody touched it."""
    notebook = as_run()
    stored_form(notebook)
    open_form(notebook)
    assert notebook.metadata.language_info == IPythonKernel.language_info


# ------------------------------------------------------------------------------- opening, saving


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a notebook that was run and stored, and its text pair."""
    (tmp_path / "notebooks" / "text").mkdir(parents=True)
    (tmp_path / "jupytext.toml").write_bytes((ROOT / "jupytext.toml").read_bytes())
    monkeypatch.setattr(server, "NOTEBOOKS", (tmp_path / "notebooks").resolve())
    put(tmp_path, as_run())
    return tmp_path


PATH = "notebooks/99_x.ipynb"
TEXT = "notebooks/text/99_x.py"


def put(folder: Path, notebook: NotebookNode) -> None:
    """Write a notebook in its stored form, and its text."""
    notebook = copy.deepcopy(notebook)
    stored_form(notebook)
    nbformat.write(notebook, folder / PATH)
    (folder / TEXT).write_text(jupytext.writes(notebook, fmt="py:percent"), "utf-8")


def as_app(manager: Any) -> SimpleNamespace:
    """What our extension sees of a server: its manager of files, and its settings."""
    web_app = SimpleNamespace(settings={"config": Config()})
    return SimpleNamespace(contents_manager=manager, web_app=web_app)


def test_pages_that_the_server_exports_link_to_pages() -> None:
    app = as_app(AsyncLargeFileManager())
    config = app.web_app.settings["config"]
    config.HTMLExporter.preprocessors = ["theirs.Own"]
    asyncio.run(server._start_jupyter_server_extension(app))
    assert config.HTMLExporter.preprocessors == ["theirs.Own", "course_lib.export.ChapterLinks"]


@pytest.fixture
def manager(course: Path) -> Any:
    """JupyterLab's manager of files with jupytext and our extension, as a server starts them."""
    made = jupytext.build_async_jupytext_contents_manager_class(AsyncLargeFileManager)()
    made.root_dir = str(course)
    made.notary.store = MemorySignatureStore()
    app = as_app(made)
    server._load_jupyter_server_extension(app)
    asyncio.run(server._start_jupyter_server_extension(app))
    return made


def opened(manager: Any, path: str = PATH) -> NotebookNode:
    return asyncio.run(manager.get(path, content=True, type="notebook"))["content"]


def saved(manager: Any, notebook: NotebookNode, folder: Path) -> NotebookNode:
    """What is on the disk once JupyterLab has saved the notebook."""
    asyncio.run(manager.save({"type": "notebook", "content": notebook}, PATH))
    return nbformat.read(folder / PATH, as_version=4)


def trusted(notebook: NotebookNode) -> bool:
    return all(cell.metadata.get("trusted") for cell in notebook.cells if cell.cell_type == "code")


def test_what_is_saved_is_the_stored_form(manager: Any, course: Path) -> None:
    stored = nbformat.read(course / PATH, as_version=4)
    run = as_run()
    run.cells[0].id, run.cells[1].id = stored.cells[0].id, stored.cells[1].id
    run.cells[1].metadata["trusted"] = True
    found = saved(manager, run, course)
    assert found == stored
    assert saved(manager, found, course) == stored
    assert jupytext.read(course / TEXT).cells[1].source == "figure"


def test_what_was_just_run_and_saved_is_trusted_wherever_it_lies(
    manager: Any, course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "NOTEBOOKS", course / "elsewhere")
    assert not trusted(opened(manager))
    run = as_run()
    run.cells[1].metadata["trusted"] = True
    saved(manager, run, course)
    assert trusted(opened(manager))


def test_a_text_is_saved_as_it_is(manager: Any, course: Path) -> None:
    model = {"type": "file", "format": "text", "content": "words"}
    asyncio.run(manager.save(model, "notes.txt"))
    assert (course / "notes.txt").read_text() == "words"
    assert asyncio.run(manager.get("notes.txt"))["content"] == "words"


def test_looking_and_saving_leaves_the_files_as_they_are(manager: Any, course: Path) -> None:
    before = [(course / name).read_bytes() for name in (PATH, TEXT)]
    saved(manager, opened(manager), course)
    assert [(course / name).read_bytes() for name in (PATH, TEXT)] == before


def test_notebooks_of_the_course_are_trusted_and_others_are_not(manager: Any, course: Path) -> None:
    assert trusted(opened(manager))
    other = as_run(source="other")
    nbformat.write(other, course / "other.ipynb")
    assert not trusted(opened(manager, "other.ipynb"))


def test_views_that_another_editor_saved_are_not_asked_for(manager: Any, course: Path) -> None:
    run = as_run(source="other")
    nbformat.write(run, course / "other.ipynb")
    found = opened(manager, "other.ipynb")
    assert kinds(found) == [[], ["text/html", "text/plain"], ["text/plain"], []]
    assert "widgets" not in found.metadata


@pytest.mark.parametrize("seconds", [2, 10, 290, 310, 86_400])
def test_work_of_another_editor_is_kept(manager: Any, course: Path, seconds: float) -> None:
    """The .ipynb changed and its text did not: as VS Code does, and a later `git pull` undoes."""
    notebook = nbformat.read(course / PATH, as_version=4)
    notebook.cells[1].source = "edited = 1"
    nbformat.write(notebook, course / PATH)
    now = time.time()
    os.utime(course / TEXT, (now - seconds, now - seconds))
    found = opened(manager)
    assert found.cells[1].source == "edited = 1"
    assert trusted(found)
    assert jupytext.read(course / TEXT).cells[1].source == "edited = 1"


def test_work_in_the_text_is_kept(manager: Any, course: Path) -> None:
    text = (course / TEXT).read_text("utf-8").replace("figure", "edited = 2")
    (course / TEXT).write_text(text, "utf-8")
    later = time.time() + 60
    os.utime(course / TEXT, (later, later))
    assert opened(manager).cells[1].source == "edited = 2"
    assert (course / TEXT).read_text("utf-8") == text


def test_a_text_that_agrees_is_not_written(manager: Any, course: Path) -> None:
    """A clone writes the two in any order."""
    os.utime(course / TEXT, (1, 1))
    assert opened(manager).cells[1].source == "figure"
    assert (course / TEXT).stat().st_mtime == 1


def test_a_notebook_that_is_no_notebook_says_so_itself(manager: Any, course: Path) -> None:
    (course / PATH).write_text("{half a file")
    with pytest.raises(Exception, match="Unreadable Notebook"):
        opened(manager)
