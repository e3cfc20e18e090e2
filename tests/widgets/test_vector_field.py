"""VectorField: where its flow leads a particle, what it stores, and what it refuses."""

import io

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image
from scipy.integrate import solve_ivp
from scipy.interpolate import RegularGridInterpolator

from course_lib.widgets import PALETTE, VectorField

RNG = np.random.default_rng(0)
EXTENT = (-3.0, 3.0, -2.0, 2.0)


def nodes(rows: int = 7, columns: int = 9) -> np.ndarray:
    """The places of a grid that covers EXTENT, [rows, columns, 2]."""
    x0, x1, y0, y1 = EXTENT
    return np.stack(np.meshgrid(np.linspace(x0, x1, columns), np.linspace(y0, y1, rows)), -1)


def arguments() -> dict:
    """A call that is right: five times, 7 x 9 nodes."""
    return {
        "field": RNG.normal(size=(5, 7, 9, 2)),
        "extent": EXTENT,
        "flow": RNG.normal(size=(5, 7, 9, 2)),
        "points": RNG.normal(size=(5, 40, 2)),
        "labels": list("abcde"),
    }


# ------------------------------------------------------------------------------------- integration


@pytest.mark.parametrize("start", [0, 1, 2.3, 3.99, 4])
def test_a_linear_flow_is_followed_exactly(start: float) -> None:
    """dx/ds = (0.4 + 0.3 s) A x, a spiral that speeds up, has a solution in closed form.

    A is a product with -0.1 + 0.5i in the plane of complex numbers. Bilinear interpolation knows
    this flow exactly, and so does a linear one in time.
    """
    turn = np.array([[-0.1, -0.5], [0.5, -0.1]])
    flow = np.stack([(0.4 + 0.3 * k) * nodes() @ turn.T for k in range(5)])
    widget = VectorField(flow, extent=EXTENT, flow=flow)
    x, y = 0.8, -0.7
    widget.dropped = [[x, y, start]]
    moments = np.arange(33) / 8
    passed = 0.4 * (moments - start) + 0.15 * (moments**2 - start**2)
    wanted = (x + 1j * y) * np.exp((-0.1 + 0.5j) * passed)
    assert np.abs(wanted).max() < 2  # it stays on the grid
    np.testing.assert_allclose(widget.paths[0] @ [1, 1j], wanted, atol=2e-4)


def test_any_flow_is_followed_as_a_library_does() -> None:
    """SciPy's trilinear interpolation and its adaptive solver, on a random flow."""
    given = arguments()
    widget = VectorField(**given)
    widget.dropped = [[0.3, -1.1, 0], [-1.7, 0.6, 1.4], [2.8, 1.9, 4]]
    axes = (np.arange(5), np.linspace(-2, 2, 7), np.linspace(-3, 3, 9))
    inside = RegularGridInterpolator(axes, widget.array("flow"))

    def velocity(s: float, at: np.ndarray) -> np.ndarray:
        return inside([s, np.clip(at[1], -2, 2), np.clip(at[0], -3, 3)])[0]

    for (x, y, start), path in zip(widget.dropped, widget.paths, strict=True):
        for end, moments in ((4, np.arange(33) / 8), (0, np.arange(33)[::-1] / 8)):
            ahead = moments[(moments - start) * (end - start) > 0]
            if not len(ahead):
                continue
            options = {"rtol": 1e-8, "atol": 1e-8, "max_step": 0.02}
            found = solve_ivp(velocity, (start, end), [x, y], t_eval=ahead, **options).y.T
            np.testing.assert_allclose(path[(8 * ahead).astype(int)], found, atol=5e-3)
    assert np.abs(widget.paths).max() > 3  # one of them leaves the grid


def test_without_particles_there_are_no_paths() -> None:
    assert VectorField(**arguments()).paths.shape == (0, 33, 2)


# --------------------------------------------------------------------------------- what it stores


def test_arrays_arrive_as_they_were_given() -> None:
    given = arguments()
    widget = VectorField(**given)
    for name in ("field", "flow", "points"):
        np.testing.assert_allclose(widget.array(name), given[name], atol=1e-4)
    assert (widget.n_steps, widget.labels, widget.extent) == (5, list("abcde"), list(EXTENT))
    assert (widget.step, widget.playing, widget.dropped, widget.scale) == (0, False, [], "all")


def test_tensors_are_welcome() -> None:
    given = arguments()
    tensors = {name: torch.tensor(given[name]) for name in ("field", "flow", "points")}
    assert VectorField(**given | tensors).data == VectorField(**given).data


def test_one_wild_arrow_does_not_make_all_others_dots() -> None:
    field = np.ones((4, 20, 20, 2)) * np.array([0.6, 0.8]) * np.arange(1, 5).reshape(4, 1, 1, 1)
    field[:, 3, 7] = 500
    widget = VectorField(field, extent=EXTENT)
    np.testing.assert_allclose(widget.tops, [1, 2, 3, 4], rtol=1e-6)
    assert widget.top == pytest.approx(4)
    still = VectorField(0 * field, extent=EXTENT)
    assert (still.top, still.tops) == (1, [1] * 4)


def test_a_chapters_worth_of_arrows_fits() -> None:
    big = RNG.normal(size=(20, 20, 20, 2))
    points = RNG.normal(size=(20, 500, 2))
    assert len(VectorField(big, extent=EXTENT, flow=big, points=points).data) == 104_000


# ------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("dropped", [[0, 0]], r"\[x, y, step\] with step in \[0, 4\], got \[0(.0)?, 0(.0)?\]"),
        ("dropped", [[0, 0, 0], [0, 0, 4.1]], r"step in \[0, 4\], got \[0.*, 4.1\]"),
        ("dropped", [[0, 0, -0.1]], r"step in \[0, 4\]"),
        ("dropped", [[np.nan, 0, 1]], "dropped must hold finite"),
        ("dropped", [[0.0, 0.0, 0.0]] * 41, "dropped must hold at most 40 particles, got 41"),
        ("scale", "log", "scale must be one of all, direction, each"),
        ("step", 4.5, r"step must lie in \[0, 4\]"),
    ],
)
def test_a_state_that_does_not_exist_is_refused(name: str, value: object, reason: str) -> None:
    widget = VectorField(**arguments())
    before = getattr(widget, name)
    with pytest.raises(ValueError, match=reason):
        setattr(widget, name, value)
    assert getattr(widget, name) == before
    with pytest.raises(traitlets.TraitError):
        widget.dropped = [["here", 0, 0]]


def test_without_a_flow_nothing_can_be_dropped() -> None:
    widget = VectorField(np.ones((2, 3, 3, 2)), extent=EXTENT)
    with pytest.raises(ValueError, match="dropped must be empty where no flow was given"):
        widget.dropped = [[0, 0, 0]]
    assert widget.paths.shape == (0, 9, 2)


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"field": np.ones((5, 7, 9))}, r"field must have shape \[T, R, C, 2\]"),
        ({"field": np.ones((5, 7, 9, 3))}, r"field must have shape .*, got \[5, 7, 9, 3\]"),
        ({"field": np.ones((5, 1, 9, 2))}, r"R and C of at least 2, got \[5, 1, 9, 2\]"),
        ({"field": np.full((5, 7, 9, 2), np.inf)}, "field must be finite"),
        ({"flow": np.ones((5, 9, 7, 2))}, r"flow must have shape \[5, 7, 9, 2\], that of field"),
        ({"flow": np.ones((4, 7, 9, 2))}, r"flow must have shape .*, got \[4, 7, 9, 2\]"),
        (
            {
                name: np.ones((1, 7, 9, 2)) for name in ("field", "flow")
            } | {"points": None, "labels": None},
            "flow must have at least 2 times to flow between, got 1",
        ),
        ({"points": np.ones((4, 40, 2))}, r"points must have shape \[5, N, 2\], got \[4, 40, 2\]"),
        ({"points": np.ones((5, 40, 3))}, r"points must have shape \[5, N, 2\], got \[5, 40, 3\]"),
        ({"points": np.ones((5, 20_000, 2))}, "at most 300,000 bytes.*fewer times or points"),
        ({"extent": (3, -3, -2, 2)}, r"extent must be \(x0, x1, y0, y1\)"),
        ({"labels": ["a"]}, "labels must be 5 strings"),
        ({"field_label": None}, "field_label must be a string, got None"),
        ({"title": 3}, "title must be a string"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        VectorField(**arguments() | change)


# --------------------------------------------------------------------------------------- the still


def picture(widget: VectorField) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(widget.still())).convert("RGB")).astype(int)


def near(pixels: np.ndarray, colour: str) -> np.ndarray:
    """Where a picture has this colour, [H, W]."""
    wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return np.abs(pixels - wanted).max(-1) < 40


def test_the_still_picture_shows_particles_where_they_are_carried() -> None:
    """To the right, by one at each step: in the three panels the same particle is further right."""
    steady = np.zeros((5, 7, 9, 2)) + np.array([1.0, 0.0])
    widget = VectorField(0.01 * steady, extent=EXTENT, flow=steady)
    assert not near(picture(widget), PALETTE["model"]).any()
    widget.dropped = [[-2, 0, 0]]
    orange = near(picture(widget), PALETTE["model"])
    thick = np.where(orange.sum(0) >= 4)[0]  # columns of the dot, not only of its path
    groups = np.split(thick, np.where(np.diff(thick) > 20)[0] + 1)
    assert len(groups) == 3
    line = np.where(orange.any(0))[0]
    lines = np.split(line, np.where(np.diff(line) > 20)[0] + 1)
    share = [(g.mean() - p.min()) / (p.max() - p.min()) for g, p in zip(groups, lines, strict=True)]
    np.testing.assert_allclose(share, [0.03, 0.5, 0.97], atol=0.05)


def test_the_still_picture_knows_the_scales() -> None:
    given = arguments()
    widget = VectorField(**given)
    pictures = {}
    for scale in ("all", "each", "direction"):
        widget.scale = scale
        pictures[scale] = widget.still()
        assert 3_000 < len(pictures[scale]) < 100_000
    assert len(set(pictures.values())) == 3


def test_the_stored_form_holds_its_state() -> None:
    widget = VectorField(**arguments(), title="Field </script>")
    widget.dropped, widget.scale, widget.step = [[0.5, -1.0, 2.0]], "each", 3.0
    stored = widget.static_html()
    for text in (
        "[[0.5, -1.0, 2.0]]",
        "&quot;scale&quot;: &quot;each&quot;",
        "&quot;step&quot;: 3",
    ):
        assert text in stored
    assert widget.static_html() == stored
    assert repr(widget) == "VectorField('Field </script>')"
