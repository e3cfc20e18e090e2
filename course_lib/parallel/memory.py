"""What a model in training takes of each process's memory, whole or shared out (ZeRO, FSDP)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from course_lib.checks import at_the_door, check_int, check_one_of

__all__ = [
    "GPT2_SIZES",
    "SD3_SIZES",
    "StateBytes",
    "gpt2_parameters",
    "measured_bytes",
    "state_bytes",
]

# Layers and width, by the names of OpenAI's release, https://github.com/openai/gpt-2. The paper's
# table 2 (Radford et al. 2019) calls them 117M, 345M, 762M and 1542M: it miscounted.
GPT2_SIZES = {"124M": (12, 768), "355M": (24, 1024), "774M": (36, 1280), "1558M": (48, 1600)}

# Parameters of the network that is trained (text encoders and autoencoder are frozen), as
# published. 8B: depth 38, Esser et al. 2024, https://arxiv.org/abs/2403.03206, section 5.3. 2B:
# https://stability.ai/news/stable-diffusion-3-medium.
SD3_SIZES = {"SD3 Medium": 2_000_000_000, "SD3 8B": 8_000_000_000}

# Bytes of each parameter: itself, its gradient, and by optimiser what that keeps for it. Mixed
# precision computes in 16 bits and updates a copy in 32.
PARAMETER = {"mixed": 2, "float32": 4}
COPY = {"mixed": 4, "float32": 0}
MOMENTS = {"adam": 8, "sgd": 0}  # two in float32; plain SGD remembers nothing


class StateBytes(NamedTuple):
    """Bytes in one process. Activations come on top: they depend on the batch."""

    parameters: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        """All three."""
        return self.parameters + self.gradients + self.optimizer


def _check_state(
    parameters: int,
    *,
    processes: int = 1,
    stage: int = 0,
    precision: str = "mixed",
    optimizer: str = "adam",
) -> None:
    check_int("parameters", parameters, minimum=1)
    check_int("processes", processes, minimum=1)
    check_int("stage", stage, minimum=0, maximum=3)
    check_one_of("precision", precision, PARAMETER)
    check_one_of("optimizer", optimizer, MOMENTS)


@at_the_door(_check_state)
def state_bytes(
    parameters: int,
    *,
    processes: int = 1,
    stage: int = 0,
    precision: str = "mixed",
    optimizer: str = "adam",
) -> StateBytes:
    """Memory of each process: 2 Ψ + 2 Ψ + 12 Ψ bytes, of which ZeRO shares out one after the other.

    Reference:
        Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054, section 3.1 and figure 1.

    Args:
        parameters: Ψ, their number.
        processes: N.
        stage: 0 shares nothing (data parallelism), 1 the optimiser's state, 2 also the gradients,
            3 also the parameters (PyTorch's ``fully_shard``).
        precision: ``"mixed"`` (16 bits, and a copy in float32 that is updated) or ``"float32"``.
        optimizer: ``"adam"`` or ``"sgd"`` (without momentum).

    Example:
        >>> stages = [state_bytes(7_500_000_000, processes=64, stage=s) for s in range(4)]
        >>> [round(held.total / 1e9, 1) for held in stages]
        [120.0, 31.4, 16.6, 1.9]

    """
    return StateBytes(
        parameters=PARAMETER[precision] * parameters / (processes if stage >= 3 else 1),
        gradients=PARAMETER[precision] * parameters / (processes if stage >= 2 else 1),
        optimizer=(COPY[precision] + MOMENTS[optimizer])
        * parameters
        / (processes if stage >= 1 else 1),
    )


def _check_gpt2(layers: int, width: int, *, vocabulary: int = 50257, context: int = 1024) -> None:
    check_int("layers", layers, minimum=0)
    check_int("width", width, minimum=1)
    check_int("vocabulary", vocabulary, minimum=1)
    check_int("context", context, minimum=1)


@at_the_door(_check_gpt2)
def gpt2_parameters(
    layers: int, width: int, *, vocabulary: int = 50257, context: int = 1024
) -> int:
    """The number of parameters of GPT-2, whose last layer is the embedding again.

    Reference:
        Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.3.

    Example:
        >>> [round(gpt2_parameters(*GPT2_SIZES[name]) / 1e6) for name in GPT2_SIZES]
        [124, 355, 774, 1558]

    """
    embeddings = (vocabulary + context) * width
    attention = 4 * width * width + 4 * width  # queries, keys, values and output, with biases
    mlp = 8 * width * width + 5 * width  # to four times the width and back
    norms = 2 * 2 * width
    return embeddings + layers * (attention + mlp + norms) + 2 * width  # and a last norm


def measured_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> StateBytes:
    """What PyTorch holds for a model in this process, after a step; of a sharded one the shard.

    Step counters, 4 bytes a tensor, are left out.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {model!r}")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer must be a torch.optim.Optimizer, got {optimizer!r}")
    parameters = list(model.parameters())
    own = getattr(optimizer, "optim", optimizer)  # of a ZeroRedundancyOptimizer: this process's
    kept = [t for state in own.state.values() for t in state.values()]
    return StateBytes(
        parameters=_local_bytes(parameters),
        gradients=_local_bytes([p.grad for p in parameters if p.grad is not None]),
        optimizer=_local_bytes([t for t in kept if isinstance(t, Tensor) and t.ndim > 0]),
    )


def _local_bytes(tensors: list[Tensor]) -> int:
    shards = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
    return sum(t.nbytes for t in shards)
