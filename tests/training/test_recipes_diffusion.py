"""The recipes of chapters 06 and 07, and the checkpoints that came out of them."""

import math

import pytest
import torch
from scipy import ndimage

from course_lib.data import load_digits, load_mnist, to_signed, to_unit, toy_log_prob
from course_lib.diffusion import DDPM, DiscreteSchedule, ddim_sample, ddpm_sample, last
from course_lib.nn import TimeMLP
from course_lib.training import checkpoint_folder, load_card, load_pretrained, recipe
from course_lib.training.quality import feature_distance
from course_lib.training.recipes_classifiers import FLOOR
from course_lib.training.recipes_diffusion import (
    DIGITS_SAMPLERS,
    DIGITS_STEPS,
    MNIST_SAMPLERS,
    beta_metrics,
    bound_metrics,
    sampler_metrics,
    with_fewer_steps,
)
from course_lib.training.recipes_flows import toy_points

TOYS = ["two_moons", "pinwheel"]
NAMES = [*(f"ddpm_{toy}" for toy in TOYS), "ddpm_digits", "ddpm_digits_cosine", "ddpm_mnist"]
VARIANCES = ("posterior", "beta")


NATS, ERROR, BITS = "negative ELBO (nats)", "standard error (nats)", "bits per dimension"


BETA = "samplers with variance beta"


def bounds(metrics):
    """The rows of the bounds, by variance."""
    return {row["variance"]: row for row in metrics["bounds"]}


def distances(name):
    """The feature distances of a stored model's samplers, by steps and eta."""
    rows = load_card(name)["metrics"]["samplers"]
    return {(row["steps"], row["eta"]): row["distance"] for row in rows}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_its_checkpoint(name):
    card, model = load_card(name), load_pretrained(name)
    assert isinstance(model, DDPM)
    assert card["command"] == f"python -m course_lib train {name}"
    assert card["steps"] == recipe(name).options["steps"], "trained by the recipe as it stands"
    assert not model.training
    assert (checkpoint_folder() / f"{name}.safetensors").stat().st_size <= 4_000_000


@pytest.mark.parametrize("toy", TOYS)
def test_the_toys_cards_say_what_the_models_do(toy):
    card = bounds(load_card(f"ddpm_{toy}")["metrics"])
    points = toy_points(toy, seed=2)[:1000]
    measured = bounds(bound_metrics(load_pretrained(f"ddpm_{toy}"), points))
    assert set(measured) == set(card) == set(VARIANCES)
    for variance in VARIANCES:
        errors = [m[variance][ERROR] for m in (measured, card)]
        gap = measured[variance][NATS] - card[variance][NATS]
        assert abs(gap) < 4 * math.hypot(*errors)


@pytest.mark.parametrize("toy", TOYS)
def test_the_toys_bounds_lie_below_the_data_s_own_log_likelihood(toy):
    card = bounds(load_card(f"ddpm_{toy}")["metrics"])
    best = toy_log_prob(toy, toy_points(toy, seed=1)[:2000]).mean().item()
    for variance in VARIANCES:
        assert -card[variance][NATS] < best + 4 * card[variance][ERROR]
    assert -card["beta"][NATS] > best - 0.3
    assert -card["posterior"][NATS] < -card["beta"][NATS] - 0.5


@pytest.mark.parametrize("toy", TOYS)
def test_samples_of_the_toys_lie_where_the_data_do(toy):
    """Few of them fall where hardly any data do: below the density that 1 % of the data are in."""
    data = toy_log_prob(toy, toy_points(toy, seed=1))
    samples = load_pretrained(f"ddpm_{toy}").sample(1000, generator=generator())
    stray = (toy_log_prob(toy, samples) < data.quantile(0.01)).float().mean().item()
    assert stray < 0.08
    assert samples.std(dim=0) == pytest.approx(toy_points(toy, seed=1).std(dim=0), rel=0.1)


def asked_once(net):
    """The network, which is not asked twice about the same images at the same time."""
    answers = {}

    def ask(x, t):
        question = int(t[0]), x.numpy().tobytes()
        if question not in answers:
            answers[question] = net(x, t)
        return answers[question]

    return ask


@pytest.mark.parametrize("name", ["ddpm_digits", "ddpm_digits_cosine"])
def test_the_digits_cards_say_what_the_models_do(name):
    model, card = load_pretrained(name), load_card(name)["metrics"]
    assert set(card) == {"bounds", "samplers", BETA}
    assert [row["variance"] for row in card["bounds"]] == list(VARIANCES)
    assert all(set(row) == {"variance", NATS, ERROR, BITS} for row in card["bounds"])
    assert [(row["steps"], row["eta"]) for row in card["samplers"]] == DIGITS_SAMPLERS
    assert all(("seconds" in row) == (row["eta"] == 0) for row in card["samplers"])
    assert [row["steps"] for row in card[BETA]] == list(DIGITS_STEPS)
    (measured,) = beta_metrics(model, "digits", [5])[BETA]
    assert measured["distance"] == pytest.approx(card[BETA][0]["distance"], rel=0.01)
    (measured,) = sampler_metrics(model, "digits", [(5, 0.0)])["samplers"]
    assert measured["distance"] == pytest.approx(distances(name)[5, 0.0], rel=0.01)
    assert measured["seconds"] > 0
    x = to_signed(load_digits("test")[0])[::24]
    # Both bounds see the same noised images.
    bound = bounds(bound_metrics(DDPM(asked_once(model.net), model.schedule), x, levels=17))
    for variance in VARIANCES:
        gap = bound[variance][NATS] - bounds(card)[variance][NATS]
        assert abs(gap) < 3 * bound[variance][ERROR]


def test_fewer_steps_of_ddpm_are_ddim_s_with_all_of_its_noise():
    model, shape = load_pretrained("ddpm_digits"), (3, 1, 8, 8)
    fewer = with_fewer_steps(model, 12)
    at = torch.tensor(model.path.sampling_times(12))
    torch.testing.assert_close(fewer.path.alpha_bars, model.path.alpha_bars[at])
    by_ddpm = last(ddpm_sample(fewer, shape, clip=1.0, generator=generator()))
    by_ddim = last(ddim_sample(model, shape, steps=12, eta=1.0, clip=1.0, generator=generator()))
    torch.testing.assert_close(by_ddpm, by_ddim, rtol=0, atol=1e-4)
    wider = with_fewer_steps(model, 12, "beta")
    x_t = torch.randn(shape, generator=generator())
    (mean, variance), (same_mean, beta) = (m.reverse(x_t, 5) for m in (fewer, wider))
    assert torch.equal(mean, same_mean)
    assert (beta > variance).all()
    assert beta.flatten()[0] == wider.path.betas[5]


def test_bits_and_nats_are_the_same_bound():
    for name, dim in (("ddpm_digits", 64), ("ddpm_mnist", 784)):
        for row in load_card(name)["metrics"]["bounds"]:
            assert row[BITS] == pytest.approx(row[NATS] / dim / math.log(2), rel=1e-5)


def test_the_mnist_card_says_what_the_model_does(mnist):
    model, card = load_pretrained("ddpm_mnist"), distances("ddpm_mnist")
    assert list(card) == MNIST_SAMPLERS
    y = torch.arange(100) % 10
    states = ddim_sample(model, (100, 1, 28, 28), steps=20, y=y, clip=1.0, generator=generator(3))
    few = feature_distance(to_unit(last(states)), "mnist")
    real = feature_distance(load_mnist("train")[0][:100], "mnist")
    assert few < card[20, 0.0] + real  # 100 images lie farther than 1,000, real ones as well


def test_a_classifier_reads_the_digits_that_were_asked_for():
    """Class by class: the course's own classifier sees the class that the DDPM was told."""
    y = torch.arange(100) % 10
    states = ddim_sample(
        load_pretrained("ddpm_mnist"),
        (100, 1, 28, 28),
        steps=12,
        eta=1.0,
        y=y,
        clip=1.0,
        generator=generator(1),
    )
    with torch.no_grad():
        read = load_pretrained("classifier_mnist")(to_unit(last(states))).argmax(dim=1)
    assert (read == y).float().mean().item() > 0.9


def test_the_chapters_claims_about_quality():
    """Nearer to real digits than every earlier chapter's samples, on both data sets."""
    for data in ("digits", "mnist"):
        best = min(distances(f"ddpm_{data}").values())
        for name in ("vae", "nice", "realnvp", "glow"):
            earlier = load_card(f"{name}_{data}")["metrics"]["feature distance, 1,000 samples"]
            assert best < earlier
    real = load_card("classifier_mnist")["metrics"]
    best = distances("ddpm_mnist")[50, 1.0]
    assert best < real[FLOOR] + 2 * real[f"{FLOOR}, spread"], "on MNIST hardly to be told from real"


def test_the_chapters_claims_about_steps():
    """The shape of DDIM's table: without noise few steps do, with much noise they don't."""
    card = distances("ddpm_digits")
    still = [card[steps, 0.0] for steps in (5, 10, 20)]
    assert still == sorted(still, reverse=True)
    assert card[5, 1.0] > card[5, 0.0]
    assert card[20, 0.0] < 2 * card[400, 0.0]


def test_the_chapters_claims_about_noise():
    """No noise is better than DDPM's on the digits, as in the paper, and worse on MNIST."""
    card, cosine, mnist = map(distances, ("ddpm_digits", "ddpm_digits_cosine", "ddpm_mnist"))
    assert all(card[steps, 0.0] < card[steps, 1.0] for steps in DIGITS_STEPS)
    assert mnist[50, 1.0] < mnist[50, 0.0]
    assert cosine[5, 0.0] < card[5, 0.0] / 2
    assert card[10, 0.0] / card[400, 0.0] < 13.36 / 4.04  # flatter than the paper's table 1
    beta = {row["steps"]: row["distance"] for row in load_card("ddpm_digits")["metrics"][BETA]}
    assert card[400, 0.0] < beta[400], "not the best of all with all steps"
    assert beta[10] < card[10, 1.0], "nor the worst with few"


def test_the_chapters_claims_about_the_cosine_schedule():
    """Better samples and a worse bound; it starts with less noise."""
    linear, cosine = map(load_card, ("ddpm_digits", "ddpm_digits_cosine"))
    for variance in VARIANCES:
        assert bounds(linear["metrics"])[variance][NATS] < bounds(cosine["metrics"])[variance][NATS]
    assert distances("ddpm_digits_cosine")[400, 1.0] < distances("ddpm_digits")[400, 1.0]
    starts = [
        make(400).log_snr(0).item() for make in (DiscreteSchedule.linear, DiscreteSchedule.cosine)
    ]
    assert [round(start, 1) for start in starts] == [8.3, 9.1]


def test_sampler_metrics_start_from_the_same_noise_and_see_every_class():
    class Mean(TimeMLP):
        """Notes what it is given."""

        event_shape = (1, 8, 8)

        def forward(self, x, t, y=None):
            seen.append((x.clone(), y))
            return torch.zeros_like(x)

    seen = []
    net = Mean(2, n_classes=10)
    net.event_shape = (1, 8, 8)
    sampler_metrics(DDPM(net, DiscreteSchedule.linear(20)), "digits", [(1, 0.0), (1, 0.5)])
    assert len(seen) == 20  # ten batches of 100, twice
    for first, second in zip(seen[:10], seen[10:], strict=True):
        assert torch.equal(first[0], second[0])
        assert first[1].bincount().tolist() == [10] * 10
    assert not torch.equal(seen[0][0], seen[1][0])


def test_samples_are_strokes_not_speckles():
    """As in real digits nearly all ink hangs together in one piece."""
    images = to_unit(load_pretrained("ddpm_digits").sample(16, clip=1.0, generator=generator()))
    shares = []
    for image in images[:, 0].numpy():
        ink = image > 0.5
        pieces, _ = ndimage.label(ink, structure=[[1, 1, 1]] * 3)
        sizes = [(pieces == k).sum() for k in range(1, pieces.max() + 1)]
        shares.append(max(sizes) / ink.sum())
    assert sum(shares) / len(shares) > 0.95
