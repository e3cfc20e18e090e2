"""Uncross in a real browser: points are moved, pairs rectified and reflowed, and all taken back."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from course_lib.diffusion.exact_flows import kernel_velocity
from course_lib.widgets import Uncross
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

CELL = list(GALLERY).index("uncross") + 1

# The times between frames while a point is dragged in circles, in ms.
DRAG = """async point => {
  const fire = (type, x, y) => point.dispatchEvent(new PointerEvent(type, {
    clientX: x, clientY: y, button: 0, pointerId: 1, bubbles: true
  }));
  point.setPointerCapture = () => {};
  const { x, y } = point.getBoundingClientRect();
  fire("pointerdown", x, y);
  const [took, words] = [[], new Set()];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 120; k += 2) {
    fire("pointermove", x + 30 * Math.sin(k / 9), y + 30 * Math.cos(k / 7));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
    words.add(point.getAttribute("aria-valuetext"));
  }
  fire("pointerup", x, y);
  if (words.size < 30) throw new Error("the point was not dragged");
  return took;
}"""


@pytest.fixture(params=["live", "stored"])
def widget(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The widget with its first pairs."""
    one = request.param == "live"
    found = live_widget(live, CELL) if one else stored_widget(trusted, CELL)
    found.get_by_role("button", name="Reset").click()
    expect(last_row(found)).to_have_text("0")
    settle(found)
    return found


def last_row(widget: Locator) -> Locator:
    """The number k of the row that is shown."""
    return widget.locator(".uncross-table .chosen > span").first


def rows(widget: Locator) -> list[list[str]]:
    """What the table tells, row by row."""
    found = widget.locator(".uncross-table > div:not(.empty)").all()
    return [one.locator("span").all_inner_texts() for one in found[1:]]


def told(row: dict) -> list[str]:
    """A row of Python's as the table writes it."""
    s = row["straightness"]
    straight = "–" if s is None else f"{s:.4f}" if s < 0.1 else f"{s:.2f}"
    counts = [str(row[name]) for name in ("k", "meetings", "crossings")]
    return [*counts, f"{row['cost']:.2f}", straight]


def point(widget: Locator, name: str) -> Locator:
    return widget.get_by_role("slider", name=name, exact=True)


def place(widget: Locator, name: str) -> list[float]:
    settle(widget)
    text = point(widget, name).get_attribute("aria-valuetext")
    return [float(number) for number in text.strip("()").replace("−", "-").split(",")]


def test_rectify_and_reflow_until_nothing_meets(widget: Locator) -> None:
    peer = in_python("uncross")
    assert rows(widget) == [told(row) for row in peer.rows]
    assert peer.rows[0]["meetings"] > 3
    before = settle(widget)
    widget.get_by_role("button", name="Rectify").click()
    wait_until_it_differs(widget, before)
    widget.get_by_role("button", name="Reflow").click()
    expect(last_row(widget)).to_have_text("2")
    peer.k = 2
    assert rows(widget) == [told(row) for row in peer.rows]
    assert peer.rows[2]["meetings"] == 0
    for _ in range(3):
        widget.get_by_role("button", name="Reflow").click()
    expect(widget.get_by_role("button", name="Reflow")).to_be_disabled()
    expect(widget).to_be_focused()  # what is off hears no keys
    expect(last_row(widget)).to_have_text("5")
    widget.get_by_role("button", name="Reset").click()
    expect(widget.get_by_role("button", name="Rectify")).to_be_enabled()
    assert settle(widget) == before


def test_a_point_is_dragged_and_the_move_taken_back(widget: Locator) -> None:
    peer = in_python("uncross")
    before, start = settle(widget), place(widget, "Source 2")
    grip, mouse = point(widget, "Source 2"), widget.page.mouse
    grip.scroll_into_view_if_needed()
    box = grip.bounding_box()
    mouse.move(box["x"] + 14, box["y"] + 14)
    mouse.down()
    mouse.move(box["x"] - 16, box["y"] + 54, steps=4)
    mouse.up()
    wait_until_it_differs(widget, before)
    moved = place(widget, "Source 2")
    assert moved[0] < start[0]
    assert moved[1] < start[1]
    peer.x1 = [moved if i == 1 else place for i, place in enumerate(peer.x1)]
    assert float(rows(widget)[0][3]) == pytest.approx(peer.rows[0]["cost"], abs=0.03)
    widget.get_by_role("button", name="Undo").click()
    assert settle(widget) == before
    assert place(widget, "Source 2") == start


def test_keys_move_points_rectify_and_take_back(widget: Locator) -> None:
    left, right, *_ = in_python("uncross").extent
    by = (right - left) / 50
    x, y = place(widget, "Source 1")
    point(widget, "Source 1").focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "Shift+ArrowUp"):
        widget.page.keyboard.press(key)
    assert place(widget, "Source 1") == pytest.approx([x - 2 * by, y + 1.2 * by], abs=0.011)
    widget.page.keyboard.press("PageUp")
    expect(point(widget, "Target 6")).to_be_focused()
    widget.page.keyboard.press("PageDown")
    expect(point(widget, "Source 1")).to_be_focused()
    assert widget.locator(".cw-handle[tabindex='0']").count() == 1
    widget.page.keyboard.press("r")
    expect(last_row(widget)).to_have_text("1")
    widget.page.keyboard.press("z")
    expect(last_row(widget)).to_have_text("0")
    widget.page.keyboard.press("z")  # the nudges of one point are one change
    assert place(widget, "Source 1") == [x, y]


def test_the_flow_is_played_and_time_scrubbed(widget: Locator) -> None:
    press_keys(widget, ["Home"])
    before = settle(widget)
    widget.get_by_role("button", name="Play").click()
    expect(widget.locator(".cw-note")).to_have_text("t = 0.00", timeout=30_000)
    wait_until_it_differs(widget, before)
    press_keys(widget, ["Home", "ArrowRight"])
    expect(widget.locator(".cw-note")).to_have_text("t = 0.98")
    press_keys(widget, ["Home"])
    settle(widget)


def test_a_wider_blur_makes_other_pairs(widget: Locator) -> None:
    widget.get_by_role("button", name="Rectify").click()
    expect(last_row(widget)).to_have_text("1")
    before = rows(widget)
    widget.get_by_role("slider", name="Width of the blur").evaluate(
        """node => {
          node.value = 0.5;
          node.dispatchEvent(new Event("input", { bubbles: true }));
        }"""
    )
    peer = in_python("uncross")
    peer.width, peer.k = 0.5, 1
    shown = widget.locator(".uncross-table .chosen > span").nth(4)
    expect(shown).to_have_text(told(peer.rows[1])[4])
    assert rows(widget) == [told(row) for row in peer.rows] != before
    widget.get_by_role("button", name="Undo").click()
    expect(shown).to_have_text(before[1][4])


def test_python_hears_and_sets(live: Page) -> None:
    widget = live_widget(live, CELL)
    widget.get_by_role("button", name="Reset").click()
    widget.get_by_role("button", name="Rectify").click()
    wait_for_python(live, "print(uncross.k)", "1")
    python(live, "uncross.x0 = uncross.x0[::-1]; uncross.k = 3; uncross.step = 10.0")
    expect(last_row(widget)).to_have_text("3")
    expect(widget.locator(".cw-note")).to_have_text("t = 0.80")
    cost = python(live, "print(f\"{uncross.rows[3]['cost']:.2f}\")")
    assert rows(widget)[3][3] == cost
    press_keys(point(widget, "Target 1"), ["ArrowRight"])
    wait_for_python(live, "print(uncross.x0[0][0] > -2)", "True")
    python(live, "uncross.step = 0.0")
    widget.get_by_role("button", name="Reset").click()
    wait_for_python(live, "print(uncross.x0 == uncross.first['x0'], uncross.k)", "True 0")


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    """As many pairs and flows as there may be."""
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(2, 12, 2)) + np.array([[[-3.0, 0]], [[3.0, 0]]])
    widget = show(Uncross(*ends, k=5), width=760)
    assert computing_time(point(widget, "Source 3"), DRAG) < 20
    parts = "canvas, button, p:not(.cw-spoken), span, input"
    assert cut_off(widget, (320, 400, 600), parts) == []


# ----------------------------------------------------------------------- the same mathematics twice


def test_the_browser_computes_what_python_and_the_library_do(
    functions_of: Callable[[str, str], Page],
) -> None:
    rng = np.random.default_rng(3)
    widget = Uncross(*rng.normal(size=(2, 9, 2)), width=0.3)
    module = functions_of("uncross.js", "pairsBetween, sharesAt, averageOf, levelOf, nextLevel")
    spots = rng.normal(size=(5, 2)).tolist()
    velocities, levels = module.evaluate(
        """([x0, x1, spots]) => {
          const pairs = parts.pairsBetween(x0, x1);
          const velocities = spots.map(
            (x) => parts.averageOf(pairs, parts.sharesAt(pairs, x, 0.6, 0.3)));
          const levels = [parts.levelOf(x0, x1, 0.3, 50)];
          for (let k = 0; k < 3; k++) levels.push(parts.nextLevel(levels.at(-1), x1, 0.3, 50));
          return [velocities, levels];
        }""",
        [widget.x0, widget.x1, spots],
    )
    np.testing.assert_allclose(velocities, widget.velocity(spots, 0.6), atol=1e-9)
    x, x0, x1 = (torch.tensor(v, dtype=torch.float64) for v in (spots, widget.x0, widget.x1))
    t = torch.full((5,), 0.6, dtype=torch.float64)
    found = kernel_velocity(x, t, x0, x1, width=0.3)
    np.testing.assert_allclose(velocities, found.numpy(), atol=1e-9)
    widget.k = 3
    for level, row in zip(levels, widget.rows, strict=True):
        counts = level["counts"]
        assert counts == pytest.approx({name: row[name] for name in counts}, abs=1e-9)
    way = np.array(levels[3]["ways"])[:, ::-1, 1:].swapaxes(0, 1)  # from t = 1 on
    np.testing.assert_allclose(way, widget.ways, atol=1e-9)
