"""PixelByPixel in a real browser: pixels clicked and flipped, answered by the kernel, or not."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Lab
from tests.browser.gallery import GALLERY
from tests.browser.harness import (
    computing_time,
    cut_off,
    fingerprint,
    live_widget,
    painted,
    python,
    set_theme,
    settle,
    stored_frame,
    stored_widget,
    wait_for_python,
    wait_until_it_differs,
    wait_until_it_is,
)

CELL = list(GALLERY).index("pixels") + 1

# The colour of one pixel of the left picture, at a corner: marks stand in the middle.
COLOUR = """(canvas, [row, column]) => {
  const [head, gap, bar] = [20, 24, 68];
  const ratio = canvas.width / canvas.clientWidth;
  const room = (canvas.clientWidth - gap - bar) / 2;
  const cell = Math.floor(Math.min(room / 8, 320 / 8));
  const place = (i) => ratio * (i * cell + 0.22 * cell);
  const at = [place(column), ratio * head + place(row), 1, 1];
  return [...canvas.getContext("2d").getImageData(...at).data].slice(0, 3);
}"""

# The 95th percentile of the time between frames while the slider is dragged, in ms.
DRAG = """async widget => {
  const slider = widget.querySelector("input[type=range]");
  const deltas = [];
  let before = await new Promise(requestAnimationFrame);
  for (let i = 0; i < 65; i++) {
    slider.value = String(i % 65);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    const now = await new Promise(requestAnimationFrame);
    deltas.push(now - before);
    before = now;
  }
  return deltas;
}"""


@pytest.fixture
def gate(lab: Lab) -> Iterator[Path]:
    """A file that holds how many answers the model may give; without it, as many as asked."""
    gate = lab.folder / "gate"
    yield gate
    gate.unlink(missing_ok=True)


@pytest.fixture
def pixels(live: Page) -> Locator:
    """The live widget with a whole image, written by a model that is quick and does not fail."""
    python(live, "trouble = ''; pixels.label, pixels.rate, pixels.playing = 0, 64 / 6, False")
    python(live, "pixels.request(0); written.clear(); pixels.step = 64")
    widget = live_widget(live, CELL)
    live.mouse.move(0, 0)
    expect(widget.locator(".cw-readout")).to_have_text("64 / 64")
    expect(status(widget)).to_have_text("")
    settle(widget)
    return widget


@pytest.fixture
def stored(trusted: Page) -> Locator:
    """The stored widget at its first step."""
    widget = stored_frame(trusted, CELL).locator(".course-widget")
    widget.focus()
    widget.press("Home")
    settle(widget)
    return widget


def status(widget: Locator) -> Locator:
    return widget.locator(".pixel-status")


def captions(widget: Locator) -> list[str]:
    return widget.locator(".pixel-label.strong").all_inner_texts()


def colour(widget: Locator, row: int, column: int) -> list[int]:
    return widget.locator("canvas").first.evaluate(COLOUR, [row, column])


def click(widget: Locator, row: int, column: int) -> None:
    """Click a pixel of the left picture."""
    canvas = widget.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    width = canvas.bounding_box()["width"]
    cell = int(min((width - 24 - 68) / 2 / 8, 320 / 8))
    canvas.click(position={"x": (column + 0.5) * cell, "y": 20 + (row + 0.5) * cell})
    widget.page.mouse.move(0, 0)


def ask(page: Page, expression: str) -> object:
    """What an expression is in the kernel, through JSON."""
    return json.loads(python(page, f"import json; print(json.dumps({expression}))"))


# ---------------------------------------------------------------------------------------- playing


@pytest.mark.parametrize("form", ["live", "stored"])
def test_a_step_writes_one_pixel(form: str, request: pytest.FixtureRequest) -> None:
    widget = request.getfixturevalue({"live": "pixels", "stored": "stored"}[form])
    widget.focus()
    widget.press("Home")
    first = settle(widget)
    assert captions(widget) == ["0 of 64 pixels written", "next: p = 0.00"]
    widget.press("ArrowRight")
    wait_until_it_differs(widget, first)
    assert captions(widget) == ["1 of 64 pixels written", "next: p = 0.01"]
    grey = colour(widget, 0, 0)
    assert grey in ([0, 0, 0], [255, 255, 255])
    # Written column by column: (0, 1) is far from written, (1, 0) comes next.
    assert colour(widget, 0, 1) not in ([0, 0, 0], [255, 255, 255])
    for _ in range(8):
        widget.press("ArrowRight")
    settle(widget)
    assert colour(widget, 0, 1) in ([0, 0, 0], [255, 255, 255])
    widget.press("ArrowLeft")
    settle(widget)
    assert colour(widget, 0, 1) not in ([0, 0, 0], [255, 255, 255])
    assert captions(widget) == ["8 of 64 pixels written", "next: p = 0.08"]


@pytest.mark.parametrize("form", ["live", "stored"])
def test_it_plays_in_whole_pixels(form: str, request: pytest.FixtureRequest) -> None:
    widget = request.getfixturevalue({"live": "pixels", "stored": "stored"}[form])
    widget.focus()
    widget.press("Home")
    before = settle(widget)
    widget.page.wait_for_timeout(300)
    assert fingerprint(widget) == before  # nothing moves until asked
    widget.get_by_role("button", name="Play").click()
    seen = set()
    for _ in range(6):
        seen.add(widget.locator(".cw-readout").inner_text())
        widget.page.wait_for_timeout(150)
    widget.get_by_role("button", name="Pause").click()
    assert len(seen) > 2
    assert not [text for text in seen if "." in text]
    paused = widget.locator(".cw-readout").inner_text()
    widget.focus()
    widget.press("ArrowLeft")
    before = int(paused.split()[0]) - 1
    assert int(painted(widget.locator(".cw-readout")).inner_text().split()[0]) == before


# --------------------------------------------------------------------------------------- rewriting


def test_a_click_flips_a_pixel_and_keeps_its_history(pixels: Locator, live: Page) -> None:
    before = ask(live, "pixels.image.T.ravel().tolist()")  # column by column: in the order
    click(pixels, 3, 2)
    place = 2 * 8 + 3
    expect(status(pixels)).to_contain_text("Flipped row 4, column 3")
    given, n_known, label = ask(
        live, "[written[-1][0].T.ravel().tolist(), written[-1][1], written[-1][2]]"
    )
    assert (n_known, label, ask(live, "len(written)")) == (place + 1, 0, 1)
    assert given == [*before[:place], 1 - before[place], *[0] * (63 - place)]
    after = ask(live, "pixels.image.T.ravel().tolist()")
    assert after[: place + 1] == given[: place + 1]
    changed = sum(a != b for a, b in zip(before[place + 1 :], after[place + 1 :], strict=True))
    expect(status(pixels)).to_have_text(
        f"Flipped row 4, column 3: {changed} of {63 - place} later pixels changed."
    )
    expect(pixels.locator(".cw-readout")).to_have_text("64 / 64")  # shown at once, in full
    expect(pixels.locator(".pixel-mean")).to_contain_text(f"blue: the {place + 1} given pixels")
    settle(pixels)
    shown = [colour(pixels, i % 8, i // 8)[0] / 255 for i in range(64) if i != place]
    assert shown == after[:place] + after[place + 1 :]


def test_what_changed_is_marked_until_something_else_is_asked(pixels: Locator, live: Page) -> None:
    click(pixels, 0, 4)
    expect(status(pixels)).to_contain_text("Flipped")
    marked = settle(pixels)
    python(live, "pixels.request(64)")  # the same image, without a change
    expect(status(pixels)).to_have_text("Rewritten: no pixel comes after it.")
    wait_until_it_differs(pixels, marked)


def test_a_click_while_it_plays_plays_on_from_there(pixels: Locator, live: Page) -> None:
    pixels.focus()
    pixels.press("Home")
    python(live, "pixels.step = 40; pixels.rate = 2")  # slow: a click may take its time
    expect(pixels.locator(".cw-readout")).to_have_text("40 / 64")
    pixels.get_by_role("button", name="Play").click()
    click(pixels, 0, 0)
    expect(status(pixels)).to_contain_text("Flipped row 1, column 1")
    now = int(pixels.locator(".cw-readout").inner_text().split()[0])
    assert now < 30
    expect(pixels.get_by_role("button", name="Pause")).to_be_visible()
    pixels.get_by_role("button", name="Pause").click()


def test_an_unwritten_pixel_cannot_be_flipped(pixels: Locator, live: Page) -> None:
    python(live, "pixels.step = 8")
    expect(pixels.locator(".cw-readout")).to_have_text("8 / 64")
    click(pixels, 0, 1)
    expect(status(pixels)).to_have_text("This pixel is not written yet.")
    assert ask(live, "len(written)") == 0


def test_again_from_here_keeps_what_is_written(pixels: Locator, live: Page) -> None:
    again = pixels.locator(".pixel-again")
    expect(again).to_have_text("A new image")
    before = ask(live, "pixels.image.T.ravel().tolist()")
    python(live, "pixels.step = 20")
    expect(again).to_have_text("Again from here")
    again.click()
    expect(status(pixels)).to_contain_text("of 44 later pixels changed.")
    assert ask(live, "written[-1][1]") == 20
    assert ask(live, "pixels.image.T.ravel().tolist()")[:20] == before[:20]
    expect(again).to_have_text("Again after 20 pixels")
    again.click()
    expect(status(pixels)).to_contain_text("of 44 later pixels changed.")
    assert ask(live, "[call[1] for call in written]") == [20, 20]


def test_another_class_rewrites_all(pixels: Locator, live: Page) -> None:
    select = pixels.get_by_label("Class")
    select.focus()
    select.press("ArrowDown")
    expect(pixels.locator(".pixel-mean")).to_contain_text("no pixel given")
    assert ask(live, "[list(call[1:]) for call in written]") == [[0, 1]]
    assert ask(live, "pixels.label") == 1
    click(pixels, 7, 7)
    expect(status(pixels)).to_contain_text("Flipped row 8, column 8")
    assert ask(live, "list(written[-1][1:])") == [64, 1]
    python(live, "pixels.label = 0")
    expect(select).to_have_value("0")


def test_another_continuation_becomes_the_image(pixels: Locator, live: Page) -> None:
    python(live, "pixels.request(10)")
    expect(pixels.locator(".pixel-mean")).to_contain_text("10 given pixels")
    before = settle(pixels)
    third = pixels.get_by_role("button", name="Continuation 3")
    third.click()
    wait_until_it_differs(pixels, before)
    expect(third).to_have_attribute("aria-pressed", "true")
    assert ask(live, "[pixels.choice, len(written)]") == [2, 1]
    image = ask(live, "pixels.images[2].T.ravel().tolist()")
    pixels.focus()
    pixels.press("Home")
    pixels.press("ArrowRight")
    assert captions(pixels)[1] == "next: p = 0.13"
    pixels.press("End")
    click(pixels, 7, 3)
    expect(status(pixels)).to_contain_text("Flipped row 8, column 4")
    assert ask(live, "written[-1][0].T.ravel().tolist()")[:31] == image[:31]


def test_keys_choose_a_pixel_and_flip_it(pixels: Locator, live: Page) -> None:
    pixels.focus()
    pixels.press("Home")
    for _ in range(12):
        pixels.press("ArrowRight")
    before = settle(pixels)
    pixels.press("Shift+ArrowUp")  # begins at the pixel that was written last
    wait_until_it_differs(pixels, before)
    expect(pixels.locator("[aria-live]").first).to_contain_text("row 4, column 2, is ")
    pixels.press("Shift+ArrowLeft")
    pixels.press("Shift+ArrowDown")
    expect(pixels.locator("[aria-live]").first).to_contain_text("row 5, column 1, is ")
    assert captions(pixels)[1] == "row 5, column 1: p = 0.04"
    expect(pixels.locator(".cw-readout")).to_have_text("12 / 64")  # the player has not moved
    pixels.press("Enter")
    expect(status(pixels)).to_contain_text("Flipped row 5, column 1")
    assert ask(live, "written[-1][1]") == 5
    assert live.locator(".jp-mod-editMode .jp-Cell.jp-mod-active").count() == 0


# ------------------------------------------------------------------------------ waiting and errors


def test_a_stale_answer_is_not_shown(pixels: Locator, live: Page, gate: Path) -> None:
    before = ask(live, "pixels.image.T.ravel().tolist()")
    gate.write_text("0")
    shown = settle(pixels)
    click(pixels, 2, 1)
    expect(status(pixels)).to_have_text("Waiting for the kernel …")
    expect(pixels).to_have_attribute("aria-busy", "true")
    click(pixels, 3, 1)  # the reader asks something else, twice, while the kernel works
    click(pixels, 5, 6)
    gate.write_text("1")
    # The first answer is here, and dropped: the picture is the old one, still waiting.
    # (The kernel may have begun the next one: it answers widgets beside its cells.)
    wait_for_python(live, "print(pixels.n_known)", "11")
    live.wait_for_timeout(200)
    expect(status(pixels)).to_have_text("Waiting for the kernel …")
    expect(pixels.locator(".pixel-mean")).to_contain_text("no pixel given")
    assert colours(pixels, 10) == before[:10]
    gate.write_text("2")
    expect(status(pixels)).to_contain_text("Flipped row 6, column 7")
    expect(pixels).to_have_attribute("aria-busy", "false")
    assert ask(live, "[call[1] for call in written]") == [11, 54]  # (3, 1) was never asked
    given = ask(live, "written[-1][0].T.ravel().tolist()")
    assert given[:54] == [*before[:53], 1 - before[53]]  # of the picture that was clicked
    assert settle(pixels) != shown


def colours(widget: Locator, count: int) -> list[float]:
    """The first pixels of the left picture, column by column."""
    return [colour(widget, i % 8, i // 8)[0] / 255 for i in range(count)]


def test_an_answer_to_someone_else_is_not_taken_for_ours(
    pixels: Locator, live: Page, gate: Path
) -> None:
    gate.write_text("0")
    # The kernel writes for Python first; the click was made before and waits for its own answer.
    pixels.page.evaluate(
        """() => void jupyterapp.shell.currentWidget.sessionContext.session.kernel
             .requestExecute({ code: "pixels.request(5)" })"""
    )
    click(pixels, 2, 1)
    gate.write_text("1")
    expect(pixels).to_have_attribute("aria-busy", "true")
    pixels.page.wait_for_timeout(300)
    expect(pixels.locator(".pixel-mean")).to_contain_text("no pixel given")
    gate.write_text("2")
    expect(status(pixels)).to_contain_text("Flipped row 3, column 2")
    assert ask(live, "[call[1] for call in written]") == [5, 11]
    expect(pixels.locator(".pixel-mean")).to_contain_text("11 given pixels")


def test_what_goes_wrong_is_shown_in_one_line(pixels: Locator, live: Page) -> None:
    before = settle(pixels)
    python(live, "trouble = 'the model\\nis tired'")
    pixels.get_by_label("Class").select_option("1")
    expect(status(pixels)).to_have_text("write failed: RuntimeError: the model is tired")
    expect(pixels.get_by_label("Class")).to_have_value("0")
    expect(pixels).to_have_attribute("aria-busy", "false")
    assert settle(pixels) == before
    assert ask(live, "pixels.status") == "error"
    python(live, "trouble = ''")
    click(pixels, 7, 7)
    expect(status(pixels)).to_contain_text("Flipped row 8, column 8")


def test_python_drives_it(pixels: Locator, live: Page) -> None:
    before = settle(pixels)
    python(live, "pixels.flip(1, 0)")
    expect(status(pixels)).to_contain_text("Flipped row 2, column 1")
    wait_until_it_differs(pixels, before)
    python(live, "pixels.step = 3")
    expect(pixels.locator(".cw-readout")).to_have_text("3 / 64")
    python(live, "pixels.choice = 4")
    expect(pixels.get_by_role("button", name="Continuation 5")).to_have_attribute(
        "aria-pressed", "true"
    )


def test_without_a_kernel_it_says_so(stored: Locator) -> None:
    stored.press("End")
    before = settle(stored)
    for act in (
        lambda: click(stored, 2, 2),
        lambda: stored.locator(".pixel-again").click(),
        lambda: stored.get_by_label("Class").select_option("1"),
    ):
        act()
        expect(status(stored)).to_have_text("Rewriting needs a running kernel: run this cell.")
        assert settle(stored) == before
        stored.get_by_role("button", name="Continuation 2").click()
        expect(status(stored)).to_have_text("")
        wait_until_it_differs(stored, before)
        stored.get_by_role("button", name="Continuation 1").click()
        assert settle(stored) == before
    expect(stored.get_by_label("Class")).to_have_value("0")


# ------------------------------------------------------------------------------------------- looks


def test_both_themes(pixels: Locator, live: Page) -> None:
    python(live, "pixels.step = 20")
    expect(pixels.locator(".cw-readout")).to_have_text("20 / 64")
    light = settle(pixels)
    ink = "root => getComputedStyle(root.querySelector('.pixel-label.strong')).color"
    assert (pixels.evaluate(ink), max(colour(pixels, 7, 7)) > 180) == ("rgb(31, 35, 40)", True)
    set_theme(pixels.page, "Dark")
    wait_until_it_differs(pixels, light)
    assert (pixels.evaluate(ink), max(colour(pixels, 7, 7)) < 140) == ("rgb(232, 234, 237)", True)
    set_theme(pixels.page, "Light")
    wait_until_it_is(pixels, light)


@pytest.mark.parametrize("width", [500, 640, 700, 1000])
def test_nothing_is_cut_off(trusted: Page, width: int) -> None:
    widget = stored_widget(trusted, CELL)
    parts = ".pixel-label, .pixel-name, .cw-readout, button, select, .pixel-status, .cw-hint"
    found = cut_off(widget, [width], parts)
    widget.evaluate("root => { root.ownerDocument.body.style.width = ''; }")
    assert found == []


def test_a_drag_of_the_slider_is_smooth(stored: Locator) -> None:
    assert computing_time(stored, DRAG) < 15
