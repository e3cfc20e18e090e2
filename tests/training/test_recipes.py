"""Recipes: how they are named, checked, started, run and stored."""

import re

import pytest
import torch

from course_lib.training import (
    RECIPES,
    Recipe,
    load_card,
    load_pretrained,
    recipe,
    register,
    run_recipe,
)
from tests.training.tiny import TINY, Net, points

FIELDS = vars(TINY)


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    for name in list(RECIPES):
        monkeypatch.delitem(RECIPES, name)
    monkeypatch.setitem(RECIPES, "tiny", TINY)


def test_lookup_and_register():
    assert recipe("tiny") is TINY
    other = Recipe(**FIELDS | {"name": "other"})
    assert register(other) is other
    assert recipe("other") is other
    del RECIPES["other"]


def test_lookup_refuses_an_unknown_name_and_lists_the_others():
    for name in ("huge", None, 3):
        message = f"^{re.escape(f'recipe must be one of tiny, got {name!r}')}$"
        with pytest.raises(ValueError, match=message):
            recipe(name)


CELL = """
from dataclasses import replace

from course_lib.training import register
from tests.training.tiny import TINY

mine = register(replace(TINY, name="mine", summary=summary))
"""


def test_a_cell_that_is_run_again_registers_its_recipe_anew(monkeypatch):
    for summary in ("first", "second"):
        cell = {"__name__": "__main__", "summary": summary}
        exec(CELL, cell)
        assert RECIPES["mine"] is cell["mine"]
        assert RECIPES["mine"].summary == summary
    try:
        for elsewhere in ("course_lib.training.recipes_flows", "somebody"):
            with pytest.raises(ValueError, match="must have a name of its own, got 'mine'"):
                exec(CELL, {"__name__": elsewhere, "summary": "third"})
        assert RECIPES["mine"].summary == "second"
        del RECIPES["mine"]
        exec(CELL, {"__name__": "somebody", "summary": "theirs"})
        with pytest.raises(ValueError, match="must have a name of its own, got 'mine'"):
            exec(CELL, {"__name__": "__main__", "summary": "not mine"})
        with pytest.raises(ValueError, match="must have a name of its own, got 'mine'"):
            exec(CELL, {"__name__": "somebody", "summary": "theirs, by mistake"})
    finally:
        RECIPES.pop("mine", None)


def test_a_global_default_device_is_not_followed(tmp_path):
    wanted = run_recipe(TINY, folder=tmp_path / "cpu", progress=False)["sha256"]
    before = torch.get_default_device()
    torch.set_default_device("meta")  # as good as a GPU: what follows it has no numbers
    try:
        assert next(TINY.new_model().parameters()).device.type == "cpu"
        card = run_recipe(TINY, folder=tmp_path / "meta", progress=False)
        model = load_pretrained("tiny", folder=tmp_path / "meta")
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(before)
    assert card["sha256"] == wanted
    assert {t.device.type for t in model.state_dict().values()} == {"cpu"}


def test_folders_are_tried_before_anything_is_trained(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    idle = Recipe(**FIELDS | {"build": lambda: pytest.fail("was built")})
    for name in ("folder", "resume"):
        path = tmp_path / "file" / "below" / "deep"
        where = {"folder": tmp_path / "out"} | {name: path}
        with pytest.raises(ValueError, match=rf"^{name} must be a folder to write to, .*--out DIR"):
            run_recipe(idle, progress=False, **where)
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"^folder must be .*file' \(Not a directory\)"):
        run_recipe(idle, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_a_model_of_other_steps_has_a_place_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(tmp_path / "stored"))
    run_recipe(TINY, progress=False)
    run_recipe(TINY, steps=2, progress=False)
    assert load_card("tiny")["steps"] == 30
    assert load_card("tiny", folder="runs/tiny-2-steps")["steps"] == 2


def test_register_refuses():
    with pytest.raises(ValueError, match=r"^new must have a name of its own, got 'tiny' a second"):
        register(TINY)
    with pytest.raises(ValueError, match=r"^new must be a Recipe, got 3$"):
        register(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Tiny"}, "name must be lower-case letters, digits, - and _, got 'Tiny'"),
        ({"name": "a/b"}, "name must be lower-case letters, digits, - and _, got 'a/b'"),
        ({"name": "a\n"}, "name must be lower-case letters, digits, - and _, got 'a\\n'"),
        ({"summary": " "}, "summary must be a line of text, got ' '"),
        ({"data": None}, "data must be a line of text, got None"),
        ({"build": 3}, "build must be a function, got 3"),
        ({"load": 3}, "load must be a function, got 3"),
        ({"evaluate": 3}, "evaluate must be a function, got 3"),
        ({"transform": 3}, "transform must be a function or None, got 3"),
        ({"prepare": 3}, "prepare must be a function or None, got 3"),
        ({"options": {"steps": 1}}, "options must hold batch_size and steps, and may hold clip, "),
        ({"options": {"steps": 1, "batch_size": 1, "seed": 1}}, "options must hold batch_size and"),
        ({"options": ["steps", "batch_size"]}, "options must hold batch_size and steps, and may"),
        ({"dtype": "float64"}, "dtype must be one of float16, float32, got 'float64'"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
    ids=str,
)
def test_recipe_refuses(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        Recipe(**FIELDS | change)


def test_the_random_start_follows_from_the_seed_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = TINY.new_model()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again, other = TINY.new_model(), Recipe(**FIELDS | {"seed": 1}).new_model()
    assert torch.equal(first.net[0].weight, again.net[0].weight)
    assert not torch.equal(first.net[0].weight, other.net[0].weight)


def test_running_a_recipe_stores_what_it_measured(tmp_path):
    half = Recipe(**FIELDS | {"dtype": "float16"})
    card = run_recipe(half, folder=tmp_path / "out", resume=tmp_path / "run", progress=False)
    assert card == load_card("tiny", folder=tmp_path / "out")
    assert card["command"] == "python -m course_lib train tiny"
    assert [card[key] for key in ("summary", "recipe", "data")] == [
        "A line through a sine",
        "tiny",
        "33 points of a sine",
    ]
    assert (card["seed"], card["steps"], card["dtype"]) == (0, 30, "float16")
    assert not (tmp_path / "run").exists()
    # The metric is that of the rounded model, exactly.
    model = load_pretrained("tiny", folder=tmp_path / "out")
    assert card["metrics"] == {"mean squared error": model.loss(points()).item()}
    untrained = TINY.new_model().loss(points()).item()
    assert card["metrics"]["mean squared error"] < untrained / 2


def test_a_recipe_is_reproducible_and_its_options_count(tmp_path):
    def sha256(known, **options):
        return run_recipe(known, folder=tmp_path, progress=False, **options)["sha256"]

    first = sha256(TINY)
    assert sha256(TINY) == first
    assert sha256(TINY, steps=30) == first
    changes = [
        {"seed": 1},
        {"transform": None},
        {"options": FIELDS["options"] | {"lr": 0.03}},
        {"options": FIELDS["options"] | {"ema": None}},
    ]
    assert len({first, *(sha256(Recipe(**FIELDS | change)) for change in changes)}) == 5


def test_prepare_meets_the_untrained_model_and_the_data(tmp_path):
    met = []

    def prepare(model, data):
        assert torch.equal(model.net[0].weight, TINY.new_model().net[0].weight)
        assert torch.equal(data, points())
        model.loss_noise = 0.5
        met.append(model)

    def evaluate(model):
        assert [model] == met
        return {"noise": model.loss_noise}

    known = Recipe(**FIELDS | {"prepare": prepare, "evaluate": evaluate})
    card = run_recipe(known, steps=1, folder=tmp_path, progress=False)
    assert card["metrics"] == {"noise": 0.5}


def test_fewer_steps_are_named_in_the_command(tmp_path):
    card = run_recipe(TINY, steps=2, folder=tmp_path, progress=False)
    assert card["steps"] == 2
    assert card["command"] == "python -m course_lib train tiny --steps 2"


def test_a_failed_evaluation_keeps_the_training(tmp_path):
    broken = Recipe(**FIELDS | {"evaluate": lambda model: {"error": float("nan")}})
    where = {"folder": tmp_path / "out", "resume": tmp_path / "run", "progress": False}
    with pytest.raises(ValueError, match="metric error must be a finite number"):
        run_recipe(broken, **where)
    assert (tmp_path / "run").exists()
    assert not (tmp_path / "out").exists()
    assert run_recipe(TINY, **where)["steps"] == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "tiny"}, "recipe must be a Recipe, got 'tiny'"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"progress": "no"}, "progress must be True or False, got 'no'"),
        ({"folder": 3}, "folder must be a path or None, got 3"),
        ({"resume": 3}, "resume must be a path or None, got 3"),
    ],
)
def test_run_refuses_before_any_work(change, message, tmp_path):
    built = []
    watched = Recipe(**FIELDS | {"build": lambda: built.append(1) or Net()})
    arguments = {"recipe": watched, "folder": tmp_path} | change
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        run_recipe(**arguments)
    assert built == []
