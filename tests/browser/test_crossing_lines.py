"""CrossingLines in a real browser: the place is dragged, the average arrow follows."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import CrossingLines
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    computing_time,
    cut_off,
    live_widget,
    press_keys,
    python,
    settle,
    stored_widget,
    wait_for_python,
    wait_until_it_differs,
)

CELL = {name: list(GALLERY).index(name) + 1 for name in ("crossing", "in_time")}

# The times between frames while the place is dragged in circles, in ms.
DRAG = """async place => {
  const fire = (type, x, y) => place.dispatchEvent(new PointerEvent(type, {
    clientX: x, clientY: y, button: 0, pointerId: 1, bubbles: true
  }));
  place.setPointerCapture = () => {};
  const { x, y } = place.getBoundingClientRect();
  fire("pointerdown", x, y);
  const [took, words] = [[], new Set()];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 120; k += 2) {
    fire("pointermove", x + 60 * Math.sin(k / 9), y + 60 * Math.cos(k / 7));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
    words.add(place.getAttribute("aria-valuetext"));
  }
  fire("pointerup", x, y);
  if (words.size < 30) throw new Error("the place was not dragged");
  return took;
}"""


@pytest.fixture(params=["live", "stored"])
def page(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Callable[[str], Locator]:
    """The widgets with their first coupling, at t = 0.5."""

    def widget_(name: str) -> Locator:
        one = request.param == "live"
        widget = live_widget(live, CELL[name]) if one else stored_widget(trusted, CELL[name])
        widget.get_by_role("button", name="independent").click()
        seek(widget, 25)
        settle(widget)
        return widget

    return widget_


def seek(widget: Locator, step: float) -> None:
    widget.get_by_role("slider", name="Step").evaluate(
        """(node, step) => {
          node.value = step;
          node.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        step,
    )


def place(widget: Locator) -> list[float]:
    settle(widget)
    text = grip(widget).get_attribute("aria-valuetext")
    return [float(number) for number in text.strip("()").replace("−", "-").split(",")]


def grip(widget: Locator) -> Locator:
    return widget.get_by_role("slider", name="Place of the arrows")


def said(widget: Locator) -> list[float]:
    """How many pairs pass, the mean length of their arrows, and the length of the average."""
    settle(widget)
    return [float(text) for text in widget.locator(".crossing-said b").all_inner_texts()]


def drag(widget: Locator, right: float, down: float) -> None:
    grip(widget).scroll_into_view_if_needed()
    box, mouse = grip(widget).bounding_box(), widget.page.mouse
    mouse.move(box["x"] + 14, box["y"] + 14)
    mouse.down()
    mouse.move(box["x"] + 14 + right, box["y"] + 14 + down, steps=4)
    mouse.up()


def test_the_place_is_dragged_and_its_average_follows(page: Callable[[str], Locator]) -> None:
    widget, peer = page("crossing"), in_python("crossing")
    before = settle(widget)
    drag(widget, 40, -30)
    wait_until_it_differs(widget, before)
    peer.step = 25.0
    average = np.linalg.norm(peer.velocity(place(widget), 0.5))
    _, alone, found = said(widget)
    assert found == pytest.approx(average, abs=0.05)
    assert found < alone + 0.005  # an average is never longer


def test_over_time_the_place_is_dragged_through_time(page: Callable[[str], Locator]) -> None:
    widget = page("in_time")
    (x,) = place(widget)
    drag(widget, 80, -20)
    assert place(widget)[0] > x
    note = widget.locator(".cw-note").inner_text()
    assert 0.55 < float(note.removeprefix("t = ")) < 0.9
    press_keys(grip(widget), ["ArrowLeft", "ArrowUp"])
    assert place(widget)[0] > x
    expect(widget.locator(".cw-note")).not_to_have_text(note)


def test_an_optimal_coupling_is_shorter_and_leaves_the_arrows_alone(
    page: Callable[[str], Locator],
) -> None:
    widget, peer = page("in_time"), in_python("in_time")
    lengths = widget.locator(".crossing-total").inner_text()
    for name, length in peer.lengths.items():
        assert f"{name} {length:.3g}" in lengths.replace("\n", " ")
    assert peer.lengths["optimal"] < peer.lengths["independent"]
    before = settle(widget)
    widget.get_by_role("button", name="optimal").click()
    wait_until_it_differs(widget, before)
    expect(widget.locator(".crossing-total .chosen")).to_contain_text("optimal")


def test_keys_move_the_place(page: Callable[[str], Locator]) -> None:
    widget = page("crossing")
    x, y = place(widget)
    grip(widget).focus()
    for key in ("ArrowRight", "Shift+ArrowRight", "ArrowUp", "ArrowUp", "ArrowDown"):
        widget.page.keyboard.press(key)
    _, _, y0, y1 = in_python("crossing").extent
    by = (y1 - y0) / 50
    assert place(widget) == pytest.approx([x + 1.2 * by, y + by], abs=0.011)
    expect(widget.locator(".cw-readout")).to_have_text("25 / 50")


def test_python_hears_and_sets(live: Page) -> None:
    widget = live_widget(live, CELL["crossing"])
    python(live, "crossing.step = 10.0; crossing.place = [0.25, -0.5]")
    expect(widget.locator(".cw-note")).to_have_text("t = 0.80")
    assert place(widget) == [0.25, -0.5]
    widget.get_by_role("button", name="sorted").click()
    wait_for_python(live, "print(crossing.coupling)", "sorted")
    told = float(python(live, "print(np.linalg.norm(crossing.velocity(crossing.place, 0.8)))"))
    assert said(widget)[2] == pytest.approx(told, abs=0.006)
    python(live, "crossing.coupling = 'independent'")


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    rng = np.random.default_rng(0)
    couplings = {"independent": np.arange(100), "optimal": rng.permutation(100)}
    ends = rng.normal(size=(2, 100, 2))
    widget = show(CrossingLines(*ends, couplings, width=0.4), width=620)
    assert computing_time(grip(widget), DRAG) < 15
    parts = "canvas, button, p, span, input"
    assert cut_off(widget, (320, 400, 600), parts) == []


# ----------------------------------------------------------------------- the same mathematics twice


@pytest.mark.parametrize("dims", [1, 2])
def test_the_browser_computes_what_python_does(
    functions_of: Callable[[str, str], Page], dims: int
) -> None:
    rng = np.random.default_rng(3)
    noise, data = rng.normal(size=(2, 15, dims))
    order = rng.permutation(15)
    ends = (noise, data) if dims == 2 else (noise[:, 0], data[:, 0])
    widget = CrossingLines(*ends, {"one": order}, width=0.3, t=0.6)
    widget.place = [0.2, -0.1][:dims]
    module = functions_of("crossing_lines.js", "pairsOf, sharesAt, averageOf, wayThrough")
    arrays = [
        {"shape": [15, dims], "values": widget.array(name).ravel().tolist()}
        for name in ("noise", "data")
    ]
    average, way = module.evaluate(
        """([noise, data, order, place]) => {
          for (const one of [noise, data]) one.values = Float32Array.from(one.values);
          const pairs = parts.pairsOf(noise, data, order);
          const average = parts.averageOf(pairs, parts.sharesAt(pairs, place, 0.6, 0.3));
          return [average, parts.wayThrough(pairs, place, 0.6, 0.3, 50)];
        }""",
        [*arrays, order.tolist(), widget.place],
    )
    np.testing.assert_allclose(average, widget.velocity(widget.place, 0.6), atol=1e-5)
    np.testing.assert_allclose(way[::-1], widget._way(), atol=1e-4)
