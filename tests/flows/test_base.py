"""The base densities against SciPy and against integrals."""

import math
import re

import pytest
import scipy.stats
import torch

from course_lib.flows import StandardGaussian, StandardLogistic, Transform
from tests.no_float64 import NoFloat64

BASES = {
    "gaussian": (StandardGaussian, scipy.stats.norm),
    "logistic": (StandardLogistic, scipy.stats.logistic),
}
each_base = pytest.mark.parametrize("name", BASES)


@each_base
@pytest.mark.parametrize("dim", [1, 5])
def test_log_prob_agrees_with_scipy(name, dim, generator):
    make, reference = BASES[name]
    z = 4 * torch.randn(20, dim, generator=generator, dtype=torch.float64)
    expected = torch.from_numpy(reference.logpdf(z.numpy()).sum(axis=1))
    torch.testing.assert_close(make(dim).double().log_prob(z), expected, rtol=1e-12, atol=0)


@each_base
def test_images_are_points_in_another_shape(name, generator):
    make, _ = BASES[name]
    z = 2 * torch.randn(5, 2, 3, 4, generator=generator)
    torch.testing.assert_close(make((2, 3, 4)).log_prob(z), make(24).log_prob(z.flatten(1)))
    images = make((2, 3, 4)).sample(5, generator=torch.Generator().manual_seed(1))
    points = make(24).sample(5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(images, points.reshape(5, 2, 3, 4))
    assert torch.equal(make([24]).log_prob(z.flatten(1)), make(24).log_prob(z.flatten(1)))
    with pytest.raises(ValueError, match=r"^z must have shape \[B, 2, 3, 4\], got \[5, 24\]$"):
        make((2, 3, 4)).log_prob(z.flatten(1))


@each_base
@pytest.mark.parametrize("shape", [(), (2, 3), (1, 0, 3), (1, None, 3), (None,), (2.0,), [True]])
def test_bad_shapes_are_named(name, shape):
    message = f"dim must be (dim,) or (C, H, W), each at least 1, got {shape!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        BASES[name][0](shape)


@pytest.mark.parametrize("shape", [(), (2, 3), (1, 0, 3), [True], (2.0,)])
def test_bad_shapes_of_transforms_are_named(shape):
    message = f"event_shape must be (dim,) or (C, H, W), each at least 1, got {shape!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Transform(shape)


def test_a_transform_says_what_fits():
    anything = Transform((None, 4, None))
    assert anything.output_shape((2, 4, 1)) == (2, 4, 1)
    for shape in [(2, 5, 1), (2, 4), (2, 4, 1, 1), (4,)]:
        message = f"takes shape [any, 4, any], got {list(shape)}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            anything.output_shape(shape)
    assert Transform([3]).event_shape == Transform(3).event_shape == (3,)
    assert repr(anything) == "Transform(shape=[any, 4, any])"
    assert repr(Transform(3)) == "Transform(dim=3)"


@each_base
def test_log_prob_is_finite_far_out(name):
    make, reference = BASES[name]
    z = torch.tensor([[200.0], [-200.0]])
    expected = torch.from_numpy(reference.logpdf(z.double().numpy()).sum(axis=1)).float()
    torch.testing.assert_close(make(1).log_prob(z), expected)


@each_base
def test_samples_follow_the_density(name, generator):
    make, reference = BASES[name]
    z = make(2).double().sample(20_000, generator=generator)
    assert z.shape == (20_000, 2)
    for column in z.T:
        assert scipy.stats.kstest(column.numpy(), reference.cdf).pvalue > 0.01
    assert abs(torch.corrcoef(z.T)[0, 1]) < 0.03


@each_base
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_are_reproducible_and_leave_the_global_seed_alone(name, dtype):
    base = BASES[name][0](3).to(dtype)
    state = torch.get_rng_state()
    first = base.sample(7, generator=torch.Generator().manual_seed(1))
    assert first.dtype == dtype
    assert torch.equal(first, base.sample(7, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(first, base.sample(7, generator=torch.Generator().manual_seed(2)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("end", [0, 2**21 - 1])
def test_the_logistic_never_samples_infinity(monkeypatch, dtype, end):
    """The outermost of 2⁴² slots of u, whose middle is half a slot from 0 or from 1."""
    monkeypatch.setattr(torch, "randint", lambda high, size, **_: torch.full(size, end))
    z = StandardLogistic(1).to(dtype).sample(1).item()
    assert z == pytest.approx((-1 if end == 0 else 1) * math.log(2**43 - 1), rel=1e-3)


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_the_logistics_samples_are_quantiles(monkeypatch, dtype, off):
    """log(u / (1 - u)) with u = (coarse + (fine + 1/2) / 2²¹) / 2²¹, written out."""
    slots = 2**21
    coarse = torch.tensor([1, 5, 1000, slots // 2 - 1, slots // 2, slots - 30, slots - 2])
    fine = torch.tensor([7, 0, slots - 1, slots - 1, 0, slots // 3, slots - 1])
    pair = torch.stack([coarse, fine], dim=1)
    monkeypatch.setattr(torch, "randint", lambda high, size, **_: pair.reshape(size))
    z = StandardLogistic(1).to(dtype).sample(7)[:, 0]
    k = [(int(c) * slots + int(f)) for c, f in pair]
    expected = [math.log((2 * i + 1) / (2 * slots**2 - 2 * i - 1)) for i in k]
    assert z.tolist() == pytest.approx(expected, rel=off, abs=off)


@each_base
def test_samples_need_no_double_precision(name, generator):
    with NoFloat64():
        z = BASES[name][0]((1, 4, 4)).sample(50, generator=generator)
        assert BASES[name][0]((1, 4, 4)).log_prob(z).dtype == z.dtype == torch.float32


def test_the_logistics_samples_are_those_of_the_first_checkpoints():
    """Of a uniform number in double precision, from the same source: to what a figure shows."""
    u = torch.rand(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    z = StandardLogistic(3).sample(500, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(z, torch.logit(u).float(), rtol=0, atol=2e-3)


@each_base
@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.zeros(3), r"z must have shape \[B, 3\], got \[3\]"),
        (torch.zeros(2, 2), r"z must have shape \[B, 3\], got \[2, 2\]"),
        (torch.zeros(0, 3), r"z must have shape \[B, 3\], got \[0, 3\]"),
        (torch.zeros(1, 3).int(), "z must be a floating-point tensor, got torch.int32"),
        (torch.full((1, 3), math.nan), "z must be finite"),
        (torch.zeros(1, 3).double(), "z must be torch.float32 like the model, got torch.float64"),
    ],
)
def test_bad_latents_are_named(name, z, message):
    with pytest.raises(ValueError, match="^" + message):
        BASES[name][0](3).log_prob(z)


@each_base
def test_bad_sample_arguments_are_named(name):
    base = BASES[name][0](3)
    assert base.sample(1).shape == (1, 3)
    for n in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match=r"^n must be an integer of at least 1, got"):
            base.sample(n)
    with pytest.raises(ValueError, match=r"^generator must be a torch.Generator or None, got 3"):
        base.sample(2, generator=3)
    with pytest.raises(ValueError, match=r"^generator must be on device meta, got cpu"):
        BASES[name][0](3).to("meta").sample(2, generator=torch.Generator())


@each_base
@pytest.mark.parametrize("dim", [0, 1.5, None])
def test_bad_dim_is_named(name, dim):
    with pytest.raises(ValueError, match=r"^dim must be an integer of at least 1, got"):
        BASES[name][0](dim)


def test_repr_says_the_dim():
    assert repr(StandardGaussian(3)) == "StandardGaussian(dim=3)"
    assert repr(StandardLogistic((1, 2, 3))) == "StandardLogistic(shape=[1, 2, 3])"


def test_a_transform_without_formulas_says_so():
    with pytest.raises(NotImplementedError):
        Transform(2)(torch.zeros(1, 2))
    with pytest.raises(NotImplementedError):
        Transform(2).inverse(torch.zeros(1, 2))


def test_bases_have_nothing_to_save():
    assert not StandardGaussian(2).state_dict()
