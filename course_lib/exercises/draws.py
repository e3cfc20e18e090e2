"""What an exercise is asked about: random numbers, from a generator of its own."""

import torch
from torch import Tensor

__all__ = ["between", "rand", "randn"]


def randn(*shape: int, generator: torch.Generator) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=generator)


def rand(low: float, high: float, *shape: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers from ``low`` to ``high``."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def between(low: float, high: float, generator: torch.Generator) -> float:
    """One number from ``low`` to ``high``."""
    return low + (high - low) * torch.rand((), generator=generator).item()
