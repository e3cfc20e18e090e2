"""Masked layers against matrices and kernels whose hidden weights are zero."""

import pytest
import torch
from torch.nn import functional as F

from course_lib.nn import MaskedConv2d, MaskedLinear, raster_mask


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20150212)


def test_a_masked_linear_map_is_the_sum_over_what_it_sees(generator):
    layer = MaskedLinear(4, 3).double()
    x = torch.randn(5, 4, generator=generator).double()
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).double()
    y = layer(x, mask)
    assert y.shape == (5, 3)
    for row in range(5):
        for i in range(3):
            seen = [j for j in range(4) if mask[i, j]]
            expected = layer.bias[i] + sum(layer.weight[i, j] * x[row, j] for j in seen)
            torch.testing.assert_close(y[row, i], expected)


def test_it_begins_like_torchs_own_linear_map():
    torch.manual_seed(0)
    layer = MaskedLinear(4, 3)
    torch.manual_seed(0)
    expected = torch.nn.Linear(4, 3)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert torch.equal(layer.weight, expected.weight)
    assert torch.equal(layer.bias, expected.bias)
    assert repr(layer) == "MaskedLinear(n_in=4, n_out=3)"


def test_hidden_weights_get_no_gradient(generator):
    layer = MaskedLinear(3, 3)
    mask = torch.ones(3, 3).tril(-1)
    layer(torch.randn(5, 3, generator=generator), mask).square().sum().backward()
    assert torch.equal(layer.weight.grad != 0, mask != 0)


MASKS = {
    (3, "A"): [[1, 1, 1], [1, 0, 0], [0, 0, 0]],
    (3, "B"): [[1, 1, 1], [1, 1, 0], [0, 0, 0]],
    (5, "A"): [[1] * 5, [1] * 5, [1, 1, 0, 0, 0], [0] * 5, [0] * 5],
    (5, "B"): [[1] * 5, [1] * 5, [1, 1, 1, 0, 0], [0] * 5, [0] * 5],
}


@pytest.mark.parametrize(("kernel_size", "mask"), MASKS)
def test_a_masked_convolution_is_the_sum_over_pixels_before(kernel_size, mask, generator):
    seen = torch.tensor(MASKS[kernel_size, mask]).double()
    assert torch.equal(raster_mask(kernel_size, mask), seen.float())
    layer = MaskedConv2d(2, 3, kernel_size, mask=mask).double()
    assert torch.equal(layer.mask[0, 0], seen)
    x = torch.randn(2, 2, 4, 6, generator=generator).double()
    y = layer(x)
    assert y.shape == (2, 3, 4, 6)
    reach = kernel_size // 2
    padded = F.pad(x, (reach,) * 4)
    for row in range(4):
        for column in range(6):
            window = padded[:, :, row : row + kernel_size, column : column + kernel_size]
            expected = torch.einsum("bihw,oihw,hw->bo", window, layer.weight, seen) + layer.bias
            torch.testing.assert_close(y[:, :, row, column], expected)


def test_a_masked_convolution_begins_like_torchs_own():
    torch.manual_seed(0)
    layer = MaskedConv2d(2, 3, 5, mask="A")
    torch.manual_seed(0)
    expected = torch.nn.Conv2d(2, 3, 5)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert torch.equal(layer.weight, expected.weight)
    assert torch.equal(layer.bias, expected.bias)


@pytest.mark.parametrize("bad", [0, -1, 2.0, None, True])
def test_bad_widths_are_named(bad):
    for position, name in enumerate(["n_in", "n_out"]):
        widths = [bad, 1] if position == 0 else [1, bad]
        with pytest.raises(ValueError, match=f"^{name} must be an integer of at least 1, got"):
            MaskedLinear(*widths)
        with pytest.raises(ValueError, match=f"^{name} must be an integer of at least 1, got"):
            MaskedConv2d(*widths, 3, mask="A")
    MaskedLinear(1, 1)
    MaskedConv2d(1, 1, 3, mask="A")


@pytest.mark.parametrize(
    ("kernel_size", "mask", "message"),
    [
        (4, "A", "kernel_size must be odd, got 4"),
        (1, "A", "kernel_size must be an integer of at least 3, got 1"),
        (3.0, "A", "kernel_size must be an integer of at least 3, got 3.0"),
        (3, "C", "mask must be one of A, B, got 'C'"),
        (3, None, "mask must be one of A, B, got None"),
    ],
)
def test_bad_kernels_are_named(kernel_size, mask, message):
    with pytest.raises(ValueError, match="^" + message):
        MaskedConv2d(1, 1, kernel_size, mask=mask)
    with pytest.raises(ValueError, match="^" + message):
        raster_mask(kernel_size, mask)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2), r"x must have shape \[B, 2\], got \[2\]"),
        (torch.zeros(1, 3), r"x must have shape \[B, 2\], got \[1, 3\]"),
        (torch.zeros(1, 2).long(), "x must be a floating-point tensor, got torch.int64"),
        (torch.zeros(1, 2).double(), "x must be torch.float32 like the model, got torch.float64"),
    ],
)
def test_bad_vectors_are_named(x, message):
    with pytest.raises(ValueError, match="^" + message):
        MaskedLinear(2, 3)(x, torch.ones(3, 2))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 3), r"mask must have shape \[3, 2\], got \[2, 3\]"),
        (torch.ones(3, 2).bool(), "mask must be a floating-point tensor, got torch.bool"),
        (torch.ones(3, 2).double(), "mask must be torch.float32 like the model, got torch.float64"),
        (None, r"mask must be a tensor of shape \[3, 2\], got NoneType"),
    ],
)
def test_bad_masks_are_named(mask, message):
    with pytest.raises(ValueError, match="^" + message):
        MaskedLinear(2, 3)(torch.zeros(1, 2), mask)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 5, 5), r"x must have shape \[B, 2, any, any\], got \[2, 5, 5\]"),
        (torch.zeros(1, 1, 5, 5), r"x must have shape \[B, 2, any, any\], got \[1, 1, 5, 5\]"),
        (torch.zeros(1, 2, 5, 5).long(), "x must be a floating-point tensor, got torch.int64"),
        (torch.zeros(1, 2, 5, 5).double(), "x must be torch.float32 like the model"),
    ],
)
def test_bad_images_are_named(x, message):
    with pytest.raises(ValueError, match="^" + message):
        MaskedConv2d(2, 3, 3, mask="A")(x)
