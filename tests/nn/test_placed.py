"""A module that knows its precision and device without weights."""

import torch
from torch import nn

from course_lib.nn import Placed


def test_it_goes_along_with_the_module_it_is_in():
    outer = nn.Sequential(Placed())
    assert outer[0].dtype == torch.float32
    outer.double()
    assert outer[0].dtype == torch.float64
    assert outer.to("meta")[0].device.type == "meta"


def test_it_is_stored_nowhere():
    assert not Placed().state_dict()
