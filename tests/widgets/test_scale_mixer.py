"""ScaleMixer: which mixture it shows, what it stores, and what it refuses."""

import io
from itertools import product

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from course_lib.flows import Glow
from course_lib.widgets import PALETTE, ScaleMixer

RNG = np.random.default_rng(0)
SHAPES = [(4, 2, 4, 3), (4, 6, 2, 1), (4, 3, 4)]  # of the latents of four images of 8 x 6 pixels


def arguments(draws: int = 5) -> dict:
    """A call that is right: four images, three scales, five draws."""
    return {
        "images": RNG.random((4, 8, 6)),
        "latents": [RNG.normal(size=shape) for shape in SHAPES],
        "mixed": RNG.random((4, 7, draws, 8, 6)),
    }


def quantized(image: np.ndarray) -> np.ndarray:
    return np.rint(255 * image) / 255


# ---------------------------------------------------------------------------------- what is shown


def test_it_starts_with_the_first_image_as_it_is() -> None:
    given = arguments()
    widget = ScaleMixer(**given)
    assert (widget.image, widget.resampled, widget.draw) == (0, [False] * 3, 0)
    assert widget.names == ["scale 1", "scale 2", "scale 3"]
    np.testing.assert_array_equal(widget.shown, quantized(given["images"][0]))


def test_each_setting_shows_the_mixture_of_its_own() -> None:
    given = arguments()
    widget = ScaleMixer(**given)
    # Counted in binary by hand, scale 1 being the lowest digit.
    index = {(1, 0, 0): 0, (0, 1, 0): 1, (1, 1, 0): 2, (0, 0, 1): 3}
    index |= {(1, 0, 1): 4, (0, 1, 1): 5, (1, 1, 1): 6}
    for image, draw, choice in product(range(4), range(5), product([0, 1], repeat=3)):
        widget.image, widget.draw, widget.resampled = image, draw, [bool(on) for on in choice]
        wanted = (
            given["mixed"][image, index[choice], draw] if any(choice) else given["images"][image]
        )
        np.testing.assert_array_equal(widget.shown, quantized(wanted))


def test_of_a_real_flow_it_shows_what_the_flow_makes_of_the_mixture() -> None:
    """The example of the chapter: parts of two images' latents, put together by hand."""
    torch.manual_seed(0)
    model = Glow((1, 8, 8), levels=2, depth=1, hidden=8, logit=0.05)
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        model(x)  # sets ActNorm
        model.eval()
        parts = model.scales(model(x)[0])
        fresh = [torch.randn(2, *part.shape) for part in parts]

        def mix(k: int, draw: int) -> torch.Tensor:
            chosen = [fresh[s][draw] if k >> s & 1 else part for s, part in enumerate(parts)]
            return model.inverse(model.join(chosen))[0].clamp(0, 1)

        mixed = torch.stack([torch.stack([mix(k, r) for r in range(2)], 1) for k in (1, 2, 3)], 1)
        widget = ScaleMixer(x, parts, mixed)
        widget.image, widget.draw, widget.resampled = 2, 1, [False, True]
        z = model.join([parts[0][2:], fresh[1][1][2:]])
        wanted = model.inverse(z)[0].clamp(0, 1)[0, 0].numpy()
        np.testing.assert_allclose(widget.shown, wanted, atol=0.6 / 255)
        # All latents kept: the flow itself says that the original is the result.
        back = model.inverse(model.join(parts))[0][:, 0].numpy()
    widget.resampled = [False, False]
    np.testing.assert_allclose(widget.shown, back[2], atol=0.6 / 255)
    assert np.abs(widget.shown - wanted).max() > 0.1


def test_latents_arrive_with_their_channels() -> None:
    given = arguments()
    widget = ScaleMixer(**given)
    for s, part in enumerate(given["latents"]):
        stored = widget.array(f"latents {s}")
        assert stored.shape == (4, *(1, *part.shape[1:])[-3:])  # one channel where none is given
        np.testing.assert_allclose(stored.reshape(part.shape), part, atol=1e-4)
    pixels = 4 * 8 * 6 * (1 + 7 * 5)
    assert len(widget.data) == pixels + 2 * sum(map(np.prod, SHAPES))


def test_one_large_latent_does_not_take_the_colours_of_all() -> None:
    latents = np.tile(np.linspace(-2.31, 2.2, 64).reshape(8, 8), (4, 1, 1))
    latents[0, 0, 0] = 50
    mixed = np.zeros((4, 1, 1, 8, 8))
    assert ScaleMixer(np.zeros((4, 8, 8)), [latents], mixed).limit == 2.4
    assert ScaleMixer(np.zeros((4, 8, 8)), [0 * latents], mixed).limit == 1.0


def test_tensors_with_a_channel_are_welcome() -> None:
    given = arguments()
    tensors = ScaleMixer(
        torch.tensor(given["images"])[:, None],
        tuple(torch.tensor(part, requires_grad=True) for part in given["latents"]),
        torch.tensor(given["mixed"]).unsqueeze(3),
    )
    plain = ScaleMixer(**given)
    assert (tensors.data, tensors.arrays, tensors.limit) == (plain.data, plain.arrays, plain.limit)


# ------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("image", 4, "image must be an integer from 0 to 3, got 4"),
        ("image", -1, "image must be an integer from 0 to 3, got -1"),
        ("draw", 5, "draw must be an integer from 0 to 4, got 5"),
        ("draw", -1, "draw must be an integer from 0 to 4, got -1"),
        ("resampled", [True, False], r"resampled must hold one bool for each of 3 scales"),
        ("resampled", [], r"resampled must hold one bool for each of 3 scales, got \[\]"),
    ],
)
def test_a_state_that_does_not_exist_is_refused(name: str, value: object, reason: str) -> None:
    widget = ScaleMixer(**arguments())
    before = getattr(widget, name)
    with pytest.raises(ValueError, match=reason):
        setattr(widget, name, value)
    assert getattr(widget, name) == before
    with pytest.raises(traitlets.TraitError):
        widget.resampled = [None, False, True]


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"images": RNG.random((4, 3, 8, 6))}, r"images must have shape \[N, H, W\]"),
        ({"images": np.full((4, 8, 6), 1.5)}, r"images must lie in \[0, 1\]"),
        ({"latents": RNG.normal(size=(4, 8, 6))}, "latents must be a list of 1 to 6 arrays"),
        ({"latents": []}, "latents must be a list of 1 to 6 arrays, got 0"),
        ({"latents": [np.zeros((4, 1, 1))] * 7}, "latents must be a list of 1 to 6 arrays, got 7"),
        (
            {"latents": [np.zeros(s) for s in [(4, 8), *SHAPES[1:]]]},
            r"latents\[0\] must have shape \[4, C, h, w\] or \[4, h, w\], got \[4, 8\]",
        ),
        (
            {"latents": [np.zeros(s) for s in [*SHAPES[:2], (3, 3, 4)]]},
            r"latents\[2\] must have shape .*, one for each image, got \[3, 3, 4\]",
        ),
        (
            {"latents": [*map(np.zeros, SHAPES[:2]), np.full(SHAPES[2], np.nan)]},
            r"latents\[2\] must be finite",
        ),
        (
            {"latents": [np.zeros((4, 8, 6))] * 2},
            r"mixed must have shape \[4, 3, R, 8, 6\] or \[4, 3, R, 1, 8, 6\], for 2 scales",
        ),
        ({"mixed": np.zeros((4, 8, 5, 8, 6))}, r"for 3 scales, got \[4, 8, 5, 8, 6\]"),
        ({"mixed": np.zeros((3, 7, 5, 8, 6))}, r"mixed must have shape \[4, 7, R, 8, 6\]"),
        ({"mixed": np.zeros((4, 7, 5, 6, 8))}, r"mixed must have shape .*, got \[4, 7, 5, 6, 8\]"),
        ({"mixed": np.zeros((4, 7, 5, 2, 8, 6))}, r"mixed must have shape .*, got \[4, 7, 5, 2"),
        ({"mixed": np.zeros((4, 7, 0, 8, 6))}, "mixed must have shape"),
        ({"mixed": np.full((4, 7, 5, 8, 6), -0.1)}, r"mixed must lie in \[0, 1\]"),
        ({"mixed": np.zeros((4, 7, 230, 8, 6))}, "at most 300,000 bytes.*send fewer images or dra"),
        ({"names": ["fine", "coarse"]}, "names must be 3 strings"),
        ({"title": None}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ScaleMixer(**arguments() | change)


# --------------------------------------------------------------------------------------- the still


def cells(widget: ScaleMixer, rows: int, columns: int) -> np.ndarray:
    """The grey level in the middle of each picture of the still, [rows, columns]."""
    picture = np.asarray(Image.open(io.BytesIO(widget.still())).convert("RGB")).astype(int)
    top, bottom, left, right = _frames(picture)
    at = [np.linspace(*ends, 2 * n + 1)[1::2].round().astype(int)
          for ends, n in (((top, bottom), rows), ((left, right), columns))]  # fmt: skip
    return picture[np.ix_(*at)][..., 0]


def _frames(picture: np.ndarray) -> list[int]:
    """The box around everything that is framed in the colours of data and model."""
    framed = np.zeros(picture.shape[:2], bool)
    for role in ("data", "model"):
        colour = [int(PALETTE[role][k : k + 2], 16) for k in (1, 3, 5)]
        framed |= np.abs(picture - colour).max(-1) < 45
    rows, columns = np.where(framed.any(1))[0], np.where(framed.any(0))[0]
    return [rows[0], rows[-1], columns[0], columns[-1]]


def test_the_still_picture_shows_each_scale_alone_and_all() -> None:
    images = np.full((5, 8, 8), 0.1) + 0.05 * np.arange(5).reshape(5, 1, 1)
    sets = np.linspace(0.4, 1, 7).reshape(1, 7, 1, 1, 1)
    mixed = sets * np.ones((5, 7, 2, 8, 8)) - 0.03 * np.arange(5).reshape(5, 1, 1, 1, 1)
    mixed[:, :, 1] /= 2
    widget = ScaleMixer(images, [np.zeros((5, 4, 4))] * 3, mixed)
    widget.image, widget.draw = 3, 1
    shown = [3, 0, 1]  # the image that is shown comes first
    wanted = np.column_stack([images[shown, 0, 0], mixed[shown][:, [0, 1, 3, 6], 1, 0, 0]])
    np.testing.assert_allclose(cells(widget, 3, 5), 255 * wanted, atol=6)  # of few colours
    assert len(widget.still()) < 60_000


def test_a_flow_of_one_scale_can_be_shown() -> None:
    widget = ScaleMixer(np.zeros((1, 4, 4)), [np.zeros((1, 4, 4))], np.ones((1, 1, 1, 4, 4)))
    np.testing.assert_allclose(cells(widget, 1, 2), [[0, 255]], atol=3)
    widget.resampled = [True]
    assert (widget.shown == 1).all()


def test_the_stored_form_holds_its_state() -> None:
    widget = ScaleMixer(**arguments(), title="Mix </script>")
    widget.image, widget.draw, widget.resampled = 1, 2, [True, False, True]
    stored = widget.static_html()
    for text in ("&quot;image&quot;: 1", "&quot;draw&quot;: 2", "[true, false, true]"):
        assert text in stored
    assert widget.static_html() == stored
    assert repr(widget) == "ScaleMixer('Mix </script>')"
