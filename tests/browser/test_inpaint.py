"""Inpaint in a real browser: scratched with the mouse and by keys, filled in by the kernel."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import Inpaint
from tests.browser.gallery import GALLERY
from tests.browser.harness import (
    DRAG_IN_CIRCLES,
    computing_time,
    fingerprint,
    live_widget,
    python,
    settle,
    stored_frame,
    wait_for_python,
    wait_until_it_differs,
)

CELL = list(GALLERY).index("inpaint") + 1

# How long it takes from the click on "Fill in" until the widget says that it is done, in ms.
ROUND_TRIP = """widget => new Promise(resolve => {
  const status = widget.querySelector(".inpaint-status");
  const start = performance.now();
  const observer = new MutationObserver(() => {
    if (!status.textContent.includes("filled in")) return;
    observer.disconnect();
    resolve(performance.now() - start);
  });
  observer.observe(status, { childList: true, subtree: true });
  widget.querySelector(".inpaint-fill").click();
})"""


@pytest.fixture
def inpaint(live: Page) -> Locator:
    """The live widget with nothing scratched out and a fill that is quick and does not fail."""
    python(live, "calls.clear(); delay, fault = 0.0, ''; inpaint.image_index = 0")
    python(live, "inpaint.known = np.ones((8, 8), dtype=bool)")
    widget = live_widget(live, CELL)
    expect(status(widget)).to_have_text("Drag over the picture to scratch pixels out.")
    settle(widget)
    return widget


@pytest.fixture
def stored(trusted: Page) -> Locator:
    """The stored widget with its example."""
    widget = stored_frame(trusted, CELL).locator(".course-widget")
    example = widget.get_by_role("button", name="Show the example")
    if example.is_visible():
        example.click()
    settle(widget)
    return widget


def status(widget: Locator) -> Locator:
    return widget.locator(".inpaint-status")


def press(widget: Locator, name: str) -> None:
    widget.get_by_role("button", name=name, exact=True).click()


def press_quickly(widget: Locator, *names: str) -> None:
    """Press several buttons, faster than any answer."""
    widget.evaluate(
        """(widget, names) => {
          const buttons = [...widget.querySelectorAll("button")];
          for (const name of names) buttons.find((b) => b.textContent.startsWith(name)).click();
        }""",
        list(names),
    )


def fill_in(widget: Locator) -> None:
    """Press the button that is called "Fill in", or "Fill in again"."""
    widget.locator(".inpaint-fill").click()


def scratch(widget: Locator, *pixels: tuple[float, float]) -> None:
    """Draw with the mouse through pixels given as (row, column)."""
    canvas = widget.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box, mouse = canvas.bounding_box(), widget.page.mouse
    points = [
        (box["x"] + (column + 0.5) / 8 * box["width"], box["y"] + (row + 0.5) / 8 * box["height"])
        for row, column in pixels
    ]
    mouse.move(*points[0])
    mouse.down()
    for point in points[1:]:
        mouse.move(*point)
    mouse.up()


def check_hidden(page: Page, wanted: list[list[int]]) -> None:
    """Wait until these pixels, and no others, are scratched out in Python."""
    wait_for_python(page, "print(np.argwhere(~inpaint.known).tolist())", str(wanted))


def test_scratching_tells_python_which_pixels(inpaint: Locator, live: Page) -> None:
    before = settle(inpaint)
    scratch(inpaint, (1, 1), (1, 5))  # one straight move: no pixel on the way is left out
    wait_until_it_differs(inpaint, before)
    check_hidden(live, [[1, column] for column in range(1, 6)])
    expect(status(inpaint)).to_have_text("5 pixels scratched out.")
    live.keyboard.down("Shift")
    scratch(inpaint, (1, 3))
    live.keyboard.up("Shift")
    check_hidden(live, [[1, 1], [1, 2], [1, 4], [1, 5]])
    press(inpaint, "Undo")
    press(inpaint, "Undo")
    check_hidden(live, [])


def test_keys_scratch_too(inpaint: Locator, live: Page) -> None:
    canvas = inpaint.locator("canvas").first
    live.mouse.move(0, 0)
    canvas.focus()
    for key in ("ArrowUp", "ArrowLeft", "ArrowLeft", " ", "ArrowDown", " "):
        canvas.press(key)
    check_hidden(live, [[3, 2], [4, 2]])
    expect(inpaint.locator("[aria-live]").first).to_have_text("Row 5, column 3, scratched out")
    canvas.press(" ")
    check_hidden(live, [[3, 2]])


def test_halves_and_clear(inpaint: Locator, live: Page) -> None:
    press(inpaint, "Top half")
    check_hidden(live, [[row, column] for row in range(4) for column in range(8)])
    press(inpaint, "Bottom half")
    check_hidden(live, [[row, column] for row in range(4, 8) for column in range(8)])
    press(inpaint, "Random half")
    expect(status(inpaint)).to_have_text("32 pixels scratched out.")
    wait_for_python(live, "print((~inpaint.known).sum(), (~inpaint.known[:4]).any())", "32 True")
    press(inpaint, "Clear")
    check_hidden(live, [])
    expect(inpaint.get_by_role("button", name="Fill in")).to_be_disabled()


def test_the_kernel_fills_in_and_its_steps_are_played(inpaint: Locator, live: Page) -> None:
    press(inpaint, "Image 2")
    scratch(inpaint, (2, 2), (5, 5))
    scratched = settle(inpaint)
    fill_in(inpaint)
    expect(status(inpaint)).to_contain_text("filled in")
    wait_until_it_differs(inpaint, scratched)
    expect(inpaint.locator(".cw-readout")).to_have_text("4 / 4")
    told = "print(inpaint.status, inpaint.image_index, inpaint.step, len(calls))"
    wait_for_python(live, told, "done 1 4.0 1")
    filled = settle(inpaint)
    inpaint.focus()
    inpaint.press("Home")
    assert settle(inpaint) != filled
    # Another scratch and the answer no longer fits; undone, it does again.
    scratch(inpaint, (7, 7))
    expect(inpaint.locator(".cw-readout")).to_be_hidden()
    assert python(live, "print(inpaint.status)") == "idle"
    press(inpaint, "Undo")
    expect(inpaint.locator(".cw-readout")).to_be_visible()


def test_the_round_trip_is_short(inpaint: Locator) -> None:
    took = []
    for preset in ("Top half", "Bottom half", "Random half", "Top half", "Bottom half"):
        press(inpaint, preset)
        inpaint.page.wait_for_timeout(250)
        took.append(inpaint.evaluate(ROUND_TRIP))
    print(f"round trips: {', '.join(f'{milliseconds:.0f}' for milliseconds in took)} ms")
    assert sorted(took)[2] < 1000  # generous: a quiet machine takes a twentieth of that


def test_a_stale_answer_is_not_shown(inpaint: Locator, live: Page) -> None:
    python(live, "delay = 1.0")
    press(inpaint, "Top half")
    fill_in(inpaint)
    expect(status(inpaint)).to_have_text("Waiting for the kernel …")
    expect(inpaint).to_have_attribute("aria-busy", "true")
    scratch(inpaint, (6, 1), (6, 6))  # the reader goes on while the kernel works
    scratched = settle(inpaint)
    expect(status(inpaint)).to_have_text("38 pixels scratched out.")
    assert settle(inpaint) == scratched
    expect(inpaint.locator(".cw-readout")).to_be_hidden()
    assert python(live, "print(inpaint.status, len(calls))") == "idle 1"

    # Impatient clicks ask once; scratches that changed since are asked for when it has answered.
    python(live, "delay = 0.3")
    press_quickly(inpaint, *4 * ["Fill in"])
    expect(status(inpaint)).to_contain_text("38 pixels filled in")
    press_quickly(inpaint, "Top half", "Fill in", "Bottom half", "Fill in", "Fill in")
    expect(status(inpaint)).to_contain_text("32 pixels filled in")
    masks = "[[int(mask[:4].all()), int(mask[4:].all())] for mask in calls]"
    assert python(live, f"print({masks})") == "[[0, 1], [0, 0], [0, 1], [1, 0]]"


def test_what_goes_wrong_is_shown_in_one_line(inpaint: Locator, live: Page) -> None:
    python(live, "fault = 'the model\\nis tired'")
    press(inpaint, "Top half")
    fill_in(inpaint)
    expect(status(inpaint)).to_have_text("fill failed: RuntimeError: the model is tired")
    expect(inpaint).to_have_attribute("aria-busy", "false")
    assert python(live, "print(inpaint.status)") == "error"
    python(live, "fault = ''")
    fill_in(inpaint)
    expect(status(inpaint)).to_contain_text("filled in")


def test_python_scratches_and_fills(inpaint: Locator, live: Page) -> None:
    before = settle(inpaint)
    python(live, "inpaint.image_index = 3; inpaint.known = np.eye(8) == 0")
    expect(status(inpaint)).to_have_text("8 pixels scratched out.")
    expect(inpaint.get_by_role("button", name="Image 4")).to_have_attribute("aria-pressed", "true")
    wait_until_it_differs(inpaint, before)
    assert python(live, "inpaint.request(); print(inpaint.status)") == "done"
    expect(inpaint.locator(".cw-readout")).to_have_text("4 / 4")
    expect(status(inpaint)).to_contain_text("8 pixels filled in")


def test_the_stored_example_plays(stored: Locator) -> None:
    stored.focus()
    stored.press("Home")
    first = settle(stored)
    stored.page.wait_for_timeout(300)
    assert fingerprint(stored) == first  # nothing moves until asked
    fill_in(stored)
    wait_until_it_differs(stored, first)
    expect(stored.locator(".cw-readout")).to_have_text("4 / 4")


def test_without_a_kernel_it_says_so(stored: Locator) -> None:
    before = settle(stored)
    scratch(stored, (0, 0), (2, 2))
    expect(status(stored)).to_contain_text("35 pixels scratched out")
    wait_until_it_differs(stored, before)
    fill_in(stored)
    expect(status(stored)).to_have_text("Run this cell to fill in your own scratches.")
    press(stored, "Show the example")
    expect(status(stored)).to_contain_text("32 pixels filled in")


def test_a_stroke_is_smooth(show: Callable[..., Locator]) -> None:
    images = np.random.default_rng(0).random((4, 28, 28))
    widget = show(Inpaint(images, lambda image, known: image, title="Scratch"))
    press(widget, "Clear")
    canvas = widget.locator(".cw-stage canvas")
    assert computing_time(canvas, DRAG_IN_CIRCLES, [160, 110, ".inpaint-status", 30]) < 15
