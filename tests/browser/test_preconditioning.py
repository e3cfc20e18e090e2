"""Preconditioning in a real browser: σ is moved by slider, plot and keys; numbers are Python's."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page

from course_lib.widgets import Preconditioning
from course_lib.widgets.preconditioning import WAYS
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
from tests.browser.test_design_space import SLIDE

CELL = list(GALLERY).index("precond") + 1


@pytest.fixture(params=["live", "stored"])
def precond(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The widget as it was made, at σ = 0.5."""
    live_one = request.param == "live"
    widget = live_widget(live, CELL) if live_one else stored_widget(trusted, CELL)
    set_sigma(widget, 0.5)
    settle(widget)
    return widget


def set_sigma(widget: Locator, sigma: float) -> None:
    widget.get_by_role("slider").evaluate(
        """(node, value) => {
          node.value = value;
          node.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        float(np.log(sigma)),
    )


def numbers(widget: Locator) -> list[float]:
    """What is said: σ, the three factors, and how errors count by each way."""
    settle(widget)
    text = widget.locator(".precond-said").inner_text()
    found = re.findall(r"(?:= |by )(\d+(?:\.\d+)?)", text)
    sigma, skip, out, scale, one, *counts = map(float, found)
    assert one == 1
    return [sigma, skip, out, scale, *counts]


def test_what_is_said_is_what_python_computes(precond: Locator) -> None:
    peer = in_python("precond")
    for sigma in (0.5, 0.02, 5.0, 40.0):
        set_sigma(precond, sigma)
        peer.sigma = sigma
        wanted = [sigma, *peer.factors("preconditioned")]
        wanted += [peer.sizes(way)[2] for way in WAYS]
        assert numbers(precond) == pytest.approx(wanted, rel=0.06)


def test_dragging_in_a_plot_moves_the_level(precond: Locator) -> None:
    before = settle(precond)
    canvas = precond.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box, mouse = canvas.bounding_box(), precond.page.mouse
    mouse.move(box["x"] + 0.7 * box["width"], box["y"] + box["height"] - 60)
    mouse.down()
    mouse.move(box["x"] + 0.95 * box["width"], box["y"] + box["height"] - 90, steps=4)
    mouse.up()
    wait_until_it_differs(precond, before)
    assert numbers(precond)[0] > 5


def test_keys_move_the_level(precond: Locator) -> None:
    precond.focus()
    press_keys(precond, ["ArrowRight"] * 10)
    assert numbers(precond)[0] == pytest.approx(5, rel=0.02)
    press_keys(precond, ["ArrowLeft"] * 60)
    assert numbers(precond)[0] == pytest.approx(0.002, rel=0.02)


def test_python_hears_of_the_level_and_sets_it(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "precond.sigma = 7.5")
    assert numbers(widget)[0] == pytest.approx(7.5)
    set_sigma(widget, 0.25)
    wait_for_python(live, "print(round(precond.sigma, 4))", "0.25")


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    """With as many digits of MNIST's size as are shown at most."""
    dice = np.random.default_rng(0)
    images = dice.uniform(-1, 1, (60, 28, 28))
    widget = show(Preconditioning(images, dice.normal(size=images.shape), shown=8), width=840)
    assert computing_time(widget.get_by_role("slider"), SLIDE) < 15
    parts = "canvas, button, p, span, input"
    assert cut_off(widget, (320, 400, 560, 800), parts) == []


# ----------------------------------------------------------------------- the same mathematics twice


SIZES = """([way, levels, size, x0, eps]) => {
  const moments = parts.momentsOf(x0, eps);
  return levels.map((sigma) =>
    [...parts.FACTORS[way](sigma, size), ...parts.sizesAt(way, sigma, size, moments)]);
}"""


def test_the_browser_computes_what_python_does(functions_of: Callable[[str, str], Page]) -> None:
    page = functions_of("preconditioning.js", "FACTORS, momentsOf, sizesAt, sharesAt")
    peer = in_python("precond")
    levels = np.geomspace(0.002, 80, 9).tolist()
    x0, eps = (peer.array(name).ravel().tolist() for name in ("images", "eps"))
    for way in WAYS:
        found = page.evaluate(SIZES, [way, levels, peer.sigma_data, x0, eps])
        wanted = [[*peer.factors(way, s), *peer.sizes(way, s)] for s in levels]
        np.testing.assert_allclose(found, wanted, rtol=1e-8)
        shares = page.evaluate(
            "([way, size]) => parts.sharesAt(way, 0.7, size)", [way, peer.sigma_data]
        )
        for side, array in (("sees", peer.sees(way, 0.7)), ("says", peer.says(way, 0.7))):
            mixed = np.dot(shares[side], [x0, eps])
            np.testing.assert_allclose(mixed, array.ravel(), atol=1e-9)
