"""Tests that need no shared JupyterLab: a page of their own, or a server of their own."""
