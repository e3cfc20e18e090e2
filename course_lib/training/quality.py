"""How good samples are: their distance to the test images in the features of a classifier."""

from functools import cache

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_one_of
from course_lib.data import load_digits, load_mnist
from course_lib.metrics import ImageClassifier, frechet_distance
from course_lib.training.checkpoints import load_pretrained

__all__ = ["N_SAMPLES", "feature_distance", "sample_quality"]

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
    top = {"digits": 16, "mnist": 255}[data]
    grey = (images.clamp(0, 1) * top).round() / top
    classifier, reference = _reference(data)
    return frechet_distance(_features(classifier, grey), reference)


def sample_quality(images: Tensor, data: str) -> dict[str, float]:
    """``feature_distance`` of ``N_SAMPLES`` samples, under the name that it has on a card."""
    if len(images) != N_SAMPLES:
        raise ValueError(f"images must be {N_SAMPLES} samples, got {len(images)}")
    return {f"feature distance, {N_SAMPLES:,} samples": feature_distance(images, data)}


@cache
def _reference(data: str) -> tuple[ImageClassifier, Tensor]:
    classifier = load_pretrained(f"classifier_{data}")
    return classifier, _features(classifier, DATA[data]("test")[0])


def _features(classifier: ImageClassifier, images: Tensor) -> Tensor:
    return torch.cat([classifier.features(part) for part in images.split(500)])
