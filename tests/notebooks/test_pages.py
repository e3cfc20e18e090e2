"""A page takes as long as it says, trains early, has a short way, and says what came after."""

import ast
import re
from pathlib import Path

import pytest

TEXTS = sorted((Path(__file__).resolve().parents[2] / "notebooks" / "text").glob("*.py"))
WORDS_A_MINUTE = 200  # and a minute for every displayed formula
NEAR_THE_END = 0.85  # of the words

# Where a chapter departs from a rule, and why.
EXCEPTIONS: dict[tuple[str, str], str] = {}


def prose(text):
    """The words of all markdown cells, without the marks of comments."""
    cells = re.split(r"(?m)^# %%", text)
    return "\n".join(
        re.sub(r"(?m)^# ?", "", cell.split("\n", 1)[1])
        for cell in cells
        if cell.startswith(" [markdown]")
    )


def minutes(words):
    """How long a text takes to read, without its code and exercises."""
    formulas = words.count("$$") // 2
    rest = re.sub(r"\$\$.*?\$\$", " ", words, flags=re.DOTALL)
    return len(rest.split()) / WORDS_A_MINUTE + formulas


def stated_minutes(words):
    """The reading time in the table at the top; None where it is not given."""
    row = re.search(r"(?m)^\| Time \|(.*)$", words)
    time = row and re.search(
        r"(?:(\d+|an|one|two) hours?(?: and)? ?)?(?:(\d+|a quarter|half) ?)?(?:minutes )?to read",
        row[1],
    )
    if not time or not any(time.groups()):
        return None
    hours = {"an": 1, "one": 1, "two": 2}.get(time[1]) or int(time[1] or 0)
    return 60 * hours + ({"a quarter": 15, "half": 30}.get(time[2]) or int(time[2] or 0))


def first_training(text):
    """The share of the text's lines above its first training; None where nothing is trained.

    Training is a call of ``fit``, of a study that fits (``fit_vae``, ``train_codebook``), or the
    ``optimizer.step()`` of a loop in the page itself.
    """
    code = re.sub(r"^(\s*)[%!].*$", r"\1pass", text, flags=re.MULTILINE)
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    lines = [call.lineno for call in calls if trains(call.func)]
    return min(lines) / len(text.splitlines()) if lines else None


def trains(function):
    name = getattr(function, "id", "")
    steps = getattr(function, "attr", "") == "step"
    return steps or name == "fit" or name.startswith(("fit_", "train_"))


def problems(text):
    """What a page does not keep, as pairs of a rule's name and what is wrong."""
    found, words = [], prose(text)
    at = first_training(text)
    if at is not None and at > 0.5:
        found.append(("training", f"the first training comes after {at:.0%} of the page"))
    stated, counted = stated_minutes(words), minutes(words)
    if stated is None:
        found.append(("time", "the table at the top gives no time to read"))
    elif abs(stated - counted) > 0.2 * counted:
        found.append(("time", f"{stated} minutes to read are stated, {counted:.0f} counted"))
    if not re.search(r"(?i)the short way", words.split("\n## ")[0]):
        found.append(("short way", "no short way is marked at the top"))
    after = [
        m.start() for m in re.finditer(r"\*\*What came after[.:]?\*\*|## What came after", words)
    ]
    if not after:
        found.append(("after", "nothing is said of what came after"))
    elif after[-1] < NEAR_THE_END * len(words):
        found.append(("after", "what came after does not stand near the end"))
    elif len(re.findall(r"\]\(https?://", words[after[-1] :])) < 3:
        found.append(("after", "what came after has fewer than three sources"))
    return found


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_a_page_keeps_its_promises(text):
    found = problems(text.read_text(encoding="utf-8"))
    assert [(rule, what) for rule, what in found if (text.stem, rule) not in EXCEPTIONS] == []


def test_every_exception_is_needed():
    found = {
        (text.stem, rule)
        for text in TEXTS
        for rule, _ in problems(text.read_text(encoding="utf-8"))
    }
    assert set(EXCEPTIONS) - found == set()


def page(
    *,
    time="about 5 minutes to read, 20 with the exercises",
    short="**The short way:** all",
    words=970,
    end=3,
    late=False,
):
    """A page that keeps every promise, or all but one."""
    links = " ".join(["[paper](https://example.org)"] * end)
    text = f"# %% [markdown]\n# | Time | {time}. {short} |\n#\n# {'word ' * words}\n"
    code = "# %%\nhistory = fit(model, data)\n"
    filler = "# %%\n" + "x = 1\n" * 40
    last = f"# %% [markdown]\n# **What came after:** {links}\n" if end else ""
    return text + (filler + code if late else code + filler) + last


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"time": "an hour with the exercises"}, "time"),
        ({"time": "3 minutes to read"}, "time"),
        ({"time": "an hour to read"}, "time"),
        ({"words": 2000}, "time"),
        ({"short": ""}, "short way"),
        ({"end": 0}, "after"),
        ({"end": 2}, "after"),
        ({"late": True}, "training"),
    ],
)
def test_a_broken_promise_is_found(changes, rule):
    assert problems(page()) == []
    assert [name for name, _ in problems(page(**changes))] == [rule]


def test_what_came_after_stands_near_the_end():
    assert problems(page() + f"# %% [markdown]\n# {'more ' * 1000}\n")[-1][0] == "after"


def test_a_formula_takes_a_minute():
    assert minutes("$$a$$ " * 3 + "word " * 400) == pytest.approx(5)


@pytest.mark.parametrize(
    ("time", "stated"),
    [
        ("about 47 minutes to read, 90 with the exercises", 47),
        ("an hour to read, two with the exercises", 60),
        ("an hour and 10 minutes to read", 70),
        ("50 minutes to read, two hours with the exercises", 50),
        ("two hours with the exercises", None),
    ],
)
def test_the_stated_time_is_read(time, stated):
    assert stated_minutes(f"| Time | {time} |") == stated
