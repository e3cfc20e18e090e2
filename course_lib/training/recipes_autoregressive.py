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
from course_lib.data import binarize, load_digits, load_mnist
from course_lib.metrics import bits_per_dim
from course_lib.training.batches import DIGIT_LEVELS, digits_batch, mnist_batch
from course_lib.training.recipes import Recipe, register


def binary_digits(split: str) -> tuple[Tensor, Tensor]:
    """8x8 digits in black and white ``[N, 1, 8, 8]``, and their labels ``[N]``."""
    images, labels = load_digits(split)
    return binarize(images, threshold=0.5), labels


def grey_digits(split: str) -> tuple[Tensor, Tensor]:
    """8x8 digits with whole grey values 0 ... 16, ``[N, 1, 8, 8]``, and their labels ``[N]``."""
    images, labels = load_digits(split)
    return (images * (DIGIT_LEVELS - 1)).round(), labels


def binary_mnist(split: str) -> tuple[Tensor, Tensor]:
    """MNIST ``[N, 1, 28, 28]``, drawn once from a fixed seed, and the labels ``[N]``."""
    images, labels = load_mnist(split)
    return binarize(images, generator=torch.Generator().manual_seed(0)), labels


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


def likelihood_metrics(model: nn.Module, x: Tensor) -> dict[str, float]:
    """Mean negative log-likelihood of black and white images, as the model takes them."""
    with torch.no_grad():
        return summarise(torch.cat([model.log_prob(part) for part in x.split(100)]), x, levels=2)


def joint_metrics(model: PixelCNN, x: Tensor, y: Tensor) -> dict[str, float]:
    """As above, with log p(x) = log Σ_y p(x, y), and the accuracy by Bayes' rule."""
    with torch.no_grad():
        joint = torch.cat([model.log_joint(part) for part in x.split(100)])
    right = (joint.argmax(dim=1) == y).float()
    return {
        **summarise(joint.logsumexp(dim=1), x, model.levels),
        "accuracy as a classifier": right.mean().item(),
    }


def logistic_regression_accuracy(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> float:
    """Accuracy on ``test`` of a plain classifier, fitted to images and labels ``train``."""
    from sklearn.linear_model import LogisticRegression  # slow to import

    classifier = LogisticRegression(C=0.1, max_iter=1000)
    classifier.fit(train[0].flatten(1).numpy(), train[1].numpy())
    return classifier.score(test[0].flatten(1).numpy(), test[1].numpy())


def digits_joint_metrics(model: PixelCNN) -> dict[str, float]:
    """``joint_metrics`` on the digits, and logistic regression fitted to ten jittered copies."""
    images, labels = load_digits("train")
    generators = (torch.Generator().manual_seed(seed) for seed in range(10))
    moved = digits_batch("binary")
    copies = torch.cat([moved(images, generator) for generator in generators])
    test = binary_digits("test")
    return {
        **joint_metrics(model, *test),
        "accuracy of logistic regression": logistic_regression_accuracy(
            (copies, labels.repeat(10)), test
        ),
    }


def mnist_joint_metrics(model: PixelCNN) -> dict[str, float]:
    """``joint_metrics`` on MNIST, and logistic regression on the same black and white pixels."""
    test = binary_mnist("test")
    return {
        **joint_metrics(model, *test),
        "accuracy of logistic regression": logistic_regression_accuracy(
            binary_mnist("train"), test
        ),
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
            transform=digits_batch("binary"),
            options=digits,
            evaluate=lambda model: likelihood_metrics(model, binary_digits("test")[0].flatten(1)),
        )
    )
    register(
        Recipe(
            name=f"{kind}_mnist",
            summary=f"{title} on MNIST in black and white",
            data=MNIST,
            build=lambda: build(784),
            load=lambda: load_mnist("train")[0].flatten(1),
            transform=mnist_batch("binary"),
            options=mnist,
            evaluate=lambda model: likelihood_metrics(model, binary_mnist("test")[0].flatten(1)),
        )
    )


register_vector_model(
    "fvsbn",
    "FVSBN",
    FVSBN,
    digits={"steps": 4000, "batch_size": 128, "lr": 5e-3, "ema": 0.998},
    mnist={"steps": 8000, "batch_size": 128, "lr": 3e-3, "ema": 0.999},
)
register_vector_model(
    "nade",
    "NADE",
    lambda dim: NADE(dim, 64 if dim == 64 else 200),
    digits={"steps": 4000, "batch_size": 128, "lr": 5e-3, "ema": 0.998},
    mnist={"steps": 15_000, "batch_size": 32, "lr": 3e-3, "ema": 0.999},
)
register_vector_model(
    "made",
    "MADE",
    lambda dim: MADE(dim, [256, 256] if dim == 64 else [1200]),
    digits={"steps": 4000, "batch_size": 128, "lr": 3e-3, "weight_decay": 0.1, "ema": 0.998},
    mnist={"steps": 20_000, "batch_size": 128, "lr": 3e-3, "ema": 0.999},
)

register(
    Recipe(
        name="naive_pixelcnn_digits",
        summary="PixelCNN with masks A and B and a blind spot, on the 8x8 digits, black and white",
        data=DIGITS.format("black and white"),
        build=lambda: NaivePixelCNN(32, 6),
        load=lambda: load_digits("train")[0],
        transform=digits_batch("binary"),
        options={"steps": 3000, "batch_size": 64, "lr": 3e-3, "ema": 0.998},
        evaluate=lambda model: likelihood_metrics(model, binary_digits("test")[0]),
    )
)
register(
    Recipe(
        name="pixelcnn_digits",
        summary="PixelCNN, gated, given the class, on the 8x8 digits in black and white",
        data=DIGITS.format("black and white"),
        build=lambda: PixelCNN(24, 4, n_classes=10),
        load=lambda: load_digits("train"),
        transform=digits_batch("binary"),
        options={"steps": 3000, "batch_size": 64, "lr": 3e-3, "ema": 0.998},
        evaluate=digits_joint_metrics,
    )
)
register(
    Recipe(
        name="pixelcnn_digits_grey",
        summary="PixelCNN, gated, given the class, on the 8x8 digits in 17 grey levels",
        data=DIGITS.format("17 grey levels"),
        build=lambda: PixelCNN(32, 4, levels=DIGIT_LEVELS, n_classes=10),
        load=lambda: load_digits("train"),
        transform=digits_batch("levels"),
        options={"steps": 3000, "batch_size": 64, "lr": 3e-3, "ema": 0.998},
        evaluate=lambda model: joint_metrics(model, *grey_digits("test")),
    )
)
register(
    Recipe(
        name="pixelcnn_mnist",
        summary="PixelCNN, gated, given the class, on MNIST in black and white",
        data=MNIST,
        build=lambda: PixelCNN(32, 5, n_classes=10, kernel_size=5, size=(28, 28)),
        load=lambda: load_mnist("train"),
        transform=mnist_batch("binary"),
        options={"steps": 10_000, "batch_size": 32, "lr": 2e-3, "ema": 0.998},
        evaluate=mnist_joint_metrics,
    )
)
