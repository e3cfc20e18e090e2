"""Exercises of chapter 14: rectangles, two streams, blocks at their start, logits, times."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.diffusion import (
    RectifiedFlow,
    logit_normal_density,
    logit_normal_times,
    shift_times,
)
from course_lib.exercises.attempt import Attempt, Mistake, fresh_seed, take_number, take_results
from course_lib.exercises.draws import between, rand, randn
from course_lib.exercises.formula import Wrong, formula, usual
from course_lib.exercises.registry import exercise
from course_lib.nn import JointAttention, MMDiT, MMDiTBlock, patchify, unpatchify

__all__ = [
    "arctan_normal_density",
    "cut_rectangles",
    "glue_rectangles",
    "mean_entropy",
    "one_way_attention",
    "reshift_times",
    "weight_of_x0",
]


# --- Rectangles, and back ------------------------------------------------------------------------


def cut_rectangles(x: Tensor, p: int, q: int) -> Tensor:
    """Images ``[B, C, H, W]`` in rectangles p high and q wide: ``[B, H/p · W/q, p q C]``.

    Rectangles stand row by row, and in each its places row by row, with all channels of a place
    beside each other.
    """
    grid = x.unflatten(3, (-1, q)).unflatten(2, (-1, p))  # [B, C, H/p, p, W/q, q]
    return grid.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def glue_rectangles(tokens: Tensor, p: int, q: int, rows: int) -> Tensor:
    """``cut_rectangles`` undone: ``[B, C, H, W]`` of ``rows`` rows of rectangles."""
    grid = tokens.unflatten(1, (rows, -1)).unflatten(3, (p, q, -1))  # [B, H/p, W/q, p, q, C]
    return grid.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


_SIX = (
    "Split both sides first: [B, C, H/p, p, W/q, q]. Then it is a matter of the order of six axes: "
    "a token's place is (H/p, W/q), and what it holds is (p, q, C)."
)
_NO_RESHAPE = (
    "`reshape` keeps the order of the numbers in memory, where a whole row of the image follows "
    "another: axes must be exchanged (`permute`) in between."
)


def _cut(order: tuple[int, ...], tokens: int = 2) -> Callable[[Tensor, int, int], Tensor]:
    """An answer by its order of the axes (B, C, H/p, p, W/q, q)."""

    def answer(x: Tensor, p: int, q: int) -> Tensor:
        grid = x.unflatten(3, (-1, q)).unflatten(2, (-1, p)).permute(order)
        return grid.flatten(3).flatten(1, tokens)

    return answer


def _cut_far(x: Tensor, p: int, q: int) -> Tensor:
    grid = x.unflatten(3, (q, -1)).unflatten(2, (p, -1))  # [B, C, p, H/p, q, W/q]
    return grid.permute(0, 3, 5, 2, 4, 1).flatten(3).flatten(1, 2)


def _shape_of_tokens(x: Tensor, p: int, q: int) -> tuple[int, int, int]:
    batch, channels, height, width = x.shape
    return batch, height // p * (width // q), p * q * channels


# fmt: off
_CUT_WRONG = [
    Wrong(lambda x, p, q: x.reshape(_shape_of_tokens(x, p, q)), "Your tokens are stretches of the "
          "image as it lies in memory: the shape is right, no token is a rectangle.", _NO_RESHAPE),
    Wrong(lambda x, p, q: x.movedim(1, -1).reshape(_shape_of_tokens(x, p, q)), "Your channels are "
          "last, but your tokens are stretches of rows, no rectangles.", _NO_RESHAPE),
    Wrong(_cut((0, 2, 4, 1, 3, 5)), "Your channels come first in a token, [C, p, q], as in the "
          "library: here all channels of a place stand beside each other.", _SIX),
    Wrong(_cut((0, 2, 4, 3, 1, 5)), "Your token is [p, C, q]: asked for is [p, q, C].", _SIX),
    Wrong(_cut((0, 2, 4, 5, 3, 1)), "The places of your rectangle stand column by column, "
          "[q, p, C].", _SIX),
    Wrong(_cut((0, 4, 2, 3, 5, 1)), "Your rectangles stand column by column: the first ones are "
          "to be those of the first row.", _SIX),
    Wrong(_cut((0, 4, 2, 5, 3, 1)), "Your rectangles stand column by column, and the places in "
          "each, too: you cut the transposed image.", _SIX),
    Wrong(lambda x, p, q: cut_rectangles(x, q, p), "Your rectangles are q high and p wide.",
          "p belongs to the height."),
    Wrong(lambda x, p, q: cut_rectangles(x, p, p) if x.shape[3] % p == 0 else x, "You cut squares "
          "of p: q is the width.", "p belongs to the height, q to the width."),
    Wrong(_cut_far, "Your token holds places that are far from each other: you split H into "
          "(p, H/p), not into (H/p, p).", _SIX),
    Wrong(_cut((0, 2, 3, 4, 5, 1)), "You flatten [H/p, p] into the token's place: your tokens are "
          "rows of rectangles.", _SIX),
    Wrong(lambda x, p, q: cut_rectangles(x.flip(1), p, q), "Your channels stand in reverse "
          "order.", ""),
]
# fmt: on


def _draw_images(generator: torch.Generator) -> list[tuple[Tensor, int, int]]:
    sizes = (((2, 3, 6, 12), 2, 3), ((3, 2, 12, 6), 3, 2), ((2, 4, 8, 8), 2, 4))
    return [(randn(*shape, generator=generator), p, q) for shape, p, q in sizes]


formula(
    "14.patchify",
    task="Write `cut`: images x [B, C, H, W] as tokens [B, H/p · W/q, p q C] that are rectangles, "
    "p high and q wide. Rectangles stand row by row; in each its places stand row by row, and all "
    "channels of a place beside each other (the order is [p, q, C]). p divides H, q divides W.",
    signature="cut(x, p, q) -> tokens",
    solution=[cut_rectangles, patchify],
    hints=[
        "Which pixel is the second number of the first token? And the (C + 1)-th?",
        _SIX,
        "`x.unflatten(3, (-1, q)).unflatten(2, (-1, p))`, then `permute`, then flatten twice.",
    ],
    right=cut_rectangles,
    inputs=_draw_images,
    result="tokens",
    axes="[B, C, H, W], _, _ -> [B, N, numbers]",
    wrong=_CUT_WRONG,
    hint=_SIX,
    otherwise=("Your tokens are not the rectangles.", _SIX),
    passes="Each token is one rectangle, place by place. To a linear layer behind it the order "
    "inside of a token is all the same, if it is the same always; but trained weights know one.",
)


def _glue(order: tuple[int, ...]) -> Callable[[Tensor, int, int, int], Tensor]:
    """An answer by its order of the axes (B, H/p, W/q, p, q, C)."""

    def answer(tokens: Tensor, p: int, q: int, rows: int) -> Tensor:
        grid = tokens.unflatten(1, (rows, -1)).unflatten(3, (p, q, -1)).permute(order)
        return grid.reshape(_shape_of_image(tokens, p, q, rows))

    return answer


def _shape_of_image(tokens: Tensor, p: int, q: int, rows: int) -> tuple[int, int, int, int]:
    batch, n, numbers = tokens.shape
    return batch, numbers // (p * q), rows * p, n // rows * q


def _glue_channels_first(tokens: Tensor, p: int, q: int, rows: int) -> Tensor:
    grid = tokens.unflatten(1, (rows, -1)).unflatten(3, (-1, p, q))
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def _glue_columns(tokens: Tensor, p: int, q: int, rows: int) -> Tensor:
    grid = tokens.unflatten(1, (-1, rows)).unflatten(3, (p, q, -1))  # [B, W/q, H/p, p, q, C]
    return grid.permute(0, 5, 2, 3, 1, 4).flatten(4).flatten(2, 3)


def _glue_transposed_inside(tokens: Tensor, p: int, q: int, rows: int) -> Tensor:
    grid = tokens.unflatten(1, (rows, -1)).unflatten(3, (q, p, -1))
    return grid.permute(0, 5, 1, 4, 2, 3).flatten(4).flatten(2, 3)


def _glue_in_rows(tokens: Tensor, p: int, q: int, rows: int) -> Tensor:
    batch, channels, height, width = _shape_of_image(tokens, p, q, rows)
    return tokens.reshape(batch, height, width, channels).movedim(-1, 1)


# fmt: off
_GLUE_WRONG = [
    Wrong(lambda tokens, p, q, rows: tokens.reshape(_shape_of_image(tokens, p, q, rows)), "You "
          "reshape the tokens as they lie in memory: the shape is right, the image is not.",
          _NO_RESHAPE),
    Wrong(_glue_in_rows, "You write the tokens one behind the other along the image's rows: a "
          "rectangle has p rows.", _NO_RESHAPE),
    Wrong(_glue((0, 5, 3, 1, 4, 2)), "You interleave the other way round, (p, H/p) and (q, W/q): "
          "neighbours of a rectangle are far apart in your image.", _SIX),
    Wrong(_glue_channels_first, "You read a token as [C, p, q]: its order is [p, q, C].", _SIX),
    Wrong(_glue_columns, "You lay the rectangles column by column.", _SIX),
    Wrong(_glue_transposed_inside, "You read a rectangle column by column, as [q, p, C].", _SIX),
    Wrong(lambda tokens, p, q, rows: glue_rectangles(tokens, q, p, rows), "Your rectangles are q "
          "high and p wide.", "p belongs to the height."),
    Wrong(lambda tokens, p, q, rows: glue_rectangles(tokens, p, q, tokens.shape[1] // rows),
          "You take the number of rows for the number of columns.", _SIX),
    Wrong(lambda tokens, p, q, rows: glue_rectangles(tokens, p, q, rows).mT, "Your image is "
          "transposed.", ""),
    Wrong(lambda tokens, p, q, rows: glue_rectangles(tokens, p, q, rows).movedim(1, -1),
          "Your channels are the last axis of the image: [B, C, H, W] is asked for.", _SIX),
]
# fmt: on

formula(
    "14.unpatchify",
    task="Write `glue`, which undoes `cut`: tokens [B, N, p q C] are rectangles, p high and q "
    "wide, in `rows` rows, row by row; a token's order is [p, q, C]. Give the images [B, C, H, W].",
    signature="glue(tokens, p, q, rows) -> x",
    solution=[glue_rectangles, unpatchify],
    hints=[
        "How many columns of rectangles are there, and how many channels? Both can be counted.",
        _SIX,
        "`tokens.unflatten(1, (rows, -1)).unflatten(3, (p, q, -1))` has the axes [B, H/p, W/q, p, "
        "q, C].",
    ],
    right=glue_rectangles,
    inputs=lambda generator: [
        (cut_rectangles(x, p, q), p, q, x.shape[2] // p) for x, p, q in _draw_images(generator)
    ],
    result="x",
    axes="[B, N, numbers], _, _, _ -> [B, C, H, W]",
    wrong=_GLUE_WRONG,
    hint=_SIX,
    otherwise=("Your x is not the image that the tokens were cut from.", _SIX),
    passes="Cut and glued, an image is what it was. The number of rows has to be told: 12 tokens "
    "may be 3 × 4 or 2 × 6, and nothing in them says which. So a transformer needs positions.",
)


# --- Two streams, one way ------------------------------------------------------------------------


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √d) V over the keys where ``seen``, which fits the logits, is True."""
    logits = q @ k.mT / q.shape[-1] ** 0.5
    return logits.masked_fill(~seen, -math.inf).softmax(-1) @ v


def one_way_attention(image: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Joint attention in which text does not look at the image.

    Args:
        image: Q, K and V of the image's tokens, ``[3, B, heads, N, d]``.
        text: Those of the text's tokens, ``[3, B, heads, L, d]``.
        mask: Which of the text's tokens are words, bool ``[B, L]``.

    Returns:
        What the image's tokens take, ``[B, heads, N, d]``, and the text's, ``[B, heads, L, d]``.

    """
    words = mask[:, None, None]  # [B, 1, 1, L]
    q, k, v = image
    q_text, k_text, v_text = text
    both_k, both_v = torch.cat([k, k_text], 2), torch.cat([v, v_text], 2)
    seen = torch.cat([words.new_ones(*words.shape[:-1], k.shape[2]), words], -1)
    return attend(q, both_k, both_v, seen), attend(q_text, k_text, v_text, words)


_BLOCKS = (
    "Of the four blocks of logits, text to image is closed. An image's token has one softmax over "
    "image and words together; a text's token has one over the words."
)
_ONE_SOFTMAX = (
    "Weights of a row sum to 1 over image and words together: put keys (and values) behind each "
    "other before the softmax."
)

_Joint = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _joint(
    for_image: Callable[..., Tensor] | None = None,
    for_text: Callable[..., Tensor] | None = None,
) -> _Joint:
    """An answer by its two parts of (q, k, v, those of the text, words)."""

    def answer(image: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        o_image, o_text = one_way_attention(image, text, mask)
        parts = (*image, *text, mask[:, None, None])
        return (
            o_image if for_image is None else for_image(*parts),
            o_text if for_text is None else for_text(*parts),
        )

    return answer


def _all(q: Tensor) -> Tensor:
    """A mask of an image's tokens that hides none: ``[B, 1, 1, N]``."""
    return torch.ones(len(q), 1, 1, q.shape[2], dtype=torch.bool)


def _own(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> Tensor:
    return attend(q, k, v, _all(k))


def _words(q: Tensor, k: Tensor, v: Tensor, q_c: Tensor, k_c: Tensor, v_c: Tensor,
           words: Tensor) -> Tensor:  # fmt: skip
    return attend(q, k_c, v_c, words)


def _both(q: Tensor, k: Tensor, v: Tensor, k_c: Tensor, v_c: Tensor, words: Tensor) -> Tensor:
    seen = torch.cat([_all(k), words], -1)
    return attend(q, torch.cat([k, k_c], 2), torch.cat([v, v_c], 2), seen)


def _scaled(factor: Callable[[int], float]) -> _Joint:
    """The right answer, with logits that are multiplied once more."""

    def answer(image: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        by = torch.tensor([factor(image.shape[-1]), 1.0, 1.0]).reshape(3, 1, 1, 1, 1)
        return one_way_attention(by * image, by * text, mask)

    return answer


def _over_queries(image: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    q, k, v = image
    q_c, k_c, v_c = text
    words = mask[:, None, None]
    k, v, seen = torch.cat([k, k_c], 2), torch.cat([v, v_c], 2), torch.cat([_all(k), words], -1)
    parts = []
    for queries, keys, values, shown in ((q, k, v, seen), (q_c, k_c, v_c, words)):
        p = (queries @ keys.mT / q.shape[-1] ** 0.5).softmax(-2) * shown
        parts.append(p @ values)
    return parts[0], parts[1]


# fmt: off
_JOINT_WRONG = [
    Wrong(_joint(for_text=lambda q, k, v, q_c, k_c, v_c, w: _both(q_c, k, v, k_c, v_c, w)),
          "Your text looks at the image, too: that is joint attention as it is in SD3.", _BLOCKS),
    Wrong(_joint(for_image=_own), "Your image does not look at the text.", _BLOCKS),
    Wrong(_joint(for_image=_words), "Your image looks at the text alone: that is cross-attention.",
          _BLOCKS),
    Wrong(_joint(for_image=lambda *p: _own(*p) + _words(*p)), "You add two attentions: the weights "
          "of an image's token sum to 2.", _ONE_SOFTMAX),
    Wrong(_joint(for_image=lambda *p: (_own(*p) + _words(*p)) / 2), "You average two attentions: "
          "image and words get one half each, whatever the logits say.", _ONE_SOFTMAX),
    Wrong(lambda x, c, m: one_way_attention(x, c, torch.ones_like(m)), "You leave the mask out: "
          "padding is no word.", ""),
    Wrong(lambda x, c, m: (one_way_attention(x, c, m)[0],
          one_way_attention(x, c, torch.ones_like(m))[1]), "Your text's tokens look at padding.",
          "The mask belongs to the words, whoever looks at them."),
    Wrong(lambda x, c, m: (one_way_attention(x, c, torch.ones_like(m))[0],
          one_way_attention(x, c, m)[1]), "Your image's tokens look at padding.",
          "The mask belongs to the words, whoever looks at them."),
    Wrong(lambda x, c, m: one_way_attention(x, c, ~m), "Your mask is the other way round: True is "
          "what may be looked at.", ""),
    Wrong(lambda x, c, m: one_way_attention(x, c, m[:1].expand_as(m)), "All examples get the first "
          "one's mask.", "`mask[:, None, None]` is [B, 1, 1, L], as the logits' axes are."),
    Wrong(_joint(for_image=lambda q, k, v, q_c, k_c, v_c, w: attend(q, torch.cat([k, k_c], 2),
          torch.cat([v_c, v], 2), torch.cat([_all(k), w], -1))), "Your keys and values stand in "
          "different orders: a token's weight falls on another one's value.", ""),
    Wrong(_joint(for_image=lambda q, k, v, q_c, k_c, v_c, w: attend(q, torch.cat([k_c, k], 2),
          torch.cat([v_c, v], 2), torch.cat([_all(k), w], -1))), "Your mask's order is not that of "
          "your keys: text stands first in one, the image in the other.", ""),
    Wrong(_joint(for_text=lambda q, k, v, q_c, k_c, v_c, w: attend(q_c, k, v, _all(k))), "Your "
          "text looks at the image alone.", _BLOCKS),
    Wrong(_scaled(lambda d: d**0.5), "You don't divide the logits by √d.", ""),
    Wrong(_scaled(lambda d: d**-0.5), "You divide the logits by d: by its root.", ""),
    Wrong(_over_queries, "Your softmax runs over the queries.", "Over the keys, the last axis of "
          "the logits."),
    Wrong(_joint(for_image=lambda q, k, v, q_c, k_c, v_c, w: _both(q, k, v, k_c * w.mT, v_c * w.mT,
          torch.ones_like(w))), "You make padding's keys and values 0, but e⁰ = 1 still stands "
          "below the line of the image's softmax.", "A hidden key's logit is −∞."),
]
# fmt: on


def _draw_streams(generator: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor]]:
    cases = []
    for batch, heads, n, length, d in ((3, 2, 4, 6, 5), (4, 4, 4, 5, 3), (2, 3, 6, 4, 4)):
        image = 1.5 * randn(3, batch, heads, n, d, generator=generator)
        text = 1.5 * randn(3, batch, heads, length, d, generator=generator)
        mask = torch.rand(batch, length, generator=generator) < 0.5
        mask[:, :2], mask[:, -1] = True, False
        mask[0, -1], mask[0, 1] = True, False  # padding is not always at the end
        cases.append((image, text, mask))
    return cases


formula(
    "14.joint_attention",
    task="Write `one_way`: joint attention of two streams in which the image looks at the image "
    "and at the words, in one softmax, and every token of the text looks at the words alone (so "
    "that it could be computed once for all steps). image [3, B, heads, N, d] holds Q, K and V, "
    "text [3, B, heads, L, d], too; mask [B, L] is True at words. Logits are divided by √d.",
    signature="one_way(image, text, mask) -> o_image, o_text",
    solution=[one_way_attention, attend, JointAttention.forward],
    hints=[
        "Draw the logits as four blocks. Which of them is closed?",
        _BLOCKS,
        "`torch.cat([k, k_text], 2)`, values in the same order, and a mask of [B, 1, 1, N + L].",
    ],
    right=one_way_attention,
    inputs=_draw_streams,
    result=["o_image", "o_text"],
    axes="[3, B, heads, N, d], [3, B, heads, L, d], [B, L] -> [B, heads, N, d], [B, heads, L, d]",
    wrong=_JOINT_WRONG,
    hint=_BLOCKS,
    otherwise={
        "o_image": ("Your o_image is not the attention to image and words.", _BLOCKS),
        "o_text": ("Your o_text is not the attention to the words.", _BLOCKS),
    },
    passes="Three of four blocks are open. Your text is the same whatever the image is, as that of "
    "a cross-attention; SD3 opens the fourth block: what a word means may depend on what is being "
    "drawn.",
)


# --- AdaLN-zero at its start ---------------------------------------------------------------------

_GROUPS = "ABCDEFGH"
_GATE = (
    "A branch is multiplied by its gate, and a product's gradient by one factor is the other: "
    "where the gate is 0, nothing comes back into the branch, but something comes to the gate. The "
    "same holds for a last layer whose weights are 0."
)


def _parts(net: MMDiT) -> list[list[nn.Parameter]]:
    """The parameters of each group."""

    def of(*modules: nn.Module) -> list[nn.Parameter]:
        return [value for module in modules for value in module.parameters()]

    return [
        of(*(block.modulation for block in net.blocks)),
        of(*(block.attention for block in net.blocks)),
        of(*(block.mlp for block in net.blocks)),
        of(net.modulation),
        of(net.out),
        of(net.patches),
        of(net.time),
        of(net.words),
    ]


def _zero_groups(generator: torch.Generator, steps: int) -> list[str]:
    """The groups whose gradients are all exactly zero, at each of so many steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fresh_seed(generator))
        net = MMDiT((2, 4, 4), patch=2, dim=16, depth=2, heads=2, context_dim=6)
    x, target = (randn(3, 2, 4, 4, generator=generator) for _ in range(2))
    context, t = randn(3, 5, 6, generator=generator), rand(0.1, 0.9, 3, generator=generator)
    found = []
    for _ in range(steps):
        net.zero_grad()
        (net(x, t, context=context) - target).square().mean().backward()
        found.append(
            "".join(
                letter
                for letter, part in zip(_GROUPS, _parts(net), strict=True)
                if not any(value.grad is not None and value.grad.any() for value in part)
            )
        )
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
    return found


def _take_groups(answer: Any) -> tuple[str, str]:
    if not isinstance(answer, str):
        if isinstance(answer, bool | int | float):
            take_number(answer, 'Two words, like "AB; C".', low=math.inf, subject="the answer")
        raise Mistake(
            f"You gave a {type(answer).__name__}; two words of letters are asked for.",
            'Like "AB; C", first step and second.',
        )
    words = answer.upper().replace(",", " ").replace(";", " ; ").strip(" .")
    words = words.split(";") if ";" in words else words.split()
    words = ["".join(sorted(set(word) - {" "})) for word in words]
    words = ["" if word in ("ENO", "-") else word for word in words]  # "none"
    if len(words) != 2 or not set("".join(words)) <= set(_GROUPS):
        shown = answer if len(answer) < 30 else "another text"
        raise Mistake(
            f'You gave "{shown}"; two words of the letters A to H are asked for.',
            'Like "AB; C", first step and second.',
        )
    return words[0], words[1]


def _judge_groups(got: str, right: str, step: int, first: str) -> None:
    """Name what is wrong with the letters of a step, if anything is."""
    if got == right:
        return
    missing, extra = set(right) - set(got), set(got) - set(right)
    if got == _GROUPS:
        reason = "If every gradient were zero, nothing would ever be trained."
    elif step == 1:
        if "E" in extra:
            reason = (
                "The last layer's weights are 0, but not their gradient: what it sees is not 0."
            )
        elif not got:
            reason = "At the first step some gradients are zero: the last layer's weights are 0."
        elif "D" in missing:
            reason = "The last modulation stands in front of a layer whose weights are 0."
        elif {"A", "F"} <= missing or "F" in missing:
            reason = (
                "A block hands its tokens on unchanged, but behind the blocks is a last layer with "
                "weights of 0: at the first step nothing comes back through it."
            )
        else:
            reason = "At the first step nothing comes back through a last layer of weights 0."
    elif got == first:
        reason = "After a step the last layer is not 0 any more: something comes back through it."
    elif {"A", "D"} & extra:
        reason = "At the second step a modulation is 0 still, but a gradient comes to it."
    elif "F" in extra:
        reason = (
            "At the second step the patches' embedding is reached: a block's gate is 0, and x goes "
            "past it unchanged."
        )
    elif "E" in extra:
        reason = "The last layer goes on learning at the second step."
    elif {"B", "C"} & missing:
        reason = (
            "At the second step the gates are 0 still: at the first they got no gradient. What is "
            "in the branches behind a gate of 0?"
        )
    elif "G" in missing:
        reason = (
            "The time reaches the image through modulations alone, and at the second step their "
            "weights are 0 still."
        )
    else:
        reason = (
            "The words reach the image through attention alone, and at the second step its gates "
            "are 0 still."
        )
    raise Mistake(reason, _GATE)


@exercise(
    "14.adaln_zero_start",
    task="Predict: an MMDiT before its first step. A: the blocks' modulations (from time and text "
    "to shift, scale and gate), B: their attention, C: their perceptrons, D: the last modulation, "
    "E: the last layer, F: the patches' embedding, G: the time's embedding, H: the words' "
    "embedding (the tokens of the text's stream). A, D and E start at 0. In which groups are all "
    "gradients exactly zero at the first step? And at the second, behind one step of gradient "
    'descent? Write the letters of both, like "AB; C".',
    solution=[MMDiTBlock, MMDiT],
    hints=[
        "Go backwards from the loss. What does a layer with W = 0 send back? And what comes to W?",
        _GATE,
        "At the first step only the last layer learns. Then what stands beside the blocks' "
        "branches is reached: the gates, and past them the patches. The branches come third.",
    ],
)
def _check_adaln_zero_start(answer: Any, generator: torch.Generator) -> str:
    first, second = _take_groups(answer)
    measured = _zero_groups(generator, steps=3)
    _judge_groups(first, measured[0], 1, "")
    _judge_groups(second, measured[1], 2, measured[0])
    return (
        f"Autograd says the same: exactly zero are {', '.join(measured[0])} at the first step, "
        f"{', '.join(measured[1])} at the second, and at the third "
        f"{', '.join(measured[2]) or 'none'}. The network opens from its end: the last layer, then "
        "the gates, then what is behind them. Nothing is stuck, and until a block has something "
        "to say it says nothing."
    )


# --- Logits without a norm -----------------------------------------------------------------------

_HALF = torch.finfo(torch.float16).max  # 65,504
_DEAD = 0.05  # of log N
_GROW = (
    "Logits are products: with c on both sides they grow by c². Float16 ends at 65,504. The "
    "largest |Q Kᵀ| (before the division by √d) says where."
)


def mean_entropy(q: Tensor, k: Tensor) -> Tensor:
    """The mean entropy of attention's rows, as a share of log N: 1 is uniform, 0 one key alone."""
    logits = q @ k.mT / q.shape[-1] ** 0.5
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean() / math.log(k.shape[-2])


def _let_through(q: Tensor, k: Tensor) -> float:
    """The mean over all logits of d p / d logit = p (1 − p)."""
    p = (q @ k.mT / q.shape[-1] ** 0.5).double().softmax(-1)
    return (p * (1 - p)).mean().item()


@exercise(
    "14.break_qk_norm",
    task="Break it: without QK-norm a high learning rate lets the weights of queries and keys "
    "grow. Write `two_factors`: from q and k [B, heads, N, d], of any size, two numbers c. If both "
    "are multiplied by `dead`, every product q·k (before it is divided by √d) is still inside of "
    "float16, but the mean entropy of the attention is below 5 % of log N: nearly each query takes "
    "one key alone. If both are multiplied by `overflow`, some "
    "product is too large for float16, though all of q and k is not.",
    signature="two_factors(q, k) -> dead, overflow",
    solution=[mean_entropy, JointAttention],
    hints=[
        "How do the products grow with c? Where does float16 end?",
        _GROW,
        "`largest = (q @ k.mT).abs().max()`: with c = (30,000 / largest)^½ the largest product is "
        "30,000.",
    ],
)
def _check_break_qk_norm(attempt: Attempt, generator: torch.Generator) -> str:
    for log_q, log_k in ((-2.0, -0.5), (0.0, 0.0), (1.0, 1.0)):
        q, k = (
            math.exp(log_size + between(-0.3, 0.3, generator))
            * randn(4, 4, 16, 64, generator=generator)
            for log_size in (log_q, log_k)
        )
        answer = take_results(("dead", "overflow"), attempt(q, k))
        dead, overflow = (
            take_number(
                number.detach() if isinstance(number, Tensor) else number,
                f"{name} is a number above 0.",
                low=1e-9,
                subject="a factor",
            )
            for name, number in zip(("dead", "overflow"), answer, strict=True)
        )
        largest = (q @ k.mT).abs().max().item()
        size = max(q.abs().max().item(), k.abs().max().item())
        if dead**2 * largest > _HALF:
            raise Mistake(
                f"With your `dead`, {dead:.3g}, the largest product is {dead**2 * largest:,.0f}: "
                "float16 is left already.",
                _GROW,
            )
        left = mean_entropy((dead * q).double(), (dead * k).double()).item()
        if left >= _DEAD:
            raise Mistake(
                f"Not dead: with your `dead`, {dead:.3g}, the mean entropy is {left:.1%} of log N.",
                _GROW,
            )
        if overflow * size > _HALF:
            raise Mistake(
                f"With your `overflow`, {overflow:.3g}, q or k itself leaves float16: their "
                "largest number is to stay inside.",
                _GROW,
            )
        if overflow**2 * largest <= _HALF * (1 + 2**-11):
            raise Mistake(
                f"Not broken: with your `overflow`, {overflow:.3g}, the largest product is "
                f"{overflow**2 * largest:,.0f}, and float16 holds it.",
                _GROW,
            )
    lost = ((overflow * q) @ (overflow * k).mT).half().isinf().double().mean().item()
    normed = [mean_entropy(*(F.rms_norm(c * x, x.shape[-1:]) for x in (q, k))) for c in (1, dead)]
    return (
        f"Broken twice. With {dead:.3g} on both sides nothing overflows, the entropy falls from "
        f"{mean_entropy(q, k):.0%} to {left:.2%} of log N, and of a change of the logits the "
        f"softmax lets {_let_through(dead * q, dead * k):.1e} through, where it was "
        f"{_let_through(q, k):.1e}: a training that looks healthy and hardly moves. With "
        f"{overflow:.3g} {lost:.1%} of the products are infinite in float16, and a softmax with ∞ "
        f"is NaN. With QK-norm the entropy is {normed[0]:.0%} before and {normed[1]:.0%} behind "
        "`dead`: a factor does nothing."
    )


# --- Another density of times --------------------------------------------------------------------


def arctan_normal_density(t: Tensor, m: float, s: float) -> Tensor:
    """The density of t = ½ + arctan(z) / π, z ~ N(m, s²), at ``t [n]`` between 0 and 1.

    z = tan(π (t − ½)), and dz/dt = π (1 + z²).
    """
    z = torch.tan(math.pi * (t - 0.5))
    normal = torch.exp(-0.5 * ((z - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))
    return normal * math.pi * (1 + z**2)


_CHANGE = (
    "π(t) = N(z(t); m, s²) · |dz/dt|, with z = tan(π (t − ½)), the inverse of the map; tan' is "
    "1 + tan²."
)


def _density(
    slope: Callable[[Tensor, Tensor], Tensor] = lambda t, z: math.pi * (1 + z**2),
    inverse: Callable[[Tensor], Tensor] = lambda t: torch.tan(math.pi * (t - 0.5)),
    normal: Callable[..., Tensor] = lambda z, m, s: (
        torch.exp(-0.5 * ((z - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))
    ),
) -> Callable[[Tensor, float, float], Tensor]:
    """An answer by its inverse of the map, the slope of that, and its density of z."""

    def answer(t: Tensor, m: float, s: float) -> Tensor:
        z = inverse(t)
        return normal(z, m, s) * slope(t, z)

    return answer


def _exponential(z: Tensor, m: float, s: float) -> Tensor:
    return torch.exp(-0.5 * ((z - m) / s) ** 2)


# fmt: off
_DENSITY_WRONG = [
    Wrong(_density(slope=lambda t, z: torch.ones_like(t)), "You leave out |dz/dt|: a density does "
          "not only move with its variable, it is stretched.", _CHANGE),
    Wrong(_density(slope=lambda t, z: 1 / (math.pi * (1 + z**2))), "You multiply by |dt/dz|: where "
          "the map squeezes, times lie closer, and the density is larger.", _CHANGE),
    Wrong(_density(slope=lambda t, z: 1 / (t * (1 - t))), "1 / (t (1 − t)) is the slope of the "
          "logit: this map is another one.", _CHANGE),
    Wrong(logit_normal_density, "That is the logit-normal density: this map is another one.",
          _CHANGE),
    Wrong(_density(slope=lambda t, z: 1 + z**2), "The factor π of dz/dt is missing.", _CHANGE),
    Wrong(_density(slope=lambda t, z: math.pi / (1 + z**2)), "1 / (1 + z²) is the slope of the "
          "arctan: that of the tan is 1 + z².", _CHANGE),
    Wrong(_density(slope=lambda t, z: math.pi * (1 + t**2)), "In dz/dt = π (1 + z²) you take t for "
          "z.", _CHANGE),
    Wrong(_density(inverse=lambda t: torch.tan(math.pi * t)), "Your z is tan(π t): z = 0 belongs "
          "to t = ½.", _CHANGE),
    Wrong(_density(inverse=lambda t: torch.tan(t - 0.5)), "Your z is tan(t − ½): the map divides "
          "by π.", _CHANGE),
    Wrong(_density(inverse=lambda t: 0.5 + torch.arctan(t) / math.pi), "You send t through the "
          "map: its inverse is asked for.", _CHANGE),
    Wrong(_density(normal=lambda z, m, s: _exponential(z, m, s) / math.sqrt(2 * math.pi)), "s is "
          "missing below the line: your density does not integrate to 1.", ""),
    Wrong(_density(normal=lambda z, m, s: _exponential(z, m, s) / s), "√(2π) is missing below the "
          "line.", ""),
    Wrong(_density(normal=lambda z, m, s: _exponential(z, m, s) / (2 * math.pi * s)), "You divide "
          "by 2π: by its root.", ""),
    Wrong(_density(normal=lambda z, m, s: _exponential(z, m, s) / (math.sqrt(2 * math.pi) * s**2)),
          "You divide by s²: by s.", ""),
    Wrong(lambda t, m, s: arctan_normal_density(t, m, math.sqrt(s)), "You take s for the variance: "
          "it is the standard deviation.", ""),
    Wrong(lambda t, m, s: arctan_normal_density(t, -m, s), "You add m to z: it is subtracted.", ""),
    Wrong(_density(normal=lambda z, m, s: _exponential(z, m, s)**2 / (s * math.sqrt(2 * math.pi))),
          "The ½ in the exponent is missing.", ""),
    usual("log", "You give the logarithm of the density."),
]
# fmt: on

formula(
    "14.logit_normal_density",
    task="Derive, and write `density`: that of times t = ½ + arctan(z) / π where z is normal with "
    "mean m and standard deviation s, at t [n] between 0 and 1.",
    signature="density(t, m, s) -> [n]",
    solution=[arctan_normal_density, logit_normal_density],
    hints=[
        "Which z belongs to t? How much z lies in a little bit of t?",
        _CHANGE,
        "`torch.exp(-0.5 * ((z - m) / s) ** 2) / (s * (2 * math.pi) ** 0.5)`, times "
        "`math.pi * (1 + z**2)`.",
    ],
    right=arctan_normal_density,
    inputs=lambda generator: [
        (
            rand(0.08, 0.92, 9, generator=generator),
            sign * between(0.4, 1.0, generator),
            between(low, high, generator),
        )
        for sign, low, high in ((1, 1.2, 1.8), (-1, 1.2, 1.8), (1, 0.6, 0.85))
    ],
    result="density",
    axes="[n], _, _ -> [n]",
    wrong=_DENSITY_WRONG,
    hint=_CHANGE,
    otherwise=("Your density is not that of these times.", _CHANGE),
    passes="Your density integrates to 1. It is 0 at both ends, as a logit-normal one is: a normal "
    "z falls faster than any 1 + z² grows. With a Cauchy z it would be uniform.",
)


# --- Weights in place of times -------------------------------------------------------------------


def weight_of_x0(t: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """w(t) such that E_q[w ‖x̂_0 − x_0‖²] is the loss of velocities at times of density p.

    x_t = (1 − t) x_0 + t x_1 is given: the velocity is (x_t − x_0) / t, so that its error is that
    of x_0, divided by t.

    Args:
        t: Times ``[n]``, drawn from the density q.
        p: The density that is wanted, at ``t``.
        q: The density that they were drawn from, at ``t``.

    """
    return p / (q * t**2)


_TWO_PARTS = (
    "Two things: E_p[f] = E_q[f p / q], and, as x_t is given, v = (x_t − x_0) / t: the error of v "
    "is that of x_0, divided by t."
)


# fmt: off
_WEIGHT_WRONG = [
    Wrong(lambda t, p, q: q / (p * t**2), "p / q is upside down: where too few times are drawn "
          "each has to count more.", _TWO_PARTS),
    Wrong(lambda t, p, q: p / t**2, "You don't divide by q: the times are not uniform.",
          _TWO_PARTS),
    Wrong(lambda t, p, q: 1 / (q * t**2), "p is missing: that is the loss at uniform times.",
          _TWO_PARTS),
    Wrong(lambda t, p, q: p * q / t**2, "You multiply by q: times that are drawn often have to "
          "count less.", _TWO_PARTS),
    Wrong(lambda t, p, q: p / q, "That would be right for a network that guesses v: here it "
          "guesses x_0.", _TWO_PARTS),
    Wrong(lambda t, p, q: 1 / t**2, "You turn x_0 into v, but leave the densities out.",
          _TWO_PARTS),
    Wrong(lambda t, p, q: p / (q * t), "The loss is a square: the error's factor 1/t counts with "
          "its square.", _TWO_PARTS),
    Wrong(lambda t, p, q: p * t**2 / q, "The error of v is larger than that of x_0, by 1/t.",
          _TWO_PARTS),
    Wrong(lambda t, p, q: p / (q * (1 - t) ** 2), "1 / (1 − t)² is for a network that guesses the "
          "noise x_1: here it guesses x_0.", _TWO_PARTS),
    Wrong(lambda t, p, q: p * (1 - t) ** 2 / (q * t**2), "(1 − t)² / t² turns x_0 into x_1: the "
          "loss is one of v.", _TWO_PARTS),
    Wrong(lambda t, p, q: p / (q * t**2) / (p / (q * t**2)).mean(), "You divide by the mean of the "
          "batch: then the weights depend on which other times were drawn.", _TWO_PARTS),
    Wrong(lambda t, p, q: p**2 / (q**2 * t**2), "The densities count once: only the error is "
          "squared.", _TWO_PARTS),
    Wrong(lambda t, p, q: (p / q).sqrt() / t, "That is the root: the weight stands before the "
          "square.", _TWO_PARTS),
    Wrong(lambda t, p, q: (p - q) / t**2, "You subtract densities: their quotient is asked for.",
          _TWO_PARTS),
    usual("log", "You give the logarithm of the weight."),
]
# fmt: on

formula(
    "14.loss_weight",
    task="Derive, and write `loss_weight`: a network guesses x_0 from x_t, and its times t [n] "
    "were drawn from a density q. With which weights w [n] is the mean of w ‖x̂_0 − x_0‖² the "
    "loss of velocities at times of the density p? You are given t, and p and q [n] at t.",
    signature="loss_weight(t, p, q) -> [n]",
    solution=[weight_of_x0, RectifiedFlow.loss],
    hints=[
        "How large is the velocity's error if x_0 is off by δ and x_t is given?",
        "How is a mean over times of p computed with times of q?",
        _TWO_PARTS,
    ],
    right=weight_of_x0,
    inputs=lambda generator: [
        tuple(
            rand(low, high, n, generator=generator) for low, high in ((0.1, 0.9), *2 * [(0.3, 2)])
        )
        for n in (7, 12)
    ],
    result="weight",
    axes="[n], [n], [n] -> [n]",
    tolerance=1e-3,
    wrong=_WEIGHT_WRONG,
    hint=_TWO_PARTS,
    otherwise=("Your weights do not make the loss of velocities.", _TWO_PARTS),
    passes="Your weighted loss has the same mean, so the same best network. Not the same noise: "
    "few and heavy times make gradients that differ more from step to step. That is why SD3 draws "
    "its times where it wants them, and weighs nothing.",
)


# --- Times for another size ----------------------------------------------------------------------


def reshift_times(t: Tensor, r: float, q: float) -> Tensor:
    """Times ``t [n]`` that are shifted for ``r`` times the pixels, as those for ``q`` times.

    The odds t / (1 − t) are multiplied by √r for r times the pixels: shifts form a group.
    """
    return shift_times(t, q / r)


_ODDS = (
    "A shift multiplies the odds t / (1 − t) by the root of the ratio. One back and one forth: by "
    "√q / √r."
)


# fmt: off
_SHIFT_WRONG = [
    Wrong(lambda t, r, q: shift_times(t, q), "You shift by q on top: t are shifted by r already.",
          _ODDS),
    Wrong(lambda t, r, q: shift_times(t, q * r), "You go the wrong way with r: it is undone.",
          _ODDS),
    Wrong(lambda t, r, q: shift_times(t, r / q), "q and r are exchanged: more pixels need more "
          "noise, later times.", _ODDS),
    Wrong(lambda t, r, q: shift_times(t, 1 / r), "You only undo the shift by r.", _ODDS),
    Wrong(lambda t, r, q: shift_times(t, (q / r)**2), "The root of the ratio is missing.", _ODDS),
    Wrong(lambda t, r, q: shift_times(t, math.sqrt(q / r)), "You take the root twice.", _ODDS),
    Wrong(lambda t, r, q: shift_times(t / math.sqrt(r), q), "You undo the shift as t / √r: it "
          "has a denominator.", _ODDS),
    Wrong(lambda t, r, q: shift_times(t, q / r**2), "You undo with r: the shift "
          "was by its root.", _ODDS),
    Wrong(lambda t, r, q: shift_times(t, q**2 / r), "In the second shift the root "
          "is missing.", _ODDS),
    Wrong(lambda t, r, q: (t * math.sqrt(q / r)).clamp(max=1), "You multiply t by the root: the "
          "odds are multiplied.", _ODDS),
    Wrong(lambda t, r, q: math.sqrt(q / r) * t / (1 + math.sqrt(q / r) * t), "Your denominator is "
          "1 + √(q/r) t: t = 1 would not stay 1.", _ODDS),
    Wrong(lambda t, r, q: math.sqrt(q / r) * t / (1 + (math.sqrt(q / r) - 1) * (1 - t)), "In your "
          "denominator stands 1 − t for t.", _ODDS),
    Wrong(lambda t, r, q: math.sqrt(q / r) * t / (1 + (q / r - 1) * t), "In your denominator the "
          "root is missing.", _ODDS),
    Wrong(lambda t, r, q: shift_times(t, math.exp(q - r)), "The ratio is q / r, not a difference.",
          _ODDS),
    Wrong(lambda t, r, q: 1 - shift_times(t, q / r), "Your time runs the other way.", ""),
]
# fmt: on

formula(
    "14.shift_times",
    task="Write `reshift`: times t [n] are shifted already, for images of r times as many pixels "
    "as those of the base. Give the times for images of q times the base's pixels. t may be 0 or "
    "1; r and q are numbers above 0.",
    signature="reshift(t, r, q) -> [n]",
    solution=[reshift_times, shift_times, logit_normal_times],
    hints=[
        "Undo the one shift, then do the other. Or is that one shift, too?",
        "Solve t' = √r t / (1 + (√r − 1) t) for t. Does the result look like a shift?",
        _ODDS,
    ],
    right=reshift_times,
    inputs=lambda generator: [
        (
            torch.cat([rand(0.15, 0.85, 7, generator=generator), torch.tensor([0.0, 1.0])]),
            between(2, 3, generator) ** power,
            between(5, 8, generator) ** power,
        )
        for power in (1, -1)
    ],
    result="t",
    axes="[n], _, _ -> [n]",
    wrong=_SHIFT_WRONG,
    hint=_ODDS,
    otherwise=("Your times are not those for q times the pixels.", _ODDS),
    passes="Shifts add up: in the logit of t each is a step of ½ log(ratio). So logit-normal times "
    "of mean m, shifted, are logit-normal times of mean m + ½ log(ratio), and you could draw those "
    "at once (`logit_normal_times`).",
)
