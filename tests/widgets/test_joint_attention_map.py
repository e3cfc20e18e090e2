"""JointAttentionMap: what a token takes, the four quadrants, and what is refused."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.nn import JointAttention
from course_lib.widgets import JointAttentionMap

RNG = np.random.default_rng(0)
WORDS = ["a", "red", "3", "a"]
GRID = (2, 3)
IMAGE = RNG.random((3, 8, 12))
WEIGHTS = RNG.dirichlet(np.ones(10), (5, 10))


def test_it_shows_what_a_token_takes_at_the_step() -> None:
    widget = JointAttentionMap(torch.tensor(IMAGE), WORDS, torch.tensor(WEIGHTS), GRID)
    assert (widget.token, widget.n_steps) == (6, 5)  # the first word
    for step in range(5):
        for token in range(10):
            widget.step, widget.token = step, token
            of_patches, of_words = widget.takes
            np.testing.assert_allclose(
                of_patches, WEIGHTS[step, token, :6].reshape(2, 3), atol=1e-4
            )
            np.testing.assert_allclose(of_words, WEIGHTS[step, token, 6:], atol=1e-4)
    widget.step = 2.25
    wanted = 0.75 * WEIGHTS[2, 9] + 0.25 * WEIGHTS[3, 9]
    np.testing.assert_allclose(widget.takes[1], wanted[6:], atol=1e-4)
    assert len(widget.data) == IMAGE.size + 2 * WEIGHTS.size


def test_the_quadrants_are_means_over_patches_and_over_words() -> None:
    widget = JointAttentionMap(IMAGE, WORDS, WEIGHTS, GRID)
    widget.step = 3.0
    matrix = WEIGHTS[3]
    wanted = [
        [matrix[rows, columns].sum() / len(matrix[rows]) for columns in (slice(6), slice(6, None))]
        for rows in (slice(6), slice(6, None))
    ]
    np.testing.assert_allclose(widget.quadrants, wanted, atol=1e-3)


def test_it_takes_the_weights_of_joint_attention_as_they_are() -> None:
    """Image and text in this order: a word that is masked is taken by nobody."""
    torch.manual_seed(0)
    attention = JointAttention(16, 2)
    mask = torch.ones(1, 10, dtype=torch.bool)
    mask[:, 8:] = False
    weights = attention.weights(torch.randn(1, 6, 16), torch.randn(1, 4, 16), mask=mask).mean(1)
    widget = JointAttentionMap(IMAGE, WORDS, weights, GRID, token=0)
    of_patches, of_words = widget.takes
    assert (of_words[2:] == 0).all()
    assert of_patches.sum() + of_words.sum() == pytest.approx(1, abs=1e-3)


def test_tokens_have_names() -> None:
    widget = JointAttentionMap(IMAGE, WORDS, WEIGHTS, GRID, labels=list("abcde"), token=3)
    assert widget.name_of(7) == "“red”"
    assert widget.name_of(3) == "the patch in row 2, column 1"
    assert "2 by 3 patches and the words “a red 3 a”" in widget.alt


def test_one_picture_or_one_a_step() -> None:
    grey = np.stack([IMAGE[:1]] * 5)
    assert JointAttentionMap(grey, WORDS, WEIGHTS, GRID).array("images").shape == (5, 8, 12)
    one = JointAttentionMap(IMAGE, WORDS, WEIGHTS, GRID).array("images")
    np.testing.assert_array_equal(one, np.rint(255 * IMAGE)[None])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": IMAGE[0]}, r"image must have shape \[3 or 1, H, W\] or \[5, 3 or 1, H, W\]"),
        ({"image": IMAGE[:2]}, "image must have shape"),
        ({"image": np.stack([IMAGE] * 4)}, r"image must have shape.*got \[4, 3, 8, 12\]"),
        ({"image": 2 * IMAGE}, r"image must lie in \[0, 1\]"),
        ({"words": []}, "words must be 1 to 24 strings"),
        ({"words": "a red"}, "words must be 1 to 24 strings"),
        ({"words": ["a"] * 25}, "words must be 1 to 24 strings"),
        ({"words": WORDS[:3]}, r"weights must have shape \[T, 9, 9\], got \[5, 10, 10\]"),
        ({"grid": 6}, "grid must be"),
        ({"grid": (6,)}, "grid must be"),
        ({"grid": (2, 0)}, r"grid\[1\] must be"),
        ({"grid": (2, 2)}, r"weights must have shape \[T, 8, 8\]"),
        ({"weights": WEIGHTS[0]}, r"weights must have shape \[T, 10, 10\]"),
        ({"weights": -WEIGHTS}, "weights must be at least 0"),
        ({"weights": WEIGHTS / 2}, "each row of weights must sum to 1, got 0.5"),
        ({"labels": ["one"]}, "labels must be 5 strings"),
        ({"token": 10}, "token must be an integer from 0 to 9"),
        ({"title": 3}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    given = {"image": IMAGE, "words": WORDS, "weights": WEIGHTS, "grid": GRID}
    with pytest.raises(ValueError, match=reason):
        JointAttentionMap(**given | change)


def test_too_much_and_bad_states_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 300,000 bytes.*send fewer steps"):
        JointAttentionMap(IMAGE, WORDS, np.full((40, 68, 68), 1 / 68), (8, 8))
    widget = JointAttentionMap(IMAGE, WORDS, WEIGHTS, GRID)
    for token in (-1, 10):
        with pytest.raises(ValueError, match="token must be"):
            widget.token = token
    assert widget.token == 6


def test_the_still_picture_shows_the_token_that_is_chosen() -> None:
    weights = np.zeros((1, 10, 10))
    weights[0, :, 0] = 1.0  # all look at the first patch alone ...
    weights[0, 8] = np.eye(10)[7]  # ... but one word, which looks at another

    def yellow(token: int) -> float:
        content = JointAttentionMap(0 * IMAGE, WORDS, weights, GRID, token=token).still()
        found = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
        return (np.abs(found - [253, 231, 37]).max(-1) < 12).mean()

    assert yellow(0) > 0.005
    assert yellow(8) == 0
