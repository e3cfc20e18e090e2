"""The recipes of chapters 04 and 05, and the checkpoints that came out of them."""

from itertools import pairwise

import pytest
import torch

from course_lib.data import dequantize, load_digits, load_mnist, toy
from course_lib.flows import (
    NICE,
    ActNorm,
    Glow,
    InvertibleConv1x1,
    Permutation,
    RealNVP,
    Standardize,
)
from course_lib.training import checkpoint_folder, load_card, load_pretrained, recipe
from course_lib.training.batches import mnist_batch
from course_lib.training.recipes_flows import (
    image_log_likelihood,
    start_actnorm,
    toy_log_likelihood,
)

NAMES = {
    **dict.fromkeys(["nice_two_moons", "nice_pinwheel", "nice_digits", "nice_mnist"], NICE),
    **dict.fromkeys(
        ["realnvp_two_moons", "realnvp_pinwheel", "realnvp_digits", "realnvp_mnist"], RealNVP
    ),
    **dict.fromkeys(
        ["glow_digits", "glow_digits_reverse", "glow_digits_shuffle", "glow_mnist"], Glow
    ),
}
DIGITS = [name for name in NAMES if "digits" in name]
LIKELIHOOD = "test log-likelihood (nats)"
PUBLISHED = {"realnvp": 1.06, "glow": 1.05}  # bits per dimension on MNIST


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_its_checkpoint(name):
    card, model = load_card(name), load_pretrained(name)
    assert isinstance(model, NAMES[name])
    assert card["command"] == f"python -m course_lib train {name}"
    assert card["steps"] == recipe(name).options["steps"], "trained by the recipe as it stands"
    assert not model.training
    assert (checkpoint_folder() / f"{name}.safetensors").stat().st_size <= 4_000_000


def test_all_checkpoints_together_are_small():
    files = checkpoint_folder().glob("*.safetensors")
    assert sum(file.stat().st_size for file in files) <= 60_000_000


@pytest.mark.parametrize("toy", ["two_moons", "pinwheel"])
@pytest.mark.parametrize("model", ["nice", "realnvp"])
def test_the_toys_cards_say_what_the_models_do(model, toy):
    measured = toy_log_likelihood(load_pretrained(f"{model}_{toy}"), toy)[LIKELIHOOD]
    stored = load_card(f"{model}_{toy}")["metrics"][LIKELIHOOD]
    assert measured == pytest.approx(stored, abs=0.002)


@pytest.mark.parametrize("name", DIGITS)
def test_the_digits_cards_say_what_the_models_do(name):
    measured = recipe(name).evaluate(load_pretrained(name))
    stored = load_card(name)["metrics"]
    assert measured.keys() == stored.keys()
    assert all(measured[key] == pytest.approx(stored[key], abs=0.02) for key in stored)


@pytest.mark.parametrize(("name", "every"), [("nice", 5), ("realnvp", 50), ("glow", 50)])
def test_the_mnist_cards_say_what_the_models_do(mnist, name, every):
    images = load_mnist("test")[0][::every]
    model = load_pretrained(f"{name}_mnist")
    images = images.reshape(-1, *model.base.event_shape)
    measured = image_log_likelihood(model, images, 256)
    stored = load_card(f"{name}_mnist")["metrics"][LIKELIHOOD]
    assert abs(measured[LIKELIHOOD] - stored) < 4 * measured["standard error (nats)"]


def test_the_chapters_claims_about_likelihoods():
    """Flows for images are far better than NICE, and below 1.60 bits on MNIST."""
    bits = {
        name: load_card(name)["metrics"]["bits per dimension"]
        for name in NAMES
        if name.endswith(("digits", "mnist"))
    }
    for data in ("digits", "mnist"):
        for model in ("realnvp", "glow"):
            assert bits[f"{model}_{data}"] < bits[f"nice_{data}"] - 0.1
    assert bits["realnvp_mnist"] < 1.60
    assert bits["glow_mnist"] < 1.60
    assert load_card("realnvp_two_moons")["metrics"][LIKELIHOOD] > -1.63


def test_what_the_chapters_say_of_the_published_likelihoods():
    """Behind those of FFJORD's table 2; ahead of NICE's paper with a tenth of its parameters."""
    bits = {name: load_card(f"{name}_mnist")["metrics"]["bits per dimension"] for name in PUBLISHED}
    behind = {name: round(bits[name] - published, 2) for name, published in PUBLISHED.items()}
    assert behind == {"realnvp": 0.15, "glow": 0.11}
    nice = load_card("nice_mnist")
    assert nice["metrics"][LIKELIHOOD] > 1980.50
    widths = [392, *5 * [1000], 392]
    of_paper = 4 * sum((n_in + 1) * n_out for n_in, n_out in pairwise(widths)) + 784
    assert round(of_paper / nice["parameters"]) == 10


def test_where_the_nats_of_mnist_come_from(mnist):
    """The chapter's sentence: 1,887 nats from 441 pixels that are nearly always black."""
    lit = (load_mnist("train")[0].flatten(1) > 0).float().mean(dim=0)
    black, busy = lit <= 0.1, lit > 0.5
    assert (int(black.sum()), int(busy.sum())) == (441, 140)

    x = mnist_batch("dequantized")(
        load_mnist("test")[0].flatten(1), torch.Generator().manual_seed(0)
    )
    model = load_pretrained("nice_mnist")
    standardize, *_, scaling = model.transforms
    with torch.no_grad():
        z = model(x)[0]
        # The logistic log-density of each latent, and what its coordinate adds to the log-det.
        nats = torch.nn.functional.logsigmoid(z) + torch.nn.functional.logsigmoid(-z)
        nats = nats.mean(dim=0) + scaling.log_scale - standardize.std.log()
        assert nats.sum().item() == pytest.approx(model.log_prob(x).mean().item(), abs=0.05)
    assert nats.sum().item() == pytest.approx(2173, abs=2)
    assert nats[black].sum().item() == pytest.approx(1887, abs=2)
    assert nats[busy].sum().item() == pytest.approx(48, abs=1)


def test_digits_are_better_than_without_a_network():
    """The chapter's claim: far above a full-covariance Gaussian, 52 nats on the same images."""
    assert load_card("nice_digits")["metrics"][LIKELIHOOD] > 70


def test_likelihoods_are_means_over_the_noise():
    """A flow whose density is constant on [0, 1)^n gives 0 nats, and log2(levels) bits."""

    class Uniform:
        def log_prob(self, x):
            assert x.min() >= 0
            assert x.max() < 1
            return torch.zeros(len(x))

    measured = image_log_likelihood(Uniform(), load_digits("test")[0], 17)
    assert measured[LIKELIHOOD] == 0
    assert measured["standard error (nats)"] == 0
    assert measured["bits per dimension"] == pytest.approx(4.0875, abs=1e-3)


def test_prepare_measures_the_data():
    nice = recipe("nice_digits")
    model, x = nice.new_model(), nice.load()
    nice.prepare(model, x)
    assert isinstance(model.transforms[0], Standardize)
    torch.testing.assert_close(model.transforms[0].mean, x.mean(0), rtol=0, atol=0.03)


def test_prepare_starts_every_actnorm_and_changes_nothing_else():
    glow = recipe("glow_digits")
    model, x = glow.new_model(), glow.load()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    glow.prepare(model, x)
    norms = [t for t in model.transforms if isinstance(t, ActNorm)]
    assert len(norms) == 12
    assert all(norm.initialized for norm in norms)
    again = recipe("glow_digits").new_model()
    start_actnorm(again, x, levels=17)
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())
    ours = [f"transforms.{i}." for i, t in enumerate(model.transforms) if isinstance(t, ActNorm)]
    for name, t in model.state_dict().items():
        if not name.startswith(tuple(ours)):
            assert torch.equal(t, before[name])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("glow_digits", InvertibleConv1x1),
        ("glow_digits_reverse", Permutation),
        ("glow_digits_shuffle", Permutation),
    ],
)
def test_the_comparison_of_mixings_changes_the_mixing_alone(name, kind):
    model = recipe(name).new_model()
    mixers = [t for t in model.transforms if isinstance(t, InvertibleConv1x1 | Permutation)]
    assert len(mixers) == 12
    assert all(isinstance(t, kind) for t in mixers)
    assert recipe(name).options == recipe("glow_digits").options
    if kind is Permutation:
        reverse = [torch.equal(t.order, torch.arange(len(t.order)).flip(0)) for t in mixers]
        assert all(reverse) is (name == "glow_digits_reverse")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("glow", "realnvp"))])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_the_trained_models_invert(request, name, dtype, tolerance):
    if "mnist" in name:
        request.getfixturevalue("mnist")
    noise = torch.Generator().manual_seed(0)
    if name.endswith(("moons", "pinwheel")):
        x = toy(name.removeprefix("realnvp_"), 500, generator=noise)
    elif "digits" in name:
        x = dequantize(load_digits("test")[0], 17, generator=noise)
    else:
        x = dequantize(load_mnist("test")[0][:50], 256, generator=noise)
    model, x = load_pretrained(name).to(dtype), x.to(dtype)
    with torch.no_grad():
        assert (model.inverse(model(x)[0])[0] - x).abs().max() < tolerance


def test_a_flow_on_images_and_one_on_vectors_are_measured_alike():
    """The same density, once of vectors and once of images, gets the same likelihood."""

    class Radial:
        def log_prob(self, x):
            return -x.flatten(1).square().sum(dim=1)

    images = load_digits("test")[0]
    assert image_log_likelihood(Radial(), images, 17) == pytest.approx(
        image_log_likelihood(Radial(), images.flatten(1), 17)
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("glow", "realnvp"))])
@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_a_model_gives_its_own_samples_a_density(name, temperature):
    model = load_pretrained(name)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        samples = model.sample(50, temperature=temperature, generator=generator)
        assert torch.isfinite(model.log_prob(samples)).all()
