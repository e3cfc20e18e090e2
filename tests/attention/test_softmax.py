"""The softmax in passes over its numbers, against its definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from course_lib.attention import online_softmax, safe_softmax

each = pytest.mark.parametrize("softmax", [safe_softmax, online_softmax])
LOGITS = st.floats(-1e4, 1e4) | st.just(-math.inf)


@each
@settings(max_examples=60, deadline=None)
@given(x=arrays("float64", array_shapes(min_dims=1, max_dims=3, max_side=5), elements=LOGITS))
def test_it_is_the_softmax(softmax, x):
    x = torch.from_numpy(x)
    expected = torch.softmax(x, -1).nan_to_num(0)  # NaN where all logits are −∞
    torch.testing.assert_close(softmax(x), expected, rtol=1e-12, atol=1e-15)


@each
def test_sums_are_one_and_where_nothing_is_seen_they_are_zero(softmax):
    x = torch.tensor([[-math.inf, -math.inf], [-math.inf, 3.0], [-2e38, 2e38]])
    assert softmax(x).tolist() == [[0, 0], [0, 1], [0, 1]]


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_logits_in_any_precision(softmax, dtype):
    x = torch.tensor([10_000.0, 10_000.0, -10_000.0], dtype=dtype)
    assert softmax(x).tolist() == [0.5, 0.5, 0]
    assert softmax(x).dtype == dtype


@each
def test_gradients_are_those_of_the_softmax(softmax):
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(softmax, x.requires_grad_())


@each
@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([0.0], "x must be a tensor of any shape but an empty one, got list"),
        (torch.zeros(2, 0), r"x must have any shape but an empty one, got \[2, 0\]"),
        (torch.tensor(1.0), r"x must have shape \[..., N\], got \[\]"),
        (torch.tensor([1, 2]), "x must be a floating-point tensor, got torch.int64"),
        (torch.tensor([0.0, math.nan]), r"x must be finite or −inf, got NaN or \+inf"),
        (torch.tensor([0.0, math.inf]), r"x must be finite or −inf, got NaN or \+inf"),
    ],
)
def test_bad_logits_are_named(softmax, x, message):
    with pytest.raises(ValueError, match="^" + message):
        softmax(x)
