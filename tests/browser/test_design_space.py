"""DesignSpace in a real browser: what is chosen shows, and its numbers are those of Python."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import DesignSpace
from course_lib.widgets.design_space import AXES, PATHS, SOLVERS, SPACINGS
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

CELL = list(GALLERY).index("design") + 1
FIRST = {"path": "EDM", "solver": "Euler", "times": "by ρ", "axis": "t"}

# The times between frames while a slider is moved from end to end, in ms.
SLIDE = """async slider => {
  const took = [];
  const [low, high] = [Number(slider.min), Number(slider.max)];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 120; k += 2) {
    slider.value = low + ((high - low) * (1 + Math.sin(k / 9))) / 2;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  return took;
}"""


@pytest.fixture(params=["live", "stored"])
def design(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The widget as it was made."""
    live_one = request.param == "live"
    widget = live_widget(live, CELL) if live_one else stored_widget(trusted, CELL)
    for group, name in FIRST.items():
        choose(widget, group, name)
    set_slider(widget, "steps", 8)
    set_slider(widget, "ρ", 7)
    set_slider(widget, "The noise level up to which the plot over t is shown", float(np.log(4)))
    settle(widget)
    return widget


def choose(widget: Locator, group: str, name: str) -> None:
    buttons = widget.get_by_role("group", name=group, exact=True)
    buttons.get_by_role("button", name=name, exact=True).click()


def set_slider(widget: Locator, name: str, value: float) -> None:
    widget.get_by_role("slider", name=name, exact=True).evaluate(
        """(node, value) => {
          node.value = value;
          node.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        value,
    )


def said(widget: Locator) -> str:
    settle(widget)
    return widget.locator(".design-said").inner_text()


def test_what_is_said_is_what_python_computes(design: Locator) -> None:
    peer = in_python("design")
    for path, solver, times in (
        ("EDM", "Euler", "by ρ"),
        ("VP", "Heun", "even in t"),
        ("VE", "DPM++ 2M", "even in t"),
        ("straight", "Heun", "by ρ"),
    ):
        for group, name in (("path", path), ("solver", solver), ("times", times)):
            choose(design, group, name)
        peer.path, peer.solver, peer.spacing = path, solver, SPACINGS["even" in times]
        text = said(design)
        assert text.startswith(f"{path}: s(t) = ")
        assert f"{solver}, 8 steps, {peer.calls} calls: ends " in text
        ends = float(text.split("ends ")[1].split(" from")[0])
        worst = float(text.split("errs by ")[1].strip("."))
        assert ends == pytest.approx(peer.missed, rel=0.06)
        assert worst == pytest.approx(peer.errors.max(), rel=0.06)


def test_every_choice_changes_the_picture(design: Locator) -> None:
    before = settle(design)
    for group, name in (
        ("path", "VP"),
        ("solver", "Heun"),
        ("times", "even in t"),
        ("axis", "log σ"),
    ):
        choose(design, group, name)
        wait_until_it_differs(design, before)
        before = settle(design)
    for group, name in FIRST.items():
        choose(design, group, name)
    for slider, value in (("steps", 20), ("ρ", 3), ("The noise level up to which", np.log(40))):
        before = settle(design)
        node = design.get_by_role("slider", name=slider)
        set_slider(design, node.get_attribute("aria-label"), float(value))
        wait_until_it_differs(design, before)


def test_what_has_no_say_is_faint(design: Locator) -> None:
    faint = design.locator(".cw-slider.faint")
    assert faint.count() == 0
    choose(design, "times", "even in t")
    expect(faint).to_have_text(["ρ7.0"])
    choose(design, "axis", "log σ")
    expect(faint).to_have_count(2)


def test_keys_change_steps_and_rho(design: Locator) -> None:
    design.focus()
    press_keys(
        design, ["ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "ArrowDown"]
    )
    assert "9 steps, 9 calls" in said(design)
    values = design.locator(".cw-slider output").all_inner_texts()
    assert values == ["9", "6.5", "4"]
    press_keys(design, ["ArrowLeft"] * 20)
    assert "2 steps, 2 calls" in said(design)


def test_python_hears_of_what_is_chosen_and_sets_it(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "design.path, design.solver, design.steps = 'VE', 'Heun', 12")
    expect(widget.locator(".design-said")).to_contain_text("Heun, 12 steps, 23 calls")
    choose(widget, "path", "straight")
    set_slider(widget, "ρ", 4.5)
    wait_for_python(live, "print(design.path, design.rho)", "straight 4.5")


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    """With as many steps and starts as there may be."""
    starts = np.linspace(-2, 2, 24)
    widget = show(
        DesignSpace(np.linspace(-2, 2, 8), solver="Heun", steps=40, starts=starts), width=820
    )
    for name in ("steps", "ρ", "The noise level up to which the plot over t is shown"):
        assert computing_time(widget.get_by_role("slider", name=name, exact=True), SLIDE) < 15
    parts = "canvas, button, p, span, input"
    assert cut_off(widget, (320, 400, 560, 800), parts) == []


# ----------------------------------------------------------------------- the same mathematics twice


@pytest.fixture(scope="module")
def module(functions_of: Callable[[str, str], Page]) -> Page:
    """A page that holds functions of the widget's module."""
    names = "pathsOf, guessOf, pointsOf, waysOf, exactOf, stepErrors"
    return functions_of("design_space.js", names)


RUN = """given => {
  const guess = parts.guessOf(given);
  const points = parts.pointsOf(parts.pathsOf(given)[given.path], given);
  const exact = given.starts.map((z) => parts.exactOf(guess, z, given));
  return {
    levels: points.map((point) => point.sigma), times: points.map((point) => point.t),
    ways: parts.waysOf(given.solver, guess, points, given.starts),
    exact: exact.map((at) => points.map((point) => at(point.sigma))),
    errors: parts.stepErrors(given.solver, guess, points, exact),
    amounts: points.slice(0, -1).map(({ a, b, da, db }) => [a, b, da, db])
  };
}"""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_browser_computes_what_python_does(module: Page, path: str, solver: str) -> None:
    for spacing in SPACINGS:
        space = DesignSpace(
            (-1, 0.5, 2), std=0.3, weights=[1, 2, 1], sigma_max=30.0, sigma_min=0.01, steps=9,
            rho=4.0, path=path, solver=solver, spacing=spacing, axis=AXES[1],
        )  # fmt: skip
        names = [name for name in space.traits(sync=True) if not name.startswith("_")]
        given = {name: getattr(space, name) for name in names if name not in ("data", "layout")}
        found = module.evaluate(RUN, given)
        np.testing.assert_allclose(found["levels"], space.levels, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found["times"][:-1], space.times, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            found["amounts"], np.stack(space.amounts(space.times), 1), rtol=1e-8
        )
        np.testing.assert_allclose(
            np.transpose(found["exact"]), space.exact(space.levels), atol=1e-9
        )
        np.testing.assert_allclose(np.transpose(found["ways"]), space.ways, atol=1e-8)
        np.testing.assert_allclose(found["errors"], space.errors, rtol=1e-6, atol=1e-9)
