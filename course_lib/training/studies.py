"""Studies: tables that are measured by training several models, whose weights nobody keeps.

A study is an ordinary value, as a recipe is. ``python -m course_lib measure NAME`` runs it and
stores what it found as ``data/studies/NAME.json``, with all that it takes to find it again. To add
one, write in a module ``studies_<family>.py``, which ``course_lib/training/__init__.py`` imports::

    register_study(
        Study(
            name="which_rate",
            summary="The loss after a minute, by learning rate",
            data='load_digits("train")',
            budget=60.0,
            seeds=(0, 1, 2),
            run=lambda folder: {"losses": [{"rate": 1e-3, "seed": 0, "loss": 0.31}]},
        )
    )

"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from course_lib.checks import check_int, check_number, check_one_of
from course_lib.training.checkpoints import ROOT, check_metrics
from course_lib.training.files import check_folder, write_atomically
from course_lib.training.recipes import check_name

__all__ = [
    "STUDIES",
    "Study",
    "load_study",
    "register_study",
    "run_study",
    "started",
    "study",
    "study_folder",
]

FIELDS = ("name", "summary", "command", "data", "budget", "seeds", "torch", "metrics")


@dataclass(frozen=True)
class Study:
    """What is measured by training, and how.

    Args:
        name: The name of the stored file: lower-case letters, digits, ``-`` and ``_``.
        summary: One line for people.
        data: What the models are trained on, in words.
        budget: Seconds of processor time that each of them is trained for; about so many, where
            it is a number of steps that is equal.
        seeds: Of their random starts, batches and noise: each model is trained once from each.
        run: Measures: a number or a table for each name, as the ``metrics`` of a checkpoint's card.
            It gets a folder of its own, and keeps there what it has done: called again with the
            same folder it goes on from there.

    """

    name: str
    summary: str
    data: str
    budget: float
    seeds: tuple[int, ...]
    run: Callable[[Path], Mapping[str, float | list[dict]]]

    def __post_init__(self):
        check_name(self.name)
        for field in ("summary", "data"):
            if not isinstance(text := getattr(self, field), str) or not text.strip():
                raise ValueError(f"{field} must be a line of text, got {text!r}")
        check_number("budget", self.budget, above=0)
        if not isinstance(self.seeds, tuple) or not self.seeds:
            raise ValueError(f"seeds must be a tuple of whole numbers, got {self.seeds!r}")
        for i, seed in enumerate(self.seeds):
            check_int(f"seeds[{i}]", seed, minimum=0)
        if not callable(self.run):
            raise ValueError(f"run must be a function, got {self.run!r}")


def started(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A model whose random start is drawn from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


STUDIES: dict[str, Study] = {}


def register_study(new: Study) -> Study:
    """Make a study known under its name, which must be its own, and return it."""
    if not isinstance(new, Study):
        raise ValueError(f"new must be a Study, got {new!r}")
    if new.name in STUDIES:
        raise ValueError(f"new must have a name of its own, got {new.name!r} a second time")
    STUDIES[new.name] = new
    return new


def study(name: str) -> Study:
    """The study of that name; the message of the error lists all names."""
    check_one_of("study", name, STUDIES)
    return STUDIES[name]


def study_folder() -> Path:
    """Where studies are stored: ``$COURSE_STUDIES``, or ``data/studies`` of the course."""
    default = ROOT / "data" / "studies"
    return Path(os.environ.get("COURSE_STUDIES") or default).expanduser()


def run_study(
    study: Study,
    *,
    folder: str | os.PathLike = "runs",
    out: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Measure and store; what is done of an unfinished run lies in ``folder / NAME`` meanwhile.

    Args:
        study: The study.
        folder: Where that folder of its name is made, and removed once the study is stored.
        out: Where to store; by default ``study_folder()``.

    Returns:
        What is stored: ``name``, ``summary``, ``command``, ``data``, ``budget``, ``seeds``,
        ``torch`` (the version) and ``metrics``.

    """
    if not isinstance(study, Study):
        raise ValueError(f"study must be a Study, got {study!r}")
    unfinished, out = _path("folder", folder) / study.name, _folder("out", out)
    check_folder("folder", unfinished)
    check_folder("out", out)
    unfinished.mkdir(parents=True, exist_ok=True)
    with torch.device("cpu"):
        metrics = dict(study.run(unfinished))
    check_metrics(metrics)
    stored = {
        "name": study.name,
        "summary": study.summary,
        "command": f"python -m course_lib measure {study.name}",
        "data": study.data,
        "budget": study.budget,
        "seeds": list(study.seeds),
        "torch": torch.__version__,
        "metrics": metrics,
    }
    text = json.dumps(stored, indent=2, ensure_ascii=False) + "\n"
    write_atomically(out / f"{study.name}.json", text.encode())
    shutil.rmtree(unfinished)
    return stored


def load_study(name: str, *, folder: str | os.PathLike | None = None) -> dict[str, Any]:
    """What is stored of a study, as returned by ``run_study``.

    Raises:
        ValueError: When the name is malformed, or the file is missing or damaged; the message
            names the file and how to make it anew.

    """
    check_name(name)
    path = _folder("folder", folder) / f"{name}.json"
    remedy = f"run `python -m course_lib measure {name}`"
    if (ROOT / "pyproject.toml").is_file():
        remedy += ", or restore it with `git checkout`"
    try:
        stored = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}): {remedy}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error
    if not isinstance(stored, dict) or set(stored) != set(FIELDS) or stored["name"] != name:
        raise ValueError(f"{path} is not what is stored of {name}: {remedy}")
    return stored


def _path(name: str, folder: str | os.PathLike) -> Path:
    if not isinstance(folder, str | os.PathLike):
        raise ValueError(f"{name} must be a path, got {folder!r}")
    return Path(folder)


def _folder(name: str, folder: str | os.PathLike | None) -> Path:
    return study_folder() if folder is None else _path(name, folder)
