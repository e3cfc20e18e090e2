"""RealNVP: how it is built, on points and images, and integrals that give 1."""

import math
import re

import pytest
import torch

from course_lib.flows import (
    ActNorm,
    AffineCoupling,
    AlternatingMask,
    ChannelMask,
    CheckerboardMask,
    Logit,
    RealNVP,
    Split,
    Squeeze,
    StandardGaussian,
)
from tests.flows.conftest import draw, log_abs_det_jacobian, randomize


def kinds(model):
    """The names of the transforms, a coupling with the name of its mask and its flip."""
    names = []
    for transform in model.transforms:
        name = type(transform).__name__
        if type(transform) is AffineCoupling:
            mask = type(transform.mask).__name__.removesuffix("Mask").lower()
            name = f"{mask} {'flipped' if transform.flip else 'plain'}"
        names.append(name)
    return names


def block(mask, n):
    return [part for i in range(n) for part in ("ActNorm", f"{mask} {['plain', 'flipped'][i % 2]}")]


def test_on_images_it_is_built_as_in_the_paper():
    model = RealNVP((1, 28, 28), levels=3, couplings=3, logit=0.05)
    scale = [*block("checkerboard", 3), "Squeeze", *block("channel", 3), "Split"]
    assert kinds(model) == ["Logit", *scale, *scale, *block("checkerboard", 4)]
    assert model.scale_shapes == [(2, 14, 14), (4, 7, 7), (4, 7, 7)]
    assert model.transforms[0].alpha == 0.05
    assert isinstance(model.base, StandardGaussian)
    assert model.base.event_shape == (1, 28, 28)


def test_defaults():
    model = RealNVP((1, 8, 8))
    scale = [*block("checkerboard", 3), "Squeeze", *block("channel", 3), "Split"]
    assert kinds(model) == [*scale, *block("checkerboard", 4)]
    points = RealNVP(5)
    assert kinds(points) == ["alternating plain", "alternating flipped"] * 4
    couplings = [t for t in (*model.transforms, *points.transforms) if type(t) is AffineCoupling]
    assert {coupling.bound for coupling in couplings} == {2.0}
    assert {tuple(coupling.hidden) for coupling in couplings} == {(64, 64)}
    assert kinds(RealNVP((3, 4, 4), levels=1, couplings=1)) == block("checkerboard", 2)


def test_what_it_is_given_reaches_every_coupling():
    for shape in (6, (1, 4, 4)):
        model = RealNVP(shape, couplings=2, hidden=(5, 7), bound=1.5)
        couplings = [t for t in model.transforms if type(t) is AffineCoupling]
        assert len(couplings) == (2 if shape == 6 else 7)
        assert {coupling.bound for coupling in couplings} == {1.5}
        for coupling in couplings:
            weights = [p for p in coupling.parameters() if p.ndim > 1]
            assert [len(w) for w in weights] == [5, 7, 2 * coupling.mask.n_moved]
    unbounded = RealNVP((1, 4, 4), bound=None)
    assert {t.bound for t in unbounded.transforms if type(t) is AffineCoupling} == {None}


def test_the_masks_are_what_they_are_called():
    points = RealNVP(5, couplings=1).transforms[0]
    assert isinstance(points.mask, AlternatingMask)
    masks = [type(t.mask) for t in RealNVP((1, 4, 4), couplings=1).transforms if hasattr(t, "mask")]
    assert masks == [CheckerboardMask, ChannelMask, ChannelMask, CheckerboardMask, CheckerboardMask]


def test_points_can_have_a_logit_and_a_tuple_for_a_shape(generator):
    model = RealNVP((3,), couplings=2, hidden=(8,), logit=0.1)
    assert kinds(model) == ["Logit", "alternating plain", "alternating flipped"]
    assert torch.isfinite(model.log_prob(torch.rand(4, 3, generator=generator))).all()


def test_the_first_batch_comes_out_standard_before_every_coupling(generator):
    """In training mode one batch sets every ActNorm, each on what the ones before it made."""
    model = RealNVP((1, 8, 8), couplings=1, hidden=(4,), logit=0.05)
    x = torch.rand(40, 1, 8, 8, generator=generator)
    model(x)
    norms = [t for t in model.transforms if isinstance(t, ActNorm)]
    assert len(norms) == 4
    assert all(norm.initialized for norm in norms)
    for transform in model.transforms:
        x = transform(x)[0]
        if isinstance(transform, Split):
            x = x.chunk(2, dim=1)[0]
        if isinstance(transform, ActNorm):
            assert x.mean(dim=(0, 2, 3)).abs().max() < 1e-5
            torch.testing.assert_close(x.var(dim=(0, 2, 3), correction=0), torch.ones(x.shape[1]))


def test_a_fresh_model_of_points_is_the_identity(generator):
    model = RealNVP(4)
    x = torch.randn(5, 4, generator=generator)
    assert torch.equal(model(x)[0], x)
    torch.testing.assert_close(model.log_prob(x), StandardGaussian(4).log_prob(x))


@pytest.mark.parametrize("bound", [2.0, 0.7])
def test_the_density_of_points_integrates_to_one(bound, generator):
    model = RealNVP(2, couplings=4, hidden=(16,), bound=bound).double()
    randomize(model, generator, scale=0.7)
    side = torch.linspace(-25, 25, 1251, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)
    with torch.no_grad():
        mass = sum(model.log_prob(part).exp().sum() for part in points.split(200_000))
        volume = model(points[::1000])[1]
    assert volume.std() > 0.3, "the test needs a volume that changes from point to point"
    assert abs(float(mass) * float(side[1] - side[0]) ** 2 - 1) < 1e-3


def test_samples_and_density_agree(generator):
    """Fractions of samples in the cells of a grid against the density summed over each cell."""
    model = randomize(RealNVP(2, couplings=4, hidden=(16,)).double(), generator, scale=0.6)
    n, cells, fine = 40_000, 8, 24
    samples = model.sample(n, generator=generator)
    low, high = samples.quantile(0.02, dim=0), samples.quantile(0.98, dim=0)
    unit = (torch.arange(cells * fine, dtype=torch.float64) + 0.5) / (cells * fine)
    points = low + (high - low) * torch.cartesian_prod(unit, unit)
    area = float((high - low).prod()) / (cells * fine) ** 2
    with torch.no_grad():
        mass = model.log_prob(points).exp().reshape(cells, fine, cells, fine).sum(dim=(1, 3)) * area
    inside = ((samples >= low) & (samples < high)).all(dim=1)
    index = ((samples[inside] - low) / (high - low) * cells).long()
    counts = torch.zeros(cells, cells, dtype=torch.float64)
    counts.index_put_((index[:, 0], index[:, 1]), torch.ones(len(index)).double(), accumulate=True)
    expected = mass * n
    busy = expected > 10
    chi_squared = ((counts - expected) ** 2 / expected)[busy].sum() / busy.sum()
    assert 0.5 < chi_squared < 1.6


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_mnists_model_inverts(dtype, tolerance, generator):
    model = RealNVP((1, 28, 28), levels=3, hidden=(32, 32), logit=1e-6).to(dtype)
    randomize(model, generator, scale=0.2)
    x = torch.rand(10, 1, 28, 28, generator=generator, dtype=dtype)
    with torch.no_grad():
        z, log_det = model(x)
        back, back_log_det = model.inverse(z)
    assert (back - x).abs().max() <= tolerance
    assert (log_det + back_log_det).abs().max() <= 100 * tolerance
    assert log_det.std() > 1


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_log_det_is_the_jacobians_at_every_depth(levels, generator):
    model = RealNVP((1, 8, 4), levels=levels, couplings=2, hidden=(4,), logit=0.05)
    randomize(model.double(), generator, scale=0.4)
    x = draw(model, (2, 1, 8, 4), generator)
    z, log_det = model(x)
    torch.testing.assert_close(
        log_det, log_abs_det_jacobian(lambda p: model(p)[0], x), rtol=0, atol=1e-10
    )
    back, back_log_det = model.inverse(z)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        back_log_det, log_abs_det_jacobian(lambda p: model.inverse(p)[0], z), rtol=0, atol=1e-9
    )


def test_training_finds_what_nice_cannot(generator):
    """Two spreads, chosen by the sign of the first coordinate: within 0.1 nats of the truth."""
    model = RealNVP(2, couplings=2, hidden=(16,))
    first = torch.randn(2000, generator=generator)
    spread = torch.where(first > 0, 3.0, 0.3)
    x = torch.stack([first, spread * torch.randn(2000, generator=generator)], dim=1)
    gaussian = torch.distributions.Normal(0, 1)
    truth = gaussian.log_prob(first) + torch.distributions.Normal(0, spread).log_prob(x[:, 1])
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(200):
        optimiser.zero_grad()
        model.loss(x).backward()
        optimiser.step()
    assert abs(model.loss(x).item() + truth.mean().item()) < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": 1}, "dim must be an integer of at least 2, got 1"),
        ({"shape": 0}, "dim must be an integer of at least 1, got 0"),
        ({"shape": "ab"}, "dim must be an integer of at least 1, got 'ab'"),
        ({"shape": (1, 8)}, "shape must be (dim,) or (C, H, W), each at least 1, got (1, 8)"),
        (
            {"shape": (1, None, 8)},
            "shape must be (dim,) or (C, H, W), each at least 1, got (1, None, 8)",
        ),
        ({"levels": 0}, "levels must be an integer of at least 1, got 0"),
        ({"shape": 2, "levels": 2}, "levels must be None for points, got 2"),
        ({"levels": 5}, "shape must leave two pixels at the last of 5 levels, got [1, 8, 8]"),
        ({"levels": 4}, "shape must leave two pixels at the last of 4 levels, got [1, 8, 8]"),
        (
            {"shape": (1, 12, 6), "levels": 3},
            "shape must be even once more for so many levels: takes images of even height and "
            "width, got [2, 6, 3]",
        ),
        (
            {"shape": (1, 7, 8)},
            "shape must be even once more for so many levels: takes images of even height and "
            "width, got [1, 7, 8]",
        ),
        ({"couplings": 0}, "couplings must be an integer of at least 1, got 0"),
        ({"shape": 2, "couplings": 0}, "couplings must be an integer of at least 1, got 0"),
        ({"couplings": 2.0}, "couplings must be an integer of at least 1, got 2.0"),
        ({"hidden": (4, 0)}, "hidden[1] must be an integer of at least 1, got 0"),
        ({"hidden": 4}, "hidden must be a sequence of integers, got 4"),
        ({"bound": -1}, "bound must be a finite number above 0, got -1"),
        ({"logit": 0.7}, "alpha must be below 0.5, got 0.7"),
        ({"logit": math.nan}, "alpha must be a finite number above 0, got nan"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RealNVP(**{"shape": (1, 8, 8), **arguments})


def test_two_pixels_are_enough():
    assert RealNVP((1, 2, 4), levels=2, couplings=1).scale_shapes == [(2, 1, 2), (2, 1, 2)]
    assert RealNVP((1, 4, 2), levels=2, couplings=1).scale_shapes == [(2, 2, 1), (2, 2, 1)]
    assert RealNVP((1, 1, 2), levels=1, couplings=1).scale_shapes == [(1, 1, 2)]
    assert isinstance(RealNVP((1, 2, 4), couplings=1, logit=0.1).transforms[0], Logit)
    assert isinstance(RealNVP((1, 2, 4), couplings=1).transforms[2], Squeeze)
