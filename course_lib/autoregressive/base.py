"""The chain rule as a base class: p(x) = ∏ p(x_i | x_<i), evaluated, sampled and completed.

A model says what its conditionals are. Everything else follows here, once for all models.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from course_lib.checks import (
    check_floats,
    check_generator,
    check_int,
    check_level_floats,
    check_levels,
    check_permutation,
)
from course_lib.nn import Placed, bernoulli_log_prob

__all__ = ["Autoregressive", "BinaryAutoregressive"]


class Autoregressive(Placed):
    """A distribution of discrete coordinates, each conditioned on those before it.

    A subclass gives ``log_prob`` and ``walk``; a value of a coordinate is one of the whole numbers
    0 ... ``levels`` − 1, held as floating-point numbers.
    """

    levels = 2

    def log_prob(self, x: Tensor, *condition: Tensor) -> Tensor:
        """Exact log-probability ``[B]`` of ``x``, in nats."""
        raise NotImplementedError

    def walk(self, x: Tensor, *condition: Tensor) -> Iterator[tuple[Any, Tensor]]:
        """Visit the coordinates in the model's order, one after the other.

        Yields ``(where, probabilities [B, levels])``: the conditional of the coordinate
        ``x[where] [B]``, given the values that stand in ``x`` at the coordinates visited before.
        The caller may write ``x[where]`` before it asks for the next one; that is sampling.
        """
        raise NotImplementedError

    def loss(
        self, x: Tensor, *condition: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean negative log-likelihood of ``x``, a scalar in nats. Uses no randomness."""
        check_generator(generator)
        return -self.log_prob(x, *condition).mean()

    def fill(
        self,
        x: Tensor,
        known: Tensor,
        *condition: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draw the coordinates that are not known, one after the other, given all before.

        One uniform number per coordinate decides, known or not: two ways to compute the same
        conditionals draw the same samples from the same generator. The arguments are those of
        ``complete``, which has checked them.
        """
        x = torch.where(known, x, 0)
        u = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        for where, probabilities in self.walk(x, *condition):
            # The value is the number of levels whose cumulative probability lies below u.
            below = probabilities.cumsum(dim=1)[:, :-1] <= u[where][:, None]
            x[where] = torch.where(known[where], x[where], below.sum(dim=1).to(x.dtype))
        return x

    def known_coordinates(self, x: Tensor, mask: Tensor) -> Tensor:
        """The mask in ``x``'s shape; it must be boolean, of that shape or of one example's."""
        shapes = (x.shape, x.shape[1:])
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape not in shapes:
            came = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
            raise ValueError(
                f"mask must be a boolean tensor of shape {list(x.shape)} or {list(x.shape[1:])}, "
                f"got {came}"
            )
        return mask.expand(x.shape)


class BinaryAutoregressive(Autoregressive):
    """A model of binary vectors whose conditionals are Bernoulli, in a fixed order.

    A subclass gives ``logits``; a faster ``walk`` than one full pass per coordinate is welcome.

    Args:
        dim: Number of coordinates n.
        order: ``order[k]`` is the coordinate that is visited as the k-th; None: 0 ... n − 1.

    """

    def __init__(self, dim: int, order: Sequence[int] | None = None):
        check_int("dim", dim, minimum=1)
        order = list(range(dim)) if order is None else order
        check_permutation("order", order, dim)
        super().__init__()
        self.dim = dim
        self.order = tuple(order)

    def logits(self, x: Tensor) -> Tensor:
        """The logits ``[B, dim]`` of p(x_i = 1 | x_<i), each at the place of its coordinate i."""
        raise NotImplementedError

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-probability ``[B]`` of ``x [B, dim]``, in nats: the chain rule."""
        self.check_vectors("x", x)
        return bernoulli_log_prob(self.logits(x), x)

    def conditionals(self, x: Tensor) -> Tensor:
        """p(x_i = 1 | x_<i) as ``[B, dim]``, each at the place of its coordinate i."""
        self.check_vectors("x", x)
        return self.logits(x).sigmoid()

    def walk(self, x: Tensor) -> Iterator[tuple[Any, Tensor]]:
        """Visit the coordinates in order; here with a full pass for each of them."""
        for i in self.order:
            yield (slice(None), i), two_levels(self.logits(x)[:, i])

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` draws ``[n, dim]`` of zeros and ones, coordinate after coordinate."""
        check_int("n", n, minimum=1)
        x = torch.zeros(n, self.dim, dtype=self.dtype, device=self.device)
        return self.complete(x, torch.zeros_like(x, dtype=torch.bool), generator=generator)

    @torch.no_grad()
    def complete(
        self, x: Tensor, mask: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Keep the known coordinates of ``x`` and draw the others, each given all before it.

        A draw from p(unknown | known) where the known coordinates come first in the model's order.
        Elsewhere it is not: a coordinate is drawn without regard to known ones that come later.

        Args:
            x: ``[B, dim]``; at unknown coordinates any finite number may stand.
            mask: Boolean ``[B, dim]`` or ``[dim]``; True where ``x`` is known.
            generator: Source of the draws.

        Returns:
            ``[B, dim]`` of zeros and ones.

        """
        check_floats("x", x, (None, self.dim), dtype=self.dtype)
        known = self.known_coordinates(x, mask)
        check_generator(generator, x.device)
        check_levels("x where mask is True", torch.where(known, x, 0), 2)
        return self.fill(x, known, generator=generator)

    def check_vectors(self, name: str, x: Tensor) -> None:
        """Require ``[B, dim]`` zeros and ones of the model's dtype."""
        check_level_floats(name, x, (None, self.dim), 2, dtype=self.dtype)


def two_levels(logits: Tensor) -> Tensor:
    """Probabilities ``[B, 2]`` of 0 and of 1 from logits ``[B]`` of a 1."""
    return torch.stack([(-logits).sigmoid(), logits.sigmoid()], dim=1)
