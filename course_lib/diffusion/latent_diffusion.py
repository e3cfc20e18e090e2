"""Latent diffusion: a diffusion model of an autoencoder's codes that is told a text."""

from torch import Tensor

from course_lib.diffusion.edm import EDM
from course_lib.latent import KLAutoencoder
from course_lib.nn import Placed, TextEncoder, UNet

__all__ = ["LatentDiffusion", "Prompted"]


class Prompted(Placed):
    """A U-Net that looks at a text, as a network with labels: its labels are tokens.

    So a sampler, guidance and ``on_path`` take a prompt for a label. The label that says nothing is
    the empty prompt.

    Args:
        unet: A network with a ``context_dim``.
        text_encoder: Gives it the context.

    """

    def __init__(self, unet: UNet, text_encoder: TextEncoder):
        if getattr(unet, "context_dim", None) != text_encoder.dim:
            raise ValueError(
                f"unet must have the context_dim {text_encoder.dim} of the text encoder, got "
                f"{getattr(unet, 'context_dim', None)}"
            )
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        self.event_shape = unet.event_shape
        self.null_class = tuple(text_encoder.tokenizer([""])[0].tolist())

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """What the U-Net says of ``x [B, *event]`` at times ``t [B]``, told tokens ``y [B, L]``."""
        context, mask = self.text_encoder(y), self.text_encoder.mask(y)
        return self.unet(x, t, context=context, mask=mask)


class LatentDiffusion(Placed):
    """Text to image: EDM on the latents of an autoencoder, told a text that an encoder reads."""

    def __init__(self, autoencoder: KLAutoencoder, model: UNet, text_encoder: TextEncoder):
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.denoiser = EDM(Prompted(model, text_encoder), sigma_data=1.0, p_mean=-0.4, drop=0.1)

    def loss(self, x: Tensor, y: Tensor, *, generator=None) -> Tensor:
        latent = self.autoencoder.to_latent(x, generator=generator)
        return self.denoiser.loss(latent, y, generator=generator)
