"""What the straight-through gradient says of a jump from one code to another."""

import math

from torch import Tensor

from course_lib.checks import check_number, check_tensor

__all__ = ["slope_of_jump"]


def slope_of_jump(z: Tensor, codebook: Tensor, gradient: Tensor, step: float) -> Tensor:
    """What the slope at the old code says of the jump that a step of z makes, ``[N]``.

    z moves to z − step · g, and so its code from e to e'. To first order a loss with gradient g at
    e changes by g · (e' − e): by 0 where no border is crossed, and never by more than 0 for a step
    downhill. For e is nearest to z and e' to z − step · g; adding up these two inequalities leaves
    step · g · (e' − e) ≤ 0.

    Args:
        z: What the encoder puts out, ``[N, d]``.
        codebook: The codes, ``[K, d]``.
        gradient: g, the gradient of the loss by the code of each z, ``[N, d]``.
        step: How far along −g; below 0 is uphill.

    Example:
        >>> codebook = torch.tensor([[0.0], [1.0]])  # with a border at 0.5
        >>> z, gradient = torch.tensor([[0.4], [0.4]]), torch.tensor([[-1.0], [1.0]])
        >>> slope_of_jump(z, codebook, gradient, step=0.2)
        tensor([-1.,  0.])

    """
    check_tensor("z", z, (None, None))
    check_tensor("codebook", codebook, (None, z.shape[1]), dtype=z.dtype)
    check_tensor("gradient", gradient, z.shape, dtype=z.dtype)
    check_number("step", step, minimum=-math.inf)
    moved = z - step * gradient
    old = codebook[(z[:, None] - codebook).square().sum(dim=2).argmin(dim=1)]
    new = codebook[(moved[:, None] - codebook).square().sum(dim=2).argmin(dim=1)]
    return (gradient * (new - old)).sum(dim=1)
