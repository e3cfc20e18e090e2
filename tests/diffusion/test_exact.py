"""Gaussian data, the best network, and the law of every state of a sampler in closed form.

For Gaussian data each step is an affine map and Gaussian noise; so the mean and the covariance of
every state are known exactly: m → A m + c, P → A P Aᵀ + variance · I.
"""

from itertools import pairwise

import pytest
import torch

from course_lib.diffusion import (
    DDPM,
    DiscreteSchedule,
    ddim_invert,
    ddim_sample,
    ddim_step,
    ddim_times,
    ddpm_sample,
    last,
)
from tests.diffusion.conftest import (
    EYE,
    GAUSSIAN,
    MIXTURE,
    Gaussian,
    affine,
    check_law,
    check_mean,
    coefficients,
    distance,
    optimal,
    seeded,
)

NOISE = Gaussian((0.0, 0.0), ((1.0, 0.0), (0.0, 1.0)))


def ddpm(schedule, data=GAUSSIAN, **options):
    return DDPM(optimal(data, schedule), schedule, **options).double()


def moved(law, A, c, variance):
    cov = A @ law.cov @ A.T + variance * EYE
    return Gaussian(A @ law.mean + c, cov)


def ddpm_laws(model, law=NOISE):
    """The law of every state of ``ddpm_sample``, by ``model.reverse`` read off as affine maps."""
    yield law
    for t in reversed(range(len(model.schedule))):
        A, c = affine(lambda x, t=t: model.reverse(x, t)[0])
        variance = model.reverse(torch.zeros(1, 2).double(), t)[1].item() if t else 0.0
        law = moved(law, A, c, variance)
        yield law


def ddim_laws(model, steps, eta, law=NOISE):
    """The law of every state of ``ddim_sample``, by ``ddim_step`` read off as affine maps."""
    yield law
    times = ddim_times(len(model.schedule), steps)
    a, b, *_ = (c.tolist() for c in coefficients(model.schedule, torch.tensor(times)))
    points = [(1.0, 0.0), *zip(a, b, strict=True)]
    for i in reversed(range(steps)):

        def step(x, i=i, noise=0.0):
            return ddim_step(
                x,
                model.predict_x0(x, times[i]),
                now=points[i + 1],
                then=points[i],
                eta=eta,
                noise=noise * torch.ones_like(x),
            )

        A, c = affine(step)
        origin = torch.zeros(1, 2, dtype=torch.float64)
        sigma = (step(origin, noise=1.0) - step(origin))[0, 0]
        law = moved(law, A, c, sigma**2)
        yield law


# --- DDPM --------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 5, 24])
def test_a_step_back_is_bayes_rule(t):
    """Its mean is E[x_{t-1} | x_t], found without x_0: both are jointly Gaussian.

    Cov(x_{t-1}, x_t) = sqrt(1 - β) C_{t-1}. The true variance lies above the posterior's, for
    x_0 is not known; what is missing is the spread of the posterior's mean.
    """
    schedule = DiscreteSchedule.linear(25)
    model = ddpm(schedule)
    a, b, *_ = coefficients(schedule, torch.tensor([t - 1, t]))
    before, now = (GAUSSIAN.noised(a[i], b[i]) for i in range(2))
    root = (1 - schedule.betas[t].double()).sqrt()
    A, c = affine(lambda x: model.reverse(x, t)[0])
    expected = root * before.cov @ torch.linalg.inv(now.cov)
    torch.testing.assert_close(A, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(c, before.mean - expected @ now.mean, rtol=1e-9, atol=1e-9)
    true = before.cov - root * expected @ before.cov
    variance = model.reverse(torch.zeros(1, 2).double(), t)[1].item()
    assert (torch.linalg.eigvalsh(true) > variance).all()
    of_x0 = a[0] * schedule.betas[t].double() / b[1] ** 2
    missing = of_x0**2 * GAUSSIAN.left(a[1], b[1])
    torch.testing.assert_close(true - variance * EYE, missing, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_every_state_of_ddpm_has_its_law(variance):
    model = ddpm(DiscreteSchedule.linear(12), variance=variance)
    states = ddpm_sample(model, (10_000, 2), generator=seeded(1))
    for x, law in zip(states, ddpm_laws(model), strict=True):
        check_law(x, law)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ddpm_ends_near_the_data(variance):
    """The more steps the nearer, in about the same proportion (squared distances: its square)."""
    ends = []
    for T in (25, 50, 100, 200):
        *_, law = ddpm_laws(ddpm(DiscreteSchedule.linear(T), variance=variance))
        ends.append(distance(law, GAUSSIAN).sqrt().item())
    assert distance(NOISE, GAUSSIAN).sqrt() > 1
    assert ends[-1] < 0.05
    for coarse, fine in pairwise(ends):
        assert 1.5 < coarse / fine < 3, ends


def test_beta_is_right_for_standard_normal_data():
    """Nothing changes on the way back until the last step, which adds no noise."""
    model = ddpm(DiscreteSchedule.linear(30), NOISE, variance="beta")
    *laws, end = ddpm_laws(model)
    for law in laws:
        torch.testing.assert_close(law.mean, NOISE.mean, rtol=0, atol=1e-9)
        torch.testing.assert_close(law.cov, NOISE.cov, rtol=0, atol=1e-6)
    torch.testing.assert_close(end.cov, (1 - model.schedule.betas[0].double()) * NOISE.cov)
    *_, end = ddpm_laws(ddpm(DiscreteSchedule.linear(30), NOISE, variance="posterior"))
    assert end.cov[0, 0] < 0.95


def test_posterior_is_right_for_a_single_point():
    """From the true end of noising, every state on the way back has the noised data's law."""
    point = Gaussian((0.7, -0.2), ((1e-12, 0.0), (0.0, 1e-12)))
    schedule = DiscreteSchedule.linear(30)
    a, b, *_ = coefficients(schedule, torch.arange(30))
    truth = [point.noised(a[t], b[t]) for t in reversed(range(30))] + [point]
    laws = ddpm_laws(ddpm(schedule, point, variance="posterior"), truth[0])
    for law, right in zip(laws, truth, strict=True):
        torch.testing.assert_close(law.mean, right.mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(law.cov, right.cov, rtol=0, atol=1e-6)
    *laws, _ = ddpm_laws(ddpm(schedule, point, variance="beta"), truth[0])
    assert laws[-1].cov[0, 0] > 1.02 * truth[-2].cov[0, 0]


# --- DDIM --------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_state_of_ddim_has_its_law(eta):
    model = ddpm(DiscreteSchedule.linear(100))
    states = ddim_sample(model, (10_000, 2), steps=8, eta=eta, generator=seeded(1))
    for x, law in zip(states, ddim_laws(model, 8, eta), strict=True):
        check_law(x, law)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_nears_the_data_with_more_steps(eta):
    """Every state nears the noised data at its time, for every eta; started from the truth."""
    schedule = DiscreteSchedule.linear(1000)
    model = ddpm(schedule)
    errors = []
    for steps in (10, 20, 40, 80):
        times = ddim_times(1000, steps)
        a, b, *_ = coefficients(schedule, torch.tensor(times))
        truth = [GAUSSIAN.noised(a[i], b[i]) for i in reversed(range(steps))] + [GAUSSIAN]
        laws = ddim_laws(model, steps, eta, truth[0])
        errors.append(
            max(
                distance(law, right).clamp(min=0).sqrt().item()
                for law, right in zip(laws, truth, strict=True)
            )
        )
    for coarse, fine in pairwise(errors):
        assert 1.6 < coarse / fine < 2.6, errors
    assert errors[-1] < 0.08


def test_the_flow_of_a_gaussian_is_known():
    """Without noise the limit is C_t^½ S^(-½) along the axes of S: each point keeps its place."""
    schedule = DiscreteSchedule.linear(2000)
    model = ddpm(schedule)
    x = GAUSSIAN.sample(20, seeded(3))
    a, b, *_ = (c.item() for c in coefficients(schedule, torch.tensor([1999])))
    values, axes = torch.linalg.eigh(GAUSSIAN.cov)
    stretch = axes @ torch.diag(((a**2 * values + b**2) / values).sqrt()) @ axes.T
    z = a * GAUSSIAN.mean + (x - GAUSSIAN.mean) @ stretch
    errors = {"forth": [], "back": []}
    for steps in (50, 100, 200):
        found = last(ddim_invert(model, x, steps=steps))
        errors["forth"].append((found - z).norm(dim=1).mean().item())
        found = last(ddim_sample(model, (20, 2), steps=steps, z=z))
        errors["back"].append((found - x).norm(dim=1).mean().item())
    for way in errors.values():
        assert way[-1] < 0.03
        for coarse, fine in pairwise(way):
            assert 1.6 < coarse / fine < 2.6, errors


# --- a mixture ---------------------------------------------------------------------------------


def test_a_mixture_comes_back_with_its_shares():
    """Moments and the shares of both modes, by DDPM and by DDIM."""
    schedule = DiscreteSchedule.linear(200)
    model = ddpm(schedule, MIXTURE)
    for x in (
        last(ddpm_sample(model, (3000, 2), generator=seeded(1))),
        last(ddim_sample(model, (3000, 2), steps=100, generator=seeded(2))),
    ):
        means = torch.stack([part.mean for part in MIXTURE.parts])
        nearest = torch.cdist(x, means).argmin(1)
        check_mean((nearest == 0).double(), 0.25, limit=4)
        for k, part in enumerate(MIXTURE.parts):
            mine = x[nearest == k]
            assert distance(Gaussian(mine.mean(0), mine.T.cov()), part) < 0.02
