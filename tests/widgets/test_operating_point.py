"""OperatingPoint: which point it shows, what is said of it, and what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import CLASS_COLOURS, OperatingPoint

RNG = np.random.default_rng(0)
HEUN = [[9, 40.0], [19, 6.25], [35, 2.5]]
DDIM = [[10, 30.0], [50, 4.0]]
SERIES = {"Heun": HEUN, "DDIM": DDIM}
SHEETS = {"Heun": [None, *RNG.random((2, 5, 8, 7))]}
NAMES = {"x_label": "calls", "y_label": "distance"}


def widget(**options: object) -> OperatingPoint:
    return OperatingPoint(SERIES, SHEETS, **NAMES | options)


# ---------------------------------------------------------------------------------- what it shows


def test_a_point_has_its_numbers_and_its_samples() -> None:
    one = widget(log_x=True, log_y=True)
    assert one.chosen == ["Heun", 1]  # the first with samples
    assert one.point == (19, 6.25)
    assert one.words == "Heun: calls 19, distance 6.25."
    np.testing.assert_array_equal(one.sheet, np.rint(255 * SHEETS["Heun"][1]) / 255)
    one.chosen = ["Heun", 2]
    np.testing.assert_array_equal(one.sheet, np.rint(255 * SHEETS["Heun"][2]) / 255)
    for chosen in (["Heun", 0], ["DDIM", 1]):
        one.chosen = chosen
        assert one.sheet is None
    assert one.words == "DDIM: calls 50, distance 4."
    assert len(one.data) == 2 * 5 * 8 * 7
    assert repr(one) == "OperatingPoint('')"


def test_points_have_names_and_numbers_all_digits_that_count() -> None:
    labels = {"Heun": ["w = 0", "w = 1", "w = 2"]}
    one = OperatingPoint(
        {"Heun": [[-0.000123456, 1], [1.5, 123456.7], [2e-7, 0]]}, labels=labels, **NAMES
    )
    assert one.chosen == ["Heun", 0]
    assert one.said == [
        [
            "Heun, w = 0: calls −0.0001235, distance 1.",
            "Heun, w = 1: calls 1.5, distance 123500.",
            "Heun, w = 2: calls 2.000e−07, distance 0.",
        ]
    ]
    assert one.point == (-0.000123456, 1)
    assert widget(labels=labels).titles == [[f"Heun, w = {w}" for w in range(3)], ["DDIM"] * 2]


def test_a_place_to_start_with_and_series_that_are_switched_off() -> None:
    one = widget(chosen=("DDIM", 1))
    assert one.chosen == ["DDIM", 1]
    one.shown = ["Heun"]
    assert one.point == (50, 4)


def test_tensors_and_one_channel_are_welcome() -> None:
    tensors = OperatingPoint(
        {"a": torch.tensor(HEUN, requires_grad=True)},
        {"a": torch.tensor(np.stack(SHEETS["Heun"][1:] * 2)[:3]).unsqueeze(2)},
        **NAMES,
    )
    plain = OperatingPoint({"a": HEUN}, {"a": [*SHEETS["Heun"][1:], SHEETS["Heun"][1]]}, **NAMES)
    assert (tensors.data, tensors.points) == (plain.data, plain.points)


def test_sheets_in_colour_keep_their_colours() -> None:
    sheets = RNG.random((3, 5, 3, 8, 7))
    one = OperatingPoint({"a": HEUN}, {"a": sheets}, chosen=("a", 2), **NAMES)
    np.testing.assert_array_equal(one.sheet, np.rint(255 * sheets[2]) / 255)
    assert len(one.data) == sheets.size
    green = np.zeros_like(sheets)
    green[:, :, 1] = 1
    still = OperatingPoint({"a": HEUN}, {"a": green}, **NAMES).still()
    picture = np.asarray(Image.open(io.BytesIO(still)).convert("RGB"))
    assert (picture == [0, 255, 0]).all(-1).mean() > 0.1
    with pytest.raises(ValueError, match=r"must have shape \[n, H, W\] or \[n, 1 or 3, H, W\]"):
        OperatingPoint({"a": HEUN}, {"a": sheets[:, :, :2]}, **NAMES)


# --------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"series": {}}, "series must be 1 to 12 names and their points, got 0"),
        ({"series": {str(k): HEUN for k in range(13)}}, "1 to 12 names.*got 13"),
        ({"series": HEUN}, "series must be 1 to 12 names"),
        ({"series": {3: HEUN}}, "got a name 3"),
        ({"series": {"a": [1, 2]}}, r"series\['a'\] must have shape \[P, 2\]"),
        ({"series": {"a": [[1, 2, 3]]}}, r"series\['a'\] must be at most 60 points \[P, 2\]"),
        ({"series": {"a": np.zeros((61, 2))}}, r"at most 60 points.*got \[61, 2\]"),
        ({"series": {"a": [[1, np.nan]]}}, r"series\['a'\] must be finite"),
        ({"series": {"a": [[0, 1]]}, "log_x": True}, "positive x on a log axis, got 0"),
        ({"series": {"a": [[1, -2]]}, "log_y": True}, "positive y on a log axis, got -2"),
        ({"sheets": {"Euler": []}}, "a name in sheets must be one of DDIM, Heun, got 'Euler'"),
        ({"sheets": [None]}, "sheets must be names of series"),
        ({"sheets": {"DDIM": [None]}}, r"sheets\['DDIM'\] must hold 2 sheets or None.*got 1"),
        ({"sheets": {"DDIM": [None, 3 * np.ones((2, 8, 8))]}}, r"\['DDIM'\]\[1\] must lie in"),
        ({"sheets": {"DDIM": [*RNG.random((1, 2, 8, 8)), RNG.random((3, 8, 8))]}}, "same shape"),
        ({"sheets": {"DDIM": RNG.random((2, 200, 28, 28))}}, "at most 300,000 bytes"),
        ({"labels": {"DDIM": ["one"]}}, r"labels\['DDIM'\] must be 2 strings"),
        ({"labels": {"Euler": ["one"]}}, "a name in labels must be"),
        ({"x_label": 3}, "x_label must be a string, got 3"),
        ({"title": 3}, "title must be a string"),
        ({"chosen": ("Euler", 0)}, r"the name one of \['Heun', 'DDIM'\]"),
        ({"chosen": ("DDIM", 2)}, "'DDIM' must lie in 0 ... 1, got 2"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    given = {"series": SERIES} | NAMES | change
    with pytest.raises(ValueError, match=reason):
        OperatingPoint(given.pop("series"), **given)


def test_bad_states_are_refused_later_too() -> None:
    one = widget()
    wrong = (["Heun", 3], ["Heun", -1], ["Heun", 1.0], ["Heun", True], ["Heun"], [2, "Heun"])
    for chosen in wrong:
        with pytest.raises(ValueError, match=r"chosen must|the index of a point"):
            one.chosen = chosen
    for shown, reason in (([], "at least one"), (["Heun", "Euler"], "shown must be")):
        with pytest.raises(ValueError, match=reason):
            one.shown = shown
    assert (one.chosen, one.shown) == (["Heun", 1], ["Heun", "DDIM"])


# ------------------------------------------------------------------------------- the still picture


@pytest.mark.parametrize("chosen", [("Heun", 2), ("DDIM", 0)])
def test_the_still_picture_shows_the_chart(chosen: tuple[str, int]) -> None:
    content = widget(chosen=chosen, log_x=True).still()
    assert len(content) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    for colour in CLASS_COLOURS["light"][:2]:
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(pixels - wanted).max(-1) < 30).sum() > 100
