"""Uncross: what a flow makes of pairs, what is counted of them, and what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.diffusion.exact_flows import kernel_velocity
from course_lib.diffusion.rectified_flow import straightness, transport_cost
from course_lib.widgets import PALETTE, CrossingLines, Uncross

RNG = np.random.default_rng(1)
ROWS = np.linspace(-2, 2, 10)
SOURCES = np.stack([2 + 0.3 * RNG.normal(size=10), ROWS], 1)
TARGETS = np.stack([-2 + 0.3 * RNG.normal(size=10), ROWS], 1)[RNG.permutation(10)]


def test_two_crossed_pairs_part() -> None:
    """From (1, ±1) to (−1, ∓1): both are in the middle at t = ½. The flow keeps their order."""
    widget = Uncross([[-1, -1], [-1, 1]], [[1, 1], [1, -1]], width=0.2)
    np.testing.assert_allclose(widget.velocity([0.0, 0.0], 0.5), [2, 0], atol=1e-6)
    np.testing.assert_allclose(widget.ways[-1], [[-1, 1], [-1, -1]], atol=1e-3)
    assert widget.rows == [
        {"k": 0, "meetings": 1, "crossings": 1, "cost": pytest.approx(8), "straightness": None}
    ]
    widget.k = 1
    np.testing.assert_allclose(widget.pairs[0], [[-1, 1], [-1, -1]], atol=1e-3)
    np.testing.assert_array_equal(widget.pairs[1], widget.x1)
    assert (widget.rows[1]["meetings"], widget.rows[1]["crossings"]) == (0, 0)
    assert widget.rows[1]["cost"] == pytest.approx(4, abs=1e-2)


def test_lines_that_cross_at_different_times_stay() -> None:
    """One passes the place at t = ¼, the other at ¾: they never meet, and the flow keeps both."""
    widget = Uncross([[-1, 0], [0, -3]], [[3, 0], [0, 1]], width=0.1, k=1)
    for row in widget.rows:
        assert (row["meetings"], row["crossings"]) == (0, 1)
        assert row["cost"] == pytest.approx(16, abs=1e-3)
    np.testing.assert_allclose(widget.pairs[0], widget.x0, atol=1e-3)
    assert widget.rows[1]["straightness"] < 1e-6


def test_pairs_meet_only_where_they_are_apart_at_both_ends() -> None:
    near = Uncross([[0, 0.05], [0, -0.05]], [[2, -1], [2, 1]], width=0.2)
    assert near.rows[0]["meetings"] == 0
    assert near.rows[0]["crossings"] == 1
    same_way = Uncross([[0, 0], [0, 1]], [[2, 0], [2, 1]], width=0.2)
    assert (same_way.rows[0]["meetings"], same_way.rows[0]["crossings"]) == (0, 0)


def test_what_is_counted_falls() -> None:
    rows = Uncross(TARGETS, SOURCES, k=4).rows
    assert [row["k"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[0]["meetings"] > 5
    assert rows[2]["meetings"] == 0
    for name in ("meetings", "crossings", "cost"):
        assert (np.diff([row[name] for row in rows]) <= 1e-3).all()
    straight = [row["straightness"] for row in rows[1:]]
    assert straight[0] > 1
    assert (np.diff(straight) < 0).all()
    assert straight[1] < 0.01


def test_cost_and_straightness_are_those_of_the_library() -> None:
    widget = Uncross(TARGETS, SOURCES, k=0)
    ways = widget.ways
    widget.k = 1
    row = widget.rows[1]
    assert row["straightness"] == pytest.approx(float(straightness(torch.tensor(ways)).mean()))
    x0, x1 = (torch.tensor(ends) for ends in widget.pairs)
    assert row["cost"] == pytest.approx(float(transport_cost(x0, x1)))


def test_the_velocity_is_that_of_crossing_lines() -> None:
    widget = Uncross(TARGETS, SOURCES, width=0.3)
    lines = CrossingLines(SOURCES, TARGETS, {"one": np.arange(10)}, width=0.3)
    x = RNG.normal(size=(7, 2))
    np.testing.assert_allclose(widget.velocity(x, 0.4), lines.velocity(x, 0.4), atol=2e-3)


def test_the_velocity_is_that_of_the_library() -> None:
    widget = Uncross(TARGETS, SOURCES, width=0.3)
    x, x0, x1 = (torch.tensor(v, dtype=torch.float64) for v in (SOURCES / 3, widget.x0, widget.x1))
    found = kernel_velocity(x, 0.4, x0, x1, width=0.3)
    np.testing.assert_allclose(widget.velocity(x.numpy(), 0.4), found.numpy(), atol=1e-9)


def test_python_reads_and_sets() -> None:
    widget = Uncross(torch.tensor(TARGETS), SOURCES.tolist(), t=0.25, title="By hand")
    assert widget.t == pytest.approx(0.25)
    assert widget.labels[0] == "t = 1.00"
    widget.x0 = np.roll(TARGETS, 1, axis=0).tolist()
    np.testing.assert_allclose(widget.pairs[0], np.roll(TARGETS, 1, axis=0), atol=1e-6)
    np.testing.assert_allclose(widget.first["x0"], TARGETS, atol=1e-6)
    left, right, low, high = widget.extent
    assert (left, low) < tuple(np.minimum(TARGETS, SOURCES).min(0))
    assert right - left == pytest.approx(high - low)
    assert len(widget.static_html()) < 200_000
    assert repr(widget) == "Uncross('By hand')"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x0": np.zeros((10, 3))}, r"x0 must have shape \[N, 2\], got \[10, 3\]"),
        ({"x0": np.zeros(10)}, r"x0 must have shape \[N, 2\]"),
        ({"x1": np.zeros((9, 2))}, r"x1 must have shape \[10, 2\], got \[9, 2\]"),
        ({"x0": np.full((10, 2), np.nan)}, "x0 must be finite"),
        ({"x0": np.zeros((13, 2)), "x1": np.zeros((13, 2))}, "at most 12 points, got 13"),
        ({"width": 0.0}, "width must be a finite number of at least 0.05 and of at most 1"),
        ({"width": 2.0}, "width must be"),
        ({"k": 6}, "k must be an integer from 0 to 5, got 6"),
        ({"t": 1.5}, "t must be a finite number"),
        ({"extent": (0, 1)}, "extent must be"),
        ({"title": 3}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Uncross(**({"x0": TARGETS, "x1": SOURCES} | change))


def test_bad_settings_are_refused() -> None:
    widget = Uncross(TARGETS, SOURCES)
    for name, value, reason in (
        ("k", -1, "k must be an integer"),
        ("x0", [[0.0, 0.0]], r"x0 must have shape \[10, 2\], got \[1, 2\]"),
        ("x1", [[0.0, float("inf")]] * 10, "x1 must be finite"),
        ("width", 0.01, "width must be"),
        ("step", 51.0, "step must lie in"),
    ):
        with pytest.raises(ValueError, match=reason):
            setattr(widget, name, value)


def test_the_still_picture_shows_meetings_that_vanish() -> None:
    widget = Uncross(TARGETS, SOURCES, k=3)
    content = widget.still()
    assert widget.k == 3
    assert len(content) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)

    def share(colour: str) -> list[float]:
        wanted = np.array([int(PALETTE[colour][i : i + 2], 16) for i in (1, 3, 5)])
        ink = np.abs(pixels - wanted).max(-1) < 40
        return [part.mean() for part in np.array_split(ink, 3, axis=1)]

    assert min(share("model")) > 0.003
    given, rectified, reflowed = share("error")
    assert given > 0.003
    assert max(rectified, reflowed) < 1e-3
