"""The exercises by name: check an attempt, ask for hints, look at the solution.

A chapter adds an exercise with the decorator ``exercise`` on a checker::

    @exercise(
        "04.half",
        task="Write `half(x)`, which halves a tensor of any shape.",
        signature="half(x)",
        solution=course_lib.some_part.half,
        hints=["What is the opposite of doubling?", "Divide by 2."],
    )
    def check_half(attempt: Attempt, generator: torch.Generator) -> str:
        x = torch.randn(5, 3, generator=generator)
        half = take_tensor("result", attempt(x), x.shape, dtype=x.dtype)
        if same(half, 2 * x):
            raise Mistake("You double instead.", "Divide by 2.")
        if not same(half + half, x):
            raise Mistake("Twice your result is not x.", "Print both for one small x.")
        return "Twice your result is x."
"""

import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from course_lib.checks import check_one_of
from course_lib.exercises.attempt import Attempt, Mistake, NotAttempted, first_line
from course_lib.exercises.display import Hints, Result, Source, show_source

__all__ = ["Exercise", "check", "exercise", "exercises", "hint", "solution"]

# Takes an attempt (of an exercise without a signature: the reader's value itself) and a source of
# fresh randomness; returns what holds, in a sentence, or raises Mistake or NotAttempted.
Checker = Callable[[Any, torch.Generator], str]


@dataclass(frozen=True)
class Exercise:
    """One exercise: see ``exercise`` for the meaning of the attributes."""

    name: str
    task: str
    signature: str | None
    solution: Any
    hints: Sequence[str]
    checker: Checker

    def argument_names(self) -> list[str]:
        """The names of the arguments in ``signature``."""
        inside = self.signature[self.signature.index("(") + 1 : self.signature.index(")")]
        return [name.strip() for name in inside.split(",")]


_EXERCISES: dict[str, Exercise] = {}


def exercise(
    name: str,
    *,
    task: str,
    solution: Any,
    hints: Sequence[str],
    signature: str | None = None,
) -> Callable[[Checker], Checker]:
    """Register the decorated checker under a name.

    Args:
        name: Chapter and exercise, like ``"04.additive_coupling"``.
        task: One line that says what to do.
        solution: The function, method or class of the library that does it, or several of them.
        hints: From general to specific.
        signature: The call of the function to write; None where the reader gives a value, such as
            a prediction.

    Raises:
        ValueError: When another exercise has the name.

    """
    if not re.fullmatch(r"\d\d\.[a-z][a-z0-9_]*", name):
        raise ValueError(f"name must look like '04.additive_coupling', got {name!r}")
    if not task or "\n" in task:
        raise ValueError(f"task must be one line, got {task!r}")
    if isinstance(hints, str) or len(hints) == 0:
        raise ValueError(f"hints must be a list of at least one hint, got {hints!r}")
    if signature is not None and not re.fullmatch(r"\w+\([\w, ]+\)( -> .+)?", signature):
        raise ValueError(f"signature must look like 'f(x, y) -> z', got {signature!r}")

    def register(checker: Checker) -> Checker:
        new = Exercise(name, task, signature, solution, tuple(hints), checker)
        old = _EXERCISES.setdefault(name, new)
        # The same checker comes again when a module is reloaded.
        if old.checker.__qualname__ != checker.__qualname__:
            raise ValueError(f"name must be new, got {name!r} for a second exercise")
        _EXERCISES[name] = new
        return checker

    return register


def check(name: str, attempt: Any) -> Result:
    """Judge an attempt at an exercise on fresh random inputs.

    The verdict is "not attempted" while ``attempt`` is None or ``...``, or a function that returns
    them. PyTorch's global generator is left as it was. In a notebook the verdict displays itself,
    wherever in the cell this stands; hints and solutions do, too. A call of your function that
    takes longer than 20 seconds is ended (in the main thread, where a notebook's cells run, but not
    on Windows).

    Args:
        name: The exercise, like ``"04.additive_coupling"``.
        attempt: The function you wrote, or the value you predict.

    Raises:
        ValueError: When there is no exercise of that name; the message lists those there are.

    """
    return _judge(_find(name), attempt).show()


def _judge(exercise: Exercise, attempt: Any) -> Result:
    name = exercise.name
    if attempt is None or attempt is ...:
        return Result(name, "not attempted", _invitation(exercise))
    if exercise.signature is not None:
        if not callable(attempt):
            return Result(
                name,
                "fails",
                f"You gave a value of type {type(attempt).__name__}, not a function.",
                "Give the function itself, without calling it: "
                f'`check("{name}", {exercise.signature.split("(")[0]})`.',
            )
        attempt = Attempt(attempt, exercise.argument_names())
    generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))
    where = ""
    try:
        with _own_settings():
            return Result(name, "passes", exercise.checker(attempt, generator))
    except NotAttempted:
        return Result(name, "not attempted", _invitation(exercise))
    except Mistake as mistake:
        reason, hint = mistake.reason, mistake.hint
    except (Exception, SystemExit) as error:
        reason = f"Your answer could not be judged: `{first_line(error)}`."
        hint = "Is it an ordinary tensor, of the shape that the task asks for?"
    if isinstance(attempt, Attempt):
        where = attempt.where
    return Result(name, "fails", reason, hint, where)


@contextmanager
def _own_settings() -> Iterator[None]:
    """Judge alike whatever the notebook has set, and leave its settings and randomness alone."""
    dtype = torch.get_default_dtype()
    # A device set as a context slows every operation down: only where another one is the default.
    elsewhere = torch.get_default_device().type != "cpu"
    device = torch.device("cpu") if elsewhere else nullcontext()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), device:
            yield
    finally:
        torch.set_default_dtype(dtype)


def _invitation(exercise: Exercise) -> str:
    if exercise.signature is None:
        return f"{exercise.task} Put your answer in place of the dots and run this cell again."
    return f"{exercise.task} So far your function returns nothing (is there a `return`?)."


def hint(name: str) -> Hints:
    """Hints for an exercise, from general to specific; each opens inside the one before.

    Raises:
        ValueError: When there is no exercise of that name; the message lists those there are.

    """
    return Hints(name, _find(name).hints).show()


def solution(name: str) -> Source:
    """The solution of an exercise: the source that the library itself runs and tests.

    Raises:
        ValueError: When there is no exercise of that name; the message lists those there are.

    """
    exercise = _find(name)
    return replace(show_source(exercise.solution), note=_other_arguments(exercise)).show()


def _other_arguments(exercise: Exercise) -> str:
    """Which of the arguments of an exercise the library's own code does not take by their names."""
    if exercise.signature is None:
        return ""
    parts = (
        exercise.solution if isinstance(exercise.solution, list | tuple) else (exercise.solution,)
    )
    taken = {name for part in parts for name in inspect.signature(part).parameters}
    missing = [f"`{name}`" for name in exercise.argument_names() if name not in taken]
    if not missing:
        return ""
    return (
        f"You were asked for `{exercise.signature}`. The library's code has other arguments: find "
        f"{', '.join(missing)} among them, in `self`, or in what it calls."
    )


def exercises(chapter: str | None = None) -> dict[str, str]:
    """All exercises, or those of one chapter such as ``"04"``: their names and tasks.

    Raises:
        ValueError: When the chapter has no exercises; the message lists the chapters that do.

    """
    if chapter is not None:
        check_one_of("chapter", chapter, {name.split(".")[0] for name in _EXERCISES})
    return {
        name: exercise.task
        for name, exercise in sorted(_EXERCISES.items())
        if chapter is None or name.startswith(f"{chapter}.")
    }


def _find(name: str) -> Exercise:
    if isinstance(name, str) and name in _EXERCISES:
        return _EXERCISES[name]
    chapter = name.split(".")[0] if isinstance(name, str) else ""
    own = [known for known in _EXERCISES if known.split(".")[0] == chapter]
    if not own:
        chapters = ", ".join(sorted({known.split(".")[0] for known in _EXERCISES}))
        raise ValueError(
            f"name must begin with one of the chapters {chapters}, like 04.additive_coupling, "
            f"got {name!r}"
        )
    check_one_of("name", name, own)
    return _EXERCISES[name]
