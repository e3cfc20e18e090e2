"""NICE: additive couplings in turn, one learned scale per coordinate, a factorised prior."""

from collections.abc import Sequence

from course_lib.checks import check_bool, check_int, check_one_of
from course_lib.flows.base import StandardGaussian, StandardLogistic
from course_lib.flows.couplings import AdditiveCoupling
from course_lib.flows.flow import Flow
from course_lib.flows.transforms import DiagonalScaling, Standardize

__all__ = ["NICE"]

PRIORS = {"gaussian": StandardGaussian, "logistic": StandardLogistic}


class NICE(Flow):
    """Nonlinear independent components estimation.

    Reference:
        Dinh, Krueger, Bengio 2014, https://arxiv.org/abs/1410.8516, section 3. The paper uses four
        couplings; three are the fewest with which every output can depend on every input.

    Args:
        dim: Number of coordinates, at least 2.
        couplings: Number of additive couplings; they move the odd and the even coordinates in turn.
        hidden: Widths of the hidden layers of each coupling's network.
        prior: ``"logistic"`` or ``"gaussian"``.
        standardize: Put a ``Standardize`` in front; it must ``measure`` the data before training.

    Example:
        >>> import torch
        >>> model = NICE(64)
        >>> model.log_prob(torch.rand(10, 64)).shape
        torch.Size([10])

    """

    def __init__(
        self,
        dim: int,
        *,
        couplings: int = 4,
        hidden: Sequence[int] = (128, 128),
        prior: str = "logistic",
        standardize: bool = False,
    ):
        check_int("couplings", couplings, minimum=1)
        check_one_of("prior", prior, PRIORS)
        check_bool("standardize", standardize)
        transforms = [
            *(AdditiveCoupling(dim, hidden, flip=i % 2 == 1) for i in range(couplings)),
            DiagonalScaling(dim),
        ]
        if standardize:
            transforms.insert(0, Standardize(dim))
        super().__init__(transforms, PRIORS[prior](dim))
