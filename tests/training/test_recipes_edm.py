"""The recipes of chapters 10 and 11, and the checkpoints that came out of them."""

import pytest
import torch

from course_lib.data import load_digits, load_mnist, to_signed
from course_lib.diffusion import EDM
from course_lib.training import checkpoint_folder, load_card, load_pretrained, recipe
from course_lib.training.batches import digits_batch
from course_lib.training.quality import DATA, conditional_quality
from course_lib.training.recipes_classifiers import FLOOR
from course_lib.training.recipes_edm import (
    CALLS,
    DIGITS_SIGMA,
    MNIST_SIGMA,
    SAMPLERS,
    SCALES,
    calls_metrics,
    guided_quality,
)

NAMES = ["edm_digits", "edm_digits_classes", "edm_mnist"]


def metrics(name):
    return load_card(name)["metrics"]


def distances(name):
    """The feature distances of a stored model, by sampler and calls."""
    return {(row["sampler"], row["calls"]): row["distance"] for row in metrics(name)["samplers"]}


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_its_checkpoint(name):
    card, model = load_card(name), load_pretrained(name)
    assert type(model) is EDM
    assert card["command"] == f"python -m course_lib train {name}"
    assert card["steps"] == recipe(name).options["steps"], "trained by the recipe as it stands"
    assert card["summary"] == recipe(name).summary
    assert card["seed"] == recipe(name).seed
    assert not model.training
    assert (checkpoint_folder() / f"{name}.safetensors").stat().st_size <= 4_000_000


def test_sigma_data_is_the_size_of_the_data():
    """The root of the mean square of what training sees, to its two digits."""
    generator = torch.Generator().manual_seed(0)
    moved = digits_batch("signed")(load_digits("train")[0], generator)
    assert moved.square().mean().sqrt().item() == pytest.approx(DIGITS_SIGMA, abs=0.006)


def test_the_card_of_the_digits_says_what_the_model_does():
    wanted = [(s, n) for s, numbers in CALLS.items() for n in numbers]
    assert list(distances("edm_digits")) == wanted
    model = load_pretrained("edm_digits")
    for sampler in ("DDIM", "Heun, Karras times", "DPM-Solver++(2M)"):
        (row,) = calls_metrics(model, "digits", {sampler: [5]}, samplers=SAMPLERS)["samplers"]
        assert row["distance"] == pytest.approx(distances("edm_digits")[sampler, 5], rel=0.01)


def test_sigma_data_of_mnist(mnist):
    x = to_signed(load_mnist("train")[0])
    assert x.square().mean().sqrt().item() == pytest.approx(MNIST_SIGMA, abs=0.006)


def test_the_card_of_mnist_holds_every_sampler():
    wanted = [(s, n) for s, numbers in CALLS.items() for n in numbers]
    assert list(distances("edm_mnist")) == wanted


def test_every_sampler_asks_at_most_as_often_as_its_row_says(monkeypatch):
    monkeypatch.setattr("course_lib.training.recipes_sde.N_SAMPLES", 100)
    model, calls = load_pretrained("edm_digits"), []
    forward = model.net.forward
    monkeypatch.setattr(model.net, "forward", lambda *args: calls.append(1) or forward(*args))
    for sampler in SAMPLERS:
        calls.clear()
        calls_metrics(model, "digits", {sampler: [8]}, samplers=SAMPLERS)
        assert 7 <= len(calls) <= 8, sampler


@pytest.mark.parametrize("name", ["edm_digits_classes", "edm_mnist"])
def test_guidance_trades_diversity_for_accuracy(name):
    rows = metrics(name)["guidance"]
    for way in ("free", "classifier"):
        mine = [row for row in rows if row["way"] == way]
        assert [row["scale"] for row in mine] == list(
            SCALES["mnist" if "mnist" in name else "digits"]
        )
        assert mine[-1]["accuracy"] > mine[0]["accuracy"] + 0.3, "without guidance: by chance"
        assert mine[-1]["diversity"] < mine[0]["diversity"]
    chance = rows[0]
    assert chance["accuracy"] == pytest.approx(0.1, abs=0.05), "scale 0 doesn't know the class"


def test_the_card_of_guidance_says_what_the_model_does():
    from course_lib.diffusion import ClassifierFreeGuidance

    model, row = load_pretrained("edm_digits_classes"), metrics("edm_digits_classes")["guidance"][4]
    measured = guided_quality(ClassifierFreeGuidance(model, row["scale"]), "digits")
    assert measured == pytest.approx({key: row[key] for key in measured}, rel=0.02)


def test_quality_of_the_data_themselves():
    images, y = DATA["digits"]("test")
    quality = conditional_quality(images, y, "digits")
    assert quality["diversity"] == pytest.approx(1)
    assert quality["distance"] == pytest.approx(0, abs=1e-5)
    assert quality["accuracy"] == pytest.approx(metrics("classifier_digits")["test accuracy"])
    one_each = images[[int((y == k).nonzero()[0]) for k in y]]
    assert conditional_quality(one_each, y, "digits")["diversity"] == pytest.approx(0, abs=1e-6)
    wrong = (y + 1) % 10
    assert conditional_quality(images, wrong, "digits")["accuracy"] < 0.05


def test_the_best_sampler_comes_close_to_real_images():
    best, real = min(distances("edm_digits").values()), metrics("classifier_digits")
    assert best < 2 * real[FLOOR] + 2 * real[f"{FLOOR}, spread"]
