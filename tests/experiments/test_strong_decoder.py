"""A decoder that sees the bits before needs no code; the numbers against exact enumeration."""

import itertools
import math

import pytest
import torch

from course_lib.experiments import fit_strength, noisy_copies
from course_lib.experiments.strong_decoder import BITS, FLIP, earlier_bits


def test_the_table_is_that_of_the_story():
    rows, probability = noisy_copies()
    assert len({tuple(row.tolist()) for row in rows}) == 2**BITS
    for k in (0, 3, 255):
        by_hand = sum(
            0.5 * math.prod(1 - FLIP if bit == coin else FLIP for bit in rows[k].tolist())
            for coin in (0, 1)
        )
        assert math.isclose(probability[k], by_hand, rel_tol=1e-5)


def test_a_decoder_sees_the_last_bits_before_and_no_other():
    rows, _ = noisy_copies()
    for sees, bit, other in itertools.product((0, 2, BITS - 1), range(BITS), range(BITS)):
        flipped = rows.clone()
        flipped[:, other] = 1 - flipped[:, other]
        changed = (earlier_bits(rows, sees) != earlier_bits(flipped, sees))[:, bit].any()
        assert changed == (0 < bit - other <= sees)


def test_the_code_dies_as_the_decoder_grows():
    weak, middle, strong = (fit_strength(sees) for sees in (0, 3, BITS - 1))
    assert weak.rate > 0.7  # more than the coin's log 2: the bound asks for a narrow q
    assert 0.2 < middle.rate < 0.6
    assert strong.rate < 0.1
    _, probability = noisy_copies()
    assert math.isclose(weak.entropy, torch.special.entr(probability).sum(), rel_tol=1e-5)
    for report in (weak, middle, strong):
        assert report.rate + report.distortion > report.entropy - 1e-3
    assert strong.rate + strong.distortion < weak.rate + weak.distortion - 0.1


def test_free_bits_are_used():
    report = fit_strength(BITS - 1, free_bits=0.5)
    assert 0.4 < report.rate < 0.7
    assert report.rate + report.distortion < report.entropy + 0.15


def test_one_seed_gives_one_report():
    assert fit_strength(2, steps=3, seed=5) == fit_strength(2, steps=3, seed=5)
    assert fit_strength(2, steps=3, seed=5) != fit_strength(2, steps=3, seed=6)


def test_bad_input():
    with pytest.raises(ValueError, match="sees must be"):
        fit_strength(BITS)
