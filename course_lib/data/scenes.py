"""Scenes: one or two coloured digits on black, with a caption that is true by construction.

Every caption follows one grammar::

    caption  = thing place | thing relation thing
    thing    = "a" weight colour digit
    weight   = "thin" | "bold"
    colour   = "red" | "green" | "blue" | "yellow" | "purple" | "white"
    digit    = "0" | "1" | ... | "9"
    place    = "at the top" | "at the bottom" | "on the left" | "on the right" | "in the middle"
    relation = "above" | "below" | "left of" | "right of"

What the words say is drawn first, and the image after them: the writer of the digit, its size and
its turn are the image's own. ``UNSEEN`` names a digit of each colour that no training image shows.
So there are 108 things, 540 captions of one and 46,656 of two that training may show.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.checks import check_bool, check_generator, check_int, check_one_of
from course_lib.data.digits import load_digits
from course_lib.data.mnist import load_mnist

__all__ = [
    "COLOURS",
    "PLACES",
    "RELATIONS",
    "SCENE_WORDS",
    "UNSEEN",
    "WEIGHTS",
    "Scene",
    "Thing",
    "caption_of",
    "random_scenes",
    "render",
    "scene_of",
    "scenes",
]

SIZE = 32  # pixels of a side
COLOURS = {
    "red": (1.0, 0.2, 0.2),
    "green": (0.15, 0.8, 0.3),
    "blue": (0.2, 0.4, 1.0),
    "yellow": (1.0, 0.85, 0.1),
    "purple": (0.75, 0.25, 0.9),
    "white": (1.0, 1.0, 1.0),
}
WEIGHTS = ("thin", "bold")
PLACES = {  # words, and the middle of the digit (right, down)
    "at the top": (16.0, 8.5),
    "at the bottom": (16.0, 23.5),
    "on the left": (8.5, 16.0),
    "on the right": (23.5, 16.0),
    "in the middle": (16.0, 16.0),
}
RELATIONS = {  # words, and the places of the first thing and of the second
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
}
UNSEEN = {colour: (3 * i + 2) % 10 for i, colour in enumerate(COLOURS)}
_WORDS = "a thin bold at on in the top bottom left right middle above below of"
SCENE_WORDS = (*_WORDS.split(), *COLOURS, *(str(digit) for digit in range(10)))
_LEVELS = {"thin": 0.75, "bold": 0.4}  # how much of the ink around a pixel must hold to be drawn


class Thing(NamedTuple):
    """A digit as a caption names it."""

    weight: str
    colour: str
    digit: int


class Scene(NamedTuple):
    """What a caption says: one thing and its place, or two and how the first stands to the second.

    Example:
        >>> scene_of("a thin red 3 above a bold blue 7").things[1]
        Thing(weight='bold', colour='blue', digit=7)

    """

    things: tuple[Thing, ...]
    where: str

    def places(self) -> tuple[str, ...]:
        """Where each thing stands."""
        return RELATIONS[self.where] if len(self.things) == 2 else (self.where,)


def caption_of(scene: Scene) -> str:
    """The caption of a scene.

    Raises:
        ValueError: When there is no such scene.

    Example:
        >>> caption_of(Scene((Thing("thin", "red", 3),), "on the left"))
        'a thin red 3 on the left'

    """
    _check_scene("scene", scene)
    first, *second = (f"a {weight} {colour} {digit}" for weight, colour, digit in scene.things)
    return " ".join([first, scene.where, *second])


def scene_of(caption: str) -> Scene:
    """What a caption says; it undoes ``caption_of``.

    Raises:
        ValueError: When it does not follow the grammar.

    Example:
        >>> scene_of("a thin red 3 on the left")
        Scene(things=(Thing(weight='thin', colour='red', digit=3),), where='on the left')

    """
    words = caption.split() if isinstance(caption, str) else []
    between = next((k for k in range(4, len(words)) if words[k] == "a"), len(words))
    where = " ".join(words[4:between])
    things = [words[:4], words[between:]] if between < len(words) else [words[:4]]
    if not all(map(_is_thing, things)) or where not in (PLACES, RELATIONS)[len(things) - 1]:
        raise ValueError(
            'caption must be like "a thin red 3 above a bold blue 7" or "a bold white 0 on the '
            f'left", got {caption!r}'
        )
    return Scene(tuple(Thing(w, colour, int(digit)) for _, w, colour, digit in things), where)


def _check_scene(name: str, scene: Scene) -> None:
    """Require a scene that has a caption."""
    things = scene.things if isinstance(scene, Scene) else None
    fair = isinstance(things, tuple) and len(things) in (1, 2)
    fair = fair and scene.where in tuple((PLACES, RELATIONS)[len(things) - 1])
    if not fair or not all(isinstance(thing, Thing) and _is_drawn(thing) for thing in things):
        raise ValueError(
            f"{name} must be a Scene of one Thing and a place of {', '.join(PLACES)}, or of two "
            f"and a relation of {', '.join(RELATIONS)}, got {scene!r}"
        )


def _is_drawn(thing: Thing) -> bool:
    digit = isinstance(thing.digit, int) and not isinstance(thing.digit, bool)
    known = thing.weight in WEIGHTS and thing.colour in tuple(COLOURS)
    return digit and known and 0 <= thing.digit <= 9


def _is_thing(words: Sequence[str]) -> bool:
    return (
        len(words) == 4
        and words[0] == "a"
        and words[1] in WEIGHTS
        and words[2] in COLOURS
        and words[3] in SCENE_WORDS
        and words[3].isdigit()
    )


def scenes(
    n: int,
    *,
    source: str = "digits",
    split: str = "train",
    unseen: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, list[str]]:
    """Draw images of one or two coloured digits, and their captions.

    Args:
        n: Number of scenes.
        source: Whose digits they are: ``"digits"``, the 8×8 digits of ``load_digits``, or
            ``"mnist"``.
        split: ``"train"`` or ``"test"``: of which images the digits are taken.
        unseen: False: no digit has a colour of ``UNSEEN``; True: each of them has.
        generator: Source of the randomness, on the CPU.

    Returns:
        Images ``[n, 3, 32, 32]``, float32 in [0, 1], and as many captions.

    Example:
        >>> images, captions = scenes(2, generator=torch.Generator().manual_seed(0))
        >>> images.shape
        torch.Size([2, 3, 32, 32])
        >>> captions[1]
        'a thin green 3 in the middle'

    """
    drawn = random_scenes(n, unseen=unseen, generator=generator)
    images = render(drawn, source=source, split=split, generator=generator)
    return images, [caption_of(scene) for scene in drawn]


def random_scenes(
    n: int, *, unseen: bool = False, generator: torch.Generator | None = None
) -> list[Scene]:
    """What ``n`` scenes show, with arguments as of ``scenes``.

    Half of them show one thing, half two, each drawn for itself. Weights, places and relations are
    equally frequent, and so are the pairs of colour and digit, of which training has nine a colour;
    so colours are, too, and digits but for those of ``UNSEEN``, which are a sixth rarer.
    """
    check_int("n", n, minimum=0)
    check_bool("unseen", unseen)
    check_generator(generator, "cpu")
    pairs = [(c, d) for c in COLOURS for d in range(10) if (UNSEEN[c] == d) == unseen]

    def draw(words: Sequence) -> list:
        return [words[i] for i in torch.randint(len(words), (n,), generator=generator).tolist()]

    things = [
        [Thing(w, *pair) for w, pair in zip(draw(WEIGHTS), draw(pairs), strict=True)]
        for _ in range(2)
    ]
    two, place, relation = draw((False, True)), draw(tuple(PLACES)), draw(tuple(RELATIONS))
    return [
        Scene(both, relation[i]) if two[i] else Scene(both[:1], place[i])
        for i, both in enumerate(zip(*things, strict=True))
    ]


def render(
    scenes: Sequence[Scene],
    *,
    source: str = "digits",
    split: str = "train",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images ``[n, 3, 32, 32]`` of scenes. Each digit is one of the source's, moved a little.

    It is moved by up to a pixel, turned by up to 8° and resized by up to 8 %. A bold one is made
    of all pixels that hold some ink, a thin one of those that hold much: of one and the same digit
    the bold one covers all that the thin one covers.

    Args:
        scenes: What to show.
        source: As of ``course_lib.data.scenes``.
        split: As there.
        generator: As there.

    """
    if isinstance(scenes, str | Scene) or not isinstance(scenes, Sequence):
        raise ValueError(f"scenes must be a list of Scene, got {scenes!r}")
    for i, scene in enumerate(scenes):
        _check_scene(f"scenes[{i}]", scene)
    check_one_of("source", source, ("digits", "mnist"))
    check_one_of("split", split, ("train", "test"))
    check_generator(generator, "cpu")
    placed = [
        (i, thing, place)
        for i, scene in enumerate(scenes)
        for thing, place in zip(scene.things, scene.places(), strict=True)
    ]
    images = torch.zeros(len(scenes), 3, SIZE, SIZE)
    if not placed:
        return images
    digits = torch.tensor([thing.digit for _, thing, _ in placed])
    middles = torch.tensor([PLACES[place] for *_, place in placed])
    levels = torch.tensor([_LEVELS[thing.weight] for _, thing, _ in placed])
    colours = torch.tensor([COLOURS[thing.colour] for _, thing, _ in placed])
    ink = _written(_glyphs(digits, source, split, generator), middles, levels, generator)
    drawn = ink * colours[:, :, None, None]
    return images.index_add_(0, torch.tensor([i for i, *_ in placed]), drawn).clamp_(0, 1)


def _glyphs(digits: Tensor, source: str, split: str, generator: torch.Generator | None) -> Tensor:
    """Images ``[m, 1, 16, 16]`` of these digits, each by a writer drawn at random."""
    images, labels = load_digits(split) if source == "digits" else load_mnist(split)
    by_class = labels.argsort(stable=True)
    counts = labels.bincount(minlength=10)
    starts = counts.cumsum(0) - counts
    pick = (torch.rand(len(digits), generator=generator) * counts[digits]).long()
    chosen = images[by_class[starts[digits] + pick]]
    if source == "mnist":  # its digits fill 20 pixels of 28
        chosen = chosen[:, :, 2:26, 2:26]
    resized = F.interpolate(chosen, (16, 16), mode="bicubic", antialias=True).clamp(0, 1)
    # Pixels in the middle of a broad stroke are as black as those beside them: blurred, they have
    # more ink around them, and a stroke has a ridge that a thin one is made of.
    return F.avg_pool2d(F.pad(resized, (1, 1, 1, 1)), 3, stride=1)


def _written(
    glyphs: Tensor, middles: Tensor, levels: Tensor, generator: torch.Generator | None
) -> Tensor:
    """How much ink ``[m, 1, 32, 32]`` each pixel holds, from 0 to 1: glyphs, set in place."""
    turn, size, right, down = 2 * torch.rand(4, len(glyphs), generator=generator) - 1
    angle, zoom = turn * math.radians(8), (SIZE / 14) * (1 + 0.08 * size)  # a digit is 14 pixels
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    x, y = ((middles + torch.stack([right, down], 1)) / (SIZE / 2) - 1).T  # in [−1, 1]
    rows = torch.stack([cos, -sin, sin * y - cos * x, sin, cos, -sin * x - cos * y])
    grid = F.affine_grid(
        rows.T.reshape(-1, 2, 3), [len(glyphs), 1, SIZE, SIZE], align_corners=False
    )
    held = F.grid_sample(glyphs, grid, align_corners=False)
    around = F.max_pool2d(held, 5, stride=1, padding=2).clamp(min=0.2)  # faint strokes count, too
    return ((held / around - levels[:, None, None, None]) * 10).sigmoid() * (held > 0.05)
