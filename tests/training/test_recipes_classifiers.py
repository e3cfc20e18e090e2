"""The classifiers' recipes, and the checkpoints that came out of them."""

import pytest

from course_lib.metrics import ImageClassifier
from course_lib.training import load_card, load_pretrained, recipe


@pytest.mark.parametrize("name", ["classifier_digits", "classifier_mnist"])
def test_every_recipe_has_its_checkpoint(name):
    card, model = load_card(name), load_pretrained(name)
    assert isinstance(model, ImageClassifier)
    assert card["command"] == f"python -m course_lib train {name}"
    assert card["steps"] == recipe(name).options["steps"], "trained by the recipe as it stands"
    assert card["metrics"]["test accuracy"] > 0.98


def test_the_digits_card_says_what_the_classifier_does():
    measured = recipe("classifier_digits").evaluate(load_pretrained("classifier_digits"))
    stored = load_card("classifier_digits")["metrics"]
    assert measured.keys() == stored.keys()
    assert all(measured[key] == pytest.approx(stored[key], rel=0.01) for key in stored)
