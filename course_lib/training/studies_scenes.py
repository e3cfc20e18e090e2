"""The studies of chapters 12 and 14: what of a model of scenes makes it learn faster."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from course_lib.data import to_signed
from course_lib.diffusion import (
    EDM,
    Denoiser,
    LatentDiffusion,
    Prompted,
    StraightPath,
    cosmap_times,
    logit_normal_times,
    mode_times,
)
from course_lib.latent import KLAutoencoder
from course_lib.nn import MMDiT, UNet
from course_lib.training.checkpoints import load_pretrained
from course_lib.training.equal_time import looks_by_the_clock, train_by_the_clock
from course_lib.training.fit import fit
from course_lib.training.recipes import recipe
from course_lib.training.recipes_scenes import (
    SCALE,
    SCENES,
    autoencoder_metrics,
    captioned_scenes,
    multiply_adds,
    numbers,
    text_encoder,
)
from course_lib.training.scene_quality import (
    draw_scenes,
    new_captions,
    scene_quality,
    test_scenes,
)
from course_lib.training.studies import Study, register_study, started

CAPTIONED = SCENES.replace(", of", " and their captions, of", 1)
N_PROMPTS = 256  # whose images are looked at


def model_row(name: str, model: LatentDiffusion | EDM) -> dict[str, float | str]:
    """How large a model is, without its autoencoder, and what a call of its network costs."""
    denoiser = model.denoiser if isinstance(model, LatentDiffusion) else model
    row = {"model": name, "parameters": numbers(denoiser)}
    return row | {"multiply-adds of a call": multiply_adds(denoiser)}


# --- chapter 12: latents or pixels ---------------------------------------------------------------

# The root of the mean square of the training images' numbers, in [−1, 1].
PIXELS_SIGMA = 0.96
EQUAL_TIME = 300.0  # seconds of processor time for each of two models
SHARES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # of it, at which they are looked at


def pixel_model() -> EDM:
    """Untrained: the denoiser of ``latent_scenes``, on pixels.

    It looks at the text where the latent model does, at 8×8 and 4×4, and has as many parameters;
    on top of it there are two levels, narrow as they must be to end in time.
    """
    unet = UNet(
        (3, 32, 32),
        widths=(16, 32, 64, 96),
        context_dim=64,
        context_levels=(2, 3),
        scale=1000.0,
    )
    return EDM(Prompted(unet, text_encoder()), sigma_data=PIXELS_SIGMA, p_mean=-0.4, drop=0.1)


def new_models(data: tuple[Tensor, Tensor]) -> dict[str, LatentDiffusion | EDM]:
    """The two models of ``equal_time_scenes``, untrained."""
    made = recipe("latent_scenes")
    latent = made.new_model()
    made.prepare(latent, data)
    return {"latent": latent, "pixels": started(pixel_model)}


def equal_time_rows(
    folder: Path,
    *,
    budget: float = EQUAL_TIME,
    shares: Sequence[float] = SHARES,
    n: int = N_PROMPTS,
) -> list[dict]:
    """Latent model and pixel model from scratch, for the same processor time, as two curves.

    Text encoder, batches, optimiser and its learning rate, training noise, guidance and sampler are
    the same. The latent model encodes every batch anew within its time; the training of its
    autoencoder, ``autoencoder_time``, comes on top.

    Args:
        folder: Where the state is kept; a run that was ended goes on from there.
        budget: Seconds of processor time for each model.
        shares: At which shares of it to look at them, rising to 1.
        n: Prompts of each look.

    """
    data, said, rows = captioned_scenes(), new_captions(n), []
    for name, model in new_models(data).items():
        seen = looks_by_the_clock(
            model,
            data,
            lambda model: scene_quality(draw_scenes(model, said, scale=SCALE), said),
            moments=[budget * share for share in shares],
            file=folder / f"{name}.json",
            batch_size=64,
            lr=1e-3,
        )
        for share, one in zip(shares, seen, strict=True):
            del one["seconds"]
            rows.append({"model": name, "share": share, **one})
    return rows


def autoencoder_time(seconds: float = 5.0) -> float:
    """Processor time in seconds that the training of the autoencoder takes, from a few steps."""
    made = recipe("autoencoder_scenes")
    x, options = made.load()[: 32 * 50], made.options
    sizes = {"batch_size": options["batch_size"], "lr": options["lr"]}
    few = next(train_by_the_clock(made.new_model(), (x,), moments=[seconds], **sizes))
    return seconds / few.steps * options["steps"]


def latent_or_pixels(folder: Path) -> dict[str, float | list[dict]]:
    """The metrics of ``equal_time_scenes``."""
    models = new_models(captioned_scenes())
    return {
        "models": [model_row(name, model) for name, model in models.items()],
        "equal processor time": equal_time_rows(folder),
        "processor time of each, s": EQUAL_TIME,
        "processor time of the autoencoder, share of that": autoencoder_time() / EQUAL_TIME,
    }


register_study(
    Study(
        name="equal_time_scenes",
        summary="Diffusion of scenes on latents or on pixels, at equal processor time",
        data=CAPTIONED,
        budget=EQUAL_TIME,
        seeds=(0,),
        run=latent_or_pixels,
    )
)

# --- chapter 14: what all of its studies share ---------------------------------------------------

LOGIT_NORMAL = partial(logit_normal_times, m=0.0, s=1.0)


@torch.no_grad()
def encoded(autoencoder: KLAutoencoder, images: Tensor) -> Tensor:
    """Latents of images in [−1, 1], drawn once: so no training spends its time on the encoder."""
    generator = torch.Generator().manual_seed(0)
    parts = [autoencoder.to_latent(part, generator=generator) for part in images.split(256)]
    return torch.cat(parts)


def latent_flow(
    net: Callable[[], UNet | MMDiT],
    autoencoder: KLAutoencoder,
    draw_times: Callable[..., Tensor] | None,
    seed: int = 0,
) -> LatentDiffusion:
    """An untrained rectified flow of latents, told a text."""
    path = StraightPath(draw_times)
    return started(lambda: LatentDiffusion(autoencoder, net(), text_encoder(), path=path), seed)


def flow_looks(
    flow: LatentDiffusion,
    data: tuple[Tensor, Tensor],
    look: Callable[[LatentDiffusion], dict],
    *,
    lr: float = 1.5e-3,
    **options,
) -> list[dict]:
    """``looks_by_the_clock`` of a flow that is trained on latents and tokens.

    ``look`` gets the whole, with the autoencoder. Its network is another one afterwards.
    """

    def look_at(denoiser: Denoiser) -> dict:
        flow.denoiser = denoiser
        return look(flow)

    return looks_by_the_clock(flow.denoiser, data, look_at, batch_size=64, lr=lr, **options)


def drawn_quality(flow: LatentDiffusion, steps: int = 12) -> dict[str, float]:
    """``scene_quality`` of what it draws of prompts by Euler's method, guided."""
    said = new_captions(N_PROMPTS)
    return scene_quality(draw_scenes(flow, said, scale=SCALE, steps=steps), said)


# --- chapter 14: a U-Net or a transformer --------------------------------------------------------

UNET_OR_MMDIT = 300.0
MOMENTS = (0.1, 0.25, 0.5, 0.75, 1.0)  # shares of it


def scene_mmdit(channels: int = 4) -> MMDiT:
    """The transformer of ``sd3_scenes``."""
    return MMDiT((channels, 8, 8), patch=2, dim=96, depth=4, heads=4, context_dim=64)


def scene_unet() -> UNet:
    """A U-Net of as many parameters as ``scene_mmdit``."""
    return UNet((4, 8, 8), widths=(44, 72), groups=4, context_dim=64, scale=1000.0)


def unet_or_mmdit(
    folder: Path, *, budget: float = UNET_OR_MMDIT, shares: Sequence[float] = MOMENTS
) -> dict[str, list[dict]]:
    """The metrics of the study: two networks, all else alike, as two curves over the time."""
    images, tokens = captioned_scenes()
    autoencoder = load_pretrained("latent_scenes").autoencoder
    data, models, rows = (encoded(autoencoder, images), tokens), [], []
    for name, net in (("U-Net", scene_unet), ("MM-DiT", scene_mmdit)):
        flow = latent_flow(net, autoencoder, LOGIT_NORMAL)
        models.append(model_row(name, flow))
        moments = [budget * share for share in shares]
        seen = flow_looks(flow, data, drawn_quality, moments=moments, file=folder / f"{name}.json")
        rows += [{"model": name, **one} for one in seen]
    return {"models": models, "by processor time": rows}


register_study(
    Study(
        name="unet_or_mmdit",
        summary="A rectified flow of scenes by a U-Net or an MM-DiT, at equal processor time",
        data=CAPTIONED,
        budget=UNET_OR_MMDIT,
        seeds=(0,),
        run=unet_or_mmdit,
    )
)

# --- chapter 14: at which times to train ---------------------------------------------------------

TIME_SAMPLINGS: dict[str, Callable[..., Tensor] | None] = {
    "uniform": None,
    "logit-normal (0, 1)": LOGIT_NORMAL,
    "logit-normal (0.5, 0.6)": partial(logit_normal_times, m=0.5, s=0.6),
    "mode (1.29)": partial(mode_times, s=1.29),
    "cosmap": cosmap_times,
}
SAMPLINGS_TIME, SEEDS = 75.0, (0, 1, 2)
LOSS_TIMES = tuple(i / 10 for i in range(1, 10))
STEPS = (4, 8, 16)


def small_mmdit() -> MMDiT:
    """A transformer that learns in a minute what it will be told apart by."""
    return MMDiT((4, 8, 8), patch=2, dim=64, depth=4, heads=4, context_dim=64)


@torch.no_grad()
def losses_by_time(flow: LatentDiffusion, *, n: int = 512) -> list[dict]:
    """The mean squared error of the velocity at each of ``LOSS_TIMES``, on test scenes.

    The noise is the same at all times, and for all models.
    """
    images, captions = (part[:n] for part in test_scenes())
    x0, tokens = encoded(flow.autoencoder, to_signed(images)), flow.text_encoder.tokenizer(captions)
    eps, model = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1)), flow.denoiser
    rows = []
    for t in LOSS_TIMES:
        velocity = model.predict(model.path.noised(x0, t, eps), t, target="velocity", y=tokens)
        rows.append({"t": t, "loss": (velocity - (eps - x0)).square().mean().item()})
    return rows


def mean_rows(rows: Sequence[dict], by: Sequence[str], of: Sequence[str]) -> list[dict]:
    """The mean of columns over all rows that agree in others, and its standard error."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in by), []).append(row)
    means = []
    for values, group in groups.items():
        mean = dict(zip(by, values, strict=True))
        for column in of:
            x = torch.tensor([row[column] for row in group], dtype=torch.float64)
            mean[column] = x.mean().item()
            mean[f"standard error of {column}"] = (x.std() / math.sqrt(len(x))).item()
        means.append(mean)
    return means


def time_samplings(
    folder: Path,
    *,
    budget: float = SAMPLINGS_TIME,
    samplings: dict[str, Callable[..., Tensor] | None] = TIME_SAMPLINGS,
    seeds: Sequence[int] = SEEDS,
) -> dict[str, list[dict]]:
    """The metrics of the study: the loss by time, and fidelity and distance by steps."""
    images, tokens = captioned_scenes()
    autoencoder = load_pretrained("latent_scenes").autoencoder
    data, trained, losses, quality = (encoded(autoencoder, images), tokens), [], [], []

    def look(flow: LatentDiffusion) -> dict:
        drawn = [{"steps": steps, **drawn_quality(flow, steps)} for steps in STEPS]
        return {"losses": losses_by_time(flow), "quality": drawn}

    for seed in seeds:
        for i, (name, draw_times) in enumerate(samplings.items()):
            flow = latent_flow(small_mmdit, autoencoder, draw_times, seed)
            file = folder / f"{i}-{seed}.json"
            (seen,) = flow_looks(flow, data, look, moments=[budget], file=file, seed=seed, lr=2e-3)
            who = {"sampling": name, "seed": seed}
            trained.append({**who, "steps": seen["steps"]})
            losses += [{**who, **row} for row in seen["losses"]]
            quality += [{**who, **row} for row in seen["quality"]]
    return {
        "models": [model_row("MM-DiT", flow)],
        "steps of training": trained,
        "loss by time": losses,
        "quality by steps": quality,
        "mean loss by time": mean_rows(losses, ("sampling", "t"), ("loss",)),
        "mean quality by steps": mean_rows(quality, ("sampling", "steps"), ("all", "distance")),
    }


register_study(
    Study(
        name="time_samplings",
        summary="At which times to train a rectified flow of scenes, at equal processor time",
        data=CAPTIONED,
        budget=SAMPLINGS_TIME,
        seeds=SEEDS,
        run=time_samplings,
    )
)

# --- chapter 14: how many channels a latent has --------------------------------------------------

CHANNELS = (4, 8, 16)
AUTOENCODER_STEPS, CHANNELS_TIME = 1500, 150.0
THIRDS = (1 / 3, 2 / 3, 1.0)


def trained_autoencoder(channels: int, images: Tensor, *, steps: int, file: Path) -> KLAutoencoder:
    """An autoencoder of factor 4, trained as the stored one but for ``steps``, with its scale.

    A training that was ended goes on from ``file``.
    """
    model = started(lambda: KLAutoencoder((3, 32, 32), channels=channels, factor=4))
    options = dict(recipe("autoencoder_scenes").options) | {"steps": steps}
    fit(model, images, **options, checkpoint=file, progress=False, device="cpu")
    model.eval().requires_grad_(False)
    model.measure_scale(images[:2048], generator=torch.Generator().manual_seed(0))
    return model


def autoencoder_row(model: KLAutoencoder) -> dict[str, float]:
    """Rate, distortion, and what the judge reads of reconstructions of the test scenes."""
    measured = autoencoder_metrics(model)
    kept = ("numbers of the latent", "rate, bits an image", "peak signal to noise, dB")
    return {**{key: measured[key] for key in kept}, **measured["reconstructions"][0]}


def latent_channels(
    folder: Path,
    *,
    budget: float = CHANNELS_TIME,
    shares: Sequence[float] = THIRDS,
    channels: Sequence[int] = CHANNELS,
    steps: int = AUTOENCODER_STEPS,
) -> dict[str, float | list[dict]]:
    """The metrics of the study: reconstructions by channels, and a flow on each over the time."""
    images, tokens = captioned_scenes()
    reconstructions, models, rows = [], [], []
    for c in channels:
        file = folder / f"autoencoder-{c}.safetensors"
        autoencoder = trained_autoencoder(c, images, steps=steps, file=file)
        reconstructions.append({"channels": c, **autoencoder_row(autoencoder)})
        flow = latent_flow(partial(scene_mmdit, c), autoencoder, LOGIT_NORMAL)
        models.append({"channels": c, **model_row("MM-DiT", flow)})
        seen = flow_looks(
            flow,
            (encoded(autoencoder, images), tokens),
            drawn_quality,
            moments=[budget * share for share in shares],
            file=folder / f"flow-{c}.json",
        )
        rows += [{"channels": c, **one} for one in seen]
    return {
        "steps of an autoencoder": steps,
        "reconstructions": reconstructions,
        "models": models,
        "by processor time": rows,
    }


register_study(
    Study(
        name="latent_channels",
        summary="Latents of 4, 8, 16 channels: what is lost, and what a flow learns at equal time",
        data=CAPTIONED,
        budget=CHANNELS_TIME,
        seeds=(0,),
        run=latent_channels,
    )
)
