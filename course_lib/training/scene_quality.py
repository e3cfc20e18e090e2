"""How good images of scenes are: what they show, and how far they are from real ones."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_int, check_one_of
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
    "scenes_name",
    "test_scenes",
    "two_things",
]

N_TEST = 2_000


def test_scenes(source: str = "digits") -> tuple[Tensor, list[str]]:  # noqa: PT028, no test
    """Scenes of digits that no model has seen, and their captions."""
    generator = torch.Generator().manual_seed(1)
    return scenes(N_TEST, source=source, split="test", generator=generator)


test_scenes.__test__ = False  # no test, in pytest's eyes


@cache
def scene_judge(source: str = "digits") -> SceneJudge:
    """The stored reader of scenes of the source's digits."""
    return load_pretrained(scenes_name("judge", source))


def scenes_name(kind: str, source: str) -> str:
    """The name of a model of scenes, by whose digits they are: ``source``, as of ``scenes``."""
    check_one_of("source", source, ("digits", "mnist"))
    return f"{kind}_scenes" if source == "digits" else f"{kind}_{source}_scenes"


@cache
def _reference(source: str) -> Tensor:
    return _features(test_scenes(source)[0], source)


@torch.no_grad()
def _features(images: Tensor, source: str) -> Tensor:
    return torch.cat([scene_judge(source).features(part) for part in images.split(500)])


def scene_distance(images: Tensor, *, source: str = "digits") -> float:
    """The Fréchet distance of images ``[N, 3, 32, 32]`` in [0, 1] to the 2,000 test scenes.

    In the 128 features of the source's judge, as a share of the variance that the test scenes have
    there. It depends on N, as every such distance: compare equal N only.
    """
    check_floats("images", images, (None, 3, 32, 32))
    reference = _reference(source)
    distance = frechet_distance(_features(images, source), reference)
    return distance / reference.var(0).sum().item()


def scene_quality(
    images: Tensor, captions: Sequence[str], *, source: str = "digits"
) -> dict[str, float]:
    """The shares of the source's judge, as of its ``fidelity``, and ``scene_distance``."""
    shares = scene_judge(source).fidelity(images, captions)
    return {**shares, "distance": scene_distance(images, source=source)}


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
