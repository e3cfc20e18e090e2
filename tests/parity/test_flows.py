"""NICE, RealNVP and Glow, and their parts, against other libraries with the same weights."""

import pytest
import torch
from torch.distributions import Independent, Normal

from course_lib.flows import (
    NICE,
    ActNorm,
    AffineCoupling,
    ChannelMask,
    CheckerboardMask,
    Glow,
    InvertibleConv1x1,
    RealNVP,
    Split,
    Squeeze,
)

pytest.importorskip("zuko", reason="parity needs the test extra: pip install -e .[test]")
pytest.importorskip("nflows", reason="parity needs the test extra: pip install -e .[test]")
pytest.importorskip("normflows", reason="parity needs the test extra: pip install -e .[test]")

import nflows.transforms
import normflows

from benchmarks.flows import (
    halves,
    in_nflows,
    in_normflows,
    in_zuko,
    part_in_normflows,
    unbounded,
)

EXACT = {"rtol": 1e-9, "atol": 1e-9}  # in double precision
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # in single precision
# Both libraries call functions of torch that are to have other names.
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.lu is deprecated"),
    pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated"),
]


@pytest.fixture(autouse=True)
def _same_start():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def trained(module, dtype=torch.float64, *, spread=0.2):
    """The same module with weights of which none is 0 or 1 any more."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    for part in module.modules():
        if isinstance(part, ActNorm):
            part.initialized.fill_(True)
    return module.to(dtype)


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype)


def assert_same(ours, theirs, tolerance):
    """Compare ``(values, log_det)``; theirs may give one log-determinant for the whole batch."""
    torch.testing.assert_close(ours[0], theirs[0], **tolerance)
    torch.testing.assert_close(ours[1], theirs[1].expand(len(ours[1])), **tolerance)


# ------------------------------------------------------------------------------- flows of points


@pytest.fixture
def nice():
    return NICE(7, couplings=3, hidden=(16, 16), prior="gaussian")


def test_nice_agrees_with_zuko(nice):
    x = draw(50, 7, dtype=torch.float32)
    torch.testing.assert_close(nice.log_prob(x), in_zuko(nice)().log_prob(x))


def test_nice_agrees_with_nflows_in_both_directions(nice):
    x = draw(50, 7, dtype=torch.float32)
    flow = in_nflows(nice)
    torch.testing.assert_close(nice.log_prob(x), flow.log_prob(x))
    torch.testing.assert_close(nice(x)[0], flow.transform_to_noise(x))
    torch.testing.assert_close(nice.inverse(x)[0], flow._transform.inverse(x)[0])


PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, EXACT), (torch.float32, CLOSE)]
)


@PRECISIONS
@pytest.mark.parametrize("dim", [2, 7])
def test_realnvp_agrees_with_zuko(dim, dtype, tolerance):
    model = trained(RealNVP(dim, couplings=5, hidden=(16, 12), bound=None), dtype)
    x, theirs = draw(50, dim, dtype=dtype), in_zuko(model)()
    torch.testing.assert_close(model.log_prob(x), theirs.log_prob(x), **tolerance)
    assert_same(model(x), theirs.transform.call_and_ladj(x), tolerance)
    assert_same(model.inverse(x), theirs.transform.inv.call_and_ladj(x), tolerance)


@PRECISIONS
@pytest.mark.parametrize("dim", [2, 6])
def test_realnvp_agrees_with_normflows(dim, dtype, tolerance):
    model = trained(RealNVP(dim, couplings=4, hidden=(16, 12), bound=None), dtype)
    x, order, theirs = draw(50, dim, dtype=dtype), halves(dim), in_normflows(model)
    # Their log-determinants are added up in the default dtype.
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        log_prob = theirs.log_prob(x[:, order])
        forward = theirs.inverse_and_log_det(x[:, order])
        inverse = theirs.forward_and_log_det(x[:, order])
    finally:
        torch.set_default_dtype(default)
    torch.testing.assert_close(model.log_prob(x), log_prob, **tolerance)
    (z, log_det), (back, back_log_det) = model(x), model.inverse(x)
    assert_same((z[:, order], log_det), forward, tolerance)
    assert_same((back[:, order], back_log_det), inverse, tolerance)


@pytest.mark.parametrize("bound", [0.5, 2.0, None])
@pytest.mark.parametrize("flip", [False, True])
def test_a_bounded_coupling_agrees_with_normflows(flip, bound):
    """There, log-scale and shift have a network each, of all coordinates with zeros between."""
    dim, hidden = 5, [16, 12]
    coupling = trained(AffineCoupling(dim, hidden, flip=flip, bound=bound))
    weights = coupling.net.layers.state_dict()
    kept, moved = torch.arange(dim)[coupling.mask.kept], torch.arange(dim)[coupling.mask.moved]
    nets = []
    for i, output in enumerate([{"output_fn": "tanh"} if bound else {}, {}]):
        if output:
            output |= {"score_scale": 1 / bound, "output_scale": bound}
        net = normflows.nets.MLP([dim, *hidden, dim], **output).double()
        with torch.no_grad():
            for name, tensor in net.net.state_dict().items():
                if name == "0.weight":
                    tensor.zero_()[:, kept] = weights[name]
                elif name.startswith("4."):
                    tensor.zero_()[moved] = weights[name].chunk(2)[i]
                elif name in weights:
                    tensor.copy_(weights[name])
        nets.append(net)
    log_scale, shift = nets
    keep = torch.zeros(dim, dtype=torch.float64)
    keep[kept] = 1
    theirs = normflows.flows.MaskedAffineFlow(keep, t=shift, s=log_scale)
    x = 2 * draw(50, dim)
    assert_same(coupling(x), theirs(x), EXACT)
    assert_same(coupling.inverse(x), theirs.inverse(x), EXACT)


# ------------------------------------------------------------------------------- parts for images

PARTS = {
    "squeeze": Squeeze,
    "actnorm": lambda: ActNorm(4),
    "1x1, LU": lambda: InvertibleConv1x1(4, lu=True),
    "1x1, dense": lambda: InvertibleConv1x1(4, lu=False),
    "channels": lambda: coupling(ChannelMask, flip=False),
    "channels, flipped": lambda: coupling(ChannelMask, flip=True),
    "checkerboard": lambda: coupling(CheckerboardMask, flip=False),
    "checkerboard, flipped": lambda: coupling(CheckerboardMask, flip=True),
    "split": lambda: Split((4, 6, 8), bound=None),
}


def coupling(mask, *, flip):
    return AffineCoupling((4, 6, 8), [8, 6], flip=flip, mask=mask, bound=None)


@PRECISIONS
@pytest.mark.parametrize("name", PARTS)
def test_a_part_agrees_with_normflows(name, dtype, tolerance):
    part = trained(PARTS[name](), dtype)
    theirs, x = part_in_normflows(part).to(dtype), draw(10, 4, 6, 8, dtype=dtype)
    z, log_det = theirs.inverse(x)
    assert_same(part(x), (z, torch.as_tensor(log_det, dtype=dtype)), tolerance)
    back, log_det = theirs(x)
    assert_same(part.inverse(x), (back, torch.as_tensor(log_det, dtype=dtype)), tolerance)


def test_a_split_is_the_conditional_gaussian_of_torch_distributions():
    """The half that leaves has the density that the conditional prior gives it."""
    split, x = trained(Split((4, 6, 8))), draw(10, 4, 6, 8)
    stays, leaves = x.chunk(2, dim=1)
    mean, std = split.prior(stays)
    wanted = Independent(Normal(mean, std), 3).log_prob(leaves)
    z, log_det = split(x)
    eps = z.chunk(2, dim=1)[1]
    noise = Independent(Normal(torch.zeros_like(eps), torch.ones_like(eps)), 3)
    torch.testing.assert_close(noise.log_prob(eps) + log_det, wanted, **EXACT)


def test_squeeze_agrees_with_nflows():
    ours, theirs, x = Squeeze(), nflows.transforms.SqueezeTransform(), torch.randn(10, 4, 6, 8)
    assert_same(ours(x), theirs(x), CLOSE)
    assert_same(ours.inverse(x), theirs.inverse(x), CLOSE)


@pytest.mark.parametrize("shape", [(4,), (4, 6, 8)])
def test_actnorm_agrees_with_nflows(shape):
    ours, theirs = trained(ActNorm(4)), nflows.transforms.ActNorm(4).double()
    with torch.no_grad():
        theirs.log_scale.copy_(ours.log_scale)
        theirs.shift.copy_(ours.bias * ours.log_scale.exp())
        theirs.initialized.fill_(True)
    x = draw(10, *shape)
    assert_same(ours(x), theirs(x), EXACT)
    assert_same(ours.inverse(x), theirs.inverse(x), EXACT)


@pytest.mark.parametrize("shape", [(4,), (4, 6, 8)])
def test_actnorm_starts_like_that_of_nflows(shape):
    """Up to the divisor of the variance: the number of values here, one less there."""
    ours, theirs = ActNorm(4).double(), nflows.transforms.ActNorm(4).double()
    x = 3 * draw(500, *shape) + 5
    n = x.numel() / 4
    z, log_det = ours(x)
    other_z, other_log_det = theirs(x)
    torch.testing.assert_close(z * ((n - 1) / n) ** 0.5, other_z, **EXACT)
    pixels = n / 500
    shrink = 4 * pixels * 0.5 * torch.log(torch.tensor((n - 1) / n, dtype=torch.float64))
    torch.testing.assert_close(log_det + shrink, other_log_det, **EXACT)


@pytest.mark.parametrize("lu", [True, False])
def test_a_1x1_convolution_agrees_with_nflows(lu):
    """Its matrix is lower · upper · permutation, with another order of the factors than ours."""
    theirs = trained(nflows.transforms.OneByOneConvolution(4))
    with torch.no_grad():
        theirs.bias.zero_()
    matrix = theirs.weight().detach()[:, theirs.permutation._permutation.argsort()]
    ours = InvertibleConv1x1(4, lu=lu).double()
    with torch.no_grad():
        if lu:
            permutation, lower, upper = torch.linalg.lu(matrix)
            ours.permutation.copy_(permutation)
            ours.lower.copy_(lower)
            ours.upper.copy_(upper)
            ours.sign.copy_(upper.diagonal().sign())
            ours.log_scale.copy_(upper.diagonal().abs().log())
        else:
            ours.matrix.copy_(matrix)
    x = draw(10, 4, 6, 8)
    assert_same(ours(x), theirs(x), EXACT)
    assert_same(ours.inverse(x), theirs.inverse(x), EXACT)


# ------------------------------------------------------------------------------- flows of images


def glow(shape, levels, **options):
    return Glow(shape, levels=levels, depth=2, hidden=(8, 6), bound=None, **options)


FLOWS = {
    "Glow": lambda: glow((1, 8, 8), 2),
    "Glow, three levels": lambda: glow((2, 8, 16), 3),
    "Glow, dense": lambda: glow((3, 4, 4), 2, lu=False),
    "Glow, one level": lambda: glow((1, 4, 6), 1),
    "RealNVP": lambda: RealNVP((1, 8, 8), couplings=2, hidden=(8, 6), bound=None),
    "RealNVP, three levels": lambda: RealNVP((2, 8, 8), levels=3, hidden=(8,), bound=None),
}


@PRECISIONS
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_of_images_agrees_with_normflows(name, dtype, tolerance):
    model = trained(unbounded(FLOWS[name]()), dtype, spread=0.05)
    theirs, x = in_normflows(model), draw(10, *model.base.event_shape, dtype=dtype)
    torch.testing.assert_close(model.log_prob(x), theirs.log_prob(x), **tolerance)
    z, log_det = model(x)
    parts, other_log_det = theirs.inverse_and_log_det(x)
    torch.testing.assert_close(log_det, other_log_det, **tolerance)
    for ours, other in zip(model.scales(z), reversed(parts), strict=True):
        torch.testing.assert_close(ours, other, **tolerance)
    assert_same(model.inverse(x), theirs.forward_and_log_det(model.scales(x)[::-1]), tolerance)


def test_the_loss_has_the_gradients_that_normflows_gives_it():
    model = trained(unbounded(FLOWS["Glow"]()), spread=0.05)
    theirs, x = in_normflows(model), draw(10, 1, 8, 8)
    model.loss(x).backward()
    theirs.forward_kld(x).backward()
    # They come in another order, some of them with the other sign.
    ours, others = (
        torch.stack([(parameter.grad**2).sum() for parameter in side.parameters()]).sort()[0]
        for side in (model, theirs)
    )
    torch.testing.assert_close(ours, others, **EXACT)
