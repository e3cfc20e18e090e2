"""The linear VAE: exact likelihood, exact posterior, and the bounds between them."""

import math
from itertools import pairwise

import pytest
import torch
from sklearn.decomposition import PCA
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from course_lib.latent import LinearVAE
from tests.latent.conftest import assert_mean, randn, randomize, refuses, seeded


def linear_vae(generator, dim=4, latent_dim=2):
    """In double precision; encoder, too, with random parameters: far from the posterior."""
    model = randomize(LinearVAE(dim, latent_dim).double(), generator)
    with torch.no_grad():
        model.encoder.layers[0].weight[latent_dim:] *= 0.2
        model.log_noise.fill_(-0.6)
    return model


def parts(model):
    """W, b and σ²."""
    layer = model.decoder.layers[0]
    return layer.weight, layer.bias, model.log_noise.exp()


def exact_elbo(model, x):
    """E_q log p(x | z) is the expectation of a quadratic; the rate from torch.distributions."""
    W, b, noise = parts(model)
    mu, log_var = model.encode(x)
    squared = ((x - b - mu @ W.T) ** 2).sum(dim=1) + (log_var.exp() @ (W**2).sum(dim=0))
    expected = -0.5 * (squared / noise + x.shape[1] * (math.log(2 * math.pi) + noise.log()))
    q = Normal(mu, (log_var / 2).exp())
    return expected - kl_divergence(q, Normal(torch.zeros_like(mu), 1.0)).sum(dim=1)


def encoder_as_gaussian(model, x):
    mu, log_var = model.encode(x)
    return MultivariateNormal(mu, torch.diag_embed(log_var.exp()))


def test_the_density_is_that_of_the_gaussian(generator):
    model = linear_vae(generator)
    W, b, noise = parts(model)
    x = 2 * randn(10, 4, generator=generator)
    covariance = W @ W.T + noise * torch.eye(4)
    away = x - b
    expected = -0.5 * (
        (away @ covariance.inverse() * away).sum(dim=1)
        + torch.logdet(covariance)
        + 4 * math.log(2 * math.pi)
    )
    assert model.log_prob(x).shape == (10,)
    torch.testing.assert_close(model.log_prob(x), expected)


def test_bayes_holds_at_every_z(generator):
    """All four of log p(x | z) + log p(z) = log p(x) + log p(z | x) are known."""
    model = linear_vae(generator)
    x, z = randn(10, 4, generator=generator), 2 * randn(10, 2, generator=generator)
    mean, covariance = model.posterior(x)
    assert mean.shape == (10, 2)
    assert covariance.shape == (2, 2)
    assert covariance[0, 1].abs() > 0.01
    joint = model.log_likelihood(x, z) + Normal(0.0, 1.0).log_prob(z).sum(dim=1)
    posterior = MultivariateNormal(mean, covariance).log_prob(z)
    torch.testing.assert_close(model.log_prob(x) + posterior, joint)


def test_samples_have_the_mean_and_the_covariance(generator):
    model = linear_vae(generator)
    W, b, noise = parts(model)
    x = model.sample(50_000, generator=generator)
    assert_mean(x, b)
    products = (x - b)[:, :, None] * (x - b)[:, None]
    assert_mean(products, W @ W.T + noise * torch.eye(4))


def test_the_gap_is_the_divergence_from_the_true_posterior(generator):
    """The gap log p(x) - ELBO = KL(q ‖ p(z | x)), for any encoder; so the ELBO is below."""
    for _ in range(5):
        model = linear_vae(generator)
        x = 2 * randn(20, 4, generator=generator)
        gap = kl_divergence(encoder_as_gaussian(model, x), MultivariateNormal(*model.posterior(x)))
        assert gap.min() > 0
        torch.testing.assert_close(exact_elbo(model, x), model.log_prob(x) - gap)
    # What elbo draws has that mean, and so have the logarithms of the weights.
    elbos = model.elbo(x[:3].repeat(4000, 1), generator=generator).detach().reshape(4000, 3)
    assert_mean(elbos, exact_elbo(model, x[:3]).detach())
    log_weights = model.log_weights(x[:3], 4000, generator=generator).detach()
    assert_mean(log_weights, exact_elbo(model, x[:3]).detach())


def with_diagonal_posterior(generator):
    """Columns of W at right angles: the encoder can then be the true posterior."""
    model = linear_vae(generator)
    W = model.decoder.layers[0].weight
    with torch.no_grad():
        W[:, 1] -= W[:, 0] * (W[:, 0] @ W[:, 1]) / (W[:, 0] @ W[:, 0])
    model.encode_exactly()
    return model


def test_at_the_true_posterior_the_bound_is_tight(generator):
    """Every single draw of the weights is then p(x)."""
    model = with_diagonal_posterior(generator)
    x = 2 * randn(20, 4, generator=generator)
    mean, covariance = model.posterior(x)
    mu, log_var = model.encode(x)
    torch.testing.assert_close(mu, mean)
    torch.testing.assert_close(torch.diag(log_var[0].exp()), covariance)
    log_prob = model.log_prob(x)
    torch.testing.assert_close(exact_elbo(model, x), log_prob)
    weights = model.log_weights(x, 7, generator=generator)
    torch.testing.assert_close(weights, log_prob.expand(7, 20))
    torch.testing.assert_close(model.importance_log_prob(x, 230, generator=generator), log_prob)


def test_importance_weights_have_the_mean_p_and_the_bound_rises_to_it(generator):
    model = linear_vae(generator)
    model.encode_exactly()
    with torch.no_grad():
        model.encoder.layers[0].bias += torch.tensor([0.3, -0.2, 0.4, 0.5])  # wrong, and broad
    x = randn(3, 4, generator=generator)
    log_prob = model.log_prob(x).detach()
    weights = model.log_weights(x, 20_000, generator=generator).detach().exp()
    assert_mean(weights, log_prob.exp())

    # 1, 2, 4, ... of the same draws: paired, each bound is above the one before in the mean.
    means = []
    for n in (1, 2, 4, 16, 64, 256):
        groups = weights[: 256 * 78].reshape(-1, n, 3)
        means.append(groups.mean(dim=1).log().mean(dim=0))
    for fewer, more in pairwise(means):
        assert (fewer < more).all()
    assert (means[-1] < log_prob + 0.02).all()
    estimate = model.importance_log_prob(x, 5000, generator=generator)
    torch.testing.assert_close(estimate, log_prob, rtol=0, atol=0.08)
    assert (means[0] < log_prob - 0.1).all()


def test_encode_exactly_is_the_best_encoder(generator):
    """Its ELBO has no slope in the encoder's parameters, and every step away is worse."""
    model = linear_vae(generator)
    x = 2 * randn(50, 4, generator=generator)
    before = [t.clone() for t in parts(model)]
    model.encode_exactly()
    for t, old in zip(parts(model), before, strict=True):
        assert torch.equal(t, old), "the decoder stays"
    torch.testing.assert_close(model.encode(x)[0], model.posterior(x)[0])
    layer = model.encoder.layers[0]
    best = exact_elbo(model, x).mean()
    best.backward()
    assert layer.weight.grad.abs().max() < 1e-10
    assert layer.bias.grad.abs().max() < 1e-10
    parameters = [layer.weight, layer.bias]
    for _ in range(20):
        with torch.no_grad():
            steps = [0.1 * randn(*p.shape, generator=generator) for p in parameters]
            for p, step in zip(parameters, steps, strict=True):
                p += step
            assert exact_elbo(model, x).mean() < best
            for p, step in zip(parameters, steps, strict=True):
                p -= step
    # What is left is the correlation that an encoder without one cannot have.
    gap = (model.log_prob(x) - exact_elbo(model, x)).detach()
    assert gap.min() > 1e-4
    torch.testing.assert_close(gap, gap[:1].expand(50))


def data(generator, n=200):
    """Points with spread along three directions, more along the first; not centred."""
    mix = randn(5, 5, generator=generator)
    spread = torch.tensor([3.0, 1.5, 0.8, 0.4, 0.4]).double()
    return (spread * randn(n, 5, generator=generator)) @ mix + torch.arange(5)


@pytest.mark.parametrize("latent_dim", [1, 2, 4])
def test_ppca_is_the_maximum_of_the_likelihood(latent_dim, generator):
    x = data(generator)
    model = LinearVAE.ppca(x, latent_dim)
    assert (model.data_shape, model.latent_dim) == ((5,), latent_dim)
    best = model.log_prob(x).mean()
    best.backward()
    layer = model.decoder.layers[0]
    parameters = [layer.weight, layer.bias, model.log_noise]
    for p in parameters:
        assert p.grad.abs().max() < 1e-9
    for size in (1e-3, 0.3):
        for _ in range(20):
            with torch.no_grad():
                kept = [p.clone() for p in parameters]
                for p in parameters:
                    p += size * randn(*p.shape, generator=generator)
                assert model.log_prob(x).mean() < best
                for p, old in zip(parameters, kept, strict=True):
                    p.copy_(old)


def test_ppca_has_the_optimum_that_sklearn_has(generator):
    """scikit-learn divides the covariance by N - 1, and so has another noise and scale."""
    x = data(generator)
    model, theirs = LinearVAE.ppca(x, 2), PCA(2, svd_solver="full").fit(x.numpy())
    W, b, noise = (t.detach() for t in parts(model))
    shrink = 199 / 200
    expected = torch.from_numpy(theirs.get_covariance()) * shrink
    torch.testing.assert_close(W @ W.T + noise * torch.eye(5), expected)
    torch.testing.assert_close(b, x.mean(dim=0))
    assert noise.item() == pytest.approx(theirs.noise_variance_ * shrink)
    with torch.no_grad():
        model.decoder.layers[0].weight /= shrink**0.5
        model.log_noise -= math.log(shrink)
    assert model.log_prob(x).mean().item() == pytest.approx(theirs.score(x.numpy()))


def test_ppca_brings_its_encoder_and_the_bound_is_tight(generator):
    """At the maximum the columns of W are at right angles, the largest first."""
    x = data(generator)
    model = LinearVAE.ppca(x, 3)
    W = model.decoder.layers[0].weight
    lengths = (W.T @ W).diagonal()
    torch.testing.assert_close(W.T @ W, torch.diag(lengths))
    assert (lengths.diff() < 0).all()
    torch.testing.assert_close(exact_elbo(model, x), model.log_prob(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ppca_works_in_the_precision_of_the_data(dtype, generator):
    x = data(generator).to(dtype)
    model = LinearVAE.ppca(x, 2)
    assert model.log_prob(x).dtype == dtype
    assert all(p.dtype == dtype and p.requires_grad for p in model.parameters())
    torch.testing.assert_close(
        model.log_prob(x).double(),
        LinearVAE.ppca(x.double(), 2).log_prob(x.double()),
        rtol=1e-4,
        atol=1e-4,
    )


def test_ppca_of_few_points_that_fill_the_space_but_for_little(generator):
    x = data(generator, n=4)  # three directions: one of them is left out, and with it two without
    model = LinearVAE.ppca(x, 2)
    assert model.log_prob(x).isfinite().all()


def test_learning_comes_to_the_same_maximum(generator):
    """Training by draws of the ELBO alone, from a random start."""
    x = data(generator)
    x = (x - x.mean(dim=0)) / x.std()
    model = LinearVAE(5, 2).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 300)
        optimizer.zero_grad()
        model.loss(x, generator=generator).backward()
        optimizer.step()
    best = LinearVAE.ppca(x, 2).log_prob(x).mean()
    assert best - 0.05 < model.log_prob(x).mean() <= best


def test_the_encoders_variances_start_alike(generator):
    model = LinearVAE(5, 2)
    x = torch.randn(4, 5, generator=generator)
    mu, log_var = model.encode(x)
    assert torch.equal(log_var, log_var[:1].expand(4, 2))
    assert (mu.std(dim=0) > 0).all()
    assert model.likelihood == "gaussian"
    assert len(list(model.parameters())) == 5


X = torch.ones(3, 4)


def test_bad_arguments_are_named():
    for value in (0, 2.0, True):
        with refuses(f"dim must be an integer of at least 1, got {value!r}"):
            LinearVAE(value, 2)
        with refuses(f"latent_dim must be an integer of at least 1, got {value!r}"):
            LinearVAE(2, value)
    assert LinearVAE(1, 1).log_prob(torch.ones(2, 1)).shape == (2,)
    model = LinearVAE(4, 2)
    for method in (model.log_prob, model.posterior):
        with refuses("x must have shape [B, 4], got [3, 3]"):
            method(X[:, :3])
        with refuses("x must be torch.float32 like the model, got torch.float64"):
            method(X.double())
        with refuses("x must be finite, got NaN or infinite values"):
            method(X / 0)


VARIED = torch.randn(6, 4, generator=seeded(1))


@pytest.mark.parametrize(
    ("x", "latent_dim", "message"),
    [
        (VARIED[0], 1, "x must have shape [B, any], got [4]"),
        (VARIED.long(), 1, "x must be a floating-point tensor, got torch.int64"),
        (VARIED / 0, 1, "x must be finite, got NaN or infinite values"),
        (VARIED, 0, "latent_dim must be an integer from 1 to 3, got 0"),
        (VARIED, 4, "latent_dim must be an integer from 1 to 3, got 4"),
        (VARIED[:1], 1, "x must have at least two rows, got 1"),
        (VARIED[:2], 1, "x must vary in the directions that are left out, got data that don't"),
        (VARIED[:3], 2, "x must vary in the directions that are left out, got data that don't"),
        (X, 3, "x must vary in the directions that are left out, got data that don't"),
        (
            VARIED * torch.tensor([1.0, 1, 0, 0]),
            2,
            "x must vary in the directions that are left out, got data that don't",
        ),
    ],
)
def test_data_without_a_maximum_are_refused(x, latent_dim, message):
    with refuses(message):
        LinearVAE.ppca(x, latent_dim)


def test_two_points_are_enough_in_one_more_dimension_than_kept(generator):
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.5]])
    assert LinearVAE.ppca(x, 1).log_prob(x).isfinite().all()


@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_what_counts_as_variation_is_relative(scale, generator):
    """Small data are as good as large ones, and large ones no better than small ones."""
    x = data(generator).float()
    assert LinearVAE.ppca(scale * x, 2).log_prob(scale * x).isfinite().all()
    flat = x.clone()
    flat[:, 3:] = 0
    with refuses("x must vary in the directions that are left out, got data that don't"):
        LinearVAE.ppca(scale * flat, 3)
    hidden = torch.tensor([1e9, 2, 1, 1, 1]).double() * randn(50, 5, generator=generator)
    with refuses("x must vary in the directions that are left out, got data that don't"):
        LinearVAE.ppca(hidden, 1)  # lost in the rounding errors of the first direction
