"""The VQ-VAE: an autoencoder whose code is a small map of whole numbers."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.autoregressive import PixelCNN
from course_lib.checks import check_floats, check_int, check_ints
from course_lib.latent.quantizer import VectorQuantizer

__all__ = ["VQVAE"]


class VQVAE(nn.Module):
    """Encoder, codebook and decoder for images ``[B, C, H, W]`` with values in [0, 1].

    Each downsampling halves the image's sides: from 28 × 28 pixels two of them make a map of 7 × 7
    vectors, of which the quantizer keeps the number of the nearest code.

    Reference:
        van den Oord, Vinyals and Kavukcuoglu 2017, https://arxiv.org/abs/1711.00937, section 3; the
        networks are those of section 4.1, smaller.

    Args:
        data_shape: ``(C, H, W)``; H and W must be multiples of 2 ** ``downsamplings``.
        n_codes: Number of codes, K.
        dim: Width of a code vector.
        channels: Width of the hidden layers.
        downsamplings: How often the image's sides are halved.
        residual_layers: Number of residual blocks, in the encoder and in the decoder.
        ema, commitment, dead_below: As in ``VectorQuantizer``.

    Example:
        >>> model = VQVAE((1, 8, 8), 32, 8, downsamplings=1).eval()
        >>> indices = model.encode(torch.rand(5, 1, 8, 8))
        >>> indices.shape, model.decode(indices).shape
        (torch.Size([5, 4, 4]), torch.Size([5, 1, 8, 8]))

    """

    def __init__(
        self,
        data_shape: Sequence[int],
        n_codes: int,
        dim: int,
        *,
        channels: int = 32,
        downsamplings: int = 2,
        residual_layers: int = 1,
        ema: bool = True,
        commitment: float = 0.25,
        dead_below: float = 0.1,
    ):
        check_ints("data_shape", data_shape, minimum=1)
        check_int("channels", channels, minimum=1)
        check_int("downsamplings", downsamplings, minimum=1)
        check_int("residual_layers", residual_layers, minimum=0)
        if len(data_shape) != 3:
            raise ValueError(f"data_shape must be (C, H, W), got {data_shape!r}")
        factor = 2**downsamplings
        if data_shape[1] % factor or data_shape[2] % factor:
            raise ValueError(
                f"data_shape must have a height and a width that are multiples of {factor}, "
                f"got {data_shape!r}"
            )
        super().__init__()
        self.quantizer = VectorQuantizer(
            n_codes, dim, ema=ema, commitment=commitment, dead_below=dead_below
        )
        self.data_shape = tuple(data_shape)
        self.code_shape = (data_shape[1] // factor, data_shape[2] // factor)
        widths = [data_shape[0]] + [channels] * downsamplings
        down, up = [], []
        for wide, deep in pairwise(widths):
            down += [nn.Conv2d(wide, deep, 4, stride=2, padding=1), nn.ReLU()]
            up = [nn.ReLU(), nn.ConvTranspose2d(deep, wide, 4, stride=2, padding=1), *up]
        encoder_blocks, decoder_blocks = (
            [Residual(channels) for _ in range(residual_layers)] for _ in range(2)
        )
        self.encoder = nn.Sequential(
            *down,
            nn.Conv2d(channels, channels, 3, padding=1),
            *encoder_blocks,
            nn.ReLU(),
            nn.Conv2d(channels, dim, 1),
        )
        self.decoder = nn.Sequential(nn.Conv2d(dim, channels, 3, padding=1), *decoder_blocks, *up)

    def forward(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From ``x [B, C, H, W]`` to the decoded image, its codes ``[B, h, w]``, the quantizer's
        loss and its perplexity.
        """
        self.check_images(x)
        quantized, indices, loss, used = self.quantizer(self.encoder(x), generator=generator)
        return self.decoder(quantized), indices, loss, used

    def loss(
        self, x: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Mean squared error of a pixel plus the quantizer's loss. Labels ``y`` play no part."""
        decoded, _, loss, _ = self(x, generator=generator)
        return F.mse_loss(decoded, x) + loss

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The codes of ``x [B, C, H, W]``: whole numbers 0 ... K − 1, int64 ``[B, h, w]``."""
        self.check_images(x)
        z = self.encoder(x)
        index = self.quantizer.nearest(z.movedim(1, -1).reshape(-1, z.shape[1]))
        return index.reshape(len(x), *self.code_shape)

    def decode(self, indices: Tensor) -> Tensor:
        """The image ``[B, C, H, W]`` of codes ``[B, h, w]``, int64.

        Nothing keeps its values in [0, 1]; they are close to it. Clamp them for a picture.
        """
        self.quantizer.check_indices(indices)
        if indices.shape[1:] != self.code_shape:
            height, width = self.code_shape
            raise ValueError(
                f"indices must have shape [B, {height}, {width}], got {list(indices.shape)}"
            )
        return self.decoder(self.quantizer.lookup(indices))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        prior: PixelCNN,
        *,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``n`` new images ``[n, C, H, W]``, in two stages: codes from the prior, then the decoder.

        Args:
            n: Number of images.
            prior: A distribution over code maps ``[B, 1, h, w]``, trained on those of ``encode``.
            y: Labels ``[n]``, where the prior has classes.
            generator: Source of the draws.

        """
        self.check_prior(prior)
        codes = prior.sample(n, y=y, generator=generator)  # [n, 1, h, w]
        return self.decode(codes[:, 0].long())

    def check_prior(self, prior: PixelCNN) -> None:
        """Require a PixelCNN over maps of this model's codes."""
        if not isinstance(prior, PixelCNN):
            raise ValueError(f"prior must be a PixelCNN, got {type(prior).__name__}")
        if (prior.levels, prior.size) != (self.quantizer.n_codes, self.code_shape):
            raise ValueError(
                f"prior must have levels={self.quantizer.n_codes} and size={self.code_shape}, "
                f"got levels={prior.levels} and size={prior.size}"
            )

    def check_images(self, x: Tensor) -> None:
        """Require images of the model's shape with values in [0, 1]."""
        check_floats("x", x, (None, *self.data_shape), dtype=self.encoder[0].weight.dtype)
        if (outside := (x < 0) | (x > 1)).any():
            raise ValueError(f"x must lie in [0, 1], got {x[outside][0].item()}")


class Residual(nn.Module):
    """x + a 1×1 convolution of a 3×3 convolution of x, each after a ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)
