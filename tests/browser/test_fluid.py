"""Fluid in a real browser: a field is drawn, a density follows it, and its mass stays 1."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect
from scipy import stats

from course_lib.widgets import Fluid
from course_lib.widgets.fluid import PRESETS
from tests.browser.gallery import GALLERY
from tests.browser.harness import (
    PLAY,
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

CELL = list(GALLERY).index("fluid") + 1
KNOTS = np.linspace(-4, 4, 9)
WILD = [2.0, -1.5, 0.3, -0.4, 1.2, 1.9, -2.0, 0.7, -1.0]

# The times between frames while a knot is dragged up and down, in ms.
DRAG = """async knot => {
  const fire = (type, x, y) => knot.dispatchEvent(new PointerEvent(type, {
    clientX: x, clientY: y, button: 0, pointerId: 1, bubbles: true
  }));
  knot.setPointerCapture = () => {};
  const { x, y } = knot.getBoundingClientRect();
  fire("pointerdown", x, y);
  const [took, words] = [[], new Set()];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 120; k += 2) {
    fire("pointermove", x, y + 30 * Math.sin(k / 7));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
    words.add(knot.getAttribute("aria-valuetext"));
  }
  fire("pointerup", x, y);
  if (words.size < 15) throw new Error("no knot was dragged");
  return took;
}"""


@pytest.fixture(params=["live", "stored"])
def fluid(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The widget at t = 0 with its first field."""
    live_one = request.param == "live"
    widget = live_widget(live, CELL) if live_one else stored_widget(trusted, CELL)
    widget.get_by_role("button", name="Reset").click()
    widget.focus()
    press_keys(widget, ["Home"])
    expect(widget.locator(".cw-readout")).to_have_text("0 / 30")
    settle(widget)
    return widget


def field(widget: Locator) -> list[float]:
    """The velocities at the knots, as the handles say them."""
    settle(widget)
    knots = widget.locator(".fluid-knot")
    return [
        float(text) for text in knots.evaluate_all("all => all.map((knot) => knot.ariaValueText)")
    ]


def said(widget: Locator) -> list[float]:
    """What is summed up: the mass, and by how much the particles' densities have changed."""
    return [float(text.strip("+")) for text in widget.locator(".fluid-said b").all_inner_texts()]


def stroke(widget: Locator, *places: tuple[float, float]) -> None:
    """Draw over the plot of the field, through places of the handles' own plane."""
    knots = widget.locator(".fluid-knot")
    boxes = [knots.nth(k).bounding_box() for k in (0, 8)]
    ends = [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes]
    heights = field(widget)
    canvas = widget.locator("canvas").first.bounding_box()
    # The field's plot starts 6 pixels below the top, its middle is the velocity zero.
    assert heights[0] == 0
    (_, zero), top = ends[0], canvas["y"] + 6
    unit = (zero - top) / (1.08 * 2)
    mouse = widget.page.mouse
    for k, (x, v) in enumerate(places):
        mouse.move(ends[0][0] + (x + 4) / 8 * (ends[1][0] - ends[0][0]), zero - v * unit)
        if k == 0:
            mouse.down()
    mouse.up()


def test_dragging_a_knot_moves_it_alone(fluid: Locator) -> None:
    before = settle(fluid)
    knot = fluid.locator(".fluid-knot").nth(2)
    knot.scroll_into_view_if_needed()
    box, mouse = knot.bounding_box(), fluid.page.mouse
    mouse.move(box["x"] + 14, box["y"] + 14)
    mouse.down()
    mouse.move(box["x"] + 60, box["y"] - 16, steps=4)
    mouse.up()
    wait_until_it_differs(fluid, before)
    first = [2 * share for share in PRESETS["two heaps"]]
    now = field(fluid)
    assert 0.4 < now[2] < 1.5
    assert [*now[:2], *now[3:]] == pytest.approx([*first[:2], *first[3:]])


def test_one_stroke_draws_a_whole_field(fluid: Locator) -> None:
    fluid.get_by_role("button", name="Still").click()
    fluid.locator("canvas").first.scroll_into_view_if_needed()
    settle(fluid)
    stroke(fluid, (-3.95, 1.5), (0, -0.7), (3.9, 1.0))
    wanted = np.interp(KNOTS, (-3.95, 0, 3.9), (1.5, -0.7, 1.0))
    np.testing.assert_allclose(field(fluid), wanted, atol=0.12)


def test_what_flows_keeps_its_mass(fluid: Locator) -> None:
    assert said(fluid) == [1, 1, 1]
    for name in ("Two heaps", "Gather", "Spread", "Jam"):
        fluid.get_by_role("button", name=name).click()
        fluid.focus()
        press_keys(fluid, ["End"])
        expect(fluid.locator(".cw-readout")).to_have_text("30 / 30")
        settle(fluid)
        mass, least, most = said(fluid)
        assert mass == pytest.approx(1, abs=2e-3)
        # In a linear field all is squeezed alike: exp(2 · 0.5).
        if name in ("Gather", "Spread"):
            assert most == least == pytest.approx(2.7 if name == "Gather" else 0.37)
        else:
            assert most > 1.5


def test_keys_move_the_knot_in_focus_and_the_time(fluid: Locator) -> None:
    knot = fluid.locator(".fluid-knot").nth(4)
    knot.focus()
    for key in ("ArrowUp", "ArrowUp", "Shift+ArrowDown", "ArrowRight"):
        fluid.page.keyboard.press(key)
    assert field(fluid)[4] == pytest.approx(0.36)
    expect(fluid.locator(".cw-readout")).to_have_text("1 / 30")
    expect(fluid.locator(".cw-note")).to_have_text("t = 0.07")
    for _ in range(25):
        fluid.page.keyboard.press("ArrowDown")
    assert field(fluid)[4] == -2  # no further than the plot


def test_python_hears_of_the_field_and_sets_it(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, f"fluid.step = 30.0; fluid.velocities = {WILD}")
    expect(widget.locator(".fluid-knot").last).to_have_attribute("aria-valuetext", "-1.00")
    assert field(widget) == WILD
    mass, *_ = said(widget)
    assert mass == pytest.approx(float(python(live, "print(fluid.mass)")), abs=2e-3)
    widget.get_by_role("button", name="Gather").click()
    wait_for_python(live, "print(fluid.velocities)", str([2.0 * v for v in PRESETS["gather"]]))
    python(live, "fluid.step = 0.0")


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    widget = show(Fluid(), width=700)
    assert computing_time(widget, PLAY) < 15
    press_keys(widget, ["End"])
    assert computing_time(widget.locator(".fluid-knot").nth(3), DRAG) < 15
    assert cut_off(widget, (320, 400, 620), "canvas, button, p, span, input") == []


# ----------------------------------------------------------------------- the same mathematics twice


@pytest.fixture(scope="module")
def module(functions_of: Callable[[str, str], Page]) -> Page:
    """A page that holds functions of the widget's module."""
    return functions_of(
        "fluid.js", "mixtureOf, placesOn, spread, journeysOf, fluidAt, monotoneCurve"
    )


# The density over 81 columns, the mass, and where the particles start.
FLOW = """([knots, velocities, weights, means, stds, duration, steps, step]) => {
  const field = parts.monotoneCurve(knots, velocities);
  const first = parts.mixtureOf(weights, means, stds);
  const columns = parts.spread(-4, 4, 321);
  const { nodes, particles } = parts.placesOn(first, means, stds);
  const journeys = parts.journeysOf(field, { columns, nodes, particles }, duration / steps);
  const found = parts.fluidAt(step, first, journeys);
  return [[...found.density].filter((_, i) => i % 4 === 0), found.mass, [...particles]];
}"""


def flow(module: Page, velocities: list[float], **given: object) -> tuple[np.ndarray, float, list]:
    given = {"weights": [1.0], "means": [0.0], "stds": [1.0], "step": 30.0} | given
    mixture = [given[name] for name in ("weights", "means", "stds")]
    density, mass, particles = module.evaluate(
        FLOW, [KNOTS.tolist(), velocities, *mixture, 2.0, 30, given["step"]]
    )
    return np.array(density), mass, particles


@pytest.mark.parametrize("slope", [0.5, -0.5])
@pytest.mark.parametrize("step", [0.0, 8.7, 30.0])
def test_a_linear_field_keeps_a_gaussian_gaussian(module: Page, slope: float, step: float) -> None:
    velocities = (slope * KNOTS + 0.1).tolist()
    density, mass, _ = flow(module, velocities, means=[0.6], stds=[0.8], step=step)
    grown = np.exp(slope * step / 15)
    peer = stats.norm((0.6 + 0.1 / slope) * grown - 0.1 / slope, 0.8 * grown)
    np.testing.assert_allclose(density, peer.pdf(np.linspace(-4, 4, 81)), rtol=1e-6, atol=1e-12)
    assert mass == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("velocities", [[2.0 * v for v in PRESETS["jam"]], WILD])
def test_the_browser_computes_what_python_does(module: Page, velocities: list[float]) -> None:
    mixture = {"means": [-1.0, 1.0], "stds": [0.5, 1.0], "weights": [0.25, 0.75]}
    density, mass, particles = flow(module, velocities, **mixture)
    widget = Fluid(velocities, **mixture)
    widget.step = 30.0
    np.testing.assert_allclose(density, widget.density(np.linspace(-4, 4, 81)), rtol=1e-5)
    assert mass == pytest.approx(widget.mass, abs=2e-3)
    # Particles of equal mass are the quantiles of the first density.
    below = 0.25 * stats.norm(-1, 0.5).cdf(particles) + 0.75 * stats.norm(1, 1).cdf(particles)
    np.testing.assert_allclose(below, (np.arange(100) + 0.5) / 100, atol=2e-3)
