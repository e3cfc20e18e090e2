"""PointCloud in a real browser: turned and zoomed, each point where the projection puts it.

What it shares with the other players is tested in test_players.py.
"""

import json
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import PALETTE, PointCloud, colour_map
from course_lib.widgets.point_cloud import FITS, project
from tests.browser.gallery import GALLERY
from tests.browser.harness import (
    computing_time,
    cut_off,
    fingerprint,
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

CELL = list(GALLERY).index("cloud") + 1
BOX = (-1.0, 1.0) * 3


@pytest.fixture(params=["live", "stored"])
def cloud(request: pytest.FixtureRequest, live: Page, trusted: Page) -> Locator:
    """The widget as it is first seen."""
    widget = live_widget(live, CELL) if request.param == "live" else stored_widget(trusted, CELL)
    widget.focus()
    press_keys(widget, ["Home", "0"])
    settle(widget)
    return widget


def turn(widget: Locator, right: float, down: float) -> None:
    """Drag the picture by so many pixels."""
    canvas = widget.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box, mouse = canvas.bounding_box(), widget.page.mouse
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + right, y + down, steps=4)
    mouse.up()


def test_it_is_turned_by_mouse_and_keys_and_comes_back(cloud: Locator) -> None:
    first = settle(cloud)
    turn(cloud, 60, -20)
    wait_until_it_differs(cloud, first)
    turned = settle(cloud)
    cloud.get_by_role("button", name="Reset view").click()
    wait_until_it_is(cloud, first)
    # Half a degree a pixel; a key is five degrees.
    press_keys(cloud, ["d"] * 6 + ["s", "S"])
    wait_until_it_is(cloud, turned)
    press_keys(cloud, ["a"] * 6 + ["w"] * 2)
    wait_until_it_is(cloud, first)
    press_keys(cloud, ["+"])
    wait_until_it_differs(cloud, first)
    press_keys(cloud, ["0"])
    wait_until_it_is(cloud, first)


def test_turning_does_not_move_the_step(cloud: Locator) -> None:
    press_keys(cloud, ["ArrowRight", "d", "w", "+"])
    expect(cloud.locator(".cw-readout")).to_have_text("1 / 4")


def test_python_drives_the_view_and_reads_it_back(live: Page) -> None:
    widget = live_widget(live, CELL)
    python(live, "cloud.step = 0.0")
    press_keys(widget, ["0"])
    before = settle(widget)
    python(live, "cloud.yaw, cloud.pitch, cloud.zoom = -60.0, 45.0, 2.0")
    wait_until_it_differs(widget, before)
    settle(widget)
    turn(widget, 100, -50)
    told = "import json; print(json.dumps([cloud.yaw, cloud.pitch, cloud.zoom]))"
    wait_for_python(live, told, json.dumps([-10.0, 20.0, 2.0]))
    turn(widget, -400, -300)  # around, and no farther than straight from below
    wait_for_python(live, told, json.dumps([150.0, -90.0, 2.0]))
    assert "pitch must be an angle" in python(live, "cloud.pitch = 91.0")
    press_keys(widget, ["0"])
    wait_for_python(live, told, json.dumps([30.0, 20.0, 1.0]))


# ---------------------------------------------------------------------------------- in a plain page


def dot(widget: Locator, role: str = "model") -> tuple[np.ndarray, int]:
    """The middle of an orange dot as it was projected, (across, up), and how many pixels it has."""
    picture = pixels(widget)
    height, width, _ = picture.shape
    orange = picture[..., 0] - picture[..., 2] > 40
    rows, columns = np.where(orange)
    middle = np.array([columns.mean() + 0.5 - width / 2, height / 2 - rows.mean() - 0.5])
    return middle / (height / 2 / FITS), len(rows)


def one_point(place: tuple[float, float, float]) -> PointCloud:
    return PointCloud(np.array(place).reshape(1, 1, 3), role="model", extent=BOX)


@pytest.mark.parametrize("place", [(0.9, 0.2, -0.4), (-0.3, 0.8, 0.7)])
def test_a_point_is_where_the_projection_puts_it(
    show: Callable[..., Locator], place: tuple[float, float, float]
) -> None:
    root = show(one_point(place))

    def check(yaw: float, pitch: float) -> None:
        wanted, _ = project(np.array(place), yaw, pitch)
        np.testing.assert_allclose(dot(root)[0], wanted, atol=0.012)  # of 1.75: about a pixel

    root.focus()
    check(30, 20)
    press_keys(root, ["d"] * 4 + ["w"] * 3)
    check(50, 35)
    press_keys(root, ["a"] * 20 + ["s"] * 12)
    check(-50, -25)
    press_keys(root, ["w"] * 30)
    check(-50, 90)
    turn(root, 120, -160)
    check(10, 10)


def test_what_is_closer_is_larger_and_covers_what_is_behind(show: Callable[..., Locator]) -> None:
    near, far = one_point((0, -1, 0)), one_point((0, 1, 0))
    for widget in (near, far):
        widget.yaw = widget.pitch = 0.0
    assert dot(show(near))[1] > 1.5 * dot(show(far))[1]
    # Two points behind each other: whichever is closer is seen, in either order of the data.
    for flip in (1, -1):
        pair = PointCloud(
            np.array([[[0, -0.8, 0], [0, 0.8, 0]]])[:, ::flip], color=[0, 1][::flip], extent=BOX
        )
        for yaw, seen in ((0.0, 0), (180.0, 1)):
            pair.yaw, pair.pitch = yaw, 0.0
            picture = pixels(show(pair))
            side = picture.shape[0] / 0.86  # the box; a colour bar stands to its right
            found = picture[picture.shape[0] // 2, round(side / 2)]
            wanted = 255 * np.array(colour_map("viridis")(float(seen))[:3])
            assert np.abs(found - wanted).max() < 60


def test_the_wheel_zooms_only_where_the_focus_is(show: Callable[..., Locator]) -> None:
    more = {"before": "<button>outside</button><br>", "after": "<div style='height: 2000px'>"}
    root = show(one_point((0.5, 0.3, 0.2)), **more)
    page = root.page
    start = fingerprint(root)
    outside = page.get_by_role("button", name="outside")
    outside.focus()
    box = root.bounding_box()
    page.mouse.move(box["x"] + 250, box["y"] + 200)
    page.mouse.wheel(0, 60)
    page.wait_for_function("() => window.scrollY > 0")  # the page goes on
    assert settle(root) == start
    page.evaluate("window.scrollTo(0, 0)")
    before, _ = dot(root)
    root.focus()
    page.mouse.wheel(0, -200)
    wait_until_it_differs(root, start)
    assert page.evaluate("window.scrollY") == 0
    np.testing.assert_allclose(dot(root)[0], np.exp(0.3) * before, atol=0.03)


def test_a_still_cloud_has_nothing_to_play(show: Callable[..., Locator]) -> None:
    root = show(one_point((0, 0, 0)))
    expect(root.get_by_role("button", name="Play")).to_be_hidden()
    expect(root.get_by_role("button", name="Reset view")).to_be_visible()
    moving = show(PointCloud(np.zeros((2, 3, 3)), role="noise"))
    expect(moving.get_by_role("button", name="Play")).to_be_visible()


def test_points_have_the_colour_of_their_role(show: Callable[..., Locator]) -> None:
    for role in ("data", "noise"):
        widget = PointCloud(np.zeros((1, 1, 3)), role=role, extent=BOX)
        picture = pixels(show(widget))
        found = picture[picture.shape[0] // 2, picture.shape[1] // 2]
        full = np.array([int(PALETTE[role][k : k + 2], 16) for k in (1, 3, 5)])
        paper = np.array([251, 252, 253])
        # Half way into the box it is 30 % paper, and a dot lets a tenth through.
        assert np.abs(found - (0.63 * full + 0.37 * paper)).max() < 25


# How long the page's own frames are, in ms, while the cloud is turned and the time is scrubbed.
MOVE = """async widget => {
  const canvas = widget.querySelector("canvas");
  const slider = widget.querySelector("input[type=range]");
  canvas.setPointerCapture = () => {};
  const fire = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {
    clientX: 200 + x, clientY: 200 + y, button: 0, pointerId: 1, bubbles: true
  }));
  fire("pointerdown", 0, 0);
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 60; k++) {
    fire("pointermove", 3 * k, 60 * Math.sin(k / 9));
    slider.value = String((k / 7) % 11);
    slider.dispatchEvent(new Event("input"));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  fire("pointerup", 0, 0);
  return took.sort((a, b) => a - b);
}"""


def test_it_fits_any_width_and_turns_smoothly(show: Callable[..., Locator]) -> None:
    rng = np.random.default_rng(0)
    path = rng.normal(size=(12, 2000, 3))
    widget = show(
        PointCloud(path, color=path[0, :, 0], color_label="the first coordinate", title="Large")
    )
    assert computing_time(widget, MOVE) < 15  # about 5 ms
    parts = "canvas, button, p, .cw-controls"
    assert cut_off(widget, (320, 340, 480, 560, 700), parts) == []
