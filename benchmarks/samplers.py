"""EDM's samplers and guidance here beside diffusers' schedulers and k-diffusion's samplers.

All sides hold the same network, which predicts eps at noise levels σ, and start from the same
noise; they take turns within one run, and what is compared is the median of many repetitions.

- Euler, Heun and DPM-Solver++(2M) at Karras' noise levels: the states are compared first, to
  ``CLOSE`` (``tests/parity`` does so in more ways), then the time of a step. k-diffusion is left
  out where it is not installed; its samplers alone are imported, its package wants far more.
- A step under guidance by the model's own opinion, one call of a batch that is twice as large:
  at most ``GUIDED`` times a step without, and ``GUIDING`` more than a step of such a batch.
- A step of a model that is seen from another path, against bare calls of its network: what is
  beyond, at most ``SLACK``, is for checks, the match and the step itself.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    SchedulerMixin,
)
from torch import Tensor, nn

from benchmarks._timing import milliseconds, report
from benchmarks.ode import calls, randomized
from course_lib.diffusion import (
    DDPM,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Denoiser,
    DiscreteSchedule,
    EDMPath,
    NoisedClassifier,
    dpm_solver_sample,
    heun_sample,
    last,
    on_path,
)
from course_lib.nn import UNet

STEPS = 12
CLOSE = 1e-5
GUIDED = 2.1
GUIDING = 0.1  # of a step of few small images, half of which are checks
SLACK = 0.05
PREDICTION_TYPES = {"eps": "epsilon", "x0": "sample"}  # in diffusers' words

# ------------------------------------------------------------------------------------ diffusers


def scheduler(kind: type[SchedulerMixin], predicts: str, *, steps: int) -> SchedulerMixin:
    """Diffusers' own with Karras' noise levels between those of DDPM's first and last step."""
    options = {"use_karras_sigmas": True, "prediction_type": PREDICTION_TYPES[predicts]}
    made = kind(1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **options)
    made.set_timesteps(steps)
    return made


SCHEDULERS = {
    "Euler": partial(scheduler, EulerDiscreteScheduler),
    "Heun": partial(scheduler, HeunDiscreteScheduler),
    "DPM++ 2M": partial(scheduler, DPMSolverMultistepScheduler),
}


def their_states(made: SchedulerMixin, net: Callable, z: Tensor) -> Iterator[Tensor]:
    """The states of a scheduler from ``z`` on, on EDM's path: x_0 + σ eps.

    DPM-Solver++ keeps x_t / sqrt(1 + σ²), as DDPM does; the network sees x_t itself here. Heun's
    scheduler takes a step in two parts, of which the first ends in no state.
    """
    shrunk = isinstance(made, DPMSolverMultistepScheduler)
    halves = isinstance(made, HeunDiscreteScheduler)
    size = (1 + made.sigmas**2).sqrt() if shrunk else torch.ones_like(made.sigmas)
    made.is_scale_input_called = True  # the network does without
    x = z / size[0]
    yield z
    for i, t in enumerate(made.timesteps):
        sigma = made.sigmas[i].expand(len(z))
        x = made.step(net(x * size[i], sigma), t, x).prev_sample
        if not halves or i % 2 == 1 or i == len(made.timesteps) - 1:
            yield x * size[i + 1]


# ---------------------------------------------------------------------------------- k-diffusion


def k_diffusion() -> types.ModuleType:
    """k-diffusion's ``sampling`` alone: its package imports clip, wandb and more."""
    package = importlib.util.find_spec("k_diffusion")
    if package is None:
        raise ModuleNotFoundError("k_diffusion")
    parent = types.ModuleType("k_diffusion")
    parent.__path__ = [str(Path(package.origin).parent)]
    parent.utils = types.ModuleType("k_diffusion.utils")  # of which sampling uses this:
    parent.utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    sys.modules |= {"k_diffusion": parent, "k_diffusion.utils": parent.utils}
    return importlib.import_module("k_diffusion.sampling")


NAMES = {"Euler": "sample_euler", "Heun": "sample_heun", "DPM++ 2M": "sample_dpmpp_2m"}


def their_samples(
    sample: Callable, levels: Callable, net: Callable, z: Tensor, ends: tuple[float, float]
) -> Tensor:
    """What one of k-diffusion's samplers makes of ``z``; its model is D(x; σ).

    As on the other sides, to know the noise levels between the ``ends`` is a part of it.
    """
    sigmas = levels(STEPS, *ends)
    guess = lambda x, sigma: x - sigma.reshape(-1, *[1] * (x.ndim - 1)) * net(x, sigma)  # noqa: E731
    return sample(guess, z, sigmas, disable=True)


# ------------------------------------------------------------------------------- the comparisons

SAMPLERS = {
    "Euler": partial(heun_sample, solver="euler"),
    "Heun": heun_sample,
    "DPM++ 2M": dpm_solver_sample,
}
SIZES = (((1, 8, 8), (32, 64), 1), ((1, 8, 8), (32, 64), 16), ((1, 28, 28), (16, 32, 64), 1))


@torch.no_grad()
def samplers() -> bool:
    """States and time of each sampler; whether they agree and ours is as fast."""
    good = True
    try:
        k_samplers = k_diffusion()
    except ModuleNotFoundError:
        k_samplers = None
        print("samplers: k-diffusion is not installed; it is left out")
    for shape, widths, n in SIZES:
        net = randomized(UNet(shape, widths=widths)).eval()
        for name, sample in SAMPLERS.items():
            made = SCHEDULERS[name]("eps", steps=STEPS)
            sigmas = made.sigmas.unique().flip(0)
            model = Denoiser(net, EDMPath(sigmas[-2].item(), sigmas[0].item()))
            z = model.path.start_std * torch.randn(n, *shape)

            def ours(sample: Callable = sample, model: Denoiser = model, z: Tensor = z) -> Tensor:
                return last(sample(model, z.shape, steps=STEPS, z=z))

            def theirs(made: SchedulerMixin = made, net: nn.Module = net, z: Tensor = z) -> Tensor:
                made.set_timesteps(STEPS)
                return last(their_states(made, net, z))

            sides = {"ours": ours, "diffusers": theirs}
            if k_samplers is not None:
                theirs_too = getattr(k_samplers, NAMES[name]), k_samplers.get_sigmas_karras
                ends = model.path.t_min, model.path.t_max
                sides["k-diffusion"] = partial(their_samples, *theirs_too, net, z, ends)
            what = f"UNet({shape}, widths={widths}), batch {n}, {STEPS} steps of {name}"
            good &= agree(what, {side: run() for side, run in sides.items()})
            medians = milliseconds(sides, repetitions={1: 45, 16: 30}[n], warm_up=2)
            good &= report(what, medians)
    return good


def agree(what: str, ends: dict[str, Tensor]) -> bool:
    """Print how far others' samples are from ours; whether all are as close as they should be."""
    away = {
        side: ((x - ends["ours"]).abs().max() / ends["ours"].abs().max()).item()
        for side, x in ends.items()
        if side != "ours"
    }
    print(f"{what}: " + ", ".join(f"{side} within {gap:.1e}" for side, gap in away.items()))
    return max(away.values()) < CLOSE


@torch.no_grad()
def guidance() -> bool:
    """Steps with and without guidance; what a guided one costs in calls of the network.

    Guidance by a model's own opinion: at most ``GUIDED`` times a step without, and no more than one
    with a batch that is twice as large. A classifier's is reported; it depends on its size.
    """
    good = True
    for shape, widths in (((1, 8, 8), (32, 64)), ((1, 28, 28), (16, 32, 64))):
        net = randomized(UNet(shape, widths=widths, n_classes=10, null_class=True)).eval()
        model, classifier = Denoiser(net, EDMPath()), NoisedClassifier(shape, width=16)
        for n in (1, 16, 64):
            y = torch.arange(n) % 10
            sides = {
                side: heun_sample(some, (len(labels), *shape), steps=1000, solver="euler", y=labels)
                for side, some, labels in (
                    ("ours", ClassifierFreeGuidance(model, 2.0), y),
                    ("unguided", model, y),
                    ("twice", model, torch.cat([y, y])),
                    ("classifier", ClassifierGuidance(model, classifier, 2.0), y),
                )
            }
            for side in sides.values():
                next(side)  # the noise
            steps = {name: side.__next__ for name, side in sides.items()}
            medians = milliseconds(steps, repetitions={1: 100, 16: 30, 64: 12}[n], warm_up=3)
            what = f"UNet({shape}, widths={widths}), batch {n}, a guided step and others"
            report(what, medians)
            good &= medians["ours"] <= GUIDED * medians["unguided"]
            good &= medians["ours"] <= (1 + GUIDING) * medians["twice"]
    return good


@torch.no_grad()
def other_paths() -> bool:
    """A step on another path against bare calls; whether it adds little."""
    good = True
    for shape, widths in (((1, 8, 8), (32, 64)), ((1, 28, 28), (16, 32, 64))):
        net = randomized(UNet(shape, widths=widths)).eval()
        model = on_path(DDPM(net, DiscreteSchedule.linear(1000)), EDMPath())
        for n in (1, 16):
            batch = (n, *shape)
            network = calls(net, batch, STEPS)
            sides = {
                "ours": partial(
                    lambda *args: last(dpm_solver_sample(*args, steps=STEPS)), model, batch
                ),
                "network": network.__next__,
            }
            medians = milliseconds(sides, repetitions={1: 30, 16: 8}[n], warm_up=2)
            what = f"UNet({shape}, widths={widths}), batch {n}, {STEPS} steps elsewhere and calls"
            good &= report(what, medians, slack=SLACK)
    return good


def main() -> int:
    """Run all; 1 where states differ, ours is slower than a peer, or a step adds too much."""
    torch.manual_seed(0)
    results = [part() for part in (samplers, guidance, other_paths)]
    return 0 if all(results) else 1
