"""The size of the chain rule's tables, by counting histories."""

import itertools

import pytest

from course_lib.autoregressive import table_size


def test_table_size():
    assert [table_size(n) for n in range(1, 30)] == [2**n - 1 for n in range(1, 30)]
    for n in (1, 3, 5):  # one number for each history that there is
        histories = [h for i in range(n) for h in itertools.product((0, 1), repeat=i)]
        assert table_size(n) == len(histories)
    with pytest.raises(ValueError, match="dim must be an integer of at least 1, got 0"):
        table_size(0)
