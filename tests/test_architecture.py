"""Every import in ``course_lib`` points down: see docs/architecture.md. Docstrings speak alike."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "course_lib"

FAMILIES = {"autoregressive", "latent", "flows", "diffusion"}
BASE = {"checks", "data", "nn", "attention"}
MODELS = BASE | FAMILIES | {"metrics"}

# What each part may import. A part that isn't here has no place yet: give it one.
ALLOWED: dict[str, set[str]] = {
    "checks": set(),
    "data": {"checks"},
    "attention": {"checks"},
    "nn": {"checks", "attention"},  # a transformer's block is made of it
    "parallel": {"checks"},  # many processes, and what they say to each other
    **{family: BASE for family in FAMILIES},
    "metrics": BASE | FAMILIES,
    "training": MODELS,  # a recipe names a model, and measures it
    "server": set(),  # runs in the Jupyter server, which must not wait for PyTorch
    "export": set(),  # runs in nbconvert
    "widgets": {"checks", "server"},  # given arrays and callables, never a model
    "experiments": MODELS | {"training", "parallel"},  # what breaks, and why
    "exercises": MODELS | {"training", "widgets", "experiments", "parallel"},
    "diagrams": {"widgets"},  # of architectures: given a model, it asks that
    "notebook": {"checks"},  # helpers of the notebooks; nothing else imports them
    "__main__": MODELS | {"training", "widgets", "exercises"},  # nobody imports the command line
    "": {"checks"},  # course_lib/__init__.py: importing a part must not load the others
}

# Where the mathematics says that one family is made of another: (who, from whom), one way.
BETWEEN_FAMILIES: set[tuple[str, str]] = {
    ("diffusion", "flows"),  # the ODE of a diffusion model is a continuous flow
    ("diffusion", "latent"),  # latent diffusion runs in an autoencoder's code space
    ("latent", "autoregressive"),  # the prior over VQ-VAE's codes is a PixelCNN
}


def parts(package: Path) -> set[str]:
    """The parts of a package: its sub-packages and its modules."""
    found = {path.parent.name for path in package.glob("*/*.py")}
    return found | {path.stem for path in package.glob("*.py")} - {"__init__"}


def part_of(module: str, known: set[str]) -> str | None:
    """``course_lib.flows.nice`` belongs to ``flows``; None for a module of somebody else's."""
    head, *rest = module.split(".")
    if head != PACKAGE:
        return None
    return rest[0] if rest and rest[0] in known else ""


def imported_modules(path: Path, package: Path) -> list[tuple[int, str]]:
    """Line and full name of everything a file imports, wherever in the file it does so."""
    where = [PACKAGE, *path.relative_to(package).with_suffix("").parts]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = where[: len(where) - node.level] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            found += [(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            name = node.args[0]
            if called in {"import_module", "__import__"} and isinstance(name, ast.Constant):
                found.append((node.lineno, str(name.value)))
    return found


def violations(package: Path) -> list[str]:
    """One line for every import that points up or sideways, and for every part without a place."""
    known = parts(package)
    found = [f"{name}: not in the table of this test" for name in sorted(known - set(ALLOWED))]
    for path in sorted(package.rglob("*.py")):
        who = path.relative_to(package).with_suffix("").parts[0]
        who = "" if who == "__init__" else who
        for line, module in imported_modules(path, package):
            whom = part_of(module, known)
            if whom is None or whom == who or whom in ALLOWED.get(who, set()):
                continue
            if whom == "" or (who, whom) in BETWEEN_FAMILIES:
                continue
            found.append(f"{path.relative_to(package)}:{line}: {who or PACKAGE} imports {whom}")
    return found


def test_every_import_points_down() -> None:
    assert violations(ROOT / PACKAGE) == []


def test_the_table_has_no_cycle() -> None:
    below = {who: set(whom) for who, whom in ALLOWED.items()}
    for who, whom in BETWEEN_FAMILIES:
        assert {who, whom} <= FAMILIES
        below[who] = below[who] | {whom}
    while below:  # peel off, again and again, what stands on nothing
        ground = {who for who, whom in below.items() if not whom & set(below)}
        assert ground, f"a cycle among {sorted(below)}"
        below = {who: whom for who, whom in below.items() if who not in ground}


def tree(root: Path, files: dict[str, str]) -> Path:
    """A small package of the given files."""
    package = root / PACKAGE
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


GOOD = {
    "__init__.py": "",
    "__main__.py": "from course_lib import training\nfrom course_lib.widgets import base\n",
    "checks.py": "import torch\n",
    "data/__init__.py": "from course_lib.checks import check_int\n",
    "nn/mlp.py": "import course_lib\nfrom course_lib import checks\n",
    "flows/__init__.py": "from .nice import NICE\n",
    "flows/nice.py": "from ..nn.mlp import MLP\nfrom . import base\nfrom course_lib import flows\n",
    "flows/base.py": "import course_lib.checks\n",
    "latent/vae.py": "from course_lib.autoregressive import pixelcnn\n",
    "autoregressive/pixelcnn.py": "from course_lib.nn.mlp import MLP\n",
    "metrics/bits.py": "from course_lib.flows.nice import NICE\n",
    "training/fit.py": "from course_lib.metrics import bits\nfrom course_lib.flows import NICE\n",
    "notebook.py": "from course_lib.checks import check_int\n",
    "widgets/base.py": "import anywidget\nfrom course_lib.checks import check_int\n",
    "experiments/spikes.py": "from course_lib.flows import NICE\nfrom course_lib import training\n",
    "exercises/ch04.py": "from course_lib.flows import NICE\nfrom course_lib import experiments\n",
}


def test_a_tree_that_points_down_passes(tmp_path: Path) -> None:
    assert violations(tree(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("checks.py", "import course_lib.nn.mlp", "checks imports nn"),
        ("data/toys.py", "from course_lib import nn", "data imports nn"),
        ("nn/mlp.py", "from course_lib.flows.nice import NICE", "nn imports flows"),
        ("nn/mlp.py", "from ..flows import NICE", "nn imports flows"),
        ("nn/mlp.py", "from .. import flows", "nn imports flows"),
        ("nn/deep/er.py", "from ...flows import NICE", "nn imports flows"),
        ("flows/nice.py", "from course_lib.latent import vae", "flows imports latent"),
        ("flows/nice.py", "import course_lib.training.fit as f", "flows imports training"),
        (
            "flows/nice.py",
            "if x:\n    import course_lib.training",
            "flows imports training",
        ),
        ("autoregressive/pixelcnn.py", "import course_lib.latent", "autoregressive imports latent"),
        ("latent/vae.py", "from course_lib.widgets import base", "latent imports widgets"),
        ("metrics/bits.py", "from course_lib import training", "metrics imports training"),
        ("training/fit.py", "from course_lib import exercises", "training imports exercises"),
        ("flows/nice.py", "from course_lib import experiments", "flows imports experiments"),
        ("training/fit.py", "from course_lib import experiments", "training imports experiments"),
        ("flows/nice.py", "from course_lib.notebook import seeded", "flows imports notebook"),
        ("experiments/x.py", "from course_lib import exercises", "experiments imports exercises"),
        ("widgets/play.py", "from course_lib.flows import NICE", "widgets imports flows"),
        ("widgets/play.py", "from course_lib import data", "widgets imports data"),
        (
            "widgets/play.py",
            "from importlib import import_module\nimport_module('course_lib.flows')",
            "widgets imports flows",
        ),
        ("exercises/ch04.py", "from course_lib import __main__", "exercises imports __main__"),
        ("__init__.py", "from course_lib import training", "course_lib imports training"),
        ("helpers.py", "x = 1", "helpers: not in the table"),
        ("helpers/x.py", "x = 1", "helpers: not in the table"),
    ],
)
def test_an_arrow_that_turns_round_is_found(
    tmp_path: Path, file: str, text: str, said: str
) -> None:
    found = violations(tree(tmp_path, GOOD | {file: text}))
    assert len(found) == 1
    assert said in found[0]


SLOW = {"sklearn", "scipy"}  # a command, a kernel and each process of a training wait for them


def test_slow_libraries_are_imported_by_the_function_that_needs_them() -> None:
    found = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        at_once = ast.parse(path.read_text(encoding="utf-8")).body
        names = [
            alias.name for node in at_once if isinstance(node, ast.Import) for alias in node.names
        ]
        names += [
            node.module for node in at_once if isinstance(node, ast.ImportFrom) and node.module
        ]
        found += [
            f"{path.relative_to(ROOT)}: {name}" for name in names if name.split(".")[0] in SLOW
        ]
    assert found == []


# --- docstrings --------------------------------------------------------------------------------

SECTIONS = {"Reference", "Args", "Returns", "Yields", "Raises", "Example"}  # and in this order
SAYS_NOTHING = re.compile(
    r"\w+: When (an argument|a field|\S+) is (not as described|out of range)\W"
)


def faults_of_docstring(text: str) -> list[str]:
    """What is not said as everywhere else."""
    sections = re.findall(r"^([A-Z][A-Za-z ]*):$", text, re.MULTILINE)
    found = [
        f"{name} is not one of {sorted(SECTIONS)}" for name in sections if name not in SECTIONS
    ]
    return found + [f"says nothing: {match[0]}" for match in SAYS_NOTHING.finditer(text)]


def test_docstrings_have_one_dialect() -> None:
    """And name no error that only says that an argument must be as described."""
    found = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                faults = faults_of_docstring(ast.get_docstring(node) or "")
                found += [
                    f"{path.relative_to(ROOT)}, {getattr(node, 'name', 'top')}: {f}" for f in faults
                ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "Sum.\n\nArguments:\n    x: A number.\n",
        "Sum.\n\nRaises:\n    ValueError: When an argument is not as described.\n",
        "Sum.\n\nRaises:\n    ValueError: When ``x`` is out of range; the message names it.\n",
    ],
)
def test_another_dialect_is_found(text: str) -> None:
    assert len(faults_of_docstring(text)) == 1
