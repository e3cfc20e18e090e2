"""Cost: its bytes and speed-ups against the course's formulas, and what it refuses."""

import io

import pytest
from PIL import Image

from course_lib.parallel.memory import state_bytes
from course_lib.parallel.timeline import speedup
from course_lib.widgets import Cost
from course_lib.widgets.cost import KEPT, PARAMETER, SCALINGS, STAGES

MODELS = {"small": 124_439_808, "large": 8_000_000_001}


@pytest.mark.parametrize("precision", PARAMETER)
@pytest.mark.parametrize("optimizer", KEPT["mixed"])
def test_the_bytes_are_those_of_the_course(precision: str, optimizer: str) -> None:
    for model, parameters in MODELS.items():
        for n in (1, 3, 64):
            cost = Cost(MODELS, model=model, processes=n, precision=precision, optimizer=optimizer)
            for stage in STAGES:
                wanted = state_bytes(
                    parameters, processes=n, stage=stage, precision=precision, optimizer=optimizer
                )
                assert cost.bytes_at(stage) == pytest.approx(
                    (wanted.parameters, wanted.gradients, wanted.optimizer)
                )


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("stage", [0, 3])
def test_the_speedup_is_that_of_the_course(scaling: str, stage: int) -> None:
    cost = Cost(MODELS, model="large", scaling=scaling, stage=stage, bandwidth=3e9, batch=5e4)
    found = [cost.speedup_of(n) for n in (1, 2, 7, 512)]
    wanted = [speedup(**cost.work_of(n)) for n in (1, 2, 7, 512)]
    assert found == pytest.approx(wanted)
    assert found[0] == 1
    assert found[3] < 512
    # A token takes 6 Ψ operations, of which a third is forward.
    n, work = 7, cost.work_of(7)
    tokens = 5e4 if scaling == "weak" else 5e4 / n
    assert work["forward"] + sum(work["backward"]) == pytest.approx(6 * 8e9 * tokens / 1.5e14)
    assert work["forward"] == pytest.approx(sum(work["backward"]) / 2)
    assert sum(work["sizes"]) == pytest.approx(8e9 * (3 if stage == 3 else 2))


def test_a_model_may_fit_only_if_it_is_shared_out() -> None:
    cost = Cost(MODELS, model="large", processes=16)
    assert not cost.fits  # 128 GB in 80
    cost.stage = 1
    assert cost.fits  # 4 Ψ + 12 Ψ / 16 = 38 GB
    cost.memory = 2e10
    assert not cost.fits
    cost.stage = 3
    assert cost.fits
    assert sum(cost.bytes_at(3, 1)) == pytest.approx(16 * 8e9)
    assert Cost(MODELS).parameters == MODELS["small"]
    assert repr(cost) == "Cost('')"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"models": {}}, "models must be 1 to 8 names"),
        ({"models": [1000]}, "models must be 1 to 8 names"),
        ({"models": {1: 1000}}, "models must be 1 to 8 names"),
        ({"models": {str(k): 1000 for k in range(9)}}, "models must be 1 to 8 names"),
        ({"models": {"a": 10}}, r"models\['a'\] must be"),
        ({"models": {"a": 1e9}}, r"models\['a'\] must be"),
        ({"model": "b"}, "model must be one of large, small, got 'b'"),
        ({"processes": 0}, "processes must be"),
        ({"processes": 1025}, "processes must be"),
        ({"batch": 10}, r"batch must lie in \[100, 1e\+08\], got 10"),
        ({"scaling": "none"}, "scaling must be one of"),
        ({"stage": 4}, "stage must be"),
        ({"precision": "bf16"}, "precision must be one of"),
        ({"optimizer": "lion"}, "optimizer must be one of"),
        ({"memory": 1e9}, "memory must lie in"),
        ({"flops": 0}, "flops must be"),
        ({"bandwidth": 1.0}, "bandwidth must lie in"),
        ({"latency": 1.0}, "latency must lie in"),
        ({"layers": 0}, "layers must be"),
        ({"layers": 97}, "layers must be"),
        ({"bucket_bytes": 0}, "bucket_bytes must be"),
        ({"title": 1}, "title must be a string"),
    ],
)
def test_bad_arguments_are_named(change: dict, reason: str) -> None:
    given = {"models": MODELS} | change
    with pytest.raises(ValueError, match=reason):
        Cost(given.pop("models"), **given)


def test_bad_settings_are_refused() -> None:
    cost = Cost(MODELS)
    with pytest.raises(ValueError, match="stage must be"):
        cost.stage = -1
    with pytest.raises(ValueError, match="stage must be"):
        cost.bytes_at(4)
    with pytest.raises(ValueError, match="processes must be"):
        cost.speedup_of(0)
    with pytest.raises(ValueError, match="model must be one of"):
        cost.model = "huge"
    assert (cost.stage, cost.model) == (0, "small")


def test_the_still_picture_shows_bars_and_curve() -> None:
    content = Cost(MODELS, model="large").still()
    assert len(content) < 60_000
    assert Image.open(io.BytesIO(content)).size[0] == 720
