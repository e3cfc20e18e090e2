"""SameNoise in a real browser: the same numbers as in Python, times by hand and by keys."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import SameNoise
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    computing_time,
    cut_off,
    live_widget,
    press_keys,
    python,
    settle,
    wait_for_python,
    wait_until_it_differs,
)

CELL = list(GALLERY).index("sizes") + 1

# How long each of 60 frames takes while the second slider moves.
SLIDE = """async input => {
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 120; k += 2) {
    input.value = 0.5 + 0.4 * Math.sin(k / 9);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  return took;
}"""


@pytest.fixture
def twin() -> SameNoise:
    """The gallery's widget, in Python alone."""
    return in_python("sizes")


def check(widget: Locator, twin: SameNoise) -> None:
    """Both deviations are written, both times at the sliders."""
    # A hair more: where a number lies halfway the page rounds up, and Python to the even digit.
    small, large = (f"± {value * (1 + 1e-9):.3g}" for value in twin.deviations)
    said = f"known to {small} in the small picture, to {large} in the large one"
    expect(widget.locator(".sizes-said")).to_contain_text(said)
    for name, t in (("t, small", twin.t), ("t′, large", twin.t_large)):
        slider = widget.get_by_role("slider", name=name)
        expect(slider).to_have_attribute("aria-valuetext", f"{t:.2f}")


def test_numbers_are_those_of_python(
    functions_of: Callable[[str, str], Page], twin: SameNoise
) -> None:
    module = functions_of("same_noise.js", "shifted, deviation, noised, averaged, standardNoise")
    for t in (0.0, 0.3, 0.9):
        twin.t = t
        assert module.evaluate("t => parts.shifted(t, 16)", t) == pytest.approx(twin.shifted)
        found = module.evaluate("t => parts.deviation(t, 8)", t)
        assert found == pytest.approx(twin.deviations[0])
    clean = 2 * twin.array("small") / 255 - 1
    script = """([x, t]) => [...parts.noised(x, parts.standardNoise(0, x.length), t, [...x])]"""
    found = module.evaluate(script, [clean.ravel().tolist(), 0.9])
    np.testing.assert_allclose(found, twin.noised[0].ravel(), atol=1e-9)
    large = twin.noised[1]
    found = module.evaluate("x => [...parts.averaged(x, 3, 32, 4)]", large.ravel().tolist())
    wanted = large.reshape(3, 8, 4, 8, 4).mean((2, 4)).ravel()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_times_are_dragged_and_the_formula_is_asked(
    show: Callable[..., Locator], twin: SameNoise
) -> None:
    widget = show(twin)
    check(widget, twin)
    expect(widget.locator(".sizes-said")).to_contain_text("then ask the formula")
    # The large picture is a slider: a quarter of its width to the right is a quarter of the time.
    canvas = widget.locator("canvas").bounding_box()
    side = (canvas["width"] - 74) // 3
    x, y = canvas["x"] + 1.3 * side, canvas["y"] + 100
    mouse = widget.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + side / 4, y, steps=3)
    mouse.up()
    twin.t_large = 0.75
    expect(widget.get_by_role("slider", name="t′, large")).to_have_attribute(
        "aria-valuetext", "0.75", timeout=10_000
    )
    widget.get_by_role("button", name="Show the formula’s").click()
    said = widget.locator(".sizes-said")
    expect(said).to_contain_text("the same at t′ = 0.80; yours is 0.05 below it")
    widget.get_by_role("button", name="Go to the formula’s").click()
    twin.t_large = twin.shifted
    check(widget, twin)
    expect(said).to_contain_text("yours is the same")


def test_keys_the_average_and_new_noise(show: Callable[..., Locator], twin: SameNoise) -> None:
    widget = show(twin, width=356)
    press_keys(widget, ["ArrowRight", "ArrowRight", "ArrowDown"])
    twin.t, twin.t_large = 0.45, 0.6
    check(widget, twin)
    press_keys(widget, ["ArrowDown"] * 20 + ["ArrowRight"] * 20)  # to both ends
    twin.t, twin.t_large = 0.0, 0.99
    check(widget, twin)
    for name in ("Average the large one", "New noise"):
        before = settle(widget)
        widget.get_by_role("button", name=name).click()
        wait_until_it_differs(widget, before)


def test_python_hears_of_it_and_can_say_it(live: Page, twin: SameNoise) -> None:
    widget = live_widget(live, CELL)
    python(live, "sizes.t, sizes.t_large = 0.2, 0.4")
    twin.t, twin.t_large = 0.2, 0.4
    check(widget, twin)
    widget.get_by_role("button", name="Go to the formula’s").click()
    told = "print(round(sizes.t_large, 4), sizes.revealed, sizes.seed)"
    wait_for_python(live, told, "0.5 True 0")
    widget.get_by_role("button", name="New noise").click()
    wait_for_python(live, told, "0.5 True 1")


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    image = np.random.default_rng(0).random((3, 64, 64))
    widget = show(SameNoise(image, sizes=(16, 64), title="As large as a picture of the course"))
    assert computing_time(widget.get_by_role("slider", name="t′, large"), SLIDE) < 15
    assert cut_off(widget, (320, 400, 560, 800), "canvas, button, p, .cw-slider") == []
