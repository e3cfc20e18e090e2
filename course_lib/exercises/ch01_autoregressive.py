"""Exercises of chapter 01: the chain rule, FVSBN, NADE, MADE, PixelCNN, Bayes' rule.

Every check works with tolerances for which a right answer is refused less than once in 10⁶ times.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.autoregressive import (
    FVSBN,
    NADE,
    log_posterior,
    made_degrees,
    made_masks,
    table_size,
)
from course_lib.autoregressive.base import Autoregressive, BinaryAutoregressive
from course_lib.exercises.attempt import (
    Attempt,
    Mistake,
    check_gradients,
    check_randomness,
    diagnose,
    fresh_seed,
    same,
    take_tensor,
    take_whole_number,
)
from course_lib.exercises.registry import exercise
from course_lib.experiments.dependency import dependencies
from course_lib.experiments.leak import fit_coins, leaky_masks
from course_lib.experiments.operations import OperationCounter
from course_lib.experiments.receptive_field import blind_spot
from course_lib.nn import bernoulli_log_prob, raster_mask

__all__: list[str] = []

Known = list[tuple[Tensor, str, str]]

_BATCH = 7  # not the number of coordinates, so that swapped axes show


def _states(dim: int) -> Tensor:
    """All binary vectors ``[2^dim, dim]``; the first coordinate is the lowest bit of the index."""
    index = torch.arange(2**dim)[:, None]
    return (index // 2 ** torch.arange(dim) % 2).float()


def _randomize(model: BinaryAutoregressive, scale: float, generator: torch.Generator) -> None:
    """Give every parameter a random value of about ``scale``."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


# --- The chain rule as a table -------------------------------------------------------------------


@exercise(
    "01.predict_tables",
    task="Predict: by the chain rule, with one free number p(x_i = 1 | history) for each of 10 "
    "binary pixels and each history of it, how many numbers does a full table need?",
    solution=table_size,
    hints=[
        "Start small: the first pixel has no history. How many numbers describe it?",
        "The second pixel follows a 0 or a 1. The third follows one of 00, 01, 10, 11.",
        "The i-th pixel has 2^(i − 1) histories. Add them up for i = 1 ... 10.",
    ],
)
def _check_predict_tables(attempt: Any, generator: torch.Generator) -> str:
    n = 10
    question = "How many histories does each pixel have, and how many in all?"
    got, right = take_whole_number(attempt, 1, question), table_size(n)
    if got == right:
        return (
            f"1 + 2 + 4 + ... + {2 ** (n - 1)} = {right:,}. For the 64 pixels of a small digit it "
            f"would be {table_size(64):.1e}; logistic regressions need {n * (n + 1) // 2} for 10 "
            "pixels and 2,080 for 64."
        )
    first = "The first pixel has one history, the empty one, and so one number: 2^0 = 1."
    complement = "p(0 | history) = 1 − p(1 | history): one free number for each history."
    grows = "Every pixel before it doubles the number of histories."
    known = {
        2**n: (
            "2^10 entries has the table of the joint distribution; they add up to 1, so that one "
            "of them is not free.",
            "Count the chain rule's numbers: 1 for the first pixel, 2 for the second, ...",
        ),
        n: ("One number for each pixel: these pixels would all be independent.", grows),
        2 * n: ("Two numbers for each pixel: that is too few histories.", grows),
        2 * n - 1: ("These pixels would know only the one before: a Markov chain.", grows),
        n * (n - 1) // 2: (
            "These are the pairs j < i: the weights of logistic regressions, not full tables.",
            grows,
        ),
        n * (n + 1) // 2: (
            "That many weights and biases have logistic regressions on the pixels before; a full "
            "table is far larger.",
            grows,
        ),
        n * n: ("A weight for each pair of pixels is a square matrix, not a full table.", grows),
        2**n - 2: ("One number is missing: that of the first pixel.", first),
        2 ** (n - 1): ("These are the histories of the last pixel alone.", "Add up all pixels."),
        2 ** (n - 1) - 1: (
            "You stop before the last pixel.",
            "The last of 10 pixels has nine before it, and 2^9 histories.",
        ),
        2 ** (n + 1) - 2: ("That is twice as many as are free.", complement),
        2 ** (n + 1) - 1: (
            "Your sum runs from 2^0 to 2^10, over 11 pixels.",
            "The i-th pixel has i − 1 pixels before it: the powers end at 2^9.",
        ),
        n * 2 ** (n - 1): (
            "Only the last pixel has 2^9 histories.",
            "The i-th pixel has 2^(i − 1): count each for itself.",
        ),
        n * 2**n: (
            "You count a whole table of the joint distribution for each pixel.",
            "The i-th pixel has 2^(i − 1) histories, and one number for each.",
        ),
        math.factorial(n): (
            "10! is the number of orders in which you can visit the pixels.",
            "The order is fixed here: count histories.",
        ),
    }
    reason = f"{got:,} is too {'many' if got > right else 'few'}."
    raise Mistake(*known.get(got, (reason, "For 1, 2 and 3 pixels the answer is 1, 3 and 7.")))


# --- FVSBN ---------------------------------------------------------------------------------------


@exercise(
    "01.fvsbn_log_prob",
    task="Write `fvsbn_log_prob`: the log-probability [B], in nats, of x [B, n] where "
    "p(x_i = 1 | x_<i) = σ(b_i + Σ_{j<i} W_ij x_j). Use of W [n, n] only the part below the "
    "diagonal, and survive a logit of 200.",
    signature="fvsbn_log_prob(x, W, b) -> [B]",
    solution=[FVSBN.__init__, FVSBN.logits, bernoulli_log_prob],
    hints=[
        "First the logits a [B, n] of all conditionals, then their log-probabilities, then the sum "
        "over the pixels.",
        "`W.tril(-1)` keeps what is below the diagonal. One matrix product gives all logits; mind "
        "which index of W belongs to the input.",
        "A pixel that is 1 contributes log σ(a), a pixel that is 0 contributes "
        "log(1 − σ(a)) = log σ(−a).",
        "`F.logsigmoid(a)` doesn't underflow, log(σ(a)) does. Both cases in one: "
        "x a − softplus(a).",
    ],
)
def _check_fvsbn_log_prob(attempt: Attempt, generator: torch.Generator) -> str:
    for dim in (5, 3, 1):
        model = FVSBN(dim)
        _randomize(model, 1.0, generator)
        x = _states(dim)[torch.randperm(2**dim, generator=generator)]
        W, b = model.linear.weight.detach(), model.linear.bias.detach()
        got = take_tensor("log-probability", attempt(x, W, b), (len(x),), dtype=x.dtype)
        if not same(got, model.log_prob(x)):
            _diagnose_fvsbn(got.detach(), x, W, b)

        W, b = model.linear.weight, model.linear.bias
        sources = {"b": b} if dim == 1 else {"W": W, "b": b}
        check_gradients(
            "log-probability",
            attempt(x, W, b),
            model.log_prob(x),
            sources,
            "W and b are learned through log p: no `detach`, no `.data`, no `.item()`.",
        )
    _judge_large_logits(attempt, generator)
    return (
        "The probabilities of all 2^5 images are right, and so add up to 1; gradients reach W and "
        "b, and logits in the hundreds do no harm."
    )


def _judge_large_logits(attempt: Attempt, generator: torch.Generator) -> None:
    model, x = FVSBN(5), _states(5)
    _randomize(model, 200.0, generator)
    with torch.no_grad():
        model.linear.bias.copy_(torch.tensor([200.0, -200.0, 300.0, -250.0, 220.0]))
    W, b = model.linear.weight.detach(), model.linear.bias.detach()
    got = attempt(x, W, b)
    if isinstance(got, Tensor) and got.shape == (32,) and same(got, model.log_prob(x)):
        return
    raise Mistake(
        "Your log-probability is right for small logits, and wrong or not finite for logits in the "
        "hundreds: σ(−200) is 0 in float32, and its logarithm is lost.",
        "Never take the logarithm of a sigmoid: `F.logsigmoid(a)`, "
        "`F.binary_cross_entropy_with_logits`, or x a − softplus(a).",
    )


def _diagnose_fvsbn(got: Tensor, x: Tensor, W: Tensor, b: Tensor) -> None:
    logits = x @ W.tril(-1).T + b
    right = bernoulli_log_prob(logits, x)
    below = "Keep what is strictly below the diagonal, j < i: `W.tril(-1)`."

    def with_weights(W: Tensor) -> Tensor:
        return bernoulli_log_prob(x @ W.T + b, x)

    chosen = (x * logits.sigmoid() + (1 - x) * (-logits).sigmoid()).sum(1)
    total = float(got.exp().sum())
    sums = f"Your “probabilities” of all {len(x)} images add up to {total:.3g}, not to 1"
    known = [
        (
            with_weights(W),
            f"{sums}: you use all of W, so pixels see themselves and later ones.",
            below,
        ),
        (
            with_weights(W.tril()),
            f"{sums}: you keep the diagonal, so every pixel sees itself.",
            below,
        ),
        (
            with_weights(W.triu(1)),
            "You use the part above the diagonal: pixels depend on those after them.",
            below,
        ),
        (with_weights(W.triu()), f"{sums}: you use the part above, with the diagonal.", below),
        (
            bernoulli_log_prob(x @ W.tril(-1) + b, x),
            "Your W is transposed: pixel i gets Σ_j W_ji x_j.",
            "Row i of W belongs to output i: `x @ W.T`.",
        ),
        (
            with_weights(W.T.tril(-1)),
            "Your W is transposed before it is masked: pixel i gets W_ji in place of W_ij.",
            "Row i of W belongs to output i: mask first, then `x @ masked.T`.",
        ),
        (bernoulli_log_prob(x @ W + b, x), f"{sums}: W is transposed, and not masked.", below),
        (
            bernoulli_log_prob(logits - b, x),
            "You forget b.",
            "Even a pixel without any history has a logit, b_i.",
        ),
        (with_weights(0 * W), "You ignore W: all pixels are independent.", "Add Σ_{j<i} W_ij x_j."),
        (-right, "Your value is the negative log-probability.", "That is the loss."),
        (
            right.exp(),
            "Your value is the probability, not its logarithm.",
            "Stay in logarithms: the product of 784 probabilities is 0 in float32.",
        ),
        (right / math.log(2), "Your value is in bits.", "Use the natural logarithm."),
        (
            (x * F.logsigmoid(logits)).sum(1),
            "You count only the pixels that are 1.",
            "A pixel that is 0 contributes log(1 − σ(a)).",
        ),
        (
            F.logsigmoid(logits).sum(1),
            "You add up log p(x_i = 1 | x_<i), whatever x_i is.",
            "A pixel that is 0 contributes log(1 − σ(a)).",
        ),
        (
            bernoulli_log_prob(-logits, x),
            "You swap zeros and ones.",
            "σ(a) is the probability of a 1.",
        ),
        (
            right / x.shape[1],
            "You average over the pixels.",
            "The chain rule is a product over pixels: their logarithms are added.",
        ),
        (chosen, "You add up probabilities.", "Take the logarithm of each conditional first."),
        (
            chosen.log(),
            "You take the logarithm of a sum of probabilities.",
            "Take the logarithm of each conditional first, then add them up.",
        ),
        (
            (x * logits).sum(1),
            "You add up logits: the normalization is missing.",
            "log p(x_i | x_<i) = x_i a_i − softplus(a_i).",
        ),
    ]
    if abs(total - 1) < 1e-3:
        otherwise = "Your probabilities add up to 1, but they are not those of W and b."
    else:
        otherwise = f"{sums}."
    diagnose(got, known, (otherwise, "Compute the conditionals of one image by hand, one by one."))


# --- NADE ----------------------------------------------------------------------------------------


def _random_nade(dim: int, hidden: int, generator: torch.Generator) -> NADE:
    model = NADE(dim, hidden)
    _randomize(model, 1.0, generator)
    return model


@exercise(
    "01.nade_logits",
    task="Write `nade_logits`: the logits [B, n] b_i + V_i · σ(c + Σ_{j<i} x_j W_j) of x [B, n], "
    "where W and V are [n, d], b is [n] and c is [d], at a cost of O(n d).",
    signature="nade_logits(x, W, V, b, c) -> [B, n]",
    solution=[NADE.logits, NADE.walk],
    hints=[
        "First write down what pixel 0 gets, then pixel 1. Which part can pixel 1 reuse?",
        "The sum for pixel i + 1 is the sum for pixel i, plus x_i W_i. Start with a = c, the sum "
        "for pixel 0.",
        "In a loop: use a for pixel i first, and only then add x_i W_i to it (`a = a + ...`).",
        "Without a loop: `torch.cumsum` of the terms x_j W_j over the pixels, shifted by one.",
    ],
)
def _check_nade_logits(attempt: Attempt, generator: torch.Generator) -> str:
    for dim, hidden in ((6, 4), (4, 5), (1, 3)):
        model = _random_nade(dim, hidden, generator)
        with torch.no_grad():  # of both signs, so that a ReLU shows
            model.c.abs_()[0] *= -1
        x = torch.randint(2, (_BATCH, dim), generator=generator).float()
        x[0], x[1] = 1, 0  # so that every term counts somewhere
        parameters = [p.detach() for p in (model.W, model.V, model.b, model.c)]
        got = take_tensor("result", attempt(x, *parameters), x.shape, dtype=x.dtype)
        if not same(got, model.logits(x)):
            _diagnose_nade(got.detach(), x, *parameters, attempt)

        names = {"W": model.W, "V": model.V, "b": model.b, "c": model.c}
        if dim == 1:
            del names["W"]  # nobody sees the only pixel
        check_gradients(
            "result",
            attempt(x, model.W, model.V, model.b, model.c),
            model.logits(x),
            names,
            "W, V, b and c are learned through the logits: no `detach`, no `.data`, no NumPy.",
        )
    growth = _judge_cost(attempt, generator)
    return (
        f"Right, autoregressive, and cheap: with 4 times as many pixels you touch {growth:.1f} "
        "times as many numbers. A new sum for every pixel would take nearly 16 times as many."
    )


def _judge_cost(attempt: Attempt, generator: torch.Generator) -> float:
    """How many times the numbers touched grow for 4 times the pixels; O(n d): 4, O(n² d): 16."""
    counts, hidden = [], 64
    for dim in (32, 128):
        model = _random_nade(dim, hidden, generator)
        x = torch.randint(2, (2, dim), generator=generator).float()
        with torch.no_grad(), OperationCounter() as counter:
            attempt(x, model.W, model.V, model.b, model.c)
        counts.append(counter.count)
    growth = counts[1] / counts[0]
    if growth < 8:
        return growth
    reason = (
        f"Your logits are right, but expensive: with 4 times as many pixels you touch {growth:.1f} "
        "times as many numbers. O(n d) has 4, O(n² d) has 16."
    )
    # x and V as matrices: every hidden layer, of one image or of both, times every row of V.
    if counter.products & {(rows, hidden, dim) for rows in (dim, 2 * dim)}:
        raise Mistake(
            reason,
            "You multiply every hidden layer with every row of V, and use n of these n² products: "
            "`(V * h).sum(-1)` computes no others.",
        )
    raise Mistake(
        reason,
        "You add up the terms anew for every pixel (a masked product does so, too). Keep a running "
        "sum: that of pixel i + 1 is that of pixel i, plus x_i W_i. `torch.cumsum` is one.",
    )


def _diagnose_nade(
    got: Tensor, x: Tensor, W: Tensor, V: Tensor, b: Tensor, c: Tensor, attempt: Attempt
) -> None:
    terms = x[:, :, None] * W  # (B, n, d)
    total = terms.cumsum(1)
    before = total - terms
    places = torch.arange(x.shape[1])[:, None]

    def logits(sums: Tensor, act: Callable[[Tensor], Tensor] = torch.sigmoid) -> Tensor:
        return b + (V * act(sums)).sum(2)

    shift = "Use the running sum for pixel i first, and add x_i W_i after that."
    history = "Σ_{j<i} x_j W_j: the pixels before i, all of them, and no others."
    sigmoid = "h_i = σ(c + Σ_{j<i} x_j W_j)."
    last = F.pad(terms[:, :-1], (0, 0, 1, 0))  # (B, n, d), the term of the pixel before alone
    known = [
        (
            logits(c + total),
            "Your sum for pixel i holds pixel i itself: it sees the answer.",
            shift,
        ),
        (
            logits(c + total[:, -1:].expand_as(total)),
            "Your sum runs over all pixels, whichever is to be predicted.",
            history,
        ),
        (
            logits(c + total[:, -1:] - total),
            "Your sum runs over the pixels after i.",
            history,
        ),
        (
            logits(c + total[:, -1:] - before),
            "Your sum runs over pixel i and those after it.",
            history,
        ),
        (logits(c + total[:, -1:] - terms), "Your sum leaves out only pixel i itself.", history),
        (logits(c + before - last), "Your sum stops one pixel too early, at i − 2.", shift),
        (
            logits(c + last),
            "Your sum holds only the pixel just before: nothing is carried on.",
            "Add to the sum, don't replace it: `a = a + ...`.",
        ),
        (logits(c + terms), "Your hidden layer i sees pixel i, and nothing else.", history),
        (logits(before), "You forget c.", sigmoid),
        (
            logits(before + c * (places > 0)),
            "Pixel 0 gets no c.",
            "The running sum starts at c, not at 0.",
        ),
        (
            logits(before + c * (places == 0)),
            "Only pixel 0 gets c.",
            "Start the sum at c; keep it.",
        ),
        (
            logits(before + c * places),
            "c is added with every pixel.",
            "Start the running sum at c, then add nothing but x_i W_i.",
        ),
        (
            logits(before + c * (places + 1)),
            "c is added with every pixel.",
            "Start the running sum at c, then add nothing but x_i W_i.",
        ),
        (
            logits(c + W.cumsum(0)[None] - W + 0 * terms),
            "Your sum adds the rows of W, whatever x is.",
            "A row counts where its pixel is 1: x_j W_j.",
        ),
        (logits(c + before) - b, "You forget b.", "Add b_i to V_i · h_i."),
        (logits(c + before, lambda a: a), "The sigmoid of the hidden layer is missing.", sigmoid),
        (logits(c + before, torch.relu), "You use a ReLU in place of the sigmoid.", sigmoid),
        (logits(c + before, torch.tanh), "You use tanh in place of the sigmoid.", sigmoid),
        (
            b + (c + before).sigmoid().sum(2),
            "You forget V.",
            "The logit is b_i + V_i · h_i, a product with row i of V.",
        ),
        (
            logits(c + before) - b + b.flip(0),
            "Your b comes in reverse order.",
            "b_i belongs to pixel i.",
        ),
        (
            b + (V * (c + before).sigmoid()).mean(2),
            "You average over the hidden units.",
            "V_i · h_i is a sum.",
        ),
        (
            logits(c + before).sigmoid(),
            "Your result is the probabilities, not their logits.",
            "Leave the last sigmoid out: the loss takes logits.",
        ),
        (-logits(c + before), "Your logits have the wrong sign.", "σ(logit) is p(x_i = 1)."),
    ]
    otherwise = (
        "Your logits are not b_i + V_i · σ(c + Σ_{j<i} x_j W_j).",
        "Take n = 2 and compute both logits by hand.",
    )
    if leak := _find_leak(lambda points: attempt(points, W, V, b, c), x):
        otherwise = (leak, shift)
    diagnose(got, known, otherwise)


def _find_leak(function: Callable[[Tensor], Tensor], x: Tensor) -> str:
    """Name an output that depends on its own input or on a later one; empty if there is none."""
    try:
        pattern = dependencies(function, x)
    except (RuntimeError, IndexError):  # not differentiable in x: nothing to tell
        return ""
    leaks = pattern.triu().nonzero().tolist()
    return f"Your logit {leaks[0][0]} depends on pixel {leaks[0][1]}." if leaks else ""


# --- MADE ----------------------------------------------------------------------------------------


def _take_mask(name: str, value: Any, shape: Sequence[int], hint: str) -> Tensor:
    """Require a tensor of zeros and ones of this shape, of any dtype, and return it as floats."""
    if not isinstance(value, Tensor):
        raise Mistake(
            f"Your {name} is of type {type(value).__name__}, not a tensor of shape {list(shape)}.",
            hint,
        )
    if value.shape != torch.Size(shape):
        raise Mistake(
            f"Your {name} has shape {list(value.shape)}; it must have {list(shape)}.", hint
        )
    if not ((value == 0) | (value == 1)).all():
        raise Mistake(
            f"Your {name} holds other numbers than 0 and 1.",
            "A comparison gives True and False; `.float()` makes ones and zeros of them.",
        )
    return value.detach().float()


def _take_masks(value: Any, degrees: Sequence[Tensor]) -> list[Tensor]:
    """Require a list of masks of the shapes that belong to these degrees."""
    widths = [len(d) for d in degrees] + [len(degrees[0])]
    wanted = "one for each hidden layer, and one for the output"
    if not isinstance(value, list | tuple):
        raise Mistake(
            f"Your function returns a {type(value).__name__}, not a list of masks.",
            f"The list has {len(degrees)} masks here: {wanted}.",
        )
    if len(value) != len(degrees):
        raise Mistake(
            f"Your list has {len(value)} masks; it must have {len(degrees)}, {wanted}.",
            "The degrees of the outputs are those of the inputs, `degrees[0]`, once more.",
        )
    masks = []
    for layer, (mask, (n_in, n_out)) in enumerate(zip(value, pairwise(widths), strict=True)):
        hint = (
            "Compare each layer with the one just below it; the outputs with the last hidden one."
        )
        if isinstance(mask, Tensor) and list(mask.shape) == [n_in, n_out] != [n_out, n_in]:
            hint = "It is transposed: rows are the units above, `above[:, None] >= below[None, :]`."
        masks.append(_take_mask(f"mask {layer}", mask, (n_out, n_in), hint))
    return masks


def _flat(masks: Sequence[Tensor]) -> Tensor:
    return torch.cat([mask.flatten() for mask in masks])


def _compare(
    degrees: Sequence[Tensor],
    hidden: Callable[[Tensor, Tensor], Tensor],
    output: Callable[[Tensor, Tensor], Tensor],
    *,
    outputs: Tensor | None = None,
    below_outputs: Tensor | None = None,
) -> list[Tensor]:
    """Masks by two comparisons, ``compare(above [n_out, 1], below [1, n_in])``."""
    outputs = degrees[0] if outputs is None else outputs
    below_outputs = degrees[-1] if below_outputs is None else below_outputs
    masks = [hidden(above[:, None], below[None, :]) for below, above in pairwise(degrees)]
    return [mask.float() for mask in [*masks, output(outputs[:, None], below_outputs[None, :])]]


def _all(above: Tensor, below: Tensor) -> Tensor:
    return (above >= below) | (above < below)


_ROLES = "Input i and output i both have degree `degrees[0][i]`, which need not be i."
_HIDDEN = "A hidden unit of degree m may see all units of degree m or less: ≥."
_OUTPUT = "Output i must not see pixel i: strictly greater."


def _made_mistakes(degrees: Sequence[Tensor]) -> list[tuple[list[Tensor], str, str]]:
    natural = torch.arange(len(degrees[0]))
    ge, gt, le, lt = torch.ge, torch.gt, torch.le, torch.lt
    both = [natural, *degrees[1:]]
    wrong_layer = "Your output layer compares with the degrees of the wrong layer."
    last = "The outputs see the last hidden layer: `degrees[0]` against `degrees[-1]`."
    reverse = "Your inequality points the wrong way: units see degrees above their own."
    return [
        (
            _compare(degrees, gt, ge),
            "You swap > and ≥: > is in the hidden layers, ≥ in the last.",
            "It happens to be autoregressive, but with two hidden layers you lose connections. "
            + _HIDDEN,
        ),
        (
            _compare(degrees, ge, ge),
            "Your last layer lets output i see pixel i: you use ≥ there.",
            _OUTPUT,
        ),
        (_compare(degrees, gt, gt), "Your hidden layers use >, which loses connections.", _HIDDEN),
        (
            _compare(degrees, ge, lambda a, b: a > b + 1),
            "Your output layer loses degrees.",
            _OUTPUT,
        ),
        (_compare(degrees, le, lt), reverse, "Above ≥ below."),
        (_compare(degrees, lt, lt), reverse, "Above ≥ below."),
        (_compare(degrees, ge, lt), reverse, "Outputs: above > below."),
        (_compare(degrees, le, gt), reverse, "Hidden units: above ≥ below."),
        (
            _compare(degrees, ge, gt, below_outputs=degrees[0]),
            wrong_layer,
            last,
        ),
        (_compare(degrees, ge, gt, below_outputs=degrees[1]), wrong_layer, last),
        (
            _compare(degrees, ge, gt, outputs=degrees[1]),
            wrong_layer,
            last,
        ),
        (
            _compare(both, ge, gt),
            "You ignore the degrees of the inputs: your inputs and outputs count 0, 1, 2, ...",
            _ROLES,
        ),
        (
            _compare(degrees, ge, gt, outputs=natural),
            "Your outputs have degrees 0, 1, 2, ... in place of `degrees[0]`.",
            _ROLES,
        ),
        (
            [_compare(both, ge, gt)[0], *made_masks(degrees)[1:]],
            "Your inputs have degrees 0, 1, 2, ... in place of `degrees[0]`.",
            _ROLES,
        ),
        (_compare(degrees, _all, gt), "Your hidden layers see everything.", _HIDDEN),
        (_compare(degrees, ge, _all), "Your output layer sees everything.", _OUTPUT),
        (_compare(degrees, _all, _all), "Your masks hide nothing.", _HIDDEN),
        (
            [mask.T for mask in made_masks(degrees)],
            "Your masks are transposed.",
            "Rows are the units above: `above[:, None] >= below[None, :]`.",
        ),
        ([1 - mask for mask in made_masks(degrees)], "Your masks are inverted.", "1 lets through."),
    ]


def _same_shapes(
    mistakes: list[tuple[list[Tensor], str, str]], right: Sequence[Tensor]
) -> list[tuple[Tensor, str, str]]:
    """Of the mistakes those that no check of shapes would have noticed, flattened."""
    shapes = [mask.shape for mask in right]
    return [(_flat(m), *said) for m, *said in mistakes if [mask.shape for mask in m] == shapes]


def _random_degrees(
    dim: int,
    hidden: Sequence[int],
    mistakes: Callable[[Sequence[Tensor]], Any],
    right: Callable[[Sequence[Tensor]], list[Tensor]],
    generator: torch.Generator,
) -> list[Tensor]:
    """Random degrees for which the right masks and all known mistakes differ from each other."""
    for _ in range(1000):
        order = torch.randperm(dim, generator=generator).tolist()
        degrees = made_degrees(order, hidden, generator=generator)
        known = {}
        for value, reason, _ in _same_shapes(mistakes(degrees), right(degrees)):
            known.setdefault(tuple(value.tolist()), set()).add(reason)
        named_apart = all(len(reasons) == 1 for reasons in known.values())
        if named_apart and tuple(_flat(right(degrees)).tolist()) not in known:
            return degrees
    raise RuntimeError("no degrees tell the right masks from the known mistakes")


@exercise(
    "01.made_masks",
    task="Write `made_masks`: from `degrees`, a list with one integer tensor for the inputs and "
    "one for each hidden layer, the list of masks [n_out, n_in] of zeros and ones, that of the "
    "output layer last.",
    signature="made_masks(degrees) -> masks",
    solution=made_masks,
    hints=[
        "A degree says how far in the order a unit may look. Input i has its place in the order.",
        "A hidden unit may see units of at most its own degree. Output i has the degree of input "
        "i, and may see units of a smaller degree only.",
        "`above[:, None] >= below[None, :]` compares all pairs of two layers; "
        "`itertools.pairwise(degrees)` walks through neighbouring layers.",
        "The last mask compares `degrees[0]` with `degrees[-1]`, by >.",
    ],
)
def _check_made_masks(attempt: Attempt, generator: torch.Generator) -> str:
    for dim, hidden in ((6, [8, 7]), (6, [6, 6])):
        degrees = _random_degrees(dim, hidden, _made_mistakes, made_masks, generator)
        _judge_masks(attempt, degrees)
    for dim, hidden in ((4, [5]), (5, [9, 4, 8]), (2, [1])):
        order = torch.randperm(dim, generator=generator).tolist()
        for first in range(dim):  # each input comes first once: then every hidden unit sees it
            turned = [*order[first:], *order[:first]]
            _judge_masks(attempt, made_degrees(turned, hidden, generator=generator))
    return (
        "Whatever the order, products of your masks lead from input j to output i only if j comes "
        "before i, and no connection is lost that could be kept."
    )


def _judge_masks(attempt: Attempt, degrees: list[Tensor]) -> None:
    masks, right = _take_masks(attempt(degrees), degrees), made_masks(degrees)
    got = _flat(masks)
    if torch.equal(got, _flat(right)):
        return
    pattern = torch.linalg.multi_dot(masks[::-1]) > 0
    leaks = pattern & (degrees[0][:, None] <= degrees[0][None, :])
    if leaks.any():
        i, j = leaks.nonzero()[0].tolist()
        otherwise = (
            f"Output {i}, of degree {int(degrees[0][i])}, is reached by input {j}, of degree "
            f"{int(degrees[0][j])}.",
            "Hidden units: above ≥ below. Outputs: above > below.",
        )
    else:
        layer = next(k for k in range(len(masks)) if not torch.equal(masks[k], right[k]))
        otherwise = (
            f"Your masks are autoregressive, but mask {layer} has {int(masks[layer].sum())} ones "
            f"where {int(right[layer].sum())} are due.",
            "Hidden units: above ≥ below. Outputs: above > below. All that is allowed is let "
            "through.",
        )
    diagnose(got, _same_shapes(_made_mistakes(degrees), right), otherwise)


@exercise(
    "01.break_the_order",
    task="Break the order: write `leaky_masks(degrees)`, like `made_masks`, but with ≥ in place "
    "of > in the last layer, so that outputs see their own inputs.",
    signature="leaky_masks(degrees) -> masks",
    solution=leaky_masks,
    hints=[
        "Start from `made_masks`: one sign changes.",
        "The hidden layers stay as they are: above ≥ below.",
        "The last mask compares `degrees[0][:, None] >= degrees[-1][None, :]`.",
    ],
)
def _check_break_the_order(attempt: Attempt, generator: torch.Generator) -> str:
    for dim, hidden in ((6, [8, 7]), (6, [6, 6])):
        degrees = _random_degrees(dim, hidden, _leaky_mistakes, leaky_masks, generator)
        _judge_leak(attempt, degrees)
    # Hidden units of every degree, the highest included, which made_degrees leaves out: its units
    # would be of no use to an honest MADE. So every output is reached by its own input.
    order, every = torch.randperm(dim, generator=generator), torch.arange(dim)
    masks = _judge_leak(attempt, [order, every.repeat(4)])
    own = (masks[1] @ masks[0]).diagonal()
    p = fit_coins(masks)
    return (
        f"Broken: all {int((own > 0).sum())} outputs now see their own pixel. A small MADE with "
        f"your masks was just fitted to fair coins, all {len(p)} images of {dim} pixels. Each "
        f"should get probability 1/{len(p)}; it claims about {p.mean():.2f} for each, and all "
        f"together add up to {p.sum():.1f} instead of 1. Its loss looks wonderful, and means "
        "nothing: what it calls p(x_i | x_<i) is p(x_i | x_<i, x_i), and to predict x_i it copies "
        "x_i. Only conditionals on the past multiply to a distribution. When it samples, x_i is "
        "not there yet."
    )


def _leaky_mistakes(degrees: Sequence[Tensor]) -> list[tuple[list[Tensor], str, str]]:
    natural = torch.arange(len(degrees[0]))
    ge, gt, le, lt, eq = torch.ge, torch.gt, torch.le, torch.lt, torch.eq
    only = "Change the comparison of the output layer, and nothing else."
    last = "The outputs compare `degrees[0]` with `degrees[-1]`, by ≥."
    return [
        (
            made_masks(degrees),
            "These masks are sound: no output sees its own input.",
            "Use ≥ in place of > in the last layer.",
        ),
        (
            _compare(degrees, gt, ge),
            "You use ≥ in the last layer and > in the hidden ones: that is autoregressive again.",
            "Keep ≥ in the hidden layers.",
        ),
        (_compare(degrees, gt, gt), "You made the hidden layers stricter: nothing leaks.", only),
        (
            _compare(degrees, ge, _all),
            "Your last layer sees everything: outputs see later pixels, too.",
            "Only the own pixel is to leak: ≥ in the last layer.",
        ),
        (_compare(degrees, _all, _all), "Your masks hide nothing.", only),
        (_compare(degrees, _all, gt), "Your hidden layers see everything.", only),
        (_compare(degrees, _all, ge), "Your hidden layers see everything.", only),
        (
            _compare(degrees, ge, eq),
            "Your outputs see hidden units of their own degree only.",
            last,
        ),
        (_compare(degrees, ge, le), "Your outputs see the degrees above theirs.", last),
        (_compare(degrees, ge, lt), "Your outputs see the degrees above theirs.", last),
        (
            _compare([natural, *degrees[1:]], ge, ge),
            "You ignore the degrees of the inputs: your inputs and outputs count 0, 1, 2, ...",
            _ROLES,
        ),
        (
            _compare(degrees, ge, ge, below_outputs=degrees[1]),
            "You compare outputs with the wrong layer.",
            last,
        ),
        (
            _compare(degrees, ge, ge, below_outputs=degrees[0]),
            "You compare outputs with the wrong layer.",
            last,
        ),
        (
            _compare(degrees, ge, lambda a, b: a + 1 >= b),
            "Your outputs see one degree too many.",
            "Only the own pixel is to leak: ≥ in the last layer.",
        ),
    ]


def _judge_leak(attempt: Attempt, degrees: list[Tensor]) -> list[Tensor]:
    masks, right = _take_masks(attempt(degrees), degrees), leaky_masks(degrees)
    got = _flat(masks)
    if torch.equal(got, _flat(right)):
        return masks
    hidden_right = torch.equal(_flat(masks[:-1]), _flat(right[:-1]))
    otherwise = (
        f"Your {'last mask is' if hidden_right else 'hidden masks are'} not the one to expect.",
        "Hidden units: above ≥ below, as before. Outputs: above ≥ below, where it was >.",
    )
    diagnose(got, _same_shapes(_leaky_mistakes(degrees), right), otherwise)
    raise AssertionError  # diagnose always raises


# --- PixelCNN ------------------------------------------------------------------------------------


@exercise(
    "01.raster_mask",
    task='Write `raster_mask`: the mask [k, k] of zeros and ones for a k × k kernel (k odd); "A" '
    'shows the pixels that come before the centre in raster order, "B" the centre as well.',
    signature="raster_mask(kernel_size, mask) -> [k, k]",
    solution=raster_mask,
    hints=[
        "Raster order: row by row from the top, each row from left to right. Draw the 3 × 3 case.",
        "All rows above the centre are ones, in full width. The rows below are zeros.",
        "With c = k // 2: row c has ones in the columns before c, and for mask B in column c, too.",
    ],
)
def _check_raster_mask(attempt: Attempt, generator: torch.Generator) -> str:
    for size in (5, 3, 7):  # in 3 × 3 some mistakes look alike
        for mask in ("A", "B"):
            hint = (
                f"`torch.zeros(kernel_size, kernel_size)` is {size} × {size} zeros to start from."
            )
            got = _take_mask("mask", attempt(size, mask), (size, size), hint)
            right = raster_mask(size, mask)
            if not torch.equal(got, right):
                _diagnose_raster(got, right, size, mask)
    return (
        "For every size your kernel sees the rows above and, in its own row, what is left of it; "
        "B adds the centre."
    )


def _diagnose_raster(got: Tensor, right: Tensor, size: int, mask: str) -> None:
    centre = size // 2
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    above, row, left = rows < centre, rows == centre, columns < centre
    middle = row & (columns == centre)
    shown = middle & (mask == "B")  # the centre, where the mask shows it
    swapped = raster_mask(size, "A" if mask == "B" else "B")
    shows, hides = ("shows", "hides") if mask == "A" else ("hides", "shows")
    about = (
        "Mask A is for the first layer, whose input holds the pixel to predict."
        if mask == "A"
        else "Mask B is for later layers, whose centre has not seen the pixel to predict."
    )
    order = "Raster order goes row by row, and in a row from left to right."
    full = "Every row above the centre comes before it, also right of it."
    no_right = "Of the rows above, your mask shows nothing right of the centre."
    triangle = (
        "Your mask is a triangle, as for a matrix of pixels against pixels.",
        "Rows and columns are here the rows and columns of an image.",
    )
    known = [
        (swapped, f"Your mask {mask} {shows} the centre; mask {mask} {hides} it.", about),
        (right.T, "Your mask goes column by column.", order),
        (swapped.T, "Your mask goes column by column, and A and B are swapped.", order),
        (right.flip(0), "Your mask shows the rows below the centre, not those above.", order),
        (right.flip(1), "Your mask shows what is right of the centre in its row.", order),
        (right.flip(0, 1), "Your mask shows what comes after the centre, not before.", order),
        (1 - right, "Your mask is inverted: it hides what comes before.", "1 lets through."),
        (row & left | shown, "Your mask shows nothing of the rows above.", full),
        (
            (above | row) & left | shown,
            "Of the rows above, your mask shows only what is left of the centre.",
            full,
        ),
        ((above & (columns <= centre)) | (row & left) | shown, no_right, full),
        (
            above | shown,
            "Your mask shows nothing left of the centre in its own row.",
            "Pixels to the left come before it, too.",
        ),
        (above | row, "Your mask shows all of the centre's row.", order),
        ((above | row) & (~middle | shown), "Your mask shows all of the centre's row.", order),
        (
            above | (row & (left | (columns == centre + 1))) | shown,
            "Your mask shows the pixel right of the centre.",
            order,
        ),
        (torch.ones(size, size), "Your mask shows later pixels.", order),
        (~middle | shown, "Your mask shows later pixels.", order),
        (rows > columns if mask == "A" else rows >= columns, *triangle),
        (rows < columns if mask == "A" else rows <= columns, *triangle),
        (rows >= columns, *triangle),
        (rows <= columns, *triangle),
        (torch.zeros(size, size), "Your mask hides everything.", "Show the rows above the centre."),
    ]
    known = [(value.float(), reason, hint) for value, reason, hint in known]
    i, j = (got != right).nonzero()[0].tolist()
    where = f"at row {i}, column {j} of the {size} × {size} kernel, where the centre is at {centre}"
    otherwise = (
        f"Your mask {mask} has a {int(got[i, j])} {where}, {centre}.",
        "Does that pixel come before the centre? " + order,
    )
    diagnose(got, known, otherwise)


@exercise(
    "01.blind_spot",
    task="Predict: a naive PixelCNN with 3 × 3 kernels (mask A, then B) and as many layers as you "
    "like predicts the middle pixel of a 7 × 7 image (row 3, column 3, counted from 0). How many "
    "of the 24 pixels before it does it never see?",
    solution=blind_spot,
    hints=[
        "One layer sees three pixels in the row above, and the one to the left. Draw them.",
        "Each of these has seen, one layer below, three in the row above it and one to its left: "
        "walk on. How far to the right can you get when you go up by one row?",
        "One row up you reach column 4, two rows up column 5, three rows up column 6. To the left "
        "nothing stops you.",
    ],
)
def _check_blind_spot(attempt: Any, generator: torch.Generator) -> str:
    got = take_whole_number(attempt, 0, "How many of the 24 pixels are never seen?")
    by_layers = {layers: int(blind_spot(layers=layers).sum()) for layers in range(1, 9)}
    before, right = 24, by_layers[8]
    if got == right:
        unseen = [tuple(place) for place in blind_spot().nonzero().tolist()]
        where = ", ".join(f"({row}, {column})" for row, column in unseen)
        return (
            f"However deep, the network never sees {where} (row, column), read off its Jacobian: "
            "one row up it gets only one column to the right. In a larger image the blind spot "
            "takes about a quarter of the pixels before."
        )
    cone = "Walk: each step goes up by one row and sideways by at most one column, or left by one."
    known = {
        0: (
            "That would be a network without a blind spot. One row up it reaches only one column "
            "to the right.",
            "Can it get from (3, 3) to (2, 6)? It may go up only once, and to the right never.",
        ),
        before - right: (f"That many it does see: {got} of 24.", "Count the others."),
        before: ("It sees some: its first layer alone shows 4 pixels.", cone),
        2: (
            "Row 2 has 2 that are never seen, but row 1 has some, too.",
            "Three rows are above the pixel: count each.",
        ),
        6: (
            "Both sides are not alike: either you cut off the left, or row 2 reaches no column to "
            "the right.",
            "To the left a step within the row is allowed, so nothing there is lost. One row up, "
            "column 4 is in sight.",
        ),
        9: (
            "You count all 9 pixels above and to the right: some of them are seen.",
            "The 3 × 3 kernel shows also the pixel above and one to the right.",
        ),
        1: ("There are more than one: row 2 alone has 2.", cone),
        49 - (before - right): (
            "You count pixels that come later, and the pixel itself.",
            "These are hidden on purpose. Count among the 24 before it.",
        ),
        49 - 4: ("One layer sees 4 of 49, but many layers see more.", cone),
        4: ("That many one layer sees.", "Many layers see more. Count what none of them sees."),
    }
    known |= {
        count: (
            f"With {layers} {'layer' if layers == 1 else 'layers'} that is so, but deeper networks "
            "see more.",
            cone,
        )
        for layers, count in by_layers.items()
        if count != right
    }
    if got > before:
        known.setdefault(got, ("There are only 24 pixels before it.", "Count among these."))
    reason = f"{got} is too {'many' if got > right else 'few'}."
    raise Mistake(*known.get(got, (reason, cone)))


# --- Sampling ------------------------------------------------------------------------------------


class _Conditionals:
    """The conditionals of a random model; says so when it is given something else than x."""

    def __init__(self, model: BinaryAutoregressive):
        self.model = model
        self.written: list[Tensor] = []  # for each call: which columns hold a one somewhere

    def __call__(self, x: Any) -> Tensor:
        dim = self.model.dim
        if not isinstance(x, Tensor):
            raise Mistake(
                f"You call conditionals with a {type(x).__name__}.",
                "Give it x, a tensor [B, dim]: what is drawn so far.",
            )
        if x.ndim != 2 or x.shape[1] != dim:
            raise Mistake(
                f"You call conditionals on a tensor of shape {list(x.shape)}; it takes [B, {dim}].",
                "Give it all of x, also the pixels that are not drawn yet: their values don't "
                "matter.",
            )
        if x.dtype != torch.float32:
            raise Mistake(
                f"You call conditionals on dtype {str(x.dtype).removeprefix('torch.')}; it takes "
                "float32.",
                "`torch.zeros(n, dim)` is float32; `(u < p).float()` makes numbers of True, False.",
            )
        if not x.isfinite().all():
            raise Mistake(
                "You call conditionals on an x that holds NaN or infinity.",
                "Start from `torch.zeros(n, dim)`.",
            )
        if len(self.written) < 100:
            self.written.append((x.detach() != 0).any(0))
        with torch.no_grad():
            return self.model.logits(x).sigmoid()


# Of the models' distributions: far enough from each other for 4000 draws to tell them apart.
_DRAWS, _SAMPLE_DIM, _APART = 4000, 4, 0.13


@exercise(
    "01.sample",
    task="Write `sample`: draw x [n, dim], zeros and ones as floats, pixel after pixel in the "
    "order 0 ... dim − 1; `conditionals(x)` [n, dim] gives p(x_i = 1 | x_<i), and all randomness "
    "comes from `generator`.",
    signature="sample(conditionals, n, dim, generator) -> x",
    solution=[BinaryAutoregressive.sample, BinaryAutoregressive.walk, Autoregressive.fill],
    hints=[
        "Start from zeros [n, dim]. Which pixel can you draw without knowing any other?",
        "In a loop over i: ask for `conditionals(x)` anew, use column i, write x[:, i].",
        "A uniform number u lies below p with probability p: "
        "`(torch.rand(n, generator=generator) < p).float()`, one u for each of the n rows.",
    ],
)
def _check_sample(attempt: Attempt, generator: torch.Generator) -> str:
    model, p, known = _random_sampler(generator)
    conditionals = _Conditionals(model)

    def draw(fresh: torch.Generator, n: int = 50) -> Tensor:
        return take_tensor(
            "x", attempt(conditionals, n, _SAMPLE_DIM, fresh), (n, _SAMPLE_DIM), dtype=torch.float32
        )

    x = draw(torch.Generator().manual_seed(fresh_seed(generator)), _DRAWS).detach()
    calls = list(conditionals.written)
    if not ((x == 0) | (x == 1)).all():
        raise Mistake(
            "Your x holds other numbers than 0 and 1.",
            "A probability is not a draw: compare it with a uniform number.",
        )
    if (x == x[0]).all():
        _diagnose_constant(x[0], conditionals, draw, generator)
    index = (x.long() * 2 ** torch.arange(_SAMPLE_DIM)).sum(1)
    counts = torch.bincount(index, minlength=len(p)).double()
    # χ² with 15 degrees of freedom and no expected count below 24. The Gaussian limit is above 75
    # once in 10^9; the tails of such counts are heavier, but far from 10^−6.
    chi2 = float(((counts - _DRAWS * p) ** 2 / (_DRAWS * p)).sum())
    if chi2 > 75:
        _diagnose_sample(counts / _DRAWS, known, calls, chi2)
    check_randomness(
        draw,
        generator,
        "`torch.rand(n, generator=generator)` or `torch.bernoulli(p, generator=generator)`: "
        "without it PyTorch's global generator is used, which anybody may have moved on, and "
        "nobody can repeat your draws.",
    )
    return (
        f"The frequencies of all {len(p)} states among {_DRAWS:,} draws fit their exact "
        f"probabilities (χ² = {chi2:.0f}, and 15 is to be expected), and the generator alone "
        "decides."
    )


def _random_sampler(
    generator: torch.Generator,
) -> tuple[BinaryAutoregressive, Tensor, dict[str, Tensor]]:
    """A random model, its probabilities of all states, and those that known mistakes give."""
    states = _states(_SAMPLE_DIM)
    for _ in range(1000):
        # Strong weights of either sign, and biases that keep every logit near 0 on average.
        model = FVSBN(_SAMPLE_DIM)
        W, b = model.linear.weight, model.linear.bias
        with torch.no_grad():
            W.copy_(_either_sign(1.0, 1.8, W.shape, generator))
            b.copy_(_either_sign(0.2, 0.6, b.shape, generator) - W.tril(-1).sum(1) / 2)
            p = model.log_prob(states).double().exp()
            if p.min() < 0.006 or p.max() > 0.5:
                continue
            known = _sample_mistakes(model, states)
        values = torch.stack([p, *known.values()])
        distance = (values[:, None] - values[None]).abs().sum(2) / 2 + torch.eye(len(values))
        if distance.min() > _APART:
            return model, p, known
    raise RuntimeError("no model tells the right draws from the known mistakes")


def _either_sign(
    low: float, high: float, shape: Sequence[int], generator: torch.Generator
) -> Tensor:
    """Numbers of size ``low`` to ``high`` and random sign."""
    sign = 2 * torch.randint(2, shape, generator=generator) - 1
    return sign * (low + (high - low) * torch.rand(shape, generator=generator))


def _sample_mistakes(model: BinaryAutoregressive, states: Tensor) -> dict[str, Tensor]:
    """The distribution ``[2^dim]`` of what people draw instead."""
    dim, given = states.shape[1], model.conditionals(states).double()  # (S, dim)
    x = states.double()

    def product(q: Tensor) -> Tensor:
        """∏_i q_i^{x_i} (1 − q_i)^{1 − x_i}."""
        return (x * q + (1 - x) * (1 - q)).prod(-1)

    def at(y: Tensor) -> Tensor:
        return model.conditionals(y).double()

    moves = product(given[:, None, :].expand(-1, len(states), -1))  # (S from, S to)
    start = torch.zeros(len(states), dtype=torch.float64)
    start[0] = 1
    late = torch.stack([at(states * (torch.arange(dim) < i - 1))[:, i] for i in range(dim)], 1)
    first, last = torch.eye(dim)[0], torch.eye(dim)[-1]
    # One u for all pixels of a row: for each u the state is certain.
    u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    drawn = torch.zeros(len(u), dim)
    for i in range(dim):
        drawn[:, i] = (u < at(drawn)[:, i]).float()
    index = (drawn.long() * 2 ** torch.arange(dim)).sum(1)
    return {
        "zeros": product(at(torch.zeros(1, dim))),
        "ones": product(at(torch.ones(1, dim))),
        "flipped": product(1 - given),
        "redrawn": start @ torch.linalg.matrix_power(moves, dim),
        "late": product(late),
        "no first": product(given * (1 - first)),
        "no last": product(given * (1 - last)),
        "one u": torch.bincount(index, minlength=len(states)).double() / len(u),
    }


def _diagnose_constant(
    row: Tensor, conditionals: _Conditionals, draw: Any, generator: torch.Generator
) -> None:
    greedy = torch.zeros(1, len(row))
    for i in range(len(row)):
        greedy[0, i] = (conditionals(greedy)[0, i] > 0.5).float()
    # One number for all rows differs from call to call.
    seeds = [fresh_seed(generator) for _ in range(40)]
    again = [draw(torch.Generator().manual_seed(seed), 2)[0] for seed in seeds]
    if all(torch.equal(other, row) for other in again):
        if torch.equal(row, greedy[0]):
            raise Mistake(
                "You take the more probable value of every pixel: nothing is drawn, and all your "
                "images are the same one.",
                "A pixel is 1 with probability p, not whenever p > ½: compare p with a uniform "
                "number.",
            )
        raise Mistake(
            f"All {_DRAWS:,} rows are the same, for every generator.",
            "Draw `torch.rand(n, generator=generator)` for every pixel.",
        )
    raise Mistake(
        f"All {_DRAWS:,} rows are the same: one random number decides for all of them.",
        "Draw one number for each row: `torch.rand(n, generator=generator)`, not `torch.rand(1)`.",
    )


def _diagnose_sample(
    frequencies: Tensor, known: dict[str, Tensor], calls: list[Tensor], chi2: float
) -> None:
    far = f"(χ² of {_DRAWS:,} draws: {chi2:.0f}; a right answer has about 15)"
    loop = "In a loop over i: call `conditionals(x)`, draw column i, write it to x[:, i]; repeat."
    zeros = "Every pixel is drawn as if all pixels before it were 0"
    if len(calls) == 1:
        zeros += ": you call conditionals only once, before anything is drawn"
    elif not any(written.any() for written in calls):
        zeros += ": x is still empty whenever you call conditionals"
    elif calls[-1][-1] and not calls[-1][0]:
        zeros += ": you begin with the last pixel"
    messages = {
        "zeros": (f"{zeros} {far}.", loop),
        "ones": (f"Every pixel is drawn as if all pixels before it were 1 {far}.", loop),
        "flipped": (
            f"You draw a 1 with probability 1 − p {far}.",
            "A uniform u lies below p with probability p: `u < p`.",
        ),
        "redrawn": (
            f"You draw all pixels anew in every step, also those that others follow from {far}.",
            "In step i write column i only: what is drawn stays.",
        ),
        "late": (
            f"Your conditionals lag behind: pixel i is drawn before pixel i − 1 counts {far}.",
            "Call `conditionals(x)` after pixel i − 1 is written, right before you draw pixel i.",
        ),
        "no first": ("Your pixel 0 is never 1.", "The loop starts at pixel 0, by p(x_0 = 1)."),
        "no last": ("Your last pixel is never 1.", "The loop runs over all of 0 ... dim − 1."),
        "one u": (
            f"One random number decides for all pixels of a row {far}.",
            "Draw new numbers in every step of the loop.",
        ),
    }
    distances = {name: float((frequencies - q).abs().sum() / 2) for name, q in known.items()}
    nearest = min(distances, key=distances.get)
    # 4000 draws are within 0.06 of what they are drawn from.
    if distances[nearest] < 0.06:
        raise Mistake(*messages[nearest])
    raise Mistake(f"Your draws don't follow p(x) {far}.", loop)


# --- Bayes' rule ---------------------------------------------------------------------------------


@exercise(
    "01.bayes_classifier",
    task="Write `log_posterior`: from log p(x|y) [B, K] and log p(y) [K], in nats, to log p(y|x) "
    "[B, K]. Log-likelihoods of images are numbers such as −700.",
    signature="log_posterior(log_likelihood, log_prior) -> [B, K]",
    solution=log_posterior,
    hints=[
        "Bayes' rule: p(y|x) = p(x|y) p(y) / p(x). What is its logarithm?",
        "p(x) = Σ_y p(x|y) p(y): a sum of exponentials, one number for each row.",
        "exp(−700) is 0 in float32. `torch.logsumexp` subtracts the largest logarithm first.",
    ],
)
def _check_bayes_classifier(attempt: Attempt, generator: torch.Generator) -> str:
    classes = 5
    log_prior = torch.randn(classes, generator=generator).mul(1.5).log_softmax(0)
    log_likelihood = -3 * torch.rand(_BATCH, classes, generator=generator)
    got = attempt(log_likelihood, log_prior)
    got = take_tensor("result", got, log_likelihood.shape, dtype=log_prior.dtype).detach()
    if not same(got, log_posterior(log_likelihood.double(), log_prior.double())):
        _diagnose_posterior(got, log_likelihood, log_prior)

    for low, high, spread in ((-700, -50, 8.0), (-3000, -1000, 8.0), (-700, -50, 200.0)):
        level = low + spread + (high - low - spread) * torch.rand(_BATCH, 1, generator=generator)
        level[0], level[1] = low + spread, high
        log_likelihood = level - spread * torch.rand(_BATCH, classes, generator=generator)
        got = attempt(log_likelihood, log_prior)
        right = log_posterior(log_likelihood.double(), log_prior.double())
        if isinstance(got, Tensor) and same(got, right, tolerance=3e-3):
            continue
        bad = isinstance(got, Tensor) and not got.isfinite().all()
        raise Mistake(
            "Right for log-likelihoods near 0, but where they are "
            f"{log_likelihood.min():.0f} ... {log_likelihood.max():.0f} your result "
            f"{'is not finite' if bad else 'is off'}: their exponentials are 0 in float32.",
            "Subtract the largest number of each row before you take exponentials: "
            "`torch.logsumexp` and `log_softmax` do.",
        )
    return (
        "In every row the probabilities add up to 1, and ratios are those of likelihood times "
        "prior, also where p(x|y) is far too small for float32."
    )


def _diagnose_posterior(got: Tensor, log_likelihood: Tensor, log_prior: Tensor) -> None:
    joint = log_likelihood + log_prior
    right = joint.log_softmax(1)
    evidence = "Subtract log p(x) = log Σ_y p(x|y) p(y), one number for each row."
    prior = "Add log p(y): a rare class needs stronger evidence."
    known = [
        (joint, "Your result is log p(x, y): the rows are not normalized.", evidence),
        (log_likelihood, "Your result is the log-likelihood itself.", prior + " " + evidence),
        (log_likelihood.log_softmax(1), "You forget the prior.", prior),
        (
            log_likelihood.log_softmax(1) + log_prior,
            "Your log p(x) has no prior in it.",
            evidence,
        ),
        (
            (joint + log_prior).log_softmax(1),
            "The prior counts twice.",
            "Add log p(y) once, before you normalize.",
        ),
        (right + log_prior, "The prior counts twice.", "Add log p(y) once, before normalizing."),
        (
            (log_likelihood - log_prior).log_softmax(1),
            "Your prior has the wrong sign.",
            "Bayes' rule multiplies with p(y): add its logarithm.",
        ),
        (
            (log_likelihood + log_prior.exp()).log_softmax(1),
            "You add the prior itself, not its logarithm.",
            "`log_prior` is a logarithm already: add it as it is.",
        ),
        (
            (log_likelihood * log_prior).log_softmax(1),
            "You multiply logarithms.",
            "Probabilities are multiplied, their logarithms are added.",
        ),
        (
            joint.log_softmax(0),
            "You normalize over the batch.",
            "For one image the probabilities of all classes add up to 1: sum over axis 1.",
        ),
        (
            joint - joint.logsumexp((0, 1)),
            "You normalize over batch and classes together.",
            "Every image has a log p(x) of its own: `dim=1, keepdim=True`.",
        ),
        (right.exp(), "Your result is probabilities, not their logarithms.", "Stay in logarithms."),
        (-right, "Your result has the wrong sign.", "The logarithm of a probability is ≤ 0."),
        (right / math.log(2), "Your result is in bits.", "Use the natural logarithm."),
        (
            joint - joint.amax(1, keepdim=True),
            "You subtract the largest joint, not log p(x).",
            evidence,
        ),
        (joint - joint.sum(1, keepdim=True), "You subtract a sum of logarithms.", evidence),
        (joint - joint.mean(1, keepdim=True), "You subtract a mean of logarithms.", evidence),
        (
            joint + joint.logsumexp(1, keepdim=True),
            "You add log p(x).",
            "Bayes' rule divides by p(x): subtract.",
        ),
        (
            joint - joint.exp().sum(1, keepdim=True),
            "You subtract p(x) itself, not its logarithm.",
            evidence,
        ),
        (
            joint / joint.sum(1, keepdim=True),
            "You divide logarithms.",
            "Division of probabilities is subtraction of logarithms.",
        ),
    ]
    totals = got.exp().sum(1)
    if same(totals, torch.ones_like(totals), tolerance=1e-3):
        otherwise = "Your rows are normalized, but ratios are not those of likelihood times prior."
    else:
        otherwise = f"The probabilities of your row 0 add up to {totals[0]:.3g}, not to 1."
    diagnose(got, known, (otherwise, "log p(y|x) = log p(x|y) + log p(y) − log p(x)."))
