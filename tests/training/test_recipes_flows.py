"""Chapter 04's recipes and the checkpoints that came out of them."""

from pathlib import Path

import pytest
import torch

from course_lib.data import load_digits, load_mnist, quantize
from course_lib.flows import NICE, Standardize
from course_lib.training import checkpoint_folder, load_card, load_pretrained, recipe
from course_lib.training.recipes_flows import (
    digits_batch,
    image_log_likelihood,
    mnist_batch,
    toy_log_likelihood,
)

NAMES = ["nice_two_moons", "nice_pinwheel", "nice_digits", "nice_mnist"]
LIKELIHOOD = "test log-likelihood (nats)"
MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_its_checkpoint(name):
    card, model = load_card(name), load_pretrained(name)
    assert isinstance(model, NICE)
    assert card["command"] == f"python -m course_lib train {name}"
    assert card["steps"] == recipe(name).options["steps"], "trained by the recipe as it stands"
    assert not model.training
    assert (checkpoint_folder() / f"{name}.safetensors").stat().st_size <= 4_000_000


def test_all_checkpoints_together_are_small():
    files = checkpoint_folder().glob("*.safetensors")
    assert sum(file.stat().st_size for file in files) <= 40_000_000


@pytest.mark.parametrize("toy", ["two_moons", "pinwheel"])
def test_the_toys_cards_say_what_the_models_do(toy):
    measured = toy_log_likelihood(load_pretrained(f"nice_{toy}"), toy)[LIKELIHOOD]
    assert measured == pytest.approx(load_card(f"nice_{toy}")["metrics"][LIKELIHOOD], abs=0.002)


def test_the_digits_card_says_what_the_model_does():
    measured = recipe("nice_digits").evaluate(load_pretrained("nice_digits"))
    stored = load_card("nice_digits")["metrics"]
    assert measured.keys() == stored.keys()
    assert all(measured[key] == pytest.approx(stored[key], abs=0.02) for key in stored)


def test_the_mnist_card_says_what_the_model_does(monkeypatch):
    if not MNIST.is_dir():
        pytest.skip("needs the MNIST files in ../shared/data/mnist")
    monkeypatch.setenv("COURSE_DATA", str(MNIST))
    images, _ = load_mnist("test")
    model = load_pretrained("nice_mnist")
    measured = image_log_likelihood(model, images[::5], 256)
    stored = load_card("nice_mnist")["metrics"][LIKELIHOOD]
    assert abs(measured[LIKELIHOOD] - stored) < 4 * measured["standard error (nats)"]


def test_where_the_nats_of_mnist_come_from(monkeypatch):
    """The chapter's sentence: 1,887 nats from 441 pixels that are nearly always black."""
    if not MNIST.is_dir():
        pytest.skip("needs the MNIST files in ../shared/data/mnist")
    monkeypatch.setenv("COURSE_DATA", str(MNIST))
    lit = (load_mnist("train")[0].flatten(1) > 0).float().mean(dim=0)
    black, busy = lit <= 0.1, lit > 0.5
    assert (int(black.sum()), int(busy.sum())) == (441, 140)

    x = mnist_batch(load_mnist("test")[0].flatten(1), torch.Generator().manual_seed(0))
    model = load_pretrained("nice_mnist")
    standardize, *_, scaling = model.transforms
    with torch.no_grad():
        z = model(x)[0]
        # The logistic log-density of each latent, and what its coordinate adds to the log-det.
        nats = torch.nn.functional.logsigmoid(z) + torch.nn.functional.logsigmoid(-z)
        nats = nats.mean(dim=0) + scaling.log_scale - standardize.std.log()
        assert nats.sum().item() == pytest.approx(model.log_prob(x).mean().item(), abs=0.05)
    assert nats.sum().item() == pytest.approx(2173, abs=2)
    assert nats[black].sum().item() == pytest.approx(1887, abs=2)
    assert nats[busy].sum().item() == pytest.approx(48, abs=1)


def test_digits_are_better_than_without_a_network():
    """The chapter's claim: far above a full-covariance Gaussian, 52 nats on the same images."""
    assert load_card("nice_digits")["metrics"][LIKELIHOOD] > 70


def test_a_batch_of_digits_is_partly_jittered():
    x = load_digits("train")[0].flatten(1)
    y = digits_batch(x, torch.Generator().manual_seed(0))
    assert y.shape == x.shape
    assert y.min() >= 0
    assert y.max() < 1
    as_it_is = torch.isclose(quantize(y, 17), x).all(dim=1).float().mean()
    assert 0.25 < as_it_is < 0.36
    assert torch.equal(y, digits_batch(x, torch.Generator().manual_seed(0)))


def test_a_batch_of_mnist_is_dequantized():
    x = torch.randint(0, 256, (20, 784), generator=torch.Generator().manual_seed(0)) / 255
    y = mnist_batch(x, torch.Generator().manual_seed(0))
    torch.testing.assert_close(quantize(y, 256), x)


def test_likelihoods_are_means_over_the_noise():
    """A flow whose density is constant on [0, 1)^n gives 0 nats, and log2(levels) bits."""

    class Uniform:
        def log_prob(self, x):
            assert x.min() >= 0
            assert x.max() < 1
            return torch.zeros(len(x))

    measured = image_log_likelihood(Uniform(), load_digits("test")[0], 17)
    assert measured[LIKELIHOOD] == 0
    assert measured["standard error (nats)"] == 0
    assert measured["bits per dimension"] == pytest.approx(4.0875, abs=1e-3)


def test_prepare_measures_the_data():
    nice = recipe("nice_digits")
    model, x = nice.new_model(), nice.load()
    nice.prepare(model, x)
    assert isinstance(model.transforms[0], Standardize)
    torch.testing.assert_close(model.transforms[0].mean, x.mean(0), rtol=0, atol=0.03)
