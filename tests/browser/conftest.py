"""A real JupyterLab and a real Chromium, started once for all browser tests that one process runs.

They end with those tests, not with the session: beside a running browser a process can run no
asyncio of its own, as the tests of the server and of notebooks do.

Without a Chromium on the machine the tests are skipped, except where the environment variable CI is
set: there a missing browser is a failure.
"""

import copy
import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import nbformat
import pytest
from matplotlib.figure import Figure
from nbformat.sign import NotebookNotary
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

from course_lib.widgets import CourseWidget
from course_lib.widgets.base import javascript, png
from course_lib.widgets.store import KERNEL, run_notebook
from tests.browser.gallery import GALLERY, SETUP
from tests.browser.harness import ACTS, PATIENCE, live_widget, run_all, settle, stored_widget

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
expect.set_options(timeout=PATIENCE)
NOTIFICATION = "@jupyterlab/apputils-extension:notification"
QUIET = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One Chromium for all browser tests."""
    # Without windows it does the same for a fifth less of the processor's time.
    chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
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

    @staticmethod
    def notebook(*cells: str) -> nbformat.NotebookNode:
        """A notebook of code cells that opens without asking for a kernel."""
        return nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells],
            metadata={"kernelspec": KERNEL},
        )

    def save(self, name: str, notebook: nbformat.NotebookNode, *, trusted: bool = False) -> str:
        """Put a notebook into the folder, trusted or not."""
        if trusted:
            self.notary.sign(notebook)
        nbformat.write(notebook, self.folder / name)
        return name

    def write(self, name: str, *cells: str) -> str:
        """Put a notebook that was never run into the folder."""
        return self.save(name, self.notebook(*cells))


@contextmanager
def running_lab(
    home: Path, folder: Path, course: Path = ROOT, settings: dict[str, dict] | None = None
) -> Iterator[Lab]:
    """A JupyterLab with settings and trust of its own in ``home`` that serves ``folder``.

    ``course`` is the folder that holds the ``course_lib`` of its kernels and of the server;
    ``settings`` are a user's, by the name of the plugin.
    """
    for plugin, values in {NOTIFICATION: QUIET, **(settings or {})}.items():
        package, _, name = plugin.partition(":")
        path = home / "settings" / package / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_CONFIG_PATH": str(ROOT / "jupyter"),  # as an environment of the course has it
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": str(course),
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
        try:
            server.wait(timeout=60)  # it ends its kernels first
        except subprocess.TimeoutExpired:
            # Now and then it has ended all, and Python waits for ever for a thread that reads
            # files for it (AnyIO's) and was never told to end.
            server.kill()
            server.wait()
        log.close()


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for all browser tests that share one."""
    folder = tmp_path_factory.mktemp("notebooks")
    with running_lab(tmp_path_factory.mktemp("jupyter"), folder) as lab:
        yield lab


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
        self.allowed = (origin, origin.replace("http", "ws", 1), "data:", "blob:", "about:")
        self.page = page
        self.heard = {
            "pageerror": self._error,
            "console": self._console,
            "request": self._request,
        }
        for event, hear in self.heard.items():
            page.on(event, hear)

    def stop(self) -> None:
        """What the page does from now on is nobody's fault."""
        for event, hear in self.heard.items():
            self.page.remove_listener(event, hear)

    def _error(self, error: Error) -> None:
        self.faults.append(f"page error: {error}\n{error.stack}")

    def _console(self, message: ConsoleMessage) -> None:
        url = message.location["url"]
        # Jupyter's server fails to list a kernel that another page is just starting: it has no
        # time of activity yet (https://github.com/jupyter-server/enterprise_gateway/issues/1395
        # has the same). Every page asks for that list again and again.
        listing = "status of 500" in message.text and urlsplit(url).path == "/api/kernels"
        if message.type == "error" and not listing:
            self.faults.append(f"console error: {message.text} ({url})")

    def _request(self, request: Request) -> None:
        if not request.url.startswith(self.allowed):
            self.faults.append(f"request: {request.url}")


@pytest.fixture(scope="package")
def open_page(lab: Lab, browser: Browser) -> Iterator[Callable[[str], Page]]:
    """``open_page(name)`` opens a notebook of ``lab``; at the end no page may have misbehaved."""
    opened = []

    def open_(name: str) -> Page:
        context = browser.new_context(viewport={"width": 1000, "height": 900})
        page = context.new_page()
        page.add_init_script(ACTS)
        opened.append((context, name, Watch(page, lab.url)))
        page.goto(f"{lab.url}/doc/tree/{name}?reset&token={lab.token}")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        return page

    yield open_
    for context, _, _ in opened:
        context.close()
    assert not [f"{name}: {fault}" for _, name, watch in opened for fault in watch.faults]


@pytest.fixture(scope="package")
def gallery_run() -> Iterator[Future]:
    """The gallery run as the course's notebooks are, beside all else: it takes as long as a test
    file, most of it in starting.
    """
    with ThreadPoolExecutor(1) as beside:
        notebook = Lab.notebook(SETUP, *GALLERY.values())
        yield beside.submit(run_notebook, notebook, folder=ROOT)


@pytest.fixture(scope="package")
def live(gallery_run: Future, lab: Lab, open_page: Callable[[str], Page]) -> Page:
    """A notebook with every widget of the gallery, just run: cell k + 1 shows the k-th widget."""
    page = open_page(lab.write("live.ipynb", SETUP, *GALLERY.values()))
    run_all(page)
    for index in range(len(GALLERY)):
        live_widget(page, index + 1)
    return page


@pytest.fixture(scope="package")
def gallery_outputs(gallery_run: Future) -> nbformat.NotebookNode:
    """The same notebook, run and stored as the course's notebooks are."""
    return gallery_run.result()


@pytest.fixture(scope="package")
def trusted(
    lab: Lab, open_page: Callable[[str], Page], gallery_outputs: nbformat.NotebookNode
) -> Page:
    """The stored notebook, trusted and reopened, all widgets alive; nothing is run."""
    page = open_page(lab.save("trusted.ipynb", gallery_outputs, trusted=True))
    for index in range(len(GALLERY)):
        settle(stored_widget(page, index + 1))
    return page


@pytest.fixture(scope="package")
def untrusted(
    lab: Lab, open_page: Callable[[str], Page], gallery_outputs: nbformat.NotebookNode
) -> Page:
    """The stored notebook as a stranger finds it: reopened, but not trusted."""
    # Trust is a signature of the content, so that this copy must not be the same.
    other = copy.deepcopy(gallery_outputs)
    other.cells.append(nbformat.v4.new_markdown_cell("Not trusted."))
    return open_page(lab.save("untrusted.ipynb", other))


@pytest.fixture(scope="package")
def plain_page(browser: Browser) -> Callable[..., AbstractContextManager[Page]]:
    """Open pages without JupyterLab; at the end none may have misbehaved.

    It is asked ``with plain_page(html, path, width, height) as page``, which writes the page to the
    path; other options are those of a browser's page.

    A browser's page takes three times as long to start as to show something else: it is kept for
    the next one that asks for no options.
    """
    idle = []

    @contextmanager
    def plain_page_(
        html: str, path: Path, width: int, height: int, **options: object
    ) -> Iterator[Page]:
        path.write_text(f"<!DOCTYPE html><meta charset='utf-8'>{html}")
        page = idle.pop() if idle and not options else browser.new_page(**options)
        page.set_viewport_size({"width": width, "height": height})
        watch = Watch(page, path.as_uri())
        page.goto(path.as_uri())
        yield page
        watch.stop()
        if options:
            page.close()
        else:
            page.mouse.move(0, 0)
            page.emulate_media(media="null")
            page.goto("about:blank")
            page.set_viewport_size({"width": 1, "height": 1})  # of which nothing else remains
            idle.append(page)
        assert not watch.faults

    return plain_page_


@cache
def white() -> bytes:
    """A still picture of nothing, as large as most."""
    return png(Figure(figsize=(6, 4)))


def widget_of(page: Page) -> Locator:
    """The stored widget of a plain page, painted."""
    shown = page.query_selector("iframe").content_frame().locator(".course-widget")
    settle(shown)
    return shown


@pytest.fixture
def show(
    plain_page: Callable[..., AbstractContextManager[Page]], tmp_path: Path
) -> Iterator[Callable[..., Locator]]:
    """``show(widget)`` opens its stored form in a plain page, as nbconvert writes it; at the end no
    page may have misbehaved.

    ``width`` is the page's, ``style`` its body's; ``before`` and ``after`` are HTML around the
    widget; other options are those of a browser's page. The still picture, which a living widget
    hides, takes longest to make: it is a white one unless ``picture`` asks for the widget's own.
    """
    names = (f"page_{k}.html" for k in itertools.count())
    with ExitStack() as opened:

        def show_(
            widget: CourseWidget,
            *,
            width: int = 800,
            style: str = "background: white",
            before: str = "",
            after: str = "",
            picture: bool = False,
            **options: object,
        ) -> Locator:
            with nullcontext() if picture else patch.object(widget, "still", white):
                stored = widget.static_html()
            html = f"<body style='{style}'>{before}{stored}{after}"
            page = plain_page(html, tmp_path / next(names), width, 1000, **options)
            return widget_of(opened.enter_context(page))

        yield show_


@pytest.fixture(scope="package")
def functions_of(browser: Browser) -> Iterator[Callable[[str, str], Page]]:
    """``functions_of("warp.js", "areas, total")`` is a page that holds these functions of a
    widget's module, as ``parts.areas`` and ``parts.total``.
    """
    pages = []

    def functions_of_(name: str, functions: str) -> Page:
        page = browser.new_page()
        pages.append(page)
        exports = "export default { render };"
        assert exports in javascript(name)
        source = javascript(name).replace(exports, f"window.parts = {{ {functions} }};")
        page.add_script_tag(content=source, type="module")
        page.wait_for_function("window.parts")
        return page

    yield functions_of_
    for page in pages:
        page.close()
