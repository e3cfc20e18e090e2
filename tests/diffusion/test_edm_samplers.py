"""EDM's samplers: Heun's method with churn, and DPM-Solver++."""

import math
from itertools import pairwise

import pytest
import torch

from course_lib.diffusion import (
    EDM,
    Denoiser,
    EDMPath,
    IdealDenoiser,
    PredictionError,
    SolverError,
    VPPath,
    churn_levels,
    churn_step,
    ddim_step,
    dpm_solver_sample,
    dpm_solver_step,
    extrapolated_guess,
    heun_sample,
    karras_times,
    last,
)
from course_lib.nn import TimeMLP
from tests.diffusion.conftest import (
    GAUSSIAN,
    MIXTURE,
    Exploding,
    check_law,
    check_mean,
    optimal,
    randn,
    refuses,
    seeded,
)

PATH = EDMPath(0.002, 80.0)


def ideal(path=PATH, std=0.4):
    centres = torch.tensor([[-1.0, 0.5], [1.5, -0.5]], dtype=torch.float64)
    return Denoiser(IdealDenoiser(centres, path, std=std), path).double()


def exact(data, path=PATH):
    """The best guess of x_0 there is."""
    return Denoiser(optimal(data, Exploding(), "x0"), path, predicts="x0").double()


# --- the order ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fine():
    """A mixture's model, noise, and where the ODE leads it by many steps."""
    model, z = ideal(EDMPath(0.2, 80.0)), 80 * randn(8, 2)
    return model, z, list(heun_sample(model, z.shape, steps=641, z=z))[-2]


@pytest.mark.parametrize(
    ("sample", "order", "options"),
    [
        (heun_sample, 1, {"solver": "euler"}),
        (heun_sample, 2, {}),
        (dpm_solver_sample, 1, {"order": 1}),
        (dpm_solver_sample, 2, {}),
    ],
    ids=["Euler", "Heun", "DPM-Solver++ 1", "DPM-Solver++ 2M"],
)
def test_the_orders_as_measured_slopes(sample, order, options, fine):
    """The step to 0 is left out: it is the same for all."""
    model, z, end = fine
    errors = []
    for steps in (41, 81, 161):
        x = list(sample(model, z.shape, steps=steps, z=z, **options))[-2]
        errors.append((x - end).norm().item())
    for coarse, finer in pairwise(errors):
        assert math.log2(coarse / finer) == pytest.approx(order, abs=0.2), errors


def test_only_on_edms_path():
    path = VPPath()
    model = Denoiser(lambda x, t: x, path)
    message = f"model must be on an EDMPath, as on_path(model, EDMPath(...)) is, got one on {path}"
    for sample in (heun_sample, dpm_solver_sample):
        with refuses(message):
            sample(model, (2, 1), steps=2)


def test_states_and_calls():
    seen = []

    def net(x, t):
        seen.append(t[0].item())
        return torch.zeros_like(x)

    model = Denoiser(net, PATH, predicts="x0")
    times = karras_times(4, sigma_min=0.002, sigma_max=80.0)
    for sample, options, calls in (
        (heun_sample, {}, [0, 1, 1, 2, 2, 3, 3]),
        (heun_sample, {"solver": "euler"}, [0, 1, 2, 3]),
        (dpm_solver_sample, {}, [0, 1, 2, 3]),
        (dpm_solver_sample, {"order": 1}, [0, 1, 2, 3]),
    ):
        seen.clear()
        states = list(sample(model, (3, 2), steps=4, generator=seeded(), **options))
        assert len(states) == 5
        assert seen == pytest.approx([times[i] for i in calls])
        assert torch.equal(states[0], 80 * torch.randn(3, 2, generator=seeded()))
        assert torch.equal(states[-1], torch.zeros(3, 2))
        assert torch.equal(last(sample(model, (3, 2), steps=1, **options)), torch.zeros(3, 2))


# --- one step ----------------------------------------------------------------------------------


def test_fresh_noise_adds_its_variance():
    x, noise = torch.zeros(4, 2).double(), randn(4, 2)
    torch.testing.assert_close(churn_step(x, sigma=3.0, up=5.0, noise=noise), 4 * noise)
    assert torch.equal(churn_step(noise, sigma=3.0, up=3.0, noise=noise), noise)


def test_how_far_levels_are_raised():
    sigmas = [40.0, 10.0, 2.0, 0.5]
    assert churn_levels(sigmas, churn=0.8) == pytest.approx([48.0, 12.0, 2.4, 0.6])
    root = 2**0.5
    most = [40 * root, 10 * root, 2 * root, 0.5 * root]
    assert churn_levels(sigmas, churn=100.0) == pytest.approx(most)
    assert churn_levels(sigmas, churn=0.0) == sigmas
    between = churn_levels(sigmas, churn=0.8, s_min=2.0, s_max=10.0)
    assert between == pytest.approx([40.0, 12.0, 2.4, 0.5])
    assert churn_levels(sigmas, churn=0.8, limit=45.0) == pytest.approx([45.0, 12.0, 2.4, 0.6])
    assert churn_levels(sigmas, churn=0.8, limit=9.0) == pytest.approx([40.0, 10.0, 2.4, 0.6])


def test_the_step_is_exact_while_the_guess_stays():
    """The law of the straight way: x − x_0 shrinks as σ does. It is DDIM's step as well."""
    x, x_0 = randn(4, 2), randn(4, 2, seed=1)
    got = dpm_solver_step(x, x_0, sigma=4.0, then=1.0)
    torch.testing.assert_close(got - x_0, (x - x_0) / 4)
    torch.testing.assert_close(got, ddim_step(x, x_0, now=(1.0, 4.0), then=(1.0, 1.0)))
    half = dpm_solver_step(x, x_0, sigma=4.0, then=2.0)
    torch.testing.assert_close(dpm_solver_step(half, x_0, sigma=2.0, then=1.0), got)
    assert torch.equal(dpm_solver_step(x, x_0, sigma=4.0, then=0.0), x_0)


def test_the_guess_half_way_down_the_next_step():
    """A guess that is a straight line in log σ is continued exactly."""
    c, d = randn(4, 2), randn(4, 2, seed=1)
    line = lambda sigma: c + d * math.log(sigma)  # noqa: E731
    got = extrapolated_guess(line(2.0), line(6.0), sigmas=(6.0, 2.0, 0.5))
    torch.testing.assert_close(got, line((2.0 * 0.5) ** 0.5))


def test_a_guess_that_is_a_line_in_log_sigma_is_followed_well():
    """X' = x_0(σ): two steps of order 2 are nearer to the solution than two of order 1."""
    model = Denoiser(lambda x, t: t.log()[:, None] + 0 * x, EDMPath(1.0, 4.0), predicts="x0")
    z, errors = torch.full((1, 1), 9.0), []
    for order in (1, 2):
        x = list(dpm_solver_sample(model, (1, 1), steps=9, order=order, z=z))[-2].item()
        # (x / σ)' = −log σ / σ², so that x / σ = (log σ + 1) / σ + constant
        solution = 1 + 9 / 4 - (math.log(4) + 1) / 4
        errors.append(abs(x - solution))
    assert errors[1] < errors[0] / 4


# --- whole ways --------------------------------------------------------------------------------


def test_order_1_is_eulers_method():
    model, z = ideal(), 80 * randn(5, 2)
    ours = list(dpm_solver_sample(model, z.shape, steps=9, order=1, z=z))
    euler = list(heun_sample(model, z.shape, steps=9, solver="euler", z=z))
    for one, other in zip(ours, euler, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def naive_heun(D, x, sigmas, noise, churn, s_min, s_max, s_noise):
    """Algorithm 2 of the paper, line by line, in double precision."""
    steps = len(sigmas)
    for i, (t, then) in enumerate(pairwise([*sigmas, 0.0])):
        gamma = min(churn / steps, 2**0.5 - 1) if s_min <= t <= s_max else 0.0
        t_hat = t + gamma * t
        x_hat = x + (t_hat**2 - t**2) ** 0.5 * s_noise * noise[i]
        d = (x_hat - D(x_hat, t_hat)) / t_hat
        x = x_hat + (then - t_hat) * d
        if then:
            d_then = (x - D(x, then)) / then
            x = x_hat + (then - t_hat) * (d / 2 + d_then / 2)
    return x


@pytest.mark.parametrize("churn", [0.0, 3.0, 100.0])
def test_it_is_algorithm_2(churn):
    model, z = ideal(), 80 * randn(3, 2)
    sigmas = karras_times(10, sigma_min=0.002, sigma_max=80.0, rho=5.0)
    options = {"churn": churn, "s_min": 0.05, "s_max": 50.0, "s_noise": 1.1}
    fresh, generator = [], seeded(7)
    for sigma in sigmas:
        drawn = churn and 0.05 <= sigma <= 50
        fresh.append(torch.randn(3, 2, generator=generator).double() if drawn else 0.0)
    model.noise = lambda shape, generator: torch.randn(shape, generator=generator).double()
    got = last(heun_sample(model, z.shape, steps=10, rho=5.0, z=z, generator=seeded(7), **options))
    D = lambda x, sigma: model.predict(x, sigma, target="x0")  # noqa: E731
    expected = naive_heun(D, z, sigmas, fresh, *options.values())
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def naive_2m(D, x, sigmas):
    """DPM-Solver++(2M) in λ = −log σ, as in the paper's algorithm 2 with α = 1."""
    lam = [-math.log(sigma) for sigma in sigmas]
    before = None
    for i, (t, then) in enumerate(pairwise(sigmas)):
        guess = D(x, t)
        D_i = guess
        if before is not None:
            r = (lam[i] - lam[i - 1]) / (lam[i + 1] - lam[i])
            D_i = (1 + 1 / (2 * r)) * guess - 1 / (2 * r) * before
        x = then / t * x - (math.exp(-(lam[i + 1] - lam[i])) - 1) * D_i
        before = guess
    return D(x, sigmas[-1])


def test_it_is_dpm_solver():
    model, z = ideal(), 80 * randn(3, 2)
    D = lambda x, sigma: model.predict(x, sigma, target="x0")  # noqa: E731
    for rho in (1.0, 7.0):
        got = last(dpm_solver_sample(model, z.shape, steps=9, rho=rho, z=z))
        sigmas = karras_times(9, sigma_min=0.002, sigma_max=80.0, rho=rho)
        torch.testing.assert_close(got, naive_2m(D, z, sigmas), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"churn": 8.0}, {"churn": 1e9}])
def test_samples_have_the_law_of_the_data(options):
    """Fresh noise on the way leaves the marginals as they are, when steps are many."""
    model = exact(GAUSSIAN)
    states = list(heun_sample(model, (3000, 2), steps=60, generator=seeded(5), **options))
    check_law(states[-1], GAUSSIAN)
    sigmas = karras_times(60, sigma_min=0.002, sigma_max=80.0)
    for k in (20, 40):
        check_law(states[k], GAUSSIAN.noised(1.0, sigmas[k]))


def test_churn_forgets_the_first_noise():
    """With the most there is the ends know nothing of the start; without any, all."""
    model, z = exact(GAUSSIAN), 80 * randn(2000, 2)
    for churn, low, high in ((0.0, 0.5, 1.0), (1e9, -0.1, 0.1)):
        x = last(heun_sample(model, z.shape, steps=40, churn=churn, z=z, generator=seeded(1)))
        pairs = torch.stack([z[:, 0], x[:, 0]])
        assert low < torch.corrcoef(pairs)[0, 1].item() < high


def test_too_much_noise_shows_and_too_little_does_as_well():
    model, found = exact(GAUSSIAN), {}
    for s_noise in (0.9, 1.0, 1.1):
        x = last(
            heun_sample(model, (2000, 2), steps=40, churn=1e9, s_noise=s_noise, generator=seeded(2))
        )
        found[s_noise] = x.T.cov().trace().item()
    assert found[0.9] < found[1.0] < found[1.1]
    assert found[1.0] == pytest.approx(GAUSSIAN.cov.trace().item(), rel=0.1)


def test_few_steps_are_enough_for_a_mixture():
    model = exact(MIXTURE)
    mean = sum(w * part.mean for w, part in zip(MIXTURE.weights, MIXTURE.parts, strict=True))
    for sample in (heun_sample, dpm_solver_sample):
        x = last(sample(model, (3000, 2), steps=20, generator=seeded(4)))
        check_mean(x, mean)
        assert (x[:, 0] < -0.5).double().mean().item() == pytest.approx(0.26, abs=0.05)


@pytest.mark.parametrize("sample", [heun_sample, dpm_solver_sample])
def test_clip_cuts_off_the_guesses(sample):
    """Of a network of eps as of one of x_0; the samples are guesses, so that they lie inside."""
    for predicts, value in (("x0", 3.0), ("eps", 0.0)):
        said = lambda x, t, value=value: value + 0 * x  # noqa: E731
        model = Denoiser(said, EDMPath(0.1, 80.0), predicts=predicts)
        z = torch.full((2, 1), 5.0)
        clipped = list(sample(model, (2, 1), steps=3, clip=1.0, z=z))
        assert torch.equal(clipped[-1], torch.ones(2, 1))
        constant = Denoiser(lambda x, t: 1 + 0 * x, EDMPath(0.1, 80.0), predicts="x0")
        for one, other in zip(clipped, sample(constant, (2, 1), steps=3, z=z), strict=True):
            torch.testing.assert_close(one, other)
        wide = last(sample(model, (2, 1), steps=3, clip=100.0, z=z))
        assert torch.equal(wide, last(sample(model, (2, 1), steps=3, z=z)))
        assert wide.max() > 2


@pytest.mark.parametrize("sample", [heun_sample, dpm_solver_sample])
def test_labels_and_noise_are_as_given(sample):
    y, seen = torch.tensor([2, 0, 1]), []

    def net(x, t, y):
        seen.append(y)
        return torch.zeros_like(x)

    model = EDM(net, sigma_data=1.0)
    last(sample(model, (3, 2), steps=3, y=y))
    assert len(seen) >= 3
    assert all(labels is y for labels in seen)
    z = torch.randn(3, 2)
    assert torch.equal(next(sample(model, (3, 2), steps=3, y=y, z=z)), z)
    x = last(sample(model, (3, 2), steps=3, y=y, z=z.requires_grad_()))
    assert not x.requires_grad


def test_fresh_noise_comes_from_the_generator():
    model = EDM(TimeMLP(2, [8]), sigma_data=1.0)
    ends = [
        last(heun_sample(model, (2, 2), steps=4, churn=2.0, generator=seeded(seed)))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(ends[0], ends[1])
    assert not torch.allclose(ends[0], ends[2])


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [heun_sample, dpm_solver_sample])
def test_bad_arguments_are_named(sample):
    model = EDM(TimeMLP(2, [8]), sigma_data=1.0)
    with refuses("model must be a Denoiser, got Linear"):
        sample(torch.nn.Linear(2, 2), (3, 2), steps=2)
    for steps in (0, -1, 2.0, True):
        with refuses(f"steps must be an integer of at least 1, got {steps!r}"):
            sample(model, (3, 2), steps=steps)
    for rho in (0, -7.0, math.nan):
        with refuses(f"rho must be a finite number above 0, got {rho!r}"):
            sample(model, (3, 2), steps=2, rho=rho)
    with refuses("shape must be (n, 2) for this network, got (3, 3)"):
        sample(model, (3, 3), steps=2)
    with refuses("clip must be a finite number above 0, got 0"):
        sample(model, (3, 2), steps=2, clip=0)
    with refuses("z must have shape [3, 2], got [2, 2]"):
        sample(model, (3, 2), steps=2, z=torch.zeros(2, 2))
    with refuses("generator must be a torch.Generator or None, got 1"):
        sample(model, (3, 2), steps=2, generator=1)


def test_bad_options_are_named():
    model = EDM(TimeMLP(2, [8]), sigma_data=1.0)
    for options, message in (
        ({"solver": "rk4"}, "solver must be one of euler, heun, got 'rk4'"),
        ({"churn": -0.1}, "churn must be a finite number of at least 0, got -0.1"),
        ({"churn": math.inf}, "churn must be a finite number of at least 0, got inf"),
        ({"s_min": -1.0}, "s_min must be a finite number of at least 0, got -1.0"),
        ({"s_min": 2.0, "s_max": 1.0}, "s_max must be a finite number of at least 2.0, got 1.0"),
        ({"s_max": math.nan}, "s_max must be a finite number of at least 0.0, got nan"),
        ({"s_noise": -1.0}, "s_noise must be a finite number of at least 0, got -1.0"),
    ):
        with refuses(message):
            heun_sample(model, (3, 2), steps=2, **options)
    for order in (0, 3, 1.0):
        with refuses(f"order must be an integer from 1 to 2, got {order!r}"):
            dpm_solver_sample(model, (3, 2), steps=2, order=order)


def test_bad_steps_are_named():
    x = torch.zeros(2, 2)
    with refuses("up must be a finite number of at least 2.0, got 1.0"):
        churn_step(x, sigma=2.0, up=1.0, noise=x)
    with refuses("sigma must be a finite number of at least 0, got -1.0"):
        churn_step(x, sigma=-1.0, up=1.0, noise=x)
    with refuses("noise must have shape [2, 2], got [2, 1]"):
        churn_step(x, sigma=1.0, up=2.0, noise=x[:, :1])
    with refuses("x must be finite, got NaN or infinite values"):
        churn_step(x / 0, sigma=1.0, up=2.0, noise=x)
    with refuses("churn must be a finite number of at least 0, got -1"):
        churn_levels([1.0], churn=-1)
    with refuses("sigma must be a finite number above 0, got 0"):
        dpm_solver_step(x, x, sigma=0, then=0.0)
    with refuses("then must be a finite number of at least 0, got -1.0"):
        dpm_solver_step(x, x, sigma=1.0, then=-1.0)
    with refuses("x_0 must have shape [2, 2], got [1, 2]"):
        dpm_solver_step(x, x[:1], sigma=1.0, then=0.0)
    with refuses("x_0 must be finite, got NaN or infinite values"):
        extrapolated_guess(x / 0, x, sigmas=(3.0, 2.0, 1.0))
    with refuses("before must have shape [2, 2], got [1, 2]"):
        extrapolated_guess(x, x[:1], sigmas=(3.0, 2.0, 1.0))
    for sigmas in ((1.0, 2.0, 0.5), (3.0, 2.0, 2.0), (2.0, 2.0, 1.0), (2.0, 1.0, 0.0)):
        with refuses(f"sigmas must be three falling noise levels above 0, got {sigmas}"):
            extrapolated_guess(x, x, sigmas=sigmas)


@pytest.mark.parametrize("sample", [heun_sample, dpm_solver_sample])
def test_a_network_that_fails_is_named_with_its_level(sample):
    model = Denoiser(lambda x, t: x / (t[:, None] > 5), PATH, predicts="x0")
    with pytest.raises(PredictionError, match=r"net's output must be finite.*\(at t = [0-4]"):
        last(sample(model, (1, 1), steps=9))
    narrow = Denoiser(lambda x, t: x[:, :1], PATH, predicts="x0")
    with pytest.raises(PredictionError, match=r"net's output must have shape \[3, 2\], got"):
        last(sample(narrow, (3, 2), steps=2))


def test_a_state_that_is_not_finite_is_named_with_its_level():
    large = Denoiser(lambda x, t: -3e38 * x.sign(), EDMPath(0.002, 0.004), predicts="x0")
    z = torch.full((1, 1), 3e38)
    message = "the solver must keep the state finite, got NaN or infinite values at t = 0.002"
    with refuses(message, SolverError):
        last(heun_sample(large, (1, 1), steps=2, z=z, solver="euler"))
    turning = Denoiser(lambda x, t: 3e38 * torch.sign(t - 9)[:, None] + 0 * x, PATH, predicts="x0")
    with refuses(message, SolverError):
        last(dpm_solver_sample(turning, (1, 1), steps=4, z=z / 3e38))
