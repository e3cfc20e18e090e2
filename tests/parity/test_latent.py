"""VAE, IWAE, linear VAE and vector quantizer against other formulations, with the same weights."""

import pytest
import torch
from sklearn.decomposition import PCA, FactorAnalysis
from torch.distributions import Independent, Normal, kl_divergence

from course_lib.latent import VAE, VQVAE, LinearVAE, VectorQuantizer
from course_lib.latent.vae import CHUNK

pytest.importorskip(
    "vector_quantize_pytorch", reason="parity needs the test extra: pip install -e .[test]"
)

from benchmarks.latent import DistributionsVAE, LoopIWAE, PlainVAE, PlainVQVAE, in_vqp

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _same_start():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


# -------------------------------------------------------------------------------------------- VAE


def vae(**options):
    """A VAE of 9 numbers in double precision, whose code matters."""
    model = VAE((9,), 3, hidden=[16, 12], **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.1)
    return model


def bits(n):
    return torch.randint(2, (n, 9)).double()


def seeded():
    return torch.Generator().manual_seed(1)


def noise(*shape):
    """The draws that a model makes from ``seeded()``."""
    return torch.randn(shape, generator=seeded(), dtype=torch.float64)


@pytest.mark.parametrize("formulation", [PlainVAE, DistributionsVAE])
def test_the_elbo_and_its_gradients_agree(formulation):
    model, x = vae(), bits(20)
    theirs = formulation(model)
    loss, other = model.loss(x, generator=seeded()), theirs.loss(x, noise(20, 3))
    torch.testing.assert_close(loss, other, **EXACT)
    torch.testing.assert_close(-model.elbo(x, generator=seeded()).mean(), other, **EXACT)
    loss.backward()
    other.backward()
    assert len(list(model.parameters())) == 12
    for ours, parameter in zip(model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, parameter.grad, **EXACT)


def test_rate_and_distortion_agree_for_numbers_and_several_draws():
    model, x = vae(likelihood="gaussian"), torch.randn(20, 9, dtype=torch.float64)
    plain = DistributionsVAE(model)
    q = plain.posterior(x)
    prior = Independent(Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean)), 1)
    means = plain.decoder(q.mean + q.stddev * noise(4, 20, 3))
    p = Independent(Normal(means, (0.5 * model.log_noise).exp()), 1)
    rate, distortion = model.rate_distortion(x, 4, generator=seeded())
    torch.testing.assert_close(rate, kl_divergence(q, prior), **EXACT)
    torch.testing.assert_close(distortion, -p.log_prob(x).mean(dim=0), **EXACT)


@pytest.mark.parametrize("n_samples", [1, 7, CHUNK + 20])
def test_the_importance_weighted_estimate_agrees(n_samples):
    model, x = vae(), bits(8)
    draws, source = [], seeded()
    for start in range(0, n_samples, CHUNK):  # a chunk of draws at a time, as the model does
        shape = (min(CHUNK, n_samples - start), 8, 3)
        draws.append(torch.randn(shape, generator=source, dtype=torch.float64))
    ours = model.importance_log_prob(x, n_samples, generator=seeded())
    torch.testing.assert_close(ours, LoopIWAE(model).log_prob(x, torch.cat(draws)), **EXACT)


def test_the_importance_weighted_loss_agrees_in_gradients():
    model, x = vae(importance_samples=5), bits(20)
    loop = LoopIWAE(model)
    loss, other = model.loss(x, generator=seeded()), loop.loss(x, noise(5, 20, 3))
    torch.testing.assert_close(loss, other, **EXACT)
    loss.backward()
    other.backward()
    for ours, parameter in zip(model.parameters(), loop.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, parameter.grad, **EXACT)


# ------------------------------------------------------------------------------------- linear VAE


def correlated(n, dim, latent_dim):
    """Gaussian data around a ``latent_dim``-dimensional plane."""
    z, W = torch.randn(n, latent_dim).double(), torch.randn(latent_dim, dim).double()
    return 2 + z @ W + 0.5 * torch.randn(n, dim).double()


def test_the_linear_vae_has_the_density_of_scikit_learns_pca():
    x, fresh = correlated(300, 6, 2), correlated(50, 6, 2)
    pca = PCA(2).fit(x.numpy())
    mean, axes, variances = map(
        torch.from_numpy, (pca.mean_, pca.components_, pca.explained_variance_)
    )
    model = LinearVAE(6, 2).double()
    with torch.no_grad():
        layer = model.decoder.layers[0]
        layer.weight.copy_(axes.T * (variances - pca.noise_variance_).sqrt())
        layer.bias.copy_(mean)
        model.log_noise.fill_(pca.noise_variance_).log_()
    ours = model.log_prob(fresh).detach()
    torch.testing.assert_close(ours, torch.from_numpy(pca.score_samples(fresh.numpy())), **EXACT)


def test_the_closed_form_is_scikit_learns_up_to_the_divisor_of_the_variance():
    n, dim = 300, 6
    x = correlated(n, dim, 2)
    model, pca = LinearVAE.ppca(x, 2), PCA(2).fit(x.numpy())
    W = model.decoder.layers[0].weight.detach()
    covariance = W @ W.T + model.log_noise.exp().detach() * torch.eye(dim, dtype=x.dtype)
    theirs = torch.from_numpy(pca.get_covariance()) * (n - 1) / n  # scikit-learn divides by n − 1
    torch.testing.assert_close(covariance, theirs, **EXACT)


def test_the_closed_form_lies_between_pca_and_factor_analysis():
    """PCA divides by n − 1, and so just misses the maximum; factor analysis is more flexible."""
    x = correlated(300, 6, 2)
    ours = LinearVAE.ppca(x, 2).log_prob(x).mean().item()
    assert PCA(2).fit(x.numpy()).score(x.numpy()) < ours
    assert ours < FactorAnalysis(2, tol=1e-8, max_iter=5000).fit(x.numpy()).score(x.numpy())


# ------------------------------------------------------------------------------- vector quantizer


def quantizer(**options):
    """Codes in use, some more than others; the last is too far away to be chosen."""
    model = VectorQuantizer(12, 4, **options)
    model.uses.uniform_(1, 5)
    with torch.no_grad():
        model.codebook[-1] += 10
    return model


def maps():
    """Vectors ``[5, 4, 3, 2]``; no two axes of them are equally long."""
    return torch.randn(5, 4, 3, 2)


def both(ours, theirs, z):
    """What each gives for ``z``: values, indices, loss, and the gradient of a weighted sum."""
    weights = torch.randn_like(z)
    for side in (ours, theirs):
        z = z.detach().clone().requires_grad_()
        quantized, indices, loss, *_ = side(z)
        ((weights * quantized).sum() + 3 * loss).backward()
        yield quantized, indices, loss, z.grad


@pytest.mark.parametrize("decay", [0.99, 0.5])
def test_the_quantizer_and_its_moving_averages_agree(decay):
    ours = quantizer(decay=decay, dead_below=0.0)
    start, theirs = ours.codebook.clone(), in_vqp(ours)
    for _ in range(3):  # the second step starts from the averages of the first
        for mine, other in zip(*both(ours, theirs, maps()), strict=True):
            torch.testing.assert_close(mine, other)
        torch.testing.assert_close(ours.codebook, theirs.codebook)
        torch.testing.assert_close(ours.uses, theirs._codebook.cluster_size[0])
    moved = (ours.codebook != start).any(dim=1)
    assert moved.tolist() == [True] * 11 + [False]


def test_the_quantizer_agrees_in_eval_mode():
    ours = quantizer().eval()
    theirs, z = in_vqp(ours).eval(), maps()
    quantized, indices, _ = theirs(z)
    torch.testing.assert_close(ours(z)[0], quantized)
    assert torch.equal(ours(z)[1], indices)
    assert torch.equal(ours.lookup(indices), theirs.get_codes_from_indices(indices))


def test_the_quantizer_agrees_for_vectors_without_a_map():
    ours = quantizer(dead_below=0.0)
    theirs, z = in_vqp(ours), torch.randn(30, 4)
    theirs.accept_image_fmap = False
    for mine, other in zip(*both(ours, theirs, z), strict=True):
        torch.testing.assert_close(mine, other)
    torch.testing.assert_close(ours.codebook, theirs.codebook)


def test_a_codebook_that_learns_by_gradient_agrees():
    """That library has one term for vectors and codes; with commitment 1 its gradients are ours."""
    ours = quantizer(ema=False, commitment=1.0, dead_below=0.0)
    theirs = in_vqp(ours)
    mine, other = both(ours, theirs, maps())
    torch.testing.assert_close(mine[0], other[0])
    assert torch.equal(mine[1], other[1])
    torch.testing.assert_close(mine[2], 2 * other[2])
    torch.testing.assert_close(mine[3], other[3])
    torch.testing.assert_close(ours.codebook.grad, theirs._codebook.embed.grad[0])


def test_the_same_codes_are_dead():
    """That library revives after a step, ours before the next, each with vectors of its batch."""
    ours = quantizer(decay=0.5, dead_below=2.0)
    ours.uses.fill_(2.0)
    theirs, z = in_vqp(ours), maps()
    ours(z)
    theirs(z)
    after = ours.codebook.clone()
    theirs_dead = (theirs.codebook - after).abs().amax(dim=1) > 1e-5
    ours.decay = 1 - 1e-9  # the codes that are not dead stay where they are
    ours(maps())
    ours_dead = (ours.codebook - after).abs().amax(dim=1) > 1e-5
    assert torch.equal(ours_dead, theirs_dead)
    assert 0 < ours_dead.sum() < 12


def test_the_vq_vaes_step_agrees():
    model = VQVAE((1, 8, 8), 12, 4, channels=8)
    x = torch.rand(10, 1, 8, 8)
    model.loss(x)  # puts the codes onto vectors
    plain = PlainVQVAE(model)
    loss, other = model.loss(x), plain.loss(x)
    torch.testing.assert_close(loss, other)
    loss.backward()
    other.backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    x = torch.rand(10, 1, 8, 8)  # both codebooks have followed the first batch
    torch.testing.assert_close(model.loss(x), plain.loss(x))
