"""The colours: one set in Python and JavaScript, readable in both themes and for everyone."""

import matplotlib
import numpy as np
import pytest

from course_lib import widgets


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of "#rrggbb"."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
@pytest.mark.parametrize("name", widgets.PALETTE)
def test_every_colour_stands_out_in_both_themes(name: str, page: str) -> None:
    assert contrast(widgets.PALETTE[name], page) >= 3


@pytest.mark.parametrize("theme", widgets.THEMES)
def test_text_is_readable_in_both_themes(theme: str) -> None:
    colours = widgets.THEMES[theme]
    for ground in ("plot", "fill"):  # also of a pressed button, or of one under the pointer
        for which in ("ink", "muted", "accent"):
            assert contrast(colours[which], colours[ground]) >= 4.5
    assert set(colours["words"]) == set(widgets.PALETTE)
    for words in colours["words"].values():
        assert contrast(words, colours["plot"]) >= 4.5
        assert contrast(words, "#ffffff" if theme == "light" else "#111111") >= 4.5
    assert contrast(colours["onAccent"], colours["accent"]) >= 4.5


def test_viridis_is_seen_on_a_dark_plot() -> None:
    """parts/colours.js begins the map at its seventh anchor there."""
    for colour in widgets.MAPS["viridis"][6:]:
        assert contrast(colour, widgets.THEMES["dark"]["plot"]) >= 3


def test_viridis_is_viridis() -> None:
    places = np.linspace(0, 1, 101)
    ours = widgets.colour_map("viridis")(places)
    np.testing.assert_allclose(ours, matplotlib.colormaps["viridis"](places), atol=0.03)


def test_the_signed_map_is_balanced() -> None:
    """A value and its negative are equally dark, so that neither sign looks stronger."""
    colours = widgets.MAPS["signed"]
    for low, high in zip(colours, reversed(colours), strict=True):
        # Lightness in CIE L*, of 100.
        ours, theirs = (116 * luminance(c) ** (1 / 3) - 16 for c in (low, high))
        assert abs(ours - theirs) < 1


def as_dichromats_see(colours: np.ndarray) -> list[np.ndarray]:
    """Linear RGB, seen without one of the three cones (Machado, Oliveira and Fernandes, 2009)."""
    return [
        np.clip(colours @ np.array(matrix).T, 0, 1)
        for matrix in (
            [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
            [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
            [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
        )
    ]


def test_the_cyclic_map_is_a_circle() -> None:
    """It closes, opposite angles differ for everyone, and both plots let all of it be seen."""
    colours = widgets.MAPS["cyclic"]
    assert colours[0] == colours[-1]
    assert len(set(colours)) == len(colours) - 1
    for colour in colours:
        for theme in widgets.THEMES.values():
            assert contrast(colour, theme["plot"]) >= 3
    shades = widgets.colour_map("cyclic")(np.linspace(0, 1, 64, endpoint=False))[:, :3]
    linear = np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)
    for seen in [linear, *as_dichromats_see(linear)]:
        place = np.cbrt(seen)  # nearly as far apart as they look
        assert np.linalg.norm(place - np.roll(place, 32, axis=0), axis=1).min() > 0.12


def test_an_unknown_map_is_refused() -> None:
    with pytest.raises(
        ValueError, match="name must be one of cyclic, grey, signed, viridis, got 'jet'"
    ):
        widgets.colour_map("jet")
