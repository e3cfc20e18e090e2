"""The divergence, exactly and by Hutchinson's probes, against Jacobians and by enumeration."""

import itertools

import pytest
import torch

from course_lib.flows import divergence, exact_trace, hutchinson_trace, random_signs
from course_lib.flows.divergence import with_divergence
from tests.flows.conftest import log_abs_det_jacobian


def curved(x):
    """A field whose coordinates mix."""
    return torch.stack([x.prod(1), x[:, 0].sin() + x[:, 1] ** 2, x[:, 2] * x[:, 0]], dim=1)


def jacobian_of(x):
    return torch.stack(
        [
            torch.autograd.functional.jacobian(lambda p: curved(p[None])[0], point)
            for point in x.detach()
        ]
    )


@pytest.fixture
def x(generator):
    return torch.randn(7, 3, generator=generator, dtype=torch.float64)


def test_it_is_the_trace_of_the_jacobian(x):
    expected = torch.einsum("bii->b", jacobian_of(x))
    torch.testing.assert_close(divergence(curved, x), expected)


def test_it_is_the_slope_of_the_log_determinant_of_a_small_step(x):
    """The log of det(I + J dt) = tr J dt + O(dt²)."""
    dt = 1e-6
    slope = log_abs_det_jacobian(lambda p: p + dt * curved(p), x) / dt
    torch.testing.assert_close(divergence(curved, x), slope, rtol=1e-4, atol=1e-4)


def test_images_have_one_as_well(generator):
    x = torch.randn(2, 2, 3, 2, generator=generator, dtype=torch.float64)
    scale = torch.arange(12.0, dtype=torch.float64).reshape(2, 3, 2)
    got = divergence(lambda x: scale * x + x.roll(1, dims=1), x)
    assert got.tolist() == [66.0, 66.0]


def all_signs(n):
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=n)), dtype=torch.float64)


def test_hutchinsons_mean_and_variance_over_all_probes(x):
    """Unbiased, with variance Σ_{i<j} (J_ij + J_ji)²: every probe there is, each as likely."""
    J = jacobian_of(x)
    estimates = []
    for signs in all_signs(3):
        leaf = x.clone().requires_grad_()
        estimates.append(hutchinson_trace(curved(leaf), leaf, signs.expand_as(x)))
    estimates = torch.stack(estimates)
    torch.testing.assert_close(estimates.mean(0), torch.einsum("bii->b", J))
    both = (J + J.mT) ** 2
    expected = sum(both[:, i, j] for i, j in itertools.combinations(range(3), 2))
    torch.testing.assert_close(estimates.var(0, correction=0), expected)


def test_any_probe_will_do(x, generator):
    """probeᵀ J probe, also of Gaussian numbers, whose squares are not 1."""
    J, leaf = jacobian_of(x), x.clone().requires_grad_()
    probe = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    got = hutchinson_trace(curved(leaf), leaf, probe)
    torch.testing.assert_close(got, torch.einsum("bi,bij,bj->b", probe, J, probe))


def test_each_example_has_a_probe_of_its_own(x, generator):
    J = jacobian_of(x)
    state = generator.get_state()
    got = divergence(curved, x, method="hutchinson", generator=generator)
    generator.set_state(state)
    probe = random_signs(x, generator)
    torch.testing.assert_close(got, torch.einsum("bi,bij,bj->b", probe, J, probe))
    assert len(probe.unique(dim=0)) > 1


def test_signs_are_signs(generator):
    signs = random_signs(torch.zeros(10_000, 2), generator)
    assert sorted(signs.unique().tolist()) == [-1.0, 1.0]
    assert signs.mean(0).abs().max() < 0.05
    assert signs.prod(1).mean().abs() < 0.05
    assert random_signs(torch.zeros(2, dtype=torch.float64)).dtype == torch.float64


def test_a_gradient_of_the_trace_is_kept_where_gradients_are(x):
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def field(x):
        return (weight * x).sin()

    for probe in (None, torch.ones_like(x)):
        _, trace = with_divergence(field, x, probe)
        (slope,) = torch.autograd.grad(trace.sum(), weight)
        # ∂/∂w Σ w cos(w x)
        expected = ((weight * x).cos() - weight * x * (weight * x).sin()).sum()
        torch.testing.assert_close(slope, expected.detach())
        with torch.no_grad():
            value, trace = with_divergence(field, x, probe)
        assert not value.requires_grad
        assert not trace.requires_grad
    assert not x.requires_grad


def test_fields_that_do_not_depend_on_x_have_none(x):
    assert divergence(lambda x: torch.ones_like(x), x).tolist() == [0.0] * 7
    assert divergence(lambda x: x[:, [1, 2, 0]], x).tolist() == [0.0] * 7
    leaf = x.clone().requires_grad_()
    assert exact_trace(leaf[:, [1, 1, 1]], leaf).tolist() == [1.0] * 7


def test_bad_arguments_are_named(x):
    def refuses(message):
        return pytest.raises(ValueError, match=message)

    with refuses(r"^x must be a floating-point tensor, got torch.int64$"):
        divergence(curved, torch.zeros(2, 3, dtype=torch.int64))
    with refuses(r"^method must be one of exact, hutchinson, got 'skilling'$"):
        divergence(curved, x, method="skilling")
    with refuses(r"^generator must be a torch.Generator or None, got 3$"):
        divergence(curved, x, method="hutchinson", generator=3)
    with refuses(r"^the field must give velocities of shape \[7, 3\], got \[7, 2\]$"):
        divergence(lambda x: x[:, :2], x)
    with refuses(r"^the field must give velocities of shape \[7, 3\], got float$"):
        divergence(lambda x: 1.0, x)
