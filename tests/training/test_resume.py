"""A run that is killed at any moment goes on to the very end of an uninterrupted one."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from course_lib.training import DivergedError, fit
from course_lib.training import resume as resume_module
from course_lib.training.files import write_atomically
from tests.training.tiny import STEPS, WAYS_TO_DIE, jitter, killed_in_a_step, points, train

ROOT = Path(__file__).parents[2]


def steps_in(path):
    with safetensors.safe_open(path, framework="pt") as file:
        return len(file.get_tensor("losses"))


def assert_same(run, other):
    (model, history), (other_model, other_history) = run, other
    assert history.losses == other_history.losses
    assert model.state_dict().keys() == other_model.state_dict().keys()
    for name, t in model.state_dict().items():
        assert torch.equal(t, other_model.state_dict()[name]), name


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    command = [sys.executable, "-m", "tests.training.tiny", "kill", str(tmp_path)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=100)
    uninterrupted = train(None)
    assert uninterrupted[1].steps == STEPS
    for way in WAYS_TO_DIE:
        path = tmp_path / way.__name__
        assert steps_in(path) == 10
        assert path.with_name(path.name + ".tmp").exists() == (way != killed_in_a_step)
        assert_same(train(path), uninterrupted)
        assert steps_in(path) == STEPS
        assert list(tmp_path.glob(path.name + "*")) == [path]


def test_a_checkpoint_changes_nothing(tmp_path):
    assert_same(train(tmp_path / "run"), train(None))


def test_a_finished_run_is_loaded_not_repeated(tmp_path):
    run = train(tmp_path / "run")
    before = (tmp_path / "run").stat().st_mtime_ns
    assert_same(train(tmp_path / "run"), run)
    assert (tmp_path / "run").stat().st_mtime_ns == before


def test_an_interrupt_saves(tmp_path):
    calls = []

    def transform(x, generator):
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return jitter(x, generator)

    transform.__qualname__ = jitter.__qualname__
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step 4 of {STEPS}"):
        train(tmp_path / "run", transform=transform)
    assert steps_in(tmp_path / "run") == 4
    assert_same(train(str(tmp_path / "run")), train(None))


def test_an_exception_leaves_the_last_checkpoint(tmp_path):
    calls = []

    def transform(x, generator):
        calls.append(1)
        return jitter(x, generator) * (1 if len(calls) < 15 else torch.nan)

    transform.__qualname__ = jitter.__qualname__
    with pytest.raises(DivergedError):
        train(tmp_path / "run", transform=transform)
    assert steps_in(tmp_path / "run") == 10


def test_writes_every_so_many_steps(tmp_path, monkeypatch):
    sizes = []

    def counting(path, payload):
        sizes.append(len(safetensors.torch.load(payload)["losses"]))
        write_atomically(path, payload)

    monkeypatch.setattr(resume_module, "write_atomically", counting)
    train(tmp_path / "run", checkpoint_every=7)
    assert sizes == [7, 14, 21, 28, 30]


def test_the_file_is_plain_safetensors_with_all_that_changes(tmp_path):
    train(tmp_path / "run")
    with safetensors.safe_open(tmp_path / "run", framework="pt") as file:
        names = set(file.keys())
        assert file.metadata()["format"] == "course_lib training state 1"
    layers = [f"net.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")]
    moments = [f"optimizer/{n}/{k}" for n in layers for k in ("step", "exp_avg", "exp_avg_sq")]
    both = [f"{part}/{n}" for part in ("model", "average") for n in layers]
    assert names == {"losses", *moments, *both}


def test_unused_parameters_and_tied_weights_survive(tmp_path):
    def run(steps_before=None):
        model, _ = train(None, steps=1)
        model.unused = torch.nn.Parameter(torch.ones(2))
        model.tied = model.net
        calls = []

        def transform(x, generator):
            calls.append(1)
            if len(calls) == steps_before:
                signal.raise_signal(signal.SIGINT)
            return x

        options = {"steps": 9, "batch_size": 8, "transform": transform, "device": "cpu"}
        fit(model, points(), checkpoint=tmp_path / "run", progress=False, **options)
        return model

    with pytest.raises(KeyboardInterrupt):
        run(steps_before=5)
    resumed = run()
    (tmp_path / "run").unlink()
    whole = run()
    for name, t in whole.state_dict().items():
        assert torch.equal(t, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 31}, "steps=30 there, steps=31 here"),
        ({"batch_size": 11}, "batch_size=10 there, batch_size=11 here"),
        ({"lr": 0.03}, "lr=0.02 there, lr=0.03 here"),
        ({"schedule": "constant"}, "schedule='cosine' there, schedule='constant' here"),
        ({"weight_decay": 0.2}, "weight_decay=0.1 there, weight_decay=0.2 here"),
        ({"clip": None}, "clip=0.5 there, clip=None here"),
        ({"ema": None}, "ema=0.9 there, ema=None here"),
        ({"seed": 4}, "seed=3 there, seed=4 here"),
        ({"transform": None}, "transform='jitter' there, transform='NoneType' here"),
        ({"lr": 1, "seed": 4}, "lr=0.02 there, lr=1 here; seed=3 there, seed=4 here"),
    ],
    ids=str,
)
def test_refuses_other_options(tmp_path, change, message):
    path = tmp_path / "run"
    train(path, steps=30)
    before = path.read_bytes()
    message = f"checkpoint {path} belongs to a run with other options ({message}): use the same"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        train(path, **change)
    assert path.read_bytes() == before


def test_refuses_another_model_or_other_data(tmp_path, monkeypatch):
    path = tmp_path / "run"
    train(path)
    monkeypatch.setattr("tests.training.tiny.points", lambda: points() + 1)
    with pytest.raises(ValueError, match=r"data='float32 \[33, 2\], \w{12}' there, data='float32"):
        train(path)
    monkeypatch.undo()
    monkeypatch.setattr("tests.training.tiny.seeded_net", lambda: Other())
    with pytest.raises(ValueError, match=r"model='Net of 25 numbers, .* model='Other of 2 numbers"):
        train(path)


class Other(torch.nn.Linear):
    def __init__(self):
        super().__init__(1, 1)

    def loss(self, x, *, generator=None):
        return self(x[:, :1]).square().mean()


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "is damaged"),
        (b"not a checkpoint at all", "is damaged"),
        (safetensors.torch.save({"losses": torch.zeros(2)}), "was not written by fit"),
        (safetensors.torch.save({}, {"format": "another"}), "was not written by fit"),
    ],
)
def test_refuses_a_file_that_is_no_checkpoint(tmp_path, payload, message):
    path = tmp_path / "run"
    path.write_bytes(payload)
    with pytest.raises(ValueError, match=f"^checkpoint {re.escape(str(path))} {message}"):
        train(path)
    assert path.read_bytes() == payload


def test_refuses_a_truncated_checkpoint(tmp_path):
    path = tmp_path / "run"
    train(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged"):
        train(path)


def test_files_are_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "new" / "folder" / "file"
    write_atomically(path, b"old")
    order = []
    fsync, replace = os.fsync, os.replace

    def checked_fsync(descriptor):
        order.append("fsync")
        assert path.with_name("file.tmp").read_bytes() == b"new"
        fsync(descriptor)

    def checked_replace(source, target):
        order.append("replace")
        assert path.read_bytes() == b"old"
        replace(source, target)

    monkeypatch.setattr(os, "fsync", checked_fsync)
    monkeypatch.setattr(os, "replace", checked_replace)
    write_atomically(path, b"new")
    assert order == ["fsync", "replace"]
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
