"""The command line: what it prints, writes and refuses, in one process and in two."""

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from course_lib.__main__ import main
from course_lib.experiments import train_or_die
from course_lib.parallel import run_processes
from course_lib.training import (
    RECIPES,
    STUDIES,
    LostProcessError,
    Recipe,
    load_card,
    load_pretrained,
    run_recipe,
)
from tests.training.tiny import TINY, jitter

ROOT = Path(__file__).parents[2]
FIELDS = vars(TINY)
ALL, ALL_STUDIES = dict(RECIPES), dict(STUDIES)


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    for name in list(RECIPES):
        monkeypatch.delitem(RECIPES, name)
    for name in list(STUDIES):
        monkeypatch.delitem(STUDIES, name)
    monkeypatch.setitem(RECIPES, "tiny", TINY)
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(tmp_path / "stored"))
    monkeypatch.setenv("COURSE_WIDGETS", "static")  # no progress bar among the lines
    monkeypatch.chdir(tmp_path)


def test_train_then_list(capsys):
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "tiny  -       A line through a sine\n"
    assert main(["train", "tiny"]) == 0
    metric = f"{load_card('tiny')['metrics']['mean squared error']:.4g}"
    where = f"stored in {Path('stored').absolute()} (--out DIR stores elsewhere)\n"
    assert capsys.readouterr().out == f"{where}mean squared error: {metric}\n"
    assert load_card("tiny")["steps"] == 30
    assert not any(Path("runs").iterdir())
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "tiny  stored  A line through a sine\n"
    assert main(["list", "tiny"]) == 0
    assert capsys.readouterr().out == f"A line through a sine\nmean squared error: {metric}\n"


def test_a_table_is_a_line_for_each_row(monkeypatch, capsys):
    rows = [
        {"steps": 10, "eta": 0.0, "by": "DDIM", "distance": 6.14460},
        {"steps": 400, "eta": 0.5},
    ]
    known = Recipe(**FIELDS | {"evaluate": lambda model: {"share": 1 / 3, "samplers": rows}})
    monkeypatch.setitem(RECIPES, "tiny", known)
    said = (
        "share: 0.3333\n"
        "samplers: steps 10, eta 0, by DDIM, distance 6.145\n"
        "samplers: steps 400, eta 0.5\n"
    )
    assert main(["train", "tiny"]) == 0
    assert capsys.readouterr().out.endswith(f"elsewhere)\n{said}")
    assert main(["list", "tiny"]) == 0
    assert capsys.readouterr().out == f"A line through a sine\n{said}"


def test_no_line_of_the_course_s_own_list_is_longer_than_a_screen(monkeypatch, capsys):
    for name, known in ALL.items():
        monkeypatch.setitem(RECIPES, name, known)
    for name, known in ALL_STUDIES.items():
        monkeypatch.setitem(STUDIES, name, known)
    monkeypatch.delenv("COURSE_CHECKPOINTS")
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(RECIPES) + len(STUDIES)
    assert max(map(len, lines)) <= 120
    assert main(["list", "ddpm_digits"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120


def test_a_run_with_other_steps_leaves_the_stored_model_alone(capsys):
    assert main(["train", "tiny"]) == 0
    shipped = {path.name: path.read_bytes() for path in Path("stored").iterdir()}
    capsys.readouterr()
    assert main(["train", "tiny", "--steps", "7"]) == 0
    elsewhere = Path("runs", "tiny-7-steps")
    assert capsys.readouterr().out.startswith(f"stored in {elsewhere} (--out DIR stores elsewhere)")
    assert {path.name: path.read_bytes() for path in Path("stored").iterdir()} == shipped
    assert load_card("tiny", folder=elsewhere)["steps"] == 7
    assert load_card("tiny", folder=elsewhere)["command"].endswith("tiny --steps 7")
    assert main(["train", "tiny", "--steps", "30"]) == 0  # as the recipe says: the same model
    assert {path.name: path.read_bytes() for path in Path("stored").iterdir()} == shipped


def test_with_out_nothing_is_written_elsewhere(monkeypatch):
    interrupted(monkeypatch, "--out", "here", left=Path("here", "tiny.unfinished.safetensors"))
    assert main(["train", "tiny", "--out", "here"]) == 0
    assert {p.name for p in Path("here").iterdir()} == {"tiny.json", "tiny.safetensors"}
    assert {p.name for p in Path().iterdir()} == {"here"}


def test_out_and_threads():
    assert main(["train", "tiny", "--steps", "1", "--out", "here", "--threads", "2"]) == 0
    assert torch.get_num_threads() == 2
    assert {p.name for p in Path("here").iterdir()} == {"tiny.json", "tiny.safetensors"}
    assert not Path("stored").exists()


def interrupted(monkeypatch, *arguments, left=Path("runs", "tiny.safetensors")):
    calls = []

    def transform(x, generator):
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return jitter(x, generator)

    transform.__qualname__ = jitter.__qualname__
    with monkeypatch.context() as patch:
        patch.setitem(RECIPES, "tiny", Recipe(**FIELDS | {"transform": transform}))
        assert main(["train", "tiny", *arguments]) == 130
    assert left.exists()
    return calls


def test_an_interrupted_run_goes_on(monkeypatch, capsys, tmp_path):
    interrupted(monkeypatch)
    assert "stopped after step 4 of 30: the same command goes on" in capsys.readouterr().err
    assert main(["train", "tiny"]) == 0
    resume = Path("runs", "tiny.safetensors")
    assert capsys.readouterr().out.startswith(f"Resuming from {resume} (--fresh starts anew)\n")
    assert not resume.exists()
    whole = run_recipe(TINY, folder=tmp_path / "whole", progress=False)
    assert load_card("tiny")["sha256"] == whole["sha256"]


def test_fresh_starts_anew(monkeypatch, capsys):
    interrupted(monkeypatch)
    assert main(["train", "tiny", "--steps", "5"]) == 2
    assert "steps=30 there, steps=5 here" in capsys.readouterr().err
    assert main(["train", "tiny", "--steps", "5", "--fresh"]) == 0
    assert "Resuming" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: command"),
        (["fly"], "argument command: invalid choice: 'fly'"),
        (["train"], "the following arguments are required: NAME"),
        (["train", "huge"], "recipe must be one of tiny, got 'huge'"),
        (["train", "tiny", "--steps", "0"], "steps must be an integer of at least 1, got 0"),
        (["train", "tiny", "--steps", "x"], "argument --steps: invalid int value: 'x'"),
        (["train", "tiny", "--threads", "0"], "--threads must be an integer of at least 1, got 0"),
        (
            ["train", "tiny", "--steps", "1", "--out", "file/below"],
            "--out must be a folder to write to, got 'file/below' (Not a directory)",
        ),
    ],
    ids=str,
)
def test_errors_are_one_line_and_exit_code_2(arguments, message, capsys):
    Path("file").touch()
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse ends the process itself
        code = stop.code
    assert code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {message}")


def test_divergence_is_one_line(monkeypatch, capsys):
    def nan(x, generator):
        return x * torch.nan

    monkeypatch.setitem(RECIPES, "tiny", Recipe(**FIELDS | {"transform": nan}))
    assert main(["train", "tiny"]) == 2
    assert "error: training diverged in step 1: the loss is nan" in capsys.readouterr().err


def test_notes_are_part_of_the_line(monkeypatch, capsys):
    class Picky(torch.nn.Linear):
        def loss(self, x, *, generator=None):
            raise ValueError("x must be nicer")

    monkeypatch.setitem(RECIPES, "tiny", Recipe(**FIELDS | {"build": lambda: Picky(1, 1)}))
    assert main(["train", "tiny"]) == 2
    line = "error: x must be nicer (this came from model.loss in step 1 of fit)\n"
    assert capsys.readouterr().err.endswith(line)


def test_store_is_handed_on(monkeypatch):
    import course_lib.widgets

    given = []
    fake = types.ModuleType("course_lib.widgets.store")
    fake.main = lambda argv: given.append(argv)
    monkeypatch.setitem(sys.modules, "course_lib.widgets.store", fake)
    monkeypatch.setattr(course_lib.widgets, "store", fake, raising=False)
    assert main(["store", "--check", "a.ipynb"]) == 0
    assert given == [["--check", "a.ipynb"]]
    fake.main = lambda argv: 3
    assert main(["store"]) == 3


def run(*arguments):
    command = [sys.executable, "-m", *arguments]
    changes = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COURSE_WIDGETS": ""}
    environment = os.environ | changes
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def test_as_a_process():
    result = run("course_lib", "train", "no-such-recipe")
    assert result.returncode == 2
    assert result.stderr.startswith("error: recipe must be one of ")
    assert result.stderr.count("\n") == 1


def test_two_processes_take_the_steps_of_one(tmp_path):
    """Five examples a step: shares of three and two. Process 1 starts with other weights.

    It is slow because it is the command that readers type: a launcher and two processes, each of
    which imports PyTorch.
    """
    script = str(ROOT / "tests" / "training" / "tiny.py")
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", script]
    result = run(*launch, "train", "tiny", "--out", str(tmp_path / "two"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("mean squared error") == 1
    assert result.stderr.count("  0%|") == 1, "one bar: each starts once"
    assert {p.name for p in (tmp_path / "two").iterdir()} == {"tiny.json", "tiny.safetensors"}
    run_recipe(TINY, folder=tmp_path / "one", progress=False)
    one, two = (load_pretrained("tiny", folder=tmp_path / name) for name in ("one", "two"))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    start = TINY.new_model()
    assert (start.net[0].weight - two.net[0].weight).abs().max() > 0.05


@pytest.mark.usefixtures("forked")
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_process_ends_the_run_which_goes_on(tmp_path):
    """As slow as the test before, and as real: the same command twice, and a death in between."""
    script = str(ROOT / "tests" / "training" / "rank_that_dies.py")
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", script]
    killed = run(*launch, str(tmp_path / "killed"), "1")
    assert killed.returncode == 1
    assert "failed (exitcode: -9) local_rank: 1" in killed.stderr
    assert killed.stdout == ""
    resumed = run(*launch, str(tmp_path / "killed"))
    assert resumed.returncode == 0, resumed.stderr
    whole = run_processes(train_or_die, 2, str(tmp_path / "whole"))
    assert sorted(resumed.stdout.splitlines()) == [f"the end: {end}" for end in whole]
    # Not the files: safetensors writes what they say of themselves in no fixed order.
    states = [content(tmp_path / name) for name in ("killed", "whole")]
    assert states[0] == states[1]


def content(path):
    """What a file of safetensors holds: the bytes of each tensor, and what it says of itself."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata()


def test_a_lost_process_is_one_line(capsys, monkeypatch):
    def lost(*_, **__):
        raise LostProcessError(7)

    monkeypatch.setattr("course_lib.__main__.run_recipe", lost)
    assert main(["train", "tiny"]) == 2
    assert capsys.readouterr().err == f"error: {LostProcessError(7)}\n"
    assert str(LostProcessError(7)).startswith("another process of this run ended in step 7, or")
