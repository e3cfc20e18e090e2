"""What captions say in numbers, and the shares of images that show it."""

import pytest
import torch

from course_lib.data import caption_of, random_scenes, scene_of, scenes
from course_lib.metrics import (
    LAYOUTS,
    SceneJudge,
    all_pairs,
    scene_shares,
    scene_targets,
    swapped_shares,
)
from course_lib.training import load_pretrained


def captions(n, seed=0):
    drawn = random_scenes(n, generator=torch.Generator().manual_seed(seed))
    return [caption_of(scene) for scene in drawn]


def turned(caption):
    """The same said the other way round."""
    scene = scene_of(caption)
    other = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}
    if len(scene.things) == 1:
        return caption
    return caption_of(scene._replace(things=scene.things[::-1], where=other[scene.where]))


class Reader(SceneJudge):
    """A judge that sees what it is told, [n, 7]."""

    def __init__(self, seen):
        super().__init__(width=1)
        self.seen = seen

    def forward(self, x):
        logits = [torch.zeros(len(x), size) for size in self.sizes]
        for column, part in zip(self.seen.T, logits, strict=True):
            part[torch.arange(len(x)), column.clamp(min=0)] = 1
        return torch.cat(logits, dim=1)


def test_captions_that_say_the_same_are_the_same_numbers():
    said = captions(300)
    targets = scene_targets(said)
    assert targets.dtype == torch.int64
    assert torch.equal(targets, scene_targets([turned(caption) for caption in said]))
    assert ((targets[:, 4:] == -1).all(1) == (targets[:, 0] < 5)).all()
    assert LAYOUTS[5:] == ("above", "left of")
    assert scene_targets(["a bold white 9 right of a thin green 0"]).tolist() == [
        [6, 0, 1, 0, 9, 5, 1]
    ]
    assert scene_targets([]).shape == (0, 7)


def test_what_is_read_is_what_the_numbers_say():
    said = captions(100)
    judge, x = Reader(scene_targets(said)), torch.zeros(100, 3, 32, 32)
    read = [caption_of(scene) for scene in judge.read(x)]
    assert torch.equal(scene_targets(read), scene_targets(said))
    assert torch.equal(judge.answers(x), scene_targets(said))
    assert set(judge.fidelity(x, said).values()) == {1.0}


def test_shares_by_counting():
    """One fault after another in ten scenes of two things, counted by hand."""
    said = scene_targets(["a thin red 3 above a bold blue 7"]).repeat(10, 1)
    seen = said.clone()
    seen[0, 0] = 0  # another place: its things count no more
    seen[0, 1] = 0
    seen[1, 1] = 4
    seen[1, 4] = 4
    seen[2, 2] = 5
    seen[3, 6] = 0
    wanted = {"layout": 0.9, "digit": 16 / 18, "colour": 17 / 18, "weight": 17 / 18, "all": 0.6}
    assert scene_shares(said, seen) == pytest.approx(wanted)
    nothing = dict.fromkeys(wanted, 0.0)
    assert scene_shares(said[:1], seen[:1]) == nothing, "no layout is right: nothing to divide by"


def test_of_one_thing_only_one_is_counted():
    said = scene_targets(["a thin red 3 at the top"])
    seen = said.clone()
    seen[0, 1] = 4
    assert scene_shares(said, seen)["digit"] == 0
    assert scene_shares(said, seen)["colour"] == 1


def test_swapped_is_each_others():
    said = scene_targets(["a thin red 3 above a bold red 7"]).repeat(4, 1)
    seen = said.clone()
    seen[1, [1, 4]] = torch.tensor([7, 3])
    seen[2, [1, 4]] = torch.tensor([3, 3])
    seen[3, 0] = 6
    found = swapped_shares(said, seen, "digit")
    assert found == pytest.approx({"scenes": 3, "right": 1 / 3, "swapped": 1 / 3})
    assert swapped_shares(said[:1], seen[:1], "digit") == {"scenes": 1, "right": 1.0, "swapped": 0}
    assert swapped_shares(said, seen, "weight") == {"scenes": 3, "right": 1.0, "swapped": 0.0}
    assert swapped_shares(said, seen, "colour") == {"scenes": 0, "right": 0.0, "swapped": 0.0}


def test_all_pairs_are_those_of_two_different_scenes():
    said, seen = scene_targets(captions(6)), scene_targets(captions(6, seed=1))
    first, second = all_pairs(said, seen)
    wanted = [(said[i].tolist(), seen[j].tolist()) for i in range(6) for j in range(6) if i != j]
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == wanted


def test_the_stored_judge_on_scenes_that_are_right_and_wrong():
    images, said = scenes(300, split="test", generator=torch.Generator().manual_seed(7))
    judge = load_pretrained("judge_scenes")
    right = judge.fidelity(images, said)
    assert min(right["layout"], right["colour"]) > 0.99
    assert min(right["digit"], right["all"]) > 0.88
    assert judge.fidelity(images, [turned(caption) for caption in said]) == right
    assert judge.fidelity(images.flip(0), said)["all"] < 0.03, "of another caption"
    assert judge.fidelity(torch.zeros_like(images), said)["all"] < 0.03
    # Red and blue in each other's channel: colours are wrong where there are such, digits are not.
    assert judge.fidelity(images.flip(1), said)["colour"] < 0.8
    assert judge.fidelity(images.flip(1), said)["digit"] > 0.85


def test_the_loss_is_the_sum_over_what_was_asked():
    torch.manual_seed(0)
    judge, x = SceneJudge(width=2), torch.rand(8, 3, 32, 32)
    y = scene_targets(captions(8))
    log_p = [part.log_softmax(1) for part in judge(x).split([7, 10, 6, 2, 10, 6, 2], dim=1)]
    wanted = 0.0
    for k in range(7):
        asked = [i for i in range(8) if y[i, k] >= 0]
        wanted -= sum(log_p[k][i, y[i, k]].item() for i in asked) / len(asked)
    assert judge.loss(x, y).item() == pytest.approx(wanted, rel=1e-5)
    alone = scene_targets(["a thin red 3 at the top"]).repeat(8, 1)
    assert torch.isfinite(judge.loss(x, alone)), "no image has a second thing"
    first = judge.loss(x, torch.zeros_like(y))  # the first of the answers is one, too
    parts = judge(x).split(judge.sizes, dim=1)
    wanted = -sum(part.log_softmax(1)[:, 0].mean() for part in parts)
    torch.testing.assert_close(first, wanted)
    nothing = judge.loss(x, torch.full_like(y, -1))
    assert nothing.shape == (), "a tensor, also when nothing is asked"
    assert nothing.item() == 0


def test_features_lead_to_the_answer():
    judge, x = SceneJudge(width=2), torch.rand(3, 3, 32, 32)
    features = judge.features(x)
    assert features.shape == (3, 128)
    assert (features < 0).any(), "before their ReLU"
    torch.testing.assert_close(judge.head(features.relu()), judge(x))


def test_bad_input():
    judge, x = SceneJudge(width=1), torch.zeros(2, 3, 32, 32)
    said = scene_targets(captions(2))
    for call in (
        lambda: scene_targets("a thin red 3 at the top"),
        lambda: scene_targets(["a red cat"]),
        lambda: SceneJudge(width=0),
        lambda: judge(torch.zeros(2, 1, 32, 32)),
        lambda: judge.answers(x / 0),
        lambda: judge.answers(None),
        lambda: judge.read(x.tolist()),
        lambda: judge.features(x.double()),
        lambda: judge.fidelity(x, captions(3)),
        lambda: judge.loss(x, said[:1]),
        lambda: judge.loss(x, said.float()),
        lambda: judge.loss(x, said + 10),
        lambda: judge.loss(x, said - 10),
        lambda: scene_shares(said, said[:1]),
        lambda: scene_shares(said[:, :4], said[:, :4]),
        lambda: scene_shares(said[:0], said[:0]),
        lambda: scene_shares(said.float(), said),
        lambda: swapped_shares(said, said, "place"),
        lambda: swapped_shares(said, said[:1], "digit"),
        lambda: all_pairs(said[:1], said[:1]),
        lambda: all_pairs(said, said[:1]),
        lambda: judge.loss(x, said, generator=1),
    ):
        with pytest.raises(ValueError, match=r"must|scenes"):
            call()
