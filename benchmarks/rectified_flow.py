"""Rectified flow beside torchcfm: ``python -m benchmarks rectified_flow``.

A training step on given pairs, the same network on both sides. Without torchcfm it says so.
"""

import torch
from torch import Tensor, nn

from benchmarks._timing import milliseconds, report, training_step
from benchmarks.ode import torchcfm
from course_lib.diffusion import RectifiedFlow
from course_lib.nn import TimeMLP, UNet


def rectified_step() -> bool:
    """A training step of rectified flow in the plane and on digits; whether ours is as fast."""
    try:
        theirs = torchcfm("conditional_flow_matching", transport=False)
    except ModuleNotFoundError:  # no dependency of the tests: it would bring another PyTorch along
        print("rectified flow: torchcfm is not here (pip install --no-deps torchcfm)")
        return True
    matcher, good = theirs.ConditionalFlowMatcher(sigma=0.0), True
    for net, shape, repetitions in (
        (TimeMLP(2, scale=1000.0), (256, 2), 400),
        (UNet((1, 8, 8), widths=(24, 48), scale=1000.0), (128, 1, 8, 8), 100),
    ):
        model, x0, x1 = RectifiedFlow(net), torch.randn(shape), torch.randn(shape)

        def their_loss(x0: Tensor, net: nn.Module = net, x1: Tensor = x1) -> Tensor:
            t, x_t, velocity = matcher.sample_location_and_conditional_flow(x0, x1)
            return (net(x_t, t) - velocity).square().mean()

        def our_loss(x0: Tensor, model: RectifiedFlow = model, x1: Tensor = x1) -> Tensor:
            return model.loss(x0, x1)

        steps = {
            "ours": training_step(net, our_loss, x0),
            "torchcfm": training_step(net, their_loss, x0),
        }
        what = f"rectified flow, {type(net).__name__}, pairs {list(shape)}"
        medians = milliseconds(steps, repetitions=repetitions)
        good &= report(f"{what}, training step", medians)
    return good


def main() -> int:
    """Run all; 1 where ours is slower."""
    torch.manual_seed(0)
    return 0 if rectified_step() else 1
