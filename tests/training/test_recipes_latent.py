"""Chapters 02 and 03's recipes, and the numbers that are measured on what comes out of them."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from course_lib.autoregressive import PixelCNN
from course_lib.data import load_digits, load_mnist, toy
from course_lib.latent import GAN, VAE, VQVAE, LinearVAE
from course_lib.training import (
    RECIPES,
    checkpoint_folder,
    load_card,
    load_pretrained,
    recipe,
    recipes_latent,
)
from course_lib.training.recipes_autoregressive import binary_mnist
from course_lib.training.recipes_latent import (
    BETAS,
    CODES,
    beta_name,
    code_maps,
    digits_code_maps,
    mode_metrics,
    prior_metrics,
    vae_metrics,
    vqvae_metrics,
)
from tests.latent.conftest import exact_log_prob, randomize, small_vae

ON_DIGITS = {"vae_digits": VAE}
ON_DIGITS |= {beta_name(beta): VAE for beta in BETAS}
ON_DIGITS |= {f"vqvae_digits_{n_codes}": VQVAE for n_codes in CODES}
ON_MNIST = {name: VAE for name in ("vae_mnist", "iwae_mnist", "vae_mnist_plane", "cvae_mnist")}
ON_MNIST |= {f"vqvae_mnist_{n_codes}": VQVAE for n_codes in CODES}
ON_TOYS = {"gan_eight_gaussians": GAN, "vae_eight_gaussians": VAE}
PRIORS = {"prior_digits": PixelCNN, "prior_mnist": PixelCNN}
KINDS = ON_DIGITS | ON_MNIST | ON_TOYS | PRIORS
NATS = "test negative log-likelihood, {} samples (nats)"
MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def mnist(monkeypatch):
    if not MNIST.is_dir():
        pytest.skip("needs the MNIST files in ../shared/data/mnist")
    monkeypatch.setenv("COURSE_DATA", str(MNIST))


def metrics(name):
    return load_card(name)["metrics"]


@pytest.mark.parametrize("name", KINDS)
def test_every_recipe_has_its_checkpoint(name):
    card, model = load_card(name), load_pretrained(name)
    assert type(model) is KINDS[name]
    assert card["command"] == f"python -m course_lib train {name}"
    assert card["steps"] == recipe(name).options["steps"], "trained by the recipe as it stands"
    assert not model.training
    assert (checkpoint_folder() / f"{name}.safetensors").stat().st_size <= 4_000_000


@pytest.mark.parametrize("name", [*ON_DIGITS, *ON_TOYS, "prior_digits"])
def test_the_cards_say_what_the_models_do(name):
    measured, stored = recipe(name).evaluate(load_pretrained(name)), metrics(name)
    assert measured == pytest.approx(stored, rel=5e-3, abs=2e-4)


@pytest.mark.parametrize("name", ["vae_mnist", "iwae_mnist", "vae_mnist_plane", "cvae_mnist"])
def test_the_mnist_cards_say_what_the_vaes_do(name, mnist):
    """On every two-hundredth image, with as many draws as the card says."""
    images, labels = binary_mnist("test")
    model = load_pretrained(name)
    y = labels[::200] if model.n_classes else None
    n_samples = 200 if NATS.format(200) in metrics(name) else 1000
    measured = vae_metrics(model, images[::200], y, n_samples=n_samples)
    away = measured[NATS.format(n_samples)] - metrics(name)[NATS.format(n_samples)]
    assert abs(away) < 4 * measured["standard error (nats)"]
    assert measured["rate (nats)"] == pytest.approx(metrics(name)["rate (nats)"], rel=0.1)


@pytest.mark.parametrize("n_codes", CODES)
def test_the_mnist_cards_say_what_the_vq_vaes_do(n_codes, mnist):
    name = f"vqvae_mnist_{n_codes}"
    measured = vqvae_metrics(load_pretrained(name), load_mnist("test")[0][::20])
    for key in ("test mean squared error of a pixel", "perplexity"):
        assert measured[key] == pytest.approx(metrics(name)[key], rel=0.05)


def test_the_mnist_card_says_what_the_prior_does(mnist):
    images, labels = load_mnist("test")
    codes = code_maps("vqvae_mnist_64", images[::40])
    measured = prior_metrics(load_pretrained("prior_mnist"), codes, labels[::40])
    stored = metrics("prior_mnist")
    away = measured["bits in the code map"] - stored["bits in the code map"]
    assert abs(away) < 4 * measured["standard error (bits)"]
    assert abs(measured["accuracy as a classifier"] - stored["accuracy as a classifier"]) < 0.04


def test_what_the_chapters_show():
    """Rate against distortion, collapse, and the error that falls with the codes."""
    by_beta = [metrics(beta_name(beta)) for beta in BETAS]
    for low, high in pairwise(by_beta):
        assert low["rate (nats)"] > high["rate (nats)"]
        assert low["distortion (nats)"] < high["distortion (nats)"]
    assert by_beta[-1]["active units"] == 0
    best = min(by_beta, key=lambda measured: measured["test negative ELBO (nats)"])
    assert best is by_beta[BETAS.index(1.0)], "the bound itself is the best aim"
    for data in ("digits", "mnist"):
        cards = [metrics(f"vqvae_{data}_{n_codes}") for n_codes in CODES]
        for fewer, more in pairwise(cards):
            for key in ("perplexity", "codes in use", "bits in the code map, at most"):
                assert fewer[key] < more[key]
            error = "test mean squared error of a pixel"
            assert fewer[error] > more[error]
        prior = recipe(f"prior_{data}").new_model().levels
        most = metrics(f"vqvae_{data}_{prior}")["bits in the code map, at most"]
        assert metrics(f"prior_{data}")["bits in the code map"] < 0.6 * most
    reached = {name: metrics(name)["modes reached"] for name in ON_TOYS}
    assert reached["gan_eight_gaussians"] < reached["vae_eight_gaussians"] == 8


def test_what_chapter_02_says_of_its_table():
    """A nat or so behind Burda et al. 2016, table 1; the better model has the worse ELBO."""
    nats, elbo = NATS.format(1000), "test negative ELBO (nats)"
    vae, iwae = metrics("vae_mnist"), metrics("iwae_mnist")
    assert round(vae[nats] - 86.76) == round(iwae[nats] - 85.54) == 1
    assert iwae[nats] < vae[nats]
    assert iwae[elbo] > vae[elbo]
    assert iwae["active units"] > vae["active units"]
    made, pixelcnn = (
        metrics(name)["test negative log-likelihood (nats)"]
        for name in ("made_mnist", "pixelcnn_mnist")
    )
    assert abs(made - vae[nats]) < 2
    assert abs(made - iwae[nats]) < 2
    assert pixelcnn < iwae[nats] - 3


def test_every_recipe_builds_what_it_says():
    for name, kind in KINDS.items():
        assert type(recipe(name).new_model()) is kind, name
    of_these = {
        name for name in RECIPES if name.startswith(("vae", "iwae", "cvae", "vqvae", "gan"))
    }
    assert of_these <= KINDS.keys()
    for beta in BETAS:
        assert recipe(beta_name(beta)).new_model().beta == beta
    assert beta_name(0.3) == "vae_digits_beta_0_3"
    assert beta_name(1.0) == "vae_digits_beta_1"
    for n_codes in CODES:
        for data in ("digits", "mnist"):
            assert recipe(f"vqvae_{data}_{n_codes}").new_model().quantizer.n_codes == n_codes
    assert recipe("iwae_mnist").new_model().importance_samples == 5
    assert recipe("cvae_mnist").new_model().n_classes == 10


@pytest.mark.parametrize("name", ON_DIGITS | ON_TOYS)
def test_a_first_step_can_be_taken(name):
    """The data and their noise are what the model takes; every parameter gets a gradient."""
    made = recipe(name)
    model, x = made.new_model().train(), made.load()[:32]
    if made.transform is not None:
        x = made.transform(x, seeded())
    loss = model.loss(x, generator=seeded())
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("vqvae", "prior"), [(f"vqvae_{data}", f"prior_{data}") for data in ("digits", "mnist")]
)
def test_the_priors_fit_the_codes(vqvae, prior):
    model = recipe(prior).new_model()
    codes = recipe(f"{vqvae}_{model.levels}").new_model()
    assert codes.code_shape == model.size
    assert f"{vqvae}_{model.levels}" in recipe(prior).summary
    assert model.n_classes == 10


def test_vae_metrics_are_right_where_all_is_known():
    """A linear VAE with the true posterior: every importance weight is p(x)."""
    spread = torch.tensor([3.0, 2.0, 1.0, 0.3, 0.3, 0.3]).double()
    x = spread * torch.randn(250, 6, generator=seeded(), dtype=torch.float64)
    model = LinearVAE.ppca(x, 4)
    with torch.no_grad():
        model.decoder.layers[0].weight[:, 3] = 0
    model.encode_exactly()
    log_prob = model.log_prob(x).detach()
    measured = vae_metrics(model, x, n_samples=7)
    assert measured[NATS.format(7)] == pytest.approx(-log_prob.mean().item())
    error = log_prob.std().item() / 250**0.5
    assert measured["standard error (nats)"] == pytest.approx(error)
    assert measured["test negative ELBO (nats)"] == pytest.approx(-log_prob.mean().item(), abs=0.1)
    parts = measured["rate (nats)"] + measured["distortion (nats)"]
    assert parts == pytest.approx(measured["test negative ELBO (nats)"])
    mu, log_var = model.encode(x)
    rate = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum(dim=1).mean()
    assert measured["rate (nats)"] == pytest.approx(rate.item())
    assert measured["active units"] == 3
    assert measured == vae_metrics(model, x, n_samples=7), "the same noise each time"


def test_vae_metrics_are_given_the_label():
    """Each image its own, also beyond the first hundred."""
    model = small_vae(seeded(), n_classes=3)
    x = torch.randint(2, (130, 1, 2, 2), generator=seeded()).double()
    y = torch.randint(3, (130,), generator=seeded())
    exact = exact_log_prob(model, x, y).mean().item()
    wrong = exact_log_prob(model, x, (y + 1) % 3).mean().item()
    assert abs(exact - wrong) > 0.1
    measured = vae_metrics(model, x, y, n_samples=300)
    assert measured[NATS.format(300)] == pytest.approx(-exact, abs=0.03)


class Points(torch.nn.Module):
    """A model whose samples are given."""

    def __init__(self, x):
        super().__init__()
        self.x = x

    def sample(self, n, *, generator):
        assert len(self.x) == n
        assert generator.initial_seed() == 0
        return self.x


def test_modes_are_counted():
    """At (2, 0), (0, 2) and (-2, 0) 500, 25 and 24 points; the others in between."""
    x = torch.full((2000, 2), 10.0)
    x[:500], x[500:525], x[525:549] = (
        torch.tensor(centre) for centre in ([2.0, 0.59], [0.0, 2.0], [-2.0, 0.0])
    )
    measured = mode_metrics(Points(x))
    assert measured["modes reached"] == 2
    assert measured["share of samples in a mode"] == pytest.approx(549 / 2000)
    x[:500] = torch.tensor([2.0, 0.61])
    assert mode_metrics(Points(x))["modes reached"] == 1


def test_the_data_themselves_are_in_the_modes():
    measured = mode_metrics(Points(toy("eight_gaussians", 2000, generator=seeded())))
    assert measured["modes reached"] == 8
    inside = 1 - math.exp(-(3**2) / 2)  # 98.9 % of a Gaussian in the plane
    assert measured["share of samples in a mode"] == pytest.approx(inside, abs=0.01)


def test_vqvae_metrics():
    model = VQVAE((1, 4, 4), 6, 2, channels=4).eval()
    randomize(model, seeded())
    x = torch.rand(510, 1, 4, 4, generator=seeded())
    with torch.no_grad():
        model.quantizer.codebook.copy_(model.encoder(x)[[0, 0, 7, 100, 505, 8], :, 0, 0])
    decoded, codes, _, used = model(x)
    measured = vqvae_metrics(model, x)
    error = ((decoded - x) ** 2).mean().item()
    assert measured["test mean squared error of a pixel"] == pytest.approx(error, rel=1e-5)
    assert measured["perplexity"] == pytest.approx(used.item())
    assert measured["codes in use"] == len(set(codes.flatten().tolist())) == 5
    assert measured["bits in the code map, at most"] == pytest.approx(math.log2(6))


def test_prior_metrics():
    prior = PixelCNN(4, 2, levels=5, n_classes=3, size=(2, 2)).double()
    randomize(prior, seeded())
    codes = torch.randint(5, (230, 1, 2, 2), generator=seeded()).double()
    y = torch.randint(3, (230,), generator=seeded())
    bits = -prior.log_prob(codes).detach() / math.log(2)
    measured = prior_metrics(prior, codes, y)
    assert measured["bits in the code map"] == pytest.approx(bits.mean().item())
    assert measured["standard error (bits)"] == pytest.approx(bits.std().item() / 230**0.5)
    likelihoods = torch.stack([prior.log_prob(codes, torch.full((230,), k)) for k in range(3)])
    right = (likelihoods.argmax(dim=0) == y).float().mean().item()
    assert measured["accuracy as a classifier"] == pytest.approx(right)


def test_code_maps_are_the_codes_of_the_stored_model(monkeypatch):
    model = VQVAE((1, 8, 8), 32, 3, channels=4, downsamplings=1).eval()
    randomize(model, seeded())
    asked = []

    def load(name):
        asked.append(name)
        return model

    monkeypatch.setattr(recipes_latent, "load_pretrained", load)
    images, labels = load_digits("train")
    codes = code_maps("some", images[:510])
    assert asked == ["some"]
    assert codes.shape == (510, 1, 4, 4)
    assert codes.dtype == torch.float32
    assert torch.equal(codes[:, 0].long(), model.encode(images[:510]))
    # Twice every digit, jittered: three in ten are as they were.
    codes, y = digits_code_maps("some", copies=2)
    assert torch.equal(y, torch.cat([labels, labels]))
    assert codes.shape == (2 * len(images), 1, 4, 4)
    same = (codes.reshape(2, -1, 16) == code_maps("some", images).reshape(-1, 16)).all(dim=2)
    assert (same.float().mean(dim=1) > 0.25).all()
    assert not same.all()
    assert torch.equal(codes, digits_code_maps("some", copies=2)[0])
