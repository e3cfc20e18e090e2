"""Interpolation: which images it shows, what it stores, and what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import PALETTE, Interpolation

RNG = np.random.default_rng(0)


def arguments(positions: int = 5) -> dict:
    """A call that is right: two ways between three pairs, images of 8 x 6 pixels."""
    return {
        "rows": {name: RNG.random((3, positions, 8, 6)) for name in ("slerp", "lerp")},
        "norms": {name: 0.5 + RNG.random((3, positions)) for name in ("slerp", "lerp")},
        "typical": (0.8, 1.2),
    }


# --------------------------------------------------------------------------------- what is shown


def test_each_w_and_pair_shows_images_of_their_own() -> None:
    given = arguments()
    widget = Interpolation(**given)
    assert (widget.pair, widget.w) == (0, 0.5)
    for pair in range(3):
        for k, w in enumerate([0, 0.25, 0.5, 0.75, 1]):
            widget.pair, widget.w = pair, w
            assert (widget.w, widget.position) == (w, k)
            assert list(widget.shown) == ["slerp", "lerp"]
            for name, image in widget.shown.items():
                np.testing.assert_allclose(image, given["rows"][name][pair, k], atol=0.5001 / 255)


@pytest.mark.parametrize(
    ("positions", "asked", "k"),
    [(5, 0.37, 1), (5, 0.38, 2), (4, 0.45, 1), (11, 0.94, 9), (2, 1, 1)],
)
def test_w_moves_to_the_nearest_position(positions: int, asked: float, k: int) -> None:
    widget = Interpolation(**arguments(positions))
    assert widget.w in [j / (positions - 1) for j in range(positions)]  # from the beginning
    widget.w = asked
    assert (widget.w, widget.position) == (k / (positions - 1), k)


def test_lengths_belong_to_the_names_in_any_order() -> None:
    given = arguments()
    given["norms"] = dict(reversed(given["norms"].items()))
    widget = Interpolation(**given)
    for way, name in enumerate(["slerp", "lerp"]):
        np.testing.assert_allclose(widget.array("norms")[way], given["norms"][name], atol=1e-4)
    assert (widget.names, widget.typical) == (["slerp", "lerp"], [0.8, 1.2])


def test_tensors_with_a_channel_are_welcome() -> None:
    given = arguments()
    tensors = given | {
        "rows": {name: torch.tensor(x).unsqueeze(2) for name, x in given["rows"].items()},
        "norms": {name: torch.tensor(x) for name, x in given["norms"].items()},
    }
    plain, other = Interpolation(**given), Interpolation(**tensors)
    assert (other.data, other.arrays) == (plain.data, plain.arrays)


def test_a_pixel_takes_one_byte() -> None:
    assert len(Interpolation(**arguments()).data) == 2 * 3 * 5 * (8 * 6 + 2)


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("w", 1.01, r"w must lie in \[0, 1\], got 1.01"),
        ("w", -0.2, r"w must lie in \[0, 1\], got -0.2"),
        ("w", float("nan"), r"w must lie in \[0, 1\], got nan"),
        ("pair", 3, "pair must be an integer from 0 to 2, got 3"),
        ("pair", -1, "pair must be an integer from 0 to 2, got -1"),
    ],
)
def test_a_state_that_does_not_exist_is_refused(name: str, value: object, reason: str) -> None:
    widget = Interpolation(**arguments())
    before = getattr(widget, name)
    with pytest.raises(ValueError, match=reason):
        setattr(widget, name, value)
    assert getattr(widget, name) == before


def two(slerp: object, lerp: object) -> dict:
    return {"slerp": slerp, "lerp": lerp}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rows": [np.zeros((3, 5, 8, 6))]}, "rows must be a dict of 1 to 4 named arrays"),
        ({"rows": {}}, "rows must be a dict of 1 to 4 named arrays, got 0"),
        ({"rows": {str(k): np.zeros((3, 5, 8, 6)) for k in range(5)}}, "1 to 4 named .*, got 5"),
        ({"rows": {"": np.zeros((3, 5, 8, 6))}}, "names in rows must be strings, not empty"),
        ({"rows": {1: np.zeros((3, 5, 8, 6))}}, "names in rows must be strings, not empty, got 1"),
        ({"rows": {"a": np.zeros((3, 5, 8))}}, r"rows\['a'\] must have shape \[P, K, H, W\]"),
        ({"rows": {"a": np.zeros((3, 1, 8, 6))}}, r"K of at least 2, got \[3, 1, 8, 6\]"),
        ({"rows": {"a": np.zeros((3, 5, 3, 8, 6))}}, r"rows\['a'\] must have shape"),
        ({"rows": {"a": np.full((3, 5, 8, 6), 1.1)}}, r"rows\['a'\] must lie in \[0, 1\]"),
        (
            {"rows": two(np.zeros((3, 5, 8, 6)), np.zeros((3, 4, 8, 6)))},
            r"rows\['lerp'\] must have shape \[3, 5, 8, 6\], that of the first, got \[3, 4, 8, 6\]",
        ),
        ({"norms": {"slerp": np.ones((3, 5))}}, r"names of rows, \['slerp', 'lerp'\], got"),
        (
            {"norms": two(np.ones((3, 5)), np.ones((5, 3)))},
            r"norms\['lerp'\] must have shape \[3, 5\] and no value below 0, got \[5, 3\]",
        ),
        ({"norms": two(-np.ones((3, 5)), np.ones((3, 5)))}, "no value below 0, got -1 in it"),
        ({"norms": two(np.ones((3, 5)), np.full((3, 5), np.nan))}, r"norms\['lerp'\] must be fin"),
        ({"typical": (1.2, 0.8)}, r"typical must be \(low, high\) with low < high"),
        ({"typical": 1.0}, r"typical must be \(low, high\)"),
        ({"typical": (0.8, float("inf"))}, r"typical must be \(low, high\)"),
        ({"norm_label": None}, "norm_label must be a string"),
        ({"title": None}, "title must be a string"),
        (
            {
                "rows": two(*np.zeros((2, 30, 11, 28, 28))),
                "norms": two(*np.ones((2, 30, 11))),
            },
            "at most 300,000 bytes.*fewer pairs or positions",
        ),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Interpolation(**arguments() | change)


# -------------------------------------------------------------------------------------- the still


def test_the_still_picture_shows_the_strips_of_the_pair() -> None:
    """Images that are grey all over, each of its own level, are found where they belong."""
    shades = np.linspace(0.1, 0.9, 30).reshape(2, 3, 5, 1, 1) * np.ones((2, 3, 5, 8, 8))
    norms = np.ones((2, 3, 5))
    widget = Interpolation(two(*shades), norms=two(*norms), typical=(0.8, 1.2))
    widget.pair, widget.w = 1, 0.25
    picture = np.asarray(Image.open(io.BytesIO(widget.still())).convert("RGB")).astype(int)
    boxes = [_box(picture, PALETTE[role]) for role in ("latent", "error")]
    for way, (left, right, middle) in enumerate(boxes):
        width = right - left  # of the image at w, the second of five
        at = [round((left + right) / 2 + (k - 1) * width) for k in range(5)]
        found = picture[middle, at]
        assert (found == found[:, :1]).all()  # grey
        np.testing.assert_allclose(found[:, 0], 255 * shades[way, 1, :, 0, 0], atol=6)
    assert len(widget.still()) < 60_000


def _box(picture: np.ndarray, colour: str) -> tuple[int, int, int]:
    """The frame of this colour: left, right, and the row in its middle."""
    wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    framed = np.abs(picture - wanted).max(-1) < 45
    rows = np.where(framed.sum(1) > 60)[0]  # the upper and the lower edge, not the name or a curve
    top = rows[0]
    bottom = next(row for row in rows if row > top + 10)
    columns = np.where(framed[(top + bottom) // 2])[0]
    return columns[0], columns[-1], (top + bottom) // 2


def test_the_still_picture_shows_lengths_and_band() -> None:
    given = arguments()
    pictures = [Interpolation(**given).still()]
    pictures.append(Interpolation(**given | {"typical": None}).still())
    given["norms"]["lerp"] = given["norms"]["lerp"] + 1
    pictures.append(Interpolation(**given).still())
    assert len(set(pictures)) == 3


def test_one_way_between_one_pair_can_be_shown() -> None:
    widget = Interpolation({"slerp": np.ones((1, 2, 4, 4))}, norms={"slerp": np.ones((1, 2))})
    assert (widget.typical, widget.w) == ([], 0)
    assert (widget.shown["slerp"] == 1).all()
    assert len(widget.still()) > 1_000


def test_the_stored_form_holds_its_state() -> None:
    widget = Interpolation(**arguments(), title="Between </script>")
    widget.w, widget.pair = 0.75, 2
    stored = widget.static_html()
    for text in ("&quot;w&quot;: 0.75", "&quot;pair&quot;: 2"):
        assert text in stored
    assert widget.static_html() == stored
    assert repr(widget) == "Interpolation('Between </script>')"
