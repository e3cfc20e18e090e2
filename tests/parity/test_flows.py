"""NICE against the same flow in zuko and in nflows, with the same weights."""

import pytest
import torch

from course_lib.flows import NICE

pytest.importorskip("zuko", reason="parity needs the test extra: pip install -e .[test]")
pytest.importorskip("nflows", reason="parity needs the test extra: pip install -e .[test]")

from benchmarks.flows import in_nflows, in_zuko


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NICE(7, couplings=3, hidden=(16, 16), prior="gaussian")


def test_log_prob_agrees_with_zuko(model):
    x = torch.randn(50, 7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model.log_prob(x), in_zuko(model)().log_prob(x))


def test_log_prob_and_both_directions_agree_with_nflows(model):
    x = torch.randn(50, 7, generator=torch.Generator().manual_seed(1))
    flow = in_nflows(model)
    torch.testing.assert_close(model.log_prob(x), flow.log_prob(x))
    torch.testing.assert_close(model(x)[0], flow.transform_to_noise(x))
    torch.testing.assert_close(model.inverse(x)[0], flow._transform.inverse(x)[0])
