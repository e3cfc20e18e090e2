"""Timeline: its times against the course's formula, and what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.parallel.data_parallel import buckets
from course_lib.parallel.timeline import timeline
from course_lib.widgets import Timeline

RNG = np.random.default_rng(0)
SIZES = RNG.integers(1, 30, 20) * 1_000_000
BACKWARD = RNG.random(20) / 100 + 1e-3


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("processes", [1, 2, 7, 64])
@pytest.mark.parametrize(("bandwidth", "latency"), [(1e9, 1e-5), (4e10, 5e-3)])
def test_the_times_are_those_of_the_course(
    overlap: bool, processes: int, bandwidth: float, latency: float
) -> None:
    step = Timeline(
        SIZES, BACKWARD, processes=processes, bandwidth=bandwidth, latency=latency, overlap=overlap
    )
    for bucket_bytes in (step.bucket_range[0], 25_000_000, step.bucket_range[1]):
        step.bucket_bytes = bucket_bytes
        assert step.buckets == buckets(SIZES.tolist(), bucket_bytes)
        wanted = timeline(
            SIZES.tolist(), BACKWARD.tolist(), processes=processes, bandwidth=bandwidth,
            latency=latency, bucket_bytes=bucket_bytes, overlap=overlap,
        )  # fmt: skip
        assert [span[:2] for span in step.spans] == [(span.kind, span.index) for span in wanted]
        np.testing.assert_allclose(
            [span[2:] for span in step.spans], [(s.start, s.end) for s in wanted], rtol=1e-12
        )
        assert step.end == pytest.approx(max(span.end for span in wanted))


def test_what_is_hidden_by_hand() -> None:
    """Two layers of 1 s; each all-reduce takes 2 (2 − 1) / 2 · 5e8 / 1e9 = 0.5 s: the first is
    hidden, the other comes after.
    """
    step = Timeline([500_000_000] * 2, [1, 1], processes=2, latency=1e-7, bucket_bytes=1000)
    assert step.hidden == pytest.approx(0.5, abs=1e-4)
    assert step.end == pytest.approx(2.5, abs=1e-4)
    step.bandwidth = 1e8  # 5 s each, of which 1 s is hidden
    assert step.hidden == pytest.approx(0.1, abs=1e-4)
    step.overlap = False
    assert step.hidden == 0
    step.processes = 1
    assert (step.hidden, step.end) == (1.0, 2.0)
    assert repr(step) == "Timeline('')"


def test_buckets_may_be_larger_than_the_model_and_tensors_are_welcome() -> None:
    one = Timeline(torch.tensor([1000.0]), torch.tensor([0.5], requires_grad=True))
    assert one.bucket_range == [500, 25_000_000]
    assert one.buckets == [[0]]
    assert Timeline([1], [1], bucket_bytes=1).bucket_range == [1, 2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sizes": [0, 1]}, "sizes must be whole numbers of bytes from 1"),
        ({"sizes": [1.5, 1]}, "sizes must be whole numbers"),
        ({"sizes": [[1, 1]]}, r"sizes must have shape \[L\]"),
        ({"sizes": np.ones(97)}, "sizes must be at most 96 numbers, got 97"),
        ({"backward": [1]}, "backward must be 2 positive numbers, one a layer"),
        ({"backward": [1, 0]}, "backward must be 2 positive numbers"),
        ({"backward": [1, np.nan]}, "backward must be finite"),
        ({"processes": 0}, "processes must be"),
        ({"processes": 2000}, "processes must be"),
        ({"bandwidth": 1e6}, r"bandwidth must lie in \[1e\+07, 1e\+12\], got 1e\+06"),
        ({"latency": 0.0}, "latency must be"),
        ({"latency": 0.1}, r"latency must lie in \[1e-07, 0.01\]"),
        ({"bucket_bytes": 0}, "bucket_bytes must be"),
        ({"bucket_bytes": 2.5}, "bucket_bytes must be"),
        ({"overlap": 1}, "overlap must be"),
        ({"title": 1}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    given = {"sizes": [4, 4], "backward": [1, 1]} | change
    with pytest.raises(ValueError, match=reason):
        Timeline(given.pop("sizes"), given.pop("backward"), **given)


def test_bad_settings_are_refused() -> None:
    step = Timeline([4_000_000, 4_000_000], [1, 1])
    with pytest.raises(ValueError, match="bucket_bytes must be"):
        step.bucket_bytes = 30_000_000
    with pytest.raises(ValueError, match="bandwidth must lie"):
        step.bandwidth = 1e13
    assert (step.bucket_bytes, step.bandwidth) == (25_000_000, 1e9)


@pytest.mark.parametrize("processes", [1, 16])
def test_the_still_picture_shows_the_lanes(processes: int) -> None:
    content = Timeline(SIZES, BACKWARD, processes=processes).still()
    assert len(content) < 60_000
    assert Image.open(io.BytesIO(content)).size[0] == 720
