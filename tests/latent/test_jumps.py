"""A jump between codes: downhill to first order, whatever the codebook; exact where z is a line."""

import pytest
import torch

from course_lib.latent import VectorQuantizer, slope_of_jump


def random_jumps(seed, n=2000):
    generator = torch.Generator().manual_seed(seed)
    z, gradient = torch.randn(2, n, 5, generator=generator, dtype=torch.float64)
    return z, torch.randn(40, 5, generator=generator, dtype=torch.float64), gradient


@pytest.mark.parametrize("step", [0.01, 0.3, 2.0])
def test_no_jump_along_the_gradient_goes_uphill(step):
    z, codebook, gradient = random_jumps(0)
    down = slope_of_jump(z, codebook, gradient, step)
    up = slope_of_jump(z, codebook, gradient, -step)
    assert down.max() <= 0 <= up.min()
    assert (down < 0).any()
    assert (up > 0).any()


def test_on_whole_numbers_it_is_rounding():
    codebook = torch.arange(-20.0, 21.0, dtype=torch.float64)[:, None]
    z, _, gradient = (t[:, :1] for t in random_jumps(1))
    by_hand = gradient * ((z - 0.7 * gradient).round() - z.round())
    assert torch.allclose(slope_of_jump(z, codebook, gradient, 0.7), by_hand[:, 0])


def test_its_codes_are_those_of_the_quantizer():
    z, codebook, gradient = random_jumps(2)
    quantizer = VectorQuantizer(40, 5).double()
    quantizer.codebook = codebook
    codes = [quantizer.lookup(quantizer.nearest(v)) for v in (z, z - 0.5 * gradient)]
    expected = (gradient * (codes[1] - codes[0])).sum(dim=1)
    assert torch.allclose(slope_of_jump(z, codebook, gradient, 0.5), expected)


def test_bad_input():
    z, codebook, gradient = random_jumps(3)
    with pytest.raises(ValueError, match="codebook must have"):
        slope_of_jump(z, codebook[:, :4], gradient, 1.0)
    with pytest.raises(ValueError, match="gradient must have"):
        slope_of_jump(z, codebook, gradient[:7], 1.0)
    with pytest.raises(ValueError, match="step must be a finite number"):
        slope_of_jump(z, codebook, gradient, float("nan"))
