"""The recipes of chapter 12: scenes as codes and as pixels, told a text, and who reads a scene."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.data import PLACES, RELATIONS, SCENE_WORDS, scenes, to_signed, to_unit
from course_lib.diffusion import Denoiser, LatentDiffusion, Prompted
from course_lib.diffusion.controlnet import ControlNet
from course_lib.diffusion.edges import edges
from course_lib.diffusion.latent_diffusion import ControlledDiffusion
from course_lib.latent import KLAutoencoder
from course_lib.metrics import (
    SceneJudge,
    all_pairs,
    contour_agreement,
    scene_shares,
    scene_targets,
    swapped_shares,
)
from course_lib.nn import TextEncoder, UNet, WordTokenizer
from course_lib.training.checkpoints import load_pretrained
from course_lib.training.recipes import Recipe, register
from course_lib.training.scene_quality import (
    N_TEST,
    draw_scenes,
    new_captions,
    scene_judge,
    scene_quality,
    scenes_name,
    test_scenes,
    two_things,
)
from course_lib.training.sudden_convergence import sudden_convergence

N_SCENES = 16_384
SCENES = (
    f'scenes({N_SCENES:,}), of load_digits("train"); tested on {N_TEST:,} of load_digits("test")'
)
SCENES_OF = {  # what models are trained on, by whose digits they are
    "digits": SCENES,
    "mnist": SCENES.replace("load_digits", "load_mnist"),
}


def training_scenes(source: str = "digits") -> tuple[Tensor, list[str]]:
    """The scenes that all models of that source are trained on, and their captions."""
    return scenes(N_SCENES, source=source, generator=torch.Generator().manual_seed(0))


# --- who reads a scene ---------------------------------------------------------------------------


def judged_scenes(source: str = "digits") -> tuple[Tensor, Tensor]:
    """Training images and what they show; of unseen colours, too: it must not miss them."""
    images, captions = training_scenes(source)
    generator = torch.Generator().manual_seed(2)
    more, other = scenes(N_SCENES // 8, source=source, unseen=True, generator=generator)
    return torch.cat([images, more]), scene_targets([*captions, *other])


for source, of in (("digits", "a scene"), ("mnist", "a scene of MNIST's digits")):
    register(
        Recipe(
            name=scenes_name("judge", source),
            summary=f"A convolutional classifier of what {of} shows",
            data=SCENES_OF[source].replace("of load", "and 2,048 of unseen colours, of load", 1),
            build=SceneJudge,
            load=partial(judged_scenes, source),
            options={"steps": 2500, "batch_size": 128, "lr": 2e-3, "weight_decay": 0.05},
            evaluate=lambda model, source=source: model.fidelity(*test_scenes(source)),
        )
    )

# --- autoencoders --------------------------------------------------------------------------------


@torch.no_grad()
def autoencoder_metrics(
    model: KLAutoencoder, source: str = "digits"
) -> dict[str, float | list[dict]]:
    """Rate and distortion of the test images, what a reconstruction loses, and the latents."""
    images, captions = test_scenes(source)
    x = to_signed(images)
    rate, distortion = model.rate_distortion(x, generator=torch.Generator().manual_seed(0))
    error = distortion.mean().item()
    shown = torch.cat([to_unit(model.decode(model.encode(part)[0])) for part in x.split(500)])
    latent = model.to_latent(x, generator=torch.Generator().manual_seed(0)) / model.latent_scale
    return {
        "rate, bits an image": rate.mean().item() / math.log(2),
        "mean squared error": error,
        "peak signal to noise, dB": 10 * math.log10(2**2 / error),  # the range is [−1, 1]
        "share of the variance lost": error / (x - x.mean(0)).square().mean().item(),
        "numbers of the latent": latent[0].numel(),
        "numbers of an image": x[0].numel(),
        "reconstructions": [scene_quality(shown, captions, source=source)],
        "latents": [
            {"channel": i, "mean": channel.mean().item(), "variance": channel.var().item()}
            for i, channel in enumerate(latent.transpose(0, 1))
        ],
        "scale factor": 1 / latent.std().item(),
    }


for source, factor, steps in (
    ("digits", 4, 3000),
    ("digits", 2, 3000),
    ("digits", 8, 2000),
    ("mnist", 4, 3000),
):
    name = scenes_name("autoencoder", source)
    scenes_of = "scenes" if source == "digits" else "scenes of MNIST's digits"
    register(
        Recipe(
            name=name if factor == 4 else f"{name}_{factor}",
            summary=f"An autoencoder with a KL term, factor {factor}, of {scenes_of}",
            data=SCENES_OF[source],
            build=lambda factor=factor: KLAutoencoder((3, 32, 32), channels=4, factor=factor),
            load=lambda source=source: to_signed(training_scenes(source)[0]),
            options={"steps": steps, "batch_size": 32, "lr": 2e-3, "ema": 0.995},
            evaluate=partial(autoencoder_metrics, source=source),
        )
    )


# --- what a model does with a text ---------------------------------------------------------------

SCALES = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0)
N_PROMPTS, SCALE = 500, 3.0


def numbers(part: nn.Module) -> int:
    """How many parameters a part has."""
    return sum(p.numel() for p in part.parameters())


def prompted(model: Denoiser) -> Prompted:
    """The network with its reader of prompts; EDM has it inside its preconditioning."""
    return model.net if isinstance(model.net, Prompted) else model.net.net


def multiply_adds(model: Denoiser) -> int:
    """Multiplications, each with an addition, of one call of the network for one image."""
    prompt = prompted(model).text_encoder.tokenizer(new_captions(1))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.predict(torch.zeros(1, *model.event_shape), 1.0, y=prompt)
    return counter.get_total_flops() // 2


def text_metrics(
    model: LatentDiffusion | Denoiser,
    *,
    scales: Sequence[float] = SCALES,
    n: int = N_PROMPTS,
    source: str = "digits",
) -> dict[str, float | list[dict]]:
    """What a model shows of what it is told, by scale; where it fails, and what chance would do."""
    said, judge = new_captions(n), scene_judge(source)
    drawn = {scale: draw_scenes(model, said, scale=scale) for scale in {*scales, SCALE}}
    quality, generator = partial(scene_quality, source=source), torch.Generator().manual_seed(5)
    real = scenes(n, source=source, split="test", generator=generator)  # the ceiling
    others = all_pairs(scene_targets(said), judge.answers(drawn[SCALE]))
    new = new_captions(n, unseen=True)
    denoiser = model.denoiser if isinstance(model, LatentDiffusion) else model
    net = prompted(denoiser)
    kind = "U-Net" if isinstance(net.unet, UNet) else "transformer"
    sizes = {kind: numbers(net.unet), "text encoder": numbers(net.text_encoder)}
    if isinstance(model, LatentDiffusion):
        sizes["autoencoder"] = numbers(model.autoencoder)
    return {
        "fidelity": [{"scale": s, **quality(drawn[s], said)} for s in scales],
        "real scenes": [quality(*real)],
        "chance": [scene_shares(*others)],
        "unseen": [
            {"prompts": "seen", "scale": SCALE, **quality(drawn[SCALE], said)},
            {
                "prompts": "unseen",
                "scale": SCALE,
                **judge.fidelity(draw_scenes(model, new, scale=SCALE), new),
            },
        ],
        "counts": count_rows(said, drawn[SCALE], source),
        **binding_metrics(model, n, source),
        "parameters of the parts": [{"part": part, "parameters": k} for part, k in sizes.items()],
        "numbers that noise is added to": math.prod(denoiser.event_shape),
        "multiply-adds of a call": multiply_adds(denoiser),
    }


def count_rows(said: Sequence[str], images: Tensor, source: str = "digits") -> list[dict]:
    """Of images that were to show one thing, and of those of two: how many show one, and two.

    Chance: the shares of all images together.
    """
    asked = scene_targets(said)[:, 0] >= len(PLACES)
    two = scene_judge(source).answers(images)[:, 0] >= len(PLACES)
    rows = []
    for count, which in ((1, ~asked), (2, asked)):
        share = two[which].double().mean().item()
        chance = two.double().mean().item()
        row = {"asked": count, "prompts": int(which.sum())}
        row |= {"one": 1 - share, "two": share, "chance of two": chance}
        rows.append(row)
    return rows


def binding_metrics(
    model: LatentDiffusion | Denoiser, n: int, source: str = "digits"
) -> dict[str, list[dict]]:
    """Of two things that differ in all: who got whose digit, colour, weight, and whose place.

    Chance is that of the same images beside the prompts of others. A model that knows what words
    there are, and not whose they are, shows as many pairs swapped as right.
    """
    said = two_things(n)
    asked = scene_targets(said)
    answers = scene_judge(source).answers(draw_scenes(model, said, scale=SCALE))
    pairs = all_pairs(asked, answers)
    swapped = []
    for what in ("digit", "colour", "weight"):
        found, chance = swapped_shares(asked, answers, what), swapped_shares(*pairs, what)
        by_chance = {f"chance {k}": chance[k] for k in ("right", "swapped")}
        swapped.append({"what": what, **found, **by_chance})
    order = []
    for i, where in enumerate(RELATIONS):
        mine, seen = asked[i :: len(RELATIONS)], answers[i :: len(RELATIONS)]
        row = {"relation": where, "prompts": len(mine)}
        row["all"] = (mine == seen).all(1).double().mean().item()
        # The other way round: all of one thing in the place of the other.
        row["exchanged"] = (exchanged(mine) == seen).all(1).double().mean().item()
        row["chance"] = scene_shares(*pairs)["all"]
        order.append(row)
    return {"swapped": swapped, "order": order}


def exchanged(said: Tensor) -> Tensor:
    """Targets ``[n, 7]`` of the same two things, each in the other's place."""
    return said[:, [0, 4, 5, 6, 1, 2, 3]]


# --- text to image -------------------------------------------------------------------------------

LENGTH = 12  # tokens: the start, and the ten words of the longest caption


def text_encoder() -> TextEncoder:
    """An untrained reader of captions."""
    return TextEncoder(WordTokenizer(SCENE_WORDS, length=LENGTH), dim=64, depth=2, heads=4)


def captioned_scenes(source: str = "digits") -> tuple[Tensor, Tensor]:
    """Training images in [−1, 1], and their captions' tokens."""
    images, captions = training_scenes(source)
    return to_signed(images), WordTokenizer(SCENE_WORDS, length=LENGTH)(captions)


def latent_model() -> LatentDiffusion:
    """Untrained, on the latents of the stored autoencoder."""
    unet = UNet((4, 8, 8), widths=(48, 96), context_dim=64, scale=1000.0)
    return LatentDiffusion(KLAutoencoder((3, 32, 32), channels=4, factor=4), unet, text_encoder())


def with_autoencoder(
    model: LatentDiffusion, data: tuple[Tensor, Tensor], source: str = "digits"
) -> None:
    """Take the stored autoencoder of the source's scenes, and measure the scale of its latents."""
    stored = load_pretrained(scenes_name("autoencoder", source))
    model.autoencoder.load_state_dict(stored.state_dict())
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
        evaluate=lambda model: text_metrics(model),
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


def convergence_metrics(diffusion: LatentDiffusion, *, seeds: int = 4, **options) -> list[dict]:
    """How fast ControlNets that start from other seeds come to follow contours of test scenes."""
    data, wanted = controlled_scenes(), contours(test_scenes()[0][:24])
    rows = []
    for seed in range(seeds):
        rows += sudden_convergence(diffusion, data, wanted, seed=seed, **options)
    return rows


register(
    Recipe(
        name="controlnet_scenes",
        summary="A ControlNet that tells latent_scenes the contours of a scene",
        data=SCENES.replace(", of", ", their captions and contours, of", 1),
        build=control_net,
        load=controlled_scenes,
        options={"steps": 1600, "batch_size": 32, "lr": 1e-3, "ema": 0.995},
        evaluate=lambda model: {
            **control_metrics(model),
            "sudden convergence": convergence_metrics(model.diffusion),
        },
    )
)
