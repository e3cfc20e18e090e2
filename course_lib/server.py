"""What the Jupyter server does for the course: notebooks reach the disk in their stored form.

An extension of the server, switched on by a file in ``jupyter/jupyter_server_config.d`` that every
way to install the course puts into its environment. A notebook that is open keeps its live widgets.
What is written of them are their pictures and copies that need no kernel, so that tomorrow nothing
is "not found". Before a notebook of the course is opened, work from another editor is brought over
to its text pair, and the notebook is signed, so that its figures are alive.
"""

import inspect
import platform
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat

__all__ = ["KERNEL", "LANGUAGE", "open_form", "stored_form"]

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"

# With this in its metadata a notebook opens without asking which kernel to use.
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
# What a kernel adds to it. JupyterLab calls a notebook changed where this is missing; on the disk
# it would differ from machine to machine.
OF_THIS_KERNEL = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
    "version": platform.python_version(),
}
MARGIN = 1.0  # seconds; as in jupytext.toml
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# What tqdm writes beside the view of a progress bar, when nothing is done yet: it would stay so.
BAR_AT_ITS_START = re.compile(r"[^|]*\b0%\|[^|]*\| 0/\S+ \[00:00<\?")


def stored_form(notebook: dict[str, Any]) -> None:
    """Leave of a notebook what needs no kernel and no state of widgets; works in place.

    A view of a widget goes, and what stands beside it stays: of the course's widgets a still
    picture with a living copy, of others their text, but nothing of a progress bar.
    """
    metadata = notebook["metadata"]
    metadata.pop("widgets", None)
    if metadata.get("language_info", {}).get("name") == LANGUAGE["name"]:
        metadata["language_info"] = dict(LANGUAGE)
    for cell in notebook["cells"]:
        outputs = cell.get("outputs", [])
        for output in outputs:
            data = output.get("data", {})
            data.pop(WIDGET_VIEW, None)
            if list(data) == ["text/plain"] and BAR_AT_ITS_START.match("".join(data["text/plain"])):
                data.clear()
        cell_outputs = [output for output in outputs if output.get("data", True)]
        if len(cell_outputs) < len(outputs):
            cell["outputs"] = cell_outputs


def open_form(notebook: dict[str, Any]) -> None:
    """Make a notebook from the disk what JupyterLab would make of it, in place: it is not changed
    by being looked at, and asks for no widget that is gone, whoever saved it.
    """
    stored_form(notebook)
    metadata = notebook["metadata"]
    if metadata.get("kernelspec", {}).get("name") == KERNEL["name"]:
        metadata["language_info"] = LANGUAGE | OF_THIS_KERNEL


# ------------------------------------------------------------------------------------- the server


def _save_stored_form(*, model: dict[str, Any], **_: object) -> None:
    """The hook that runs before anything is saved."""
    if model["type"] == "notebook":
        stored_form(model["content"])


def prepare(path: Path, notary: Any) -> None:
    """Bring the text pair of a notebook up to date, and sign the notebook.

    A notebook that says something else than its text and is newer by more than a second was saved
    by another editor, which knows of no pair. Jupytext would lose that, or refuse to open it.
    """
    notebook = nbformat.read(path, as_version=4)
    text = path.parent / "text" / f"{path.stem}.py"
    if text.exists() and path.stat().st_mtime > text.stat().st_mtime + MARGIN:
        content = jupytext.writes(notebook, fmt="py:percent")
        if content != text.read_text("utf-8"):
            text.write_text(content, "utf-8")
    notary.sign(notebook)


def _prepare_before_opening(manager: Any) -> None:
    """Let a contents manager look at a notebook before it hands it out."""
    get = manager.get

    async def get_prepared(path: str, content: bool = True, **options: object) -> dict[str, Any]:
        wanted = content and options.get("type") in (None, "notebook")
        if wanted and path.endswith(".ipynb"):
            place = Path(manager._get_os_path(path.strip("/"))).resolve()
            if place.parent == NOTEBOOKS and place.exists():
                try:
                    prepare(place, manager.notary)
                except Exception:  # then it opens as without us, or says itself why it can't
                    manager.log.warning("Could not prepare %s", path, exc_info=True)
        model = await get(path, content=content, **options)
        if content and model["type"] == "notebook":
            open_form(model["content"])
        return model

    manager.get = get_prepared


def _load_jupyter_server_extension(app: Any) -> None:
    """Nothing yet: jupytext puts another contents manager in place when it is loaded."""


async def _start_jupyter_server_extension(app: Any) -> None:
    manager = app.contents_manager
    manager.register_pre_save_hook(_save_stored_form)
    exporter = app.web_app.settings["config"].HTMLExporter  # of "Save and Export Notebook As"
    exporter.preprocessors = [*exporter.get("preprocessors", []), "course_lib.export.ChapterLinks"]
    if inspect.iscoroutinefunction(manager.get):
        _prepare_before_opening(manager)
