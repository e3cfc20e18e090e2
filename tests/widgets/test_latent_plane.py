"""LatentPlane: what it stores, what it answers, its state, and what it refuses."""

import base64
import html
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import CLASS_COLOURS, LatentPlane, corner_shares
from course_lib.widgets.base import MAX_BYTES, pack, to_bytes
from course_lib.widgets.latent_plane import SIDES, latent_grid, map_tiles
from tests.widgets.test_palette import contrast


def blob(z: torch.Tensor, size: tuple[int, int] = (8, 6)) -> torch.Tensor:
    """A stand-in for a decoder: a spot of light at z, [B, H, W], row 0 at the top."""
    up = torch.linspace(3, -3, size[0])[None, :, None] - z[:, 1, None, None]
    right = torch.linspace(-3, 3, size[1])[None, None, :] - z[:, 0, None, None]
    return torch.exp(-(up**2 + right**2) / 2)


# Four images that are told apart, in the order of reading, and the plane between them.
TILES = np.stack([np.full((8, 6), level, np.float32) for level in (0.2, 0.4, 0.6, 1.0)])


def blend(z: torch.Tensor) -> torch.Tensor:
    """A stand-in for a decoder of mixtures in [-1, 1]²."""
    return torch.einsum("bk,khw->bhw", corner_shares(z), torch.tensor(TILES))


def between(**options: object) -> LatentPlane:
    return LatentPlane(**{"decode": blend, "extent": 1, "corners": TILES} | options)


def answers(widget: LatentPlane) -> np.ndarray:
    """The images of the last answer, [K, H, W] in [0, 1]."""
    found = widget.answered
    whole = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8)
    return whole.reshape(len(found["latents"]), *widget.grid.shape[2:]) / 255


def state_of(widget: LatentPlane) -> dict:
    """What the stored form holds."""
    page = html.unescape(re.search(r'srcdoc="([^"]*)"', widget.static_html())[1])
    return json.loads(re.search(r'id="state">(.*?)</script>', page)[1])


# --------------------------------------------------------------------------------- what is stored


def test_bytes_are_packed_as_they_are() -> None:
    images = np.random.default_rng(0).random((3, 5, 7)).astype(np.float32)
    numbers = np.linspace(-2, 9, 5, dtype=np.float32)
    data, layout = pack({"a": to_bytes(images), "b": numbers}, "")
    assert len(data) == images.size + 2 * numbers.size
    assert layout["a"] == {"offset": 0, "shape": [3, 5, 7], "low": 0, "high": 255, "bits": 8}
    assert layout["b"] == {"offset": 105, "shape": [5], "low": -2, "high": 9}
    restored = np.frombuffer(data, np.uint8, 105).reshape(3, 5, 7) / 255
    assert np.abs(restored - images).max() <= 0.5 / 255 + 1e-6
    pack({"a": np.zeros(MAX_BYTES, np.uint8)}, "")
    with pytest.raises(ValueError, match="got 300,001"):
        pack({"a": np.zeros(MAX_BYTES + 1, np.uint8)}, "")


def test_the_grid_holds_the_plane_row_by_row_upwards() -> None:
    widget = LatentPlane(blob, extent=2.0)
    side = len(widget.grid)
    for i, j in [(0, 0), (0, side - 1), (side - 1, 0), (side // 2, side // 2), (3, 7)]:
        z = torch.tensor([[-2 + 4 * j / (side - 1), -2 + 4 * i / (side - 1)]])
        np.testing.assert_allclose(widget.grid[i, j], blob(z)[0], atol=0.5 / 255 + 1e-6)
    assert latent_grid(2.0, 3).tolist()[:4] == [[-2, -2], [0, -2], [2, -2], [-2, 0]]


@pytest.mark.parametrize(
    ("size", "n_points", "side"), [((8, 8), 0, 41), ((28, 28), 500, 19), ((28, 28), 3400, 17)]
)
def test_the_grid_is_as_fine_as_fits(size: tuple[int, int], n_points: int, side: int) -> None:
    cloud = {"points": np.zeros((n_points, 2)), "labels": [3] * n_points} if n_points else {}
    widget = LatentPlane(lambda z: torch.zeros(len(z), 1, *size), **cloud)
    assert widget.grid.shape == (side, side, *size)
    assert len(widget.data) == side**2 * size[0] * size[1] + 5 * n_points <= MAX_BYTES


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 300,000 bytes, got 331,776 .*smaller images"):
        LatentPlane(lambda z: torch.zeros(len(z), 64, 64))


@pytest.mark.parametrize("side", SIDES)
def test_the_tiles_of_the_map_cover_the_plane(side: int) -> None:
    tiles = map_tiles(side)
    assert 4 <= len(tiles) <= 12
    assert tiles[0] == tiles.step / 2  # the first begins at one border,
    assert tiles[-1] + tiles.step / 2 == side - 1  # the last ends at the other


def test_points_and_labels_arrive() -> None:
    points = np.random.default_rng(0).normal(size=(40, 2))
    labels = torch.arange(40) % 10
    widget = LatentPlane(blob, points=torch.tensor(points), labels=labels)
    np.testing.assert_allclose(widget.array("points"), points, atol=1e-4)
    np.testing.assert_array_equal(widget.array("labels"), labels)
    assert "labels" not in LatentPlane(blob, points=points).arrays


def test_corners_arrive_in_the_order_of_reading() -> None:
    widget = between(corners=torch.tensor(TILES)[:, None], z=(0.4, -1.0))
    np.testing.assert_allclose(widget.array("corners") / 255, TILES, atol=0.5 / 255 + 1e-6)
    found = widget.grid[[-1, -1, 0, 0], [0, -1, 0, -1]]  # the grid's rows go upwards
    np.testing.assert_allclose(found, TILES, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(widget.shares, [0, 0, 0.3, 0.7], atol=1e-12)
    widget.z = [-0.5, 0.5]
    np.testing.assert_allclose(widget.shares, [9 / 16, 3 / 16, 3 / 16, 1 / 16], atol=1e-12)
    assert "four images" in widget.alt
    assert "corners" not in LatentPlane(blob).arrays


def test_the_grid_leaves_room_for_the_corners() -> None:
    def decode(z: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(z), 3, 73)

    assert len(LatentPlane(decode).grid) == 37  # 299,811 bytes; four images more are too many
    assert len(LatentPlane(decode, corners=np.zeros((4, 3, 73))).grid) == 33


def test_decode_gets_float32_tensors_without_gradients_in_batches() -> None:
    seen = []

    def decode(z: torch.Tensor) -> torch.Tensor:
        seen.append((z.dtype, len(z), torch.is_grad_enabled()))
        return blob(z)

    LatentPlane(decode, z=[1.0, 1.0])
    assert {(dtype, grad) for dtype, _, grad in seen} == {(torch.float32, False)}
    assert max(count for _, count, _ in seen) <= 64
    assert sum(count for _, count, _ in seen) == 1 + 41**2


# ----------------------------------------------------------------------------------------- answers


def test_a_question_is_answered_in_one_message() -> None:
    widget = LatentPlane(blob)
    heard = []
    widget.observe(lambda change: heard.append(change["name"]))
    latents = [[0.25, -1.5], [3.0, 3.0]]
    widget._receive(widget, {"kind": "decode", "sequence": "a.1", "latents": latents}, [])
    assert heard == ["answered"]
    assert (widget.answered["sequence"], widget.answered["latents"]) == ("a.1", latents)
    assert widget.error == ""
    np.testing.assert_allclose(answers(widget), blob(torch.tensor(latents)), atol=0.51 / 255)
    widget._receive(widget, {"kind": "other"}, [])
    assert widget.answered["sequence"] == "a.1"


def test_what_goes_wrong_is_told_in_one_line() -> None:
    fault = []

    def decode(z: torch.Tensor) -> torch.Tensor:
        if fault:
            raise RuntimeError("the decoder\nis tired")
        return blob(z)

    widget = LatentPlane(decode)
    fault.append(True)
    question = {"kind": "decode", "sequence": "a.1", "latents": [[1.0, 1.0]]}
    widget._receive(widget, question, [])
    assert widget.error == "RuntimeError: the decoder is tired"
    assert [widget.answered[name] for name in ("latents", "pixels")] == [[[1.0, 1.0]], ""]
    with pytest.raises(RuntimeError, match="tired"):
        _ = widget.image
    fault.clear()
    widget._receive(widget, question | {"sequence": "a.2"}, [])
    assert (widget.answered["sequence"], widget.error) == ("a.2", "")


def test_the_stored_form_holds_what_it_shows_decoded() -> None:
    widget = LatentPlane(blob, z=(1.0, -2.0))
    widget.z = [0.5, 0.123]
    state = state_of(widget)
    assert state["answered"]["latents"] == [[0.5, 0.123]]
    np.testing.assert_allclose(answers(widget), blob(torch.tensor([[0.5, 0.123]])), atol=0.51 / 255)
    widget.walk = True
    latents = np.array(state_of(widget)["answered"]["latents"])
    assert latents.shape == (9, 2)
    np.testing.assert_array_equal(latents[[0, -1]], [widget.z, widget.z_end])
    np.testing.assert_allclose(np.diff(latents, axis=0), np.tile(latents[1] - latents[0], (8, 1)))


# -------------------------------------------------------------------------------------- the shares


@pytest.mark.parametrize("extent", [1.0, 0.3, 3.0])
def test_shares_are_bilinear(extent: float) -> None:
    corners = extent * torch.tensor([[-1, 1], [1, 1], [-1, -1], [1, -1]], dtype=torch.float64)
    torch.testing.assert_close(corner_shares(corners, extent), torch.eye(4).double())
    generator = torch.Generator().manual_seed(0)
    points = extent * (2 * torch.rand(50, 2, dtype=torch.float64, generator=generator) - 1)
    shares = corner_shares(points, extent)
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(50).double())
    torch.testing.assert_close(shares @ corners, points)  # they balance the square on the point,
    product = points.prod(1) / extent**2  # and so they do its twist: linear along x, and along y
    torch.testing.assert_close(shares @ torch.tensor([-1.0, 1, 1, -1]).double(), product)


def test_shares_refuse_what_lies_outside() -> None:
    border = torch.as_tensor(latent_grid(0.3, 3), dtype=torch.float32)  # 0.3 is rounded upwards
    assert corner_shares(border, 0.3).dtype == torch.float32
    with pytest.raises(ValueError, match=r"points must lie in \[-1, 1\]², got 1.5"):
        corner_shares(torch.tensor([[0.0, -1.5]]))
    with pytest.raises(ValueError, match=r"points must have shape \[B, 2\], got \[2\]"):
        corner_shares(torch.zeros(2))
    with pytest.raises(ValueError, match="extent must be a finite number above 0"):
        corner_shares(torch.zeros(1, 2), 0)


# ------------------------------------------------------------------------------------------- state


def test_python_moves_z_and_sees_its_image() -> None:
    widget = LatentPlane(blob, z=np.array([0.3, -0.6]))
    assert widget.z == [0.3, -0.6]
    assert widget.z_end == [-0.3, 0.6]
    widget.z = (1.5, -3)
    expected = blob(torch.tensor([[1.5, -3.0]]))[0]
    np.testing.assert_allclose(widget.image, expected, atol=0.51 / 255)
    for name in ("z", "z_end"):
        for value in [(0, 3.01), (float("nan"), 0), (1,), (1, 2, 3)]:
            with pytest.raises(ValueError, match=f"{name} must be two numbers from -3 to 3"):
                setattr(widget, name, value)
    assert widget.z == [1.5, -3]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"decode": 3}, "decode must be callable"),
        ({"extent": 0.0}, "extent must be a finite number above 0"),
        ({"z": (4.0, 0.0)}, "z must be two numbers from -3 to 3, got"),
        ({"z": "ab"}, "z must be two numbers"),
        ({"points": np.zeros((5, 3))}, r"points must have shape \[N, 2\], got \[5, 3\]"),
        ({"points": np.full((5, 2), np.nan)}, "points must be finite"),
        ({"points": np.zeros((5, 2)), "labels": [1] * 4}, "labels must be one for each of the 5"),
        ({"points": np.zeros((2, 2)), "labels": [0, 10]}, "labels must be whole .* 0 to 9, got 10"),
        ({"points": np.zeros((2, 2)), "labels": [0, 0.5]}, "labels must be whole .* got 0.5"),
        ({"labels": [1]}, "labels must be one for each of the 0 points, got 1"),
        ({"decode": lambda z: blob(z)[:-1]}, "must be one for each of|must have shape"),
        ({"decode": lambda z: 2 * blob(z)}, r"the images that decode returns must lie in \[0, 1\]"),
        ({"decode": lambda z: z}, "the images that decode returns must have shape"),
        ({"decode": lambda z: blob(z, (8, 8 + len(z) % 2))}, r"must have shape \[B, 8, 9\]"),
        ({"corners": TILES[:3]}, "corners must be four images, got 3"),
        ({"corners": TILES[:, :7]}, r"corners must have shape \[4, 8, 6\] or .*, got \[4, 7, 6\]"),
        ({"corners": 2 * TILES}, r"corners must lie in \[0, 1\]"),
        ({"title": 3}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LatentPlane(**{"decode": blob} | change)


# --------------------------------------------------------------------------------------- the looks


def test_class_colours_are_readable() -> None:
    for theme, page in (("light", "#fbfcfd"), ("dark", "#191b1e")):
        assert len(set(CLASS_COLOURS[theme])) == 10
        assert min(contrast(colour, page) for colour in CLASS_COLOURS[theme]) >= 4.5


def picture(widget: LatentPlane) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(widget.still())).convert("L"), dtype=float)


def test_the_still_picture_shows_the_image_and_the_map() -> None:
    widget = LatentPlane(lambda z: blob(z, (8, 8)), z=(1.5, 2.0))
    both = picture(widget)
    height, width = both.shape
    right = both[int(0.25 * height) : int(0.75 * height), int(0.62 * width) : int(0.95 * width)]
    row, column = np.argwhere(right > 200).mean(0)
    assert right.max() > 240
    assert right.min() < 20
    assert row < right.shape[0] / 2  # z₂ = 2 is up,
    assert column > right.shape[1] / 2  # z₁ = 1.5 is right
    # The spots of the map's upper row of tiles are in the upper half of their tiles.
    upper, lower = (both[rows, 60:370].mean() for rows in (slice(19, 27), slice(40, 48)))
    assert upper < lower - 10
    widget.show_map = False
    plain = picture(widget)
    assert (plain[:, : width // 2] < 200).sum() < (both[:, : width // 2] < 200).sum()
    widget.walk = True
    assert picture(widget).shape[0] > height


def test_the_still_picture_shows_the_corners_at_their_places() -> None:
    for walk in (False, True):
        widget = between()
        widget.walk = walk
        both = picture(widget)
        # The plane is 266 pixels wide and high, a corner's image 50, and 7 away from it.
        left, bottom = 0.115 * 720, len(both) - 62 - 100 * walk
        rows = [bottom - 266 - 7 - 25, bottom + 7 + 25]
        found = [both[round(y), round(left + dx)] for y in rows for dx in (25, 266 - 25)]
        np.testing.assert_allclose(found, 255 * TILES[:, 0, 0], atol=2)
        # Their shares are written beside them, where the plain plane has nothing.
        words = both[round(rows[0]) - 8 : round(rows[0]) + 8, round(left + 55) : round(left + 100)]
        assert (words < 128).sum() > 20
