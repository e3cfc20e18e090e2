"""RealNVP: affine couplings; for images with checkerboards, channels, and several scales."""

from collections.abc import Iterator, Sequence

from course_lib.checks import check_int, check_shape
from course_lib.flows.base import StandardGaussian, Transform
from course_lib.flows.couplings import AffineCoupling
from course_lib.flows.flow import Flow
from course_lib.flows.images import ActNorm, Logit, Split, Squeeze
from course_lib.flows.masks import ChannelMask, CheckerboardMask

__all__ = ["RealNVP"]


class RealNVP(Flow):
    """Real-valued non-volume-preserving transformations.

    **Points**: affine couplings that move the odd and the even coordinates in turn.

    **Images**: at each scale ``couplings`` with checkerboard masks, a squeeze, and as many with
    channel masks; then half of the channels leave. The last scale has one checkerboard more and no
    squeeze. An ActNorm stands before each coupling, where the paper has batch normalisation, and
    the networks are small ``ConvNet``s, where it has residual networks.

    Reference:
        Dinh, Sohl-Dickstein, Bengio 2017, https://arxiv.org/abs/1605.08803.

    Args:
        shape: ``dim`` for points, at least 2, or ``(C, H, W)`` for images.
        levels: Images only: number of scales, by default 2. Height and width must be divisible by
            2^(levels - 1), and two pixels must be left at the last.
        couplings: For points their number, by default 8; for images the number with each kind of
            mask at each scale, by default 3.
        hidden: Widths of the hidden layers of each coupling's network.
        bound: Largest log-scale of a coupling, or None.
        logit: Put a ``Logit`` with this alpha in front, for data in [0, 1].

    Example:
        >>> import torch
        >>> model = RealNVP((1, 8, 8), hidden=(16, 16), logit=0.05)
        >>> model.log_prob(torch.rand(10, 1, 8, 8)).shape
        torch.Size([10])

    """

    def __init__(
        self,
        shape: int | Sequence[int],
        *,
        levels: int | None = None,
        couplings: int | None = None,
        hidden: Sequence[int] = (64, 64),
        bound: float | None = 2.0,
        logit: float | None = None,
    ):
        if isinstance(shape, tuple | list):
            check_shape("shape", shape, any_size=False)
        base = StandardGaussian(shape)
        shape = base.event_shape
        of_points = len(shape) == 1
        if couplings is None:
            couplings = 8 if of_points else 3
        check_int("couplings", couplings, minimum=1)
        if of_points and levels is not None:
            raise ValueError(f"levels must be None for points, got {levels!r}")
        levels = 2 if levels is None else levels
        check_int("levels", levels, minimum=1)
        if of_points:
            body = self.for_points(shape, couplings, hidden, bound)
        elif shape[1] * shape[2] < 2 * 4 ** (levels - 1):
            raise ValueError(
                f"shape must leave two pixels at the last of {levels} levels, got {list(shape)}"
            )
        else:
            body = self.for_images(shape, levels, couplings, hidden, bound)
        front = [] if logit is None else [Logit(shape, alpha=logit)]
        super().__init__([*front, *body], base)

    @staticmethod
    def for_points(
        shape: tuple[int], couplings: int, hidden: Sequence[int], bound: float | None
    ) -> Iterator[Transform]:
        """The transforms for points, one after the other."""
        for i in range(couplings):
            yield AffineCoupling(shape, hidden, flip=i % 2 == 1, bound=bound)

    @staticmethod
    def for_images(
        shape: tuple[int, int, int],
        levels: int,
        couplings: int,
        hidden: Sequence[int],
        bound: float | None,
    ) -> Iterator[Transform]:
        """The transforms for images, one after the other."""

        def steps(mask: type, number: int) -> Iterator[Transform]:
            for i in range(number):
                yield ActNorm(shape[0])
                yield AffineCoupling(shape, hidden, flip=i % 2 == 1, mask=mask, bound=bound)

        for _ in range(levels - 1):
            yield from steps(CheckerboardMask, couplings)
            yield Squeeze()
            shape = squeezed(shape)
            yield from steps(ChannelMask, couplings)
            yield Split(shape)
            shape = (shape[0] // 2, *shape[1:])
        yield from steps(CheckerboardMask, couplings + 1)


def squeezed(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape after a squeeze; ``ValueError`` when there are not enough pixels for it."""
    try:
        return Squeeze().output_shape(shape)
    except ValueError as error:
        raise ValueError(f"shape must be even once more for so many levels: {error}") from None
