"""The command line of the course: ``python -m course_lib train | measure | list | store``."""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from course_lib.checks import check_int
from course_lib.training import (
    RECIPES,
    STUDIES,
    DivergedError,
    LostProcessError,
    checkpoint_folder,
    load_card,
    load_study,
    recipe,
    run_recipe,
    run_study,
    study,
    study_folder,
)
from course_lib.training.files import check_folder
from course_lib.training.run import default_folder


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str):
        self.exit(2, f"error: {message} (see --help)\n")


def main(argv: list[str]) -> int:
    """Run one command and return its exit code: 0, 2 after an error, 130 after Ctrl-C."""
    if argv[:1] == ["store"]:
        from course_lib.widgets import store

        return store.main(argv[1:]) or 0

    parser = Parser(
        prog="python -m course_lib",
        description="Train and list the course's models; run and store its notebooks.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train a model by its recipe and store it")
    training.add_argument("name", metavar="NAME", help="a recipe; `list` shows them all")
    training.add_argument(
        "--steps", type=int, help="train for so many steps, and store the model in runs/ or --out"
    )
    training.add_argument("--out", type=Path, metavar="DIR", help="store the model in DIR")
    training.add_argument("--fresh", action="store_true", help="don't resume an unfinished run")
    training.add_argument("--threads", type=int, help="number of CPU threads")
    measuring = commands.add_parser("measure", help="run a study and store what it found")
    measuring.add_argument("name", metavar="NAME", help="a study; `list` shows them all")
    measuring.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        default=Path("runs"),
        help="keep in DIR/NAME what is done of an unfinished run (default: runs)",
    )
    measuring.add_argument("--out", type=Path, metavar="DIR", help="store what it found in DIR")
    measuring.add_argument("--fresh", action="store_true", help="don't resume an unfinished run")
    measuring.add_argument("--threads", type=int, help="number of CPU threads")
    listing = commands.add_parser(
        "list", help="show all recipes and studies, or what one of them measured"
    )
    listing.add_argument("name", metavar="NAME", nargs="?", help="show what this one measured")
    commands.add_parser("store", help="run the notebooks and store them with their outputs")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "list":
            list_all(arguments.name)
        elif arguments.command == "measure":
            measure(arguments)
        else:
            train(arguments)
    except (ValueError, DivergedError, LostProcessError, OSError) as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        print(f"error: {error}{notes}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(
            f"{str(interrupt) or 'stopped'}: the same command goes on from there", file=sys.stderr
        )
        return 130
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
    return 0


def train(arguments: argparse.Namespace) -> None:
    """Train one model; its unfinished state is kept in ``runs/`` of the current folder.

    With ``--out DIR`` nothing is written outside of DIR.
    """
    chosen = recipe(arguments.name)
    set_threads(arguments.threads)
    if arguments.out is not None:
        check_folder("--out", arguments.out)
    folder = arguments.out or default_folder(chosen, arguments.steps)
    resume = Path("runs") / f"{chosen.name}.safetensors"
    if arguments.out is not None:
        resume = arguments.out / f"{chosen.name}.unfinished.safetensors"
    if arguments.fresh:
        resume.unlink(missing_ok=True)
    elif resume.exists() and os.environ.get("RANK", "0") == "0":
        print(f"Resuming from {resume} (--fresh starts anew)", flush=True)
    card = run_recipe(chosen, steps=arguments.steps, folder=folder, resume=resume)
    if card is not None:
        print(f"stored in {folder} (--out DIR stores elsewhere)")
        print("\n".join(metric_lines(card["metrics"])))


def measure(arguments: argparse.Namespace) -> None:
    """Run one study; what is done of it is kept in ``runs/NAME`` of the current folder."""
    chosen = study(arguments.name)
    set_threads(arguments.threads)
    unfinished = arguments.folder / chosen.name
    if arguments.fresh:
        shutil.rmtree(unfinished, ignore_errors=True)
    elif unfinished.exists():
        print(f"Resuming from {unfinished} (--fresh starts anew)", flush=True)
    stored = run_study(chosen, folder=arguments.folder, out=arguments.out)
    print(f"stored in {arguments.out or study_folder()} (--out DIR stores elsewhere)")
    print("\n".join(metric_lines(stored["metrics"])))


def set_threads(threads: int | None) -> None:
    """Let PyTorch use so many threads of the CPU; None for as many as it likes."""
    if threads is not None:
        check_int("--threads", threads, minimum=1)
        torch.set_num_threads(threads)


def metric_lines(metrics: Mapping[str, float | list[dict]]) -> Iterator[str]:
    """What a card has measured: a line for each number and for each row of a table."""
    for metric, value in metrics.items():
        for row in value if isinstance(value, list) else [{"": value}]:
            words = (
                f"{k} {v if isinstance(v, str) else f'{v:.4g}'}".strip() for k, v in row.items()
            )
            yield f"{metric}: {', '.join(words)}"


def list_all(name: str | None = None) -> None:
    """Print a short line for each recipe and each study, or all that is known of one."""
    if name in STUDIES:
        print(study(name).summary)
        print("\n".join(metric_lines(load_study(name)["metrics"])))
        return
    if name is not None:
        print(recipe(name).summary)
        print("\n".join(metric_lines(load_card(name)["metrics"])))
        return
    wide = max(map(len, {**RECIPES, **STUDIES}))
    for known, folder in ((RECIPES, checkpoint_folder()), (STUDIES, study_folder())):
        for name, one in sorted(known.items()):
            stored = "stored" if (folder / f"{name}.json").is_file() else "-"
            print(f"{name:{wide}}  {stored:6}  {one.summary}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
