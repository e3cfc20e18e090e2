"""What all samplers share: how they start, and how to take the last of their states."""

import contextlib
import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_generator, check_ints, check_number
from course_lib.diffusion.denoiser import Denoiser

__all__ = ["check_sampling", "first_state", "last", "sampler"]


def sampler(states: Callable[..., Iterator[Tensor]]) -> Callable[..., Iterator[Tensor]]:
    """Make a sampler of a generator function that yields states.

    What stands before its first ``yield`` runs at the call already: arguments are looked at where
    they are given. No gradients are recorded.
    """

    @functools.wraps(states)
    def begun(*args, **options) -> Iterator[Tensor]:
        walk = unrecorded(states(*args, **options))
        return itertools.chain([next(walk)], walk)

    return begun


def unrecorded(walk: Iterator[Tensor]) -> Iterator[Tensor]:
    """The same states, for which no gradients are recorded; outside of it nothing changes.

    ``torch.no_grad`` around a generator does so, too, but also where nothing is recorded anyhow,
    and that takes 1 % of a small network's step.
    """
    while True:
        with torch.no_grad() if torch.is_grad_enabled() else contextlib.nullcontext():
            state = next(walk, None)
        if state is None:
            return
        yield state


def check_sampling(
    model: Denoiser,
    shape: Sequence[int],
    *,
    clip: float | None = None,
    generator: torch.Generator | None = None,
    name: str = "shape",
) -> None:
    """Require a model, the shape of a batch of what its network takes, and fitting options."""
    if not isinstance(model, Denoiser):
        raise ValueError(f"model must be a Denoiser, got {type(model).__name__}")
    check_ints(name, shape, minimum=1)
    if len(shape) < 2:
        raise ValueError(f"{name} must be that of a batch, (n, *event), got {tuple(shape)}")
    event_shape = getattr(model.net, "event_shape", shape[1:])
    if tuple(shape[1:]) != tuple(event_shape):
        wanted = ", ".join(str(size) for size in event_shape)
        raise ValueError(f"{name} must be (n, {wanted}) for this network, got {tuple(shape)}")
    if clip is not None:
        check_number("clip", clip, above=0)
    check_generator(generator, model.device)


def first_state(
    model: Denoiser, shape: Sequence[int], z: Tensor | None, generator: torch.Generator | None
) -> Tensor:
    """The state ``[n, *event]`` of a sampler's start: ``z``, or noise as at the path's end."""
    if z is None:
        return model.path.start_std * model.noise(shape, generator)
    check_floats("z", z, shape, dtype=model.dtype)
    return z


def last(states: Iterable[Tensor]) -> Tensor:
    """The last of the states that a sampler yields, without keeping the others."""
    return deque(states, maxlen=1).pop()
