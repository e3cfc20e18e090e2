"""ODE solvers, continuous flows and flow matching against torchdiffeq, zuko and torchcfm."""

from itertools import pairwise

import pytest
import torch

from course_lib.diffusion import (
    FlowMatching,
    StraightPath,
    euler_step,
    heun_step,
    rk4_step,
)
from course_lib.flows import CNF
from course_lib.nn import TimeMLP

pytest.importorskip("zuko", reason="parity needs the test extra: pip install -e .[test]")

from torchdiffeq import odeint

from benchmarks.ode import in_zuko, plain_log_prob, torchcfm, zuko_log_prob

TIGHT = {"rtol": 1e-8, "atol": 1e-8}


@pytest.fixture(autouse=True)
def _same_start():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def net(dim=2):
    module = TimeMLP(dim, [16, 16], scale=3.0).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    return module


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("step", "method"), [(euler_step, "euler"), (heun_step, "heun2"), (rk4_step, "rk4_classic")]
)
@pytest.mark.parametrize("backwards", [False, True])
def test_fixed_steps_agree(step, method, backwards):
    """Their "rk4" is the 3/8 rule; the classical one it keeps as a function."""
    f, x = net(), draw(5, 2)
    times = torch.linspace(0, 1, 8, dtype=torch.float64)
    times = times.flip(0) if backwards else times

    def field(x, t):
        return f(x, torch.as_tensor(t, dtype=x.dtype).expand(len(x)))

    with torch.no_grad():
        if method == "rk4_classic":
            from torchdiffeq._impl.rk_common import rk4_step_func

            theirs = x
            for t, then in pairwise(times):
                change = rk4_step_func(
                    lambda t, x, perturb=None: field(x, t), t, then - t, then, theirs
                )
                theirs = theirs + change
        else:
            theirs = odeint(lambda t, x: field(x, t), x, times, method=method)[-1]
        ours = x
        for t, then in pairwise(times.tolist()):
            ours = step(field, ours, t, then - t)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_continuous_flows_agree():
    """With torchdiffeq used plainly, and with zuko, which has a solver of its own."""
    f, x = net(3), draw(4, 3)
    flow = CNF(3, f, rtol=1e-5, atol=1e-5).double()
    ours = flow.log_prob(x)
    plain = plain_log_prob(f, x.clone(), adjoint=False, probe=None)
    torch.testing.assert_close(ours, plain, rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(ours, zuko_log_prob(in_zuko(f), x), rtol=2e-4, atol=2e-4)
    z = draw(4, 3)
    with torch.no_grad():
        theirs = in_zuko(f).inv(z)
    torch.testing.assert_close(flow.inverse(z)[0], theirs, rtol=2e-4, atol=2e-4)


def test_their_gradients_agree_with_ours():
    f, x = net(), draw(6, 2)
    gradients = [
        torch.autograd.grad(loss.mean(), list(f.parameters()))
        for loss in (
            CNF(2, f, adjoint=True, **TIGHT).double().log_prob(x),
            plain_log_prob(f, x.clone(), adjoint=True, probe=None),
            zuko_log_prob(in_zuko(f), x),
        )
    ]
    for ours, *theirs in zip(*gradients, strict=True):
        for other in theirs:
            torch.testing.assert_close(ours, other, rtol=5e-3, atol=2e-4)


def test_a_probe_gives_the_same_estimate():
    f, x = net(), draw(6, 2)
    flow = CNF(2, f, divergence="hutchinson").double()
    ours = flow.log_prob(x, generator=torch.Generator().manual_seed(3))
    from course_lib.flows import random_signs

    probe = random_signs(x, torch.Generator().manual_seed(3))
    theirs = plain_log_prob(f, x.clone(), adjoint=False, probe=probe)
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-4)


def test_flow_matching_agrees_with_torchcfm():
    """Their x_0 is noise and their x_1 the data: their time is 1 - t, their velocity minus ours."""
    try:
        theirs = torchcfm("conditional_flow_matching", transport=False)
    except ModuleNotFoundError:
        pytest.skip("torchcfm is not installed")
    x = draw(8, 2)
    model = FlowMatching(net()).double()
    t, eps = model.draw(x, generator=torch.Generator().manual_seed(2))
    matcher = theirs.ConditionalFlowMatcher(sigma=0.0)
    same, x_t, velocity = matcher.sample_location_and_conditional_flow(eps, x, t=1 - t.double())
    torch.testing.assert_close(same, 1 - t.double())
    torch.testing.assert_close(x_t, StraightPath().noised(x, t, eps), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        model.loss(x, generator=torch.Generator().manual_seed(2)),
        (model.net(x_t, t.double()) + velocity).square().mean(),
        rtol=1e-6,
        atol=1e-6,
    )
