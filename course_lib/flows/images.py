"""The parts that turn couplings into a flow for images: squeeze, split, ActNorm, 1×1, logit."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import (
    check_bool,
    check_int,
    check_number,
    check_shape,
    stands_for_many,
)
from course_lib.flows.base import Transform, check_varies
from course_lib.flows.couplings import AffineCoupling

__all__ = ["ActNorm", "InvertibleConv1x1", "Logit", "Split", "Squeeze"]


class Squeeze(Transform):
    """Make four channels out of every 2×2 block of pixels: ``[C, H, W]`` to ``[4C, H/2, W/2]``.

    Nothing is computed, only moved: log_det = 0. Channel 4c + 2i + j of the result holds the pixels
    in row i and column j of the blocks of channel c.

    Reference:
        Dinh, Sohl-Dickstein, Bengio 2017, RealNVP, https://arxiv.org/abs/1605.08803, section 3.6.

    Example:
        >>> x = torch.arange(8.0).reshape(1, 1, 2, 4)
        >>> Squeeze()(x)[0][0].tolist()
        [[[0.0, 2.0]], [[1.0, 3.0]], [[4.0, 6.0]], [[5.0, 7.0]]]

    """

    def __init__(self):
        super().__init__((None, None, None))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """``(C, H, W)`` to ``(4C, H/2, W/2)``; ``ValueError`` if H or W is odd."""
        channels, height, width = super().output_shape(shape)
        if height % 2 or width % 2:
            raise ValueError(f"takes images of even height and width, got {list(shape)}")
        return 4 * channels, height // 2, width // 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks to channels: ``x [B, C, H, W]`` to ``(z [B, 4C, H/2, W/2], log_det [B])``."""
        self.check_event("x", x)
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"x must have even height and width, got {list(x.shape)}")
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Channels to blocks: ``z [B, 4C, H, W]`` to ``(x [B, C, 2H, 2W], log_det [B])``."""
        self.check_event("z", z)
        if z.shape[1] % 4:
            raise ValueError(f"z must have a multiple of 4 channels, got {list(z.shape)}")
        return F.pixel_shuffle(z, 2), z.new_zeros(len(z))

    def extra_repr(self) -> str:
        return ""


class Split(AffineCoupling):
    """Let half of the channels go: the second half leaves the flow here, as finished latents.

    The first half h₁ goes on. The second, h₂, gets a *learned conditional prior*, a Gaussian whose
    mean and standard deviation are functions of h₁: h₂ ~ N(μ(h₁), σ(h₁)²). That is the same as
    making it standard Gaussian, ε = (h₂ - μ(h₁)) / σ(h₁), and counting Σ log (1/σ): an affine
    coupling with s = -log σ and t = -μ/σ. So a Split *is* one, with a single convolution as its
    network; what is special is what ``Flow`` does next: it sets the moved half aside.

    Reference:
        Dinh, Sohl-Dickstein, Bengio 2017, RealNVP, https://arxiv.org/abs/1605.08803, section 3.6;
        the conditional prior: the code of Kingma & Dhariwal 2018.

    Args:
        event_shape: ``(C, H, W)`` with an even number of channels.
        bound: As in ``AffineCoupling``.

    """

    def __init__(self, event_shape: Sequence[int], *, bound: float | None = 4.0):
        check_shape("event_shape", event_shape, lengths=(3,))
        super().__init__(event_shape, [], flip=False, bound=bound)
        if self.event_shape[0] % 2:
            raise ValueError(f"channels must be even to be split, got {self.event_shape[0]}")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """``(C, H, W)`` to ``(C/2, H, W)``: what goes on through the flow."""
        channels, height, width = super().output_shape(shape)
        return channels // 2, height, width

    def prior(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of h₂ given h₁ ``[B, C/2, H, W]``, both of its shape."""
        log_scale, shift = self.scale_and_shift(kept)
        std = (-log_scale).exp()
        return -shift * std, std


class ActNorm(Transform):
    """Scale and shift every channel: z = (x + b) exp(s), with the first batch made standard.

    The first batch that comes in training mode sets b and s, so that every channel of the result
    has mean 0 and variance 1 over batch and pixels. From then on they are learned like any other
    parameter. Unlike batch normalisation, an image's density never depends on the other images of
    its batch. log_det = H · W · Σ s.

    Reference:
        Kingma & Dhariwal 2018, Glow, https://arxiv.org/abs/1807.03039, section 3.1.

    Args:
        channels: Number of channels of images ``[B, C, H, W]``, or of coordinates ``[B, C]``.

    Example:
        >>> z = ActNorm(1)(torch.tensor([[1.0], [5.0]]))[0]
        >>> z.tolist()
        [[-1.0], [1.0]]

    """

    per_channel = True

    def __init__(self, channels: int):
        check_int("channels", channels, minimum=1)
        super().__init__(channels)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialized", torch.tensor(False))

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Set b and s so that ``x`` comes out with mean 0 and variance 1 in every channel."""
        self.check_event("x", x, finite=True)
        values = x.transpose(0, 1).flatten(1)  # [C, all values of a channel]
        check_varies("x", values, "channel to set ActNorm")
        self.bias.copy_(-values.mean(dim=1))
        self.log_scale.copy_(-values.std(dim=1, correction=0).log())
        self.initialized.fill_(True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shift, then scale: ``x [B, C, ...]`` to ``(z [B, C, ...], log_det [B])``."""
        self.check_event("x", x)
        if self.training and not self.initialized:
            self.initialize(x)
        bias, log_scale = in_every_pixel(self.bias, x), in_every_pixel(self.log_scale, x)
        pixels = math.prod(x.shape[2:])
        log_det = pixels * self.log_scale.sum()
        return (x + bias) * log_scale.exp(), log_det.expand(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Shrink, then shift back: ``z [B, C, ...]`` to ``(x [B, C, ...], log_det [B])``."""
        self.check_event("z", z)
        bias, log_scale = in_every_pixel(self.bias, z), in_every_pixel(self.log_scale, z)
        pixels = math.prod(z.shape[2:])
        log_det = -pixels * self.log_scale.sum()
        return z * (-log_scale).exp() - bias, log_det.expand(len(z))

    def extra_repr(self) -> str:
        return f"channels={self.event_shape[0]}"


class InvertibleConv1x1(Transform):
    """Mix the channels of every pixel by one learned invertible matrix: z[:, i, j] = W x[:, i, j].

    A permutation of the channels is the special case in which W holds zeros and ones. It starts as
    a random rotation, perhaps with a reflection, so log_det = H · W · log |det W| starts at 0.

    With ``lu`` the matrix is kept as W = P L (U + diag(± exp(s))): P a permutation and ± signs,
    both fixed at the start, L lower triangular with ones on its diagonal, U strictly upper
    triangular. Then log |det W| = Σ s, without a determinant.

    Reference:
        Kingma & Dhariwal 2018, Glow, https://arxiv.org/abs/1807.03039, section 3.2.

    Args:
        channels: Number of channels.
        lu: Keep W as the product of its LU factors; otherwise as it is.

    Example:
        >>> conv = InvertibleConv1x1(3)
        >>> W = conv.weight()
        >>> torch.allclose(W @ W.T, torch.eye(3), atol=1e-5)  # a rotation
        True

    """

    def __init__(self, channels: int, *, lu: bool = True):
        check_int("channels", channels, minimum=1)
        check_bool("lu", lu)
        super().__init__((channels, None, None))
        self.channels, self.lu = channels, lu
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        if lu:
            permutation, lower, upper = torch.linalg.lu(rotation)
            diagonal = upper.diagonal()
            self.register_buffer("permutation", permutation)
            self.register_buffer("sign", diagonal.sign())
            self.lower = nn.Parameter(lower.tril(-1))
            self.upper = nn.Parameter(upper.triu(1))
            self.log_scale = nn.Parameter(diagonal.abs().log())
        else:
            self.matrix = nn.Parameter(rotation)

    def factors(self) -> tuple[Tensor, Tensor]:
        """The triangular factors ``(L, U + diag(± exp(s)))``, each ``[C, C]``; only with ``lu``."""
        identity = torch.eye(self.channels, dtype=self.lower.dtype, device=self.lower.device)
        lower = self.lower.tril(-1) + identity
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_scale.exp())
        return lower, upper

    def weight(self) -> Tensor:
        """The matrix W ``[C, C]``."""
        if not self.lu:
            return self.matrix
        lower, upper = self.factors()
        return self.permutation @ lower @ upper

    def inverse_weight(self) -> Tensor:
        """The matrix W⁻¹ ``[C, C]``, with ``lu`` by two triangular solves."""
        if not self.lu:
            return torch.linalg.inv(self.matrix)
        lower, upper = self.factors()
        half = torch.linalg.solve_triangular(
            lower, self.permutation.T, upper=False, unitriangular=True
        )
        return torch.linalg.solve_triangular(upper, half, upper=True)

    def log_det(self, height: int, width: int) -> Tensor:
        """The log |det| of the map of whole images: one W for each of height × width pixels."""
        log_abs_det = self.log_scale.sum() if self.lu else torch.linalg.slogdet(self.matrix)[1]
        return height * width * log_abs_det

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mix: ``x [B, C, H, W]`` to ``(z [B, C, H, W], log_det [B])``."""
        self.check_event("x", x)
        return mix_channels(self.weight(), x), self.log_det(*x.shape[2:]).expand(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mix back: ``z [B, C, H, W]`` to ``(x [B, C, H, W], log_det [B])``."""
        self.check_event("z", z)
        return mix_channels(self.inverse_weight(), z), -self.log_det(*z.shape[2:]).expand(len(z))

    def extra_repr(self) -> str:
        return f"channels={self.channels}, lu={self.lu}"


class Logit(Transform):
    """From [0, 1] to all real numbers: z = log y - log(1 - y) with y = alpha + (1 - 2 alpha) x.

    A pixel cannot leave its range, a Gaussian can; after this the two fit. alpha > 0 keeps black
    (x = 0) and white at a finite z. Nothing is learned. log_det is the sum over the coordinates of
    log(1 - 2 alpha) - log y - log(1 - y), and counts like any other: with it, log_prob is a density
    of the pixels themselves, and bits per dimension can be compared.

    Reference:
        Dinh, Sohl-Dickstein, Bengio 2017, RealNVP, https://arxiv.org/abs/1605.08803, section 4.1.

    Args:
        event_shape: ``dim`` or ``(C, H, W)``.
        alpha: Distance kept from 0 and 1, above 0 and below 1/2.

    Example:
        >>> Logit(1, alpha=0.05)(torch.tensor([[0.5]]))[0].item()
        0.0

    """

    def __init__(self, event_shape: int | Sequence[int], *, alpha: float):
        super().__init__(event_shape)
        check_number("alpha", alpha, above=0)
        if alpha >= 0.5:
            raise ValueError(f"alpha must be below 0.5, got {alpha!r}")
        self.alpha = alpha

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Stretch: ``x [B, *event]`` to ``(z [B, *event], log_det [B])``."""
        self.check_event("x", x)
        y = self.alpha + (1 - 2 * self.alpha) * x
        check_inside(y, x)
        log_y, log_rest = y.log(), (1 - y).log()
        log_det = math.log(1 - 2 * self.alpha) - log_y - log_rest
        return log_y - log_rest, log_det.flatten(1).sum(dim=1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Shrink: ``z [B, *event]`` to ``(x [B, *event], log_det [B])``.

        Where y is rounded to 0 or 1 (in float32, |z| beyond about 15), x is the nearest number that
        ``forward`` takes.
        """
        self.check_event("z", z)
        # y is left as far from both ends as the rounding of x, there and back, can move it.
        rounding = 4 * torch.finfo(z.dtype).eps
        y = z.sigmoid().clamp(rounding * self.alpha, 1 - rounding)
        x = (y - self.alpha) / (1 - 2 * self.alpha)
        # log y = -log(1 + e⁻ᶻ) and log(1 - y) = -log(1 + eᶻ) are exact far out, too.
        log_det = -math.log(1 - 2 * self.alpha) - F.softplus(-z) - F.softplus(z)
        return x, log_det.flatten(1).sum(dim=1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, alpha={self.alpha}"


def in_every_pixel(values: Tensor, x: Tensor) -> Tensor:
    """Numbers ``[C]`` in a shape that gives each pixel of ``x [B, C, ...]`` its channel's."""
    return values.reshape(-1, *[1] * (x.ndim - 2))


def mix_channels(weight: Tensor, x: Tensor) -> Tensor:
    """The product of ``weight [C, C]`` and the channels of every pixel of ``x [B, C, H, W]``."""
    # With a pixel's channels in a row, one product of matrices does it for all pixels. For so few
    # channels that is quicker than a convolution.
    pixels = x.movedim(1, -1)
    mixed = pixels.flatten(0, 2) @ weight.T
    return mixed.reshape(pixels.shape).movedim(-1, 1)


def check_inside(y: Tensor, x: Tensor) -> None:
    """Require that ``y``, into which pixels ``x`` are squeezed, lies between 0 and 1."""
    outside = (y <= 0) | (y >= 1)
    if not stands_for_many(outside) and outside.any():
        raise ValueError(f"x must lie in [0, 1], got {x[outside][0].item()}")
