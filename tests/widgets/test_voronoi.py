"""Voronoi: its cells, counts and nearest codes against SciPy, and what it refuses."""

import io
import math

import numpy as np
import pytest
import torch
import traitlets
from matplotlib.path import Path
from PIL import Image
from scipy import spatial, stats

from course_lib.widgets import PALETTE, Voronoi
from course_lib.widgets.voronoi import nearest_codes, perplexity, voronoi_cells

T, K, N = 4, 9, 60
RNG = np.random.default_rng(0)
BOOKS = RNG.normal(size=(T, K, 2))
POINTS = RNG.normal(size=(T, N, 2))
BOX = (-2.0, 3.0, -1.0, 2.0)


# -------------------------------------------------------------------------------- the mathematics


def test_the_nearest_code_is_scipys() -> None:
    _, wanted = spatial.KDTree(BOOKS[0]).query(POINTS)
    np.testing.assert_array_equal(nearest_codes(POINTS, BOOKS[0]), wanted)
    assert nearest_codes(np.zeros(2), np.array([[1, 0], [0, 1], [0, -1]])) == 0  # the first of all


def test_perplexity_is_exp_of_scipys_entropy() -> None:
    counts = np.array([5, 0, 3, 12])
    assert perplexity(counts) == pytest.approx(math.exp(stats.entropy(counts)))
    assert perplexity(np.full(8, 3)) == pytest.approx(8)
    assert perplexity(np.array([0, 7, 0])) == 1


def area(cell: np.ndarray) -> float:
    """Of a polygon that runs counterclockwise (the shoelace formula)."""
    x, y = cell.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def test_the_cells_divide_the_box() -> None:
    codes = np.concatenate((BOOKS[0], [[7.0, 0.5]]))  # the last one stands outside the box
    cells = voronoi_cells(codes, BOX)
    areas = [area(cell) if len(cell) else 0.0 for cell in cells]
    assert min(areas) >= 0
    assert sum(areas) == pytest.approx(15)
    places = RNG.uniform((-2, -1), (3, 2), (3000, 2))
    owners = nearest_codes(places, codes)
    for k, cell in enumerate(cells):
        inside = Path(cell).contains_points(places) if len(cell) else np.zeros(3000, dtype=bool)
        np.testing.assert_array_equal(inside, owners == k)


def test_of_codes_at_one_place_the_first_has_the_cell() -> None:
    cells = voronoi_cells(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), BOX)
    assert [len(cell) > 0 for cell in cells] == [True, True, False]
    assert area(cells[0]) == pytest.approx(2.5 * 3)  # x from -2 to 0.5
    assert len(voronoi_cells(np.zeros((1, 2)), BOX)[0]) == 4


# --------------------------------------------------------------------------------------- the widget


def test_use_and_perplexity_follow_the_step() -> None:
    widget = Voronoi(torch.as_tensor(BOOKS), torch.as_tensor(POINTS))
    for step in (0, 1.25, 3):
        widget.step = step
        low, share = int(step), step % 1
        high = min(low + 1, T - 1)
        codes = (1 - share) * BOOKS[low] + share * BOOKS[high]
        points = (1 - share) * POINTS[low] + share * POINTS[high]
        np.testing.assert_allclose(widget.codes, codes, atol=1e-3)
        _, owners = spatial.KDTree(codes).query(points)
        counts = np.bincount(owners, minlength=K)
        np.testing.assert_array_equal(widget.counts, counts)
        assert widget.perplexity == pytest.approx(math.exp(stats.entropy(counts)))


def test_the_code_follows_the_handle_and_the_step() -> None:
    widget = Voronoi(BOOKS, POINTS[0])
    assert widget.code == nearest_codes(np.array(widget.z), BOOKS[0])  # before anything is set
    for k in range(K):
        widget.z = BOOKS[0, k].tolist()
        assert widget.code == k
    seen = []
    widget.observe(lambda change: seen.append(change["new"]), "code")
    for step in range(T):
        widget.step = step
        assert widget.code == nearest_codes(np.array(widget.z), BOOKS[step])
    assert seen
    with pytest.raises(traitlets.TraitError, match="read-only"):
        widget.code = 0


def test_what_the_browser_gets_is_what_was_given() -> None:
    widget = Voronoi(BOOKS, POINTS, step_labels=list("abcd"), extent=(-5, 5, -4, 4))
    for name, given in (("codebooks", BOOKS), ("points", POINTS)):
        np.testing.assert_allclose(widget.array(name), given, atol=np.ptp(given) / 65_535)
    assert (widget.n_steps, widget.labels, widget.marks) == (T, list("abcd"), [])
    assert widget.extent == [-5, 5, -4, 4]
    assert widget.start == [widget.z, widget.target, widget.beta]
    assert widget.arrays["points"]["shape"] == [T, N, 2]
    assert Voronoi(BOOKS, POINTS[0]).arrays["points"]["shape"] == [1, N, 2]
    assert repr(widget) == "Voronoi('')"


def test_the_plot_holds_every_code_and_nearly_every_point() -> None:
    far = np.concatenate((BOOKS, np.full((T, 1, 2), 6.0)), axis=1)
    x0, x1, y0, y1 = Voronoi(far, POINTS).extent
    assert x1 - x0 == pytest.approx(y1 - y0)
    middle, half = np.array([x0 + x1, y0 + y1]) / 2, (x1 - x0) / 2
    assert (abs(far - middle) < half).all()
    assert (abs(POINTS - middle) < half).all(-1).mean() > 0.99
    alone = Voronoi(np.ones((1, 1, 2)), np.ones((1, 2)))
    assert alone.extent[0] < 1 < alone.extent[1]
    assert (alone.code, alone.perplexity) == (0, 1)
    alone.still()


@pytest.mark.parametrize(
    "labels", [[k % 10 for k in range(N)], np.arange(N) % 10, torch.arange(N) % 10, ("a",) * N]
)
def test_labels_stand_in_place_of_dots(labels: object) -> None:
    widget = Voronoi(BOOKS, POINTS, labels=labels)
    assert widget.marks in ([str(k % 10) for k in range(N)], ["a"] * N)


def test_python_sets_what_may_be_set() -> None:
    widget = Voronoi(BOOKS, POINTS, extent=BOX)
    widget.z, widget.target, widget.beta = [0, 1], [-2.0, 2.0], 2
    assert (widget.z, widget.target, widget.beta) == ([0, 1], [-2, 2], 2)
    place = r"must be a place \[x, y\] with x from -2 to 3 and y from -1 to 2, got"
    for name, value, reason in (
        ("z", [3.1, 0.0], f"z {place}"),
        ("z", [0.0, 0.0, 0.0], f"z {place}"),
        ("z", [math.nan, 0.0], f"z {place}"),
        ("target", [0.0, -1.5], f"target {place}"),
        ("target", [0.0, 2.5], f"target {place}"),
        ("target", [-2.5, 0.0], f"target {place}"),
        ("beta", -0.1, "beta must be a finite number of at least 0, got -0.1"),
        ("beta", 2.5, "beta must be a number from 0 to 2, got 2.5"),
        ("step", 4.0, r"step must lie in \[0, 3\], got 4.0"),
    ):
        with pytest.raises(ValueError, match=reason):
            setattr(widget, name, value)
    assert (widget.z, widget.target, widget.beta) == ([0, 1], [-2, 2], 2)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"codebooks": BOOKS[0]}, r"codebooks must have shape \[T, K, 2\] with K .* got \[9, 2\]"),
        ({"codebooks": np.zeros((2, 65, 2))}, r"with K from 1 to 64, got \[2, 65, 2\]"),
        ({"codebooks": BOOKS[..., :1]}, r"codebooks must have shape .* got \[4, 9, 1\]"),
        ({"codebooks": BOOKS * np.inf}, "codebooks must be finite"),
        ({"points": POINTS[:3]}, r"points must have shape \[4, N, 2\] or \[N, 2\] .* got \[3, 60,"),
        ({"points": POINTS[..., :1]}, r"points must have shape .* got \[4, 60, 1\]"),
        ({"points": POINTS[0, :, :1]}, r"points must have shape .* got \[60, 1\]"),
        ({"points": np.zeros((2001, 2))}, r"N from 1 to 2,000, got \[2001, 2\]"),
        ({"points": POINTS * np.nan}, "points must be finite"),
        ({"labels": [1]}, "labels must be 60 whole numbers or strings .* got 1 of them"),
        ({"labels": 3}, "labels must be 60 .* got 3"),
        ({"labels": [1.5] * N}, "labels must be .* got 1.5"),
        ({"labels": ["cat"] * N}, "labels must be .* got 'cat'"),
        ({"labels": [True] * N}, "labels must be .* got True"),
        ({"step_labels": ["a"]}, r"step_labels must be 4 strings, got \['a'\]"),
        ({"extent": (1, 0, 0, 1)}, "extent must be"),
        ({"title": 3}, "title must be a string, got 3"),
        (
            {"codebooks": np.zeros((80, 2, 2)), "points": np.zeros((80, 1000, 2))},
            "at most 300,000 bytes, got 320,640 .* send fewer points or steps",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Voronoi(**({"codebooks": BOOKS, "points": POINTS} | arguments))


def test_the_still_picture_marks_the_dead() -> None:
    def share(widget: Voronoi, role: str) -> int:
        content = widget.still()
        assert len(content) < 60_000
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
        wanted = np.array([int(PALETTE[role][i : i + 2], 16) for i in (1, 3, 5)])
        return int((np.abs(pixels - wanted).max(-1) < 40).sum())

    dead = np.concatenate((BOOKS, np.full((T, 1, 2), 4.0)), axis=1)
    widget = Voronoi(dead, POINTS[0])
    assert widget.counts[-1] == 0
    assert share(widget, "error") > 60
    for role in ("model", "latent"):
        assert share(widget, role) > 200
    alive = Voronoi(POINTS[0, :5] * np.ones((2, 1, 1)), POINTS[0])
    assert (alive.counts > 0).all()
    assert share(alive, "error") == 0
