"""The recipes of chapter 12, and the checkpoints that came out of them."""

import math
from itertools import product

import pytest
import torch

from course_lib.data import RELATIONS, Scene, render, scene_of, scenes, to_signed
from course_lib.diffusion import ControlledDiffusion, LatentDiffusion
from course_lib.latent import KLAutoencoder
from course_lib.metrics import SceneJudge, scene_targets
from course_lib.training import (
    checkpoint_folder,
    load_card,
    load_pretrained,
    recipe,
    recipes_scenes,
)
from course_lib.training.recipes_scenes import (
    N_SCENES,
    binding_metrics,
    control_metrics,
    count_rows,
    exchanged,
    judged_scenes,
    text_metrics,
    training_scenes,
)
from course_lib.training.scene_quality import (
    draw_scenes,
    new_captions,
    scene_judge,
    test_scenes,
    two_things,
)

AUTOENCODERS = {
    "autoencoder_scenes": 4,
    "autoencoder_scenes_2": 2,
    "autoencoder_scenes_8": 8,
    "autoencoder_mnist_scenes": 4,
}
JUDGES = {"judge_scenes": "digits", "judge_mnist_scenes": "mnist"}
KINDS = {
    **dict.fromkeys(JUDGES, SceneJudge),
    **dict.fromkeys(AUTOENCODERS, KLAutoencoder),
    "latent_scenes": LatentDiffusion,
    "controlnet_scenes": ControlledDiffusion,
}
SHARES_OF = ("layout", "digit", "colour", "weight", "all")


def metrics(name):
    return load_card(name)["metrics"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def outline(value):
    """Names and rows, and what rows say of themselves; not what is measured."""
    said = ("prompt", "prompts", "strength", "scale", "what", "relation", "asked", "part", "model")
    if isinstance(value, dict):
        return {k: v if k in said else outline(v) for k, v in value.items()}
    return [outline(row) for row in value] if isinstance(value, list) else None


def chance(share, n, sigmas=4):
    """How far the share of n may be from that of all, each of them drawn for itself."""
    return sigmas * math.sqrt(max(share * (1 - share), 1 / n) / n)


@pytest.fixture
def source(name, request):
    """Whose digits are in the scenes of a model; of MNIST's, its files are needed."""
    if "mnist" not in name:
        return "digits"
    request.getfixturevalue("mnist")
    return "mnist"


@pytest.fixture(scope="module")
def training():
    """A quarter of them: the root of their mean square is off by 0.001 at most, by chance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes_scenes, "N_SCENES", N_SCENES // 4)
        return training_scenes()[0]


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
    assert (checkpoint_folder() / f"{name}.safetensors").stat().st_size <= 6_000_000


def test_latents_have_variance_1_and_their_autoencoder_is_the_stored_one(training):
    stored = load_pretrained("autoencoder_scenes").state_dict()
    autoencoder = load_pretrained("latent_scenes").autoencoder
    controlled = load_pretrained("controlnet_scenes").diffusion.autoencoder.state_dict()
    mine = autoencoder.state_dict()
    assert mine.keys() == stored.keys() == controlled.keys()
    assert {k for k in mine if not torch.equal(mine[k], stored[k])} == {"latent_scale"}
    assert all(torch.equal(mine[k], controlled[k]) for k in mine)
    for x in (training[-400:], test_scenes()[0][:400]):
        latents = autoencoder.to_latent(to_signed(x), generator=seeded(1))
        assert latents.var().item() == pytest.approx(1, abs=0.03)
    made = recipe("latent_scenes")
    untrained, x = made.new_model(), to_signed(training[:200])
    made.prepare(untrained, (x,))
    latents = untrained.autoencoder.to_latent(x, generator=seeded(1))
    assert latents.var().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", JUDGES)
def test_the_card_of_the_judge_says_what_it_does(name, source):
    measured = recipe(name).evaluate(load_pretrained(name))
    assert list(metrics(name)) == list(SHARES_OF)
    assert measured == pytest.approx(metrics(name), abs=0.001)
    assert metrics(name)["weight"] > 0.98, "thin and bold can be told from each other"


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_the_card_of_an_autoencoder_says_what_it_does(name, source, monkeypatch):
    """On 60 of the 2,000 scenes: means within 4 standard errors, variances within a fifth."""
    card, model, n = metrics(name), load_pretrained(name), 60
    few = tuple(part[:n] for part in test_scenes(source))
    monkeypatch.setattr(recipes_scenes, "test_scenes", {source: few}.get)
    judges = {source: scene_judge(source)}
    monkeypatch.setattr(
        recipes_scenes, "scene_quality", lambda x, said, source: judges[source].fidelity(x, said)
    )
    measured = recipe(name).evaluate(model)
    measured["reconstructions"][0]["distance"] = None
    assert outline(measured) == outline(card)
    rate, error = model.rate_distortion(to_signed(few[0]), generator=seeded())
    for key, values in (("rate, bits an image", rate / math.log(2)), ("mean squared error", error)):
        bound = 4 * values.std().item() / math.sqrt(n)
        assert measured[key] == pytest.approx(values.mean().item(), rel=1e-4)
        assert measured[key] == pytest.approx(card[key], abs=bound), key
    noise = 10 * math.log10(4 / card["mean squared error"])
    assert card["peak signal to noise, dB"] == pytest.approx(noise)
    assert card["numbers of the latent"] == 4 * (32 // AUTOENCODERS[name]) ** 2
    assert card["numbers of an image"] == 3 * 32 * 32
    for mine, row in zip(measured["latents"], card["latents"], strict=True):
        assert mine["channel"] == row["channel"]
        assert mine["variance"] == pytest.approx(row["variance"], rel=0.2)
    assert measured["scale factor"] == pytest.approx(card["scale factor"], rel=0.1)
    for key in SHARES_OF:
        share = card["reconstructions"][0][key]
        assert measured["reconstructions"][0][key] == pytest.approx(share, abs=chance(share, n))


@pytest.mark.parametrize("name", JUDGES)
def test_whose_digits_models_are_trained_on(name, source, monkeypatch):
    """The source's, in the same scenes for all; the other source has other images of them."""
    monkeypatch.setattr(recipes_scenes, "N_SCENES", 16)
    of = {"source": source, "generator": seeded()}
    images, captions = scenes(16, **of)
    more, other = scenes(2, unseen=True, source=source, generator=seeded(2))
    assert training_scenes(source)[1] == captions == training_scenes("digits")[1]
    x, y = recipe(name).load()
    assert torch.equal(x, torch.cat([images, more]))
    assert torch.equal(y, scene_targets([*captions, *other]))
    assert torch.equal(training_scenes()[0], images) == (source == "digits")
    assert torch.equal(judged_scenes()[0], x) == (source == "digits")
    signed = recipe(name.replace("judge", "autoencoder")).load()
    assert torch.equal(signed, to_signed(images))
    flow = recipe(name.replace("judge", "sd3"))
    assert torch.equal(flow.load()[0], signed)
    assert torch.equal(flow.load()[1], recipe("latent_scenes").load()[1])


def test_a_model_of_mnist_is_measured_on_mnist(mnist, monkeypatch):
    """Every judge that is asked is the source's, and so are the real scenes."""
    asked, shown, n = [], [], 12

    class Judge:
        def answers(self, images):
            return scene_targets(new_captions(len(images)))

        def fidelity(self, images, captions):
            return {"all": 0.5}

    def quality(images, captions, *, source):
        asked.append(source)
        shown.append(images)
        return {"all": 0.25}

    def draw(model, captions, **_):
        return torch.zeros(len(captions), 3, 32, 32)

    monkeypatch.setattr(recipes_scenes, "scene_judge", lambda of: asked.append(of) or Judge())
    monkeypatch.setattr(recipes_scenes, "scene_quality", quality)
    monkeypatch.setattr(recipes_scenes, "draw_scenes", draw)
    found = text_metrics(load_pretrained("latent_scenes"), scales=(3.0,), n=n, source="mnist")
    assert asked == ["mnist"] * len(asked)
    assert len(asked) == 6  # by scale, real and seen scenes; chance and unseen, counts, binding
    real, _ = scenes(n, source="mnist", split="test", generator=seeded(5))
    assert torch.equal(shown[1], real)
    assert found["real scenes"] == [{"all": 0.25}]
    assert found["unseen"][1]["all"] == 0.5


def made(model, captions, **_):
    """What a model would draw that makes no mistakes."""
    return render([scene_of(caption) for caption in captions], split="test", generator=seeded())


def test_the_card_of_a_model_has_the_rows_of_its_recipe(monkeypatch):
    name = "latent_scenes"
    monkeypatch.setattr(recipes_scenes, "draw_scenes", made)
    shares = {**dict.fromkeys(SHARES_OF, 1.0), "distance": 0.0}
    monkeypatch.setattr(recipes_scenes, "scene_quality", lambda *_, **__: shares)
    model = load_pretrained(name)
    measured = recipe(name).evaluate(model)
    assert outline(measured) == outline(metrics(name))
    for key in ("parameters of the parts", "numbers that noise is added to"):
        assert measured[key] == metrics(name)[key]
    assert measured["multiply-adds of a call"] == metrics(name)["multiply-adds of a call"]
    # What chance would do hangs on the prompts, nearly: the card's is that of its own images.
    for key in ("layout", "digit", "colour", "weight"):
        ours, card = measured["chance"][0][key], metrics(name)["chance"][0][key]
        assert card == pytest.approx(ours, abs=0.03), key


def test_the_card_of_a_model_says_what_it_does():
    """A few prompts: within 4 standard errors, things of a scene counted as one draw."""
    n = 24
    said = new_captions(n)
    measured = scene_judge().fidelity(draw_scenes(load_pretrained("latent_scenes"), said), said)
    (row,) = [row for row in metrics("latent_scenes")["fidelity"] if row["scale"] == 3.0]
    for key in SHARES_OF:
        assert measured[key] == pytest.approx(row[key], abs=chance(row[key], n)), key


def test_the_card_of_control_says_what_it_does(monkeypatch):
    few = tuple(part[:4] for part in test_scenes())
    monkeypatch.setattr(recipes_scenes, "test_scenes", lambda: few)
    monkeypatch.setattr(recipes_scenes, "STRENGTHS", (0.0, 1.0))
    rows = metrics("controlnet_scenes")["by strength"]
    looked_at = [row for row in rows if row["strength"] in (0.0, 1.0)]
    measured = control_metrics(load_pretrained("controlnet_scenes"), n=4)["by strength"]
    assert outline(measured) == outline(looked_at)
    wanted = product(("caption", "none"), (0.0, 0.5, 1.0, 1.5, 2.0))
    assert [(row["prompt"], row["strength"]) for row in rows] == list(wanted)
    for mine, row in zip(measured, looked_at, strict=True):
        controlled = row["strength"] == 1.0
        assert mine["agreement"] == pytest.approx(row["agreement"], abs=0.03 if controlled else 0.3)
        assert mine["chance"] == pytest.approx(row["chance"], abs=0.3)
        for key in SHARES_OF:
            assert mine[key] == pytest.approx(row[key], abs=chance(row[key], 4)), key
    curve = metrics("controlnet_scenes")["sudden convergence"]
    steps = product(range(4), range(0, 481, 20))
    assert [(row["seed"], row["step"]) for row in curve] == list(steps)
    assert all(list(row) == ["seed", "step", "agreement", "chance"] for row in curve)


# --- what is counted -----------------------------------------------------------------------------


def test_chance_by_counting_all_pairs(monkeypatch):
    """Of 14 prompts: each with the scenes of all others, one by one."""
    monkeypatch.setattr(recipes_scenes, "draw_scenes", made)
    monkeypatch.setattr(recipes_scenes, "scene_quality", lambda *_, **__: {"distance": 0.0})
    n = 14
    found = text_metrics(load_pretrained("latent_scenes"), scales=(3.0,), n=n)
    said = new_captions(n)
    asked, seen = scene_targets(said).tolist(), scene_judge().answers(made(None, said)).tolist()
    pairs = [(asked[i], seen[j]) for i in range(n) for j in range(n) if i != j]
    placed = [pair for pair in pairs if pair[0][0] == pair[1][0]]
    wanted = {"layout": len(placed) / len(pairs), "all": sum(a == b for a, b in pairs) / len(pairs)}
    for k, what in enumerate(("digit", "colour", "weight"), start=1):
        hits = [a[i] == b[i] for a, b in placed for i in (k, k + 3) if a[i] >= 0]
        wanted[what] = sum(hits) / len(hits)
    assert found["chance"] == [pytest.approx(wanted)]

    both = two_things(n)
    asked, seen = scene_targets(both).tolist(), scene_judge().answers(made(None, both)).tolist()
    pairs = [(asked[i], seen[j]) for i in range(n) for j in range(n) if i != j]
    placed = [pair for pair in pairs if pair[0][0] == pair[1][0]]
    for k, row in enumerate(found["swapped"], start=1):
        right = sum((a[k], a[k + 3]) == (b[k], b[k + 3]) for a, b in placed)
        swapped = sum((a[k], a[k + 3]) == (b[k + 3], b[k]) for a, b in placed)
        assert row["chance right"] == pytest.approx(right / len(placed))
        assert row["chance swapped"] == pytest.approx(swapped / len(placed))
    alike = sum(a == b for a, b in pairs) / len(pairs)
    assert [row["chance"] for row in found["order"]] == pytest.approx([alike] * 4)


@pytest.mark.parametrize("kind", ["right", "swapped"])
def test_who_got_whose_place(kind, monkeypatch):
    """Scenes as they are said, or all of them with both things exchanged."""

    def draw(model, captions, **_):
        shown = [scene_of(caption) for caption in captions]
        if kind == "swapped":
            shown = [Scene(scene.things[::-1], scene.where) for scene in shown]
        return render(shown, generator=seeded())

    monkeypatch.setattr(recipes_scenes, "draw_scenes", draw)
    found = binding_metrics(None, 80)
    other = "swapped" if kind == "right" else "right"
    for row in found["swapped"]:
        assert row["scenes"] == 80
        # The judge reads 0.957 of digits, so 0.916 of pairs: of 80, 4 standard errors less.
        assert row[kind] > (0.79 if row["what"] == "digit" else 0.95)
        if row["what"] != "digit":
            assert row[other] == pytest.approx(0, abs=0.02)
    for row, relation in zip(found["order"], RELATIONS, strict=True):
        assert (row["relation"], row["prompts"]) == (relation, 20)
        assert row["all" if kind == "right" else "exchanged"] > 0.58  # of 20, in the same way
        assert row["exchanged" if kind == "right" else "all"] == 0


def test_exchanged_things():
    first, second = scene_targets(
        ["a thin red 3 above a bold blue 7", "a bold blue 7 above a thin red 3"]
    )
    assert torch.equal(exchanged(first[None]), second[None])


def test_how_many_things_there_are():
    one, two = "a bold red 3 on the left", "a bold red 3 left of a thin blue 7"
    shown = [one, one, one, two, two, two, two, one]
    said = [one, one, one, one, two, two, two, two]
    rows = count_rows(said, made(None, shown))
    wanted = {"prompts": 4, "chance of two": 0.5}
    assert rows == [
        {"asked": 1, **wanted, "one": 0.75, "two": 0.25},
        {"asked": 2, **wanted, "one": 0.25, "two": 0.75},
    ]
