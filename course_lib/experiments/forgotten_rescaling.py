"""Attention in one pass that forgets to correct its sums when a larger logit comes."""

import torch
from torch import Tensor

from course_lib.checks import check_floats

__all__ = ["forget_to_rescale"]


def forget_to_rescale(logits: Tensor, values: Tensor) -> Tensor:
    """Attention of one query, key by key, and wrong: l and o are not corrected when m moves.

    Args:
        logits: Of the keys in the order in which they come, ``[n]``.
        values: One a key, ``[n, d]``; the identity matrix shows the weights themselves.

    Returns:
        The output ``[d]``.

    Example:
        >>> forget_to_rescale(torch.tensor([9.0, 0.0]), torch.eye(2))
        tensor([9.9988e-01, 1.2339e-04])
        >>> forget_to_rescale(torch.tensor([0.0, 9.0]), torch.eye(2))
        tensor([0.5000, 0.5000])

    """
    check_floats("logits", logits, (None,))
    check_floats("values", values, (len(logits), None))
    m, total, output = logits[0], torch.zeros_like(logits[0]), torch.zeros_like(values[0])
    for s, v in zip(logits, values, strict=True):
        m = torch.maximum(m, s)
        p = torch.exp(s - m)
        total = total + p  # exp(m before − m) · total + p would be right,
        output = output + p * v  # and exp(m before − m) · output + p v
    return output / total
