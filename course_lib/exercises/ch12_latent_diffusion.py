"""Exercises of chapter 12: latents' scale, masks, two prompts, inpainting, zero convolutions."""

import math
from collections.abc import Callable, Iterable
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.data import SCENE_WORDS
from course_lib.diffusion import (
    EDM,
    ClassifierFreeGuidance,
    ControlledUNet,
    ControlNet,
    Inpainting,
    Preconditioned,
    ZeroConv,
    per_example,
)
from course_lib.exercises.attempt import (
    Attempt,
    Given,
    Mistake,
    fresh_seed,
    gradients_of,
    same,
    take_number,
    take_results,
)
from course_lib.exercises.draws import between, randn
from course_lib.exercises.formula import Case, Wrong, formula, usual
from course_lib.exercises.prediction import Slip, prediction
from course_lib.exercises.registry import exercise
from course_lib.latent import KLAutoencoder
from course_lib.nn import CrossAttention, TextEncoder, UNet, WordTokenizer

__all__ = ["inpainting_step", "latent_scale", "masked_attention", "second_step", "two_prompts"]


def _like_trained(net: nn.Module, generator: torch.Generator) -> nn.Module:
    """A network none of whose weights is zero, as after training."""
    with torch.no_grad():
        for parameter in net.parameters():
            size = 0.5 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.1
            parameter += size * randn(*parameter.shape, generator=generator)
    return net


def _seeded(make: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """A module whose first weights are drawn from ``generator``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fresh_seed(generator))
        return make()


# --- What attention costs ------------------------------------------------------------------------

_PAIRS = "Every place looks at every place: N places have N² logits. What is N before and after?"

prediction(
    "12.predict_logits",
    task="Predict: Stable Diffusion's autoencoder makes 64 × 64 × 4 numbers of an image of 512 × "
    "512 × 3. In a layer of self-attention all places look at all places. How many times fewer "
    "logits has a head on the latent than on the image?",
    solution=[KLAutoencoder, CrossAttention.weights],
    hints=[
        "Channels don't count: a place is one token, however many numbers it has.",
        "512 / 64 = 8 along each side: 64 times fewer places.",
        "64 times fewer queries, and each has 64 times fewer keys.",
    ],
    right=8**4,
    wrong=[
        Slip(48, "There are 48 times fewer numbers; logits belong to pairs of places.", _PAIRS),
        Slip(64, "There are 64 times fewer places. And each looks at fewer, too.", _PAIRS),
        Slip(8, "That is the factor along one side.", _PAIRS),
        Slip(16, "4² places fewer: the factor is 8, and there are two sides.", _PAIRS),
        Slip(512, "8³: 64 times fewer queries, with 64 times fewer keys each.", _PAIRS),
        Slip(2304, "48²: a place is one token, whatever its channels.", _PAIRS),
        Slip(3072, "64 · 48: a place is one token, whatever its channels.", _PAIRS),
        Slip(64**4, "So many logits there are on the latent, not so many times fewer.", _PAIRS),
        Slip(1 / 8**4, "Upside down: how many times fewer?", _PAIRS, within=1e-6),
    ],
    passes="4,096 times fewer: 16.8 million logits a head instead of 69 billion. What a "
    "convolution costs falls with the number of places, 64 times; attention falls with its square, "
    "f⁴. So attention at the image's own size was out of reach, and on the latent it is not.",
    question="A factor is asked for, a whole number.",
    hint=_PAIRS,
    low=1,
    whole=True,
)


# --- The latent's scale --------------------------------------------------------------------------


def latent_scale(mu: Tensor, log_var: Tensor) -> Tensor:
    """The factor, one number, that makes draws of z ~ N(μ, v) have variance 1 over everything.

    By the law of total variance: Var z = E[v] + Var[μ]. ``mu`` and ``log_var`` are
    ``[N, c, h, w]``.
    """
    variance = log_var.exp().mean() + mu.var(correction=0)
    return variance**-0.5


_TOTAL = "Var z = E[Var(z | x)] + Var[E(z | x)]: the mean of v, and the variance of all μ."


def _by_variance(variance: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """An answer by the variance that it divides by the root of."""
    return lambda mu, log_var: variance(mu, log_var) ** -0.5


def _draw_codes(generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Means that differ by channel, place and image, and noise whose size does."""
    cases = []
    for shape in ((40, 4, 5, 4), (60, 3, 4, 6), (150, 8, 2, 2)):
        n, c, h, w = shape
        mu = 1.5 + 1.5 * randn(1, c, 1, 1, generator=generator)
        mu = mu + 0.8 * randn(1, c, h, w, generator=generator)
        mu = mu + 0.8 * randn(n, 1, 1, 1, generator=generator)
        mu = mu + 0.8 * randn(*shape, generator=generator)
        log_var = 0.5 + randn(1, c, 1, 1, generator=generator) + randn(*shape, generator=generator)
        cases.append((mu, log_var))
    return cases


# fmt: off
_SCALE_WRONG = [
    Wrong(_by_variance(lambda m, s: m.var()), "You leave out the noise of the draws: z is more "
          "than μ.", _TOTAL),
    Wrong(_by_variance(lambda m, s: s.exp().mean()), "You leave out how far the means are apart.",
          _TOTAL),
    Wrong(_by_variance(lambda m, s: (s / 2).exp().mean() + m.var()), "You add standard deviations "
          "to a variance: e^(log_var) is v, half of it in the exponent gives √v.", _TOTAL),
    Wrong(_by_variance(lambda m, s: (s / 2).exp().mean() ** 2 + m.var()), "You square the mean of "
          "√v: the mean of v is larger.", _TOTAL),
    Wrong(_by_variance(lambda m, s: s.mean().exp() + m.var()), "You take the mean of log v: "
          "e^mean is less than the mean of e^(log v).", _TOTAL),
    Wrong(_by_variance(lambda m, s: s.mean() + m.var()), "You take log v for v.", _TOTAL),
    Wrong(_by_variance(lambda m, s: (2 * s).exp().mean() + m.var()), "You take log v for log √v.",
          _TOTAL),
    Wrong(_by_variance(lambda m, s: s.exp().mean() + (m**2).mean()), "You take the mean square of "
          "z: a variance is without the mean.", _TOTAL),
    Wrong(_by_variance(lambda m, s: s.exp().mean() + m.flatten(1).var(1, correction=0).mean()),
          "You take the variance inside of each image: what makes images differ is lost.", _TOTAL),
    Wrong(_by_variance(lambda m, s: s.exp().mean() + m.var(0, correction=0).mean()),
          "You take the variance of each number over the images: that channels and places differ "
          "from each other is lost.", "One factor for all: flatten everything."),
    Wrong(_by_variance(lambda m, s: s.exp().mean() + m.var((0, 2, 3), correction=0).mean()),
          "You take the variance inside of each channel: that channels have other means is lost.",
          "One factor for all: flatten everything."),
    Wrong(lambda m, s: (s.exp().mean((0, 2, 3)) + m.var((0, 2, 3))).pow(-0.5).mean(),
          "You average a scale of each channel.", "One variance of all numbers, and its root."),
    Wrong(lambda m, s: 1 / (m.std() + (s / 2).exp().mean()), "You add standard deviations: "
          "variances add up.", _TOTAL),
    Wrong(lambda m, s: 1 / (s.exp().mean() + m.var()), "You divide by the variance.",
          "A factor scales the variance by its square."),
    Wrong(lambda m, s: (s.exp().mean() + m.var()).sqrt(), "You give the standard deviation: the "
          "factor is one over it.", ""),
    Wrong(lambda m, s: s.exp().mean() + m.var(), "You give the variance.", "A factor of 1 / root "
          "makes it 1."),
    Wrong(_by_variance(lambda m, s: (m.var() - s.exp().mean()).abs()), "You subtract the noise's "
          "variance: it is added to that of μ.", _TOTAL),
    usual("half"),
    usual("double"),
]
# fmt: on

formula(
    "12.latent_scale",
    task="Write `latent_scale`: one factor, a tensor without axes, that makes the latents' "
    "variance 1 over images, channels and places together. A latent is scale · z with a "
    "draw z of N(μ, v), and you are given μ and log v [N, c, h, w]: draw nothing.",
    signature="latent_scale(mu, log_var) -> scale",
    solution=[latent_scale, KLAutoencoder.measure_scale],
    hints=[
        "The library draws z and measures. What does a draw add to μ?",
        _TOTAL,
        "`log_var.exp().mean()` and `mu.var()`; the factor is one over the root of the sum.",
    ],
    right=latent_scale,
    inputs=_draw_codes,
    result="scale",
    axes="[N, c, h, w], [N, c, h, w] -> []",
    tolerance=1e-3,
    wrong=_SCALE_WRONG,
    hint=_TOTAL,
    otherwise=("With your scale the latents' variance is not 1.", _TOTAL),
    passes="With your scale draws of z have variance 1, without a draw: mean noise plus spread of "
    "the means. Stable Diffusion's 0.18215 was measured with draws, on one batch: its z have a "
    "standard deviation of 5.5.",
)


# --- A scale that is wrong -----------------------------------------------------------------------

_LEAST, _MOST = 0.75, 0.90  # share of the levels that are to be useless
_SEEN = (
    "Scaled latents of size s at level σ are s² / (s² + σ²) of the variance. Below 1 % from "
    "σ = 9.95 s on, above 99 % up to σ = s / 9.95; and log σ is normal."
)


class _BestGuess(nn.Module):
    """F of an EDM whose guess is the best for Gaussian latents of size ``s``."""

    def __init__(self, s: float):
        super().__init__()
        self.s, self.known = s, Preconditioned(nn.Identity(), 1.0)

    def forward(self, seen: Tensor, c_noise: Tensor) -> Tensor:
        sigma = per_example((4 * c_noise).exp(), seen)
        c_skip, c_out, c_in, _ = self.known.factors(sigma)
        x = seen / c_in
        return (self.s**2 / (self.s**2 + sigma**2) * x - c_skip * x) / c_out


def _shares(model: EDM, s: float) -> tuple[float, float]:
    """Of the levels that training draws: where latents of size ``s`` are < 1 %, and > 99 %."""
    log_sigma, edge = NormalDist(model.p_mean, model.p_std), math.log(99) / 2
    return 1 - log_sigma.cdf(math.log(s) + edge), log_sigma.cdf(math.log(s) - edge)


def _judge_scale(name: str, share: float, other: float, s: float) -> None:
    """Require that a scale makes the share of useless levels that is asked for."""
    if other > 0.5:
        raise Mistake(
            f"Your `{name}` makes latents of size {s:.3g}: that is too "
            f"{'large' if name == 'small' else 'small'}.",
            "`small` hides the latents in noise; with `large` noise hardly shows.",
        )
    if not _LEAST - 0.005 <= share + other <= _MOST + 0.005:
        raise Mistake(
            f"Your `{name}` makes latents of size {s:.3g}, and {share + other:.1%} of the levels "
            f"useless: {_LEAST:.0%} to {_MOST:.0%} are asked for.",
            _SEEN,
        )


@exercise(
    "12.break_the_scale",
    task="Break it: a diffusion model is an EDM with σ_data = 1, and training draws log σ from "
    "N(−0.4, 1.2²). Call a level useless where the scaled latents are less than 1 % or more than "
    "99 % of the variance of what is seen, latent + σ eps. With the right scale 7 % are. Write "
    "`two_scales`: from latents z [N, c, h, w] as the encoder gives them, of mean 0 and any size, "
    "two wrong scales, one too small and one too large, with each of which 75 % to 90 % of the "
    "levels are useless.",
    signature="two_scales(z) -> small, large",
    solution=[KLAutoencoder.measure_scale, Preconditioned.factors, EDM.draw],
    hints=[
        "Scaled latents have the size s = scale · std. Which s do you want? The scale is s / std.",
        "They are s² / (s² + σ²) of the variance: less than 1 % where σ is above 9.95 s.",
        "P(log σ > log(9.95 s)) is to be 0.83, say: (log(9.95 s) + 0.4) / 1.2 = −0.95. "
        "`statistics.NormalDist` knows such numbers.",
        "s = 0.02 and s = 20.",
    ],
)
def _check_break_the_scale(attempt: Attempt, generator: torch.Generator) -> str:
    for log_size in (between(-2, -1, generator), between(1, 2, generator), 0.0):
        z = math.exp(log_size) * randn(64, 4, 8, 8, generator=generator)
        answer = take_results(("small", "large"), attempt(z))
        words = ("small is a number above 0.", "large is a number above 0.")
        small, large = (
            take_number(
                scale.detach() if isinstance(scale, Tensor) else scale,
                question,
                low=1e-9,
                subject="a scale",
            )
            for scale, question in zip(answer, words, strict=True)
        )
        model = EDM(nn.Identity(), sigma_data=1.0, p_mean=-0.4)
        size = z.square().mean().sqrt().item()
        hidden, bare = _shares(model, small * size)
        _judge_scale("small", hidden, bare, small * size)
        hidden, bare = _shares(model, large * size)
        _judge_scale("large", bare, hidden, large * size)

    def loss(scale: float) -> float:
        """Of the best guess that there is for such latents."""
        model = EDM(_BestGuess(scale * size), sigma_data=1.0, p_mean=-0.4)
        return model.loss(scale * z.repeat(16, 1, 1, 1), generator=generator).item()

    return (
        f"Broken twice. At s = {small * size:.2g} {_shares(model, small * size)[0]:.0%} of the "
        f"levels drown the latents, and the best guess has a loss of {loss(small):.2f}, where "
        f"the right scale leaves {loss(1 / size):.2f}: what is broken looks better. At "
        f"s = {large * size:.3g} {_shares(model, large * size)[1]:.0%} of the levels leave nothing "
        f"to do, at a loss of {loss(large):.1f}. c_in promises numbers of size 1 and gives some "
        f"of {small * size:.2g} and {large * size:.3g}."
    )


# --- Attention with padding ----------------------------------------------------------------------


def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention to the keys where ``mask`` is True, and 0 for an example that has none.

    Args:
        q: ``[B, heads, N, d]``.
        k: ``[B, heads, L, d]``.
        v: ``[B, heads, L, e]``.
        mask: Which keys may be looked at, bool ``[B, L]``.

    """
    seen = mask[:, None, None]  # [B, 1, 1, L]
    logits = q @ k.mT / q.shape[-1] ** 0.5
    logits = logits.masked_fill(~seen, torch.finfo(q.dtype).min)
    p = torch.exp(logits - logits.amax(-1, keepdim=True)) * seen
    return p @ v / p.sum(-1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)


_HIDE = (
    "exp of a hidden key's logit must be 0, above and below the line: its logit is −∞ before the "
    "softmax. `mask[:, None, None]` is [B, 1, 1, L], as the logits' axes are."
)
_SHOUTS = (
    "Right, but not where a padding's logit is much larger than all that may be seen.",
    "Hide before you take a maximum, and before exp: 0 · ∞ is NaN, too.",
)
_BLIND = (
    "Right but for an example that may look at nothing: 0 is asked for.",
    "A softmax of nothing but −∞ is 0 / 0, and of equal numbers a mean. Multiply exp by the mask, "
    "and divide by at least a tiny number.",
)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    factor: float | None = None,
    axis: int = -1,
) -> Tensor:
    """PyTorch's way, whose rows of nothing are NaN; ``mask`` fits the logits."""
    logits = q @ k.mT * (q.shape[-1] ** -0.5 if factor is None else factor)
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf)
    return torch.softmax(logits, axis) @ v


def _draw_attention(generator: torch.Generator) -> list[Case]:
    def draw(batch: int, heads: int, n: int, length: int) -> list[Tensor]:
        q, k = (2 * randn(batch, heads, m, 5, generator=generator) for m in (n, length))
        v = randn(batch, heads, length, 3, generator=generator)
        seen = torch.rand(batch, length, generator=generator) < 0.6
        # Padding is not always at the end of a batch; two words everywhere, so that what hides all
        # that is padding anywhere still mixes.
        seen[:, :2], seen[:, -1] = True, False
        return [q, k, v, seen]

    # Where batch, heads and queries are as many, a mask without new axes broadcasts, and lies.
    cases = [Case(draw(*sizes)) for sizes in ((4, 4, 4, 6), (3, 3, 3, 7), (2, 3, 5, 6))]
    q, k, v, mask = draw(3, 2, 4, 6)
    loud = torch.where(mask[:, None, :, None], k, 300 * k)
    cases.append(Case((q, loud, v, mask), _SHOUTS))
    q, k, v, mask = draw(3, 2, 4, 6)
    mask[1] = False
    cases.append(Case((q, k, v, mask), _BLIND, gradients=False))
    return cases


def _check_blind_gradients(attempt: Attempt, generator: torch.Generator) -> str:
    """An example that sees nothing must not spoil the gradients of the others."""
    q, k, v, mask = _draw_attention(generator)[-1].inputs

    def gradients(function: Callable[..., Tensor]) -> list[Tensor | None]:
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        return gradients_of(function(*inputs, mask), inputs)

    for got, right in zip(gradients(attempt), gradients(masked_attention), strict=True):
        if got is None or not same(got, right, tolerance=1e-3):
            raise Mistake(
                "Your values are right, but not your gradients where an example sees nothing: "
                "0 · NaN is NaN on the way back, too.",
                "A `torch.where` or `nan_to_num` behind a NaN hides it on the way forward only.",
            )
    return (
        "Your padding gets nothing, whatever it holds, and who may look at nothing gets 0. Our "
        "sentences always leave the start token to look at: even the empty prompt has one place."
    )


# fmt: off
_MASK_WRONG = [
    Wrong(lambda q, k, v, mask: _attend(q, k, v, None), "You leave the mask out.", _HIDE),
    Wrong(lambda q, k, v, mask: _attend(q, k, v, ~mask[:, None, None]), "Your mask is the other "
          "way round: True is what may be looked at.", ""),
    Wrong(lambda q, k, v, mask: _attend(q, k, v * mask[:, None, :, None], None), "The padding "
          "still takes its share: your weights on words don't sum to 1.", _HIDE),
    Wrong(lambda q, k, v, mask: _attend(q, k * mask[:, None, :, None], v, None), "You make "
          "padding's logits 0, not −∞: e⁰ is 1.", _HIDE),
    Wrong(lambda q, k, v, mask: _attend(q, k * mask[:, None, :, None], v * mask[:, None, :, None],
          None), "You make padding's keys and values 0, but e⁰ = 1 still stands below the line.",
          _HIDE),
    Wrong(lambda q, k, v, mask: _attend(q, k, v, mask), "Your mask [B, L] lies over queries and "
          "keys: it fits by chance.", _HIDE),
    Wrong(lambda q, k, v, mask: _attend(q, k, v, mask[:, None]), "Your mask [B, 1, L] lies over "
          "heads: it fits by chance.", _HIDE),
    Wrong(lambda q, k, v, mask: _attend(q, k, v, mask[:1, None, None]), "All examples get the "
          "first one's mask.", _HIDE),
    Wrong(lambda q, k, v, mask: _attend(q, k, v, mask.all(0)), "You hide what is padding anywhere "
          "in the batch.", "Each example has its own mask."),
    Wrong(lambda q, k, v, mask: _attend(q, k, v, mask.any(0)), "You show what is a word anywhere "
          "in the batch.", "Each example has its own mask."),
    Wrong(lambda q, k, v, mask: _attend(q, k, v, mask[:, None, None], factor=1.0), "You don't "
          "divide the logits by √d.", ""),
    Wrong(lambda q, k, v, mask: _attend(q, k, v, mask[:, None, None], factor=1 / q.shape[-1]),
          "You divide the logits by d: by its root.", ""),
    Wrong(lambda q, k, v, mask: _attend(q, k, v, mask[:, None, None],
          factor=(q.shape[-1] * q.shape[1]) ** -0.5), "You divide by the root of heads · d: d is a "
          "head's size.", ""),
    Wrong(lambda q, k, v, mask: _attend(q, k, v, mask[:, None, None]), *_BLIND),
    Wrong(lambda q, k, v, mask: torch.softmax((q @ k.mT / q.shape[-1]**0.5).masked_fill(
          ~mask[:, None, None], -1e9), -1) @ v, *_BLIND),
    Wrong(lambda q, k, v, mask: torch.softmax((q @ k.mT / q.shape[-1]**0.5).masked_fill(
          ~mask[:, None, None], -math.inf), -2).nan_to_num() @ v, "Your softmax runs over the "
          "queries.", "Over the keys, the last axis of the logits."),
    Wrong(lambda q, k, v, mask: torch.softmax((q @ k.mT / q.shape[-1]**0.5) + mask[:, None, None],
          -1) @ v, "You add the mask as 0 and 1: a word's logit grows by 1.", _HIDE),
]
# fmt: on

formula(
    "12.masked_attention",
    task="Write `masked_attention`: softmax(Q Kᵀ / √d) V for q [B, heads, N, d], k [B, heads, L, "
    "d], v [B, heads, L, e], in which padding gets nothing, whatever it holds: mask [B, L] is True "
    "at the words. An example without any word gets 0, not NaN. Gradients flow. None of them is "
    "NaN.",
    signature="masked_attention(q, k, v, mask) -> o",
    solution=[masked_attention, CrossAttention.weights],
    hints=[
        "A row of the softmax must give its words 1 in all, and padding 0. Where does a mask "
        "belong, and with which axes?",
        _HIDE,
        "`torch.softmax` of nothing but −∞ is NaN, and its gradient can be, too, whatever you "
        "write over it afterwards. Write exp and the sum yourself, with a low but finite "
        "number for −∞.",
        "`p = exp(logits − max) * seen`, and `p @ v / p.sum(-1, keepdim=True).clamp(min=tiny)`.",
    ],
    right=masked_attention,
    inputs=_draw_attention,
    result="o",
    axes="[B, heads, N, d], [B, heads, L, d], [B, heads, L, e], [B, L] -> [B, heads, N, e]",
    gradients=["q", "k", "v"],
    wrong=_MASK_WRONG,
    hint=_HIDE,
    otherwise=("Your o is not the attention to the words alone.", _HIDE),
    passes=_check_blind_gradients,
)


# --- A mask that is missing ----------------------------------------------------------------------

_LONGEST = (
    "What differs is how much padding stands behind the first prompt: as much as the longest "
    "prompt of its batch is longer."
)


class _Unmasked:
    """A small network that is told a batch of prompts, padded to the longest of them."""

    def __init__(self, words: list[str], length: int, generator: torch.Generator):
        def make() -> nn.Module:
            encoder = TextEncoder(WordTokenizer(words, length=length), dim=16, depth=1, heads=2)
            unet = UNet((2, 4, 4), widths=(8,), groups=4, context_dim=16, heads=2)
            return nn.ModuleList([encoder, unet])

        # In float64: how a batch is split over the processor must not look like a difference.
        self.encoder, self.unet = _like_trained(_seeded(make, generator), generator).double()
        self.x = randn(1, 2, 4, 4, generator=generator).double()
        self.t = torch.tensor([0.3], dtype=torch.float64)

    @torch.no_grad()
    def __call__(self, prompts: list[str], *, masked: bool) -> Tensor:
        """What it says of one and the same x, told the first prompt in this company."""
        tokens = self.encoder.tokenizer(prompts)
        mask = self.encoder.mask(tokens)
        longest = int(mask.sum(1).max())
        n = len(prompts)
        said = self.unet(
            self.x.expand(n, -1, -1, -1),
            self.t.expand(n),
            context=self.encoder(tokens)[:, :longest],
            mask=mask[:, :longest] if masked else None,
        )
        return said[0]


def _take_prompts(name: str, value: Any, tokenizer: WordTokenizer) -> list[str]:
    """A list of prompts that the tokenizer takes."""
    value = list(value) if isinstance(value, tuple) else value
    if not isinstance(value, list) or not all(isinstance(prompt, str) for prompt in value):
        what = f"`{value}`" if isinstance(value, str) else f"of type {type(value).__name__}"
        raise Mistake(
            f"Your {name} batch is {what[:60]}; it must be a list of prompts.",
            'Like `["", "red"]`: a prompt is a text, and one prompt is a list, too.',
        )
    try:
        tokenizer(value)
    except ValueError as error:
        raise Mistake(
            f"The tokenizer refuses your {name} batch: {' '.join(str(error).split())[-120:]}",
            "At least one prompt, of the words that you are given, and shorter than `length`: the "
            "start takes a place, too.",
        ) from None
    return value


@exercise(
    "12.break_the_mask",
    task="Break it: a network pads the prompts of a batch to the longest of them, as is usual, and "
    "its cross-attention has no mask. Write `two_batches`: two lists of prompts, made of the list "
    "`words`, each with fewer words than `length`. Both lists begin with the same prompt, and "
    "for the same x, t and weights the network says something else for it in the second batch than "
    "in the first. (With a mask it would not.)",
    signature="two_batches(words, length) -> first, second",
    solution=[WordTokenizer, TextEncoder.mask, CrossAttention.weights],
    hints=[
        "Rows of a batch don't see each other. What does a prompt get from its company?",
        _LONGEST,
        "A short prompt alone, and with a long one beside it.",
    ],
)
def _check_break_the_mask(attempt: Attempt, generator: torch.Generator) -> str:
    order = torch.randperm(len(SCENE_WORDS), generator=generator).tolist()
    for length in (4, 12):
        words = [SCENE_WORDS[i] for i in order[: length + 3]]
        network = _Unmasked(words, length, generator)
        tokenizer = network.encoder.tokenizer
        answer = take_results(("first", "second"), attempt(words, length))
        first, second = (
            _take_prompts(name, prompts, tokenizer)
            for name, prompts in zip(("first", "second"), answer, strict=True)
        )
        if not torch.equal(tokenizer(first)[0], tokenizer(second)[0]):
            raise Mistake(
                f'Your batches begin with "{first[0]}" and "{second[0]}": of course they differ.',
                "The same first prompt in both; its company is to do it.",
            )
        alone, together = (network(prompts, masked=False) for prompts in (first, second))
        far = ((alone - together).abs().max() / alone.abs().max()).item()
        if far < 1e-8:
            longest = max(len(prompt.split()) for prompt in first)
            raise Mistake(
                f"Not broken: the network says the same for your first prompt. The longest prompt "
                f"has {longest} words in both of your batches.",
                _LONGEST,
            )
        alone, together = (network(prompts, masked=True) for prompts in (first, second))
        assert same(alone, together, tolerance=1e-8)
    n = len(first[0].split()) + 1
    least, most = (1 + max(len(p.split()) for p in prompts) - n for prompts in (first, second))
    return (
        f'Broken: behind the {n} token{"s" * (n > 1)} of "{first[0]}" stand {least} of padding in '
        f"the first batch and {most} in the second, and what the network says differs by "
        f"{far:.0%} of its size; with a mask not at all. So an image would depend on what others "
        "asked for at the same time. The empty prompt has the most padding, and guidance "
        "multiplies its error by scale − 1."
    )


# --- Two prompts ---------------------------------------------------------------------------------


def two_prompts(
    net: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, t: Tensor, tokens: Tensor, w: Tensor
) -> Tensor:
    """The guess that is guided by two prompts at once, by one call of the network.

    Args:
        net: ``net(x, t, tokens)``, guesses of x_0.
        x: ``[B, *event]``.
        t: Times ``[B]``.
        tokens: ``[3, B, L]``: of the empty prompt, of the first and of the second.
        w: How strongly each example follows the first and the second, ``[2, B]``.

    """
    said = net(torch.cat([x, x, x]), torch.cat([t, t, t]), tokens.flatten(0, 1))
    null, first, second = said.chunk(3)
    w_1, w_2 = (per_example(number, x) for number in w)
    return null + w_1 * (first - null) + w_2 * (second - null)


_TWO = (
    "p(x) p(c_1 | x)^w_1 p(c_2 | x)^w_2: each prompt adds w times its difference from what the "
    "empty prompt says."
)
_STACKED = (
    "Three blocks of B, one behind the other: x, x, x, and the tokens flattened in the same order; "
    "the result is cut into three again."
)


def _network(generator: torch.Generator, event: tuple[int, ...], n_words: int) -> Callable:
    """A network of which x, t and tokens all matter, each example for itself."""
    table = randn(n_words, *event, generator=generator)
    turn = randn(*event, generator=generator)

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        given = {"x": x, "t": t, "tokens": y}
        for name, value in given.items():
            if not isinstance(value, Tensor):
                raise Mistake(f"You give the network a {type(value).__name__} as {name}.", _STACKED)
        if x.shape[1:] != event or t.shape != x.shape[:1] or y.shape[:-1] != x.shape[:1]:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in given.items())
            raise Mistake(
                f"You give the network {shapes}.",
                f"It takes x [n, {', '.join(map(str, event))}], t [n] and tokens [n, L], for any "
                f"n. {_STACKED}",
            )
        order = 1 + torch.arange(y.shape[-1]) / y.shape[-1]
        text = (table[y] * order.reshape(-1, *[1] * len(event))).mean(1)
        times = per_example(t, x)
        return torch.tanh(x / (1 + times) + text + times * turn) + text

    return net


def _draw_prompts(generator: torch.Generator) -> list[tuple]:
    cases = []
    for shape in ((4, 4), (4, 3, 5), (6, 2, 3, 3), (3, 4, 2, 2)):
        n = shape[0]
        net = _network(generator, shape[1:], 9)
        tokens = torch.randint(1, 9, (3, n, 5), generator=generator)
        tokens[0] = torch.tensor([1, 0, 0, 0, 0])
        t = 0.2 + torch.rand(n, generator=generator)
        w = torch.stack(
            [
                between(1.2, 2, generator) + 2 * torch.rand(n, generator=generator),
                between(3, 4, generator) + 2 * torch.rand(n, generator=generator),
            ]
        )
        given = Given("net", ("x", "t", "tokens"), net)
        cases.append((given, randn(*shape, generator=generator), t, tokens, w))
    return cases


def _mixed(
    rule: Callable[..., Tensor], **changes: Callable[[Tensor], Tensor]
) -> Callable[..., Tensor]:
    """An answer by its rule of (null, first, second, w_1, w_2), and by what it makes of inputs."""

    def answer(net: Callable, x: Tensor, t: Tensor, tokens: Tensor, w: Tensor) -> Tensor:
        def repeat(value: Tensor) -> Tensor:
            return torch.cat([value, value, value])

        y = changes.get("tokens", lambda tokens: tokens.flatten(0, 1))(tokens)
        said = net(changes.get("x", repeat)(x), changes.get("t", repeat)(t), y)
        w = changes.get("w", lambda w: w)(w)
        parts = changes.get("cut", lambda said: said.chunk(3))(said)
        return rule(*parts, *(per_example(number, x) for number in w))

    return answer


def _both(null: Tensor, one: Tensor, two: Tensor, w_1: Tensor, w_2: Tensor) -> Tensor:
    return null + w_1 * (one - null) + w_2 * (two - null)


def _on_the_last_axis(net: Callable, x: Tensor, t: Tensor, tokens: Tensor, w: Tensor) -> Tensor:
    return _both(*net(torch.cat([x] * 3), torch.cat([t] * 3), tokens.flatten(0, 1)).chunk(3), *w)


# fmt: off
_TWO_WRONG = [
    Wrong(_mixed(lambda e, a, b, v, w: v * a + w * b), "You leave the empty prompt out: what a "
          "prompt says is its difference from it.", _TWO),
    Wrong(_mixed(lambda e, a, b, v, w: e + v * a + w * b), "You add whole guesses: what a prompt "
          "says is its difference from the empty one.", _TWO),
    Wrong(_mixed(lambda e, a, b, v, w: v * (a - e) + w * (b - e)), "Only the two changes are left: "
          "begin at what the empty prompt says.", _TWO),
    Wrong(_mixed(lambda e, a, b, v, w: e + v * (a - e) + w * (b - a)), "You count the second "
          "prompt from the first: that is for a second prompt that contains the first.", _TWO),
    Wrong(_mixed(lambda e, a, b, v, w: e + v * (a - e) + w * (b - e - v * (a - e))), "You guide "
          "twice, one behind the other: the first prompt is weakened by 1 − w_2.", _TWO),
    Wrong(_mixed(lambda e, a, b, v, w: 2 * e + v * (a - e) + w * (b - e)), "You add two guided "
          "guesses: the empty prompt's counts once.", _TWO),
    Wrong(_mixed(lambda e, a, b, v, w: e + (v * (a - e) + w * (b - e)) / 2), "You average two "
          "guided guesses: each prompt gets half of its weight.", _TWO),
    Wrong(_mixed(lambda e, a, b, v, w: e + (v + w) * ((a + b) / 2 - e)), "Both prompts get the "
          "mean of the two weights.", _TWO),
    Wrong(_mixed(lambda e, a, b, v, w: e + v * (a - e) - w * (b - e)), "You walk away from the "
          "second prompt.", "A negative prompt would have a negative w."),
    Wrong(_mixed(lambda e, a, b, v, w: b + v * (a - b)), "You put the second prompt in the empty "
          "one's place: that is a negative prompt.", _TWO),
    Wrong(_mixed(lambda e, a, b, v, w: _both(e, a, b, 1 + v, 1 + w)), "You count w from the "
          "conditional model, as Ho & Salimans do: here 0 leaves a prompt out.", _TWO),
    Wrong(_mixed(lambda e, a, b, v, w: _both(e, a, b, w, v)), "The two weights change places.",
          "`w[0]` belongs to `tokens[1]`."),
    Wrong(_mixed(lambda e, a, b, v, w: _both(a, e, b, v, w)), "Empty and first prompt change "
          "places.", "`tokens[0]` is the empty one."),
    Wrong(_mixed(lambda e, a, b, v, w: _both(b, a, e, w, v)), "You take the last for the empty "
          "prompt.", "`tokens[0]` is the empty one."),
    Wrong(_mixed(lambda e, a, b, v, w: _both(e, a, b, v, 0 * w)), "You leave the second prompt "
          "out.", _TWO),
    Wrong(_mixed(_both, w=lambda w: w.mean(1, keepdim=True).expand_as(w)), "All examples get the "
          "mean of w.", "Each has its own: give w as many axes as x has."),
    Wrong(_mixed(_both, w=lambda w: w[:, :1].expand_as(w)), "All examples get the first one's w.",
          "Each has its own: give w as many axes as x has."),
    Wrong(_on_the_last_axis, "Your w runs along the last axis.", "w belongs to axis 0: "
          "`w[0].reshape(-1, 1, ...)`, with as many axes as x has."),
    Wrong(_mixed(_both, t=lambda t: t[:1].expand(3 * len(t))), "All examples get the first one's "
          "time.", _STACKED),
    Wrong(_mixed(_both, x=lambda x: x.repeat_interleave(3, 0)), "`repeat_interleave` gives x_1, "
          "x_1, x_1, x_2, ...: x and tokens don't belong together.", _STACKED),
    Wrong(_mixed(_both, t=lambda t: t.repeat_interleave(3)), "`repeat_interleave` gives t_1, t_1, "
          "t_1, t_2, ...: x and t don't belong together.", _STACKED),
    Wrong(_mixed(_both, tokens=lambda y: y.transpose(0, 1).flatten(0, 1)), "Your tokens go example "
          "by example, x block by block.", _STACKED),
    Wrong(_mixed(_both, cut=lambda said: (said[0::3], said[1::3], said[2::3])), "You cut the "
          "result example by example; it comes in three blocks.", _STACKED),
]
# fmt: on


def _check_calls(attempt: Attempt, generator: torch.Generator) -> str:
    given, *inputs = _draw_prompts(generator)[0]
    sizes = []

    def counted(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        sizes.append(len(x))
        return given(x, t, y)

    attempt(Given("net", ("x", "t", "tokens"), counted), *inputs)
    if len(sizes) != 1:
        raise Mistake(
            f"Your D is right, but you call the network {len(sizes)} times; one call of 3 B "
            "examples is asked for.",
            _STACKED,
        )
    return (
        "Your D follows both prompts, each example as strongly as it likes, in one call. It is the "
        "guess of p(x) p(c_1 | x)^w_1 p(c_2 | x)^w_2, as if the prompts were independent given the "
        "image. But our captions tell of whole scenes: two of them are seldom true of one image."
    )


formula(
    "12.two_prompts",
    task="Write `two_prompts`: a guess D of x_0 that is guided by two prompts, for the score of "
    "p(x) p(c_1 | x)^w_1 p(c_2 | x)^w_2. `net(x, t, tokens)` gives guesses for n examples: x "
    "[n, *event], t [n], tokens [n, L]. You get x [B, *event], t [B], w [2, B], an example's "
    "own weights, and tokens [3, B, L]: the empty prompt's, the first's, the second's. Call "
    "`net` once.",
    signature="two_prompts(net, x, t, tokens, w) -> D",
    solution=[two_prompts, ClassifierFreeGuidance],
    hints=[
        "Take the logarithm and the gradient: three scores. A guess of x_0 is linear in the score.",
        _TWO,
        _STACKED,
        "`said = net(torch.cat([x, x, x]), torch.cat([t, t, t]), tokens.flatten(0, 1))`, and "
        "w needs the axes of x.",
    ],
    right=two_prompts,
    inputs=_draw_prompts,
    result="D",
    wrong=_TWO_WRONG,
    hint=_TWO,
    otherwise=("Your D is not that of both prompts.", _TWO),
    passes=_check_calls,
)


# --- Inpainting ----------------------------------------------------------------------------------


def inpainting_step(
    x: Tensor,
    D: Tensor,
    z: Tensor,
    eps: Tensor,
    keep: Tensor,
    sigma: float,
    sigma_next: float,
) -> Tensor:
    """One Euler step of EDM's ODE, after which what is known stands at the step's new level.

    Args:
        x: The state at level ``sigma``, ``[B, c, h, w]``.
        D: The guess of x_0 there.
        z: The latent that is known in part.
        eps: The noise that it is seen with.
        keep: Where it is known, bool ``[B, 1, h, w]``.
        sigma: The level before the step.
        sigma_next: The level behind it.

    """
    x = x + (sigma_next - sigma) * (x - D) / sigma
    return torch.where(keep, z + sigma_next * eps, x)


_LEVEL = (
    "Behind the step the state is at level σ_next, all of it: known numbers are z + σ_next eps, "
    "the others x + (σ_next − σ) (x − D) / σ."
)


def _euler(x: Tensor, D: Tensor, sigma: float, sigma_next: float) -> Tensor:
    return x + (sigma_next - sigma) * (x - D) / sigma


def _known(value: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A right step, with another value for what is known: of (z, eps, σ, σ_next)."""
    return lambda x, D, z, e, keep, s, n: torch.where(keep, value(z, e, s, n), _euler(x, D, s, n))


def _free(value: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What is known is right, with another value for the rest: of (x, D, σ, σ_next)."""
    return lambda x, D, z, e, keep, s, n: torch.where(keep, z + n * e, value(x, D, s, n))


def _draw_steps(generator: torch.Generator) -> list[tuple]:
    cases = []
    for shape, last in (((5, 3, 4, 4), False), ((3, 2, 5, 4), False), ((4, 4, 3, 3), True)):
        sigma = between(1.5, 3, generator)
        sigma_next = 0.0 if last else sigma * between(0.3, 0.6, generator)
        D, z, e = (randn(*shape, generator=generator) for _ in range(3))
        x = D + sigma * randn(*shape, generator=generator)
        keep = torch.rand(shape[0], 1, *shape[2:], generator=generator) < 0.5
        cases.append((x, D, z, e, keep, sigma, sigma_next))
    return cases


# fmt: off
_STEP_WRONG = [
    Wrong(_known(lambda z, e, s, n: z + s * e), "What is known has the noise of the step before: "
          "the network, told σ_next, takes what is too much for a part of the image.", _LEVEL),
    Wrong(lambda x, D, z, e, keep, s, n: _euler(torch.where(keep, z + s * e, x), D, s, n),
          "You mix at σ, before the step, and the step then moves what is known towards D.",
          _LEVEL + " Mixed before the step, D has to be mixed with z, too."),
    Wrong(lambda x, D, z, e, keep, s, n: _euler(x, torch.where(keep, z, D), s, n),
          "You mix the guess, not the state: what is known starts from another noise than eps.",
          _LEVEL),
    Wrong(_known(lambda z, e, s, n: z), "What is known has no noise: the network, told σ_next, "
          "has never seen that.", _LEVEL),
    Wrong(_known(lambda z, e, s, n: z + n**2 * e), "You have the noise's variance where its size "
          "belongs.", _LEVEL),
    Wrong(_known(lambda z, e, s, n: z + (s**2 - n**2) ** 0.5 * e), "You add the noise between the "
          "two levels: z has none yet.", _LEVEL),
    Wrong(_known(lambda z, e, s, n: z + (s - n) * e), "You add the difference of the two levels: z "
          "has no noise yet.", _LEVEL),
    Wrong(_known(lambda z, e, s, n: z - n * e), "You subtract the noise.", _LEVEL),
    Wrong(_known(lambda z, e, s, n: z + e), "Your noise has size 1 at every level.", _LEVEL),
    Wrong(_known(lambda z, e, s, n: n * e), "You forget z: only noise is left where it is known.",
          _LEVEL),
    Wrong(lambda x, D, z, e, keep, s, n: torch.where(keep, _euler(x, D, s, n), z + n * e),
          "Known and unknown change places.", "`torch.where(keep, known, other)`."),
    Wrong(lambda x, D, z, e, keep, s, n: torch.where(keep, z, _euler(x, D, s, n)) + n * e,
          "You add noise to all: the step's own state has its noise already.", _LEVEL),
    Wrong(lambda x, D, z, e, keep, s, n: (z + n * e) * keep + _euler(x, D, s, n), "You add the "
          "known to the other: there it must replace it.", "m · known + (1 − m) · other."),
    Wrong(lambda x, D, z, e, keep, s, n: _euler(x, D, s, n), "Nothing is kept: you leave z out.",
          _LEVEL),
    Wrong(_free(lambda x, D, s, n: x), "You take no step: the rest stays at σ.", _LEVEL),
    Wrong(_free(lambda x, D, s, n: x - (n - s) * (x - D) / s), "Your step goes away from D.",
          "σ_next − σ is below 0: x + (σ_next − σ) (x − D) / σ."),
    Wrong(_free(lambda x, D, s, n: x + (n - s) * (x - D)), "You forget to divide by σ: "
          "(x − D) / σ is the slope.", ""),
    Wrong(_free(lambda x, D, s, n: x + (n - s) * D), "Your slope is D: it is (x − D) / σ.", ""),
    Wrong(_free(lambda x, D, s, n: D), "You jump to D: that is the step to 0.", _LEVEL),
    Wrong(lambda x, D, z, e, keep, s, n: torch.where(keep, z, D) + n * e, "You noise the guess "
          "anew, a sampler of its own: the step of the ODE keeps its noise.", _LEVEL),
]
# fmt: on

formula(
    "12.inpainting_step",
    task="Write `inpainting_step`: an Euler step of EDM's ODE from level σ to σ_next, from a state "
    "x and the guess D of x_0 [B, c, h, w], behind which every known number stands where noise "
    "eps of the right level puts it: `keep` [B, 1, h, w] says where the latent z is known. σ and "
    "σ_next are numbers, σ_next may be 0.",
    signature="inpainting_step(x, D, z, eps, keep, sigma, sigma_next) -> x",
    solution=[inpainting_step, Inpainting],
    hints=[
        "Step and mix. What comes out is given to the network next: at which level?",
        "dx/dσ = (x − D) / σ, times σ_next − σ.",
        _LEVEL,
    ],
    right=inpainting_step,
    inputs=_draw_steps,
    result="x",
    wrong=_STEP_WRONG,
    hint=_LEVEL,
    otherwise=("Your x is not the step with what is known mixed in.", _LEVEL),
    passes="Your state is at one level, σ_next, the known and the rest. The library mixes before "
    "the step, the state at σ and D with z, which comes to the same: from z + σ eps, with the "
    "guess z, the step ends at z + σ_next eps. At the last step what is known is z itself.",
)


# --- ControlNet: which gradients are zero --------------------------------------------------------

_PARTS = "ABCDEFG"
_BACK = (
    "For y = W x + b: dL/dW = dL/dy xᵀ and dL/db = dL/dy do not ask what W is; dL/dx = Wᵀ dL/dy "
    "does. Go backwards from the loss."
)


def _letters_of(word: str) -> str | None:
    """The letters of one step in order; None where there is something else."""
    word = word.upper().strip(" .\"'[](){}-–")
    if word in ("", "NONE", "NOTHING"):
        return ""
    letters = {letter for letter in word if letter not in " ,+&"}
    return "".join(sorted(letters)) if letters <= set(_PARTS) else None


def _take_letters(value: Any) -> tuple[str, str]:
    """The letters of both steps, whatever is between them."""
    words = value.split(";") if isinstance(value, str) else []
    if isinstance(value, str) and len(words) != 2:
        words = value.split(",") if value.count(",") == 1 else value.split()
    steps = [_letters_of(word) for word in words]
    if len(steps) != 2 or None in steps:
        given = f'"{value}"' if isinstance(value, str) else f"a {type(value).__name__}"
        given = given if len(given) < 60 and "\n" not in given else "another text"
        raise Mistake(
            f"You gave {given}; the answer is two words of the letters A to G.",
            'Like "AB; C": the letters of the first step, a semicolon, the letters of the second.',
        )
    return steps[0], steps[1]


def _zero_gradients(generator: torch.Generator, steps: int = 2) -> list[str]:
    """The parts of a small ControlNet whose gradient is exactly zero at the first steps."""

    def make() -> nn.Module:
        return UNet((2, 4, 4), widths=(8,), groups=4)

    unet = _like_trained(_seeded(make, generator), generator).requires_grad_(False)
    net = _seeded(lambda: ControlNet(unet, 1, factor=2), generator)
    x, target = (randn(2, 2, 4, 4, generator=generator) for _ in range(2))
    condition = randn(2, *net.condition_shape, generator=generator).requires_grad_()
    parts = [
        [zero.weight for zero in net.zeros],
        [zero.bias for zero in net.zeros],
        list(net.copy.parameters()),
        [net.hint[-1].weight],
        [net.hint[-1].bias],
        list(net.hint[:-1].parameters()),
        [condition],
    ]
    found = []
    for _ in range(steps):
        net.zero_grad()
        condition.grad = None
        said = ControlledUNet(unet, [(net, condition, 1.0)])(x, torch.full((2,), 0.5))
        ((said - target) ** 2).mean().backward()
        found.append(
            "".join(
                letter
                for letter, part in zip(_PARTS, parts, strict=True)
                if not any(value.grad is not None and value.grad.any() for value in part)
            )
        )
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.1 * parameter.grad
    return found


def _judge_first(got: str, right: str) -> None:
    if got == right:
        return
    if got == _PARTS:
        reason = "If every gradient were zero at the first step, nothing would ever be trained."
    elif set("AB") & set(got):
        name = "weights" if "A" in got else "biases"
        reason = f"The zero convolutions' own {name} are zero, but their gradient is not."
    elif not got:
        reason = "At the first step some gradients are zero: think of what is behind a W of 0."
    elif "C" not in got:
        reason = "The copy gets its gradient through zero convolutions: Wᵀ dL/dy is 0."
    elif not {"D", "E"} <= set(got):
        reason = (
            "The hint's zero convolution stands in front of the copy: at the first step nothing "
            "comes back to it, neither to its weights nor to its bias."
        )
    else:
        reason = "In front of the copy nothing gets a gradient at the first step."
    raise Mistake(reason, _BACK)


def _judge_second(got: str, right: str, first: str) -> None:
    if got == right:
        return
    if got == first:
        reason = "After a step the zero convolutions behind the copy are not zero any more."
    elif set("AB") & set(got):
        reason = "The zero convolutions behind the copy go on learning at the second step."
    elif "C" in got:
        reason = "At the second step the copy is reached: W is not 0 any more."
    elif set("DE") & set(got):
        reason = (
            "At the second step the hint's zero convolution is reached through the copy, and its "
            "own W does not matter to its gradient."
        )
    else:
        reason = (
            "At the second step one zero convolution is still zero: the hint's, whose gradient was "
            "zero at the first. What is in front of it?"
        )
    raise Mistake(reason, _BACK)


@exercise(
    "12.predict_zero_gradients",
    task="Predict: a ControlNet before its first step, on a trained network, with a condition that "
    "is not 0. A: weights of the zero convolutions behind the copy, B: their biases, C: weights of "
    "the trained copy, D: weights of the hint's zero convolution, between the condition and the "
    "copy, E: its bias, F: the hint's convolutions in front of it, G: the condition itself. Which "
    "gradients are exactly zero at the first step? And at the second, behind one step of gradient "
    'descent? Write the letters of both, like "AB; C".',
    solution=[ControlNet, ZeroConv],
    hints=[
        "A product's gradient by one factor is the other factor: dL/dW has x in it, dL/dx has W.",
        _BACK,
        "At the first step only what stands behind the copy learns. Then the way to the copy is "
        "open, and to the hint's zero convolution, but not through it: it was zero, and got no "
        "gradient.",
    ],
)
def _check_predict_zero_gradients(attempt: Any, generator: torch.Generator) -> str:
    first, second = _take_letters(attempt)
    measured = _zero_gradients(generator, steps=3)
    _judge_first(first, measured[0])
    _judge_second(second, measured[1], measured[0])
    return (
        f"Autograd says the same: exactly zero are {', '.join(measured[0])} at the first step, "
        f"{' and '.join(measured[1])} at the second, and at the third "
        f"{' and '.join(measured[2]) or 'none'}. A zero convolution opens in one step what stands "
        "in front of it; two in a row take two. Nothing is stuck: x is not 0."
    )


# --- The second step -----------------------------------------------------------------------------


def second_step(x: Tensor, dy: Tensor, lr: float, dy_2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A zero convolution after one step of gradient descent, and what then comes back to x.

    Args:
        x: What it sees, at both steps, ``[B, n_in, H, W]``.
        dy: dL/dy at the first step, ``[B, n_out, H, W]``.
        lr: The learning rate.
        dy_2: dL/dy at the second step.

    Returns:
        W ``[n_out, n_in]``, b ``[n_out]``, and dL/dx at the second step, like ``x``.

    """
    W = -lr * torch.einsum("bohw,bihw->oi", dy, x)
    b = -lr * dy.sum((0, 2, 3))
    return W, b, torch.einsum("oi,bohw->bihw", W, dy_2)


_ONCE = (
    "W is the same at all places of all images: dL/dW[o, i] is the sum over images and places of "
    "dy[o] x[i]. It started at 0: W = −lr · dL/dW, and dL/dx = Wᵀ dy_2."
)


def _steps(
    weights: Callable[..., Tensor] | None = None,
    bias: Callable[..., Tensor] | None = None,
    back: Callable[..., Tensor] | None = None,
) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """An answer by its W and b of (x, dy, lr), and its dx of (W, x, dy, lr, dy_2)."""

    def answer(x: Tensor, dy: Tensor, lr: float, dy_2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        W, b, dx = second_step(x, dy, lr, dy_2)
        if weights is not None:
            W = weights(x, dy, lr)
            dx = torch.einsum("oi,bohw->bihw", W, dy_2)
        if bias is not None:
            b = bias(x, dy, lr)
        return W, b, dx if back is None else back(W, x, dy, lr, dy_2)

    return answer


def _outer(x: Tensor, dy: Tensor) -> Tensor:
    return torch.einsum("bohw,bihw->oi", dy, x)


# fmt: off
_SECOND_WRONG = [
    Wrong(_steps(lambda x, dy, lr: lr * _outer(x, dy)), "Your W goes uphill.",
          "Gradient descent subtracts: W − lr · dL/dW, from W = 0."),
    Wrong(_steps(lambda x, dy, lr: 0 * _outer(x, dy)), "Your W is still 0: its gradient has dy and "
          "x in it, and neither is 0.", _ONCE),
    Wrong(_steps(lambda x, dy, lr: -_outer(x, dy)), "You forget the learning rate.", _ONCE),
    Wrong(_steps(lambda x, dy, lr: _outer(x, dy)), "You give the gradient of W, not W after the "
          "step.", _ONCE),
    Wrong(_steps(lambda x, dy, lr: -lr * _outer(x, dy) / len(x)), "You average over the batch: dy "
          "already holds what the loss divides by.", _ONCE),
    Wrong(_steps(lambda x, dy, lr: -lr * _outer(x, dy) / x[0, 0].numel()), "You average over the "
          "places: W counts at every one of them, so its gradient is their sum.", _ONCE),
    Wrong(_steps(lambda x, dy, lr: -lr * _outer(x, dy) / x[:, 0].numel()), "You average over "
          "images and places: dy already holds what the loss divides by.", _ONCE),
    Wrong(_steps(lambda x, dy, lr: -lr * _outer(x[:1], dy[:1])), "You take the first image's "
          "gradient alone.", _ONCE),
    Wrong(_steps(lambda x, dy, lr: -lr * torch.outer(dy.sum((0, 2, 3)), x.sum((0, 2, 3)))),
          "You sum dy and x before you multiply them.", "The product is at each place: then sum."),
    Wrong(_steps(lambda x, dy, lr: -lr * dy.sum((0, 2, 3))[:, None].expand(-1, x.shape[1])),
          "You leave x out of the gradient of W: dL/dW is dy times x.", _ONCE),
    Wrong(_steps(bias=lambda x, dy, lr: lr * dy.sum((0, 2, 3))), "Your b goes uphill.",
          "b − lr · dL/db, from b = 0."),
    Wrong(_steps(bias=lambda x, dy, lr: 0 * dy.sum((0, 2, 3))), "Your b is still 0: its gradient "
          "is the sum of dy.", _ONCE),
    Wrong(_steps(bias=lambda x, dy, lr: -lr * dy.mean((0, 2, 3))), "You average dy for b: b counts "
          "at every place, so its gradient is the sum.", _ONCE),
    Wrong(_steps(bias=lambda x, dy, lr: -lr * dy.sum((2, 3)).mean(0)), "You average dy over the "
          "batch for b: dy already holds what the loss divides by.", _ONCE),
    Wrong(_steps(bias=lambda x, dy, lr: -dy.sum((0, 2, 3))), "You forget the learning rate in b.",
          _ONCE),
    Wrong(_steps(back=lambda W, x, dy, lr, dy_2: 0 * x), "Your dx is that of the first step, when "
          "W was 0.", "At the second step W is what the first has made of it."),
    Wrong(_steps(back=lambda W, x, dy, lr, dy_2: torch.einsum("oi,bohw->bihw", W, dy)), "You send "
          "the first step's dy back: at the second it is dy_2.", _ONCE),
    Wrong(_steps(back=lambda W, x, dy, lr, dy_2: -torch.einsum("oi,bohw->bihw", W, dy_2)), "Your "
          "dx has the wrong sign.", "dL/dx = Wᵀ dL/dy; the minus is in W."),
    Wrong(_steps(back=lambda W, x, dy, lr, dy_2: lr * torch.einsum("oi,bohw->bihw", W, dy_2)),
          "You multiply dx by the learning rate: it is in W already.", _ONCE),
    Wrong(_steps(back=lambda W, x, dy, lr, dy_2: torch.einsum("oi,bohw->bihw", W, dy_2)
          / len(x)), "You average dx over the batch: each image has its own.", _ONCE),
]
# fmt: on

formula(
    "12.second_step",
    task="Derive, and write `second_step`: a zero convolution y = W x + b, 1×1, sees x [B, n_in, "
    "H, W], and dL/dy is dy [B, n_out, H, W]. What are W [n_out, n_in] and b [n_out] behind one "
    "step of gradient descent with rate lr? And what is dL/dx at the second step, like x, where "
    "x is the same and dL/dy is dy_2?",
    signature="second_step(x, dy, lr, dy_2) -> W, b, dx",
    solution=[second_step, ZeroConv],
    hints=[
        "At each place of each image y = W x + b, with the same W: gradients add up.",
        _ONCE,
        '`torch.einsum("bohw,bihw->oi", dy, x)` is the sum of dy[o] x[i].',
    ],
    right=second_step,
    inputs=lambda generator: [
        (
            randn(*shape, generator=generator),
            randn(shape[0], n_out, *shape[2:], generator=generator),
            between(0.05, 0.5, generator),
            randn(shape[0], n_out, *shape[2:], generator=generator),
        )
        for shape, n_out in (((3, 4, 2, 5), 2), ((2, 3, 4, 3), 5), ((4, 3, 3, 2), 3))
    ],
    result=["W", "b", "dx"],
    axes="[B, n_in, H, W], [B, n_out, H, W], _, [B, n_out, H, W] -> [n_out, n_in], [n_out], "
    "[B, n_in, H, W]",
    tolerance=1e-3,
    wrong=_SECOND_WRONG,
    hint=_ONCE,
    otherwise={
        "W": ("Your W is not what one step makes of 0.", _ONCE),
        "b": ("Your b is not what one step makes of 0.", _ONCE),
        "dx": ("Your dx is not the gradient at the second step.", _ONCE),
    },
    passes="Your W has left 0 after one step, and the second sends −lr Σ x (dy · dy_2) back to the "
    "copy: the copy moves along its own output x, the more the more alike the two gradients "
    "are.",
)


# --- A lock that is missing ----------------------------------------------------------------------


def _take_start(answer: Any) -> tuple[ControlNet, list[nn.Parameter]]:
    """The control and the parameters to train."""
    net, parameters = take_results(("control_net", "parameters"), answer)
    if not isinstance(net, ControlNet):
        raise Mistake(
            f"Your control_net is of type {type(net).__name__}, not a ControlNet.",
            "`ControlNet(unet, channels)` comes first.",
        )
    listed = list(parameters) if isinstance(parameters, Iterable) else []
    if not listed or not all(isinstance(value, nn.Parameter) for value in listed):
        raise Mistake(
            "Your parameters are no list of parameters, as an optimizer takes them.",
            "`[*net.parameters(), ...]`.",
        )
    if not any(value.requires_grad for value in listed):
        raise Mistake("None of your parameters takes a gradient.", "Train the control, at least.")
    return net, list(dict.fromkeys(listed))


@exercise(
    "12.break_the_lock",
    task="Break it: write `bad_start`, which gets a trained network and gives a control for "
    "conditions of so many channels, and the parameters that an optimizer is to train, so that all "
    "seems well: at the start the controlled network says what the network says, bit for bit, and "
    "training teaches the control. But afterwards the network without its control is another one.",
    signature="bad_start(unet, channels) -> control_net, parameters",
    solution=[ControlNet, ControlledUNet],
    hints=[
        "`ControlNet(unet, channels)` is a right start. What must an optimizer not get?",
        "`net.parameters()` are the control's alone: its copy is a deep copy.",
        "`[*net.parameters(), *unet.parameters()]`: that is what a forgotten lock does.",
    ],
)
def _check_break_the_lock(attempt: Attempt, generator: torch.Generator) -> str:
    def make() -> nn.Module:
        return UNet((2, 4, 4), widths=(8,), groups=4)

    unet = _like_trained(_seeded(make, generator), generator)
    x, t = randn(6, 2, 4, 4, generator=generator), torch.full((6,), 0.5)
    channels = int(torch.randint(2, 5, (), generator=generator))
    before = unet(x, t).detach()
    net, parameters = _take_start(attempt(unet, channels))
    if not torch.equal(unet(x, t), before):
        raise Mistake(
            "Your function changes the network at once: that would be noticed.",
            "Leave its weights to the optimizer.",
        )
    if net.condition_shape[0] != channels:
        raise Mistake(
            f"Your control takes conditions of {net.condition_shape[0]} channels.",
            "`ControlNet(unet, channels)`.",
        )
    # Half of the images are to become brighter, half darker; only the condition says which.
    sign = torch.tensor([1.0, -1.0]).repeat(3).reshape(6, 1, 1, 1)
    condition = sign + 0.1 * randn(6, *net.condition_shape, generator=generator)
    controlled = ControlledUNet(unet, [(net, condition, 1.0)])
    if not torch.equal(controlled(x, t), before):
        raise Mistake(
            "At the start your controlled network does not say what the network says: that would "
            "be noticed.",
            "The zero convolutions have to start at zero.",
        )
    target = before + 0.3 * sign
    optimizer, losses = torch.optim.Adam(parameters, lr=3e-3), []
    for _ in range(8):
        optimizer.zero_grad()
        loss = ((controlled(x, t) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        after = unet(x, t)
        taught = (controlled(x, t) - after).abs().max() / before.abs().max()
    moved = ((after - before).square().mean() / before.square().mean()).sqrt().item()
    if taught < 1e-4:
        raise Mistake(
            "Training does not reach the control: it still adds nothing. That would be noticed.",
            "Its parameters have to be among those that are trained.",
        )
    if moved < 1e-4:
        raise Mistake(
            "Not broken: after training the network without its control says what it said before.",
            "Your parameters are the control's alone. What if the network's were among them?",
        )
    return (
        f"Broken: in {len(losses)} steps the loss falls from {losses[0]:.3f} to {losses[-1]:.3f}, "
        f"and the network without its control has moved by {moved:.0%} of its size. The control "
        "now fits this network alone, and every other control that was made for the old one is "
        "off. `unet.requires_grad_(False)`, and an optimizer that gets `net.parameters()` only: "
        "either would do."
    )
