"""The recipes of chapter 12: autoencoders of scenes, and who reads what a scene shows."""

import math

import torch
from torch import Tensor

from course_lib.data import SCENE_WORDS, scenes, to_signed
from course_lib.diffusion.controlnet import ControlNet
from course_lib.diffusion.edges import edges
from course_lib.diffusion.latent_diffusion import ControlledDiffusion, LatentDiffusion
from course_lib.latent import KLAutoencoder
from course_lib.metrics import SceneJudge, contour_agreement, scene_targets
from course_lib.nn import TextEncoder, UNet, WordTokenizer
from course_lib.training.checkpoints import load_pretrained
from course_lib.training.recipes import Recipe, register

N_SCENES, N_TEST = 16_384, 2_000
SCENES = (
    f'scenes({N_SCENES:,}), of load_digits("train"); tested on {N_TEST:,} of load_digits("test")'
)


def training_scenes() -> tuple[Tensor, list[str]]:
    """The scenes that all models of chapter 12 are trained on, and their captions."""
    return scenes(N_SCENES, generator=torch.Generator().manual_seed(0))


def test_scenes() -> tuple[Tensor, list[str]]:
    """Scenes of digits that no model has seen, and their captions."""
    return scenes(N_TEST, split="test", generator=torch.Generator().manual_seed(1))


# --- who reads a scene ---------------------------------------------------------------------------


def judged_scenes() -> tuple[Tensor, Tensor]:
    """Training images and what they show; of unseen colours, too: it must not miss them."""
    images, captions = training_scenes()
    more, other = scenes(N_SCENES // 8, unseen=True, generator=torch.Generator().manual_seed(2))
    return torch.cat([images, more]), scene_targets([*captions, *other])


register(
    Recipe(
        name="judge_scenes",
        summary="A convolutional classifier of what a scene shows",
        data=SCENES.replace("of load", "and 2,048 of unseen colours, of load", 1),
        build=SceneJudge,
        load=judged_scenes,
        options={"steps": 2500, "batch_size": 128, "lr": 2e-3, "weight_decay": 0.05},
        evaluate=lambda model: model.fidelity(*test_scenes()),
    )
)

# --- autoencoders --------------------------------------------------------------------------------


@torch.no_grad()
def autoencoder_metrics(model: KLAutoencoder) -> dict[str, float]:
    """Rate and distortion of the test images."""
    images, _ = test_scenes()
    generator = torch.Generator().manual_seed(0)
    rate, distortion = model.rate_distortion(to_signed(images), generator=generator)
    return {
        "rate, bits an image": rate.mean().item() / math.log(2),
        "mean squared error": distortion.mean().item(),
    }


for factor, channels, steps in ((4, 4, 3000), (2, 4, 1200), (8, 4, 2000)):
    name = "autoencoder_scenes" if factor == 4 else f"autoencoder_scenes_{factor}"
    register(
        Recipe(
            name=name,
            summary=f"An autoencoder with a KL term, factor {factor}, of scenes",
            data=SCENES,
            build=lambda factor=factor, channels=channels: KLAutoencoder(
                (3, 32, 32), channels=channels, factor=factor
            ),
            load=lambda: to_signed(training_scenes()[0]),
            options={"steps": steps, "batch_size": 32, "lr": 2e-3, "ema": 0.995},
            evaluate=autoencoder_metrics,
        )
    )


# --- text to image -------------------------------------------------------------------------------

LENGTH = 12  # tokens: the start, and the ten words of the longest caption


def text_encoder() -> TextEncoder:
    """An untrained reader of captions."""
    return TextEncoder(WordTokenizer(SCENE_WORDS, length=LENGTH), dim=64, depth=2, heads=4)


def captioned_scenes() -> tuple[Tensor, Tensor]:
    """Training images in [−1, 1], and their captions' tokens."""
    images, captions = training_scenes()
    return to_signed(images), WordTokenizer(SCENE_WORDS, length=LENGTH)(captions)


def latent_model() -> LatentDiffusion:
    """Untrained, on the latents of the stored autoencoder."""
    unet = UNet((4, 8, 8), widths=(48, 96), context_dim=64, scale=1000.0)
    return LatentDiffusion(KLAutoencoder((3, 32, 32), channels=4, factor=4), unet, text_encoder())


def with_autoencoder(model: LatentDiffusion, data: tuple[Tensor, Tensor]) -> None:
    """Take the stored autoencoder, and measure the scale of its latents."""
    model.autoencoder.load_state_dict(load_pretrained("autoencoder_scenes").state_dict())
    generator = torch.Generator().manual_seed(0)
    model.autoencoder.measure_scale(data[0][:2048], generator=generator)


register(
    Recipe(
        name="latent_scenes",
        summary="Latent diffusion of scenes, told their captions",
        data=SCENES.replace(", of", " and their captions, of", 1),
        build=latent_model,
        load=captioned_scenes,
        prepare=with_autoencoder,
        options={"steps": 5000, "batch_size": 64, "lr": 1.5e-3, "ema": 0.998},
        evaluate=lambda model: {"nothing": 0.0},
    )
)

# --- control -------------------------------------------------------------------------------------

STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)


def contours(images: Tensor) -> Tensor:
    """The contours ``[n, 1, 32, 32]`` of scenes in [0, 1]."""
    return torch.cat([edges(part) for part in images.split(256)])


def controlled_scenes() -> tuple[Tensor, Tensor, Tensor]:
    """Training images in [−1, 1], their captions' tokens, and their contours."""
    images, tokens = captioned_scenes()
    return images, tokens, contours((images + 1) / 2)


def control_net() -> ControlledDiffusion:
    """Nothing but a locked copy's equal at first: of the stored model of scenes."""
    diffusion = load_pretrained("latent_scenes")
    return ControlledDiffusion(diffusion, ControlNet(diffusion.model, 1))


def control_metrics(model: ControlledDiffusion, *, n: int = 128) -> dict[str, list[dict]]:
    """What samples make of the contours and the captions of test scenes, by strength.

    ``"agreement"`` is with the contour given, and ``"chance"`` with that of another scene. Samples
    without a prompt know the scene by its contour alone; ``"all"`` is the share of those that show
    what the caption of the contour's scene says, digit, colour, place and weight.
    """
    images, captions = (part[:n] for part in test_scenes())
    wanted, judge = contours(images), load_pretrained("judge_scenes")
    rows = []
    for prompts, scale in ((captions, 3.0), ([""] * n, 1.0)):
        for strength in STRENGTHS:
            made = model.diffusion.sample(
                prompts,
                scale=scale,
                steps=8,
                controls=[(model.control_net, wanted, strength)],
                generator=torch.Generator().manual_seed(0),
            )
            found = contours(made)
            rows.append(
                {
                    "prompt": "caption" if prompts[0] else "none",
                    "strength": strength,
                    "agreement": contour_agreement(found, wanted).mean().item(),
                    "chance": contour_agreement(found, wanted.roll(1, 0)).mean().item(),
                    **judge.fidelity(made, captions),
                }
            )
    return {"by strength": rows}


register(
    Recipe(
        name="controlnet_scenes",
        summary="A ControlNet that tells latent_scenes the contours of a scene",
        data=SCENES.replace(", of", ", their captions and contours, of", 1),
        build=control_net,
        load=controlled_scenes,
        options={"steps": 1600, "batch_size": 32, "lr": 1e-3, "ema": 0.995},
        evaluate=control_metrics,
    )
)
