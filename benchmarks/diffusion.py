"""U-Net, DDPM and DDIM here beside diffusers: training, sampling, and what a sampler adds.

All sides of a comparison hold the same weights (``tests/parity`` checks that they compute the same
numbers). They take turns within one run, and what is compared is the median of many repetitions.

- A training step of DDPM against diffusers' UNet2DModel, its scheduler's ``add_noise`` and a mean
  squared error. Ours checks its input, its times and its noise, theirs does not.
- DDIM's sampling with that network and its scheduler's ``step``.
- A step of our samplers against a bare call of the network: what is beyond, at most ``SLACK``, is
  for checks, conversions and the step itself.
"""

from collections.abc import Iterator

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._timing import milliseconds, report, training_step
from course_lib.diffusion import DDPM, DiscreteSchedule, ddim_sample, ddpm_sample
from course_lib.nn import UNet

T = 1000
SLACK = 0.05
SIZES = (((1, 28, 28), (16, 32, 64)), ((1, 8, 8), (32, 64)))

# ------------------------------------------------------------------------ our U-Net in diffusers


def in_diffusers(net: UNet) -> UNet2DModel:
    """The same U-Net in diffusers, with a copy of ``net``'s weights."""
    widths = [level.out_channels for level in net.down if isinstance(level, nn.Conv2d)]
    widths.append(net.middle[0].conv1.out_channels)
    theirs = UNet2DModel(
        sample_size=net.event_shape[1:],
        in_channels=net.event_shape[0],
        out_channels=net.event_shape[0],
        block_out_channels=widths,
        layers_per_block=(len(net.down) + 1) // len(widths) - 1,
        down_block_types=["DownBlock2D"] * len(widths),
        up_block_types=["UpBlock2D"] * len(widths),
        attention_head_dim=None,  # one head
        norm_num_groups=net.norm.num_groups,
        dropout=net.middle[0].dropout.p,
        num_class_embeds=net.time.n_classes,
    )
    theirs.load_state_dict(their_names(net, theirs))
    return theirs


def their_names(net: UNet, theirs: UNet2DModel) -> dict[str, Tensor]:
    """Our weights, under the names that they have in ``theirs``."""
    ours = {
        "conv_in": net.first,
        "time_embedding.linear_1": net.time.layers[0],
        "time_embedding.linear_2": net.time.layers[2],
        "class_embedding": net.time.classes,
        "conv_norm_out": net.norm,
        "conv_out": net.last,
    }
    down, up = iter(net.down), iter(net.up)
    for i, block in enumerate(theirs.down_blocks):
        ours |= in_resnets(f"down_blocks.{i}", block, down)
        if block.downsamplers:
            ours[f"down_blocks.{i}.downsamplers.0.conv"] = next(down)
    first, attention, second = net.middle
    ours |= in_resnets("mid_block", theirs.mid_block, iter([first, second]))
    ours["mid_block.attentions.0.group_norm"] = attention.norm
    ours["mid_block.attentions.0.to_out.0"] = attention.out
    for i, block in enumerate(theirs.up_blocks):
        ours |= in_resnets(f"up_blocks.{i}", block, up)
        if block.upsamplers:
            ours[f"up_blocks.{i}.upsamplers.0.conv"] = next(up)
    weights = {
        f"{name}.{key}": value
        for name, part in ours.items()
        if part is not None
        for key, value in part.state_dict().items()
    }
    for key, value in attention.qkv.state_dict().items():
        for name, third in zip("qkv", value.chunk(3), strict=True):
            weights[f"mid_block.attentions.0.to_{name}.{key}"] = third
    return weights


def in_resnets(prefix: str, theirs: nn.Module, blocks: Iterator[nn.Module]) -> dict:
    """The parts of as many of our residual blocks as ``theirs`` has."""
    parts = {}
    for i, _ in enumerate(theirs.resnets):
        block = next(blocks)
        parts |= {
            f"{prefix}.resnets.{i}.norm1": block.norm1,
            f"{prefix}.resnets.{i}.conv1": block.conv1,
            f"{prefix}.resnets.{i}.time_emb_proj": block.time,
            f"{prefix}.resnets.{i}.norm2": block.norm2,
            f"{prefix}.resnets.{i}.conv2": block.conv2,
            f"{prefix}.resnets.{i}.conv_shortcut": block.shortcut,  # without weights where it is I
        }
    return parts


# ------------------------------------------------------------------------------- the comparisons


def model_of(shape: tuple, widths: tuple) -> DDPM:
    """A DDPM whose network doesn't say 0 any more."""
    model = DDPM(UNet(shape, widths=widths), DiscreteSchedule.linear(T))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def training() -> bool:
    """The training step at two sizes; whether ours is as fast as diffusers'."""
    good = True
    for shape, widths in SIZES:
        ours = model_of(shape, widths)
        theirs, scheduler = in_diffusers(ours.net), DDPMScheduler(T)

        def their_loss(x: Tensor, net: nn.Module = theirs, add_noise=scheduler.add_noise) -> Tensor:
            t, eps = torch.randint(T, (len(x),)), torch.randn_like(x)
            return F.mse_loss(net(add_noise(x, eps, t), t).sample, eps)

        x = 2 * torch.rand(64, *shape) - 1
        steps = {
            "ours": training_step(ours, ours.loss, x),
            "diffusers": training_step(theirs, their_loss, x),
        }
        what = f"UNet({shape}, widths={widths}), DDPM's training step, batch {len(x)}"
        good &= report(what, milliseconds(steps, repetitions=30 if shape[1] == 28 else 80))
    return good


def their_ddim(net: UNet2DModel, shape: tuple) -> Iterator[Tensor]:
    """DDIM in diffusers with all T steps, state after state, as ``ddim_sample`` yields them."""
    scheduler = DDIMScheduler(T, clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(T)
    x = torch.randn(shape)
    yield x
    for t in scheduler.timesteps:
        x = scheduler.step(net(x, t).sample, t, x).prev_sample
        yield x


def calls(net: UNet, shape: tuple) -> Iterator[Tensor]:
    """Nothing but calls of the network."""
    x, times = torch.randn(shape), torch.full((shape[0],), T // 2)
    while True:
        yield net(x, times)


@torch.no_grad()
def sampling() -> bool:
    """A step of DDIM and of DDPM; whether ours is as fast as diffusers' and adds little to a call.

    One step of each side after the other: in so short a time the machine stays the same.
    """
    good = True
    for shape, widths in SIZES:
        model = model_of(shape, widths).eval()
        theirs = in_diffusers(model.net).eval()
        for n in (1, 16, 64):
            batch = (n, *shape)
            states = {
                "ours": ddim_sample(model, batch, steps=T),
                "diffusers": their_ddim(theirs, batch),
                "network": calls(model.net, batch),
                "DDPM": ddpm_sample(model, batch),
            }
            for side in states.values():
                next(side)  # the noise
            steps = {name: side.__next__ for name, side in states.items()}
            medians = milliseconds(steps, repetitions={1: 300, 16: 150, 64: 50}[n])
            ddim, ddpm = medians["ours"], medians.pop("DDPM")
            network = medians.pop("network")
            what = f"UNet({shape}, widths={widths}), batch {n}"
            good &= report(f"{what}, a step of DDIM", medians)
            for name, step in {"DDIM": ddim, "DDPM": ddpm}.items():
                sides = {"ours": step, "network": network}
                good &= report(f"{what}, a step of {name} and a call", sides, slack=SLACK)
    return good


def main() -> int:
    """Run all; 1 where ours is slower than a peer, or a sampler adds too much."""
    torch.manual_seed(0)
    results = [part() for part in (training, sampling)]
    return 0 if all(results) else 1
