"""The study of chapter 10: the ladder from DDPM to EDM.

Each step of it changes one thing, and three networks say what is chance. They are small and trained
for a minute or two: it is the differences that count.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from course_lib.data import load_digits, quantize
from course_lib.diffusion import (
    DDPM,
    EDM,
    Denoiser,
    DiscreteSchedule,
    EDMPath,
    ddim_sample,
    heun_sample,
    on_path,
)
from course_lib.nn import UNet
from course_lib.training.batches import DIGIT_LEVELS, digits_batch
from course_lib.training.files import write_atomically
from course_lib.training.fit import fit
from course_lib.training.quality import feature_distance
from course_lib.training.recipes_edm import (
    DIGITS_DATA,
    DIGITS_OPTIONS,
    DIGITS_SIGMA,
    digits_net,
)
from course_lib.training.recipes_sde import samples
from course_lib.training.studies import Study, register_study, started

SAMPLER_STEPS = 18  # of Heun: 35 calls, as in the paper
TRAINING_STEPS, TRAINING_TIME = 1500, 100.0  # the seconds that they take, about
SEEDS = (0, 1, 2)


class PreconditionedDDPM(EDM):
    """EDM's network with DDPM's loss: the noise levels of its times, and the error of eps.

    Karras et al. 2022, table 2, configuration D: all of EDM but what training looks at.

    Args:
        net: F of ``Preconditioned``.
        schedule: DDPM's.
        sigma_data: The size of the data.

    """

    def __init__(self, net: UNet, schedule: DiscreteSchedule, *, sigma_data: float):
        super().__init__(net, sigma_data=sigma_data)
        self.schedule = schedule

    def draw(self, x: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """The noise levels σ = b / a of uniform times, and noise like ``x``."""
        t = self.schedule.draw_times(len(x), generator=generator, device=x.device)
        eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return (self.schedule.b(t) / self.schedule.a(t)).to(x), eps

    def weight(self, sigma: Tensor) -> Tensor:
        """1 / σ²: the squared error of D counts as that of eps."""
        return 1 / sigma**2


SMALL = (16, 32)  # widths of the U-Net
NETWORKS: dict[str, Callable[[], Denoiser]] = {
    "ddpm": lambda: DDPM(UNet((1, 8, 8), widths=SMALL), DiscreteSchedule.linear(400)),
    "preconditioned": lambda: PreconditionedDDPM(
        digits_net(SMALL), DiscreteSchedule.linear(400), sigma_data=DIGITS_SIGMA
    ),
    "edm": lambda: EDM(digits_net(SMALL), sigma_data=DIGITS_SIGMA),
}


def rungs(model: Denoiser, seed: int) -> list[dict]:
    """The feature distances of a model of the ladder, at 35 calls: DDPM's by all four samplers."""
    calls = 2 * SAMPLER_STEPS - 1
    if not isinstance(model, DDPM):
        name = "EDM's loss" if type(model) is EDM else "preconditioning"
        ways = {name: (model, partial(heun_sample, steps=SAMPLER_STEPS))}
    else:
        seen = on_path(model, EDMPath())
        ways = {
            "DDPM": (model, partial(ddim_sample, eta=1.0, steps=calls)),
            "no noise on the way (DDIM)": (model, partial(ddim_sample, steps=calls)),
            "EDM's path and times": (seen, partial(heun_sample, solver="euler", steps=calls)),
            "Heun's steps": (seen, partial(heun_sample, steps=SAMPLER_STEPS)),
        }
    rows = []
    for step, (seen, states) in ways.items():
        images = quantize(samples(seen, states), DIGIT_LEVELS)
        rows.append({"step": step, "seed": seed, "distance": feature_distance(images, "digits")})
    return rows


def ladder(
    folder: Path,
    *,
    networks: Mapping[str, Callable[[], Denoiser]] = NETWORKS,
    seeds: Sequence[int] = SEEDS,
    steps: int = TRAINING_STEPS,
) -> dict[str, float | list[dict]]:
    """The metrics of the study: a network of each kind from each seed, trained alike, and seen."""
    x, rows = load_digits("train")[0], []
    for name, build in networks.items():
        for seed in seeds:
            file = folder / f"{name}-{seed}.json"
            if not file.exists():
                model = started(build, seed)
                fit(
                    model,
                    x,
                    **DIGITS_OPTIONS | {"steps": steps},
                    seed=seed,
                    transform=digits_batch("signed"),
                    checkpoint=file.with_suffix(".safetensors"),
                    progress=False,
                    device="cpu",
                )
                write_atomically(file, json.dumps(rungs(model, seed)).encode())
            rows += json.loads(file.read_text())
    return {"steps of training": steps, "ladder": rows}


register_study(
    Study(
        name="ladder_edm",
        summary="From DDPM to EDM, one change at a time: three small networks of each kind",
        data=DIGITS_DATA,
        budget=TRAINING_TIME,
        seeds=SEEDS,
        run=ladder,
    )
)
