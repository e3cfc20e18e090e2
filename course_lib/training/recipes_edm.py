"""The recipes of chapters 10 and 11: EDM on the digits and MNIST."""

import math
from collections.abc import Sequence
from functools import partial

import torch

from course_lib.data import load_digits, load_mnist
from course_lib.diffusion import (
    EDM,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Denoiser,
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
from course_lib.training.batches import digits_batch, mnist_batch
from course_lib.training.checkpoints import load_pretrained
from course_lib.training.quality import N_SAMPLES, conditional_quality
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
