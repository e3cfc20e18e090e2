"""Batch normalisation inside a flow: the density of an image then depends on its company."""

import torch
from torch import Tensor

from course_lib.checks import check_floats
from course_lib.flows import ActNorm, Flow, Split

__all__ = ["log_prob_in_company"]


def log_prob_in_company(flow: Flow, x: Tensor) -> tuple[Tensor, Tensor]:
    """Log p of images if every ``ActNorm`` of the flow were a batch normalisation.

    Mean and standard deviation are those of the batch, as it comes out of the steps before: each
    normalisation works on what the ones before it have normalised.

    Args:
        flow: A flow of images or points with ``ActNorm``s.
        x: The batch, ``[B, *event]`` with at least two different examples.

    Returns:
        log p ``[B]`` in nats, and the part of the log-determinant, the same for all, that the
        normalisations give, a scalar.

    Reference:
        Dinh, Sohl-Dickstein and Bengio 2017, https://arxiv.org/abs/1605.08803, equations 17 and 18.
        (The paper uses a running average over recent batches, appendix E, which is less noisy.)

    Example:
        >>> from course_lib.flows import StandardGaussian
        >>> flow = Flow([ActNorm(1)], StandardGaussian(1))
        >>> for company in (2.0, 4.0):  # of the same point, 0
        ...     log_prob_in_company(flow, torch.tensor([[0.0], [company]]))[0][0]
        tensor(-1.4189)
        tensor(-2.1121)

    """
    flow.check_batch("x", x)
    h, log_det, of_norms, aside = x, x.new_zeros(len(x)), x.new_zeros(()), []
    for transform in flow.transforms:
        if isinstance(transform, ActNorm):
            of_batch = [0, *range(2, h.ndim)]  # all but the channels
            std, mean = torch.std_mean(h, dim=of_batch, correction=0, keepdim=True)
            h = (h - mean) / std
            step = -std.log().sum() * h[0, 0].numel()  # of every pixel
            of_norms = of_norms + step
        else:
            h, step = transform(h)
        log_det = log_det + step
        if isinstance(transform, Split):
            h, leaving = h.chunk(2, dim=1)
            aside.append(leaving)
    z = flow.lay_out(h, aside, len(flow.transforms))
    check_floats("the batch's latents", z, None)
    return flow.base.log_prob(z) + log_det, of_norms
