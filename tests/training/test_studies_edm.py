"""The ladder from DDPM to EDM: what its networks learn, how they are seen, and what was found."""

from itertools import product

import pytest
import torch

from course_lib.data import load_digits
from course_lib.diffusion import DDPM, EDM, DiscreteSchedule
from course_lib.training import fit, load_card, load_pretrained, load_study, study
from course_lib.training import studies_edm as studies
from course_lib.training.batches import digits_batch
from course_lib.training.studies import started
from course_lib.training.studies_edm import (
    NETWORKS,
    SEEDS,
    TRAINING_STEPS,
    PreconditionedDDPM,
    ladder,
    rungs,
)

KINDS = {"ddpm": DDPM, "preconditioned": PreconditionedDDPM, "edm": EDM}
STEPS = {
    "ddpm": ("DDPM", "no noise on the way (DDIM)", "EDM's path and times", "Heun's steps"),
    "preconditioned": ("preconditioning",),
    "edm": ("EDM's loss",),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_ladders_loss_is_that_of_eps():
    """D of a network that says F: its squared error over σ² is that of the noise it implies."""
    schedule = DiscreteSchedule.linear(40)
    model = PreconditionedDDPM(lambda x, t: torch.tanh(x), schedule, sigma_data=0.7)
    x = torch.randn(500, 3, generator=seeded(1))
    loss = model.loss(x, generator=seeded(2))
    sigma, eps = model.draw(x, generator=seeded(2))
    levels = (schedule.b(torch.arange(40)) / schedule.a(torch.arange(40))).tolist()
    assert set(sigma.tolist()) <= set(levels)
    noised = x + sigma[:, None] * eps
    implied = (noised - model.net(noised, sigma)) / sigma[:, None]
    torch.testing.assert_close(loss, (implied - eps).square().mean(), rtol=1e-4, atol=1e-6)


def test_one_network_of_each_kind_is_as_large():
    """But for what a kind adds, all of them are one U-Net: it is the loss that differs."""
    models = {kind: build() for kind, build in NETWORKS.items()}
    assert {kind: type(model) for kind, model in models.items()} == KINDS
    assert len({sum(p.numel() for p in model.parameters()) for model in models.values()}) == 1
    assert models["ddpm"].path.t_max == models["preconditioned"].schedule.t_max == 399


def test_edm_s_step_is_measured_as_every_model_of_edm_is():
    """18 steps of Heun: the row of 36 calls on the card of ``edm_digits``."""
    (row,) = rungs(load_pretrained("edm_digits"), 7)
    wanted = [
        row["distance"]
        for row in load_card("edm_digits")["metrics"]["samplers"]
        if (row["sampler"], row["calls"]) == ("Heun, Karras times", 36)
    ]
    assert row == {"step": "EDM's loss", "seed": 7, "distance": pytest.approx(*wanted, rel=0.01)}


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_step_asks_35_times(kind, monkeypatch):
    """And all steps of one network are samples of that network, by different samplers."""
    monkeypatch.setattr("course_lib.training.recipes_sde.N_SAMPLES", 20)
    model, calls, drawn = started(NETWORKS[kind]).eval(), [], []
    for parameter in model.parameters():  # the last layer starts at 0: all ways would be one
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=seeded()))
    net = model.net if kind == "ddpm" else model.net.net
    net.register_forward_hook(lambda *_: calls.append(1))

    def distance(images, data):
        assert (len(images), data) == (20, "digits")
        drawn.append((len(calls), images))
        calls.clear()
        return 1.5

    monkeypatch.setattr(studies, "feature_distance", distance)
    rows = rungs(model, 3)
    assert rows == [{"step": step, "seed": 3, "distance": 1.5} for step in STEPS[kind]]
    assert [asked for asked, _ in drawn] == [35] * len(rows)
    for i, (_, images) in enumerate(drawn):
        assert all(not torch.equal(images, other) for _, other in drawn[:i])


def test_a_ladder_that_was_killed_ends_as_if_it_had_not_been(monkeypatch, tmp_path):
    seen, survives = [], True

    def look(model, seed):
        seen.append((type(model), seed))
        if len(seen) == 3 and not survives:
            raise KeyboardInterrupt
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        return [{"step": type(model).__name__, "seed": seed, "distance": weights.norm().item()}]

    monkeypatch.setattr(studies, "rungs", look)
    few = {"networks": {kind: NETWORKS[kind] for kind in ("ddpm", "edm")}, "seeds": (0, 1)}

    def run(folder):
        folder.mkdir(exist_ok=True)
        return ladder(folder, **few, steps=2)

    whole = run(tmp_path / "whole")
    assert whole["steps of training"] == 2
    assert seen == [(DDPM, 0), (DDPM, 1), (EDM, 0), (EDM, 1)]
    assert [(row["step"], row["seed"]) for row in whole["ladder"]] == list(
        product(("DDPM", "EDM"), (0, 1))
    )
    assert len({row["distance"] for row in whole["ladder"]}) == 4  # each its own model
    survives = False
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    survives = True
    seen.clear()
    assert run(tmp_path / "killed") == whole
    assert seen == [(EDM, 0), (EDM, 1)]  # those that were seen are not trained again

    model = started(NETWORKS["edm"], 1)  # as a recipe would have trained it
    options = {"steps": 2, "batch_size": 128, "lr": 2e-3, "ema": 0.998, "seed": 1}
    fit(model, load_digits("train")[0], transform=digits_batch("signed"), **options)
    assert look(model, 1)[0]["distance"] == whole["ladder"][-1]["distance"]


def test_the_stored_ladder_is_whole():
    stored = load_study("ladder_edm")
    assert (stored["summary"], stored["data"]) == (
        study("ladder_edm").summary,
        study("ladder_edm").data,
    )
    assert stored["seeds"] == [0, 1, 2]
    assert stored["metrics"]["steps of training"] == TRAINING_STEPS
    wanted = [(step, seed) for steps in STEPS.values() for seed in SEEDS for step in steps]
    assert [(row["step"], row["seed"]) for row in stored["metrics"]["ladder"]] == wanted


def test_the_ladder_leads_down():
    """Heun's steps help every network; on an average EDM's loss does, too."""
    rows = load_study("ladder_edm")["metrics"]["ladder"]

    def distances(step):
        return torch.tensor([row["distance"] for row in rows if row["step"] == step])

    assert (distances("Heun's steps") < distances("EDM's path and times")).all()
    assert distances("Heun's steps").max() < distances("DDPM").min()
    assert distances("EDM's loss").mean() < distances("Heun's steps").mean() < 8
