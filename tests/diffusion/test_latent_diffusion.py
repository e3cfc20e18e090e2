"""Latent diffusion: EDM on scaled codes, told a text; images that are given, whole or in part."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from course_lib.data import to_signed
from course_lib.diffusion import (
    EDM,
    ClassifierFreeGuidance,
    ControlledDiffusion,
    ControlNet,
    Denoiser,
    EDMPath,
    IdealDenoiser,
    Inpainting,
    LatentDiffusion,
    Prompted,
    StraightPath,
    VPPath,
    ddim_sample,
    dpm_solver_sample,
    euler_maruyama,
    heun_sample,
    karras_times,
    keep_known,
    last,
    ode_sample,
    on_path,
)
from course_lib.latent import KLAutoencoder
from course_lib.nn import MMDiT, TextEncoder, UNet, WordTokenizer
from tests.diffusion.conftest import randn, refuses, seeded

WORDS = ["a", "red", "blue", "3", "7", "above"]
PROMPTS = ["a red 3", "a blue 7 above a red 3", ""]
LENGTH = 8


def text_encoder(**options):
    encoder = TextEncoder(WordTokenizer(WORDS, length=LENGTH), dim=8, heads=2, **options)
    return encoder.double()


def alive(network):
    """The network with numbers in place of the zeros that it starts with."""
    generator = seeded(3)
    with torch.no_grad():
        for p in network.parameters():
            if not p.any():
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return network


def system(**options):
    """A small system, untrained and in double precision: images [3, 8, 8], latents [2, 4, 4]."""
    unet = alive(UNet((2, 4, 4), widths=(8, 16), context_dim=8, heads=2, scale=1000.0))
    autoencoder = KLAutoencoder((3, 8, 8), channels=2, factor=2, width=8)
    autoencoder.latent_scale.fill_(1.75)
    return LatentDiffusion(autoencoder, unet, text_encoder(), **options).double()


def images(n=3, seed=0):
    return torch.rand((n, 3, 8, 8), generator=seeded(seed), dtype=torch.float64)


def close(got, wanted, **tolerances):
    torch.testing.assert_close(got, wanted, **({"rtol": 1e-9, "atol": 1e-9} | tolerances))


def levels_of(model):
    """The noise levels at which the network is asked, as they come: a list that fills."""
    seen = []
    model.denoiser.net.register_forward_hook(lambda _, given, __: seen.append(given[1][0].item()))
    return seen


# --- the network that is told a text -----------------------------------------------------------


def test_tokens_are_labels():
    model = system()
    net, y = model.denoiser.net.net, model.text_encoder.tokenizer(PROMPTS)
    x, t = randn(3, 2, 4, 4), torch.tensor([0.1, 0.2, 0.3]).double()
    context, mask = model.text_encoder(y), y != 0
    close(net(x, t, y), model.model(x, t, context=context, mask=mask))
    assert (net(x, t, y) - net(x, t, y.flip(0))).abs().max() > 1e-3
    assert net.event_shape == model.denoiser.event_shape == (2, 4, 4)
    assert net.null_class == model.denoiser.null_class == (1, 0, 0, 0, 0, 0, 0, 0)
    close(net(x, t), net(x, t, model.text_encoder.tokenizer([""] * 3)))


def test_a_prompt_says_the_same_alone_and_in_a_batch():
    model = system()
    y = model.text_encoder.tokenizer(PROMPTS)
    together, x = model.text_encoder(y), randn(3, 2, 4, 4)
    said = model.denoiser.predict_x0(x, 1.0, y=y)
    for i in range(3):
        close(model.text_encoder(y[i : i + 1]), together[i : i + 1])
        close(model.denoiser.predict_x0(x[i : i + 1], 1.0, y=y[i : i + 1]), said[i : i + 1])
    z = 80 * randn(3, 2, 4, 4)
    drawn = model.sample(PROMPTS, z=z, steps=3)
    for i in range(3):
        close(
            model.sample(PROMPTS[i : i + 1], z=z[i : i + 1], steps=3), drawn[i : i + 1], rtol=1e-6
        )


def test_the_parts_are_those_that_were_given():
    unet, autoencoder, encoder = UNet((4, 2, 2), widths=(8,), context_dim=8), None, text_encoder()
    autoencoder = KLAutoencoder((3, 8, 8))
    model = LatentDiffusion(autoencoder, unet.double(), encoder)
    assert (model.model, model.text_encoder, model.autoencoder) == (unet, encoder, autoencoder)
    assert isinstance(model.denoiser, EDM)
    assert (model.denoiser.sigma_data, model.denoiser.p_mean, model.denoiser.p_std) == (
        1,
        -0.4,
        1.2,
    )
    assert model.denoiser.drop == 0.1
    starts = {name.split(".net.net.")[0] for name in model.state_dict() if "denoiser" in name}
    assert starts == {"denoiser"}
    assert {name.split(".")[3] for name in model.state_dict() if "denoiser" in name} == {
        *("unet", "text_encoder")
    }


# --- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_the_loss_is_edms_on_latents(drop):
    """Worked out: draws of the code, the levels, the noise, and who is hidden, in this order."""
    model, n = system(drop=drop), 6
    x = to_signed(images(n))
    y = model.text_encoder.tokenizer([*PROMPTS, *PROMPTS])
    loss = model.loss(x, y, generator=seeded(4))
    assert torch.equal(loss, model.loss(x, y, generator=seeded(4)))

    generator = seeded(4)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    mu, log_var = model.autoencoder.encode(x)
    latent = 1.75 * (mu + (log_var / 2).exp() * draw(*mu.shape))
    sigma = (-0.4 + 1.2 * draw(n)).exp().clamp(0.002, 80)
    eps = draw(*latent.shape)
    if drop:
        hidden = torch.rand(n, 1, generator=generator) < drop
        assert 0 < hidden.sum() < n
        y = torch.where(hidden, model.text_encoder.tokenizer([""]), y)
    guess = model.denoiser.predict_x0(latent + sigma.reshape(n, 1, 1, 1) * eps, sigma, y=y)
    squared = ((guess - latent) ** 2).mean(dim=(1, 2, 3))
    close(loss, ((sigma**2 + 1) / sigma**2 * squared).mean())


def test_the_autoencoder_stays_as_it_is_and_the_rest_learns():
    model = system(drop=0.0)
    assert not model.autoencoder.training
    assert model.training
    assert model.train() is model
    assert not any(part.training for part in model.autoencoder.modules())
    assert all(part.training for part in model.denoiser.modules())
    assert not any(part.training for part in model.eval().modules())
    assert model.train(False).denoiser.training is False
    y = model.text_encoder.tokenizer(PROMPTS)
    model.loss(to_signed(images()), y, generator=seeded()).backward()
    assert all(p.grad is None and not p.requires_grad for p in model.autoencoder.parameters())
    for part in (model.model, model.text_encoder):
        untouched = [name for name, p in part.named_parameters() if p.grad is None]
        assert untouched == []
    assert model.text_encoder.words.weight.grad[2].any()


def test_the_share_of_captions_that_are_hidden():
    model = system(drop=0.1)
    y = model.text_encoder.tokenizer(["a red 3"]).expand(20_000, -1)
    shown = model.denoiser.hide(y, generator=seeded())
    empty = model.text_encoder.tokenizer([""])
    hidden = (shown == empty).all(1)
    assert (shown[~hidden] == y[0]).all()
    share = hidden.double().mean()
    assert abs(share - 0.1) < 4 * (0.09 / 20_000) ** 0.5
    assert torch.equal(shown, model.denoiser.hide(y, generator=seeded()))
    assert torch.equal(system(drop=0.0).denoiser.hide(y), y)
    assert model.denoiser.hide(None) is None


def test_a_hidden_caption_is_the_empty_prompt():
    model, x = system(drop=1.0), to_signed(images())
    y = model.text_encoder.tokenizer(PROMPTS)
    empty = model.text_encoder.tokenizer([""] * 3)
    assert torch.equal(model.denoiser.hide(y), empty)
    hidden = model.loss(x, y, generator=seeded())
    assert torch.equal(hidden, model.loss(x, empty, generator=seeded()))
    told = system(drop=0.0)
    assert told.loss(x, y, generator=seeded()) != told.loss(x, empty, generator=seeded())


# --- guidance ----------------------------------------------------------------------------------


def test_scales_0_and_1_are_the_model_without_and_with_its_prompt():
    model, x = system(), randn(3, 2, 4, 4)
    y = model.text_encoder.tokenizer(PROMPTS)
    for scale, prompts in ((0.0, [""] * 3), (1.0, PROMPTS)):
        guided, told = model.told(PROMPTS, scale=scale)
        assert torch.equal(told, y)
        wanted = model.denoiser.predict_x0(x, 0.5, y=model.text_encoder.tokenizer(prompts))
        close(guided.predict_x0(x, 0.5, y=told), wanted)


@pytest.mark.parametrize("negative", ["", "a blue 7"])
def test_one_call_of_twice_the_batch_leads_from_one_prompt_to_the_other(negative):
    model, x = system(), randn(3, 2, 4, 4)
    y = model.text_encoder.tokenizer(PROMPTS)
    away = model.text_encoder.tokenizer([negative] * 3)
    batches = []
    model.model.register_forward_hook(lambda _, given, __: batches.append(len(given[0])))
    guided, _ = model.told(PROMPTS, scale=2.5, negative=negative)
    got = guided.predict_x0(x, 0.5, y=y)
    assert batches == [6]
    towards, from_there = (model.denoiser.predict_x0(x, 0.5, y=labels) for labels in (y, away))
    close(got, from_there + 2.5 * (towards - from_there))
    assert (got - towards)[:2].abs().max() > 1e-3


def test_a_negative_prompt_may_be_one_for_all_or_each_his_own():
    model, x = system(), randn(3, 2, 4, 4)
    y = model.text_encoder.tokenizer(PROMPTS)
    own = model.text_encoder.tokenizer(["a", "blue", "3"])
    got = ClassifierFreeGuidance(model.denoiser, 3.0, negative=own).predict_x0(x, 0.5, y=y)
    for i in range(3):
        one = ClassifierFreeGuidance(model.denoiser, 3.0, negative=own[i : i + 1])
        close(one.predict_x0(x, 0.5, y=y)[i], got[i])
    nothing = ClassifierFreeGuidance(model.denoiser, 3.0)
    empty = model.text_encoder.tokenizer([""])
    named = ClassifierFreeGuidance(model.denoiser, 3.0, negative=empty)
    close(nothing.predict_x0(x, 0.5, y=y), named.predict_x0(x, 0.5, y=y))


# --- sampling ----------------------------------------------------------------------------------


def test_samples_are_the_images_of_the_last_latents():
    model = system()
    states = list(model.states(PROMPTS, generator=seeded(1), steps=4))
    assert len(states) == 5
    assert all(state.shape == (3, 2, 4, 4) for state in states)
    got = model.sample(PROMPTS, generator=seeded(1), steps=4)
    wanted = ((model.autoencoder.decode(states[-1] / 1.75) + 1) / 2).clamp(0, 1)
    close(got, wanted.detach())
    assert torch.equal(got, model.to_images(states[-1]))
    assert not got.requires_grad
    assert torch.equal(got, model.sample(PROMPTS, generator=seeded(1), steps=4))
    assert not torch.equal(got, model.sample(PROMPTS, generator=seeded(2), steps=4))
    guided, y = model.told(PROMPTS, scale=3.0)
    by_hand = last(dpm_solver_sample(guided, (3, 2, 4, 4), steps=4, y=y, generator=seeded(1)))
    assert torch.equal(by_hand, states[-1])
    assert torch.equal(states[0], 80 * model.denoiser.noise((3, 2, 4, 4), seeded(1)))
    given = list(model.states(PROMPTS, z=states[0], steps=4))
    assert torch.equal(given[-1], states[-1])


def test_twelve_steps_with_scale_three_away_from_nothing():
    model = system()
    state = torch.get_rng_state()
    got = list(model.states(PROMPTS, generator=seeded()))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(got) == 13
    named = model.states(PROMPTS, scale=3.0, negative="", steps=12, generator=seeded())
    assert torch.equal(got[-1], last(named))
    for other in ({"scale": 2.0}, {"negative": "a blue 7"}):
        assert (
            last(model.states(PROMPTS, generator=seeded(), **other)) - got[-1]
        ).abs().max() > 1e-6


SAMPLERS = {
    "Heun": heun_sample,
    "churn": partial(heun_sample, churn=2.0),
    "DPM-Solver++": dpm_solver_sample,
    "ODE": ode_sample,
    "Euler-Maruyama": euler_maruyama,
    "DDIM": lambda model, shape, **options: ddim_sample(on_path(model, VPPath()), shape, **options),
    "flow": lambda model, shape, **options: ode_sample(
        on_path(model, StraightPath()), shape, **options
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_from_it(name):
    model = system()
    got = model.sample(PROMPTS, sampler=SAMPLERS[name], steps=4, generator=seeded(1))
    assert got.shape == (3, 3, 8, 8)
    assert got.min() >= 0
    assert got.max() <= 1
    again = model.sample(PROMPTS, sampler=SAMPLERS[name], steps=4, generator=seeded(1))
    assert torch.equal(got, again)
    other = model.sample(["a"] * 3, sampler=SAMPLERS[name], steps=4, generator=seeded(1))
    assert (got - other).abs().max() > 1e-5


# --- image to image ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strength", "left"), [(0.0, 2), (0.1, 2), (0.3, 3), (0.5, 5), (0.74, 7), (1.0, 10)]
)
def test_strength_is_the_share_of_the_steps_that_are_taken(strength, left):
    model = system()
    seen = levels_of(model)
    model.image_to_image(images(), PROMPTS, strength=strength, steps=10)
    wanted = karras_times(10, sigma_min=0.002, sigma_max=80.0)[-left:]
    close(torch.tensor(seen), torch.tensor(wanted), rtol=1e-5, atol=0)


def test_little_strength_keeps_the_image_and_the_most_forgets_it():
    model, x = system(), images()
    mu, _ = model.autoencoder.encode(to_signed(x))
    with torch.no_grad():  # an autoencoder without spread: the draw is the mean
        model.autoencoder.encoder[-1].bias[2:] = -30
        model.autoencoder.encoder[-1].weight[2:] = 0
        model.model.last.weight.zero_()  # and a guess that is smooth: for latents from N(0, I)
    options = {"scale": 1.0, "steps": 40, "generator": seeded()}
    kept = model.image_to_image(x, PROMPTS, strength=0.0, **options)
    assert kept.shape == x.shape
    generator = seeded(1)
    forgotten = model.image_to_image(x, PROMPTS, strength=1.0, generator=generator)
    generator = seeded(1)
    model.denoiser.noise(mu.shape, generator)  # that of the code
    eps = model.denoiser.noise(mu.shape, generator)
    drawn = model.sample(PROMPTS, z=80 * eps)
    far = (model.to_images(1.75 * mu) - drawn).abs().max()
    assert (kept - model.to_images(1.75 * mu)).abs().max() < 0.05 * far
    assert (forgotten - drawn).abs().max() < 0.05 * far
    begun = model.sample(PROMPTS, z=80 * eps + 1.75 * mu)
    assert (forgotten - begun).abs().max() < 1e-5


# --- a rectified flow -----------------------------------------------------------------------------


def test_on_a_straight_path_an_image_begins_as_far_on_as_strength_says():
    model, x = system(path=StraightPath()), images()
    seen, given = levels_of(model), []
    model.denoiser.net.register_forward_hook(lambda _, args, __: given.append(args[0][:3]))
    options = {"steps": 10, "scale": 1.0}
    got = model.image_to_image(x, PROMPTS, strength=0.4, generator=seeded(2), **options)
    close(torch.tensor(seen), torch.tensor([0.4, 0.3, 0.2, 0.1]), rtol=1e-5, atol=0)
    generator = seeded(2)
    latent = model.autoencoder.to_latent(to_signed(x), generator=generator)
    eps = model.denoiser.noise(latent.shape, generator)
    close(given[0], 0.6 * latent + 0.4 * eps)
    assert got.shape == x.shape
    # At full strength nothing is left of the image: it is a sample, from the same noise.
    forgotten = model.image_to_image(x, PROMPTS, strength=1.0, generator=seeded(2), **options)
    close(forgotten, model.sample(PROMPTS, z=eps, **options), rtol=1e-6, atol=1e-6)


def test_a_straight_path_is_controlled_and_does_not_fill_in():
    model = system(path=StraightPath())
    with refuses("inpaint must be asked of a model of EDM, got a FlowMatching"):
        model.inpaint(images(), half(), PROMPTS)
    control = (ControlNet(model.model, 1, factor=2).double(), torch.ones(3, 1, 8, 8).double(), 1.0)
    controlled = model.controlled([control])
    assert controlled.predicts == "velocity"
    assert controlled.path is model.denoiser.path
    z, y = randn(3, 2, 4, 4), model.text_encoder.tokenizer(PROMPTS)
    wanted = model.denoiser.predict_x0(z, 0.5, y=y)  # zero convolutions: nothing changes at first
    close(controlled.predict_x0(z, 0.5, y=y), wanted)


def test_a_transformer_takes_no_controls():
    net = MMDiT((2, 4, 4), dim=8, depth=1, heads=2, context_dim=8)
    autoencoder = KLAutoencoder((3, 8, 8), channels=2, factor=2, width=8)
    model = LatentDiffusion(autoencoder, net.double(), text_encoder(), path=StraightPath()).double()
    control = ControlNet(system().model, 1, factor=2), torch.ones(3, 1, 8, 8), 1.0
    with refuses("controls must be () unless the model is a UNet, got some for a MMDiT"):
        model.sample(PROMPTS, controls=[control])


def test_image_to_image_is_guided_and_follows_its_generator():
    model, x, options = system(), images(), {"strength": 0.6, "steps": 5}
    got = model.image_to_image(x, PROMPTS, generator=seeded(), **options)
    assert torch.equal(got, model.image_to_image(x, PROMPTS, generator=seeded(), **options))
    for more in ({"scale": 1.0}, {"negative": "a blue 7"}):
        other = model.image_to_image(x, PROMPTS, generator=seeded(), **options, **more)
        assert (got - other).abs().max() > 1e-5
    same = model.image_to_image(x, PROMPTS, generator=seeded(), scale=3.0, negative="", **options)
    assert torch.equal(got, same)
    asked = model.image_to_image(x.requires_grad_(), PROMPTS, generator=seeded(), **options)
    assert not asked.requires_grad


# --- given in part -----------------------------------------------------------------------------


def half(n=3):
    keep = torch.zeros(n, 1, 8, 8, dtype=torch.bool)
    keep[..., :5] = True  # squares of two: the third column of squares is known in part only
    return keep


def test_what_is_known_is_kept_bit_for_bit():
    model, x = system(), images()
    for sampler in (dpm_solver_sample, partial(heun_sample, churn=3.0)):
        got = model.inpaint(x, half(), PROMPTS, steps=4, sampler=sampler, generator=seeded())
        assert torch.equal(got[..., :5], x[..., :5])
        assert (got[..., 5:] != x[..., 5:]).all()
        assert got.min() >= 0
        assert got.max() <= 1


def test_what_stands_in_the_hole_changes_nothing():
    model, x, other = system(), images(), images(seed=1)
    got = model.inpaint(x, half(), PROMPTS, steps=4, generator=seeded())
    mixed = torch.where(half(), x, other)
    assert torch.equal(got, model.inpaint(mixed, half(), PROMPTS, steps=4, generator=seeded()))
    changed = torch.where(half(), other, x)
    there = model.inpaint(changed, half(), PROMPTS, steps=4, generator=seeded())
    assert (got - there)[..., 5:].abs().max() > 1e-5


def test_known_latents_are_those_whose_squares_are_known(monkeypatch):
    model, x, given = system(), images(), []

    class Watched(Inpainting):
        def __init__(self, model, known, keep, **options):
            super().__init__(model, known, keep, **options)
            given.append(self)

    monkeypatch.setattr("course_lib.diffusion.latent_diffusion.Inpainting", Watched)
    states = []

    def watched(*arguments, **options):
        for state in dpm_solver_sample(*arguments, **options):
            states.append(state)
            yield state

    keep = half()
    keep[1, 0, 3, 2] = False
    got = model.inpaint(x, keep, PROMPTS, steps=4, sampler=watched, generator=seeded(9))
    (model_of_the_rest,) = given
    squares = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    squares[..., :2] = True
    squares[1, 0, 1, 1] = False
    assert torch.equal(model_of_the_rest.keep, squares)
    known = model.autoencoder.to_latent(2 * (x * keep) - 1, generator=seeded(9))
    assert torch.equal(model_of_the_rest.known, known)
    where = squares.expand_as(known)
    assert torch.equal(states[-1][where], known[where])
    assert (states[-1][~where] != known[~where]).all()
    assert torch.equal(got, torch.where(keep, x, model.to_images(states[-1])))


def test_all_known_is_the_image_and_nothing_known_is_a_sample():
    model, x = system(), images()
    every = torch.ones(3, 1, 8, 8, dtype=torch.bool)
    assert torch.equal(model.inpaint(x, every, PROMPTS, steps=3), x)
    generator = seeded(5)
    got = model.inpaint(x, ~every, PROMPTS, steps=3, generator=generator)
    generator = seeded(5)
    for _ in range(2):  # of the code, and of the known part
        model.denoiser.noise((3, 2, 4, 4), generator)
    assert torch.equal(got, model.sample(PROMPTS, steps=3, generator=generator))


def test_inpainting_is_guided():
    model, x = system(), images()
    got = model.inpaint(x, half(), PROMPTS, generator=seeded())
    same = model.inpaint(x, half(), PROMPTS, steps=12, scale=3.0, negative="", generator=seeded())
    assert torch.equal(got, same)
    for more in ({"scale": 1.0}, {"negative": "a blue 7"}):
        other = model.inpaint(x, half(), PROMPTS, generator=seeded(), **more)
        assert (got - other).abs().max() > 1e-5
    asked = model.inpaint(x.requires_grad_(), half(), PROMPTS, steps=3)
    assert not asked.requires_grad


# --- the model that knows a part, where all is known exactly ------------------------------------

CENTRES = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)


def two_clouds(std=0.2, path=None):
    path = EDMPath() if path is None else path
    return Denoiser(IdealDenoiser(CENTRES, path, std=std), path).double()


def given_first(value, n):
    known = torch.zeros(n, 2, dtype=torch.float64)
    known[:, 0] = value
    keep = torch.tensor([[True, False]]).expand(n, 2)
    return known, keep


def test_the_known_part_is_seen_noised_and_guessed_right():
    known, keep = given_first(0.5, 4)
    model = Inpainting(two_clouds(), known, keep, generator=seeded(2))
    eps = torch.randn(4, 2, generator=seeded(2), dtype=torch.float64)
    assert torch.equal(model.eps, eps)
    x = randn(4, 2)
    for t in (0.01, 1.0, 30.0):
        guess = model.predict_x0(x, t)
        assert torch.equal(guess[:, 0], known[:, 0])
        seen = torch.stack([0.5 + t * eps[:, 0], x[:, 1]], dim=1)
        close(guess[:, 1], two_clouds().predict_x0(seen, t)[:, 1])
    assert model.event_shape == (2,)
    assert model.predicts == "x0"
    assert torch.equal(keep_known(x, known, keep), torch.stack([known[:, 0], x[:, 1]], dim=1))


def test_on_another_path_the_known_part_is_noised_as_there():
    path, (known, keep) = VPPath(), given_first(0.5, 4)
    model = Inpainting(two_clouds(path=path), known, keep, generator=seeded(2))
    t, x = 0.4, randn(4, 2)
    a, b = (f(torch.tensor(t).double()) for f in (path.a, path.b))
    seen = torch.stack([a * 0.5 + b * model.eps[:, 0], x[:, 1]], dim=1)
    close(model.predict_x0(x, t)[:, 1], two_clouds(path=path).predict_x0(seen, t)[:, 1], rtol=1e-6)
    end = last(ddim_sample(model, (4, 2), steps=20, generator=seeded()))
    close(end[:, 0], known[:, 0])


def wrong_cloud(value, *, std=0.2, steps=40, n=2000, sampler=dpm_solver_sample):
    """The share in the cloud at −1 of the second number, given the first; and the exact share."""
    known, keep = given_first(value, n)
    generator = seeded(1)
    model = Inpainting(two_clouds(std), known, keep, generator=generator)
    x = last(sampler(model, (n, 2), steps=steps, generator=generator))
    assert torch.equal(x[:, 0], known[:, 0])
    exact = torch.sigmoid(torch.tensor(-2 * value / std**2, dtype=torch.float64)).item()
    return (x[:, 1] < 0).double().mean().item(), exact, x[:, 1]


def test_where_the_known_part_says_nothing_draws_are_from_the_conditional_distribution():
    """One cloud: its numbers are independent, the rest is N(1, 0.2²). Half way: either cloud."""
    path = EDMPath()
    one = Denoiser(IdealDenoiser(CENTRES[1:], path, std=0.2), path).double()
    known, keep = given_first(0.7, 2000)
    x = last(
        dpm_solver_sample(Inpainting(one, known, keep), (2000, 2), steps=40, generator=seeded())
    )
    assert abs(x[:, 1].mean() - 1) < 4 * 0.2 / 2000**0.5
    assert abs(x[:, 1].std() / 0.2 - 1) < 0.08
    share, exact, _ = wrong_cloud(0.0)
    assert exact == 0.5
    assert abs(share - 0.5) < 4 * 0.5 / 2000**0.5


def test_simple_mixing_is_biased_and_fresh_noise_helps():
    """The figures that ``Inpainting`` and the chapter give."""
    share, exact, other = wrong_cloud(1.0)
    assert exact < 1e-20
    assert abs(share - 0.17) < 0.03
    # More steps are no help: it isn't the solver's error.
    assert abs(wrong_cloud(1.0, steps=120)[0] - share) < 0.01
    # In the right cloud it is on the way from the wrong one: N(1, 0.2²) would be right.
    right = other[other > 0]
    assert abs(right.mean() - 0.88) < 0.02
    assert abs(right.std() - 0.27) < 0.02
    # Less clear evidence is followed less: 7 in 1,000 would be right.
    share, exact, _ = wrong_cloud(0.1)
    assert abs(exact - 0.0067) < 1e-4
    assert abs(share - 0.47) < 0.04
    # Fresh noise lets it decide again.
    fresh, _, _ = wrong_cloud(1.0, steps=160, n=1000, sampler=partial(heun_sample, churn=32.0))
    assert abs(fresh - 0.06) < 0.025


# --- a control is trained ------------------------------------------------------------------------


def test_a_control_is_trained_on_the_models_own_loss():
    model = system(drop=0.5)
    x, y = to_signed(images()), model.text_encoder.tokenizer(PROMPTS)
    alone = model.loss(x, y, generator=seeded(2))
    net = ControlNet(model.model, 1, factor=2).double()
    training = ControlledDiffusion(model, net)
    condition = randn(3, 1, 8, 8)
    loss = training.loss(x, y, condition, generator=seeded(2))
    close(loss, alone)  # at the start it adds nothing
    awake = alive(ControlNet(model.model, 1, factor=2)).double()
    one = model.controlled([(awake, condition, 1.0)])  # and later it is added once
    latent, generator = model.autoencoder.to_latent(x, generator=seeded(2)), seeded(2)
    model.autoencoder.to_latent(x, generator=generator)
    wanted = one.loss(latent, y, generator=generator)
    close(ControlledDiffusion(model, awake).loss(x, y, condition, generator=seeded(2)), wanted)
    loss.backward()
    assert all(p.grad is None for p in model.parameters())
    assert any(p.grad is not None and p.grad.any() for p in net.parameters())
    assert {name.split(".")[0] for name in training.state_dict()} == {"control_net"}


def test_a_controlled_model_is_the_same_but_for_its_controls():
    model = system(drop=0.25)
    assert model.controlled(()) is model.denoiser
    net = alive(ControlNet(model.model, 1, factor=2)).double()
    condition = randn(3, 1, 8, 8)
    controlled, y = model.controlled([(net, condition, 1.0)]), model.text_encoder.tokenizer(PROMPTS)
    for name in ("sigma_data", "p_mean", "p_std", "path", "drop", "null_class", "dtype"):
        assert getattr(controlled, name) == getattr(model.denoiser, name)
    x = randn(3, 2, 4, 4)
    plain = model.denoiser.predict_x0(x, 1.0, y=y)
    assert (controlled.predict_x0(x, 1.0, y=y) - plain).abs().max() > 1e-4
    none = model.controlled([(net, condition, 0.0)])
    close(none.predict_x0(x, 1.0, y=y), plain)
    options = {"steps": 3, "generator": seeded()}
    drawn = model.sample(PROMPTS, controls=[(net, condition, 1.0)], **options)
    assert drawn.shape == (3, 3, 8, 8)
    guided, _ = model.told(PROMPTS, controls=[(net, condition, 1.0)])
    assert (guided.predict_x0(x, 1.0, y=y) - model.told(PROMPTS)[0].predict_x0(x, 1.0, y=y)).any()


# --- bad input ---------------------------------------------------------------------------------


def test_bad_parts_are_named():
    unet = UNet((2, 4, 4), widths=(8,), context_dim=8, heads=2).double()
    autoencoder = KLAutoencoder((3, 8, 8), channels=2, factor=2, width=8).double()
    encoder = text_encoder()
    with refuses("autoencoder must be a KLAutoencoder, got Identity"):
        LatentDiffusion(nn.Identity(), unet, encoder)
    with refuses("model must be a network on latents (2, 4, 4), got UNet on (4, 4, 4)"):
        LatentDiffusion(autoencoder, UNet((4, 4, 4), widths=(8,), context_dim=8), encoder)
    with refuses("model must be a network on latents (2, 4, 4), got Identity on None"):
        LatentDiffusion(autoencoder, nn.Identity(), encoder)
    with refuses("text_encoder must be a TextEncoder, got Identity"):
        LatentDiffusion(autoencoder, unet, nn.Identity())
    for other, got in ((UNet((2, 4, 4), widths=(8,)), None), (nn.Identity(), None)):
        with refuses(f"unet must have the context_dim 8 of the text encoder, got {got}"):
            Prompted(other, encoder)
    with refuses("unet must have the context_dim 8 of the text encoder, got 16"):
        Prompted(UNet((2, 4, 4), widths=(16,), context_dim=16), encoder)
    with refuses("drop must be a number from 0 to 1, got 1.5"):
        LatentDiffusion(autoencoder, unet, encoder, drop=1.5)


def test_bad_prompts_are_named_before_any_work():
    model, x = system(), images()
    keep = half()
    for call in (
        lambda prompts: model.sample(prompts),
        lambda prompts: model.image_to_image(x, prompts, strength=0.5),
        lambda prompts: model.inpaint(x, keep, prompts),
        lambda prompts: model.told(["a", "a"], negative=prompts[0]) if prompts else model.told([]),
    ):
        with pytest.raises(ValueError, match=r"prompts must be made of the words .* got 'green'"):
            call(["a green 3", "a", "a"])
        with refuses("prompts must be a list of one or more sentences, got []"):
            call([])


def test_bad_options_are_named_at_the_call():
    model = system()
    for options, message in (
        ({"scale": math.nan}, "scale must be a finite number of at least -inf, got nan"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"z": randn(2, 2, 4, 4)}, "z must have shape [3, 2, 4, 4], got [2, 2, 4, 4]"),
        ({"generator": 3}, "generator must be a torch.Generator or None, got 3"),
        ({"negative": 3}, "prompts must be sentences, got 3"),
    ):
        with refuses(message):
            model.states(PROMPTS, **options)


def test_controls_of_other_prompts_are_refused():
    model = system()
    net = ControlNet(model.model, 1, factor=2).double()
    for n in (2, 6):  # 6 is as many as guidance asks for: the halves would see other conditions
        with refuses(f"condition must be one image for all prompts or 3, got {n}"):
            model.states(PROMPTS, controls=[(net, randn(n, 1, 8, 8), 1.0)])
    assert model.sample(PROMPTS, steps=2, controls=[(net, randn(1, 1, 8, 8), 1.0)]).shape[0] == 3
    for bad, got in ((3, "int"), ([net], "list"), ([(net, randn(3, 1, 8, 8))], "list")):
        with refuses(f"controls must be a list of (control_net, condition, strength), got {got}"):
            model.states(PROMPTS, controls=bad)


def test_what_trains_a_control_names_bad_parts():
    model = system()
    net = ControlNet(model.model, 1, factor=2)
    with refuses("diffusion must be a LatentDiffusion, got UNet"):
        ControlledDiffusion(model.model, net)
    with refuses("control_net must be a ControlNet, got UNet"):
        ControlledDiffusion(model, model.model)


def test_bad_tokens_are_named():
    model, x = system(), randn(3, 2, 4, 4)
    y = model.text_encoder.tokenizer(PROMPTS)
    for bad, got in (
        (y[:2], "torch.int64 [2, 8]"),
        (y[:, :7], "torch.int64 [3, 7]"),
        (y[0], "torch.int64 [8]"),
        (y.double(), "torch.float64 [3, 8]"),
        (3, "3"),
    ):
        with refuses(f"y must be int64 tokens [3, 8], got {got}"):
            model.denoiser.net.net(x, torch.ones(3).double(), bad)
        with refuses(f"y must be int64 tokens [3, 8], got {got}"):
            model.told(PROMPTS)[0].predict_x0(x, 1.0, y=bad)
    with refuses("y must be int64 tokens [3, 8], got None"):
        model.told(PROMPTS)[0].predict_x0(x, 1.0)
    # Hidden at random a row alone would become a square.
    eight = system(drop=0.5).loss
    with refuses("y must be int64 tokens [B, 8], got torch.int64 [8]"):
        eight(to_signed(images(8)), y[0])
    for bad, got in ((y[:, :7], "torch.int64 [3, 7]"), (1, "1"), (y[0], "torch.int64 [8]")):
        with refuses(f"negative must be int64 tokens [B, 8], got {got}"):
            ClassifierFreeGuidance(model.denoiser, 2.0, negative=bad)
    guided = ClassifierFreeGuidance(model.denoiser, 2.0, negative=y[:2])
    with refuses("negative must be int64 tokens [3, 8], got torch.int64 [2, 8]"):
        guided.predict_x0(x, 1.0, y=y)


@pytest.mark.parametrize("call", ["image_to_image", "inpaint"])
def test_bad_images_are_named(call):
    model = system()

    def run(x):
        if call == "inpaint":
            return model.inpaint(x, half(), PROMPTS)
        return model.image_to_image(x, PROMPTS, strength=0.5)

    x = images()
    for bad, message in (
        (x[..., :4], "x must have shape [3, 3, 8, 8], got [3, 3, 8, 4]"),
        (x[:2], "x must have shape [3, 3, 8, 8], got [2, 3, 8, 8]"),
        (x.float(), "x must be torch.float64 like the model, got torch.float32"),
        (x * math.nan, "x must be finite, got NaN or infinite values"),
        (x - 2, "x must lie in [0, 1], got -2 to -1"),
        (x / x.max() + 0.5 * (x == x.max()), "x must lie in [0, 1], got 0 to 1.5"),
    ):
        if "lie" in message:
            message = f"x must lie in [0, 1], got {bad.min():.4g} to {bad.max():.4g}"
        with refuses(message):
            run(bad)
    run(torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8), x[0]]).double())
    with refuses("generator must be a torch.Generator or None, got 3"):
        model.inpaint(x, half(), PROMPTS, generator=3)


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan, "1", None, True])
def test_bad_strengths_are_named(strength):
    with refuses(f"strength must be a number from 0 to 1, got {strength!r}"):
        system().image_to_image(images(), PROMPTS, strength=strength)


def test_one_step_cannot_be_shared():
    with refuses("steps must be an integer of at least 2, got 1"):
        system().image_to_image(images(), PROMPTS, strength=0.5, steps=1)
    system().image_to_image(images(), PROMPTS, strength=0.5, steps=2)


def test_bad_masks_are_named():
    model, keep = system(), half()
    for bad, got in (
        (keep[:, :, :4], "torch.bool [3, 1, 4, 8]"),
        (keep.expand(3, 3, 8, 8), "torch.bool [3, 3, 8, 8]"),
        (keep[:2], "torch.bool [2, 1, 8, 8]"),
        (keep.double(), "torch.float64 [3, 1, 8, 8]"),
        (None, "None"),
    ):
        with refuses(f"keep must be a bool tensor [3, 1, 8, 8], got {got}"):
            model.inpaint(images(), bad, PROMPTS)


def test_bad_arguments_of_inpainting_are_named():
    model, (known, keep) = two_clouds(), given_first(0.5, 4)
    with refuses("model must be a Denoiser, got Linear"):
        Inpainting(nn.Linear(2, 2), known, keep)
    with refuses("known must be torch.float64 like the model, got torch.float32"):
        Inpainting(model, known.float(), keep)
    with refuses("known must be finite, got NaN or infinite values"):
        Inpainting(model, known / 0, keep)
    for bad, got in ((keep[:, :1], "torch.bool [4, 1]"), (keep.int(), "torch.int32 [4, 2]")):
        with refuses(f"keep must be a bool tensor [4, 2], got {got}"):
            Inpainting(model, known, bad)
    latents = Denoiser(lambda x, t: x, EDMPath()).double()
    one = torch.ones(3, 1, 4, 4, dtype=torch.bool)
    for right in (one, one.expand(3, 2, 4, 4)):
        Inpainting(latents, randn(3, 2, 4, 4), right)
    with refuses("keep must be a bool tensor [3, 1, 4, 4], got torch.bool [3, 1, 4, 1]"):
        Inpainting(latents, randn(3, 2, 4, 4), one[..., :1])
    with refuses("keep must be a bool tensor [3, 1, 4, 4], got None"):
        Inpainting(latents, randn(3, 2, 4, 4), None)
    part = Inpainting(model, known, keep)
    with refuses("x_t must have shape [4, 2], got [3, 2]"):
        part.predict_x0(randn(3, 2), 1.0)
    with refuses("shape must be (n, 2) for this network, got (4, 3)"):
        dpm_solver_sample(part, (4, 3), steps=2)
