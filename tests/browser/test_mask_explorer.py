"""MaskExplorer in a real browser: what it shows as connected is what Python says is."""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import MaskExplorer
from tests.browser.gallery import GALLERY
from tests.browser.harness import (
    computing_time,
    fingerprint,
    live_widget,
    painted,
    press_keys,
    python,
    settle,
    stored_frame,
    wait_for_python,
    wait_until_it_differs,
)

CELL = list(GALLERY).index("masks") + 1
DEGREES = [
    [[0, 1, 2, 3, 4], [0, 1, 1, 2, 3, 3], [0, 1, 2, 2, 3, 3, 0]],
    [[4, 2, 0, 3, 1], [3, 1, 1, 2, 0, 3], [2, 1, 3, 1, 1, 3, 2]],
]
N, OUTPUTS = 5, 3


@pytest.fixture(params=["live", "stored"])
def masks(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The widget with its first mask set, in the natural order, nothing selected."""
    if request.param == "live":
        widget = live_widget(live, CELL)
    else:
        widget = stored_frame(trusted, CELL).locator(".course-widget")
    if "2 of 2" in widget.locator(".mask-which").inner_text():
        button(widget, "Next mask set").click()
    button(widget, "In the order").click()
    button(widget, "Reset").click()
    widget.page.mouse.move(0, 0)
    settle(widget)
    return widget


def button(widget: Locator, name: str) -> Locator:
    return widget.get_by_role("button", name=name)


def words(widget: Locator) -> str:
    return painted(widget.locator(".mask-words")).inner_text()


def way_to(layer: int, unit: int) -> list[str]:
    """The keys that select a unit, wherever one is."""
    rows = ["ArrowUp"] * (OUTPUTS + 1) + ["ArrowDown"] * (OUTPUTS - layer)
    return ["Escape", *rows, *["ArrowLeft"] * 8, *["ArrowRight"] * unit]


def select(widget: Locator, layer: int, unit: int) -> None:
    """Select a unit by keys alone."""
    widget.focus()
    press_keys(widget, way_to(layer, unit))


def shown_dependencies(widget: Locator) -> np.ndarray:
    """The dependencies as the sentences about the outputs put them, [output, input]."""
    sentences = widget.evaluate(
        """(widget, ways) => ways.map((way) => {
          for (const key of way) {
            const options = { key, bubbles: true, cancelable: true };
            widget.dispatchEvent(new KeyboardEvent("keydown", options));
          }
          return widget.querySelector(".mask-words").textContent;
        })""",
        [way_to(OUTPUTS, i) for i in range(N)],
    )
    found = np.zeros((N, N), dtype=bool)
    for i, said in enumerate(sentences):
        assert said.startswith(f"Output x{i + 1} (")
        seen = said.split(" sees ")[1].split(":")[0]
        for j in range(N):
            found[i, j] = f"x{j + 1}" in seen or (i == j and "its own input" in seen)
    return found


@pytest.fixture(scope="module")
def module(functions_of: Callable[[str, str], Page]) -> Page:
    """A page that holds functions of the widget's module."""
    return functions_of("mask_explorer.js", "network, arrange, sentence")


@pytest.fixture
def place(module: Page, masks: Locator) -> Callable:
    """``place(layer, unit)`` is where a unit stands on the canvas, in its pixels."""
    width = masks.locator("canvas").evaluate("canvas => canvas.clientWidth")
    found = module.evaluate(
        "([width, widths]) => parts.arrange(width, widths)", [width, [5, 6, 7, 5]]
    )

    def place_(layer: int, unit: int) -> dict[str, float]:
        where = found["units"][layer][unit]
        return {"x": where["x"], "y": where["y"]}

    place_.matrix = found["matrix"]
    return place_


# ------------------------------------------------------------------------------ what it says is so


def test_what_is_shown_is_what_python_computes(masks: Locator) -> None:
    python_side = MaskExplorer(DEGREES)
    np.testing.assert_array_equal(shown_dependencies(masks), python_side.dependencies)
    button(masks, "Reversed").click()
    python_side.order = [4, 3, 2, 1, 0]
    np.testing.assert_array_equal(shown_dependencies(masks), python_side.dependencies)
    button(masks, "instead of").click()
    python_side.strict = False
    np.testing.assert_array_equal(shown_dependencies(masks), python_side.dependencies)
    button(masks, "Next mask set").click()
    python_side.mask_set = 1
    np.testing.assert_array_equal(shown_dependencies(masks), python_side.dependencies)
    button(masks, "instead of").click()
    python_side.strict = True
    np.testing.assert_array_equal(shown_dependencies(masks), python_side.dependencies)


def test_python_and_the_browser_agree_on_the_state(live: Page) -> None:
    widget = live_widget(live, CELL)
    state = "print(json.dumps([masks.order, masks.mask_set, masks.strict, masks.selected]))"
    python(live, "import json")
    button(widget, "Reset").click()
    python(live, "masks.mask_set = 1; masks.strict = False; masks.selected = [3, 0]")
    expect(widget.locator(".mask-which")).to_have_text("2 of 2")
    expect(button(widget, "instead of")).to_have_attribute("aria-pressed", "true")
    expect(widget.locator(".mask-words")).to_contain_text("Output x1 (5th in the order)")
    shown = json.loads(python(live, "print(masks.dependencies.astype(int).tolist())"))
    np.testing.assert_array_equal(shown_dependencies(widget), np.array(shown, dtype=bool))
    button(widget, "Natural").click()
    select(widget, 1, 2)
    wait_for_python(live, state, "[[0, 1, 2, 3, 4], 1, false, [1, 2]]")
    shown = json.loads(python(live, "print(masks.dependencies.astype(int).tolist())"))
    np.testing.assert_array_equal(shown_dependencies(widget), np.array(shown, dtype=bool))
    button(widget, "Next mask set").click()
    button(widget, "Reset").click()
    wait_for_python(live, state, "[[0, 1, 2, 3, 4], 0, true, []]")


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("n", "widths"), [(1, [2]), (2, [3]), (8, [12, 12]), (12, [24, 9, 24])])
def test_javascript_multiplies_the_masks_as_python_does(
    module: Page, n: int, widths: list, strict: bool
) -> None:
    rng = np.random.default_rng(n)
    hidden = [rng.integers(0, max(n - 1, 1), width).tolist() for width in widths]
    widget = MaskExplorer([rng.permutation(n), *hidden])
    widget.strict = strict
    found = module.evaluate(
        "([order, hidden, strict]) => parts.network(order, hidden, strict)",
        [widget.order, hidden, strict],
    )
    np.testing.assert_array_equal(found["paths"], widget.paths)
    assert len(found["masks"]) == len(widget.masks)
    for ours, theirs in zip(found["masks"], widget.masks, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ups, downs in zip(found["toOutputs"], found["fromInputs"], strict=True):
        np.testing.assert_array_equal(np.array(ups) @ np.array(downs), widget.paths)


def test_sentences_about_inputs_hidden_units_and_outputs(masks: Locator) -> None:
    button(masks, "Reversed").click()
    select(masks, 0, 1)
    assert words(masks).startswith("Input x2 (4th in the order) reaches output x1:")
    select(masks, 0, 0)
    assert words(masks) == (
        "Input x1 (5th in the order) reaches no output: it is the last in the order."
    )
    select(masks, 1, 1)
    assert words(masks) == (
        "Hidden unit 2 of layer 1 (degree 1) sees x5, x4: of degree at most 1. "
        "It reaches outputs x3, x2, x1."
    )
    select(masks, 3, 3)
    assert words(masks) == (
        "Output x4 (2nd in the order) sees x5: exactly the inputs earlier in the order."
    )
    select(masks, 3, 4)
    assert words(masks) == (
        "Output x5 (1st in the order) sees no input: p(x5) is made of biases alone."
    )


def test_a_leak_is_called_a_leak(masks: Locator) -> None:
    assert "failed" not in masks.locator(".mask-words").get_attribute("class")
    before = settle(masks)
    button(masks, "instead of").click()
    assert "4 of 5 outputs see their own input" in words(masks)
    assert "failed" in masks.locator(".mask-words").get_attribute("class")
    assert settle(masks) != before
    assert pixels_near(masks, "#cc4b9b") > 500  # the diagonal
    select(masks, 3, 2)
    assert words(masks) == (
        "Output x3 (3rd in the order) sees x1, x2 and its own input: "
        "p(x3 | …, x3) is being modelled, not p(x3 | …)."
    )
    button(masks, "instead of").click()
    masks.focus()
    masks.press("Escape")
    assert settle(masks) == before
    assert pixels_near(masks, "#cc4b9b") == 0


def pixels_near(widget: Locator, colour: str) -> int:
    """How many pixels of the canvas have about this colour."""
    return widget.locator("canvas").evaluate(
        """(canvas, colour) => {
          const wanted = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let count = 0;
          for (let i = 0; i < data.length; i += 4) {
            count += wanted.every((value, c) => Math.abs(value - data[i + c]) < 12);
          }
          return count;
        }""",
        colour,
    )


def test_a_missing_path_is_named(module: Page) -> None:
    said = module.evaluate(
        """() => {
          const names = ["a", "b", "c"];
          const net = parts.network([0, 1, 2], [[0]], true);
          return parts.sentence(net, { unit: [2, 2] }, names, true);
        }"""
    )
    assert said == (
        "Output c (3rd in the order) sees a: only inputs earlier in the order. "
        "No path leads here from b."
    )


# ------------------------------------------------------------------------------- pointer and keys


def test_pointing_shows_and_a_click_pins(masks: Locator, place: Callable) -> None:
    canvas = masks.locator("canvas")
    idle = settle(masks)
    canvas.hover(position=place(3, 3))
    assert words(masks).startswith("Output x4 (4th in the order) sees x1, x2, x3")
    wait_until_it_differs(masks, idle)
    canvas.hover(position={"x": 2, "y": 2})
    assert words(masks).startswith("The number in a unit")
    canvas.click(position=place(1, 3))
    canvas.hover(position={"x": 2, "y": 2})
    assert words(masks).startswith("Hidden unit 4 of layer 1 (degree 2)")
    canvas.hover(position=place(0, 0))  # a look at another one
    assert words(masks).startswith("Input x1 (1st")
    canvas.hover(position={"x": 2, "y": 2})
    assert words(masks).startswith("Hidden unit 4 of layer 1 (degree 2)")
    canvas.click(position=place(1, 3))
    canvas.hover(position={"x": 2, "y": 2})
    assert words(masks).startswith("The number in a unit")


def test_a_cell_of_the_matrix_counts_its_paths(masks: Locator, place: Callable) -> None:
    matrix, paths = place.matrix, MaskExplorer(DEGREES).paths
    canvas = masks.locator("canvas")

    def point(row: int, column: int) -> str:
        at = {"x": (column + 0.5) * matrix["cell"], "y": (row + 0.5) * matrix["cell"]}
        canvas.hover(position={"x": matrix["x"] + at["x"], "y": matrix["y"] + at["y"]})
        return words(masks)

    assert point(3, 1).startswith(f"{paths[3, 1]} paths lead from input x2 to output x4:")
    assert "x2 comes later" in point(0, 1)
    button(masks, "Reversed").click()
    reverse = MaskExplorer(DEGREES)
    reverse.order = [4, 3, 2, 1, 0]
    # In the order's arrangement the first row is now x5.
    assert point(1, 0).startswith(f"{reverse.paths[3, 4]} paths lead from input x5 to output x4:")
    button(masks, "own positions").click()
    assert point(1, 0).startswith("No path leads from input x1 to output x2: x1 comes later")
    assert point(3, 4).startswith(f"{reverse.paths[3, 4]} paths lead from input x5 to output x4:")


def test_an_input_is_dragged_onto_another(masks: Locator, place: Callable) -> None:
    canvas, mouse = masks.locator("canvas"), masks.page.mouse
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    at = [place(0, unit) for unit in range(N)]
    mouse.move(box["x"] + at[0]["x"], box["y"] + at[0]["y"])
    mouse.down()
    mouse.move(box["x"] + at[2]["x"], box["y"] + at[2]["y"] + 5, steps=5)
    # On the way, too: the masks follow at once.
    assert words(masks).startswith("Input x1 (3rd in the order)")
    mouse.move(box["x"] + at[3]["x"], box["y"] + at[3]["y"] + 5, steps=5)
    assert words(masks).startswith("Input x1 (4th in the order)")
    mouse.up()
    python_side = MaskExplorer(DEGREES)
    python_side.order = [3, 1, 2, 0, 4]  # x1 and x4 have swapped their places, nobody else has
    np.testing.assert_array_equal(shown_dependencies(masks), python_side.dependencies)


def test_shift_and_an_arrow_move_an_input_through_the_order(masks: Locator) -> None:
    select(masks, 0, 1)
    masks.press("Shift+ArrowRight")
    assert words(masks).startswith("Input x2 (3rd in the order)")
    masks.press("Shift+ArrowRight")
    masks.press("Shift+ArrowRight")
    masks.press("Shift+ArrowRight")  # it is the last already
    assert words(masks).startswith("Input x2 (5th in the order)")
    python_side = MaskExplorer(DEGREES)
    python_side.order = [0, 2, 3, 4, 1]
    np.testing.assert_array_equal(shown_dependencies(masks), python_side.dependencies)


def test_shuffle_keeps_the_matrix_triangular(masks: Locator) -> None:
    button(masks, "Shuffle").click()
    order = []
    for i in range(N):
        select(masks, 0, i)
        order.append(int(re.search(r"\((\d)", words(masks)).group(1)) - 1)
    assert sorted(order) == list(range(N))
    seen = shown_dependencies(masks)[np.ix_(np.argsort(order), np.argsort(order))]
    assert not np.triu(seen).any()
    assert seen.any()


def test_nothing_moves_unasked(masks: Locator) -> None:
    before = settle(masks)
    masks.page.wait_for_timeout(300)
    assert fingerprint(masks) == before


def test_the_height_does_not_jump_from_sentence_to_sentence(masks: Locator) -> None:
    heights = set()
    for layer, unit in [(0, 0), (1, 2), (2, 6), (3, 4)]:
        select(masks, layer, unit)
        heights.add(masks.bounding_box()["height"])
    assert len(heights) == 1


# A finger taps a place on the canvas; what is gone points at nothing.
TAP = """async (canvas, [x, y]) => {
  const { left, top } = canvas.getBoundingClientRect();
  canvas.setPointerCapture = () => {};
  for (const type of ["pointerdown", "pointerup", "pointerleave"]) {
    canvas.dispatchEvent(new PointerEvent(type, {
      clientX: left + x, clientY: top + y, button: 0, pointerId: 1, pointerType: "touch",
      bubbles: true
    }));
  }
  return document.querySelector(".mask-words").textContent;
}"""


def test_a_cell_that_was_tapped_is_read(show: Callable[..., Locator], module: Page) -> None:
    canvas = show(MaskExplorer(DEGREES), width=900).locator("canvas")
    width = canvas.evaluate("canvas => canvas.clientWidth")
    widths = [5, 6, 7, 5]
    places = module.evaluate("([width, widths]) => parts.arrange(width, widths)", [width, widths])
    matrix, unit = places["matrix"], places["units"][3][3]
    cell = [matrix["x"] + 1.5 * matrix["cell"], matrix["y"] + 3.5 * matrix["cell"]]
    assert "lead from input x2 to output x4" in canvas.evaluate(TAP, cell)
    assert canvas.evaluate(TAP, [unit["x"], unit["y"]]).startswith("Output x4")
    assert canvas.evaluate(TAP, [2, 2]).startswith("The number in a unit")


# The times between frames while the first input is dragged through the others, in ms.
DRAG = """async canvas => {
  const { left, top } = canvas.getBoundingClientRect();
  canvas.setPointerCapture = () => {};
  const fire = (type, x) => canvas.dispatchEvent(new PointerEvent(type, {
    clientX: left + x, clientY: top + 322, button: 0, pointerId: 1, bubbles: true
  }));
  fire("pointerdown", 75);
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 60; k++) {
    fire("pointermove", 120 + 400 * Math.abs(Math.sin(k / 9)));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  const said = document.querySelector(".mask-words").textContent;
  if (!said.startsWith("Input x1 (")) throw new Error(`nothing was dragged: ${said}`);
  fire("pointerup", 75);
  return took;
}"""


def test_a_drag_frame_is_short(show: Callable[..., Locator]) -> None:
    """For a large network."""
    rng = np.random.default_rng(0)
    hidden = [rng.integers(0, 11, 24) for _ in range(2)]
    widget = show(MaskExplorer([np.arange(12), *hidden]), width=1000)
    assert computing_time(widget.locator("canvas"), DRAG) < 15
