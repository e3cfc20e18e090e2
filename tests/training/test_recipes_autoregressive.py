"""Chapter 01's recipes and the checkpoints that came out of them."""

from pathlib import Path

import pytest
import torch

from course_lib.autoregressive import FVSBN, MADE, NADE, NaivePixelCNN, PixelCNN
from course_lib.data import load_digits
from course_lib.metrics import bits_per_dim
from course_lib.training import checkpoint_folder, load_card, load_pretrained, recipe
from course_lib.training.recipes_autoregressive import (
    binary_digits,
    binary_mnist,
    grey_digits,
    logistic_regression_accuracy,
)

MODELS = {
    "fvsbn_digits": FVSBN,
    "nade_digits": NADE,
    "made_digits": MADE,
    "naive_pixelcnn_digits": NaivePixelCNN,
    "pixelcnn_digits": PixelCNN,
    "pixelcnn_digits_grey": PixelCNN,
    "fvsbn_mnist": FVSBN,
    "nade_mnist": NADE,
    "made_mnist": MADE,
    "pixelcnn_mnist": PixelCNN,
}
ON_DIGITS = [name for name in MODELS if "digits" in name]
NATS, ERROR = "test negative log-likelihood (nats)", "standard error (nats)"
MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def mnist(monkeypatch):
    if not MNIST.is_dir():
        pytest.skip("needs the MNIST files in ../shared/data/mnist")
    monkeypatch.setenv("COURSE_DATA", str(MNIST))


@pytest.mark.parametrize("name", MODELS)
def test_every_recipe_has_its_checkpoint(name):
    card, model = load_card(name), load_pretrained(name)
    assert type(model) is MODELS[name]
    assert card["command"] == f"python -m course_lib train {name}"
    assert card["steps"] == recipe(name).options["steps"], "trained by the recipe as it stands"
    assert not model.training
    assert (checkpoint_folder() / f"{name}.safetensors").stat().st_size <= 4_000_000


@pytest.mark.parametrize("name", ON_DIGITS)
def test_the_digits_cards_say_what_the_models_do(name):
    measured, stored = recipe(name).evaluate(load_pretrained(name)), load_card(name)["metrics"]
    assert measured.keys() == stored.keys()
    assert all(measured[key] == pytest.approx(stored[key], abs=0.02) for key in stored)


@pytest.mark.parametrize("name", ["fvsbn_mnist", "nade_mnist", "made_mnist", "pixelcnn_mnist"])
def test_the_mnist_cards_say_what_the_models_do(name, mnist):
    """On every fifth image or, where one costs ten passes, on every hundredth."""
    model = load_pretrained(name)
    x = binary_mnist("test")[0][:: 100 if name == "pixelcnn_mnist" else 20]
    with torch.no_grad():
        nats = -model.log_prob(x if name == "pixelcnn_mnist" else x.flatten(1))
    error = nats.std().item() / len(nats) ** 0.5
    assert abs(nats.mean().item() - load_card(name)["metrics"][NATS]) < 4 * error


def test_what_the_chapter_says_of_the_table():
    nats = {name: load_card(name)["metrics"][NATS] for name in MODELS}
    assert nats["made_mnist"] <= 90
    assert nats["pixelcnn_mnist"] < nats["made_mnist"] < nats["fvsbn_mnist"]
    assert nats["nade_mnist"] < nats["fvsbn_mnist"]
    assert nats["pixelcnn_digits"] < nats["naive_pixelcnn_digits"] < nats["fvsbn_digits"]
    joint = load_card("pixelcnn_mnist")["metrics"]
    assert joint["accuracy as a classifier"] > joint["accuracy of logistic regression"]


def test_grey_digits_have_probabilities_and_so_exact_bits():
    """Bits are nats over ln 2 here: nothing is dequantized."""
    metrics = load_card("pixelcnn_digits_grey")["metrics"]
    exact = metrics[NATS] / (64 * torch.tensor(2.0).log().item())
    assert metrics["bits per dimension"] == pytest.approx(exact, rel=1e-5)
    assert bits_per_dim(0.0, 64, 17) == pytest.approx(4.0875, abs=1e-4)  # the uniform density


def test_test_images_are_what_the_cards_say(mnist):
    images, labels = load_digits("test")
    assert torch.equal(binary_digits("test")[0], (images > 0.5).float())
    assert torch.equal(grey_digits("test")[0] / 16, images)
    assert torch.equal(binary_digits("test")[1], labels)
    drawn, _ = binary_mnist("test")
    assert drawn.shape == (10_000, 1, 28, 28)
    assert torch.equal(drawn, binary_mnist("test")[0])  # the same draw each time
    assert drawn.mean() == pytest.approx(0.1325, abs=1e-3)


def test_logistic_regression_is_measured_on_the_test_images():
    """Two classes that a straight border separates, with a tenth of the test labels wrong."""
    x = torch.rand(200, 1, 2, 2, generator=seeded(0))
    y = (x[:, 0, 0, 0] > 0.5).long()
    x[:, 0, 0, 0] += 4 * y
    wrong = y.clone()
    wrong[:20] = 1 - wrong[:20]
    assert logistic_regression_accuracy((x, y), (x, wrong)) == pytest.approx(0.9)
