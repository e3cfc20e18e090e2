"""DDIM: the same network, but fewer steps, with as much fresh noise as you like, or none."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_number
from course_lib.diffusion.denoiser import Denoiser
from course_lib.diffusion.sampling import check_sampling, first_state, sampler

__all__ = ["ddim_invert", "ddim_sample", "ddim_step", "slerp"]

MAX_GROWTH = 100  # of an error of eps in one step without ``clip``; diffusers cuts off by default


def ddim_step(
    x_t: Tensor,
    x_0: Tensor,
    *,
    now: tuple[float, float],
    then: tuple[float, float],
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """One step from a point of the path to another, by way of the guess ``x_0``.

    With the guess goes a guess of the noise, eps = (x_t − a x_0) / b. Both are put together again
    in the new proportions; the share ``eta`` of what DDPM would draw afresh is drawn afresh:

        x_then = a' x_0 + sqrt(b'² − σ²) eps + σ · noise
        σ = eta · b' · sqrt(1 − (a b' / (a' b))²)

    Where a² + b² = 1, as in DDPM, σ is eta · (b' / b) · sqrt(1 − a² / a'²) as well.

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2010.02502, equations 12 and 16.

    Args:
        x_t: The state ``[B, *event]``.
        x_0: The guess of the data ``[B, *event]``.
        now: (a, b) of the path where the state is, with b > 0.
        then: (a', b') of the path where it shall go, (1, 0) for the data. Towards noise, a' < a,
            only with ``eta`` = 0.
        eta: 0 draws nothing afresh, 1 as much as DDPM.
        noise: Standard normal ``[B, *event]``, needed where ``eta`` > 0.

    Raises:
        ValueError: When ``now`` has no noise, or ``noise`` is missing.

    """
    (a, b), (a_then, b_then) = now, then
    if b <= 0:
        raise ValueError(f"now must be a point with noise, b > 0, got {now}")
    eps = (x_t - a * x_0) / b
    sigma = eta * b_then * math.sqrt(1 - (a * b_then / (a_then * b)) ** 2) if eta else 0.0
    if sigma and noise is None:
        raise ValueError(f"noise must be given where eta is above 0, got None and eta = {eta}")
    x = a_then * x_0 + math.sqrt(b_then**2 - sigma**2) * eps
    return x + sigma * noise if sigma else x


@sampler
def ddim_sample(
    model: Denoiser,
    shape: Sequence[int],
    *,
    steps: int,
    eta: float = 0.0,
    spacing: str = "linear",
    y: Tensor | None = None,
    clip: float | None = None,
    z: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Walk back from noise to data in ``steps`` steps, of any length.

    Reference:
        Song, Meng, Ermon 2021, https://arxiv.org/abs/2010.02502, section 4.

    Args:
        model: A model on any path.
        shape: ``(n, *event)``, of the whole batch.
        steps: How many, at most T on a ``DiscreteSchedule``.
        eta: How much of DDPM's fresh noise is drawn, from 0 (none: what comes out is a function of
            the first noise) to 1. With all T steps and 1 this is DDPM.
        spacing: How the steps are spread over time, as in the path's ``sampling_times``.
        y: Labels ``[n]``, for a network with classes.
        clip: Cut off every guess of x_0 at −``clip`` and ``clip``: 1 for images in [−1, 1]. None:
            leave it; refused where the guess of a network that predicts eps would be worthless, as
            at the end of a cosine schedule, where a is nearly 0.
        z: The state to start from, as ``ddim_invert`` ends in; by default noise is drawn.
        generator: Source of all noise.

    Yields:
        ``steps`` + 1 states ``[n, *event]``: noise first, the samples last.

    Raises:
        ValueError: At the call; of labels, when the network is first called.
        PredictionError: On the way, when the network's output is not finite or has another shape.

    """
    check_sampling(model, shape, clip=clip, generator=generator)
    check_number("eta", eta, minimum=0)
    if eta > 1:
        raise ValueError(f"eta must be from 0 to 1, got {eta!r}")
    times = model.path.sampling_times(steps, spacing)
    points = model.path.points(times)
    if clip is None and model.predicts in ("eps", "score"):
        check_growth(points)
    x = first_state(model, shape, z, generator)
    yield x
    for i in reversed(range(steps)):
        x_0 = model.predict_x0(x, times[i], y=y, clip=clip)
        # None is drawn in the last step, as in DDPM: at the data b' is 0, and so is σ.
        noise = model.noise(x.shape, generator) if eta and i else None
        x = ddim_step(x, x_0, now=points[i + 1], then=points[i], eta=eta, noise=noise)
        yield x


def check_growth(points: Sequence[tuple[float, float]]) -> None:
    """Require that no step multiplies an error of eps by more than ``MAX_GROWTH``.

    The guess of x_0 is (x − b eps) / a; where a is nearly 0, an error of eps comes into the next
    state a' b / a − b' times as large, and all later calls of the network see a state that no
    training showed. The last step, to the data, is left out: nothing follows it.
    """
    for (a_then, b_then), (a, b) in pairwise(points[1:]):
        growth = a_then * b / a - b_then if a else math.inf
        if growth > MAX_GROWTH:
            raise ValueError(
                f"clip must be given where a step multiplies an error of eps by more than "
                f"{MAX_GROWTH} (1 for images in [-1, 1]; far beyond the data it changes nothing), "
                f"got None and {growth:.0f}"
            )


@sampler
def ddim_invert(
    model: Denoiser,
    x: Tensor,
    *,
    steps: int,
    spacing: str = "linear",
    y: Tensor | None = None,
) -> Iterator[Tensor]:
    """Walk from data to the noise that ``ddim_sample`` with eta = 0 would turn into them.

    Each step back uses what the network says at its end; that is not known yet on the way there, so
    here it says it of the state at the step's start. The error falls in proportion to 1 / steps.

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2010.02502, section 4.3.

    Args:
        model: A model on any path.
        x: Data ``[n, *event]``.
        steps: How many, at most T on a ``DiscreteSchedule``.
        spacing: How the steps are spread over time, as in the path's ``sampling_times``.
        y: Labels ``[n]``, for a network with classes.

    Yields:
        ``steps`` + 1 states ``[n, *event]``: the data first, their noise last.

    Raises:
        ValueError: At the call; of labels, when the network is first called.
        PredictionError: On the way, when the network's output is not finite or has another shape.

    """
    if not isinstance(model, Denoiser):
        raise ValueError(f"model must be a Denoiser, got {type(model).__name__}")
    check_floats("x", x, None, dtype=model.dtype)
    check_sampling(model, x.shape, name="x's shape")
    times = model.path.sampling_times(steps, spacing)
    points = model.path.points(times)
    yield x
    for i, t in enumerate(times):
        (a, b), (a_then, b_then) = points[i], points[i + 1]
        eps = model.predict(x, t, target="eps", y=y)
        # ddim_step, written for eps: at the data b is 0, and eps can't be told from x_0.
        x = a_then / a * (x - b * eps) + b_then * eps
        yield x


def slerp(z0: Tensor, z1: Tensor, w: float | Tensor) -> Tensor:
    """From ``z0`` to ``z1`` along the arc between them: spherical linear interpolation.

    sin((1 − w) θ) / sin θ · z0 + sin(w θ) / sin θ · z1, with θ the angle between the two. Two
    samples of noise in many dimensions are about equally long and at right angles; on the straight
    line between them lie shorter ones, such as noise never is, and on the arc lie none.

    Reference:
        Shoemake 1985; Song et al. 2021, https://arxiv.org/abs/2010.02502, section 5.3.

    Args:
        z0: ``[B, *event]``, none of them zero.
        z1: The same shape, none opposite to its ``z0``: there would be no shortest arc.
        w: From 0 (``z0``) to 1 (``z1``), a number or ``[B]``.

    Returns:
        ``[B, *event]``.

    Example:
        >>> slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
        tensor([[0.7071, 0.7071]])

    """
    check_floats("z0", z0, None)
    check_floats("z1", z1, z0.shape, dtype=z0.dtype)
    if z0.ndim < 2:
        raise ValueError(f"z0 must have shape [B, *event], got {list(z0.shape)}")
    if not isinstance(w, Tensor | int | float):
        raise ValueError(f"w must be a number or [{len(z0)}] numbers from 0 to 1, got {w!r}")
    # In double precision, on the CPU: not every device has it.
    w = (
        torch.as_tensor(w).cpu().double()
        if isinstance(w, Tensor)
        else torch.tensor(float(w), dtype=torch.float64)
    )
    if w.shape not in ((), (len(z0),)) or not ((w >= 0) & (w <= 1)).all():
        raise ValueError(f"w must be a number or [{len(z0)}] numbers from 0 to 1, got {w.tolist()}")
    flat0, flat1 = z0.flatten(1).cpu().double(), z1.flatten(1).cpu().double()
    lengths = flat0.norm(dim=1), flat1.norm(dim=1)
    if (lengths[0] == 0).any() or (lengths[1] == 0).any():
        raise ValueError("z0 and z1 must have no zero vector among them, got one")
    unit0, unit1 = flat0 / lengths[0][:, None], flat1 / lengths[1][:, None]
    # Twice the angle whose tangent is that of half θ: exact for small angles, unlike acos.
    angle = 2 * torch.atan2((unit0 - unit1).norm(dim=1), (unit0 + unit1).norm(dim=1))
    if (math.pi - angle < 1e-6).any():
        raise ValueError("z0 and z1 must not be opposite to each other, got a pair that is")
    # sinc(x) = sin(π x) / (π x) makes sin(w θ) / sin θ right for θ = 0 too, where it is w.
    turn = angle / math.pi
    weight0 = (1 - w) * torch.sinc((1 - w) * turn) / torch.sinc(turn)
    weight1 = w * torch.sinc(w * turn) / torch.sinc(turn)
    return (weight0[:, None] * flat0 + weight1[:, None] * flat1).reshape(z0.shape).to(z0)
