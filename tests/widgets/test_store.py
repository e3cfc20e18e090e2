"""Storing notebooks: what is kept, what is cleaned away, and when nothing is written."""

import os
from pathlib import Path

import jupytext
import nbformat
import pytest

from course_lib.widgets import store

TEXT = """\
# %% [markdown]
# # Title

# %%
import os
import sys
import numpy as np
from course_lib import widgets

print("loss 3\\rloss 2")
print("\\r100%|##| 5/5 [00:03<00:00, 231.5it/s, loss=1.2]", file=sys.stderr)
print("in", os.path.basename(os.getcwd()))

# %%
widgets.ImagePlayer(np.zeros((2, 3, 4, 4)), title="Images")

# %%
import ipywidgets

ipywidgets.IntSlider()
"""


def write(folder: Path, text: str, name: str = "00_try") -> Path:
    """Put a text pair into a folder of notebooks; the path its notebook will have."""
    (folder / "text").mkdir(exist_ok=True)
    (folder / "text" / f"{name}.py").write_text(text)
    return folder / f"{name}.ipynb"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook that was stored once."""
    path = write(tmp_path_factory.mktemp("course"), TEXT)
    store.store(path)
    return path


def test_the_notebook_and_its_text_are_in_step(stored: Path) -> None:
    notebook = nbformat.read(stored, as_version=4)
    nbformat.validate(notebook)
    text = jupytext.read(stored.parent / "text" / "00_try.py")
    assert [c.source for c in notebook.cells] == [c.source for c in text.cells]
    assert notebook.cells[0].source == "# Title"


def test_the_notebook_opens_without_asking_for_a_kernel(stored: Path) -> None:
    metadata = nbformat.read(stored, as_version=4).metadata
    assert metadata == {"kernelspec": store.KERNEL, "language_info": store.LANGUAGE}


def test_outputs_are_stored_without_what_changes(stored: Path) -> None:
    cells = nbformat.read(stored, as_version=4).cells
    streams = {output.name: output.text for output in cells[1].outputs}
    folder = stored.parent.name
    assert streams == {"stdout": f"loss 2\nin {folder}\n", "stderr": "100%|##| 5/5\n"}
    assert [cell.execution_count for cell in cells[1:]] == [1, 2, 3]
    assert not any(cell.metadata for cell in cells)


def test_widgets_are_stored_alive_and_other_views_as_text(stored: Path) -> None:
    cells = nbformat.read(stored, as_version=4).cells
    (player,) = cells[2].outputs
    assert set(player.data) == {"text/html", "text/plain"}
    assert "<iframe" in player.data["text/html"]
    (slider,) = cells[3].outputs
    assert slider.data == {"text/plain": "IntSlider(value=0)"}


def test_storing_again_changes_nothing(stored: Path) -> None:
    before = stored.read_bytes()
    report = store.store(stored)
    # The folder's name is part of an output here, and the folder is the same.
    assert stored.read_bytes() == before
    assert report.startswith("00_try: 3 code cells, ")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\n1%\r2%\r3%\nb\n", "a\n3%\nb\n"),
        ("\r1%\r2%", "2%"),
        ("left as it is\n", "left as it is\n"),
        ("99%| | 99/100 [01:00:03<00:00, 2.5s/it]", "99%| | 99/100"),
        ("[0:1] [a<b]", "[0:1] [a<b]"),
        ("x" * 1_000_000, "x" * 1_000_000),
    ],
)
def test_a_progress_bar_keeps_its_final_text(text: str, kept: str) -> None:
    halves = [text[: len(text) // 2], text[len(text) // 2 :]]
    outputs = [nbformat.v4.new_output("stream", name="stderr", text=half) for half in halves]
    cell = nbformat.v4.new_code_cell(outputs=outputs)
    (cleaned,) = store.clean(nbformat.v4.new_notebook(cells=[cell])).cells
    assert [output.text for output in cleaned.outputs] == [kept]


def test_cell_ids_follow_the_content() -> None:
    def ids(*sources: str) -> list[str]:
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        return [cell.id for cell in store.clean(nbformat.v4.new_notebook(cells=cells)).cells]

    a, again, b = ids("a", "a", "b")
    assert len({a, again, b}) == 3
    assert ids("new", "a", "a", "b")[1:] == [a, again, b]


def test_a_failing_cell_is_shown_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "# %%\nx = 1\n\n# %%\nraise ValueError('so sorry')\n")
    write(tmp_path, "# %%\nprint(2)\n", "01_good")
    assert store.main(["--folder", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "00_try: not stored: a cell failed" in printed.err
    assert "raise ValueError('so sorry')" in printed.err
    assert not path.exists()
    assert "01_good: 1 code cells" in printed.out  # the others are stored all the same
    assert (tmp_path / "01_good.ipynb").exists()


def test_a_notebook_that_is_too_large_is_not_written(tmp_path: Path) -> None:
    path = write(tmp_path, "# %%\nprint('x' * 3_000_000)\n")
    with pytest.raises(store.StoreError, match="at most 3,000,000 bytes, got 3,000,"):
        store.store(path)
    assert not path.exists()


def test_edits_in_the_notebook_are_not_lost(tmp_path: Path) -> None:
    path = write(tmp_path, "# %%\n1 + 1\n")
    store.store(path)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source = "2 + 2"
    nbformat.write(notebook, path)
    text = path.parent / "text" / "00_try.py"
    os.utime(text, (1, 1))
    with pytest.raises(store.StoreError, match="the two differ"):
        store.store(path)
    store.store(path, from_text=True)
    assert nbformat.read(path, as_version=4).cells[0].source == "1 + 1"
    # A clone's timestamps mean nothing while both say the same.
    os.utime(text, (1, 1))
    store.store(path)


def test_a_notebook_without_a_text_gets_one(tmp_path: Path) -> None:
    path = tmp_path / "00_try.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("3 * 4")]), path)
    store.store(path)
    assert "3 * 4" in (tmp_path / "text" / "00_try.py").read_text()
    assert nbformat.read(path, as_version=4).cells[0].outputs[0].data["text/plain"] == "12"


def test_a_warning_in_the_output_is_reported(tmp_path: Path) -> None:
    path = write(tmp_path, "# %%\nimport warnings\nwarnings.warn('careful')\n")
    assert "a warning is stored in the output of cell [1]" in store.store(path)


def test_an_unknown_name_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert store.main(["--folder", str(tmp_path), "99_none"]) == 1
    assert "there is neither 99_none.ipynb nor text/99_none.py" in capsys.readouterr().err
    assert store.main(["--folder", str(tmp_path)]) == 1
    assert "no notebooks in" in capsys.readouterr().err


# ------------------------------------------------------------------------------- what is folded

DRAWING = "figure = Figure()\n" + "axes.plot(x, y)\n" * 6 + "show_figure(figure, alt='x')"
TABLE = "table = ''\n" + "table += f'{load_card(name)}'\n" * 6 + "Markdown(table)"


@pytest.mark.parametrize(
    ("source", "draws"),
    [
        (DRAWING, True),
        (DRAWING.replace("show_figure", "widgets.show_figure"), True),
        (TABLE, True),
        ("show_diagram(vae_diagram(model))", True),
        (DRAWING.replace("Figure()", "image_grid(x)"), False),
        (DRAWING.replace("axes.plot(x, y)\n", "", 2), False),  # so short that it hides nothing
        (TABLE.replace("load_card(name)", "model.log_prob(x)"), False),
        (DRAWING.replace("axes.plot(x, y)", "print(x)", 1), False),
        (DRAWING.replace("axes.plot(x, y)", "history = fit(model, x)", 1), False),
        (DRAWING + "\nshow_source(f)", False),
        (f"{DRAWING}\nx = 1", False),
        (DRAWING.replace("axes.plot(x, y)", "%timeit x", 1), False),
        ("", False),
    ],
)
def test_what_only_draws(source: str, draws: bool) -> None:
    assert store.only_draws(source) is draws


@pytest.mark.parametrize(
    ("source", "before", "after"),
    [
        (DRAWING, {}, {"jupyter": {"source_hidden": True}}),
        (DRAWING, {"jupyter": {"source_hidden": False}}, {"jupyter": {"source_hidden": False}}),
        (
            DRAWING,
            {"jupyter": {"outputs_hidden": True}, "tags": ["x"]},
            {"jupyter": {"outputs_hidden": True, "source_hidden": True}, "tags": ["x"]},
        ),
        ("x = 1", {"jupyter": {"source_hidden": True}}, {}),
        ("x = 1", {}, {}),
    ],
)
def test_a_cell_that_only_draws_is_folded(source: str, before: dict, after: dict) -> None:
    cell = nbformat.v4.new_code_cell(source, metadata=before)
    store.clean(nbformat.v4.new_notebook(cells=[cell]))
    assert cell.metadata == after


def test_what_is_folded_stays_so_in_the_text(tmp_path: Path) -> None:
    show = "def show_diagram(x):\n    return x\n\n\n# %%\nshow_diagram(1)\n"
    path = write(tmp_path, "# %%\n" + show)
    store.store(path)
    text = (tmp_path / "text" / "00_try.py").read_text()
    assert '# %% jupyter={"source_hidden": true}\nshow_diagram(1)' in text
    (cell,) = nbformat.read(path, as_version=4).cells[1:]
    assert cell.metadata == {"jupyter": {"source_hidden": True}}
