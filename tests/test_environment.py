"""pyproject.toml, constraints.txt and environment.yml name one and the same set of packages."""

import ast
import importlib
import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")

# Read on one system or one version of Python only; absent elsewhere.
ELSEWHERE = {"appnope", "colorama", "pywinpty", "pyyaml-ft"}
PLATFORMS = [
    {"sys_platform": s, "platform_system": p, "os_name": o, "platform_machine": m}
    for s, p, o, m in [
        ("linux", "Linux", "posix", "x86_64"),
        ("darwin", "Darwin", "posix", "arm64"),
        ("win32", "Windows", "nt", "AMD64"),
    ]
]


def is_cuda(name: str) -> bool:
    """Whether a package is one of those that some builds of PyTorch bring for a GPU."""
    return bool(re.match(r"(nvidia|cuda)\b|pytorch-triton", canonicalize_name(name)))


def read_pins(text: str) -> dict[str, Version]:
    """The pins of a constraints file; ValueError at a line that isn't ``name==version``."""
    pins: dict[str, Version] = {}
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if not line:
            continue
        found = re.fullmatch(r"([A-Za-z0-9._-]+)==([^=*;\s]+)", line)
        if not found:
            raise ValueError(f"not an exact pin: {line!r}")
        name = canonicalize_name(found[1])
        if name in pins:
            raise ValueError(f"pinned twice: {name}")
        if Version(found[2]).local or is_cuda(name):
            raise ValueError(f"for one kind of machine only: {line!r}")
        pins[name] = Version(found[2])
    return pins


def declared(project: dict) -> list[Requirement]:
    """Every requirement of pyproject.toml, the extras' too."""
    extras = project["optional-dependencies"].values()
    return [Requirement(r) for r in [*project["dependencies"], *(r for e in extras for r in e)]]


def needs(name: str, extras: set[str]) -> list[Requirement]:
    """What an installed package needs, on any of the platforms of the course."""
    found = []
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(
            marker.evaluate({**platform, "extra": extra})
            for platform in PLATFORMS
            for extra in {"", *extras}
        ):
            found.append(requirement)
    return found


def closure(requirements: list[Requirement]) -> dict[str, str]:
    """All that a list of requirements brings, as far as it is installed: name -> who wants it."""
    wanted: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [(requirement, "pyproject.toml") for requirement in requirements]
    while queue:
        requirement, by = queue.pop()
        name = canonicalize_name(requirement.name)
        if is_cuda(name) or (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        wanted.setdefault(name, by)
        try:
            queue += [(r, name) for r in needs(name, requirement.extras)]
        except metadata.PackageNotFoundError:
            continue  # an extra that isn't installed here, or a package of another system
    return wanted


PINS = read_pins(CONSTRAINTS)


def test_everything_that_gets_installed_is_pinned() -> None:
    missing = {name: by for name, by in closure(declared(PROJECT)).items() if name not in PINS}
    assert missing == {}, "pin these in constraints.txt (name: who wants it)"


def test_no_pin_is_left_over() -> None:
    here = {canonicalize_name(found.name) for found in metadata.distributions()}
    left_over = set(PINS) & here - set(closure(declared(PROJECT)))
    assert left_over <= ELSEWHERE, "nobody wants it"


def test_pins_meet_what_pyproject_asks_for() -> None:
    for requirement in declared(PROJECT):
        pin = PINS[canonicalize_name(requirement.name)]
        assert pin in requirement.specifier, f"{requirement} against {pin}"


def test_installed_versions_are_the_pinned_ones() -> None:
    differ = {}
    for name, pin in PINS.items():
        try:
            installed = Version(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
        if Version(installed.public) != pin:  # 2.13.0+cpu is 2.13.0, as pip sees it
            differ[name] = f"{installed} installed, {pin} pinned"
    assert differ == {}, "run: make install"


def test_torch_is_pinned_for_every_machine() -> None:
    assert re.search(r"^torch==2\.13\.0$", CONSTRAINTS, re.MULTILINE)
    assert not re.search(r"^(nvidia|cuda-|pytorch-triton)", CONSTRAINTS, re.MULTILINE)


def test_constraints_name_no_index() -> None:
    assert not re.search(r"^\s*-|://", CONSTRAINTS, re.MULTILINE)


@pytest.mark.parametrize(
    "line",
    [
        "torch==2.13.0+cpu",
        "nvidia-cublas-cu12==12.8.4.1",
        "pytorch-triton==3.5.0",
        "numpy>=2",
        "numpy",
        "numpy==2.*",
        "numpy==2.4.6; python_version > '3.11'",
        "--index-url https://example.org",
        "scipy==1.0.0\nSciPy==1.0.1",
    ],
)
def test_a_bad_line_is_found(line: str) -> None:
    with pytest.raises(ValueError, match=r"not an exact pin|pinned twice|one kind of machine"):
        read_pins(line)


def environment_problems(text: str) -> list[str]:
    """What keeps an environment.yml from being the set that pip installs elsewhere."""
    environment = yaml.safe_load(text)
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    pip = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict) and "pip" in d]
    found = []
    if pip != [["-c constraints.txt", "-e .[test]"]]:
        found.append(f"pip installs {pip}")
    names = [re.split(r"[=<>! ]", d)[0] for d in conda]
    if sorted(names) != ["pip", "python"]:
        found.append(f"conda installs {names}: only python and pip, all else comes from the pins")
    python = [d.partition("=")[2] for d in conda if d.startswith("python=")]
    if len(python) != 1 or not re.fullmatch(r"3\.\d+", python[0]):
        found.append("python must be given as python=3.x, which Binder understands")
    elif f"{python[0]}" not in Requirement(f"python{PROJECT['requires-python']}").specifier:
        found.append(f"python {python[0]} against {PROJECT['requires-python']}")
    return found


def test_conda_and_binder_get_the_same_set() -> None:
    assert environment_problems((ROOT / "environment.yml").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-c constraints.txt", "-r requirements.txt"),
        ("-e .[test]", "-e ."),
        ("- pip\n", "- pip\n  - numpy\n"),
        ("- pip\n", "- pip\n  - pytorch=2.12\n"),
        ("python=3.11", "python"),
        ("python=3.11", "python=3.10"),
    ],
)
def test_a_drifted_environment_is_found(old: str, new: str) -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert old in text
    assert environment_problems(text.replace(old, new)) != []


def test_the_library_imports_only_what_every_reader_has() -> None:
    """Not what the test extra brings: a reader may install the course without it."""
    providers = metadata.packages_distributions()
    dependencies = set(closure([Requirement(d) for d in PROJECT["dependencies"]]))
    undeclared = set()
    for path in (ROOT / "course_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for top in {name.split(".")[0] for name in names}:
                if top == "course_lib" or top in sys.stdlib_module_names:
                    continue
                from_packages = {canonicalize_name(p) for p in providers.get(top, [top])}
                if not from_packages & dependencies:
                    undeclared.add(f"{path.name}: {top}")
    assert undeclared == set()


INSTALLED = {  # what Jupyter reads, and where pip puts it
    "jupyter_server_config.d/course_lib.json": "etc/jupyter/jupyter_server_config.d",
    "nbconvert/jupyter_nbconvert_config.json": "etc/jupyter",
    "lab/settings/overrides.d/course_lib.json": "share/jupyter/lab/settings/overrides.d",
}


@pytest.mark.parametrize("name", INSTALLED)
def test_what_jupyter_reads_is_in_the_environment(name: str) -> None:
    data_files = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]["data-files"]
    source = ROOT / "jupyter" / name
    assert data_files[INSTALLED[name]] == [f"jupyter/{name}"]
    installed = Path(sys.prefix, INSTALLED[name], source.name)
    assert installed.exists(), "run: make install"
    assert installed.read_bytes() == source.read_bytes()


def test_every_file_for_jupyter_is_installed() -> None:
    folder = ROOT / "jupyter"
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == set(INSTALLED)


def test_the_server_finds_its_extension() -> None:
    config = json.loads(
        (ROOT / "jupyter/jupyter_server_config.d/course_lib.json").read_text(encoding="utf-8")
    )
    ((name, enabled),) = config["ServerApp"]["jpserver_extensions"].items()
    assert enabled
    assert callable(importlib.import_module(name)._load_jupyter_server_extension)


def test_the_lab_asks_nothing_and_calls_nobody() -> None:
    overrides = json.loads(
        (ROOT / "jupyter/lab/settings/overrides.d/course_lib.json").read_text(encoding="utf-8")
    )
    schemas = {}
    for path in Path(sys.prefix, "share", "jupyter").rglob("schemas/**/*.json"):
        schemas[f"{path.parent.parent.name}/{path.parent.name}:{path.stem}"] = path
    assert overrides["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    for plugin, settings in overrides.items():
        assert plugin in schemas, f"JupyterLab has no {plugin}"
        known = json.loads(schemas[plugin].read_text(encoding="utf-8"))["properties"]
        for key, value in settings.items():
            assert key in known, f"{plugin} has no setting {key}"
            kind = {"boolean": bool, "string": str, "object": dict}[known[key]["type"]]
            assert isinstance(value, kind)
            if "oneOf" in known[key]:
                assert value in [choice["const"] for choice in known[key]["oneOf"]]
