"""PromptBox: which sentences it makes and stores, what it asks ``draw``, and what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import PromptBox

SLOTS = {
    "colour": ["red", "green", "blue"],
    "digit": ["3", "7"],
    "where": ["here", "above"],
    "other": ["a 0", "a 1"],
}
STORED = {"colour": ["red", "blue"], "digit": ["3", "7"]}
GIVEN = {"stored": STORED, "ends": ["here"], "scales": [1, 3], "n": 2}


def level(prompt: str, scale: float, i: int) -> float:
    """A brightness that says which sentence, scale and image it is: a whole number over 255."""
    return (sum(prompt.encode()) % 97 + 50 * (scale == 3) + 5 * (i % 2)) / 255


def paint(prompts: list[str], scale: float) -> np.ndarray:
    levels = [level(prompt, scale, i) for i, prompt in enumerate(prompts)]
    return np.broadcast_to(np.reshape(levels, (-1, 1, 1, 1)), (len(prompts), 3, 4, 5))


def box(draw: object = paint, **options: object) -> PromptBox:
    return PromptBox(SLOTS, draw, **GIVEN | options)


def ask(widget: PromptBox, prompt: str, scale: float = 1.0) -> None:
    content = {"kind": "draw", "sequence": "a.1", "prompt": prompt, "scale": scale}
    widget.receive(widget, content, [])


# ---------------------------------------------------------------------------------- what it shows


def test_sentences_are_the_words_up_to_an_end() -> None:
    widget = box()
    assert widget.words == ["red", "3", "here", "a 0"]
    assert widget.prompt == "red 3 here"
    widget.words = ["green", "7", "above", "a 1"]
    assert widget.prompt == "green 7 above a 1"
    assert box(ends=()).prompt == "red 3 here a 0"
    assert PromptBox({"a": ["", "x"], "b": ["y"]}, paint).prompt == "y"


def test_sentences_are_stored_once_at_every_scale() -> None:
    calls = []

    def draw(prompts: list[str], scale: float) -> np.ndarray:
        calls.append((prompts, scale))
        return paint(prompts, scale)

    widget = box(draw, stored=STORED | {"other": ["a 0", "a 1"]})  # never said: "here" ends it
    assert widget.prompts == ["red 3 here", "red 7 here", "blue 3 here", "blue 7 here"]
    twice = [prompt for prompt in widget.prompts for _ in range(2)]
    assert calls == [(twice, 1.0), (twice, 3.0)]
    assert len(widget.data) == 2 * 4 * 2 * 60
    for word in ("red", "blue"):
        for scale in (1.0, 3.0):
            widget.words, widget.scale = [word, "7", "here", "a 1"], scale
            wanted = [level(f"{word} 7 here", scale, i) for i in range(2)]
            np.testing.assert_allclose(widget.images[:, 0, 0, 0], wanted)
            assert widget.images.shape == (2, 3, 4, 5)
            assert widget.status == "done"
    widget.words = ["green", "7", "here", "a 1"]
    assert (widget.images, widget.status) == (None, "idle")


def test_a_start_and_a_scale_to_begin_with() -> None:
    widget = box(start={"where": "above", "digit": "7"}, scale=1.0)
    assert (widget.prompt, widget.scale) == ("red 7 above a 0", 1.0)
    assert widget.prompts[0] == "red 3 above a 0"
    assert box().scale == 3.0  # the middle, or the next
    assert box(start={"colour": "green"}).status == "idle"


def test_tensors_and_grey_images_are_welcome() -> None:
    grey = box(lambda prompts, scale: torch.tensor(paint(prompts, scale)[:, :1].copy()))
    assert grey.images.shape == (2, 4, 5)
    grey.request()
    assert grey.images.shape == (2, 4, 5)
    bright = box(lambda prompts, scale: 9 * paint(prompts, scale) - 1)
    assert set(bright.array("images").ravel()) <= set(range(256))


# ------------------------------------------------------------------------------- asking the kernel


def test_python_draws_the_present_sentence() -> None:
    widget = box()
    widget.words = ["green", "7", "above", "a 1"]
    widget.request()
    assert widget.status == "done"
    assert widget.answered["sequence"] == "python.1"
    wanted = [level("green 7 above a 1", 3, i) for i in range(2)]
    np.testing.assert_allclose(widget.images[:, 0, 0, 0], wanted)
    widget.scale = 1.0
    assert widget.images is None


def test_steps_are_told_as_they_come() -> None:
    def draw(prompts: list[str], scale: float) -> object:
        for share in (0.0, 0.5, 1.0):
            yield share * paint(prompts, scale)

    widget = box(draw)
    told = []
    widget.observe(
        lambda change: told.append((change.new["sequence"], change.new["steps"])), "progress"
    )
    ask(widget, "green 7 here")
    assert told == [("a.1", 1), ("a.1", 2), ("a.1", 3)]
    assert {name: widget.answered[name] for name in ("prompt", "scale", "steps", "error")} == {
        "prompt": "green 7 here", "scale": 1.0, "steps": 3, "error": ""
    }  # fmt: skip
    widget.words, widget.scale = ["green", "7", "here", "a 0"], 1.0
    np.testing.assert_allclose(widget.images[1, 2], level("green 7 here", 1, 1))


def test_what_goes_wrong_is_told() -> None:
    trouble = [None]

    def draw(prompts: list[str], scale: float) -> object:
        return trouble[0] or paint(prompts, scale)

    widget = box(draw)
    widget.words, widget.scale = ["green", "3", "here", "a 0"], 1.0
    for answer, reason in (
        ([[1.0]], r"what draw returns must have shape \[2, 1 or 3, 4, 5\], got \[1, 1\]"),
        (torch.zeros(3, 3, 4, 5).tolist(), r"got \[3, 3, 4, 5\]"),
        (torch.zeros(2, 2, 4, 5).tolist(), r"got \[2, 2, 4, 5\]"),
        (torch.zeros(2, 1, 4, 5).tolist(), r"got \[2, 1, 4, 5\]"),
        (torch.full((2, 3, 4, 5), torch.nan).tolist(), "must be finite"),
        (iter([]), "what draw yields must be at least one step, got none"),
    ):
        trouble[0] = answer
        with pytest.raises(ValueError, match=reason):
            widget.request()
        assert widget.status == "error"
        assert widget.error.startswith("ValueError: what draw")
        assert widget.images is None
    trouble[0] = [[1.0]]
    ask(widget, widget.prompt)  # a browser hears of it, and nothing is raised
    assert widget.answered["sequence"] == "a.1"
    widget.scale = 3.0
    assert widget.status == "idle"
    widget.receive(widget, {"kind": "another"}, [])
    ask(widget, "red", "much")
    assert "scale must be a finite number" in widget.error


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"slots": {}}, "slots must be 1 to 10 names with 1 to 20 different words each"),
        ({"slots": {str(k): ["a"] for k in range(11)}}, "slots must be 1 to 10 names"),
        ({"slots": {"a": []}}, "slots must be .*, got .* in 'a'"),
        ({"slots": {"a": ["x", "x"]}}, "slots must be .*, got .* in 'a'"),
        ({"slots": {"a": "word"}}, "slots must be .*, got 'word' in 'a'"),
        ({"slots": {"a": [str(k) for k in range(21)]}}, "slots must be .* in 'a'"),
        ({"slots": {3: ["x"]}}, "slots must be .* in 3"),
        ({"draw": 3}, r"draw must be callable as draw\(prompts, scale\), got 3"),
        ({"stored": {"size": ["big"]}}, "a name in stored must be one of .*, got 'size'"),
        ({"stored": {"colour": ["pink"]}}, r"stored\['colour'\] must be among .*, got \['pink'\]"),
        ({"stored": {"colour": []}}, r"stored\['colour'\] must be among"),
        ({"stored": ["colour"]}, "stored must be names of slots and their words"),
        ({"start": {"colour": "pink"}}, r"start\['colour'\] must be among .*, got \['pink'\]"),
        ({"start": 3}, "start must be names of slots and their words, got 3"),
        ({"ends": ["there"]}, r"ends must be a list of words of the slots, got \['there'\]"),
        ({"ends": "here"}, "ends must be a list of words of the slots, got 'here'"),
        ({"scales": []}, "scales must be 1 to 6 different numbers"),
        ({"scales": [1, 1.0]}, "scales must be 1 to 6 different numbers"),
        ({"scales": [1, -2]}, r"scales\[1\] must be a finite number of at least 0, got -2"),
        ({"scale": 2}, r"scale must be one of \[1.0, 3.0\], got 2"),
        ({"n": 0}, "n must be"),
        ({"n": 7}, "n must be"),
        ({"draw": lambda p, s: np.zeros((len(p), 3, 90, 90))}, "at most 300,000 bytes"),
        ({"title": 3}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    given = {"slots": SLOTS, "draw": paint} | GIVEN | change
    with pytest.raises(ValueError, match=reason):
        PromptBox(given.pop("slots"), given.pop("draw"), **given)


def test_too_many_sentences_are_refused_before_they_are_drawn() -> None:
    many = {name: [str(k) for k in range(11)] for name in "abc"}
    with pytest.raises(ValueError, match="stored must make at most 1000 sentences, got 1331"):
        PromptBox(many, lambda prompts, scale: pytest.fail("drawn"), stored=many)


def test_bad_states_are_refused() -> None:
    widget = box()
    for words in (["red"], ["pink", "3", "here", "a 0"], ["3", "red", "here", "a 0"]):
        with pytest.raises(ValueError, match=r"words must be 4 words|word of 'colour' must be one"):
            widget.words = words
    with pytest.raises(ValueError, match=r"scale must be one of \[1.0, 3.0\], got 2"):
        widget.scale = 2.0
    assert (widget.words[0], widget.scale) == ("red", 3.0)


# ------------------------------------------------------------------------------- the still picture


def picture(widget: PromptBox) -> np.ndarray:
    content = widget.still()
    assert len(content) < 60_000
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_the_still_picture_shows_every_scale() -> None:
    def draw(prompts: list[str], scale: float) -> np.ndarray:
        images = np.zeros((len(prompts), 3, 4, 5))
        images[:, 0 if scale == 1 else 2] = 1
        return images

    found = picture(box(draw))
    for colour in ([255, 0, 0], [0, 0, 255]):
        assert (found == colour).all(-1).mean() > 0.1
    unknown = box(draw, start={"colour": "green"})
    assert not (picture(unknown) == [0, 0, 255]).all(-1).any()
    unknown.request()
    assert (picture(unknown) == [0, 0, 255]).all(-1).mean() > 0.1


def test_the_stored_form_holds_its_state() -> None:
    widget = box(title="A box </script>")
    widget.words = ["blue", "7", "here", "a 0"]
    stored = widget.static_html()
    assert "[&quot;blue&quot;, &quot;7&quot;, &quot;here&quot;, &quot;a 0&quot;]" in stored
    assert widget.static_html() == stored
    assert repr(widget) == "PromptBox('A box </script>')"
