"""What is stored of each notebook: its pair says the same, and its outputs are fit to be read.

``notebook_problems`` looks at one notebook, and one test below runs it on each notebook of the
course. The rest of the file breaks a good notebook on purpose, to see that each rule bites.
"""

import ast
import asyncio
import copy
import os
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import jupytext
import nbformat
import pytest
from ipykernel.ipkernel import IPythonKernel
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from nbformat import NotebookNode
from nbformat.sign import MemorySignatureStore
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tornado.web import HTTPError

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = sorted((ROOT / "notebooks" / "text").glob("*.py"))

LARGEST = 3_000_000  # bytes
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}

WIDGET_TYPES = {
    "application/vnd.jupyter.widget-view+json",
    "application/vnd.jupyter.widget-state+json",
}
TEXT_TYPES = ("text/plain", "text/html", "text/markdown", "text/latex", "image/svg+xml")
PATHS = re.compile(
    r"(?<![\w./:])/(?:home|root|Users|tmp|work|usr|opt|var|mnt|private)/|\b[A-Z]:\\|site-packages"
)
ADDRESSES = re.compile(r"\bat 0x[0-9a-fA-F]{4,}")
TIMINGS = re.compile(
    r"\bit/s\b|\bs/it\b|CPU times|Wall time|\belapsed\b"
    r"|\d\.\d+ ?(?:s|ms|µs|us|ns|sec|secs|seconds|min|minutes)\b|\d ?(?:ms|µs|us|ns)\b"
    r"|\[\d+:\d\d<",
    re.IGNORECASE,
)
WARNINGS = re.compile(r"\b\w*Warning\b:|\bwarnings?\.warn|Traceback \(most recent call last\)")
BASE64 = re.compile(r"[A-Za-z0-9+/=]{120,}")


class Visible(HTMLParser):
    """The words of an HTML output, and what its pictures and frames lack."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.lacks: list[str] = []
        self.silent = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "style"}:
            self.silent += 1
        if tag == "img" and not (given.get("alt") or "").strip():
            self.lacks.append("an <img> without alt text")
        if tag == "iframe" and not (given.get("title") or "").strip():
            self.lacks.append("an <iframe> without a title")

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style"} and self.silent:
            self.silent -= 1

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.words.append(data)


def expects_output(source: str) -> bool:
    """Whether a cell surely shows something: it prints, displays, or ends in a bare name."""
    try:
        body = ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.MULTILINE)).body
    except SyntaxError:
        return False
    if not body or source.rstrip().endswith(";"):
        return False
    for statement in body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call):
            called = call.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in {"print", "display"}:
                return True
    last = body[-1]
    return isinstance(last, ast.Expr) and isinstance(last.value, ast.Name | ast.BinOp)


def as_text(value: object) -> str:
    """A field of a notebook, which may be stored as a list of lines."""
    return "".join(value) if isinstance(value, list) else str(value)


def output_problems(output: NotebookNode) -> list[str]:
    """What one stored output should not hold."""
    if output.output_type == "error":
        return [f"an error is stored: {output.get('ename')}"]
    found = []
    if output.output_type == "stream":
        if output.name == "stderr":
            found.append(f"stderr is stored: {as_text(output.text)[:80]!r}")
        texts = {"text/plain": as_text(output.text)}
    else:
        texts = {t: as_text(output.data[t]) for t in TEXT_TYPES if t in output.data}
        found += [f"a widget view is stored: {t}" for t in sorted(WIDGET_TYPES & set(output.data))]
        for kind in output.data:
            if kind.startswith("image/"):
                described = output.metadata.get(kind, {}).get("alt") or output.metadata.get("alt")
                if not described:
                    found.append(f"{kind} without alt text in the output's metadata")
    for kind, text in texts.items():
        raw = BASE64.sub("", text)
        words = raw
        if kind == "text/html":
            page = Visible(raw)
            found += page.lacks
            words = " ".join(page.words)
        for what, pattern, where in [
            ("a path of one machine", PATHS, raw),
            ("an address", ADDRESSES, words),
            ("a timing", TIMINGS, words),
            ("a warning", WARNINGS, words),
        ]:
            if match := pattern.search(where):
                around = where[max(match.start() - 20, 0) : match.end() + 20]
                found.append(f"{what}: {around!r}")
    return found


def canonical(notebook: NotebookNode) -> str:
    """The inputs of a notebook, as jupytext writes them, without what the header adds."""
    inputs = new_notebook(
        cells=copy.deepcopy(notebook.cells),
        metadata={k: v for k, v in notebook.metadata.items() if k == "kernelspec"},
    )
    return jupytext.writes(inputs, fmt="py:percent")


def notebook_problems(path: Path, text: Path) -> list[str]:
    """All that is wrong with a stored notebook, one line each."""
    found = []
    if path.stat().st_size > LARGEST:
        found.append(f"{path.stat().st_size:,} bytes, more than {LARGEST:,}")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)

    if not text.exists():
        found.append(f"no pair: {text.name}")
    elif canonical(notebook) != canonical(jupytext.read(text, fmt="py:percent")):
        found.append("the pair differs: run `jupytext --sync`")
    if dict(notebook.metadata.get("kernelspec", {})) != KERNEL:
        found.append(f"kernelspec is {dict(notebook.metadata.get('kernelspec', {}))}")
    if "widgets" in notebook.metadata:
        found.append("widget state is stored in the metadata")

    ran = 0
    for i, cell in enumerate(notebook.cells):
        here = f"cell {i}"
        if cell.cell_type == "markdown":
            prose = re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.DOTALL)
            if re.search(r"!\[\s*\]\(", prose):
                found.append(f"{here}: a picture without alt text")
            found += [f"{here}: {lack}" for lack in Visible(prose).lacks]
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        ran += 1
        if cell.execution_count != ran:
            found.append(f"{here}: run as number {cell.execution_count}, expected {ran}")
        if not cell.outputs and expects_output(cell.source):
            found.append(f"{here}: an output is missing")
        for output in cell.outputs:
            found += [f"{here}: {problem}" for problem in output_problems(output)]
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_notebook_is_fit_to_be_read(path: Path) -> None:
    assert notebook_problems(path, path.parent / "text" / f"{path.stem}.py") == []


def test_every_text_has_its_notebook() -> None:
    assert [path.stem for path in TEXTS] == [path.stem for path in NOTEBOOKS]


# --- The rules bite -------------------------------------------------------------------------


PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
WIDGET = (
    f'<img alt="Two moons" src="data:image/png;base64,{PICTURE}">'
    '<iframe title="Particles" srcdoc="&lt;script&gt;let t = 1.5;&lt;/script&gt;"></iframe>'
)


def good_notebook() -> NotebookNode:
    """A notebook with one output of each kind that the course stores."""
    figure = {"image/png": PICTURE, "text/plain": "<Figure size 640x480 with 1 Axes>"}
    return new_notebook(
        metadata={"kernelspec": dict(KERNEL)},
        cells=[
            new_markdown_cell("# Title\n\n![A map](map.png) and `![](code)`"),
            new_code_cell("import torch", execution_count=1),
            new_code_cell(
                "print('loss fell below 1.30: True, in at most 20 seconds')",
                execution_count=2,
                outputs=[
                    new_output(
                        "stream",
                        name="stdout",
                        text="loss fell below 1.30: True, in at most 20 seconds\n",
                    )
                ],
            ),
            new_code_cell(
                "player",
                execution_count=3,
                metadata={"tags": ["see"]},
                outputs=[new_output("display_data", data={"text/html": WIDGET})],
            ),
            new_code_cell(
                "plot(x);",
                execution_count=4,
                outputs=[
                    new_output(
                        "display_data", data=figure, metadata={"image/png": {"alt": "A bell"}}
                    )
                ],
            ),
            new_code_cell(""),
        ],
    )


def store(folder: Path, notebook: NotebookNode, text: NotebookNode | None = None) -> list[Path]:
    """Write a notebook and its pair (of another notebook's inputs, where one is given)."""
    paths = [folder / "notebooks" / "99_x.ipynb", folder / "notebooks" / "text" / "99_x.py"]
    paths[1].parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, paths[0])
    jupytext.write(text or notebook, paths[1], fmt="py:percent")
    (folder / "jupytext.toml").write_bytes((ROOT / "jupytext.toml").read_bytes())
    return paths


def test_a_good_notebook_passes(tmp_path: Path) -> None:
    assert notebook_problems(*store(tmp_path, good_notebook())) == []


def test_a_good_notebook_passes_with_what_jupyterlab_adds(tmp_path: Path) -> None:
    notebook = good_notebook()
    notebook.metadata["language_info"] = dict(IPythonKernel.language_info)
    notebook.cells[1].metadata["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
    notebook.cells[1].metadata["trusted"] = True
    assert notebook_problems(*store(tmp_path, notebook)) == []


def printing(text: str) -> Callable[[NotebookNode], None]:
    """Store a notebook that printed the given text."""

    def change(notebook: NotebookNode) -> None:
        notebook.cells[2].outputs[0].text = text

    return change


def showing(html: str) -> Callable[[NotebookNode], None]:
    """Store a notebook that showed the given HTML."""

    def change(notebook: NotebookNode) -> None:
        notebook.cells[3].outputs[0].data["text/html"] = html

    return change


def setting(where: Callable[[NotebookNode], NotebookNode], **values: object) -> Callable:
    """Store a notebook with some fields set to something else."""

    def change(notebook: NotebookNode) -> None:
        where(notebook).update(values)

    return change


BROKEN: list[tuple[str, Callable[[NotebookNode], None]]] = [
    ("kernelspec", lambda n: n.metadata.pop("kernelspec")),
    ("kernelspec", lambda n: n.metadata.kernelspec.update(name="my-venv")),
    ("widget state", setting(lambda n: n.metadata, widgets={"state": {}})),
    ("run as number None", setting(lambda n: n.cells[1], execution_count=None)),
    ("run as number 7", setting(lambda n: n.cells[2], execution_count=7)),
    ("an output is missing", setting(lambda n: n.cells[2], outputs=[])),
    ("an output is missing", setting(lambda n: n.cells[3], outputs=[])),
    (
        "an error is stored: ValueError",
        lambda n: n.cells[1].outputs.append(
            new_output("error", ename="ValueError", evalue="no", traceback=[])
        ),
    ),
    ("stderr is stored", setting(lambda n: n.cells[2].outputs[0], name="stderr")),
    (
        "a widget view is stored",
        lambda n: (
            n.cells[3]
            .outputs[0]
            .data.update({"application/vnd.jupyter.widget-view+json": {"model_id": "1"}})
        ),
    ),
    ("image/png without alt", setting(lambda n: n.cells[4].outputs[0], metadata={})),
    ("a picture without alt", setting(lambda n: n.cells[0], source="![](map.png)")),
    ("an <img> without alt", setting(lambda n: n.cells[0], source='<img src="map.png">')),
    ("an <img> without alt", showing('<img alt=" " src="x">')),
    ("an <iframe> without a title", showing('<iframe srcdoc="x"></iframe>')),
    ("a path of one machine", showing("<iframe title='t' srcdoc='read /tmp/x'></iframe>")),
    ("a path of one machine", printing("saved to /home/ada/course/x.png")),
    ("a path of one machine", printing("/Users/ada/x")),
    ("a path of one machine", printing(r"C:\Users\ada")),
    ("a path of one machine", printing("python3.11/site-packages/torch/nn.py")),
    ("an address", printing("<function f at 0x7f3b9c0d1e50>")),
    ("a timing", printing("100%|####| 300/300 [00:03<00:00, 91.2it/s]")),
    ("a timing", printing("trained in 3.2 s")),
    ("a timing", printing("took 12 ms")),
    ("a timing", printing("Wall time: 3 s")),
    ("a timing", showing("<p>took <b>4.07 seconds</b></p>")),
    ("a warning", printing("x.py:3: UserWarning: careful")),
    ("a warning", printing("Traceback (most recent call last):")),
    ("bytes, more than", printing("A" * (LARGEST + 1))),
]


@pytest.mark.parametrize(("said", "change"), BROKEN, ids=range(len(BROKEN)))
def test_a_bad_notebook_is_found(
    tmp_path: Path, said: str, change: Callable[[NotebookNode], None]
) -> None:
    notebook = good_notebook()
    change(notebook)
    found = notebook_problems(*store(tmp_path, notebook))
    assert len(found) == 1, found
    assert said in found[0]


@pytest.mark.parametrize(
    "change",
    [
        setting(lambda n: n.cells[0], source="# Another title"),
        setting(lambda n: n.cells[1], source="import numpy"),
        setting(lambda n: n.cells[3], metadata={}),
        lambda n: n.cells.pop(1),
        lambda n: n.cells.insert(1, n.cells.pop(2)),
        lambda n: n.metadata.kernelspec.update(name="other"),
    ],
)
def test_a_pair_that_differs_is_found(
    tmp_path: Path, change: Callable[[NotebookNode], None]
) -> None:
    text = good_notebook()
    change(text)
    found = notebook_problems(*store(tmp_path, good_notebook(), text))
    assert found == ["the pair differs: run `jupytext --sync`"]


def test_a_missing_pair_is_found(tmp_path: Path) -> None:
    path, text = store(tmp_path, good_notebook())
    text.unlink()
    assert notebook_problems(path, text) == ["no pair: 99_x.py"]


# --- What JupyterLab does with a pair -------------------------------------------------------


def contents_manager(folder: Path) -> AsyncLargeFileManager:
    """The contents manager that JupyterLab runs on, with signatures kept in memory."""
    manager = jupytext.build_async_jupytext_contents_manager_class(AsyncLargeFileManager)()
    manager.root_dir = str(folder)
    manager.notary.store = MemorySignatureStore()
    return manager


def opened(manager: AsyncLargeFileManager, path: str) -> NotebookNode:
    """A notebook as JupyterLab gets it when it is opened."""
    return asyncio.run(manager.get(path, content=True, type="notebook"))["content"]


DAY = 86_400
SHIFTS = [-1000 * DAY, -DAY, -2, 0, 2, DAY, 1000 * DAY]


@pytest.mark.parametrize("path", [None, *NOTEBOOKS], ids=lambda p: p.stem if p else "good")
def test_a_clone_opens_whatever_its_timestamps(tmp_path: Path, path: Path | None) -> None:
    notebook = nbformat.read(path, as_version=4) if path else good_notebook()
    files = store(tmp_path, notebook)
    if path:  # the text as it is stored, not as it would be written now
        files[1].write_bytes((path.parent / "text" / f"{path.stem}.py").read_bytes())
    now = time.time()
    os.utime(files[0], (now, now))
    for shift in SHIFTS:
        os.utime(files[1], (now + shift, now + shift))
        shown = opened(contents_manager(tmp_path), "notebooks/99_x.ipynb")
        assert [c.source for c in shown.cells] == [c.source for c in notebook.cells], shift
        outputs = [c.get("outputs") for c in notebook.cells]
        assert [c.get("outputs") for c in shown.cells] == outputs, shift


@pytest.mark.parametrize("seconds", [2, 10, 290, 310, DAY])
def test_newer_work_in_the_notebook_is_refused_not_lost(tmp_path: Path, seconds: float) -> None:
    """By a server that doesn't bring it over to the text: tests/test_server.py is about ours."""
    text = good_notebook()
    text.cells[1].source = "import numpy"
    files = store(tmp_path, good_notebook(), text)
    now = time.time()
    os.utime(files[1], (now - seconds, now - seconds))
    with pytest.raises(HTTPError, match="more recent"):
        opened(contents_manager(tmp_path), "notebooks/99_x.ipynb")


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", ["notebooks/99_x.ipynb", "notebooks/text/99_x.py"])
def test_a_trusted_notebook_keeps_its_html(tmp_path: Path, name: str, shift: int) -> None:
    files = store(tmp_path, good_notebook())
    now = time.time()
    os.utime(files[0], (now, now))
    os.utime(files[1], (now + shift, now + shift))
    manager = contents_manager(tmp_path)
    shown = [c for c in opened(manager, name).cells if c.cell_type == "code" and c.outputs]
    assert not any(cell.metadata.get("trusted") for cell in shown)

    manager.notary.sign(nbformat.read(files[0], as_version=4))  # what `jupyter trust` does
    shown = [c for c in opened(manager, name).cells if c.cell_type == "code" and c.outputs]
    assert all(cell.metadata.trusted for cell in shown)
    assert shown[1].outputs[0].data["text/html"] == WIDGET
