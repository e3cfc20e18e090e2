"""Exercises of chapter 03: codes and their bits, the nearest code, gradients past it, dead codes.

Every check works with tolerances for which a right answer is refused less than once in 10⁶ times.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from course_lib.exercises.attempt import (
    Attempt,
    Mistake,
    all_apart,
    diagnose,
    same,
    take_pair,
    take_tensor,
    take_whole_number,
)
from course_lib.exercises.registry import exercise
from course_lib.experiments.dead_codes import dead_codebook, train_codebook
from course_lib.latent import VectorQuantizer, code_bits, perplexity, straight_through, vq_loss

__all__: list[str] = []

# --- What a map of codes can say -----------------------------------------------------------------


@exercise(
    "03.predict_bits",
    task="Predict: how many bits does a map of 7 × 7 codes hold at most, each of them one of "
    "K = 64?",
    solution=code_bits,
    hints=[
        "Start with one code: how many yes-or-no questions find out which of 64 it is?",
        "Each question halves what is left: 64, 32, 16, ... How often until 1 is left?",
        "log2 K bits for each code, and 49 codes.",
    ],
)
def _check_predict_bits(attempt: Any, generator: torch.Generator) -> str:
    places, n_codes = 49, 64
    question = "How many bits tell one of 64 codes, and how many codes are there?"
    number = attempt.item() if isinstance(attempt, Tensor) and attempt.numel() == 1 else attempt
    if isinstance(number, Real) and abs(number - places * math.log(n_codes)) < 0.5:
        raise Mistake("That is the number of nats.", "In bits, the logarithm has base 2.")
    if isinstance(number, Real) and abs(number - n_codes * math.log2(places)) < 0.5:
        raise Mistake(
            "You swap places and codes: that is 64 · log2 49.",
            "49 places hold one of 64 codes each: 64^49 maps in all.",
        )
    if isinstance(number, Real) and abs(number - 36.75) < 0.3:
        raise Mistake("That is the number of bytes.", "A byte has 8 bits.")
    got, right = take_whole_number(attempt, 0, question), round(code_bits(7, 7, n_codes))
    if got == right:
        return (
            f"49 · log2 64 = 49 · 6 = {right} bits, 37 bytes. The image has 784 pixels: in black "
            "and white up to 784 bits, in 256 greys 6,272. It is the most the map can say; a "
            "prior that knows which codes are likely needs fewer."
        )
    logarithm = "A code is one of 64 = 2^6: 6 yes-or-no questions find it."
    known = {
        places * n_codes: (
            "You count 64 bits for each code: as many as there are codes, or as an int64 takes.",
            logarithm,
        ),
        6: ("That many bits has one code.", "The map has 7 × 7 of them."),
        n_codes: ("That is the number of codes to choose from.", logarithm),
        places: ("That is the number of places, one bit for each.", logarithm),
        7 * 6: ("That is one row of the map.", "The map has 7 rows of 7 codes."),
        14 * 6: ("You add 7 and 7 where you must multiply.", "The map has 7 rows of 7 codes."),
        784: (
            "784 is the number of pixels of the image, 28 × 28.",
            "Only the map counts: 7 × 7 codes.",
        ),
        784 * 6: ("You count a code for each pixel.", "The map has 7 × 7 codes, not 28 × 28."),
        784 * 8: ("That many bits has the image, in 256 greys.", "Count the bits of its map."),
        places * 8: ("You count a byte for each code.", logarithm),
        places * 7: (
            "You count 7 bits for each code: that would be up to 128 codes.",
            "The codes are 0 ... 63. In binary 63 is 111111, 6 digits.",
        ),
        places * 5: ("You count 5 bits for each code: that is 32 codes.", logarithm),
        places * 32: ("You count 32 bits for each code, as a float takes.", logarithm),
        n_codes**places: (
            "That is the number of different maps, 64^49.",
            "Bits are the logarithm of that, with base 2.",
        ),
        places**n_codes: (
            "49^64 swaps places and codes; and bits are a logarithm.",
            "There are 64^49 maps: take log2 of that.",
        ),
    }
    number = f"{got:,}" if got < 10**12 else "That"
    reason = f"{number} is too {'many' if got > right else 'few'}."
    raise Mistake(*known.get(got, (reason, logarithm)))


# --- The nearest code ----------------------------------------------------------------------------


@exercise(
    "03.nearest_code",
    task="Write `nearest_code`: for each row of z [N, d] the index (int64, [N]) of the row of "
    "codebook [K, d] that is nearest by Euclidean distance.",
    signature="nearest_code(z, codebook) -> [N]",
    solution=VectorQuantizer.nearest,
    hints=[
        "First all distances, [N, K], then the smallest of each row.",
        "`z[:, None] - codebook` is [N, K, d]; `torch.cdist(z, codebook)` gives the distances.",
        "`argmin(dim=1)`. The root of a distance changes no order, so it need not be taken.",
    ],
)
def _check_nearest_code(attempt: Attempt, generator: torch.Generator) -> str:
    for n, n_codes, dim in ((400, 16, 3), (9, 50, 1), (5, 1, 2)):
        z, codebook = _vectors_and_codes(n, n_codes, dim, generator)
        # Now and then one code lies so far out that most mistakes name it: they look alike then.
        while n == 400 and not _tell_apart(_known_indices(z, codebook)):
            z, codebook = _vectors_and_codes(n, n_codes, dim, generator)
        got = _take_indices(attempt(z, codebook), n, n_codes)
        squared = (z[:, None] - codebook).double().square().sum(2)
        chosen = squared.gather(1, got[:, None])[:, 0]
        # Two codes that are equally near, up to rounding, are both right.
        if (chosen > squared.amin(1) + 1e-4 * (1 + squared.amax(1))).any():
            _diagnose_nearest(got, _known_indices(z, codebook), squared)
    return "No code is nearer to any of 400 vectors than the one you name."


def _vectors_and_codes(
    n: int, n_codes: int, dim: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    z = 1.5 * torch.randn(n, dim, generator=generator)
    codebook = torch.randn(n_codes, dim, generator=generator)
    # Short codes and long ones, so that their lengths matter.
    codebook = codebook * (0.3 + 2 * torch.rand(n_codes, 1, generator=generator))
    z[-1] = codebook[-1]  # so that the last code is named, too: counting from 1 goes too far
    return z, codebook


def _tell_apart(known: list[tuple[Tensor, str, str]]) -> bool:
    indices = torch.stack([index for index, _, _ in known])
    shares = (indices[:, None] == indices).float().mean(2)  # where two mistakes name the same code
    return bool((shares.fill_diagonal_(0) < 0.97).all())


def _take_indices(value: Any, n: int, n_codes: int) -> Tensor:
    if isinstance(value, tuple | list):
        raise Mistake(
            f"Your function returns a {type(value).__name__} of {len(value)}, but only indices are "
            "asked for.",
            "`min(dim=1)` returns values and indices; `argmin(dim=1)` only indices.",
        )
    if not isinstance(value, Tensor):
        raise Mistake(
            f"Your indices are of type {type(value).__name__}, not a tensor of shape [{n}].",
            "`argmin(dim=1)` of the distances [N, K] is a tensor of indices.",
        )
    if list(value.shape) != [n]:
        raise Mistake(
            f"Your indices have shape {list(value.shape)}; they must have [{n}], one for each "
            f"vector. There are {n_codes} codes.",
            "Of the distances [N, K] take the smallest along axis 1, the codes.",
        )
    if value.dtype != torch.int64:
        raise Mistake(
            f"Your indices are of dtype {str(value.dtype).removeprefix('torch.')}; they must be "
            "int64.",
            "`argmin` gives the index, `min` and `amin` give the distance itself.",
        )
    if value.min() < 0 or value.max() >= n_codes:
        raise Mistake(
            f"Your indices go from {value.min()} to {value.max()}; codes are 0 ... {n_codes - 1}.",
            "Count from 0, as `argmin` does.",
        )
    return value


def _known_indices(z: Tensor, codebook: Tensor) -> list[tuple[Tensor, str, str]]:
    squared = (z[:, None] - codebook).double().square().sum(2)
    product, lengths = z @ codebook.T, codebook.square().sum(1)
    order = "‖z − e‖² = ‖z‖² − 2 z·e + ‖e‖²: the smallest is nearest."
    return [
        (squared.argmax(1), "You name the farthest code.", "`argmin`, not `argmax`."),
        (
            product.argmax(1),
            "You name the code with the largest product z·e: long codes win.",
            order,
        ),
        (product.argmin(1), "You name the code with the smallest product z·e.", order),
        (
            (product / lengths.sqrt()).argmax(1),
            "You compare angles: how far away a code is does not count.",
            order,
        ),
        ((product - lengths).argmax(1), "Your ‖e‖² counts twice: the 2 of 2 z·e is lost.", order),
        (
            (product + 0.5 * lengths).argmax(1),
            "Your ‖e‖² has the wrong sign.",
            order,
        ),
        (
            (z[:, None] - codebook).abs().sum(2).argmin(1),
            "You add up absolute differences, not squares.",
            "Euclidean distance: the root of the sum of squares.",
        ),
        (
            (z[:, None] - codebook).abs().amax(2).argmin(1),
            "You take the largest difference of a coordinate.",
            "Euclidean distance: the root of the sum of squares.",
        ),
        (
            (z[:, None] - codebook).sum(2).argmin(1),
            "You add up differences without squaring them: they cancel.",
            "Euclidean distance: the root of the sum of squares.",
        ),
        (
            (z[:, None] - codebook).sum(2).abs().argmin(1),
            "You add up differences before you take their size: they cancel.",
            "Square first, then sum.",
        ),
        (
            (z[:, None, 0] - codebook[:, 0]).abs().argmin(1),
            "Only the first coordinate counts in your distances.",
            "Sum the squares over all coordinates, axis 2 of [N, K, d].",
        ),
    ]


def _diagnose_nearest(got: Tensor, known: list[tuple[Tensor, str, str]], squared: Tensor) -> None:
    for index, reason, hint in known:
        # Rounding may tell two codes apart differently in a few of 400 rows.
        if (got == index).float().mean() > 0.985:
            raise Mistake(reason, hint)
    chosen = squared.gather(1, got[:, None])[:, 0]
    row = int((chosen - squared.amin(1)).argmax())
    raise Mistake(
        f"Vector {row} is nearer to code {int(squared[row].argmin())} (distance "
        f"{squared[row].min().sqrt():.2f}) than to your code {int(got[row])} "
        f"({chosen[row].sqrt():.2f}).",
        "Compute the distances of this one vector by hand.",
    )


# --- Past the rounding ---------------------------------------------------------------------------


@exercise(
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
)
def _check_straight_through(attempt: Attempt, generator: torch.Generator) -> str:
    for shape in ((7, 3), (2, 4, 3, 5)):
        z = torch.randn(shape, generator=generator).requires_grad_()
        e = (z.detach() + 0.5 * torch.randn(shape, generator=generator)).requires_grad_()
        got = take_tensor("result", attempt(z, e), shape, dtype=z.dtype)
        if not same(got, e):
            known = [
                (z, "Your value is z: nothing is quantized.", "The value must be e."),
                (2 * z - e, "Your value is 2 z − e: a sign is wrong.", "z + (e − z) is e."),
                (z + e, "Your value is z + e.", "z − z.detach() is 0, and has a gradient."),
                (e - z, "Your value is e − z.", "Add z: it brings the gradient."),
                (z - e, "Your value is z − e.", "e.detach() + (z − z.detach())."),
                ((z + e) / 2, "Your value is halfway between z and e.", "The value must be e."),
                (torch.zeros_like(e), "Your value is 0.", "Add e: the value must be e."),
            ]
            diagnose(got, known, ("Your value is not e.", "Print z, e and your result."))
        _judge_straight_gradient(got, z, e, generator)
    return (
        "The decoder sees e, exactly; its gradient arrives at z unchanged, and e gets none (the "
        "codes learn by another way)."
    )


def _judge_straight_gradient(got: Tensor, z: Tensor, e: Tensor, generator: torch.Generator) -> None:
    arriving = torch.randn(e.shape, generator=generator)  # what comes down from the decoder
    to_z, to_e = _gradients((got * arriving).sum(), (z, e))
    dead_z, dead_e = not to_z.any(), not to_e.any()
    if dead_z and dead_e:
        raise Mistake(
            "No gradient flows back at all.",
            "z must stay in the expression, once without `detach`.",
        )
    if dead_z:
        raise Mistake(
            "All of the gradient goes to e, none to z: the encoder would learn nothing.",
            "z must stay in the expression once without `detach`, and e only with it.",
        )
    if not dead_e:
        raise Mistake(
            "A gradient goes to e, too.",
            "e appears only inside a `detach`: e.detach() + (z − z.detach()).",
        )
    if not same(to_z, arriving):
        factor = float((to_z / arriving).median())
        raise Mistake(
            f"What arrives at z is not what came: about {factor:.2g} times as much.",
            "The derivative by z must be 1: z appears once without `detach`, with factor 1.",
        )


def _gradients(value: Tensor, sources: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a scalar; zeros where none flows."""
    if not value.requires_grad:
        return [torch.zeros_like(source) for source in sources]
    found = torch.autograd.grad(value, sources, allow_unused=True)
    return [
        torch.zeros_like(source) if gradient is None else gradient
        for source, gradient in zip(sources, found, strict=True)
    ]


@exercise(
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
)
def _check_vq_loss(attempt: Attempt, generator: torch.Generator) -> str:
    for shape, low in (((7, 3), 0.2), ((2, 4, 3, 5), 1.5)):
        commitment = low + 0.1 * float(torch.rand((), generator=generator))
        known, right = [], torch.zeros(())
        while not known or not all_apart(right, known):
            z, e = torch.randn((2, *shape), generator=generator)
            right = (1 + commitment) * (z - e).square().mean()
            known = _known_vq_values(z, e, commitment)
        z, e = z.requires_grad_(), e.requires_grad_()
        got = attempt(z, e, commitment)
        if isinstance(got, Tensor) and got.numel() > 1:
            raise Mistake(
                f"Your loss has shape {list(got.shape)}; training needs one number.",
                "Take the mean over everything: batch, places and coordinates.",
            )
        got = take_tensor("loss", got, (), dtype=z.dtype)
        if not same(got, right):
            otherwise = (
                "Your value is not (1 + commitment) times the mean square: stopping gradients "
                "changes no value.",
                "Try z = 1, e = 0, commitment = 0.25: the loss is 1.25.",
            )
            diagnose(got.detach(), known, otherwise)
        _judge_vq_gradients(got, z, e, commitment)
    return (
        "Right in value, and the gradients part: the codes are pulled with weight 1, the encoder's "
        "vectors with weight commitment."
    )


def _known_vq_values(z: Tensor, e: Tensor, commitment: float) -> list[tuple[Tensor, str, str]]:
    square = (z - e).square()
    mean, c = square.mean(), commitment
    average = "`F.mse_loss` takes the mean over all numbers."
    once = "One term with weight 1, for the codes, and one with weight commitment."
    return [
        (mean, "One of the two terms is missing.", once),
        (c * mean, "Only the term with commitment is there.", once),
        (2 * mean, "Your commitment does not count.", once),
        (2 * c * mean, "Both terms have the weight commitment.", once),
        ((1 - c) * mean, "A term has the wrong sign.", "Both pull: add them."),
        ((c - 1) * mean, "A term has the wrong sign.", "Both pull: add them."),
        (-(1 + c) * mean, "Your loss has the wrong sign.", "Training makes it small."),
        ((1 + c) * square.sum(), "You add up over everything.", average),
        ((1 + c) * square.sum() / len(z), "You add up all numbers of one example.", average),
        ((1 + c) * mean / 2, "There is a ½ too much.", "Mean squares, without a factor."),
        ((1 + c) * (z - e).abs().mean(), "You take absolute differences.", "Take squares."),
        ((1 + c) * mean.sqrt(), "You take the root of the mean square.", "Leave the root out."),
        ((1 + c) * (z - e).mean() ** 2, "You square the mean.", "First square, then mean."),
        ((1 + c**2) * mean, "Your commitment is squared.", "It stands outside of the square."),
        (
            (1 + c) * (z - e).norm(),
            "You take the norm, not its square.",
            "The mean of the squares.",
        ),
        ((1 + c) * (z - e).mean(), "You forget to square.", "(z − e)², then the mean."),
    ]


def _judge_vq_gradients(got: Tensor, z: Tensor, e: Tensor, commitment: float) -> None:
    pull = (2 * (z - e) / z.numel()).detach()  # the gradient of the mean square with respect to z
    to_z, to_e = _gradients(got, (z, e))
    c = commitment
    sg_hint = "mean (z.detach() − e)² for the codes, commitment · mean (z − e.detach())² for z."

    def has(weight_z: float, weight_e: float) -> bool:
        return all(
            float((got - wanted).abs().max()) < 1e-3 * float(pull.abs().max())
            for got, wanted in ((to_z, weight_z * pull), (to_e, -weight_e * pull))
        )

    if has(c, 1):
        return
    known = [
        (
            (0, 0),
            "Right in value, but no gradient flows: everything is detached.",
            "Each term detaches one of the two.",
        ),
        (
            (1, c),
            "The two are swapped: the codes move with weight commitment, the encoder with 1.",
            "The commitment is the encoder's: it belongs to the term in which e is detached.",
        ),
        (
            (1 + c, 1 + c),
            "Both terms pull at both z and e: no gradient is stopped.",
            "Detach z in the first term and e in the second.",
        ),
        ((c, 1 + c), "The commitment term pulls at the codes, too.", "Detach e in it."),
        ((1 + c, 1), "The first term pulls at the encoder's z, too.", "Detach z in it."),
        ((0, 1 + c), "Both terms move the codes; the encoder gets no gradient.", sg_hint),
        ((1 + c, 0), "Both terms move the encoder; the codes get no gradient.", sg_hint),
        ((0, 1), "The commitment term gives no gradient.", "Detach e in it, and not z."),
        ((c, 0), "The codes get no gradient.", "Detach z in the first term, and not e."),
        ((0, c), "The codes get the commitment's gradient alone.", sg_hint),
        ((1, 0), "Only the first term gives a gradient, and to z in place of e.", sg_hint),
        ((1, 1), "The first term pulls at both, the second at none.", sg_hint),
        ((c, c), "The second term pulls at both, the first at none.", sg_hint),
    ]
    for weights, reason, hint in known:
        if has(*weights):
            raise Mistake(reason, hint)
    raise Mistake("Right in value, but the gradients of z and e are not those asked for.", sg_hint)


# --- The codebook --------------------------------------------------------------------------------


@exercise(
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
)
def _check_ema_update(attempt: Attempt, generator: torch.Generator) -> str:
    names = ("codebook", "uses")
    for n_codes, dim, n in ((8, 3, 40), (5, 1, 12)):
        decay = 0.7 + 0.2 * float(torch.rand((), generator=generator))
        codebook = torch.randn(n_codes, dim, generator=generator)
        vectors = 1 + torch.randn(n, dim, generator=generator)
        uses = 1 + 4 * torch.rand(n_codes, generator=generator)
        # The last two codes are not chosen, the last and the first were never used at all.
        indices = torch.randint(n_codes - 2, (n,), generator=generator)
        indices[: n_codes - 2] = torch.arange(n_codes - 2)
        uses[0] = uses[-1] = 0
        inputs = (codebook, uses, vectors, indices, decay)

        first, second = take_pair(names, attempt(*inputs))
        if _is_swapped(first, second, codebook.shape):
            raise Mistake("You return the uses first.", "End with `return codebook, uses`.")
        new_uses = take_tensor("uses", second, uses.shape, dtype=uses.dtype).detach()
        right = VectorQuantizer(n_codes, dim, decay=decay, dead_below=0.0)
        right.codebook.copy_(codebook)
        right.uses.copy_(uses)
        right.follow(vectors, indices)
        if not same(new_uses, right.uses):
            _diagnose_uses(new_uses, *inputs)
        if isinstance(first, Tensor) and first.shape == codebook.shape and first[-1].isnan().all():
            raise Mistake(
                "Your codebook holds NaN: the last code was never used, and nobody chose it, so "
                "that its average is 0 / 0.",
                "Change only the codes that were chosen: `torch.where(count > 0, ...)`.",
            )
        new = take_tensor("codebook", first, codebook.shape, dtype=codebook.dtype).detach()
        if not same(new, right.codebook):
            _diagnose_codebook(new, right.codebook, *inputs)
    return (
        "Each code is the mean of the vectors that chose it, those of older batches with less "
        "weight. Codes that nobody chose stay, and their uses fade: dead codes can be told."
    )


def _is_swapped(first: Any, second: Any, shape: Sequence[int]) -> bool:
    return (
        isinstance(first, Tensor)
        and isinstance(second, Tensor)
        and second.shape == shape
        and first.shape == shape[:1]
    )


def _diagnose_uses(
    got: Tensor, codebook: Tensor, uses: Tensor, vectors: Tensor, indices: Tensor, decay: float
) -> None:
    count = torch.bincount(indices, minlength=len(uses)).to(uses.dtype)
    right = decay * uses + (1 - decay) * count
    formula = "uses' = decay · uses + (1 − decay) · count."
    known = [
        ((1 - decay) * uses + decay * count, "Your decay and 1 − decay are swapped.", formula),
        (decay * uses + count, "Your counts lack the factor 1 − decay.", formula),
        (uses + (1 - decay) * count, "Your old uses lack the factor decay.", formula),
        (uses + count, "You add up uses and counts: nothing is ever forgotten.", formula),
        (count, "Your uses are the counts of this batch alone.", formula),
        (uses, "You leave the uses as they were.", formula),
        (decay * uses, "You forget the counts of this batch.", formula),
        (
            decay * uses + (1 - decay) * count / len(vectors),
            "You average shares; count is a number of vectors.",
            formula,
        ),
        (
            decay * uses + (1 - decay) * (count > 0),
            "You count each chosen code once, however many vectors chose it.",
            "`torch.bincount` counts. (`x[indices] += 1` adds 1 only once for a repeated index.)",
        ),
        (
            torch.where(count > 0, right, uses),
            "The uses of codes that nobody chose stay as they were.",
            "They must fade, or a dead code never shows: only the code itself stays.",
        ),
    ]
    diagnose(got, known, ("Your uses are not the moving average of the counts.", formula))


def _diagnose_codebook(
    got: Tensor,
    right: Tensor,
    codebook: Tensor,
    uses: Tensor,
    vectors: Tensor,
    indices: Tensor,
    decay: float,
) -> None:
    count = torch.bincount(indices, minlength=len(uses)).to(uses.dtype)[:, None]
    total = torch.zeros_like(codebook).index_add(0, indices, vectors)
    old, chosen = uses[:, None], count > 0
    mean = total / count.clamp(min=1)
    m = decay * old * codebook + (1 - decay) * total
    n = decay * old + (1 - decay) * count
    if same(got[chosen[:, 0]], right[chosen[:, 0]]):
        off = ((got - right).abs().amax(1) > 1e-3) & ~chosen[:, 0]
        where = "to the origin" if not got[off].any() else "away"
        raise Mistake(
            f"Codes that nobody chose move {where}: code {int(off.nonzero()[0])} does.",
            "Change only the codes that were chosen: `torch.where(count > 0, ...)`.",
        )
    formula = "(decay · uses · codebook + (1 − decay) · sum) / uses', with the new uses."
    only_old = "Their old sum is uses · codebook; new vectors enter with 1 − decay."
    last = torch.zeros_like(codebook).index_copy(0, indices.flip(0), vectors.flip(0))
    final = torch.zeros_like(codebook)
    for k, vector in zip(indices.tolist(), vectors, strict=True):
        final[k] = vector
    known = [
        (codebook, "Your codes don't move.", formula),
        (mean, "Your codes jump to the means of this batch.", only_old),
        (
            decay * codebook + (1 - decay) * mean,
            "You average codes and means with fixed weights: how many vectors chose a code does "
            "not count.",
            formula,
        ),
        (
            (decay * codebook + (1 - decay) * total) / n,
            "Your old code is not multiplied by its uses.",
            only_old,
        ),
        (
            (decay * old * codebook + (1 - decay) * mean) / n,
            "You take the mean of the new vectors; the formula has their sum.",
            formula,
        ),
        (
            (old * codebook + (1 - decay) * total) / n,
            "Your old sum lacks the factor decay.",
            formula,
        ),
        (
            (decay * old * codebook + total) / n,
            "The sum of the new vectors lacks the factor 1 − decay.",
            formula,
        ),
        (m / count, "You divide by the counts of this batch.", formula),
        (m, "You forget to divide by the uses.", formula),
        (
            ((1 - decay) * old * codebook + decay * total) / n,
            "Your decay and 1 − decay are swapped in the codebook.",
            formula,
        ),
        (
            (decay * n * codebook + (1 - decay) * total) / n,
            "You multiply the old code by the new uses.",
            "The old sum is old uses · codebook: update the uses afterwards.",
        ),
        *(
            (
                (decay * old * codebook + (1 - decay) * one) / n,
                "Of the vectors that chose a code only one counts.",
                "`x[indices] += vectors` adds only one for a repeated index: use `index_add`.",
            )
            for one in (last, final)
        ),
    ]
    known = [
        (value, reason, hint)
        for wrong, reason, hint in known
        for value in (wrong[chosen[:, 0]],)  # of the others every reader makes something else
    ]
    otherwise = ("Your codes are not the moving averages asked for.", formula)
    diagnose(got[chosen[:, 0]], known, otherwise)


@exercise(
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
)
def _check_perplexity(attempt: Attempt, generator: torch.Generator) -> str:
    for shape, n_codes in (((5, 4, 7), 12), ((300,), 6), ((50,), 1), ((2, 3), 40)):
        indices = _unequal_indices(shape, n_codes, generator)
        right, known = perplexity(indices, n_codes), _known_perplexities(indices, n_codes)
        while len(shape) == 3 and not all_apart(right, known):
            indices = _unequal_indices(shape, n_codes, generator)
            right, known = perplexity(indices, n_codes), _known_perplexities(indices, n_codes)
        value = attempt(indices, n_codes)
        if isinstance(value, Real) and not isinstance(value, bool):
            value = torch.tensor(float(value))
        if isinstance(value, Tensor) and value.ndim == 0 and value.isnan():
            raise Mistake(
                "Your perplexity is NaN where a code does not occur: 0 · log 0 is 0 · (−∞).",
                "`torch.special.entr(p)` and `torch.xlogy(p, p)` know that it is 0.",
            )
        got = take_tensor("perplexity", value, ()).detach()
        if not same(got, right, tolerance=1e-3):
            if got < 0.999 or got > n_codes + 1e-3:
                otherwise = f"Your perplexity is {got:.3g}; it lies between 1 and {n_codes}."
            else:
                otherwise = "Your value is not exp of the entropy of the shares."
            hint = "With two codes, each in half of the places, it is 2; with one code alone 1."
            diagnose(got, known, (otherwise, hint))
    return (
        "exp of the entropy: as many codes as would give this entropy if all were equally frequent."
    )


def _unequal_indices(shape: tuple[int, ...], n_codes: int, generator: torch.Generator) -> Tensor:
    """Codes with unequal shares; the last do not occur."""
    share = torch.linspace(1, 4, max(1, n_codes - 2)) ** 2
    many = torch.multinomial(share, math.prod(shape), replacement=True, generator=generator)
    return many.reshape(shape)


def _known_perplexities(indices: Tensor, n_codes: int) -> list[tuple[Tensor, str, str]]:
    share = torch.bincount(indices.flatten(), minlength=n_codes) / indices.numel()
    entropy = torch.special.entr(share).sum()
    by_image = torch.stack([perplexity(one, n_codes) for one in indices]).mean()
    exp = "exp of the entropy −Σ p log p, with the natural logarithm."
    return [
        (entropy, "Your value is the entropy, in nats.", "Take exp of it."),
        (entropy / math.log(2), "Your value is the entropy, in bits.", exp),
        ((entropy / math.log(2)).exp(), "You take exp of an entropy in bits.", exp),
        ((entropy * math.log(2)).exp(), "You take 2 to the power of an entropy in nats.", exp),
        ((-entropy).exp(), "Your entropy has the wrong sign: p log p is negative.", exp),
        (-entropy, "Your value is Σ p log p.", exp),
        (
            (share > 0).sum(),
            "You count the codes that occur, however rare.",
            "A code that occurs once hardly counts: weigh by the shares.",
        ),
        (torch.tensor(n_codes), "You give n_codes, which is the most it can be.", exp),
        (
            entropy.exp() / n_codes,
            "You divide by n_codes.",
            "The perplexity is a number of codes, not a share.",
        ),
        ((entropy / n_codes).exp(), "You average over the codes.", "Entropy is a sum over codes."),
        (1 / share.square().sum(), "You give 1 / Σ p²: another measure of the same kind.", exp),
        (1 / share.max(), "Only the most frequent code counts in yours.", exp),
        (by_image, "You average the perplexities of parts.", "Count over all indices at once."),
    ]


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
