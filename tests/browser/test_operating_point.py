"""OperatingPoint in a real browser: points picked by hand and by key, their sheets, the legend."""

import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import OperatingPoint
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    DRAG_IN_CIRCLES,
    computing_time,
    cut_off,
    live_widget,
    pixels,
    press_keys,
    python,
    settle,
    wait_for_python,
)

CELL = list(GALLERY).index("operating") + 1
CALLS = [5, 10, 20, 50, 100]


@pytest.fixture
def twin() -> OperatingPoint:
    """The gallery's widget, in Python alone."""
    return in_python("operating")


def check(widget: Locator, twin: OperatingPoint, name: str, k: int) -> None:
    """The point is named in words, and its sheet is shown, or said to be missing."""
    twin.chosen = [name, k]
    expect(widget.get_by_role("status")).to_have_text(twin.words)
    grip = widget.get_by_role("slider", name="Operating point")
    assert grip.get_attribute("aria-valuetext") == twin.words
    settle(widget)
    written = write_anew(widget)
    assert twin.titles[twin.names.index(name)][k] in written
    assert ("no samples of this point" in written) == (twin.sheet is None)


def write_anew(widget: Locator) -> list[str]:
    """All words of the picture: it is drawn once more."""
    return widget.evaluate(
        """async root => {
          const [written, pen] = [[], CanvasRenderingContext2D.prototype];
          const write = pen.fillText;
          pen.fillText = function (text, ...rest) {
            written.push(text);
            write.call(this, text, ...rest);
          };
          window.parent.document.body.classList.toggle("drawn-anew");
          for (let k = 0; k < 3; k++) await new Promise(requestAnimationFrame);
          pen.fillText = write;
          return written;
        }"""
    )


def place_of(widget: Locator, name: str, k: int) -> tuple[float, float]:
    """Where a point is on the page: the handle goes there by keys, and comes back."""
    grip = widget.get_by_role("slider", name="Operating point")
    for _ in range(3):
        settle(widget)
        if grip.get_attribute("aria-valuetext").startswith(name):
            break
        press_keys(widget, ["ArrowDown"])
    press_keys(widget, ["Home"] + ["ArrowRight"] * k)
    settle(widget)
    box = grip.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


# ------------------------------------------------------------------------------------ hand and keys


def test_a_click_picks_the_nearest_point_and_a_drag_keeps_to_its_curve(
    show: Callable[..., Locator], twin: OperatingPoint
) -> None:
    widget = show(twin)
    check(widget, twin, "Euler", 0)
    places = {name: [place_of(widget, name, k) for k in range(5)] for name in twin.names}
    press_keys(widget, ["Home"])
    mouse = widget.page.mouse
    x, y = places["Heun"][0]
    mouse.click(x + 3, y - 5)
    check(widget, twin, "Heun", 0)
    # From the third point of one curve over the fourth of another to its own last.
    mouse.move(*places["multistep"][2])
    mouse.down()
    check(widget, twin, "multistep", 2)
    mouse.move(*places["Euler"][3], steps=3)
    check(widget, twin, "multistep", 3)
    mouse.move(places["Heun"][4][0] + 400, places["Heun"][4][1])
    mouse.up()
    check(widget, twin, "multistep", 4)
    # The handle is dragged along its curve, too; beside the chart there is nothing to take.
    mouse.move(*places["multistep"][4])
    mouse.down()
    mouse.move(*places["Euler"][0], steps=3)
    mouse.up()
    check(widget, twin, "multistep", 0)
    mouse.click(places["multistep"][4][0] + 120, y)
    check(widget, twin, "multistep", 0)


def test_keys_walk_along_a_curve_and_from_curve_to_curve(
    show: Callable[..., Locator], twin: OperatingPoint
) -> None:
    widget = show(twin, width=356)
    press_keys(widget, ["ArrowRight"] * 3 + ["ArrowLeft"])
    check(widget, twin, "Euler", 2)
    press_keys(widget, ["End", "ArrowRight"])
    check(widget, twin, "Euler", 4)
    press_keys(widget, ["ArrowUp"])  # the last comes before the first
    check(widget, twin, "multistep", 4)
    press_keys(widget, ["ArrowDown", "ArrowDown", "Home"])
    check(widget, twin, "Heun", 0)


def test_a_sheet_is_drawn_pixel_by_pixel(
    show: Callable[..., Locator], twin: OperatingPoint
) -> None:
    twin.chosen = ["Heun", 3]
    widget = show(twin)
    picture = pixels(widget)[..., 0]
    wanted = np.rint(255 * twin.sheet[0])
    # All of its pixels are squares of one grey.
    assert find_unit(picture, wanted) >= 3


def find_unit(picture: np.ndarray, wanted: np.ndarray) -> int:
    """How many pixels wide a pixel of the image is where the picture holds it; 0 if it doesn't."""
    for unit in range(3, 16):
        size = 8 * unit
        inner = slice(unit + unit // 2, size - unit, unit)  # all but the frame
        for top in range(20, 60):
            row = picture[top + unit + unit // 2]
            for left in range(picture.shape[1] // 2, picture.shape[1] - size):
                first = row[left : left + size][inner]
                if np.array_equal(first, wanted[1, 1:-1]):
                    tile = picture[top : top + size, left : left + size][inner, inner]
                    if np.array_equal(tile, wanted[1:-1, 1:-1]):
                        return unit
    return 0


# ------------------------------------------------------------------------------------- the legend


def test_series_are_switched_off_and_on(show: Callable[..., Locator], twin: OperatingPoint) -> None:
    widget = show(twin)

    def turn(name: str) -> None:
        widget.get_by_role("button", name=name, exact=True).click()

    def pressed() -> list[str]:
        found = widget.locator(".point-series[aria-pressed=true]").all_inner_texts()
        return [text.strip() for text in found]

    full = settle(widget)
    turn("multistep")
    assert pressed() == ["Euler", "Heun"]
    assert settle(widget) != full
    # The one that is chosen goes: the nearest point of another is chosen.
    turn("Euler")
    assert pressed() == ["Heun"]
    check(widget, twin, "Heun", 0)
    turn("Heun")  # the last one stays
    assert pressed() == ["Heun"]
    press_keys(widget, ["ArrowDown"])  # there is no other curve to go to
    check(widget, twin, "Heun", 0)
    turn("All")
    assert pressed() == ["Euler", "Heun", "multistep"]
    expect(widget.get_by_role("button", name="All", exact=True)).to_be_disabled()
    turn("Only this")
    assert pressed() == ["Heun"]


# ------------------------------------------------------------------------------------ with a kernel


def test_python_hears_of_it_and_can_say_it(live: Page, twin: OperatingPoint) -> None:
    widget = live_widget(live, CELL)
    python(live, "operating.chosen = ['Heun', 3]")
    check(widget, twin, "Heun", 3)
    press_keys(widget, ["ArrowLeft", "ArrowLeft"])
    told = "import json; print(json.dumps([operating.chosen, operating.shown]))"
    wait_for_python(live, told, json.dumps([["Heun", 1], twin.names]))
    widget.get_by_role("button", name="Euler").click()
    wait_for_python(live, told, json.dumps([["Heun", 1], ["Heun", "multistep"]]))
    python(live, f"operating.shown = {twin.names}; operating.chosen = ['Euler', 0]")
    check(widget, twin, "Euler", 0)


# --------------------------------------------------------------------------------- as it must look


def twelve() -> OperatingPoint:
    """As much as it may hold, with long names."""
    k = np.arange(1, 61)
    names = [f"a sampler with a long name, {i}" for i in range(12)]
    sheets = np.random.default_rng(0).random((60, 4, 8, 8))
    return OperatingPoint(
        {name: np.stack([k, (i + 1) / k], 1) for i, name in enumerate(names)},
        {names[3]: sheets},
        x_label="calls of the network, all of them", y_label="distance in features of a classifier",
        log_x=True, log_y=True, title="Twelve samplers",
    )  # fmt: skip


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    widget = show(twelve(), width=820)
    circles = [[220, 130, ".point-grip", 6]]
    assert computing_time(widget.locator("canvas"), DRAG_IN_CIRCLES, *circles) < 15
    assert cut_off(widget, (320, 400, 560, 800), "canvas, button, p") == []


# ----------------------------------------------------------------------------------- its axes alone


@pytest.fixture(scope="module")
def module(functions_of: Callable[[str, str], Page]) -> Iterator[Page]:
    """A page that holds functions of the widget's module."""
    return functions_of("operating_point.js", "axisOf, axisAround, axisTicks, tilesIn")


TICKS = "([low, high, log, most]) => parts.axisTicks(parts.axisOf(low, high, log), most)"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([4, 120, True, 8], [5, 10, 20, 50, 100]),
        ([4, 120, True, 3], [10, 30, 100]),
        ([0.5, 2e4, True, 8], [1, 10, 100, 1000, 10000]),
        ([1e-9, 1e3, True, 6], [1e-8, 1e-6, 1e-4, 1e-2, 1, 100]),
        ([3.1, 4.3, True, 8], [3.5, 4]),  # too little of a decade: as on any other axis
        ([0, 1, False, 5], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_numbers_on_an_axis_are_round(module: Page, given: list, wanted: list[float]) -> None:
    np.testing.assert_allclose(module.evaluate(TICKS, given), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("log", [False, True])
def test_an_axis_says_where_a_value_stands_and_back(module: Page, log: bool) -> None:
    values = [5.0, 9.0, 100.0]
    script = """([values, log]) => {
      const axis = parts.axisAround(values, log);
      const shares = values.map(axis.share);
      return [[axis.low, axis.high], shares, shares.map(axis.value)];
    }"""
    (low, high), shares, back = module.evaluate(script, [values, log])
    scale = np.log if log else np.asarray
    np.testing.assert_allclose(
        shares, (scale(values) - scale(low)) / (scale(high) - scale(low)), atol=1e-12
    )
    np.testing.assert_allclose(back, values)
    assert shares[0] > 0.04
    assert shares[-1] < 0.96
    # A single number has room around it, too.
    for one in ([3.0], [0.0] if not log else [1e-3], [-2.0] if not log else [7.0]):
        (low, high), (share,), _ = module.evaluate(script, [one, log])
        assert low < one[0] < high
        assert share == pytest.approx(0.5)


def test_tiles_fill_their_room(module: Page) -> None:
    for count in (1, 5, 16, 64):
        for width, height in ((300, 260), (280, 150), (700, 200)):
            script = "([room, n]) => parts.tilesIn(room, n, [28, 28])"
            at = module.evaluate(script, [{"width": width, "height": height}, count])
            down = -(-count // at["across"])
            assert at["across"] * (at["cell"] + 4) - 4 <= width
            assert down * (at["high"] + 4) - 4 <= height + 1
            assert at["cell"] >= 15
