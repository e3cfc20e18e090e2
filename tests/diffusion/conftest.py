"""What the diffusion tests share: paths, and data whose noised versions are known exactly."""

import math
import re

import pytest
import torch

from course_lib.diffusion import (
    DiscreteSchedule,
    GaussianPath,
    StraightPath,
    SubVPPath,
    VEPath,
    VPPath,
)


@pytest.fixture(autouse=True)
def _the_same_start_every_time():
    """Networks draw from the global source: seeded here, and put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20200619)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def refuses(message, error=ValueError):
    """An error with exactly this message."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def randn(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def full(t, n):
    """One time for ``n`` examples."""
    return torch.full((n,), t)


class Straight(GaussianPath):
    """Flow matching: x_t = (1 - t) x_0 + t eps."""

    def a(self, t):
        return 1 - t

    def b(self, t):
        return t


class Exploding(GaussianPath):
    """EDM, variance exploding: x_t = x_0 + t eps."""

    t_min, t_max = 0.002, 80.0

    def a(self, t):
        return torch.ones_like(t)

    def b(self, t):
        return t


class Circle(GaussianPath):
    """A continuous path that keeps a variance of 1: a and b are cosine and sine."""

    def a(self, t):
        return (math.pi / 2 * t).cos()

    def b(self, t):
        return (math.pi / 2 * t).sin()


# Every path with some of its times.
PATHS = {
    "schedule": (DiscreteSchedule.linear(50), torch.tensor([0, 1, 7, 30, 48, 49])),
    "cosine schedule": (DiscreteSchedule.cosine(20), torch.tensor([0, 5, 10, 17, 18, 19])),
    "between steps": (DiscreteSchedule.linear(50), torch.tensor([0.0, 0.5, 7.25, 30.9, 48.5, 49])),
    "straight": (Straight(), torch.tensor([0.01, 0.2, 0.5, 0.7, 0.9, 0.99])),
    "exploding": (Exploding(), torch.tensor([0.002, 0.1, 1.0, 5.0, 20.0, 80.0])),
    "circle": (Circle(), torch.tensor([0.01, 0.2, 0.5, 0.7, 0.9, 0.99])),
    "StraightPath": (StraightPath(), torch.tensor([0.01, 0.2, 0.5, 0.7, 0.9, 0.99])),
    "VP": (VPPath(0.3, 5.0), torch.tensor([0.001, 0.1, 0.25, 0.5, 0.75, 1.0])),
    "sub-VP": (SubVPPath(0.3, 5.0), torch.tensor([0.001, 0.1, 0.25, 0.5, 0.75, 1.0])),
    "VE": (VEPath(0.02, 7.0), torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])),
}
each_path = pytest.mark.parametrize("name", PATHS)


def coefficients(path, t):
    """a, b and their derivatives at times ``t``, by formulas of their own: ``[len(t)]`` each."""
    t = t.double()
    if isinstance(path, VPPath):
        rate, noise = 0.3 + 4.7 * t, 0.3 * t + 2.35 * t**2
        a = (-noise / 2).exp()
        if isinstance(path, SubVPPath):
            return a, 1 - a**2, -rate * a / 2, rate * a**2
        return a, (1 - a**2).sqrt(), -rate * a / 2, rate * a**2 / (2 * (1 - a**2).sqrt())
    if isinstance(path, VEPath):
        b = torch.exp(math.log(0.02) + t * math.log(350.0))
        return torch.ones_like(t), b, torch.zeros_like(t), math.log(350.0) * b
    if isinstance(path, Straight | StraightPath):
        return 1 - t, t, -torch.ones_like(t), torch.ones_like(t)
    if isinstance(path, Exploding):
        return torch.ones_like(t), t, torch.zeros_like(t), torch.ones_like(t)
    if isinstance(path, Circle):
        a, b = (math.pi / 2 * t).cos(), (math.pi / 2 * t).sin()
        return a, b, -math.pi / 2 * b, math.pi / 2 * a
    logs = (1 - path.betas.double()).cumprod(0).log()
    before = t.floor().long().clamp(max=len(logs) - 2)
    slope = logs[before + 1] - logs[before]
    alpha_bar = (logs[before] + (t - before) * slope).exp()
    a, b = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return a, b, slope * a / 2, -slope * alpha_bar / (2 * b)


def said(kind, x0, eps, path, t):
    """The prediction ``kind`` of data and noise ``[B, dim]``, written out."""
    a, b, da, db = (c[:, None] for c in coefficients(path, t))
    return {
        "x0": x0,
        "eps": eps,
        "v": a * eps - b * x0,
        "score": -eps / b,
        "velocity": da * x0 + db * eps,
    }[kind]


EYE = torch.eye(2, dtype=torch.float64)


class Gaussian:
    """N(mean, cov) in the plane, and what is left of it after noising."""

    def __init__(self, mean=(1.0, -0.5), cov=((1.2, 0.5), (0.5, 0.6))):
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.cov = torch.as_tensor(cov, dtype=torch.float64)

    def noised(self, a, b):
        return Gaussian(a * self.mean, a**2 * self.cov + b**2 * EYE)

    def log_prob(self, x):
        away = x - self.mean
        squared = (away @ torch.linalg.inv(self.cov) * away).sum(1)
        return -squared / 2 - self.cov.det().log() / 2 - math.log(2 * math.pi)

    def sample(self, n, generator):
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return self.mean + noise @ torch.linalg.cholesky(self.cov).T

    def guess(self, x, a, b):
        """E[x_0 | x_t] for ``x [B, 2]`` at ``a, b``, ``[B]`` or ``[1]``: x_0 regressed on x_t."""
        a, b = a[:, None, None], b[:, None, None]
        noised = a**2 * self.cov + b**2 * EYE
        gain = a * self.cov @ torch.linalg.inv(noised)
        return self.mean + (gain @ (x - a[:, 0] * self.mean)[:, :, None])[:, :, 0]

    def left(self, a, b):
        """Cov(x_0 | x_t) at one ``a`` and ``b``: it is the same for every x_t."""
        noised = a**2 * self.cov + b**2 * EYE
        return self.cov - a**2 * self.cov @ torch.linalg.solve(noised, self.cov)


class Mixture:
    """A mixture of Gaussians in the plane."""

    def __init__(self, weights, parts):
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        self.parts = parts

    def noised(self, a, b):
        return Mixture(self.weights, [part.noised(a, b) for part in self.parts])

    def log_prob(self, x):
        logs = torch.stack([part.log_prob(x) for part in self.parts])
        return (logs + self.weights.log()[:, None]).logsumexp(0)

    def guess(self, x, a, b):
        """E[x_0 | x_t]: those of the parts, weighted by the parts' shares of the density there."""
        logs = torch.stack(
            [
                torch.cat(
                    [
                        part.noised(*time).log_prob(some)
                        for *time, some in zip(a, b, x.split(len(x) // len(a)), strict=True)
                    ]
                )
                for part in self.parts
            ]
        )
        shares = (logs + self.weights.log()[:, None]).softmax(0)
        return sum(
            share[:, None] * part.guess(x, a, b)
            for share, part in zip(shares, self.parts, strict=True)
        )


GAUSSIAN = Gaussian()
MIXTURE = Mixture(
    [0.25, 0.75],
    [
        Gaussian((-1.5, 0.5), ((0.1, 0.03), (0.03, 0.2))),
        Gaussian((1.0, -0.5), ((0.3, -0.1), (-0.1, 0.15))),
    ],
)


def optimal(data, path, predicts="eps"):
    """The best possible network: the mean of what is asked for, given x_t."""

    def net(x, t):
        assert x.shape == (len(x), 2)
        assert t.shape == (len(x),)
        t = t[:1] if (t == t[0]).all() else t
        a, b, *_ = coefficients(path, t)
        x0 = data.guess(x, a, b)
        return said(predicts, x0, (x - a[:, None] * x0) / b[:, None], path, t)

    net.event_shape = (2,)
    return net


def affine(function):
    """A and c of an affine function of points: function(x) = x Aᵀ + c."""
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [3.0, -2.0]], dtype=torch.float64)
    c, first, second, other = function(points)
    A = torch.stack([first - c, second - c], dim=1)
    torch.testing.assert_close(other, A @ points[3] + c, rtol=1e-9, atol=1e-9)
    return A, c


def distance(first, second):
    """The Wasserstein-2 distance of two Gaussians, squared."""
    root = torch.linalg.eigh(first.cov)
    root = root.eigenvectors * root.eigenvalues.clamp(min=0).sqrt() @ root.eigenvectors.T
    inner = torch.linalg.eigvalsh(root @ second.cov @ root).clamp(min=0).sqrt().sum()
    return ((first.mean - second.mean) ** 2).sum() + (first.cov + second.cov).trace() - 2 * inner


def check_mean(draws, expected, limit=5.0):
    """The mean over ``draws [n, ...]`` is within ``limit`` standard errors of ``expected``."""
    error = draws.std(0) / len(draws) ** 0.5
    z = (draws.mean(0) - expected).abs() / error.clamp(min=1e-12)
    assert z.max() < limit, f"{z.max():.1f} standard errors off"


def check_law(x, gaussian, limit=5.0):
    """Samples ``[n, 2]`` have the mean and the covariance of a Gaussian, within their errors."""
    check_mean(x, gaussian.mean, limit)
    centred = x - gaussian.mean
    check_mean(centred[:, :, None] * centred[:, None, :], gaussian.cov, limit)
