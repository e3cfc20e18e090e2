"""MaskExplorer: its masks and what they let through, its state, and what it refuses."""

import html
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import PALETTE, MaskExplorer

ONE = [[0, 1, 2, 3], [0, 1, 2, 2, 0], [1, 2, 0]]
OTHER = [[2, 0, 3, 1], [2, 2, 1, 1, 0], [2, 1, 1]]
RNG = np.random.default_rng(0)


def draw_degrees(n: int, widths: list[int]) -> list[np.ndarray]:
    """Any degrees at all, so that some paths may be missing."""
    return [RNG.permutation(n), *(RNG.integers(0, max(n - 1, 1), width) for width in widths)]


def reached(degrees: list, strict: bool) -> np.ndarray:
    """What each output depends on, by walking up from each input, a unit at a time."""
    places, *hidden = degrees
    n = len(places)
    found = np.zeros((n, n), dtype=bool)
    for start in range(n):
        at = {start}
        below = places
        for layer in hidden:
            at = {a for a, d in enumerate(layer) if any(below[b] <= d for b in at)}
            below = layer
        for output in range(n):
            limit = places[output] - 1 if strict else places[output]
            found[output, start] = any(below[b] <= limit for b in at)
    return found


# -------------------------------------------------------------------------------- the mathematics


@pytest.mark.parametrize("widths", [[6], [9, 7], [4, 4, 4]])
@pytest.mark.parametrize("n", [1, 2, 5, 9])
@pytest.mark.parametrize("strict", [True, False])
def test_dependencies_are_what_a_walk_reaches(n: int, widths: list, strict: bool) -> None:
    degrees = draw_degrees(n, widths)
    widget = MaskExplorer(degrees)
    widget.strict = strict
    np.testing.assert_array_equal(widget.dependencies, reached(degrees, strict))
    assert [mask.shape for mask in widget.masks] == list(
        zip([*widths, n], [n, *widths], strict=True)
    )


def test_in_the_order_the_matrix_is_strictly_lower_triangular() -> None:
    widget = MaskExplorer([draw_degrees(8, [20, 20]) for _ in range(3)])
    for k in range(3):
        widget.mask_set = k
        for order in (widget.order, RNG.permutation(8).tolist()):
            widget.order = order
            seen = widget.dependencies[np.ix_(order, order)]
            assert seen.any()
            assert not np.triu(seen).any()
            widget.strict = False
            seen = widget.dependencies[np.ix_(order, order)]
            assert np.diag(seen).any()
            assert not np.triu(seen, 1).any()
            widget.strict = True


def test_paths_are_counted() -> None:
    # Two hidden units of degree 0 carry the first input to the second output.
    widget = MaskExplorer([[0, 1], [0, 0]])
    assert widget.paths.tolist() == [[0, 0], [2, 0]]
    widget.order = [1, 0]
    assert widget.paths.tolist() == [[0, 2], [0, 0]]
    widget.strict = False
    assert widget.paths.tolist() == [[0, 2], [0, 2]]


def test_every_form_of_degrees_is_the_same() -> None:
    forms = [
        ONE,
        tuple(map(tuple, ONE)),
        [np.array(layer) for layer in ONE],
        [torch.tensor(layer) for layer in ONE],
        [[torch.tensor(layer) for layer in ONE]],
        ([np.array(layer, dtype=np.uint8) for layer in ONE],),
    ]
    for form in forms:
        widget = MaskExplorer(form)
        assert (widget.hidden, widget.orders) == ([ONE[1:]], [[0, 1, 2, 3]])


# ------------------------------------------------------------------------------------------ state


def test_a_mask_set_brings_its_order() -> None:
    widget = MaskExplorer([ONE, OTHER])
    assert widget.order == [0, 1, 2, 3]
    widget.mask_set = 1
    assert widget.order == [1, 3, 0, 2]  # the inputs with the places 0, 1, 2, 3
    np.testing.assert_array_equal(widget.dependencies, reached(OTHER, True))
    widget.order = [0, 1, 2, 3]
    np.testing.assert_array_equal(widget.dependencies, reached([ONE[0], *OTHER[1:]], True))


def test_the_browser_may_send_a_mask_set_and_an_order_at_once() -> None:
    widget = MaskExplorer([ONE, OTHER])
    widget.set_state({"mask_set": 1, "order": [3, 2, 1, 0]})
    assert (widget.mask_set, widget.order) == (1, [3, 2, 1, 0])


def test_names() -> None:
    assert MaskExplorer(ONE).input_names == ["x1", "x2", "x3", "x4"]
    assert MaskExplorer(ONE, input_names=list("abcd")).input_names == list("abcd")
    assert repr(MaskExplorer(ONE, title="Masks")) == "MaskExplorer('Masks')"


@pytest.mark.parametrize(
    ("degrees", "reason"),
    [
        (3, "degrees must be a list of 1-D integer arrays, or a list of such lists, got 3"),
        ([], "degrees must be a list of 1-D integer arrays"),
        ([[]], "degrees must be a list of 1-D integer arrays"),
        ([[0, 1]], r"degrees must hold the degrees of the inputs and of 1 to 5 hidden .* 1 arrays"),
        ([[0]] * 7, "got 7 arrays"),
        ([[0, 2], [0]], r"degrees\[0\] must hold each of 0 ... 1 once, got \[0, 2\]"),
        ([[0, 0, 1], [0]], r"degrees\[0\] must hold each of 0 ... 2 once"),
        ([[0, 1, 2], [0, 2]], r"degrees\[1\]\[1\] must be an integer from 0 to 1, got 2"),
        ([[0, 1, 2], [0, -1]], r"degrees\[1\]\[1\] must be an integer from 0 to 1, got -1"),
        ([[0], [1]], r"degrees\[1\]\[0\] must be an integer from 0 to 0, got 1"),
        ([[0, 1, 2], [0.0, 1.0]], r"degrees\[1\] must be .* of integers, got float64 \[2\]"),
        ([[0, 1, 2], [True]], r"degrees\[1\] must be a 1-D array of integers, got bool"),
        ([[0, 1, 2], []], r"degrees\[1\] must be a 1-D array of integers, got .* \[0\]"),
        ([[0, 1, 2], [[0]]], r"degrees\[1\] must be a 1-D array of integers, got int64 \[1, 1\]"),
        ([[0, 1, 2], [[0], [0, 1]]], r"degrees\[1\] must be a 1-D array of integers, got ragged"),
        ([range(17), [0]], r"degrees\[0\] must hold at most 16 inputs, got 17"),
        ([[0, 1], [0] * 33], r"degrees\[1\] must hold at most 32 units, got 33"),
        ([ONE, [*OTHER[:2], [0]]], r"degrees\[1\] must have the same widths as .*, \[4, 5, 3\]"),
        ([ONE, [[0, 1, 2, 4], *OTHER[1:]]], r"degrees\[1\]\[0\] must hold each of 0 ... 3 once"),
        ([ONE, 3], "degrees must be a list of 1-D integer arrays"),
    ],
)  # fmt: skip
def test_bad_degrees_are_refused(degrees: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        MaskExplorer(degrees)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"input_names must be 4 strings, got \['a'\]"):
        MaskExplorer(ONE, input_names=["a"])
    with pytest.raises(ValueError, match="title must be a string, got 3"):
        MaskExplorer(ONE, title=3)
    widget = MaskExplorer([ONE, OTHER])
    for order in ([0, 1, 2], [0, 1, 2, 2], [1, 2, 3, 4]):
        with pytest.raises(ValueError, match=r"order must hold each of 0 ... 3 once"):
            widget.order = order
    for mask_set in (-1, 2):
        with pytest.raises(ValueError, match="mask_set must be an integer from 0 to 1"):
            widget.mask_set = mask_set
    for selected in ([0], [4, 0], [-1, 0], [0, 4], [1, 5], [2, -1], [0, 0, 0]):
        with pytest.raises(ValueError, match=r"selected must be empty or \[layer, unit\]"):
            widget.selected = selected
    for selected in ([3, 3], [1, 4], []):
        widget.selected = selected
    assert (widget.order, widget.mask_set, widget.selected) == ([0, 1, 2, 3], 0, [])


# ------------------------------------------------------------------------------------------ shown


def colours(widget: MaskExplorer) -> dict[str, int]:
    """How many pixels of the still picture are close to each colour of the palette."""
    content = widget.still()
    assert len(content) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    return {
        role: int((np.abs(pixels - [int(c[i : i + 2], 16) for i in (1, 3, 5)]).max(-1) < 40).sum())
        for role, c in PALETTE.items()
    }


def test_the_still_picture_shows_the_paths_and_the_leak() -> None:
    widget = MaskExplorer(ONE)
    seen = colours(widget)
    assert min(seen["data"], seen["model"], seen["latent"]) > 100
    assert seen["error"] < 20
    widget.strict = False
    assert colours(widget)["error"] > 1000
    for layer in range(4):
        widget.selected = [layer, 0]
        assert widget.still() != MaskExplorer(ONE).still()


def test_the_stored_form_holds_the_state() -> None:
    widget = MaskExplorer([ONE, OTHER], title="Masks", alt="Lines between circles.")
    widget.mask_set, widget.strict = 1, False
    stored = widget.static_html()
    assert 'alt="Lines between circles."' in stored
    assert len(stored) < 200_000
    page = html.unescape(re.search(r'srcdoc="(.*)"></iframe>', stored, re.DOTALL).group(1))
    state = json.loads(re.search(r'id="state">(.*?)</script>', page, re.DOTALL).group(1))
    assert state["order"] == [1, 3, 0, 2]
    assert state["hidden"] == [ONE[1:], OTHER[1:]]
    assert (state["mask_set"], state["strict"], state["selected"]) == (1, False, [])
