"""What every widget shares: packing, the inlined JavaScript, and the stored form."""

import base64
import html
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from course_lib import widgets
from course_lib.widgets.base import (
    MAX_BYTES,
    check_extent,
    check_labels,
    color_range,
    javascript,
    pack,
    stylesheet,
    to_array,
    value_range,
)

HERE = Path(widgets.__file__).parent
CLASSES = [
    cls
    for cls in vars(widgets).values()
    if isinstance(cls, type) and issubclass(cls, widgets.CourseWidget) and cls.module
]


@pytest.fixture
def player() -> widgets.ParticlePlayer:
    path = np.random.default_rng(0).normal(size=(3, 50, 2))
    return widgets.ParticlePlayer(path, title="A <title> & more", labels=["</script>", "b", "c"])


def page_of(widget: widgets.CourseWidget) -> str:
    """The page inside the iframe of a stored widget."""
    return html.unescape(re.search(r'srcdoc="([^"]*)"', widget.static_html())[1])


# ----------------------------------------------------------------------------------- quantization


@settings(deadline=None)
@given(
    arrays(np.float32, array_shapes(max_side=5), elements=st.floats(-1e6, 1e6, width=32)),
    arrays(np.float32, array_shapes(max_side=5), elements=st.floats(-1, 1, width=32)),
)
def test_packing_keeps_each_array_to_half_a_level(a: np.ndarray, b: np.ndarray) -> None:
    data, layout = pack({"a": a, "b": b}, "")
    assert len(data) == 2 * (a.size + b.size)
    for name, array in {"a": a, "b": b}.items():
        part = layout[name]
        whole = np.frombuffer(data, "<u2", count=array.size, offset=part["offset"])
        unit = (part["high"] - part["low"]) / 65535
        restored = part["low"] + unit * whole.reshape(part["shape"]).astype(np.float64)
        assert part["shape"] == list(array.shape)
        assert np.abs(restored - array).max() <= unit * 0.51 + 1e-12


def test_what_python_reads_back_is_what_was_given(player: widgets.ParticlePlayer) -> None:
    path = np.random.default_rng(0).normal(size=(3, 50, 2))
    np.testing.assert_allclose(player.array("points"), path, atol=1e-4)
    np.testing.assert_allclose(
        player.state_at("points", 1.25), 0.75 * path[1] + 0.25 * path[2], atol=1e-4
    )
    np.testing.assert_allclose(player.state_at("points", 2), path[2], atol=1e-4)


def test_too_much_data_is_refused_with_its_size() -> None:
    limit = MAX_BYTES // 2
    pack({"a": np.zeros(limit)}, "")
    with pytest.raises(ValueError, match=r"at most 300,000 bytes, got 300,002 .*\[150001\].*less"):
        pack({"a": np.zeros(limit + 1)}, "less!")


# -------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "values",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]]),
        torch.tensor([[1.0, 2], [3, 4]]).requires_grad_(),
    ],
)
def test_arrays_come_in_many_forms(values: object) -> None:
    array = to_array("x", values, "[A, B]", 2)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0, 2.0], r"x must have shape \[A, B\], got \[2\]"),
        (np.zeros((0, 3)), r"x must have shape \[A, B\], got \[0, 3\]"),
        ([[1.0], [2.0, 3.0]], "x must be an array"),
        ([["a"]], "x must hold real numbers"),
        ([[1j]], "x must hold real numbers"),
        ([[float("nan")]], "x must be finite"),
        ([[float("inf")]], "x must be finite"),
    ],
)
def test_bad_arrays_are_refused(values: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        to_array("x", values, "[A, B]", 2)


@pytest.mark.parametrize("labels", ["ab", ["a"], ["a", "b", "c"], ["a", 2]])
def test_bad_labels_are_refused(labels: object) -> None:
    with pytest.raises(ValueError, match="labels must be 2 strings"):
        check_labels("labels", labels, 2)


@pytest.mark.parametrize("extent", [(0, 1, 0), (1, 0, 0, 1), (0, 1, 1, 1), (0, float("inf"), 0, 1)])
def test_bad_extents_are_refused(extent: tuple) -> None:
    with pytest.raises(ValueError, match="extent must be"):
        check_extent("extent", extent)


def test_the_range_of_a_signed_map_is_symmetric() -> None:
    assert value_range(np.array([-1.0, 3.0])) == [-1, 3]
    assert value_range(np.array([-1.0, 3.0]), signed=True) == [-3, 3]
    assert value_range(np.array([2.0, 2.0])) == [1.5, 2.5]


def test_a_cyclic_map_covers_the_whole_turn() -> None:
    """Else two directions that are the same would have two colours."""
    angles = np.array([-1.0, 3.0])
    assert color_range(angles, "cyclic") == [-math.pi, math.pi]
    assert color_range(angles, "viridis") == [-1, 3]
    assert color_range(angles, "signed") == [-3, 3]


# ------------------------------------------------------------------------------------- the player


def test_python_can_drive_a_player(player: widgets.ParticlePlayer) -> None:
    assert (player.step, player.playing, player.n_steps) == (0, False, 3)
    player.step = 1.5
    player.playing = True
    assert player.step == 1.5
    for step in (-0.1, 2.1, float("nan")):
        with pytest.raises(ValueError, match=r"step must lie in \[0, 2\]"):
            player.step = step
    with pytest.raises(ValueError, match="rate"):
        player.rate = 0.0


def test_a_player_says_what_it_is_without_an_address(player: widgets.ParticlePlayer) -> None:
    assert repr(player) == "ParticlePlayer('A <title> & more')"


@pytest.mark.parametrize("argument", ["title", "alt"])
def test_texts_must_be_strings(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be a string, got 3"):
        widgets.ParticlePlayer(np.zeros((1, 2, 2)), **{argument: 3})


# ------------------------------------------------------------------------------------- JavaScript


PARTS = sorted(path.name for path in (HERE / "parts").glob("*.js"))


EXPORTED = [
    (part, name)
    for part in PARTS
    for name in re.findall(
        r"^export (?:const|function) (\w+)", (HERE / "parts" / part).read_text("utf-8"), re.M
    )
]


@pytest.mark.parametrize(("part", "name"), EXPORTED)
def test_every_part_is_used(part: str, name: str) -> None:
    """By a widget or by another part: what nobody uses is no part."""
    others = [cls.module for cls in CLASSES] + [
        f"parts/{other}" for other in PARTS if other != part
    ]
    imports = re.compile(rf'^import \{{[^}}]*\b{name}\b[^}}]*\}} from "[^"]*\b{part}"', re.M)
    assert any(imports.search((HERE / other).read_text("utf-8")) for other in others)


@pytest.mark.parametrize("cls", CLASSES)
def test_each_module_stands_alone(cls: type) -> None:
    source = javascript(cls.module)
    assert source.endswith("export default { render };\n")
    assert source.count("export ") == 1
    assert not re.search(r"^import ", source, re.MULTILINE)
    assert "</" not in source.replace("</script", "")  # it would end the script that holds it


@pytest.mark.parametrize("cls", CLASSES)
def test_what_a_module_holds_has_one_name(cls: type) -> None:
    """The module, its parts and what brings a stored copy to life are one scope."""
    source = javascript(cls.module) + (HERE / "static.js").read_text("utf-8")
    names = re.findall(r"^(?:async )?(?:const|let|function|class) (\w+)", source, re.MULTILINE)
    assert sorted(set(names)) == sorted(names)
    assert len(names) > 20


@pytest.mark.parametrize("cls", CLASSES)
def test_a_module_imports_what_it_uses_and_no_more(cls: type) -> None:
    source = (HERE / cls.module).read_text("utf-8")
    imported = re.findall(r'^import (?:\{([^}]*)\}|\w+) from "\./(?:parts/)?[\w.]+"', source, re.M)
    rest = re.sub(r"^import [^;]*;\n", "", source, flags=re.MULTILINE)
    for name in re.findall(r"\w+", " ".join(imported)):
        assert re.search(rf"\b{name}\b", rest), name


@pytest.mark.parametrize(
    "name", ["static.js", *(f"parts/{name}" for name in PARTS), *(cls.module for cls in CLASSES)]
)
def test_nothing_is_fetched(name: str) -> None:
    source = (HERE / name).read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(", source)


def test_parts_are_inlined_once_and_only_where_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "parts/base.js": "// Said once.\nexport const a = 1;\n\nexport const unused = 2;\n",
        "parts/base.css": ".a {}\n",
        "parts/more.js": 'import { a } from "./base.js";\nexport function b() {\n  return a;\n}\n',
        "parts/more.css": ".b {}\n",
        "parts/other.js": "export const never = 3;\n",
        "parts/other.css": ".never {}\n",
        "colours.json": '{"red":\n "#f00"}\n',
        "one.css": '.one::after { content: "x"; }\n',
        "one.js": (
            "// One.\nimport COLOURS from './colours.json' with { type: 'json' };\n"
            "import STYLE from './one.css' with { type: 'css' };\n"
            "import {\n  b\n} from './parts/more.js';\nimport { a } from './parts/base.js';\n"
            'const c = "\\u2212 // stays"; // and so does this\n'
        ).replace("'", '"'),
        "none.js": 'import { x } from "./parts/none.js";\n',
        "alone.js": "const d = 4;\n",
    }
    (tmp_path / "parts").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr("course_lib.widgets.base.HERE", tmp_path)
    assert javascript("one.js") == (
        "const a = 1;\nconst unused = 2;\nfunction b() {\n  return a;\n}\n"
        'const COLOURS = {"red": "#f00"};\n'
        'const STYLE = ".one::after { content: \\"x\\"; }\\n";\n'
        'const c = "\\u2212 // stays"; // and so does this\n'
    )
    assert stylesheet("one.js") == ".a {}\n.b {}\n"
    assert (javascript("alone.js"), stylesheet("alone.js")) == ("const d = 4;\n", "")
    with pytest.raises(ValueError, match=r"none\.js imports \./parts/none\.js, which is not there"):
        javascript("none.js")


# --------------------------------------------------------------------------------- the stored form


def test_live_and_stored_forms(
    player: widgets.ParticlePlayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COURSE_WIDGETS", "static")
    stored = player._repr_mimebundle_()
    assert set(stored) == {"text/html", "text/plain"}
    monkeypatch.delenv("COURSE_WIDGETS")
    live, _ = player._repr_mimebundle_()
    # What the server stores of a live widget comes with it.
    assert live.pop("application/vnd.jupyter.widget-view+json")["model_id"] == player.model_id
    assert live == stored


def test_the_stored_form_holds_the_widget_and_its_data(player: widgets.ParticlePlayer) -> None:
    player.step = 1.0
    page = page_of(player)
    assert javascript(player.module).replace("export default", "const widget =") in page
    assert javascript("static.js") in page
    text = re.search(r'id="state">(.*?)</script>', page)[1]
    state = json.loads(text)
    assert base64.b64decode(state["data"]) == player.data
    assert (state["step"], state["n_steps"]) == (1.0, 3)
    assert state["labels"] == ["</script>", "b", "c"]
    assert not [name for name in state if name.startswith("_")]


def test_the_stored_form_is_the_same_every_time(player: widgets.ParticlePlayer) -> None:
    path = np.random.default_rng(0).normal(size=(3, 50, 2))
    again = widgets.ParticlePlayer(path, title=player.title, labels=player.labels)
    assert again.static_html() == player.static_html()


def test_the_stored_form_escapes_its_texts(player: widgets.ParticlePlayer) -> None:
    assert 'title="A &lt;title&gt; &amp; more"' in player.static_html()


def test_the_stored_form_shows_a_small_picture(player: widgets.ParticlePlayer) -> None:
    picture = re.match(
        r'<div><img src="data:image/png;base64,([^"]+)" alt="50 points move through 3 steps."',
        player.static_html(),
    )[1]
    content = base64.b64decode(picture)
    assert content.startswith(b"\x89PNG")
    assert 2_000 < len(content) < 60_000
