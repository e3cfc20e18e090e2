"""How well a contour follows another: counted by hand, and by distances between pixels."""

import re

import pytest
import torch

from course_lib.metrics import contour_agreement


def contours(n=4, size=12, seed=0, share=0.1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 1, size, size, generator=generator) < share).to(dtype)


def by_distance(found, wanted, within):
    """The F-score of one pair, from the pixels' places."""
    these, those = found[0].nonzero().float(), wanted[0].nonzero().float()
    near = torch.cdist(these, those, p=float("inf")) <= within
    precision = near.any(1).double().mean().item()
    recall = near.any(0).double().mean().item()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("within", [0, 1, 3])
def test_it_is_the_f_score_of_near_pixels(within):
    found, wanted = contours(), contours(seed=1, share=0.03)
    got = contour_agreement(found, wanted, within=within)
    expected = [by_distance(a, b, within) for a, b in zip(found, wanted, strict=True)]
    assert got.tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(contour_agreement(wanted, found, within=within), got)
    if within == 1:
        assert torch.equal(contour_agreement(found, wanted), got)


def test_the_same_agrees_and_nothing_agrees_with_nothing():
    found, empty = contours(), torch.zeros(4, 1, 12, 12)
    assert contour_agreement(found, found).tolist() == [1.0] * 4
    for pair in ((found, empty), (empty, found), (empty, empty)):
        assert contour_agreement(*pair).tolist() == [0.0] * 4
    few = contours(dtype=torch.float64)
    assert contour_agreement(few, few).dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (torch.zeros(2, 3, 4, 4),) * 2,
            "found must have shape [B, 1, any, any], got [2, 3, 4, 4]",
        ),
        (
            (torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4)),
            "wanted must have shape [2, 1, 4, 4], got [1, 1, 4, 4]",
        ),
        (
            (torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, 1, 2, 2)),
            "found must hold zeros and ones, got 0.5",
        ),
        (
            (torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 2.0)),
            "wanted must hold zeros and ones, got 2.0",
        ),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        contour_agreement(*arguments)
    with pytest.raises(ValueError, match=r"^within must be an integer of at least 0, got -1$"):
        contour_agreement(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), within=-1)
