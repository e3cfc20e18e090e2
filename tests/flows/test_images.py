"""The parts of image flows, each against what it promises beyond inverting."""

import copy
import math
import re

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.flows import (
    ActNorm,
    DiagonalScaling,
    Flow,
    InvertibleConv1x1,
    Logit,
    Permutation,
    Split,
    Squeeze,
    StandardGaussian,
    StandardLogistic,
)
from tests.flows.conftest import randomize


def test_squeeze_moves_blocks_to_channels():
    """Channel 4c + 2i + j holds row i and column j of each 2×2 block of channel c."""
    x = torch.arange(48.0).reshape(1, 2, 4, 6)
    z, log_det = Squeeze()(x)
    assert z.shape == (1, 8, 2, 3)
    assert z[0, :4].tolist() == [
        [[0, 2, 4], [12, 14, 16]],
        [[1, 3, 5], [13, 15, 17]],
        [[6, 8, 10], [18, 20, 22]],
        [[7, 9, 11], [19, 21, 23]],
    ]
    for c in range(2):
        for i in range(2):
            for j in range(2):
                assert torch.equal(z[0, 4 * c + 2 * i + j], x[0, c, i::2, j::2])
    assert torch.equal(Squeeze().inverse(z)[0], x)
    assert log_det.tolist() == Squeeze().inverse(z)[1].tolist() == [0.0]


@pytest.mark.parametrize("size", [(2, 1, 3, 4), (2, 1, 4, 3), (2, 1, 3, 3)])
def test_squeeze_wants_even_sizes(size):
    with pytest.raises(
        ValueError, match=rf"^x must have even height and width, got {re.escape(str(list(size)))}$"
    ):
        Squeeze()(torch.zeros(size))
    with pytest.raises(ValueError, match=r"^takes images of even height and width, got \["):
        Squeeze().output_shape(size[1:])


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_unsqueeze_wants_four_channels(channels):
    with pytest.raises(
        ValueError, match=rf"^z must have a multiple of 4 channels, got \[2, {channels}, 2, 2\]$"
    ):
        Squeeze().inverse(torch.zeros(2, channels, 2, 2))


def test_output_shapes():
    assert Squeeze().output_shape((3, 4, 6)) == (12, 2, 3)
    assert Split((6, 4, 2)).output_shape((6, 4, 2)) == (3, 4, 2)
    assert ActNorm(3).output_shape((3,)) == (3,)
    assert ActNorm(3).output_shape((3, 5, 7)) == (3, 5, 7)
    assert InvertibleConv1x1(3).output_shape((3, 5, 7)) == (3, 5, 7)
    assert Permutation(3).output_shape((3, 5, 7)) == (3, 5, 7)
    assert Logit((1, 2, 3), alpha=0.1).output_shape((1, 2, 3)) == (1, 2, 3)
    for transform, shape, message in [
        (Squeeze(), (4,), "takes shape [any, any, any], got [4]"),
        (Split((6, 4, 2)), (6, 4, 4), "takes shape [6, 4, 2], got [6, 4, 4]"),
        (ActNorm(3), (4, 5, 7), "takes shape [3, any, any], got [4, 5, 7]"),
        (ActNorm(3), (4,), "takes shape [3], got [4]"),
        (ActNorm(3), (3, 5), "takes shape [3], got [3, 5]"),
        (Permutation(3), (4, 5, 7), "takes shape [3, any, any], got [4, 5, 7]"),
        (DiagonalScaling(3), (3, 5, 7), "takes shape [3], got [3, 5, 7]"),
        (InvertibleConv1x1(3), (4, 5, 7), "takes shape [3, any, any], got [4, 5, 7]"),
        (InvertibleConv1x1(3), (3,), "takes shape [3, any, any], got [3]"),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            transform.output_shape(shape)


@pytest.mark.parametrize("bound", [4.0, None])
def test_a_split_is_a_conditional_gaussian_prior(bound, generator):
    """Log N(h2; mean(h1), std(h1)) is the base's log-density of eps plus log_det, exactly."""
    split = randomize(Split((6, 2, 3), bound=bound).double(), generator)
    h = torch.randn(5, 6, 2, 3, generator=generator, dtype=torch.float64)
    z, log_det = split(h)
    kept, leaving = h.chunk(2, dim=1)
    assert torch.equal(z[:, :3], kept)
    mean, std = split.prior(kept)
    assert mean.shape == std.shape == leaving.shape
    expected = torch.distributions.Normal(mean, std).log_prob(leaving).flatten(1).sum(dim=1)
    ours = StandardGaussian((3, 2, 3)).double().log_prob(z[:, 3:]) + log_det
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(z[:, 3:], (leaving - mean) / std)
    assert std.std() > 0.1
    assert mean.std() > 0.1


def test_a_split_starts_as_a_standard_prior():
    split = Split((4, 2, 2))
    mean, std = split.prior(torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(mean, torch.zeros(3, 2, 2, 2))
    assert torch.equal(std, torch.ones(3, 2, 2, 2))
    assert len(split.net.layers) == 1  # a single convolution
    assert split.bound == 4.0
    assert not split.flip


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 2, 2), "channels must be even to be split, got 3"),
        ((1, 2, 2), "channels must be an integer of at least 2, got 1"),
        (4, "event_shape must be (C, H, W), each at least 1, got 4"),
        ((4,), "event_shape must be (C, H, W), each at least 1, got (4,)"),
    ],
)
def test_what_cannot_be_split_is_named(shape, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Split(shape)


@pytest.mark.parametrize("shape", [(50, 3), (6, 3, 4, 5)])
def test_actnorms_first_batch_comes_out_standard(shape, generator):
    spread = torch.tensor([0.01, 1.0, 30.0]).double().reshape(1, 3, *[1] * (len(shape) - 2))
    x = 5 + spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    norm = ActNorm(3).double()
    assert norm.training
    z, log_det = norm(x)
    values = z.transpose(0, 1).flatten(1)
    torch.testing.assert_close(values.mean(dim=1), torch.zeros(3).double(), rtol=0, atol=1e-10)
    variance = values.square().mean(dim=1)
    torch.testing.assert_close(variance, torch.ones(3).double(), rtol=0, atol=1e-10)
    pixels = math.prod(shape[2:])
    std = x.transpose(0, 1).flatten(1).std(dim=1, correction=0)
    assert torch.allclose(log_det, -pixels * std.log().sum())
    assert norm.bias.requires_grad
    assert norm.log_scale.requires_grad
    torch.testing.assert_close(norm.inverse(z)[0], x)


@pytest.mark.parametrize("shape", [(50, 2), (6, 2, 4, 5)])
def test_actnorm_is_set_only_once_and_then_learned(shape, generator):
    norm = ActNorm(2)
    first, second = 3 + 2 * torch.randn(2, *shape, generator=generator)
    assert not norm.initialized
    norm(first)
    assert norm.initialized
    bias, log_scale = norm.bias.clone(), norm.log_scale.clone()
    z, log_det = norm(7 * second)
    assert torch.equal(norm.bias, bias)
    assert torch.equal(norm.log_scale, log_scale)
    assert z.square().mean() > 4
    (z.square().mean() - log_det.mean()).backward()
    for parameter in norm.parameters():
        assert (parameter.grad != 0).all()
    torch.optim.SGD(norm.parameters(), lr=0.1).step()
    assert (norm.bias != bias).all()
    assert (norm.log_scale != log_scale).all()


def test_actnorm_is_not_set_in_eval_mode_nor_backwards(generator):
    norm = ActNorm(2).eval()
    x = 3 + 2 * torch.randn(20, 2, generator=generator)
    z, log_det = norm(x)
    assert torch.equal(z, x)
    assert torch.equal(log_det, torch.zeros(20))
    assert not norm.initialized
    assert torch.equal(norm.train().inverse(x)[0], x)
    assert not norm.initialized
    with torch.no_grad():
        norm(x)  # the first in training mode
    assert norm.initialized
    set_z = norm.eval()(x)[0]
    assert abs(set_z.mean().item()) < 1e-6


def test_actnorm_remembers_in_its_state_that_it_is_set(generator):
    norm = ActNorm(2)
    norm(3 + 2 * torch.randn(20, 2, generator=generator))
    assert set(norm.state_dict()) == {"bias", "log_scale", "initialized"}
    again = ActNorm(2)
    again.load_state_dict(norm.state_dict())
    x = torch.randn(20, 2, generator=generator)
    assert torch.equal(again(x)[0], norm(x)[0])
    assert torch.equal(again.bias, norm.bias)
    fresh = ActNorm(2)
    fresh.load_state_dict(ActNorm(2).state_dict())
    fresh(x)
    assert fresh.initialized


def test_actnorms_density_of_an_image_depends_on_no_other_image(generator):
    norm = ActNorm(2)
    norm(torch.randn(5, 2, 3, 3, generator=generator))
    x = torch.randn(5, 2, 3, 3, generator=generator)
    torch.testing.assert_close(norm(x)[0][:1], norm(x[:1])[0])
    torch.testing.assert_close(norm(x)[1][:1], norm(x[:1])[1])


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(5, 2),
        torch.tensor([[1.0, 2.0]]),  # a single point
        torch.full((60_001, 2), 0.1),  # its computed standard deviation is not 0
        torch.stack([torch.arange(6.0), torch.full((6,), 0.1)], dim=1),
        torch.stack([torch.full((9,), 0.1), torch.arange(9.0)]).reshape(1, 2, 3, 3),
    ],
)
def test_actnorm_wants_channels_that_vary(x):
    norm = ActNorm(2)
    before = copy.deepcopy(norm.state_dict())
    with pytest.raises(
        ValueError, match=r"^x must vary in every channel to set ActNorm, got one that is constant$"
    ):
        norm(x)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    norm.eval()(x)


def test_one_image_is_enough_to_set_actnorm(generator):
    z = ActNorm(2)(torch.randn(1, 2, 3, 3, generator=generator))[0]
    torch.testing.assert_close(z.mean(dim=(0, 2, 3)), torch.zeros(2))


def test_actnorm_can_be_set_by_hand(generator):
    norm = ActNorm(2).eval()
    x = 4 * torch.randn(30, 2, generator=generator)
    norm.initialize(x)
    assert norm(x)[0].std(dim=0, correction=0).tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match=r"^x must have shape \[B, 2\], got \[3\]$"):
        norm.initialize(torch.zeros(3))
    with pytest.raises(ValueError, match=r"^x must be finite, got NaN or infinite values$"):
        norm.initialize(torch.tensor([[0.0, math.nan], [1.0, 2.0]]))


@pytest.mark.parametrize("size", [(3, 2, 4), (3, 2, 4, 4, 4), (3, 3, 4, 4), (3, 2, 0, 4)])
def test_actnorm_takes_points_and_images_only(size):
    wanted = r"\[B, 2, any, any\]" if len(size) == 4 else r"\[B, 2\]"
    with pytest.raises(ValueError, match=rf"^x must have shape {wanted}, got "):
        ActNorm(2)(torch.zeros(size))


@pytest.mark.parametrize("make", [ActNorm, InvertibleConv1x1])
@pytest.mark.parametrize("channels", [0, 2.0, True, None, (3,)])
def test_bad_channels_are_named(make, channels):
    with pytest.raises(ValueError, match=r"^channels must be an integer of at least 1, got "):
        make(channels)


def dense_twin(conv):
    """An InvertibleConv1x1 that keeps the same matrix as it is."""
    dense = InvertibleConv1x1(conv.channels, lu=False).to(conv.dtype)
    dense.matrix.data = conv.weight().detach()
    return dense


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_lu_and_dense_agree(channels, generator):
    conv = randomize(InvertibleConv1x1(channels).double(), generator)
    dense = dense_twin(conv)
    x = torch.randn(4, channels, 3, 2, generator=generator, dtype=torch.float64)
    for ours, theirs in zip(
        (*conv(x), *conv.inverse(x)), (*dense(x), *dense.inverse(x)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    assert conv(x)[1].abs().min() > 0.1
    torch.testing.assert_close(conv.inverse_weight(), dense.inverse_weight())
    identity = torch.eye(channels, dtype=torch.float64)
    torch.testing.assert_close(conv.weight() @ conv.inverse_weight(), identity)


@pytest.mark.parametrize("lu", [True, False])
def test_a_1x1_convolution_mixes_the_channels_of_every_pixel(lu, generator):
    conv = randomize(InvertibleConv1x1(3, lu=lu).double(), generator)
    x = torch.randn(2, 3, 2, 4, generator=generator, dtype=torch.float64)
    expected = torch.einsum("ij,bjhw->bihw", conv.weight(), x)
    torch.testing.assert_close(conv(x)[0], expected)
    log_det = 2 * 4 * torch.linalg.slogdet(conv.weight()).logabsdet
    torch.testing.assert_close(conv(x)[1], log_det.expand(2))
    torch.testing.assert_close(conv.log_det(2, 4), log_det)
    torch.testing.assert_close(conv.log_det(7, 3), log_det * 21 / 8)


@pytest.mark.parametrize("lu", [True, False])
def test_a_permutation_of_channels_is_a_special_case(lu, generator):
    order = [2, 0, 3, 1]
    matrix = torch.eye(4)[order]
    conv = InvertibleConv1x1(4, lu=lu)
    with torch.no_grad():
        if lu:
            conv.permutation.copy_(matrix)
            conv.sign.fill_(1)
            for parameter in conv.parameters():
                parameter.zero_()
        else:
            conv.matrix.copy_(matrix)
    x = torch.randn(3, 4, 2, 2, generator=generator)
    z, log_det = conv(x)
    assert torch.equal(z, x[:, order])
    assert torch.equal(log_det, torch.zeros(3))
    assert torch.equal(conv.inverse(z)[0], x)


def test_a_permutation_takes_the_channels_of_images():
    x = torch.arange(24.0).reshape(1, 4, 2, 3)
    permutation = Permutation(4, order=[2, 0, 3, 1])
    z, log_det = permutation(x)
    assert torch.equal(z, torch.stack([x[:, c] for c in (2, 0, 3, 1)], dim=1))
    assert log_det.tolist() == [0.0]
    assert torch.equal(permutation.inverse(z)[0], x)
    with pytest.raises(
        ValueError, match=r"^x must have shape \[B, 4, any, any\], got \[1, 3, 2, 3\]$"
    ):
        permutation(x[:, :3])


@pytest.mark.parametrize("lu", [True, False])
@pytest.mark.parametrize("channels", [1, 4, 12])
def test_a_1x1_convolution_starts_as_a_rotation(lu, channels):
    matrices = [InvertibleConv1x1(channels, lu=lu).weight() for _ in range(5)]
    for matrix in matrices:
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(channels), rtol=0, atol=1e-5)
    if channels > 1:
        assert not torch.allclose(matrices[0], matrices[1])
        assert (matrices[0].abs() < 0.999).all()
    log_det = InvertibleConv1x1(channels, lu=lu)(torch.ones(1, channels, 3, 3))[1]
    assert abs(log_det.item()) < 1e-4


def test_the_lu_factors_are_triangular_and_stay_so(generator):
    conv = randomize(InvertibleConv1x1(4), generator)  # fills the wrong halves, too
    lower, upper = conv.factors()
    assert torch.equal(lower, lower.tril())
    assert torch.equal(lower.diagonal(), torch.ones(4))
    assert torch.equal(upper, upper.triu())
    torch.testing.assert_close(upper.diagonal(), conv.sign * conv.log_scale.exp())
    torch.testing.assert_close(lower.tril(-1), conv.lower.tril(-1))
    torch.testing.assert_close(upper.triu(1), conv.upper.triu(1))
    torch.testing.assert_close(conv.weight(), conv.permutation @ lower @ upper)
    state = InvertibleConv1x1(4).state_dict()
    assert set(state) == {"permutation", "sign", "lower", "upper", "log_scale"}
    assert torch.equal(state["lower"], state["lower"].tril(-1))
    assert torch.equal(state["upper"], state["upper"].triu(1))
    assert set(InvertibleConv1x1(4, lu=False).state_dict()) == {"matrix"}


def test_lu_is_the_default_and_must_be_a_bool():
    assert InvertibleConv1x1(3).lu is True
    with pytest.raises(ValueError, match=r"^lu must be True or False, got 1$"):
        InvertibleConv1x1(3, lu=1)


def test_logit_is_the_formula():
    logit = Logit(3, alpha=0.1).double()
    x = torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.7, 0.9]]).double()
    y = 0.1 + 0.8 * x
    z, log_det = logit(x)
    torch.testing.assert_close(z, torch.log(y / (1 - y)))
    torch.testing.assert_close(log_det, (0.8 / (y * (1 - y))).log().sum(dim=1))
    assert z[0, 2].item() == pytest.approx(math.log(9))


@pytest.mark.parametrize("alpha", [1e-6, 0.05])
def test_logit_is_exact_far_out(alpha):
    """Black and white pixels, in single precision, against the same in double."""
    x = torch.tensor([[0.0], [1e-5], [0.003], [0.5], [0.997], [1.0]])
    exact, exact_log_det = Logit(1, alpha=alpha).double()(x.double())
    z, log_det = Logit(1, alpha=alpha)(x)
    # Near 1 the distance to 1 itself is rounded: by 6e-8 of 1e-6.
    torch.testing.assert_close(z.double(), exact, rtol=0, atol=0.05 if alpha < 1e-3 else 1e-5)
    torch.testing.assert_close(log_det.double(), exact_log_det, rtol=0, atol=0.05)
    z = torch.tensor([[300.0], [-300.0]])
    x, log_det = Logit(1, alpha=alpha).inverse(z)
    expected = -300 - math.log(1 - 2 * alpha)
    assert log_det.tolist() == pytest.approx([expected, expected], rel=1e-6)
    assert x.flatten().tolist() == pytest.approx(
        [(1 - alpha) / (1 - 2 * alpha), -alpha / (1 - 2 * alpha)]
    )


@settings(max_examples=300, deadline=None)
@given(
    alpha=st.floats(1e-9, 0.4999),
    z=st.floats(-1e6, 1e6) | st.floats(-20, 20) | st.floats(12, 18) | st.floats(-40, -10),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_logit_takes_back_whatever_its_inverse_gives(alpha, z, dtype):
    """It lies strictly inside, by more than rounding: for every alpha, however far z is out."""
    logit = Logit(1, alpha=alpha).to(dtype)
    x, log_det = logit.inverse(torch.tensor([[z]], dtype=dtype))
    assert torch.isfinite(log_det).all()
    again, log_det = logit(x)
    assert torch.isfinite(again).all()
    assert torch.isfinite(log_det).all()
    y = alpha + (1 - 2 * alpha) * x.double().item()
    assert y == pytest.approx(1 / (1 + math.exp(-max(z, -700))), abs=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("z", "x"), [(14.0, 1.0000002), (-14.0, -9.99999e-7), (0.3, 0.5744428)])
def test_logits_inverse_is_not_cut_off_early(z, x):
    """Up to where y differs from its ends by rounding alone, the inverse is the formula's."""
    logit = Logit(1, alpha=1e-6)
    got = logit.inverse(torch.tensor([[z]]))[0]
    exact = logit.double().inverse(torch.tensor([[z]]).double())[0]
    assert got.item() == pytest.approx(exact.item(), rel=1e-6)
    if z == 0.3:
        assert got.item() == pytest.approx(x, abs=1e-6)


@pytest.mark.parametrize("alpha", [1e-6, 0.05, 0.3])
def test_a_logistic_after_a_logit_is_uniform(alpha, generator):
    """The logistic's quantiles are logits: log p(x) = log(1 - 2 alpha), whatever x is."""
    flow = Flow([Logit((2, 3, 1), alpha=alpha)], StandardLogistic((2, 3, 1))).double()
    x = torch.rand(10, 2, 3, 1, generator=generator, dtype=torch.float64)
    expected = torch.full((10,), 6 * math.log(1 - 2 * alpha), dtype=torch.float64)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("alpha", [1e-6, 0.05, 0.2])
def test_densities_of_pixels_integrate_to_one(alpha):
    flow = Flow([Logit(1, alpha=alpha), DiagonalScaling(1)], StandardGaussian(1)).double()
    flow.transforms[1].log_scale.data.fill_(-0.3)
    n = 200_000
    x = (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) / n
    with torch.no_grad():
        mass = flow.log_prob(x).exp().mean().item()
    # What is missing at a large alpha lies beyond black and white: the map's ends are past them.
    end = math.exp(-0.3) * math.log((1 - alpha) / alpha)
    assert mass == pytest.approx(1 - 2 * scipy.stats.norm.sf(end), abs=1e-7)
    if alpha < 1e-3:
        assert mass == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize(
    ("x", "message"),
    [(1.6, "1.6"), (-0.6, "-0.6"), (-0.5, "-0.5"), (1.5, "1.5"), (255.0, "255.0")],
)
def test_logit_names_what_is_no_pixel(x, message):
    """With alpha = 1/4 the ends, where y is 0 and 1, are -0.5 and 1.5."""
    with pytest.raises(ValueError, match=rf"^x must lie in \[0, 1\], got {message}"):
        Logit(2, alpha=0.25)(torch.tensor([[0.5, 0.5], [0.5, x]]))
    inside = torch.tensor([[-0.499, 1.499]])
    assert torch.isfinite(Logit(2, alpha=0.25)(inside)[0]).all()


@pytest.mark.parametrize("alpha", [0, 0.0, -0.1, math.nan, math.inf, True, "0.1", None])
def test_bad_alphas_are_named(alpha):
    with pytest.raises(ValueError, match=r"^alpha must be a finite number above 0, got "):
        Logit(2, alpha=alpha)


@pytest.mark.parametrize("alpha", [0.5, 0.9, 1])
def test_large_alphas_are_named(alpha):
    with pytest.raises(ValueError, match=rf"^alpha must be below 0.5, got {alpha}$"):
        Logit(2, alpha=alpha)


def test_repr_says_what_it_is():
    assert repr(Squeeze()) == "Squeeze()"
    assert repr(ActNorm(3)) == "ActNorm(channels=3)"
    assert repr(InvertibleConv1x1(3, lu=False)) == "InvertibleConv1x1(channels=3, lu=False)"
    assert repr(Logit((1, 2, 2), alpha=0.05)) == "Logit(shape=[1, 2, 2], alpha=0.05)"
    assert repr(Split((4, 2, 2))).startswith(
        "Split(\n  shape=[4, 2, 2], flip=False, bound=4.0\n  (mask): ChannelMask"
    )
