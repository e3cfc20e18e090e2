"""The recipes of chapter 13: what is measured, on models whose numbers are known."""

import pytest
import torch

from course_lib.diffusion import RectifiedFlow
from course_lib.training import RECIPES, recipes_rectified

NAMES = [f"rectified_{data}_{k}" for data in ("two_moons", "digits", "mnist") for k in (2, 3)]
NAMES += ["distilled_two_moons", "distilled_digits", "threes_to_eights_1", "threes_to_eights_2"]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_builds_a_flow(name):
    model = RECIPES[name].new_model()
    assert isinstance(model, RectifiedFlow)
    first = "x1" if name.startswith("distilled") else None
    t = model.path.draw_times(100)
    assert (t == 1).all() if first else t.unique().numel() > 90
    x = torch.zeros(2, *model.event_shape)
    assert model.loss(x, x).isfinite()


@pytest.fixture
def known(monkeypatch):
    """Quality is another test's; flows are asked for 500 points alone."""
    monkeypatch.setattr(recipes_rectified, "quality", lambda model, data, steps: {"asked": steps})


def constant(value):
    net = lambda x, t: torch.full_like(x, value)  # noqa: E731
    net.event_shape = (2,)
    return RectifiedFlow(net)


def test_a_flow_is_measured_against_its_own_end_and_a_student_against_its_teacher(known):
    own = recipes_rectified.flow_metrics(constant(2.0), "two_moons")
    assert own["straightness"] == pytest.approx(0, abs=1e-8)
    assert own["transport cost"] == pytest.approx(8)  # ‖(2, 2)‖²
    assert [row["steps"] for row in own["steps"]] == [1, 2, 4, 8, 16, 32]
    assert [row["asked"] for row in own["steps"]] == [1, 2, 4, 8, 16, 32]
    assert all(row["error"] < 1e-5 for row in own["steps"])
    taught = recipes_rectified.flow_metrics(constant(2.0), "two_moons", teacher=constant(5.0))
    assert all(row["error"] == pytest.approx(3) for row in taught["steps"])
    assert taught["transport cost"] == pytest.approx(8)


def test_the_second_flows_card_holds_the_first_flow(known, monkeypatch):
    asked = []
    monkeypatch.setattr(
        recipes_rectified, "load_pretrained", lambda name: asked.append(name) or constant(1.0)
    )
    metrics = recipes_rectified.rectified_metrics(constant(2.0), "digits", 2)
    assert asked == ["flow_matching_digits"]
    assert metrics["transport cost"] == pytest.approx(8)
    assert metrics["first flow: transport cost"] == pytest.approx(2)
    assert len(metrics["first flow: steps"]) == 6
    third = recipes_rectified.rectified_metrics(constant(2.0), "digits", 3)
    assert list(third) == ["straightness", "transport cost", "steps"]


def test_ink_and_slant_of_strokes():
    """Strokes that go to the right by s pixels a row upwards have the slant s."""
    rows = torch.arange(28.0)
    images = []
    for s in (-0.5, 0.0, 0.5):
        columns = 14 + s * (14 - rows[:, None])
        images.append((-((torch.arange(28.0) - columns) ** 2) / 2).exp())
    images = torch.stack(images)[:, None]
    ink, slant = recipes_rectified.weights_and_slants(2 * images - 1)
    torch.testing.assert_close(slant, torch.tensor([-0.5, 0.0, 0.5]), rtol=0, atol=0.03)
    torch.testing.assert_close(ink, images.mean((1, 2, 3)))
    thin = recipes_rectified.weights_and_slants(images - 1)
    torch.testing.assert_close(thin[1], slant)
    torch.testing.assert_close(thin[0], ink / 2)


def test_correlation():
    a = torch.tensor([0.0, 1.0, 2.0])
    assert recipes_rectified.correlation(a, 3 * a - 1) == pytest.approx(1)
    assert recipes_rectified.correlation(a, torch.tensor([1.0, 2.0, 0.0])) == pytest.approx(-0.5)
