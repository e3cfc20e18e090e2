"""Every widget whose picture is a canvas follows JupyterLab from light to dark and back.

One turn of the theme for all of them: a turn takes JupyterLab longer than a widget.
"""

import pytest
from playwright.sync_api import Locator, Page

from tests.browser.gallery import GALLERY
from tests.browser.harness import (
    cell_output,
    live_widget,
    set_theme,
    settle,
    stored_frame,
    wait_until_it_differs,
    wait_until_it_is,
)

NAMES = [
    "particles",
    "panels",
    "images",
    "warp",
    "inpaint",
    "masks",
    "field",
    "cloud",
    "dissolve",
    "arrows",
    "fan",
    "langevin",
    "table",
]
LIGHT, DARK = "rgb(31, 35, 40)", "rgb(232, 234, 237)"


@pytest.mark.parametrize("form", ["live", "stored"])
def test_pictures_and_words_turn_with_the_theme_and_back(
    form: str, live: Page, trusted: Page
) -> None:
    page = live if form == "live" else trusted

    def widget(name: str) -> Locator:
        cell = list(GALLERY).index(name) + 1
        if form == "live":
            return live_widget(page, cell)
        # Out of view, an iframe gets no frames.
        cell_output(page, cell).evaluate("node => node.scrollIntoView({ block: 'center' })")
        return stored_frame(page, cell).locator(".course-widget")

    def looks(before: dict[str, tuple[str, int, float]]) -> dict[str, tuple[str, int, float]]:
        found = {}
        for name in NAMES:
            one = widget(name)
            if before:
                wait_until_it_differs(one, before[name][1])
            ink = one.evaluate("root => getComputedStyle(root).color")
            found[name] = (ink, settle(one), one.bounding_box()["height"])
        return found

    page.mouse.move(0, 0)
    light = looks({})
    set_theme(page, "Dark")
    dark = looks(light)
    set_theme(page, "Light")
    for name in NAMES:
        assert light[name][0] == LIGHT
        assert dark[name][0] == DARK
        wait_until_it_is(widget(name), light[name][1])
        # The turn has not folded it.
        assert dark[name][2] == light[name][2] == widget(name).bounding_box()["height"] > 200
