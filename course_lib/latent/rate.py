"""What the rate is made of: information about the image, and a mismatch of all codes together."""

from torch import Tensor
from torch.special import entr, xlogy

from course_lib.checks import check_floats

__all__ = ["rate_parts"]


def rate_parts(q: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """The two parts of the mean KL(q(z | x_n) ‖ p(z)) over images: I(x; z) and KL(q(z) ‖ p(z)).

    q(z) is the aggregate posterior, the mean of all q(z | x_n). I(x; z) is the entropy of q(z)
    minus the mean entropy of the q(z | x_n): what a code tells about which image it came from, at
    most log N.

    Args:
        q: Probabilities ``[N, G]`` of G cells of z for each of N images; every row adds up to 1.
        prior: Probabilities ``[G]`` of the cells.

    Returns:
        Both parts in nats, scalars. Their sum is the rate.

    Reference:
        Hoffman and Johnson 2016, "ELBO surgery".

    Example:
        >>> import torch
        >>> rate_parts(torch.eye(2), torch.tensor([0.5, 0.5]))  # each code is one image: log 2
        (tensor(0.6931), tensor(0.))

    """
    check_floats("q", q, (None, None))
    check_floats("prior", prior, q.shape[1:], dtype=q.dtype)
    aggregate = q.mean(dim=0)
    information = entr(aggregate).sum() - entr(q).sum(dim=1).mean()
    mismatch = (xlogy(aggregate, aggregate) - xlogy(aggregate, prior)).sum()
    return information, mismatch
