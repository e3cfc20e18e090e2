"""EDM: its path, the preconditioned network, the loss, Karras' times, and hidden labels."""

import math

import pytest
import torch

from course_lib.data import load_digits
from course_lib.diffusion import (
    EDM,
    Denoiser,
    EDMPath,
    FlowMatching,
    Preconditioned,
    PredictionError,
    ProbabilityFlow,
    StraightPath,
    VEPath,
    drop_labels,
    karras_times,
    predict_score,
)
from course_lib.nn import TimeEmbedding, TimeMLP, UNet
from tests.diffusion.conftest import GAUSSIAN, randn, refuses, seeded

SIGMAS = [0.002, 0.05, 0.4, 0.86, 3.0, 80.0]


def column(values):
    return torch.tensor(values, dtype=torch.float64)


# --- the path ----------------------------------------------------------------------------------


def test_the_path_is_its_own_noise():
    path, t = EDMPath(0.01, 50.0), column([0.01, 0.3, 2.0, 50.0])
    assert (path.t_min, path.t_max, path.start_std) == (0.01, 50.0, 50.0)
    assert torch.equal(path.a(t), torch.ones(4, dtype=torch.float64))
    assert torch.equal(path.b(t), t)
    assert (EDMPath().t_min, EDMPath().t_max) == (0.002, 80.0)
    assert repr(path) == "EDMPath(sigma_min=0.01, sigma_max=50)"


def test_its_sde_has_no_drift_and_g_is_the_root_of_2_t():
    path, t = EDMPath(), column(SIGMAS)
    torch.testing.assert_close(path.drift(t), 0 * t)
    torch.testing.assert_close(path.diffusion(t), (2 * t).sqrt())
    assert path.slopes(0.5, torch.zeros(1, 1)) == (0.0, 1.0)
    ve = VEPath(0.002, 80.0)  # the same SDE, with the time counted in another way
    then = ve.time_at(path.log_snr(t))
    torch.testing.assert_close(path.diffusion(t) ** 2, ve.diffusion(then) ** 2 / ve.db(then))


def test_its_ode_leads_straight_from_the_guess():
    """dx/dt = (x − D) / t = −t ∇ log p, with D and the score of a Gaussian in closed form."""
    path, x = EDMPath(), randn(6, 2)

    def net(x, t):
        return GAUSSIAN.guess(x, torch.ones(1).double(), t[:1].double())

    model = Denoiser(net, path, predicts="x0").double()
    for t in (0.05, 1.0, 20.0):
        velocity = ProbabilityFlow(model)(x, t)
        noised = GAUSSIAN.cov + t**2 * torch.eye(2).double()
        score = -torch.linalg.solve(noised, (x - GAUSSIAN.mean).T).T
        torch.testing.assert_close(velocity, -t * score, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(predict_score(model, x, t), score, rtol=1e-5, atol=1e-5)


def test_a_path_without_room_is_named():
    for sigma_min, sigma_max, message in (
        (0.0, 1.0, "sigma_min must be a finite number above 0, got 0.0"),
        (2.0, 2.0, "sigma_max must be a finite number above 2.0, got 2.0"),
        (2.0, 1.0, "sigma_max must be a finite number above 2.0, got 1.0"),
        (2.0, math.inf, "sigma_max must be a finite number above 2.0, got inf"),
    ):
        with refuses(message):
            EDMPath(sigma_min, sigma_max)


# --- preconditioning ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    """Digits in [-1, 1], each twice: with noise, and with its opposite. No moment is by chance."""
    x = 2 * load_digits("train")[0][:200].double().repeat(2, 1, 1, 1) - 1
    eps = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    eps /= eps.square().mean().sqrt()
    return x, torch.cat([eps, -eps])


@pytest.mark.parametrize("sigma", SIGMAS)
def test_inputs_and_targets_have_size_1(digits, sigma):
    x_0, eps = digits
    net = Preconditioned(lambda x, t: x, x_0.square().mean().sqrt().item())
    c_skip, c_out, c_in, c_noise = (factor.item() for factor in net.factors(column([sigma])))
    x = x_0 + sigma * eps
    assert (c_in * x).square().mean().item() == pytest.approx(1, rel=1e-9)
    target = (x_0 - c_skip * x) / c_out
    assert target.square().mean().item() == pytest.approx(1, rel=1e-9)
    assert c_noise == pytest.approx(math.log(sigma) / 4)
    # Of all c_skip this one needs the least c_out, so that errors of F are amplified least.
    for other in (0.999 * c_skip, 1.001 * c_skip, 0.0, 1.0):
        assert (x_0 - other * x).square().mean() > c_out**2


def test_the_network_is_asked_as_preconditioned():
    seen = []

    def net(x, t, y=None):
        seen.append((x, t, y))
        return 3 * torch.ones_like(x)

    x, sigma, s_d = randn(3, 2), column([0.1, 1.0, 7.0]), 0.5
    got = Preconditioned(net, s_d)(x, sigma)
    size = (sigma**2 + s_d**2).sqrt()[:, None]
    torch.testing.assert_close(seen[0][0], x / size)
    torch.testing.assert_close(seen[0][1], sigma.log() / 4)
    assert seen[0][2] is None
    torch.testing.assert_close(got, (s_d / size) ** 2 * x + 3 * s_d * sigma[:, None] / size)
    y = torch.tensor([0, 1, 2])
    Preconditioned(net, s_d)(x, sigma, y)
    assert seen[1][2] is y


def test_what_the_network_knows_is_passed_on():
    net = UNet((1, 8, 8), widths=(8,), n_classes=3, null_class=True)
    model = EDM(net, sigma_data=0.8, drop=0.1)
    assert model.net.event_shape == (1, 8, 8)
    assert model.null_class == 3
    assert EDM(TimeMLP(2, [8]), sigma_data=0.8).null_class is None
    assert model.predicts == "x0"
    assert isinstance(model.path, EDMPath)


def test_bad_preconditioning_is_named():
    with refuses("net must be a network or a function, got 3"):
        Preconditioned(3, 0.5)
    for sigma_data in (0, -1.0, math.nan):
        message = f"sigma_data must be a finite number above 0, got {sigma_data!r}"
        with refuses(message):
            Preconditioned(lambda x, t: x, sigma_data)
        with refuses(message):
            EDM(lambda x, t: x, sigma_data=sigma_data)
    with refuses("p_std must be a finite number above 0, got 0"):
        EDM(lambda x, t: x, sigma_data=1.0, p_std=0)
    with refuses("p_mean must be a finite number of at least -inf, got nan"):
        EDM(lambda x, t: x, sigma_data=1.0, p_mean=math.nan)


# --- the loss ----------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_raw_network():
    """λ = 1 / c_out²: F against what it should have said, (x_0 − c_skip x) / c_out, one by one."""
    model = EDM(lambda x, t: (3 * x + t[:, None]).sin(), sigma_data=0.7, p_mean=-0.5, p_std=1.0)
    model, x_0 = model.double(), randn(40, 2, seed=1)
    sigmas, eps = model.draw(x_0, generator=seeded(2))
    total = 0.0
    for one, sigma, noise in zip(x_0, sigmas.tolist(), eps, strict=True):
        x = one + sigma * noise
        c_skip = 0.7**2 / (sigma**2 + 0.7**2)
        c_out = sigma * 0.7 / math.sqrt(sigma**2 + 0.7**2)
        said = (3 * x / math.sqrt(sigma**2 + 0.7**2) + math.log(sigma) / 4).sin()
        total += (said - (one - c_skip * x) / c_out).square().sum().item()
    got = model.loss(x_0, generator=seeded(2)).item()
    assert got == pytest.approx(total / 80, rel=1e-9)


def test_levels_in_training_are_log_normal():
    model = EDM(lambda x, t: x, sigma_data=1.0, p_mean=-1.0, p_std=0.5)
    sigma, eps = model.draw(torch.zeros(4000, 1), generator=seeded())
    logs = sigma.log()
    assert logs.mean().item() == pytest.approx(-1.0, abs=5 * 0.5 / 4000**0.5)
    assert logs.std().item() == pytest.approx(0.5, rel=0.06)
    assert eps.std().item() == pytest.approx(1, rel=0.06)
    usual = EDM(lambda x, t: x, sigma_data=1.0)
    assert (usual.p_mean, usual.p_std) == (-1.2, 1.2)  # the paper's
    ends = EDM(lambda x, t: x, sigma_data=1.0, p_std=9.0, path=EDMPath(0.1, 2.0))
    sigma, _ = ends.draw(torch.zeros(500, 1), generator=seeded())
    assert sigma.min().item() == pytest.approx(0.1)
    assert sigma.max().item() == pytest.approx(2.0)
    assert ((sigma > 0.11) & (sigma < 1.9)).any()


def test_the_loss_of_what_can_be_said_of_pure_noise():
    """A network that always says 0 has a loss of 1 where sigma_data is that of the data."""
    model = EDM(lambda x, t: 0 * x, sigma_data=2.0).double()
    assert model.loss(2 * randn(5000, 2), generator=seeded()).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("bad", [lambda x, t: x[:, :1], lambda x, t: x[:1]])
def test_an_output_of_another_shape_is_named(bad):
    """Both would fit into the sum by broadcasting."""
    model, x = EDM(bad, sigma_data=1.0), torch.zeros(3, 2)
    said = list(bad(x, None).shape)
    message = f"net's output must have shape [3, 2], got {said}"
    with refuses(message, PredictionError):
        model.loss(x)
    with refuses(message, PredictionError):
        model.predict(x, 1.0)


def test_bad_data_are_named():
    model = EDM(lambda x, t: x, sigma_data=1.0)
    with refuses("x must be finite, got NaN or infinite values"):
        model.loss(torch.full((2, 2), math.nan))
    with refuses("x must be torch.float32 like the model, got torch.float64"):
        model.loss(torch.zeros(2, 2).double())
    infinite = EDM(lambda x, t: x / 0, sigma_data=1.0)
    with pytest.raises(PredictionError, match=r"^net's output must be finite.*\(at t = 2\)$"):
        infinite.predict(torch.ones(2, 2), 2.0)


# --- Karras' times -----------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_times_are_evenly_spaced_in_a_root(rho):
    times = column(karras_times(9, sigma_min=0.02, sigma_max=30.0, rho=rho))
    assert times[0].item() == pytest.approx(30.0)
    assert times[-1].item() == pytest.approx(0.02)
    roots = times ** (1 / rho)
    gaps = roots[:-1] - roots[1:]
    torch.testing.assert_close(gaps, gaps.mean().expand(8))
    assert gaps.min() > 0


def test_times_are_those_of_equation_5():
    for i, sigma in enumerate(karras_times(18, sigma_min=0.002, sigma_max=80.0)):
        root = 80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))
        assert sigma == pytest.approx(root**7)
    assert karras_times(1, sigma_min=0.002, sigma_max=80.0) == pytest.approx([80.0])
    assert karras_times(2, sigma_min=0.002, sigma_max=80.0) == pytest.approx([80.0, 0.002])


def test_bad_times_are_named():
    good = {"sigma_min": 0.1, "sigma_max": 1.0}
    for steps in (0, -1, 2.0, True):
        with refuses(f"steps must be an integer of at least 1, got {steps!r}"):
            karras_times(steps, **good)
    for rho in (0, -7.0, math.nan, math.inf):
        with refuses(f"rho must be a finite number above 0, got {rho!r}"):
            karras_times(3, **good, rho=rho)
    with refuses("sigma_min must be a finite number above 0, got 0"):
        karras_times(3, sigma_min=0, sigma_max=1.0)
    for sigma_max in (0.1, 0.05):
        with refuses(f"sigma_max must be a finite number above 0.1, got {sigma_max}"):
            karras_times(3, sigma_min=0.1, sigma_max=sigma_max)


# --- labels that are hidden --------------------------------------------------------------------


@pytest.mark.parametrize(
    "net",
    [
        TimeEmbedding(8, 16, n_classes=3, null_class=True),
        TimeMLP(2, [8], n_classes=3, null_class=True),
        UNet((1, 8, 8), widths=(8,), n_classes=3, null_class=True),
    ],
    ids=["TimeEmbedding", "TimeMLP", "UNet"],
)
def test_no_labels_are_the_null_class(net):
    assert net.null_class == 3
    t = torch.tensor([0.1, 0.7])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    inputs = (t,) if isinstance(net, TimeEmbedding) else (torch.ones(2, *net.event_shape), t)
    null = net(*inputs, torch.tensor([3, 3]))
    assert torch.equal(net(*inputs), null)
    assert not torch.allclose(net(*inputs, torch.tensor([0, 0])), null)
    with refuses("y must be an int64 tensor [2] of classes from 0 to 3, got 4"):
        net(*inputs, torch.tensor([0, 4]))


def test_a_null_class_wants_classes():
    with refuses("n_classes must be a number where there is a null_class, got None"):
        TimeEmbedding(8, 16, null_class=True)
    with refuses("null_class must be True or False, got 1"):
        TimeEmbedding(8, 16, n_classes=2, null_class=1)
    assert TimeEmbedding(8, 16, n_classes=2).null_class is None
    with refuses("y must be an int64 tensor [1] of classes from 0 to 1, got None"):
        TimeEmbedding(8, 16, n_classes=2)(torch.zeros(1))


def test_a_share_of_the_labels_is_dropped():
    y = torch.arange(10).repeat(400)
    dropped = drop_labels(y, 0.1, n_classes=10, generator=seeded())
    hidden = dropped == 10
    assert hidden.float().mean().item() == pytest.approx(0.1, abs=5 * 0.3 / 4000**0.5)
    assert torch.equal(dropped[~hidden], y[~hidden])
    assert torch.equal(dropped, drop_labels(y, 0.1, n_classes=10, generator=seeded()))
    assert not torch.equal(dropped, drop_labels(y, 0.1, n_classes=10, generator=seeded(1)))
    assert torch.equal(drop_labels(y, 0.0, n_classes=10), y)
    assert (drop_labels(y, 1.0, n_classes=10) == 10).all()
    assert (y < 10).all()


def test_bad_labels_are_named():
    y = torch.tensor([0, 1])
    for share in (-0.1, 1.1, math.nan, True):
        with refuses(f"share must be a number from 0 to 1, got {share!r}"):
            drop_labels(y, share, n_classes=2)
    with refuses("y must be an int64 tensor [B] of classes, got None"):
        drop_labels(None, 0.1, n_classes=2)
    with refuses("y must be an int64 tensor [2] of classes from 0 to 0, got 1"):
        drop_labels(y, 0.1, n_classes=1)
    with refuses("n_classes must be an integer of at least 1, got 0"):
        drop_labels(y, 0.1, n_classes=0)
    with refuses("generator must be a torch.Generator or None, got 1"):
        drop_labels(y, 0.1, n_classes=2, generator=1)


@pytest.mark.parametrize("kind", ["Denoiser", "EDM"])
def test_training_hides_its_share(kind):
    seen = []

    def net(x, t, y):
        seen.append(y)
        return torch.zeros_like(x)

    net.null_class = 5
    for drop in (0.0, 0.3):
        if kind == "EDM":
            model = EDM(net, sigma_data=1.0, drop=drop)
        else:
            model = Denoiser(net, StraightPath(), predicts="velocity", drop=drop)
        y = torch.arange(5).repeat(400)
        model.loss(torch.zeros(2000, 1), y, generator=seeded())
        share = (seen[-1] == 5).float().mean().item()
        assert share == pytest.approx(drop, abs=5 * 0.46 / 2000**0.5 if drop else 0)
        model.predict(torch.zeros(2000, 1), 0.5, y=y, target="x0")  # sampling hides nothing
        assert seen[-1] is y


def test_hiding_wants_a_null_class():
    with refuses("drop must be 0 for a network without a null class, got 0.1"):
        EDM(TimeMLP(2, [8], n_classes=3), sigma_data=1.0, drop=0.1)
    with refuses("drop must be a number from 0 to 1, got 1.5"):
        Denoiser(lambda x, t: x, StraightPath(), drop=1.5)
    assert FlowMatching(lambda x, t: x).drop == 0.0
