"""Every letter of a displayed formula stands in its chapter's table of symbols."""

import re
from pathlib import Path

import pytest

TEXTS = Path(__file__).resolve().parents[2] / "notebooks" / "text"
HELD = ["02_vae", "04_nice", "05_realnvp_glow", "06_ddpm", "07_ddim"]  # chapters whose tables are complete

GREEK = re.compile(
    "(?:var)?(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma"
    "|tau|phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega)"
)
NUMBERS = {"e", "pi"}  # need no row
WORDS = re.compile(r"\\(?:text|mathrm|operatorname|begin|end)\*?\{[^{}]*\}")


def letters(formula: str) -> set[str]:
    """The single Latin letters and the Greek letters of a formula in TeX, without words."""
    formula = WORDS.sub(" ", formula)
    greek = {name for name in re.findall(r"\\([A-Za-z]+)", formula) if GREEK.fullmatch(name)}
    latin = re.findall(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])", re.sub(r"\\[A-Za-z]+", " ", formula))
    return greek | set(latin)


def missing(text: str) -> set[str]:
    """Letters of displayed formulas that the table of symbols does not hold."""
    text = re.sub(r"(?m)^# ?", "", text)
    table = re.search(r"(?m)^\| symbol \| meaning \|\n(?:\|.*\n)+", text)
    assert table, "there is no table of symbols"
    known = letters(" ".join(re.findall(r"\$(.+?)\$", table[0])))
    used = letters(" ".join(re.findall(r"\$\$(.+?)\$\$", text, flags=re.DOTALL)))
    return used - known - NUMBERS


@pytest.mark.parametrize("chapter", HELD)
def test_every_letter_of_a_formula_is_in_the_table(chapter: str) -> None:
    assert missing((TEXTS / f"{chapter}.py").read_text(encoding="utf-8")) == set()


def test_a_missing_row_is_noticed() -> None:
    table = "# | symbol | meaning |\n# | --- | --- |\n# | $x$, $\\mu$ | a point, a mean |\n#\n"
    good = "# $$\\log x - \\mu = \\text{a word} + \\mathbb E\\,x$$\n"
    assert missing(table + good.replace("\\mathbb E\\,", "")) == set()
    assert missing(table + good) == {"E"}
    assert missing(table + "# $$z = x_\\sigma e^{x}$$\n") == {"z", "sigma"}
