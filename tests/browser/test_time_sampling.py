"""TimeSampling in a real browser: its densities, what is dragged, what is measured nearest."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from course_lib.diffusion import times
from course_lib.widgets import TimeSampling
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    computing_time,
    cut_off,
    live_widget,
    press_keys,
    python,
    settle,
    wait_for_python,
)

CELL = list(GALLERY).index("where") + 1
GRIP = "Density at its median"

# How long each of 60 frames takes while the point is dragged in circles.
DRAG_THE_GRIP = """async grip => {
  const { left, top } = grip.getBoundingClientRect();
  grip.setPointerCapture = () => {};
  const fire = (type, x, y) => grip.dispatchEvent(new PointerEvent(type, {
    clientX: left + 8 + x, clientY: top + 8 + y, button: 0, pointerId: 1, bubbles: true
  }));
  fire("pointerdown", 0, 0);
  const [said, took] = [new Set(), []];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 120; k += 2) {
    fire("pointermove", 60 * Math.sin(k / 9), 40 * Math.sin(k / 7));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
    said.add(grip.getAttribute("aria-valuetext"));
  }
  fire("pointerup", 0, 0);
  if (said.size < 6) throw new Error(`nothing was dragged: ${said.size} different places`);
  return took;
}"""


@pytest.fixture
def twin() -> TimeSampling:
    """The gallery's widget, in Python alone."""
    return in_python("where")


@pytest.fixture(scope="module")
def module(functions_of: Callable[[str, str], Page]) -> Page:
    """A page that holds functions of the widget's module."""
    return functions_of("time_sampling.js", "timeDensity, densityOf, distance, DIVISORS, qualityOf")


def check(widget: Locator, twin: TimeSampling) -> None:
    """The nearest measured sampling is the one that Python finds, and its button is pressed."""
    row = twin.nearest
    said = f"{row['name']}: {row['quality']:g} ± {row['error']:g}"
    expect(widget.locator(".times-said")).to_contain_text(said)
    expect(widget.locator(".times-rows button[aria-pressed=true]")).to_have_text(said)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        *(
            (
                {"sampling": "logit-normal", "m": m, "s": s, "scale": 1},
                lambda t, m=m, s=s: times.logit_normal_density(t, m, s),
            )
            for m, s in ((0, 1), (0.5, 0.6), (-2, 0.25), (3, 3))
        ),
        *(
            (
                {"sampling": "mode", "m": 0, "s": 1, "scale": scale},
                lambda t, scale=scale: times.mode_density(t, scale),
            )
            for scale in (-1, 0, 1.29, 1.7)
        ),
        ({"sampling": "cosmap", "m": 0, "s": 1, "scale": 1}, times.cosmap_density),
        ({"sampling": "uniform", "m": 0, "s": 1, "scale": 1}, torch.ones_like),
    ],
)
def test_densities_are_those_of_the_library(
    module: Page, given: dict, wanted: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    t = torch.linspace(0.002, 0.998, 250, dtype=torch.float64)
    script = "([ts, given]) => ts.map((t) => parts.timeDensity(t, given))"
    found = module.evaluate(script, [t.tolist(), given])
    np.testing.assert_allclose(found, wanted(t).numpy(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("quality", "error", "said"),
    [
        (35.5469, 4.9462, "35.5 ± 4.9"),
        (0.4137, 0.02, "0.414 ± 0.02"),
        (1234.5, 120.0, "1235 ± 120"),
        (0.5, 0.0, "0.5 ± 0"),
    ],
)
def test_an_error_is_said_in_two_digits(module: Page, quality: float, error: float, said: str):
    given = {"quality": quality, "error": error}
    assert module.evaluate("(row) => parts.qualityOf(row)", given) == said


def test_distances_and_weights_are_those_of_python(module: Page, twin: TimeSampling) -> None:
    shown = {"sampling": "logit-normal", "m": twin.m, "s": twin.s, "scale": twin.scale}
    script = """([shown, rows]) => rows.map((row) =>
      parts.distance(parts.densityOf(shown), parts.densityOf(row)))"""
    found = module.evaluate(script, [shown, twin.measured])
    np.testing.assert_allclose(found, twin.distances, atol=1e-9)
    for target in ("velocity", "eps", "x0"):
        twin.target = target
        script = "([name, t]) => parts.DIVISORS[name](t)"
        divided = twin.density(0.3) / module.evaluate(script, [target, 0.3])
        assert divided == pytest.approx(float(twin.weight(0.3)))


def test_the_density_goes_where_its_point_is_dragged(
    show: Callable[..., Locator], twin: TimeSampling
) -> None:
    widget = show(twin)
    check(widget, twin)
    grip = widget.get_by_role("slider", name=GRIP)
    box = grip.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse = widget.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 45, y - 60, steps=3)
    mouse.up()
    # Higher is narrower, to the right is later.
    expect(grip).not_to_have_attribute("aria-valuetext", "m = 0.2, s = 1")
    settle(widget)
    said = dict(one.split(" = ") for one in grip.get_attribute("aria-valuetext").split(", "))
    m, s = float(said["m"]), float(said["s"])
    assert m > 0.5
    assert s < 0.9
    moved = grip.bounding_box()
    assert moved["x"] - box["x"] == pytest.approx(45, abs=2)
    assert moved["y"] - box["y"] == pytest.approx(-60, abs=3)
    twin.m, twin.s = m, s
    check(widget, twin)


def test_samplings_have_their_own_parameters_and_rows_go_there(
    show: Callable[..., Locator], twin: TimeSampling
) -> None:
    widget = show(twin)
    shown = {"logit-normal": {"mean m", "spread s"}, "mode": {"scale s"}, "cosmap": set()}
    for sampling, names in (shown | {"uniform": set()}).items():
        widget.get_by_role("button", name=sampling, exact=True).click()
        twin.sampling = sampling
        check(widget, twin)
        for name in ("mean m", "spread s", "scale s"):
            slider = widget.get_by_role("slider", name=name)
            expect(slider).to_have_count(1 if name in names else 0)
        point = widget.get_by_role("slider", name=GRIP)
        expect(point).to_have_count(1 if names else 0)
    for row in twin.measured:
        widget.get_by_role("button", name=f"{row['name']}: {row['quality']:g}").click()
        expect(widget.locator(".times-said")).to_contain_text("this is " + row["name"])


def test_keys_move_m_and_s(show: Callable[..., Locator], twin: TimeSampling) -> None:
    widget = show(twin, width=356)
    press_keys(widget, ["ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowUp"])
    grip = widget.get_by_role("slider", name=GRIP)
    expect(grip).to_have_attribute("aria-valuetext", "m = 0.3, s = 0.8")
    press_keys(widget, ["ArrowDown"] * 40)  # to its end, and no further
    expect(grip).to_have_attribute("aria-valuetext", "m = 0.3, s = 3")


def test_python_hears_of_it_and_can_say_it(live: Page, twin: TimeSampling) -> None:
    widget = live_widget(live, CELL)
    python(live, "where.sampling, where.m, where.s = 'logit-normal', 0.5, 0.6")
    twin.m, twin.s = 0.5, 0.6
    check(widget, twin)
    press_keys(widget, ["ArrowRight"])
    widget.get_by_role("button", name="x₀").click()
    wait_for_python(live, "print(round(where.m, 3), where.s, where.target)", "0.6 0.6 x0")


def test_frames_are_short_and_nothing_is_cut_off(
    show: Callable[..., Locator], twin: TimeSampling
) -> None:
    widget = show(twin)
    assert computing_time(widget.get_by_role("slider", name=GRIP), DRAG_THE_GRIP) < 15
    assert (
        cut_off(widget, (320, 400, 560, 800), "canvas, button, p, .cw-slider:not([hidden])") == []
    )
