"""What an exercise calls the reader's function is what its cell calls it."""

import ast
import re
from pathlib import Path

import pytest

import course_lib.exercises  # noqa: F401  (registers them)
from course_lib.exercises import registry

TEXTS = sorted((Path(__file__).resolve().parents[2] / "notebooks" / "text").glob("*.py"))


def asked_for(text):
    """The functions that a notebook's text leaves to write: ``{exercise: name in its cell}``."""
    found = {}
    for cell in re.split(r"(?m)^# %%.*$", text):
        if not re.search(r"(?m)^check\(", cell):
            continue
        tree = ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", cell))
        written = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check":
                exercise, attempt = node.args
                if getattr(attempt, "id", "") in written:
                    found[exercise.value] = attempt.id
    return found


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_an_exercise_names_the_function_as_its_cell_does(text):
    known = registry._EXERCISES
    names = asked_for(text.read_text(encoding="utf-8"))
    called = {name: known[name].signature.split("(")[0] for name in names}
    assert called == names
    assert [name for name in names if f"`{names[name]}" not in known[name].task] == []


def test_the_function_of_a_cell_is_found():
    text = (
        "# %%\ndef my_half(x):\n    ...\n\n\ncheck('04.half', my_half)\n"
        "# %%\nprediction = ...\ncheck('04.guess', prediction)\n"
        "# %%\n%timeit my_half(1)\n"
    )
    assert asked_for(text) == {"04.half": "my_half"}
