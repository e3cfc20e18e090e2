"""DensityWarp in a real browser: it is dragged, it answers, and its areas stay equal."""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import DensityWarp
from course_lib.widgets.density_warp import PRESETS, base_cdf, base_density, monotone_curve
from tests.browser.gallery import GALLERY
from tests.browser.harness import (
    TWO_FRAMES,
    computing_time,
    fingerprint,
    live_widget,
    painted,
    python,
    settle,
    stored_frame,
    wait_until_it_differs,
)

CELL = list(GALLERY).index("warp") + 1


@pytest.fixture(params=["live", "stored"])
def warp(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The widget with the curve of the identity."""
    if request.param == "live":
        widget = live_widget(live, CELL)
    else:
        widget = stored_frame(trusted, CELL).locator(".course-widget")
    widget.get_by_role("button", name="Reset").click()
    glide(widget)
    return widget


def glide(widget: Locator) -> None:
    """Wait until the knots have come to rest, for ten frames, and the picture with them."""
    widget.evaluate(
        """async widget => {
          const where = () => [...widget.querySelectorAll(".warp-knot")]
            .map((knot) => knot.getAttribute("aria-valuetext")).join();
          let before = "";
          let still = 0;
          while (still < 10) {
            await new Promise((next) => {
              requestAnimationFrame(next);
              setTimeout(next, 100);
            });
            const now = where();
            still = now === before ? still + 1 : 0;
            before = now;
          }
        }"""
    )
    settle(widget)


def areas(widget: Locator) -> tuple[float, float, float]:
    """The areas as printed: of the strip under p(x) and under p(z), and in all under p(x)."""
    lines = widget.locator(".warp-sum").all_inner_texts()
    data, latent = lines[1].split(" = ")
    return float(data), float(latent), float(lines[2])


def place(handle: Locator) -> list[float]:
    """The two numbers that a handle says it stands for."""
    text = painted(handle).get_attribute("aria-valuetext")
    return [float(word) for word in text.replace(",", "").split() if word.strip("-")[0].isdigit()]


def drag(handle: Locator, right: float, down: float) -> None:
    """Drag by so many pixels, in a few moves."""
    handle.scroll_into_view_if_needed()
    box, mouse = handle.bounding_box(), handle.page.mouse
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + right, y + down, steps=4)
    mouse.up()
    handle.evaluate(TWO_FRAMES)


def test_dragging_a_knot_bends_the_curve_and_keeps_the_area(warp: Locator) -> None:
    before = settle(warp)
    knot = warp.locator(".warp-knot").nth(4)
    assert place(knot) == [1, 1]
    drag(knot, 10, -40)
    x, z = place(knot)
    assert 1 < x < 1.5
    assert 1.5 < z < 2
    assert fingerprint(warp) != before
    data, latent, total = areas(warp)
    assert data == latent
    assert total == 1
    # Two other densities now, so that the area is another one, too.
    assert data != pytest.approx(base_cdf(1.3, "gaussian") - base_cdf(0.5, "gaussian"), abs=2e-3)


def test_a_knot_cannot_pass_its_neighbours(warp: Locator) -> None:
    knots = warp.locator(".warp-knot")
    drag(knots.nth(4), 300, -300)
    x, z = place(knots.nth(4))
    assert 1.8 < x < 2
    assert 1.8 < z < 2
    drag(knots.nth(0), -300, 300)
    assert place(knots.nth(0)) == [-4, -4]
    data, latent, total = areas(warp)
    assert (data, total) == (latent, 1)


def test_the_strip_is_dragged_and_resized(warp: Locator) -> None:
    strip = warp.locator(".warp-strip")
    start, end = place(strip)
    drag(strip, -100, 30)
    moved = place(strip)
    assert moved[0] < start - 1
    assert moved[1] - moved[0] == pytest.approx(end - start, abs=0.011)
    drag(warp.locator(".warp-edge").nth(1), 50, 0)
    wider = place(strip)
    assert wider[0] == moved[0]
    assert wider[1] > moved[1] + 0.5
    data, latent, _ = areas(warp)
    assert data == latent
    # Reset leaves the strip where it is: bring it back for the next test.
    drag(warp.locator(".warp-edge").nth(1), -50, 0)
    drag(strip, 100, 0)


def test_keys_move_the_knot_that_has_the_focus(warp: Locator) -> None:
    warp.focus()
    for _ in range(2):
        warp.page.keyboard.press("Tab")
    second = warp.locator(".warp-knot").nth(1)
    expect(second).to_be_focused()
    second.press("ArrowUp")
    second.press("ArrowUp")
    second.press("ArrowRight")
    warp.evaluate(TWO_FRAMES)
    assert place(second) == [-1.9, -1.8]
    second.press("Shift+ArrowDown")
    warp.evaluate(TWO_FRAMES)
    assert place(second) == [-1.9, -1.81]
    strip = warp.locator(".warp-strip")
    start, _ = place(strip)
    strip.focus()
    strip.press("ArrowLeft")
    warp.evaluate(TWO_FRAMES)
    assert place(strip)[0] == pytest.approx(start - 0.1, abs=1e-9)
    strip.press("ArrowRight")


def test_presets_and_reset(warp: Locator) -> None:
    identity = settle(warp)
    warp.get_by_role("button", name="Two modes").click()
    wait_until_it_differs(warp, identity)
    glide(warp)
    shown = [place(warp.locator(".warp-knot").nth(i)) for i in range(7)]
    np.testing.assert_allclose(np.transpose(shown), PRESETS["two modes"], atol=0.006)
    assert areas(warp)[2] == 1
    warp.get_by_role("button", name="Reset").click()
    glide(warp)
    assert place(warp.locator(".warp-knot").nth(6)) == [3, 3]


def test_python_hears_of_a_drag_and_drives_the_curve(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "warp.set_knots([-3, -1, 1, 3], [-3, -2, 2, 3])")
    expect(widget.locator(".warp-knot")).to_have_count(4)
    settle(widget)
    drag(widget.locator(".warp-knot").nth(2), 40, 30)
    knots = json.loads(python(live, "print([warp.knots_x, warp.knots_y])"))
    assert [round(axis[2], 2) for axis in knots] == place(widget.locator(".warp-knot").nth(2))
    assert knots[0][2] > 1.5
    assert knots[1][2] < 1.8

    python(live, "warp.interval = [-2.5, -1.25]")
    strip = widget.locator(".warp-strip")
    expect(strip).to_have_attribute("aria-valuetext", re.compile(r"-2\.5.*-1\.25"))
    printed = float(python(live, "print(warp.area)"))
    data, latent, total = areas(widget)
    assert (data, latent, total) == (round(printed, 3), round(printed, 3), 1)
    python(live, f"warp.interval = {DensityWarp().interval}; warp.set_knots(*warp.start)")


# The times between frames while a knot is dragged, in ms.
DRAG = """async knot => {
  const fire = (type, x, y) => knot.dispatchEvent(new PointerEvent(type, {
    clientX: x, clientY: y, button: 0, pointerId: 1, bubbles: true
  }));
  knot.setPointerCapture = () => {};
  const { x, y } = knot.getBoundingClientRect();
  fire("pointerdown", x, y);
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 60; k++) {
    fire("pointermove", x + 10 * Math.sin(k / 5), y + 20 * Math.cos(k / 5));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  fire("pointerup", x, y);
  return took;
}"""


def test_a_drag_frame_is_short(show: Callable[..., Locator]) -> None:
    knot = show(DensityWarp()).locator(".warp-knot").nth(3)
    assert computing_time(knot, DRAG) < 15
    assert place(knot) != [0, 0]


# ----------------------------------------------------------------------- the same mathematics twice


@pytest.fixture(scope="module")
def module(functions_of: Callable[[str, str], Page]) -> Page:
    """A page that holds functions of the widget's module."""
    return functions_of("density_warp.js", "monotoneCurve, areas, DENSITIES")


@pytest.mark.parametrize("base", ["gaussian", "logistic"])
@pytest.mark.parametrize(
    "knots",
    [
        *PRESETS.values(),
        ([-2.0, -1.5, 0.0, 0.3, 2.5], [-3.0, -0.2, 0.0, 2.0, 2.1]),
        ([0, 1], [1, 3]),
    ],
)
def test_javascript_computes_what_python_does(module: Page, knots: tuple, base: str) -> None:
    x = np.linspace(-6, 6, 121)
    curve, density = module.evaluate(
        """([xs, ys, base, at]) => {
          const f = parts.monotoneCurve(xs, ys);
          return [at.map(f), at.map((z) => parts.DENSITIES[base](z))];
        }""",
        [*map(list, knots), base, x.tolist()],
    )
    np.testing.assert_allclose(np.transpose(curve), monotone_curve(x, *knots), atol=1e-12)
    np.testing.assert_allclose(density, base_density(x, base), atol=1e-14)

    strip = [-0.8, 1.7]
    found = module.evaluate(
        "([xs, ys, base, strip]) => parts.areas(xs, ys, base, strip)",
        [*map(list, knots), base, strip],
    )
    widget = DensityWarp(*knots, base=base)
    widget.interval = strip
    assert found["data"] == pytest.approx(widget.area, abs=1e-6)
    assert found["latent"] == pytest.approx(widget.area, abs=1e-6)
    assert found["total"] == pytest.approx(1, abs=1e-5)
