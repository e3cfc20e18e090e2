"""When a ControlNet begins to follow contours: from one step to the next, or little by little."""

from collections.abc import Iterator

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_int, check_number
from course_lib.diffusion import (
    ControlledDiffusion,
    ControlNet,
    LatentDiffusion,
    dpm_solver_sample,
    edges,
    last,
)
from course_lib.metrics import contour_agreement

__all__ = ["follow", "followed", "sudden_convergence"]


def sudden_convergence(
    diffusion: LatentDiffusion,
    data: tuple[Tensor, Tensor, Tensor],
    contours: Tensor,
    *,
    seed: int,
    steps: int = 480,
    every: int = 20,
    batch_size: int = 16,
    lr: float = 1e-3,
) -> Iterator[dict[str, float]]:
    """Train a ControlNet, and see every few steps how well samples follow contours.

    Reference:
        Zhang, Rao, Agrawala 2023, https://arxiv.org/abs/2302.05543, section 3.3 and figure 4.

    Args:
        diffusion: The model to control; it is locked.
        data: Images ``[N, C, H, W]`` in [−1, 1], their captions' tokens ``[N, L]`` and contours
            ``[N, 1, H, W]``.
        contours: What the samples shall follow, ``[n, 1, H, W]``, of images not in ``data``.
        seed: Of the network's start, the batches and the noise of training. The samples start from
            the same noise in all measurements of all seeds.
        steps: Of AdamW.
        every: Steps from one measurement to the next.
        batch_size: Of training.
        lr: Learning rate, the same in all steps.

    Yields:
        ``{"seed", "step", "agreement", "chance"}`` after 0, ``every``, ... steps; the last two as
        of ``followed``.

    """
    check_int("seed", seed, minimum=0)
    check_int("steps", steps, minimum=1)
    check_int("every", every, minimum=1)
    check_int("batch_size", batch_size, minimum=1)
    check_number("lr", lr, above=0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        control = ControlledDiffusion(diffusion, ControlNet(diffusion.model, 1))
    optimizer = torch.optim.AdamW(control.parameters(), lr=lr, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps + 1):
        if step % every == 0:
            yield {"seed": seed, "step": step, **followed(control, contours)}
        if step < steps:
            batch = torch.randint(len(data[0]), (batch_size,), generator=generator)
            loss = control.loss(*(part[batch] for part in data), generator=generator)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(control.parameters(), 1.0)
            optimizer.step()


def follow(control: ControlledDiffusion, contours: Tensor) -> Tensor:
    """Images ``[n, C, H, W]`` of contours ``[n, 1, H, W]`` alone, without a prompt.

    In six steps, always from the same noise.
    """
    diffusion = control.diffusion
    y = diffusion.text_encoder.tokenizer([""] * len(contours))
    model = diffusion.controlled([(control.control_net, contours, 1.0)])
    shape = (len(contours), *diffusion.autoencoder.latent_shape)
    generator = torch.Generator().manual_seed(0)
    states = dpm_solver_sample(model, shape, steps=6, y=y, generator=generator)
    return diffusion.to_images(last(states))


def followed(control: ControlledDiffusion, contours: Tensor) -> dict[str, float]:
    """How well samples follow ``contours [n, 1, H, W]``: ``contour_agreement``, its mean.

    ``"agreement"`` is that of a sample's own edges and its contour, and ``"chance"`` that of a
    sample's edges and the contour of the next one: what contours of other scenes share.
    """
    check_floats("contours", contours, (None, *control.control_net.condition_shape))
    found = edges(follow(control, contours))
    return {
        "agreement": contour_agreement(found, contours).mean().item(),
        "chance": contour_agreement(found, contours.roll(1, 0)).mean().item(),
    }
