"""Diagrams: what a model says of itself, and boxes and arrows that stand where they should."""

import re

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import nn

from course_lib.widgets import show_diagram
from course_lib.widgets.diagram import Arrow, Box, Diagram, observe, parameters, shape


def faults_of_layout(diagram):
    """What cannot be read: words outside of their box, boxes that meet, things off the page."""
    figure = diagram.figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.axes[0]
    boxes = {
        patch.get_gid(): patch.get_window_extent(renderer)
        for patch in axes.patches
        if isinstance(patch, FancyBboxPatch)
    }
    texts = {text: text.get_window_extent(renderer) for text in axes.texts}
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    found = []
    if figure.bbox.width > 560:
        found.append(f"wider than 560 px: {figure.bbox.width}")
    inside = [*boxes.values(), *texts.values(), *(a.get_window_extent(renderer) for a in arrows)]
    for one in inside:
        if one.x0 < 0 or one.y0 < 0 or one.x1 > figure.bbox.width or one.y1 > figure.bbox.height:
            found.append(f"off the page: {one}")
    names = list(boxes)
    for k, name in enumerate(names):
        for other in names[k + 1 :]:
            if boxes[name].overlaps(boxes[other]):
                found.append(f"{name} meets {other}")
    for text, extent in texts.items():
        if text.get_fontsize() * figure.dpi / 72 < 11:
            found.append(f"{text.get_text()} is small")
        for name, box in boxes.items():
            within = box.x0 <= extent.x0 and extent.x1 <= box.x1
            if extent.overlaps(box) and not within:
                found.append(f"{text.get_text()} sticks out of {name}")
        others = [o for o in texts if o is not text and texts[o].overlaps(extent)]
        if any(
            o.get_text() and text.get_text() and not _same_box(extent, texts[o], boxes)
            for o in others
        ):
            found.append(f"{text.get_text()} is written over")
    for arrow in arrows:
        if arrow.get_gid():
            for end, name in zip((0, -1), arrow.get_gid().split(" → "), strict=True):
                corner = axes.transData.transform(arrow._path_original.vertices[end])
                if not boxes[name].padded(0.5).contains(*corner):
                    found.append(f"{arrow.get_gid()} misses {name}")
    return found


def _same_box(one, other, boxes):
    return any(box.overlaps(one) and box.overlaps(other) for box in boxes.values())


def two_boxes(**changes):
    given = {
        "title": "Two",
        "rows": [[Box("x", ("[B, 4]",), "data")], [Box("net", ("4 → 2",))]],
        "arrows": [Arrow("x", "net", "[B, 4]")],
    }
    return Diagram(**{**given, **changes})


def test_every_part_that_is_called_says_its_shapes():
    net = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
    calls = observe(net, lambda: net(torch.zeros(3, 4)))
    assert {name: (call.inputs, call.outputs) for name, call in calls.items()} == {
        "0": (((3, 4),), ((3, 2),)),
        "1": (((3, 2),), ((3, 2),)),
        "": (((3, 4),), ((3, 2),)),
    }
    assert calls["0"].module is net[0]


def test_tensors_in_lists_and_keywords_are_seen():
    class Sum(nn.Module):
        def forward(self, first, second, *, others):
            return [first, (second + sum(others),)]

    net = Sum()
    ones = torch.ones(2, 3)
    call = observe(net, lambda: net(ones[:1], ones, others=[ones, ones[:, :1]]))[""]
    assert call.inputs == ((1, 3), (2, 3), (2, 3), (2, 1))
    assert call.outputs == ((1, 3), (2, 3))


def test_the_first_call_counts():
    net = nn.ReLU()
    calls = observe(net, lambda: [net(torch.zeros(2, k)) for k in (1, 2)])
    assert calls[""].inputs == ((2, 1),)


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_is_the_same_after_it_was_observed(fails):
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout())
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def run():
        assert not net.training
        assert not net(torch.randn(8, 4)).requires_grad
        if fails:
            raise KeyError("stop")

    if fails:
        with pytest.raises(KeyError):
            observe(net, run)
    else:
        observe(net, run)
    assert (net.training, net[0].training, net[1].training) == (True, True, False)
    assert not any(part._forward_hooks for part in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_words_of_shapes_and_sizes():
    assert shape((7, 1, 28, 28)) == shape(torch.zeros(2, 1, 28, 28)) == "[B, 1, 28, 28]"
    assert shape((7,)) == "[B]"
    assert parameters(nn.Linear(99, 10), nn.ReLU()) == "1,000 parameters"


def test_a_diagram_is_a_picture_and_its_words():
    diagram = two_boxes()
    said = "Diagram: Two. Boxes: x: [B, 4]; net: 4 → 2. Arrows: x → net ([B, 4])."
    assert diagram.words() == said
    shown = show_diagram(diagram).data
    assert f'alt="{said}"' in shown
    assert shown.count("data:image/png") == 2  # light and dark


def test_arrows_of_other_kinds_are_told_apart():
    diagram = two_boxes(
        arrows=[Arrow("x", "net"), Arrow("net", "x", kind="gradient"), Arrow("net", "x", "m")]
    )
    assert diagram.words().endswith("Arrows: x → net; net → x (m). Arrows, gradient: net → x.")
    texts = [text.get_text() for text in diagram.figure().axes[0].texts]
    assert texts[-2:] == ["forwards", "gradient"]
    assert "forwards" not in [text.get_text() for text in two_boxes().figure().axes[0].texts]
    assert faults_of_layout(diagram) == []


def test_a_layout_can_be_read():
    rows = [
        [Box("a"), None, Box("b", ("words", "and more words"), "noise")],
        [Box("c", ("x",) * 5, "latent"), Box("d")],
        [Box("e", role="error")],
    ]
    arrows = [
        Arrow("a", "b", "across"),
        Arrow("b", "a"),
        Arrow("a", "c"),
        Arrow("b", "d", "down"),
        Arrow("d", "c"),
        Arrow("e", "c", kind="follows"),
        Arrow("a", "e", "round", around="left"),
        Arrow("e", "d", around="right"),
    ]
    assert faults_of_layout(Diagram("Many", rows, arrows)) == []


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([[Box("a", ("w" * 70,)), Box("b")]], "off the page"),
        ([[Box("a", ("w" * 30,)), Box("b", ("w" * 30,))]], "a meets b"),
    ],
)
def test_a_layout_that_cannot_be_read_is_found(rows, fault):
    assert any(fault in found for found in faults_of_layout(Diagram("x", rows, [])))


def test_arrows_between_two_boxes_run_side_by_side():
    rows = [[Box("a", ("wide enough",))], [Box("b", ("wide enough",))]]
    arrows = [Arrow("a", "b"), Arrow("b", "a", kind="gradient")]
    figure = Diagram("x", rows, arrows).figure()
    down, up = (
        p._path_original.vertices
        for p in figure.axes[0].patches
        if isinstance(p, FancyArrowPatch) and p.get_gid()
    )
    assert down[0, 0] == pytest.approx(down[1, 0])
    assert up[0, 0] == pytest.approx(up[1, 0])
    assert abs(up[0, 0] - down[0, 0]) > 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [[Box("x"), Box("x")]]}, "rows must hold boxes of different names"),
        ({"rows": [[Box("x", role="red")]]}, "role must be one of data, error"),
        ({"arrows": [Arrow("x", "y")]}, "arrows must lead from box to box, got 'y'"),
        ({"arrows": [Arrow("x", "net", kind="up")]}, "kind must be one of flow, follows, grad"),
        ({"arrows": [Arrow("x", "net", around="top")]}, "around must be one of left, right"),
    ],
)
def test_bad_diagrams_are_named(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        two_boxes(**changes)
