"""A transformer's block against its formula, head by head, and its cache against a full pass."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib.attention import naive_attention
from course_lib.nn import Attention, CrossAttention, KeyValueCache, TransformerBlock


@pytest.fixture
def x():
    return torch.randn(2, 7, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def by_hand(attention, x, causal):
    """Self-attention of ``x [B, N, dim]``, one head after the other."""
    d, q_k_v = 12 // attention.heads, x @ attention.qkv.weight.T + attention.qkv.bias
    q, k, v = q_k_v.split(12, dim=2)
    heads = []
    for h in range(attention.heads):
        own = slice(h * d, (h + 1) * d)
        s = q[..., own] @ k[..., own].mT / d**0.5
        if causal:
            s = s.masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf)
        heads.append(s.softmax(-1) @ v[..., own])
    return torch.cat(heads, 2) @ attention.out.weight.T + attention.out.bias


@pytest.mark.parametrize("heads", [1, 3, 12])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("options", [{}, {"attend": naive_attention}])
def test_attention_is_the_formula(heads, causal, options, x):
    attention = Attention(12, heads, causal=causal, **options).double()
    torch.testing.assert_close(attention(x), by_hand(attention, x, causal))


def test_without_a_word_nothing_is_hidden(x):
    attention = Attention(12, 2).double()
    torch.testing.assert_close(attention(x), by_hand(attention, x, causal=False))


@pytest.mark.parametrize("causal", [False, True])
def test_the_block_is_the_formula(causal, x):
    block = TransformerBlock(12, 2, causal=causal, expand=3).double()
    first, _, second = block.mlp
    for norm in (block.norm_1, block.norm_2):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)

    def normalized(h, norm):
        h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5) ** 0.5
        return norm.weight * h + norm.bias

    h = x + by_hand(block.attention, normalized(x, block.norm_1), causal)
    hidden = F.gelu(normalized(h, block.norm_2) @ first.weight.T + first.bias)
    assert hidden.shape == (2, 7, 36)
    torch.testing.assert_close(block(x), h + hidden @ second.weight.T + second.bias)


def test_widths_by_default():
    block = TransformerBlock(12, 3)
    assert block.mlp[0].out_features == 4 * 12
    assert not block.attention.causal


@pytest.mark.parametrize("pieces", [[1] * 7, [3, 1, 2, 1], [7]])
def test_with_a_cache_tokens_may_come_in_pieces(pieces, x):
    block, cache = TransformerBlock(12, 3, causal=True).double(), KeyValueCache()
    outputs = [block(piece, cache) for piece in x.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(outputs, 1), block(x), rtol=0, atol=1e-12)
    assert cache.k.shape == cache.v.shape == (2, 3, 7, 4)


def test_a_token_sees_none_that_come_later(x):
    block = TransformerBlock(12, 3, causal=True).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: block(x[None])[0], x[0])
    seen = (jacobian != 0).any(3).any(1)  # [i, j]: whether token i depends on token j
    assert torch.equal(seen, torch.ones(7, 7).tril().bool())


def test_any_function_attends_and_gets_what_it_needs(x):
    def attend(q, k, v, *, causal):
        assert q.shape == k.shape == v.shape == (2, 3, 7, 4)
        assert causal is True
        return v

    attention = Attention(12, 3, causal=True, attend=attend).double()
    values = (x @ attention.qkv.weight.T + attention.qkv.bias)[..., 24:]
    torch.testing.assert_close(attention(x), attention.out(values))


# --- looking elsewhere ---------------------------------------------------------------------------

MASK = torch.tensor([[True, True, True, False, False], [True, False, True, False, True]])


@pytest.fixture
def context():
    return torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("heads", [1, 3, 12])
def test_cross_attention_is_the_formula(heads, mask, x, context):
    """By hand, head by head; by the naive attention; by ``weights``."""
    cross, d = CrossAttention(12, 8, heads).double(), 12 // heads
    q = x @ cross.q.weight.T + cross.q.bias
    k, v = (context @ cross.kv.weight.T + cross.kv.bias).split(12, dim=2)
    by_head, weights = [], cross.weights(x, context, mask)
    assert weights.shape == (2, heads, 7, 5)
    for h in range(heads):
        own = slice(h * d, (h + 1) * d)
        s = q[..., own] @ k[..., own].mT / d**0.5
        if mask is not None:
            s = s.masked_fill(~mask[:, None], -torch.inf)
        torch.testing.assert_close(weights[:, h], s.softmax(-1))
        by_head.append(s.softmax(-1) @ v[..., own])
    expected = torch.cat(by_head, 2) @ cross.out.weight.T + cross.out.bias
    torch.testing.assert_close(cross(x, context, mask), expected)
    q, k, v = (part.unflatten(2, (heads, d)).transpose(1, 2) for part in (q, k, v))
    seen = naive_attention(q, k, v, mask=None if mask is None else mask[:, None, None])
    torch.testing.assert_close(cross.out(seen.transpose(1, 2).flatten(2)), expected)
    torch.testing.assert_close(weights @ v, seen)


def test_weights_sum_to_one_and_are_zero_at_the_padding(x, context):
    weights = CrossAttention(12, 8, 3).double().weights(x, context, MASK)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 7, dtype=torch.float64))
    positive = (weights > 0).all(dim=2)  # for every token of x
    assert torch.equal(positive, MASK[:, None].expand(2, 3, 5))
    assert (weights[~MASK[:, None, None].expand_as(weights)] == 0).all()


def test_what_is_masked_does_not_matter_and_without_a_mask_it_does(x, context):
    cross = CrossAttention(12, 8, 3).double()
    other = torch.where(MASK[:, :, None], context, 9.0)
    assert torch.equal(cross(x, other, MASK), cross(x, context, MASK))
    assert ((cross(x, other) - cross(x, context)).abs() > 1e-3).any(dim=2).all()
    cut = cross(x[:1], context[:1, :3])  # the first row has nothing behind its third
    torch.testing.assert_close(cross(x[:1], context[:1], MASK[:1]), cut, rtol=0, atol=1e-14)


def test_a_lookup_does_not_ask_in_which_order_things_lie(x, context):
    cross = CrossAttention(12, 8, 3).double()
    moved = cross(x, context.flip(1), MASK.flip(1))
    torch.testing.assert_close(moved, cross(x, context, MASK))


@pytest.mark.parametrize("mask", [None, MASK])
def test_the_block_looks_at_the_context_in_between(mask, x, context):
    block = TransformerBlock(12, 3, context_dim=8).double()
    h = x + block.attention(block.norm_1(x))
    h = h + block.cross(block.norm_cross(h), context, mask)
    expected = h + block.mlp(block.norm_2(h))
    assert torch.equal(block(x, context=context, mask=mask), expected)
    assert block.cross.heads == 3
    assert TransformerBlock(12, 3).cross is None


def test_weights_of_a_block_without_context_are_those_of_before():
    """Its names and its random start, as models of chapters 15 and 16 were trained with."""
    torch.manual_seed(0)
    block = TransformerBlock(4, 2)
    torch.manual_seed(0)
    parts = [nn.Linear(4, 12), nn.Linear(4, 4), nn.Linear(4, 16), nn.Linear(16, 4)]
    names = ["attention.qkv", "attention.out", "mlp.0", "mlp.2"]
    for name, part in zip(names, parts, strict=True):
        assert torch.equal(block.get_submodule(name).weight, part.weight)
    kinds = {key.rsplit(".", 1)[0] for key in block.state_dict()}
    assert kinds == {*names, "norm_1", "norm_2"}


def test_inside_a_model_no_number_is_looked_at():
    assert TransformerBlock(4, 2)(torch.full((1, 3, 4), torch.nan)).isnan().all()


def looked(x=torch.zeros(2, 3, 4), context=torch.zeros(2, 5, 6), mask=None):  # noqa: B008
    cross = CrossAttention(4, 6, 2)
    assert cross(torch.zeros(2, 3, 4), torch.zeros(2, 5, 6), torch.ones(2, 5).bool()).any()
    return cross(x, context, mask)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Attention(0, 1), "dim must be an integer of at least 1, got 0"),
        (lambda: Attention(4, 0), "heads must be an integer of at least 1, got 0"),
        (lambda: Attention(4, 3), "heads must divide dim = 4, got 3"),
        (lambda: Attention(4, 2, causal=1), "causal must be True or False, got 1"),
        (lambda: TransformerBlock(4, 8), "heads must divide dim = 4, got 8"),
        (lambda: TransformerBlock(4, 2, expand=0), "expand must be an integer of at least 1"),
        (lambda: Attention(4, 2)(torch.zeros(2, 4)), r"x must have shape \[B, any, 4\]"),
        (lambda: Attention(4, 2)(torch.zeros(2, 3, 5)), r"x must have shape \[B, any, 4\]"),
        (
            lambda: Attention(4, 2)(torch.zeros(1, 3, 4).double()),
            "x must be torch.float32 like the model, got torch.float64",
        ),
        (lambda: CrossAttention(0, 4, 1), "dim must be an integer of at least 1, got 0"),
        (lambda: CrossAttention(4, 0, 1), "context_dim must be an integer of at least 1, got 0"),
        (lambda: CrossAttention(4, 4, 0), "heads must be an integer of at least 1, got 0"),
        (lambda: CrossAttention(4, 6, 3), "heads must divide dim = 4, got 3"),
        (lambda: looked(torch.zeros(2, 3, 5)), r"x must have shape \[B, any, 4\]"),
        (lambda: looked(context=torch.zeros(1, 5, 6)), r"context must have shape \[2, any, 6\]"),
        (lambda: looked(context=torch.zeros(2, 5, 4)), r"context must have shape \[2, any, 6\]"),
        (lambda: looked(context=torch.zeros(2, 0, 6)), r"context must have shape \[2, any, 6\]"),
        (lambda: looked(context=None), r"context must be a tensor of shape \[2, any, 6\]"),
        (
            lambda: looked(context=torch.zeros(2, 5, 6).double()),
            "context must be torch.float32 like the model, got torch.float64",
        ),
        (
            lambda: looked(mask=torch.ones(2, 4).bool()),
            r"mask must be a bool tensor \[2, 5\], got torch.bool \[2, 4\]",
        ),
        (
            lambda: looked(mask=torch.ones(2, 5)),
            r"mask must be a bool tensor \[2, 5\], got torch.float32 \[2, 5\]",
        ),
        (lambda: looked(mask=[True]), r"mask must be a bool tensor \[2, 5\], got \[True\]"),
        (lambda: TransformerBlock(4, 2, context_dim=0), "context_dim must be an integer"),
        (
            lambda: TransformerBlock(4, 2)(torch.zeros(2, 3, 4), context=torch.zeros(2, 5, 6)),
            "context must be None for a block without context_dim",
        ),
        (
            lambda: TransformerBlock(4, 2, context_dim=6)(torch.zeros(2, 3, 4)),
            r"context must be a tensor of shape \[2, any, 6\]",
        ),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match="^" + message):
        build()
