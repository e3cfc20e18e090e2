"""PixelByPixel: what it hands to ``write``, what it makes of the answer, and what it refuses."""

import html
import io
import json
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import PALETTE, PixelByPixel

SIZE = (3, 4)
BACKWARDS = list(range(11, -1, -1))


class Writer:
    """A stand-in for a model: random pixels after the given ones; remembers what it was asked."""

    def __init__(self, order: list[int] | None = None, count: int = 5) -> None:
        self.order = order or list(range(12))
        self.count = count
        self.calls: list[tuple[np.ndarray, int, int]] = []

    def __call__(self, image: np.ndarray, n_known: int, label: int) -> tuple:
        self.calls.append((image.copy(), n_known, label))
        known = np.zeros(12, dtype=bool)
        known[self.order[:n_known]] = True
        rng = np.random.default_rng(len(self.calls))
        drawn = rng.random((self.count, *SIZE)) < 0.5
        images = np.where(known.reshape(SIZE), image, drawn)
        image[:] = -1  # what it does to its arguments stays with it
        return images, rng.random((self.count, *SIZE))


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def widget(writer: Writer) -> PixelByPixel:
    return PixelByPixel(writer, size=SIZE, labels=["a", "b", "c"], title="Written")


def ask(widget: PixelByPixel, image: object, n_known: int, *, label: int = 0) -> None:
    """What a browser sends."""
    pixels = np.asarray(image).ravel().tolist()
    content = {"kind": "write", "sequence": "x.1", "image": pixels, "n_known": n_known}
    widget._handle_custom_msg(content | {"label": label}, [])


def spoilt(change: Callable[[np.ndarray, np.ndarray], object]) -> Callable:
    """A ``write`` whose second answer is not what it should be."""
    writer = Writer()

    def write(image: np.ndarray, n_known: int, label: int) -> object:
        answer = writer(image, n_known, label)
        return change(*answer) if len(writer.calls) > 1 else answer

    return write


# --------------------------------------------------------------------------------- the first image


def test_it_starts_with_one_whole_answer(widget: PixelByPixel, writer: Writer) -> None:
    (image, n_known, label), *more = writer.calls
    assert not more
    assert (image.dtype, image.shape, n_known, label) == (np.float32, SIZE, 0, 0)
    assert not image.any()
    assert (widget.status, widget.error, widget.step, widget.n_steps) == ("done", "", 0.0, 13)
    assert (widget.n_known, widget.choice, widget.label) == (0, 0, 0)
    images, conditionals = Writer()(np.zeros(SIZE), 0, 0)
    np.testing.assert_array_equal(widget.images, images)
    np.testing.assert_allclose(widget.conditionals, conditionals, atol=1e-4)
    np.testing.assert_array_equal(widget.image, images[0])
    assert widget.image.dtype == np.float32


def test_answers_come_in_many_forms() -> None:
    half = torch.full((2, 1, *SIZE), 0.5, requires_grad=True)
    widget = PixelByPixel(lambda *asked: (half, half.tolist()), size=SIZE)
    assert widget.images.shape == widget.conditionals.shape == (2, *SIZE)
    assert (widget.image == 0.5).all()
    one = np.zeros((1, *SIZE))
    assert (PixelByPixel(lambda *asked: [one, one], size=SIZE).image == 0).all()


def test_orders_come_in_many_forms() -> None:
    assert PixelByPixel(Writer(), size=SIZE).order == list(range(12))
    assert PixelByPixel(Writer(BACKWARDS), size=SIZE, order=BACKWARDS).order == BACKWARDS
    assert PixelByPixel(Writer(), size=list(SIZE), order=range(12)).order == list(range(12))


# -------------------------------------------------------------------------------- from Python


def test_a_request_keeps_the_first_pixels_and_shows_all(writer: Writer) -> None:
    writer.order = BACKWARDS
    widget = PixelByPixel(writer, size=SIZE, order=BACKWARDS)
    before = widget.image
    widget.request(5)
    image, n_known, _ = writer.calls[-1]
    assert n_known == widget.n_known == 5
    np.testing.assert_array_equal(image.ravel()[7:], before.ravel()[7:])
    assert not image.ravel()[:7].any()
    np.testing.assert_array_equal(widget.image.ravel()[7:], before.ravel()[7:])
    assert (widget.image.ravel()[:7] != before.ravel()[:7]).any()
    assert (widget.step, widget.status) == (12.0, "done")


def test_a_request_may_bring_its_own_image(widget: PixelByPixel, writer: Writer) -> None:
    checks = np.indices(SIZE).sum(0) % 2
    widget.request(12, image=torch.as_tensor(checks))
    np.testing.assert_array_equal(widget.image, checks)
    np.testing.assert_array_equal(writer.calls[-1][0], checks)


@pytest.mark.parametrize("order", [list(range(12)), BACKWARDS])
def test_a_flip_keeps_all_before_it_and_turns_one(order: list[int]) -> None:
    writer = Writer(order)
    widget = PixelByPixel(writer, size=SIZE, order=order)
    before = widget.image.ravel()
    widget.flip(1, 2)
    place = order.index(6)
    image, n_known, _ = writer.calls[-1]
    assert n_known == place + 1
    expected = np.zeros(12)
    expected[order[:place]] = before[order[:place]]
    expected[6] = 1 - before[6]
    np.testing.assert_array_equal(image.ravel(), expected)
    assert widget.image[1, 2] == expected[6]


def test_another_choice_is_the_image_that_is_changed(widget: PixelByPixel, writer: Writer) -> None:
    widget.choice = 3
    np.testing.assert_array_equal(widget.image, widget.images[3])
    kept = widget.images[3].ravel()[:8]
    widget.request(8)
    np.testing.assert_array_equal(writer.calls[-1][0].ravel()[:8], kept)
    assert widget.choice == 0


def test_a_new_label_rewrites_the_whole_image(widget: PixelByPixel, writer: Writer) -> None:
    widget.request(4)
    widget.label = 2
    assert [call[1:] for call in writer.calls] == [(0, 0), (4, 0), (0, 2)]
    assert (widget.n_known, widget.label, widget.step) == (0, 2, 12.0)
    widget.request(6)
    assert writer.calls[-1][1:] == (6, 2)


def test_a_label_whose_image_fails_is_not_kept() -> None:
    def write(image: np.ndarray, n_known: int, label: int) -> tuple:
        if label:
            raise RuntimeError("no such digit")
        return image[None], image[None]

    widget = PixelByPixel(write, size=SIZE, labels=["a", "b"])
    with pytest.raises(RuntimeError, match="no such digit"):
        widget.label = 1
    assert (widget.label, widget.error) == (0, "RuntimeError: no such digit")
    widget.request(0)
    assert widget.error == ""


def test_the_status_is_waiting_while_write_runs(writer: Writer) -> None:
    seen = []

    def write(*asked: object) -> tuple:
        if seen is not None and writer.calls:
            seen.append(widget.status)
        return writer(*asked)

    widget = PixelByPixel(write, size=SIZE)
    widget.request(3)
    assert seen == ["waiting"]


# ------------------------------------------------------------------------------------ the browser


def test_a_request_from_the_browser_is_answered(widget: PixelByPixel, writer: Writer) -> None:
    image = np.indices(SIZE).sum(0) % 2  # the reader's image, not the one that Python holds
    widget.step = 7.0
    ask(widget, image, 6, label=1)
    given, n_known, label = writer.calls[-1]
    assert (n_known, label) == (6, 1)
    np.testing.assert_array_equal(given.ravel(), [*image.ravel()[:6], *[0] * 6])
    assert widget.answered == {"sequence": "x.1", "error": ""}
    assert (widget.n_known, widget.label, widget.status) == (6, 1, "done")
    assert len(writer.calls) == 2  # the new label has asked nothing of its own
    assert widget.step == 7.0  # the browser decides what it shows


def test_one_message_holds_the_whole_answer(
    widget: PixelByPixel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    def note(key: str | set[str] | None = None) -> None:
        sent.append({key} if isinstance(key, str) else set(key or ()))

    monkeypatch.setattr(widget, "send_state", note)
    widget.choice = 2
    sent.clear()
    ask(widget, widget.image, 6, label=1)
    assert sent[0] == {"status"}
    whole = {"data", "n_known", "label", "choice", "answered", "status"}
    assert [keys for keys in sent[1:] if keys & whole] == [sent[1]]
    assert whole <= sent[1]


def test_other_messages_are_none_of_its_business(widget: PixelByPixel, writer: Writer) -> None:
    widget._handle_custom_msg({"kind": "hello"}, [])
    assert len(writer.calls) == 1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda x, p: x, "ValueError: write must return two arrays, images and conditionals, got"),
        (lambda x, p: (x, p, p), "ValueError: write must return two arrays"),
        (lambda x, p: None, "ValueError: write must return two arrays, images and conditionals"),
        (
            lambda x, p: (x[0], p[0]),
            "ValueError: the images that write returns must have shape [S, 3, 4] or [S, 1, 3, 4], "
            "got [3, 4]",
        ),
        (lambda x, p: (x[:, :2], p), "ValueError: the images that write returns must have shape"),
        (
            lambda x, p: (x, p[:, None].repeat(2, 1)),
            "ValueError: the conditionals that write returns must have shape [S, 3, 4] or",
        ),
        (lambda x, p: (x[:0], p[:0]), "ValueError: the images that write returns must have shape"),
        (
            lambda x, p: (x, p[:2]),
            "ValueError: the conditionals that write returns must be as many as its images, 5, "
            "got 2",
        ),
        (
            lambda x, p: (x * 2, p),
            "ValueError: the images that write returns must lie in [0, 1], got values in [0, 2]",
        ),
        (
            lambda x, p: (x, p - 1),
            "ValueError: the conditionals that write returns must lie in [0, 1], got values in [-",
        ),
        (lambda x, p: (x, p / 0), "ValueError: the conditionals that write returns must be finite"),
        (
            lambda x, p: (1 - x, p),
            "ValueError: the images that write returns must keep the 4 given pixels, "
            "got a change of 1",
        ),
        (
            lambda x, p: (np.repeat(x, 4000, 0), np.repeat(p, 4000, 0)),
            "ValueError: a widget holds at most 300,000 bytes, got 960,000",
        ),
        (lambda x, p: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_goes_wrong_is_one_line_and_the_image_stays(change: Callable, line: str) -> None:
    widget = PixelByPixel(spoilt(change), size=SIZE)
    before = widget.image
    ask(widget, before, 4)
    assert (widget.status, widget.answered["sequence"]) == ("error", "x.1")
    assert widget.error.startswith(line)
    assert "\n" not in widget.error
    np.testing.assert_array_equal(widget.image, before)
    assert widget.n_known == 0
    with pytest.raises((ValueError, ZeroDivisionError)):
        widget.request(4)  # in a cell the error itself is the clearest


@pytest.mark.parametrize(
    ("pixels", "n_known", "label"), [([0] * 11, 3, 0), ([0] * 12, 13, 0), ([0] * 12, 3, 3)]
)
def test_a_spoilt_request_is_answered_with_an_error(
    widget: PixelByPixel, writer: Writer, pixels: list, n_known: int, label: int
) -> None:
    ask(widget, pixels, n_known, label=label)
    assert (widget.status, len(writer.calls)) == ("error", 1)
    ask(widget, widget.image, 3)
    assert (widget.status, widget.error) == ("done", "")


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"write": 3}, r"write must be callable as write\(image, n_known, label\), got 3"),
        ({"size": 8}, r"size must be \(height, width\), got 8"),
        ({"size": (8, 8, 1)}, r"size must be \(height, width\), got \(8, 8, 1\)"),
        ({"size": (0, 8)}, "the height in size must be an integer of at least 1, got 0"),
        ({"size": (3, 4.0)}, "the width in size must be an integer of at least 1, got 4.0"),
        ({"order": list(range(11))}, r"order must hold each of 0 \.\.\. 11 once"),
        ({"order": [0] * 12}, r"order must hold each of 0 \.\.\. 11 once"),
        ({"order": 3}, "order must be a sequence of integers, got 3"),
        ({"labels": []}, r"labels must be a list of names or None, got \[\]"),
        ({"labels": "ab"}, "labels must be a list of names or None, got 'ab'"),
        ({"labels": ["a", 2]}, "labels must be 2 strings"),
    ],
)
def test_bad_arguments_are_refused(options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        PixelByPixel(**{"write": Writer(), "size": SIZE} | options)


def test_bad_answers_are_refused_from_the_start() -> None:
    with pytest.raises(ValueError, match="the images that write returns must have shape"):
        PixelByPixel(lambda *asked: (np.zeros((2, 3, 4)), np.zeros((2, 3, 4))), size=(4, 3))


def test_bad_traits_and_requests_are_refused(widget: PixelByPixel, writer: Writer) -> None:
    for name, most in (("label", 2), ("choice", 4)):
        for value in (-1, most + 1):
            with pytest.raises(ValueError, match=f"{name} must be an integer from 0 to {most}"):
                setattr(widget, name, value)
    for n_known in (-1, 13, 2.0):
        with pytest.raises(ValueError, match="n_known must be an integer from 0 to 12"):
            widget.request(n_known)
    for image in (np.zeros((4, 3)), [[0] * 4] * 3):
        with pytest.raises(ValueError, match=r"image must be an array of shape \[3, 4\]"):
            widget.request(1, image=image)
    with pytest.raises(ValueError, match=r"image must lie in \[0, 1\], got values in \[2, 2\]"):
        widget.request(1, image=np.full(SIZE, 2.0))
    for pixel, name in (((3, 0), "row"), ((0, 4), "column"), ((-1, 0), "row")):
        with pytest.raises(ValueError, match=f"{name} must be an integer from 0 to"):
            widget.flip(*pixel)
    assert len(writer.calls) == 1
    assert widget.status == "done"


# --------------------------------------------------------------------------------- the stored form


def test_the_stored_form_holds_the_answer(widget: PixelByPixel) -> None:
    widget.flip(1, 1)
    widget.step = 5.0
    stored = widget.static_html()
    state = json.loads(re.search(r'id="state">(.*?)</script>', html.unescape(stored))[1])
    assert (state["n_known"], state["step"], state["n_steps"]) == (6, 5.0, 13)
    assert state["classes"] == ["a", "b", "c"]
    assert state["arrays"]["images"]["shape"] == [5, *SIZE]
    assert state["order"] == list(range(12))
    assert PixelByPixel(Writer(), size=SIZE).static_html() == (
        PixelByPixel(Writer(), size=SIZE).static_html()
    )


def test_the_payload_stays_small() -> None:
    many = np.zeros((90, 28, 28))
    widget = PixelByPixel(lambda *asked: (many, many), size=(28, 28))
    assert len(widget.data) == 2 * 2 * 90 * 28 * 28 <= 300_000
    with pytest.raises(ValueError, match=r"at most 300,000 bytes.*return fewer images from write"):
        PixelByPixel(lambda *asked: 2 * [np.zeros((97, 28, 28))], size=(28, 28))


@pytest.mark.parametrize("size", [(8, 8), (2, 12), (12, 2), (1, 1)])
def test_the_still_picture_outlines_the_next_pixel(size: tuple[int, int]) -> None:
    half = np.full((3, *size), 0.5)
    content = PixelByPixel(lambda *asked: (half, half), size=size).still()
    assert len(content) < 60_000
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    orange = np.array([int(PALETTE["model"][i : i + 2], 16) for i in (1, 3, 5)])
    _, x = np.nonzero(np.abs(pixels - orange).max(-1) < 40)
    thirds = np.bincount(3 * x // pixels.shape[1], minlength=3)
    assert (thirds[:2] > 20).all()
    assert thirds[2] == 0
