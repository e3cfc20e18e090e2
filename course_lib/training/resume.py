"""What a training run must remember to go on after it was killed, in one safetensors file.

Nothing here is pickled: tensors are tensors, and the options are JSON in the file's header.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from course_lib.training.files import write_atomically

__all__ = ["TrainingState", "describe_data", "describe_model"]

FORMAT = "course_lib training state 1"


@dataclass
class TrainingState:
    """All that changes from step to step. The number of steps taken is ``len(losses)``.

    Args:
        model: The model in training; all of its ``state_dict`` is kept.
        parameters: Its trainable parameters, by name.
        optimizer: An AdamW over exactly these parameters.
        average: The moving averages of the parameters, by name; empty without EMA.
        losses: The loss of each step taken so far.

    """

    model: nn.Module
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    losses: list[float] = field(default_factory=list)

    def save(self, path: Path, options: dict[str, Any]) -> None:
        """Write everything to ``path`` at once; ``options`` is what ``load`` will compare."""
        tensors = {f"model/{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"average/{name}": t for name, t in self.average.items()}
        for name, parameter in self.parameters.items():
            # AdamW keeps nothing for a parameter that never had a gradient.
            for key, t in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{name}/{key}"] = t
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        # clone: safetensors refuses tensors that share memory, as tied weights do.
        tensors = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
        header = {"format": FORMAT, "options": json.dumps(options)}
        write_atomically(path, safetensors.torch.save(tensors, header))

    def load(self, path: Path, options: dict[str, Any]) -> None:
        """Take over what ``save`` wrote.

        Raises:
            ValueError: When the file is not one of ``save``'s, or was written with other options;
                nothing is changed then.

        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise ValueError(f"checkpoint {path} is damaged ({error}): delete it") from error
        if header.get("format") != FORMAT or "options" not in header:
            raise ValueError(f"checkpoint {path} was not written by fit: choose another path")
        stored = json.loads(header["options"])
        other = [
            f"{key}={stored.get(key)!r} there, {key}={options.get(key)!r} here"
            for key in options | stored
            if stored.get(key) != options.get(key)
        ]
        if other:
            raise ValueError(
                f"checkpoint {path} belongs to a run with other options ({'; '.join(other)}): "
                "use the same options, delete it, or choose another path"
            )

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model/"))
        for name, t in part("average/").items():
            self.average[name].copy_(t)
        for name, parameter in self.parameters.items():
            # AdamW wants its step counter on the CPU, its moments beside the parameter.
            kept = part(f"optimizer/{name}/")
            if kept:
                self.optimizer.state[parameter] = {
                    key: t if key == "step" else t.to(parameter.device) for key, t in kept.items()
                }
        self.losses[:] = tensors["losses"].tolist()


def describe_model(model: nn.Module) -> str:
    """Class, size and a short checksum of the names, types and shapes of all its tensors."""
    lines = [f"{name} {t.dtype} {list(t.shape)}" for name, t in model.state_dict().items()]
    numbers = sum(t.numel() for t in model.state_dict().values())
    checksum = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
    return f"{type(model).__name__} of {numbers} numbers, {checksum}"


def describe_data(data: tuple[Tensor, ...]) -> str:
    """Shapes, types and a short checksum of all values."""
    checksum = hashlib.sha256()
    for t in data:
        checksum.update(t.contiguous().view(torch.uint8).numpy())
    shapes = ", ".join(f"{t.dtype} {list(t.shape)}".removeprefix("torch.") for t in data)
    return f"{shapes}, {checksum.hexdigest()[:12]}"
