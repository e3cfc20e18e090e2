"""Exercises of chapter 01: histories, sampling, MADE's order, PixelCNN, Bayes, completion."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from course_lib.autoregressive import (
    FVSBN,
    completion_log_prob,
    log_posterior,
    made_degrees,
    made_masks,
    table_size,
)
from course_lib.autoregressive.base import Autoregressive, BinaryAutoregressive
from course_lib.exercises.attempt import (
    Attempt,
    Mistake,
    check_randomness,
    fresh_seed,
    same,
    take_tensor,
)
from course_lib.exercises.formula import BATCH, Case, Wrong, formula, usual
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise
from course_lib.experiments.leak import fit_coins, leaky_masks
from course_lib.experiments.receptive_field import blind_spot

__all__: list[str] = []


def _states(dim: int) -> Tensor:
    """All binary vectors ``[2^dim, dim]``; the first coordinate is the lowest bit of the index."""
    index = torch.arange(2**dim)[:, None]
    return (index // 2 ** torch.arange(dim) % 2).float()


# --- The chain rule as a table -------------------------------------------------------------------


_GROWS = "Every pixel before it doubles the number of histories."
_FREE = "p(0 | history) = 1 − p(1 | history): one free number for each history."
_EACH = "The i-th pixel has 2^(i − 1) histories: count each for itself."
_N = 10
# fmt: off
_TABLES_WRONG = [
    Slip(2**_N, "2^10 entries has the table of the joint distribution; they add up to 1, so that "
         "one of them is not free.", "Count the chain rule's numbers: 1 for the first pixel, 2 for "
         "the second, ..."),
    Slip(_N, "One number for each pixel: these pixels would all be independent.", _GROWS),
    Slip(2 * _N, "Two numbers for each pixel: that is too few histories.", _GROWS),
    Slip(2 * _N - 1, "These pixels would know only the one before: a Markov chain.", _GROWS),
    Slip(_N * (_N - 1) // 2, "These are the pairs j < i: the weights of logistic regressions, not "
         "full tables.", _GROWS),
    Slip(_N * (_N + 1) // 2, "That many weights and biases have logistic regressions on the pixels "
         "before; a full table is far larger.", _GROWS),
    Slip(_N * _N, "A weight for each pair of pixels is a square matrix, not a full table.", _GROWS),
    Slip(2**_N - 2, "One number is missing: that of the first pixel.",
         "The first pixel has one history, the empty one, and so one number: 2^0 = 1."),
    Slip(2**(_N - 1), "These are the histories of the last pixel alone.", "Add up all pixels."),
    Slip(2**(_N - 1) - 1, "You stop before the last pixel.",
         "The last of 10 pixels has nine before it, and 2^9 histories."),
    Slip(2**(_N + 1) - 2, "That is twice as many as are free.", _FREE),
    Slip(2**(_N + 1) - 1, "Your sum runs from 2^0 to 2^10, over 11 pixels.",
         "The i-th pixel has i − 1 pixels before it: the powers end at 2^9."),
    Slip(_N * 2**(_N - 1), "Only the last pixel has 2^9 histories.", _EACH),
    Slip(_N * 2**_N, "You count a whole table of the joint distribution for each pixel.", _EACH),
    Slip(math.factorial(_N), "10! is the number of orders in which you can visit the pixels.",
         "The order is fixed here: count histories."),
]
# fmt: on

prediction(
    "01.predict_tables",
    task="Predict: by the chain rule, with one free number p(x_i = 1 | history) for each of 10 "
    "binary pixels and each history of it, how many numbers does a full table need?",
    solution=table_size,
    hints=[
        "Start small: the first pixel has no history. How many numbers describe it?",
        "The second pixel follows a 0 or a 1. The third follows one of 00, 01, 10, 11.",
        "The i-th pixel has 2^(i − 1) histories. Add them up for i = 1 ... 10.",
    ],
    right=table_size(_N),
    wrong=_TABLES_WRONG,
    passes=f"1 + 2 + 4 + ... + 512 = {table_size(_N):,}. For the 64 pixels of a small digit it "
    f"would be {table_size(64):.1e}; logistic regressions need 55 for 10 pixels and 2,080 for 64.",
    question="How many histories does each pixel have, and how many in all?",
    low=1,
    whole=True,
    hint="For 1, 2 and 3 pixels the answer is 1, 3 and 7.",
)


# --- MADE ----------------------------------------------------------------------------------------


def _take_mask(name: str, value: Any, shape: Sequence[int], hint: str) -> Tensor:
    """Require a tensor of zeros and ones of this shape, of any dtype, and return it as floats."""
    if isinstance(value, Tensor) and list(value.shape) == list(shape):
        if not ((value == 0) | (value == 1)).all():
            raise Mistake(
                f"Your {name} holds other numbers than 0 and 1.",
                "A comparison gives True and False; `.float()` makes ones and zeros of them.",
            )
        return value.detach().float()
    return take_tensor(name, value, shape, about_shape=hint)


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
    return torch.cat([mask.flatten().float() for mask in masks])


def _take_flat(value: Any, degrees: Sequence[Tensor]) -> Tensor:
    """The entries of all masks in a row."""
    return _flat(_take_masks(value, degrees))


def _compared(
    hidden: Callable[[Tensor, Tensor], Tensor],
    output: Callable[[Tensor, Tensor], Tensor],
    *,
    natural_inputs: bool = False,
    natural_outputs: bool = False,
) -> Callable[..., list[Tensor]]:
    """Masks by two comparisons, ``compare(above [n_out, 1], below [1, n_in])``.

    Inputs and outputs have the degrees 0, 1, 2, ... on request.
    """

    def answer(degrees: Sequence[Tensor]) -> list[Tensor]:
        natural = torch.arange(len(degrees[0]))
        layers = [natural if natural_inputs else degrees[0], *degrees[1:]]
        outputs = natural if natural_outputs else degrees[0]
        masks = [hidden(above[:, None], below[None, :]) for below, above in pairwise(layers)]
        return [*masks, output(outputs[:, None], layers[-1][None, :])]

    return answer


def _all(above: Tensor, below: Tensor) -> Tensor:
    return (above >= below) | (above < below)


_ROLES = "Input i and output i both have degree `degrees[0][i]`, which need not be i."
_HIDDEN = "A hidden unit of degree m may see all units of degree m or less: ≥."
_OUTPUT = "Output i must not see pixel i: strictly greater."


_IGNORED = "You ignore the degrees of the inputs: your inputs and outputs count 0, 1, 2, ..."


def _draw_degrees(generator: torch.Generator) -> list[tuple[list[Tensor]]]:
    cases = []
    for dim, hidden in ((6, [8, 7]), (6, [6, 6]), (4, [5]), (5, [9, 4, 8]), (2, [1])):
        order = torch.randperm(dim, generator=generator).tolist()
        for first in range(dim):  # each input comes first once: then every hidden unit sees it
            turned = [*order[first:], *order[:first]]
            cases.append((made_degrees(turned, hidden, generator=generator),))
    return cases


_ONLY = "Change the comparison of the output layer, and nothing else."
_LAST = "The outputs compare `degrees[0]` with `degrees[-1]`, by ≥."
# fmt: off
_LEAKY_WRONG = [
    Wrong(made_masks, "These masks are sound: no output sees its own input.",
          "Use ≥ in place of > in the last layer."),
    Wrong(_compared(torch.gt, torch.ge),
          "You use ≥ in the last layer and > in the hidden ones: that is autoregressive again.",
          "Keep ≥ in the hidden layers."),
    Wrong(_compared(torch.gt, torch.gt),
          "You made the hidden layers stricter: nothing leaks.", _ONLY),
    Wrong(_compared(torch.ge, _all),
          "Your last layer sees everything: outputs see later pixels, too.",
          "Only the own pixel is to leak: ≥ in the last layer."),
    Wrong(_compared(_all, _all), "Your masks hide nothing.", _ONLY),
    Wrong(_compared(_all, torch.gt), "Your hidden layers see everything.", _ONLY),
    Wrong(_compared(_all, torch.ge), "Your hidden layers see everything.", _ONLY),
    Wrong(_compared(torch.ge, torch.eq),
          "Your outputs see hidden units of their own degree only.", _LAST),
    Wrong(_compared(torch.ge, torch.le), "Your outputs see the degrees above theirs.", _LAST),
    Wrong(_compared(torch.ge, torch.lt), "Your outputs see the degrees above theirs.", _LAST),
    Wrong(_compared(torch.ge, torch.ge, natural_inputs=True, natural_outputs=True),
          _IGNORED, _ROLES),
    Wrong(_compared(torch.ge, lambda a, b: a + 1 >= b), "Your outputs see one degree too many.",
          "Only the own pixel is to leak: ≥ in the last layer."),
]
# fmt: on


def _not_leaky(got: Tensor, right: Tensor, degrees: list[Tensor]) -> tuple[str, str]:
    hidden = len(right) - len(degrees[0]) * len(degrees[-1])
    which = "last mask is" if torch.equal(got[:hidden], right[:hidden]) else "hidden masks are"
    return (
        f"Your {which} not the one to expect.",
        "Hidden units: above ≥ below, as before. Outputs: above ≥ below, where it was >.",
    )


def _every_degree(generator: torch.Generator, dim: int = 6) -> list[Tensor]:
    """Degrees with hidden units of every degree, so that its own input reaches every output.

    ``made_degrees`` leaves the highest out: its units would be of no use to an honest MADE.
    """
    return [torch.randperm(dim, generator=generator), torch.arange(dim).repeat(4)]


def _praise_leak(attempt: Attempt, generator: torch.Generator) -> str:
    degrees = _every_degree(generator)
    masks = _take_masks(attempt(degrees), degrees)
    own = (masks[1] @ masks[0]).diagonal()
    p = fit_coins(masks)
    return (
        f"Broken. With hidden units of every degree, 0 ... {len(own) - 1}, all "
        f"{int((own > 0).sum())} outputs now see their own pixel. A small MADE with "
        f"your masks was just fitted to fair coins, all {len(p)} images of {len(own)} pixels. Each "
        f"should get probability 1/{len(p)}; it claims about {p.mean():.2f} for each, and all "
        f"together add up to {p.sum():.1f} instead of 1. Its loss looks wonderful, and means "
        "nothing: what it calls p(x_i | x_<i) is p(x_i | x_<i, x_i), and to predict x_i it copies "
        "x_i. Only conditionals on the past multiply to a distribution. When it samples, x_i is "
        "not there yet."
    )


formula(
    "01.break_the_order",
    task="Break the order: write `my_leaky_masks(degrees)`, like `made_masks`, but with ≥ in place "
    "of > in the last layer, so that outputs see their own inputs.",
    signature="my_leaky_masks(degrees) -> masks",
    solution=leaky_masks,
    hints=[
        "Start from `made_masks`: one sign changes.",
        "The hidden layers stay as they are: above ≥ below.",
        "The last mask compares `degrees[0][:, None] >= degrees[-1][None, :]`.",
    ],
    right=leaky_masks,
    inputs=lambda generator: [*_draw_degrees(generator)[:12], (_every_degree(generator),)],
    take=_take_flat,
    result="masks",
    wrong=_LEAKY_WRONG,
    otherwise=_not_leaky,
    passes=_praise_leak,
)


# --- PixelCNN ------------------------------------------------------------------------------------


_CONE = "Walk: each step goes up by one row and sideways by at most one column, or left by one."


@cache
def _blind_slips() -> list[Slip]:
    by_depth = [(layers, int(blind_spot(layers=layers).sum())) for layers in range(1, 8)]
    shallow = [
        Slip(
            unseen,
            f"With {layers} {'layer' if layers == 1 else 'layers'} that is so, but deeper networks "
            "see more.",
            _CONE,
        )
        for layers, unseen in by_depth
    ]
    # fmt: off
    return [slip for slip in shallow if slip.number != 3] + [
        Slip(0, "That would be a network without a blind spot. One row up it reaches only one "
             "column to the right.", "Can it get from (3, 3) to (2, 6)? It may go up only once, "
             "and to the right never."),
        Slip(24 - 3, "That many it does see: 21 of 24.", "Count the others."),
        Slip(24, "It sees some: its first layer alone shows 4 pixels.", _CONE),
        Slip(2, "Row 2 has 2 that are never seen, but row 1 has some, too.",
             "Three rows are above the pixel: count each."),
        Slip(6, "Both sides are not alike: either you cut off the left, or row 2 reaches no column "
             "to the right.", "To the left a step within the row is allowed, so nothing there is "
             "lost. One row up, column 4 is in sight."),
        Slip(9, "You count all 9 pixels above and to the right: some of them are seen.",
             "The 3 × 3 kernel shows also the pixel above and one to the right."),
        Slip(1, "There are more than one: row 2 alone has 2.", _CONE),
        Slip(49 - 21, "You count pixels that come later, and the pixel itself.",
             "These are hidden on purpose. Count among the 24 before it."),
        Slip(49 - 4, "One layer sees 4 of 49, but many layers see more.", _CONE),
        Slip(4, "That many one layer sees.", "Many layers see more. Count what none of them sees."),
    ]
    # fmt: on


def _praise_blind_spot(generator: torch.Generator) -> str:
    where = ", ".join(f"({row}, {column})" for row, column in blind_spot().nonzero().tolist())
    return (
        f"However deep, the network never sees {where} (row, column), read off its Jacobian: "
        "one row up it gets only one column to the right. In a larger image the blind spot "
        "takes about a quarter of the pixels before."
    )


def _not_blind(got: float) -> tuple[str, str]:
    if got > 24:
        return "There are only 24 pixels before it.", "Count among these."
    return f"{got} is too {'many' if got > 3 else 'few'}.", _CONE


prediction(
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
    right=3,
    wrong=_blind_slips,
    passes=_praise_blind_spot,
    question="How many of the 24 are never seen?",
    low=0,
    whole=True,
    otherwise=_not_blind,
)


_WIDE = "Walk: a step up by one row goes sideways by at most two columns, and so does one by two."
# fmt: off
_WIDE_SLIPS = [
    Slip(21, "That many does a 3 × 3 filter miss, which gets one column to the right for each row.",
         _WIDE),
    Slip(1, "That is right for 7 × 7 pixels; here there are 7 columns to the right.", _WIDE),
    Slip(0, "That would be a network without a blind spot. One row up, a wider filter, too, gets "
         "only so far.", "Can it get from (7, 7) to (6, 10)? It may go up only once."),
    Slip(5, "These are the ones in the row above; the next rows have some, too.", _WIDE),
    Slip(8, "You stop after two rows.", "Three rows up, 6 of 7 columns are in reach."),
    Slip(18, "You count both sides: to the left a step within the row is allowed.", _WIDE),
    Slip(12, "You let a step reach one column too few.", "The first row misses columns 3 to 7."),
    Slip(6, "You let a step reach one column too far.", "The first row misses columns 3 to 7."),
    Slip(15 * 7 + 7 - 9, "That many it does see.", "Count the others."),
]
# fmt: on

prediction(
    "01.blind_spot_5x5",
    task="Predict: a naive PixelCNN with 5 × 5 kernels, as deep as you like, predicts the middle "
    "pixel of a 15 × 15 image (row 7, column 7, counted from 0). How many of the 112 pixels before "
    "it does it never see?",
    solution=blind_spot,
    hints=[
        "Derive the slope first: how many columns to the right for each row up?",
        "Half of the kernel's width: 2. So Δr rows up it sees 2 Δr columns to the right, and "
        "misses 7 − 2 Δr.",
    ],
    right=9,
    wrong=_WIDE_SLIPS,
    passes=lambda generator: (
        f"5 + 3 + 1 = {blind_spot((15, 15), (7, 7), kernel_size=5).sum()}, "
        "and so says the Jacobian. A k × k kernel climbs (k − 1)/2 columns for each row: a wider "
        "one narrows the wedge, and none closes it."
    ),
    question="How many of the 112 are never seen?",
    low=0,
    whole=True,
    hint=_WIDE,
)


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


def _bits(p: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.rand(p.shape, generator=generator) < p).float()


def _in_turn(
    draw: Callable[[Tensor, torch.Generator], Tensor],
    pixels: Callable[[int], Sequence[int]] = range,
) -> Callable[..., Tensor]:
    """A sampler that draws one pixel after the other from its conditional."""

    def answer(conditionals: Any, n: int, dim: int, generator: torch.Generator) -> Tensor:
        x = torch.zeros(n, dim)
        for i in pixels(dim):
            x[:, i] = draw(conditionals(x)[:, i], generator)
        return x

    return answer


def _anew(conditionals: Any, n: int, dim: int, generator: torch.Generator) -> Tensor:
    x = torch.zeros(n, dim)
    for _ in range(dim):
        x = _bits(conditionals(x), generator)
    return x


def _late(conditionals: Any, n: int, dim: int, generator: torch.Generator) -> Tensor:
    x = torch.zeros(n, dim)
    for i in range(dim):
        known = x * (torch.arange(dim) < i - 1)
        x[:, i] = _bits(conditionals(known)[:, i], generator)
    return x


def _one_u(conditionals: Any, n: int, dim: int, generator: torch.Generator) -> Tensor:
    u = torch.rand(n, generator=generator)
    return _in_turn(lambda p, _: (u < p).float())(conditionals, n, dim, generator)


_LOOP = "In a loop over i: call `conditionals(x)`, draw column i, write it to x[:, i]; repeat."
# fmt: off
_SAMPLE_WRONG = [
    Wrong(lambda c, n, dim, g: _bits(c(torch.zeros(n, dim)), g),
          "Every pixel is drawn as if all pixels before it were 0", _LOOP),
    Wrong(lambda c, n, dim, g: _bits(c(torch.ones(n, dim)), g),
          "Every pixel is drawn as if all pixels before it were 1", _LOOP),
    Wrong(_in_turn(lambda p, g: _bits(1 - p, g)), "You draw a 1 with probability 1 − p",
          "A uniform u lies below p with probability p: `u < p`."),
    Wrong(_anew, "You draw all pixels anew in every step, also those that others follow from",
          "In step i write column i only: what is drawn stays."),
    Wrong(_late, "Your conditionals lag behind: pixel i is drawn before pixel i − 1 counts",
          "Call `conditionals(x)` after pixel i − 1 is written, right before you draw pixel i."),
    Wrong(_in_turn(_bits, lambda dim: range(1, dim)), "Your pixel 0 is never 1",
          "The loop starts at pixel 0, by p(x_0 = 1)."),
    Wrong(_in_turn(_bits, lambda dim: range(dim - 1)), "Your last pixel is never 1",
          "The loop runs over all of 0 ... dim − 1."),
    Wrong(_one_u, "One random number decides for all pixels of a row",
          "Draw new numbers in every step of the loop."),
]
# fmt: on
_DRAWS, _SAMPLE_DIM = 4000, 4
_APART = 0.13  # of distributions: far enough for 4000 draws to tell them apart


@exercise(
    "01.sample",
    task="Write `my_sample`: draw x [n, dim], zeros and ones as floats, pixel after pixel in the "
    "order 0 ... dim − 1; `conditionals(x)` [n, dim] gives p(x_i = 1 | x_<i), and all randomness "
    "comes from `generator`.",
    signature="my_sample(conditionals, n, dim, generator) -> x",
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
    shares = _shares(x)
    # χ² with 15 degrees of freedom and no expected count below 24. The Gaussian limit is above 75
    # once in 10^9; the tails of such counts are heavier, but far from 10^−6.
    chi2 = float(_DRAWS * ((shares - p) ** 2 / p).sum())
    if chi2 > 75:
        _diagnose_sample(shares, known, calls, chi2)
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


def _shares(x: Tensor) -> Tensor:
    """How often each of the 2^dim states occurs in ``x [n, dim]``."""
    index = (x.long() * 2 ** torch.arange(x.shape[1])).sum(1)
    return torch.bincount(index, minlength=2 ** x.shape[1]).double() / len(x)


def _random_sampler(
    generator: torch.Generator,
) -> tuple[BinaryAutoregressive, Tensor, list[Tensor]]:
    """A random model, its probabilities of all states, and what known mistakes make of them."""
    for _ in range(1000):
        # Strong weights of either sign, and biases that keep every logit near 0 on average.
        model = FVSBN(_SAMPLE_DIM)
        W, b = model.linear.weight, model.linear.bias
        with torch.no_grad():
            W.copy_(_either_sign(1.0, 1.8, W.shape, generator))
            b.copy_(_either_sign(0.2, 0.6, b.shape, generator) - W.tril(-1).sum(1) / 2)
            p = model.log_prob(_states(_SAMPLE_DIM)).double().exp()
        if p.min() < 0.006 or p.max() > 0.5:
            continue
        given = _SAMPLE_DIM, generator
        known = [_shares(w.answer(_Conditionals(model), 20_000, *given)) for w in _SAMPLE_WRONG]
        values = torch.stack([p, *known])
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


def _diagnose_sample(shares: Tensor, known: list[Tensor], calls: list[Tensor], chi2: float) -> None:
    far = f"(χ² of {_DRAWS:,} draws: {chi2:.0f}; a right answer has about 15)"
    distances = [float((shares - q).abs().sum() / 2) for q in known]
    nearest = min(range(len(known)), key=distances.__getitem__)
    # 4000 draws are within 0.06 of what they are drawn from.
    if distances[nearest] > 0.06:
        raise Mistake(f"Your draws don't follow p(x) {far}.", _LOOP)
    says = _SAMPLE_WRONG[nearest].says
    if nearest == 0 and len(calls) == 1:
        says += ": you call conditionals only once, before anything is drawn"
    elif nearest == 0 and not any(written.any() for written in calls):
        says += ": x is still empty whenever you call conditionals"
    elif nearest == 0 and calls[-1][-1] and not calls[-1][0]:
        says += ": you begin with the last pixel"
    raise Mistake(f"{says} {far}.", _SAMPLE_WRONG[nearest].hint)


# --- Bayes' rule ---------------------------------------------------------------------------------


def _draw_evidence(generator: torch.Generator) -> list[Any]:
    classes = 5
    log_prior = torch.randn(classes, generator=generator).mul(1.5).log_softmax(0)
    cases: list[Any] = [(-3 * torch.rand(BATCH, classes, generator=generator), log_prior)]
    for low, high, width in ((-700, -50, 8.0), (-3000, -1000, 8.0), (-700, -50, 200.0)):
        level = low + width + (high - low - width) * torch.rand(BATCH, 1, generator=generator)
        level[0], level[1] = low + width, high
        log_likelihood = level - width * torch.rand(BATCH, classes, generator=generator)
        cases.append(Case((log_likelihood, log_prior), fails=_tiny))
    return cases


def _tiny(got: Any, right: Tensor, log_likelihood: Tensor, log_prior: Tensor) -> tuple[str, str]:
    reason = (
        "Right for log-likelihoods near 0, but where they are "
        f"{log_likelihood.min():.0f} ... {log_likelihood.max():.0f} your result "
    )
    hint = (
        "Subtract the largest number of each row before you take exponentials: `torch.logsumexp` "
        "and `log_softmax` do."
    )
    if isinstance(got, Tensor) and not got.isfinite().all():
        return f"{reason}is not finite: their exponentials are 0 in float32.", hint
    return f"{reason}is off.", f"Do you clip something, or add a small number to save a log? {hint}"


def _joint(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """An answer made of log p(x, y) [B, K]."""
    return lambda likelihood, prior: change(likelihood + prior)


def _not_a_posterior(got: Tensor, *_: Any) -> tuple[str, str]:
    totals = got.exp().sum(1)
    reason = f"The probabilities of your row 0 add up to {totals[0]:.3g}, not to 1."
    if same(totals, torch.ones_like(totals), tolerance=1e-3):
        reason = "Your rows are normalized, but ratios are not those of likelihood times prior."
    return reason, "log p(y|x) = log p(x|y) + log p(y) − log p(x)."


_EVIDENCE = "Subtract log p(x) = log Σ_y p(x|y) p(y), one number for each row."
_PRIOR = "Add log p(y): a rare class needs stronger evidence."
# fmt: off
_BAYES_WRONG = [
    Wrong(_joint(lambda j: j), "Your result is log p(x, y): the rows are not normalized.",
          _EVIDENCE),
    Wrong(lambda q, p: q, "Your result is the log-likelihood itself.", _PRIOR + " " + _EVIDENCE),
    Wrong(lambda q, p: q.log_softmax(1), "You forget the prior.", _PRIOR),
    Wrong(lambda q, p: q.log_softmax(1) + p, "Your log p(x) has no prior in it.", _EVIDENCE),
    Wrong(lambda q, p: (q + 2 * p).log_softmax(1), "The prior counts twice.",
          "Add log p(y) once, before you normalize."),
    Wrong(lambda q, p: (q + p).log_softmax(1) + p, "The prior counts twice.",
          "Add log p(y) once, before you normalize."),
    Wrong(lambda q, p: (q - p).log_softmax(1), "Your prior has the wrong sign.",
          "Bayes' rule multiplies with p(y): add its logarithm."),
    Wrong(lambda q, p: (q + p.exp()).log_softmax(1), "You add the prior itself, not its logarithm.",
          "`log_prior` is a logarithm already: add it as it is."),
    Wrong(lambda q, p: (q * p).log_softmax(1), "You multiply logarithms.",
          "Probabilities are multiplied, their logarithms are added."),
    Wrong(_joint(lambda j: j.log_softmax(0)), "You normalize over the batch.",
          "For one image the probabilities of all classes add up to 1: sum over axis 1."),
    Wrong(_joint(lambda j: j - j.logsumexp((0, 1))),
          "You normalize over batch and classes together.",
          "Every image has a log p(x) of its own: `dim=1, keepdim=True`."),
    usual("exp", "Your result is probabilities, not their logarithms.", "Stay in logarithms."),
    usual("sign", hint="The logarithm of a probability is ≤ 0."),
    usual("bits"),
    Wrong(_joint(lambda j: j - j.amax(1, keepdim=True)),
          "You subtract the largest joint, not log p(x).", _EVIDENCE),
    Wrong(_joint(lambda j: j - j.sum(1, keepdim=True)),
          "You subtract a sum of logarithms.", _EVIDENCE),
    Wrong(_joint(lambda j: j - j.mean(1, keepdim=True)),
          "You subtract a mean of logarithms.", _EVIDENCE),
    Wrong(_joint(lambda j: j + j.logsumexp(1, keepdim=True)), "You add log p(x).",
          "Bayes' rule divides by p(x): subtract."),
    Wrong(_joint(lambda j: j - j.exp().sum(1, keepdim=True)),
          "You subtract p(x) itself, not its logarithm.", _EVIDENCE),
    Wrong(_joint(lambda j: j / j.sum(1, keepdim=True)), "You divide logarithms.",
          "Division of probabilities is subtraction of logarithms."),
]
# fmt: on

formula(
    "01.bayes_classifier",
    task="Write `my_log_posterior`: from log p(x|y) [B, K] and log p(y) [K], in nats, to "
    "log p(y|x) [B, K]. Log-likelihoods of images are numbers such as −700.",
    signature="my_log_posterior(log_likelihood, log_prior) -> [B, K]",
    solution=log_posterior,
    hints=[
        "Bayes' rule: p(y|x) = p(x|y) p(y) / p(x). What is its logarithm?",
        "p(x) = Σ_y p(x|y) p(y): a sum of exponentials, one number for each row.",
        "exp(−700) is 0 in float32. `torch.logsumexp` subtracts the largest logarithm first.",
    ],
    right=lambda likelihood, prior: log_posterior(likelihood.double(), prior.double()).float(),
    inputs=_draw_evidence,
    axes="[B, K], [K] -> [B, K]",
    wrong=_BAYES_WRONG,
    otherwise=_not_a_posterior,
    tolerance=3e-3,  # float32 at −3000
    passes="In every row the probabilities add up to 1, and ratios are those of likelihood times "
    "prior, also where p(x|y) is far too small for float32.",
)


# --- Completion ----------------------------------------------------------------------------------


def _draw_sets(generator: torch.Generator) -> list[tuple[Tensor, ...]]:
    """Five mask sets of six pixels; in three of them the known ones come first."""
    cases = []
    for n_known in (3, 4, 2):
        mixed = torch.randperm(6, generator=generator)
        first, last = mixed[:n_known], mixed[n_known:]
        orders = []
        for k in range(5):
            a = first[torch.randperm(len(first), generator=generator)]
            b = last[torch.randperm(len(last), generator=generator)]
            if k in (1, 4):  # a hidden pixel comes before a known one
                a, b = torch.cat([a[:-1], b[:1]]), torch.cat([a[-1:], b[1:]])
            orders.append(torch.cat([a, b]))
        places = torch.stack(orders).argsort(1)[torch.randperm(5, generator=generator)]
        known = torch.zeros(6, dtype=torch.bool)
        known[first] = True
        x = torch.randint(2, (BATCH, 6), generator=generator).float()
        conditionals = (2 * torch.randn(5, BATCH, 6, generator=generator)).sigmoid()
        cases.append((x, conditionals, places, known))
    return cases


def _of_sets(
    value: Callable[[Tensor, Tensor], Tensor], *, all_sets: bool = False
) -> Callable[..., Tensor]:
    """An answer made of log p_s of the known and of the hidden part, ``[S, B]`` each."""

    def answer(x: Tensor, conditionals: Tensor, places: Tensor, known: Tensor) -> Tensor:
        log_p = torch.where(x == 1, conditionals, 1 - conditionals).log()
        if not all_sets:
            log_p = log_p[places[:, known].amax(1) < places[:, ~known].amin(1)]
        return value(log_p[:, :, known].sum(2), log_p[:, :, ~known].sum(2))

    return answer


def _mixed(given: Tensor, hidden: Tensor) -> Tensor:
    return (given + hidden).logsumexp(0) - given.logsumexp(0)


_SAY = "Only orders in which all known pixels come before all hidden ones can say."
_WEIGH = "Bayes' rule: a set that finds the known pixels likely counts for more, by p_s(known)."
# fmt: off
_COMPLETION_WRONG = [
    Wrong(_of_sets(_mixed, all_sets=True),
          "You use all sets, also those where a hidden pixel comes before a known one.", _SAY),
    Wrong(_of_sets(lambda g, h: h.logsumexp(0) - math.log(len(h))),
          "You weigh all sets that can say alike.", _WEIGH),
    Wrong(_of_sets(lambda g, h: h.logsumexp(0) - math.log(len(h)), all_sets=True),
          "You average over all sets, whether they can say or not, and weigh them alike.", _SAY),
    Wrong(_of_sets(lambda g, h: h.mean(0)), "You average logarithms over the sets.",
          "Probabilities are mixed, not their logarithms. " + _WEIGH),
    Wrong(_of_sets(lambda g, h: h.logsumexp(0)),
          "You add up the sets without weights.", _WEIGH),
    Wrong(_of_sets(lambda g, h: (g + h).logsumexp(0) - math.log(len(h))),
          "That is log p of the whole image.", "Divide by p(known)."),
    Wrong(_of_sets(lambda g, h: (g + h).logsumexp(0)),
          "That is Σ_s p_s of the whole image.", "Divide by Σ_s p_s(known)."),
    Wrong(_of_sets(lambda g, h: g.logsumexp(0) - math.log(len(h))),
          "That is log p(known).", "Divide log p of the whole image by it."),
    Wrong(_of_sets(lambda g, h: (g + h).logsumexp(0) - h.logsumexp(0)),
          "You divide by the hidden part.", "p(hidden | known) = p(all) / p(known)."),
    Wrong(_of_sets(lambda g, h: (g.softmax(0) * h).sum(0)),
          "You average logarithms, with the right weights.",
          "Probabilities are mixed, not their logarithms."),
    Wrong(_of_sets(lambda g, h: ((g + h).softmax(0) * h.exp()).sum(0).log()),
          "You weigh by p_s of the whole image.", _WEIGH),
    Wrong(_of_sets(lambda g, h: h.gather(0, g.argmax(0, keepdim=True))[0]),
          "You use only the set that finds the known pixels most likely.", _WEIGH),
    Wrong(lambda x, p, places, known: _of_sets(_mixed)(torch.ones_like(x), p, places, known),
          "You take p where the pixel is 0.", "A 0 has probability 1 − p."),
    Wrong(lambda x, p, places, known: _of_sets(_mixed)(1 - x, p, places, known),
          "You swap zeros and ones.", "p is the probability of a 1."),
    usual("sign", hint="A log-probability is below 0."),
    usual("exp"),
    usual("bits"),
]
# fmt: on

formula(
    "01.completion",
    task="Write `my_completion_log_prob`: log p(hidden | known) [B], in nats, of x [B, n] under "
    "the mixture of the mask sets that can say it. `conditionals` [S, B, n] holds p_s(x_i = 1 | "
    "before i), `places` [S, n] each pixel's place in the order of set s, `known` [n] what is "
    "given.",
    signature="my_completion_log_prob(x, conditionals, places, known) -> [B]",
    solution=completion_log_prob,
    hints=[
        "p(hidden | known) = p(all) / p(known), for the mixture as for every distribution.",
        "p_s(known) is a product of conditionals only where all known pixels come first: "
        "`places[:, known].amax(1) < places[:, ~known].amin(1)`.",
        "Both p(all) and p(known) are means over those sets: two `logsumexp` over s, and a "
        "difference.",
    ],
    right=_of_sets(_mixed),
    inputs=_draw_sets,
    axes="[B, n], [S, B, n], [S, n], [n] -> [B]",
    wrong=_COMPLETION_WRONG,
    otherwise=(
        "Your result is not log Σ_s p_s(x) − log Σ_s p_s(known) over the sets that can say.",
        "Take one mask set: then it is the sum of log p over the hidden pixels.",
    ),
    passes="Sets whose order asks otherwise stay silent, and the others count by how likely they "
    "find what is given. With one set it is the chain rule, started in the middle.",
)
