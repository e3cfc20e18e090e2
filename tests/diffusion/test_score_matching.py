"""The losses of score matching: their gradients agree where theory says so, exactly.

Averages over a density are sums over the nodes of a quadrature, one example at a time; those over
signs are sums over all of them.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.diffusion import (
    Denoiser,
    IdealDenoiser,
    PredictionError,
    SubVPPath,
    VEPath,
    VPPath,
    denoising_score_matching,
    explicit_score_matching,
    implicit_score_matching,
    sliced_score_matching,
    weighted_score_matching,
)
from tests.diffusion.conftest import GAUSSIAN, Gaussian, coefficients, randn, refuses, seeded

PATHS = {"VP": VPPath(0.3, 5.0), "sub-VP": SubVPPath(0.3, 5.0), "VE": VEPath(0.02, 7.0)}


def network(dim=2):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(dim, 5), nn.Tanh(), nn.Linear(5, dim)).double()


def hermite(n, dim):
    """Nodes ``[n^dim, dim]`` and weights of averages over a standard Gaussian."""
    nodes, weights = (torch.as_tensor(v) for v in np.polynomial.hermite_e.hermegauss(n))
    weights = weights / weights.sum()
    nodes = torch.cartesian_prod(*[nodes] * dim).reshape(-1, dim)
    weights = torch.cartesian_prod(*[weights] * dim).reshape(-1, dim).prod(1)
    keep = weights > 1e-13
    return nodes[keep], weights[keep]


def gradient(loss, net):
    parts = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    return torch.cat([g.flatten() for g in parts])


def close(a, b, tolerance=1e-6):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def gaussian_score(x, law=GAUSSIAN):
    return -(x - law.mean) @ torch.linalg.inv(law.cov)


def average(loss, x, weights):
    """The weighted average of a loss over single examples."""
    return sum(w * loss(x[i : i + 1]) for i, w in enumerate(weights.tolist()))


@pytest.fixture(scope="module")
def averages():
    """Every loss of one network, averaged over a Gaussian in the plane, and its gradient."""
    net = network()
    nodes, weights = hermite(12, 2)
    x = GAUSSIAN.mean + nodes @ torch.linalg.cholesky(GAUSSIAN.cov).T
    explicit = average(lambda x: explicit_score_matching(net, x, gaussian_score(x)), x, weights)
    implicit = average(lambda x: implicit_score_matching(net, x), x, weights)
    return net, x, weights, explicit, implicit


def test_explicit_and_implicit_differ_by_a_constant(averages):
    """E ½ ‖∇ log p‖², which for a Gaussian is ½ tr C⁻¹; so the gradients are equal."""
    net, _, _, explicit, implicit = averages
    close(explicit - implicit, torch.linalg.inv(GAUSSIAN.cov).trace() / 2, 1e-5)
    close(gradient(explicit, net), gradient(implicit, net), 1e-5)


def test_slices_give_the_implicit_loss_on_average(averages, monkeypatch):
    """Over all signs of v, exactly; value and gradient."""
    net, x, weights, _, implicit = averages
    total = 0.0
    for signs in itertools.product((0, 1), repeat=2):
        v = torch.tensor([[signs]])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", lambda *_, v=v, **__: v)
            total = total + average(lambda x: sliced_score_matching(net, x), x, weights) / 4
    close(total, implicit, 1e-9)
    close(gradient(total, net), gradient(implicit, net), 1e-9)


def test_the_true_score_is_best():
    """Of all A in score = A (x − m), explicit and implicit are least at −C⁻¹."""
    x = GAUSSIAN.sample(40_000, seeded())
    A = -torch.linalg.inv(GAUSSIAN.cov)
    A.requires_grad_()
    for loss in (implicit_score_matching, sliced_score_matching):
        options = {"generator": seeded()} if loss is sliced_score_matching else {}
        (g,) = torch.autograd.grad(loss(lambda x: (x - GAUSSIAN.mean) @ A, x, **options), A)
        assert g.abs().max() < 0.03


@pytest.mark.parametrize("std", [0.2, 1.5])
def test_denoising_fits_the_score_of_noised_data(std):
    """Data that are three points: equal gradients, and a constant that is known."""
    net, points = network(), torch.tensor([[-1.0, 0.3], [0.5, 1.0], [1.2, -0.7]]).double()
    nodes, weights = hermite(14, 2)
    law = [Gaussian(point, std**2 * torch.eye(2)) for point in points]
    denoising, explicit, constant = 0.0, 0.0, 0.0
    for point in points:
        noised = point + std * nodes
        logs = torch.stack([part.log_prob(noised) for part in law]).softmax(0)
        target = sum(
            w[:, None] * gaussian_score(noised, part) for w, part in zip(logs, law, strict=False)
        )
        for i, w in enumerate(weights.tolist()):
            w, eps, there = w / 3, nodes[i : i + 1], target[i : i + 1]
            one = denoising_score_matching(net, point[None], std=std, eps=eps)
            denoising = denoising + w * one
            explicit = explicit + w * explicit_score_matching(net, noised[i : i + 1], there)
            constant = constant + w * ((eps / std).square().sum() - there.square().sum()) / 2
    # The cross terms are averages of net · target, equal in the limit of many nodes.
    close(denoising - explicit, constant, 2e-3)
    close(gradient(denoising, net), gradient(explicit, net), 2e-3)


def test_the_variance_of_slices():
    """Var vᵀ J v = Σ_{i<j} (J_ij + J_ji)² for signs, over all of them; 1/n of it for n slices."""
    J = randn(3, 3)
    x = torch.zeros(1, 3).double()
    values = []
    for signs in itertools.product((-1.0, 1.0), repeat=3):
        v = torch.tensor(signs).double()
        values.append((v @ J @ v).item())
    exact = sum((J[i, j] + J[j, i]).item() ** 2 for i in range(3) for j in range(i))
    assert np.var(values) == pytest.approx(exact)
    exact_loss = implicit_score_matching(lambda x: x @ J.T, x).item()
    assert exact_loss == pytest.approx(J.trace().item())
    generator = seeded()
    for n in (1, 4):
        drawn = torch.tensor(
            [
                sliced_score_matching(lambda x: x @ J.T, x, n_slices=n, generator=generator).item()
                for _ in range(800)
            ]
        )
        assert abs(drawn.mean().item() - exact_loss) < 5 * math.sqrt(exact / n / 800)
        assert abs(drawn.var().item() / (exact / n) - 1) < 0.25
    symmetric = torch.diag(torch.tensor([1.0, -2.0, 5.0]).double())
    loss = sliced_score_matching(lambda x: x @ symmetric, x, generator=generator)
    assert loss.item() == pytest.approx(4.0)  # without off-diagonal entries a slice is exact


def test_each_slice_and_each_example_has_signs_of_its_own():
    """A thousand examples, each sliced once, are a thousand draws."""
    J = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).double()
    x = torch.zeros(4000, 2).double()
    loss = sliced_score_matching(lambda x: x @ J.T, x, generator=seeded()).item()
    assert 0 < abs(loss) < 5 / math.sqrt(4000)
    loss = sliced_score_matching(lambda x: x @ J.T, x[:2], n_slices=2000, generator=seeded())
    assert 0 < abs(loss.item()) < 5 / math.sqrt(4000)


def test_images_are_summed_over_all_their_numbers():
    """What is said of points holds of images: sums over an example, means over the batch."""
    net = network(6)
    x, target = randn(4, 1, 2, 3), randn(4, 1, 2, 3, seed=1)

    def on_images(x):
        return net(x.flatten(1)).reshape(x.shape)

    flat, flat_target = x.flatten(1), target.flatten(1)
    close(
        explicit_score_matching(on_images, x, target),
        explicit_score_matching(net, flat, flat_target),
    )
    close(
        explicit_score_matching(net, flat, flat_target),
        0.5 * (net(flat) - flat_target).square().sum(1).mean(),
    )
    close(implicit_score_matching(on_images, x), implicit_score_matching(net, flat))
    close(
        sliced_score_matching(on_images, x, n_slices=500, generator=seeded()),
        implicit_score_matching(net, flat),
        0.1,
    )
    close(
        denoising_score_matching(on_images, x, std=0.3, eps=target),
        denoising_score_matching(net, flat, std=0.3, eps=flat_target),
    )


def test_the_trace_is_that_of_autograds_jacobian():
    net, x = network(3), randn(5, 3)
    jacobian = torch.func.vmap(torch.func.jacrev(net))(x)
    trace = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    wanted = (net(x).square().sum(1) / 2 + trace).mean()
    close(implicit_score_matching(net, x), wanted, 1e-12)


# --- over all times of a path ------------------------------------------------------------------


def weight(path, t, weighting):
    a, b, da, db = (c.item() for c in coefficients(path, torch.tensor([t])))
    return b**2 if weighting == "noise" else 2 * b * db - 2 * da / a * b**2


@pytest.mark.parametrize("weighting", ["noise", "likelihood"])
@pytest.mark.parametrize("name", PATHS)
def test_the_weights(name, weighting):
    """λ ½ ‖score + eps / b‖² of x_t = a x + b eps, written out."""
    path, x, eps = PATHS[name], randn(3, 2), randn(3, 2, seed=1)
    t = torch.tensor([0.1, 0.5, 0.9])
    seen = []

    def score(x_t, t):
        seen.append((x_t, t))
        return x_t * t[:, None]

    loss = weighted_score_matching(score, x, path=path, t=t, eps=eps, weighting=weighting)
    a, b, *_ = (c[:, None] for c in coefficients(path, t))
    close(seen[0][0], a * x + b * eps)
    assert torch.equal(seen[0][1], t)
    squares = ((a * x + b * eps) * t[:, None] + eps / b).square().sum(1)
    weights = torch.tensor([weight(path, one, weighting) for one in t.tolist()])
    close(loss, (weights * squares / 2).mean())


def test_the_usual_weighting_is_the_denoisers_loss():
    """Half the sum over an example, against the mean over all numbers: the same draws."""
    path, x = PATHS["VP"], randn(50, 2)
    model = Denoiser(IdealDenoiser(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), path, std=0.4), path)
    model = model.double()
    loss = weighted_score_matching(
        lambda x, t: model.predict(x, t, target="score"), x, path=path, generator=seeded()
    )
    close(loss, model.loss(x, generator=seeded()).double())


@pytest.mark.parametrize("name", PATHS)
def test_likelihood_weighting_integrates_to_the_divergence(name):
    """KL(p_0 ‖ q_0) − KL(p_T ‖ q_T) = ∫ ½ g² E ‖∇ log p_t − ∇ log q_t‖² dt, for two Gaussians.

    The loss of q's score minus that of p's is the integrand: the rest does not depend on q.
    """
    path, (p, q) = PATHS[name], ((0.4, 0.5), (-0.3, 0.8))  # means and standard deviations

    def noised(law, t):
        a, b, *_ = (c.item() for c in coefficients(path, torch.tensor([t], dtype=torch.float64)))
        return a * law[0], (a * law[1]) ** 2 + b**2

    def divergence(t):
        (mean_p, var_p), (mean_q, var_q) = noised(p, t), noised(q, t)
        gap = (var_p + (mean_p - mean_q) ** 2) / var_q
        return (gap - 1 + math.log(var_q / var_p)) / 2

    nodes, weights = np.polynomial.legendre.leggauss(14)
    (x, eps), w = hermite(3, 2)[0].T, hermite(3, 2)[1]
    span, total = path.t_max - path.t_min, 0.0
    for node, share in zip(nodes, weights, strict=False):
        t = path.t_min + span * (node + 1) / 2
        for law, sign in ((q, 1), (p, -1)):
            mean, variance = noised(law, t)
            for x_i, eps_i, w_i in zip(p[0] + p[1] * x, eps, w, strict=False):
                loss = weighted_score_matching(
                    lambda x, t, m=mean, v=variance: -(x - m) / v,
                    x_i.reshape(1, 1),
                    path=path,
                    weighting="likelihood",
                    t=torch.tensor([t]),
                    eps=eps_i.reshape(1, 1),
                )
                total += sign * share * span / 2 * w_i.item() * loss.item()
    assert total == pytest.approx(divergence(path.t_min) - divergence(path.t_max), rel=1e-4)


# --- draws, modes, bad input -------------------------------------------------------------------


def test_the_generator_decides():
    net, x = network(), randn(6, 2)
    for loss in (
        lambda generator: sliced_score_matching(net, x, generator=generator),
        lambda generator: denoising_score_matching(net, x, std=0.5, generator=generator),
        lambda generator: weighted_score_matching(
            lambda x, t: net(x), x, path=PATHS["VP"], generator=generator
        ),
    ):
        first, again, other = (loss(seeded(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert first.shape == ()


def test_times_are_drawn_over_the_whole_path():
    path, seen = PATHS["VP"], []

    def score(x, t):
        seen.append(t)
        return 0 * x

    loss = weighted_score_matching(score, torch.zeros(4000, 2), path=path, generator=seeded())
    assert loss.item() == pytest.approx(1.0, abs=0.1)  # ½ ‖eps‖² in the plane
    assert seen[0].min() < 0.01
    assert seen[0].max() > 0.99


def test_without_gradients_the_losses_are_the_same():
    net, x = network(), randn(6, 2)
    x.requires_grad_()
    with_gradients = (
        implicit_score_matching(net, x),
        sliced_score_matching(net, x, generator=seeded()),
    )
    with torch.no_grad():
        without = implicit_score_matching(net, x), sliced_score_matching(net, x, generator=seeded())
    for one, other in zip(with_gradients, without, strict=False):
        assert one.requires_grad
        assert not other.requires_grad
        assert torch.equal(one, other)
    constant = implicit_score_matching(lambda x: torch.ones_like(x), x.detach())
    assert constant.item() == pytest.approx(1.0)


LOSSES = {
    "explicit": lambda score, x: explicit_score_matching(score, x, torch.zeros(4, 2)),
    "implicit": implicit_score_matching,
    "sliced": sliced_score_matching,
    "denoising": lambda score, x: denoising_score_matching(score, x, std=1.0),
    "weighted": lambda score, x: weighted_score_matching(
        lambda x, t: score(x), x, path=PATHS["VP"]
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_bad_fields_and_data_are_named(name):
    loss, x = LOSSES[name], torch.zeros(4, 2)
    with refuses("score's output must have shape [4, 2], got [4, 1]", PredictionError):
        loss(lambda x: x[:, :1], x)
    with refuses(
        "score's output must be torch.float32 like the model, got torch.float64", PredictionError
    ):
        loss(lambda x: x.double(), x)
    with refuses("x must be finite, got NaN or infinite values"):
        loss(lambda x: x, x / 0)
    with refuses("x must be a floating-point tensor, got torch.int64"):
        loss(lambda x: x, x.long())
    if name != "weighted":
        with refuses("score must be a function, got 3"):
            loss(3, x)


def test_bad_options_are_named():
    x, path = torch.zeros(4, 2), PATHS["VP"]

    def score(x, *t):
        return x

    with refuses("target must have shape [4, 2], got [4, 1]"):
        explicit_score_matching(score, x, x[:, :1])
    with refuses("n_slices must be an integer of at least 1, got 0"):
        sliced_score_matching(score, x, n_slices=0)
    with refuses("std must be a finite number above 0, got 0"):
        denoising_score_matching(score, x, std=0)
    with refuses("eps must have shape [4, 2], got [4]"):
        denoising_score_matching(score, x, std=1.0, eps=x[:, 0])
    with refuses("path must be a GaussianPath, got 'VP'"):
        weighted_score_matching(score, x, path="VP")
    with refuses("weighting must be one of likelihood, noise, got 'g'"):
        weighted_score_matching(score, x, path=path, weighting="g")
    with refuses("t must lie in [0.001, 1.0], got 0.0"):
        weighted_score_matching(score, x, path=path, t=torch.zeros(4))
    with refuses("eps must have shape [4, 2], got [4]"):
        weighted_score_matching(score, x, path=path, eps=x[:, 0])
    for loss in (
        lambda generator: sliced_score_matching(score, x, generator=generator),
        lambda generator: denoising_score_matching(score, x, std=1.0, generator=generator),
        lambda generator: weighted_score_matching(score, x, path=path, generator=generator),
    ):
        with refuses("generator must be a torch.Generator or None, got 3"):
            loss(3)
