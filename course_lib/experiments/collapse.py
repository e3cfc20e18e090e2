"""A VAE whose code dies: the loss that kills it, and a training short enough to watch."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.data import load_digits
from course_lib.latent import VAE

__all__ = ["CollapseReport", "collapsing_loss", "fit_vae"]


def collapsing_loss(distortion: Tensor, rate: Tensor) -> Tensor:
    """A loss under which no latent pays: each nat of rate costs as much as 100 nats of distortion.

    Args:
        distortion: −E log p(x | z) of each image, ``[B]``, in nats.
        rate: KL(q(z | x) ‖ p(z)) of each image, ``[B]``, in nats.

    Returns:
        A scalar.

    Example:
        >>> collapsing_loss(torch.tensor([20.0, 24.0]), torch.tensor([1.0, 3.0]))
        tensor(222.)

    """
    return (distortion + 100 * rate).mean()


class CollapseReport(NamedTuple):
    """What became of a VAE: means over all images, in nats where nothing else is said."""

    rate: float
    distortion: float
    spread: float  # standard deviation between the reconstructions of different images, per pixel
    without_code: float  # distortion of the best image that is the same for all: the mean image


def fit_vae(
    loss: Callable[[Tensor, Tensor], Tensor], *, steps: int = 150, seed: int = 0
) -> CollapseReport:
    """Train a tiny VAE on small digits, in black and white, with a loss of one's own.

    Args:
        loss: Takes the distortion and the rate of a batch, both ``[B]``, and gives a scalar.
        steps: How many steps of Adam to take, a few milliseconds each.
        seed: Decides everything that is random.

    Raises:
        ValueError: When the loss, or its gradient, is no longer finite.

    """
    images = (load_digits("train")[0] > 0.5).float()  # (N, 1, 8, 8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VAE((1, 8, 8), 4, hidden=(64,))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        batch = images[torch.randint(len(images), (100,), generator=generator)]
        rate, distortion = model.rate_distortion(batch, generator=generator)
        value = loss(distortion, rate)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if not (value.isfinite() and all(p.isfinite().all() for p in model.parameters())):
            raise ValueError(
                f"loss must have finite values and gradients, got others in step {step + 1}"
            )
    with torch.no_grad():
        rate, distortion = model.rate_distortion(images, generator=generator)
        reconstructions = model.decode(model.encode(images)[0])
    share = images.mean(dim=0)  # of the images that are white here
    return CollapseReport(
        rate=float(rate.mean()),
        distortion=float(distortion.mean()),
        spread=float(reconstructions.std(dim=0).mean()),
        without_code=float((torch.special.entr(share) + torch.special.entr(1 - share)).sum()),
    )
