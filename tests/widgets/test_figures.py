"""Still figures: they carry their text, and image grids show every image in its place."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from course_lib.widgets import image_grid, show_figure


def picture(shown):
    """The PNG inside a shown figure, as an RGB array."""
    found = re.search(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"', shown.data)
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


def test_rows_carry_their_titles():
    figure = image_grid(torch.rand(4, 1, 8, 8), columns=2, titles=["first", "second"])
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["first", "second"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.rand(8, 8)}, "images must have shape [N, H, W] or [N, 1, H, W]"),
        ({"images": torch.rand(2, 3, 8, 8)}, "images must have one channel, got 3"),
        ({"columns": 0}, "columns must be an integer of at least 1, got 0"),
        ({"cmap": "jet"}, "cmap must be one of cyclic, grey, signed, viridis, got 'jet'"),
        ({"titles": ["a"]}, "titles must be 2 strings, got ['a']"),
    ],
)
def test_bad_grids_are_named(change, message):
    arguments = {"images": torch.rand(4, 8, 8), "columns": 2, **change}
    with pytest.raises(ValueError, match=re.escape(message)):
        image_grid(arguments.pop("images"), **arguments)
