"""How likely the rest of an image is, given a part of it, under an order-agnostic model."""

import torch
from torch import Tensor

from course_lib.checks import at_the_door, check_tensor

__all__ = ["completion_log_prob"]


def check_completion(x: Tensor, conditionals: Tensor, places: Tensor, known: Tensor) -> None:
    """Require conditionals and places of S sets, and a mask that hides some pixels, not all."""
    check_tensor("x", x, (None, None))
    check_tensor("conditionals", conditionals, (None, *x.shape), dtype=x.dtype)
    n, sets = x.shape[1], len(conditionals)
    if not isinstance(places, Tensor) or places.shape != (sets, n):
        came = list(places.shape) if isinstance(places, Tensor) else repr(places)
        raise ValueError(f"places must be a tensor of shape [{sets}, {n}], got {came}")
    boolean = isinstance(known, Tensor) and known.dtype == torch.bool and known.shape == (n,)
    if not boolean or known.all() or not known.any():
        wanted = f"a boolean tensor [{n}], True for some pixels and False for others"
        raise ValueError(f"known must be {wanted}, got {known!r}")


@at_the_door(check_completion)
def completion_log_prob(x: Tensor, conditionals: Tensor, places: Tensor, known: Tensor) -> Tensor:
    """The log of p(hidden pixels | known pixels) ``[B]``, in nats, of a mixture of S mask sets.

    Only sets in whose order all known pixels come before all hidden ones can say: there p_s(known)
    is the product of the first conditionals. Of these the mixture gives Σ_s p_s(x) / Σ_s p_s(known)
    by Bayes' rule: each set counts by how likely it finds what is known.

    Args:
        x: Images of zeros and ones, ``[B, n]``.
        conditionals: p_s(x_i = 1 | pixels before i in the order of s), ``[S, B, n]``.
        places: Where each pixel stands in the order of each set, from 0, ``[S, n]``.
        known: Which pixels are given, a Boolean ``[n]``; some are, and some are not.

    Reference:
        Germain, Gregor, Murray and Larochelle 2015, https://arxiv.org/abs/1502.03509, section 4.2;
        order-agnostic training: Uria, Murray and Larochelle 2014, https://arxiv.org/abs/1310.1757.

    Example:
        >>> x, p = torch.tensor([[1.0, 1.0]]), torch.tensor([[[0.5, 0.8]], [[0.3, 0.5]]])
        >>> places = torch.tensor([[0, 1], [1, 0]])  # pixel 0 first, and pixel 1 first
        >>> completion_log_prob(x, p, places, torch.tensor([True, False])).exp()
        tensor([0.8000])

    """
    can_say = places[:, known].amax(dim=1) < places[:, ~known].amin(dim=1)
    if not can_say.any():
        raise ValueError("places must hold an order that begins with the known pixels")
    log_p = torch.where(x == 1, conditionals, 1 - conditionals).log()[can_say]
    whole, given = log_p.sum(dim=2), log_p[:, :, known].sum(dim=2)
    return whole.logsumexp(dim=0) - given.logsumexp(dim=0)
