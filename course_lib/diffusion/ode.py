"""The probability-flow ODE of any path: samples without noise, their latents, their density."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_generator, check_one_of
from course_lib.diffusion.denoiser import Denoiser
from course_lib.diffusion.paths import GaussianPath, conversions, mixed
from course_lib.diffusion.sampling import check_sampling, first_state, sampler
from course_lib.diffusion.sde import sde_times
from course_lib.flows.cnf import SolverError, integrate
from course_lib.flows.divergence import METHODS, divergence, random_signs

__all__ = [
    "SOLVERS",
    "ProbabilityFlow",
    "SolverError",
    "divergence",
    "euler_step",
    "heun_step",
    "ode_encode",
    "ode_log_prob",
    "ode_sample",
    "rk4_step",
]

Field = Callable[[Tensor, float], Tensor]  # the velocity f(x, t)


def euler_step(f: Field, x: Tensor, t: float, dt: float) -> Tensor:
    """Go on as if the velocity stayed what it is, x + f(x, t) dt: one call, order 1.

    Reference:
        Euler 1768.
    """
    return x + dt * f(x, t)


def heun_step(f: Field, x: Tensor, t: float, dt: float) -> Tensor:
    """The mean of the velocities at both ends, the second at Euler's guess: two calls, order 2.

    Reference:
        Heun 1900; Karras et al. 2022, https://arxiv.org/abs/2206.00364, algorithm 1.
    """
    k1 = f(x, t)
    k2 = f(x + dt * k1, t + dt)
    return x + dt * (k1 + k2) / 2


def rk4_step(f: Field, x: Tensor, t: float, dt: float) -> Tensor:
    """The classical method of Runge and Kutta, Simpson's rule for an ODE: four calls, order 4.

    Reference:
        Kutta 1901.
    """
    k1 = f(x, t)
    k2 = f(x + dt / 2 * k1, t + dt / 2)
    k3 = f(x + dt / 2 * k2, t + dt / 2)
    k4 = f(x + dt * k3, t + dt)
    return x + dt * (k1 + 2 * k2 + 2 * k3 + k4) / 6


SOLVERS = {"euler": euler_step, "heun": heun_step, "rk4": rk4_step}


class ProbabilityFlow:
    """The velocity dx/dt of a model's ODE: its marginals are those of the path, without noise.

        dx/dt = f x − ½ g² ∇ log p_t(x) = a' E[x_0 | x_t] + b' E[eps | x_t]

    Whatever the network predicts, this is p(t) x + q(t) · prediction. The numbers p and q of the
    given ``times`` are computed at once; they take derivatives of a and b, and a solver should not
    wait for these at every step.

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2011.13456, section 4.3 and appendix D.1.

    Args:
        model: A model on any path.
        y: Labels ``[n]``, for a network with classes.
        times: At which it will be asked. Others are possible.

    """

    def __init__(self, model: Denoiser, *, y: Tensor | None = None, times: Sequence[float] = ()):
        self.model, self.y, self.path = model, y, model.path
        self.known = dict(zip(times, self.numbers(times), strict=True)) if times else {}

    def numbers(self, times: Sequence[float]) -> list[tuple[float, float, float]]:
        """(t, p, q) at each of the times; one that rounding put outside the path is put back."""
        low, high = self.path.t_min, self.path.t_max
        asked = torch.tensor(times, dtype=torch.float64)
        t = asked.clamp(low, high)
        if (t - asked).abs().max() > 1e-6 * (high - low):
            self.path.check_times(asked)
        pairs = conversions(self.model.predicts, "velocity", t, self.path)
        return [(t, p, q) for t, (p, q) in zip(t.tolist(), pairs, strict=True)]

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """dx/dt ``[B, *event]`` at ``x [B, *event]`` and one time of the path.

        Solvers look at their states themselves: here only what the network says is looked at.
        """
        t, p, q = self.known.get(t) or self.numbers([t])[0]
        return mixed(p, x, q, self.model.prediction(x, t, self.y))


def times_taken(
    path: GaussianPath, steps: int, warp: Callable[[Tensor], Tensor] | None
) -> list[float]:
    """The ``steps`` + 1 times of a way to the data: even ones, or what ``warp`` makes of them."""
    times = sde_times(path, steps)
    if warp is None:
        return times
    if not callable(warp):
        raise ValueError(f"warp must be a function or None, got {warp!r}")
    t = warp(torch.tensor(times, dtype=torch.float64))
    check_floats("warp(t)", t, (steps + 1,))
    inside = t.clamp(path.t_min, path.t_max)
    if (t.diff() >= 0).any() or (t - inside).abs().max() > 1e-9:  # beyond it may be by rounding
        raise ValueError(
            f"warp(t) must fall at each step, from at most {path.t_max:g} to at least "
            f"{path.t_min:g}, got {[round(time, 4) for time in t.tolist()]}"
        )
    return inside.tolist()


def stages(times: Sequence[float]) -> list[float]:
    """The times at which the solvers' steps ask for the velocity."""
    return [t + part * (then - t) for t, then in pairwise(times) for part in (0, 0.5, 1)]


@sampler
def ode_sample(
    model: Denoiser,
    shape: Sequence[int],
    *,
    steps: int,
    solver: str = "euler",
    y: Tensor | None = None,
    z: Tensor | None = None,
    generator: torch.Generator | None = None,
    warp: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Follow the probability-flow ODE from noise to data, in ``steps`` steps, even ones or not.

    The end is a draw of the law at ``t_min``: of the data themselves where b is 0 there, else with
    the little noise that is left. Nothing is drawn on the way, so that the noise is a latent.

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2011.13456, section 4.3.

    Args:
        model: A model on any path.
        shape: ``(n, *event)``, of the whole batch.
        steps: How many. Each takes one call of the network, with ``"heun"`` two, with ``"rk4"``
            four.
        solver: ``"euler"``, ``"heun"`` or ``"rk4"``.
        y: Labels ``[n]``, for a network with classes.
        z: The state to start from, as ``ode_encode`` ends in; by default noise is drawn.
        generator: Source of the first noise.
        warp: What the even times ``[steps + 1]``, from noise to data, become: falling ones, such as
            ``partial(shift_times, ratio=16)``. Where they begin behind the path's ``t_max``, ``z``
            is the state there.

    Yields:
        ``steps`` + 1 states ``[n, *event]``: noise first, the samples last.

    Raises:
        ValueError: At the call; of labels, when the network is first called.
        PredictionError: On the way, when the network's output is not finite or has another shape.
        SolverError: On the way, when the state is not finite any more; with the time.

    """
    check_sampling(model, shape, generator=generator)
    check_one_of("solver", solver, SOLVERS)
    times = times_taken(model.path, steps, warp)
    if z is None and times[0] < model.path.t_max:
        raise ValueError(
            f"z must be given where warp(t) begins at {times[0]:g} instead of {model.path.t_max:g}"
        )
    velocity = ProbabilityFlow(model, y=y, times=stages(times))
    x = first_state(model, shape, z, generator)
    yield x
    for t, then in pairwise(times):
        x = SOLVERS[solver](velocity, x, t, then - t)
        check_state(x, then)
        yield x


@sampler
def ode_encode(
    model: Denoiser,
    x: Tensor,
    *,
    steps: int,
    solver: str = "euler",
    y: Tensor | None = None,
    warp: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Follow the same ODE from data to the noise that ``ode_sample`` would lead back to them.

    Args:
        model: A model on any path.
        x: Data ``[n, *event]``, as at the last of the times of ``ode_sample``.
        steps: How many.
        solver: ``"euler"``, ``"heun"`` or ``"rk4"``.
        y: Labels ``[n]``, for a network with classes.
        warp: As of ``ode_sample``, whose times are taken in reverse: where they begin before the
            path's ``t_max``, the last state is that of a part of the way.

    Yields:
        ``steps`` + 1 states ``[n, *event]``: the data first, their noise last.

    Raises:
        ValueError: At the call; of labels, when the network is first called.
        PredictionError: On the way, when the network's output is not finite or has another shape.
        SolverError: On the way, when the state is not finite any more; with the time.

    """
    check_data(model, x)
    check_one_of("solver", solver, SOLVERS)
    times = times_taken(model.path, steps, warp)[::-1]
    velocity = ProbabilityFlow(model, y=y, times=stages(times))
    yield x
    for t, then in pairwise(times):
        x = SOLVERS[solver](velocity, x, t, then - t)
        check_state(x, then)
        yield x


@torch.no_grad()
def ode_log_prob(
    model: Denoiser,
    x: Tensor,
    *,
    divergence: str = "exact",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    y: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The log-density of ``x [B, *event]`` under the ODE's law at ``t_min``, in nats, ``[B]``.

        log p(x) = log N(x_T; 0, b(t_max)² I) + ∫ ∇·f(x_t, t) dt

    along the way of x from ``t_min`` to ``t_max``. It is that of the model, whose noise is the
    Gaussian that ``ode_sample`` starts from. No bound: exact up to the solver's tolerance. No
    gradients are recorded.

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2011.13456, section 4.3 and appendix D.2.

    Args:
        model: A model on any path.
        x: Data, as at ``t_min``.
        divergence: ``"exact"``, as many backward passes as x has numbers for each velocity, or
            ``"hutchinson"``, one: an unbiased estimate of each log-density.
        rtol: Relative tolerance of the adaptive solver.
        atol: Absolute tolerance.
        y: Labels ``[B]``, for a network with classes.
        generator: Source of Hutchinson's signs, one draw for the whole way.

    Raises:
        SolverError: When the solver gets stuck; with the time.

    """
    check_data(model, x)
    check_one_of("divergence", divergence, METHODS)
    check_generator(generator, x.device)
    flow, path = ProbabilityFlow(model, y=y), model.path

    probe = random_signs(x, generator) if divergence == "hutchinson" else None
    ends = (path.t_min, path.t_max)
    states, integrals = integrate(
        lambda x, t: flow(x, t.item()), x, ends, probe=probe, rtol=rtol, atol=atol, stop=True
    )
    z = states[-1].flatten(1) / path.start_std
    log_scale = math.log(path.start_std) + 0.5 * math.log(2 * math.pi)
    return integrals[-1] - 0.5 * z.square().sum(1) - z.shape[1] * log_scale


def check_data(model: Denoiser, x: Tensor) -> None:
    """Require a model and data that its network takes."""
    if not isinstance(model, Denoiser):
        raise ValueError(f"model must be a Denoiser, got {type(model).__name__}")
    check_floats("x", x, None, dtype=model.dtype)
    check_sampling(model, x.shape, name="x's shape")


def check_state(x: Tensor, t: float) -> None:
    """Require that a solver's state is finite."""
    try:
        check_floats("state", x, None)
    except ValueError:
        raise SolverError(
            f"the solver must keep the state finite, got NaN or infinite values at t = {t:.6g}"
        ) from None
