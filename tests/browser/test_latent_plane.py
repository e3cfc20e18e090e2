"""LatentPlane in a real browser: a point dragged and walked, decoded by the kernel, or not.

The last part has its other form, a square between four images.
"""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import LatentPlane, corner_shares
from tests.browser.conftest import Lab
from tests.browser.gallery import GALLERY, cell
from tests.browser.harness import (
    DRAG_IN_CIRCLES,
    computing_time,
    cut_off,
    live_widget,
    python,
    set_theme,
    settle,
    stored_widget,
    wait_for_python,
    wait_until_it_differs,
    wait_until_it_is,
)

CELL = list(GALLERY).index("plane") + 1
EXACT, MIXED = "decoded at this point", "mixed from stored points nearby"
SQUARE, BLENDED = list(GALLERY).index("square") + 1, "blended from stored points nearby"

# The grey values of a small canvas, row by row.
LEVELS = """canvas => [...canvas.getContext("2d")
  .getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 === 0)"""


@pytest.fixture
def latch(lab: Lab) -> Iterator[Path]:
    """A file that holds how many answers the decoder may give; without it, as many as asked."""
    latch = lab.folder / "latch"
    yield latch
    latch.unlink(missing_ok=True)


@pytest.fixture
def plane(live: Page) -> Locator:
    """The live widget at its first point, decoded."""
    widget = live_widget(live, CELL)
    # What the test before moved last is still on its way to Python.
    expect(place(widget)).to_contain_text("z = ")  # it is painted
    shown = place(widget).text_content()
    eventually(live, "'z = ({:.2f}, {:.2f})'.format(*plane.z).replace('-', '−')", shown)
    python(live, "gripe = ''; plane.walk = False; plane.z, plane.z_end = (1, -0.5), (-1, 0.5)")
    expect(place(widget)).to_have_text("z = (1.00, −0.50)")
    expect(mark(widget)).to_have_text(EXACT)
    python(live, "decoded.clear()")
    return widget


@pytest.fixture
def stored(trusted: Page) -> Locator:
    return stored_widget(trusted, CELL)


def eventually(page: Page, expression: str, wanted: str) -> None:
    """Ask the kernel until it prints what is wanted: it answers widgets beside its cells."""
    wait_for_python(page, f"print({expression})", wanted)


def mark(widget: Locator) -> Locator:
    return widget.locator(".latent-mark")


def place(widget: Locator) -> Locator:
    return widget.locator(".latent-place")


def image(widget: Locator) -> np.ndarray:
    """The image beside the plane, [12, 12], 0 ... 255."""
    return np.reshape(widget.locator(".latent-image").evaluate(LEVELS), (12, 12))


def strip(widget: Locator) -> np.ndarray:
    """The images of the walk, [9, 12, 12], 0 ... 255."""
    levels = [c.evaluate(LEVELS) for c in widget.locator(".latent-strip canvas").all()]
    return np.reshape(levels, (9, 12, 12))


@cache
def decoder() -> Callable[[torch.Tensor], np.ndarray]:
    return cell("plane")["decode"]


def decoded(*latents: tuple[float, float]) -> np.ndarray:
    """What the gallery's decoder makes of latent points, [K, 12, 12], 0 ... 255."""
    return 255 * decoder()(torch.tensor(latents, dtype=torch.float32))


def mixed(z: tuple[float, float], side: int) -> np.ndarray:
    """The bilinear mixture of a grid of ``side`` decoded images along an axis, at z."""
    at = (np.array(z) + 3) / 6 * (side - 1)
    low = np.minimum(np.floor(at), side - 2)
    (right, up), (x, y) = at - low, low * 6 / (side - 1) - 3
    unit = 6 / (side - 1)
    a, b, c, d = decoded((x, y), (x + unit, y), (x, y + unit), (x + unit, y + unit))
    return (1 - up) * ((1 - right) * a + right * b) + up * ((1 - right) * c + right * d)


def spot(widget: Locator, z: tuple[float, float]) -> dict[str, float]:
    """Where a latent point is on the canvas."""
    side = int(widget.locator("canvas").first.bounding_box()["width"]) - 48
    return {"x": 40 + (z[0] + 3) / 6 * side, "y": 8 + (3 - z[1]) / 6 * side}


def drag(widget: Locator, start: tuple[float, float], *path: tuple[float, float]) -> None:
    """Drag from one latent point along others; the button stays down."""
    canvas, mouse = widget.locator("canvas").first, widget.page.mouse
    canvas.evaluate("canvas => canvas.scrollIntoView({ block: 'center' })")
    box = canvas.bounding_box()
    for k, z in enumerate([start, *path]):
        at = spot(widget, z)
        mouse.move(box["x"] + at["x"], box["y"] + at["y"])
        if k == 0:
            mouse.down()


def state(page: Page) -> dict:
    """What Python holds, once the browser has sent it."""
    text = "print(json.dumps({'z': plane.z, 'z_end': plane.z_end, 'n': len(decoded)}))"
    return json.loads(python(page, f"import json; {text}"))


# ------------------------------------------------------------------------------- with the kernel


def test_a_drag_moves_z_and_the_kernel_decodes_it(plane: Locator, live: Page) -> None:
    before = settle(plane)
    np.testing.assert_allclose(image(plane), decoded((1, -0.5))[0], atol=1)
    drag(plane, (1, -0.5), (0.3, 0.4), (-1.234, 1.567))
    wait_until_it_differs(plane, before)
    expect(place(plane)).to_have_text("z = (−1.23, 1.57)")
    expect(mark(plane)).to_have_text(EXACT)
    # Beyond the border the point stays on it.
    drag_on = plane.page.mouse
    box = plane.locator("canvas").first.bounding_box()
    drag_on.move(box["x"] + 1000, box["y"] + spot(plane, (0, 2))["y"])
    drag_on.up()
    expect(place(plane)).to_contain_text("z = (3.00, 2.")
    expect(mark(plane)).to_have_text(EXACT)
    z = state(live)["z"]
    assert z[0] == 3
    np.testing.assert_allclose(image(plane), decoded(tuple(z))[0], atol=1)
    drag_on.move(box["x"] + 100, box["y"] + 100)
    assert state(live)["z"] == z  # let go is let go
    # Back from Python.
    python(live, "plane.z = [-2, 0.05]")
    expect(place(plane)).to_have_text("z = (−2.00, 0.05)")
    expect(mark(plane)).to_have_text(EXACT)
    np.testing.assert_allclose(image(plane), decoded((-2, 0.05))[0], atol=1)


def test_stale_answers_are_dropped(plane: Locator, live: Page, latch: Path) -> None:
    latch.write_text("0")
    plane.focus()
    plane.press("ArrowRight")
    expect(mark(plane)).to_have_text(MIXED)
    np.testing.assert_allclose(image(plane), mixed((1.1, -0.5), 41), atol=1.5)
    expect(plane).to_have_attribute("aria-busy", "true")
    plane.press("Shift+ArrowUp")  # the kernel still works on (1.1, -0.5)
    plane.press("Shift+ArrowUp")
    expect(place(plane)).to_have_text("z = (1.10, 0.50)")
    latch.write_text("1")
    eventually(live, "plane.answered['latents']", "[[1.1, -0.5]]")
    live.wait_for_timeout(200)
    expect(mark(plane)).to_have_text(MIXED)
    np.testing.assert_allclose(image(plane), mixed((1.1, 0.5), 41), atol=1.5)
    latch.write_text("2")
    expect(mark(plane)).to_have_text(EXACT)
    np.testing.assert_allclose(image(plane), decoded((1.1, 0.5))[0], atol=1)
    assert state(live)["n"] == 2  # (1.1, 0.0) was never asked


def test_what_goes_wrong_is_said_until_z_moves(plane: Locator, live: Page) -> None:
    python(live, "gripe = 'no\\nlight'")
    plane.focus()
    plane.press("ArrowLeft")
    expect(mark(plane)).to_have_text("decode failed: RuntimeError: no light")
    assert python(live, "print(plane.error)") == "RuntimeError: no light"
    python(live, "gripe = ''")
    plane.press("ArrowLeft")
    expect(mark(plane)).to_have_text(EXACT)


def test_a_walk_shows_nine_decoded_images(plane: Locator, live: Page) -> None:
    plane.get_by_role("button", name="Walk").click()
    expect(mark(plane)).to_have_text("decoded at these points")
    path = [tuple(z) for z in np.linspace((1, -0.5), (-1, 0.5), 9)]
    np.testing.assert_allclose(strip(plane), decoded(*path), atol=1)
    # Its other end is dragged, and moved by keys.
    drag(plane, (-1, 0.5), (-2, 2))
    plane.page.mouse.up()
    plane.page.keyboard.press("Shift+ArrowRight")
    expect(mark(plane)).to_have_text("decoded at these points")
    now = state(live)
    assert now["z"] == [1, -0.5]
    np.testing.assert_allclose(now["z_end"], [-1.5, 2], atol=0.02)
    path = [tuple(z) for z in np.linspace(now["z"], now["z_end"], 9)]
    np.testing.assert_allclose(strip(plane), decoded(*path), atol=1)
    plane.get_by_role("button", name="Walk").click()
    expect(plane.locator(".latent-walk")).to_be_hidden()


# ----------------------------------------------------------------------------- without the kernel


def test_without_a_kernel_it_mixes_and_says_so(stored: Locator) -> None:
    expect(mark(stored)).to_have_text(EXACT)  # of the point it was stored with
    np.testing.assert_allclose(image(stored), decoded((1, -0.5))[0], atol=1)
    first = settle(stored)
    drag(stored, (-2.2, 1.7), (-0.33, 2.05))
    stored.page.mouse.up()
    wait_until_it_differs(stored, first)
    expect(mark(stored)).to_have_text(f"{MIXED}. Run this cell to decode every point.")
    text = place(stored).inner_text().replace("−", "-").removeprefix("z = (").removesuffix(")")
    z = tuple(float(part) for part in text.split(","))
    np.testing.assert_allclose(z, (-0.33, 2.05), atol=0.02)
    np.testing.assert_allclose(image(stored), mixed(z, 41), atol=3)
    # Map and digits come and go; the digits lie above the map.
    pictures = [settle(stored)]
    for name in ("Map", "Digits", "Map"):
        stored.get_by_role("button", name=name).click()
        wait_until_it_differs(stored, pictures[-1])
        pictures.append(settle(stored))
    assert len(set(pictures)) == 4
    stored.get_by_role("button", name="Digits").click()
    wait_until_it_differs(stored, pictures[-1])
    assert settle(stored) == pictures[0]
    for key in ["ArrowLeft"] * 2 + ["Shift+ArrowDown", "ArrowUp"]:
        stored.press(key)
    expect(place(stored)).to_contain_text(f"{z[0] - 0.2:.2f}".replace("-", "−"))
    expect(place(stored)).to_contain_text(f"{z[1] - 0.4:.2f}")


# ------------------------------------------------------------------------------------------- looks


def test_both_themes(plane: Locator) -> None:
    light = settle(plane)
    corner = """canvas => [...canvas.getContext("2d").getImageData(
      43 * devicePixelRatio, 11 * devicePixelRatio, 1, 1).data][0]"""
    assert plane.locator("canvas").first.evaluate(corner) > 150
    set_theme(plane.page, "Dark")
    wait_until_it_differs(plane, light)
    assert plane.locator("canvas").first.evaluate(corner) < 110
    set_theme(plane.page, "Light")
    wait_until_it_is(plane, light)


@pytest.mark.parametrize("form", ["points", "corners"])
def test_nothing_is_cut_off_and_a_drag_is_smooth(form: str, show: Callable[..., Locator]) -> None:
    more: dict = {"corners": np.random.default_rng(0).random((4, 28, 28))}
    if form == "points":
        more = {"points": np.random.default_rng(0).normal(size=(1000, 2)), "labels": [7] * 1000}
    given = LatentPlane(lambda z: torch.rand(len(z), 28, 28), title="A plane", **more)
    given.walk = True
    widget = show(given, width=700)
    for width in (684, 364):
        assert cut_off(widget, [width], "canvas, button, p, span") == []
        shown = widget.locator(".latent-image").bounding_box()
        assert shown["width"] % 28 == 0  # all pixels equally large
        assert shown["width"] >= 5 * 28
    canvas = widget.locator(".cw-stage canvas")
    assert computing_time(canvas, DRAG_IN_CIRCLES, [150, 90, ".latent-z", 30]) < 15


# -------------------------------------------------------------------------- between four images


@pytest.fixture
def square(live: Page) -> Locator:
    """The live square at its first point, decoded."""
    widget = live_widget(live, SQUARE)
    python(
        live,
        "sulk = ''; square.walk = False; square.z, square.z_end = (0.18, -0.23), (-0.18, 0.23)",
    )
    expect(shares(widget)).to_have_text(written((0.18, -0.23)))
    expect(mark(widget)).to_have_text(EXACT)
    return widget


@cache
def mixtures() -> dict:
    return cell("square")


def mixture(z: tuple[float, float]) -> np.ndarray:
    """What the gallery's square decodes at a point, [8, 8], 0 ... 255."""
    return 255 * mixtures()["mixture"](torch.tensor([z], dtype=torch.float32))[0]


def blend(z: tuple[float, float]) -> np.ndarray:
    """The bilinear blend of the square's stored images at a point."""
    grid = torch.tensor(255 * mixtures()["square"].grid).flatten(2).permute(2, 0, 1)[None]
    spot = torch.tensor(z).reshape(1, 1, 1, 2)
    return torch.nn.functional.grid_sample(grid, spot, align_corners=True).reshape(8, 8).numpy()


def shares(widget: Locator) -> Locator:
    return widget.locator(".latent-corner span")


def written(z: tuple[float, float]) -> list[str]:
    found = corner_shares(torch.tensor([z], dtype=torch.float64))[0]
    return [f"{100 * share:.0f}\u00a0%" for share in found.tolist()]


def eight(widget: Locator) -> np.ndarray:
    """The image beside the square, [8, 8], 0 ... 255."""
    return np.reshape(widget.locator(".latent-image").evaluate(LEVELS), (8, 8))


def pull(widget: Locator, start: tuple[float, float], *path: tuple[float, float]) -> None:
    """Drag the square's point along others and let it go."""
    canvas, mouse = widget.locator(".cw-stage canvas"), widget.page.mouse
    canvas.evaluate("canvas => canvas.scrollIntoView({ block: 'center' })")
    box = canvas.bounding_box()
    side = int(box["width"]) - 18
    for k, z in enumerate([start, *path]):
        mouse.move(box["x"] + 9 + (z[0] + 1) / 2 * side, box["y"] + 9 + (1 - z[1]) / 2 * side)
        if k == 0:
            mouse.down()
    mouse.up()


def test_a_drag_in_the_square_moves_the_shares(square: Locator, live: Page) -> None:
    tiles = square.locator(".latent-corner canvas")
    shown = np.reshape([tile.evaluate(LEVELS) for tile in tiles.all()], (4, 8, 8))
    np.testing.assert_allclose(shown, 255 * mixtures()["tiles"], atol=0.51)
    np.testing.assert_allclose(eight(square), mixture((0.18, -0.23)), atol=1)
    before = settle(square.locator(".cw-stage"))
    pull(square, (0.18, -0.23), (0.1, 0.3), (-0.62, 0.81))
    wait_until_it_differs(square.locator(".cw-stage"), before)
    expect(shares(square)).not_to_have_text(written((0.18, -0.23)))
    expect(mark(square)).to_have_text(EXACT)
    z = tuple(json.loads(python(live, "print(list(square.z))")))
    np.testing.assert_allclose(z, (-0.62, 0.81), atol=0.02)
    expect(shares(square)).to_have_text(written(z))
    np.testing.assert_allclose(eight(square), mixture(z), atol=1)
    # By keys, and from Python.
    square.focus()
    square.press("Shift+ArrowRight")
    square.press("ArrowDown")
    z = (z[0] + 0.5, z[1] - 0.1)
    expect(shares(square)).to_have_text(written(z))
    python(live, "square.z = (0.24, 0.9)")
    expect(shares(square)).to_have_text(written((0.24, 0.9)))
    expect(mark(square)).to_have_text(EXACT)
    np.testing.assert_allclose(eight(square), mixture((0.24, 0.9)), atol=1)
    told = square.locator(".latent-z").get_attribute("aria-valuetext")
    wanted = "top left 36 %, top right 59 %, bottom left 2 %, bottom right 3 %, decoded"
    assert told.replace("\u00a0", " ") == wanted


def test_a_corner_pressed_is_gone_to(square: Locator, live: Page) -> None:
    names = ["top left", "top right", "bottom left", "bottom right"]
    for k, name in enumerate(names):
        button = square.get_by_role("button", name=f"Go to the image at the {name}")
        if k == 3:
            button.press("Enter")
        else:
            button.click()
        expect(shares(square).nth(k)).to_have_text("100\u00a0%")
        expect(mark(square)).to_have_text(EXACT)
        np.testing.assert_allclose(eight(square), 255 * mixtures()["tiles"][k], atol=1)
    eventually(live, "list(square.z)", "[1.0, -1.0]")


def test_the_square_says_what_goes_wrong(square: Locator, live: Page) -> None:
    python(live, "sulk = 'no mood'")
    square.focus()
    square.press("ArrowLeft")
    expect(mark(square)).to_have_text("decode failed: RuntimeError: no mood")
    np.testing.assert_allclose(eight(square), blend((0.08, -0.23)), atol=1)
    python(live, "sulk = ''")


def test_without_a_kernel_the_square_blends_and_says_so(trusted: Page) -> None:
    stored = stored_widget(trusted, SQUARE)
    expect(mark(stored)).to_have_text(EXACT)
    expect(shares(stored)).to_have_text(written((0.18, -0.23)))
    np.testing.assert_allclose(eight(stored), mixture((0.18, -0.23)), atol=1)
    stored.focus()
    stored.press("ArrowLeft")
    expect(shares(stored)).to_have_text(written((0.08, -0.23)))
    expect(mark(stored)).to_have_text(f"{BLENDED}. Run this cell to decode every point.")
    np.testing.assert_allclose(eight(stored), blend((0.08, -0.23)), atol=1)
    assert np.abs(blend((0.08, -0.23)) - mixture((0.08, -0.23))).max() > 2
    stored.get_by_role("button", name="top right").click()
    expect(shares(stored)).to_have_text(written((1, 1)))
    np.testing.assert_allclose(eight(stored), 255 * mixtures()["tiles"][1], atol=1)
    stored.get_by_role("button", name="Walk").click()
    expect(stored.locator(".latent-ends")).to_have_text(
        "point ●equal steps on the straight line◆ end"
    )


def test_the_square_in_both_themes(square: Locator) -> None:
    stage = square.locator(".cw-stage")
    light, ink = settle(stage), "node => getComputedStyle(node).color"
    assert shares(square).first.evaluate(ink) == "rgb(31, 35, 40)"
    set_theme(square.page, "Dark")
    wait_until_it_differs(stage, light)
    assert shares(square).first.evaluate(ink) == "rgb(232, 234, 237)"
    set_theme(square.page, "Light")
    wait_until_it_is(stage, light)
