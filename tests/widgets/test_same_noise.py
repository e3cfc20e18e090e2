"""SameNoise: both pictures and their noise, how sure one is of the average, the formula's time."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.diffusion import shift_times
from course_lib.widgets import SameNoise
from course_lib.widgets.reparameterization import standard_noise

RNG = np.random.default_rng(0)
IMAGE = RNG.random((3, 8, 8))


def test_a_size_averages_squares_or_repeats_pixels() -> None:
    widget = SameNoise(IMAGE, sizes=(4, 16))
    means = IMAGE.reshape(3, 4, 2, 4, 2).mean((2, 4))
    np.testing.assert_allclose(widget.array("small")[0:], np.rint(255 * means), atol=1)
    repeated = np.kron(np.rint(255 * IMAGE), np.ones((2, 2)))
    np.testing.assert_array_equal(widget.array("large"), repeated)
    assert widget.ratio == 16
    assert len(widget.data) == 3 * (16 + 256)


def test_both_have_noise_of_their_own_time() -> None:
    widget = SameNoise(torch.tensor(IMAGE[0]), sizes=(8, 16), t=0.25, t_large=0.75, seed=3)
    eps = standard_noise(3, 64 + 256)
    small, large = widget.noised
    clean = [2 * widget.array(name) / 255 - 1 for name in ("small", "large")]
    wanted = 0.75 * clean[0] + 0.25 * eps[:64].reshape(8, 8)
    np.testing.assert_allclose(small, wanted, atol=1e-12)
    wanted = 0.25 * clean[1] + 0.75 * eps[64:].reshape(16, 16)
    np.testing.assert_allclose(large, wanted, atol=1e-12)


@pytest.mark.parametrize("sizes", [(8, 16), (8, 32), (2, 8)])
def test_the_formula_is_the_librarys_and_makes_both_equally_uncertain(
    sizes: tuple[int, int],
) -> None:
    for t in (0.0, 0.2, 0.5, 0.8):
        widget = SameNoise(IMAGE, sizes=sizes, t=t)
        wanted = shift_times(torch.tensor([t], dtype=torch.float64), widget.ratio).item()
        assert widget.shifted == pytest.approx(wanted)
        widget.t_large = widget.shifted
        small, large = widget.deviations
        assert small == pytest.approx(large)


def test_the_deviation_is_that_of_averages_of_noised_pictures() -> None:
    """Of 400 flat pictures of one value: the mean over all pixels, divided by 1 − t."""
    means = []
    for seed in range(400):
        widget = SameNoise(np.full((4, 4), 0.5), sizes=(4, 8), t=0.4, t_large=0.7, seed=seed)
        means.append([x.mean() / (1 - t) for x, t in zip(widget.noised, (0.4, 0.7), strict=True)])
    found = np.array(means).std(0)
    # A standard deviation of 400 draws errs by 3.5 %: these seeds are within four of those.
    np.testing.assert_allclose(found, widget.deviations, rtol=0.14)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": IMAGE[:2]}, r"image must have shape \[H, H\], \[1, H, H\] or \[3, H, H\]"),
        ({"image": IMAGE[:, :4]}, "image must have shape"),
        ({"image": 2 * IMAGE}, r"image must lie in \[0, 1\]"),
        ({"sizes": 8}, "sizes must be"),
        ({"sizes": (8,)}, "sizes must be"),
        ({"sizes": (8.0, 16)}, r"sizes\[0\] must be"),
        ({"sizes": (8, 256)}, r"sizes\[1\] must be"),
        ({"sizes": (8, 8)}, r"sizes\[1\] must be a multiple of sizes\[0\], and larger"),
        ({"sizes": (16, 8)}, r"sizes\[1\] must be a multiple"),
        ({"sizes": (8, 20)}, r"sizes\[1\] must be a multiple"),
        ({"sizes": (3, 24)}, "sizes must be multiples or divisors of the image's 8 pixels, got 3"),
        ({"t": 1.0}, "^t must be"),
        ({"t": -0.1}, "^t must be"),
        ({"t_large": 2.0}, "t_large must be"),
        ({"seed": -1}, "seed must be"),
        ({"title": 3}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SameNoise(**{"image": IMAGE, "sizes": (8, 16)} | change)


def test_bad_states_are_refused() -> None:
    widget = SameNoise(IMAGE, sizes=(8, 16))
    for name, value in (("t", 1.0), ("t_large", -0.1), ("seed", -1)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            setattr(widget, name, value)
    assert (widget.t, widget.t_large, widget.seed) == (0.5, 0.5, 0)


def test_the_still_picture_shows_three_pictures() -> None:
    content = SameNoise(np.ones((3, 8, 8)) * [[[1]], [[0]], [[0]]], sizes=(8, 32), t=0.0).still()
    assert len(content) < 60_000
    found = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    red = (found[..., 0] - found[..., 1:].max(-1) > 100).mean()
    assert red > 0.4
