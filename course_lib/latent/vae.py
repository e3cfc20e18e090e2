"""The variational autoencoder: a latent z for every x, and a lower bound of log p(x)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import (
    check_bool,
    check_classes,
    check_floats,
    check_generator,
    check_int,
    check_ints,
    check_level_floats,
    check_number,
    check_one_of,
)
from course_lib.latent.gaussian import gaussian_kl, reparameterize
from course_lib.nn import MLP, Placed, gaussian_log_prob

__all__ = ["VAE"]

LIKELIHOODS = ("bernoulli", "gaussian")
CHUNK = 100  # draws of z for every x that are decoded at the same time


class VAE(Placed):
    """p(x) = ∫ p(z) p(x | z) dz with p(z) = N(0, I), and an encoder q(z | x) = N(μ(x), σ²(x)).

    Encoder and decoder are multilayer perceptrons over the flattened data. The decoder gives the
    logits of independent bits (``"bernoulli"``) or the means of independent Gaussians that share
    one learned variance (``"gaussian"``).

    With ``n_classes`` everything is conditioned on a label: p(x | z, y) and q(z | x, y), where p(y)
    is uniform. Then ``encode``, ``decode`` and the bounds, now of log p(x | y), need y.

    Reference:
        Kingma and Welling 2014, https://arxiv.org/abs/1312.6114; with β: Higgins et al. 2017,
        "beta-VAE"; with more importance samples: Burda, Grosse and Salakhutdinov 2016,
        https://arxiv.org/abs/1509.00519; with classes: Kingma, Rezende, Mohamed and Welling 2014,
        https://arxiv.org/abs/1406.5298, "M2" with all labels given.

    Args:
        data_shape: Shape of one example: ``(64,)`` or ``(1, 28, 28)``.
        latent_dim: Width of z.
        likelihood: ``"bernoulli"`` for data of zeros and ones, ``"gaussian"`` for real numbers.
        beta: Weight of the KL term in ``loss``. It changes what training aims at; ``elbo`` remains
            the bound, with weight 1.
        n_classes: Number of classes; None: no labels.
        hidden: Widths of the encoder's hidden layers; the decoder has them in reverse.
        importance_samples: Draws of z for every x in ``loss``. With more than one it is the
            importance-weighted bound (IWAE), and ``beta`` must be 1.

    Example:
        >>> model = VAE((1, 8, 8), 2)
        >>> x = model.sample(3)
        >>> x.shape, model.elbo(x).shape, model.encode(x)[0].shape
        (torch.Size([3, 1, 8, 8]), torch.Size([3]), torch.Size([3, 2]))

    """

    def __init__(
        self,
        data_shape: Sequence[int],
        latent_dim: int,
        *,
        likelihood: str = "bernoulli",
        beta: float = 1.0,
        n_classes: int | None = None,
        hidden: Sequence[int] = (256, 256),
        importance_samples: int = 1,
    ):
        check_ints("data_shape", data_shape, minimum=1)
        if len(data_shape) == 0:
            raise ValueError(f"data_shape must hold at least one size, got {data_shape!r}")
        check_int("latent_dim", latent_dim, minimum=1)
        check_one_of("likelihood", likelihood, LIKELIHOODS)
        check_number("beta", beta, minimum=0.0)
        if n_classes is not None:
            check_int("n_classes", n_classes, minimum=1)
        check_ints("hidden", hidden, minimum=1)
        check_int("importance_samples", importance_samples, minimum=1)
        if importance_samples > 1 and beta != 1:
            raise ValueError(f"beta must be 1 with more than one importance sample, got {beta}")
        super().__init__()
        self.data_shape = tuple(data_shape)
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.beta = beta
        self.n_classes = n_classes
        self.importance_samples = importance_samples
        dim, labels = math.prod(data_shape), n_classes or 0
        self.encoder = MLP(dim + labels, hidden, 2 * latent_dim)
        self.decoder = MLP(latent_dim + labels, hidden[::-1], dim)
        if likelihood == "gaussian":
            self.log_noise = nn.Parameter(torch.zeros(()))  # log σ² of p(x | z), of all coordinates

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean μ and log σ² of q(z | x), both ``[B, latent_dim]``, for ``x [B, *data_shape]``."""
        self.check_data(x, y)
        return self.encoder(self.with_label(x.flatten(1), y)).chunk(2, dim=1)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x | z), ``[B, *data_shape]``, for ``z [B, latent_dim]``.

        For bits it is the probability of a one.
        """
        check_floats("z", z, (None, self.latent_dim), dtype=self.dtype)
        check_classes("y", y, len(z), self.n_classes)
        output = self.decoder(self.with_label(z, y))
        mean = output.sigmoid() if self.likelihood == "bernoulli" else output
        return mean.unflatten(1, self.data_shape)

    def log_likelihood(self, x: Tensor, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The logarithm of p(x | z) in nats, ``[..., B]``.

        For ``x [B, *data_shape]``, and one or several z for each of them: ``[..., B, latent_dim]``.
        """
        self.check_data(x, y)
        check_floats("z", z, None, dtype=self.dtype)
        if z.shape[-2:] != (len(x), self.latent_dim):
            wanted = f"[..., {len(x)}, {self.latent_dim}]"
            raise ValueError(f"z must have shape {wanted}, got {list(z.shape)}")
        return -self.distortion(x, z, y)

    def distortion(self, x: Tensor, z: Tensor, y: Tensor | None = None) -> Tensor:
        """−log p(x | z), as ``log_likelihood``, for data checked before: no number is looked at."""
        if y is not None:
            y = y.expand(z.shape[:-1])
        output, x = self.decoder(self.with_label(z, y)), x.flatten(1)  # [..., B, D], [B, D]
        if self.likelihood == "bernoulli":
            x = x.expand_as(output)
            return F.binary_cross_entropy_with_logits(output, x, reduction="none").sum(dim=-1)
        return -gaussian_log_prob(x, output, self.log_noise)

    def rate_distortion(
        self,
        x: Tensor,
        n_samples: int = 1,
        *,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The two parts of −ELBO in nats, both ``[B]``: the rate KL(q ‖ p) and the distortion.

        The distortion −E log p(x | z) is estimated from ``n_samples`` draws of z for every x, the
        rate is exact.
        """
        mu, log_var = self.encode(x, y)
        z = reparameterize(mu, log_var, n_samples, generator=generator)  # [n_samples, B, d]
        distortion = self.distortion(x, z, y).mean(dim=0)
        return gaussian_kl(mu, log_var), distortion

    def elbo(
        self,
        x: Tensor,
        n_samples: int = 1,
        *,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """An unbiased estimate ``[B]`` of the evidence lower bound of log p(x), in nats.

        Reference:
            Kingma and Welling 2014, equation 3, with an exact KL term (estimator B, equation 7).

        """
        rate, distortion = self.rate_distortion(x, n_samples, y=y, generator=generator)
        return -(rate + distortion)

    def log_weights(
        self,
        x: Tensor,
        n_samples: int,
        *,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The logarithms of p(x | z) p(z) / q(z | x) at draws from q, ``[n_samples, B]``.

        The weights have the mean p(x), whatever q is.
        """
        mu, log_var = self.encode(x, y)
        z = reparameterize(mu, log_var, n_samples, generator=generator)  # [n_samples, B, d]
        log_prior = gaussian_log_prob(z, torch.zeros_like(mu), torch.zeros_like(mu))
        log_q = gaussian_log_prob(z, mu, log_var)
        log_likelihood = -self.distortion(x, z, y)
        return log_likelihood + log_prior - log_q

    def importance_log_prob(
        self,
        x: Tensor,
        n_samples: int,
        *,
        y: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The importance-weighted estimate ``[B]`` of log p(x), in nats, from ``n_samples`` draws.

        It is the logarithm of the weights' mean. In expectation it is a lower bound, which never
        falls as ``n_samples`` grows and tends to log p(x).

        Reference:
            Burda, Grosse and Salakhutdinov 2016, https://arxiv.org/abs/1509.00519, equation 8.

        """
        check_int("n_samples", n_samples, minimum=1)
        sizes = [min(CHUNK, n_samples - done) for done in range(0, n_samples, CHUNK)]
        log_w = torch.cat([self.log_weights(x, n, y=y, generator=generator) for n in sizes])
        return log_w.logsumexp(dim=0) - math.log(n_samples)

    def loss(
        self, x: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The mean of distortion + β · rate, or of minus the importance-weighted bound; in nats."""
        if self.importance_samples > 1:
            n = self.importance_samples
            return -self.importance_log_prob(x, n, y=y, generator=generator).mean()
        check_generator(generator, x.device)
        mu, log_var = self.encode(x, y)
        z = reparameterize.inside(mu, log_var, generator=generator)  # one draw for each x
        distortion, rate = self.distortion(x, z, y), gaussian_kl.inside(mu, log_var)
        return (distortion + self.beta * rate).mean()

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        y: Tensor | None = None,
        mean: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``n`` draws ``[n, *data_shape]``: z from the prior, then x from p(x | z).

        Args:
            n: Number of draws.
            y: Labels ``[n]``, where the model has classes; without them they are drawn uniformly.
            mean: Whether to return the mean of p(x | z) in place of a draw from it.
            generator: Source of the draws.

        """
        check_int("n", n, minimum=1)
        check_bool("mean", mean)
        device = self.device
        check_generator(generator, device)
        if self.n_classes is not None and y is None:
            y = torch.randint(self.n_classes, (n,), generator=generator, device=device)
        z = torch.randn(n, self.latent_dim, generator=generator, dtype=self.dtype, device=device)
        x = self.decode(z, y)
        if mean:
            return x
        if self.likelihood == "bernoulli":
            return torch.bernoulli(x, generator=generator)
        eps = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device)
        return x + (0.5 * self.log_noise).exp() * eps

    def check_data(self, x: Tensor, y: Tensor | None) -> None:
        """Require data ``[B, *data_shape]`` that the likelihood can have, and fitting labels."""
        shape = (None, *self.data_shape)
        if self.likelihood == "bernoulli":
            check_level_floats("x", x, shape, 2, dtype=self.dtype)
        else:
            check_floats("x", x, shape, dtype=self.dtype)
        check_classes("y", y, len(x), self.n_classes)

    def with_label(self, x: Tensor, y: Tensor | None) -> Tensor:
        """``x [..., n]`` and, where the model has classes, one more number for each of them."""
        if y is None:
            return x
        return torch.cat([x, F.one_hot(y, self.n_classes).to(x.dtype)], dim=-1)

    def extra_repr(self) -> str:
        text = f"data_shape={self.data_shape}, latent_dim={self.latent_dim}, "
        return (
            text + f"likelihood={self.likelihood!r}, beta={self.beta}, n_classes={self.n_classes}"
        )
