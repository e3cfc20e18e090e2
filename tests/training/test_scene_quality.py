"""Shares and distances of scenes: against scenes of which we know what they show."""

import numpy
import pytest
import torch

from course_lib.data import UNSEEN, scene_of, scenes
from course_lib.training import load_pretrained, scene_quality
from course_lib.training.scene_quality import (
    draw_scenes,
    new_captions,
    scene_distance,
    scene_judge,
    two_things,
)
from course_lib.training.scene_quality import scene_quality as quality
from course_lib.training.studies import started
from course_lib.training.studies_scenes import pixel_model


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def read():
    """Scenes of one thing that the judge reads as they are, and their captions."""
    images, captions = scenes(200, split="test", generator=torch.Generator().manual_seed(8))
    one = [
        i
        for i, (caption, seen) in enumerate(zip(captions, scene_judge().read(images), strict=True))
        if scene_of(caption) == seen and len(seen.things) == 1
    ][:40]
    assert len(one) == 40
    return images[one], [captions[i] for i in one]


def test_test_scenes_are_the_same_each_time():
    (images, captions), (again, said) = scene_quality.test_scenes(), scene_quality.test_scenes()
    assert images.shape == (2000, 3, 32, 32)
    assert torch.equal(images, again)
    assert captions == said


def test_scenes_judges_and_distances_by_whose_digits_they_are(mnist, monkeypatch):
    images, captions = scene_quality.test_scenes("mnist")
    digits, said = scene_quality.test_scenes("digits")
    again = scenes(2000, source="mnist", split="test", generator=seeded(1))
    assert torch.equal(images, again[0])
    assert captions == again[1] == said
    assert not torch.equal(images, digits)
    names = {"judge_scenes": scene_judge(), "judge_mnist_scenes": scene_judge("mnist")}
    for name, judge in names.items():
        stored = load_pretrained(name).state_dict()
        assert all(torch.equal(stored[k], v) for k, v in judge.state_dict().items())
    few, captions = images[:1000], captions[:1000]
    features = names["judge_mnist_scenes"].features(few[:100])
    assert torch.equal(scene_quality._features(few[:100], "mnist"), features)
    measured = quality(few, captions, source="mnist")
    distance = scene_distance(few, source="mnist")
    shares = names["judge_mnist_scenes"].fidelity(few, captions)
    assert measured == {**shares, "distance": distance}
    assert shares["all"] > 0.8
    # The distance is to scenes of the same source: from those of the other one it is far.
    assert distance < 0.3 * scene_distance(digits[:1000], source="mnist")
    assert scene_distance(digits[:1000]) < 0.3 * scene_distance(few)
    for call in (scene_quality.test_scenes, scene_judge, lambda of: quality(few, said, source=of)):
        with pytest.raises(ValueError, match="source must be one of digits, mnist, got 'letters'"):
            call("letters")


def test_shares_of_scenes_made_by_hand(read):
    images, captions = read
    ones = dict.fromkeys(("layout", "digit", "colour", "weight", "all"), 1.0)
    measured = quality(images, captions)
    assert measured == {**ones, "distance": scene_distance(images)}
    # A fault in a quarter of the captions, of one kind at a time.
    for what, place, words in (
        ("digit", 3, [str(d) for d in range(10)]),
        ("colour", 2, list(UNSEEN)),
        ("weight", 1, ["thin", "bold"]),
    ):
        wrong = [caption.split() for caption in captions]
        for row in wrong[:10]:
            row[place] = words[(words.index(row[place]) + 1) % len(words)]
        found = quality(images, [" ".join(row) for row in wrong])
        wanted = {**ones, what: 0.75, "all": 0.75, "distance": measured["distance"]}
        assert found == pytest.approx(wanted), what


def test_the_distance_of_stretched_and_moved_features(monkeypatch):
    """In closed form: |(a − 1) μ + b|² + (a − 1)² tr C, as a share of tr C."""
    features = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)) + 1
    monkeypatch.setattr(scene_quality, "_reference", {"digits": features}.get)
    a, b = 1.5, torch.tensor([0.3, -1.0, 0.0, 2.0, 0.1])
    monkeypatch.setattr(scene_quality, "_features", lambda images, source: a * features + b)
    trace = features.var(0).sum()
    moved = ((a - 1) * features.mean(0) + b).square().sum()
    wanted = ((moved + (a - 1) ** 2 * trace) / trace).item()
    assert scene_distance(torch.zeros(1, 3, 32, 32)) == pytest.approx(wanted, rel=1e-3)


def test_the_distance_by_eigenvalues(read):
    """|μ − ν|² + tr C + tr D − 2 tr √(C D), of the judge's features."""
    with torch.no_grad():
        real = scene_judge().features(scene_quality.test_scenes()[0]).double().numpy()
        mine = scene_judge().features(read[0]).double().numpy()
    c, d = numpy.cov(mine.T), numpy.cov(real.T)
    root = numpy.sqrt(numpy.linalg.eigvals(c @ d).astype(complex)).real.sum()
    wanted = ((mine.mean(0) - real.mean(0)) ** 2).sum() + numpy.trace(c + d) - 2 * root
    assert scene_distance(read[0]) == pytest.approx(wanted / numpy.trace(d), rel=1e-3)


def test_captions_of_seen_and_unseen_colours():
    for unseen in (False, True):
        said = new_captions(100, unseen=unseen)
        assert said == new_captions(100, unseen=unseen)
        things = [thing for caption in said for thing in scene_of(caption).things]
        assert all((UNSEEN[t.colour] == t.digit) == unseen for t in things)
    assert new_captions(5, seed=4) != new_captions(5)


@pytest.mark.parametrize("n", [0, 1, 90])
def test_two_things_differ_in_all_and_relations_take_turns(n):
    said = two_things(n)
    assert len(said) == n
    assert said == two_things(n)
    for i, scene in enumerate(map(scene_of, said)):
        assert scene.where == ("above", "below", "left of", "right of")[i % 4]
        assert all(first != second for first, second in zip(*scene.things, strict=True))


@pytest.mark.parametrize("name", ["latent", "pixels"])
def test_scenes_are_drawn_in_parts_from_one_seed(name):
    if name == "latent":
        model = load_pretrained("latent_scenes")
    else:
        model = started(pixel_model).eval()
        for parameter in model.parameters():  # some start at 0, and the prompt is not seen then
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=seeded()))
    said = new_captions(65)
    few = said[:2]
    drawn = draw_scenes(model, few, steps=2)
    assert drawn.shape == (2, 3, 32, 32)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert torch.equal(drawn, draw_scenes(model, few, steps=2))
    assert not torch.equal(drawn, draw_scenes(model, few, steps=2, seed=1))
    assert not torch.equal(drawn, draw_scenes(model, few, steps=2, scale=1.0))
    if name == "latent":
        generator = torch.Generator().manual_seed(0)
        parts = [
            model.sample(part, scale=3.0, steps=1, generator=generator)
            for part in (said[:64], said[64:])
        ]
        assert torch.equal(draw_scenes(model, said, steps=1), torch.cat(parts))
