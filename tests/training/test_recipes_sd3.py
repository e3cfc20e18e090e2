"""The recipes of chapter 14, and the checkpoints that came out of them."""

import math

import pytest
import torch

from course_lib.data import load_digits, render, scene_of, scenes, to_signed
from course_lib.diffusion import FlowMatching, LatentDiffusion, StraightPath
from course_lib.nn import MMDiT
from course_lib.training import (
    load_card,
    load_pretrained,
    recipe,
    recipes_scenes,
    recipes_sd3,
)
from course_lib.training.quality import N_SAMPLES
from course_lib.training.recipes_scenes import N_PROMPTS, text_metrics
from course_lib.training.recipes_sd3 import SCALES, STEPS, class_rows, steps_rows
from course_lib.training.scene_quality import draw_scenes, new_captions, scene_judge

SCENES = {"sd3_scenes": "digits", "sd3_mnist_scenes": "mnist"}
KINDS = {**dict.fromkeys(SCENES, LatentDiffusion), "dit_digits": FlowMatching}
SHARES_OF = ("layout", "digit", "colour", "weight", "all")


def metrics(name):
    return load_card(name)["metrics"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def chance(share, n, sigmas=4):
    """How far the share of n may be from that of all, each of them drawn for itself."""
    return sigmas * math.sqrt(max(share * (1 - share), 1 / n) / n)


@pytest.mark.parametrize("name", KINDS)
def test_every_recipe_has_its_checkpoint(name):
    card, model = load_card(name), load_pretrained(name)
    assert type(model) is KINDS[name]
    assert card["command"] == f"python -m course_lib train {name}"
    assert card["steps"] == recipe(name).options["steps"], "trained by the recipe as it stands"
    assert card["summary"] == recipe(name).summary
    assert card["data"] == recipe(name).data
    assert card["seed"] == recipe(name).seed
    assert not model.training


@pytest.mark.parametrize("name", KINDS)
def test_all_are_rectified_flows_by_a_transformer(name):
    """Trained at logit-normal times: their logits have mean 0 and standard deviation 1."""
    model = recipe(name).new_model()
    flow = model if name == "dit_digits" else model.denoiser
    net = flow.net if name == "dit_digits" else model.model
    assert isinstance(flow, FlowMatching)
    assert isinstance(flow.path, StraightPath)
    assert isinstance(net, MMDiT)
    assert flow.drop == 0.1  # guidance needs a model that was told nothing, too
    logits = flow.path.draw_times(20_000, generator=seeded()).logit()
    assert logits.mean().item() == pytest.approx(0, abs=4 / math.sqrt(20_000))
    assert logits.std().item() == pytest.approx(1, abs=4 / math.sqrt(40_000))


# --- scenes --------------------------------------------------------------------------------------


def perfect(model, captions, **_):
    """What a model would draw that makes no mistakes."""
    return render([scene_of(caption) for caption in captions], split="test", generator=seeded())


def test_quality_by_steps(monkeypatch):
    """Each number of steps is asked for, with one set of prompts and one scale."""
    asked = []

    def draw(model, captions, **options):
        asked.append((model, tuple(captions), options))
        return torch.full((1,), float(options["steps"]))

    monkeypatch.setattr(recipes_sd3, "draw_scenes", draw)
    monkeypatch.setattr(
        recipes_sd3, "scene_quality", lambda x, said, source: {source: x[0] + len(said)}
    )
    rows = steps_rows("model", n=7, source="mnist")
    assert rows == [{"steps": k, "mnist": k + 7} for k in (4, 8, 16, 32)]
    said = tuple(new_captions(7))
    assert asked == [("model", said, {"scale": 3.0, "steps": k}) for k in STEPS]


def test_a_rectified_flow_is_measured_as_a_text_model(monkeypatch):
    """Of a perfect model: what is counted of it, and how large its parts are."""
    model = recipe("sd3_scenes").new_model()
    monkeypatch.setattr(recipes_scenes, "draw_scenes", perfect)
    measured = text_metrics(model, scales=(3.0,), n=40)
    sizes = {row["part"]: row["parameters"] for row in measured["parameters of the parts"]}
    assert list(sizes) == ["transformer", "text encoder", "autoencoder"]
    assert sizes["transformer"] == sum(p.numel() for p in model.model.parameters())
    assert sizes["text encoder"] == sum(p.numel() for p in model.text_encoder.parameters())
    assert measured["numbers that noise is added to"] == 4 * 8 * 8
    # By hand, of the large matrices: 16 tokens of an image and 12 of a text in 4 blocks, each with
    # 12 d² (Q, K, V, the way out, and an MLP of twice 4 d²), d = 96.
    blocks = 4 * (16 + 12) * 12 * 96**2
    assert blocks < measured["multiply-adds of a call"] < 1.3 * blocks
    assert measured["fidelity"][0]["colour"] > 0.95


@pytest.mark.parametrize("name", SCENES)
def test_the_card_of_the_scenes_has_the_rows_of_its_recipe(name, request, monkeypatch):
    if SCENES[name] == "mnist":
        request.getfixturevalue("mnist")
    card = metrics(name)
    monkeypatch.setattr(recipes_scenes, "draw_scenes", perfect)
    monkeypatch.setattr(recipes_sd3, "draw_scenes", perfect)
    shares = {**dict.fromkeys(SHARES_OF, 1.0), "distance": 0.0}
    asked = []

    def quality(images, said, *, source):
        asked.append(source)
        return shares

    monkeypatch.setattr(recipes_scenes, "scene_quality", quality)
    monkeypatch.setattr(recipes_sd3, "scene_quality", quality)
    measured = recipe(name).evaluate(load_pretrained(name))
    assert asked == [SCENES[name]] * (8 + len(STEPS))
    assert list(measured) == list(card)
    for key, value in measured.items():
        if isinstance(value, list):
            assert [list(row) for row in value] == [list(row) for row in card[key]], key
    for key in (
        "parameters of the parts",
        "numbers that noise is added to",
        "multiply-adds of a call",
    ):
        assert measured[key] == card[key]
    assert [row["steps"] for row in card["by steps"]] == list(STEPS)


@pytest.mark.parametrize("name", SCENES)
def test_the_card_of_the_scenes_says_what_the_model_does(name):
    """A few prompts: within 4 standard errors, things of a scene counted as one draw."""
    n, judge = 24, scene_judge(SCENES[name])
    said, model = new_captions(n), load_pretrained(name)
    (row,) = [row for row in metrics(name)["fidelity"] if row["scale"] == 3.0]
    measured = judge.fidelity(draw_scenes(model, said), said)
    for key in SHARES_OF:
        assert measured[key] == pytest.approx(row[key], abs=chance(row[key], n)), key
    row = metrics(name)["by steps"][0]
    measured = judge.fidelity(draw_scenes(model, said, steps=row["steps"]), said)
    for key in SHARES_OF:
        assert measured[key] == pytest.approx(row[key], abs=chance(row[key], n)), key
    assert n < N_PROMPTS


@pytest.mark.parametrize("name", SCENES)
def test_the_latents_of_the_scenes_are_the_stored_autoencoder_s(name):
    mine = load_pretrained(name).autoencoder.state_dict()
    theirs = load_pretrained(name.replace("sd3", "autoencoder")).state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine if k != "latent_scale")
    made, x = recipe(name), to_signed(scenes(200, generator=seeded())[0])
    untrained = made.new_model()
    made.prepare(untrained, (x,))  # of other scenes: another scale, of the same autoencoder
    prepared = untrained.autoencoder.state_dict()
    assert all(torch.equal(mine[k], prepared[k]) for k in mine if k != "latent_scale")


def test_the_scale_of_the_latents_is_that_of_chapter_12():
    scales = [
        load_pretrained(f"{kind}_scenes").autoencoder.latent_scale for kind in ("sd3", "latent")
    ]
    assert scales[0].item() == pytest.approx(scales[1].item(), rel=1e-3)


def test_the_latents_of_mnist_have_variance_1(mnist):
    images, _ = scenes(400, source="mnist", split="test", generator=seeded())
    autoencoder = load_pretrained("sd3_mnist_scenes").autoencoder
    latents = autoencoder.to_latent(to_signed(images), generator=seeded(1))
    assert latents.var().item() == pytest.approx(1, abs=0.05)


# --- digits --------------------------------------------------------------------------------------


def test_quality_by_class_steps_and_scale(monkeypatch):
    """A model that draws the test digit it is told, darker by its scale and steps."""
    images, labels = load_digits("test")
    which = torch.stack([(labels == k).nonzero()[:, 0][0] for k in range(10)])
    asked = []

    def drawn(guided, states, *, n_classes, steps):
        asked.append((guided.scale, steps))
        shown = images[which].repeat(N_SAMPLES // n_classes, 1, 1, 1)
        return shown if steps > 4 else shown.roll(1, 0)

    monkeypatch.setattr(recipes_sd3, "samples", drawn)
    rows = class_rows(recipe("dit_digits").new_model(), steps=(4, 8), scales=(1.0, 2.0))
    assert asked == [(1.0, 4), (1.0, 8), (2.0, 4), (2.0, 8)]
    assert [(row["scale"], row["steps"]) for row in rows] == asked
    for row in rows:
        assert list(row) == ["scale", "steps", "accuracy", "distance", "diversity"]
        assert (row["accuracy"] > 0.85) == (row["steps"] > 4)
        assert row["diversity"] < 0.1 or row["steps"] == 4


def test_the_card_of_the_digits_says_what_the_model_does():
    rows = metrics("dit_digits")["by steps and scale"]
    assert [(row["scale"], row["steps"]) for row in rows] == [(s, k) for s in SCALES for k in STEPS]
    (row,) = [row for row in rows if (row["scale"], row["steps"]) == (2.0, 4)]
    (measured,) = class_rows(load_pretrained("dit_digits"), steps=(4,), scales=(2.0,))
    assert measured == pytest.approx(row, rel=0.02)
