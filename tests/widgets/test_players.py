"""ParticlePlayer and ImagePlayer: what they accept, and what they refuse and why."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import PALETTE, ImagePlayer, ParticlePlayer

T, B = 4, 30
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(T, B, 2))
IMAGES = RNG.random((T, 5, 8, 8))


def picture(widget: object) -> np.ndarray:
    """A widget's still picture as pixels [H, W, 3]."""
    content = widget.still()
    assert len(content) < 60_000
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def share_near(pixels: np.ndarray, colour: str) -> float:
    """The share of pixels close to a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(pixels - wanted).max(-1) < 30).mean())


# ----------------------------------------------------------------------------------------- points


def test_particles_with_everything() -> None:
    player = ParticlePlayer(
        torch.as_tensor(POINTS),
        grid=RNG.normal(size=(T, 5, 6, 2)),
        field=RNG.random((1, 7, 9)),
        field_extent=(-1, 1, -2, 2),
        color=RNG.normal(size=(T, B)),
        color_label="log-determinant (nats)",
        color_map="signed",
        labels=list("abcd"),
        extent=(-3, 3, -2, 2),
        alt="All of it.",
    )
    assert {name: part["shape"] for name, part in player.arrays.items()} == {
        "points": [T, B, 2],
        "grid": [T, 5, 6, 2],
        "field": [1, 7, 9],
        "color": [T, B],
    }
    assert player.n_steps == T
    assert player.extent == [-3, 3, -2, 2]
    assert player.field_extent == [-1, 1, -2, 2]
    low, high = player.color_range
    assert low == -high
    picture(player)


def test_one_colour_per_particle_stands_for_every_step() -> None:
    player = ParticlePlayer(POINTS, color=np.arange(B))
    assert player.arrays["color"]["shape"] == [1, B]
    assert player.color_range == [0, B - 1]
    np.testing.assert_allclose(player.state_at("color", 2.5), np.arange(B), atol=1e-3)


def test_the_plot_is_a_square_around_the_points() -> None:
    x0, x1, y0, y1 = ParticlePlayer(POINTS).extent
    assert x1 - x0 == pytest.approx(y1 - y0)
    inside = ([x0, y0] < POINTS).all(-1) & ([x1, y1] > POINTS).all(-1)
    assert inside.mean() > 0.95
    lonely = ParticlePlayer(np.ones((1, 1, 2)))
    assert lonely.extent[0] < 1 < lonely.extent[1]


@pytest.mark.parametrize("role", PALETTE)
def test_the_picture_has_the_colour_of_the_role(role: str) -> None:
    pixels = picture(ParticlePlayer(RNG.uniform(-1, 1, size=(T, 800, 2)), role=role))
    assert share_near(pixels, PALETTE[role]) > 0.02


def test_a_long_trajectory_takes_six_seconds() -> None:
    assert ParticlePlayer(np.zeros((61, 2, 2))).rate == 10
    assert ParticlePlayer(np.zeros((3, 2, 2))).rate == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"points": POINTS[0]}, r"points must have shape \[T, B, 2\], got \[30, 2\]"),
        ({"points": POINTS[..., :1]}, r"points must have shape \[T, B, 2\], got \[4, 30, 1\]"),
        ({"points": POINTS[:0]}, r"points must have shape \[T, B, 2\], got \[0, 30, 2\]"),
        ({"points": POINTS * np.nan}, "points must be finite"),
        (
            {"grid": np.zeros((3, 5, 5, 2))},
            r"grid must have shape \[4, R, C, 2\], got \[3,",
        ),
        ({"grid": np.zeros((T, 5, 5, 3))}, "grid must have shape"),
        ({"field": np.zeros((2, 5, 5))}, r"field must have shape \[4, H, W\] or \[1, H, W\]"),
        ({"field": np.zeros((5, 5))}, "field must have shape"),
        ({"color": np.zeros(B + 1)}, r"color must have shape \[30\] or \[4, 30\], got \[31\]"),
        ({"color": np.zeros((T, B, 1))}, "color must have shape"),
        ({"color": np.full(B, np.inf)}, "color must be finite"),
        ({"color_map": "jet"}, "color_map must be one of signed, viridis, got 'jet'"),
        ({"role": "mine"}, "role must be one of data"),
        ({"labels": ["a"]}, r"labels must be 4 strings, got \['a'\]"),
        ({"extent": (1, 0, 0, 1)}, "extent must be"),
        ({"field_extent": (0, 1)}, "field_extent must be"),
        ({"color_label": 3}, "color_label must be a string, got 3"),
        ({"points": np.zeros((20, 5000, 2))}, "got 400,000 .* send fewer particles"),
    ],
)
def test_bad_particles_are_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ParticlePlayer(**({"points": POINTS} | arguments))


# ----------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("images", [IMAGES, IMAGES[:, :, None], torch.as_tensor(IMAGES)])
def test_images_come_with_or_without_a_channel(images: object) -> None:
    player = ImagePlayer(images, captions=list("abcde"), labels=list("wxyz"))
    assert player.arrays["images"]["shape"] == [T, 5, 8, 8]
    assert player.value_range == [0, 1]
    assert player.columns == 5
    np.testing.assert_allclose(player.array("images"), IMAGES, atol=1e-5)


def test_many_images_stand_in_a_square() -> None:
    assert ImagePlayer(np.zeros((2, 16, 4, 4))).columns == 4
    assert ImagePlayer(np.zeros((2, 17, 4, 4))).columns == 5
    assert ImagePlayer(np.zeros((2, 3, 4, 4)), columns=9).columns == 3


def test_signed_images_may_have_any_values() -> None:
    assert ImagePlayer(-3 * IMAGES, cmap="signed").value_range == pytest.approx(
        [-3 * IMAGES.max(), 3 * IMAGES.max()]
    )


def test_the_picture_shows_the_images() -> None:
    white = picture(ImagePlayer(np.ones((3, 4, 8, 8)))).mean()
    black = picture(ImagePlayer(np.zeros((3, 4, 8, 8)))).mean()
    assert white > 235
    assert black < 60


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"images": IMAGES[0]}, r"images must have shape \[T, B, H, W\] or .*got \[5, 8, 8\]"),
        ({"images": np.zeros((T, 5, 3, 8, 8))}, r"images must have shape .*got \[4, 5, 3, 8, 8\]"),
        ({"images": IMAGES[:0]}, "images must have shape"),
        ({"images": IMAGES * np.nan}, "images must be finite"),
        ({"images": IMAGES * 2}, r"images must lie in \[0, 1\] unless"),
        ({"images": IMAGES - 0.1}, r"images must lie in \[0, 1\] unless"),
        ({"cmap": "jet"}, "cmap must be one of grey, signed, viridis, got 'jet'"),
        ({"columns": 0}, "columns must be an integer of at least 1, got 0"),
        ({"captions": ["a"]}, "captions must be 5 strings"),
        ({"labels": ["a"]}, "labels must be 4 strings"),
        ({"images": np.zeros((20, 10, 30, 30))}, "got 360,000 .* send fewer images"),
    ],
)
def test_bad_images_are_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ImagePlayer(**({"images": IMAGES} | arguments))
