"""Run notebooks and store them the way a reader finds them: outputs in place, widgets alive.

``python -m course_lib store [NAME ...]`` reads the text pair ``notebooks/text/NAME.py``, runs it in
a fresh kernel with ``COURSE_WIDGETS=static``, and writes ``notebooks/NAME.ipynb`` and the pair, so
that both are in step. Without a name it stores every notebook. Nothing is written where a cell
fails.
"""

import argparse
import ast
import hashlib
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets.config import Config

from course_lib.server import KERNEL, LANGUAGE, stored_form

__all__ = ["KERNEL", "StoreError", "clean", "main", "only_draws", "run_notebook", "store"]

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
MAX_BYTES = 3_000_000  # of a stored notebook
TIMEOUT = 600  # seconds for one cell

# tqdm's "[00:03<00:00, 231.5it/s]", which is different in every run.
BAR_TIMING = re.compile(r" ?\[\d+:\d\d(?::\d\d)?<[^\]\n]*\]")


class StoreError(Exception):
    """A notebook that can't be stored, and why."""


def main(argv: Sequence[str]) -> int:
    """Run the command line; 0 where every notebook was stored, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m course_lib store",
        description="Run notebooks and store them with their outputs and living widgets.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 04_nice; default: all")
    parser.add_argument(
        "--from-text",
        action="store_true",
        help="take the text even where the .ipynb was edited later and the two differ",
    )
    parser.add_argument("--folder", type=Path, default=NOTEBOOKS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)

    names = options.names or sorted(
        {path.stem for path in options.folder.glob("*.ipynb")}
        | {path.stem for path in options.folder.glob("text/*.py")}
    )
    if not names:
        print(f"no notebooks in {options.folder}", file=sys.stderr)
        return 1
    failed = False
    for name in names:
        try:
            path = options.folder / f"{Path(name).stem}.ipynb"
            print(store(path, from_text=options.from_text), flush=True)
        except StoreError as error:
            failed = True
            print(f"{name}: not stored: {error}", file=sys.stderr, flush=True)
    return int(failed)


def store(path: Path, *, from_text: bool = False) -> str:
    """Run one notebook and write ``path`` and its text pair; returns a line that reports it.

    The text pair is the source. Where the ``.ipynb`` holds other cells and was written later,
    somebody's edits would be lost: that raises ``StoreError`` unless ``from_text`` says otherwise.
    So do a cell that fails and a result of more than 3 MB; nothing is written then.
    """
    text = path.parent / "text" / f"{path.stem}.py"
    notebook = _read(path, text, from_text=from_text)
    started = time.perf_counter()
    try:
        run_notebook(notebook, folder=path.parent)
    except CellExecutionError as error:
        raise StoreError(f"a cell failed\n{error}") from None
    except (CellTimeoutError, DeadKernelError) as error:
        raise StoreError(str(error)) from None
    seconds = time.perf_counter() - started

    notebook = clean(notebook)
    content = nbformat.writes(notebook) + "\n"
    size = len(content.encode("utf-8"))
    if size > MAX_BYTES:
        raise StoreError(f"it may hold at most {MAX_BYTES:,} bytes, got {size:,}")
    path.write_text(content, "utf-8")
    # The text is written last: jupytext distrusts a notebook that is newer than its text.
    text.parent.mkdir(exist_ok=True)
    text.write_text(jupytext.writes(notebook, fmt="py:percent"), "utf-8")

    code = sum(cell.cell_type == "code" for cell in notebook.cells)
    report = f"{path.stem}: {code} code cells, {seconds:.1f} s, {size / 1e6:.2f} MB"
    for number in _cells_with_warnings(notebook):
        report += f"\n  a warning is stored in the output of cell [{number}]"
    return report


def _read(path: Path, text: Path, *, from_text: bool) -> nbformat.NotebookNode:
    """The cells to run, from the text pair where there is one."""
    if not text.exists():
        if not path.exists():
            raise StoreError(f"there is neither {path.name} nor text/{text.name}")
        return nbformat.read(path, as_version=4)
    notebook = jupytext.read(text, fmt="py:percent")
    if path.exists() and not from_text and path.stat().st_mtime > text.stat().st_mtime:
        stored = nbformat.read(path, as_version=4)
        # Compared as text, because some details of a notebook have no place there.
        if _inputs(jupytext.reads(jupytext.writes(stored, "py:percent"), "py:percent")) != _inputs(
            notebook
        ):
            raise StoreError(
                f"{path.name} was changed after text/{text.name} and the two differ; take the text "
                f"with --from-text, or the notebook with `jupytext --to py:percent`"
            )
    return notebook


def _inputs(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells]


def run_notebook(
    notebook: nbformat.NotebookNode, *, folder: Path, timeout: int = TIMEOUT
) -> nbformat.NotebookNode:
    """Run a notebook in a fresh kernel started in ``folder``; its outputs are written into it."""
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        record_timing=False,
        config=Config(KernelManager={"transport_encryption": "auto"}),  # or ipykernel warns
    )
    # The kernel imports this very course_lib, installed or not.
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with patch.dict(os.environ, {"COURSE_WIDGETS": "static", "PYTHONPATH": search}):
        return client.execute()


# --------------------------------------------------------------------------------------- cleaning


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave only what does not change from run to run; works in place."""
    metadata = notebook.metadata
    for name in ("jupytext", "signature"):
        metadata.pop(name, None)
    metadata["kernelspec"] = nbformat.from_dict(KERNEL)
    metadata["language_info"] = nbformat.from_dict(LANGUAGE)
    stored_form(notebook)
    notebook.nbformat, notebook.nbformat_minor = 4, 5  # the first format with cell ids

    seen: set[str] = set()
    for cell in notebook.cells:
        for name in ("execution", "trusted", "ExecuteTime"):
            cell.metadata.pop(name, None)
        cell["id"] = _cell_id(cell, seen)
        if cell.cell_type == "code":
            cell.outputs = _clean_outputs(cell.outputs)
            _fold(cell)
    return notebook


TEACHES = {"check", "fit", "hint", "print", "show_source", "solution"}


def only_draws(source: str) -> bool:
    """Whether the code of a cell says no more than its figure or table does.

    It does where it ends in ``show_diagram(...)``; or has at least 8 lines and ends in
    ``show_figure(...)`` of a figure drawn in the cell, or in ``Markdown(...)`` of a table made of
    cards. A cell that trains, prints, shows source or checks an answer says more.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a line of IPython's own
        return False
    calls = {_called(node) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    if not tree.body or not isinstance(tree.body[-1], ast.Expr) or calls & TEACHES:
        return False
    last = _called(tree.body[-1].value)
    made_of = {"show_figure": "Figure", "Markdown": "load_card"}
    long = len(source.splitlines()) >= 8
    return last == "show_diagram" or (long and made_of.get(last) in calls)


def _called(node: ast.expr) -> str | None:
    """The name of the function that is called, without the module before it."""
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "attr", getattr(function, "id", None))


def _fold(cell: nbformat.NotebookNode) -> None:
    """Hide the source of a cell that only draws, unless its metadata says ``false`` to that."""
    jupyter = cell.metadata.pop("jupyter", {})
    if jupyter.get("source_hidden") is not False:
        jupyter.pop("source_hidden", None)
        if only_draws(cell.source):
            jupyter["source_hidden"] = True
    if jupyter:
        cell.metadata["jupyter"] = jupyter


def _cell_id(cell: nbformat.NotebookNode, seen: set[str]) -> str:
    """An id made from the cell's content, so that a new cell changes no other cell's id."""
    content = f"{cell.cell_type}\n{cell.source}"
    number = 0
    while True:
        name = hashlib.sha256(f"{content}\n{number}".encode()).hexdigest()[:12]
        if name not in seen:
            seen.add(name)
            return name
        number += 1


def _clean_outputs(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join the streams and keep the final text of progress bars."""
    kept: list[nbformat.NotebookNode] = []
    streams: dict[str, nbformat.NotebookNode] = {}
    for output in outputs:
        if output.output_type == "stream":
            if output.name in streams:
                streams[output.name].text += output.text
                continue
            streams[output.name] = output
        kept.append(output)
    for stream in streams.values():
        lines = [_last_written(line) for line in stream.text.split("\n")]
        stream.text = BAR_TIMING.sub("", "\n".join(lines))
    return kept


def _last_written(line: str) -> str:
    """What a terminal shows of a line whose beginning was written over, as in a progress bar."""
    written = line.rstrip("\r")
    return written[written.rfind("\r") + 1 :] + line[len(written) :]


def _cells_with_warnings(notebook: nbformat.NotebookNode) -> list[int]:
    """Execution counts of the cells whose stored text holds a warning."""
    return [
        cell.execution_count
        for cell in notebook.cells
        if cell.cell_type == "code"
        and any(
            output.output_type == "stream" and re.search(r"\w*Warning\b", output.text)
            for output in cell.outputs
        )
    ]
