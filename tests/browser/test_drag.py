"""The gesture behind all that is dragged: with two fingers on the screen, one of them drags."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

# What is heard of [type, finger, x] one after another: where it started, moved and ended.
HEARD = """([touchAction, events]) => {
  const node = document.body.appendChild(document.createElement("div"));
  Object.assign(node.style, { position: "fixed", inset: 0, touchAction });
  node.setPointerCapture = () => {};
  const heard = [];
  window.parts.drag(node, {
    start: ([x]) => {
      heard.push(["start", x]);
      return ([to]) => heard.push(["move", to]);
    },
    end: ([x]) => heard.push(["end", x])
  });
  for (const [type, pointerId, clientX] of events) {
    node.dispatchEvent(new PointerEvent(type, {
      pointerId, clientX, clientY: 50, button: 0, pointerType: "touch", bubbles: true
    }));
  }
  node.remove();
  return heard;
}"""


@pytest.mark.parametrize("touch_action", ["none", "pan-y"])
def test_another_finger_neither_moves_nor_drops_what_one_drags(
    functions_of: Callable[[str, str], Page], touch_action: str
) -> None:
    page = functions_of("inpaint.js", "drag")
    events = [
        ["pointerdown", 1, 50],
        ["pointerdown", 2, 300],  # a second finger, before the first has gone aside
        ["pointermove", 2, 320],
        ["pointermove", 1, 60],
        ["pointermove", 2, 340],
        ["pointerup", 2, 340],
        ["pointermove", 1, 70],
        ["pointerup", 1, 70],
        ["lostpointercapture", 1, 70],
    ]
    heard = page.evaluate(HEARD, [touch_action, events])
    assert heard == [["start", 50], ["move", 60], ["move", 70], ["end", 70]]


def test_a_page_that_scrolls_under_a_finger_frees_the_next_one(
    functions_of: Callable[[str, str], Page],
) -> None:
    page = functions_of("inpaint.js", "drag")
    events = [
        ["pointerdown", 1, 50],
        ["pointercancel", 1, 50],
        ["pointerdown", 2, 80],
        ["pointerup", 2, 80],
    ]
    assert page.evaluate(HEARD, ["pan-y", events]) == [["start", 80], ["end", 80]]
