"""Guided pixels: at scale 0 and 1 they are the data's, and where the clip stands matters."""

import pytest
import torch

from course_lib.diffusion import guide
from course_lib.experiments import guided_pixels


def clipped_first(null, label, scale):
    return guide(null.clamp(-1, 1), label.clamp(-1, 1), scale)


def clipped_last(null, label, scale):
    return guide(null, label, scale).clamp(-1, 1)


def test_without_guidance_pixels_are_those_of_the_data():
    normal = torch.distributions.Normal(0.5, 0.25)
    beyond = 1 - normal.cdf(torch.tensor(1.0)).item()
    for scale in (0.0, 1.0):
        report = guided_pixels(guide, scale, n=10_000, steps=100)
        assert abs(report.outside - beyond) < 0.006


def test_the_clip_stands_behind_guidance():
    free, first, last = (guided_pixels(g, 8.0) for g in (guide, clipped_first, clipped_last))
    assert free.outside > 0.5
    assert first.outside == last.outside == 0
    assert first.largest == pytest.approx(free.largest)
    assert first.largest > 4
    assert last.largest == 1
    assert first.burnt > 0.6
    assert last.burnt < 0.1
    mild = [guided_pixels(g, 1.0).burnt for g in (clipped_first, clipped_last)]
    assert mild[0] == mild[1] < 0.04


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="scale must be"):
        guided_pixels(guide, -1.0)
    with pytest.raises(ValueError, match="n must be an integer of at least 1, got 0"):
        guided_pixels(guide, 1.0, n=0)
