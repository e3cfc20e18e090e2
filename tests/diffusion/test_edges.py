"""The small Canny: contours of known place, and each step against its definition."""

import math
from itertools import pairwise

import pytest
import torch
from scipy import ndimage

from course_lib.data import scenes
from course_lib.diffusion.edges import blur, edges, gradients, hysteresis, seen_from, thin
from tests.diffusion.conftest import randn, refuses, seeded


def smooth_images(n=4, size=24, seed=0):
    """Images ``[n, 3, H, W]`` of soft spots, which have no ties."""
    x = blur(torch.rand(3 * n, 1, size, size, generator=seeded(seed)), 2.0)
    x = (x - x.amin((2, 3), keepdim=True)) / (
        x.amax((2, 3), keepdim=True) - x.amin((2, 3), keepdim=True)
    )
    return x.reshape(n, 3, size, size)


def step(height=1.0, base=0.0, at=5, size=10):
    """The left half is dark."""
    image = torch.full((1, 1, size, size), base)
    image[..., at:] = base + height
    return image


# --- the whole -----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [2, 5, 8])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_step_has_one_line_on_its_bright_side(at, turns):
    wanted = torch.zeros(1, 1, 10, 10)
    wanted[..., at] = 1.0
    found = edges(step(at=at).rot90(turns, (2, 3)))
    assert torch.equal(found, wanted.rot90(turns, (2, 3)))


def test_a_square_has_its_rim():
    image = torch.zeros(1, 3, 16, 16)
    image[:, 2, 4:12, 5:13] = 1.0
    found = edges(image)[0, 0]
    rim = image[0, 2].clone()
    rim[5:11, 6:12] = 0.0
    corners = torch.zeros(16, 16)
    for row in (4, 11):
        for column in (5, 12):
            corners[row, column] = 1.0
    assert torch.equal(found * (1 - corners), rim * (1 - corners))


@pytest.mark.parametrize("radius", [4.0, 6.0, 9.0])
def test_a_disc_has_a_closed_circle(radius):
    y, x = torch.meshgrid(*2 * [torch.arange(25.0) - 12], indexing="ij")
    far = (x**2 + y**2).sqrt()
    found = edges((radius + 0.5 - far).clamp(0, 1)[None, None])[0, 0]
    assert ((far - radius)[found == 1].abs() < 1.0).all()
    angles = torch.atan2(y, x)[found == 1].sort().values
    gaps = torch.cat([angles.diff(), angles[:1] + 2 * math.pi - angles[-1:]])
    assert gaps.max() < 2.3 / radius  # no gap along the circle: at most a diagonal and a bit
    inside, n = ndimage.label((found == 0).numpy())  # what is not reached across a corner
    assert n == 2
    assert inside[12, 12] != inside[0, 0]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_and_mirrored_images_have_turned_and_mirrored_edges(turns):
    for images in (smooth_images(), scenes(8, generator=seeded())[0]):
        found = edges(images)
        assert torch.equal(edges(images.rot90(turns, (2, 3))), found.rot90(turns, (2, 3)))
        assert torch.equal(edges(images.flip(3)), found.flip(3))
        assert 0.01 < found.mean() < 0.3


def test_a_faint_edge_counts_where_it_is_tied_to_a_strong_one():
    """Two steps: the upper one is faint at its right end, the lower one is faint everywhere."""
    height = torch.linspace(1.0, 0.2, 12).clamp(max=0.8)
    image = torch.zeros(1, 1, 24, 12)
    image[..., 6:12, :] = height
    image[..., 18:, :] = 0.2
    strongest = gradients(blur(image))[1][0, 0, 18].max()
    low, high = strongest.item() * 0.9, strongest.item() * 1.5
    found = edges(image, low=low, high=high)[0, 0]
    assert found[6].all()  # down to its faint end
    assert not found[18].any()
    assert edges(image, low=low, high=low)[0, 0, 18].all()


def test_colours_are_as_bright_as_their_brightest_channel():
    grey = step()
    for channel in range(3):
        image = torch.zeros(1, 3, 10, 10)
        image[:, channel] = grey[:, 0]
        assert torch.equal(edges(image), edges(grey))
    assert not edges(torch.full((2, 3, 8, 8), 0.7)).any()


def test_images_are_independent():
    images = scenes(5, generator=seeded(3))[0]
    together = edges(images)
    assert together.shape == (5, 1, 32, 32)
    assert together.dtype == torch.float32
    assert set(together.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(together, torch.cat([edges(image[None]) for image in images]))


def test_lower_thresholds_find_more():
    images = scenes(6, generator=seeded(1))[0]
    found = [
        edges(images, low=low, high=high) for low, high in ((0.2, 0.4), (0.1, 0.4), (0.1, 0.2))
    ]
    assert all((few <= many).all() for few, many in pairwise(found))
    assert found[0].sum() < found[2].sum()
    assert torch.equal(edges(images), edges(images, low=0.05, high=0.15))


# --- the steps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1.0, 1.6])
def test_blur_is_a_gaussian_filter(sigma):
    x = randn(2, 1, 12, 9)
    far = int(3 * sigma) + 1
    wanted = ndimage.gaussian_filter(
        x.numpy(), (0, 0, sigma, sigma), mode="nearest", radius=(0, 0, far, far)
    )
    torch.testing.assert_close(blur(x, sigma), torch.from_numpy(wanted))


def test_edges_are_blurred_by_0_7_pixels():
    x = randn(1, 1, 8, 8)
    assert torch.equal(blur(x), blur(x, 0.7))


def test_gradients_are_sobels_and_exact_on_a_slope():
    x = randn(2, 1, 7, 9)
    right, down = gradients(x)
    for axis, found in ((3, right), (2, down)):
        wanted = [ndimage.sobel(image.numpy(), axis - 2, mode="nearest") for image in x[:, 0]]
        torch.testing.assert_close(found[:, 0], torch.stack([*map(torch.from_numpy, wanted)]) / 8)
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij")
    right, down = gradients((0.25 * x - 0.5 * y)[None, None])
    assert (right[..., 1:-1, 1:-1] == 0.25).all()
    assert (down[..., 1:-1, 1:-1] == -0.5).all()


def test_seen_from_reads_between_pixels():
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    plane = (2.0 * x + 3.0 * y)[None, None]
    there = seen_from(plane, torch.tensor([0.25, -0.5]).view(1, 2, 1, 1).expand(1, 2, 5, 7))
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(there[inner], (plane + 2.0 * 0.25 - 3.0 * 0.5)[inner])
    far = seen_from(plane, torch.full((1, 2, 5, 7), 100.0))
    torch.testing.assert_close(far, torch.full((1, 1, 5, 7), plane.max().item()))
    assert torch.equal(seen_from(plane, torch.zeros(1, 2, 5, 7)).round(), plane)


def test_thin_keeps_ridges():
    slope = torch.tensor([0.0, 0.2, 0.5, 0.3, 0.1, 0.4, 0.4, 0.0]).expand(1, 1, 3, 8)
    nothing = torch.zeros_like(slope)
    right = torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.4, 0.0])  # of two equals, the brighter
    left = torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0, 0.4, 0.0, 0.0])
    assert torch.equal(thin(slope, nothing)[0, 0, 1], right)
    assert torch.equal(thin(-slope, nothing)[0, 0, 1], left)
    turned = slope.transpose(2, 3)
    assert torch.equal(thin(turned.new_zeros(turned.shape), turned)[0, 0, :, 1], right)
    assert not thin(nothing, nothing).any()


def test_thin_looks_along_the_gradient():
    """A ridge along a diagonal: across it, its neighbours are diagonal, too."""
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    slope = (1 - (x - y).abs() / 4).clamp(min=0)[None, None]
    kept = thin(slope / 2**0.5, -slope / 2**0.5)[0, 0]
    torch.testing.assert_close(kept[1:-1, 1:-1], torch.eye(9)[1:-1, 1:-1])


def test_hysteresis_is_scipys_propagation():
    slope = torch.rand(6, 1, 20, 20, generator=seeded(7))
    found = hysteresis(slope, 0.55, 0.97)
    for image, got in zip(slope[:, 0].numpy(), found[:, 0], strict=True):
        wanted = ndimage.binary_propagation(
            image >= 0.97, structure=[[1] * 3] * 3, mask=image >= 0.55
        )
        assert torch.equal(got, torch.from_numpy(wanted).float())
    line = torch.tensor([0.1, 0.5, 0.6, 0.9, 0.5, 0.4, 0.5]).view(1, 1, 1, 7)
    grown = hysteresis(line, 0.5, 0.9)
    assert grown.flatten().tolist() == [0, 1, 1, 1, 1, 0, 0]
    assert grown.dtype == torch.float32


# --- bad input -----------------------------------------------------------------------------------


def test_bad_images_are_refused():
    with refuses("images must have shape [B, any, any, any], got [3, 8, 8]"):
        edges(torch.zeros(3, 8, 8))
    with refuses("images must be in [0, 1], got -0.5 to 0"):
        edges(step() * 0 - torch.eye(10) / 2)
    with refuses("images must be in [0, 1], got 0 to 2"):
        edges(step(2.0))
    with refuses("images must be a floating-point tensor, got torch.uint8"):
        edges(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with refuses("low must be a finite number above 0, got 0"):
        edges(step(), low=0)
    with refuses("high must be a finite number of at least 0.3, got 0.2"):
        edges(step(), low=0.3, high=0.2)
