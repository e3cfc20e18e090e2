"""RunningMaximum in a real browser: numbers come and are dragged; its numbers are Python's."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import RunningMaximum
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    PLAY,
    computing_time,
    cut_off,
    live_widget,
    press_keys,
    python,
    settle,
    wait_for_python,
)

CELL = list(GALLERY).index("running") + 1
LOGITS = [0.5, 1.2, -0.4, 2.6, 1.9, 3.4]


@pytest.fixture
def running(show: Callable[..., Locator]) -> Locator:
    return show(in_python("running"))


def said(widget: Locator) -> str:
    settle(widget)
    return widget.locator(".running-said").inner_text()


def number(widget: Locator, k: int) -> Locator:
    return widget.get_by_role("slider", name=f"Number {k}", exact=True)


def drag_to(widget: Locator, k: int, by: float) -> None:
    """Move a number by so many pixels; the pointer stays down."""
    box = number(widget, k).bounding_box()
    mouse = widget.page.mouse
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x, y + by, steps=4)


def test_each_step_says_what_is_redone(running: Locator) -> None:
    text = said(running)
    assert "Number 4, 2.60, is a new maximum" in text
    assert "computes 3 anew" in text
    assert "one factor, 0.247" in text
    assert f"ℓ = {in_python('running').running[4, 1]:.3f}" in text
    running.focus()
    press_keys(running, ["ArrowRight"])
    text = said(running)
    assert "Number 5, 1.90, is not above m = 2.60: one term is added, nothing is redone" in text
    assert "online 2 factors, with the terms kept 4 terms" in text
    press_keys(running, ["Home"])
    assert said(running).startswith("Nothing has come")


def test_a_number_that_is_dragged_says_what_it_changes(running: Locator) -> None:
    drag_to(running, 2, -60)
    text = said(running)
    assert text.startswith("You move number 2 from 1.20 to ")
    assert "the other 3 terms of the safe softmax must be computed anew" in text
    value = float(number(running, 2).get_attribute("aria-valuenow"))
    assert value > 2.6
    assert f"exp(2.60 − {value:.2f}) = {np.exp(2.6 - value):.3f}"[:-1] in text
    running.page.mouse.up()
    drag_to(running, 3, -8)
    assert "the maximum stays, only its own term changes" in said(running)
    running.page.mouse.up()
    drag_to(running, 6, 10)
    assert "it has not come yet" in said(running)
    running.page.mouse.up()
    number(running, 2).focus()
    press_keys(number(running, 2), ["ArrowDown"])
    assert number(running, 2).get_attribute("aria-valuetext") == f"{value - 0.1:.2f}"


def test_without_a_maximum_the_sum_overflows(running: Locator) -> None:
    sums, slider = running.locator(".running-naive"), running.get_by_role("slider", name="A number")
    expect(sums).to_have_text(
        "Without a maximum, Σ exp(s) in float16: 19.1; in float32: 19.1.".replace(
            "19.1", f"{np.exp(LOGITS[:4]).sum():.3g}"
        )
    )
    before = said(running).split("ℓ = ")[1]
    for value, words in ((20, "∞, above 65,504; in float32: 9.2"), (100, "∞, above 3.4 · 10³⁸")):
        slider.evaluate(
            "(node, value) => { node.value = value; node.dispatchEvent(new Event('input')); }",
            value,
        )
        expect(sums).to_contain_text(words)
        assert said(running).split("ℓ = ")[1] == before  # the terms are the same


def test_python_hears_of_a_drag_and_sets_numbers(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "running.logits, running.step = [1, 2, 3, 4, 5, 6], 2")
    expect(widget.locator(".running-said")).to_contain_text("Number 2, 2.00, is a new maximum")
    number(widget, 1).focus()
    press_keys(number(widget, 1), ["ArrowUp", "ArrowUp"])
    wait_for_python(live, "print(round(running.logits[0], 3), running.step)", "1.2 2.0")


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    """With as many numbers as there may be."""
    logits = np.random.default_rng(0).normal(size=12)
    widget = show(RunningMaximum(logits, values=logits[::-1].copy()), width=820)
    assert computing_time(widget, PLAY) < 15
    assert cut_off(widget, (320, 400, 560, 800), "canvas, button, p, span, input") == []


# ----------------------------------------------------------------------- the same mathematics twice

RUN = """({ logits, values, shift }) => {
  const run = parts.runOf(logits, values);
  const sums = [parts.half, Math.fround].map((round) =>
    logits.map((_, k) => parts.naiveSum(logits.slice(0, k + 1).map((s) => s + shift), round)));
  return { run: run.map(({ m, l, o }) => [m, l, o]), sums,
           redone: run.map((_, k) => parts.redoneOf(run, k)) };
}"""


def test_the_browser_computes_what_python_does(
    functions_of: Callable[[str, str], Page],
) -> None:
    module = functions_of("running_maximum.js", "runOf, redoneOf, half, naiveSum")
    draws = np.random.default_rng(1)
    for shift in (-18.0, 0.0, 9.0, 85.0):
        peer = RunningMaximum(3 * draws.normal(size=10), values=draws.normal(size=10), shift=shift)
        given = {name: getattr(peer, name) for name in ("logits", "values", "shift")}
        found = module.evaluate(RUN, given)
        np.testing.assert_allclose(found["run"], peer.running, rtol=1e-12, atol=1e-12)
        for k in range(11):
            peer.step = float(k)
            assert tuple(found["redone"][k]) == peer.redone
            if k:
                sums = [peer.naive_sum(dtype) for dtype in ("float16", "float32")]
                np.testing.assert_allclose([one[k - 1] for one in found["sums"]], sums, rtol=2e-7)
