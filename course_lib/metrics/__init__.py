"""Metrics: what a trained model is judged by."""

from course_lib.metrics.contours import contour_agreement
from course_lib.metrics.features import ImageClassifier, frechet_distance
from course_lib.metrics.likelihood import GaussianBaseline, LogisticBaseline, bits_per_dim
from course_lib.metrics.scenes import (
    LAYOUTS,
    SceneJudge,
    all_pairs,
    scene_shares,
    scene_targets,
    swapped_shares,
)

__all__ = [
    "LAYOUTS",
    "GaussianBaseline",
    "ImageClassifier",
    "LogisticBaseline",
    "SceneJudge",
    "all_pairs",
    "bits_per_dim",
    "contour_agreement",
    "frechet_distance",
    "scene_shares",
    "scene_targets",
    "swapped_shares",
]
