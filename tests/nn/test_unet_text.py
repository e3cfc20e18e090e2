"""The U-Net that looks at a text: by its description, its start, its ways down and up, its door."""

import hashlib
import math
import re

import pytest
import torch

from course_lib.nn import UNet
from course_lib.nn.unet import ResBlock, SelfAttention, SpatialTransformer
from tests.nn.test_unet import randn, randomize


@pytest.fixture(autouse=True)
def _the_same_start_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


MASK = torch.tensor([[True, True, False], [True, False, False]])


def small(**options):
    options = {"widths": (4, 6), "groups": 2, "heads": 2, "context_dim": 5, **options}
    return UNet((1, 4, 4), **options)


def told(dtype=torch.float64):
    """Images, times and a text."""
    x, context = randn(2, 1, 4, 4, dtype=dtype), randn(2, 3, 5, seed=1, dtype=dtype)
    return x, torch.tensor([1.0, 7.0]), context


def refuses(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


# --- without a text, as before -------------------------------------------------------------------

# Digests of networks as they were built before there was a text.
BEFORE = {
    "plain": ({"widths": (8, 16)}, "0f20834815cb58be"),
    "classes": ({"widths": (8, 16, 16), "blocks": 2, "n_classes": 3}, "edf52877a0eebdc8"),
}


def digest(net):
    """Of all names, and of all numbers to four digits, which are the same on all machines."""
    state = net.state_dict()
    words = [
        f"{key} {list(value.shape)} {value.double().sum():.4f}" for key, value in state.items()
    ]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", BEFORE)
def test_without_a_text_names_and_random_start_are_those_of_before(name):
    options, expected = BEFORE[name]
    torch.manual_seed(0)
    net = UNet((1, 8, 8), **options)
    assert digest(net) == expected
    assert isinstance(net.middle[1], SelfAttention)
    assert all(m.look is None for m in net.modules() if isinstance(m, ResBlock))
    assert net.context_dim is None


# --- with a text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, MASK])
def test_a_look_is_the_formula(mask):
    look = randomize(SpatialTransformer(6, 2, 5, 3)).double()
    x, context = randn(2, 6, 3, 2, dtype=torch.float64), told()[2]
    pixels = look.norm(x).permute(0, 2, 3, 1).reshape(2, 6, 6)
    pixels = pixels @ look.inwards.weight.T + look.inwards.bias
    h = pixels + look.block.attention(look.block.norm_1(pixels))
    h = h + look.block.cross(look.block.norm_cross(h), context, mask)
    h = h + look.block.mlp(look.block.norm_2(h))
    seen = h @ look.outwards.weight.T + look.outwards.bias
    expected = x + seen.reshape(2, 3, 2, 6).permute(0, 3, 1, 2)
    torch.testing.assert_close(look(x, context, mask), expected)
    assert not look.block.attention.causal
    torch.testing.assert_close(look(x.flip(2), context, mask), expected.flip(2))


def written_out(net, x, t, context, mask, levels, blocks):
    """The forward pass by its description, with the parts of ``net`` taken in order."""
    embedded = net.time(t)
    embedded = embedded * embedded.sigmoid()
    down, up = list(net.down), list(net.up)

    def through(block, h):
        look, block.look = block.look, None
        h = block(h, embedded)
        block.look = look
        return h if look is None else look(h, context, mask)

    aside = [h := net.first(x)]
    for level in range(levels):
        if level > 0:
            aside.append(h := down.pop(0)(h))
        for _ in range(blocks):
            aside.append(h := through(down.pop(0), h))
    h = through(net.middle[2], net.middle[1](through(net.middle[0], h), context, mask))
    for level in reversed(range(levels)):
        for _ in range(blocks + 1):
            h = through(up.pop(0), torch.cat([h, aside.pop()], 1))
        if level > 0:
            h = up.pop(0)(h)
    assert not down + up + aside
    h = net.norm(h)
    return net.last(h * h.sigmoid())


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize(
    ("levels", "options"),
    [
        (2, {}),
        (2, {"context_levels": [1], "blocks": 2}),
        (2, {"context_levels": ()}),
        (1, {"widths": (4,), "blocks": 2, "context_levels": [0]}),
    ],
)
def test_forward_is_the_description_and_encode_and_decode_compose(levels, options, mask):
    net = randomize(small(**options)).double()
    x, t, context = told()
    out = net(x, t, context=context, mask=mask)
    blocks = options.get("blocks", 1)
    expected = written_out(net, x, t, context, mask, levels, blocks)
    torch.testing.assert_close(out, expected)
    embedded = net.embed(x, t, context=context, mask=mask)
    torch.testing.assert_close(embedded, net.time(t) * net.time(t).sigmoid())
    h, aside = net.encode(x, embedded, context, mask)
    assert len(aside) == len(net.down) + 1
    kept = [part.clone() for part in aside]
    assert torch.equal(net.decode(h, aside, embedded, context, mask), out)
    assert torch.equal(net.decode(h, tuple(kept), embedded, context, mask), out)
    assert len(aside) == len(kept), "decode took from the caller's list"


def test_a_hint_is_added_behind_the_first_convolution():
    net = randomize(small()).double()
    x, t, context = told()
    embedded, hint = net.embed(x, t, context=context), randn(2, 4, 4, 4, seed=3).double()
    _, aside = net.encode(x, embedded, context, hint=hint)
    torch.testing.assert_close(aside[0], net.first(x) + hint)
    with_bias = net.first.bias.detach().clone()
    constant = torch.ones_like(hint)
    plain = net.encode(x, embedded, context, hint=constant)
    with torch.no_grad():
        net.first.bias.copy_(with_bias + 1)
    torch.testing.assert_close(net.encode(x, embedded, context), plain)


@pytest.mark.parametrize(
    ("levels", "down", "up"),
    [
        (None, [True, True], [True] * 4),
        ([0], [True, False], [False, False, True, True]),
        ((1,), [False, True], [True, True, False, False]),
        ([], [False, False], [False] * 4),
    ],
)
def test_context_levels_are_those_that_look(levels, down, up):
    net = small(context_levels=levels)
    looks = [
        [layer.look is not None for layer in way if isinstance(layer, ResBlock)]
        for way in (net.down, net.up)
    ]
    assert looks == [down, up]
    assert [type(layer) for layer in net.middle] == [ResBlock, SpatialTransformer, ResBlock]
    assert net.middle[0].look is net.middle[2].look is None
    cross = [m.block.cross for m in net.modules() if isinstance(m, SpatialTransformer)]
    assert {(c.context_dim, c.heads) for c in cross} == {(5, 2)}
    assert net.context_dim == 5


def test_heads_are_four_where_nothing_is_said():
    assert UNet((1, 4, 4), widths=(8,), context_dim=3).middle[1].block.cross.heads == 4


def test_it_starts_at_zero_and_every_look_passes_its_input_on():
    net = small()
    x, t, context = told(torch.float32)
    assert torch.equal(net(x, t, context=context), torch.zeros(2, 1, 4, 4))
    h = randn(2, 4, 4, 4)
    assert torch.equal(net.down[0].look(h, context, None), h)
    looks = [m for m in net.modules() if isinstance(m, SpatialTransformer)]
    assert len(looks) == 7
    for look in looks:
        assert not look.outwards.weight.any()
        assert not look.outwards.bias.any()
        assert look.inwards.weight.any()


def test_text_matters_and_gradients_reach_it_and_every_parameter():
    net = randomize(small()).double()
    x, t, context = told()
    context.requires_grad_()
    out = net(x, t, context=context, mask=MASK)
    assert ((net(x, t, context=context + 1, mask=MASK) - out).abs().flatten(1).amax(1) > 1e-4).all()
    (out * randn(2, 1, 4, 4, seed=5).double()).sum().backward()
    assert torch.equal((context.grad != 0).any(2), MASK)  # the padding gets none
    for name, p in net.named_parameters():
        assert (p.grad != 0).any(), name


def test_padding_does_not_matter_and_without_the_mask_it_does():
    net = randomize(small()).double()
    x, t, context = told()
    other = torch.where(MASK[:, :, None], context, -3.0)
    outs = [net(x, t, context=c, mask=MASK) for c in (context, other)]
    torch.testing.assert_close(*outs, rtol=0, atol=1e-13)
    more = torch.cat([context, randn(2, 4, 5, seed=4).double()], 1)
    longer = torch.cat([MASK, torch.zeros(2, 4).bool()], 1)
    torch.testing.assert_close(net(x, t, context=more, mask=longer), outs[0], rtol=0, atol=1e-13)
    without = [net(x, t, context=c) for c in (context, other)]
    assert ((without[0] - without[1]).abs().flatten(1).amax(1) > 1e-4).all()


def test_a_class_and_a_text_go_together():
    net = randomize(small(n_classes=3)).double()
    x, t, context = told()
    outs = [net(x, t, torch.tensor([y, y]), context=context) for y in (0, 2)]
    assert (outs[0] - outs[1]).abs().amax() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_dim": 0}, "context_dim must be an integer of at least 1, got 0"),
        ({"context_levels": 1}, "context_levels must be a sequence of integers, got 1"),
        (
            {"context_levels": [0, -1]},
            "context_levels[1] must be an integer of at least 0, got -1",
        ),
        (
            {"context_levels": [0, 2]},
            "context_levels must be below 2, the number of widths, got [0, 2]",
        ),
        (
            {"context_dim": None, "context_levels": [0]},
            "context_levels must be None for a network without context_dim, got [0]",
        ),
        ({"heads": 4}, "heads must divide dim = 6, got 4"),
        ({"heads": 0}, "heads must be an integer of at least 1, got 0"),
    ],
)
def test_bad_networks_are_named(options, message):
    with refuses(message):
        small(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": None}, "context must be a tensor of shape [2, any, 5], got NoneType"),
        (
            {"context": torch.zeros(2, 3, 4)},
            "context must have shape [2, any, 5], got [2, 3, 4]",
        ),
        (
            {"context": torch.zeros(1, 3, 5)},
            "context must have shape [2, any, 5], got [1, 3, 5]",
        ),
        (
            {"context": torch.zeros(2, 3, 5).double()},
            "context must be torch.float32 like the model, got torch.float64",
        ),
        (
            {"context": torch.full((2, 3, 5), math.nan)},
            "context must be finite, got NaN or infinite values",
        ),
        (
            {"mask": MASK.float()},
            "mask must be a bool tensor [2, 3], got torch.float32 [2, 3]",
        ),
        ({"mask": MASK[:1]}, "mask must be a bool tensor [2, 3], got torch.bool [1, 3]"),
        (
            {"mask": MASK & torch.tensor([[True], [False]])},
            "mask must be True somewhere in every row, got a row of False",
        ),
    ],
)
def test_bad_texts_are_named(change, message):
    x, t, context = told(torch.float32)
    with refuses(message):
        small()(x, t, **{"context": context, "mask": MASK, **change})


@pytest.mark.parametrize("given", [{"context": told(torch.float32)[2]}, {"mask": MASK}])
def test_a_network_without_a_text_refuses_one(given):
    x, t, _ = told(torch.float32)
    with refuses("context and mask must be None for a network without context_dim"):
        small(context_dim=None)(x, t, **given)
