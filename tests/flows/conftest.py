"""What the flow tests share: transforms that do something, and a fixed source of randomness."""

import math

import pytest
import torch

from course_lib.flows import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    CheckerboardMask,
    DiagonalScaling,
    Flow,
    Glow,
    InvertibleConv1x1,
    Logit,
    Permutation,
    Planar,
    RealNVP,
    Split,
    Squeeze,
    Standardize,
)


@pytest.fixture(autouse=True)
def _the_same_start_every_time():
    """Fresh layers draw from the global source: seeded here, and put back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20141030)


def randomize(module, generator, scale=1.0):
    """Give every parameter of ``module`` a random value, so that no test passes on an identity."""
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = math.prod(parameter.shape[1:])
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.copy_(scale * noise / fan_in**0.5)
    for part in module.modules():
        if isinstance(part, ActNorm):
            part.initialized.fill_(True)  # otherwise the first batch would set it again
    return module


def measured(dim):
    """A Standardize that has seen data: no coordinate keeps its place or its size."""
    standardize = Standardize(dim)
    standardize.mean.copy_(torch.arange(dim) - 0.5)
    standardize.std.copy_(torch.linspace(0.3, 4.0, dim))
    return standardize


# Transforms of points, for any number of dimensions from 2 on.
TRANSFORMS = {
    "coupling": lambda dim: AdditiveCoupling(dim, [16], flip=False),
    "coupling flipped": lambda dim: AdditiveCoupling(dim, [16, 8], flip=True),
    "linear coupling": lambda dim: AdditiveCoupling(dim, [], flip=False),
    "affine coupling": lambda dim: AffineCoupling(dim, [8], flip=False),
    "affine coupling flipped": lambda dim: AffineCoupling(dim, [8], flip=True, bound=None),
    "scaling": DiagonalScaling,
    "standardize": measured,
    "reversal": Permutation,
    "permutation": lambda dim: Permutation(dim, order=[*range(1, dim), 0]),
    "planar": Planar,
    "actnorm": ActNorm,
    "logit": lambda dim: Logit(dim, alpha=0.05),
    "realnvp": lambda dim: RealNVP(dim, couplings=3, hidden=(8,)),
}

# Transforms of images, each with the shape of the images on which it is tested.
IMAGE_TRANSFORMS = {
    "additive, channels": ((3, 4, 2), lambda s: AdditiveCoupling(s, [4], flip=False)),
    "additive, checkerboard": (
        (2, 3, 3),
        lambda s: AdditiveCoupling(s, [4], flip=True, mask=CheckerboardMask),
    ),
    "affine, channels": ((3, 4, 2), lambda s: AffineCoupling(s, [4], flip=False)),
    "affine, channels flipped": ((3, 2, 4), lambda s: AffineCoupling(s, [4, 4], flip=True)),
    "affine, checkerboard": (
        (1, 3, 5),
        lambda s: AffineCoupling(s, [4], flip=False, mask=CheckerboardMask),
    ),
    "affine, checkerboard flipped": (
        (2, 4, 3),
        lambda s: AffineCoupling(s, [4], flip=True, mask=CheckerboardMask, bound=None),
    ),
    "squeeze": ((3, 2, 4), lambda s: Squeeze()),
    "split": ((4, 2, 3), Split),
    "image actnorm": ((3, 2, 3), lambda s: ActNorm(s[0])),
    "permutation of channels": ((3, 2, 2), lambda s: Permutation(s[0], order=[1, 2, 0])),
    "conv, lu": ((3, 2, 3), lambda s: InvertibleConv1x1(s[0])),
    "conv, dense": ((3, 2, 3), lambda s: InvertibleConv1x1(s[0], lu=False)),
    "image logit": ((2, 2, 3), lambda s: Logit(s, alpha=0.05)),
    "realnvp, one scale": (
        (1, 3, 3),
        lambda s: RealNVP(s, levels=1, couplings=1, hidden=(4,), logit=0.05),
    ),
    "realnvp, three scales": (
        (1, 8, 8),
        lambda s: RealNVP(s, levels=3, couplings=1, hidden=(4,)),
    ),
    "glow, one level": ((1, 2, 4), lambda s: Glow(s, 1, 2, 4, lu=False)),
    "glow, two levels": ((3, 4, 4), lambda s: Glow(s, 2, 1, (4, 4), logit=0.05)),
    "glow, shuffled": ((1, 4, 4), lambda s: Glow(s, 2, 2, 4, mixing="shuffle")),
    "glow, three levels": ((1, 8, 8), lambda s: Glow(s, 3, 2, 4)),
}

# Every transform with one shape to test it on: name to (shape, make), where make() builds it.
CASES = {
    **{name: ((4,), lambda make=make: make(4)) for name, make in TRANSFORMS.items()},
    **{name: (s, lambda make=make, s=s: make(s)) for name, (s, make) in IMAGE_TRANSFORMS.items()},
}


def draw(transform, shape, generator, *, dtype=torch.float64):
    """``shape`` numbers that ``transform`` takes: in [0, 1] before a Logit, else Gaussian."""
    first = transform.transforms[0] if isinstance(transform, Flow) else transform
    draw = torch.rand if isinstance(first, Logit) else torch.randn
    return draw(shape, generator=generator, dtype=dtype)


def log_abs_det_jacobian(function, x):
    """The log-determinant of the autograd Jacobian at every point: ``[B, *event]`` to ``[B]``."""
    return torch.stack(
        [
            torch.linalg.slogdet(
                torch.autograd.functional.jacobian(
                    lambda p: function(p.reshape(1, *x.shape[1:])).flatten(), point.flatten()
                )
            ).logabsdet
            for point in x
        ]
    )
