"""The convolutional network against its formula, written out."""

import doctest
import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib.nn import ConvNet


def convolve(x, conv):
    """A convolution as a sum of shifted images, with zeros beyond the border."""
    size = conv.weight.shape[-1]
    padded = F.pad(x, [size // 2] * 4)
    height, width = x.shape[2:]
    z = conv.bias[:, None, None].expand(len(x), -1, height, width)
    for i in range(size):
        for j in range(size):
            shifted = padded[:, :, i : i + height, j : j + width]
            z = z + torch.einsum("oc,bchw->bohw", conv.weight[:, :, i, j], shifted)
    return z


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_it_is_the_formula(generator):
    net = ConvNet(3, [5, 4], 2).double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, generator=generator)
    first, second, last = (net.layers[i] for i in (0, 2, 4))
    h = convolve(x, first).clamp(min=0)
    h = convolve(h, second).clamp(min=0)
    torch.testing.assert_close(net(x), convolve(h, last))
    assert net(x).shape == (2, 2, 4, 6)


@pytest.mark.parametrize(
    ("hidden", "shapes"),
    [
        ([], [(2, 3, 3, 3)]),
        ([5], [(5, 3, 3, 3), (2, 5, 3, 3)]),
        ((5, 6), [(5, 3, 3, 3), (6, 5, 1, 1), (2, 6, 3, 3)]),
        ([5, 6, 7], [(5, 3, 3, 3), (6, 5, 1, 1), (7, 6, 1, 1), (2, 7, 3, 3)]),
    ],
)
def test_three_by_three_at_both_ends_and_one_by_one_between(hidden, shapes):
    net = ConvNet(3, hidden, 2)
    assert [tuple(p.shape) for p in net.parameters() if p.ndim == 4] == shapes
    kinds = [type(layer) for layer in net.layers]
    assert kinds == [nn.Conv2d, nn.ReLU] * len(hidden) + [nn.Conv2d]
    assert net.n_in == 3


def test_without_hidden_layers_it_is_linear(generator):
    net = ConvNet(3, [], 2)
    x, y = torch.randn(2, 4, 3, 5, 5, generator=generator)
    torch.testing.assert_close(net(x + y) + net(torch.zeros_like(x)), net(x) + net(y))


@pytest.mark.parametrize(("hidden", "reach"), [([], 1), ([8], 2), ([8, 8, 8], 2)])
def test_how_far_it_looks_around(hidden, reach, generator):
    """An output pixel depends on the square around it, of ``reach`` pixels to every side."""
    net = ConvNet(1, hidden, 1).double()
    x = torch.randn(1, 1, 9, 9, dtype=torch.float64, generator=generator)
    jacobian = torch.autograd.functional.jacobian(lambda p: net(p)[0, 0, 4, 4], x)[0, 0]
    seen = torch.zeros(9, 9, dtype=torch.bool)
    seen[4 - reach : 5 + reach, 4 - reach : 5 + reach] = True
    assert (jacobian[~seen] == 0).all()
    assert (jacobian[seen] != 0).sum() > 0.6 * seen.sum()
    assert (jacobian[4 - reach] != 0).any()


def test_an_image_of_one_pixel_is_enough():
    assert ConvNet(2, [4], 3)(torch.zeros(1, 2, 1, 1)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, [4], 2), "n_in must be an integer of at least 1, got 0"),
        ((2, [4, -1], 2), r"hidden\[1\] must be an integer of at least 1, got -1"),
        ((2, [0, 4], 2), r"hidden\[0\] must be an integer of at least 1, got 0"),
        ((2, 4, 2), "hidden must be a sequence of integers, got 4"),
        ((2, [4], 1.5), "n_out must be an integer of at least 1, got 1.5"),
        ((2, [4], 0), "n_out must be an integer of at least 1, got 0"),
    ],
)
def test_bad_channels_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        ConvNet(*arguments)


def test_one_channel_is_enough():
    assert ConvNet(1, [1], 1)(torch.zeros(1, 1, 2, 2)).shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 4, 4), r"x must have shape \[B, 2, any, any\], got \[2, 4, 4\]"),
        (torch.zeros(1, 3, 4, 4), r"x must have shape \[B, 2, any, any\], got \[1, 3, 4, 4\]"),
        (torch.zeros(0, 2, 4, 4), r"x must have shape \[B, 2, any, any\], got \[0, 2, 4, 4\]"),
        (torch.zeros(1, 2, 4, 4).long(), "x must be a floating-point tensor, got torch.int64"),
        (torch.zeros(1, 2, 4, 4).double(), "x must be torch.float32 like the model, got torch.f"),
        (None, r"x must be a tensor of shape \[B, 2, any, any\], got NoneType"),
    ],
)
def test_bad_images_are_named(x, message):
    with pytest.raises(ValueError, match="^" + message):
        ConvNet(2, [4], 1)(x)


def test_the_example():
    failed, attempted = doctest.testmod(
        importlib.import_module("course_lib.nn.conv"), extraglobs={"torch": torch}
    )
    assert failed == 0
    assert attempted == 1
