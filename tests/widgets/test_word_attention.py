"""WordAttention: which map it shows, on which scale, and what it refuses."""

import io

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from course_lib.widgets import WordAttention

RNG = np.random.default_rng(0)
IMAGES = RNG.random((5, 3, 8, 6))
WORDS = ["a", "red", "3", "a"]
WEIGHTS = RNG.dirichlet(np.ones(4), (5, 4, 3)).transpose(0, 3, 1, 2)


def test_it_shows_the_map_of_the_word_at_the_step() -> None:
    widget = WordAttention(torch.tensor(IMAGES), WORDS, torch.tensor(WEIGHTS), word=1)
    assert (widget.word, widget.n_steps) == (1, 5)
    for step in range(5):
        for word in range(4):
            widget.step, widget.word = step, word
            np.testing.assert_allclose(widget.attention, WEIGHTS[step, word], atol=1e-4)
    widget.step = 2.25
    wanted = 0.75 * WEIGHTS[2, 3] + 0.25 * WEIGHTS[3, 3]
    np.testing.assert_allclose(widget.attention, wanted, atol=1e-4)
    np.testing.assert_array_equal(widget.array("images"), np.rint(255 * IMAGES))
    assert len(widget.data) == IMAGES.size + 2 * WEIGHTS.size


def test_the_scale_is_a_words_own_or_that_of_all() -> None:
    widget = WordAttention(IMAGES, WORDS, WEIGHTS)
    for word in range(4):
        widget.word = word
        assert widget.most == pytest.approx(WEIGHTS[:, word].max(), abs=1e-4)
    widget.alike = True
    assert widget.most == pytest.approx(WEIGHTS.max(), abs=1e-4)
    assert WordAttention(IMAGES, WORDS, 0 * WEIGHTS).most == 1


def test_grey_pictures_and_labels_are_welcome() -> None:
    widget = WordAttention(IMAGES[:, 0], WORDS, WEIGHTS, labels=list("abcde"))
    plain = WordAttention(IMAGES[:, :1], WORDS, WEIGHTS)
    assert widget.data == plain.data
    assert widget.labels == list("abcde")
    assert "“a red 3 a”" in widget.alt
    assert len(plain.still()) < 60_000


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": IMAGES[0, 0]}, r"images must have shape \[T, H, W\] or \[T, 1 or 3, H, W\]"),
        ({"images": IMAGES[:, :2]}, "images must have shape"),
        ({"images": 2 * IMAGES}, r"images must lie in \[0, 1\]"),
        ({"images": IMAGES[:4]}, r"weights must have shape \[4, 4, h, w\], got \[5, 4, 4, 3\]"),
        ({"words": []}, "words must be 1 to 24 strings"),
        ({"words": "a red"}, "words must be 1 to 24 strings, got 'a red'"),
        ({"words": ["a", 3]}, "words must be 1 to 24 strings"),
        ({"words": ["a"] * 25}, "words must be 1 to 24 strings"),
        ({"words": WORDS[:3]}, r"weights must have shape \[5, 3, h, w\], got \[5, 4, 4, 3\]"),
        ({"weights": WEIGHTS[0]}, r"weights must have shape \[5, 4, h, w\]"),
        ({"weights": -WEIGHTS}, "weights must be at least 0, got -0"),
        ({"weights": np.nan * WEIGHTS}, "weights must be finite"),
        ({"weights": np.zeros((5, 4, 100, 100))}, "at most 300,000 bytes.*send fewer steps"),
        ({"labels": ["one"]}, "labels must be 5 strings"),
        ({"word": 4}, "word must be"),
        ({"title": 3}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        WordAttention(**{"images": IMAGES, "words": WORDS, "weights": WEIGHTS} | change)


def test_bad_states_are_refused() -> None:
    widget = WordAttention(IMAGES, WORDS, WEIGHTS)
    for word in (-1, 4):
        with pytest.raises(ValueError, match="word must be"):
            widget.word = word
    with pytest.raises(traitlets.TraitError):
        widget.alike = "yes"
    assert (widget.word, widget.alike) == (0, False)


def test_the_still_picture_shows_the_picture_and_telling_words() -> None:
    images = np.zeros((2, 3, 8, 8))
    images[-1, 0] = 1
    weights = np.full((2, 3, 4, 4), 0.1)
    weights[1, 1, :, :2] = 0.9

    def pixels(which: np.ndarray) -> np.ndarray:
        content = WordAttention(images, ["a", "b", "c"], which).still()
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)

    found = pixels(weights)
    assert (found == [255, 0, 0]).all(-1).mean() > 0.05
    yellow = (np.abs(found - [253, 231, 37]).max(-1) < 12).mean()
    assert 0.05 < yellow < 0.15
    assert (np.abs(pixels(weights[::-1]) - [253, 231, 37]).max(-1) < 12).mean() > 0.3
