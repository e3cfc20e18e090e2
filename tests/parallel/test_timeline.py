"""Nothing happens twice at a time, and the cost of a ring is its formula."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.parallel import Span, buckets, ring_bytes, ring_time, speedup, timeline

NETWORK = {"processes": 4, "bandwidth": 100.0, "latency": 0.01}
LAYERS = st.lists(st.tuples(st.integers(0, 500), st.floats(0, 3)), min_size=1, max_size=8)


def close(a, b):
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)


def test_ring_time():
    assert close(ring_time(100, **NETWORK), 1.5 + 0.06)
    assert ring_time(100, processes=1, bandwidth=1.0, latency=5.0) == 0
    assert ring_time(0, processes=3, bandwidth=1.0, latency=0.5) == 2
    assert ring_time(6, processes=3, bandwidth=2.0, latency=0) == ring_bytes(6, 3) / 2.0 == 4


def test_by_hand():
    """Three layers; buckets of 30 and more: [2, 1] and [0]."""
    network = {"processes": 2, "bandwidth": 10.0, "latency": 0.0, "bucket_bytes": 30}
    spans = timeline([20, 20, 10], [1.0, 2.0, 0.5], **network)
    backward = [
        Span("backward", 2, 0.0, 0.5),
        Span("backward", 1, 0.5, 2.5),
        Span("backward", 0, 2.5, 3.5),
    ]
    assert spans == [*backward, Span("all-reduce", 0, 2.5, 5.5), Span("all-reduce", 1, 5.5, 7.5)]
    spans = timeline([20, 20, 10], [1.0, 2.0, 0.5], overlap=False, **network)
    assert spans == [*backward, Span("all-reduce", 0, 3.5, 6.5), Span("all-reduce", 1, 6.5, 8.5)]
    # 7 s for two batches of 4.5 s with the forward pass
    found = speedup([20, 20, 10], [1.0, 2.0, 0.5], forward=1.0, **network)
    assert close(found, 2 * 4.5 / 8.5)
    found = speedup([20, 20, 10], [1.0, 2.0, 0.5], overlap=False, **network)
    assert close(found, 2 * 3.5 / 8.5)


@settings(deadline=None, max_examples=150)
@given(LAYERS, st.integers(1, 5), st.integers(1, 900), st.floats(0, 0.3), st.booleans())
def test_one_thing_at_a_time(layers, processes, cap, latency, overlap):
    sizes, backward = (list(values) for values in zip(*layers, strict=True))
    network = {"processes": processes, "bandwidth": 70.0, "latency": latency}
    options = {**network, "bucket_bytes": cap, "overlap": overlap}
    spans = timeline(sizes, backward, **options)
    computed = [span for span in spans if span.kind == "backward"]
    sent = [span for span in spans if span.kind == "all-reduce"]
    assert spans == computed + sent
    assert [span.index for span in computed] == list(reversed(range(len(sizes))))
    assert [span.index for span in sent] == list(range(len(buckets(sizes, cap))))
    for resource in (computed, sent):
        for before, after in pairwise(resource):
            assert before.end <= after.start
    for span in computed:
        assert close(span.end - span.start, backward[span.index])
    ends = {span.index: span.end for span in computed}
    for span, bucket in zip(sent, buckets(sizes, cap), strict=True):
        assert span.start >= max(ends[i] for i in bucket)
        assert close(span.end - span.start, ring_time(sum(sizes[i] for i in bucket), **network))
    everything = sum(backward) + sum(span.end - span.start for span in sent)
    last = max(span.end for span in spans)
    if overlap:  # nobody idles: a bucket starts when it is full, or when the one before is through
        free = 0.0
        for span, bucket in zip(sent, buckets(sizes, cap), strict=True):
            assert span.start == max(free, *(ends[i] for i in bucket))
            free = span.end
        assert last <= everything + 1e-9
    else:
        assert close(last, everything)
        assert sent[0].start == computed[-1].end
    if sum(backward) > 0.01:
        found = speedup(sizes, backward, forward=0.7, **options)
        assert close(found, processes * (0.7 + sum(backward)) / (0.7 + last))
        assert found <= processes + 1e-9


BAD = {
    "size": (-1, "size must be a finite number of at least 0, got -1"),
    "processes": (0, "processes must be an integer of at least 1, got 0"),
    "bandwidth": (0, "bandwidth must be a finite number above 0, got 0"),
    "latency": (-0.1, "latency must be a finite number of at least 0, got -0.1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_networks(name):
    value, message = BAD[name]
    options = {"size": 1, **NETWORK, name: value}
    with pytest.raises(ValueError, match=message):
        ring_time(options.pop("size"), **options)
    if name != "size":
        for function in (timeline, speedup):
            with pytest.raises(ValueError, match=message):
                function([1], [1.0], **NETWORK | {name: value}, bucket_bytes=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": []}, "backward must have as many entries as sizes, at least one, got 2 and 0"),
        ({"sizes": [], "backward": []}, "at least one, got 0 and 0"),
        ({"sizes": [1]}, "backward must have as many entries as sizes, at least one, got 2 and 1"),
        ({"sizes": [1, -2]}, r"sizes\[1\] must be an integer of at least 0, got -2"),
        ({"backward": [1, -2]}, r"backward\[1\] must be a finite number of at least 0, got -2"),
        (
            {"backward": [False, 2]},
            r"backward\[0\] must be a finite number of at least 0, got False",
        ),
        ({"sizes": None}, "sizes must be a sequence of integers, got None"),
        ({"sizes": {1, 2}}, r"sizes must be a sequence of integers, got \{1, 2\}"),
        ({"backward": 3}, "backward must be a sequence of numbers, got 3"),
        ({"bucket_bytes": 0}, "cap must be an integer of at least 1, got 0"),
        ({"overlap": 1}, "overlap must be True or False, got 1"),
    ],
)
def test_bad_arguments(change, message):
    options = {"sizes": [1, 2], "backward": [1.0, 2.0], **NETWORK, "bucket_bytes": 1} | change
    for function in (timeline, speedup):
        with pytest.raises(ValueError, match=message):
            function(**options)


def test_no_time_at_all():
    with pytest.raises(ValueError, match="backward must take some time, got 0 s with the forward"):
        speedup([1], [0], **NETWORK, bucket_bytes=1)
    with pytest.raises(ValueError, match="forward must be a finite number of at least 0, got -1"):
        speedup([1], [1], **NETWORK, bucket_bytes=1, forward=-1)
    assert speedup([1], [0], **NETWORK | {"processes": 1}, bucket_bytes=1, forward=1) == 1
