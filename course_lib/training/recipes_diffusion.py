"""The recipes of chapters 06 and 07: DDPMs on toys, the digits and MNIST."""

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.data import load_digits, load_mnist, to_signed, to_unit
from course_lib.diffusion import DDPM, DiscreteSchedule, ddim_sample, ddpm_sample, last
from course_lib.nn import TimeMLP, UNet
from course_lib.training.batches import digits_batch, mnist_batch
from course_lib.training.quality import N_SAMPLES, feature_distance
from course_lib.training.recipes import Recipe, register
from course_lib.training.recipes_flows import N_TOY, toy_points

# Which samplers the cards compare: (steps, eta), the last of the digits' being DDPM itself.
DIGITS_STEPS, ETAS = (5, 10, 20, 50, 100, 400), (0.0, 0.5, 1.0)
DIGITS_SAMPLERS = [(steps, eta) for steps in DIGITS_STEPS for eta in ETAS]
MNIST_SAMPLERS = [(10, 0.0), (20, 0.0), (50, 0.0), (50, 1.0), (250, 1.0)]


@torch.no_grad()
def bound_metrics(
    model: DDPM, x: Tensor, y: Tensor | None = None, *, levels: int | None = None
) -> dict[str, list]:
    """The bound of the mean −log p(x) of test data, in nats, with each of the two variances.

    Of images with grey levels also the bits per dimension that it comes to.
    """
    bounds = []
    for variance in ("posterior", "beta"):
        bounded = DDPM(model.net, model.schedule, predicts=model.predicts, variance=variance)
        noise = torch.Generator().manual_seed(1)
        elbo = torch.cat(
            [
                bounded.elbo(x[i], None if y is None else y[i], levels=levels, generator=noise)
                for i in torch.arange(len(x)).split(500)
            ]
        )
        nats = -elbo.mean().item()
        bound = {
            "variance": variance,
            "negative ELBO (nats)": nats,
            "standard error (nats)": (elbo.std() / len(elbo) ** 0.5).item(),
        }
        if levels is not None:
            # The bound is of a probability, with no cubes around the levels: no log2(levels).
            bound["bits per dimension"] = nats / (x[0].numel() * math.log(2))
        bounds.append(bound)
    return {"bounds": bounds}


def sampler_metrics(model: DDPM, data: str, samplers: list[tuple[int, float]]) -> dict[str, list]:
    """The feature distance of each sampler's ``N_SAMPLES`` samples, and the seconds they took.

    All draw from one seed. Classes, where there are any, come in turn. The seconds are the
    processor's, so that other work on the machine does not count, and stand where eta is 0.
    """
    classes = None if model.net.time.n_classes is None else torch.arange(N_SAMPLES) % 10
    rows = []
    for steps, eta in samplers:
        noise, images = torch.Generator().manual_seed(0), []
        started = time.process_time()
        for i in torch.arange(N_SAMPLES).split(100):
            y = None if classes is None else classes[i]
            states = ddim_sample(
                model,
                (len(i), *model.net.event_shape),
                steps=steps,
                eta=eta,
                y=y,
                clip=1.0,
                generator=noise,
            )
            images.append(last(states))
        seconds = {"seconds": time.process_time() - started} if eta == 0 else {}
        distance = feature_distance(to_unit(torch.cat(images)), data)
        rows.append({"steps": steps, "eta": eta, "distance": distance, **seconds})
    return {"samplers": rows}


def with_fewer_steps(model: DDPM, steps: int, variance: str = "posterior") -> DDPM:
    """The DDPM of ``steps`` longer noising steps, with the network of ``model``, told its times.

    Song et al. 2021, table 1: DDPM with fewer steps; σ̂ is that with the variance ``"beta"``.
    """
    times = torch.tensor(model.path.sampling_times(steps))
    log_alpha_bars = model.path.log_alpha_bar(times)
    betas = -torch.expm1(log_alpha_bars.diff(prepend=log_alpha_bars.new_zeros(1)))
    schedule = DiscreteSchedule(betas.float())
    return DDPM(lambda x, t: model.net(x, times[t]), schedule, variance=variance)


def beta_metrics(model: DDPM, data: str, all_steps: Sequence[int]) -> dict[str, list]:
    """The feature distances of DDPM with the variance β, by the number of steps."""
    rows = []
    for steps in all_steps:
        noise = torch.Generator().manual_seed(0)
        sampler = with_fewer_steps(model, steps, "beta")
        shape = (100, *model.net.event_shape)
        batches = [
            ddpm_sample(sampler, shape, clip=1.0, generator=noise) for _ in range(N_SAMPLES // 100)
        ]
        distance = feature_distance(to_unit(torch.cat([last(states) for states in batches])), data)
        rows.append({"steps": steps, "distance": distance})
    return {"samplers with variance beta": rows}


def digits_metrics(model: DDPM) -> dict[str, list]:
    """The bound of the test digits, and all samplers."""
    x = to_signed(load_digits("test")[0])
    return (
        bound_metrics(model, x, levels=17)
        | sampler_metrics(model, "digits", DIGITS_SAMPLERS)
        | beta_metrics(model, "digits", DIGITS_STEPS)
    )


def mnist_metrics(model: DDPM) -> dict[str, list]:
    """The bound of 100 test images, and a few samplers."""
    x, y = (part[::100] for part in load_mnist("test"))
    bound = bound_metrics(model, to_signed(x), y, levels=256)
    return bound | sampler_metrics(model, "mnist", MNIST_SAMPLERS)


for toy_name in ("two_moons", "pinwheel"):
    register(
        Recipe(
            name=f"ddpm_{toy_name}",
            summary=f"DDPM, 200 steps of a linear schedule, on the 2-D toy {toy_name}",
            data=f'toy("{toy_name}"), {N_TOY:,} points, seed 0; tested on 2,000, seed 1',
            build=lambda: DDPM(TimeMLP(2), DiscreteSchedule.linear(200)),
            load=lambda toy_name=toy_name: toy_points(toy_name, seed=0),
            options={"steps": 8000, "batch_size": 512, "lr": 2e-3, "ema": 0.998},
            evaluate=lambda model, toy_name=toy_name: bound_metrics(
                model, toy_points(toy_name, seed=1)[:2000]
            ),
        )
    )

for kind, make_schedule in (("", DiscreteSchedule.linear), ("_cosine", DiscreteSchedule.cosine)):
    register(
        Recipe(
            name=f"ddpm_digits{kind}",
            summary=f"DDPM, 400 steps of a {kind[1:] or 'linear'} schedule, U-Net, on the digits",
            data='load_digits("train"), 1,438 images, jittered, grey; tested on the other 359',
            build=lambda make_schedule=make_schedule: DDPM(
                UNet((1, 8, 8), widths=(24, 48)), make_schedule(400)
            ),
            load=lambda: load_digits("train")[0],
            transform=digits_batch("signed"),
            options={"steps": 5000, "batch_size": 128, "lr": 2e-3, "ema": 0.998},
            evaluate=digits_metrics,
        )
    )

register(
    Recipe(
        name="ddpm_mnist",
        summary="DDPM, 1,000 steps of a linear schedule, U-Net, given the class, on MNIST",
        data='load_mnist("train"), 60,000 images and labels; tested on the 10,000 test images',
        build=lambda: DDPM(
            UNet((1, 28, 28), widths=(16, 32, 64), n_classes=10), DiscreteSchedule.linear(1000)
        ),
        load=lambda: load_mnist("train"),
        transform=mnist_batch("signed"),
        options={"steps": 8000, "batch_size": 64, "lr": 2e-3, "ema": 0.999},
        evaluate=mnist_metrics,
    )
)
