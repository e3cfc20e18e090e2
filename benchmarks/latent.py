"""VAE, IWAE and VQ-VAE here against public formulations: training steps, and quantization.

All sides of a comparison hold the same weights (``tests/parity`` checks that they compute the same
numbers). They take turns within one run, and what is compared is the median of many repetitions.

- The VAE against two plain PyTorch forms: that of PyTorch's own example, with formulas written out,
  and one with torch.distributions. Ours checks its input at every step, and has the rate and the
  distortion of each example; PyTorch's does neither. Without the checks it is the line "unchecked",
  with them it may take ``SLACK`` longer than a peer.
- The IWAE, which decodes all draws of z at once, against a loop over the draws.
- The vector quantizer against vector-quantize-pytorch's: equal size, moving averages, commitment
  and revival of dead codes, straight-through gradients. In eval mode ours also computes the loss
  and the perplexity, theirs neither.
- The VQ-VAE against the same networks around that library's quantizer.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence
from torch.nn import functional as F
from vector_quantize_pytorch import VectorQuantize

import course_lib.latent.gaussian
import course_lib.latent.vae
import course_lib.nn.mlp
from benchmarks._timing import milliseconds, report, training_step
from course_lib.latent import VAE, VQVAE, VectorQuantizer

BATCH = 128
SLACK = 0.05  # of a training step


class PlainVAE(nn.Module):
    """A VAE of bits as in PyTorch's examples, with a copy of ``model``'s weights."""

    def __init__(self, model: VAE):
        super().__init__()
        self.encoder = copy.deepcopy(model.encoder.layers)
        self.decoder = copy.deepcopy(model.decoder.layers)

    def loss(self, x: Tensor, eps: Tensor | None = None) -> Tensor:
        """Minus the ELBO, a mean over the batch; ``eps [B, d]`` is the noise of z."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        z = mu + torch.exp(0.5 * log_var) * (torch.randn_like(mu) if eps is None else eps)
        errors = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = -0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp())
        return (errors + kl) / len(x)


class DistributionsVAE(PlainVAE):
    """The same, written with torch.distributions."""

    def posterior(self, x: Tensor) -> Independent:
        """q(z | x), a batch of Gaussians."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        return Independent(Normal(mu, torch.exp(0.5 * log_var)), 1)

    def likelihood(self, z: Tensor) -> Independent:
        """p(x | z), a batch of bits."""
        return Independent(Bernoulli(logits=self.decoder(z)), 1)

    def loss(self, x: Tensor, eps: Tensor | None = None) -> Tensor:
        """Minus the ELBO, a mean over the batch; ``eps [B, d]`` is the noise of z."""
        q = self.posterior(x)
        z = q.rsample() if eps is None else q.mean + q.stddev * eps
        prior = Independent(Normal(torch.zeros_like(z), torch.ones_like(z)), 1)
        return (kl_divergence(q, prior) - self.likelihood(z).log_prob(x)).mean()


class LoopIWAE(DistributionsVAE):
    """The importance-weighted bound, one draw of z for every x after the other."""

    def __init__(self, model: VAE):
        super().__init__(model)
        self.n_samples = model.importance_samples

    def log_prob(self, x: Tensor, eps: Tensor) -> Tensor:
        """The estimate ``[B]`` of log p(x) from noise ``[n, B, d]``."""
        q = self.posterior(x)
        prior = Independent(Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean)), 1)
        log_weights = []
        for noise in eps:
            z = q.mean + q.stddev * noise
            log_weights.append(self.likelihood(z).log_prob(x) + prior.log_prob(z) - q.log_prob(z))
        return torch.stack(log_weights).logsumexp(dim=0) - math.log(len(eps))

    def loss(self, x: Tensor, eps: Tensor | None = None) -> Tensor:
        """Minus the bound, a mean over the batch."""
        if eps is None:
            latent_dim = self.decoder[0].in_features
            eps = torch.randn(self.n_samples, len(x), latent_dim)
        return -self.log_prob(x, eps).mean()


def in_vqp(quantizer: VectorQuantizer) -> VectorQuantize:
    """The same quantizer in vector-quantize-pytorch, with a copy of the codebook and its averages.

    That library adds ``eps`` to each code's number of uses; here it is 0.
    """
    theirs = VectorQuantize(
        quantizer.dim,
        quantizer.n_codes,
        decay=quantizer.decay,
        eps=0.0,
        commitment_weight=quantizer.commitment,
        threshold_ema_dead_code=quantizer.dead_below,
        ema_update=quantizer.ema,
        learnable_codebook=not quantizer.ema,
        rotation_trick=False,
        accept_image_fmap=True,
    )
    codebook, uses = quantizer.codebook.detach(), quantizer.uses
    with torch.no_grad():
        theirs._codebook.embed[0] = codebook
        theirs._codebook.embed_avg[0] = uses[:, None] * codebook
        theirs._codebook.cluster_size[0] = uses
    return theirs


class PlainVQVAE(nn.Module):
    """The networks of ``model`` with the other library's quantizer between them."""

    def __init__(self, model: VQVAE):
        super().__init__()
        self.encoder, self.decoder = copy.deepcopy(model.encoder), copy.deepcopy(model.decoder)
        self.quantizer = in_vqp(model.quantizer)

    def loss(self, x: Tensor) -> Tensor:
        """Mean squared error of a pixel plus the quantizer's loss."""
        quantized, _, loss = self.quantizer(self.encoder(x))
        return F.mse_loss(self.decoder(quantized), x) + loss


def unchecked(call: Callable[[], None]) -> Callable[[], None]:
    """The same call of a VAE without any checks of its input."""
    modules = (course_lib.latent.vae, course_lib.latent.gaussian, course_lib.nn.mlp)
    checks = [
        (module, name, getattr(module, name))
        for module in modules
        for name in dir(module)
        if name.startswith("check_")
    ]

    def without() -> None:
        for module, name, _ in checks:
            setattr(module, name, lambda *args, **options: None)
        try:
            call()
        finally:
            for module, name, check in checks:
                setattr(module, name, check)

    return without


def vae_steps() -> bool:
    """The VAE's training step at two sizes; whether ours is the fastest, up to its checks."""
    good = True
    for dim, hidden, latent_dim in ((64, [128, 128], 2), (784, [400, 400], 50)):
        model = VAE((dim,), latent_dim, hidden=hidden)
        x = torch.randint(2, (BATCH, dim)).float()
        # A copy, too: where weights lie in memory makes a difference of 1 %.
        ours = copy.deepcopy(model)
        models = {"ours": ours, "example": PlainVAE(model), "distr.": DistributionsVAE(model)}
        steps = {name: training_step(model, model.loss, x) for name, model in models.items()}
        bare = copy.deepcopy(ours)
        steps["unchecked"] = unchecked(training_step(bare, bare.loss, x))
        medians = milliseconds(steps, repetitions=500 if dim == 64 else 100)
        what = f"VAE(({dim},), {latent_dim}, hidden={hidden}), training step, batch {BATCH}"
        good &= report(what, medians, slack=SLACK)
    return good


def iwae_steps() -> bool:
    """The training step with five draws of z at two sizes; whether ours is the fastest."""
    good = True
    for dim, hidden, latent_dim in ((64, [128, 128], 2), (784, [400, 400], 50)):
        ours = VAE((dim,), latent_dim, hidden=hidden, importance_samples=5)
        x = torch.randint(2, (BATCH, dim)).float()
        models = {"ours": ours, "loop": LoopIWAE(ours)}
        steps = {name: training_step(model, model.loss, x) for name, model in models.items()}
        medians = milliseconds(steps, repetitions=200 if dim == 64 else 40)
        what = (
            f"VAE(({dim},), {latent_dim}, hidden={hidden}), 5 draws, training step, batch {BATCH}"
        )
        good &= report(what, medians)
    return good


def there(quantizer: nn.Module, z: Tensor) -> Callable[[], None]:
    """Quantize ``z``, without gradients."""

    @torch.no_grad()
    def call() -> None:
        quantizer(z)

    return call


def there_and_back(quantizer: nn.Module, z: Tensor) -> Callable[[], None]:
    """Quantize ``z`` and take the gradient of its values and of the loss."""
    z = z.clone().requires_grad_()

    def call() -> None:
        z.grad = None
        quantized, _, loss, *_ = quantizer(z)
        (quantized.sum() + loss).backward()

    return call


@torch.no_grad()
def started(n_codes: int, dim: int, z: Tensor) -> VectorQuantizer:
    """A quantizer whose codes no longer are where they started."""
    quantizer = VectorQuantizer(n_codes, dim)
    for _ in range(3):
        quantizer(z)
    return quantizer


def quantizers() -> bool:
    """Quantizing at three sizes, in training and eval mode; whether ours is the fastest."""
    good = True
    for n_codes, dim in ((64, 16), (512, 16), (512, 64)):
        z = torch.randn(BATCH, dim, 7, 7)
        ours = started(n_codes, dim, z)
        sides = {"ours": ours, "library": in_vqp(ours)}
        what = f"VectorQuantizer({n_codes}, {dim}), {BATCH} maps of 7 x 7"
        calls = {name: there_and_back(side, z) for name, side in sides.items()}
        good &= report(f"{what}, training mode with gradients", milliseconds(calls, repetitions=50))
        for side in sides.values():
            side.eval()
        calls = {name: there(side, z) for name, side in sides.items()}
        good &= report(f"{what}, eval mode", milliseconds(calls, repetitions=50))
    return good


def vqvae_steps() -> bool:
    """The VQ-VAE's training step at two sizes; whether ours is the fastest."""
    good = True
    for n_codes, dim in ((64, 16), (512, 64)):
        x = torch.rand(BATCH, 1, 28, 28)
        ours = VQVAE((1, 28, 28), n_codes, dim)
        ours.quantizer(ours.encoder(x))  # puts the codes onto the data
        models = {"ours": ours, "library": PlainVQVAE(ours)}
        steps = {name: training_step(model, model.loss, x) for name, model in models.items()}
        medians = milliseconds(steps, repetitions=15, warm_up=2)
        what = f"VQVAE((1, 28, 28), {n_codes}, {dim}), training step, batch {BATCH}"
        good &= report(what, medians)
    return good


def main() -> int:
    """Run all; 1 where ours is slower than a peer."""
    torch.manual_seed(0)
    results = [part() for part in (vae_steps, iwae_steps, quantizers, vqvae_steps)]
    return 0 if all(results) else 1
