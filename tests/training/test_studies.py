"""Studies: what is stored of one, where, and what happens to a run that is ended."""

import json
from pathlib import Path

import pytest
import torch

from course_lib.__main__ import main
from course_lib.training import (
    STUDIES,
    Study,
    load_study,
    register_study,
    run_study,
    study,
    study_folder,
)

METRICS = {"models": [{"model": "a", "loss": 0.5}, {"model": "b", "loss": 1 / 3}], "time": 7.0}
STORED = Path(__file__).parents[2] / "data" / "studies"
ALL = {name: one for name, one in STUDIES.items() if (STORED / f"{name}.json").exists()}


def tiny(**fields):
    given = {
        "name": "tiny",
        "summary": "Nothing is trained",
        "data": "none",
        "budget": 2.0,
        "seeds": (0, 3),
        "run": lambda folder: METRICS,
    }
    return Study(**given | fields)


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    for name in list(STUDIES):
        monkeypatch.delitem(STUDIES, name)
    monkeypatch.setitem(STUDIES, "tiny", tiny())
    monkeypatch.setenv("COURSE_STUDIES", str(tmp_path / "stored"))
    monkeypatch.chdir(tmp_path)


def test_what_is_stored_is_what_is_loaded():
    stored = run_study(study("tiny"))
    assert stored == {
        "name": "tiny",
        "summary": "Nothing is trained",
        "command": "python -m course_lib measure tiny",
        "data": "none",
        "budget": 2.0,
        "seeds": [0, 3],
        "torch": torch.__version__,
        "metrics": METRICS,
    }
    assert load_study("tiny") == stored
    assert {path.name for path in study_folder().iterdir()} == {"tiny.json"}
    assert study_folder() == Path("stored").absolute()
    assert not Path("runs", "tiny").exists()


def test_elsewhere(monkeypatch):
    stored = run_study(study("tiny"), folder="state", out=Path("here"))
    assert load_study("tiny", folder="here") == stored
    assert not study_folder().exists()
    monkeypatch.delenv("COURSE_STUDIES")
    assert study_folder() == STORED


@pytest.mark.parametrize("end", [KeyboardInterrupt, ValueError])
def test_an_ended_run_finds_its_folder_again(end):
    """What it has done is there when it is called again, and gone when all is stored."""
    Path("runs").mkdir()
    Path("runs", "other").write_text("stays")

    def run(folder):
        done = folder / "half.json"
        if not done.exists():
            done.write_text("5")
            raise end
        return {"value": float(done.read_text())}

    with pytest.raises(end):
        run_study(tiny(run=run))
    assert not study_folder().exists()
    assert run_study(tiny(run=run))["metrics"] == {"value": 5.0}
    assert [path.name for path in Path("runs").iterdir()] == ["other"]


@pytest.mark.parametrize(
    "metrics",
    [{"a": float("nan")}, {"a": []}, {"a": [{"b": float("inf")}]}, {"a": [{"b": None}]}, {"a": {}}],
)
def test_what_is_no_table_is_not_stored_and_not_lost(metrics):
    def run(folder):
        (folder / "hours").touch()
        return metrics

    with pytest.raises(ValueError, match="metric a"):
        run_study(tiny(run=run))
    assert not study_folder().exists()
    assert Path("runs", "tiny", "hours").exists()


def test_damaged_files():
    run_study(study("tiny"))
    path = study_folder() / "tiny.json"
    whole = path.read_text()
    remedy = "run `python -m course_lib measure tiny`"
    path.write_text(whole[:50])
    with pytest.raises(ValueError, match=f"tiny.json is damaged .*{remedy}"):
        load_study("tiny")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=f"tiny.json is damaged .*{remedy}"):
        load_study("tiny")
    less = {key: value for key, value in json.loads(whole).items() if key != "seeds"}
    for other in (less, json.loads(whole) | {"name": "other"}, [1]):
        path.write_text(json.dumps(other))
        with pytest.raises(ValueError, match=f"tiny.json is not what is stored of tiny: {remedy}"):
            load_study("tiny")
    path.unlink()
    with pytest.raises(ValueError, match=r"tiny.json can't be read \(No such file.*measure tiny"):
        load_study("tiny")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "No Name"),
        ("summary", " "),
        ("data", None),
        ("budget", 0.0),
        ("budget", float("nan")),
        ("seeds", ()),
        ("seeds", [0]),
        ("seeds", (-1,)),
        ("run", None),
    ],
)
def test_a_study_is_told_what_is_wrong_with_it(field, value):
    with pytest.raises(ValueError, match=rf"^{field}"):
        tiny(**{field: value})


def test_less_than_a_second_is_a_budget():
    assert tiny(budget=0.25).budget == 0.25


def test_what_is_stored_can_be_read_by_people():
    run_study(tiny(summary="Größe"))
    text = (study_folder() / "tiny.json").read_text(encoding="utf-8")
    assert '\n  "summary": "Größe",\n' in text
    assert text.endswith("}\n")


def test_bad_arguments():
    with pytest.raises(ValueError, match="study must be one of tiny, got 'tny'"):
        study("tny")
    with pytest.raises(ValueError, match="study must be a Study, got 'tiny'"):
        run_study("tiny")
    for name in ("folder", "out"):
        with pytest.raises(ValueError, match=f"{name} must be a path, got 5"):
            run_study(study("tiny"), **{name: 5})
    Path("file").touch()
    for name in ("folder", "out"):
        with pytest.raises(ValueError, match=f"{name} must be a folder to write to"):
            run_study(study("tiny"), **{name: "file"})
    with pytest.raises(ValueError, match="folder must be a path, got 5"):
        load_study("tiny", folder=5)
    with pytest.raises(ValueError, match="name must be lower-case"):
        load_study("../tiny")
    with pytest.raises(ValueError, match="new must have a name of its own, got 'tiny'"):
        register_study(tiny())
    with pytest.raises(ValueError, match="new must be a Study, got 'tiny'"):
        register_study("tiny")
    assert register_study(tiny(name="second")) is study("second")


def test_the_command_measures_and_lists(capsys):
    assert main(["list"]) == 0
    assert capsys.readouterr().out.endswith(
        "tiny                        -       Nothing is trained\n"
    )
    assert main(["measure", "tiny"]) == 0
    said = "models: model a, loss 0.5\nmodels: model b, loss 0.3333\ntime: 7\n"
    where = f"stored in {Path('stored').absolute()} (--out DIR stores elsewhere)\n"
    assert capsys.readouterr().out == where + said
    assert main(["list", "tiny"]) == 0
    assert capsys.readouterr().out == f"Nothing is trained\n{said}"
    assert main(["list"]) == 0
    assert capsys.readouterr().out.endswith(
        "tiny                        stored  Nothing is trained\n"
    )
    assert main(["measure", "tiny", "--out", "here", "--threads", "2"]) == 0
    assert torch.get_num_threads() == 2
    assert capsys.readouterr().out.startswith("stored in here")
    assert main(["measure", "none"]) == 2
    assert capsys.readouterr().err == "error: study must be one of tiny, got 'none'\n"
    assert main(["measure", "tiny", "--threads", "0"]) == 2


def test_the_command_goes_on_or_starts_anew(monkeypatch, capsys):
    seen = []

    def run(folder):
        seen.append(sorted(path.name for path in folder.iterdir()))
        (folder / str(len(seen))).touch()
        if len(seen) < 3:
            raise KeyboardInterrupt
        return METRICS

    monkeypatch.setitem(STUDIES, "tiny", tiny(run=run))
    assert main(["measure", "tiny", "--folder", "state"]) == 130
    assert capsys.readouterr().out == ""
    assert main(["measure", "tiny", "--folder", "state"]) == 130
    resuming = f"Resuming from {Path('state', 'tiny')} (--fresh starts anew)\n"
    assert capsys.readouterr().out == resuming
    assert main(["measure", "tiny", "--folder", "state", "--fresh"]) == 0
    assert seen == [[], ["1"], []]
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ALL)
def test_every_study_of_the_course_is_stored_as_it_stands(name, monkeypatch):
    monkeypatch.delenv("COURSE_STUDIES")
    stored, known = load_study(name), ALL[name]
    assert stored["command"] == f"python -m course_lib measure {name}"
    assert (stored["summary"], stored["data"]) == (known.summary, known.data)
    assert (stored["budget"], tuple(stored["seeds"])) == (known.budget, known.seeds)
    assert stored["metrics"]
