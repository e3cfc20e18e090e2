"""A ControlNet on its way: what is measured, and when; and the stored one."""

import inspect

import pytest
import torch

from course_lib.diffusion import ControlledDiffusion, ControlNet, LatentDiffusion, edges
from course_lib.latent import KLAutoencoder
from course_lib.metrics import contour_agreement
from course_lib.nn import TextEncoder, UNet, WordTokenizer
from course_lib.training import load_card, load_pretrained, recipes_scenes
from course_lib.training.recipes_scenes import STRENGTHS, control_metrics, convergence_metrics
from course_lib.training.sudden_convergence import follow, followed, sudden_convergence


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def diffusion():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        text = TextEncoder(WordTokenizer(["red", "blue"], length=4), dim=8, heads=2)
        unet = UNet((2, 4, 4), widths=(8, 16), context_dim=8, heads=2)
        for p in unet.parameters():
            if not p.any():
                torch.nn.init.normal_(p, std=0.3)
        autoencoder = KLAutoencoder((3, 16, 16), channels=2, factor=4, width=8)
        return LatentDiffusion(autoencoder, unet, text)


def data(diffusion, n=6):
    images = torch.rand(n, 3, 16, 16, generator=seeded())
    tokens = diffusion.text_encoder.tokenizer(["red", "blue"] * (n // 2))
    return 2 * images - 1, tokens, edges(images)


def control(diffusion):
    return ControlledDiffusion(diffusion, ControlNet(diffusion.model, 1))


def test_a_run_is_measured_every_few_steps(diffusion, monkeypatch):
    def measured(control, contours):
        assert contours is examples[2]
        return {"agreement": control.control_net.zeros[0].weight.sum().item()}

    monkeypatch.setattr("course_lib.training.sudden_convergence.followed", measured)
    examples = data(diffusion)
    contours = examples[2]
    options = {"steps": 5, "every": 2, "batch_size": 2}
    state = torch.default_generator.get_state()
    locked = {name: value.clone() for name, value in diffusion.state_dict().items()}
    rows = list(sudden_convergence(diffusion, examples, contours, seed=3, **options))
    assert torch.equal(torch.default_generator.get_state(), state)
    assert all(torch.equal(value, locked[k]) for k, value in diffusion.state_dict().items())
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert [row["seed"] for row in rows] == [3] * 3
    again, other = (
        list(sudden_convergence(diffusion, examples, contours, seed=seed, **options))
        for seed in (3, 4)
    )
    assert again == rows
    assert other[0]["agreement"] == rows[0]["agreement"] == 0.0  # all start as the locked model
    assert len({row["agreement"] for row in rows + other}) == 5  # then they part


def test_a_run_trains_on_the_loss_of_the_control(diffusion, monkeypatch):
    """The steps are those of AdamW on batches of the data, each with its row of all three."""
    examples, seen = data(diffusion), []
    loss = ControlledDiffusion.loss

    def watched(self, x, y, condition, *, generator):
        before = [p.clone() for p in self.control_net.zeros.parameters()]
        seen.append((x, y, condition, before))
        return loss(self, x, y, condition, generator=generator)

    monkeypatch.setattr(ControlledDiffusion, "loss", watched)
    options = {"steps": 3, "every": 9, "batch_size": 4, "lr": 0.02}
    assert len(list(sudden_convergence(diffusion, examples, examples[2], seed=0, **options))) == 1
    assert [len(x) for x, *_ in seen] == [4] * 3
    for x, y, condition, _ in seen:
        for row in zip(x, y, condition, strict=True):
            places = (examples[0] == row[0]).flatten(1).all(1).nonzero().flatten()
            assert len(places) == 1
            assert torch.equal(examples[1][places[0]], row[1])
            assert torch.equal(examples[2][places[0]], row[2])
    assert len({x.sum().item() for x, *_ in seen}) == 3
    first, second = seen[0][3], seen[1][3]
    assert not any(p.any() for p in first)
    # AdamW's first step is lr in every number that has a gradient.
    assert max(p.abs().max().item() for p in second) == pytest.approx(0.02, rel=1e-3)


def test_a_step_is_adamws_on_a_gradient_of_norm_1_at_most(diffusion, monkeypatch):
    # In double precision: Adam makes a step even of a gradient that is 0 but for rounding.
    images, tokens, contours = data(diffusion.double())
    examples, trained = (images.double(), tokens, contours.double()), []
    monkeypatch.setattr(
        "course_lib.training.sudden_convergence.followed",
        lambda control, contours: trained.append(control) or {},
    )
    options = {"steps": 3, "every": 3, "batch_size": 4, "lr": 0.1}
    list(sudden_convergence(diffusion, examples, examples[2], seed=5, **options))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        model = control(diffusion)
    parameters, generator = list(model.parameters()), seeded(5)
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.0)
    norms = []
    for _ in range(3):
        batch = torch.randint(6, (4,), generator=generator)
        loss = model.loss(*(part[batch] for part in examples), generator=generator)
        gradients = torch.autograd.grad(loss, parameters)
        norms.append(torch.cat([g.flatten() for g in gradients]).norm())
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g / norms[-1].clamp(min=1.0)
        optimizer.step()
    assert max(norms) > 1.5
    assert trained[0] is trained[1]
    for p, got in zip(parameters, trained[0].parameters(), strict=True):
        torch.testing.assert_close(got, p, rtol=1e-3, atol=1e-4)


def test_samples_follow_a_contour_without_a_prompt(diffusion):
    model, contours = control(diffusion), data(diffusion)[2][:4]
    made = follow(model, contours)
    assert made.shape == (4, 3, 16, 16)
    # The same as guidance from nothing to nothing.
    controls = [(model.control_net, contours, 1.0)]
    options = {"scale": 1.0, "steps": 6, "controls": controls, "generator": seeded()}
    torch.testing.assert_close(diffusion.sample([""] * 4, **options), made, atol=1e-4, rtol=0)
    found = edges(made)
    measured = followed(model, contours)
    assert measured == {
        "agreement": contour_agreement(found, contours).mean().item(),
        "chance": contour_agreement(found, contours[[3, 0, 1, 2]]).mean().item(),
    }


@pytest.mark.parametrize("name", ["steps", "every", "batch_size"])
def test_bad_options(diffusion, name):
    examples = data(diffusion)
    run = sudden_convergence(diffusion, examples, examples[2], seed=0, **{name: 0})
    with pytest.raises(ValueError, match=rf"^{name} must be an integer of at least 1, got 0$"):
        next(run)
    for option, message in (({"lr": 0}, "lr must be"), ({"seed": -1}, "seed must be")):
        run = sudden_convergence(diffusion, examples, examples[2], **{"seed": 0} | option)
        with pytest.raises(ValueError, match=f"^{message}"):
            next(run)
    with pytest.raises(ValueError, match=r"^contours must have shape \[B, 1, 16, 16\]"):
        followed(control(diffusion), torch.zeros(2, 1, 8, 8))


# --- the stored ControlNet -----------------------------------------------------------------------


def test_the_stored_control_follows_contours(monkeypatch):
    """A few of the card's rows, on fewer scenes."""
    model = load_pretrained("controlnet_scenes")
    assert {name.split(".")[0] for name in model.state_dict()} == {"control_net"}
    monkeypatch.setattr(recipes_scenes, "STRENGTHS", (0.0, 1.0))
    rows = control_metrics(model, n=12)["by strength"]
    assert [(row["prompt"], row["strength"]) for row in rows] == [
        ("caption", 0.0),
        ("caption", 1.0),
        ("none", 0.0),
        ("none", 1.0),
    ]
    told, both, alone, contour = (row["agreement"] for row in rows)
    assert both > 0.95 > told > 0.7
    assert contour > 0.9 > 0.6 > alone
    assert all(row["chance"] < 0.6 for row in rows)


def test_the_card_says_what_control_is_worth():
    rows = load_card("controlnet_scenes")["metrics"]["by strength"]
    assert [row["strength"] for row in rows] == [*STRENGTHS] * 2
    for row in rows:
        controlled = row["strength"] >= 1
        assert row["agreement"] > 0.97 if controlled else row["agreement"] < 0.98
        assert 0.3 < row["chance"] < 0.5


def test_the_card_shows_four_sudden_convergences():
    """More than half of all that is learned is learned within 40 steps, after 80 of nothing."""
    rows = load_card("controlnet_scenes")["metrics"]["sudden convergence"]
    options = inspect.signature(sudden_convergence).parameters
    steps, every = options["steps"].default, options["every"].default
    assert rows[-1]["step"] == steps
    assert options["batch_size"].default == 16
    assert options["lr"].default == 1e-3
    for seed in range(4):
        curve = [row["agreement"] for row in rows if row["seed"] == seed]
        measured = [row["step"] for row in rows if row["seed"] == seed]
        assert measured == list(range(0, steps + 1, every))
        assert max(curve[: 1 + 80 // every]) < 0.51
        assert min(curve[160 // every :]) > 0.8
        rise = max(late - early for early, late in zip(curve, curve[40 // every :], strict=False))
        assert rise > (curve[-1] - curve[0]) / 2
    assert all(0.35 < row["chance"] < 0.5 for row in rows)


def test_each_seed_has_its_rows(diffusion, monkeypatch):
    calls = []
    monkeypatch.setattr(recipes_scenes, "controlled_scenes", lambda: "data")
    monkeypatch.setattr(recipes_scenes, "test_scenes", lambda: (torch.zeros(30, 3, 32, 32), []))

    def run(*given, seed, **options):
        calls.append((given[:2], given[2].shape, options))
        return [{"seed": seed}]

    monkeypatch.setattr(recipes_scenes, "sudden_convergence", run)
    assert convergence_metrics(diffusion, steps=7) == [{"seed": seed} for seed in range(4)]
    assert calls == [((diffusion, "data"), (24, 1, 32, 32), {"steps": 7})] * 4
