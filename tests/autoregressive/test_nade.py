"""NADE against its formula, written out as loops over examples, coordinates and hidden units."""

import math

import pytest
import torch

from course_lib.autoregressive import NADE
from tests.autoregressive.conftest import make

each_order = pytest.mark.parametrize("name", ["nade", "nade shuffled"])


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


@each_order
def test_it_is_the_formula(name, generator):
    """O(n² d): each hidden layer is summed from its beginning."""
    case = make(name, generator, dim=6)
    W, V, c, b = (getattr(case.model, key).tolist() for key in "WVcb")
    x = case.states[::7]
    expected = torch.zeros_like(x)
    for row, example in enumerate(x.tolist()):
        for k, i in enumerate(case.order):
            h = [
                sigmoid(c[unit] + sum(W[j][unit] * example[j] for j in case.order[:k]))
                for unit in range(case.model.hidden)
            ]
            a = b[i] + sum(V[i][unit] * h[unit] for unit in range(case.model.hidden))
            expected[row, i] = sigmoid(a)
    torch.testing.assert_close(case.model.conditionals(x), expected, rtol=1e-12, atol=0)


@each_order
def test_every_coordinate_before_is_seen(name, generator):
    case = make(name, generator, dim=7)
    x = torch.randint(2, (7,), generator=generator).double()
    jacobian = torch.autograd.functional.jacobian(lambda p: case.model.conditionals(p[None])[0], x)
    for k, i in enumerate(case.order):
        for place, j in enumerate(case.order):
            assert (jacobian[i, j] != 0) == (place < k)


@each_order
@pytest.mark.parametrize("in_cache", [1, 60, 61, 10**9])
def test_parts_of_a_batch_are_the_batch(name, in_cache, generator, monkeypatch):
    """Rows are computed in parts that fit in the cache; here one, or a few, or all at a time."""
    case = make(name, generator, dim=5)
    together = case.model.log_prob(case.states)
    monkeypatch.setattr("course_lib.autoregressive.nade.IN_CACHE", in_cache)
    torch.testing.assert_close(case.model.log_prob(case.states), together, rtol=1e-12, atol=0)


def test_it_begins_with_sums_of_size_one():
    """W spreads over n terms of a sum, V over d; the biases are zero."""
    torch.manual_seed(0)
    model = NADE(100, 400)
    assert model.W.shape == model.V.shape == (100, 400)
    assert abs(model.W.std() * 10 - 1) < 0.02
    assert abs(model.V.std() * 20 - 1) < 0.02
    assert model.c.shape == (400,)
    assert model.b.shape == (100,)
    assert not model.c.any()
    assert not model.b.any()


@pytest.mark.parametrize("hidden", [0, -1, 2.0, None, [3], True])
def test_a_bad_width_is_named(hidden):
    with pytest.raises(ValueError, match=r"^hidden must be an integer of at least 1, got"):
        NADE(3, hidden)
    assert NADE(3, 1).sample(2).shape == (2, 3)
