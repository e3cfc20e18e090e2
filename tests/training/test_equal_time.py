"""Training by the clock: the clock here is one that the tests turn."""

import pytest
import torch
from torch import nn

from course_lib.training.equal_time import average_weight, train_by_the_clock

LR = 0.01


class Line(nn.Module):
    """A loss whose gradient is the data's, the same in all steps if all data are."""

    def __init__(self, noise=0.0, dies_at=None):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        self.locked = nn.Parameter(torch.ones(2), requires_grad=False)
        self.noise, self.left, self.taken = noise, dies_at, 0

    def loss(self, x, *, generator=None):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        self.taken += 1
        noise = self.noise * torch.randn(3, generator=generator)
        return ((x + noise) @ self.w).mean() + self.noise * self.w.square().sum()


@pytest.fixture
def clock(monkeypatch):
    """A clock that says half a second more each time: a step takes half a second."""
    now = [0.0]

    def process_time():
        now[0] += 0.5
        return now[0]

    monkeypatch.setattr("course_lib.training.equal_time.time.process_time", process_time)
    return now


def data(n=20):
    return (torch.randn(n, 3, generator=torch.Generator().manual_seed(0)),)


def run(model, moments, **options):
    return train_by_the_clock(model, data(), moments=moments, batch_size=4, lr=LR, **options)


def same(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("gamma", [0.0, 2.0, 6.0])
def test_the_average_weighs_by_powers_of_the_step(gamma):
    """By hand: w̄ = Σ p_k w_k with p_k = (k^(γ+1) − (k−1)^(γ+1)) / n^(γ+1)."""
    n, power = 200, gamma + 1
    w = torch.randn(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean = torch.tensor(123.0, dtype=torch.float64)  # forgotten at the first step
    for k in range(1, n + 1):
        beta = average_weight(k, gamma=gamma)
        mean = (1 - beta) * mean + beta * w[k - 1]
    k = torch.arange(1, n + 1, dtype=torch.float64)
    p = (k**power - (k - 1) ** power) / n**power
    assert mean.item() == pytest.approx((p * w).sum().item(), rel=1e-9)
    age = (p * (n - k)).sum().item() / n  # how far it looks back, as a share: 1 / (γ + 2)
    assert age == pytest.approx(1 / (gamma + 2), abs=0.01)


def test_rate_and_average_by_hand(clock):
    """AdamW takes steps of the rate itself where the gradient stays: all of them equally long."""
    model = Line()
    start, x = model.w.detach().clone(), torch.tensor([[2.0, -0.7, 0.3]]).expand(9, 3)
    options = {"moments": [1.0, 6.0], "batch_size": 4, "lr": LR}
    first, second = train_by_the_clock(model, (x,), **options)
    assert (first.seconds, first.steps, second.seconds, second.steps) == (1.0, 2, 6.0, 12)
    torch.testing.assert_close(model.w, start - 12 * LR * x[0].sign(), rtol=0, atol=1e-5)
    for moment in (first, second):
        k = torch.arange(1, moment.steps + 1, dtype=torch.float64)
        p = (k**7 - (k - 1) ** 7) / moment.steps**7
        wanted = start - LR * (p * k).sum().float() * x[0].sign()
        torch.testing.assert_close(moment.model.w, wanted, rtol=0, atol=1e-5)
        assert not moment.model.training
        assert torch.equal(moment.model.locked, torch.ones(2))


def test_what_happens_between_the_steps_takes_no_time(clock):
    seen = []
    for moment in run(Line(), [1.0, 2.0, 3.5]):
        clock[0] += 1000.0
        seen.append(moment.steps)
    assert seen == [2, 4, 7]


@pytest.mark.parametrize("steps", [4, 5, 7])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(clock, tmp_path, steps):
    """Killed at a moment, right after it, and in between: weights, average and moments go on."""
    whole_model = Line(noise=0.3)
    whole = list(run(whole_model, [2.0, 4.0, 6.0]))
    file, seen = tmp_path / "state.safetensors", []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(run(Line(noise=0.3, dies_at=steps), [2.0, 4.0, 6.0], state=file))
    assert [moment.steps for moment in seen] == [4]
    model = Line(noise=0.3)
    seen += run(model, [4.0, 6.0], state=file)
    assert [m.steps for m in seen] == [m.steps for m in whole] == [4, 8, 12]
    assert all(same(a.model, b.model) for a, b in zip(seen, whole, strict=True))
    assert same(model, whole_model)
    assert model.taken == 8  # it goes on: the first 4 are not taken again
    again = Line(noise=0.3)
    (late,) = run(again, [6.0], state=file)  # a moment that has passed is not trained to
    assert (late.steps, again.taken) == (12, 0)
    assert same(late.model, whole[-1].model)


def test_the_seed_decides_and_other_options_are_another_run(clock, tmp_path):
    file = tmp_path / "state.safetensors"
    ends = [next(run(Line(0.3), [2.0], seed=seed)).model for seed in (0, 0, 1)]
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])
    list(run(Line(0.3), [2.0], state=file))
    with pytest.raises(ValueError, match="seed=0 there, seed=1 here"):
        next(run(Line(0.3), [3.0], state=file, seed=1))


@pytest.mark.parametrize("moments", [[0.0], [-1.0], [2.0, 1.0], [1.0, 1.0]])
def test_moments_rise(moments):
    with pytest.raises(ValueError, match=r"moments\[\d\]"):
        next(run(Line(), moments))


@pytest.mark.parametrize(("name", "value"), [("seed", -1), ("batch_size", 0), ("lr", 0.0)])
def test_options_are_checked(name, value):
    options = {"batch_size": 4, "lr": LR} | {name: value}
    with pytest.raises(ValueError, match=f"^{name} must be"):
        next(train_by_the_clock(Line(), data(), moments=[1.0], **options))


def test_no_step_zero():
    with pytest.raises(ValueError, match="step"):
        average_weight(0)
