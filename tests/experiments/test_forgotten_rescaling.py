"""Attention without rescaling: right where the largest logit comes first, and only there."""

import pytest
import torch

from course_lib.attention import naive_attention
from course_lib.experiments import forget_to_rescale


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_right_where_the_largest_logit_comes_first():
    logits, values = randn(6).sort(descending=True).values, randn(6, 3, seed=1)
    logits[1:] = logits[1:].flip(0)  # the others in any order
    wanted = naive_attention(torch.ones(1, 1).double(), logits[:, None], values[:, :1], scale=1.0)
    torch.testing.assert_close(forget_to_rescale(logits, values)[:1], wanted[0])


def test_it_forgets_both_corrections_and_nothing_else():
    logits, values = randn(6).flip(0), randn(6, 3, seed=1)
    terms = torch.exp(logits - logits.cummax(0).values)
    torch.testing.assert_close(forget_to_rescale(logits, values), terms @ values / terms.sum())
    assert (forget_to_rescale(logits, values) - torch.softmax(logits, 0) @ values).norm() > 0.01


@pytest.mark.parametrize(
    ("logits", "values", "match"),
    [
        (torch.zeros(2, 2), torch.zeros(2, 2), "logits must have shape"),
        (torch.zeros(2), torch.zeros(3, 2), "values must have shape"),
        (torch.tensor([0.0, float("nan")]), torch.zeros(2, 2), "logits must be finite"),
        ([0.0], torch.zeros(1, 2), "logits must be"),
    ],
)
def test_bad_input(logits, values, match):
    with pytest.raises(ValueError, match=match):
        forget_to_rescale(logits, values)
