"""Logits grow without normalization, and not with it; what float16 makes of large ones."""

import math

import pytest
import torch

from course_lib.data import load_digits, to_signed
from course_lib.experiments import growing_logits
from course_lib.experiments.growing_logits import seen_of


def test_without_the_norm_float16_ends_within_ten_steps_and_with_it_it_does_not():
    digits = to_signed(load_digits("train")[0])
    free, normed = (growing_logits(digits, qk_norm=norm, steps=12) for norm in (False, True))
    assert free.overflow.any()
    assert free.overflow.nonzero()[0] < 10
    assert (free.nan <= free.overflow).all()  # never NaN without an overflow
    assert free.entropy[-1] < 0.05
    assert not normed.overflow.any()
    assert not normed.nan.any()
    assert free.logit[-1] > 50 * normed.logit[-1]
    assert free.loss.isfinite().all()


def test_what_is_seen_of_queries_and_keys():
    q, k = torch.zeros(1, 1, 4, 16), torch.zeros(1, 1, 4, 16)
    assert seen_of([(q, k)]) == (0.0, pytest.approx(1.0), False, False)
    q[..., 0], k[..., 0, 0] = 200.0, 200.0  # 40,000 at one key: the softmax takes it alone
    assert seen_of([(q, k)]) == (10_000.0, 0.0, False, False)
    q *= 2  # 80,000 is infinite in float16, and infinite less infinite is not a number
    assert seen_of([(q, k)]) == (20_000.0, 0.0, True, True)
    k *= -1  # minus infinity is a key that is not looked at
    largest, entropy, overflow, nan = seen_of([(q, k)])
    assert (largest, overflow, nan) == (20_000.0, True, False)
    assert entropy == pytest.approx(math.log(3) / math.log(4))


def test_it_is_the_same_again_and_leaves_the_global_generator_alone():
    x, state = torch.ones(8, 1, 4, 4), torch.get_rng_state()
    first, again = (growing_logits(x, qk_norm=False, steps=2, lr=0.01, seed=3) for _ in range(2))
    assert torch.equal(first.logit, again.logit)
    assert torch.equal(state, torch.get_rng_state())
    unasked, asked = (
        growing_logits(x, qk_norm=True, lr=1e-3, **o) for o in ({}, {"steps": 40, "seed": 0})
    )
    assert torch.equal(unasked.loss, asked.loss)
    assert growing_logits(x, qk_norm=True, steps=1).logit.shape == (1,)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"x": torch.zeros(2, 1, 4)}, "x must have shape"),
        ({"qk_norm": 1}, "qk_norm must be"),
        ({"lr": 0}, "lr must be"),
        ({"steps": 0}, "steps must be"),
    ],
)
def test_bad_input(bad, match):
    with pytest.raises(ValueError, match=match):
        growing_logits(**({"x": torch.zeros(2, 1, 4, 4), "qk_norm": True} | bad))
