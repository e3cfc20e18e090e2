"""Roofline in a real browser: the ridge is dragged, hardware chosen; its numbers are Python's."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import Roofline
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

CELL = list(GALLERY).index("roofline") + 1
RIDGE = "The ridge: peak over bandwidth"

SET = """(node, value) => {
  node.value = value;
  node.dispatchEvent(new Event("input", { bubbles: true }));
}"""

# The times between frames while the ridge is moved by keys, in ms.
NUDGE = """async node => {
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 60; k++) {
    const key = ["ArrowUp", "ArrowLeft", "ArrowDown", "ArrowRight"][k % 4];
    node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  return took;
}"""


@pytest.fixture
def roofline(show: Callable[..., Locator]) -> Locator:
    return show(in_python("roofline"))


def said(widget: Locator) -> str:
    settle(widget)
    return widget.locator(".roof-said").inner_text()


def test_what_is_said_is_what_python_computes(roofline: Locator) -> None:
    for hardware in ("A100", "H100", "CPU core"):
        roofline.get_by_role("button", name=hardware).click()
        peer = Roofline(4096, 64, hardware=hardware)
        seconds, text = peer.seconds, said(roofline)
        times = seconds["three steps"] / seconds["FlashAttention"]
        assert f"{float(f'{times:.3g}'):g} times less" in text
        intensity = peer.costs["FlashAttention"].intensity
        assert f"It makes {float(f'{intensity:.3g}'):g} operations a byte" in text
        waits = intensity < peer.peak / peer.bandwidth
        assert ("it waits for memory" if waits else "it computes all the time") in text
        pressed = roofline.locator("button[aria-pressed=true]")
        expect(pressed).to_have_text([hardware])


def test_the_ridge_is_dragged(roofline: Locator) -> None:
    ridge = roofline.get_by_role("slider", name=RIDGE)
    before, text = settle(roofline), ridge.get_attribute("aria-valuetext")
    assert text == "153 operations a byte, 312 TFLOP/s"
    box = ridge.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    roofline.page.mouse.move(x, y)
    roofline.page.mouse.down()
    roofline.page.mouse.move(x - 60, y + 30, steps=4)
    roofline.page.mouse.up()
    wait_until_it_differs(roofline, before)
    intensity, peak = (
        float(word.split()[0]) for word in ridge.get_attribute("aria-valuetext").split(", ")
    )
    assert intensity < 100
    assert peak < 250
    assert roofline.locator("button[aria-pressed=true]").count() == 0  # no named hardware
    ridge.focus()
    press_keys(ridge, ["ArrowUp", "ArrowRight"])
    settle(roofline)
    value = ridge.get_attribute("aria-valuetext")
    assert float(value.split()[0]) == pytest.approx(1.15 * intensity, rel=0.02)
    assert float(value.split(", ")[1].split()[0]) == pytest.approx(1.15 * peak, rel=0.02)


def test_sliders_change_the_picture(roofline: Locator) -> None:
    for name, power in (
        ("tokens N", 9),
        ("head size d", 7),
        ("Queries that FlashAttention holds while all keys pass by", 5),
        ("peak", 47),
        ("bandwidth", 39),
    ):
        before = settle(roofline)
        roofline.get_by_role("slider", name=name, exact=True).evaluate(SET, power)
        wait_until_it_differs(roofline, before)


def test_python_hears_of_the_hardware_and_sets_it(live: Page) -> None:
    widget = live_widget(live, CELL)
    widget.get_by_role("button", name="H100").click()
    code = "print(roofline.hardware, roofline.peak, roofline.number_bytes)"
    wait_for_python(live, code, "H100 989400000000000.0 2")
    python(live, "roofline.hardware = 'CPU core'")
    expect(widget.locator(".roof-said")).to_contain_text("the ridge is at 7.5")
    widget.get_by_role("slider", name="bandwidth", exact=True).evaluate(SET, 35)
    wait_for_python(live, "print(roofline.hardware, roofline.bandwidth)", f" {2**35}.0".strip())


def test_frames_are_short_and_nothing_is_cut_off(roofline: Locator) -> None:
    assert computing_time(roofline.get_by_role("slider", name=RIDGE), NUDGE) < 15
    assert cut_off(roofline, (320, 400, 560, 800), "canvas, button, p, span, input") == []


# ----------------------------------------------------------------------- the same mathematics twice


def test_the_browser_computes_what_python_does(functions_of: Callable[[str, str], Page]) -> None:
    module = functions_of("roofline.js", "stepsOf, attainableSpeed")
    for n, d, rows in ((1, 1, 1), (100, 16, 30), (4096, 64, 128), (65_536, 256, 1024)):
        for hardware in ("A100", "CPU core"):
            peer = Roofline(n, d, rows=rows, hardware=hardware)
            names = ("n", "d", "rows", "peak", "bandwidth", "number_bytes")
            found = module.evaluate(
                "given => parts.stepsOf(given)", {name: getattr(peer, name) for name in names}
            )
            for step, (name, cost) in zip(found, peer.costs.items(), strict=True):
                assert (step["flops"], step["bytes"]) == cost
                assert step["seconds"] == pytest.approx(peer.seconds[name], rel=1e-12)
                assert step["intensity"] == pytest.approx(cost.intensity, rel=1e-12)
