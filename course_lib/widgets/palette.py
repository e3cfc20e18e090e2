"""The course's colours, for widgets and figures alike.

``base.js`` holds the same values for the browser; a test compares the two.
"""

from matplotlib.colors import Colormap, LinearSegmentedColormap

from course_lib.checks import check_one_of

__all__ = ["MAPS", "PALETTE", "colour_map"]

# The same colours mean the same things throughout. Each keeps a contrast of at least 3 : 1 against
# white and against a dark page.
PALETTE: dict[str, str] = {
    "data": "#2b7bba",
    "noise": "#858b94",
    "model": "#d9730d",
    "latent": "#1f9a6e",
    "error": "#cc4b9b",
}

# Evenly spaced anchors, mixed linearly. "signed" is balanced: both ends are equally dark.
MAPS: dict[str, list[str]] = {
    "viridis": [
        *("#440154", "#48186a", "#472d7b", "#424086", "#3b528b", "#33638d", "#2c728e", "#26828e"),
        *("#21918c", "#1fa088", "#28ae80", "#3fbc73", "#5ec962", "#84d44b", "#addc30", "#d8e219"),
        "#fde725",
    ],
    "signed": ["#1c62b0", "#5f9bd8", "#c8c8c8", "#dd8033", "#a84300"],
    "grey": ["#000000", "#ffffff"],
}


def colour_map(name: str) -> Colormap:
    """The colour map ``"viridis"``, ``"signed"`` or ``"grey"`` for matplotlib."""
    check_one_of("name", name, MAPS)
    return LinearSegmentedColormap.from_list(f"course_{name}", MAPS[name])
