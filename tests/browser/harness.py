"""What the browser tests do with a page: find a widget, look at its pixels, talk to its kernel."""

from playwright.sync_api import Frame, Locator, Page

# A number that changes when any pixel does (FNV-1a over the canvas's bytes).
FINGERPRINT = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let hash = 2166136261;
  for (let i = 0; i < data.length; i++) hash = Math.imul(hash ^ data[i], 16777619);
  return hash;
}"""

EXECUTE = """async code => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const future = kernel.requestExecute({ code, store_history: false });
  let text = "";
  future.onIOPub = ({ header, content }) => {
    if (header.msg_type === "stream" && content.name === "stdout") text += content.text;
    if (header.msg_type === "error") text += content.ename + ": " + content.evalue;
  };
  await future.done;
  return text.trim();
}"""


def run_all(page: Page) -> None:
    """Run all cells of the open notebook, once its kernel is idle."""
    page.wait_for_function(
        """() => {
          const session = jupyterapp.shell.currentWidget?.sessionContext?.session;
          return session?.kernel?.status === "idle";
        }""",
        timeout=60_000,
    )
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")


def python(page: Page, code: str) -> str:
    """Run code in the open notebook's kernel; what it prints, or its error."""
    return page.evaluate(EXECUTE, code)


def set_theme(page: Page, name: str) -> None:
    """Turn JupyterLab "Light" or "Dark", and wait until its splash screen is gone.

    A second turn while the splash screen fades makes JupyterLab itself report an error.
    """
    page.evaluate(
        "name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})",
        f"JupyterLab {name}",
    )
    page.wait_for_function(
        "dark => document.body.dataset.jpThemeLight === String(!dark)", arg=name == "Dark"
    )
    page.wait_for_selector("#jupyterlab-splash", state="detached")


def cell_output(page: Page, index: int) -> Locator:
    """The output area of a code cell."""
    return page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-Cell-outputArea")


def live_widget(page: Page, index: int) -> Locator:
    """The widget that the kernel shows under a cell."""
    widget = cell_output(page, index).locator(".course-widget")
    widget.scroll_into_view_if_needed(timeout=60_000)
    return widget


def stored_frame(page: Page, index: int) -> Frame:
    """The iframe of a stored widget under a cell."""
    handle = cell_output(page, index).locator("iframe").element_handle(timeout=20_000)
    frame = handle.content_frame()
    frame.wait_for_selector(".course-widget canvas")
    return frame


def fingerprint(widget: Locator) -> int:
    """A number that changes when any pixel of the widget's first canvas does."""
    return widget.locator("canvas").first.evaluate(FINGERPRINT)


def wait_until_it_differs(widget: Locator, before: int, *, timeout: float = 5_000) -> None:
    """Wait until the widget's picture is another one."""
    widget.page.wait_for_timeout(50)
    for _ in range(int(timeout / 50)):
        if fingerprint(widget) != before:
            return
        widget.page.wait_for_timeout(50)
    raise AssertionError("the picture did not change")


def settle(widget: Locator) -> int:
    """Wait until the picture is painted and stands still; its fingerprint."""
    before = None
    for _ in range(100):
        now = fingerprint(widget) if widget.locator("canvas").count() else None
        if now is not None and now == before:
            return now
        before = now
        widget.page.wait_for_timeout(100)
    raise AssertionError("the picture keeps moving")
