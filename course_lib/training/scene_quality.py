"""How good images of scenes are: what they show, and how far they are from real ones."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_int
from course_lib.data import RELATIONS, Scene, caption_of, random_scenes, scenes, to_unit
from course_lib.diffusion import (
    EDM,
    ClassifierFreeGuidance,
    LatentDiffusion,
    dpm_solver_sample,
    last,
)
from course_lib.metrics import SceneJudge, frechet_distance
from course_lib.training.checkpoints import load_pretrained

__all__ = [
    "draw_scenes",
    "new_captions",
    "scene_distance",
    "scene_judge",
    "scene_quality",
    "test_scenes",
    "two_things",
]

N_TEST = 2_000


def test_scenes() -> tuple[Tensor, list[str]]:
    """Scenes of digits that no model has seen, and their captions."""
    return scenes(N_TEST, split="test", generator=torch.Generator().manual_seed(1))


test_scenes.__test__ = False  # no test, in pytest's eyes


@cache
def scene_judge() -> SceneJudge:
    """The stored reader of scenes."""
    return load_pretrained("judge_scenes")


@cache
def _reference() -> Tensor:
    return _features(test_scenes()[0])


@torch.no_grad()
def _features(images: Tensor) -> Tensor:
    return torch.cat([scene_judge().features(part) for part in images.split(500)])


def scene_distance(images: Tensor) -> float:
    """The Fréchet distance of images ``[N, 3, 32, 32]`` in [0, 1] to the 2,000 test scenes.

    In the judge's 128 features, as a share of the variance that the test scenes have there. It
    depends on N, as every such distance: compare equal N only.
    """
    check_floats("images", images, (None, 3, 32, 32))
    return frechet_distance(_features(images), _reference()) / _reference().var(0).sum().item()


def scene_quality(images: Tensor, captions: Sequence[str]) -> dict[str, float]:
    """The judge's shares, as of ``SceneJudge.fidelity``, and ``scene_distance``."""
    return {**scene_judge().fidelity(images, captions), "distance": scene_distance(images)}


def new_captions(n: int, *, unseen: bool = False, seed: int = 3) -> list[str]:
    """Captions like those of the test scenes; with ``unseen`` of digits in colours never shown."""
    generator = torch.Generator().manual_seed(seed)
    return [caption_of(scene) for scene in random_scenes(n, unseen=unseen, generator=generator)]


def two_things(n: int, *, seed: int = 4) -> list[str]:
    """Captions of two things of different digits, colours and weights, by relation in turn."""
    check_int("n", n, minimum=0)
    generator, found = torch.Generator().manual_seed(seed), []
    while len(found) < n:
        for scene in random_scenes(8 * n, generator=generator):
            if all(len(set(values)) == 2 for values in zip(*scene.things, strict=True)):
                found.append(scene.things)
    where = list(RELATIONS)
    return [caption_of(Scene(both, where[i % 4])) for i, both in enumerate(found[:n])]


@torch.no_grad()
def draw_scenes(
    model: LatentDiffusion | EDM,
    captions: Sequence[str],
    *,
    scale: float = 3.0,
    steps: int = 12,
    seed: int = 0,
) -> Tensor:
    """Images ``[n, 3, 32, 32]`` in [0, 1] of captions, 64 at a time.

    Args:
        model: A latent model, or one of pixels that is told prompts: an ``EDM`` of ``Prompted``.
        captions: What to show, at least one.
        scale: Of classifier-free guidance.
        steps: Of DPM-Solver++.
        seed: Of the noise.

    """
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for i in range(0, len(captions), 64):
        part = list(captions[i : i + 64])
        if isinstance(model, LatentDiffusion):
            drawn.append(model.sample(part, scale=scale, steps=steps, generator=generator))
            continue
        y = model.net.net.text_encoder.tokenizer(part)
        guided = ClassifierFreeGuidance(model, scale)
        shape = (len(part), *model.event_shape)
        states = dpm_solver_sample(guided, shape, steps=steps, y=y, clip=1.0, generator=generator)
        drawn.append(to_unit(last(states)))
    return torch.cat(drawn)
