"""Roofline: its costs by hand and by the course's counted attention; what it refuses."""

import io

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from course_lib.attention import count_traffic, naive_attention, tile_sizes
from course_lib.widgets import Roofline, attainable_speed, attention_costs, least_seconds
from course_lib.widgets.roofline import HARDWARE, STEPS


@pytest.mark.parametrize(("n", "d", "sram"), [(96, 16, 4000), (1000, 64, 24_576), (64, 8, 60_000)])
def test_the_bytes_are_those_of_counted_attention(n: int, d: int, sram: int) -> None:
    rows = tile_sizes(d, sram, algorithm="flash2")[0]
    costs = attention_costs(n, d, rows=rows, number_bytes=4)
    for name, algorithm in (("three steps", "naive"), ("FlashAttention", "flash2")):
        assert costs[name].bytes == 4 * count_traffic(n, d, sram, algorithm=algorithm).total
    for part in ("flops", "bytes"):
        total = sum(getattr(costs[name], part) for name in STEPS)
        assert getattr(costs["three steps"], part) == total
    assert costs["FlashAttention"].flops == costs["three steps"].flops


def test_the_products_are_those_that_pytorch_counts() -> None:
    q, k, v = torch.zeros(3, 40, 8).unbind()
    with FlopCounterMode(display=False) as counter:
        naive_attention(q, k, v)
    costs = attention_costs(40, 8)
    assert counter.get_total_flops() == costs["S = q kᵀ"].flops + costs["P v"].flops
    assert costs["softmax"].flops == 5 * 40 * 40
    assert costs["softmax"].intensity == pytest.approx(5 / 4)  # two numbers of two bytes each


def test_a_step_waits_for_the_memory_left_of_the_ridge() -> None:
    peak, bandwidth = 100.0, 10.0
    assert [attainable_speed(x, peak, bandwidth) for x in (0.5, 10, 40)] == [5, 100, 100]
    for cost in attention_costs(64, 8).values():
        speed = cost.flops / least_seconds(cost, peak, bandwidth)
        assert speed == pytest.approx(attainable_speed(cost.intensity, peak, bandwidth))


def test_the_widget_adds_the_three_steps() -> None:
    for hardware, (peak, bandwidth, number_bytes) in HARDWARE.items():
        roof = Roofline(2048, 128, rows=64, hardware=hardware)
        assert roof.costs == attention_costs(2048, 128, rows=64, number_bytes=number_bytes)
        seconds = roof.seconds
        assert seconds["three steps"] == pytest.approx(sum(seconds[name] for name in STEPS))
        for name in (*STEPS, "FlashAttention"):
            assert seconds[name] == least_seconds(roof.costs[name], peak, bandwidth)
        assert seconds["FlashAttention"] < seconds["three steps"]


def test_speeds_and_hardware_go_together() -> None:
    roof = Roofline(title="Roof")
    roof.hardware = "H100"
    assert (roof.peak, roof.bandwidth, roof.hardware) == (989.4e12, 3.35e12, "H100")
    roof.peak = 5e14
    assert (roof.hardware, roof.bandwidth) == ("", 3.35e12)
    roof.hardware = "CPU core"
    assert (roof.peak, roof.number_bytes, repr(roof)) == (90e9, 4, "Roofline('Roof')")
    assert Roofline(hardware="A100", peak=1e14).hardware == ""
    own = Roofline(hardware=None, peak=1e13, bandwidth=1e12, number_bytes=4)
    assert (own.hardware, own.peak, own.bandwidth, own.number_bytes) == ("", 1e13, 1e12, 4)
    with pytest.raises(ValueError, match=r"peak must lie in \[1e\+10, 2.5e\+15\], got 1"):
        own.peak = 1.0
    with pytest.raises(ValueError, match="hardware must be one of"):
        own.hardware = "abacus"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n": 0}, "n must be"),
        ({"n": 100_000}, "n must be"),
        ({"d": 2.5}, "d must be"),
        ({"rows": 2000}, "rows must be"),
        ({"hardware": "abacus"}, "hardware must be one of A100, CPU core, H100"),
        ({"hardware": None}, "peak and bandwidth must be given"),
        ({"peak": float("nan")}, "peak must be a finite number"),
        ({"bandwidth": 1e20}, "bandwidth must lie"),
        ({"number_bytes": 9}, "number_bytes must be"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Roofline(**change)


def test_the_still_picture_shows_roof_and_times() -> None:
    content = Roofline().still()
    assert len(content) < 40_000
    assert Image.open(io.BytesIO(content)).size[0] == 720
