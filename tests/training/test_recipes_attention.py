"""Chapter 15's recipe and the checkpoint that came out of it."""

import pytest

from course_lib.autoregressive import PixelTransformer
from course_lib.training import checkpoint_folder, load_card, load_pretrained, recipe

NAME = "pixel_transformer_digits"


def test_the_card_says_what_the_model_does():
    card, model = load_card(NAME), load_pretrained(NAME)
    assert type(model) is PixelTransformer
    assert card["command"] == f"python -m course_lib train {NAME}"
    assert card["steps"] == recipe(NAME).options["steps"], "trained by the recipe as it stands"
    assert (checkpoint_folder() / f"{NAME}.safetensors").stat().st_size <= 4_000_000
    measured = recipe(NAME).evaluate(model)
    assert measured.keys() == card["metrics"].keys()
    assert all(measured[key] == pytest.approx(card["metrics"][key], abs=0.02) for key in measured)


def test_it_is_measured_as_chapter_01s_model_is():
    ours, theirs = (load_card(name)["metrics"] for name in (NAME, "pixelcnn_digits_grey"))
    assert ours.keys() == theirs.keys()
    assert ours["bits per dimension"] == pytest.approx(theirs["bits per dimension"], abs=0.1)
