"""The U-Net that looks at a text beside diffusers' UNet2DConditionModel; what ControlNet costs.

- A training step and a call of the network, against diffusers'. ``their_unet`` has diffusers' own
  parts with the options of our blocks (GELU, biases of queries, keys and values), so that both
  sides have the same weights and compute the same numbers (``tests/parity`` checks it). What
  diffusers builds by default, with gated perceptrons, has more of them: that is told beside.
- ControlNet's overhead: time and memory of a training step, time of a sampling step, with it and
  without.
- The share that the text encoder takes of a sampling step.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._timing import milliseconds, report, training_step
from benchmarks.diffusion import in_resnets
from course_lib.attention import peak_bytes
from course_lib.data import SCENE_WORDS
from course_lib.diffusion import ControlledDiffusion, ControlNet, LatentDiffusion
from course_lib.latent import KLAutoencoder
from course_lib.nn import TextEncoder, UNet, WordTokenizer

SHAPE, WIDTHS, CONTEXT, LENGTH, HEADS = (4, 8, 8), (48, 96), 64, 12, 4
REPETITIONS = {64: 15, 4: 40}  # of a batch size
PAPER_TIME, PAPER_MEMORY = 34, 23  # per cent: Zhang et al. 2023, end of section 3.2, on one A100

# ------------------------------------------------------------------------ our U-Net in diffusers


def by_default(net: UNet) -> UNet2DConditionModel:
    """What diffusers builds with as many channels, blocks and heads as ``net`` has."""
    widths = [level.out_channels for level in net.down if isinstance(level, nn.Conv2d)]
    widths.append(net.middle[0].conv1.out_channels)
    return UNet2DConditionModel(
        sample_size=net.event_shape[1:],
        in_channels=net.event_shape[0],
        out_channels=net.event_shape[0],
        block_out_channels=widths,
        layers_per_block=(len(net.down) + 1) // len(widths) - 1,
        down_block_types=["CrossAttnDownBlock2D"] * len(widths),
        up_block_types=["CrossAttnUpBlock2D"] * len(widths),
        cross_attention_dim=net.context_dim,
        attention_head_dim=net.middle[
            1
        ].block.attention.heads,  # the number of heads, in spite of it
        use_linear_projection=True,
        norm_num_groups=net.norm.num_groups,
    )


def their_unet(net: UNet) -> UNet2DConditionModel:
    """The same U-Net in diffusers, with a copy of ``net``'s weights."""
    theirs = by_default(net)
    for module in theirs.modules():
        if hasattr(module, "transformer_blocks"):
            attention = module.transformer_blocks[0].attn1
            module.transformer_blocks[0] = their_block(
                attention.query_dim, attention.heads, net.context_dim
            )
            module.norm.eps = 1e-5
    theirs.load_state_dict(their_names(net, theirs))
    return theirs


def their_block(dim: int, heads: int, context_dim: int) -> BasicTransformerBlock:
    """Their transformer block with the parts that ours has."""
    return BasicTransformerBlock(
        dim,
        heads,
        dim // heads,
        cross_attention_dim=context_dim,
        activation_fn="gelu",
        attention_bias=True,
    )


def block_weights(block: nn.Module) -> dict[str, Tensor]:
    """The weights of our transformer block, under the names that they have in theirs."""
    ours = {
        "norm1": block.norm_1,
        "norm2": block.norm_cross,
        "norm3": block.norm_2,
        "attn1.to_out.0": block.attention.out,
        "attn2.to_q": block.cross.q,
        "attn2.to_out.0": block.cross.out,
        "ff.net.0.proj": block.mlp[0],
        "ff.net.2": block.mlp[2],
    }
    weights = named(ours)
    for key, value in block.attention.qkv.state_dict().items():
        for name, third in zip("qkv", value.chunk(3), strict=True):
            weights[f"attn1.to_{name}.{key}"] = third
    for key, value in block.cross.kv.state_dict().items():
        for name, half in zip("kv", value.chunk(2), strict=True):
            weights[f"attn2.to_{name}.{key}"] = half
    return weights


def named(parts: dict[str, nn.Module]) -> dict[str, Tensor]:
    """The weights of parts, each with its part's name before it."""
    return {
        f"{name}.{key}": value
        for name, part in parts.items()
        for key, value in part.state_dict().items()
    }


def their_names(net: UNet, theirs: UNet2DConditionModel) -> dict[str, Tensor]:
    """Our weights, under the names that they have in ``theirs``."""
    parts = {
        "conv_in": net.first,
        "time_embedding.linear_1": net.time.layers[0],
        "time_embedding.linear_2": net.time.layers[2],
        "conv_norm_out": net.norm,
        "conv_out": net.last,
    }
    looks = {}
    down, up = iter(net.down), iter(net.up)
    for i, block in enumerate(theirs.down_blocks):
        blocks = [next(down) for _ in block.resnets]
        parts |= in_resnets(f"down_blocks.{i}", block, iter(blocks))
        looks |= {f"down_blocks.{i}.attentions.{j}": b.look for j, b in enumerate(blocks)}
        if block.downsamplers:
            parts[f"down_blocks.{i}.downsamplers.0.conv"] = next(down)
    first, look, second = net.middle
    parts |= in_resnets("mid_block", theirs.mid_block, iter([first, second]))
    looks["mid_block.attentions.0"] = look
    for i, block in enumerate(theirs.up_blocks):
        blocks = [next(up) for _ in block.resnets]
        parts |= in_resnets(f"up_blocks.{i}", block, iter(blocks))
        looks |= {f"up_blocks.{i}.attentions.{j}": b.look for j, b in enumerate(blocks)}
        if block.upsamplers:
            parts[f"up_blocks.{i}.upsamplers.0.conv"] = next(up)
    weights = named(parts)
    for name, look in looks.items():
        sides = {"norm": look.norm, "proj_in": look.inwards, "proj_out": look.outwards}
        weights |= {f"{name}.{key}": value for key, value in named(sides).items()}
        for key, value in block_weights(look.block).items():
            weights[f"{name}.transformer_blocks.0.{key}"] = value
    return weights


# ------------------------------------------------------------------------------- the comparisons


@torch.no_grad()
def stirred(module: nn.Module) -> nn.Module:
    """The same module with weights of which none is 0 any more."""
    for parameter in module.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return module


def count(module: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def network() -> bool:
    """A training step and a call; whether ours is as fast as diffusers'."""
    ours = stirred(UNet(SHAPE, widths=WIDTHS, context_dim=CONTEXT, heads=HEADS))
    theirs, default = their_unet(ours), by_default(ours)
    sizes = {"ours": ours, "diffusers": theirs, "diffusers' default": default}
    for name, net in sizes.items():
        print(f"{name}: {count(net):,} parameters", flush=True)
    good = True
    for n in (64, 4):  # as trained; two prompts under guidance
        x, eps, t = torch.randn(n, *SHAPE), torch.randn(n, *SHAPE), 1000 * torch.rand(n)
        context, mask = torch.randn(n, LENGTH, CONTEXT), torch.arange(LENGTH) < 9
        mask = mask.expand(n, LENGTH)

        def of_theirs(x: Tensor, net: nn.Module, t=t, context=context, mask=mask) -> Tensor:
            return net(x, t, context, encoder_attention_mask=mask).sample

        calls = {
            "ours": partial(ours, t=t, context=context, mask=mask),
            "diffusers": partial(of_theirs, net=theirs),
            "default": partial(of_theirs, net=default),
        }
        nets = dict(zip(calls, sizes.values(), strict=True))
        steps = {
            name: training_step(
                nets[name], lambda x, call=call, eps=eps: F.mse_loss(call(x), eps), x
            )
            for name, call in calls.items()
        }
        what = f"UNet({SHAPE}, widths={WIDTHS}, context_dim={CONTEXT}), batch {n}"
        good &= report(
            f"{what}, a training step", milliseconds(steps, repetitions=REPETITIONS[n], warm_up=2)
        )
        with torch.no_grad():
            forward = {name: partial(call, x) for name, call in calls.items()}
            good &= report(f"{what}, a call", milliseconds(forward, repetitions=2 * REPETITIONS[n]))
    return good


def latent_model() -> LatentDiffusion:
    """As large as the stored one, and with weights that are not 0."""
    encoder = TextEncoder(WordTokenizer(SCENE_WORDS, length=LENGTH), dim=CONTEXT)
    unet = UNet(SHAPE, widths=WIDTHS, context_dim=CONTEXT, heads=HEADS, scale=1000.0)
    model = LatentDiffusion(KLAutoencoder((3, 32, 32), channels=4, factor=4), unet, encoder)
    stirred(model.denoiser)
    return model


PROMPTS = ["a thin red 3 above a bold blue 7", "a bold green 4 in the middle"]


def step_bytes(step: Callable[[], None], *modules: nn.Module) -> int:
    """Bytes of weights, and of all that a first training step makes and holds at one moment.

    So that gradients and the optimiser's moments are among them.
    """
    weights = {p.data_ptr(): p.nbytes for module in modules for p in module.parameters()}
    return sum(weights.values()) + peak_bytes(step)


def control() -> bool:
    """ControlNet's overhead beside the paper's. Nothing to fail: what it is, is told.

    With E and D for a forward pass of the way down and of the way up, and a backward pass as twice
    a forward pass, half of it for the weights: without, a step takes 3 E + 3 D; with, the locked
    way down takes E, the copy 3 E, and the locked way up 2 D, its weights needing no gradient.
    """
    free, locked = latent_model(), latent_model()
    net = stirred(ControlNet(locked.model, 1))
    controlled = ControlledDiffusion(locked, net)
    n = 64
    x, condition = 2 * torch.rand(n, 3, 32, 32) - 1, (torch.rand(n, 1, 32, 32) > 0.8).float()
    y = locked.text_encoder.tokenizer(PROMPTS).repeat(n // 2, 1)

    def with_control(x: Tensor) -> Tensor:
        return controlled.loss(x, y, condition)

    def without(x: Tensor) -> Tensor:
        return free.loss(x, y)

    steps = {
        "without": training_step(free.denoiser, without, x),
        "with": training_step(net, with_control, x),
    }
    bytes_of = {
        "without": step_bytes(steps["without"], free),
        "with": step_bytes(steps["with"], locked, net),
    }
    more = overhead(
        f"a training step, batch {n}", milliseconds(steps, repetitions=REPETITIONS[n], warm_up=2)
    )
    memory = 100 * (bytes_of["with"] / bytes_of["without"] - 1)
    print(f"  memory: {bytes_of['without'] / 2**20:.1f} and {bytes_of['with'] / 2**20:.1f} MiB")
    print(f"  time {more:+.0f} % (the paper's: +{PAPER_TIME} %), ", end="")
    print(f"memory {memory:+.0f} % (the paper's: +{PAPER_MEMORY} %)", flush=True)

    few = condition[: len(PROMPTS)]
    states = {
        "without": endless(free),
        "with": endless(locked, [(net, few, 1.0)]),
    }
    with torch.no_grad():
        sampling = {name: side.__next__ for name, side in states.items()}
        more = overhead("a sampling step, 2 prompts", milliseconds(sampling, repetitions=60))
    print(f"  time {more:+.0f} %", flush=True)
    return True


def endless(model: LatentDiffusion, controls: Sequence[tuple] = ()) -> Iterator[Tensor]:
    """One state of the sampler after the other, run after run, without the noise at the start."""
    while True:
        states = model.states(PROMPTS, steps=12, controls=controls)
        next(states)
        yield from states


def overhead(what: str, medians: dict[str, float]) -> float:
    """Print both; how much more time the second takes, in per cent."""
    print(f"ControlNet, {what}:", flush=True)
    for name, value in medians.items():
        print(f"  {name:12s} {value:9.3f} ms", flush=True)
    return 100 * (medians["with"] / medians["without"] - 1)


@torch.no_grad()
def text() -> bool:
    """The share of the text encoder in a sampling step."""
    model = latent_model()
    y = model.text_encoder.tokenizer([*PROMPTS, "", ""])  # under guidance each prompt comes twice
    sides = {"step": endless(model).__next__, "text": partial(model.text_encoder, y)}
    medians = milliseconds(sides, repetitions=100)
    print(f"A sampling step of {len(PROMPTS)} prompts: {medians['step']:.3f} ms, of which the text")
    print(f"  encoder {medians['text']:.3f} ms, {100 * medians['text'] / medians['step']:.0f} %")
    return True


def main() -> int:
    """Run all; 1 where our network is slower than diffusers'."""
    torch.manual_seed(0)
    results = [part() for part in (network, control, text)]
    return 0 if all(results) else 1
