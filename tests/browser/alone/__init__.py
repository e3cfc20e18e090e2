"""Tests that need no JupyterLab, or one of their own: any process may run them."""
