"""Exercises of chapter 04: couplings, the change of variables, dequantization, bits per dimension.

Every check works with tolerances for which a right answer is refused less than once in 10⁶ times.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.data import dequantize
from course_lib.exercises.attempt import (
    Attempt,
    Mistake,
    check_gradients,
    check_randomness,
    diagnose,
    fresh_seed,
    log_abs_det_jacobian,
    same,
    take_pair,
    take_tensor,
    take_whole_number,
)
from course_lib.exercises.registry import exercise
from course_lib.experiments.dependency import coupling_dependencies
from course_lib.experiments.discrete_spikes import spiky_log_prob
from course_lib.flows import (
    AdditiveCoupling,
    AlternatingMask,
    DiagonalScaling,
    Flow,
    Planar,
    StandardGaussian,
    StandardLogistic,
)
from course_lib.metrics import bits_per_dim

__all__: list[str] = []

Known = list[tuple[Tensor, str, str]]

_CASES = [(dim, flip) for dim in (4, 5) for flip in (False, True)]
_BATCH = 7  # not the number of coordinates, so that swapped axes show


class _Shift:
    """The shift of a random coupling; says so when it is given the wrong columns."""

    def __init__(self, coupling: AdditiveCoupling):
        self.network = coupling.shift
        self.n_kept = self.network.layers[0].in_features
        self.weight = self.network.layers[0].weight

    def __call__(self, kept: Any) -> Tensor:
        if not isinstance(kept, Tensor):
            raise Mistake(
                f"You call shift with a {type(kept).__name__}.",
                "Give it the half that stays, a tensor.",
            )
        if kept.ndim == 0 or kept.shape[-1] != self.n_kept:
            raise Mistake(
                f"You call shift on a tensor of shape {list(kept.shape)}; the half that stays has "
                f"{self.n_kept} columns.",
                "Columns, not rows: `x[:, 0::2]` are the even coordinates, `x[:, 1::2]` the odd.",
            )
        return self.network(kept)


def _random_coupling(
    dim: int, flip: bool, generator: torch.Generator
) -> tuple[AdditiveCoupling, _Shift, Tensor]:
    """A coupling with a random shift, that shift alone, and random points ``[B, dim]``."""
    coupling = _randomize(AdditiveCoupling(dim, [16], flip=flip), generator)
    x = torch.randn(_BATCH, dim, generator=generator, dtype=torch.float32)
    return coupling, _Shift(coupling), x


def _randomize(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Give every parameter a random value of a size that keeps all numbers near 1."""
    module = module.float()
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter.shape[-1] if parameter.ndim > 1 else 1
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (2 / fan_in) ** 0.5 if parameter.ndim > 1 else 0.7 * noise)
    return module


def _put(like: Tensor, moved: slice, values: Tensor) -> Tensor:
    """``like`` with other values in the columns ``moved``."""
    out = like.clone()
    out[:, moved] = values
    return out


def _coupling_mistakes(x: Tensor, c: AdditiveCoupling, sign: int) -> Known:
    """What people get in place of x_moved + sign · shift(x_kept), for an even number of columns."""
    kept, moved = x[:, c.mask.kept], x[:, c.mask.moved]
    m, half = c.shift, x.shape[1] // 2
    left, right = x[:, :half], x[:, half:]
    swapped = _put(x, c.mask.kept, kept + sign * m(moved))
    new = moved + sign * m(kept)
    out, into, add, subtract = (
        ("z", "x", "add", "subtract") if sign > 0 else ("x", "z", "subtract", "add")
    )
    which, other = ("odd", "even") if c.flip else ("even", "odd")
    halves = (
        "The halves are the even coordinates `0::2` and the odd ones `1::2`: neighbouring pixels "
        "land in different halves."
    )
    both = (
        "You move both halves.",
        "One half stays as it is; the next coupling of the flow moves it.",
    )
    order = "Write the moved half back to the columns it came from."
    return [
        (
            _put(x, c.mask.moved, moved - sign * m(kept)),
            f"You {subtract} the shift; this direction has to {add} it.",
            "Data to latent adds, latent to data subtracts.",
        ),
        (
            swapped,
            f"Your {out} keeps the wrong half" + (": you ignore `flip`." if c.flip else "."),
            f"With flip={c.flip} the {which} coordinates stay and the {other} ones move.",
        ),
        (
            _put(x, c.mask.moved, moved + sign * m(moved)),
            "Your shift is computed from the half that moves.",
            f"Compute it from the half that stays, which {out} still holds: only so can it be "
            "undone.",
        ),
        (
            _put(x, c.mask.moved, m(kept)),
            "You overwrite the moved half with the shift.",
            f"{add.capitalize()} it: what was there before must not be lost.",
        ),
        (
            _put(x, c.mask.moved, moved * m(kept)),
            "You multiply the moved half by the shift.",
            f"The coupling is additive: {add} the shift.",
        ),
        (x, f"Your {out} is {into}, unchanged.", f"Shift the {other} coordinates."),
        (_put(_put(x, c.mask.moved, new), c.mask.kept, kept + sign * m(new)), *both),
        (_put(swapped, c.mask.moved, new), *both),
        (torch.cat([left, right + sign * m(left)], 1), "You split down the middle.", halves),
        (torch.cat([left + sign * m(right), right], 1), "You split down the middle.", halves),
        (
            torch.cat([kept, new], 1),
            f"Your {out} holds the two halves side by side instead of interleaved.",
            order,
        ),
        (
            torch.cat([new, kept], 1),
            f"Your {out} holds the two halves side by side instead of interleaved.",
            order,
        ),
    ]


def _judge_coupling(
    got: Tensor, right: Tensor, x: Tensor, coupling: AdditiveCoupling, sign: int
) -> None:
    """Raise the mistake in ``got``, if any: a half that should stay, or the half that moves."""
    if same(got, right):
        return
    out, into = ("z", "x") if sign > 0 else ("x", "z")
    step = "add" if sign > 0 else "subtract"
    which = "odd" if coupling.flip else "even"
    if same(got[:, coupling.mask.kept], x[:, coupling.mask.kept]):
        formula = f"{into}_moved {'+' if sign > 0 else '−'} shift({into}_kept)"
        otherwise = (
            f"Your {out} keeps the right half, but its other half is not {formula}.",
            f"One line will do: {step} `shift` of the kept half to the other half.",
        )
    else:
        otherwise = (
            f"Your {out} changes the half that must stay: the {which} coordinates.",
            f"Copy {into} first, then change the other half of the copy only.",
        )
    known = _coupling_mistakes(x, coupling, sign) if x.shape[1] % 2 == 0 else []
    diagnose(got, known, otherwise)


@exercise(
    "04.additive_coupling",
    task="Write `additive_coupling`: keep half of the coordinates of x [B, D], add "
    "`shift(kept half)` to the other half, return z [B, D] and log_det [B].",
    signature="additive_coupling(x, shift, flip) -> (z, log_det)",
    solution=[AlternatingMask, AdditiveCoupling.forward],
    hints=[
        "Split the columns: even coordinates `0::2`, odd coordinates `1::2`. With flip=False the "
        "even ones stay, with flip=True the odd ones.",
        "Start from `z = x.clone()`, so that the half that stays is done; then write to the "
        "columns of the other half.",
        "The Jacobian is triangular with ones on its diagonal, whatever `shift` is. What is the "
        "logarithm of its determinant? Return one such number per point: shape [B].",
    ],
)
def _check_additive_coupling(attempt: Attempt, generator: torch.Generator) -> str:
    for dim, flip in _CASES:
        coupling, shift, x = _random_coupling(dim, flip, generator)

        def forward(points: Tensor, shift: _Shift = shift, flip: bool = flip) -> Any:
            return attempt(points, shift, flip)

        z, log_det = take_pair(("z", "log_det"), forward(x))
        z = take_tensor("z", z, x.shape, dtype=x.dtype)
        right, _ = coupling(x)
        _judge_coupling(z, right, x, coupling, sign=1)

        leaf = x.clone().requires_grad_()
        check_gradients(
            "z",
            forward(leaf)[0],
            coupling(leaf)[0],
            {"x": leaf, "the weights of shift": shift.weight},
            "The shift is learned through z: no `detach`, no `.data`, no `no_grad`.",
        )
        _judge_log_det(log_det, x, forward, shift(x[:, coupling.mask.kept]))
    return (
        "The library's inverse leads your z back to x, your log_det is that of the autograd "
        "Jacobian, and gradients reach the shift."
    )


def _judge_log_det(log_det: Any, x: Tensor, forward: Any, shift: Tensor) -> None:
    log_det = take_tensor("log_det", log_det, (len(x),), dtype=x.dtype)
    jacobian = log_abs_det_jacobian(lambda points: forward(points)[0], x)
    if same(log_det, jacobian, tolerance=1e-3):
        return
    about = "∂z/∂x is triangular, with ones on its diagonal: its determinant is 1."
    summed = (
        "Your log_det adds up the shifts.",
        f"A shift moves a point, it does not stretch space. {about}",
    )
    diagnose(
        log_det,
        [
            (torch.ones_like(log_det), "Your log_det is the determinant itself.", "log 1 = 0."),
            (shift.sum(1), *summed),
            (-shift.sum(1), *summed),
            (shift.abs().log().sum(1), *summed),
        ],
        ("Your log_det is not the one of the autograd Jacobian of your own z.", about),
    )


@exercise(
    "04.additive_coupling_inverse",
    task="Write `additive_coupling_inverse`: lead z [B, D] of an additive coupling back to x.",
    signature="additive_coupling_inverse(z, shift, flip) -> x",
    solution=[AlternatingMask, AdditiveCoupling.inverse],
    hints=[
        "Which half of x can you read off z at once?",
        "The shift was computed from the half that stayed, and that half is still in z.",
        "Copy z and subtract `shift(kept half)` from the other half. The function `shift` itself "
        "is never inverted.",
    ],
)
def _check_additive_coupling_inverse(attempt: Attempt, generator: torch.Generator) -> str:
    for dim, flip in _CASES:
        coupling, shift, x = _random_coupling(dim, flip, generator)
        z = coupling(x)[0].detach()
        got = take_tensor("x", attempt(z, shift, flip), z.shape, dtype=z.dtype)
        _judge_coupling(got, x, z, coupling, sign=-1)

        z.requires_grad_()
        got = attempt(z, shift, flip)
        check_gradients(
            "x",
            got,
            coupling.inverse(z)[0],
            {"z": z, "the weights of shift": shift.weight},
            "Inpainting and samples need gradients through the inverse: no `detach`, no `no_grad`.",
        )
    return "Every point comes back: inverse(forward(x)) = x, for even and odd D, both flips."


@exercise(
    "04.change_of_variables",
    task="Write `flow_log_prob`: the log-density [B], in nats, of x [B, D] under a flow; each "
    "transform is called as `z, log_det = transform(x)`.",
    signature="flow_log_prob(x, transforms, base_log_prob) -> [B]",
    solution=[Flow.forward, Flow.log_prob],
    hints=[
        "log p(x) = log p_base(f(x)) + log |det ∂f/∂x|, where f is all the transforms in a row.",
        "By the chain rule the Jacobians are multiplied, so their log-determinants add up.",
        "Loop over the transforms. Each gets what the one before returned; add its log_det to a "
        "running sum. At the end add `base_log_prob` of the last z.",
    ],
)
def _check_change_of_variables(attempt: Attempt, generator: torch.Generator) -> str:
    x = torch.randn(_BATCH, 3, generator=generator, dtype=torch.float32)
    base = StandardLogistic(3).float()
    layers = _random_layers(x, base, generator)
    got = take_tensor(
        "log-density", attempt(x, list(layers), base.log_prob), (len(x),), dtype=x.dtype
    )

    flow = Flow(layers, base)
    z = flow(x)[0]
    right = base.log_prob(z) + log_abs_det_jacobian(lambda points: flow(points)[0], x)
    if not same(got, right):
        known = _change_of_variables_mistakes(x, layers, base)
        diagnose(
            got,
            known,
            (
                "Your value is not base_log_prob(z) + log |det ∂z/∂x|, with the autograd Jacobian "
                "of the whole chain.",
                "Test with a single transform first, then with two.",
            ),
        )

    x = x.clone().requires_grad_()
    got = attempt(x, list(layers), base.log_prob)
    check_gradients(
        "log-density",
        got,
        flow.log_prob(x),
        {"x": x, "the scales": layers[1].log_scale, "the last transform": layers[2].b},
        "The flow is trained through log p: no `detach`, no `.item()`, no `no_grad`, and "
        "log_det needs its gradient, too.",
    )
    return (
        "Your log-density is that of the base plus the log-determinant of the autograd Jacobian of "
        "the whole chain, and gradients reach every transform."
    )


def _random_layers(
    x: Tensor, base: StandardLogistic, generator: torch.Generator
) -> list[nn.Module]:
    """Random transforms under which no two known mistakes give the same values at ``x``."""
    while True:
        layers = [
            _randomize(layer(x.shape[1]), generator) for layer in (Planar, DiagonalScaling, Planar)
        ]
        known = _change_of_variables_mistakes(x, layers, base)
        values = torch.stack([Flow(layers, base).log_prob(x), *(value for value, _, _ in known)])
        apart = (values[:, None] - values).abs() > 1e-3 * (1 + values.abs())  # [K, K, B]
        alike = int((~apart.any(2)).sum()) > len(values)  # each is like itself
        # Where space is squeezed to nothing, float32 is not enough to compare with a Jacobian.
        squeezed = min(layer(x)[1].min() for layer in layers) < -3
        if not alike and not squeezed:
            return layers


def _change_of_variables_mistakes(x: Tensor, layers: Sequence[nn.Module], base: nn.Module) -> Known:
    def chain(order: Sequence[nn.Module]) -> tuple[Tensor, list[Tensor]]:
        point, log_dets = x, []
        for layer in order:
            point, log_det = layer(point)
            log_dets.append(log_det)
        return point, log_dets

    z, log_dets = chain(layers)
    back, back_log_dets = chain(layers[::-1])
    first, _ = layers[0](x)
    at_x = [layer(x)[1] for layer in layers]
    total, log_base = sum(log_dets), base.log_prob(z)
    run = "Feed each transform with what the one before returned."
    every = "Every transform stretches space once more: add up all the log-determinants."
    return [
        (
            log_base,
            "You forget the log-determinants.",
            "Where the flow squeezes space, density piles up: add log |det| of every transform.",
        ),
        (
            log_base - total,
            "Your log-determinants have the sign of the inverse direction.",
            "The transforms lead from data to latent, so their log_det is added.",
        ),
        (
            -(log_base + total),
            "Your value is the negative log-density.",
            "That is the loss; the log-density is asked for.",
        ),
        (
            (log_base + total).exp(),
            "Your value is the density, not its logarithm.",
            "Stay in logarithms: a density in 784 dimensions under- or overflows.",
        ),
        ((log_base + total) / math.log(2), "Your value is in bits.", "Don't divide by log 2."),
        (log_base + log_dets[0], "You add the log_det of the first transform only.", every),
        (log_base + log_dets[-1], "You add the log_det of the last transform only.", every),
        (base.log_prob(first) + log_dets[0], "You apply the first transform only.", run),
        (
            base.log_prob(x) + total,
            "You evaluate the base density at x.",
            "The base is the density of the latent: evaluate it at the last z.",
        ),
        (total, "You forget the base density.", "Add `base_log_prob` of the last z."),
        (
            base.log_prob(back) + sum(back_log_dets),
            "You run through the transforms in reverse.",
            "From data to latent they come in the order of the list; sampling goes backwards.",
        ),
        (base.log_prob(z) + sum(at_x), "You compute every log_det at x.", run),
        (base.log_prob(layers[-1](x)[0]) + sum(at_x), "You feed every transform with x.", run),
        (base.log_prob(layers[-1](x)[0]) + at_x[-1], "You feed every transform with x.", run),
        (
            log_base + total.mean(),
            "You average log_det over the batch.",
            "Each point has a log-determinant of its own.",
        ),
        (
            log_base + total.sum(),
            "You sum log_det over the batch.",
            "Each point has a log-determinant of its own.",
        ),
        (
            log_base + total.exp(),
            "You add the determinant, not its logarithm.",
            "The transforms hand you log |det| already.",
        ),
        (
            StandardGaussian(x.shape[1]).float().log_prob(z) + total,
            "You use a Gaussian in place of base_log_prob.",
            "Call `base_log_prob(z)`, which may be any density.",
        ),
    ]


@exercise(
    "04.dequantize",
    task="Write `dequantize`: spread grey values k / (levels − 1) evenly over their bins, "
    "(k + u) / levels with u uniform in [0, 1) drawn from `generator`.",
    signature="dequantize(x, levels, generator) -> y",
    solution=dequantize,
    hints=[
        "Go back to the whole number k first, add noise, then scale to [0, 1).",
        "`torch.rand(x.shape, generator=generator)` draws one u for every pixel.",
        "Mind the two scales: k = x · (levels − 1), but there are `levels` bins of width "
        "1 / levels.",
    ],
)
def _check_dequantize(attempt: Attempt, generator: torch.Generator) -> str:
    for levels, rows in ((17, 2000), (2, 100), (256, 20)):
        k = torch.arange(levels, dtype=torch.float64).repeat(rows, 1)  # one column per grey level
        x = (k / (levels - 1)).float()
        got = attempt(x, levels, torch.Generator().manual_seed(fresh_seed(generator)))
        y = take_tensor("y", got, x.shape, dtype=x.dtype).detach().double()
        _judge_bins(y, x.double(), k, levels)
        if levels == 17:
            _judge_noise(y * levels - k)

            def draw(fresh: torch.Generator, x: Tensor = x, levels: int = levels) -> Any:
                return attempt(x, levels, fresh)

            hint = "Hand the generator on: `torch.rand(x.shape, generator=generator)`."
            check_randomness(draw, generator, hint)
    return (
        "Every value stays in its bin, evenly spread, and all noise comes from the generator: "
        "rounding down gives the image back."
    )


def _judge_bins(y: Tensor, x: Tensor, k: Tensor, levels: int) -> None:
    def inside(u: Tensor) -> bool:
        # The margin leaves room for float32, in which (k + u) / levels may round up to a bin's end.
        return bool(((u > -1e-3) & (u < 1 + 1e-3)).all())

    if (y == x).all():
        raise Mistake(
            "Your y is x: there is no noise.",
            "Draw u with `torch.rand(x.shape, generator=generator)`.",
        )
    if inside(y * levels - k):
        return
    known = [
        (
            inside((y - x) * levels),
            "Your noise is added to k / (levels − 1), so that bright pixels leave their bins and "
            "[0, 1).",
            "Multiply x by levels − 1 to get k, add u, then divide by levels.",
        ),
        (
            inside(y * (levels - 1) - k),
            "You divide by levels − 1, so that y goes up to levels / (levels − 1).",
            "k + u lies in [0, levels): divide by levels.",
        ),
        (
            inside(y * levels - k + 0.5),
            "Your noise is centred: half of all values fall into the bin below.",
            "u lies in [0, 1), not in [−0.5, 0.5).",
        ),
        (inside(y - k), "Your y is k + u, in [0, levels).", "Divide by levels."),
        (
            inside(y - x),
            "Your noise is as wide as the whole range of greys.",
            "One bin is 1 / levels wide: divide k and u alike by levels.",
        ),
    ]
    for explains, reason, hint in known:
        if explains:
            raise Mistake(reason, hint)
    where = "below 0" if y.min() < -1e-4 else "of 1 and more" if y.max() > 1.0001 else "elsewhere"
    raise Mistake(
        f"Some of your values leave the bin of their grey level: there are values {where}.",
        "Grey level k owns [k / levels, (k + 1) / levels): its y must stay there.",
    )


def _judge_noise(u: Tensor) -> None:
    """Test that ``u [N, levels]`` is independent and uniform on [0, 1)."""
    about = "`torch.rand(x.shape, generator=generator)` is uniform, with one draw per pixel."
    if u.std() < 1e-2:
        raise Mistake(
            "All your values sit at the same place of their bins: there is no noise, or one draw "
            "for all pixels.",
            about,
        )
    if (u.std(0) < 1e-2).any() or (u.std(1) < 1e-2).all():
        raise Mistake("Some pixels share one draw of noise.", about)
    # Dvoretzky-Kiefer-Wolfowitz: P(distance > c) ≤ 2 exp(−2 N c²), here 10⁻⁹ in all.
    far = _distance_from_uniform(u.reshape(-1, 1)) > _dkw(u.numel(), 1)
    if far.any() or (_distance_from_uniform(u) > _dkw(len(u), u.shape[1])).any():
        raise Mistake(
            f"Your noise is not uniform: it has mean {u.mean():.2f} and standard deviation "
            f"{u.std():.2f} of a bin, where a uniform u has 0.50 and 0.29.",
            about,
        )


def _dkw(n: int, tests: int) -> float:
    return math.sqrt(math.log(2 * tests / 5e-10) / (2 * n))


def _distance_from_uniform(u: Tensor) -> Tensor:
    """The Kolmogorov-Smirnov distance of every column from the uniform distribution."""
    u = u.sort(0).values
    below = torch.arange(len(u))[:, None] / len(u)
    return torch.maximum((below + 1 / len(u) - u).abs(), (u - below).abs()).amax(0)


@exercise(
    "04.bits_per_dim",
    task="Write `bits_per_dim`: from the log-density [B], in nats, of dequantized data in [0, 1) "
    "to bits per dimension of the image with `levels` grey levels.",
    signature="bits_per_dim(log_prob, dim, levels) -> [B]",
    solution=bits_per_dim,
    hints=[
        "Probability is density times volume. An image owns a cube with sides 1 / levels.",
        "log P = log p − dim · log(levels), so −log P = −log p + dim · log(levels).",
        "Divide by dim, and by log 2 to turn nats into bits.",
    ],
)
def _check_bits_per_dim(attempt: Attempt, generator: torch.Generator) -> str:
    for dim, levels in ((30, 256), (64, 17), (3, 5)):
        # Independent pixels with random probabilities: a density that is constant in each bin, and
        # whose code length is known.
        p = torch.randn(_BATCH, dim, levels, generator=generator, dtype=torch.float64).softmax(2)
        k = torch.randint(levels, (_BATCH, dim, 1), generator=generator)
        probability = p.gather(2, k).squeeze(2)  # [B, dim]
        log_prob = (probability * levels).log().sum(1).float()
        right = -probability.log2().mean(1)

        got = attempt(log_prob, dim, levels)
        got = take_tensor("result", got, log_prob.shape, dtype=log_prob.dtype).detach().double()
        if not same(got, right):
            _diagnose_bits_per_dim(got, log_prob.double(), dim, levels)
    return (
        "For independent pixels with known probabilities P, your number is the average of "
        "−log2 P: the length of the best code."
    )


def _diagnose_bits_per_dim(got: Tensor, log_p: Tensor, dim: int, levels: int) -> None:
    nats, ln2, log2 = log_p / dim, math.log(2), math.log2(levels)
    levels_hint = "Each dimension has `levels` bins of width 1 / levels: add log2(levels)."
    sign = "Less likely must cost more bits: log p enters with a minus."
    nats_hint = "Divide nats by log 2; log2(levels) is in bits already."
    dim_hint = "The whole image costs −log2 p; divide by dim. log2(levels) is per dimension."
    known = [
        (-nats / ln2, "You forget the size of the bins.", levels_hint),
        (nats / ln2 + log2, "Your log-density has the wrong sign.", sign),
        (nats / ln2 - log2, "Your result has the wrong sign.", sign),
        (-nats / ln2 - log2, "Your log2(levels) has the wrong sign.", levels_hint),
        (-nats + math.log(levels), "Your result is in nats, not in bits.", nats_hint),
        (-nats + log2, "Your log-density stays in nats.", nats_hint),
        (-nats / ln2 + math.log(levels), "You add log(levels) in nats.", nats_hint),
        (-nats * ln2 + log2, "You multiply by log 2 where you must divide.", nats_hint),
        (-log_p / ln2 + log2, "You don't divide the log-density by dim.", dim_hint),
        (-log_p / ln2 + dim * log2, "You give bits per image, not per dimension.", dim_hint),
        ((-log_p / ln2 + log2) / dim, "You divide log2(levels) by dim, too.", dim_hint),
        (-nats / ln2 + math.log2(levels - 1), "You count levels − 1 bins.", levels_hint),
        (-nats / ln2 + 8, "Your number of levels is fixed to 256.", "Use `levels`."),
        (-log_p / 784 / ln2 + log2, "Your number of dimensions is fixed to 784.", "Use `dim`."),
    ]
    otherwise = (
        "For independent pixels with known probabilities P, your number is not the average of "
        "−log2 P.",
        "Try log_prob = 0, the uniform density: the result must be log2(levels).",
    )
    diagnose(got, known, otherwise)


@exercise(
    "04.break_it",
    task="Break the likelihood: write `spiky_log_prob`, a log-density of x [B] that integrates to "
    "1 for every width, and on the grey values k / 16 grows without bound as width goes to 0.",
    signature="spiky_log_prob(x, width) -> [B]",
    solution=spiky_log_prob,
    hints=[
        "There are only 17 values to please: k / 16 for k = 0 ... 16. Put a spike on each.",
        "A mixture of 17 narrow boxes or Gaussians, each of weight 1/17 and of size `width`.",
        "The smaller the width, the higher a spike has to be, so that its area stays the same. For "
        "Gaussians `torch.logsumexp` adds densities up without underflow.",
    ],
)
def _check_break_it(attempt: Attempt, generator: torch.Generator) -> str:
    def log_p(x: Tensor, width: float) -> Tensor:
        value = take_tensor("log-density", attempt(x, width), x.shape, infinite=True).detach()
        if (value == math.inf).any():
            raise Mistake(
                "Your log-density is infinite.", "A spike of some width has a finite height."
            )
        return value.double()

    greys = torch.arange(17, dtype=torch.float64) / 16
    for width in (0.02, 0.008):
        _judge_integral(log_p, width, generator)
    widths = [10.0**-i for i in (2, 3, 4, 5)]
    heights = [log_p(greys, width) for width in widths]
    for width, low, high in zip(widths[1:], heights, heights[1:], strict=False):
        if not _grows_tenfold(high.mean() - low.mean()):
            _diagnose_growth(log_p, width, high - low)

    k = torch.randint(17, (4096,), generator=generator)
    u = torch.rand(4096, generator=generator, dtype=torch.float64)
    spread = log_p((k + u) / 17, 1e-3).mean()
    if spread > 0.5:
        raise Mistake(
            f"On dequantized data your mean log-density is {spread:.1f}, more than the 0 of a "
            "uniform density, which no true density can exceed here.",
            "Does your density integrate to 1 for every width?",
        )
    return (
        f"Broken: at width 0.00001 the grey values get {heights[-1].mean():.1f} nats each, and "
        f"ln 10 more for every tenth of the width. On dequantized values a width of 0.001 gives "
        f"{spread:.0f}: a uniform density, with 0, is better."
    )


def _judge_integral(log_p: Any, width: float, generator: torch.Generator) -> None:
    # The grid starts anywhere, so that no edge of a box falls on its points.
    step = width / 200
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    x = -0.25 + step * (torch.arange(int(1.5 / step)) + offset)
    value = log_p(x, width)

    def integral(values: Tensor) -> float:
        return float(values.sum() * step)

    def near(a: float, b: float) -> bool:
        return abs(a - b) < 0.015 * b

    total = integral(value.exp())
    if near(total, 1.0):
        return
    if near(integral(value), 1.0):
        raise Mistake("Your value is the density, not its logarithm.", "Return its logarithm.")
    if near(integral((value * math.log(2)).exp()), 1.0):
        raise Mistake("Your log-density is in bits.", "Use the natural logarithm.")
    height = "The area of a spike is its height times its width: divide the height by `width`."
    known = [
        (17, "each of the 17 spikes has weight 1, not 1/17", "Subtract log 17."),
        (17 * width, "the height of a box is 1 for every width", height),
        (width, "the height of a spike does not depend on width", height),
        (17 * width * math.sqrt(2 * math.pi), "the height of a Gaussian is not normalised", height),
        (
            width * math.sqrt(2 * math.pi),
            "the height of a Gaussian does not depend on width",
            height,
        ),
        (math.sqrt(2 * math.pi), "the √2π of the Gaussian is missing", "Subtract ½ log 2π."),
        (
            17 * math.sqrt(2 * math.pi),
            "1/17 and the √2π of the Gaussian are missing",
            "Subtract log 17 and ½ log 2π.",
        ),
        (
            2,
            "your boxes are twice as wide as their height allows for",
            "A box of this width reaches width / 2 to either side.",
        ),
        (
            0.5,
            "your boxes are half as wide as their height allows for",
            "A box of this width reaches width / 2 to either side.",
        ),
        (16 / 17, "only 16 of the 17 spikes are there", "k runs from 0 to 16, both included."),
        (17 / 16, "17 spikes have weight 1/16 each", "Subtract log 17."),
        (0, "there is nothing where you look", "Is the height of the spikes a logarithm?"),
    ]
    for wrong, because, hint in known:
        if near(total, wrong) or total == wrong:
            raise Mistake(f"Your density integrates to {total:.3g} instead of 1: {because}.", hint)
    raise Mistake(
        f"Your density integrates to {total:.3g} instead of 1.",
        "Sum its values on a fine grid, times the step, for a few widths.",
    )


def _grows_tenfold(growth: Tensor) -> Tensor:
    return (growth - math.log(10)).abs() < 0.2 * math.log(10)  # False for NaN


def _diagnose_growth(log_p: Any, width: float, growth: Tensor) -> None:
    """Say why log-densities of the 17 grey values, of which ``width`` adds ``growth``, are off."""
    k = torch.arange(17, dtype=torch.float64)
    spikes = "Your spikes are not on the grey values: they are"
    for centres, where in (
        ((k + 0.5) / 17, "in the middles of the bins, (k + ½) / 17"),
        (k / 17, "at k / 17"),
        (k[:16] / 15, "at k / 15"),
        ((k + 1) / 17, "at (k + 1) / 17"),
        ((k[:16] + 0.5) / 16, "between the grey values"),
    ):
        if log_p(centres, width).mean() - log_p(centres, 10 * width).mean() > 2:
            raise Mistake(f"{spikes} {where}.", "The grey values are k / 16 for k = 0 ... 16.")
    good = _grows_tenfold(growth)
    if good.any() and not good.all():
        raise Mistake(
            f"Only {int(good.sum())} of the 17 grey values carry a spike: none is on "
            f"{k[~good][0]:.0f} / 16.",
            "Every one of k / 16, k = 0 ... 16, needs a spike, 0 and 1 included.",
        )
    gain = float(growth.mean())
    for power, reason in (
        (0.0, "Your spikes do not get narrower with `width`"),
        (0.5, "Your spikes are √width wide"),
        (2.0, "Your spikes are width² wide"),
    ):
        if abs(gain - power * math.log(10)) < 0.05:
            raise Mistake(
                f"{reason}: with a tenth of the width the grey values gain {gain:.2f} nats, not "
                "ln 10 = 2.30.",
                "A spike is `width` wide, and its height goes with 1 / width.",
            )
    raise Mistake(
        f"With a tenth of the width the grey values gain {gain:.2f} nats; a spike that keeps its "
        "area grows tenfold, by ln 10 = 2.30.",
        "Every spike must sit on a grey value and be as narrow as `width` says.",
    )


@exercise(
    "04.predict_couplings",
    task="Predict: with D ≥ 4 coordinates, after how many alternating additive couplings can every "
    "output depend on every input?",
    solution=coupling_dependencies,
    hints=[
        "One coupling leaves half of the coordinates as they were.",
        "Follow one coordinate of the half that moved first: from which inputs has it heard after "
        "one coupling, and when does it hear from the others of its own half?",
        "`coupling_dependencies(n, 8)` shows the pattern after n couplings.",
    ],
)
def _check_predict_couplings(attempt: Any, generator: torch.Generator) -> str:
    attempt = take_whole_number(attempt, 1, "How many couplings does it take?")
    dim, needed = 8, 0
    while not coupling_dependencies(needed, dim, generator=generator).all():
        needed += 1
    if attempt == needed:
        return (
            f"After {needed} couplings no entry of the {dim}×{dim} Jacobian is zero; after "
            f"{needed - 1} some are."
        )
    if attempt > needed:
        raise Mistake(
            f"{attempt} couplings are enough, but so are {attempt - 1}.",
            "Look for the smallest number.",
        )
    pattern = coupling_dependencies(attempt, dim, generator=generator)
    missing = int((~pattern).sum())
    i, j = next(divmod(at, dim) for at in range(dim * dim) if not pattern.flatten()[at])
    still = (pattern.int() == torch.eye(dim).int()).all(1)  # depends on itself alone
    because = (
        f"{int(still.sum())} of {dim} outputs have not moved at all"
        if still.any()
        else "every coordinate has moved, but those that moved first know nothing of the others in "
        "their own half"
    )
    raise Mistake(
        f"After {attempt} {'coupling' if attempt == 1 else 'couplings'} {because}: {missing} "
        f"of {dim * dim} entries of the Jacobian are still zero (output {i} ignores input {j}).",
        "What does one more coupling bring together?",
    )
