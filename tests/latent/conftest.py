"""What the tests of latent models share: random parameters, integrals over z, means with errors."""

import math
import re

import pytest
import torch
from torch.distributions import Normal

from course_lib.latent import VAE


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20131220)


@pytest.fixture(autouse=True)
def _same_start():
    """A new model is drawn from PyTorch's global generator: let every test meet the same one."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def refuses(message):
    """A ValueError with exactly this message."""
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def randn(*shape, generator):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@torch.no_grad()
def randomize(module, generator, scale=1.0):
    """Give every parameter a random value, biases included."""
    for p in module.parameters():
        fan_in = p.shape[-1] if p.ndim > 1 else 1
        p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype) / fan_in**0.5)
    return module


def small_vae(generator, data_shape=(1, 2, 2), latent_dim=1, **options):
    """A VAE in double precision with random parameters and broad posteriors.

    Broad: importance weights vary little where q has more room than p(z | x).
    """
    options = {"hidden": (6,)} | options
    model = randomize(VAE(data_shape, latent_dim, **options).double(), generator, scale=1.5)
    with torch.no_grad():
        last = model.encoder.layers[-1]
        last.weight *= 0.3
        last.bias[:latent_dim] *= 0.3
        last.bias[latent_dim:] = 0.4
    return model


def all_states(data_shape=(1, 2, 2)):
    """Every image of zeros and ones, ``[2^n, *data_shape]``, in counting order."""
    n = math.prod(data_shape)
    bits = torch.arange(2**n)[:, None] >> torch.arange(n - 1, -1, -1)
    return (bits % 2).double().reshape(-1, *data_shape)


def latent_grid():
    """Points ``[G, 1]`` of a one-dimensional z, and log p(z) dz there: for integrals over z."""
    z = torch.linspace(-9, 9, 3001, dtype=torch.float64)[:, None]
    return z, Normal(0.0, 1.0).log_prob(z[:, 0]) + math.log(18 / 3000)


def exact_log_prob(model, x, y=None):
    """Exact log p(x) ``[B]`` of a VAE with one latent: the integral over z, for each x alone.

    Of the model only the mean of p(x | z) is used (and its noise).
    """
    z, log_p = latent_grid()
    means = [
        model.decode(z, None if y is None else torch.full((len(z),), k)).detach()
        for k in range(model.n_classes or 1)
    ]
    totals = []
    for i, example in enumerate(x):
        mean = means[0 if y is None else y[i]]
        if model.likelihood == "bernoulli":
            log_likelihood = torch.where(example == 1, mean, 1 - mean).log()
        else:
            sigma = model.log_noise.detach().exp().sqrt()
            log_likelihood = Normal(mean, sigma).log_prob(example)
        totals.append((log_likelihood.flatten(1).sum(dim=1) + log_p).logsumexp(dim=0))
    return torch.stack(totals)


def assert_mean(draws, expected, sigmas=5.0):
    """The mean of ``draws [N, ...]`` is ``expected [...]``, within that many standard errors."""
    error = draws.std(dim=0) / len(draws) ** 0.5
    assert (error > 0).all(), "nothing was drawn"
    away = ((draws.mean(dim=0) - expected) / error).abs()
    assert (away < sigmas).all(), f"{away.max().item():.1f} standard errors away"
