"""The U-Net: its forward pass written out again, what each pixel sees, its start at zero."""

import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib.nn import UNet
from course_lib.nn.unet import DoublingConv, ResBlock, SelfAttention


@pytest.fixture(autouse=True)
def _the_same_start_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def refuses(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


@torch.no_grad()
def randomize(module, scale=1.0):
    """Every parameter gets a random value: nothing is passed on unchanged any more."""
    generator = torch.Generator().manual_seed(7)
    for p in module.parameters():
        fan_in = math.prod(p.shape[1:])
        p.copy_(scale * torch.randn(p.shape, generator=generator) / fan_in**0.5)
    return module


def small(shape=(1, 4, 4), widths=(4, 6), groups=2, **options):
    return UNet(shape, widths=widths, groups=groups, **options)


# --- the parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_in", "n_out"), [(4, 4), (4, 6), (6, 2)])
def test_a_block_is_the_formula(n_in, n_out):
    block = randomize(ResBlock(n_in, n_out, 5, 2, 0.0)).double()
    x = randn(3, n_in, 4, 4, dtype=torch.float64)
    embedded = randn(3, 5, seed=1, dtype=torch.float64)

    def normal(h, norm):
        """Each group of channels of an image has mean 0 and variance 1."""
        grouped = h.reshape(3, 2, -1)
        mean, variance = grouped.mean(2, keepdim=True), grouped.var(2, keepdim=True, correction=0)
        h = ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(h.shape)
        return h * norm.weight[:, None, None] + norm.bias[:, None, None]

    def silu(h):
        return h * h.sigmoid()

    h = F.conv2d(silu(normal(x, block.norm1)), block.conv1.weight, block.conv1.bias, padding=1)
    h = h + (embedded @ block.time.weight.T + block.time.bias)[:, :, None, None]
    h = F.conv2d(silu(normal(h, block.norm2)), block.conv2.weight, block.conv2.bias, padding=1)
    carried = x
    if n_in != n_out:
        carried = F.conv2d(x, block.shortcut.weight, block.shortcut.bias)
        assert block.shortcut.weight.shape == (n_out, n_in, 1, 1)
    torch.testing.assert_close(block(x, embedded), carried + h)


def test_attention_is_the_formula():
    attention = randomize(SelfAttention(6, 2)).double()
    x = randn(2, 6, 3, 2, dtype=torch.float64)
    pixels = attention.norm(x).permute(0, 2, 3, 1).reshape(2, 6, 6)
    q, k, v = (
        pixels @ attention.qkv.weight[part].T + attention.qkv.bias[part]
        for part in (slice(0, 6), slice(6, 12), slice(12, 18))
    )
    weights = (q @ k.transpose(1, 2) / math.sqrt(6)).softmax(2)
    seen = weights @ v @ attention.out.weight.T + attention.out.bias
    expected = x + seen.reshape(2, 3, 2, 6).permute(0, 3, 1, 2)
    torch.testing.assert_close(attention(x), expected)
    # Where pixels lie doesn't matter to attention: moved pixels give moved answers.
    torch.testing.assert_close(attention(x.flip(2)), attention(x).flip(2))


def test_doubling_and_the_convolution_are_one():
    doubling = randomize(DoublingConv(3)).double()
    x = randn(2, 3, 4, 5, dtype=torch.float64).requires_grad_()

    def in_two_steps(x, weight, bias):
        return F.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), weight, bias, padding=1)

    y = doubling(x)
    expected = in_two_steps(x, doubling.weight, doubling.bias)
    torch.testing.assert_close(y, expected)
    inputs, upstream = (x, doubling.weight, doubling.bias), randn(*y.shape, dtype=torch.float64)
    gradients = [torch.autograd.grad(out, inputs, upstream) for out in (y, expected)]
    torch.testing.assert_close(*gradients)
    assert list(doubling.state_dict()) == ["weight", "bias"]


# --- the whole ---------------------------------------------------------------------------------


def written_out(net, x, t, y, levels, blocks):
    """The forward pass by its description, with the parts of ``net`` taken in order."""
    embedded = net.time(t, y)
    embedded = embedded * embedded.sigmoid()
    down, up = list(net.down), list(net.up)
    h = net.first(x)
    aside = [h]
    for level in range(levels):
        if level > 0:
            shrink = down.pop(0)
            h = F.conv2d(h, shrink.weight, shrink.bias, stride=2, padding=1)
            aside.append(h)
        for _ in range(blocks):
            h = down.pop(0)(h, embedded)
            aside.append(h)
    h = net.middle[2](net.middle[1](net.middle[0](h, embedded)), embedded)
    for level in reversed(range(levels)):
        for _ in range(blocks + 1):
            h = up.pop(0)(torch.cat([h, aside.pop()], 1), embedded)
        if level > 0:
            grow = up.pop(0)
            h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            h = F.conv2d(h, grow.weight, grow.bias, padding=1)
    assert not down + up + aside
    h = net.norm(h)
    return net.last(h * h.sigmoid())


@pytest.mark.parametrize(
    ("widths", "blocks", "shape", "n_classes"),
    [
        ((4,), 1, (2, 3, 5), None),
        ((4, 6), 1, (1, 4, 6), 3),
        ((2, 6, 4), 2, (3, 8, 4), None),
    ],
)
def test_forward_is_the_description(widths, blocks, shape, n_classes):
    net = small(shape, widths, blocks=blocks, n_classes=n_classes, scale=3.0)
    randomize(net).double()
    x, t = randn(3, *shape, dtype=torch.float64), torch.tensor([0.0, 1.5, 9.0])
    y = None if n_classes is None else torch.tensor([2, 0, 1])
    out = net(x, t, y)
    assert out.shape == x.shape
    torch.testing.assert_close(out, written_out(net, x, t, y, len(widths), blocks))
    assert net.event_shape == shape
    assert net.time.scale == 3
    assert net.time.layers[0].weight.shape == (4 * widths[0], widths[0])
    kinds = [type(layer) for layer in net.down]
    level = [ResBlock] * blocks
    assert kinds == level + [nn.Conv2d, *level] * (len(widths) - 1)
    kinds = [type(layer) for layer in net.up]
    level = [ResBlock] * (blocks + 1)
    assert kinds == [*level, DoublingConv] * (len(widths) - 1) + level
    norms = [m for m in net.modules() if isinstance(m, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {2}


def test_widths_are_those_of_the_levels():
    net = small((1, 8, 8), (4, 6, 8), blocks=2)
    blocks = [layer for layer in net.down if isinstance(layer, ResBlock)]
    assert [block.conv2.out_channels for block in blocks] == [4, 4, 6, 6, 8, 8]
    convs = [layer for layer in [*net.down, *net.up] if isinstance(layer, nn.Conv2d)]
    assert [conv.kernel_size for conv in convs] == [(3, 3)] * 4
    assert [conv.out_channels for conv in convs] == [4, 6, 8, 6]
    blocks = [layer for layer in net.up if isinstance(layer, ResBlock)]
    assert [block.conv2.out_channels for block in blocks] == [8, 8, 8, 6, 6, 6, 4, 4, 4]
    assert [block.conv1.in_channels for block in blocks] == [16, 16, 14, 14, 12, 10, 10, 8, 8]


def test_one_channel_is_a_width():
    net = UNet((1, 4, 4), widths=(2, 1), groups=1)
    assert net(torch.randn(2, 1, 4, 4), torch.rand(2)).shape == (2, 1, 4, 4)


def test_defaults():
    net = UNet((1, 8, 8))
    assert [p.shape[0] for p in (net.first.weight, net.middle[0].conv1.weight)] == [32, 64]
    assert len(net.down) == 5
    assert net.norm.num_groups == 8
    assert net.time.scale == 1
    assert net.time.classes is None
    assert {m.p for m in net.modules() if isinstance(m, nn.Dropout)} == {0.0}


def test_it_starts_at_zero_and_every_block_passes_its_input_on():
    net = small((1, 4, 4), n_classes=2)
    x, t, y = randn(3, 1, 4, 4), torch.tensor([0, 5, 9]), torch.tensor([0, 1, 1])
    assert torch.equal(net(x, t, y), torch.zeros(3, 1, 4, 4))
    block = net.down[0]
    h = randn(2, 4, 4, 4)
    assert torch.equal(block(h, torch.ones(2, 16)), h)
    for module in net.modules():
        if isinstance(module, ResBlock):
            assert not module.conv2.weight.any()
            assert not module.conv2.bias.any()
            assert module.conv1.weight.any()
    assert not net.last.bias.any()


def test_time_class_and_image_matter_and_reach_every_parameter():
    net = randomize(small((2, 4, 4), n_classes=3))
    x, t, y = randn(4, 2, 4, 4), torch.tensor([0, 3, 7, 500]), torch.tensor([0, 1, 2, 0])
    out = net(x, t, y)
    for other in (net(x, t + 1, y), net(x, t, (y + 1) % 3), net(x + 0.1 * randn(2, 4, 4), t, y)):
        assert ((other - out).abs().flatten(1).amax(1) > 1e-4).all()
    out.square().sum().backward()
    for name, p in net.named_parameters():
        assert (p.grad != 0).any(), name


def test_an_example_is_not_touched_by_the_others():
    net = randomize(small((1, 4, 4), n_classes=3))
    x, t, y = randn(4, 1, 4, 4), torch.tensor([0, 3, 7, 500]), torch.tensor([0, 1, 2, 0])
    out = net(x, t, y)
    for i in range(4):
        torch.testing.assert_close(
            net(x[i : i + 1], t[i : i + 1], y[i : i + 1]), out[i : i + 1], rtol=1e-4, atol=1e-5
        )


def test_every_pixel_sees_every_pixel():
    """By attention at the latest; a plain 3×3 convolution sees one pixel further."""
    net = randomize(small((1, 8, 8)))
    x = randn(1, 1, 8, 8).requires_grad_()
    out = net(x, torch.tensor([3]))
    for i, j in ((0, 0), (7, 7), (3, 5)):
        (gradient,) = torch.autograd.grad(out[0, 0, i, j], x, retain_graph=True)
        assert (gradient != 0).all()


def test_dropout_acts_in_training_only():
    net = randomize(small(dropout=0.5))
    x, t = randn(2, 1, 4, 4), torch.tensor([1, 2])
    assert not torch.equal(net(x, t), net(x, t))
    assert {m.p for m in net.modules() if isinstance(m, nn.Dropout)} == {0.5}
    net.eval()
    assert torch.equal(net(x, t), net(x, t))
    same = randomize(small()).eval()
    assert torch.equal(same(x, t), net(x, t))
    assert torch.equal(same.train()(x, t), net(x, t))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((8, 8), {}, "shape must be (C, H, W), each at least 1, got (8, 8)"),
        ((1, None, 8), {}, "shape must be (C, H, W), each at least 1, got (1, None, 8)"),
        (4, {}, "shape must be (C, H, W), each at least 1, got 4"),
        (
            (1, 7, 8),
            {"widths": (8, 8)},
            "shape must have a height and width that 2 widths halve evenly, multiples of 2, "
            "got (1, 7, 8)",
        ),
        (
            [1, 8, 6],
            {"widths": (8, 8, 8)},
            "shape must have a height and width that 3 widths halve evenly, multiples of 4, "
            "got (1, 8, 6)",
        ),
        ((1, 8, 8), {"groups": 0}, "groups must be an integer of at least 1, got 0"),
        ((1, 8, 8), {"widths": 8}, "widths must be a sequence of integers, got 8"),
        ((1, 8, 8), {"widths": (8, 0)}, "widths[1] must be an integer of at least 1, got 0"),
        ((1, 8, 8), {"widths": ()}, "widths must be multiples of groups = 8, got ()"),
        ((1, 8, 8), {"widths": (8, 12)}, "widths must be multiples of groups = 8, got (8, 12)"),
        (
            (1, 8, 8),
            {"widths": (3, 6), "groups": 3},
            "widths must start with an even number, got (3, 6)",
        ),
        ((1, 8, 8), {"blocks": 0}, "blocks must be an integer of at least 1, got 0"),
        ((1, 8, 8), {"dropout": 1.0}, "dropout must be from 0 to below 1, got 1.0"),
        ((1, 8, 8), {"dropout": -0.1}, "dropout must be from 0 to below 1, got -0.1"),
        ((1, 8, 8), {"dropout": "0"}, "dropout must be from 0 to below 1, got '0'"),
        ((1, 8, 8), {"dropout": math.nan}, "dropout must be from 0 to below 1, got nan"),
        ((1, 8, 8), {"n_classes": 0}, "n_classes must be an integer of at least 1, got 0"),
        ((1, 8, 8), {"scale": 0.0}, "scale must be a finite number above 0, got 0.0"),
    ],
)
def test_bad_networks_are_named(shape, options, message):
    with refuses(message):
        UNet(shape, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 1, 4, 5)}, "x must have shape [B, 1, 4, 4], got [2, 1, 4, 5]"),
        ({"x": torch.zeros(1, 4, 4)}, "x must have shape [B, 1, 4, 4], got [1, 4, 4]"),
        (
            {"x": torch.zeros(2, 1, 4, 4).double()},
            "x must be torch.float32 like the model, got torch.float64",
        ),
        ({"x": torch.full((2, 1, 4, 4), math.inf)}, "x must be finite, got NaN or infinite values"),
        ({"t": torch.zeros(3)}, "t must be a tensor [2] of times, got torch.float32 [3]"),
        ({"t": 5}, "t must be a tensor [2] of times, got 5"),
        (
            {"y": None},
            "y must be an int64 tensor [2] of classes from 0 to 2, got None",
        ),
        (
            {"y": torch.tensor([0, 3])},
            "y must be an int64 tensor [2] of classes from 0 to 2, got 3",
        ),
    ],
)
def test_bad_images_are_named(change, message):
    arguments = {
        "x": torch.zeros(2, 1, 4, 4),
        "t": torch.zeros(2),
        "y": torch.zeros(2).long(),
        **change,
    }
    with refuses(message):
        small(n_classes=3)(**arguments)
