"""The denoiser: one prediction in five words, and a loss whose minimiser is a conditional mean."""

import math

import pytest
import torch
from torch import nn

from course_lib.diffusion import PREDICTIONS, Denoiser, DiscreteSchedule, PredictionError
from course_lib.nn import TimeMLP
from tests.diffusion.conftest import (
    GAUSSIAN,
    MIXTURE,
    PATHS,
    Exploding,
    Straight,
    coefficients,
    each_path,
    optimal,
    randn,
    refuses,
    said,
    seeded,
)

KINDS = tuple(PREDICTIONS)
each_kind = pytest.mark.parametrize("predicts", KINDS)


def denoiser(net, path=None, **options):
    return Denoiser(net, path or DiscreteSchedule.linear(10), **options).double()


def nothing(x, t):
    return torch.zeros_like(x)


# --- predict -----------------------------------------------------------------------------------


@each_path
@each_kind
def test_whatever_the_network_predicts_all_is_known(name, predicts):
    path, t = PATHS[name]
    model = denoiser(optimal(MIXTURE, path, predicts), path, predicts=predicts)
    x = randn(6, 2)
    a, b, *_ = (c[:, None] for c in coefficients(path, t))
    x0 = MIXTURE.guess(x, a[:, 0], b[:, 0])
    for target in KINDS:
        expected = said(target, x0, (x - a * x0) / b, path, t)
        torch.testing.assert_close(
            model.predict(x, t, target=target), expected, rtol=1e-6, atol=1e-6
        )
    torch.testing.assert_close(model.predict(x, t), model.predict(x, t, target="eps"))
    torch.testing.assert_close(model.predict_x0(x, t), x0, rtol=1e-6, atol=1e-6)


def test_the_network_is_given_times_as_the_path_counts_them():
    given = []

    def net(x, t, *labels):
        given.append((t, *labels))
        return torch.zeros_like(x)

    model = denoiser(net)
    x, y = randn(3, 2), torch.tensor([0, 2, 1])
    model.predict(x, 4)
    model.predict(x, torch.tensor([1, 2, 3]), y=y)
    model.predict_x0(x, torch.tensor(9), y=y)
    assert [entry[0].tolist() for entry in given] == [[4, 4, 4], [1, 2, 3], [9, 9, 9]]
    assert all(entry[0].dtype == torch.int64 for entry in given)
    assert [len(entry) for entry in given] == [1, 2, 2]
    assert all(entry[1] is y for entry in given[1:])
    denoiser(net, Straight()).predict(x, 0.5)
    assert given[-1][0].tolist() == [0.5] * 3


def test_one_time_for_all_is_embedded_once():
    net, rows = TimeMLP(2, [8], scale=1000.0), []
    net.time.layers.register_forward_hook(lambda *call: rows.append(len(call[1][0])))
    model, x = Denoiser(net, Straight()), randn(3, 2).float()
    once = model.predict(x, 0.5)
    torch.testing.assert_close(model.predict(x, torch.full((3,), 0.5)), once)
    model.predict(x, torch.tensor(0.5))
    assert rows == [1, 3, 1]


def test_clip_cuts_the_guess_of_x0():
    model = denoiser(lambda x, t: x, predicts="x0")
    x = torch.tensor([[-3.0, -0.25], [0.75, 2.0]]).double()
    assert model.predict_x0(x, 0, clip=0.5).tolist() == [[-0.5, -0.25], [0.5, 0.5]]
    assert torch.equal(model.predict_x0(x, 0), x)
    for clip in (0, -1.0, math.inf, "1"):
        with refuses(f"clip must be a finite number above 0, got {clip!r}"):
            model.predict_x0(x, 0, clip=clip)


def test_predicting_needs_no_state():
    """Neither the arguments nor the global generator nor the gradient mode is touched."""
    model = Denoiser(TimeMLP(2, [8]), DiscreteSchedule.linear(10))
    x, t = torch.randn(4, 2, generator=seeded()), torch.arange(4)
    before, state = x.clone(), torch.get_rng_state()
    first = model.predict(x, t, target="v")
    assert torch.equal(first, model.predict(x, t, target="v"))
    assert torch.equal(x, before)
    assert torch.equal(t, torch.arange(4))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.requires_grad


# --- the loss ----------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("name", ["schedule", "straight"])
def test_the_loss_is_the_formula(name, predicts):
    path, _ = PATHS[name]
    model = denoiser(lambda x, t: x.sin() + t[:, None, None], path, predicts=predicts)
    x = randn(50, 2, 3)
    loss = model.loss(x, generator=seeded(3))
    assert loss.shape == ()
    draws = seeded(3)
    if name == "schedule":
        t = torch.randint(50, (50,), generator=draws)
    else:
        t = torch.rand(50, generator=draws)
    eps = torch.randn(50, 2, 3, generator=draws, dtype=torch.float64)
    a, b, *_ = (c[:, None, None] for c in coefficients(path, t))
    x_t = a * x + b * eps
    goal = said(predicts, x.flatten(1), eps.flatten(1), path, t).reshape(x.shape)
    expected = ((x_t.sin() + t[:, None, None] - goal) ** 2).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


@each_kind
def test_the_least_loss_is_that_of_the_conditional_mean(predicts):
    """What is left is known in closed form, and any other network pays its squared distance.

    With x_t given, c x_0 + d eps varies as (c - d a / b) x_0 does.
    """
    path = DiscreteSchedule(torch.tensor([0.1, 0.3, 0.5, 0.6]))
    best = optimal(GAUSSIAN, path, predicts)
    x = GAUSSIAN.sample(40_000, seeded(1))
    left = 0
    for t in torch.arange(4):
        a, b, da, db = (c.item() for c in coefficients(path, t[None]))
        c, d = {
            "x0": (1, 0),
            "eps": (0, 1),
            "v": (-b, a),
            "score": (0, -1 / b),
            "velocity": (da, db),
        }[predicts]
        left += (c - d * a / b) ** 2 * GAUSSIAN.left(a, b).trace() / 2 / 4
    losses = torch.stack(
        [
            denoiser(best, path, predicts=predicts).loss(part, generator=seeded(i))
            for i, part in enumerate(x.split(1000))
        ]
    )
    error = losses.std() / len(losses) ** 0.5
    assert abs(losses.mean() - left) < 4.5 * error

    def loss(net):
        return denoiser(net, path, predicts=predicts).loss(x, generator=seeded(9)).item()

    least = loss(best)
    for other, costs in (
        (lambda x, t: best(x, t) + 0.3, 0.09),
        (lambda x, t: best(x, t) - 0.3, 0.09),
        (lambda x, t: best(x, t) + 0.2 * (x[:, [1, 0]] > 0) * t[:, None], None),
        (lambda x, t: best(x, t) - 0.2 * (x[:, [1, 0]] > 0) * t[:, None], None),
        (lambda x, t: 0.7 * best(x, t), None),
        (nothing, None),
    ):
        paid = loss(other) - least
        assert paid > 0
        if costs:
            assert abs(paid - costs) < 0.025 + 4 * left**0.5 / 40_000**0.5


def test_labels_reach_the_network():
    seen = []

    def net(x, t, y):
        seen.append(y)
        return torch.zeros_like(x)

    y = torch.tensor([0, 1, 2])
    denoiser(net).loss(randn(3, 2), y, generator=seeded())
    assert seen[0] is y
    with refuses("y must be None for a model without classes, got tensor([0, 1, 2])"):
        Denoiser(TimeMLP(2), DiscreteSchedule.linear(10)).loss(torch.zeros(3, 2), y)
    model = Denoiser(TimeMLP(2, n_classes=3), DiscreteSchedule.linear(10))
    model.loss(torch.zeros(3, 2), y)
    wanted = "y must be an int64 tensor [3] of classes from 0 to 2"
    with refuses(f"{wanted}, got None"):
        model.loss(torch.zeros(3, 2))
    with refuses(f"{wanted}, got 5"):
        model.loss(torch.zeros(3, 2), y + 5)


def test_prompts_are_labels_and_hidden_as_a_whole():
    """A label of several tokens: the null class is several, too, and takes the place of a row."""
    seen = []

    class Net(nn.Module):
        null_class = (1, 0, 0)

        def forward(self, x, t, y):
            seen.append(y)
            return torch.zeros_like(x)

    n, share = 4000, 0.3
    y = torch.tensor([[1, 5, 7]]).expand(n, 3)
    model = denoiser(Net(), drop=share)
    assert model.null_class == (1, 0, 0)
    model.loss(randn(n, 2), y, generator=seeded())
    (shown,) = seen
    empty = (shown == torch.tensor([1, 0, 0])).all(1)
    assert (empty | (shown == y).all(1)).all()
    assert abs(empty.double().mean() - share) < 4 * (share * (1 - share) / n) ** 0.5
    generator = seeded()
    model.draw(randn(n, 2), generator=generator)
    assert torch.equal(model.hide(y, generator=generator), shown)  # drawn after times and noise
    assert model.hide(None) is None
    assert denoiser(Net()).hide(y) is y
    model.predict(randn(n, 2), 3, y=y)
    assert seen[-1] is y  # sampling hides nothing
    for bad, got in (
        (y[0], "torch.int64 [3]"),
        (y[:, :2], f"torch.int64 [{n}, 2]"),
        (y.int(), f"torch.int32 [{n}, 3]"),
    ):
        with refuses(f"y must be int64 tokens [B, 3], got {got}"):
            model.hide(bad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_follows_its_generator(dtype):
    model = Denoiser(TimeMLP(2, [8]), DiscreteSchedule.linear(10)).to(dtype)
    x = randn(5, 2).to(dtype)
    state = torch.get_rng_state()
    first = model.loss(x, generator=seeded(1))
    assert first.dtype == dtype
    assert torch.equal(first, model.loss(x, generator=seeded(1)))
    assert not torch.equal(first, model.loss(x, generator=seeded(2)))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(model.loss(x), model.loss(x))
    first.backward()
    assert all((p.grad != 0).any() for p in model.parameters())


# --- what a model is ---------------------------------------------------------------------------


def test_a_model_is_saved_as_its_network():
    net = TimeMLP(2, [8])
    model = Denoiser(net, DiscreteSchedule.linear(10))
    assert list(model.state_dict()) == [f"net.{key}" for key in net.state_dict()]
    assert (model.net, model.predicts) == (net, "eps")
    assert not Denoiser(nothing, Straight()).state_dict()


def test_noise_is_the_models():
    model = denoiser(nothing)
    noise = model.noise((20_000, 2), seeded())
    assert noise.dtype == torch.float64
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert torch.equal(noise, model.noise((20_000, 2), seeded()))
    assert Denoiser(nothing, Straight()).noise((1, 2), None).dtype == torch.float32
    assert model.to("meta").noise((1, 2), None).is_meta


def test_repr_says_what_is_predicted():
    model = Denoiser(TimeMLP(2, [8]), DiscreteSchedule.linear(10), predicts="v")
    assert "predicts=v, path=DiscreteSchedule(T=10, log-SNR" in repr(model)


# --- bad input ---------------------------------------------------------------------------------


def test_bad_parts_are_named():
    path = Straight()
    for net in (None, 3):
        with refuses(f"net must be a network or a function, got {net!r}"):
            Denoiser(net, path)
    with refuses("path must be a GaussianPath, got 'linear'"):
        Denoiser(nothing, "linear")
    for predicts in ("noise", None):
        with refuses(f"predicts must be one of eps, score, v, velocity, x0, got {predicts!r}"):
            Denoiser(nothing, path, predicts=predicts)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(0, 2).double(), "must have any shape but an empty one, got [0, 2]"),
        (torch.zeros(3, 2).int(), "must be a floating-point tensor, got torch.int32"),
        (torch.zeros(3, 2), "must be torch.float64 like the model, got torch.float32"),
        (torch.full((3, 2), math.inf).double(), "must be finite, got NaN or infinite values"),
        (None, "must be a tensor of any shape but an empty one, got NoneType"),
    ],
)
def test_bad_data_are_named(x, message):
    model = denoiser(lambda x, t: pytest.fail("the network was called"))
    with refuses(f"x_t {message}"):
        model.predict(x, 0)
    with refuses(f"x {message}"):
        model.loss(x)


def test_bad_arguments_are_named_before_the_network_is_called():
    model = denoiser(lambda x, t: pytest.fail("the network was called"))
    x = randn(3, 2)
    with refuses("target must be one of eps, score, v, velocity, x0, got 'noise'"):
        model.predict(x, 0, target="noise")
    for t in (10, -1):
        with refuses(f"t must lie in [0, 9], got {t}"):
            model.predict(x, t)
    with refuses("t must be one time or a tensor of shape [3], got torch.int64 [2]"):
        model.predict(x, torch.tensor([1, 2]))
    with refuses("generator must be a torch.Generator or None, got 1"):
        model.loss(x, generator=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x, t: x / 0, "must be finite, got NaN or infinite values"),
        (lambda x, t: x * math.nan, "must be finite, got NaN or infinite values"),
        (lambda x, t: x[:, :1], "must have shape [3, 2], got [3, 1]"),
        (lambda x, t: x.float(), "must be torch.float64 like the model, got torch.float32"),
        (lambda x, t: None, "must be a tensor of shape [3, 2], got NoneType"),
    ],
)
def test_bad_outputs_are_named(wrong, message):
    x = randn(3, 2)
    t = torch.tensor([4, 3, 5])
    with refuses(f"net's output {message} (at t = 3)", PredictionError):
        denoiser(wrong).predict(x, t)
    assert issubclass(PredictionError, ArithmeticError)


def test_an_output_that_would_be_broadcast_is_no_loss():
    for wrong, got in ((lambda x, t: x[:, :1], [3, 1]), (lambda x, t: x.sum(), [])):
        with refuses(f"net's output must have shape [3, 2], got {got}", PredictionError):
            denoiser(wrong).loss(randn(3, 2))


def test_scores_at_the_data_are_refused():
    """Drawn times start where the path does; a score there is infinite."""

    class Still(Straight):
        def draw_times(self, n, **_):
            return torch.zeros(n)

    with refuses("t must be a time at which score is finite, got 0.0"):
        denoiser(nothing, Still(), predicts="score").loss(randn(3, 2))


class _Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.times = []

    def forward(self, x, t):
        self.times.append(t)
        return torch.zeros_like(x)


def test_training_times_cover_the_path():
    for path in (Exploding(), Straight()):
        net = _Counter()
        Denoiser(net, path).loss(torch.zeros(2000, 1), generator=seeded())
        (t,) = net.times
        assert t.shape == (2000,)
        path.check_times(t)
        assert (t.max() - t.min()) > 0.98 * (path.t_max - path.t_min)
