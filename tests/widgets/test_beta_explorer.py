"""BetaExplorer: what it stores, what it says of each model, its state, and what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import BetaExplorer
from course_lib.widgets.base import MAX_BYTES

RNG = np.random.default_rng(0)
BETAS = [0.5, 1.0, 4.0]


def arguments(models: int = 3, points: int = 20, size: tuple[int, int] = (8, 6)) -> dict:
    """A call that is right: three models of 20 test images, 5 of them shown, and 7 samples."""
    return {
        "betas": BETAS[:models],
        "means": RNG.normal(size=(models, points, 2)),
        "stds": RNG.uniform(0.1, 1, size=(models, points, 2)),
        "labels": np.arange(points) % 10,
        "originals": RNG.random((5, *size)),
        "reconstructions": RNG.random((models, 5, *size)),
        "samples": RNG.random((models, 7, *size)),
        "rates": [6.0, 3.5, 0.25][:models],
        "distortions": [10.0, 11.0, 20.0][:models],
    }


def test_all_arrives_in_the_browser() -> None:
    given = arguments()
    widget = BetaExplorer(**given)
    for name in ("means", "stds"):
        np.testing.assert_allclose(widget.array(name), given[name], atol=1e-4)
    np.testing.assert_array_equal(widget.array("classes"), given["labels"])
    for name in ("originals", "reconstructions", "samples"):
        stored = widget.array(name) / 255
        np.testing.assert_allclose(stored, given[name], atol=0.51 / 255)
    assert (widget.n_steps, widget.labels) == (3, ["β = 0.5", "β = 1", "β = 4"])
    images = (5 + 3 * 5 + 3 * 7) * 48
    assert len(widget.data) == images + 20 + 2 * (2 * 3 * 20 * 2) <= MAX_BYTES


def test_tensors_with_a_channel_are_welcome() -> None:
    given = arguments()
    tensors = {name: torch.tensor(np.asarray(value)) for name, value in given.items()}
    for name in ("originals", "reconstructions", "samples"):
        tensors[name] = tensors[name].unsqueeze(-3)
    widget = BetaExplorer(**tensors)
    plain = BetaExplorer(**given)
    assert (widget.data, widget.arrays, widget.costs) == (plain.data, plain.arrays, plain.costs)


def test_the_costs_are_those_of_the_model_shown() -> None:
    widget = BetaExplorer(**arguments())
    for step, index in [(0.0, 0), (0.9, 0), (1.0, 1), (2.0, 2)]:
        widget.step = step
        assert widget.index == index
        beta, rate, distortion = BETAS[index], widget.rates[index], widget.distortions[index]
        assert widget.costs == {
            "beta": beta,
            "rate": rate,
            "distortion": distortion,
            "negative_elbo": rate + distortion,
            "objective": distortion + beta * rate,
        }
    widget.step = 2.0
    assert widget.costs["objective"] == 21.0
    with pytest.raises(ValueError, match=r"step must lie in \[0, 2\]"):
        widget.step = 3.0


def test_the_axes_hold_the_means_and_the_prior() -> None:
    given = arguments()
    given["means"] = np.stack([np.full((20, 2), -6.2), np.full((20, 2), 2.0), np.zeros((20, 2))])
    given["stds"] = np.stack([np.full((20, 2), std) for std in (0.1, 0.3, 1.0)])
    widget = BetaExplorer(**given)
    assert widget.extents == [6.5, 2.5, 1.5]
    assert [widget._extent(k) for k in range(3)] == [6.5] * 3
    widget.fit = True
    assert [widget._extent(k) for k in range(3)] == [6.5, 2.5, 1.5]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"betas": [1.0, 0.5, 4.0]}, "betas must be positive and increasing"),
        ({"betas": [0.0, 0.5, 4.0]}, "betas must be positive and increasing"),
        ({"betas": [1.0, 1.0, 4.0]}, "betas must be positive and increasing"),
        ({"betas": [[1.0]]}, r"betas must have shape \[M\]"),
        ({"means": np.zeros((2, 20, 2))}, r"means must have shape \[3, N, 2\], got \[2, 20, 2\]"),
        ({"means": np.zeros((3, 20, 3))}, r"means must have shape \[3, N, 2\]"),
        ({"stds": np.ones((3, 19, 2))}, r"stds must have shape \[3, 20, 2\], got \[3, 19, 2\]"),
        ({"stds": np.zeros((3, 20, 2))}, "stds must be positive, got 0"),
        ({"labels": [1] * 19}, "labels must be one for each of the 20 points, got 19"),
        ({"labels": [-1] * 20}, "labels must be whole numbers from 0 to 9, got -1"),
        ({"originals": np.ones((5, 8))}, r"originals must have shape \[K, H, W\]"),
        ({"originals": np.full((5, 8, 6), 1.5)}, r"originals must lie in \[0, 1\]"),
        ({"reconstructions": np.ones((3, 4, 8, 6))}, r"reconstructions must have shape \[3, 5, 8"),
        ({"reconstructions": np.ones((3, 5, 6, 8))}, "reconstructions must have shape"),
        ({"reconstructions": -np.ones((3, 5, 8, 6))}, r"reconstructions must lie in \[0, 1\]"),
        ({"samples": np.ones((2, 7, 8, 6))}, r"samples must have shape \[3, S, 8, 6\]"),
        ({"samples": np.ones((3, 7, 3, 8, 6))}, r"samples must have shape \[3, S, 8, 6\]"),
        ({"rates": [1.0, 2.0]}, r"rates must have shape \[3\], got \[2\]"),
        ({"rates": [1.0, 2.0, -0.1]}, "rates must not be negative, got -0.1"),
        ({"distortions": [[1.0, 2.0, 3.0]]}, r"distortions must have shape \[3\]"),
        ({"samples": np.ones((3, 2500, 8, 6))}, "at most 300,000 bytes.*send fewer models"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        BetaExplorer(**arguments() | change)


def test_one_model_alone_can_be_shown() -> None:
    widget = BetaExplorer(**arguments(models=1))
    assert widget.costs["negative_elbo"] == 16.0
    assert widget.still().startswith(b"\x89PNG")


def test_the_still_picture_shows_collapse() -> None:
    """Under the largest β all posteriors are the prior: one circle is left of 20 ellipses."""
    given = arguments() | {"betas": [0.1, 1.0, 10.0]}
    given["means"][2] = 0
    given["stds"][2] = 1
    picture = Image.open(io.BytesIO(BetaExplorer(**given).still())).convert("L")
    ink = np.asarray(picture, dtype=float) < 245
    height, width = ink.shape
    planes = [ink[30 : height // 2, k * width // 3 : (k + 1) * width // 3].sum() for k in range(3)]
    assert planes[2] < 0.7 * min(planes[:2])
