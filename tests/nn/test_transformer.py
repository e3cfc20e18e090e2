"""A transformer's block against its formula, head by head, and its cache against a full pass."""

import pytest
import torch
from torch.nn import functional as F

from course_lib.attention import naive_attention
from course_lib.nn import Attention, KeyValueCache, TransformerBlock


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


def test_inside_a_model_no_number_is_looked_at():
    assert TransformerBlock(4, 2)(torch.full((1, 3, 4), torch.nan)).isnan().all()


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
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(ValueError, match="^" + message):
        build()
