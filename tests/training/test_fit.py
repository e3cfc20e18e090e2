"""The training loop against hand-written float64 references, and everything it promises."""

import math
import os
import re
import signal
import threading

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.training import DivergedError, History, fit, learning_rate
from tests.training.tiny import Net, jitter, points, seeded_net


class Mean(nn.Module):
    """loss = mean of |x - w|² / 2, so that the gradient is w - mean(x)."""

    def __init__(self, shape=(1, 2)):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(shape, dtype=torch.float64))

    def loss(self, x, *, generator=None):
        return (x - self.w).square().sum(dim=1).mean() / 2


class Recorder(nn.Module):
    """Remembers what each call of its loss was given."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.batches, self.noise = [], []

    def loss(self, *batch, generator=None):
        self.batches.append(batch)
        self.noise.append(torch.rand((), generator=generator).item())
        return self.w.square() + sum(t.float().sum() for t in batch) * 0


def quiet(model, data, **options):
    return fit(model, data, **({"progress": False, "device": "cpu"} | options))


def reference(data, *, steps, lr, schedule, weight_decay, clip, ema):
    """AdamW on ``Mean``, line by line from Loshchilov & Hutter 2019, algorithm 2."""
    w, m, v = np.zeros(2), np.zeros(2), np.zeros(2)
    losses, states = [], []
    for t in range(1, steps + 1):
        losses.append(((data - w) ** 2).sum(axis=1).mean() / 2)
        gradient = w - data.mean(axis=0)
        norm = np.sqrt((gradient**2).sum())
        if clip is not None and norm > clip:
            gradient = gradient * clip / norm
        eta = lr
        if schedule == "cosine":
            eta = lr * 0.5 * (1 + np.cos(np.pi * (t - 1) / steps))
        w = w - eta * weight_decay * w
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        w = w - eta * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        states.append(w)
    if ema is not None:
        weights = ema ** np.arange(steps - 1, -1, -1)
        w = (weights[:, None] * states).sum(axis=0) / weights.sum()
    return w, losses


DATA = np.array([[3.0, -1.0], [2.0, 0.5], [4.0, 0.0]])
PLAIN = {"lr": 0.3, "schedule": "constant", "weight_decay": 0.0, "clip": None, "ema": None}


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 1},
        {"steps": 12},
        {"steps": 12, "schedule": "cosine"},
        {"steps": 12, "weight_decay": 0.5},
        {"steps": 12, "clip": 1.0},  # the gradient starts at norm 3 and falls below 1
        {"steps": 12, "ema": 0.7},
        {"steps": 1, "ema": 0.7},  # an average of one: nothing of the start is left
        {"steps": 12, "schedule": "cosine", "weight_decay": 0.2, "clip": 0.9, "ema": 0.9},
    ],
    ids=str,
)
def test_steps_equal_the_reference(options):
    options = PLAIN | options
    model = Mean()
    history = quiet(model, torch.from_numpy(DATA), batch_size=3, **options)
    w, losses = reference(DATA, **options)
    np.testing.assert_allclose(model.w.detach().numpy(), w[None], rtol=0, atol=1e-12)
    np.testing.assert_allclose(history.losses, losses, rtol=0, atol=1e-12)


def test_vectors_do_not_decay():
    model = Mean(shape=(2,))
    quiet(model, torch.from_numpy(DATA), steps=12, batch_size=3, **PLAIN | {"weight_decay": 0.5})
    w, _ = reference(DATA, steps=12, **PLAIN)
    np.testing.assert_allclose(model.w.detach().numpy(), w, rtol=0, atol=1e-12)


def test_each_option_matters_to_the_reference():
    plain, _ = reference(DATA, steps=12, **PLAIN)
    changes = {"schedule": "cosine", "weight_decay": 0.5, "clip": 1.0, "ema": 0.7}
    for name, value in changes.items():
        w, _ = reference(DATA, steps=12, **PLAIN | {name: value})
        assert np.abs(w - plain).max() > 1e-3, name


def test_defaults():
    model, by_name = Mean(), Mean()
    quiet(model, torch.from_numpy(DATA), steps=5, batch_size=3)
    options = {"lr": 1e-3, "schedule": "cosine", "weight_decay": 0.0, "clip": 1.0, "ema": None}
    quiet(by_name, torch.from_numpy(DATA), steps=5, batch_size=3, seed=0, **options)
    assert torch.equal(model.w, by_name.w)


def test_the_norm_is_that_of_all_parameters_together():
    class Two(Mean):
        def __init__(self):
            super().__init__()
            self.v = nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def loss(self, x, *, generator=None):
            return super().loss(x) + (x[:, :2] - self.v).square().sum(dim=1).mean() / 2

    model = Two()
    quiet(model, torch.from_numpy(DATA), steps=12, batch_size=3, **PLAIN | {"clip": 1.0})
    # Both gradients are equal, so the norm of both is √2 times the norm of one.
    w, _ = reference(DATA, steps=12, **PLAIN | {"clip": 1 / math.sqrt(2)})
    np.testing.assert_allclose(model.v.detach().numpy(), w, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_learning_rates(steps):
    rates = [learning_rate(k, steps=steps, lr=0.2, schedule="cosine") for k in range(steps)]
    expected = 0.2 * np.cos(np.pi / 2 * np.arange(steps) / steps) ** 2  # half-angle formula
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert learning_rate(steps - 1, steps=steps, lr=0.2, schedule="constant") == 0.2


def test_history():
    history = History([float(k) for k in range(40)])
    assert history.steps == 40
    assert history.loss(last=1) == 39
    assert history.loss(last=40) == 19.5
    assert history.loss() == (36 + 37 + 38 + 39) / 4
    assert History([5.0]).loss() == 5


def test_an_epoch_shows_every_example_once_in_a_new_order():
    model = Recorder()
    quiet(model, torch.arange(12.0), steps=9, batch_size=4)  # three epochs of three steps
    epochs = torch.cat([x for (x,) in model.batches]).reshape(3, 12)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(12.0).expand(3, 12))
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3


def test_an_incomplete_batch_is_left_out():
    model = Recorder()
    quiet(model, torch.arange(11.0), steps=30, batch_size=4)
    epochs = torch.cat([x for (x,) in model.batches]).reshape(15, 8)
    assert all(len(set(epoch.tolist())) == 8 for epoch in epochs)
    assert set(epochs.flatten().tolist()) == set(range(11))  # another three are left out each time


def test_a_tuple_of_tensors_stays_aligned():
    model = Recorder()
    labels = torch.arange(20)
    quiet(model, (labels.float() / 2, labels), steps=8, batch_size=5, transform=lambda x, g: x * 4)
    for x, y in model.batches:
        assert torch.equal(x, y * 2.0)
        assert y.dtype == torch.int64


def test_all_randomness_follows_from_seed_and_step():
    def run(**options):
        model, draws = Recorder(), []

        def noise(x, generator):
            draws.append(torch.rand((), generator=generator).item())
            return x

        quiet(model, torch.arange(12.0), batch_size=4, transform=noise, **options)
        return [x.tolist() for (x,) in model.batches], draws, model.noise

    torch.manual_seed(1)
    first = run(steps=6, seed=5)
    torch.manual_seed(2)
    longer = run(steps=9, seed=5)
    assert first == tuple(values[:6] for values in longer)
    assert len(set(longer[1] + longer[2])) == 18  # every step and every purpose draws anew
    other = run(steps=6, seed=6)
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert run(steps=2) == run(steps=2, seed=0)


def test_the_global_generator_is_untouched():
    state = torch.get_rng_state()
    quiet(seeded_net(), points(), steps=3, batch_size=5, transform=jitter, ema=0.5)
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_from_before_do_not_count():
    fresh, used = Mean(), Mean()
    (used.w * 1000).sum().backward()
    for model in (fresh, used):
        quiet(model, torch.from_numpy(DATA), steps=3, batch_size=3)
    assert torch.equal(fresh.w, used.w)
    assert used.w.grad is None


def test_frozen_and_unused_parameters_stay():
    model = Mean()
    model.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    model.unused = nn.Parameter(torch.ones(2))
    quiet(model, torch.from_numpy(DATA), steps=3, batch_size=3, weight_decay=0.5, ema=0.5)
    assert torch.equal(model.frozen, torch.ones(2))
    assert torch.equal(model.unused, torch.ones(2))
    assert not model.frozen.requires_grad


def test_trains_in_train_mode_and_ends_in_eval_mode():
    class Modes(Mean):
        def loss(self, x, *, generator=None):
            assert self.training
            return super().loss(x)

    model = Modes().eval()
    quiet(model, torch.from_numpy(DATA), steps=2, batch_size=3)
    assert not model.training


class Doomed(Mean):
    """From the third call on its loss, or the gradient of its loss, is not a number."""

    def __init__(self, what):
        super().__init__()
        self.what, self.seen = what, []

    def loss(self, x, *, generator=None):
        self.seen.append(self.w.detach().clone())
        loss = super().loss(x)
        if len(self.seen) < 3:
            return loss
        if self.what == "loss":
            return loss * math.nan
        return loss + (self.w * 0).abs().sqrt().sum()  # 0, with gradient 0 x infinity


@pytest.mark.parametrize("what", ["loss", "norm of the gradient"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_divergence_stops_before_the_step(what, clip):
    model = Doomed(what)
    with pytest.raises(DivergedError, match=f"diverged in step 3: the {what} is nan") as caught:
        quiet(model, torch.from_numpy(DATA), steps=5, batch_size=3, clip=clip, ema=0.9)
    assert caught.value.step == 3
    assert torch.equal(model.w, model.seen[2])
    assert not torch.equal(model.w, model.seen[1])
    assert model.w.grad is None
    assert not model.training


def test_an_error_of_the_loss_tells_the_step():
    class Picky(Doomed):
        def loss(self, x, *, generator=None):
            if super().loss(x).isnan():
                raise ValueError("z must be finite")
            return Mean.loss(self, x)

    with pytest.raises(ValueError, match="z must be finite") as caught:
        quiet(Picky("loss"), torch.from_numpy(DATA), steps=5, batch_size=3)
    assert caught.value.__notes__ == ["this came from model.loss in step 3 of fit"]


def test_an_interrupt_waits_for_the_end_of_the_step():
    model = Doomed("nothing yet")

    def interrupt(x, generator):
        if len(model.seen) == 1:
            signal.raise_signal(signal.SIGINT)
        return x

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 2 of 9"):
        quiet(model, torch.from_numpy(DATA), steps=9, batch_size=3, transform=interrupt)
    assert len(model.seen) == 2
    assert not torch.equal(model.w, model.seen[1])  # the second step was taken
    assert signal.getsignal(signal.SIGINT) is handler

    handler = signal.getsignal(signal.SIGINT)
    quiet(Doomed("nothing yet"), torch.from_numpy(DATA), steps=2, batch_size=3)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_second_interrupt_does_not_wait():
    def twice(x, generator):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second interrupt waited")

    with pytest.raises(KeyboardInterrupt):
        quiet(Mean(), torch.from_numpy(DATA), steps=9, batch_size=3, transform=twice)


def test_trains_in_another_thread_too():
    model, same = Mean(), Mean()
    work = {"steps": 3, "batch_size": 3}
    thread = threading.Thread(target=quiet, args=(model, torch.from_numpy(DATA)), kwargs=work)
    thread.start()
    thread.join()
    quiet(same, torch.from_numpy(DATA), **work)
    assert torch.equal(model.w, same.w)
    assert model.w.abs().min() > 0


def test_progress_is_shown_unless_it_would_be_stored(capfd, monkeypatch):
    def shown(**options):
        fit(Mean(), torch.from_numpy(DATA), steps=4, batch_size=3, device="cpu", **options)
        out, err = capfd.readouterr()
        return out + err

    monkeypatch.delenv("COURSE_WIDGETS", raising=False)
    assert re.search(r"100%.* 4/4 .*loss \d", shown())
    assert shown(progress=False) == ""
    monkeypatch.setenv("COURSE_WIDGETS", "static")
    assert shown() == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_takes_the_same_steps():
    class OnDevice(Net):
        def loss(self, x, *, generator=None):
            assert x.device.type == generator.device.type == "cuda"
            return (self.net(x[:, :1]) - x[:, 1:]).square().mean()

    model = OnDevice()
    reference = Net(loss_noise=0)
    reference.load_state_dict(model.state_dict())
    fit(model, points(), steps=20, batch_size=5, transform=jitter, progress=False)
    quiet(reference, points(), steps=20, batch_size=5, transform=jitter)
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        assert a.device.type == "cpu"
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


X = torch.ones(6, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "model must be a torch.nn.Module with a method loss, got None"),
        ({"model": nn.ReLU()}, "model must be a torch.nn.Module with a method loss, got ReLU"),
        ({"model": Mean().requires_grad_(False)}, "model must have trainable parameters, got none"),
        ({"data": ()}, "data must be a tensor or a tuple of tensors, got an empty tuple"),
        ({"data": X[:0]}, "data must have any shape but an empty one, got [0, 2]"),
        ({"data": [1.0]}, "data must be a tensor of any shape but an empty one, got list"),
        ({"data": X.long()}, "data must be a floating-point tensor, got torch.int64"),
        ({"data": X / 0}, "data must be finite, got NaN or infinite values"),
        ({"data": X[0, 0]}, "data[0] must be a tensor [N, ...], got"),
        ({"data": (X.long(), X)}, "data[0] must be a floating-point tensor, got torch.int64"),
        ({"data": (X, 3)}, "data[1] must be a tensor [N, ...], got 3"),
        ({"data": (X, X[0, 0])}, "data[1] must be a tensor [N, ...], got"),
        ({"data": (X, X[:5])}, "data[1] must have 6 rows like data[0], got 5"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": 2.0}, "steps must be an integer of at least 1, got 2.0"),
        ({"batch_size": 0}, "batch_size must be an integer from 1 to 6, got 0"),
        ({"batch_size": 7}, "batch_size must be an integer from 1 to 6, got 7"),
        ({"lr": 0}, "lr must be a finite number above 0, got 0"),
        ({"lr": math.nan}, "lr must be a finite number above 0, got nan"),
        ({"schedule": "linear"}, "schedule must be one of constant, cosine, got 'linear'"),
        ({"weight_decay": -0.1}, "weight_decay must be a finite number above 0, got -0.1"),
        ({"weight_decay": "a"}, "weight_decay must be a finite number above 0, got 'a'"),
        ({"clip": 0}, "clip must be a finite number above 0, got 0"),
        ({"ema": 0}, "ema must be a finite number above 0, got 0"),
        ({"ema": 1}, "ema must be below 1, got 1"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"transform": 3}, "transform must be a function or None, got 3"),
        ({"transform": lambda x, g: x[1:]}, "transform must return a tensor of 3 rows, got [2, 2]"),
        ({"transform": lambda x, g: None}, "transform must return a tensor of 3 rows, got None"),
        ({"transform": lambda x, g: x.sum()}, "transform must return a tensor of 3 rows, got []"),
        ({"checkpoint": 3}, "checkpoint must be the path of a file or None, got 3"),
        ({"checkpoint": os.curdir}, "checkpoint must be the path of a file or None, got '.'"),
        ({"checkpoint_every": 0}, "checkpoint_every must be an integer of at least 1, got 0"),
        ({"progress": 1}, "progress must be True or False, got 1"),
        ({"device": "abacus"}, "device must be one that this machine has, got 'abacus'"),
        ({"device": 1.5}, "device must be one that this machine has, got 1.5"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0][:40],
)
def test_refuses(change, message):
    arguments = {"model": Mean(), "data": X, "steps": 2, "batch_size": 3} | change
    model = arguments.pop("model")
    before = {name: t.clone() for name, t in getattr(model, "state_dict", dict)().items()}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        quiet(model, arguments.pop("data"), **arguments)
    for name, t in before.items():
        assert torch.equal(model.state_dict()[name], t)


def test_refuses_a_loss_that_is_no_scalar():
    class Vector(Mean):
        def loss(self, x, *, generator=None):
            return (x - self.w).square()

    with pytest.raises(ValueError, match=r"model\.loss must return a tensor without dimensions"):
        quiet(Vector(), X, steps=2, batch_size=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "step must be an integer from 0 to 3, got -1"),
        ({"step": 4}, "step must be an integer from 0 to 3, got 4"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"lr": -1}, "lr must be a finite number above 0, got -1"),
        ({"schedule": "step"}, "schedule must be one of constant, cosine, got 'step'"),
    ],
)
def test_learning_rate_refuses(change, message):
    arguments = {"step": 0, "steps": 4, "lr": 1.0, "schedule": "cosine"} | change
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        learning_rate(arguments.pop("step"), **arguments)


@pytest.mark.parametrize("last", [0, 3, 1.0])
def test_history_refuses(last):
    message = f"last must be an integer from 1 to 2, got {last}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        History([1.0, 2.0]).loss(last=last)
