"""The SDE of a path and the ways along it, on data whose every law is known in closed form."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.linalg import solve_banded

from course_lib.diffusion import (
    DDPM,
    Denoiser,
    DiscreteSchedule,
    IdealDenoiser,
    PredictionError,
    StraightPath,
    SubVPPath,
    VEPath,
    VPPath,
    convert,
    corrector_step_size,
    ddim_sample,
    euler_maruyama,
    langevin,
    langevin_step,
    last,
    predict_score,
    predictor_corrector,
    reverse_sde_step,
    sde_forward,
    sde_step,
    sde_times,
)
from tests.diffusion.conftest import (
    EYE,
    GAUSSIAN,
    Circle,
    Gaussian,
    Straight,
    affine,
    check_law,
    check_mean,
    coefficients,
    distance,
    optimal,
    randn,
    refuses,
    seeded,
)

SDES = {
    "VP": VPPath(0.3, 5.0),
    "sub-VP": SubVPPath(0.3, 5.0),
    "VE": VEPath(0.02, 7.0),
    "schedule": DiscreteSchedule.linear(50),
}
each_sde = pytest.mark.parametrize("name", SDES)


def exact(path, times):
    """a, b, f and g at some times, as numbers, by formulas of the tests' own: f = a' / a."""
    a, b, da, db = coefficients(path, torch.tensor(times, dtype=torch.float64))
    f = da / a
    return list(
        zip(*(c.tolist() for c in (a, b, f, (2 * b * db - 2 * f * b**2).sqrt())), strict=False)
    )


def moved(law, A, c, variance):
    return Gaussian(A @ law.mean + c, A @ law.cov @ A.T + variance * EYE)


def ideal(path, centres=((-1.0,), (1.0,)), std=0.3, kind=Denoiser):
    return kind(IdealDenoiser(torch.tensor(centres), path, std=std), path).double()


def slope(steps, errors):
    """By which power of the step's length the errors fall."""
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize("clip", [None, 0.7])
@pytest.mark.parametrize("predicts", ["x0", "v", "score", "velocity"])
@pytest.mark.parametrize("sample", [euler_maruyama, predictor_corrector])
def test_the_states_are_the_same_whatever_the_network_predicts(sample, predicts, clip):
    path, z = SDES["VP"], randn(5, 2)  # times reach the network in single precision

    def states(said):
        model = Denoiser(optimal(GAUSSIAN, path, said), path, predicts=said).double()
        way = sample(model, (5, 2), steps=6, z=z, clip=clip, generator=seeded(3))
        return torch.stack(list(way))

    torch.testing.assert_close(states(predicts), states("eps"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", [None, 0.4])
def test_the_first_step_has_the_score_of_the_clipped_guess(clip):
    """Euler–Maruyama's mean by hand, from the network's own guess: no noise is added at the end."""
    path, z = SDES["VP"], 2 * randn(6, 2)
    model = Denoiser(lambda x, t: x / 4, path, predicts="x0").double()
    t = torch.tensor([path.t_max], dtype=torch.float64)
    a, b, f, g = path.a(t), path.b(t), path.drift(t), path.diffusion(t)
    x, got = euler_maruyama(model, (6, 2), steps=1, z=z, clip=clip)
    guess = x / 4 if clip is None else (x / 4).clamp(-clip, clip)
    assert clip is None or ((guess.abs() == clip).any() and (guess.abs() < clip).any())
    score = (a * guess - x) / b**2
    wanted = x - (f * x - g**2 * score) * (path.t_max - path.t_min)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


def test_the_step_by_hand():
    x, noise = torch.tensor([[2.0], [2.0]]), torch.tensor([[0.5], [-0.5]])
    step = sde_step(x, f=-1.0, g=2.0, dt=0.25, noise=noise)
    assert step.tolist() == [[2.0], [1.0]]  # 2 − 1 · 2 / 4 ± 2 · 0.5 · 0.5


def test_the_reverse_step_by_hand():
    x, score, noise = (torch.tensor([[value]]) for value in (2.0, -3.0, 0.5))
    step = reverse_sde_step(x, score, f=-1.0, g=2.0, dt=0.25, noise=noise)
    # 2 − (−1 · 2 − 4 · (−3)) / 4 + 2 · 0.5 · 0.5
    assert step.item() == pytest.approx(2 - 10 / 4 + 0.5)
    mean = reverse_sde_step(x, score, f=-1.0, g=2.0, dt=0.25)
    assert mean.item() == pytest.approx(-0.5)


# --- the forward SDE ---------------------------------------------------------------------------


@each_sde
def test_times_run_evenly_from_the_noise_to_the_data(name):
    path = SDES[name]
    for steps in (1, 3, 7, 50):
        times = sde_times(path, steps)
        assert len(times) == steps + 1
        assert (times[0], times[-1]) == (path.t_max, path.t_min)
        gaps = torch.tensor(times, dtype=torch.float64).diff()
        torch.testing.assert_close(gaps, torch.full_like(gaps, (path.t_min - path.t_max) / steps))


@each_sde
def test_every_state_of_sde_forward_has_its_law(name):
    path, steps = SDES[name], 5
    x0 = GAUSSIAN.sample(20_000, seeded(7))
    times = sde_times(path, steps)[::-1]
    points = exact(path, times)
    law = GAUSSIAN.noised(*points[0][:2])
    states = sde_forward(path, x0, steps=steps, generator=seeded(1))
    check_law(next(states), law)
    for x, (_, _, f, g), (now, then) in zip(states, points[:-1], pairwise(times), strict=True):
        law = moved(law, (1 + f * (then - now)) * EYE, 0, g**2 * (then - now))
        check_law(x, law)


@each_sde
def test_short_steps_have_the_exact_transition_law(name):
    """From x_s: x_t ~ N(a_t/a_s x_s, b_t² − (a_t/a_s)² b_s²), with an error of order dt."""
    path = SDES[name]
    middle = path.t_min + 0.3 * (path.t_max - path.t_min)
    (a_s, b_s, *_), (a, b, *_) = exact(path, [middle, path.t_max])
    right = a / a_s, math.sqrt(b**2 - (a / a_s * b_s) ** 2)
    errors, counts = [], [40, 80, 160, 320]
    for steps in counts:
        times = torch.linspace(middle, path.t_max, steps + 1, dtype=torch.float64)
        dt = (times[1] - times[0]).item()
        mean, variance = 1.0, 0.0
        for f, g in zip(
            path.drift(times[:-1]).tolist(), path.diffusion(times[:-1]).tolist(), strict=False
        ):
            # The step is linear in the state and in the noise: both factors, read off.
            one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
            shrunk = sde_step(one, f=f, g=g, dt=dt, noise=zero).item()
            fresh = sde_step(zero, f=f, g=g, dt=dt, noise=one).item()
            mean, variance = shrunk * mean, shrunk**2 * variance + fresh**2
        errors.append([abs(mean - right[0]), abs(math.sqrt(variance) - right[1])])
    for error in zip(*errors, strict=False):
        if max(error) > 1e-9:  # VE's mean does not move
            assert 0.85 < slope(counts, error) < 1.25, errors


@each_sde
def test_the_way_starts_with_the_paths_first_noise(name):
    """At t_min there is some already: b(t_min), a little of it but all that the path says."""
    path, x0 = SDES[name], torch.full((20_000, 1), 1.7, dtype=torch.float64)
    x = next(sde_forward(path, x0, steps=3, generator=seeded()))
    a, b, *_ = exact(path, [path.t_min])[0]
    check_mean(x, 1.7 * a)
    assert abs(x.std().item() / b - 1) < 0.03


def test_ornstein_and_uhlenbeck():
    """At a constant rate β: x_t ~ N(e^(−βt/2) x_0, 1 − e^(−βt)), whatever β."""
    path, t = VPPath(3.0, 3.0), torch.tensor([0.2, 0.9], dtype=torch.float64)
    torch.testing.assert_close(path.a(t), (-1.5 * t).exp())
    torch.testing.assert_close(path.b(t) ** 2, 1 - (-3 * t).exp())
    x0 = torch.full((20_000, 1), 2.0, dtype=torch.float64)
    x = last(sde_forward(path, x0, steps=300, generator=seeded()))
    assert abs(x.mean().item() - 2 * math.exp(-1.5)) < 0.03
    assert abs(x.var().item() - (1 - math.exp(-3))) < 0.03


# --- Fokker and Planck -------------------------------------------------------------------------


def smeared(x, a, b, centres=(-1.0, 1.2), std=0.3):
    """The density of x_t = a x_0 + b eps for two clouds on a line."""
    variance = (a * std) ** 2 + b**2
    bells = [torch.exp(-((x - a * m) ** 2) / (2 * variance)) for m in centres]
    return sum(bells) / (len(centres) * (2 * math.pi * variance) ** 0.5)


@pytest.mark.parametrize("name", ["VP", "sub-VP", "VE"])
def test_smearing_solves_fokker_and_planck(name):
    """∂p/∂t = −f ∂(x p)/∂x + ½ g² ∂²p/∂x², both sides by automatic differentiation."""
    path = SDES[name]
    x = torch.linspace(-3, 3, 41, dtype=torch.float64)
    x, t = (v.flatten().requires_grad_() for v in torch.meshgrid(x, x / 10 + 0.5, indexing="ij"))
    p = smeared(x, path.a(t), path.b(t))

    def derivative(y, v):
        return torch.autograd.grad(y.sum(), v, create_graph=True)[0]

    f, g = path.drift(t).detach(), path.diffusion(t).detach()
    right = -f * derivative(x * p, x) + g**2 / 2 * derivative(derivative(p, x), x)
    torch.testing.assert_close(derivative(p, t), right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("path", "width"),
    [(VPPath(0.3, 5.0), 6), (SubVPPath(0.3, 5.0), 6), (VEPath(0.1, 3.0), 16)],
    ids=["VP", "sub-VP", "VE"],
)
def test_fokker_and_planck_on_a_grid(path, width):
    """Solved step by step (Crank and Nicolson) the density is the smeared one, and stays one."""
    x = torch.linspace(-width, width, 801, dtype=torch.float64)
    dx, n = (x[1] - x[0]).item(), 400
    times = torch.linspace(path.t_min, path.t_max, n + 1, dtype=torch.float64)
    dt = (times[1] - times[0]).item()
    middles = (times[1:] + times[:-1]) / 2
    p = smeared(x, *(c(times[0]) for c in (path.a, path.b))).numpy()
    grid = x.numpy()
    for k, (f, g) in enumerate(
        zip(path.drift(middles).tolist(), path.diffusion(middles).tolist(), strict=False)
    ):
        spread, pull = g**2 / (2 * dx**2), f * grid / (2 * dx)
        # (L p)_i = spread (p_{i+1} − 2 p_i + p_{i−1}) − pull_{i+1} p_{i+1} + pull_{i−1} p_{i−1}
        bands = np.array([spread - pull, np.full_like(grid, -2 * spread), spread + pull]) * dt / 2
        explicit = p * (1 + bands[1])
        explicit[:-1] += bands[0][1:] * p[1:]
        explicit[1:] += bands[2][:-1] * p[:-1]
        implicit = -bands
        implicit[1] += 1
        p = solve_banded((1, 1), implicit, explicit)
        if (k + 1) % 100 == 0:
            t = times[k + 1]
            right = smeared(x, path.a(t), path.b(t)).numpy()
            assert abs(p - right).max() < 3e-3 * right.max()
            assert abs(p.sum() * dx - 1) < 1e-4


# --- the reverse SDE ---------------------------------------------------------------------------


@pytest.mark.parametrize("denoise", [True, False])
@each_sde
def test_every_state_of_euler_maruyama_has_its_law(name, denoise):
    """Of Gaussian data the score is −C⁻¹ (x − a m), so that every state is Gaussian again."""
    path, steps = SDES[name], 6
    model = Denoiser(optimal(GAUSSIAN, path), path).double()
    states = euler_maruyama(model, (20_000, 2), steps=steps, denoise=denoise, generator=seeded(1))
    times = sde_times(path, steps)
    points = exact(path, times)
    law = Gaussian((0, 0), points[0][1] ** 2 * EYE)
    if name == "schedule":
        law = Gaussian((0, 0), EYE)
    check_law(next(states), law)
    for i, (x, (a, b, f, g)) in enumerate(zip(states, points[:-1], strict=True)):
        dt, noised = times[i] - times[i + 1], GAUSSIAN.noised(a, b)
        pull = g**2 * dt * torch.linalg.inv(noised.cov)
        fresh = 0 if denoise and i == steps - 1 else g**2 * dt
        law = moved(law, (1 - f * dt) * EYE - pull, pull @ noised.mean, fresh)
        check_law(x, law)


@each_sde
def test_the_reverse_sde_has_the_forward_ones_joint_law(name):
    """Marginals at every time, and Cov(x_s, x_t) = a_t/a_s Cov(x_s) for s < t: order 1 in dt."""
    path, counts = SDES[name], [60, 180]
    model = Denoiser(optimal(GAUSSIAN, path), path).double()
    marginals, joints = [], []
    for steps in counts:
        times = sde_times(path, steps)
        points = exact(path, times)
        law = GAUSSIAN.noised(*points[0][:2])  # the truth, not the sampler's start
        quarter = steps // 4
        cross, off, apart = None, [0.0], [0.0]
        for i in range(steps):
            a, _b, f, g = points[i]
            if i == quarter:
                a_t, cross = a, law.cov
            now, dt = times[i], times[i] - times[i + 1]

            def step(x, now=now, f=f, g=g, dt=dt):
                return reverse_sde_step(x, predict_score(model, x, now), f=f, g=g, dt=dt)

            A, c = affine(step)
            law = moved(law, A, c, g**2 * dt)
            right = GAUSSIAN.noised(*points[i + 1][:2])
            off.append(distance(law, right).clamp(min=0).sqrt().item())
            if cross is not None:
                cross = A @ cross
                apart.append((cross - a_t / points[i + 1][0] * right.cov).abs().max().item())
        marginals.append(max(off))
        joints.append(max(apart))
    for errors in (marginals, joints):
        assert 0.8 < slope(counts, errors) < 1.3, errors
        assert errors[-1] < 0.1, errors


@pytest.mark.parametrize("name", ["VP", "sub-VP", "VE"])
def test_a_mixture_keeps_its_joint_law_on_the_way_back(name):
    """The law at four times; how often the clouds are changed; what an ODE makes of it."""
    path, n, steps = SDES[name], 8000, 160
    model = ideal(path)
    start = exact(path, [path.t_max])[0]
    cloud = torch.tensor([[-1.0], [1.0]]).double().repeat(n // 2, 1)
    x0 = cloud + 0.3 * randn(n, 1)
    z = start[0] * x0 + start[1] * randn(n, 1, seed=1)
    times = sde_times(path, steps)
    by_sde = list(euler_maruyama(model, z.shape, steps=steps, z=z, generator=seeded(2)))
    kept = [40, 80, 120, 160]
    for k in kept:
        a, b, *_ = exact(path, [times[k]])[0]
        width = math.sqrt((a * 0.3) ** 2 + b**2)
        x = by_sde[k].flatten().sort().values
        law = sum(torch.special.ndtr((x - a * m) / width) for m in (-1, 1)) / 2
        assert (law - torch.linspace(0, 1, n)).abs().max() < 1.9 / math.sqrt(n) + 0.008

    # x_t late, x_s early. Forwards: x_t = a_t/a_s x_s + noise of variance b_t² − (a_t/a_s b_s)².
    (a_t, b_t, *_), (a_s, b_s, *_) = exact(path, [times[40], times[-1]])
    ratio = a_t / a_s
    early = a_s * x0 + b_s * randn(n, 1, seed=3)
    late = ratio * early + math.sqrt(b_t**2 - (ratio * b_s) ** 2) * randn(n, 1, seed=4)
    check_mean(by_sde[40] * by_sde[160] - late * early, 0.0)
    changed = ((late > 0) != (early > 0)).double()
    by_sde_changed = ((by_sde[40] > 0) != (by_sde[160] > 0)).double()
    check_mean(by_sde_changed - changed, 0.0)

    by_ode = list(ddim_sample(model, z.shape, steps=steps, z=z))
    by_ode_changed = ((by_ode[40] > 0) != (by_ode[160] > 0)).double()
    assert changed.mean() > 0.05
    assert by_ode_changed.mean() < 0.1 * changed.mean()


# --- orders ------------------------------------------------------------------------------------


class Replayed(Denoiser):
    """Draws its noise from a list."""

    def noise(self, shape, generator):
        return self.given.pop(0)


@pytest.mark.parametrize("name", ["VP", "sub-VP", "VE"])
def test_euler_maruyama_has_strong_order_1(name):
    """The same Brownian path in coarse steps and in fine ones: g does not depend on x."""
    path, finest, counts = SDES[name], 1024, [16, 32, 64, 128]
    model = ideal(path, std=0.5, kind=Replayed)
    noise, z = randn(finest, 200, 1), path.start_std * randn(200, 1, seed=1)
    ends = {}
    for steps in [*counts, finest]:
        together = finest // steps
        summed = noise.reshape(steps, together, 200, 1).sum(1) / together**0.5
        model.given = list(summed)
        ends[steps] = last(euler_maruyama(model, z.shape, steps=steps, z=z, denoise=False))
    errors = [(ends[steps] - ends[finest]).square().mean().sqrt().item() for steps in counts]
    assert 0.85 < slope(counts, errors) < 1.35, errors


@each_sde
def test_euler_maruyama_has_weak_order_1(name):
    """The second moment half-way, exactly: no sampling error hides the slope."""
    path, counts = SDES[name], [100, 200, 400, 800]
    errors = []
    for steps in counts:
        times = sde_times(path, steps)
        a, b, *_ = exact(path, [path.t_max])[0]
        variance = a**2 * 0.25 + b**2  # of data N(0, 0.25)
        half = times[: steps // 2 + 1]
        for (a, b, f, g), (now, then) in zip(exact(path, half[:-1]), pairwise(half), strict=True):
            one, dt = torch.ones(1, 1).double(), now - then
            score = -one / (a**2 * 0.25 + b**2)
            shrunk = reverse_sde_step(one, score, f=f, g=g, dt=dt, noise=0 * one).item()
            fresh = reverse_sde_step(0 * one, 0 * one, f=f, g=g, dt=dt, noise=one).item()
            variance = shrunk**2 * variance + fresh**2
        a, b, *_ = exact(path, half[-1:])[0]
        errors.append(abs(variance - a**2 * 0.25 - b**2))
    assert 0.85 < slope(counts, errors) < 1.2, errors


# --- DDPM's limit ------------------------------------------------------------------------------


def test_ddpms_rates_become_vps():
    """T β and ᾱ of T steps against β(t) and a² of VP: order 1 in 1 / T."""
    path, counts = VPPath(), [100, 400, 1600, 6400]
    errors = []
    for T in counts:
        schedule = DiscreteSchedule.linear(T)
        t = torch.arange(1, T + 1, dtype=torch.float64) / T
        rates = (T * schedule.betas - path.beta(t)).abs().max().item()
        left = (schedule.alpha_bars.double() - path.a(t) ** 2).abs().max().item()
        # The schedule counts time in steps.
        inside = torch.arange(T - 1, dtype=torch.float64) + 0.5
        f = (T * schedule.drift(inside) - path.drift((inside + 1) / T)).abs().max().item()
        g = (T**0.5 * schedule.diffusion(inside) - path.diffusion((inside + 1) / T)).abs()
        errors.append([rates, left, f, g.max().item()])
    for error in zip(*errors, strict=False):
        assert 0.9 < slope(counts, error) < 1.1, errors


@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_the_ancestral_step_becomes_the_euler_maruyama_step(variance):
    """Their difference falls as 1/T² where the step is of length 1/T; the noise agrees, too."""
    path, counts, gaps, ratios = VPPath(), [200, 400, 800, 1600], [], []
    x, where = randn(50, 2), 0.4
    for T in counts:
        schedule = DiscreteSchedule.linear(T)
        ddpm = DDPM(optimal(GAUSSIAN, schedule), schedule, variance=variance).double()
        mean, drawn = ddpm.reverse(x, round(where * T) - 1)
        t = torch.tensor(where, dtype=torch.float64)
        a, b = path.a(t), path.b(t)
        noised = GAUSSIAN.noised(a, b)
        score = -(x - noised.mean) @ torch.linalg.inv(noised.cov)
        f, g = path.drift(t).item(), path.diffusion(t).item()
        step = reverse_sde_step(x, score, f=f, g=g, dt=1 / T)
        gaps.append((mean - step).abs().max().item())
        ratios.append(abs(drawn.max().item() * T / g**2 - 1))
    assert 1.8 < slope(counts, gaps) < 2.2, gaps
    assert 0.8 < slope(counts, ratios) < 1.2, ratios


def test_a_checkpoint_of_ddpm_is_sampled_unchanged():
    """A DDPM's times are whole in training; between them they are fractions."""
    schedule = DiscreteSchedule.linear(200)
    model = DDPM(optimal(GAUSSIAN, schedule), schedule).double()
    for states in (
        euler_maruyama(model, (4000, 2), steps=330, generator=seeded()),
        predictor_corrector(model, (4000, 2), steps=165, generator=seeded()),
    ):
        x = last(states)
        assert distance(Gaussian(x.mean(0), x.T.cov()), GAUSSIAN).sqrt() < 0.08


# --- Langevin ----------------------------------------------------------------------------------


def test_langevins_bias_at_a_finite_step():
    """For N(0, σ²) the chain's own law has the variance τ σ² / (1 − h / (2 σ²)), not τ σ²."""
    for sigma, h, temperature in ((1.0, 0.2, 1.0), (1.0, 1.3, 1.0), (0.5, 0.2, 1.0), (2, 1.5, 0.5)):
        variance = temperature * sigma**2 / (1 - h / (2 * sigma**2))
        x = math.sqrt(variance) * randn(20_000, 1)
        options = {"step_size": h, "temperature": temperature, "steps": 3}
        for y in langevin(lambda x, v=sigma**2: -x / v, x, generator=seeded(1), **options):
            check_mean(y**2, variance)
    # By its map alone: x → (1 − h / σ²) x + √(2 h τ) ξ.
    one = torch.ones(1, 1).double()
    shrunk = langevin_step(one, -one / 4, step_size=0.3, noise=0 * one)
    fresh = langevin_step(0 * one, 0 * one, step_size=0.3, noise=one, temperature=0.5)
    assert shrunk.item() == pytest.approx(1 - 0.3 / 4)
    assert fresh.item() == pytest.approx(math.sqrt(0.3))


def test_langevin_finds_a_density_from_its_score():
    """Two overlapping clouds, started in one of them."""
    centres = torch.tensor([[-1.0], [1.0]]).double()

    def score(x):
        shares = torch.softmax(-((x - centres.T) ** 2) / (2 * 0.5), dim=1)
        return (shares @ centres - x) / 0.5

    start = torch.full((6000, 1), 1.0).double()
    *_, x = langevin(score, start, step_size=0.025, steps=400, generator=seeded())
    check_mean(x, 0.0)
    assert abs(x.var().item() - 1.5) < 0.12


def test_langevin_that_explodes_says_when():
    with pytest.raises(PredictionError, match=r"score's output must be finite.*after \d+ steps"):
        last(langevin(lambda x: -x, torch.ones(3, 1), step_size=50.0, steps=500))
    with refuses(
        "score's output must have shape [3, 2], got [3, 1] (after 0 steps)", PredictionError
    ):
        last(langevin(lambda x: x[:, :1], torch.ones(3, 2), step_size=0.1, steps=2))


def test_without_temperature_it_only_climbs():
    x = randn(4, 2)
    states = list(langevin(lambda x: -x, x, step_size=0.25, steps=3, temperature=0.0))
    for k, state in enumerate(states):
        torch.testing.assert_close(state, 0.75**k * x)


# --- predictor and corrector -------------------------------------------------------------------


def test_the_correctors_step():
    score, noise = randn(5, 2, 3), randn(5, 2, 3, seed=1)
    h = corrector_step_size(score, noise, snr=0.2)
    uphill = langevin_step(0 * score, score, step_size=h, noise=0 * noise)
    drawn = langevin_step(0 * score, 0 * score, step_size=h, noise=noise)
    lengths = [v.flatten(1).norm(dim=1).mean() for v in (uphill, drawn)]
    torch.testing.assert_close(lengths[0], 0.2 * lengths[1])


def test_the_correctors_step_is_a_number_of_mean_lengths():
    noise, score = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[0.0, 6.0], [8.0, 0.0]])
    h = corrector_step_size(score, noise, snr=0.5)
    assert isinstance(h, float)
    assert h == pytest.approx(2 * (0.5 * 3 / 7) ** 2)


def test_without_corrector_it_is_euler_maruyama():
    model = ideal(VPPath())
    plain = euler_maruyama(model, (6, 1), steps=9, generator=seeded())
    corrected = predictor_corrector(model, (6, 1), steps=9, corrector_steps=0, generator=seeded())
    for x, y in zip(plain, corrected, strict=True):
        assert torch.equal(x, y)


def test_what_a_corrector_does_unasked():
    """One step of it with a signal-to-noise ratio of 0.16, as in the paper, and a noiseless end."""
    model, z = ideal(VPPath()), randn(6, 1)
    said = {"corrector_steps": 1, "snr": 0.16, "denoise": True}
    unasked, asked = (
        last(predictor_corrector(model, (6, 1), steps=4, z=z, generator=seeded(), **options))
        for options in ({}, said)
    )
    assert torch.equal(unasked, asked)
    for other in ({"corrector_steps": 2}, {"snr": 0.2}, {"denoise": False}):
        options = {**said, **other}
        x = last(predictor_corrector(model, (6, 1), steps=4, z=z, generator=seeded(), **options))
        assert not torch.equal(unasked, x), other


def test_a_corrector_mends_what_the_predictor_spoils():
    """Few steps of Euler and Maruyama are far too wide at the start; a corrector pulls them in."""
    path = SDES["VP"]
    model = Denoiser(optimal(GAUSSIAN, path), path).double()
    z = 3 * randn(6000, 2)  # a wrong start
    found = {}
    for corrector_steps in (0, 1, 4):
        options = {"steps": 20, "corrector_steps": corrector_steps, "snr": 0.16}
        x = last(predictor_corrector(model, z.shape, z=z, generator=seeded(), **options))
        found[corrector_steps] = distance(Gaussian(x.mean(0), x.T.cov()), GAUSSIAN).sqrt().item()
    assert found[4] < found[1] < found[0]
    assert found[4] < 0.12


def test_a_corrector_asks_at_the_time_of_its_state():
    """Its steps leave the law of their time alone: in fine steps PC is right at every time."""
    path, steps = SDES["VP"], 150
    model = Denoiser(optimal(GAUSSIAN, path), path).double()
    a, b, *_ = exact(path, [1.0])[0]
    z = GAUSSIAN.noised(a, b).sample(6000, seeded(5))
    states = list(
        predictor_corrector(model, z.shape, z=z, steps=steps, snr=0.05, generator=seeded())
    )
    for k, t in enumerate(sde_times(path, steps)):
        if k % 25 == 0:
            law = GAUSSIAN.noised(*exact(path, [t])[0][:2])
            x = states[k]
            assert distance(Gaussian(x.mean(0), x.T.cov()), law).clamp(min=0).sqrt() < 0.07


@pytest.mark.parametrize("corrector_steps", [0, 1, 3])
def test_calls_are_as_many_as_said(corrector_steps):
    seen = []

    def net(x, t):
        seen.append((t[0].item(), len(t)))
        return x

    model = Denoiser(net, VPPath())
    options = {"steps": 4, "corrector_steps": corrector_steps, "generator": seeded()}
    states = list(predictor_corrector(model, (3, 2), **options))
    assert len(states) == 5
    assert len(seen) == 4 * (1 + corrector_steps)
    wanted = [t for t in sde_times(model.path, 4)[:-1] for _ in range(1 + corrector_steps)]
    assert [t for t, _ in seen] == pytest.approx(wanted)


def test_a_corrector_needs_a_score():
    """A network that says 0 everywhere, as an untrained one may, gives no length to go by."""
    for least in (0.0, 1e-30, 1e-160):  # whose squares are 0, or whose inverse is no number
        model = Denoiser(lambda x, t, least=least: least * torch.ones_like(x), VPPath())
        model = model.double() if least == 1e-160 else model
        states = predictor_corrector(model, (3, 2), steps=4, generator=seeded())
        with refuses("the score must not be 0 everywhere (at t = 1)", PredictionError):
            list(states)


# --- what the samplers share -------------------------------------------------------------------


SAMPLERS = {"euler_maruyama": euler_maruyama, "predictor_corrector": predictor_corrector}
each_sampler = pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS)


@each_sampler
def test_images_classes_and_clipping(sample):
    """Labels reach the network; guesses are cut off; single precision stays."""
    seen = []

    def net(x, t, y):
        seen.append(y)
        return -x

    model = Denoiser(net, VPPath(), predicts="eps")
    y = torch.tensor([3, 1])
    options = {"steps": 3, "y": y, "generator": seeded()}
    states = list(sample(model, (2, 1, 4, 4), clip=1.0, **options))
    assert all(torch.equal(one, y) for one in seen)
    assert all(x.shape == (2, 1, 4, 4) and x.dtype == torch.float32 for x in states)
    # The score of a guess that is cut off at ±1.
    x, t = states[1], sde_times(model.path, 3)[1]
    score = predict_score(model, x, t, y=y, clip=0.5)
    guess = convert(score, source="score", target="x0", x_t=x, t=t, path=model.path)
    wanted = model.predict_x0(x, t, y=y).clamp(-0.5, 0.5)
    torch.testing.assert_close(guess, wanted, rtol=1e-4, atol=1e-4)
    plain = predict_score(model, x, t, y=y)
    torch.testing.assert_close(plain, x / model.path.amounts(t, x)[1])
    assert not torch.equal(last(sample(model, (2, 1, 4, 4), **options)), states[-1])


@each_sampler
def test_the_generator_decides_everything(sample):
    model = ideal(VPPath())
    first, again, other = (
        last(sample(model, (5, 1), steps=4, generator=seeded(seed))) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    z = randn(5, 1)
    assert torch.equal(next(sample(model, (5, 1), steps=4, z=z)), z)
    assert not last(sample(model, (5, 1), steps=4)).requires_grad


def test_nothing_is_differentiated_on_the_way(monkeypatch):
    model = ideal(VPPath())
    states = euler_maruyama(model, (5, 1), steps=4, generator=seeded())
    monkeypatch.setattr(torch.autograd, "grad", None)
    assert len(list(states)) == 5


# --- bad input ---------------------------------------------------------------------------------


BAD = {
    "shape must be that of a batch, (n, *event), got (4,)": {"shape": (4,)},
    "steps must be an integer of at least 1, got 0": {"steps": 0},
    "steps must be an integer of at least 1, got 2.0": {"steps": 2.0},
    "denoise must be True or False, got 1": {"denoise": 1},
    "clip must be a finite number above 0, got 0": {"clip": 0},
    "generator must be a torch.Generator or None, got 3": {"generator": 3},
    "z must have shape [4, 1], got [3, 1]": {"z": torch.zeros(3, 1).double()},
    "model must be a Denoiser, got Linear": {"model": torch.nn.Linear(1, 1)},
}


@each_sampler
@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named_at_the_call(sample, message):
    given = {"model": ideal(VPPath()), "shape": (4, 1), "steps": 3, **BAD[message]}
    with refuses(message):
        sample(given.pop("model"), given.pop("shape"), **given)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("snr must be a finite number above 0, got 0", {"snr": 0}),
        ("snr must be a finite number above 0, got -0.1", {"snr": -0.1}),
        ("corrector_steps must be an integer of at least 0, got -1", {"corrector_steps": -1}),
    ],
)
def test_a_bad_corrector_is_named(message, options):
    with refuses(message):
        predictor_corrector(ideal(VPPath()), (4, 1), steps=3, **options)


class Forgetful(Straight):
    """Its noise shrinks faster than the data: g² < 0."""

    def a(self, t):
        return torch.ones_like(t)

    def b(self, t):
        return 1.1 - t


@pytest.mark.parametrize(
    ("path", "t"),
    [(StraightPath(), 1.0), (Circle(), None), (Forgetful(), 1.0)],
    ids=["straight", "circle", "forgetful"],
)
def test_what_is_no_sde_is_refused(path, t):
    """Infinite at the end, or g² < 0: said at the call, by a time."""
    model = Denoiser(lambda x, t: x, path)
    for sample in SAMPLERS.values():
        if t is None:
            continue
        with pytest.raises(ValueError, match=r"^t must be a time at which"):
            sample(model, (4, 1), steps=3)
    if isinstance(path, Forgetful):
        with pytest.raises(ValueError, match=r"^t must be a time at which"):
            sde_forward(path, torch.zeros(4, 1), steps=3)


def test_bad_input_of_sde_forward_is_named():
    x, path = torch.zeros(4, 1), VPPath()
    with refuses("path must be a GaussianPath, got 'VP'"):
        sde_forward("VP", x, steps=3)
    with refuses("steps must be an integer of at least 1, got 0"):
        sde_forward(path, x, steps=0)
    with refuses("x0 must be finite, got NaN or infinite values"):
        sde_forward(path, x / 0, steps=3)
    with refuses("generator must be a torch.Generator or None, got 1"):
        sde_forward(path, x, steps=3, generator=1)


STEP = {"f": -1.0, "g": 0.5, "dt": 0.1, "noise": torch.zeros(4, 2)}


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("g must be a finite number of at least 0, got -0.5", {"g": -0.5}),
        ("f must be a finite number of at least -inf, got nan", {"f": math.nan}),
        ("dt must be a finite number above 0, got 0", {"dt": 0}),
        ("dt must be a finite number above 0, got -0.1", {"dt": -0.1}),
        ("noise must have shape [4, 2], got [4, 1]", {"noise": torch.zeros(4, 1)}),
        (
            "noise must be torch.float32 like the model, got torch.float64",
            {"noise": torch.zeros(4, 2).double()},
        ),
    ],
)
def test_a_bad_step_is_named(message, changes):
    x = torch.zeros(4, 2)
    with refuses(message):
        sde_step(x, **{**STEP, **changes})
    with refuses(message):
        reverse_sde_step(x, x, **{**STEP, **changes})


def test_other_bad_steps_are_named():
    x = torch.zeros(4, 2)
    with refuses("x must be finite, got NaN or infinite values"):
        sde_step(x / 0, **STEP)
    with refuses("score must have shape [4, 2], got [4]"):
        reverse_sde_step(x, x[:, 0], **STEP)
    with refuses("score must have shape [4, 2], got [4]"):
        langevin_step(x, x[:, 0], step_size=0.1, noise=x)
    with refuses("noise must have shape [4, 2], got [4]"):
        langevin_step(x, x, step_size=0.1, noise=x[:, 0])
    for h in (0, torch.tensor(0.0)):
        with pytest.raises(ValueError, match=r"^step_size must be a finite number above 0"):
            langevin_step(x, x, step_size=h, noise=x)
    with refuses("step_size must have shape [], got [2]"):
        langevin_step(x, x, step_size=torch.ones(2), noise=x)
    with refuses("temperature must be a finite number of at least 0, got -1"):
        langevin_step(x, x, step_size=0.1, noise=x, temperature=-1)
    with refuses("snr must be a finite number above 0, got 0"):
        corrector_step_size(x + 1, x, snr=0)
    with refuses("noise must have shape [4, 2], got [4]"):
        corrector_step_size(x + 1, x[:, 0], snr=0.1)
    with refuses("score must not be 0 everywhere, got nothing else"):
        corrector_step_size(x, x, snr=0.1)
    with refuses("score must not be 0 everywhere, got nothing else"):
        corrector_step_size(x.float() + 1e-30, x.float(), snr=0.1)  # whose squares are 0
    with refuses("t must lie in [0.001, 1.0], got 1.5"):
        predict_score(Denoiser(lambda x, t: x, VPPath()), x, 1.5)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("score must be a function, got 3", {"score": 3}),
        ("x must be a floating-point tensor, got torch.int64", {"x": torch.zeros(4, 1).long()}),
        ("steps must be an integer of at least 1, got 0", {"steps": 0}),
        ("step_size must be a finite number above 0, got 0", {"step_size": 0}),
        ("step_size must be a finite number above 0, got -1", {"step_size": -1}),
        ("temperature must be a finite number of at least 0, got -1", {"temperature": -1}),
        ("generator must be a torch.Generator or None, got 3", {"generator": 3}),
    ],
)
def test_bad_input_of_langevin_is_named(message, options):
    given = {"score": lambda x: -x, "x": torch.zeros(4, 1), "step_size": 0.1, "steps": 2}
    given |= options
    with refuses(message):
        langevin(given.pop("score"), given.pop("x"), **given)
