"""JointAttentionMap in a real browser: patches and words by hand and by keys, what they take."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import JointAttentionMap
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import (
    PLAY,
    computing_time,
    cut_off,
    live_widget,
    pixels,
    press_keys,
    python,
    wait_for_python,
)

CELL = list(GALLERY).index("joint") + 1


@pytest.fixture
def twin() -> JointAttentionMap:
    """The gallery's widget, in Python alone."""
    return in_python("joint")


def percent(share: float) -> str:
    """As the page writes it."""
    return f"{100 * share:.{1 if share < 0.0995 else 0}f} %"


def check(widget: Locator, twin: JointAttentionMap) -> None:
    """What the token takes is written, under each word, too, and the word is marked."""
    of_patches, of_words = twin.takes
    name = twin.name_of(twin.token)
    own = of_patches.sum()
    said = f"{name[0].upper()}{name[1:]} takes {percent(own)} of patches and {percent(1 - own)}"
    expect(widget.locator(".joint-told")).to_contain_text(said)
    under = widget.locator(".cw-word small")
    expect(under).to_have_text([percent(share) for share in of_words])
    chosen = widget.locator("[role=radio][aria-checked=true]")
    expect(chosen).to_have_count(1 if twin.token >= of_patches.size else 0)
    if twin.token >= of_patches.size:
        word = chosen.evaluate("node => node.firstChild.textContent")
        assert word == twin.words[twin.token - of_patches.size]


def test_words_and_patches_are_pointed_at(
    show: Callable[..., Locator], twin: JointAttentionMap
) -> None:
    widget = show(twin)
    check(widget, twin)
    widget.get_by_role("radio", name="red").hover()
    twin.token = 11
    check(widget, twin)
    canvas = widget.locator("canvas")
    for place, token in (((20, 40), 0), ((150, 40), 1), ((20, 230), 6)):
        canvas.hover(position=dict(zip("xy", place, strict=True)))
        twin.token = token
        check(widget, twin)
    # The map at the right is pointed at, too.
    width = canvas.evaluate("canvas => canvas.clientWidth")
    canvas.hover(position={"x": min(width, 532) - 20, "y": 60})
    twin.token = 2
    check(widget, twin)


def test_everything_is_reached_by_keys(
    show: Callable[..., Locator], twin: JointAttentionMap
) -> None:
    widget = show(twin)
    keyboard = widget.page.keyboard
    widget.get_by_role("radio", name="thin").focus()
    for key, token in (("ArrowRight", 11), ("End", 12), ("ArrowRight", 12), ("Home", 9)):
        keyboard.press(key)
        twin.token = token
        check(widget, twin)
    widget.locator("canvas").focus()
    # The first key goes to the picture, the next ones from patch to patch.
    for key, token in (("ArrowRight", 4), ("ArrowRight", 5), ("ArrowUp", 2), ("ArrowLeft", 1)):
        keyboard.press(key)
        twin.token = token
        check(widget, twin)
    widget.focus()
    keyboard.press("ArrowRight")
    twin.step = 1.0
    check(widget, twin)


def test_the_map_shows_what_is_taken_on_a_scale_of_its_own(show: Callable[..., Locator]) -> None:
    weights = np.zeros((1, 6, 6))
    weights[..., 5] = 1.0
    weights[0, 4] = [0.5, 0, 0, 0, 0.5, 0]  # the first word: half of the first patch
    widget = show(JointAttentionMap(np.zeros((3, 8, 8)), ["one", "two"], weights, (2, 2)))

    def share(colour: list[int]) -> float:
        return float((np.abs(pixels(widget) - colour).max(-1) <= 2).mean())

    low, high = share([68, 1, 84]), share([253, 231, 37])
    assert low / high == pytest.approx(3, rel=0.1)  # one patch of four
    expect(widget.locator(".joint-scale")).to_have_text("of a patch 050 %")
    widget.get_by_role("radio", name="two").hover()
    expect(widget.locator(".joint-told")).to_contain_text("“two” takes 0.0 % of patches and 100 %")
    assert share([253, 231, 37]) == 0


def test_the_quadrants_are_those_of_python(
    functions_of: Callable[[str, str], Page], twin: JointAttentionMap
) -> None:
    module = functions_of("joint_attention_map.js", "shareOf")
    script = """([matrix, n, count]) => [[0, count], [count, n]].map(([first, last]) =>
      parts.shareOf(Float32Array.from(matrix), n, count, first, last))"""
    for step in range(4):
        twin.step = float(step)
        matrix = twin.array("weights")[step]
        found = module.evaluate(script, [matrix.ravel().tolist(), 13, 9])
        np.testing.assert_allclose(found, twin.quadrants[:, 0], atol=1e-5)


def test_python_hears_of_it_and_can_say_it(live: Page, twin: JointAttentionMap) -> None:
    widget = live_widget(live, CELL)
    python(live, "joint.token, joint.step = 3, 2.0")
    twin.token, twin.step = 3, 2.0
    check(widget, twin)
    press_keys(widget.locator("canvas"), ["ArrowRight"])
    wait_for_python(live, "print(joint.token, joint.step)", "4 2.0")


def test_playing_is_smooth_and_nothing_is_cut_off(show: Callable[..., Locator]) -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(76), (12, 76))
    words = ["a", "small", "red", "disc", "left", "of", "a", "big", "green", "square", "on", "blue"]
    widget = show(JointAttentionMap(rng.random((12, 3, 32, 32)), words, shares, (8, 8)))
    assert computing_time(widget, PLAY) < 15
    assert cut_off(widget, (320, 400, 560, 800), "canvas, button, p") == []
