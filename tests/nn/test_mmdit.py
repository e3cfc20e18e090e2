"""Stable Diffusion 3's transformer: patches, places, joint attention, blocks that start as nothing.

Attention and blocks are written again here, in double precision and with other means.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from course_lib.nn import (
    Attention,
    CrossAttention,
    JointAttention,
    MMDiT,
    MMDiTBlock,
    patchify,
    sincos_positions,
    unpatchify,
)
from course_lib.nn.mmdit import modulate


@pytest.fixture(autouse=True)
def _same_start():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@torch.no_grad()
def stirred(module):
    """In double precision, with weights of which none is 0 or 1 any more."""
    for parameter in module.double().parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def a_text(n=2, length=5, dim=6):
    """A context, and a mask whose rows differ."""
    return randn(n, length, dim), torch.arange(length) < torch.tensor([[3], [5], [1]])[:n]


def net_of(**options):
    return stirred(MMDiT((2, 4, 6), **({"patch": 2, "dim": 8, "depth": 2, "heads": 2} | options)))


# ------------------------------------------------------------------------------------- patches


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)
)
def test_patches_are_squares_row_by_row_and_go_back(n, channels, rows, columns, p):
    x = randn(n, channels, rows * p, columns * p)
    tokens = patchify(x, p)
    by_hand = x.reshape(n, channels, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5)
    assert torch.equal(tokens, by_hand.reshape(n, rows * columns, channels * p * p))
    assert torch.equal(unpatchify(tokens, p, (rows * p, columns * p)), x)


def test_a_patch_is_cut_at_its_place():
    x = torch.arange(2 * 4 * 6.0).reshape(1, 2, 4, 6)
    assert torch.equal(patchify(x, 2)[0, 4], x[0, :, 2:4, 2:4].flatten())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: patchify(torch.zeros(1, 1, 4, 6), 4), r"patch must divide .*\(4, 6\), got 4"),
        (lambda: patchify(torch.zeros(1, 1, 6, 4), 4), r"patch must divide .*\(6, 4\), got 4"),
        (lambda: patchify(torch.zeros(1, 4, 4), 2), "x must"),
        (lambda: patchify(torch.zeros(1, 1, 4, 4), 0), r"patch must be .* got 0"),
        (lambda: unpatchify(torch.zeros(1, 4, 4), 2, (4, 5)), r"patch must divide .*\(4, 5\)"),
        (lambda: unpatchify(torch.zeros(1, 4, 6), 2, (4, 4)), "tokens must have C · 2² .* got 6"),
        (lambda: unpatchify(torch.zeros(1, 3, 4), 2, (4, 4)), "tokens must"),
        (lambda: unpatchify(torch.zeros(1, 4, 4), 0, (4, 4)), "patch must"),
        (lambda: unpatchify(torch.zeros(1, 4, 4), 2, (0, 4)), r"size\[0\] must"),
    ],
)
def test_bad_patches_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ----------------------------------------------------------------------------------- positions


@pytest.mark.parametrize("trained", [None, (2, 3), (8, 4)])
@pytest.mark.parametrize(
    ("height", "width", "dim"), [(3, 5, 8), (1, 1, 4), (4, 2, 12), (1, 200, 8)]
)
def test_positions_are_sines_and_cosines_of_row_and_column(height, width, dim, trained):
    got = sincos_positions(height, width, dim, trained=trained)
    high, wide = trained or (height, width)
    for row in range(height):
        for column in range(width):
            wanted = []
            for place in (row * high / height, column * wide / width):
                angles = [place / 10_000 ** (4 * i / dim) for i in range(dim // 4)]
                wanted += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            torch.testing.assert_close(got[row * width + column], torch.tensor(wanted))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2, 8), "height must"),
        ((2, 0, 8), "width must"),
        ((2, 2, 6), "dim must be a multiple of 4, got 6"),
        ((2, 2, 0), "dim must"),
    ],
)
def test_bad_grids_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sincos_positions(*arguments)
    with pytest.raises(ValueError, match=r"trained\[0\] must"):
        sincos_positions(2, 2, 8, trained=(0, 2))


def test_another_size_is_stretched_over_the_known_grid_or_goes_on_beyond_it():
    net = net_of()
    x = randn(1, 2, 8, 6)
    assert torch.equal(net.positions_of(x[:, :, :4]), net.positions)
    stretched = sincos_positions(4, 3, 8, trained=(2, 3)).double()
    assert torch.equal(net.positions_of(x), stretched)
    net.stretch = False
    assert torch.equal(net.positions_of(x)[:6], net.positions)  # the first rows are those known
    assert torch.equal(net.positions_of(x), sincos_positions(4, 3, 8).double())
    assert net(x, torch.ones(1)).shape == x.shape
    assert not MMDiT((1, 4, 4), dim=8, depth=1, stretch=False).stretch


# ----------------------------------------------------------------------------- joint attention


def by_einsum(layer, *streams):
    """Q, K, V of each stream by the rows of its weights: a list of (q, k, v), [B, N, heads, d]."""
    size, parts = layer.dim // layer.heads, []
    for i, x in enumerate(streams):
        w = layer.qkv[i].weight.reshape(3, layer.heads, size, layer.dim)
        b = layer.qkv[i].bias.reshape(3, layer.heads, size)
        q, k, v = torch.einsum("phse,bne->pbnhs", w, x) + b[:, None, None]
        if layer.qk_norm:
            q = q / (q.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.norm_q[i].weight
            k = k / (k.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.norm_k[i].weight
        parts.append((q, k, v))
    return parts


def attention_by_einsum(layer, *streams, mask=None):
    """Every stream asks every stream: exponentials summed stream by stream, no concatenation."""
    parts = by_einsum(layer, *streams)
    seen = torch.ones(len(streams[0]), sum(x.shape[1] for x in streams), dtype=torch.bool)
    seen = (seen if mask is None else mask).split([x.shape[1] for x in streams], dim=1)
    answers = []
    for i, (q, _, _) in enumerate(parts):
        over = under = 0
        for (_, k, v), may in zip(parts, seen, strict=True):
            e = torch.exp(torch.einsum("bnhs,bmhs->bhnm", q, k) / q.shape[-1] ** 0.5)
            e = e * may[:, None, None]
            over, under = over + torch.einsum("bhnm,bmhs->bnhs", e, v), under + e.sum(-1)
        o = (over / under.transpose(1, 2)[..., None]).flatten(2)
        answers.append(o @ layer.out[i].weight.T + layer.out[i].bias)
    return answers


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize(("heads", "lengths"), [(1, (4,)), (2, (4, 3)), (4, (2, 5, 1))])
def test_all_streams_look_at_all(heads, lengths, qk_norm, masked):
    layer = stirred(JointAttention(8, heads, qk_norm=qk_norm, streams=len(lengths)))
    streams = [randn(2, n, 8) for n in lengths]
    mask = torch.rand(2, sum(lengths)) > 0.4 if masked else None
    if masked:
        mask[:, 0] = True
    wanted = attention_by_einsum(layer, *streams, mask=mask)
    for got, want in zip(layer(*streams, mask=mask), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_one_stream_is_self_attention_and_equal_weights_make_one_stream_of_two():
    joint, alone = stirred(JointAttention(8, 2, qk_norm=False, streams=1)), Attention(8, 2).double()
    alone.qkv, alone.out = joint.qkv[0], joint.out[0]
    x = randn(2, 7, 8)
    torch.testing.assert_close(joint(x)[0], alone(x))
    both = JointAttention(8, 2, qk_norm=False)
    both.qkv[0] = both.qkv[1] = joint.qkv[0]
    both.out[0] = both.out[1] = joint.out[0]
    torch.testing.assert_close(torch.cat(both(x[:, :3], x[:, 3:]), dim=1), alone(x))


@pytest.mark.parametrize("masked", [False, True])
def test_weights_are_what_the_answer_is_made_of(masked):
    layer = stirred(JointAttention(8, 2))
    image, (words, mask) = randn(2, 4, 8), a_text(dim=8)
    mask = torch.cat([torch.ones(2, 4, dtype=torch.bool), mask], dim=1) if masked else None
    weights = layer.weights(image, words, mask=mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    assert not masked or not weights[0, :, :, 7:].any()
    v = torch.cat([part[2] for part in by_einsum(layer, image, words)], dim=1)
    o = torch.einsum("bhnm,bmhs->bnhs", weights, v).flatten(2)
    got = layer(image, words, mask=mask)
    torch.testing.assert_close(got[0], layer.out[0](o[:, :4]))
    torch.testing.assert_close(got[1], layer.out[1](o[:, 4:]))
    if not masked:
        torch.testing.assert_close(layer.logits(image, words).softmax(-1), weights)


@pytest.mark.parametrize("size", [1, 4])
def test_normed_logits_have_a_bound_however_large_the_weights_and_reach_it(size):
    layer = stirred(JointAttention(2 * size, 2))
    g = torch.stack([norm.weight for norm in layer.norm_q]), layer.norm_k
    g = g[0], torch.stack([norm.weight for norm in g[1]])
    products = (g[0][:, None] * g[1][None]).abs()
    bound = size**0.5 * products.max()
    image, words = randn(2, 5, 2 * size), randn(2, 3, 2 * size)
    with torch.no_grad():
        for linear in layer.qkv:
            linear.weight.mul_(1e6)
        assert layer.logits(image, words).abs().max() <= bound * (1 + 1e-9)
        place = int(products.amax((0, 1)).argmax())
        for linear in layer.qkv:  # all queries and keys along the one axis
            linear.weight.zero_()
            linear.bias.copy_(1e3 * F.one_hot(torch.tensor(place), size).repeat(6))
        reached = layer.logits(image, words).abs().max()
    torch.testing.assert_close(reached, bound, rtol=1e-8, atol=0)


def test_without_the_norm_logits_grow_with_the_weights_squared():
    layer = JointAttention(8, 2, qk_norm=False).double()
    x = randn(2, 4, 8), randn(2, 3, 8)
    before = layer.logits(*x)
    with torch.no_grad():
        for linear in layer.qkv:
            linear.weight.mul_(50)
            linear.bias.mul_(50)
    torch.testing.assert_close(layer.logits(*x), 2500 * before)


def test_what_may_not_be_looked_at_changes_nothing():
    layer = stirred(JointAttention(8, 2))
    image, (words, mask) = randn(2, 4, 8), a_text(dim=8)
    mask = torch.cat([torch.ones(2, 4, dtype=torch.bool), mask], dim=1)
    other = words.masked_fill(~mask[:, 4:, None], 1e3)
    assert torch.equal(layer(image, words, mask=mask)[0], layer(image, other, mask=mask)[0])
    cut = layer(image[:1], words[:1, :3])  # as if the words behind were not there
    torch.testing.assert_close(layer(image, words, mask=mask)[0][:1], cut[0])


def test_where_nothing_may_be_looked_at_nothing_is_taken():
    layer = stirred(JointAttention(8, 2))
    image, words, mask = randn(2, 4, 8), randn(2, 3, 8), torch.zeros(2, 7, dtype=torch.bool)
    mask[1] = True
    assert not layer.weights(image, words, mask=mask)[0].any()
    for got, out in zip(layer(image, words, mask=mask), layer.out, strict=True):
        torch.testing.assert_close(got[0], out.bias.expand_as(got[0]))


@pytest.mark.parametrize("kind", [Attention, JointAttention, lambda d, h: CrossAttention(d, 4, h)])
def test_heads_divide_the_width(kind):
    for dim, heads, message in [
        (8, 3, "heads must divide dim = 8, got 3"),
        (0, 1, "dim must"),
        (8, 0, "heads must be"),
        (8, 2.0, "heads must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            kind(dim, heads)


def test_bad_parts_of_a_block_are_named():
    with pytest.raises(ValueError, match=r"streams must be .* got 0"):
        JointAttention(8, 2, streams=0)
    with pytest.raises(ValueError, match="qk_norm must"):
        JointAttention(8, 2, qk_norm="rms")
    with pytest.raises(ValueError, match="expand must"):
        MMDiTBlock(8, 2, expand=0)


@pytest.mark.parametrize(
    "call", [lambda *s, **o: JointAttention(8, 2)(*s, **o), JointAttention(8, 2).weights]
)
def test_bad_streams_and_masks_are_named(call):
    image, words = torch.zeros(2, 4, 8), torch.zeros(2, 3, 8)
    for streams, message in [
        ((image,), "streams must be 2, got 1"),
        ((), "streams must be 2, got 0"),
        ((image, words, words), "streams must be 2, got 3"),
        ((image, words[:1]), r"streams\[1\] must"),
        ((image, words[..., :7]), r"streams\[1\] must"),
        ((image.double(), words), r"streams\[0\] must"),
        ((image[0], words), r"streams\[0\] must"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(*streams)
    for mask in (torch.ones(2, 7), torch.ones(2, 3, dtype=torch.bool), [True] * 7):
        with pytest.raises(ValueError, match=r"mask must be a bool tensor \[2, 7\], got"):
            call(image, words, mask=mask)


# --------------------------------------------------------------------------------------- blocks


def block_by_hand(block, *streams, c, mask=None):
    """The block's figure, a line at a time, for each stream."""

    def normed(x, shift, scale):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return (x - mean) / (var + 1e-6).sqrt() * (1 + scale) + shift

    said = []
    for layer in block.modulation:
        numbers = (c / (1 + torch.exp(-c))) @ layer.weight.T + layer.bias
        said.append(numbers.reshape(len(c), 6, 1, -1).unbind(1))
    inwards = [normed(x, s[0], s[1]) for x, s in zip(streams, said, strict=True)]
    attended = attention_by_einsum(block.attention, *inwards, mask=mask)
    out = []
    for x, o, mlp, s in zip(streams, attended, block.mlp, said, strict=True):
        x = x + s[2] * o
        h = normed(x, s[3], s[4]) @ mlp[0].weight.T + mlp[0].bias
        h = 0.5 * h * (1 + torch.tanh((2 / math.pi) ** 0.5 * (h + 0.044715 * h**3)))
        out.append(x + s[5] * (h @ mlp[2].weight.T + mlp[2].bias))
    return out


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("lengths", [(6,), (6, 5)])
def test_a_block_is_its_figure(lengths, qk_norm):
    block = stirred(MMDiTBlock(8, 2, qk_norm=qk_norm, streams=len(lengths), expand=3))
    streams, c = [randn(2, n, 8) for n in lengths], randn(2, 8)
    wanted = block_by_hand(block, *streams, c=c)
    for got, want in zip(block(*streams, c=c), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_modulated_tokens_are_stretched_and_moved_each_image_by_its_own():
    x, shift, scale = randn(2, 3, 4), randn(2, 4), randn(2, 4)
    wanted = torch.stack([x[i] + scale[i] * x[i] + shift[i] for i in range(2)])
    torch.testing.assert_close(modulate(x, shift, scale), wanted)


def test_blocks_change_nothing_at_the_start_and_the_answer_is_0():
    block = MMDiTBlock(8, 2)
    image, words = torch.randn(2, 4, 8), torch.randn(2, 3, 8)
    for got, given_ in zip(block(image, words, c=torch.randn(2, 8)), (image, words), strict=True):
        assert torch.equal(got, given_)
    net = MMDiT((1, 4, 4), dim=8, depth=2, heads=2, context_dim=6)
    assert not net(torch.randn(2, 1, 4, 4), torch.rand(2), context=torch.randn(2, 3, 6)).any()


def test_what_learns_at_the_first_step_of_a_block():
    block = MMDiTBlock(8, 2).double()
    out = block(randn(2, 4, 8), randn(2, 3, 8), c=randn(2, 8))
    sum((o * randn(*o.shape)).sum() for o in out).backward()
    for layer in block.modulation:
        for p in (layer.weight, layer.bias):
            parts = [part.any().item() for part in p.grad.chunk(6)]
            assert parts == [False, False, True, False, False, True]  # the gates alone
    others = [p for name, p in block.named_parameters() if "modulation" not in name]
    assert not any(p.grad.any() for p in others)


def test_what_learns_at_the_first_step_of_a_network():
    net = MMDiT((1, 4, 4), dim=8, depth=2, heads=2, context_dim=6).double()
    net(randn(2, 1, 4, 4), torch.rand(2), context=randn(2, 3, 6)).mul(
        randn(2, 1, 4, 4)
    ).sum().backward()
    learns = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert learns == {"out.weight", "out.bias"}


def test_gradients_of_a_block():
    block = stirred(MMDiTBlock(4, 2))
    inputs = [randn(1, 3, 4), randn(1, 2, 4), randn(1, 4)]
    mask = torch.tensor([[True, True, True, True, False]])
    assert torch.autograd.gradcheck(
        lambda x, w, c: block(x, w, c=c, mask=mask), [x.requires_grad_() for x in inputs]
    )


def test_bad_arguments_of_a_block_are_named():
    block, x, c = MMDiTBlock(8, 2, streams=1), torch.zeros(2, 4, 8), torch.zeros(2, 8)
    with pytest.raises(ValueError, match="streams must be 1, got 2"):
        block(x, x, c=c)
    with pytest.raises(ValueError, match="c must"):
        block(x, c=c[:1])
    with pytest.raises(ValueError, match="mask must"):
        block(x, c=c, mask=torch.ones(2, 3, dtype=torch.bool))


# ------------------------------------------------------------------------------------ the whole


def test_patches_moved_with_their_places_change_nothing():
    net = net_of(context_dim=6)
    context, mask = a_text()
    (image, words), c, seen = net.tokens(
        randn(2, 2, 4, 6), torch.rand(2), context=context, mask=mask
    )
    order, turned = torch.randperm(6), torch.randperm(5)
    plain = image, words
    mixed = image[:, order], words[:, turned]
    both = torch.cat([seen[:, :6], seen[:, 6:][:, turned]], dim=1)
    for block in net.blocks:
        plain, mixed = block(*plain, c=c, mask=seen), block(*mixed, c=c, mask=both)
    torch.testing.assert_close(mixed[0], plain[0][:, order])
    torch.testing.assert_close(mixed[1], plain[1][:, turned])


def test_without_places_patches_are_a_set_and_with_them_not():
    net = net_of()
    x, t = randn(1, 2, 4, 6), torch.rand(1)
    turned = unpatchify(patchify(x, 2).flip(1), 2, (4, 6))

    def back(answer):
        return unpatchify(patchify(answer, 2).flip(1), 2, (4, 6))

    assert not torch.allclose(back(net(turned, t)), net(x, t))
    net.positions.zero_()
    torch.testing.assert_close(back(net(turned, t)), net(x, t))


@pytest.mark.parametrize("kind", ["plain", "classes", "text"])
def test_the_network_is_its_parts(kind):
    options = {"classes": {"n_classes": 3}, "text": {"context_dim": 6}}.get(kind, {})
    net = net_of(**options)
    x, t = randn(2, 2, 4, 6), torch.tensor([0.2, 0.9], dtype=torch.float64)
    y = torch.tensor([2, 0]) if kind == "classes" else None
    context, mask = a_text() if kind == "text" else (None, None)
    c, seen = net.time(t, y), None
    tokens = [net.patches(patchify(x, 2)) + sincos_positions(2, 3, 8)]
    if kind == "text":
        tokens.append(net.words(context))
        mean = torch.stack([context[i, mask[i]].mean(0) for i in range(2)])
        c = c + net.pooled(mean)
        seen = torch.cat([torch.ones(2, 6, dtype=torch.bool), mask], dim=1)
    for block in net.blocks:
        tokens = block_by_hand(block, *tokens, c=c, mask=seen)
    shift, scale = net.modulation(F.silu(c)).chunk(2, dim=1)
    h = F.layer_norm(tokens[0], (8,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]
    wanted = unpatchify(net.out(h), 2, (4, 6))
    got = net(x, t, y, context=context, mask=mask)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)  # positions are single precision


@pytest.mark.parametrize("patch", [1, 3])
def test_patches_of_any_size_that_divides_the_image(patch):
    net, x = MMDiT((2, 6, 3), patch=patch, dim=8, depth=1, heads=2), torch.randn(2, 2, 6, 3)
    assert net(x, torch.rand(2)).shape == x.shape
    assert net.patches.in_features == net.out.out_features == 2 * patch * patch


def test_what_is_said_of_a_text_is_the_mean_of_its_words():
    """Of one word that word, of none 0."""
    net, seen = net_of(context_dim=6), []
    net.pooled.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    context = randn(4, 4, 6)
    mask = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    net(randn(4, 2, 4, 6), torch.rand(4), context=context, mask=mask)
    means = [context[0, 0], context[1, 1:3].mean(0), context[2].mean(0), 0 * context[3, 0]]
    torch.testing.assert_close(seen[0], torch.stack(means))


def test_padding_says_nothing_and_by_default_all_words_count():
    net = net_of(context_dim=6)
    x, t, (context, mask) = randn(2, 2, 4, 6), torch.rand(2), a_text()
    got = net(x, t, context=context, mask=mask)
    other = context.masked_fill(~mask[:, :, None], 1e3)
    assert torch.equal(got, net(x, t, context=other, mask=mask))
    torch.testing.assert_close(got[:1], net(x[:1], t[:1], context=context[:1, :3]))
    every = torch.ones_like(mask)
    assert torch.equal(net(x, t, context=context), net(x, t, context=context, mask=every))


def test_a_text_without_words_is_finite():
    net = net_of(context_dim=6)
    x, t, (context, mask) = randn(2, 2, 4, 6), torch.rand(2), a_text()
    mask[0] = False
    got = net(x, t, context=context, mask=mask)
    assert got.isfinite().all()
    assert torch.equal(got, net(x, t, context=context.masked_fill(~mask[:, :, None], 7), mask=mask))


def test_what_is_stored_is_named_as_before():
    names = set(net_of(context_dim=6, n_classes=3, null_class=True).state_dict())
    kinds = {name.replace("blocks.1", "blocks.0") for name in names}
    assert "positions" not in names
    assert {name.removeprefix("blocks.0.").split(".")[0] for name in kinds} == {
        "attention", "mlp", "modulation", "out", "patches", "pooled", "time", "words",
    }  # fmt: skip
    assert "blocks.0.attention.norm_q.1.weight" in names
    assert "blocks.0.attention.norm_q.1.weight" not in net_of(qk_norm=False).state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 4}, r"patch must divide height and width, \(4, 6\), got 4"),
        ({"patch": 0}, "patch must"),
        ({"dim": 6}, "dim must be a multiple of 4, got 6"),
        ({"dim": 2}, "dim must be .* at least 4"),
        ({"dim": 0}, "dim must be .* at least 4"),
        ({"depth": 0}, "depth must"),
        ({"heads": 3}, "heads must divide dim = 8, got 3"),
        ({"context_dim": 0}, "context_dim must"),
        ({"stretch": 1}, "stretch must"),
    ],
)
def test_bad_networks_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        net_of(**options)


def test_the_smallest_networks_are_allowed():
    net = net_of(dim=4, heads=1, depth=1, context_dim=1)
    assert net.words.in_features == 1
    assert MMDiTBlock(4, 1, expand=1).mlp[0][0].out_features == 4


def test_bad_shapes_are_named():
    for shape in ((4, 6), (1, 2, 4, 6), (0, 4, 4)):
        with pytest.raises(ValueError, match=r"event_shape(\[0\])? must"):
            MMDiT(shape)


def test_bad_inputs_are_named():
    net, x, t = net_of(context_dim=6), randn(2, 2, 4, 6), torch.rand(2)
    context, mask = a_text()
    for arguments, options, message in [
        ((x[:, :1], t), {"context": context}, "x must"),
        ((x.float(), t), {"context": context}, "x must"),
        ((x * torch.nan, t), {"context": context}, "x must"),
        ((x[..., :5], t), {"context": context}, "patch must divide"),
        ((x, t[:1]), {"context": context}, "t must"),
        ((x, t), {}, "context must"),
        ((x, t), {"context": context[..., :5]}, "context must"),
        ((x, t), {"context": context.float()}, "context must"),
        ((x, t), {"context": context[:1]}, "context must"),
        ((x, t), {"context": context, "mask": mask.double()}, "mask must"),
        ((x, t), {"context": context, "mask": mask[:, :3]}, "mask must"),
    ]:
        with pytest.raises(ValueError, match=message):
            net(*arguments, **options)
    with pytest.raises(ValueError, match="context must be None for a network without context_dim"):
        net_of()(x, t, context=context)
