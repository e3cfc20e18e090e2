"""The block of Stable Diffusion 3's transformer against diffusers' JointTransformerBlock."""

import pytest
import torch
from torch import nn

from course_lib.nn import MMDiTBlock, sincos_positions

pytest.importorskip("diffusers", reason="parity needs the test extra: pip install -e .[test]")

from diffusers.models.embeddings import get_2d_sincos_pos_embed

from benchmarks.latent_diffusion import count, stirred
from benchmarks.transformers import their_block

CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 1e-11, "atol": 1e-11}}


@pytest.fixture(autouse=True)
def _same_start():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def both_blocks(dtype, qk_norm=True, dim=12, heads=3):
    """Ours and theirs with equal weights; their norms of Q and K sum in single precision always."""
    ours = stirred(MMDiTBlock(dim, heads, qk_norm=qk_norm)).to(dtype)
    theirs = their_block(ours)
    if dtype == torch.float64 and qk_norm:
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            norm = nn.RMSNorm(dim // heads, eps=1e-6, dtype=dtype)
            norm.load_state_dict(getattr(theirs.attn, name).state_dict())
            setattr(theirs.attn, name, norm)
    return ours, theirs


@pytest.mark.parametrize("dtype", list(CLOSE))
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize(("dim", "heads"), [(12, 3), (96, 4)])
def test_the_block_and_its_gradients_agree(dim, heads, qk_norm, dtype):
    ours, theirs = both_blocks(dtype, qk_norm, dim, heads)
    assert count(ours) == count(theirs)
    given = [torch.randn(2, n, dim, dtype=dtype) for n in (7, 5)]
    given.append(torch.randn(2, dim, dtype=dtype))
    for x in given:
        x.requires_grad_()
    sides = [ours(*given[:2], c=given[2]), theirs(*given)[::-1]]  # theirs gives the text first
    assert (sides[0][0] - given[0]).std() > 0.01
    weights = [torch.randn_like(o) for o in sides[0]]
    gradients = [
        torch.autograd.grad(sum((o * w).sum() for o, w in zip(s, weights, strict=True)), given)
        for s in sides
    ]
    for got, wanted in zip(sides[0], sides[1], strict=True):
        torch.testing.assert_close(got, wanted, **CLOSE[dtype])
    for got, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=10 * CLOSE[dtype]["atol"])


@pytest.mark.parametrize("dtype", list(CLOSE))
def test_masked_words_are_words_that_theirs_was_never_given(dtype):
    ours, theirs = both_blocks(dtype)
    image, text, c = (torch.randn(3, *shape, dtype=dtype) for shape in ((7, 12), (5, 12), (12,)))
    said = [5, 3, 1]
    words = torch.arange(5) < torch.tensor(said)[:, None]
    mask = torch.cat([torch.ones(3, 7, dtype=torch.bool), words], dim=1)
    got = ours(image, text, c=c, mask=mask)
    for i, k in enumerate(said):
        of_text, of_image = theirs(image[i : i + 1], text[i : i + 1, :k], c[i : i + 1])
        torch.testing.assert_close(got[0][i : i + 1], of_image, **CLOSE[dtype])
        torch.testing.assert_close(got[1][i : i + 1, :k], of_text, **CLOSE[dtype])


@pytest.mark.parametrize(("trained", "base"), [(None, 6), ((3, 3), 3)])
def test_positions_agree_up_to_which_half_is_the_row(trained, base):
    theirs = get_2d_sincos_pos_embed(8, 6, base_size=base, output_type="pt")
    column, row = theirs.float().chunk(2, dim=1)
    ours = sincos_positions(6, 6, 8, trained=trained)
    torch.testing.assert_close(ours, torch.cat([row, column], dim=1))
