"""From the range of pictures to that of diffusion models and back."""

import pytest
import torch

from course_lib.data import to_signed, to_unit


def test_images_go_to_the_model_s_range_and_back():
    x = torch.tensor([0.0, 0.25, 1.0])
    assert to_signed(x).tolist() == [-1.0, -0.5, 1.0]
    assert torch.equal(to_unit(to_signed(x)), x)
    assert to_unit(torch.tensor([-1.5, 2.0])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("change", [to_signed, to_unit])
@pytest.mark.parametrize("bad", [torch.tensor([3, 4]), torch.tensor([torch.nan]), [0.5]])
def test_whole_numbers_and_nan_are_refused(change, bad):
    with pytest.raises(ValueError, match="images must"):
        change(bad)
