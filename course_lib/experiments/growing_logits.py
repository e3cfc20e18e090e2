"""Logits of attention that grow in training: what is left of the softmax, and of half precision."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.checks import check_bool, check_floats, check_int, check_number
from course_lib.diffusion import FlowMatching
from course_lib.nn import MMDiT

__all__ = ["Growth", "growing_logits"]

WIDTH, BLOCKS, HEADS, BATCH = 32, 2, 2, 64


@dataclass(frozen=True)
class Growth:
    """What was seen at each step of a training, before the step: ``[steps]`` each.

    Args:
        loss: That of the batch, in single precision.
        logit: The largest |q · k| / √d of all blocks.
        entropy: Of attention, in the block where it is least, as a share of log N: 1 where all
            tokens get the same, 0 where one gets everything.
        overflow: Whether a q · k is infinite in float16, beyond 65,504.
        nan: Whether a softmax of these logits in float16 is not a number any more.

    """

    loss: Tensor
    logit: Tensor
    entropy: Tensor
    overflow: Tensor
    nan: Tensor


def growing_logits(
    x: Tensor, *, qk_norm: bool, lr: float = 0.3, steps: int = 40, seed: int = 0
) -> Growth:
    """Train a small DiT too fast, and watch its attention.

    Adam moves each weight by about ``lr`` a step, at first all in one direction. With 0.3, on the
    digits, a product of query and key leaves float16 within ten steps without normalization. With
    0.03, 60 steps only bring the largest logit to thirty. It is trained in single precision; what
    float16 would make of the same queries and keys is computed beside it.

    Reference:
        Dehghani et al. 2023, https://arxiv.org/abs/2302.05442, section 2; Esser et al. 2024,
        https://arxiv.org/abs/2403.03206, section 5.3.2 and figure 5.

    Args:
        x: Images ``[n, C, H, W]`` of even sides, float32, about as large as N(0, 1).
        qk_norm: Whether queries and keys are normalized.
        lr: Adam's learning rate.
        steps: How many, of 64 images each.
        seed: Of the weights, the batches and the noise.

    Example:
        >>> images = torch.ones(8, 1, 4, 4)
        >>> growing_logits(images, qk_norm=True, lr=0.01, steps=3).logit.shape
        torch.Size([3])

    """
    check_floats("x", x, (None, None, None, None), dtype=torch.float32)
    check_bool("qk_norm", qk_norm)
    check_number("lr", lr, above=0)
    check_int("steps", steps, minimum=1)
    check_int("seed", seed, minimum=0)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MMDiT(tuple(x.shape[1:]), dim=WIDTH, depth=BLOCKS, heads=HEADS, qk_norm=qk_norm)
    model, optimizer = FlowMatching(net), torch.optim.Adam(net.parameters(), lr=lr)
    met = []  # the queries and keys of each block
    for block in net.blocks:
        block.attention.register_forward_pre_hook(
            lambda layer, streams: met.append(layer.heads_of(streams)[:2])
        )
    rows = []
    for _ in range(steps):
        met.clear()
        batch = x[torch.randint(len(x), (BATCH,), generator=generator)]
        loss = model.loss(batch, generator=generator)
        rows.append((loss.item(), *seen_of(met)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Growth(*(torch.tensor(column) for column in zip(*rows, strict=True)))


@torch.no_grad()
def seen_of(met: list[tuple[Tensor, Tensor]]) -> tuple[float, float, bool, bool]:
    """Largest logit, least entropy, and what float16 makes of it, of each block's q and k."""
    blocks = []
    for q, k in met:
        root = math.sqrt(q.shape[-1])
        logits = q @ k.mT / root
        log_p = logits.log_softmax(dim=-1)
        entropy = -(log_p.exp() * log_p).sum(-1).mean() / math.log(k.shape[2])
        products = q.half() @ k.half().mT
        weights = (products / root).softmax(dim=-1)
        blocks.append((logits.abs().max(), entropy, products.isinf().any(), weights.isnan().any()))
    largest, least, overflow, nan = (torch.stack(column) for column in zip(*blocks, strict=True))
    return largest.max().item(), least.min().item(), overflow.any().item(), nan.any().item()
