"""What the flow tests share: transforms that do something, and a fixed source of randomness."""

import pytest
import torch

from course_lib.flows import AdditiveCoupling, DiagonalScaling, Permutation, Planar, Standardize


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20141030)


def randomize(module, generator, scale=1.0):
    """Give every parameter of ``module`` a random value, so that no test passes on an identity."""
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter.shape[-1] if parameter.ndim > 1 else 1
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.copy_(scale * noise / fan_in**0.5)
    return module


def measured(dim):
    """A Standardize that has seen data: no coordinate keeps its place or its size."""
    standardize = Standardize(dim)
    standardize.mean.copy_(torch.arange(dim) - 0.5)
    standardize.std.copy_(torch.linspace(0.3, 4.0, dim))
    return standardize


TRANSFORMS = {
    "coupling": lambda dim: AdditiveCoupling(dim, [16], flip=False),
    "coupling flipped": lambda dim: AdditiveCoupling(dim, [16, 8], flip=True),
    "linear coupling": lambda dim: AdditiveCoupling(dim, [], flip=False),
    "scaling": DiagonalScaling,
    "standardize": measured,
    "reversal": Permutation,
    "permutation": lambda dim: Permutation(dim, order=[*range(1, dim), 0]),
    "planar": Planar,
}


def log_abs_det_jacobian(function, x):
    """The log-determinant of the autograd Jacobian at every point: ``[B, dim]`` to ``[B]``."""
    return torch.stack(
        [
            torch.linalg.slogdet(
                torch.autograd.functional.jacobian(lambda p: function(p[None])[0], point)
            ).logabsdet
            for point in x
        ]
    )
