"""Exercises of chapter 05: split, logit, squeeze, ActNorm, 1×1 convolutions, temperature."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.exercises.attempt import (
    Attempt,
    Given,
    Mistake,
    same,
    take_tensor,
)
from course_lib.exercises.formula import BATCH, Case, Wrong, formula, usual
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise
from course_lib.experiments.blow_up import StackReport, far_latents, run_stack, runaway_log_scale
from course_lib.flows import (
    ActNorm,
    AffineCoupling,
    DiagonalScaling,
    Flow,
    Glow,
    InvertibleConv1x1,
    Logit,
    Split,
    Squeeze,
)

__all__: list[str] = []

# --- How much passes through the last level ------------------------------------------------------

_LEAVES = "After each level but the last a split lets half of the numbers go."
_KEEPS = "A squeeze only moves numbers: four times the channels, a quarter of the places."
_SHAPES = Glow((3, 32, 32), levels=3, depth=1, hidden=1).scale_shapes
_FIRST, _SECOND, _LAST = (math.prod(shape) for shape in _SHAPES)
# fmt: off
_SPLIT_WRONG = [
    Slip(0.25, "That is the share.", "How many numbers are a quarter of 3,072?", within=1e-6),
    Slip(3072, "All 3,072 numbers reach z, but not all pass through the last level."),
    Slip(1536, "1,536 numbers pass through the second level: one split came before.",
         "Before the third level there is a second split."),
    Slip(384, "You split once too often: the last level ends without a split.",
         "3 levels have 2 splits between them."),
    Slip(192, "192 is what is left when each split lets three quarters go, or the number of "
         "channels after three squeezes without a split.",
         "A split halves the channels; count the numbers, channels times places."),
    Slip(2304, "2,304 numbers left before the last level: you count those that do not pass.",
         "What is left of 3,072?"),
    Slip(1024, "You divide by the number of levels."),
    Slip(48, "48 is the number of channels of the last level, or what is left of 3,072 when each "
         "of three squeezes loses three quarters.",
         f"{_KEEPS} Multiply the channels by the places, 4 × 4."),
    Slip(12, "You let a squeeze lose numbers, as if it kept one pixel of each block.", _KEEPS),
    Slip(16, "16 is the number of places in the last level.", "Each of them has 48 channels."),
    Slip(4 * 3072, "A squeeze makes no numbers.", _KEEPS),
    Slip(2 * 3072, "No level has more numbers than the image.", _KEEPS),
]
# fmt: on

prediction(
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
    right=_LAST,
    wrong=_SPLIT_WRONG,
    passes=f"{_LAST}, a quarter: 48 × 4 × 4. Of the others {_FIRST:,} left after the first level "
    f"and {_SECOND} after the second. z has all {_FIRST + _SECOND + _LAST:,} of them, but three "
    "quarters took a shorter way.",
    question="Half leaves at every split: how many splits are there?",
    hint=_LEAVES,
    low=1,
    whole=True,
)


# --- Split ---------------------------------------------------------------------------------------


class _Prior(Given):
    """Mean and standard deviation of the leaving half given the other, at random."""

    def __init__(self, channels: int, generator: torch.Generator):
        super().__init__("prior", ["kept"], self._of)
        self.weight = torch.randn(channels, 2 * channels, generator=generator).requires_grad_()

    def _of(self, kept: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(kept, Tensor):
            raise Mistake(
                f"You call prior with a {type(kept).__name__}.",
                "Give it the half that goes on, a tensor.",
            )
        if kept.ndim != 4 or kept.shape[1] != len(self.weight):
            raise Mistake(
                f"You call prior on a tensor of shape {list(kept.shape)}; the half that goes on "
                f"has {len(self.weight)} channels.",
                "Channels are axis 1: `kept, leaving = h.chunk(2, dim=1)`.",
            )
        raw = torch.einsum("bchw,cd->bdhw", kept, self.weight).sin()
        mean, log_std = raw.chunk(2, dim=1)
        return 2 * mean, log_std.exp()


def _draw_splits(generator: torch.Generator) -> list[tuple[Tensor, _Prior]]:
    return [
        (torch.randn(*shape, generator=generator), _Prior(shape[1] // 2, generator))
        for shape in ((5, 4, 2, 3), (4, 2, 3, 2), (3, 6, 1, 4))
    ]


def _split(h: Tensor, prior: Callable) -> tuple[Tensor, Tensor, Tensor]:
    kept, leaving = h.chunk(2, dim=1)
    mean, std = prior(kept)
    return kept, (leaving - mean) / std, -std.log().sum((1, 2, 3))


def _eps(eps: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """A split with another ε, a function of the leaving half, mean and std."""

    def other(h: Tensor, prior: Callable) -> tuple[Tensor, Tensor, Tensor]:
        kept, leaving = h.chunk(2, dim=1)
        mean, std = prior(kept)
        return kept, eps(leaving, mean, std), _split(h, prior)[2]

    return other


def _split_log_det(log_det: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """A split with another log_det, a function of std and ε."""

    def other(h: Tensor, prior: Callable) -> tuple[Tensor, Tensor, Tensor]:
        kept, eps, _ = _split(h, prior)
        return kept, eps, log_det(prior(kept)[1], eps)

    return other


def _exchanged(h: Tensor, prior: Callable) -> tuple[Tensor, Tensor, Tensor]:
    leaving, kept = h.chunk(2, dim=1)
    mean, std = prior(kept)
    return kept, (leaving - mean) / std, -std.log().sum((1, 2, 3))


_TO_STANDARD = "ε = (h₂ − mean) / std is standard normal if h₂ is N(mean, std²)."
_SHRINKS = "∂ε/∂h₂ = 1 / std, at every channel and pixel: log_det = −Σ log std."
# fmt: off
_SPLIT_OFF_WRONG = [
    Wrong(_exchanged, "You let the first half leave.",
          "The first half of the channels goes on, the second leaves."),
    Wrong(_eps(lambda h, m, s: h), "Your eps is h₂ itself: it is not standard normal.",
          _TO_STANDARD),
    Wrong(_eps(lambda h, m, s: h - m), "Your eps is not divided by std.", _TO_STANDARD),
    Wrong(_eps(lambda h, m, s: h / s), "The mean is not subtracted in your eps.", _TO_STANDARD),
    Wrong(_eps(lambda h, m, s: h * s + m), "You run the split backwards: this draws h₂ from ε.",
          _TO_STANDARD),
    Wrong(_eps(lambda h, m, s: (h - m) / s**2), "Your eps is divided by the variance.",
          _TO_STANDARD),
    Wrong(_eps(lambda h, m, s: (h - m) * s), "Your eps is multiplied by std.", _TO_STANDARD),
    Wrong(_eps(lambda h, m, s: h / s - m), "You divide before the mean is subtracted.",
          _TO_STANDARD),
    usual("sign", "Your log_det has the sign of the way back.", _SHRINKS, part="log_det"),
    Wrong(_split_log_det(lambda s, e: 0 * s.sum((1, 2, 3))), "Your log_det is 0.", _SHRINKS),
    Wrong(_split_log_det(lambda s, e: -s.log().sum((1, 2, 3)) - 0.5 * (e**2 + math.log(2 * math.pi))
                         .sum((1, 2, 3))),
          "Your log_det is log N(h₂; mean, std²) already.",
          "The base adds log N(ε; 0, 1) in the end: here it would count twice."),
    Wrong(_split_log_det(lambda s, e: -s.sum((1, 2, 3))), "You sum std, not its logarithm.",
          _SHRINKS),
    Wrong(_split_log_det(lambda s, e: -2 * s.log().sum((1, 2, 3))),
          "You count the variance in place of std.", _SHRINKS),
    Wrong(_split_log_det(lambda s, e: -s.log().mean((1, 2, 3))),
          "You average over channels and pixels.", _SHRINKS),
    Wrong(_split_log_det(lambda s, e: -s.log().mean((2, 3)).sum(1)),
          "You average over the pixels.", _SHRINKS),
    usual("batch sum", part="log_det"),
    usual("batch mean", part="log_det"),
    usual("bits", part="log_det"),
]
# fmt: on

formula(
    "05.split",
    task="Write `split_off`: of h [B, C, H, W] the first half of the channels goes on; the second, "
    "which is N(mean, std²) given the first, leaves as standard normal eps. Return the kept half, "
    "eps, both [B, C/2, H, W], and log_det [B]. Gradients flow.",
    signature="split_off(h, prior) -> (kept, eps, log_det)",
    solution=[Split.prior, AffineCoupling.forward],
    hints=[
        "`kept, leaving = h.chunk(2, dim=1)`, and `mean, std = prior(kept)`.",
        "Which linear function of `leaving` is standard normal? Its slope gives log_det.",
        "eps = (leaving − mean) / std, log_det = −log(std) summed over channels and pixels.",
    ],
    right=_split,
    inputs=_draw_splits,
    result=["kept", "eps", "log_det"],
    axes="[B, C, H, W], _ -> [B, C/2, H, W], [B, C/2, H, W], [B]",
    gradients={"h": None, "the weights of prior": lambda h, prior: prior.weight},
    gradient_hint="The flow is trained through all three: no `detach`, no `no_grad`.",
    wrong=_SPLIT_OFF_WRONG,
    otherwise={
        "kept": ("Your kept half is not the first half of the channels.", "`h.chunk(2, dim=1)`."),
        "eps": ("Your eps is not (h₂ − mean) / std.", _TO_STANDARD),
        "log_det": ("Your log_det is not the one of your own eps.", _SHRINKS),
    },
    passes="log N(ε; 0, 1) + log_det is log N(h₂; mean, std²), for every image: the density stays "
    "exact, and the rest of the flow has half of the work.",
)


# --- Logit ---------------------------------------------------------------------------------------


def _paper_logit(x: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    y = alpha + (1 - alpha) * x
    log_det = math.log(1 - alpha) - y.log() - (1 - y).log()
    return y.log() - (1 - y).log(), log_det.flatten(1).sum(1)


def _other_logit(z: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., Any]:
    """A logit with another z, a function of x, y and α."""
    return lambda x, a: (z(x, a + (1 - a) * x, a), _paper_logit(x, a)[1])


def _logit_log_det(term: Callable[[Tensor, float], Tensor]) -> Callable[..., Any]:
    """A logit with another log_det: the sum of a function of y and α."""
    return lambda x, a: (
        _paper_logit(x, a)[0],
        term(a + (1 - a) * x, a).flatten(1).sum(1),
    )


_CHAIN = "dz/dx = (1 − α) (1/y + 1/(1 − y)) = (1 − α) / (y (1 − y))."
_PAPER = "RealNVP's paper has y = α + (1 − α) x."
# fmt: off
_LOGIT_WRONG = [
    Wrong(lambda x, a: Logit(list(x.shape[1:]), alpha=a)(x),
          "That is the library's logit, with 1 − 2 α.", _PAPER),
    Wrong(_other_logit(lambda x, y, a: x.logit()), "You take the logit of x itself.", _PAPER),
    Wrong(_other_logit(lambda x, y, a: y.sigmoid()), "You take the sigmoid: the way back.",
          "logit(y) = log y − log(1 − y)."),
    Wrong(_other_logit(lambda x, y, a: y), "Your z is y: the logit is missing."),
    Wrong(_other_logit(lambda x, y, a: y.log()), "Your z is log y: − log(1 − y) is missing."),
    Wrong(_other_logit(lambda x, y, a: (1 - y).log() - y.log()), "Your z has the wrong sign."),
    Wrong(_other_logit(lambda x, y, a: y.log() + (1 - y).log()), "You add log(1 − y).",
          "logit(y) = log y − log(1 − y)."),
    Wrong(_logit_log_det(lambda y, a: -y.log() - (1 - y).log()),
          "The log(1 − α) of every pixel is missing in your log_det.", _CHAIN),
    Wrong(_logit_log_det(lambda y, a: math.log(1 - 2 * a) - y.log() - (1 - y).log()),
          "Your log_det has log(1 − 2 α): that belongs to the library's logit.", _CHAIN),
    Wrong(_logit_log_det(lambda y, a: math.log(1 - a) - y.log() + (1 - y).log()),
          "The last term of your log_det has the wrong sign.", _CHAIN),
    Wrong(_logit_log_det(lambda y, a: math.log(1 - a) - y.log()),
          "The 1/(1 − y) is missing in your log_det.", _CHAIN),
    Wrong(_logit_log_det(lambda y, a: (1 - a) / (y * (1 - y))),
          "You add up the slopes, not their logarithms.", _CHAIN),
    usual("sign", "Your log_det has the sign of the way back.", _CHAIN, part="log_det"),
    Wrong(lambda x, a: (_paper_logit(x, a)[0], _paper_logit(x, a)[1] / x[0].numel()),
          "You average over the pixels.", "A log-determinant adds up all of them."),
    Wrong(lambda x, a: (_paper_logit(x, a)[0], 0 * _paper_logit(x, a)[1]),
          "Your log_det is 0: then it looks as if the logit were no part of the model.", _CHAIN),
    usual("batch sum", part="log_det"),
    usual("batch mean", part="log_det"),
    usual("bits", part="log_det"),
]
# fmt: on

formula(
    "05.logit",
    task="RealNVP's paper models logit(α + (1 − α) x), the library logit(α + (1 − 2 α) x). Derive "
    "the paper's log-determinant, then write `paper_logit`: images x [B, C, H, W] in (0, 1) to z "
    "of their shape and log_det [B]. Gradients flow.",
    signature="paper_logit(x, alpha) -> (z, log_det)",
    solution=Logit.forward,
    hints=[
        "Each pixel moves by itself: the Jacobian is diagonal.",
        "z = log y − log(1 − y) with y = α + (1 − α) x. What is dz/dy, and what dy/dx?",
        "log_det is the sum over pixels of log(1 − α) − log y − log(1 − y).",
    ],
    right=_paper_logit,
    inputs=lambda generator: [
        (0.02 + 0.9 * torch.rand(*shape, generator=generator), alpha)
        for shape, alpha in (((5, 1, 2, 3), 0.05), ((4, 2, 3, 2), 0.2), ((3, 1, 4, 1), 0.1))
    ],
    result=["z", "log_det"],
    axes="[B, C, H, W], _ -> [B, C, H, W], [B]",
    gradients=["x"],
    gradient_hint="Stay in PyTorch: no `detach`, no NumPy.",
    wrong=_LOGIT_WRONG,
    hint=_PAPER,
    otherwise={
        "z": ("Your z is not logit(α + (1 − α) x).", "Try α = 0 and x = ½: z is 0."),
        "log_det": ("Your log_det is not that of the autograd Jacobian of z.", _CHAIN),
    },
    passes="Your log_det is the Jacobian's. With the paper's constants black lies at y = α as "
    "here, and white at 1 in place of 1 − α.",
)


# --- Squeeze -------------------------------------------------------------------------------------


def _numbered(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Images in which no two numbers are the same."""
    return torch.randperm(math.prod(shape), generator=generator).reshape(shape).float()


def _take_moved(
    name: str, value: Any, given: Tensor, wanted: list[int], known: list[tuple[list, str, str]]
) -> Tensor:
    """Require the wanted shape; ``known`` says what others come from."""
    if isinstance(value, Tensor) and list(value.shape) != wanted:
        for shape, reason, hint in known:
            if list(value.shape) == shape:
                raise Mistake(f"{reason}: shape {shape} in place of {wanted}.", hint)
    return take_tensor(name, value, wanted, dtype=given.dtype)


def _lost_or_mixed(got: Tensor, given: Tensor, name: str, hint: str) -> tuple[str, str] | None:
    """What is wrong with a tensor that should hold the same numbers, image by image."""
    if not torch.isin(got, given).all():
        return (
            f"Your result holds numbers that are not in {name}.",
            "Nothing is computed here: numbers only move. Is every entry written to?",
        )
    lost = int((~torch.isin(given, got)).sum())
    if lost:
        return (
            f"{lost} of the {given.numel()} numbers of {name} are lost, and others appear more "
            "than once.",
            hint,
        )
    if not torch.equal(got.flatten(1).sort(1).values, given.flatten(1).sort(1).values):
        return _MIXED
    return None


_MIXED = ("You mix the images of the batch.", "Axis 0 stays as it is, the first axis of all.")


def _squeeze(x: Tensor) -> Tensor:
    return Squeeze()(x)[0]


def _sorted(z: Tensor) -> Tensor:
    """Any order of the channels is right: put them into that of their first numbers."""
    return z[:, z[0, :, 0, 0].argsort()]


def _take_squeezed(value: Any, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    wanted = [b, 4 * c, h // 2, w // 2]
    # fmt: off
    known = [
        ([b, 4 * c, w // 2, h // 2], "You swap height and width",
         "Rows stay rows: H/2 comes before W/2."),
        ([b, c, h // 2, w // 2], "You keep one number for each block",
         "A squeeze is no pooling: all four numbers stay, as four channels."),
        ([b, c // 4, 2 * h, 2 * w], "You go the other way, from channels to blocks",
         "`pixel_shuffle` makes images larger; a squeeze makes them smaller."),
        ([b, c, h, w], "Your z has still the shape of x",
         "Four channels for one, half the height, half the width."),
    ]
    # fmt: on
    if isinstance(value, Tensor) and value.numel() == x.numel():
        hint = "No `reshape` of it is right: first `permute`, so that C and both 2s are neighbours."
        if torch.equal(_sorted(value.detach().reshape(wanted)), _sorted(_squeeze(x))):
            hint = "What is left is a `reshape` of the last axes."
        known.append((list(value.shape), "All the numbers are there", hint))
    return _sorted(_take_moved("z", value, x, wanted, known))


def _not_squeezed(got: Tensor, right: Tensor, x: Tensor) -> tuple[str, str]:
    wrong = _lost_or_mixed(
        got,
        x,
        "x",
        "Each block has four numbers, `[..., i::2, j::2]` for i and j in 0, 1: use each once.",
    )
    if wrong is None and torch.equal(got.sort(1).values, right.sort(1).values):
        wrong = (
            "Each place holds its own block, but the order of the channels is not the same "
            "everywhere.",
            "The same four steps for every block and every image.",
        )
    return wrong or (
        "At some places your channels do not hold the numbers of that place's 2 × 2 block.",
        "Try x = `torch.arange(16.0).reshape(1, 1, 4, 4)`: the upper left place gets 0, 1, 4, 5.",
    )


def _praise_squeeze(attempt: Attempt, generator: torch.Generator) -> str:
    order = "The order of your channels is another one"
    small, large = (_numbered(shape, generator) for shape in ((2, 4, 6, 2), (3, 4, 4, 6)))
    orders = []
    for x in (small, small, large):
        alike = (attempt(x).detach()[:, :, None] == _squeeze(x)[:, None]).flatten(3).all(3).all(0)
        orders.append(alike.int().argmax(1))  # which channel of the library's each of them is
    if not torch.equal(orders[0], orders[1]):
        raise Mistake(f"{order} when you are asked again with the same images.", "Draw nothing.")
    if not torch.equal(orders[0], orders[2]):
        raise Mistake(
            f"{order} for images of another size.",
            "A fixed order for the four numbers of a block is needed to go back.",
        )
    return (
        "Every number of x is there once, and at each place your 4C channels hold that place's "
        "2 × 2 block, in the same order everywhere. It is a permutation, so log_det = 0."
    )


def _arranged(*axes: int, quarters: bool = False) -> Callable[[Tensor], Tensor]:
    """Cut H into (H/2, 2) and W into (W/2, 2), or into (2, H/2) and (2, W/2); order the axes."""

    def arranged(x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        cut = (2, h // 2, 2, w // 2) if quarters else (h // 2, 2, w // 2, 2)
        return x.reshape(b, c, *cut).permute(axes).reshape(b, 4 * c, h // 2, w // 2)

    return arranged


_CUT = "Take every second row and column: `x[:, :, 0::2, 0::2]` is one of the four."
_STARTS = "Blocks hold rows 0 and 1, 2 and 3, ..., and columns likewise."
# fmt: off
_SQUEEZE_WRONG = [
    Wrong(_arranged(0, 1, 2, 3, 4, 5), "A plain reshape: it cuts a channel into strips of numbers "
          "that follow each other in memory.",
          f"{_CUT} A `reshape` alone never changes the order in memory."),
    Wrong(_arranged(0, 1, 2, 4, 3, 5), "You leave the axes of the block behind those of the place.",
          "`permute` brings the two axes of length 2 beside the channels, before you reshape."),
    Wrong(_arranged(0, 2, 4, 1, 3, 5),
          "You put the channels last and then reshape them to the front.",
          "Reshape never moves an axis: bring the channels first with `permute`."),
    Wrong(_arranged(0, 1, 2, 4, 3, 5, quarters=True),
          "You cut the image into four quarters, not into 2 × 2 blocks.", _CUT),
    Wrong(lambda x: _squeeze(x.roll(-1, 2)), "Your blocks start in row 1.", _STARTS),
    Wrong(lambda x: _squeeze(x.roll(-1, 3)), "Your blocks start in column 1.", _STARTS),
    Wrong(lambda x: _squeeze(x.roll((-1, -1), (2, 3))),
          "Your blocks start in row 1 and column 1.", _STARTS),
    Wrong(lambda x: _squeeze(x.flip(2)), "Your result is upside down.", "Rows keep their order."),
    Wrong(lambda x: _squeeze(x.flip(3)), "Your result is mirrored.", "Columns keep their order."),
    Wrong(lambda x: _squeeze(x.flip(0)), *_MIXED),
]
# fmt: on

formula(
    "05.squeeze",
    task="Write `squeeze`: x [B, C, H, W] to [B, 4C, H/2, W/2], where the four numbers of every "
    "2 × 2 block of a channel become four channels at the block's place. Gradients flow.",
    signature="squeeze(x) -> [B, 4C, H/2, W/2]",
    solution=Squeeze.forward,
    hints=[
        "`x[:, :, 0::2, 0::2]` holds the upper left number of every block. What are the others?",
        "Put the four side by side along the channels: `torch.cat([...], dim=1)`. Or: cut H into "
        "(H/2, 2) and W into (W/2, 2) with `reshape`, bring both 2s beside C with `permute`, then "
        "`reshape` again.",
        "The order of the four is yours, as long as it is the same everywhere.",
    ],
    right=_squeeze,
    inputs=lambda generator: [
        (_numbered(shape, generator),)
        for shape in ((3, 4, 4, 6), (2, 4, 6, 2), (5, 1, 2, 8), (1, 3, 8, 4))
    ],
    take=_take_squeezed,
    result="z",
    gradients=["x"],
    wrong=_SQUEEZE_WRONG,
    otherwise=_not_squeezed,
    passes=_praise_squeeze,
)


def _unsqueeze(z: Tensor) -> Tensor:
    return Squeeze().inverse(z)[0]


def _take_unsqueezed(value: Any, z: Tensor) -> Tensor:
    b, c, h, w = z.shape
    # fmt: off
    known = [
        ([b, c // 4, 2 * w, 2 * h], "You swap height and width",
         "Rows stay rows: 2H comes before 2W."),
        ([b, 4 * c, h // 2, w // 2], "You squeeze once more",
         "This direction makes blocks out of channels: `pixel_shuffle`, not `unshuffle`."),
        ([b, c, 2 * h, 2 * w], "You have still all channels, and four times the numbers",
         "Every four channels become one: nothing is repeated."),
    ]
    # fmt: on
    return _take_moved("x", value, z, [b, c // 4, 2 * h, 2 * w], known)


def _not_unsqueezed(got: Tensor, right: Tensor, z: Tensor) -> tuple[str, str]:
    wrong = _lost_or_mixed(
        got, z, "z", "All four channels of a c go into its blocks, each to its own corner."
    )
    alike = (z[:, :, None] == _squeeze(got)[:, None]).flatten(3).all(3).all(0)
    if wrong is None and alike.any(1).all():
        at, k = next((int(a), k) for k, a in enumerate(alike.int().argmax(1)) if a != k)
        wrong = (
            f"Each block has the right numbers, but in another order: you put channel {k} of z "
            f"into row {at % 4 // 2}, column {at % 2} of the blocks of channel {at // 4}.",
            _CHANNEL,
        )
    return wrong or ("The library's squeeze does not lead your x back to z.", _CHANNEL)


def _joined(*axes: int, late: bool = False) -> Callable[[Tensor], Tensor]:
    """Cut the channels into (C, 2, 2), or with ``late`` into (2, 2, C), and order the axes."""

    def joined(z: Tensor) -> Tensor:
        b, c, h, w = z.shape
        cut = (2, 2, c // 4) if late else (c // 4, 2, 2)
        return z.reshape(b, *cut, h, w).permute(axes).reshape(b, c // 4, 2 * h, 2 * w)

    return joined


_BESIDE = (
    "Row 2h + i of x is row i of the blocks at height h: the axes are [B, C, H, 2, W, 2], in this "
    "order."
)
_CHANNEL = "Channel 4c + 2i + j: c changes slowest, then the row i, then the column j."
# fmt: off
_UNSQUEEZE_WRONG = [
    Wrong(_joined(0, 1, 2, 3, 4, 5), "A plain reshape: the numbers keep their order in memory.",
          "Neighbours in a block come from four channels: an axis has to move (`permute`)."),
    Wrong(_joined(0, 1, 4, 3, 5, 2), "You swap rows and columns inside each block.", _CHANNEL),
    Wrong(_joined(0, 3, 4, 1, 5, 2, late=True),
          "You read the channels as (2i + j) · C + c: all the upper left numbers first.", _CHANNEL),
    Wrong(_joined(0, 3, 4, 2, 5, 1, late=True),
          "You read the channels as (i + 2j) · C + c.", _CHANNEL),
    Wrong(_joined(0, 1, 2, 4, 3, 5),
          "You put the four channels side by side, as quarters of the image.", _BESIDE),
    Wrong(_joined(0, 1, 4, 5, 2, 3),
          "You put the axes of the block behind those of the place, and then reshape.", _BESIDE),
    Wrong(lambda z: _unsqueeze(z).flip(2), "Your result is upside down.", "Rows keep their order."),
    Wrong(lambda z: _unsqueeze(z).flip(3), "Your result is mirrored.", "Columns keep their order."),
    Wrong(lambda z: _unsqueeze(z).flip(0), *_MIXED),
]
# fmt: on

formula(
    "05.squeeze_inverse",
    task="Write `unsqueeze`: z [B, 4C, H, W] back to x [B, C, 2H, 2W]; channel 4c + 2i + j of z "
    "holds row i and column j of the blocks of channel c. Gradients flow.",
    signature="unsqueeze(z) -> [B, C, 2H, 2W]",
    solution=Squeeze.inverse,
    hints=[
        "Start with an empty x and fill it: `x[:, :, i::2, j::2]` for i and j in 0, 1.",
        "`z[:, 2 * i + j :: 4]` is the channel that belongs there, for all c at once.",
        "Or: reshape to [B, C, 2, 2, H, W], permute to [B, C, H, 2, W, 2], reshape.",
    ],
    right=_unsqueeze,
    inputs=lambda generator: [
        (_numbered(shape, generator),) for shape in ((3, 8, 2, 4), (2, 4, 1, 3), (1, 12, 3, 2))
    ],
    take=_take_unsqueezed,
    result="x",
    gradients=["z"],
    wrong=_UNSQUEEZE_WRONG,
    otherwise=_not_unsqueezed,
    passes="The library's squeeze leads your x back to z.",
)


# --- ActNorm -------------------------------------------------------------------------------------


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


def _mean(x: Tensor) -> Tensor:
    return x.mean((0, 2, 3))


def _std(x: Tensor) -> Tensor:
    return x.std((0, 2, 3), correction=0)


def _bias(bias: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda x: (bias(x), -_std(x).log())


def _scale(log_scale: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda x: (-_mean(x), log_scale(x))


def _not_centred(got: Tensor, right: Tensor, x: Tensor) -> tuple[str, str]:
    left = got - right
    worst = int(left.abs().argmax())
    reason = f"With your bias channel {worst} has mean {float(left[worst]):.3g} in place of 0."
    return reason, "bias = −mean over `dim=(0, 2, 3)`."


def _not_scaled(got: Tensor, right: Tensor, x: Tensor) -> tuple[str, str]:
    left = 2 * (got - right)
    worst = int(left.abs().argmax())
    variance = float(left[worst].exp())
    return f"Channel {worst} comes out with variance {variance:.3g} in place of 1.", _LOG


_LOG = "The scale is 1 / σ, and its logarithm −log σ."
_CHANNELS = "Each channel has its own, over `dim=(0, 2, 3)`."
_DIFFER = "Images differ in brightness as well, and that counts: take `std(dim=(0, 2, 3))`."
_NOT_CENTRED = (
    "You take the root of the mean square, without subtracting the mean first.",
    "The variance is the mean square of x + bias.",
)
_BASE = "`exp` belongs to the natural logarithm."
# fmt: off
_ACTNORM_WRONG = [
    usual("sign", "Your bias has the wrong sign.", "x + bias has mean 0 for bias = −mean.",
          part="bias"),
    Wrong(_bias(lambda x: -_mean(x) / _std(x)),
          "Your bias is divided by the standard deviation: right if it came after the scale.",
          "The bias comes before the scale, in the units of x."),
    Wrong(_bias(lambda x: _mean(x) / _std(x)), "Your bias is divided by the standard deviation.",
          "The bias comes before the scale, in the units of x."),
    Wrong(_bias(lambda x: 0 * _mean(x)), "Your bias is 0: the means stay.", "bias = −mean."),
    Wrong(_bias(lambda x: -x.mean().expand(x.shape[1])),
          "All your channels have the same bias.", _CHANNELS),
    Wrong(_bias(lambda x: -x.sum((0, 2, 3))), "Your bias is a sum.", "Take the mean."),
    Wrong(_bias(lambda x: -x[0].mean((1, 2))), "Your bias looks at the first image alone.",
          "Average over the batch, too: `dim=(0, 2, 3)`."),
    Wrong(_bias(lambda x: -x.transpose(0, 1).flatten(1).median(1).values),
          "You take the median.", "The mean has to become 0."),
    usual("sign", "Your log-scale has the wrong sign: it doubles what it should undo.", _LOG,
          part="log_scale"),
    usual("double", "Your scale is 1 / variance.",
          "σ is its root: log σ is half of its logarithm.", part="log_scale"),
    Wrong(_scale(lambda x: 2 * _std(x).log()), "Your scale is the variance.", _LOG),
    Wrong(_scale(lambda x: 1 / _std(x)),
          "Your log-scale is the scale 1 / σ itself.", "Take its logarithm."),
    Wrong(_scale(_std), "Your log-scale is σ itself.", _LOG),
    Wrong(_scale(lambda x: -_std(x)), "Your log-scale is −σ.", _LOG),
    usual("half", "Your scale is 1 / √σ.", "σ is the root of the variance already.",
          part="log_scale"),
    Wrong(_scale(lambda x: 0 * _std(x)), "Your log-scale is 0: the spread stays.", _LOG),
    Wrong(_scale(lambda x: -_mean(x**2).log() / 2), *_NOT_CENTRED),
    Wrong(_scale(lambda x: -_mean(x**2).log()), *_NOT_CENTRED),
    Wrong(_scale(lambda x: -_std(x).log2()), "You take the logarithm with base 2.", _BASE),
    Wrong(_scale(lambda x: -_std(x).log10()), "You take the logarithm with base 10.", _BASE),
    Wrong(_scale(lambda x: -x.std().log().expand(x.shape[1])),
          "All your channels have the same log-scale.", _CHANNELS),
    Wrong(_scale(lambda x: -x[0].std((1, 2)).log()),
          "Your log-scale looks at the first image alone.",
          "Take the batch and the pixels together: `dim=(0, 2, 3)`."),
    Wrong(_scale(lambda x: -x.std((2, 3)).mean(0).log()),
          "You average the standard deviations of the single images.", _DIFFER),
    Wrong(_scale(lambda x: -x.std((2, 3)).log().mean(0)),
          "You average the log-scales of the single images.", _DIFFER),
    Wrong(_scale(lambda x: -x.var((2, 3)).mean(0).log() / 2),
          "You average the variances of the single images.", _DIFFER),
]
# fmt: on

formula(
    "05.actnorm",
    task="Write `actnorm_start`: from x [B, C, H, W] the bias [C] and the log-scale [C] with which "
    "(x + bias) · exp(log_scale) has mean 0 and variance 1 in every channel.",
    signature="actnorm_start(x) -> (bias, log_scale)",
    solution=[ActNorm.initialize, ActNorm.forward],
    hints=[
        "One mean and one standard deviation for each channel: over which three axes?",
        "`x.mean(dim=(0, 2, 3))` has shape [C]. The bias is added before the scale.",
        "bias = −mean, log_scale = −log(standard deviation).",
    ],
    right=_bias(lambda x: -_mean(x)),
    # At least 1,000 numbers in a channel: N or N − 1 makes a difference of 5e-4 in the log-scale, a
    # small number under a root or a logarithm less. Both pass; the least mistake is far larger.
    inputs=lambda generator: [
        (_uneven_images(shape, generator),)
        for shape in ((16, 3, 8, 10), (25, 1, 5, 9), (1, 4, 32, 40))
    ],
    tolerance={"bias": 1e-4, "log_scale": 2e-3},
    result=["bias", "log_scale"],
    axes="[images, channels, height, width] -> [channels], [channels]",
    wrong=_ACTNORM_WRONG,
    otherwise={"bias": _not_centred, "log_scale": _not_scaled},
    passes="With your bias and log-scale every channel comes out with mean 0 and variance 1. "
    "(Whether you divide by N or by N − 1 makes no difference that counts: both pass.)",
)


# --- 1×1 convolutions ----------------------------------------------------------------------------


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


def _draw_matrices(generator: torch.Generator) -> list[Any]:
    """Small matrices with either sign, that stretch and that shrink; then three odd ones."""
    cases: list[Any] = [
        (_random_matrix(4, sign, low, low + 0.8, generator), 2, 5)
        for sign, low in ((1, -0.1), (-1, -0.1), (1, -0.7), (-1, -0.7))
    ]
    scales = torch.tensor([2.0, -3.0, 4.0, 2.5]) * (0.5 + torch.rand(4, generator=generator))
    odd = [torch.diag(scales).roll(1, 0)]
    odd += [_random_matrix(64, 1, low, low + 1, generator) for low in (-3.5, 2.5)]
    return [*cases, *(Case((weight, 3, 2), fails=_off, gradients=False) for weight in odd)]


def _which(weight: Tensor) -> str:
    """The matrices out of the ordinary, in words."""
    if len(weight) < 64:
        return " on a matrix with zeros on its diagonal" if not weight.diagonal().any() else ""
    fate = "overflows" if torch.linalg.slogdet(weight).logabsdet > 0 else "underflows to 0"
    return f" on a 64 × 64 matrix, whose determinant {fate} in float32"


def _off(got: Any, right: Tensor, weight: Tensor, *_: Any) -> tuple[str, str]:
    number = f"{got.item():.1f}" if isinstance(got, Tensor) and got.numel() == 1 else "another"
    return (
        f"Your log_det is right for simple small matrices, but off{_which(weight)}: {number} in "
        f"place of {right.item():.1f}.",
        "Σ log |u| over the diagonal of U of a pivoted LU decomposition needs no small number, no "
        "clamp and no product.",
    )


def _take_finite(value: Any, weight: Tensor, *_: Any) -> Any:
    if not isinstance(value, Tensor) or value.shape != () or value.isfinite():
        return value
    hint = (
        "The logarithm of a negative number: det W and the diagonal of U may be negative, as in a "
        "mirror image. Take `abs()` first."
    )
    if len(weight) == 64:
        hint = "Add up logarithms, Σ log |u|; the product itself leaves the range of numbers."
    elif _which(weight):
        hint = (
            "log 0 or 0 / 0: an elimination has to exchange rows, which is what P is for in "
            "`torch.linalg.lu`."
        )
    fate = "NaN" if value.isnan() else "infinite"
    raise Mistake(f"Your log_det is {fate}{_which(weight)}.", hint)


def _of_log(log_det: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An answer made of log |det W|, of C, and of height and width."""
    return lambda m, h, w: log_det(torch.linalg.slogdet(m).logabsdet, len(m), h, w)


def _of_diagonal(total: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """An answer made of the diagonal of U."""
    return lambda m, h, w: h * w * total(torch.linalg.lu(m).U.diagonal())


_PLACES = "One block for each pixel: height · width of them, each with log |det W|."
_LOGS = "The determinant of a triangular matrix is the product of its diagonal: Σ log |u|."
_NO_LOG = ("You take the determinant, not its logarithm.", _LOGS)
_NO_LOGS = ("You add up the diagonal of U without logarithms.", _LOGS)
_LOG_OF_SUM = ("You take the logarithm of the sum.", _LOGS)
_OWN = (
    "You take the diagonal of the matrix itself.",
    "Only for a triangular matrix is the determinant the product of its diagonal: take U.",
)
_ONES = "The ones of L say nothing; U has the diagonal that counts."
_SIGNS = "A number below 1 shrinks, and its logarithm is negative: `abs` belongs inside the log."
# fmt: off
_CONV_WRONG = [
    Wrong(_of_log(lambda d, n, h, w: d), "You count one pixel alone.", _PLACES),
    Wrong(_of_log(lambda d, n, h, w: h * d), "You forget the width.", _PLACES),
    Wrong(_of_log(lambda d, n, h, w: w * d), "You forget the height.", _PLACES),
    Wrong(_of_log(lambda d, n, h, w: (h + w) * d),
          "You add height and width where you must multiply.", _PLACES),
    Wrong(_of_log(lambda d, n, h, w: (h * w - 1) * d), "You leave out one pixel.", _PLACES),
    Wrong(_of_log(lambda d, n, h, w: h * w * n * d), "You count the channels once more.", _PLACES),
    Wrong(_of_log(lambda d, n, h, w: d / (h * w)), "You divide by the number of pixels.", _PLACES),
    Wrong(_of_log(lambda d, n, h, w: (h * w)**2 * d), "You count the pixels twice.", _PLACES),
    usual("sign", "Your log_det has the sign of the inverse.",
          "From data to latent the pixel is multiplied by W: + log |det W|."),
    usual("absolute", hint=_SIGNS),
    Wrong(_of_diagonal(lambda u: u.abs().log().abs().sum()),
          "You add up the sizes of the logarithms, without their signs.", _SIGNS),
    Wrong(_of_log(lambda d, n, h, w: h * w * d / n), "You take the mean over the diagonal.",
          "Numbers on the diagonal are multiplied, so their logarithms are added up."),
    usual("double", "Your log_det is twice too large.",
          "Each number on the diagonal of U counts once: neither its square nor W Wᵀ."),
    usual("bits"),
    Wrong(lambda m, h, w: h * w * m.det(), *_NO_LOG),
    Wrong(lambda m, h, w: h * w * m.det().abs(), *_NO_LOG),
    Wrong(lambda m, h, w: m.det(), *_NO_LOG),
    Wrong(lambda m, h, w: m.det().abs(), *_NO_LOG),
    Wrong(lambda m, h, w: m.det().abs()**(h * w), *_NO_LOG),
    Wrong(lambda m, h, w: h * w * m.det().sign(), "You take the sign of the determinant.",
          "`slogdet` returns the sign first, then log |det|."),
    Wrong(_of_log(lambda d, *_: 0 * d),
          "Your log_det is 0: the diagonal of L, or of a rotation.", _ONES),
    Wrong(lambda m, h, w: h * w * torch.linalg.lu(m).L.trace(), "You take L in place of U.", _ONES),
    Wrong(_of_diagonal(lambda u: u.sum()), *_NO_LOGS),
    Wrong(_of_diagonal(lambda u: u.abs().sum()), *_NO_LOGS),
    Wrong(_of_diagonal(lambda u: u.sum().abs().log()), *_LOG_OF_SUM),
    Wrong(_of_diagonal(lambda u: u.abs().sum().log()), *_LOG_OF_SUM),
    Wrong(lambda m, h, w: h * w * m.diagonal().abs().log().sum(), *_OWN),
    Wrong(lambda m, h, w: h * w * m.trace(), *_OWN),
]
# fmt: on

formula(
    "05.lu_log_det",
    task="Write `conv_log_det`: the log |det| of the Jacobian of a 1 × 1 convolution with the "
    "matrix weight [C, C], on images of height × width; finite also where det W itself leaves the "
    "range of float32. Gradients flow.",
    signature="conv_log_det(weight, height, width) -> scalar",
    solution=[InvertibleConv1x1.factors, InvertibleConv1x1.log_det],
    hints=[
        "Sorted by pixel, the Jacobian has the same block on its diagonal for every pixel, and "
        "zeros elsewhere. Which block, and how many?",
        "`P, L, U = torch.linalg.lu(weight)`: weight = P L U. |det P| and det L are 1.",
        "height · width · Σ log |diagonal of U|. Mind the | |: a diagonal number may be negative.",
    ],
    right=_of_log(lambda d, n, h, w: h * w * d),
    inputs=_draw_matrices,
    take=_take_finite,
    result="log_det",
    axes="[C, C], _, _ -> []",
    gradients=["weight"],
    wrong=_CONV_WRONG,
    otherwise=lambda got, right, *_: (
        f"Your log_det is {got.item():.4g}; the autograd Jacobian of the convolution has "
        f"{right.item():.4g}.",
        "Try twice the unit matrix: the result must be height · width · C · log 2.",
    ),
    passes="Your value is the log |det| of the Jacobian of the whole convolution. It is finite, "
    "too, for mirror images (det < 0), for matrices with zeros on their diagonal, and for 64 × 64 "
    "matrices whose determinant under- or overflows in float32.",
)


# --- Temperature ---------------------------------------------------------------------------------


def _draw_latents(generator: torch.Generator) -> list[tuple[Tensor, float]]:
    cases = []
    for dim, low, high in ((5, 0.4, 0.8), (64, 1.3, 2.0), (1, 0.4, 0.8)):
        temperature = low + (high - low) * float(torch.rand((), generator=generator))
        cases.append((temperature * torch.randn(BATCH, dim, generator=generator), temperature))
    return cases


def _tempered(log_prob: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of |z|², the number of coordinates D, T, L = log T and ½ D log 2π."""

    def answer(z: Tensor, T: float) -> Tensor:
        D = z.shape[1]
        return log_prob(z.square().sum(1), D, T, math.log(T), D / 2 * math.log(2 * math.pi))

    return answer


_SQUEEZED = (
    "A smaller cloud of the same points is denser: each of D coordinates shrinks by T, so subtract "
    "D log T."
)
_T2 = "T is the standard deviation of T · eps; its variance is T²."
_TWICE = f"{_T2} D log T = ½ D log T²."
_DIVIDE = "eps = z / T, so |eps|² = |z|² / T²."
_POWER = (
    "A power of a density does not integrate to 1: start from eps = z / T and change variables."
)
_GAUSSIAN = "log p_eps(e) = −½ (|e|² + D log 2π)."
# fmt: off
_TEMPERATURE_WRONG = [
    Wrong(_tempered(lambda q, D, T, L, c: -q / (2 * T**2) - c), "You forget −D log T.", _SQUEEZED),
    Wrong(_tempered(lambda q, D, T, L, c: -q / (2 * T**2) + D * L - c),
          "Your D log T has the wrong sign.", _SQUEEZED),
    Wrong(_tempered(lambda q, D, T, L, c: -q / (2 * T**2) - L - c),
          "You subtract log T once, not for each of D coordinates.", _SQUEEZED),
    Wrong(_tempered(lambda q, D, T, L, c: -q / (2 * T**2) - 2 * D * L - c),
          "You subtract 2 D log T.", _TWICE),
    Wrong(_tempered(lambda q, D, T, L, c: -q / (2 * T**2) - D / 2 * L - c),
          "You subtract ½ D log T.", _TWICE),
    Wrong(_tempered(lambda q, D, T, L, c: -q / (2 * T) - D / 2 * L - c),
          "You take T for the variance.", _T2),
    Wrong(_tempered(lambda q, D, T, L, c: -q / (2 * T) - D * L - c),
          "You divide |z|² by T, not by T².", _DIVIDE),
    Wrong(_tempered(lambda q, D, T, L, c: -q / 2 - c),
          "You ignore the temperature: that is the density at T = 1.", _DIVIDE),
    Wrong(_tempered(lambda q, D, T, L, c: -q / 2 - D * L - c),
          "You forget to divide z by T.", _DIVIDE),
    Wrong(_tempered(lambda q, D, T, L, c: -q * T**2 / 2 + D * L - c),
          "You use 1 / T in place of T.", _DIVIDE),
    Wrong(_tempered(lambda q, D, T, L, c: -q * T**2 / 2 - D * L - c),
          "You multiply z by T.", _DIVIDE),
    Wrong(_tempered(lambda q, D, T, L, c: -q * T**2 / 2 - c), "You multiply z by T.", _DIVIDE),
    Wrong(_tempered(lambda q, D, T, L, c: (-q / 2 - c) / T**2),
          "You divide the log-density by T².", _POWER),
    Wrong(_tempered(lambda q, D, T, L, c: (-q / 2 - c) / T),
          "You divide the log-density by T.", _POWER),
    Wrong(_tempered(lambda q, D, T, L, c: (-q / 2 - c) * T),
          "You multiply the log-density by T.", _POWER),
    Wrong(_tempered(lambda q, D, T, L, c: (-q / 2 - c) * T**2),
          "You multiply the log-density by T².", _POWER),
    Wrong(_tempered(lambda q, D, T, L, c: -q / T**2 - D * L - c),
          "You forget the ½ of the Gaussian.", _GAUSSIAN),
    Wrong(_tempered(lambda q, D, T, L, c: q / (2 * T**2) - D * L - c),
          "The square in your exponent has the wrong sign.",
          "Far points are less likely: −½ |z / T|²."),
    Wrong(_tempered(lambda q, D, T, L, c: -q / (2 * T**2) - D * L),
          "The ½ D log 2π is missing.", _GAUSSIAN),
    Wrong(_tempered(lambda q, D, T, L, c: -q / (2 * T**2) - D * L - c / D),
          "You count ½ log 2π once, not for each coordinate.", "½ D log 2π."),
    usual("sign", "Your result has the wrong sign.", "The log-density is asked for, not the loss."),
    usual("exp", "Your value is the density, not its logarithm.", "Return its logarithm."),
    usual("bits", hint="Use the natural logarithm."),
    Wrong(_tempered(lambda q, D, T, L, c: -q / (2 * T**2) / D - L - c / D),
          "You average over the coordinates.", "Densities multiply: sum over axis 1."),
    usual("batch mean", "Every point gets the mean of the batch.", "Sum over axis 1 alone."),
    usual("batch sum", "Every point gets the sum over the batch.", "Sum over axis 1 alone."),
    usual("first", "Every point gets what the first one has.", "Sum over axis 1 alone."),
]
# fmt: on

formula(
    "05.temperature",
    task="Write `log_prob_at_temperature`: the log-density [B], in nats, at z [B, D] of latents "
    "that are drawn as T · eps, eps from a standard Gaussian in D dimensions. Gradients flow.",
    signature="log_prob_at_temperature(z, temperature) -> [B]",
    solution=[Flow.sample, DiagonalScaling.forward, Flow.log_prob],
    hints=[
        "It is one more change of variables: eps = z / T, and eps is standard Gaussian.",
        "log p(z) = log p_eps(z / T) + log |det ∂eps/∂z|. What is the Jacobian of z / T?",
        "A diagonal with D entries of 1 / T: its log-determinant is −D log T. And "
        "log p_eps(e) = −½ (|e|² + D log 2π).",
    ],
    right=_tempered(lambda q, D, T, log_T, c: -q / (2 * T**2) - D * log_T - c),
    inputs=_draw_latents,
    result="log-density",
    axes="[B, D], _ -> [B]",
    gradients=["z"],
    wrong=_TEMPERATURE_WRONG,
    otherwise=(
        "Your value is not the log-density of a flow that divides by T.",
        "In one dimension `torch.distributions.Normal(0, T).log_prob(z)` gives it: compare.",
    ),
    passes="Your log-density is that of a flow which divides by T. In the 3,072 dimensions of a "
    f"small colour image −D log T is {3072 * -math.log(0.7):,.0f} nats at T = 0.7: by so much the "
    "density in the middle is higher than at T = 1.",
)


# --- A flow that blows up ------------------------------------------------------------------------


@exercise(
    "05.break_it",
    task="Break it: write `my_raw_log_scale`, kept [B, 1] to [B, 1], with which 8 affine couplings "
    "keep |s| ≤ 1 on data in [−1, 1]², but without a bound lose latents 4 σ out.",
    signature="my_raw_log_scale(kept) -> [B, 1]",
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
