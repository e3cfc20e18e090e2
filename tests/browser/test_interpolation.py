"""Interpolation in a real browser: w is dragged, and the images and lengths follow."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import PALETTE, Interpolation
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    computing_time,
    cut_off,
    live_widget,
    press_keys,
    python,
    set_theme,
    stored_widget,
    wait_for_python,
)

CELL = list(GALLERY).index("between") + 1
WAYS, PAIRS, POSITIONS, SIDE = 2, 3, 5, 8
LEFT, RIGHT, NAME = 46, 6, 22  # around the strips, in CSS pixels

# The grey values of a small canvas, row by row.
LEVELS = """canvas => [...canvas.getContext("2d")
  .getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 === 0)"""

# The colours [r, g, b] of a canvas at places in CSS pixels.
COLOURS = """(canvas, places) => {
  const ratio = canvas.width / canvas.clientWidth;
  const ctx = canvas.getContext("2d");
  return places.map(([x, y]) => [...ctx.getImageData(x * ratio, y * ratio, 1, 1).data].slice(0, 3));
}"""

# How long the page's frames are, in ms, while w is dragged and pairs are chosen.
DRAG = """async widget => {
  const canvas = widget.querySelector(".cw-stage canvas");
  const { left, top, width } = canvas.getBoundingClientRect();
  canvas.setPointerCapture = () => {};
  const fire = (type, x) => canvas.dispatchEvent(new PointerEvent(type, {
    clientX: left + x, clientY: top + 30, button: 0, pointerId: 1, bubbles: true
  }));
  fire("pointerdown", 100);
  const buttons = [...widget.querySelectorAll(".between-pairs button")];
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 60; k++) {
    fire("pointermove", (0.5 + 0.4 * Math.sin(k / 5)) * width);
    if (k % 10 === 0) buttons[(k / 10) % buttons.length].click();
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  fire("pointerup", 100);
  return took.sort((a, b) => a - b);
}"""


@pytest.fixture(scope="module")
def twin() -> Interpolation:
    """The gallery's widget, in Python alone."""
    return in_python("between")


@pytest.fixture(params=["live", "stored"])
def between(
    request: pytest.FixtureRequest, live: Page, trusted: Page, twin: Interpolation
) -> Locator:
    """The widget at w = 0 between the first pair."""
    form = request.param
    widget = live_widget(live, CELL) if form == "live" else stored_widget(trusted, CELL)
    pair(widget, 0).click()
    press_keys(widget, ["Home"])
    twin.w, twin.pair = 0, 0
    expect(widget.locator(".cw-note")).to_have_text("w = 0.00")
    expect(pair(widget, 0)).to_have_attribute("aria-pressed", "true")
    if form == "live":
        wait_for_python(live, "print(between.w, between.pair)", "0.0 0")
    return widget


def pair(widget: Locator, index: int) -> Locator:
    return widget.get_by_role("button", name=f"Pair {index + 1}", exact=True)


def handle(widget: Locator) -> Locator:
    return widget.get_by_role("slider", name="w", exact=True)


def stage(widget: Locator) -> Locator:
    return widget.locator(".cw-stage canvas")


def geometry(widget: Locator) -> tuple[float, float]:
    """The width of an image in a strip, and where the plot begins."""
    cell = (round(stage(widget).bounding_box()["width"]) - LEFT - RIGHT) / POSITIONS
    return cell, round(WAYS * (NAME + min(cell, 90)) + 14)


def go(widget: Locator, k: int, row: str) -> None:
    """Move the mouse to position k, over a strip or over the plot."""
    cell, plot = geometry(widget)
    canvas = stage(widget).bounding_box()
    y = {"slerp": NAME + 20, "lerp": 2 * NAME + min(cell, 90) + 20, "plot": plot + 70}[row]
    within = 0.1 if k % 2 else 0.85  # near the one edge of an image, or near the other
    widget.page.mouse.move(canvas["x"] + LEFT + (k + within) * cell, canvas["y"] + y)


def check(widget: Locator, twin: Interpolation) -> None:
    """The widget shows what its twin says: large images, captions, strips, curves and w."""
    k = twin.position
    expect(handle(widget)).to_have_attribute("aria-valuenow", f"{twin.w:.2f}")
    expect(widget.locator(".cw-note")).to_have_text(f"w = {twin.w:.2f}")
    widget.evaluate(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    cell, plot = geometry(widget)
    norms = twin.array("norms")[:, twin.pair]
    low, high = twin.typical
    span = (norms_of(twin).max(), norms_of(twin).min())
    margin = 0.1 * (span[0] - span[1])
    figures = widget.locator("figure").all()
    for way, (name, image) in enumerate(twin.shown.items()):
        words = figures[way].inner_text().split("\n")
        judged = (
            "too short" if norms[way, k] < low else "too long" if norms[way, k] > high else "ty"
        )
        assert words[:2] == [name, f"length {norms[way, k]:.2f}"]
        assert words[2].startswith(judged)
        large = np.reshape(figures[way].locator("canvas").evaluate(LEVELS), (SIDE, SIDE))
        np.testing.assert_array_equal(large, np.rint(255 * image))
        # The pixels of the strip, each in its middle, but for those under the frame of w.
        tall = min(cell, 90)
        top = round(way * (NAME + tall) + NAME)
        inner = np.arange(1, SIDE - 1)
        spots = [
            [LEFT + j * cell + (cell - 2) * (x + 0.5) / SIDE, top + tall * (y + 0.5) / SIDE]
            for j in range(POSITIONS)
            for y in inner
            for x in inner
        ]
        found = np.array(stage(widget).evaluate(COLOURS, spots))
        assert (found == found[:, :1]).all()  # grey
        wanted = twin.array("images")[way, twin.pair][:, 1:-1, 1:-1]
        np.testing.assert_array_equal(found[:, 0], wanted.ravel())
        # The dots of the curve.
        dots = [
            [
                LEFT + (j + 0.5) * cell,
                plot + 124 * (span[0] + margin - norm) / (span[0] - span[1] + 2 * margin),
            ]
            for j, norm in enumerate(norms[way])
        ]
        colour = [int(PALETTE[("latent", "error")[way]][i : i + 2], 16) for i in (1, 3, 5)]
        seen = np.array(stage(widget).evaluate(COLOURS, dots))
        own = np.abs(seen - colour).max(1) < 30
        # A dot may be hidden by that of the other way, which is drawn later.
        hidden = np.abs(norms[0] - norms[1]) < 0.05 if way == 0 else np.zeros(POSITIONS, bool)
        assert (own | hidden).all()
    line = handle(widget).evaluate("node => parseFloat(node.style.left)")
    assert abs(line - (LEFT + (k + 0.5) * cell)) <= 1
    presses = [
        one.get_attribute("aria-pressed") for one in widget.locator(".between-pairs button").all()
    ]
    assert presses == [str(p == twin.pair).lower() for p in range(PAIRS)]


def norms_of(twin: Interpolation) -> np.ndarray:
    """All numbers that the plot has room for."""
    return np.concatenate([twin.array("norms").ravel(), twin.typical])


def test_dragging_shows_the_images_and_lengths_at_w(between: Locator, twin: Interpolation) -> None:
    check(between, twin)
    stage(between).evaluate("node => node.scrollIntoView({ block: 'center' })")
    for row, positions in [("slerp", (3, 1, 4)), ("plot", (2, 0)), ("lerp", (4, 3))]:
        go(between, positions[0], row)
        between.page.mouse.down()
        for k in positions:
            go(between, k, row)
            twin.w = k / 4
            check(between, twin)
        between.page.mouse.up()
    go(between, 0, "plot")  # let go is let go
    check(between, twin)
    # Beyond either end it stays at the end.
    go(between, 2, "plot")
    between.page.mouse.down()
    for k, end in [(-1, 0), (5, 1)]:
        go(between, k, "plot")
        twin.w = end
        check(between, twin)
    between.page.mouse.up()


def test_pairs_are_chosen_by_their_ends(between: Locator, twin: Interpolation) -> None:
    for index in (2, 1, 0, 2):
        ends = [
            np.reshape(end.evaluate(LEVELS), (SIDE, SIDE))
            for end in pair(between, index).locator("canvas").all()
        ]
        np.testing.assert_array_equal(ends, twin.array("images")[0, index][[0, -1]])
        pair(between, index).click()
        twin.pair = index
        check(between, twin)


def test_keys_do_all_of_it(between: Locator, twin: Interpolation) -> None:
    keys = [("ArrowRight", 1, 0), ("ArrowRight", 2, 0), ("ArrowDown", 2, 1), ("ArrowLeft", 1, 1)]
    keys += [("End", 4, 1), ("ArrowRight", 4, 1), ("ArrowDown", 4, 2), ("ArrowDown", 4, 0)]
    keys += [("ArrowUp", 4, 2), ("Home", 0, 2), ("ArrowLeft", 0, 2)]
    handle(between).focus()
    for key, k, index in keys:
        between.page.keyboard.press(key)
        twin.w, twin.pair = k / 4, index
        check(between, twin)
    spoken = "w = 0.00: slerp 1.00, lerp 0.90"
    expect(handle(between)).to_have_attribute("aria-valuetext", spoken)


def test_python_moves_w_and_hears_of_it(live: Page, twin: Interpolation) -> None:
    widget = live_widget(live, CELL)
    for w, index in [(0.75, 2), (0.3, 1)]:
        python(live, f"between.w, between.pair = {w}, {index}")
        twin.w, twin.pair = w, index
        check(widget, twin)
    wait_for_python(live, "print(between.w)", "0.25")  # the nearest position
    press_keys(widget, ["ArrowRight"] * 4 + ["ArrowLeft", "ArrowDown"])
    wait_for_python(live, "print(between.w, between.pair)", "0.75 2")
    refused = python(live, "between.pair = 3")
    assert refused == "ValueError: pair must be an integer from 0 to 2, got 3"
    twin.w, twin.pair = 0.75, 2
    check(widget, twin)


def test_it_follows_the_theme(live: Page, twin: Interpolation) -> None:
    widget = live_widget(live, CELL)
    python(live, "between.w, between.pair = 0.5, 0")
    twin.w, twin.pair = 0.5, 0
    plot = geometry(widget)[1]
    corner = [[LEFT + 3, plot + 3]]
    for theme, ground in [("Dark", 27), ("Light", 252)]:
        set_theme(live, theme)
        check(widget, twin)
        assert np.abs(np.array(stage(widget).evaluate(COLOURS, corner)) - ground).max() < 6


# ---------------------------------------------------------------------------------- in a plain page


def large(ways: int) -> Interpolation:
    """As much as a chapter shows, and more: six pairs of 28 x 28 pixels."""
    rng = np.random.default_rng(0)
    names = ["slerp", "lerp", "lerp, stretched to length", "another"][:ways]
    rows = {name: rng.random((6, 11, 28, 28)) for name in names}
    norms = {name: 1 + 0.1 * rng.random((6, 11)) for name in names}
    label = "|z| / the square root of the number of pixels"
    return Interpolation(rows, norms=norms, typical=(0.9, 1.1), norm_label=label, title="Between")


def test_it_fits_any_width_and_a_drag_is_smooth(show: Callable[..., Locator]) -> None:
    for ways in (2, 4):
        widget = show(large(ways), width=620)
        for width in (320, 344, 500, 600):
            assert cut_off(widget, [width], "canvas, button, p, figcaption, span") == []
            for canvas in widget.locator(".between-large canvas").all():
                assert canvas.bounding_box()["width"] % 28 == 0  # all pixels equally large
    widget = show(large(2), width=620)
    assert computing_time(widget, DRAG) < 15  # about 4 ms


def test_its_height_stays_while_w_moves(show: Callable[..., Locator]) -> None:
    """What is said of a length may be shorter or longer: the picture below must not jump."""
    given = {"slerp": np.zeros((1, 5, 8, 8)), "lerp": np.zeros((1, 5, 8, 8))}
    norms = {"slerp": np.ones((1, 5)), "lerp": np.array([[1, 0.8, 0.7, 10.25, 1]])}
    widget = show(Interpolation(given, norms=norms, typical=(0.9, 1.1)))
    for width in (320, 600):
        widget.evaluate("(_, width) => document.body.style.width = `${width}px`", width)
        heights = set()
        for key in ["Home", *["ArrowRight"] * 4]:
            press_keys(widget, [key])
            widget.evaluate("() => new Promise(requestAnimationFrame)")
            heights.add(widget.bounding_box()["height"])
        assert len(heights) == 1
