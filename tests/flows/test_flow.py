"""Flow and NICE: the change of variables, composition, and integrals that give 1."""

import math
import re

import pytest
import torch
from torch import nn

from course_lib.flows import (
    NICE,
    AdditiveCoupling,
    DiagonalScaling,
    Flow,
    Permutation,
    Planar,
    StandardGaussian,
    Standardize,
    StandardLogistic,
    chain,
)
from tests.flows.conftest import log_abs_det_jacobian, randomize


def mixed_flow(dim, generator, base=StandardGaussian):
    """A flow with one transform of every kind, none of them the identity."""
    transforms = [
        AdditiveCoupling(dim, [16], flip=False),
        Planar(dim),
        Permutation(dim),
        AdditiveCoupling(dim, [16], flip=True),
        DiagonalScaling(dim),
    ]
    return randomize(Flow(transforms, base(dim)).double(), generator, scale=0.5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_nice_64_inverts(dtype, tolerance, generator):
    model = NICE(64).to(dtype)
    x = torch.rand(100, 64, generator=generator, dtype=dtype)
    z, log_det = model(x)
    back, back_log_det = model.inverse(z)
    assert (back - x).abs().max() <= tolerance
    assert (log_det + back_log_det).abs().max() <= tolerance


def test_nice_64_log_det_is_the_jacobians(generator):
    model = randomize(NICE(64), generator, scale=0.3)
    x = torch.rand(3, 64, generator=generator)
    expected = log_abs_det_jacobian(lambda p: model(p)[0], x)
    assert (model(x)[1] - expected).abs().max() < 1e-5
    model, x = model.double(), x.double()
    expected = log_abs_det_jacobian(lambda p: model(p)[0], x)
    assert (model(x)[1] - expected).abs().max() < 1e-10
    assert expected.abs().min() > 0.1


@pytest.mark.parametrize("prior", ["gaussian", "logistic"])
def test_the_density_integrates_to_one(prior, generator):
    model = randomize(NICE(2, hidden=(16,), prior=prior).double(), generator, scale=0.6)
    side = torch.linspace(-60, 60, 1001, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)
    with torch.no_grad():
        mass = sum(model.log_prob(part).exp().sum() for part in points.split(500_000))
    assert abs(float(mass) * float(side[1] - side[0]) ** 2 - 1) < 2e-4


def test_flow_log_prob_is_the_change_of_variables(generator):
    flow = mixed_flow(4, generator)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    z = flow(x)[0]
    gaussian = torch.distributions.MultivariateNormal(
        torch.zeros(4).double(), torch.eye(4).double()
    )
    expected = gaussian.log_prob(z) + log_abs_det_jacobian(lambda p: flow(p)[0], x)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(flow.loss(x), -expected.mean(), rtol=0, atol=1e-9)


def test_a_chain_has_the_log_det_of_the_whole_jacobian(generator):
    transforms = list(mixed_flow(5, generator).transforms)
    x = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    z, log_det = chain(transforms, x)
    by_hand = x
    for transform in transforms:
        by_hand = transform(by_hand)[0]
    assert torch.equal(z, by_hand)
    exact = log_abs_det_jacobian(lambda points: chain(transforms, points)[0], x)
    assert torch.allclose(log_det, exact, atol=1e-10)
    same, none = chain([], x)
    assert torch.equal(same, x)
    assert (none == 0).all()


def test_a_linear_gaussian_flow_has_the_closed_form(generator):
    """A linear flow of a Gaussian is a Gaussian with covariance (A Aᵀ)⁻¹, known exactly."""
    flow = Flow(
        [
            AdditiveCoupling(4, [], flip=False),
            AdditiveCoupling(4, [], flip=True),
            DiagonalScaling(4),
        ],
        StandardGaussian(4),
    )
    flow = randomize(flow.double(), generator, scale=0.7)
    origin = torch.zeros(1, 4, dtype=torch.float64)
    offset = flow(origin)[0][0].detach()
    matrix = torch.autograd.functional.jacobian(lambda p: flow(p[None])[0][0], origin[0])
    exact = torch.distributions.MultivariateNormal(
        -torch.linalg.solve(matrix, offset), precision_matrix=matrix.T @ matrix
    )
    x = torch.randn(10, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(flow.log_prob(x), exact.log_prob(x))
    samples = flow.sample(200_000, generator=generator)
    error = (torch.cov(samples.T) - exact.covariance_matrix).abs().max()
    assert error < 0.02 * exact.covariance_matrix.abs().max()
    assert (samples.mean(0) - exact.mean).abs().max() < 0.02 * exact.covariance_matrix.max() ** 0.5


def test_samples_and_density_agree(generator):
    """Fractions of samples in the cells of a grid against the density summed over each cell."""
    model = randomize(NICE(2, hidden=(16,)).double(), generator, scale=0.8)
    model.transforms[-1].log_scale.data += 1.0
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


def test_sample_is_the_inverse_of_the_base_and_reproducible(generator):
    flow = mixed_flow(4, generator, base=StandardLogistic)
    state = torch.get_rng_state()
    samples = flow.sample(5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(samples, flow.sample(5, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(state, torch.get_rng_state())
    assert samples.shape == (5, 4)
    assert not samples.requires_grad
    z = flow.base.sample(5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(flow(samples)[0], z, rtol=0, atol=1e-9)


def test_trajectories_hold_every_state(generator):
    flow = mixed_flow(4, generator)
    x = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    states = flow.trajectory(x)
    assert states.shape == (6, 3, 4)
    assert not states.requires_grad
    assert torch.equal(states[0], x)
    for before, after, transform in zip(states[:-1], states[1:], flow.transforms, strict=True):
        torch.testing.assert_close(after, transform(before)[0])
    z, log_det = flow(x)
    torch.testing.assert_close(states[-1], z)
    back = flow.trajectory_inverse(z)
    torch.testing.assert_close(back.flip(0), states, rtol=0, atol=1e-9)
    torch.testing.assert_close(flow.inverse(z)[1], -log_det, rtol=0, atol=1e-9)
    assert not back.requires_grad


@pytest.mark.parametrize("prior", ["gaussian", "logistic"])
def test_nice_is_built_as_in_the_paper(prior):
    model = NICE(6, couplings=5, hidden=(7, 9), prior=prior)
    *couplings, scaling = model.transforms
    assert isinstance(scaling, DiagonalScaling)
    assert [coupling.flip for coupling in couplings] == [False, True, False, True, False]
    assert all(isinstance(coupling, AdditiveCoupling) for coupling in couplings)
    widths = [
        [layer.out_features for layer in c.shift.layers if isinstance(layer, nn.Linear)]
        for c in couplings
    ]
    assert widths == [[7, 9, 3]] * 5
    assert type(model.base).__name__.lower() == f"standard{prior}"


def test_nice_can_standardize_first():
    assert isinstance(NICE(4, standardize=True).transforms[0], Standardize)
    assert len(NICE(4, standardize=True).transforms) == 6


def test_nice_defaults():
    model = NICE(4)
    assert len(model.transforms) == 5
    assert isinstance(model.base, StandardLogistic)
    assert [layer.out_features for layer in model.transforms[0].shift.layers[::2]] == [128, 128, 2]


@pytest.mark.parametrize(("couplings", "complete"), [(1, False), (2, False), (3, True), (4, True)])
def test_three_couplings_connect_everything(couplings, complete, generator):
    model = randomize(NICE(6, couplings=couplings, hidden=(64,)), generator)
    points = torch.randn(20, 6, generator=generator)
    depends = sum(
        torch.autograd.functional.jacobian(lambda p: model(p[None])[0][0], x).abs() for x in points
    )
    assert bool((depends > 0).all()) is complete


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 1}, "dim must be an integer of at least 2, got 1"),
        ({"dim": "64"}, "dim must be an integer of at least 2, got '64'"),
        ({"dim": 4, "couplings": 0}, "couplings must be an integer of at least 1, got 0"),
        ({"dim": 4, "hidden": (8, -1)}, r"hidden\[1\] must be an integer of at least 1, got -1"),
        ({"dim": 4, "hidden": 8}, "hidden must be a sequence of integers, got 8"),
        ({"dim": 4, "prior": "cauchy"}, "prior must be one of gaussian, logistic, got 'cauchy'"),
        ({"dim": 4, "standardize": 1}, "standardize must be True or False, got 1"),
        ({"dim": 4, "prior": None}, "prior must be one of gaussian, logistic, got None"),
    ],
)
def test_bad_nice_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        NICE(**arguments)


@pytest.mark.parametrize(
    ("transforms", "base", "message"),
    [
        ([], StandardGaussian(2), "transforms must hold at least one transform, got none"),
        (
            [DiagonalScaling(2), nn.ReLU()],
            StandardGaussian(2),
            r"transforms\[1\] must be a Transform, got ReLU",
        ),
        (None, StandardGaussian(2), "transforms must be a list of transforms, got None"),
        (
            DiagonalScaling(2),
            StandardGaussian(2),
            "transforms must be a list of transforms, got Dia",
        ),
        (
            [DiagonalScaling(2).double()],
            StandardGaussian(2),
            r"transforms\[0\] must be torch.float32 like the base, got torch.float64",
        ),
        (
            [DiagonalScaling(3)],
            StandardGaussian(2),
            r"transforms\[0\] takes shape \[3\], got \[2\]",
        ),
        ([DiagonalScaling(2)], nn.ReLU(), r"base must be a base density, got ReLU\(\)"),
    ],
)
def test_bad_flows_are_named(transforms, base, message):
    with pytest.raises(ValueError, match="^" + message):
        Flow(transforms, base)


@pytest.mark.parametrize(
    "verb", ["forward", "log_prob", "loss", "trajectory", "inverse", "trajectory_inverse"]
)
@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.zeros(4), r"must have shape \[B, 4\], got \[4\]"),
        (torch.zeros(1, 1, 2, 2), r"must have shape \[B, 4\], got \[1, 1, 2, 2\]"),
        (torch.zeros(2, 3), r"must have shape \[B, 4\], got \[2, 3\]"),
        (torch.zeros(0, 4), r"must have shape \[B, 4\], got \[0, 4\]"),
        (torch.zeros(2, 4).long(), "must be a floating-point tensor, got torch.int64"),
        (torch.full((2, 4), math.nan), "must be finite"),
        (torch.zeros(2, 4).double(), "must be torch.float32 like the model, got torch.float64"),
        (None, r"must be a tensor of shape \[B, 4\], got NoneType"),
    ],
)
def test_bad_points_are_named(verb, points, message):
    name = "z" if "inverse" in verb else "x"
    with pytest.raises(ValueError, match=f"^{name} " + message):
        getattr(NICE(4), verb)(points)


def overflowing(i, log_scale):
    """A flow of four transforms, the i-th of which takes every number beyond float32."""
    flow = Flow([DiagonalScaling(4) for _ in range(4)], StandardLogistic(4))
    flow.transforms[i].log_scale.data.fill_(log_scale)
    return flow


@pytest.mark.parametrize("verb", ["forward", "log_prob", "loss"])
@pytest.mark.parametrize("i", range(4))
def test_an_overflow_is_the_flows_and_not_the_readers(verb, i):
    """The message names the transform, and not the finite x that the reader gave."""
    message = (
        "the flow must keep x finite, got NaN or infinite values from "
        f"transforms[{i}] (DiagonalScaling)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        getattr(overflowing(i, 200.0), verb)(torch.ones(2, 4))


@pytest.mark.parametrize("verb", ["inverse", "sample"])
@pytest.mark.parametrize("i", range(4))
def test_an_overflow_on_the_way_back_is_the_flows(verb, i):
    message = (
        "the flow must keep z finite, got NaN or infinite values from "
        f"transforms[{i}] (DiagonalScaling)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        getattr(overflowing(i, -200.0), verb)(torch.ones(2, 4) if verb == "inverse" else 2)


@pytest.mark.parametrize("i", range(3))
def test_an_overflow_in_a_network_is_its_couplings(i):
    model = NICE(4, couplings=3, hidden=(4,))
    model.transforms[i].shift.layers[-1].bias.data.fill_(3e38)
    message = rf"^the flow must keep x finite, got .* from transforms\[{i}\] \(AdditiveCoupling\)$"
    with pytest.raises(ValueError, match=message):
        model(torch.full((2, 4), 2e38))


def test_an_infinite_volume_is_the_flows():
    model = NICE(4)
    model.transforms[-1].log_scale.data = torch.tensor([-3e38, -3e38, 0.0, 0.0])
    message = "the flow must keep x finite, got NaN or infinite values from the sum of the log-det"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        model.log_prob(torch.rand(2, 4))


def test_bad_sample_arguments_are_named():
    with pytest.raises(ValueError, match=r"^n must be an integer of at least 1, got 0"):
        NICE(4).sample(0)
    with pytest.raises(ValueError, match=r"^generator must be a torch.Generator or None, got 0"):
        NICE(4).sample(1, generator=0)


def test_the_loss_takes_no_seed():
    with pytest.raises(ValueError, match=r"^generator must be a torch.Generator or None, got 5"):
        NICE(4).loss(torch.zeros(1, 4), generator=5)


def test_training_raises_the_likelihood(generator):
    """Two hundred steps of gradient descent on a correlated Gaussian come near its entropy."""
    model = NICE(2, hidden=(16,), prior="gaussian")
    factor = torch.tensor([[1.0, 0.0], [0.9, 0.3]])
    exact = torch.distributions.MultivariateNormal(torch.zeros(2), scale_tril=factor)
    x = torch.randn(2000, 2, generator=generator) @ factor.T
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(200):
        optimiser.zero_grad()
        model.loss(x).backward()
        optimiser.step()
    assert abs(model.loss(x).item() - float(exact.entropy())) < 0.05
