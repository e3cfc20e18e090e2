"""FanOfPaths in a real browser: its fan is Python's, dragged, scrubbed and turned around."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import FanOfPaths
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
    wait_until_it_is,
)

CELL = list(GALLERY).index("fan") + 1


@pytest.fixture
def twin() -> FanOfPaths:
    """The gallery's widget, in Python alone."""
    return in_python("fan")


@pytest.fixture(params=["live", "stored"])
def fan(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The widget as it is shown at first, but for where its handles stand."""
    widget = live_widget(live, CELL) if request.param == "live" else stored_widget(trusted, CELL)
    for name in ("fades", "forward"):
        button(widget, name).click()
    widget.focus()
    widget.press("End")
    expect(widget.locator(".cw-readout")).to_have_text("40 / 40")
    settle(widget)
    return widget


def button(widget: Locator, name: str) -> Locator:
    return widget.get_by_role("button", name=name, exact=True)


def grip(widget: Locator) -> Locator:
    return widget.locator(".fan-grip")


def place(widget: Locator) -> float:
    settle(widget)
    return float(grip(widget).get_attribute("aria-valuenow"))


def numbers(widget: Locator) -> list[float]:
    """What is written: the place and its time, the time shown, mean and standard deviation."""
    settle(widget)
    text = widget.locator(".fan-said").inner_text().replace("−", "-")
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def check(widget: Locator, twin: FanOfPaths) -> None:
    """Everything that is written is what its twin says, in two digits."""
    ends = {"forward": 0, "reverse": 1}
    wanted = [twin.place, ends[twin.direction], twin.index / 40, *twin.law]
    np.testing.assert_allclose(numbers(widget), wanted, atol=0.0055)


def drag(node: Locator, down: float) -> None:
    node.scroll_into_view_if_needed()
    box, mouse = node.bounding_box(), node.page.mouse
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x, y + down, steps=4)
    mouse.up()


def test_time_process_and_direction_are_written_as_python_has_them(
    fan: Locator, twin: FanOfPaths
) -> None:
    twin.start = place(fan)
    first = settle(fan)
    check(fan, twin)
    press_keys(fan, ["ArrowLeft"] * 13)
    twin.step = 27.0
    check(fan, twin)
    button(fan, "reverse").click()
    expect(grip(fan)).to_have_attribute("aria-label", "End of the fan")
    twin.direction, twin.end = "reverse", place(fan)
    check(fan, twin)
    button(fan, "spreads").click()
    expect(button(fan, "spreads")).to_have_attribute("aria-pressed", "true")
    twin.process = "spreads"
    check(fan, twin)
    button(fan, "fades").click()
    button(fan, "forward").click()
    fan.focus()
    fan.press("End")
    wait_until_it_is(fan, first)
    button(fan, "sample paths").click()
    wait_until_it_differs(fan, first)
    button(fan, "sample paths").click()
    wait_until_it_is(fan, first)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_dragged_handle_takes_the_fan_along(
    fan: Locator, twin: FanOfPaths, direction: str
) -> None:
    button(fan, direction).click()
    before, picture = place(fan), settle(fan)
    drag(grip(fan), 30)
    wait_until_it_differs(fan, picture)
    height = fan.locator("canvas").bounding_box()["height"] - 66  # of the plot
    assert place(fan) == pytest.approx(before - 30 * 7 / height, abs=0.02)
    twin.direction = direction
    setattr(twin, {"forward": "start", "reverse": "end"}[direction], place(fan))
    # To two digits that is the place, and what follows from it has two digits, too.
    np.testing.assert_allclose(numbers(fan)[3:], twin.law, atol=0.012)
    drag(grip(fan), 1000)
    assert place(fan) == -3.5  # not beyond its plot
    press_keys(grip(fan), ["ArrowUp"] * 10)
    assert place(fan) == pytest.approx(-3.5 + 1.4, abs=0.006)
    grip(fan).focus()
    grip(fan).press("Shift+ArrowDown")
    assert place(fan) == pytest.approx(-2.1 - 0.014, abs=0.006)
    drag(grip(fan), -40)


def test_elsewhere_the_plot_is_a_slider_of_the_time(fan: Locator) -> None:
    canvas = fan.locator("canvas")
    box = canvas.evaluate("""canvas => {
      canvas.scrollIntoView({ block: "center" });
      const { width, height } = canvas.getBoundingClientRect();
      return [width, height];
    }""")
    side = round(min(max(0.2 * box[0], 62), 130))
    across = box[0] - 46 - 8 - side - 14
    for direction, step in (("forward", "10"), ("reverse", "30")):
        button(fan, direction).click()
        canvas.click(position={"x": 46 + across / 4, "y": box[1] / 3})
        said = fan.locator(".cw-readout")
        expect(said).to_have_text(re.compile(rf"^{step}(\.0)? / 40$"))
    button(fan, "forward").click()


def test_played_it_is_drawn_to_the_end(fan: Locator) -> None:
    press_keys(fan, ["ArrowLeft"] * 4)
    fan.get_by_role("button", name="Play").click()
    expect(fan.locator(".cw-readout")).to_have_text("40 / 40")
    expect(fan.get_by_role("button", name="Play")).to_be_visible()


def test_python_drives_it_and_reads_it_back(live: Page, twin: FanOfPaths) -> None:
    widget = live_widget(live, CELL)
    state = "'reverse', 'spreads', -4.0, 11.0"
    python(live, f"fan.direction, fan.process, fan.end, fan.step = {state}")
    twin.direction, twin.process, twin.end, twin.step = "reverse", "spreads", -4.0, 11.0
    check(widget, twin)
    press_keys(widget, ["ArrowUp"])
    wait_for_python(live, "print(round(fan.end, 3))", "-3.64")
    button(widget, "fades").click()
    wait_for_python(live, "print(fan.process, fan.place)", "fades -3.5")  # the edge of its plot
    refused = python(live, "fan.start = 99")
    assert refused.startswith("ValueError: start must lie in [-9, 9]")
    python(live, "fan.direction, fan.start, fan.end, fan.step = 'forward', 1.5, 0.3, 40.0")


# ----------------------------------------------------------------------- the same mathematics twice


def test_javascript_computes_what_python_does(
    functions_of: Callable[[str, str], Page], twin: FanOfPaths
) -> None:
    page = functions_of("fan_of_paths.js", "processOf, fanOf, samplePaths, lawOf, fanDensity")
    arrays = {
        name: {"values": twin.array(name).ravel().tolist(), "shape": part["shape"]}
        for name, part in twin.arrays.items()
    }
    for k, name in enumerate(twin.names):
        for direction in ("forward", "reverse"):
            twin.process, twin.direction, twin.step = name, direction, 17.0
            found = page.evaluate(
                """([arrays, k, extent, forward, place, at]) => {
                  const all = Object.entries(arrays).map(([name, { values, shape }]) =>
                    [name, { values: Float64Array.from(values), shape }]);
                  const own = parts.processOf(Object.fromEntries(all), k, extent);
                  const density = parts.fanDensity(own, forward, place, at);
                  return {
                    fan: [...parts.fanOf(own, forward, place)],
                    samples: [...parts.samplePaths(own)],
                    law: parts.lawOf(own, forward, place, at),
                    density: Array.from({ length: 2001 }, (_, i) =>
                      density(extent[2] + ((extent[3] - extent[2]) * i) / 2000))
                  };
                }""",
                [arrays, k, twin.extents[k], direction == "forward", twin.place, twin.index],
            )
            for what, wanted in (("fan", twin.fan), ("samples", twin.sample_paths)):
                np.testing.assert_allclose(np.reshape(found[what], (-1, 41)).T, wanted, atol=1e-12)
            np.testing.assert_allclose(found["law"], twin.law, atol=1e-12)
            # The density at the side has the mean and the deviation that are written.
            x, p = np.linspace(*twin.extents[k][2:], 2001), np.array(found["density"])
            mean = p @ x / p.sum()
            drawn = (mean, np.sqrt(p @ (x - mean) ** 2 / p.sum()))
            # On a grid with cells of 0.2, half of a mode's width.
            np.testing.assert_allclose(drawn, twin.law, atol=0.03)


# ---------------------------------------------------------------------------------- in a plain page


def test_the_paths_are_where_they_belong(show: Callable[..., Locator]) -> None:
    times, x = np.linspace(0, 1, 21), np.linspace(-2, 2, 41)
    density = np.exp(-(x**2) / 2) * np.ones((21, 1))
    quiet = {"t": times, "a": 1 - 0.5 * times, "b": 1e-4 * (1 + times), "x": x, "density": density}
    given = FanOfPaths({"quiet": quiet}, n_paths=3, start=1.0)
    given.samples = False
    shown = show(given)
    width = shown.locator("canvas").bounding_box()["width"]
    across = width - 46 - 8 - 130 - 14
    picture = pixels(shown)
    height = picture.shape[0] - 66
    for share in (0.25, 0.5, 0.75):
        column = picture[24 : 24 + height, round(46 + share * across)]
        orange = np.clip(column[:, 0] - column[:, 2] - 10, 0, None)  # the ground is blue or grey
        assert orange.max() > 60
        wanted = height * (2 - (1 - 0.5 * share)) / 4
        assert orange @ (np.arange(height) + 0.5) / orange.sum() == pytest.approx(wanted, abs=1)


# How long the page's own frames are, in ms, while the handle is dragged and time is scrubbed.
MOVE = """async widget => {
  const knob = widget.querySelector(".fan-grip");
  const slider = widget.querySelector("input[type=range]");
  knob.setPointerCapture = () => {};
  const { x, y } = knob.getBoundingClientRect();
  const fire = (type, by) => knob.dispatchEvent(new PointerEvent(type, {
    clientX: x + 14, clientY: y + 14 + by, button: 0, pointerId: 1, bubbles: true
  }));
  fire("pointerdown", 0);
  const [took, words] = [[], new Set()];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 60; k++) {
    fire("pointermove", 40 * Math.sin(k / 6));
    slider.value = String(100 - (k % 40));
    slider.dispatchEvent(new Event("input"));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
    words.add(widget.querySelector(".fan-said").textContent);
  }
  fire("pointerup", 0);
  if (words.size < 30) throw new Error("nothing was dragged");
  return took.sort((a, b) => a - b);
}"""


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_it_fits_any_width_and_moves_smoothly(show: Callable[..., Locator], direction: str) -> None:
    times, x = np.linspace(0, 1, 101), np.linspace(-5, 5, 161)
    one = {"t": times, "a": np.exp(-times), "b": np.sqrt(times), "x": x}
    one["density"] = np.exp(-(x**2) / 2) * np.ones((101, 1))
    named = {"VP": one, "VE": one, "sub-VP": one}
    widget = show(FanOfPaths(named, direction=direction, title="Large"))
    assert computing_time(widget, MOVE) < 15
    parts = "canvas, button, p, .cw-group"
    assert cut_off(widget, (320, 360, 480, 640, 784), parts) == []
