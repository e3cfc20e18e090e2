"""Models with a latent code: VAE and VQ-VAE, and a GAN to compare with."""

from course_lib.latent.code_capacity import code_bits
from course_lib.latent.gan import GAN
from course_lib.latent.gaussian import gaussian_kl, reparameterize
from course_lib.latent.gradients import reparameterization_gradient, score_function_gradient
from course_lib.latent.linear import LinearVAE
from course_lib.latent.quantizer import (
    VectorQuantizer,
    perplexity,
    straight_through,
    vq_loss,
)
from course_lib.latent.vae import VAE
from course_lib.latent.vqvae import VQVAE

__all__ = [
    "GAN",
    "VAE",
    "VQVAE",
    "LinearVAE",
    "VectorQuantizer",
    "code_bits",
    "gaussian_kl",
    "perplexity",
    "reparameterization_gradient",
    "reparameterize",
    "score_function_gradient",
    "straight_through",
    "vq_loss",
]
