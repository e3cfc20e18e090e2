"""From each chapter one comes to the next, to the one before, and to all; drawing is folded."""

import re
from pathlib import Path

import jupytext
import pytest
from nbformat import NotebookNode

from course_lib.widgets.store import only_draws

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
TEXTS = sorted((NOTEBOOKS / "text").glob("*.py"))
CONTENTS = "[Contents](../README.md#chapters)"
LINK = re.compile(r"\]\((?![\w+.-]+:|#)([^()\s#]+)(#[^()\s]*)?\)")


def chapter(text: Path) -> NotebookNode:
    return jupytext.read(text, fmt="py:percent")


def title(text: Path) -> str:
    """The title of a chapter, with its number."""
    return re.search(r"^# # (\d\d[a-z]? · .+)$", text.read_text(encoding="utf-8"), re.MULTILINE)[1]


def navigation(texts: list[Path], k: int) -> str:
    """The line of links of chapter ``k`` of the list."""
    parts = [CONTENTS]
    if k > 0:
        parts.insert(0, f"[← {title(texts[k - 1])}]({texts[k - 1].stem}.ipynb)")
    if k + 1 < len(texts):
        parts.append(f"[{title(texts[k + 1])} →]({texts[k + 1].stem}.ipynb)")
    return " | ".join(parts)


@pytest.mark.parametrize("k", range(len(TEXTS)), ids=[text.stem for text in TEXTS])
def test_the_first_and_the_last_cell_lead_on(k: int) -> None:
    cells = chapter(TEXTS[k]).cells
    wanted = navigation(TEXTS, k)
    assert (cells[0].cell_type, cells[0].source) == ("markdown", wanted)
    assert (cells[-1].cell_type, cells[-1].source) == ("markdown", wanted)


def broken_links(source: str, folder: Path) -> list[str]:
    """The relative links of a page whose target isn't there."""
    return [match[1] for match in LINK.finditer(source) if not (folder / match[1]).exists()]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_every_relative_link_leads_somewhere(text: Path) -> None:
    pages = "\n".join(c.source for c in chapter(text).cells if c.cell_type == "markdown")
    assert broken_links(pages, NOTEBOOKS) == []


def test_the_contents_lead_to_every_chapter_in_order() -> None:
    page = (NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8")
    assert broken_links(page, NOTEBOOKS.parent) == []
    chapters = page.partition("\n## Chapters\n")[2].partition("\n## ")[0]
    assert re.findall(r"\]\(notebooks/(\w+)\.ipynb\)", chapters) == [t.stem for t in TEXTS]


def test_a_link_to_nowhere_is_found() -> None:
    page = "[a](01_autoregressive.ipynb) [b](99_x.ipynb#c) [c](https://x.org/y) [d](#e)"
    assert broken_links(page, NOTEBOOKS) == ["99_x.ipynb"]


# --- folded cells ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_the_line_that_is_seen_of_a_folded_cell_is_short(text: Path) -> None:
    """JupyterLab shows the first in one piece: a longer one makes a page of 700 px scroll."""
    folded = [
        cell.source.splitlines()[0]
        for cell in chapter(text).cells
        if cell.metadata.get("jupyter", {}).get("source_hidden")
    ]
    assert [line for line in folded if len(line) > 72] == []


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_cells_that_only_draw_are_folded_and_no_others(text: Path) -> None:
    """``python -m course_lib store`` folds them."""
    cells = [cell for cell in chapter(text).cells if cell.cell_type == "code"]
    wrong = []
    for cell in cells:
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden")
        if hidden is not False and bool(hidden) != only_draws(cell.source):
            wrong.append((hidden, cell.source[:80]))
    assert wrong == []
    assert any(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in cells)
