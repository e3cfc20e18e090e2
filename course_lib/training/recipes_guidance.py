"""The recipes of chapter 11: classifiers of noised images, on the digits and MNIST."""

import torch
from torch import Tensor

from course_lib.data import load_digits, load_mnist, to_signed
from course_lib.diffusion import NoisedClassifier
from course_lib.training.batches import digits_batch, mnist_batch
from course_lib.training.recipes import Recipe, register

SIGMAS = (0.02, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 50.0)


@torch.no_grad()
def accuracy_metrics(
    model: NoisedClassifier, images: Tensor, labels: Tensor, *, draws: int = 1
) -> dict[str, list]:
    """The accuracy on images in [0, 1], each noised ``draws`` times, by noise level."""
    x, y = to_signed(images).repeat(draws, 1, 1, 1), labels.repeat(draws)
    rows = []
    for sigma in SIGMAS:
        noise = torch.Generator().manual_seed(0)
        noised = x + sigma * torch.randn(x.shape, generator=noise)
        said = torch.cat([model(part, sigma).argmax(1) for part in noised.split(500)])
        rows.append({"sigma": sigma, "accuracy": (said == y).float().mean().item()})
    return {"noise levels": rows}


register(
    Recipe(
        name="classifier_noised_digits",
        summary="Classifier of noised images that knows the noise level, on the digits",
        data='load_digits("train"), 1,438 images and labels, jittered, grey; '
        "tested on the other 359",
        build=lambda: NoisedClassifier((1, 8, 8)),
        load=lambda: load_digits("train"),
        transform=digits_batch("signed"),
        options={
            "steps": 5000,
            "batch_size": 128,
            "lr": 2e-3,
            "weight_decay": 0.05,
            "ema": 0.998,
        },
        evaluate=lambda model: accuracy_metrics(model, *load_digits("test"), draws=10),
    )
)
register(
    Recipe(
        name="classifier_noised_mnist",
        summary="Classifier of noised images that knows the noise level, on MNIST",
        data='load_mnist("train"), 60,000 images and labels; tested on the 10,000 test images',
        build=lambda: NoisedClassifier((1, 28, 28), width=16),
        load=lambda: load_mnist("train"),
        transform=mnist_batch("signed"),
        options={
            "steps": 5000,
            "batch_size": 128,
            "lr": 2e-3,
            "weight_decay": 0.05,
            "ema": 0.998,
        },
        evaluate=lambda model: accuracy_metrics(model, *load_mnist("test")),
    )
)
