"""Exercises of chapter 16: traffic, a ring the other way, means of means, variances, losses."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.exercises.attempt import Attempt, Mistake, same, take_tensor
from course_lib.exercises.draws import randn
from course_lib.exercises.formula import Case, Wrong, formula, usual
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise
from course_lib.experiments import split_gradient
from course_lib.parallel import accumulate, ring_all_reduce, ring_bytes, ring_steps

__all__ = ["joined_variance", "loss_factors", "ring_step", "weighted_mean"]


def _whole(low: int, high: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Whole numbers from low to high."""
    return torch.randint(low, high + 1, shape, generator=generator)


# --- The busiest process -------------------------------------------------------------------------

_BOTH = (
    "In the star one process sends the sum, as large as the gradients, to all others. In the ring "
    "each sends 2 (N − 1) chunks, of 1 / N each."
)

prediction(
    "16.predict_traffic",
    task="Predict: 16 processes sum their gradients. In a star all send them to one process, which "
    "adds them up and sends the sum back to each of the others. How many times as much does this "
    "process send as one process of a ring all-reduce?",
    solution=[ring_bytes, ring_all_reduce],
    hints=[
        "How often does the process in the middle send the whole sum?",
        _BOTH,
        "15 against 2 · 15 / 16.",
    ],
    right=8,
    within=1e-6,
    wrong=[
        Slip(
            15,
            "The process in the middle sends 15 times the gradients, but one of the ring "
            "sends nearly 2 times.",
            within=0.3,
        ),
        Slip(16, "A chunk goes round twice: once to be summed, once as the sum.", within=0.3),
        Slip(
            7.5,
            "Nearly: 2 (N − 1) chunks of 1 / N are a little less than 2 times the gradients.",
            within=0.1,
        ),
        Slip(1 / 8, "Upside down: the star's process sends more.", within=1e-3),
        Slip(1, "As much in all, but not from one process: the ring shares the work.", within=1e-6),
        Slip(
            4,
            "You count what a process of the ring receives as well, but not in the star: what is "
            "sent is asked for.",
            within=0.1,
        ),
        Slip(
            30,
            "You count what it receives as well: what one process sends is asked for.",
            within=0.3,
        ),
        Slip(
            1.875,
            "That is what a process of the ring sends, in units of the gradients.",
            within=0.01,
        ),
        Slip(
            240,
            "You let a process of the ring send one chunk only: it sends 2 (N − 1).",
            within=20,
        ),
        Slip(
            0.5,
            "You take the chunks of the ring for as large as the gradients: each is 1 / N of them.",
            within=0.01,
        ),
    ],
    passes="8, half of the number of processes: 15 times the gradients against 2 · 15 / 16 times. "
    "What a process of the ring sends hardly depends on N, and neither does the time, as long as "
    "latency is small. For GPT-2's 498 MB of gradients in float32 it is 933 MB in the ring and 7.5 "
    "GB in the middle of the star.",
    question="A ratio is asked for, a number.",
    hint=_BOTH,
    otherwise=lambda got: (f"It is not {got:.4g} times as much.", _BOTH),
)


# --- A ring the other way ------------------------------------------------------------------------


def ring_step(chunks: Tensor, rank: int, step: int, incoming: Tensor) -> tuple[Tensor, Tensor]:
    """One step of a ring all-reduce that goes to the left, in the process ``rank``.

    Args:
        chunks: What the process holds before the step, ``[N, size]``.
        rank: From 0 to N − 1.
        step: From 1 to 2 (N − 1).
        incoming: What comes from the right, from ``rank`` + 1, ``[size]``.

    Returns:
        What it sends to the left, ``[size]``, and what it holds after the step.

    """
    n, after = len(chunks), chunks.clone()
    sent, c = chunks[(rank + step - 1) % n], (rank + step) % n
    after[c] = chunks[c] + incoming if step < n else incoming
    return sent.clone(), after


_RIGHT_OF = (
    "In step k process r sends chunk r + k − 1, so its neighbour r + 1 sends chunk r + k: that is "
    "what comes in, and what goes out in the next step. All mod N."
)


def _steps(
    sent: Callable[[int, int, int], int] = lambda r, k, n: r + k - 1,
    came: Callable[[int, int, int], int] = lambda r, k, n: r + k,
    join: Callable[[Tensor, Tensor, int, int], Tensor] = (
        lambda own, incoming, k, n: own + incoming if k < n else incoming
    ),
) -> Callable[..., tuple[Tensor, Tensor]]:
    """An answer by the numbers of the chunks that go and come, of (rank, step, N)."""

    def answer(chunks: Tensor, r: int, k: int, incoming: Tensor) -> tuple[Tensor, Tensor]:
        n, after = len(chunks), chunks.clone()
        c = came(r, k, n) % n
        after[c] = join(chunks[c], incoming, k, n)
        return chunks[sent(r, k, n) % n], after

    return answer


def _sent_afterwards(chunks: Tensor, r: int, k: int, incoming: Tensor) -> tuple[Tensor, Tensor]:
    _, after = ring_step(chunks, r, k, incoming)
    return after[(r + k) % len(chunks)], after


# fmt: off
_RING_WRONG = [
    Wrong(_steps(lambda r, k, n: r - k + 1, lambda r, k, n: r - k), "That is the ring to the "
          "right, which the library runs.", "What comes from r + 1 has other numbers. "
          + _RIGHT_OF),
    Wrong(_steps(lambda r, k, n: r + k, lambda r, k, n: r + k + 1), "You count steps from 0: the "
          "first one is step 1.", _RIGHT_OF),
    Wrong(_steps(lambda r, k, n: r), "You send your own chunk in every step.",
          "From the second step on pass on what came in the last one. " + _RIGHT_OF),
    Wrong(_sent_afterwards, "You send at once what has just come in.", "All send at the same "
          "time: what goes out came in the step before."),
    Wrong(_steps(lambda r, k, n: r + k), "You send the chunk that comes in, as it was before.",
          "What goes out came in the step before. " + _RIGHT_OF),
    Wrong(_steps(lambda r, k, n: r + k - 1 if k < n else r + k - n), "In the second half you begin "
          "with chunk r: the one that is whole by then is r − 1.", "After N − 1 steps the last "
          "chunk that came in has everybody's part. " + _RIGHT_OF),
    Wrong(_steps(came=lambda r, k, n: r + k - 1), "What comes in is taken for the chunk that you "
          "send.", _RIGHT_OF),
    Wrong(_steps(came=lambda r, k, n: r + k - 2), "What comes in is taken for what a process to "
          "the left sends.", _RIGHT_OF),
    Wrong(_steps(came=lambda r, k, n: r + 1), "What comes in is taken for chunk r + 1 in every "
          "step.", _RIGHT_OF),
    Wrong(_steps(came=lambda r, k, n: r + k if k < n else r + k + 1), "In the second half what "
          "comes in is taken for the chunk after it.", _RIGHT_OF),
    Wrong(_steps(join=lambda own, new, k, n: own + new), "You add in the second half, too: what "
          "comes then is a whole sum, and your own part is in it.", "From step N on it replaces."),
    Wrong(_steps(join=lambda own, new, k, n: new), "You never add: nothing is summed.",
          "Up to step N − 1 what comes in is added to your own."),
    Wrong(_steps(join=lambda own, new, k, n: own + new if k < n - 1 else new),
          "You stop to add one step too early.", "N − 1 steps collect what N processes have."),
    Wrong(_steps(join=lambda own, new, k, n: own + new if k <= n else new),
          "You add one step too long.", "N − 1 steps collect what N processes have."),
    Wrong(_steps(join=lambda own, new, k, n: (own + new) / 2 if k < n else new),
          "You take a mean of two: the third process would count as much as the first two.",
          "Sum, and divide by N at the very end."),
    Wrong(lambda chunks, r, k, new: (chunks[(r + k - 1) % len(chunks)],
                                     chunks + new if k < len(chunks) else new + 0 * chunks),
          "You change all chunks: one came.", _RIGHT_OF),
]
# fmt: on


def _draw_steps(generator: torch.Generator) -> list[tuple]:
    cases = []
    for n in (4, 5, 3):
        for step in {1, 2, n - 1, n, n + 1, 2 * n - 2}:
            rank = int(torch.randint(0, n, (), generator=generator))
            chunks = randn(n, 6, generator=generator)
            cases.append((chunks, rank, step, randn(6, generator=generator)))
    return cases


def _run_the_ring(attempt: Attempt, generator: torch.Generator) -> str:
    """All processes together: the sum everywhere."""
    n = 6
    held = [randn(n, 2, generator=generator) for _ in range(n)]
    total = torch.stack(held).sum(0)
    for step in range(1, 2 * n - 1):
        nothing = torch.zeros(2)
        sent = [attempt(held[r], r, step, nothing)[0].clone() for r in range(n)]
        held = [attempt(held[r], r, step, sent[(r + 1) % n])[1] for r in range(n)]
    if not all(same(chunks, total) for chunks in held):  # not by what was tried before
        raise Mistake("Six of your processes together don't end with the sum.", _RIGHT_OF)
    return (
        "Right: six of your processes, run for 10 steps, end with the sum, all of them. Two rings "
        "in opposite directions, each with half of the numbers, use every wire both ways at once: "
        "so do the libraries for clusters."
    )


formula(
    "16.ring_step",
    task="Write `ring_step` for a ring that goes the other way: each process sends to its left, to "
    "rank − 1. In step 1 process r sends its chunk r, then always the chunk that it received last. "
    "Up to step N − 1 what comes in is added, from step N to 2 (N − 1) it replaces. chunks "
    "[N, size] is what it holds before the step, incoming [size] comes from rank + 1: give what it "
    "sends, and what it holds afterwards.",
    signature="ring_step(chunks, rank, step, incoming) -> sent, chunks",
    solution=[ring_step, ring_steps],
    hints=[
        "Follow four processes on paper for two steps. Which chunk does process 0 receive in step "
        "1, from process 1?",
        _RIGHT_OF,
        "sent = chunks[(rank + step − 1) % N]; chunk (rank + step) % N of a copy changes.",
    ],
    right=ring_step,
    inputs=_draw_steps,
    result=["sent", "chunks"],
    axes="[N, size], _, _, [size] -> [size], [N, size]",
    wrong=_RING_WRONG,
    hint=_RIGHT_OF,
    otherwise={
        "sent": ("You don't send the chunk that came in last.", _RIGHT_OF),
        "chunks": ("Your chunks after the step are other ones.", _RIGHT_OF),
    },
    passes=_run_the_ring,
)


# --- Unequal shares ------------------------------------------------------------------------------


def weighted_mean(gradients: Tensor, shares: Tensor) -> Tensor:
    """The gradient of the mean over all examples, from the means ``[N, ...]`` of the processes.

    Process r had ``shares[r]`` examples.
    """
    return torch.tensordot(shares / shares.sum(), gradients, dims=1)


_COUNTED = "shares_r · gradient_r is the sum over the examples of process r: add up, and divide."


def _by_share(weights: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """An answer by the weights of the processes, a formula of their shares."""

    def answer(gradients: Tensor, shares: Tensor) -> Tensor:
        return torch.tensordot(weights(shares.float()), gradients, dims=1)

    return answer


# fmt: off
_MEAN_WRONG = [
    Wrong(lambda g, s: g.mean(0), "You take the plain mean, as all-reduce does: an example of a "
          "small share counts more.", _COUNTED),
    Wrong(_by_share(torch.ones_like), "You take the sum of the gradients.", _COUNTED),
    Wrong(_by_share(lambda s: s), "That is the sum over all examples, not the mean.",
          "Divide by their number."),
    Wrong(_by_share(lambda s: s / len(s)), "You divide by the number of processes.",
          "Divide by the number of examples."),
    Wrong(_by_share(lambda s: s * len(s) / s.sum()), "N times too large: that is what each "
          "process multiplies by if a plain mean follows.", "Here nothing follows: " + _COUNTED),
    Wrong(_by_share(lambda s: s / s.sum() / len(s)), "N times too small: dividing by the number of "
          "examples is enough.", _COUNTED),
    Wrong(_by_share(lambda s: s / s.amax()), "You divide by the largest share.",
          "By the sum of all."),
    Wrong(_by_share(lambda s: torch.softmax(s, 0)), "A softmax of the shares: nearly all weight "
          "goes to the largest.", _COUNTED),
    Wrong(_by_share(lambda s: s.square() / s.square().sum()), "You count each share twice.",
          _COUNTED),
    Wrong(_by_share(lambda s: s.sqrt() / s.sqrt().sum()), "You take roots of the shares.",
          _COUNTED),
    Wrong(_by_share(lambda s: 1 / s.clamp(min=1) / (1 / s.clamp(min=1)).sum()), "You divide each "
          "gradient by its share: it is a mean already.", _COUNTED),
    Wrong(_by_share(lambda s: (s > 0) / (s > 0).sum()), "You leave out who had no example, and "
          "take the plain mean of the others.", _COUNTED),
    Wrong(lambda g, s: (g * s / s.sum()).sum(0), "Your shares run along the last axis.",
          "They belong to axis 0: `shares.reshape(-1, 1, ...)`."),
    usual("sign"),
]
# fmt: on


def _draw_shares(generator: torch.Generator) -> list[tuple]:
    cases = []
    for shape in ((6, 6), (4,), (5, 3, 2), (3, 4, 4, 3)):
        gradients, shares = randn(*shape, generator=generator), _whole(1, 40, shape[:1], generator)
        if len(shape) == 3:
            gradients[2], shares[2] = 0, 0
        cases.append((gradients, shares))
    return cases


formula(
    "16.weighted_mean",
    task="Write `weighted_mean`: N processes with unequal shares of a batch, shares [N] whole "
    "numbers, each give the gradient of their own mean loss, gradients [N, *shape]. What is the "
    "gradient of the mean over the whole batch? A share may be 0, "
    "and its gradient is 0.",
    signature="weighted_mean(gradients, shares) -> gradient",
    solution=[weighted_mean, ring_all_reduce],
    hints=[
        "What is the sum over the examples of one process?",
        _COUNTED,
        "The weights are shares / shares.sum(), with as many axes as the gradients have: "
        "`.reshape(-1, 1, ...)`, or `torch.tensordot(weights, gradients, dims=1)`.",
    ],
    right=weighted_mean,
    inputs=_draw_shares,
    result="gradient",
    axes="[N, *shape], [N] -> [*shape]",
    wrong=_MEAN_WRONG,
    hint=_COUNTED,
    otherwise=("Your gradient is not that of the whole batch.", _COUNTED),
    passes="Your gradient is that of the whole batch. All-reduce takes the plain mean: so either "
    "shares are equal, or each process multiplies its loss by N · share / batch first.",
)


# --- The variance that BatchNorm would need ------------------------------------------------------


def joined_variance(means: Tensor, variances: Tensor, counts: Tensor) -> Tensor:
    """The variance ``[C]`` of a batch from means and variances ``[N, C]`` of the processes' shares.

    Variances are mean squared deviations (nothing is subtracted from the ``counts [N]``).
    """
    weights = (counts / counts.sum())[:, None]
    mean = (weights * means).sum(0)
    return (weights * (variances + (means - mean) ** 2)).sum(0)


_WITHIN_BETWEEN = (
    "A process's examples deviate from the batch's mean by variance + (mean − batch's mean)², on "
    "average: within, and between."
)


def _joined(
    rule: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """An answer by a formula of means, variances, weights [N, 1] that sum to 1, and counts."""

    def answer(means: Tensor, variances: Tensor, counts: Tensor) -> Tensor:
        counts = counts[:, None].to(means.dtype)
        return rule(means, variances, counts / counts.sum(), counts)

    return answer


def _about_mean(m: Tensor, w: Tensor) -> Tensor:
    return (m - (w * m).sum(0)) ** 2


# fmt: off
_VARIANCE_WRONG = [
    Wrong(_joined(lambda m, v, w, n: (w * v).sum(0)), "You leave out how far the means lie apart: "
          "that is BatchNorm in each process, on average.", _WITHIN_BETWEEN),
    Wrong(lambda m, v, n: v.mean(0), "The plain mean of variances: sizes don't count, and how far "
          "the means lie apart is left out.", _WITHIN_BETWEEN),
    Wrong(_joined(lambda m, v, w, n: (w * _about_mean(m, w)).sum(0)), "That is the variance "
          "between the processes: the one within is missing.", _WITHIN_BETWEEN),
    Wrong(lambda m, v, n: v.mean(0) + m.var(0, correction=0), "All processes count alike: weigh "
          "them by their counts.", _WITHIN_BETWEEN),
    Wrong(_joined(lambda m, v, w, n: (w * (v + (m - m.mean(0)) ** 2)).sum(0)), "Your batch's mean "
          "is the plain mean of the means: weigh it, too.", _WITHIN_BETWEEN),
    Wrong(_joined(lambda m, v, w, n: (w * (v + m**2)).sum(0) - m.mean(0) ** 2), "The mean that you "
          "subtract is the plain mean of the means: weigh it, too.", _WITHIN_BETWEEN),
    Wrong(lambda m, v, n: v.mean(0) + m.var(0), "All processes count alike, and `var` divides by "
          "N − 1: weigh them by their counts.", _WITHIN_BETWEEN),
    Wrong(lambda m, v, n: v.sum(0), "You add the variances: that is the variance of a sum of "
          "independent numbers.", _WITHIN_BETWEEN),
    Wrong(_joined(lambda m, v, w, n: (w * v).sum(0) + m.var(0, correction=0)), "Only the variances "
          "are weighed: the means must be, too.", _WITHIN_BETWEEN),
    Wrong(_joined(lambda m, v, w, n: v.mean(0) + (w * _about_mean(m, w)).sum(0)), "Only the means "
          "are weighed: the variances must be, too.", _WITHIN_BETWEEN),
    Wrong(_joined(lambda m, v, w, n: (w * (v + m**2)).sum(0)), "That is the mean of squares: the "
          "batch's mean is not subtracted.", _WITHIN_BETWEEN),
    Wrong(_joined(lambda m, v, w, n: (w * (v + m**2)).sum(0) - (w * m).sum(0) ** 2),
          "E x² − (E x)² is right on paper, but where means are large two nearly equal numbers are "
          "subtracted.", "Sum (mean − batch's mean)²: no large numbers come in. "
          + _WITHIN_BETWEEN),
    Wrong(_joined(lambda m, v, w, n: (w * v + w**2 * _about_mean(m, w)).sum(0)), "The squares of "
          "the weights stand before the deviations.", _WITHIN_BETWEEN),
    Wrong(_joined(lambda m, v, w, n: (w**2 * v).sum(0)), "That is the variance of a mean: the "
          "spread of the examples is asked for.", _WITHIN_BETWEEN),
    Wrong(_joined(lambda m, v, w, n: (n * (v + _about_mean(m, w))).sum(0) / (n.sum() - 1)),
          "You divide by the number of examples less 1: BatchNorm normalizes by their number.",
          "A mean of squared deviations."),
    Wrong(_joined(lambda m, v, w, n: ((n - 1) * v + n * _about_mean(m, w)).sum(0) / n.sum()),
          "You take the variances for ones that were divided by n − 1.",
          "They are means of squared deviations."),
    Wrong(_joined(lambda m, v, w, n: (n * (v + _about_mean(m, w))).sum(0)), "You give the sum of "
          "squared deviations: divide by the number of examples.", _WITHIN_BETWEEN),
    Wrong(_joined(lambda m, v, w, n: (w * (v.sqrt() + (m - (w * m).sum(0)).abs()) ** 2).sum(0)),
          "You add deviations: their squares add up.", _WITHIN_BETWEEN),
    usual("root", "You give the standard deviation.", "Its square."),
]
# fmt: on


def _draw_variances(generator: torch.Generator) -> list[Case]:
    def case(n: int, c: int, at: float = 0.0, **words: Any) -> Case:
        means = at + randn(n, c, generator=generator)
        variances = 0.3 + torch.rand(n, c, generator=generator)
        return Case((means, variances, _whole(2, 12, (n,), generator)), **words)

    return [case(3, 4), case(5, 5), case(2, 7), case(4, 3, 1000.0, fails=_LARGE_MEANS)]


_LARGE_MEANS = (
    "Right for small means, but with means of 1,000 and variances of 1 your result is off.",
    "Subtract the batch's mean before you square.",
)

formula(
    "16.joined_variance",
    task="Derive, and write `joined_variance`: each of N processes knows the mean and variance "
    "(mean squared deviation) of its share for C channels, means and variances [N, C], and the "
    "number of its examples, counts [N]. What is the variance [C] of the whole batch, which "
    "BatchNorm would need? It is right for means of 1,000 as well.",
    signature="joined_variance(means, variances, counts) -> variance",
    solution=[joined_variance, ring_all_reduce],
    hints=[
        "First the mean of the batch.",
        _WITHIN_BETWEEN,
        "Σ counts · (variances + (means − mean)²) / Σ counts.",
    ],
    right=joined_variance,
    inputs=_draw_variances,
    result="variance",
    axes="[N, C], [N, C], [N] -> [C]",
    tolerance=3e-4,
    wrong=_VARIANCE_WRONG,
    hint=_WITHIN_BETWEEN,
    otherwise=("Your variance is not that of the whole batch.", _WITHIN_BETWEEN),
    passes="Your variance is the whole batch's. No averaging of gradients gives it: it is needed "
    "in the forward pass, and its gradient in the backward pass. SyncBatchNorm sends both, at each "
    "of its layers; GroupNorm and LayerNorm look at one example and need nothing.",
)


# --- Small batches, many processes ---------------------------------------------------------------


def loss_factors(counts: Tensor) -> Tensor:
    """What the mean loss of each small batch is multiplied with: ``[N, A]``, from their counts.

    Gradients of the A small batches of a process add up, and all-reduce takes the mean of N.
    """
    return len(counts) * counts / counts.sum()


_EACH_ONE = (
    "Every token shall count 1 / (all tokens). A mean over counts[r, a] of them gives it "
    "1 / counts[r, a], and the mean over the processes 1 / N more."
)


def _factors(rule: Callable[[Tensor, int, int], Tensor]) -> Callable[[Tensor], Tensor]:
    """An answer by a formula of counts, N and A."""
    return lambda counts: rule(counts.float(), *counts.shape).expand(counts.shape).clone()


# fmt: off
_FACTORS_WRONG = [
    Wrong(_factors(lambda c, n, k: torch.tensor(1 / k)), "You multiply by 1 / A, as if all small "
          "batches had the same size.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: torch.tensor(1 / n)), "You multiply by 1 / N: all-reduce "
          "does so, and the sizes are left out.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: torch.tensor(1 / (n * k))), "You multiply by 1 / (N A), as if "
          "all small batches had the same size and all-reduce took a sum.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: c / c.sum()), "The mean over the processes divides by N once "
          "more: make up for it.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: c / c.sum(1, keepdim=True)), "Each process divides by its own "
          "tokens: a mean of means again.", "They must know how many there are in all. "
          + _EACH_ONE),
    Wrong(_factors(lambda c, n, k: n * c / c.sum(1, keepdim=True)), "Each process divides by its "
          "own tokens, and N makes a sum of it all.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: c / c.sum(0)), "You divide by the tokens of the a-th small "
          "batches alone.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: n * c / c.sum(0) / k), "You weigh within the a-th small batches "
          "alone, and take their plain mean.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: k * c / c.sum()), "You multiply by the number of small batches, "
          "not of processes: small batches are added, not averaged.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: n * k * c / c.sum()), "Small batches are added, not averaged: "
          "A must not stand there.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: c / c.sum() / n), "You divide by N, which the mean over the "
          "processes does, too: multiply.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: n / c.sum()), "Those are factors for sums of losses: yours "
          "are means.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: 1 / c), "You divide by the sizes once more: a mean has done "
          "so.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: c), "You give the sizes: that makes sums of the means, but all "
          "tokens' number is left out.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: c / c.amax()), "You divide by the largest size.", _EACH_ONE),
    Wrong(_factors(lambda c, n, k: c / c.amax(1, keepdim=True) / k), "You divide by the size of a "
          "full small batch, and by A: right only where all are full.", _EACH_ONE),
    usual("inverse", "Your factors are upside down: a large batch counts more."),
]
# fmt: on

formula(
    "16.accumulated_loss",
    task="Derive, and write `loss_factors`: N processes each accumulate the gradients of A small "
    "batches with counts [N, A] tokens (the last ones are smaller), from the mean loss of each; "
    "then all-reduce takes the mean over the processes. By what must each mean loss be multiplied "
    "for the gradient of the mean over all tokens?",
    signature="loss_factors(counts) -> factors",
    solution=[loss_factors, accumulate],
    hints=[
        "What does one token count for in the end, if nothing is multiplied?",
        _EACH_ONE,
        "factor / (counts[r, a] · N) = 1 / counts.sum().",
    ],
    right=loss_factors,
    inputs=lambda generator: [
        (_whole(1, 60, shape, generator),) for shape in ((3, 5), (4, 4), (2, 3), (5, 2))
    ],
    result="factors",
    axes="[N, A] -> [N, A]",
    wrong=_FACTORS_WRONG,
    hint=_EACH_ONE,
    otherwise=(
        "With your factors tokens don't all count alike, or not 1 / (all tokens).",
        _EACH_ONE,
    ),
    passes="With your factors every token counts alike, wherever it is computed. 1 / A stood in "
    "libraries for language models, whose small batches have unequal numbers of tokens, until "
    "October 2024, though one comparison with a big batch shows it.",
)


# --- A loss that must not be split ---------------------------------------------------------------

_TERMS = (
    "A mean of one term for each example may be split. What else can one number say about a batch?"
)


def _loss_of(attempt: Attempt) -> Callable[[Tensor], Tensor]:
    """The reader's loss, looked at every time."""

    def loss(errors: Tensor) -> Tensor:
        value = take_tensor("loss", attempt(errors), ())
        if not value.requires_grad:
            raise Mistake(
                "No gradient flows from your loss to the errors.",
                "Stay in PyTorch, without `detach`, `item` or `no_grad`.",
            )
        return value

    return loss


def _check_order(loss: Callable[[Tensor], Tensor], errors: Tensor, generator: Any) -> None:
    orders = [torch.randperm(len(errors), generator=generator) for _ in range(3)]
    first, *others = (
        loss(e.clone().requires_grad_()).detach()
        for e in (errors, errors.flip(0), errors.roll(1), *(errors[order] for order in orders))
    )
    if not all(same(first, other) for other in others):
        raise Mistake(
            "Your loss depends on the order of the examples, or on chance.",
            "All examples shall count alike: sums, means, the largest, …",
        )


@exercise(
    "16.break_the_average",
    task="Break it: two processes have shares of equal size, and still the mean of their gradients "
    "is wrong. Write `bad_loss`: a loss of errors [n] of any number n of examples, one number, in "
    "which their order does not matter. The mean of the gradients by two halves of a batch shall "
    "point elsewhere than the gradient by the whole (a wrong length alone is no more than another "
    "learning rate).",
    signature="bad_loss(errors) -> loss",
    solution=[split_gradient],
    hints=[
        "The gradient of a mean of terms, one for each example, is the mean of gradients.",
        "So one example's part of the loss has to depend on the others.",
        "The largest error, the standard deviation, a logarithm of a mean, errors that are "
        "normalized over the batch.",
    ],
)
def _check_break_the_average(attempt: Attempt, generator: torch.Generator) -> str:
    loss = _loss_of(attempt)
    batches = [_draw_errors(generator) for _ in range(5)]
    _check_order(loss, batches[0], generator)
    pairs = [split_gradient(loss, errors) for errors in batches]
    if not all(gradient.isfinite().all() for pair in pairs for gradient in pair):
        raise Mistake(
            "The gradient of your loss holds NaN or infinite values.",
            "Look for a root or a logarithm of 0.",
        )
    pairs = [(whole, averaged) for whole, averaged in pairs if whole.norm() > 1e-9]
    if not pairs:
        raise Mistake(
            "The gradient of your loss by the whole batch is 0: there is nothing to compare.",
            "It should depend on the errors, smoothly.",
        )
    if all(same(whole, averaged, tolerance=1e-6) for whole, averaged in pairs):
        raise Mistake(
            "Not broken: the mean of the gradients by the two halves is the gradient by the whole.",
            _TERMS,
        )
    angle, factor = max(_apart(*pair) for pair in pairs)
    if angle < 1 and abs(factor - 1) < 0.01:
        raise Mistake(
            f"Hardly broken: the mean of the gradients points only {angle:.2g}° away.",
            "Let the part that depends on the others weigh more.",
        )
    if angle < 1:
        raise Mistake(
            f"Not broken: the mean of the gradients points the right way, and is {factor:.3g} "
            "times as long. Another learning rate mends that.",
            "A sum in place of a mean does this. " + _TERMS,
        )
    told = "is 0, and that of the whole batch is not. "
    if factor > 0:
        told = (
            f"points {angle:.0f}° away from the gradient by the whole batch, and is {factor:.2f} "
            "times as long. "
        )
    return "Broken: the mean of the two gradients " + told + _SEE


def _draw_errors(generator: torch.Generator) -> Tensor:
    """Of eight examples, those of the second half larger on average, as shares can be."""
    errors = 0.3 + torch.rand(8, generator=generator, dtype=torch.float64)
    errors[4:] = 2.5 * errors[4:] + 0.5
    errors[[0, 1, 4]] *= -1  # both signs in both halves, not equally often
    return errors


def _apart(whole: Tensor, averaged: Tensor) -> tuple[float, float]:
    """The angle between two gradients in degrees, and by which factor the second is longer."""
    factor = (averaged.norm() / whole.norm()).item()
    cosine = torch.cosine_similarity(whole, averaged, dim=0).clamp(-1, 1)
    return math.degrees(cosine.acos().item()), factor


_SEE = (
    "With BatchNorm every example's loss depends on the others of its share, and so does it in "
    "contrastive losses and in means over a number of tokens that differs: there equal shares are "
    "not enough, and what the processes compute has to be gathered before the loss."
)
