"""What a page says may be skipped leaves nothing behind that a later section needs."""

import ast
import builtins
import re
import symtable
from pathlib import Path

import jupytext
import pytest

TEXTS = sorted((Path(__file__).resolve().parents[2] / "notebooks" / "text").glob("*.py"))
SKIP = re.compile(r"(?i)may be skipped:|you may skip this section")


def names(statement):
    """The names of the page that a statement uses, in functions too, and those that it binds."""
    page = symtable.symtable(ast.unparse(statement), "page", "exec")
    used, inner = {s.get_name() for s in page.get_symbols() if s.is_referenced()}, [page]
    while inner:
        table = inner.pop()
        inner.extend(table.get_children())
        used |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    bound = {
        symbol.get_name()
        for symbol in page.get_symbols()
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
    }
    if isinstance(statement, ast.AugAssign):
        used |= bound
    elif not isinstance(statement, ast.Assign | ast.AnnAssign):
        used -= bound  # bound inside of a loop, a with or a function before it is used there
    return used - set(dir(builtins)), bound


def sections(text):
    """Each cell of code of a page, with its section's heading and whether that may be skipped."""
    heading, skippable = "", False
    for cell in jupytext.reads(text, fmt="py:percent").cells:
        if cell.cell_type == "code":
            yield heading, skippable, re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", cell.source)
        for part in re.split(r"(?m)^(?=## )", cell.source):
            if cell.cell_type == "markdown" and part.startswith("## "):
                heading, skippable = part.split("\n")[0], bool(SKIP.search(part))


def left_behind(text):
    """The names that a section needs from one that may be skipped: (name, from where, to where)."""
    kept, skipped, found = set(), {}, []
    for heading, skippable, source in sections(text):
        for statement in ast.parse(source).body:
            used, bound = names(statement)
            for name in sorted(used & (skipped.keys() - kept)):
                if skipped[name] != heading:
                    found.append((name, skipped[name], heading))
            if skippable:
                skipped |= dict.fromkeys(bound, heading)
            else:
                kept |= bound
    return found


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_nothing_is_needed_of_what_may_be_skipped(text):
    assert left_behind(text.read_text(encoding="utf-8")) == []


def page(last, second="y = x + 1"):
    return (
        "# %% [markdown]\n# ## One\n\n# %%\nx = 1\n\n"
        "# %% [markdown]\n# ## Two\n#\n# *You may skip this section.* It holds y.\n\n"
        f"# %%\n{second}\n\n# %% [markdown]\n# ## Three\n\n# %%\n{last}\n"
    )


@pytest.mark.parametrize(
    "last",
    [
        "print(y)",
        "y += 1",
        "z = [y for _ in range(2)]",
        "def f():\n    return y",
        "for _ in y: pass",
    ],
)
def test_a_name_that_is_left_behind_is_found(last):
    assert left_behind(page(last)) == [("y", "## Two", "## Three")]


@pytest.mark.parametrize(
    "last",
    ["print(x)", "y = 2\nprint(y)", "z = [y for y in range(2)]", "for y in range(2): print(y)"],
)
def test_what_is_bound_again_is_let_through(last):
    assert left_behind(page(last)) == []


def test_a_name_that_stood_before_may_be_bound_in_between():
    assert left_behind(page("print(x)", second="x = 2")) == []


def test_there_are_sections_to_skip():
    skippable = {t.stem for t in TEXTS if any(s for _, s, _ in sections(t.read_text("utf-8")))}
    assert len(skippable) >= 7
