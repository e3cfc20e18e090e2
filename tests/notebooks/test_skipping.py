"""What a page says may be skipped is folded, and leaves nothing behind that others need."""

import ast
import builtins
import re
import symtable
from pathlib import Path

import jupytext
import pytest
from nbconvert import HTMLExporter

from course_lib.widgets.store import clean

TEXTS = sorted((Path(__file__).resolve().parents[2] / "notebooks" / "text").glob("*.py"))
SKIP = re.compile(r"(?i)may be skipped:|you may skip this section")
FOLDED = "jp-MarkdownHeadingCollapsed"  # how JupyterLab stores it


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


# --- folded sections -------------------------------------------------------------------------


def faults_of_folds(text):
    """What is wrong with the folds of a page: (heading, fault).

    JupyterLab hides all cells between a folded cell and the next one with a heading of its level,
    and opens them when one of them is chosen, as by Shift+Enter, unless that is a text without a
    heading: then the page jumps to its beginning.
    """
    cells, found = jupytext.reads(text, fmt="py:percent").cells, []
    folded = None  # the heading of the section that is folded here, its note, and its exercises
    for index, cell in enumerate(cells):
        markdown = cell.cell_type == "markdown"
        headings = re.findall(r"(?m)^##? .+", cell.source) if markdown else []
        skippable = markdown and any(SKIP.search(part) for part in cell.source.split("\n## "))
        collapsed = cell.metadata.get(FOLDED, False)
        if headings and folded and not cell.source.startswith(headings[0]):
            found.append((headings[0], "does not begin a cell, so that what is before it shows"))
        if headings:
            folded = None
        if markdown and collapsed != skippable:
            found.append((cell.source[:40], "folded" if collapsed else "not folded"))
        elif collapsed:
            parts = cell.source.split("\n\n")
            folded = headings[0] if headings else ""
            note = parts[1] if len(parts) == 2 else ""
            if parts[0] != folded or not re.fullmatch(r"(?s)\*[^*]+\*", note):
                found.append((folded, "is more, or less, than a heading and a note"))
            elif not re.search(r"(?i)skipped: \w+|it (holds|derives)", note):
                found.append((folded, "does not say what it holds"))
            after = cells[index + 1]
            if after.cell_type == "markdown" and not after.source.startswith("### "):
                found.append((folded, "goes on with a text without a heading"))
        elif folded and markdown:
            for exercise in re.findall(r"\*\*(Exercise \d+)", cell.source):
                if exercise not in note:
                    found.append((folded, f"does not say that it holds {exercise}"))
    return found


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_what_may_be_skipped_is_folded_and_nothing_else(text):
    assert faults_of_folds(text.read_text(encoding="utf-8")) == []


def fold(
    note="# *You may skip this section. It holds y, and Exercise 2.*\n",
    mark=f" {FOLDED}=true",
    first="### Why\n#\n# **Exercise 2.** Do.",
    three="# ## Three\n",
):
    return (
        f"# %% [markdown]\n# ## One\n\n# %% [markdown]{mark}\n# ## Two\n#\n{note}\n"
        f"# %% [markdown]\n# {first}\n\n# %%\ny = 1\n\n# %% [markdown]\n{three}"
    )


@pytest.mark.parametrize(
    ("fault", "changes"),
    [
        ("not folded", {"mark": ""}),
        ("folded", {"note": "# *It is long.*\n"}),
        (
            "does not say what it holds",
            {"note": "# *You may skip this section, Exercise 2 too.*\n"},
        ),
        (
            "is more, or less",
            {"note": "# *You may skip this section. It holds y.*\n#\n# Let\n", "first": "### Why"},
        ),
        ("does not say that it holds Ex", {"note": "# *You may skip this section. It holds y.*\n"}),
        ("a text without a heading", {"first": "Let"}),
        ("does not begin a cell", {"three": "# So much for y.\n#\n# ## Three\n"}),
    ],
)
def test_a_fault_of_a_fold_is_found(fault, changes):
    assert faults_of_folds(fold()) == []
    ((_, found),) = faults_of_folds(fold(**changes))
    assert found.startswith(fault) or fault in found


def test_a_fold_is_stored_and_a_page_shows_it_whole():
    notebook = clean(jupytext.reads(fold(), fmt="py:percent"))
    assert notebook.cells[1].metadata[FOLDED] is True
    assert FOLDED in jupytext.writes(notebook, fmt="py:percent")
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert "Exercise 2." in page
    assert FOLDED not in page
