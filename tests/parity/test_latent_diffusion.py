"""Cross-attention, the transformer's block and the U-Net that looks at a text against diffusers."""

import pytest
import torch
from torch import nn

from course_lib.nn import CrossAttention, TransformerBlock, UNet

pytest.importorskip("diffusers", reason="parity needs the test extra: pip install -e .[test]")

from diffusers.models.attention_processor import Attention

from benchmarks.latent_diffusion import (
    block_weights,
    by_default,
    count,
    stirred,
    their_block,
    their_unet,
)

CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 1e-11, "atol": 1e-11}}
DTYPES = list(CLOSE)


@pytest.fixture(autouse=True)
def _same_start():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def a_text(dtype, n=3, length=7, dim=10):
    """A context and its mask, whose rows differ."""
    mask = torch.arange(length) < torch.tensor([[7], [4], [1]])[:n]
    return torch.randn(n, length, dim, dtype=dtype), mask


def their_mask(mask, dtype):
    """What is added to the logits, as their U-Net makes it."""
    return None if mask is None else torch.where(mask, 0.0, -10000.0).to(dtype)[:, None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_cross_attention_agrees(heads, masked, dtype):
    ours = stirred(CrossAttention(12, 10, heads))
    k_v = ours.kv.state_dict()
    weights = {f"to_q.{key}": value for key, value in ours.q.state_dict().items()}
    weights |= {f"to_out.0.{key}": value for key, value in ours.out.state_dict().items()}
    for key, value in k_v.items():
        weights[f"to_k.{key}"], weights[f"to_v.{key}"] = value.chunk(2)
    theirs = Attention(12, 10, heads=heads, dim_head=12 // heads, bias=True)
    theirs.load_state_dict(weights)
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    x, (context, mask) = torch.randn(3, 5, 12, dtype=dtype), a_text(dtype)
    mask = mask if masked else None
    expected = theirs(x, context, attention_mask=their_mask(mask, dtype))
    torch.testing.assert_close(ours(x, context, mask), expected, **CLOSE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [False, True])
def test_the_block_agrees(masked, dtype):
    ours = stirred(TransformerBlock(12, 3, context_dim=10))
    theirs = their_block(12, 3, 10)
    theirs.load_state_dict(block_weights(ours))
    assert count(ours) == count(theirs)
    ours, theirs = ours.to(dtype), theirs.to(dtype)
    x, (context, mask) = torch.randn(3, 5, 12, dtype=dtype), a_text(dtype)
    mask = mask if masked else None
    expected = theirs(
        x, encoder_hidden_states=context, encoder_attention_mask=their_mask(mask, dtype)
    )
    torch.testing.assert_close(ours(x, context=context, mask=mask), expected, **CLOSE[dtype])


class Waves(nn.Module):
    """Our sines and cosines, which follow the network's precision; theirs stay in single."""

    def __init__(self, time):
        super().__init__()
        self.waves = time.waves

    def forward(self, t):
        return self.waves(t)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("widths", "blocks"), [((8, 16), 1), ((16,), 2)])
def test_the_unet_and_its_gradients_agree(widths, blocks, masked):
    net = stirred(UNet((4, 8, 8), widths=widths, blocks=blocks, context_dim=10))
    theirs = their_unet(net)
    assert count(net) == count(theirs) < count(by_default(net))
    t, x, (context, mask) = torch.tensor([0.0, 10, 999]), torch.randn(3, 4, 8, 8), a_text(None)
    mask = mask if masked else None
    for dtype in DTYPES:
        nn.Module.to(theirs, dtype)
        theirs.time_proj = Waves(net.to(dtype).time)
        inputs = x.to(dtype), t, context.to(dtype).requires_grad_()
        ours = net(*inputs[:2], context=inputs[2], mask=mask)
        other = theirs(*inputs, encoder_attention_mask=mask).sample
        assert ours.std() > 0.05
        torch.testing.assert_close(ours, other, **CLOSE[dtype])
        gradients = [
            torch.autograd.grad(side.square().sum(), inputs[2])[0] for side in (ours, other)
        ]
        assert gradients[0].abs().max() > 1e-3
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=CLOSE[dtype]["atol"])
