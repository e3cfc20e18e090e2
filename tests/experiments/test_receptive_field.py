"""The pixels that a naive PixelCNN never sees, against a walk of one's own."""

import itertools

import pytest

from course_lib.experiments import blind_spot


def walk(height, width, row, column, layers):
    """The pixels that a naive PixelCNN sees, by walking; no step leaves the image."""
    around = [(-1, -1), (-1, 0), (-1, 1), (0, -1)]
    seen = {(row, column)}
    for layer in range(layers):
        steps = around if layer == layers - 1 else [*around, (0, 0)]  # mask A is met last
        seen = {
            (r + i, c + j)
            for r, c in seen
            for i, j in steps
            if 0 <= r + i < height and 0 <= c + j < width
        }
    return seen


@pytest.mark.parametrize("layers", [1, 2, 3, 8])
@pytest.mark.parametrize(("size", "pixel"), [((7, 7), (3, 3)), ((5, 8), (4, 2)), ((4, 4), (0, 0))])
def test_the_blind_spot_is_what_no_walk_reaches(size, pixel, layers):
    spot = blind_spot(size, pixel, layers=layers)
    before = list(itertools.product(range(size[0]), range(size[1])))[
        : pixel[0] * size[1] + pixel[1]
    ]
    missed = set(before) - walk(*size, *pixel, layers)
    assert set(map(tuple, spot.nonzero().tolist())) == missed


def test_the_blind_spot_of_the_exercise_has_three_pixels():
    assert blind_spot().nonzero().tolist() == [[1, 6], [2, 5], [2, 6]]
    assert blind_spot(layers=20).sum() == 3
    with pytest.raises(ValueError, match="column must be an integer from 0 to 6, got 7"):
        blind_spot((7, 7), (3, 7))
