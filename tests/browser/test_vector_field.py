"""VectorField in a real browser: particles dropped, dragged, and carried along the flow."""

import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import PALETTE, VectorField, colour_map
from tests.browser.gallery import GALLERY
from tests.browser.harness import (
    computing_time,
    cut_off,
    live_widget,
    press_keys,
    python,
    settle,
    stored_widget,
    wait_for_python,
    wait_until_it_differs,
    wait_until_it_is,
)

CELL = list(GALLERY).index("arrows") + 1
EXTENT = (-3.0, 3.0, -2.0, 2.0)

Point = tuple[float, float]

# What is painted in a box of a canvas, in CSS pixels: [height, width, 4] as a flat list.
PIXELS = """(canvas, [x, y, width, height]) => [...canvas.getContext("2d")
  .getImageData(x, y, width, height).data]"""

# Pointer events faster than a mouse, and how long the page's frames are, in ms.
DRAG = """async (widget, more) => {
  const add = widget.querySelector(".cw-row button");
  for (let k = 0; k < more; k++) add.click();
  const canvas = widget.querySelector("canvas");
  const { left, top } = canvas.getBoundingClientRect();
  canvas.setPointerCapture = () => {};
  const fire = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {
    clientX: left + x, clientY: top + y, button: 0, pointerId: 1, bubbles: true
  }));
  fire("pointerdown", 150, 150);
  const [took, words] = [[], new Set()];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 120; k += 2) {
    fire("pointermove", 200 + 90 * Math.sin(k / 9), 180 + 90 * Math.cos(k / 7));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
    const handles = [...widget.querySelectorAll(".vectors-particle")];
    words.add(handles.map((node) => node.style.left).join());
  }
  fire("pointerup", 150, 150);
  if (words.size < 30) throw new Error("no particle was dragged");
  return took.sort((a, b) => a - b);
}"""


def carried(at: Point, dropped: float, step: float) -> np.ndarray:
    """Where the gallery's flow leads a particle: dx/ds = (0.4 + 0.3 s) A x, solved by hand.

    A turns and shrinks like a product with -0.1 + 0.5i in the plane of complex numbers.
    """
    passed = 0.4 * (step - dropped) + 0.15 * (step**2 - dropped**2)
    z = complex(*at) * np.exp((-0.1 + 0.5j) * passed)
    return np.array([z.real, z.imag])


def box(widget: Locator) -> tuple[float, float, float, float]:
    """The plot in the canvas: left, top, width and height."""
    width = round(widget.locator("canvas").first.bounding_box()["width"]) - 118
    return 36, 6, width, round(width * 2 / 3)


def spot(widget: Locator, at: Point) -> Point:
    """Where a place of the plane is on the canvas."""
    left, top, width, height = box(widget)
    return left + (at[0] + 3) / 6 * width, top + (2 - at[1]) / 4 * height


def mouse_to(widget: Locator, at: Point) -> None:
    canvas = widget.locator("canvas").first.bounding_box()
    x, y = spot(widget, at)
    widget.page.mouse.move(canvas["x"] + x, canvas["y"] + y)


def drag(widget: Locator, start: Point, *path: Point) -> None:
    widget.locator("canvas").first.evaluate("node => node.scrollIntoView({ block: 'center' })")
    mouse_to(widget, start)
    widget.page.mouse.down()
    for at in path:
        mouse_to(widget, at)
    widget.page.mouse.up()


def handles(widget: Locator) -> Locator:
    return widget.get_by_role("slider", name="Particle")


def places(widget: Locator) -> np.ndarray:
    """Where the particles are now, read from where they stand in the page, [D, 2]."""
    settle(widget)
    left, top, width, height = box(widget)
    styles = handles(widget).evaluate_all("all => all.map(({ style }) => [style.left, style.top])")
    pixels = np.array([[float(side.removesuffix("px")) for side in one] for one in styles])
    x, y = (pixels - [left, top]).T
    return np.stack([6 * x / width - 3, 2 - 4 * y / height], 1)


def readout(widget: Locator) -> Locator:
    return widget.locator(".cw-readout")


@pytest.fixture(params=["live", "stored"])
def arrows(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Iterator[Locator]:
    """The widget at its first time, with nothing dropped; and so it is left."""
    form = request.param
    widget = live_widget(live, CELL) if form == "live" else stored_widget(trusted, CELL)

    def clear() -> None:
        widget.get_by_role("button", name="Clear").click(force=True)
        widget.get_by_role("button", name="one scale").click()
        widget.focus()
        widget.press("Home")
        expect(handles(widget)).to_have_count(0)
        expect(readout(widget)).to_have_text("0 / 4")
        if form == "live":
            told = "print(arrows.dropped, arrows.scale, arrows.step)"
            wait_for_python(live, told, "[] all 0.0")

    clear()
    yield widget
    clear()


# ---------------------------------------------------------------------------------------- particles


def test_the_flow_carries_what_is_dropped_forwards_and_backwards(arrows: Locator) -> None:
    drag(arrows, (0.9, -0.4))
    arrows.focus()
    press_keys(arrows, ["End", "ArrowLeft"])
    expect(readout(arrows)).to_have_text("3 / 4")
    drag(arrows, (-0.5, 0.8))
    first, second = places(arrows)
    np.testing.assert_allclose(first, carried((0.9, -0.4), 0, 3), atol=0.02)
    np.testing.assert_allclose(second, (-0.5, 0.8), atol=0.02)
    # To a pixel the mouse is where it is; what follows is compared with where they stand now.
    arrows.focus()
    for key, step in [("ArrowRight", 4), ("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2)]:
        arrows.press(key)
        expect(readout(arrows)).to_have_text(f"{step} / 4")
        wanted = [carried(first, 3, step), carried(second, 3, step)]
        np.testing.assert_allclose(places(arrows), wanted, atol=5e-4)
    # Between two steps, too.
    slider = arrows.get_by_role("slider", name="Step")
    slider.evaluate(
        "node => { node.value = 2.37; node.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    expect(readout(arrows)).to_have_text("2.4 / 4")
    wanted = [carried(first, 3, 2.37), carried(second, 3, 2.37)]
    np.testing.assert_allclose(places(arrows), wanted, atol=2e-3)


def test_the_whole_path_is_drawn(arrows: Locator) -> None:
    drag(arrows, (1.1, 0.3))
    arrows.focus()
    arrows.press("ArrowRight")
    expect(readout(arrows)).to_have_text("1 / 4")
    start = carried(places(arrows)[0], 1, 0)
    canvas = arrows.locator("canvas").first
    ratio = canvas.evaluate("node => node.width / node.clientWidth")

    def orange(at: Point) -> bool:
        """Whether anything near a place of the plane is drawn in the colour of the model."""
        x, y = (ratio * value for value in spot(arrows, at))
        around = [round(x) - 2, round(y) - 2, 5, 5]
        colours = np.reshape(canvas.evaluate(PIXELS, around), (-1, 4))[:, :3]
        model = [int(PALETTE["model"][k : k + 2], 16) for k in (1, 3, 5)]
        return bool((np.abs(colours - model).max(1) < 70).any())

    for step in (0.5, 1.5, 2.3, 3.1, 3.9):
        assert orange(carried(start, 0, step))
        assert not orange(carried(start * 0.8, 0, step))
        assert not orange(carried(start * 1.2, 0, step))


def test_playing_carries_them(arrows: Locator) -> None:
    drag(arrows, (0.9, -0.4))
    start = places(arrows)[0]
    arrows.focus()
    press_keys(arrows, ["End", "ArrowLeft"])
    expect(readout(arrows)).to_have_text("3 / 4")
    arrows.get_by_role("button", name="Play").click()
    expect(readout(arrows)).to_have_text("4 / 4")
    np.testing.assert_allclose(places(arrows)[0], carried(start, 0, 4), atol=5e-4)


def test_a_particle_that_is_dragged_is_dropped_anew(arrows: Locator) -> None:
    drag(arrows, (0.9, -0.4))
    arrows.focus()
    arrows.press("ArrowRight")
    arrows.press("ArrowRight")
    expect(readout(arrows)).to_have_text("2 / 4")
    now = tuple(places(arrows)[0])
    drag(arrows, now, (1.3, 0.4), (-0.2, 1.1))
    expect(handles(arrows)).to_have_count(1)
    here = places(arrows)[0]
    np.testing.assert_allclose(here, (-0.2, 1.1), atol=0.02)
    drag(arrows, (2.9, -1.9), (5.0, -3.0))  # a second one, dragged out of the plot
    np.testing.assert_allclose(places(arrows)[1], (3, -2), atol=1e-4)
    arrows.focus()
    arrows.press("Home")
    np.testing.assert_allclose(places(arrows)[0], carried(here, 2, 0), atol=5e-4)


def test_beside_the_plot_nothing_is_dropped(arrows: Locator) -> None:
    drag(arrows, (-3.2, 0))
    drag(arrows, (0, -2.2))
    drag(arrows, (3.3, 1))
    expect(handles(arrows)).to_have_count(0)


def test_keys_drop_move_and_remove(arrows: Locator) -> None:
    for _ in range(3):
        arrows.get_by_role("button", name="Drop a particle").press("Enter")
    before = places(arrows)
    assert len(before) == 3
    apart = np.linalg.norm(before[:, None] - before, axis=-1)[np.triu_indices(3, 1)]
    assert apart.min() > 0.2
    handles(arrows).nth(1).focus()
    arrows.page.keyboard.press("ArrowRight")
    arrows.page.keyboard.press("Shift+ArrowUp")
    arrows.page.keyboard.press("ArrowUp")
    arrows.page.keyboard.press("ArrowDown")
    moved = places(arrows)
    np.testing.assert_allclose(moved[1] - before[1], (0.12, 0.6), atol=1e-4)
    np.testing.assert_allclose(moved[[0, 2]], before[[0, 2]], atol=1e-4)
    expect(readout(arrows)).to_have_text("0 / 4")  # the player has not heard of these keys
    at = "({:.2f}, {:.2f})".format(*moved[1]).replace("-", "−")
    expect(handles(arrows).nth(1)).to_have_attribute("aria-valuetext", at)
    arrows.page.keyboard.press("Delete")
    np.testing.assert_allclose(places(arrows), before[[0, 2]], atol=1e-4)
    arrows.focus()
    arrows.page.keyboard.press("ArrowRight")  # and here it has
    expect(readout(arrows)).to_have_text("1 / 4")
    np.testing.assert_allclose(places(arrows)[1], carried(before[2], 0, 1), atol=5e-4)


def test_of_too_many_particles_the_oldest_goes(arrows: Locator) -> None:
    drag(arrows, (2.5, 1.5))
    arrows.evaluate(
        """widget => {
          for (let k = 0; k < 40; k++) widget.querySelector(".cw-row button").click();
        }"""
    )
    expect(handles(arrows)).to_have_count(40)
    assert np.linalg.norm(places(arrows) - (2.5, 1.5), axis=1).min() > 0.1


def test_python_drops_and_hears_of_drops(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "arrows.step = 1.0; arrows.dropped = [[0.5, 0.5, 2.0], [-1.0, 0.0, 0.25]]")
    expect(handles(widget)).to_have_count(2)
    wanted = [carried((0.5, 0.5), 2, 1), carried((-1, 0), 0.25, 1)]
    np.testing.assert_allclose(places(widget), wanted, atol=5e-4)
    ours = json.loads(python(live, "print(arrows.paths[:, 8].tolist())"))
    np.testing.assert_allclose(places(widget), ours, atol=1e-4)
    drag(widget, (1.5, -1))
    wait_for_python(live, "print(len(arrows.dropped), arrows.dropped[0])", "3 [0.5, 0.5, 2.0]")
    told = json.loads(python(live, "print(arrows.dropped[2])"))
    np.testing.assert_allclose(told, (1.5, -1, 1), atol=0.02)
    refused = python(live, "arrows.dropped = [[0, 0, 7]]")
    assert "step in [0, 4], got [0" in refused
    expect(handles(widget)).to_have_count(3)
    widget.get_by_role("button", name="Clear").click()
    wait_for_python(live, "print(arrows.dropped)", "[]")
    expect(handles(widget)).to_have_count(0)


# ------------------------------------------------------------------------------------------- arrows


def test_scales(arrows: Locator) -> None:
    """At the last time the arrows are the longest: one scale is the same there as its own."""
    arrows.focus()
    arrows.press("End")
    expect(readout(arrows)).to_have_text("4 / 4")
    pictures = {}
    for name in ("one scale", "each time", "direction", "one scale"):
        button = arrows.get_by_role("button", name=name)
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        assert arrows.locator(".cw-group [aria-pressed=true]").count() == 1
        if name in pictures:
            wait_until_it_is(arrows, pictures[name])
        elif pictures:
            wait_until_it_differs(arrows, list(pictures.values())[-1])
        pictures[name] = settle(arrows)
    assert len(set(pictures.values())) == 3


def test_python_sets_the_scale(live: Page) -> None:
    widget = live_widget(live, CELL)
    for scale, name in [("direction", "direction"), ("each", "each time"), ("all", "one scale")]:
        python(live, f"arrows.scale = '{scale}'")
        button = widget.get_by_role("button", name=name)
        expect(button).to_have_attribute("aria-pressed", "true")
    widget.get_by_role("button", name="each time").click()
    wait_for_python(live, "print(arrows.scale)", "each")
    python(live, "arrows.scale = 'all'")


def test_an_arrow_stands_where_it_belongs_and_points_the_right_way(
    show: Callable[..., Locator],
) -> None:
    """One arrow, in row 3 of 5 and column 1 of 4: above the middle, to the left of it."""
    field = np.zeros((2, 5, 4, 2))
    field[:, 3, 1] = [0.3, 0.6]
    field[1] *= 2
    given = VectorField(field, extent=EXTENT)
    shares = np.minimum(np.linalg.norm(field[:, 3, 1], axis=1) / given.top, 1)
    assert 0.3 < shares[0] < shares[1] == 1
    widget = show(given, width=620)
    expect(widget.get_by_role("button", name="Drop a particle")).to_have_count(0)
    left, top, width, height = box(widget)
    x, y = left + width / 3, top + height / 4
    around = 90
    canvas = widget.locator("canvas").first

    def arrow() -> tuple[np.ndarray, np.ndarray]:
        """The pixels of the arrow's inside, from its middle, y upwards; and their colours."""
        corner = [round(x) - around, round(y) - around, 2 * around, 2 * around]
        data = canvas.evaluate(PIXELS, corner)
        colours = np.reshape(data, (2 * around, 2 * around, 4))[..., :3].astype(int)
        rows, columns = np.where(np.ptp(colours, axis=-1) > 60)  # neither grey nor nearly white
        places = np.stack([columns - around, around - rows], 1).astype(float)
        near = np.abs(places).max(1) < around - 2
        return places[near], colours[rows, columns][near]

    lengths = []
    for step in range(2):
        places_, colours = arrow()
        along = places_ @ np.array([1, 2]) / 5**0.5
        across = places_ @ np.array([2, -1]) / 5**0.5
        assert np.abs(across).max() < 8
        lengths.append(np.ptp(along))
        assert abs(along.max() + along.min()) < 6  # its middle is its place
        head = np.abs(across[along > np.quantile(along, 0.6)]).max()
        assert head > 1.8 * np.abs(across[along < np.quantile(along, 0.3)]).max()
        wanted = 255 * np.array(colour_map("viridis")(shares[step])[:3])
        inner = colours[(along > along.max() - 6) & (np.abs(across) < 1.2)]  # of its head
        np.testing.assert_allclose(np.median(inner, axis=0), wanted, atol=12)
        widget.focus()
        widget.press("End")
        settle(widget)
    np.testing.assert_allclose(lengths, 1.3 * min(width / 3, height / 4) * shares, rtol=0.08)
    # Without a flow a click drops nothing.
    drag(widget, (0, 0))
    expect(handles(widget)).to_have_count(0)


def test_where_there_is_no_vector_there_is_no_direction(show: Callable[..., Locator]) -> None:
    """In the middle it is zero, which 16 bits between -0.3 and 0.7 do not hold."""
    field = np.full((2, 3, 3, 2), [0.7, -0.3])
    field[:, 1, 1] = 0
    given = VectorField(field, extent=EXTENT)
    given.scale = "direction"
    widget = show(given, width=620)
    settle(widget)
    left, top, width, height = box(widget)

    def size(x: float, y: float) -> int:
        """How many pixels around a place are neither grey nor nearly white."""
        data = widget.locator("canvas").first.evaluate(
            PIXELS, [round(x) - 40, round(y) - 40, 80, 80]
        )
        return (np.ptp(np.reshape(data, (-1, 4))[:, :3].astype(int), axis=-1) > 60).sum()

    assert size(left + width / 2, top + height / 2) < 10
    assert size(left + width / 2, top + 1) > 30


def large() -> VectorField:
    """As much as a chapter shows."""
    rng = np.random.default_rng(0)
    field, points = rng.normal(size=(20, 20, 20, 2)), rng.normal(size=(20, 500, 2))
    extent = (-3, 3, -3, 3)
    widget = VectorField(field, extent=extent, flow=0.1 * field, points=points, title="Noise")
    widget.dropped = [[0.0, 0.0, 0.0]]
    return widget


def test_it_fits_any_width_and_a_drag_is_smooth(show: Callable[..., Locator]) -> None:
    widget = show(large(), width=620)
    assert computing_time(widget, DRAG, 5) < 15  # about 7 ms
    parts = "canvas, button, p, span, input"
    assert cut_off(widget, (320, 344, 400, 500, 600), parts) == []
