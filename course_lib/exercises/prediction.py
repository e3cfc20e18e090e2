"""Exercises that ask for a number, before anything is computed.

A wrong number that people give stands beside what to say to it, ``Slip(6, "That many bits has one
code.", "The map has 7 × 7 of them.")``, and nowhere else: ``tests/exercises/laws.py`` gives them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from course_lib.exercises.attempt import Mistake, take_number
from course_lib.exercises.registry import exercise

__all__ = ["Slip", "asked", "prediction"]


@dataclass(frozen=True)
class Slip:
    """A wrong number that people give, what to say, a hint, and how near an answer has to be."""

    number: float
    says: str
    hint: str = ""
    within: float = 0.0


def prediction(
    name: str,
    *,
    task: str,
    solution: Any,
    hints: Sequence[str],
    right: float,
    within: float = 0.0,
    wrong: Sequence[Slip] | Callable[[], Sequence[Slip]],
    passes: str | Callable[[torch.Generator], str],
    question: str,
    hint: str = "",
    otherwise: Callable[[float], tuple[str, str]] | None = None,
    **kind: Any,
) -> None:
    """Register an exercise that asks for a number.

    Args:
        name: Chapter and exercise; ``task``, ``solution`` and ``hints`` as for ``exercise``.
        task: One line that says what to predict.
        solution: What of the library computes the number.
        hints: From general to specific.
        right: The number ...
        within: ... and how near an answer has to be.
        wrong: The slips, of which the first that is near is named; or a function that computes
            them. They need not be of the kind that is asked for.
        passes: What holds, in a sentence; or a function of a generator that gives it.
        question: Asked again where the answer is no number of the kind that is asked for.
        hint: What is said where nothing else is; without it, the question.
        otherwise: Reason and hint for other numbers; without it, that they are too few or many.
        **kind: ``low``, ``high``, ``whole`` and ``subject``, as for ``take_number``.

    """

    def slips() -> list[Slip]:
        known = wrong() if callable(wrong) else wrong
        return [replace(slip, hint=slip.hint or hint or question) for slip in known]

    def judge(attempt: Any, generator: torch.Generator) -> str:
        number = attempt
        if isinstance(number, Tensor) and number.numel() == 1 and number.device.type != "meta":
            number = number.item()
        if isinstance(number, Real) and not isinstance(number, bool):
            number = int(number) if isinstance(number, Integral) else float(number)
            if abs(number - right) <= within:
                return passes(generator) if callable(passes) else passes
            for slip in slips():
                if abs(number - slip.number) <= slip.within:
                    raise Mistake(slip.says, slip.hint)
        got = take_number(number, question, **kind)
        if otherwise is not None:
            raise Mistake(*otherwise(got))
        in_words = f"{got:,}" if got < 10**12 else "That"
        raise Mistake(f"{in_words} is too {'many' if got > right else 'few'}.", hint or question)

    _ASKED[name] = Asked(right, slips, kind, otherwise is None)
    exercise(name, task=task, solution=solution, hints=hints)(judge)


@dataclass(frozen=True)
class Asked:
    """What a declared prediction asks for: see ``prediction``.

    ``in_general`` says whether other numbers are called too few or too many.
    """

    right: float
    slips: Callable[[], list[Slip]]
    kind: dict[str, Any]
    in_general: bool


_ASKED: dict[str, Asked] = {}


def asked(chapter: str) -> dict[str, Asked]:
    """The predictions of a chapter such as ``"04"``, by name."""
    return {name: question for name, question in _ASKED.items() if name.startswith(f"{chapter}.")}
