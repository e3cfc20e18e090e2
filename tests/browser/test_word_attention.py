"""WordAttention in a real browser: words by hand and by keys, their maps, the scale."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from course_lib.widgets import WordAttention
from tests.browser.gallery import in_python
from tests.browser.harness import PLAY, computing_time, pixels

VIRIDIS = {"low": [68, 1, 84], "high": [253, 231, 37]}


@pytest.fixture
def twin() -> WordAttention:
    """The gallery's widget, in Python alone."""
    return in_python("looks")


def check(widget: Locator, twin: WordAttention) -> None:
    """The word is marked, and its numbers are written."""
    name = twin.words[twin.word]
    chosen = widget.locator("[role=radio][aria-checked=true]")
    expect(chosen).to_have_text(name)
    most, mean = twin.attention.max(), twin.attention.mean()
    words = f"“{name}”: at most {most:.3f} of a place’s attention, {mean:.3f} on average."
    expect(widget.locator(".attention-told")).to_have_text(words)


def test_words_are_chosen_by_hand_and_by_keys(
    show: Callable[..., Locator], twin: WordAttention
) -> None:
    widget = show(twin)
    check(widget, twin)
    widget.get_by_role("radio", name="thin").hover()
    twin.word = 1
    check(widget, twin)
    widget.get_by_role("radio", name="thin").focus()
    for key, word in (
        ("ArrowRight", 2),
        ("ArrowDown", 3),
        ("ArrowRight", 3),
        ("Home", 0),
        ("End", 3),
    ):
        widget.page.keyboard.press(key)
        twin.word = word
        check(widget, twin)
    widget.focus()
    widget.page.keyboard.press("ArrowRight")  # outside the words: the next step
    widget.page.keyboard.press("ArrowUp")
    twin.step, twin.word = 1.0, 2
    check(widget, twin)
    expect(widget.locator(".cw-spoken")).to_contain_text("“red”, squeeze 1: at most")


def test_the_scale_is_written_and_the_largest_is_the_brightest(
    show: Callable[..., Locator], twin: WordAttention
) -> None:
    weights = np.zeros((2, 2, 2, 2))
    weights[1, 0, 0, 0], weights[1, 1, 1, 1] = 0.8, 0.4
    small = WordAttention(np.zeros((2, 3, 8, 8)), ["one", "two"], weights, word=1)
    small.step = 1.0
    widget = show(small)
    expect(widget.locator(".attention-scale")).to_have_text("attention 00.40, the largest of “two”")

    def share(colour: list[int]) -> float:
        return float((np.abs(pixels(widget) - colour).max(-1) <= 2).mean())

    low, high = share(VIRIDIS["low"]), share(VIRIDIS["high"])
    assert low / high == pytest.approx(3, rel=0.1)  # one place of four
    widget.get_by_role("button", name="One scale for all words").click()
    expect(widget.locator(".attention-scale")).to_have_text(
        "attention 00.80, the largest of any word"
    )
    assert share(VIRIDIS["high"]) == 0


def test_playing_is_smooth(show: Callable[..., Locator]) -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(9), (13, 16, 16)).transpose(0, 3, 1, 2)
    widget = show(WordAttention(rng.random((13, 3, 32, 32)), list("abcdefghi"), shares))
    assert computing_time(widget, PLAY) < 15
