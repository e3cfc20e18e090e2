"""RunningMaximum: what it keeps is what the course's parts of attention keep; what it refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.attention import attend_part, finish, online_softmax
from course_lib.widgets import RunningMaximum

LOGITS = [0.5, 1.2, -0.4, 2.6, 1.9, 3.4]
VALUES = [-1, 0.4, 2, 1.1, -0.3, 1.6]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_is_a_part_of_the_numbers_so_far(seed: int) -> None:
    draws = np.random.default_rng(seed)
    logits, values = 20 * draws.normal(size=9), draws.normal(size=9)
    widget = RunningMaximum(logits, values=values)
    s, v = torch.tensor(logits)[None], torch.tensor(values)[:, None]
    np.testing.assert_array_equal(widget.running[0], [-np.inf, 0, 0])
    for k in range(1, 10):
        part = attend_part(s[:, :k], v[:k])
        np.testing.assert_allclose(widget.running[k], torch.cat(part, -1)[0], atol=1e-12)
        widget.step = float(k)
        total = widget.running[k, 1]
        np.testing.assert_allclose(widget.terms / total, online_softmax(s[0, :k]), atol=1e-12)
    m, total, output = widget.running[-1]
    found, lse = finish(part)
    assert output / total == pytest.approx(found.item(), abs=1e-12)
    assert m + np.log(total) == pytest.approx(lse.item(), abs=1e-12)


def test_a_new_maximum_costs_one_factor_or_all_terms() -> None:
    widget = RunningMaximum(LOGITS)
    expected = [(0, 0), (0, 0), (1, 1), (1, 1), (2, 4), (2, 4), (3, 9)]
    for step, costs in enumerate(expected):
        widget.step = float(step)
        assert widget.redone == costs
    widget.step = 4.25  # the fifth is coming
    assert len(widget.terms) == 5


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shift", [-100.0, -9.3, 0.0, 7.1, 84.0, 90.0])
def test_the_sum_without_a_maximum_leaves_its_format(dtype: str, shift: float) -> None:
    widget = RunningMaximum(LOGITS, shift=shift, step=6)
    total = torch.zeros((), dtype=getattr(torch, dtype))
    for s in torch.tensor(LOGITS, dtype=torch.float64) + shift:
        total += torch.exp(s).to(total.dtype)
    assert widget.naive_sum(dtype) == total.item()


def test_python_reads_and_sets() -> None:
    widget = RunningMaximum(torch.tensor(LOGITS), title="Numbers")
    assert widget.values == []
    widget.logits = LOGITS[::-1]
    assert widget.running[1, 0] == 3.4
    widget.values, widget.shift, widget.step = VALUES, -3.5, 2.5
    assert (widget.n_steps, widget.step, repr(widget)) == (7, 2.5, "RunningMaximum('Numbers')")
    with pytest.raises(ValueError, match="logits must be 6 numbers, one a step, got 2"):
        widget.logits = [1.0, 2.0]
    with pytest.raises(ValueError, match=r"logits\[1\] must be a finite number"):
        widget.logits = [1.0, float("nan"), 0.0, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match=r"shift must lie in \[-100, 100\], got 101"):
        widget.shift = 101.0
    with pytest.raises(ValueError, match="dtype must be one of float16, float32"):
        widget.naive_sum("float64")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"logits": [1.0]}, "logits must be 2 to 12 numbers, got 1"),
        ({"logits": np.zeros(13)}, "logits must be 2 to 12 numbers, got 13"),
        ({"logits": [0.0, float("inf")]}, "logits must be finite"),
        ({"logits": np.zeros((2, 2))}, r"logits must have shape \[N\]"),
        ({"values": [1.0]}, "values must be 6 numbers"),
        ({"shift": -200.0}, "shift must lie"),
        ({"step": 7}, r"step must lie in \[0, 6\]"),
        ({"title": 1}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RunningMaximum(**({"logits": LOGITS} | change))


def test_the_still_picture_shows_numbers_and_terms() -> None:
    content = RunningMaximum(LOGITS, values=VALUES).still()
    assert len(content) < 40_000
    assert Image.open(io.BytesIO(content)).size[0] == 720
