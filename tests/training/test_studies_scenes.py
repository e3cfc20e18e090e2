"""The studies on scenes: what they train is comparable, and a run that is killed loses nothing."""

import math
from itertools import product

import pytest
import torch

from course_lib.data import to_signed
from course_lib.training import load_pretrained, load_study, recipes_scenes
from course_lib.training import studies_scenes as studies
from course_lib.training.recipes_scenes import multiply_adds, numbers, training_scenes
from course_lib.training.scene_quality import test_scenes
from course_lib.training.studies_scenes import (
    PIXELS_SIGMA,
    SHARES,
    encoded,
    equal_time_rows,
    latent_channels,
    latent_flow,
    losses_by_time,
    mean_rows,
    model_row,
    pixel_model,
    scene_mmdit,
    scene_unet,
    small_mmdit,
    time_samplings,
    unet_or_mmdit,
)

SHARES_OF = ("layout", "digit", "colour", "weight", "all")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def clock(monkeypatch):
    """A clock that says half a second more each time: a step takes half a second."""
    now = [0.0]

    def process_time():
        now[0] += 0.5
        return now[0]

    monkeypatch.setattr("course_lib.training.equal_time.time.process_time", process_time)


@pytest.fixture(scope="module")
def autoencoder():
    return load_pretrained("latent_scenes").autoencoder


# --- latents or pixels ---------------------------------------------------------------------------


def test_the_study_holds_both_curves():
    rows = load_study("equal_time_scenes")["metrics"]["equal processor time"]
    wanted = list(product(("latent", "pixels"), SHARES))
    assert [(row["model"], row["share"]) for row in rows] == wanted
    for name in ("latent", "pixels"):  # at one pace, within a third: the rate doesn't fall
        pace = [row["steps"] / row["share"] for row in rows if row["model"] == name]
        assert max(pace) < 4 / 3 * min(pace)
    assert all(list(row)[3:] == [*SHARES_OF, "distance"] for row in rows)


def test_sigma_data_is_the_size_of_the_data(monkeypatch):
    """A quarter of them: the root of their mean square is off by 0.001 at most, by chance."""
    monkeypatch.setattr(recipes_scenes, "N_SCENES", recipes_scenes.N_SCENES // 4)
    size = to_signed(training_scenes()[0]).square().mean().sqrt().item()
    assert size == pytest.approx(PIXELS_SIGMA, abs=0.006)
    assert pixel_model().sigma_data == PIXELS_SIGMA


def test_the_two_models_are_as_large_and_one_is_cheaper():
    data = torch.zeros(8, 3, 32, 32), torch.zeros(8, 12)
    data[0].normal_(generator=seeded())
    models = studies.new_models(data)
    latent, pixels = models["latent"], models["pixels"]
    ours, theirs = numbers(latent.model), numbers(pixels)
    assert ours == pytest.approx(theirs, rel=0.15)
    assert 2 * multiply_adds(latent.denoiser) < multiply_adds(pixels)
    stored = load_study("equal_time_scenes")["metrics"]["models"]
    assert stored == [model_row(name, model) for name, model in models.items()]


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(3))

    def loss(self, x, *, generator=None):
        return (x - self.w + torch.randn(3, generator=generator)).square().mean()


@pytest.mark.parametrize("dies_at", [0, 1, 3])
def test_curves_of_a_run_that_was_killed(dies_at, monkeypatch, tmp_path, clock):
    """At whichever look it was killed: the curves are those of a run that was not."""
    looks = []

    def draw(model, captions, **_):
        looks.append(model)
        if len(looks) == 1 + dies_at and not survives:
            raise KeyboardInterrupt
        return model.w.detach()

    data = (torch.randn(70, 3, generator=seeded()),)
    monkeypatch.setattr(studies, "new_models", lambda data: {"latent": Tiny(), "pixels": Tiny()})
    monkeypatch.setattr(studies, "captioned_scenes", lambda: data)
    monkeypatch.setattr(studies, "draw_scenes", draw)
    monkeypatch.setattr(studies, "scene_quality", lambda w, said: {"w": w.tolist()})
    options = {"budget": 10.0, "shares": (0.2, 0.5, 1.0), "n": 2}
    survives = True
    whole = equal_time_rows(tmp_path / "whole", **options)
    assert [(row["model"], row["share"]) for row in whole] == list(
        product(("latent", "pixels"), options["shares"])
    )
    assert [row["steps"] for row in whole] == [4, 10, 20] * 2
    survives = False
    looks.clear()
    with pytest.raises(KeyboardInterrupt):
        equal_time_rows(tmp_path / "killed", **options)
    survives = True
    assert equal_time_rows(tmp_path / "killed", **options) == whole
    with pytest.raises(ValueError, match="moments must"):
        equal_time_rows(tmp_path / "killed", **options | {"budget": 11.0})


# --- what chapter 14's studies share -------------------------------------------------------------


def test_a_seed_is_a_start_and_leaves_the_others_alone(autoencoder):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (
        latent_flow(small_mmdit, autoencoder, None, seed).denoiser.state_dict()
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_latents_are_drawn_once(autoencoder):
    x = to_signed(test_scenes()[0][:300])
    z = encoded(autoencoder, x)
    assert z.shape == (300, 4, 8, 8)
    assert torch.equal(z, encoded(autoencoder, x))
    assert not z.requires_grad
    assert z.var().item() == pytest.approx(1, abs=0.05)
    mean, _ = autoencoder.encode(x[:9])
    noise = (z[:9] / autoencoder.latent_scale - mean).square().mean()
    assert 0 < noise < 0.1 * mean.var()


def test_u_net_and_transformer_are_as_large():
    unet, mmdit = numbers(scene_unet()), numbers(scene_mmdit())
    assert unet == pytest.approx(mmdit, rel=0.02)


def test_means_and_their_standard_errors():
    rows = [
        {"kind": kind, "t": t, "seed": seed, "loss": 10.0 * t + seed * scale}
        for seed in (0, 1, 5)
        for kind, scale in (("a", 1.0), ("b", 0.0))
        for t in (1, 2)
    ]
    means = mean_rows(rows, ("kind", "t"), ("loss",))
    assert [(row["kind"], row["t"]) for row in means] == list(product("ab", (1, 2)))
    error = math.sqrt((4 + 1 + 9) / 2 / 3)  # of 0, 1, 5, whose mean is 2
    assert [row["loss"] for row in means] == pytest.approx([12, 22, 10, 20])
    wanted = [error, error, 0, 0]
    assert [row["standard error of loss"] for row in means] == pytest.approx(wanted)


def test_the_loss_by_time_of_a_model_that_says_nothing(autoencoder):
    """The velocity is eps − x_0; with its guess 0 the loss is 1 + E x_0² at all times."""
    flow = latent_flow(small_mmdit, autoencoder, None)
    for parameter in flow.denoiser.parameters():
        parameter.data.zero_()
    rows = losses_by_time(flow, n=100)
    assert [row["t"] for row in rows] == pytest.approx([i / 10 for i in range(1, 10)])
    x0 = encoded(autoencoder, to_signed(test_scenes()[0][:100]))
    wanted = 1 + x0.square().mean().item()  # 4 standard errors: of eps² 0.009, of x_0 eps 0.013
    assert [row["loss"] for row in rows] == pytest.approx([wanted] * 9, abs=0.06)
    assert len({row["loss"] for row in rows}) == 1  # the same noise


@pytest.mark.parametrize("kind", ["unet_or_mmdit", "time_samplings", "latent_channels"])
def test_a_study_that_was_killed_ends_as_if_it_had_not_been(kind, monkeypatch, tmp_path, clock):
    monkeypatch.setattr(recipes_scenes, "N_SCENES", 128)
    monkeypatch.setattr(studies, "N_PROMPTS", 2)
    monkeypatch.setattr(studies, "STEPS", (1, 2))
    monkeypatch.setattr(studies, "losses_by_time", lambda flow: [{"t": 0.5, "loss": 1.0}])
    looks, survives = [], True

    def quality(images, said):
        looks.append(images)
        if len(looks) == 3 and not survives:
            raise KeyboardInterrupt
        return {"all": images.mean().item(), "distance": images.std().item()}

    monkeypatch.setattr(studies, "scene_quality", quality)
    monkeypatch.setattr(studies, "autoencoder_row", lambda model: {"c": model.latent_shape[0]})

    def run(folder):
        folder.mkdir(exist_ok=True)
        if kind == "latent_channels":
            options = {"shares": (0.5, 1.0), "channels": (4, 16), "steps": 2}
            return latent_channels(folder, budget=1.0, **options)
        if kind == "unet_or_mmdit":
            return unet_or_mmdit(folder, budget=1.0, shares=(0.5, 1.0))
        two = {name: studies.TIME_SAMPLINGS[name] for name in ("uniform", "cosmap")}
        return time_samplings(folder, budget=1.0, samplings=two, seeds=(0, 1))

    whole = run(tmp_path / "whole")
    survives = False
    looks.clear()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    survives = True
    assert run(tmp_path / "killed") == whole
    if kind == "unet_or_mmdit":
        rows = whole["by processor time"]
        who = [(row["model"], row["seconds"], row["steps"]) for row in rows]
        assert who == [(m, s, k) for m in ("U-Net", "MM-DiT") for s, k in ((0.5, 1), (1.0, 2))]
        assert [row["model"] for row in whole["models"]] == ["U-Net", "MM-DiT"]
        return
    if kind == "latent_channels":
        rows = whole["by processor time"]
        who = [(row["channels"], row["seconds"], row["steps"]) for row in rows]
        assert who == [(c, s, k) for c in (4, 16) for s, k in ((0.5, 1), (1.0, 2))]
        assert [row["c"] for row in whole["reconstructions"]] == [4, 16]
        assert [row["channels"] for row in whole["models"]] == [4, 16]
        assert whole["steps of an autoencoder"] == 2
        return
    rows = whole["quality by steps"]
    who = [(row["seed"], row["sampling"], row["steps"]) for row in rows]
    assert who == list(product((0, 1), ("uniform", "cosmap"), (1, 2)))
    assert len({row["all"] for row in rows}) == 8  # each its own model
    assert [row["steps"] for row in whole["steps of training"]] == [2] * 4
    assert len(whole["mean quality by steps"]) == 4
