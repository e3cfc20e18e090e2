"""Stored models: the weights in NAME.safetensors, and beside them NAME.json, the card.

The card says where the weights came from and holds their SHA-256. Nothing is ever unpickled, and
no byte of a file is parsed before its checksum was compared with the card's.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from course_lib.checks import check_int, check_number, check_one_of
from course_lib.training.files import write_atomically
from course_lib.training.recipes import DTYPES, check_name, recipe

__all__ = [
    "checkpoint_folder",
    "load_card",
    "load_pretrained",
    "round_weights",
    "save_pretrained",
]

ROOT = Path(__file__).parents[2]  # of a clone of the course; the package alone has no such folder
MAX_BYTES = 6_000_000
GIVEN = ("summary", "recipe", "command", "data", "seed", "steps", "metrics")
MEASURED = ("name", "parameters", "dtype", "sha256", "torch")


def checkpoint_folder() -> Path:
    """Where stored models live: ``$COURSE_CHECKPOINTS``, or ``data/checkpoints`` of the course."""
    default = ROOT / "data" / "checkpoints"
    return Path(os.environ.get("COURSE_CHECKPOINTS") or default).expanduser()


def round_weights(model: nn.Module, dtype: str) -> None:
    """Round all floating-point weights in place to what ``dtype`` can hold, keeping their type.

    Raises:
        ValueError: When ``dtype`` is unknown, or a weight doesn't fit it; the model is unchanged.

    """
    check_one_of("dtype", dtype, DTYPES)
    _check_module(model)
    rounded = _rounded(model, dtype)
    with torch.no_grad():
        for name, t in model.state_dict().items():
            t.copy_(rounded[name])


def save_pretrained(
    model: nn.Module,
    name: str,
    card: Mapping[str, Any],
    *,
    folder: str | os.PathLike | None = None,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Write ``NAME.safetensors`` and its card ``NAME.json``, each whole or not at all.

    The card comes last: with a card goes a checkpoint that is whole.

    Args:
        model: The model to store.
        name: Name of both files.
        card: ``summary``, ``recipe`` (its name), ``command``, ``data`` (in words), ``seed``,
            ``steps`` and ``metrics``: for each name a finite number or a table, which is a list of
            rows with a number or a word for each column, ``[{"steps": 50, "distance": 6.1}]``.
        folder: Where to write; by default ``checkpoint_folder()``.
        dtype: Precision of the stored floating-point weights, ``"float16"`` or ``"float32"``.

    Returns:
        The whole card: the given fields and ``name``, ``parameters`` (their number), ``dtype``,
        ``sha256`` and ``torch`` (the version).

    Raises:
        ValueError: When a weight is not finite or doesn't fit ``dtype``, or the file would be
            larger than 6 MB; nothing is written then.

    """
    _check_module(model)
    check_name(name)
    check_one_of("dtype", dtype, DTYPES)
    _check_card(card)
    folder = _folder(folder)

    payload = safetensors.torch.save(_rounded(model, dtype))
    if len(payload) > MAX_BYTES:
        raise ValueError(f"model must fit in {MAX_BYTES} bytes as {dtype}, got {len(payload)}")
    whole = {
        "name": name,
        **card,
        "parameters": sum(p.numel() for p in model.parameters()),
        "dtype": dtype,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "torch": torch.__version__,
    }
    text = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / f"{name}.safetensors", payload)
    write_atomically(folder / f"{name}.json", text.encode())
    return whole


def load_card(name: str, *, folder: str | os.PathLike | None = None) -> dict[str, Any]:
    """The card of a stored model.

    Raises:
        ValueError: When the name is malformed, or the card is missing or damaged; the message names
            the file and how to make it anew.

    """
    check_name(name)
    path = _folder(folder) / f"{name}.json"
    try:
        card = json.loads(_read(path, name))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): {_remedy(name)}") from error
    if not isinstance(card, dict) or set(card) != {*GIVEN, *MEASURED}:
        raise ValueError(f"{path} is not the card of a stored model: {_remedy(name)}")
    return card


def load_pretrained(name: str, *, folder: str | os.PathLike | None = None) -> nn.Module:
    """The stored model, on the CPU, in float32 and in eval mode.

    Raises:
        ValueError: When a file is missing, damaged or not the one its card describes; the message
            names the file and how to make it anew.

    """
    card = load_card(name, folder=folder)
    path = _folder(folder) / f"{name}.safetensors"
    payload = _read(path, name)
    if hashlib.sha256(payload).hexdigest() != card["sha256"]:
        raise ValueError(f"{path} is not the file of its card (SHA-256 differs): {_remedy(name)}")
    model = recipe(card["recipe"]).new_model()
    try:
        model.load_state_dict(safetensors.torch.load(payload))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} doesn't fit its recipe ({error}): {_remedy(name)}") from error
    return model.float().eval()


def _rounded(model: nn.Module, dtype: str) -> dict[str, Tensor]:
    """The state of the model with floats in ``dtype``; ``ValueError`` if one is not finite then."""
    rounded = {}
    for name, t in model.state_dict().items():
        t = t.detach().cpu()
        t = t.to(DTYPES[dtype]) if t.is_floating_point() else t
        if not torch.isfinite(t).all():
            raise ValueError(f"model must have weights that are finite in {dtype}, not so: {name}")
        rounded[name] = t.clone().contiguous()
    return rounded


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}): {_remedy(name)}") from error


def _remedy(name: str) -> str:
    train = f"run `python -m course_lib train {name}`"
    if (ROOT / "pyproject.toml").is_file():
        return f"{train}, or restore it with `git checkout`"
    return (
        "stored models do not come with the package alone. Install the course from a clone with "
        "`pip install -e .`, let COURSE_CHECKPOINTS name the folder data/checkpoints of one, or "
        f"{train}"
    )


def _folder(folder: str | os.PathLike | None) -> Path:
    if folder is None:
        return checkpoint_folder()
    if not isinstance(folder, str | os.PathLike):
        raise ValueError(f"folder must be a path or None, got {folder!r}")
    return Path(folder)


def _check_card(card: Mapping[str, Any]) -> None:
    if not isinstance(card, Mapping) or set(card) != set(GIVEN):
        raise ValueError(f"card must be a mapping of {', '.join(GIVEN)}, got {card!r}")
    recipe(card["recipe"])
    for key in ("summary", "command", "data"):
        if not isinstance(card[key], str):
            raise ValueError(f"card[{key!r}] must be text, got {card[key]!r}")
    check_int("card['seed']", card["seed"], minimum=0)
    check_int("card['steps']", card["steps"], minimum=1)
    if not isinstance(card["metrics"], Mapping):
        raise ValueError(f"card['metrics'] must be a mapping, got {card['metrics']!r}")
    check_metrics(card["metrics"])


def check_metrics(metrics: Mapping[str, float | list[dict]]) -> None:
    """Require finite numbers, and tables of numbers and words (``ValueError``)."""
    for metric, value in metrics.items():
        if isinstance(value, list):
            _check_table(metric, value)
        else:
            check_number(f"metric {metric}", value, above=float("-inf"))


def _check_table(metric: str, rows: list) -> None:
    if not rows:
        raise ValueError(f"metric {metric} must have a row at least, got []")
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping) or not all(isinstance(column, str) for column in row):
            raise ValueError(f"metric {metric}[{i}] must be a row of named values, got {row!r}")
        for column, value in row.items():
            if not isinstance(value, str):
                check_number(f"metric {metric}[{i}][{column!r}]", value, above=float("-inf"))


def _check_module(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {model!r}")
