"""EDM's samplers and preconditioning against diffusers' schedulers, state by state."""

import pytest
import torch

from course_lib.diffusion import (
    Denoiser,
    EDMPath,
    Preconditioned,
    dpm_solver_sample,
    heun_sample,
    karras_times,
)

pytest.importorskip("diffusers", reason="parity needs the test extra: pip install -e .[test]")

from benchmarks.samplers import SCHEDULERS, their_states

SAMPLERS = {
    "Euler": lambda *args, **options: heun_sample(*args, solver="euler", **options),
    "Heun": heun_sample,
    "DPM++ 2M": dpm_solver_sample,
}


def guess(x, sigma):
    """Some D(x; σ)."""
    sigma = sigma.to(x).reshape(-1, 1)
    return (2 * x / (1 + sigma**2) ** 0.5).sin() + 0.3 * (sigma.log() / 4).cos()


def eps(x, sigma):
    return (x - guess(x, sigma)) / sigma.to(x).reshape(-1, 1)


@pytest.mark.parametrize("predicts", ["eps", "x0"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_states_agree(name, predicts):
    """Ends, times and all states, from the same noise."""
    net = guess if predicts == "x0" else eps
    scheduler = SCHEDULERS[name](predicts, steps=12)
    sigmas = scheduler.sigmas.unique().flip(0)[:-1]
    path = EDMPath(sigmas[-1].item(), sigmas[0].item())
    ours = karras_times(12, sigma_min=path.t_min, sigma_max=path.t_max)
    torch.testing.assert_close(torch.tensor(ours), sigmas, rtol=1e-5, atol=0)
    z = path.t_max * torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    states = list(SAMPLERS[name](Denoiser(net, path, predicts=predicts), z.shape, steps=12, z=z))
    theirs = list(their_states(scheduler, net, z))
    assert len(theirs) == len(states) == 13
    for one, other in zip(states, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_preconditioning_agrees():
    """Their scheduler of EDM: what the network gets, and what is made of its answer."""
    from diffusers import EDMEulerScheduler

    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, rho=7.0)
    scheduler.set_timesteps(9)
    raw = lambda u, t: (u + t.reshape(-1, 1)).cos()  # noqa: E731
    model = Preconditioned(raw, 0.5)
    sigmas = karras_times(9, sigma_min=0.002, sigma_max=80.0)
    torch.testing.assert_close(scheduler.sigmas[:-1], torch.tensor(sigmas), rtol=1e-5, atol=0)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for i, sigma in enumerate(sigmas):
        t = scheduler.timesteps[i]
        scaled = scheduler.scale_model_input(x, t)
        guess = scheduler.step(raw(scaled, t), t, x).pred_original_sample
        expected = model(x, torch.full((4,), sigma))
        torch.testing.assert_close(guess, expected, rtol=1e-5, atol=1e-5)
