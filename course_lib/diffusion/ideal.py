"""The best denoiser there is, in closed form, for data that are a mixture of Gaussians."""

import math

import torch
from torch import Tensor, nn

from course_lib.checks import check_classes, check_floats, check_number
from course_lib.diffusion.paths import GaussianPath

__all__ = ["IdealDenoiser"]


class IdealDenoiser(nn.Module):
    """E[eps | x_t] for data that are Gaussian clouds of one size around given centres.

    Noised, the clouds are Gaussians N(a m_k, a² std² + b²). Seen from x_t, cloud k is as likely as
    its density there says, w_k; inside a cloud eps is as for a single Gaussian:

        E[eps | x_t] = Σ_k w_k · b (x_t − a m_k) / (a² std² + b²)

    Given a label, only the clouds of that class count. With std = 0 the data are the centres
    themselves, all equally likely: a whole training set, if you like. A model that denoises as well
    as this can only draw its training data again.

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, appendix B.3.

    Args:
        centres: ``[K, *event]``, each as likely as the others.
        path: The path along which x_t was noised.
        std: Standard deviation of each cloud, in every direction.
        labels: The class of each cloud ``[K]``, from 0 on, none left out; with them a label may be
            given, and the next number is the null class.

    Example:
        >>> from course_lib.diffusion import DDPM, DiscreteSchedule
        >>> schedule = DiscreteSchedule.linear(100)
        >>> model = DDPM(IdealDenoiser(torch.tensor([[-3.0], [3.0]]), schedule), schedule)
        >>> model.sample(4).abs().round(decimals=3).flatten()
        tensor([3., 3., 3., 3.])

    """

    def __init__(
        self,
        centres: Tensor,
        path: GaussianPath,
        *,
        std: float = 0.0,
        labels: Tensor | None = None,
    ):
        check_floats("centres", centres, None)
        if centres.ndim < 2:
            raise ValueError(f"centres must have shape [K, *event], got {list(centres.shape)}")
        if not isinstance(path, GaussianPath):
            raise ValueError(f"path must be a GaussianPath, got {path!r}")
        check_number("std", std, minimum=0)
        super().__init__()
        self.register_buffer("centres", centres)
        self.path, self.std, self.null_class = path, std, None
        self.event_shape = tuple(centres.shape[1:])
        if labels is not None:
            check_classes("labels", labels, len(centres), len(centres))
            self.null_class = labels.max().item() + 1
            if (missing := labels.bincount() == 0).any():
                what = f"no class out, got none of class {missing.nonzero()[0].item()}"
                raise ValueError(f"labels must leave {what}")
        self.register_buffer("labels", labels)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """E[eps | x_t = ``x [B, *event]``, ``y``] at times ``t [B]``, where b(t) > 0, like ``x``.

        ``y [B]`` are labels, if there are any; without, all clouds count.
        """
        a, b, variance, logs = self._look(x, t)
        if y is not None:
            n_classes = None if self.labels is None else self.null_class + 1
            check_classes("y", y, len(x), n_classes)
            other = (self.labels != y[:, None]) & (y[:, None] != self.null_class)  # [B, K]
            logs = logs.masked_fill(other, -math.inf)
        likely = torch.softmax(logs, dim=1)
        # The centres' average, as seen from x_t.
        nearest = (likely @ self.centres.flatten(1)).reshape(x.shape)
        return b / variance * (x - a * nearest)

    def logits(self, x: Tensor, t: Tensor) -> Tensor:
        """A perfect classifier: log p(y | x_t) up to a number that all classes share, ``[B, C]``.

        A class is as likely as its clouds together.
        """
        if self.labels is None:
            raise ValueError("labels must be given for a classifier, got None")
        *_, logs = self._look(x, t)
        classes = torch.arange(self.null_class, device=x.device)[:, None] == self.labels  # [C, K]
        return logs[:, None].masked_fill(~classes, -math.inf).logsumexp(2)

    def _look(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """a, b, the clouds' variance, and the logarithm of how likely each is, ``[B, K]``."""
        check_floats("x", x, (None, *self.event_shape), dtype=self.centres.dtype)
        a, b = self.path.amounts(self.path.times(t, len(x)), x)
        variance = (a * self.std) ** 2 + b**2
        # ‖x − a m‖² for every pair, by products; what all clouds share is left out: [B, K].
        flat, centres, scale = x.flatten(1), self.centres.flatten(1), a.flatten(1)
        squared = scale**2 * centres.square().sum(1) - 2 * scale * (flat @ centres.T)
        return a, b, variance, -squared / (2 * variance.flatten(1))
