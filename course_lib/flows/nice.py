"""NICE: additive couplings in turn, one learned scale per coordinate, a factorised prior."""

from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.checks import check_int, check_one_of
from course_lib.flows.base import StandardGaussian, StandardLogistic
from course_lib.flows.flow import Flow
from course_lib.flows.transforms import AdditiveCoupling, DiagonalScaling

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

    Raises:
        ValueError: When an argument is out of range; the message names it.

    Example:
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
    ):
        check_int("dim", dim, minimum=2)
        check_int("couplings", couplings, minimum=1)
        check_one_of("prior", prior, PRIORS)
        super().__init__(
            [
                *(AdditiveCoupling(dim, hidden, flip=i % 2 == 1) for i in range(couplings)),
                DiagonalScaling(dim),
            ],
            PRIORS[prior](dim),
        )

    @torch.no_grad()
    def initialise_scale(self, x: Tensor) -> None:
        """Start the scaling layer so that the latents of ``x [B, dim]`` spread like the prior.

        Without it most of the first training steps only find each coordinate's scale: a pixel that
        is always black varies by 1/256 and needs a factor of more than a thousand.

        Raises:
            ValueError: When ``x`` is no batch of points or a latent coordinate does not vary.

        """
        spread = self.trajectory(x)[-2].std(dim=0)  # the state just before the scaling layer
        if not (spread > 0).all():
            raise ValueError(
                "x must vary in every coordinate, got a latent coordinate that is constant"
            )
        self.transforms[-1].log_scale.copy_((self.base.std / spread).log())
