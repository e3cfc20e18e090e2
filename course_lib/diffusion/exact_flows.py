"""Rectified flows that are known exactly: of pairs with a blur, of Gaussians, of points on a line.

What a network learns by the squared error is here a formula, so that theorems can be checked.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import at_the_door, check_floats, check_number
from course_lib.diffusion.continuous import StraightPath
from course_lib.diffusion.paths import per_example
from course_lib.flows.divergence import divergence, gradient

__all__ = [
    "continuity_residual",
    "crossings",
    "gaussian_map",
    "gaussian_velocity",
    "kernel_log_prob",
    "kernel_velocity",
    "meetings",
    "monotone_map",
    "optimal_gaussian_map",
]

LINE = StraightPath()

# --- pairs, each blurred by a Gaussian -----------------------------------------------------------


def _check_kernel(x: Tensor, t: Tensor | float, x0: Tensor, x1: Tensor, *, width: float) -> None:
    check_floats("x", x, None)
    check_floats("x0", x0, (None, *x.shape[1:]), dtype=x.dtype)
    check_floats("x1", x1, x0.shape, dtype=x.dtype)
    check_number("width", width, above=0)
    LINE.check_time(t, len(x))


def squared_distances(x: Tensor, t: Tensor | float, x0: Tensor, x1: Tensor) -> Tensor:
    """‖x − x_i(t)‖² from places ``[B, *event]`` to N pairs at times ``t``: ``[B, N]``."""
    x0, x1, t = x0.flatten(1), x1.flatten(1), per_example(t, x)
    line = x0 + t.reshape(-1, 1, 1) * (x1 - x0)  # [B, N, D]
    return (x.flatten(1)[:, None] - line).square().sum(2)


@at_the_door(_check_kernel)
def kernel_velocity(
    x: Tensor, t: Tensor | float, x0: Tensor, x1: Tensor, *, width: float
) -> Tensor:
    """The mean of x_1 − x_0 over the pairs that pass ``x [B, *event]`` at the times ``t``.

        v(x, t) = Σ_i r_i (x_1,i − x_0,i),   r_i ∝ exp(−‖x − x_i(t)‖² / 2 h²)

    The exact velocity of the rectified flow of finitely many pairs, each blurred by a Gaussian of
    the standard deviation h all along its line.

    Reference:
        Liu, Gong, Liu 2023, https://arxiv.org/abs/2209.03003, equation 5; Tong et al. 2024,
        https://arxiv.org/abs/2302.00482, proposition 3.3.

    Args:
        x: Places.
        t: Times ``[B]``, or one for all.
        x0: ``[N, *event]``, where the pairs are at t = 0.
        x1: The same shape: ``x1[i]`` belongs to ``x0[i]``.
        width: h.

    Example:
        >>> x0, x1 = torch.tensor([[-1.0], [1.0]]), torch.tensor([[2.0], [-2.0]])
        >>> kernel_velocity(torch.tensor([[0.0], [-1.0]]), 0.0, x0, x1, width=0.1)
        tensor([[0.],
                [3.]])

    """
    shares = torch.softmax(-squared_distances(x, t, x0, x1) / (2 * width**2), dim=1)
    return torch.einsum("bn,n...->b...", shares, x1 - x0)


@at_the_door(_check_kernel)
def kernel_log_prob(
    x: Tensor, t: Tensor | float, x0: Tensor, x1: Tensor, *, width: float
) -> Tensor:
    """The log-density at ``x [B, *event]`` of pairs with a blur at the times ``t``: ``[B]``, nats.

    Arguments as of ``kernel_velocity``, whose flow has this law at every time.
    """
    each = torch.distributions.Normal(0.0, width).log_prob(torch.zeros((), dtype=x.dtype))
    logs = -squared_distances(x, t, x0, x1) / (2 * width**2) + each * x[0].numel()
    return logs.logsumexp(1) - torch.tensor(float(len(x0))).log()


def continuity_residual(
    log_prob: Callable[[Tensor, Tensor], Tensor],
    velocity: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    t: Tensor,
) -> Tensor:
    """∂ρ/∂t + ∇·(ρ v) at places ``x [B, *event]`` and times ``t [B]``: ``[B]``.

    0 everywhere if the flow of v carries the law ρ along, by automatic differentiation: exact but
    for rounding.

    Args:
        log_prob: log ρ, ``(x, t)`` → ``[B]``.
        velocity: v, ``(x, t)`` → ``[B, *event]``.
        x: Places.
        t: Times.

    Example:
        >>> law = lambda x, t: torch.distributions.Normal(t, 1.0).log_prob(x[:, 0])
        >>> x, t = torch.tensor([[0.3], [-1.0]]), torch.tensor([0.1, 0.7])
        >>> continuity_residual(law, lambda x, t: torch.ones_like(x), x, t).abs() < 1e-6
        tensor([True, True])

    """
    check_floats("x", x, None)
    check_floats("t", t, (len(x),), dtype=x.dtype)
    with torch.enable_grad():
        time = t.detach().requires_grad_()
        change = gradient(log_prob(x, time).exp().sum(), time, create_graph=False)

        def flux(x: Tensor) -> Tensor:
            return per_example(log_prob(x, t).exp(), x) * velocity(x, t)

        return (change + divergence(flux, x)).detach()


# --- Gaussian to Gaussian ------------------------------------------------------------------------


def _check_gaussians(x: Tensor, mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor) -> None:
    check_floats("x", x, (None, None))
    dim = x.shape[1]
    for i, (mean, cov) in enumerate(((mean0, cov0), (mean1, cov1))):
        check_floats(f"mean{i}", mean, (dim,), dtype=x.dtype)
        check_floats(f"cov{i}", cov, (dim, dim), dtype=x.dtype)
        symmetric = torch.allclose(cov, cov.T)
        if not symmetric or torch.linalg.eigvalsh(cov).min() <= 0:
            what = f"symmetric and positive definite, got {cov.tolist()}"
            raise ValueError(f"cov{i} must be {what}")


def _check_gaussian_velocity(
    x: Tensor, t: Tensor | float, mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor
) -> None:
    _check_gaussians(x, mean0, cov0, mean1, cov1)
    LINE.check_time(t, len(x))


@at_the_door(_check_gaussian_velocity)
def gaussian_velocity(
    x: Tensor, t: Tensor | float, mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor
) -> Tensor:
    """The velocity between independent Gaussians, E[x_1 − x_0 | x_t = x]: ``[B, D]``.

        x_t ~ N(m, S),   m = (1 − t) m_0 + t m_1,   S = (1 − t)² C_0 + t² C_1
        v(x, t) = m_1 − m_0 + (t C_1 − (1 − t) C_0) S⁻¹ (x − m)

    The regression of x_1 − x_0 on x_t: the first bracket is the covariance of the two.

    Reference:
        Bishop 2006, "Pattern Recognition and Machine Learning", equation 2.81.

    Args:
        x: Places ``[B, D]``.
        t: Times ``[B]``, or one for all.
        mean0: m_0 ``[D]``, the mean of x_0.
        cov0: C_0 ``[D, D]``, its covariance.
        mean1: m_1 ``[D]``.
        cov1: C_1 ``[D, D]``.

    """
    t = per_example(t, x)  # [B, 1]
    m = (1 - t) * mean0 + t * mean1
    t = t[:, :, None]
    S = (1 - t) ** 2 * cov0 + t**2 * cov1  # [B, D, D]
    slope = t * cov1 - (1 - t) * cov0
    return mean1 - mean0 + (slope @ torch.linalg.solve(S, (x - m)[:, :, None]))[:, :, 0]


@at_the_door(_check_gaussians)
def gaussian_map(x: Tensor, mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor) -> Tensor:
    """Where the flow of ``gaussian_velocity`` carries x_1 = ``x [B, D]`` from t = 1 to 0.

        T(x) = m_0 + A (x − m_1),   A = (C_0 C_1⁻¹)^½ = C_1^½ (C_1^-½ C_0 C_1^-½)^½ C_1^-½

    In axes where both covariances are diagonal each coordinate stays as many standard deviations
    from the mean as it was. A has positive eigenvalues, so no two of the lines from x_1 to T(x_1)
    meet, and the next rectified flow is straight. But A is symmetric only where C_0 C_1 = C_1 C_0;
    elsewhere ``optimal_gaussian_map`` is cheaper: straight is not optimal.

    Args:
        x: Places ``[B, D]``.
        mean0: m_0 ``[D]``.
        cov0: C_0 ``[D, D]``.
        mean1: m_1 ``[D]``.
        cov1: C_1 ``[D, D]``.

    """
    root = matrix_root(cov1)
    inverse = torch.linalg.inv(root)
    A = root @ matrix_root(inverse @ cov0 @ inverse) @ inverse
    return mean0 + (x - mean1) @ A.T


@at_the_door(_check_gaussians)
def optimal_gaussian_map(
    x: Tensor, mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor
) -> Tensor:
    """Where the cheapest transport for ‖x_1 − x_0‖² carries x_1 = ``x [B, D]``.

        T(x) = m_0 + A (x − m_1),   A = C_1^-½ (C_1^½ C_0 C_1^½)^½ C_1^-½

    A is symmetric: T is a gradient, that of a convex function, which is what makes it optimal.

    Reference:
        Knott, Smith 1984, "On the optimal mapping of distributions"; Brenier 1991.

    Args:
        x: Places ``[B, D]``.
        mean0: m_0 ``[D]``.
        cov0: C_0 ``[D, D]``.
        mean1: m_1 ``[D]``.
        cov1: C_1 ``[D, D]``.

    """
    root = matrix_root(cov1)
    inverse = torch.linalg.inv(root)
    A = inverse @ matrix_root(root @ cov0 @ root) @ inverse
    return mean0 + (x - mean1) @ A.T


def matrix_root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a symmetric positive matrix."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return vectors @ (values.sqrt()[:, None] * vectors.T)


# --- points --------------------------------------------------------------------------------------


def monotone_map(x0: Tensor, x1: Tensor) -> Tensor:
    """Where each of the numbers ``x1 [N]`` lands in one dimension: in the x_0 of its own rank.

    A flow on a line can't let one point overtake another, so it maps quantile to quantile,
    whatever the pairs were.

    Args:
        x0: ``[N]``.
        x1: ``[N]``.

    Reference:
        Liu, Gong, Liu 2023, https://arxiv.org/abs/2209.03003, section 3.4.

    Example:
        >>> monotone_map(torch.tensor([5.0, 7.0, 6.0]), torch.tensor([0.1, -0.2, 0.0]))
        tensor([7., 5., 6.])

    """
    check_floats("x0", x0, (None,))
    check_floats("x1", x1, x0.shape, dtype=x0.dtype)
    rank = x1.argsort().argsort()
    return x0.sort().values[rank]


def _check_points(x0: Tensor, x1: Tensor) -> None:
    check_floats("x0", x0, (None, 2))
    check_floats("x1", x1, x0.shape, dtype=x0.dtype)


@at_the_door(_check_points)
def crossings(x0: Tensor, x1: Tensor) -> int:
    """How many of the lines from ``x0 [N, 2]`` to ``x1`` cross in the picture, at whatever times.

    Each line has the ends of the other on its two sides. A flow may keep such crossings, if the two
    come by at different times: it is the ``meetings`` that it can't have.

    Example:
        >>> x0, x1 = torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 1.0], [1.0, 0.0]])
        >>> crossings(x0, x1), meetings(x0, x1, width=0.1)
        (1, 0)

    """

    def sides(place: Tensor) -> Tensor:
        right, up = (place[None] - x0[:, None]).unbind(2)  # from the start of line i to place j
        along, across = (x1 - x0)[:, None].unbind(2)
        return along * up - across * right  # [N, N], its sign

    cut = sides(x0) * sides(x1) < 0  # line j begins and ends on two sides of line i
    return (cut & cut.T).triu(1).sum().item()


def _check_meetings(x0: Tensor, x1: Tensor, *, width: float) -> None:
    check_floats("x0", x0, None)
    check_floats("x1", x1, x0.shape, dtype=x0.dtype)
    check_number("width", width, above=0)


@at_the_door(_check_meetings)
def meetings(x0: Tensor, x1: Tensor, *, width: float) -> int:
    """How many of the pairs ``[N, *event]`` meet: come to one place at one time, up to ``width``.

    Pairs i and j are at the distance ‖(x_0,i − x_0,j) + t ((x_1,i − x_1,j) − (x_0,i − x_0,j))‖ at
    the time t. They meet where its least is on the way, 0 < t < 1, and below ``width``, while at
    both ends it is not.
    """
    start, end = (x.flatten(1)[:, None] - x.flatten(1)[None] for x in (x0, x1))  # [N, N, D]
    by = end - start
    t = -(start * by).sum(2) / by.square().sum(2)  # of the least distance; NaN where it stays
    least = (start + t[:, :, None] * by).norm(dim=2)
    apart = torch.minimum(start.norm(dim=2), end.norm(dim=2))
    met = (t > 0) & (t < 1) & (least < width) & (apart >= width)
    return met.triu(1).sum().item()
