"""Grey levels: dequantizing is uniform, invertible, inside [0, 1); binarizing keeps the mean."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from course_lib.data import binarize, dequantize, load_digits, quantize
from tests.no_float64 import elsewhere


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def refuses(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


class OnGPU(torch.Generator):
    device = torch.device("cuda")


# --- dequantize and quantize -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_grey_level_comes_back_bit_by_bit(dtype):
    for levels in range(2, 257):
        x = (torch.arange(levels, dtype=dtype) / (levels - 1)).expand(20, levels)
        y = dequantize(x, levels, generator=seeded(levels))
        assert y.dtype == dtype
        assert y.shape == x.shape
        assert y.min() >= 0
        assert y.max() < 1
        assert torch.equal(quantize(y, levels), x)


@pytest.mark.parametrize("levels", [2, 17, 100, 255, 256])
@pytest.mark.parametrize("slot", [0, 2**15 - 1])
def test_the_first_and_the_last_slot_stay_in_their_level(monkeypatch, levels, slot):
    """Plain u ~ U[0, 1) in float32 would at times be rounded to the next level, or to 1.0."""
    monkeypatch.setattr(torch, "randint", lambda high, size, **_: torch.full(size, slot))
    x = torch.arange(levels, dtype=torch.float32) / (levels - 1)
    y = dequantize(x, levels)
    assert y.max() < 1
    assert torch.equal(quantize(y, levels), x)
    u = (y.double() * levels) - torch.arange(levels)
    assert u.numpy() == pytest.approx((slot + 0.5) / 2**15, abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 256), st.floats(0, 1, exclude_max=True, width=32))
def test_quantize_rounds_down_to_the_level_whose_interval_holds_x(levels, value):
    k = quantize(torch.tensor([value], dtype=torch.float64), levels) * (levels - 1)
    assert k.item() == pytest.approx(math.floor(value * levels), abs=1e-9)


def test_the_noise_is_uniform_on_each_interval():
    levels = 17
    for k in (0, 7, 16):
        x = torch.full((20_000,), k / 16)
        u = dequantize(x, levels, generator=seeded(k)) * levels - k
        assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3


def test_digits_dequantize():
    images, _ = load_digits("train")
    y = dequantize(images, 17, generator=seeded())
    assert y.shape == images.shape
    assert torch.equal(quantize(y, 17), images)


def test_dequantize_draws_from_the_generator_or_else_the_global_one():
    x = torch.zeros(100)
    state = torch.get_rng_state()
    try:
        first = dequantize(x, 256, generator=seeded(1))
        assert torch.equal(first, dequantize(x, 256, generator=seeded(1)))
        assert not torch.equal(first, dequantize(x, 256, generator=seeded(2)))
        assert torch.equal(state, torch.get_rng_state())
        torch.manual_seed(3)
        one, two = dequantize(x, 256), dequantize(x, 256)
        torch.manual_seed(3)
        assert torch.equal(one, dequantize(x, 256))
        assert not torch.equal(one, two)
    finally:
        torch.set_rng_state(state)


def test_dequantize_takes_a_single_number():
    assert 0.5 <= dequantize(torch.tensor(1.0), 2, generator=seeded()).item() < 1


def test_a_value_may_be_off_by_a_thousandth_of_a_level():
    for k, off in ((1, 0.0009), (1, -0.0009), (0, -0.0009), (16, 0.0009)):
        x = torch.tensor([(k + off) / 16])
        assert quantize(dequantize(x, 17, generator=seeded()), 17).item() == k / 16
    for k, off in ((1, 0.0011), (1, -0.0011), (0, -0.0011), (16, 0.0011)):
        x = torch.tensor([(k + off) / 16])
        with refuses(f"x must hold grey values k / 16 with k = 0 … 16, got {x.item()}"):
            dequantize(x, 17)


@pytest.mark.parametrize(
    ("x", "levels", "got"),
    [
        (torch.tensor([0.0, 0.5]), 256, 0.5),
        (torch.tensor([1.0, 0.25, 0.75]), 2, 0.25),
        (torch.tensor([1.0625]), 17, 1.0625),
        (torch.tensor([-0.0625]), 17, -0.0625),
        (torch.tensor([[0.0], [16.0]]), 17, 16.0),
    ],
)
def test_dequantize_names_a_value_that_is_no_grey_level(x, levels, got):
    top = levels - 1
    with refuses(f"x must hold grey values k / {top} with k = 0 … {top}, got {got}"):
        dequantize(x, levels)


@pytest.mark.parametrize("levels", [1, 0, 257, 17.0, True, None])
@pytest.mark.parametrize("function", [dequantize, quantize])
def test_bad_levels(function, levels):
    with refuses(f"levels must be an integer from 2 to 256, got {levels!r}"):
        function(torch.zeros(3), levels)


@pytest.mark.parametrize(
    "function", [lambda x: dequantize(x, 2), lambda x: quantize(x, 2), binarize]
)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([0.0], "x must be a tensor of any shape but an empty one, got list"),
        (torch.zeros(2).long(), "x must be a floating-point tensor, got torch.int64"),
        (torch.zeros(0, 1, 8, 8), "x must have any shape but an empty one, got [0, 1, 8, 8]"),
        (torch.tensor([math.nan]), "x must be finite, got NaN or infinite values"),
        (torch.tensor([math.inf]), "x must be finite, got NaN or infinite values"),
    ],
)
def test_bad_x(function, x, message):
    with refuses(message):
        function(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dequantize_refuses_half_precision(dtype):
    with refuses(f"x must be float32 or float64, got {dtype}"):
        dequantize(torch.zeros(2, dtype=dtype), 17)


@pytest.mark.parametrize(
    "function", [lambda x, g: dequantize(x, 2, generator=g), lambda x, g: binarize(x, generator=g)]
)
def test_bad_generator(function):
    with refuses("generator must be a torch.Generator or None, got 0"):
        function(torch.zeros(2), 0)
    with refuses("generator must be on device cpu, got cuda"):
        function(torch.zeros(2), OnGPU())


@pytest.mark.parametrize("value", [1.0000001192092896, 1.5, -0.25])
def test_quantize_refuses_what_lies_outside(value):
    with refuses(f"x must lie in [0, 1], got {value}"):
        quantize(torch.tensor([0.5, value, 7.0]), 17)


@pytest.mark.parametrize("levels", [2, 17, 255, 256])
def test_samples_are_clamped_and_quantized_as_the_docstring_says(levels):
    samples = torch.tensor([1.2, 1.0, 1 - 2**-24, 0.0, -0.3])
    assert quantize(samples.clamp(0, 1), levels).tolist() == [1, 1, 1, 0, 0]


def test_no_double_precision_is_needed():
    x = elsewhere(torch.linspace(0, 1, 17))
    y = dequantize(x, 17, generator=seeded())
    assert torch.equal(quantize(y, 17).cpu(), x.cpu())
    assert set(binarize(x, generator=seeded()).cpu().tolist()) == {0, 1}


def test_quantize_at_the_edges():
    x = torch.tensor([0.0, 1 - 2**-24, 0.25, 0.25 - 2**-26])
    assert quantize(x, 4).tolist() == pytest.approx([0, 1, 1 / 3, 0])
    assert quantize(x.half()[2:3], 4).dtype == torch.float16


# --- binarize ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_binarize_draws_pixels_with_the_grey_value_as_probability(dtype):
    p = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=dtype)
    n = 20_000
    x = binarize(p.expand(n, 5), generator=seeded())
    assert x.dtype == dtype
    assert x.shape == (n, 5)
    assert set(x.unique().tolist()) == {0, 1}
    mean = x.mean(0)
    assert mean[0] == 0
    assert mean[4] == 1
    assert ((mean - p).abs() <= 4 * (p * (1 - p) / n).sqrt()).all()


def test_binarize_draws_from_the_generator_or_else_the_global_one():
    p = torch.full((100,), 0.5)
    state = torch.get_rng_state()
    try:
        first = binarize(p, generator=seeded(1))
        assert torch.equal(first, binarize(p, generator=seeded(1)))
        assert not torch.equal(first, binarize(p, generator=seeded(2)))
        assert torch.equal(state, torch.get_rng_state())
        torch.manual_seed(3)
        one, two = binarize(p), binarize(p)
        torch.manual_seed(3)
        assert torch.equal(one, binarize(p))
        assert not torch.equal(one, two)
    finally:
        torch.set_rng_state(state)


def test_binarize_with_a_threshold():
    x = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    assert binarize(x, threshold=0.5).tolist() == [0, 0, 0, 1, 1]
    assert binarize(x, threshold=0.25).tolist() == [0, 0, 1, 1, 1]
    assert binarize(x, threshold=0).tolist() == [0, 1, 1, 1, 1]
    assert binarize(x.double(), threshold=0.99).tolist() == [0, 0, 0, 0, 1]
    assert binarize(x, threshold=0.5).dtype == torch.float32
    assert binarize(x.double(), threshold=0.5).dtype == torch.float64
    assert torch.equal(x, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))


@pytest.mark.parametrize("threshold", [-0.1, 1, 1.0, 2, math.nan, math.inf, True, False, "0.5"])
def test_bad_threshold(threshold):
    with refuses(f"threshold must be a number in [0, 1) or None, got {threshold!r}"):
        binarize(torch.zeros(2), threshold=threshold)


def test_a_threshold_takes_no_generator():
    with refuses("generator must be None beside a threshold: nothing is drawn"):
        binarize(torch.zeros(2), threshold=0.5, generator=seeded())


@pytest.mark.parametrize("value", [1.25, -0.25, 255.0])
def test_binarize_refuses_what_lies_outside(value):
    with refuses(f"x must lie in [0, 1], got {value}"):
        binarize(torch.tensor([0.5, value]))
    with refuses(f"x must lie in [0, 1], got {value}"):
        binarize(torch.tensor([0.5, value]), threshold=0.5)
