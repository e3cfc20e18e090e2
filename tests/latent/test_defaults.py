"""All happens on the model's device and in its precision, whatever PyTorch's defaults are."""

import pytest
import torch

from course_lib.latent import GAN, VAE, VQVAE, LinearVAE, VectorQuantizer, reparameterize
from tests.latent.conftest import refuses, seeded

X = torch.rand(6, 4, generator=seeded())
BITS = (X > 0.5).float()
Y = torch.arange(6) % 3


def draws(x):
    return reparameterize(x, x, generator=seeded())


def gan(x):
    model = GAN(4, hidden=(5,)).to(x.dtype)
    return model, lambda: (model.sample(3, generator=seeded()), model.loss(x, generator=seeded()))


def vae(x, **options):
    model = VAE((4,), 2, hidden=(5,), **options).to(x.dtype)
    y = Y if model.n_classes else None
    return model, lambda: (
        model.sample(3, generator=seeded()),
        model.elbo(x, 2, y=y, generator=seeded()),
        model.importance_log_prob(x, 2, y=y, generator=seeded()),
    )


def linear(x):
    model = LinearVAE(4, 2).to(x.dtype)

    def use():
        model.encode_exactly()
        return (model.log_prob(x), *model.posterior(x), *model.encode(x))

    return model, use


def quantizer(x, **options):
    model = VectorQuantizer(5, 4, **options).to(x.dtype)

    def use():
        model.uses.zero_()
        quantized, indices, loss, _ = model(x, generator=seeded())
        return (quantized, indices, loss, model.codebook, model.uses)

    return model, use


def vqvae(x):
    model = VQVAE((1, 2, 2), 5, 3, channels=4, downsamplings=1).to(x.dtype)
    x = x.reshape(6, 1, 2, 2)
    return model, lambda: (
        model.encode(x),
        model(x, generator=seeded())[0],
        model.decode(Y[:, None, None]),
    )


CASES = {
    "draws": lambda x: (torch.nn.Identity(), lambda: (draws(x),)),
    "gan": gan,
    "vae": lambda x: vae((x > 0.5).to(x.dtype)),
    "vae, classes": lambda x: vae((x > 0.5).to(x.dtype), n_classes=3),
    "vae, real": lambda x: vae(x, likelihood="gaussian"),
    "linear": linear,
    "quantizer": quantizer,
    "quantizer by gradient": lambda x: quantizer(x, ema=False),
    "vqvae": vqvae,
}
each_case = pytest.mark.parametrize("name", CASES)


@each_case
def test_the_default_device_does_not_matter(name):
    """Here it is one without numbers: what is made there by mistake can't be compared."""
    model, use = CASES[name](X)
    start = {key: t.clone() for key, t in model.state_dict().items()}
    expected = [t.detach().clone() for t in use()]
    model.load_state_dict(start)
    with torch.device("meta"):
        results = use()
    for t, other in zip(results, expected, strict=True):
        assert t.device.type == "cpu"
        assert torch.equal(t, other)


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_default_precision_does_not_matter(name, dtype):
    model, use = CASES[name](X.to(dtype))
    start = {key: t.clone() for key, t in model.state_dict().items()}
    before = torch.get_default_dtype()
    results = []
    try:
        for default in (torch.float32, torch.float64):
            model.load_state_dict(start)
            torch.set_default_dtype(default)
            results.append([t.detach().clone() for t in use()])
    finally:
        torch.set_default_dtype(before)
    for t, other in zip(*results, strict=True):
        assert t.dtype in (dtype, torch.int64)
        assert torch.equal(t, other)


class Elsewhere(torch.Generator):
    """A generator that says it draws on a GPU."""

    device = torch.device("cuda")


@pytest.mark.parametrize(
    "draw",
    [
        lambda noise: reparameterize(X, X, generator=noise),
        lambda noise: GAN(4).sample(2, generator=noise),
        lambda noise: GAN(4).loss(X, generator=noise),
        lambda noise: VAE((4,), 2).sample(2, generator=noise),
        lambda noise: VAE((4,), 2).elbo(BITS, generator=noise),
        lambda noise: VectorQuantizer(5, 4)(X, generator=noise),
        lambda noise: VQVAE((1, 2, 2), 5, 3, downsamplings=1).loss(
            X.reshape(6, 1, 2, 2), generator=noise
        ),
    ],
)
def test_a_generator_of_another_device_is_refused(draw):
    with refuses("generator must be on device cpu, got cuda"):
        draw(Elsewhere())
