"""What all samplers share: how they start, and how to take the last of their states."""

from collections import deque
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_generator, check_ints, check_number
from course_lib.diffusion.denoiser import Denoiser

__all__ = ["check_batch", "last", "start"]


def start(
    model: Denoiser,
    shape: Sequence[int],
    *,
    clip: float | None = None,
    z: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Check what a sampler is given, and return the noise ``[n, *event]`` that it starts from."""
    check_ints("shape", shape, minimum=1)
    check_batch("shape", shape, model)
    if clip is not None:
        check_number("clip", clip, above=0)
    check_generator(generator, model.device)
    if z is None:
        return model.noise(shape, generator)
    check_floats("z", z, shape, dtype=model.dtype)
    return z


def check_batch(name: str, shape: Sequence[int], model: Denoiser) -> None:
    """Require the shape of a batch of what the model's network takes (``ValueError``)."""
    if len(shape) < 2:
        raise ValueError(f"{name} must be that of a batch, (n, *event), got {tuple(shape)}")
    event_shape = getattr(model.net, "event_shape", shape[1:])
    if tuple(shape[1:]) != tuple(event_shape):
        wanted = ", ".join(str(size) for size in event_shape)
        raise ValueError(f"{name} must be (n, {wanted}) for this network, got {tuple(shape)}")


def last(states: Iterable[Tensor]) -> Tensor:
    """The last of the states that a sampler yields, without keeping the others."""
    return deque(states, maxlen=1).pop()
