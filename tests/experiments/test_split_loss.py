"""A loss that is split over processes: the gradient of the whole, and the mean of the parts."""

import pytest
import torch

from course_lib.experiments import split_gradient

ERRORS = torch.tensor([1.0, -2.0, 3.0, 0.5, -1.5, 4.0])


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
def test_a_mean_of_terms_may_be_split(processes):
    whole, averaged = split_gradient(lambda e: e.square().mean(), ERRORS, processes)
    torch.testing.assert_close(whole, 2 * ERRORS / 6)
    torch.testing.assert_close(averaged, whole)


def test_a_sum_is_off_by_the_number_of_processes():
    whole, averaged = split_gradient(lambda e: e.square().sum(), ERRORS, 3)
    torch.testing.assert_close(3 * averaged, whole)


def test_what_depends_on_the_others_of_a_share_is_split_as_its_shares_are():
    whole, averaged = split_gradient(lambda e: e.mean() ** 2, ERRORS, 2)
    torch.testing.assert_close(whole, (2 * ERRORS.mean() / 6).expand(6))
    torch.testing.assert_close(averaged[:3], (2 * ERRORS[:3].mean() / 6).expand(3))
    torch.testing.assert_close(averaged[3:], (2 * ERRORS[3:].mean() / 6).expand(3))
    assert not ERRORS.requires_grad


@pytest.mark.parametrize(
    ("errors", "processes", "match"),
    [
        (ERRORS, 4, "processes must divide the batch of 6, got 4"),
        (ERRORS, 0, "processes must be"),
        (ERRORS[None], 2, "errors must have shape"),
        (ERRORS * float("inf"), 2, "errors must be finite"),
    ],
)
def test_bad_input(errors, processes, match):
    with pytest.raises(ValueError, match=match):
        split_gradient(lambda e: e.mean(), errors, processes)
