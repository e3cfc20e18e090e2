"""What holds for the exercises of every chapter.

The tests of a chapter subclass ``ExerciseLaws`` and list answers::

    class TestExercises(ExerciseLaws):
        chapter = "04"
        cases = {"04.break_it": (RIGHT, WRONG), ...}

The mistakes of a declared exercise stand in its table (``formula.Wrong``) and are tried from there;
WRONG holds what the table does not make: answers that stop, of another shape, without gradients.
"""

import os
import re
from dataclasses import replace
from functools import cache, partial

import pytest
import torch

from course_lib.exercises import check, exercises, hint, registry, solution
from course_lib.exercises.formula import declared
from course_lib.exercises.prediction import slips

STUBS = {
    "dots": lambda *args: ...,
    "nothing": lambda *args: None,
    "pair of dots": lambda *args: (..., ...),
    "None itself": None,
    "dots themselves": ...,
}


def not_implemented(*args):
    raise NotImplementedError


STUBS["raise"] = not_implemented

STRANGE = [
    7,
    "text",
    {},
    [],
    (),
    object(),
    (1, 2),
    torch.zeros(0),
    torch.zeros(7, dtype=torch.bool),
    torch.zeros(7, dtype=torch.complex64),
    torch.zeros(7, device="meta"),
    torch.zeros(7, 4).to_sparse(),
]


@cache
def draws(name):
    """Seven draws of a declared exercise: most of a check's time goes into drawing."""
    return [declared(name[:2])[name].draw(torch.Generator().manual_seed(s)) for s in fresh(7)]


def fresh(n):
    return [int.from_bytes(os.urandom(7), "big") for _ in range(n)]


def verdicts(name, answer, times):
    """So many verdicts on an answer, each on inputs of its own; answers may share them."""
    if name not in declared(name[:2]):
        return (check(name, answer) for _ in range(times))
    return (check(name, answer), *(on_draw(name, answer, d) for d in draws(name)[: times - 1]))


def on_draw(name, answer, drawn):
    checker = partial(declared(name[:2])[name].judge, drawn=drawn)
    return registry._judge(replace(registry._EXERCISES[name], checker=checker), answer)


def from_a_copy(generator):
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return copy


def from_the_seed(generator):
    return torch.Generator().manual_seed(generator.initial_seed())


def replaced(function, at, change):
    """A function that gets another generator than the one it is given."""
    return lambda *args: function(*args[:at], change(args[at]), *args[at + 1 :])


def is_prediction(name):
    """Whether the reader answers with a value, not with a function."""
    return registry._EXERCISES[name].signature is None


class ExerciseLaws:
    """Right answers pass, known mistakes are named, and nothing at all makes a check fall over."""

    chapter: str
    # For each exercise right answers, and wrong ones with what the verdict says, under a label.
    cases: dict[str, tuple[list, dict[str, tuple]]]
    strange: tuple = ()  # more answers that get a verdict, of shapes that come far in this chapter

    def times(self, name, answer):
        """How often an answer is judged: inputs are fresh every time."""
        return 1 if is_prediction(name) else 8

    def pytest_generate_tests(self, metafunc):
        wanted, cases = metafunc.fixturenames, self.cases
        if "right_answer" in wanted:
            values = [
                pytest.param(name, answer, id=f"{name}-{getattr(answer, '__name__', answer)!s}")
                for name, (right, _) in cases.items()
                for answer in right
            ]
            metafunc.parametrize(("name", "right_answer"), values)
        elif "wrong_answer" in wanted:
            values = [
                pytest.param(name, answer, said, id=f"{name}-{label}")
                for name, (_, wrong) in cases.items()
                for label, (answer, said) in wrong.items()
            ]
            metafunc.parametrize(("name", "wrong_answer", "said"), values)
        elif "mistake" in wanted:
            values = [
                pytest.param(name, wrong, id=f"{name}-{i}-{wrong.says}")
                for name, formula in declared(self.chapter).items()
                for i, wrong in enumerate(formula.wrong)
            ]
            metafunc.parametrize(("name", "mistake"), values)
        elif "function_name" in wanted:
            metafunc.parametrize("function_name", [n for n in cases if not is_prediction(n)])
        elif "name" in wanted:
            metafunc.parametrize("name", cases)
        if "stub" in wanted:
            metafunc.parametrize("stub", STUBS.values(), ids=STUBS)
        if "strange_answer" in wanted:
            # Without addresses, which differ from process to process.
            metafunc.parametrize(
                "strange_answer",
                [*STRANGE, *self.strange],
                ids=lambda x: re.sub(" at 0x.*", "", str(x)),
            )

    def test_every_exercise_has_right_answers_and_known_mistakes(self):
        assert set(self.cases) == set(exercises(self.chapter))

    def test_there_are_cases_hints_and_a_solution(self, name):
        right, wrong = self.cases[name]
        assert len(right) >= 2
        table = slips(self.chapter).get(name, ())
        if name in declared(self.chapter):
            table = declared(self.chapter)[name].wrong
        assert len(wrong) + len(table) >= 5
        assert 2 <= len(hint(name).hints) <= 4
        assert "def " in repr(solution(name))

    def test_right_answers_pass(self, name, right_answer):
        for result in verdicts(name, right_answer, self.times(name, right_answer)):
            assert result.status == "passes", result

    def test_known_mistakes_are_named(self, name, wrong_answer, said):
        for result in verdicts(name, wrong_answer, self.times(name, wrong_answer)):
            assert result.status == "fails", result
            assert said in result.reason, result
            assert result.hint, result

    def test_mistakes_of_the_table_are_named(self, name, mistake):
        for result in verdicts(name, mistake.answer, 8):
            assert result.status == "fails", result
            assert result.reason == mistake.says, result
            assert result.hint == mistake.hint, result

    def test_what_a_declared_exercise_calls_right_is_right(self):
        for name, formula in declared(self.chapter).items():
            for result in verdicts(name, formula.right, 8):
                assert result.status == "passes", result

    def test_a_generator_that_never_advances_is_noticed(self):
        for name, (right, _) in self.cases.items():
            exercise = registry._EXERCISES[name]
            if is_prediction(name) or "generator" not in exercise.argument_names():
                continue
            at = exercise.argument_names().index("generator")
            for again in (from_a_copy, from_the_seed):
                result = check(name, replaced(right[0], at, again))
                assert result.status == "fails", (name, again, result)

    def test_a_stub_is_not_attempted(self, name, stub):
        if is_prediction(name):
            stub = ...
        first, second = check(name, stub), check(name, stub)
        assert first.status == "not attempted", first
        assert repr(first) == repr(second)
        assert first._repr_html_() == second._repr_html_()
        assert exercises()[name] in repr(first)

    def test_any_answer_gets_a_verdict(self, name, strange_answer):
        attempt = strange_answer if is_prediction(name) else lambda *args: strange_answer
        result = check(name, attempt)
        assert result.status == "fails", result
        assert "\n" not in result.reason

    def test_an_exception_is_told_in_one_line(self, function_name):
        def attempt(*args):
            raise KeyError("first\nsecond")

        result = check(function_name, attempt)
        assert result.status == "fails", result
        assert "KeyError" in result.reason
        assert "\n" not in result.reason
        assert result.where

    def test_the_verdict_does_not_depend_on_the_notebook_s_settings(self):
        torch.set_default_dtype(torch.float64)
        try:
            for name, (right, _) in self.cases.items():
                assert check(name, right[0]).status == "passes"
                assert torch.get_default_dtype() == torch.float64
        finally:
            torch.set_default_dtype(torch.float32)
        with torch.no_grad():
            for name, (right, _) in self.cases.items():
                assert check(name, right[0]).status == "passes"

    def test_the_verdict_leaves_the_global_generator_alone(self):
        for name, (right, _) in self.cases.items():
            torch.manual_seed(0)
            wanted = torch.rand(3)
            torch.manual_seed(0)
            check(name, right[0])
            assert torch.equal(torch.rand(3), wanted)

    def test_wrong_numbers_of_the_table_are_named(self):
        for name, table in slips(self.chapter).items():
            for slip in table:
                result = check(name, slip.number)
                assert result.status == "fails", result
                assert (result.reason, result.hint) == (slip.says, slip.hint), result
