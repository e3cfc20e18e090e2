"""Ring in a real browser: its states are those of the course's ring, and it plays and steps."""

from collections.abc import Callable

import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from course_lib.parallel.ring import ring_steps
from course_lib.widgets import Ring
from tests.browser.gallery import GALLERY
from tests.browser.harness import (
    computing_time,
    cut_off,
    live_widget,
    painted,
    press_keys,
    python,
    settle,
    wait_for_python,
    wait_until_it_differs,
)
from tests.browser.test_design_space import SLIDE, set_slider

CELL = list(GALLERY).index("ring") + 1


def said(widget: Locator) -> str:
    settle(widget)
    return widget.locator(".ring-said").inner_text()


def place(widget: Locator) -> str:
    return painted(widget.locator(".cw-readout")).inner_text()


def test_the_browser_holds_what_python_does(functions_of: Callable[[str, str], Page]) -> None:
    page = functions_of("ring.js", "statesOf, messagesOf, namesOf, sentInRing")
    run = """([values, n]) => ({
      states: parts.statesOf(values, n), names: parts.namesOf(n), sent: parts.sentInRing(n),
      messages: Array.from({ length: 2 * n - 2 }, (_, k) => parts.messagesOf(n, k + 1))
    })"""
    for n in range(1, 9):
        ring = Ring(n)
        found = page.evaluate(run, [ring.values, n])
        rows = list(torch.tensor(ring.values)[:n, :n])
        for k, (chunks, messages) in enumerate(ring_steps(rows)):
            ring.step = float(k)
            assert found["states"][k]["chunks"] == [torch.cat(own).tolist() for own in chunks]
            assert found["states"][k]["counts"] == ring.contributions.tolist()
            if k:
                sent = [
                    {"source": m.source, "target": m.target, "chunk": m.chunk} for m in messages
                ]
                assert found["messages"][k - 1] == sent
        assert found["names"] == ring.labels
        assert found["sent"] == ring.sent


def test_it_says_what_comes_next_and_what_it_costs(show: Callable[..., Locator]) -> None:
    widget = show(Ring(4))
    assert "step 1 of 6 (reduce-scatter): process 0 sends chunk 0 to process 1" in said(widget)
    widget.focus()
    press_keys(widget, ["ArrowRight"] * 3)
    assert said(widget).startswith("Each chunk is whole at one process. Next, step 4 of 6 (all-g")
    press_keys(widget, ["End"])
    assert "2 (N − 1) / N = 1.5 vectors; process 0 of a star would send 3" in said(widget)
    assert said(widget).startswith("Every process holds the sum of all 4.")
    before = settle(widget)
    press_keys(widget, ["ArrowUp"])  # one process more begins anew
    wait_until_it_differs(widget, before)
    assert place(widget) == "0 / 8"
    press_keys(widget, ["ArrowDown"] * 9)
    assert said(widget) == "One process alone has nothing to send."
    assert place(widget) == "0 / 0"


def test_it_plays_to_the_end_and_can_be_scrubbed(show: Callable[..., Locator]) -> None:
    widget = show(Ring(2))
    before = settle(widget)
    widget.get_by_role("button", name="Play").click()
    wait_until_it_differs(widget, before)
    expect(widget.locator(".cw-readout")).to_have_text("2 / 2")
    expect(widget.get_by_role("button", name="Play")).to_be_visible()
    end = settle(widget)
    set_slider(widget, "Step", 0.5)
    wait_until_it_differs(widget, end)
    assert place(widget) == "0.5 / 2"


def test_python_hears_of_it_and_sets_it(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "ring.processes = 6; ring.step = 4.0")
    expect(widget.locator(".cw-readout")).to_have_text("4 / 10")
    set_slider(widget, "How many processes there are", 3)
    wait_for_python(live, "print(ring.processes, ring.n_steps, ring.step)", "3 5 0.0")
    widget.focus()
    press_keys(widget, ["ArrowRight"])
    wait_for_python(live, "print(ring.step)", "1.0")
    python(live, "ring.processes = 4; ring.step = 2.0")  # as it was
    expect(widget.locator(".cw-readout")).to_have_text("2 / 6")


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    widget = show(Ring(8), width=820)
    assert computing_time(widget.get_by_role("slider", name="Step", exact=True), SLIDE) < 15
    parts = "canvas, button, p, input"
    assert cut_off(widget, (320, 400, 560, 800), parts) == []


@pytest.mark.parametrize("n", [1, 8])
def test_sectors_keep_within_the_picture(functions_of: Callable[[str, str], Page], n: int) -> None:
    page = functions_of("ring.js", "stands, bandOf, halfAt")
    for width in (304, 420, 560, 760):
        at = page.evaluate("([width, n]) => parts.stands(width, n, 8)", [width, n])
        ring, bars = at["ring"], at["bars"]
        assert ring["x"] - ring["outer"] >= 14
        assert bars["x"] + bars["width"] + 40 <= width
        assert bars["y"] + bars["height"] <= at["total"]
        band = page.evaluate("([ring, n]) => parts.bandOf(ring, n - 1, n)", [ring, n])
        assert band["height"] >= 9  # there is room for a number
        assert page.evaluate("([r, n]) => parts.halfAt(r, n)", [band["low"], n]) > 0.1
