"""Ring: its states against the course's ring all-reduce, what is sent, and what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.parallel.ring import ring_bytes, ring_steps
from course_lib.widgets import PALETTE, Ring


@pytest.mark.parametrize("n", range(1, 9))
def test_it_holds_and_sends_what_ring_all_reduce_does(n: int) -> None:
    ring = Ring(n)
    rows = torch.tensor(ring.values)[:n, :n]
    steps = list(ring_steps(list(rows)))
    assert ring.n_steps == len(ring.labels) == len(steps)
    for k, (chunks, messages) in enumerate(steps):
        ring.step = float(k)
        np.testing.assert_array_equal(ring.chunks, [torch.cat(own) for own in chunks])
        if k:
            sent = [(m.source, m.target, m.chunk) for m in messages]
            assert sorted(ring.messages(k)) == sorted(sent)
            assert ring.labels[k].startswith(messages[0].phase)
    assert ring.sent == ring_bytes(1.0, n)
    np.testing.assert_array_equal(ring.chunks, np.tile(rows.sum(0), (n, 1)))
    np.testing.assert_array_equal(ring.contributions, np.full((n, n), n))


def test_contributions_are_how_many_ones_are_in_a_sum() -> None:
    ones = Ring(5, values=np.ones((8, 8)))
    for step in (0.0, 2.6, 4.0):
        ones.step = step
        np.testing.assert_array_equal(ones.chunks, ones.contributions)
        assert ones.contributions.max() == int(step) + 1
    assert ones.sent == 4 / 5


def test_with_another_number_of_processes_it_begins_anew() -> None:
    ring = Ring(4, step=3)
    ring.processes = 3
    assert (ring.step, ring.n_steps) == (0.0, 5)
    assert ring.labels == [
        "each has its own",
        "reduce-scatter 1 of 2",
        "reduce-scatter 2 of 2",
        "all-gather 1 of 2",
        "all-gather 2 of 2",
    ]
    ring.step = 4.0
    with pytest.raises(ValueError, match=r"step must lie in \[0, 4\]"):
        ring.step = 5.0
    assert repr(ring) == "Ring('')"
    # As a page sends them: all at once.
    ring.set_state({"processes": 8, "n_steps": 15, "labels": ring.labels})
    assert (ring.step, ring.n_steps, len(ring.labels)) == (0.0, 15, 15)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"processes": 0}, "processes must be"),
        ({"processes": 9}, "processes must be"),
        ({"processes": 2.0}, "processes must be"),
        ({"values": np.ones((4, 4))}, r"whole numbers from 0 to 99, \[8, 8\]"),
        ({"values": np.full((8, 8), 0.5)}, "values must be whole numbers"),
        ({"values": np.full((8, 8), 100)}, "values must be whole numbers"),
        ({"values": np.full((8, 8), -1)}, "values must be whole numbers"),
        ({"values": [1]}, "values must have shape"),
        ({"step": 7}, r"step must lie in \[0, 6\]"),
        ({"title": 1}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Ring(**change)


def test_bad_settings_are_refused() -> None:
    ring = Ring(3)
    with pytest.raises(ValueError, match="processes must be"):
        ring.processes = 9
    for k in (0, 5):
        with pytest.raises(ValueError, match="k must be"):
            ring.messages(k)
    assert ring.processes == 3


@pytest.mark.parametrize("n", [1, 8])
def test_the_still_picture_shows_ring_and_bars(n: int) -> None:
    content = Ring(n, step=n - 1).still()
    assert len(content) < 60_000
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    wanted = [int(PALETTE["model"][i : i + 2], 16) for i in (1, 3, 5)]
    assert ((np.abs(picture - wanted).max(-1) < 30).sum() > 100) == (n > 1)
