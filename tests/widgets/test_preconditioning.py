"""Preconditioning: its factors are those of the course's EDM, its sizes 1; what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.data import load_digits
from course_lib.diffusion import Preconditioned
from course_lib.widgets import Preconditioning
from course_lib.widgets.preconditioning import WAYS

IMAGES = 2 * load_digits("train")[0][:200].reshape(-1, 8, 8) - 1
EPS = torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(0))
LEVELS = (0.002, 0.05, 0.5, 3.0, 80.0)


@pytest.fixture(scope="module")
def shown() -> Preconditioning:
    return Preconditioning(IMAGES, EPS)


# ------------------------------------------------------------------------------- the mathematics


def test_the_factors_are_those_of_the_course(shown: Preconditioning) -> None:
    model = Preconditioned(torch.nn.Identity(), shown.sigma_data)
    for sigma in LEVELS:
        theirs = model.factors(torch.tensor(sigma, dtype=torch.float64))[:3]
        np.testing.assert_allclose(shown.factors("preconditioned", sigma), theirs, rtol=1e-12)


def test_what_is_said_makes_x0_by_every_way(shown: Preconditioning) -> None:
    """The course's own module guesses x_0 where its network says what the widget wants it to."""
    x0, eps = shown.array("images"), shown.array("eps")
    for sigma in LEVELS:
        x = x0 + sigma * eps
        for way in WAYS:
            skip, out, scale = shown.factors(way, sigma)
            np.testing.assert_allclose(shown.sees(way, sigma), scale * x, atol=1e-9)
            np.testing.assert_allclose(skip * x + out * shown.says(way, sigma), x0, atol=1e-9)
        said = torch.from_numpy(shown.says("preconditioned", sigma))
        model = Preconditioned(lambda x, t, said=said: said, shown.sigma_data)
        levels = torch.full((len(x),), sigma, dtype=torch.float64)
        np.testing.assert_allclose(model(torch.from_numpy(x), levels), x0, atol=1e-9)
    np.testing.assert_allclose(shown.says("eps"), eps, atol=1e-9)
    np.testing.assert_allclose(shown.says("x0"), x0, atol=1e-9)


def test_sizes_are_one_on_real_digits_at_every_level(shown: Preconditioning) -> None:
    for sigma in LEVELS:
        seen, said, passed = shown.sizes("preconditioned", sigma)
        assert (seen, said) == (pytest.approx(1, abs=0.02), pytest.approx(1, abs=0.02))
        # Errors count least: no more than by either plain way.
        assert passed < min(sigma, 1)
        plain = np.hypot(sigma, shown.sigma_data)
        assert shown.sizes("eps", sigma) == (
            pytest.approx(plain, rel=0.02), pytest.approx(1, abs=0.02), sigma
        )  # fmt: skip
        assert shown.sizes("x0", sigma)[1:] == (pytest.approx(shown.sigma_data, rel=1e-3), 1)


# --------------------------------------------------------------------------------------- the widget


def test_python_reads_and_sets_the_level(shown: Preconditioning) -> None:
    assert shown.sigma == pytest.approx(0.5)
    assert shown.sigma_data == pytest.approx(IMAGES.square().mean().sqrt().item(), rel=1e-6)
    shown.sigma = 3
    assert shown.log_sigma == pytest.approx(np.log(3))
    assert shown.sizes("eps")[2] == pytest.approx(3)
    shown.sigma = 0.5
    assert Preconditioning(IMAGES[:2, None], EPS[:2, None], shown=5).shown == 2
    assert len(shown.data) <= 300_000
    assert repr(shown) == "Preconditioning('')"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": IMAGES[0]}, r"images must have shape \[N, H, W\] or \[N, 1, H, W\]"),
        ({"images": torch.zeros(2, 3, 8, 8)}, "images must have one channel, got 3"),
        ({"images": IMAGES.log()}, "images must be finite"),
        ({"eps": EPS[:5]}, r"eps must have the shape of images, \[200, 8, 8\], got \[5, 8, 8\]"),
        ({"sigma_data": 0.0}, "sigma_data must be"),
        ({"images": 0 * IMAGES}, "sigma_data must be"),
        ({"sigma_min": 0.0}, "sigma_min must be"),
        ({"sigma_max": 0.001}, "sigma_max must be"),
        ({"sigma": 100.0}, r"sigma must lie in \[0.002, 80\], got 100"),
        ({"shown": 0}, "shown must be"),
        ({"shown": 9}, "shown must be"),
        ({"images": torch.ones(900, 16, 16), "eps": torch.ones(900, 16, 16)}, "send fewer images"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Preconditioning(**{"images": IMAGES, "eps": EPS} | change)


def test_bad_settings_are_refused(shown: Preconditioning) -> None:
    with pytest.raises(ValueError, match="sigma must lie in"):
        shown.sigma = 0.001
    with pytest.raises(ValueError, match="sigma must lie in"):
        shown.log_sigma = 9.0
    with pytest.raises(ValueError, match="sigma must be a finite number above 0, got 0"):
        shown.sigma = 0
    with pytest.raises(ValueError, match="way must be one of"):
        shown.factors("v")
    assert shown.sigma == pytest.approx(0.5)


def test_the_still_picture_shows_all_three_ways(shown: Preconditioning) -> None:
    content = shown.still()
    assert len(content) < 60_000
    assert Image.open(io.BytesIO(content)).size[0] == 720
