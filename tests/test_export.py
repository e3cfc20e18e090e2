"""Exported pages lead to pages."""

import json
from pathlib import Path

import pytest
from nbconvert import HTMLExporter, MarkdownExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from traitlets.config import Config

from course_lib.export import ChapterLinks

CONFIG = Path(__file__).resolve().parents[1] / "jupyter/nbconvert/jupyter_nbconvert_config.json"


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("[next](05_x.ipynb)", "[next](05_x.html)"),
        ("[a](01_a.ipynb) | [b](02_b.ipynb#c) d", "[a](01_a.html) | [b](02_b.html#c) d"),
        ("[Contents](../README.md#chapters)", "[Contents](../README.md#chapters)"),
        ("[there](https://host/x.ipynb)", "[there](https://host/x.ipynb)"),
        ("[there](//host/x.ipynb)", "[there](//host/x.ipynb)"),
        ("the file 04_nice.ipynb (in `x.ipynb`)", "the file 04_nice.ipynb (in `x.ipynb`)"),
    ],
)
def test_only_links_to_notebooks_beside_it_change(source: str, wanted: str) -> None:
    notebook = new_notebook(cells=[new_markdown_cell(source), new_code_cell(f"# {source}")])
    exported, _ = ChapterLinks().preprocess(notebook, {})
    assert [cell.source for cell in exported.cells] == [wanted, f"# {source}"]


def test_what_nbconvert_reads_changes_html_alone() -> None:
    config = Config(json.loads(CONFIG.read_text(encoding="utf-8")))
    notebook = new_notebook(cells=[new_markdown_cell("[next](05_x.ipynb)")])
    page, _ = HTMLExporter(config=config).from_notebook_node(notebook)
    assert 'href="05_x.html"' in page
    markdown, _ = MarkdownExporter(config=config).from_notebook_node(notebook)
    assert "(05_x.ipynb)" in markdown
    assert notebook.cells[0].source == "[next](05_x.ipynb)"
