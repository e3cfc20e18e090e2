"""ParticlePlayer and ImagePlayer: what they accept, and what they refuse and why."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.widgets import PALETTE, ImagePlayer, ParticlePlayer

T, B = 4, 30
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(T, B, 2))
IMAGES = RNG.random((T, 5, 8, 8))


def picture(widget: object) -> np.ndarray:
    """A widget's still picture as pixels [H, W, 3]."""
    content = widget.still()
    assert len(content) < 60_000
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def share_near(pixels: np.ndarray, colour: str) -> float:
    """The share of pixels close to a colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(pixels - wanted).max(-1) < 30).mean())


# ----------------------------------------------------------------------------------------- points


def test_particles_with_everything() -> None:
    player = ParticlePlayer(
        torch.as_tensor(POINTS),
        grid=RNG.normal(size=(T, 5, 6, 2)),
        field=RNG.random((1, 7, 9)),
        field_extent=(-1, 1, -2, 2),
        color=RNG.normal(size=(T, B)),
        color_label="log-determinant (nats)",
        color_map="signed",
        labels=list("abcd"),
        extent=(-3, 3, -2, 2),
        alt="All of it.",
    )
    assert {name: part["shape"] for name, part in player.arrays.items()} == {
        "points": [T, B, 2],
        "grid": [T, 5, 6, 2],
        "field": [1, 7, 9],
        "color": [T, B],
    }
    assert player.n_steps == T
    assert player.extent == [-3, 3, -2, 2]
    assert player.field_extent == [-1, 1, -2, 2]
    low, high = player.color_range
    assert low == -high
    picture(player)


def test_one_colour_per_particle_stands_for_every_step() -> None:
    player = ParticlePlayer(POINTS, color=np.arange(B))
    assert player.arrays["color"]["shape"] == [1, B]
    assert player.color_range == [0, B - 1]
    np.testing.assert_allclose(player.state_at("color", 2.5), np.arange(B), atol=1e-3)


def test_the_plot_is_a_square_around_the_points() -> None:
    x0, x1, y0, y1 = ParticlePlayer(POINTS).extent
    assert x1 - x0 == pytest.approx(y1 - y0)
    inside = ([x0, y0] < POINTS).all(-1) & ([x1, y1] > POINTS).all(-1)
    assert inside.mean() > 0.95
    lonely = ParticlePlayer(np.ones((1, 1, 2)))
    assert lonely.extent[0] < 1 < lonely.extent[1]


@pytest.mark.parametrize("role", PALETTE)
def test_the_picture_has_the_colour_of_the_role(role: str) -> None:
    pixels = picture(ParticlePlayer(RNG.uniform(-1, 1, size=(T, 800, 2)), role=role))
    assert share_near(pixels, PALETTE[role]) > 0.02


def test_a_long_trajectory_takes_six_seconds() -> None:
    assert ParticlePlayer(np.zeros((61, 2, 2))).rate == 10
    assert ParticlePlayer(np.zeros((3, 2, 2))).rate == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"points": POINTS[0]}, r"points must have shape \[T, B, 2\], got \[30, 2\]"),
        ({"points": POINTS[..., :1]}, r"points must have shape \[T, B, 2\], got \[4, 30, 1\]"),
        ({"points": POINTS[:0]}, r"points must have shape \[T, B, 2\], got \[0, 30, 2\]"),
        ({"points": POINTS * np.nan}, "points must be finite"),
        (
            {"grid": np.zeros((3, 5, 5, 2))},
            r"grid must have shape \[4, R, C, 2\], got \[3,",
        ),
        ({"grid": np.zeros((T, 5, 5, 3))}, "grid must have shape"),
        ({"field": np.zeros((2, 5, 5))}, r"field must have shape \[4, H, W\] or \[1, H, W\]"),
        ({"field": np.zeros((5, 5))}, "field must have shape"),
        ({"color": np.zeros(B + 1)}, r"color must have shape \[30\] or \[4, 30\], got \[31\]"),
        ({"color": np.zeros((T, B, 1))}, "color must have shape"),
        ({"color": np.full(B, np.inf)}, "color must be finite"),
        ({"color_map": "jet"}, "color_map must be one of cyclic, signed, viridis, got 'jet'"),
        (
            {"color": np.linspace(0, 3.2, B), "color_map": "cyclic"},
            r"color must hold angles in \[-pi, pi\] where color_map is cyclic, got .* \[0, 3.2\]",
        ),
        ({"role": "mine"}, "role must be one of data"),
        ({"labels": ["a"]}, r"labels must be 4 strings, got \['a'\]"),
        ({"extent": (1, 0, 0, 1)}, "extent must be"),
        ({"field_extent": (0, 1)}, "field_extent must be"),
        ({"color_label": 3}, "color_label must be a string, got 3"),
        ({"points": np.zeros((20, 5000, 2))}, "got 400,000 .* send fewer particles"),
    ],
)
def test_bad_particles_are_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ParticlePlayer(**({"points": POINTS} | arguments))


# ------------------------------------------------------------------------------- a second panel


def test_a_second_panel_and_trails_of_their_own_steps() -> None:
    trails, others = RNG.normal(size=(9, 7, 2)), RNG.normal(size=(5, 3, 2))
    player = ParticlePlayer(
        POINTS,
        beside=torch.as_tensor(2 * POINTS),
        titles=("x_t", "the guess"),
        trails=trails,
        beside_trails=others,
        role="noise",
        beside_role="model",
        field=np.zeros((1, 3, 3)),
        color=np.arange(B),
        grid=np.zeros((T, 3, 3, 2)),
    )
    shapes = {name: part["shape"] for name, part in player.arrays.items()}
    assert shapes["beside"] == [T, B, 2]
    assert shapes["trails"] == [9, 7, 2]
    assert shapes["beside_trails"] == [5, 3, 2]
    assert (player.role, player.beside_role) == ("noise", "model")
    assert player.titles == ["x_t", "the guess"]
    assert "two panels: x_t and the guess" in player.alt
    np.testing.assert_allclose(player.array("beside"), 2 * POINTS, atol=2e-4)
    picture(player)


def test_the_steps_of_trails_lie_evenly_between_first_and_last() -> None:
    player = ParticlePlayer(POINTS, trails=np.zeros((10, 2, 2)))  # T = 4
    assert [player.trail_step("trails", k) for k in range(T)] == [0, 3, 6, 9]
    assert player.trail_step("trails", 0.5) == pytest.approx(1.5)
    alone = ParticlePlayer(POINTS[:1], trails=np.zeros((10, 2, 2)))
    assert alone.trail_step("trails", 0) == 9  # nothing is left to travel
    picture(alone)


def test_the_second_panel_takes_its_role_from_the_first() -> None:
    player = ParticlePlayer(POINTS, beside=POINTS, role="model")
    assert (player.beside_role, player.titles) == ("model", [])
    plain = ParticlePlayer(POINTS)
    assert "panels" not in plain.alt


def test_the_plot_holds_the_points_of_both_panels() -> None:
    x0, x1, *_ = ParticlePlayer(POINTS, beside=POINTS + np.array([20, 0])).extent
    assert x0 < 0
    assert x1 > 20


def test_the_picture_shows_both_panels_in_their_colours() -> None:
    points = RNG.uniform(-1, 1, size=(T, 800, 2))
    pixels = picture(ParticlePlayer(points, beside=points, role="data", beside_role="model"))
    top, bottom = np.array_split(pixels, 2)
    assert share_near(top, PALETTE["data"]) > 0.02 > share_near(top, PALETTE["model"])
    assert share_near(bottom, PALETTE["model"]) > 0.02 > share_near(bottom, PALETTE["data"])


def test_the_picture_shows_trails() -> None:
    points = np.zeros((3, 5, 2))
    trails = np.linspace([-2, 0], [2, 0], 9).reshape(9, 1, 2)
    pixels = picture(ParticlePlayer(points, trails=trails, extent=(-3, 3, -3, 3), role="model"))
    # Nothing, the half and all of the way from left to right is travelled.
    shares = [share_near(part, PALETTE["model"]) for part in np.array_split(pixels, 3, axis=1)]
    assert shares[0] < 0.7 * shares[1]
    assert shares[1] < 0.9 * shares[2]


def test_eighteen_steps_of_two_thousand_points_fit_twice() -> None:
    cloud = np.zeros((18, 2000, 2))
    assert len(ParticlePlayer(cloud, beside=cloud).data) == 288_000


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"beside": POINTS[1:]}, r"beside must have shape \[4, 30, 2\] like points, got \[3, 30"),
        ({"beside": POINTS[:, 1:]}, r"beside must have shape \[4, 30, 2\] .*got \[4, 29, 2\]"),
        ({"beside": POINTS[..., 0]}, "beside must have shape"),
        ({"beside": POINTS * np.inf}, "beside must be finite"),
        ({"titles": ("a", "b")}, "titles must be None where there is no beside"),
        ({"beside_trails": POINTS}, "beside_trails must be None where there is no beside"),
        ({"beside_role": "model"}, "beside_role must be None where there is no beside"),
        ({"beside": POINTS, "titles": ("a",)}, r"titles must be 2 strings, got \('a',\)"),
        ({"beside": POINTS, "beside_role": "mine"}, "beside_role must be one of data"),
        (
            {"trails": np.zeros((9, 31, 2))},
            r"trails must have shape \[S, K, 2\] with K from 1 to 30",
        ),
        ({"trails": np.zeros((9, 3, 3))}, r"trails must have shape .*got \[9, 3, 3\]"),
        ({"trails": 8}, "trails must have shape"),
        (
            {"beside": POINTS, "beside_trails": np.zeros((9, 31, 2))},
            "beside_trails must have shape",
        ),
        ({"beside": POINTS, "beside_trails": POINTS * np.nan}, "beside_trails must be finite"),
    ],
)
def test_bad_panels_are_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ParticlePlayer(**({"points": POINTS} | arguments))


# ----------------------------------------------------------- further panels, and ways of each step


def euler(x: np.ndarray, steps: int) -> np.ndarray:
    """Steps of Euler around the origin: ``[steps + 1, B, 2]``."""
    states = [x]
    for _ in range(steps):
        states.append(states[-1] + states[-1] @ np.array([[0, 1.0], [-1, 0]]) / steps)
    return np.stack(states)


def test_three_panels_with_the_ways_of_each_number_of_steps() -> None:
    counts, x = (1, 2, 4, 8, 16, 32), RNG.normal(size=(500, 2))
    ways = [[euler((1 + k) * x, steps) for steps in counts] for k in range(3)]
    ends = [np.stack([way[-1] for way in one]) for one in ways]
    followed = [[way[:, :24] for way in one] for one in ways]
    player = ParticlePlayer(
        ends[0],
        beside=ends[1:],
        trails=followed[0],
        beside_trails=[[torch.tensor(way) for way in followed[1]], followed[2]],
        titles=["k = 1", "k = 2", "k = 3"],
        captions=[[f"error {k} {n}" for n in counts] for k in range(3)],
        labels=[f"{n} steps" for n in counts],
        role="model",
    )
    shapes = {name: part["shape"] for name, part in player.arrays.items()}
    assert shapes == {
        "points": [6, 500, 2],
        "beside": [6, 500, 2],
        "beside_2": [6, 500, 2],
        "trails": [6, 33, 24, 2],
        "beside_trails": [6, 33, 24, 2],
        "beside_2_trails": [6, 33, 24, 2],
    }
    assert len(player.data) < 100_000
    assert player.captions[2][1] == "error 2 2"
    assert player.alt.endswith("6 steps in three panels: k = 1, k = 2 and k = 3.")
    # A way of few steps lies on the same straight pieces, in as many places as the longest.
    paths = player.array("beside_trails")
    np.testing.assert_allclose(paths[2][::8], followed[1][2], atol=1e-3)
    np.testing.assert_allclose(paths[0][8], followed[1][0].mean(0) / 2 + paths[0][0] / 2, atol=1e-3)
    np.testing.assert_allclose(paths[:, -1], player.array("beside")[:, :24], atol=1e-3)
    assert [player.trail_step("trails", k) for k in (0, 2.5, 5)] == [32, 32, 32]
    assert player.whole_steps
    assert not ParticlePlayer(ends[0], trails=followed[0][5]).whole_steps
    picture(player)


def test_a_list_of_one_panel_is_that_panel() -> None:
    alone = ParticlePlayer(POINTS, beside=2 * POINTS, beside_trails=POINTS[:, :3])
    listed = ParticlePlayer(POINTS, beside=[2 * POINTS], beside_trails=[POINTS[:, :3]])
    assert listed.arrays == alone.arrays
    assert listed.data == alone.data
    assert ParticlePlayer(POINTS, beside=(2 * POINTS).tolist()).arrays["beside"]["shape"][0] == T


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"beside": [POINTS] * 4}, "beside must hold at most 3 panels, got 4"),
        ({"beside": [POINTS, POINTS[:2]]}, r"beside must have shape \[4, 30, 2\] like points"),
        (
            {"beside": [POINTS] * 2, "titles": ["a", "b"]},
            r"titles must be 3 strings, got \['a', 'b'\]",
        ),
        (
            {"beside": [POINTS] * 2, "beside_trails": POINTS},
            "beside_trails must be a list of 2, like beside",
        ),
        (
            {"beside": [POINTS] * 2, "beside_trails": [POINTS]},
            "beside_trails must be a list of 2, like beside",
        ),
        ({"trails": [POINTS] * 3}, "trails must be a list of 4 arrays, got 3"),
        ({"trails": [POINTS, POINTS, POINTS, POINTS[:, :2]]}, "trails must hold as many paths"),
        (
            {"trails": [POINTS, POINTS, POINTS, POINTS * np.nan]},
            r"trails\[3\] must be finite",
        ),
        ({"captions": ["a"] * 4}, "captions must be a list for each of 1 panels"),
        ({"captions": [["a"]]}, r"captions\[0\] must be 4 strings, got \['a'\]"),
    ],
)
def test_bad_further_panels_are_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ParticlePlayer(**({"points": POINTS} | arguments))


# ----------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("images", [IMAGES, IMAGES[:, :, None], torch.as_tensor(IMAGES)])
def test_images_come_with_or_without_a_channel(images: object) -> None:
    player = ImagePlayer(images, captions=list("abcde"), labels=list("wxyz"))
    assert player.arrays["images"]["shape"] == [T, 5, 8, 8]
    assert player.value_range == [0, 1]
    assert player.columns == 5
    np.testing.assert_allclose(player.array("images"), IMAGES, atol=1e-5)


def test_images_in_colour_keep_their_colours() -> None:
    images = RNG.random((T, 2, 3, 8, 8))
    player = ImagePlayer(torch.as_tensor(images), beside=1 - images)
    assert player.arrays["images"]["shape"] == [T, 2, 3, 8, 8]
    np.testing.assert_array_equal(player.array("images"), np.rint(255 * images))
    assert len(player.data) == 2 * images.size
    red = np.zeros_like(images)
    red[:, :, 0] = 1
    shares = picture(ImagePlayer(red, beside=red[:, :, ::-1]))
    assert (shares == [255, 0, 0]).all(-1).mean() > 0.3
    assert (shares == [0, 0, 255]).all(-1).mean() > 0.3
    for arguments, reason in (
        ({"beside": IMAGES[:, :2]}, r"beside must have shape \[4, 2, 3, 8, 8\] like images"),
        ({"cmap": "signed"}, "cmap must be 'grey' where images have colours, got 'signed'"),
    ):
        with pytest.raises(ValueError, match=reason):
            ImagePlayer(images, **arguments)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        ImagePlayer(2 * images)


def test_many_images_stand_in_a_square() -> None:
    assert ImagePlayer(np.zeros((2, 16, 4, 4))).columns == 4
    assert ImagePlayer(np.zeros((2, 17, 4, 4))).columns == 5
    assert ImagePlayer(np.zeros((2, 3, 4, 4)), columns=9).columns == 3


def test_signed_images_may_have_any_values() -> None:
    assert ImagePlayer(-3 * IMAGES, cmap="signed").value_range == pytest.approx(
        [-3 * IMAGES.max(), 3 * IMAGES.max()]
    )


def test_the_picture_shows_the_images() -> None:
    white = picture(ImagePlayer(np.ones((3, 4, 8, 8)))).mean()
    black = picture(ImagePlayer(np.zeros((3, 4, 8, 8)))).mean()
    assert white > 235
    assert black < 60


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"images": IMAGES[0]}, r"images must have shape \[T, B, H, W\] or .*got \[5, 8, 8\]"),
        ({"images": np.zeros((T, 5, 2, 8, 8))}, r"images must have shape .*got \[4, 5, 2, 8, 8\]"),
        ({"images": IMAGES[:0]}, "images must have shape"),
        ({"images": IMAGES * np.nan}, "images must be finite"),
        ({"images": IMAGES * 2}, r"images must lie in \[0, 1\] unless"),
        ({"images": IMAGES - 0.1}, r"images must lie in \[0, 1\] unless"),
        ({"cmap": "jet"}, "cmap must be one of cyclic, grey, signed, viridis, got 'jet'"),
        ({"columns": 0}, "columns must be an integer of at least 1, got 0"),
        ({"captions": ["a"]}, "captions must be 5 strings"),
        ({"labels": ["a"]}, "labels must be 4 strings"),
        ({"images": np.zeros((20, 10, 30, 30))}, "got 360,000 .* send fewer images"),
    ],
)
def test_bad_images_are_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ImagePlayer(**({"images": IMAGES} | arguments))


# ------------------------------------------------------------------------------- a second grid


@pytest.mark.parametrize(
    "beside", [1 - IMAGES, 1 - IMAGES[:, :, None], torch.as_tensor(1 - IMAGES)]
)
def test_a_second_grid(beside: object) -> None:
    player = ImagePlayer(IMAGES, beside=beside, titles=["x_t", "the guess"])
    assert player.arrays["beside"]["shape"] == [T, 5, 8, 8]
    assert player.titles == ["x_t", "the guess"]
    np.testing.assert_allclose(player.array("beside"), 1 - IMAGES, atol=1e-5)
    assert player.alt == "5 images change through 4 steps in two grids: x_t and the guess."
    assert ImagePlayer(IMAGES).alt == "5 images change through 4 steps."


def test_signed_grids_share_their_colours() -> None:
    player = ImagePlayer(IMAGES, beside=-3 * IMAGES, cmap="signed")
    assert player.value_range == pytest.approx([-3 * IMAGES.max(), 3 * IMAGES.max()])


def test_the_picture_shows_each_image_above_its_double() -> None:
    dark, bright = np.full((6, 3, 8, 8), 0.2), np.full((6, 3, 8, 8), 0.8)
    pixels = picture(ImagePlayer(dark, beside=bright)).mean(-1)
    middle = pixels[
        np.linspace(25, pixels.shape[0], 9)[1::2].astype(int), pixels.shape[1] // 2 + 30
    ]
    np.testing.assert_allclose(middle, [51, 204, 51, 204], atol=8)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"beside": IMAGES[:3]}, r"beside must have shape \[4, 5, 8, 8\] like images, got \[3,"),
        ({"beside": IMAGES[..., :7]}, r"beside must have shape \[4, 5, 8, 8\] like images"),
        ({"beside": IMAGES[0]}, r"beside must have shape \[T, B, H, W\]"),
        ({"beside": 2 * IMAGES}, r"beside must lie in \[0, 1\] unless"),
        ({"beside": np.nan * IMAGES}, "beside must be finite"),
        ({"titles": ["a", "b"]}, "titles must be None where there is no beside"),
        ({"beside": IMAGES, "titles": ["a"]}, "titles must be 2 strings"),
    ],
)
def test_bad_grids_are_refused(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ImagePlayer(**({"images": IMAGES} | arguments))
