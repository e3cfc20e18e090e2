"""The SDEs and their samplers against torchsde and the score SDE schedulers of diffusers."""

import math
from itertools import pairwise

import pytest
import torch

from course_lib.diffusion import (
    Denoiser,
    IdealDenoiser,
    SubVPPath,
    VEPath,
    VPPath,
    corrector_step_size,
    euler_maruyama,
    langevin_step,
    predict_score,
    reverse_sde_step,
    sde_forward,
    sde_times,
)

pytest.importorskip("torchsde", reason="parity needs the test extra: pip install -e .[test]")
pytest.importorskip("diffusers", reason="parity needs the test extra: pip install -e .[test]")

import torchsde
from diffusers import ScoreSdeVeScheduler
from diffusers.schedulers.deprecated.scheduling_sde_vp import ScoreSdeVpScheduler

EXACT = {"rtol": 1e-9, "atol": 1e-9}
CENTRES = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.3, -1.0]])
PATHS = {"VP": VPPath(), "sub-VP": SubVPPath(), "VE": VEPath(0.01, 5.0)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class SDE(torch.nn.Module):
    """dx = drift(t, x) dt + diffusion(t) dw, as torchsde asks for it."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, drift, diffusion):
        super().__init__()
        self.f = drift
        self.g = lambda t, x: diffusion(t) * torch.ones_like(x)


class Brownian(torchsde.BaseBrownian):
    """A Brownian path made of the noise that our samplers draw from a generator."""

    def __init__(self, times, shape, generator):
        super().__init__()
        self.size = torch.Size(shape)
        draws = torch.randn(len(times) - 1, *shape, generator=generator, dtype=torch.float64)
        roots = torch.tensor([abs(b - a) for a, b in pairwise(times)], dtype=torch.float64).sqrt()
        values = torch.cat([0 * draws[:1], (roots[:, None, None] * draws).cumsum(0)])
        self.times, self.values = torch.tensor(times, dtype=torch.float64), values

    def __call__(self, ta, tb=None, return_U=False, return_A=False):
        at = [(self.times - t).abs().argmin() for t in (ta, tb)]
        return self.values[at[1]] - self.values[at[0]]

    dtype = torch.float64
    device = torch.device("cpu")
    levy_area_approximation = "none"

    def __repr__(self):
        return "Brownian"

    @property
    def shape(self):
        return self.size


@pytest.mark.parametrize("name", PATHS)
def test_the_way_forward_is_torchsdes(name):
    """Euler's method with the same Brownian path, at every time."""
    path, steps = PATHS[name], 25
    x0 = torch.randn(40, 2, generator=seeded(3), dtype=torch.float64)
    ours = list(sde_forward(path, x0, steps=steps, generator=seeded(1)))
    times = sde_times(path, steps)[::-1]
    generator = seeded(1)
    torch.randn(40, 2, generator=generator, dtype=torch.float64)  # that of the first state
    theirs = torchsde.sdeint(
        SDE(lambda t, x: path.drift(t) * x, path.diffusion),
        ours[0],
        torch.tensor(times, dtype=torch.float64),
        bm=Brownian(times, (40, 2), generator),
        method="euler",
        dt=times[1] - times[0],
    )
    torch.testing.assert_close(torch.stack(ours), theirs, **EXACT)


@pytest.mark.parametrize("name", PATHS)
def test_the_way_back_is_torchsdes(name):
    """The reverse SDE in the time that has passed since the noise, u = t_max − t."""
    path, steps = PATHS[name], 25
    model = Denoiser(IdealDenoiser(CENTRES, path, std=0.3), path).double()
    z = path.start_std * torch.randn(40, 2, generator=seeded(3), dtype=torch.float64)
    options = {"steps": steps, "z": z, "denoise": False, "generator": seeded(1)}
    ours = list(euler_maruyama(model, z.shape, **options))
    passed = [path.t_max - t for t in sde_times(path, steps)]

    def back(u, x):
        t = (path.t_max - u).clamp(path.t_min, path.t_max)
        score = predict_score(model, x, t.item())
        return -path.drift(t) * x + path.diffusion(t) ** 2 * score

    theirs = torchsde.sdeint(
        SDE(back, lambda u: path.diffusion((path.t_max - u).clamp(path.t_min, path.t_max))),
        z,
        torch.tensor(passed, dtype=torch.float64),
        bm=Brownian(passed, (40, 2), seeded(1)),
        method="euler",
        dt=passed[1] - passed[0],
    )
    torch.testing.assert_close(torch.stack(ours), theirs, **EXACT)


def test_vps_step_is_diffusers():
    path, steps = VPPath(), 40
    theirs = ScoreSdeVpScheduler(beta_min=0.1, beta_max=20)
    theirs.set_timesteps(steps)
    x, eps = torch.randn(2, 5, 3, 4, 4, generator=seeded(), dtype=torch.float64)
    for t in (1.0, 0.6, 0.05):
        t = torch.tensor(t, dtype=torch.float64)
        after, mean = theirs.step_pred(eps, x, t, generator=seeded(2))
        noise = torch.randn(x.shape, generator=seeded(2), dtype=torch.float64)
        model = Denoiser(lambda x, t: eps, path).double()
        score = predict_score(model, x, t.item())
        rates = {"f": path.drift(t).item(), "g": path.diffusion(t).item(), "dt": 1 / steps}
        torch.testing.assert_close(reverse_sde_step(x, score, **rates), mean, **EXACT)
        step = reverse_sde_step(x, score, noise=noise, **rates)
        torch.testing.assert_close(step, after, **EXACT)


def test_ves_step_is_diffusers_in_the_limit():
    """It takes the whole rise of σ² for g² dt; the two agree up to the square of the step."""
    path, gaps = VEPath(0.01, 50.0), []
    x, score = torch.randn(2, 5, 3, 4, 4, generator=seeded(), dtype=torch.float64)
    for steps in (201, 401, 801):
        theirs = ScoreSdeVeScheduler(sigma_min=0.01, sigma_max=50.0)
        theirs.set_timesteps(steps)
        theirs.set_sigmas(steps)
        theirs.discrete_sigmas = theirs.discrete_sigmas.double()
        index = (steps - 1) // 2
        t = torch.tensor(index / (steps - 1), dtype=torch.float64)
        noise = torch.randn(x.shape, generator=seeded(2), dtype=torch.float64)
        output = theirs.step_pred(score, float(t), x, generator=seeded(2))
        after, mean = output.prev_sample, output.prev_sample_mean
        high, low = (path.b(t - k / (steps - 1)).item() for k in (0, 1))
        rise = {"f": 0.0, "g": math.sqrt(high**2 - low**2), "dt": 1.0}
        close = {"rtol": 1e-5, "atol": 1e-5}  # their σ are in single precision
        torch.testing.assert_close(reverse_sde_step(x, score, **rise), mean, **close)
        torch.testing.assert_close(reverse_sde_step(x, score, noise=noise, **rise), after, **close)
        ours = reverse_sde_step(
            x, score, f=path.drift(t).item(), g=path.diffusion(t).item(), dt=1 / (steps - 1)
        )
        gaps.append((ours - mean).abs().max().item())
    for coarse, fine in pairwise(gaps):
        assert 3.3 < coarse / fine < 4.7, gaps


def test_the_corrector_is_diffusers():
    theirs = ScoreSdeVeScheduler(snr=0.17)
    theirs.set_timesteps(10)
    x, score = torch.randn(2, 5, 3, 4, 4, generator=seeded())
    after = theirs.step_correct(score, x, generator=seeded(2)).prev_sample
    noise = torch.randn(x.shape, generator=seeded(2))
    h = corrector_step_size(score, noise, snr=0.17)
    torch.testing.assert_close(
        langevin_step(x, score, step_size=h, noise=noise), after, rtol=1e-5, atol=1e-5
    )
