"""Cost in a real browser: its bytes and speed-ups are those of the course, and it answers."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.parallel.memory import state_bytes
from course_lib.parallel.timeline import speedup
from course_lib.widgets import Cost
from course_lib.widgets.cost import KEPT, PARAMETER, SCALINGS, STAGES
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
from tests.browser.test_design_space import SLIDE, choose, set_slider

CELL = list(GALLERY).index("cost") + 1
MODELS = {"small": 124_439_808, "large": 8_000_000_000}


def said(widget: Locator) -> str:
    settle(widget)
    return widget.locator(".cost-said").inner_text()


def test_the_browser_computes_what_python_does(functions_of: Callable[[str, str], Page]) -> None:
    page = functions_of("cost.js", "bytesAt, speedupOf")
    run = """([training, n]) => ({
      held: [0, 1, 2, 3].map((stage) => parts.bytesAt(training, stage, n)),
      speedup: parts.speedupOf(training, n)
    })"""
    names = ["stage_3", "stage", "batch", "scaling", "flops", "layers", "bandwidth", "latency"]
    for precision in PARAMETER:
        for scaling in SCALINGS:
            for stage, n in ((0, 1), (1, 8), (3, 256)):
                cost = Cost(
                    MODELS, model="large", stage=stage, precision=precision, scaling=scaling,
                    bandwidth=2e9, batch=2e5, processes=n,
                )  # fmt: skip
                training = {name: getattr(cost, name) for name in [*names, "bucket_bytes"]} | {
                    "parameters": cost.parameters,
                    "each": PARAMETER[precision],
                    "kept": KEPT[precision]["adam"],
                }
                found = page.evaluate(run, [training, n])
                for s in STAGES:
                    wanted = state_bytes(cost.parameters, processes=n, stage=s, precision=precision)
                    assert found["held"][s] == pytest.approx(
                        [wanted.parameters, wanted.gradients, wanted.optimizer]
                    )
                assert found["speedup"] == pytest.approx(speedup(**cost.work_of(n)))
                assert found["speedup"] == pytest.approx(cost.speedup_of(n))


def test_choices_sliders_and_keys(show: Callable[..., Locator]) -> None:
    widget = show(Cost(MODELS, processes=16))
    assert said(widget).startswith("small, stage 0: each of 16 processes holds 2 GB, which fits")
    before = settle(widget)
    choose(widget, "model", "large")
    wait_until_it_differs(widget, before)
    assert "holds 128 GB, which does not fit into 80 GB (fits with none" in said(widget)
    choose(widget, "ZeRO stage", "1")
    assert "holds 38 GB, which fits into 80 GB." in said(widget)
    set_slider(widget, "Memory of a card", 10.5)  # 31.6 GB
    assert "does not fit into 32 GB (fits with none of these N)" in said(widget)
    widget.focus()
    press_keys(widget, ["ArrowUp", "ArrowUp", "ArrowRight"])
    assert "large, stage 3: each of 32 processes holds 4 GB" in said(widget)
    press_keys(widget, ["ArrowLeft"] * 5)
    assert "one process holds 128 GB, which does not fit into 32 GB (fits from N = 8" in said(
        widget
    )
    choose(widget, "precision", "float32")
    choose(widget, "scaling", "strong")
    set_slider(widget, "How many processes there are", 3.0103)
    peer = Cost(MODELS, model="large", processes=1024, scaling="strong", stage=3)
    peer.precision = "float32"
    assert f"{100 * peer.speedup_of(1024) / 1024:.0f} % of 1024" in said(widget)


def test_bars_line_and_dot_are_dragged(show: Callable[..., Locator]) -> None:
    widget = show(Cost(MODELS, model="large", processes=16))
    mouse, canvas = widget.page.mouse, widget.locator("canvas").bounding_box()
    mouse.click(canvas["x"] + 250, canvas["y"] + 180)
    assert "stage 2" in said(widget)

    def pull(grip: str, right: float, down: float) -> None:
        box = widget.locator(grip).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + right, y + down, steps=4)
        settle(widget)
        mouse.up()

    pull(".cost-memory", 0, 70)
    memory = float(said(widget).split(" into ")[1].split(" GB")[0])
    assert 4 <= memory < 60
    pull(".cost-count", 60, 0)
    assert "each of 64 processes" in said(widget) or "each of 128 processes" in said(widget)
    before = widget.locator(".cost-memory").get_attribute("aria-valuetext")
    press_keys(widget.locator(".cost-memory"), ["ArrowUp"])
    settle(widget)
    assert widget.locator(".cost-memory").get_attribute("aria-valuetext") != before


def test_python_hears_of_it_and_sets_it(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "cost.model, cost.processes = 'SD3 8B', 64")
    expect(widget.locator(".cost-said")).to_contain_text("SD3 8B, stage 0: each of 64")
    choose(widget, "ZeRO stage", "2")
    set_slider(widget, "Tokens in a step", 5.0)
    wait_for_python(live, "print(cost.stage, cost.batch)", "2 100000.0")


def test_frames_are_short_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    """With as many models and layers as there may be."""
    models = {f"model number {k}": 10**k for k in range(4, 12)}
    widget = show(Cost(models, model="model number 10", layers=96), width=820)
    for name in ("How many processes there are", "Bandwidth of each link", "Tokens in a step"):
        assert computing_time(widget.get_by_role("slider", name=name, exact=True), SLIDE) < 15
    parts = "canvas, button, p, span, input"
    assert cut_off(widget, (320, 400, 560, 800), parts) == []
