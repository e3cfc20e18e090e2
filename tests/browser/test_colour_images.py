"""Images in red, green and blue, in every widget that shows sheets of images: in a real browser."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page

from course_lib.widgets import CourseWidget, ImagePlayer, OperatingPoint, SampleTable
from tests.browser.harness import pixels

# Three images of one colour each, which are not to be taken for one another.
COLOURS = np.array([[255, 51, 0], [10, 204, 77], [26, 102, 254]])
IMAGES = np.broadcast_to(COLOURS[:, :, None, None] / 255, (3, 3, 6, 5))


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (4, 5, 6)])
def test_a_stack_is_painted_image_by_image(
    functions_of: Callable[[str, str], Page], shape: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape)
    page = functions_of("sample_table.js", "imageStack")
    painted = page.evaluate(
        """([shape, values]) => {
          const { canvas, count, size, paint } = parts.imageStack(shape);
          paint(values);
          const { width, height } = canvas;
          return [count, size, [...canvas.getContext("2d").getImageData(0, 0, width, height).data]];
        }""",
        [list(shape), values.ravel().tolist()],
    )
    assert painted[:2] == [4, [5, 6]]
    found = np.array(painted[2]).reshape(4, 5, 6, 4)
    colours = values if values.ndim == 4 else np.repeat(values[:, None], 3, 1)
    np.testing.assert_array_equal(found[..., :3], np.moveaxis(colours, 1, -1))
    assert (found[..., 3] == 255).all()


@pytest.mark.parametrize(
    "widget",
    [
        SampleTable(IMAGES[None, None], ("steps", [5]), ("w", [1])),
        OperatingPoint({"ours": [[1, 2]]}, {"ours": [IMAGES]}, x_label="w", y_label="fidelity"),
        ImagePlayer(np.stack([IMAGES, 1 - IMAGES])),
    ],
    ids=lambda widget: type(widget).__name__,
)
def test_every_image_has_its_colour(show: Callable[..., Locator], widget: CourseWidget) -> None:
    picture = pixels(show(widget))
    shares = [(picture == colour).all(-1).sum() for colour in COLOURS]
    assert min(shares) > 1000
    assert max(shares) - min(shares) < 0.05 * max(shares)


def test_an_image_player_mixes_colours_between_two_steps(show: Callable[..., Locator]) -> None:
    player = ImagePlayer(np.stack([IMAGES, np.zeros_like(IMAGES)]))
    player.step = 0.5
    picture = pixels(show(player))
    for colour in COLOURS:
        assert (np.abs(picture - colour / 2).max(-1) <= 1).sum() > 1000
