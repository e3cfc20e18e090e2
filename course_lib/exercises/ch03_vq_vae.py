"""Exercises of chapter 03: codes and their bits, gradients past a rounding, jumps, dead codes."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from course_lib.exercises.attempt import (
    Attempt,
    Mistake,
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
    task="Write `my_slope_of_jump`: z [N, d] moves to z − step · gradient, and so its nearest code "
    "of codebook [K, d] from e to e'. Return gradient · (e' − e) [N]: what the slope at e says of "
    "the jump. A step below 0 goes uphill.",
    signature="my_slope_of_jump(z, codebook, gradient, step) -> [N]",
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


# --- Past another rounding -----------------------------------------------------------------------


def _draw_numbers(generator: torch.Generator) -> list[tuple[Tensor, int]]:
    """Numbers whose tanh is nowhere halfway between two of the levels."""
    cases = []
    for shape, levels in zip(SHAPES, (5, 3, 7, 9, 5), strict=True):
        half = levels // 2
        whole = torch.randint(-half, half + 1, shape, generator=generator)
        y = (whole + 0.8 * torch.rand(shape, generator=generator) - 0.4) / half
        y.view(-1)[0] = 1  # so that in every case it matters that tanh comes first
        cases.append((y.clamp(-0.95, 0.95).atanh(), levels))
    return cases


def _levelled(y: Tensor, levels: int) -> Tensor:
    return (y * (levels // 2)).round() / (levels // 2)


def _squashed(value: Callable[[Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """An answer of another value, a function of tanh(z) and the levels, with the right gradient."""
    return lambda z, levels: straight_through(z.tanh(), value(z.tanh(), levels))


_SPACED = "From −1 to 1 are levels − 1 gaps: round tanh(z) · (levels − 1) / 2, and divide again."
# fmt: off
_ROUND_WRONG = [
    Wrong(_squashed(lambda y, levels: y), "Your value is tanh(z): nothing is rounded.", _SPACED),
    Wrong(lambda z, levels: straight_through(z, _levelled(z, levels)),
          "You round z itself, which may lie far outside of [−1, 1].", "First tanh, then round."),
    Wrong(_squashed(lambda y, levels: (y * levels / 2).round() / (levels / 2)),
          "Your values are 2 / levels apart.", _SPACED),
    Wrong(_squashed(lambda y, levels: _levelled(y, 2 * levels - 1)),
          "You round to 2 · levels − 1 values.", _SPACED),
    Wrong(_squashed(lambda y, levels: (y * (levels // 2)).round()),
          "Your values are whole numbers.", "Divide again: they go from −1 to 1."),
    Wrong(_squashed(lambda y, levels: (y * (levels // 2)).floor() / (levels // 2)),
          "You round down.", "To the nearest: `round`."),
    Wrong(lambda z, levels: _levelled(z.tanh(), levels),
          "The derivative of `round` is 0: an encoder before it would learn nothing.",
          "tanh(z) must stay in the expression, once outside of any `detach`."),
    Wrong(lambda z, levels: straight_through(z, _levelled(z.tanh(), levels)),
          "Your gradient is that of z: the slope of tanh is missing.",
          "Only the rounding is passed over: y + (rounded − y).detach() with y = tanh(z)."),
    Wrong(lambda z, levels: z.tanh() + straight_through(z.tanh(), _levelled(z.tanh(), levels))
          - z.tanh().detach(), "The gradient arrives twice.",
          "tanh(z) stands outside of a `detach` once, with the factor 1."),
]
# fmt: on

formula(
    "03.round_through",
    task="Write `round_through`: tanh of each number of z, rounded to the nearest of `levels` "
    "evenly spaced values from −1 to 1 (levels is odd); the gradient is that of tanh(z), as if "
    "nothing had been rounded.",
    signature="round_through(z, levels) -> tensor",
    solution=straight_through,
    hints=[
        "Two parts: a value, which has no useful gradient, and a y = tanh(z) that has one.",
        "With 5 levels y is rounded to −1, −½, 0, ½ or 1: 2 y to whole numbers, and then half of "
        "them.",
        "Straight through, from y to its rounded value: rounded.detach() + (y − y.detach()).",
    ],
    right=_squashed(_levelled),
    inputs=_draw_numbers,
    axes="[B, *rest], _ -> [B, *rest]",
    gradients=["z"],
    gradient_hint="The derivative by z must be that of tanh(z), 1 − tanh²(z).",
    wrong=_ROUND_WRONG,
    otherwise=("Your value is not tanh(z) rounded to the nearest level.", _SPACED),
    passes="Each number lands on one of the levels, and the encoder learns as if it did not: a "
    "code without a codebook, in which no code can die.",
)


# --- Two losses and a gradient -------------------------------------------------------------------

_FORCES = "Two gradients arrive at z: the decoder's, straight through, and the commitment's."
# fmt: off
_REST_WRONG = [
    Slip(-4, "z goes down the gradient: it moves up, past its code.",
         "The loss falls as e rises, and so does straight-through's loss as z rises."),
    Slip(8, "You forget the 2 of the square's derivative.", "d/dz β (z − e)² = 2 β (z − e)."),
    Slip(1, "Your commitment has the weight 1.", "It is multiplied by β = ¼."),
    Slip(0.8, "Both terms of the codebook pull at your z.",
         "In the first z stands behind sg[·]: it pulls at the code alone.", within=1e-6),
    Slip(0, "At its code nothing holds z against the decoder's gradient.", _FORCES),
    Slip(0.5, "You multiply by β where you must divide.",
         "The weaker the commitment, the farther z gets."),
    Slip(2, "That is the size of the gradient.", _FORCES),
    Slip(16, "You divide by β twice.", _FORCES),
]
# fmt: on

prediction(
    "03.predict_rest",
    task="Predict: z is one number, its code e stands still, and no border is near. The decoder's "
    "gradient at e is −2, β = ¼. Training follows the gradient of all three terms, each the square "
    "itself: at which z − e does z stop?",
    solution=[straight_through, vq_loss],
    hints=[
        "Write down every gradient that arrives at z. Which terms send none?",
        "Straight through, the decoder's −2 arrives as it is; sg[z] stops the second term.",
        "−2 + 2 β (z − e) = 0.",
    ],
    right=4,
    wrong=_REST_WRONG,
    passes="−2 + 2 · ¼ · 4 = 0: the weaker the commitment, the farther. No step on the way there "
    "changed the image. If a border comes first, z crosses it and its code jumps: β decides how "
    "far a vector may get before it is held.",
    question="How far above its code does z stop?",
    hint=_FORCES,
    otherwise=lambda got: (f"{got:.4g} is too {'far' if got > 4 else 'near'}.", _FORCES),
)


# --- The codebook --------------------------------------------------------------------------------


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
    task="Write `my_perplexity`: exp of the entropy of the codes' shares in indices (int64, of any "
    "shape), a scalar from 1 to n_codes. Codes that don't occur add 0.",
    signature="my_perplexity(indices, n_codes) -> scalar",
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
    task="Break it: write `my_dead_codebook`, vectors [N, d] to n_codes codes [n_codes, d] to "
    "start from, so that without revival hardly any is ever used: a perplexity below 2 after "
    "training.",
    signature="my_dead_codebook(vectors, n_codes) -> [n_codes, d]",
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
