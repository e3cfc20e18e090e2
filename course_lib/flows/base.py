"""What a flow transform is, and the two simple densities that a flow ends in."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_floats, check_generator, check_int

__all__ = ["StandardGaussian", "StandardLogistic", "Transform"]


class Transform(nn.Module):
    """An invertible map of points ``[B, dim]`` that knows its volume change.

    ``forward`` leads from data to latent and returns ``(z, log_det)``; ``inverse`` leads back and
    returns ``(x, log_det)``. In both, ``log_det`` has shape ``[B]`` and is the logarithm of the
    absolute Jacobian determinant of *that* direction, in nats.
    """

    def __init__(self, dim: int, *, minimum: int = 1):
        check_int("dim", dim, minimum=minimum)
        super().__init__()
        self.dim = dim
        # Never saved: it only remembers in which precision the transform computes.
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def check(self, name: str, x: Tensor) -> None:
        """Require finite points ``[B, dim]`` of the transform's own dtype (``ValueError``)."""
        check_floats(name, x, (None, self.dim), dtype=self.zero.dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lead data ``x [B, dim]`` to ``(z [B, dim], log_det [B])``."""
        raise NotImplementedError

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Lead latents ``z [B, dim]`` to ``(x [B, dim], log_det [B])``."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Base(nn.Module):
    """A density of ``dim`` independent coordinates, each with the same 1-D density."""

    def __init__(self, dim: int):
        check_int("dim", dim, minimum=1)
        super().__init__()
        self.event_shape: Sequence[int] = (dim,)
        # Never saved: it only remembers on which device and in which precision to sample.
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def check(self, n: int, generator: torch.Generator | None) -> None:
        """Check the arguments of ``sample``."""
        check_int("n", n, minimum=1)
        check_generator(generator, self.zero.device)

    def extra_repr(self) -> str:
        return f"dim={self.event_shape[0]}"


class StandardGaussian(Base):
    """The standard Gaussian: log p(z) = -(z² + log 2π) / 2, summed over coordinates.

    Args:
        dim: Number of coordinates.

    Example:
        >>> StandardGaussian(2).log_prob(torch.zeros(1, 2))
        tensor([-1.8379])

    """

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density ``[B]`` of ``z [B, dim]``, in nats."""
        check_floats("z", z, (None, *self.event_shape), dtype=self.zero.dtype)
        return -0.5 * (z**2 + math.log(2 * math.pi)).sum(dim=1)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent draws, ``[n, dim]``."""
        self.check(n, generator)
        return torch.randn(
            n,
            *self.event_shape,
            generator=generator,
            dtype=self.zero.dtype,
            device=self.zero.device,
        )


class StandardLogistic(Base):
    """The standard logistic: log p(z) = -log(1 + eᶻ) - log(1 + e⁻ᶻ), summed over coordinates.

    Its tails fall like e^-|z|, much slower than a Gaussian's: a far point pulls with a force of at
    most 1, so training is calmer (Dinh et al. 2014, https://arxiv.org/abs/1410.8516, section 3.4).

    Args:
        dim: Number of coordinates.

    Example:
        >>> StandardLogistic(1).log_prob(torch.zeros(1, 1))  # the density at 0 is 1/4
        tensor([-1.3863])

    """

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density ``[B]`` of ``z [B, dim]``, in nats."""
        check_floats("z", z, (None, *self.event_shape), dtype=self.zero.dtype)
        return -(F.softplus(z) + F.softplus(-z)).sum(dim=1)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent draws, ``[n, dim]``: the quantiles log(u / (1 - u)) of uniform u."""
        self.check(n, generator)
        # Drawn in double precision: in single precision u = 0 comes up once in 2²⁴ draws, and its
        # quantile is minus infinity.
        u = torch.rand(
            n, *self.event_shape, generator=generator, dtype=torch.float64, device=self.zero.device
        )
        return torch.logit(u, eps=1e-15).to(self.zero.dtype)
