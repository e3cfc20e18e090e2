"""The autoencoder of latent diffusion: its two costs, its maps, and the size of its latents."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from course_lib.latent import KLAutoencoder
from tests.latent.conftest import refuses, seeded


def images(*shape, seed=0, dtype=torch.float64):
    return 2 * torch.rand(shape, generator=seeded(seed), dtype=dtype) - 1


def small(**options):
    return KLAutoencoder((1, 8, 8), **({"channels": 2, "factor": 2, "width": 8} | options)).double()


def linear(*, noise=0.5):
    """Codes of one pixel: μ = 3 x − 1 and x + 2, σ = ``noise`` and 2 · ``noise``."""
    model = KLAutoencoder((1, 4, 4), channels=2, factor=1, width=8).double()
    model.encoder = nn.Conv2d(1, 4, 1).double()
    model.decoder = nn.Conv2d(2, 1, 1).double()
    with torch.no_grad():
        weight = torch.tensor([3.0, 1.0, 0.0, 0.0], dtype=torch.float64)
        model.encoder.weight.copy_(weight.reshape(4, 1, 1, 1))
        log_var = [2 * math.log(noise), 2 * math.log(2 * noise)]
        model.encoder.bias.copy_(torch.tensor([-1.0, 2.0, *log_var]))
        model.decoder.weight.copy_(torch.tensor([0.5, -0.25]).reshape(1, 2, 1, 1))
        model.decoder.bias.fill_(0.125)
    return model


# --- maps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
@pytest.mark.parametrize("channels", [1, 4])
def test_codes_are_maps_that_many_times_smaller(factor, channels):
    model = KLAutoencoder((3, 16, 8), channels=channels, factor=factor, width=8)
    assert model.event_shape == (3, 16, 8)
    assert model.latent_shape == (channels, 16 // factor, 8 // factor)
    assert model.factor == factor
    x = images(2, 3, 16, 8, dtype=torch.float32)
    mu, log_var = model.encode(x)
    assert mu.shape == log_var.shape == (2, *model.latent_shape)
    assert model.decode(mu).shape == x.shape
    assert not torch.equal(mu, log_var)
    assert model.to_latent(x).shape == mu.shape
    # From the image's width to ``factor`` times as many channels, and back.
    widths = [layer.out_channels for layer in model.encoder if isinstance(layer, nn.Conv2d)]
    assert widths == [*(8 * 2**k for k in range(factor.bit_length())), 2 * channels]
    back = [layer.out_channels for layer in model.decoder if type(layer) is nn.Conv2d]
    assert back == [8 * factor, *(8 * 2**k for k in reversed(range(factor.bit_length() - 1))), 3]


def test_all_of_it_learns_but_the_scale():
    model = small()
    model.loss(images(4, 1, 8, 8), generator=seeded()).backward()
    assert all((p.grad != 0).any() for p in model.parameters())
    assert "latent_scale" in model.state_dict()
    assert "latent_scale" not in dict(model.named_parameters())


def test_parts_are_named_as_in_stored_models():
    names = list(KLAutoencoder((3, 8, 8), factor=2).state_dict())
    assert names[:3] == ["latent_scale", "encoder.0.weight", "encoder.0.bias"]
    assert {name.split(".")[0] for name in names} == {"latent_scale", "encoder", "decoder"}
    assert sum(p.numel() for p in KLAutoencoder((3, 32, 32)).parameters()) == 265_419


def test_a_block_adds_to_what_passes_it():
    block = small().encoder[2]
    for convolution in (block.conv1, block.conv2):
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
    x = images(2, 16, 4, 4)
    assert torch.equal(block(x), x)
    nn.init.constant_(block.conv2.bias, 0.5)
    assert torch.equal(block(x), x + 0.5)
    nn.init.constant_(block.conv2.weight[:, :, 1, 1], 1.0)
    nn.init.constant_(block.conv1.bias, 1.0)
    wanted = block.conv2(nn.functional.silu(block.norm2(torch.ones_like(x))))
    torch.testing.assert_close(block(x), x + wanted)


# --- rate and distortion -----------------------------------------------------------------------


def test_the_rate_is_the_divergence_in_closed_form_and_as_a_mean_over_draws():
    model = linear()
    x = images(3, 1, 4, 4)
    rate, _ = model.rate_distortion(x, generator=seeded())
    mu, log_var = model.encode(x)
    # Σ ½ (σ² + μ² − 1 − log σ²)
    wanted = 0.5 * (log_var.exp() + mu**2 - 1 - log_var).flatten(1).sum(1)
    torch.testing.assert_close(rate, wanted)
    q, p = Normal(mu, (log_var / 2).exp()), Normal(0.0, 1.0)
    torch.testing.assert_close(rate, torch.distributions.kl_divergence(q, p).flatten(1).sum(1))
    n = 20_000
    z = mu + (log_var / 2).exp() * torch.randn(n, *mu.shape, generator=seeded(1)).double()
    draws = (q.log_prob(z) - p.log_prob(z)).flatten(2).sum(2)  # [n, 3]
    assert ((draws.mean(0) - rate).abs() < 4 * draws.std(0) / n**0.5).all()
    assert rate.shape == (3,)


def test_the_distortion_is_the_squared_error_of_one_draw():
    model, x = linear(noise=0.3), images(3, 1, 4, 4)
    _, distortion = model.rate_distortion(x, generator=seeded(5))
    eps = torch.randn(3, 2, 4, 4, generator=seeded(5), dtype=torch.float64)
    z = torch.cat([3 * x - 1, x + 2], dim=1) + torch.tensor([0.3, 0.6]).reshape(2, 1, 1) * eps
    said = 0.5 * z[:, :1] - 0.25 * z[:, 1:] + 0.125
    torch.testing.assert_close(distortion, ((said - x) ** 2).mean(dim=(1, 2, 3)))


@pytest.mark.parametrize("kl_weight", [0.0, 1e-3, 2.0])
def test_the_loss_is_the_distortion_and_the_weighted_rate_of_a_number(kl_weight):
    model, x = small(kl_weight=kl_weight), images(5, 1, 8, 8)
    rate, distortion = model.rate_distortion(x, generator=seeded(2))
    loss = model.loss(x, generator=seeded(2))
    assert loss.shape == ()
    torch.testing.assert_close(loss, distortion.mean() + kl_weight * rate.mean() / 64)
    if not kl_weight:
        assert torch.equal(loss, distortion.mean())


def test_the_default_weight_is_a_thousandth():
    assert KLAutoencoder((1, 8, 8)).kl_weight == 1e-3
    assert KLAutoencoder((1, 8, 8)).latent_shape == (4, 2, 2)


def test_a_heavier_rate_makes_a_smaller_one():
    x, rates = images(32, 1, 8, 8, dtype=torch.float32), []
    for kl_weight in (0.0, 1.0):
        model = small(kl_weight=kl_weight).float()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for step in range(40):
            optimizer.zero_grad()
            model.loss(x, generator=seeded(step)).backward()
            optimizer.step()
        rates.append(model.rate_distortion(x, generator=seeded())[0].mean().item())
    assert rates[1] < rates[0] / 3


def test_log_variances_are_held_between_two_ends():
    model = linear()
    with torch.no_grad():
        model.encoder.bias.copy_(torch.tensor([0.0, 0.0, -50.0, 50.0]))
    _, log_var = model.encode(images(1, 1, 4, 4))
    assert (log_var[:, 0] == -20).all()
    assert (log_var[:, 1] == 10).all()


def test_draws_follow_their_generator():
    model, x = small(), images(2, 1, 8, 8)
    state = torch.get_rng_state()
    for draw in (
        lambda seed: model.loss(x, generator=seeded(seed)),
        lambda seed: model.to_latent(x, generator=seeded(seed)),
        lambda seed: model.rate_distortion(x, generator=seeded(seed))[1],
    ):
        assert torch.equal(draw(1), draw(1))
        assert not torch.equal(draw(1), draw(2))
    assert torch.equal(torch.get_rng_state(), state)


# --- the latents' size -------------------------------------------------------------------------


def test_latents_have_the_variance_one_by_the_law_of_total_variance():
    """Var z is the mean of σ² and the variance of μ, over channels, too: exact for a line."""
    model, x = linear(noise=0.7), images(400, 1, 4, 4)
    model.measure_scale(x, generator=seeded())
    mu = torch.cat([3 * x - 1, x + 2], dim=1)
    mean_of_variance = (0.7**2 + 1.4**2) / 2
    exact = 1 / (mean_of_variance + mu.var()) ** 0.5
    assert abs(model.latent_scale / exact - 1) < 0.02  # 12,800 draws
    latent = model.to_latent(x, generator=seeded())
    assert abs(latent.var() - 1) < 1e-9  # the same draws
    other = model.to_latent(x, generator=seeded(1))
    assert abs(other.var() - 1) < 0.03
    without_the_spread_between_images = 1 / mean_of_variance**0.5
    assert abs(model.latent_scale / without_the_spread_between_images - 1) > 0.3


def test_measuring_again_forgets_the_scale_before():
    model, x = small(), images(8, 1, 8, 8)
    model.measure_scale(x, generator=seeded())
    first = model.latent_scale.clone()
    model.measure_scale(x, generator=seeded())
    assert torch.equal(first, model.latent_scale)
    assert model.latent_scale != 1
    model.measure_scale(x, generator=seeded(1))
    assert model.latent_scale != first
    assert not model.latent_scale.requires_grad
    assert model.latent_scale.shape == ()


def test_a_latent_is_a_scaled_draw_and_the_way_back_takes_the_scale_away():
    model, x = small(), images(3, 1, 8, 8)
    model.latent_scale.fill_(0.25)
    mu, log_var = model.encode(x)
    eps = torch.randn(mu.shape, generator=seeded(7), dtype=torch.float64)
    z = mu + (log_var / 2).exp() * eps
    latent = model.to_latent(x, generator=seeded(7))
    torch.testing.assert_close(latent, 0.25 * z)
    torch.testing.assert_close(model.from_latent(latent), model.decode(z))
    assert torch.equal(model.from_latent(latent), model.decode(4 * latent))


def test_the_scale_is_stored():
    model, other = small(), small()
    model.measure_scale(images(4, 1, 8, 8), generator=seeded())
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.latent_scale, model.latent_scale)


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (8, 8)}, "shape must be (C, H, W), each at least 1, got (8, 8)"),
        ({"shape": (1, 0, 8)}, "shape must be (C, H, W), each at least 1, got (1, 0, 8)"),
        ({"shape": (1, None, 8)}, "shape must be (C, H, W), each at least 1, got (1, None, 8)"),
        ({"channels": 0}, "channels must be an integer of at least 1, got 0"),
        ({"factor": 0}, "factor must be an integer of at least 1, got 0"),
        ({"factor": 3}, "factor must be a power of two that divides 16 and 8, got 3"),
        ({"factor": 16}, "factor must be a power of two that divides 16 and 8, got 16"),
        ({"factor": 2.0}, "factor must be an integer of at least 1, got 2.0"),
        (
            {"shape": (1, 6, 8), "factor": 4},
            "factor must be a power of two that divides 6 and 8, got 4",
        ),
        ({"width": 0}, "width must be an integer of at least 1, got 0"),
        ({"width": 12}, "width must be a multiple of 8, got 12"),
        ({"kl_weight": -1e-9}, "kl_weight must be a finite number of at least 0, got -1e-09"),
        ({"kl_weight": math.nan}, "kl_weight must be a finite number of at least 0, got nan"),
    ],
)
def test_bad_settings_are_named(changes, message):
    options = {"shape": (3, 16, 8)} | changes
    with refuses(message):
        KLAutoencoder(options.pop("shape"), **options)


def test_the_smallest_settings_pass():
    model = KLAutoencoder((1, 1, 2), channels=1, factor=1, width=8, kl_weight=0)
    assert model.loss(torch.zeros(1, 1, 1, 2)).isfinite()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(2, 1, 4, 8), "must have shape [B, 1, 8, 8], got [2, 1, 4, 8]"),
        (torch.zeros(0, 1, 8, 8), "must have shape [B, 1, 8, 8], got [0, 1, 8, 8]"),
        (torch.zeros(2, 1, 8, 8).int(), "must be a floating-point tensor, got torch.int32"),
        (
            torch.zeros(2, 1, 8, 8).float(),
            "must be torch.float64 like the model, got torch.float32",
        ),
        (torch.full((2, 1, 8, 8), math.nan).double(), "must be finite, got NaN or infinite values"),
        (None, "must be a tensor of shape [B, 1, 8, 8], got NoneType"),
    ],
)
def test_bad_images_are_named(bad, message):
    model = small()
    bad = bad.double() if isinstance(bad, torch.Tensor) and bad.shape[2:] != (8, 8) else bad
    bad = bad.double() if isinstance(bad, torch.Tensor) and not len(bad) else bad
    for call in (
        model.encode,
        model.rate_distortion,
        model.loss,
        model.to_latent,
        model.measure_scale,
    ):
        with refuses(f"x {message}"):
            call(bad)
    assert model.latent_scale == 1


def test_bad_codes_are_named():
    model = small()
    bad = torch.zeros(2, 2, 8, 8).double()
    with refuses("z must have shape [B, 2, 4, 4], got [2, 2, 8, 8]"):
        model.decode(bad)
    with refuses("latent must have shape [B, 2, 4, 4], got [2, 2, 8, 8]"):
        model.from_latent(bad)
    with refuses("generator must be a torch.Generator or None, got 0"):
        model.to_latent(images(1, 1, 8, 8), generator=0)


def test_one_number_has_no_variance():
    model = KLAutoencoder((3, 8, 8), channels=1, factor=8)
    with pytest.raises(ValueError, match=r"^x must have latents of two numbers at least"):
        model.measure_scale(torch.zeros(1, 3, 8, 8))
    assert model.latent_scale == 1


def test_two_numbers_have_a_variance():
    model = KLAutoencoder((1, 2, 2), channels=2, factor=2, width=8).double()
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    model.measure_scale(x, generator=seeded())
    assert model.latent_scale.isfinite()
    assert model.to_latent(x, generator=seeded()).std().item() == pytest.approx(1)
