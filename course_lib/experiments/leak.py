"""A MADE with one sign wrong: every output sees its own input, and copies it."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from course_lib.autoregressive import MADE

__all__ = ["fit_coins", "leaky_masks"]


def leaky_masks(degrees: Sequence[Tensor]) -> list[Tensor]:
    """The masks of ``made_masks`` with ≥ in place of > in the last layer: the leak.

    Output i then sees hidden units of its own degree, and through them input i. What the model
    calls p(x_i | x_<i) is p(x_i | x_<i, x_i), which training drives to 1.

    Args:
        degrees: An integer tensor for the inputs and for each hidden layer, as of ``made_degrees``.

    Returns:
        The mask ``[n_out, n_in]`` of each layer, output layer last.

    Example:
        >>> first, last = leaky_masks([torch.tensor([0, 1]), torch.tensor([0, 1])])
        >>> last @ first  # in how many ways output i sees input j
        tensor([[1., 0.],
                [2., 1.]])

    """
    masks = [(above[:, None] >= below[None, :]).float() for below, above in pairwise(degrees)]
    return [*masks, (degrees[0][:, None] >= degrees[-1][None, :]).float()]


def fit_coins(masks: Sequence[Tensor], steps: int = 150) -> Tensor:
    """Fit a MADE with these masks to fair coins; give what it then calls the probabilities.

    The data are all 2^n images, each once. No distribution can do better on them than 2^−n each.

    Args:
        masks: The mask of each layer, output layer last.
        steps: How many steps to train.

    Returns:
        "Probabilities" ``[2^n]``, of all images.

    """
    n = masks[0].shape[1]
    model = MADE(n, [len(mask) for mask in masks[:-1]])
    for layer, mask in enumerate(masks):
        model.get_buffer(f"masks_{layer}").copy_(mask[None])
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * n)  # (2^n, n)
    for _ in range(steps):
        gradients = torch.autograd.grad(model.loss(images), list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= gradient  # gradient descent with step size 1
    with torch.no_grad():
        return model.log_prob(images).exp()
