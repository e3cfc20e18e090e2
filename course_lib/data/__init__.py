"""Data of the course: toy distributions, the 8×8 digits, MNIST, and grey levels to numbers."""

from course_lib.data.augment import jitter
from course_lib.data.digits import load_digits
from course_lib.data.discrete import binarize, dequantize, quantize
from course_lib.data.mnist import load_mnist
from course_lib.data.toys import TOYS, toy, toy_log_prob

__all__ = [
    "TOYS",
    "binarize",
    "dequantize",
    "jitter",
    "load_digits",
    "load_mnist",
    "quantize",
    "toy",
    "toy_log_prob",
]
