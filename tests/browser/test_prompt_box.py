"""PromptBox in a real browser: sentences drawn before, and those that the kernel draws."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from course_lib.widgets import PromptBox
from tests.browser.gallery import GALLERY, in_python
from tests.browser.harness import live_widget, pixels, python

CELL = list(GALLERY).index("box") + 1


@pytest.fixture
def twin() -> PromptBox:
    """The gallery's widget, in Python alone."""
    return in_python("box")


def slot(widget: Locator, name: str) -> Locator:
    return widget.get_by_label(name, exact=True)


def said(widget: Locator, words: str) -> None:
    expect(widget.get_by_role("status")).to_have_text(words)


def check_colours(widget: Locator, images: np.ndarray) -> None:
    """Each colour of the images is on the picture, in the middle of it."""
    picture = pixels(widget)
    for image in images:
        colour = np.rint(255 * image[:, 4, 3])
        assert (np.abs(picture - colour).max(-1) <= 1).sum() > 500


def test_stored_sentences_are_shown_and_others_are_grey(
    show: Callable[..., Locator], twin: PromptBox
) -> None:
    widget = show(twin)
    said(widget, "“red 3 on the left”, scale 3: drawn before.")
    check_colours(widget, twin.images)
    slot(widget, "colour").select_option("green")
    widget.get_by_role("button", name="6").click()
    twin.words, twin.scale = ["green", "3", "on the left", "a white 0"], 6.0
    said(widget, "“green 3 on the left”, scale 6: drawn before.")
    check_colours(widget, twin.images)
    grey = widget.locator("option[disabled]")
    assert sorted(grey.all_text_contents()) == ["above", "blue"]
    reasons = widget.locator("optgroup:has(option)").evaluate_all(
        "all => all.map((one) => one.label)"
    )
    assert reasons == 2 * ["needs the kernel: run this cell"]
    expect(slot(widget, "below it")).to_be_disabled()  # the sentence is over before it


def test_keys_choose_words(show: Callable[..., Locator], twin: PromptBox) -> None:
    widget = show(twin)
    slot(widget, "digit").focus()
    slot(widget, "digit").press("ArrowDown")
    said(widget, "“red 7 on the left”, scale 3: drawn before.")


def test_the_kernel_draws_other_sentences(live: Page, twin: PromptBox) -> None:
    widget = live_widget(live, CELL)
    assert widget.locator("option[disabled]").count() == 0
    slot(widget, "colour").select_option("blue")
    said(widget, "“blue 3 on the left”, scale 3: drawn in 2 steps.")
    twin.words = ["blue", "3", "on the left", "a white 0"]
    twin.request()
    check_colours(widget, twin.images)
    # What was changed before its turn is not asked for: of seven changes, some are left out.
    python(live, "slow = 0.5; asked.clear()")
    for where, other in (("above", "a white 0"), ("above", "a white 1"), ("above", "a white 0")):
        slot(widget, "where").select_option(where)
        slot(widget, "below it").select_option(other)
    slot(widget, "colour").select_option("green")
    expect(widget.get_by_role("status")).to_contain_text("step 1 of 2")
    said(widget, "“green 3 above a white 0”, scale 3: drawn in 2 steps.")
    assert python(live, "print(len(asked) < 7, asked[-1][0][0])") == "True green 3 above a white 0"
    python(live, "slow = 0.0; broken = 'no such word'")
    slot(widget, "colour").select_option("blue")
    said(widget, "draw failed: RuntimeError: no such word")
    python(live, "broken = ''")
    slot(widget, "where").select_option("on the left")
    slot(widget, "colour").select_option("red")
    said(widget, "“red 3 on the left”, scale 3: drawn before.")
