"""DDPM's steps against Bayes' rule on a grid, and its sampler against the same walk written out."""

import copy
import math

import pytest
import torch

from course_lib.diffusion import DDPM, DiscreteSchedule, PredictionError, ddpm_sample, last
from course_lib.nn import TimeMLP
from tests.diffusion.conftest import (
    GAUSSIAN,
    MIXTURE,
    Straight,
    coefficients,
    optimal,
    randn,
    refuses,
    seeded,
)

LINEAR = DiscreteSchedule.linear(40)


def ddpm(net=None, schedule=LINEAR, **options):
    net = net or optimal(GAUSSIAN, schedule, options.get("predicts", "eps"))
    return DDPM(net, schedule, **options).double()


def zero(x, t):
    return torch.zeros_like(x)


# --- one step ----------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 2, 17, 39])
def test_the_posterior_is_bayes_rule(t):
    """q(x_t | x_{t-1}) q(x_{t-1} | x_0), normalised on a grid of x_{t-1}."""
    model = ddpm()
    x_0, x_t = 0.8, -0.4
    a, b, *_ = (c.item() for c in coefficients(LINEAR, torch.tensor([t - 1])))
    beta = LINEAR.betas[t].double().item()
    grid = torch.linspace(-12, 12, 480_001, dtype=torch.float64)
    squares = ((grid - a * x_0) / b) ** 2 + (x_t - (1 - beta) ** 0.5 * grid) ** 2 / beta
    density = (-0.5 * (squares - squares.min())).exp()
    density /= density.sum()
    mean = (density * grid).sum()
    variance = (density * (grid - mean) ** 2).sum()
    one = torch.ones(1, 1, dtype=torch.float64)
    got_mean, got_variance = model.posterior(x_t * one, x_0 * one, t)
    assert got_mean.shape == got_variance.shape == (1, 1)
    assert math.isclose(got_mean, mean, rel_tol=1e-8)
    assert math.isclose(got_variance, variance, rel_tol=1e-6)


def test_the_posterior_at_the_first_step_is_the_data():
    model = ddpm()
    x_t, x_0 = randn(3, 2), randn(3, 2, seed=1)
    mean, variance = model.posterior(x_t, x_0, 0)
    assert torch.equal(mean, x_0)
    assert torch.equal(variance, torch.zeros(3, 1))


@pytest.mark.parametrize("t", [7, torch.tensor(7), torch.tensor([7, 7, 7], dtype=torch.int32)])
def test_each_form_of_one_time_gives_a_variance_each(t):
    model, x_t, x_0 = ddpm(), randn(3, 2), randn(3, 2, seed=1)
    mean, variance = model.posterior(x_t, x_0, t)
    a, b, *_ = coefficients(LINEAR, torch.tensor([6, 7]))
    beta = LINEAR.betas[7].double()
    expected = a[0] * beta * x_0 + (1 - beta).sqrt() * b[0] ** 2 * x_t
    torch.testing.assert_close(mean, expected / b[1] ** 2)
    torch.testing.assert_close(variance, (beta * b[0] ** 2 / b[1] ** 2).expand(3, 1))


INTEGERS = [
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.uint16,
    torch.uint32,
    torch.uint64,
]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_whole_times_may_be_of_any_integer_dtype(dtype):
    """At both ends of what the dtype can hold, too: nothing wraps around."""
    schedule = DiscreteSchedule.linear(300)
    model = ddpm(lambda x, t: x * t.double()[:, None] / 300, schedule)
    x_t, x_0 = randn(3, 2), randn(3, 2, seed=1)
    wide = torch.tensor([0, 7, min(torch.iinfo(dtype).max, 299)])
    t = wide.to(dtype)
    for of in (
        lambda t: model.posterior(x_t, x_0, t),
        lambda t: model.reverse(x_t, t),
        lambda t: schedule.noised(x_0, t, x_t),
        lambda t: model.predict(x_t, t, target="velocity"),
        lambda t: (schedule.a(t), schedule.b(t), schedule.da(t)),
    ):
        for got, wanted in zip(of(t), of(wide), strict=True):
            assert torch.equal(got, wanted)
    if torch.iinfo(dtype).max > 300:
        with refuses("t must lie in [0, 299], got 300"):
            model.posterior(x_t, x_0, torch.tensor([0, 7, 300]).to(dtype))


@pytest.mark.parametrize("schedule", [LINEAR, DiscreteSchedule.linear(1000)], ids=["40", "1000"])
def test_the_posterior_is_the_papers(schedule):
    """Equations 6 and 7, with one time for each image."""
    model = ddpm(zero, schedule)
    T = len(schedule)
    t = torch.tensor([1, T // 2, T - 1])
    x_t, x_0 = randn(3, 1, 2, 2), randn(3, 1, 2, 2, seed=1)
    mean, variance = model.posterior(x_t, x_0, t)
    assert mean.shape == x_t.shape
    assert variance.shape == (3, 1, 1, 1)
    beta = schedule.betas.double()[t]
    alpha_bars = (1 - schedule.betas.double()).cumprod(0)
    now, before = alpha_bars[t], alpha_bars[t - 1]
    expected = (before.sqrt() * beta / (1 - now))[:, None, None, None] * x_0
    expected += ((1 - beta).sqrt() * (1 - before) / (1 - now))[:, None, None, None] * x_t
    torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-9)
    expected = (1 - before) / (1 - now) * beta
    torch.testing.assert_close(variance.flatten(), expected, rtol=1e-9, atol=0)
    single, _ = model.posterior(x_t.float().double()[:1], x_0[:1], 1)
    torch.testing.assert_close(single, model.posterior(x_t, x_0, 1)[0][:1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "score", "velocity"])
def test_a_step_back_is_the_posterior_at_the_guess(predicts):
    net = optimal(MIXTURE, LINEAR, predicts)
    x, t = randn(4, 2), torch.tensor([0, 1, 20, 39])
    a, b, *_ = coefficients(LINEAR, t)
    for clip in (None, 0.5):
        x0 = MIXTURE.guess(x, a, b)
        if clip:
            x0 = x0.clamp(-clip, clip)
        for variance in ("posterior", "beta"):
            model = ddpm(net, predicts=predicts, variance=variance)
            mean, step = model.reverse(x, t, clip=clip)
            expected_mean, expected = model.posterior(x, x0, t)
            if variance == "beta":
                expected = LINEAR.betas.double()[t][:, None]
            torch.testing.assert_close(mean, expected_mean, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(step, expected, rtol=1e-9, atol=0)


def test_the_mean_is_the_papers_formula_for_eps():
    """Equation 11: (x_t - β / sqrt(1 - ᾱ) eps) / sqrt(α)."""
    net = optimal(GAUSSIAN, LINEAR)
    x, t = randn(5, 2), torch.tensor([0, 3, 10, 30, 39])
    mean, _ = ddpm(net).reverse(x, t)
    beta = LINEAR.betas.double()[t][:, None]
    _, b, *_ = coefficients(LINEAR, t)
    expected = (x - beta / b[:, None] * net(x, t)) / (1 - beta).sqrt()
    torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-9)


def test_one_time_stands_for_all():
    model = ddpm()
    x = randn(3, 2)
    for t in (0, 5):
        mean, variance = model.reverse(x, t)
        other_mean, other_variance = model.reverse(x, torch.full((3,), t, dtype=torch.int32))
        assert torch.equal(mean, other_mean)
        assert torch.equal(variance, other_variance)
        assert variance.shape == (3, 1)


def test_small_steps_keep_their_digits():
    """Steps of 1e-6 in single precision: their variance is a product of tiny numbers."""
    schedule = DiscreteSchedule(torch.full((4,), 1e-6))
    model = DDPM(zero, schedule)
    x = torch.ones(1, 1)
    _, variance = model.posterior(x, x, 2)
    assert math.isclose(variance, 2 / 3 * 1e-6, rel_tol=1e-4)
    mean, _ = model.posterior(x, 0 * x, 2)
    assert math.isclose(mean, 2 / 3, rel_tol=1e-4)


# --- the sampler -------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("clip", [None, 0.7])
def test_the_sampler_takes_every_step(variance, clip):
    """Noise first, then each step's mean and fresh noise of its variance; the last adds none."""
    model = ddpm(optimal(MIXTURE, LINEAR), variance=variance)
    states = list(ddpm_sample(model, (6, 2), clip=clip, generator=seeded(4)))
    assert len(states) == 41
    noise = seeded(4)
    x = torch.randn(6, 2, generator=noise, dtype=torch.float64)
    assert torch.equal(states[0], x)
    for t in reversed(range(40)):
        a, b, *_ = coefficients(LINEAR, torch.full((6,), t))
        x0 = MIXTURE.guess(x, a, b)
        x0 = x0.clamp(-clip, clip) if clip else x0
        x, step = model.posterior(x, x0, t)
        if t > 0:
            step = LINEAR.betas[t].double() if variance == "beta" else step
            x = x + step**0.5 * torch.randn(6, 2, generator=noise, dtype=torch.float64)
        torch.testing.assert_close(states[40 - t], x, rtol=1e-6, atol=1e-6)
    assert torch.equal(last(iter(states)), states[-1])
    if clip:
        assert states[-1].abs().max() <= clip


def test_all_ways_to_sample_are_one():
    model = ddpm()
    states = torch.stack(list(ddpm_sample(model, (5, 2), generator=seeded(2))))
    assert torch.equal(model.trajectory(5, generator=seeded(2)), states)
    assert torch.equal(model.sample(5, generator=seeded(2)), states[-1])
    assert not torch.equal(model.sample(5, generator=seeded(3)), states[-1])
    clipped = model.sample(5, clip=0.1, generator=seeded(2))
    assert clipped.abs().max() <= 0.1
    assert torch.equal(model.trajectory(5, clip=0.1, generator=seeded(2))[-1], clipped)
    z = randn(5, 2, seed=8)
    first, *_, end = ddpm_sample(model, [5, 2], z=z, generator=seeded(2))
    assert first is z
    assert not torch.equal(end, states[-1])
    assert torch.equal(z, randn(5, 2, seed=8))


def test_labels_reach_the_network_at_every_step():
    calls = []

    def net(x, t, y):
        assert len(x) == len(t) == len(y)
        calls.extend(zip(t.tolist(), y.tolist(), strict=True))
        return torch.zeros_like(x)

    net.event_shape = (2,)
    y = torch.tensor([1, 0, 1])
    model = ddpm(net, DiscreteSchedule.linear(4))
    model.sample(3, y=y)
    model.trajectory(3, y=y)
    model.elbo(randn(3, 2), y)
    model.reverse(randn(3, 2), 2, y=y)
    times = [3, 2, 1, 0, 3, 2, 1, 0, 0, 1, 2, 3, 2]
    assert calls == [(t, label) for t in times for label in y.tolist()]


@pytest.mark.parametrize("n", [1, 3, 25, 70])
def test_the_bound_asks_the_network_about_few_examples_at_several_times(n):
    """The same terms as one by one, with the same noise, in calls of at most 64 or of the batch."""
    sizes = []

    def net(x, t):
        sizes.append(len(x))
        return (x * (1 + t[:, None]).sin()).cos()

    model, x = ddpm(net, DiscreteSchedule.linear(30)), randn(n, 2)
    terms = model.elbo_terms(x, generator=seeded(4))
    assert max(sizes) == max(n, n * min(64 // n, 29))
    noise = seeded(4)
    for t in range(30):
        x_t = model.schedule.noised(x, t, torch.randn(n, 2, generator=noise, dtype=x.dtype))
        if t == 0:
            continue
        (mean, variance), (true, _) = model.reverse(x_t, t), model.posterior(x_t, x, t)
        gap = ((true - mean).square() / variance).sum(1) / 2  # the variances are the same
        torch.testing.assert_close(terms[t], gap, rtol=1e-4, atol=1e-6)


def test_sampling_records_no_gradients_and_disturbs_nothing():
    net = TimeMLP(2, [8])
    model = DDPM(net, DiscreteSchedule.linear(5))
    weights, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    for x in ddpm_sample(model, (3, 2), generator=seeded()):
        assert not x.requires_grad
        assert torch.is_grad_enabled()
    assert not model.sample(3, generator=seeded()).requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
    assert model.training
    model.sample(3)
    assert not torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_have_the_models_precision(dtype):
    model = DDPM(TimeMLP(2, [8]), DiscreteSchedule.linear(5)).to(dtype)
    assert model.sample(3).dtype == dtype
    mean, variance = model.reverse(torch.zeros(3, 2, dtype=dtype), 2)
    assert mean.dtype == variance.dtype == dtype


def test_one_step_is_enough():
    model = ddpm(schedule=DiscreteSchedule(torch.tensor([0.4])))
    z = randn(3, 2)
    start, end = ddpm_sample(model, (3, 2), z=z)
    assert torch.equal(start, z)
    torch.testing.assert_close(end, model.predict_x0(z, 0))


def test_a_model_is_saved_as_its_network():
    net = TimeMLP(2, [8])
    model = DDPM(net, LINEAR)
    assert list(model.state_dict()) == [f"net.{key}" for key in net.state_dict()]
    assert model.schedule is model.path is LINEAR
    assert (model.variance, model.predicts) == ("posterior", "eps")
    assert DDPM(net, LINEAR, predicts="v", variance="beta").predicts == "v"


# --- bad input ---------------------------------------------------------------------------------


def test_bad_parts_are_named():
    with refuses("schedule must be a DiscreteSchedule, got 1000"):
        DDPM(zero, 1000)
    with pytest.raises(ValueError, match=r"^schedule must be a DiscreteSchedule, got <.*Straight"):
        DDPM(zero, Straight())
    for variance in ("learned", 0.1):
        with refuses(f"variance must be one of beta, posterior, got {variance!r}"):
            DDPM(zero, LINEAR, variance=variance)
    with refuses("net must be a network or a function, got None"):
        DDPM(None, LINEAR)
    with refuses("predicts must be one of eps, score, v, velocity, x0, got 'noise'"):
        DDPM(zero, LINEAR, predicts="noise")


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (40, "t must lie in [0, 39], got 40"),
        (-1, "t must lie in [0, 39], got -1"),
        (1.0, "t must hold whole times, of an integer dtype, got torch.float32"),
        (
            torch.ones(2).double(),
            "t must hold whole times, of an integer dtype, got torch.float64",
        ),
        (
            torch.tensor([1]),
            "t must be one time or a tensor of shape [2], got torch.int64 [1]",
        ),
        (True, "t must be one time or a tensor of shape [2], got torch.bool []"),
    ],
)
def test_bad_times_are_named(t, message):
    model = ddpm(lambda x, t: pytest.fail("the network was called"))
    with refuses(message):
        model.posterior(randn(2, 2), randn(2, 2), t)
    with refuses(message):
        model.reverse(randn(2, 2), t)


def test_bad_states_are_named():
    model = ddpm(lambda x, t: pytest.fail("the network was called"))
    x = randn(2, 2)
    for bad, message in (
        (x.float(), "must be torch.float64 like the model, got torch.float32"),
        (x / 0, "must be finite, got NaN or infinite values"),
        (x[:0], "must have any shape but an empty one, got [0, 2]"),
    ):
        with refuses(f"x_t {message}"):
            model.posterior(bad, x, 1)
        with refuses(f"x_t {message}"):
            model.reverse(bad, 1)
    for bad, message in (
        (x.float(), "must be torch.float64 like the model, got torch.float32"),
        (x / 0, "must be finite, got NaN or infinite values"),
        (x[:1], "must have shape [2, 2], got [1, 2]"),
    ):
        with refuses(f"x_0 {message}"):
            model.posterior(x, bad, 1)
    with refuses("clip must be a finite number above 0, got -1"):
        model.reverse(x, 1, clip=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "model must be a DDPM, got NoneType"),
        ({"model": zero}, "model must be a DDPM, got function"),
        ({"shape": 3}, "shape must be a sequence of integers, got 3"),
        ({"shape": (3, 2.0)}, "shape[1] must be an integer of at least 1, got 2.0"),
        ({"shape": (0, 2)}, "shape[0] must be an integer of at least 1, got 0"),
        ({"shape": (3,)}, "shape must be that of a batch, (n, *event), got (3,)"),
        ({"shape": (3, 5)}, "shape must be (n, 2) for this network, got (3, 5)"),
        ({"shape": (3, 1, 2)}, "shape must be (n, 2) for this network, got (3, 1, 2)"),
        ({"clip": 0}, "clip must be a finite number above 0, got 0"),
        ({"clip": math.nan}, "clip must be a finite number above 0, got nan"),
        ({"z": torch.zeros(4, 2).double()}, "z must have shape [3, 2], got [4, 2]"),
        ({"z": torch.zeros(3, 2)}, "z must be torch.float64 like the model, got torch.float32"),
        (
            {"z": torch.full((3, 2), math.nan).double()},
            "z must be finite, got NaN or infinite values",
        ),
        ({"generator": 3}, "generator must be a torch.Generator or None, got 3"),
    ],
)
def test_bad_arguments_are_named_at_the_call(change, message):
    """Not when the first state is asked for."""
    arguments = {"model": ddpm(), "shape": (3, 2), **change}
    with refuses(message):
        ddpm_sample(arguments.pop("model"), arguments.pop("shape"), **arguments)


def test_generators_of_other_devices_are_named():
    model = DDPM(TimeMLP(2, [4]), LINEAR).to("meta")
    with refuses("generator must be on device meta, got cpu"):
        ddpm_sample(model, (3, 2), generator=seeded())
    with refuses("shape must be (n, 3, 4, 4) for this network, got (1, 2)"):
        model.net.event_shape = (3, 4, 4)
        ddpm_sample(model, (1, 2))


@pytest.mark.parametrize("n", [0, 1.5, None])
def test_bad_numbers_of_samples_are_named(n):
    for way in (ddpm().sample, ddpm().trajectory):
        with refuses(f"n must be an integer of at least 1, got {n!r}"):
            way(n)


def test_a_network_without_a_shape_needs_one():
    model = ddpm(zero)
    with refuses("net must have an event_shape, or use ddpm_sample; got function"):
        model.sample(3)
    assert last(ddpm_sample(model, (3, 1, 2, 2))).shape == (3, 1, 2, 2)


def test_broken_networks_stop_the_sampler():
    """At the step where it happens, not before."""

    def net(x, t):
        return x / (t[0] != 2)

    states = ddpm_sample(ddpm(net, DiscreteSchedule.linear(5)), (3, 2), generator=seeded())
    for _ in range(3):  # the start, and the steps at t = 4 and 3
        next(states)
    message = "net's output must be finite, got NaN or infinite values (at t = 2)"
    with refuses(message, PredictionError):
        next(states)
    with refuses("net's output must have shape [3, 2], got [3, 1] (at t = 39)", PredictionError):
        list(ddpm_sample(ddpm(lambda x, t: x[:, :1]), (3, 2)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same():
    net = TimeMLP(2, [8])
    model = DDPM(net, LINEAR)
    x, t = torch.randn(4, 2, generator=seeded()), torch.tensor([0, 5, 20, 39])
    expected = model.reverse(x, t)
    there = torch.Generator("cuda").manual_seed(0)
    model, x, t = model.cuda(), x.cuda(), t.cuda()
    for got, wanted in zip(model.reverse(x, t), expected, strict=True):
        torch.testing.assert_close(got.cpu(), wanted)
    assert model.loss(x, generator=there).device == x.device
    assert model.elbo(x, generator=there).device == x.device
    assert model.sample(3, generator=there).device == x.device
    with refuses("generator must be on device cuda, got cpu"):
        model.sample(3, generator=seeded())
