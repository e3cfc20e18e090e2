"""Exercises of chapter 04: couplings, the change of variables, units, a peak, spikes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.exercises.attempt import (
    Attempt,
    Given,
    Mistake,
    same,
    take_tensor,
)
from course_lib.exercises.formula import BATCH, Wrong, formula, usual
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise
from course_lib.experiments.dependency import coupling_dependencies
from course_lib.experiments.discrete_spikes import spiky_log_prob
from course_lib.experiments.one_peak import peak_height
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


def _randomize(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Give every parameter a random value of a size that keeps all numbers near 1."""
    module = module.float()
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter.shape[-1] if parameter.ndim > 1 else 1
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (2 / fan_in) ** 0.5 if parameter.ndim > 1 else 0.7 * noise)
    return module


# --- Couplings -----------------------------------------------------------------------------------


class _Shift(Given):
    """A random function of the half that stays; says so when it is given wrong columns."""

    def __init__(self, n_kept: int, n_moved: int, generator: torch.Generator):
        super().__init__("shift", ["kept"], self._of)
        self.weight = torch.randn(n_kept, n_moved, generator=generator).requires_grad_()

    def _of(self, kept: Any) -> Tensor:
        if not isinstance(kept, Tensor):
            raise Mistake(
                f"You call shift with a {type(kept).__name__}.",
                "Give it the half that stays, a tensor.",
            )
        if kept.ndim == 0 or kept.shape[-1] != len(self.weight):
            raise Mistake(
                f"You call shift on a tensor of shape {list(kept.shape)}; the half that stays has "
                f"{len(self.weight)} columns.",
                "Columns, not rows: `x[:, 0::2]` are the even coordinates, `x[:, 1::2]` the odd.",
            )
        return 2 * (kept @ self.weight + 1).sin()


def _draw_couplings(generator: torch.Generator) -> list[tuple[Tensor, _Shift, bool]]:
    cases = []
    for dim, flip in ((4, False), (4, True), (5, False), (5, True)):
        shift = _Shift((dim + 1 - flip) // 2, (dim + flip) // 2, generator)
        cases.append((torch.randn(BATCH, dim, generator=generator), shift, flip))
    return cases


def _split(x: Tensor, flip: bool) -> tuple[Tensor, Tensor]:
    """The half that stays and the half that moves."""
    return x[:, int(flip) :: 2], x[:, 1 - flip :: 2]


def _merge(kept: Tensor, moved: Tensor, flip: bool) -> Tensor:
    x = kept.new_empty(len(kept), kept.shape[1] + moved.shape[1])
    x[:, int(flip) :: 2], x[:, 1 - flip :: 2] = kept, moved
    return x


def _moved(new: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An answer that keeps the right half and puts ``new(kept, moved, shift)`` into the other."""

    def answer(x: Tensor, shift: Callable, flip: bool) -> Tensor:
        kept, moved = _split(x, flip)
        return _merge(kept, new(kept, moved, shift), flip)

    return answer


_COUPLE = _moved(lambda kept, moved, m: moved + m(kept))


def _in_two(x: Tensor, shift: Callable, flip: bool) -> Tensor:
    """Split down the middle."""
    left, right = x.chunk(2, 1)
    return torch.cat([left + shift(right), right] if flip else [left, right + shift(left)], 1)


_SIDES = "With flip=False the even coordinates stay and the odd ones move; flip=True exchanges."
_BOTH = "You move both halves.", "One half stays; the next coupling of the flow moves it."
_BESIDE = (
    "Your z holds the two halves side by side instead of interleaved.",
    "Write the moved half back to the columns it came from.",
)
_MIDDLE = (
    "You split down the middle.",
    "The halves are the even coordinates `0::2` and the odd ones `1::2`: neighbouring pixels "
    "land in different halves.",
)
# fmt: off
# What people write in place of x_moved + shift(x_kept).
_COUPLING_WRONG = [
    Wrong(_moved(lambda kept, moved, m: moved - m(kept)),
          "You subtract the shift; this direction has to add it.",
          "Data to latent adds, latent to data subtracts."),
    Wrong(lambda x, m, flip: _COUPLE(x, m, False),
          "Your z keeps the wrong half: you ignore `flip`.", _SIDES),
    Wrong(lambda x, m, flip: _COUPLE(x, m, not flip), "Your z keeps the wrong half.", _SIDES),
    Wrong(_moved(lambda kept, moved, m: moved + m(moved)),
          "You call shift on the half that moves.",
          "Call it on the half that stays, which z holds still: only so can it be undone."),
    Wrong(_moved(lambda kept, moved, m: m(kept)), "You overwrite the moved half with the shift.",
          "Add it: what was there before must not be lost."),
    Wrong(_moved(lambda kept, moved, m: moved * m(kept)),
          "You multiply the moved half by the shift.", "The coupling is additive: add the shift."),
    Wrong(lambda x, m, flip: x, "Your z is x, unchanged.",
          "One half moves. (`a.add(b)` leaves a as it is: keep what it returns.)"),
    Wrong(lambda x, m, flip: _COUPLE(_COUPLE(x, m, flip), m, not flip), *_BOTH),
    Wrong(lambda x, m, flip: _COUPLE(_COUPLE(x, m, not flip), m, flip), *_BOTH),
    Wrong(lambda x, m, flip: _COUPLE(x, m, flip) + _COUPLE(x, m, not flip) - x, *_BOTH),
    Wrong(_in_two, *_MIDDLE),
    Wrong(lambda x, m, flip: _in_two(x, m, not flip), *_MIDDLE),
    Wrong(lambda x, m, flip: torch.cat(_split(_COUPLE(x, m, flip), flip), 1), *_BESIDE),
    Wrong(lambda x, m, flip: torch.cat(_split(_COUPLE(x, m, flip), flip)[::-1], 1), *_BESIDE),
    Wrong(lambda x, m, flip: _merge(*_split(_COUPLE(x, m, flip), flip)[::-1], flip),
          "You exchange the two halves.", "The columns of z that stay are those of x."),
]
# fmt: on


def _not_a_coupling(
    got: Tensor, right: Tensor, x: Tensor, shift: _Shift, flip: bool
) -> tuple[str, str]:
    if same(_split(got, flip)[0], _split(x, flip)[0]):
        return (
            "Your z keeps the right half, but its other half is not x_moved + shift(x_kept).",
            "One line will do: add `shift` of the kept half to the other half.",
        )
    return (
        f"Your z changes the half that must stay: the {'odd' if flip else 'even'} coordinates.",
        "Copy x first, then change the other half of the copy only.",
    )


def _coupling(log_det: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """The right z with another log_det, a function of the shifts."""
    return lambda x, shift, flip: (_COUPLE(x, shift, flip), log_det(shift(_split(x, flip)[0])))


_DET_1 = "∂z/∂x is triangular, with ones on its diagonal: its determinant is 1."
_SUMMED = (
    "Your log_det adds up the shifts.",
    f"A shift moves a point, it does not stretch space. {_DET_1}",
)

formula(
    "04.additive_coupling",
    task="Write `additive_coupling`: keep half of the coordinates of x [B, D], add "
    "`shift(kept half)` to the other half, return z [B, D] and log_det [B]. Gradients flow.",
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
    right=_coupling(lambda m: 0 * m.sum(1)),
    inputs=_draw_couplings,
    result=["z", "log_det"],
    axes="[B, D], _, _ -> [B, D], [B]",
    gradients={"x": None, "the weights of shift": lambda x, shift, flip: shift.weight},
    wrong=[
        *(
            replace(w, answer=lambda *args, z=w.answer: (z(*args), args[0].new_zeros(BATCH)))
            for w in _COUPLING_WRONG
        ),
        Wrong(
            _coupling(lambda m: torch.ones(len(m))),
            "Your log_det is the determinant itself.",
            "log 1 = 0.",
        ),
        Wrong(_coupling(lambda m: m.sum(1)), *_SUMMED),
        Wrong(_coupling(lambda m: -m.sum(1)), *_SUMMED),
        Wrong(_coupling(lambda m: m.abs().log().sum(1)), *_SUMMED),
    ],
    otherwise={
        "z": _not_a_coupling,
        "log_det": ("Your log_det is not the one of the autograd Jacobian of your own z.", _DET_1),
    },
    passes="The library's inverse leads your z back to x, your log_det is that of the autograd "
    "Jacobian, and gradients reach the shift.",
)


# --- The change of variables ---------------------------------------------------------------------


def _draw_flows(generator: torch.Generator) -> list[tuple[Tensor, list[nn.Module], Any]]:
    cases = []
    for dim, layers in (
        (3, [Planar, DiagonalScaling, Planar]),
        (4, [Planar, DiagonalScaling, DiagonalScaling, Planar]),
    ):
        x = torch.randn(BATCH, dim, generator=generator, dtype=torch.float32)
        transforms = [_randomize(layer(dim), generator) for layer in layers]
        cases.append((x, transforms, StandardLogistic(dim).float().log_prob))
    return cases


def _chain(x: Tensor, transforms: Sequence[nn.Module]) -> tuple[Tensor, list[Tensor]]:
    """The last z, and the log-determinants of all transforms."""
    log_dets = []
    for transform in transforms:
        x, log_det = transform(x)
        log_dets.append(log_det)
    return x, log_dets


def _chained(combine: Callable[[Tensor, list[Tensor]], Tensor]) -> Callable[..., Tensor]:
    """An answer made of the base's log-density at the last z and of all log-determinants."""

    def answer(x: Tensor, transforms: Sequence[nn.Module], base_log_prob: Any) -> Tensor:
        z, log_dets = _chain(x, transforms)
        return combine(base_log_prob(z), log_dets)

    return answer


def _log_dets_at(x: Tensor, transforms: Sequence[nn.Module]) -> list[Tensor]:
    return [transform(x)[1] for transform in transforms]


_RUN = "Feed each transform with what the one before returned."
_EVERY = "Every transform stretches space once more: add up all the log-determinants."
_OWN = "Each point has a log-determinant of its own."
# fmt: off
_FLOW_WRONG = [
    Wrong(_chained(lambda b, d: b), "You forget the log-determinants.",
          "Where the flow squeezes space, density piles up: add log |det| of every transform."),
    Wrong(_chained(lambda b, d: b - sum(d)),
          "Your log-determinants have the sign of the inverse direction.",
          "The transforms lead from data to latent, so their log_det is added."),
    Wrong(_chained(lambda b, d: b + sum(d).abs()), "Your log-determinants have lost their sign.",
          "log |det| is negative where space is squeezed: the bars belong to det."),
    usual("sign", "Your value is the negative log-density.",
          "That is the loss; the log-density is asked for."),
    usual("exp", "Your value is the density, not its logarithm.",
          "Stay in logarithms: a density in 784 dimensions under- or overflows."),
    usual("bits", "Your value is in bits.", "Don't divide by log 2."),
    Wrong(_chained(lambda b, d: b + d[0]),
          "You add the log_det of the first transform only.", _EVERY),
    Wrong(_chained(lambda b, d: b + d[-1]),
          "You add the log_det of the last transform only.", _EVERY),
    Wrong(lambda x, t, b: _chained(lambda b, d: b + sum(d))(x, t[:1], b),
          "You apply the first transform only.", _RUN),
    Wrong(lambda x, t, b: b(x) + sum(_chain(x, t)[1]), "You evaluate the base density at x.",
          "The base is the density of the latent: evaluate it at the last z."),
    Wrong(_chained(lambda b, d: sum(d)),
          "You forget the base density.", "Add `base_log_prob` of the last z."),
    Wrong(lambda x, t, b: _chained(lambda b, d: b + sum(d))(x, t[::-1], b),
          "You run through the transforms in reverse.",
          "From data to latent they come in the order of the list; sampling goes backwards."),
    Wrong(lambda x, t, b: b(_chain(x, t)[0]) + sum(_log_dets_at(x, t)),
          "You compute every log_det at x.", _RUN),
    Wrong(lambda x, t, b: b(t[-1](x)[0]) + sum(_log_dets_at(x, t)),
          "You feed every transform with x.", _RUN),
    Wrong(lambda x, t, b: b(t[-1](x)[0]) + t[-1](x)[1], "You feed every transform with x.", _RUN),
    Wrong(_chained(lambda b, d: b + sum(d).mean()), "You average log_det over the batch.", _OWN),
    Wrong(_chained(lambda b, d: b + sum(d).sum()), "You sum log_det over the batch.", _OWN),
    Wrong(_chained(lambda b, d: b + sum(d).exp()), "You add the determinant, not its logarithm.",
          "The transforms hand you log |det| already."),
    Wrong(lambda x, t, b: _chained(lambda b, d: b + sum(d))(
              x, t, StandardGaussian(x.shape[1]).float().log_prob),
          "You use a Gaussian in place of base_log_prob.",
          "Call `base_log_prob(z)`, which may be any density."),
]
# fmt: on

formula(
    "04.change_of_variables",
    task="Write `flow_log_prob`: the log-density [B], in nats, of x [B, D] under a flow; each "
    "transform is called as `z, log_det = transform(x)`. Gradients flow.",
    signature="flow_log_prob(x, transforms, base_log_prob) -> [B]",
    solution=[Flow.forward, Flow.log_prob],
    hints=[
        "log p(x) = log p_base(f(x)) + log |det ∂f/∂x|, where f is all the transforms in a row.",
        "By the chain rule the Jacobians are multiplied, so their log-determinants add up.",
        "Loop over the transforms. Each gets what the one before returned; add its log_det to a "
        "running sum. At the end add `base_log_prob` of the last z.",
    ],
    right=lambda x, transforms, log_prob: Flow(transforms, log_prob.__self__).log_prob(x),
    inputs=_draw_flows,
    result="log-density",
    axes="[B, D], _, _ -> [B]",
    gradients={
        "x": None,
        "the scales": lambda x, transforms, log_prob: transforms[1].log_scale,
        "the last transform": lambda x, transforms, log_prob: transforms[-1].b,
    },
    gradient_hint="The flow is trained through log p: no `detach`, no `.item()`, no `no_grad`, and "
    "log_det needs its gradient, too.",
    wrong=_FLOW_WRONG,
    otherwise=(
        "Your value is not base_log_prob(z) + log |det ∂z/∂x|, with the autograd Jacobian of the "
        "whole chain.",
        "Test with a single transform first, then with two.",
    ),
    passes="Your log-density is that of the base plus the log-determinant of the autograd Jacobian "
    "of the whole chain, and gradients reach every transform.",
)


# --- Units ---------------------------------------------------------------------------------------

_PIXELS, _SIDE = 784, 256
_STRETCHED = (
    "Each of 784 pixels is divided by 256 before the first model sees it: what is log |det|?"
)
_FROM_UNIT = -_PIXELS * math.log(_SIDE)
# fmt: off
_UNITS_WRONG = [
    Slip(-_FROM_UNIT, "The sign is wrong: spread over a larger space, a density is lower.",
         "Dividing by 256 squeezes space: log |det| is below 0.", 1.0),
    Slip(0.0, "The two models are equally good, but densities have units: here 1 / grey value^784.",
         "Bits per dimension are the same; nats are not.", 0.5),
    Slip(-math.log(_SIDE), "That is the log-determinant of a single pixel.",
         "The determinant of a diagonal matrix is a product of 784 numbers.", 0.1),
    Slip(_PIXELS * -8, "That is the difference in bits.", "256 = 2^8, and log 2 nats are a bit.",
         1.0),
    Slip(-_PIXELS * math.log(_SIDE - 1), "You count 255: the largest level, not the length of the "
         "interval.", within=1.0),
    Slip(-_PIXELS * _SIDE, "You add up the factors, not their logarithms."),
    Slip(-_SIDE, "That is the factor of one pixel.", within=0.5),
]
# fmt: on

prediction(
    "04.predict_units",
    task="Predict: a flow of images with 784 pixels in [0, 1) is turned into one of the same "
    "images in [0, 256): it divides by 256 first. By how many nats does log p of each image "
    "change?",
    solution=[DiagonalScaling.forward, bits_per_dim],
    hints=[
        "Put one more transform in front, and look at the change of variables for the chain.",
        "The Jacobian of a division by 256 is diagonal, with 784 entries of 1 / 256.",
        "−784 log 256, with the natural logarithm.",
    ],
    right=_FROM_UNIT,
    within=1.0,
    wrong=_UNITS_WRONG,
    passes=f"{_FROM_UNIT:,.1f} nats, for every image and whatever the model is. So the "
    f"paper's 1,980.50 nats on MNIST would be {1980.5 + _FROM_UNIT:,.1f}, for the same model: nats "
    "without units mean nothing. Bits per dimension are "
    f"{bits_per_dim(1980.5, _PIXELS, _SIDE):.2f} both times, as the bins have grown as well.",
    question="How many nats are added to log p? Below 0, if it falls.",
    hint=_STRETCHED,
    otherwise=lambda got: (
        f"{got:,.4g} is too {'high' if got > _FROM_UNIT else 'low'}.",
        _STRETCHED,
    ),
)


# --- The height of the peak ----------------------------------------------------------------------


def _draw_scales(generator: torch.Generator) -> list[tuple[Tensor, str]]:
    return [
        (torch.randn(dim, generator=generator), prior)
        for dim in (2, 5, 64, 784)
        for prior in ("gaussian", "logistic")
    ]


def _height(of: Callable[[int, Tensor, str], Any]) -> Callable[..., Tensor]:
    """An answer made of the number of coordinates, the sum of the log-scales, and the prior."""
    return lambda s, prior: torch.as_tensor(of(len(s), s.sum(), prior), dtype=s.dtype)


def _by_prior(gaussian: float, logistic: float) -> Callable[..., Tensor]:
    return _height(lambda n, s, prior: n * (gaussian if prior == "gaussian" else logistic))


_LN2, _LOG_2PI = math.log(2), math.log(2 * math.pi)
_GAUSSIAN, _LOGISTIC = 0.5, 2 - 2 * _LN2  # of one coordinate
_TOPS = -_LOG_2PI / 2, -2 * _LN2  # log p(0)
_CANCELS = "log |det J| is the same at the peak and at every sample: it cancels."
# fmt: off
_HEIGHT_WRONG = [
    Wrong(_by_prior(_GAUSSIAN, _GAUSSIAN), "You use the Gaussian for both priors.",
          "For the logistic log p(0) = −log 4, and the mean of log p(z) is −2."),
    Wrong(_by_prior(_LOGISTIC, _LOGISTIC), "You use the logistic for both priors.",
          "For the Gaussian log p(z) = −(z² + log 2π) / 2, and the mean of z² is 1."),
    Wrong(_by_prior(_LOGISTIC, _GAUSSIAN), "You exchange the two priors.", "Mind `prior`."),
    Wrong(_by_prior(*_TOPS), "You give log p_Z at the peak alone.",
          "Subtract the mean of log p over samples."),
    Wrong(_height(lambda n, s, prior: s + n * _TOPS[prior == "logistic"]),
          "You give log p at the peak alone.", "Subtract the mean of log p over samples."),
    Wrong(_by_prior((1 + _LOG_2PI) / 2, 2.0), "You give the entropy of the prior.",
          "That is minus the mean of log p_Z over samples: add log p_Z(0)."),
    Wrong(_by_prior(_GAUSSIAN, 2.0), "You forget log p_Z(0) = −log 4 of the logistic.",
          "The height is log p_Z(0) minus the mean of log p_Z(z)."),
    Wrong(_by_prior(1.0, _LOGISTIC), "You forget the ½ of the Gaussian.", "log p(z) = −z² / 2 − …"),
    Wrong(_by_prior(_GAUSSIAN, 2 - _LN2), "You take log 2 in place of log 4.",
          "The logistic density at 0 is 1/4."),
    Wrong(_height(lambda n, s, prior: _GAUSSIAN if prior == "gaussian" else _LOGISTIC),
          "You give the height of a single coordinate.", "Logarithms of independent ones add up."),
    Wrong(_height(lambda n, s, prior: s + n * (_GAUSSIAN if prior == "gaussian" else _LOGISTIC)),
          "You add the log-determinant.", _CANCELS),
    Wrong(_height(lambda n, s, prior: n * (_GAUSSIAN if prior == "gaussian" else _LOGISTIC) - s),
          "You subtract the log-determinant.", _CANCELS),
    usual("sign", "Your height is negative.", "The peak lies above: log p there minus the mean."),
    usual("bits"),
]
# fmt: on

formula(
    "04.peak_height",
    task="Derive and write `my_peak_height`: how far, in nats, log p at the peak of a NICE lies "
    "above the mean of log p over its own samples. log_scale [D] holds the s_i of its last layer, "
    'prior is "gaussian" or "logistic".',
    signature="my_peak_height(log_scale, prior) -> scalar",
    solution=peak_height,
    hints=[
        "log p(x) = log p_Z(z) + log |det J|. Which of the two differs between the peak and a "
        "sample?",
        "At the peak z = 0; of a sample z is a draw of the prior. So the height is "
        "log p_Z(0) − E log p_Z(z), a sum over coordinates.",
        "Gaussian: E z² = 1. Logistic: log p(0) = −log 4, and E log p(z) = −2, since z = "
        "log(u / (1 − u)) has the density p = u (1 − u), and the mean of log u over [0, 1] is −1.",
    ],
    right=_by_prior(_GAUSSIAN, _LOGISTIC),
    inputs=_draw_scales,
    result="height",
    axes="[D], _ -> []",
    wrong=_HEIGHT_WRONG,
    otherwise=lambda got, right, log_scale, prior: (
        f"For {len(log_scale)} coordinates and the {prior} prior your height is {got.item():.4g}; "
        f"it is {right.item():.4g}.",
        "Start with one coordinate and the Gaussian.",
    ),
    passes="Your height is right for both priors and any number of coordinates, and takes no "
    "notice of the scales.",
)


# --- A likelihood without bound ------------------------------------------------------------------


@exercise(
    "04.break_it",
    task="Break the likelihood: write `my_spiky_log_prob`, a log-density of x [B] that integrates "
    "to 1, made of spikes `width` wide, and on the grey values k / 16 grows without bound as width "
    "goes to 0.",
    signature="my_spiky_log_prob(x, width) -> [B]",
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
    # The grid starts anywhere, so that no edge of a box falls on its points. Far out, where some
    # spikes have heavy tails, its steps grow with the distance.
    step = width / 200
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    near_x = -0.25 + step * (torch.arange(int(1.5 / step)) + offset)
    far = torch.arange(-12, 14, 0.01, dtype=torch.float64).exp()
    x = torch.cat([near_x, near_x[0] - far, near_x[-1] + far])
    weights = torch.cat([torch.full_like(near_x, step), 0.01 * far, 0.01 * far])
    value = log_p(x, width)

    def integral(values: Tensor) -> float:
        return float((values * weights).nan_to_num(posinf=math.inf).sum())

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


_DIM = 8


@cache
def _too_few_couplings() -> list[Slip]:
    slips = []
    for n in (1, 2):
        pattern = coupling_dependencies(n, _DIM, generator=torch.Generator().manual_seed(0))
        still = int((pattern.int() == torch.eye(_DIM).int()).all(1).sum())  # depend on themselves
        because = (
            f"{still} of {_DIM} outputs have not moved at all"
            if still
            else "every coordinate has moved, but those that moved first know nothing of the "
            "others in their own half"
        )
        i, j = (~pattern).nonzero()[0].tolist()
        reason = (
            f"After {n} {'coupling' if n == 1 else 'couplings'} {because}: "
            f"{int((~pattern).sum())} of {_DIM**2} entries of the Jacobian are still zero (output "
            f"{i} ignores input {j})."
        )
        slips.append(Slip(n, reason, "What does one more coupling bring together?"))
    return slips


prediction(
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
    right=3,
    wrong=_too_few_couplings,
    passes=f"After 3 couplings no entry of the {_DIM}×{_DIM} Jacobian is zero; after 2 some are.",
    question="How many couplings does it take?",
    low=1,
    whole=True,
    otherwise=lambda got: (
        f"{got} couplings are enough, but so are {got - 1}.",
        "Look for the smallest number.",
    ),
)
