"""The bits of a map of codes, by counting maps."""

import math

import pytest

from course_lib.latent import code_bits


def test_code_bits():
    for height, width, n_codes in ((1, 1, 2), (2, 2, 4), (1, 3, 5)):
        maps = n_codes ** (height * width)  # one name for each: that many bits
        assert math.isclose(2 ** code_bits(height, width, n_codes), maps)
    with pytest.raises(ValueError, match="width must be an integer of at least 1, got 0"):
        code_bits(7, 0, 64)
