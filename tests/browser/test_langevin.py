"""Langevin in a real browser: the particles are Python's, at every step and setting."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import PALETTE, Langevin
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    computing_time,
    cut_off,
    live_widget,
    pixels,
    press_keys,
    python,
    settle,
    stored_widget,
    wait_for_python,
    wait_until_it_differs,
    wait_until_it_is,
)

CELL = list(GALLERY).index("langevin") + 1
AS_AT_FIRST = (
    "langevin.landscape, langevin.step_size, langevin.temperature, langevin.drop, langevin.seed, "
    "langevin.annealed, langevin.scattered, langevin.step = "
    "'two wells', 0.05, 1.0, -2.2, 0, False, False, 0.0"
)


@pytest.fixture
def twin() -> Langevin:
    """The gallery's widget, in Python alone."""
    return in_python("langevin")


@pytest.fixture
def stored(show: Callable[..., Locator]) -> Locator:
    """The stored widget in a plain page."""
    return show(in_python("langevin"))


@pytest.fixture(params=["live", "stored"])
def form(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The gallery's widget at its first step."""
    widget = live_widget(live, CELL) if request.param == "live" else stored_widget(trusted, CELL)
    widget.focus()
    widget.press("Home")
    expect(widget.locator(".cw-readout")).to_have_text("0 / 300")
    settle(widget)
    return widget


def button(widget: Locator, name: str) -> Locator:
    return widget.get_by_role("button", name=name, exact=True)


def grip(widget: Locator) -> Locator:
    return widget.locator(".langevin-grip")


def written(widget: Locator) -> tuple[int, list[int]]:
    """The step, and all percentages: of the particles, then of the law."""
    settle(widget)
    text = widget.locator(".langevin-said").inner_text()
    return int(re.findall(r"Step (\d+)", text)[0]), [int(n) for n in re.findall(r"(\d+) %", text)]


def check(widget: Locator, twin: Langevin) -> None:
    """The step and the shares of the wells are what its twin says, to a percent."""
    step, found = written(widget)
    assert step == twin.index
    borders = twin.barriers[twin.names.index(twin.landscape)]
    x = np.linspace(*twin.extent, len(twin.law))
    wells = [np.searchsorted(borders, places) for places in (twin.particles, x)]
    masses = [np.ones(twin.n_particles), twin.law]
    wanted = [
        100 * mass[well == k].sum() / mass.sum()
        for well, mass in zip(wells, masses, strict=True)
        for k in range(len(borders) + 1)
    ]
    np.testing.assert_allclose(found, wanted, atol=0.51)


def set_slider(widget: Locator, name: str, value: float) -> None:
    widget.get_by_role("slider", name=name).evaluate(
        """(node, value) => {
          node.value = String(value);
          node.dispatchEvent(new Event("input"));
        }""",
        value,
    )


def test_a_run_follows_from_the_settings(stored: Locator, twin: Langevin) -> None:
    first = settle(stored)
    check(stored, twin)
    stored.focus()
    press_keys(stored, ["PageDown"] * 4 + ["ArrowRight"] * 3)
    twin.step = 103.0
    check(stored, twin)
    set_slider(stored, "step size h", 0.4)
    twin.step_size = 0.4
    check(stored, twin)
    set_slider(stored, "temperature", 2.5)
    twin.temperature = 2.5
    check(stored, twin)
    button(stored, "three wells").click()
    button(stored, "everywhere").click()
    twin.landscape, twin.scattered = "three wells", True
    check(stored, twin)
    button(stored, "annealing").click()
    twin.annealed = True
    check(stored, twin)
    button(stored, "New noise").click()
    twin.seed = 1
    check(stored, twin)
    stored.press("End")
    twin.step = 300.0
    check(stored, twin)
    # And back.
    for name in ("annealing", "here", "two wells"):
        button(stored, name).click()
    for name, value in (("step size h", 0.05), ("temperature", 1)):
        set_slider(stored, name, value)
    stored.focus()
    stored.press("Home")
    twin = in_python("langevin")
    twin.seed = 1
    check(stored, twin)
    assert settle(stored) != first  # the noise is another


def test_dropped_elsewhere_a_run_begins_anew(form: Locator, twin: Langevin) -> None:
    press_keys(form, ["PageDown"] * 3)
    assert written(form)[0] == 75
    picture = settle(form)
    grip(form).scroll_into_view_if_needed()
    box, mouse = grip(form).bounding_box(), form.page.mouse
    x, y = box["x"] + 14, box["y"] + 14
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 60, y, steps=4)
    mouse.up()
    wait_until_it_differs(form, picture)
    across = form.locator("canvas").bounding_box()["width"] - 58
    drop = float(grip(form).get_attribute("aria-valuenow"))
    assert drop == pytest.approx(twin.drop + 600 / across, abs=0.02)
    assert written(form)[0] == 0
    grip(form).focus()
    for _ in range(3):
        grip(form).press("ArrowRight")
    grip(form).press("Shift+ArrowLeft")
    settle(form)
    moved = float(grip(form).get_attribute("aria-valuenow"))
    assert moved == pytest.approx(drop + 0.58, abs=0.011)
    # A click in the landscape drops them there.
    form.locator("canvas").click(position={"x": 46 + 0.85 * across, "y": 60})
    settle(form)
    assert float(grip(form).get_attribute("aria-valuenow")) == pytest.approx(3.5, abs=0.03)
    assert written(form)[1][:2] == [0, 100]
    form.locator("canvas").click(position={"x": 46 + 0.28 * across, "y": 60})  # -2.2
    settle(form)


def test_played_it_moves_in_whole_steps_to_the_end(form: Locator, twin: Langevin) -> None:
    press_keys(form, ["End"] + ["ArrowLeft"] * 12)
    form.get_by_role("button", name="Play").click()
    expect(form.locator(".cw-readout")).to_have_text("300 / 300")
    expect(form.get_by_role("button", name="Play")).to_be_visible()
    assert written(form)[0] == 300
    assert sum(written(form)[1][:2]) == pytest.approx(100, abs=1)


def test_python_drives_it_and_reads_it_back(live: Page, twin: Langevin) -> None:
    widget = live_widget(live, CELL)
    python(live, AS_AT_FIRST)
    python(live, "langevin.drop, langevin.annealed, langevin.step = 3.0, True, 120.0")
    twin.drop, twin.annealed, twin.step = 3.0, True, 120.0
    check(widget, twin)
    press_keys(widget, ["ArrowRight"] * 2)
    wait_for_python(live, "print(langevin.index)", "122")
    button(widget, "three wells").click()
    wait_for_python(live, "print(langevin.landscape)", "three wells")
    twin.step, twin.landscape = 122.0, "three wells"
    check(widget, twin)
    refused = python(live, "langevin.step_size = 2.0")
    assert refused.startswith("ValueError: step_size must be above 0")
    python(live, AS_AT_FIRST)
    wait_until_it_is(widget, settle(widget))


# ----------------------------------------------------------------------- the same mathematics twice


@pytest.mark.parametrize(
    ("landscape", "h", "temperature", "annealed", "scattered"),
    [("two wells", 0.05, 1.0, False, False), ("three wells", 0.5, 0.4, True, True)],
)
def test_javascript_computes_what_python_does(
    functions_of: Callable[[str, str], Page],
    twin: Langevin,
    landscape: str,
    h: float,
    temperature: float,
    annealed: bool,
    scattered: bool,
) -> None:
    page = functions_of("langevin.js", "langevinStep, lawOn, settledLaw, normalsFrom")
    twin.landscape, twin.step_size, twin.temperature = landscape, h, temperature
    twin.annealed, twin.scattered, twin.seed, twin.step = annealed, scattered, 7, 0.0
    start = twin.particles.tolist()
    twin.step = 50.0
    land = {
        "low": -5, "high": 5, "cells": 101, "sigmas": twin.sigmas,
        "width": twin.widths[twin.names.index(landscape)],
        "energy": twin._own("energy").tolist(), "score": twin._own("score").tolist(),
    }  # fmt: skip
    found = page.evaluate(
        """([land, levels, start, seed, h, temperature, fine]) => {
          const next = parts.normalsFrom(seed);
          const noise = () => Float64Array.from({ length: start.length }, next);
          noise(); // that of the heap
          let x = Float64Array.from(start);
          for (const level of levels) {
            x = parts.langevinStep(land, level, h, temperature, x, noise());
          }
          const { cells, density } = parts.settledLaw(land, h, temperature, fine);
          return {
            x: [...x], law: [...parts.lawOn(land, land.sigmas.length - 1, temperature)],
            cells: [...cells], density: [...density]
          };
        }""",
        [land, [twin._level(k) for k in range(50)], start, 7, h, temperature, twin.fine],
    )
    # Large steps stretch what lies between two wells: a last digit becomes a hundred thousandth.
    np.testing.assert_allclose(found["x"], twin.particles, atol=1e-5)
    np.testing.assert_allclose(found["law"], twin.law, atol=1e-12)
    settled = np.interp(np.linspace(-5, 5, 101), found["cells"], found["density"])
    np.testing.assert_allclose(settled, twin.settled, atol=1e-12)


# ---------------------------------------------------------------------------------- in a plain page


def test_the_bars_stand_where_the_particles_are(show: Callable[..., Locator]) -> None:
    x = np.linspace(-4, 4, 81)
    given = Langevin(x, {"a bowl": x**2 / 2}, n_particles=1000, n_steps=40, step_size=0.4)
    given.step = 40.0
    shown = show(given)
    width = shown.locator("canvas").bounding_box()["width"]
    inner = width - 58
    low = round(min(max(0.26 * inner, 96), 150))
    bottom = shown.locator("canvas").bounding_box()["height"] - 42
    picture = pixels(shown)
    orange = np.array([int(PALETTE["model"][k : k + 2], 16) for k in (1, 3, 5)])
    bar = 0.55 * orange + 0.45 * np.array([251, 252, 253])
    counts, _ = np.histogram(given.particles, np.linspace(-4, 4, 49))
    for k in (14, 24, 34):
        column = picture[round(bottom) - low : round(bottom), round(46 + (k + 0.45) * inner / 48)]
        height = (np.abs(column - bar).max(-1) < 14).sum()
        wanted = low * counts[k] / 1000 * 6 / (2 * given.law.max())
        assert height == pytest.approx(wanted, abs=6)  # lines cross it


# How long the page's own frames are, in ms, while it is played and the step size is moved.
MOVE = """async widget => {
  const [time, size] = widget.querySelectorAll("input[type=range]");
  const [took, words] = [[], new Set()];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 60; k++) {
    time.value = String(5 * k);
    time.dispatchEvent(new Event("input"));
    if (k % 3 === 0) {
      size.value = String(0.05 + 0.002 * k);
      size.dispatchEvent(new Event("input"));
    }
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
    words.add(widget.querySelector(".langevin-said").textContent);
  }
  if (words.size < 40) throw new Error("nothing has moved");
  return took.sort((a, b) => a - b);
}"""


def test_it_fits_any_width_and_moves_smoothly(show: Callable[..., Locator]) -> None:
    x = np.linspace(-6, 6, 161)
    wells = -np.log(0.3 * np.exp(-2 * (x + 2.5) ** 2) + 0.7 * np.exp(-((x - 2) ** 2)))
    widget = show(Langevin(x, {"two wells": wells, "a bowl": x**2 / 4}, title="Large"))
    assert computing_time(widget, MOVE) < 15
    parts = "canvas, button, p, .cw-group, .cw-slider, .cw-key span"
    assert cut_off(widget, (320, 360, 480, 640, 784), parts) == []
