"""NICE here against the same architecture in zuko and in nflows: training step and sampling.

All three hold the same weights (``tests/parity`` checks that they compute the same density). Ours
also has the scaling layer, which zuko's and nflows' parts lack: it does a little more work. The
three take turns within one run, and what is compared is the median of many repetitions.
"""

import nflows.distributions
import nflows.flows
import nflows.transforms
import torch
import zuko
from torch import Tensor, nn

from benchmarks._timing import milliseconds, report, training_step
from course_lib.flows import NICE


class ContextFree(nn.Module):
    """A network with the second argument, context, that nflows passes to every network."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        """Ignore the context."""
        return self.net(x)


def in_zuko(model: NICE) -> nn.Module:
    """The same flow in zuko, with a copy of ``model``'s weights."""
    *couplings, _ = model.transforms
    hidden = [layer.out_features for layer in couplings[0].shift.layers[:-1:2]]
    flow = zuko.flows.NICE(
        couplings[0].event_shape[0],
        transforms=len(couplings),
        univariate=zuko.transforms.AdditiveTransform,
        shapes=[()],
        hidden_features=hidden,
    )
    for theirs, ours in zip(flow.transform.transforms, couplings, strict=True):
        theirs.hyper.load_state_dict(ours.shift.layers.state_dict())
    return flow


def in_nflows(model: NICE) -> nn.Module:
    """The same flow in nflows, with a copy of ``model``'s weights."""
    *couplings, _ = model.transforms
    dim = couplings[0].event_shape[0]
    widths = [layer.out_features for layer in couplings[0].shift.layers[:-1:2]]

    def network(n_in: int, n_out: int) -> nn.Module:
        layers = []
        for before, after in zip([n_in, *widths], widths, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return ContextFree(nn.Sequential(*layers, nn.Linear(widths[-1], n_out)))

    transforms = []
    for coupling in couplings:
        moved = torch.zeros(dim)
        moved[coupling.mask.moved] = 1
        transforms.append(nflows.transforms.AdditiveCouplingTransform(moved, network))
        transforms[-1].transform_net.net.load_state_dict(coupling.shift.layers.state_dict())
    return nflows.flows.Flow(
        nflows.transforms.CompositeTransform(transforms),
        nflows.distributions.StandardNormal([dim]),
    )


def main() -> int:
    """Compare at two sizes; 1 where ours is slower than a peer."""
    good = True
    for dim, hidden, batch in ((64, (128, 128), 128), (784, (400, 400), 128)):
        torch.manual_seed(0)
        ours = NICE(dim, hidden=hidden, prior="gaussian")
        zukos, nflowss = in_zuko(ours), in_nflows(ours)
        x = torch.randn(batch, dim)
        medians = milliseconds(
            {
                "ours": training_step(ours, ours.loss, x),
                "zuko": training_step(zukos, lambda x, flow=zukos: -flow().log_prob(x).mean(), x),
                "nflows": training_step(
                    nflowss, lambda x, flow=nflowss: -flow.log_prob(x).mean(), x
                ),
            }
        )
        good &= report(f"NICE({dim}, hidden={hidden}), training step, batch {batch}", medians)

        @torch.no_grad()
        def sample_zuko(flow: nn.Module = zukos) -> Tensor:
            return flow().sample((batch,))  # noqa: B023 - called within this round

        @torch.no_grad()
        def sample_nflows(flow: nn.Module = nflowss) -> Tensor:
            return flow.sample(batch)  # noqa: B023

        medians = milliseconds(
            {
                "ours": lambda flow=ours: flow.sample(batch),  # noqa: B023
                "zuko": sample_zuko,
                "nflows": sample_nflows,
            }
        )
        good &= report(f"NICE({dim}, hidden={hidden}), {batch} samples", medians)
    return 0 if good else 1
