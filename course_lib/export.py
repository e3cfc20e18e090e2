"""Exported pages: what leads from chapter to chapter leads from page to page.

nbconvert leaves links as they are. A link to ``05_realnvp_glow.ipynb``, which JupyterLab and GitHub
follow, would show a reader of exported HTML the file's source. ``ChapterLinks`` is named in
``jupyter/nbconvert``, for ``jupyter nbconvert``, and by ``course_lib/server.py``, for JupyterLab's
*Save and Export Notebook As*.
"""

import re
from typing import Any

from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode

__all__ = ["ChapterLinks"]

# A link of Markdown to a notebook beside this one or below, not to one on another site.
TO_NOTEBOOK = re.compile(r"(\]\((?![\w+.-]+:|//)[^()\s]*)\.ipynb(?=(?:#[^()\s]*)?\))")


class ChapterLinks(Preprocessor):
    """In Markdown cells, ``.html`` in place of ``.ipynb`` at the end of relative links."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """One cell; the notebook that is exported is a copy already."""
        if cell.cell_type == "markdown":
            cell.source = TO_NOTEBOOK.sub(r"\1.html", cell.source)
        return cell, resources
