"""A small generative adversarial network, to compare with the VAE.

Where the VAE bounds a likelihood, a GAN learns the comparison of two distributions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from course_lib.checks import check_floats, check_generator, check_int, check_ints
from course_lib.nn import MLP, Placed

__all__ = ["GAN"]


class GAN(Placed):
    """x = g(z) with z ~ N(0, I), and a critic that tells samples of g from data.

    The critic D(x) is the logit of "x is from the data". At its best it is
    log p_data(x) / p_g(x): a comparison of two distributions of which only samples are known.
    There is no ``log_prob``: g need not be invertible, and p_g may have no density at all.

    Reference:
        Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661; the generator's loss is the
        non-saturating one of its section 3.

    Args:
        dim: Width of x.
        latent_dim: Width of z.
        hidden: Widths of the hidden layers, of both networks.

    Example:
        >>> GAN(2).sample(5).shape
        torch.Size([5, 2])

    """

    def __init__(self, dim: int, latent_dim: int = 2, *, hidden: Sequence[int] = (128, 128)):
        check_int("dim", dim, minimum=1)
        check_int("latent_dim", latent_dim, minimum=1)
        check_ints("hidden", hidden, minimum=1)
        super().__init__()
        self.dim, self.latent_dim = dim, latent_dim
        self.net = MLP(latent_dim, hidden, dim)
        self.critic = MLP(dim, hidden, 1)

    def decode(self, z: Tensor) -> Tensor:
        """g(z) ``[B, dim]`` for ``z [B, latent_dim]``."""
        check_floats("z", z, (None, self.latent_dim), dtype=self.dtype)
        return self.net(z)

    def log_ratio(self, x: Tensor) -> Tensor:
        """D(x) ``[B]`` for ``x [B, dim]``: log p_data(x) / p_g(x), if the critic is right."""
        check_floats("x", x, (None, self.dim), dtype=self.dtype)
        return self.critic(x)[:, 0]

    def loss(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Two losses in one scalar, each with a gradient for its own network alone.

        The critic minimises −E log σ(D(x)) − E log(1 − σ(D(g(z)))), with g held fixed; the
        generator minimises −E log σ(D(g(z))), with D held fixed. Their sum measures nothing: a
        GAN's loss does not say how good the samples are.
        """
        check_floats("x", x, (None, self.dim), dtype=self.dtype)
        fake = self.net(self.draw_latents(len(x), generator))
        of_data, of_fakes = self.critic(x), self.critic(fake.detach())
        critic_loss = F.softplus(-of_data).mean() + F.softplus(of_fakes).mean()

        # A critic that learns nothing here: the gradient passes through it, to the generator.
        fixed = {name: p.detach() for name, p in self.critic.named_parameters()}
        generator_loss = F.softplus(-functional_call(self.critic, fixed, fake)).mean()
        return critic_loss + generator_loss

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """``n`` draws ``[n, dim]``."""
        check_int("n", n, minimum=1)
        return self.net(self.draw_latents(n, generator))

    def draw_latents(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Draws ``[n, latent_dim]`` from N(0, I)."""
        check_generator(generator, self.device)
        return torch.randn(
            n, self.latent_dim, generator=generator, dtype=self.dtype, device=self.device
        )
