"""The jitter of images: pictures whose turned, moved or resized version is known exactly."""

import math

import pytest
import torch

from course_lib.data import jitter


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(4)


def blob(x, y, size=33):
    """One smooth spot with its middle x pixels right of and y pixels below the centre."""
    axis = torch.arange(size) - (size - 1) / 2
    return torch.exp(-((axis - x)[None, :] ** 2 + (axis - y)[:, None] ** 2) / 8)[None, None]


def centre(images):
    """Where the middle of each image's mass lies, right of and below its centre: [N, 2]."""
    size = images.shape[-1]
    axis = torch.arange(size) - (size - 1) / 2
    mass = images.sum(dim=(1, 2, 3))
    right = (images * axis[None, :]).sum(dim=(1, 2, 3)) / mass
    down = (images * axis[:, None]).sum(dim=(1, 2, 3)) / mass
    return torch.stack([right, down], dim=1)


STILL = {"degrees": 0.0, "shift": 0.0, "scale": 0.0, "contrast": 1.0}


def test_without_any_bound_nothing_moves(generator):
    images = torch.rand(3, 2, 5, 8, generator=generator)
    moved = jitter(images, **STILL, generator=generator)
    torch.testing.assert_close(moved, images, rtol=0, atol=1e-5)
    assert moved is not images


def test_shifts_are_uniform_within_the_bound(generator):
    images = blob(0, 0).expand(400, -1, -1, -1)
    moved = centre(jitter(images, **{**STILL, "shift": 3.0}, generator=generator))
    assert moved.abs().max() <= 3.05
    assert (moved.abs().max(dim=0).values > 2.9).all()
    assert moved.mean(dim=0).abs().max() < 0.3
    assert (moved.std(dim=0) - 3 / math.sqrt(3)).abs().max() < 0.15
    assert abs(torch.corrcoef(moved.T)[0, 1]) < 0.15


def test_a_shift_is_in_pixels_along_both_axes(generator):
    """An oblong image: a pixel is a pixel in height and in width."""
    images = torch.zeros(200, 1, 17, 65)
    images[:, :, 6:11, 30:35] = 1
    moved = jitter(images, **{**STILL, "shift": 2.0}, generator=generator)
    rows, columns = torch.arange(17.0) - 8, torch.arange(65.0) - 32
    mass = moved.sum(dim=(1, 2, 3))
    down = (moved * rows[:, None]).sum(dim=(1, 2, 3)) / mass
    right = (moved * columns[None, :]).sum(dim=(1, 2, 3)) / mass
    for shift in (down, right):
        assert 1.9 < shift.abs().max() <= 2.01


def test_rotations_keep_the_radius_and_stay_within_the_bound(generator):
    images = blob(10, 0).expand(400, -1, -1, -1)
    moved = centre(jitter(images, **{**STILL, "degrees": 30.0}, generator=generator))
    radius, angle = moved.norm(dim=1), torch.atan2(moved[:, 1], moved[:, 0])
    torch.testing.assert_close(radius, torch.full((400,), 10.0), rtol=0, atol=0.05)
    assert math.radians(29) < angle.max() <= math.radians(30.2)
    assert math.radians(-30.2) <= angle.min() < math.radians(-29)


def test_sizes_change_within_the_bound(generator):
    images = blob(8, 0).expand(400, -1, -1, -1)
    moved = centre(jitter(images, **{**STILL, "scale": 0.2}, generator=generator))[:, 0]
    # The map from new to old image is scaled by 0.8 ... 1.2, so that the spot moves by the inverse.
    assert 8 / 1.21 <= moved.min() < 8 / 1.18
    assert 8 / 0.82 < moved.max() <= 8 / 0.79


def test_what_comes_in_is_black(generator):
    white = torch.ones(50, 1, 8, 8)
    moved = jitter(white, **{**STILL, "shift": 4.0}, generator=generator)
    assert moved.min() == 0


def test_contrast_stretches_about_one_half():
    images = torch.tensor([0.0, 0.3, 0.5, 0.6, 1.0]).reshape(1, 1, 1, 5)
    moved = jitter(images, **{**STILL, "contrast": 2.0})
    torch.testing.assert_close(
        moved.flatten(), torch.tensor([0.0, 0.1, 0.5, 0.7, 1.0]), atol=1e-5, rtol=0
    )


def test_defaults_and_reproducibility(generator):
    images = torch.rand(4, 1, 8, 8, generator=generator)

    def seed():
        return torch.Generator().manual_seed(0)

    state = torch.get_rng_state()
    default = jitter(images, generator=seed())
    spelled = jitter(
        images, degrees=8.0, shift=0.5, scale=0.08, contrast=1.7, share=1.0, generator=seed()
    )
    assert torch.equal(default, spelled)
    assert torch.equal(state, torch.get_rng_state())
    assert default.shape == images.shape
    assert jitter(images.double(), generator=seed()).dtype == torch.float64
    assert not torch.equal(default, jitter(images, generator=torch.Generator().manual_seed(1)))


def test_a_share_of_the_images_is_changed(generator):
    images = torch.rand(2000, 1, 4, 4, generator=generator)
    all_moved = jitter(images, generator=torch.Generator().manual_seed(0))
    some = jitter(images, share=0.7, generator=torch.Generator().manual_seed(0))
    stays = (some == images).flatten(1).all(dim=1)
    assert abs(stays.float().mean() - 0.3) < 0.05
    assert torch.equal(some[~stays], all_moved[~stays])
    assert torch.equal(jitter(images, share=0.0, generator=generator), images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": torch.rand(8, 8)},
            r"images must have shape \[B, any, any, any\], got \[8, 8\]",
        ),
        ({"images": torch.zeros(1, 1, 8, 8).long()}, "images must be a floating-point tensor"),
        ({"images": torch.full((1, 1, 8, 8), math.nan)}, "images must be finite"),
        (
            {"images": torch.full((1, 1, 8, 8), 1.5)},
            r"images must lie in \[0, 1\], got 1.5",
        ),
        (
            {"images": torch.full((1, 1, 8, 8), -0.5)},
            r"images must lie in \[0, 1\], got -0.5",
        ),
        ({"degrees": -1.0}, "degrees must be a finite number of at least 0, got -1.0"),
        ({"shift": math.nan}, "shift must be a finite number of at least 0, got nan"),
        ({"scale": "a"}, "scale must be a finite number of at least 0, got 'a'"),
        ({"scale": 1.0}, "scale must be below 1, got 1.0"),
        ({"contrast": 0.0}, "contrast must be a finite number above 0, got 0.0"),
        ({"share": -0.1}, "share must be a finite number of at least 0, got -0.1"),
        ({"share": 1.5}, "share must be at most 1, got 1.5"),
        ({"generator": 0}, "generator must be a torch.Generator or None, got 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"images": torch.rand(2, 1, 8, 8), **change}
    with pytest.raises(ValueError, match="^" + message):
        jitter(arguments.pop("images"), **arguments)
