"""Glow: ActNorm, 1×1 convolution, affine coupling, again and again, at several scales."""

from collections.abc import Iterator, Sequence

import torch

from course_lib.checks import check_int, check_one_of, check_shape
from course_lib.flows.base import StandardGaussian, Transform
from course_lib.flows.couplings import AffineCoupling
from course_lib.flows.flow import Flow
from course_lib.flows.images import ActNorm, InvertibleConv1x1, Logit, Split, Squeeze
from course_lib.flows.realnvp import squeezed
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
        front = [] if logit is None else [Logit(shape, alpha=logit)]
        body = self.for_images(shape, levels, depth, hidden, bound, mixing, lu)
        super().__init__([*front, *body], StandardGaussian(shape))

    @staticmethod
    def for_images(
        shape: tuple[int, int, int],
        levels: int,
        depth: int,
        hidden: Sequence[int],
        bound: float | None,
        mixing: str,
        lu: bool,
    ) -> Iterator[Transform]:
        """The transforms, one after the other."""
        for level in range(levels):
            yield Squeeze()
            shape = squeezed(shape)
            for _ in range(depth):
                yield ActNorm(shape[0])
                yield mix(shape[0], mixing, lu)
                yield AffineCoupling(shape, hidden, flip=False, bound=bound)
            if level < levels - 1:
                yield Split(shape)
                shape = (shape[0] // 2, *shape[1:])


def mix(channels: int, mixing: str, lu: bool) -> InvertibleConv1x1 | Permutation:
    """What mixes the channels before a coupling: a 1×1 convolution or a fixed permutation."""
    if mixing == "conv":
        return InvertibleConv1x1(channels, lu=lu)
    order = torch.randperm(channels).tolist() if mixing == "shuffle" else None
    return Permutation(channels, order=order)
