"""What a flow transform is, and the two simple densities that a flow ends in."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.checks import (
    check_floats,
    check_generator,
    check_int,
    check_shape,
    check_tensor,
)
from course_lib.nn import Placed

__all__ = ["StandardGaussian", "StandardLogistic", "Transform"]


class Transform(Placed):
    """An invertible map of points ``[B, dim]``, or of images, that knows its volume change.

    ``forward`` leads from data to latent and returns ``(z, log_det)``; ``inverse`` leads back and
    returns ``(x, log_det)``. In both, ``log_det`` has shape ``[B]`` and is the logarithm of the
    absolute Jacobian determinant of *that* direction, in nats. Both check shape and dtype, and look
    at no number: whether all are finite is asked by ``Flow``, once.

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

    def check_event(self, name: str, x: Tensor, *, finite: bool = False) -> None:
        """Require a batch of the transform's own shape and dtype, and perhaps finite numbers."""
        rank = x.ndim - 1 if isinstance(x, Tensor) else None
        check = check_floats if finite else check_tensor
        check(name, x, (None, *self._wanted(rank)), dtype=self.dtype)

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
        if self.per_channel and rank == 3:
            return *self.event_shape, None, None
        return self.event_shape

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lead data ``x [B, *event]`` to ``(z [B, *event], log_det [B])``."""
        raise NotImplementedError

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Lead latents ``z [B, *event]`` to ``(x [B, *event], log_det [B])``."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return _shape_repr(self.event_shape)


class Base(Placed):
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
        check_floats("z", z, (None, *self.event_shape), dtype=self.dtype)
        return -0.5 * (z**2 + math.log(2 * math.pi)).flatten(1).sum(dim=1)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent draws, ``[n, *event]``."""
        check_int("n", n, minimum=1)
        check_generator(generator, self.device)
        shape = (n, *self.event_shape)
        return torch.randn(shape, generator=generator, dtype=self.dtype, device=self.device)


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
        check_floats("z", z, (None, *self.event_shape), dtype=self.dtype)
        return -(F.softplus(z) + F.softplus(-z)).flatten(1).sum(dim=1)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent draws, ``[n, *event]``: quantiles log(u / (1 - u)) of uniform u."""
        check_int("n", n, minimum=1)
        check_generator(generator, self.device)
        # Single precision is too coarse for u: it is 0 once in 2²⁴ draws, and the quantile of 0 is
        # minus infinity. Not every device has double precision. So u is the middle of one of
        # 2⁴² slots, given by two whole numbers; u and 1 - u are kept apart, in units of 2⁻²¹.
        slots = 2**21
        pair = torch.randint(
            slots, (n, *self.event_shape, 2), generator=generator, device=self.device
        )
        coarse, fine = pair.to(torch.promote_types(self.dtype, torch.float32)).unbind(dim=-1)
        below = coarse + (fine + 0.5) / slots
        above = (slots - 1 - coarse) + (slots - 0.5 - fine) / slots
        return (below / above).log().to(self.dtype)


def check_varies(name: str, values: Tensor, what: str) -> None:
    """Require that no row of ``values`` holds one number throughout.

    The numbers are compared: rounding can give equal ones a tiny standard deviation.
    """
    if (values == values[:, :1]).all(dim=1).any():
        raise ValueError(f"{name} must vary in every {what}, got one that is constant")


def _shape_repr(shape: tuple[int | None, ...]) -> str:
    if len(shape) == 1:
        return f"dim={shape[0]}"
    return f"shape=[{', '.join('any' if size is None else str(size) for size in shape)}]"
