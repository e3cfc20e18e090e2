"""What PyTorch holds in each process when the state of training is shared out."""

import torch
import torch.distributed as dist
from torch import nn

from course_lib.checks import check_int
from course_lib.parallel import StateBytes, measured_bytes

__all__ = ["sharded_state"]


def sharded_state(stage: int, width: int = 64, layers: int = 4) -> StateBytes:
    """Measured bytes in this process after a step of Adam in float32. For ``run_processes``.

    Args:
        stage: Of ZeRO: 0 shares nothing, 1 is PyTorch's ``ZeroRedundancyOptimizer``, 3 its
            ``fully_shard``. It has none that keeps the parameters whole and shares the rest (2).
        width: Of each layer.
        layers: How many, [width, width] each, without biases.

    """
    if stage not in (0, 1, 3):
        raise ValueError(f"stage must be 0, 1 or 3, got {stage!r}")
    check_int("width", width, minimum=1)
    check_int("layers", layers, minimum=1)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    if stage == 3:
        from torch.distributed.fsdp import fully_shard

        for layer in model:
            fully_shard(layer)
        fully_shard(model)
    if stage == 1:
        from torch.distributed.optim import ZeroRedundancyOptimizer

        optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam)
    else:
        optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, width)).square().sum().backward()
    if stage < 3:
        for p in model.parameters():
            dist.all_reduce(p.grad)
    optimizer.step()
    return measured_bytes(model, optimizer)
