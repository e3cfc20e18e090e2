"""Glow: ActNorm, 1×1 convolution, affine coupling, again and again, at several scales."""

from collections.abc import Sequence

import torch

from course_lib.checks import check_int, check_one_of, check_shape
from course_lib.flows.base import StandardGaussian, Transform
from course_lib.flows.couplings import AffineCoupling
from course_lib.flows.flow import Flow
from course_lib.flows.images import ActNorm, InvertibleConv1x1, Logit, Split, Squeeze
from course_lib.flows.realnvp import check_even
from course_lib.flows.transforms import Permutation

__all__ = ["Glow"]


class Glow(Flow):
    """Generative flow with invertible 1×1 convolutions.

    At each level a squeeze, then ``depth`` steps of ActNorm, 1×1 convolution and affine coupling;
    after each level but the last half of the channels leave.

    Reference:
        Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039, section 3 and figure 2.

    Args:
        image_shape: ``(C, H, W)``; height and width divisible by 2^levels.
        levels: Number of scales.
        depth: Number of steps at each.
        hidden: Widths of the hidden layers of each coupling's network, or one width for two.
        mixing: What mixes the channels before each coupling: ``"conv"``, or, as in the paper's
            figure 3, a fixed permutation in its place: ``"reverse"`` or ``"shuffle"``.
        lu: Keep each 1×1 convolution as its LU factors.
        bound: Largest log-scale of a coupling, or None.
        logit: Put a ``Logit`` with this alpha in front, for data in [0, 1].

    Raises:
        ValueError: When an argument is out of range; the message names it.

    Example:
        >>> import torch
        >>> model = Glow((1, 8, 8), levels=2, depth=2, hidden=16, logit=0.05)
        >>> model.sample(3, temperature=0.7).shape
        torch.Size([3, 1, 8, 8])

    """

    def __init__(
        self,
        image_shape: Sequence[int],
        levels: int,
        depth: int,
        hidden: int | Sequence[int],
        *,
        mixing: str = "conv",
        lu: bool = True,
        bound: float | None = 2.0,
        logit: float | None = None,
    ):
        check_shape("image_shape", image_shape, lengths=(3,), any_size=False)
        check_one_of("mixing", mixing, ("conv", "reverse", "shuffle"))
        check_int("levels", levels, minimum=1)
        check_int("depth", depth, minimum=1)
        if isinstance(hidden, int):
            hidden = (hidden, hidden)
        shape = tuple(image_shape)
        transforms: list[Transform] = [] if logit is None else [Logit(shape, alpha=logit)]
        for level in range(levels):
            transforms.append(Squeeze())
            shape = check_even(shape)
            for _ in range(depth):
                if mixing == "conv":
                    mix: Transform = InvertibleConv1x1(shape[0], lu=lu)
                else:
                    order = torch.randperm(shape[0]).tolist() if mixing == "shuffle" else None
                    mix = Permutation(shape[0], order=order)
                transforms += [
                    ActNorm(shape[0]),
                    mix,
                    AffineCoupling(shape, hidden, flip=False, bound=bound),
                ]
            if level < levels - 1:
                transforms.append(Split(shape))
                shape = transforms[-1].output_shape(shape)
        super().__init__(transforms, StandardGaussian(tuple(image_shape)))
