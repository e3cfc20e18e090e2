"""DDIM's times and steps: as DDPM at one end, as an ordinary differential equation at the other."""

import math
import re
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.diffusion import (
    DDPM,
    Denoiser,
    DiscreteSchedule,
    PredictionError,
    ddim_invert,
    ddim_sample,
    ddim_step,
    ddim_times,
    ddpm_sample,
    last,
)
from course_lib.nn import TimeMLP
from tests.diffusion.conftest import (
    GAUSSIAN,
    MIXTURE,
    Circle,
    Straight,
    coefficients,
    optimal,
    randn,
    refuses,
    seeded,
)

LINEAR = DiscreteSchedule.linear(50)


def model_on(schedule=LINEAR, data=MIXTURE, **options):
    return DDPM(optimal(data, schedule), schedule, **options).double()


def zero(x, t):
    return torch.zeros_like(x)


# --- times -------------------------------------------------------------------------------------


@given(T=st.integers(1, 1200), data=st.data(), spacing=st.sampled_from(["linear", "quadratic"]))
@settings(max_examples=150, deadline=None)
def test_times_rise_and_end_where_noising_ends(T, data, spacing):
    steps = data.draw(st.integers(1, T))
    times = ddim_times(T, steps, spacing)
    assert len(times) == steps
    assert times[0] >= 0
    assert times[-1] == T - 1
    assert all(first < second for first, second in pairwise(times))
    assert ddim_times(T, T, spacing) == list(range(T))


@given(T=st.integers(1, 300), data=st.data(), spacing=st.sampled_from(["linear", "quadratic"]))
@settings(max_examples=100, deadline=None)
def test_times_are_the_formula_or_the_next_free_one(T, data, spacing):
    steps = data.draw(st.integers(1, T))
    expected, power = [], {"linear": 1, "quadratic": 2}[spacing]
    for i in range(1, steps + 1):
        time = round(T * (i / steps) ** power) - 1  # counted from 0
        while time < 0 or time in expected:
            time += 1
        expected.append(time)
    assert ddim_times(T, steps, spacing) == expected


def test_times_by_hand():
    assert ddim_times(1000, 4) == [249, 499, 749, 999]
    assert ddim_times(1000, 4, "linear") == [249, 499, 749, 999]
    assert ddim_times(1000, 4, "quadratic") == [61, 249, 561, 999]  # 62.5 - 1 and so on, to even
    assert ddim_times(10, 6, "quadratic") == [0, 1, 2, 3, 6, 9]
    assert ddim_times(1, 1) == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1), "T must be an integer of at least 1, got 0"),
        ((10.0, 1), "T must be an integer of at least 1, got 10.0"),
        ((10, 0), "steps must be an integer from 1 to 10, got 0"),
        ((10, 11), "steps must be an integer from 1 to 10, got 11"),
        ((10, 2.0), "steps must be an integer from 1 to 10, got 2.0"),
        ((10, 5, "cubic"), "spacing must be one of linear, quadratic, got 'cubic'"),
        ((10, 5, None), "spacing must be one of linear, quadratic, got None"),
    ],
)
def test_bad_times_are_named(arguments, message):
    with refuses(message):
        ddim_times(*arguments)


# --- one step ----------------------------------------------------------------------------------


def points(schedule, now, then):
    """(a, b) of two times, the data for ``then`` = -1."""
    both = []
    for t in (now, then):
        a, b, *_ = coefficients(schedule, torch.tensor([max(t, 0)]))
        both.append((1.0, 0.0) if t < 0 else (a.item(), b.item()))
    return both


@pytest.mark.parametrize(("now", "then"), [(49, 48), (49, 10), (30, 5), (1, 0), (7, -1)])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_a_step_is_the_papers(now, then, eta):
    """Equations 12 and 16, in ᾱ."""
    x, x_0, noise = (randn(4, 2, seed=k) for k in range(3))
    (a, b), (a_then, b_then) = start, end = points(LINEAR, now, then)
    before, after = a**2, a_then**2
    sigma = eta * math.sqrt((1 - after) / (1 - before)) * math.sqrt(1 - before / after)
    eps = (x - math.sqrt(before) * x_0) / math.sqrt(1 - before)
    expected = math.sqrt(after) * x_0 + math.sqrt(1 - after - sigma**2) * eps + sigma * noise
    stepped = ddim_step(x, x_0, now=start, then=end, eta=eta, noise=noise)
    torch.testing.assert_close(stepped, expected, rtol=1e-9, atol=1e-9)
    assert (b, b_then) == pytest.approx((math.sqrt(1 - before), math.sqrt(1 - after)))


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_step_from_the_truth_ends_in_the_truth(eta):
    """With the true x_0 the state's law is right at the end of every step, for every eta.

    x = a x_0 + b eps goes to a' x_0 + N(0, b'²): the mean follows, and the squares of what
    multiplies the two noises add up to b'². Both are read off the step.
    """
    start, end = points(LINEAR, 30, 12)
    x_0 = randn(4, 2)

    def step(eps, noise):
        x = start[0] * x_0 + start[1] * eps
        return ddim_step(x, x_0, now=start, then=end, eta=eta, noise=noise)

    none, one = torch.zeros(4, 2).double(), torch.ones(4, 2).double()
    middle = step(none, none)
    torch.testing.assert_close(middle, end[0] * x_0)
    old, new = (step(one, none) - middle), (step(none, one) - middle)
    torch.testing.assert_close(old**2 + new**2, end[1] ** 2 * one)
    assert (new > 0).all() == (eta > 0)
    assert (old >= 0).all()


@pytest.mark.parametrize("t", [1, 2, 20, 49])
def test_with_all_fresh_noise_a_step_is_ddpms(t):
    model = model_on()
    x, noise = randn(5, 2), randn(5, 2, seed=1)
    mean, variance = model.reverse(x, t)
    start, end = points(LINEAR, t, t - 1)
    stepped = ddim_step(x, model.predict_x0(x, t), now=start, then=end, eta=1.0, noise=noise)
    torch.testing.assert_close(stepped, mean + variance.sqrt() * noise, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", [LINEAR, Straight(), Circle()], ids=["schedule", "straight", "c"])
def test_without_noise_a_step_is_eulers(path):
    """In u = x / a and s = b / a the velocity du/ds is eps: u' = u + (s' - s) eps, exactly."""
    x, eps = randn(4, 2), randn(4, 2, seed=1)
    for now, then in ((0.9, 0.4), (0.5, 0.49), (0.2, 0.7)):
        t = torch.tensor([now, then], dtype=torch.float64) * (path.t_max - path.t_min)
        a, b, *_ = (c.tolist() for c in coefficients(path, t))
        x_0 = (x - b[0] * eps) / a[0]
        stepped = ddim_step(x, x_0, now=(a[0], b[0]), then=(a[1], b[1]))
        euler = x / a[0] + (b[1] / a[1] - b[0] / a[0]) * eps
        torch.testing.assert_close(stepped / a[1], euler, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("path", [Straight(), Circle()], ids=["straight", "circle"])
def test_without_noise_a_step_solves_the_equation_for_a_fixed_eps(path):
    """dx/dt = a'/a x + (b' - a'/a b) eps, integrated in 2,000 steps of Runge-Kutta."""
    eps = randn(3, 2)
    x = start = randn(3, 2, seed=1)

    def slope(x, t):
        a, b, da, db = (c.item() for c in coefficients(path, torch.tensor([t]).double()))
        return da / a * x + (db - da / a * b) * eps

    n, t, end = 500, 0.8, 0.3
    h = (end - t) / n
    for i in range(n):
        s = t + i * h
        k1 = slope(x, s)
        k2 = slope(x + h / 2 * k1, s + h / 2)
        k3 = slope(x + h / 2 * k2, s + h / 2)
        k4 = slope(x + h * k3, s + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    a, b, *_ = (c.tolist() for c in coefficients(path, torch.tensor([t, end]).double()))
    x_0 = (start - b[0] * eps) / a[0]
    stepped = ddim_step(start, x_0, now=(a[0], b[0]), then=(a[1], b[1]))
    torch.testing.assert_close(stepped, x, rtol=1e-6, atol=1e-6)


# --- the sampler -------------------------------------------------------------------------------


def test_with_all_steps_and_all_noise_it_is_ddpm():
    model = model_on(variance="posterior")
    ours = list(ddim_sample(model, (6, 2), steps=50, eta=1.0, generator=seeded(3)))
    theirs = list(ddpm_sample(model, (6, 2), generator=seeded(3)))
    assert len(ours) == len(theirs) == 51
    for x, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, other, rtol=1e-8, atol=1e-8)
    clipped = ddim_sample(model, (6, 2), steps=50, eta=1.0, clip=0.6, generator=seeded(3))
    torch.testing.assert_close(
        last(clipped), last(ddpm_sample(model, (6, 2), clip=0.6, generator=seeded(3)))
    )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("spacing", ["linear", "quadratic"])
@pytest.mark.parametrize("clip", [None, 0.7])
def test_the_sampler_takes_every_step(eta, spacing, clip):
    model = model_on()
    source = seeded(3)
    states = list(
        ddim_sample(model, (6, 2), steps=7, eta=eta, spacing=spacing, clip=clip, generator=source)
    )
    assert len(states) == 8
    noise = seeded(3)
    x = torch.randn(6, 2, generator=noise, dtype=torch.float64)
    assert torch.equal(states[0], x)
    times = [-1, *ddim_times(50, 7, spacing)]
    for i in range(7, 0, -1):
        x_0 = model.predict_x0(x, times[i], clip=clip)
        start, end = points(LINEAR, times[i], times[i - 1])
        fresh = None
        if eta > 0 and i > 1:
            fresh = torch.randn(6, 2, generator=noise, dtype=torch.float64)
        x = ddim_step(x, x_0, now=start, then=end, eta=eta if i > 1 else 0, noise=fresh)
        torch.testing.assert_close(states[8 - i], x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(states[-1], x_0)
    assert torch.equal(source.get_state(), noise.get_state())  # nothing is drawn in vain


def test_without_noise_samples_are_a_function_of_z():
    model = model_on()
    z = randn(4, 2)
    first = last(ddim_sample(model, (4, 2), steps=5, z=z, generator=seeded(1)))
    assert torch.equal(first, last(ddim_sample(model, (4, 2), steps=5, z=z, generator=seeded(2))))
    assert torch.equal(z, randn(4, 2))
    spelled = ddim_sample(model, (4, 2), steps=5, eta=0, spacing="linear", z=z)
    assert torch.equal(first, last(spelled))
    noisy = [
        last(ddim_sample(model, (4, 2), steps=5, eta=0.5, z=z, generator=seeded(k)))
        for k in (1, 1, 2)
    ]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])
    # Few steps and many end near each other, from the same noise.
    many = last(ddim_sample(model, (4, 2), steps=50, z=z))
    assert (first - many).abs().max() < 0.4


def test_labels_reach_the_network_at_every_step():
    calls = []

    def net(x, t, y):
        calls.append((t[0].item(), y))
        return torch.zeros_like(x)

    y = torch.tensor([1, 0, 1])
    model = Denoiser(net, LINEAR)
    last(ddim_sample(model, (3, 2), steps=3, y=y))
    last(ddim_invert(model, torch.zeros(3, 2), steps=3, y=y))
    assert [t for t, _ in calls] == [49, 32, 16, 16, 32, 49]
    assert all(label is y for _, label in calls)


def test_sampling_records_no_gradients_and_disturbs_nothing():
    model = DDPM(TimeMLP(2, [8]), DiscreteSchedule.linear(5))
    state = torch.get_rng_state()
    z = torch.zeros(3, 2, requires_grad=True)
    for states in (
        ddim_sample(model, (3, 2), steps=3, eta=1.0, generator=seeded()),
        ddim_invert(model, z.detach(), steps=3),
    ):
        for x in states:
            assert not x.requires_grad
            assert torch.is_grad_enabled()
            assert x.dtype == torch.float32
    assert not last(ddim_sample(model, (3, 2), steps=3, z=z)).requires_grad
    assert not last(ddim_invert(model, z, steps=3)).requires_grad
    assert torch.equal(torch.get_rng_state(), state)


# --- inversion ---------------------------------------------------------------------------------


def test_inversion_is_the_step_turned_round():
    """From the data to the first time, and so on, with the eps of the state at the start."""
    model = model_on()
    x = randn(4, 2)
    states = list(ddim_invert(model, x, steps=4, spacing="quadratic"))
    assert len(states) == 5
    assert states[0] is x
    times = ddim_times(50, 4, "quadratic")
    before = (1.0, 0.0)
    for i, t in enumerate(times):
        now = points(LINEAR, t, t)[0]
        eps = model.predict(states[i], t)
        x_0 = (states[i] - before[1] * eps) / before[0]
        torch.testing.assert_close(states[i + 1], now[0] * x_0 + now[1] * eps)
        before = now
    assert torch.equal(x, randn(4, 2))
    even = last(ddim_invert(model, x, steps=4))
    assert torch.equal(even, last(ddim_invert(model, x, steps=4, spacing="linear")))
    assert not torch.equal(even, states[-1])


@pytest.mark.parametrize("data", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
def test_inversion_gets_better_in_proportion_to_the_steps(data):
    """There and back: the error has order 1 (slope -1 in logarithms)."""
    schedule = DiscreteSchedule.linear(1000)
    model = DDPM(optimal(data, schedule), schedule).double()
    part = data if data is GAUSSIAN else data.parts[1]
    x = part.sample(50, seeded(1))
    counts = [50, 100, 200]
    errors = []
    for steps in counts:
        z = last(ddim_invert(model, x, steps=steps))
        back = last(ddim_sample(model, x.shape, steps=steps, z=z))
        errors.append((back - x).norm(dim=1).mean().item())
    logs = torch.tensor([counts, errors], dtype=torch.float64).log()
    logs = logs - logs.mean(1, keepdim=True)
    slope = (logs[0] * logs[1]).sum() / (logs[0] ** 2).sum()
    assert -1.2 < slope < -0.85, (slope, errors)
    assert errors[-1] < 0.05


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "model must be a Denoiser, got NoneType"),
        ({"model": zero}, "model must be a Denoiser, got function"),
        ({"steps": 0}, "steps must be an integer from 1 to 50, got 0"),
        ({"steps": 51}, "steps must be an integer from 1 to 50, got 51"),
        ({"steps": 1.0}, "steps must be an integer from 1 to 50, got 1.0"),
        ({"spacing": "log"}, "spacing must be one of linear, quadratic, got 'log'"),
        ({"eta": -0.1}, "eta must be a finite number of at least 0, got -0.1"),
        ({"eta": math.nan}, "eta must be a finite number of at least 0, got nan"),
        ({"eta": 1.01}, "eta must be from 0 to 1, got 1.01"),
        ({"clip": -1}, "clip must be a finite number above 0, got -1"),
        ({"shape": (3, 3)}, "shape must be (n, 2) for this network, got (3, 3)"),
        ({"shape": "32"}, "shape must be a sequence of integers, got '32'"),
        ({"z": torch.zeros(3, 3).double()}, "z must have shape [3, 2], got [3, 3]"),
        ({"generator": 0}, "generator must be a torch.Generator or None, got 0"),
    ],
)
def test_bad_arguments_are_named_at_the_call(change, message):
    arguments = {"model": model_on(), "shape": (3, 2), "steps": 5, **change}
    with refuses(message):
        ddim_sample(arguments.pop("model"), arguments.pop("shape"), **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 3}, "model must be a Denoiser, got int"),
        ({"steps": 0}, "steps must be an integer from 1 to 50, got 0"),
        ({"spacing": "log"}, "spacing must be one of linear, quadratic, got 'log'"),
        (
            {"x": torch.zeros(3, 3).double()},
            "x's shape must be (n, 2) for this network, got (3, 3)",
        ),
        (
            {"x": torch.zeros(3).double()},
            "x's shape must be that of a batch, (n, *event), got (3,)",
        ),
        ({"x": torch.zeros(3, 2)}, "x must be torch.float64 like the model, got torch.float32"),
        (
            {"x": torch.full((3, 2), math.inf).double()},
            "x must be finite, got NaN or infinite values",
        ),
        ({"x": [0]}, "x must be a tensor of any shape but an empty one, got list"),
    ],
)
def test_bad_arguments_of_the_inversion_are_named_at_the_call(change, message):
    arguments = {"model": model_on(), "x": randn(3, 2), "steps": 5, **change}
    with refuses(message):
        ddim_invert(arguments.pop("model"), arguments.pop("x"), **arguments)


def test_ends_of_the_ranges_are_allowed():
    for eta in (0, 1, 0.0, 1.0):
        for steps in (1, 50):
            assert len(list(ddim_sample(model_on(), (1, 2), steps=steps, eta=eta))) == steps + 1


def test_broken_networks_stop_the_sampler():
    model = Denoiser(lambda x, t: x / (t[0] != 32), LINEAR)
    message = "net's output must be finite, got NaN or infinite values (at t = 32)"
    states = ddim_sample(model, (3, 2), steps=3)
    next(states), next(states)
    with refuses(message, PredictionError):
        next(states)
    states = ddim_invert(model, torch.ones(3, 2), steps=3)
    next(states), next(states)
    with refuses(message, PredictionError):
        next(states)


def test_eps_at_the_end_of_a_cosine_schedule_asks_for_a_clip():
    schedule = DiscreteSchedule.cosine(400)
    message = (
        "clip must be given where a step multiplies an error of eps by more than 100 (1 for images "
        "in [-1, 1]; far beyond the data it changes nothing), got None and"
    )
    for steps in (5, 20, 100):
        with pytest.raises(ValueError, match=re.escape(message)):
            ddim_sample(Denoiser(zero, schedule), (3, 2), steps=steps)
    for model, clip in (
        (Denoiser(zero, schedule), 1.0),
        (Denoiser(zero, schedule, predicts="v"), None),
    ):
        assert last(ddim_sample(model, (3, 2), steps=5, clip=clip)).isfinite().all()
    assert last(ddim_sample(Denoiser(zero, schedule), (3, 2), steps=1)).isfinite().all()
    last(ddim_sample(Denoiser(zero, LINEAR), (3, 2), steps=2))
