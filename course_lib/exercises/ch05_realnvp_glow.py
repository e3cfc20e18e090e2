"""Exercises of chapter 05: affine couplings, squeeze, ActNorm, 1×1 convolutions, temperature.

Every check works with tolerances for which a right answer is refused less than once in 10⁶ times.
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.exercises.attempt import (
    Attempt,
    Mistake,
    check_gradients,
    diagnose,
    log_abs_det_jacobian,
    same,
    take_pair,
    take_tensor,
    take_whole_number,
)
from course_lib.exercises.registry import exercise
from course_lib.experiments.blow_up import StackReport, far_latents, run_stack, runaway_log_scale
from course_lib.flows import (
    ActNorm,
    AffineCoupling,
    AlternatingMask,
    DiagonalScaling,
    Flow,
    Glow,
    InvertibleConv1x1,
    Split,
    Squeeze,
    StandardGaussian,
)

__all__: list[str] = []

Known = list[tuple[Tensor, str, str]]

_BATCH = 7  # not the number of coordinates, so that swapped axes show

# --- How much passes through the last level ------------------------------------------------------


@exercise(
    "05.predict_split",
    task="Predict: a 3 × 32 × 32 image goes through a Glow with 3 levels. How many of its 3,072 "
    "numbers pass through the steps of the last level?",
    solution=[Squeeze.output_shape, Split.output_shape],
    hints=[
        "A squeeze moves numbers and loses none. A split lets half of them leave the flow.",
        "There is a split after every level but the last.",
        "Follow the shape: 3 × 32 × 32, squeezed 12 × 16 × 16, after the split 6 × 16 × 16, and "
        "the same once more; then one squeeze.",
    ],
)
def _check_predict_split(attempt: Any, generator: torch.Generator) -> str:
    number = attempt.item() if isinstance(attempt, Tensor) and attempt.numel() == 1 else attempt
    if isinstance(number, Real) and abs(number - 0.25) < 1e-6:
        raise Mistake("That is the share.", "How many numbers are a quarter of 3,072?")
    got = take_whole_number(attempt, 1, "Half leaves at every split: how many splits are there?")
    shapes = Glow((3, 32, 32), levels=3, depth=1, hidden=1).scale_shapes
    first, second, right = (math.prod(shape) for shape in shapes)
    if got == right:
        return (
            f"{right}, a quarter: 48 × 4 × 4. Of the others {first:,} left after the first level "
            f"and {second} after the second. z has all {first + second + right:,} of them, but "
            "three quarters took a shorter way."
        )
    leaves = "After each level but the last a split lets half of the numbers go."
    keeps = "A squeeze only moves numbers: four times the channels, a quarter of the places."
    known = {
        first + second + right: (
            "All 3,072 numbers reach z, but not all pass through the last level.",
            leaves,
        ),
        first: (
            "1,536 numbers pass through the second level: one split came before.",
            "Before the third level there is a second split.",
        ),
        right // 2: (
            "You split once too often: the last level ends without a split.",
            "3 levels have 2 splits between them.",
        ),
        right // 4: (
            "192 is what is left when each split lets three quarters go, or the number of channels "
            "after three squeezes without a split.",
            "A split halves the channels; count the numbers, channels times places.",
        ),
        first + second: (
            "2,304 numbers left before the last level: you count those that do not pass.",
            "What is left of 3,072?",
        ),
        3072 // 3: (
            "You divide by the number of levels.",
            leaves,
        ),
        3 * 4 * 4: (
            "48 is the number of channels of the last level, or what is left of 3,072 when each of "
            "three squeezes loses three quarters.",
            keeps + " Multiply the channels by the places, 4 × 4.",
        ),
        3 * 4 * 4 // 4: (
            "You let a squeeze lose numbers, as if it kept one pixel of each block.",
            keeps,
        ),
        4 * 4: ("16 is the number of places in the last level.", "Each of them has 48 channels."),
        4 * 3072: ("A squeeze makes no numbers.", keeps),
        2 * 3072: ("No level has more numbers than the image.", keeps),
    }
    reason = f"{got:,} is too {'many' if got > right else 'few'}."
    raise Mistake(*known.get(got, (reason, leaves)))


# --- Affine couplings ----------------------------------------------------------------------------

_CASES = [(dim, flip) for dim in (4, 5) for flip in (False, True)]

# What becomes of the moved half a, with log-scale s and shift t.
_Formula = Callable[[Tensor, Tensor, Tensor], Tensor]


class _ScaleAndShift:
    """The log-scale and shift of a random coupling; says so when it is given the wrong columns."""

    def __init__(self, coupling: AffineCoupling):
        self.coupling = coupling
        self.weight = coupling.net.layers[0].weight

    def __call__(self, kept: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(kept, Tensor):
            raise Mistake(
                f"You call scale_and_shift with a {type(kept).__name__}.",
                "Give it the half that stays, a tensor.",
            )
        n_kept = self.coupling.mask.n_kept
        if kept.ndim != 2 or kept.shape[1] != n_kept:
            raise Mistake(
                f"You call scale_and_shift on a tensor of shape {list(kept.shape)}; the half that "
                f"stays has {n_kept} columns.",
                "Columns, not rows: `x[:, 0::2]` are the even coordinates, `x[:, 1::2]` the odd.",
            )
        return self.coupling.scale_and_shift(kept)


def _random_coupling(
    dim: int, flip: bool, generator: torch.Generator
) -> tuple[AffineCoupling, _ScaleAndShift, Tensor]:
    """A coupling with a random network, what it says, and random points ``[B, dim]``."""
    coupling = AffineCoupling(dim, [16], flip=flip).float()
    x = torch.randn(_BATCH, dim, generator=generator)
    log_scale = torch.zeros(())
    # Some coordinates shrink and others grow, so that a sign that is lost shows.
    while not log_scale.min() < -0.2 < 0.2 < log_scale.max():
        for parameter in coupling.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            size = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.7
            parameter.data = size * noise
        log_scale, _ = coupling.scale_and_shift(coupling.mask.split(x)[0])
    return coupling, _ScaleAndShift(coupling), x


def _stretch(a: Tensor, s: Tensor, t: Tensor) -> Tensor:
    return a * s.exp() + t


def _shrink(a: Tensor, s: Tensor, t: Tensor) -> Tensor:
    return (a - t) * (-s).exp()


def _formula_mistakes(inverse: bool) -> list[tuple[_Formula, str, str]]:
    """Other formulas for the moved half than ``_stretch``, or with ``inverse`` than ``_shrink``."""
    exp = "The log-scale is the logarithm of the factor: take `exp`."
    both = "`scale_and_shift` returns the log-scale first, then the shift."
    if inverse:
        order = (
            "What was done last is undone first: subtract the shift, then multiply by "
            "exp(−log_scale)."
        )
        return [
            (_stretch, "You run the coupling forward again; this direction has to undo it.", order),
            (
                lambda a, s, t: a * (-s).exp() - t,
                "You shrink first and subtract the shift afterwards.",
                order,
            ),
            (
                lambda a, s, t: (a - t) * s.exp(),
                "You multiply by exp(log_scale) where you must divide.",
                "The factor exp(s) is undone by exp(−s).",
            ),
            (
                lambda a, s, t: (a - t) * -s.exp(),
                "You multiply by −exp(log_scale).",
                "The minus belongs inside: exp(−s) is 1 / exp(s).",
            ),
            (lambda a, s, t: (a + t) * (-s).exp(), "You add the shift; subtract it.", order),
            (lambda a, s, t: a * (-s).exp() + t, "You add the shift; subtract it.", order),
            (lambda a, s, t: (t - a) * (-s).exp(), "Your moved half has the wrong sign.", order),
            (lambda a, s, t: a - t, "You forget the scale.", order),
            (lambda a, s, t: a * (-s).exp(), "You forget the shift.", order),
            (lambda a, s, t: (a - t) / s, "You divide by the log-scale itself.", exp),
            (lambda a, s, t: (a - t) * s, "You multiply by the log-scale itself.", exp),
            (lambda a, s, t: _shrink(a, t, s), "You swap the log-scale and the shift.", both),
        ]
    order = "First stretch, then shift: x_moved · exp(log_scale) + shift."
    return [
        (_shrink, "You run the inverse; from data to latent the coupling stretches.", order),
        (
            lambda a, s, t: (a + t) * s.exp(),
            "You shift first and stretch afterwards, so that the shift is stretched, too.",
            order,
        ),
        (
            lambda a, s, t: a * (-s).exp() + t,
            "You multiply by exp(−log_scale): that belongs to the inverse.",
            order,
        ),
        (lambda a, s, t: a * s.exp() - t, "You subtract the shift; add it.", order),
        (lambda a, s, t: a + t, "You forget the scale: that is the additive coupling.", order),
        (lambda a, s, t: a * s.exp(), "You forget the shift.", order),
        (lambda a, s, t: a * s + t, "You multiply by the log-scale itself.", exp),
        (lambda a, s, t: a * (1 + s) + t, "You multiply by 1 + log_scale.", exp),
        (
            lambda a, s, t: a * s.sigmoid() + t,
            "You multiply by the sigmoid of the log-scale.",
            f"{exp} (Some codes use a sigmoid; then its logarithm is the log-scale.)",
        ),
        (
            lambda a, s, t: a * (s + 2).sigmoid() + t,
            "You multiply by a sigmoid, as Glow's code does.",
            f"Glow's network gives the factor in this way; here it gives s. {exp}",
        ),
        (lambda a, s, t: a * t.exp() + s, "You swap the log-scale and the shift.", both),
        (
            lambda a, s, t: s.exp() + t,
            "You overwrite the moved half.",
            "Multiply what was there by exp(log_scale): it must not be lost.",
        ),
    ]


def _structure_mistakes(x: Tensor, coupling: AffineCoupling, formula: _Formula) -> Known:
    """What a right formula gives on wrong halves, for an even number of columns."""
    mask, half = coupling.mask, x.shape[1] // 2
    kept, moved = mask.split(x)
    left, right = x[:, :half], x[:, half:]

    def new(moved: Tensor, kept: Tensor) -> Tensor:
        return formula(moved, *coupling.scale_and_shift(kept))

    out, into = ("z", "x") if formula is _stretch else ("x", "z")
    which, other = ("odd", "even") if coupling.flip else ("even", "odd")
    halves = (
        "You split down the middle.",
        "The halves are the even coordinates `0::2` and the odd ones `1::2`.",
    )
    both = (
        "You move both halves.",
        "One half stays as it is; the next coupling of the flow moves it.",
    )
    side = (
        f"Your {out} holds the two halves side by side instead of interleaved.",
        "Write the moved half back to the columns it came from.",
    )
    swapped = (
        f"Your {out} keeps the wrong half" + (": you ignore `flip`." if coupling.flip else "."),
        f"With flip={coupling.flip} the {which} coordinates stay and the {other} ones move.",
    )
    right_half, wrong_half = new(moved, kept), new(kept, moved)
    return [
        (mask.merge(wrong_half, moved), *swapped),
        (
            mask.merge(kept, new(moved, moved)),
            "Log-scale and shift are computed from the half that moves.",
            f"Compute them from the half that stays, which {out} still holds: only so can the step "
            "be undone.",
        ),
        (x, f"Your {out} is {into}, unchanged.", f"Move the {other} coordinates."),
        (mask.merge(new(kept, right_half), right_half), *both),
        (mask.merge(wrong_half, new(moved, wrong_half)), *both),
        (mask.merge(wrong_half, right_half), *both),
        (torch.cat([left, new(right, left)], 1), *halves),
        (torch.cat([new(left, right), right], 1), *halves),
        (torch.cat([kept, right_half], 1), *side),
        (torch.cat([right_half, kept], 1), *side),
        (
            mask.merge(right_half, kept),
            "You exchange the two halves.",
            f"The {which} columns of {out} are those of {into}.",
        ),
    ]


def _judge_coupling(
    got: Tensor, right: Tensor, x: Tensor, coupling: AffineCoupling, formula: _Formula
) -> None:
    """Raise the mistake in ``got``, if any: a half that should stay, or the half that moves."""
    if same(got, right):
        return
    inverse = formula is _shrink
    kept, moved = coupling.mask.split(x)
    s, t = coupling.scale_and_shift(kept)
    known = [
        (coupling.mask.merge(kept, other(moved, s, t)), reason, hint)
        for other, reason, hint in _formula_mistakes(inverse)
    ]
    if x.shape[1] % 2 == 0:
        known += _structure_mistakes(x, coupling, formula)
    out, into = ("x", "z") if inverse else ("z", "x")
    if same(coupling.mask.split(got)[0], kept):
        text = (
            "(z_moved − shift) · exp(−log_scale)" if inverse else "x_moved · exp(log_scale) + shift"
        )
        otherwise = (
            f"Your {out} keeps the right half, but its other half is not {text}.",
            "Call `log_scale, shift = scale_and_shift(kept half)` once; the rest is one line.",
        )
    else:
        which = "odd" if coupling.flip else "even"
        otherwise = (
            f"Your {out} changes the half that must stay: the {which} coordinates.",
            f"Copy {into} first, then change the other half of the copy only.",
        )
    diagnose(got, known, otherwise)


@exercise(
    "05.affine_coupling",
    task="Write `affine_coupling`: keep half of the coordinates of x [B, D], move the other half "
    "to x · exp(log_scale) + shift, return z [B, D] and log_det [B].",
    signature="affine_coupling(x, scale_and_shift, flip) -> (z, log_det)",
    solution=[AlternatingMask, AffineCoupling.forward],
    hints=[
        "With flip=False the even columns `0::2` stay and the odd ones `1::2` move, with flip=True "
        "the other way round. Start from `z = x.clone()`.",
        "`log_scale, shift = scale_and_shift(kept half)`: both have the shape of the moved half.",
        "The Jacobian is triangular. Its diagonal holds a 1 for each kept coordinate and a factor "
        "exp(log_scale) for each moved one: what is the logarithm of their product?",
    ],
)
def _check_affine_coupling(attempt: Attempt, generator: torch.Generator) -> str:
    for dim, flip in _CASES:
        coupling, scale_and_shift, x = _random_coupling(dim, flip, generator)

        def forward(
            points: Tensor, function: _ScaleAndShift = scale_and_shift, flip: bool = flip
        ) -> Any:
            return attempt(points, function, flip)

        z, log_det = take_pair(("z", "log_det"), forward(x))
        z = take_tensor("z", z, x.shape, dtype=x.dtype)
        _judge_coupling(z, coupling(x)[0], x, coupling, _stretch)

        leaf = x.clone().requires_grad_()
        sources = {"x": leaf, "the weights of scale_and_shift": scale_and_shift.weight}
        got, right = forward(leaf), coupling(leaf)
        about = "The flow is trained through z and log_det: no `detach`, no `.data`, no `no_grad`."
        check_gradients("z", got[0], right[0], sources, about)
        _judge_log_det(log_det, x, forward, *scale_and_shift(coupling.mask.split(x)[0]))
        check_gradients("log_det", got[1], right[1], sources, about)
    return (
        "The library's inverse leads your z back to x, your log_det is that of the autograd "
        "Jacobian, and gradients reach the network through both."
    )


def _judge_log_det(log_det: Any, x: Tensor, forward: Any, s: Tensor, t: Tensor) -> None:
    log_det = take_tensor("log_det", log_det, (len(x),), dtype=x.dtype)
    jacobian = log_abs_det_jacobian(lambda points: forward(points)[0], x)
    if same(log_det, jacobian, tolerance=1e-3):
        return
    total = s.sum(1)
    add = "log Π exp(s) = Σ s: add up the log-scales of the moved coordinates."
    point = "Sum over the coordinates, axis 1: each point has a log-determinant of its own."
    about_shift = "A shift moves a point and stretches nothing."
    known = [
        (
            -total,
            "Your log_det has the sign of the inverse.",
            "From data to latent the step multiplies by exp(log_scale): log_det is the sum.",
        ),
        (
            torch.zeros_like(total),
            "Your log_det is 0, as for an additive coupling.",
            f"An affine coupling stretches. {add}",
        ),
        (total.exp(), "Your log_det is the determinant itself.", add),
        (s.exp().sum(1), "You add up the factors.", add),
        (s.exp().mean(1), "You take the mean of the factors.", add),
        (s.mean(1), "You take the mean of the log-scales.", add),
        (s.abs().sum(1), "You add up the sizes of the log-scales, without their signs.", add),
        (s.abs().log().sum(1), "You take the logarithm of the log-scales.", add),
        (s.prod(1), "You multiply the log-scales.", add),
        (total + t.sum(1), "Your log_det counts the shifts, too.", about_shift),
        (t.sum(1), "You add up the shifts in place of the log-scales.", about_shift),
        (total.sum().expand_as(total), "You sum log_det over the batch.", point),
        (total.mean().expand_as(total), "You average log_det over the batch.", point),
        (2 * total, "Your log_det counts every log-scale twice.", add),
        (total / math.log(2), "Your log_det is in bits.", "Use the natural logarithm."),
    ]
    otherwise = (
        "Your log_det is not the one of the autograd Jacobian of your own z.",
        "∂z/∂x is triangular, with 1 or exp(log_scale) on its diagonal.",
    )
    diagnose(log_det, known, otherwise)


@exercise(
    "05.affine_coupling_inverse",
    task="Write `affine_coupling_inverse`: lead z [B, D] of an affine coupling back to x.",
    signature="affine_coupling_inverse(z, scale_and_shift, flip) -> x",
    solution=[AlternatingMask, AffineCoupling.inverse],
    hints=[
        "Which half of x can you read off z at once? It gives you log-scale and shift.",
        "What was done last is undone first.",
        "x_moved = (z_moved − shift) · exp(−log_scale). No network is inverted.",
    ],
)
def _check_affine_coupling_inverse(attempt: Attempt, generator: torch.Generator) -> str:
    for dim, flip in _CASES:
        coupling, scale_and_shift, x = _random_coupling(dim, flip, generator)
        z = coupling(x)[0].detach()
        got = take_tensor("x", attempt(z, scale_and_shift, flip), z.shape, dtype=z.dtype)
        _judge_coupling(got, x, z, coupling, _shrink)

        z.requires_grad_()
        check_gradients(
            "x",
            attempt(z, scale_and_shift, flip),
            coupling.inverse(z)[0],
            {"z": z, "the weights of scale_and_shift": scale_and_shift.weight},
            "Gradients through samples need all of it: no `detach`, no `no_grad`.",
        )
    return "Every point comes back: inverse(forward(x)) = x, for even and odd D, both flips."


# --- Squeeze -------------------------------------------------------------------------------------


def _numbered(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Images in which no two numbers are the same."""
    return torch.randperm(math.prod(shape), generator=generator).reshape(shape).float()


def _channel_order(got: Tensor, x: Tensor) -> Tensor | None:
    """Which channel of the library's squeeze of ``x`` each of ``got`` is; None if it is another."""
    blocks = Squeeze()(x)[0]
    alike = (got[:, :, None] == blocks[:, None]).flatten(3).all(3).all(0)  # [4C, 4C]
    one_to_one = (alike.sum(0) == 1).all() and (alike.sum(1) == 1).all()
    return alike.int().argmax(1) if one_to_one else None


@exercise(
    "05.squeeze",
    task="Write `squeeze`: x [B, C, H, W] to [B, 4C, H/2, W/2], where the four numbers of every "
    "2 × 2 block of a channel become four channels at the block's place.",
    signature="squeeze(x) -> [B, 4C, H/2, W/2]",
    solution=Squeeze.forward,
    hints=[
        "`x[:, :, 0::2, 0::2]` holds the upper left number of every block. What are the others?",
        "Put the four side by side along the channels: `torch.cat([...], dim=1)`. Or: cut H into "
        "(H/2, 2) and W into (W/2, 2) with `reshape`, bring both 2s beside C with `permute`, then "
        "`reshape` again.",
        "The order of the four is yours, as long as it is the same everywhere.",
    ],
)
def _check_squeeze(attempt: Attempt, generator: torch.Generator) -> str:
    orders: dict[int, Tensor] = {}
    for shape in ((3, 4, 4, 6), (2, 4, 6, 2), (5, 1, 2, 8), (1, 3, 8, 4)):
        x = _numbered(shape, generator)
        z = _take_squeezed(attempt(x), x)
        order = _channel_order(z.detach(), x)
        if order is None:
            _diagnose_squeeze(z.detach(), x)
        if not torch.equal(orders.setdefault(shape[1], order), order):
            raise Mistake(
                "The order of your channels is another one for images of another size.",
                "A fixed order for the four numbers of a block is needed to go back.",
            )
        leaf = x.clone().requires_grad_()
        check_gradients(
            "z",
            attempt(leaf),
            Squeeze()(leaf)[0][:, order],
            {"x": leaf},
            "The flow is trained through it: stay in PyTorch, without `detach`.",
        )
    return (
        "Every number of x is there once, and at each place your 4C channels hold that place's "
        "2 × 2 block, in the same order everywhere. It is a permutation, so log_det = 0."
    )


def _take_squeezed(value: Any, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    wanted = [batch, 4 * channels, height // 2, width // 2]
    if isinstance(value, Tensor):
        known = {
            (batch, 4 * channels, width // 2, height // 2): (
                "You swap height and width",
                "Rows stay rows: H/2 comes before W/2.",
            ),
            (batch, channels, height // 2, width // 2): (
                "You keep one number for each block",
                "A squeeze is no pooling: all four numbers stay, as four channels.",
            ),
            (batch, channels // 4, 2 * height, 2 * width): (
                "You go the other way, from channels to blocks",
                "`pixel_shuffle` makes images larger; a squeeze makes them smaller.",
            ),
            (batch, channels, height, width): (
                "Your z has still the shape of x",
                "Four channels for one, half the height, half the width.",
            ),
        }
        shape = tuple(value.shape)
        if list(shape) != wanted and value.numel() == x.numel():
            known.setdefault(
                shape,
                ("All the numbers are there", "What is left is a `reshape` of the last axes."),
            )
        if shape in known and list(shape) != wanted:
            reason, hint = known[shape]
            raise Mistake(f"{reason}: shape {list(shape)} in place of {wanted}.", hint)
    return take_tensor("z", value, wanted, dtype=x.dtype)


def _diagnose_squeeze(z: Tensor, x: Tensor) -> None:
    """Say what ``z``, which is no squeeze of ``x``, does instead."""
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels, height // 2, 2, width // 2, 2)
    quarters = x.reshape(batch, channels, 2, height // 2, 2, width // 2).transpose(3, 4)
    cut = "Take every second row and column: `x[:, :, 0::2, 0::2]` is one of the four."
    behind = "`permute` brings the two axes of length 2 beside the channels, before you reshape."
    starts = "Blocks hold rows 0 and 1, 2 and 3, ..., and columns likewise."
    known = [
        (
            x.reshape(z.shape),
            "A plain reshape: it cuts a channel into strips of numbers that follow each other in "
            "memory.",
            f"{cut} A `reshape` alone never changes the order in memory.",
        ),
        (
            blocks.transpose(3, 4).reshape(z.shape),
            "You leave the axes of the block behind those of the place.",
            behind,
        ),
        (
            blocks.permute(0, 2, 4, 1, 3, 5).reshape(z.shape),
            "You put the channels last and then reshape them to the front.",
            "Reshape never moves an axis: bring the channels first with `permute`.",
        ),
    ]
    for wrong, reason, hint in known:
        if torch.equal(z, wrong):
            raise Mistake(reason, hint)
    # A squeeze, but of these images.
    for image, reason, hint in (
        (
            Squeeze().inverse(quarters.reshape(z.shape))[0],
            "You cut the image into four quarters, not into 2 × 2 blocks.",
            cut,
        ),
        (x.roll(-1, 2), "Your blocks start in row 1.", starts),
        (x.roll(-1, 3), "Your blocks start in column 1.", starts),
        (x.roll((-1, -1), (2, 3)), "Your blocks start in row 1 and column 1.", starts),
        (x.flip(2), "Your result is upside down.", "Rows stay in their order."),
        (x.flip(3), "Your result is mirrored.", "Columns stay in their order."),
    ):
        if _channel_order(z, image) is not None:
            raise Mistake(reason, hint)
    if not torch.isin(z, x).all():
        raise Mistake(
            "Your result holds numbers that are not in x.",
            "A squeeze computes nothing: it only moves numbers.",
        )
    lost = int((~torch.isin(x, z)).sum())
    if lost:
        raise Mistake(
            f"{lost} of the {x.numel()} numbers of x are lost, and others appear more than once.",
            "Each block has four numbers, `[..., i::2, j::2]` for i and j in 0, 1: use each once.",
        )
    if not torch.equal(z.flatten(1).sort(1).values, x.flatten(1).sort(1).values):
        raise Mistake(
            "You mix the images of the batch.", "Axis 0 stays as it is, the first axis of all."
        )
    if torch.equal(z.sort(1).values, Squeeze()(x)[0].sort(1).values):
        raise Mistake(
            "Each place holds its own block, but the order of the channels is not the same "
            "everywhere.",
            "The same four steps for every block and every image.",
        )
    raise Mistake(
        "At some places your channels do not hold the numbers of that place's 2 × 2 block.",
        "Try x = `torch.arange(16.0).reshape(1, 1, 4, 4)`: the upper left place gets 0, 1, 4, 5.",
    )


@exercise(
    "05.squeeze_inverse",
    task="Write `unsqueeze`: z [B, 4C, H, W] back to x [B, C, 2H, 2W]; channel 4c + 2i + j of z "
    "holds row i and column j of the blocks of channel c.",
    signature="unsqueeze(z) -> [B, C, 2H, 2W]",
    solution=Squeeze.inverse,
    hints=[
        "Start with an empty x and fill it: `x[:, :, i::2, j::2]` for i and j in 0, 1.",
        "`z[:, 2 * i + j :: 4]` is the channel that belongs there, for all c at once.",
        "Or: reshape to [B, C, 2, 2, H, W], permute to [B, C, H, 2, W, 2], reshape.",
    ],
)
def _check_squeeze_inverse(attempt: Attempt, generator: torch.Generator) -> str:
    for shape in ((3, 8, 2, 4), (2, 4, 1, 3), (1, 12, 3, 2)):
        z = _numbered(shape, generator)
        right = Squeeze().inverse(z)[0]
        got = _take_unsqueezed(attempt(z), z)
        if not torch.equal(got.detach(), right):
            _diagnose_unsqueeze(got.detach(), right, z)
        leaf = z.clone().requires_grad_()
        check_gradients(
            "x",
            attempt(leaf),
            Squeeze().inverse(leaf)[0],
            {"z": leaf},
            "Gradients through samples need it: stay in PyTorch, without `detach`.",
        )
    return "The library's squeeze leads your x back to z."


def _take_unsqueezed(value: Any, z: Tensor) -> Tensor:
    batch, channels, height, width = z.shape
    wanted = [batch, channels // 4, 2 * height, 2 * width]
    if isinstance(value, Tensor):
        known = {
            (batch, channels // 4, 2 * width, 2 * height): (
                "You swap height and width",
                "Rows stay rows: 2H comes before 2W.",
            ),
            (batch, 4 * channels, height // 2, width // 2): (
                "You squeeze once more",
                "This direction makes blocks out of channels: `pixel_shuffle`, not `unshuffle`.",
            ),
            (batch, channels, 2 * height, 2 * width): (
                "You have still all channels, and four times the numbers",
                "Every four channels become one: nothing is repeated.",
            ),
        }
        shape = tuple(value.shape)
        if shape in known and list(shape) != wanted:
            reason, hint = known[shape]
            raise Mistake(f"{reason}: shape {list(shape)} in place of {wanted}.", hint)
    return take_tensor("x", value, wanted, dtype=z.dtype)


def _diagnose_unsqueeze(x: Tensor, right: Tensor, z: Tensor) -> None:
    """Say what ``x`` is, which is not the image ``right`` that ``z`` is the squeeze of."""
    batch, channels, height, width = z.shape
    c = channels // 4
    split = z.reshape(batch, c, 2, 2, height, width)
    late = z.reshape(batch, 2, 2, c, height, width)
    beside = (
        "Row 2h + i of x is row i of the blocks at height h: the axes are [B, C, H, 2, W, 2], in "
        "this order."
    )
    order = "Channel 4c + 2i + j: c changes slowest, then the row i, then the column j."
    for wrong, reason, hint in (
        (
            z.reshape(x.shape),
            "A plain reshape: the numbers keep their order in memory.",
            "Neighbours in a block come from four channels: an axis has to move (`permute`).",
        ),
        (
            split.permute(0, 1, 4, 3, 5, 2).reshape(x.shape),
            "You swap rows and columns inside each block.",
            order,
        ),
        (
            late.permute(0, 3, 4, 1, 5, 2).reshape(x.shape),
            "You read the channels as (2i + j) · C + c: all the upper left numbers first.",
            order,
        ),
        (
            late.permute(0, 3, 4, 2, 5, 1).reshape(x.shape),
            "You read the channels as (i + 2j) · C + c.",
            order,
        ),
        (
            split.permute(0, 1, 2, 4, 3, 5).reshape(x.shape),
            "You put the four channels side by side, as quarters of the image.",
            beside,
        ),
        (
            split.permute(0, 1, 4, 5, 2, 3).reshape(x.shape),
            "You put the axes of the block behind those of the place, and then reshape.",
            beside,
        ),
        (right.flip(2), "Your result is upside down.", "Rows stay in their order."),
        (right.flip(3), "Your result is mirrored.", "Columns stay in their order."),
    ):
        if torch.equal(x, wrong):
            raise Mistake(reason, hint)
    if not torch.isin(x, z).all():
        raise Mistake(
            "Your result holds numbers that are not in z.",
            "An unsqueeze computes nothing: it only moves numbers. Is every entry written to?",
        )
    lost = int((~torch.isin(z, x)).sum())
    if lost:
        raise Mistake(
            f"{lost} of the {z.numel()} numbers of z are lost, and others appear more than once.",
            "All four channels of a c go into its blocks, each to its own corner.",
        )
    place = _channel_order(z, x)
    if place is not None:
        at, k = next((int(a), k) for k, a in enumerate(place) if a != k)
        raise Mistake(
            f"Each block has the right numbers, but in another order: you put channel {k} of z "
            f"into row {at % 4 // 2}, column {at % 2} of the blocks of channel {at // 4}.",
            order,
        )
    if not torch.equal(x.flatten(1).sort(1).values, z.flatten(1).sort(1).values):
        raise Mistake(
            "You mix the images of the batch.", "Axis 0 stays as it is, the first axis of all."
        )
    raise Mistake("The library's squeeze does not lead your x back to z.", order)


# --- ActNorm -------------------------------------------------------------------------------------

# At least 1,000 numbers in a channel: N or N − 1 makes a difference of 5e-4 in the log-scale, a
# small number under a root or a logarithm less. Both pass; the least mistake is far larger.
_LOOSE = 2e-3


@exercise(
    "05.actnorm",
    task="Write `actnorm_start`: from x [B, C, H, W] the bias [C] and the log-scale [C] with which "
    "(x + bias) · exp(log_scale) has mean 0 and variance 1 in every channel.",
    signature="actnorm_start(x) -> (bias, log_scale)",
    solution=[ActNorm.initialize, ActNorm.forward],
    hints=[
        "One mean and one standard deviation for each channel: over which three axes?",
        "`x.mean(dim=(0, 2, 3))` has shape [C]. The bias is added *before* the scale.",
        "bias = −mean, log_scale = −log(standard deviation).",
    ],
)
def _check_actnorm(attempt: Attempt, generator: torch.Generator) -> str:
    for shape in ((16, 3, 8, 10), (25, 1, 5, 9), (1, 4, 32, 40)):
        x = _uneven_images(shape, generator)
        while x.mean().abs() < 0.1:  # one bias for all channels would look like none
            x = _uneven_images(shape, generator)
        bias, log_scale = take_pair(("bias", "log_scale"), attempt(x))
        bias = _take_channels("bias", bias, x)
        log_scale = _take_channels("log_scale", log_scale, x)
        actnorm = ActNorm(shape[1]).float()
        actnorm.initialize(x)
        values = x.transpose(0, 1).flatten(1)  # [C, all values of a channel]
        if not same(bias, actnorm.bias):
            _diagnose_bias(bias, log_scale, x, values)
        if not same(log_scale, actnorm.log_scale, tolerance=_LOOSE):
            _diagnose_log_scale(log_scale, x, values, actnorm)
    return (
        "With your bias and log-scale every channel comes out with mean 0 and variance 1. (Whether "
        "you divide by N or by N − 1 makes no difference that counts: both pass.)"
    )


def _uneven_images(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Images whose channels, and whose images, differ in brightness and in contrast."""
    channels = (shape[1], 1, 1)
    means = 2 + torch.rand(channels, generator=generator)
    means *= 1.5 ** torch.arange(shape[1])[:, None, None]
    means *= torch.randint(2, channels, generator=generator) * 2 - 1
    images = (*shape[:2], 1, 1)
    x = torch.randn(shape, generator=generator) * (0.5 + torch.rand(images, generator=generator))
    x = x + 0.7 * torch.randn(images, generator=generator)
    x = x / x.std(dim=(0, 2, 3), keepdim=True)
    return means + x * 0.3 * 1.8 ** torch.arange(shape[1])[:, None, None]


def _take_channels(name: str, value: Any, x: Tensor) -> Tensor:
    channels = x.shape[1]
    if isinstance(value, Tensor) and value.numel() == channels and value.ndim > 1:
        raise Mistake(
            f"Your {name} has shape {list(value.shape)}; it must have {[channels]}.",
            "One number for each channel: `flatten()`, or a mean without `keepdim`.",
        )
    if isinstance(value, Tensor) and value.ndim == 0:
        raise Mistake(
            f"Your {name} is one number for all channels; it must have shape {[channels]}.",
            "Average over the images and the pixels alone: `dim=(0, 2, 3)`.",
        )
    if isinstance(value, Tensor) and tuple(value.shape) == (len(x), channels):
        raise Mistake(
            f"Your {name} has one number for each image, too: shape {list(value.shape)}, in place "
            f"of {[channels]}.",
            "Average over the batch as well, `dim=(0, 2, 3)`: ActNorm does the same to all images.",
        )
    if isinstance(value, Tensor) and value.shape == x.shape[1:]:
        raise Mistake(
            f"Your {name} has one number for each pixel: shape {list(value.shape)}, in place of "
            f"{[channels]}.",
            "Average over the pixels as well, `dim=(0, 2, 3)`.",
        )
    if isinstance(value, Tensor) and value.shape != (channels,):
        raise Mistake(
            f"Your {name} has shape {list(value.shape)}; it must have {[channels]}.",
            "Axis 1 holds the channels and stays: reduce the other three, `dim=(0, 2, 3)`.",
        )
    return take_tensor(name, value, (channels,), dtype=x.dtype).detach()


def _diagnose_bias(bias: Tensor, log_scale: Tensor, x: Tensor, values: Tensor) -> None:
    mean, std = values.mean(1), values.std(1)
    before = "The bias comes before the scale, in the units of x."
    known = [
        (mean, "Your bias has the wrong sign.", "x + bias has mean 0 for bias = −mean."),
        (
            -mean / std,
            "Your bias is divided by the standard deviation: right if it came after the scale.",
            before,
        ),
        (mean / std, "Your bias is divided by the standard deviation.", before),
        (torch.zeros_like(mean), "Your bias is 0: the means stay.", "bias = −mean."),
        (
            -x.mean().expand_as(mean),
            "All your channels have the same bias.",
            "Each channel has a mean of its own: `dim=(0, 2, 3)`.",
        ),
        (-values.sum(1), "Your bias is a sum.", "Take the mean."),
        (
            -x[0].mean((1, 2)),
            "Your bias looks at the first image alone.",
            "Average over the batch, too: `dim=(0, 2, 3)`.",
        ),
        (-values.median(1).values, "You take the median.", "The mean has to become 0."),
        (-std.log(), "You return log_scale first.", "First bias, then log_scale."),
    ]
    y = (values + bias[:, None]) * log_scale.exp()[:, None]
    channel = int(y.mean(1).abs().argmax())
    otherwise = (
        f"Channel {channel} comes out with mean {float(y.mean(1)[channel]):.3g} in place of 0.",
        "bias = −mean over `dim=(0, 2, 3)`.",
    )
    _diagnose_loosely(bias, known, otherwise)


def _diagnose_log_scale(log_scale: Tensor, x: Tensor, values: Tensor, right: ActNorm) -> None:
    std, variance = values.std(1), values.var(1)
    log = "The scale is 1 / σ, and its logarithm −log σ."
    channel = "Each channel has a standard deviation of its own, over `dim=(0, 2, 3)`."
    center = (
        "You take the root of the mean square, without subtracting the mean first.",
        "The variance is the mean square of x + bias.",
    )
    mean_square = values.square().mean(1)
    known = [
        (std.log(), "Your log-scale has the wrong sign: it doubles what it should undo.", log),
        (
            -variance.log(),
            "Your scale is 1 / variance.",
            "σ is its root: log σ is half of its logarithm.",
        ),
        (variance.log(), "Your scale is the variance.", log),
        (1 / std, "Your log-scale is the scale 1 / σ itself.", "Take its logarithm."),
        (std, "Your log-scale is σ itself.", log),
        (-std, "Your log-scale is −σ.", log),
        (-std.log() / 2, "Your scale is 1 / √σ.", "σ is the root of the variance already."),
        (torch.zeros_like(std), "Your log-scale is 0: the spread stays.", log),
        (-mean_square.log() / 2, *center),
        (-mean_square.log(), *center),
        (-std.log2(), "You take the logarithm with base 2.", "`exp` belongs to the natural one."),
        (-std.log10(), "You take the logarithm with base 10.", "`exp` belongs to the natural one."),
        (-x.std().log().expand_as(std), "All your channels have the same log-scale.", channel),
        (
            -x[0].std((1, 2)).log(),
            "Your log-scale looks at the first image alone.",
            "Take the batch and the pixels together: `dim=(0, 2, 3)`.",
        ),
        (
            -x.std((2, 3)).mean(0).log(),
            "You average the standard deviations of the single images.",
            f"Images differ in brightness as well, and that counts. {channel}",
        ),
        (
            -x.std((2, 3)).log().mean(0),
            "You average the log-scales of the single images.",
            f"Images differ in brightness as well, and that counts. {channel}",
        ),
        (
            -x.var((2, 3)).mean(0).log() / 2,
            "You average the variances of the single images.",
            f"Images differ in brightness as well, and that counts. {channel}",
        ),
    ]
    y = (values + right.bias.detach()[:, None]) * log_scale.exp()[:, None]
    worst = int(y.var(1).log().abs().argmax())
    otherwise = (
        f"Channel {worst} comes out with variance {float(y.var(1)[worst]):.3g} in place of 1.",
        log,
    )
    _diagnose_loosely(log_scale, known, otherwise)


def _diagnose_loosely(got: Tensor, known: Known, otherwise: tuple[str, str]) -> None:
    """``diagnose`` for answers in which N may stand for N − 1."""
    for value, reason, hint in known:
        if same(got, value, tolerance=_LOOSE):
            raise Mistake(reason, hint)
    raise Mistake(*otherwise)


# --- 1×1 convolutions ----------------------------------------------------------------------------


@exercise(
    "05.lu_log_det",
    task="Write `conv_log_det`: the log |det| of the Jacobian of a 1 × 1 convolution with the "
    "matrix weight [C, C], on images of height × width, without computing a determinant.",
    signature="conv_log_det(weight, height, width) -> scalar",
    solution=[InvertibleConv1x1.factors, InvertibleConv1x1.log_det],
    hints=[
        "Sorted by pixel, the Jacobian has the same block on its diagonal for every pixel, and "
        "zeros elsewhere. Which block, and how many?",
        "`P, L, U = torch.linalg.lu(weight)`: weight = P L U. |det P| and det L are 1.",
        "height · width · Σ log |diagonal of U|. Mind the | |: a diagonal number may be negative.",
    ],
)
def _check_lu_log_det(attempt: Attempt, generator: torch.Generator) -> str:
    height, width = 2, 5
    weights = [_random_matrix(4, sign, 0.3, 0.7, generator) for sign in (1, -1, 1, -1)]
    got = torch.stack([_take_log_det(attempt, weight, height, width) for weight in weights])
    right = torch.stack([_log_det_of_images(weight, height, width) for weight in weights])
    if not same(got, right):
        _diagnose_conv_log_det(got, right, weights, height, width)
    leaf = weights[0].clone().requires_grad_()
    check_gradients(
        "log_det",
        attempt(leaf, height, width),
        height * width * torch.linalg.slogdet(leaf).logabsdet,
        {"weight": leaf},
        "The matrix is trained through it: no `detach`, no `.item()`.",
    )

    scales = torch.tensor([2.0, -3.0, 4.0, 2.5]) * (0.5 + torch.rand(4, generator=generator))
    weight = torch.diag(scales).roll(1, 0)
    _judge_odd_matrix(attempt, weight, "on a matrix with zeros on its diagonal")
    for low, high, fate in ((-3.5, -2.5, "underflows to 0"), (2.5, 3.5, "overflows")):
        weight = _random_matrix(64, 1, low, high, generator)
        where = f"on a 64 × 64 matrix, whose determinant {fate} in float32"
        _judge_odd_matrix(attempt, weight, where)
    return (
        "Your value is the log |det| of the autograd Jacobian of the whole convolution. It is "
        "finite, too, for mirror images (det < 0), for matrices with zeros on their diagonal, and "
        "for 64 × 64 matrices whose determinant under- or overflows in float32."
    )


def _random_matrix(
    n: int, sign: int, low: float, high: float, generator: torch.Generator
) -> Tensor:
    """A random matrix with singular values from e^low to e^high and a determinant of this sign."""
    left, right = (torch.linalg.qr(torch.randn(n, n, generator=generator))[0] for _ in range(2))
    scales = (low + (high - low) * torch.rand(n, generator=generator)).exp()
    weight = left * scales @ right
    if torch.linalg.slogdet(weight).sign != sign:
        weight[0] = -weight[0]
    return weight.contiguous()


def _log_det_of_images(weight: Tensor, height: int, width: int) -> Tensor:
    """The log-determinant of the autograd Jacobian of the convolution of a whole image."""
    kernel = weight.double()[:, :, None, None]

    def convolve(x: Tensor) -> Tensor:
        return F.conv2d(x.reshape(-1, len(weight), height, width), kernel).flatten(1)

    x = torch.zeros(1, len(weight) * height * width, dtype=torch.float64)
    return log_abs_det_jacobian(convolve, x)[0]


def _take_log_det(
    attempt: Attempt, weight: Tensor, height: int, width: int, where: str = ""
) -> Tensor:
    got = attempt(weight, height, width)
    if isinstance(got, Tensor) and got.numel() > 1:
        raise Mistake(
            f"Your log_det has shape {list(got.shape)}; it must be one number.",
            "It is the same for every image. Add up the logarithms on the diagonal.",
        )
    if isinstance(got, Real):
        raise Mistake(
            f"Your log_det is of type {type(got).__name__}, not a tensor.",
            "The matrix is trained through it: no `.item()`, no `float()`, no `math`.",
        )
    if isinstance(got, Tensor) and got.shape == () and not got.isfinite():
        fate = "NaN" if got.isnan() else "infinite"
        if not where:
            hint = (
                "The logarithm of a negative number: det W and the diagonal of U may be negative, "
                "as in a mirror image. Take `abs()` first."
            )
        elif len(weight) < 64:
            hint = (
                "log 0 or 0 / 0: an elimination has to exchange rows, which is what P is for in "
                "`torch.linalg.lu`."
            )
        else:
            hint = "Add up logarithms, Σ log |u|; the product itself leaves the range of numbers."
        raise Mistake(f"Your log_det is {fate}{' ' if where else ''}{where}.", hint)
    return take_tensor("log_det", got, (), dtype=weight.dtype)


def _judge_odd_matrix(attempt: Attempt, weight: Tensor, where: str) -> None:
    got = _take_log_det(attempt, weight, 3, 2, where)
    right = 6 * torch.linalg.slogdet(weight.double()).logabsdet
    if not same(got, right):
        raise Mistake(
            f"Your log_det is right for simple small matrices, but off {where}: {got.item():.1f} "
            f"in place of {right.item():.1f}.",
            "Σ log |u| over the diagonal of U of a pivoted LU decomposition needs no small number, "
            "no clamp and no product.",
        )


def _diagnose_conv_log_det(
    got: Tensor, right: Tensor, weights: list[Tensor], height: int, width: int
) -> None:
    # Several matrices at once: single numbers could agree by chance.
    each = [_conv_mistakes(weight.double(), height, width) for weight in weights]
    known = [
        (torch.stack([value for value, _, _ in same_mistake]), *same_mistake[0][1:])
        for same_mistake in zip(*each, strict=True)
    ]
    otherwise = (
        f"Your log_det is {got[0].item():.4g}; the autograd Jacobian of the convolution has "
        f"{right[0].item():.4g}.",
        "Try twice the unit matrix: the result must be height · width · C · log 2.",
    )
    diagnose(got, known, otherwise)


def _conv_mistakes(weight: Tensor, height: int, width: int) -> Known:
    pixels, n = height * width, len(weight)
    sign, log_abs = torch.linalg.slogdet(weight)
    det = sign * log_abs.exp()
    _, lower, upper = torch.linalg.lu(weight)
    diagonal, own = upper.diagonal(), weight.diagonal()
    places = "One block for each pixel: height · width of them, each with log |det W|."
    logs = "The determinant of a triangular matrix is the product of its diagonal: Σ log |u|."
    lower_ones = "The ones of L say nothing; U has the diagonal that counts."
    not_own = (
        "You take the diagonal of the matrix itself.",
        "Only for a triangular matrix is the determinant the product of its diagonal: take U.",
    )
    no_logs = ("You add up the diagonal of U without logarithms.", logs)
    no_log = ("You take the determinant, not its logarithm.", logs)
    log_of_sum = ("You take the logarithm of the sum.", logs)
    return [
        (log_abs, "You count one pixel alone.", places),
        (height * log_abs, "You forget the width.", places),
        (width * log_abs, "You forget the height.", places),
        ((height + width) * log_abs, "You add height and width where you must multiply.", places),
        (pixels * n * log_abs, "You count the channels once more.", places),
        (log_abs / pixels, "You divide by the number of pixels.", places),
        (pixels**2 * log_abs, "You count the pixels twice.", places),
        (
            -pixels * log_abs,
            "Your log_det has the sign of the inverse.",
            "From data to latent the pixel is multiplied by W: + log |det W|.",
        ),
        (
            pixels * log_abs / n,
            "You take the mean over the diagonal.",
            "Numbers on the diagonal are multiplied, so their logarithms are added up.",
        ),
        (
            2 * pixels * log_abs,
            "Your log_det is twice too large.",
            "Each number on the diagonal of U counts once: neither its square nor W Wᵀ.",
        ),
        (pixels * log_abs / math.log(2), "Your log_det is in bits.", "Use the natural logarithm."),
        (pixels * det, *no_log),
        (pixels * det.abs(), *no_log),
        (det, *no_log),
        (det.abs(), *no_log),
        (det.abs() ** pixels, *no_log),
        (
            pixels * sign,
            "You take the sign of the determinant.",
            "`slogdet` returns the sign first, then log |det|.",
        ),
        (0 * log_abs, "Your log_det is 0: the diagonal of L, or of a rotation.", lower_ones),
        (pixels * lower.diagonal().sum(), "You take L in place of U.", lower_ones),
        (pixels * diagonal.sum(), *no_logs),
        (pixels * diagonal.abs().sum(), *no_logs),
        (pixels * diagonal.sum().abs().log(), *log_of_sum),
        (pixels * diagonal.abs().sum().log(), *log_of_sum),
        (pixels * own.abs().log().sum(), *not_own),
        (pixels * own.sum(), *not_own),
    ]


# --- Temperature ---------------------------------------------------------------------------------


@exercise(
    "05.temperature",
    task="Write `log_prob_at_temperature`: the log-density [B], in nats, at z [B, D] of latents "
    "that are drawn as T · eps, eps from a standard Gaussian in D dimensions.",
    signature="log_prob_at_temperature(z, temperature) -> [B]",
    solution=[Flow.sample, DiagonalScaling.forward, Flow.log_prob],
    hints=[
        "It is one more change of variables: eps = z / T, and eps is standard Gaussian.",
        "log p(z) = log p_eps(z / T) + log |det ∂eps/∂z|. What is the Jacobian of z / T?",
        "A diagonal with D entries of 1 / T: its log-determinant is −D log T. And "
        "log p_eps(e) = −½ (|e|² + D log 2π).",
    ],
)
def _check_temperature(attempt: Attempt, generator: torch.Generator) -> str:
    for dim, low, high in ((5, 0.4, 0.8), (64, 1.3, 2.0), (1, 0.4, 0.8)):
        temperature = low + (high - low) * float(torch.rand((), generator=generator))
        z = temperature * torch.randn(_BATCH, dim, generator=generator)
        got = attempt(z, temperature)
        got = take_tensor("log-density", got, (len(z),), dtype=z.dtype)

        scaling = DiagonalScaling(dim).float()
        with torch.no_grad():
            scaling.log_scale.fill_(-math.log(temperature))
            right = Flow([scaling], StandardGaussian(dim).float()).log_prob(z)
        if not same(got, right):
            _diagnose_temperature(got, z, temperature)
        leaf = z.clone().requires_grad_()
        check_gradients(
            "log-density",
            attempt(leaf, temperature),
            Flow([scaling], StandardGaussian(dim).float()).log_prob(leaf),
            {"z": leaf},
            "The slope of log p in z is of use, too: no `detach`, no `.item()`.",
        )
    return (
        "Your log-density is that of a flow which divides by T. In the 3,072 dimensions of a small "
        f"colour image −D log T is {3072 * -math.log(0.7):,.0f} nats at T = 0.7: by so much the "
        "density in the middle is higher than at T = 1."
    )


def _diagnose_temperature(got: Tensor, z: Tensor, t: float) -> None:
    q, n, log_t = z.square().sum(1), z.shape[1], math.log(t)
    c = n / 2 * math.log(2 * math.pi)
    right = -q / (2 * t * t) - n * log_t - c
    squeezed = (
        "A smaller cloud of the same points is denser: each of D coordinates shrinks by T, so "
        "subtract D log T."
    )
    variance = "T is the standard deviation of T · eps; its variance is T²."
    divide = "eps = z / T, so |eps|² = |z|² / T²."
    power = (
        "A power of a density does not integrate to 1: start from eps = z / T and change variables."
    )
    known = [
        (right + n * log_t, "You forget −D log T.", squeezed),
        (right + 2 * n * log_t, "Your D log T has the wrong sign.", squeezed),
        (
            right + (n - 1) * log_t,
            "You subtract log T once, not for each of D coordinates.",
            squeezed,
        ),
        (right - n * log_t, "You subtract 2 D log T.", f"{variance} D log T = ½ D log T²."),
        (right + n / 2 * log_t, "You subtract ½ D log T.", f"{variance} D log T = ½ D log T²."),
        (-q / (2 * t) - n / 2 * log_t - c, "You take T for the variance.", variance),
        (-q / (2 * t) - n * log_t - c, "You divide |z|² by T, not by T².", divide),
        (-q / 2 - c, "You ignore the temperature: that is the density at T = 1.", divide),
        (-q / 2 - n * log_t - c, "You forget to divide z by T.", divide),
        (-q * t * t / 2 + n * log_t - c, "You use 1 / T in place of T.", divide),
        (-q * t * t / 2 - n * log_t - c, "You multiply z by T.", divide),
        (-q * t * t / 2 - c, "You multiply z by T.", divide),
        ((-q / 2 - c) / (t * t), "You divide the log-density by T².", power),
        ((-q / 2 - c) / t, "You divide the log-density by T.", power),
        ((-q / 2 - c) * t, "You multiply the log-density by T.", power),
        ((-q / 2 - c) * t * t, "You multiply the log-density by T².", power),
        (
            right - q / (2 * t * t),
            "You forget the ½ of the Gaussian.",
            "log p_eps(e) = −½ (|e|² + D log 2π).",
        ),
        (
            right + q / (t * t),
            "The square in your exponent has the wrong sign.",
            "Far points are less likely: −½ |z / T|².",
        ),
        (right + c, "The ½ D log 2π is missing.", "log p_eps(e) = −½ (|e|² + D log 2π)."),
        (right + c - c / n, "You count ½ log 2π once, not for each coordinate.", "½ D log 2π."),
        (-right, "Your result has the wrong sign.", "The log-density is asked for, not the loss."),
        (right.exp(), "Your value is the density, not its logarithm.", "Return its logarithm."),
        (right / math.log(2), "Your log-density is in bits.", "Use the natural logarithm."),
        (right / n, "You average over the coordinates.", "Densities multiply: sum over axis 1."),
        (
            right.mean().expand_as(right),
            "Every point gets the mean of the batch.",
            "Sum over axis 1 alone.",
        ),
        (
            right.sum().expand_as(right),
            "Every point gets the sum over the batch.",
            "Sum over axis 1 alone.",
        ),
    ]
    otherwise = (
        "Your value is not the log-density of a flow that divides by T.",
        "In one dimension `torch.distributions.Normal(0, T).log_prob(z)` gives it: compare.",
    )
    diagnose(got, known, otherwise)


# --- A flow that blows up ------------------------------------------------------------------------


@exercise(
    "05.break_it",
    task="Break it: write `raw_log_scale`, kept [B, 1] to [B, 1], with which 8 affine couplings "
    "keep |s| ≤ 1 on data in [−1, 1]², but without a bound lose latents 4 σ out.",
    signature="raw_log_scale(kept) -> [B, 1]",
    solution=[runaway_log_scale, AffineCoupling.scale_and_shift],
    hints=[
        "On the data almost nothing need happen. What does a ReLU network do where it never saw "
        "any data?",
        "It goes on in a straight line. Sampling multiplies by exp(−s): which sign makes that "
        "large? And whose kept half is the result, one coupling later?",
        "0 as long as |kept| ≤ 1, and outside −(|kept| − 1): `-(kept.abs() - 1).relu()`.",
    ],
)
def _check_break_it(attempt: Attempt, generator: torch.Generator) -> str:
    side = torch.linspace(-1, 1, 41)
    data, latents = torch.cartesian_prod(side, side), far_latents()

    def raw(kept: Tensor) -> Tensor:
        return _take_log_scale(attempt(kept), kept)

    on_data = _judge_on_data(raw, attempt, data)
    free = run_stack(attempt, latents, bound=None, backwards=True)
    bounded = run_stack(raw, latents, bound=2.0, backwards=True)
    if not free.error > 1:
        _diagnose_tame(free, attempt)
    if not bounded.error < 0.01:
        raise Mistake(
            f"With the bound the latents are lost, too: they come back off by {bounded.error:.2g}.",
            "Your function jumps or oscillates, so that rounding changes s. Make it smooth, or of "
            "a few straight pieces, as a network is.",
        )
    sizes = ", ".join(f"{size:.2g}" for size in free.sizes.tolist() if size < math.inf)
    story = (
        f"the largest coordinate grows as {sizes}, and then to infinity"
        if free.sizes.isinf().any()
        else "factors of exp(−s) make numbers so small that they, or what they were added to in "
        "the network, are lost in rounding, and nothing leads back"
    )
    return (
        f"Broken. The data come back within {on_data.error:.1g}, with |s| ≤ "
        f"{on_data.log_scales.max():.2g}: training would see nothing of it. For latents 4 σ out, "
        f"and without a bound, {story}. With s = 2 tanh(r / 2) the largest is "
        f"{bounded.sizes.max():,.0f}, and they come back within {bounded.error:.1g}. Why: outside "
        "of the data a network goes on in straight lines; exp makes an exponential of that; and "
        "the result is what the next coupling's network looks at, still further out."
    )


def _take_log_scale(value: Any, kept: Tensor) -> Tensor:
    if isinstance(value, Tensor) and value.shape != kept.shape:
        raise Mistake(
            f"Your log-scale has shape {list(value.shape)}; it must have {list(kept.shape)}.",
            "One number for each point, and the axis of length 1 stays: work on each number of "
            "`kept` for itself.",
        )
    value = take_tensor("log-scale", value, kept.shape, dtype=kept.dtype, infinite=True)
    if value.isinf().any():
        raise Mistake(
            f"Your log-scale is infinite where |kept| is "
            f"{kept[value.isinf()].abs().min().item():.3g}.",
            "No network says that. A straight line is enough: the couplings do the rest.",
        )
    return value


def _judge_on_data(raw: Callable[[Tensor], Tensor], attempt: Attempt, data: Tensor) -> StackReport:
    """Require that the stack does no harm to the data, and report what it does."""
    kept = data[:, 1:]
    value = raw(kept)
    if not same(raw(kept[:5]), value[:5]):
        raise Mistake(
            "Your log-scale of a point depends on the other points of the batch.",
            "A coupling computes s from the point's own kept half: nothing is reduced over axis 0.",
        )
    inside = "Make it small wherever |kept| ≤ 1, and let it grow outside."
    if value.abs().max() > 1 + 1e-6:
        raise Mistake(
            f"On the data your log-scale reaches {value.abs().max():.3g} in size: training would "
            "see that, and correct it.",
            inside,
        )
    report = run_stack(attempt, data, bound=None)
    if not report.log_scales.max() <= 1 + 1e-6:
        k = int((report.log_scales > 1 + 1e-6).int().argmax())
        size = report.log_scales[k]
        raise Mistake(
            f"Your log-scale blows up on the data already: at coupling {k + 1} some are outside of "
            f"[−1, 1], and |s| reaches {size:.3g}. Training would see that.",
            f"{inside} A smaller slope near the data is harmless for longer.",
        )
    if not report.error < 0.01:
        raise Mistake(
            f"The data themselves come back off by {report.error:.2g}.",
            "Your function jumps or oscillates inside [−1, 1], so that rounding changes s.",
        )
    return report


def _diagnose_tame(free: StackReport, attempt: Attempt) -> None:
    """Say why latents came back through couplings without a bound."""
    far = torch.tensor([[-1000.0], [-100.0], [-4.0], [4.0], [100.0], [1000.0]])
    s = attempt(far).detach().flatten()
    measured = (
        f"Nothing breaks: the largest coordinate gets to {free.sizes.max():.3g}, and all latents "
        f"come back within {free.error:.1g}."
    )
    if (s == 0).all():
        raise Mistake(
            f"{measured} Your log-scale is 0 outside of the data, too.",
            "Let it fall in a straight line beyond |kept| = 1.",
        )
    if free.sizes.max() <= free.sizes[0] + 1e-3:
        raise Mistake(
            f"{measured} Your log-scale is positive out there, and sampling multiplies by exp(−s): "
            "far latents shrink.",
            "Turn its sign.",
        )
    if (s[[0, 5]] - s[[1, 4]]).abs().max() < 0.1:
        raise Mistake(
            f"{measured} Your log-scale is bounded: from |kept| = 100 to 1,000 it stays at "
            f"{s[5]:.3g}.",
            "That is what `bound` does. A network without one goes on in a straight line.",
        )
    raise Mistake(
        f"{measured} It grows too slowly.",
        "Make your log-scale steeper outside of [−1, 1], negative on both sides.",
    )
