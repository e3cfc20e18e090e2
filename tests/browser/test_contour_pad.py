"""ContourPad in a real browser: drawn with the mouse and by keys, answered by the kernel."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import ContourPad
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    DRAG_IN_CIRCLES,
    computing_time,
    live_widget,
    python,
    settle,
    wait_for_python,
)

CELL = list(GALLERY).index("contour") + 1
SIDE = 16
IMAGE = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [...data];
}"""


@pytest.fixture
def pad(live: Page) -> Locator:
    """The live widget with its first contour and a draw that is quick and does not fail."""
    python(live, "wait, trouble = 0.0, ''")
    start = "outlines[0] == 1, 0, 1.0"
    asked = "contour.contour, contour.prompt, contour.strength"
    python(live, f"with contour.hold_sync():\n    {asked} = {start}")
    widget = live_widget(live, CELL)
    expect(status(widget)).to_contain_text("Computed before")
    settle(widget)
    python(live, "drawings.clear()")
    return widget


@pytest.fixture
def stored(show: Callable[..., Locator]) -> Locator:
    """The stored form of the gallery's widget, in a plain page."""
    return show(in_python("contour"))


def status(widget: Locator) -> Locator:
    return widget.locator(".contour-status")


def press(widget: Locator, name: str) -> None:
    widget.get_by_role("button", name=name, exact=True).click()


def stroke(widget: Locator, *pixels: tuple[float, float], button: str = "left") -> None:
    """Draw with the mouse through pixels given as (row, column)."""
    canvas = widget.locator(".cw-stage canvas")
    canvas.scroll_into_view_if_needed()
    box, mouse = canvas.bounding_box(), widget.page.mouse
    points = [
        (
            box["x"] + (column + 0.5) / SIDE * box["width"],
            box["y"] + (row + 0.5) / SIDE * box["height"],
        )
        for row, column in pixels
    ]
    mouse.move(*points[0])
    mouse.down(button=button)
    for point in points[1:]:
        mouse.move(*point)
    mouse.up(button=button)


def slide(widget: Locator, *values: float) -> None:
    """Move the slider through values, faster than any answer."""
    widget.locator("input[type=range]").evaluate(
        """(input, values) => {
          for (const value of values) {
            input.value = value;
            input.dispatchEvent(new Event("input", { bubbles: true }));
          }
        }""",
        list(values),
    )


def image(widget: Locator) -> np.ndarray:
    """The image beside the pad, [3, H, W] of 0 ... 255."""
    data = widget.locator(".contour-image").evaluate(IMAGE)
    return np.array(data).reshape(SIDE, SIDE, 4).transpose(2, 0, 1)[:3]


def check_drawn(page: Page, wanted: list[list[int]]) -> None:
    """Wait until these pixels, and no others, are drawn in Python."""
    wait_for_python(page, "print(np.argwhere(contour.contour).tolist())", str(wanted))


# ---------------------------------------------------------------------------------- with a kernel


def test_a_stroke_is_answered_with_its_steps(pad: Locator, live: Page) -> None:
    press(pad, "Clear")
    expect(status(pad)).to_have_text("Drawn: 4 states, from noise to the image.")
    stroke(pad, (2, 2), (2, 9))
    check_drawn(live, [[2, column] for column in range(2, 10)])
    expect(status(pad)).to_have_text("Drawn: 4 states, from noise to the image.")
    wait_for_python(live, "print(contour.status)", "done")
    assert pad.locator(".contour-steps canvas").count() == 4
    shown = image(pad)
    wanted = np.full((3, SIDE, SIDE), 51)
    wanted[0, 2, 2:10] += 102
    assert np.abs(shown - wanted).max() <= 1
    press(pad, "Undo")
    check_drawn(live, [])


def test_a_line_is_one_pixel_wide_and_the_rubber_three(pad: Locator, live: Page) -> None:
    press(pad, "Clear")
    stroke(pad, (2, 2), (10, 9))  # neither along a row nor a diagonal
    wait_for_python(live, "print(contour.contour.sum(1)[2:11].max())", "1")
    wait_for_python(live, "print(contour.contour.any(1)[2:11].all())", "True")
    press(pad, "Rub out")
    stroke(pad, (2, 2))
    wait_for_python(live, "print(contour.contour.any(1)[:4].any())", "False")
    press(pad, "Rub out")
    stroke(pad, (10, 9), button="right")
    wait_for_python(live, "print(contour.contour.any(1)[9:].any())", "False")


def test_keys_draw_too(pad: Locator, live: Page) -> None:
    press(pad, "Clear")
    canvas = pad.locator(".cw-stage canvas")
    live.mouse.move(0, 0)
    canvas.focus()
    for key in ("ArrowUp", " ", "Shift+ArrowLeft", "Shift+ArrowLeft", "ArrowDown", " "):
        canvas.press(key)
    check_drawn(live, [[7, 6], [7, 7], [7, 8], [8, 6]])
    expect(pad.locator("[aria-live]").first).to_have_text("Row 9, column 7, drawn")
    canvas.press(" ")
    check_drawn(live, [[7, 6], [7, 7], [7, 8]])


def test_given_contours_and_strengths_need_no_question(pad: Locator, live: Page) -> None:
    press(pad, "Contour 2")
    press(pad, "a thin green 0")
    slide(pad, 1.5)
    wait_for_python(live, "print(contour.prompt, contour.strength)", "1 1.5")
    expect(status(pad)).to_contain_text("Computed before")
    assert python(live, "print(len(drawings))") == "0"
    assert image(pad)[1, 0, 15] == pytest.approx(255 * 0.8, abs=1)
    slide(pad, 1.3)
    expect(status(pad)).to_have_text("Drawn: 4 states, from noise to the image.")
    assert python(live, "print(len(drawings), drawings[-1][1:])") == "1 (1, 1.3)"


def test_what_was_drawn_meanwhile_and_changed_again_is_dropped(pad: Locator, live: Page) -> None:
    python(live, "wait = 0.1")
    press(pad, "Clear")
    expect(pad).to_have_attribute("aria-busy", "true")
    expect(status(pad)).to_contain_text("is there")  # progress
    slide(pad, 0.6, 0.65, 0.7, 0.75, 0.8)
    expect(status(pad)).to_have_text("Drawn: 4 states, from noise to the image.")
    expect(pad).to_have_attribute("aria-busy", "false")
    asked = python(live, "print([question[2] for question in drawings])")
    # A busy machine may have answered before the slider moved: then its first place is asked for.
    assert asked in ("[1.0, 0.8]", "[1.0, 0.6, 0.8]")
    assert np.abs(image(pad) - 51).max() <= 1


def test_an_image_that_is_awaited_is_pale(pad: Locator, live: Page) -> None:
    python(live, "wait = 0.1")
    stroke(pad, (0, 0), (0, 3))
    expect(pad.locator(".contour-image")).to_have_class("contour-image stale")
    expect(pad.locator(".contour-image")).to_have_class("contour-image")


def test_what_goes_wrong_is_shown_in_one_line(pad: Locator, live: Page) -> None:
    python(live, "trouble = 'the model\\nis tired'")
    press(pad, "Clear")
    expect(status(pad)).to_have_text("draw failed: RuntimeError: the model is tired")
    expect(pad).to_have_attribute("aria-busy", "false")
    assert python(live, "print(contour.status)") == "error"
    python(live, "trouble = ''")
    stroke(pad, (1, 1), (1, 4))
    expect(status(pad)).to_have_text("Drawn: 4 states, from noise to the image.")


def test_python_draws(pad: Locator, live: Page) -> None:
    python(live, "contour.contour = np.eye(16) == 1; contour.strength = 0.75")
    expect(status(pad)).to_have_text("Drawn: 4 states, from noise to the image.")
    expect(pad.locator("output")).to_have_text("0.75")
    assert image(pad)[0, 3, 3] == pytest.approx(255 * 0.5, abs=1)


# ------------------------------------------------------------------------------- without a kernel


def test_the_stored_form_is_alive_for_what_was_computed(stored: Locator) -> None:
    assert image(stored)[0, 3, 7] == pytest.approx(255 * 0.6, abs=1)
    slide(stored, 1.9)
    expect(stored.locator("output")).to_have_text("2.00")  # there are five strengths
    assert image(stored)[0, 3, 7] == pytest.approx(255, abs=1)
    press(stored, "Contour 2")
    press(stored, "a thin green 0")
    assert image(stored)[1, 0, 15] == pytest.approx(255, abs=1)
    expect(status(stored)).to_contain_text("Computed before")


def test_without_a_kernel_it_says_so(stored: Locator) -> None:
    before = image(stored)
    stroke(stored, (1, 1), (1, 9))
    expect(status(stored)).to_contain_text("needs the kernel")
    assert (image(stored) == before).all()
    expect(stored.locator(".contour-image")).to_have_class("contour-image stale")
    press(stored, "Undo")
    expect(status(stored)).to_contain_text("Computed before")


def test_a_finger_draws(show: Callable[..., Locator]) -> None:
    widget = show(in_python("contour"), has_touch=True)
    box = widget.locator(".cw-stage canvas").bounding_box()
    session = widget.page.context.new_cdp_session(widget.page)
    x = box["x"] + 0.28 * box["width"]
    for kind, share in [("touchStart", 0.2), ("touchMove", 0.5), ("touchMove", 0.8)]:
        touch = {"x": x, "y": box["y"] + share * box["height"]}
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [touch]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(status(widget)).to_contain_text("needs the kernel")
    assert widget.page.evaluate("scrollY") == 0


def test_drawing_is_smooth(show: Callable[..., Locator]) -> None:
    outlines = np.zeros((2, 32, 32))
    examples = np.random.default_rng(0).random((2, 2, 5, 3, 32, 32))
    widget = show(ContourPad(outlines, ["one", "two"], lambda *_: None, examples=examples))
    canvas = widget.locator(".cw-stage canvas")
    said = ".cw-row button:nth-of-type(2)"  # says the same all the while: the pad itself changes
    before = settle(widget)
    assert computing_time(canvas, DRAG_IN_CIRCLES, [150, 110, said, 1]) < 15
    assert settle(widget) != before
