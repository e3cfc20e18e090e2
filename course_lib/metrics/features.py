"""How much samples look like data, to the eyes of a small classifier: the Fréchet distance."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_classes, check_floats, check_generator, check_int, check_shape

__all__ = ["ImageClassifier", "frechet_distance"]


class ImageClassifier(nn.Module):
    """A small convolutional classifier, whose last hidden layer describes an image in few numbers.

    What tells a 3 from an 8 is in these features; how each pixel is shaded is not. So they are a
    better place than the pixels to compare samples with data.

    Args:
        shape: (C, H, W) of the images, with values in [0, 1]; H and W at least 4.
        n_classes: The number of classes.
        width: Channels of the first convolution; the second has twice as many.
        n_features: Width of the last hidden layer.

    Example:
        >>> classifier = ImageClassifier((1, 8, 8))
        >>> classifier.features(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 32])

    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        n_classes: int = 10,
        width: int = 32,
        n_features: int = 32,
    ):
        check_shape("shape", shape, lengths=(3,), any_size=False)
        if min(shape[1:]) < 4:
            raise ValueError(f"shape must have a height and width of at least 4, got {shape!r}")
        check_int("n_classes", n_classes, minimum=2)
        check_int("width", width, minimum=1)
        check_int("n_features", n_features, minimum=1)
        super().__init__()
        self.shape, self.n_classes = tuple(shape), n_classes
        pixels = (shape[1] // 4) * (shape[2] // 4)
        self.body = nn.Sequential(
            nn.Conv2d(shape[0], width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * pixels, n_features),
        )
        self.head = nn.Linear(n_features, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """What images ``x [B, C, H, W]`` are, in ``[B, n_features]`` numbers, before their ReLU."""
        check_floats("x", x, (None, *self.shape), dtype=self.head.weight.dtype)
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """The logits ``[B, n_classes]`` of images ``x [B, C, H, W]``."""
        return self.head(F.relu(self.features(x)))

    def loss(self, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The mean cross-entropy of labels ``y [B]``, in nats. Uses no randomness."""
        check_generator(generator)
        check_classes("y", y, len(x), self.n_classes)
        return F.cross_entropy(self(x), y)


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """The Fréchet distance between two clouds of points, each taken for a Gaussian.

    ‖μ_x − μ_y‖² + Tr(Σ_x + Σ_y − 2 (Σ_x Σ_y)^½), the squared Wasserstein-2 distance of the two
    Gaussians. In features of the Inception network this is the FID. It is 0 where means and
    covariances agree, and it depends on the number of points: fewer give a larger distance, also
    between two samples of the same data. So compare only distances from equally many points.

    Reference:
        Dowson & Landau 1982; Heusel et al. 2017, https://arxiv.org/abs/1706.08500, equation 6.

    Args:
        x: Points ``[N, D]``, N at least 2.
        y: Points ``[M, D]``, M at least 2.

    Example:
        >>> x = torch.randn(500, 3)
        >>> round(frechet_distance(x, x + 2.0), 3)
        12.0

    """
    check_floats("x", x, (None, None))
    check_floats("y", y, (None, x.shape[1]))
    for name, points in (("x", x), ("y", y)):
        if len(points) < 2:
            raise ValueError(f"{name} must hold at least 2 points, got {len(points)}")
    x, y = x.detach().cpu().double(), y.detach().cpu().double()  # not every device has float64
    cov_x, cov_y = (points.T.cov(correction=1).reshape(x.shape[1], -1) for points in (x, y))
    # Tr (Σ_x Σ_y)^½ is the sum of the singular values of Σ_x^½ Σ_y^½.
    overlap = torch.linalg.svdvals(_root(cov_x) @ _root(cov_y)).sum()
    gap = (x.mean(0) - y.mean(0)).square().sum()
    distance = gap + cov_x.trace() + cov_y.trace() - 2 * overlap
    return max(distance.item(), 0.0)  # rounding may take it a little below 0


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
