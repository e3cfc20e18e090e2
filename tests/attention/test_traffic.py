"""What is moved: a run on a memory that counts, against the formula, and what papers say of it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.attention import (
    FastMemory,
    Traffic,
    count_traffic,
    counted_attention,
    naive_attention,
    tile_sizes,
)
from course_lib.attention import traffic as module

ALGORITHMS = ("naive", "flash", "flash2")
each = pytest.mark.parametrize("algorithm", ALGORITHMS)
each_tiled = pytest.mark.parametrize("algorithm", ALGORITHMS[1:])


def draw(n, d):
    return torch.randn(3, n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


@each
@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 30), d=st.integers(1, 9), room=st.floats(1, 12))
def test_a_run_counts_what_the_formula_says(algorithm, n, d, room):
    q, k, v = draw(n, d)
    sram = int(room * (5 * d + 4))
    o, moved = counted_attention(q, k, v, sram, algorithm=algorithm)
    torch.testing.assert_close(o, naive_attention(q, k, v), rtol=1e-12, atol=1e-12)
    assert moved == count_traffic(n, d, sram, algorithm=algorithm)
    assert moved.total == moved.loads + moved.stores


@each_tiled
@pytest.mark.parametrize("d", [1, 2, 5, 16])
@pytest.mark.parametrize("rooms", [1, 2, 3, 16, 40])
@pytest.mark.parametrize("spare", [0, 3])
def test_tiles_fit_and_larger_ones_would_not(algorithm, d, rooms, spare, monkeypatch):
    """The memory is never overfilled, and filled where the smaller size is the larger one, too."""
    sram = rooms * (5 * d + 4) + spare
    q, k, v = draw(2 * rooms + 3, d)
    memories = []

    class Watched(FastMemory):
        def __init__(self, sram):
            super().__init__(sram)
            memories.append(self)

    monkeypatch.setattr(module, "FastMemory", Watched)
    counted_attention(q, k, v, sram, algorithm=algorithm)
    rows, columns = tile_sizes(d, sram, algorithm=algorithm)
    kept, passed = (columns, rows) if algorithm == "flash" else (rows, columns)
    assert (kept, passed) == (rooms, min(rooms, d))
    assert memories[0].sram == sram
    assert memories[0].held == 0
    assert memories[0].peak == 2 * rows * d + 2 * columns * d + rows * columns + 4 * rows <= sram


@each_tiled
def test_a_memory_that_is_too_small_refuses(algorithm):
    q, k, v = draw(20, 4)
    tiled = {"flash": module.counted_flash, "flash2": module.counted_flash2}[algorithm]
    memory = FastMemory(2 * 4 * (5 + 6) + 5 * 6 + 4 * 5)
    tiled(q, k, v, memory, 5, 6)  # fits to the number
    assert memory.peak == memory.sram
    with pytest.raises(ValueError, match="sram must have room for 138 numbers, got 137"):
        tiled(q, k, v, FastMemory(137), 5, 6)


def test_formulas_by_hand():
    """N = 10, d = 2, M = 60: 4 keys (or queries) stay, 2 are passed by; three passes."""
    assert count_traffic(10, 2, 60, algorithm="naive") == Traffic(
        loads=(20 + 20) + 100 + (100 + 20), stores=100 + 100 + 20
    )
    assert count_traffic(10, 2, 60, algorithm="flash") == Traffic(
        loads=20 + 20 + 3 * (20 + 20 + 10 + 10), stores=20 + 10 + 10 + 3 * (20 + 10 + 10)
    )
    assert count_traffic(10, 2, 60, algorithm="flash2") == Traffic(
        loads=20 + 3 * (20 + 20), stores=20 + 10
    )
    assert tile_sizes(2, 60, algorithm="flash") == (2, 4)
    assert tile_sizes(2, 60, algorithm="flash2") == (4, 2)


def test_orders_of_growth_are_the_papers():
    """Θ(N² d² / M) for tiles, whatever of the three is doubled; naive does not heed M."""
    at = {"n": 2**16, "d": 64, "sram": 2**17}
    for name, change, factor in [("n", 2, 4), ("d", 2, 4), ("sram", 2, 1 / 2)]:
        for algorithm in ("flash", "flash2"):
            once, twice = (
                count_traffic(**{**at, name: at[name] * c}, algorithm=algorithm).total
                for c in (1, change)
            )
            assert twice / once == pytest.approx(factor, rel=0.05)
    naive = [count_traffic(4096, 64, m, algorithm="naive").total for m in (324, 50_000)]
    assert naive == [4 * 4096**2 + 4 * 4096 * 64] * 2


def test_the_memory_counts():
    memory, x = FastMemory(10), torch.arange(6.0)
    assert (memory.held, memory.peak, memory.traffic) == (0, 0, (0, 0))
    with memory.scope():
        copy = memory.load(x)
        with memory.scope():
            memory.hold(torch.zeros(4))
            assert (memory.held, memory.peak) == (10, 10)
        assert (memory.held, memory.peak) == (6, 10)
        with pytest.raises(ValueError, match="sram must have room for 11 numbers, got 10"):
            memory.load(x[:5])
        memory.store(x, copy + 1)
    assert copy.tolist() == [0, 1, 2, 3, 4, 5]
    assert x.tolist() == [1, 2, 3, 4, 5, 6]
    assert (memory.held, memory.traffic.stores) == (0, 6)
    endless = FastMemory(math.inf)
    endless.load(torch.zeros(1000))
    assert endless.traffic == (1000, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: count_traffic(0, 1, 9, algorithm="flash"), "n must be an integer of at least 1"),
        (lambda: count_traffic(1, 0, 9, algorithm="flash"), "d must be an integer of at least 1"),
        (
            lambda: count_traffic(1, 1, 8, algorithm="naive"),
            "sram must be an integer of at least 9",
        ),
        (
            lambda: count_traffic(1, 1, 9, algorithm="flash3"),
            "algorithm must be one of flash, flash2, naive, got",
        ),
        (lambda: tile_sizes(2, 13, algorithm="flash2"), "sram must be an integer of at least 14"),
        (lambda: tile_sizes(0, 13, algorithm="flash"), "d must be an integer of at least 1, got 0"),
        (lambda: tile_sizes(2, 99, algorithm="naive"), "algorithm must be one of flash, flash2, "),
        (lambda: FastMemory("9"), "sram must be an integer of at least 1, got '9'"),
        (lambda: FastMemory(0), "sram must be an integer of at least 1, got 0"),
        (lambda: FastMemory(1).load(None), "x must be a tensor of any shape but an empty one, got"),
        (
            lambda: FastMemory(1).hold([1.0]),
            "x must be a tensor of any shape but an empty one, got",
        ),
        (lambda: FastMemory(1).store(None, torch.zeros(2)), "where must be a tensor"),
        (
            lambda: FastMemory(1).store(torch.zeros(3), torch.zeros(2)),
            r"x must have shape \[3\], g",
        ),
        (lambda: FastMemory(1).load(torch.zeros(2)), "sram must have room for 2 numbers, got 1"),
    ],
)
def test_bad_sizes_are_named(call, message):
    with pytest.raises(ValueError, match="^" + message):
        call()


def test_bad_arrays_are_named():
    x = torch.zeros(3, 2)
    for q, k, v, options, message in [
        (x[0], x, x, {}, r"q must have shape \[B, any\], got \[2\]"),
        (x, x[:2], x, {}, r"k must have shape \[3, 2\], got \[2, 2\]"),
        (x, x, x[:, :1], {}, r"v must have shape \[3, 2\], got \[3, 1\]"),
        (x + math.nan, x, x, {}, "q must be finite"),
        (x, x.double(), x, {}, "k must be torch.float32 like q, got torch.float64"),
        (x, x, x, {"sram": 13}, "sram must be an integer of at least 14, got 13"),
        (x, x, x, {"sram": 13, "algorithm": "naive"}, "sram must be an integer of at least 14"),
        (x, x, x, {"algorithm": "fast"}, "algorithm must be one of flash, flash2, naive, got"),
    ]:
        options = {"sram": 14, "algorithm": "flash", **options}
        with pytest.raises(ValueError, match="^" + message):
            counted_attention(q, k, v, **options)
