"""The GAN: each network gets the gradient of its own loss, and the critic learns log p / q."""

import pytest
import torch
from torch.nn import functional as F

from course_lib.latent import GAN
from course_lib.nn import MLP
from tests.latent.conftest import assert_mean, randn, randomize, refuses, seeded


def gan(generator, dim=2, latent_dim=3, hidden=(7,)):
    return randomize(GAN(dim, latent_dim, hidden=hidden).double(), generator)


def gradients(network):
    return {name: p.grad.clone() for name, p in network.named_parameters()}


def both_losses(model, x, seed):
    """The critic's and the generator's, each written down for itself with cross-entropies."""
    z = randn(len(x), model.latent_dim, generator=seeded(seed))
    fake = model.decode(z)
    of_data, of_fakes = model.log_ratio(x), model.log_ratio(fake)
    entropy = F.binary_cross_entropy_with_logits
    ones = torch.ones(len(x)).double()
    return entropy(of_data, ones) + entropy(of_fakes, 0 * ones), entropy(of_fakes, ones)


def test_each_network_gets_the_gradient_of_its_own_loss(generator):
    model = gan(generator)
    x = randn(20, 2, generator=generator)
    model.loss(x, generator=seeded(1)).backward()
    of_critic, of_generator = gradients(model.critic), gradients(model.net)

    for network, own, mine in [
        (model.critic, of_critic, 0),
        (model.net, of_generator, 1),
    ]:
        model.zero_grad()
        both_losses(model, x, seed=1)[mine].backward()
        for name, expected in gradients(network).items():
            torch.testing.assert_close(own[name], expected)
            assert expected.any()


def test_the_loss_is_the_sum_of_both(generator):
    model = gan(generator)
    x = randn(20, 2, generator=generator)
    loss = model.loss(x, generator=seeded(1))
    assert loss.shape == ()
    torch.testing.assert_close(loss, sum(both_losses(model, x, seed=1)))


def test_a_sure_critic_leaves_a_gradient_to_the_generator(generator):
    """The non-saturating loss: where D(g(z)) is far below 0, its slope is -1."""
    model = gan(generator)
    with torch.no_grad():
        model.critic.layers[-1].bias.fill_(-500.0)
    loss = model.loss(randn(20, 2, generator=generator), generator=seeded())
    assert loss.isfinite()
    loss.backward()
    z = randn(20, 3, generator=seeded())
    through = gradients(model.net)
    model.zero_grad()
    (-model.log_ratio(model.decode(z))).mean().backward()
    for name, expected in gradients(model.net).items():
        torch.testing.assert_close(through[name], expected)


def test_a_trained_critic_is_the_log_ratio_of_the_densities(generator):
    """N(1, 1) against g(z) = z / 2: log p/q is a parabola, which a small network comes close to."""
    model = GAN(1, 1, hidden=(16,)).double()
    model.net = MLP(1, (), 1).double()
    with torch.no_grad():
        model.net.layers[0].weight.fill_(0.5)
        model.net.layers[0].bias.zero_()
    optimizer = torch.optim.Adam(model.critic.parameters(), lr=0.03)
    for _ in range(200):
        x = 1 + randn(1000, 1, generator=generator)
        optimizer.zero_grad()
        model.loss(x, generator=generator).backward()
        optimizer.step()
    x = torch.linspace(-0.8, 1.2, 21).double()[:, None]
    p, q = torch.distributions.Normal(1.0, 1.0), torch.distributions.Normal(0.0, 0.5)
    exact = (p.log_prob(x) - q.log_prob(x))[:, 0]
    assert exact.max() - exact.min() > 2
    assert (model.log_ratio(x) - exact).abs().max() < 0.4


def test_a_linear_critic_is_exact_for_equal_variances(generator):
    """N(1, 1) against N(0, 1): log p/q = x - 1/2. Newton's method on a convex loss."""
    model = GAN(1, 1, hidden=()).double()
    with torch.no_grad():
        model.net.layers[0].weight.fill_(1.0)
        model.net.layers[0].bias.zero_()
    x = 1 + randn(20_000, 1, generator=generator)
    optimizer = torch.optim.LBFGS(model.critic.parameters(), max_iter=30)

    def closure():
        optimizer.zero_grad()
        loss = model.loss(x, generator=seeded(1))
        (critic_loss, _) = both_losses(model, x, seed=1)
        loss.backward()
        return critic_loss

    optimizer.step(closure)
    points = torch.tensor([[-1.0], [0.5], [2.0]]).double()
    expected = torch.tensor([-1.5, 0.0, 1.5]).double()
    torch.testing.assert_close(model.log_ratio(points).detach(), expected, rtol=0, atol=0.1)


def test_samples_are_the_generator_on_gaussian_noise(generator):
    model = gan(generator, hidden=())
    x = model.sample(50_000, generator=generator)
    assert x.shape == (50_000, 2)
    assert not x.requires_grad
    layer = model.net.layers[0]
    W, b = layer.weight.detach(), layer.bias.detach()
    assert_mean(x, b)
    assert_mean((x - b)[:, :, None] * (x - b)[:, None], W @ W.T)


def test_the_generator_decides(generator):
    model = gan(generator)
    x = randn(5, 2, generator=generator)
    before = torch.random.get_rng_state()
    for draw in (
        lambda noise: model.sample(5, generator=noise),
        lambda noise: model.loss(x, generator=noise),
    ):
        assert torch.equal(draw(seeded(1)), draw(seeded(1)))
        assert not torch.equal(draw(seeded(1)), draw(seeded(2)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_shapes_and_widths():
    model = GAN(3)
    assert (model.dim, model.latent_dim) == (3, 2)
    widths = [
        [(layer.in_features, layer.out_features) for layer in net.layers[::2]]
        for net in (model.net, model.critic)
    ]
    assert widths == [[(2, 128), (128, 128), (128, 3)], [(3, 128), (128, 128), (128, 1)]]
    assert model.decode(torch.zeros(4, 2)).shape == (4, 3)
    assert model.log_ratio(torch.zeros(4, 3)).shape == (4,)
    assert model.sample(1).dtype == torch.float32
    assert model.double().sample(2).dtype == torch.float64
    assert GAN(1, 1, hidden=(1,)).loss(torch.zeros(1, 1)).isfinite()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "dim must be an integer of at least 1, got 0"),
        ({"latent_dim": 0}, "latent_dim must be an integer of at least 1, got 0"),
        ({"hidden": (3, 0)}, "hidden[1] must be an integer of at least 1, got 0"),
        ({"hidden": 3}, "hidden must be a sequence of integers, got 3"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with refuses(message):
        GAN(**({"dim": 2} | changes))


X = torch.zeros(5, 2)


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (X[0], "have shape [B, 2], got [2]"),
        (X[:, :1], "have shape [B, 2], got [5, 1]"),
        (X[:0], "have shape [B, 2], got [0, 2]"),
        (X.double(), "be torch.float32 like the model, got torch.float64"),
        (X.long(), "be a floating-point tensor, got torch.int64"),
        (X / 0, "be finite, got NaN or infinite values"),
    ],
)
def test_bad_points_are_named(x, got):
    model = GAN(2)
    for name, method in [("x", model.loss), ("x", model.log_ratio), ("z", model.decode)]:
        with refuses(f"{name} must {got}"):
            method(x)


def test_bad_counts_and_generators_are_named():
    model = GAN(2)
    with refuses("n must be an integer of at least 1, got 0"):
        model.sample(0)
    for method in (lambda **o: model.sample(3, **o), lambda **o: model.loss(X, **o)):
        with refuses("generator must be a torch.Generator or None, got 3"):
            method(generator=3)
