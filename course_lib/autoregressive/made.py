"""MADE: an autoencoder whose masks make every output depend on earlier inputs only."""

import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.autoregressive.base import BinaryAutoregressive, two_levels
from course_lib.checks import (
    check_bool,
    check_generator,
    check_int,
    check_ints,
    check_one_of,
    check_permutation,
)
from course_lib.nn import MaskedLinear, bernoulli_log_prob

__all__ = ["MADE", "made_degrees", "made_masks"]


class MADE(BinaryAutoregressive):
    """A masked autoencoder for distribution estimation, of any depth.

    One pass gives all n conditionals; sampling needs n passes, one for each coordinate.

    With several mask sets the model is their mixture, p(x) = (1/K) Σ_k p_k(x): all p_k share the
    weights, and each step of training draws one of them. ``order="random"`` gives each set an order
    of its own (order-agnostic training); otherwise the sets differ in their hidden units
    (connectivity-agnostic training). ``complete`` is then a draw from p(unknown | known) where the
    known coordinates come first in the order of every set.

    Reference:
        Germain, Gregor, Murray, Larochelle 2015, https://arxiv.org/abs/1502.03509, sections 3, 4.

    Where hidden layers are narrower than n − 1, or their degrees were drawn unluckily, some inputs
    may reach no output in any mask set. It is still a distribution, but those coordinates count as
    independent of what comes after them. A ``UserWarning`` names them.

    Args:
        dim: Number of coordinates n.
        hidden: Widths of the hidden layers, at least one.
        order: ``order[k]`` is the coordinate that is visited as the k-th; None: 0 ... n − 1;
            ``"random"``: a random order for each mask set.
        n_masks: Number K of mask sets. With one set and a given order the degrees of the hidden
            units are spread evenly; otherwise they are drawn.
        direct: Whether inputs also feed the outputs directly, by a masked matrix (section 4.1).
        seed: For the random orders and degrees.

    Example:
        >>> model = MADE(64, [128, 128], order="random", n_masks=4)
        >>> model.conditionals(torch.ones(10, 64), mask_set=3).shape
        torch.Size([10, 64])

    """

    def __init__(
        self,
        dim: int,
        hidden: Sequence[int],
        *,
        order: Sequence[int] | str | None = None,
        n_masks: int = 1,
        direct: bool = False,
        seed: int = 0,
    ):
        check_int("n_masks", n_masks, minimum=1)
        check_ints("hidden", hidden, minimum=1)
        if len(hidden) == 0:
            raise ValueError("hidden must hold at least one width, got none")
        check_bool("direct", direct)
        check_int("seed", seed, minimum=0, maximum=2**64 - 1)
        generator = torch.Generator().manual_seed(seed)
        if isinstance(order, str):
            check_one_of("order", order, ("random",))
            check_int("dim", dim, minimum=1)
            orders = [torch.randperm(dim, generator=generator).tolist() for _ in range(n_masks)]
        else:
            orders = [order] * n_masks
        super().__init__(dim, orders[0])
        self.orders = tuple(self.order if order is None else tuple(order) for order in orders)
        self.n_masks = n_masks
        widths = [dim, *hidden, dim]
        self.layers = nn.ModuleList(MaskedLinear(n_in, n_out) for n_in, n_out in pairwise(widths))
        self.direct = MaskedLinear(dim, dim) if direct else None

        even = n_masks == 1 and not isinstance(order, str)
        #: The degrees of every unit, for each mask set: inputs first, then layer by layer.
        self.degrees = tuple(
            made_degrees(order, hidden, generator=None if even else generator)
            for order in self.orders
        )
        sets = [made_masks(degrees) for degrees in self.degrees]
        for layer, masks in enumerate(zip(*sets, strict=True)):
            self.register_buffer(f"masks_{layer}", torch.stack(masks), persistent=False)
        if direct:
            masks = [made_masks(degrees[:1])[0] for degrees in self.degrees]
            self.register_buffer("masks_direct", torch.stack(masks), persistent=False)
        elif unused := self._unused_inputs(sets):
            warnings.warn(
                f"MADE({dim}, {list(hidden)}) never uses the inputs {unused}: no path leads from "
                f"them to an output. Hidden layers of at least dim - 1 = {dim - 1} units with even "
                "degrees (n_masks=1 and a given order), or direct=True, use all",
                stacklevel=2,
            )

    def _unused_inputs(self, sets: Sequence[Sequence[Tensor]]) -> list[int]:
        """The inputs that reach no output in any mask set, though an output comes after them."""
        used = torch.zeros(self.dim, dtype=torch.bool)
        for masks in sets:
            paths = torch.ones_like(masks[-1][:, 0])  # from each unit of a layer to outputs
            for mask in reversed(masks):
                paths = (paths @ mask).clamp(max=1)
            used |= paths > 0
        last = {order[-1] for order in self.orders}
        return [i for i in (~used).nonzero()[:, 0].tolist() if last != {i}]

    def logits(self, x: Tensor, mask_set: int = 0) -> Tensor:
        """The logits ``[B, dim]`` of p(x_i = 1 | x_<i) under one mask set, in one pass."""
        h = x
        for k, layer in enumerate(self.layers):
            # What MaskedLinear does, without its checks: the masks are known to be right.
            mask = getattr(self, f"masks_{k}")[mask_set]
            h = F.linear(h if k == 0 else h.relu(), layer.weight * mask, layer.bias)
        return h if self.direct is None else h + self.direct(x, self.masks_direct[mask_set])

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-probability ``[B]`` of ``x [B, dim]``, in nats, of the mixture of all sets."""
        self.check_vectors("x", x)
        sets = [bernoulli_log_prob(self.logits(x, k), x) for k in range(self.n_masks)]
        return torch.stack(sets).logsumexp(dim=0) - math.log(self.n_masks)

    def loss(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean negative log-likelihood of ``x`` under one mask set, drawn anew, in nats."""
        self.check_vectors("x", x)
        check_generator(generator, x.device)
        k = 0
        if self.n_masks > 1:
            k = int(torch.randint(self.n_masks, (), generator=generator, device=x.device))
        # −log p, summed over the coordinates, is the binary cross-entropy.
        return F.binary_cross_entropy_with_logits(self.logits(x, k), x, reduction="sum") / len(x)

    def conditionals(self, x: Tensor, *, mask_set: int = 0) -> Tensor:
        """p(x_i = 1 | x_<i) under one mask set as ``[B, dim]``, in x's own positions."""
        self.check_vectors("x", x)
        check_int("mask_set", mask_set, minimum=0, maximum=self.n_masks - 1)
        return self.logits(x, mask_set).sigmoid()

    def walk(self, x: Tensor, mask_set: int = 0) -> Iterator[tuple[Any, Tensor]]:
        """Visit the coordinates in the order of one mask set, with a full pass for each."""
        for i in self.orders[mask_set]:
            yield (slice(None), i), two_levels(self.logits(x, mask_set)[:, i])

    def fill(self, x: Tensor, known: Tensor, *, generator: torch.Generator | None) -> Tensor:
        """Draw a mask set for each example, and the unknown coordinates in that set's order.

        By Bayes' rule a set's weight is p(k | known), proportional to p_k(known). That is a product
        of conditionals where the known coordinates come first in the order of every set.
        """
        seen = torch.where(known, x, 0)
        sign = 2 * seen - 1  # a one has probability σ(a), a zero σ(−a)
        log_weights = [
            (known * F.logsigmoid(sign * self.logits(seen, k))).sum(dim=1)
            for k in range(self.n_masks)
        ]
        weights = torch.stack(log_weights, dim=1).softmax(dim=1)
        sets = weights.multinomial(1, generator=generator)[:, 0]
        filled = x.clone()
        for k in sets.unique().tolist():
            rows = sets == k
            filled[rows] = super().fill(x[rows], known[rows], k, generator=generator)
        return filled


def made_degrees(
    order: Sequence[int], hidden: Sequence[int], *, generator: torch.Generator | None = None
) -> list[Tensor]:
    """A number for each unit: how far in the order it may look.

    An input's degree is its place in the order, 0 ... n − 1. A hidden unit's is one of 0 ... n − 2,
    and at least the smallest of the layer below, so that no unit is cut off from all inputs.

    Args:
        order: ``order[k]`` is the coordinate that is visited as the k-th.
        hidden: Widths of the hidden layers.
        generator: Draws the hidden degrees; without it they are spread evenly.

    Returns:
        One integer tensor for the inputs and for each hidden layer.

    """
    check_ints("order", order, minimum=0)
    check_permutation("order", order, max(len(order), 1))
    check_ints("hidden", hidden, minimum=1)
    check_generator(generator)
    n = len(order)
    degrees = [torch.tensor(order).argsort()]
    lowest, choices = 0, max(n - 1, 1)
    for width in hidden:
        if generator is None:
            new = torch.arange(width) * choices // width  # the smallest is 0 in every layer
        else:
            new = torch.randint(lowest, choices, (width,), generator=generator)
        degrees.append(new)
        lowest = int(new.min())
    return degrees


def made_masks(degrees: Sequence[Tensor]) -> list[Tensor]:
    """The mask ``[n_out, n_in]`` of each layer from the degrees of the units, output layer last.

    A hidden unit sees units of at most its own degree; output i sees units of degree strictly
    below its place in the order. So what reaches output i comes from inputs before it.

    """
    if not isinstance(degrees, Sequence) or len(degrees) == 0 or not all(map(_is_ints, degrees)):
        raise ValueError(
            f"degrees must be a sequence of int64 vectors, at least one, got {degrees!r}"
        )
    masks = [above[:, None] >= below[None, :] for below, above in pairwise(degrees)]
    masks.append(degrees[0][:, None] > degrees[-1][None, :])
    return [mask.to(torch.get_default_dtype()) for mask in masks]


def _is_ints(x: Tensor) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.int64 and x.ndim == 1
