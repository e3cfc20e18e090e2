"""The course's colours, for widgets and figures alike: ``parts/palette.json``, which the browser
reads, too.
"""

import json
from pathlib import Path

from matplotlib.colors import Colormap, LinearSegmentedColormap

from course_lib.checks import check_one_of

__all__ = ["CLASS_COLOURS", "MAPS", "PALETTE", "THEMES", "colour_map"]

_COLOURS = json.loads((Path(__file__).parent / "parts" / "palette.json").read_text("utf-8"))

# The same colours mean the same things throughout. Each keeps a contrast of at least 3 : 1 against
# white and against a dark page.
PALETTE: dict[str, str] = _COLOURS["roles"]

# Evenly spaced anchors, mixed linearly. "signed" is balanced: both ends are equally dark. "cyclic"
# ends where it begins; opposite angles differ for colour-blind readers, too, and all of it is seen
# on light and on dark plots.
MAPS: dict[str, list[str]] = _COLOURS["maps"]

# One colour for each of ten classes, such as the digits, on light pages and on dark ones. Letters
# in it keep a contrast of at least 4.5 : 1 against the page. Write the class as well: ten colours
# are more than anyone can tell apart.
CLASS_COLOURS: dict[str, list[str]] = _COLOURS["classes"]

# What widgets draw with on light pages and on dark ones. ``words`` are the colours of the palette
# for text, with a contrast of at least 4.5 : 1.
THEMES: dict[str, dict] = _COLOURS["themes"]


def colour_map(name: str) -> Colormap:
    """The colour map ``"viridis"``, ``"signed"``, ``"cyclic"`` or ``"grey"`` for matplotlib."""
    check_one_of("name", name, MAPS)
    return LinearSegmentedColormap.from_list(f"course_{name}", MAPS[name])
