"""ReceptiveField in a real browser: what it shows and says is what Python counts."""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import PALETTE, ReceptiveField
from course_lib.widgets.receptive_field import AFTER, BLIND, FRESH, LEAK, SEEN, UNMEASURED
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    DRAG_IN_CIRCLES,
    computing_time,
    live_widget,
    press_keys,
    python,
    settle,
    stored_frame,
    wait_for_python,
    wait_until_it_differs,
)

CELL = list(GALLERY).index("field") + 1
ROWS = COLUMNS = 7
LAYERS = 4


@pytest.fixture(params=["live", "stored"])
def field(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The widget at its first layer, with the pixel in the middle."""
    if request.param == "live":
        widget = live_widget(live, CELL)
    else:
        widget = stored_frame(trusted, CELL).locator(".course-widget")
    widget.focus()
    widget.press("Home")
    go_to(widget, 3, 3)
    settle(widget)
    return widget


def go_to(widget: Locator, row: int, column: int) -> None:
    """Move the pixel by keys alone."""
    keys = ["ArrowUp"] * ROWS + ["ArrowLeft"] * COLUMNS
    press_keys(widget.locator("canvas"), [*keys, *["ArrowDown"] * row, *["ArrowRight"] * column])
    settle(widget)


def said(widget: Locator) -> list[list[int]]:
    """Layer, seen, before and blind, as the sentence under each image puts them."""
    return numbers(widget.locator(".field-said").all_inner_texts())


def numbers(sentences: list[str]) -> list[list[int]]:
    return [[int(number) for number in re.findall(r"\d+", text)] for text in sentences]


def counted(widget: ReceptiveField) -> list[list[int]]:
    """The same from Python."""
    return [[widget.layer + 1, c["seen"], c["before"], c["blind"]] for c in widget.counts]


@pytest.fixture(scope="module")
def module(functions_of: Callable[[str, str], Page]) -> Page:
    """A page that holds functions of the widget's module."""
    return functions_of("receptive_field.js", "statesOf, sentenceOf")


# ------------------------------------------------------------------------------ what it says is so


def test_the_sentences_are_what_python_counts(field: Locator) -> None:
    """In every layer, at the pixels of the first, the middle and the last row."""
    found = field.evaluate(
        """async (widget, [rows, columns, layers]) => {
          const canvas = widget.querySelector("canvas");
          const press = (target, key) => target.dispatchEvent(
            new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
          const frame = () => new Promise(requestAnimationFrame);
          const seen = [];
          for (let layer = 0; layer < layers; layer++) {
            for (let k = 0; k < rows; k++) press(canvas, "ArrowUp");
            for (let row = 0; row < rows; row++) {
              if (row) press(canvas, "ArrowDown");
              if (![0, rows >> 1, rows - 1].includes(row)) continue;
              for (let k = 0; k < columns; k++) press(canvas, "ArrowLeft");
              for (let column = 0; column < columns; column++) {
                if (column) press(canvas, "ArrowRight");
                await frame(); // the drawing asked for its frame before
                const said = [...widget.querySelectorAll(".field-said")];
                seen.push(said.map((node) => node.textContent));
              }
            }
            press(widget, "ArrowRight");
          }
          return seen;
        }""",
        [ROWS, COLUMNS, LAYERS],
    )
    python_side = in_python("field")
    pixels = [(row, column) for row in (0, ROWS // 2, ROWS - 1) for column in range(COLUMNS)]
    states = [(layer, *pixel) for layer in range(LAYERS) for pixel in pixels]
    assert len(found) == len(states)
    for (layer, row, column), sentences in zip(states, found, strict=True):
        python_side.step, python_side.row, python_side.column = float(layer), row, column
        assert numbers(sentences) == counted(python_side)


def test_the_last_layer_leaves_a_blind_spot_in_one_stack_alone(field: Locator) -> None:
    field.focus()
    field.press("End")
    expect(field.locator(".cw-note")).to_have_text("layer 4 of 4")
    expect(field.locator(".field-said").first).to_have_text(
        "Layer 4: sees 21 of the 24 pixels before it; blind: 3."
    )
    expect(field.locator(".field-said").last).to_have_text(
        "Layer 4: sees 24 of the 24 pixels before it; blind: 0."
    )
    expect(field.locator(".field-name").first).to_have_text("one stack")


def test_python_hears_of_the_pixel_and_moves_it(live: Page) -> None:
    widget = live_widget(live, CELL)
    go_to(widget, 5, 1)
    widget.focus()
    widget.press("Home")
    widget.press("ArrowRight")
    wait_for_python(live, "print([field.row, field.column, field.step])", "[5, 1, 1.0]")
    assert json.loads(python(live, "print([c['seen'] for c in field.counts])")) == [
        line[1] for line in said(widget)
    ]
    before = settle(widget)
    python(live, "field.row, field.column, field.step = 2, 6, 3.0")
    wait_until_it_differs(widget, before)
    settle(widget)
    python_side = in_python("field")
    python_side.row, python_side.column, python_side.step = 2, 6, 3.0
    assert said(widget) == counted(python_side)


@pytest.mark.parametrize("size", [(5, 5), (4, 7), (8, 3)])
def test_javascript_shifts_and_crops_as_python_does(module: Page, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    fields = rng.random((2, 3, 7, 9)) < 0.5  # no causal field, so that every state occurs
    widget = ReceptiveField(fields, names=["a", "b"], size=size)
    pixels = [(i, j) for i in range(size[0]) for j in range(size[1])]
    found = module.evaluate(
        """([values, shape, pixels, size]) => pixels.map(([row, column]) => [0, 1].map((v) =>
          [0, 1, 2].map((layer) =>
            parts.statesOf({ values, shape }, v, layer, row, column, size))))""",
        [fields.ravel().astype(float).tolist(), list(fields.shape), pixels, list(size)],
    )
    seen = set()
    for (row, column), variants in zip(pixels, found, strict=True):
        widget.row, widget.column = row, column
        for v in range(2):
            for layer in range(3):
                states = widget._states(v, layer)
                np.testing.assert_array_equal(np.reshape(variants[v][layer], size), states)
                seen |= set(states.ravel().tolist())
    assert {AFTER, SEEN, FRESH, BLIND, LEAK} <= seen


def test_the_sentence_names_what_is_open_and_what_leaks(module: Page) -> None:
    say = "([states, layer, before]) => parts.sentenceOf(states, layer, before)"
    assert module.evaluate(say, [[SEEN, FRESH, BLIND, UNMEASURED, UNMEASURED, AFTER], 2, 5]) == (
        "Layer 3: sees 2 of the 5 pixels before it; blind: 1. Too far to be measured: 2."
    )
    assert module.evaluate(say, [[FRESH, LEAK, AFTER, AFTER], 0, 1]) == (
        "Layer 1: sees 1 of the 1 pixel before it; blind: 0. Seen against the order: 1."
    )


# ------------------------------------------------------------------------------ what is drawn is so


def pixel_box(widget: Locator, image: int) -> dict[str, float]:
    """Place and size of the cells of an image on the canvas, from where its words stand."""
    return widget.locator("canvas").evaluate(
        """(canvas, [image, rows]) => {
          const stage = canvas.parentElement;
          const name = stage.querySelectorAll(".field-name")[image];
          const said = stage.querySelectorAll(".field-said")[image];
          const names = [...stage.querySelectorAll(".field-name")];
          const y = name.offsetTop + Math.max(...names.map((n) => n.offsetHeight)) + 6;
          return { x: name.offsetLeft, y, cell: (said.offsetTop - 8 - y) / rows };
        }""",
        [image, ROWS],
    )


def colours(widget: Locator, image: int) -> list[list[str]]:
    """For every cell, what its mean colour, without the rim, is nearest to."""
    box = pixel_box(widget, image)
    corners = [
        [box["x"] + (j + 0.2) * box["cell"], box["y"] + (i + 0.2) * box["cell"]]
        for i in range(ROWS)
        for j in range(COLUMNS)
    ]
    means = widget.locator("canvas").evaluate(
        """(canvas, [corners, side]) => {
          const ratio = canvas.width / canvas.clientWidth;
          const ctx = canvas.getContext("2d");
          return corners.map(([x, y]) => {
            const { data } = ctx.getImageData(x * ratio, y * ratio, side * ratio, side * ratio);
            const mean = [0, 0, 0];
            data.forEach((value, k) => k % 4 < 3 && (mean[k % 4] += (4 * value) / data.length));
            return mean;
          });
        }""",
        [corners, 0.6 * box["cell"]],
    )
    known = {
        name: np.array([int(PALETTE[name][k : k + 2], 16) for k in (1, 3, 5)])
        for name in ("data", "model", "error")
    }
    known["empty"] = np.array([251, 252, 253])
    known["faint"] = 0.4 * known["data"] + 0.6 * known["empty"]
    known["hatch"] = 0.44 * known["error"] + 0.56 * known["empty"]
    names = [min(known, key=lambda k: np.abs(known[k] - np.array(mean)).sum()) for mean in means]
    return np.array(names).reshape(ROWS, COLUMNS).tolist()


def test_every_cell_has_the_colour_of_its_state(field: Locator) -> None:
    field.focus()
    field.press("ArrowRight")
    python_side = in_python("field")
    python_side.step = 1.0
    for row, column in [(3, 3), (6, 1), (1, 5)]:
        go_to(field, row, column)
        python_side.row, python_side.column = row, column
        for image in range(2):
            states = python_side._states(image, 1)
            shown = colours(field, image)
            for (i, j), state in np.ndenumerate(states):
                wanted = {AFTER: "empty", SEEN: "faint", FRESH: "data", BLIND: "hatch"}[state]
                if (i, j) == (row, column):
                    wanted = "model"
                assert shown[i][j] == wanted, (image, i, j)


# ------------------------------------------------------------------------------- pointer and keys


def test_a_click_chooses_the_pixel_in_either_image(field: Locator) -> None:
    for image, row, column in [(0, 1, 2), (1, 6, 5)]:
        box = pixel_box(field, image)
        at = {
            "x": box["x"] + (column + 0.5) * box["cell"],
            "y": box["y"] + (row + 0.5) * box["cell"],
        }
        field.locator("canvas").click(position=at)
        settle(field)
        assert [line[2] for line in said(field)] == [row * COLUMNS + column] * 2


def test_a_drag_takes_the_pixel_along_and_stops_at_the_border(field: Locator) -> None:
    canvas, mouse = field.locator("canvas"), field.page.mouse
    canvas.scroll_into_view_if_needed()
    box, place = pixel_box(field, 0), canvas.bounding_box()
    x, y = place["x"] + box["x"], place["y"] + box["y"]
    mouse.move(x + 3.5 * box["cell"], y + 3.5 * box["cell"])
    mouse.down()
    mouse.move(x + 4.5 * box["cell"], y + 2.5 * box["cell"], steps=3)
    settle(field)
    assert said(field)[0][2] == 2 * COLUMNS + 4
    # Into the other image, and further: still the first image's border holds it.
    mouse.move(x + 20 * box["cell"], y + 1.5 * box["cell"], steps=3)
    mouse.up()
    settle(field)
    assert said(field)[0][2] == 1 * COLUMNS + 6
    mouse.move(x + 0.5 * box["cell"], y + 0.5 * box["cell"])
    settle(field)
    assert said(field)[0][2] == 1 * COLUMNS + 6  # let go is let go


def test_arrows_move_the_pixel_on_the_image_and_the_layer_beside_it(field: Locator) -> None:
    assert [line[:1] + line[2:3] for line in said(field)] == [[1, 24]] * 2
    field.focus()
    field.press("ArrowRight")
    settle(field)
    assert [line[:1] + line[2:3] for line in said(field)] == [[2, 24]] * 2
    field.locator("canvas").press("ArrowRight")
    settle(field)
    assert [line[:1] + line[2:3] for line in said(field)] == [[2, 25]] * 2
    field.locator("canvas").press("ArrowUp")
    settle(field)
    assert [line[:1] + line[2:3] for line in said(field)] == [[2, 18]] * 2


def test_play_goes_through_the_layers(field: Locator) -> None:
    # The page itself writes down what is said: one who asks now and then may miss a layer.
    field.evaluate(
        """field => {
          const node = field.querySelector(".field-said");
          node.heard = [node.textContent];
          new MutationObserver(() => node.heard.push(node.textContent)).observe(
            node, { childList: true, characterData: true, subtree: true });
        }"""
    )
    field.get_by_role("button", name="Play").click()
    expect(field.locator(".field-said").first).to_contain_text("Layer 4", timeout=15_000)
    heard = field.evaluate('field => field.querySelector(".field-said").heard')
    layers = [int(words.removeprefix("Layer ")[0]) for words in heard]
    assert layers == sorted(layers)
    assert layers[0] == 1
    assert len(set(layers)) > 2  # it goes, and does not jump


def test_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    names = ["Masks A and B in one stack of convolutions: a blind spot stays", "Two stacks"]
    widget = show(ReceptiveField(np.ones((2, 3, 17, 17)), names=names, size=(12, 12)), width=1000)
    for width in (500, 640, 984):
        inside, overlap = widget.evaluate(
            """async (_, width) => {
              document.body.style.width = `${width}px`;
              for (let k = 0; k < 3; k++) await new Promise(requestAnimationFrame);
              const stage = document.querySelector(".cw-stage").getBoundingClientRect();
              const words = [...document.querySelectorAll(".field-name, .field-said")]
                .map((node) => node.getBoundingClientRect());
              const within = (b) => b.left >= stage.left && b.right <= stage.right + 1 &&
                b.top >= stage.top && b.bottom <= stage.bottom + 1;
              const meets = (a, b) => a !== b && a.left < b.right && b.left < a.right &&
                a.top < b.bottom && b.top < a.bottom;
              return [words.every(within), words.some((a) => words.some((b) => meets(a, b)))];
            }""",
            width,
        )
        assert inside
        assert not overlap


def test_a_drag_frame_is_short(show: Callable[..., Locator]) -> None:
    """For two images of 28 x 28."""
    fields = np.ones((2, 6, 55, 55), dtype=bool)
    widget = show(ReceptiveField(fields, names=["a", "b"], size=(28, 28)), width=1000)
    canvas = widget.locator("canvas").first
    assert computing_time(canvas, DRAG_IN_CIRCLES, [180, 120, ".field-said", 30]) < 15
