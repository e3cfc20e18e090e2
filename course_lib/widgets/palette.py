"""The course's colours, for widgets and figures alike.

``base.js`` holds the same values for the browser; a test compares the two.
"""

from matplotlib.colors import Colormap, LinearSegmentedColormap

from course_lib.checks import check_one_of

__all__ = ["CLASS_COLOURS", "MAPS", "PALETTE", "colour_map"]

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

# One colour for each of ten classes, such as the digits, on light pages and on dark ones. Letters
# in it keep a contrast of at least 4.5 : 1 against the page. Write the class as well: ten colours
# are more than anyone can tell apart.
CLASS_COLOURS: dict[str, list[str]] = {
    "light": [
        *("#1f6fb4", "#b05600", "#1b7f3b", "#c8242f", "#7a4fb5", "#7b5147", "#b8308a", "#5c636b"),
        *("#726a00", "#007a88"),
    ],
    "dark": [
        *("#6fb1ea", "#f19a4a", "#63c97f", "#f77f7f", "#b79bed", "#c9a193", "#ee86c5", "#b3bac2"),
        *("#cfc44a", "#4fcbd8"),
    ],
}


def colour_map(name: str) -> Colormap:
    """The colour map ``"viridis"``, ``"signed"`` or ``"grey"`` for matplotlib."""
    check_one_of("name", name, MAPS)
    return LinearSegmentedColormap.from_list(f"course_{name}", MAPS[name])
