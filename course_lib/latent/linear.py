"""The one VAE whose likelihood is known exactly: linear, with Gaussian noise."""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from course_lib.checks import check_floats, check_int
from course_lib.latent.vae import VAE

__all__ = ["LinearVAE"]


class LinearVAE(VAE):
    """A VAE with x = W z + b + noise: probabilistic PCA, where everything has a closed form.

    The encoder is linear, too: its mean is A x + c, and its variances are the same for every x when
    training starts. As W z + b + noise is Gaussian, log p(x) is known, and so is the true
    posterior.

    Reference:
        Tipping and Bishop 1999, "Probabilistic principal component analysis"; as a VAE: Lucas,
        Tucker, Grosse and Norouzi 2019, https://arxiv.org/abs/1911.02469.

    Args:
        dim: Width of x.
        latent_dim: Width of z.

    Example:
        >>> model = LinearVAE(5, 2)
        >>> x = model.sample(3)
        >>> model.log_prob(x).shape, model.elbo(x).shape
        (torch.Size([3]), torch.Size([3]))

    """

    def __init__(self, dim: int, latent_dim: int):
        check_int("dim", dim, minimum=1)
        super().__init__((dim,), latent_dim, likelihood="gaussian", hidden=())
        with torch.no_grad():
            self.encoder.layers[0].weight[latent_dim:] = 0  # of log σ²

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density ``[B]`` of ``x [B, dim]``, in nats: x ~ N(b, W Wᵀ + τ² I)."""
        self.check_data(x, None)
        W, b, noise = self.W, self.b, self.variance
        return MultivariateNormal(b, W @ W.T + noise * identity(W)).log_prob(x)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``[B, d]`` and covariance ``[d, d]`` of the true p(z | x), for ``x [B, dim]``.

        With M = Wᵀ W + τ² I they are M⁻¹ Wᵀ (x − b) and τ² M⁻¹.
        """
        self.check_data(x, None)
        W, b, noise = self.W, self.b, self.variance
        M = W.T @ W + noise * identity(W.T)
        return (x - b) @ torch.linalg.solve(M, W.T).T, noise * torch.linalg.inv(M)

    @torch.no_grad()
    def encode_exactly(self) -> None:
        """Give the encoder the best parameters that it can have for this decoder.

        The true posterior's mean is linear in x, and so the encoder can have it. Among independent
        variances those with τ² / M_ii are the closest: the inverse of M's diagonal, not the
        diagonal of its inverse, for KL(q ‖ p) asks for the posterior's precisions. Where M is
        diagonal, the encoder is then the true posterior.
        """
        W, b, layer = self.W, self.b, self.encoder.layers[0]
        M = W.T @ W + self.variance * identity(W.T)
        A = torch.linalg.solve(M, W.T)
        layer.weight.copy_(torch.cat([A, torch.zeros_like(A)]))
        layer.bias.copy_(torch.cat([-A @ b, self.log_noise - M.diagonal().log()]))

    @classmethod
    def ppca(cls, x: Tensor, latent_dim: int) -> "LinearVAE":
        """The maximum of the likelihood of data ``x [N, dim]``, in closed form, with its encoder.

        With the covariance's eigenvalues λ₁ ≥ λ₂ ≥ ... and its eigenvectors U, τ² is the mean of
        those left out, and W = U (Λ − τ² I)^½ for the ``latent_dim`` largest, fewer than ``dim``.

        Raises:
            ValueError: When the data don't vary in the directions left out, so that the likelihood
                has no maximum.

        """
        check_floats("x", x, (None, None))
        check_int("latent_dim", latent_dim, minimum=1, maximum=x.shape[1] - 1)
        if len(x) < 2:
            raise ValueError(f"x must have at least two rows, got {len(x)}")
        mean = x.mean(dim=0)
        values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))  # ascending
        noise, kept = values[:-latent_dim].mean(), values[-latent_dim:].flip(0)
        if noise <= len(values) * torch.finfo(x.dtype).eps * values[-1]:
            raise ValueError("x must vary in the directions that are left out, got data that don't")
        model = cls(x.shape[1], latent_dim).to(x)
        with torch.no_grad():
            W = vectors[:, -latent_dim:].flip(1) * (kept - noise).sqrt()
            model.decoder.layers[0].weight.copy_(W)
            model.decoder.layers[0].bias.copy_(mean)
            model.log_noise.copy_(noise.log())
        model.encode_exactly()
        return model

    @property
    def W(self) -> Tensor:
        """The matrix ``[dim, latent_dim]`` of x = W z + b + noise."""
        return self.decoder.layers[0].weight

    @property
    def b(self) -> Tensor:
        """The mean ``[dim]`` of x."""
        return self.decoder.layers[0].bias

    @property
    def variance(self) -> Tensor:
        """The variance τ² of the noise, a scalar."""
        return self.log_noise.exp()


def identity(A: Tensor) -> Tensor:
    """The identity with as many rows as ``A``, on its device and in its precision."""
    return torch.eye(len(A), dtype=A.dtype, device=A.device)
