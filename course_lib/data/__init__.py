"""Data of the course: toys, the 8×8 digits, MNIST, and what becomes of pixels for a model."""

from course_lib.data.augment import jitter
from course_lib.data.digits import load_digits
from course_lib.data.discrete import binarize, dequantize, quantize
from course_lib.data.mnist import load_mnist
from course_lib.data.ranges import to_signed, to_unit
from course_lib.data.scenes import (
    COLOURS,
    PLACES,
    RELATIONS,
    SCENE_WORDS,
    UNSEEN,
    WEIGHTS,
    Scene,
    Thing,
    caption_of,
    random_scenes,
    render,
    scene_of,
    scenes,
)
from course_lib.data.toys import TOYS, toy, toy_log_prob

__all__ = [
    "COLOURS",
    "PLACES",
    "RELATIONS",
    "SCENE_WORDS",
    "TOYS",
    "UNSEEN",
    "WEIGHTS",
    "Scene",
    "Thing",
    "binarize",
    "caption_of",
    "dequantize",
    "jitter",
    "load_digits",
    "load_mnist",
    "quantize",
    "random_scenes",
    "render",
    "scene_of",
    "scenes",
    "to_signed",
    "to_unit",
    "toy",
    "toy_log_prob",
]
