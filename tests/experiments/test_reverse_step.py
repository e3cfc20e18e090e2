"""The exact density of the state before, against Bayes on a grid and against DDPM's posterior."""

import pytest
import torch

from course_lib.diffusion import DDPM, DiscreteSchedule, IdealDenoiser
from course_lib.experiments import reverse_density

PATH = DiscreteSchedule.linear(1000)
CENTRES = torch.tensor([-2.0, 0.5, 2.0], dtype=torch.float64)


def by_bayes(x_t, t, s, std):
    """q(x_s | x_t) on a grid of x_s, by brute force: the prior times the likelihood."""
    x = torch.linspace(-10, 10, 20_001, dtype=torch.float64)
    a_s, b_s = PATH.points([s])[1]
    spread = (a_s * std) ** 2 + b_s**2
    prior = sum((-((x - a_s * m) ** 2) / (2 * spread)).exp() for m in CENTRES)
    alpha = (1 - PATH.betas[s + 1 : t + 1].double()).prod()  # of all steps from s to t
    density = prior * (-((x_t - alpha.sqrt() * x) ** 2) / (2 * (1 - alpha))).exp()
    return x, density / (density.sum() * (x[1] - x[0]))


@pytest.mark.parametrize(("t", "s"), [(300, 299), (300, 200), (300, 0), (999, 500), (40, 39)])
@pytest.mark.parametrize("x_t", [0.0, -0.7, 1.9])
def test_it_is_what_bayes_gives_on_a_grid(t, s, x_t):
    x, truth = by_bayes(x_t, t, s, 0.3)
    exact = reverse_density(x_t, t, s, path=PATH, centres=CENTRES, std=0.3)
    assert (exact.density(x) - truth).abs().max() < 1e-6 * truth.max()
    step = x[1] - x[0]
    mean = (x * truth).sum() * step
    moments = [((x - mean) ** k * truth).sum() * step for k in (2, 4)]
    assert exact.mean() == pytest.approx(mean.item(), abs=1e-9)
    assert exact.variance() == pytest.approx(moments[0].item(), rel=1e-7)
    assert exact.kurtosis() == pytest.approx((moments[1] / moments[0] ** 2).item(), rel=1e-7)


@pytest.mark.parametrize("t", [0, 1, 10, 300, 999])
@pytest.mark.parametrize("std", [0.0, 0.3])
def test_the_variance_is_the_posterior_s_and_what_not_knowing_the_data_adds(t, std):
    """Var(x_{t−1} | x_t) = β̃ + (a_{t−1} β_t / b_t²)² Var(x_0 | x_t), the law of total variance."""
    x_t = torch.full((1, 1), 0.4, dtype=torch.float64)
    options = {"path": PATH, "centres": CENTRES, "std": std}
    before = reverse_density(0.4, t, t - 1, **options)
    data = reverse_density(0.4, t, -1, **options)
    model = DDPM(IdealDenoiser(CENTRES[:, None], PATH, std=std), PATH).double()
    mean, variance = model.reverse(x_t, t)
    one, _ = model.posterior(x_t, torch.ones_like(x_t), t)
    zero, _ = model.posterior(x_t, torch.zeros_like(x_t), t)
    weight = (one - zero).item()  # of x_0 in the posterior's mean
    total = variance.item() + weight**2 * data.variance()
    assert before.variance() == pytest.approx(total, rel=1e-6)
    assert before.mean() == pytest.approx(mean.item(), abs=1e-6)


def test_one_cluster_is_gaussian_at_every_gap():
    one = torch.tensor([0.7], dtype=torch.float64)
    for s in (299, 100, -1):
        gaussian = reverse_density(0.3, 300, s, path=PATH, centres=one, std=0.5)
        assert gaussian.kurtosis() == pytest.approx(3)


def test_two_clusters_part_as_the_gap_grows():
    two = torch.tensor([-2.0, 2.0], dtype=torch.float64)
    steps = [reverse_density(0.0, 300, s, path=PATH, centres=two, std=0.3) for s in (299, 290, 0)]
    kurtoses = [step.kurtosis() for step in steps]
    assert kurtoses == sorted(kurtoses, reverse=True)
    assert kurtoses[0] > 2.99
    assert kurtoses[-1] < 1.3
    middle = torch.zeros(1, dtype=torch.float64)
    assert steps[-1].density(middle) < 0.01 * steps[-1].density(steps[-1].means[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": 1000}, "t must be an integer from 0 to 999, got 1000"),
        ({"earlier": 300}, "earlier must be an integer from -1 to 299, got 300"),
        ({"earlier": -2}, "earlier must be an integer from -1 to 299, got -2"),
        ({"std": -1.0}, "std must be a finite number of at least 0"),
        ({"centres": torch.zeros(2)}, "centres must be torch.float64"),
        ({"path": None}, "path must be a DiscreteSchedule, got None"),
        ({"x_t": float("nan")}, "x_t must be a finite number"),
    ],
)
def test_bad_input_is_refused(change, message):
    right = {"x_t": 0.0, "t": 300, "earlier": 299, "path": PATH, "centres": CENTRES, "std": 0.3}
    with pytest.raises(ValueError, match=message):
        reverse_density(**(right | change))
