"""The recipes of chapters 08 and 09, and the checkpoints that came out of them."""

import math

import pytest
import torch

from course_lib.data import dequantize, load_digits, load_mnist, to_signed
from course_lib.diffusion import (
    Denoiser,
    FlowMatching,
    IdealDenoiser,
    VEPath,
    VPPath,
    ode_log_prob,
)
from course_lib.flows import CNF
from course_lib.metrics import bits_per_dim
from course_lib.training import checkpoint_folder, load_card, load_pretrained, recipe
from course_lib.training.recipes_flows import toy_points
from course_lib.training.recipes_ode import CALLS, SOLVERS, error_metrics
from course_lib.training.recipes_sde import (
    DIGITS_CALLS,
    N_SAMPLES,
    SAMPLERS,
    calls_metrics,
    ode_likelihood,
)

LIKELIHOOD, ERROR = "test log-likelihood (nats)", "standard error (nats)"
BITS = "bits per dimension"
SCORES = [f"score_digits_{kind}" for kind in DIGITS_CALLS]
TOYS = [f"flow_matching_{toy}{end}" for toy in ("two_moons", "pinwheel") for end in ("", "_ot")]
FLOWS = ["flow_matching_digits", "flow_matching_digits_ot"]
MNIST = ["flow_matching_mnist", "flow_matching_mnist_ot"]
CNFS = ["cnf_two_moons", "cnf_pinwheel"]


def distances(name):
    rows = load_card(name)["metrics"]["samplers"]
    return {(row["sampler"], row["calls"]): row["distance"] for row in rows}


@pytest.mark.parametrize("name", [*SCORES, *TOYS, *FLOWS, *MNIST, *CNFS])
def test_every_recipe_has_its_checkpoint(name):
    card, model = load_card(name), load_pretrained(name)
    kind = {"flow": FlowMatching, "cnf_": CNF}.get(name[:4], Denoiser)
    assert isinstance(model, kind)
    assert card["command"] == f"python -m course_lib train {name}"
    assert card["steps"] == recipe(name).options["steps"], "trained by the recipe as it stands"
    assert card["summary"] == recipe(name).summary
    assert not model.training
    assert (checkpoint_folder() / f"{name}.safetensors").stat().st_size <= 4_000_000


def test_a_network_of_ve_sees_its_input_scaled():
    model = load_pretrained("score_digits_ve")
    assert isinstance(model.path, VEPath)
    x, t = 10 * torch.randn(2, 1, 8, 8), torch.ones(2)
    torch.testing.assert_close(model.net(x, t), model.net.net(x / math.sqrt(1 + 10.0**2), t))


@pytest.mark.parametrize("name", [*SCORES, *FLOWS])
def test_the_digits_cards_say_what_the_models_do(name):
    card, model = load_card(name)["metrics"], load_pretrained(name)
    kind = name.removeprefix("score_digits_")
    calls = DIGITS_CALLS.get(kind, dict.fromkeys(SOLVERS, CALLS))
    assert list(distances(name)) == [(s, n) for s, numbers in calls.items() for n in numbers]
    sampler = next(iter(calls))
    (measured,) = calls_metrics(model, "digits", {sampler: calls[sampler][:1]})["samplers"]
    assert measured["distance"] == pytest.approx(card["samplers"][0]["distance"], rel=0.01)
    images = load_digits("test")[0][::12]
    again = ode_likelihood(model, images, "digits")
    assert abs(again[LIKELIHOOD] - card[LIKELIHOOD]) < 4 * again[ERROR]
    nats = torch.tensor(card[LIKELIHOOD])
    assert card[BITS] == pytest.approx(bits_per_dim(nats, 64, 17).item(), abs=1e-4)


def test_the_likelihood_is_that_of_images_from_0_to_1():
    """Of a Gaussian's ideal model, by hand: [−1, 1] is twice as wide as [0, 1], log 2 a pixel."""
    path, images = VPPath(), load_digits("test")[0][:20]
    model = Denoiser(IdealDenoiser(torch.zeros(1, 1, 8, 8), path, std=0.4), path)
    x = to_signed(dequantize(images, 17, generator=torch.Generator().manual_seed(1)))
    (a, b) = path.points([path.t_min])[1]
    exact = torch.distributions.Normal(0.0, math.hypot(0.4 * a, b)).log_prob(x).flatten(1).sum(1)
    measured = ode_likelihood(model, images, "digits")
    assert measured[LIKELIHOOD] == pytest.approx(exact.mean().item() + 64 * math.log(2), abs=0.1)
    assert measured[ERROR] == pytest.approx(exact.std().item() / 20**0.5, rel=0.01)


@pytest.mark.parametrize("name", TOYS)
def test_the_toys_cards_say_what_the_models_do(name):
    card, model = load_card(name)["metrics"], load_pretrained(name)
    assert set(card) == {LIKELIHOOD, "errors"}
    assert [(row["solver"], row["calls"]) for row in card["errors"]] == [
        (solver, number) for solver in SOLVERS for number in CALLS
    ]
    toy = name.removeprefix("flow_matching_").removesuffix("_ot")
    log_prob = ode_log_prob(model, toy_points(toy, seed=1)[:200], rtol=1e-3, atol=1e-3)
    assert abs(log_prob.mean() - card[LIKELIHOOD]) < 4 * log_prob.std() / 200**0.5
    if name == "flow_matching_two_moons_ot":  # seconds for each model
        again = error_metrics(model, 2000)["errors"]
        errors = [row["error"] for row in card["errors"]]
        assert [row["error"] for row in again] == pytest.approx(errors, rel=0.05, abs=1e-4)


@pytest.mark.parametrize("name", CNFS)
def test_the_cards_of_continuous_flows_say_what_they_do(name):
    card, model = load_card(name)["metrics"], load_pretrained(name)
    assert set(card) == {LIKELIHOOD}
    with torch.no_grad():
        log_prob = model.log_prob(toy_points(name.removeprefix("cnf_"), seed=1)[:500])
    assert abs(log_prob.mean() - card[LIKELIHOOD]) < 4 * log_prob.std() / 500**0.5


@pytest.mark.parametrize("name", MNIST)
def test_mnist_cards_say_what_the_models_do(name, mnist):
    """The likelihood of ten of their hundred test images; the samples take minutes."""
    card, model = load_card(name)["metrics"], load_pretrained(name)
    assert list(distances(name)) == [(s, n) for s in SOLVERS for n in (8, 16, 32)]
    nats = torch.tensor(card[LIKELIHOOD])
    assert card[BITS] == pytest.approx(bits_per_dim(nats, 784, 256).item(), abs=1e-4)
    again = ode_likelihood(model, load_mnist("test")[0][::1000], "mnist")
    assert abs(again[LIKELIHOOD] - card[LIKELIHOOD]) < 4 * math.hypot(again[ERROR], card[ERROR])


def test_errors_are_those_of_the_solvers():
    """A field that is linear in x: Euler's factor is (1 − 1/n)ⁿ, the exact one 1/e."""
    model = FlowMatching(lambda x, t: x)
    model.net.event_shape = (1,)
    rows = error_metrics(model, 500)["errors"]
    z = torch.randn((500, 1), generator=torch.Generator().manual_seed(0))
    for row in rows:
        if row["solver"] == "Euler":
            n = row["calls"]
            wanted = abs((1 - 1 / n) ** n - math.exp(-1)) * z.square().mean().sqrt().item()
            assert row["error"] == pytest.approx(wanted, rel=1e-3)
    assert [row["solver"] for row in rows] == [s for s in SOLVERS for _ in CALLS]


def test_every_sampler_asks_the_network_as_often_as_its_row_says(monkeypatch):
    monkeypatch.setattr("course_lib.training.recipes_sde.N_SAMPLES", 100)
    model, calls = load_pretrained("score_digits_vp"), []
    forward = model.net.forward
    monkeypatch.setattr(model.net, "forward", lambda *args: calls.append(1) or forward(*args))
    for sampler in SAMPLERS:
        calls.clear()
        calls_metrics(model, "digits", {sampler: [8]})
        assert len(calls) == 8, sampler
    assert N_SAMPLES == 1000
