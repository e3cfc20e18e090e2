"""What a notebook shows beside a formula is a whole, public function or method."""

import ast
import re
from pathlib import Path

import pytest

TEXTS = sorted((Path(__file__).resolve().parents[2] / "notebooks" / "text").glob("*.py"))


def source_problems(text):
    """What is cut or private in a notebook's text: one line each."""
    problems = []
    # A line of IPython's own (`%timeit`, `!ls`) is no Python.
    tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", text, flags=re.MULTILINE))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = [part for alias in node.names for part in alias.name.split(".")]
            for name in [*module.split("."), *names]:
                if name.startswith("_"):
                    problems.append(f"line {node.lineno}: imports {name}")
        if isinstance(node, ast.Call) and name_of(node.func) == "show_source":
            for keyword in node.keywords:
                if keyword.arg in ("start", "end", None):
                    given = f"{keyword.arg}=" if keyword.arg else "**"
                    problems.append(f"line {node.lineno}: cuts a source with {given}")
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            for part in (part for argument in arguments for part in ast.walk(argument)):
                if (name_of(part) or "").startswith("_"):
                    problems.append(f"line {node.lineno}: shows {name_of(part)}")
    return problems


def name_of(node):
    return getattr(node, "attr", None) or getattr(node, "id", None)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_a_notebook_shows_whole_public_sources(text):
    assert source_problems(text.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('show_source(f, start="a")', "line 1: cuts a source with start="),
        ('\nshow_source(f, end="a")', "line 2: cuts a source with end="),
        ("show_source(f, **cut)", "line 1: cuts a source with **"),
        ('exercises.show_source(f, end="a")', "line 1: cuts a source with end="),
        ("show_source(A._b)", "line 1: shows _b"),
        ("show_source([A.b, A._b])", "line 1: shows _b"),
        ("show_source(A.__init__)", "line 1: shows __init__"),
        ("show_source(_f)", "line 1: shows _f"),
        ("show_source(_module.f)", "line 1: shows _module"),
        ("show_source(obj=_f)", "line 1: shows _f"),
        ("print(show_source(_f))", "line 1: shows _f"),
        ("from course_lib.diffusion.ddpm import _states", "line 1: imports _states"),
        ("from course_lib._inner import states", "line 1: imports _inner"),
        ("import course_lib._inner", "line 1: imports _inner"),
        ("from course_lib.x import _states as states", "line 1: imports _states"),
        ("def f():\n    from x import _y", "line 2: imports _y"),
        ("%matplotlib inline\nimport _x", "line 2: imports _x"),
    ],
)
def test_what_is_cut_or_private_is_found(text, problem):
    assert source_problems(text) == [problem]


def test_the_rest_is_let_through():
    text = (
        "from course_lib.exercises import check, show_source\n"
        "%timeit f(x)\n"
        "for _ in enumerate(x, start=1):\n"
        "    print(x, end='')\n"
        "show_source([A.b, f], docstring=True)\n"
    )
    assert source_problems(text) == []


def test_there_are_notebooks_to_look_at():
    assert len(TEXTS) >= 7
