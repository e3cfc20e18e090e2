"""Voronoi in a real browser: what it counts, lights and pulls is what Python computes."""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, Page

from course_lib.widgets import PALETTE, Voronoi
from course_lib.widgets.voronoi import nearest_codes, perplexity, voronoi_cells
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    TWO_FRAMES,
    computing_time,
    live_widget,
    python,
    settle,
    wait_until_it_differs,
)

CELL = list(GALLERY).index("voronoi") + 1
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


@pytest.fixture(scope="module")
def module(functions_of: Callable[[str, str], Page]) -> Page:
    """A page that holds functions of the widget's module."""
    return functions_of("voronoi.js", "nearestCode, countsOf, perplexityOf, cellsOf, stepped")


@pytest.fixture
def stored(show: Callable[..., Locator]) -> Locator:
    """The stored widget in a plain page."""
    return show(in_python("voronoi"), width=700)


def place(widget: Locator, name: str) -> list[float]:
    """Where a handle says it is."""
    text = widget.locator(f".vq-{name}").get_attribute("aria-valuetext")
    return [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def assert_shown(widget: Locator, wanted: Voronoi) -> None:
    """Handles, use and distances on the screen are what Python computes."""
    widget.evaluate(TWO_FRAMES)
    assert place(widget, "z") == pytest.approx(wanted.z, abs=0.0051)
    assert place(widget, "target") == pytest.approx(wanted.target, abs=0.0051)
    usage = widget.locator(".vq-usage").inner_text()
    used, dead = int((wanted.counts > 0).sum()), int((wanted.counts == 0).sum())
    assert usage.startswith(f"{used} of {len(wanted.counts)} codes in use")
    assert (f"{dead} dead" in usage) == (dead > 0)
    assert usage.endswith(f"perplexity {wanted.perplexity:.1f}")
    code = wanted.codes[wanted.code]
    said = widget.locator(".vq-said").inner_text().translate(SUBSCRIPTS)
    assert said.startswith(f"zₑ is nearest to e{wanted.code}: ")
    distance, loss = map(float, re.findall(r"² = (\d+\.\d+)", said))
    assert distance == pytest.approx(((wanted.z - code) ** 2).sum(), abs=0.0051)
    assert loss == pytest.approx(((wanted.target - code) ** 2).sum() / 2, abs=0.0051)


# ----------------------------------------------------------------------- the same mathematics twice


def moments(cell: np.ndarray) -> list[float]:
    """Area and first moments of a polygon, whichever corner it begins with."""
    ahead = np.roll(cell, -1, axis=0)
    cross = cell[:, 0] * ahead[:, 1] - cell[:, 1] * ahead[:, 0]
    return [cross.sum() / 2, *((cell + ahead) * cross[:, None]).sum(0) / 6]


@pytest.mark.parametrize(("size", "count"), [(1, 5), (9, 100), (64, 500)])
def test_javascript_computes_what_python_does(module: Page, size: int, count: int) -> None:
    rng = np.random.default_rng(size)
    codes, points = rng.normal(size=(size, 2)), rng.normal(size=(count, 2))
    codes[-1] = codes[0]  # of two at one place the first has everything
    box = [-1.5, 2.0, -1.0, 2.5]
    found = module.evaluate(
        """([codes, points, box]) => {
          const counts = parts.countsOf(points, codes);
          return {
            counts, perplexity: parts.perplexityOf(counts), cells: parts.cellsOf(codes, box),
            nearest: points.flatMap((_, i) =>
              i % 2 ? [] : [parts.nearestCode(points[i], points[i + 1], codes)])
          };
        }""",
        [codes.ravel().tolist(), points.ravel().tolist(), box],
    )
    owners = nearest_codes(points, codes)
    counts = np.bincount(owners, minlength=size)
    np.testing.assert_array_equal(found["nearest"], owners)
    np.testing.assert_array_equal(found["counts"], counts)
    assert found["perplexity"] == pytest.approx(perplexity(counts), rel=1e-12)
    for ours, theirs in zip(found["cells"], voronoi_cells(codes, box), strict=True):
        np.testing.assert_allclose(moments(np.reshape(ours, (-1, 2))), moments(theirs), atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.25, 1.5])
def test_a_step_is_what_autograd_takes_straight_through(module: Page, beta: float) -> None:
    code, target = torch.tensor([0.7, -0.2]), torch.tensor([1.5, 1.0])
    z = torch.tensor([0.1, 0.4], requires_grad=True)
    z_q = z + (code - z).detach()  # the value of the code, the gradient of z
    loss = ((target - z_q) ** 2).sum() / 2 + beta * ((z - code) ** 2).sum()
    (gradient,) = torch.autograd.grad(loss, z)
    found = module.evaluate(
        "([z, code, target, beta]) => parts.stepped(z, code, target, beta)",
        [z.tolist(), code.tolist(), target.tolist(), beta],
    )
    np.testing.assert_allclose(found, (z - 0.1 * gradient).tolist(), atol=1e-6)


# --------------------------------------------------------------------------- without a kernel


def test_the_bar_plays_the_training_and_the_keys_move_a_handle(stored: Locator) -> None:
    wanted = in_python("voronoi")
    assert stored.page.locator("img").is_hidden()
    assert_shown(stored, wanted)
    before = settle(stored)
    stored.page.wait_for_timeout(200)
    assert settle(stored) == before  # nothing moves unasked
    for step in (1, 2):
        stored.press("ArrowRight")
        wanted.step = step
        assert_shown(stored, wanted)
    assert settle(stored) != before
    slider = stored.get_by_role("slider", name="Step")
    slider.evaluate("node => { node.value = 2.5; node.dispatchEvent(new Event('input')); }")
    wanted.step = 2.5  # between two stored steps
    assert_shown(stored, wanted)

    unit = (wanted.extent[1] - wanted.extent[0]) / 100
    for name in ("z", "target"):
        handle = stored.locator(f".vq-{name}")
        for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Shift+ArrowLeft"):
            handle.press(key)
        x, y = getattr(wanted, name)
        setattr(wanted, name, [x + 2 * unit - unit / 8, y - unit])
        assert_shown(stored, wanted)
    assert stored.locator(".cw-readout").inner_text() == "2.5 / 4"  # the bar heard none of them


def test_steps_leave_the_output_alone_until_a_border_is_crossed(stored: Locator) -> None:
    wanted, crossed, stayed = in_python("voronoi"), 0, 0
    beta = stored.get_by_role("slider", name="commitment")
    for weight, steps in ((0.25, 6), (0, 6)):
        while float(beta.input_value()) > weight:
            beta.press("ArrowLeft")
        for _ in range(steps):
            z, code = np.array(wanted.z), wanted.codes[wanted.code]
            moved = z + 0.1 * (wanted.target - code + 2 * weight * (code - z))
            before = wanted.code
            wanted.z = moved.tolist()
            stored.locator(".vq-z").press("Enter")
            assert_shown(stored, wanted)
            said = stored.locator(".vq-said").inner_text().translate(SUBSCRIPTS)
            if wanted.code == before:
                stayed += 1
                assert f"moved by {np.hypot(*(moved - z)):.2f} and stays in its cell" in said
            else:
                crossed += 1
                assert (
                    f"crossed a border: the output jumps from e{before} to e{wanted.code}" in said
                )
    assert stayed >= 2
    assert crossed >= 1
    assert stored.locator(".cw-readout").inner_text() == "0 / 4"  # the slider's keys are its own
    stored.locator(".vq-z").press("ArrowUp")  # by hand: that it crossed is past
    stored.evaluate(TWO_FRAMES)
    assert "crossed" not in stored.locator(".vq-said").inner_text()


def near(widget: Locator, colour: str) -> int:
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


def test_the_dead_are_crossed_out_on_narrow_and_dark_pages(
    show: Callable[..., Locator],
) -> None:
    books = np.array([[[0.0, 0.0], [1.0, 0.0], [5.0, 5.0]], [[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]]])
    points = np.array([[0.1, 0.0], [0.9, 0.1], [0.5, 0.9], [0.5, 1.1]])
    given = Voronoi(books, points, labels=list("abcd"), step_labels=["old", "new"])
    widget = show(given, width=700)
    assert near(widget, PALETTE["error"]) > 20
    assert widget.locator(".vq-dead").inner_text() == "1 dead"
    widget.focus()
    widget.press("End")
    light = settle(widget)
    assert near(widget, PALETTE["error"]) == 0
    assert widget.locator(".vq-dead").count() == 0
    assert widget.locator(".vq-perplexity").inner_text() == f"{perplexity(np.array([1, 1, 2])):.1f}"
    assert widget.locator(".cw-note").inner_text() == "new"

    page = widget.page
    page.evaluate(
        "() => { document.body.style.background = '#111'; document.body.className = 'x'; }"
    )
    wait_until_it_differs(widget, light)
    assert widget.evaluate("root => getComputedStyle(root).color") == "rgb(232, 234, 237)"
    page.set_viewport_size({"width": 390, "height": 1000})
    settle(widget)
    height = widget.bounding_box()["height"]
    for line in widget.locator("button, .cw-handle, .cw-key span, .cw-slider").all():
        box = line.bounding_box()
        assert box["x"] + box["width"] <= 390
    for _ in range(5):
        widget.get_by_role("button", name="Step zₑ").click()
    settle(widget)
    assert widget.bounding_box()["height"] == height  # no sentence pushes the rest away


def test_one_codebook_has_no_bar(show: Callable[..., Locator]) -> None:
    widget = show(Voronoi(np.eye(2)[None], np.eye(2)))
    assert widget.get_by_role("button", name="Play").count() == 0
    assert widget.get_by_role("button", name="Step zₑ").is_visible()


# The times between frames while z is dragged, and then while the training plays, in ms.
DRAG = """async handle => {
  handle.setPointerCapture = () => {};
  const { x, y } = handle.getBoundingClientRect();
  const fire = (type, right, down) => handle.dispatchEvent(new PointerEvent(type, {
    clientX: x + right, clientY: y + down, button: 0, pointerId: 1, bubbles: true
  }));
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  const frame = async () => {
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  };
  fire("pointerdown", 0, 0);
  for (let k = 0; k < 60; k++) {
    fire("pointermove", 100 * Math.sin(k / 9), 80 * Math.cos(k / 5));
    await frame();
  }
  fire("pointerup", 0, 0);
  document.querySelector(".cw-play").click();
  for (let k = 0; k < 60; k++) await frame();
  document.querySelector(".cw-play").click();
  return took;
}"""


def test_frames_are_short(show: Callable[..., Locator]) -> None:
    """For the largest codebook, which moves from frame to frame while it plays."""
    rng = np.random.default_rng(0)
    books = rng.normal(size=(12, 64, 2)).cumsum(0) / 4
    widget = show(Voronoi(books, rng.normal(size=(12, 500, 2)).cumsum(0) / 4), width=700)
    before = place(widget, "z")
    assert computing_time(widget.locator(".vq-z"), DRAG) < 15
    assert place(widget, "z") != before
    assert float(widget.locator(".cw-readout").inner_text().split(" / ")[0]) > 0


# --------------------------------------------------------------------------------- with a kernel


def test_a_drag_reaches_python_and_python_the_screen(live: Page) -> None:
    widget = live_widget(live, CELL)
    state = "print([voronoi.step, voronoi.z, voronoi.target, voronoi.code])"

    def kernel() -> Voronoi:
        same = in_python("voronoi")
        same.step, same.z, same.target, code = json.loads(python(live, state))
        assert code == same.code
        return same

    def drag(name: str, right: float, down: float) -> None:
        handle, mouse = widget.locator(f".vq-{name}"), live.mouse
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + right, y + down, steps=4)
        mouse.up()

    before = in_python("voronoi")
    drag("z", 150, 60)
    moved = kernel()
    assert moved.z[0] > before.z[0] + 1
    assert moved.z[1] < before.z[1] - 0.4
    assert moved.code != before.code
    assert_shown(widget, moved)
    drag("target", -2000, 0)
    far = kernel()
    assert far.target[0] == far.extent[0]
    assert_shown(widget, far)
    python(live, "voronoi.step, voronoi.z, voronoi.beta = 3.5, [0.0, 0.5], 1.0")
    driven = kernel()
    assert (driven.step, driven.z) == (3.5, [0, 0.5])
    assert_shown(widget, driven)
    assert widget.locator(".cw-slider output").inner_text() == "1.00"
    python(live, "voronoi.step = 0.0; voronoi.z, voronoi.target, voronoi.beta = voronoi.start")
