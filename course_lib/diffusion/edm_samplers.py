"""Samplers on EDM's path: Heun's method with churn, and DPM-Solver++, at Karras' noise levels."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from course_lib.checks import at_the_door, check_floats, check_int, check_number, check_one_of
from course_lib.diffusion.continuous import EDMPath
from course_lib.diffusion.denoiser import Denoiser
from course_lib.diffusion.edm import karras_times
from course_lib.diffusion.ode import check_state, euler_step, heun_step
from course_lib.diffusion.paths import conversions, mixed
from course_lib.diffusion.sampling import check_sampling, first_state, sampler

__all__ = [
    "churn_levels",
    "churn_step",
    "dpm_solver_sample",
    "dpm_solver_step",
    "extrapolated_guess",
    "heun_sample",
]

STEPS = {"euler": euler_step, "heun": heun_step}


def _check_churn(x: Tensor, *, sigma: float, up: float, noise: Tensor) -> None:
    check_floats("x", x, None)
    check_floats("noise", noise, x.shape, dtype=x.dtype)
    check_number("sigma", sigma, minimum=0)
    check_number("up", up, minimum=sigma)


@at_the_door(_check_churn)
def churn_step(x: Tensor, *, sigma: float, up: float, noise: Tensor) -> Tensor:
    """Take a state from noise level ``sigma`` to a higher one, ``up``, by fresh noise.

    Variances of independent noise add: what is missing is up² − σ².

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 2, line 6.

    Args:
        x: The state ``[B, *event]``.
        sigma: Its noise level.
        up: The level that it shall have.
        noise: Standard normal ``[B, *event]``.

    """
    return x + math.sqrt(up**2 - sigma**2) * noise


def churn_levels(
    sigmas: Sequence[float],
    *,
    churn: float,
    s_min: float = 0.0,
    s_max: float = math.inf,
    limit: float = math.inf,
) -> list[float]:
    """The level up to which each of the ``sigmas`` is noised before its step: σ (1 + γ).

    γ = min(churn / N, √2 − 1) where s_min ≤ σ ≤ s_max, and 0 elsewhere. With the most that is
    allowed, half of the variance is fresh.

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 2, lines 4 and 5.

    Args:
        sigmas: The N noise levels of a sampler, without the 0 at its end.
        churn: How much fresh noise, over the whole way.
        s_min: The least level at which there is any.
        s_max: The highest.
        limit: No level is raised above this one.

    """
    check_churn(churn, s_min, s_max)
    gamma = min(churn / len(sigmas), math.sqrt(2) - 1)
    return [
        max(min(sigma * (1 + gamma), limit), sigma) if s_min <= sigma <= s_max else sigma
        for sigma in sigmas
    ]


def check_churn(churn: float, s_min: float, s_max: float) -> None:
    """Require an amount of fresh noise, and levels between which it may come."""
    check_number("churn", churn, minimum=0)
    check_number("s_min", s_min, minimum=0)
    if s_max != math.inf:
        check_number("s_max", s_max, minimum=s_min)


@sampler
def heun_sample(
    model: Denoiser,
    shape: Sequence[int],
    *,
    steps: int,
    solver: str = "heun",
    rho: float = 7.0,
    churn: float = 0.0,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
    y: Tensor | None = None,
    clip: float | None = None,
    z: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """EDM's sampler: dx/dσ = (x − D(x; σ)) / σ by Heun's method, from σ_max down to 0.

    The last step, to 0, is Euler's: it ends in the guess D itself, and there is no velocity at 0.
    With ``churn`` each step begins with fresh noise and goes down from the higher level: what
    earlier steps did wrong is drowned with the old noise. No level is raised above the path's end,
    where a state is fresh noise already.

    Reference:
        Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithms 1 and 2.

    Args:
        model: A model on an ``EDMPath``; ``on_path`` takes any other there.
        shape: ``(n, *event)``, of the whole batch.
        steps: How many, N. They call the network 2 N − 1 times, with ``"euler"`` N times.
        solver: ``"heun"`` or ``"euler"``.
        rho: ρ of ``karras_times``.
        churn: How much fresh noise, over the whole way; 0 draws none.
        s_min: The least noise level at which there is any.
        s_max: The highest.
        s_noise: Standard deviation of the fresh noise; a little above 1 makes up for networks that
            take away too much.
        y: Labels ``[n]``, for a network with classes.
        clip: Cut off every guess of x_0 at −``clip`` and ``clip``: 1 for images in [−1, 1]. None:
            leave it.
        z: The state to start from, of size σ_max; by default noise is drawn.
        generator: Source of all noise.

    Yields:
        N + 1 states ``[n, *event]``: noise first, the samples last.

    Raises:
        ValueError: At the call; of labels, when the network is first called.
        PredictionError: On the way, when the network's output is not finite or has another shape.
        SolverError: On the way, when the state is not finite any more; with the noise level.

    """
    check_sampling(model, shape, clip=clip, generator=generator)
    check_one_of("solver", solver, STEPS)
    check_churn(churn, s_min, s_max)
    check_number("s_noise", s_noise, minimum=0)
    sigmas = levels(model, steps, rho)
    raised = churn_levels(sigmas, churn=churn, s_min=s_min, s_max=s_max, limit=model.path.t_max)
    ends = [up + (then - up) for up, then in zip(raised, sigmas[1:], strict=False)]
    guess = Guess(model, [*raised, *ends], y=y, clip=clip)
    step = STEPS[solver]
    x = first_state(model, shape, z, generator)
    yield x
    for sigma, up, then in zip(sigmas, raised, [*sigmas[1:], 0.0], strict=True):
        if up > sigma:
            noise = s_noise * model.noise(x.shape, generator)
            x = churn_step.inside(x, sigma=sigma, up=up, noise=noise)
        x = step(guess.velocity, x, up, then - up) if then else guess(x, up)
        check_state(x, then)
        yield x


def levels(model: Denoiser, steps: int, rho: float) -> list[float]:
    """Karras' times between the ends of the model's path, which must be an ``EDMPath``."""
    path = model.path
    if not isinstance(path, EDMPath):
        raise ValueError(
            f"model must be on an EDMPath, as on_path(model, EDMPath(...)) is, got one on {path}"
        )
    sigmas = karras_times(steps, sigma_min=path.t_min, sigma_max=path.t_max, rho=rho)
    return [min(max(sigma, path.t_min), path.t_max) for sigma in sigmas]  # but for rounding


class Guess:
    """D(x; σ), a model's guess of x_0, for a loop: conversions at ``sigmas`` are computed before.

    Whatever the network predicts, D is p x + q · prediction.
    """

    def __init__(
        self,
        model: Denoiser,
        sigmas: Sequence[float],
        *,
        y: Tensor | None = None,
        clip: float | None = None,
    ):
        self.model, self.y, self.clip = model, y, clip
        path = model.path
        t = torch.tensor(sigmas, dtype=torch.float64).clamp(path.t_min, path.t_max)  # for rounding
        pairs = conversions(model.predicts, "x0", t, path)
        self.known = dict(zip(sigmas, zip(t.tolist(), pairs, strict=True), strict=True))

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """D ``[B, *event]`` at ``x [B, *event]`` and one of the noise levels."""
        t, (p, q) = self.known[sigma]
        x_0 = mixed(p, x, q, self.model.prediction(x, t, self.y))
        return x_0 if self.clip is None else x_0.clamp(-self.clip, self.clip)

    def velocity(self, x: Tensor, sigma: float) -> Tensor:
        """dx/dσ = (x − D) / σ of EDM's ODE, straight away from the guess."""
        if self.clip is not None:
            return (x - self(x, sigma)) / sigma
        t, (p, q) = self.known[sigma]
        return mixed((1 - p) / sigma, x, -q / sigma, self.model.prediction(x, t, self.y))


# --- DPM-Solver++ ------------------------------------------------------------------------------


def _check_solver_step(x: Tensor, x_0: Tensor, *, sigma: float, then: float) -> None:
    check_floats("x", x, None)
    check_floats("x_0", x_0, x.shape, dtype=x.dtype)
    check_number("sigma", sigma, above=0)
    check_number("then", then, minimum=0)


@at_the_door(_check_solver_step)
def dpm_solver_step(x: Tensor, x_0: Tensor, *, sigma: float, then: float) -> Tensor:
    """From noise level ``sigma`` to ``then``, exactly, if the guess of x_0 stays what it is.

    dx/dσ = (x − x_0) / σ is linear in x: its solution keeps x − x_0 in proportion to σ.

    Reference:
        Lu et al. 2022, https://arxiv.org/abs/2211.01095, equation 9 with k = 1; with α = 1.

    Args:
        x: The state ``[B, *event]``.
        x_0: The guess of the data ``[B, *event]``.
        sigma: The noise level of ``x``, above 0.
        then: The one to go to, 0 for the data.

    """
    return then / sigma * x + (1 - then / sigma) * x_0


def _check_extrapolation(
    x_0: Tensor, before: Tensor, *, sigmas: tuple[float, float, float]
) -> None:
    check_floats("x_0", x_0, None)
    check_floats("before", before, x_0.shape, dtype=x_0.dtype)
    first, second, third = sigmas
    if not 0 < third < second < first < math.inf:
        raise ValueError(f"sigmas must be three falling noise levels above 0, got {sigmas}")


@at_the_door(_check_extrapolation)
def extrapolated_guess(
    x_0: Tensor, before: Tensor, *, sigmas: tuple[float, float, float]
) -> Tensor:
    """The guess of x_0 half way down the next step, on a straight line in log σ through two.

    Reference:
        Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2, line 5: their D_i.

    Args:
        x_0: The guess at the second of the ``sigmas``, where the state is: ``[B, *event]``.
        before: The guess at the first, one step earlier.
        sigmas: Three noise levels: of the step before, of the state, and where it shall go, above
            0.

    """
    first, second, third = sigmas
    h_before, h = math.log(first / second), math.log(second / third)
    return x_0 + h / 2 * (x_0 - before) / h_before


@sampler
def dpm_solver_sample(
    model: Denoiser,
    shape: Sequence[int],
    *,
    steps: int,
    rho: float = 7.0,
    order: int = 2,
    y: Tensor | None = None,
    clip: float | None = None,
    z: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """DPM-Solver++(2M): order 2 for one call a step, since the guess before is remembered.

    The first step has no guess before it, and the last goes to 0, where log σ ends: both take the
    guess as it is.

    Reference:
        Lu et al. 2022, https://arxiv.org/abs/2211.01095, algorithm 2.

    Args:
        model: A model on an ``EDMPath``; ``on_path`` takes any other there.
        shape: ``(n, *event)``, of the whole batch.
        steps: How many; each calls the network once.
        rho: ρ of ``karras_times``.
        order: 2, or 1, with which it is DDIM without fresh noise: Euler's method.
        y: Labels ``[n]``, for a network with classes.
        clip: Cut off every guess of x_0 at −``clip`` and ``clip``: 1 for images in [−1, 1]. None:
            leave it.
        z: The state to start from, of size σ_max; by default noise is drawn.
        generator: Source of the first noise.

    Yields:
        ``steps`` + 1 states ``[n, *event]``: noise first, the samples last.

    Raises:
        ValueError: At the call; of labels, when the network is first called.
        PredictionError: On the way, when the network's output is not finite or has another shape.
        SolverError: On the way, when the state is not finite any more; with the noise level.

    """
    check_sampling(model, shape, clip=clip, generator=generator)
    check_int("order", order, minimum=1, maximum=2)
    sigmas = [*levels(model, steps, rho), 0.0]
    guess = Guess(model, sigmas[:-1], y=y, clip=clip)
    x = first_state(model, shape, z, generator)
    yield x
    before = None
    for i, (sigma, then) in enumerate(pairwise(sigmas)):
        x_0 = middle = guess(x, sigma)
        if order == 2 and before is not None and then:
            middle = extrapolated_guess.inside(x_0, before, sigmas=(sigmas[i - 1], sigma, then))
        x, before = dpm_solver_step.inside(x, middle, sigma=sigma, then=then), x_0
        check_state(x, then)
        yield x
