"""Tiles cover what may be seen, each pair once; a mask says what of a tile."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.attention import tiles
from course_lib.attention.tiles import seen

sizes = st.integers(1, 12)


def allowed(n_q, n_k, causal):
    """What may be seen, pair by pair: the last query sees all."""
    pairs = [[not causal or j <= i + n_k - n_q for j in range(n_k)] for i in range(n_q)]
    return torch.tensor(pairs)


@settings(max_examples=200, deadline=None)
@given(n_q=sizes, n_k=sizes, rows=sizes, columns=sizes, causal=st.booleans())
def test_they_cover_what_may_be_seen_once(n_q, n_k, rows, columns, causal):
    may, times = allowed(n_q, n_k, causal), torch.zeros(n_q, n_k)
    corners = []
    for i, j, whole in tiles(n_q, n_k, (rows, columns), causal):
        times[i, j] += 1
        assert times[i, j].shape == (i.stop - i.start, j.stop - j.start), "beyond the border"
        assert i.stop - i.start <= rows
        assert j.stop - j.start <= columns
        assert may[i, j].any(), "nobody may see it: it is to be skipped"
        assert whole == bool(may[i, j].all())
        corners.append((i.start, j.start))
    assert times.max() <= 1
    assert (times[may] == 1).all()
    assert corners == sorted(corners), "row by row"


def test_a_number_is_both_sizes_and_by_default_all_is_seen():
    assert list(tiles(3, 4, 2)) == list(tiles(3, 4, (2, 2), False))
    assert list(tiles(3, 4, 2)) == [
        (slice(0, 2), slice(0, 2), True),
        (slice(0, 2), slice(2, 4), True),
        (slice(2, 3), slice(0, 2), True),
        (slice(2, 3), slice(2, 4), True),
    ]


@settings(max_examples=100, deadline=None)
@given(n_q=st.integers(1, 6), n_k=st.integers(1, 6), causal=st.booleans(), data=st.data())
def test_what_is_seen_of_a_tile(n_q, n_k, causal, data):
    rows = slice(*sorted(data.draw(st.lists(st.integers(0, n_q), min_size=2, max_size=2))))
    columns = slice(*sorted(data.draw(st.lists(st.integers(0, n_k), min_size=2, max_size=2))))
    may = allowed(n_q, n_k, causal)
    got = seen(rows, columns, n_q, n_k, causal)
    if causal:
        assert torch.equal(got, may[rows, columns])
    else:
        assert got is None
    shape = data.draw(
        st.tuples(st.sampled_from([1, 2]), st.sampled_from([1, n_q]), st.sampled_from([1, n_k]))
    )
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(n_q)) < 0.5
    got = seen(rows, columns, n_q, n_k, causal, mask)
    expected = (mask & may).expand(shape[0], n_q, n_k)[:, rows, columns]
    assert torch.equal(got.expand(expected.shape), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 1), "n_q must be an integer of at least 1, got 0"),
        ((1, 0, 1), "n_k must be an integer of at least 1, got 0"),
        ((1, 1, 0), "block must be an integer of at least 1, got 0"),
        ((1, 1, (1, 0)), "block must be an integer of at least 1, got 0"),
        ((1, 1, (0, 1)), "block must be an integer of at least 1, got 0"),
        (
            (1, 1, (1, 1, 1)),
            r"block must be an integer or a pair \(rows, columns\), got \(1, 1, 1\)",
        ),
        ((1, 1, 1, 1), "causal must be True or False, got 1"),
    ],
)
def test_bad_sizes_are_named(arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        tiles(*arguments)
