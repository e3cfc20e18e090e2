"""The autoencoder of latent diffusion: an image as a small map, hardly pulled to N(0, I)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_floats, check_int, check_number, check_shape
from course_lib.latent.gaussian import gaussian_kl, reparameterize
from course_lib.nn import DoublingConv, Placed

__all__ = ["KLAutoencoder"]


class ResBlock(nn.Module):
    """Two 3×3 convolutions around which the image is carried past."""

    def __init__(self, n: int, groups: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, n), nn.Conv2d(n, n, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, n), nn.Conv2d(n, n, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class KLAutoencoder(Placed):
    """A convolutional VAE whose code is a map, trained for its reconstructions above all.

    Each halving of the sides doubles the width; there is no residual block at the image's own size,
    where it would cost most. The KL term has so small a weight that it only keeps the code from
    growing: p(z) is not N(0, I), and a diffusion model learns it later. That wants numbers of one
    size: latents are codes times ``latent_scale``, which is measured after training.

    Reference:
        Rombach et al. 2022, https://arxiv.org/abs/2112.10752, section 3.1 ("KL-reg.").

    Args:
        shape: Shape of an image, (C, H, W).
        channels: Channels of the code.
        factor: How many times smaller the code's sides are: a power of two, which divides H and W.
        width: Channels at the image's own size.
        kl_weight: Weight of the rate in ``loss``.

    Example:
        >>> model = KLAutoencoder((3, 32, 32), channels=4, factor=4)
        >>> mu, log_var = model.encode(torch.zeros(2, 3, 32, 32))
        >>> mu.shape, model.decode(mu).shape
        (torch.Size([2, 4, 8, 8]), torch.Size([2, 3, 32, 32]))
        >>> x = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> model.measure_scale(x)
        >>> round(model.to_latent(x).std().item(), 1)
        1.0

    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        channels: int = 4,
        factor: int = 4,
        width: int = 16,
        kl_weight: float = 1e-3,
    ):
        check_shape("shape", shape, lengths=(3,), any_size=False)
        check_int("channels", channels, minimum=1)
        check_int("factor", factor, minimum=1)
        if factor & (factor - 1) or shape[1] % factor or shape[2] % factor:
            raise ValueError(
                f"factor must be a power of two that divides {shape[1]} and {shape[2]}, "
                f"got {factor}"
            )
        check_int("width", width, minimum=1)
        if width % 8:
            raise ValueError(f"width must be a multiple of 8, got {width}")
        check_number("kl_weight", kl_weight, minimum=0)
        super().__init__()
        self.event_shape = tuple(shape)
        self.latent_shape = (channels, shape[1] // factor, shape[2] // factor)
        self.factor, self.kl_weight = factor, kl_weight
        widths = [width * 2**level for level in range(int(math.log2(factor)) + 1)]
        self.encoder = nn.Sequential(
            nn.Conv2d(shape[0], width, 3, padding=1),
            *(
                layer
                for n, wider in pairwise(widths)
                for layer in (nn.Conv2d(n, wider, 3, stride=2, padding=1), ResBlock(wider, 8))
            ),
            nn.GroupNorm(8, widths[-1]),
            nn.SiLU(),
            nn.Conv2d(widths[-1], 2 * channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, widths[-1], 3, padding=1),
            *(
                layer
                for n, wider in pairwise(reversed(widths))
                for layer in (ResBlock(n, 8), DoublingConv(n), nn.Conv2d(n, wider, 1))
            ),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, shape[0], 3, padding=1),
        )
        self.register_buffer("latent_scale", torch.ones(()))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean μ and log σ² of q(z | x), both ``[B, c, h, w]``, for ``x [B, C, H, W]``.

        log σ² is held between −20 and 10, so that no draw overflows.
        """
        check_floats("x", x, (None, *self.event_shape), dtype=self.dtype)
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        return mu, log_var.clamp(-20, 10)

    def decode(self, z: Tensor) -> Tensor:
        """The image ``[B, C, H, W]`` of a code ``z [B, c, h, w]``."""
        check_floats("z", z, (None, *self.latent_shape), dtype=self.dtype)
        return self.decoder(z)

    def rate_distortion(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """KL(q(z | x) ‖ N(0, I)) in nats, and the mean squared error of a draw, both ``[B]``."""
        mu, log_var = self.encode(x)
        z = reparameterize(mu, log_var, generator=generator)
        rate = gaussian_kl(mu.flatten(1), log_var.flatten(1))
        return rate, (self.decode(z) - x).square().flatten(1).mean(1)

    def loss(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The mean of distortion + ``kl_weight`` · rate / D, for images of D numbers."""
        rate, distortion = self.rate_distortion(x, generator=generator)
        return (distortion + self.kl_weight * rate / x[0].numel()).mean()

    @torch.no_grad()
    def measure_scale(self, x: Tensor, *, generator: torch.Generator | None = None) -> None:
        """Set ``latent_scale`` so that the latents of images ``x [B, C, H, W]`` have variance 1."""
        mu, log_var = self.encode(x)
        z = reparameterize(mu, log_var, generator=generator)
        if z.numel() < 2:
            raise ValueError("x must have latents of two numbers at least, to have a variance")
        self.latent_scale.copy_(1 / z.std())

    def to_latent(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """What a diffusion model is trained on: a draw of z, times ``latent_scale``."""
        mu, log_var = self.encode(x)
        return self.latent_scale * reparameterize(mu, log_var, generator=generator)

    def from_latent(self, latent: Tensor) -> Tensor:
        """The image of a latent ``[B, c, h, w]``: ``decode`` of it, divided by ``latent_scale``."""
        check_floats("latent", latent, (None, *self.latent_shape), dtype=self.dtype)
        return self.decode(latent / self.latent_scale)
