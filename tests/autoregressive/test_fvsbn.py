"""FVSBN against its formula, written out as loops."""

import math

import pytest
import torch

from course_lib.autoregressive import FVSBN, order_mask
from tests.autoregressive.conftest import make

each_order = pytest.mark.parametrize("name", ["fvsbn", "fvsbn shuffled"])


@each_order
def test_it_is_a_logistic_regression_on_the_coordinates_before(name, generator):
    case = make(name, generator, dim=6)
    weight, bias = case.model.linear.weight.tolist(), case.model.linear.bias.tolist()
    x = case.states[::7]
    expected = torch.zeros_like(x)
    for row, example in enumerate(x.tolist()):
        for k, i in enumerate(case.order):
            a = bias[i] + sum(weight[i][j] * example[j] for j in case.order[:k])
            expected[row, i] = 1 / (1 + math.exp(-a))
    torch.testing.assert_close(case.model.conditionals(x), expected, rtol=1e-12, atol=0)


@each_order
def test_every_coordinate_before_is_seen(name, generator):
    case = make(name, generator, dim=7)
    x = torch.randint(2, (7,), generator=generator).double()
    jacobian = torch.autograd.functional.jacobian(lambda p: case.model.conditionals(p[None])[0], x)
    for k, i in enumerate(case.order):
        for place, j in enumerate(case.order):
            assert (jacobian[i, j] != 0) == (place < k)


def test_half_of_the_square_is_used():
    model = FVSBN(9)
    assert model.mask.sum() == 9 * 8 / 2
    assert sum(p.numel() for p in model.parameters()) == 9 * 9 + 9


def test_the_order_is_by_name_only():
    with pytest.raises(TypeError):
        FVSBN(2, [1, 0])


def test_the_mask_of_an_order():
    """Visited as 2, 0, 1: coordinate 0 comes after 2, and 1 after both."""
    assert order_mask([2, 0, 1]).tolist() == [[0, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert torch.equal(FVSBN(3, order=[2, 0, 1]).mask, order_mask((2, 0, 1)))
    assert torch.equal(order_mask(range(4)), torch.ones(4, 4).tril(-1))
    with pytest.raises(ValueError, match=r"^order must hold each of 0 ... 1 once, got \[0, 2\]"):
        order_mask([0, 2])
    with pytest.raises(ValueError, match=r"^order must be a sequence of integers, got 3"):
        order_mask(3)
