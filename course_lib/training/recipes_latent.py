"""The recipes of chapters 02 and 03: VAEs, a GAN, VQ-VAEs and the priors over their codes.

The VAEs see the black and white images of chapter 01, the VQ-VAEs grey ones.
"""

import torch
from torch import Tensor

from course_lib.data import load_mnist
from course_lib.latent import VAE
from course_lib.training.recipes import Recipe, register
from course_lib.training.recipes_autoregressive import (
    MNIST,
    binary_mnist,
    mnist_batch,
)

BETAS = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0)
CODES = (16, 32, 64, 128, 256, 512)


@torch.no_grad()
def vae_metrics(
    model: VAE, x: Tensor, y: Tensor | None = None, *, n_samples: int = 1000
) -> dict[str, float]:
    """The bounds of the mean −log p(x) of test images, in nats, and how many units are in use.

    A latent unit is active where the variance, over the images, of its posterior mean is above 0.01
    (Burda et al. 2016, section 5.2).
    """
    noise = torch.Generator().manual_seed(0)
    parts = (
        list(zip(x.split(100), y.split(100), strict=True))
        if y is not None
        else [(part, None) for part in x.split(100)]
    )
    rates, distortions, log_probs, means = [], [], [], []
    for images, labels in parts:
        rate, distortion = model.rate_distortion(images, 10, y=labels, generator=noise)
        rates.append(rate)
        distortions.append(distortion)
        log_probs.append(model.importance_log_prob(images, n_samples, y=labels, generator=noise))
        means.append(model.encode(images, labels)[0])
    rate, distortion, log_prob = torch.cat(rates), torch.cat(distortions), torch.cat(log_probs)
    return {
        f"test negative log-likelihood, {n_samples} samples (nats)": -log_prob.mean().item(),
        "standard error (nats)": (log_prob.std() / len(log_prob) ** 0.5).item(),
        "test negative ELBO (nats)": (rate + distortion).mean().item(),
        "rate (nats)": rate.mean().item(),
        "distortion (nats)": distortion.mean().item(),
        "active units": (torch.cat(means).var(dim=0) > 0.01).sum().item(),
    }


register(
    Recipe(
        name="vae_mnist",
        summary="VAE, 50 latents, two hidden layers of 400 units, on MNIST in black and white",
        data=MNIST,
        build=lambda: VAE((1, 28, 28), 50, hidden=(400, 400)),
        load=lambda: load_mnist("train")[0],
        transform=mnist_batch,
        options={"steps": 100_000, "batch_size": 128, "lr": 1e-3, "ema": 0.999},
        evaluate=lambda model: vae_metrics(model, binary_mnist("test")[0]),
    )
)
register(
    Recipe(
        name="iwae_mnist",
        summary="The network of vae_mnist, trained with 5 importance samples",
        data=MNIST,
        build=lambda: VAE((1, 28, 28), 50, hidden=(400, 400), importance_samples=5),
        load=lambda: load_mnist("train")[0],
        transform=mnist_batch,
        options={"steps": 60_000, "batch_size": 128, "lr": 1e-3, "ema": 0.999},
        evaluate=lambda model: vae_metrics(model, binary_mnist("test")[0]),
    )
)
register(
    Recipe(
        name="vae_mnist_plane",
        summary="VAE with a latent plane, on MNIST in black and white",
        data=MNIST,
        build=lambda: VAE((1, 28, 28), 2, hidden=(300, 300)),
        load=lambda: load_mnist("train")[0],
        transform=mnist_batch,
        options={"steps": 30_000, "batch_size": 128, "lr": 1e-3, "ema": 0.999},
        evaluate=lambda model: vae_metrics(model, binary_mnist("test")[0], n_samples=100),
    )
)
