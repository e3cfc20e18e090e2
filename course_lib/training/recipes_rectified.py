"""The recipes of chapter 13: flows made straight, of toys, digits and MNIST, and 3 into 8."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.data import dequantize, load_mnist, quantize, to_signed, to_unit
from course_lib.diffusion import (
    Denoiser,
    RectifiedFlow,
    distill,
    last,
    ode_sample,
    reflow,
    straightness,
    transport_cost,
)
from course_lib.metrics import energy_distance, permutation_power, permutation_test
from course_lib.nn import TimeMLP, UNet
from course_lib.training.checkpoints import load_pretrained
from course_lib.training.quality import feature_distance
from course_lib.training.recipes import Recipe, register
from course_lib.training.recipes_flows import toy_points
from course_lib.training.recipes_sde import LEVELS, samples

# The first rectified flow from noise, with independent pairs, is chapter 09's flow matching.
FIRST = "flow_matching_{}"
N_PAIRS = {"two_moons": 50_000, "digits": 10_000, "mnist": 10_000}
TEACHER_STEPS = {"two_moons": 50, "digits": 20, "mnist": 10}  # of Heun: twice as many calls
STEPS = (1, 2, 4, 8, 16, 32)
MNIST_STEPS = STEPS[:4]  # a call of its network takes long
N_TEST = 2000  # points that a test of two samples gets


def rectified_name(k: int, data: str) -> str:
    """The name of the k-rectified flow."""
    return FIRST.format(data) if k == 1 else f"rectified_{data}_{k}"


def pairs_of(name: str, data: str, *, k: int) -> tuple[Tensor, Tensor]:
    """The pairs that a stored flow makes: what the k-rectified flow is trained on."""
    teacher = load_pretrained(name)
    generator = torch.Generator().manual_seed(k)
    options = {"steps": TEACHER_STEPS[data], "solver": "heun"}
    return reflow(teacher, N_PAIRS[data], generator=generator, **options)


def start_from(name: str) -> Callable[[RectifiedFlow, object], None]:
    """``prepare`` of a recipe: training starts from the weights of a stored flow."""
    return lambda model, data: model.load_state_dict(load_pretrained(name).state_dict())


NETS = {
    "two_moons": lambda: TimeMLP(2, scale=1000.0),
    "digits": lambda: UNet((1, 8, 8), widths=(24, 48), scale=1000.0),
    "mnist": lambda: UNet((1, 28, 28), widths=(16, 32, 64), scale=1000.0),
}


def flow_metrics(
    model: Denoiser, data: str, *, teacher: Denoiser | None = None
) -> dict[str, float | list]:
    """How straight 500 ways are, what they cost, and how good samples are, by steps of Euler.

    "error" is the root of the mean squared distance of one number to where the exact flow ends from
    the same noise: the model's own, or that of a student's ``teacher``.
    """
    shape = (500, *model.event_shape)
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exactly = {"steps": 16 if data == "mnist" else 32, "solver": "heun", "z": z}
    states = list(ode_sample(model, shape, **exactly))
    end = states[-1] if teacher is None else last(ode_sample(teacher, shape, **exactly))
    rows = []
    for steps in MNIST_STEPS if data == "mnist" else STEPS:
        x = last(ode_sample(model, shape, steps=steps, z=z))
        error = (x - end).square().mean().sqrt().item()
        rows.append({"steps": steps, "error": error, **quality(model, data, steps)})
    return {
        "straightness": straightness(states).mean().item(),
        "transport cost": transport_cost(states[-1], z).item(),
        "steps": rows,
    }


def rectified_metrics(model: Denoiser, data: str, k: int) -> dict[str, float | list]:
    """What ``flow_metrics`` says of the k-rectified flow.

    The card of k = 2 holds the same of the first flow, whose own card is chapter 09's.
    """
    metrics = flow_metrics(model, data)
    if k == 2:
        first = flow_metrics(load_pretrained(rectified_name(1, data)), data)
        metrics |= {f"first flow: {name}": value for name, value in first.items()}
        metrics |= power_of_the_test(data)
    return metrics


def quality(model: Denoiser, data: str, steps: int) -> dict[str, float]:
    """How far samples of Euler's ``steps`` steps are from the data.

    In the plane also the p-value of ``permutation_test``, which asks whether they differ at all.
    """
    if data == "two_moons":
        z = torch.randn(N_TEST, 2, generator=torch.Generator().manual_seed(1))
        x, points = last(ode_sample(model, z.shape, steps=steps, z=z)), toy_points(data, seed=1)
        pair = x, points[:N_TEST]
        p = permutation_test(*pair, generator=torch.Generator().manual_seed(2))
        return {"energy distance": energy_distance(*pair), "p-value": p}
    images = samples(model, ode_sample, steps=steps)
    return {"distance": feature_distance(quantize(images, LEVELS[data]), data)}


def power_of_the_test(data: str) -> dict[str, list]:
    """How often the test of ``quality`` finds, at 5 %, points of a toy that are shifted a little.

    Without a shift it is the share of false alarms.
    """
    if data != "two_moons":
        return {}
    points, others = toy_points(data, seed=1), toy_points(data, seed=2)
    generator, rows = torch.Generator().manual_seed(3), []
    for shift in (0.0, 0.1, 0.15):
        options = {"size": N_TEST, "repeats": 20, "draws": 39, "generator": generator}
        found = permutation_power(points, others + torch.tensor([shift, 0.0]), **options)
        rows.append({"shift": shift, "found": found})
    return {f"power of the test, {N_TEST:,} points": rows}


OPTIONS = {
    "two_moons": {"steps": 4000, "batch_size": 256, "lr": 1e-3, "ema": 0.998},
    "digits": {"steps": 2500, "batch_size": 128, "lr": 1e-3, "ema": 0.998},
    "mnist": {"steps": 1500, "batch_size": 64, "lr": 1e-3, "ema": 0.995},
}

for data in OPTIONS:
    for k in (2, 3):
        before = rectified_name(k - 1, data)
        register(
            Recipe(
                name=rectified_name(k, data),
                summary=f"the {k}-rectified flow of {data}",
                data=f"{N_PAIRS[data]:,} pairs that {before} makes with "
                f"{TEACHER_STEPS[data]} steps of Heun",
                build=lambda data=data: RectifiedFlow(NETS[data]()),
                prepare=start_from(before),
                load=lambda before=before, data=data, k=k: pairs_of(before, data, k=k),
                options=OPTIONS[data],
                evaluate=lambda model, data=data, k=k: rectified_metrics(model, data, k),
            )
        )
    if data == "mnist":
        continue  # one distilled flow of images is enough
    register(
        Recipe(
            name=f"distilled_{data}",
            summary=f"the 2-rectified flow of {data}, distilled into one step",
            data=f"{N_PAIRS[data]:,} pairs that {rectified_name(2, data)} makes with "
            f"{TEACHER_STEPS[data]} steps of Heun",
            build=lambda data=data: distill(RectifiedFlow(NETS[data]())),
            prepare=start_from(rectified_name(2, data)),
            load=lambda data=data: pairs_of(rectified_name(2, data), data, k=3),
            options=OPTIONS[data],
            evaluate=lambda model, data=data: flow_metrics(
                model, data, teacher=load_pretrained(rectified_name(2, data))
            ),
        )
    )

# --- from one set of images to another -----------------------------------------------------------

N_TRANSPORT, N_CARRIED = 20_000, 5_000


def digit_images(split: str, digit: int, *, generator: torch.Generator) -> Tensor:
    """All images of one digit of MNIST, dequantized, in [−1, 1)."""
    images, labels = load_mnist(split)
    return to_signed(dequantize(images[labels == digit], 256, generator=generator))


def threes_and_eights() -> tuple[Tensor, Tensor]:
    """Pairs (eight, three) of training images, drawn independently of each other."""
    generator = torch.Generator().manual_seed(0)
    eights, threes = (digit_images("train", digit, generator=generator) for digit in (8, 3))
    i, j = (torch.randint(len(x), (N_TRANSPORT,), generator=generator) for x in (eights, threes))
    return eights[i], threes[j]


def transported_pairs() -> tuple[Tensor, Tensor]:
    """Pairs that the first flow makes of threes."""
    _, threes = threes_and_eights()
    teacher = load_pretrained("threes_to_eights_1")
    n = N_CARRIED
    return reflow(teacher, n, steps=TEACHER_STEPS["mnist"], solver="heun", x1=threes[:n])


def weights_and_slants(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ink ``[B]`` of images ``[B, 1, H, W]`` in [−1, 1], and slant, the shift to the right by
    row upwards of the line that fits the ink best, ``[B]``.
    """
    ink = to_unit(images).clamp(0, 1)[:, 0]
    share = ink / ink.sum((1, 2), keepdim=True)
    right, up = torch.arange(ink.shape[2]), -torch.arange(ink.shape[1])[:, None]
    right, up = (at - (share * at).sum((1, 2), keepdim=True) for at in (right, up))
    return ink.mean((1, 2)), (share * right * up).sum((1, 2)) / (share * up**2).sum((1, 2))


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of numbers ``[B]``."""
    return torch.corrcoef(torch.stack([a, b]))[0, 1].item()


def transport_metrics(model: RectifiedFlow) -> dict[str, float | list]:
    """What becomes of 500 threes of the test images, by steps of Euler, and how straight it goes.

    "eight" and "still three": the shares of them that the course's classifier calls so. "distance
    to its own": ‖x_1 − x_0‖² to the three that it comes from, beside that to any three. "weight
    kept" and "slant kept": the correlation of a three's ink, and of its slant, with its eight's.
    """
    classifier = load_pretrained("classifier_mnist")
    x1 = digit_images("test", 3, generator=torch.Generator().manual_seed(1))[:500]
    states = list(model.states(x1, steps=16, solver="heun"))
    rows = []
    for steps in STEPS:
        x = model.transport(x1, steps)
        with torch.no_grad():
            said = classifier(to_unit(x).clamp(0, 1)).argmax(1)
        squared = torch.cdist(x.flatten(1), x1.flatten(1)).square()
        kept = map(correlation, weights_and_slants(x1), weights_and_slants(x))
        rows.append(
            {
                "steps": steps,
                "eight": (said == 8).double().mean().item(),
                "still three": (said == 3).double().mean().item(),
                "distance to its own": squared.diagonal().mean().item(),
                "distance to any": squared.mean().item(),
                "error": (x - states[-1]).square().mean().sqrt().item(),
                **dict(zip(("weight kept", "slant kept"), kept, strict=True)),
            }
        )
    return {"straightness": straightness(states).mean().item(), "steps": rows}


for k, load in ((1, threes_and_eights), (2, transported_pairs)):
    register(
        Recipe(
            name=f"threes_to_eights_{k}",
            summary=f"the {k}-rectified flow from MNIST's threes to its eights",
            data=f"{N_TRANSPORT:,} independent pairs of training images of load_mnist"
            if k == 1
            else f"{N_CARRIED:,} pairs that threes_to_eights_1 makes with "
            f"{TEACHER_STEPS['mnist']} steps of Heun",
            build=lambda: RectifiedFlow(UNet((1, 28, 28), widths=(16, 24, 48), scale=1000.0)),
            prepare=None if k == 1 else start_from("threes_to_eights_1"),
            load=load,
            options={"steps": 2500 if k == 1 else 1000, "batch_size": 64}
            | {"lr": 2e-3 if k == 1 else 1e-3, "ema": 0.995},
            evaluate=transport_metrics,
        )
    )
