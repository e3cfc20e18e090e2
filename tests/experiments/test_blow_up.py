"""What becomes of points in a stack of couplings, against the same by hand."""

import math

import pytest
import torch

from course_lib.experiments import far_latents, run_stack, runaway_log_scale


def test_far_latents_lie_on_a_circle():
    points = far_latents(3.0, 10)
    assert points.shape == (10, 2)
    assert torch.allclose(points.norm(dim=1), torch.full((10,), 3.0))
    assert torch.allclose(points.sum(0), torch.zeros(2), atol=1e-5)
    assert torch.allclose(
        (points - points.roll(1, 0)).norm(dim=1), torch.tensor(6 * math.sin(0.1 * math.pi))
    )
    assert torch.allclose(far_latents().norm(dim=1), torch.tensor(4.0))


def by_hand(raw, x, signs):
    """Coordinates 1, 0, 1, ... are multiplied in turn: the sizes on the way, and the log-scales."""
    sizes, log_scales = [x.abs().max()], []
    for k, sign in enumerate(signs):
        moved = (k + 1) % 2
        s = raw(x[:, 1 - moved])
        x = x.clone()
        x[:, moved] = x[:, moved] * (sign * s).exp()
        sizes.append(x.abs().max())
        log_scales.append(s.abs().max())
    return torch.stack(sizes), torch.stack(log_scales)


@pytest.mark.parametrize("bound", [None, 0.5])
def test_a_stack_does_what_its_formula_says(bound):
    x = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))

    def raw(kept):
        return 0.3 * kept + 0.1

    def s(kept):
        return raw(kept) if bound is None else bound * (raw(kept) / bound).tanh()

    report = run_stack(raw, x, bound=bound, depth=5)
    sizes, log_scales = by_hand(s, x, [1] * 5)
    assert torch.allclose(report.sizes, sizes)
    assert torch.allclose(report.log_scales, log_scales)
    assert report.error < 1e-5

    # From latent to data the last coupling is undone first: of 5 it moves coordinate 1, as well.
    report = run_stack(raw, x, bound=bound, depth=5, backwards=True)
    sizes, log_scales = by_hand(s, x, [-1] * 5)
    assert torch.allclose(report.sizes, sizes)
    assert torch.allclose(report.log_scales, log_scales)
    even = run_stack(raw, x, bound=bound, depth=4, backwards=True)
    assert torch.allclose(even.sizes, by_hand(s, x.flip(1), [-1] * 4)[0])


def test_what_overflows_is_infinite_from_there_on():
    x = torch.tensor([[2.0, 2.0]])
    report = run_stack(lambda kept: 50 * kept, x, bound=None, depth=3)
    assert report.sizes.tolist() == [2.0, math.inf, math.inf, math.inf]
    assert report.log_scales.tolist() == [100.0, math.inf, math.inf]
    assert report.error == math.inf
    # What is shrunk to 0 comes back as 0 / 0.
    report = run_stack(lambda kept: -100 * kept.abs(), x, bound=None, depth=1)
    assert report.sizes.tolist() == [2.0, 2.0]
    assert report.error == math.inf
    kept_in_range = run_stack(lambda kept: -52 * torch.ones_like(kept), x, bound=None, depth=1)
    assert kept_in_range.error < 1e-5


def test_what_rounding_loses_is_measured():
    x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    wobbly = run_stack(lambda kept: (1e5 * kept).sin(), x, bound=None)
    assert wobbly.sizes.isfinite().all()
    assert 0.1 < wobbly.error < math.inf


def test_a_stack_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    run_stack(runaway_log_scale, far_latents(), bound=2.0)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": torch.zeros(3, 3)}, r"start must .* shape \[B, 2\]"),
        ({"start": torch.zeros(3, 2, dtype=torch.float64)}, "start must"),
        ({"bound": 0.0}, "bound must be a finite number above 0"),
        ({"depth": 0}, "depth must be an integer of at least 1, got 0"),
        ({"backwards": 1}, "backwards must be True or False, got 1"),
    ],
)
def test_run_stack_checks_its_arguments(options, said):
    start = options.pop("start", torch.zeros(3, 2))
    with pytest.raises(ValueError, match=said):
        run_stack(runaway_log_scale, start, **{"bound": 2.0, **options})


def test_far_latents_checks_its_arguments():
    with pytest.raises(ValueError, match="sigmas must be a finite number above 0, got 0"):
        far_latents(0)
    with pytest.raises(ValueError, match="n must be an integer of at least 1, got 0"):
        far_latents(4.0, 0)
