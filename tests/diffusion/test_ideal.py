"""The ideal denoiser against brute force: averages over what x_t may have come from."""

import math

import pytest
import torch

from course_lib.diffusion import DDPM, DiscreteSchedule, IdealDenoiser
from tests.diffusion.conftest import Straight, randn, seeded

CENTRES = torch.tensor([[1.5, -0.5], [-2.0, 0.0], [0.3, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    "path", [DiscreteSchedule.linear(50), Straight()], ids=["ddpm", "straight"]
)
@pytest.mark.parametrize("std", [0.0, 0.4])
def test_the_score_is_that_of_the_exact_density(path, std):
    """−eps / b is the gradient of the log-density of x_t, by automatic differentiation."""
    x = (2 * randn(20, 2)).requires_grad_()
    times = torch.linspace(path.t_min + 0.1, path.t_max, 20, dtype=torch.float64)
    if isinstance(path, DiscreteSchedule):
        times = times.long()
    a, b = (f(times.double())[:, None] for f in (path.a, path.b))
    cloud = torch.distributions.Normal(a[:, None] * CENTRES, (a**2 * std**2 + b**2).sqrt()[:, None])
    log_density = cloud.log_prob(x[:, None]).sum(2).logsumexp(1)
    (score,) = torch.autograd.grad(log_density.sum(), x)
    eps = IdealDenoiser(CENTRES, path, std=std)(x.detach(), times)
    torch.testing.assert_close(-eps / b, score, rtol=1e-9, atol=1e-9)


def test_it_is_the_average_over_draws():
    """E[eps | x_t near a place], by many draws of data and noise."""
    path = DiscreteSchedule.linear(50)
    n, t = 2_000_000, 20
    which = torch.randint(3, (n,), generator=seeded(0))
    x0 = CENTRES[which, :1] + 0.3 * torch.randn(n, 1, generator=seeded(1), dtype=torch.float64)
    eps = torch.randn(n, 1, generator=seeded(2), dtype=torch.float64)
    x_t = path.noised(x0, t, eps)
    said = IdealDenoiser(CENTRES[:, :1], path, std=0.3)
    for place in (-1.0, 0.2, 1.0):
        near = eps[(x_t - place).abs() < 0.02]
        there = torch.tensor([[place]], dtype=torch.float64)
        answer = said(there, torch.tensor([t])).item()
        assert abs(near.mean().item() - answer) < 4 * near.std().item() / len(near) ** 0.5 + 0.02


def test_images_are_points_in_many_dimensions():
    path = DiscreteSchedule.linear(10)
    images, x, t = randn(4, 1, 3, 2), randn(5, 1, 3, 2), torch.arange(5)
    as_images = IdealDenoiser(images, path, std=0.2)(x, t)
    as_points = IdealDenoiser(images.flatten(1), path, std=0.2)(x.flatten(1), t)
    torch.testing.assert_close(as_images.flatten(1), as_points)
    assert as_images.shape == x.shape


def test_without_a_width_its_samples_are_the_centres():
    schedule = DiscreteSchedule.linear(100)
    model = DDPM(IdealDenoiser(CENTRES, schedule), schedule).double()
    samples = model.sample(300, generator=seeded(3))
    distance, nearest = torch.cdist(samples, CENTRES).min(dim=1)
    assert distance.max() < 1e-3
    assert (nearest.bincount(minlength=3) > 60).all()


def test_far_from_everything_it_stays_finite():
    path = DiscreteSchedule.linear(1000)
    net = IdealDenoiser(CENTRES, path)
    x = torch.tensor([[1e3, -1e3]], dtype=torch.float64)
    assert net(x, torch.tensor([0])).isfinite().all()


LABELS = torch.tensor([1, 0, 1])


def test_a_label_leaves_the_clouds_of_its_class():
    path, t = DiscreteSchedule.linear(50), torch.tensor([3, 20, 49])
    net = IdealDenoiser(CENTRES, path, std=0.4, labels=LABELS)
    x = randn(3, 2)
    assert net.null_class == 2
    for y, centres in ((0, CENTRES[1:2]), (1, CENTRES[::2]), (2, CENTRES)):
        alone = IdealDenoiser(centres, path, std=0.4)
        torch.testing.assert_close(net(x, t, torch.full((3,), y)), alone(x, t))
    mixed = net(x, t, torch.tensor([0, 1, 2]))
    for i, y in enumerate((0, 1, 2)):
        torch.testing.assert_close(mixed[i], net(x, t, torch.full((3,), y))[i])
    assert torch.equal(net(x, t), net(x, t, torch.full((3,), 2)))
    assert IdealDenoiser(CENTRES, path).null_class is None


def test_its_logits_are_the_posterior_of_the_classes():
    path, t = DiscreteSchedule.linear(50), torch.tensor([0, 20, 49])
    x = randn(3, 2)
    a, b = path.a(t.double())[:, None, None], path.b(t.double())[:, None, None]
    cloud = torch.distributions.Normal(a * CENTRES, (a**2 * 0.4**2 + b**2).sqrt())
    shares = cloud.log_prob(x[:, None]).sum(2).softmax(1)
    wanted = torch.stack([shares[:, 1], shares[:, 0] + shares[:, 2]], dim=1)
    logits = IdealDenoiser(CENTRES, path, std=0.4, labels=LABELS).logits(x, t)
    torch.testing.assert_close(logits.softmax(1), wanted, rtol=1e-6, atol=1e-9)


def test_bad_labels_are_refused():
    path, t, x = DiscreteSchedule.linear(10), torch.zeros(5, dtype=torch.int64), randn(5, 2)
    whole = r"labels must be an int64 tensor \[3\] of classes from 0 to 2, got"
    for labels, got in ((LABELS[:2], r"torch.int64 \[2\]"), (LABELS + 2, "3"), ([0, 1, 1], r"\[0")):
        with pytest.raises(ValueError, match=f"{whole} {got}"):
            IdealDenoiser(CENTRES, path, labels=labels)
    with pytest.raises(ValueError, match=r"^labels must leave no class out, got none of class 1$"):
        IdealDenoiser(CENTRES, path, labels=torch.tensor([0, 2, 2]))
    net = IdealDenoiser(CENTRES, path, labels=LABELS)
    with pytest.raises(ValueError, match=r"y must be an int64 tensor \[5\] .* 0 to 2, got 3"):
        net(x, t, t + 3)
    plain = IdealDenoiser(CENTRES, path)
    with pytest.raises(ValueError, match="y must be None for a model without classes, got tensor"):
        plain(x, t, t)
    with pytest.raises(ValueError, match=r"^labels must be given for a classifier, got None$"):
        plain.logits(x, t)


def test_bad_input_is_refused():
    path = DiscreteSchedule.linear(10)
    with pytest.raises(ValueError, match=r"centres must have shape \[K, \*event\], got \[3\]"):
        IdealDenoiser(torch.zeros(3), path)
    with pytest.raises(ValueError, match="centres must be finite"):
        IdealDenoiser(torch.full((3, 2), math.nan), path)
    with pytest.raises(ValueError, match="path must be a GaussianPath, got None"):
        IdealDenoiser(CENTRES, None)
    with pytest.raises(ValueError, match="std must be a finite number of at least 0"):
        IdealDenoiser(CENTRES, path, std=-0.1)
    net = IdealDenoiser(CENTRES, path)
    with pytest.raises(ValueError, match="x must have shape"):
        net(randn(5, 3), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"t must lie in \[0, 9\], got 10"):
        net(randn(5, 2), torch.full((5,), 10))
