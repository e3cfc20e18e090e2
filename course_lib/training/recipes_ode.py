"""The recipes of chapter 09: flow matching with both couplings, and continuous flows on toys."""

import torch

from course_lib.data import load_digits, load_mnist
from course_lib.diffusion import Denoiser, FlowMatching, last, ode_log_prob, ode_sample
from course_lib.flows import CNF
from course_lib.nn import TimeMLP, UNet
from course_lib.training.batches import digits_batch, mnist_batch
from course_lib.training.recipes import Recipe, register
from course_lib.training.recipes_flows import N_TOY, toy_points
from course_lib.training.recipes_sde import SAMPLERS, calls_metrics, ode_likelihood

CALLS = (4, 8, 16, 32, 64)
SOLVERS = ("Euler", "Heun", "RK4")
TOYS = ("two_moons", "pinwheel")


def error_metrics(model: Denoiser, n: int) -> dict[str, list]:
    """How far each solver ends from the ODE's own end, by calls of the network.

    The root mean square over ``n`` samples and their coordinates; the end itself is that of 64
    steps of RK4 from the same noise.
    """
    shape = (n, *model.net.event_shape)
    z = model.path.start_std * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact = last(ode_sample(model, shape, steps=64, solver="rk4", z=z))
    rows = []
    for solver in SOLVERS:
        each, states = SAMPLERS[solver]
        for number in CALLS:
            x = last(states(model, shape, steps=number // each, z=z))
            error = (x - exact).square().mean().sqrt()
            rows.append({"solver": solver, "calls": number, "error": error.item()})
    return {"errors": rows}


def toy_data(toy: str) -> str:
    """What a card says of the data."""
    return f'toy("{toy}"), {N_TOY:,} points, seed 0; tested on 2,000, seed 1'


def toy_metrics(model: FlowMatching, toy: str) -> dict[str, float | list]:
    """Mean log-likelihood of 2,000 fresh points by the ODE, in nats, and the solvers' errors."""
    log_prob = ode_log_prob(model, toy_points(toy, seed=1)[:2000])
    return {"test log-likelihood (nats)": log_prob.mean().item()} | error_metrics(model, 2000)


def digits_metrics(model: FlowMatching) -> dict[str, float | list]:
    """The solvers' samples and errors, and the likelihood of the test digits."""
    return (
        calls_metrics(model, "digits", {name: CALLS for name in SOLVERS})
        | error_metrics(model, 200)
        | ode_likelihood(model, load_digits("test")[0], "digits")
    )


def mnist_metrics(model: FlowMatching) -> dict[str, float | list]:
    """The solvers' samples, and the likelihood of every hundredth test image."""
    calls = {name: (8, 16, 32) for name in SOLVERS}
    images = load_mnist("test")[0][::100]
    return calls_metrics(model, "mnist", calls) | ode_likelihood(model, images, "mnist")


def cnf_metrics(model: CNF, toy: str) -> dict[str, float]:
    """Mean log-likelihood of 2,000 fresh points, in nats, by the solver at a tolerance of 1e-5."""
    exact = CNF(2, model.net, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        log_prob = exact.log_prob(toy_points(toy, seed=1)[:2000])
    return {"test log-likelihood (nats)": log_prob.mean().item()}


for coupling, suffix in (("independent", ""), ("ot", "_ot")):
    for toy in TOYS:
        register(
            Recipe(
                name=f"flow_matching_{toy}{suffix}",
                summary=f"flow matching, {coupling} coupling, on the 2-D toy {toy}",
                data=toy_data(toy),
                build=lambda coupling=coupling: FlowMatching(
                    TimeMLP(2, scale=1000.0), coupling=coupling
                ),
                load=lambda toy=toy: toy_points(toy, seed=0),
                options={"steps": 8000, "batch_size": 256, "lr": 2e-3, "ema": 0.998},
                evaluate=lambda model, toy=toy: toy_metrics(model, toy),
            )
        )
    register(
        Recipe(
            name=f"flow_matching_digits{suffix}",
            summary=f"flow matching, {coupling} coupling, U-Net, on the digits",
            data='load_digits("train"), 1,438 images, jittered, dequantized, in [-1, 1); '
            "tested on the other 359",
            build=lambda coupling=coupling: FlowMatching(
                UNet((1, 8, 8), widths=(24, 48), scale=1000.0), coupling=coupling
            ),
            load=lambda: load_digits("train")[0],
            transform=digits_batch("signed dequantized"),
            options={"steps": 5000, "batch_size": 128, "lr": 2e-3, "ema": 0.998},
            evaluate=digits_metrics,
        )
    )
    register(
        Recipe(
            name=f"flow_matching_mnist{suffix}",
            summary=f"flow matching, {coupling} coupling, U-Net, on MNIST",
            data='load_mnist("train"), 60,000 images, dequantized, in [-1, 1); '
            "tested on 100 of the test images",
            build=lambda coupling=coupling: FlowMatching(
                UNet((1, 28, 28), widths=(16, 32, 64), scale=1000.0), coupling=coupling
            ),
            load=lambda: load_mnist("train")[0],
            transform=mnist_batch("signed dequantized"),
            options={"steps": 4000, "batch_size": 64, "lr": 2e-3, "ema": 0.998},
            evaluate=mnist_metrics,
        )
    )

for toy in TOYS:
    register(
        Recipe(
            name=f"cnf_{toy}",
            summary=f"continuous flow, trained by its likelihood, on the 2-D toy {toy}",
            data=toy_data(toy),
            build=lambda: CNF(2, TimeMLP(2, [64, 64, 64], scale=10.0), rtol=1e-3, atol=1e-3),
            load=lambda toy=toy: toy_points(toy, seed=0),
            options={"steps": 600, "batch_size": 256, "lr": 5e-3, "ema": 0.98},
            evaluate=lambda model, toy=toy: cnf_metrics(model, toy),
        )
    )
