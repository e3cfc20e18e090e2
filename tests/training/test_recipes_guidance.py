"""The recipes of chapter 11's classifiers, and the checkpoints that came out of them."""

from itertools import pairwise

import pytest
import torch

from course_lib.data import load_digits, to_signed
from course_lib.diffusion import NoisedClassifier, class_gradient
from course_lib.training import (
    checkpoint_folder,
    load_card,
    load_pretrained,
    recipe,
    recipes_guidance,
)
from course_lib.training.recipes_guidance import SIGMAS, accuracy_metrics

NAMES = ["classifier_noised_digits", "classifier_noised_mnist"]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_its_checkpoint(name):
    card, model = load_card(name), load_pretrained(name)
    assert isinstance(model, NoisedClassifier)
    assert card["command"] == f"python -m course_lib train {name}"
    assert card["steps"] == recipe(name).options["steps"], "trained by the recipe as it stands"
    assert card["summary"] == recipe(name).summary
    assert not model.training
    assert (checkpoint_folder() / f"{name}.safetensors").stat().st_size <= 200_000


@pytest.mark.parametrize("name", NAMES)
def test_the_more_noise_the_less_is_seen(name):
    rows = load_card(name)["metrics"]["noise levels"]
    assert [row["sigma"] for row in rows] == list(SIGMAS)
    accuracy = [row["accuracy"] for row in rows]
    assert accuracy[0] > 0.98
    assert accuracy[-1] < 0.15
    assert all(more <= less + 0.005 for less, more in pairwise(accuracy))


def test_the_digits_card_says_what_the_classifier_does(monkeypatch):
    stored = load_card("classifier_noised_digits")["metrics"]["noise levels"]
    monkeypatch.setattr(recipes_guidance, "SIGMAS", (1.0,))
    model = load_pretrained("classifier_noised_digits")
    ((row,),) = recipe("classifier_noised_digits").evaluate(model).values()
    (wanted,) = (row["accuracy"] for row in stored if row["sigma"] == 1.0)
    assert row["sigma"] == 1.0
    assert row["accuracy"] == pytest.approx(wanted, abs=0.005)


def test_accuracy_is_the_share_of_right_answers_at_each_noise_level():
    """Of a classifier that knows the noise: right with probability ½ there, always elsewhere."""

    def classifier(x, sigma):
        assert sigma in SIGMAS
        assert len(x) <= 500
        zero = torch.ones(len(x)) if sigma < 1 else (torch.arange(len(x)) % 2).float()
        return torch.stack([zero, 1 - zero], dim=1)

    images, labels = torch.rand(30, 1, 8, 8), torch.zeros(30, dtype=torch.int64)
    rows = accuracy_metrics(classifier, images, labels, draws=20)["noise levels"]
    assert [row["accuracy"] for row in rows] == [1.0 if s < 1 else 0.5 for s in SIGMAS]


def test_its_gradient_leads_images_to_the_class():
    classifier = load_pretrained("classifier_noised_digits")
    images, labels = load_digits("test")
    x, y, sigma = to_signed(images[:100]), (labels[:100] + 1) % 10, torch.full((100,), 0.5)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    x_t = x + 0.5 * noise

    def likely(x):
        with torch.no_grad():
            return classifier(x, sigma).log_softmax(1).gather(1, y[:, None]).mean().item()

    before = likely(x_t)
    for _ in range(10):
        x_t = x_t + 0.02 * class_gradient(classifier, x_t, sigma, y)
    assert likely(x_t) > before + 1
