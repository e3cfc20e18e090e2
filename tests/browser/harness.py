"""What the browser tests do with a page: find a widget, look at its pixels, talk to its kernel."""

import base64
import io
import time
from collections.abc import Iterable

import numpy as np
from PIL import Image
from playwright.sync_api import Frame, Locator, Page

# How long a test waits for what is to come, in ms: as long as a busy machine may take.
PATIENCE = 20_000

# A number that changes when any pixel does (FNV-1a over the canvas's pixels).
FINGERPRINT = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const pixels = new Uint32Array(data.buffer);
  let hash = 2166136261;
  for (let i = 0; i < pixels.length; i++) {
    hash = Math.imul(hash ^ pixels[i], 16777619);
    hash ^= hash >>> 15;
  }
  return hash;
}"""

# The next frame. A page out of sight gets none: then so many ms later.
FRAME = """(later) => new Promise((next) => {
  requestAnimationFrame(next);
  setTimeout(next, later);
})"""

# Look at the picture once a frame until `done(fingerprint, how many frames it has stood still)`;
# null where that never happens.
WATCH = f"""async (widget, done) => {{
  const fingerprint = {FINGERPRINT};
  const frame = () => ({FRAME})(100);
  const end = performance.now() + {PATIENCE};
  let before = null;
  let still = 0;
  while (performance.now() < end) {{
    await frame();
    const canvas = widget.querySelector("canvas");
    const now = canvas && canvas.width ? fingerprint(canvas) : null;
    still = now !== null && now === before ? still + 1 : 0;
    before = now;
    if (now !== null && done(now, still)) return now;
  }}
  return null;
}}"""

TWO_FRAMES = """async () => {
  for (let k = 0; k < 2; k++) await new Promise(requestAnimationFrame);
}"""

# When a hand last did something in a page: the times are those of performance.now().
ACTS = """(() => {
  const kinds = ["pointerdown", "pointermove", "pointerup", "click", "keydown", "input", "change"];
  const note = () => { window.lastAct = performance.now(); };
  for (const kind of kinds) window.addEventListener(kind, note, { capture: true });
})()"""

# Widgets tell the kernel what a hand does up to 200 ms later, and keep a change to themselves while
# the kernel has not done with the one before. What is asked after that comes after it.
EXECUTE = """async code => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const left = 300 - (performance.now() - (window.lastAct ?? -Infinity));
  if (left > 0) {
    await new Promise((next) => setTimeout(next, left));
    await kernel.requestExecute({ code: "", silent: true }).done;
  }
  const future = kernel.requestExecute({ code, store_history: false });
  let text = "";
  future.onIOPub = ({ header, content }) => {
    if (header.msg_type === "stream" && content.name === "stdout") text += content.text;
    if (header.msg_type === "error") text += content.ename + ": " + content.evalue;
  };
  await future.done;
  return text.trim();
}"""


# How long each of 60 frames takes while a widget with a player plays.
PLAY = """async widget => {
  widget.querySelector(".cw-play").click();
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 60; k++) {
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  widget.querySelector(".cw-play").click();
  return took;
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
    """Run code in the open notebook's kernel; what it prints, or its error.

    The kernel has heard before of all that a hand did in the page.
    """
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
    handle = cell_output(page, index).locator("iframe").element_handle(timeout=PATIENCE)
    frame = handle.content_frame()
    frame.wait_for_selector(".course-widget canvas")
    return frame


def stored_widget(page: Page, index: int) -> Locator:
    """The stored widget under a cell, in view and painted: out of view, an iframe gets no frames.

    Widgets above it that come to life move it, so it is brought back until it stays.
    """
    frame = stored_frame(page, index)
    iframe = cell_output(page, index).locator("iframe")
    before, now = None, iframe.bounding_box()
    for _ in range(200):
        if now == before:
            break
        iframe.scroll_into_view_if_needed()
        frame.evaluate(TWO_FRAMES)
        before, now = now, iframe.bounding_box()
    return frame.locator(".course-widget")


def fingerprint(widget: Locator) -> int:
    """A number that changes when any pixel of the widget's first canvas does."""
    return widget.locator("canvas").first.evaluate(FINGERPRINT)


def pixels(widget: Locator) -> np.ndarray:
    """The picture of the widget's first canvas once it stands still, [height, width, 3]."""
    settle(widget)
    address = widget.locator("canvas").first.evaluate("canvas => canvas.toDataURL()")
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    return np.asarray(picture.convert("RGB"), dtype=int)


def wait_until_it_differs(widget: Locator, before: int) -> None:
    """Wait until the widget's picture is another one."""
    other = f"(widget, before) => ({WATCH})(widget, (now) => now !== before)"
    assert widget.evaluate(other, before) is not None, "the picture did not change"


def wait_until_it_is(widget: Locator, wanted: int) -> None:
    """Wait until the widget's picture is this one."""
    same = f"(widget, wanted) => ({WATCH})(widget, (now) => now === wanted)"
    found = widget.evaluate(same, wanted)
    assert found is not None, "the picture did not become the wanted one"


def settle(widget: Locator) -> int:
    """Wait until the picture is painted and stands still for three frames; its fingerprint."""
    found = widget.evaluate(f"widget => ({WATCH})(widget, (now, still) => still >= 3)")
    assert found is not None, "the picture keeps moving"
    return found


def painted(node: Locator) -> Locator:
    """The same node, once all is drawn that a hand asked for: widgets draw, and write, once a
    frame.
    """
    node.evaluate(f"() => ({FRAME})(2000)")  # a busy machine may take long for a frame
    return node


def press_keys(target: Locator, keys: list[str]) -> None:
    """Press keys faster than a hand: the page hears of them as if they were pressed on ``target``.
    What they change is drawn.

    Real keys, which go through JupyterLab, take longer than what most tests want to know.
    """
    target.evaluate(
        """(target, keys) => {
          for (const key of keys) {
            const options = { key, bubbles: true, cancelable: true };
            target.dispatchEvent(new KeyboardEvent("keydown", options));
          }
        }""",
        keys,
    )
    painted(target)


def wait_for_python(page: Page, code: str, wanted: str) -> None:
    """Wait until code, run in the open notebook's kernel, prints what is wanted."""
    end = time.monotonic() + PATIENCE / 1000
    while (told := python(page, code)) != wanted:
        assert time.monotonic() < end, f"{code} printed {told}, not {wanted}"
        page.wait_for_timeout(20)


# What a frame of a widget does, in fixed amounts: numbers, lines, pixels. 12 frames of it.
WORK = """async () => {
  const [width, height] = [600, 300];
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const ctx = canvas.getContext("2d", { willReadFrequently: true });
  const image = ctx.createImageData(width, height);
  const words = new Uint32Array(image.data.buffer);
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 12; k++) {
    let x = k;
    for (let i = 0; i < words.length; i++) {
      x = Math.sin(x + i);
      words[i] = 0xff000000 + 255 * Math.exp(-x * x);
    }
    ctx.putImageData(image, 0, 0);
    ctx.lineWidth = 2;
    for (let line = 0; line < 5; line++) {
      ctx.beginPath();
      for (let i = 0; i < 150; i++) ctx.lineTo(4 * i, 150 + 140 * Math.sin(i * (line + 1) + k));
      ctx.stroke();
    }
    ctx.getImageData(0, 0, 1, 1); // which has it drawn
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  return took;
}"""
WORK_MS = 13.0  # of a frame of it, on the machine for which the limits of the tests were set


def computing_time(target: Locator, script: str, *arguments: object) -> float:
    """How long the page computes for one frame of ``script``, in ms: at 20, frames are dropped.

    ``script`` is a function of the element and ``arguments``. It moves something from frame to
    frame and returns how far apart they were. That depends on how busy the machine is, and is only
    printed; the processor time of the page's own thread does much less. What is left, a slower
    processor or one whose caches others use, slows ``WORK`` as well, before and after: the time is
    in ms of a machine that takes ``WORK_MS`` for that; on a faster one, it is the time itself.
    """
    session = target.page.context.new_cdp_session(target.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def computed(script: str, *arguments: object) -> tuple[float, list[float]]:
        before = total()
        frames = target.evaluate(script, *arguments)
        return (total() - before) / len(frames), frames

    def total() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return 1000 * next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    work = [computed(WORK)[0]]
    each, frames = computed(script, *arguments)
    work.append(computed(WORK)[0])
    session.detach()
    slower = max(1.0, np.mean(work) / WORK_MS)
    late = np.quantile(frames, 0.95)
    print(f"95 % of frames within {late:.1f} ms, {each:.1f} ms of it computed by the page")
    print(f"a machine {slower:.2f} times slower: {work[0]:.1f} and {work[1]:.1f} ms for the work")
    return each / slower


# For `computing_time`: press the mouse on a canvas and move it on in circles, 60 frames long. What
# the element `said` tells must change all the while: to at least so many different things.
DRAG_IN_CIRCLES = """async (canvas, [middle, radius, said, least]) => {
  const { left, top } = canvas.getBoundingClientRect();
  canvas.setPointerCapture = () => {};
  const fire = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {
    clientX: left + x, clientY: top + y, button: 0, pointerId: 1, bubbles: true
  }));
  fire("pointerdown", 60, 60);
  const [words, took] = [new Set(), []];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 120; k += 2) {
    fire("pointermove", middle + radius * Math.sin(k / 9), middle + radius * Math.cos(k / 7));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
    const node = document.querySelector(said);
    words.add(node.getAttribute("aria-valuetext") ?? node.textContent);
  }
  fire("pointerup", 60, 60);
  if (words.size < least) throw new Error(`nothing was dragged: ${words.size} different words`);
  return took;
}"""


CUT_OFF = """async (root, [width, parts]) => {
  root.ownerDocument.body.style.width = `${width}px`;
  for (let k = 0; k < 4; k++) await new Promise(requestAnimationFrame);
  const box = root.getBoundingClientRect();
  return [...root.querySelectorAll(parts)].filter((node) => {
    const { left, right, bottom } = node.getBoundingClientRect();
    const outside = left < box.left || right > box.right + 0.5 || bottom > box.bottom;
    // What stands in one line has no width of its own here: its box is as wide as its words.
    return outside || (node.clientWidth && node.scrollWidth > node.clientWidth + 1);
  }).map((node) => `${node.tagName} ${node.className}: ${node.textContent} at ${width}`);
}"""


def cut_off(widget: Locator, widths: Iterable[int], parts: str) -> list[str]:
    """What of ``parts`` (a CSS selector) sticks out of the widget, or holds more than it shows, in
    a page of each of these widths, in pixels.
    """
    return [found for width in widths for found in widget.evaluate(CUT_OFF, [width, parts])]
