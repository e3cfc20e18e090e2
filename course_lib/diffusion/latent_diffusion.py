"""Latent diffusion: a diffusion model of an autoencoder's codes that is told a text."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_floats, check_int, check_share, check_tensor, check_tokens
from course_lib.data import to_signed, to_unit
from course_lib.diffusion.continuous import EDMPath, StraightPath
from course_lib.diffusion.controlnet import ControlledUNet, ControlNet
from course_lib.diffusion.denoiser import Denoiser
from course_lib.diffusion.edm import EDM, karras_times
from course_lib.diffusion.edm_samplers import dpm_solver_sample
from course_lib.diffusion.flow_matching import FlowMatching
from course_lib.diffusion.guidance import ClassifierFreeGuidance
from course_lib.diffusion.ode import ode_sample
from course_lib.diffusion.on_path import on_path
from course_lib.diffusion.sampling import last
from course_lib.latent import KLAutoencoder
from course_lib.nn import MMDiT, Placed, TextEncoder, UNet

__all__ = ["ControlledDiffusion", "Inpainting", "LatentDiffusion", "Prompted", "keep_known"]


class Prompted(Placed):
    """A U-Net that looks at a text, as a network with labels: its labels are tokens.

    So samplers, guidance and ``on_path`` take a prompt for a label. The label that says nothing is
    the empty prompt, and stands where none is given.

    Args:
        unet: A network with a ``context_dim``.
        text_encoder: Gives it the context.

    Example:
        >>> from course_lib.nn import WordTokenizer
        >>> text_encoder = TextEncoder(WordTokenizer(["red", "3"], length=4), dim=8, heads=2)
        >>> net = Prompted(UNet((1, 4, 4), widths=(8,), context_dim=8), text_encoder)
        >>> y = text_encoder.tokenizer(["red 3", "3", ""])
        >>> net(torch.zeros(3, 1, 4, 4), torch.ones(3), y).shape
        torch.Size([3, 1, 4, 4])

    """

    def __init__(self, unet: nn.Module, text_encoder: TextEncoder):
        if not isinstance(text_encoder, TextEncoder):
            raise ValueError(
                f"text_encoder must be a TextEncoder, got {type(text_encoder).__name__}"
            )
        if getattr(unet, "context_dim", None) != text_encoder.dim:
            raise ValueError(
                f"unet must have the context_dim {text_encoder.dim} of the text encoder, got "
                f"{getattr(unet, 'context_dim', None)}"
            )
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        self.event_shape = unet.event_shape
        self.null_class = tuple(text_encoder.tokenizer([""])[0].tolist())

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """What the U-Net says of ``x [B, *event]`` at times ``t [B]``, told tokens ``y [B, L]``."""
        if y is None:
            y = torch.tensor(self.null_class, device=x.device).expand(len(x), -1)
        check_tokens("y", y, len(x), len(self.null_class))
        context, mask = self.text_encoder(y), self.text_encoder.mask(y)
        return self.unet(x, t, context=context, mask=mask)


class LatentDiffusion(Placed):
    """Text to image: diffusion of an autoencoder's latents, told a text that an encoder reads.

    The autoencoder is trained before and stays as it is, in eval mode and without gradients. U-Net
    and text encoder are trained together, with one caption in ten hidden: the model knows the empty
    prompt, too, which guidance needs.

    Reference:
        Rombach et al. 2022, https://arxiv.org/abs/2112.10752.

    Args:
        autoencoder: Gives the latents, of variance 1 by its ``latent_scale``.
        model: The network on latents, with a ``context_dim``.
        text_encoder: Reads the prompts.
        drop: Share of the captions that training hides.
        path: None for EDM; a straight path, with its times to train at, makes it a rectified flow,
            as Stable Diffusion 3 is.

    Example:
        >>> from course_lib.nn import WordTokenizer
        >>> text_encoder = TextEncoder(WordTokenizer(["red", "3"], length=4), dim=8, heads=2)
        >>> unet = UNet((4, 2, 2), widths=(8,), context_dim=8)
        >>> model = LatentDiffusion(KLAutoencoder((3, 8, 8)), unet, text_encoder)
        >>> model.sample(["red 3", "3"], scale=2.0, negative="red", steps=4).shape
        torch.Size([2, 3, 8, 8])

    """

    def __init__(
        self,
        autoencoder: KLAutoencoder,
        model: UNet | MMDiT,
        text_encoder: TextEncoder,
        *,
        drop: float = 0.1,
        path: StraightPath | None = None,
    ):
        if not isinstance(autoencoder, KLAutoencoder):
            raise ValueError(
                f"autoencoder must be a KLAutoencoder, got {type(autoencoder).__name__}"
            )
        takes = getattr(model, "event_shape", None)
        if takes != autoencoder.latent_shape:
            raise ValueError(
                f"model must be a network on latents {autoencoder.latent_shape}, got "
                f"{type(model).__name__} on {takes}"
            )
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        net = Prompted(model, text_encoder)
        if path is None:
            self.denoiser = EDM(net, sigma_data=1.0, p_mean=-0.4, drop=drop)
        elif isinstance(path, StraightPath):
            self.denoiser = FlowMatching(net, path=path, drop=drop)
        else:
            raise ValueError(f"path must be a StraightPath or None, got {path!r}")

    def train(self, mode: bool = True) -> "LatentDiffusion":
        """Train mode for all but the autoencoder, which is not trained."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    @property
    def prompted(self) -> Prompted:
        """The network with its reader of prompts; EDM has it inside its preconditioning."""
        net = self.denoiser.net
        return net if isinstance(net, Prompted) else net.net

    @property
    def model(self) -> UNet | MMDiT:
        """The network on latents."""
        return self.prompted.unet

    @property
    def text_encoder(self) -> TextEncoder:
        """The reader of prompts."""
        return self.prompted.text_encoder

    def loss(self, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss of the latents of images: EDM's, or flow matching's.

        Args:
            x: Images ``[B, C, H, W]`` in [−1, 1].
            y: Their captions' tokens ``[B, L]``.
            generator: Source of the latents' noise, the levels, the noise and the hidden captions.

        """
        latent = self.autoencoder.to_latent(x, generator=generator)
        return self.denoiser.loss(latent, y, generator=generator)

    # --- Sampling ---

    def sample(self, prompts: Sequence[str], **options) -> Tensor:
        """Images ``[B, C, H, W]`` in [0, 1] of prompts; options as of ``states``."""
        return self.to_images(last(self.states(prompts, **options)))

    def states(
        self,
        prompts: Sequence[str],
        *,
        scale: float = 3.0,
        negative: str = "",
        steps: int = 12,
        controls: Sequence[tuple] = (),
        sampler: Callable[..., Iterator[Tensor]] | None = None,
        z: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """The latents ``[B, c, h, w]`` on the way from noise to images of prompts.

        Args:
            prompts: ``B`` sentences, at least one.
            scale: Of classifier-free guidance: 0 without prompt, 1 with it.
            negative: What to go away from: by default the empty prompt.
            steps: Of the sampler.
            controls: ``(control_net, condition, strength)`` of each control.
            sampler: Any sampler on the path; by default ``dpm_solver_sample`` for EDM, and
                ``ode_sample`` for a rectified flow.
            z: The state to start from, as at the path's end; by default noise is drawn.
            generator: Source of the noise.

        """
        model, y = self.told(prompts, scale=scale, negative=negative, controls=controls)
        shape = (len(y), *self.autoencoder.latent_shape)
        if sampler is None:
            sampler = dpm_solver_sample if isinstance(self.denoiser, EDM) else ode_sample
        return sampler(model, shape, steps=steps, y=y, z=z, generator=generator)

    def told(
        self,
        prompts: Sequence[str],
        *,
        scale: float = 3.0,
        negative: str = "",
        controls: Sequence[tuple] = (),
    ) -> tuple[Denoiser, Tensor]:
        """The guided model and the tokens ``[B, L]`` that a sampler takes, as of ``states``."""
        y = self.text_encoder.tokenizer(prompts).to(self.device)
        away = self.text_encoder.tokenizer([negative]).to(self.device)
        model = self.controlled(controls)
        for _, condition, _ in controls:
            if len(condition) not in (1, len(y)):  # guidance asks twice: 2 B would pass, mixed up
                raise ValueError(
                    f"condition must be one image for all prompts or {len(y)}, got {len(condition)}"
                )
        return ClassifierFreeGuidance(model, scale, negative=away), y

    def controlled(self, controls: Sequence[tuple]) -> Denoiser:
        """The model with controls, ``(control_net, condition, strength)`` each; without, itself."""
        if not controls:
            return self.denoiser
        if not isinstance(self.model, UNet):
            raise ValueError(
                "controls must be () unless the model is a UNet, got some for a "
                f"{type(self.model).__name__}"
            )
        alone = self.denoiser
        net = Prompted(ControlledUNet(self.model, controls), self.text_encoder)
        options = {"path": alone.path, "drop": alone.drop}
        if isinstance(alone, FlowMatching):
            model = FlowMatching(net, **options)
        else:
            model = EDM(
                net,
                sigma_data=alone.sigma_data,
                p_mean=alone.p_mean,
                p_std=alone.p_std,
                **options,
            )
        return model.to(device=self.device, dtype=self.dtype)

    @torch.no_grad()
    def image_to_image(
        self,
        x: Tensor,
        prompts: Sequence[str],
        *,
        strength: float,
        steps: int = 12,
        generator: torch.Generator | None = None,
        **guidance,
    ) -> Tensor:
        """Images of prompts that begin with given ones: noise is added, and taken away again.

        Reference:
            Meng et al. 2022, "SDEdit", https://arxiv.org/abs/2108.01073.

        Args:
            x: Images ``[B, C, H, W]`` in [0, 1].
            prompts: ``B`` sentences.
            strength: How much noise: the share of the ``steps`` that are taken, the last ones; at
                least two are.
            steps: Of the whole way.
            generator: Source of the noise.
            guidance: ``scale``, ``negative`` and ``controls``, as of ``states``.

        Returns:
            ``[B, C, H, W]`` in [0, 1].

        """
        check_share("strength", strength)
        check_int("steps", steps, minimum=2)
        model, y = self.told(prompts, **guidance)
        self.check_images(x, len(y))
        path = self.denoiser.path
        left = max(round(strength * steps), 2)
        latent = self.autoencoder.to_latent(to_signed(x), generator=generator)
        eps = self.denoiser.noise(latent.shape, generator)
        # From t, or sigma, the last steps of the whole way are left.
        if isinstance(self.denoiser, FlowMatching):
            t = left / steps
            z = (1 - t) * latent + t * eps
            walk = ode_sample(model, z.shape, steps=left, y=y, z=z, warp=lambda even: t * even)
            return self.to_images(last(walk))
        sigma = karras_times(steps, sigma_min=path.t_min, sigma_max=path.t_max)[-left]
        z = latent + sigma * eps
        shorter = on_path(model, EDMPath(path.t_min, sigma))
        return self.to_images(last(dpm_solver_sample(shorter, z.shape, steps=left, y=y, z=z)))

    @torch.no_grad()
    def inpaint(
        self,
        x: Tensor,
        keep: Tensor,
        prompts: Sequence[str],
        *,
        steps: int = 12,
        sampler: Callable[..., Iterator[Tensor]] = dpm_solver_sample,
        generator: torch.Generator | None = None,
        **guidance,
    ) -> Tensor:
        """Images of prompts that are given in part. What ``x`` shows elsewhere changes nothing.

        Args:
            x: Images ``[B, C, H, W]`` in [0, 1].
            keep: Where they are given, bool ``[B, 1, H, W]``; the result is the same there.
            prompts: ``B`` sentences.
            steps: Of the sampler.
            sampler: Any sampler on an ``EDMPath``; fresh noise, ``churn``, helps (``Inpainting``).
            generator: Source of the noise.
            guidance: ``scale``, ``negative`` and ``controls``, as of ``states``.

        Returns:
            ``[B, C, H, W]`` in [0, 1].

        """
        if not isinstance(self.denoiser, EDM):  # a known x_0 gives no velocity at t = 0
            raise ValueError(
                f"inpaint must be asked of a model of EDM, got a {type(self.denoiser).__name__}"
            )
        model, y = self.told(prompts, **guidance)
        self.check_images(x, len(y))
        check_keep(keep, (len(y), 1, *x.shape[2:]))
        known = self.autoencoder.to_latent(to_signed(x * keep), generator=generator)
        # A number of the latent is known where all pixels in its square are.
        squares = F.max_pool2d((~keep).to(x), self.autoencoder.factor) == 0
        model = Inpainting(model, known, squares, generator=generator)
        states = sampler(model, known.shape, steps=steps, y=y, generator=generator)
        return torch.where(keep, x, self.to_images(last(states)))

    @torch.no_grad()
    def to_images(self, latent: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` in [0, 1] of latents ``[B, c, h, w]``."""
        return to_unit(self.autoencoder.from_latent(latent))

    def check_images(self, x: Tensor, n: int) -> None:
        """Require ``n`` images in [0, 1] of the autoencoder's shape (``ValueError``)."""
        check_floats("x", x, (n, *self.autoencoder.event_shape), dtype=self.dtype)
        if x.min() < 0 or x.max() > 1:
            raise ValueError(f"x must lie in [0, 1], got {x.min():.4g} to {x.max():.4g}")


def check_keep(keep: Tensor, shape: Sequence[int]) -> None:
    """Require a mask of what is known (``ValueError``)."""
    if not isinstance(keep, Tensor) or keep.dtype != torch.bool or keep.shape != tuple(shape):
        got = f"{keep.dtype} {list(keep.shape)}" if isinstance(keep, Tensor) else repr(keep)
        raise ValueError(f"keep must be a bool tensor {list(shape)}, got {got}")


def keep_known(x: Tensor, known: Tensor, keep: Tensor) -> Tensor:
    """``known`` where ``keep`` is True, and ``x`` elsewhere; ``keep`` may have fewer channels."""
    return torch.where(keep, known, x)


class Inpainting(Denoiser):
    """A model that knows a part of x_0: it sees that part noised, and guesses it right.

    At every level the known part is as it would be there, and the rest is the model's to fit to it.
    Where noise is strong it sees little of the known part, though, and what it decides of the rest
    then may not fit later: draws are not from the conditional distribution. Of two clouds of size
    0.2 at (−1, −1) and (1, 1), with the first number known to be 1, the exact denoiser draws 17 %
    in the wrong cloud, however many steps it takes. With ``churn`` it decides again: 160 steps of
    ``heun_sample`` leave 6 % with churn 32, and 3 % with the most that there is.

    Reference:
        Lugmayr et al. 2022, "RePaint", https://arxiv.org/abs/2201.09865, equation 8, with one and
        the same noise at all times.

    Args:
        model: The model of the rest.
        known: x_0, ``[B, *event]``.
        keep: Where it is known, bool ``[B, *event]``, or ``[B, 1, *event[1:]]`` for all channels.
        generator: Source of the noise that the known part is seen with.

    Example:
        >>> from course_lib.diffusion import IdealDenoiser
        >>> centres, path = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), EDMPath()
        >>> known, keep = torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]])
        >>> model = Inpainting(Denoiser(IdealDenoiser(centres, path), path), known, keep)
        >>> model.predict_x0(torch.zeros(1, 2), 0.1).round(decimals=3)
        tensor([[1., 1.]])

    """

    def __init__(
        self,
        model: Denoiser,
        known: Tensor,
        keep: Tensor,
        *,
        generator: torch.Generator | None = None,
    ):
        if not isinstance(model, Denoiser):
            raise ValueError(f"model must be a Denoiser, got {type(model).__name__}")
        check_floats("known", known, None, dtype=model.dtype)
        every = known.ndim == 2 or (isinstance(keep, Tensor) and keep.shape == known.shape)
        check_keep(keep, known.shape if every else (len(known), 1, *known.shape[2:]))
        super().__init__(model, model.path, predicts="x0")
        self.placement = torch.empty_like(model.placement)
        self.known, self.keep = known, keep
        self.eps = model.noise(known.shape, generator)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.known.shape[1:])

    def _call(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        check_tensor("x_t", x_t, self.known.shape)
        noised = self.path.noised(self.known, t, self.eps)
        x_t = keep_known(x_t, noised, self.keep)
        return keep_known(self.net.predict(x_t, t, target="x0", y=y), self.known, self.keep)


class ControlledDiffusion(Placed):
    """What trains a ControlNet: the loss of the controlled model, whose own weights are locked.

    Half of the captions are hidden: there, only the condition can say what is in the image.

    Reference:
        Zhang, Rao, Agrawala 2023, https://arxiv.org/abs/2302.05543, section 3.3.

    Args:
        diffusion: The model; it is locked.
        control_net: What is trained.
        drop: Share of the captions that training hides.

    """

    def __init__(self, diffusion: LatentDiffusion, control_net: ControlNet, *, drop: float = 0.5):
        if not isinstance(diffusion, LatentDiffusion):
            raise ValueError(f"diffusion must be a LatentDiffusion, got {type(diffusion).__name__}")
        if not isinstance(control_net, ControlNet):
            raise ValueError(f"control_net must be a ControlNet, got {type(control_net).__name__}")
        check_share("drop", drop)
        super().__init__()
        # Not a part of this module: what is stored of it, and moved and averaged, is the control.
        object.__setattr__(self, "diffusion", diffusion.eval().requires_grad_(False))
        self.control_net, self.drop = control_net, drop

    def loss(
        self,
        x: Tensor,
        y: Tensor,
        condition: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """EDM's loss, as of ``LatentDiffusion``, given ``condition [B, *condition_shape]``."""
        self.diffusion.to(x.device)
        latent = self.diffusion.autoencoder.to_latent(x, generator=generator)
        control = (self.control_net, condition, 1.0)
        model = self.diffusion.controlled([control])
        model.drop = self.drop
        return model.loss(latent, y, generator=generator)
