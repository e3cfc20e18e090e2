"""The probability-flow ODE: solvers, marginals, density, and the ways there and back."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch

from course_lib.diffusion import (
    DDPM,
    Denoiser,
    DiscreteSchedule,
    FlowMatching,
    GaussianPath,
    IdealDenoiser,
    PredictionError,
    SolverError,
    StraightPath,
    SubVPPath,
    VEPath,
    VPPath,
    divergence,
    euler_step,
    heun_step,
    last,
    ode_encode,
    ode_log_prob,
    ode_sample,
    rk4_step,
    shift_times,
)
from course_lib.diffusion.ode import ProbabilityFlow
from course_lib.nn import TimeMLP
from tests.diffusion.conftest import (
    GAUSSIAN,
    MIXTURE,
    Exploding,
    Gaussian,
    Mixture,
    check_law,
    optimal,
    randn,
    refuses,
    seeded,
)

FORGETFUL = VPPath(beta_max=60.0)  # at its end nothing is left of the data: a = 3e-7
TIGHT = {"rtol": 1e-7, "atol": 1e-7}


def amounts(path, t):
    t = torch.tensor([t], dtype=torch.float64)
    return path.a(t), path.b(t)


def ideal(path, std=0.4):
    """Two clouds in the plane, as the ideal denoiser and as what they are."""
    centres = torch.tensor([[-1.0, 0.5], [1.5, -0.5]], dtype=torch.float64)
    model = Denoiser(IdealDenoiser(centres, path, std=std), path).double()
    cov = std**2 * torch.eye(2, dtype=torch.float64)
    return model, Mixture([0.5, 0.5], [Gaussian(centre, cov) for centre in centres])


def exact_model(data, path=None):
    path = path or StraightPath()
    return Denoiser(optimal_velocity(data, path), path, predicts="velocity").double()


def optimal_velocity(data, path):
    """E[dx/dt | x_t] in closed form, also where nothing is left of the data."""

    def net(x, t):
        t = t[:1].double()
        a, b = path.a(t), path.b(t)
        x0 = data.guess(x, a, b)
        eps = (x - a * x0) / b if b > 0 else torch.zeros_like(x)
        return path.da(t) * x0 + path.db(t) * eps

    net.event_shape = (2,)
    return net


# --- one step ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "degree", "calls"), [(euler_step, 0, 1), (heun_step, 1, 2), (rk4_step, 3, 4)]
)
def test_a_step_is_exact_for_velocities_up_to_its_degree(step, degree, calls):
    """dx/dt = t^k: the step is a rule of quadrature, the left end, the trapezoid, Simpson's."""
    x, asked = torch.zeros(1, 1, dtype=torch.float64), []

    def field(x, t, k):
        asked.append(t)
        return torch.full_like(x, t**k)

    for k in range(degree + 2):
        got = step(lambda x, t, k=k: field(x, t, k), x, 1.0, 0.5).item()
        assert (got == pytest.approx((1.5 ** (k + 1) - 1) / (k + 1))) == (k <= degree)
    assert len(asked) == calls * (degree + 2)
    assert asked[0] == 1.0


@pytest.mark.parametrize(("step", "order"), [(euler_step, 1), (heun_step, 2), (rk4_step, 4)])
def test_a_step_of_growth_is_the_series_of_exp(step, order):
    x = torch.ones(1, 1, dtype=torch.float64)
    series = sum(0.3**k / math.factorial(k) for k in range(order + 1))
    assert step(lambda x, t: x, x, 0.0, 0.3).item() == pytest.approx(series, rel=1e-14)
    backwards = sum((-0.3) ** k / math.factorial(k) for k in range(order + 1))
    assert step(lambda x, t: x, x, 0.0, -0.3).item() == pytest.approx(backwards, rel=1e-14)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_the_orders_as_measured_slopes(solver, order):
    """On Gaussian data the flow is known: along the axes of the covariance, points keep place."""
    model, z = exact_model(GAUSSIAN), randn(20, 2)
    values, axes = torch.linalg.eigh(GAUSSIAN.cov)
    x = GAUSSIAN.mean + z @ (axes @ torch.diag(values.sqrt()) @ axes.T)
    counts = (40, 80, 160) if order < 4 else (32, 64, 128)
    errors = [
        (last(ode_sample(model, z.shape, steps=steps, solver=solver, z=z)) - x).norm().item()
        for steps in counts
    ]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.12), errors


# --- the velocity ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [VPPath(), SubVPPath(), VEPath(), Exploding(), DiscreteSchedule.linear(50)],
    ids=["VP", "sub-VP", "VE", "EDM", "schedule"],
)
def test_the_velocity_is_that_of_the_fokker_planck_equation(path):
    """dx/dt = f x - ½ g² ∇log p_t, with the score of the noised mixture by autograd."""
    model = Denoiser(optimal(MIXTURE, path), path).double() if path.t_max != 1 else None
    if model is None:

        def net(x, t):
            a, b = amounts(path, t[0].item())
            return (x - a * MIXTURE.guess(x, a, b)) / b

        model = Denoiser(net, path).double()
    for share in (0.05, 0.5, 0.9):
        t = path.t_min + share * (path.t_max - path.t_min)
        a, b = amounts(path, t)
        x = randn(5, 2).requires_grad_()
        (score,) = torch.autograd.grad(MIXTURE.noised(a, b).log_prob(x).sum(), x)
        time = torch.tensor([t], dtype=torch.float64)
        f, g = path.drift(time), path.diffusion(time)
        expected = f * x - 0.5 * g**2 * score
        with torch.no_grad():
            got = ProbabilityFlow(model, times=[t])(x, t)
            other = model.predict(x, t, target="velocity")
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(got, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "score", "velocity"])
def test_whatever_the_network_predicts_the_way_is_the_same(predicts):
    path = DiscreteSchedule.linear(30)
    model = DDPM(optimal(MIXTURE, path, predicts), path, predicts=predicts).double()
    other = DDPM(optimal(MIXTURE, path), path).double()
    z = randn(4, 2)
    for solver in ("euler", "rk4"):
        ways = [
            torch.stack(list(ode_sample(m, z.shape, steps=7, solver=solver, z=z)))
            for m in (model, other)
        ]
        torch.testing.assert_close(*ways, rtol=1e-6, atol=1e-6)


def test_the_continuity_equation():
    """∂p/∂t = -∂(p f)/∂x on a line, by differences in time and automatic ones in x."""
    path, model = VPPath(), None
    centres = torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    model = Denoiser(IdealDenoiser(centres, path, std=0.5), path).double()

    def density(x, t):
        a, b = amounts(path, t)
        law = torch.distributions.Normal(a * centres.T, (a**2 * 0.25 + b**2).sqrt())
        return law.log_prob(x).exp().mean(1, keepdim=True)

    x = torch.linspace(-3, 3, 41, dtype=torch.float64)[:, None]
    flow = ProbabilityFlow(model)
    for t in (0.1, 0.3, 0.6):
        change = (density(x, t + 1e-5) - density(x, t - 1e-5)) / 2e-5
        flux = divergence(lambda x, t=t: density(x, t) * flow(x, t), x)
        torch.testing.assert_close(change[:, 0], -flux, rtol=1e-5, atol=1e-7)


class Heat(GaussianPath):
    """Nothing but diffusion: x_t = x_0 + sqrt(t) eps, whose density solves the heat equation."""

    t_min = 1e-4

    def a(self, t):
        return torch.ones_like(t)

    def b(self, t):
        return t.sqrt()


def test_the_heat_equation_moves_particles_as_it_smears_density():
    """∂p/∂t = ½ ∂²p/∂x², and particles with dx/dt = -½ ∂ log p/∂x keep their quantiles."""
    path, centres = Heat(), torch.tensor([[-1.0], [0.8]], dtype=torch.float64)
    model = Denoiser(IdealDenoiser(centres, path, std=0.3), path).double()

    def law(t):
        return torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(torch.ones(2, dtype=torch.float64)),
            torch.distributions.Normal(centres[:, 0], (0.09 + torch.tensor(t).double()).sqrt()),
        )

    x = torch.linspace(-3, 3, 31, dtype=torch.float64)
    h = 1e-3
    for t in (0.05, 0.5):
        change = (law(t + h).log_prob(x).exp() - law(t - h).log_prob(x).exp()) / (2 * h)
        up, down = (law(t).log_prob(x + s).exp() for s in (h, -h))
        curvature = (up + down - 2 * law(t).log_prob(x).exp()) / h**2
        torch.testing.assert_close(change, 0.5 * curvature, rtol=1e-3, atol=1e-4)
    particles = torch.linspace(-1.8, 1.6, 40, dtype=torch.float64)[:, None]
    states = list(ode_encode(model, particles, steps=100, solver="rk4"))
    torch.testing.assert_close(
        law(1.0).cdf(states[-1][:, 0]), law(path.t_min).cdf(particles[:, 0]), rtol=1e-5, atol=1e-5
    )
    slope = (states[-1] - states[0]).abs()
    assert slope.max() > 0.5


# --- samples -----------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("path", [StraightPath(), FORGETFUL], ids=["straight", "VP"])
def test_samples_have_the_law_of_the_data(path, solver):
    steps = {"euler": 200, "heun": 60, "rk4": 40}[solver]
    model = exact_model(GAUSSIAN, path)
    states = list(ode_sample(model, (4000, 2), steps=steps, solver=solver, generator=seeded(3)))
    assert len(states) == steps + 1
    a, b = amounts(path, path.t_min)
    noised = GAUSSIAN.noised(a, b)
    if solver == "euler":  # whose own bias is more than chance
        torch.testing.assert_close(states[-1].T.cov(), noised.cov, rtol=0.05, atol=0.05)
    else:
        check_law(states[-1], noised)


def test_marginals_are_the_paths_at_every_time():
    """Of a mixture, at five times on the way: the mean, and that of a wave."""
    path = FORGETFUL
    model = Denoiser(optimal_velocity(MIXTURE, path), path, predicts="velocity").double()
    states = list(ode_sample(model, (4000, 2), steps=100, solver="heun", generator=seeded(3)))
    times = torch.linspace(path.t_max, path.t_min, 101, dtype=torch.float64)
    for k in (20, 50, 70, 90, 100):
        law = MIXTURE.noised(*amounts(path, times[k].item()))
        mean = sum(w * part.mean for w, part in zip(law.weights, law.parts, strict=True))
        error = 5 * states[k].std(0) / 4000**0.5
        assert ((states[k].mean(0) - mean).abs() < error).all()
        wave = sum(
            w * (part.mean[0].cos() * (-part.cov[0, 0] / 2).exp())
            for w, part in zip(law.weights, law.parts, strict=True)
        )
        waves = states[k][:, 0].cos()
        assert abs(waves.mean() - wave) < 5 * waves.std() / 4000**0.5


def test_the_times_are_even_and_reach_both_ends():
    seen = []

    def net(x, t):
        seen.append(t[0].item())
        return torch.zeros_like(x)

    for path in (StraightPath(), VPPath(), DiscreteSchedule.linear(11)):
        low, high = path.t_min, path.t_max
        model = Denoiser(net, path, predicts="velocity")
        x = torch.zeros(2, 1)
        for solver, calls in (("euler", 1), ("heun", 2), ("rk4", 4)):
            seen.clear()
            list(ode_sample(model, (2, 1), steps=4, solver=solver))
            down = list(seen)
            assert len(down) == 4 * calls
            assert down[::calls] == pytest.approx([high - (high - low) * i / 4 for i in range(4)])
            if calls > 1:
                assert down[-1] == pytest.approx(low)
            seen.clear()
            list(ode_encode(model, x, steps=4, solver=solver))
            assert seen[::calls] == pytest.approx([low + (high - low) * i / 4 for i in range(4)])


def test_it_starts_as_it_is_told():
    path = VEPath()
    model = Denoiser(lambda x, t: torch.zeros_like(x), path, predicts="velocity").double()
    z = randn(3, 2)
    assert torch.equal(next(ode_sample(model, (3, 2), steps=2, z=z)), z)
    start = next(ode_sample(model, (3, 2), steps=2, generator=seeded(4)))
    noise = torch.randn(3, 2, generator=seeded(4), dtype=torch.float64)
    torch.testing.assert_close(start, path.start_std * noise)
    assert torch.equal(last(ode_sample(model, (3, 2), steps=2, generator=seeded(4))), start)


def test_labels_reach_the_network():
    y, seen = torch.tensor([2, 0, 1]), []

    def net(x, t, y):
        seen.append(y)
        return torch.zeros_like(x)

    model = FlowMatching(net)
    x = torch.zeros(3, 2)
    list(ode_sample(model, (3, 2), steps=1, y=y))
    list(ode_encode(model, x, steps=1, y=y))
    ode_log_prob(model, x, y=y)
    assert len(seen) > 3
    assert all(labels is y for labels in seen)


@pytest.mark.parametrize("solver", ["heun", "rk4"])
def test_there_and_back_again(solver):
    """The round trip closes with the order of the solver."""
    model, x = exact_model(MIXTURE), randn(20, 2)
    errors = []
    for steps in (50, 100):
        z = last(ode_encode(model, x, steps=steps, solver=solver))
        again = last(ode_sample(model, x.shape, steps=steps, solver=solver, z=z))
        errors.append((again - x).norm().item())
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 3


def test_a_checkpoint_of_ddpm_is_sampled_unchanged():
    path = DiscreteSchedule.linear(40)
    model = DDPM(TimeMLP(2, [16]), path)
    z = torch.randn(6, 2, generator=seeded())
    states = list(ode_sample(model, z.shape, steps=60, solver="heun", z=z))  # more than T
    assert len(states) == 61
    again = last(ode_encode(model, states[-1], steps=60, solver="heun"))
    torch.testing.assert_close(again, z, rtol=1e-2, atol=1e-2)


# --- the density -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [FORGETFUL, SubVPPath(beta_max=60.0), VEPath(sigma_max=5000.0), DiscreteSchedule.linear(4)],
    ids=["VP", "sub-VP", "VE", "schedule"],
)
def test_the_log_density_of_the_ideal_denoiser_is_that_of_its_mixture(path):
    """The law at t_min: the mixture with the little noise that is left there.

    The schedule of a few steps ends with some of the data left: what is compared then is the flow
    of the true law at the end, not of pure noise.
    """
    model, mixture = ideal(path)
    x = mixture_sample(12)
    got = ode_log_prob(model, x, rtol=1e-6, atol=1e-6)
    exact = mixture.noised(*amounts(path, path.t_min)).log_prob(x)
    if isinstance(path, DiscreteSchedule):
        z = last(ode_encode(model, x, steps=90, solver="rk4"))
        end = mixture.noised(*amounts(path, path.t_max)).log_prob(z)
        normal = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
        got = got - normal + end
    torch.testing.assert_close(got, exact, rtol=1e-3, atol=1e-3)


def mixture_sample(n):
    return torch.cat([randn(n // 2, 2) * 0.4 - 1, randn(n // 2, 2, seed=1) + 0.5])


def test_the_log_density_on_the_straight_path_is_that_of_the_data():
    """At t = 0 no noise is left, and at t = 1 nothing of the data: no approximation."""
    model, x = exact_model(MIXTURE), mixture_sample(10)
    torch.testing.assert_close(
        ode_log_prob(model, x, **TIGHT), MIXTURE.log_prob(x), rtol=1e-5, atol=1e-5
    )
    # Nobody asks for less than four digits, and each tolerance alone would spoil them.
    torch.testing.assert_close(ode_log_prob(model, x), MIXTURE.log_prob(x), rtol=1e-4, atol=1e-4)
    for loose in ({"rtol": 1.0}, {"atol": 1.0}):
        off = (ode_log_prob(model, x, **loose) - MIXTURE.log_prob(x)).abs().max()
        assert off > 1e-3, loose


def test_the_density_of_any_network_integrates_to_1():
    """However bad the network: mass flows, and is neither made nor lost."""
    net = TimeMLP(2, [12], scale=3.0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=seeded()))
    side = torch.linspace(-9, 9, 46, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    for model in (FlowMatching(net), Denoiser(net, VPPath(), predicts="velocity")):
        mass = ode_log_prob(model.double(), grid).exp().sum() * (side[1] - side[0]) ** 2
        assert mass.item() == pytest.approx(1, abs=2e-3)


def test_the_integral_is_the_log_determinant_of_the_whole_way():
    """That of data → noise, by automatic differentiation of many small steps."""
    model = exact_model(MIXTURE)
    x = randn(2, 2)

    def encoded(point):
        flow, state = ProbabilityFlow(model), point[None]
        for i in range(25):
            state = rk4_step(flow, state, i / 25, 1 / 25)
        return state[0]

    jacobians = [torch.autograd.functional.jacobian(encoded, point) for point in x]
    log_det = torch.stack([torch.linalg.slogdet(J).logabsdet for J in jacobians])
    z = torch.stack([encoded(point) for point in x]).detach()
    normal = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
    torch.testing.assert_close(
        ode_log_prob(model, x, **TIGHT) - normal, log_det, rtol=1e-4, atol=1e-4
    )


def test_hutchinsons_estimate_is_right_on_average():
    model, x = exact_model(MIXTURE), randn(2, 2)
    exact = ode_log_prob(model, x)
    many = x.repeat_interleave(400, dim=0)
    estimates = ode_log_prob(model, many, divergence="hutchinson", generator=seeded())
    estimates = estimates.reshape(2, 400)
    assert ((estimates.mean(1) - exact).abs() < 4 * estimates.std(1) / 20).all()
    assert (estimates.std(1) > 0.01).all()
    again = ode_log_prob(model, many, divergence="hutchinson", generator=seeded()).reshape(2, 400)
    assert torch.equal(again, estimates)


def test_a_density_in_one_number_of_images():
    """Per event, not per number: a stack of independent pixels has the sum of their densities."""
    path = StraightPath()
    model = exact_model(Gaussian((0.0, 0.0), ((1.0, 0.0), (0.0, 1.0))))
    net = model.net

    def of_images(x, t):
        flat = x.reshape(-1, 2)
        return net(flat, t[:1].expand(len(flat))).reshape(x.shape)

    images = Denoiser(of_images, path, predicts="velocity").double()
    x = randn(3, 1, 2, 4)
    expected = -0.5 * x.square().flatten(1).sum(1) - 4 * math.log(2 * math.pi)
    torch.testing.assert_close(ode_log_prob(images, x, **TIGHT), expected, rtol=1e-5, atol=1e-5)


def test_no_gradients_are_recorded():
    model = FlowMatching(TimeMLP(2, [8], scale=1000))
    x = torch.zeros(2, 2)
    assert not ode_log_prob(model, x).requires_grad
    assert not last(ode_sample(model, (2, 2), steps=2)).requires_grad
    assert not last(ode_encode(model, x, steps=2)).requires_grad


# --- bad input ---------------------------------------------------------------------------------


def test_bad_arguments_are_named():
    model, x = FlowMatching(TimeMLP(2, [8], scale=1000)), torch.zeros(3, 2)
    with refuses("model must be a Denoiser, got Linear"):
        ode_sample(torch.nn.Linear(2, 2), (3, 2), steps=2)
    for steps in (0, -1, 2.0, True):
        for call in (
            lambda **o: ode_sample(model, (3, 2), **o),
            lambda **o: ode_encode(model, x, **o),
        ):
            with refuses(f"steps must be an integer of at least 1, got {steps!r}"):
                call(steps=steps)
            with refuses("solver must be one of euler, heun, rk4, got 'midpoint'"):
                call(steps=2, solver="midpoint")
    with refuses("shape must be (n, 2) for this network, got (3, 3)"):
        ode_sample(model, (3, 3), steps=2)
    with refuses("z must have shape [3, 2], got [2, 2]"):
        ode_sample(model, (3, 2), steps=2, z=torch.zeros(2, 2))
    with refuses("generator must be a torch.Generator or None, got 1"):
        ode_sample(model, (3, 2), steps=2, generator=1)
    for call in (ode_log_prob, lambda m, x: ode_encode(m, x, steps=2)):
        with refuses("model must be a Denoiser, got Linear"):
            call(torch.nn.Linear(2, 2), x)
        with refuses("x must be torch.float32 like the model, got torch.float64"):
            call(model, x.double())
        with refuses("x must be finite, got NaN or infinite values"):
            call(model, x * torch.nan)
        with refuses("x's shape must be (n, 2) for this network, got (3, 3)"):
            call(model, torch.zeros(3, 3))
    with refuses("divergence must be one of exact, hutchinson, got 'sliced'"):
        ode_log_prob(model, x, divergence="sliced")
    for name in ("rtol", "atol"):
        with refuses(f"{name} must be a finite number above 0, got 0"):
            ode_log_prob(model, x, **{name: 0})


def test_times_outside_the_path_are_named():
    """A little outside is rounding, and is put back."""
    flow = ProbabilityFlow(FlowMatching(lambda x, t: x))
    x = torch.ones(1, 1)
    for t in (-0.1, 1.1):
        with refuses(f"t must lie in [0.0, 1.0], got {t}"):
            flow(x, t)
        with refuses(f"t must lie in [0.0, 1.0], got {t}"):
            euler_step(flow, x, t, 0.1)
    with refuses("t must lie in [0.0, 1.0], got 1.5"):
        heun_step(flow, x, 1.0, 0.5)
    assert torch.equal(flow(x, 1 + 1e-9), x)
    assert torch.equal(flow(x, -1e-9), x)


def test_the_end_of_the_straight_path_needs_another_prediction():
    """Pure noise says nothing of x_0, so that eps alone does not determine the velocity there."""
    model = Denoiser(lambda x, t: x, StraightPath(), predicts="eps")
    with refuses("t must be a time at which x_t and eps determine x_0, got 1.0"):
        ode_sample(model, (1, 1), steps=2)


def test_a_solver_that_diverges_is_named_with_its_time():
    """A step past the largest number there is; and dx/dt = x², infinite at t = 1 / x."""
    model, z = FlowMatching(lambda x, t: torch.full_like(x, -3e38)), torch.full((1, 1), 2e38)
    message = "the solver must keep the state finite, got NaN or infinite values at t = 0.5"
    with refuses(message, SolverError):
        last(ode_sample(model, (1, 1), steps=4, z=z))
    with refuses(message, SolverError):
        last(ode_encode(FlowMatching(lambda x, t: -model.net(x, t)), z, steps=4))
    up = FlowMatching(lambda x, t: x**2).double()
    with pytest.raises(SolverError, match=r"from t = 0 to 1, got stuck at t = 0\.5"):
        ode_log_prob(up, torch.full((1, 1), 2.0).double())


def test_a_network_that_fails_is_named_with_its_time():
    model = FlowMatching(lambda x, t: x / (t[:, None] > 0.45))
    for call in (
        lambda: last(ode_sample(model, (1, 1), steps=4)),
        lambda: ode_log_prob(model, torch.ones(1, 1)),
    ):
        with pytest.raises(PredictionError, match=r"net's output must be finite.*\(at t = 0"):
            call()
    narrow = FlowMatching(lambda x, t: x[:, :1])
    for call in (
        lambda: last(ode_sample(narrow, (3, 2), steps=4)),
        lambda: ode_log_prob(narrow, torch.ones(3, 2)),
    ):
        with pytest.raises(PredictionError, match=r"net's output must have shape \[3, 2\], got"):
            call()


# --- times of one's own ------------------------------------------------------------------------


def asked_at(**options):
    """The times at which a model of a rectified flow is asked by Euler's method."""
    seen = []

    def net(x, t, y=None):
        seen.append(t[0].item())
        return x

    list(ode_sample(FlowMatching(net).double(), (2, 1), steps=4, **options))
    return torch.tensor(seen, dtype=torch.float64)


def test_times_are_what_becomes_of_the_even_ones():
    even = torch.tensor([1.0, 0.75, 0.5, 0.25], dtype=torch.float64)
    torch.testing.assert_close(asked_at(), even)
    for ratio in (1.0, 3.0, 16.0):
        got = asked_at(warp=partial(shift_times, ratio=ratio))
        torch.testing.assert_close(got, shift_times(even, ratio), rtol=1e-6, atol=0)
    z = torch.ones(2, 1, dtype=torch.float64)
    torch.testing.assert_close(asked_at(warp=lambda t: 0.5 * t, z=z), 0.5 * even)


def test_a_shift_of_one_changes_nothing_and_unequal_steps_are_taken_whole():
    model = FlowMatching(lambda x, t, y=None: torch.sin(x)).double()
    options = {"steps": 5, "z": randn(3, 2), "solver": "heun"}
    same = last(ode_sample(model, (3, 2), warp=partial(shift_times, ratio=1), **options))
    assert torch.equal(same, last(ode_sample(model, (3, 2), **options)))
    # A constant velocity carries z as far at whatever times.
    constant = FlowMatching(lambda x, t, y=None: torch.ones_like(x)).double()
    z = randn(3, 2)
    way = list(ode_sample(constant, (3, 2), steps=4, z=z, warp=partial(shift_times, ratio=9)))
    t = shift_times(torch.linspace(1, 0, 5, dtype=torch.float64), 9)
    for state, time in zip(way, t, strict=True):
        torch.testing.assert_close(state, z - (1 - time))


@pytest.mark.parametrize("solver", ["heun", "rk4"])
def test_there_and_back_again_at_times_of_ones_own(solver):
    """The round trip closes with the order of the solver, at the same times from either end."""
    model, x, errors = exact_model(MIXTURE), randn(20, 2), []
    for steps in (50, 100):
        options = {"steps": steps, "solver": solver, "warp": partial(shift_times, ratio=2)}
        z = last(ode_encode(model, x, **options))
        errors.append((last(ode_sample(model, x.shape, z=z, **options)) - x).norm().item())
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("end", [1.0, 0.6])
def test_the_way_to_the_noise_goes_through_the_times_of_the_way_back(end):
    """Euler's method by hand, at the times of ``ode_sample`` in reverse; the whole way or less."""
    x = randn(3, 2)

    def warp(even):
        return end * even**2

    def velocity(x, t, y=None):
        return torch.sin(3 * x) + t[:, None]

    way = list(ode_encode(FlowMatching(velocity).double(), x, steps=4, warp=warp))
    times = warp(torch.linspace(0, 1, 5, dtype=torch.float64))
    assert len(way) == 5
    assert torch.equal(way[0], x)
    for state, t, then in zip(way[1:], times, times[1:], strict=False):
        x = x + (then - t) * velocity(x, t.expand(3))
        torch.testing.assert_close(state, x, rtol=1e-6, atol=1e-6)  # times are told in float32


def test_times_that_do_not_fall_are_named():
    model, z = FlowMatching(lambda x, t, y=None: x).double(), randn(3, 2)
    for warp in (lambda t: 1 - t, lambda t: 2 * t, lambda t: t - 0.5, lambda t: 0 * t):
        with pytest.raises(
            ValueError, match=r"warp\(t\) must fall at each step, from at most 1 to"
        ):
            ode_sample(model, (3, 2), steps=2, z=z, warp=warp)
        with pytest.raises(ValueError, match=r"^warp\(t\) must fall at each step"):
            ode_encode(model, z, steps=2, warp=warp)
    with refuses("warp(t) must have shape [3], got [2]"):
        ode_sample(model, (3, 2), steps=2, z=z, warp=lambda t: t[1:])
    with refuses("warp must be a function or None, got 3"):
        ode_sample(model, (3, 2), steps=2, warp=3)
    with refuses("z must be given where warp(t) begins at 0.5 instead of 1"):
        ode_sample(model, (3, 2), steps=2, warp=lambda t: 0.5 * t)
