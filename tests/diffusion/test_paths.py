"""Paths and predictions against formulas written out, finite differences and exact densities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.diffusion import (
    PREDICTIONS,
    DiscreteSchedule,
    GaussianPath,
    combine,
    convert,
    per_example,
    slerp,
)
from course_lib.diffusion.paths import mixed
from tests.diffusion.conftest import (
    GAUSSIAN,
    MIXTURE,
    PATHS,
    Circle,
    Exploding,
    Straight,
    coefficients,
    each_path,
    full,
    optimal,
    randn,
    refuses,
    said,
    seeded,
)
from tests.no_float64 import elsewhere

KINDS = ("eps", "x0", "v", "score", "velocity")
each_kind = pytest.mark.parametrize("kind", KINDS)


def close(value, expected, tolerance=1e-6):
    """Equal up to ``tolerance``; the betas of schedules are known in single precision only."""
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


# --- the path ----------------------------------------------------------------------------------


@each_path
def test_sample_is_the_formula(name):
    path, t = PATHS[name]
    x0, eps = randn(6, 2), randn(6, 2, seed=1)
    a, b, *_ = coefficients(path, t)
    close(path.noised(x0, t, eps), a[:, None] * x0 + b[:, None] * eps, 1e-12)
    one = path.noised(x0, t[3], eps)
    close(one, a[3] * x0 + b[3] * eps, 1e-12)
    assert torch.equal(one, path.noised(x0, full(t[3].item(), 6), eps))


@each_path
def test_images_are_noised_alike(name):
    path, t = PATHS[name]
    x0, eps = randn(6, 3, 2, 2).float(), randn(6, 3, 2, 2, seed=1).float()
    x_t = path.noised(x0, t, eps)
    assert x_t.dtype == torch.float32
    close(x_t.flatten(1), path.noised(x0.flatten(1), t, eps.flatten(1)), 0)


@each_path
def test_a_device_needs_no_double_precision(name):
    """What is computed on the device is in the precision of the data, and as on the CPU."""
    path, t = PATHS[name]
    x0, eps = randn(6, 2).float(), randn(6, 2, seed=1).float()
    there = elsewhere(x0), elsewhere(t.float() if t.is_floating_point() else t), elsewhere(eps)
    x_t = path.noised(*there)
    assert torch.equal(x_t.cpu(), path.noised(x0, there[1].cpu(), eps))
    combine("v", there[0], there[2], there[1], path)
    convert(there[2], source="eps", target="x0", x_t=x_t, t=there[1], path=path)
    assert torch.equal(slerp(there[0], there[2], 0.3).cpu(), slerp(x0, eps, 0.3))


@each_path
def test_derivatives(name):
    path, t = PATHS[name]
    _, _, da, db = coefficients(path, t)
    close(path.da(t.double()), da, 1e-9)
    close(path.db(t.double()), db, 1e-9)
    assert path.da(t.float()).dtype == torch.float32


def test_derivatives_are_the_slopes_of_a_and_b():
    """Finite differences, on the side where they exist."""
    h = 1e-5
    for name, (path, t) in PATHS.items():
        t = t.double()
        there = torch.where(t + h <= path.t_max, t + h, t - h)
        for formula, derivative in ((path.a, path.da), (path.b, path.db)):
            slope = (formula(there) - formula(t)) / (there - t)
            error = (slope - derivative(t)).abs() / (1e-3 + slope.abs())
            assert error.max() < 5e-2, name


@each_path
def test_log_snr(name):
    path, t = PATHS[name]
    a, b, *_ = coefficients(path, t)
    close(path.log_snr(t.double()), (a**2 / b**2).log(), 1e-9)
    assert (path.log_snr(t.double()).diff() < 0).all()


def test_times_are_drawn_evenly():
    path = Exploding()
    t = path.draw_times(20_000, generator=seeded())
    assert t.shape == (20_000,)
    assert t.dtype == torch.float32
    path.check_times(t)
    shares = torch.histc(t, 10, 0.002, 80) / 20_000
    assert (shares - 0.1).abs().max() < 0.01
    assert torch.equal(t, path.draw_times(20_000, generator=seeded()))
    assert not torch.equal(t, path.draw_times(20_000, generator=seeded(1)))
    assert path.draw_times(1).shape == (1,)
    assert path.draw_times(3, device="meta").is_meta


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1e-5, 1.0), (0.002, 80.0), (0.01, 0.99)])
def test_the_ends_of_a_draw_are_times_of_the_path(low, high, monkeypatch):
    path = Straight()
    path.t_min, path.t_max = low, high
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([0.0, 1 - 2**-24]))
    t = path.draw_times(2)
    path.check_times(t)
    close(t, torch.tensor([low, high]))


def test_a_path_needs_both_formulas():
    class Half(GaussianPath):
        def a(self, t):
            return 1 - t

    for kind in (GaussianPath, Half):
        with pytest.raises(TypeError, match="abstract"):
            kind()
    assert (Straight().t_min, Straight().t_max) == (0.0, 1.0)


def test_per_example():
    x = torch.zeros(3, 2, 4, 4)
    value = per_example(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), x)
    assert value.shape == (3, 1, 1, 1)
    assert value.dtype == torch.float32
    assert value.flatten().tolist() == [1, 2, 3]
    assert per_example(torch.tensor([1, 2]), torch.zeros(2, 5)).shape == (2, 1)
    assert per_example(torch.tensor([1, 2]), torch.zeros(2)).shape == (2,)


# --- what a network may predict ----------------------------------------------------------------


def test_there_are_five_predictions():
    assert set(PREDICTIONS) == set(KINDS)


def test_one_number_for_all_examples_has_the_shape_of_many():
    x = randn(4, 3, 2, 2).float()
    for one in (0.5, torch.tensor(0.5), torch.tensor([0.5]).double()):
        got = per_example(one, x)
        assert torch.equal(got, torch.full((4, 1, 1, 1), 0.5))


@pytest.mark.parametrize("p", [-1.0, 0.0, 1.0, 0.3])
@pytest.mark.parametrize("q", [-1.0, 0.0, 1.0, 0.3])
def test_a_sum_is_the_same_with_less_work(p, q):
    x, value = randn(9, 2), randn(9, 2, seed=1)
    wanted = p * x + q * value
    assert torch.equal(mixed(p, x, q, value), wanted)
    column = torch.full((9, 1), 1.0, dtype=x.dtype)
    assert torch.equal(mixed(p * column, x, q * column, value), wanted)
    assert torch.equal(mixed(p, x, q * column, value), wanted)
    assert torch.equal(mixed(p * column, x, q, value), wanted)


@each_path
@each_kind
def test_combine(name, kind):
    path, t = PATHS[name]
    x0, eps = randn(6, 2), randn(6, 2, seed=1)
    close(combine(kind, x0, eps, t, path), said(kind, x0, eps, path, t), 1e-9)
    one = combine(kind, x0, eps, t[2], path)
    close(one, said(kind, x0, eps, path, full(t[2].item(), 6)), 1e-9)


@each_path
@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_convert(name, source, target):
    path, t = PATHS[name]
    x0, eps = randn(6, 2), randn(6, 2, seed=1)
    a, b, *_ = coefficients(path, t)
    x_t = a[:, None] * x0 + b[:, None] * eps
    value, expected = (said(kind, x0, eps, path, t) for kind in (source, target))
    converted = convert(value, source=source, target=target, x_t=x_t, t=t, path=path)
    close(converted, expected, 1e-8)
    back = convert(converted, source=target, target=source, x_t=x_t, t=t, path=path)
    close(back, value, 1e-8)


@given(
    path=st.sampled_from([Straight(), Exploding(), Circle(), DiscreteSchedule.linear(1000)]),
    where=st.floats(0.01, 0.99),
    source=st.sampled_from(KINDS),
    target=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=80, deadline=None)
def test_any_prediction_says_the_same(path, where, source, target, seed):
    """There and back, for any numbers: a prediction need not be that of any data."""
    t = torch.tensor(path.t_min + where * (path.t_max - path.t_min), dtype=torch.float64)
    x_t, value = randn(3, 2, 2, seed=seed), randn(3, 2, 2, seed=seed + 1)

    def rewrite(value, source, target):
        return convert(value, source=source, target=target, x_t=x_t, t=t, path=path)

    there = rewrite(value, source, target)
    close(rewrite(there, target, source), value, 1e-5)
    x0, eps = rewrite(value, source, "x0"), rewrite(value, source, "eps")
    close(path.noised(x0, t, eps), x_t, 1e-5)
    close(combine(target, x0, eps, t, path), there, 1e-5)


@pytest.mark.parametrize("data", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
@each_path
def test_the_score_is_the_gradient_of_the_log_density(name, data):
    """The best guess of eps, said as a score, is ∇ log q(x_t), by autograd of the exact density."""
    path, times = PATHS[name]
    for t in times[[1, 3, 4]]:
        a, b = (c.item() for c in coefficients(path, t[None])[:2])
        x = data.noised(a, b).parts[0].sample(5, seeded()) if data is MIXTURE else randn(5, 2)
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(data.noised(a, b).log_prob(x).sum(), x)
        x = x.detach()
        for kind in KINDS:
            value = optimal(data, path, kind)(x, t.expand(5))
            score = convert(value, source=kind, target="score", x_t=x, t=t, path=path)
            close(score, gradient, 1e-6)


def test_the_velocity_moves_a_point_along_the_path():
    """dx_t/dt with x_0 and eps held, by finite differences."""
    x0, eps = randn(4, 2), randn(4, 2, seed=1)
    for path, where in ((Straight(), 0.3), (Circle(), 0.6), (Exploding(), 7.0)):
        t = torch.tensor([where - 1e-4, where + 1e-4], dtype=torch.float64)
        slope = (path.noised(x0, t[1], eps) - path.noised(x0, t[0], eps)) / (t[1] - t[0])
        velocity = combine("velocity", x0, eps, t.mean(), path)
        close(velocity, slope, 1e-6)


def test_the_last_time_of_a_schedule_has_a_velocity():
    """It is the slope of the last piece, not 0: there, eps and the velocity say the same."""
    path = DiscreteSchedule.linear(1000)
    x_t, eps = randn(3, 2), randn(3, 2, seed=1)
    last = convert(eps, source="eps", target="velocity", x_t=x_t, t=999, path=path)
    near = convert(eps, source="eps", target="velocity", x_t=x_t, t=998.5, path=path)
    torch.testing.assert_close(last, near, rtol=0.02, atol=0)
    close(convert(last, source="velocity", target="eps", x_t=x_t, t=999, path=path), eps, 1e-6)


def test_the_same_kind_is_passed_on():
    x = randn(2, 2)
    value = randn(2, 2, seed=1)
    for t in (0.0, 1.0):
        for kind in KINDS:
            same = convert(value, source=kind, target=kind, x_t=x, t=t, path=Straight())
            assert torch.equal(same, value)


def test_predictions_that_hold_at_the_ends():
    """At pure noise, and at the data, some kinds still determine the others."""
    x, value = randn(2, 2), randn(2, 2, seed=1)

    def on_straight(t, source, target):
        return convert(value, source=source, target=target, x_t=x, t=t, path=Straight())

    close(on_straight(1.0, "velocity", "x0"), x - value)
    close(on_straight(1.0, "velocity", "eps"), x)
    close(on_straight(0.0, "velocity", "eps"), x + value)
    close(on_straight(0.0, "eps", "x0"), x)
    close(on_straight(1.0, "x0", "eps"), x)
    close(on_straight(1.0, "v", "x0"), -value)


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t", "source"),
    [(1.0, "eps"), (1.0, "score"), (0.0, "x0"), (0.0, "score")],
)
def test_what_a_time_does_not_determine_is_refused(t, source):
    x = randn(3, 2)
    times = torch.tensor([0.5, t, 0.5])
    message = f"t must be a time at which x_t and {source} determine x_0, got {t}"
    with refuses(message):
        convert(x, source=source, target="velocity", x_t=x, t=times, path=Straight())


def test_v_says_nothing_where_it_is_a_multiple_of_x_t():
    """x_t = x_0 + t eps and v = eps - t x_0 never are: the determinant is 1 + t²."""
    x = randn(2, 2)
    assert convert(x, source="v", target="x0", x_t=x, t=1.0, path=Exploding()).isfinite().all()


def test_infinite_predictions_are_refused():
    class Arc(Straight):
        def a(self, t):
            return (1 - t**2).sqrt()

    x = randn(2, 2)
    with refuses("t must be a time at which score is finite, got 0.0"):
        combine("score", x, x, torch.tensor([0.5, 0.0]), Straight())
    with refuses("t must be a time at which score is finite, got 0.0"):
        convert(x, source="eps", target="score", x_t=x, t=0.0, path=Straight())
    with refuses("t must be a time at which velocity is finite, got 1.0"):
        combine("velocity", x, x, 1.0, Arc())
    with refuses("t must be a time at which x_t and velocity determine x_0, got 1.0"):
        convert(x, source="velocity", target="eps", x_t=x, t=1.0, path=Arc())


TIMES = [
    (-0.1, "t must lie in [0.0, 1.0], got -0.10000000149011612"),
    (1.5, "t must lie in [0.0, 1.0], got 1.5"),
    (math.nan, "t must lie in [0.0, 1.0], got nan"),
    (math.inf, "t must lie in [0.0, 1.0], got inf"),
    (torch.tensor([0.5, 2.0]), "t must lie in [0.0, 1.0], got 2.0"),
    (torch.tensor([0.5]), "t must be one time or a tensor of shape [2], got torch.float32 [1]"),
    (
        torch.zeros(2, 1),
        "t must be one time or a tensor of shape [2], got torch.float32 [2, 1]",
    ),
    (True, "t must be one time or a tensor of shape [2], got torch.bool []"),
    (1j * torch.ones(2), "t must be one time or a tensor of shape [2], got torch.complex64 [2]"),
    ("now", "t must be one time or a tensor of shape [2], got 'now'"),
    (None, "t must be one time or a tensor of shape [2], got None"),
]


@pytest.mark.parametrize(("t", "message"), TIMES)
def test_bad_times_are_named(t, message):
    x, path = randn(2, 2), Straight()
    for use in (
        lambda: path.times(t, 2),
        lambda: path.noised(x, t, x),
        lambda: combine("eps", x, x, t, path),
        lambda: convert(x, source="eps", target="eps", x_t=x, t=t, path=path),
        lambda: convert(x, source="eps", target="v", x_t=x, t=t, path=path),
    ):
        with refuses(message):
            use()


def test_the_ends_are_times():
    for path in (Straight(), Exploding()):
        ends = torch.tensor([path.t_min, path.t_max])
        assert torch.equal(path.times(ends, 2), ends)
        assert path.times(path.t_max, 3).shape == (3,)


@pytest.mark.parametrize("wrong", ["noise", None, 3, "EPS"])
def test_unknown_predictions_are_named(wrong):
    x = randn(2, 2)
    allowed = "eps, score, v, velocity, x0"
    with refuses(f"kind must be one of {allowed}, got {wrong!r}"):
        combine(wrong, x, x, 0.5, Straight())
    with refuses(f"source must be one of {allowed}, got {wrong!r}"):
        convert(x, source=wrong, target="eps", x_t=x, t=0.5, path=Straight())
    with refuses(f"target must be one of {allowed}, got {wrong!r}"):
        convert(x, source="eps", target=wrong, x_t=x, t=0.5, path=Straight())


@pytest.mark.parametrize("name", ["x0", "eps", "x_t", "value"])
def test_bad_tensors_are_named(name):
    good = randn(3, 2)
    bad = {
        "must be finite, got NaN or infinite values": torch.full((3, 2), math.nan).double(),
        "must be a floating-point tensor, got torch.int64": torch.zeros(3, 2).long(),
    }
    if name in ("eps", "value"):
        bad |= {
            "must have shape [3, 2], got [1, 2]": randn(1, 2),
            "must have shape [3, 2], got [3]": randn(3),
            "must be torch.float64 like the model, got torch.float32": good.float(),
            "must be a tensor of shape [3, 2], got list": [1.0],
        }
    else:
        bad |= {
            "must have any shape but an empty one, got [0, 2]": torch.zeros(0, 2).double(),
            "must be a tensor of any shape but an empty one, got list": [1.0],
        }
    for message, tensor in bad.items():
        given = {"x0": good, "eps": good, "x_t": good, "value": good, name: tensor}
        if name in ("x0", "eps"):
            with refuses(f"{name} {message}"):
                Straight().noised(given["x0"], 0.5, given["eps"])
            with refuses(f"{name} {message}"):
                combine("v", given["x0"], given["eps"], 0.5, Straight())
        else:
            with refuses(f"{name} {message}"):
                convert(
                    given["value"],
                    source="eps",
                    target="v",
                    x_t=given["x_t"],
                    t=0.5,
                    path=Straight(),
                )


def test_bad_generators_are_named():
    for path in (Straight(), DiscreteSchedule.linear(5)):
        with refuses("generator must be a torch.Generator or None, got 3"):
            path.draw_times(2, generator=3)
        with refuses("generator must be on device meta, got cpu"):
            path.draw_times(2, generator=seeded(), device="meta")


def test_sample_is_another_name_of_noised():
    x0, eps = randn(3, 2), randn(3, 2, seed=1)
    assert torch.equal(Straight().sample(x0, 0.3, eps), Straight().noised(x0, 0.3, eps))
