"""Chapter 16: right answers, written differently, pass; known mistakes are named."""

import math

import numpy as np
import pytest
import torch

from course_lib.exercises import ch16_scaling_out as ch16
from course_lib.exercises import check
from course_lib.parallel import ring_all_reduce, ring_bytes
from tests.exercises.laws import ExerciseLaws, is_prediction

# --- predict_traffic -----------------------------------------------------------------------------

TRAFFIC_RIGHT = [8, 15 / (2 * 15 / 16), np.float64(8), torch.tensor(8.0)]
TRAFFIC_WRONG = {"far": (100, "It is not 100 times as much")}

# --- ring_step -----------------------------------------------------------------------------------


def list_of_chunks(chunks, rank, step, incoming):
    n = len(chunks)
    held = list(chunks)
    number = (rank + step) % n
    held[number] = incoming if step >= n else held[number] + incoming
    return chunks[number - 1], torch.stack(held)


def by_rolling(chunks, rank, step, incoming):
    """With the chunk that goes in front."""
    n = len(chunks)
    first = rank + step - 1
    held = chunks.roll(-first, 0)
    add = float(step <= n - 1)
    after = torch.cat([held[:1], (add * held[1] + incoming)[None], held[2:]])
    return held[0], after.roll(first, 0)


RING_RIGHT = [ch16.ring_step, list_of_chunks, by_rolling]
RING_WRONG = {
    "the incoming": (
        lambda chunks, r, k, new: (new.clone(), ch16.ring_step(chunks, r, k, new)[1]),
        "You don't send the chunk that came in last",
    ),
    "nothing changes": (
        lambda chunks, r, k, new: (ch16.ring_step(chunks, r, k, new)[0], chunks.clone()),
        "Your chunks after the step are other ones",
    ),
    "the number": (
        lambda chunks, r, k, new: ((r + k - 1) % len(chunks), chunks),
        "Your sent is of type int",
    ),
    "no modulo": (
        lambda chunks, r, k, new: (chunks[r + k - 1], ch16.ring_step(chunks, r, k, new)[1]),
        "IndexError",
    ),
}

# --- weighted_mean -------------------------------------------------------------------------------


def over_the_others(gradients, shares):
    busy = shares > 0
    total = torch.einsum("r...,r->...", gradients[busy], shares[busy].float())
    return total / shares.sum()


def one_by_one(gradients, shares):
    total, seen = torch.zeros_like(gradients[0]), 0
    for gradient, share in zip(gradients, shares.tolist(), strict=True):
        if share:
            seen += share
            total = total + share / seen * (gradient - total)
    return total


MEAN_RIGHT = [ch16.weighted_mean, over_the_others, one_by_one]
MEAN_WRONG = {
    "zeros": (lambda g, s: torch.zeros_like(g[0]), "not that of the whole batch"),
    "one alone": (lambda g, s: g[0].clone(), "not that of the whole batch"),
}

# --- joined_variance -----------------------------------------------------------------------------


def two_by_two(means, variances, counts):
    """Chan's formula: one process joins after the other."""
    n, mean, squares = 0, torch.zeros_like(means[0]), torch.zeros_like(means[0])
    for m, v, k in zip(means, variances, counts.tolist(), strict=True):
        squares = squares + k * v + (m - mean) ** 2 * n * k / (n + k)
        mean, n = mean + (m - mean) * k / (n + k), n + k
    return squares / n


def by_pairs(means, variances, counts):
    """The variance between is half of the mean squared difference of pairs."""
    w = (counts / counts.sum())[:, None]
    pairs = (means[:, None] - means[None]) ** 2
    return (w * variances).sum(0) + 0.5 * (w[:, None] * w[None] * pairs).sum((0, 1))


def in_double_precision(means, variances, counts):
    m, v, n = means.double(), variances.double(), counts[:, None].double()
    second = (n * (v + m**2)).sum(0) / n.sum()
    return (second - ((n * m).sum(0) / n.sum()) ** 2).float()


VARIANCE_RIGHT = [ch16.joined_variance, two_by_two, by_pairs, in_double_precision]
VARIANCE_WRONG = {
    "the largest": (lambda m, v, n: v.amax(0), "not that of the whole batch"),
    "in large units": (
        lambda m, v, n: ch16.joined_variance(torch.where(m > 99, m.round(), m), v, n),
        "with means of 1,000",
    ),
}

# --- accumulated_loss ----------------------------------------------------------------------------


def by_two_means(counts):
    """A token of the k-th small batch of process r, within its process and among processes."""
    own = counts.sum(1, keepdim=True)
    return counts / own * (own / own.float().mean())


def by_autograd(counts):
    """What makes each token's weight in the end 1 / (all tokens)."""
    factors = torch.ones(counts.shape, requires_grad=True)
    token = (factors / counts / len(counts)).sum()
    each = torch.autograd.grad(token, factors)[0]
    return 1 / counts.sum() / each


FACTORS_RIGHT = [ch16.loss_factors, by_two_means, by_autograd]
FACTORS_WRONG = {
    "ones": (lambda c: torch.ones(c.shape), "tokens don't all count alike"),
    "whole numbers": (lambda c: len(c) * c // c.sum(), "is of dtype int64"),
}

# --- break_the_average ---------------------------------------------------------------------------


def contrastive(errors):
    return (
        -torch.log_softmax(errors, 0).diagonal(0, 0, -1).sum()
        if errors.ndim > 1
        else (errors.exp().sum().log())
    )


def normalized(errors):
    """As after BatchNorm: a mean of terms of normalized errors."""
    z = (errors - errors.mean()) / errors.std(correction=0)
    return torch.nn.functional.softplus(z).mean()


AVERAGE_RIGHT = [
    normalized,
    contrastive,
    lambda e: e.std(),
    lambda e: e.amax(),
    lambda e: e.mean() ** 2,
    lambda e: e.square().mean().sqrt(),
    lambda e: e.square().sum() / e.abs().sum(),
    lambda e: e.median(),
    lambda e: e[e > 0].mean(),  # as over tokens, of which not all count
    lambda e: (e * (e < 0)).sum() / (e < 0).sum(),
]
AVERAGE_WRONG = {
    "squares": (lambda e: e.square().mean(), "Not broken: the mean of the gradients by the two"),
    "Huber": (
        lambda e: torch.nn.functional.huber_loss(e, torch.zeros_like(e)),
        "Not broken: the mean of the gradients by the two",
    ),
    "a sum": (lambda e: e.square().sum(), "points the right way, and is 0.5 times as long"),
    "over the root": (lambda e: e.square().sum() / len(e) ** 0.5, "points the right way"),
    "a little": (lambda e: e.square().mean() + 1e-3 * e.std(), "Hardly broken"),
    "the first": (lambda e: e[0] ** 2, "depends on the order"),
    "the ends": (lambda e: e[0] * e[-1], "depends on the order"),
    "by chance": (lambda e: e.std() * torch.rand(()), "depends on the order of the examples, or"),
    "detached": (lambda e: e.std().detach(), "No gradient flows from your loss"),
    "a number": (lambda e: e.std().item(), "Your loss is of type float"),
    "each": (lambda e: e.square(), "Your loss has shape"),
    "flat": (lambda e: 0 * e.sum(), "by the whole batch is 0"),
    "a root of 0": (lambda e: (e.sum() - e.sum()).sqrt(), "holds NaN"),
}


ALL = {
    "16.predict_traffic": (TRAFFIC_RIGHT, TRAFFIC_WRONG),
    "16.ring_step": (RING_RIGHT, RING_WRONG),
    "16.weighted_mean": (MEAN_RIGHT, MEAN_WRONG),
    "16.joined_variance": (VARIANCE_RIGHT, VARIANCE_WRONG),
    "16.accumulated_loss": (FACTORS_RIGHT, FACTORS_WRONG),
    "16.break_the_average": (AVERAGE_RIGHT, AVERAGE_WRONG),
}


class TestExercises(ExerciseLaws):
    chapter = "16"
    cases = ALL

    def times(self, name, answer):
        return 1 if is_prediction(name) else 8


# --- What the exercises call right, against what they are about ----------------------------------


def test_the_ratio_of_the_prediction_is_counted():
    n = 16
    tensors = [torch.ones(n) for _ in range(n)]
    _, messages = ring_all_reduce(tensors)
    ring = sum(m.size for m in messages if m.source == 3)
    star = (n - 1) * tensors[0].nbytes
    assert star / ring == 8
    assert ring == ring_bytes(tensors[0].nbytes, n)
    assert round(ring_bytes(4 * 124_439_808, n) / 1e6) == 933


def test_a_ring_that_ends_elsewhere_is_told():
    """Right for the numbers of processes that are drawn, and not for six."""

    def attempt(chunks, rank, step, incoming):
        sent, after = ch16.ring_step(chunks, rank, step, incoming)
        return sent, 2 * after if len(chunks) == 6 else after

    assert "Six of your processes" in check("16.ring_step", attempt).reason


def shares_of(x, counts):
    return x.split(counts.tolist())


def test_the_weighted_mean_is_the_gradient_of_the_whole_batch():
    x, y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20.0)
    counts, w = torch.tensor([3, 0, 12, 5]), torch.zeros(3, requires_grad=True)

    def gradient(x, y):
        return torch.autograd.grad((x @ w - y).square().mean(), w)[0]

    each = torch.stack(
        [gradient(*part) for part in zip(shares_of(x, counts), shares_of(y, counts), strict=True)]
    )
    assert not each[1].any()
    torch.testing.assert_close(ch16.weighted_mean(each, counts), gradient(x, y))


def test_the_joined_variance_is_that_of_all_examples():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    counts = torch.tensor([3, 12, 5])
    parts = shares_of(x, counts)
    means, variances = (
        torch.stack([f(part) for part in parts])
        for f in (lambda p: p.mean(0), lambda p: p.var(0, correction=0))
    )
    torch.testing.assert_close(
        ch16.joined_variance(means, variances, counts), x.var(0, correction=0)
    )


def test_the_factors_make_every_token_count_alike():
    counts = torch.tensor([[4, 4, 1], [4, 4, 3]])
    losses = torch.randn(20, generator=torch.Generator().manual_seed(0))
    means = torch.stack([part.mean() for part in losses.split(counts.flatten().tolist())])
    factors = ch16.loss_factors(counts)
    mean = (factors * means.reshape(2, 3)).sum(1).mean()
    torch.testing.assert_close(mean, losses.mean())


@pytest.mark.parametrize("answer", AVERAGE_RIGHT[:3])
def test_the_angle_is_told(answer):
    assert "° away from the gradient" in check("16.break_the_average", answer).reason


def test_a_mean_of_gradients_that_vanishes_is_told():
    """A loss that sees nothing in a share as small as a half."""

    def only_in_large_batches(errors):
        return errors.square().mean() * (len(errors) > 4)

    assert (
        "gradients is 0, and that of the whole batch is not"
        in check("16.break_the_average", only_in_large_batches).reason
    )


def test_the_verdict_of_a_broken_loss_is_finite():
    assert "nan" not in check("16.break_the_average", AVERAGE_RIGHT[2]).reason
    assert math.isfinite(ring_bytes(1.0, 2))
