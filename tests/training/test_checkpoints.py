"""Stored models come back as they were, and anything else is refused."""

import hashlib
import json
import math
import re

import pytest
import safetensors.torch
import torch
from torch import nn

from course_lib.training import (
    RECIPES,
    Recipe,
    checkpoint_folder,
    load_card,
    load_pretrained,
    round_weights,
    save_pretrained,
)
from course_lib.training import checkpoints as module
from tests.training.tiny import TINY, Net

CARD = {
    "summary": "A line through a sine",
    "recipe": "tiny",
    "command": "python -m course_lib train tiny",
    "data": "33 points of a sine",
    "seed": 0,
    "steps": 30,
    "metrics": {
        "mean squared error": 0.25,
        "points": 33,
        "samplers": [{"steps": 5, "kind": "slow", "distance": 2.5}, {"steps": 10, "kind": "slow"}],
    },
}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(RECIPES, "tiny", TINY)


@pytest.fixture
def stored(tmp_path):
    model = Net()
    save_pretrained(model, "tiny", CARD, folder=tmp_path, dtype="float16")
    return model, tmp_path


def test_float32_comes_back_exactly(tmp_path):
    model = Net()
    save_pretrained(model, "tiny", CARD, folder=str(tmp_path))
    loaded = load_pretrained("tiny", folder=str(tmp_path))
    assert isinstance(loaded, Net)
    assert not loaded.training
    for name, t in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], t)


def test_float16_comes_back_rounded_as_float32(stored):
    model, folder = stored
    loaded = load_pretrained("tiny", folder=folder)
    for name, t in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[name], t.half().float())
    assert not torch.equal(loaded.net[0].weight, model.net[0].weight)  # the model kept its own


def test_the_card(stored):
    folder = stored[1]
    card = load_card("tiny", folder=folder)
    payload = (folder / "tiny.safetensors").read_bytes()
    assert card == CARD | {
        "name": "tiny",
        "parameters": 8 + 8 + 8 + 1,
        "dtype": "float16",
        "sha256": hashlib.sha256(payload).hexdigest(),
        "torch": torch.__version__,
    }
    assert {p.name for p in folder.iterdir()} == {"tiny.safetensors", "tiny.json"}
    assert (folder / "tiny.json").read_text(encoding="utf-8").endswith("}\n")


def test_save_returns_the_card(tmp_path):
    card = save_pretrained(Net(), "tiny", CARD, folder=tmp_path)
    assert card == load_card("tiny", folder=tmp_path)
    assert card["dtype"] == "float32"


def test_the_card_is_written_last(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(module, "write_atomically", lambda path, _: written.append(path.name))
    save_pretrained(Net(), "tiny", CARD, folder=tmp_path)
    assert written == ["tiny.safetensors", "tiny.json"]


def test_integer_buffers_and_tied_weights_are_kept(tmp_path, monkeypatch):
    class Odd(Net):
        def __init__(self):
            super().__init__()
            self.tied = self.net
            self.register_buffer("count", torch.tensor(70_001))

    known = Recipe(**vars(TINY) | {"name": "odd", "build": Odd})
    monkeypatch.setitem(RECIPES, "odd", known)
    model = Odd()
    model.count += 1
    save_pretrained(model, "odd", CARD | {"recipe": "odd"}, folder=tmp_path, dtype="float16")
    loaded = load_pretrained("odd", folder=tmp_path)
    assert loaded.count == 70_002
    assert loaded.count.dtype == torch.int64
    assert loaded.tied is loaded.net


def test_the_default_folder(stored, monkeypatch):
    monkeypatch.delenv("COURSE_CHECKPOINTS", raising=False)
    assert checkpoint_folder().parts[-2:] == ("data", "checkpoints")
    assert checkpoint_folder().is_dir()
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(stored[1]))
    assert checkpoint_folder() == stored[1]
    assert load_card("tiny")["recipe"] == "tiny"
    assert isinstance(load_pretrained("tiny"), Net)


def test_loading_leaves_the_global_generator_alone(stored):
    state = torch.get_rng_state()
    load_pretrained("tiny", folder=stored[1])
    assert torch.equal(torch.get_rng_state(), state)


def flip_last_bit(payload):
    return payload[:-1] + bytes([payload[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [flip_last_bit, lambda p: p[:-1], lambda p: p + b"\0", lambda p: b"", lambda p: p[:20]],
    ids=["one bit", "truncated", "longer", "empty", "header cut"],
)
def test_refuses_a_damaged_file_before_parsing_it(stored, damage, monkeypatch):
    path = stored[1] / "tiny.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr(safetensors.torch, "load", lambda _: pytest.fail("was parsed"))
    message = (
        f"{path} is not the file of its card (SHA-256 differs): "
        "run `python -m course_lib train tiny`, or restore it with `git checkout`"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_pretrained("tiny", folder=stored[1])


def test_the_package_alone_says_where_stored_models_are(monkeypatch, tmp_path):
    monkeypatch.delenv("COURSE_CHECKPOINTS", raising=False)
    monkeypatch.setattr(module, "ROOT", tmp_path)  # as in site-packages: no clone around it
    with pytest.raises(ValueError, match="can't be read") as refused:
        load_pretrained("tiny")
    assert "from a clone with `pip install -e .`" in str(refused.value)
    assert "COURSE_CHECKPOINTS" in str(refused.value)
    assert "run `python -m course_lib train tiny`" in str(refused.value)
    assert "git checkout" not in str(refused.value)


@pytest.mark.parametrize("missing", ["tiny.safetensors", "tiny.json"])
def test_refuses_a_missing_file(stored, missing):
    path = stored[1] / missing
    path.unlink()
    message = f"{path} can't be read (No such file or directory): run `python -m course_lib train "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}tiny`"):
        load_pretrained("tiny", folder=stored[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is damaged"),
        (b'{"name": "tiny"', "is damaged"),
        (b"\xff\xfe\xff", "is damaged"),
        (b"[]", "is not the card of a stored model"),
        (b'{"name": "tiny"}', "is not the card of a stored model"),
    ],
)
def test_refuses_a_damaged_card(stored, text, message):
    path = stored[1] / "tiny.json"
    path.write_bytes(text)
    for load in (load_card, load_pretrained):
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))} {message}.*train tiny"):
            load("tiny", folder=stored[1])


def rewrite_card(folder, **changes):
    path = folder / "tiny.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_refuses_a_card_of_an_unknown_recipe(stored):
    rewrite_card(stored[1], recipe="huge")
    with pytest.raises(ValueError, match=r"^recipe must be one of .*tiny.*, got 'huge'$"):
        load_pretrained("tiny", folder=stored[1])


@pytest.mark.parametrize(
    "payload",
    [
        b"not safetensors",
        safetensors.torch.save({"net.0.weight": torch.zeros(8, 1)}),
        safetensors.torch.save({**Net().state_dict(), "more": torch.zeros(1)}),
        safetensors.torch.save({**Net().state_dict(), "net.0.bias": torch.zeros(9)}),
    ],
    ids=["no safetensors", "missing tensors", "one too many", "another shape"],
)
def test_refuses_a_file_that_does_not_fit_the_recipe(stored, payload):
    path = stored[1] / "tiny.safetensors"
    path.write_bytes(payload)
    rewrite_card(stored[1], sha256=hashlib.sha256(payload).hexdigest())
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} doesn't fit its recipe"):
        load_pretrained("tiny", folder=stored[1])


def test_at_most_six_megabytes(tmp_path):
    class Large(Net):
        def __init__(self, numbers):
            super().__init__()
            self.more = nn.Parameter(torch.zeros(numbers))

    save_pretrained(Large(1_499_000), "tiny", CARD, folder=tmp_path / "a", dtype="float32")
    assert (tmp_path / "a" / "tiny.safetensors").stat().st_size <= 6_000_000
    with pytest.raises(ValueError, match="model must fit in 6000000 bytes as float32, got 600"):
        save_pretrained(Large(1_500_000), "tiny", CARD, folder=tmp_path / "b", dtype="float32")
    assert not (tmp_path / "b").exists()
    save_pretrained(Large(1_500_000), "tiny", CARD, folder=tmp_path / "b", dtype="float16")


def filled(value):
    model = Net()
    nn.init.constant_(model.net[2].bias, value)
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 3}, "model must be a torch.nn.Module, got 3"),
        (
            {"model": filled(math.nan)},
            "model must have weights that are finite in float16, not so: net.2.bias",
        ),
        (
            {"model": filled(1e5)},
            "model must have weights that are finite in float16, not so: net.2.bias",
        ),
        ({"name": "../tiny"}, "name must be lower-case letters, digits, - and _, got '../tiny'"),
        ({"name": ""}, "name must be lower-case letters, digits, - and _, got ''"),
        ({"name": 3}, "name must be lower-case letters, digits, - and _, got 3"),
        ({"dtype": "int8"}, "dtype must be one of float16, float32, got 'int8'"),
        ({"folder": 3}, "folder must be a path or None, got 3"),
        ({"card": []}, "card must be a mapping of summary, recipe, command, data, seed, steps, me"),
        ({"card": {"seed": 1}}, "card must be a mapping of summary, recipe, command, data, seed"),
        ({"card": CARD | {"sha256": ""}}, "card must be a mapping of summary, recipe, command"),
        ({"card": CARD | {"summary": 1}}, "card['summary'] must be text, got 1"),
        ({"card": CARD | {"command": 1}}, "card['command'] must be text, got 1"),
        ({"card": CARD | {"data": None}}, "card['data'] must be text, got None"),
        ({"card": CARD | {"seed": -1}}, "card['seed'] must be an integer of at least 0, got -1"),
        ({"card": CARD | {"steps": 0}}, "card['steps'] must be an integer of at least 1, got 0"),
        ({"card": CARD | {"metrics": 1}}, "card['metrics'] must be a mapping, got 1"),
        ({"card": CARD | {"metrics": {"a": math.inf}}}, "metric a must be a finite number"),
        ({"card": CARD | {"metrics": {"a": "b"}}}, "metric a must be a finite number"),
        ({"card": CARD | {"metrics": {"a": []}}}, "metric a must have a row at least, got []"),
        (
            {"card": CARD | {"metrics": {"a": [1]}}},
            "metric a[0] must be a row of named values, got",
        ),
        (
            {"card": CARD | {"metrics": {"a": [{1: 2}]}}},
            "metric a[0] must be a row of named values",
        ),
        (
            {"card": CARD | {"metrics": {"a": [{"b": 1}, {"b": math.nan}]}}},
            "metric a[1]['b'] must be a finite number",
        ),
        ({"card": CARD | {"metrics": {"a": [{"b": None}]}}}, "metric a[0]['b'] must be a finite"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_save_refuses(tmp_path, change, message):
    arguments = {"model": Net(), "name": "tiny", "card": CARD, "dtype": "float16"} | change
    arguments = {"folder": tmp_path} | arguments
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        save_pretrained(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_save_refuses_an_unknown_recipe(tmp_path):
    with pytest.raises(ValueError, match=r"recipe must be one of .*tiny.*, got 'large'"):
        save_pretrained(Net(), "tiny", CARD | {"recipe": "large"}, folder=tmp_path)


@pytest.mark.parametrize("load", [load_card, load_pretrained])
def test_load_refuses(load, tmp_path):
    with pytest.raises(ValueError, match=r"^name must be lower-case letters, digits, - and _"):
        load("../tiny", folder=tmp_path)
    with pytest.raises(ValueError, match=r"^folder must be a path or None, got 3$"):
        load("tiny", folder=3)


def test_rounding():
    model = Net().double()
    nn.init.constant_(model.net[0].bias, 1 + 2**-10 + 2**-13)
    nn.init.constant_(model.net[2].bias, 1 + 2**-30)
    round_weights(model, "float16")  # 10 bits after the binary point
    assert (model.net[0].bias == 1 + 2**-10).all()
    assert (model.net[2].bias == 1).all()
    assert model.net[0].bias.dtype == torch.float64
    assert model.net[0].bias.requires_grad
    nn.init.constant_(model.net[2].bias, 1 + 2**-20 + 2**-30)
    round_weights(model, "float32")
    assert (model.net[2].bias == 1 + 2**-20).all()


def test_rounding_refuses():
    with pytest.raises(ValueError, match="dtype must be one of float16, float32, got 'double'"):
        round_weights(Net(), "double")
    with pytest.raises(ValueError, match=r"model must be a torch\.nn\.Module, got 3"):
        round_weights(3, "float16")
    model = filled(1e5)
    before = model.net[0].weight.clone()
    with pytest.raises(ValueError, match=r"finite in float16, not so: net\.2\.bias"):
        round_weights(model, "float16")
    assert torch.equal(model.net[0].weight, before)
