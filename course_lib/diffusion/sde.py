"""Diffusion in continuous time: the SDE of a path, its way back along the score, and Langevin.

Every path is the stochastic differential equation dx = f x dt + g dw. Each sampler here is a loop
over one formula for a short step, which stands above it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from statistics import fmean

import torch
from torch import Tensor

from course_lib.checks import (
    at_the_door,
    check_bool,
    check_floats,
    check_generator,
    check_int,
    check_number,
)
from course_lib.diffusion.denoiser import Denoiser, PredictionError
from course_lib.diffusion.paths import GaussianPath, conversions, convert, mixed
from course_lib.diffusion.sampling import check_sampling, first_state, sampler

__all__ = [
    "corrector_step_size",
    "euler_maruyama",
    "langevin",
    "langevin_step",
    "predict_score",
    "predictor_corrector",
    "reverse_sde_step",
    "sde_forward",
    "sde_step",
    "sde_times",
]


def sde_times(path: GaussianPath, steps: int) -> list[float]:
    """``steps`` + 1 times, evenly from the noise at ``t_max`` to the data's end, ``t_min``."""
    check_int("steps", steps, minimum=1)
    return torch.linspace(path.t_max, path.t_min, steps + 1, dtype=torch.float64).tolist()


def rates(path: GaussianPath, times: Sequence[float]) -> list[tuple[float, float]]:
    """(f, g) at each of the times, as plain numbers: a loop then differentiates nothing."""
    t = torch.tensor(times, dtype=torch.float64)
    return list(zip(path.drift(t).tolist(), path.diffusion(t).tolist(), strict=True))


# --- the way to the noise ----------------------------------------------------------------------


def _check_step(x: Tensor, *, f: float, g: float, dt: float, noise: Tensor) -> None:
    check_floats("x", x, None)
    check_number("g", g, minimum=0)
    check_number("f", f, minimum=-math.inf)
    check_number("dt", dt, above=0)
    check_floats("noise", noise, x.shape, dtype=x.dtype)


@at_the_door(_check_step)
def sde_step(x: Tensor, *, f: float, g: float, dt: float, noise: Tensor) -> Tensor:
    """One step of dx = f x dt + g dw, ``dt`` towards the noise: Euler and Maruyama's method.

    Variances of independent noise add, so that of a time dt is in proportion to dt, and the noise
    itself to its root.

    Reference:
        Maruyama 1955, https://doi.org/10.1007/BF02846028.

    Args:
        x: The state ``[B, *event]``.
        f: The drift at the time of ``x``, as of ``path.drift``.
        g: The diffusion there, as of ``path.diffusion``.
        dt: The length of the step, above 0.
        noise: Standard normal ``[B, *event]``.

    """
    return x + f * x * dt + g * math.sqrt(dt) * noise


@sampler
def sde_forward(
    path: GaussianPath, x0: Tensor, *, steps: int, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Follow data to the noise in ``steps`` short steps of the path's SDE.

    ``path.noised`` draws any one of these states at once, exactly; here are whole ways.

    Args:
        path: From data to noise.
        x0: Data ``[B, *event]``.
        steps: How many, of equal length.
        generator: Source of all noise.

    Yields:
        ``steps`` + 1 states ``[B, *event]``: the data noised to ``t_min`` first, their noise last.

    """
    if not isinstance(path, GaussianPath):
        raise ValueError(f"path must be a GaussianPath, got {path!r}")
    check_floats("x0", x0, None)
    check_generator(generator, x0.device)
    times = sde_times(path, steps)[::-1]
    f_and_g = rates(path, times[:-1])
    x = path.noised(x0, path.t_min, _noise_like(x0, generator))
    yield x
    for (t, then), (f, g) in zip(pairwise(times), f_and_g, strict=True):
        x = sde_step.inside(x, f=f, g=g, dt=then - t, noise=_noise_like(x, generator))
        yield x


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


# --- the way back ------------------------------------------------------------------------------


def predict_score(
    model: Denoiser, x: Tensor, t: float, *, y: Tensor | None = None, clip: float | None = None
) -> Tensor:
    """The model's ∇ log p_t at ``x [B, *event]``; with ``clip``, that of a guess of x_0 cut off.

    Args:
        model: A model on any path.
        x: The state at time ``t``.
        t: One time for all, or ``[B]``.
        y: Labels ``[B]``, for a network with classes.
        clip: Cut off every guess of x_0 at −``clip`` and ``clip``: 1 for images in [−1, 1].

    """
    if clip is None:
        return model.predict(x, t, target="score", y=y)
    x_0 = model.predict_x0(x, t, y=y, clip=clip)
    return convert.inside(x_0, source="x0", target="score", x_t=x, t=t, path=model.path)


def score_along(
    model: Denoiser, times: Sequence[float], *, y: Tensor | None = None, clip: float | None = None
) -> Callable[[Tensor, int], Tensor]:
    """``predict_score`` as a function of x and the index of one of the ``times``, for a loop.

    Whatever the network predicts, the score is p x + q · prediction. The numbers p and q of all
    times are computed here, at once.
    """
    t = torch.tensor(times, dtype=torch.float64)

    said = conversions(model.predicts, "score" if clip is None else "x0", t, model.path)
    clipped = None if clip is None else conversions("x0", "score", t, model.path)

    def score(x: Tensor, i: int) -> Tensor:
        (p, q), value = said[i], model.prediction(x, times[i], y)
        value = mixed(p, x, q, value)
        if clip is None:
            return value
        (p, q), x_0 = clipped[i], value.clamp(-clip, clip)
        return mixed(p, x, q, x_0)

    return score


def _check_reverse_step(
    x: Tensor, score: Tensor, *, f: float, g: float, dt: float, noise: Tensor | None = None
) -> None:
    _check_step(x, f=f, g=g, dt=dt, noise=x if noise is None else noise)
    check_floats("score", score, x.shape, dtype=x.dtype)


@at_the_door(_check_reverse_step)
def reverse_sde_step(
    x: Tensor, score: Tensor, *, f: float, g: float, dt: float, noise: Tensor | None = None
) -> Tensor:
    """One step of the reverse SDE, ``dt`` towards the data.

    The same diffusion g, and the drift f x − g² ∇ log p_t, walked backwards in time.

    Reference:
        Anderson 1982, https://doi.org/10.1016/0304-4149(82)90051-5; Song et al. 2021,
        https://arxiv.org/abs/2011.13456, equation 6.

    Args:
        x: The state ``[B, *event]``.
        score: ∇ log p_t there, ``[B, *event]``.
        f: The drift at the time of ``x``, as of ``path.drift``.
        g: The diffusion there, as of ``path.diffusion``.
        dt: The length of the step, above 0.
        noise: Standard normal ``[B, *event]``; None for the mean of the step alone.

    """
    mean = x - f * dt * x + g**2 * dt * score
    return mean if noise is None else mean + g * math.sqrt(dt) * noise


@sampler
def euler_maruyama(
    model: Denoiser,
    shape: Sequence[int],
    *,
    steps: int,
    y: Tensor | None = None,
    clip: float | None = None,
    z: Tensor | None = None,
    denoise: bool = True,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Walk the reverse SDE from noise to data, in ``steps`` steps of equal length.

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2011.13456, section 4.1 and appendix G.

    Args:
        model: A model on any path, whose SDE has a finite drift at ``t_max``.
        shape: ``(n, *event)``, of the whole batch.
        steps: How many; each calls the network once.
        y: Labels ``[n]``, for a network with classes.
        clip: Cut off every guess of x_0 at −``clip`` and ``clip``: 1 for images in [−1, 1]. None:
            leave it.
        z: The state to start from; by default noise is drawn.
        denoise: Draw no noise in the last step, as DDPM does: it would only be seen as noise.
        generator: Source of all noise.

    Yields:
        ``steps`` + 1 states ``[n, *event]``: noise first, the samples last.

    Raises:
        ValueError: At the call; of labels, when the network is first called.
        PredictionError: On the way, when the network's output is not finite or has another shape.

    """
    check_sampling(model, shape, clip=clip, generator=generator)
    check_bool("denoise", denoise)
    times = sde_times(model.path, steps)
    f_and_g = rates(model.path, times[:-1])
    score = score_along(model, times[:-1], y=y, clip=clip)
    x = first_state(model, shape, z, generator)
    yield x
    for i, (f, g) in enumerate(f_and_g):
        uphill, dt = score(x, i), times[i] - times[i + 1]
        noise = None if denoise and i == steps - 1 else model.noise(x.shape, generator)
        x = reverse_sde_step.inside(x, uphill, f=f, g=g, dt=dt, noise=noise)
        yield x


# --- Langevin ----------------------------------------------------------------------------------


def _check_langevin_step(
    x: Tensor,
    score: Tensor,
    *,
    step_size: float | Tensor,
    noise: Tensor,
    temperature: float = 1.0,
) -> None:
    check_floats("x", x, None)
    check_floats("score", score, x.shape, dtype=x.dtype)
    check_floats("noise", noise, x.shape, dtype=x.dtype)
    if isinstance(step_size, Tensor):
        check_floats("step_size", step_size, ())
        step_size = step_size.item()
    check_number("step_size", step_size, above=0)
    check_number("temperature", temperature, minimum=0)


@at_the_door(_check_langevin_step)
def langevin_step(
    x: Tensor,
    score: Tensor,
    *,
    step_size: float | Tensor,
    noise: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """One step of dx = ∇ log p dt + √2 dw: uphill in the log-density, and noise.

    Reference:
        Roberts, Tweedie 1996, https://doi.org/10.2307/3318418; Song, Ermon 2019,
        https://arxiv.org/abs/1907.05600, equation 4, with ε = 2 h.

    Args:
        x: The state ``[B, *event]``.
        score: ∇ log p there, ``[B, *event]``.
        step_size: h, the length of the step in time: a number above 0.
        noise: Standard normal ``[B, *event]``.
        temperature: 1 leads to p, another one to p^(1 / temperature), 0 uphill without noise.

    """
    return x + step_size * score + (2 * step_size * temperature) ** 0.5 * noise


@sampler
def langevin(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    step_size: float,
    steps: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Walk about in a density of which only the score is known: Langevin dynamics.

    With short steps and many of them the states become samples of it.

    Args:
        score: ∇ log p, from ``[B, *event]`` to the same shape. It runs without gradients; one that
            differentiates a log-density switches them on for itself, by ``torch.enable_grad``.
        x: Where to start, ``[B, *event]``.
        step_size: h of ``langevin_step``.
        steps: How many.
        temperature: As in ``langevin_step``.
        generator: Source of all noise.

    Yields:
        ``steps`` + 1 states ``[B, *event]``, the start first.

    Raises:
        ValueError: At the call.
        PredictionError: On the way, when what ``score`` returns is not finite, as after steps that
            are too long, or has another shape.

    Example:
        >>> x = torch.zeros(2000, 1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> for x in langevin(lambda x: -x, x, step_size=0.1, steps=100, generator=generator):
        ...     pass
        >>> abs(x.std().item() - 1) < 0.05  # of a standard normal density
        True

    """
    if not callable(score):
        raise ValueError(f"score must be a function, got {score!r}")
    check_floats("x", x, None)
    check_int("steps", steps, minimum=1)
    check_number("step_size", step_size, above=0)
    check_number("temperature", temperature, minimum=0)
    check_generator(generator, x.device)
    yield x
    for k in range(steps):
        uphill = score(x)
        try:
            check_floats("score's output", uphill, x.shape, dtype=x.dtype)
        except ValueError as error:
            raise PredictionError(f"{error} (after {k} steps)") from None
        noise = _noise_like(x, generator)
        x = langevin_step.inside(
            x, uphill, step_size=step_size, noise=noise, temperature=temperature
        )
        yield x


# --- predictor and corrector -------------------------------------------------------------------


def _check_ratio(score: Tensor, noise: Tensor, *, snr: float) -> None:
    check_floats("score", score, None)
    check_floats("noise", noise, score.shape, dtype=score.dtype)
    check_number("snr", snr, above=0)
    if not score.square().any():
        raise ValueError("score must not be 0 everywhere, got nothing else")


@at_the_door(_check_ratio)
def corrector_step_size(score: Tensor, noise: Tensor, *, snr: float) -> float:
    """The h at which a Langevin step goes ``snr`` times as far by the score as by its noise.

    From h ‖score‖ = snr · √(2 h) ‖noise‖ follows h = 2 (snr ‖noise‖ / ‖score‖)², with both lengths
    averaged over the batch.

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2011.13456, appendix G, algorithm 4, with ε for h.
        (Algorithm 5, for VP, multiplies it by 1 − β of the step, which is nearly 1.)

    Args:
        score: ``[B, *event]``.
        noise: ``[B, *event]``.
        snr: The ratio, r in the paper.

    """
    lengths = torch.linalg.vector_norm(torch.stack([noise, score]).flatten(2), dim=2)  # [2, B]
    noise_length, score_length = map(fmean, lengths.tolist())
    return 2 * (snr * noise_length / score_length) ** 2


@sampler
def predictor_corrector(
    model: Denoiser,
    shape: Sequence[int],
    *,
    steps: int,
    corrector_steps: int = 1,
    snr: float = 0.16,
    y: Tensor | None = None,
    clip: float | None = None,
    z: Tensor | None = None,
    denoise: bool = True,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Walk the reverse SDE, and mend each state by Langevin steps before the next step is taken.

    A Langevin step leaves the density p_t alone, so that it mends what earlier steps did wrong, and
    changes nothing in a state that has its law already.

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2011.13456, algorithm 1; corrector before
        predictor, as in the authors' code, so that the last step is one that draws no noise.

    Args:
        model: As in ``euler_maruyama``.
        shape: ``(n, *event)``, of the whole batch.
        steps: How many; each calls the network 1 + ``corrector_steps`` times.
        corrector_steps: How many Langevin steps at each time; with 0 this is ``euler_maruyama``.
        snr: How far they go, as in ``corrector_step_size``.
        y: Labels ``[n]``, for a network with classes.
        clip: As in ``euler_maruyama``.
        z: The state to start from; by default noise is drawn.
        denoise: Draw no noise in the last step.
        generator: Source of all noise.

    Yields:
        ``steps`` + 1 states ``[n, *event]``: noise first, the samples last.

    Raises:
        ValueError: At the call; of labels, when the network is first called.
        PredictionError: On the way, when the network's output is not finite or has another shape.

    """
    check_sampling(model, shape, clip=clip, generator=generator)
    check_int("corrector_steps", corrector_steps, minimum=0)
    check_number("snr", snr, above=0)
    check_bool("denoise", denoise)
    times = sde_times(model.path, steps)
    f_and_g = rates(model.path, times[:-1])
    score = score_along(model, times[:-1], y=y, clip=clip)
    x = first_state(model, shape, z, generator)
    yield x
    for i, (f, g) in enumerate(f_and_g):
        for _ in range(corrector_steps):
            uphill, noise = score(x, i), model.noise(x.shape, generator)
            try:
                h = corrector_step_size.inside(uphill, noise, snr=snr)
            except ArithmeticError:  # divided by 0, or as good as that
                where = f"(at t = {times[i]:.6g})"
                raise PredictionError(f"the score must not be 0 everywhere {where}") from None
            x = langevin_step.inside(x, uphill, step_size=h, noise=noise)
        uphill, dt = score(x, i), times[i] - times[i + 1]
        noise = None if denoise and i == steps - 1 else model.noise(x.shape, generator)
        x = reverse_sde_step.inside(x, uphill, f=f, g=g, dt=dt, noise=noise)
        yield x
