"""What a flow transform is, and the two simple densities that a flow ends in."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_floats, check_generator, check_int, check_shape

__all__ = ["StandardGaussian", "StandardLogistic", "Transform"]


class Transform(nn.Module):
    """An invertible map of points ``[B, dim]``, or of images, that knows its volume change.

    ``forward`` leads from data to latent and returns ``(z, log_det)``; ``inverse`` leads back and
    returns ``(x, log_det)``. In both, ``log_det`` has shape ``[B]`` and is the logarithm of the
    absolute Jacobian determinant of *that* direction, in nats.

    Args:
        event_shape: The shape of one point or image without its batch: ``dim`` or ``(dim,)``, or
            ``(C, H, W)``, where None stands for any size.
        minimum: The fewest coordinates of a point.

    """

    per_channel = False  # whether a transform of ``dim`` coordinates also takes ``dim`` channels

    def __init__(self, event_shape: int | Sequence[int | None], *, minimum: int = 1):
        if isinstance(event_shape, tuple | list):
            check_shape("event_shape", event_shape)
        else:
            check_int("dim", event_shape, minimum=minimum)
            event_shape = (event_shape,)
        super().__init__()
        self.event_shape = tuple(event_shape)
        # Never saved: it only remembers in which precision the transform computes.
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def check(self, name: str, x: Tensor) -> None:
        """Require a finite batch of the transform's own shape and dtype (``ValueError``)."""
        rank = x.ndim - 1 if isinstance(x, Tensor) else None
        check_floats(name, x, (None, *self._wanted(rank)), dtype=self.zero.dtype)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which an event of ``shape`` comes out; ``ValueError`` if it can't go in."""
        wanted = self._wanted(len(shape))
        fits = len(shape) == len(wanted) and all(
            wish is None or size == wish for size, wish in zip(shape, wanted, strict=True)
        )
        if not fits:
            words = ", ".join("any" if size is None else str(size) for size in wanted)
            raise ValueError(f"takes shape [{words}], got {list(shape)}")
        return shape

    def _wanted(self, rank: int | None) -> tuple[int | None, ...]:
        """The shape of an event with ``rank`` dimensions: what one does to coordinates, one can
        do to the channels of every pixel, where ``per_channel`` says so.
        """
        return (
            (*self.event_shape, None, None) if self.per_channel and rank == 3 else self.event_shape
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lead data ``x [B, *event]`` to ``(z [B, *event], log_det [B])``."""
        raise NotImplementedError

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Lead latents ``z [B, *event]`` to ``(x [B, *event], log_det [B])``."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return _shape_repr(self.event_shape)


class Base(nn.Module):
    """A density of independent coordinates, each with the same 1-D density.

    Args:
        dim: Number of coordinates of a point, or the shape ``(C, H, W)`` of an image.

    """

    def __init__(self, dim: int | Sequence[int]):
        if isinstance(dim, tuple | list):
            check_shape("dim", dim, any_size=False)
        else:
            check_int("dim", dim, minimum=1)
            dim = (dim,)
        super().__init__()
        self.event_shape = tuple(dim)
        # Never saved: it only remembers on which device and in which precision to sample.
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def check(self, n: int, generator: torch.Generator | None) -> None:
        """Check the arguments of ``sample``."""
        check_int("n", n, minimum=1)
        check_generator(generator, self.zero.device)

    def extra_repr(self) -> str:
        return _shape_repr(self.event_shape)


class StandardGaussian(Base):
    """The standard Gaussian: log p(z) = -(z² + log 2π) / 2, summed over coordinates.

    Args:
        dim: Number of coordinates of a point, or the shape ``(C, H, W)`` of an image.

    Example:
        >>> StandardGaussian(2).log_prob(torch.zeros(1, 2))
        tensor([-1.8379])

    """

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density ``[B]`` of ``z [B, *event]``, in nats."""
        check_floats("z", z, (None, *self.event_shape), dtype=self.zero.dtype)
        return -0.5 * (z**2 + math.log(2 * math.pi)).flatten(1).sum(dim=1)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent draws, ``[n, *event]``."""
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
        dim: Number of coordinates of a point, or the shape ``(C, H, W)`` of an image.

    Example:
        >>> StandardLogistic(1).log_prob(torch.zeros(1, 1))  # the density at 0 is 1/4
        tensor([-1.3863])

    """

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density ``[B]`` of ``z [B, *event]``, in nats."""
        check_floats("z", z, (None, *self.event_shape), dtype=self.zero.dtype)
        return -(F.softplus(z) + F.softplus(-z)).flatten(1).sum(dim=1)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent draws, ``[n, *event]``: quantiles log(u / (1 - u)) of uniform u."""
        self.check(n, generator)
        # Drawn in double precision: in single precision u = 0 comes up once in 2²⁴ draws, and its
        # quantile is minus infinity.
        u = torch.rand(
            n, *self.event_shape, generator=generator, dtype=torch.float64, device=self.zero.device
        )
        return torch.logit(u, eps=1e-15).to(self.zero.dtype)


def _shape_repr(shape: tuple[int | None, ...]) -> str:
    if len(shape) == 1:
        return f"dim={shape[0]}"
    return f"shape=[{', '.join('any' if size is None else str(size) for size in shape)}]"
