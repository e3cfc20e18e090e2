"""The block of Stable Diffusion 3's transformer beside diffusers' JointTransformerBlock.

Both sides have the same weights and compute the same numbers (``tests/parity`` checks it): a call,
and a call with its gradients, at the sizes of our model. Without a mask, which theirs doesn't take.
"""

from collections.abc import Callable
from functools import partial

import torch
from diffusers.models.attention import JointTransformerBlock
from torch import Tensor, nn

from benchmarks._timing import milliseconds, report
from benchmarks.latent_diffusion import named, stirred
from course_lib.nn import MMDiTBlock

DIM, HEADS, WORDS = 96, 4, 12
PATCHES = (16, 64)  # of latents [4, 8, 8] and [4, 16, 16]
REPETITIONS = {64: 100, 4: 300}  # of a batch size


def their_block(block: MMDiTBlock) -> JointTransformerBlock:
    """The same block in diffusers, with a copy of ``block``'s weights, in its precision."""
    attention = block.attention
    theirs = JointTransformerBlock(
        attention.dim,
        attention.heads,
        attention.dim // attention.heads,
        qk_norm="rms_norm" if attention.qk_norm else None,
    )
    theirs.load_state_dict(their_names(block))
    return theirs.to(attention.qkv[0].weight.dtype)


def their_names(block: MMDiTBlock) -> dict[str, Tensor]:
    """Our weights, under the names that they have in theirs."""
    attention, weights = block.attention, {}
    # Of image and text: AdaLN, perceptron, out, names of Q, K, V, norms of Q and K.
    streams = [
        ("norm1", "ff", "to_out.0", "to_{}", "norm_{}"),
        ("norm1_context", "ff_context", "to_add_out", "add_{}_proj", "norm_added_{}"),
    ]
    for i, (norm, mlp, out, linear, qk) in enumerate(streams):
        parts = {
            f"{norm}.linear": block.modulation[i],
            f"{mlp}.net.0.proj": block.mlp[i][0],
            f"{mlp}.net.2": block.mlp[i][2],
            f"attn.{out}": attention.out[i],
            f"attn.{qk.format('q')}": attention.norm_q[i],
            f"attn.{qk.format('k')}": attention.norm_k[i],
        }
        weights |= named(parts)
        for key, value in attention.qkv[i].state_dict().items():
            for name, third in zip("qkv", value.chunk(3), strict=True):
                weights[f"attn.{linear.format(name)}.{key}"] = third
    return weights


def with_gradients(call: Callable[[], tuple[Tensor, Tensor]], module: nn.Module) -> None:
    """A call of a block, and the gradients of its weights."""
    module.zero_grad()
    image, text = call()
    (image.sum() + text.sum()).backward()


def blocks() -> bool:
    """A call and its gradients; whether our block is as fast as diffusers'."""
    good = True
    ours = stirred(MMDiTBlock(DIM, HEADS))
    theirs = their_block(ours)
    for n, repetitions in REPETITIONS.items():
        for patches in PATCHES:
            image, text = torch.randn(n, patches, DIM), torch.randn(n, WORDS, DIM)
            c = torch.randn(n, DIM)
            calls = {
                "ours": partial(ours, image, text, c=c),
                "diffusers": partial(theirs, image, text, c),
            }
            both = {
                "ours": partial(with_gradients, calls["ours"], ours),
                "diffusers": partial(with_gradients, calls["diffusers"], theirs),
            }
            what = f"MMDiTBlock({DIM}, {HEADS}), batch {n}, {patches} + {WORDS} tokens"
            with torch.no_grad():
                good &= report(f"{what}, a call", milliseconds(calls, repetitions=repetitions))
            medians = milliseconds(both, repetitions=repetitions)
            good &= report(f"{what}, with its gradients", medians)
    return good


def main() -> int:
    """Run all; 1 where our block is slower than diffusers'."""
    torch.manual_seed(0)
    return 0 if blocks() else 1
