"""Every letter of a displayed formula stands in its chapter's table of symbols."""

import re
from pathlib import Path

import pytest

TEXTS = sorted((Path(__file__).resolve().parents[2] / "notebooks" / "text").glob("*.py"))

GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi rho sigma tau "
    "phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
).split()  # without π, which needs no table
DECORATIONS = "bar hat tilde mathcal mathbb mathbf vec".split()
# Words, and the d of a differential.
WORDS = re.compile(
    r"\\(?:text|operatorname|mathrm|textstyle|label|tag)\s*\*?\{[^{}]*\}"
    r"|\\mathrm\s*d|\\(?:begin|end)\{[^{}]*\}|\\\\|\\[^a-zA-Z]"
)
EULER = re.compile(r"(?<![a-zA-Z\\])e(?=\s*\^)")
TOKEN = re.compile(r"\\[a-zA-Z]+|[a-zA-Z]")


def symbols(formula):
    """The letters of a formula, each with the bar, hat or tilde above it.

    Accents count: α and ᾱ are two symbols. Indices are letters, too.
    """
    tokens = TOKEN.findall(EULER.sub("", WORDS.sub(" ", formula)))
    found, accent = set(), ""
    for token in tokens:
        name = token.lstrip("\\")
        if token.startswith("\\") and name in DECORATIONS:
            accent = name + " "
        elif not token.startswith("\\") or name in GREEK:
            found.add(accent + name)
            accent = ""
    return found


def markdown(text):
    """The words of a notebook's text, cell by cell."""
    return [
        "\n".join(line.removeprefix("#").removeprefix(" ") for line in cell.split("\n")[1:])
        for cell in re.split(r"^# %%", text, flags=re.MULTILINE)
        if cell.startswith(" [markdown]")
    ]


def displayed(text):
    """All formulas of a notebook's text that stand on lines of their own."""
    return re.findall(r"\$\$(.+?)\$\$", "\n\n".join(markdown(text)), re.DOTALL)


def table(text):
    """The symbols in all tables that are headed ``symbol``, on either side."""
    found, inside = set(), False
    for line in "\n".join(markdown(text)).split("\n"):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if not line.startswith("|"):
            inside = False
        elif len(cells) > 2 and cells[1].lower() in ("symbol", "symbols"):
            inside = True
        elif inside:
            found |= {one for part in re.findall(r"\$(.+?)\$", line) for one in symbols(part)}
    return found


def missing(text):
    """The symbols of displayed formulas that no table names, each with a formula."""
    known = table(text)
    return {
        one: " ".join(formula.split())
        for formula in displayed(text)
        for one in sorted(symbols(formula) - known)
    }


def repeated(text):
    """What two rows of a table of symbols explain: formulas of the first column, as they stand."""
    found, rows = set(), None
    for line in "\n".join(markdown(text)).split("\n"):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if not line.startswith("|"):
            rows = None
        elif len(cells) > 2 and cells[1].lower() in ("symbol", "symbols"):
            rows = set()
        elif rows is not None:
            row = set(re.findall(r"\$(.+?)\$", cells[1]))
            found |= row & rows
            rows |= row
    return found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_the_table_names_every_symbol(path):
    assert missing(path.read_text(encoding="utf-8")) == {}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_no_two_rows_of_a_table_explain_one_symbol(path):
    assert repeated(path.read_text(encoding="utf-8")) == set()


def test_there_are_formulas_and_tables_to_compare():
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        assert len(displayed(text)) >= 5, path.stem
        assert len(table(text)) >= 8, path.stem


@pytest.mark.parametrize(
    ("formula", "wanted"),
    [
        (r"x_t = \sqrt{\bar\alpha_t}\, x_0", {"x", "t", "bar alpha"}),
        (r"\hat{x} + \tilde \mu_\theta", {"hat x", "tilde mu", "theta"}),
        (r"\mathcal N(0, I)", {"mathcal N", "I"}),
        (r"e^{s} + e_k", {"s", "e", "k"}),
        (r"\mathbb E_{z \sim q}\big[\log p\big]", {"mathbb E", "z", "q", "p"}),
        (r"\int p(z)\,\mathrm dz", {"p", "z"}),
        (r"D_\mathrm{KL}(q \,\|\, p) + \mathrm{KL}", {"D", "q", "p"}),
        (r"\operatorname{sg}[a] \text{ for every } b \\ W^\top", {"a", "b", "W"}),
        (r"\frac{\partial f}{\partial \sigma} \cdot \pi", {"f", "sigma"}),
        (r"\begin{pmatrix} A & B \end{pmatrix}", {"A", "B"}),
    ],
)
def test_symbols_of_a_formula(formula, wanted):
    assert symbols(formula) == wanted


def page(formula, rows):
    lines = ["| symbol | meaning |", "| --- | --- |", *rows, "", "Words $q$.", "", f"$${formula}$$"]
    return "# %% [markdown]\n" + "\n".join(f"# {line}" for line in lines) + "\n\n# %%\nw = '$$w$$'\n"


def test_a_symbol_without_a_row_is_found():
    rows = [r"| $x$; $p(x \mid z)$ | data; a density, of $n$ numbers |"]
    assert missing(page("p(x, n)", rows)) == {}
    assert missing(page("p(q)", rows)) == {"q": "p(q)"}
    assert missing(page(r"\hat x", rows)) == {"hat x": r"\hat x"}


def test_a_symbol_in_two_rows_is_found():
    rows = [r"| $W$, $V$; $b$ | weights; a bias |", r"| $S$ | how many sets of $W$ |"]
    assert repeated(page("S", rows)) == set()
    assert repeated(page("S", [*rows, r"| $W$, $V$; $j$ | weights; an index |"])) == {"W", "V"}
    two_tables = page("S", rows) + page("S", rows)
    assert repeated(two_tables) == set()
