"""Two models of the same data, trained for equally long: who is how good after how much work?"""

import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from course_lib.checks import check_int, check_number
from course_lib.training.files import write_atomically
from course_lib.training.resume import TrainingState, describe_model

__all__ = ["Moment", "average_weight", "looks_by_the_clock", "train_by_the_clock"]


@dataclass(frozen=True)
class Moment:
    """A model in the middle of its training."""

    seconds: float  # of processor time that were to pass
    steps: int  # that were taken in them
    model: nn.Module  # with the average of the weights, in eval mode


def average_weight(step: int, *, gamma: float = 6.0) -> float:
    """How much of the weights after step ``step``, from 1, goes into their average: β_k.

    The average of k steps weighs them in proportion to 1^γ, 2^γ, ..., k^γ, nearly: it looks back
    over the same share of the training at any time, about an eighth of it with γ = 6. So it is as
    good for a short training as for a long one.

    Reference:
        Karras et al. 2024, https://arxiv.org/abs/2312.02696, equation 4.

    Example:
        >>> [round(average_weight(step), 2) for step in (1, 7, 70)]
        [1.0, 0.66, 0.1]

    """
    check_int("step", step, minimum=1)
    check_number("gamma", gamma, minimum=0)
    return 1 - (1 - 1 / step) ** (gamma + 1)


def train_by_the_clock(
    model: nn.Module,
    data: tuple[Tensor, ...],
    *,
    moments: Sequence[float],
    batch_size: int,
    lr: float,
    clip: float = 1.0,
    seed: int = 0,
    state: Path | None = None,
) -> Iterator[Moment]:
    """Train until given amounts of processor time have passed, with AdamW at one learning rate.

    Only steps count, not what happens between two of them. No step of the rate's decay is needed
    before a look at the model: an average of its weights takes that place.

    Args:
        model: Any module with ``loss(*batch, generator=)``; it is trained in place.
        data: Tensors ``[N, ...]``.
        moments: When to look at the model: rising processor times, in seconds, of all threads.
        batch_size: Examples of a step, drawn anew each time; all models see the same ones.
        lr: The learning rate of all steps.
        clip: Largest norm of the gradient.
        seed: Everything random follows from it, but for the number of steps.
        state: A file that is written at every moment, and that a run goes on from if it is there:
            ``moments`` are then those still to come.

    Yields:
        A ``Moment`` for each of ``moments``, with a model of its own.

    """
    for i, moment in enumerate(moments):
        check_number(f"moments[{i}]", moment, above=moments[i - 1] if i else 0)
    check_int("batch_size", batch_size, minimum=1)
    check_number("lr", lr, above=0)
    check_number("clip", clip, above=0)
    check_int("seed", seed, minimum=0)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    average = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=lr, weight_decay=0.0)
    clock: list[float] = []  # the processor time after each step, kept where losses are elsewhere
    kept = TrainingState(model, parameters, optimizer, average, clock)
    options = {
        "model": describe_model(model),
        "batch_size": batch_size,
        "lr": lr,
        "clip": clip,
        "seed": seed,
    }
    if state is not None and state.exists():
        kept.load(state, options)

    model.train()
    for moment in moments:
        while not clock or clock[-1] < moment:
            start = time.process_time()
            generator = torch.Generator().manual_seed(seed + 1_000_003 * len(clock))
            which = torch.randint(len(data[0]), (batch_size,), generator=generator)
            loss = model.loss(*(part[which] for part in data), generator=generator)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters.values(), clip, error_if_nonfinite=True)
            optimizer.step()
            for name, mean in average.items():
                mean.lerp_(parameters[name].detach(), average_weight(len(clock) + 1))
            clock.append((clock[-1] if clock else 0.0) + time.process_time() - start)
        if state is not None:
            kept.save(state, options)
        yield Moment(moment, len(clock), _averaged(model, average))


def looks_by_the_clock(
    model: nn.Module,
    data: tuple[Tensor, ...],
    look: Callable[[nn.Module], dict],
    *,
    moments: Sequence[float],
    file: Path,
    **options,
) -> list[dict]:
    """What ``look`` finds of the model at each of the moments; an ended run goes on from there.

    Args:
        model: As of ``train_by_the_clock``.
        data: As of ``train_by_the_clock``.
        look: Gets the model of a moment and returns what JSON can hold.
        moments: When to look: rising processor times, in seconds.
        file: ``NAME.json``, where the looks are written down; the state of training lies beside it.
        options: The other ones of ``train_by_the_clock``.

    Returns:
        ``{"seconds": ..., "steps": ..., **look(model)}`` for each moment.

    """
    seen = json.loads(file.read_text()) if file.exists() else []
    if [one["seconds"] for one in seen] != list(moments[: len(seen)]):
        raise ValueError(f"moments must be those of {file}, or begin with them, got {moments!r}")
    state = file.with_suffix(".safetensors")
    for moment in train_by_the_clock(
        model, data, moments=moments[len(seen) :], state=state, **options
    ):
        seen.append({"seconds": moment.seconds, "steps": moment.steps, **look(moment.model)})
        write_atomically(file, json.dumps(seen).encode())
    return seen


def _averaged(model: nn.Module, average: dict[str, Tensor]) -> nn.Module:
    """A copy of the model that holds these weights."""
    twin = copy.deepcopy(model).eval()
    for name, parameter in twin.named_parameters():
        if name in average:
            parameter.data.copy_(average[name])
    return twin
