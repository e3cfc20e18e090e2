"""CodeSwap in a real browser: cells painted, decoded by the kernel or put together without one."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import CodeSwap, code_swap
from tests.browser.conftest import Lab
from tests.browser.gallery import GALLERY, cell
from tests.browser.harness import (
    computing_time,
    cut_off,
    live_widget,
    python,
    stored_frame,
    wait_for_python,
)

CELL = list(GALLERY).index("swap") + 1
SIDE = 4  # cells of the map in a row

# The grey levels of the decoded image, read in the middle of each of its pixels.
LEVELS = """([widget, side]) => {
  const canvas = widget.querySelector(".swap-decoded");
  const unit = canvas.width / side;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const at = (i) => Math.floor((i + 0.5) * unit);
  return Array.from({ length: side * side }, (_, i) =>
    data[4 * (at(Math.floor(i / side)) * canvas.width + at(i % side))]);
}"""

# How long it takes from a click on "Undo" until the kernel's image is here, in ms.
ROUND_TRIP = """widget => new Promise(resolve => {
  const how = widget.querySelector(".swap-how");
  const start = performance.now();
  const observer = new MutationObserver(() => {
    if (how.textContent !== "exact") return;
    observer.disconnect();
    resolve(performance.now() - start);
  });
  observer.observe(how, { childList: true, subtree: true });
  [...widget.querySelectorAll("button")].find((node) => node.textContent === "Undo").click();
})"""

# The times between frames while cells are painted, in ms, from short to long.
PAINT = """async canvas => {
  const box = canvas.getBoundingClientRect();
  canvas.setPointerCapture = () => {};
  const fire = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {
    clientX: box.left + x * box.width, clientY: box.top + y * box.height,
    button: 0, pointerId: 1, bubbles: true
  }));
  const widget = canvas.closest(".course-widget");
  const sources = [...widget.querySelectorAll('[aria-label^="Codes of example"]:not(:disabled)')];
  const how = new Set();
  const took = [];
  fire("pointerdown", 0.02, 0.02);
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 60; k++) {
    if (k % 12 === 0) sources[(k / 12) % sources.length].click();
    fire("pointermove", 0.5 + 0.48 * Math.sin(k / 5), 0.5 + 0.48 * Math.cos(k / 3));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
    how.add(widget.querySelector(".swap-how").textContent);
  }
  fire("pointerup", 0.5, 0.5);
  if (how.size < 10) throw new Error(`nothing was painted: ${[...how]}`);
  return took.sort((a, b) => a - b);
}"""


@pytest.fixture(scope="module")
def twin() -> dict:
    """The gallery's cell, run in Python alone: its functions and its widget."""
    return cell("swap")


@pytest.fixture
def gate(lab: Lab) -> Iterator[Path]:
    """A file that holds how many maps may be decoded; without it, as many as asked."""
    gate = lab.folder / "swap_gate"
    yield gate
    gate.unlink(missing_ok=True)


@pytest.fixture
def swap(live: Page) -> Locator:
    """The live widget with the first example as it is, painting code 3."""
    python(live, "swap_fault = ''; swap.example = 1; swap.example = 0; swap.codes = swap_codes[0]")
    python(live, "swap.brush, swap.source = 3, None; swap_maps.clear()")
    widget = live_widget(live, CELL)
    live.mouse.move(0, 0)
    expect(widget.locator(".swap-status")).to_have_text("")
    expect(button(widget, "Code 3")).to_have_attribute("aria-pressed", "true")
    return widget


@pytest.fixture
def stored(trusted: Page) -> Locator:
    """The stored widget with the first example as it is."""
    widget = stored_frame(trusted, CELL).locator(".course-widget")
    widget.focus()  # brings it onto the screen
    button(widget, "Example 1").click()
    expect(widget.locator(".swap-status")).to_have_text("")
    return widget


def button(widget: Locator, name: str) -> Locator:
    return widget.get_by_role("button", name=name, exact=True)


def click(widget: Locator, row: int, column: int, **options: object) -> None:
    """Click a cell of the map."""
    canvas = widget.locator(".cw-stage canvas")
    cell = canvas.bounding_box()["width"] / SIDE
    canvas.click(position={"x": (column + 0.5) * cell, "y": (row + 0.5) * cell}, **options)


def drag(widget: Locator, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Move the pressed mouse from one cell of the map to another, in one go."""
    canvas, mouse = widget.locator(".cw-stage canvas"), widget.page.mouse
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    places = [
        (
            box["x"] + (column + 0.5) * box["width"] / SIDE,
            box["y"] + (row + 0.5) * box["height"] / SIDE,
        )
        for row, column in (start, end)
    ]
    mouse.move(*places[0])
    mouse.down()
    mouse.move(*places[1])
    mouse.up()


def how(widget: Locator) -> Locator:
    """The words that say where the image comes from."""
    return widget.locator(".swap-how")


def status(widget: Locator) -> Locator:
    return widget.locator(".swap-status")


def drawn(widget: Locator) -> None:
    """Wait until what the widget knows is on its canvases."""
    widget.evaluate(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def shown(widget: Locator) -> list[int]:
    """The grey levels of the decoded image, as last drawn."""
    drawn(widget)
    return widget.evaluate(f"(widget, side) => ({LEVELS})([widget, side])", 2 * SIDE)


def decoded(twin: dict, codes: object) -> np.ndarray:
    """The same from Python."""
    return np.rint(255 * twin["swap_decode"](np.array([codes])))[0].ravel()


def ask(page: Page, expression: str) -> object:
    """What an expression is in the kernel, through JSON."""
    return json.loads(python(page, f"import json; print(json.dumps({expression}))"))


def wait_for_json(page: Page, expression: str, wanted: object) -> None:
    """Wait until an expression in the kernel is ``wanted``: a change may be on its way there."""
    wait_for_python(page, f"import json; print(json.dumps({expression}))", json.dumps(wanted))


# ------------------------------------------------------------------------------------ with a kernel


def test_painted_cells_reach_python_and_the_exact_image_comes_back(
    swap: Locator, live: Page, twin: dict
) -> None:
    own = twin["swap_codes"][0]
    assert shown(swap) == decoded(twin, own).tolist()
    button(swap, "Code 1").click()
    click(swap, 1, 2)
    expect(status(swap)).to_have_text("1 cell of 16 differs from example 1.")
    expect(how(swap)).to_have_text("exact")
    painted = own.copy()
    painted[1, 2] = 1
    wait_for_json(live, "[swap.codes, swap.brush]", [painted.tolist(), 1])
    assert shown(swap) == decoded(twin, painted).tolist()
    # A quick drag leaves no cell out, and is one step of undo.
    drag(swap, (3, 0), (3, 3))
    expect(status(swap)).to_contain_text("5 cells of 16")
    expect(how(swap)).to_have_text("exact")
    painted[3] = 1
    wait_for_json(live, "swap.codes", painted.tolist())
    assert shown(swap) == decoded(twin, painted).tolist()
    button(swap, "Undo").click()
    expect(status(swap)).to_contain_text("1 cell of 16")
    expect(how(swap)).to_have_text("exact")
    painted[3] = own[3]
    assert shown(swap) == decoded(twin, painted).tolist()
    # The codes of another example, and its top half in one go.
    button(swap, "Codes of example 3").click()
    drag(swap, (2, 0), (2, 1))
    button(swap, "Bring in the top half").click()
    painted[2, :2], painted[:2] = twin["swap_codes"][2][2, :2], twin["swap_codes"][2][:2]
    expect(how(swap)).to_have_text("exact")
    wait_for_json(live, "[swap.codes, swap.source]", [painted.tolist(), 2])
    assert shown(swap) == decoded(twin, painted).tolist()
    button(swap, "Back to this image").click()
    expect(status(swap)).to_have_text("")
    button(swap, "Undo").click()
    expect(how(swap)).to_have_text("exact")
    wait_for_json(live, "swap.codes", painted.tolist())
    took = [swap.evaluate(ROUND_TRIP) for _ in range(2)]
    print(f"round trips: {', '.join(f'{milliseconds:.0f}' for milliseconds in took)} ms")
    assert min(took) < 1000  # generous: a quiet machine takes a twentieth of that


def test_the_frames_and_the_difference_show_what_changed(swap: Locator, twin: dict) -> None:
    near = """(canvas, colour) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let count = 0;
      for (let i = 0; i < data.length; i += 4) {
        count += [0, 1, 2].every((c) => Math.abs(data[i + c] - colour[c]) < 12);
      }
      return count / data.length * 4;
    }"""
    orange, warm, cool = [217, 115, 13], [168, 67, 0], [28, 98, 176]
    cells, difference = swap.locator(".cw-stage canvas"), swap.locator(".swap-difference")
    drawn(swap)
    assert cells.evaluate(near, orange) == 0
    button(swap, "Code 7").click()
    click(swap, 1, 1)  # brighter
    expect(how(swap)).to_have_text("exact")
    swap.page.mouse.move(0, 0)  # a cell under the pointer has another frame
    drawn(swap)
    assert 0.002 < cells.evaluate(near, orange) < 0.03
    assert difference.evaluate(near, warm) > 0.02
    assert difference.evaluate(near, cool) == 0
    own = twin["swap_codes"][0]
    brighter = own.copy()
    brighter[1, 1] = 7
    change = np.abs(decoded(twin, brighter) - decoded(twin, own)).max() / 255
    expect(swap.locator(".swap-images")).to_contain_text(f"blue −, orange + {change:.2f}")
    button(swap, "Undo").click()
    expect(status(swap)).to_have_text("")
    drawn(swap)
    assert cells.evaluate(near, orange) == 0
    assert difference.evaluate(near, warm) == 0
    assert difference.evaluate(near, cool) > 0.02


def test_keys_and_the_pipette(swap: Locator, live: Page, twin: dict) -> None:
    own = twin["swap_codes"][0]
    canvas = swap.locator(".cw-stage canvas")
    canvas.focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowLeft", "Enter"):  # it begins at row 3, column 3
        canvas.press(key)
    expect(swap.locator("[aria-live]").first).to_have_text("row 2, column 2, code 3, was 2")
    expect(how(swap)).to_have_text("exact")
    painted = own.copy()
    painted[1, 1] = 3
    wait_for_json(live, "swap.codes", painted.tolist())
    palette = twin["swap"].palette
    canvas.press("]")
    after = palette[(palette.index(3) + 1) % len(palette)]
    expect(button(swap, f"Code {after}")).to_have_attribute("aria-pressed", "true")
    canvas.press("[")
    canvas.press("[")
    before = palette[palette.index(3) - 1]
    expect(button(swap, f"Code {before}")).to_have_attribute("aria-pressed", "true")
    canvas.press("z")
    expect(status(swap)).to_have_text("")
    # Three ways to pick a code from the map: none of them paints.
    for row, pick in enumerate(
        ({"modifiers": ["Shift"]}, {"modifiers": ["Alt"]}, {"button": "right"})
    ):
        click(swap, row, 3, **pick)
        expect(button(swap, f"Code {own[row, 3]}")).to_have_attribute("aria-pressed", "true")
    canvas.press("ArrowDown")
    canvas.press("p")
    expect(button(swap, f"Code {own[3, 3]}")).to_have_attribute("aria-pressed", "true")
    expect(status(swap)).to_have_text("")
    # Enter on a button presses it.
    button(swap, "Example 2").press("Enter")
    expect(button(swap, "Example 2")).to_have_attribute("aria-pressed", "true")
    wait_for_json(live, "[swap.example, swap.codes]", [1, twin["swap_codes"][1].tolist()])
    assert live.locator(".jp-mod-editMode .jp-Cell.jp-mod-active").count() == 0


def test_a_stale_answer_is_not_shown(swap: Locator, live: Page, gate: Path, twin: dict) -> None:
    before = shown(swap)
    gate.write_text("0")
    click(swap, 0, 3)
    expect(how(swap)).to_have_text("waiting for the kernel …")
    expect(swap).to_have_attribute("aria-busy", "true")
    click(swap, 2, 2)  # the reader goes on, twice, while the kernel works
    click(swap, 3, 2)
    gate.write_text("1")
    # The next map is asked for as soon as the first answer is here; that answer is dropped.
    while ask(live, "len(swap_maps)") < 2:
        live.wait_for_timeout(50)
    expect(how(swap)).to_have_text("waiting for the kernel …")
    assert shown(swap) == before
    gate.write_text("2")
    expect(how(swap)).to_have_text("exact")
    expect(swap).to_have_attribute("aria-busy", "false")
    painted = twin["swap_codes"][0].copy()
    painted[[0, 2, 3], [3, 2, 2]] = 3
    assert ask(live, "swap_maps[1:]") == [painted.tolist()]  # the map between was never asked
    assert shown(swap) == decoded(twin, painted).tolist()


def test_what_goes_wrong_is_shown_in_one_line(swap: Locator, live: Page) -> None:
    before = shown(swap)
    python(live, "swap_fault = 'the model\\nis tired'")
    click(swap, 0, 3)
    expect(status(swap)).to_have_text("decode or encode failed: RuntimeError: the model is tired")
    expect(how(swap)).to_have_text("of the map before")
    expect(swap).to_have_attribute("aria-busy", "false")
    assert shown(swap) == before
    python(live, "swap_fault = ''")
    click(swap, 0, 3)  # nothing new to paint, but to ask for
    expect(how(swap)).to_have_text("exact")
    expect(status(swap)).to_have_text("1 cell of 16 differs from example 1.")
    assert shown(swap) != before


def test_python_paints_and_encoding_again_counts(swap: Locator, live: Page, twin: dict) -> None:
    chosen = [[7, 0, 7, 0]] * 4
    python(live, f"swap.codes = {np.ravel(chosen).tolist()}")
    expect(how(swap)).to_have_text("exact")
    assert shown(swap) == decoded(twin, chosen).tolist()
    python(live, "swap.source = 1")
    expect(button(swap, "Codes of example 2")).to_have_attribute("aria-pressed", "true")
    again = twin["swap_encode"](np.array(shown(swap)).reshape(1, 1, 8, 8) / 255)[0]
    count = int((again != np.array(chosen)).sum())
    assert 0 < count < 16
    button(swap, "Encode again").click()
    expect(status(swap)).to_have_text(f"Encoded again: {count} cells came out with another code.")
    wait_for_json(live, "swap.codes", again.astype(int).tolist())
    assert shown(swap) == decoded(twin, again.astype(int)).tolist()
    button(swap, "Undo").click()
    expect(how(swap)).to_have_text("exact")
    wait_for_json(live, "swap.codes", chosen)


# --------------------------------------------------------------------------------- without a kernel


def test_one_stored_change_is_exact_and_several_are_summed(stored: Locator, twin: dict) -> None:
    expect(button(stored, "Encode again")).to_have_count(0)
    own = twin["swap_codes"]
    for example in (0, 2):
        button(stored, f"Example {example + 1}").click()
        base = decoded(twin, own[example])
        total = base.copy()
        changes = [(0, 0, 7), (1, 2, 0), (1, 3, 5)]
        for count, (row, column, code) in enumerate(changes, 1):
            alone = own[example].copy()
            alone[row, column] = code
            button(stored, f"Code {code}").click()
            click(stored, row, column)
            difference = decoded(twin, alone) - base
            difference[np.abs(difference) == 1] = 0
            total += difference
            words = "exact" if count == 1 else f"put together from {count} single changes"
            expect(how(stored)).to_have_text(words)
            assert shown(stored) == total.clip(0, 255).tolist()
        button(stored, "Undo").click()
        expect(how(stored)).to_have_text("put together from 2 single changes")
    # Neighbours that change together are not the sum of their parts, or the words would be idle.
    both = own[2].copy()
    both[1, 2], both[1, 3] = 0, 5
    assert np.abs(decoded(twin, both) - (total - base + base)).max() > 3
    button(stored, "Codes of example 2").click()
    button(stored, "Back to this image").click()
    expect(how(stored)).to_have_text("exact")
    drag(stored, (3, 0), (3, 3))
    changed = int((own[1][3] != own[2][3]).sum())
    expect(how(stored)).to_have_text(f"put together from {changed} single changes")


def with_room(room: int, side: int, monkeypatch: pytest.MonkeyPatch) -> CodeSwap:
    """A widget that has room for few changes, or for many, in bytes."""

    def decode(codes: np.ndarray) -> np.ndarray:
        return np.kron(codes, np.ones((1, 4, 4))) / 63

    maps = np.random.default_rng(0).integers(0, 64, (6, side, side))
    widget = CodeSwap(decode, maps, 64, title="Few changes")
    monkeypatch.setattr(code_swap, "MAX_BYTES", len(widget.data) + room)
    return widget


def test_what_is_not_stored_asks_for_a_kernel(
    show: Callable[..., Locator], monkeypatch: pytest.MonkeyPatch
) -> None:
    widget = show(with_room(500, 4, monkeypatch), width=716, style="background: #111")
    few = widget.locator(".swap-codes button").count()
    assert 0 < few < 16
    expect(button(widget, "Code 40")).to_have_count(0)
    expect(widget.locator(".swap-more")).to_contain_text(f"{few} of 64 codes")
    expect(button(widget, "Codes of example 2")).to_be_disabled()
    before = shown(widget)
    click(widget, 0, 1, modifiers=["Shift"])  # code 40, of this example, but of another place
    click(widget, 3, 3)
    expect(status(widget)).to_have_text("That change needs a running kernel: run this cell.")
    assert shown(widget) == before
    widget.locator(".swap-codes button").last.click()
    click(widget, 3, 3)
    expect(how(widget)).to_have_text("exact")
    assert shown(widget) != before
    button(widget, "Example 2").click()
    click(widget, 3, 3)
    expect(status(widget)).to_have_text("That change needs a running kernel: run this cell.")
    # In a dark page the words are light and the cells dark.
    assert widget.evaluate("root => getComputedStyle(root).color") == "rgb(232, 234, 237)"
    corner = widget.locator(".cw-stage canvas").evaluate(
        "canvas => canvas.getContext('2d').getImageData(5, 5, 1, 1).data[0]"
    )
    assert corner < 80


def test_it_fits_any_width_and_painting_is_smooth(
    show: Callable[..., Locator], monkeypatch: pytest.MonkeyPatch
) -> None:
    widget = show(with_room(200_000, 7, monkeypatch), width=716)
    assert computing_time(widget.locator(".cw-stage canvas"), PAINT) < 15  # about 4 ms
    parts = ".swap-name, .swap-how, p, canvas, button"
    inside = ":is(.swap-codes *)"  # scrolls in a box of its own
    parts = ", ".join(f"{part}:not({inside})" for part in parts.split(", "))
    assert cut_off(widget, (340, 380, 500, 620, 700), parts) == []
