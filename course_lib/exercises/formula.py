"""Exercises that ask for a formula: declared by inputs, the right function and wrong functions.

A mistake is written once, as the *function* that a reader with this mistake writes, beside what to
say to it. ``formula`` makes an exercise of such a table::

    formula(
        "04.bits",
        task="Write `bits`: log-densities [B] in nats as bits.",
        signature="bits(log_prob) -> [B]",
        solution=in_bits,
        hints=["A bit is log 2 nats.", "Divide by log 2."],
        right=in_bits,
        inputs=lambda generator: [(torch.randn(7, generator=generator),)],
        axes="[B] -> [B]",
        gradients=["log_prob"],
        wrong=[
            usual("sign"),
            Wrong(lambda p: p * math.log(2), "You multiply by log 2.", "Divide."),
        ],
        otherwise=("Your result is not log_prob / log 2.", "Try log_prob = log 2."),
        passes="Your numbers are bits; gradients reach log_prob.",
    )

``judge`` draws inputs until no mistake looks like another, nor like the right answer, on all of
them; compares the attempt with the right function, in its values and then in its gradients; and
names the mistake that gives what the attempt gives. ``tests/exercises/laws.py`` tries every wrong
function of every table.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from course_lib.exercises.attempt import Attempt, Mistake, gradients_of, take_results, take_tensor
from course_lib.exercises.registry import exercise

__all__ = ["BATCH", "SHAPES", "USUAL", "Case", "Formula", "Wrong", "declared", "formula", "usual"]

# Shapes of a batch where any shape is promised: numbers, sequences, vectors, images with several
# channels. Batches as long as the last axes are among them: there a forgotten axis broadcasts.
SHAPES = ((7,), (6, 6), (4, 3, 5), (6, 2, 6, 6), (3, 3, 5, 4))

BATCH = 7  # not the number of coordinates, so that swapped axes show

Advice = tuple[str, str]  # what is wrong, and a hint
_DRAWS = 300  # tries until all mistakes are apart


@dataclass(frozen=True)
class Wrong:
    """A mistake that people make.

    Args:
        answer: The function that they write: of the reader's arguments, with all results.
        says: What is wrong, in a sentence.
        hint: Help with this very mistake; where empty, the exercise's ``hint``.

    """

    answer: Callable[..., Any]
    says: str
    hint: str = ""


def _over_batch(reduce: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda y: reduce(y).expand_as(y).clone()


# fmt: off
# The mistakes that are possible almost everywhere: what they make of a right result, what to say.
USUAL: dict[str, tuple[Callable[[Tensor], Tensor], str, str]] = {
    "sign": (lambda y: -y, "Your {name} has the wrong sign.", "Try one number by hand."),
    "bits": (lambda y: y / math.log(2), "Your {name} is in bits.", "Use the natural logarithm."),
    "nats": (lambda y: y * math.log(2), "Your {name} is in nats.", "A bit is log 2 nats: divide."),
    "double": (lambda y: 2 * y, "Your {name} is twice as large as it should be.", ""),
    "half": (lambda y: y / 2, "Your {name} is half as large as it should be.", ""),
    "exp": (lambda y: y.exp(), "Your {name} has its logarithm left out.", "Take the logarithm."),
    "log": (lambda y: y.abs().log(), "You take a logarithm too many.", ""),
    "root": (lambda y: y.abs().sqrt(), "You take a square root too many.", ""),
    "square": (lambda y: y**2, "The square root is missing in your {name}.", ""),
    "inverse": (lambda y: 1 / y, "Your {name} is upside down: 1 / {name} is asked for.", ""),
    "absolute": (lambda y: y.abs(), "Your {name} has lost its sign.", ""),
    "batch mean": (_over_batch(lambda y: y.mean(0, keepdim=True)),
                   "Every {example} gets the mean of the batch.", "Reduce {axis} alone."),
    "batch sum": (_over_batch(lambda y: y.sum(0, keepdim=True)),
                  "Every {example} gets the sum of the batch.", "Reduce {axis} alone."),
    "first": (_over_batch(lambda y: y[:1]), "Every {example} gets what the first one has.", ""),
    "detached": (lambda y: y.detach(), "No gradient flows from your {name}.", ""),
}
# fmt: on


@dataclass(frozen=True)
class _Usual:
    kind: str
    says: str
    hint: str
    part: str


def usual(kind: str, says: str = "", hint: str = "", *, part: str = "") -> _Usual:
    """A mistake of the list ``USUAL``, in the words of the list or in words of its own.

    Args:
        kind: A key of ``USUAL``.
        says: What is wrong, where the list's words don't fit.
        hint: Help, where the list's does not fit.
        part: The result that it touches, where there are several; else all of them.

    """
    return _Usual(kind, says, hint, part)


@dataclass(frozen=True)
class Case:
    """One call of the attempt, where a plain tuple of arguments does not say enough.

    Args:
        inputs: The arguments.
        fails: What to say when all cases before are right, this one is not, and no mistake of the
            table explains it: a pair, or a function of ``(got, right, *inputs)``. Such a case is
            out of the ordinary (large numbers, say): a mistake is named even where it differs here.
        gradients: Whether gradients are compared, too.

    """

    inputs: Sequence[Any]
    fails: Advice | Callable[..., Advice] | None = None
    gradients: bool = True


@dataclass
class Formula:
    """A declared exercise.

    Args:
        name: Chapter and exercise.
        signature: The call of the function to write.
        right: The right function of the reader's arguments.
        inputs: Draws the cases: tuples of arguments, or ``Case``.
        wrong: The table of mistakes. Mistakes that say the same may look alike, and of two that
            explain an answer equally well the first is named.
        otherwise: Reason and hint when nothing explains the values, or a function of ``(got,
            right, *inputs)`` that gives them; where there are several results, one for each, under
            its name.
        passes: What holds, in a sentence; or a function of ``(attempt, generator)`` that gives it,
            and may look further and raise ``Mistake``.
        result: What the messages call the result, or several in their order.
        axes: The axes of arguments and results in words, like ``"[draws, B] -> [B]"``, for the
            messages about shapes. ``*`` before a word stands for any number of axes, an argument
            that is no tensor is ``_``.
        gradients: The arguments that gradients are taken by; or, under the words for it, a
            function of all arguments that finds a source (weights of a network), None for an
            argument of that name.
        gradient_hint: Helps a reader who lost them.
        hint: What is said to mistakes that have no hint of their own.
        tolerance: Values agree up to this, relative and absolute; or this for each result, by name.
        take: Called with the answer and the inputs before values are compared: brings an answer
            into the form that is compared, or raises ``Mistake``.

    """

    name: str
    signature: str
    right: Callable[..., Any]
    inputs: Callable[[torch.Generator], Sequence[Any]]
    wrong: Sequence[Wrong | _Usual]
    otherwise: Any
    passes: str | Callable[[Attempt, torch.Generator], str]
    result: str | Sequence[str] = "result"
    axes: str = ""
    gradients: Sequence[str] | Mapping[str, Callable[..., Tensor] | None] = ()
    gradient_hint: str = "No `detach`, no `.item()`, no `no_grad`, no NumPy: training needs it."
    hint: str = "Compare with the formula, term by term."
    tolerance: float | Mapping[str, float] = 1e-4
    take: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        inside = self.signature.split("(")[1].split(")")[0]
        self.arguments = [part.strip() for part in inside.split(",")]
        self.results = [self.result] if isinstance(self.result, str) else list(self.result)
        if not isinstance(self.gradients, Mapping):
            self.gradients = dict.fromkeys(self.gradients)
        words = _Axes(self.axes, ()).words()
        table = [
            _bind(w, self.right, self.results, words) if isinstance(w, _Usual) else w
            for w in self.wrong
        ]
        self.wrong = [w if w.hint else replace(w, hint=self.hint) for w in table]

    def judge(
        self, attempt: Attempt, generator: torch.Generator, drawn: tuple | None = None
    ) -> str:
        """The checker: what holds, in a sentence; else ``Mistake`` or ``NotAttempted``.

        What ``draw`` gave may be judged on again and again.
        """
        cases, truths, prints = self.draw(generator) if drawn is None else drawn
        answers = self._answers(attempt, cases, truths)
        self._judge_values(attempt, cases, truths, prints, answers)
        if self.gradients:
            self._judge_gradients(attempt, cases)
        return self.passes if isinstance(self.passes, str) else self.passes(attempt, generator)

    # --- Drawing ---

    def draw(self, generator: torch.Generator) -> tuple[list[Case], list, list]:
        """Cases on which all mistakes are apart, and the values of right and wrong functions.

        Values stand in a list of cases, each a list of results; None is a function that stops.
        """
        for _ in range(_DRAWS):
            cases = [c if isinstance(c, Case) else Case(c) for c in self.inputs(generator)]
            truths = [self._values(self.right, case) for case in cases]
            prints = [[self._values(w.answer, case) for case in cases] for w in self.wrong]
            alike = self._look_alike(cases, truths, prints)
            if alike is None:
                return cases, truths, prints
        raise RuntimeError(f"two mistakes of {self.name} look alike: {alike[0]} {alike[1]}")

    def _values(self, function: Callable[..., Any], case: Case) -> list[Tensor] | None:
        try:
            answer = function(*(_fresh(value) for value in case.inputs))
            if self.take is not None:
                answer = self.take(answer, *case.inputs)
            parts = [answer] if len(self.results) == 1 else list(answer)
        except (Exception, Mistake):
            if function is self.right:
                raise
            return None
        return [part.detach() if isinstance(part, Tensor) else part for part in parts]

    def _look_alike(self, cases: list[Case], truths: list, prints: list) -> tuple[str, str] | None:
        """Two mistakes (or "the right answer" and a mistake) that no case tells apart, if any."""
        says = ["The right answer.", *(w.says for w in self.wrong)]
        functions = [self.right, *(w.answer for w in self.wrong)]
        by_gradient: dict[int, Any] = {}
        for i, j in _not_apart([truths, *prints], max(1e-3, 3 * self._loosest())):
            if says[i] == says[j]:
                continue
            if not self.gradients:
                return says[j], says[i]
            for k in (i, j):
                if k not in by_gradient:
                    by_gradient[k] = [self._gradients(functions[k], case) for case in cases]
            if not _apart(by_gradient[i], by_gradient[j]):
                return says[j], says[i]
        return None

    # --- Values ---

    def _answers(self, attempt: Attempt, cases: list[Case], truths: list) -> list:
        """The attempt's results and the words for its inputs, up to where it breaks."""
        answers: list[tuple[list[Any] | Mistake, str]] = []
        wrong_before = False
        for case, truth in zip(cases, truths, strict=True):
            try:
                answer = attempt(*map(_fresh, case.inputs))
                if self.take is not None:
                    answer = self.take(answer, *case.inputs)
                parts = [answer] if len(self.results) == 1 else take_results(self.results, answer)
            except Mistake as mistake:
                if not wrong_before:
                    raise
                answers.append((mistake, attempt.where))
                break
            answers.append((list(parts), attempt.where))
            wrong_before = wrong_before or not all(
                self._fits(k, part, right)
                for k, (part, right) in enumerate(zip(parts, truth, strict=True))
            )
        return answers

    def _near(self, k: int) -> float:
        """The tolerance of result ``k``."""
        by_name = self.tolerance
        return by_name[self.results[k]] if isinstance(by_name, Mapping) else by_name

    def _loosest(self) -> float:
        return max(self._near(k) for k in range(len(self.results)))

    def _fits(self, k: int, part: Any, right: Tensor) -> bool:
        plain = isinstance(part, Tensor) and part.layout == torch.strided
        return (
            plain
            and part.device == right.device
            and part.dtype == right.dtype
            and _alike(part.detach(), right, self._near(k))
        )

    def _judge_values(
        self, attempt: Attempt, cases: list[Case], truths: list, prints: list, answers: list
    ) -> None:
        """Raise the mistake in the first result that is wrong anywhere."""
        for k, name in enumerate(self.results):
            for i, (parts, where) in enumerate(answers):
                if isinstance(parts, Mistake) or self._fits(k, parts[k], truths[i][k]):
                    continue
                # Right values of another dtype, say, are no mistake of the table.
                fair = not _alike(parts[k], truths[i][k], self._near(k))
                known = self._match(answers, prints, cases, truths, k, i) if fair else None
                attempt.where = where
                if known is not None:
                    raise Mistake(known.says, known.hint)
                self._raise_unknown(attempt, cases[i], parts, truths[i], k, name)
        if answers and isinstance(answers[-1][0], Mistake):
            raise answers[-1][0]

    def _match(
        self, answers: list, prints: list, cases: list[Case], truths: list, k: int, first: int
    ) -> Wrong | None:
        """The mistake that explains result ``k`` in all ordinary cases, and most of the others."""
        best, most = None, 0
        for wrong, values in zip(self.wrong, prints, strict=True):
            score = 0
            for i, (parts, _) in enumerate(answers):
                if values[i] is None or isinstance(parts, Mistake):
                    if i == first:
                        break
                    continue
                if i == first and _alike(values[i][k], truths[i][k]):
                    break  # it touches another result
                hits = [
                    isinstance(part, Tensor) and _alike(part.detach(), value, self._loosest())
                    for part, value in zip(parts, values[i], strict=True)
                ]
                # On a case of its own kind other slips may be added to this one.
                if not hits[k] and (i == first or cases[i].fails is None):
                    break
                score += sum(hits)
            else:
                if score > most:
                    best, most = wrong, score
        return best

    def _raise_unknown(
        self, attempt: Attempt, case: Case, parts: list, truth: list, k: int, name: str
    ) -> None:
        if case.fails is not None:
            fails = case.fails
            raise Mistake(*(fails(parts[k], truth[k], *case.inputs) if callable(fails) else fails))
        shapes = _Axes(self.axes, case.inputs)
        if len(parts) == 2 and all(map(self._fits, (0, 1), parts, reversed(truth))):
            first, second = self.results
            raise Mistake(
                f"You swap the two results: {first} comes first.", f"`return {first}, {second}`."
            )
        got = take_tensor(
            name,
            parts[k],
            truth[k].shape,
            dtype=truth[k].dtype,
            infinite=bool(truth[k].isinf().any()),
            about_shape=shapes.hint(k) if self.axes else None,
        )
        again = attempt(*map(_fresh, case.inputs))
        if self.take is not None:
            again = self.take(again, *case.inputs)
        again = [again] if len(self.results) == 1 else take_results(self.results, again)
        if not (isinstance(again[k], Tensor) and _alike(again[k].detach(), got.detach())):
            raise Mistake(
                f"Your {name} is another one when you are asked again with the same inputs: it "
                "is drawn at random.",
                "Everything is given here: compute, draw nothing.",
            )
        advice = self.otherwise[name] if isinstance(self.otherwise, Mapping) else self.otherwise
        if callable(advice):
            advice = advice(got.detach(), truth[k], *map(_fresh, case.inputs))
        raise Mistake(*advice)

    # --- Gradients ---

    def _gradients(self, function: Callable[..., Any], case: Case) -> list[Tensor | None] | None:
        """The gradient of every result by every source, None where none flows."""
        if not case.gradients:
            return []
        inputs = [
            _fresh(value).requires_grad_() if name in self.gradients else _fresh(value)
            for name, value in zip(self.arguments, case.inputs, strict=True)
        ]
        given = dict(zip(self.arguments, inputs, strict=True))
        sources = [given[n] if get is None else get(*inputs) for n, get in self.gradients.items()]
        answer = function(*inputs)
        if self.take is not None:
            answer = self.take(answer, *inputs)
        parts = [answer] if len(self.results) == 1 else answer
        return [gradient for part in parts for gradient in gradients_of(part, sources)]

    def _judge_gradients(self, attempt: Attempt, cases: list[Case]) -> None:
        known = None
        for case in cases:
            wanted, got = self._gradients(self.right, case), self._gradients(attempt, case)
            pairs = [(part, source) for part in self.results for source in self.gradients]
            for (part, source), right, gradient in zip(pairs, wanted, got, strict=False):
                missing = gradient is None and right is not None and bool(right.any())
                off = gradient is not None and not _alike(
                    gradient, torch.zeros_like(gradient) if right is None else right, 1e-3
                )
                if not missing and not off:
                    continue
                known = self._known_gradient(case, got)
                if known is not None:
                    raise Mistake(known.says, known.hint)
                reason = (
                    f"No gradient flows from your {part} back to {source}."
                    if missing
                    else f"The gradient of your {part} with respect to {source} is off: a part of "
                    "it is cut, or some flows where none should."
                )
                raise Mistake(reason, self.gradient_hint)

    def _known_gradient(self, case: Case, got: list) -> Wrong | None:
        truth = self._values(self.right, case)
        for wrong in self.wrong:
            values = self._values(wrong.answer, case)
            if values is None or not all(map(_alike, values, truth)):
                continue
            if not _apart([self._gradients(wrong.answer, case)], [got], 1e-3):
                return wrong
        return None


def formula(
    name: str, *, task: str, signature: str, solution: Any, hints: Sequence[str], **options: Any
) -> Formula:
    """Register an exercise that asks for a formula.

    Args:
        name: Chapter and exercise; ``task``, ``signature``, ``solution`` and ``hints`` as for
            ``exercise``.
        task: One line that says what to do.
        signature: The call of the function to write.
        solution: The function, method or class of the library that does it, or several of them.
        hints: From general to specific.
        **options: The attributes of ``Formula``.

    """
    new = Formula(name, signature, **options)
    exercise(name, task=task, signature=signature, solution=solution, hints=hints)(new.judge)
    _DECLARED[name] = new
    return new


_DECLARED: dict[str, Formula] = {}


def declared(chapter: str) -> dict[str, Formula]:
    """The declared exercises of a chapter such as ``"04"``, by name."""
    return {name: f for name, f in _DECLARED.items() if name.startswith(f"{chapter}.")}


def _bind(
    u: _Usual, right: Callable[..., Any], results: Sequence[str], words: Mapping[str, str]
) -> Wrong:
    change, says, hint = USUAL[u.kind]
    touched = [u.part] if u.part else results

    def answer(*inputs: Any) -> Any:
        values = right(*inputs)
        if len(results) == 1:
            return change(values)
        pairs = zip(results, values, strict=True)
        return tuple(change(value) if name in touched else value for name, value in pairs)

    words = {"name": touched[0], **words}
    return Wrong(answer, u.says or says.format(**words), u.hint or hint.format(**words))


# --- Comparing -----------------------------------------------------------------------------------


def _fresh(value: Any) -> Any:
    """A copy of an input for a function that may work in place."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    return [_fresh(item) for item in value] if isinstance(value, list) else value


def _alike(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return a is None and b is None
    if a.shape != b.shape or a.is_complex() or b.is_complex() or a.device != b.device:
        return False
    a, b = a.detach().double(), b.detach().double()
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def _apart(a: Sequence[Any], b: Sequence[Any], tolerance: float = 1e-3) -> bool:
    """Whether a case tells two functions apart, by far more than rounding.

    A function that stops in a case is not told apart there.
    """
    return any(
        not _alike(x, y, tolerance)
        for ours, theirs in zip(a, b, strict=True)
        if ours is not None and theirs is not None
        for x, y in zip(ours, theirs, strict=False)
    )


def _not_apart(values: Sequence[Sequence[Any]], far: float) -> Iterator[tuple[int, int]]:
    """The pairs of functions, by their values in each case, that no case sets so far apart."""
    rows = [_row(value) for value in values]
    for i, row in enumerate(rows):
        same_shapes = [j for j in range(i) if row and rows[j] and rows[j][0] == row[0]]
        if same_shapes:  # all of them at once
            others = torch.stack([rows[j][1] for j in same_shapes])
            near = torch.isclose(others, row[1], rtol=far, atol=far, equal_nan=True).all(1)
            yield from (
                (i, j) for j, alike in zip(same_shapes, near.tolist(), strict=True) if alike
            )
        yield from (
            (i, j)
            for j in range(i)
            if j not in same_shapes and not _apart(values[i], values[j], far)
        )


def _row(values: Sequence[Any]) -> tuple[list[torch.Size], Tensor] | None:
    """The shapes of all values, and all their numbers in one row; None where there are others."""
    if any(parts is None for parts in values):
        return None
    parts = [part for parts in values for part in parts]
    if not all(isinstance(part, Tensor) and not part.is_complex() for part in parts):
        return None
    return [part.shape for part in parts], torch.cat([part.double().flatten() for part in parts])


# --- Shapes in words -----------------------------------------------------------------------------


class _Axes:
    """The axes of arguments and results, like ``"[draws, B], _ -> [B]"``, and their lengths."""

    def __init__(self, axes: str, inputs: Sequence[Any]):
        before, _, after = axes.partition("->")
        self.wanted = [_names(part) for part in _split(after)]
        self.given = [_names(part) for part in _split(before)]
        self.lengths: dict[int, list[str]] = {}
        for names, value in zip(self.given, inputs, strict=False):
            if isinstance(value, Tensor) and not any(n.startswith("*") for n in names):
                for axis, length in zip(names, value.shape, strict=False):
                    known = self.lengths.setdefault(length, [])
                    if axis not in known:
                        known.append(axis)

    def words(self) -> dict[str, str]:
        """The words that a usual mistake needs: what an example is, which axis is reduced."""
        if not self.wanted or not self.wanted[0]:
            return {"example": "example", "axis": "the other axes"}
        kept = self.wanted[0][0]
        example = "example" if kept == "B" else kept.removesuffix("s")
        for names in self.given:
            gone = [i for i, n in enumerate(names) if n not in self.wanted[0]]
            if kept in names and len(gone) == 1:
                return {"example": example, "axis": f"axis {gone[0]}"}
        return {"example": example, "axis": "the other axes"}

    def hint(self, k: int) -> Callable[[list[int]], str]:
        """What to say about a shape of result ``k`` that is not the wanted one."""
        wanted = self.wanted[min(k, len(self.wanted) - 1)]
        text = f"[{', '.join(wanted)}]"

        def about(got: list[int]) -> str:
            lengths = [self.lengths.get(n, []) for n in got]
            if got and all(len(names) == 1 for names in lengths):
                seen = [names[0] for names in lengths]
                if seen != wanted:
                    return f"Its axes look like [{', '.join(seen)}]; asked for is {text}."
            if not got and wanted:
                return f"One number for all is left; asked for is {text}."
            return f"Asked for is {text}: print the shapes of your intermediate results."

        return about


def _split(text: str) -> list[str]:
    """The parts between commas that stand outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _names(part: str) -> list[str]:
    return [name.strip() for name in part.strip("[]").split(",") if name.strip(" _")]
