"""What docs/published.md lists of other people's numbers is what the notebooks quote."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECKED = ("text", "code", "two", "one")  # how, as the page explains them


def rows():
    """Each row of the page's table: chapter, what, figures, source, checked."""
    page = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("|")
    ]
    return cells[2:]  # without the head and the line below it


def missing(figures, text):
    """Those of the figures that don't stand in the text, each as a number of its own."""
    return [
        figure
        for figure in re.split(r"[;,] ", figures)
        if not re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d|\.\d)", text)
    ]


def test_the_table_is_whole():
    table = rows()
    assert len(table) > 50
    assert [row for row in table if len(row) != 5 or not all(row)] == []
    assert [row for row in table if not row[4].startswith(CHECKED)] == []


@pytest.mark.parametrize("chapter", sorted({row[0] for row in rows()}))
def test_published_figures_stand_in_the_chapter(chapter):
    (path,) = (ROOT / "notebooks" / "text").glob(f"{chapter}_*.py")
    text = path.read_text(encoding="utf-8")
    absent = {row[1]: missing(row[2], text) for row in rows() if row[0] == chapter}
    assert {what: figures for what, figures in absent.items() if figures} == {}


def test_a_figure_is_a_number_of_its_own():
    assert missing("3.11; 0.9", "it has 3.11.") == ["0.9"]
    assert missing("3.1; 11; 3", "it has 3.11, or 13") == ["3.1", "11", "3"]
