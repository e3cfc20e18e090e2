"""Whether an image shows what its caption says: a classifier of scenes, and the shares it finds."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_floats, check_generator
from course_lib.data import COLOURS, PLACES, WEIGHTS, Scene, Thing, scene_of

__all__ = ["LAYOUTS", "SceneJudge", "scene_targets"]

# Five places of one thing, and two ways in which two stand: named by the first of both, which is
# the upper or the left one.
LAYOUTS = (*PLACES, "above", "left of")
_SIZES = (10, len(COLOURS), len(WEIGHTS))  # of what is asked about a thing


def scene_targets(captions: Sequence[str]) -> Tensor:
    """What captions say in numbers: ``[n, 7]``, int64.

    The layout, an index into ``LAYOUTS``, then digit, colour and weight of each thing, the upper or
    left one first; −1 where there is no second thing. Captions that say the same give the same.

    Example:
        >>> scene_targets(["a bold blue 7 below a thin red 3", "a thin red 3 above a bold blue 7"])
        tensor([[5, 3, 0, 0, 7, 2, 1],
                [5, 3, 0, 0, 7, 2, 1]])

    """
    rows = []
    for scene in map(scene_of, captions):
        things = scene.things
        layout = scene.where
        if scene.where in ("below", "right of"):
            things, layout = things[::-1], {"below": "above", "right of": "left of"}[scene.where]
        row = [LAYOUTS.index(layout)]
        for thing in things:
            row += [thing.digit, list(COLOURS).index(thing.colour), WEIGHTS.index(thing.weight)]
        rows.append(row + [-1] * (7 - len(row)))
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 7)


class SceneJudge(nn.Module):
    """A convolutional classifier that reads a scene: where things stand, and what each of them is.

    It sees no caption, so that it can judge whether an image fits one.

    Args:
        width: Channels of the first convolution; doubled twice.

    Example:
        >>> SceneJudge()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 43])

    """

    def __init__(self, width: int = 16):
        super().__init__()
        self.sizes = [len(LAYOUTS), *_SIZES, *_SIZES]
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * width * 16, 128),
            nn.ReLU(),
        )
        self.head = nn.Linear(128, sum(self.sizes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, 43]`` of images ``x [B, 3, 32, 32]`` in [0, 1], of all questions in turn."""
        check_floats("x", x, (None, 3, 32, 32), dtype=self.head.weight.dtype)
        return self.head(self.body(x))

    def loss(self, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The sum of the mean cross-entropies, in nats; ``y [B, 7]`` as of ``scene_targets``."""
        check_generator(generator)
        if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != (len(x), 7):
            raise ValueError(f"y must be an int64 tensor [{len(x)}, 7], got {y!r}")
        parts = self(x).split(self.sizes, dim=1)
        return sum(
            F.cross_entropy(logits, target, ignore_index=-1)
            for logits, target in zip(parts, y.T, strict=True)
        )

    @torch.no_grad()
    def answers(self, x: Tensor) -> Tensor:
        """What is likeliest, ``[B, 7]`` as of ``scene_targets``."""
        logits = torch.cat([self(part) for part in x.split(500)])
        best = torch.stack([part.argmax(1) for part in logits.split(self.sizes, dim=1)], dim=1)
        best[best[:, 0] < len(PLACES), 4:] = -1
        return best

    def read(self, x: Tensor) -> list[Scene]:
        """What images ``x [B, 3, 32, 32]`` seem to show."""
        colours, found = list(COLOURS), []
        for layout, *rest in self.answers(x).tolist():
            things = tuple(
                Thing(WEIGHTS[weight], colours[colour], digit)
                for digit, colour, weight in (rest[:3], rest[3:])
                if digit >= 0
            )
            found.append(Scene(things, LAYOUTS[layout]))
        return found

    def fidelity(self, x: Tensor, captions: Sequence[str]) -> dict[str, float]:
        """The shares of images ``x [B, 3, 32, 32]`` that show what ``captions`` say.

        ``"layout"``, and of the things where the layout is right ``"digit"``, ``"colour"`` and
        ``"weight"``; ``"all"`` is the share of images with no fault at all.
        """
        said, seen = scene_targets(captions), self.answers(x)
        right = said == seen
        placed = right[:, 0]
        there = (said[placed, 1:] >= 0).unflatten(1, (2, 3))
        hits = (right[placed, 1:].unflatten(1, (2, 3)) & there).sum((0, 1)) / there.sum((0, 1))
        names = ("digit", "colour", "weight")
        return {
            "layout": placed.float().mean().item(),
            **dict(zip(names, hits.tolist(), strict=True)),
            "all": right.all(1).float().mean().item(),
        }
