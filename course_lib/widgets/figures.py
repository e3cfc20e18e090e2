"""Still figures for notebooks: a matplotlib figure with the text that says what it shows."""

import base64
import html
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from IPython.display import HTML
from matplotlib.artist import Artist
from matplotlib.collections import Collection, QuadMesh
from matplotlib.colors import to_rgb, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text

from course_lib.checks import check_int, check_number, check_one_of
from course_lib.widgets.base import check_labels, drawn, png, to_array
from course_lib.widgets.palette import CLASS_COLOURS, MAPS, PALETTE, THEMES, colour_map

__all__ = ["image_grid", "show_figure"]


def show_figure(figure: Figure, *, alt: str) -> HTML:
    """The figure as a picture with alternative text, to be the last line of a notebook's cell.

    On the dark pages of JupyterLab and VS Code it has a dark ground and light ink.

    Make the figure with ``matplotlib.figure.Figure``, or close it with ``plt.close``: otherwise
    Jupyter shows it a second time, without the text.

    """
    if not isinstance(figure, Figure):
        raise ValueError(f"figure must be a matplotlib Figure, got {type(figure).__name__}")
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt must say in words what the figure shows, got {alt!r}")
    light = _encoded(figure)
    with _on_a_dark_page(figure):
        dark = _encoded(figure)
    # Where a page keeps no style, as on GitHub, the light picture stands; so it does on paper. Each
    # picture carries its dark form, so that the rule, which holds for the whole page, is the same
    # for all of them.
    pages = (f"{page} .course-figure" for page in ("[data-jp-theme-light=false]", ".vscode-dark"))
    return HTML(
        f'<img class="course-figure" src="{light}" alt="{html.escape(alt)}" '
        f'style="max-width: 100%; --dark: url({dark})">'
        f"<style>@media screen {{ {', '.join(pages)} {{ content: var(--dark); }} }}</style>"
    )


def _encoded(figure: Figure) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(figure, colours=128)).decode('ascii')}"


@contextmanager
def _on_a_dark_page(figure: Figure) -> Iterator[None]:
    """Turn black into the dark theme's ink, white into its ground and the greys between, for now.

    Colours stay, but for those of words. So does what is drawn over an image, which stays itself.
    """
    undo: list[tuple[Callable, object]] = []

    def turn(artist: Artist, which: str) -> None:
        old = getattr(artist, f"get_{which}")()
        colours = to_rgba_array(old)
        new = np.array([_turned(colour, isinstance(artist, Text)) for colour in colours])
        if (new != colours).any():
            put = getattr(artist, f"set_{which}")
            undo.append((put, old))
            put(new if isinstance(artist, Collection) else new[0])

    over = {
        id(artist)
        for axes in figure.axes
        if axes.images or any(isinstance(one, QuadMesh) for one in axes.collections)
        for artist in (*axes.texts, *axes.lines, *axes.patches, *axes.collections)
        # Words may stand beside the image.
        if not isinstance(artist, Text) or axes.bbox.overlaps(artist.get_window_extent())
    }
    try:
        artists = figure.findobj(lambda artist: id(artist) not in over)
        arrows = [one.arrow_patch for one in artists if getattr(one, "arrow_patch", None)]
        for artist in artists + arrows:
            for kind, colours in _COLOURS_OF.items():
                if isinstance(artist, kind):
                    for which in colours:
                        turn(artist, which)
        yield
    finally:
        for put, old in undo:
            put(old)


_COLOURS_OF: dict[type[Artist], tuple[str, ...]] = {
    Text: ("color",),
    Patch: ("facecolor", "edgecolor"),
    Line2D: ("color", "markerfacecolor", "markeredgecolor"),
    Collection: ("facecolor", "edgecolor"),
}
_PAGE = np.array(to_rgb("#111111"))  # JupyterLab's
_INK = np.array(to_rgb(THEMES["dark"]["ink"]))
_WORDS = {
    to_rgb(before[role]): to_rgb(THEMES["dark"]["words"][role])
    for role in PALETTE
    for before in (PALETTE, THEMES["light"]["words"])
} | {to_rgb(a): to_rgb(b) for a, b in zip(*CLASS_COLOURS.values(), strict=True)}


def _turned(colour: np.ndarray, is_text: bool) -> np.ndarray:
    """One RGBA colour as it is on a dark page."""
    level, alpha = colour[:3], colour[3]
    if is_text and tuple(level) in _WORDS:
        return np.array([*_WORDS[tuple(level)], alpha])
    if alpha == 0 or np.ptp(level) > 0.1:
        return colour
    return np.array([*(_INK + (_PAGE - _INK) * level.mean()), alpha])


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
        images: ``[N, H, W]`` or ``[N, 1, H, W]``, grey values, or ``[N, 3, H, W]``, colours; values
            outside [0, 1] are drawn as the nearest in it.
        columns: How many images stand side by side.
        titles: A name for each row, or None.
        size: Width of one image, in inches.
        cmap: ``"grey"``, ``"viridis"``, ``"signed"`` or ``"cyclic"``.

    """
    array = to_array("images", images, "[N, H, W] or [N, 1 or 3, H, W]", 3, 4)
    if array.ndim == 4:
        if array.shape[1] not in (1, 3):
            raise ValueError(f"images must have one channel or three, got {array.shape[1]}")
        array = array[:, 0] if array.shape[1] == 1 else array.clip(0, 1)
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
        axes.imshow(drawn(image), cmap=colour_map(cmap), vmin=0, vmax=1)
    for row, title in zip(grid, titles, strict=False):
        row[0].text(-0.12, 0.5, title, ha="right", va="center", transform=row[0].transAxes)
    return figure
