"""NICE, RealNVP and Glow here against the same flows in other libraries: training and sampling.

All sides of a comparison hold the same weights (``tests/parity`` checks that they compute the same
numbers). They take turns within one run, and what is compared is the median of many repetitions.

- NICE against zuko and nflows. Ours also has the scaling layer, which their parts lack.
- RealNVP of points against zuko and normflows. normflows' couplings keep the first half of the
  coordinates where ours keep the even ones; otherwise the flow is the same.
- Glow against normflows. Ours checks its input and that of each of its parts, theirs do not.

The log-scales of RealNVP and Glow are unbounded here, since normflows has no bound. The bound of
the course's own models adds a few per cent to a training step.
"""

import copy
import warnings

import nflows.distributions
import nflows.flows
import nflows.transforms
import normflows
import torch
import zuko
from torch import Tensor, nn

from benchmarks._timing import milliseconds, report, training_step
from course_lib.flows import (
    NICE,
    ActNorm,
    AffineCoupling,
    CheckerboardMask,
    Flow,
    Glow,
    InvertibleConv1x1,
    RealNVP,
    Split,
    Squeeze,
    Transform,
)

# ------------------------------------------------------------------- our flows in other libraries


class ContextFree(nn.Module):
    """A network with the second argument, context, that nflows passes to every network."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        """Ignore the context."""
        return self.net(x)


class ExpAffine(zuko.transforms.MonotonicAffineTransform):
    """zuko's x exp(s) + t with s as it comes; zuko itself bends it, to keep its size below 6.9."""

    def __init__(self, shift: Tensor, scale: Tensor):
        super(zuko.transforms.MonotonicAffineTransform, self).__init__()
        self.shift, self.log_scale, self.scale = shift, scale, scale.exp()


def shift_beside_scale(layers: nn.Sequential) -> dict[str, Tensor]:
    """The weights of a network for (s₁, s₂, ..., t₁, t₂, ...), to answer (t₁, s₁, t₂, s₂, ...)."""
    weights = copy.deepcopy(layers.state_dict())
    for name in list(weights)[-2:]:
        scale, shift = weights[name].chunk(2)
        weights[name] = torch.stack([shift, scale], dim=1).flatten(0, 1)
    return weights


def widths(layers: nn.Sequential) -> list[int]:
    """The hidden widths of an MLP, or the hidden channels of a ConvNet."""
    return [len(layer.bias) for layer in layers[:-1:2]]


def in_zuko(model: NICE | RealNVP) -> nn.Module:
    """The same flow of points in zuko, with a copy of ``model``'s weights."""
    if isinstance(model, NICE):
        *couplings, _ = model.transforms
        weights = [coupling.shift.layers.state_dict() for coupling in couplings]
        options = {"univariate": zuko.transforms.AdditiveTransform, "shapes": [()]}
        hidden = widths(couplings[0].shift.layers)
    else:
        couplings = model.transforms
        weights = [shift_beside_scale(coupling.net.layers) for coupling in couplings]
        options = {"univariate": ExpAffine}
        hidden = widths(couplings[0].net.layers)
    dim = couplings[0].event_shape[0]
    flow = zuko.flows.RealNVP(dim, transforms=len(couplings), hidden_features=hidden, **options)
    for theirs, ours in zip(flow.transform.transforms, weights, strict=True):
        theirs.hyper.load_state_dict(ours)
    return flow.to(model.base.dtype)


def in_nflows(model: NICE) -> nn.Module:
    """The same flow in nflows, with a copy of ``model``'s weights."""
    *couplings, _ = model.transforms
    dim = couplings[0].event_shape[0]
    hidden = widths(couplings[0].shift.layers)

    def network(n_in: int, n_out: int) -> nn.Module:
        layers = []
        for before, after in zip([n_in, *hidden], hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return ContextFree(nn.Sequential(*layers, nn.Linear(hidden[-1], n_out)))

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


class Multiscale(normflows.MultiscaleFlow):
    """A flow of several scales in normflows, whose own ``log_prob`` can't start with an ActNorm."""

    def log_prob(self, x: Tensor, y: None = None) -> Tensor:
        """Log-density ``[B]``, by other methods of the class."""
        parts, log_det = self.inverse_and_log_det(x)
        return log_det + sum(base.log_prob(part) for base, part in zip(self.q0, parts, strict=True))


# What normflows calls forward leads from latents to data. Its inverse leads from data to latents,
# as our forward does, and takes the list of a flow's parts from the end.


def in_normflows(model: Flow) -> nn.Module:
    """The same RealNVP or Glow in normflows, with a copy of ``model``'s weights.

    A RealNVP of points must have an even dimension and number of couplings. It takes the even
    coordinates first, then the odd ones: ``x[:, halves(dim)]``.
    """
    if len(model.base.event_shape) == 1:
        return points_in_normflows(model)
    levels, bases, merges = [[]], [], []
    for transform in model.transforms:
        levels[-1].insert(0, part_in_normflows(transform))
        if isinstance(transform, Split):
            levels.append([])
            merges.append(normflows.flows.Merge())
    for shape in model.scale_shapes:
        bases.append(normflows.distributions.DiagGaussian(shape, trainable=False))
    theirs = Multiscale(bases[::-1], levels[::-1], merges, class_cond=False)
    return theirs.to(model.base.dtype)


def points_in_normflows(model: RealNVP) -> nn.Module:
    """RealNVP of points; between two couplings the halves change places."""
    dim = model.base.event_shape[0]
    parts = []
    for coupling in model.transforms:
        layers = coupling.net.layers
        net = normflows.nets.MLP([dim // 2, *widths(layers), dim])
        net.net.load_state_dict(shift_beside_scale(layers))
        affine = normflows.flows.AffineCouplingBlock(net)
        parts += [normflows.flows.Reverse(affine), normflows.flows.Permute(dim, mode="swap")]
    base = normflows.distributions.DiagGaussian(dim, trainable=False)
    return normflows.NormalizingFlow(base, parts[::-1]).to(model.base.dtype)


def halves(dim: int) -> list[int]:
    """The even coordinates, then the odd ones."""
    return [*range(0, dim, 2), *range(1, dim, 2)]


@torch.no_grad()
def part_in_normflows(part: Transform) -> nn.Module:
    """One part of a flow of images."""
    if isinstance(part, Squeeze):
        return normflows.flows.Squeeze()
    if isinstance(part, ActNorm):
        theirs = normflows.flows.ActNorm((*part.event_shape, 1, 1))
        theirs.t.copy_(-part.bias[:, None, None])
        theirs.s.copy_(-part.log_scale[:, None, None])
        theirs.data_dep_init_done.fill_(1)
        return theirs
    if isinstance(part, InvertibleConv1x1):
        theirs = normflows.flows.Invertible1x1Conv(part.channels, use_lu=part.lu)
        ours = part.state_dict()
        names = {"P": "permutation", "L": "lower", "U": "upper", "sign_S": "sign"}
        names |= {"log_S": "log_scale", "W": "matrix"}
        for name, tensor in theirs.state_dict().items():
            if name != "eye":
                tensor.copy_(ours[names[name]])
        return theirs
    if isinstance(part.mask, CheckerboardMask):
        return checkerboard_in_normflows(part)
    theirs = normflows.flows.AffineCouplingBlock(
        conv_net(part, shift_beside_scale(part.net.layers)),
        split_mode="channel_inv" if part.flip else "channel",
    )
    return normflows.flows.Reverse(theirs)


def checkerboard_in_normflows(part: AffineCoupling) -> nn.Module:
    """There, log-scale and shift have a network each; so each gets a copy of all but the end."""
    nets = []
    for i in range(2):
        weights = copy.deepcopy(part.net.layers.state_dict())
        for name in list(weights)[-2:]:
            weights[name] = weights[name].chunk(2)[i]
        nets.append(conv_net(part, weights))
    log_scale, shift = nets
    keep = part.mask.keep.expand(part.event_shape)
    theirs = normflows.flows.MaskedAffineFlow(keep.clone(), t=shift, s=log_scale)
    return normflows.flows.Reverse(theirs)


def conv_net(part: AffineCoupling, weights: dict[str, Tensor]) -> nn.Module:
    """The ``ConvNet`` of a coupling, in normflows."""
    kernels = [layer.kernel_size[0] for layer in part.net.layers[::2]]
    n_out = len(list(weights.values())[-1])
    channels = [part.net.n_in, *widths(part.net.layers), n_out]
    net = normflows.nets.ConvNet2d(channels, kernels)
    net.net.load_state_dict(weights)
    return net


# ------------------------------------------------------------------------------- the comparisons


def compare(what: str, sides: dict[str, tuple], batch: int, repetitions: int = 150) -> bool:
    """Training step and sampling of all sides; whether ours is as fast as every other.

    A side is its model, its loss, its data ``[batch, *event]``, and a function that samples.
    """
    steps = {name: training_step(model, loss, x) for name, (model, loss, x, _) in sides.items()}
    medians = milliseconds(steps, repetitions=repetitions)
    good = report(f"{what}, training step, batch {batch}", medians)
    with torch.no_grad():
        samplers = {name: sample for name, (*_, sample) in sides.items()}
        medians = milliseconds(samplers, repetitions=repetitions)
    return report(f"{what}, {batch} samples", medians) and good


def our_side(model: Flow, x: Tensor) -> tuple:
    """A flow of the course."""
    return model, model.loss, x, lambda: model.sample(len(x))


def zuko_side(model: nn.Module, x: Tensor) -> tuple:
    """A flow of zuko."""
    return model, lambda x: -model().log_prob(x).mean(), x, lambda: model().sample((len(x),))


def nflows_side(model: nn.Module, x: Tensor) -> tuple:
    """A flow of nflows."""
    return model, lambda x: -model.log_prob(x).mean(), x, lambda: model.sample(len(x))


def normflows_side(model: nn.Module, x: Tensor) -> tuple:
    """A flow of normflows."""
    return model, model.forward_kld, x, lambda: model.sample(len(x))


def nice() -> bool:
    """NICE at two sizes; whether ours is the fastest."""
    good = True
    for dim, hidden, batch in ((64, (128, 128), 128), (784, (400, 400), 128)):
        ours = NICE(dim, hidden=hidden, prior="gaussian")
        x = torch.randn(batch, dim)
        sides = {
            "ours": our_side(ours, x),
            "zuko": zuko_side(in_zuko(ours), x),
            "nflows": nflows_side(in_nflows(ours), x),
        }
        good &= compare(f"NICE({dim}, hidden={hidden})", sides, batch)
    return good


def realnvp() -> bool:
    """RealNVP of points at two sizes; whether ours is the fastest."""
    good = True
    for dim, hidden, batch in ((2, (64, 64), 512), (64, (128, 128), 128)):
        ours = RealNVP(dim, hidden=hidden, bound=None)
        x = torch.randn(batch, dim)
        sides = {
            "ours": our_side(ours, x),
            "zuko": zuko_side(in_zuko(ours), x),
            "normflows": normflows_side(in_normflows(ours), x[:, halves(dim)]),
        }
        good &= compare(f"RealNVP({dim}, hidden={hidden})", sides, batch)
    return good


def glow() -> bool:
    """Glow at two sizes; whether ours is the fastest."""
    good = True
    for shape, batch, repetitions in (((1, 8, 8), 64, 100), ((1, 28, 28), 64, 40)):
        ours = unbounded(Glow(shape, levels=2, depth=4, hidden=32, bound=None))
        x = torch.rand(batch, *shape)
        ours(x)  # sets the ActNorms
        sides = {
            "ours": our_side(ours, x),
            "normflows": normflows_side(in_normflows(ours), x),
        }
        what = f"Glow({shape}, levels=2, depth=4, hidden=32)"
        good &= compare(what, sides, batch, repetitions)
    return good


def unbounded(model: Flow) -> Flow:
    """The same model without a bound on the log-scale of its conditional priors either."""
    for transform in model.transforms:
        if isinstance(transform, Split):
            transform.bound = None
    return model


def main() -> int:
    """Run all; 1 where ours is slower than a peer."""
    warnings.filterwarnings("ignore", "torch.lu is deprecated")  # normflows calls it
    torch.manual_seed(0)
    results = [part() for part in (nice, realnvp, glow)]
    return 0 if all(results) else 1
