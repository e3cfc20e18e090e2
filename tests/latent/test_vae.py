"""The VAE against integrals over z, which one latent makes exact."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.func import functional_call

from course_lib.latent import VAE
from course_lib.latent import vae as vae_module
from tests.latent.conftest import (
    all_states,
    assert_mean,
    exact_log_prob,
    latent_grid,
    randn,
    refuses,
    seeded,
    small_vae,
)

X = all_states()  # [16, 1, 2, 2]
CLASSES = 3


def labels(k, n):
    return torch.full((n,), k)


def cases(generator):
    """Models with data and labels: bits, bits given a class, real numbers given a class."""
    y = torch.arange(16) % CLASSES
    yield small_vae(generator), X, None
    yield small_vae(generator, n_classes=CLASSES), X, y
    real = small_vae(generator, (3,), likelihood="gaussian", n_classes=CLASSES, latent_dim=2)
    yield real, randn(16, 3, generator=generator), y


@pytest.mark.parametrize("n_classes", [None, CLASSES])
def test_the_probabilities_of_all_states_sum_to_one(n_classes, generator):
    """Given z; and those of the integrals, given the class."""
    model = small_vae(generator, n_classes=n_classes)
    for k in range(n_classes or 1):
        y = None if n_classes is None else labels(k, 16)
        z = randn(5, 1, 1, generator=generator).expand(5, 16, 1)
        p = model.log_likelihood(X, z, y).exp()
        assert p.shape == (5, 16)
        torch.testing.assert_close(p.sum(dim=1), torch.ones(5).double(), rtol=1e-12, atol=0)
        assert exact_log_prob(model, X, y).exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_the_likelihood_is_that_of_the_decoded_mean(generator):
    for model, x, y in cases(generator):
        d = model.latent_dim
        z = randn(7, 16, d, generator=generator)
        log_likelihood = model.log_likelihood(x, z, y)
        assert log_likelihood.shape == (7, 16)
        for k in range(7):
            mean = model.decode(z[k], y)
            assert mean.shape == x.shape
            if model.likelihood == "bernoulli":
                assert 0 < mean.min() < mean.max() < 1
                expected = Bernoulli(mean).log_prob(x)
            else:
                expected = Normal(mean, model.log_noise.exp().sqrt()).log_prob(x)
            torch.testing.assert_close(log_likelihood[k], expected.flatten(1).sum(dim=1))
            torch.testing.assert_close(model.log_likelihood(x, z[k], y), log_likelihood[k])


def test_the_networks_are_perceptrons_that_see_the_label(generator):
    """Written out: one hidden layer of 6 units; a label is three more inputs."""
    for model, x, y in cases(generator):
        d = model.latent_dim

        def perceptron(net, t, y=y):
            if y is not None:
                t = torch.cat([t, torch.eye(CLASSES).double()[y]], dim=1)
            first, last = net.layers[0], net.layers[2]
            hidden = (t @ first.weight.T + first.bias).clamp(min=0)
            return hidden @ last.weight.T + last.bias

        code = perceptron(model.encoder, x.reshape(16, -1))
        mu, log_var = model.encode(x, y)
        torch.testing.assert_close(mu, code[:, :d])
        torch.testing.assert_close(log_var, code[:, d:])
        z = randn(16, d, generator=generator)
        output = perceptron(model.decoder, z).reshape(x.shape)
        if model.likelihood == "bernoulli":
            output = 1 / (1 + (-output).exp())
        torch.testing.assert_close(model.decode(z, y), output)


def test_the_decoder_mirrors_the_encoder():
    model = VAE((2, 3), 4, hidden=[8, 5], n_classes=2)
    widths = [
        [(layer.in_features, layer.out_features) for layer in net.layers[::2]]
        for net in (model.encoder, model.decoder)
    ]
    assert widths == [[(8, 8), (8, 5), (5, 8)], [(6, 5), (5, 8), (8, 6)]]
    assert not hasattr(model, "log_noise")
    model = VAE((2,), 1, likelihood="gaussian")
    assert [layer.out_features for layer in model.encoder.layers[::2]] == [256, 256, 2]
    assert model.log_noise.shape == ()
    assert model.log_noise.item() == 0
    assert model.encode(torch.ones(3, 2))[0].dtype == torch.float32


def test_the_bound_is_below_the_probability(generator):
    """In the mean over draws, and as far as KL(q(z | x) ‖ p(z | x)), by integrals over z."""
    model = small_vae(generator)
    exact = exact_log_prob(model, X)
    mu, log_var = (t.detach() for t in model.encode(X))
    z, log_p = latent_grid()
    gaps = []
    for i in range(16):
        log_q = Normal(mu[i], (log_var[i] / 2).exp()).log_prob(z)[:, 0]
        log_joint = model.log_likelihood(X[i : i + 1], z[:, None])[:, 0].detach() + log_p
        q = log_q.exp() * 18 / 3000
        gaps.append((q * (log_q + math.log(18 / 3000) - log_joint + exact[i])).sum())
    gaps = torch.stack(gaps)
    assert gaps.min() > 0.01
    elbos = model.elbo(X.repeat(3000, 1, 1, 1), generator=generator).detach()
    assert_mean(elbos.reshape(3000, 16), exact - gaps)
    assert_mean(model.log_weights(X, 3000, generator=generator).detach(), exact - gaps)


def test_more_draws_make_the_bound_less_noisy_not_larger(generator):
    model = small_vae(generator)
    x = X[[3, 8]].repeat(2000, 1, 1, 1)
    one, many = (model.elbo(x, n, generator=generator).detach().reshape(2000, 2) for n in (1, 20))
    assert ((one.mean(0) - many.mean(0)).abs() < 5 * (one.var(0) / 1900).sqrt()).all()
    assert (one.var(0) / many.var(0) / 20 - 1).abs().max() < 0.4


def test_importance_weights_have_the_mean_p(generator):
    for model, x, y in cases(generator):
        if model.latent_dim == 1:
            weights = model.log_weights(x, 20_000, y=y, generator=generator).detach().exp()
            assert weights.shape == (20_000, 16)
            assert_mean(weights, exact_log_prob(model, x, y).exp())


def test_the_importance_weighted_estimate_tends_to_log_p(generator):
    model = small_vae(generator, n_classes=CLASSES)
    y = torch.arange(16) % CLASSES
    exact = exact_log_prob(model, X, y)
    estimate = model.importance_log_prob(X, 20_050, y=y, generator=generator).detach()
    assert estimate.shape == (16,)
    torch.testing.assert_close(estimate, exact, rtol=0, atol=0.03)
    other = exact_log_prob(model, X, (y + 1) % CLASSES)
    assert (estimate - other).abs().max() > 0.3, "labels matter"


def test_the_importance_weighted_bound_rises_with_the_draws(generator):
    model = small_vae(generator)
    x = X[[0, 6, 9]]
    many, exact = x.repeat(2000, 1, 1, 1), exact_log_prob(model, x)
    means = []
    for n in (1, 2, 4, 16, 64):
        bounds = model.importance_log_prob(many, n, generator=generator).detach().reshape(2000, 3)
        means.append(bounds.mean(dim=0))
        assert (means[-1] < exact + 5 * bounds.std(dim=0) / 2000**0.5).all()
        # With the same draws it is above the mean of the bounds of each alone, always.
        one_by_one = model.log_weights(x, n, generator=seeded(n)).mean(dim=0)
        assert (model.importance_log_prob(x, n, generator=seeded(n)) >= one_by_one - 1e-12).all()
    for fewer, more in pairwise(means):
        assert (fewer < more).all()
    torch.testing.assert_close(means[-1], exact, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("chunk", "n", "sizes"), [(3, 7, [3, 3, 1]), (3, 6, [3, 3]), (100, 7, [7])]
)
def test_draws_come_in_chunks(chunk, n, sizes, generator, monkeypatch):
    model = small_vae(generator, n_classes=CLASSES)
    y = torch.arange(16) % CLASSES
    assert vae_module.CHUNK >= 7
    monkeypatch.setattr(vae_module, "CHUNK", chunk)
    estimate = model.importance_log_prob(X, n, y=y, generator=seeded())
    noise = seeded()
    parts = [model.log_weights(X, size, y=y, generator=noise) for size in sizes]
    weights = torch.cat(parts).exp()
    assert weights.shape == (n, 16)
    torch.testing.assert_close(estimate, weights.mean(dim=0).log())


def test_the_two_parts_of_the_bound(generator):
    for model, x, y in cases(generator):
        rate, distortion = model.rate_distortion(x, 5, y=y, generator=seeded(2))
        assert rate.shape == distortion.shape == (16,)
        torch.testing.assert_close(-(rate + distortion), model.elbo(x, 5, y=y, generator=seeded(2)))
        mu, log_var = model.encode(x, y)
        q = Normal(mu, (log_var / 2).exp())
        expected = kl_divergence(q, Normal(torch.zeros_like(mu), 1.0)).sum(dim=1)
        torch.testing.assert_close(rate, expected)
        # One draw, by hand: the distortion falls on it, and its weight is p(x | z) p(z) / q(z | x).
        z = mu + (log_var / 2).exp() * randn(*mu.shape, generator=seeded(3))
        log_likelihood = model.log_likelihood(x, z, y)
        drawn = model.rate_distortion(x, y=y, generator=seeded(3))[1]
        torch.testing.assert_close(drawn, -log_likelihood)
        prior = Normal(torch.zeros_like(mu), 1.0).log_prob(z).sum(dim=1)
        weight = model.log_weights(x, 1, y=y, generator=seeded(3))
        expected = log_likelihood + prior - q.log_prob(z).sum(dim=1)
        torch.testing.assert_close(weight, expected[None])


@pytest.mark.parametrize("beta", [0.0, 0.5, 1, 4.0])
def test_beta_weights_the_rate_in_the_loss_alone(beta, generator):
    for model, x, y in cases(generator):
        model.beta = beta
        rate, distortion = model.rate_distortion(x, y=y, generator=seeded(1))
        loss = model.loss(x, y, generator=seeded(1))
        assert loss.shape == ()
        torch.testing.assert_close(loss, (distortion + beta * rate).mean())
        elbo = model.elbo(x, y=y, generator=seeded(1))
        torch.testing.assert_close(elbo, -distortion - rate)


def test_a_beta_given_at_the_start_is_that_of_the_loss():
    model = VAE((2,), 1, beta=3.0)
    x = torch.ones(4, 2)
    difference = model.loss(x, generator=seeded()) + model.elbo(x, generator=seeded()).mean()
    torch.testing.assert_close(difference, 2 * model.rate_distortion(x)[0].mean())


@pytest.mark.parametrize("n", [2, 5])
def test_with_importance_samples_the_loss_is_minus_that_bound(n, generator):
    model = small_vae(generator, n_classes=CLASSES, importance_samples=n)
    y = torch.arange(16) % CLASSES
    bound = model.log_weights(X, n, y=y, generator=seeded()).exp().mean(dim=0).log()
    torch.testing.assert_close(model.loss(X, y, generator=seeded()), -bound.mean())


@pytest.mark.parametrize("importance_samples", [1, 3])
def test_gradients_against_finite_differences(importance_samples, generator):
    """Of the loss with one fixed noise, along random directions."""
    for model, x, y in cases(generator):
        model.importance_samples = importance_samples
        parameters = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.loss(x, y, generator=seeded()).backward()
        for _ in range(3):
            step = {name: randn(*p.shape, generator=generator) for name, p in parameters.items()}
            h, losses = 1e-6, []
            for sign in (1, -1):
                moved = {name: p + sign * h * step[name] for name, p in parameters.items()}
                with torch.no_grad():
                    losses.append(
                        functional_call(Loss(model), moved_under(moved), (x, y, seeded()))
                    )
            slope = sum((p.grad * step[name]).sum() for name, p in model.named_parameters())
            assert slope.item() == pytest.approx(
                (losses[0] - losses[1]).item() / (2 * h), rel=1e-5, abs=1e-7
            )


class Loss(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y, noise):
        return self.model.loss(x, y, generator=noise)


def moved_under(parameters):
    return {f"model.{name}": p for name, p in parameters.items()}


def test_the_noise_is_learned(generator):
    """Where σ² is the mean squared distance from the decoded mean, the loss has no slope in it."""
    model = small_vae(generator, (3,), likelihood="gaussian")
    x = 2 * randn(50, 3, generator=generator)
    distortion = model.rate_distortion(x, generator=seeded())[1].mean()
    before = model.log_noise.item()
    squared = 2 * (distortion - 1.5 * (math.log(2 * math.pi) + before)) / 3 * math.exp(before)
    with torch.no_grad():
        model.log_noise.copy_(squared.log())
    loss = model.loss(x, generator=seeded())
    (slope,) = torch.autograd.grad(loss, model.log_noise)
    assert abs(slope) < 1e-9
    for away in (-0.1, 0.1):
        with torch.no_grad():
            model.log_noise.copy_(squared.log() + away)
            assert model.loss(x, generator=seeded()) > loss


def counts(x):
    places = 2 ** torch.arange(3, -1, -1)
    return torch.bincount((x.flatten(1).long() * places).sum(dim=1), minlength=16)


def assert_fits(x, p):
    """Counts of the 16 images against their probabilities: χ²."""
    assert scipy.stats.chisquare(counts(x), p * len(x), sum_check=False).pvalue > 1e-6


@torch.no_grad()
def test_samples_have_the_probabilities_of_the_integral(generator):
    model = small_vae(generator)
    x = model.sample(20_000, generator=generator)
    assert x.shape == (20_000, 1, 2, 2)
    assert_fits(x, exact_log_prob(model, X).exp())

    model = small_vae(generator, n_classes=CLASSES)
    each = torch.stack([exact_log_prob(model, X, labels(k, 16)).exp() for k in range(CLASSES)])
    y = torch.arange(20_000) % CLASSES
    x = model.sample(20_000, y=y, generator=generator)
    for k in range(CLASSES):
        assert_fits(x[y == k], each[k])
    x = model.sample(20_000, generator=generator)  # labels drawn uniformly
    assert_fits(x, each.mean(dim=0))
    assert scipy.stats.chisquare(counts(x), each[0] * 20_000, sum_check=False).pvalue < 1e-6


def test_real_samples_have_the_density_of_the_integral(generator):
    model = small_vae(generator, (1,), likelihood="gaussian")
    with torch.no_grad():
        model.log_noise.fill_(-0.7)
    x = model.sample(5000, generator=generator)
    assert x.dtype == torch.float64
    line = torch.linspace(-40, 40, 1601, dtype=torch.float64)
    density = exact_log_prob(model, line[:, None]).exp()
    cdf = torch.cumulative_trapezoid(density, line).numpy()
    assert cdf[-1] == pytest.approx(1, abs=1e-6)
    between = scipy.stats.kstest(x[:, 0].numpy(), lambda t: np.interp(t, line[1:].numpy(), cdf))
    assert between.pvalue > 1e-6


def test_the_generator_decides_every_draw(generator):
    for model, x, y in cases(generator):
        before = torch.random.get_rng_state()
        for draw in (
            lambda noise, model=model: model.sample(8, generator=noise),
            lambda noise, model=model: model.sample(8, mean=True, generator=noise),
            lambda noise, model=model, x=x, y=y: model.elbo(x, 2, y=y, generator=noise),
            lambda noise, model=model, x=x, y=y: model.log_weights(x, 2, y=y, generator=noise),
            lambda noise, model=model, x=x, y=y: model.importance_log_prob(
                x, 2, y=y, generator=noise
            ),
            lambda noise, model=model, x=x, y=y: model.loss(x, y, generator=noise),
        ):
            assert torch.equal(draw(seeded(1)), draw(seeded(1)))
            assert not torch.equal(draw(seeded(1)), draw(seeded(2)))
        assert torch.equal(before, torch.random.get_rng_state())


def test_a_mean_is_what_the_decoder_gives(generator):
    """With the same generator the sample falls around it: z is drawn first."""
    for model, x, y in cases(generator):
        mean = model.sample(16, y=y, mean=True, generator=seeded())
        assert mean.shape == x.shape
        assert not mean.requires_grad
        z = randn(16, model.latent_dim, generator=seeded())
        torch.testing.assert_close(mean, model.decode(z, y).detach())
        drawn = model.sample(20_000, generator=seeded())
        noise = drawn - model.sample(20_000, mean=True, generator=seeded())
        assert_mean(noise, torch.zeros_like(mean[0]))
        if model.likelihood == "gaussian":
            assert_mean(noise**2, model.log_noise.detach().exp().expand_as(mean[0]))


def test_it_learns(generator):
    """Two images, half each: -log p tends to log 2, from above; with labels to 0."""
    x = X[[5, 10]].float().repeat(32, 1, 1, 1)
    y = torch.tensor([0, 1]).repeat(32)
    for n_classes, least in [(None, math.log(2)), (2, 0.0)]:
        model = VAE((1, 2, 2), 1, hidden=(16,), n_classes=n_classes)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(120):
            optimizer.zero_grad()
            loss = model.loss(x, y if n_classes else None, generator=generator)
            loss.backward()
            optimizer.step()
        model.double()
        exact = exact_log_prob(model, x[:2].double(), y[:2] if n_classes else None)
        assert least - 1e-6 <= -exact.mean() < least + 0.4  # of 2.77 where nothing is known


BITS = torch.ones(5, 1, 2, 2)
Y = torch.zeros(5).long()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_shape": 4}, "data_shape must be a sequence of integers, got 4"),
        ({"data_shape": ()}, "data_shape must hold at least one size, got ()"),
        ({"data_shape": (2, 0)}, "data_shape[1] must be an integer of at least 1, got 0"),
        ({"latent_dim": 0}, "latent_dim must be an integer of at least 1, got 0"),
        ({"likelihood": "poisson"}, "likelihood must be one of bernoulli, gaussian, got 'poisson'"),
        ({"beta": -0.5}, "beta must be a finite number of at least 0.0, got -0.5"),
        ({"n_classes": 0}, "n_classes must be an integer of at least 1, got 0"),
        ({"hidden": (4, 0)}, "hidden[1] must be an integer of at least 1, got 0"),
        ({"hidden": 4}, "hidden must be a sequence of integers, got 4"),
        ({"importance_samples": 0}, "importance_samples must be an integer of at least 1, got 0"),
        (
            {"importance_samples": 2, "beta": 0.5},
            "beta must be 1 with more than one importance sample, got 0.5",
        ),
    ],
)
def test_bad_settings_are_named(changes, message):
    with refuses(message):
        VAE(**({"data_shape": (1, 2, 2), "latent_dim": 2} | changes))


def test_the_smallest_settings_pass():
    model = VAE((1,), 1, beta=0, n_classes=1, hidden=(1,))
    assert model.loss(torch.ones(1, 1), torch.zeros(1).long()).shape == ()
    model = VAE((2, 1), 3, hidden=(), importance_samples=2)
    assert model.sample(1).shape == (1, 2, 1)
    assert model.loss(model.sample(2)).shape == ()
    assert (model.beta, model.importance_samples, VAE((1,), 1).importance_samples) == (1, 2, 1)


def test_a_model_says_what_it_is():
    expected = "data_shape=(1, 2), latent_dim=3, likelihood='gaussian', beta=1.5, n_classes=4"
    model = VAE([1, 2], 3, likelihood="gaussian", beta=1.5, n_classes=4, hidden=())
    assert repr(model).splitlines()[1].strip() == expected


def methods(model, x, y):
    """Everything that takes data."""
    return [
        lambda: model.encode(x, y),
        lambda: model.rate_distortion(x, y=y),
        lambda: model.elbo(x, y=y),
        lambda: model.log_weights(x, 1, y=y),
        lambda: model.importance_log_prob(x, 1, y=y),
        lambda: model.loss(x, y),
        lambda: model.check_data(x, y),
    ]


WANTED = "y must be an int64 tensor [5] of classes from 0 to 2, got "


@pytest.mark.parametrize(
    ("options", "x", "y", "message"),
    [
        ({}, BITS[:, 0], None, "x must have shape [B, 1, 2, 2], got [5, 2, 2]"),
        ({}, BITS[:0], None, "x must have shape [B, 1, 2, 2], got [0, 1, 2, 2]"),
        ({}, BITS.long(), None, "x must be a floating-point tensor, got torch.int64"),
        ({}, BITS.double(), None, "x must be torch.float32 like the model, got torch.float64"),
        ({}, BITS / 0, None, "x must be finite, got NaN or infinite values"),
        ({}, BITS / 2, None, "x must hold zeros and ones, got 0.5"),
        ({}, -BITS, None, "x must hold zeros and ones, got -1.0"),
        ({"importance_samples": 2}, BITS * 2, None, "x must hold zeros and ones, got 2.0"),
        ({}, BITS, Y, f"y must be None for a model without classes, got {Y!r}"),
        ({"n_classes": 3}, BITS, None, WANTED + "None"),
        ({"n_classes": 3}, BITS, Y[:4], WANTED + "torch.int64 [4]"),
        ({"n_classes": 3}, BITS, Y.int(), WANTED + "torch.int32 [5]"),
        ({"n_classes": 3}, BITS, Y + 3, WANTED + "3"),
        ({"likelihood": "gaussian", "n_classes": 3}, BITS / 2, Y - 1, WANTED + "-1"),
    ],
)
def test_bad_data_are_named(options, x, y, message):
    for method in methods(VAE((1, 2, 2), 2, hidden=(4,), **options), x, y):
        with refuses(message):
            method()


def test_real_numbers_pass_where_they_may():
    model = VAE((1, 2, 2), 2, hidden=(4,), likelihood="gaussian")
    for method in methods(model, -3.5 * BITS, None):
        method()


def test_bad_latents_counts_and_generators_are_named():
    model = VAE((1, 2, 2), 2, hidden=(4,), n_classes=3)
    z = torch.zeros(5, 2)
    with refuses("z must have shape [B, 2], got [5, 1]"):
        model.decode(z[:, :1], Y)
    with refuses("z must be torch.float32 like the model, got torch.float64"):
        model.decode(z.double(), Y)
    with refuses(WANTED + "None"):
        model.decode(z)
    with refuses(WANTED + "torch.int64 [4]"):
        model.sample(5, y=Y[:4])
    with refuses("n must be an integer of at least 1, got 0"):
        model.sample(0)
    with refuses("mean must be True or False, got 1"):
        model.sample(5, mean=1)
    with refuses("generator must be a torch.Generator or None, got 7"):
        model.sample(5, generator=7)
    for method in (model.rate_distortion, model.elbo, model.log_weights, model.importance_log_prob):
        with refuses("n_samples must be an integer of at least 1, got 0"):
            method(BITS, 0, y=Y)
        with refuses("generator must be a torch.Generator or None, got 7"):
            method(BITS, 1, y=Y, generator=7)
    plain = VAE((1, 2, 2), 2, hidden=(4,))
    with refuses(f"y must be None for a model without classes, got {Y!r}"):
        plain.sample(5, y=Y)
    with refuses(f"y must be None for a model without classes, got {Y!r}"):
        plain.decode(z, Y)


def test_log_likelihood_names_a_wrong_argument():
    model = VAE((3,), 2)
    x, z = torch.ones(4, 3), torch.zeros(5, 4, 2)
    assert model.log_likelihood(x, z).shape == (5, 4)
    with refuses("x must hold zeros and ones, got 0.5"):
        model.log_likelihood(x / 2, z)
    with refuses("z must have shape [..., 4, 2], got [5, 4, 3]"):
        model.log_likelihood(x, torch.zeros(5, 4, 3))
    with refuses("z must have shape [..., 4, 2], got [4, 1, 2]"):
        model.log_likelihood(x, torch.zeros(4, 1, 2))
    with refuses("z must be finite, got NaN or infinite values"):
        model.log_likelihood(x, z / 0)
    with refuses("y must be None for a model without classes, got tensor([0])"):
        model.log_likelihood(x[:1], z[:, :1], torch.tensor([0]))
