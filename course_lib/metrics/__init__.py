"""Metrics: what a trained model is judged by."""

from course_lib.metrics.likelihood import GaussianBaseline, LogisticBaseline, bits_per_dim

__all__ = ["GaussianBaseline", "LogisticBaseline", "bits_per_dim"]
