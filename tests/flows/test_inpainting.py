"""Inpainting: the ascent's steps by hand, and its end at a mode that is known exactly."""

import math

import pytest
import torch

from course_lib.flows import (
    NICE,
    AdditiveCoupling,
    DiagonalScaling,
    Flow,
    Glow,
    StandardGaussian,
    inpaint,
    log_prob_gradient,
)
from tests.flows.conftest import randomize


@pytest.fixture
def model(generator):
    return randomize(NICE(6, hidden=(16,)), generator, scale=0.5)


@pytest.fixture
def x(generator):
    return torch.rand(3, 6, generator=generator)


@pytest.fixture
def known():
    return torch.tensor([[True, True, False, False, True, False]]).expand(3, 6)


def test_known_coordinates_never_move(model, x, known, generator):
    states = inpaint(model, x, known, steps=5, generator=generator)
    assert states.shape == (6, 3, 6)
    assert torch.equal(states[0], x)
    assert not states.requires_grad
    assert torch.equal(states[:, known], x[known].expand(6, -1))
    assert (states[1:, ~known] != x[~known]).any()
    assert states.min() >= 0
    assert states.max() <= 1


def test_the_steps_are_the_papers(model, x, known):
    states = inpaint(model, x, known, steps=2, generator=torch.Generator().manual_seed(5))
    noise = torch.Generator().manual_seed(5)
    expected = x
    for alpha in (10 / 100, 10 / 101):
        gradient = torch.autograd.functional.jacobian(lambda p: model.log_prob(p).sum(), expected)
        moved = expected + alpha * (gradient + torch.randn(3, 6, generator=noise))
        expected = torch.where(known, x, moved.clamp(0, 1))
    torch.testing.assert_close(states[-1], expected)


def test_the_noise_is_drawn_in_the_models_precision(model, x, known):
    model, x = model.double(), x.double()
    step = inpaint(model, x, known, steps=1, generator=torch.Generator().manual_seed(5))[1]
    gradient = torch.autograd.functional.jacobian(lambda p: model.log_prob(p).sum(), x)
    noise = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    expected = torch.where(known, x, (x + 0.1 * (gradient + noise)).clamp(0, 1))
    torch.testing.assert_close(step, expected)


def test_images_are_filled_in_as_well(generator):
    model = randomize(Glow((1, 4, 4), 1, 1, 4, logit=0.05), generator, scale=0.3)
    x = torch.rand(2, 1, 4, 4, generator=generator)
    known = (torch.arange(4) < 2).expand(2, 1, 4, 4)
    states = inpaint(model, x, known, steps=3, step_size=1e-3, generator=generator)
    assert states.shape == (4, 2, 1, 4, 4)
    assert torch.equal(states[-1][known], x[known])
    assert (states[-1][~known] != x[~known]).all()


def test_without_noise_it_climbs_to_the_conditional_mean(generator):
    """The mode of a Gaussian given some coordinates is their conditional mean, known exactly."""
    flow = Flow(
        [
            AdditiveCoupling(4, [], flip=False),
            AdditiveCoupling(4, [], flip=True),
            DiagonalScaling(4),
        ],
        StandardGaussian(4),
    )
    flow = randomize(flow.double(), generator, scale=0.3)
    origin = torch.zeros(1, 4, dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(lambda p: flow(p[None])[0][0], origin[0])
    mean = torch.full((4,), 0.5, dtype=torch.float64)
    # Shift the flow so that its mean lies inside [0, 1], where nothing is clamped.
    with torch.no_grad():
        flow.transforms[0].shift.layers[0].bias -= (
            flow(mean[None])[0][0, 1::2] / flow.transforms[2].log_scale[1::2].exp()
        )
        even = flow(mean[None])[0][0, 0::2] / flow.transforms[2].log_scale[0::2].exp()
        flow.transforms[1].shift.layers[0].bias -= even
    torch.testing.assert_close(flow(mean[None])[0], origin, rtol=0, atol=1e-12)
    precision = matrix.T @ matrix
    known = torch.tensor([[True, False, False, True]])
    x = torch.tensor([[0.6, 0.1, 0.9, 0.45]], dtype=torch.float64)
    free, given = [1, 2], [0, 3]
    conditional = mean[free] - torch.linalg.solve(
        precision[free][:, free], precision[free][:, given] @ (x[0, given] - mean[given])
    )
    assert ((conditional > 0) & (conditional < 1)).all()
    end = inpaint(flow, x, known, steps=400, step_size=0.3, noise=0.0)[-1]
    torch.testing.assert_close(end[0, free], conditional, rtol=0, atol=1e-6)


def test_units_are_a_change_of_coordinates(model, x, known):
    """One step in u = x / units, by hand: the density of u has the gradient units ∂log p/∂x."""
    units = torch.tensor([0.5, 1.0, 0.1, 2.0, 1.0, 0.3])
    states = inpaint(
        model,
        x,
        known,
        steps=1,
        step_size=1e-3,
        units=units,
        generator=torch.Generator().manual_seed(5),
    )
    gradient = torch.autograd.functional.jacobian(
        lambda u: model.log_prob(u * units).sum(), x / units
    )
    noise = torch.randn(3, 6, generator=torch.Generator().manual_seed(5))
    moved = (x / units + 1e-3 * (gradient + noise)) * units
    expected = torch.where(known, x, moved.clamp(0, 1))
    torch.testing.assert_close(states[1], expected)


def test_far_steps_end_at_the_bounds(model, x, known, generator):
    states = inpaint(model, x, known, steps=3, step_size=1e3, generator=generator)
    assert set(states[1:, ~known].flatten().tolist()) == {0.0, 1.0}


def test_it_works_where_gradients_are_switched_off(model, x, known):
    def run():
        return inpaint(model, x, known, steps=2, generator=torch.Generator().manual_seed(5))

    with torch.no_grad():
        states = run()
    assert torch.equal(states, run())


@pytest.mark.parametrize("other", [None, torch.nn.Linear(6, 6), AdditiveCoupling(6, [], flip=True)])
def test_what_is_no_flow_is_named(other, x, known):
    with pytest.raises(ValueError, match=f"^model must be a Flow, got {type(other).__name__}"):
        inpaint(other, x, known)


def test_noise_scales_the_steps_randomness(model, x, known):
    def step(noise):
        generator = torch.Generator().manual_seed(1)
        return inpaint(model, x, known, steps=1, step_size=1e-3, noise=noise, generator=generator)[
            1
        ]

    torch.testing.assert_close(
        step(2.0) - step(0.0), 2 * (step(1.0) - step(0.0)), rtol=1e-3, atol=1e-6
    )
    assert not torch.equal(step(1.0), step(0.0))


def test_defaults_are_the_papers_and_the_result_is_reproducible(model, x, known):
    def seed():
        return torch.Generator().manual_seed(1)

    default = inpaint(model, x, known, generator=seed())
    assert len(default) == 101
    spelled = inpaint(model, x, known, steps=100, step_size=0.1, noise=1.0, generator=seed())
    assert torch.equal(default, spelled)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(6)}, r"x must have shape \[B, 6\], got \[6\]"),
        ({"x": torch.full((3, 6), math.nan)}, "x must be finite"),
        ({"x": torch.zeros(3, 6).long()}, "x must be a floating-point tensor, got torch.int64"),
        (
            {"known": torch.ones(3, 6)},
            r"known must be a boolean tensor of x's shape \[3, 6\], got torch.float32",
        ),
        ({"known": torch.ones(6).bool()}, r"known must .* \[3, 6\], got torch.bool \[6\]"),
        ({"known": "all"}, r"known must .* got 'all'"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"step_size": 0.0}, "step_size must be a finite number above 0, got 0.0"),
        ({"noise": -0.5}, "noise must be a finite number of at least 0, got -0.5"),
        ({"noise": math.inf}, "noise must be a finite number of at least 0, got inf"),
        ({"units": torch.ones(5)}, r"units must have shape \[6\], got \[5\]"),
        ({"units": torch.ones(6).double()}, "units must be torch.float32 like the model"),
        ({"units": -torch.ones(6)}, "units must be positive, got -1.0"),
        ({"units": torch.zeros(6)}, "units must be positive, got 0.0"),
        ({"generator": 1}, "generator must be a torch.Generator or None, got 1"),
    ],
)
def test_bad_arguments_are_named(model, x, known, change, message):
    arguments = {"x": x, "known": known, **change}
    with pytest.raises(ValueError, match="^" + message):
        inpaint(model, arguments.pop("x"), arguments.pop("known"), **arguments)


def test_the_gradient_is_that_of_each_points_log_prob(model, x):
    expected = torch.stack(
        [torch.autograd.functional.jacobian(lambda p: model.log_prob(p[None])[0], p) for p in x]
    )
    with torch.no_grad():
        gradient = log_prob_gradient(model, x)
    torch.testing.assert_close(gradient, expected)
    assert not gradient.requires_grad
    assert not x.requires_grad


def test_one_point_is_enough(model, x, known):
    one = inpaint(model, x[:1], known[:1], steps=2, noise=0)
    torch.testing.assert_close(one, inpaint(model, x, known, steps=2, noise=0)[:, :1])
