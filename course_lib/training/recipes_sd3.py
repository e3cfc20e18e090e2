"""The recipes of chapter 14: transformers of digits by class, and of scenes by their captions."""

from collections.abc import Sequence
from functools import partial

import torch

from course_lib.data import load_digits, quantize
from course_lib.diffusion import (
    ClassifierFreeGuidance,
    FlowMatching,
    LatentDiffusion,
    StraightPath,
    logit_normal_times,
    ode_sample,
)
from course_lib.latent import KLAutoencoder
from course_lib.nn import MMDiT
from course_lib.training.batches import digits_batch
from course_lib.training.quality import N_SAMPLES, conditional_quality
from course_lib.training.recipes import Recipe, register
from course_lib.training.recipes_scenes import (
    N_PROMPTS,
    SCALE,
    SCENES_OF,
    captioned_scenes,
    text_encoder,
    text_metrics,
    with_autoencoder,
)
from course_lib.training.recipes_sde import LEVELS, samples
from course_lib.training.scene_quality import (
    draw_scenes,
    new_captions,
    scene_quality,
    scenes_name,
)

STEPS = (4, 8, 16, 32)  # of Euler's method
SCALES = (1.0, 2.0, 4.0)  # of guidance by class

LOGIT_NORMAL = partial(logit_normal_times, m=0.0, s=1.0)


def scene_transformer(dim: int = 96) -> LatentDiffusion:
    """Untrained, on the latents of a stored autoencoder: Stable Diffusion 3 at our size."""
    net = MMDiT((4, 8, 8), patch=2, dim=dim, depth=4, heads=4, context_dim=64)
    autoencoder = KLAutoencoder((3, 32, 32), channels=4, factor=4)
    path = StraightPath(LOGIT_NORMAL)
    return LatentDiffusion(autoencoder, net, text_encoder(), path=path)


def steps_rows(
    model: LatentDiffusion,
    *,
    steps: Sequence[int] = STEPS,
    n: int = N_PROMPTS,
    source: str = "digits",
) -> list[dict]:
    """``scene_quality`` of what is drawn of captions, by steps of Euler's method."""
    said, rows = new_captions(n), []
    for k in steps:
        drawn = draw_scenes(model, said, scale=SCALE, steps=k)
        rows.append({"steps": k, **scene_quality(drawn, said, source=source)})
    return rows


# MNIST's network is narrower: all stored models together must stay small.
for source, whose, dim, steps in (
    ("digits", "scenes'", 96, 5000),
    ("mnist", "MNIST scenes'", 64, 7000),
):
    register(
        Recipe(
            name=scenes_name("sd3", source),
            summary=f"A rectified flow of {whose} latents by an MM-DiT, told their captions",
            data=SCENES_OF[source].replace(", of", " and their captions, of", 1),
            build=partial(scene_transformer, dim),
            load=partial(captioned_scenes, source),
            prepare=partial(with_autoencoder, source=source),
            options={"steps": steps, "batch_size": 64, "lr": 1.5e-3, "ema": 0.998},
            evaluate=lambda model, source=source: {
                **text_metrics(model, source=source),
                "by steps": steps_rows(model, source=source),
            },
        )
    )


def class_rows(
    model: FlowMatching, *, steps: Sequence[int] = STEPS, scales: Sequence[float] = SCALES
) -> list[dict]:
    """``conditional_quality`` of digits whose classes come in turn, by steps and by scale."""
    rows, y = [], torch.arange(N_SAMPLES) % 10
    for scale in scales:
        guided = ClassifierFreeGuidance(model, scale)
        for k in steps:
            images = quantize(samples(guided, ode_sample, n_classes=10, steps=k), LEVELS["digits"])
            rows.append({"scale": scale, "steps": k, **conditional_quality(images, y, "digits")})
    return rows


register(
    Recipe(
        name="dit_digits",
        summary="A rectified flow of the digits by a transformer, told the class",
        data='load_digits("train"), 1,438 images and labels, jittered, dequantized, in [-1, 1); '
        "tested on the other 359",
        build=lambda: FlowMatching(
            MMDiT((1, 8, 8), patch=2, dim=64, depth=4, heads=4, n_classes=10, null_class=True),
            path=StraightPath(LOGIT_NORMAL),
            drop=0.1,
        ),
        load=lambda: load_digits("train"),
        transform=digits_batch("signed dequantized"),
        options={"steps": 4000, "batch_size": 128, "lr": 1.5e-3, "ema": 0.998},
        evaluate=lambda model: {"by steps and scale": class_rows(model)},
    )
)
