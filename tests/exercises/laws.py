"""What holds for the exercises of every chapter.

The tests of a chapter subclass ``ExerciseLaws`` and list answers::

    class TestExercises(ExerciseLaws):
        chapter = "04"
        cases = {"04.break_it": (RIGHT, WRONG), ...}

The mistakes of a declared exercise stand in its table (``formula.Wrong``) and are tried from there.
Mistakes of form, which any right answer can have (no gradient flows, another dtype, an axis too
many), stand in ``FORMS`` and are tried on what a declared exercise calls right. WRONG holds what
neither makes.
"""

import itertools
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch

from course_lib.exercises import check, exercises, hint, registry, solution
from course_lib.exercises.attempt import Mistake
from course_lib.exercises.formula import Case, Formula, declared
from course_lib.exercises.prediction import asked

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
    np.float32(-0.123),  # no prediction
]


NO_NUMBERS = [
    (math.nan, "You gave `nan`"),
    (math.inf, "You gave `inf`"),
    ("a word", "You gave a str"),
    (True, "You gave a bool"),
]


@cache
def draws(name):
    """Eight draws of a declared exercise: most of a check's time goes into drawing."""
    return [declared(name[:2])[name].draw(torch.Generator().manual_seed(s)) for s in fresh(8)]


def fresh(n):
    return [int.from_bytes(os.urandom(7), "big") for _ in range(n)]


def verdicts(name, answer, times):
    """So many verdicts on an answer, each on inputs of its own; answers may share them."""
    if name not in declared(name[:2]):
        return (check(name, answer) for _ in range(times))
    return (on_draw(name, answer, drawn) for drawn in draws(name)[:times])


def verdict(name, answer):
    """One verdict on an answer whose faults do not depend on the inputs."""
    return next(verdicts(name, answer, 1))


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


GENERATORS = [  # in place of the one that is given, and what the verdict says
    (from_a_copy, ""),
    (from_the_seed, ""),
    (lambda generator: generator.manual_seed(0), "the same"),
    (lambda generator: None, "noise comes from elsewhere"),
]


def spoiling(function, at):
    """A function that changes one of its inputs, a tensor or a list, after all is done."""

    def spoilt(*inputs):
        answer = function(*inputs)
        if isinstance(inputs[at], list):
            inputs[at].append(inputs[at][0])
        else:
            inputs[at].data.copy_(inputs[at] == 0)
        return answer

    return spoilt


def on_another_device(answer):
    """The same answer, of tensors without values: of the right shapes, so that it comes far."""
    if isinstance(answer, torch.Tensor):
        return answer.to("meta")
    return type(answer)(map(on_another_device, answer)) if type(answer) in (list, tuple) else answer


def is_prediction(name):
    """Whether the reader answers with a value, not with a function."""
    return registry._EXERCISES[name].signature is None


# --- Forms ---------------------------------------------------------------------------------------

# Wrong answers that are made of what a declared exercise calls right, with what the verdict says.
Form = Callable[[Formula], Iterator[tuple[Callable, str]]]


def parts(formula, answer):
    return [answer] if len(formula.results) == 1 else list(answer)


@cache
def an_example(name):
    """Some inputs of a declared exercise, and what is right for them."""
    formula = declared(name[:2])[name]
    case = formula.inputs(torch.Generator().manual_seed(0))[0]
    inputs = case.inputs if isinstance(case, Case) else case
    return inputs, formula.right(*inputs)


@cache
def slopes(name):
    """For each result the sources that a gradient flows to."""
    formula = declared(name[:2])[name]
    gradients = formula._gradients(formula.right, Case(an_example(name)[0]))
    sources = list(formula.gradients)
    return [
        [source for i, source in enumerate(sources) if has_slope(gradients[k * len(sources) + i])]
        for k in range(len(formula.results))
    ]


def has_slope(gradient):
    return gradient is not None and bool(gradient.any())


def is_compared_as_it_is(formula):
    """Not so where ``take`` makes another thing of an answer: its form is up to ``take`` then."""
    inputs, right = an_example(formula.name)
    if formula.take is None:
        return True
    if not isinstance(right, torch.Tensor) or not right.is_floating_point():
        return False
    try:
        return all(formula.take(y, *inputs) is y for y in (right, right.double()))
    except Mistake:  # it looks at the form itself, and does no more
        return True


def with_result(formula, k, change):
    def answer(*inputs):
        values = parts(formula, formula.right(*inputs))
        values[k] = change(values[k])
        return values[0] if len(values) == 1 else tuple(values)

    return answer


def results_are(change, says, when=lambda formula, k: True):
    """Change one result after the other, where it can be."""

    def form(formula):
        for k, name in enumerate(formula.results):
            if when(formula, k):
                yield with_result(formula, k, change), says.format(name=re.escape(name))

    return form


def has_axes(formula, k):
    return parts(formula, an_example(formula.name)[1])[k].ndim > 0


def is_trained(formula, k):
    return bool(formula.gradients) and bool(slopes(formula.name)[k])


def is_one_of_several(formula, k):
    return len(formula.results) > 1


def an_argument_detached(formula):
    for i, name in enumerate(formula.arguments):
        if name in formula.gradients and any(name in to for to in slopes(formula.name)):
            detached = replaced(formula.right, i, lambda x: x.detach())
            yield detached, f"No gradient flows from your .* back to {name}"


def one_result_too_many(formula):
    n = len(formula.results)
    said = f"returns {n + 1} results" if n > 1 else "a tuple of 2, but only"
    yield lambda *inputs: (*parts(formula, formula.right(*inputs)), 0), said


def one_result_alone(formula):
    if len(formula.results) > 1:
        wanted = "both" if len(formula.results) == 2 else ", ".join(formula.results[:-1])
        yield lambda *inputs: formula.right(*inputs)[0], f"returns only one result, but {wanted}"


def results_in_another_order(formula):
    if len(formula.results) == 2:
        yield lambda *inputs: formula.right(*inputs)[::-1], "You swap the two results"


# fmt: off
FORMS: dict[str, Form] = {
    "detached": results_are(lambda y: y.detach(), "No gradient flows from your {name}", is_trained),
    "an argument detached": an_argument_detached,
    "float64": results_are(lambda y: y.double(), "Your {name} is of dtype float64"),
    "a Python number": results_are(lambda y: 0.5, "Your {name} is of type float, not a tensor"),
    "NumPy": results_are(lambda y: y.detach().numpy(), "Your {name} is of type ndarray"),
    "None": results_are(lambda y: None, "Your {name} is of type NoneType", is_one_of_several),
    "a list": results_are(list, "Your {name} is a list of", has_axes),
    "one number": results_are(lambda y: y.sum(), r"Your {name} has shape \[\]", has_axes),
    "an axis too many": results_are(lambda y: y[..., None], r"Your {name} has shape \["),
    "an example too few": results_are(lambda y: y[1:], r"Your {name} has shape \[", has_axes),
    "NaN": results_are(lambda y: y * math.nan, "Your {name} (holds|is) (NaN|not finite)"),
    "drawn": results_are(lambda y: y + torch.randn_like(y), "it is drawn at random"),
    "one result too many": one_result_too_many,
    "one result alone": one_result_alone,
    "results in another order": results_in_another_order,
}
# fmt: on


class ExerciseLaws:
    """Right answers pass, known mistakes are named, and nothing at all makes a check fall over."""

    chapter: str
    # For each exercise right answers, and wrong ones with what the verdict says, under a label.
    cases: dict[str, tuple[list, dict[str, tuple]]]

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
        elif "form" in wanted:
            values = [
                pytest.param(name, form, id=f"{name}-{label}")
                for name, formula in declared(self.chapter).items()
                if is_compared_as_it_is(formula)
                for label, form in FORMS.items()
                if any(form(formula))
            ]
            metafunc.parametrize(("name", "form"), values)
        elif "odd_name" in wanted:
            table = declared(self.chapter)
            metafunc.parametrize("odd_name", [n for n in table if is_compared_as_it_is(table[n])])
        elif "function_name" in wanted:
            metafunc.parametrize("function_name", [n for n in cases if not is_prediction(n)])
        elif "name" in wanted:
            metafunc.parametrize("name", cases)
        if "stub" in wanted:
            metafunc.parametrize("stub", STUBS.values(), ids=STUBS)
        if "strange_answer" in wanted:
            # Without addresses, which differ from process to process.
            metafunc.parametrize(
                "strange_answer", STRANGE, ids=lambda x: re.sub(" at 0x.*", "", str(x))
            )

    def test_every_exercise_has_right_answers_and_known_mistakes(self):
        assert set(self.cases) == set(exercises(self.chapter))

    def test_there_are_cases_hints_and_a_solution(self, name):
        right, wrong = self.cases[name]
        assert len(right) >= 2
        tables = {n: question.slips() for n, question in asked(self.chapter).items()}
        tables |= {n: formula.wrong for n, formula in declared(self.chapter).items()}
        assert len(wrong) + len(tables.get(name, ())) >= 5
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
            assert result.where or is_prediction(name)

    def test_mistakes_of_the_table_are_named(self, name, mistake):
        for result in verdicts(name, mistake.answer, 8):
            assert result.status == "fails", result
            assert result.reason == mistake.says, result
            assert result.hint == mistake.hint, result

    def test_mistakes_of_form_are_told(self, name, form):
        formula = declared(self.chapter)[name]
        for answer, said in form(formula):
            for drawn in draws(name)[:2]:
                result = on_draw(name, answer, drawn)
                assert result.status == "fails", result
                known = result.reason in [w.says for w in formula.wrong]
                assert known or re.search(said, result.reason), result
                assert result.hint, result

    def test_other_numbers_get_the_general_word(self, odd_name):
        formula = declared(self.chapter)[odd_name]
        for k, name in enumerate(formula.results):
            answer = with_result(formula, k, lambda y: 3.7 - 5.3 * y)
            advice = formula.otherwise
            advice = advice[name] if isinstance(advice, dict) else advice
            for drawn in draws(odd_name)[:2]:
                result = on_draw(odd_name, answer, drawn)
                assert result.status == "fails", result
                if callable(advice):
                    assert result.reason not in [w.says for w in formula.wrong]
                else:
                    assert (result.reason, result.hint) == advice

    def test_a_detached_answer_passes_where_no_gradient_is_asked_for(self):
        for name, formula in declared(self.chapter).items():
            if is_compared_as_it_is(formula) and not formula.gradients:
                for k in range(len(formula.results)):
                    detached = with_result(formula, k, lambda y: y.detach())
                    assert on_draw(name, detached, draws(name)[0]).status == "passes"

    def test_an_input_changed_in_place_is_noticed(self, function_name):
        right = self.cases[function_name][0][0]
        names = registry._EXERCISES[function_name].argument_names()
        given = []

        def look(*inputs):
            given.extend(inputs)
            raise KeyError

        verdict(function_name, look)
        for i, (name, value) in enumerate(zip(names, given, strict=True)):
            if isinstance(value, torch.Tensor | list):
                result = verdict(function_name, spoiling(right, i))
                assert f"changes its input `{name}` in place" in result.reason, result

    def test_a_prediction_that_is_no_number_is_told(self):
        for name, (right, _) in self.cases.items():
            if is_prediction(name) and not isinstance(right[0], str):
                for answer, said in NO_NUMBERS:
                    assert said in check(name, answer).reason

    def test_another_number_of_arguments_is_told(self, function_name):
        result = verdict(function_name, lambda: 1)
        arguments = ", ".join(registry._EXERCISES[function_name].argument_names())
        assert f"it is called with `({arguments})`" in result.reason

    def test_what_a_declared_exercise_calls_right_is_right(self):
        for name, formula in declared(self.chapter).items():
            for result in verdicts(name, formula.right, 8):
                assert result.status == "passes", result

    def test_another_generator_than_the_given_one_is_noticed(self):
        for name, (right, _) in self.cases.items():
            exercise = registry._EXERCISES[name]
            if is_prediction(name) or "generator" not in exercise.argument_names():
                continue
            at = exercise.argument_names().index("generator")
            for another, said in GENERATORS:
                result = check(name, replaced(right[0], at, another))
                assert result.status == "fails", (name, another, result)
                assert said in result.reason, result

    def test_a_stub_is_not_attempted(self, name, stub):
        if is_prediction(name):
            stub = ...
        first, second = verdicts(name, stub, 2)
        assert first.status == "not attempted", first
        assert repr(first) == repr(second)
        assert first._repr_html_() == second._repr_html_()
        assert exercises()[name] in repr(first)

    def test_any_answer_gets_a_verdict(self, name, strange_answer):
        attempt = strange_answer if is_prediction(name) else lambda *args: strange_answer
        result = verdict(name, attempt)
        assert result.status == "fails", result
        assert "\n" not in result.reason

    def test_an_answer_on_another_device_gets_a_verdict(self, function_name):
        right = self.cases[function_name][0][0]
        answers = []

        def all_elsewhere(*inputs):
            answers.append(on_another_device(right(*inputs)))
            return answers[-1]

        def last_elsewhere(*inputs):
            answer = right(*inputs)
            return (*answer[:-1], on_another_device(answer[-1]))

        result = verdict(function_name, all_elsewhere)
        assert result.status == "fails" or "meta" not in str(answers[0]), result
        if isinstance(answers[0], tuple) and "meta" in str(answers[0]):
            assert verdict(function_name, last_elsewhere).status == "fails"

    def test_an_exception_is_told_in_one_line(self, function_name):
        def attempt(*args):
            raise KeyError("first\nsecond")

        result = verdict(function_name, attempt)
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
        for name, question in asked(self.chapter).items():
            for slip in question.slips():
                result = check(name, slip.number)
                assert result.status == "fails", result
                assert (result.reason, result.hint) == (slip.says, slip.hint), result

    def test_numbers_of_another_kind_are_told(self):
        for name, question in asked(self.chapter).items():
            kind = question.kind
            others = [kind[end] + step for end, step in (("low", -1), ("high", 1)) if end in kind]
            for number in [*others, *([question.right + 0.5] if kind.get("whole") else [])]:
                assert f"You gave `{number}`" in check(name, number).reason

    def test_other_numbers_are_too_few_or_too_many(self):
        for name, question in asked(self.chapter).items():
            for step, word in ((-1, "few"), (1, "many")) if question.in_general else ():
                number = next(
                    n
                    for n in itertools.count(question.right + step, step)
                    if not any(abs(n - slip.number) <= slip.within for slip in question.slips())
                )
                assert check(name, number).reason == f"{number:,} is too {word}."

    def test_gradients_are_compared_where_the_task_asks_for_them(self):
        for name, formula in declared(self.chapter).items():
            if "Gradients flow." not in exercises()[name]:
                assert not formula.gradients or "gradient" in exercises()[name]
                continue
            learned = {
                argument
                for argument, value in zip(formula.arguments, an_example(name)[0], strict=True)
                if isinstance(value, torch.Tensor) and value.is_floating_point()
            }
            assert learned - {"x"} <= set(formula.gradients)  # x may be data
            assert formula.gradients
