"""Exercises of chapter 15: softmax's logarithm, one key more, merging, tiles, D, rescaling."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.attention import (
    attend_part,
    count_traffic,
    counted_attention,
    finish,
    flash_backward,
    merge,
    safe_softmax,
    tiles,
)
from course_lib.exercises.attempt import Attempt, Mistake, same, take_results, take_tensor
from course_lib.exercises.draws import randn
from course_lib.exercises.formula import Case, Wrong, formula, usual
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise
from course_lib.experiments import forget_to_rescale

__all__ = ["average_update", "causal_tiles", "merge_by_lse", "row_term", "safe_log_softmax"]


def _some(share: float, like: Tensor, generator: torch.Generator) -> Tensor:
    """True in about this share of the places."""
    return torch.rand(like.shape, generator=generator) < share


def _lowest(x: Tensor) -> float:
    """Stands for −∞ where it is subtracted: −∞ − (−∞) would be NaN."""
    return torch.finfo(x.dtype).min


def _in_double(reason: str, hint: str) -> Callable[..., tuple[str, str]]:
    """What to say of a case that is in float64, to a reader who may have left it."""

    def about(got: Any, right: Tensor, *inputs: Any) -> tuple[str, str]:
        if isinstance(got, Tensor) and got.dtype != right.dtype:
            return (
                f"For inputs in float64 your result is in {str(got.dtype).removeprefix('torch.')}.",
                "Make new tensors like the input, and write no dtype down by hand.",
            )
        return reason, hint

    return about


# --- Bytes that move -----------------------------------------------------------------------------

_PASSES = (
    "q and o move once. How many blocks of queries are there? For each of them all keys and all "
    "values pass by."
)


def _megabytes(algorithm: str) -> float:
    """What attention of 16,384 tokens moves in float16, with 128 rows or columns in a tile."""
    d = 64
    fast_memory = 128 * (5 * d + 4)
    return 2 * count_traffic(16_384, d, fast_memory, algorithm=algorithm).total / 1e6


prediction(
    "15.predict_bytes",
    task="Predict: one head, N = 16,384 tokens, d = 64, float16. FlashAttention-2 keeps 128 "
    "queries at a time in its fast memory, lets all keys and values pass by, and writes their "
    "output once. How many megabytes (10⁶ bytes) go in and out, to 3 %? With S and P in the slow "
    "memory it is 2,156.",
    solution=[count_traffic, counted_attention],
    hints=[
        "q, k, v and o have N d numbers each, of 2 bytes: 2.1 MB.",
        _PASSES,
        "16,384 / 128 = 128 times k and v, and once q and o: 258 times 2.1 MB.",
    ],
    right=_megabytes("flash2"),
    within=0.03 * _megabytes("flash2"),
    wrong=[
        Slip(
            270.5,
            "Half of it: do you count numbers, not bytes, or the keys without the values?",
            within=6,
        ),
        Slip(8.39, "That is q, k, v and o once: keys and values come 128 times.", within=0.4),
        Slip(1082, "With 4 bytes for a number: float16 has 2.", within=30),
        Slip(
            _megabytes("flash"),
            "That is the first FlashAttention, which takes o, m and l in and out for each block of "
            "keys.",
            within=25,
        ),
        Slip(2156, "That is what it is with S and P in the slow memory.", within=60),
        Slip(
            68_720,
            "Keys and values for each query on its own: 128 queries share one pass.",
            within=1500,
        ),
        Slip(0.541, "Megabytes, not gigabytes.", within=0.02),
        Slip(541e6, "Megabytes, not bytes: 10⁶ bytes are one.", within=2e7),
    ],
    passes=lambda generator: (
        f"{_megabytes('flash2'):.0f} MB: a quarter of what S and P cost, {_megabytes('naive'):,.0f}"
        f" MB. The first FlashAttention, with the keys in the outer loop, moves "
        f"{_megabytes('flash'):.0f}. With a fast memory of twice the size it is half: N² d² / M, "
        "as long as N is large."
    ),
    question="Megabytes are asked for, a number.",
    hint=_PASSES,
    otherwise=lambda got: (
        f"{got:,.4g} MB is too {'much' if got > _megabytes('flash2') else 'little'}.",
        _PASSES,
    ),
)


# --- The softmax's logarithm ---------------------------------------------------------------------


def safe_log_softmax(x: Tensor) -> Tensor:
    """The logarithm of the softmax over the last axis of ``x [..., N]``, whatever its size.

    −∞ stays −∞, also in a row that holds nothing else.
    """
    m = x.amax(-1, keepdim=True).clamp(min=_lowest(x))
    total = torch.exp(x - m).sum(-1, keepdim=True)
    return x - m - torch.log(total.masked_fill(total == 0, 1))


_LOG_OF = "log (exp(x_j − m) / Σ exp(x_k − m)) = x_j − m − log Σ exp(x_k − m), m the row's maximum."


def _draw_logits(generator: torch.Generator) -> list[Case]:
    cases = []
    for shape in ((7,), (6, 6), (4, 3, 5)):
        x = 2 * randn(*shape, generator=generator)
        cases.append(Case((x,)))
    x = 2 * randn(5, 6, generator=generator)
    hidden = _some(0.3, x, generator)
    hidden[:, 0] = False
    hidden[0, 1] = True
    cases.append(Case((x.masked_fill(hidden, -math.inf),), _HIDDEN_LOGITS, gradients=False))
    # Rows that are large, small, and both; in float32 numbers of 10,000 are rounded to 0.001.
    large = torch.tensor([[1e4], [-1e4], [0.0]]) + 3 * randn(3, 6, generator=generator).double()
    large[2] += 1e4 * torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0, 1.0])
    cases.append(Case((large,), _about_large))
    nothing = x.clone()
    nothing[1] = -math.inf
    cases.append(Case((nothing,), _NOTHING, gradients=False))
    return cases


_HIDDEN_LOGITS = (
    "Right for finite numbers, but not where some logits of a row are −∞.",
    "exp(−∞) is 0, which is right, and so is −∞ − m. What else do you do?",
)


def _about_large(got: Any, right: Tensor, x: Tensor) -> tuple[str, str]:
    words = "is another one"
    if isinstance(got, Tensor) and got.shape == right.shape:
        words = "holds NaN" if got.isnan().any() else "is infinite" if got.isinf().any() else words
    return _in_double(
        f"Right for small logits, but with logits of ±10,000 your result {words}.",
        _LOG_OF + " What do you compute that does not stay in range?",
    )(got, right)


_NOTHING = (
    "Right but for a row of nothing but −∞: there −∞ is asked for, too.",
    "−∞ − (−∞) is NaN. Let m be no lower than `torch.finfo(x.dtype).min`, and mind log 0.",
)


def _check_hidden_gradients(attempt: Attempt, generator: torch.Generator) -> str:
    """What −∞ hides must not spoil the gradients of the rest."""
    x = 2 * randn(5, 6, generator=generator)
    hidden = _some(0.3, x, generator)
    hidden[:, 0], hidden[0, 1], hidden[1] = False, True, True
    weights = randn(5, 6, generator=generator)

    def gradient(function: Callable[[Tensor], Tensor]) -> Tensor:
        logits = x.masked_fill(hidden, -math.inf).requires_grad_()
        seen = function(logits).masked_fill(hidden, 0)
        return torch.autograd.grad((weights * seen).sum(), logits)[0]

    if not same(gradient(attempt), gradient(safe_log_softmax), tolerance=1e-3):
        raise Mistake(
            "Your values are right, but not your gradients where logits are −∞: 0 · ∞ is NaN on "
            "the way back, too.",
            "A `torch.where` behind a NaN or a log 0 hides it on the way forward only: put finite "
            "numbers in their place before.",
        )
    return (
        "Your logarithms are finite where the probabilities themselves are 0 in float32, and "
        "gradients reach x. A cross-entropy is minus one of them: never take `log(softmax(x))`."
    )


# fmt: off
_LOG_SOFTMAX_WRONG = [
    Wrong(lambda x: torch.log(torch.exp(x) / torch.exp(x).sum(-1, keepdim=True)),
          "exp of your logits overflows, and what is small becomes 0 before its logarithm is "
          "taken.", _LOG_OF),
    Wrong(lambda x: torch.log(safe_softmax(x)), "Your softmax is safe, its logarithm is not: "
          "exp(−20,000) is 0, and log 0 is −∞.", "Take the logarithm on paper. " + _LOG_OF),
    Wrong(lambda x: torch.log(safe_softmax(x) + 1e-9), "You add a little under the logarithm: what "
          "is far below it is lost.", "Take the logarithm on paper. " + _LOG_OF),
    Wrong(lambda x: x - torch.log(torch.exp(x).sum(-1, keepdim=True)), "log Σ exp(x_k) overflows.",
          _LOG_OF),
    Wrong(lambda x: x - x.amax() - torch.log(torch.exp(x - x.amax()).sum(-1, keepdim=True)),
          "You subtract one maximum for all rows: in a row far below it all exp are 0.",
          "`x.amax(-1, keepdim=True)`."),
    Wrong(lambda x: x - x.amin(-1, keepdim=True)
          - torch.log(torch.exp(x - x.amin(-1, keepdim=True)).sum(-1, keepdim=True)),
          "You subtract the least logit: what is left can still overflow.", "The largest."),
    Wrong(lambda x: x - x.amax(-1, keepdim=True), "The sum's logarithm is missing.", _LOG_OF),
    Wrong(lambda x: x - torch.log(torch.exp(x - x.amax(-1, keepdim=True)).sum(-1, keepdim=True)),
          "You subtract the maximum under exp alone: one m is left over.", _LOG_OF),
    Wrong(lambda x: x - x.amax(-1, keepdim=True)
          - torch.exp(x - x.amax(-1, keepdim=True)).sum(-1, keepdim=True),
          "You subtract the sum, not its logarithm.", _LOG_OF),
    Wrong(lambda x: x - x.amax(-1, keepdim=True)
          + torch.log(torch.exp(x - x.amax(-1, keepdim=True)).sum(-1, keepdim=True)),
          "You add the sum's logarithm: of a quotient it is subtracted.", _LOG_OF),
    Wrong(lambda x: torch.log_softmax(x, 0), "Your softmax runs over the first axis.",
          "Over the last: `dim=-1, keepdim=True`."),
    Wrong(lambda x: x - x.logsumexp(-1), "Your sums, one a row, are subtracted along the rows.",
          "`keepdim=True`."),
    Wrong(lambda x: x - x.flatten().logsumexp(0), "You sum over all rows at once.",
          "Over the last axis alone: `dim=-1, keepdim=True`."),
    Wrong(safe_softmax, "You give the softmax, not its logarithm.", _LOG_OF),
    Wrong(lambda x: -safe_log_softmax(x), "Your result has the wrong sign.",
          "A probability is at most 1: its logarithm is at most 0."),
    Wrong(lambda x: x - x.logsumexp(-1, keepdim=True).clamp(min=_lowest(x)).detach(),
          "You cut the gradient of log Σ exp(x_k) off.",
          "Only m may be cut off: it changes nothing."),
    Wrong(lambda x: torch.log_softmax(x, -1), *_NOTHING),
    usual("bits"),
]
# fmt: on

formula(
    "15.safe_log_softmax",
    task="Write `safe_log_softmax`: the logarithm of the softmax over "
    "the last axis of x, any shape [*, N]. It is finite for logits of ±10,000; −∞ stays −∞, also "
    "in a row of nothing else. Gradients flow. None of them is NaN.",
    signature="safe_log_softmax(x) -> [*, N]",
    solution=[safe_log_softmax, safe_softmax],
    hints=[
        "Don't take a softmax's logarithm: write log(exp(x_j) / Σ exp(x_k)) down and simplify.",
        _LOG_OF,
        "In a row of −∞ m is −∞, too, and −∞ − m is NaN: `m.clamp(min=torch.finfo(x.dtype).min)`. "
        "The sum is 0 there: let its logarithm be 0.",
    ],
    right=safe_log_softmax,
    inputs=_draw_logits,
    axes="[*, N] -> [*, N]",
    gradients=["x"],
    wrong=_LOG_SOFTMAX_WRONG,
    hint=_LOG_OF,
    otherwise=("Your result is not the logarithm of the softmax.", _LOG_OF),
    passes=_check_hidden_gradients,
)


# --- One key more, with the output divided -------------------------------------------------------


def average_update(
    m: Tensor,
    l: Tensor,  # noqa: E741
    average: Tensor,
    s: Tensor,
    v: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """One key more: maximum and sum ``[N, 1]``, and the weighted mean of values ``[N, d]``.

    The new key has the logits ``s [N, 1]`` and the value ``v [d]``, which pulls the mean towards
    itself by its share of the sum.
    """
    larger = torch.maximum(m, s)
    base = larger.clamp(min=_lowest(s))
    p = torch.exp(s - base)
    total = torch.exp(m - base) * l + p
    share = p / total.masked_fill(total == 0, 1)
    return larger, total, average + share * (v - average)


_OLD_SUM = (
    "What was summed is l · average, in units of exp(m). In the new units it is "
    "exp(m − m_new) · l · average; then p v is added, and all divided by the new l."
)


def _updates(
    rule: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]],
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """An answer by its rule for (old sum, old mean, correction, p, v) -> new sum and mean."""

    def answer(m: Tensor, old: Tensor, mean: Tensor, s: Tensor, v: Tensor) -> tuple:
        larger = torch.maximum(m, s)
        base = larger.clamp(min=_lowest(s))
        return larger, *rule(old, mean, torch.exp(m - base), torch.exp(s - base), v)

    return answer


def _divided(sums: Tensor, total: Tensor) -> Tensor:
    return sums / total.masked_fill(total == 0, 1)


_FIRST = (
    "Right, but not for the first key, when m = −∞, l = 0 and the average is 0.",
    "exp(−∞ − m_new) is 0. Do you divide by the old l, or subtract −∞?",
)
_HIDDEN = (
    "Right, but not for a key that may not be seen, s = −∞: nothing must change.",
    "exp(−∞ − m) is 0.",
)
_LARGE = _in_double(
    "Right for small logits, but with logits of ±10,000 your numbers are off.",
    "Only differences to the new maximum may stand under exp.",
)
_EMPTY = (
    "Right, but not for a query that has seen nothing and must not see this key, either: m = −∞, "
    "l = 0 and the average 0 are to stay.",
    "−∞ − (−∞) is NaN, and so is 0 / 0: subtract `m_new.clamp(min=torch.finfo(m.dtype).min)`, and "
    "where l is 0, divide by 1.",
)


def _plain_update(
    m: Tensor, old: Tensor, mean: Tensor, s: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    """The new sum and mean, without care for a query that sees nothing."""
    larger = torch.maximum(m, s)
    total = torch.exp(m - larger) * old + torch.exp(s - larger)
    return total, mean + torch.exp(s - larger) / total * (v - mean)


# fmt: off
_UPDATE_WRONG = [
    Wrong(_updates(lambda z, o, c, p, v: (z + p, _divided(z * o + p * v, z + p))),
          "When the maximum moves, the old sum is not corrected.", _OLD_SUM),
    Wrong(_updates(lambda z, o, c, p, v: (c * (z + p), _divided(c * (z * o + p * v), c * (z + p)))),
          "You correct the new key as well: p is in the new units already.", _OLD_SUM),
    Wrong(_updates(lambda z, o, c, p, v: (z / c + p, _divided(z / c * o + p * v, z / c + p))),
          "Your correction is upside down.", "The old terms shrink: exp(m − m_new) ≤ 1."),
    Wrong(_updates(lambda z, o, c, p, v: (c * z + p, _divided(z * o + p * v, c * z + p))),
          "Your l is corrected, but the old mean's weight is not.", _OLD_SUM),
    Wrong(_updates(lambda z, o, c, p, v: (c * z + p, c * o + p * v)),
          "That is FlashAttention-2's update of the sum o: `average` is divided already.",
          _OLD_SUM),
    Wrong(_updates(lambda z, o, c, p, v: (c * z + p, _divided(c * o + p * v, c * z + p))),
          "You take the mean so far for a sum: multiply by the old l first.", _OLD_SUM),
    Wrong(_updates(lambda z, o, c, p, v: (c * z + p, _divided(o + p * v, c * z + p))),
          "You take the mean so far for a sum, and don't correct it.", _OLD_SUM),
    Wrong(_updates(lambda z, o, c, p, v: (c * z + p, c * z * o + p * v)),
          "You give the sum of values: divide by the new l.", _OLD_SUM),
    Wrong(_updates(lambda z, o, c, p, v: (c * z + p, _divided(c * z * o + p * v, z))),
          "You divide by the old l.", _OLD_SUM),
    Wrong(_updates(lambda z, o, c, p, v: (c * z + p, (o + v) / 2)),
          "You give the new key half of the weight, whatever its logit.", _OLD_SUM),
    Wrong(_updates(lambda z, o, c, p, v: (c * z + p, v + _divided(p, c * z + p) * (o - v))),
          "Your weights are exchanged: p / l is what the new value gets.", _OLD_SUM),
    Wrong(_updates(lambda z, o, c, p, v: (c * z + p, o + _divided(p, c * z + p) * v)),
          "Your weights don't sum to 1: what the new value gets, the old mean loses.", _OLD_SUM),
    Wrong(lambda m, z, o, s, v: (s.expand_as(m).clone(), *average_update(m, z, o, s, v)[1:]),
          "Your m is the new logit, also where it is not the largest.", "`torch.maximum(m, s)`."),
    Wrong(lambda m, z, o, s, v: (m, z + torch.exp(s - m), average_update(m, z, o, s, v)[2]),
          "Your m stays: exp(s − m) overflows as soon as a far larger logit comes.",
          "`torch.maximum(m, s)`, and a correction of what was summed."),
    Wrong(lambda m, z, o, s, v: (torch.maximum(m, s), *_updates(
              lambda z, o, c, p, v: (c * z + p, _divided(c * z * o + p * v, c * z + p)))(
              m, z, o, s, v.flip(0))[1:]),
          "Your value is turned round.", "Coordinate by coordinate: v [d] and average [N, d]."),
    Wrong(lambda m, z, o, s, v: (torch.maximum(m, s), z + torch.exp(s),
                                 o + torch.exp(s) / (z + torch.exp(s)) * (v - o)),
          "Your l is a sum of exp(s) itself: it shall be one of exp(s − m).", _OLD_SUM),
    Wrong(lambda m, z, o, s, v: (torch.maximum(m, s), *_plain_update(m, z, o, s, v)), *_EMPTY),
]
# fmt: on


def _draw_updates(generator: torch.Generator) -> list[Case]:
    def case(n: int, d: int, **words: Any) -> Case:
        m, s = (1.5 * randn(n, 1, generator=generator) for _ in range(2))
        l = 1 + 3 * torch.rand(n, 1, generator=generator)  # noqa: E741
        average, v = randn(n, d, generator=generator), randn(d, generator=generator)
        return Case((m, l, average, s, v), **words)

    def changed(case: Case, fails: Any, **new: Tensor) -> Case:
        names = ("m", "l", "average", "s", "v")
        return Case([new.get(n, x) for n, x in zip(names, case.inputs, strict=True)], fails)

    first, hidden, large, empty = (case(*size) for size in ((5, 3), (5, 3), (6, 3), (4, 2)))
    zero = torch.zeros(5, 1)
    sign = torch.tensor([[1.0], [-1.0], [1.0], [1.0], [-1.0], [-1.0]])
    nothing = torch.tensor([[True], [False], [True], [False]])
    m, l, average, s, _ = empty.inputs  # noqa: E741
    return [
        case(7, 4),
        case(5, 5),
        changed(first, _FIRST, m=zero - math.inf, l=zero, average=torch.zeros(5, 3)),
        changed(hidden, _HIDDEN, s=zero - math.inf),
        changed(
            large,
            _LARGE,
            m=large.inputs[0].double() + 1e4 * sign,
            l=large.inputs[1].double(),
            average=large.inputs[2].double(),
            s=large.inputs[3].double() + 1e4 * sign.roll(1, 0),
            v=large.inputs[4].double(),
        ),
        changed(
            empty,
            _EMPTY,
            m=m.masked_fill(nothing, -math.inf),
            l=l.masked_fill(nothing, 0),
            average=average.masked_fill(nothing, 0),
            s=s.masked_fill(nothing, -math.inf),
        ),
    ]


formula(
    "15.average_update",
    task="Derive, and write `average_update`: FlashAttention's first version keeps the output "
    "divided. N queries have seen some keys: the largest logit m [N, 1], l [N, 1] = Σ exp(s_j − m) "
    "and the weighted mean of values, average [N, d]. Now comes one key more, with the logits s "
    "[N, 1] and the value v [d]. At the start m = −∞, l = 0, average = 0; s = −∞ is a key that is "
    "not seen.",
    signature="average_update(m, l, average, s, v) -> m, l, average",
    solution=[average_update, merge],
    hints=[
        "l · average is what FlashAttention-2 keeps in place of the average.",
        _OLD_SUM,
        "A query that has seen nothing: exp(−∞ − (−∞)) is NaN, and 0 / 0. Subtract "
        "`m_new.clamp(min=torch.finfo(m.dtype).min)`, and where l is 0, divide by 1.",
    ],
    right=average_update,
    inputs=_draw_updates,
    result=["m", "l", "average"],
    axes="[N, 1], [N, 1], [N, d], [N, 1], [d] -> [N, 1], [N, 1], [N, d]",
    wrong=_UPDATE_WRONG,
    hint=_OLD_SUM,
    otherwise={
        "m": ("Your m is not the largest logit so far.", "`torch.maximum(m, s)`."),
        "l": ("Your l is not the sum of exp(s_j − m) with the new m.", _OLD_SUM),
        "average": ("Your average is not the weighted mean of the values.", _OLD_SUM),
    },
    passes="Your average is right after every key, also when nothing was seen or logits are of "
    "±10,000. It costs a division at each step: FlashAttention-2 keeps l · average and divides "
    "once, because an A100 multiplies matrices 16 times as fast as it does anything else.",
)


# --- Two finished outputs ------------------------------------------------------------------------


def merge_by_lse(o_1: Tensor, L_1: Tensor, o_2: Tensor, L_2: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over two sets of keys, from o ``[..., N, d]`` and L ``[..., N]`` of each.

    A set of which a query saw nothing has the log-sum-exp −∞.
    """
    L = torch.logaddexp(L_1, L_2)
    base = L.clamp(min=_lowest(L))
    share_1, share_2 = torch.exp(L_1 - base)[..., None], torch.exp(L_2 - base)[..., None]
    return share_1 * o_1 + share_2 * o_2, L


_SHARES = (
    "exp(L_1) is what the first keys' exp(s_j) sum to: l = exp(L_1) + exp(L_2), and o_1 counts "
    "with exp(L_1) / l."
)


def _shared(
    weights: Callable[[Tensor, Tensor], tuple[Any, Any]],
    L: Callable[[Tensor, Tensor], Tensor] = torch.logaddexp,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """An answer by the weights of the two outputs, as a formula of L_1 and L_2."""

    def answer(o_1: Tensor, L_1: Tensor, o_2: Tensor, L_2: Tensor) -> tuple[Tensor, Tensor]:
        a, b = weights(L_1[..., None], L_2[..., None])
        return a * o_1 + b * o_2, L(L_1, L_2)

    return answer


def _right_shares(L_1: Tensor, L_2: Tensor) -> tuple[Tensor, Tensor]:
    base = torch.logaddexp(L_1, L_2).clamp(min=_lowest(L_1))
    return torch.exp(L_1 - base), torch.exp(L_2 - base)


_LARGE_L = _in_double(
    "Right for small L, but where one is ±10,000 your numbers are off.",
    "Only differences of L may stand under exp, and none above 0.",
)
_ONE_SET = (
    "Right, but not where a query saw nothing of one of the two sets (L = −∞): the other one's "
    "output is to stay.",
    "exp(−∞ − L) is 0. What else do you do with it?",
)
_NO_SET = (
    "Right, but not where a query saw nothing of either: o = 0 and L = −∞ are to stay.",
    "−∞ − (−∞) is NaN: subtract `L.clamp(min=torch.finfo(L.dtype).min)`.",
)


def _plain_shares(L_1: Tensor, L_2: Tensor) -> tuple[Tensor, Tensor]:
    """Without care for a query that saw nothing."""
    L = torch.logaddexp(L_1, L_2)
    return torch.exp(L_1 - L), torch.exp(L_2 - L)


# fmt: off
_MERGE_WRONG = [
    Wrong(_shared(lambda a, b: (0.5, 0.5)), "You give both outputs half of the weight.", _SHARES),
    Wrong(_shared(lambda a, b: (1, 1)), "You add the outputs: each is divided already.", _SHARES),
    Wrong(_shared(lambda a, b: (a / (a + b), b / (a + b))), "Your weights are in proportion to L, "
          "a logarithm.", _SHARES),
    Wrong(_shared(lambda a, b: (a.exp(), b.exp())), "Your weights don't sum to 1: you give "
          "Σ exp(s_j) v_j, which is not divided.", _SHARES),
    Wrong(_shared(lambda a, b: (a.exp() / (a.exp() + b.exp()), b.exp() / (a.exp() + b.exp()))),
          "exp(L) overflows, or is 0 for both.", "Subtract the L of both before exp: "
          "exp(L_1 − L) and exp(L_2 − L)."),
    Wrong(_shared(lambda a, b: (torch.exp(a - torch.maximum(a, b)),
                                torch.exp(b - torch.maximum(a, b)))),
          "Your weights don't sum to 1: you subtract the larger L in place of the L of both.",
          _SHARES),
    Wrong(_shared(lambda a, b: _right_shares(b, a)), "Your weights are exchanged.", _SHARES),
    Wrong(_shared(lambda a, b: ((a > b).float(), (a <= b).float())), "You take the output with the "
          "larger L alone.", _SHARES),
    Wrong(_shared(_right_shares, torch.maximum), "Your L is the larger of both: right only for "
          "maxima.", "A log-sum-exp of two log-sum-exps."),
    Wrong(_shared(_right_shares, lambda a, b: a + b), "You add the log-sum-exps: that is the "
          "logarithm of a product.", "l = exp(L_1) + exp(L_2), and L is its logarithm."),
    Wrong(_shared(_right_shares, lambda a, b: a.exp() + b.exp()), "Your L is l itself.",
          "Take the logarithm."),
    Wrong(_shared(_right_shares, lambda a, b: torch.logaddexp(a, b) - math.log(2)),
          "Your L is that of a mean of the two sums.", "The sums add up."),
    Wrong(_shared(_right_shares, lambda a, b: (a + b) / 2), "You take the mean of the L.",
          "l = exp(L_1) + exp(L_2), and L is its logarithm."),
    Wrong(_shared(_right_shares, lambda a, b: torch.log(a.exp() + b.exp())), "exp(L) overflows in "
          "your L, or is 0 for both.", "`torch.logaddexp`, or subtract the larger L before exp."),
    Wrong(lambda o, a, u, b: (torch.exp(a - torch.logaddexp(a, b)) * o
                              + torch.exp(b - torch.logaddexp(a, b)) * u, torch.logaddexp(a, b)),
          "Your L runs along the coordinates.", "L [*, N] belongs to the queries: `L[..., None]`."),
    Wrong(_shared(_plain_shares), *_NO_SET),
]
# fmt: on


def _draw_merges(generator: torch.Generator) -> list[Case]:
    def case(*shape: int, size: float = 1.5, **words: Any) -> Case:
        o_1, o_2 = (randn(*shape, generator=generator) for _ in range(2))
        L_1, L_2 = (size * randn(*shape[:-1], generator=generator) for _ in range(2))
        return Case((o_1, L_1, o_2, L_2), **words)

    large, one, none = case(6, 3), case(6, 3), case(6, 3)
    o_1, L_1, o_2, L_2 = (x.double() for x in large.inputs)
    base = torch.tensor([1e4, -1e4, 0, 1e4, 0, 1e4])
    other = torch.tensor([1e4, -1e4, 1e4, 0, -1e4, -1e4])
    half = torch.tensor([True, True, False, False, False, False])
    a_1, M_1, a_2, M_2 = one.inputs
    b_1, K_1, b_2, K_2 = none.inputs
    gone, infinite = half[:, None], -math.inf
    return [
        case(5, 5),
        case(7, 4),
        case(2, 3, 4, 4),
        Case((o_1, L_1 + base, o_2, L_2 + other), _LARGE_L),
        Case(
            (
                a_1.masked_fill(gone, 0),
                M_1.masked_fill(half, infinite),
                a_2.masked_fill(gone.flip(0), 0),
                M_2.masked_fill(half.flip(0), infinite),
            ),
            _ONE_SET,
        ),
        Case(
            (
                b_1.masked_fill(gone, 0),
                K_1.masked_fill(half, infinite),
                b_2.masked_fill(gone, 0),
                K_2.masked_fill(half, infinite),
            ),
            _NO_SET,
        ),
    ]


formula(
    "15.merge_by_lse",
    task="Derive, and write `merge_by_lse`: two machines each hold half of the keys and give "
    "finished outputs o [*, N, d] and log-sum-exps L [*, N] = log Σ exp(s_j). What are they for "
    "all keys? Where a query saw nothing, o is 0 and L is −∞.",
    signature="merge_by_lse(o_1, L_1, o_2, L_2) -> o, L",
    solution=[merge_by_lse, merge, finish],
    hints=[
        "o_1 exp(L_1) is Σ exp(s_j) v_j over the first keys. What are numerator and denominator of "
        "all?",
        _SHARES + " Under exp stand differences only: exp(L_1 − L).",
        "`torch.logaddexp`, and L before exp clamped at `torch.finfo(L.dtype).min`.",
    ],
    right=merge_by_lse,
    inputs=_draw_merges,
    result=["o", "L"],
    axes="[*, N, d], [*, N], [*, N, d], [*, N] -> [*, N, d], [*, N]",
    wrong=_MERGE_WRONG,
    hint=_SHARES,
    otherwise={
        "o": ("Your o is not the output over all keys.", _SHARES),
        "L": ("Your L is not the log-sum-exp of all logits.", _SHARES),
    },
    passes="Yours is the output over all keys, also where a query saw none. So m is not needed to "
    "merge: one number a query is enough, the one that the backward pass keeps anyhow. Split-K "
    "decoding and ring attention send it beside o.",
)


# --- Causal tiles, with a window -----------------------------------------------------------------


def causal_tiles(n_q: int, n_k: int, rows: int, columns: int, window: int) -> Tensor:
    """Which tiles of causal attention with a sliding window are skipped (0), masked (1), whole (2).

    Query i sees ``window`` keys, the last of them i + n_k − n_q.
    """
    top, left = torch.arange(0, n_q, rows)[:, None], torch.arange(0, n_k, columns)
    bottom, right = (top + rows).clamp(max=n_q) - 1, (left + columns).clamp(max=n_k) - 1
    newest_of_top, newest_of_bottom = top + n_k - n_q, bottom + n_k - n_q
    some = (left <= newest_of_bottom) & (right > newest_of_top - window)
    whole = (right <= newest_of_top) & (left > newest_of_bottom - window)
    return some.long() + whole.long()


_CORNERS = (
    "A tile is skipped when its corner nearest to the band is outside of it, and whole when the "
    "corner farthest from it is inside. There are two edges: the newest key and the oldest one."
)


def _classes(answer: Any, *_: Any) -> Any:
    """Whole numbers as float32, whether they come as a list or in any dtype."""
    if isinstance(answer, list) and answer and all(isinstance(row, list) for row in answer):
        try:
            answer = torch.tensor([[int(x) for x in row] for row in answer])
        except (TypeError, ValueError):
            return answer
    numbers = isinstance(answer, Tensor) and not answer.is_complex()
    return answer.float() if numbers and answer.layout == torch.strided else answer


def _banded(
    some: Callable[..., Tensor], whole: Callable[..., Tensor], *, shift: int = 1, over: bool = False
) -> Callable[..., Tensor]:
    """An answer by its conditions on the tile's rows a … b, of keys, columns c … e, and window."""

    def answer(n_q: int, n_k: int, rows: int, columns: int, window: int) -> Tensor:
        a, c = torch.arange(0, n_q, rows)[:, None], torch.arange(0, n_k, columns)
        b, e = a + rows - 1, c + columns - 1
        if not over:
            b, e = b.clamp(max=n_q - 1), e.clamp(max=n_k - 1)
        at = shift * (n_k - n_q)
        tile = a + at, b + at, c, e, window
        return some(*tile).long() + (some(*tile) & whole(*tile)).long()

    return answer


def _some_seen(a: Tensor, b: Tensor, c: Tensor, e: Tensor, window: int) -> Tensor:
    return (c <= b) & (e > a - window)


def _all_seen(a: Tensor, b: Tensor, c: Tensor, e: Tensor, window: int) -> Tensor:
    return (e <= a) & (c > b - window)


# fmt: off
_TILES_WRONG = [
    Wrong(_banded(_some_seen, _all_seen, shift=0), "You align at the first key: query i sees key i "
          "last, as in PyTorch's `is_causal`.", "The last query sees the last key: "
          "j ≤ i + n_k − n_q."),
    Wrong(_banded(_some_seen, _all_seen, shift=-1), "Your shift has the wrong sign.",
          "The last query sees the last key: j ≤ i + n_k − n_q."),
    Wrong(_banded(lambda a, b, c, e, w: c <= b, lambda a, b, c, e, w: e <= a),
          "You forget the window: keys that are too old are skipped, too.", _CORNERS),
    Wrong(_banded(_some_seen, lambda a, b, c, e, w: e <= a), "You mind the window only when you "
          "skip: a tile that it cuts needs a mask.", _CORNERS),
    Wrong(_banded(lambda a, b, c, e, w: c <= b, _all_seen), "You mind the window only for the "
          "mask: tiles before it are skipped, too.", _CORNERS),
    Wrong(_banded(lambda a, b, c, e, w: (c <= a) & (e > a - w), _all_seen),
          "You skip by the first query of a tile: the others see newer keys.", _CORNERS),
    Wrong(_banded(lambda a, b, c, e, w: (c <= b) & (e > b - w), _all_seen),
          "You skip by the last query of a tile: the others see older keys.", _CORNERS),
    Wrong(_banded(_some_seen, lambda a, b, c, e, w: (e <= b) & (c > b - w)),
          "Your whole tiles are those that the last query sees.", "All queries must see all keys. "
          + _CORNERS),
    Wrong(_banded(_some_seen, lambda a, b, c, e, w: (e <= a) & (c > a - w)),
          "Your whole tiles are those that the first query sees.", "All queries must see all keys. "
          + _CORNERS),
    Wrong(_banded(_some_seen, lambda a, b, c, e, w: (c <= a) & (c > b - w)),
          "You ask for the first key of a tile only: the last one is newer.", _CORNERS),
    Wrong(_banded(lambda a, b, c, e, w: (c < b) & (e > a - w), lambda a, b, c, e, w: (e < a)
                  & (c > b - w)), "You leave out the newest key: j = i + n_k − n_q is seen.",
          "≤, not <."),
    Wrong(_banded(lambda a, b, c, e, w: (c <= b) & (e >= a - w), lambda a, b, c, e, w: (e <= a)
                  & (c >= b - w)), "Your window has one key too many.",
          "`window` keys, the newest of them j = i', are j > i' − window."),
    Wrong(_banded(lambda a, b, c, e, w: (c <= b) & (e > a - w + 1), lambda a, b, c, e, w: (e <= a)
                  & (c > b - w + 1)), "Your window has one key too few.",
          "`window` keys, the newest of them j = i', are j > i' − window."),
    Wrong(_banded(lambda a, b, c, e, w: (c <= b) & (e > a - w),
                  lambda a, b, c, e, w: torch.zeros_like(c + a, dtype=torch.bool)),
          "You mask every tile that is not skipped.", "Inside the band no mask is needed: that is "
          "where the time goes. " + _CORNERS),
    Wrong(_banded(_some_seen, _all_seen, over=True), "You take the last tiles for full ones: they "
          "end at n_q and n_k.", "`min(top + rows, n_q) − 1` is the last row."),
    Wrong(lambda *sizes: 2 - causal_tiles(*sizes), "You count the other way round.",
          "0 is skipped, 2 is whole."),
    Wrong(lambda *sizes: causal_tiles(*sizes).T, "Your rows are the keys' tiles.",
          "[R, C]: R tiles of queries, C tiles of keys."),
    Wrong(lambda n, m, r, c, w: causal_tiles(n, m, r, c, w)[: n // r, : m // c], "Your last tiles "
          "are missing: where a size does not divide, one smaller tile is left.", "Round up."),
]
# fmt: on


def _draw_tiles(generator: torch.Generator) -> list[tuple]:
    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    cases = []
    for _ in range(8):
        n_q, rows, columns = whole(9, 22), whole(2, 5), whole(2, 5)
        cases.append((n_q, n_q + whole(0, 9), rows, columns, whole(4, 14)))
    # More queries than keys: the first ones see nothing.
    cases.append((whole(14, 18), whole(7, 10), whole(2, 4), whole(2, 4), whole(3, 8)))
    return cases


formula(
    "15.causal_tiles",
    task="Derive, and write `causal_tiles` for causal attention with a sliding window: query i of "
    "n_q sees the `window` keys j of n_k with i' − window < j ≤ i', where i' = i + n_k − n_q. "
    "Tiles have `rows` × `columns`, the last ones fewer. Give a table [R, C]: 0 where nobody "
    "sees anything and the tile is skipped, 2 where everybody sees all, 1 where a mask is needed.",
    signature="causal_tiles(n_q, n_k, rows, columns, window) -> [R, C]",
    solution=[causal_tiles, tiles],
    hints=[
        "Draw the band on squared paper: it has two edges. A tile is a rectangle.",
        _CORNERS,
        "With the first and last row a, b (as newest keys, + n_k − n_q) and the columns c, e: "
        "something is seen where c ≤ b and e > a − window, everything where e ≤ a and "
        "c > b − window.",
    ],
    right=causal_tiles,
    inputs=_draw_tiles,
    result="table",
    axes="_, _, _, _, _ -> [R, C]",
    wrong=_TILES_WRONG,
    take=_classes,
    hint=_CORNERS,
    otherwise=lambda got, right, *sizes: _about_tiles(got, right, *sizes),
    passes=lambda attempt, generator: _praise_tiles(attempt),
)


def _about_tiles(got: Tensor, right: Tensor, *sizes: int) -> tuple[str, str]:
    n_q, n_k, rows, columns, window = sizes
    r, c = (got != right).nonzero()[0].tolist()
    words = ("is not seen by anybody", "is seen in part", "is seen as a whole")
    return (
        f"Tile {r}, {c} of {n_q} queries and {n_k} keys (rows={rows}, columns={columns}, "
        f"window={window}) {words[int(right[r, c])]}, and you give {got[r, c]:g}.",
        _CORNERS,
    )


def _praise_tiles(attempt: Attempt) -> str:
    kinds = _classes(attempt(4096, 4096, 128, 128, 1024))
    skipped, masked, whole = ((kinds == kind).float().mean().item() for kind in (0, 1, 2))
    return (
        f"Your tiles are the right ones. With 4,096 tokens, a window of 1,024 and tiles of 128 × "
        f"128, {skipped:.0%} of them are skipped, {whole:.0%} whole, and {masked:.0%} need a mask."
    )


# --- What is subtracted in a row -----------------------------------------------------------------


def row_term(o: Tensor, do: Tensor, d_lse: Tensor) -> Tensor:
    """D ``[..., N]`` in dS = P ∘ (dP − D), where the loss depends on the log-sum-exps as well.

    Added up in the precision of ``d_lse [..., N]``, also where o and do ``[..., N, d]`` are half.
    """
    return (do.to(d_lse.dtype) * o.to(d_lse.dtype)).sum(-1) - d_lse


_ADDED = (
    "∂L_i / ∂s_ij = P_ij: the loss's dependence on L adds P_ij d_lse_i to dS_ij. Write the sum as "
    "P_ij (dP_ij − D_i)."
)


def _inner(o: Tensor, do: Tensor) -> Tensor:
    return (o.float() * do.float()).sum(-1)


# fmt: off
_ROW_WRONG = [
    Wrong(lambda o, do, g: _inner(o, do), "d_lse is missing: that is D where the loss depends on "
          "the output alone.", _ADDED),
    Wrong(lambda o, do, g: _inner(o, do) + g, "d_lse has the wrong sign: what is added to dS is "
          "subtracted in D.", _ADDED),
    Wrong(lambda o, do, g: g - _inner(o, do), "Your D has the wrong sign: it is subtracted.",
          _ADDED),
    Wrong(lambda o, do, g: -_inner(o, do) - g, "The inner product has the wrong sign.", _ADDED),
    Wrong(lambda o, do, g: _inner(o, do) * g, "You multiply by d_lse.", _ADDED),
    Wrong(lambda o, do, g: _inner(o, do) * (1 - g), "You multiply by 1 − d_lse: it is subtracted "
          "itself.", _ADDED),
    Wrong(lambda o, do, g: _inner(o, do) - g.exp(), "d_lse is taken for a logarithm.",
          "It is the gradient of the loss by L."),
    Wrong(lambda o, do, g: _inner(o, o) - g, "You take o twice.", "do · o."),
    Wrong(lambda o, do, g: _inner(do, do) - g, "You take do twice.", "do · o."),
    Wrong(lambda o, do, g: do.float().sum(-1) - g, "o is missing.", "D_i = Σ_j P_ij dP_ij − …, "
          "and Σ_j P_ij v_j is o_i."),
    Wrong(lambda o, do, g: (o.float() * do.float()).mean(-1) - g, "You take the mean of the "
          "coordinates.", "An inner product is a sum."),
    Wrong(lambda o, do, g: _inner(o, do) / o.shape[-1] ** 0.5 - g, "You divide by √d.",
          "The scale belongs to dq and dk, outside of dS."),
    Wrong(lambda o, do, g: (o.float() * do.float()).sum(-2) - g, "You sum over the queries.",
          "Over the coordinates, the last axis."),
    Wrong(lambda o, do, g: _inner(o, do) - g.sum(-1, keepdim=True), "You subtract all queries' "
          "d_lse.", "Each row has its own."),
    Wrong(lambda o, do, g: _inner(o, do) - g * o.shape[-1], "You subtract d_lse once for each "
          "coordinate.", "Subtract it after the sum."),
    Wrong(lambda o, do, g: (do * o).sum(-1) - g, "You multiply in half precision: products beyond "
          "65,504 are infinite there, and small ones rounded.",
          "`.float()` before the product: accelerators add up in float32, too."),
]
# fmt: on


def _draw_rows(generator: torch.Generator) -> list[Case]:
    cases = []
    for shape in ((5, 5), (7, 4), (2, 3, 4, 4)):
        o, do = (randn(*shape, generator=generator) for _ in range(2))
        cases.append(Case((o, do, randn(*shape[:-1], generator=generator))))
    # Many rows: that rounding before and behind the sum are alike in all of them is no chance.
    o, do = (randn(60, 8, generator=generator).half() for _ in range(2))
    o[0, 0], do[0, 0] = 300, 300  # a product that float16 does not hold
    cases.append(Case((o, do, randn(60, generator=generator)), _HALF))
    return cases


_HALF = (
    "Right in float32, but not for o and do in float16 and d_lse in float32: D is asked for in "
    "float32, and computed so.",
    "`.float()` before the product, and no dtype written down by hand behind it.",
)

formula(
    "15.row_term",
    task="Derive, and write `row_term`: a loss that depends on the output o [*, N, d] and on the "
    "log-sum-exps L [*, N] of the logits S (as one does on what split-K or ring attention merge). "
    "Its gradients are do and d_lse. Which D [*, N] makes dS = P ∘ (dP − D) right, where dP = do "
    "vᵀ? o and do may be float16; give D in float32, as d_lse is.",
    signature="row_term(o, do, d_lse) -> D",
    solution=[row_term, flash_backward],
    hints=[
        "Without d_lse D_i = Σ_j P_ij dP_ij. Why is that do_i · o_i?",
        "L_i = log Σ_j exp(s_ij). What is its derivative by s_ij?",
        _ADDED,
    ],
    right=row_term,
    inputs=_draw_rows,
    result="D",
    axes="[*, N, d], [*, N, d], [*, N] -> [*, N]",
    wrong=_ROW_WRONG,
    hint=_ADDED,
    otherwise=("With your D dS is not the gradient by the logits.", _ADDED),
    passes="With your D dS is the gradient of both. So a kernel whose L is used needs no new "
    "backward pass: whoever calls it subtracts d_lse from D, one number a row.",
)


# --- Without rescaling ---------------------------------------------------------------------------

_ORDER = "exp(s_j − m) is right if the m of that moment is the largest of all. When is it?"


def _take_orders(answer: Any, n: int) -> tuple[Tensor, Tensor]:
    """The two orders as float64."""
    names = ("harmless", "harmful")
    orders = []
    for name, order in zip(names, take_results(names, answer), strict=True):
        whole = isinstance(order, Tensor) and order.dtype in (torch.int32, torch.int64)
        order = order.double() if whole else order
        orders.append(take_tensor(name, order, (n,)).detach().double())
    return orders[0], orders[1]


def _weights(logits: Tensor) -> Tensor:
    """What each key counts with, without rescaling."""
    return forget_to_rescale(logits, torch.eye(len(logits), dtype=logits.dtype))


def _off(logits: Tensor) -> float:
    return (_weights(logits) - torch.softmax(logits, 0)).abs().max().item()


def _too_large(logits: Tensor) -> float:
    """The logarithm of the factor by which the worst weight is too large."""
    return (_weights(logits).log() - torch.log_softmax(logits, 0)).max().item()


def _check_orders(attempt: Attempt, n: int) -> Tensor:
    """The harmful order, where both are as asked for."""
    harmless, harmful = _take_orders(attempt(n), n)
    if harmless.amax() - harmless.amin() < 1:
        raise Mistake(
            "Your logits hardly differ: nothing has to be corrected in any order.",
            "The largest is at least 1 above the smallest.",
        )
    if not same(harmless.sort().values, harmful.sort().values, tolerance=1e-5):
        raise Mistake(
            "Your two answers are not the same numbers: the order alone is to do it.",
            "`harmless.flip(0)`, for example, is another order.",
        )
    first, second = _off(harmless), _too_large(harmful)
    if first > 1e-6:
        if _off(harmful) <= 1e-6:
            raise Mistake("You swap the two: the second order is the harmless one.", _ORDER)
        raise Mistake(
            f"Your first order is not harmless: a weight is wrong by {first:.2g} of {n} keys.",
            _ORDER,
        )
    if second <= math.log(1000):
        raise Mistake(
            f"Your second order does too little: the worst of {n} weights is only "
            f"{math.exp(second):.3g} "
            "times too large.",
            "A term that came before the maximum moved by Δ is too large by exp(Δ): make Δ larger, "
            "or let the largest logit come later.",
        )
    return harmful


@exercise(
    "15.break_the_rescaling",
    task="Break it: `forget_to_rescale` goes key by key, m ← max(m, s), l ← l + exp(s − m), "
    "o ← o + exp(s − m) v, and gives o / l: when m moves, l and o are not corrected. Write "
    "`two_orders`: n finite logits [n], the largest at least 1 above the smallest, for which it is "
    "right all the same, and the same numbers in another order, in which it gives a key more than "
    "1,000 times the weight that is its due. n is 2 or more.",
    signature="two_orders(n) -> harmless, harmful",
    solution=[forget_to_rescale, merge, attend_part],
    hints=[
        "When does m not move?",
        "When the largest logit comes first. And when does it move farthest?",
        "`x = -10.0 * torch.arange(n)` falls from key to key. For n = 2 its difference has to be "
        "above log 2,000.",
    ],
)
def _check_break_the_rescaling(attempt: Attempt, generator: torch.Generator) -> str:
    for n in (3, 2, 8, int(torch.randint(20, 60, (), generator=generator))):
        harmful = _check_orders(attempt, n)
    told = _too_large(harmful)
    words = f"{math.exp(told):,.0f} times" if told < 20 else f"about e^{told:.4g} times"
    return (
        f"Broken: in your second order a key of {n} gets {words} the weight that is its due, in "
        "your first nothing is wrong. So a test with the largest logit in front, or with equal "
        "logits, sees nothing. Of l alone you would hardly notice: it is never more than n times "
        "too large."
    )
