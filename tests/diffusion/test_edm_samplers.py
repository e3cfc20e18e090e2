"""EDM's samplers: Heun's method with churn, and DPM-Solver++."""

import math
from itertools import pairwise

import pytest
import torch

from course_lib.diffusion import (
    Denoiser,
    EDMPath,
    IdealDenoiser,
    VPPath,
    dpm_solver_sample,
    heun_sample,
    karras_times,
    last,
)
from tests.diffusion.conftest import randn, refuses, seeded

PATH = EDMPath(0.002, 80.0)


def ideal(path=PATH, std=0.4):
    centres = torch.tensor([[-1.0, 0.5], [1.5, -0.5]], dtype=torch.float64)
    return Denoiser(IdealDenoiser(centres, path, std=std), path).double()


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
def test_the_orders_as_measured_slopes(sample, order, options):
    """On a mixture, against a far finer grid; the step to 0 is left out: it is the same for all."""
    model, z = ideal(EDMPath(0.2, 80.0)), 80 * randn(12, 2)
    exact = list(heun_sample(model, z.shape, steps=1281, z=z))[-2]
    counts, errors = (41, 81, 161), []
    for steps in counts:
        x = list(sample(model, z.shape, steps=steps, z=z, **options))[-2]
        errors.append((x - exact).norm().item())
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25), errors


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
