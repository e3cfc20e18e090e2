"""Players with a second panel: both play in step, and trails lie where the points have been."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator

from course_lib.widgets import PALETTE, ImagePlayer, ParticlePlayer
from tests.browser.harness import computing_time, settle

EXTENT = (-3, 3, -3, 3)
PATH = np.random.default_rng(0).normal(size=(5, 100, 2)).cumsum(0) / 2

# The colours [r, g, b] at places [x, y] of the canvas, in CSS pixels.
COLOURS = """(widget, places) => {
  const canvas = widget.querySelector("canvas");
  const ctx = canvas.getContext("2d");
  const ratio = canvas.width / canvas.clientWidth;
  return places.map(([x, y]) => [...ctx.getImageData(x * ratio, y * ratio, 1, 1).data].slice(0, 3));
}"""

# A number that changes when any pixel of the box [x, y, w, h] of the canvas does.
PART = """(widget, box) => {
  const { data } = widget.querySelector("canvas").getContext("2d").getImageData(...box);
  return data.reduce((hash, level) => Math.imul(hash ^ level, 16777619) >>> 0, 2166136261);
}"""

# How long the page computes for a frame while the slider is dragged, and how far apart frames are.
SCRUB = """async widget => {
  const slider = widget.querySelector("input");
  const took = [];
  let before = await new Promise(requestAnimationFrame);
  for (let k = 0; k < 120; k += 2) {
    slider.value = String((k * 0.37) % Number(slider.max));
    slider.dispatchEvent(new Event("input"));
    const now = await new Promise(requestAnimationFrame);
    took.push(now - before);
    before = now;
  }
  return took.sort((a, b) => a - b);
}"""


def canvas_width(player: Locator) -> int:
    return player.locator("canvas").evaluate("canvas => canvas.clientWidth")


def boxes(player: Locator, right: int = 10) -> list[tuple[int, int, int]]:
    """x, y and side of the two square plots: side by side, or one below the other."""
    width = canvas_width(player)
    if width < 460:
        side = width - 36 - right
        return [(36, 24, side), (36, 24 + side + 48, side)]
    side = (width - 36 - right - 46) // 2
    return [(36, 24, side), (36 + side + 46, 24, side)]


def pixel(box: tuple[int, int, int], x: float, y: float) -> list[float]:
    left, top, side = box
    return [left + (x + 3) / 6 * side, top + (3 - y) / 6 * side]


def colours(player: Locator, places: list[list[float]]) -> np.ndarray:
    return np.array(player.evaluate(COLOURS, places))


def rgb(role: str) -> list[int]:
    return [int(PALETTE[role][k : k + 2], 16) for k in (1, 3, 5)]


# ------------------------------------------------------------------------------------------ points


@pytest.mark.parametrize("width", [800, 356])
def test_the_same_points_look_the_same_in_both_panels(
    show: Callable[..., Locator], width: int
) -> None:
    same = ParticlePlayer(PATH, beside=PATH, titles=("left", "right"), extent=EXTENT)
    player = show(same, width=width)
    player.focus()
    seen = []
    for key in ("Home", "ArrowRight", "End"):
        player.press(key)
        settle(player)
        parts = [
            player.evaluate(PART, [x + 2, y + 2, side - 4, side - 4])
            for x, y, side in boxes(player)
        ]
        assert parts[0] == parts[1]
        seen.append(parts[0])
    assert seen[0] != seen[1] != seen[2]


@pytest.mark.parametrize("width", [800, 356])
def test_each_panel_has_its_points_in_its_colour(show: Callable[..., Locator], width: int) -> None:
    left = np.linspace([[-2, 1]], [[2, 1]], 5)  # one point that goes to the right
    right = np.linspace([[0, 2]], [[0, -2]], 5)  # and one that goes down
    player = show(
        ParticlePlayer(left, beside=right, extent=EXTENT, titles=("a", "b"), beside_role="model"),
        width=width,
    )
    player.focus()
    player.press("ArrowRight")
    settle(player)
    first, second = boxes(player)
    at = [pixel(first, -1, 1), pixel(second, 0, 1), pixel(first, 0, 1), pixel(second, -1, 1)]
    found = colours(player, at)
    np.testing.assert_allclose(found[0], rgb("data"), atol=35)
    np.testing.assert_allclose(found[1], rgb("model"), atol=35)
    assert found[2:].min() > 245  # nothing is there


@pytest.mark.parametrize("background", ["white", "#111"])
def test_trails_are_strong_as_far_as_they_are_travelled(
    show: Callable[..., Locator], background: str
) -> None:
    points = np.zeros((5, 1, 2))
    # To the right, in two steps; and in the second panel there and back, in four.
    one = np.array([[-2, 1], [0, 1], [2, 1]])[:, None]
    two = np.array([[-2, -1], [2, -1], [-2, -1], [-2, 1], [2, 1]])[:, None]
    player = show(
        ParticlePlayer(
            points, beside=points, trails=one, beside_trails=two, titles=("a", "b"),
            extent=EXTENT, role="model",
        ),
        style=f"background: {background}",
    )  # fmt: skip
    player.focus()
    player.press("ArrowRight")  # a quarter of the time
    settle(player)
    first, second = boxes(player)

    def from_role(box: tuple[int, int, int], x: float, y: float) -> int:
        """How far the colour nearest to that of the model is from it, up to a pixel away."""
        at = pixel(box, x, y)
        near = colours(player, [[at[0], at[1] + k] for k in (-1, 0, 1)])
        return int(np.abs(near - rgb("model")).max(1).min())

    strong = [(first, -1.6, 1), (first, -1, 1), (second, -1.6, -1), (second, 1.6, -1)]
    faint = [(first, -0.5, 1), (first, 1.6, 1), (second, -1.6, 1), (second, 1.6, 1)]
    assert max(from_role(*place) for place in strong) < 40
    assert min(from_role(*place) for place in faint) > 45
    assert max(from_role(*place) for place in faint) < 190  # but a line is there
    assert from_role(first, 0, -1.5) > 190
    # The dot that has been there is at the end of its trail, not at the point itself.
    dot = colours(player, [pixel(first, -1, 1.04), pixel(second, 2, -0.96), pixel(first, 0, 0)])
    np.testing.assert_allclose(dot[:2], [rgb("model")] * 2, atol=5)
    assert np.abs(dot[2] - rgb("model")).max() > 150


def test_two_panels_of_two_thousand_points_are_smooth(show: Callable[..., Locator]) -> None:
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(16, 2000, 2))
    trails = rng.normal(size=(200, 8, 2)).cumsum(0) / 8
    player = show(
        ParticlePlayer(cloud, beside=cloud[::-1], trails=trails, beside_trails=trails[::-1])
    )
    assert computing_time(player, SCRUB) < 16


# ------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize("width", [800, 356])
@pytest.mark.parametrize(("columns", "below"), [(4, True), (2, False)])
def test_images_stand_above_or_beside_each_other(
    show: Callable[..., Locator], width: int, columns: int, *, below: bool
) -> None:
    level = np.linspace(0.1, 0.9, 5)[:, None] + 0.02 * np.arange(4)
    images = np.broadcast_to(level[..., None, None], (5, 4, 4, 4))
    player = show(
        ImagePlayer(images, beside=images[::-1], titles=("a", "b"), columns=columns), width=width
    )
    player.focus()
    player.press("ArrowRight")
    settle(player)
    total = canvas_width(player)
    beside = not below and total >= 440
    room = (total - 24) / 2 if beside else total
    cell = int(min((room - 6 * (columns - 1)) / columns, 64))
    left = int((room - columns * cell - 6 * (columns - 1)) / 2)
    down = 4 // columns * (cell + 6)
    second = (int(room + 24), 0) if beside else (0, down + 24)
    places = [
        [
            left + right + i % columns * (cell + 6) + cell / 2,
            24 + lower + i // columns * (cell + 6) + cell / 2,
        ]
        for right, lower in ((0, 0), second)
        for i in range(4)
    ]
    wanted = 255 * np.concatenate([images[1, :, 0, 0], images[3, :, 0, 0]])
    np.testing.assert_allclose(colours(player, places)[:, 0], wanted, atol=1.5)
