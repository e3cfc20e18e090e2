"""Score matching: losses that fit a function to ∇ log p, with and without p.

All are averages over the data of half a squared distance, summed over the numbers of an example.
They differ in what they put in the place of the true score, which nobody knows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import (
    check_floats,
    check_generator,
    check_int,
    check_number,
    check_one_of,
    check_tensor,
)
from course_lib.diffusion.denoiser import PredictionError
from course_lib.diffusion.paths import GaussianPath

__all__ = [
    "WEIGHTINGS",
    "denoising_score_matching",
    "explicit_score_matching",
    "implicit_score_matching",
    "sliced_score_matching",
    "weighted_score_matching",
]


def explicit_score_matching(score: Callable[[Tensor], Tensor], x: Tensor, target: Tensor) -> Tensor:
    """Half the mean squared distance of ``score`` from the true score: E ½ ‖score − ∇ log p‖².

    Reference:
        Hyvärinen 2005, https://jmlr.org/papers/v6/hyvarinen05a.html, equation 2.

    Args:
        score: From ``[B, *event]`` to the same shape.
        x: Data ``[B, *event]``.
        target: ∇ log p at ``x``, ``[B, *event]``.

    Returns:
        A scalar.

    """
    check_floats("x", x, None)
    check_floats("target", target, x.shape, dtype=x.dtype)
    return half_square(answer(score, x) - target).mean()


def implicit_score_matching(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The same up to a constant, without the true score: E [½ ‖score‖² + tr ∂score/∂x].

    The trace costs a backward pass for each number of an example.

    Reference:
        Hyvärinen 2005, https://jmlr.org/papers/v6/hyvarinen05a.html, theorem 1.

    Args:
        score: From ``[B, *event]`` to the same shape, each example for itself, differentiable.
        x: Data ``[B, *event]``, of a density that vanishes far out.

    Returns:
        A scalar.

    """
    check_floats("x", x, None)
    s, pull = with_jacobian(score, x)
    axes = torch.eye(s[0].numel(), dtype=x.dtype, device=x.device)
    trace = sum(pull(axis.reshape(s[0].shape).expand_as(s)) for axis in axes)
    return (half_square(s) + trace).mean()


def sliced_score_matching(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    n_slices: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``implicit_score_matching`` with a guess of the trace: the mean of vᵀ (∂score/∂x) v.

    The numbers of each v are 1 or −1, by tossing coins: E v vᵀ = I, so that the guess is right on
    average. Each v costs one backward pass, whatever the dimension.

    Reference:
        Song et al. 2019, https://arxiv.org/abs/1905.07088, equation 8.

    Args:
        score: As in ``implicit_score_matching``.
        x: Data ``[B, *event]``.
        n_slices: How many v are drawn for each example.
        generator: Source of the v.

    Returns:
        A scalar.

    """
    check_floats("x", x, None)
    check_int("n_slices", n_slices, minimum=1)
    check_generator(generator, x.device)
    s, pull = with_jacobian(score, x)
    signs = (n_slices, *x.shape)
    v = 2 * torch.randint(2, signs, generator=generator, device=x.device).to(x.dtype) - 1
    trace = sum(pull(slice_) for slice_ in v) / n_slices
    return (half_square(s) + trace).mean()


def denoising_score_matching(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    std: float,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fit the score of noised data, by the noise: E ½ ‖score(x + std · eps) + eps / std‖².

    Reference:
        Vincent 2011, https://doi.org/10.1162/NECO_a_00142, equation 11.

    Args:
        score: From ``[B, *event]`` to the same shape.
        x: Data ``[B, *event]``.
        std: Standard deviation of the noise, above 0.
        eps: The noise, standard normal ``[B, *event]``; by default it is drawn.
        generator: Source of the noise.

    Returns:
        A scalar.

    """
    check_floats("x", x, None)
    check_number("std", std, above=0)
    eps = noise_for(x, eps, generator)
    return half_square(answer(score, x + std * eps) + eps / std).mean()


# What the squared error at time t counts, λ(t), on a path, for x_t.
WEIGHTINGS = {
    # Errors of the score become errors of the noise: the usual loss of a network that predicts eps.
    "noise": lambda path, t, x: path.amounts(t, x)[1] ** 2,
    # Song et al. 2021, https://arxiv.org/abs/2101.09258, theorem 1: a bound of the likelihood.
    "likelihood": lambda path, t, x: path.sde(t, x)[1] ** 2,
}


def weighted_score_matching(
    score: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    *,
    path: GaussianPath,
    weighting: str = "noise",
    t: Tensor | None = None,
    eps: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Denoising score matching at all times of a path: E ½ λ(t) ‖score(x_t, t) + eps / b‖².

    Reference:
        Song et al. 2021, https://arxiv.org/abs/2011.13456, equation 7.

    Args:
        score: ``score(x_t, t)``: ``[B, *event]`` and times ``[B]`` → ``[B, *event]``.
        x: Data ``[B, *event]``.
        path: From data to noise.
        weighting: λ(t): ``"noise"``, b², the usual; or ``"likelihood"``, g².
        t: Times ``[B]``; by default they are drawn evenly over the path.
        eps: The noise, standard normal ``[B, *event]``; by default it is drawn.
        generator: Source of the times and the noise.

    Returns:
        A scalar.

    """
    check_floats("x", x, None)
    if not isinstance(path, GaussianPath):
        raise ValueError(f"path must be a GaussianPath, got {path!r}")
    check_one_of("weighting", weighting, WEIGHTINGS)
    check_generator(generator, x.device)
    if t is None:
        t = path.draw_times(len(x), generator=generator, device=x.device)
    t = path.times(t, len(x))
    eps = noise_for(x, eps, generator)
    x_t, (_, b) = path.noised(x, t, eps), path.amounts(t, x)
    weight = WEIGHTINGS[weighting](path, t, x)
    return half_square(weight**0.5 * (answer(score, x_t, t) + eps / b)).mean()


# --- what the losses share ---------------------------------------------------------------------


def half_square(v: Tensor) -> Tensor:
    """Half the squared length of each example: ``[B]``."""
    return v.square().flatten(1).sum(1) / 2


def noise_for(x: Tensor, eps: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """The noise that was given, or one that is drawn, in the shape of ``x``."""
    check_generator(generator, x.device)
    if eps is None:
        return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    check_floats("eps", eps, x.shape, dtype=x.dtype)
    return eps


def answer(score: Callable[..., Tensor], x: Tensor, *time: Tensor) -> Tensor:
    """What ``score`` says of ``x``, which must have its shape (``PredictionError``)."""
    if not callable(score):
        raise ValueError(f"score must be a function, got {score!r}")
    value = score(x, *time)
    try:
        check_tensor("score's output", value, x.shape, dtype=x.dtype)
    except ValueError as error:
        raise PredictionError(str(error)) from None
    return value


def with_jacobian(
    score: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The score at ``x``, and a function of v ``[B, *event]`` that gives vᵀ J v of each, ``[B]``.

    J is the Jacobian of ``score`` at an example. Both can be differentiated further.
    """
    training = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        s = answer(score, x) + 0 * x  # a constant has a Jacobian as well: 0

    def pull(v: Tensor) -> Tensor:
        with torch.enable_grad():
            (v_J,) = torch.autograd.grad(s, x, v, retain_graph=True, create_graph=training)
        return (v_J * v).flatten(1).sum(1)

    return (s if training else s.detach()), pull
