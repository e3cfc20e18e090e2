"""Transforms of points ``[B, dim]`` other than couplings, each with its log-determinant."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_permutation
from course_lib.flows.base import Transform, check_varies

__all__ = ["DiagonalScaling", "Permutation", "Planar", "Standardize"]


class DiagonalScaling(Transform):
    """Stretch every coordinate by its own learned positive factor: z_i = x_i exp(s_i).

    log_det = Σ s_i for every point. A large factor says that the data hardly varies in that
    direction; NICE needs this layer, since its couplings cannot change volume at all.

    Reference:
        Dinh, Krueger, Bengio 2014, https://arxiv.org/abs/1410.8516, section 3.3.

    Args:
        dim: Number of coordinates.

    Example:
        >>> DiagonalScaling(3)(torch.ones(1, 3))[1].tolist()  # starts as the identity
        [0.0]

    """

    def __init__(self, dim: int):
        super().__init__(dim)
        self.log_scale = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply: ``x [B, dim]`` to ``(z [B, dim], log_det [B])``."""
        self.check_event("x", x)
        return x * self.log_scale.exp(), self.log_scale.sum().expand(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Divide: ``z [B, dim]`` to ``(x [B, dim], log_det [B])``."""
        self.check_event("z", z)
        return z * (-self.log_scale).exp(), -self.log_scale.sum().expand(len(z))


class Standardize(Transform):
    """Measure every coordinate in units of its own spread: z_i = (x_i - mean_i) / std_i.

    Nothing here is learned: it is preprocessing, kept inside the flow so that its volume change
    counts and log_prob stays a density of the data as it came. It changes no family of functions
    that a NICE can be, but makes the training far quicker: a pixel that is always black varies by a
    thousandth, and a step that is right for the others is a thousand times too long for it.

    Args:
        dim: Number of coordinates.

    Example:
        >>> standardize = Standardize(2)  # the identity, until it has measured some data
        >>> standardize.measure(torch.tensor([[0.0, 1.0], [2.0, 5.0], [4.0, 9.0]]))
        >>> standardize(torch.tensor([[4.0, 1.0]]))[0].tolist()
        [[1.0, -1.0]]

    """

    def __init__(self, dim: int):
        super().__init__(dim)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def measure(self, x: Tensor) -> None:
        """Take mean and standard deviation from ``x [B, dim]``, B at least 2."""
        self.check_event("x", x, finite=True)
        check_varies("x", x.T, "coordinate")
        std = x.std(dim=0)
        if not torch.isfinite(std).all():
            raise ValueError("x must have a finite spread in every coordinate, got an infinite one")
        self.mean.copy_(x.mean(dim=0))
        self.std.copy_(std)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Centre and divide: ``x [B, dim]`` to ``(z [B, dim], log_det [B])``."""
        self.check_event("x", x)
        return (x - self.mean) / self.std, -self.std.log().sum().expand(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply and move back: ``z [B, dim]`` to ``(x [B, dim], log_det [B])``."""
        self.check_event("z", z)
        return z * self.std + self.mean, self.std.log().sum().expand(len(z))


class Permutation(Transform):
    """Put the coordinates into another order: z_i = x_order[i]. Volume is kept, log_det = 0.

    Args:
        dim: Number of coordinates of points ``[B, dim]``, or of channels of images.
        order: A permutation of 0 ... dim - 1; the reversal when left out.

    Example:
        >>> Permutation(3)(torch.tensor([[1.0, 2.0, 3.0]]))[0].tolist()
        [[3.0, 2.0, 1.0]]

    """

    per_channel = True

    def __init__(self, dim: int, *, order: Sequence[int] | None = None):
        super().__init__(dim)
        order = list(range(dim))[::-1] if order is None else order
        check_permutation("order", order, dim)
        self.register_buffer("order", torch.tensor(order))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reorder: ``x [B, dim]`` to ``(z [B, dim], log_det [B])``."""
        self.check_event("x", x)
        return x[:, self.order], x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Undo the order: ``z [B, dim]`` to ``(x [B, dim], log_det [B])``."""
        self.check_event("z", z)
        return z[:, torch.argsort(self.order)], z.new_zeros(len(z))


class Planar(Transform):
    """Push points along one direction u, by an amount that depends on w·x + b.

    z = x + u tanh(w·x + b), so the Jacobian is the identity plus a rank-one matrix, and its
    determinant is 1 + (w·u) (1 - tanh²(w·x + b)) by the matrix determinant lemma. It is positive,
    and the map invertible, when w·u > -1; u is moved along w to make it so (appendix A.1).

    Reference:
        Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770, equations 10-12.

    Args:
        dim: Number of coordinates.

    Example:
        >>> planar = Planar(2)
        >>> x = torch.randn(5, 2)
        >>> torch.allclose(planar.inverse(planar(x)[0])[0], x, atol=1e-5)
        True

    """

    def __init__(self, dim: int):
        super().__init__(dim)
        self.w = nn.Parameter(torch.randn(dim) / dim**0.5)
        self.u = nn.Parameter(torch.randn(dim) / dim**0.5)
        self.b = nn.Parameter(torch.zeros(()))

    def constrained_u(self) -> Tensor:
        """The direction ``[dim]`` nearest to u, along w, for which w·u = softplus(w·u) - 1 > -1."""
        w_dot_u = self.w @ self.u
        return self.u + (F.softplus(w_dot_u) - 1 - w_dot_u) * self.w / (self.w @ self.w)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Push: ``x [B, dim]`` to ``(z [B, dim], log_det [B])``."""
        self.check_event("x", x)
        v = self.constrained_u()
        push = torch.tanh(x @ self.w + self.b)  # [B]
        return x + push[:, None] * v, torch.log1p(self.w @ v * (1 - push**2))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Pull back: ``z [B, dim]`` to ``(x [B, dim], log_det [B])``.

        There is no formula, but one unknown is enough: a = w·x + b solves
        a + (w·u) tanh(a) = w·z + b, whose left side grows with a. Bisection finds it.
        """
        self.check_event("z", z)
        u = self.constrained_u()
        w_dot_u, target = self.w @ u, z @ self.w + self.b
        with torch.no_grad():
            low, high = target - w_dot_u.abs(), target + w_dot_u.abs()  # since |tanh| < 1
            for _ in range(60):
                middle = (low + high) / 2
                too_low = middle + w_dot_u * torch.tanh(middle) < target
                low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
            a = (low + high) / 2
            slope = 1 + w_dot_u * (1 - torch.tanh(a) ** 2)
        # One Newton step sharpens the root and lets gradients pass through the equation.
        a = a - (a + w_dot_u * torch.tanh(a) - target) / slope
        push = torch.tanh(a)
        return z - push[:, None] * u, -torch.log1p(w_dot_u * (1 - push**2))
