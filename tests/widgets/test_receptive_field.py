"""ReceptiveField: its counts at every pixel, its state, and what it refuses."""

import html
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import PALETTE, ReceptiveField
from course_lib.widgets.receptive_field import AFTER, BLIND, FRESH, LEAK, SEEN, UNMEASURED

# What a pixel of one layer is computed from, as steps (down, right): a masked 3 x 3 convolution.
MASK_A = [(-1, -1), (-1, 0), (-1, 1), (0, -1)]
MASK_B = [*MASK_A, (0, 0)]


def measured(layers: int, size: tuple[int, int], pixel: tuple[int, int]) -> np.ndarray:
    """What ``pixel`` of an image sees through 1 ... layers masked convolutions, [L, h, w].

    Found in this image alone, one layer after another: no path leaves it.
    """
    found = np.zeros((layers, *size), dtype=bool)
    for depth in range(layers):
        at = {pixel}
        # From the output down: mask B in all layers but the lowest, which has mask A.
        for steps in [MASK_B] * depth + [MASK_A]:
            at = {(i + di, j + dj) for i, j in at for di, dj in steps}
            at = {(i, j) for i, j in at if 0 <= i < size[0] and 0 <= j < size[1]}
        for i, j in at:
            found[depth, i, j] = True
    return found


def whole_past(layers: int, size: int) -> np.ndarray:
    """Everything before the centre, from the first layer on."""
    past = np.arange(size * size) < size * size // 2
    return np.broadcast_to(past.reshape(size, size), (layers, size, size))


STACK = measured(5, (13, 13), (6, 6))
BOTH = np.stack([STACK, whole_past(5, 13)])
NAMES = ["one stack", "all before it"]


# -------------------------------------------------------------------------------- the mathematics


@pytest.mark.parametrize("size", [(7, 7), (4, 6), (2, 2)])
def test_a_moved_and_cropped_field_is_what_is_measured_there(size: tuple[int, int]) -> None:
    widget = ReceptiveField(BOTH, names=NAMES, size=size)
    for row in range(size[0]):
        for column in range(size[1]):
            widget.row, widget.column = row, column
            there = measured(5, size, (row, column))
            before = np.arange(np.prod(size)).reshape(size) < row * size[1] + column
            for layer in range(5):
                widget.step = float(layer)
                states = widget._states(0, layer)
                np.testing.assert_array_equal(np.isin(states, [SEEN, FRESH]), there[layer])
                np.testing.assert_array_equal(states == BLIND, before & ~there[layer])
                earlier = there[layer - 1] if layer else np.zeros(size, dtype=bool)
                np.testing.assert_array_equal(states == FRESH, there[layer] & ~earlier)
                stack, everything = widget.counts
                assert stack == {
                    "before": before.sum(),
                    "seen": there[layer].sum(),
                    "blind": (before & ~there[layer]).sum(),
                    "unmeasured": 0,
                    "leaks": 0,
                }
                assert everything["seen"] == everything["before"] == before.sum()


def test_the_blind_spot_stays() -> None:
    widget = ReceptiveField(BOTH, names=NAMES, size=(7, 7))
    assert (widget.row, widget.column) == (3, 3)
    # Above and to the right, a staircase: in the row above all but one pixel, then all but two ...
    widget.step = 4.0
    blind = np.argwhere(widget._states(0, 4) == BLIND).tolist()
    assert blind == [[1, 6], [2, 5], [2, 6]]
    assert [count["blind"] for count in widget.counts] == [3, 0]


def test_beyond_the_field_nothing_is_claimed() -> None:
    widget = ReceptiveField(BOTH[:, :, 3:10, 3:10], names=NAMES)
    assert widget.size == [7, 7]
    assert [count["unmeasured"] for count in widget.counts] == [0, 0]  # at the centre, all is known
    widget.row, widget.column, widget.step = 5, 6, 4.0
    states = widget._states(1, 4)
    far = (np.arange(7)[:, None] < 2) | (np.arange(7) < 3)
    past = np.arange(49).reshape(7, 7) < 5 * 7 + 6
    np.testing.assert_array_equal(states == UNMEASURED, far & past)
    assert not (states == BLIND).any()
    assert widget.counts[1]["unmeasured"] == (far & past).sum()
    assert widget.counts[1]["seen"] == (~far & past).sum()

    everything = ReceptiveField(np.ones((1, 1, 3, 3)), names=["all"], size=(5, 5))
    assert everything.counts[0]["leaks"] == 5  # itself, one to the right, three below
    everything.row = everything.column = 0
    assert everything.counts[0]["leaks"] == 4


def test_what_is_seen_against_the_order_is_a_leak() -> None:
    leaky = BOTH.copy()
    leaky[0, 1:, 6, 6] = True  # itself
    leaky[0, 2:, 7, 5] = True  # the next row
    widget = ReceptiveField(leaky, names=NAMES, size=(7, 7))
    for layer, leaks in enumerate([0, 1, 2, 2, 2]):
        widget.step = float(layer)
        assert [count["leaks"] for count in widget.counts] == [leaks, 0]
    states = widget._states(0, 4)
    assert (states[3, 3], states[4, 2], states[3, 4], states[3, 2]) == (LEAK, LEAK, AFTER, SEEN)
    widget.row = 6  # the next row lies beyond the border now
    assert widget.counts[0]["leaks"] == 1


def test_the_layer_is_the_nearest_to_the_step() -> None:
    widget = ReceptiveField(BOTH, names=NAMES)
    assert [widget.n_steps, *widget.labels[:2]] == [5, "layer 1 of 5", "layer 2 of 5"]
    for step, layer in {0.0: 0, 0.49: 0, 0.5: 1, 1.5: 2, 2.5: 3, 4.0: 4}.items():
        widget.step = step
        assert widget.layer == layer


# ------------------------------------------------------------------------------------------ input


@pytest.mark.parametrize(
    "fields",
    [
        BOTH.astype(float),
        torch.as_tensor(BOTH),
        list(BOTH),
        tuple(torch.as_tensor(field) for field in BOTH),
        BOTH.tolist(),
    ],
)
def test_every_form_of_fields_is_the_same(fields: object) -> None:
    widget = ReceptiveField(fields, names=tuple(NAMES))
    np.testing.assert_array_equal(widget.array("fields"), BOTH)
    assert (widget.size, widget.row, widget.column) == ([13, 13], 6, 6)
    assert len(widget.data) < 10_000


@pytest.mark.parametrize("value", [0, 1])
def test_fields_may_be_all_the_same(value: int) -> None:
    widget = ReceptiveField(np.full((1, 2, 3, 5), value), names=["flat"])
    assert widget.counts[0]["seen"] == 7 * value
    assert widget.counts[0]["blind"] == 7 * (1 - value)
    assert widget.counts[0]["leaks"] == 8 * value


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"fields": BOTH[0]}, r"fields must have shape \[V, L, H, W\], got \[5, 13, 13\]"),
        ({"fields": list(BOTH[0])}, r"fields\[0\] must have shape \[L, H, W\], got \[13, 13\]"),
        ({"fields": []}, r"fields must have shape \[V, L, H, W\], got \[0\]"),
        ({"fields": BOTH[:, :0]}, "fields must have shape"),
        ({"fields": "ab"}, r"fields must hold real numbers of shape \[V, L, H, W\]"),
        ({"fields": [BOTH[0], BOTH[1, :4]]}, r"fields\[1\] must have the shape .* \[4, 13, 13\]"),
        ({"fields": BOTH * 2}, "fields must hold 0 or 1 alone, got 2"),
        ({"fields": BOTH * 0.5}, "fields must hold 0 or 1 alone, got 0.5"),
        ({"fields": BOTH * np.nan}, "fields must be finite"),
        ({"fields": np.concatenate([BOTH] * 3)}, "fields must hold at most 4 variants, got 6"),
        ({"fields": BOTH[:, :, 1:]}, "fields must have an odd height and width, got 12 x 13"),
        ({"fields": BOTH[..., 1:]}, "fields must have an odd height and width, got 13 x 12"),
        ({"names": ["one"]}, r"names must be 2 strings, got \['one'\]"),
        ({"names": None}, "names must be 2 strings, got None"),
        ({"names": "ab"}, "names must be 2 strings, got 'ab'"),
        ({"size": 7}, "size must be a sequence of integers, got 7"),
        ({"size": (7,)}, r"size must be a height and a width of at most 32, got \(7,\)"),
        ({"size": (7, 33)}, r"size must be a height and a width of at most 32, got \(7, 33\)"),
        ({"size": (0, 7)}, r"size\[0\] must be an integer of at least 1, got 0"),
        ({"fields": np.zeros((2, 1, 33, 33))}, "size must be a height and a width of at most 32"),
        ({"fields": np.zeros((2, 20, 63, 63)), "size": (9, 9)}, "got 317,520 .* send fewer layers"),
        ({"title": 3}, "title must be a string, got 3"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ReceptiveField(**({"fields": BOTH, "names": NAMES} | arguments))


def test_a_pixel_outside_the_image_is_refused() -> None:
    widget = ReceptiveField(BOTH, names=NAMES, size=(4, 7))
    for name, value, last in [("row", -1, 3), ("row", 4, 3), ("column", 7, 6)]:
        with pytest.raises(ValueError, match=f"{name} must be an integer from 0 to {last}"):
            setattr(widget, name, value)
    widget.row, widget.column = 3, 6
    with pytest.raises(ValueError, match=r"step must lie in \[0, 4\]"):
        widget.step = 5.0


# ------------------------------------------------------------------------------------------ shown


def colours(widget: ReceptiveField) -> dict[str, int]:
    """How many pixels of the still picture are close to each colour of the palette."""
    content = widget.still()
    assert len(content) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    return {
        role: int((np.abs(pixels - [int(c[i : i + 2], 16) for i in (1, 3, 5)]).max(-1) < 40).sum())
        for role, c in PALETTE.items()
    }


def test_the_still_picture_shows_pixel_field_and_blind_spot() -> None:
    both = colours(ReceptiveField(BOTH, names=NAMES, size=(7, 7)))
    assert min(both["data"], both["model"], both["error"]) > 500
    clear = colours(ReceptiveField(BOTH[1:], names=NAMES[1:], size=(7, 7)))
    assert clear["error"] < 20
    assert clear["data"] > 500


def test_the_stored_form_holds_the_state() -> None:
    widget = ReceptiveField(BOTH, names=NAMES, size=(7, 6), alt="Squares.")
    widget.row, widget.step = 5, 2.0
    stored = widget.static_html()
    assert 'alt="Squares."' in stored
    assert len(stored) < 200_000
    page = html.unescape(re.search(r'srcdoc="(.*)"></iframe>', stored, re.DOTALL).group(1))
    state = json.loads(re.search(r'id="state">(.*?)</script>', page, re.DOTALL).group(1))
    assert (state["row"], state["column"], state["step"]) == (5, 3, 2.0)
    assert (state["names"], state["size"]) == (NAMES, [7, 6])
    assert repr(widget) == "ReceptiveField('')"
