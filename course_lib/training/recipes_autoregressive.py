"""The recipes of chapter 01: every model on the digits and on MNIST, in black and white.

MNIST is binarized as in the papers, by a draw from each pixel's grey value; training draws anew in
every step, and the test images are drawn once, from a fixed seed. The 8x8 digits are cut at half of
the grey scale, after a little jitter in training.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.autoregressive import FVSBN, MADE, NADE, NaivePixelCNN, PixelCNN
from course_lib.data import binarize, jitter, load_digits, load_mnist
from course_lib.metrics import bits_per_dim
from course_lib.training.recipes import Recipe, register

DIGIT_LEVELS = 17


def binary_digits(split: str) -> tuple[Tensor, Tensor]:
    """8x8 digits in black and white ``[N, 1, 8, 8]``, and their labels ``[N]``."""
    images, labels = load_digits(split)
    return binarize(images, threshold=0.5), labels


def binary_mnist_test() -> tuple[Tensor, Tensor]:
    """The 10,000 test images ``[N, 1, 28, 28]``, drawn once from a fixed seed; their labels."""
    images, labels = load_mnist("test")
    return binarize(images, generator=torch.Generator().manual_seed(0)), labels


def moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """8x8 digits ``[B, 1, 8, 8]``, seven in ten turned, moved and resized a little.

    There are 1,438 training images only: without the jitter a model learns them by heart.
    """
    as_it_is = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.3
    return torch.where(as_it_is, x, jitter(x, generator=generator))


def digits_batch(x: Tensor, generator: torch.Generator) -> Tensor:
    """Black and white digits of the batch's shape, moved a little."""
    images = moved(x.reshape(-1, 1, 8, 8), generator)
    return binarize(images, threshold=0.5).reshape(x.shape)


def grey_digits_batch(x: Tensor, generator: torch.Generator) -> Tensor:
    """Digits with whole grey values 0 ... 16, moved a little."""
    return (moved(x, generator) * (DIGIT_LEVELS - 1)).round()


def mnist_batch(x: Tensor, generator: torch.Generator) -> Tensor:
    """MNIST in black and white, a fresh draw."""
    return binarize(x, generator=generator)


def summarise(log_prob: Tensor, x: Tensor, levels: int) -> dict[str, float]:
    """What a card says of the log-probabilities ``[N]`` of test images ``x [N, ...]``."""
    metrics = {
        "test negative log-likelihood (nats)": -log_prob.mean().item(),
        "standard error (nats)": (log_prob.std() / len(log_prob) ** 0.5).item(),
    }
    if levels > 2:
        # The probability of an image is a density on its cube, of volume levels^-dim.
        dim = x[0].numel()
        log_density = log_prob.mean() + dim * math.log(levels)
        metrics["bits per dimension"] = bits_per_dim(log_density, dim, levels).item()
    return metrics


def vector_metrics(model: nn.Module, images: Tensor) -> dict[str, float]:
    """Mean negative log-likelihood of black and white images ``[N, 1, H, W]`` as vectors."""
    x = images.flatten(1)
    with torch.no_grad():
        return summarise(torch.cat([model.log_prob(part) for part in x.split(100)]), x, 2)


def image_metrics(model: nn.Module, x: Tensor, y: Tensor, *, levels: int = 2) -> dict[str, float]:
    """As above for a model of images; with classes also its accuracy by Bayes' rule."""
    if model.n_classes is None:
        with torch.no_grad():
            return summarise(torch.cat([model.log_prob(part) for part in x.split(100)]), x, levels)
    with torch.no_grad():
        joint = torch.cat([model.log_joint(part) for part in x.split(100)])
    right = (joint.argmax(dim=1) == y).float()
    return {
        **summarise(joint.logsumexp(dim=1), x, levels),
        "accuracy as a classifier": right.mean().item(),
    }


DIGITS = 'load_digits("train"), 1,438 images, jittered, {}; tested on the other 359'
MNIST = (
    'load_mnist("train"), 60,000 images, binarized anew in each step; tested on the 10,000 test '
    "images, binarized once"
)


def register_vector_model(
    kind: str, title: str, build: Callable[[int], nn.Module], digits: dict, mnist: dict
) -> None:
    """Register a model of vectors: ``kind_digits`` and ``kind_mnist``."""
    register(
        Recipe(
            name=f"{kind}_digits",
            summary=f"{title} on the 8x8 digits in black and white",
            data=DIGITS.format("black and white"),
            build=lambda: build(64),
            load=lambda: load_digits("train")[0].flatten(1),
            transform=digits_batch,
            options=digits,
            evaluate=lambda model: vector_metrics(model, binary_digits("test")[0]),
        )
    )
    register(
        Recipe(
            name=f"{kind}_mnist",
            summary=f"{title} on MNIST in black and white",
            data=MNIST,
            build=lambda: build(784),
            load=lambda: load_mnist("train")[0].flatten(1),
            transform=mnist_batch,
            options=mnist,
            evaluate=lambda model: vector_metrics(model, binary_mnist_test()[0]),
        )
    )


register(
    Recipe(
        name="pixelcnn_mnist",
        summary="PixelCNN, gated, given the class, on MNIST in black and white",
        data=MNIST,
        build=lambda: PixelCNN(32, 5, n_classes=10, kernel_size=5, size=(28, 28)),
        load=lambda: load_mnist("train"),
        transform=mnist_batch,
        options={"steps": 10_000, "batch_size": 32, "lr": 2e-3, "ema": 0.998},
        evaluate=lambda model: image_metrics(model, *binary_mnist_test()),
    )
)
