"""Flow matching: learn a velocity whose flow carries noise to data, without solving anything."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks import check_floats, check_one_of
from course_lib.diffusion.continuous import StraightPath
from course_lib.diffusion.denoiser import Denoiser
from course_lib.diffusion.paths import GaussianPath

__all__ = ["FlowMatching", "conditional_velocity", "marginal_velocity", "optimal_coupling"]

COUPLINGS = ("independent", "ot")


class FlowMatching(Denoiser):
    """A network that predicts the velocity a' x_0 + b' eps of the point x_t = a x_0 + b eps.

    Many pairs (x_0, eps) meet at one point, each with a velocity of its own. What the squared
    error teaches is their average, and that is the velocity of the whole: the one whose flow has
    the law of x_t at every time. On a straight path the velocity of a pair is eps − x_0.

    Reference:
        Lipman et al. 2023, https://arxiv.org/abs/2210.02747, theorems 1 and 2, with time the other
        way round; pairs by optimal transport: Tong et al. 2024, https://arxiv.org/abs/2302.00482,
        and Pooladian et al. 2023, https://arxiv.org/abs/2304.14772.

    Args:
        net: The network, as in ``Denoiser``.
        path: From data to noise.
        coupling: Which noise goes with which example of a batch: ``"independent"`` of it, or as
            ``optimal_coupling`` pairs the two, ``"ot"``, where no two ways cross in the middle.
        drop: Share of the labels that training hides, as in ``Denoiser``.

    Example:
        >>> from course_lib.nn import TimeMLP
        >>> model = FlowMatching(TimeMLP(2, [8], scale=1000), coupling="ot")
        >>> model.loss(torch.zeros(5, 2)).shape
        torch.Size([])

    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        *,
        path: GaussianPath | None = None,
        coupling: str = "independent",
        drop: float = 0.0,
    ):
        check_one_of("coupling", coupling, COUPLINGS)
        path = StraightPath() if path is None else path
        super().__init__(net, path, predicts="velocity", drop=drop)
        self.coupling = coupling

    def extra_repr(self) -> str:
        """The path and the coupling."""
        return f"path={self.path}, coupling={self.coupling}"

    def draw(self, x: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """What the loss of a batch ``x [B, *event]`` draws: times ``[B]``, and noise like ``x``.

        With optimal transport the noise changes places, the data keep theirs, and so do labels.
        """
        t, eps = super().draw(x, generator=generator)
        return t, eps[optimal_coupling(x, eps)] if self.coupling == "ot" else eps


def optimal_coupling(x0: Tensor, x1: Tensor) -> Tensor:
    """The pairing of two batches whose squared distances have the least sum.

    Args:
        x0: ``[B, *event]``.
        x1: The same shape.

    Returns:
        A permutation ``[B]``, int64: ``x0[i]`` goes with ``x1[permutation[i]]``.

    Example:
        >>> optimal_coupling(torch.tensor([[0.0], [5.0]]), torch.tensor([[6.0], [1.0]]))
        tensor([1, 0])

    """
    check_floats("x0", x0, None)
    check_floats("x1", x1, x0.shape, dtype=x0.dtype)
    if x0.ndim < 2:
        raise ValueError(f"x0 must have shape [B, *event], got {list(x0.shape)}")
    from scipy.optimize import linear_sum_assignment  # slow to import, and only this needs it

    with torch.no_grad():
        squared = torch.cdist(x0.flatten(1), x1.flatten(1)).square()  # [B, B]
    _, permutation = linear_sum_assignment(squared.cpu().numpy())
    return torch.as_tensor(permutation, device=x0.device)


def conditional_velocity(x: Tensor, x0: Tensor, t: Tensor | float, path: GaussianPath) -> Tensor:
    """The velocity at ``x [B, *event]`` of the path that starts in ``x0``: a' x_0 + b' eps.

    The noise is the one that leads from x_0 to x at time ``t``, ``[B]`` or one for all, where
    there is any: b(t) > 0.
    """
    (a, b), (da, db) = path.amounts(t, x), path.slopes(t, x)
    return da * x0 + db * (x - a * x0) / b


def marginal_velocity(x: Tensor, data: Tensor, t: Tensor | float, path: GaussianPath) -> Tensor:
    """The mean of the velocities of all paths that pass ``x``: E[dx/dt | x_t = x], ``[B, *event]``.

    Each of the ``data [K, *event]`` is as likely as the others. Seen from x, the path from data
    point k is as likely as its noise, exp(−‖x − a x_0‖² / (2 b²)): it enters with that weight.

    Reference:
        Lipman et al. 2023, https://arxiv.org/abs/2210.02747, equation 8.
    """
    check_floats("x", x, None)
    check_floats("data", data, (None, *x.shape[1:]), dtype=x.dtype)
    path.check_time(t, len(x))
    a, b = path.amounts(t, x)
    pairs = torch.stack([conditional_velocity(x, x0, t, path) for x0 in data])  # [K, B, *event]
    noise = torch.stack([((x - a * x0) / b).flatten(1) for x0 in data])
    weights = torch.softmax(-0.5 * noise.square().sum(2), dim=0)  # [K, B]
    return torch.einsum("kb,kb...->b...", weights, pairs)
