"""Pairs of places on straight lines: their mean velocity and the ways of its flow.

``parts/pairs.js`` has the same formulas. ``course_lib.diffusion.kernel_velocity`` is the first of
them for models; widgets import none, so a test holds the three together.
"""

import numpy as np

__all__ = ["mean_velocity", "way_through"]


def mean_velocity(
    x: np.ndarray, t: float, x0: np.ndarray, x1: np.ndarray, width: float
) -> np.ndarray:
    """v(x, t) ``[..., D]``: the mean of x_1 − x_0 over pairs ``[N, D]`` that pass there.

    A pair is at x_0 + t (x_1 − x_0) at the time t, blurred by a Gaussian of the standard deviation
    ``width``.
    """
    away = np.asarray(x, dtype=np.float64)[..., None, :] - (x0 + t * (x1 - x0))
    logits = -(away**2).sum(-1) / (2 * width**2)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return shares @ (x1 - x0)


def way_through(
    x: np.ndarray,
    t: float,
    end: float,
    x0: np.ndarray,
    x1: np.ndarray,
    width: float,
    steps: int,
) -> np.ndarray:
    """The places ``[steps + 1, ..., D]`` from x at the time ``t`` to the time ``end``, by the
    classical Runge-Kutta method.
    """
    x, h = np.asarray(x, dtype=np.float64), (end - t) / steps
    places = [x]
    for k in range(steps):
        now = t + k * h
        k1 = mean_velocity(x, now, x0, x1, width)
        k2 = mean_velocity(x + h / 2 * k1, now + h / 2, x0, x1, width)
        k3 = mean_velocity(x + h / 2 * k2, now + h / 2, x0, x1, width)
        k4 = mean_velocity(x + h * k3, now + h, x0, x1, width)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        places.append(x)
    return np.stack(places)
