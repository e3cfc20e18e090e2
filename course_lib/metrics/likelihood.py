"""How good a likelihood is: bits per dimension, and two baselines that every model must beat."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from course_lib.checks import check_floats, check_int, check_number

__all__ = ["GaussianBaseline", "LogisticBaseline", "bits_per_dim"]


def bits_per_dim(log_prob: Tensor | float, dim: int, levels: int) -> Tensor | float:
    """Convert the log-density of dequantized data on [0, 1)^dim to bits per dimension.

    An image of grey levels owns a cube of side 1/levels, over which dequantization moves evenly:
    P(image) = ∫_cube p(x) dx = levels^−dim · E_u[p(x)], so that, by Jensen's inequality,
    log2 P(image) ≥ E_u[log2 p(x)] − dim · log2 levels. Change the sign and divide by dim:

        bits/dim = −log p(x) / (dim · ln 2) + log2 levels

    Reference:
        Theis, van den Oord and Bethge 2016, section 3.1 (arXiv:1511.01844).

    Args:
        log_prob: Log-density in nats, a tensor of any shape or a number. Of data on another range
            (say [0, 256)^dim or logits), add the log-determinant of the way to [0, 1)^dim first.
        dim: Number of dimensions, 784 for MNIST.
        levels: Number of grey levels, at least 2; 256 for MNIST.

    Returns:
        Bits per dimension, in the form of ``log_prob``. Lower is better; log2(levels) is the value
        of the uniform distribution.

    Example:
        NICE reports 1980.50 nats on MNIST (Dinh et al. 2015, section 5.1, arXiv:1410.8516):

        >>> round(bits_per_dim(1980.50, dim=784, levels=256), 2)
        4.36

    """
    check_nats("log_prob", log_prob)
    check_int("dim", dim, minimum=1)
    check_int("levels", levels, minimum=2)
    return -log_prob / (dim * math.log(2)) + math.log2(levels)


def check_nats(name: str, value: Tensor | float) -> None:
    """Require a finite number, or a tensor of such."""
    if isinstance(value, Tensor):
        check_floats(name, value, None)
    else:
        check_number(name, value, above=-math.inf)


@dataclass(frozen=True, eq=False)
class GaussianBaseline:
    """Gaussian with full covariance: the best model that knows means and correlations only.

    Args:
        mean: float64 ``[D]``.
        covariance: float64 ``[D, D]``, positive definite.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> GaussianBaseline.fit(x).covariance
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)

    """

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        check_floats("mean", self.mean, (None,))
        check_floats("covariance", self.covariance, (len(self.mean), len(self.mean)))
        if not _is_positive_definite(self.covariance):
            raise ValueError(f"covariance must be positive definite, got {self.covariance}")

    @classmethod
    def fit(cls, x: Tensor) -> "GaussianBaseline":
        """Maximum likelihood, in closed form: the mean and the covariance of the data (over N).

        Args:
            x: Data ``[N, D]``, floating point and finite.

        Raises:
            ValueError: When the covariance is singular (too few points, or a coordinate that is
                constant or a combination of others): the likelihood would then have no maximum.

        """
        check_floats("x", x, (None, None))
        x = x.cpu().double()
        mean = x.mean(0)
        covariance = (x - mean).T @ (x - mean) / len(x)
        if not _is_positive_definite(covariance):
            raise ValueError(
                f"x must vary in all {x.shape[1]} directions, got {len(x)} points "
                "with a singular covariance"
            )
        return cls(mean, covariance)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density ``[B]`` in nats of points ``x [B, D]``, with the dtype of ``x``."""
        check_floats("x", x, (None, len(self.mean)))
        root = torch.linalg.cholesky(self.covariance.cpu().double())  # root rootᵀ = covariance
        centred = x.cpu().double() - self.mean.cpu()  # not every device has float64
        z = torch.linalg.solve_triangular(root, centred.T, upper=False)  # [D, B], white
        log_det = root.diagonal().log().sum()
        return (-0.5 * (z**2 + math.log(2 * math.pi)).sum(0) - log_det).to(x)


def _is_positive_definite(matrix: Tensor) -> bool:
    """Whether all eigenvalues are positive by more than rounding errors."""
    eigenvalues = torch.linalg.eigvalsh(matrix)  # ascending
    rounding = len(matrix) * torch.finfo(matrix.dtype).eps * eigenvalues[-1]
    return bool(eigenvalues[0] > rounding.abs())


@dataclass(frozen=True, eq=False)
class LogisticBaseline:
    """Independent logistic coordinates: what a model can know without looking at any relation.

    The density of a coordinate is s(z)(1 − s(z)) / scale with z = (x − location) / scale and s
    the sigmoid. NICE uses it, with location 0 and scale 1, as its prior.

    Args:
        location: float64 ``[D]``.
        scale: float64 ``[D]``, positive.

    """

    location: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        check_floats("location", self.location, (None,))
        check_floats("scale", self.scale, (len(self.location),))
        if self.scale.min() <= 0:
            raise ValueError(f"scale must be positive, got {self.scale.min().item()}")

    @classmethod
    def fit(cls, x: Tensor) -> "LogisticBaseline":
        """Maximum likelihood by Newton's method, all coordinates at once.

        With z = a·x − b (a = 1/scale, b = location/scale) the log-likelihood log a + log s'(z) is
        concave in (a, b): there is one maximum, and damped Newton steps lead to it.

        Args:
            x: Data ``[N, D]``, floating point and finite, not constant in any coordinate.

        """
        check_floats("x", x, (None, None))
        x = x.cpu().double()
        mean, std = x.mean(0), x.std(0, correction=0)
        constant = (x == x[0]).all(0)
        if constant.any():
            raise ValueError(
                f"x must vary in every coordinate, got {x[0, constant][0].item()} throughout in "
                f"coordinate {constant.nonzero()[0].item()}"
            )
        x = (x - mean) / std
        a = torch.full_like(mean, math.pi / math.sqrt(3))  # matches the standard deviation
        b = torch.zeros_like(mean)
        for _ in range(100):
            s = torch.sigmoid(a * x - b)
            # Slope and curvature of −log a − log s'(z), averaged over the data.
            slope_a, slope_b = ((2 * s - 1) * x).mean(0) - 1 / a, (1 - 2 * s).mean(0)
            w = 2 * s * (1 - s)
            aa, ab, bb = (w * x**2).mean(0) + 1 / a**2, -(w * x).mean(0), w.mean(0)
            det = aa * bb - ab**2
            step_a = (bb * slope_a - ab * slope_b) / det
            step_b = (aa * slope_b - ab * slope_a) / det
            decrement = (slope_a * step_a + slope_b * step_b).clamp(min=0).sqrt()
            if decrement.max() < 1e-10:
                break
            a, b = a - step_a / (1 + decrement), b - step_b / (1 + decrement)
        return cls(mean + std * b / a, std / a)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density ``[B]`` in nats of points ``x [B, D]``, with the dtype of ``x``."""
        check_floats("x", x, (None, len(self.location)))
        location, scale = self.location.cpu(), self.scale.cpu()
        z = (x.cpu().double() - location) / scale  # not every device has float64
        return (-softplus(z) - softplus(-z) - scale.log()).sum(1).to(x)
