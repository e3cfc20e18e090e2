"""PointCloud: what the eye sees of points in space, what it accepts, and what it refuses."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from course_lib.widgets import PALETTE, PointCloud
from course_lib.widgets.point_cloud import CORNERS, DISTANCE, EDGES, named_edge, project

T, B = 4, 30
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(T, B, 3))
ANGLES = {"yaw": st.floats(-400, 400), "pitch": st.floats(-90, 90)}


# ----------------------------------------------------------------------------- what the eye sees


def unprojected(points: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """Across, up and depth without perspective, [..., 3]."""
    place, depth = project(points, yaw, pitch)
    return np.concatenate([place * (1 + depth / DISTANCE)[..., None], depth[..., None]], -1)


@pytest.mark.parametrize(
    ("yaw", "pitch", "axes"),
    [
        # Where the ends of the three axes are: across, up, away from the eye.
        (0, 0, [[1, 0, 0], [0, 0, 1], [0, 1, 0]]),
        (90, 0, [[0, 0, 1], [-1, 0, 0], [0, 1, 0]]),
        (0, 90, [[1, 0, 0], [0, 1, 0], [0, 0, -1]]),  # looking down: z points at the eye
        (180, 0, [[-1, 0, 0], [0, 0, -1], [0, 1, 0]]),
        (0, -90, [[1, 0, 0], [0, -1, 0], [0, 0, 1]]),
    ],
)
def test_the_axes_are_where_they_belong(yaw: float, pitch: float, axes: list) -> None:
    np.testing.assert_allclose(unprojected(np.eye(3), yaw, pitch), axes, atol=1e-12)


@given(**ANGLES)
def test_turning_is_a_rotation(yaw: float, pitch: float) -> None:
    """Lengths and angles stay, and left and right are not swapped."""
    seen = unprojected(np.eye(3), yaw, pitch)
    np.testing.assert_allclose(seen @ seen.T, np.eye(3), atol=1e-12)
    # Across, up and towards the eye make a right-handed frame, as x, z and -y do.
    assert np.linalg.det(seen) == pytest.approx(-1)
    np.testing.assert_allclose(unprojected(POINTS, yaw, pitch), POINTS @ seen, atol=1e-12)


@given(**ANGLES)
def test_what_is_closer_looks_larger(yaw: float, pitch: float) -> None:
    place, depth = project(POINTS, yaw, pitch)
    flat = unprojected(POINTS, yaw, pitch)[..., :2]
    grown = np.linalg.norm(place, axis=-1) / np.linalg.norm(flat, axis=-1)
    np.testing.assert_allclose(grown, DISTANCE / (DISTANCE + depth))


def test_only_points_in_space_are_projected() -> None:
    with pytest.raises(ValueError, match=r"points must have shape \[..., 3\], got \[5, 2\]"):
        project(np.zeros((5, 2)), 0, 0)


def test_the_box_has_twelve_edges_each_along_one_axis() -> None:
    assert len(EDGES) == 12
    for j, k in EDGES:
        assert np.abs(CORNERS[j] - CORNERS[k]).sum() == 2


@given(**ANGLES)
def test_an_axis_is_named_at_an_edge_along_it_where_nothing_lies_before(
    yaw: float, pitch: float
) -> None:
    corners, _ = project(CORNERS, yaw, pitch)
    for axis in range(3):
        j, k = named_edge(corners, axis)
        assert np.flatnonzero(CORNERS[j] - CORNERS[k]).tolist() == [axis]
        side = 0 if axis == 2 else 1
        middles = [corners[list(e)].mean(0)[side] for e in EDGES if e[0] ^ e[1] == 1 << axis]
        assert len(middles) == 4
        assert corners[[j, k]].mean(0)[side] == pytest.approx(min(middles))


# -------------------------------------------------------------------------------------- arguments


def test_a_cloud_with_everything() -> None:
    cloud = PointCloud(
        torch.as_tensor(POINTS),
        color=RNG.normal(size=(T, B)),
        color_label="height",
        color_map="signed",
        labels=list("abcd"),
        extent=(-3, 3, -2, 2, 0, 1),
        alt="All of it.",
    )
    assert {name: part["shape"] for name, part in cloud.arrays.items()} == {
        "points": [T, B, 3],
        "color": [T, B],
    }
    assert (cloud.n_steps, cloud.extent) == (T, [-3, 3, -2, 2, 0, 1])
    low, high = cloud.color_range
    assert low == -high
    np.testing.assert_allclose(cloud.state_at("points", 2.25), 0.75 * POINTS[2] + 0.25 * POINTS[3],
                               atol=1e-3)  # fmt: skip
    assert cloud.alt == "All of it."
    assert len(PointCloud(POINTS).data) == 2 * T * B * 3


def test_one_colour_per_point_stands_for_every_step() -> None:
    cloud = PointCloud(POINTS, color=np.arange(B))
    assert cloud.arrays["color"]["shape"] == [1, B]
    assert cloud.color_range == [0, B - 1]
    np.testing.assert_allclose(cloud.state_at("color", 2.5), np.arange(B), atol=1e-3)


@pytest.mark.parametrize("shift", [0.0, 40.0])
def test_the_box_is_a_cube_around_the_points(shift: float) -> None:
    low, high = np.reshape(PointCloud(POINTS * [1, 2, 0.5] + shift).extent, (3, 2)).T
    np.testing.assert_allclose(high - low, (high - low)[0])
    inside = (low <= POINTS * [1, 2, 0.5] + shift) & (POINTS * [1, 2, 0.5] + shift <= high)
    assert inside.mean() > 0.98
    if not shift:  # the middle is nearly the origin, so it is the origin
        np.testing.assert_allclose(low, -high, atol=1e-6)
    lonely = PointCloud(np.ones((1, 1, 3))).extent
    assert lonely[0] < 1 < lonely[1]


def test_a_view_is_set_and_refused() -> None:
    cloud = PointCloud(POINTS)
    cloud.yaw, cloud.pitch, cloud.zoom = -170.0, 90.0, 8.0
    assert (cloud.yaw, cloud.pitch, cloud.zoom) == (-170, 90, 8)
    for name, value, reason in [
        ("pitch", 90.5, r"pitch must be an angle in \[-90, 90\], got 90.5"),
        ("pitch", -91.0, r"pitch must be an angle in \[-90, 90\]"),
        ("pitch", float("nan"), r"pitch must be an angle in \[-90, 90\]"),
        ("yaw", float("inf"), "yaw must be a finite angle, got inf"),
        ("zoom", 0.4, r"zoom must lie in \[0.5, 8.0\], got 0.4"),
        ("zoom", 9.0, "zoom must lie in"),
        ("zoom", 0.0, "zoom must be a finite number above 0"),
    ]:
        before = getattr(cloud, name)
        with pytest.raises(ValueError, match=reason):
            setattr(cloud, name, value)
        assert getattr(cloud, name) == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"points": POINTS[0]}, r"points must have shape \[T, B, 3\], got \[30, 3\]"),
        ({"points": POINTS[..., :2]}, r"points must have shape \[T, B, 3\], got \[4, 30, 2\]"),
        ({"points": POINTS[:0]}, r"points must have shape \[T, B, 3\], got \[0, 30, 3\]"),
        ({"points": POINTS * np.nan}, "points must be finite"),
        ({"color": np.zeros(B + 1)}, r"color must have shape \[30\] or \[4, 30\], got \[31\]"),
        ({"color": np.zeros((T, B, 1))}, "color must have shape"),
        ({"color": np.full(B, np.inf)}, "color must be finite"),
        ({"color_map": "jet"}, "color_map must be one of cyclic, signed, viridis, got 'jet'"),
        ({"color_label": 3}, "color_label must be a string, got 3"),
        ({"role": "mine"}, "role must be one of data"),
        ({"labels": ["a"]}, r"labels must be 4 strings, got \['a'\]"),
        ({"extent": (-1, 1, -1, 1)}, r"extent must be \(x0, x1, y0, y1, z0, z1\) with x0 < x1"),
        ({"extent": (-1, 1, -1, 1, 1, 1)}, "extent must be"),
        ({"extent": (-1, 1, -1, 1, 0, np.inf)}, "extent must be"),
        ({"extent": "wide"}, "extent must be .* got 'wide'"),
        ({"points": np.zeros((26, 2000, 3))}, "got 312,000 .* send fewer points or steps"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        PointCloud(**{"points": POINTS} | arguments)


# --------------------------------------------------------------------------------------- the still


def picture(cloud: PointCloud) -> np.ndarray:
    content = cloud.still()
    assert len(content) < 60_000
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


@pytest.mark.parametrize("role", PALETTE)
def test_the_picture_has_the_colour_of_the_role(role: str) -> None:
    pixels = picture(PointCloud(RNG.uniform(-1, 1, size=(T, 800, 3)), role=role))
    wanted = np.array([int(PALETTE[role][k : k + 2], 16) for k in (1, 3, 5)])
    assert (np.abs(pixels - wanted).max(-1) < 30).mean() > 0.005


def test_the_picture_shows_the_steps_from_where_the_eye_is() -> None:
    """A blob that moves from left to right in the first, the middle and the last step."""
    blob = 0.1 * RNG.normal(size=(3, 300, 3)) + np.array([-0.6, 0, 0.6])[:, None, None] * [1, 0, 0]
    cloud = PointCloud(blob, role="model", extent=(-1, 1) * 3)
    cloud.pitch = 0.0

    def places() -> np.ndarray:
        pixels = picture(cloud)
        third = pixels.shape[1] // 3
        orange = pixels[..., 0] - pixels[..., 2] > 60
        parts = [orange[:, third * k : third * (k + 1)] for k in range(3)]
        return np.array([np.argwhere(part).mean(0)[1] - third / 2 for part in parts]) / third

    cloud.yaw = 0.0
    ahead = places()
    assert ahead[0] < -0.1
    assert abs(ahead[1]) < 0.03
    assert ahead[2] > 0.1
    cloud.yaw = 180.0
    # The outer panels' middles lie 1.5 % off the middles of the picture's thirds.
    np.testing.assert_allclose(places(), -ahead, atol=0.04)


def test_the_picture_with_colours_has_a_bar() -> None:
    plain = picture(PointCloud(POINTS))
    coloured = picture(PointCloud(POINTS, color=np.arange(B), color_label="number"))
    assert coloured.shape[1] > plain.shape[1]
