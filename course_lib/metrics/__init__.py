"""Metrics: what a trained model is judged by."""

from course_lib.metrics.features import ImageClassifier, frechet_distance
from course_lib.metrics.likelihood import GaussianBaseline, LogisticBaseline, bits_per_dim

__all__ = [
    "GaussianBaseline",
    "ImageClassifier",
    "LogisticBaseline",
    "bits_per_dim",
    "frechet_distance",
]
