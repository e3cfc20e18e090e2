"""Bayes' rule: a model of images given their class is a classifier, too."""

from torch import Tensor

from course_lib.checks import check_floats

__all__ = ["log_posterior"]


def log_posterior(log_likelihood: Tensor, log_prior: Tensor) -> Tensor:
    """Bayes' rule in logarithms: log p(y|x) = log p(x|y) + log p(y) − log p(x).

    The last term is log Σ_y p(x|y) p(y). The likelihood of an image is far below the smallest
    number of float32, e^−103: ``log_softmax`` subtracts the largest logarithm before it takes
    any exponential.

    Args:
        log_likelihood: log p(x|y) of each image under each class, ``[B, K]``, in nats.
        log_prior: log p(y), ``[K]``, of the same dtype.

    Returns:
        log p(y|x), ``[B, K]``, in nats.

    Example:
        >>> import math, torch
        >>> prior = torch.tensor([0.5, 0.5]).log()
        >>> log_posterior(torch.tensor([[-500.0, -500.0 - math.log(3)]]), prior).exp()
        tensor([[0.7500, 0.2500]])

    """
    check_floats("log_likelihood", log_likelihood, (None, None))
    check_floats("log_prior", log_prior, (log_likelihood.shape[1],), dtype=log_likelihood.dtype)
    return (log_likelihood + log_prior).log_softmax(dim=1)
