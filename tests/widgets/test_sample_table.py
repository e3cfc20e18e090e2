"""SampleTable: which cell it shows, how it is coloured, and what it refuses."""

import io

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from course_lib.widgets import SampleTable

RNG = np.random.default_rng(0)
STEPS, ETAS = ("steps", [5, 20, 100]), ("η", [0, 0.2, 0.5, 1.0])
IMAGES = RNG.random((3, 4, 6, 8, 7))
POINTS = RNG.normal(size=(3, 4, 50, 2))


# ---------------------------------------------------------------------------------- what it shows


def test_each_cell_shows_its_own_samples() -> None:
    widget = SampleTable(IMAGES, STEPS, ETAS)
    assert (widget.row_value, widget.column_value) == (5, 0.0)
    for s in range(3):
        for e in range(4):
            widget.row, widget.column = s, e
            assert (widget.row_value, widget.column_value) == (STEPS[1][s], ETAS[1][e])
            np.testing.assert_array_equal(widget.shown, np.rint(255 * IMAGES[s, e]) / 255)
    assert len(widget.data) == IMAGES.size


def test_points_are_welcome() -> None:
    widget = SampleTable(POINTS, STEPS, ETAS)
    widget.row, widget.column = 1, 2
    np.testing.assert_allclose(widget.shown, POINTS[1, 2], atol=1e-3)
    x0, x1, y0, y1 = widget.extent
    assert (([x0, y0] < POINTS) & ([x1, y1] > POINTS)).all(-1).mean() > 0.95
    assert SampleTable(IMAGES, STEPS, ETAS).extent == []


def test_tensors_with_a_channel_are_welcome() -> None:
    tensors = SampleTable(torch.tensor(IMAGES).unsqueeze(3), ["steps", (5, 20, 100)], ETAS)
    plain = SampleTable(IMAGES, STEPS, ETAS)
    assert (tensors.data, tensors.arrays) == (plain.data, plain.arrays)


def test_images_in_colour_keep_their_colours() -> None:
    images = RNG.random((3, 4, 2, 3, 8, 7))
    widget = SampleTable(torch.tensor(images), STEPS, ETAS)
    widget.row, widget.column = 2, 1
    np.testing.assert_array_equal(widget.shown, np.rint(255 * images[2, 1]) / 255)
    assert len(widget.data) == images.size
    # The still picture: of the first cell red, and of the one beside it blue.
    images[:] = 0
    images[0, :, :, 0] = images[1, :, :, 2] = 1
    picture = np.asarray(
        Image.open(io.BytesIO(SampleTable(images, STEPS, ETAS).still())).convert("RGB")
    )
    for colour in ([255, 0, 0], [0, 0, 255]):
        assert (picture == colour).all(-1).mean() > 0.1


def test_the_smallest_number_is_the_brightest() -> None:
    powers = np.array([[4, 3, 2, 0], [2, 1, 4, 3], [1, 2, 3, 4]])
    widget = SampleTable(IMAGES, STEPS, ETAS, quality=10.0**powers)
    np.testing.assert_allclose(widget.shades, 1 - powers / 4, atol=1e-6)
    assert widget.quality[0] == [10_000, 1_000, 100, 1]
    # A number that has no logarithm: evenly in the numbers themselves.
    widget = SampleTable(IMAGES, STEPS, ETAS, quality=powers)
    np.testing.assert_allclose(widget.shades, 1 - powers / 4, atol=1e-6)
    assert SampleTable(IMAGES, STEPS, ETAS, quality=np.ones((3, 4))).shades == [[1] * 4] * 3


def test_cost_stands_for_rows_or_for_cells() -> None:
    assert SampleTable(IMAGES, STEPS, ETAS).cost == []
    rows = SampleTable(IMAGES, STEPS, ETAS, cost=[5, 20, 100])
    assert (rows.cost, rows.quality) == ([[5], [20], [100]], [])
    seconds = np.arange(1.0, 13).reshape(3, 4)
    both = SampleTable(IMAGES, STEPS, ETAS, quality=seconds + 1, cost=seconds, cost_label="s")
    assert both.cost == seconds.tolist()
    assert both.quality == (seconds + 1).tolist()
    alone = SampleTable(IMAGES, STEPS, ETAS, cost=seconds, cost_label="s")
    assert (alone.quality, alone.quality_label, alone.cost) == (seconds.tolist(), "s", [])
    assert alone.shades[0][0] == 1


# ------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [("row", 3, 2), ("row", -1, 2), ("column", 4, 3), ("column", -1, 3)],
)
def test_a_cell_that_does_not_exist_is_refused(name: str, value: int, most: int) -> None:
    widget = SampleTable(IMAGES, STEPS, ETAS)
    setattr(widget, name, most)
    with pytest.raises(ValueError, match=f"{name} must be .* from 0 to {most}, got {value}"):
        setattr(widget, name, value)
    with pytest.raises(traitlets.TraitError):
        setattr(widget, name, 0.5)
    assert getattr(widget, name) == most


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"samples": IMAGES[0]}, r"samples must have shape \[3, 4, n, H, W\] or \[3, 4, N, 2\]"),
        ({"samples": IMAGES[:2]}, r"samples must have shape .*got \[2, 4, 6, 8, 7\]"),
        ({"samples": IMAGES[:, :3]}, r"samples must have shape .*got \[3, 3, 6, 8, 7\]"),
        ({"samples": np.zeros((3, 4, 6, 2, 8, 7))}, r"samples must have shape .*got \[3, 4, 6, 2"),
        ({"samples": np.zeros((3, 4, 50, 3))}, r"samples must have shape .*got \[3, 4, 50, 3\]"),
        ({"samples": np.zeros((3, 4, 301, 2))}, "samples must hold at most 300 points .*got 301"),
        ({"samples": 2 * IMAGES}, r"samples must lie in \[0, 1\]"),
        ({"samples": np.nan * IMAGES}, "samples must be finite"),
        ({"samples": np.zeros((3, 4, 40, 28, 28))}, "at most 300,000 bytes.*send fewer samples"),
        ({"rows": ("steps", [5, 20])}, r"samples must have shape \[2, 4, n, H, W\]"),
        ({"rows": ("steps", [5, 20, 20])}, "rows must be a name and a list of 1 to 10 different"),
        ({"rows": ("steps", [])}, "rows must be a name and a list of 1 to 10 different values"),
        ({"rows": ("steps", list(range(1, 12)))}, "rows must be a name and a list of 1 to 10"),
        ({"rows": ("steps", 5)}, r"rows must be a name and a list .*, got \('steps', 5\)"),
        ({"rows": [5, 20, 100]}, r"rows must be a name and a list .*, got \[5, 20, 100\]"),
        ({"rows": (3, [5, 20, 100])}, "rows must be a name and a list"),
        ({"rows": ("steps", [5, 20, float("nan")])}, r"rows\[1\]\[2\] must be a finite number"),
        ({"columns": ("η", [0, 0.2, None, 1])}, r"columns\[1\]\[2\] must be a finite number"),
        ({"columns": ("η", [0, 1, 2, 0.0])}, "columns must be a name and a list of 1 to 6"),
        ({"columns": ("η", [0.1 * k for k in range(7)])}, "columns must be a name and a list of 1"),
        ({"quality": np.ones(3)}, r"quality must have shape \[3, 4\], got \[3\]"),
        ({"quality": np.ones((4, 3))}, r"quality must have shape \[3, 4\], got \[4, 3\]"),
        ({"quality": np.full((3, 4), np.inf)}, "quality must be finite"),
        ({"cost": np.ones(4)}, r"cost must have shape \[3, 4\] or \[3\], got \[4\]"),
        ({"cost": np.ones((3, 1))}, r"cost must have shape \[3, 4\] or \[3\], got \[3, 1\]"),
        ({"quality_label": None}, "quality_label must be a string, got None"),
        ({"cost_label": 3}, "cost_label must be a string, got 3"),
        ({"title": 3}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SampleTable(**{"samples": IMAGES, "rows": STEPS, "columns": ETAS} | change)


# --------------------------------------------------------------------------------------- the still


def still_levels(widget: SampleTable, rows: int, columns: int) -> np.ndarray:
    """The grey level at a quarter of each picture of the still, [rows, columns]."""
    content = widget.still()
    assert len(content) < 60_000
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("L")).astype(int)
    # The pictures are dark on white: their rows and columns are those with many dark pixels.
    dark = picture < 215
    bands = [np.flatnonzero(np.diff((dark.mean(1 - axis) > 0.4).astype(int))) for axis in (0, 1)]
    assert [len(band) for band in bands] == [2 * rows, 2 * columns]
    at = [band[::2] + (band[1::2] - band[::2]) // 4 for band in bands]
    return picture[np.ix_(*at)]


def test_the_still_picture_shows_telling_cells() -> None:
    steps, etas = ("steps", [1, 2, 5, 10, 20, 50, 100]), ("η", [0, 0.2, 0.4, 0.6, 1])
    level = np.linspace(0, 0.6, 35).reshape(7, 5)
    images = np.broadcast_to(level.reshape(7, 5, 1, 1, 1), (7, 5, 1, 8, 8))
    widget = SampleTable(images, steps, etas, quality=level + 1, quality_label="distance")
    wanted = 255 * level[np.ix_([0, 2, 4, 6], [0, 2, 4])].T
    np.testing.assert_allclose(still_levels(widget, 3, 4), wanted, atol=5)  # of few colours


def test_the_still_picture_says_what_its_cells_are() -> None:
    options = {"quality": np.ones((3, 4)), "quality_label": "distance"}
    said = SampleTable(IMAGES, STEPS, ETAS, **options).still()
    others = [
        SampleTable(IMAGES, ("calls", STEPS[1]), ETAS, **options),
        SampleTable(IMAGES, STEPS, ("w", ETAS[1]), **options),
        SampleTable(IMAGES, STEPS, ("η", [0, 0.2, 0.5, 0.9]), **options),
        SampleTable(IMAGES, STEPS, ETAS, **options | {"quality": 2 * np.ones((3, 4))}),
        SampleTable(IMAGES, STEPS, ETAS, **options | {"quality_label": "error"}),
    ]
    assert len({said, *(other.still() for other in others)}) == 6


def test_values_are_numbers_or_words() -> None:
    widget = SampleTable(
        IMAGES, ("solver", ["Euler", "Heun", "RK-4"]), ("shift", [-1, 0.5, 1 / 3, 1200])
    )
    assert widget.row_values == ["Euler", "Heun", "RK-4"]
    assert widget.column_values == ["−1", "0.5", "0.3333", "1200"]
    widget.row, widget.column = 1, 0
    assert (widget.row_value, widget.column_value) == ("Heun", -1)
    assert widget.alt == "Samples for 3 values of solver and 4 of shift."


@pytest.mark.parametrize("samples", [IMAGES[:1, :1, :1], POINTS[:1, :1, :1]])
def test_a_table_of_one_cell_can_be_shown(samples: np.ndarray) -> None:
    widget = SampleTable(samples, ("a", [1]), ("b", [0.0]), quality=[[2.0]], cost=[1])
    assert len(widget.still()) < 60_000
    assert widget.shown.shape == samples.shape[2:]


def test_the_stored_form_holds_its_state() -> None:
    widget = SampleTable(IMAGES, STEPS, ETAS, title="Steps </script>")
    widget.row, widget.column = 2, 3
    stored = widget.static_html()
    for text in ("&quot;row&quot;: 2", "&quot;column&quot;: 3", "[&quot;5&quot;, &quot;20&quot;"):
        assert text in stored
    assert widget.static_html() == stored
    assert repr(widget) == "SampleTable('Steps </script>')"
