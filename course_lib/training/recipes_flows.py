"""The recipes of chapters 04 and 05: NICE, RealNVP and Glow on toys, the digits and MNIST."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from course_lib.data import dequantize, load_digits, load_mnist, quantize, toy
from course_lib.flows import NICE, Flow, Glow, RealNVP
from course_lib.metrics import bits_per_dim
from course_lib.training.batches import DIGIT_LEVELS, MNIST_LEVELS, digits_batch, mnist_batch
from course_lib.training.quality import N_SAMPLES, sample_quality
from course_lib.training.recipes import Recipe, register

N_TOY = 50_000


def toy_points(name: str, seed: int) -> Tensor:
    """``[N_TOY, 2]`` points of a toy."""
    return toy(name, N_TOY, generator=torch.Generator().manual_seed(seed))


def toy_log_likelihood(model: Flow, name: str) -> dict[str, float]:
    """Mean log-likelihood of fresh points, in nats."""
    with torch.no_grad():
        return {
            "test log-likelihood (nats)": model.log_prob(toy_points(name, seed=1)).mean().item()
        }


def image_log_likelihood(model: Flow, images: Tensor, levels: int) -> dict[str, float]:
    """Mean log-likelihood of images in the model's shape, each with ten draws of the noise.

    Also its standard error over the images, and the bits per dimension that it comes to.
    """
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        draws = [
            torch.cat(
                [model.log_prob(x) for x in dequantize(images, levels, generator=noise).split(500)]
            )
            for _ in range(10)
        ]
    log_prob = torch.stack(draws).mean(dim=0)
    dim = images[0].numel()
    return {
        "test log-likelihood (nats)": log_prob.mean().item(),
        "standard error (nats)": (log_prob.std() / len(log_prob) ** 0.5).item(),
        "bits per dimension": bits_per_dim(log_prob.mean(), dim, levels).item(),
    }


def image_metrics(model: Flow, images: Tensor, levels: int) -> dict[str, float]:
    """``image_log_likelihood``, and how far samples are from the test images."""
    likelihood = image_log_likelihood(model, images, levels)
    x = model.sample(N_SAMPLES, generator=torch.Generator().manual_seed(3))
    side = int(x[0].numel() ** 0.5)
    grey = quantize(x.clamp(0, 1).reshape(-1, 1, side, side), levels)
    return likelihood | sample_quality(grey, "digits" if levels == DIGIT_LEVELS else "mnist")


def measure_data(model: NICE, x: Tensor, *, levels: int) -> None:
    """Let the model's first transform take mean and spread from dequantized images."""
    model.transforms[0].measure(dequantize(x, levels, generator=torch.Generator().manual_seed(2)))


def start_actnorm(model: Flow, x: Tensor, *, levels: int) -> None:
    """Let every ActNorm of the model set itself to the first 500 dequantized images.

    It happens before training, so that each of several processes starts with the same numbers.
    """
    with torch.no_grad():
        model.train()(dequantize(x[:500], levels, generator=torch.Generator().manual_seed(2)))


def nice_toy(name: str) -> Recipe:
    """NICE on one of the 2-D toys."""
    return Recipe(
        name=f"nice_{name}",
        summary=f"NICE, 8 couplings, on the 2-D toy {name}",
        data=f'toy("{name}"), {N_TOY:,} points, seed 0; tested on as many, seed 1',
        build=lambda: NICE(2, couplings=8, hidden=(64, 64), prior="gaussian"),
        load=lambda: toy_points(name, seed=0),
        options={"steps": 4000, "batch_size": 512, "lr": 3e-3, "ema": 0.995},
        evaluate=lambda model: toy_log_likelihood(model, name),
    )


def realnvp_toy(name: str) -> Recipe:
    """RealNVP on one of the 2-D toys, with as many couplings and steps as ``nice_toy``."""
    return replace(
        nice_toy(name),
        name=f"realnvp_{name}",
        summary=f"RealNVP, 8 couplings, on the 2-D toy {name}",
        build=lambda: RealNVP(2, couplings=8, hidden=(64, 64)),
    )


for make in (nice_toy, realnvp_toy):
    register(make("two_moons"))
    register(make("pinwheel"))

register(
    Recipe(
        name="nice_digits",
        summary="NICE, 8 couplings, on the 8x8 digits",
        data='load_digits("train"), 1,438 images, jittered; tested on the other 359',
        build=lambda: NICE(64, couplings=8, hidden=(128, 128), standardize=True),
        load=lambda: load_digits("train")[0].flatten(1),
        prepare=partial(measure_data, levels=DIGIT_LEVELS),
        transform=digits_batch("dequantized"),
        options={
            "steps": 6000,
            "batch_size": 128,
            "lr": 2e-3,
            "weight_decay": 0.3,
            "clip": 10.0,
            "ema": 0.998,
        },
        evaluate=lambda model: image_metrics(
            model, load_digits("test")[0].flatten(1), DIGIT_LEVELS
        ),
    )
)

register(
    Recipe(
        name="nice_mnist",
        summary="NICE, 4 couplings, on MNIST",
        data='load_mnist("train"), 60,000 images, dequantized; tested on the 10,000 test images',
        build=lambda: NICE(784, hidden=(400, 400), standardize=True),
        load=lambda: load_mnist("train")[0].flatten(1),
        prepare=partial(measure_data, levels=MNIST_LEVELS),
        transform=mnist_batch("dequantized"),
        options={
            "steps": 30_000,
            "batch_size": 128,
            "lr": 2e-3,
            "weight_decay": 0.05,
            "clip": 100.0,
            "ema": 0.999,
        },
        evaluate=lambda model: image_metrics(model, load_mnist("test")[0].flatten(1), MNIST_LEVELS),
    )
)


def register_image_flow(name: str, summary: str, build: Callable[[], Flow], *, steps: int) -> None:
    """Register a flow on whole images, on MNIST or on the digits, as the name says."""
    mnist = "mnist" in name
    load = load_mnist if mnist else load_digits
    levels = MNIST_LEVELS if mnist else DIGIT_LEVELS
    register(
        Recipe(
            name=name,
            summary=summary,
            data='load_mnist("train"), 60,000 images, dequantized; tested on the 10,000 test images'
            if mnist
            else 'load_digits("train"), 1,438 images, jittered; tested on the other 359',
            build=build,
            load=lambda: load("train")[0],
            prepare=partial(start_actnorm, levels=levels),
            transform=(mnist_batch if mnist else digits_batch)("dequantized"),
            options={
                "steps": steps,
                "batch_size": 64 if mnist else 128,
                "lr": 2e-3,
                "weight_decay": 0.0 if mnist else 0.1,
                "clip": 50.0,
                "ema": 0.999 if mnist else 0.998,
            },
            evaluate=lambda model: image_metrics(model, load("test")[0], levels),
        )
    )


register_image_flow(
    "glow_mnist",
    "Glow, 2 levels of 8 steps, on MNIST",
    lambda: Glow((1, 28, 28), levels=2, depth=8, hidden=64, logit=1e-6),
    steps=10_000,
)
register_image_flow(
    "realnvp_mnist",
    "RealNVP, 3 scales, on MNIST",
    lambda: RealNVP((1, 28, 28), levels=3, hidden=(32, 32), logit=1e-6),
    steps=10_000,
)
register_image_flow(
    "realnvp_digits",
    "RealNVP, 2 scales, on the 8x8 digits",
    lambda: RealNVP((1, 8, 8), levels=2, hidden=(32, 32), logit=1e-3),
    steps=4000,
)
register_image_flow(
    "glow_digits",
    "Glow, 2 levels of 6 steps, on the 8x8 digits",
    lambda: Glow((1, 8, 8), levels=2, depth=6, hidden=32, logit=1e-3),
    steps=4000,
)
for mixing in ("reverse", "shuffle"):
    register_image_flow(
        f"glow_digits_{mixing}",
        f"The network of glow_digits with its channels mixed by {mixing}, on the 8x8 digits",
        lambda mixing=mixing: Glow(
            (1, 8, 8), levels=2, depth=6, hidden=32, mixing=mixing, logit=1e-3
        ),
        steps=4000,
    )
