"""GuidedPlane in a real browser: w is dragged, particles flow, and all is as Python computes it."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import GuidedPlane
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    DRAG_IN_CIRCLES,
    PLAY,
    computing_time,
    cut_off,
    live_widget,
    press_keys,
    python,
    settle,
    wait_for_python,
    wait_until_it_differs,
)

CELL = list(GALLERY).index("guided") + 1

# The times between frames while w is dragged, in ms.
DRAG_W = """async input => {
  const [took, words] = [[], new Set()];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 120; k += 2) {
    input.value = 4 + 4 * Math.sin(k / 20);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
    words.add(document.querySelector(".guided-said").textContent);
  }
  if (words.size < 20) throw new Error("w was not dragged");
  return took;
}"""


@pytest.fixture
def twin() -> GuidedPlane:
    """The gallery's widget, in Python alone."""
    return in_python("guided")


def set_w(widget: Locator, w: float) -> None:
    widget.get_by_role("slider", name="scale of guidance").evaluate(
        """(node, w) => {
          node.value = w;
          node.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        w,
    )


def sentence(twin: GuidedPlane) -> str:
    return (
        f"w = {twin.w:.1f}: 95 % of the true density and {100 * twin.inside:.0f} % of the "
        f"particles’ ends lie inside the line; their means are {twin.apart:.2f} apart."
    )


def place(widget: Locator) -> list[float]:
    settle(widget)
    grip = widget.get_by_role("slider", name="Place of the three arrows")
    text = grip.get_attribute("aria-valuetext")
    return [float(number) for number in text.strip("()").replace("−", "-").split(",")]


def test_what_is_said_is_what_python_finds(show: Callable[..., Locator], twin: GuidedPlane) -> None:
    widget = show(twin)
    said = widget.locator(".guided-said")
    expect(said).to_have_text(sentence(twin))
    for w in (0.0, 6.5):
        before = settle(widget)
        set_w(widget, w)
        twin.w = w
        expect(said).to_have_text(sentence(twin))
        wait_until_it_differs(widget, before)
    widget.get_by_role("button", name="B", exact=True).click()
    twin.target = "B"
    expect(said).to_have_text(sentence(twin))
    widget.get_by_role("button", name="New noise").click()
    twin.seed = 1
    expect(said).to_have_text(sentence(twin))


def test_arrows_are_switched_and_particles_flow(
    show: Callable[..., Locator], twin: GuidedPlane
) -> None:
    widget = show(twin)
    expect(widget.locator(".cw-readout")).to_have_text(f"{twin.step:.0f} / 40")
    pictures = [settle(widget)]
    for name in ("unconditional", "conditional", "none", "guided"):
        widget.get_by_role("button", name=name, exact=True).click()
        pictures.append(settle(widget))
    assert len(set(pictures)) == 4
    assert pictures[0] == pictures[-1]
    widget.focus()
    press_keys(widget, ["End"])
    expect(widget.locator(".cw-readout")).to_have_text("40 / 40")
    assert settle(widget) not in pictures
    # With w = 1 the guided arrows are the conditional ones.
    set_w(widget, 1.0)
    same = settle(widget)
    widget.get_by_role("button", name="none", exact=True).click()
    assert settle(widget) != same


def test_the_ring_is_dragged_and_moved_by_keys(
    show: Callable[..., Locator], twin: GuidedPlane
) -> None:
    twin.place = [0.0, 0.0]
    widget = show(twin)
    assert place(widget) == [0, 0]
    grip, mouse = widget.locator(".guided-place"), widget.page.mouse
    box = grip.bounding_box()
    mouse.move(box["x"] + 14, box["y"] + 14)
    mouse.down()
    mouse.move(box["x"] + 64, box["y"] - 36, steps=3)
    mouse.up()
    x, y = place(widget)
    assert x == pytest.approx(y, abs=0.02)
    assert x > 0.3
    # A click in the plane takes it there, one in the other plane does not.
    mouse.click(box["x"] + 14, box["y"] + 14)
    assert place(widget) == pytest.approx([0, 0], abs=0.02)
    canvas = widget.locator("canvas").bounding_box()
    mouse.click(canvas["x"] + 0.8 * canvas["width"], box["y"])
    assert place(widget) == pytest.approx([0, 0], abs=0.02)
    x, y = place(widget)
    for key in ("ArrowRight", "ArrowUp", "ArrowUp", "Shift+ArrowDown"):
        grip.press(key)
    by = (twin.extent[1] - twin.extent[0]) / 50
    assert place(widget) == pytest.approx([x + by, y + 1.8 * by], abs=0.011)
    for _ in range(60):
        grip.press("ArrowLeft")
    assert place(widget)[0] == pytest.approx(twin.extent[0], abs=0.006)


def test_python_hears_of_it_and_can_say_it(live: Page, twin: GuidedPlane) -> None:
    widget = live_widget(live, CELL)
    python(live, "guided.w = 5.0; guided.target = 'B'; guided.step = 40.0")
    twin.w, twin.target = 5.0, "B"
    expect(widget.locator(".guided-said")).to_have_text(sentence(twin))
    expect(widget.locator(".cw-readout")).to_have_text("40 / 40")
    set_w(widget, 0.5)
    widget.get_by_role("button", name="unconditional", exact=True).click()
    wait_for_python(live, "print(guided.w, guided.arrows)", "0.5 unconditional")
    python(live, "guided.w = 2.0; guided.target = 'A'; guided.step = 20.0")


def most() -> GuidedPlane:
    """As much as it may hold."""
    means = np.random.default_rng(0).normal(size=(12, 2))
    names = ["a first class", "a second class", "a third class"]
    return GuidedPlane(
        means, np.arange(12) % 3, stds=0.3, names=names, n_particles=400, title="All of it"
    )


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    widget = show(most(), width=840)
    circles = [[200, 60, ".guided-place", 20]]
    assert computing_time(widget.locator("canvas"), DRAG_IN_CIRCLES, *circles) < 15
    assert computing_time(widget, PLAY) < 15
    slider = widget.get_by_role("slider", name="scale of guidance")
    assert computing_time(slider, DRAG_W) < 20
    assert cut_off(widget, (320, 400, 560, 800), "canvas, button, p, input") == []


# ----------------------------------------------------------------------- the same mathematics twice


@pytest.fixture(scope="module")
def module(functions_of: Callable[[str, str], Page]) -> Page:
    """A page that holds functions of the widget's module."""
    return functions_of(
        "guided_plane.js",
        "scoresOf, heunStep, logsAt, cellsOf, tiltedOn, standardNoise, traceContour",
    )


def mixture(one: GuidedPlane) -> dict:
    return {name: getattr(one, name) for name in ("means", "stds", "weights", "classes")}


def three() -> GuidedPlane:
    means = np.random.default_rng(1).normal(size=(7, 2))
    return GuidedPlane(
        means, [0, 1, 2, 0, 1, 2, 2], stds=np.linspace(0.2, 0.8, 7), weights=np.arange(1, 8),
        target="C", w=3.3, n_particles=60, seed=5,
    )  # fmt: skip


@pytest.mark.parametrize("sigma", [0.0, 0.02, 1.3, 20.0])
def test_the_browser_has_the_scores_of_python(module: Page, sigma: float) -> None:
    one = three()
    places = np.random.default_rng(2).normal(size=(30, 2)) * (1 + sigma)
    found = module.evaluate(
        """([mixture, sigma, places]) => {
          const scores = parts.scoresOf(mixture, sigma, 2);
          return places.map(([x, y]) => [...scores(x, y)]);
        }""",
        [mixture(one), sigma, places.tolist()],
    )
    found = np.array(found)
    np.testing.assert_allclose(found[:, :2], one.score(places, sigma, w=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[:, 2:], one.score(places, sigma, w=1), rtol=1e-9, atol=1e-9)


def test_a_class_of_which_nothing_is_left_keeps_its_score(module: Page) -> None:
    """Its share of the density is less than the least number there is."""
    far = {"means": [[0, 0], [9, 0]], "stds": [0.1, 0.1], "weights": [0.5, 0.5], "classes": [0, 1]}
    found = module.evaluate("far => [...parts.scoresOf(far, 0, 1)(-3, 1)]", far)
    np.testing.assert_allclose(found, [300, -100, 1200, -100], rtol=1e-12)


def test_the_browsers_particles_are_those_of_python(module: Page) -> None:
    one = three()
    ends = module.evaluate(
        """([mixture, sigmas, seed, n, w]) => {
          const noise = parts.standardNoise(seed, 2 * n);
          let places = Float64Array.from(noise, (eps) => sigmas[0] * eps);
          for (let k = 0; k + 1 < sigmas.length; k++) {
            places = parts.heunStep(mixture, places, sigmas[k], sigmas[k + 1], 2, w);
          }
          return [...places];
        }""",
        [mixture(one), one.sigmas, one.seed, one.n_particles, one.w],
    )
    np.testing.assert_allclose(np.reshape(ends, (-1, 2)), one.ends, atol=1e-7)


def test_the_browsers_true_density_is_that_of_python(module: Page) -> None:
    one = three()
    values, edge, mean = module.evaluate(
        """([mixture, extent, grid, w, region]) => {
          const cells = parts.cellsOf(mixture, extent, grid, 2);
          const found = parts.tiltedOn(cells, extent, w, region);
          return [[...found.values], found.edge, found.mean];
        }""",
        [mixture(one), one.extent, one.grid, one.w, one.region],
    )
    cells, area = one._cells()
    density = one.tilted(cells)
    drawn = np.reshape(values, (one.grid, one.grid))[::-1]  # the uppermost row comes first
    np.testing.assert_allclose(drawn / (drawn.sum() * area), density, rtol=1e-9)
    assert edge / (drawn.sum() * area) == pytest.approx(one._edge)
    np.testing.assert_allclose(mean, (density[..., None] * cells).sum((0, 1)) * area, atol=1e-9)


def test_the_line_around_a_heap_is_where_it_has_that_height(module: Page) -> None:
    """A cone's lines are circles; every piece of one ends where another begins."""
    ends = module.evaluate(
        """() => {
          const values = Array.from({ length: 400 }, (_, i) =>
            -Math.hypot((i % 20) - 9.3, Math.floor(i / 20) - 10.1));
          const ends = [];
          const pen = { moveTo: (x, y) => ends.push([x, y]), lineTo: (x, y) => ends.push([x, y]) };
          parts.traceContour(pen, values, 20, -6, (row, column) => [column, row]);
          return ends;
        }"""
    )
    away = np.hypot(*(np.array(ends) - [9.3, 10.1]).T)
    np.testing.assert_allclose(away, 6, atol=0.03)
    met = {tuple(end) for end in np.round(ends, 9).tolist()}
    assert len(ends) == 2 * len(met) > 80
