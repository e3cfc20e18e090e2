"""Dissolve in a real browser: scrubbed, bent by hand, and always where the closed form says."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import PALETTE, Dissolve
from course_lib.widgets.dissolve import _handles
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    computing_time,
    cut_off,
    live_widget,
    pixels,
    press_keys,
    python,
    settle,
    stored_widget,
    wait_for_python,
    wait_until_it_differs,
)

CELL = list(GALLERY).index("dissolve") + 1
T = 50


@pytest.fixture
def twin() -> Dissolve:
    """The gallery's widget, in Python alone."""
    return in_python("dissolve")


@pytest.fixture(params=["live", "stored"])
def dissolve(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The widget at its first time, on its first schedule."""
    widget = live_widget(live, CELL) if request.param == "live" else stored_widget(trusted, CELL)
    choice(widget, "log-SNR").click()
    choice(widget, "straight").click()
    widget.focus()
    widget.press("Home")
    expect(time_of(widget)).to_have_text("0")
    settle(widget)
    return widget


def choice(widget: Locator, name: str) -> Locator:
    return widget.locator(".dissolve-tools button").get_by_text(name, exact=True)


def time_of(widget: Locator) -> Locator:
    """The time t, as it is written."""
    return widget.locator(".dissolve-said .value").nth(2)


def numbers(widget: Locator) -> list[float]:
    """What is written: a, b, t, ᾱ, log-SNR, and both shares of the variance in percent."""
    texts = widget.locator(".dissolve-said .value").all_inner_texts()
    return [float(text.replace("−", "-").replace("%", "")) for text in texts]


def check(widget: Locator, twin: Dissolve) -> None:
    """Everything that is written is what its twin says."""
    expect(time_of(widget)).to_have_text(str(twin.index))
    settle(widget)
    alpha_bar = twin.alpha_bars[twin.index]
    share = 100 * alpha_bar * twin.variance / (alpha_bar * twin.variance + 1 - alpha_bar)
    log_snr = np.log(alpha_bar / (1 - alpha_bar))
    a, b = np.sqrt([alpha_bar, 1 - alpha_bar])
    wanted = [a, b, twin.index, alpha_bar, log_snr, share, 100 - share]
    found = numbers(widget)
    np.testing.assert_allclose(found[:4], wanted[:4], atol=6e-4)
    np.testing.assert_allclose(found[4], wanted[4], atol=6e-3)
    np.testing.assert_allclose(found[5:], wanted[5:], atol=0.51)


def handle(widget: Locator, k: int) -> Locator:
    return widget.get_by_role("slider", name="Log-SNR at t").nth(k)


def heights(widget: Locator) -> list[float]:
    settle(widget)
    return [float(handle(widget, k).get_attribute("aria-valuenow")) for k in range(7)]


def drag(node: Locator, right: float, down: float, at: tuple[float, float] | None = None) -> None:
    """Drag by so many pixels, from the middle or from a place inside."""
    node.scroll_into_view_if_needed()
    box, mouse = node.bounding_box(), node.page.mouse
    x, y = at or (box["width"] / 2, box["height"] / 2)
    mouse.move(box["x"] + x, box["y"] + y)
    mouse.down()
    mouse.move(box["x"] + x + right, box["y"] + y + down, steps=4)
    mouse.up()


# ----------------------------------------------------------------------------------------- the time


def test_time_is_scrubbed_and_the_numbers_follow(dissolve: Locator, twin: Dissolve) -> None:
    first = settle(dissolve)
    check(dissolve, twin)
    for key, t in [("ArrowRight", 1), ("PageDown", 4), ("PageDown", 7), ("PageUp", 4),
                   ("ArrowLeft", 3), ("End", T - 1)]:  # fmt: skip
        twin.step = float(t)
        dissolve.press(key)
        check(dissolve, twin)
    for name in ("bent", "yours", "straight"):
        choice(dissolve, name).click()
        expect(choice(dissolve, name)).to_have_attribute("aria-pressed", "true")
    dissolve.press("Home")
    expect(time_of(dissolve)).to_have_text("0")
    assert settle(dissolve) == first


def test_the_curve_is_a_slider_of_the_time(dissolve: Locator, twin: Dissolve) -> None:
    canvas = dissolve.locator("canvas")
    places = [handle(dissolve, k).evaluate("node => parseFloat(node.style.left)") for k in (0, 6)]
    height = canvas.bounding_box()["height"]
    across = places[1] - places[0]
    drag(canvas, 0.5 * across, -8, at=(places[0] + 0.125 * across, height - 45))
    twin.step = 31.0  # 0.625 of 49 is 30.6
    check(dissolve, twin)
    drag(canvas, -2 * across, 0, at=(places[0] + 0.5 * across, height - 45))
    twin.step = 0.0
    check(dissolve, twin)


def test_played_it_moves_in_whole_steps_to_the_end(dissolve: Locator) -> None:
    press_keys(dissolve, ["End"] + ["ArrowLeft"] * 6)
    dissolve.get_by_role("button", name="Play").click()
    expect(dissolve.locator(".cw-readout")).to_have_text(f"{T - 1} / {T - 1}")
    expect(dissolve.get_by_role("button", name="Play")).to_be_visible()


# ------------------------------------------------------------------------------------ the schedule


def test_a_dragged_handle_makes_a_schedule_of_ones_own(dissolve: Locator, twin: Dissolve) -> None:
    press_keys(dissolve, ["PageDown"] * 8)  # t = 24
    twin.step = 24.0
    twin.schedule = "yours"
    before = heights(dissolve)
    np.testing.assert_allclose(before, twin.log_snr, atol=0.006)
    picture = settle(dissolve)
    drag(handle(dissolve, 3), 25, -8)  # sideways it does not move
    expect(choice(dissolve, "yours")).to_have_attribute("aria-pressed", "true")
    wait_until_it_differs(dissolve, picture)
    after = heights(dissolve)
    assert after[3] > before[3] + 0.5
    assert after[:3] + after[4:] == before[:3] + before[4:]
    # To two digits these are the handles; the numbers have three.
    twin.log_snr = after
    check_roughly(dissolve, twin)
    # It does not pass its neighbours, however far it is dragged.
    drag(handle(dissolve, 3), 0, -400)
    assert heights(dissolve)[3] == pytest.approx(before[2] - 0.1, abs=0.011)
    drag(handle(dissolve, 3), 0, 600)
    assert heights(dissolve)[3] == pytest.approx(before[4] + 0.1, abs=0.011)
    twin.log_snr = heights(dissolve)
    check_roughly(dissolve, twin)
    # A named schedule is still there; its handles are its own, and drag from there.
    choice(dissolve, "bent").click()
    expect(choice(dissolve, "bent")).to_have_attribute("aria-pressed", "true")
    settle(dissolve)
    twin.schedule = "bent"
    check(dissolve, twin)
    bent = _handles(twin._curve("bent"), np.array(twin.knots))
    np.testing.assert_allclose(heights(dissolve), bent, atol=0.006)


def check_roughly(widget: Locator, twin: Dissolve) -> None:
    settle(widget)
    alpha_bar = twin.alpha_bars[twin.index]
    assert numbers(widget)[3] == pytest.approx(alpha_bar, abs=3e-3)


def test_keys_move_the_handle_that_has_the_focus(dissolve: Locator) -> None:
    before = heights(dissolve)
    press_keys(dissolve, ["ArrowUp", "ArrowDown"])  # no handle has it
    settle(dissolve)
    assert heights(dissolve) == before
    second = handle(dissolve, 1)
    second.focus()
    second.press("ArrowDown")
    second.press("ArrowDown")
    second.press("Shift+ArrowUp")
    settle(dissolve)
    assert heights(dissolve)[1] == pytest.approx(before[1] - 0.95, abs=0.011)
    expect(choice(dissolve, "yours")).to_have_attribute("aria-pressed", "true")


def test_on_the_other_axis_a_handle_follows_the_pointer_too(dissolve: Locator) -> None:
    before = heights(dissolve)
    choice(dissolve, "\u03b1\u0304").click()
    expect(choice(dissolve, "\u03b1\u0304")).to_have_attribute("aria-pressed", "true")
    settle(dissolve)
    middle = handle(dissolve, 3)
    top = "node => parseFloat(node.style.top)"
    ends = [handle(dissolve, k).evaluate(top) for k in (0, 3, 6)]
    shares = 1 / (1 + np.exp(-np.array(before)))
    rise = (ends[2] - ends[0]) / (shares[0] - shares[6])  # pixels for all of ᾱ
    assert ends[1] - ends[0] == pytest.approx(rise * (shares[0] - shares[3]), abs=0.5)
    drag(middle, 0, -20)
    settle(dissolve)
    assert middle.evaluate(top) == pytest.approx(ends[1] - 20, abs=0.5)
    found = 1 / (1 + np.exp(-heights(dissolve)[3]))
    assert found == pytest.approx(shares[3] + 20 / rise, abs=0.004)


def test_python_drives_it_and_reads_it_back(live: Page, twin: Dissolve) -> None:
    widget = live_widget(live, CELL)
    own = [5.0, 4.5, 2.0, -1.0, -1.5, -6.0, -8.0]
    python(live, f"dissolve.log_snr, dissolve.schedule, dissolve.step = {own}, 'yours', 20.0")
    twin.log_snr, twin.schedule, twin.step = own, "yours", 20.0
    check(widget, twin)
    assert heights(widget) == own
    drag(handle(widget, 3), 0, 15)
    settle(widget)
    moved = heights(widget)
    assert moved[3] < -1.2
    told = "import json; print(json.dumps([round(v, 2) for v in dissolve.log_snr]))"
    wait_for_python(live, told, json.dumps(moved))
    alpha_bars = json.loads(python(live, "print(dissolve.alpha_bars.tolist())"))
    assert numbers(widget)[3] == pytest.approx(alpha_bars[20], abs=6e-4)
    choice(widget, "bent").click()
    wait_for_python(live, "print(dissolve.schedule)", "bent")
    widget.focus()
    widget.press("End")
    wait_for_python(live, "print(dissolve.index)", str(T - 1))
    refused = python(live, "dissolve.log_snr = [1.0, 2.0]")
    assert refused.startswith("ValueError: log_snr must be 7 strictly decreasing numbers")


# ----------------------------------------------------------------------- the same mathematics twice


def test_javascript_computes_what_python_does(functions_of: Callable[[str, str], Page]) -> None:
    page = functions_of("dissolve.js", "curveThrough, heightsAt")
    rng = np.random.default_rng(0)
    for steps in (2, 9, 40, 1000):
        steep = np.sort(rng.normal(scale=9, size=steps))[::-1].copy()
        widget = Dissolve(
            np.zeros((1, 2)), {"steep": 1 / (1 + np.exp(-steep))}, noise=np.zeros((1, 2))
        )
        found = page.evaluate(
            "given => parts.heightsAt(...given)",
            [steep.tolist(), widget.knots, widget.limit, widget.gap],
        )
        np.testing.assert_allclose(found, _handles(steep, np.array(widget.knots)), atol=1e-12)
        widget.log_snr, widget.schedule = found, "yours"
        curve = page.evaluate(
            "([knots, heights, steps]) => [...parts.curveThrough(knots, heights, steps)]",
            [widget.knots, widget.log_snr, steps],
        )
        alpha_bars = 1 / (1 + np.exp(-np.array(curve)))
        np.testing.assert_allclose(alpha_bars, widget.alpha_bars, atol=1e-12)


# ---------------------------------------------------------------------------------- in a plain page


def schedules(steps: int) -> dict[str, np.ndarray]:
    rest = 1 - np.arange(1, steps + 1) / (steps + 1)
    return {"straight": rest, "bent": rest**3}


def test_the_pixels_are_the_images_at_that_time(show: Callable[..., Locator]) -> None:
    rng = np.random.default_rng(1)
    widget = Dissolve(rng.random((3, 5, 4)), schedules(30), noise=rng.normal(size=(3, 5, 4)))
    widget.step, widget.schedule = 12.0, "bent"
    shown = show(widget)
    width = shown.locator("canvas").bounding_box()["width"]
    unit = 112 // 4  # the largest whole number of screen pixels
    left = round((width - 3 * 4 * unit - 8) / 2)
    picture = pixels(shown)
    wanted = np.clip(127.5 * (widget.x_t + 1), 0, 255)
    for k in range(3):
        corner = left + k * (4 * unit + 4) + unit // 2
        found = picture[unit // 2 : 5 * unit : unit, corner : corner + 4 * unit : unit]
        assert found.shape == (5, 4, 3)
        np.testing.assert_allclose(found, wanted[k][..., None] * [1, 1, 1], atol=1)


def test_a_point_is_where_it_belongs_and_has_its_colour(show: Callable[..., Locator]) -> None:
    spot, noise = np.array([[2.0, 1.0]]), np.array([[-1.5, 2.5]])
    for t, schedule in [(0, "straight"), (9, "straight"), (9, "bent"), (28, "bent")]:
        widget = Dissolve(spot, schedules(30), noise=noise)
        widget.step, widget.schedule = float(t), schedule
        shown = show(widget)
        width = shown.locator("canvas").bounding_box()["width"]
        side = (width - 24) // 2 - 42  # of the square that points have
        share = widget.alpha_bars[t]
        ends = [np.array([int(PALETTE[n][k : k + 2], 16) for k in (1, 3, 5)])
                for n in ("data", "noise")]  # fmt: skip
        colour = share * ends[0] + (1 - share) * ends[1]
        picture = pixels(shown)[: int(side) + 24, : int(side) + 30]
        near = np.abs(picture - (0.9 * colour + 0.1 * np.array([251, 252, 253]))).max(-1) < 12
        x, y = widget.x_t[0]
        rows, columns = np.where(near)
        assert len(rows) > 20
        # The same shade may be found in the letters of the title: the dot is where most of it is.
        middle = np.median(rows) + 0.5, np.median(columns) + 0.5
        wanted = (
            24 + side * (0.5 - y / (2 * widget.reach)),
            34 + side * (0.5 + x / (2 * widget.reach)),
        )
        np.testing.assert_allclose(middle, wanted, atol=1)


# How long the page's own frames are, in ms, while handles are dragged and the time is scrubbed.
MOVE = """async widget => {
  const knob = widget.querySelectorAll(".dissolve-knot")[3];
  const slider = widget.querySelector("input[type=range]");
  knob.setPointerCapture = () => {};
  const { x, y } = knob.getBoundingClientRect();
  const fire = (type, by) => knob.dispatchEvent(new PointerEvent(type, {
    clientX: x + 14, clientY: y + 14 + by, button: 0, pointerId: 1, bubbles: true
  }));
  fire("pointerdown", 0);
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 60; k++) {
    fire("pointermove", 30 * Math.sin(k / 6));
    slider.value = String((7 * k) % 1000);
    slider.dispatchEvent(new Event("input"));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  fire("pointerup", 0);
  return took.sort((a, b) => a - b);
}"""


@pytest.mark.parametrize("kind", ["points", "images"])
def test_it_fits_any_width_and_moves_smoothly(show: Callable[..., Locator], kind: str) -> None:
    rng = np.random.default_rng(0)
    shape = (2000, 2) if kind == "points" else (8, 28, 28)
    widget = show(
        Dissolve(rng.random(shape), schedules(1000), noise=rng.normal(size=shape), title="Large")
    )
    assert computing_time(widget, MOVE) < 15  # about 5 ms
    parts = "canvas, button, p, .dissolve-said > *, .cw-group"
    assert cut_off(widget, (320, 340, 480, 575, 577, 700, 784), parts) == []


def test_on_a_dark_page_it_is_dark(show: Callable[..., Locator]) -> None:
    given = Dissolve(np.zeros((1, 2)), schedules(9), noise=np.ones((1, 2)))
    widget = show(given, style="background: #111")
    assert widget.evaluate("root => getComputedStyle(root).color") == "rgb(232, 234, 237)"
    assert pixels(widget)[40, 40].max() < 60
