"""Spherical interpolation: lengths, angles, ends, and where it makes no sense."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.diffusion import slerp
from tests.diffusion.conftest import randn, refuses


@given(
    dim=st.integers(2, 50),
    w=st.floats(0, 1),
    first=st.floats(0.01, 100),
    second=st.floats(0.01, 100),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=80, deadline=None)
def test_on_the_arc(dim, w, first, second, seed):
    """Between two directions the angle is shared out as w says, whatever the lengths are.

    Divided by its length, each end moves at one speed; of equal lengths, the length stays.
    """
    z0, z1 = (randn(1, dim, seed=seed + k) for k in range(2))
    z0, z1 = z0 / z0.norm(), z1 / z1.norm()

    def angle(x, y):
        return 2 * math.atan2(
            (x / x.norm() - y / y.norm()).norm(), (x / x.norm() + y / y.norm()).norm()
        )

    between = slerp(z0, z1, w)
    assert math.isclose(between.norm(), 1, rel_tol=1e-9)
    assert math.isclose(angle(z0, between), w * angle(z0, z1), abs_tol=1e-7)
    assert math.isclose(angle(between, z1), (1 - w) * angle(z0, z1), abs_tol=1e-7)
    theta = angle(z0, z1)
    expected = math.sin((1 - w) * theta) * first * z0 + math.sin(w * theta) * second * z1
    torch.testing.assert_close(
        slerp(first * z0, second * z1, w), expected / math.sin(theta), rtol=1e-6, atol=1e-9
    )


def test_each_pair_has_its_own_w_and_angle():
    z0, z1 = randn(4, 1, 3, 3), randn(4, 1, 3, 3, seed=1)
    w = torch.tensor([0.0, 0.3, 0.5, 1.0])
    between = slerp(z0, z1, w)
    assert between.shape == z0.shape
    torch.testing.assert_close(between[0], z0[0])
    torch.testing.assert_close(between[3], z1[3])
    for i in range(4):
        alone = slerp(z0[i : i + 1], z1[i : i + 1], w[i].item())
        torch.testing.assert_close(between[i : i + 1], alone)
    torch.testing.assert_close(slerp(z0, z1, w), slerp(z1, z0, 1 - w))


def test_ends():
    z0, z1 = randn(3, 5), randn(3, 5, seed=1)
    torch.testing.assert_close(slerp(z0, z1, 0), z0, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(slerp(z0, z1, 1), z1, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearly_the_same_direction_is_a_straight_line(dtype):
    """Where sin θ is 0, the weights are 1 - w and w; acos would lose small angles."""
    z0 = randn(2, 8).to(dtype)
    same = slerp(z0, 3 * z0, 0.25)
    assert same.dtype == dtype
    torch.testing.assert_close(same, 1.5 * z0)
    near = z0 + 1e-5 * randn(2, 8, seed=1).to(dtype)
    torch.testing.assert_close(slerp(z0, near, 0.4), 0.6 * z0 + 0.4 * near, rtol=1e-6, atol=1e-9)


def test_single_precision_is_rounded_once_at_the_end():
    z0, z1 = randn(100, 64).float(), randn(100, 64, seed=1).float()
    assert torch.equal(slerp(z0, z1, 0.3), slerp(z0.double(), z1.double(), 0.3).float())


def test_right_angles():
    z0, z1 = torch.tensor([[2.0, 0.0]]).double(), torch.tensor([[0.0, 2.0]]).double()
    third = slerp(z0, z1, 1 / 3)
    expected = torch.tensor([[2 * math.cos(math.pi / 6), 1.0]]).double()
    torch.testing.assert_close(third, expected)


def test_nearly_opposite_is_allowed():
    """Down to a millionth of a radian the arc is known."""
    z0 = torch.tensor([[1.0, 0.0]]).double()
    for gap in (0.01, 2e-6):
        z1 = torch.tensor([[-math.cos(gap), math.sin(gap)]]).double()
        middle = slerp(z0, z1, 0.5)
        assert math.isclose(middle.norm(), 1, rel_tol=1e-6)
        assert middle[0, 1] > 0.99


def test_arguments_stay_as_they_are():
    z0, z1 = randn(3, 5), randn(3, 5, seed=1)
    slerp(z0, z1, 0.3)
    assert torch.equal(z0, randn(3, 5))
    assert torch.equal(z1, randn(3, 5, seed=1))


@pytest.mark.parametrize(
    ("w", "got"),
    [
        (-0.1, "-0.1"),
        (1.01, "1.01"),
        (math.nan, "nan"),
        ("a", "'a'"),
        (None, "None"),
        (torch.tensor([0.5, 2.0, 0.5]), "[0.5, 2.0, 0.5]"),
        (torch.tensor([0.5, 0.5]), "[0.5, 0.5]"),
        (torch.tensor([[0.5]]), "[[0.5]]"),
    ],
)
def test_bad_weights_are_named(w, got):
    with refuses(f"w must be a number or [3] numbers from 0 to 1, got {got}"):
        slerp(randn(3, 2), randn(3, 2, seed=1), w)


def test_bad_vectors_are_named():
    z = randn(3, 2)
    zero = z.clone()
    zero[1] = 0
    for pair in ((z, zero), (zero, z)):
        with refuses("z0 and z1 must have no zero vector among them, got one"):
            slerp(*pair, 0.5)
    for gap in (0, 1e-7):
        opposite = -z.clone()
        opposite[:2] = z[:2]
        opposite[2] += gap * z[2].flip(0) * torch.tensor([1, -1])
        with refuses("z0 and z1 must not be opposite to each other, got a pair that is"):
            slerp(z, opposite, 0.5)
    with refuses("z0 must have shape [B, *event], got [3]"):
        slerp(z[:, 0], z[:, 1], 0.5)
    with refuses("z1 must have shape [3, 2], got [2, 2]"):
        slerp(z, z[:2], 0.5)
    with refuses("z1 must be torch.float64 like the model, got torch.float32"):
        slerp(z, z.float(), 0.5)
    with refuses("z0 must be finite, got NaN or infinite values"):
        slerp(z / 0, z, 0.5)
    with refuses("z1 must be finite, got NaN or infinite values"):
        slerp(z, z / 0, 0.5)
