"""The perceptron against its formula, written out."""

import pytest
import torch

from course_lib.nn import MLP, ConvNet, MaskedConv2d, MaskedLinear


def test_it_is_the_formula():
    net = MLP(3, [5, 4], 2).double()
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second, last = (net.layers[i] for i in (0, 2, 4))
    h = (x @ first.weight.T + first.bias).clamp(min=0)
    h = (h @ second.weight.T + second.bias).clamp(min=0)
    torch.testing.assert_close(net(x), h @ last.weight.T + last.bias)
    assert [tuple(p.shape) for p in net.parameters() if p.ndim == 2] == [(5, 3), (4, 5), (2, 4)]


def test_leading_dimensions_are_batches():
    net = MLP(3, [4], 2)
    x = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0))
    assert net(x).shape == (5, 6, 2)
    torch.testing.assert_close(net(x)[2, 3], net(x[2, 3]))


def test_without_hidden_layers_it_is_linear():
    net = MLP(3, [], 2)
    x, y = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(x + y) + net(torch.zeros(4, 3)), net(x) + net(y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, [4], 2), "n_in must be an integer of at least 1, got 0"),
        ((2, [4, -1], 2), r"hidden\[1\] must be an integer of at least 1, got -1"),
        ((2, 4, 2), "hidden must be a sequence of integers, got 4"),
        ((2, [4], 1.5), "n_out must be an integer of at least 1, got 1.5"),
    ],
)
def test_bad_widths_are_named(arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        MLP(*arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(()), r"x must have shape \[..., 2\], got \[\]"),
        (torch.zeros(3, 4), r"x must have shape \[..., 2\], got \[3, 4\]"),
        (torch.zeros(0, 2), r"x must have any shape but an empty one, got \[0, 2\]"),
        (torch.zeros(3, 2).long(), "x must be a floating-point tensor, got torch.int64"),
        (torch.zeros(3, 2).double(), "x must be torch.float32 like the model, got torch.float64"),
    ],
)
def test_bad_points_are_named(x, message):
    with pytest.raises(ValueError, match="^" + message):
        MLP(2, [4], 1)(x)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (MLP(2, [4], 1), (3, 2)),
        (ConvNet(2, [4], 1), (1, 2, 4, 4)),
        (lambda x: MaskedLinear(2, 3)(x, torch.ones(3, 2)), (1, 2)),
        (MaskedConv2d(2, 3, 3, mask="B"), (1, 2, 5, 5)),
    ],
)
def test_inside_a_model_no_number_is_looked_at(net, shape):
    """Models ask once, at the door, whether all is finite; a NaN stays one, unhidden."""
    assert net(torch.full(shape, torch.nan)).isnan().all()
