"""Inpaint: what it hands to ``fill``, what it makes of the answer, and what it refuses."""

import html
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import PALETTE, Inpaint

IMAGES = np.random.default_rng(0).random((3, 6, 5)).astype(np.float32)
HALF = np.repeat([True, False], 3)[:, None] & np.ones((6, 5), dtype=bool)


def rise(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Four steps from black to a grey in the hidden pixels."""
    return np.stack([np.where(known, image, level) for level in (0, 0.25, 0.5, 0.75)])


def ask(widget: Inpaint, known: np.ndarray, *, image: int = 0, sequence: str = "a.1") -> None:
    """What a browser sends."""
    text = "".join("01"[pixel] for pixel in known.ravel().astype(int))
    content = {"kind": "fill", "sequence": sequence, "image": image, "known": text}
    widget._handle_custom_msg(content, [])


def test_it_starts_with_the_lower_half_scratched_out() -> None:
    widget = Inpaint(IMAGES, rise)
    np.testing.assert_array_equal(widget.known, HALF)
    assert (widget.status, widget.image_index, widget.result) == ("idle", 0, None)


@pytest.mark.parametrize("images", [IMAGES[:, None], torch.as_tensor(IMAGES), IMAGES > 0.5])
def test_images_come_in_many_forms(images: object) -> None:
    assert Inpaint(images, rise).array("images").shape == (3, 6, 5)


def test_fill_gets_the_image_without_its_hidden_pixels() -> None:
    seen = []

    def fill(image: np.ndarray, known: np.ndarray) -> np.ndarray:
        seen.append((image.copy(), known.copy()))
        image[:], known[:] = 0, False  # what it does to its arguments stays with it
        return rise(image, known)

    widget = Inpaint(IMAGES, fill)
    widget.image_index = 2
    widget.request()
    image, known = seen[0]
    assert (image.dtype, known.dtype) == (np.float32, bool)
    np.testing.assert_array_equal(known, HALF)
    np.testing.assert_array_equal(image[:3], IMAGES[2, :3])
    assert (image[3:] == 0).all()
    np.testing.assert_array_equal(widget.known, HALF)
    np.testing.assert_allclose(widget.array("images"), IMAGES, atol=1e-4)


def test_the_answer_becomes_the_steps_of_the_player() -> None:
    widget = Inpaint(IMAGES, rise)
    widget.request()
    assert (widget.status, widget.n_steps, widget.step, widget.error) == ("done", 4, 3.0, "")
    np.testing.assert_allclose(widget.array("states"), rise(IMAGES[0], HALF), atol=1e-4)
    np.testing.assert_allclose(widget.result, np.where(HALF, IMAGES[0], 0.75), atol=1e-4)


@pytest.mark.parametrize(
    "answer", [torch.full((6, 5), 3.0, requires_grad=True), np.full((1, 6, 5), 3.0)]
)
def test_one_image_is_one_step_and_is_shown_in_0_to_1(answer: object) -> None:
    widget = Inpaint(IMAGES, lambda image, known: answer)
    widget.request()
    assert (widget.n_steps, widget.step) == (1, 0.0)
    assert (widget.result == 1).all()


def test_a_shorter_answer_follows_a_longer_one() -> None:
    widget = Inpaint(IMAGES, lambda image, known: np.zeros((9 - 2 * known[0, 0], 6, 5)))
    widget.known = ~HALF
    widget.request()
    assert (widget.n_steps, widget.step) == (9, 8.0)
    widget.known = HALF
    widget.request()
    assert (widget.n_steps, widget.step) == (7, 6.0)


def test_the_status_follows_the_scratches() -> None:
    widget = Inpaint(IMAGES, rise)
    widget.request()
    widget.known = ~HALF
    assert widget.status == "idle"
    widget.known = HALF  # undone: the answer fits again
    assert widget.status == "done"
    widget.image_index = 1
    assert widget.status == "idle"


def test_the_status_is_waiting_while_fill_runs() -> None:
    seen = []
    widget = Inpaint(IMAGES, lambda image, known: seen.append(widget.status) or rise(image, known))
    widget.request()
    assert seen == ["waiting"]


# ------------------------------------------------------------------------------------ the browser


def test_a_request_from_the_browser_is_answered_for_its_own_scratches() -> None:
    widget = Inpaint(IMAGES, rise)
    widget.request()  # an earlier answer, shown at its last step
    ask(widget, ~HALF, image=1, sequence="x.7")
    np.testing.assert_allclose(widget.result, np.where(HALF, 0.75, IMAGES[1]), atol=1e-4)
    assert widget.answered == {
        "sequence": "x.7",
        "image": 1,
        "known": "0" * 15 + "1" * 15,
        "error": "",
    }
    assert widget.step == 0  # the browser plays from the start
    np.testing.assert_array_equal(widget.known, HALF)  # the reader may have gone on drawing


def test_scratches_from_the_browser_reach_python() -> None:
    widget = Inpaint(IMAGES, rise)
    widget.set_state({"known": "1" * 29 + "0", "image_index": 2})
    assert widget.image_index == 2
    assert np.argwhere(~widget.known).tolist() == [[5, 4]]
    assert widget.get_state("known") == {"known": "1" * 29 + "0"}


def test_other_messages_are_none_of_its_business() -> None:
    widget = Inpaint(IMAGES, rise)
    widget._handle_custom_msg({"kind": "hello"}, [])
    assert (widget.status, widget.answered) == ("idle", {})


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (np.zeros((2, 5, 6)), "ValueError: what fill returns must have shape [T, 6, 5], got"),
        (np.zeros(30), "ValueError: what fill returns must have shape [T, 6, 5], got [30]"),
        (np.full((6, 5), np.nan), "ValueError: what fill returns must be finite"),
        (None, "ValueError: what fill returns must hold real numbers of shape [T, 6, 5]"),
        (np.zeros((6000, 6, 5)), "ValueError: a widget holds at most 300,000 bytes"),
        (RuntimeError("first\nsecond"), "RuntimeError: first second"),
        (RuntimeError("long " * 100), "RuntimeError: long long"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_what_goes_wrong_is_one_line_and_never_leaves_it_waiting(answer: object, line: str) -> None:
    def fill(image: np.ndarray, known: np.ndarray) -> object:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    widget = Inpaint(IMAGES, fill)
    ask(widget, HALF)
    assert widget.status == "error"
    assert widget.error.startswith(line)
    assert "\n" not in widget.error
    assert len(widget.error) <= 200
    assert widget.answered["sequence"] == "a.1"
    expected = type(answer) if isinstance(answer, BaseException) else ValueError
    with pytest.raises(expected):
        widget.request()  # in a cell the error itself is the clearest
    widget.known = ~HALF
    assert widget.status == "idle"


@pytest.mark.parametrize(("image", "known"), [(7, HALF), (0, HALF[:2])])
def test_a_spoilt_request_is_answered_with_an_error_or_not_at_all(
    image: int, known: np.ndarray
) -> None:
    widget = Inpaint(IMAGES, rise)
    ask(widget, known, image=image)
    assert widget.status in ("error", "idle")
    ask(widget, HALF)
    assert widget.status == "done"


# ----------------------------------------------------------------------------------------- refusals


def test_bad_arguments_are_refused() -> None:
    for images in (IMAGES[0], IMAGES[:, None].repeat(2, 1)):
        with pytest.raises(ValueError, match=r"images must have shape \[B, H, W\] or"):
            Inpaint(images, rise)
    for images in (IMAGES + 0.5, -IMAGES):
        with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got values in"):
            Inpaint(images, rise)
    with pytest.raises(ValueError, match=r"at most 300,000 bytes.*fewer or smaller images"):
        Inpaint(np.zeros((200, 28, 28)), rise)
    with pytest.raises(ValueError, match="fill must be callable"):
        Inpaint(IMAGES, IMAGES)
    for brush in (0, 1.5):
        with pytest.raises(ValueError, match="brush must be an integer of at least 1"):
            Inpaint(IMAGES, rise, brush=brush)


def test_bad_traits_are_refused() -> None:
    widget = Inpaint(IMAGES, rise)
    for index in (-1, 3):
        with pytest.raises(ValueError, match="image_index must be an integer from 0 to 2"):
            widget.image_index = index
    for known in (HALF[:4], HALF.astype(int)):
        with pytest.raises(ValueError, match=r"known must be a bool array of shape \[6, 5\]"):
            widget.known = known
    with pytest.raises(ValueError, match="read-only"):
        widget.known[0, 0] = False  # it would reach no browser


# --------------------------------------------------------------------------------- the stored form


def test_the_stored_form_holds_an_answer() -> None:
    widget = Inpaint(IMAGES, rise)
    stored = widget.static_html()
    assert (widget.status, widget.n_steps, widget.step) == ("done", 4, 0.0)
    state = json.loads(re.search(r'id="state">(.*?)</script>', html.unescape(stored))[1])
    assert state["answered"]["known"] == state["known"] == "1" * 15 + "0" * 15
    assert state["arrays"]["states"]["shape"] == [4, 6, 5]
    assert Inpaint(IMAGES, rise).static_html() == stored


def test_the_stored_form_keeps_what_was_asked_before() -> None:
    calls = []
    widget = Inpaint(IMAGES, lambda *puzzle: calls.append(1) or rise(*puzzle))
    widget.request()
    widget.static_html()
    assert (len(calls), widget.step) == (1, 3.0)
    untouched = Inpaint(IMAGES, lambda *puzzle: calls.append(1) or rise(*puzzle))
    untouched.known = np.ones((6, 5), dtype=bool)
    untouched.static_html()
    assert len(calls) == 1  # nothing to fill in


def test_the_still_picture_shows_the_scratches_and_the_result() -> None:
    widget = Inpaint(IMAGES, rise)

    def pixels() -> np.ndarray:
        content = widget.still()
        assert len(content) < 60_000
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)

    before = pixels()
    wanted = np.array([int(PALETTE["error"][i : i + 2], 16) for i in (1, 3, 5)])
    assert (np.abs(before - wanted).max(-1) < 60).sum() > 50
    widget.request()
    after = pixels()
    assert after.shape[1] == 3 * before.shape[1]
    filled = after[after.shape[0] * 3 // 4, -before.shape[1] // 2]
    assert np.abs(filled - 0.75 * 255).max() < 12
