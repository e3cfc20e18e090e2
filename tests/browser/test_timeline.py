"""Timeline in a real browser: its times are those of the course, and what is dragged is heard."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.parallel.timeline import timeline
from course_lib.widgets import Timeline
from tests.browser.gallery import GALLERY
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
from tests.browser.test_design_space import SLIDE, set_slider

CELL = list(GALLERY).index("timeline") + 1
SIZES = [1_000_000 * (1 + k % 5) for k in range(30)]
BACKWARD = [0.001 * (1 + k % 3) for k in range(30)]


def said(widget: Locator) -> str:
    settle(widget)
    return widget.locator(".timeline-said").inner_text()


@pytest.fixture(scope="module")
def module(functions_of: Callable[[str, str], Page]) -> Page:
    return functions_of("timeline.js", "timelineOf, bandwidthFor")


@pytest.mark.parametrize("overlap", [True, False])
def test_the_browser_computes_what_python_does(module: Page, overlap: bool) -> None:
    for processes in (1, 2, 48):
        for bandwidth, latency, bucket_bytes in ((1e9, 1e-4, 1), (3e10, 1e-5, 9_000_000)):
            given = {
                "processes": processes, "bandwidth": bandwidth, "latency": latency,
                "bucket_bytes": bucket_bytes, "overlap": overlap,
            }  # fmt: skip
            found = module.evaluate(
                "step => parts.timelineOf(step)", given | {"sizes": SIZES, "backward": BACKWARD}
            )
            spans = timeline(SIZES, BACKWARD, **given)
            for kind, key in (("backward", "layers"), ("all-reduce", "travels")):
                wanted = [(s.index, s.start, s.end) for s in spans if s.kind == kind]
                times = [(one["index"], one["start"], one["end"]) for one in found[key]]
                np.testing.assert_allclose(times, wanted, rtol=1e-9)
            given["bucket_bytes"] = max(bucket_bytes, 500)
            peer = Timeline(SIZES, BACKWARD, **given)
            assert found["end"] == pytest.approx(peer.end)
            assert found["hidden"] == pytest.approx(peer.hidden)


def test_the_bandwidth_for_an_end_is_found(module: Page) -> None:
    step = {
        "sizes": SIZES, "backward": BACKWARD, "processes": 8, "latency": 1e-5,
        "bucket_bytes": 9_000_000, "overlap": True,
    }  # fmt: skip
    find = "([step, end]) => parts.bandwidthFor(step, end, [1e7, 1e12])"
    for bandwidth in (1e8, 1.23e9):
        end = module.evaluate("step => parts.timelineOf(step).end", step | {"bandwidth": bandwidth})
        assert module.evaluate(find, [step, end]) == pytest.approx(bandwidth, rel=0.01)
    assert module.evaluate(find, [step, 0.0]) == 1e12  # it cannot end so early
    assert module.evaluate(find, [step, 1e4]) == 1e7


def test_dragging_the_end_changes_the_bandwidth_and_the_dot_the_buckets(
    show: Callable[..., Locator],
) -> None:
    peer = Timeline(SIZES, BACKWARD, bandwidth=2e9, bucket_bytes=9_000_000)
    widget = show(peer)
    assert f"{100 * peer.hidden:.0f} % is hidden" in said(widget)
    assert f"ends at {1000 * peer.end:.3g} ms" in said(widget)
    values = widget.locator(".cw-slider output")
    mouse = widget.page.mouse

    def pull(grip: str, right: float) -> None:
        box = widget.locator(grip).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + right, y, steps=4)
        settle(widget)
        mouse.up()

    before = widget.locator(".timeline-end").bounding_box()["x"]
    pull(".timeline-end", -30)
    assert values.nth(0).inner_text() != "2 GB/s"
    faster = float(values.nth(0).inner_text().split()[0])
    assert faster > 2
    peer.bandwidth = 1e9 * faster
    assert float(said(widget).split("ends at ")[1].split(" ms")[0]) == pytest.approx(
        1000 * peer.end, rel=0.02
    )
    after = widget.locator(".timeline-end").bounding_box()["x"]
    assert after == pytest.approx(before - 30, abs=3)  # it stays where it is let go
    assert "all-reduce of 10 buckets" in said(widget)
    pull(".timeline-bucket", -60)
    assert float(values.nth(1).inner_text().split()[0]) < 9
    assert "all-reduce of 10 buckets" not in said(widget)


def test_keys_sliders_and_overlap(show: Callable[..., Locator]) -> None:
    widget = show(Timeline(SIZES, BACKWARD, bandwidth=2e9, bucket_bytes=9_000_000))
    values = widget.locator(".cw-slider output")
    assert values.all_inner_texts() == ["2 GB/s", "9 MB", "20 µs", "4"]
    widget.focus()
    press_keys(widget, ["ArrowUp", "ArrowRight"])
    assert values.all_inner_texts()[:2] == ["2.5 GB/s", "11 MB"]
    press_keys(widget, ["ArrowDown", "ArrowLeft"])
    assert values.all_inner_texts()[:2] == ["2 GB/s", "9 MB"]
    press_keys(widget.locator(".timeline-end"), ["ArrowLeft"])  # earlier: faster
    assert values.first.inner_text() == "2.5 GB/s"
    before = settle(widget)
    widget.get_by_role("button", name="overlap").click()
    wait_until_it_differs(widget, before)
    assert "0 % is hidden" in said(widget)
    set_slider(widget, "How many processes there are", 0)
    assert said(widget).startswith("One process has nothing to send")
    set_slider(widget, "How many processes there are", 5 * np.log10(2))
    assert said(widget).startswith("32 processes")


def test_python_hears_of_it_and_sets_it(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "timeline.processes, timeline.overlap = 16, False")
    expect(widget.locator(".timeline-said")).to_contain_text("16 processes")
    set_slider(widget, "Bandwidth of each link", 10.0)
    set_slider(widget, "When a bucket is full", 7.0)
    told = "print(timeline.bandwidth, timeline.bucket_bytes)"
    wait_for_python(live, told, "10000000000.0 10000000")
    widget.get_by_role("button", name="overlap").click()
    wait_for_python(live, "print(timeline.overlap)", "True")


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    """With as many layers as there may be."""
    widget = show(Timeline([1_000_000] * 96, [1e-3] * 96, bucket_bytes=500_000), width=820)
    for name in ("Bandwidth of each link", "When a bucket is full"):
        assert computing_time(widget.get_by_role("slider", name=name, exact=True), SLIDE) < 15
    parts = "canvas, button, p, span, input"
    assert cut_off(widget, (320, 400, 560, 800), parts) == []
