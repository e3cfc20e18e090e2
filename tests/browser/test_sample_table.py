"""SampleTable in a real browser: cells chosen by hand and by key, and the samples they show."""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import SampleTable
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    cut_off,
    live_widget,
    press_keys,
    python,
    settle,
    stored_widget,
    wait_for_python,
)

CELL = list(GALLERY).index("table") + 1

# The red parts of places [x, y] of the canvas, in CSS pixels.
REDS = """(canvas, places) => {
  const ratio = canvas.width / canvas.clientWidth;
  const ctx = canvas.getContext("2d");
  return places.map(([x, y]) => ctx.getImageData(x * ratio, y * ratio, 1, 1).data[0]);
}"""


@pytest.fixture(scope="module")
def twin() -> SampleTable:
    """The gallery's widget, in Python alone: four images of 4 x 4 pixels in a cell."""
    return in_python("table")


def cells(widget: Locator) -> list[list[Locator]]:
    return [row.get_by_role("gridcell").all() for row in widget.get_by_role("row").all()[1:]]


def check(widget: Locator, twin: SampleTable, row: int, column: int) -> None:
    """The cell is marked and named, and its four images are shown two by two."""
    twin.row, twin.column = row, column
    number = f"{twin.quality[row][column]:.3g}"
    said = f"steps = {twin.row_value}, η = {twin.column_value:g}. distance: {number}, "
    expect(widget.get_by_role("status")).to_have_text(
        f"{said}network evaluations: {twin.row_value}.", timeout=10_000
    )
    marked = widget.locator("[role=gridcell][aria-selected=true]")
    expect(marked).to_have_count(1)
    expect(marked).to_have_text(number)
    settle(widget)
    canvas = widget.locator("canvas")
    left = (canvas.evaluate("canvas => canvas.clientWidth") - 2 * 64 - 6) // 2
    places = [
        [left + k % 2 * 70 + 16 * x + 8, k // 2 * 70 + 16 * y + 8]
        for k in range(4) for y in range(4) for x in range(4)
    ]  # fmt: skip
    found = canvas.evaluate(REDS, places)
    np.testing.assert_array_equal(found, np.rint(255 * twin.shown).ravel())


def drag(widget: Locator, *way: Locator) -> None:
    mouse = widget.page.mouse
    for k, node in enumerate(way):
        box = node.bounding_box()
        mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        if k == 0:
            mouse.down()
    mouse.up()


# ------------------------------------------------------------------------------------ hand and keys


def test_cells_are_chosen_by_click_and_by_drag(
    show: Callable[..., Locator], twin: SampleTable
) -> None:
    twin.row, twin.column = 0, 0
    widget = show(twin)
    table = cells(widget)
    check(widget, twin, 0, 0)
    table[1][2].click()
    check(widget, twin, 1, 2)
    drag(widget, table[0][1], table[1][1], table[2][3])
    check(widget, twin, 2, 3)
    table[0][0].hover()  # the hand has let go
    check(widget, twin, 2, 3)
    drag(widget, table[1][1], widget.locator(".cw-hint"))  # beyond the table: the nearest cell
    expect(widget.get_by_role("status")).to_have_text(re.compile("^steps = 100,"))


def test_keys_walk_and_stop_at_the_edge(show: Callable[..., Locator], twin: SampleTable) -> None:
    twin.row, twin.column = 0, 0
    widget = show(twin, width=356)
    press_keys(widget, ["ArrowRight", "ArrowRight", "ArrowDown"])
    check(widget, twin, 1, 2)
    press_keys(widget, ["ArrowLeft", "ArrowUp", "ArrowUp"])
    check(widget, twin, 0, 1)
    press_keys(widget, ["ArrowDown"] * 4 + ["ArrowRight"] * 9)
    check(widget, twin, 2, 3)


# ------------------------------------------------------------------------------------ with a kernel


def test_python_hears_of_it_and_can_say_it(live: Page, twin: SampleTable) -> None:
    python(live, "table.row, table.column = 0, 0")
    widget = live_widget(live, CELL)
    check(widget, twin, 0, 0)
    press_keys(widget, ["ArrowRight", "ArrowDown", "ArrowDown", "ArrowRight"])
    told = "import json; print(json.dumps([table.row_value, table.column_value, table.row]))"
    wait_for_python(live, told, json.dumps([100, 0.5, 2]))
    check(widget, twin, 2, 2)
    cells(widget)[1][3].click()
    wait_for_python(live, told, json.dumps([20, 1, 1]))
    python(live, "table.column = 0")
    check(widget, twin, 1, 0)
    refused = python(live, "table.row = 3")
    assert refused == "ValueError: row must be an integer from 0 to 2, got 3"
    check(widget, twin, 1, 0)


def test_the_stored_copy_is_alive(trusted: Page, twin: SampleTable) -> None:
    widget = stored_widget(trusted, CELL)
    cells(widget)[2][1].click()
    check(widget, twin, 2, 1)


# ---------------------------------------------------------------------------------- how it is drawn


def test_the_best_cell_is_the_brightest_and_every_number_is_legible(
    show: Callable[..., Locator], twin: SampleTable
) -> None:
    widget = show(twin, style="background: #111")
    parse = """node => ["backgroundColor", "color"].map(
      (name) => getComputedStyle(node)[name].match(/\\d+/g).map(Number))"""
    pairs = np.array([[node.evaluate(parse) for node in row] for row in cells(widget)]) / 255
    linear = np.where(pairs <= 0.04045, pairs / 12.92, ((pairs + 0.055) / 1.055) ** 2.4)
    light = linear @ [0.2126, 0.7152, 0.0722]
    ground = light[..., 0].ravel()
    assert (np.diff(ground) > 0).all()  # the numbers of this table fall from cell to cell
    high, low = light.max(-1) + 0.05, light.min(-1) + 0.05
    assert (high / low).min() > 3


@pytest.mark.parametrize("points", [False, True])
def test_it_fits_any_width(show: Callable[..., Locator], *, points: bool) -> None:
    rng = np.random.default_rng(0)
    steps, etas = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], [0, 0.1, 0.2, 0.5, 0.8, 1]
    samples = rng.normal(size=(10, 6, 80, 2)) if points else rng.random((10, 6, 6, 28, 28))
    numbers = 10 ** rng.uniform(-2, 3, (10, 6))
    widget = show(
        SampleTable(
            samples, ("steps", steps), ("η", etas), quality=numbers,
            quality_label="Fréchet distance of features",
            cost=numbers if points else steps, cost_label="seconds",
        )
    )  # fmt: skip
    parts = "canvas, p, .table-grid, .table-grid *, .cw-scale"
    assert cut_off(widget, (324, 344, 500, 624, 744), parts) == []
