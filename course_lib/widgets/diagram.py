"""Diagrams of architectures: boxes and arrows laid out by code, with what a model says of itself.

``observe`` runs a model and writes down every call of its parts: nobody types a shape. ``Diagram``
is boxes in rows and arrows between them; ``show_diagram`` displays one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path
from matplotlib.text import Text
from torch import Tensor, nn

from course_lib.checks import check_one_of
from course_lib.widgets.figures import show_figure
from course_lib.widgets.palette import PALETTE

__all__ = ["Arrow", "Box", "Call", "Diagram", "observe", "parameters", "shape", "show_diagram"]

Shape = tuple[int, ...]

# ------------------------------------------------------------------------------- what a model says


@dataclass(frozen=True)
class Call:
    """One call of a part of a model: the shapes of all tensors that went in and came out."""

    module: nn.Module
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


def observe(model: nn.Module, run: Callable[[], object]) -> dict[str, Call]:
    """The first call of each part of ``model`` while ``run()`` is running, by the part's name.

    The model is in eval mode meanwhile and gets no gradients: it is the same afterwards.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
        >>> observe(net, lambda: net(torch.zeros(3, 4)))["0"].outputs
        ((3, 2),)

    """
    calls: dict[str, Call] = {}

    def note(name: str) -> Callable:
        def hook(module: nn.Module, inputs: object, keywords: dict, output: object) -> None:
            given = (*shapes(inputs), *shapes(list(keywords.values())))
            calls.setdefault(name, Call(module, given, shapes(output)))

        return hook

    parts = list(model.named_modules())
    hooks = [part.register_forward_hook(note(name), with_kwargs=True) for name, part in parts]
    modes = [part.training for _, part in parts]
    model.eval()
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
        for (_, part), mode in zip(parts, modes, strict=True):
            part.training = mode
    return calls


def shapes(value: object) -> tuple[Shape, ...]:
    """The shapes of all tensors in nested lists and tuples, in their order."""
    if isinstance(value, Tensor):
        return (tuple(value.shape),)
    if isinstance(value, list | tuple):
        return tuple(shape for part in value for shape in shapes(part))
    return ()


def shape(value: Tensor | Shape) -> str:
    """A shape as the course writes it: its first size is B, that of the batch.

    Example:
        >>> shape(torch.zeros(5, 1, 8, 8))
        '[B, 1, 8, 8]'

    """
    sizes = tuple(value.shape) if isinstance(value, Tensor) else value
    return f"[{', '.join(['B', *map(str, sizes[1:])])}]"


def parameters(*modules: nn.Module) -> str:
    """How many numbers the modules learn, in words."""
    return f"{sum(p.numel() for module in modules for p in module.parameters()):,} parameters"


# ------------------------------------------------------------------------------------ the drawing

# What runs along an arrow: in which dashes it is drawn, and what is said of it.
KINDS = {
    "flow": ("-", "forwards"),
    "gradient": ((0, (3, 2)), "gradient"),
    "follows": ((0, (1, 1.5)), "moving average"),
}
SIZE = 8.5  # of all letters, in points: 12 pixels
LINE_HEIGHT = 0.165  # inches, as all lengths below
PAD = 0.07  # between a box's edge and its words
GAP = 0.4  # between two rows
MARGIN = 0.08
APART = 0.3  # between arrows that meet one side of a box, at most
ASIDE = 0.16  # how far from the boxes an arrow passes them
CLEAR = 0.04  # around the words on an arrow


@dataclass(frozen=True)
class Box:
    """A box: its name, which stands first, lines of words below it, and what it is.

    Args:
        name: The first line, by which arrows name the box.
        lines: What else is written.
        role: A name of ``PALETTE``, for the frame's colour: ``"data"``, ``"noise"``, ``"model"``,
            ``"latent"`` or ``"error"``.

    """

    name: str
    lines: tuple[str, ...] = ()
    role: str = "model"


@dataclass(frozen=True)
class Arrow:
    """An arrow from the box ``start`` to the box ``end``.

    Args:
        start: Name of a box.
        end: Name of another.
        words: What is written on it, mostly the shape of what runs along it.
        kind: ``"flow"``, drawn through; ``"gradient"``, dashed; ``"follows"``, dotted.
        around: ``"left"`` or ``"right"``: past the boxes between, on that side of them.

    """

    start: str
    end: str
    words: str = ""
    kind: str = "flow"
    around: str | None = None


@dataclass(frozen=True)
class Diagram:
    """Boxes in rows, from top to bottom, and arrows between them.

    Args:
        title: What it shows.
        rows: A row of n places shares the width evenly; None leaves a place free.
        arrows: By the names of boxes.
        width: In inches, of 100 pixels each.

    """

    title: str
    rows: Sequence[Sequence[Box | None]]
    arrows: Sequence[Arrow]
    width: float = 5.6

    def __post_init__(self) -> None:
        names = [box.name for row in self.rows for box in row if box]
        if len(set(names)) < len(names):
            raise ValueError(f"rows must hold boxes of different names, got {names}")
        for row in self.rows:
            for box in row:
                if box:
                    check_one_of("role", box.role, PALETTE)
        for arrow in self.arrows:
            check_one_of("kind", arrow.kind, KINDS)
            if arrow.around is not None:
                check_one_of("around", arrow.around, ("left", "right"))
            for end in (arrow.start, arrow.end):
                if end not in names:
                    raise ValueError(f"arrows must lead from box to box, got {end!r}")

    def words(self) -> str:
        """The diagram for those who don't see it: each box, then each arrow."""
        boxes = [
            ": ".join([box.name, *filter(None, [", ".join(box.lines)])])
            for row in self.rows
            for box in row
            if box
        ]
        parts = [f"Diagram: {self.title}.", f"Boxes: {'; '.join(boxes)}."]
        for kind in self.kinds():
            arrows = [
                f"{arrow.start} → {arrow.end}" + (f" ({arrow.words})" if arrow.words else "")
                for arrow in self.arrows
                if arrow.kind == kind
            ]
            what = "Arrows" if kind == "flow" else f"Arrows, {KINDS[kind][1]}"
            parts.append(f"{what}: {'; '.join(arrows)}.")
        return " ".join(parts)

    def kinds(self) -> list[str]:
        """The kinds of arrows that there are."""
        return [kind for kind in KINDS if any(arrow.kind == kind for arrow in self.arrows)]

    def figure(self) -> Figure:
        """The diagram, drawn."""
        heights = [max(_size(box)[1] for box in row if box) for row in self.rows]
        legend = self.kinds() if self.kinds() != ["flow"] else []
        height = sum(heights) + GAP * (len(heights) - 1) + 2 * MARGIN + 2 * LINE_HEIGHT
        height += 2 * LINE_HEIGHT * bool(legend)
        figure = Figure(figsize=(self.width, height))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(0, height))
        axes.axis("off")
        top = height - MARGIN
        _write(axes, self.width / 2, top - LINE_HEIGHT / 2, self.title, weight="bold")
        top -= 2 * LINE_HEIGHT
        places = {}
        for row, tall in zip(self.rows, heights, strict=True):
            for k, box in enumerate(row):
                if box:
                    middle = self.width * (2 * k + 1) / (2 * len(row)), top - tall / 2
                    places[box.name] = _Place(*middle, *_size(box))
                    _draw_box(axes, box, places[box.name])
            top -= tall + GAP
        for path, arrow in _routes(self.arrows, places):
            _draw_arrow(axes, path, arrow)
        for k, kind in enumerate(legend):
            x, y = self.width * (k + 0.5) / len(legend), MARGIN + LINE_HEIGHT / 2
            wide = _extent(KINDS[kind][1])
            _draw_line(axes, [(x - wide / 2 - 0.45, y), (x - wide / 2 - 0.07, y)], kind)
            _write(axes, x, y, KINDS[kind][1])
        return figure


def show_diagram(diagram: Diagram) -> HTML:
    """A diagram as a picture with alternative text, to be the last line of a notebook's cell."""
    return show_figure(diagram.figure(), alt=diagram.words())


@dataclass(frozen=True)
class _Place:
    """Where a box stands: its middle and its size."""

    x: float
    y: float
    width: float
    height: float


def _extent(words: str, weight: str = "normal") -> float:
    """How wide words are, in inches."""
    figure = Figure(dpi=100)
    text = figure.text(0, 0, words, fontsize=SIZE, weight=weight)
    return text.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width / 100


def _size(box: Box) -> tuple[float, float]:
    widths = [_extent(box.name, "bold"), *map(_extent, box.lines)]
    return max(widths) + 2 * PAD, (1 + len(box.lines)) * LINE_HEIGHT + 2 * PAD


def _write(axes: Axes, x: float, y: float, words: str, **style: Any) -> Text:
    return axes.text(x, y, words, ha="center", va="center", fontsize=SIZE, color="black", **style)


def _draw_box(axes: Axes, box: Box, place: _Place) -> None:
    corner = place.x - place.width / 2, place.y - place.height / 2
    axes.add_patch(
        FancyBboxPatch(
            corner,
            place.width,
            place.height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="white",
            edgecolor=PALETTE[box.role],
            linewidth=1.8,
            gid=box.name,
        )
    )
    top = place.y + place.height / 2 - PAD - LINE_HEIGHT / 2
    for k, line in enumerate([box.name, *box.lines]):
        _write(axes, place.x, top - k * LINE_HEIGHT, line, weight="normal" if k else "bold")


def _routes(
    arrows: Sequence[Arrow], places: dict[str, _Place]
) -> list[tuple[list[tuple[float, float]], Arrow]]:
    """The corners of each arrow. Those that meet a side of a box share it evenly."""
    ends = []  # for each arrow: (box, side, where the other end is), twice
    for number, arrow in enumerate(arrows):
        a, b = places[arrow.start], places[arrow.end]
        if arrow.around:
            sides = arrow.around, arrow.around
        elif abs(a.y - b.y) < 1e-9 or _beside(a, b):
            sides = ("right", "left") if a.x < b.x else ("left", "right")
        else:
            sides = ("bottom", "top") if a.y > b.y else ("top", "bottom")
        for name, side, other in ((arrow.start, sides[0], b), (arrow.end, sides[1], a)):
            along = other.x if side in ("top", "bottom") else -other.y
            ends.append((name, side, along, number))
    points = {}
    for name, side in {(name, side) for name, side, *_ in ends}:
        meeting = sorted(end[2:] for end in ends if end[:2] == (name, side))
        place = places[name]
        for k, (_, number) in enumerate(meeting):
            length = place.width if side in ("top", "bottom") else place.height
            away = (k - (len(meeting) - 1) / 2) * min(APART, length / (len(meeting) + 1))
            if side in ("top", "bottom"):
                up = 0.5 if side == "top" else -0.5
                point = place.x + away, place.y + up * place.height
            else:
                out = 0.5 if side == "right" else -0.5
                point = place.x + out * place.width, place.y - away
            points[number, name] = point
    routes = []
    for number, arrow in enumerate(arrows):
        a, b = points[number, arrow.start], points[number, arrow.end]
        path = [a, b]
        if arrow.around:
            between = [p for p in places.values() if min(a[1], b[1]) <= p.y <= max(a[1], b[1])]
            away = ASIDE + (_extent(arrow.words) / 2 if arrow.words else 0)
            if arrow.around == "left":
                x = min([a[0], b[0], *(p.x - p.width / 2 for p in between)]) - away
            else:
                x = max([a[0], b[0], *(p.x + p.width / 2 for p in between)]) + away
            path = [a, (x, a[1]), (x, b[1]), b]
        routes.append((path, arrow))
    return routes


def _beside(a: _Place, b: _Place) -> bool:
    """Whether one box stands beside the other, more or less."""
    return abs(a.y - b.y) < (a.height + b.height) / 2


def _draw_arrow(axes: Axes, corners: list[tuple[float, float]], arrow: Arrow) -> None:
    _draw_line(axes, corners, arrow.kind, gid=f"{arrow.start} → {arrow.end}")
    if arrow.words:
        middle = corners[len(corners) // 2 - 1 : len(corners) // 2 + 1]
        x, y = (sum(values) / 2 for values in zip(*middle, strict=True))
        wide, tall = _extent(arrow.words) + CLEAR, LINE_HEIGHT
        ground = Rectangle((x - wide / 2, y - tall / 2), wide, tall, facecolor="white", lw=0)
        axes.add_patch(ground)
        _write(axes, x, y, arrow.words)


def _draw_line(axes: Axes, corners: list[tuple[float, float]], kind: str, gid: str = "") -> None:
    axes.add_patch(
        FancyArrowPatch(
            path=Path(corners),
            arrowstyle="-|>,head_length=4,head_width=2",
            linestyle=KINDS[kind][0],
            linewidth=1.2,
            color="black" if kind == "flow" else PALETTE["error"],
            shrinkA=0,
            shrinkB=0,
            gid=gid,
        )
    )
