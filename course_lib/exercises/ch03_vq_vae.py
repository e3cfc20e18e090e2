"""Exercises of chapter 03: codes and their bits, the nearest code, gradients past it, dead codes.

Every check works with tolerances for which a right answer is refused less than once in 10⁶ times.
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from course_lib.exercises.attempt import (
    Attempt,
    Mistake,
    take_results,
    take_tensor,
)
from course_lib.exercises.formula import SHAPES, Wrong, formula, usual
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise
from course_lib.experiments.dead_codes import dead_codebook, train_codebook
from course_lib.latent import (
    VectorQuantizer,
    code_bits,
    perplexity,
    slope_of_jump,
    straight_through,
    vq_loss,
)

__all__: list[str] = []

# --- What a map of codes can say -----------------------------------------------------------------

_QUESTIONS = "A code is one of 64 = 2^6: 6 yes-or-no questions find it."
_ROWS = "The map has 7 rows of 7 codes."
# fmt: off
_BITS_WRONG = [
    Slip(49 * math.log(64), "That is the number of nats.", "In bits, the logarithm has base 2.",
         within=0.5),
    Slip(64 * math.log2(49), "You swap places and codes: that is 64 · log2 49.",
         "49 places hold one of 64 codes each: 64^49 maps in all.", within=0.5),
    Slip(36.75, "That is the number of bytes.", "A byte has 8 bits.", within=0.3),
    Slip(49 * 64, "You count 64 bits for each code: as many as there are codes, or as an int64 "
         "takes."),
    Slip(6, "That many bits has one code.", "The map has 7 × 7 of them."),
    Slip(64, "That is the number of codes to choose from."),
    Slip(49, "That is the number of places, one bit for each."),
    Slip(7 * 6, "That is one row of the map.", _ROWS),
    Slip(14 * 6, "You add 7 and 7 where you must multiply.", _ROWS),
    Slip(784, "784 is the number of pixels of the image, 28 × 28.",
         "Only the map counts: 7 × 7 codes."),
    Slip(784 * 6, "You count a code for each pixel.", "The map has 7 × 7 codes, not 28 × 28."),
    Slip(784 * 8, "That many bits has the image, in 256 greys.", "Count the bits of its map."),
    Slip(49 * 8, "You count a byte for each code."),
    Slip(49 * 7, "You count 7 bits for each code: that would be up to 128 codes.",
         "The codes are 0 ... 63. In binary 63 is 111111, 6 digits."),
    Slip(49 * 5, "You count 5 bits for each code: that is 32 codes."),
    Slip(49 * 32, "You count 32 bits for each code, as a float takes."),
    Slip(64**49, "That is the number of different maps, 64^49.",
         "Bits are the logarithm of that, with base 2."),
    Slip(49**64, "49^64 swaps places and codes; and bits are a logarithm.",
         "There are 64^49 maps: take log2 of that."),
]
# fmt: on

prediction(
    "03.predict_bits",
    task="Predict: how many bits does a map of 7 × 7 codes hold at most, each of them one of "
    "K = 64?",
    solution=code_bits,
    hints=[
        "Start with one code: how many yes-or-no questions find out which of 64 it is?",
        "Each question halves what is left: 64, 32, 16, ... How often until 1 is left?",
        "log2 K bits for each code, and 49 codes.",
    ],
    right=round(code_bits(7, 7, 64)),
    wrong=_BITS_WRONG,
    passes="49 · log2 64 = 49 · 6 = 294 bits, 37 bytes. The image has 784 pixels: in black "
    "and white up to 784 bits, in 256 greys 6,272. It is the most the map can say; a "
    "prior that knows which codes are likely needs fewer.",
    question="How many bits tell one of 64 codes, and how many codes are there?",
    low=0,
    whole=True,
    hint=_QUESTIONS,
)


# --- A jump from code to code --------------------------------------------------------------------


def _nearest(z: Tensor, codebook: Tensor) -> Tensor:
    return (z[:, None] - codebook).square().sum(2).argmin(1)


def _jump(
    value: Callable[[Tensor, Tensor], Tensor] = lambda g, jump: (g * jump).sum(1),
    new: Callable[..., Tensor] = lambda z, old, g, step: z - step * g,
) -> Callable[..., Tensor]:
    """Another value of g and of the jump e' − e, or another point to take the new code of."""

    def answer(z: Tensor, codebook: Tensor, gradient: Tensor, step: float) -> Tensor:
        old = codebook[_nearest(z, codebook)]
        moved = new(z, old, gradient, step)
        return value(gradient, codebook[_nearest(moved, codebook)] - old)

    return answer


def _draw_jumps(generator: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor, float]]:
    cases = []
    for n, n_codes, dim, step in ((60, 12, 3, 0.5), (40, 30, 2, -0.4), (9, 8, 1, 0.7)):
        z, gradient = torch.randn(2, 4 * n, dim, generator=generator)
        codebook = 1.3 * torch.randn(n_codes, dim, generator=generator)
        fair = torch.ones(len(z), dtype=torch.bool)
        for at in (z, z - step * gradient):  # none halfway between two codes, up to rounding
            near = (at[:, None] - codebook).square().sum(2).sort(1).values
            fair &= near[:, 1] - near[:, 0] > 1e-3
        cases.append((z[fair][:n], codebook, gradient[fair][:n], step))
    return cases


_SLOPE = "g · (e' − e), where e is the code of z and e' that of z − step · g."
# fmt: off
_JUMP_WRONG = [
    Wrong(_jump(new=lambda z, old, g, step: z + step * g),
          "You step uphill where downhill is asked for.", "z moves to z − step · gradient."),
    Wrong(_jump(new=lambda z, old, g, step: old - step * g),
          "You move the code, not z.", "z moves; the codes stay where they are."),
    Wrong(_jump(new=lambda z, old, g, step: z - g), "Your step is 1, whatever is given.", _SLOPE),
    Wrong(_jump(new=lambda z, old, g, step: z - step * g / g.norm(dim=1, keepdim=True)),
          "You move all z by the same length.", "The gradient's length counts."),
    Wrong(lambda z, e, g, step: -step * g.square().sum(1),
          "That is the slope along z's own step; the decoder never sees z.", _SLOPE),
    Wrong(lambda z, e, g, step: (g * (e[_nearest(z - step * g, e)] - z)).sum(1),
          "Your jump starts at z.", "It starts at the code of z."),
    Wrong(lambda z, e, g, step: (g * (z - step * g - e[_nearest(z, e)])).sum(1),
          "Your jump ends at z − step · g.", "It ends at the code of that point."),
    Wrong(_jump(lambda g, jump: jump.norm(dim=1)), "You give the length of the jump.", _SLOPE),
    Wrong(_jump(lambda g, jump: (jump != 0).any(1).float()),
          "You say which vectors change their code.", _SLOPE),
    Wrong(_jump(lambda g, jump: (g * jump).mean(1)),
          "You take the mean over coordinates.", "A dot product is a sum."),
    Wrong(_jump(lambda g, jump: (g * jump).sum().expand(len(g)).clone()),
          "You add up over all vectors.", "One number for each vector."),
    usual("sign", hint="e' − e, not e − e'."),
    usual("absolute"),
    usual("double"),
]
# fmt: on


def _praise_jump(attempt: Attempt, generator: torch.Generator) -> str:
    z, gradient = torch.randn(2, 2000, 4, generator=generator)
    codebook = torch.randn(64, 4, generator=generator)
    worst = max(float(attempt(z, codebook, gradient, step).max()) for step in (0.1, 1.0, 10.0))
    best = min(float(attempt(z, codebook, gradient, -step).min()) for step in (0.1, 1.0, 10.0))
    return (
        f"Of 6,000 jumps downhill, short ones and long ones, the slope of none is above "
        f"{max(worst, 0.0):.0f}; of 6,000 uphill none is below {min(best, 0.0):.0f}. It follows "
        "from two inequalities: e is nearest to z, and e' to z − step · g. What a slope says of "
        "a long way is another matter."
    )


formula(
    "03.slope_of_jump",
    task="Write `slope_of_jump`: z [N, d] moves to z − step · gradient, and so its nearest code "
    "of codebook [K, d] from e to e'. Return gradient · (e' − e) [N]: what the slope at e says of "
    "the jump. A step below 0 goes uphill.",
    signature="slope_of_jump(z, codebook, gradient, step) -> [N]",
    solution=slope_of_jump,
    hints=[
        "Which code is nearest before the step, and which after it? Most often it is the same.",
        "`torch.cdist(z, codebook).argmin(dim=1)` names the nearest codes, `codebook[index]` looks "
        "them up.",
        "One dot product for each row: `(gradient * (new - old)).sum(dim=1)`.",
    ],
    right=_jump(),
    inputs=_draw_jumps,
    axes="[N, d], [K, d], [N, d], _ -> [N]",
    wrong=_JUMP_WRONG,
    otherwise=("Your result is not g · (e' − e).", "Two codes on a line: try z beside the border."),
    passes=_praise_jump,
)


# --- Past the rounding ---------------------------------------------------------------------------

# fmt: off
_THROUGH_WRONG = [
    Wrong(lambda z, e: z.clone(), "Your value is z: nothing is quantized.", "The value must be e."),
    Wrong(lambda z, e: z + (z - e).detach(), "Your value is 2 z − e: a sign is wrong.",
          "z + (e − z) is e."),
    Wrong(lambda z, e: z + e, "Your value is z + e.", "z − z.detach() is 0, and has a gradient."),
    Wrong(lambda z, e: e - z, "Your value is e − z.", "Add z: it brings the gradient."),
    Wrong(lambda z, e: z - e, "Your value is z − e.", "e.detach() + (z − z.detach())."),
    Wrong(lambda z, e: (z + e) / 2, "Your value is halfway between z and e.",
          "The value must be e."),
    Wrong(lambda z, e: z - z.detach(), "Your value is 0.", "Add e: the value must be e."),
    Wrong(lambda z, e: e.detach(), "No gradient flows back at all.",
          "z must stay in the expression, once without `detach`."),
    Wrong(lambda z, e: e.clone(),
          "All of the gradient goes to e, none to z: the encoder would learn nothing.",
          "z must stay in the expression once without `detach`, and e only with it."),
    Wrong(lambda z, e: z + (e - z),
          "All of the gradient goes to e, none to z: the encoder would learn nothing.",
          "z must stay in the expression once without `detach`, and e only with it."),
    Wrong(lambda z, e: e + (z - z.detach()), "A gradient goes to e, too.",
          "e appears only inside a `detach`: e.detach() + (z − z.detach())."),
    Wrong(lambda z, e: e.detach() - (z - z.detach()),
          "The gradient arrives at z with the wrong sign.", "The derivative by z must be 1."),
    Wrong(lambda z, e: e.detach() + 2 * (z - z.detach()), "The gradient arrives at z twice.",
          "The derivative by z must be 1: z appears once without `detach`, with factor 1."),
]
# fmt: on

formula(
    "03.straight_through",
    task="Write `straight_through`: a tensor with the value of e, whose gradient goes to z as if "
    "it were z, and not to e.",
    signature="straight_through(z, e) -> tensor",
    solution=straight_through,
    hints=[
        "You need an expression that equals e, although its derivative by z is 1.",
        "`t.detach()` has the value of t and no gradient. What is the value of z − z.detach(), and "
        "what is its gradient?",
        "e.detach() + (z − z.detach()), or z + (e − z).detach().",
    ],
    right=straight_through,
    inputs=lambda generator: [
        tuple(torch.randn((2, *shape), generator=generator)) for shape in SHAPES
    ],
    axes="[B, *rest], [B, *rest] -> [B, *rest]",
    gradients=["z", "e"],
    gradient_hint="The derivative by z must be 1: z appears once without `detach`, with factor 1.",
    wrong=_THROUGH_WRONG,
    otherwise=("Your value is not e.", "Print z, e and your result."),
    passes="The decoder sees e, exactly; its gradient arrives at z unchanged, and e gets none (the "
    "codes learn by another way).",
)


def _mse(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean()


def _vq(z: Tensor, e: Tensor, c: float) -> Tensor:
    return _mse(z.detach(), e) + c * _mse(z, e.detach())


def _valued(value: Callable[[Tensor, float], Tensor]) -> Callable[..., Tensor]:
    """An answer of another value, a function of z − e and the commitment."""
    return lambda z, e, c: value(z - e, c)


def _take_loss(value: Any, z: Tensor, e: Tensor, commitment: float) -> Tensor:
    # Times the number of entries: gradients are of the size of z − e then, whatever the shape.
    return take_tensor("loss", value, (), dtype=z.dtype, about_shape=_REDUCE) * z.numel()


def _draw_codes(generator: torch.Generator) -> list[tuple[Tensor, Tensor, float]]:
    # Points [B] last: of one number each, so that two mistakes look alike there.
    shapes = [*SHAPES[1:], SHAPES[0]]
    return [
        (*torch.randn((2, *shape), generator=generator), commitment)
        for shape, commitment in zip(shapes, (0.2, 1.6, 0.7, 2.5, 0.4), strict=True)
    ]


_REDUCE = "Training needs one number: the mean over everything, batch, places and coordinates."
_MEAN = "`F.mse_loss` takes the mean over all numbers."
_ONCE = "One term with weight 1, for the codes, and one with weight commitment."
_PULL = "Both pull: add them."
_SG = "mean (z.detach() − e)² for the codes, commitment · mean (z − e.detach())² for z."
# fmt: off
_VQ_WRONG = [
    Wrong(_valued(lambda d, c: (d**2).mean()),
          "A term is missing, or its weight is wrong: the weights add up to 1.", _ONCE),
    Wrong(_valued(lambda d, c: c * (d**2).mean()), "Only the term with commitment is there.",
          _ONCE),
    Wrong(_valued(lambda d, c: 2 * (d**2).mean()), "Your commitment does not count.", _ONCE),
    Wrong(lambda z, e, c: _vq(z, e, 0.25), "Your commitment is 0.25, whatever is given.",
          "`commitment` is an argument: use it."),
    Wrong(_valued(lambda d, c: 2 * c * (d**2).mean()),
          "Both terms have the weight commitment.", _ONCE),
    Wrong(_valued(lambda d, c: (1 - c) * (d**2).mean()), "A term has the wrong sign.", _PULL),
    Wrong(_valued(lambda d, c: (c - 1) * (d**2).mean()), "A term has the wrong sign.", _PULL),
    usual("sign", "Your loss has the wrong sign.", "Training makes it small."),
    Wrong(_valued(lambda d, c: (1 + c) * (d**2).sum()), "You add up over everything.", _MEAN),
    Wrong(_valued(lambda d, c: (1 + c) * (d**2).sum() / len(d)),
          "You add up all numbers of one example.", _MEAN),
    usual("half", "There is a ½ too much.", "Mean squares, without a factor."),
    Wrong(_valued(lambda d, c: (1 + c) * d.abs().mean()),
          "You take absolute differences.", "Take squares."),
    Wrong(_valued(lambda d, c: (1 + c) * (d**2).mean().sqrt()),
          "You take the root of the mean square.", "Leave the root out."),
    Wrong(_valued(lambda d, c: (1 + c) * d.mean()**2),
          "You square the mean.", "First square, then mean."),
    Wrong(_valued(lambda d, c: (1 + c**2) * (d**2).mean()),
          "Your commitment is squared.", "It stands outside of the square."),
    Wrong(_valued(lambda d, c: (1 + c) * d.norm()),
          "You take the norm, not its square.", "The mean of the squares."),
    Wrong(_valued(lambda d, c: (1 + c) * d.mean()),
          "You forget to square.", "(z − e)², then the mean."),
    Wrong(lambda *args: _vq(*args).detach(),
          "Right in value, but no gradient flows: everything is detached.",
          "Each term detaches one of the two."),
    Wrong(lambda z, e, c: _vq(e, z, c),
          "The two are swapped: the codes move with weight commitment, the encoder with 1.",
          "The commitment is the encoder's: it belongs to the term in which e is detached."),
    Wrong(lambda z, e, c: (1 + c) * _mse(z, e),
          "Both terms pull at both z and e: no gradient is stopped.",
          "Detach z in the first term and e in the second."),
    Wrong(lambda z, e, c: _mse(z.detach(), e) + c * _mse(z, e),
          "The commitment term pulls at the codes, too.", "Detach e in it."),
    Wrong(lambda z, e, c: _mse(z, e) + c * _mse(z, e.detach()),
          "The first term pulls at the encoder's z, too.", "Detach z in it."),
    Wrong(lambda z, e, c: (1 + c) * _mse(z.detach(), e),
          "Both terms move the codes; the encoder gets no gradient.", _SG),
    Wrong(lambda z, e, c: (1 + c) * _mse(z, e.detach()),
          "Both terms move the encoder; the codes get no gradient.", _SG),
    Wrong(lambda z, e, c: _mse(z.detach(), e) + c * _mse(z, e).detach(),
          "The commitment term gives no gradient.", "Detach e in it, and not z."),
    Wrong(lambda z, e, c: _mse(z, e).detach() + c * _mse(z, e.detach()),
          "The codes get no gradient.", "Detach z in the first term, and not e."),
    Wrong(lambda z, e, c: _mse(z, e).detach() + c * _mse(z.detach(), e),
          "The codes get the commitment's gradient alone.", _SG),
    Wrong(lambda z, e, c: _mse(z, e.detach()) + c * _mse(z, e).detach(),
          "Only the first term gives a gradient, and to z in place of e.", _SG),
    Wrong(lambda z, e, c: _mse(z, e) + c * _mse(z, e).detach(),
          "The first term pulls at both, the second at none.", _SG),
    Wrong(lambda z, e, c: _mse(z, e).detach() + c * _mse(z, e),
          "The second term pulls at both, the first at none.", _SG),
]
# fmt: on

formula(
    "03.vq_loss",
    task="Write `vq_loss`: mean (sg[z] − e)² + commitment · mean (z − sg[e])², a scalar, where sg "
    "stops the gradient.",
    signature="vq_loss(z, e, commitment) -> scalar",
    solution=vq_loss,
    hints=[
        "Both terms have the same value. They differ in who moves.",
        "The first moves the codes e: z stands still, `z.detach()`. The second moves the "
        "encoder's z.",
        "`F.mse_loss(e, z.detach()) + commitment * F.mse_loss(z, e.detach())`.",
    ],
    right=_vq,
    inputs=_draw_codes,
    take=_take_loss,
    result="loss",
    gradients=["z", "e"],
    gradient_hint=_SG,
    wrong=_VQ_WRONG,
    otherwise=(
        "Your value is not (1 + commitment) times the mean square: stopping gradients changes no "
        "value.",
        "Try z = 1, e = 0: with commitment 0.5 the loss is 1.5, with commitment 2 it is 3.",
    ),
    passes="Right in value, and the gradients part: the codes are pulled with weight 1, the "
    "encoder's vectors with weight commitment.",
)


# --- The codebook --------------------------------------------------------------------------------


def _draw_batches(generator: torch.Generator) -> list[tuple[Any, ...]]:
    cases = []
    for n_codes, dim, n in ((8, 3, 40), (5, 1, 12)):
        decay = 0.7 + 0.2 * float(torch.rand((), generator=generator))
        codebook = torch.randn(n_codes, dim, generator=generator)
        vectors = 1 + torch.randn(n, dim, generator=generator)
        uses = 1 + 4 * torch.rand(n_codes, generator=generator)
        # The last two codes are not chosen, the last and the first were never used at all.
        indices = torch.randint(n_codes - 2, (n,), generator=generator)
        indices[: n_codes - 2] = torch.arange(n_codes - 2)
        uses[0] = uses[-1] = 0
        cases.append((codebook, uses, vectors, indices, decay))
    return cases


def _ema(
    uses: Callable[..., Tensor] = lambda N, n, g: g * N + (1 - g) * n,
    codes: Callable[..., Tensor] = lambda e, N, n, s, M, g: (g * N * e + (1 - g) * s) / M,
    stay: bool = True,
    total: Callable[..., Tensor] = Tensor.index_add,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """An answer of parts: new uses of old ones N, counts n and decay g; new codes of old ones e,
    of N and n, sums s, (right) new uses M and g; whether codes that nobody chose stay; the sums.
    """

    def answer(
        codebook: Tensor, old: Tensor, vectors: Tensor, indices: Tensor, decay: float
    ) -> tuple[Tensor, Tensor]:
        count = torch.bincount(indices, minlength=len(old)).to(old.dtype)
        s = total(torch.zeros_like(codebook), 0, indices, vectors)
        M, n = (decay * old + (1 - decay) * count)[:, None], count[:, None]
        new = codes(codebook, old[:, None], n, s, M, decay)
        return torch.where(n > 0, new, codebook) if stay else new, uses(old, count, decay)

    return answer


def _take_update(
    value: Any, codebook: Tensor, uses: Tensor, vectors: Tensor, indices: Tensor, decay: float
) -> tuple[Any, Any, Any]:
    """The new uses; the codes that were chosen; the others, of which readers make many things."""
    first, second = take_results(("codebook", "uses"), value)
    shapes = [getattr(part, "shape", None) for part in (first, second)]
    if shapes == [uses.shape, codebook.shape]:
        raise Mistake("You return the uses first.", "End with `return codebook, uses`.")
    take_tensor("uses", second, uses.shape, dtype=uses.dtype)
    if not isinstance(first, Tensor) or first.shape != codebook.shape or first.is_complex():
        take_tensor("codebook", first, codebook.shape, dtype=codebook.dtype)
    chosen = torch.bincount(indices, minlength=len(uses)) > 0
    return second, first[chosen], first[~chosen]


def _moved_away(got: Tensor, right: Tensor, *inputs: Any) -> tuple[str, str]:
    if not got.isfinite().all():
        return _ZERO_BY_ZERO
    off = int((got - right).abs().amax(1).argmax())
    return f"Codes that nobody chose move away: code {len(inputs[0]) - len(got) + off} does.", _STAY


def _last_only(zeros: Tensor, axis: int, indices: Tensor, vectors: Tensor) -> Tensor:
    for k, vector in zip(indices.tolist(), vectors, strict=True):
        zeros[k] = vector
    return zeros


_STAY = "Change only the codes that were chosen: `torch.where(count > 0, ...)`."
_ZERO_BY_ZERO = (
    "Your codebook holds NaN: the last code was never used, and nobody chose it, so that its "
    "average is 0 / 0.",
    _STAY,
)
_USES = "uses' = decay · uses + (1 − decay) · count."
_CODES = "(decay · uses · codebook + (1 − decay) · sum) / uses', with the new uses."
_OLD = "Their old sum is uses · codebook; new vectors enter with 1 − decay."
_ONE = (
    "Of the vectors that chose a code only one counts.",
    "`x[indices] += vectors` adds only one for a repeated index: use `index_add`.",
)
# fmt: off
_EMA_WRONG = [
    Wrong(_ema(uses=lambda N, n, g: (1 - g) * N + g * n),
          "Your decay and 1 − decay are swapped.", _USES),
    Wrong(_ema(uses=lambda N, n, g: g * N + n), "Your counts lack the factor 1 − decay.", _USES),
    Wrong(_ema(uses=lambda N, n, g: N + (1 - g) * n), "Your old uses lack the factor decay.",
          _USES),
    Wrong(_ema(uses=lambda N, n, g: N + n),
          "You add up uses and counts: nothing is ever forgotten.", _USES),
    Wrong(_ema(uses=lambda N, n, g: n), "Your uses are the counts of this batch alone.", _USES),
    Wrong(_ema(uses=lambda N, n, g: N), "You leave the uses as they were.", _USES),
    Wrong(_ema(uses=lambda N, n, g: g * N), "You forget the counts of this batch.", _USES),
    Wrong(_ema(uses=lambda N, n, g: g * N + (1 - g) * n / n.sum()),
          "You average shares; count is a number of vectors.", _USES),
    Wrong(_ema(uses=lambda N, n, g: g * N + (1 - g) * (n > 0)),
          "You count each chosen code once, however many vectors chose it.",
          "`torch.bincount` counts. (`x[indices] += 1` adds 1 only once for a repeated index.)"),
    Wrong(_ema(uses=lambda N, n, g: torch.where(n > 0, g * N + (1 - g) * n, N)),
          "The uses of codes that nobody chose stay as they were.",
          "They must fade, or a dead code never shows: only the code itself stays."),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: e), "Your codes don't move."),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: s / n),
          "Your codes jump to the means of this batch.", _OLD),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: g * e + (1 - g) * s / n),
          "You average codes and means with fixed weights: how many vectors chose a code does not "
          "count."),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: (g * e + (1 - g) * s) / M),
          "Your old code is not multiplied by its uses.", _OLD),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: (g * N * e + (1 - g) * s / n) / M),
          "You take the mean of the new vectors; the formula has their sum."),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: (N * e + (1 - g) * s) / M),
          "Your old sum lacks the factor decay."),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: (g * N * e + s) / M),
          "The sum of the new vectors lacks the factor 1 − decay."),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: (g * N * e + (1 - g) * s) / n),
          "You divide by the counts of this batch."),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: (g * N * e + (1 - g) * s) / N),
          "You divide by the old uses: infinite for a code that was never used."),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: g * N * e + (1 - g) * s),
          "You forget to divide by the uses."),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: ((1 - g) * N * e + g * s) / M),
          "Your decay and 1 − decay are swapped in the codebook."),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: (g * M * e + (1 - g) * s) / M),
          "You multiply the old code by the new uses.",
          "The old sum is old uses · codebook: update the uses afterwards."),
    Wrong(_ema(total=_last_only), *_ONE),
    Wrong(_ema(total=lambda zeros, axis, indices, vectors: _last_only(
              zeros, axis, indices.flip(0), vectors.flip(0))), *_ONE),
    Wrong(_ema(stay=False), *_ZERO_BY_ZERO),
    Wrong(_ema(codes=lambda e, N, n, s, M, g: (g * N * e + (1 - g) * s) / M.clamp(min=1e-5),
               stay=False), "Codes that nobody chose move to the origin.", _STAY),
]
# fmt: on

formula(
    "03.ema_update",
    task="Write `ema_update`: the codebook [K, d] and its uses [K] after a batch of vectors [N, d] "
    "that chose the codes indices [N]. A code that nobody chose stays where it is.",
    signature="ema_update(codebook, uses, vectors, indices, decay) -> (codebook, uses)",
    solution=VectorQuantizer.follow,
    hints=[
        "For each code two numbers of this batch: how many vectors chose it, and their sum.",
        "`torch.bincount(indices, minlength=K)` counts; "
        "`torch.zeros_like(codebook).index_add(0, indices, vectors)` sums.",
        "uses' = decay · uses + (1 − decay) · count. "
        "codebook' = (decay · uses · codebook + (1 − decay) · sum) / uses'.",
        "Where count is 0 the quotient is codebook again, or 0 / 0: `torch.where(count > 0, ...)`.",
    ],
    right=_ema(),
    inputs=_draw_batches,
    take=_take_update,
    result=["uses", "codebook", "codebook where nobody chose it"],
    wrong=_EMA_WRONG,
    hint=_CODES,
    otherwise={
        "uses": ("Your uses are not the moving average of the counts.", _USES),
        "codebook": ("Your codes are not the moving averages asked for.", _CODES),
        "codebook where nobody chose it": _moved_away,
    },
    passes="Each code is the mean of the vectors that chose it, those of older batches with less "
    "weight. Codes that nobody chose stay, and their uses fade: dead codes can be told.",
)


def _of_shares(value: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """An answer made of the shares, their entropy and the number of codes."""

    def answer(indices: Tensor, n_codes: int) -> Tensor:
        share = torch.bincount(indices.flatten(), minlength=n_codes) / indices.numel()
        return value(share, torch.special.entr(share).sum(), n_codes)

    return answer


def _draw_indices(generator: torch.Generator) -> list[tuple[Tensor, int]]:
    """Codes with unequal shares; the last do not occur."""
    cases = []
    for shape, n_codes in (((5, 4, 7), 12), ((300,), 6), ((50,), 1), ((2, 3), 40)):
        share = torch.linspace(1, 4, max(1, n_codes - 2)) ** 2
        many = torch.multinomial(share, math.prod(shape), replacement=True, generator=generator)
        cases.append((many.reshape(shape), n_codes))
    return cases


def _take_perplexity(value: Any, *_: Any) -> Any:
    if isinstance(value, Real) and not isinstance(value, bool):
        return torch.tensor(float(value))
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _not_a_perplexity(got: Tensor, right: Tensor, indices: Tensor, n_codes: int) -> tuple[str, str]:
    reason = "Your value is not exp of the entropy of the shares."
    if got < 0.999 or got > n_codes + 1e-3:
        reason = f"Your perplexity is {got:.3g}; it lies between 1 and {n_codes}."
    return reason, "With two codes, each in half of the places, it is 2; with one code alone 1."


_NO_SHARE = "`torch.special.entr(p)` and `torch.xlogy(p, p)` know that it is 0."
# fmt: off
_PERPLEXITY_WRONG = [
    Wrong(_of_shares(lambda p, H, n: (-(p * p.log()).sum()).exp()),
          "Your perplexity is NaN where a code does not occur: 0 · log 0 is 0 · (−∞).", _NO_SHARE),
    Wrong(_of_shares(lambda p, H, n: H), "Your value is the entropy, in nats.", "Take exp of it."),
    Wrong(_of_shares(lambda p, H, n: H / math.log(2)), "Your value is the entropy, in bits."),
    Wrong(_of_shares(lambda p, H, n: (H / math.log(2)).exp()),
          "You take exp of an entropy in bits."),
    Wrong(_of_shares(lambda p, H, n: 2**H), "You take 2 to the power of an entropy in nats."),
    Wrong(_of_shares(lambda p, H, n: (-H).exp()),
          "Your entropy has the wrong sign: p log p is negative."),
    Wrong(_of_shares(lambda p, H, n: -H), "Your value is Σ p log p."),
    Wrong(_of_shares(lambda p, H, n: (p > 0).sum().float()),
          "You count the codes that occur, however rare.",
          "A code that occurs once hardly counts: weigh by the shares."),
    Wrong(lambda indices, n: torch.tensor(float(n)),
          "You give n_codes, which is the most it can be."),
    Wrong(_of_shares(lambda p, H, n: H.exp() / n), "You divide by n_codes.",
          "The perplexity is a number of codes, not a share."),
    Wrong(_of_shares(lambda p, H, n: (H / n).exp()), "You average over the codes.",
          "Entropy is a sum over codes."),
    Wrong(_of_shares(lambda p, H, n: 1 / (p**2).sum()),
          "You give 1 / Σ p²: another measure of the same kind."),
    Wrong(_of_shares(lambda p, H, n: 1 / p.max()), "Only the most frequent code counts in yours."),
    Wrong(lambda indices, n: torch.stack([perplexity(one, n) for one in indices]).mean(),
          "You average the perplexities of parts.", "Count over all indices at once."),
]
# fmt: on

formula(
    "03.perplexity",
    task="Write `perplexity`: exp of the entropy of the codes' shares in indices (int64, of any "
    "shape), a scalar from 1 to n_codes. Codes that don't occur add 0.",
    signature="perplexity(indices, n_codes) -> scalar",
    solution=perplexity,
    hints=[
        "First the share p of each code: how often it occurs, divided by how many there are.",
        "`torch.bincount(indices.flatten(), minlength=n_codes)` counts.",
        "The entropy is −Σ p log p, where 0 log 0 is 0: `torch.special.entr`, `torch.xlogy`, or "
        "leave out the codes that don't occur. Then `exp`.",
    ],
    right=perplexity,
    inputs=_draw_indices,
    take=_take_perplexity,
    result="perplexity",
    tolerance=1e-3,
    wrong=_PERPLEXITY_WRONG,
    hint="exp of the entropy −Σ p log p, with the natural logarithm.",
    otherwise=_not_a_perplexity,
    passes="exp of the entropy: as many codes as would give this entropy if all were equally "
    "frequent.",
)


# --- A dead codebook -----------------------------------------------------------------------------


@exercise(
    "03.break_the_codebook",
    task="Break it: for vectors [N, d] return n_codes codes [n_codes, d] to start from, so that "
    "without revival hardly any is ever used: a perplexity below 2 after training.",
    signature="codebook(vectors, n_codes) -> [n_codes, d]",
    solution=[dead_codebook, VectorQuantizer.revive],
    hints=[
        "Which codes move? Only those that are the nearest to some vector.",
        "A code that is chosen by nobody in the first batch has no reason to be chosen later, if "
        "the others come nearer to the vectors.",
        "Put one code among the vectors and all the others far away from them.",
    ],
)
def _check_break_the_codebook(attempt: Attempt, generator: torch.Generator) -> str:
    words = []
    # The same vectors each time: with others it would be luck whether codes on one spot survive.
    generator = torch.Generator().manual_seed(0)
    for n_codes, dim in ((64, 2), (32, 8)):
        # 16 heaps of vectors, away from the origin: a good codebook uses many codes.
        heaps = 3 + 2 * torch.randn(16, dim, generator=generator)
        vectors = heaps.repeat(32, 1) + 0.2 * torch.randn(512, dim, generator=generator)
        codebook = attempt(vectors, n_codes)
        codebook = take_tensor("codebook", codebook, (n_codes, dim), dtype=vectors.dtype).detach()
        if codebook.abs().max() > 1e6:
            raise Mistake(
                f"Your codes are as large as {codebook.abs().max():.0e}: numbers overflow.",
                "Far away is enough; a thousand is far from vectors of about 3.",
            )
        bad = train_codebook(codebook, vectors, revive=False)
        good = train_codebook(codebook, vectors, revive=True)
        if bad.perplexity >= 2:
            _explain_survival(codebook, vectors, bad.perplexity, bad.used)
        words.append(
            f"In {dim} dimensions {bad.used} of {n_codes} codes in use, perplexity "
            f"{bad.perplexity:.2f}; with revival, from the same start, {good.used} codes and "
            f"perplexity {good.perplexity:.1f}."
        )
    return (
        f"Dead. {' '.join(words)} Only a chosen code moves, so one that nobody chose never learns "
        "where the vectors are. Revival puts it onto one of them."
    )


def _explain_survival(codebook: Tensor, vectors: Tensor, left: float, used: int) -> None:
    n_codes = len(codebook)
    alive = f"It survives: {used} of {n_codes} codes are in use, with a perplexity of {left:.2f}."
    if (codebook == codebook[0]).all():
        raise Mistake(
            f"{alive} You put all codes on one spot: the first moves to its vectors, and then "
            "those that it left behind are nearer to some others, and are chosen next.",
            "The spot is too near to the vectors. Who is never the nearest?",
        )
    spread = (vectors - vectors.mean(0)).norm(dim=1).max()
    if (codebook - vectors.mean(0)).norm(dim=1).min() > 3 * spread:
        raise Mistake(
            f"{alive} All your codes are far away, but several are the nearest for some vectors, "
            "and these move in.",
            "Leave one among the vectors: it takes all.",
        )
    raise Mistake(
        f"{alive} Several of your codes are near to vectors at the start, are chosen, and move to "
        "the middle of those that chose them.",
        "Only one code may be the nearest to all vectors; move the others away.",
    )
