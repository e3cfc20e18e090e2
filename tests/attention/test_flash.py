"""Attention as it is defined, key by key, and in tiles: the same numbers and gradients."""

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from course_lib.attention import (
    flash_attention,
    flash_attention_numpy,
    flash_backward,
    flash_forward,
    naive_attention,
    online_attention,
)

sizes = st.integers(1, 9)
blocks = st.integers(1, 10) | st.tuples(st.integers(1, 10), st.integers(1, 10))
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def draw(*shape, seed=0, dtype=torch.float64, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(shape, dtype=torch.float64, generator=generator)).to(dtype)


def draw_qkv(n_q, n_k, d=4, lead=(2,), **options):
    return [draw(*lead, n, d, seed=i, **options) for i, n in enumerate((n_q, n_k, n_k))]


def draw_mask(n_q, n_k, lead=(2,), shape=None):
    """Booleans, three in five True, of the full shape or with sizes of 1."""
    generator = torch.Generator().manual_seed(n_q + 10 * n_k)
    return torch.rand(shape or (*lead, n_q, n_k), generator=generator) < 0.6


def by_definition(q, k, v, *, causal=False, scale=None, mask=None):
    """Query by query, key by key; a query that sees nothing gets 0."""
    n_q, n_k = q.shape[-2], k.shape[-2]
    may = torch.ones(*q.shape[:-1], n_k, dtype=torch.bool) if mask is None else mask
    may = may.expand(*q.shape[:-1], n_k)
    output = torch.zeros_like(q)
    for place in np.ndindex(*q.shape[:-2]):
        for i in range(n_q):
            keys = [
                j for j in range(n_k) if may[(*place, i, j)] and (not causal or n_q - i <= n_k - j)
            ]
            if keys:
                s = (
                    k[place][keys]
                    @ q[(*place, i)]
                    * (q.shape[-1] ** -0.5 if scale is None else scale)
                )
                output[(*place, i)] = s.softmax(0) @ v[place][keys]
    return output


def outcome(attend, q, k, v, **options):
    """The output, and the gradients of a sum with fixed weights."""
    inputs = [x.clone().requires_grad_() for x in (q, k, v)]
    o = attend(*inputs, **options)
    weights = draw(*o.shape, seed=7, dtype=o.dtype)
    return o.detach(), *torch.autograd.grad((weights * o).sum(), inputs)


def close(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **(tolerance or EXACT))


# --- naive ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    n_q=sizes,
    n_k=sizes,
    causal=st.booleans(),
    masked=st.booleans(),
    scale=st.sampled_from([None, 0.3, 2]),
)
def test_naive_attention_is_the_definition(n_q, n_k, causal, masked, scale):
    q, k, v = draw_qkv(n_q, n_k, spread=2.0)
    options = {"causal": causal, "scale": scale, "mask": draw_mask(n_q, n_k) if masked else None}
    torch.testing.assert_close(
        naive_attention(q, k, v, **options), by_definition(q, k, v, **options)
    )


@pytest.mark.parametrize(("n_q", "n_k"), [(6, 6), (3, 8), (8, 3)])
@pytest.mark.parametrize("attend", [naive_attention, flash_attention])
def test_causal_is_a_mask_and_where_it_can_be_pytorchs(attend, n_q, n_k):
    q, k, v = draw_qkv(n_q, n_k, lead=(2, 3))
    mask = torch.ones(n_q, n_k, dtype=torch.bool).tril(n_k - n_q)
    ours = attend(q, k, v, causal=True)
    theirs = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(ours, theirs.nan_to_num(0), **EXACT)
    torch.testing.assert_close(ours, attend(q, k, v, mask=mask[None, None]), **EXACT)
    pytorchs = scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.allclose(ours, pytorchs, rtol=1e-12) == (n_q == n_k)  # aligned at the start


def test_a_query_that_sees_no_key_gets_nothing_and_gives_nothing():
    q, k, v = draw_qkv(5, 3)
    mask = draw_mask(5, 3)
    mask[:, 2] = False
    for attend in (naive_attention, flash_attention):
        o, dq, _, _ = outcome(attend, q, k, v, mask=mask)
        assert (o[:, 2] == 0).all()
        assert (dq[:, 2] == 0).all()
        assert (o[:, [0, 1, 3, 4]] != 0).any()
        o, dq, _, _ = outcome(attend, q, k, v, causal=True)
        assert (o[:, :2] == 0).all()  # 5 queries, 3 keys: the first two see none
        assert (dq[:, :2] == 0).all()
        assert (o[:, 2:] != 0).all()
        blind = torch.zeros(1, 1, 1, dtype=torch.bool)
        assert all((x == 0).all() for x in outcome(attend, q, k, v, mask=blind))
    _, lse = flash_forward(q, k, v, mask=mask)
    assert (lse[:, 2] == -math.inf).all()
    assert lse[:, 3:].isfinite().all() == mask[:, 3:].any(-1).all()


# --- one pass and NumPy --------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    n_q=sizes, n_k=sizes, scale=st.sampled_from([None, 0.3]), spread=st.sampled_from([1.0, 100.0])
)
def test_online_attention_is_the_same(n_q, n_k, scale, spread):
    q, k, v = draw_qkv(n_q, n_k, spread=spread)
    ours, theirs = (f(q, k, v, scale=scale) for f in (online_attention, naive_attention))
    torch.testing.assert_close(ours, theirs, **EXACT)


@settings(max_examples=60, deadline=None)
@given(n_q=sizes, n_k=sizes, block=blocks, causal=st.booleans(), scale=st.sampled_from([None, 0.3]))
def test_numpy_is_the_same(n_q, n_k, block, causal, scale):
    q, k, v = draw_qkv(n_q, n_k, lead=(), spread=2.0)
    options = {"causal": causal, "scale": scale}
    arrays = (x.numpy() for x in (q, k, v))
    ours = torch.from_numpy(flash_attention_numpy(*arrays, block=block, **options))
    torch.testing.assert_close(ours, naive_attention(q, k, v, **options), **EXACT)


def test_numpy_by_default_and_in_single_precision():
    q, k, v = draw_qkv(150, 130, lead=(), dtype=torch.float32)
    ours = flash_attention_numpy(q.numpy(), k.numpy(), v.numpy())
    assert ours.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(ours), naive_attention(q, k, v))


# --- tiles ---------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(n_q=sizes, n_k=sizes, block=blocks, causal=st.booleans(), masked=st.booleans())
def test_whatever_the_block_it_is_the_same(n_q, n_k, block, causal, masked):
    q, k, v = draw_qkv(n_q, n_k)
    options = {"causal": causal, "mask": draw_mask(n_q, n_k) if masked else None}
    ours = outcome(flash_attention, q, k, v, block=block, **options)
    close(ours, outcome(naive_attention, q, k, v, **options))


@pytest.mark.parametrize(
    "shape", [(a, b, c, d) for a in (1, 2) for b in (1, 3) for c in (1, 5) for d in (1, 7)]
)
def test_masks_of_every_shape(shape):
    q, k, v = draw_qkv(5, 7, lead=(2, 3))
    mask = draw_mask(5, 7, shape=shape)
    ours = outcome(flash_attention, q, k, v, mask=mask, block=(2, 3), causal=True)
    whole = mask.expand(2, 3, 5, 7)
    close(ours, outcome(naive_attention, q, k, v, mask=whole, causal=True))
    close(ours, outcome(naive_attention, q, k, v, mask=mask, causal=True))


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 2)])
@pytest.mark.parametrize("scale", [None, 0.05, 3])
def test_any_leading_dimensions_and_scale(lead, scale):
    q, k, v = draw_qkv(5, 6, lead=lead)
    ours = outcome(flash_attention, q, k, v, scale=scale, block=2)
    close(ours, outcome(naive_attention, q, k, v, scale=scale))
    close(ours[:1], [by_definition(q, k, v, scale=scale)])


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"mask": draw_mask(5, 4, (1,))}])
def test_gradients_by_finite_differences(options):
    q, k, v = (x.requires_grad_() for x in draw_qkv(5, 4, d=3))
    attend = lambda q, k, v: flash_attention(q, k, v, block=(2, 3), scale=0.7, **options)  # noqa: E731
    assert torch.autograd.gradcheck(attend, (q, k, v))


@pytest.mark.parametrize("block", [1, 3, 64])
def test_huge_logits(block):
    """Of ±10⁴, where exp of any of them overflows or vanishes."""
    q, k, v = draw_qkv(6, 8)
    q, k = 100 * q / q.norm(dim=-1, keepdim=True), 100 * k / k.norm(dim=-1, keepdim=True)
    s = q @ k.mT
    assert s.max() > 8000
    assert s.min() < -8000
    ours = outcome(flash_attention, q, k, v, scale=1, block=block)
    close(ours[:1], outcome(naive_attention, q, k, v, scale=1)[:1], rtol=1e-11, atol=1e-11)
    assert all(x.isfinite().all() for x in ours)
    single = flash_attention(q.float(), k.float(), v.float(), scale=1, block=block)
    torch.testing.assert_close(single, ours[0].float(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("dtype", "close_to"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_is_added_up_in_single(dtype, close_to):
    """The same as in float32, up to one rounding of what goes in and comes out."""
    q, k, v = draw_qkv(40, 300, d=8, dtype=dtype)
    ours = outcome(flash_attention, q, k, v, block=16)
    assert all(x.dtype == dtype for x in ours)
    wide = outcome(flash_attention, q.float(), k.float(), v.float(), block=16)
    assert torch.equal(ours[0], wide[0].to(dtype))
    close([x.float() for x in ours], wide, rtol=close_to, atol=close_to)
    o, lse = flash_forward(q, k, v)
    assert (o.dtype, lse.dtype) == (dtype, torch.float32)
    q, k, v = (1000 * x for x in draw_qkv(2, 3, d=8, dtype=torch.float16))
    assert flash_attention(q / 1000, k, v).isfinite().all()


def test_strides_do_not_matter():
    q, k, v = (draw(2, 4, 3, n, seed=n).permute(0, 2, 3, 1) for n in (5, 6, 6))
    assert not q.is_contiguous()
    close(
        outcome(flash_attention, q, k, v, block=4),
        outcome(flash_attention, *(x.contiguous() for x in (q, k, v)), block=4),
    )
    q = q.detach().requires_grad_()
    flash_attention(q, k, v).sum().backward()  # a gradient of strides 0
    ones = torch.autograd.grad(naive_attention(q, k, v).sum(), q)[0]
    torch.testing.assert_close(q.grad, ones, **EXACT)


def test_a_whole_block_by_default():
    q, k, v = draw_qkv(300, 270, d=2, lead=())
    close(
        outcome(flash_attention, q, k, v, causal=True),
        outcome(naive_attention, q, k, v, causal=True),
    )


def test_tiles_have_the_size_that_was_measured():
    for function, size in [
        (flash_attention_numpy, 64),
        (flash_attention, 256),
        (flash_forward, 256),
        (flash_backward, 256),
    ]:
        assert inspect.signature(function).parameters["block"].default == size


def test_inputs_are_left_as_they_were():
    q, k, v = draw_qkv(5, 5)
    copies = [x.clone() for x in (q, k, v)]
    outcome(flash_attention, q, k, v, causal=True)
    close((q, k, v), copies, rtol=0, atol=0)


def test_gradients_of_gradients_are_refused():
    q, k, v = (x.requires_grad_() for x in draw_qkv(2, 2))
    (dq,) = torch.autograd.grad((flash_attention(q, k, v) ** 2).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dq.sum().backward()


# --- forward and backward as functions -----------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("block", [2, (3, 2), 256])
@pytest.mark.parametrize("mask", [None, draw_mask(5, 6)])
@pytest.mark.parametrize("scale", [None, 0.4])
def test_forward_and_backward_are_autograds(causal, block, mask, scale):
    q, k, v = draw_qkv(5, 6)
    options = {"causal": causal, "mask": mask, "scale": scale}
    o, lse = flash_forward(q, k, v, block=block, **options)
    expected = outcome(naive_attention, q, k, v, **options)
    s = (0.5 if scale is None else scale) * q @ k.mT
    may = torch.ones(5, 6, dtype=torch.bool).tril(1) if causal else torch.tensor(True)
    may = may if mask is None else may & mask
    torch.testing.assert_close(lse, s.masked_fill(~may, -math.inf).logsumexp(-1), **EXACT)
    do = draw(*o.shape, seed=7)
    close((o, *flash_backward(do, q, k, v, o, lse, block=block, **options)), expected)


def test_forward_and_backward_by_default():
    q, k, v = draw_qkv(3, 300, d=2)
    o, lse = flash_forward(q, k, v)
    gradients = flash_backward(draw(*o.shape, seed=7), q, k, v, o, lse)
    close((o, *gradients), outcome(naive_attention, q, k, v))


# --- bad input -----------------------------------------------------------------------------------

Q, K = torch.zeros(2, 3, 4), torch.zeros(2, 5, 4)
SEEN = torch.ones(2, 3, 5, dtype=torch.bool)
BAD = [
    ((None, K, K), {}, "q must be a tensor of any shape but an empty one, got NoneType"),
    ((Q.long(), K, K), {}, "q must be a floating-point tensor, got torch.int64"),
    ((Q.to(torch.float8_e4m3fn), K, K), {}, "q must have 16 bits a number or more, got"),
    ((Q[0, 0], K, K), {}, r"q must have shape \[..., N_q, d\], got \[4\]"),
    ((Q + math.nan, K, K), {}, "q must be finite, got NaN or infinite values"),
    ((Q[:, :0], K, K), {}, r"q must have any shape but an empty one, got \[2, 0, 4\]"),
    ((Q, [K], K), {}, "k must be a tensor of any shape but an empty one, got list"),
    ((Q, K[:1], K), {}, r"k must have shape \[2, N_k, 4\] to go with q, got \[1, 5, 4\]"),
    ((Q, K[..., :3], K), {}, r"k must have shape \[2, N_k, 4\] to go with q, got \[2, 5, 3\]"),
    ((Q, K[0], K), {}, r"k must have shape \[2, N_k, 4\] to go with q, got \[5, 4\]"),
    ((Q, K - math.inf, K), {}, "k must be finite, got NaN or infinite values"),
    ((Q, K.double(), K), {}, "k must be torch.float32 like q, got torch.float64"),
    ((Q, K, K[:, :4]), {}, r"v must have shape \[2, 5, 4\], got \[2, 4, 4\]"),
    ((Q, K, K.half()), {}, "v must be torch.float32 like q, got torch.float16"),
    ((Q, K, K + math.nan), {}, "v must be finite, got NaN or infinite values"),
    ((Q, K, K), {"scale": 0}, "scale must be a finite number above 0, got 0"),
    ((Q, K, K), {"scale": "1"}, "scale must be a finite number above 0, got '1'"),
]
BAD_CAUSAL = [((Q, K, K), {"causal": 1}, "causal must be True or False, got 1")]
BAD_MASK = [
    ((Q, K, K), {"mask": SEEN.float()}, "mask must be a tensor of booleans, True where a key is "),
    ((Q, K, K), {"mask": [True]}, "mask must be a tensor of booleans, .*got list"),
    ((Q, K, K), {"mask": SEEN[0]}, r"mask must have shape \[2, 3, 5\], any size of it may be 1"),
    ((Q, K, K), {"mask": SEEN[:, :2]}, r"mask must have shape \[2, 3, 5\], .* got \[2, 2, 5\]"),
    ((Q, K, K), {"mask": SEEN.mT}, r"mask must have shape \[2, 3, 5\], .* got \[2, 5, 3\]"),
]
BAD_MASK.append(((Q, K, K), {"mask": SEEN.to("meta")}, "mask must be on cpu like q, got meta"))
BAD_BLOCK = [
    ((Q, K, K), {"block": 0}, "block must be an integer of at least 1, got 0"),
    ((Q, K, K), {"block": (2, -1)}, "block must be an integer of at least 1, got -1"),
    ((Q, K, K), {"block": 2.0}, "block must be an integer of at least 1, got 2.0"),
    ((Q, K, K), {"block": (1, 2, 3)}, r"block must be an integer or a pair .*, got \(1, 2, 3\)"),
    ((Q, K, K), {"block": [2, 2]}, r"block must be an integer or a pair .*, got \[2, 2\]"),
]


@pytest.mark.parametrize(
    ("attend", "bad"),
    [
        (online_attention, BAD),
        (naive_attention, BAD + BAD_CAUSAL + BAD_MASK),
        (flash_attention, BAD + BAD_CAUSAL + BAD_MASK + BAD_BLOCK),
        (flash_forward, BAD + BAD_CAUSAL + BAD_MASK + BAD_BLOCK),
    ],
)
def test_bad_input_is_named(attend, bad):
    for inputs, options, message in bad:
        with pytest.raises(ValueError, match="^" + message):
            attend(*inputs, **options)


def test_bad_arrays_are_named():
    for inputs, options, message in BAD[4:5] + BAD[15:] + BAD_CAUSAL + BAD_BLOCK:
        arrays = (x[0].numpy() for x in inputs)
        with pytest.raises(ValueError, match="^" + message):
            flash_attention_numpy(*arrays, **options)
    q, k = Q[0].numpy(), K[0].numpy()
    for inputs, message in [
        ((Q[0], k, k), r"q must be an array \[N, d\], got Tensor"),
        ((q, K.numpy(), k), r"k must be an array \[N, d\], got \[2, 5, 4\]"),
        ((q, k, k.astype(int)), "v must be of float32 or float64, got int64"),
        ((q, k.astype(np.float64), k), "k must be torch.float32 like q, got torch.float64"),
        ((np.ma.array(q), k, k), r"q must be an array \[N, d\], got MaskedArray"),
        ((q[:0], k, k), r"q must have any shape but an empty one, got \[0, 4\]"),
    ]:
        with pytest.raises(ValueError, match="^" + message):
            flash_attention_numpy(*inputs)


@pytest.mark.filterwarnings("error")
def test_arrays_may_be_turned_round_and_read_only():
    q, k, v = (x.numpy() for x in draw(3, 6, 4))
    q.flags.writeable = False
    o = flash_attention_numpy(q[::-1], k[::-1], v, block=2)
    plain = (torch.from_numpy(x.copy()) for x in (q[::-1], k[::-1], v))
    close([torch.from_numpy(o)], [naive_attention(*plain)])


def test_bad_input_of_the_way_back_is_named():
    lse = torch.zeros(2, 3)
    for inputs, options, message in [
        ((Q[:, :2], Q, K, K, Q, lse), {}, r"do must have shape \[2, 3, 4\], got \[2, 2, 4\]"),
        ((Q + math.nan, Q, K, K, Q, lse), {}, "do must be finite"),
        ((Q.double(), Q, K, K, Q, lse), {}, "do must be torch.float32 like q"),
        ((Q, Q, K, K, Q[:1], lse), {}, r"o must have shape \[2, 3, 4\], got \[1, 3, 4\]"),
        ((Q, Q, K, K, Q - math.inf, lse), {}, "o must be finite"),
        ((Q, Q, K, K, Q.half(), lse), {}, "o must be torch.float32 like q"),
        ((Q, Q, K, K, Q, lse[..., None]), {}, r"lse must have shape \[2, 3\], got \[2, 3, 1\]"),
        ((Q, Q, K[:1], K, Q, lse), {}, "k must have shape"),
        ((Q, Q, K, K, Q, lse * math.nan), {}, "lse must be finite or −inf, got NaN"),
        ((Q, Q, K, K, Q, lse + math.inf), {}, "lse must be finite or −inf, got NaN or .inf"),
        ((Q, Q, K, K, Q, lse), {"block": 0}, "block must be an integer of at least 1"),
    ]:
        with pytest.raises(ValueError, match="^" + message):
            flash_backward(*inputs, **options)
