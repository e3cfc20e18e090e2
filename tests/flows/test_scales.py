"""Flows of several scales: where every number lies, and that the density stays the density."""

import math
import re

import pytest
import torch

from course_lib.flows import (
    ActNorm,
    AffineCoupling,
    CheckerboardMask,
    Flow,
    Glow,
    InvertibleConv1x1,
    Logit,
    RealNVP,
    Split,
    Squeeze,
    StandardGaussian,
    StandardLogistic,
)
from tests.flows.conftest import draw, randomize


def layout(shape=(1, 4, 8)):
    """Squeezes and Splits only, in a 3-level order: at the start it is the identity."""
    c, h, w = shape
    return Flow(
        [
            Squeeze(),
            Split((4 * c, h // 2, w // 2)),
            Squeeze(),
            Split((8 * c, h // 4, w // 4)),
            Split((4 * c, h // 4, w // 4)),
        ],
        StandardGaussian(shape),
    )


MODELS = {
    "layout": lambda: layout((3, 4, 4)),
    "realnvp": lambda: RealNVP((1, 8, 8), levels=3, couplings=1, hidden=(4,), logit=0.05),
    "glow": lambda: Glow((2, 8, 4), 2, 2, 4),
}
each_model = pytest.mark.parametrize("name", MODELS)


def build(name, generator, scale=0.4):
    model = randomize(MODELS[name]().double(), generator, scale)
    return model, draw(model, (3, *model.base.event_shape), generator)


def test_every_number_of_z_lies_where_it_was_taken_from(generator):
    flow = layout()
    x = torch.randn(5, 1, 4, 8, generator=generator)
    z, log_det = flow(x)
    assert torch.equal(z, x)
    assert torch.equal(log_det, torch.zeros(5))
    assert torch.equal(flow.inverse(x)[0], x)
    assert torch.equal(flow.trajectory(x), x.expand(6, *x.shape))
    assert torch.equal(flow.trajectory_inverse(x), x.expand(6, *x.shape))


def test_the_scales_are_those_numbers_first_the_one_that_left_first():
    """A 4×8 image, by hand: rows 1, 3 leave first; of each 4×4 block three numbers are left."""
    flow = layout()
    assert flow.scale_shapes == [(2, 2, 4), (4, 1, 2), (2, 1, 2), (2, 1, 2)]
    z = torch.arange(32.0).reshape(1, 1, 4, 8)
    first, second, third, last = flow.scales(z)
    assert first[0].tolist() == [
        [[8, 10, 12, 14], [24, 26, 28, 30]],
        [[9, 11, 13, 15], [25, 27, 29, 31]],
    ]
    # What went on: even rows, as two channels of even and odd columns. Its second squeeze makes
    # eight channels; the last four of them are the odd columns' channel.
    assert second[0].tolist() == [[[1, 5]], [[3, 7]], [[17, 21]], [[19, 23]]]
    assert third[0].tolist() == [[[16, 20]], [[18, 22]]]
    assert last[0].tolist() == [[[0, 4]], [[2, 6]]]


@each_model
def test_join_undoes_scales(name, generator):
    model, z = build(name, generator)
    parts = model.scales(z)
    assert [tuple(part.shape[1:]) for part in parts] == model.scale_shapes
    assert sum(part[0].numel() for part in parts) == z[0].numel()
    assert torch.equal(model.join(parts), z)
    assert torch.equal(model.join(tuple(parts)), z)


@each_model
def test_z_is_what_the_steps_give(name, generator):
    """The flow written out: what goes on goes on, what leaves is kept as one of the scales."""
    model, x = build(name, generator)
    z, log_det = model(x)
    total, leaving, h = 0, [], x
    for transform in model.transforms:
        h, step = transform(h)
        total = total + step
        if isinstance(transform, Split):
            half = h.shape[1] // 2
            leaving.append(h[:, half:])
            h = h[:, :half]
    for ours, expected in zip(model.scales(z), [*leaving, h], strict=True):
        torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(log_det, total)
    gaussian = torch.distributions.Normal(0, 1)
    expected = sum(gaussian.log_prob(part).flatten(1).sum(dim=1) for part in [*leaving, h]) + total
    torch.testing.assert_close(model.log_prob(x), expected)


def test_log_prob_is_the_product_of_the_conditionals(generator):
    """Log p(x) = log p(h1) + log N(h2; μ(h1), σ(h1)²), with both computed apart."""
    inner = AffineCoupling((2, 2, 3), [8], flip=True)
    split = Split((4, 2, 3))
    flow = Flow([Squeeze(), split, inner], StandardGaussian((1, 4, 6)))
    randomize(flow.double(), generator)
    x = torch.randn(5, 1, 4, 6, generator=generator, dtype=torch.float64)
    h1, h2 = Squeeze().double()(x)[0].chunk(2, dim=1)
    first = Flow([inner], StandardGaussian((2, 2, 3)).double()).log_prob(h1)
    mean, std = split.prior(h1)
    second = torch.distributions.Normal(mean, std).log_prob(h2).flatten(1).sum(dim=1)
    torch.testing.assert_close(flow.log_prob(x), first + second, rtol=0, atol=1e-11)


class Halfway(AffineCoupling):
    """An affine coupling of all channels that moves within the first half of them alone."""

    def __init__(self, shape, inner):
        super().__init__(shape, [], flip=False)
        self.inner = inner

    def forward(self, x):
        kept, rest = x.chunk(2, dim=1)
        z, log_det = self.inner(kept)
        return torch.cat([z, rest], dim=1), log_det


def test_the_factorisation_has_the_log_prob_of_the_unsplit_model(generator):
    """A Split whose half leaves against the same coupling and maps with nothing set aside."""
    shape = (4, 2, 2)
    split = Split(shape)
    inner = [
        AffineCoupling((2, 2, 2), [8], flip=False),
        AffineCoupling((2, 2, 2), [8], flip=True, mask=CheckerboardMask),
        InvertibleConv1x1(2),
    ]
    many = Flow([ActNorm(4), split, *inner], StandardGaussian(shape))
    randomize(many.double(), generator)
    coupling = AffineCoupling(shape, [], flip=False, bound=4.0).double()
    coupling.load_state_dict(split.state_dict())
    unsplit = Flow(
        [many.transforms[0], coupling, *(Halfway(shape, part).double() for part in inner)],
        StandardGaussian(shape).double(),
    )
    assert len(many.scale_shapes) == 2
    assert len(unsplit.scale_shapes) == 1
    x = torch.randn(6, *shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(many(x)[0], unsplit(x)[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(many.log_prob(x), unsplit.log_prob(x), rtol=0, atol=1e-11)


def test_a_linear_multiscale_flow_is_a_known_gaussian(generator):
    """Where no log-scale depends on x the flow is affine: log_prob, samples in closed form."""
    shape = (1, 2, 4)
    flow = Flow(
        [
            Squeeze(),
            ActNorm(4),
            InvertibleConv1x1(4),
            AffineCoupling((4, 1, 2), [], flip=False),
            Split((4, 1, 2)),
            ActNorm(2),
            AffineCoupling((2, 1, 2), [], flip=True),
        ],
        StandardGaussian(shape),
    )
    randomize(flow.double(), generator, scale=0.5)
    for part in flow.modules():
        if isinstance(part, AffineCoupling):
            n = part.mask.n_moved
            part.net.layers[0].weight.data[:n] = 0  # log-scales: their biases remain
    origin = torch.zeros(1, 8, dtype=torch.float64)

    def latents(points):
        return flow(points.reshape(-1, *shape))[0].flatten(1)

    matrix = torch.autograd.functional.jacobian(lambda p: latents(p)[0], origin[0])
    exact = torch.distributions.MultivariateNormal(
        -torch.linalg.solve(matrix, latents(origin)[0].detach()),
        precision_matrix=matrix.T @ matrix,
    )
    x = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(flow.log_prob(x.reshape(-1, *shape)), exact.log_prob(x))
    n = 40_000
    samples = flow.sample(n, generator=generator).flatten(1)
    whitened = (samples - exact.mean) @ torch.linalg.cholesky(exact.precision_matrix)
    assert (whitened.mean(dim=0) * n**0.5).abs().max() < 4
    assert (torch.cov(whitened.T) - torch.eye(8)).abs().max() < 7 / n**0.5
    narrow = flow.sample(n, temperature=0.5, generator=generator).flatten(1)
    whitened = (narrow - exact.mean) @ torch.linalg.cholesky(exact.precision_matrix)
    assert (4 * torch.cov(whitened.T) - torch.eye(8)).abs().max() < 7 / n**0.5


@each_model
def test_trajectories_hold_every_state(name, generator):
    model, x = build(name, generator)
    n = len(model.transforms)
    states = model.trajectory(x)
    assert states.shape == (n + 1, *x.shape)
    assert not states.requires_grad
    assert torch.equal(states[0], x)
    z = model(x)[0]
    torch.testing.assert_close(states[-1], z, rtol=0, atol=1e-12)
    back = model.trajectory_inverse(z)
    assert torch.equal(back[0], z)
    torch.testing.assert_close(back.flip(0), states, rtol=0, atol=1e-10)
    assert not back.requires_grad
    for k, transform in enumerate(model.transforms):
        moved = not torch.equal(states[k + 1], states[k])
        assert moved == (not isinstance(transform, Squeeze)), "a squeeze moves nothing"


def test_what_has_left_stays_as_it_is(generator):
    model, x = build("realnvp", generator)
    states = model.trajectory(x)
    first_split = next(k for k, t in enumerate(model.transforms) if isinstance(t, Split))
    left = model.scales(states[first_split + 1])[0]
    for state in states[first_split + 1 :]:
        assert torch.equal(model.scales(state)[0], left)


@each_model
@pytest.mark.parametrize("temperature", [0.5, 1, 1.0, 2.5])
def test_the_temperature_multiplies_the_latents(name, temperature, generator):
    model, _ = build(name, generator)
    samples = model.sample(4, temperature=temperature, generator=torch.Generator().manual_seed(3))
    z = model.base.sample(4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(samples, model.inverse(temperature * z)[0])
    assert not samples.requires_grad
    if temperature == 1:
        plain = model.sample(4, generator=torch.Generator().manual_seed(3))
        assert torch.equal(samples, plain)


@pytest.mark.parametrize("temperature", [0, -0.5, math.nan, math.inf, True, "1", None])
def test_bad_temperatures_are_named(temperature):
    with pytest.raises(ValueError, match=r"^temperature must be a finite number above 0, got "):
        layout().sample(1, temperature=temperature)


def test_another_base_at_all_scales(generator):
    model = Flow(layout().transforms, StandardLogistic((1, 4, 8)))
    x = torch.randn(3, 1, 4, 8, generator=generator)
    torch.testing.assert_close(model.log_prob(x), StandardLogistic((1, 4, 8)).log_prob(x))


def test_a_flow_without_splits_has_one_scale(generator):
    flow = Flow([Squeeze(), ActNorm(4), Squeeze()], StandardGaussian((1, 4, 4)))
    assert flow.scale_shapes == [(16, 1, 1)]
    z = torch.arange(16.0).reshape(1, 1, 4, 4)
    (part,) = flow.scales(z)
    assert part.flatten().tolist() == [0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15]
    points = Flow([AffineCoupling(4, [4], flip=False)], StandardGaussian(4))
    assert points.scale_shapes == [(4,)]
    z = torch.randn(2, 4, generator=generator)
    assert torch.equal(points.scales(z)[0], z)
    assert torch.equal(points.join([z]), z)


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (
            [Squeeze(), Squeeze()],
            "transforms[1] takes images of even height and width, got [8, 2, 3]",
        ),
        (
            [Split((2, 4, 6)), Split((2, 4, 6))],
            "transforms[1] takes shape [2, 4, 6], got [1, 4, 6]",
        ),
        ([Squeeze(), ActNorm(2)], "transforms[1] takes shape [2, any, any], got [8, 2, 3]"),
        (
            [InvertibleConv1x1(3)],
            "transforms[0] takes shape [3, any, any], got [2, 4, 6]",
        ),
        (
            [Squeeze(), Logit((2, 4, 6), alpha=0.1)],
            "transforms[1] takes shape [2, 4, 6], got [8, 2, 3]",
        ),
        (
            [AffineCoupling(2, [4], flip=False)],
            "transforms[0] takes shape [2], got [2, 4, 6]",
        ),
        (
            [Squeeze(), ActNorm(8).double()],
            "transforms[1] must be torch.float32 like the base, got torch.float64",
        ),
    ],
)
def test_transforms_that_do_not_fit_are_named(transforms, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Flow(transforms, StandardGaussian((2, 4, 6)))


def test_images_do_not_fit_a_flow_of_points():
    with pytest.raises(
        ValueError, match=r"^transforms\[0\] takes shape \[any, any, any\], got \[4\]$"
    ):
        Flow([Squeeze()], StandardGaussian(4))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (torch.zeros(4), "parts must be a list of 4, got tensor("),
        ([], "parts must be a list of 4, got []"),
        (None, "parts must be a list of 4, got None"),
        ({0: 1, 1: 1, 2: 1, 3: 1}, "parts must be a list of 4, got {0: 1"),
    ],
)
def test_wrong_numbers_of_parts_are_named(parts, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        layout().join(parts)


@pytest.mark.parametrize(
    ("i", "part", "message"),
    [
        (0, torch.zeros(1, 2, 2, 2), "must have shape [B, 2, 2, 4], got [1, 2, 2, 2]"),
        (2, torch.zeros(1, 2, 1, 2).double(), "must be torch.float32 like the model, got"),
        (3, torch.full((1, 2, 1, 2), math.nan), "must be finite"),
    ],
)
def test_wrong_parts_are_named(i, part, message):
    flow = layout()
    parts = [torch.zeros(1, *shape) for shape in flow.scale_shapes]
    assert torch.equal(flow.join(parts), torch.zeros(1, 1, 4, 8))
    parts[i] = part
    with pytest.raises(ValueError, match=rf"^parts\[{i}\] {re.escape(message)}"):
        flow.join(parts)


@pytest.mark.parametrize(
    "verb",
    ["forward", "log_prob", "loss", "trajectory", "inverse", "trajectory_inverse", "scales"],
)
def test_bad_images_are_named(verb):
    name = "z" if "inverse" in verb or verb == "scales" else "x"
    for images, message in [
        (torch.zeros(1, 4, 8), "must have shape [B, 1, 4, 8], got [1, 4, 8]"),
        (torch.zeros(2, 2, 4, 8), "must have shape [B, 1, 4, 8], got [2, 2, 4, 8]"),
        (torch.zeros(2, 1, 4, 8).double(), "must be torch.float32 like the model"),
        (torch.full((2, 1, 4, 8), math.inf), "must be finite"),
    ]:
        with pytest.raises(ValueError, match=f"^{name} {re.escape(message)}"):
            getattr(layout(), verb)(images)
