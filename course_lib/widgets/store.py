"""Run notebooks and store them the way a reader finds them: outputs in place, widgets alive.

``python -m course_lib store [NAME ...]`` reads the text pair ``notebooks/text/NAME.py``, runs it in
a fresh kernel with ``COURSE_WIDGETS=static`` and writes ``notebooks/NAME.ipynb``.
"""

import os
from pathlib import Path
from unittest.mock import patch

import nbformat
from nbclient import NotebookClient

# With this in its metadata a notebook opens without asking which kernel to use.
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def run_notebook(
    notebook: nbformat.NotebookNode, *, folder: Path, timeout: int = 600
) -> nbformat.NotebookNode:
    """Run a notebook in a fresh kernel started in ``folder``; its outputs are written into it."""
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        record_timing=False,
    )
    with patch.dict(os.environ, {"COURSE_WIDGETS": "static"}):
        return client.execute()
