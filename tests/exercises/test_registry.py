"""The mechanism: registering, judging, and what an attempt may do wrong before any property."""

import contextlib
import copy
import doctest
import math
import re
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch

from course_lib.exercises import (
    attempt,
    check,
    display,
    exercise,
    exercises,
    hint,
    registry,
    solution,
)
from course_lib.exercises.attempt import (
    Attempt,
    Mistake,
    NotAttempted,
    gradients_of,
    same,
    take_number,
    take_results,
    take_tensor,
)
from tests.exercises.laws import from_a_copy, from_the_seed


@pytest.fixture(autouse=True)
def own_exercises(monkeypatch):
    monkeypatch.setattr(registry, "_EXERCISES", dict(registry._EXERCISES))


def new(name="99.double", **options):
    options = {
        "task": "Write `double`.",
        "signature": "double(x, k)",
        "solution": same,
        "hints": ["Twice."],
    } | options
    return exercise(name, **options)


def judge_double(attempt, generator):
    x = torch.randn(3, generator=generator)
    if not same(take_tensor("result", attempt(x, 2), x.shape), 2 * x):
        raise Mistake("Not twice.", "Add x to itself.")
    return "Twice x."


def test_a_later_chapter_adds_an_exercise_with_one_decorator():
    new()(judge_double)
    assert check("99.double", lambda x, k: x + x).status == "passes"
    assert check("99.double", lambda x, k: x + x).reason == "Twice x."
    result = check("99.double", lambda x, k: x)
    assert (result.status, result.reason, result.hint) == (
        "fails",
        "Not twice.",
        "Add x to itself.",
    )
    assert result.where == "x of shape [3], k=2"
    assert check("99.double", ...).status == "not attempted"
    assert hint("99.double").hints == ("Twice.",)
    assert solution("99.double").pieces[0][1] == "same"
    assert exercises("99") == {"99.double": "Write `double`."}


def test_exercises_are_listed_by_chapter():
    assert set(exercises("04")) <= set(exercises())
    assert list(exercises("04")) == sorted(exercises("04"))
    assert all(task and "\n" not in task for task in exercises().values())
    with pytest.raises(ValueError, match=r"chapter must be one of .*04.*, got '4'"):
        exercises("4")


@pytest.mark.parametrize("name", ["04.additive", "", None, 4])
def test_an_unknown_name_lists_those_there_are(name):
    for function in (hint, solution, lambda name: check(name, None)):
        with pytest.raises(
            ValueError, match=r"04\.additive_coupling, .*got " + re.escape(repr(name))
        ):
            function(name)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "4.double"}, "name must look like"),
        ({"name": "double"}, "name must look like"),
        ({"task": ""}, "task must be one line"),
        ({"task": "two\nlines"}, "task must be one line"),
        ({"hints": []}, "hints must be a list of at least one"),
        ({"hints": "Twice."}, "hints must be a list"),
        ({"signature": "double"}, "signature must look like"),
        ({"name": "04.break_it"}, "name must be new, got '04.break_it'"),
    ],
)
def test_a_malformed_exercise_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        new(**options)(judge_double)


def test_a_reloaded_checker_takes_its_place_again():
    new()(judge_double)
    new(task="Write it anew.")(judge_double)
    assert exercises("99") == {"99.double": "Write it anew."}


@pytest.mark.parametrize("value", [3, torch.zeros(2), "double", [print]])
def test_a_value_in_place_of_a_function(value):
    new()(judge_double)
    result = check("99.double", value)
    assert result.status == "fails"
    assert f"a value of type {type(value).__name__}, not a function" in result.reason
    assert 'check("99.double", double)' in result.hint


def test_global_randomness_and_settings_are_left_alone():
    def careless(x, shift, flip):
        torch.manual_seed(0)
        torch.rand(3)
        raise ValueError

    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    for name in exercises("04"):
        check(name, careless)
        check(name, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == dtype
    assert torch.is_grad_enabled()


def test_every_check_draws_fresh_inputs():
    seen = []

    def judge(attempt, generator):
        seen.append(float(torch.rand((), generator=generator, dtype=torch.float64)))
        return "Fine."

    new(signature=None)(judge)
    for _ in range(5):
        torch.manual_seed(0)
        check("99.double", 1)
    assert len(set(seen)) == 5


def test_what_a_checker_did_not_foresee_is_a_verdict_still():
    def judge(attempt, generator):
        raise RuntimeError("strange\ntraceback")

    new(signature=None)(judge)
    result = check("99.double", 1)
    assert result.status == "fails"
    assert result.reason == "Your answer could not be judged: `RuntimeError: strange`."


def test_an_interrupt_is_no_verdict():
    def interrupted(x, k):
        raise KeyboardInterrupt

    new()(judge_double)
    with pytest.raises(KeyboardInterrupt):
        check("99.double", interrupted)


def run(function, *inputs, times=1):
    watched = Attempt(function, ["x", "k"][: len(inputs)])
    for _ in range(times):
        answer = watched(*inputs)
    return answer


def raises(exception):
    def function(x):
        raise exception

    return function


@pytest.mark.parametrize(
    "function",
    [lambda x: None, lambda x: ..., lambda x: (None, ...), raises(NotImplementedError("later"))],
)
def test_no_answer_is_not_attempted(function):
    with pytest.raises(NotAttempted):
        run(function, torch.zeros(2))


def test_no_answer_after_an_answer_is_a_mistake():
    answers = iter([1, None])
    with pytest.raises(Mistake, match="returns nothing on this input"):
        run(lambda x: next(answers), torch.zeros(2), times=2)


def test_part_of_an_answer_is_an_answer():
    assert run(lambda x: (1, None), torch.zeros(2)) == (1, None)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (raises(IndexError("too far\nin a line")), "stopped with `IndexError: too far`"),
        (raises(ZeroDivisionError()), "stopped with `ZeroDivisionError`"),
        (raises(ValueError("x" * 500)), "x…`"),
        (lambda: 1, r"takes `\(\)`, and it is called with `\(x\)`"),
        (lambda x, y: 1, r"takes `\(x, y\)`"),
        (lambda x: x.add_(1), "changes its input `x` in place"),
        (lambda x: x.resize_(1), "changes its input `x` in place"),
    ],
)
def test_a_call_that_goes_wrong(function, said):
    with pytest.raises(Mistake, match=said) as caught:
        run(function, torch.zeros(2))
    assert len(caught.value.reason) < 250
    assert "\n" not in caught.value.reason


def test_a_list_is_watched_too():
    with pytest.raises(Mistake, match="changes its input `x` in place"):
        run(lambda x: x.reverse() or 1, [1, 2])
    assert run(lambda x: x[::-1], [1, 2]) == [2, 1]


@pytest.mark.parametrize(
    ("value", "shape", "said", "hint"),
    [
        (torch.zeros(()), [4], r"shape \[\]; it must have \[4\]", "per point"),
        (torch.zeros(4, 1), [4], r"shape \[4, 1\]", "squeeze"),
        (torch.zeros(1, 4), [4], r"shape \[1, 4\]", "squeeze"),
        (torch.zeros(3), [4], r"shape \[3\]", "wrong axis"),
        (torch.zeros(4, 3), [4], r"shape \[4, 3\]", "axis 1"),
        (torch.zeros(2, 2), [4, 2], r"shape \[2, 2\]", "Print the shapes"),
        (torch.zeros(4).long(), [4], "dtype int64; it must be float32", "zeros_like"),
        (torch.zeros(4).double(), [4], "dtype float64; it must be float32", "zeros_like"),
        (torch.tensor([0.0, float("nan")]), [2], "holds NaN", "log"),
        (torch.tensor([0.0, float("inf")]), [2], "holds infinite values", "log"),
        (3.0, [4], r"of type float, not a tensor of shape \[4\]", "PyTorch"),
        (None, [4], "of type NoneType", "PyTorch"),
        ((1, 2), [4], "returns a tuple of 2, but only y", "Return y alone"),
        ([torch.zeros(())] * 4, [4], r"y is a list of 4, not a tensor of shape \[4\]", "stack"),
    ],
)
def test_tensors_that_are_not_as_asked_for(value, shape, said, hint):
    with pytest.raises(Mistake, match=said) as caught:
        take_tensor("y", value, shape, dtype=torch.float32)
    assert hint in caught.value.hint


def test_tensors_as_asked_for():
    infinite = torch.tensor([-float("inf")])
    assert take_tensor("y", infinite, [1], infinite=True) is infinite
    assert take_results(["a", "b"], (1, 2)) == (1, 2)
    with pytest.raises(Mistake, match="only one result, but both a and b"):
        take_results(["a", "b"], torch.zeros(2))


def test_gradients_that_agree_in_a_plain_sum_are_told_apart():
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    flipped = x.flip(0) ** 2
    mixed = (x**2).detach() + flipped - flipped.detach()
    of_right, of_mixed, none = (gradients_of(y, [x])[0] for y in (x**2, mixed, x.detach() ** 2))
    assert not torch.allclose(of_right, of_mixed)
    assert none is None


@pytest.mark.parametrize("module", [attempt, display, registry])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0


# --- What an attempt may do to a check -----------------------------------------------------------


# The suite's own limit is an alarm as well, and an outer alarm is left alone.
@pytest.mark.timeout(0)
def test_an_endless_loop_is_ended(monkeypatch):
    monkeypatch.setattr(attempt, "TIME_LIMIT", 0.2)

    def endless(x, k):
        while True:
            with contextlib.suppress(Exception):
                x = x + 1

    new()(judge_double)
    result = check("99.double", endless)
    assert result.status == "fails"
    assert "still running after 0.2 s in line" in result.reason
    assert check("99.double", lambda x, k: 2 * x).status == "passes"  # no alarm is left over
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_the_limit_of_somebody_else_is_left_alone():
    former = signal.setitimer(signal.ITIMER_REAL, 500)
    try:
        check("04.peak_height", lambda log_scale, prior: log_scale.sum())
        assert 400 < signal.getitimer(signal.ITIMER_REAL)[0] <= 500
    finally:
        signal.setitimer(signal.ITIMER_REAL, *former)


def test_in_another_thread_there_is_no_limit(monkeypatch):
    monkeypatch.setattr(attempt, "TIME_LIMIT", 0.01)
    new()(judge_double)
    results = []

    def slow(x, k):
        time.sleep(0.05)
        return 2 * x

    thread = threading.Thread(target=lambda: results.append(check("99.double", slow)))
    thread.start()
    thread.join()
    assert results[0].status == "passes"


def test_an_exit_is_a_verdict():
    new()(judge_double)
    result = check("99.double", lambda x, k: sys.exit(3))
    assert result.status == "fails"
    assert "stopped with `SystemExit: 3`" in result.reason


def test_the_line_of_an_exception_is_named():
    def broken(x, k):
        y = x + k
        return torch.linalg.inv(y)

    line = broken.__code__.co_firstlineno + 2
    new()(judge_double)
    reason = check("99.double", broken).reason
    assert reason.endswith(f" in line {line}: `return torch.linalg.inv(y)`.")
    assert "in line" not in check("99.double", lambda: 1).reason  # it never ran


def test_a_function_that_is_handed_out_says_how_it_is_called():
    net = attempt.Given("net", ["x", "t"], lambda x, t: (x, t))
    assert net(1, 2) == net(1, t=2) == net(t=2, x=1) == (1, 2)
    for call, said in (
        (lambda: net(1), "You call `net(…)`"),
        (lambda: net(1, 2, 3), "You call `net(…, …, …)`"),
        (lambda: net(1, time=2), "You call `net(…, time=…)`"),
        (lambda: net(1, 2, t=3), "You call `net(…, …, t=…)`"),
    ):
        with pytest.raises(Mistake) as caught:
            call()
        assert caught.value.reason.startswith(said)
        assert caught.value.hint == "It is called `net(x, t)`."


@pytest.mark.parametrize("name", ["01.nope", "07."])
def test_a_typo_lists_the_exercises_of_that_chapter_alone(name):
    with pytest.raises(ValueError, match=r"name must be one of") as caught:
        hint(name)
    chapter = name[:2]
    assert all(known in str(caught.value) for known in exercises(chapter))
    assert not any(known in str(caught.value) for known in exercises() if known[:2] != chapter)


@pytest.mark.parametrize(
    ("value", "options", "said"),
    [
        (
            2.5,
            {"whole": True, "low": 1},
            "You gave `2.5`; the answer is a whole number of at least 1",
        ),
        (0, {"whole": True, "low": 1}, "at least 1"),
        (
            1.2,
            {"low": 0, "high": 1, "subject": "a share"},
            "a share is a single number from 0 to 1",
        ),
        (math.nan, {}, "You gave `nan`; the answer is a single number."),
        (torch.zeros(2), {}, "You gave a Tensor"),
        (True, {}, "You gave a bool"),
    ],
)
def test_numbers_that_are_not_as_asked_for(value, options, said):
    with pytest.raises(Mistake, match=re.escape(said)):
        take_number(value, "How many?", **options)


def test_numbers_as_asked_for():
    for three in (3, 3.0, torch.tensor(3), np.float32(3), np.int64(3)):
        assert take_number(three, "?", whole=True) == 3
        assert isinstance(take_number(three, "?", whole=True), int)
        assert isinstance(take_number(three, "?"), float)


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda g: torch.rand(50), "your noise comes from elsewhere"),
        (lambda g: torch.rand(50, generator=g.manual_seed(0)), "Every generator gives the same"),
        (lambda g: torch.rand(50, generator=from_a_copy(g)), "your draws don't move it on"),
        (
            lambda g: (torch.rand(50, generator=g), torch.rand(50, generator=from_a_copy(g))),
            "You copy the generator",  # the second follows the first, which moves it on
        ),
        (
            lambda g: (torch.rand(50, generator=copy.deepcopy(g)), torch.rand(50, generator=g)),
            "You copy the generator",
        ),
        (
            lambda g: (torch.rand(50, generator=from_the_seed(g)), torch.rand(50, generator=g)),
            "your draws don't move it on",
        ),
        (lambda g: (torch.rand(1) < 0.5) + torch.rand(50, generator=g), "from elsewhere"),
    ],
)
def test_randomness_comes_from_the_generator_and_moves_it_on(draw, said):
    torch.manual_seed(0)  # the coin of the last row falls five times alike for one seed in 32
    with pytest.raises(Mistake, match=said):
        attempt.check_randomness(draw, torch.Generator().manual_seed(0), "hint")


def test_draws_from_the_generator_itself_pass():
    def draw(g):
        return torch.rand(50, generator=g), torch.empty(50).normal_(generator=g)

    attempt.check_randomness(draw, torch.Generator().manual_seed(0), "hint")
