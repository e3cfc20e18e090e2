"""The recipes of chapters 10 and 11: EDM on the digits and MNIST, and the ladder up to it."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from course_lib.data import load_digits, load_mnist, quantize
from course_lib.diffusion import (
    DDPM,
    EDM,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Denoiser,
    DiscreteSchedule,
    EDMPath,
    GaussianPath,
    StraightPath,
    VPPath,
    ddim_sample,
    dpm_solver_sample,
    euler_maruyama,
    heun_sample,
    ode_sample,
    on_path,
    predictor_corrector,
)
from course_lib.nn import UNet
from course_lib.training.batches import DIGIT_LEVELS, digits_batch, mnist_batch
from course_lib.training.checkpoints import load_pretrained
from course_lib.training.quality import N_SAMPLES, conditional_quality, feature_distance
from course_lib.training.recipes import Recipe, register
from course_lib.training.recipes_sde import States, calls_metrics, samples

# The root of the mean square of the training images' numbers, in [−1, 1] and as training moves
# them. The mean is not taken off: preconditioning is about the size of what the network sees.
DIGITS_SIGMA, MNIST_SIGMA = 0.86, 0.96
DROP = 0.1  # Ho & Salimans 2022, table 1: 0.1 and 0.2 are as good as each other


def seen_from(path: GaussianPath, states: States, **options) -> States:
    """A sampler of a model that is first seen from another path."""
    return lambda model, shape, **more: states(on_path(model, path), shape, **options, **more)


# Every sampler of the course on one model, and how often a step asks the network. Heun's last step
# asks only once.
VP, STRAIGHT = VPPath(), StraightPath()
SAMPLERS: dict[str, tuple[int, States]] = {
    "DDPM": (1, seen_from(VP, ddim_sample, eta=1.0)),
    "DDIM": (1, seen_from(VP, ddim_sample)),
    "Euler-Maruyama": (1, seen_from(VP, euler_maruyama)),
    "predictor-corrector": (2, seen_from(VP, predictor_corrector)),
    "Euler": (1, seen_from(STRAIGHT, ode_sample)),
    "Heun": (2, seen_from(STRAIGHT, ode_sample, solver="heun")),
    "RK4": (4, seen_from(STRAIGHT, ode_sample, solver="rk4")),
    "Euler, Karras times": (1, partial(heun_sample, solver="euler")),
    "Heun, Karras times": (2, heun_sample),
    "Heun with churn": (2, partial(heun_sample, churn=10.0)),
    "DPM-Solver++(2M)": (1, dpm_solver_sample),
}
CALLS = {name: (5, 10, 20, 36, 100) for name in SAMPLERS}


# --- the ladder from DDPM to EDM -----------------------------------------------------------------

LADDER_STEPS, SEEDS = 18, range(3)  # 18 steps of Heun are 35 calls, as in the paper


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


def rungs(model: Denoiser, seed: int) -> dict[str, list]:
    """The feature distances of a model of the ladder, at 35 calls: DDPM's by all four samplers."""
    calls = 2 * LADDER_STEPS - 1
    if not isinstance(model, DDPM):
        name = "EDM's loss" if type(model) is EDM else "preconditioning"
        ways = {name: (model, partial(heun_sample, steps=LADDER_STEPS))}
    else:
        seen = on_path(model, EDMPath())
        ways = {
            "DDPM": (model, partial(ddim_sample, eta=1.0, steps=calls)),
            "no noise on the way (DDIM)": (model, partial(ddim_sample, steps=calls)),
            "EDM's path and times": (seen, partial(heun_sample, solver="euler", steps=calls)),
            "Heun's steps": (seen, partial(heun_sample, steps=LADDER_STEPS)),
        }
    rows = []
    for step, (seen, states) in ways.items():
        images = quantize(samples(seen, states), DIGIT_LEVELS)
        rows.append({"step": step, "seed": seed, "distance": feature_distance(images, "digits")})
    return {"ladder": rows}


# --- guidance ------------------------------------------------------------------------------------

SCALES = {
    "digits": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0),
    "mnist": (0.0, 1.0, 2.0, 4.0, 8.0),
}
INTERVALS = ((0.0, 0.3), (0.3, 3.0), (3.0, math.inf), (0.3, math.inf), (0.0, math.inf))
INTERVAL_SCALE, STEPS = 4.0, {"digits": 20, "mnist": 12}  # of DPM-Solver++


def guided_quality(model: Denoiser, data: str) -> dict[str, float]:
    """``conditional_quality`` of samples whose classes come in turn."""
    images = samples(model, dpm_solver_sample, n_classes=10, steps=STEPS[data])
    return conditional_quality(images, torch.arange(N_SAMPLES) % 10, data)


def guidance_metrics(model: EDM, data: str) -> dict[str, list]:
    """Both ways of guidance by scale, and intervals of noise levels in which it is used."""
    classifier = load_pretrained(f"classifier_noised_{data}")
    ways = {
        "free": partial(ClassifierFreeGuidance, model),
        "classifier": partial(ClassifierGuidance, model, classifier),
    }
    rows = [
        {"way": way, "scale": scale, **guided_quality(guided(scale), data)}
        for way, guided in ways.items()
        for scale in SCALES[data]
    ]
    intervals = []
    for low, high in INTERVALS:
        guided = ClassifierFreeGuidance(model, INTERVAL_SCALE, interval=(low, high))
        ends = {"low": low, "high": min(high, model.path.t_max)}
        intervals.append({"scale": INTERVAL_SCALE, **ends, **guided_quality(guided, data)})
    return {"guidance": rows, "interval": intervals}


# --- the recipes ---------------------------------------------------------------------------------

DIGITS_OPTIONS = {"steps": 5000, "batch_size": 128, "lr": 2e-3, "ema": 0.998}
DIGITS_DATA = 'load_digits("train"), 1,438 images, jittered, grey; tested on the other 359'


def digits_net(widths: Sequence[int] = (24, 48), **options) -> UNet:
    """A U-Net for the digits, by default of the size of chapter 06's, told times from 0 to 1."""
    return UNet((1, 8, 8), widths=widths, scale=1000.0, **options)


register(
    Recipe(
        name="edm_digits",
        summary="EDM, U-Net, on the digits",
        data=DIGITS_DATA,
        build=lambda: EDM(digits_net(), sigma_data=DIGITS_SIGMA),
        load=lambda: load_digits("train")[0],
        transform=digits_batch("signed"),
        options=DIGITS_OPTIONS,
        evaluate=lambda model: calls_metrics(model, "digits", CALLS, samplers=SAMPLERS),
    )
)
register(
    Recipe(
        name="edm_digits_classes",
        summary="EDM, U-Net, given the class of nine in ten, on the digits",
        data=DIGITS_DATA.replace("images", "images and labels"),
        build=lambda: EDM(
            digits_net(n_classes=10, null_class=True), sigma_data=DIGITS_SIGMA, drop=DROP
        ),
        load=lambda: load_digits("train"),
        transform=digits_batch("signed"),
        options=DIGITS_OPTIONS,
        evaluate=lambda model: guidance_metrics(model, "digits"),
    )
)
register(
    Recipe(
        name="edm_mnist",
        summary="EDM, U-Net, given the class of nine in ten, on MNIST",
        data='load_mnist("train"), 60,000 images and labels; tested on the 10,000 test images',
        build=lambda: EDM(
            UNet((1, 28, 28), widths=(16, 32, 64), n_classes=10, null_class=True, scale=1000.0),
            sigma_data=MNIST_SIGMA,
            drop=DROP,
        ),
        load=lambda: load_mnist("train"),
        transform=mnist_batch("signed"),
        options={"steps": 4000, "batch_size": 64, "lr": 2e-3, "ema": 0.999},
        evaluate=lambda model: (
            calls_metrics(model, "mnist", CALLS, samplers=SAMPLERS)
            | guidance_metrics(model, "mnist")
        ),
    )
)

# Each step of the ladder changes one thing, and three networks say what is chance. They are small
# and trained for a minute or two: it is the differences that count.
SMALL = (16, 32)
LADDER: dict[str, tuple[str, Callable[[], Denoiser]]] = {
    "ddpm": (
        "DDPM, 400 steps of a linear schedule",
        lambda: DDPM(UNet((1, 8, 8), widths=SMALL), DiscreteSchedule.linear(400)),
    ),
    "preconditioned": (
        "EDM's preconditioning under DDPM's loss",
        lambda: PreconditionedDDPM(
            digits_net(SMALL), DiscreteSchedule.linear(400), sigma_data=DIGITS_SIGMA
        ),
    ),
    "edm": ("EDM", lambda: EDM(digits_net(SMALL), sigma_data=DIGITS_SIGMA)),
}
for kind, (summary, build) in LADDER.items():
    for seed in SEEDS:
        register(
            Recipe(
                name=f"ladder_{kind}_{seed}",
                summary=f"{summary}, small U-Net, on the digits, seed {seed}",
                data=DIGITS_DATA,
                build=build,
                load=lambda: load_digits("train")[0],
                transform=digits_batch("signed"),
                options={**DIGITS_OPTIONS, "steps": 1500},
                evaluate=lambda model, seed=seed: rungs(model, seed),
                seed=seed,
            )
        )
