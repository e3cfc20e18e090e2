"""How good samples are: their distance to the test images in the features of a classifier."""

from functools import cache

import torch
from torch import Tensor

from course_lib.checks import check_classes, check_floats, check_one_of
from course_lib.data import load_digits, load_mnist
from course_lib.metrics import ImageClassifier, frechet_distance
from course_lib.training.checkpoints import load_pretrained

__all__ = ["N_SAMPLES", "conditional_quality", "feature_distance", "sample_quality"]

DATA = {"digits": load_digits, "mnist": load_mnist}
N_SAMPLES = 1000  # a Fréchet distance depends on it, so it is the same for every model


@torch.no_grad()
def feature_distance(images: Tensor, data: str) -> float:
    """The Fréchet distance of images to the test images, in features of the course's classifier.

    Args:
        images: ``[N, 1, H, W]``; values outside [0, 1] are cut off, and the rest is rounded to the
            grey levels of the data, as a file would.
        data: ``"digits"`` or ``"mnist"``, which also names the classifier, ``classifier_digits`` or
            ``classifier_mnist``.

    Raises:
        ValueError: When the classifier is not stored.

    """
    check_one_of("data", data, DATA)
    check_floats("images", images, (None, None, None, None))
    classifier, reference = _reference(data)
    return frechet_distance(_features(classifier, _as_a_file(images, data)), reference)


def sample_quality(images: Tensor, data: str) -> dict[str, float]:
    """``feature_distance`` of ``N_SAMPLES`` samples, under the name that it has on a card."""
    if len(images) != N_SAMPLES:
        raise ValueError(f"images must be {N_SAMPLES} samples, got {len(images)}")
    return {f"feature distance, {N_SAMPLES:,} samples": feature_distance(images, data)}


@torch.no_grad()
def conditional_quality(images: Tensor, y: Tensor, data: str) -> dict[str, float]:
    """What guidance trades: how clear the class is, against how different its examples are.

    Args:
        images: ``[N, 1, H, W]``, rounded as by ``feature_distance``.
        y: ``[N]``, the class that each was drawn for; every class at least twice.
        data: As in ``feature_distance``.

    Returns:
        ``accuracy``, the share that the course's classifier takes for what they should be;
        ``distance``, as by ``feature_distance``; ``diversity``, the mean distance of two images of
        one class in the classifier's features, as a multiple of that of the test images.

    """
    distance = feature_distance(images, data)
    check_classes("y", y, len(images), 10)
    classifier, reference = _reference(data)
    features = _features(classifier, _as_a_file(images, data))
    right = classifier.head(features.relu()).argmax(dim=1) == y
    spread = _spread(features, y) / _spread(reference, DATA[data]("test")[1])
    return {
        "accuracy": right.float().mean().item(),
        "distance": distance,
        "diversity": spread.item(),
    }


def _as_a_file(images: Tensor, data: str) -> Tensor:
    top = {"digits": 16, "mnist": 255}[data]
    return (images.clamp(0, 1) * top).round() / top


def _spread(features: Tensor, y: Tensor) -> Tensor:
    """The mean distance of two points of one class, as an average over the classes."""
    return torch.stack([torch.pdist(features[y == k]).mean() for k in y.unique()]).mean()


@cache
def _reference(data: str) -> tuple[ImageClassifier, Tensor]:
    classifier = load_pretrained(f"classifier_{data}")
    return classifier, _features(classifier, DATA[data]("test")[0])


def _features(classifier: ImageClassifier, images: Tensor) -> Tensor:
    return torch.cat([classifier.features(part) for part in images.split(500)])
