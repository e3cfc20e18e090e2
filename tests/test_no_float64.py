"""The stand-ins for a device without float64 refuse what it would refuse, and nothing else."""

import pytest
import torch

from tests.no_float64 import REASON, NoFloat64, elsewhere


def test_nothing_may_be_float64_there():
    with NoFloat64():
        assert (torch.rand(3) + 1).dtype == torch.float32
        for make in (
            lambda: torch.rand(3, dtype=torch.float64),
            lambda: torch.zeros(3).double(),
            lambda: torch.zeros(2, 3).to(torch.float64).chunk(2),
        ):
            with pytest.raises(TypeError, match=REASON):
                make()


def test_what_lies_there_stays_there_until_it_is_taken_away():
    x = elsewhere(torch.arange(3.0))
    y = (2 * x).exp()[1:]
    with pytest.raises(TypeError, match=REASON):
        y.double()
    with pytest.raises(TypeError, match=REASON):
        torch.add(torch.zeros(2, dtype=torch.float64), y)
    there = y.cpu().double()
    assert type(there) is torch.Tensor
    with pytest.raises(TypeError, match=REASON):
        there.to(y).double()
    assert torch.equal(there.to(y), y)
