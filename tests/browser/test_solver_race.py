"""SolverRace in a real browser: its start is dragged, and its solvers have the orders they must."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import SolverRace
from course_lib.widgets.solver_race import CALLS
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    computing_time,
    cut_off,
    live_widget,
    python,
    settle,
    stored_widget,
    wait_for_python,
    wait_until_it_differs,
)

CELL = list(GALLERY).index("race") + 1

# The times between frames while the start is dragged in circles, in ms.
DRAG = """async start => {
  const fire = (type, x, y) => start.dispatchEvent(new PointerEvent(type, {
    clientX: x, clientY: y, button: 0, pointerId: 1, bubbles: true
  }));
  start.setPointerCapture = () => {};
  const { x, y } = start.getBoundingClientRect();
  fire("pointerdown", x, y);
  const [took, words] = [[], new Set()];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 120; k += 2) {
    fire("pointermove", x + 30 * Math.sin(k / 9), y + 30 * Math.cos(k / 7));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
    words.add(start.getAttribute("aria-valuetext"));
  }
  fire("pointerup", x, y);
  if (words.size < 30) throw new Error("the start was not dragged");
  return took;
}"""


@pytest.fixture(params=["live", "stored"])
def race(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The widget with its first start and 8 calls."""
    live_one = request.param == "live"
    widget = live_widget(live, CELL) if live_one else stored_widget(trusted, CELL)
    widget.get_by_role("button", name="Reset").click()
    set_calls(widget, 8)
    settle(widget)
    return widget


def set_calls(widget: Locator, calls: int) -> None:
    widget.get_by_role("slider", name="calls").evaluate(
        """(node, level) => {
          node.value = level;
          node.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        CALLS.index(calls),
    )


def start(widget: Locator) -> list[float]:
    settle(widget)
    text = widget.get_by_role("slider", name="Start").get_attribute("aria-valuetext")
    return [float(number) for number in text.strip("()").replace("−", "-").split(",")]


def errors(widget: Locator) -> list[str]:
    """What is written of each solver: its steps and its error."""
    settle(widget)
    return widget.locator(".race-key > span").all_inner_texts()


def in_words(calls: int, found: dict[str, float]) -> list[str]:
    steps = {"Euler": calls, "Heun": calls // 2, "RK4": calls // 4}
    return [f"{name}: {steps[name]} step" for name in found]


def test_errors_are_those_of_python(race: Locator) -> None:
    peer = in_python("race")
    for calls in (8, 4, 32):
        set_calls(race, calls)
        peer.calls = calls
        for text, begins, error in zip(
            errors(race), in_words(calls, peer.errors), peer.errors.values(), strict=True
        ):
            assert text.startswith(begins)
            written = text.split("error ")[1]
            if "·" not in written:
                assert float(written) == pytest.approx(error, rel=0.06)
    assert "1 step," not in " ".join(errors(race))
    set_calls(race, 4)
    assert "RK4: 1 step, error" in errors(race)[2]


def test_dragging_the_start_runs_the_race_anew(race: Locator) -> None:
    before, told, first = settle(race), errors(race), start(race)
    grip = race.get_by_role("slider", name="Start")
    grip.scroll_into_view_if_needed()
    box, mouse = grip.bounding_box(), race.page.mouse
    mouse.move(box["x"] + 14, box["y"] + 14)
    mouse.down()
    mouse.move(box["x"] - 66, box["y"] + 54, steps=4)
    mouse.up()
    wait_until_it_differs(race, before)
    x, y = start(race)
    assert x < first[0] - 0.5
    assert y < first[1] - 0.2
    assert errors(race) != told
    race.get_by_role("button", name="Reset").click()
    assert start(race) == first
    race.get_by_role("button", name="Another start").click()
    assert start(race) != first


def test_keys_move_the_start(race: Locator) -> None:
    x, y = start(race)
    grip = race.get_by_role("slider", name="Start")
    grip.focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "Shift+ArrowUp", "ArrowDown"):
        race.page.keyboard.press(key)
    by = 4.8 / 80  # the plot is 4.8 wide
    assert start(race) == pytest.approx([x - 2 * by, y + by / 5], abs=0.011)


def test_python_hears_of_the_start_and_sets_it(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "race.start = [-0.5, 0.75]; race.calls = 24")
    expect(widget.locator(".cw-slider output")).to_have_text("24")
    assert start(widget) == [-0.5, 0.75]
    set_calls(widget, 48)
    wait_for_python(live, "print(race.calls)", "48")
    widget.get_by_role("button", name="Reset").click()
    wait_for_python(live, "print(race.start == race.first)", "True")


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    """With as many Gaussians as a chapter shows."""
    means = np.random.default_rng(0).normal(size=(60, 2))
    t = np.linspace(0, 1, 385)
    path = {"times": t, "a": 1 - t, "b": t, "da": -np.ones(385), "db": np.ones(385)}
    widget = show(SolverRace(means, stds=0.1, **path, calls=96), width=820)
    assert computing_time(widget.get_by_role("slider", name="Start"), DRAG) < 15
    parts = "canvas, button, p, span, input"
    assert cut_off(widget, (320, 400, 560, 800), parts) == []


# ----------------------------------------------------------------------- the same mathematics twice


@pytest.fixture(scope="module")
def module(functions_of: Callable[[str, str], Page]) -> Page:
    """A page that holds functions of the widget's module."""
    return functions_of("solver_race.js", "fieldOf, wayOf")


def curved() -> SolverRace:
    """Three Gaussians along a path on a quarter of a circle."""
    t = torch.linspace(0.05, 1.5, SolverRace.NODES, dtype=torch.float64)
    path = {"times": t, "a": t.cos(), "b": t.sin(), "da": -t.sin(), "db": t.cos()}
    means = [[1.5, 0.5], [-1, 1.2], [-0.4, -1.4]]
    return SolverRace(means, stds=[0.5, 0.8, 0.6], weights=[1, 2, 1], **path)


WAYS = """([path, mixture, start, races]) => {
  const field = parts.fieldOf(path, mixture);
  return races.map(([name, steps]) => parts.wayOf(field, path.times, name, steps, start));
}"""


def ways(module: Page, race: SolverRace, races: list) -> list:
    mixture = {name: getattr(race, name) for name in ("means", "stds", "weights")}
    return module.evaluate(WAYS, [race.path, mixture, race.start, races])


def test_the_browser_computes_what_python_does(module: Page) -> None:
    race = curved()
    steps = [["Euler", 12], ["Heun", 6], ["RK4", 3], ["RK4", 192]]
    for (name, _), way in zip(steps[:3], ways(module, race, steps), strict=False):
        np.testing.assert_allclose(way, race.way(name, 12), atol=1e-12)
    np.testing.assert_allclose(ways(module, race, steps)[3], race.reference, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "each", "order"), [("Euler", 1, 1), ("Heun", 2, 2), ("RK4", 4, 4)]
)
def test_the_order_of_each_solver(module: Page, name: str, each: int, order: int) -> None:
    race, calls = curved(), np.array([24, 48, 96])
    *found, reference = ways(module, race, [*([name, int(n // each)] for n in calls), ["RK4", 192]])
    away = [np.linalg.norm(np.subtract(way[-1], reference[-1])) for way in found]
    slope = np.polyfit(np.log(calls), np.log(away), 1)[0]
    assert slope == pytest.approx(-order, abs=0.3)
