"""Still figures for notebooks: a matplotlib figure with the text that says what it shows."""

import base64
import html
from collections.abc import Sequence

import numpy as np
import torch
from IPython.display import HTML
from matplotlib.figure import Figure

from course_lib.checks import check_int, check_number, check_one_of
from course_lib.widgets.base import check_labels, png, to_array
from course_lib.widgets.palette import MAPS, colour_map

__all__ = ["image_grid", "show_figure"]


def show_figure(figure: Figure, *, alt: str) -> HTML:
    """The figure as a picture with alternative text, to be the last line of a notebook's cell.

    Make the figure with ``matplotlib.figure.Figure``, or close it with ``plt.close``: otherwise
    Jupyter shows it a second time, without the text.

    """
    if not isinstance(figure, Figure):
        raise ValueError(f"figure must be a matplotlib Figure, got {type(figure).__name__}")
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt must say in words what the figure shows, got {alt!r}")
    picture = base64.b64encode(png(figure, colours=128)).decode("ascii")
    return HTML(
        f'<img src="data:image/png;base64,{picture}" alt="{html.escape(alt)}" '
        'style="max-width: 100%">'
    )


def image_grid(
    images: np.ndarray | torch.Tensor,
    *,
    columns: int = 10,
    titles: Sequence[str] | None = None,
    size: float = 0.7,
    cmap: str = "grey",
) -> Figure:
    """Small images in rows, as a figure.

    Args:
        images: ``[N, H, W]`` or ``[N, 1, H, W]``, grey values; values outside [0, 1] are drawn as
            the nearest in it.
        columns: How many images stand side by side.
        titles: A name for each row, or None.
        size: Width of one image, in inches.
        cmap: ``"grey"``, ``"viridis"``, ``"signed"`` or ``"cyclic"``.

    """
    array = to_array("images", images, "[N, H, W] or [N, 1, H, W]", 3, 4)
    if array.ndim == 4:
        if array.shape[1] != 1:
            raise ValueError(f"images must have one channel, got {array.shape[1]}")
        array = array[:, 0]
    check_int("columns", columns, minimum=1)
    check_number("size", size, above=0)
    check_one_of("cmap", cmap, MAPS)
    rows = -(-len(array) // columns)
    titles = check_labels("titles", titles, rows)
    figure = Figure(figsize=(size * columns + (1.4 if titles else 0), size * rows))
    left = 1.4 / figure.get_figwidth() if titles else 0
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": left,
            "right": 1,
            "bottom": 0,
            "top": 1,
            "wspace": 0.08,
            "hspace": 0.08,
        },
    )
    for axes in grid.flat:
        axes.axis("off")
    for axes, image in zip(grid.flat, array, strict=False):
        axes.imshow(image, cmap=colour_map(cmap), vmin=0, vmax=1)
    for row, title in zip(grid, titles, strict=False):
        row[0].text(-0.12, 0.5, title, ha="right", va="center", transform=row[0].transAxes)
    return figure
