"""A training whose process dies, and that goes on from its checkpoint. For ``run_processes``."""

import os
import signal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from course_lib.checks import check_int
from course_lib.training import fit

__all__ = ["train_or_die"]

STEPS, EVERY = 20, 5


class _Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1)
        with torch.no_grad():
            for p in self.line.parameters():
                p.zero_()

    def loss(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return (self.line(x[:, :2]) - x[:, 2:]).square().mean()


def train_or_die(checkpoint: str, doomed: int | None = None, step: int = 13) -> list[float]:
    """``fit`` a line to a plane for 20 steps, with a checkpoint every 5.

    Args:
        checkpoint: The file.
        doomed: The rank of the process that is killed. None: nobody is.
        step: In which step, from 1.

    Returns:
        The parameters in the end.

    """
    if doomed is not None:
        check_int("doomed", doomed, minimum=0)
    check_int("step", step, minimum=1, maximum=STEPS)
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    model, calls = _Line(), []

    def deadly(x: Tensor, generator: torch.Generator) -> Tensor:
        calls.append(1)
        if len(calls) == step and dist.get_rank() == doomed:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    options = {"steps": STEPS, "batch_size": 16, "lr": 0.1, "device": "cpu", "progress": False}
    fit(model, x, transform=deadly, checkpoint=checkpoint, checkpoint_every=EVERY, **options)
    return nn.utils.parameters_to_vector(model.parameters()).tolist()
