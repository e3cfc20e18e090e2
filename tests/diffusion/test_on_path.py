"""A model seen from another path, the time of a log-SNR, and every model in EDM's form."""

import math

import pytest
import torch

from course_lib.diffusion import (
    DDPM,
    EDM,
    ClassifierFreeGuidance,
    Denoiser,
    DiscreteSchedule,
    EDMPath,
    FlowMatching,
    GaussianPath,
    IdealDenoiser,
    PredictionError,
    ProbabilityFlow,
    ScaledInput,
    StraightPath,
    SubVPPath,
    VEPath,
    VPPath,
    ddim_sample,
    dpm_solver_sample,
    euler_step,
    heun_sample,
    last,
    ode_log_prob,
    on_path,
    settings,
)
from course_lib.nn import TimeMLP
from course_lib.training import load_pretrained
from tests.diffusion.conftest import Circle, randn, refuses, seeded

PATHS = {
    "VP": VPPath(),
    "sub-VP": SubVPPath(),
    "VE": VEPath(),
    "straight": StraightPath(),
    "DDPM": DiscreteSchedule.linear(1000),
    "EDM": EDMPath(),
    "circle": Circle(),
}
each = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def ideal(path, predicts="eps"):
    """Two clouds in the plane; the network says any of the five."""
    centres = torch.tensor([[-1.0, 0.5], [1.5, -0.5]], dtype=torch.float64)
    model = Denoiser(IdealDenoiser(centres, path, std=0.4), path).double()
    if predicts == "eps":
        return model
    net = lambda x, t: model.predict(x, t, target=predicts)  # noqa: E731
    return Denoiser(net, path, predicts=predicts).double()


# --- the time of a log-SNR ---------------------------------------------------------------------


@each
def test_the_time_of_a_log_snr(path):
    t = torch.linspace(path.t_min, path.t_max, 41, dtype=torch.float64)
    got = path.time_at(path.log_snr(t))
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, t, rtol=1e-9, atol=1e-9)
    found = GaussianPath.invert_log_snr(path, path.log_snr(t))  # without a formula
    torch.testing.assert_close(found, t, rtol=1e-9, atol=1e-9)
    middle = path.log_snr(t[20]).item()
    torch.testing.assert_close(path.time_at(middle), t[20], rtol=1e-9, atol=1e-9)
    assert path.time_at(torch.full((2, 3), middle)).shape == (2, 3)


def test_the_time_of_a_log_snr_with_few_steps():
    assert DiscreteSchedule.linear(1).time_at(math.log(0.9 / 0.1)).item() == pytest.approx(0)
    path = DiscreteSchedule(torch.tensor([0.5, 0.5]))
    alpha_bar = 0.5 * 0.5**0.25  # a quarter of the way in the logarithm
    assert path.time_at(math.log(alpha_bar / (1 - alpha_bar))).item() == pytest.approx(0.25)


def test_a_log_snr_that_the_path_has_not_is_named():
    low, high = EDMPath().log_snr_range
    assert (low, high) == (pytest.approx(-2 * math.log(80)), pytest.approx(-2 * math.log(0.002)))
    for bad in (-8.8, 12.5, math.inf, math.nan):
        with refuses(f"log_snr must be one of the path's, from -8.76405 to 12.4292, got {bad:.6g}"):
            EDMPath().time_at(torch.tensor([0.0, bad]))
    assert EDMPath().time_at(low - 9e-5).item() == pytest.approx(80, rel=1e-12)  # rounding
    assert EDMPath().time_at(high + 9e-5).item() == pytest.approx(0.002, rel=1e-12)
    assert StraightPath().time_at(-math.inf).item() == 1
    assert StraightPath().time_at(math.inf).item() == 0


# --- a model on another path -------------------------------------------------------------------


@pytest.mark.parametrize("predicts", ["eps", "x0"])
@pytest.mark.parametrize("other", PATHS.values(), ids=PATHS)
@each
def test_the_guess_is_the_closed_form_on_every_pair_of_paths(path, other, predicts):
    model = on_path(ideal(path, predicts), other)
    assert model.predicts == predicts
    assert model.dtype == torch.float64
    low, high = model.path.log_snr_range
    log_snr = torch.linspace(max(low, -7.0), min(high, 8.0), 6, dtype=torch.float64)
    t = model.path.time_at(log_snr)
    expected = ideal(other)
    x = model.path.noised(randn(6, 2), t, randn(6, 2, seed=1))
    for target in ("x0", "eps", "score", "velocity"):
        got = model.predict(x, t, target=target)
        torch.testing.assert_close(got, expected.predict(x, t, target=target), rtol=1e-6, atol=1e-6)
    for time in t[:2].tolist():  # one for all
        got, right = (m.predict(x, time, target="x0") for m in (model, expected))
        torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("predicts", ["velocity", "v", "score"])
def test_what_belongs_to_a_path_is_seen_as_eps(predicts):
    model = on_path(ideal(VPPath(), predicts), EDMPath())
    assert model.predicts == "eps"
    x = randn(4, 2)
    for sigma in (0.05, 1.0, 20.0):
        expected = ideal(EDMPath()).predict(x, sigma, target="x0")
        got = model.predict(x, sigma, target="x0")
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@each
def test_on_its_own_path_nothing_changes(path):
    model, x = ideal(path), randn(3, 2)
    same = on_path(model, path)
    assert same.path is path
    t = path.time_at(torch.tensor([-3.0, 0.0, 2.0]))
    torch.testing.assert_close(same.predict(x, t), model.predict(x, t), rtol=1e-9, atol=1e-9)


def test_from_path_to_path():
    """By way of others, and back, is as at once."""
    model, x = ideal(VPPath()), randn(3, 2)
    for path in (EDMPath(), StraightPath(), VEPath(), VPPath()):
        model = on_path(model, path)
    t = torch.tensor([0.2, 0.4, 0.8]).double()
    expected = ideal(VPPath()).predict(x, t)
    torch.testing.assert_close(model.predict(x, t), expected, rtol=1e-6, atol=1e-6)


def test_ends_are_those_that_the_model_knows():
    model = ideal(EDMPath(0.1, 20.0))
    straight = StraightPath()
    seen = on_path(model, straight).path
    assert isinstance(seen, StraightPath)
    assert (seen.t_min, seen.t_max) == (pytest.approx(0.1 / 1.1), pytest.approx(20 / 21))
    assert (straight.t_min, straight.t_max) == (0.0, 1.0)  # the given one stays
    for path, ends in (
        (EDMPath(), (0.1, 20.0)),
        (EDMPath(0.5, 80.0), (0.5, 20.0)),
        (EDMPath(0.01, 5.0), (0.1, 5.0)),
        (EDMPath(0.2, 5.0), (0.2, 5.0)),
    ):
        seen = on_path(model, path).path
        assert (seen.t_min, seen.t_max) == pytest.approx(ends)
        assert seen.start_std == pytest.approx(ends[1])
    wide = on_path(ideal(StraightPath(), "x0"), EDMPath())
    assert (wide.path.t_min, wide.path.t_max) == (0.002, 80.0)


def test_a_schedule_loses_its_noisiest_steps():
    schedule = DiscreteSchedule.linear(1000)
    seen = on_path(ideal(EDMPath(sigma_max=20.0)), schedule).path
    assert isinstance(seen, DiscreteSchedule)
    torch.testing.assert_close(seen.betas, schedule.betas[: len(seen)])
    beyond = [
        -2 * math.log(20) - 0.1 - schedule.log_snr(t).item() for t in (len(seen) - 1, len(seen))
    ]
    assert beyond[0] <= 0 < beyond[1]
    assert on_path(ideal(VPPath()), schedule).path is schedule  # a little beyond, as allowed
    x = randn(2, 2)
    for t in (0, len(seen) - 1):
        got = on_path(ideal(EDMPath(0.0105, 20.0)), schedule).predict(x, t, target="x0")
        expected = ideal(schedule).predict(x, t, target="x0")
        torch.testing.assert_close(got, expected, rtol=0, atol=0.03)


def test_paths_without_a_common_log_snr_are_named():
    model = ideal(EDMPath(0.1, 1.0))
    for path in (EDMPath(1.0, 2.0), EDMPath(0.01, 0.1), EDMPath(2.0, 3.0), EDMPath(0.001, 0.01)):
        low, high = path.log_snr_range
        message = (
            f"path must have log-SNRs that the model knows, 0 to 4.61, got {path} with "
            f"{low:.3g} to {high:.3g}"
        )
        with refuses(message):
            on_path(model, path)
    for schedule in (DiscreteSchedule.linear(1000), DiscreteSchedule(torch.tensor([0.9, 0.9]))):
        with pytest.raises(ValueError, match=r"^path must have log-SNRs that the model knows, 0 "):
            on_path(model, schedule)
    with refuses("model must be a Denoiser, got Linear"):
        on_path(torch.nn.Linear(1, 1), EDMPath())
    with refuses("path must be a GaussianPath, got 3"):
        on_path(model, 3)


def test_what_the_network_knows_is_passed_on():
    seen = []

    class Net(TimeMLP):
        def forward(self, x, t, y=None):
            seen.append((x, t, y))
            return super().forward(x, t, y)

    net = Net(2, [8], n_classes=4, null_class=True)
    model = on_path(DDPM(net, DiscreteSchedule.linear(1000)), EDMPath())
    assert model.null_class == 4
    assert model.net.event_shape == (2,)
    assert {id(p) for p in model.parameters()} == {id(p) for p in net.parameters()}
    y, x = torch.tensor([1, 0, 3]), torch.ones(3, 2)
    model.predict(x, 0.75, y=y)
    assert seen[-1][2] is y
    torch.testing.assert_close(seen[-1][0], 0.8 * x)  # 1 / sqrt(1 + 0.75²)
    schedule = DiscreteSchedule.linear(1000)
    sigma = (schedule.b(seen[-1][1]) / schedule.a(seen[-1][1])).tolist()
    assert sigma == pytest.approx([0.75] * 3, rel=1e-5)
    model.predict(x, torch.tensor([0.1, 0.75, 30.0]))
    assert seen[-1][2] is None
    torch.testing.assert_close(seen[-1][0][1], 0.8 * x[1])
    with refuses("shape must be (n, 2) for this network, got (3, 3)"):
        heun_sample(model, (3, 3), steps=2)
    guided = ClassifierFreeGuidance(model, 2.0)
    last(heun_sample(guided, (3, 2), steps=2, y=y))
    assert seen[-1][2].tolist() in ([4, 4, 4, 1, 0, 3], [1, 0, 3, 4, 4, 4])
    again = on_path(ClassifierFreeGuidance(DDPM(net, schedule), 2.0), EDMPath())
    t, z = 0.6, randn(3, 2).float()
    torch.testing.assert_close(again.predict(z, t, y=y), guided.predict(z, t, y=y))


def test_it_can_be_trained_and_asked_for_a_density():
    """Seen from elsewhere it is a model like any other."""
    model = on_path(FlowMatching(TimeMLP(2, [8], scale=1000)), VPPath())
    loss = model.loss(torch.zeros(4, 2), generator=seeded())
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    exact, seen = ideal(VPPath()), on_path(ideal(SubVPPath()), VPPath())
    x = randn(2, 2)
    torch.testing.assert_close(ode_log_prob(seen, x), ode_log_prob(exact, x), rtol=1e-3, atol=1e-3)


def test_a_network_that_fails_is_named():
    model = on_path(Denoiser(lambda x, t: x / 0, VPPath()), EDMPath())
    with pytest.raises(PredictionError, match=r"^net's output must be finite"):
        last(heun_sample(model, (1, 1), steps=2))
    narrow = on_path(Denoiser(lambda x, t: x[:, :1], VPPath()), EDMPath())
    with pytest.raises(PredictionError, match=r"^net's output must have shape \[3, 2\], got"):
        narrow.predict(torch.zeros(3, 2), 1.0)


def test_a_checkpoint_of_ddpm_ends_on_edms_path_where_ddim_ends():
    """With the same noise: DDIM by all its 400 steps, and by 35 calls on a path of another kind.

    Pixels in [-1, 1] are 0.02 off, less than those of DDIM in 35 steps.
    """
    ddpm = load_pretrained("ddpm_digits")
    model = on_path(ddpm, EDMPath())
    z = torch.randn(4, 1, 8, 8, generator=seeded())
    full = last(ddim_sample(ddpm, z.shape, steps=len(ddpm.path), z=z))
    start = model.path.start_std * z
    away = [
        (x - full).square().mean().sqrt().item()
        for x in (
            last(heun_sample(model, z.shape, steps=18, z=start)),
            last(dpm_solver_sample(model, z.shape, steps=35, z=start)),
            last(ddim_sample(ddpm, z.shape, steps=35, z=z)),
        )
    ]
    assert max(away[:2]) < 0.02 < away[2]
    assert full.square().mean().sqrt() > 0.5


# --- every model in EDM's form -----------------------------------------------------------------

SIGMA = torch.tensor([0.02, 0.3, 1.0, 6.0, 40.0], dtype=torch.float64)


def raw(u, t):
    """A network, element by element."""
    return (u + 0.1 * t.reshape(-1, *[1] * (u.ndim - 1))).cos()


def models():
    net = lambda x, t: raw(x, t.to(x))  # noqa: E731
    net.event_shape = (2,)
    ve = VEPath()
    return {
        "VP": Denoiser(net, VPPath()),
        "sub-VP": Denoiser(net, SubVPPath()),
        "VE": Denoiser(net, ve, predicts="score"),
        "VE scaled": Denoiser(ScaledInput(net, ve), ve),
        "DDPM": DDPM(net, DiscreteSchedule.linear(1000)),
        "v": Denoiser(net, VPPath(), predicts="v"),
        "x0": Denoiser(net, VPPath(), predicts="x0"),
        "flow matching": FlowMatching(net),
        "EDM": EDM(net, sigma_data=0.8),
        "EDM's form on VP": Denoiser(EDM(net, sigma_data=0.8).net, VPPath(), predicts="velocity"),
    }


each_model = pytest.mark.parametrize("name", models())


@each_model
def test_edms_form_is_the_model(name):
    """D(x; σ) = c_skip x + c_out F(c_in x; c_noise) is the guess of x_0 from s x at time t."""
    model, x = models()[name].double(), randn(5, 2)
    row = {key: value[:, None] for key, value in settings(model, SIGMA).items()}
    guess = row["c_skip"] * x + row["c_out"] * raw(row["c_in"] * x, row["c_noise"])
    expected = model.predict(row["s"] * x, row["t"][:, 0], target="x0")
    torch.testing.assert_close(guess, expected, rtol=1e-6, atol=1e-6)
    assert all(value.dtype == torch.float64 for value in row.values())
    assert all(len(value) == 5 for value in row.values())


@each_model
def test_the_form_has_the_models_ode(name):
    """Equation 4: dx/dt = s'/s x + s σ' (x / s − D) / σ is the velocity of the model's own ODE."""
    model, x = models()[name].double(), randn(1, 2)
    for sigma in SIGMA.tolist():
        row = {k: v.item() for k, v in settings(model, torch.tensor([sigma]).double()).items()}
        t, h = row["t"], 1e-5 * row["t"]
        around = torch.tensor([t - h, t, t + h], dtype=torch.float64)
        before, s, after = model.path.a(around).tolist()
        levels = (model.path.b(around) / model.path.a(around)).tolist()
        ds, dsigma = (after - before) / (2 * h), (levels[2] - levels[0]) / (2 * h)
        D = model.predict(x, t, target="x0")
        expected = ds / s * x + s * dsigma * (x / s - D) / sigma
        got = ProbabilityFlow(model)(x, t)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_the_rows_of_table_1():
    table = {name: settings(model, SIGMA) for name, model in models().items()}
    one, root = torch.ones(5).double(), (SIGMA**2 + 1).sqrt()

    def row(name, **expected):
        for key, value in expected.items():
            torch.testing.assert_close(table[name][key], value, rtol=1e-6, atol=1e-6)

    row("VP", c_skip=one, c_out=-SIGMA, c_in=1 / root, s=1 / root, weight=SIGMA**-2)
    t = table["VP"]["t"]
    row("VP", c_noise=t)
    torch.testing.assert_close((0.5 * 19.9 * t**2 + 0.1 * t).exp(), SIGMA**2 + 1)
    # Their network says σ · score where ours says the score.
    row("VE", c_skip=one, c_out=SIGMA**2, c_in=one, s=one)
    row("VE scaled", c_skip=one, c_out=-SIGMA, c_in=1 / root, s=one, weight=SIGMA**-2)
    torch.testing.assert_close(0.01 * 5000 ** table["VE"]["t"], SIGMA)
    row("DDPM", c_skip=one, c_out=-SIGMA, c_in=1 / root, s=1 / root, weight=SIGMA**-2)
    bars = DiscreteSchedule.linear(1000).alpha_bars
    whole = table["DDPM"]["t"].round().long()
    levels = ((1 - bars) / bars).sqrt()[whole].double()
    assert ((levels / SIGMA - 1).abs() < 0.06).all()  # the nearest whole time
    row("v", c_skip=1 / root**2, c_out=-SIGMA / root, c_in=1 / root, weight=1 + SIGMA**-2)
    row("x0", c_skip=0 * one, c_out=one, weight=one)
    row("flow matching", c_skip=1 / (1 + SIGMA), c_out=-SIGMA / (1 + SIGMA))
    row("flow matching", c_in=1 / (1 + SIGMA), c_noise=SIGMA / (1 + SIGMA))
    c_skip, c_out, c_in, c_noise = EDM(raw, sigma_data=0.8).net.factors(SIGMA)
    row("EDM", t=SIGMA, s=one, c_skip=c_skip, c_out=c_out, c_in=c_in, c_noise=c_noise)
    row("EDM", weight=EDM(raw, sigma_data=0.8).weight(SIGMA))


def test_levels_in_single_precision_have_their_times_in_double():
    sigma = torch.tensor([0.1, 3.0])
    table = settings(models()["EDM"], sigma)
    torch.testing.assert_close(table["t"], sigma.double(), rtol=1e-12, atol=0)


@each_model
def test_the_weight_is_that_of_the_loss(name):
    """The plain loss, in squared errors of D: that of EDM has its weights as 1 / c_out², too."""
    model, x_0 = models()[name].double(), randn(40, 2)
    t, eps = model.draw(x_0, generator=seeded(3))
    t = t.clamp(min=0.01) if t.is_floating_point() else t
    model.draw = lambda x, generator=None: (t, eps)
    sigma = ((-model.path.log_snr(t.double())) / 2).exp()
    weight = settings(model, sigma)["weight"][:, None]
    error = model.predict(model.path.noised(x_0, t, eps), t, target="x0") - x_0
    expected = (weight * error**2).mean()
    torch.testing.assert_close(model.loss(x_0), expected, rtol=1e-5, atol=1e-5)


def test_ddim_is_eulers_method_in_edms_form():
    """States divided by s(t), at the schedule's own noise levels."""
    ddpm = ideal(DiscreteSchedule.linear(1000))
    model, path = on_path(ddpm, EDMPath(sigma_max=200.0)), ddpm.path
    z = randn(3, 2)
    states = list(ddim_sample(ddpm, z.shape, steps=20, z=z))
    points = path.points(path.sampling_times(20))[::-1]
    x = z / points[0][0]
    for (a, b), (a_then, b_then), state in zip(points, points[1:-1], states[1:], strict=False):
        velocity = lambda x, t: (x - model.predict(x, t, target="x0")) / t  # noqa: E731
        x = euler_step(velocity, x, b / a, b_then / a_then - b / a)
        torch.testing.assert_close(a_then * x, state, rtol=1e-5, atol=1e-5)


def test_bad_settings_are_named():
    with refuses("model must be a Denoiser, got Linear"):
        settings(torch.nn.Linear(1, 1), SIGMA)
    model = EDM(lambda x, t: x, sigma_data=1.0)
    with refuses("sigma must be above 0, got 0"):
        settings(model, torch.tensor([1.0, 0.0]))
    with refuses("sigma must have shape [B], got []"):
        settings(model, torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"^log_snr must be one of the path's"):
        settings(model, torch.tensor([100.0]))
