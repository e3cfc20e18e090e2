"""A normalizing flow: invertible transforms, one after the other, that end in a simple density."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.checks import check_floats, check_generator
from course_lib.flows.base import Base, Transform

__all__ = ["Flow"]


class Flow(nn.Module):
    """Transforms composed over a base density: log p(x) = log p_base(f(x)) + log |det ∂f/∂x|.

    Reference:
        Tabak & Vanden-Eijnden 2010; Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770.

    Args:
        transforms: From data to latent, in this order.
        base: The density of the latent, for example ``StandardGaussian(dim)``.

    Raises:
        ValueError: When there is no transform, or one has another width than the base.

    Example:
        >>> from course_lib.flows import AdditiveCoupling, StandardGaussian
        >>> flow = Flow([AdditiveCoupling(2, [8], flip=False)], StandardGaussian(2))
        >>> z, log_det = flow(torch.randn(5, 2))
        >>> z.shape, log_det.shape, flow.sample(3).shape
        (torch.Size([5, 2]), torch.Size([5]), torch.Size([3, 2]))

    """

    def __init__(self, transforms: Sequence[Transform], base: Base):
        if not isinstance(base, Base):
            raise ValueError(f"base must be a base density, got {base!r}")
        if not isinstance(transforms, list | tuple | nn.ModuleList):
            raise ValueError(f"transforms must be a list of transforms, got {transforms!r}")
        if len(transforms) == 0:
            raise ValueError("transforms must hold at least one transform, got none")
        for i, transform in enumerate(transforms):
            if not isinstance(transform, Transform):
                raise ValueError(f"transforms[{i}] must be a Transform, got {transform!r}")
            if (transform.dim,) != tuple(base.event_shape):
                width = base.event_shape[0]
                raise ValueError(f"transforms[{i}] must have dim {width}, got {transform.dim}")
            if transform.zero.dtype != base.zero.dtype:
                raise ValueError(
                    f"transforms[{i}] must be {base.zero.dtype} like the base, "
                    f"got {transform.zero.dtype}"
                )
        super().__init__()
        self.transforms = nn.ModuleList(transforms)
        self.base = base

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lead data ``x [B, dim]`` to ``(z [B, dim], log_det [B])``: log-determinants add up."""
        self.check("x", x)
        log_det = x.new_zeros(len(x))
        for transform in self.transforms:
            x, step_log_det = transform(x)
            log_det = log_det + step_log_det
        return x, log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Lead latents ``z [B, dim]`` to ``(x [B, dim], log_det [B])``, last transform first."""
        self.check("z", z)
        log_det = z.new_zeros(len(z))
        for transform in reversed(self.transforms):
            z, step_log_det = transform.inverse(z)
            log_det = log_det + step_log_det
        return z, log_det

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density ``[B]`` of data ``x [B, dim]``, in nats: the change of variables."""
        z, log_det = self(x)
        return self.base.log_prob(z) + log_det

    def loss(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean negative log-likelihood of ``x [B, dim]``, a scalar in nats. Uses no randomness."""
        check_generator(generator)
        return -self.log_prob(x).mean()

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` draws ``[n, dim]``: draw latents, then run the flow backwards."""
        return self.inverse(self.base.sample(n, generator=generator))[0]

    @torch.no_grad()
    def trajectory(self, x: Tensor) -> Tensor:
        """All states from data to latent, ``[T, B, dim]``: ``x``, then one per transform."""
        self.check("x", x)
        states = [x]
        for transform in self.transforms:
            states.append(transform(states[-1])[0])
        return torch.stack(states)

    @torch.no_grad()
    def trajectory_inverse(self, z: Tensor) -> Tensor:
        """All states from latent to data, ``[T, B, dim]``: ``z``, then one per transform."""
        self.check("z", z)
        states = [z]
        for transform in reversed(self.transforms):
            states.append(transform.inverse(states[-1])[0])
        return torch.stack(states)

    def check(self, name: str, x: Tensor) -> None:
        """Require a finite batch of the base's event shape and dtype (``ValueError``)."""
        check_floats(name, x, (None, *self.base.event_shape), dtype=self.base.zero.dtype)
