"""The VQ-VAE: its networks, the gradient through the codes, training and resuming."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib.autoregressive import PixelCNN
from course_lib.data import load_digits
from course_lib.latent import VQVAE, perplexity
from course_lib.training import fit
from tests.latent.conftest import randomize, refuses, seeded

both_ways = pytest.mark.parametrize("ema", [True, False], ids=["ema", "gradient"])


def vqvae(generator, data_shape=(2, 8, 12), n_codes=7, dim=3, **options):
    """In double precision, with random parameters and a codebook that has been in use."""
    options = {"channels": 5, "downsamplings": 2} | options
    model = randomize(VQVAE(data_shape, n_codes, dim, **options).double(), generator)
    with torch.no_grad():
        z = model.encoder(images(50, generator, data_shape)).movedim(1, -1).flatten(0, 2)
        model.quantizer.codebook.copy_(z[torch.randperm(len(z), generator=generator)[:n_codes]])
    model.quantizer.uses.fill_(1.0)
    return model


def images(n, generator, data_shape=(2, 8, 12)):
    return torch.rand((n, *data_shape), generator=generator, dtype=torch.float64)


@both_ways
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_forward_is_encoder_quantizer_decoder(ema, training, generator):
    model = vqvae(generator, ema=ema, commitment=0.6).train(training)
    x = images(4, generator)
    codebook = model.quantizer.codebook.detach().clone()
    z = model.encoder(x)
    assert z.shape == (4, 3, 2, 3)
    codes = model.encode(x)
    decoded, indices, loss, used = model(x)
    assert decoded.shape == x.shape
    assert codes.dtype == torch.int64
    assert torch.equal(indices, codes)
    nearest = torch.cdist(z.movedim(1, -1).reshape(-1, 3), codebook).argmin(dim=1)
    assert torch.equal(codes, nearest.reshape(4, 2, 3))
    assert len(codes.unique()) > 2
    e = codebook[codes].movedim(-1, 1)
    torch.testing.assert_close(decoded, model.decoder(e))
    torch.testing.assert_close(loss, (0.6 if ema else 1.6) * F.mse_loss(z, e))
    assert torch.equal(used, perplexity(codes, 7))
    if not training:
        assert torch.equal(model.decode(codes), decoded)


@both_ways
def test_the_loss_is_the_error_of_a_pixel_and_the_quantizers(ema, generator):
    model = vqvae(generator, ema=ema).eval()
    x = images(4, generator)
    decoded, _, quantizers, _ = model(x)
    expected = ((decoded - x) ** 2).mean() + quantizers
    assert quantizers > 0
    torch.testing.assert_close(model.loss(x), expected)
    torch.testing.assert_close(model.loss(x, torch.arange(4)), expected)


def test_the_encoder_is_trained_as_if_nothing_were_quantized(generator):
    """Its gradient is what comes back through the decoder, at the codes, and the commitment."""
    model = vqvae(generator, commitment=0.6)
    x = images(4, generator)
    e = model.quantizer.lookup(model.encode(x)).requires_grad_()
    model.loss(x).backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    z = model.encoder(x)
    error = F.mse_loss(model.decoder(e), x)
    (slope,) = torch.autograd.grad(error, e, retain_graph=True)
    commitment = 0.6 * 2 / z.numel() * (z - e).detach()
    z.backward(slope + commitment)
    error.backward()
    for name, p in model.named_parameters():
        assert p.grad.any(), name
        torch.testing.assert_close(got[name], p.grad)


def test_bits_go_through_without_loss(generator):
    """Codes of decoded codes: with the decoder as the encoder's inverse they come back."""
    model = vqvae(generator, (1, 2, 2), n_codes=4, dim=4, downsamplings=1)
    model.encoder = nn.Sequential(Pixels(2))
    model.decoder = nn.PixelShuffle(2)
    model.quantizer.codebook.copy_(torch.eye(4))
    codes = torch.randint(4, (9, 1, 1), generator=generator)
    decoded = model.decode(codes)
    assert decoded.shape == (9, 1, 2, 2)
    assert torch.equal(model.encode(decoded), codes)


class Pixels(nn.PixelUnshuffle):
    """An encoder that only moves pixels into channels; it must say its precision."""

    weight = torch.zeros(1).double()


@pytest.mark.parametrize(
    ("data_shape", "options", "code_shape"),
    [
        ((1, 8, 8), {"downsamplings": 1}, (4, 4)),
        ((1, 28, 28), {}, (7, 7)),
        ((3, 8, 16), {"downsamplings": 3, "residual_layers": 0}, (1, 2)),
        ((2, 4, 8), {"residual_layers": 2, "channels": 1}, (1, 2)),
    ],
)
def test_shapes(data_shape, options, code_shape, generator):
    model = VQVAE(data_shape, 6, 3, **options).eval()
    assert model.code_shape == code_shape
    assert model.data_shape == data_shape
    x = images(5, generator, data_shape).float()
    codes = model.encode(x)
    assert codes.shape == (5, *code_shape)
    assert model.decode(codes).shape == x.shape
    decoded, indices, loss, used = model(x)
    assert (decoded.shape, indices.shape) == (x.shape, codes.shape)
    assert loss.shape == used.shape == model.loss(x).shape == ()
    n_residual = options.get("residual_layers", 1)
    channels = options.get("channels", 32)
    for net in (model.encoder, model.decoder):
        blocks = [m for m in net if hasattr(m, "layers")]
        assert len(blocks) == n_residual
        for block in blocks:
            x = torch.randn(2, channels, 4, 4, generator=generator)
            inner, outer = block.layers[1], block.layers[3]
            expected = x + outer(inner(x.clamp(min=0)).clamp(min=0))
            torch.testing.assert_close(block(x), expected)
            assert inner.kernel_size == (3, 3)
            assert inner.out_channels == channels


def test_the_networks_layer_by_layer():
    """Halving by 4×4 filters with stride 2, one residual block, then 1×1 to the width of codes."""
    model = VQVAE((3, 8, 8), 6, 4, channels=5)
    convolutions = [
        [
            (type(m).__name__, m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0])
            for m in net.modules()
            if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
        ]
        for net in (model.encoder, model.decoder)
    ]
    block = [("Conv2d", 5, 5, 3, 1), ("Conv2d", 5, 5, 1, 1)]
    assert convolutions[0] == [
        ("Conv2d", 3, 5, 4, 2),
        ("Conv2d", 5, 5, 4, 2),
        ("Conv2d", 5, 5, 3, 1),
        *block,
        ("Conv2d", 5, 4, 1, 1),
    ]
    assert convolutions[1] == [
        ("Conv2d", 4, 5, 3, 1),
        *block,
        ("ConvTranspose2d", 5, 5, 4, 2),
        ("ConvTranspose2d", 5, 3, 4, 2),
    ]
    # No two linear layers stand side by side: between any two there is a ReLU.
    for net in (model.encoder, model.decoder):
        layers = list(net)
        relu = sum(isinstance(m, nn.ReLU) for m in layers)
        assert relu == (3 if net is model.encoder else 2)
        assert not isinstance(layers[-1], nn.ReLU)


def test_settings_reach_the_quantizer():
    quantizer = VQVAE((1, 4, 4), 6, 3, ema=False, commitment=0.5, dead_below=0.2).quantizer
    assert (quantizer.n_codes, quantizer.dim, quantizer.ema) == (6, 3, False)
    assert (quantizer.commitment, quantizer.dead_below, quantizer.decay) == (0.5, 0.2, 0.99)
    quantizer = VQVAE((1, 4, 4), 6, 3).quantizer
    assert (quantizer.ema, quantizer.commitment, quantizer.dead_below) == (True, 0.25, 0.1)


@both_ways
def test_eval_mode_and_encode_move_nothing(ema, generator):
    model = vqvae(generator, ema=ema)
    model.quantizer.uses.zero_()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    x = images(4, generator)
    codes = model.encode(x)  # in training mode, too
    model.decode(codes)
    model.eval()
    model(x)
    for name, t in model.state_dict().items():
        assert torch.equal(t, before[name]), name
    model.train()
    model(x)
    assert not torch.equal(model.quantizer.uses, before["quantizer.uses"])


def test_the_generator_decides_where_codes_start(generator):
    x = images(4, generator)

    def start(method, seed):
        model = vqvae(seeded(), dead_below=2.0)
        getattr(model, method)(x, generator=seeded(seed))
        return model.quantizer.codebook

    before = torch.random.get_rng_state()
    for method in ("forward", "loss"):
        assert torch.equal(start(method, 0), start(method, 0))
        assert not torch.equal(start(method, 0), start(method, 1))
    assert torch.equal(start("forward", 0), start("loss", 0))
    vqvae(seeded())  # models themselves are drawn from the global generator
    assert not torch.equal(torch.random.get_rng_state(), before)


def test_samples_are_decoded_codes_of_the_prior(generator):
    model = vqvae(generator).eval()
    prior = PixelCNN(4, 2, levels=7, size=(2, 3)).double()
    x = model.sample(5, prior, generator=seeded(1))
    codes = prior.sample(5, generator=seeded(1))
    assert codes.shape == (5, 1, 2, 3)
    assert torch.equal(x, model.decode(codes[:, 0].long()))
    assert not x.requires_grad
    assert not torch.equal(x, model.sample(5, prior, generator=seeded(2)))

    prior = PixelCNN(4, 2, levels=7, n_classes=3, size=(2, 3)).double()
    y = torch.tensor([0, 2, 1, 1, 0])
    x = model.sample(5, prior, y=y, generator=seeded(1))
    codes = prior.sample(5, y=y, generator=seeded(1))
    assert torch.equal(x, model.decode(codes[:, 0].long()))
    assert model.sample(2, prior).shape == (2, 2, 8, 12)


def test_priors_that_do_not_fit_are_refused(generator):
    model = vqvae(generator).eval()
    wanted = "prior must have levels=7 and size=(2, 3), got "
    for levels, size in [(6, (2, 3)), (7, (3, 2)), (2, (2, 3))]:
        with refuses(wanted + f"levels={levels} and size={size}"):
            model.sample(5, PixelCNN(4, 2, levels=levels, size=size).double())
    for prior in (None, model, PixelCNN):
        with refuses(f"prior must be a PixelCNN, got {type(prior).__name__}"):
            model.sample(5, prior)
    prior = PixelCNN(4, 2, levels=7, size=(2, 3)).double()
    with refuses("n must be an integer of at least 1, got 0"):
        model.sample(0, prior)
    with refuses("generator must be a torch.Generator or None, got 3"):
        model.sample(5, prior, generator=3)
    with pytest.raises(ValueError, match=r"^y must be None for a model without classes"):
        model.sample(5, prior, y=torch.zeros(5).long())


@both_ways
def test_it_learns_digits(ema):
    """64 of them, far better than their mean image would do; many codes have a part in it."""
    x = load_digits("train")[0][:64]
    model = VQVAE((1, 8, 8), 16, 4, channels=16, downsamplings=1, ema=ema)
    with torch.no_grad():
        blank = F.mse_loss(x.mean(dim=0).expand_as(x), x)
    fit(model, x, steps=100, batch_size=32, lr=1e-2, progress=False, device="cpu")
    assert not model.training
    with torch.no_grad():
        decoded = model.decode(model.encode(x))
    assert F.mse_loss(decoded, x) < 0.7 * blank
    assert perplexity(model.encode(x), 16) > 4


@both_ways
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(ema, tmp_path):
    """The codebook and its uses are buffers with EMA: they must be saved, too."""
    x = load_digits("train")[0][:40]

    class KilledError(Exception):
        pass

    def run(checkpoint, killed_at=None):
        calls = []

        def transform(batch, _):
            calls.append(1)
            if len(calls) == killed_at:
                raise KilledError
            return batch

        transform.__qualname__ = "transform"
        torch.default_generator.manual_seed(1)
        model = VQVAE((1, 8, 8), 6, 2, channels=4, downsamplings=1, ema=ema, dead_below=1.0)
        options = {"steps": 12, "batch_size": 8, "lr": 1e-2, "checkpoint_every": 5}
        options |= {"progress": False, "device": "cpu", "transform": transform}
        return model, fit(model, x, checkpoint=checkpoint, **options).losses

    model, losses = run(None)
    with pytest.raises(KilledError):
        run(tmp_path / "run", killed_at=9)
    resumed, other_losses = run(tmp_path / "run")
    assert other_losses == losses
    assert {"quantizer.codebook", "quantizer.uses"} <= model.state_dict().keys()
    for name, t in model.state_dict().items():
        assert torch.equal(t, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_shape": 8}, "data_shape must be a sequence of integers, got 8"),
        ({"data_shape": (8, 8)}, "data_shape must be (C, H, W), got (8, 8)"),
        ({"data_shape": (1, 1, 8, 8)}, "data_shape must be (C, H, W), got (1, 1, 8, 8)"),
        ({"data_shape": (0, 8, 8)}, "data_shape[0] must be an integer of at least 1, got 0"),
        (
            {"data_shape": (1, 6, 8)},
            "data_shape must have a height and a width that are multiples of 4, got (1, 6, 8)",
        ),
        (
            {"data_shape": (1, 8, 10)},
            "data_shape must have a height and a width that are multiples of 4, got (1, 8, 10)",
        ),
        (
            {"downsamplings": 4},
            "data_shape must have a height and a width that are multiples of 16, got (1, 8, 8)",
        ),
        ({"n_codes": 0}, "n_codes must be an integer of at least 1, got 0"),
        ({"dim": 0}, "dim must be an integer of at least 1, got 0"),
        ({"channels": 0}, "channels must be an integer of at least 1, got 0"),
        ({"downsamplings": 0}, "downsamplings must be an integer of at least 1, got 0"),
        ({"residual_layers": -1}, "residual_layers must be an integer of at least 0, got -1"),
        ({"ema": None}, "ema must be True or False, got None"),
        ({"commitment": -1}, "commitment must be a finite number of at least 0.0, got -1"),
        ({"dead_below": -1}, "dead_below must be a finite number of at least 0.0, got -1"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with refuses(message):
        VQVAE(**({"data_shape": (1, 8, 8), "n_codes": 4, "dim": 2} | changes))


X = torch.ones(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (X[0], {}, "x must have shape [B, 1, 4, 4], got [1, 4, 4]"),
        (X[:, :, :2], {}, "x must have shape [B, 1, 4, 4], got [2, 1, 2, 4]"),
        (X[:0], {}, "x must have shape [B, 1, 4, 4], got [0, 1, 4, 4]"),
        (X.double(), {}, "x must be torch.float32 like the model, got torch.float64"),
        (X.long(), {}, "x must be a floating-point tensor, got torch.int64"),
        (X * torch.nan, {}, "x must be finite, got NaN or infinite values"),
        (X * 1.5, {}, "x must lie in [0, 1], got 1.5"),
        (X.cumsum(0) - 1.5, {}, "x must lie in [0, 1], got -0.5"),
        (X.cumsum(3), {}, "x must lie in [0, 1], got 2.0"),
        (X, {"generator": 3}, "generator must be a torch.Generator or None, got 3"),
    ],
)
def test_bad_images_are_named_and_move_nothing(x, options, message):
    model = VQVAE((1, 4, 4), 4, 2, channels=3)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    methods = [model.loss, model] + ([] if options else [model.encode, model.check_images])
    for method in methods:
        with refuses(message):
            method(x, **options)
    for name, t in model.state_dict().items():
        assert torch.equal(t, before[name]), name
    model.check_images(torch.stack([X[0], 0 * X[0]]))


def test_bad_codes_are_named():
    model = VQVAE((1, 4, 8), 4, 2, channels=3)
    codes = torch.zeros(3, 1, 2).long()
    assert model.decode(codes).shape == (3, 1, 4, 8)
    for bad, message in [
        (codes[0], "indices must have shape [B, 1, 2], got [1, 2]"),
        (codes[:, :, :1], "indices must have shape [B, 1, 2], got [3, 1, 1]"),
        (
            codes.float(),
            "indices must be an int64 tensor of codes from 0 to 3, got torch.float32 [3, 1, 2]",
        ),
        (codes + 4, "indices must be an int64 tensor of codes from 0 to 3, got 4"),
    ]:
        with refuses(message):
            model.decode(bad)
