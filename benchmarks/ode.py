"""Continuous flows, ODE and SDE samplers and flow matching here beside other libraries.

All sides of a comparison hold the same network (``tests/parity`` checks that they compute the same
numbers). They take turns within one run, and what is compared is the median of many repetitions.
A network wants a time for each example: theirs gets copies, as torchcfm's ``torch_wrapper`` makes
them; ours gets one that stands for all, whose embedding is computed once.

- A continuous flow's log-density, a training step and samples, against torchdiffeq used plainly, as
  in its own example of such a flow, and against zuko, all with the same tolerances.
- A step of flow matching against torchcfm; with pairs by optimal transport against its own pairs,
  for which the package POT must be there.
- Sampling by Euler and Maruyama's method against torchsde, which solves the same reverse SDE.
- A step of our ODE and SDE samplers against bare calls of the network: what is beyond, at most
  ``SLACK``, is for checks and the step itself.
"""

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint
from torchsde import sdeint
from zuko.transforms import FreeFormJacobianTransform

from benchmarks._timing import milliseconds, report, training_step
from course_lib.diffusion import (
    Denoiser,
    FlowMatching,
    VPPath,
    euler_maruyama,
    last,
    ode_sample,
    predictor_corrector,
)
from course_lib.flows import CNF, random_signs
from course_lib.nn import TimeMLP, UNet

TOLERANCE = 1e-5
SLACK = 0.05

# ------------------------------------------------------------------ our flow in other libraries


class PlainField(nn.Module):
    """What torchdiffeq's ``examples/cnf.py`` gives to ``odeint``: a state and its log-density."""

    def __init__(self, net: nn.Module, probe: Tensor | None = None):
        super().__init__()
        self.net, self.probe = net, probe

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """dx/dt and the divergence."""
        x = state[0]
        with torch.set_grad_enabled(True):
            x.requires_grad_(True)
            value = self.net(x, t.repeat(len(x)))
            if self.probe is None:
                trace = 0.0
                for i in range(x.shape[1]):
                    trace += torch.autograd.grad(value[:, i].sum(), x, create_graph=True)[0][:, i]
            else:
                (product,) = torch.autograd.grad(value, x, self.probe, create_graph=True)
                trace = (product * self.probe).sum(1)
        return value, trace[:, None]


def normal_log_prob(z: Tensor) -> Tensor:
    """The standard normal log-density ``[B]``."""
    return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)


def plain_log_prob(net: nn.Module, x: Tensor, *, adjoint: bool, probe: Tensor | None) -> Tensor:
    """The log-density ``[B]`` by torchdiffeq alone."""
    solve = odeint_adjoint if adjoint else odeint
    t, start = torch.tensor([0.0, 1.0]).to(x), (x, x.new_zeros(len(x), 1))
    field = PlainField(net, probe)
    z, log_det = solve(field, start, t, atol=TOLERANCE, rtol=TOLERANCE, method="dopri5")
    return normal_log_prob(z[-1]) + log_det[-1][:, 0]


def plain_sample(net: nn.Module, n: int, dim: int) -> Tensor:
    """Samples by torchdiffeq alone."""
    z, t = torch.randn(n, dim), torch.tensor([1.0, 0.0])
    field = lambda t, x: net(x, t.repeat(len(x)))  # noqa: E731
    return odeint(field, z, t, atol=TOLERANCE, rtol=TOLERANCE, method="dopri5")[-1]


def in_zuko(net: nn.Module, *, exact: bool = True) -> FreeFormJacobianTransform:
    """The same map in zuko."""
    return FreeFormJacobianTransform(
        lambda t, x: net(x, t.repeat(len(x))),
        0.0,
        1.0,
        net.parameters(),
        atol=TOLERANCE,
        rtol=TOLERANCE,
        exact=exact,
    )


def zuko_log_prob(flow: FreeFormJacobianTransform, x: Tensor) -> Tensor:
    """The log-density ``[B]`` by zuko."""
    z, log_det = flow.call_and_ladj(x)
    return normal_log_prob(z) + log_det


# ------------------------------------------------------------------------------------- torchcfm


def torchcfm(name: str, *, transport: bool) -> types.ModuleType:
    """A module of torchcfm by its file; without POT its couplings by transport are left out."""
    package = importlib.util.find_spec("torchcfm")
    if package is None:
        raise ModuleNotFoundError("torchcfm")
    folder = Path(package.submodule_search_locations[0])
    parent = types.ModuleType("torchcfm")
    parent.__path__, parent.__spec__ = [str(folder)], package  # so that it is found again
    sys.modules["torchcfm"] = parent  # its __init__ imports POT, Lightning and more
    if not transport:
        stub = types.ModuleType("torchcfm.optimal_transport")
        stub.OTPlanSampler = None
        sys.modules["torchcfm.optimal_transport"] = stub
    return importlib.import_module(f"torchcfm.{name}")


# ------------------------------------------------------------------------------- the comparisons


def randomized(net: nn.Module) -> nn.Module:
    """A network whose field moves points by about their own spread."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def continuous_flows() -> bool:
    """Continuous flows at three sizes; whether ours is as fast as every other."""
    results = [
        continuous_flow(2, [64, 64], 512, "exact"),
        continuous_flow(8, [64, 64], 256, "exact"),
        continuous_flow(64, [128, 128], 128, "hutchinson"),
    ]
    return all(results)


def continuous_flow(dim: int, hidden: list[int], batch: int, divergence: str) -> bool:
    """Density, training step and samples; whether ours is as fast as every other."""
    net = randomized(TimeMLP(dim, hidden, scale=10.0))
    x, exact = torch.randn(batch, dim), divergence == "exact"
    ours, learning = (
        CNF(dim, net, divergence=divergence, adjoint=adjoint) for adjoint in (False, True)
    )
    theirs = in_zuko(net, exact=exact)

    def plain(x: Tensor, *, adjoint: bool) -> Tensor:
        probe = None if exact else random_signs(x)
        return plain_log_prob(net, x, adjoint=adjoint, probe=probe)

    densities = {
        "ours": lambda: ours.log_prob(x),
        "torchdiffeq": lambda: plain(x.clone(), adjoint=False),
        "zuko": lambda: zuko_log_prob(theirs, x),
    }
    what = f"CNF({dim}, hidden={hidden}), {divergence}, batch {batch}"
    with torch.no_grad():
        medians = milliseconds(densities, repetitions=20, warm_up=3)
    good = report(f"{what}, log-density", medians)
    losses = {
        "ours": ours.loss,
        "torchdiffeq": lambda x: -plain(x.clone(), adjoint=False).mean(),
        "zuko": lambda x: -zuko_log_prob(theirs, x).mean(),
    }
    steps = {name: training_step(net, loss, x) for name, loss in losses.items()}
    medians = milliseconds(steps, repetitions=10, warm_up=2)
    good &= report(f"{what}, training step", medians)
    steps = {
        "ours": training_step(net, learning.loss, x),
        "torchdiffeq": training_step(net, lambda x: -plain(x.clone(), adjoint=True).mean(), x),
    }
    medians = milliseconds(steps, repetitions=10, warm_up=2)
    good &= report(f"{what}, training step by the adjoint", medians)
    samplers = {
        "ours": lambda: ours.sample(batch),
        "torchdiffeq": lambda: plain_sample(net, batch, dim),
        "zuko": lambda: theirs.inv(torch.randn(batch, dim)),
    }
    with torch.no_grad():
        medians = milliseconds(samplers, repetitions=40, warm_up=5)
    return report(f"{what}, {batch} samples", medians) and good


def matching() -> bool:
    """A training step of flow matching; whether ours is as fast as torchcfm's."""
    good, found = True, importlib.util.find_spec("ot") is not None
    try:
        theirs = torchcfm("conditional_flow_matching", transport=found)
    except ModuleNotFoundError:  # no dependency of the tests: it would bring another PyTorch along
        print("flow matching: torchcfm is not here (pip install --no-deps torchcfm)")
        return True
    for coupling in ("independent", "ot") if found else ("independent",):
        for net, shape in (
            (TimeMLP(2, [128, 128, 128], scale=1000), (512, 2)),
            (UNet((1, 8, 8), widths=(24, 48), scale=1000.0), (128, 1, 8, 8)),
        ):
            model = FlowMatching(net, coupling=coupling)
            matcher = (
                theirs.ConditionalFlowMatcher(sigma=0.0)
                if coupling == "independent"
                else theirs.ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
            )

            def their_loss(x: Tensor, net: nn.Module = net, matcher: object = matcher) -> Tensor:
                t, x_t, velocity = matcher.sample_location_and_conditional_flow(
                    torch.randn_like(x), x
                )
                return (net(x_t, t) - velocity).square().mean()

            x = torch.randn(shape)
            steps = {
                "ours": training_step(net, model.loss, x),
                "torchcfm": training_step(net, their_loss, x),
            }
            what = f"flow matching, {coupling}, {type(net).__name__}, data {list(shape)}"
            good &= report(f"{what}, training step", milliseconds(steps, repetitions=60))
    if not found:
        print("flow matching, ot: torchcfm's needs the package POT, which is not here")
    return good


def calls(net: nn.Module, shape: tuple, number: int) -> Iterator[Tensor]:
    """Nothing but calls of the network."""
    x, times = torch.randn(shape), torch.full((shape[0],), 0.5)
    while True:
        for _ in range(number):
            value = net(x, times)
        yield value


@torch.no_grad()
def sampling() -> bool:
    """A step of each ODE sampler against bare calls; whether it adds little."""
    good = True
    for shape, widths in (((1, 28, 28), (16, 32, 64)), ((1, 8, 8), (32, 64))):
        model = FlowMatching(randomized(UNet(shape, widths=widths, scale=1000.0)).eval())
        for n in (1, 16, 64):
            batch, repetitions = (n, *shape), {1: 200, 16: 80, 64: 25}[n]
            for solver, number in (("euler", 1), ("heun", 2), ("rk4", 4)):
                sides = {
                    "ours": ode_sample(model, batch, steps=1000, solver=solver),
                    "network": calls(model.net, batch, number),
                }
                next(sides["ours"])  # the noise
                steps: dict[str, Callable] = {name: side.__next__ for name, side in sides.items()}
                medians = milliseconds(steps, repetitions=repetitions // number + 5)
                what = f"UNet({shape}, widths={widths}), batch {n}, a step of {solver}"
                good &= report(f"{what} and its {number} calls", medians, slack=SLACK)
    return good


class PlainSDE(nn.Module):
    """What torchsde is given: VP's reverse SDE for a network that predicts eps, and no checks."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self, net: nn.Module, path: VPPath, shape: tuple):
        super().__init__()
        self.net, self.path, self.shape = net, path, shape

    def f(self, u: Tensor, x: Tensor) -> Tensor:
        """The drift, u = 1 − t after the noise."""
        t = 1 - u
        eps = self.net(x.reshape(self.shape), t.expand(len(x))).reshape(x.shape)
        beta = self.path.beta(t)
        return 0.5 * beta * x - beta / self.path.b(t) * eps

    def g(self, u: Tensor, x: Tensor) -> Tensor:
        """The diffusion."""
        return self.path.beta(1 - u).sqrt() * torch.ones_like(x)


@torch.no_grad()
def stochastic() -> bool:
    """SDE samplers: against torchsde, and a step against bare calls."""
    good, path, steps = True, VPPath(), 50
    for net, shape in (
        (TimeMLP(2, [128, 128, 128], scale=1000.0), (512, 2)),
        (UNet((1, 8, 8), widths=(24, 48), scale=1000.0), (64, 1, 8, 8)),
    ):
        model = Denoiser(randomized(net).eval(), path)
        plain, ts = PlainSDE(net, path, shape), torch.tensor([0.0, 1 - path.t_min])

        def theirs(plain: nn.Module = plain, ts: Tensor = ts, shape: tuple = shape) -> Tensor:
            z = torch.randn(shape).flatten(1)
            return sdeint(plain, z, ts, method="euler", dt=(1 - path.t_min) / steps)[-1]

        sides = {
            "ours": lambda model=model, shape=shape: last(
                euler_maruyama(model, shape, steps=steps)
            ),
            "torchsde": theirs,
        }
        what = f"{type(net).__name__}, batch {shape[0]}, {steps} steps of Euler and Maruyama"
        good &= report(what, milliseconds(sides, repetitions=15, warm_up=2))
    for shape, widths in (((1, 28, 28), (16, 32, 64)), ((1, 8, 8), (32, 64))):
        model = Denoiser(randomized(UNet(shape, widths=widths, scale=1000.0)).eval(), path)
        for n in (1, 16, 64):
            batch, repetitions = (n, *shape), {1: 200, 16: 80, 64: 25}[n]
            for sampler, number in ((euler_maruyama, 1), (predictor_corrector, 2)):
                sides = {
                    "ours": sampler(model, batch, steps=1000),
                    "network": calls(model.net, batch, number),
                }
                next(sides["ours"])  # the noise
                turns: dict[str, Callable] = {name: side.__next__ for name, side in sides.items()}
                medians = milliseconds(turns, repetitions=repetitions // number + 5)
                what = f"UNet({shape}, widths={widths}), batch {n}, a step of {sampler.__name__}"
                good &= report(f"{what} and its {number} calls", medians, slack=SLACK)
    return good


def main() -> int:
    """Run all; 1 where ours is slower than a peer, or a sampler adds too much."""
    torch.manual_seed(0)
    results = [part() for part in (continuous_flows, matching, sampling, stochastic)]
    return 0 if all(results) else 1
