"""The best denoiser there is, in closed form, for data that are a mixture of Gaussians."""

import torch
from torch import Tensor, nn

from course_lib.checks import check_floats, check_number
from course_lib.diffusion.paths import GaussianPath

__all__ = ["IdealDenoiser"]


class IdealDenoiser(nn.Module):
    """E[eps | x_t] for data that are Gaussian clouds of one size around given centres.

    Noised, the clouds are Gaussians N(a m_k, a² std² + b²). Seen from x_t, cloud k is as likely as
    its density there says, w_k; inside a cloud eps is as for a single Gaussian:

        E[eps | x_t] = Σ_k w_k · b (x_t − a m_k) / (a² std² + b²)

    With std = 0 the data are the centres themselves, all equally likely: a whole training set, if
    you like. A model that denoises as well as this can only draw its training data again.

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, appendix B.3.

    Args:
        centres: ``[K, *event]``, each as likely as the others.
        path: The path along which x_t was noised.
        std: Standard deviation of each cloud, in every direction.

    Example:
        >>> from course_lib.diffusion import DDPM, DiscreteSchedule
        >>> schedule = DiscreteSchedule.linear(100)
        >>> model = DDPM(IdealDenoiser(torch.tensor([[-3.0], [3.0]]), schedule), schedule)
        >>> model.sample(4).abs().round(decimals=3).flatten()
        tensor([3., 3., 3., 3.])

    """

    def __init__(self, centres: Tensor, path: GaussianPath, *, std: float = 0.0):
        check_floats("centres", centres, None)
        if centres.ndim < 2:
            raise ValueError(f"centres must have shape [K, *event], got {list(centres.shape)}")
        if not isinstance(path, GaussianPath):
            raise ValueError(f"path must be a GaussianPath, got {path!r}")
        check_number("std", std, minimum=0)
        super().__init__()
        self.register_buffer("centres", centres)
        self.path, self.std = path, std
        self.event_shape = tuple(centres.shape[1:])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """E[eps | x_t = ``x [B, *event]``] at times ``t [B]``, where b(t) > 0: ``[B, *event]``."""
        check_floats("x", x, (None, *self.event_shape), dtype=self.centres.dtype)
        a, b = self.path.amounts(self.path.times(t, len(x)), x)
        variance = (a * self.std) ** 2 + b**2
        # ‖x − a m‖² for every pair, by products: [B, K].
        flat, centres, scale = x.flatten(1), self.centres.flatten(1), a.flatten(1)
        squared = scale**2 * centres.square().sum(1) - 2 * scale * (flat @ centres.T)
        likely = torch.softmax(-squared / (2 * variance.flatten(1)), dim=1)
        nearest = (likely @ centres).reshape(x.shape)  # the centres' average, as seen from x_t
        return b / variance * (x - a * nearest)
