"""MADE and NADE against other formulations of the same model, with the same weights."""

import pytest
import torch

from course_lib.autoregressive import MADE, NADE

pytest.importorskip("zuko", reason="parity needs the test extra: pip install -e .[test]")
pytest.importorskip("nflows", reason="parity needs the test extra: pip install -e .[test]")

from benchmarks.autoregressive import (
    LoopNADE,
    NaiveNADE,
    bernoulli,
    in_nflows,
    in_zuko,
    mean_nll,
)


@pytest.fixture(autouse=True)
def _same_start():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def all_binary(n):
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * n)


@pytest.mark.parametrize("translate", [in_nflows, in_zuko])
@pytest.mark.parametrize("hidden", [[30], [24, 24], [16, 16, 16]])
def test_made_agrees_on_all_states(translate, hidden):
    model = MADE(9, hidden)
    x = all_binary(9)
    torch.testing.assert_close(model.log_prob(x), bernoulli(translate(model))(x))


@pytest.mark.parametrize("translate", [in_nflows, in_zuko])
def test_made_agrees_in_double_precision(translate):
    model = MADE(9, [30]).double()
    x = all_binary(9).double()
    theirs = bernoulli(translate(model).double())(x)
    torch.testing.assert_close(model.log_prob(x), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("translate", [in_nflows, in_zuko])
def test_made_agrees_in_gradients(translate):
    model = MADE(9, [30])
    net = translate(model)
    x = all_binary(9)
    model.loss(x).backward()
    mean_nll(bernoulli(net))(x).backward()
    theirs = [p.grad for p in net.parameters()]
    assert len(theirs) == 4
    for ours, other in zip(model.parameters(), theirs, strict=True):
        torch.testing.assert_close(ours.grad, other)


def test_made_agrees_at_the_size_of_mnist():
    model = MADE(784, [500])  # warns: input 782 is never used
    x = torch.randint(2, (20, 784)).float()
    ours = model.log_prob(x)
    for translate in (in_nflows, in_zuko):
        torch.testing.assert_close(ours, bernoulli(translate(model))(x))


@pytest.mark.parametrize("formulation", [LoopNADE, NaiveNADE])
@pytest.mark.parametrize(("dim", "hidden"), [(1, 3), (2, 1), (9, 5)])
def test_nade_agrees_on_all_states(formulation, dim, hidden):
    model = NADE(dim, hidden).double()
    nudge(model)
    x = all_binary(dim).reshape(2**dim, dim).double()
    theirs = bernoulli(formulation(model))(x)
    torch.testing.assert_close(model.log_prob(x), theirs, rtol=1e-12, atol=1e-12)


def test_nade_agrees_in_gradients():
    model = NADE(9, 5).double()
    nudge(model)
    loop = LoopNADE(model)
    x = all_binary(9).double()
    model.loss(x).backward()
    mean_nll(bernoulli(loop))(x).backward()
    for name, parameter in loop.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad)


@pytest.mark.parametrize("batch", [1, 7])
def test_nade_agrees_where_a_batch_is_cut_into_parts(batch):
    model = NADE(784, 200)  # one image alone is as much as is computed at once
    nudge(model)
    x = torch.randint(2, (batch, 784)).float()
    torch.testing.assert_close(model.log_prob(x), bernoulli(LoopNADE(model))(x))


def nudge(model):
    """Biases are zero at the start; here they shall count."""
    with torch.no_grad():
        model.b.normal_()
        model.c.normal_()
