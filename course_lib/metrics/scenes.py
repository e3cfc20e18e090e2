"""Whether an image shows what its caption says: a classifier of scenes, and the shares it finds."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.checks import check_floats, check_generator, check_int, check_one_of
from course_lib.data import COLOURS, PLACES, WEIGHTS, Scene, Thing, scene_of

__all__ = [
    "LAYOUTS",
    "SceneJudge",
    "all_pairs",
    "scene_shares",
    "scene_targets",
    "swapped_shares",
]

# Five places of one thing, and two ways in which two stand: named by the first of both, which is
# the upper or the left one.
LAYOUTS = (*PLACES, "above", "left of")
_SIZES = (10, len(COLOURS), len(WEIGHTS))  # of what is asked about a thing


def scene_targets(captions: Sequence[str]) -> Tensor:
    """What captions say in numbers: ``[n, 7]``, int64.

    The layout, an index into ``LAYOUTS``, then digit, colour and weight of each thing, the upper or
    left one first; −1 where there is no second thing. Captions that say the same give the same.

    Args:
        captions: Sentences of the grammar of ``course_lib.data.scenes``; others are refused.

    Example:
        >>> scene_targets(["a bold blue 7 below a thin red 3", "a thin red 3 above a bold blue 7"])
        tensor([[5, 3, 0, 0, 7, 2, 1],
                [5, 3, 0, 0, 7, 2, 1]])

    """
    if isinstance(captions, str) or not isinstance(captions, Sequence):
        raise ValueError(f"captions must be a list of sentences, got {captions!r}")
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
        check_int("width", width, minimum=1)
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

    def features(self, x: Tensor) -> Tensor:
        """What images ``x [B, 3, 32, 32]`` are, in ``[B, 128]`` numbers, before their ReLU."""
        check_floats("x", x, (None, 3, 32, 32), dtype=self.head.weight.dtype)
        return self.body[:-1](x)

    def loss(self, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The sum of the mean cross-entropies, in nats; ``y [B, 7]`` as of ``scene_targets``.

        What was not asked, −1, is left out; a question that no image is asked adds nothing.
        """
        check_generator(generator)
        parts = self(x).split(self.sizes, dim=1)
        if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != (len(x), 7):
            raise ValueError(f"y must be an int64 tensor [{len(x)}, 7], got {y!r}")
        if ((y < -1) | (y >= y.new_tensor(self.sizes))).any():
            raise ValueError(f"y must be from −1 to below {self.sizes}, by column, got {y}")
        loss = parts[0].new_zeros(())
        for logits, target in zip(parts, y.T, strict=True):
            if (target >= 0).any():
                loss = loss + F.cross_entropy(logits, target, ignore_index=-1)
        return loss

    @torch.no_grad()
    def answers(self, x: Tensor) -> Tensor:
        """What is likeliest, ``[B, 7]`` as of ``scene_targets``."""
        check_floats("x", x, (None, 3, 32, 32), dtype=self.head.weight.dtype)
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

        They are those of ``scene_shares``: ``"layout"``, ``"digit"``, ``"colour"``, ``"weight"``
        and ``"all"``.
        """
        said, seen = scene_targets(captions), self.answers(x)
        if len(said) != len(seen):
            raise ValueError(f"captions must be {len(seen)}, one an image, got {len(said)}")
        return scene_shares(said, seen)


# --- shares of what was said and seen ------------------------------------------------------------

ASKED = ("digit", "colour", "weight")  # of each thing


def scene_shares(said: Tensor, seen: Tensor) -> dict[str, float]:
    """Of scenes, the shares that show what was said.

    ``"layout"``: of all scenes. ``"digit"``, ``"colour"``, ``"weight"``: of the things in those
    whose layout is right (0 if it never is). ``"all"``: of all scenes, those with no fault at all.

    Args:
        said: What was asked for, ``[n, 7]`` as of ``scene_targets``.
        seen: What is there, like it: of as many scenes, at least one.

    Example:
        >>> said = scene_targets(["a thin red 3 above a bold blue 7"])
        >>> scene_shares(said, scene_targets(["a thin red 3 above a thin blue 1"]))
        {'layout': 1.0, 'digit': 0.5, 'colour': 1.0, 'weight': 0.5, 'all': 0.0}

    """
    _check_pair(said, seen)
    right = said == seen
    placed = right[:, 0]
    there = (said[placed, 1:] >= 0).unflatten(1, (2, 3))
    hits = right[placed, 1:].unflatten(1, (2, 3)) & there
    shares = hits.sum((0, 1)) / there.sum((0, 1)).clamp(min=1)
    return {
        "layout": placed.double().mean().item(),
        **dict(zip(ASKED, shares.tolist(), strict=True)),
        "all": right.all(1).double().mean().item(),
    }


def swapped_shares(said: Tensor, seen: Tensor, what: str) -> dict[str, float]:
    """How often two things got their own digits, colours or weights, and how often each other's.

    Looked at are scenes of two things that were to differ in it, and whose layout is right.

    Args:
        said: As of ``scene_shares``.
        seen: As there.
        what: ``"digit"``, ``"colour"`` or ``"weight"``.

    Returns:
        ``"right"`` and ``"swapped"``, shares (0 if there is no such scene), and ``"scenes"``, their
        number.

    Example:
        >>> said = scene_targets(["a thin red 3 above a bold blue 7"])
        >>> seen = scene_targets(["a thin blue 3 above a bold red 7"])
        >>> swapped_shares(said, seen, "colour")
        {'scenes': 1, 'right': 0.0, 'swapped': 1.0}

    """
    _check_pair(said, seen)
    check_one_of("what", what, ASKED)
    first = 1 + ASKED.index(what)
    wanted, found = said[:, [first, first + 3]], seen[:, [first, first + 3]]
    looked_at = (said[:, 4] >= 0) & (wanted[:, 0] != wanted[:, 1]) & (said[:, 0] == seen[:, 0])
    wanted, found = wanted[looked_at], found[looked_at]
    n = len(wanted)
    return {
        "scenes": n,
        "right": (found == wanted).all(1).sum().item() / max(n, 1),
        "swapped": (found == wanted.flip(1)).all(1).sum().item() / max(n, 1),
    }


def all_pairs(said: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Each of ``n`` sayings with the scenes of the others: both ``[n (n − 1), 7]``.

    What a share is of these is its chance level: what it would be if the scenes were as they are
    and had nothing to do with what was said.

    Example:
        >>> said = scene_targets(["a thin red 3 at the top", "a bold red 3 at the top"])
        >>> scene_shares(*all_pairs(said, said))
        {'layout': 1.0, 'digit': 1.0, 'colour': 1.0, 'weight': 0.0, 'all': 0.0}

    """
    _check_pair(said, seen)
    i, j = torch.where(~torch.eye(len(said), dtype=torch.bool))
    if not len(i):
        raise ValueError(f"said must be of two scenes at least, got {len(said)}")
    return said[i], seen[j]


def _check_pair(said: Tensor, seen: Tensor) -> None:
    for name, rows in (("said", said), ("seen", seen)):
        wanted = "an int64 tensor [n, 7], n at least 1, as of scene_targets"
        if not isinstance(rows, Tensor) or rows.dtype != torch.int64:
            raise ValueError(f"{name} must be {wanted}, got {rows!r}")
        if rows.ndim != 2 or rows.shape[1] != 7 or not len(rows):
            raise ValueError(f"{name} must be {wanted}, got {list(rows.shape)}")
    if len(said) != len(seen):
        raise ValueError(f"seen must be of {len(said)} scenes like said, got {len(seen)}")
