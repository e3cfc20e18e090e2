"""A real JupyterLab and a real Chromium, started once for all browser tests.

Without a Chromium on the machine the tests are skipped, except where the environment variable CI is
set: there a missing browser is a failure.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbformat.sign import NotebookNotary
from playwright.sync_api import Browser, Page, sync_playwright

from course_lib.widgets.store import run_notebook

ROOT = Path(__file__).parents[2]
CHROMIUM_OPTIONS = [
    "--headless",
    "--no-sandbox",  # the sandbox does not start for root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
QUIET = '{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": true}'


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for the whole session."""
    chromium = shutil.which("chromium")
    if chromium is None:
        message = "no chromium on the PATH (Debian: apt-get install chromium)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@dataclass
class Lab:
    """A running JupyterLab: its address, its folder of notebooks and its own trust store."""

    url: str
    token: str
    folder: Path
    notary: NotebookNotary

    def write(self, name: str, *cells: str, run: bool = False, trusted: bool = False) -> str:
        """Write a notebook with code cells, executed and stored or not, trusted or not."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell, id=f"cell-{i}") for i, cell in enumerate(cells)],
            metadata={
                "kernelspec": {
                    "name": "python3",
                    "display_name": "Python 3 (ipykernel)",
                    "language": "python",
                }
            },
        )
        if run:
            notebook = run_notebook(notebook, folder=ROOT)
        if trusted:
            self.notary.sign(notebook)
        nbformat.write(notebook, self.folder / name)
        return name


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for the whole session, with settings and trust of its own."""
    home = tmp_path_factory.mktemp("jupyter")
    folder = tmp_path_factory.mktemp("notebooks")
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(QUIET)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("COURSE_WIDGETS", None)  # its kernels show live widgets
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser"),
        *("--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"),
        "--LabApp.news_url=",
        "--log-level=ERROR",
    ]
    if os.geteuid() == 0:
        command.append("--allow-root")
    log = (home / "server.log").open("w")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for_server(server, f"{url}/api/status?token={token}", home / "server.log")
        yield Lab(url, token, folder, NotebookNotary(data_dir=str(home / "data")))
    finally:
        server.terminate()
        server.wait(timeout=20)
        log.close()


def _wait_for_server(server: subprocess.Popen, status: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(status, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not answer within a minute:\n{log.read_text()}")


class Watch:
    """What a page must not do: report an error, or ask any origin but its own."""

    def __init__(self, page: Page, origin: str) -> None:
        self.faults: list[str] = []
        allowed = (origin, origin.replace("http", "ws"), "data:", "blob:", "about:")
        page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        page.on(
            "console",
            lambda message: (
                self.faults.append(f"console error: {message.text}")
                if message.type == "error"
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(allowed)
                else self.faults.append(f"request: {request.url}")
            ),
        )


@pytest.fixture
def open_notebook(lab: Lab, browser: Browser) -> Iterator[Callable[..., Page]]:
    """``open_notebook(name, kernel=True)`` opens a notebook of ``lab``; faults fail the test."""
    opened = []

    def open_(name: str, *, kernel: bool = True, theme: str = "light") -> Page:
        context = browser.new_context(viewport={"width": 1000, "height": 900})
        page = context.new_page()
        watch = Watch(page, lab.url)
        opened.append((context, watch))
        page.goto(f"{lab.url}/doc/tree/{name}?reset&token={lab.token}")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        if theme == "dark":
            page.evaluate(
                "jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
            )
        return page

    yield open_
    faults = []
    for context, watch in opened:
        context.close()
        faults += watch.faults
    assert not faults


def run_all(page: Page) -> None:
    """Run all cells of the open notebook and wait until the last has its number."""
    page.wait_for_function(
        "() => { const panel = jupyterapp.shell.currentWidget;"
        " return panel && panel.sessionContext && panel.sessionContext.session"
        " && panel.sessionContext.session.kernel"
        " && panel.sessionContext.session.kernel.status === 'idle'; }",
        timeout=60_000,
    )
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
