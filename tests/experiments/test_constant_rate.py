"""A quantized code is used, however strong the decoder; bounds by exact enumeration."""

import math
from functools import cache

import pytest

from course_lib.experiments import fit_codes, fit_strength
from course_lib.experiments.strong_decoder import BITS

trained = cache(fit_codes)  # one seed gives one report: no test trains what another has trained


@pytest.mark.parametrize("sees", [0, BITS - 1])
def test_two_codes_are_used_and_together_they_cost_what_the_data_cost(sees):
    report = trained(sees)
    assert math.isclose(report.rate, math.log(2), abs_tol=0.02)
    # No code can be shorter than the entropy, and this one is hardly longer.
    assert report.entropy - 1e-3 < report.rate + report.distortion < report.entropy + 0.1


def test_where_a_gaussian_code_is_given_up():
    sees_all = BITS - 1
    assert fit_strength(sees_all).rate < 0.1 < trained(sees_all).rate


def test_more_codes_say_more():
    two, four = trained(BITS - 1), fit_codes(BITS - 1, n_codes=4)
    assert two.rate + 0.3 < four.rate <= math.log(4) + 1e-6
    assert four.distortion < two.distortion - 0.2


def test_bad_input_and_one_seed():
    assert fit_codes(2, steps=3, seed=5) == fit_codes(2, steps=3, seed=5)
    with pytest.raises(ValueError, match="sees must be"):
        fit_codes(BITS)
    with pytest.raises(ValueError, match="n_codes must be"):
        fit_codes(0, n_codes=0)
