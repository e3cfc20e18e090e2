"""The recipes of chapters 02 and 03: VAEs, a GAN, VQ-VAEs and the priors over their codes.

The VAEs see the black and white images of chapter 01, the VQ-VAEs grey ones.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.autoregressive import PixelCNN
from course_lib.data import load_digits, load_mnist
from course_lib.latent import GAN, VAE, VQVAE, perplexity
from course_lib.training.batches import digits_batch, mnist_batch
from course_lib.training.checkpoints import load_pretrained
from course_lib.training.quality import N_SAMPLES, sample_quality
from course_lib.training.recipes import Recipe, register
from course_lib.training.recipes_autoregressive import DIGITS, MNIST, binary_digits, binary_mnist
from course_lib.training.recipes_flows import toy_points

BETAS = (0.1, 0.3, 1.0, 1.5, 2.0, 3.0, 4.0)
CODES = (16, 32, 64, 128, 256, 512)
GREY_DIGITS = 'load_digits("train"), 1,438 images, jittered, grey; tested on the other 359'
GREY_MNIST = 'load_mnist("train"), 60,000 images, grey; tested on the 10,000 test images'


@torch.no_grad()
def vae_metrics(
    model: VAE, x: Tensor, y: Tensor | None = None, *, n_samples: int = 1000
) -> dict[str, float]:
    """The bounds of the mean −log p(x) of test images, in nats, and how many units are in use.

    A latent unit is active where the variance, over the images, of its posterior mean is above 0.01
    (Burda et al. 2016, section 5.2). With labels ``y`` everything is given the label.
    """
    noise = torch.Generator().manual_seed(0)
    terms, means = [], []
    for i in torch.arange(len(x)).split(100):
        labels = None if y is None else y[i]
        rate, distortion = model.rate_distortion(x[i], 10, y=labels, generator=noise)
        log_prob = model.importance_log_prob(x[i], n_samples, y=labels, generator=noise)
        terms.append(torch.stack([rate, distortion, log_prob]))
        means.append(model.encode(x[i], labels)[0])
    rate, distortion, log_prob = torch.cat(terms, dim=1)
    return {
        f"test negative log-likelihood, {n_samples} samples (nats)": -log_prob.mean().item(),
        "standard error (nats)": (log_prob.std() / len(log_prob) ** 0.5).item(),
        "test negative ELBO (nats)": (rate + distortion).mean().item(),
        "rate (nats)": rate.mean().item(),
        "distortion (nats)": distortion.mean().item(),
        "active units": (torch.cat(means).var(dim=0) > 0.01).sum().item(),
    }


def vae_quality(model: VAE, data: str) -> dict[str, float]:
    """How far samples, means of p(x | z), are from the grey test images."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        return sample_quality(model.sample(N_SAMPLES, mean=True, generator=generator), data)


def mode_metrics(model: nn.Module) -> dict[str, float]:
    """How many of the eight Gaussians 2,000 samples reach, and how many samples are in one at all.

    A sample is in a mode within three standard deviations of its centre, as 98.9 % of the data are;
    a mode is reached by at least 25 samples, a tenth of its share.
    """
    x = model.sample(2000, generator=torch.Generator().manual_seed(0))
    angle = torch.arange(8) * math.pi / 4
    centres = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    inside = torch.cdist(x, centres) < 3 * 0.2  # [2000, 8]
    return {
        "modes reached": (inside.sum(dim=0) >= 25).sum().item(),
        "share of samples in a mode": inside.any(dim=1).float().mean().item(),
    }


@torch.no_grad()
def vqvae_metrics(model: VQVAE, x: Tensor) -> dict[str, float]:
    """How well test images are put together again, and how many codes they use."""
    codes = torch.cat([model.encode(part) for part in x.split(500)])
    decoded = torch.cat([model.decode(part) for part in codes.split(500)])
    n_codes = model.quantizer.n_codes
    return {
        "test mean squared error of a pixel": (decoded - x).square().mean().item(),
        "perplexity": perplexity(codes, n_codes).item(),
        "codes in use": len(codes.unique()),
        "bits in the code map, at most": codes[0].numel() * math.log2(n_codes),
    }


@torch.no_grad()
def prior_metrics(prior: PixelCNN, codes: Tensor, y: Tensor) -> dict[str, float]:
    """What the prior says of the code maps ``[N, 1, h, w]`` of test images with labels ``y``."""
    joint = torch.cat([prior.log_joint(part) for part in codes.split(100)])
    log_prob = joint.logsumexp(dim=1)
    return {
        "bits in the code map": -log_prob.mean().item() / math.log(2),
        "standard error (bits)": (log_prob.std() / len(log_prob) ** 0.5 / math.log(2)).item(),
        "accuracy as a classifier": (joint.argmax(dim=1) == y).float().mean().item(),
    }


def code_maps(name: str, images: Tensor) -> Tensor:
    """The codes of images under a stored VQ-VAE, as a PixelCNN takes them: ``[N, 1, h, w]``."""
    model = load_pretrained(name)
    return torch.cat([model.encode(part) for part in images.split(500)])[:, None].float()


def digits_code_maps(name: str, copies: int = 20) -> tuple[Tensor, Tensor]:
    """Code maps of the training digits, of ``copies`` jittered ones of each, and the labels."""
    images, labels = load_digits("train")
    repeated = images.repeat(copies, 1, 1, 1)
    moved = digits_batch("grey")(repeated, torch.Generator().manual_seed(0))
    return code_maps(name, moved), labels.repeat(copies)


def mnist_code_maps(name: str, split: str) -> tuple[Tensor, Tensor]:
    """Code maps of MNIST, and the labels."""
    images, labels = load_mnist(split)
    return code_maps(name, images), labels


def register_mnist_vae(
    name: str, summary: str, build: Callable[[], VAE], *, steps: int, n_samples: int = 1000
) -> None:
    """Register a VAE on binarized MNIST; one with classes gets the labels."""

    def data(split: str) -> tuple[Tensor, ...]:
        images, labels = load_mnist("train") if split == "train" else binary_mnist("test")
        return (images,) if build().n_classes is None else (images, labels)

    register(
        Recipe(
            name=name,
            summary=summary,
            data=MNIST,
            build=build,
            load=lambda: data("train"),
            transform=mnist_batch("binary"),
            options={"steps": steps, "batch_size": 128, "lr": 1e-3, "ema": 0.999},
            evaluate=lambda model: (
                vae_metrics(model, *data("test"), n_samples=n_samples) | vae_quality(model, "mnist")
            ),
        )
    )


register_mnist_vae(
    "vae_mnist",
    "VAE, 50 latents, two hidden layers of 400 units, on MNIST in black and white",
    lambda: VAE((1, 28, 28), 50, hidden=(400, 400)),
    steps=100_000,
)
register_mnist_vae(
    "iwae_mnist",
    "The network of vae_mnist, trained with 5 importance samples",
    lambda: VAE((1, 28, 28), 50, hidden=(400, 400), importance_samples=5),
    steps=60_000,
)
register_mnist_vae(
    "vae_mnist_plane",
    "VAE with a latent plane, on MNIST in black and white",
    lambda: VAE((1, 28, 28), 2, hidden=(300, 300)),
    steps=30_000,
    n_samples=200,
)
register_mnist_vae(
    "cvae_mnist",
    "VAE, 8 latents, given the class, on MNIST in black and white",
    lambda: VAE((1, 28, 28), 8, hidden=(300, 300), n_classes=10),
    steps=20_000,
    n_samples=200,
)


def register_digits_vae(name: str, summary: str, build: Callable[[], VAE]) -> None:
    """Register a VAE on the digits in black and white."""
    register(
        Recipe(
            name=name,
            summary=f"{summary}, on the 8x8 digits in black and white",
            data=DIGITS.format("black and white"),
            build=build,
            load=lambda: load_digits("train")[0],
            transform=digits_batch("binary"),
            options={"steps": 4000, "batch_size": 128, "lr": 2e-3, "ema": 0.998},
            evaluate=lambda model: (
                vae_metrics(model, binary_digits("test")[0]) | vae_quality(model, "digits")
            ),
        )
    )


def beta_name(beta: float) -> str:
    """The name of the recipe with this β: ``vae_digits_beta_0_3`` for 0.3."""
    return f"vae_digits_beta_{beta:g}".replace(".", "_")


register_digits_vae("vae_digits", "VAE, 8 latents", lambda: VAE((1, 8, 8), 8, hidden=(128, 128)))
for beta in BETAS:
    register_digits_vae(
        beta_name(beta),
        f"VAE with a latent plane, beta {beta:g}",
        lambda beta=beta: VAE((1, 8, 8), 2, hidden=(128, 128), beta=beta),
    )


for kind, title, build in [
    ("gan", "GAN", lambda: GAN(2, 2, hidden=(64, 64))),
    ("vae", "VAE", lambda: VAE((2,), 2, likelihood="gaussian", hidden=(64, 64))),
]:
    register(
        Recipe(
            name=f"{kind}_eight_gaussians",
            summary=f"{title} on the 2-D toy eight_gaussians",
            data='toy("eight_gaussians"), 50,000 points, seed 0',
            build=build,
            load=lambda: toy_points("eight_gaussians", seed=0),
            options={
                "steps": 4000,
                "batch_size": 256,
                "lr": 1e-3,
                "schedule": "constant",
                "clip": None,
            },
            evaluate=mode_metrics,
        )
    )


for n_codes in CODES:
    register(
        Recipe(
            name=f"vqvae_digits_{n_codes}",
            summary=f"VQ-VAE, {n_codes} codes, on the grey 8x8 digits",
            data=GREY_DIGITS,
            build=lambda n_codes=n_codes: VQVAE((1, 8, 8), n_codes, 8, downsamplings=1),
            load=lambda: load_digits("train")[0],
            transform=digits_batch("grey"),
            options={"steps": 3000, "batch_size": 128, "lr": 3e-3},
            evaluate=lambda model: vqvae_metrics(model, load_digits("test")[0]),
        )
    )
    register(
        Recipe(
            name=f"vqvae_mnist_{n_codes}",
            summary=f"VQ-VAE, {n_codes} codes, on grey MNIST",
            data=GREY_MNIST,
            build=lambda n_codes=n_codes: VQVAE((1, 28, 28), n_codes, 16),
            load=lambda: load_mnist("train")[0],
            options={"steps": 6000, "batch_size": 64, "lr": 2e-3},
            evaluate=lambda model: vqvae_metrics(model, load_mnist("test")[0]),
        )
    )

register(
    Recipe(
        name="prior_digits",
        summary="PixelCNN, given the class, over the codes of vqvae_digits_32",
        data="codes of vqvae_digits_32: 20 jittered copies of each digit; tested on the other 359",
        build=lambda: PixelCNN(24, 3, levels=32, n_classes=10, first_kernel_size=5, size=(4, 4)),
        load=lambda: digits_code_maps("vqvae_digits_32"),
        options={"steps": 4000, "batch_size": 128, "lr": 3e-3, "ema": 0.998},
        evaluate=lambda model: prior_metrics(
            model, code_maps("vqvae_digits_32", load_digits("test")[0]), load_digits("test")[1]
        ),
    )
)
register(
    Recipe(
        name="prior_mnist",
        summary="PixelCNN, given the class, over the codes of vqvae_mnist_64",
        data="codes of vqvae_mnist_64: of 60,000 MNIST images; tested on those of the test images",
        build=lambda: PixelCNN(48, 5, levels=64, n_classes=10, size=(7, 7)),
        load=lambda: mnist_code_maps("vqvae_mnist_64", "train"),
        options={"steps": 8000, "batch_size": 64, "lr": 2e-3, "ema": 0.998},
        evaluate=lambda model: prior_metrics(model, *mnist_code_maps("vqvae_mnist_64", "test")),
    )
)
