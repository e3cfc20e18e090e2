"""The one training loop of the course: AdamW on ``model.loss``, on one process or on many.

Two rules make a run repeatable. The order of the data is a function of (seed, epoch), and every
other random number of step k is a function of (seed, k). So a run that was killed goes on as if
nothing had happened, without any random-generator state in its file, and each of many processes
can draw the whole batch and keep its own share.
"""

import importlib
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm.auto import tqdm

from course_lib.checks import check_bool, check_floats, check_int, check_number, check_one_of
from course_lib.training.resume import TrainingState, describe_data, describe_model

__all__ = ["DivergedError", "History", "LostProcessError", "fit", "learning_rate"]

SCHEDULES = ("constant", "cosine")
ORDER, TRANSFORM, LOSS = range(3)  # what a random number is for: each has a stream of its own


class DivergedError(RuntimeError):
    """The loss or its gradient stopped being finite. ``step`` counts from 1."""

    def __init__(self, step: int, what: str, value: float):
        super().__init__(
            f"training diverged in step {step}: the {what} is {value}; the parameters are those "
            "before this step. Try a smaller lr, or clip the gradient"
        )
        self.step = step


class LostProcessError(RuntimeError):
    """Another process of the run died, or can't be reached. ``step`` counts from 1."""

    def __init__(self, step: int):
        super().__init__(
            f"another process of this run ended in step {step}, or can't be reached, so this one "
            "ends, too. The same command starts it again, from its checkpoint if it has one"
        )
        self.step = step


@dataclass(frozen=True)
class History:
    """What ``fit`` measured: the training loss of each step, before that step was taken."""

    losses: list[float]

    @property
    def steps(self) -> int:
        """The number of steps taken."""
        return len(self.losses)

    def loss(self, *, last: int | None = None) -> float:
        """The mean loss of the ``last`` steps; by default of the last tenth of all steps."""
        if last is None:
            last = max(self.steps // 10, 1)
        check_int("last", last, minimum=1, maximum=self.steps)
        return sum(self.losses[-last:]) / last


def fit(
    model: nn.Module,
    data: Tensor | tuple[Tensor, ...],
    *,
    steps: int,
    batch_size: int,
    lr: float = 1e-3,
    schedule: str = "cosine",
    weight_decay: float = 0.0,
    clip: float | None = 1.0,
    ema: float | None = None,
    seed: int = 0,
    transform: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 1000,
    progress: bool = True,
    device: str | torch.device | None = None,
) -> History:
    """Train ``model`` in place: minimise ``model.loss(*batch, generator=g)`` with AdamW.

    The loss must be a scalar, the mean over the examples of the batch. Each epoch goes through the
    data in a new order; the N mod ``batch_size`` examples at its end are left out. The model is
    trained on ``device`` and comes back to where it was, in eval mode, also after an error.

    Started by ``torchrun``, every process calls ``fit`` with the same arguments. Each keeps its
    share of every batch, and the gradients are averaged, so that the steps are the same as in one
    process. Only the noise that ``model.loss`` itself draws differs: other numbers, same law.
    Buffers (batch normalisation) are not averaged. The first process alone shows and writes.

    Ctrl-C ends the run after the step at hand, saves if there is a ``checkpoint``, and raises
    ``KeyboardInterrupt``; a second Ctrl-C doesn't wait.

    Reference:
        AdamW: Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101.

    Args:
        model: Any module with ``loss(x, ..., *, generator=None)``.
        data: A floating-point tensor ``[N, ...]``, or a tuple of it and further tensors
            ``[N, ...]`` of any type (labels), which ``loss`` gets as further arguments.
        steps: Number of optimiser steps, of the whole run: a resumed one takes what is missing.
        batch_size: Number of examples per step, in all processes together.
        lr: Learning rate of the first step.
        schedule: ``"cosine"`` (half a cosine from ``lr`` down to 0) or ``"constant"``.
        weight_decay: AdamW's decoupled weight decay, of parameters with two or more dimensions.
        clip: Largest Euclidean norm of the gradient; a longer one is shortened. None: no limit.
        ema: Decay of the moving average of the parameters, between 0 and 1. With it, the average
            is what the model holds in the end. None: no average.
        seed: Everything random in this run follows from it, on the CPU bit for bit.
        transform: ``transform(x, generator) -> x`` on the CPU, for fresh noise in every step; gets
            the first tensor of the batch ``[batch_size, ...]``.
        checkpoint: A file to write the state of training to. If it is there already, the run goes
            on from it, to the same result as an uninterrupted one.
        checkpoint_every: Steps between two writings of that file.
        progress: Whether to show a progress bar. None is shown with ``COURSE_WIDGETS=static`` in
            the environment, as when notebooks are stored.
        device: Where to train. By default ``"cuda"`` if there is a GPU, else ``"cpu"``.

    Returns:
        The loss of every step.

    Raises:
        DivergedError: When the loss or its gradient is not finite.
        LostProcessError: When another process of a ``torchrun`` died.

    """
    data = data if isinstance(data, tuple) else (data,)
    parameters = _check_model(model)
    _check_data(data)
    check_int("steps", steps, minimum=1)
    check_int("batch_size", batch_size, minimum=1, maximum=len(data[0]))
    check_number("lr", lr, above=0)
    check_one_of("schedule", schedule, SCHEDULES)
    _check_options(weight_decay, clip, ema)
    check_int("seed", seed, minimum=0)
    if transform is not None and not callable(transform):
        raise ValueError(f"transform must be a function or None, got {transform!r}")
    checkpoint = _check_path(checkpoint)
    check_int("checkpoint_every", checkpoint_every, minimum=1)
    check_bool("progress", progress)
    device = _check_device(device)
    rank, world, device = _join_processes(device, batch_size)

    home = next(iter(parameters.values())).device
    data = tuple(t.detach().cpu() for t in data)
    options = {
        "model": describe_model(model),
        "data": describe_data(data) if checkpoint else None,
        "transform": getattr(transform, "__qualname__", type(transform).__name__),
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "clip": clip,
        "ema": ema,
        "seed": seed,
    }
    hide = not progress or rank > 0 or os.environ.get("COURSE_WIDGETS") == "static"
    try:
        model.to(device).train()
        model.zero_grad()
        optimizer = _adamw(parameters, lr, weight_decay)
        average = {name: p.detach().clone() for name, p in parameters.items()} if ema else {}
        losses: list[float] = []
        state = TrainingState(model, parameters, optimizer, average, losses)
        if checkpoint and checkpoint.exists():
            state.load(checkpoint, options)
        if world > 1:
            for t in model.state_dict().values():
                dist.broadcast(t, src=0)
            dist.barrier()  # nobody writes the checkpoint before everybody has read it

        order = _order(len(data[0]), batch_size, seed, first_step=len(losses))
        with (
            _interrupts_wait() as interrupted,
            tqdm(total=steps, initial=len(losses), unit="step", disable=hide) as bar,
        ):
            for step in range(len(losses), steps):
                batch = _batch(data, next(order), transform, seed, step)
                share = [t.tensor_split(world)[rank].to(device) for t in batch]
                noise = _generator(device, seed, LOSS, step, rank)
                loss, gradients = _loss_and_gradients(
                    model,
                    parameters,
                    share,
                    noise,
                    step,
                    weight=len(share[0]) / batch_size,
                    world=world,
                )
                norm = _finite_norm(loss, gradients, step)

                if clip is not None and norm > clip:
                    for g in gradients:
                        g.mul_(clip / norm)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, steps=steps, lr=lr, schedule=schedule)
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss)
                for name, mean in average.items():
                    mean.lerp_(parameters[name].detach(), _ema_weight(ema, step))

                done, stop = step + 1, interrupted()
                due = stop or done == steps or done % checkpoint_every == 0
                if checkpoint and rank == 0 and due:
                    state.save(checkpoint, options)
                if stop:
                    raise KeyboardInterrupt(f"stopped after step {done} of {steps}")
                bar.set_postfix_str(f"loss {np.mean(losses[-50:]):.3f}", refresh=False)
                bar.update()
        with torch.no_grad():
            for name, mean in average.items():
                parameters[name].copy_(mean)
    finally:
        model.zero_grad()
        model.to(home).eval()
    return History(losses)


def learning_rate(step: int, *, steps: int, lr: float, schedule: str) -> float:
    """The learning rate of step ``step``, counted from 0, of ``steps``.

    ``"constant"`` is ``lr``; ``"cosine"`` is lr (1 + cos(π step / steps)) / 2: it starts at ``lr``
    and would reach 0 one step after the last (Loshchilov & Hutter 2017,
    https://arxiv.org/abs/1608.03983, equation 5 without restarts).

    Example:
        >>> [round(learning_rate(k, steps=4, lr=1.0, schedule="cosine"), 3) for k in range(4)]
        [1.0, 0.854, 0.5, 0.146]

    """
    check_int("steps", steps, minimum=1)
    check_int("step", step, minimum=0, maximum=steps - 1)
    check_number("lr", lr, above=0)
    check_one_of("schedule", schedule, SCHEDULES)
    if schedule == "constant":
        return lr
    return lr * (1 + math.cos(math.pi * step / steps)) / 2


def _ema_weight(decay: float, step: int) -> float:
    """How much of the parameters after step ``step`` (from 0) goes into their moving average.

    The average after step k is the weighted mean of the parameters after steps 0 ... k, weighted
    in proportion to decayᵏ, ..., decay², decay, 1. So it never remembers the random start, unlike
    the plain recursion; it is the bias correction of Adam (Kingma & Ba 2015, section 3).
    """
    return (1 - decay) / (1 - decay ** (step + 1))


def _order(n: int, batch_size: int, seed: int, *, first_step: int) -> Iterator[Tensor]:
    """The indices ``[batch_size]`` of the examples of one step after the other, without end."""
    per_epoch = n // batch_size
    epoch, skip = divmod(first_step, per_epoch)
    while True:
        order = torch.randperm(n, generator=_generator("cpu", seed, ORDER, epoch), device="cpu")
        yield from order[: per_epoch * batch_size].split(batch_size)[skip:]
        epoch, skip = epoch + 1, 0


def _generator(device: torch.device | str, seed: int, *purpose: int) -> torch.Generator:
    """A generator that depends on the seed and the purpose alone, and is unlike any other."""
    mixed = np.random.SeedSequence((seed, *purpose)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed))


def _adamw(
    parameters: dict[str, nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.AdamW:
    # Only matrices and filters decay: a bias or a scale near 0 isn't a simpler one.
    decaying = [p for p in parameters.values() if p.ndim > 1]
    others = [p for p in parameters.values() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": decaying, "weight_decay": weight_decay}, {"params": others}],
        lr=lr,
        weight_decay=0.0,
    )


def _batch(
    data: tuple[Tensor, ...],
    index: Tensor,
    transform: Callable[[Tensor, torch.Generator], Tensor] | None,
    seed: int,
    step: int,
) -> list[Tensor]:
    """The whole batch of a step, the same in every process, on the CPU."""
    batch = [t[index] for t in data]
    if transform is not None:
        noise = _generator("cpu", seed, TRANSFORM, step)
        batch[0] = _check_transformed(transform(batch[0], noise), len(index))
    return batch


def _loss_and_gradients(
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    share: list[Tensor],
    noise: torch.Generator,
    step: int,
    *,
    weight: float,
    world: int,
) -> tuple[float, list[Tensor]]:
    """Weighted means over the processes, each of which has its share of the batch."""
    loss = weight * _loss(model, share, noise, step)
    loss.backward()
    loss = loss.detach()
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    if world > 1:
        try:
            for t in (loss, *gradients):
                dist.all_reduce(t)
        except RuntimeError as error:
            raise LostProcessError(step + 1) from error
    return loss.item(), gradients


def _finite_norm(loss: float, gradients: list[Tensor], step: int) -> float:
    """The norm of the gradient; ``DivergedError`` when it or the loss is not finite."""
    norm = torch.stack([g.norm() for g in gradients]).norm().item()
    if not math.isfinite(loss):
        raise DivergedError(step + 1, "loss", loss)
    if not math.isfinite(norm):
        raise DivergedError(step + 1, "norm of the gradient", norm)
    return norm


def _loss(model: nn.Module, share: list[Tensor], noise: torch.Generator, step: int) -> Tensor:
    try:
        loss = model.loss(*share, generator=noise)
    except ValueError as error:
        # A model checks its own values too: overflowing ones may meet that check first.
        error.add_note(f"this came from model.loss in step {step + 1} of fit")
        raise
    if not isinstance(loss, Tensor) or loss.ndim > 0:
        raise ValueError(f"model.loss must return a tensor without dimensions, got {loss!r}")
    return loss


@contextmanager
def _interrupts_wait() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C wait; yield a function that tells whether there was one.

    An interrupt in the middle of an optimiser step would leave half of the parameters changed.
    """
    former = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(former):
        yield lambda: False  # no Ctrl-C can arrive here, or it is ignored
        return
    pressed = threading.Event()

    def remember(*_) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, former)

    signal.signal(signal.SIGINT, remember)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, former)


def _join_processes(device: torch.device, batch_size: int) -> tuple[int, int, torch.device]:
    """The number of this process, how many there are, and its device; 0 and 1 without torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1, device
    if batch_size < world:
        raise ValueError(f"batch_size must be at least {world}, one each, got {batch_size}")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # That module keeps the group that there is when it is first imported, as a default of its
        # functions. AdamW imports it: were that after the next line, the group's threads would
        # outlive the group, and could abort Python at its exit.
        importlib.import_module("torch.distributed.nn")
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), world, device


def _check_model(model: nn.Module) -> dict[str, nn.Parameter]:
    """Require a module with a loss and something to train; return its trainable parameters."""
    if not isinstance(model, nn.Module) or not callable(getattr(model, "loss", None)):
        raise ValueError(f"model must be a torch.nn.Module with a method loss, got {model!r}")
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError(f"model must have trainable parameters, got none in {model!r}")
    return parameters


def _check_data(data: tuple[Tensor, ...]) -> None:
    if not data:
        raise ValueError("data must be a tensor or a tuple of tensors, got an empty tuple")
    check_floats("data" if len(data) == 1 else "data[0]", data[0], None)
    for i, t in enumerate(data):
        if not isinstance(t, Tensor) or t.ndim == 0:
            raise ValueError(f"data[{i}] must be a tensor [N, ...], got {t!r}")
        if len(t) != len(data[0]):
            raise ValueError(f"data[{i}] must have {len(data[0])} rows like data[0], got {len(t)}")


def _check_transformed(x: Tensor, batch_size: int) -> Tensor:
    if not isinstance(x, Tensor) or x.ndim == 0 or len(x) != batch_size:
        what = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"transform must return a tensor of {batch_size} rows, got {what}")
    return x


def _check_path(path: str | os.PathLike | None) -> Path | None:
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike) or Path(path).is_dir():
        raise ValueError(f"checkpoint must be the path of a file or None, got {path!r}")
    return Path(path)


def _check_options(weight_decay: float, clip: float | None, ema: float | None) -> None:
    if weight_decay != 0:
        check_number("weight_decay", weight_decay, above=0)
    if clip is not None:
        check_number("clip", clip, above=0)
    if ema is not None:
        check_number("ema", ema, above=0)
        if ema >= 1:
            raise ValueError(f"ema must be below 1, got {ema!r}")


def _check_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device must be one that this machine has, got {device!r}") from error
