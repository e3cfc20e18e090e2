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
from course_lib.metrics.two_sample import (
    energy_distance,
    permutation_power,
    permutation_test,
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
    "energy_distance",
    "frechet_distance",
    "permutation_power",
    "permutation_test",
    "scene_shares",
    "scene_targets",
    "swapped_shares",
]
