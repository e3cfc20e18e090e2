"""Rectified flow against torchcfm, on the same draws."""

import pytest
import torch

from course_lib.diffusion import RectifiedFlow, interpolate
from course_lib.nn import TimeMLP, UNet

pytest.importorskip("zuko", reason="parity needs the test extra: pip install -e .[test]")

from benchmarks.ode import torchcfm


@pytest.mark.parametrize(
    "net",
    [TimeMLP(2, [32], scale=1000.0), UNet((1, 8, 8), widths=(8, 16), scale=1000.0)],
    ids=["points", "images"],
)
def test_place_target_loss_and_gradients(net):
    """Torchcfm goes from its x0 to its x1 with x1 − x0: here with its time as ours, both alike."""
    try:
        theirs = torchcfm("conditional_flow_matching", transport=False)
    except ModuleNotFoundError:
        pytest.skip("torchcfm is not installed")
    matcher = theirs.ConditionalFlowMatcher(sigma=0.0)
    draw = torch.Generator().manual_seed(0)
    x0, x1 = (torch.randn(20, *net.event_shape, generator=draw) for _ in range(2))
    seed = torch.Generator().manual_seed(1)
    t = torch.rand(20, generator=torch.Generator().manual_seed(1))
    told, x_t, velocity = matcher.sample_location_and_conditional_flow(x0, x1, t=t)
    assert torch.equal(told, t)
    torch.testing.assert_close(interpolate(x0, x1, t), x_t, rtol=1e-6, atol=1e-6)
    ours = RectifiedFlow(net).loss(x0, x1, generator=seed)
    theirs = (net(x_t, t) - velocity).square().mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    gradients = (torch.autograd.grad(loss, net.parameters()) for loss in (ours, theirs))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
