"""The classifiers whose features the course's samples are judged in, on the digits and MNIST."""

import torch
from torch import Tensor

from course_lib.data import load_digits, load_mnist
from course_lib.metrics import ImageClassifier, frechet_distance
from course_lib.training.batches import digits_batch
from course_lib.training.quality import N_SAMPLES
from course_lib.training.recipes import Recipe, register

FLOOR = f"feature distance, {N_SAMPLES:,} training images"


@torch.no_grad()
def classifier_metrics(
    model: ImageClassifier, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """Accuracy on the test images, and the Fréchet distance of real images from them: the floor.

    The floor is the mean over ten draws of ``N_SAMPLES`` training images, and the spread is the
    standard deviation of one of them: how much of a difference is chance.
    """
    images, labels = test
    features = torch.cat([model.features(part) for part in images.split(500)])
    right = model.head(features.relu()).argmax(dim=1) == labels
    generator = torch.Generator().manual_seed(0)
    distances = []
    for _ in range(10):
        chosen = torch.randperm(len(train[0]), generator=generator)[:N_SAMPLES]
        distances.append(frechet_distance(model.features(train[0][chosen]), features))
    floor = torch.tensor(distances)
    return {
        "test accuracy": right.float().mean().item(),
        FLOOR: floor.mean().item(),
        f"{FLOOR}, spread": floor.std().item(),
    }


register(
    Recipe(
        name="classifier_digits",
        summary="Convolutional classifier with 32 features, on the grey 8x8 digits",
        data='load_digits("train"), 1,438 images, jittered; tested on the other 359',
        build=lambda: ImageClassifier((1, 8, 8), width=16),
        load=lambda: load_digits("train"),
        transform=digits_batch("grey"),
        options={"steps": 2000, "batch_size": 128, "lr": 2e-3, "weight_decay": 0.05},
        evaluate=lambda model: classifier_metrics(model, load_digits("train"), load_digits("test")),
    )
)
register(
    Recipe(
        name="classifier_mnist",
        summary="Convolutional classifier with 32 features, on grey MNIST",
        data='load_mnist("train"), 60,000 images; tested on the 10,000 test images',
        build=lambda: ImageClassifier((1, 28, 28), width=16),
        load=lambda: load_mnist("train"),
        options={"steps": 3000, "batch_size": 128, "lr": 2e-3, "weight_decay": 0.05},
        evaluate=lambda model: classifier_metrics(model, load_mnist("train"), load_mnist("test")),
    )
)
