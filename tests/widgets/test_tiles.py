"""Tiles: its counters are those of the course's counted attention; what it refuses."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from course_lib.attention import count_traffic, tile_sizes, tiles
from course_lib.widgets import Tiles

ALGORITHMS = ("flash", "flash2")


@st.composite
def settings(draw: st.DrawFn) -> tuple[int, int, int]:
    """Tokens, head size, and a fast memory with room for a tile at least."""
    n, d = draw(st.integers(1, 90)), draw(st.integers(1, 24))
    return n, d, draw(st.integers(5 * d + 4, 40 * (5 * d + 4)))


def counted_by_hand(
    n: int, sizes: tuple[int, int], d: int, algorithm: str, causal: bool
) -> list[tuple[int, int]]:
    """(loads, stores) after each tile of the course's own list of them."""
    met = list(tiles(n, n, sizes, causal))
    if algorithm == "flash":
        met.sort(key=lambda tile: (tile[1].start, tile[0].start))
    outer = [(columns if algorithm == "flash" else rows).start for rows, columns, _ in met]
    loads, stores = 0, n * (d + 2) if algorithm == "flash" else 0
    found = [(0, 0)]
    for k, (rows, columns, _) in enumerate(met):
        high, wide = rows.stop - rows.start, columns.stop - columns.start
        first, last = outer[k - 1 : k] != outer[k : k + 1], outer[k + 1 : k + 2] != outer[k : k + 1]
        if algorithm == "flash":
            loads += 2 * d * wide * first + (2 * d + 2) * high
            stores += (d + 2) * high
        else:
            loads += d * high * first + 2 * d * wide
            stores += (d + 1) * high * last
        found.append((loads, stores))
    return found


@given(settings())
def test_the_counters_are_those_of_counted_attention(given: tuple[int, int, int]) -> None:
    n, d, sram = given
    for algorithm in ALGORITHMS:
        widget = Tiles(n, d, sram, algorithm=algorithm)
        assert widget.sizes == tile_sizes(d, sram, algorithm=algorithm)
        for which in ("naive", *ALGORITHMS):
            assert widget.moved(which) == count_traffic(n, d, sram, algorithm=which)
        assert widget.moved(algorithm).total == sum(widget.moved(algorithm))


@given(settings(), st.sampled_from(ALGORITHMS), st.booleans())
def test_each_tile_adds_what_it_moves(
    given: tuple[int, int, int], algorithm: str, causal: bool
) -> None:
    n, d, sram = given
    widget = Tiles(n, d, sram, algorithm=algorithm, causal=causal)
    found = counted_by_hand(n, widget.sizes, d, algorithm, causal)
    assert widget.n_steps == len(found)
    for step in {0, 1, len(found) // 2, len(found) - 1}:
        widget.step = float(step)
        assert widget.moved_so_far == found[step]
    assert widget.moved(algorithm) == found[-1]


def test_the_steps_follow_the_sizes() -> None:
    widget = Tiles(512, 64, 24_576, title="Tiles")
    assert (widget.sizes, widget.n_steps, repr(widget)) == ((75, 64), 57, "Tiles('Tiles')")
    widget.step = 28.0
    widget.n = 1024
    assert (widget.n_steps, widget.step) == (14 * 16 + 1, 112)  # the same share of them
    widget.causal = True
    assert widget.n_steps == len(list(tiles(1024, 1024, (75, 64), True))) + 1
    widget.algorithm, widget.n = "flash", 64
    assert (widget.n_steps, widget.step, widget.rate) == (2, 1, 1)
    widget.step = 0.5  # a tile that has begun counts
    assert widget.moved_so_far == widget.moved("flash")
    for name, value in (("n", 0), ("d", 200), ("sram", 100)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            setattr(widget, name, value)
    with pytest.raises(ValueError, match="algorithm must be one of flash, flash2"):
        widget.algorithm = "naive"
    assert (widget.n, widget.d, widget.sram, widget.algorithm) == (64, 64, 24_576, "flash")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n": 0}, "n must be"),
        ({"n": 10_000}, "n must be"),
        ({"d": 129}, "d must be"),
        ({"d": 64, "sram": 323}, "sram must be"),
        ({"sram": 2.5}, "sram must be"),
        ({"algorithm": "naive"}, "algorithm must be one of flash, flash2"),
        ({"causal": 1}, "causal must be True or False"),
        ({"step": 57}, r"step must lie in \[0, 56\]"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Tiles(**change)


@pytest.mark.parametrize(("n", "sram"), [(8, 60), (512, 24_576), (8192, 1024)])
def test_the_still_picture_shows_tiles_and_bars(n: int, sram: int) -> None:
    content = Tiles(n, 8, sram, causal=True).still()
    assert len(content) < 60_000
    assert Image.open(io.BytesIO(content)).size[0] == 720
