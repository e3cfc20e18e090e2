"""What is the pixel transformer's own; the laws of all models of images stand in other files."""

import pytest
import torch

from course_lib.attention import naive_attention
from course_lib.autoregressive import PixelTransformer
from course_lib.nn import TransformerBlock


@pytest.mark.parametrize("n_classes", [None, 2])
def test_a_pixel_sees_all_pixels_before_it(n_classes, generator, monkeypatch):
    """No blind spot, with one block: by the Jacobian with respect to what the network is given."""
    model = PixelTransformer((4, 5), 3, dim=8, depth=1, heads=2, n_classes=n_classes).double()
    x = torch.randint(3, (1, 1, 4, 5), generator=generator).double()
    y = None if n_classes is None else torch.tensor([1])
    encoded = model.encode(x)
    monkeypatch.setattr(model, "encode", lambda encoded: encoded)
    jacobian = torch.autograd.functional.jacobian(lambda e: model.logits(e, y)[0], encoded)
    seen = (jacobian != 0).any(4).any(3).any(0).reshape(20, 20)
    assert torch.equal(seen, torch.ones(20, 20).tril(-1).bool())


def test_each_place_has_its_row_and_its_column(generator):
    """Without pixels and blocks only the place differs, and logits differ wherever it does."""
    model = PixelTransformer((3, 4), 2, dim=8, depth=1, heads=1).double()
    for row in range(3):
        for column in range(4):
            expected = model.row.weight[row] + model.column.weight[column]
            assert torch.equal(model.places(3, 4)[4 * row + column], expected)
    torch.testing.assert_close(
        model.places(2, 3), model.places(3, 4).view(3, 4, 8)[:2, :3].flatten(0, 1)
    )


def test_how_attention_is_computed_changes_nothing(generator):
    flash = PixelTransformer(4, 3, dim=8, depth=2, heads=2).double()
    naive = PixelTransformer(4, 3, dim=8, depth=2, heads=2, attend=naive_attention).double()
    naive.load_state_dict(flash.state_dict())
    x = flash.sample(5, generator=generator)
    torch.testing.assert_close(flash.log_prob(x), naive.log_prob(x), rtol=0, atol=1e-12)
    for model in (flash, naive):
        model.loss(x).backward()
    for ours, theirs in zip(flash.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-12)


def test_a_walk_computes_each_token_once(generator, monkeypatch):
    model, calls = PixelTransformer(3, 2, dim=8, depth=2, heads=2), []
    forward = TransformerBlock.forward

    def counted(self, x, cache=None):
        calls.append(tuple(x.shape))
        return forward(self, x, cache)

    monkeypatch.setattr(TransformerBlock, "forward", counted)
    model.sample(5, generator=generator)
    assert calls == [(5, 1, 8)] * (2 * 9)


def test_what_it_is_made_of():
    model = PixelTransformer()
    assert model.size == (8, 8)
    assert model.levels == 17
    assert len(model.blocks) == 4
    assert model.blocks[0].attention.heads == 4
    assert model.head[1].in_features == 64
    assert model.start.weight.shape == (1, 64)
    assert PixelTransformer((2, 3), n_classes=5).size == (2, 3)
    assert PixelTransformer((2, 3), n_classes=5).start.weight.shape == (5, 64)
    for embedding in (model.row, model.column, model.start):
        assert 0.05 < embedding.weight.std() < 0.15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PixelTransformer(0), r"size\[0\] must be an integer of at least 1, got 0"),
        (lambda: PixelTransformer("88"), "size must be a sequence of integers, got '88'"),
        (lambda: PixelTransformer(8, 1), "levels must be an integer of at least 2, got 1"),
        (lambda: PixelTransformer(depth=0), "depth must be an integer of at least 1, got 0"),
        (lambda: PixelTransformer(dim=0), "dim must be an integer of at least 1, got 0"),
        (lambda: PixelTransformer(heads=3), "heads must divide dim = 64, got 3"),
        (lambda: PixelTransformer(n_classes=0), "n_classes must be an integer of at least 1"),
        (
            lambda: PixelTransformer((2, 3), 2).sample(1, size=(3, 3)),
            r"images must be at most \[2, 3\] large, got \[3, 3\]",
        ),
        (
            lambda: PixelTransformer((2, 3), 2).log_prob(torch.zeros(1, 1, 2, 4)),
            r"images must be at most \[2, 3\] large, got \[2, 4\]",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()
