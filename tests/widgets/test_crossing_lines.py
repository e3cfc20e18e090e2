"""CrossingLines: the average of the pairs, its flow, lengths, and what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import PALETTE, CrossingLines

RNG = np.random.default_rng(5)
NOISE, DATA = RNG.normal(size=(2, 20, 2))
COUPLINGS = {"independent": np.arange(20), "other": RNG.permutation(20)}


def test_where_two_lines_cross_the_arrow_is_their_average() -> None:
    """From (0, ±1) to (2, ∓1): they meet in the middle at t = ½."""
    noise, data = [[2.0, -1.0], [2.0, 1.0]], [[0.0, 1.0], [0.0, -1.0]]
    widget = CrossingLines(noise, data, {"crossed": [0, 1], "parallel": [1, 0]}, width=0.1)
    np.testing.assert_allclose(widget.velocity([1.0, 0.0], 0.5), [2, 0], atol=1e-3)
    np.testing.assert_allclose(widget.velocity([0.2, 0.8], 0.1), [2, -2], atol=1e-3)
    widget.coupling = "parallel"
    np.testing.assert_allclose(widget.velocity([1.0, 1.0], 0.5), [2, 0], atol=1e-3)
    assert widget.lengths["parallel"] == pytest.approx(4, abs=1e-3)
    assert widget.lengths["crossed"] == pytest.approx(2 * 8**0.5, abs=1e-3)


def test_the_average_moves_the_density_of_the_pairs() -> None:
    """The continuity equation for the mixture of Gaussians around the lines."""
    widget = CrossingLines(NOISE, DATA, COUPLINGS, width=0.4)

    def density(x: np.ndarray, t: float) -> np.ndarray:
        away = x[..., None, :] - (DATA + t * (NOISE - DATA))
        return np.exp(-(away**2).sum(-1) / (2 * 0.4**2)).mean(-1)

    def flux(x: np.ndarray, t: float) -> np.ndarray:
        return density(x, t)[..., None] * widget.velocity(x, t)

    x, t, h = RNG.normal(size=(15, 2)), 0.4, 1e-4
    change = (density(x, t + h) - density(x, t - h)) / (2 * h)
    divergence = sum(
        (flux(x + step, t) - flux(x - step, t))[:, d] / (2 * h)
        for d, step in enumerate(np.eye(2) * h)
    )
    np.testing.assert_allclose(change, -divergence, atol=1e-3)


def test_far_from_all_lines_the_nearest_decides() -> None:
    widget = CrossingLines([[1.0, 0.0], [1.0, 5.0]], [[0.0, 0.0], [0.0, 5.0]], {"one": [0, 1]})
    np.testing.assert_allclose(widget.velocity([500.0, 900.0], 0.3), [1, 0], atol=1e-3)


def test_sorting_is_optimal_on_a_line_and_nothing_crosses() -> None:
    noise, data = np.sort(NOISE[:, 0]), np.sort(DATA[:, 0])
    couplings = {"independent": COUPLINGS["other"], "optimal": np.arange(20)}
    widget = CrossingLines(noise, data, couplings)
    assert widget.lengths["optimal"] < widget.lengths["independent"]
    assert widget.lengths["optimal"] == pytest.approx(np.abs(noise - data).sum(), abs=1e-2)
    assert widget.extent[:2] == [-0.03, 1.03]
    assert widget.velocity([[0.0], [1.0]], 0.5).shape == (2, 1)
    assert len(widget.place) == 1


def test_ways_of_the_flow_do_not_cross_where_lines_do() -> None:
    widget = CrossingLines([1.0, -1.0], [-1.0, 1.0], {"crossed": [0, 1]}, width=0.2)
    ends = []
    for place in (-0.3, -0.1, 0.1, 0.3):
        widget.place = [place]
        way = widget._way()
        assert way[0, 0] == 1
        assert way[-1, 0] == 0
        ends.append(way[-1, 1])
    assert (np.diff(ends) > 0).all()


def test_python_reads_and_sets() -> None:
    widget = CrossingLines(torch.tensor(NOISE), torch.tensor(DATA), COUPLINGS, t=0.25)
    assert widget.t == pytest.approx(0.25)
    assert widget.labels[0] == "t = 1.00"
    assert widget.coupling == "independent"
    widget.step = 50.0
    assert widget.t == 0
    widget.place = [0.5, 0.5]
    assert set(widget.lengths) == set(COUPLINGS)
    assert repr(widget) == "CrossingLines('')"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"noise": np.zeros((20, 3))}, r"noise must have shape \[N, 2\] or \[N\]"),
        ({"noise": np.zeros((401, 2))}, "at most 400 points"),
        ({"data": np.zeros((19, 2))}, r"data must have shape \[20, 2\], that of noise.*\[19, 2\]"),
        ({"data": np.zeros(20)}, r"data must have shape \[20, 2\], that of noise"),
        ({"couplings": {}}, "couplings must be a dict of permutations"),
        ({"couplings": {"a": [0] * 20}}, "must be a permutation of 0 ... 19"),
        ({"couplings": {"a": [0, 1]}}, "must be a permutation of 0 ... 19"),
        ({"width": 0.0}, "width must"),
        ({"t": 1.5}, r"t must lie in \[0, 1\]"),
        ({"place": [0.0]}, "place must be 2 finite numbers"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    given = {"noise": NOISE, "data": DATA, "couplings": COUPLINGS} | change
    with pytest.raises(ValueError, match=reason):
        CrossingLines(**given)


def test_bad_settings_are_refused() -> None:
    widget = CrossingLines(NOISE, DATA, COUPLINGS)
    with pytest.raises(ValueError, match="coupling must be one of independent, other"):
        widget.coupling = "best"
    with pytest.raises(ValueError, match="place must be 2 finite numbers"):
        widget.place = [np.nan, 0.0]


@pytest.mark.parametrize("dims", [1, 2])
def test_the_still_picture_shows_both_couplings(dims: int) -> None:
    ends = (NOISE, DATA) if dims == 2 else (NOISE[:, 0], DATA[:, 0])
    widget = CrossingLines(*ends, COUPLINGS)
    content = widget.still()
    assert widget.coupling == "independent"
    assert len(content) < 80_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    wanted = np.array([int(PALETTE["model"][i : i + 2], 16) for i in (1, 3, 5)])
    ink = np.abs(pixels - wanted).max(-1) < 40
    half = ink.shape[1] // 2
    assert min(ink[:, :half].sum(), ink[:, half:].sum()) > 100
