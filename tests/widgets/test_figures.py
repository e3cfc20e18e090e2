"""Still figures: they carry their text, and image grids show every image in its place."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from course_lib.widgets import PALETTE, image_grid, show_figure


def picture(shown, theme="light"):
    """The PNG inside a shown figure, as an RGB array."""
    start = {"light": 'src="', "dark": r"--dark: url\("}[theme]
    found = re.search(start + r'data:image/png;base64,([A-Za-z0-9+/=]+)[)"]', shown.data)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB"))


def test_a_shown_figure_is_one_picture_with_its_text():
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [1, 0])
    shown = show_figure(figure, alt='a line that "falls" & ends')
    assert shown.data.count("<img") == 1
    assert 'alt="a line that &quot;falls&quot; &amp; ends"' in shown.data
    pixels = picture(shown)
    assert pixels.shape == (200, 300, 3)
    assert pixels.std() > 0


def test_on_a_dark_page_ink_and_ground_change_places_and_data_stay():
    figure = Figure(figsize=(4, 2))
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color=PALETTE["model"], lw=6)
    left.annotate("here", (0.2, 0.8), (0.9, 0.1), arrowprops={"arrowstyle": "->"})
    right.imshow(np.array([[0, 1], [1, 0]]), cmap="Greys", aspect="auto")
    right.text(0, 0, "white on black", color="black")
    figure.canvas.draw()
    x0, y0, x1, y1 = right.get_window_extent().padded(-2).extents.astype(int)
    shown = show_figure(figure, alt="x")
    light, dark = picture(shown), picture(shown, "dark")
    assert light.shape == dark.shape
    np.testing.assert_array_equal(light[2, 2], [255, 255, 255])
    np.testing.assert_allclose(dark[2, 2], [17, 17, 17], atol=3)
    orange = [int(PALETTE["model"][k : k + 2], 16) for k in (1, 3, 5)]
    for one in (light, dark):
        assert (np.abs(one.astype(int) - orange).max(-1) < 12).sum() > 300
    inside, outside = np.zeros((2, *dark.shape[:2]), bool)
    inside[200 - y1 : 200 - y0, x0:x1] = True
    outside[:, : x0 - 30] = True
    np.testing.assert_allclose(dark[inside], light[inside], atol=25)  # an image is what it is
    levels = dark[outside].max(-1)
    assert levels[levels < 40].size > 0.5 * levels.size
    assert (dark[outside].max(-1) < 12).sum() == 0  # nothing black is left on the dark page
    assert (dark[outside].min(-1) > 200).sum() > 100
    assert show_figure(figure, alt="x").data == shown.data  # the figure is as it was


def test_words_beside_an_image_are_light_on_a_dark_page():
    grid = image_grid(np.zeros((2, 4, 4)), columns=2, titles=["a row"])
    shown = show_figure(grid, alt="x")
    width = grid.axes[0].get_window_extent().x0.astype(int) - 3
    beside = picture(shown, "dark")[:, :width].max(-1)
    assert (beside > 180).sum() > 20
    assert beside.min() > 12


@pytest.mark.parametrize(
    ("figure", "alt", "message"),
    [
        (None, "x", "figure must be a matplotlib Figure, got NoneType"),
        (Figure(), "", "alt must say in words what the figure shows, got ''"),
        (Figure(), "  ", "alt must say in words what the figure shows, got '  '"),
        (Figure(), None, "alt must say in words what the figure shows, got None"),
    ],
)
def test_bad_figures_are_named(figure, alt, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        show_figure(figure, alt=alt)


def test_an_image_grid_shows_every_image_in_its_place():
    images = torch.tensor([0.0, 0.5, 1.0, 2.0, -1.0])[:, None, None].expand(5, 4, 4)
    figure = image_grid(images, columns=3, size=1.0)
    assert tuple(figure.get_size_inches()) == (3, 2)
    pixels = picture(show_figure(figure, alt="squares"))
    shades = [int(pixels[y, x, 0]) for y in (50, 150) for x in (50, 150, 250)]
    assert shades[0] < 8
    assert abs(shades[1] - 128) < 8
    assert shades[2] > 247
    assert shades[3] > 247, "what is above 1 is drawn white"
    assert shades[4] < 8, "what is below 0 is drawn black"
    assert shades[5] == 255, "an empty place stays blank"


def test_an_image_grid_shows_colours():
    red, beyond = torch.zeros(2, 3, 4, 4)
    red[0], beyond[2] = 1.0, 3.0
    pixels = picture(show_figure(image_grid(torch.stack([red, beyond]), size=1.0), alt="squares"))
    assert (pixels[50, 50, :3] > 247).tolist() == [True, False, False]
    assert (pixels[50, 150, :3] > 247).tolist() == [False, False, True]


def test_rows_carry_their_titles():
    figure = image_grid(torch.rand(4, 1, 8, 8), columns=2, titles=["first", "second"])
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["first", "second"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.rand(8, 8)}, "images must have shape [N, H, W] or [N, 1 or 3, H, W]"),
        ({"images": torch.rand(2, 2, 8, 8)}, "images must have one channel or three, got 2"),
        ({"columns": 0}, "columns must be an integer of at least 1, got 0"),
        ({"cmap": "jet"}, "cmap must be one of cyclic, grey, signed, viridis, got 'jet'"),
        ({"titles": ["a"]}, "titles must be 2 strings, got ['a']"),
    ],
)
def test_bad_grids_are_named(change, message):
    arguments = {"images": torch.rand(4, 8, 8), "columns": 2, **change}
    with pytest.raises(ValueError, match=re.escape(message)):
        image_grid(arguments.pop("images"), **arguments)
