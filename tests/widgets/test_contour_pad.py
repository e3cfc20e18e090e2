"""ContourPad: what it hands to ``draw``, what it makes of the answer, and what it refuses."""

import html
import io
import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import ContourPad

CONTOURS = np.zeros((2, 6, 5))
CONTOURS[0, 1:5, 2] = 1
CONTOURS[1, 3] = 1
PROMPTS = ["a red 1", "a blue 1", "a green 1"]
STRENGTHS = [0.0, 0.5, 1.0, 2.0]
MINE = np.eye(6, 5, dtype=bool)


def shade(contour: np.ndarray, prompt: int, strength: float) -> np.ndarray:
    """Two steps: black, and the contour in the prompt's channel, as bright as it is strong."""
    image = np.zeros((3, *contour.shape))
    image[prompt] = contour * strength / 2
    return np.stack([0 * image, image])


def pad(draw: object = shade, **options: object) -> ContourPad:
    return ContourPad(CONTOURS, PROMPTS, draw, **({"strengths": STRENGTHS} | options))


def ask(
    widget: ContourPad,
    contour: np.ndarray = MINE,
    *,
    prompt: int = 1,
    strength: float = 0.8,
    sequence: str = "a.1",
) -> None:
    """What a browser sends."""
    text = "".join("01"[pixel] for pixel in contour.ravel().astype(int))
    content = {"sequence": sequence, "contour": text, "prompt": prompt, "strength": strength}
    widget._handle_custom_msg({"kind": "draw"} | content, [])


def test_it_starts_with_the_first_contour_and_its_image() -> None:
    widget = pad()
    np.testing.assert_array_equal(widget.contour, CONTOURS[0] == 1)
    assert (widget.prompt, widget.strength, widget.status) == (0, 1.0, "done")
    np.testing.assert_allclose(widget.image, shade(CONTOURS[0], 0, 1.0)[-1], atol=1 / 500)
    assert widget.steps.shape == (1, 3, 6, 5)


@pytest.mark.parametrize("contours", [CONTOURS[:, None], torch.as_tensor(CONTOURS), CONTOURS == 1])
def test_contours_come_in_many_forms(contours: object) -> None:
    widget = ContourPad(contours, PROMPTS, shade)
    np.testing.assert_array_equal(widget.array("contours"), CONTOURS)


def test_the_given_contours_are_drawn_at_all_strengths() -> None:
    calls = []
    widget = pad(lambda *question: calls.append(question) or shade(*question))
    assert len(calls) == 2 * 3 * 4
    assert {contour.dtype for contour, _, _ in calls} == {np.dtype("float32")}
    for i, contour in enumerate(CONTOURS):
        for prompt in range(3):
            for strength in STRENGTHS:
                widget.contour, widget.prompt, widget.strength = contour == 1, prompt, strength
                wanted = shade(contour, prompt, strength)[-1]
                np.testing.assert_allclose(widget.image, wanted, atol=1 / 500)
                assert widget.status == "done", i
    assert len(calls) == 24


def test_examples_take_the_place_of_drawing() -> None:
    def never(*question: object) -> None:
        raise AssertionError("nothing is to be drawn")

    examples = np.random.default_rng(0).random((2, 3, 4, 3, 6, 5))
    widget = pad(never, examples=torch.as_tensor(examples))
    widget.contour, widget.prompt, widget.strength = CONTOURS[1] == 1, 2, 0.5
    np.testing.assert_allclose(widget.image, examples[1, 2, 1], atol=1 / 500)


def test_python_draws_and_asks() -> None:
    widget = pad()
    widget.contour, widget.strength = MINE, 0.8
    assert (widget.status, widget.image, widget.steps) == ("idle", None, None)
    widget.request()
    assert (widget.status, widget.error) == ("done", "")
    np.testing.assert_allclose(widget.steps, shade(MINE, 0, 0.8), atol=1 / 500)
    widget.strength = 0.9
    assert widget.status == "idle"
    widget.strength = 0.8  # as it was: the answer fits again
    assert widget.status == "done"


def test_a_question_from_the_browser_is_answered_as_it_was_asked() -> None:
    widget = pad()
    ask(widget)
    assert widget.answered["sequence"] == "a.1"
    assert (widget.answered["prompt"], widget.answered["strength"]) == (1, 0.8)
    np.testing.assert_array_equal(widget.contour, CONTOURS[0] == 1)  # the reader may have gone on
    widget.contour, widget.prompt, widget.strength = MINE, 1, 0.8
    np.testing.assert_allclose(widget.steps, shade(MINE, 1, 0.8), atol=1 / 500)


def test_a_generator_tells_of_each_step() -> None:
    told, statuses = [], []

    def draw(contour: np.ndarray, prompt: int, strength: float) -> Iterator[np.ndarray]:
        for level in (0.2, 0.4, 1.4):
            statuses.append(widget.status)
            yield np.full((3, 6, 5), level)

    widget = pad(draw, examples=np.zeros((2, 3, 4, 3, 6, 5)))
    widget.observe(lambda change: told.append(change.new), "progress")
    ask(widget, sequence="x.7")
    assert [(one["sequence"], one["steps"]) for one in told] == [("x.7", k) for k in (1, 2, 3)]
    assert len({one["pixels"] for one in told}) == 3
    assert statuses == ["waiting"] * 3
    widget.contour, widget.prompt, widget.strength = MINE, 1, 0.8
    np.testing.assert_allclose(widget.steps[:, 0, 0, 0], [0.2, 0.4, 1.0], atol=1 / 500)


def test_what_draw_does_to_its_argument_stays_with_it() -> None:
    def draw(contour: np.ndarray, prompt: int, strength: float) -> torch.Tensor:
        contour[:] = 0
        return torch.zeros(1, 3, 6, 5, requires_grad=True)

    widget = pad(draw)
    widget.request()
    np.testing.assert_array_equal(widget.contour, CONTOURS[0] == 1)
    np.testing.assert_array_equal(widget.array("contours"), CONTOURS)


def test_a_contour_from_the_browser_reaches_python() -> None:
    widget = pad()
    widget.set_state({"contour": "0" * 29 + "1", "prompt": 2, "strength": 1.25})
    assert np.argwhere(widget.contour).tolist() == [[5, 4]]
    assert (widget.prompt, widget.strength) == (2, 1.25)
    assert widget.get_state("contour") == {"contour": "0" * 29 + "1"}
    with pytest.raises(ValueError, match="contour must hold 30 pixels, got 3"):
        widget.traits()["contour"].from_text("010", widget)


def test_other_messages_are_none_of_its_business() -> None:
    widget = pad()
    widget._handle_custom_msg({"kind": "hello"}, [])
    assert (widget.status, widget.answered) == ("done", {})


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (np.zeros((2, 3, 5, 6)), "ValueError: what draw returns must have shape [T, 3, 6, 5], got"),
        (np.zeros((6, 5)), "ValueError: what draw returns must have shape [T, 3, 6, 5], got [6, 5"),
        (np.full((1, 3, 6, 5), np.nan), "ValueError: what draw returns must be finite"),
        (None, "ValueError: what draw returns must hold real numbers of shape [T, 3, 6, 5]"),
        (iter([np.zeros((1, 6, 5))]), "ValueError: what draw returns must have shape [T, 3, 6, 5"),
        (iter([]), "ValueError: what draw returns must hold at least one image"),
        (np.zeros((3500, 3, 6, 5)), "ValueError: what draw returns may have 300,000 numbers"),
        (RuntimeError("first\nsecond"), "RuntimeError: first second"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_what_goes_wrong_is_one_line_and_never_leaves_it_waiting(answer: object, line: str) -> None:
    def draw(contour: np.ndarray, prompt: int, strength: float) -> object:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    widget = pad(draw, examples=np.zeros((2, 3, 4, 3, 6, 5)))
    ask(widget)
    assert widget.status == "done"  # of what is shown
    widget.contour, widget.prompt, widget.strength = MINE, 1, 0.8
    assert widget.status == "error"
    assert widget.error.startswith(line)
    assert "\n" not in widget.error
    assert widget.answered["sequence"] == "a.1"
    if not isinstance(answer, Iterator):
        expected = type(answer) if isinstance(answer, BaseException) else ValueError
        with pytest.raises(expected):
            widget.request()  # in a cell the error itself is the clearest
    widget.strength = 0.7
    assert widget.status == "idle"


@pytest.mark.parametrize(
    "spoilt", [{"prompt": 3}, {"strength": 2.5}, {"strength": -1}, {"contour": MINE[:2]}]
)
def test_a_spoilt_question_is_answered_with_an_error(spoilt: dict) -> None:
    widget = pad()
    ask(widget, **spoilt)
    assert widget.error.startswith("ValueError: ")
    assert widget.status == "done"
    ask(widget)
    assert widget.error == ""


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contours": CONTOURS[0]}, r"contours must have shape \[C, H, W\] or \[C, 1, H, W\]"),
        ({"contours": CONTOURS[:, None].repeat(3, 1)}, r"contours must have shape \[C, H, W\] or"),
        ({"contours": CONTOURS / 2}, r"contours must hold 0 and 1, got values in \[0, 0.5\]"),
        ({"contours": np.zeros((7, 6, 5))}, "contours must be at most 6, got 7"),
        ({"prompts": "a red 1"}, "prompts must be 1 to 6 strings"),
        ({"prompts": []}, "prompts must be 1 to 6 strings"),
        ({"prompts": [1, 2]}, "prompts must be 2 strings"),
        ({"draw": CONTOURS}, r"draw must be callable as draw\(contour, prompt, strength\)"),
        ({"strengths": [1.0]}, "strengths must be 2 to 9 numbers that rise from at least 0"),
        ({"strengths": [1.0, 1.0]}, "strengths must be 2 to 9 numbers that rise from at least 0"),
        ({"strengths": [-1, 1.0]}, r"strengths\[0\] must be a finite number of at least 0"),
        ({"strength": 0.7}, r"strength must be one of \[0.0, 0.5, 1.0, 1.5, 2.0\], got 0.7"),
        ({"strength": "1"}, "strength must be a finite number of at least 0"),
        ({"examples": np.zeros((2, 3, 4, 3, 6, 5))}, r"examples must have shape \[2, 3, 5, 3, 6"),
        ({"examples": np.full((2, 3, 5, 3, 6, 5), 2)}, r"examples must lie in \[0, 1\]"),
        ({"contours": np.zeros((6, 40, 40))}, r"examples may need 300,000 bytes, got \[6, 3, 5, 3"),
        ({"title": 3}, "title must be a string"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str) -> None:
    given = {"contours": CONTOURS, "prompts": PROMPTS, "draw": shade} | options
    contours, prompts, draw = (given.pop(name) for name in ("contours", "prompts", "draw"))
    with pytest.raises(ValueError, match=message):
        ContourPad(contours, prompts, draw, **given)


def test_bad_traits_are_refused() -> None:
    widget = pad()
    for prompt in (-1, 3):
        with pytest.raises(ValueError, match="prompt must be an integer from 0 to 2"):
            widget.prompt = prompt
    for strength in (-0.1, 2.1, float("nan")):
        with pytest.raises(ValueError, match="strength must"):
            widget.strength = strength
    for contour in (MINE[:4], MINE.astype(int)):
        with pytest.raises(ValueError, match=r"contour must be a bool array of shape \[6, 5\]"):
            widget.contour = contour
    with pytest.raises(ValueError, match="read-only"):
        widget.contour[0, 0] = True  # it would reach no browser


# --------------------------------------------------------------------------------- the stored form


def test_the_stored_form_holds_examples_and_the_last_answer() -> None:
    widget = pad()
    assert pad().static_html() == widget.static_html()
    widget.contour = MINE
    widget.request()
    stored = widget.static_html()
    state = json.loads(re.search(r'id="state">(.*?)</script>', html.unescape(stored))[1])
    assert state["answered"]["contour"] == state["contour"]
    assert state["arrays"]["examples"]["shape"] == [2, 3, 4, 3, 6, 5]


def test_the_still_picture_shows_the_contour_and_its_images() -> None:
    def size(widget: ContourPad) -> tuple[int, int]:
        content = widget.still()
        assert len(content) < 60_000
        return Image.open(io.BytesIO(content)).size

    widget = pad()
    given = size(widget)
    widget.contour = MINE
    unknown = size(widget)
    widget.request()
    assert (given[0], size(widget)[0]) == (5 * unknown[0], 2 * unknown[0])
    red = np.asarray(Image.open(io.BytesIO(pad(strength=2.0).still())).convert("RGB")).astype(int)
    assert ((red[..., 0] > 200) & (red[..., 1] < 60)).sum() > 500
