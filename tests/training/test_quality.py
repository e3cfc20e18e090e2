"""The feature distance: what it does to images, and the floor and order of what is stored."""

import pytest
import torch

from course_lib.data import load_digits
from course_lib.metrics import frechet_distance
from course_lib.training import load_card, load_pretrained
from course_lib.training.quality import N_SAMPLES, feature_distance, sample_quality
from course_lib.training.recipes_classifiers import FLOOR

SAMPLES = "feature distance, 1,000 samples"


def test_the_test_images_themselves_are_at_distance_0():
    images = load_digits("test")[0]
    assert feature_distance(images, "digits") == pytest.approx(0, abs=1e-6)


def test_it_is_the_frechet_distance_of_the_classifier_s_features():
    classifier = load_pretrained("classifier_digits")
    images, reference = load_digits("train")[0][:400], load_digits("test")[0]
    with torch.no_grad():
        wanted = frechet_distance(classifier.features(images), classifier.features(reference))
    assert feature_distance(images, "digits") == pytest.approx(wanted, rel=1e-4)


def test_images_are_cut_off_and_rounded_as_a_file_would():
    images = load_digits("train")[0][:400]
    nearly = images + 0.03 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    beyond = torch.where(images == 1, 1.5, torch.where(images == 0, -0.5, images))
    wanted = feature_distance(images, "digits")
    assert feature_distance(nearly, "digits") == pytest.approx(wanted)
    assert feature_distance(beyond, "digits") == pytest.approx(wanted)


def test_noise_is_far_away_and_damage_is_seen():
    noise = torch.rand(N_SAMPLES, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = load_digits("train")[0][:N_SAMPLES]
    floor = feature_distance(images, "digits")
    assert feature_distance(images.flip(2), "digits") > 3 * floor
    assert feature_distance(noise, "digits") > 20 * floor


def test_a_card_s_number_needs_that_many_samples():
    with pytest.raises(ValueError, match="images must be 1000 samples, got 7"):
        sample_quality(torch.zeros(7, 1, 8, 8), "digits")
    images = load_digits("train")[0][:N_SAMPLES]
    assert sample_quality(images, "digits") == {SAMPLES: feature_distance(images, "digits")}


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="data must be one of digits, mnist, got 'cifar'"):
        feature_distance(torch.zeros(3, 1, 8, 8), "cifar")
    with pytest.raises(ValueError, match="images must have shape"):
        feature_distance(torch.zeros(3, 64), "digits")


@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_real_images_are_nearer_than_every_model_s_samples(data):
    floor = load_card(f"classifier_{data}")["metrics"][FLOOR]
    for name in ("vae", "nice", "realnvp", "glow"):
        assert load_card(f"{name}_{data}")["metrics"][SAMPLES] > 1.5 * floor
