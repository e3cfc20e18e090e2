"""The recipes of chapter 08: score models in continuous time, on the digits."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from course_lib.data import dequantize, load_digits, quantize, to_signed, to_unit
from course_lib.diffusion import (
    Denoiser,
    GaussianPath,
    ScaledInput,
    SubVPPath,
    VEPath,
    VPPath,
    ddim_sample,
    euler_maruyama,
    last,
    ode_log_prob,
    ode_sample,
    predictor_corrector,
)
from course_lib.metrics import bits_per_dim
from course_lib.nn import UNet
from course_lib.training.batches import DIGIT_LEVELS, MNIST_LEVELS, digits_batch
from course_lib.training.quality import N_SAMPLES, feature_distance
from course_lib.training.recipes import Recipe, register

LEVELS = {"digits": DIGIT_LEVELS, "mnist": MNIST_LEVELS}

States = Callable[..., Iterator[Tensor]]

# How often a step of each sampler asks the network.
SAMPLERS: dict[str, tuple[int, States]] = {
    "Euler-Maruyama": (1, euler_maruyama),
    "predictor-corrector": (2, predictor_corrector),
    "DDIM": (1, ddim_sample),
    "Euler": (1, ode_sample),
    "Heun": (2, partial(ode_sample, solver="heun")),
    "RK4": (4, partial(ode_sample, solver="rk4")),
}


def samples(model: Denoiser, states: States, *, n_classes: int | None = None, **options) -> Tensor:
    """``N_SAMPLES`` images in [0, 1], by a sampler, from one seed; classes come in turn."""
    classes = None if n_classes is None else torch.arange(N_SAMPLES) % n_classes
    noise, images = torch.Generator().manual_seed(0), []
    for i in torch.arange(N_SAMPLES).split(100):
        shape = (len(i), *model.net.event_shape)
        y = None if classes is None else classes[i]
        images.append(last(states(model, shape, y=y, generator=noise, **options)))
    return to_unit(torch.cat(images))


def calls_metrics(
    model: Denoiser,
    data: str,
    calls: dict[str, Sequence[int]],
    *,
    samplers: dict[str, tuple[int, States]] = SAMPLERS,
) -> dict[str, list]:
    """The feature distance of ``samples``, by sampler and by calls of the network."""
    rows = []
    for sampler, numbers in calls.items():
        each, states = samplers[sampler]
        for number in numbers:
            steps = max(number // each, 1)
            images = samples(model, states, n_classes=model.null_class, steps=steps)
            distance = feature_distance(quantize(images, LEVELS[data]), data)
            rows.append({"sampler": sampler, "calls": number, "distance": distance})
    return {"samplers": rows}


def ode_likelihood(model: Denoiser, images: Tensor, data: str) -> dict[str, float]:
    """Mean log-likelihood of dequantized images in [0, 1) by the probability-flow ODE, in nats.

    The noise of dequantization and Hutchinson's signs are drawn once for each image: both leave
    the mean unbiased, and their spread is in the standard error.
    """
    noise, logs = torch.Generator().manual_seed(1), []
    dim, levels = images[0].numel(), LEVELS[data]
    for i in torch.arange(len(images)).split(500):
        x = to_signed(dequantize(images[i], levels, generator=noise))
        options = {"divergence": "hutchinson", "rtol": 1e-4, "atol": 1e-4, "generator": noise}
        logs.append(ode_log_prob(model, x, **options))
    log_prob = torch.cat(logs) + dim * math.log(2)  # [−1, 1) is twice as wide as [0, 1)
    return {
        "test log-likelihood (nats)": log_prob.mean().item(),
        "standard error (nats)": (log_prob.std() / len(log_prob) ** 0.5).item(),
        "bits per dimension": bits_per_dim(log_prob.mean(), dim, levels).item(),
    }


# The largest distance of two digits in [−1, 1]⁶⁴ is 9.6: Song & Ermon 2020, technique 1.
PATHS: dict[str, GaussianPath] = {
    "vp": VPPath(),
    "ve": VEPath(sigma_max=10.0),
    "subvp": SubVPPath(),
}


CALLS = (8, 16, 32, 64, 128)
STOCHASTIC = {"Euler-Maruyama": CALLS, "predictor-corrector": CALLS}
DIGITS_CALLS = {
    "vp": STOCHASTIC | {name: CALLS[:-1] for name in ("DDIM", "Euler", "Heun", "RK4")},
    "ve": STOCHASTIC | {"Heun": CALLS[:-1]},
    "subvp": STOCHASTIC | {"Heun": CALLS[:-1]},
}


def score_model(net: nn.Module, path: GaussianPath) -> Denoiser:
    """A network on a path; where x_t grows along it, the network sees it scaled."""
    return Denoiser(ScaledInput(net, path) if isinstance(path, VEPath) else net, path)


for kind, path in PATHS.items():
    register(
        Recipe(
            name=f"score_digits_{kind}",
            summary=f"score model of {path}, U-Net, on the digits",
            data='load_digits("train"), 1,438 images, jittered, dequantized, in [-1, 1); '
            "tested on the other 359",
            build=lambda path=path: score_model(
                UNet((1, 8, 8), widths=(24, 48), scale=1000.0), path
            ),
            load=lambda: load_digits("train")[0],
            transform=digits_batch("signed dequantized"),
            options={"steps": 5000, "batch_size": 128, "lr": 2e-3, "ema": 0.998},
            evaluate=lambda model, kind=kind: (
                calls_metrics(model, "digits", DIGITS_CALLS[kind])
                | ode_likelihood(model, load_digits("test")[0], "digits")
            ),
        )
    )
