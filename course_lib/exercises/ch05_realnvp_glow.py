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


def _log_normal(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return -0.5 * ((x - mean) / std) ** 2 - std.log() - 0.5 * math.log(2 * math.pi)


def _gain(h: Tensor, prior: Callable) -> Tensor:
    _, leaving = h.chunk(2, dim=1)
    return (_given(h, prior) - _log_normal(leaving, 0 * leaving, 1 + 0 * leaving)).sum((1, 2, 3))


def _given(h: Tensor, prior: Callable) -> Tensor:
    kept, leaving = h.chunk(2, dim=1)
    return _log_normal(leaving, *prior(kept))


def _by_terms(gain: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """An answer by a formula of h₂, ε and std, at every channel and pixel."""

    def answer(h: Tensor, prior: Callable) -> Tensor:
        kept, leaving = h.chunk(2, dim=1)
        mean, std = prior(kept)
        return gain(leaving, (leaving - mean) / std, std).sum((1, 2, 3))

    return answer


_DIFFERENCE = "It is log N(h₂; mean, std²) − log N(h₂; 0, 1) = ½ h₂² − ½ ε² − log std, summed."
# fmt: off
_GAIN_WRONG = [
    usual("sign", "Your gain is what the learned prior loses.", _DIFFERENCE),
    Wrong(_by_terms(lambda h, e, s: (h**2 - e**2) / 2), "You leave log std out: a density is high "
          "where it is narrow.", _DIFFERENCE),
    Wrong(_by_terms(lambda h, e, s: -s.log()), "That is the log-determinant alone: the squares "
          "count, too.", _DIFFERENCE),
    Wrong(_by_terms(lambda h, e, s: h**2 - e**2 - s.log()), "The ½ of the squares is missing.",
          _DIFFERENCE),
    Wrong(_by_terms(lambda h, e, s: (h**2 - e**2) / 2 + s.log()), "Your log std has the wrong "
          "sign.", _DIFFERENCE),
    Wrong(_by_terms(lambda h, e, s: (h**2 - e**2) / 2 - s), "You take std, not its logarithm.",
          _DIFFERENCE),
    Wrong(_by_terms(lambda h, e, s: (h**2 - e**2) / 2 - 2 * s.log()), "You count the variance in "
          "place of std.", _DIFFERENCE),
    Wrong(_by_terms(lambda h, e, s: (h**2 - (e * s)**2) / 2 - s.log()), "You don't divide h₂ − "
          "mean by std.", _DIFFERENCE),
    Wrong(lambda h, prior: _given(h, prior).sum((1, 2, 3)), "That is log N(h₂; mean, std²): what "
          "does the plain prior give?", _DIFFERENCE),
    Wrong(_by_terms(lambda h, e, s: -(e**2 + math.log(2 * math.pi)) / 2),
          "That is log N(ε; 0, 1), without the log-determinant, and not compared with anything.",
          _DIFFERENCE),
    Wrong(lambda h, prior: _gain(torch.cat(h.chunk(2, 1)[::-1], 1), prior),
          "You let the first half leave.",
          "The first half of the channels goes on, the second leaves."),
    Wrong(lambda h, prior: _gain(h, prior) / h[0, 0].numel(), "You average over the pixels.",
          "Sum over channels and pixels: they are independent, given the kept half."),
    Wrong(lambda h, prior: _gain(h, prior) / (h[0].numel() / 2), "You average over channels and "
          "pixels.", "Sum: they are independent, given the kept half."),
    usual("batch sum"),
    usual("batch mean"),
    usual("bits"),
]
# fmt: on

formula(
    "05.split_gain",
    task="Derive, and write `split_gain`: of h [B, C, H, W] the second half of the channels "
    "leaves. By how many nats is log p of each image [B] larger if that half is N(mean, std²) "
    "given the first, mean, std = prior(kept), than if it were N(0, 1)? Gradients flow.",
    signature="split_gain(h, prior) -> [B]",
    solution=[Split.prior, AffineCoupling.forward],
    hints=[
        "`kept, leaving = h.chunk(2, dim=1)`, and `mean, std = prior(kept)`.",
        "All else of log p is the same in both: compare two log-densities of `leaving`.",
        "½ leaving² − ½ ((leaving − mean) / std)² − log std, summed over channels and pixels.",
    ],
    right=_gain,
    inputs=_draw_splits,
    result="gain",
    axes="[B, C, H, W], _ -> [B]",
    gradients={"h": None, "the weights of prior": lambda h, prior: prior.weight},
    gradient_hint="The prior is trained through it: no `detach`, no `no_grad`.",
    wrong=_GAIN_WRONG,
    otherwise=("Your gain is not the difference of the two log-densities.", _DIFFERENCE),
    passes="Your gain is what the learned prior is worth, in nats for each image, and its mean is "
    "never below 0 for the best prior: with mean 0 and std 1 it would be 0. What the kept half "
    "knows of the other is not paid for twice.",
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


_CUT = "Channel 4c + 2i + j: c changes slowest, then the row i, then the column j."
_PULSE = f"One pixel of 1 in row i and column j of channel c meets weight[:, 4c + 2i + j]. {_CUT}"
# fmt: off
_KERNEL_WRONG = [
    Wrong(lambda w: w.reshape(len(w), 2, 2, -1).permute(0, 3, 1, 2),
          "You read the channels as (2i + j) · C + c: all the upper left numbers first.", _CUT),
    Wrong(lambda w: w.reshape(len(w), 2, -1, 2).transpose(1, 2),
          "You read the channels as row, then c, then column.", _CUT),
    Wrong(lambda w: w.reshape(len(w), -1, 2, 2).transpose(2, 3),
          "You swap rows and columns inside each block.", _CUT),
    Wrong(lambda w: w.reshape(len(w), -1, 2, 2).flip((2, 3)),
          "You turn the kernel by half a turn: `conv2d` does not, whatever its name says.", _PULSE),
    Wrong(lambda w: w.reshape(len(w), -1, 2, 2).flip(2), "Your kernel is upside down.", _PULSE),
    Wrong(lambda w: w.reshape(len(w), -1, 2, 2).flip(3), "Your kernel is mirrored.", _PULSE),
    Wrong(lambda w: w.reshape(len(w), -1, 2, 2) / 4, "You divide by the size of a block.",
          "Nothing is averaged: all four numbers stay."),
    Wrong(lambda w: w.T.reshape(len(w), -1, 2, 2), "You transpose the weight.",
          "Its rows are what comes out, D of them."),
    Wrong(lambda w: w.reshape(len(w), -1, 4).mean(2)[..., None, None].expand(-1, -1, 2, 2).clone(),
          "You give every place of a block the same weight.", _PULSE),
]
# fmt: on

formula(
    "05.strided_kernel",
    task="Write `strided_kernel`: weight [D, 4C] mixes the channels of a squeezed image, the same "
    "at every place. Which kernel [D, C, 2, 2] makes the same of the image itself, with "
    "`F.conv2d(x, kernel, stride=2)`? Channels as the library squeezes: 4c + 2i + j.",
    signature="strided_kernel(weight) -> [D, C, 2, 2]",
    solution=Squeeze.forward,
    hints=[
        "Set a single pixel to 1, in row i and column j of channel c of a block. Which channel of "
        "the squeezed image is 1?",
        "kernel[d, c, i, j] is weight[d, 4c + 2i + j].",
        "No number is computed, and c changes slowest, j fastest: a `reshape` is enough.",
    ],
    right=lambda w: w.reshape(len(w), -1, 2, 2),
    inputs=lambda generator: [
        (torch.randn(d, 4 * c, generator=generator),) for d, c in ((8, 2), (5, 3), (12, 3))
    ],
    result="kernel",
    axes="[D, 4C] -> [D, C, 2, 2]",
    wrong=_KERNEL_WRONG,
    otherwise=("Your kernel does not do what squeeze and weight do together.", _PULSE),
    passes="A squeeze with a mixing of its channels is a convolution with stride 2, as every image "
    "classifier has. With D = 4C and a matrix that can be inverted nothing is lost on the way.",
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


# --- ActNorm and the convolution behind it -------------------------------------------------------

_AFTER = (
    "W ((x + b) e^s) = (W diag(e^s)) x + W (e^s b): scales belong to what comes in, the columns."
)
_ONE = "Try x = 0: what comes out is the shift, W (e^s b)."


def _merged(b: Tensor, s: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return w * s.exp(), w @ (b * s.exp())


def _matrix(matrix: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """An answer with another matrix, of s and W."""
    return lambda b, s, w: (matrix(s, w), _merged(b, s, w)[1])


def _shift(shift: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """An answer with another shift, of b, the scales and W."""
    return lambda b, s, w: (_merged(b, s, w)[0], shift(b, s.exp(), w))


# fmt: off
_MERGED_WRONG = [
    Wrong(_matrix(lambda s, w: w * s.exp()[:, None]), "You scale the rows of W: that is an ActNorm "
          "behind the convolution.", _AFTER),
    Wrong(_matrix(lambda s, w: w.clone()), "You leave W as it is: the scales are missing.", _AFTER),
    Wrong(_matrix(lambda s, w: w * s), "You multiply by log_scale itself.", "e^s is the scale."),
    Wrong(_matrix(lambda s, w: w * (-s).exp()), "You divide by the scales.", _AFTER),
    Wrong(_matrix(lambda s, w: w.T * s.exp()), "You transpose W.", "z = W x: rows come out."),
    Wrong(_matrix(lambda s, w: torch.diag(s.exp())), "That is the ActNorm's matrix alone.", _AFTER),
    Wrong(_matrix(lambda s, w: w + torch.diag(s.exp())), "You add the two matrices.",
          "One after the other: a product."),
    Wrong(_shift(lambda b, e, w: w @ b), "The scales are missing in your shift.",
          "The bias is added before the scale, and is scaled with x. " + _ONE),
    Wrong(_shift(lambda b, e, w: b * e), "Your shift does not go through W.", _ONE),
    Wrong(_shift(lambda b, e, w: b.clone()), "Your shift is the ActNorm's bias.", _ONE),
    Wrong(_shift(lambda b, e, w: e * (w @ b)), "You scale what comes out of W.", _ONE),
    Wrong(_shift(lambda b, e, w: -(w @ (b * e))), "Your shift has the wrong sign.", _ONE),
    Wrong(_shift(lambda b, e, w: w @ (b / e)), "You divide the bias by the scales.", _ONE),
    Wrong(_shift(lambda b, e, w: w.T @ (b * e)), "You transpose W in your shift.", _ONE),
    Wrong(_shift(lambda b, e, w: (w * e) @ (b * e)), "You scale the bias twice.", _ONE),
]
# fmt: on

formula(
    "05.merge_actnorm",
    task="Derive, and write `merge_actnorm`: ActNorm, (x + bias) · exp(log_scale) with bias and "
    "log_scale [C], and then the 1×1 convolution with weight [C, C] are one 1×1 convolution with a "
    "bias: its matrix [C, C] and its shift [C].",
    signature="merge_actnorm(bias, log_scale, weight) -> (matrix, shift)",
    solution=[ActNorm.forward, InvertibleConv1x1.forward],
    hints=[
        "At every pixel, with x the vector of its channels: W ((x + b) e^s), e^s channel by "
        "channel.",
        "Multiplying channel by channel is a diagonal matrix. In W diag(e^s), does it scale rows "
        "or columns?",
        "matrix = weight * exp(log_scale), shift = weight @ (bias * exp(log_scale)).",
    ],
    right=_merged,
    inputs=lambda generator: [
        (
            *(torch.randn(c, generator=generator) for _ in range(2)),
            torch.randn(c, c, generator=generator),
        )
        for c in (4, 3, 6)
    ],
    result=["matrix", "shift"],
    axes="[C], [C], [C, C] -> [C, C], [C]",
    wrong=_MERGED_WRONG,
    otherwise={
        "matrix": ("Your matrix is not that of the two together.", _AFTER),
        "shift": ("Your matrix is right; your shift is not.", _ONE),
    },
    passes="Your one layer does what the two do, and log |det matrix| is log |det W| + Σ s: a "
    "trained Glow runs without its ActNorms. They are there for the training alone.",
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
