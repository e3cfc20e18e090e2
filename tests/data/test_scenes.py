"""Scenes: a grammar that can be undone, and images whose pixels say what their captions say."""

import functools
import importlib
import itertools
import os
import re
from pathlib import Path

import pytest
import torch
from scipy import stats

from course_lib.data import (
    COLOURS,
    PLACES,
    RELATIONS,
    SCENE_WORDS,
    UNSEEN,
    WEIGHTS,
    Scene,
    Thing,
    caption_of,
    random_scenes,
    render,
    scene_of,
    scenes,
)

module = importlib.import_module("course_lib.data.scenes")  # the function has the same name
THINGS = [Thing(*each) for each in itertools.product(WEIGHTS, COLOURS, range(10))]
MNIST = Path(os.environ.get("COURSE_DATA") or Path(__file__).parents[3] / "shared/data/mnist")
SOURCES = [
    "digits",
    pytest.param(
        "mnist",
        marks=pytest.mark.skipif(
            not (MNIST / "train-images-idx3-ubyte.gz").exists()
            and not (MNIST / "train-images-idx3-ubyte").exists(),
            reason="MNIST's files are not there: COURSE_DATA may name their folder",
        ),
    ),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


read_mnist = functools.cache(module.load_mnist)  # a second of reading and checking


@pytest.fixture(autouse=True)
def _mnist_is_read_once(monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(MNIST))
    monkeypatch.setattr(module, "load_mnist", read_mnist)


# --- the grammar ---------------------------------------------------------------------------------


def test_the_whole_grammar_can_be_undone():
    alone = [Scene((thing,), place) for thing in THINGS for place in PLACES]
    pairs = [
        Scene(both, where) for both in itertools.product(THINGS, THINGS) for where in RELATIONS
    ]
    said = [caption_of(scene) for scene in alone + pairs]
    assert len(set(said)) == len(said) == 600 + 57_600
    assert [scene_of(caption) for caption in said] == alone + pairs
    words = {word for caption in said for word in caption.split()}
    assert words == set(SCENE_WORDS)
    assert len(set(SCENE_WORDS)) == len(SCENE_WORDS)
    assert max(len(caption.split()) for caption in said) == 10


def test_what_a_caption_names_first_stands_where_it_says():
    both = (Thing("thin", "red", 3), Thing("bold", "blue", 7))
    assert Scene(both, "above").places() == ("at the top", "at the bottom")
    assert Scene(both, "below").places() == ("at the bottom", "at the top")
    assert Scene(both, "left of").places() == ("on the left", "on the right")
    assert Scene(both, "right of").places() == ("on the right", "on the left")
    assert Scene(both[:1], "in the middle").places() == ("in the middle",)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a thin red 3",
        "a thin red 3 above",
        "a thin red 3 above a bold blue",
        "a thin red 3 on the left a bold blue 7",
        "a thin red 3 at the top above a bold blue 7",
        "thin red 3 at the top",
        "a red thin 3 at the top",
        "a thin red ten at the top",
        "a thin red 10 at the top",
        "a thin red three at the top",
        "a thin orange 3 at the top",
        "a fat red 3 at the top",
        "a thin red 3 under a bold blue 7",
        "a thin red 3 above a bold blue 7 above a thin red 3",
        "A thin red 3 at the top",
        None,
        3,
        ["a", "thin", "red", "3", "at", "the", "top"],
    ],
)
def test_what_does_not_follow_the_grammar(caption):
    with pytest.raises(ValueError, match=re.escape(f"got {caption!r}")):
        scene_of(caption)


RED = Thing("thin", "red", 3)


@pytest.mark.parametrize(
    "scene",
    [
        "a thin red 3 at the top",
        (RED, "at the top"),
        Scene((), "at the top"),
        Scene([RED], "at the top"),
        Scene((RED,), "above"),
        Scene((RED, RED), "at the top"),
        Scene((RED, RED, RED), "above"),
        Scene((("thin", "red", 3),), "at the top"),
        Scene((RED._replace(weight="fat"),), "at the top"),
        Scene((RED._replace(colour="orange"),), "at the top"),
        Scene((RED._replace(digit=10),), "at the top"),
        Scene((RED._replace(digit=-1),), "at the top"),
        Scene((RED._replace(digit="3"),), "at the top"),
        Scene((RED._replace(digit=True),), "at the top"),
    ],
)
def test_what_is_no_scene(scene):
    with pytest.raises(ValueError, match=r"^scene must be a Scene of one Thing and a place of"):
        caption_of(scene)
    with pytest.raises(ValueError, match=r"^scenes\[1\] must be a Scene of one Thing"):
        render([Scene((RED,), "at the top"), scene])


# --- what is drawn -------------------------------------------------------------------------------


def evenly_spread(found, values):
    """Whether counts are those of equally likely values, to a chi-square test of level 1e-4."""
    counts = torch.tensor([found.count(value) for value in values], dtype=torch.float64)
    assert counts.sum() == len(found)
    bound = stats.chi2.isf(1e-4, len(values) - 1)
    # It would hardly miss one value that came half as often again as it should.
    k = len(values)
    assert stats.ncx2.sf(bound, k - 1, len(found) / k * 0.5**2 * (1 - 1 / k)) > 0.99
    expected = len(found) / k
    return ((counts - expected) ** 2 / expected).sum() < bound


def test_all_words_of_a_kind_are_equally_frequent():
    drawn = random_scenes(60_000, generator=seeded())
    things = [thing for scene in drawn for thing in scene.things]
    seen = [(c, d) for c in COLOURS for d in range(10) if UNSEEN[c] != d]
    assert len(seen) == 54
    assert evenly_spread([len(scene.things) for scene in drawn], [1, 2])
    assert evenly_spread([scene.where for scene in drawn if len(scene.things) == 1], list(PLACES))
    pairs = [scene for scene in drawn if len(scene.things) == 2]
    assert evenly_spread([scene.where for scene in pairs], list(RELATIONS))
    assert evenly_spread([(thing.colour, thing.digit) for thing in things], seen)
    assert evenly_spread([thing.colour for thing in things], list(COLOURS))
    assert evenly_spread([thing.weight for thing in things], list(WEIGHTS))
    # What a scene says of one thing, tells nothing of the other, nor of the relation.
    both = [tuple(thing.colour for thing in scene.things) for scene in pairs]
    assert evenly_spread(both, list(itertools.product(COLOURS, COLOURS)))
    both = [(scene.things[0].weight, scene.things[1].weight, scene.where) for scene in pairs]
    assert evenly_spread(both, list(itertools.product(WEIGHTS, WEIGHTS, RELATIONS)))


def test_unseen_pairs_are_for_the_unseen_alone():
    def pairs(drawn):
        return {(thing.colour, thing.digit) for scene in drawn for thing in scene.things}

    every = set(itertools.product(COLOURS, range(10)))
    assert len(set(UNSEEN.values())) == len(UNSEEN) == len(COLOURS)
    assert pairs(random_scenes(2000, unseen=True, generator=seeded())) == set(UNSEEN.items())
    assert pairs(random_scenes(4000, generator=seeded())) == every - set(UNSEEN.items())
    said = scenes(200, unseen=True, split="test", generator=seeded())[1]
    assert pairs(map(scene_of, said)) <= set(UNSEEN.items())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("split", ["train", "test"])
def test_form_of_images_and_captions(source, split):
    images, captions = scenes(30, source=source, split=split, generator=seeded())
    assert images.shape == (30, 3, 32, 32)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert isinstance(captions, list)
    assert [caption_of(scene_of(caption)) for caption in captions] == captions
    assert (images.flatten(1).sum(1) > 10).all(), "something is drawn in each"


def test_a_generator_decides_everything():
    state = torch.random.get_rng_state()
    images, captions = scenes(20, generator=seeded(5))
    again, same = scenes(20, generator=seeded(5))
    assert torch.equal(images, again)
    assert captions == same
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is untouched"
    generator = seeded(5)
    scenes(20, generator=generator)
    more, other = scenes(20, generator=generator)
    assert captions != other, "a generator moves on"
    assert not torch.equal(images, more)
    assert not torch.equal(scenes(20)[0], scenes(20)[0])


@pytest.mark.parametrize("source", ["digits", "mnist"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_digits_are_those_of_the_source_and_the_split(monkeypatch, source, split):
    asked = []
    side = {"digits": 8, "mnist": 28}[source]

    def discs(split):
        asked.append(split)
        at = torch.arange(side) - (side - 1) / 2
        disc = (at**2 + at[:, None] ** 2 < (side / 4) ** 2).float()
        return disc.expand(10, 1, side, side), torch.arange(10)

    monkeypatch.setattr(module, f"load_{source}", discs)
    images = scenes(3, source=source, split=split, generator=seeded())[0]
    assert asked == [split]
    assert (images.flatten(1).sum(1) > 10).all()


def test_each_digit_is_one_of_its_class_and_each_of_its_class_comes(monkeypatch):
    """Two writings of each digit, as different as night and day: both come, equally often."""
    labels = torch.arange(10).repeat(2)
    images = torch.zeros(20, 1, 8, 8)
    for i, label in enumerate(labels.tolist()):  # a bar, whose row says the digit, up or across
        bar = (slice(None), label % 8) if i < 10 else (label % 8, slice(None))
        images[i, 0][bar] = 1
    order = torch.randperm(20, generator=seeded(1))
    monkeypatch.setattr(module, "load_digits", lambda split: (images[order], labels[order]))
    glyphs = module._glyphs(torch.full((400,), 3), "digits", "train", seeded())
    kinds = glyphs.flatten(1).unique(dim=0, return_counts=True)[1]
    assert len(kinds) == 2
    assert stats.binomtest(int(kinds[0]), 400).pvalue > 1e-4
    upright = glyphs[:, 0].sum(1).argmax(1)
    level = glyphs[:, 0].sum(2).argmax(1)
    for at, other in zip(upright.tolist(), level.tolist(), strict=True):
        assert 6 in (at, other) or 7 in (at, other), "both are bars at 3 of 8, 6 and 7 of 16"


@pytest.mark.parametrize("colour", COLOURS)
def test_all_pixels_have_the_colour(colour):
    """Each pixel is as much of the colour as it holds ink: measured on every pixel."""
    drawn = [Scene((Thing(w, colour, d),), "in the middle") for w in WEIGHTS for d in range(10)]
    images = render(drawn, generator=seeded())
    shade = torch.tensor(COLOURS[colour])
    ink = images.amax(1, keepdim=True) / shade.max()
    torch.testing.assert_close(images, ink * shade[:, None, None])
    assert (ink.flatten(1).amax(1) > 0.9).all(), "in full strength somewhere"


@pytest.mark.parametrize("source", SOURCES)
def test_bold_covers_thin(source):
    """One and the same writing, moved and turned alike, in both weights."""
    thin = [Scene((Thing("thin", "white", i % 10),), list(PLACES)[i % 5]) for i in range(200)]
    bold = [Scene((scene.things[0]._replace(weight="bold"),), scene.where) for scene in thin]
    little, much = (render(each, source=source, generator=seeded(2)) for each in (thin, bold))
    assert (little <= much).all()
    ratio = much.flatten(1).sum(1) / little.flatten(1).sum(1)
    assert ratio.min() > 1.15
    assert ratio.median() > 1.5


def middle_of(ink):
    """The centre of mass ``[n, 2]``, right and down, of ``[n, 32, 32]``, in pixels."""
    at = torch.arange(32) + 0.5
    mass = ink.sum((1, 2))
    return torch.stack([(ink.sum(1) @ at) / mass, (ink.sum(2) @ at) / mass], dim=1)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("place", PLACES)
def test_one_thing_stands_where_the_caption_says(source, place):
    drawn = [Scene((Thing("bold", "white", i % 10),), place) for i in range(200)]
    middles = middle_of(render(drawn, source=source, generator=seeded(3))[:, 0])
    wanted = torch.tensor(PLACES[place])
    assert (middles.mean(0) - wanted).abs().max() < 0.6
    assert (middles - wanted).norm(dim=1).max() < 4.2, "nearer than any other place is"
    others = torch.tensor(list(PLACES.values()))
    nearest = torch.cdist(middles, others).argmin(1)
    assert set(nearest.tolist()) == {list(PLACES).index(place)}


@pytest.mark.parametrize("where", RELATIONS)
def test_two_things_stand_as_the_caption_says_each_in_its_colour(where):
    """A pixel is so much red and so much blue: two numbers from three, by least squares."""
    both = [(Thing("thin", "red", i % 10), Thing("bold", "blue", i // 10)) for i in range(100)]
    images = render([Scene(pair, where) for pair in both], generator=seeded(4))
    shades = torch.tensor([COLOURS["red"], COLOURS["blue"]])  # [2, 3]
    inks = torch.linalg.lstsq(shades.T, images.transpose(0, 1).reshape(3, -1)).solution
    for ink, place in zip(inks, RELATIONS[where], strict=True):
        middles = middle_of(ink.reshape(-1, 32, 32).clamp(min=0))
        assert (middles - torch.tensor(PLACES[place])).norm(dim=1).max() < 4.2


def test_things_are_moved_turned_and_resized_a_little():
    """One and the same writing, many times: by up to a pixel, 8° and 8 %, and by no more."""
    n = 2000
    middles, levels = torch.tensor([[16.0, 16.0]]).expand(n, 2), torch.full((n,), 0.5)

    def written(shape):
        return module._written(shape.expand(n, 1, 16, 16), middles, levels, seeded(6))[:, 0]

    side = torch.arange(16) - 7.5
    disc = written((side**2 + side[:, None] ** 2 < 25).float())
    size = disc.sum((1, 2)).sqrt()
    assert size.max() / size.min() == pytest.approx(1.08 / 0.92, rel=0.05)
    moved = middle_of(disc) - 16
    assert 0.95 < moved.abs().max() < 1.1
    assert moved.std(0).sub(3**-0.5).abs().max() < 0.05, "uniform between −1 and 1"
    bar = torch.zeros(16, 16)
    bar[2:14, 7:9] = 1
    ink = written(bar)
    moved = middle_of(ink) - 16
    at = torch.arange(32) + 0.5
    x, y = at - 16 - moved[:, :1], at - 16 - moved[:, 1:]
    mass = ink.sum((1, 2))
    xx = (ink.sum(1) * x**2).sum(1) / mass
    yy = (ink.sum(2) * y**2).sum(1) / mass
    xy = torch.einsum("nij,ni,nj->n", ink, y, x) / mass
    turn = (0.5 * torch.atan2(2 * xy, yy - xx)).rad2deg()
    assert 7 < turn.abs().max() < 9
    assert turn.mean().abs() < 0.5


def test_no_scenes():
    images, captions = scenes(0, generator=seeded())
    assert images.shape == (0, 3, 32, 32)
    assert captions == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "n must be an integer of at least 0, got -1"),
        ({"n": 2.0}, "n must be an integer of at least 0, got 2.0"),
        ({"source": "letters"}, "source must be one of digits, mnist, got 'letters'"),
        ({"split": "all"}, "split must be one of test, train, got 'all'"),
        ({"unseen": 1}, "unseen must be True or False, got 1"),
        ({"generator": 0}, "generator must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        scenes(**{"n": 2, **arguments})


@pytest.mark.parametrize("what", ["a thin red 3 at the top", None, Scene((RED,), "at the top")])
def test_no_list_of_scenes(what):
    with pytest.raises(ValueError, match=r"^scenes must be a list of Scene, got"):
        render(what)


@pytest.mark.parametrize(
    "scene",
    [
        Scene((RED,), ["at the top"]),  # a list has no hash
        Scene((RED._replace(colour=["red"]),), "at the top"),
    ],
)
def test_what_is_no_word_is_no_scene(scene):
    with pytest.raises(ValueError, match=r"^scene must be a Scene of one Thing and a place"):
        caption_of(scene)
