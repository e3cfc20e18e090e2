"""Data parallelism: every process has the whole model and a share of the batch.

What PyTorch's ``DistributedDataParallel`` does, in one file to read: gradients are averaged bucket
by bucket, and a bucket is on its way while the backward pass still computes the next.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from course_lib.checks import at_the_door, check_int, check_ints, check_tensor

__all__ = ["DataParallel", "accumulate", "buckets"]


def buckets(sizes: Sequence[int], cap: int) -> list[list[int]]:
    """Which gradients travel together.

    They are filled in reverse order, for that is how a backward pass comes by them; a bucket is
    full as soon as it holds ``cap`` bytes or more.

    Reference:
        Li et al. 2020, https://arxiv.org/abs/2006.15704, section 3.2.3.

    Args:
        sizes: Of the parameters in bytes, in the order of the model.
        cap: In bytes.

    Example:
        >>> buckets([40, 10, 30, 20], cap=50)
        [[3, 2], [1, 0]]

    """
    check_ints("sizes", sizes, minimum=0)
    check_int("cap", cap, minimum=1)
    filled, bucket, held = [], [], 0
    for i in reversed(range(len(sizes))):
        bucket.append(i)
        held += sizes[i]
        if held >= cap:
            filled.append(bucket)
            bucket, held = [], 0
    return [*filled, bucket] if bucket else filled


class DataParallel(nn.Module):
    """A model whose gradients are averaged over all processes, during the backward pass.

    All processes start from the parameters and buffers of the first. After each ``backward()``
    comes ``finish()``; only then does ``grad`` hold the average::

        parallel = DataParallel(model)
        loss(parallel(share)).backward()
        parallel.finish()
        optimizer.step()

    Reference:
        Li et al. 2020, https://arxiv.org/abs/2006.15704, algorithm 1.

    Args:
        model: Any module, on the CPU, whose trainable parameters have one dtype.
        bucket_bytes: How much is sent at once.

    Raises:
        RuntimeError: In a process that belongs to no group.

    """

    def __init__(self, model: nn.Module, *, bucket_bytes: int = 25 * 2**20):
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ValueError(f"model must be a torch.nn.Module, got {model!r}")
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError(f"model must have trainable parameters, got none in {model!r}")
        if len(dtypes := {str(p.dtype) for p in trained.values()}) > 1:
            raise ValueError(f"model must have parameters of one dtype, got {sorted(dtypes)}")
        check_int("bucket_bytes", bucket_bytes, minimum=1)
        if not dist.is_initialized():
            raise RuntimeError("DataParallel needs a group of processes: see run_processes")
        self.model = model
        self.names, self.trained = list(trained), list(trained.values())
        self.buckets = buckets([p.nbytes for p in self.trained], bucket_bytes)
        self.averaging = True
        self._start_over()
        for t in (*model.parameters(), *model.buffers()):
            dist.broadcast(t.detach(), src=0)
        for i, p in enumerate(self.trained):
            p.register_post_accumulate_grad_hook(partial(self._arrive, i))

    def forward(self, *args: Any, **options: Any) -> Any:
        """What the model says to this process's share."""
        return self.model(*args, **options)

    def _start_over(self) -> None:
        self.arrived: set[int] = set()
        self.travelling: list[tuple[Tensor, dist.Work]] = []  # one for each bucket sent so far

    def _arrive(self, i: int, p: nn.Parameter) -> None:
        """Called by the backward pass as soon as the gradient of parameter i is there."""
        if not self.averaging:
            return
        if i in self.arrived:
            raise RuntimeError(
                f"a second gradient of {self.names[i]} came before finish(): call it after each "
                "backward pass, or put all but the last one under no_sync()"
            )
        self.arrived.add(i)
        # In the order of buckets, whatever comes first: all processes must send the same.
        while len(self.travelling) < len(self.buckets) and self.arrived.issuperset(
            bucket := self.buckets[len(self.travelling)]
        ):
            self.travelling.append(self._send(bucket))

    def _send(self, bucket: list[int]) -> tuple[Tensor, dist.Work]:
        flat = torch.cat([self.trained[i].grad.flatten() for i in bucket])
        flat *= 1 / dist.get_world_size()  # before the sum, so that it cannot overflow
        return flat, dist.all_reduce(flat, async_op=True)

    def finish(self) -> None:
        """Wait for the averages, and put them into ``grad``.

        Raises:
            RuntimeError: When a parameter got no gradient in this process; it is named. The others
                would wait for it for ever.

        """
        missing = [name for i, name in enumerate(self.names) if i not in self.arrived]
        if missing:
            raise RuntimeError(
                f"rank {dist.get_rank()} has no gradient for {', '.join(missing)}: the loss must "
                "use every parameter in every process; freeze the others (requires_grad_(False))"
            )
        for bucket, (flat, work) in zip(self.buckets, self.travelling, strict=True):
            work.wait()
            sizes = [self.trained[i].numel() for i in bucket]
            for i, average in zip(bucket, flat.split(sizes), strict=True):
                self.trained[i].grad.copy_(average.view_as(self.trained[i]))
        self._start_over()

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Backward passes in here add up their gradients in this process alone."""
        self.averaging = False
        try:
            yield
        finally:
            self.averaging = True


def _check_accumulate(model: nn.Module, loss: Callable, batches: Sequence[Any]) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {model!r}")
    if not callable(loss):
        raise ValueError(f"loss must be a function of a batch, got {loss!r}")
    if not isinstance(batches, list | tuple) or not batches:
        raise ValueError(f"batches must be a list of one batch or more, got {batches!r}")
    sizes = [_size_of(f"batches[{k}]", batch) for k, batch in enumerate(batches)]
    if len(set(sizes)) > 1:
        raise ValueError(f"batches must have one size, got {sizes}")


def _size_of(name: str, batch: Any) -> int:
    first = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(first, Tensor) or first.ndim == 0 or len(first) == 0:
        got = f"shape {list(first.shape)}" if isinstance(first, Tensor) else repr(batch)
        raise ValueError(
            f"{name} must be a tensor of one example or more, or a list of tensors, got {got}"
        )
    return len(first)


@at_the_door(_check_accumulate)
def accumulate(model: nn.Module, loss: Callable[[Any], Tensor], batches: Sequence[Any]) -> Tensor:
    """The gradient of one big batch from small ones of equal size, which need little memory.

    Processes talk once, after the last small batch: the others are under ``no_sync()``.

    Args:
        model: A ``DataParallel``, PyTorch's ``DistributedDataParallel``, or any other module. The
            gradients are added to those that it has.
        loss: ``loss(batch)``, the mean over the examples of a batch.
        batches: The small batches: tensors, or lists of tensors with examples along axis 0.

    Returns:
        The mean loss, detached.

    """
    mean = torch.zeros(())
    alone = getattr(model, "no_sync", nullcontext)
    for k, batch in enumerate(batches, start=1):
        share = loss(batch) / len(batches)
        check_tensor("loss", share, ())
        with nullcontext() if k == len(batches) else alone():
            share.backward()
        mean = mean + share.detach()
    if isinstance(model, DataParallel):
        model.finish()
    return mean
