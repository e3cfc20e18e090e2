"""Glow: how it is built, and that it inverts at every depth that the course uses."""

import math
import re

import pytest
import torch

from course_lib import checks
from course_lib.flows import (
    ActNorm,
    AffineCoupling,
    ChannelMask,
    Glow,
    InvertibleConv1x1,
    Logit,
    Permutation,
    Split,
    StandardGaussian,
)
from tests.flows.conftest import draw, log_abs_det_jacobian, randomize


def kinds(model):
    return [type(transform).__name__ for transform in model.transforms]


def parts(model, kind):
    return [transform for transform in model.transforms if type(transform) is kind]


def test_it_is_built_as_in_the_paper():
    model = Glow((1, 28, 28), levels=2, depth=3, hidden=16, logit=0.05)
    level = ["Squeeze", *["ActNorm", "InvertibleConv1x1", "AffineCoupling"] * 3]
    assert kinds(model) == ["Logit", *level, "Split", *level]
    assert model.scale_shapes == [(2, 14, 14), (8, 7, 7)]
    assert isinstance(model.base, StandardGaussian)
    assert model.base.event_shape == (1, 28, 28)
    assert model.transforms[0].alpha == 0.05
    assert kinds(Glow((3, 4, 4), 1, 1, 4)) == level[:4]
    assert [norm.event_shape for norm in parts(model, ActNorm)] == [(4,)] * 3 + [(8,)] * 3
    for coupling in parts(model, AffineCoupling):
        assert isinstance(coupling.mask, ChannelMask)
        assert not coupling.flip


def test_three_levels():
    model = Glow((3, 16, 8), 3, 1, 4)
    assert model.scale_shapes == [(6, 8, 4), (12, 4, 2), (48, 2, 1)]
    assert len(parts(model, Split)) == 2


def test_defaults_and_what_it_is_given():
    model = Glow((1, 4, 4), 1, 2, 5)
    assert [coupling.bound for coupling in parts(model, AffineCoupling)] == [2.0, 2.0]
    assert [coupling.hidden for coupling in parts(model, AffineCoupling)] == [(5, 5)] * 2
    assert [conv.lu for conv in parts(model, InvertibleConv1x1)] == [True, True]
    model = Glow((1, 4, 4), 1, 2, [5, 6, 7], lu=False, bound=None)
    assert [coupling.bound for coupling in parts(model, AffineCoupling)] == [None, None]
    assert [conv.lu for conv in parts(model, InvertibleConv1x1)] == [False, False]
    weights = [len(p) for p in parts(model, AffineCoupling)[0].parameters() if p.ndim > 1]
    assert weights == [5, 6, 7, 4]


def test_permutations_can_take_the_place_of_the_convolutions():
    model = Glow((1, 8, 8), 2, 2, 4, mixing="reverse")
    step = ["ActNorm", "Permutation", "AffineCoupling"]
    assert kinds(model) == ["Squeeze", *step * 2, "Split", "Squeeze", *step * 2]
    assert all(
        p.order.tolist() == list(range(len(p.order)))[::-1] for p in parts(model, Permutation)
    )
    shuffles = parts(Glow((4, 4, 4), 1, 4, 4, mixing="shuffle"), Permutation)
    orders = [tuple(p.order.tolist()) for p in shuffles]
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert len(set(orders)) == 4
    assert "Permutation" not in kinds(Glow((1, 4, 4), 1, 1, 4, mixing="conv"))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_mnists_model_inverts(dtype, tolerance, generator):
    model = Glow((1, 28, 28), 2, 8, 64, logit=1e-6).to(dtype)
    randomize(model, generator, scale=0.2)
    x = torch.rand(10, 1, 28, 28, generator=generator, dtype=dtype)
    with torch.no_grad():
        z, log_det = model(x)
        back, back_log_det = model.inverse(z)
    assert (back - x).abs().max() <= tolerance
    assert (log_det + back_log_det).abs().max() <= 100 * tolerance
    assert log_det.std() > 1


@pytest.mark.parametrize(
    ("shape", "levels", "depth"),
    [((1, 4, 4), 1, 8), ((3, 4, 2), 1, 1), ((1, 4, 4), 2, 2), ((1, 8, 8), 3, 1)],
)
@pytest.mark.parametrize("lu", [True, False])
def test_log_det_is_the_jacobians_at_every_depth(shape, levels, depth, lu, generator):
    model = Glow(shape, levels, depth, 4, lu=lu, logit=0.05).double()
    # The 1×1 convolutions keep their rotations: eight random matrices in a row are hardly inverted.
    for transform in model.transforms:
        if not isinstance(transform, InvertibleConv1x1):
            randomize(transform, generator, scale=0.3)
    x = draw(model, (2, *shape), generator)
    z, log_det = model(x)
    torch.testing.assert_close(
        log_det, log_abs_det_jacobian(lambda p: model(p)[0], x), rtol=0, atol=1e-10
    )
    back, back_log_det = model.inverse(z)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        back_log_det, log_abs_det_jacobian(lambda p: model.inverse(p)[0], z), rtol=0, atol=1e-9
    )


def test_few_looks_at_the_numbers_are_enough(generator, monkeypatch):
    """At the door and before the base's density: not again in each of 59 parts."""
    model = Glow((1, 8, 8), 2, 4, 8, logit=0.05)
    x = torch.rand(5, 1, 8, 8, generator=generator)
    model.loss(x)
    looks = []
    look = checks._all_finite
    monkeypatch.setattr(checks, "_all_finite", lambda x: looks.append(x.shape) or look(x))
    model.log_prob(x)
    assert looks == [x.shape, x.shape]
    looks.clear()
    model.sample(5, generator=generator)
    assert looks == [x.shape]


def test_the_first_batch_comes_out_standard_before_every_convolution(generator):
    model = Glow((1, 8, 8), 2, 2, 4, logit=0.05)
    x = torch.rand(40, 1, 8, 8, generator=generator)
    model.loss(x)
    assert all(norm.initialized for norm in parts(model, ActNorm))
    for transform in model.transforms:
        x = transform(x)[0]
        if isinstance(transform, Split):
            x = x.chunk(2, dim=1)[0]
        if isinstance(transform, ActNorm):
            assert x.mean(dim=(0, 2, 3)).abs().max() < 1e-5
            torch.testing.assert_close(x.var(dim=(0, 2, 3), correction=0), torch.ones(x.shape[1]))


def test_training_raises_the_likelihood(generator):
    """Images whose pixels are alike: a few steps find most of what correlation is worth."""
    model = Glow((1, 4, 4), 1, 2, 8)
    x = torch.randn(500, 1, 1, 1, generator=generator) + 0.5 * torch.randn(
        500, 1, 4, 4, generator=generator
    )
    covariance = 0.25 * torch.eye(16) + 1
    truth = torch.distributions.MultivariateNormal(torch.zeros(16), covariance).entropy().item()
    start = model.loss(x).item()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimiser.zero_grad()
        model.loss(x).backward()
        optimiser.step()
    assert start > truth + 4
    assert abs(model.loss(x).item() - truth) < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": 8}, "image_shape must be (C, H, W), each at least 1, got 8"),
        ({"image_shape": (8,)}, "image_shape must be (C, H, W), each at least 1, got (8,)"),
        (
            {"image_shape": (1, 8, None)},
            "image_shape must be (C, H, W), each at least 1, got (1, 8, None)",
        ),
        (
            {"image_shape": (1, 8, 6)},
            "shape must be even once more for so many levels: takes images of even height and "
            "width, got [2, 4, 3]",
        ),
        (
            {"levels": 4},
            "shape must be even once more for so many levels: takes images of even height and "
            "width, got [8, 1, 1]",
        ),
        ({"levels": 0}, "levels must be an integer of at least 1, got 0"),
        ({"depth": 0}, "depth must be an integer of at least 1, got 0"),
        ({"hidden": 0}, "hidden[0] must be an integer of at least 1, got 0"),
        ({"hidden": (4, True)}, "hidden[1] must be an integer of at least 1, got True"),
        ({"hidden": None}, "hidden must be a sequence of integers, got None"),
        ({"mixing": "rotate"}, "mixing must be one of conv, reverse, shuffle, got 'rotate'"),
        ({"lu": "yes"}, "lu must be True or False, got 'yes'"),
        ({"bound": 0}, "bound must be a finite number above 0, got 0"),
        ({"logit": 0.5}, "alpha must be below 0.5, got 0.5"),
        ({"logit": math.inf}, "alpha must be a finite number above 0, got inf"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    given = {"image_shape": (1, 8, 8), "levels": 2, "depth": 1, "hidden": 4, **arguments}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Glow(**given)


def test_the_logit_comes_first():
    assert isinstance(Glow((1, 4, 4), 1, 1, 4, logit=0.1).transforms[0], Logit)
    assert kinds(Glow((1, 4, 4), 1, 1, 4))[0] == "Squeeze"
