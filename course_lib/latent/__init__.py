"""Models with a latent code: VAE and VQ-VAE, and a GAN to compare with."""

from course_lib.latent.code_capacity import code_bits
from course_lib.latent.gan import GAN
from course_lib.latent.gaussian import best_log_var, gaussian_kl, reparameterize
from course_lib.latent.gradients import (
    leave_one_out,
    reparameterization_gradient,
    score_function_gradient,
)
from course_lib.latent.jumps import slope_of_jump
from course_lib.latent.kl_autoencoder import KLAutoencoder
from course_lib.latent.linear import LinearVAE
from course_lib.latent.quantizer import (
    VectorQuantizer,
    perplexity,
    straight_through,
    vq_loss,
)
from course_lib.latent.rate import rate_parts
from course_lib.latent.vae import VAE
from course_lib.latent.vqvae import VQVAE

__all__ = [
    "GAN",
    "VAE",
    "VQVAE",
    "KLAutoencoder",
    "LinearVAE",
    "VectorQuantizer",
    "best_log_var",
    "code_bits",
    "gaussian_kl",
    "leave_one_out",
    "perplexity",
    "rate_parts",
    "reparameterization_gradient",
    "reparameterize",
    "score_function_gradient",
    "slope_of_jump",
    "straight_through",
    "vq_loss",
]
