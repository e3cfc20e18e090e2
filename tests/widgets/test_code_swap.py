"""CodeSwap: what it hands to ``decode``, what it stores of single changes, and what it refuses."""

import html
import io
import json
import re
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import PALETTE, CodeSwap, code_swap

K, SHAPE = 6, (4, 3)
CODES = np.random.default_rng(0).integers(0, K - 1, (3, *SHAPE))  # code 5 is not among them


def decode(codes: np.ndarray) -> np.ndarray:
    """Each code a grey patch of 2 x 3 pixels, a little blurred and squared: [B, 8, 9]."""
    flat = (codes / (K - 1)).repeat(2, 1).repeat(3, 2)
    wide = np.pad(flat, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = wide[:, 2:, 1:-1] + wide[:, :-2, 1:-1] + wide[:, 1:-1, 2:] + wide[:, 1:-1, :-2]
    return (0.6 * flat + 0.1 * around) ** 2


def levels(codes: np.ndarray) -> np.ndarray:
    """The same in grey levels, 0 ... 255."""
    return np.rint(255 * decode(codes))


def swap(**options: object) -> CodeSwap:
    return CodeSwap(decode, CODES, K, **options)


def ask(widget: CodeSwap, content: dict) -> None:
    """What a browser sends."""
    widget._handle_custom_msg({"sequence": "a.1"} | content, [])


# ------------------------------------------------------------------------------------ the start


def test_it_starts_with_the_first_example() -> None:
    widget = swap()
    assert (widget.example, widget.source, widget.error) == (0, None, "")
    assert widget.codes == CODES[0].tolist()
    np.testing.assert_array_equal(255 * widget.image, levels(CODES[:1])[0])
    np.testing.assert_array_equal(widget.array("maps").round(), CODES)
    np.testing.assert_array_equal(widget.array("decoded"), levels(CODES))


@pytest.mark.parametrize(
    "codes", [torch.as_tensor(CODES), CODES.astype(np.uint8), CODES.astype(float), CODES.tolist()]
)
def test_codes_come_in_many_forms(codes: object) -> None:
    assert CodeSwap(decode, codes, K).codes == CODES[0].tolist()


def test_decode_gets_whole_numbers_of_its_own_and_may_return_tensors() -> None:
    seen = []

    def spoil(codes: np.ndarray) -> torch.Tensor:
        seen.append((codes.dtype, codes.ndim))
        images = torch.tensor(decode(codes), requires_grad=True)[:, None]
        codes[:] = 0
        return images

    widget = CodeSwap(spoil, CODES, K)
    widget.codes = CODES[1]
    assert widget.codes == CODES[1].tolist()
    np.testing.assert_allclose(widget.image, decode(CODES[1:2])[0], atol=0.003)
    widget._store()
    np.testing.assert_array_equal(widget.array("maps").round(), CODES)
    assert set(seen) == {(np.dtype(np.int64), 3)}


def test_many_codes_are_decoded_in_parts() -> None:
    sizes = []
    widget = CodeSwap(lambda codes: sizes.append(len(codes)) or codes / 511, CODES % 2, 512)
    assert max(sizes) == code_swap.BATCH
    np.testing.assert_array_equal(
        widget.array("swatches").ravel(), np.rint(255 * np.arange(512) / 511)
    )


def test_a_swatch_is_the_middle_cell_of_an_image_of_its_code_alone() -> None:
    ramp = np.linspace(0.5, 1, 72).reshape(8, 9)  # no two places look the same
    swatches = CodeSwap(lambda codes: decode(codes) * ramp, CODES, K).array("swatches")
    # Row 2 of 4 and column 1 of 3, of cells of 2 x 3 pixels.
    assert swatches.shape == (K, 2, 3)
    full = decode(np.arange(K).reshape(-1, 1, 1) * np.ones((1, *SHAPE)))
    np.testing.assert_array_equal(swatches, np.rint(255 * full * ramp)[:, 4:6, 3:6])
    uneven = CodeSwap(lambda codes: np.zeros((len(codes), 5, 7)), CODES, K)
    assert uneven.array("swatches").shape == (K, 2, 3)


def test_the_palette_begins_with_what_is_frequent_and_new() -> None:
    maps = np.array([[[3, 3, 3, 3, 0, 0, 0, 1, 1, 2]]])

    def looks(codes: np.ndarray) -> np.ndarray:
        return np.array([0.0, 0.5, 1.0, 0.02, 0.7, 0.98])[codes]  # 0 and 3 look alike, 2 and 5 too

    assert CodeSwap(looks, maps, 6).palette == [3, 1, 2, 4, 0, 5]
    assert CodeSwap(looks, maps, 6).brush == 3
    many = CodeSwap(lambda codes: np.minimum(codes / 5, 1), maps, 40)
    assert many.palette == [3, 0, 1, 2]  # of a large codebook, the codes in use


# ---------------------------------------------------------------------------------------- traits


@pytest.mark.parametrize(
    "form", [lambda m: m, lambda m: m.tolist(), lambda m: m.ravel().tolist(), torch.as_tensor]
)
def test_setting_codes_decodes_them(form: object) -> None:
    widget = swap()
    widget.codes = form(CODES[2])
    assert widget.codes == widget.answered["codes"] == CODES[2].tolist()
    np.testing.assert_array_equal(255 * widget.image, levels(CODES[2:])[0])
    sequence = widget.answered["sequence"]
    widget.codes = CODES[2]
    assert widget.answered["sequence"] == sequence  # nothing new to decode


def test_a_new_example_brings_its_codes() -> None:
    widget = swap()
    widget.example = 2
    assert widget.codes == CODES[2].tolist()
    np.testing.assert_array_equal(255 * widget.image, levels(CODES[2:])[0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("codes", CODES[0, :2], r"codes must have shape \[4, 3\] or \[12\], got \[2, 3\]"),
        ("codes", [0] * 11, r"codes must have shape \[4, 3\] or \[12\], got \[11\]"),
        ("codes", CODES[0] + 0.5, "codes must hold whole numbers from 0 to 5"),
        ("codes", CODES[0] + K, "codes must hold whole numbers from 0 to 5"),
        ("codes", CODES[0] - 6, "codes must hold whole numbers from 0 to 5"),
        ("codes", "0" * 12, "codes must hold real numbers"),
        ("example", 3, "example must be an integer from 0 to 2, got 3"),
        ("source", -1, "source must be an integer from 0 to 2, got -1"),
        ("brush", 6, "brush must be an integer from 0 to 5, got 6"),
    ],
)
def test_bad_traits_are_refused(name: str, value: object, message: str) -> None:
    widget = swap()
    before = widget.codes
    with pytest.raises(ValueError, match=message):
        setattr(widget, name, value)
    assert widget.codes == before


# ------------------------------------------------------------------------------------ the browser


def test_what_a_browser_sends_is_taken_as_it_is() -> None:
    calls = []
    widget = CodeSwap(lambda codes: calls.append(1) or decode(codes), CODES, K)
    calls.clear()
    painted = CODES[1].copy()
    painted[0, 0] = 5
    widget.set_state({"example": 1, "codes": painted.tolist()})
    assert (widget.example, widget.codes) == (1, painted.tolist())
    assert not calls  # it asks for the image itself
    ask(widget, {"kind": "decode", "codes": painted.tolist()})
    np.testing.assert_array_equal(255 * widget.image, levels(painted[None])[0])
    assert (widget.answered["sequence"], widget.answered["codes"]) == ("a.1", painted.tolist())
    widget.example = 2  # Python's own change still brings the codes
    assert widget.codes == CODES[2].tolist()


def test_an_answer_is_for_the_codes_that_were_asked() -> None:
    widget = swap()
    ask(widget, {"kind": "decode", "codes": CODES[2].tolist()})
    assert widget.answered["codes"] == CODES[2].tolist()
    assert widget.codes == CODES[0].tolist()  # the reader may have gone on painting
    ask(widget, {"kind": "hello", "sequence": "a.2"})
    assert widget.answered["sequence"] == "a.1"


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (np.zeros((1, 9, 8)), "ValueError: what decode returns must have shape [B, 8, 9] or"),
        (np.full((1, 8, 9), 1.5), "ValueError: what decode returns must lie in [0, 1]"),
        (np.zeros((2, 8, 9)), "ValueError: decode must return an image for each of 1 maps, got 2"),
        (None, "ValueError: what decode returns must hold real numbers"),
        (RuntimeError("first\nsecond"), "RuntimeError: first second"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_what_goes_wrong_is_one_line(answer: object, line: str) -> None:
    wrong = []

    def fail(codes: np.ndarray) -> object:
        if not wrong:
            return decode(codes)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    widget = CodeSwap(fail, CODES, K)
    before = widget.image
    wrong.append(True)
    widget.set_state({"codes": CODES[1].tolist()})
    ask(widget, {"kind": "decode", "codes": CODES[1].tolist()})
    assert widget.error.startswith(line)
    assert widget.answered["codes"] == CODES[1].tolist()
    np.testing.assert_array_equal(widget.image, before)
    expected = type(answer) if isinstance(answer, BaseException) else ValueError
    with pytest.raises(expected):
        widget.codes = CODES[2]  # in a cell the error itself is the clearest
    wrong.clear()
    widget.codes = CODES[0]
    assert widget.error == ""
    np.testing.assert_array_equal(widget.image, before)


def test_a_spoilt_request_is_answered_with_an_error() -> None:
    widget = swap()
    for codes in ([[9] * 3] * 4, [[0]], None):
        ask(widget, {"kind": "decode", "codes": codes})
        assert widget.error != ""
    ask(widget, {"kind": "decode", "codes": CODES[0].tolist()})
    assert widget.error == ""


def test_encoding_again_takes_the_codes_of_the_decoded_image() -> None:
    seen = []

    def encode(images: np.ndarray) -> torch.Tensor:
        seen.append(images)
        return torch.as_tensor(CODES[2:3])

    widget = swap(encode=encode)
    assert widget.can_encode
    widget.encode_again()
    assert (seen[0].dtype, seen[0].shape) == (np.float32, (1, 1, 8, 9))
    np.testing.assert_allclose(seen[0][0, 0], decode(CODES[:1])[0], atol=0.003)
    assert widget.codes == widget.answered["codes"] == CODES[2].tolist()
    np.testing.assert_array_equal(255 * widget.image, levels(CODES[2:])[0])
    widget.codes = CODES[1]
    ask(widget, {"kind": "encode", "sequence": "b.7"})
    assert widget.answered["sequence"] == "b.7"
    assert widget.codes == CODES[2].tolist()


def test_encoding_that_fails_is_told() -> None:
    widget = swap(encode=lambda images: CODES[:2])
    with pytest.raises(ValueError, match=r"what encode returns must have shape \[1, 4, 3\]"):
        widget.encode_again()
    assert widget.error.startswith("ValueError: what encode returns")
    ask(swap(encode=lambda images: 1 / 0), {"kind": "encode"})  # raises nothing
    with pytest.raises(ValueError, match="encode must be given"):
        swap().encode_again()


# ------------------------------------------------------------------------------ single changes


def unpacked(widget: CodeSwap) -> dict[tuple[int, int, int], np.ndarray]:
    """The stored changes, as a browser reads them: the image of each."""
    stream = zlib.decompress(widget.array("changes").astype(np.uint8).tobytes())
    differences = np.frombuffer(stream, np.uint8).reshape(-1, 8, 9)
    found, at = {}, 0
    examples = widget.stored["examples"]
    for m in examples:
        for cell in range(12):
            new = set(widget.palette[: widget.stored["codes"]])
            new |= {CODES[j].flat[cell] for j in examples}
            for code in sorted(new - {CODES[m].flat[cell]}):
                image = levels(CODES[m : m + 1])[0] + differences[at]
                found[m, cell, int(code)] = image % 256
                at += 1
    assert at == len(differences)
    return found


def test_every_stored_change_is_what_decode_makes_of_it() -> None:
    widget = swap()
    widget.static_html()
    assert widget.stored == {"examples": [0, 1, 2], "codes": K}
    found = unpacked(widget)
    assert len(found) == 3 * 12 * (K - 1)
    for (m, cell, code), image in found.items():
        changed = CODES[m].copy()
        changed.flat[cell] = code
        assert np.abs(image - levels(changed[None])[0]).max() <= 1


@pytest.mark.parametrize(
    ("fewest", "examples", "codes"), [(3, [1], 2), (3, [1, 0], 3), (2, [1, 0, 2], 4), (3, [], 0)]
)
def test_what_fits_is_codes_first_then_examples_then_codes(
    monkeypatch: pytest.MonkeyPatch, fewest: int, examples: list, codes: int
) -> None:
    widget = swap()
    widget.example = 1  # the example that is shown comes first
    changes = widget._changes(examples, codes)
    room = len(zlib.compress(b"".join(widget._differences(changes))))  # there is room for just this
    monkeypatch.setattr(code_swap, "FEWEST", fewest)
    monkeypatch.setattr(code_swap, "MAX_BYTES", len(widget.data) + room)
    widget.static_html()
    assert widget.stored == {"examples": examples, "codes": codes}
    assert len(widget.data) <= code_swap.MAX_BYTES
    if examples:
        unpacked(widget)


def test_what_is_on_the_screen_is_stored_exactly_too() -> None:
    widget = swap(title="Swap </script>")
    widget.codes = CODES[1]
    stored = widget.static_html()
    state = json.loads(re.search(r'id="state">(.*?)</script>', html.unescape(stored))[1])
    assert state["answered"]["codes"] == state["codes"] == CODES[1].tolist()
    assert state["answered"]["levels"] == levels(CODES[1:2]).ravel().tolist()
    assert widget.static_html() == stored


def test_the_still_picture_frames_what_changed() -> None:
    def pixels(widget: CodeSwap) -> np.ndarray:
        content = widget.still()
        assert len(content) < 60_000
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)

    widget = swap(originals=np.full((3, 8, 9), 0.5))
    orange = np.array([int(PALETTE["model"][i : i + 2], 16) for i in (1, 3, 5)])

    def framed() -> int:
        return (np.abs(pixels(widget) - orange).max(-1) < 60).sum()

    assert framed() < 10
    widget.codes = [[5, *CODES[0, 0, 1:]], *CODES[0, 1:].tolist()]
    assert framed() > 100
    shown = pixels(widget)
    assert abs(shown[shown.shape[0] // 2, 40] - 127).max() < 12  # the original, half grey


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decode": CODES}, "decode must be callable"),
        ({"encode": CODES}, "encode must be callable as encode.images. or None"),
        ({"codes": CODES[0]}, r"codes must have shape \[M, h, w\], got \[4, 3\]"),
        ({"codes": CODES + 1.5}, "codes must hold whole numbers from 0 to 5, got"),
        ({"codes": CODES + 2}, "codes must hold whole numbers from 0 to 5, got 6"),
        ({"codes": CODES.repeat(5, 0)}, "codes must hold at most 12 maps, got 15"),
        ({"codes": CODES.repeat(9, 1)}, "codes must have a height and a width of at most 32"),
        ({"n_codes": 1}, "n_codes must be an integer from 2 to 65535, got 1"),
        ({"n_codes": 6.0}, "n_codes must be an integer from 2 to 65535, got 6.0"),
        ({"originals": np.zeros((3, 9, 8))}, r"originals must have shape \[M, 8, 9\]"),
        ({"originals": np.zeros((2, 8, 9))}, "originals must be as many as codes, 3, got 2"),
        ({"originals": np.full((3, 8, 9), 2)}, r"originals must lie in \[0, 1\]"),
        ({"title": None}, "title must be a string"),
        (
            {"decode": lambda codes: np.zeros((len(codes), 3, 3))},
            r"what decode returns must have a height and a width of at most 256 and at least those "
            r"of the map, \[4, 3\], got \[3, 3\]",
        ),
        (
            {"decode": lambda codes: np.zeros((len(codes), 256, 256)), "codes": CODES.repeat(4, 0)},
            "at most 300,000 bytes.*send fewer or smaller examples",
        ),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str) -> None:
    arguments = {"decode": decode, "codes": CODES, "n_codes": K} | options
    with pytest.raises(ValueError, match=message):
        CodeSwap(**arguments)
