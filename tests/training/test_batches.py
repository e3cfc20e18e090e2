"""What becomes of a batch of digits and of MNIST, in every form."""

import pytest
import torch

from course_lib.data import jitter, load_digits, quantize, to_unit
from course_lib.training.batches import DIGITS, digits_batch, mnist_batch


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("form", DIGITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_shape_is_kept_and_the_generator_decides(form, dtype):
    x = load_digits("train")[0][:100].to(dtype)
    batch = digits_batch(form)
    images, flat = batch(x, seeded()), batch(x.flatten(1), seeded())
    assert images.shape == x.shape
    assert images.dtype == dtype
    assert torch.equal(flat, images.flatten(1))
    assert not torch.equal(images, batch(x, seeded(1)))


def test_all_forms_are_of_the_same_moved_digits():
    x = load_digits("train")[0]
    moved = jitter(x, share=0.7, generator=seeded())
    grey = (moved * 16).round()
    assert torch.equal(digits_batch("grey")(x, seeded()), moved)
    assert torch.equal(digits_batch("levels")(x, seeded()), grey)
    assert torch.equal(digits_batch("binary")(x, seeded()), (moved > 0.5).float())
    assert torch.equal(digits_batch("signed")(x, seeded()), 2 * moved - 1)
    dequantized = digits_batch("dequantized")(x, seeded())
    torch.testing.assert_close(quantize(dequantized, 17), grey / 16)
    assert dequantized.min() >= 0
    assert dequantized.max() < 1
    assert dequantized.unique().numel() > 10_000, "fresh noise"


@pytest.mark.parametrize(
    ("form", "back"),
    [("grey", lambda y: y), ("signed", to_unit), ("dequantized", lambda y: quantize(y, 17))],
)
def test_three_in_ten_are_as_they_were(form, back):
    x = load_digits("train")[0]
    as_it_is = torch.isclose(back(digits_batch(form)(x, seeded())), x).flatten(1).all(dim=1)
    assert 0.25 < as_it_is.float().mean() < 0.36


def test_mnist_is_drawn_dequantized_or_moved_to_the_other_range():
    x = torch.randint(0, 256, (20, 784), generator=seeded()) / 255
    drawn = mnist_batch("binary")
    assert set(drawn(x, seeded()).unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(drawn(x, seeded(0)), drawn(x, seeded(1)))
    assert drawn(x, seeded()).mean() == pytest.approx(x.mean().item(), abs=0.02)
    dequantized = mnist_batch("dequantized")(x, seeded())
    torch.testing.assert_close(quantize(dequantized, 256), x)
    assert (dequantized - x * 255 / 256).unique().numel() > 1000, "fresh noise"
    assert torch.equal(mnist_batch("signed")(x, seeded()), 2 * x - 1)


@pytest.mark.parametrize("make", [digits_batch, mnist_batch])
def test_a_form_must_be_known_and_names_the_transform(make):
    assert make("signed").__qualname__ == f"{make.__name__}('signed')"
    with pytest.raises(ValueError, match=r"form must be one of .*binary.*, got 'grau'"):
        make("grau")
